"""Which verdict a collection earns for one subject: evidence has two sides, before and after.

    before                                    after                                  verdict
    found                                     nothing unexplained                    ERASED
    found                                     rows kept under a ground until a day   RETAINED
    found                                     something unexplained                  FAILED
    found                                     gone, and not by this batch            FAILED
    not found, the canary was                 nothing                                NOT_PRESENT
    not found, nor the canary; or no baseline anything                               FAILED
    anything                                  a part unread or not examinable        FAILED
    anything                                  no file of it is there any more        FAILED
    anything                                  an inode that nothing accounts for     FAILED
    anything, and overwriting was required    old files not overwritten              FAILED
    an opaque store, rows located             construction complete                  ERASED, by construction
    an opaque store                           a clause open                          FAILED

* Without a baseline of this round nothing ever becomes ERASED.
* What the baseline saw of a subject may stand in other people's rows that are listed (shared, mentions). Where
  the subject owned nothing and nothing was changed, the collection is NOT_PRESENT, not ERASED.
* ERASED is what this batch did: it took rows out or masked values, or it rewrote the very files in which they stood
  and destroyed the old ones. Rows that were approved and that somebody else took away with their file are not that.
* A store is opaque where a search of its bytes sees nothing. Then ERASED needs every clause: (1) decoded rows held the
  person before; (2) the new file was made by us and fed only rows of others; (3) counts and digests of survivors match
  and decoding the new file finds nothing; (4) every old inode was destroyed where it lay and read back, or deleted
  where the medium refuses overwriting, and then the method is LOGICAL_DELETE; (5) no inode of the store is unaccounted
  for.
* OUT_OF_SCOPE is declared beforehand, with a reason; without one it is FAILED.
"""

from __future__ import annotations

from dataclasses import dataclass

from fangxin.data.vocabulary import Verdict


@dataclass(frozen=True)
class Observation:
    """What is known about one subject in one collection; counts as in the table of findings.

    `baseline_hits` is None where no baseline of this round exists. `out_of_scope` holds the declared reason.
    """

    rows_found: int = 0
    rows_erased: int = 0
    rows_retained: int = 0
    values_masked: int = 0
    rows_shared: int = 0
    rows_mentioned: int = 0
    rows_residual: int = 0
    rows_lost: int = 0  # approved to be erased, and not there any more when this batch came to them
    baseline_hits: int | None = None
    hits_after: int = 0
    hits_explained: int = 0
    units_expected: int = 0
    units_read: int = 0
    canary_found: bool = False
    ground: str = ""
    until: str = ""
    not_examinable: str = ""
    in_scope: bool = True
    out_of_scope: str = ""
    leftovers: int = 0  # inodes of the store that nothing accounts for
    opaque: bool = False
    open_clauses: tuple[str, ...] = ()  # of the proof by construction, where the store is opaque
    rewritten: bool = False  # the files in which they stood were rewritten by this batch, none replaced by others
    not_overwritten: str = ""  # why, where the operator required overwriting


LOST = (
    "was there before and is not found now, and this batch did not remove it: somebody else did, and what became of it"
    " is not known"
)
CLAUSES = "decoded rows, survivors only, counts agree, every old inode destroyed, none unaccounted for"
LOGICAL_CLAUSES = (
    "decoded rows, survivors only, counts agree, old inodes deleted and not overwritten, none unaccounted for"
)


_OPEN = {
    "1": "no decoded row held the person before",
    "2": "not every file was built anew by us",
    "3": "rows or values of the person were found again",
    "4": "an old file was replaced or changed by another writer, and its blocks were not overwritten and read back",
    "5": "a file of the store that nothing accounts for",
}


def verdict_of(seen: Observation) -> Verdict:
    """Judge one collection for one subject."""
    if failure(seen):
        return Verdict.FAILED
    if not seen.in_scope:
        return Verdict.OUT_OF_SCOPE
    if _nothing_of_theirs(seen):
        return Verdict.NOT_PRESENT
    return Verdict.RETAINED if seen.rows_retained else Verdict.ERASED


def failure(seen: Observation) -> str:
    """Say why the verdict is FAILED, in a sentence for the certificate; "" where it is not."""
    if not seen.in_scope:
        return "" if seen.out_of_scope else "out of scope without a declared reason"
    if seen.baseline_hits is None:
        return "no baseline of this round"
    if seen.units_read != seen.units_expected:
        return f"{seen.units_read} of {seen.units_expected} units read afterwards"
    if not seen.units_expected:
        return "no file of it is there any more, and what became of what lay there is not known"
    if seen.not_examinable:
        return "a part could not be examined"
    if seen.hits_after or seen.rows_residual:  # first, where several things failed: this is what a person has to know
        return f"{seen.hits_after} hits that nothing explains and {seen.rows_residual} rows found again"
    if seen.leftovers:
        return f"{seen.leftovers} files of the store that nothing accounts for"
    if not seen.rewritten and (seen.rows_lost or _only_seen(seen)):
        return LOST
    if _nothing_of_theirs(seen):
        return "" if seen.canary_found else "the planted control was not found"
    if not seen.baseline_hits:
        # A scanner that was blind before proves nothing after.
        return "rows were located that the baseline did not see"
    if seen.opaque and seen.open_clauses:
        open_ = "; ".join(f"clause {one} is open: {_OPEN[one]}" for one in seen.open_clauses)
        return f"an opaque store, and of the proof by construction {open_}"
    if seen.not_overwritten:
        return f"overwriting was required: {seen.not_overwritten}"
    if seen.rows_retained and not (seen.ground and seen.until):
        return "rows are kept without a ground and a date"
    return ""


def _nothing_of_theirs(seen: Observation) -> bool:
    """Nothing owned, nothing changed, and what the baseline saw, if anything, stands in listed rows of others."""
    return not _touched(seen) and not seen.rows_lost and not _only_seen(seen)


def _only_seen(seen: Observation) -> bool:
    """Nothing was done to rows of theirs, though the baseline saw something that no listed row of others explains."""
    return not _touched(seen) and bool(seen.baseline_hits) and not (seen.rows_shared or seen.rows_mentioned)


def _touched(seen: Observation) -> bool:
    return bool(seen.rows_found or seen.rows_erased or seen.rows_retained or seen.values_masked)

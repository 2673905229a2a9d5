"""Which verdict a collection earns for one subject: evidence has two sides, before and after.

    before                                    after                                  verdict
    found                                     nothing unexplained                    ERASED
    found                                     rows kept under a ground until a day   RETAINED
    found                                     something unexplained                  FAILED
    not found, the canary was                 nothing                                NOT_PRESENT
    not found, nor the canary; or no baseline anything                               FAILED
    anything                                  a part unread or not examinable        FAILED

* Without a baseline of this round nothing ever becomes ERASED.
* What the baseline saw of a subject may stand in other people's rows that are listed (shared, mentions). Where
  all of it does, and the subject owned nothing there, the collection is NOT_PRESENT, not ERASED.
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
    rows_residual: int = 0
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


def verdict_of(seen: Observation) -> Verdict:
    """Judge one collection for one subject."""
    if not seen.in_scope:
        return Verdict.OUT_OF_SCOPE if seen.out_of_scope else Verdict.FAILED
    if seen.baseline_hits is None:
        return Verdict.FAILED
    if seen.not_examinable or seen.units_read != seen.units_expected:
        return Verdict.FAILED
    if seen.hits_after or seen.rows_residual:
        return Verdict.FAILED
    if _only_in_rows_of_others(seen, seen.baseline_hits):
        return Verdict.NOT_PRESENT if seen.canary_found else Verdict.FAILED
    if not seen.baseline_hits:
        # Rows were located that the baseline did not see: a scanner blind before proves nothing after.
        return Verdict.FAILED
    if seen.rows_retained:
        return Verdict.RETAINED if seen.ground and seen.until else Verdict.FAILED
    return Verdict.ERASED


def _only_in_rows_of_others(seen: Observation, baseline_hits: int) -> bool:
    nothing_owned = not (seen.rows_found or seen.rows_erased or seen.rows_retained or seen.values_masked)
    return nothing_owned and baseline_hits <= seen.hits_explained

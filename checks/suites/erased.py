"""Nothing is published unless every finding of the batch holds: the suite over the table of findings.

The table has one row per subject and collection and counts only. It is judged as a whole (complete, unique,
no nulls, no FAILED) and then by verdict, because the verdicts promise different things:

* ERASED: the baseline found the subject, this batch removed it in a named way, every unit was read again, nothing
  unexplained is left.
* NOT_PRESENT: the baseline's control (the canary) was found in that collection, the subject was not, or only in
  other people's rows that are listed.
* RETAINED: a rule, a date or an officer, rows that are really there; everything else of theirs is gone.
* OUT_OF_SCOPE: declared, with its reason.
* FAILED: never, but where an operator ends a batch as it stands; then with its reason, and without any claim.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fangxin.checks.suites.judgement import Answer, Expectations, Suite, run
from fangxin.data.vocabulary import FINDING, Method

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = tuple(FINDING.names)
ALLOWED = ("ERASED", "NOT_PRESENT", "RETAINED", "OUT_OF_SCOPE")
COUNTS = tuple(c for c in COLUMNS if c.startswith(("rows_", "units_", "bytes_", "hits_", "values_", "baseline_")))


def judge(findings: pd.DataFrame, *, subjects: int, collections: int, tmp: Path, as_it_stands: bool = False) -> Answer:
    """Judge the findings of one batch; `subjects` and `collections` come from cohort and catalog, not from the table.

    `as_it_stands`: an operator ends the batch though something FAILED; all else has to hold as ever.

    A missing column raises inside its expectation, so the answer is INCONCLUSIVE, not FAILED.
    """
    verdicts = (*ALLOWED, "FAILED") if as_it_stands else ALLOWED
    suites = [Suite("findings", findings, lambda e: _whole(e, subjects * collections, verdicts))]
    if set(COLUMNS) <= set(findings.columns):  # else "findings" raises, and nothing more can be said
        suites += [
            Suite(name, rows, expectations)
            for name, rows, expectations in _by_verdict(findings)
            # An empty group promises nothing; that the groups add up is what "findings" holds.
            if len(rows)
        ]
    return run(suites, tmp=tmp)


def _by_verdict(findings: pd.DataFrame) -> list[tuple[str, pd.DataFrame, Expectations]]:
    """The rows of each verdict; a null counts as 0 here, "findings" refuses it."""
    import pandas as pd

    counts = findings[list(COUNTS)].apply(pd.to_numeric, errors="coerce").fillna(0)
    verdict = findings["verdict"]
    acted = counts["rows_erased"] + counts["values_masked"] > 0
    elsewhere = findings.assign(listed=counts["rows_shared"] + counts["rows_mentioned"])
    return [
        ("erased", findings[verdict == "ERASED"], _erased),
        ("acted", findings[acted], _acted),
        ("not_present", findings[verdict == "NOT_PRESENT"], _not_present),
        ("mentioned", elsewhere[(verdict == "NOT_PRESENT") & (counts["baseline_hits"] > 0)], _mentioned),
        ("retained", findings[verdict == "RETAINED"], _retained),
        ("out_of_scope", findings[verdict == "OUT_OF_SCOPE"], _out_of_scope),
        ("failed", findings[verdict == "FAILED"], _failed),
    ]


def _whole(e: Any, rows: int, verdicts: Sequence[str]) -> Sequence[Any]:
    return [
        *[e.ExpectColumnValuesToNotBeNull(column=c) for c in COLUMNS],
        e.ExpectTableColumnsToMatchSet(column_set=list(COLUMNS), exact_match=True),
        e.ExpectTableRowCountToEqual(value=rows),
        e.ExpectTableRowCountToBeBetween(min_value=1),
        e.ExpectCompoundColumnsToBeUnique(column_list=["subject", "dataset", "collection"]),
        e.ExpectColumnValuesToBeInSet(column="verdict", value_set=list(verdicts)),
        *[e.ExpectColumnValuesToBeBetween(column=c, min_value=0) for c in COUNTS],
    ]


def _examined_and_clean(e: Any) -> list[Any]:
    return [
        *[e.ExpectColumnValuesToBeInSet(column=c, value_set=[0]) for c in ("rows_residual", "hits_after")],
        e.ExpectColumnPairValuesToBeEqual(column_A="units_expected", column_B="units_read"),
        *[e.ExpectColumnValuesToBeBetween(column=c, min_value=1) for c in ("units_read", "bytes_read")],
        e.ExpectColumnValuesToBeInSet(column="not_examinable", value_set=[""]),
    ]


def _erased(e: Any) -> Sequence[Any]:
    return [
        *_examined_and_clean(e),
        *_acted(e),
        e.ExpectColumnValuesToBeBetween(column="baseline_hits", min_value=1),
        e.ExpectColumnValuesToBeInSet(column="rows_retained", value_set=[0]),
        e.ExpectColumnValuesToBeInSet(column="ground", value_set=[""]),
    ]


def _acted(e: Any) -> Sequence[Any]:
    """Where something was done, the certificate says how."""
    methods = [method.value for method in Method if method is not Method.EXPIRY]
    return [e.ExpectColumnValuesToBeInSet(column="method", value_set=methods)]


def _not_present(e: Any) -> Sequence[Any]:
    untouched = ("rows_found", "rows_erased", "rows_retained", "values_masked")
    return [
        *_examined_and_clean(e),
        e.ExpectColumnValuesToBeInSet(column="canary_found", value_set=[True]),
        *[e.ExpectColumnValuesToBeInSet(column=c, value_set=[0]) for c in untouched],
    ]


def _mentioned(e: Any) -> Sequence[Any]:
    """What the baseline saw of somebody who owns nothing here stands in listed rows of other people."""
    return [e.ExpectColumnValuesToBeBetween(column="listed", min_value=1)]


def _retained(e: Any) -> Sequence[Any]:
    return [
        *_examined_and_clean(e),
        *[e.ExpectColumnValuesToBeBetween(column=c, min_value=1) for c in ("baseline_hits", "rows_retained")],
        e.ExpectColumnValueLengthsToBeBetween(column="ground", min_value=1),
        e.ExpectColumnValuesToMatchRegex(column="until", regex=r"^(?:[0-9]{4}-[0-9]{2}-[0-9]{2}|officer)\Z"),
    ]


def _out_of_scope(e: Any) -> Sequence[Any]:
    return [
        e.ExpectColumnValueLengthsToBeBetween(column="reason", min_value=1),
        *[e.ExpectColumnValuesToBeInSet(column=c, value_set=[0]) for c in ("rows_erased", "values_masked")],
    ]


def _failed(e: Any) -> Sequence[Any]:
    return [
        e.ExpectColumnValueLengthsToBeBetween(column="reason", min_value=1),
        e.ExpectColumnValuesToBeInSet(column="claim", value_set=[""]),
    ]

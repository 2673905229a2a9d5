"""Great Expectations stands between validation and publishing; one file, because its import costs seconds."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from fangxin.checks.suites.erased import COLUMNS, judge
from fangxin.checks.suites.exported import judge_export
from fangxin.checks.suites.judgement import Answer, Judgement, raised, run
from fangxin.data.errors import DoesNotHold, Incomplete

SUBJECTS = 2
COLLECTIONS = ("accounts", "orders", "coupons", "partners")


def row(subject: int, collection: str, **values: object) -> dict[str, object]:
    plain: dict[str, object] = dict.fromkeys(COLUMNS, 0)
    plain |= {
        "subject": subject, "dataset": "lecard", "collection": collection, "store": "parquet:lake", "method": "",
        "claim": "", "reason": "", "units_expected": 3, "units_read": 3, "bytes_read": 4096, "canary_found": True,
        "ground": "", "until": "", "not_examinable": "",
    } | values  # fmt: skip
    return plain


def findings() -> pd.DataFrame:
    """Two people, four collections: erased, retained, absent, and one declared out of scope."""
    rows = []
    for subject in range(SUBJECTS):
        erased = {"verdict": "ERASED", "method": "OVERWRITE", "rows_found": 2, "rows_erased": 2, "baseline_hits": 9}
        kept = {"verdict": "RETAINED", "method": "OVERWRITE", "rows_found": 4, "rows_erased": 1, "rows_retained": 3}
        rows += [
            row(subject, "accounts", **erased, bytes_overwritten=8192),
            row(subject, "orders", **kept, baseline_hits=5, hits_explained=3, ground="CN-ECL-31", until="2029-11-22"),
            row(subject, "coupons", verdict="NOT_PRESENT", rows_mentioned=1, baseline_hits=1, hits_explained=1),
            row(subject, "partners", verdict="OUT_OF_SCOPE", reason="held by a partner, told on 2026-11-22"),
        ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def judged(table: pd.DataFrame, tmp_path: Path) -> Answer:
    return judge(table, subjects=SUBJECTS, collections=len(COLLECTIONS), tmp=tmp_path)


def put(collection: str, column: str, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        changed = table.astype({column: object})
        changed.loc[(changed["subject"] == 1) & (changed["collection"] == collection), column] = value
        return changed

    return change


def test_a_batch_that_holds_may_be_published(tmp_path: Path) -> None:
    before = tempfile.gettempdir()
    judgement = judged(findings(), tmp_path)
    assert judgement == Answer(Judgement.PASSED)
    judgement.require("findings of the batch")
    assert tempfile.gettempdir() == before
    assert list(tmp_path.iterdir()) == []


STOPPED = {
    "a planted hit": (put("accounts", "hits_after", 1), "erased: expect_column_values_to_be_in_set(hits_after)"),
    "a null": (put("coupons", "reason", None), "findings: expect_column_values_to_not_be_null(reason)"),
    "a failed verdict": (put("accounts", "verdict", "FAILED"), "findings: expect_column_values_to_be_in_set(verdict)"),
    "a missing collection": (lambda t: t[t["collection"] != "coupons"], "findings: expect_table_row_count_to_equal()"),
    "one collection twice": (put("coupons", "collection", "orders"), "expect_compound_columns_to_be_unique"),
    "an empty table": (lambda t: t.iloc[:0], "findings: expect_table_row_count_to_equal()"),
    "a column too many": (lambda t: t.assign(name="someone"), "expect_table_columns_to_match_set"),
}


@pytest.mark.parametrize("what", STOPPED)
def test_publishing_is_stopped_by(what: str, tmp_path: Path) -> None:
    change, named = STOPPED[what]
    judgement = judged(change(findings()), tmp_path)
    assert judgement.verdict is Judgement.FAILED
    assert any(named in failed for failed in judgement.failed), judgement.failed
    with pytest.raises(DoesNotHold, match="resume"):
        judgement.require("findings of the batch")


BROKEN = [  # collection, column, value: each breaks exactly the expectation that is named
    ("accounts", "hits_after", 1, "erased: expect_column_values_to_be_in_set(hits_after)"),
    ("accounts", "rows_residual", 1, "erased: expect_column_values_to_be_in_set(rows_residual)"),
    ("accounts", "method", "", "erased: expect_column_values_to_be_in_set(method)"),
    ("accounts", "baseline_hits", 0, "erased: expect_column_values_to_be_between(baseline_hits)"),
    ("accounts", "units_read", 2, "erased: expect_column_pair_values_to_be_equal(units_expected, units_read)"),
    ("accounts", "method", "UNLINK", "acted: expect_column_values_to_be_in_set(method)"),
    ("accounts", "rows_retained", 1, "erased: expect_column_values_to_be_in_set(rows_retained)"),
    ("orders", "hits_after", 1, "retained: expect_column_values_to_be_in_set(hits_after)"),
    ("orders", "not_examinable", "a part", "retained: expect_column_values_to_be_in_set(not_examinable)"),
    ("orders", "ground", "", "retained: expect_column_value_lengths_to_be_between(ground)"),
    ("orders", "until", "some day", "retained: expect_column_values_to_match_regex(until)"),
    ("orders", "rows_retained", 0, "retained: expect_column_values_to_be_between(rows_retained)"),
    ("coupons", "bytes_read", 0, "not_present: expect_column_values_to_be_between(bytes_read)"),
    ("coupons", "canary_found", False, "not_present: expect_column_values_to_be_in_set(canary_found)"),
    ("coupons", "rows_found", 1, "not_present: expect_column_values_to_be_in_set(rows_found)"),
    ("coupons", "rows_mentioned", 0, "mentioned: expect_column_values_to_be_between(listed)"),
    ("partners", "reason", "", "out_of_scope: expect_column_value_lengths_to_be_between(reason)"),
    ("partners", "rows_erased", -1, "findings: expect_column_values_to_be_between(rows_erased)"),
    ("partners", "rows_erased", -1, "out_of_scope: expect_column_values_to_be_in_set(rows_erased)"),
]


def test_every_broken_promise_of_a_verdict_is_named_and_no_other(tmp_path: Path) -> None:
    table = pd.concat([findings().assign(subject=lambda t, n=n: t["subject"] + 2 * n) for n in range(len(BROKEN))])
    for n, (collection, column, value, _named) in enumerate(BROKEN):
        table = table.astype({column: object})
        table.loc[(table["subject"] == 2 * n) & (table["collection"] == collection), column] = value
    judgement = judge(table, subjects=2 * len(BROKEN), collections=len(COLLECTIONS), tmp=tmp_path)
    assert judgement.verdict is Judgement.FAILED
    assert judgement.failed == tuple(sorted({named for *_rest, named in BROKEN}))


@pytest.mark.parametrize("column", ["hits_after", "verdict"])
def test_an_expectation_that_raises_stops_publishing_too(column: str, tmp_path: Path) -> None:
    judgement = judged(findings().drop(columns=[column]), tmp_path)
    assert judgement.verdict is Judgement.INCONCLUSIVE
    with pytest.raises(Incomplete, match="raised"):
        judgement.require("findings of the batch")


def test_an_empty_cohort_publishes_nothing(tmp_path: Path) -> None:
    judgement = judge(findings().iloc[:0], subjects=0, collections=0, tmp=tmp_path)
    assert judgement.verdict is Judgement.FAILED
    assert run([], tmp=tmp_path).verdict is Judgement.INCONCLUSIVE


def test_a_judgement_never_repeats_a_value(tmp_path: Path) -> None:
    judgement = judged(put("accounts", "verdict", "13900001111")(findings()), tmp_path)
    assert judgement.verdict is Judgement.FAILED
    assert "13900001111" not in repr(judgement)


def test_both_shapes_of_a_raised_exception_are_read() -> None:
    assert raised({"raised_exception": True, "exception_message": "x"})
    assert raised({"('column.max', 'x')": {"raised_exception": True}, "other": {"raised_exception": False}})
    assert not raised({"raised_exception": False})
    assert not raised({"('column.max', 'x')": {"raised_exception": False}})
    assert not raised(None)


def exported() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "collection": ["lecard/accounts", "lecard/orders", "lecard/coupons"],
            "rows_located": [2, 17, 0],
            "rows_exported": [2, 17, 0],
            "files": [1, 2, 0],
        }
    )


def test_an_export_with_all_located_rows_is_complete(tmp_path: Path) -> None:
    assert judge_export(exported(), collections=3, tmp=tmp_path).verdict is Judgement.PASSED


@pytest.mark.parametrize(
    ("what", "change", "outcome"),
    [
        ("a row short", lambda t: t.assign(rows_exported=[2, 16, 0]), Judgement.FAILED),
        ("rows without a file", lambda t: t.assign(files=[1, 0, 0]), Judgement.FAILED),
        ("a collection missing", lambda t: t.iloc[:2], Judgement.FAILED),
        ("a collection twice", lambda t: t.assign(collection=["a", "a", "b"]), Judgement.FAILED),
        ("a null", lambda t: t.assign(rows_exported=[2, None, 0]), Judgement.FAILED),
        ("an empty table", lambda t: t.iloc[:0], Judgement.FAILED),
        ("a column dropped", lambda t: t.drop(columns=["rows_exported"]), Judgement.INCONCLUSIVE),
    ],
)
def test_an_incomplete_export_is_stopped(
    what: str, change: Callable[[pd.DataFrame], pd.DataFrame], outcome: Judgement, tmp_path: Path
) -> None:
    assert judge_export(change(exported()), collections=3, tmp=tmp_path).verdict is outcome, what


def test_an_operator_s_word_lets_a_failure_pass_that_says_why_and_claims_nothing(tmp_path: Path) -> None:
    def said(**values: object) -> pd.DataFrame:
        rows = findings()
        rows.loc[(rows["subject"] == 1) & (rows["collection"] == "accounts"), list(values)] = list(values.values())
        return rows

    conceded = {"subjects": SUBJECTS, "collections": len(COLLECTIONS), "tmp": tmp_path, "as_it_stands": True}
    failed = said(verdict="FAILED", reason="clause 4 is open")
    assert judge(failed, **conceded).verdict is Judgement.PASSED
    wrong = judge(said(verdict="FAILED", reason="", claim="overwritten"), **conceded)
    assert wrong.failed == tuple(f"failed: expect_column_{one}" for one in (
        "value_lengths_to_be_between(reason)", "values_to_be_in_set(claim)"))  # fmt: skip

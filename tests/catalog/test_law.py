"""How long the law keeps a record is decided per class and date, and never in favour of keeping by guess."""

from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fangxin.data.catalog.law import Laws, Period
from fangxin.data.errors import CatalogError, InputError
from fangxin.data.vocabulary import Retention, Until

FOLDER = Path(__file__).parents[2] / "data/laws"
TODAY = date(2026, 11, 23)
FACTS = frozenset({"platform_operator", "aml_subject"})


@pytest.fixture(scope="module")
def laws() -> Laws:
    return Laws.load(FOLDER)


def decide(laws: Laws, label: str, start: date | None, facts: frozenset[str] = FACTS) -> Until | None:
    return laws.decide(Retention("pipl", label, "at"), start, facts=facts, today=TODAY)


@pytest.mark.parametrize(
    ("label", "start", "rule", "day"),
    [
        ("order", date(2025, 6, 30), "ecommerce-31", date(2028, 6, 30)),
        ("order", date(2023, 11, 23), "ecommerce-31", date(2026, 11, 23)),
        ("wallet.kyc", date(2026, 11, 1), "aml-2025-34", date(2036, 11, 1)),
        ("kyc", date(2026, 11, 1), "aml-2025-34", date(2036, 11, 1)),
        ("wallet.txn", date(2025, 1, 1), "aml-2025-34-txn", date(2035, 1, 1)),
        ("wallet.txn", date(2024, 12, 31), "aml-2006-19", date(2029, 12, 31)),
        ("invoice", date(2024, 2, 29), "tax-rules-29", date(2034, 2, 28)),
        ("voucher", date(2020, 12, 31), "accounting-archives-30", date(2050, 12, 31)),
        ("network.log", date(2026, 8, 31), "cybersecurity-21-logs", date(2027, 2, 28)),
    ],
)
def test_a_record_under_a_statutory_period_is_sealed_until_its_last_day(
    laws: Laws, label: str, start: date, rule: str, day: date
) -> None:
    found = decide(laws, label, start)
    assert found is not None
    assert (found.rule, found.day) == (rule, day)
    assert found.text_en
    assert found.text_zh


@pytest.mark.parametrize("label", ["account", "profile", "contact", "behaviour", "coupon", "device", "support.ticket"])
def test_what_no_statute_keeps_is_erased_now(laws: Laws, label: str) -> None:
    assert decide(laws, label, date(2026, 11, 22)) is None
    assert decide(laws, label, None) is None


def test_a_period_that_has_passed_keeps_nothing(laws: Laws) -> None:
    assert decide(laws, "order", date(2023, 11, 22)) is None


def test_a_missing_date_goes_to_an_officer_and_is_neither_erased_nor_kept_for_ever(laws: Laws) -> None:
    found = decide(laws, "order", None)
    assert found is not None
    assert (found.rule, found.day) == ("ecommerce-31", None)


def test_a_rule_binds_only_an_operator_it_is_meant_for(laws: Laws) -> None:
    assert decide(laws, "wallet.kyc", date(2026, 1, 1), frozenset()) is None
    assert laws.wanted_facts([Retention("pipl", "wallet.kyc", "closed")]) == {"aml_subject"}
    assert laws.wanted_facts([Retention("pipl", "coupon", "closed")]) == frozenset()


def test_an_open_transition_ends_with_an_officer_not_with_erasure(laws: Laws) -> None:
    found = decide(laws, "wallet.txn", date(2018, 5, 1))
    assert found is not None
    assert (found.rule, found.day) == ("aml-2006-19", None)


def rules(tmp_path: Path, *bodies: str) -> Laws:
    common = "in_force: {from: 2000-01-01}, class: [order], outcome: seal, source: s, text: {zh: 甲, en: a}"
    lines = "\n".join(f"  - {{{common}, {b}}}" for b in bodies)
    (tmp_path / "x.yaml").write_text(f"jurisdiction: x\nrules:\n{lines}\n", "utf-8")
    return Laws.load(tmp_path)


def given_order(laws: Laws) -> Until | None:
    return laws.decide(Retention("x", "order", "at"), date(2026, 1, 31), facts=FACTS, today=TODAY)


def test_the_longest_lawful_period_wins_and_the_other_is_named(tmp_path: Path) -> None:
    found = given_order(
        rules(
            tmp_path,
            "id: short, confidence: verbatim, keep: {at_least: P1Y, from: a}",
            "id: long, confidence: verbatim, keep: {at_least: P13M, from: a}",
        )
    )
    assert found == Until("long", date(2027, 2, 28), "a (also applies: short)", "甲（同时适用：short）")


def test_at_least_beyond_at_most_goes_to_an_officer(tmp_path: Path) -> None:
    found = given_order(
        rules(
            tmp_path,
            "id: least, confidence: verbatim, keep: {at_least: P3Y, from: a}",
            "id: most, confidence: verbatim, keep: {at_most: P2Y, from: a}",
        )
    )
    assert found is not None
    assert (found.rule, found.day) == ("least", None)


def test_a_cap_alone_seals_until_the_day_it_must_be_gone(tmp_path: Path) -> None:
    found = given_order(rules(tmp_path, "id: most, confidence: verbatim, keep: {at_most: P1Y, from: a}"))
    assert found is not None
    assert found.day == date(2027, 1, 31)


@pytest.mark.parametrize("weak", ["confidence: unconfirmed", "confidence: verbatim, status: draft"])
def test_drafts_and_unconfirmed_rules_never_lengthen_a_seal(tmp_path: Path, weak: str) -> None:
    assert given_order(rules(tmp_path, f"id: weak, {weak}, keep: {{at_least: P9Y, from: a}}")) is None


@pytest.mark.parametrize(
    ("start", "count", "unit", "last"),
    [
        (date(2026, 1, 31), 1, "M", date(2026, 2, 28)),
        (date(2024, 2, 29), 1, "Y", date(2025, 2, 28)),
        (date(2026, 12, 31), 2, "M", date(2027, 2, 28)),
        (date(2026, 12, 15), 12, "M", date(2027, 12, 15)),
        (date(2026, 2, 10), 15, "D", date(2026, 2, 25)),
    ],
)
def test_periods_are_counted_as_the_civil_code_says(start: date, count: int, unit: str, last: date) -> None:
    assert Period(count, unit).after(start) == last


def test_a_column_is_decided_like_its_dates(laws: Laws) -> None:
    texts = pa.array(
        ["2025-06-30", "2025-06-30 23:59:59", "2025-06-30T17:00:00Z", "2025-02-30", None, "soon", "2020-01-01"]
    )
    found = laws.decide_column(Retention("pipl", "order", "at"), texts, facts=FACTS, today=TODAY)
    june = date(2028, 6, 30)
    assert found.until.to_pylist() == [june, june, date(2028, 7, 1), None, None, None, None]
    assert found.officer.to_pylist() == [False, False, False, True, True, True, False]
    assert found.rule.to_pylist() == ["ecommerce-31"] * 6 + [None]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.none() | st.datetimes(datetime(2015, 1, 1), datetime(2027, 1, 1)), max_size=12))  # noqa: DTZ001
def test_dates_times_zones_and_dictionaries_give_the_same_decision(moments: list[datetime | None]) -> None:
    laws = Laws.load(FOLDER)
    days = [m and m.date() for m in moments]
    retention = Retention("pipl", "order", "at")
    expected = [laws.decide(retention, d, facts=FACTS, today=TODAY) for d in days]
    naive = pa.array(moments, pa.timestamp("us"))
    for column in (
        naive,
        pa.array(days, pa.date32()),
        pa.array(days, pa.date64()),
        pa.array(days, pa.date32()).dictionary_encode(),
        pa.array([m and m.isoformat() for m in moments], pa.large_string()),
        pa.compute.assume_timezone(naive, "+08:00"),
    ):
        found = laws.decide_column(retention, column, facts=FACTS, today=TODAY)
        assert found.until.to_pylist() == [e.day if e else None for e in expected]
        assert found.officer.to_pylist() == [bool(e and e.day is None) for e in expected]


def test_a_column_that_holds_no_dates_is_refused(laws: Laws) -> None:
    with pytest.raises(InputError, match="expected a date, timestamp or ISO text; found int64"):
        laws.decide_column(Retention("pipl", "order", "at"), pa.array([1]), facts=FACTS, today=TODAY)


def test_a_law_nobody_wrote_down_is_refused(laws: Laws) -> None:
    with pytest.raises(InputError, match='law "hipaa" is not loaded; expected one of ccpa, drop, gdpr'):
        laws.decide(Retention("hipaa", "order", "at"), datetime.now(UTC).date(), facts=FACTS, today=TODAY)


def test_the_law_in_force_is_named_by_its_digest(laws: Laws) -> None:
    assert set(laws.digests) == {"ccpa", "drop", "gdpr", "hold", "lgpd", "pipl", "uk"}
    assert len(laws.digests["pipl"]) == 64


def test_every_rule_says_in_two_languages_why_and_where_it_stands(laws: Laws) -> None:
    for rule in laws.laws["pipl"].rules:
        assert rule.text_zh.endswith("。")
        assert rule.text_en.endswith(".")
        assert rule.source
        assert rule.outcome == "erase" or rule.at_least or rule.at_most


def test_a_wrong_law_file_is_told_what_is_wrong_and_where(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(
        """jurisdiction: x
rules:
  - id: a
    in_force: {from: 2019-13-01}
    class: [order]
    keep: {at_least: 3 years, from: trade.completed}
    outcome: seel
    text: {zh: 甲}
    source: s
    confidence: sure
  - id: b
    in_force: {from: 2019-01-01}
    class: [order]
    outcome: seal
    txet: {}
    text: {zh: 甲, en: a}
    source: s
    confidence: verbatim
deadlines:
  - {id: c, start: request, within: soon, unit: fortnight, calendar: cn}
""",
        "utf-8",
    )
    with pytest.raises(CatalogError) as caught:
        Laws.load(tmp_path)
    assert [p.removeprefix(f"{tmp_path}/") for p in caught.value.problems] == [
        'x.yaml:4:22: in_force.from: expected a date as YYYY-MM-DD; found "2019-13-01"',
        'x.yaml:6:22: keep.at_least: expected a period such as P3Y, P6M or P15D; found "3 years"',
        'x.yaml:7:14: outcome: expected one of erase, seal; found "seel"; did you mean "seal"?',
        'x.yaml:8:11: text has no "en"; add it',
        'x.yaml:10:17: confidence: expected one of verbatim, secondary, unconfirmed; found "sure"',
        "x.yaml:14:14: a rule that seals has no keep.at_least or keep.at_most; nothing is kept without an end",
        'x.yaml:15:5: unknown key "txet" in a rule; did you mean "text"?',
        'x.yaml:20:37: within: expected a whole number of at least 1; found "soon"',
        'x.yaml:20:49: unit: expected one of hour, day, working_day, month, year; found "fortnight"',
    ]


def test_a_folder_without_laws_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="no law found"):
        Laws.load(tmp_path)

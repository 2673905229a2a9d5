"""Dates until which something is kept are computed again: from the event, and from a rule that was loaded before."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any  # JSON documents

import pytest
from evidence.small_home import KEPT, NOW, SECRET, TABLE, Home, certificate, entry, issue, sha

from fangxin.checks import verify
from fangxin.data.catalog.law import Laws
from fangxin.data.requests import Request
from fangxin.data.vocabulary import Retention
from fangxin.flows.baseline import _retained
from fangxin.flows.estate import LAWS
from fangxin.flows.evidence import retention
from fangxin.flows.plan import Plan
from fangxin.reports.ledger import entries

EARLIER = TABLE.replace(b"P3Y", b"P90D")


def told(home: Home) -> verify.Check:
    """What the step says of the home as it is now."""
    return next(one for one in verify.verify(home.pack(), trust=home.trust) if one.name == "retention")


def test_the_dates_of_entries_and_certificates_follow_from_the_rules(home: Home) -> None:
    assert (told(home).result, told(home).reason[:7]) == (verify.HOLDS, "2 dates")


@pytest.mark.parametrize(
    ("changed", "result", "reason"),
    [
        ({"until": "2029-12"}, verify.FALSE, "another date"),
        ({"until": "2029-10"}, verify.FALSE, "another date"),
        ({"event": "2018-11", "until": "2021-11"}, verify.FALSE, "another date"),  # before the rule was in force
        ({"event": "0000-01"}, verify.FALSE, "another date"),
        ({"event": "9999-01", "until": "9999-02"}, verify.FALSE, "another date"),
        ({"rule": "ecommerce-99"}, verify.FALSE, "no law loaded"),
        ({"class": "profile"}, verify.FALSE, "not for that class"),
        ({"until": "officer"}, verify.FALSE, "an officer decides"),
        ({"event": None}, verify.MISSING, "does not say when"),
        ({"event": None, "until": "officer"}, verify.HOLDS, "3 dates"),
        ({"event": "2024-02", "until": "2027-02"}, verify.HOLDS, "3 dates"),
    ],
)
def test_an_entry_with_another_date_is_false(
    home: Home, changed: dict[str, str | None], result: str, reason: str
) -> None:
    fields = {key: value for key, value in {**KEPT, **changed}.items() if value is not None}
    home.ledger.append([entry("retained", tag=entries.tag(SECRET, 9), **fields)])
    assert (told(home).result, reason in told(home).reason) == (result, True), told(home)


def test_one_collection_may_hold_two_classes_of_records(home: Home) -> None:
    """Rows whose columns two rules keep are one entry, under the rule that keeps longest."""
    import pandas as pd

    other = b',{"begins":"2010-01-01","classes":["invoice"],"from":"year.end","id":"tax-1","keep":"P1Y","law":"cn"}]}'
    both = TABLE[:-2] + other
    (home.folder / "retention-2.json").write_bytes(both)
    home.parts["laws"].append(home.folder / "retention-2.json")
    home.ledger.append([entry("law.loaded", digest=sha(both), law="retention")])
    row = {"subject": 1, "collection": "shop/trades", "fate": "retain", "held": "invoice,order", "rule": "ecommerce-31"}
    fates = pd.DataFrame([row | {"event": "2026-11-22", "until": "2029-11-22"}])
    empty = pd.DataFrame()
    one = Request("r-1", "b-1", 1, False, b"", SECRET, ())
    (kept,) = _retained(Plan(fates, empty, empty, ""), one)
    assert (kept["class"], kept["until"]) == ("invoice,order", "2029-11")
    home.ledger.append([{**kept, "time": NOW}])
    assert told(home).result == verify.HOLDS, told(home)
    home.ledger.append([{**kept, "time": NOW, "class": "order,wishes", "tag": entries.tag(SECRET, 9)}])
    assert (told(home).result, "not for that class" in told(home).reason) == (verify.FALSE, True)


@pytest.mark.parametrize(
    ("event", "until", "result"),
    [
        ("2024-11", "2025-01", verify.HOLDS),  # 1 November and 90 days: 30 January
        ("2024-11", "2025-02", verify.HOLDS),  # 30 November and 90 days: 28 February
        ("2024-11", "2025-03", verify.FALSE),
    ],
)
def test_each_entry_follows_the_table_that_was_loaded_last_before_it(
    home: Home, event: str, until: str, result: str
) -> None:
    (home.folder / "retention-2.json").write_bytes(EARLIER)
    home.parts["laws"].append(home.folder / "retention-2.json")
    home.ledger.append([entry("law.loaded", digest=sha(EARLIER), law="retention")])
    home.ledger.append([entry("retained", tag=entries.tag(SECRET, 9), **{**KEPT, "event": event, "until": until})])
    assert told(home).result == result, told(home)


def test_without_the_table_nothing_can_be_computed(home: Home) -> None:
    home.parts["laws"].pop()
    assert (told(home).result, "not in the package" in told(home).reason) == (verify.MISSING, True)


def _row(**changed: Any) -> Callable[[dict[str, Any]], object]:
    return lambda document: document["retained"][0].update(changed)


@pytest.mark.parametrize(
    ("lie", "result", "reason"),
    [
        (_row(until="2029-11-23"), verify.FALSE, "another date"),
        (_row(event="2026-11-21"), verify.FALSE, "another date"),
        (_row(rule="ecommerce-99"), verify.FALSE, "no law loaded"),
        (_row(until="2029-02-30"), verify.FALSE, "does not exist"),
        (_row(event="soon"), verify.FALSE, "does not exist"),
        (_row(event=7), verify.FALSE, "does not exist"),
        (_row(rows=2), verify.FALSE, "another number of rows"),
        (_row(rows=-1), verify.FALSE, "without their count"),
        (_row(until=None), verify.FALSE, "retained without"),
        (lambda document: document.update(retained="nothing"), verify.FALSE, "retained without"),
        (lambda document: document.update(retained=[]), verify.MISSING, "no rule is listed"),
        (lambda document: document["retained"][0].pop("event"), verify.MISSING, "does not say when"),
        (lambda document: document["collections"][2].update(until="2031-01-01"), verify.FALSE, "another day"),
    ],
)
def test_a_certificate_with_another_date_is_false(
    home: Home, lie: Callable[[dict[str, Any]], object], result: str, reason: str
) -> None:
    validated = next(index for index, one in home.ledger.entries() if one["type"] == "validated")
    document = certificate(validated)
    lie(document)
    home.parts["certificates"] = issue(home.folder, home.ledger, document, b"<!doctype html>")
    home.parts["proofs"]["C-1.tlog-proof"] = home.ledger.receipt(home.ledger.size - 1)
    assert (told(home).result, reason in told(home).reason) == (result, True), told(home)


@pytest.mark.parametrize(
    "table",
    [
        b"{}",
        b"[]",
        TABLE.replace(b"retention/1", b"retention/2"),
        TABLE.replace(b"P3Y", b"P0Y"),
        TABLE.replace(b"P3Y", b"3 years"),
        TABLE.replace(b"2019-01-01", b"2019-02-30"),
        TABLE.replace(b'["order"]', b'"order"'),
        TABLE.replace(b'["order"]', b"[7]"),
        TABLE.replace(b'"begins"', b'"always":"yes","begins"'),
        b'{"format":"fangxin/retention/1","rules":7}',
    ],
)
def test_a_malformed_table_is_refused_with_a_message_of_its_own(table: bytes) -> None:
    assert [one.id for one in verify._retention(TABLE, "law/retention.json")] == ["ecommerce-31"]
    with pytest.raises(verify.Wrong, match=r"law/retention\.json: "):
        verify._retention(table, "law/retention.json")


def test_the_table_of_the_laws_says_what_the_laws_decide() -> None:
    """Both countings, ours and the verifier's, give the same days, month's ends and leap days included."""
    laws = Laws.load(LAWS)
    rules = verify._retention(retention(laws), "table")
    assert len(rules) >= 10
    long_ago, compared = date(1900, 1, 1), 0
    for name, law in laws.laws.items():
        for record_class in sorted(law.classes):
            for event in (date(2023, 8, 31) + timedelta(days=61 * n) for n in range(20)):
                wanted = laws.wanted_facts([Retention(name, record_class, "x")])
                until = laws.decide(Retention(name, record_class, "x"), event, facts=wanted, today=long_ago)
                if until is None or until.day is None:
                    continue
                day, month = until.day.isoformat(), event.isoformat()[:7]
                verify._follows(rules, until.rule, record_class, event.isoformat(), day, "x")
                verify._follows(rules, until.rule, record_class, month, day[:7], "x")
                wrong = (until.day + timedelta(days=40)).isoformat()
                with pytest.raises(verify.Wrong, match="another date"):
                    verify._follows(rules, until.rule, record_class, event.isoformat(), wrong, "x")
                compared += 1
    assert compared > 100

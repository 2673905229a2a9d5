"""Clocks in a real home: laws beside promises, alarms once each, breaches for ever, dates that move are told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from process.shop import NOW, Shop, make
from test_cli_answers import conforms

from fangxin.data.closures.store import Closures
from fangxin.flows.estate import open_estate
from fangxin.flows.sla import percentile

NOTICE_2027 = """year = 2027
zone = "Asia/Shanghai"
off = [2027-01-01, 2027-01-02, 2027-01-03]
work = []
statutory = [2027-01-01, 2027-02-05]

[notice]
title = "made up for a test"
"""


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return make(tmp_path_factory.mktemp("alarms") / "shop")


@pytest.fixture
def shop(pristine: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    found = pristine.copy(tmp_path / "shop")
    monkeypatch.setenv("FANGXIN_HOME", str(found.home))
    return found


def opened(shop: Shop, number: int, *more: str) -> str:
    closure = shop.ask("request", "open", "--identity", shop.phone(number), "--verified", "session", *more)["closure"]
    assert isinstance(closure, str)
    return closure


def clocks(shop: Shop, closure: str) -> dict[str, dict[str, Any]]:  # Any: JSON
    status = shop.ask("request", "status", closure)
    conforms("request", status)
    return {one["name"]: one for one in status["clocks"]}


def ledger(shop: Shop, kind: str) -> list[dict[str, int | str]]:
    estate = open_estate(shop.home, shop.root / "catalog", shop.now)
    return [entry for _n, entry in estate.ledger.entries() if entry["type"] == kind]


@pytest.mark.scenario("S21")
def test_declared_laws_count_from_receipt_beside_the_promises_and_may_be_lengthened(shop: Shop) -> None:
    argv = ["request", "open", "--identity", shop.phone(1), "--verified", "session"]
    assert shop.run(*argv, "--law", "atlantis")[0] == 3
    assert shop.run(*argv, "--received", (shop.now + timedelta(hours=1)).isoformat())[0] == 3
    assert shop.run(*argv, "--received", "yesterday")[0] == 3
    before = (shop.now - timedelta(days=4)).isoformat()
    closure = opened(shop, 1, "--law", "gdpr", "--law", "ccpa", "--law", "drop", "--received", before)
    found = clocks(shop, closure)
    assert set(found) == {
        "review", "gdpr-12-3", "ccpa-7021-confirm", "ccpa-7021-answer", "drop-fetch", "drop-report",
    }  # fmt: skip
    assert found["gdpr-12-3"]["started"] == "2026-11-20T01:00:00Z"
    assert found["gdpr-12-3"]["deadline"] == "2026-12-20T23:00:00Z"  # 24:00 in Brussels, a month from receipt
    assert found["review"]["started"] == "2026-11-24T01:00:00Z"
    assert found["ccpa-7021-confirm"]["met"] == "2026-11-24T01:00:00Z"  # its receipt code was shown
    extend = ["request", "extend", closure, "--officer", "dpo_1", "--reason", "complex", "--clock"]
    assert shop.run(*extend, "review")[0] == 3
    assert shop.run(*extend, "nothing")[0] == 3
    shop.ask(*extend, "gdpr-12-3")
    assert shop.run(*extend, "gdpr-12-3")[0] == 4
    longer = clocks(shop, closure)["gdpr-12-3"]
    assert (longer["extended"], longer["first_told"]) == ("complex", "2026-12-20T23:00:00Z")
    assert longer["deadline"] == "2027-02-20T23:00:00Z"
    shop.ask("request", "cancel", closure)
    assert all(one["met"] for one in clocks(shop, closure).values())  # nothing is owed any more
    report = shop.ask("report", "sla")
    assert {c["by"] for c in report["clocks"]} == {"promise", "law"}


@pytest.mark.scenario("S22", "S30")
def test_alarms_are_raised_once_each_and_a_broken_promise_stays(shop: Shop) -> None:
    closure = opened(shop, 2, "--risk", "new_device")
    shop.ask("request", "plan", closure)
    start, end = NOW, datetime(2026, 11, 27, 16, tzinfo=UTC)  # three working days, 24:00 in Shanghai
    raised = []
    for share in (0.49, 0.5, 0.51, 0.8, 0.9, 1, 1.2):
        shop.now = (start + share * (end - start)).replace(microsecond=0) + timedelta(seconds=1)
        for _twice in range(2):
            code, done = shop.run("run-due")
            assert code in (0, 2)
            conforms("run-due", done)
            raised += [(share, a["percent"]) for a in done["alarms"] if a["clock"] == "review"]
    assert raised == [(0.5, 50), (0.8, 80), (1, 100)]
    shop.ask("request", "reject", closure, "--officer", "dpo_1", "--reason", "takeover")
    code, report = shop.run("report", "sla")
    conforms("report-sla", report)
    assert code == 1
    (broken,) = report["breaches"]
    assert (broken["promise"], broken["deadline"], broken["met"]) == (
        "review", "2026-11-27T16:00:00Z", shop.now.strftime("%Y-%m-%dT%H:%M:%SZ"),
    )  # fmt: skip
    assert [e["code"] for e in ledger(shop, "exception")] == ["breach/review"]
    assert len(ledger(shop, "calendar.loaded")) == 2


@pytest.mark.scenario("S21")
def test_a_provisional_date_moves_later_only_when_the_notice_comes_and_says_so(shop: Shop) -> None:
    shop.now = datetime(2026, 12, 30, 2, tzinfo=UTC)
    closure = opened(shop, 3, "--risk", "new_device")
    first = clocks(shop, closure)["review"]
    assert (first["provisional"], first["deadline"]) == (True, "2027-01-03T16:00:00Z")
    (shop.home / "calendars").mkdir()
    (shop.home / "calendars" / "cn-2027.toml").write_text(NOTICE_2027, "utf-8")
    shop.ask("run-due")
    again = clocks(shop, closure)["review"]
    assert (again["provisional"], again["deadline"]) == (False, "2027-01-05T16:00:00Z")
    assert again["first_told"] == first["deadline"]
    shop.ask("run-due")
    store = Closures(f"sqlite:///{shop.home / 'closures.db'}")
    (told,) = [e["body"]["dates"] for e in store.events(closure) if e["type"] == "recounted"]
    assert ["review", "2027-01-03T16:00:00Z", "2027-01-05T16:00:00Z"] in told
    assert len(ledger(shop, "calendar.loaded")) == 3


def test_a_percentile_is_the_nearest_rank() -> None:
    values = [float(n) for n in range(1, 11)]
    assert [percentile(values, p) for p in (1, 50, 90, 99, 100)] == [1, 5, 9, 10, 10]
    with pytest.raises(ValueError, match="of nothing"):
        percentile([], 50)

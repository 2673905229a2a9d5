"""To the end: for a minor, for somebody else, for the dead; and for one whom an order holds back in the last hour."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from process.shop import Shop, make
from test_cli_answers import conforms

from fangxin.checks import verify

TONIGHT = datetime(2026, 11, 24, 16, 5, tzinfo=UTC)  # 00:05 in Shanghai
DAY = timedelta(days=1)
ROLES = {
    "heir": (3, ["death", "kinship"], []),
    "guardian": (4, ["birth"], []),
    "agent": (6, ["mandate"], ["--mandate-until", "2026-11-27T00:00:00Z"]),
}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    found = make(tmp_path / "shop", number=9)
    holdings = found.home / "holdings.toml"
    text = holdings.read_text("utf-8")
    holdings.write_text(text.replace('coffee = "coupon"', 'coffee = "coupon", order = "open_order"'), "utf-8")
    monkeypatch.setenv("FANGXIN_HOME", str(found.home))
    return found


def sql(shop: Shop, statement: str) -> None:
    with closing(sqlite3.connect(shop.wallet)) as db, db:
        db.execute(statement)


def planned(shop: Shop, closure: str, *officers: str) -> None:
    """Plan a closing and have the plan signed."""
    paper = shop.root / "plan.json"
    paper.unlink(missing_ok=True)
    shop.ask("request", "plan", closure, "--out", str(paper))
    shop.sign("plan.json", *officers)


@pytest.mark.drill
@pytest.mark.scenario("S14")
def test_who_asks_for_somebody_else_and_who_is_held_back_in_the_last_hour_come_to_the_end(shop: Shop) -> None:
    alone = shop.ask("request", "open", "--identity", shop.phone(8), "--verified", "session")
    planned(shop, alone["closure"], "dpo_1")
    one = shop.ask("request", "approve", alone["closure"], "--approval", shop.file("dpo_1.json"))
    assert (one["state"], one["high_risk"]) == ("sealing", False)
    shop.now = TONIGHT
    assert shop.ask("run-due")["sealed"] == [alone["closure"]]

    shop.now = TONIGHT + timedelta(hours=9)
    opened = {}
    for role, (person, papers, more) in ROLES.items():
        asked = ["request", "open", "--identity", shop.phone(person), "--verified", "L3", "--on-behalf", role, *more]
        for name in papers:
            (shop.root / name).write_text(f"a scan of the {name}")
            asked += ["--document", shop.file(name)]
        opened[role] = shop.ask(*asked)
        closure = opened[role]["closure"]
        planned(shop, closure, "dpo_1", "dpo_2")
        approve = ["request", "approve", closure, "--approval"]
        assert shop.ask(*approve, shop.file("dpo_1.json"))["state"] == "review"  # one officer is not enough
        shop.now += timedelta(hours=1)  # somebody may want to object
        assert shop.ask(*approve, shop.file("dpo_2.json"))["state"] == "sealing"
    shop.now = TONIGHT + DAY
    theirs = [one["closure"] for one in opened.values()]
    assert sorted(shop.ask("run-due")["sealed"]) == sorted(theirs)
    for one in opened.values():
        assert shop.run("request", "waive", one["closure"], "--code", one["restore_code"])[0] == 4
        assert "high risk" in shop.said

    shop.now = TONIGHT + 7 * DAY - timedelta(hours=1)
    assert shop.run("run-due")[1]["waiting"] == []
    sql(shop, "INSERT INTO coupons VALUES (9000, 8, 'order', 1, NULL)")  # in the last hour
    sql(shop, "UPDATE accounts SET balance = balance + 50 WHERE id = 8")
    shop.now = TONIGHT + 7 * DAY
    code, done = shop.run("run-due")
    conforms("run-due", done)
    assert (code, done["regret_ended"], done["erased"]) == (2, [alone["closure"]], [])
    (why,) = [one["why"] for one in done["waiting"]]
    assert "open_order: merchant ends it (complete), at the latest on 2026-12-16T16:05:00Z; then split_off" in why
    status = shop.ask("request", "status", "--receipt", alone["receipt_code"])
    conforms("request", status)
    assert (status["state"], [one["kind"] for one in status["blocked"]]) == ("ready", ["open_order"])
    assert [r[0] for r in shop.rows()["accounts"] if r[0] == 8] == [8]  # nothing was touched

    sql(shop, "DELETE FROM coupons WHERE coupon = 9000")  # the merchant delivered
    shop.now = TONIGHT + 8 * DAY
    done = shop.ask("run-due")
    assert sorted(done["erased"]) == sorted([alone["closure"], *theirs])
    package = shop.home / "reports" / f"package-{done['batches'][0]}.zip"
    assert verify.exit_code(verify.verify(package, trust=shop.home / "keys")) == 0
    gone = {3, 4, 6, 8}
    assert [r[0] for r in shop.rows()["accounts"] if r[0] in gone] == []
    assert [r[1] for r in shop.rows()["coupons"] if r[1] in gone] == []
    for one in (alone, *opened.values()):
        status = shop.ask("request", "status", "--receipt", one["receipt_code"])
        assert (status["state"], Path(status["certificate"]).is_file()) == ("certified", True)
        assert [c["name"] for c in status["clocks"] if c["breached"] or not c["met"]] == []
        late = 50 if one is alone else 0
        assert status["owed"] == [{"currency": "CNY", "minor": 3650 + 100 + late, "where": "escrow"}]
    for path in (p for p in shop.home.rglob("*") if p.is_file()):
        body = path.read_bytes()
        assert not [n for n in gone if f"1390000000{n}".encode() in body], path
        assert b"a scan of" not in body, path

"""What a law or a hold keeps: only its scope, until its day, and then it goes by itself."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from process.shop import Shop, make
from test_cli_answers import conforms

from fangxin.checks import verify
from fangxin.data.closures.store import Closures
from fangxin.flows import erase

TONIGHT = datetime(2026, 11, 24, 16, 5, tzinfo=UTC)  # 00:05 in Shanghai
OVER = TONIGHT + timedelta(days=7)
ORDERS = """      - name: orders
        erasure: {retention: {law: pipl, class: order, from: done}}
        fields:
          - {name: id, fides_meta: {primary_key: true, data_type: integer}}
          - name: account
            data_categories: [user.unique_id]
            fides_meta: {data_type: integer, references: [{dataset: wallet, field: accounts.id, direction: from}]}
          - {name: goods, data_categories: [user.behavior.purchase_history]}
          - {name: remark, data_categories: [user.content], erasure: {retention: none}}
          - {name: done}
      - name: slips
        erasure: {retention: {law: pipl, class: order, from: done}}
        fields:
          - {name: id, fides_meta: {primary_key: true, data_type: integer}}
          - {name: phone, data_categories: [user.contact.phone_number], fides_meta: {identity: phone_number}}
          - {name: done}
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """A shop with orders, which a law keeps for three years: two of person 5, one of person 6."""
    found = make(tmp_path / "shop")
    catalog = found.root / "catalog" / "c.yml"
    catalog.write_text(catalog.read_text("utf-8") + ORDERS, "utf-8")
    sql(found, "CREATE TABLE orders (id INTEGER PRIMARY KEY, account INTEGER, goods TEXT, remark TEXT, done TEXT)")
    for row in (
        (1, 5, "tea", "ring twice", "2024-03-01"),
        (2, 5, "old", "x", "2023-01-01"),
        (3, 6, "cup", "y", "2026-01-01"),
    ):
        sql(found, "INSERT INTO orders VALUES (?, ?, ?, ?, ?)", *row)
    sql(found, "CREATE TABLE slips (id INTEGER PRIMARY KEY, phone TEXT, done TEXT)")
    sql(found, "INSERT INTO slips VALUES (1, '13900000005', '2024-02-29'), (2, '13900000006', '2024-02-29')")
    monkeypatch.setenv("FANGXIN_HOME", str(found.home))
    return found


def sql(shop: Shop, statement: str, *values: object) -> list[tuple[Any, ...]]:  # Any: what SQLite returns
    with closing(sqlite3.connect(shop.wallet)) as db, db:
        return db.execute(statement, values).fetchall()


def signed(shop: Shop, closure: str, *more: str) -> tuple[int, dict[str, Any]]:  # Any: JSON
    """Ask for a hold, or to lift one, with two officers' signatures."""
    ask, paper = ["request", "hold", closure, "--reason", "court", *more], shop.root / "hold.json"
    paper.unlink(missing_ok=True)
    assert shop.run(*ask, "--out", str(paper))[0] == 4
    shop.sign("hold.json", "dpo_1", "dpo_2")
    shop.now += timedelta(hours=1)  # between the signatures and the act
    return shop.run(*ask, "--approval", shop.file("dpo_1.json"), "--approval", shop.file("dpo_2.json"))


def _after_begin(fails: Callable[..., None]) -> Callable[[Callable[[str], None], str], None]:
    real = erase.run_step

    def run_step(step: Callable[[str], None], batch: str) -> None:
        fails() if step is erase.destroy_keys else real(step, batch)

    return run_step


@pytest.mark.scenario("S12", "S30")
def test_what_is_held_or_kept_waits_alone_and_goes_on_its_day(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hold of all stops the end; one of the coupons does not. Both are too late beyond the point of no return."""
    others = {name: [r for r in rows if 5 not in r] for name, rows in shop.rows().items()}
    opened = shop.ask("request", "open", "--identity", shop.phone(5), "--verified", "session")
    closure = opened["closure"]
    for scope in ("wallet/coupons", "nothing/here"):
        assert (
            shop.run("request", "hold", closure, "--reason", "court", "--scope", scope, "--out", shop.file("h"))[0] == 4
        )
        Path(shop.file("h")).unlink()
    shop.ask("request", "plan", closure, "--out", shop.file("plan.json"))
    shop.sign("plan.json", "dpo_1")
    shop.ask("request", "approve", closure, "--approval", shop.file("dpo_1.json"))
    shop.now = TONIGHT
    assert shop.ask("run-due")["sealed"] == [closure]
    assert signed(shop, closure, "--scope", "no/where")[0] == 3
    assert signed(shop, closure, "--scope", "wallet/accounts")[0] == 4  # cards lie under the person's key
    assert "a hold of all" in shop.said
    code, held = signed(shop, closure)
    conforms("request", held)
    assert (code, held["hold"], held["holds"][0]["review"]) == (0, "all", "2027-02-22T01:00:00Z")
    both = ["--approval", shop.file("dpo_1.json"), "--approval", shop.file("dpo_2.json")]
    shop.now = OVER
    code, done = shop.run("run-due")
    assert (code, done["erased"]) == (2, [])
    assert "review is on 2027-02-22" in done["waiting"][0]["why"]
    assert shop.run("request", "hold", closure, "--reason", "court", *both)[0] == 4  # what was signed serves once
    assert signed(shop, closure, "--lift")[0] == 0
    code, held = signed(shop, closure, "--scope", "wallet/coupons")
    assert (code, held["hold"], held["holds"][1]["scope"]) == (0, "some", ["wallet/coupons"])

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(erase, "run_step", _after_begin(fails))
        assert shop.run("run-due")[0] == 70
    assert shop.ask("request", "status", closure)["state"] == "overwriting"
    assert signed(shop, closure, "--review", "2027-01-01")[0] == 4
    assert "too late" in shop.said
    done = shop.ask("run-due")
    assert done["erased"] == [closure]
    assert verified(shop, done) == 0
    assert [r for r in shop.rows()["accounts"] if r[0] == 5] == []
    assert [r[0] for r in shop.rows()["coupons"] if r[1] == 5] == [7005]
    assert sql(shop, "SELECT * FROM orders") == [(1, 5, "tea", None, "2024-03-01"), (3, 6, "cup", "y", "2026-01-01")]
    first = shop.ask("request", "status", "--receipt", opened["receipt_code"])
    conforms("request", first)
    assert (first["state"], first["public"]) == ("restricted", "finished with legally kept items")
    kept = {
        "rows": {"wallet/coupons": 1, "wallet/orders": 1, "wallet/slips": 1},  # to the slip only the phone leads
        "next": "2027-03-01T00:00:00Z",
        "undecided": 1,
    }
    assert first["kept"] == kept
    for path in (p for p in shop.home.rglob("*") if p.is_file()):
        assert b"13900000005" not in path.read_bytes(), path

    shop.now = datetime(2027, 2, 23, tzinfo=UTC)
    code, done = shop.run("run-due")
    assert code == 2
    assert "keeps wallet/coupons, and its review was due" in done["waiting"][0]["why"]
    assert signed(shop, closure, "--lift")[0] == 0  # the day after, with the orders: one more night for both
    sql(shop, "INSERT INTO orders VALUES (9, 5, 'a stranger', 'who has the number now', '2027-02-01')")
    shop.now = datetime(2027, 3, 1, tzinfo=UTC) - timedelta(seconds=1)
    code, done = shop.run("run-due")
    assert (code, done["kept_until_now"], done["erased"]) == (2, [], [])
    assert "were not kept then" in done["waiting"][0]["why"]
    sql(shop, "UPDATE orders SET account = 31 WHERE id = 9")
    shop.now = datetime(2027, 3, 2, tzinfo=UTC)
    done = shop.ask("run-due")
    conforms("run-due", done)
    assert (done["kept_until_now"], done["erased"]) == ([closure], [closure])
    assert verified(shop, done) == 0
    assert shop.rows() == others
    store = Closures(f"sqlite:///{shop.home / 'closures.db'}")
    (due,) = [one["body"]["entries"] for one in store.events(closure) if one["type"] == "came_due"]
    store.engine.dispose()
    assert [one["code"] for one in due] == ["kept_until_now", "breach/kept"]  # it waited for a week: on record
    assert [r[0] for r in sql(shop, "SELECT * FROM orders")] == [3, 9]
    last = shop.ask("request", "status", "--receipt", opened["receipt_code"])
    conforms("request", last)
    assert (last["state"], last["kept"], last["round"]) == ("certified", None, 2)
    assert last["superseded"] == [first["certificate"]]
    assert shop.run("run-due")[1]["erased"] == []


def verified(shop: Shop, done: dict[str, Any]) -> int:  # Any: JSON
    package = shop.home / "reports" / f"package-{done['batches'][0]}.zip"
    return verify.exit_code(verify.verify(package, trust=shop.home / "keys"))

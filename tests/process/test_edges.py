"""The edges of a closing: asked twice, asked for somebody else, a clock set back; each refusal changes nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from process import bank as banks
from process.shop import NOW, Shop, make
from test_cli_answers import conforms

from fangxin.data.closures.store import Closures
from fangxin.flows.desk import at_desk
from fangxin.flows.estate import open_estate


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return make(tmp_path_factory.mktemp("edges"))


@pytest.fixture
def shop(pristine: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    found = pristine.copy(tmp_path / "shop")
    monkeypatch.setenv("FANGXIN_HOME", str(found.home))
    return found


def asked(shop: Shop, number: int, *more: str) -> list[str]:
    return ["request", "open", "--identity", shop.phone(number), "--verified", "session", *more]


def stored(shop: Shop) -> list[tuple[Any, ...]]:  # Any: rows
    """Everything that the store of closings holds, to be compared before and after a refusal."""
    store = Closures(f"sqlite:///{shop.home / 'closures.db'}")
    with store.engine.connect() as db:
        rows = [
            tuple(row)
            for table in ("closure", "event", "clock", "timer", "posting", "outbox", "replay")
            for row in db.exec_driver_sql(f"SELECT * FROM {table} ORDER BY 1, 2")
        ]
    store.engine.dispose()
    return rows


def test_asked_twice_or_with_the_clock_set_back_a_request_stays_as_it_was(shop: Shop) -> None:
    first = shop.ask(*asked(shop, 3, "--idempotency-key", "k-1"))
    before = stored(shop)
    again = shop.ask(*asked(shop, 3, "--idempotency-key", "k-1"))
    conforms("request-open", again)
    assert again == {**first, "new": False, "replayed": True, "restore_code": None}
    assert shop.run(*asked(shop, 4, "--idempotency-key", "k-1"))[0] == 4  # another body
    assert "another request" in shop.said
    assert shop.run(*asked(shop, 3, "--idempotency-key", "k-1", "--risk", "new_device"))[0] == 4
    double = shop.ask(*asked(shop, 3))  # and without a key
    assert (double["closure"], double["new"], double["replayed"]) == (first["closure"], False, False)
    shop.now = NOW - timedelta(hours=1)
    for verb in ("cancel", "plan"):
        assert shop.run("request", verb, first["closure"])[0] == 4
        assert "2026-11-24T01:00:00Z" in shop.said  # the clock was set back: when it last ran
    assert stored(shop) == before


def test_who_asks_for_somebody_else_shows_documents_and_two_officers_sign(shop: Shop) -> None:
    for name in ("death", "kinship", "mandate"):
        (shop.root / name).write_text(f"a scan of the {name}")
    heir = ["--on-behalf", "heir", "--document", shop.file("death")]
    agent = ["--on-behalf", "agent", "--document", shop.file("mandate")]
    three = ["request", "open", "--identity", shop.phone(3), "--verified", "L3"]
    for code, wrong in (
        (3, asked(shop, 3, *heir, "--document", shop.file("kinship"))),  # not looked at by people
        (3, [*three, *heir, "--document", shop.file("death")]),  # the same document twice
        (3, [*three, *agent]),  # a mandate without an end
        (3, [*three, "--on-behalf", "friend", "--document", shop.file("mandate")]),
        (4, [*three, *agent, "--mandate-until", "2026-11-24T01:00:00Z"]),
    ):
        assert shop.run(*wrong)[0] == code
    opened = shop.ask(*three, *agent, "--mandate-until", "2026-11-25T00:00:00Z")
    plan = shop.ask("request", "plan", opened["closure"], "--out", shop.file("plan.json"))
    assert plan["high_risk"] is True
    shop.sign("plan.json", "dpo_1", "dpo_2")
    approve = ["request", "approve", opened["closure"], "--approval"]
    assert shop.ask(*approve, shop.file("dpo_1.json"))["state"] == "review"
    shop.now += timedelta(days=1)
    assert shop.run(*approve, shop.file("dpo_2.json"))[0] == 4  # the mandate is over
    assert "ended on" in shop.said
    assert shop.ask("request", "cancel", opened["closure"])["state"] == "cancelled"  # the person may, without the agent
    assert shop.run("request", "waive", opened["closure"], "--code", opened["restore_code"])[0] == 4


@pytest.mark.scenario("S14")
def test_an_open_order_holds_a_plan_back_until_a_date_and_then_it_goes_on(shop: Shop) -> None:
    with closing(sqlite3.connect(shop.wallet)) as db, db:
        db.execute("INSERT INTO coupons VALUES (8000, 3, 'order', 5, '2027-06-01')")
    listed = (shop.home / "holdings.toml").read_text("utf-8")
    (shop.home / "holdings.toml").write_text(
        listed.replace('coffee = "coupon"', 'coffee = "coupon", order = "open_order"')
    )
    closure = shop.ask(*asked(shop, 3))["closure"]
    before = stored(shop)
    holdings = (shop.home / "holdings.toml").read_text("utf-8")
    for sql, put, code, said in (
        ("UPDATE accounts SET balance = -5 WHERE id = 3", "", 4, "negative amount"),
        ("UPDATE accounts SET balance = 3650 WHERE id = 3", '"XYZ"', 3, 'unknown currency "XYZ"'),
    ):
        with closing(sqlite3.connect(shop.wallet)) as db, db:
            db.execute(sql)
            db.execute("UPDATE coupons SET kind = 'coffee' WHERE coupon = 8000")
        (shop.home / "holdings.toml").write_text(holdings.replace('"CNY"', put) if put else holdings)
        assert shop.run("request", "plan", closure)[0] == code
        assert said in shop.said
    (shop.home / "holdings.toml").write_text(holdings)
    with closing(sqlite3.connect(shop.wallet)) as db, db:
        db.execute("UPDATE coupons SET kind = 'order' WHERE coupon = 8000")
    assert stored(shop) == before
    assert shop.run("request", "plan", closure)[0] == 4
    assert "open_order: merchant ends it (complete), at the latest on 2026-12-09T01:00:00Z; then split_off" in shop.said
    status = shop.ask("request", "status", closure)
    conforms("request", status)
    assert (status["state"], [one["kind"] for one in status["blocked"]]) == ("preflight", ["open_order"])
    before = stored(shop)
    shop.now += timedelta(days=15, seconds=-1)
    assert shop.run("request", "plan", closure)[0] == 4
    assert stored(shop) == before
    shop.now += timedelta(seconds=1)
    month = shop.copy(shop.root.parent / "month")
    done = shop.run("run-due")[1]
    conforms("run-due", done)
    assert done["planned"] == [closure]  # nobody planned it: the night does
    planned = shop.ask("request", "plan", closure)
    assert sorted(one["fate"] for one in planned["items"]) == ["cash", "payout", "split_off"]
    month.now = NOW + timedelta(days=30)
    month.run("run-due")
    ended = month.ask("request", "status", closure)
    assert (ended["state"], ended["refused"]) == ("expired", "unplanned")


@pytest.mark.scenario("S2", "S3", "S4", "S6", "S7", "S8", "S40")
def test_a_coupon_is_given_away_once_and_never_to_oneself_or_to_somebody_who_leaves(shop: Shop) -> None:
    kinds = (shop.home / "holdings.toml").read_text("utf-8")
    more = 'coffee = "coupon", renewal = "mandate", card = "real_name"'
    kinds = kinds.replace('coffee = "coupon"', more).replace(
        'amount = "balance"', 'amount = "balance"\ninstrument = "phone"'
    )
    (shop.home / "holdings.toml").write_text(kinds)
    with closing(sqlite3.connect(shop.wallet)) as db, db:
        db.executemany("INSERT INTO coupons VALUES (?, 3, ?, 1, NULL)", [(8000, "card"), (8001, "renewal")])
    closure = shop.ask(*asked(shop, 3))["closure"]
    shop.ask(*asked(shop, 4))
    listed = shop.ask("request", "items", closure)
    conforms("request-items", listed)
    assert [(i["kind"], i["default"], [(f["fate"], f["minor"]) for f in i["fates"]]) for i in listed["items"]] == [
        ("balance", "payout", [("payout", 3650)]),
        ("coupon", "cash", [("transfer", None), ("cash", 100), ("lapse", None)]),
        ("real_name", "unbind", [("unbind", None)]),
        ("mandate", "cancel", [("cancel", None)]),
    ]
    coupon = listed["items"][1]["id"]
    shop.ask("request", "plan", closure, "--choose", f"{coupon}=transfer", "--out", shop.file("plan.json"))
    conforms("request-offer", made := shop.ask("request", "offer", closure, coupon, "--until", "2026-11-24T02:00:00Z"))
    (shop.root / "offer").write_text(made["offer_code"])
    take = ["request", "accept", "--offer", f"@{shop.root / 'offer'}", "--identity"]
    before = stored(shop)
    for wrong, code, said in (
        (["request", "offer", closure, coupon], 4, "cannot be offered"),
        (["request", "offer", closure, "i-0000000000000000"], 3, "not to be given away"),
        ([*take, shop.phone(3)], 4, "from themselves"),
        ([*take, shop.phone(4)], 4, "is closing"),
        ([*take, shop.phone(99)], 3, "found 0"),
        ([*take[:3], "XXXXX-XXXXX-XXXXX-XXXXX-XXXXX", "--identity", shop.phone(6)], 4, "nothing is offered"),
    ):
        assert shop.run(*wrong)[0] == code
        assert said in shop.said
    shop.now += timedelta(hours=1)
    assert shop.run(*take, shop.phone(6))[0] == 4  # the offer is over
    assert stored(shop) == before
    shop.ask("run-due")
    made = shop.ask("request", "offer", closure, coupon)
    conforms("request-transfer", shop.ask("request", "decline", "--offer", made["offer_code"]))
    made = shop.ask("request", "offer", closure, coupon)
    accept = ["request", "accept", "--offer", made["offer_code"], "--identity"]
    conforms("request-transfer", shop.ask(*accept, shop.phone(6)))
    assert shop.run(*accept, shop.phone(7))[0] == 4
    with banks.running() as bank:
        (shop.home / "payments.toml").write_text(f'url = "{bank.url}"\ntoken_file = "pay.token"\n')
        (shop.home / "pay.token").write_text("secret\n")
        shop.ask("run-due")
        shop.ask("run-due")
        assert list(bank.moved.values()) == [("wallet/coupons|7003", "6")]
        assert bank.charge("wallet/coupons|8001")
        shop.sign("plan.json", "dpo_1")
        shop.ask("request", "approve", closure, "--approval", shop.file("dpo_1.json"))
        bank.faults = {"*": ["pending"]}
        shop.ask("run-due")
        assert not bank.charge("wallet/coupons|8001")  # a renewal after that is refused
        assert [what for what, _item in bank.orders.values()] == ["cancel"]  # a payment is on its way: nothing unbound
        bank.known[next(iter(bank.known))]["status"] = "paid"
        for _ in range(2):
            shop.now += timedelta(hours=2)
            shop.ask("run-due")
    status = shop.ask("request", "status", closure)
    conforms("request", status)
    assert [bank.orders[key] for key in bank.orders] == [
        ("cancel", "wallet/coupons|8001"),
        ("unbind", "wallet/coupons|8000"),  # after the last payment
    ]
    assert sorted((one["what"], one["proof"]) for one in status["orders"]) == [("cancel", "o-1"), ("unbind", "o-2")]


def test_a_house_in_which_two_officers_cannot_answer_takes_no_closing_in_and_approves_none(shop: Shop) -> None:
    """Else it would tell an approval, and fail at the seal; and what is approved is not told as sealed."""
    known = shop.home / "keys" / "answerers"
    kept = {path: path.read_text() for path in sorted(known.glob("*.pub"))}
    closure = shop.ask(*asked(shop, 3))["closure"]
    shop.ask("request", "plan", closure, "--out", shop.file("plan.json"))
    shop.sign("plan.json", "dpo_1")
    for path in list(kept)[1:]:
        path.unlink()
    before = stored(shop)
    approve = ["request", "approve", closure, "--approval", shop.file("dpo_1.json")]
    for refused in (approve, asked(shop, 4)):
        assert shop.run(*refused)[0] == 4
        assert "this home knows 1" in shop.said
        assert "keys answerers --add" in shop.said
    night = shop.copy(shop.root.parent / "night")
    night.now += timedelta(days=3)
    code, done = night.run("run-due")
    assert (code, done["reviewed"]) == (4, [])
    assert "two officers can answer" in done["waiting"][0]["why"]
    assert stored(shop) == before
    for path, text in kept.items():
        path.write_text(text)
    shop.now += timedelta(hours=1)  # officers' signatures are an hour old by now
    approved = shop.ask(*approve)
    assert (approved["state"], approved["public"]) == ("sealing", "approved")
    assert "Approved" in approved["says"]["en"]
    assert shop.ask("request", "seal", closure)["public"] == "sealed"


@pytest.mark.scenario("S40")
def test_who_waives_the_rest_of_their_days_ends_their_offers_and_nothing_is_paid_and_given_away(shop: Shop) -> None:
    """Once an item is settled as if it had not been offered nobody accepts it, though the plan waits for officers."""
    opened = shop.ask(*asked(shop, 5))
    closure, code = opened["closure"], shop.root / "code"
    code.write_text(opened["restore_code"])
    coupon = shop.ask("request", "items", closure)["items"][1]["id"]
    shop.ask("request", "plan", closure, "--choose", f"{coupon}=transfer", "--out", shop.file("plan.json"))
    shop.sign("plan.json", "dpo_1")
    shop.ask("request", "approve", closure, "--approval", shop.file("dpo_1.json"))
    shop.ask("request", "seal", closure)
    offered = shop.ask("request", "offer", closure, coupon)["offer_code"]
    shop.ask("request", "waive", closure, "--code", f"@{code}")
    shop.now += timedelta(days=1)
    accept = ["request", "accept", "--offer", offered, "--identity", shop.phone(6)]
    assert shop.run(*accept)[0] == 4  # regret is over, though the offer's own date has not come
    assert "is over" in shop.said
    with closing(sqlite3.connect(shop.wallet)) as db, db:
        db.execute("INSERT INTO coupons VALUES (9000, 5, 'coffee', 1, NULL)")  # the plan grew: it waits for officers
    code_, done = shop.run("run-due")
    assert (code_, done["erased"]) == (2, [])
    assert shop.run(*accept)[0] == 4
    with at_desk(open_estate(shop.home, shop.root / "catalog", shop.now)) as desk:
        assert desk.outbox.open(closure).get("transfer", 0) == 0

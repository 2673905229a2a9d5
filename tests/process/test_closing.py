"""One account closed from the request to the certificate, with a clock that moves; and every way back."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from keys.vaults import raw
from process import bank as banks
from process.bank import Bank
from process.front import listener, post
from process.shop import NOW, PEOPLE, Shop, make
from test_cli_answers import conforms

from fangxin.checks import verify
from fangxin.data.closures.store import Closures
from fangxin.data.errors import InputError
from fangxin.data.keys.envelope import ref_of
from fangxin.data.vocabulary import Identity
from fangxin.flows.ahead import look_again
from fangxin.flows.closing import Asked, Opened, make_plans, open_closures
from fangxin.flows.consumers import KIND, heard
from fangxin.flows.desk import at_desk
from fangxin.flows.estate import alone, open_estate
from fangxin.flows.lifecycle import Event
from fangxin.flows.looks import Look, look

TONIGHT = datetime(2026, 11, 24, 16, 5, tzinfo=UTC)  # 00:05 in Shanghai
OVER = TONIGHT + timedelta(days=7)
SECRET = b"thirty-two bytes that both know."
MAIL = """[mail]
host = "127.0.0.1"
port = {port}
sender = "noreply@lecard.example"
domain = "lecard.example"
tls = false
"""


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return make(tmp_path_factory.mktemp("closing"))


@pytest.fixture(scope="module")
def waiting(pristine: Shop, tmp_path_factory: pytest.TempPathFactory) -> tuple[Shop, dict[str, str]]:
    """A copy in which one person's account was sealed tonight."""
    found = pristine.copy(tmp_path_factory.mktemp("sealed") / "shop")
    (found.home / "channels.toml").write_text(MAIL.format(port=9), "utf-8")  # nobody listens there
    catalog = found.root / "catalog" / "c.yml"
    catalog.write_text(catalog.read_text("utf-8").replace("erasure: {store:", "erasure: {processors: [events], store:"))
    reaches(found, "http://127.0.0.1:9/")
    (found.root / "mail").write_text("wei@example.com\n", "utf-8")
    argv = ["request", "open", "--identity", found.phone(5), "--verified", "session"]
    opened = found.ask(*argv, "--notify", f"mail=@{found.file('mail')}")
    conforms("request-open", opened)
    assert opened["told_by"] == ["mail"]
    closure = opened["closure"]
    plan = found.ask("request", "plan", closure, "--out", found.file("plan.json"))
    conforms("request", plan)
    found.sign("plan.json", "dpo_1")
    assert found.ask("request", "approve", closure, "--approval", found.file("dpo_1.json"))["state"] == "sealing"
    found.now = TONIGHT - timedelta(seconds=1)
    assert found.ask("run-due")["sealed"] == []
    found.now = TONIGHT
    done = found.ask("run-due")
    conforms("run-due", done)
    assert done["sealed"] == [closure]
    return found, opened


@pytest.fixture
def shop(pristine: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    found = pristine.copy(tmp_path / "shop")
    monkeypatch.setenv("FANGXIN_HOME", str(found.home))
    return found


@pytest.fixture
def sealed(
    waiting: tuple[Shop, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Shop, dict[str, str]]:
    found = waiting[0].copy(tmp_path / "shop")
    found.now = waiting[0].now
    monkeypatch.setenv("FANGXIN_HOME", str(found.home))
    return found, waiting[1]


def reaches(shop: Shop, url: str) -> None:
    """Where the consumer of the shop's events listens."""
    (shop.home / "consumers.toml").write_text(f'[events]\nurl = "{url}"\nsecret_file = "events.secret"\n', "utf-8")
    (shop.home / "events.secret").write_text(f"whsec_{base64.b64encode(SECRET).decode()}\n", "utf-8")


def keys(shop: Shop) -> dict[bytes, bytes]:
    """Every key of a person's card that the vault holds."""
    with open_estate(shop.home, shop.root / "catalog", shop.now).tree as tree:
        refs = [ref_of("ref:wallet/accounts.id", str(n)) for n in range(1, 31)]
        return raw(tree, refs, tree.domain_code("kyc"))


@pytest.mark.scenario("S5", "S20", "S28", "S37", "S43")
def test_one_account_through_all_of_it(sealed: tuple[Shop, dict[str, str]]) -> None:
    """Erased in the minute regret ends; money in escrow; the receipt opens the status; nothing of them is left."""
    shop, opened = sealed
    others = {name: [r for r in rows if 5 not in r] for name, rows in shop.rows().items()}
    with closing(sqlite3.connect(shop.wallet)) as db, db:
        db.execute("UPDATE accounts SET balance = balance + 50 WHERE id = 5")  # a cash-back, after the seal
    (shop.root / "text").write_text("李伟，手机13900000005，导出打不开", "utf-8")
    asking = ["ticket", "open", "--receipt", opened["receipt_code"], "--category", "export_failed", "--mask"]
    asked = shop.ask(*asking, "--text", f"@{shop.file('text')}")
    shop.ask("ticket", "close", asked["ticket"], "--receipt", opened["receipt_code"])
    shop.now = OVER
    with post() as (box, mail), listener() as (told, url):
        reaches(shop, url)
        (shop.home / "channels.toml").write_text(MAIL.format(port=mail["port"]), "utf-8")
        done = shop.ask("run-due")
        subjects = [subject for _to, _id, subject, _body in box.taken()]
    conforms("run-due", done)
    assert done["erased"] == [opened["closure"]]
    assert sorted(subjects) == sorted(
        ["已收到注销申请", "注销申请审核中", "注销申请已审核", "账户已封存", "开始删除", "数据已删除"]
    )
    assert done["forgotten"] == done["erased"]  # the last notice was out, the address is destroyed
    assert shop.rows() == others
    status = shop.ask("request", "status", "--receipt", opened["receipt_code"])
    conforms("request", status)
    assert (status["state"], status["public"]) == ("certified", "finished")
    assert {json.loads(body)["type"] for _headers, body in told} == {"closure.stop", "closure.erase"}
    issued = json.loads(Path(status["certificate"]).read_bytes())
    assert issued["processors"] == [
        {
            "name": "events",
            "datasets": ["wallet"],
            "told": f"{OVER:%Y-%m-%dT%H:%MZ}",
            "confirmed": f"{OVER:%Y-%m-%dT%H:%MZ}",
        }
    ]
    assert status["owed"] == [{"currency": "CNY", "minor": 3650 + 50 + 100, "where": "escrow"}]
    assert {c["name"] for c in status["clocks"] if c["by"] == "promise"} == {"review", "start", "regret", "done"}
    assert [c for c in status["clocks"] if not c["met"] or c["breached"]] == []
    listed = shop.ask("request", "list")
    conforms("request-list", listed)
    report = shop.ask("report", "sla")
    conforms("report-sla", report)
    assert report["breaches"] == []
    package = shop.home / "reports" / f"package-{done['batches'][0]}.zip"
    assert verify.exit_code(verify.verify(package, trust=shop.home / "keys")) == 0
    for path in (p for folder in (shop.home, shop.wallet.parent) for p in folder.rglob("*") if p.is_file()):
        body = path.read_bytes()
        assert b"13900000005" not in body, path
        assert b"622202123456780005" not in body, path
        assert b"wei@example.com" not in body, path
        assert "李伟".encode() not in body, path
    later = shop.ask(*asking, "--text", f"@{shop.file('text')}")
    both = shop.ask("ticket", "list", "--receipt", opened["receipt_code"])["tickets"]
    assert {t["ticket"]: bool(t["forgotten"]) for t in both} == {asked["ticket"]: True, later["ticket"]: False}
    again = shop.ask("run-due")
    assert (again["erased"], again["waiting"]) == ([], [])
    with closing(sqlite3.connect(shop.wallet)) as db, db:  # the same phone registers again: a stranger to the first
        db.execute("INSERT INTO accounts VALUES (31, '13900000005', 0, NULL)")
    anew = shop.ask("request", "open", "--identity", shop.phone(5), "--verified", "session")
    assert (anew["new"], anew["closure"] != opened["closure"]) == (True, True)
    assert shop.ask("request", "items", anew["closure"])["items"] == []
    assert shop.ask("request", "status", "--receipt", opened["receipt_code"])["state"] == status["state"]
    with banks.running() as bank:
        claimed_under_the_receipt_code(shop, bank, opened)


def claimed_under_the_receipt_code(shop: Shop, bank: Bank, opened: dict[str, str]) -> None:
    """What lay in escrow lost its instrument with the erasure: whoever has the code is paid, once, to the cent."""
    (shop.home / "payments.toml").write_text(f'url = "{bank.url}"\ntoken_file = "pay.token"\ntimeout = 0.2\n')
    (shop.home / "pay.token").write_text("secret\n")
    (shop.root / "to").write_text("tok-of-a-new-card\n")
    shop.ask("run-due")
    assert bank.sum == 0
    code = opened["receipt_code"]
    status = shop.ask("request", "status", "--receipt", code)
    conforms("request", status)
    assert status["owed"] == [{"currency": "CNY", "minor": 3800, "where": "unclaimed"}]
    assert status["unclaimed"]["until"] == "2029-12-01T16:05:00Z"
    arrived = ["request", "arrived", opened["closure"], "--amount", "1.25", "--currency", "CNY", "--reference"]
    shop.ask(*arrived, "merchant-7")
    for code_of_exit, wrong in (
        (4, [*arrived, "merchant-7"]),
        (3, ["request", "arrived", opened["closure"], "--amount", "-1", "--currency", "CNY", "--reference", "x"]),
        (3, ["request", "arrived", opened["closure"], "--amount", "1", "--currency", "XYZ", "--reference", "x"]),
        (3, ["request", "claim", "--receipt", opened["restore_code"], "--to", f"@{shop.root / 'to'}"]),
    ):
        assert shop.run(*wrong)[0] == code_of_exit
    claim = ["request", "claim", "--receipt", code, "--to", f"@{shop.root / 'to'}"]
    bank.faults = {"*": ["declined", "lost"]}
    code_of_exit, said = shop.run(*claim)
    conforms("request-claim", said)
    assert (code_of_exit, said["claims"]) == (4, [{"currency": "CNY", "outcome": "account_closed"}])
    assert shop.run(*claim)[0] == 5  # paid, and nobody heard of it
    assert shop.run(*claim)[0] == 4  # it is on its way: not a second time
    shop.now += timedelta(hours=1)
    shop.ask("run-due")
    assert (bank.sum, len(bank.payments)) == (3925, 1)
    status = shop.ask("request", "status", "--receipt", code)
    assert status["owed"] == [{"currency": "CNY", "minor": 3925, "where": "paid"}]
    store = Closures(f"sqlite:///{shop.home / 'closures.db'}")
    assert sum(store.books()["CNY"].values()) == 0
    store.engine.dispose()
    assert all(b"tok-of-a-new-card" not in p.read_bytes() for p in shop.home.rglob("*") if p.is_file())


@pytest.mark.scenario("S27", "S41")
def test_the_restore_code_brings_back_every_bit_one_second_before_the_end(sealed: tuple[Shop, dict[str, str]]) -> None:
    shop, opened = sealed
    assert ref_of("ref:wallet/accounts.id", "5") not in keys(shop)
    (shop.root / "code").write_text(opened["restore_code"])
    shop.now = OVER - timedelta(seconds=1)
    status = shop.ask("request", "restore", opened["closure"], "--code", f"@{shop.root / 'code'}")
    assert status["state"] == "restored"
    assert status["owed"] == []
    assert ref_of("ref:wallet/accounts.id", "5") in keys(shop)
    assert shop.ask("read", "wallet/accounts", "--out", shop.file("read"), "--field", "id")["kept_back"] == 0
    shop.now = OVER + timedelta(days=1)
    assert shop.ask("run-due")["erased"] == []


@pytest.mark.scenario("S27")
def test_from_the_seal_on_readers_are_turned_away_and_after_a_restore_they_are_not(
    sealed: tuple[Shop, dict[str, str]],
) -> None:
    shop, opened = sealed
    account = shop.root / "account"
    account.write_text("5\n")

    def read(name: str, *more: str) -> int:
        code, document = shop.run("read", "wallet/coupons", "--out", shop.file(name), *more)
        if code == 0:
            conforms("read", document)
            assert pq.read_table(shop.file(name)).num_rows == document["rows"] == PEOPLE - document["kept_back"]
            assert (5 in pq.read_table(shop.file(name))["account"].to_pylist()) == (document["kept_back"] == 0)
        return code

    assert read("sealed.parquet", "--field", "coupon", "--field", "account") == 0
    assert pq.read_table(shop.file("sealed.parquet")).column_names == ["coupon", "account"]
    assert shop.run("read", "wallet/coupons", "--out", shop.file("his"), "--account", f"@{account}") == (4, {})
    assert "403" in shop.said
    assert not (shop.root / "his").exists()
    assert read("sealed.parquet") == 3  # is there already
    assert read("other.parquet", "--field", "colour") == 3
    with alone(shop.home), at_desk(open_estate(shop.home, shop.root / "catalog", OVER)) as desk:
        over = desk.take(desk.closures.get(opened["closure"]), Event("end_regret"), desk.now)
        (ready,), _waiting = look_again(desk, [desk.take(over, Event("escrow"), desk.now)])
        desk.take(ready, Event("begin"), desk.now)
    shop.now = OVER
    assert shop.run("read", "wallet/coupons", "--out", shop.file("his"), "--account", f"@{account}") == (4, {})
    assert "410" in shop.said
    assert read("gone.parquet") == 0


@pytest.mark.scenario("S27")
def test_consumers_of_events_are_told_until_they_answer_and_no_new_row_of_a_closed_account_reaches_them(
    sealed: tuple[Shop, dict[str, str]],
) -> None:
    shop, opened = sealed
    closure = opened["closure"]

    def events() -> set[int]:
        """The accounts whose events a consumer gets, who asks for what is new."""
        out = shop.file(f"events-{shop.now:%d-%H}.parquet")
        shop.ask("read", "wallet/coupons", "--out", out, "--field", "coupon", "--field", "account")
        table = pq.read_table(out)
        return {a for n, a in zip(table["coupon"].to_pylist(), table["account"].to_pylist(), strict=True) if n >= 9000}

    def stood() -> dict[str, list[str | None]]:
        with at_desk(open_estate(shop.home, shop.root / "catalog", shop.now)) as desk:
            return {n: [one.told, one.confirmed] for n, one in heard(desk.outbox.history(closure, KIND)).items()}

    with closing(sqlite3.connect(shop.wallet)) as db, db:  # the shop goes on writing
        db.executemany("INSERT INTO coupons VALUES (?, ?, 'coffee', 100, '2027-06-01')", [(9005, 5), (9006, 6)])
    assert stood() == {"events": [None, None]}  # nobody listened: nobody was told
    with listener(500) as (got, url):
        reaches(shop, url)
        for status, confirmed in ((500, None), (204, "2026-11-24T18:05Z"), (None, "2026-11-24T18:05Z")):
            shop.now += timedelta(hours=1)
            before = len(got)
            shop.ask("run-due")
            assert len(got) - before == (status is not None)
            assert stood() == {"events": ["2026-11-24T17:05Z", confirmed]}
        assert events() == {6}
        shop.now += timedelta(hours=1)
        shop.ask("request", "restore", closure, "--code", opened["restore_code"])
        shop.ask("run-due")
        assert events() == {5, 6}
    assert [json.loads(body)["type"] for _headers, body in got] == ["closure.stop", "closure.stop", "closure.resume"]
    assert got[0][0]["webhook-id"] == got[1][0]["webhook-id"]
    for headers, body in got:
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        mac = base64.b64encode(hmac.digest(SECRET, signed, "sha256")).decode()
        assert headers["webhook-signature"] == f"v1,{mac}"
        data = json.loads(body)["data"]
        assert data["closure"] == closure
        assert b"13900000005" not in body
        # Whose it is only they can say who have the account's number and the secret.
        key = hmac.digest(SECRET, b"fangxin/consumers/1", "sha256")
        known = {n: hmac.digest(key, str(n).encode(), "sha256").hex() for n in range(1, PEOPLE + 1)}
        assert [n for n, mine in known.items() if mine in data["accounts"]] == [5]


@pytest.mark.scenario("S41")
def test_at_seven_days_to_the_second_nothing_brings_it_back(sealed: tuple[Shop, dict[str, str]]) -> None:
    shop, opened = sealed
    shop.now = OVER
    code, document = shop.run("request", "restore", opened["closure"], "--code", opened["restore_code"])
    assert (code, document) == (4, {})
    assert "over" in shop.said


@pytest.mark.scenario("S27", "S41")
def test_neither_a_receipt_nor_one_officer_restores_and_two_officers_do(
    sealed: tuple[Shop, dict[str, str]], pristine: Shop
) -> None:
    shop, opened = sealed
    closure, before = opened["closure"], keys(pristine)
    assert shop.run("request", "restore", closure)[0] == 3
    assert shop.run("request", "restore", closure, "--code", opened["receipt_code"])[0] == 3  # mistyped
    shop.ask("request", "cases", closure, "--out", shop.file("cases"))
    for name in ("ans_1", "ans_2"):
        key = shop.file(f"answering/{name}.key")
        argv = ["keys", "answer", shop.file("cases"), "--key", key, "--out", shop.file(f"{name}.json")]
        assert shop.plain(*argv) == 0
    assert shop.run("request", "restore", closure, "--answer", shop.file("ans_1.json"))[0] == 4
    both = ["--answer", shop.file("ans_1.json"), "--answer", shop.file("ans_2.json")]
    assert shop.ask("request", "restore", closure, *both)["state"] == "restored"
    assert keys(shop) == before


FREE_TEXT = (
    ("reject", "CLOSURE", "--officer", "dpo_1", "--reason", "li.wei@example.com"),
    ("reject", "CLOSURE", "--officer", "+8613900000005", "--reason", "takeover"),
    ("extend", "CLOSURE", "--clock", "review", "--officer", "dpo_1", "--reason", "phone-13900000005"),
    ("resume", "CLOSURE", "--officer", "li.wei@example.com"),
    ("resume", "CLOSURE", "--officer", ""),
    ("hold", "CLOSURE", "--reason", "李伟", "--out", "never-written"),
    ("open", "--identity", "phone_number=13900000008", "--verified", "session", "--risk", "li.wei@example.com"),
    ("open", "--identity", "phone_number=13900000008", "--verified", "session", "--owner", "13900000005"),
)


def test_a_second_request_shows_the_first_and_what_is_refused_changes_nothing(shop: Shop) -> None:
    argv = ["request", "open", "--identity", shop.phone(7), "--verified", "session"]
    first = shop.ask(*argv, "--risk", "new_device", "--owner", "dpo_2")
    second = shop.ask(*argv)
    assert (second["closure"], second["new"], second["receipt_code"]) == (first["closure"], False, None)
    assert shop.run("request", "open", "--identity", shop.phone(99), "--verified", "session")[0] == 3
    closure = first["closure"]
    shop.ask("request", "plan", closure, "--out", shop.file("plan.json"))
    shop.sign("plan.json", "dpo_1", "dpo_2")
    assert shop.run("request", "approve", closure, "--approval", shop.file("dpo_2.json"))[0] == 4  # the owner
    one = ["request", "approve", closure, "--approval", shop.file("dpo_1.json")]
    assert shop.ask(*one)["state"] == "review"
    assert shop.run(*one)[0] == 4  # the same officer twice
    assert shop.run("request", "seal", closure)[0] == 4
    for wrong in FREE_TEXT:  # it would stand in history for good
        assert shop.run("request", *(closure if word == "CLOSURE" else word for word in wrong))[0] == 3, wrong
        assert "expected a code" in shop.said
        assert "li.wei" not in shop.said
    assert shop.ask("request", "status", closure)["state"] == "review"
    found = [p for p in shop.home.rglob("*") if p.is_file() and re.search(b"li[.]wei|13900000005", p.read_bytes())]
    assert found == []
    shop.now += timedelta(days=9)
    assert shop.run("run-due")[0] == 2  # high risk never approves itself
    assert shop.ask("request", "reject", closure, "--officer", "dpo_1", "--reason", "takeover")["refused"] == "takeover"


@pytest.mark.scenario("S22")
def test_absent_officers_break_no_promise_and_a_missed_night_is_caught_up(shop: Shop) -> None:
    opened = shop.ask("request", "open", "--identity", shop.phone(8), "--verified", "session")
    shop.ask("request", "plan", opened["closure"])
    shop.now = datetime(2026, 11, 26, 15, 59, 59, tzinfo=UTC)
    assert shop.ask("run-due")["reviewed"] == []
    shop.now += timedelta(seconds=1)  # the end of the second working day
    assert shop.ask("run-due")["reviewed"] == [opened["closure"]]
    shop.now += timedelta(days=3)
    assert shop.ask("run-due")["sealed"] == [opened["closure"]]
    assert shop.run("report", "sla")[0] == 1  # the seal came late: that stays on record


def test_the_night_of_prefect_does_what_the_command_does(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.flows import load_flow_from_entrypoint

    from fangxin.flows import deployed

    opened = shop.ask("request", "open", "--identity", shop.phone(9), "--verified", "session")
    shop.ask("request", "plan", opened["closure"])
    later = open_estate(shop.home, shop.root / "catalog", NOW + timedelta(days=3))
    monkeypatch.setattr(deployed, "open_estate", lambda _home: later)
    assert load_flow_from_entrypoint("fangxin.flows.deployed:run_due").name == "run-due"
    deployed.run_due.fn()
    assert shop.ask("request", "status", opened["closure"])["state"] == "sealing"


@pytest.mark.scenario("S1", "S9", "S11", "S44")
def test_what_is_taken_along_is_what_was_located_and_goes_when_its_hours_are_over(shop: Shop) -> None:
    closure = shop.ask("request", "open", "--identity", shop.phone(3), "--verified", "session")["closure"]
    export = ["request", "export", closure]
    for wrong in (
        export,
        [*export, "--waive", "--collected"],
        [*export, "--out", str(shop.home / "x")],
        [*export, "--out", str(shop.wallet.parent / "x")],
    ):
        assert shop.run(*wrong)[0] == 3
    assert shop.run(*export, "--collected")[0] == 4
    made = shop.ask(*export, "--out", shop.file("mine"))
    conforms("request", made)
    assert (made["export"]["state"], made["export"]["rows"], made["export"]["files"]) == ("ready", 2, 2)
    folder = shop.root / "mine" / closure
    card = pq.read_table(folder / "wallet.accounts.parquet").column("card").to_pylist()
    assert card == ["622202123456780003"]  # opened, although it lies under a key
    listing = json.loads((folder / "manifest.json").read_bytes())
    assert hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest() == made["export"]["manifest"]
    assert listing
    assert shop.ask(*export, "--collected")["export"]["state"] == "collected"
    shop.now += timedelta(hours=72)
    done = shop.run("run-due")[1]
    conforms("run-due", done)
    assert done["exports_destroyed"] == [closure]
    assert not folder.exists()
    assert shop.run("run-due")[1]["exports_destroyed"] == []
    other = shop.ask("request", "open", "--identity", shop.phone(4), "--verified", "session")["closure"]
    away = shop.wallet.rename(shop.root / "away")
    assert shop.run("request", "export", other, "--out", shop.file("none"))[0] != 0
    away.rename(shop.wallet)
    assert shop.ask("request", "status", other)["export"]["state"] == "failed"
    assert shop.ask("request", "export", other, "--waive")["export"]["state"] == "waived"
    store = Closures(f"sqlite:///{shop.home / 'closures.db'}")
    (said,) = [e for one in store.events(other) if one["type"] == "waive_export" for e in one["body"]["entries"]]
    store.engine.dispose()
    ledger = open_estate(shop.home, shop.root / "catalog", shop.now).ledger
    assert ledger.find([said["tag"]])[said["tag"]][1]["code"] == "export_waived"  # not skipped unseen
    counted = [one["code"] for _index, one in ledger.entries() if one["type"] == "exception"]
    assert counted == ["export_failed", "export_waived"]  # the public report counts them by these codes


def test_a_day_of_arrivals_is_answered_as_each_would_be_alone(shop: Shop) -> None:
    def asked(number: int, **more: Any) -> Asked:
        return Asked((Identity("phone_number", f"139{number:08d}"),), "session", **more)

    with at_desk(open_estate(shop.home, shop.root / "catalog", shop.now)) as desk:
        replayed = asked(3, key="once")
        day = [asked(1), asked(2), asked(1), asked(99), asked(4, laws=("none",)), replayed, Asked((), "session")]
        first, second, again, nobody, unlawful, third, empty = open_closures(desk, day)
        assert isinstance(first, Opened)
        assert isinstance(second, Opened)
        assert isinstance(third, Opened)
        assert again == Opened(first.id)  # a live one is there: no codes a second time
        assert all(isinstance(one, InputError) for one in (nobody, unlawful, empty))
        (same,) = open_closures(desk, [replayed])
        assert same == Opened(third.id, third.receipt, replayed=True)
        there = desk.closures.many([first.id, second.id, third.id])
        assert {one.state for one in there} == {"preflight"}

        secrets = [desk.opened(one) for one in there]
        both = look(desk, [*secrets, secrets[0]])  # one of them twice: these two share every row, and are seen alone
        for secret, seen in zip([*secrets, secrets[0]], both, strict=True):
            (alone,) = look(desk, [secret])
            assert isinstance(alone, Look)
            assert isinstance(seen, Look)
            assert (seen.rows, seen.facts, seen.items) == (alone.rows, alone.facts, alone.items)
            assert [case[1:] for case in seen.cases] == [case[1:] for case in alone.cases]
        assert len({one.items[0].id for one in both if isinstance(one, Look)}) == 3

        with closing(sqlite3.connect(shop.wallet)) as db, db:
            db.execute("UPDATE coupons SET kind = 'odd' WHERE account = 2")  # nobody's rules know it
        planned = make_plans(desk, there)
        assert isinstance(planned[second.id], InputError)
        assert desk.closures.get(second.id).state == "preflight"
        for one in (first, third):
            assert desk.closures.get(one.id).facts["plan"]["rows"] == both[0].rows  # type: ignore[union-attr]
        assert sum(desk.closures.books()["CNY"].values()) == 0
        desk.all_told()
        before = desk.estate.ledger.size
        desk.all_told()
        assert desk.estate.ledger.size == before

"""Payments to a real provider that fails, is late, answers twice and contradicts itself: one a key, to the cent."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from process import bank as banks
from process.bank import Bank

from fangxin.data.closures.outbox import LEASE, LOOK_AGAIN, Outbox
from fangxin.data.closures.store import Change, Closures, Message, Told
from fangxin.data.errors import InputError
from fangxin.flows.lifecycle import REGRET
from fangxin.flows.payments import HttpProvider, at, connector, load

NOW = datetime(2026, 11, 27, 2, tzinfo=UTC)
KEYS = ("plain", "down", "lost", "late", "slow", "twice", "other", "text", "declined", "pending", "fickle", "nowhere")


@pytest.fixture
def bank() -> Iterator[Bank]:
    with banks.running() as found:
        yield found


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Closures]:
    """A store with one closing that owes 1.00, 1.01, ... under one key each."""
    found = Closures(f"sqlite:///{tmp_path / 'c.db'}")
    rows = [Message(key, "payout", {"minor": 100 + n, "currency": "CNY"}, NOW) for n, key in enumerate(KEYS)]
    owed = [(f"owed-{n}", a, "CNY", m) for n in range(len(KEYS)) for a, m in (("wallet", -100 - n), ("owed", 100 + n))]
    change = Change("sealing", {}, Told("system", "approve"), messages=rows, postings=owed)
    found.open("c-1", receipt="r", account="a", ref=b"r" * 16, digests={}, change=change, now=NOW)
    yield found
    found.engine.dispose()


def paying(bank: Bank, *, stop: str = "") -> dict[str, object]:
    provider = at(bank.url, "secret", rehearsal=True, timeout=0.1)
    return {
        "payout": connector(provider, lambda row: "" if row.key == "nowhere" else f"tok-{row.key}", lambda _r: stop)
    }


def states(store: Closures) -> dict[str, str]:
    with store.engine.connect() as db:
        rows = db.exec_driver_sql(
            "SELECT key, CASE WHEN done IS NULL THEN 'open:' ELSE '' END, answer, error FROM outbox"
        )
        return {key: f"{is_open}{answer or error or ''}" for key, is_open, answer, error in rows}


def test_whatever_the_provider_does_each_key_is_paid_once_and_the_books_say_where_every_cent_is(
    bank: Bank, store: Closures
) -> None:
    bank.faults = {key: [key] for key in KEYS if key not in ("plain", "nowhere")}
    box, now = Outbox(store.engine), NOW
    first = paying(bank)
    box.work("w", first, now)  # type: ignore[arg-type]
    assert states(store)["late"] == "open:provider_unreachable"
    for _ in range(4):
        now += LOOK_AGAIN + timedelta(minutes=1)
        box.work("w", first, now)  # type: ignore[arg-type]
    found = states(store)
    assert {k: found[k] for k in ("other", "fickle")} == {"other": "open:parked", "fickle": "open:parked"}
    assert (found["declined"], found["nowhere"]) == ("unpaid:account_closed", "unpaid:no_instrument")
    assert found["pending"] == "open:pending"  # asked again and again, and never parked for it
    paid = {"plain", "down", "lost", "late", "slow", "twice", "text"}
    assert {key for key in KEYS if found[key].startswith("p-")} == paid
    assert sorted(key for key, _minor in bank.payments) == sorted(paid | {"other", "fickle"})  # each once
    amounts = {key: 100 + n for n, key in enumerate(KEYS)}
    assert store.books() == {
        "CNY": {
            "wallet": -sum(amounts.values()),
            "paid": sum(amounts[k] for k in paid),
            "unclaimed": amounts["declined"] + amounts["nowhere"],
            "owed": sum(amounts[k] for k in ("other", "fickle", "pending")),
        }
    }
    bank.known["pending"]["status"] = "paid"
    box.work("w", first, now + LOOK_AGAIN + timedelta(minutes=1))  # type: ignore[arg-type]
    assert store.books()["CNY"]["owed"] == amounts["other"] + amounts["fickle"]


def test_when_the_closing_does_not_happen_what_was_sent_is_voided_and_what_was_paid_stays_paid(
    bank: Bank, store: Closures
) -> None:
    bank.faults = {"plain": ["lost"], "down": ["down"], "pending": ["pending"]}
    box = Outbox(store.engine)
    sent = {"plain", "down", "pending"}
    box.work("w", paying(bank), NOW, most=12)  # type: ignore[arg-type]  # "plain" was paid, and nobody heard of it
    paid_before = bank.sum
    store.move("c-1", 0, Change("restored", {}, Told("holder", "restore"), live=False, give_back=True), NOW)
    later = NOW + LEASE + timedelta(hours=2)
    for _ in range(2):
        box.work("w", paying(bank, stop="wallet"), later)  # type: ignore[arg-type]
    assert box.open() == {}
    assert bank.sum == paid_before  # nothing was paid after the account came back
    books = store.books()["CNY"]
    assert (books.get("owed", 0), books["paid"]) == (0, bank.sum)
    assert books["unclaimed"] == 100 + KEYS.index("nowhere")
    assert sum(books.values()) == 0
    assert {bank.known[key]["status"] for key in sent} == {"paid", "void"}
    provider = at(bank.url, "secret", rehearsal=True)
    assert _pay_again(provider, "down") == "void"  # a request that arrives late pays nothing any more


def _pay_again(provider: HttpProvider, key: str) -> str:
    from fangxin.flows.payments import Order
    from fangxin.flows.refund import Money

    return provider.pay(Order(key, Money(1, "CNY"), "tok")).status


def test_a_provider_is_https_and_a_wrong_file_is_refused_by_name(tmp_path: Path) -> None:
    for url in ("http://pay.example.com", "http://127.0.0.1/v1", "https://u:p@pay.example.com", "https://", "ftp://x"):
        with pytest.raises(InputError, match="https"):
            at(url, "t", rehearsal=False)
    assert at("https://pay.example.com/v1", "t", rehearsal=False).context is not None
    file = tmp_path / "payments.toml"
    assert load(file, rehearsal=True) is None
    (tmp_path / "token").write_text("t\n")
    good = 'url = "https://pay.example.com"\ntoken_file = "token"\n'
    for text, said in (
        ("url = 3 =", "not TOML"),
        ('url = "https://x.example"\n', "missing key token_file"),
        (good + "times = 3\n", "unknown key times"),
        (good + "timeout = 0\n", "timeout"),
        (good.replace('"token"', '"none"'), "token_file"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=said):
            load(file, rehearsal=True)
    file.write_text(good)
    found = load(file, rehearsal=False)
    assert found is not None
    assert "token" not in repr(found)


def test_three_years_to_claim_end_on_a_day_that_exists_and_summer_time_moves_no_hour_of_regret() -> None:
    """29 February has no third birthday; 7 x 24 h over a change of clocks are 168 hours, not seven local days."""
    from fangxin.flows.claims import ends
    from fangxin.flows.refund import Money, Term, quote

    leap = datetime(2028, 2, 29, 4, tzinfo=UTC)
    assert ends(leap, "Asia/Shanghai").isoformat() == "2031-02-28T12:00:00+08:00"
    sealed = datetime(2026, 10, 24, 22, 5, tzinfo=UTC)  # 00:05 in Berlin, the night before clocks go back
    berlin = ZoneInfo("Europe/Berlin")
    until = sealed + REGRET
    assert (until - sealed).total_seconds() == 168 * 3600
    assert until.astimezone(berlin).strftime("%d %H:%M") == "31 23:05"  # an hour earlier by the wall: that is meant
    term = Term(date(2026, 10, 1), date(2026, 11, 1), "Europe/Berlin", Money(3100, "EUR"), Money(0, "EUR"))
    first, second = (datetime(2026, 10, 25, hour, 30, tzinfo=UTC) for hour in (0, 1))  # 02:30 twice by the wall
    assert quote(term, first) == quote(term, second)
    assert quote(term, first).refund == Money(600, "EUR")

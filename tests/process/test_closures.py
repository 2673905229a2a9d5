"""The closures store on SQLite and PostgreSQL: one live closure an account, one winner a move, nothing left behind."""

from __future__ import annotations

import os
import random
import sqlite3
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from fangxin.data.closures.engine import MIGRATIONS, NEWEST, Taken, settle, writing
from fangxin.data.closures.outbox import LEASE, TRIES, Outbox, Refused, Row
from fangxin.data.closures.schema import METADATA
from fangxin.data.closures.store import AlreadyLive, Change, Closures, Message, Overtaken, Timer, Told, stamp
from fangxin.data.closures.transfers import Transfers
from fangxin.data.errors import DoesNotHold, Incomplete, InputError, NotAllowed, StoreUnavailable

NOW = datetime(2026, 11, 27, 2, tzinfo=UTC)
Make = Callable[[], Closures]
TOLD = Told("system", "request.opened", {"digest": "0" * 64})


def opened(store: Closures, name: str = "c-1", *, account: str = "a-1", **known: object) -> str:
    change = Change("draft", {"round": 1}, TOLD)
    store.open(
        name,
        receipt=f"{name}-receipt",
        account=account,
        ref=os.urandom(16),
        digests={"promise": "p"},
        change=replace(change, **known),  # type: ignore[arg-type]
        now=NOW,
        sealed=b"sealed",
    )
    return name


def to(state: str, **known: object) -> Change:
    return replace(Change(state, {"round": 1}, Told("system", state)), **known)  # type: ignore[arg-type]


# ---------------------------------------------------------------- closures


def test_an_account_has_one_live_closure_and_the_second_is_shown_the_first(store: Closures) -> None:
    first = opened(store)
    with pytest.raises(AlreadyLive) as live:
        opened(store, "c-2")
    assert live.value.closure == first
    store.move(first, 0, to("cancelled", live=False), NOW)
    assert opened(store, "c-3") == "c-3"  # after the end the account may begin anew


def test_whoever_read_an_older_version_is_overtaken_and_writes_nothing(store: Closures) -> None:
    name = opened(store)
    store.move(name, 0, to("submitted"), NOW)
    before = store.events(name)
    message = Message("k", "notice", {}, NOW)
    with pytest.raises(Overtaken):
        store.move(name, 0, to("cancelled", messages=[message], postings=[("e", "owed", "CNY", 1)]), NOW)
    assert store.get(name).state == "submitted"
    assert store.events(name) == before
    assert Outbox(store.engine).open() == {}
    assert store.books() == {}


def test_a_history_that_somebody_edited_is_noticed_and_the_database_refuses_to_edit_it(store: Closures) -> None:
    name = opened(store)
    for n, state in enumerate(("submitted", "preflight", "review")):
        store.move(name, n, to(state), NOW + timedelta(minutes=n))
    assert [e["type"] for e in store.events(name)] == ["request.opened", "submitted", "preflight", "review"]
    for sql in ("UPDATE event SET type = 'x'", "DELETE FROM event", "DELETE FROM posting"):
        store.move(name, store.get(name).version, to("review", postings=[(sql, "owed", "CNY", 0)]), NOW)
        with pytest.raises((Taken, StoreUnavailable)), writing(store.engine) as db:
            db.execute(text(sql))
    with writing(store.engine) as db:
        if store.engine.dialect.name == "sqlite":
            db.execute(text("DROP TRIGGER event_no_update"))
        else:
            db.execute(text("ALTER TABLE event DISABLE TRIGGER event_only_added"))
        db.execute(text("UPDATE event SET actor = 'somebody' WHERE seq = 1"))
    with pytest.raises(DoesNotHold, match="breaks at event 1"):
        store.events(name)


def test_clocks_timers_and_books_are_written_with_the_move(store: Closures) -> None:
    name = opened(store)
    clock = {"started": stamp(NOW), "deadline": stamp(NOW) + 1, "met": None, "alarmed": 0, "told": {"zone": "UTC"}}
    timers = [Timer("expire", NOW + timedelta(days=7), "waits_for_person", NOW + timedelta(days=7))]
    money = [("e1", "wallet", "CNY", -3650), ("e1", "owed", "CNY", 3650)]
    store.move(name, 0, to("submitted", clocks={"review": clock}, timers=timers, postings=money), NOW)
    assert store.clocks(name)["review"]["told"] == {"zone": "UTC"}
    assert store.due(NOW + timedelta(days=6)) == ()
    assert store.due(NOW + timedelta(days=7)) == ((name, "expire"),)
    assert store.books(name) == {"CNY": {"owed": 3650, "wallet": -3650}}
    store.move(name, 1, to("preflight", clocks={"review": {**clock, "met": stamp(NOW)}}), NOW)
    assert store.clocks(name)["review"]["met"] == stamp(NOW)
    assert store.due(NOW + timedelta(days=99)) == ()  # timers belong to a state
    with pytest.raises(Overtaken):  # a double entry is written once
        store.move(name, 2, to("review", postings=money), NOW)


def test_a_stranger_s_code_and_a_finished_one_are_told_the_same(store: Closures) -> None:
    name = opened(store)
    assert store.by_receipt("c-1-receipt").id == name
    with pytest.raises(InputError, match="nothing is found under this code"):
        store.by_receipt("somebody's")
    with pytest.raises(InputError, match="no closure c-9"):
        store.get("c-9")


@pytest.mark.scenario("S41")
def test_three_hundred_races_of_restore_and_erase_have_one_winner_each(make: Make) -> None:
    stores = [make(), make()]
    names = [opened(stores[0], f"c-{n}", account=f"a-{n}") for n in range(300)]

    def run(who: int) -> Counter[str]:
        outcome: Counter[str] = Counter()
        for name in names:
            try:
                stores[who].move(name, 0, to(("restored", "destroying")[who]), NOW)
                outcome["won"] += 1
            except Overtaken:
                outcome["lost"] += 1
        return outcome

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(run, range(2))
    assert first["won"] + second["won"] == 300 == first["lost"] + second["lost"]
    assert all(len(stores[0].events(name)) == 2 for name in names)


# ---------------------------------------------------------------- transfers


@pytest.mark.scenario("S40")
def test_sixteen_threads_on_two_hundred_coupons_give_two_hundred_winners(make: Make) -> None:
    base = make()
    opened(base)
    Transfers(base.engine).hold("c-1", {f"i-{n}": ("coupon", 500, "CNY") for n in range(200)}, holder="h-0")
    for n in range(200):
        Transfers(base.engine).offer(f"i-{n}", f"o-{n}", until=NOW + timedelta(days=7))
    stores = [make() for _ in range(4)]

    def run(who: int) -> int:
        transfers, won = Transfers(stores[who % 4].engine), 0
        order = random.Random(who).sample(range(200), 200)
        for n in order:
            try:
                transfers.accept(f"o-{n}", receiver=f"h-{who + 1}", closing=False, now=NOW)
                won += 1
            except NotAllowed:
                continue
        return won

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(run, range(16))) == 200
    with writing(base.engine) as db:
        assert db.execute(text("SELECT count(*), max(version) FROM entitlement WHERE state = 'moved'")).one() == (
            200,
            2,
        )
        assert db.execute(text("SELECT count(*), count(DISTINCT key) FROM outbox")).one() == (200, 200)


@pytest.mark.scenario("S40")
def test_a_transfer_has_its_refusals(store: Closures) -> None:
    opened(store)
    transfers = Transfers(store.engine)
    transfers.hold("c-1", {"i": ("coupon", 500, "CNY")}, holder="h-0")
    transfers.offer("i", "o", until=NOW + timedelta(hours=1))
    with pytest.raises(NotAllowed, match="cannot be offered"):
        transfers.offer("i", "o-2", until=NOW)
    for known, said in (
        ({"receiver": "h-0", "closing": False, "now": NOW}, "from themselves"),
        ({"receiver": "h-1", "closing": True, "now": NOW}, "is closing"),
        ({"receiver": "h-1", "closing": False, "now": NOW + timedelta(hours=1)}, "is over"),
    ):
        with pytest.raises(NotAllowed, match=said):
            transfers.accept("o", **known)  # type: ignore[arg-type]
    transfers.end("o", "withdrawn")
    with pytest.raises(NotAllowed, match="nothing is offered"):
        transfers.accept("o", receiver="h-1", closing=False, now=NOW)
    transfers.offer("i", "o-3", until=NOW + timedelta(hours=1))
    assert transfers.close("c-1") == 1  # with its closing, whatever its date
    with pytest.raises(NotAllowed, match="nothing is offered"):
        transfers.accept("o-3", receiver="h-1", closing=False, now=NOW)
    transfers.offer("i", "o-4", until=NOW + timedelta(hours=1))
    assert transfers.accept("o-4", receiver="h-1", closing=False, now=NOW) == "i"
    assert transfers.close("c-1") == 0


# ---------------------------------------------------------------- the outbox


class Bank:
    """A far side that knows idempotency keys: it pays once a key, and answers the same again."""

    def __init__(self) -> None:
        self.paid: dict[str, int] = {}
        self.asked: Counter[str] = Counter()

    def __call__(self, row: Row) -> str:
        self.asked[row.key] += 1
        self.paid.setdefault(row.key, int(row.body["minor"]))
        return f"ref-{row.key}"


class Killed(BaseException):
    """A worker dies; nothing of ours catches it."""


@pytest.mark.scenario("S5")
def test_three_hundred_refunds_with_a_worker_that_dies_twenty_four_times_are_three_hundred_payments(
    make: Make,
) -> None:
    store, bank, chance = make(), Bank(), random.Random(3)
    deaths: list[int] = []
    messages = [Message(f"k-{n}", "refund", {"minor": n + 1}, NOW) for n in range(300)]
    opened(store, messages=messages)

    def pay(row: Row) -> str:
        dies = chance.random() if len(deaths) < 24 else 1.0
        if dies < 0.05:
            raise Killed  # before sending
        answer = bank(row)
        if dies < 0.1:
            raise Killed  # after sending, before it is marked
        return answer

    now = NOW
    for life in range(200):
        box = Outbox(make().engine if life % 40 == 0 else store.engine)
        try:
            box.work(f"w-{life}", {"refund": pay}, now, most=20)
        except Killed:
            deaths.append(life)
        if not box.open():
            break
        now += LEASE + timedelta(seconds=1)
    assert len(deaths) == 24
    assert sum(bank.paid.values()) == 300 * 301 // 2
    assert len(bank.paid) == 300
    assert max(bank.asked.values()) > 1  # somebody did ask twice


def test_what_fails_is_tried_again_later_and_parked_at_last(store: Closures) -> None:
    opened(store, messages=[Message("k", "refund", {"minor": 1}, NOW), Message("x", "unheard_of", {}, NOW)])
    box, now, tries = Outbox(store.engine), NOW, 0

    def down(_row: Row) -> str:
        nonlocal tries
        tries += 1
        raise Refused("timeout")

    waits = []
    for _ in range(200):
        box.work("w", {"refund": down}, now)
        waits.append(tries)
        now += timedelta(minutes=10)
    assert tries == TRIES
    assert waits[1] < TRIES
    assert box.open() == {"refund": 1, "unheard_of": 1}  # parked for an officer, never dropped
    with writing(store.engine) as db:
        assert set(db.execute(text("SELECT error FROM outbox")).scalars()) == {"parked"}


def lane(n: int, *, of: str = "events", instead: tuple[str, ...] = ()) -> Message:
    return Message(f"{of}-{n}", "consumer", {"event": "e"}, NOW - timedelta(hours=n), lane=of, instead=instead)


def test_rows_of_a_lane_go_in_the_order_of_their_moves_whoever_works(make: Make) -> None:
    """Eight workers on four connections; one is late, one dies: nobody hears a later message before an earlier one."""
    base, chance = make(), random.Random(7)
    for name in range(6):
        opened(base, f"c-{name}", account=f"a-{name}")
        for n in range(4):  # the later the move, the earlier it is due: only the lane keeps their order
            rows = [replace(lane(n, of=of), key=f"{name}-{of}-{n}") for of in ("x", "y")]
            base.move(f"c-{name}", n, to("review", messages=rows), NOW)
    boxes = [Outbox(make().engine) for _ in range(4)]
    heard: list[tuple[str, str, int]] = []
    together = Barrier(8)  # their clocks go alike

    def hear(row: Row) -> str:
        if chance.random() < 0.2:
            raise Refused("consumer_500")
        heard.append((row.closure, row.key.split("-")[1], row.turn or 0))
        if chance.random() < 0.1:
            raise Killed  # it was heard, and nobody knows
        return "204"

    def run(who: int) -> None:
        now = NOW
        for _ in range(40):
            together.wait()
            with suppress(Killed):
                boxes[who % 4].work(f"w-{who}", {"consumer": hear}, now, most=3)
            now += LEASE + timedelta(hours=1)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, range(8)))
    assert boxes[0].open() == {}
    for name in range(6):
        for of in ("x", "y"):
            mine = [turn for closure, at, turn in heard if (closure, at) == (f"c-{name}", of)]
            assert mine == sorted(mine)
            assert set(mine) == {1, 2, 3, 4}


def test_what_a_later_message_takes_the_place_of_is_not_sent_and_what_is_under_way_is_waited_for(
    store: Closures,
) -> None:
    opened(store, messages=[lane(1)])
    box = Outbox(store.engine)
    (held,) = box.claim("a", NOW)  # somebody calls just now
    with store.together(["c-1"]):
        store.move("c-1", 0, to("ready"), NOW)
        store.move("c-1", 1, to("destroying", messages=[lane(2, instead=("events-1",))]), NOW)
    assert box.claim("b", NOW) == []  # it might be heard after what follows it
    assert [(one.answer, one.taken) for one in box.history("c-1", "consumer")] == [("superseded", False), (None, False)]
    assert box.done(held.key, "204", NOW)  # it was taken after all
    assert [one.taken for one in box.history("c-1", "consumer")] == [True, False]
    assert [row.key for row in box.claim("b", NOW)] == ["events-2"]
    store.move("c-1", 2, to("destroying", messages=[lane(3, instead=("events-2",))]), NOW)
    box.failed(held, Refused("late"), NOW)  # what ended stays as it ended
    assert box.claim("c", NOW + LEASE - timedelta(seconds=1)) == []
    assert [row.key for row in box.claim("c", NOW + LEASE)] == ["events-3"]  # whoever held it is dead
    box.failed(Row("events-3", "c-1", "consumer", {}, TRIES, None), Refused("gone"), NOW)
    store.move("c-1", 3, to("destroying", messages=[lane(4)]), NOW)
    assert [row.key for row in box.claim("d", NOW + LEASE)] == ["events-4"]  # what was given up holds up nobody


def test_a_row_waits_for_rows_of_a_former_closing_that_it_names(store: Closures) -> None:
    box = Outbox(store.engine)
    opened(store, messages=[replace(lane(1), sealed=b'["hash"]')])
    left = box.unheard("consumer", NOW)
    (former,) = left.former("events", ["hash", "other"], "c-2")
    assert (former.key, former.over, former.parked) == ("events-1", False, False)
    assert left.former("events", ["other"], "c-2") == left.former("events", ["hash"], "c-1") == []
    later = Message(
        "later", "consumer", {"event": "e", "behind": [former.key]}, NOW - timedelta(hours=2), lane="events"
    )
    opened(store, "c-2", account="a-2", messages=[later])
    assert box.unheard("consumer", NOW).turn > left.turn
    (row,) = box.claim("w", NOW)
    assert row.key == former.key
    assert box.claim("v", NOW) == []
    box.failed(row, Refused("gone", final=True), NOW)
    assert [one.key for one in box.claim("v", NOW)] == ["later"]
    assert box.tellable("c-1", "consumer") == []  # given up, and somebody came behind it
    box.note(row.key, heard="then")
    box.note(row.key, heard="now")
    (noted,) = box.history("c-1", "consumer")
    assert noted.body == {"event": "e", "heard": "then"}
    opened(store, "c-3", account="a-3", messages=[lane(3)])
    assert box.park_empty("consumer") == ["c-2", "c-3"]
    assert box.park_empty("consumer") == []


def test_what_is_kept_for_a_message_goes_with_it_or_on_a_day_however_often_it_is_tried(store: Closures) -> None:
    opened(store, messages=[replace(lane(n, of=f"x{n}"), sealed=b"hash") for n in range(3)])
    box, day = Outbox(store.engine), timedelta(days=1)
    taken, tried, untried = box.claim("w", NOW)
    box.done(taken.key, "204", NOW)
    box.failed(tried, Refused("down", waits=True), NOW + 80 * day)  # a long outage: others are tried in its place
    assert box.let_go("other", tried=NOW + day, written=NOW + day) == []
    assert box.let_go("consumer", tried=NOW - day, written=NOW - day) == []
    assert box.tellable("c-1", "consumer") == []  # nothing is given up
    assert box.again([tried.key], NOW) == 0
    assert box.let_go("consumer", tried=NOW + day, written=NOW - day) == ["c-1"]  # nobody ever tried it
    assert [row.sealed for row in (box.take(one.key, "w", NOW) for one in (taken, tried, untried))] == [
        None,
        b"hash",
        None,
    ]
    assert box.let_go("consumer", tried=NOW + day, written=NOW) == ["c-1"]
    assert box.standing("c-1", ["consumer"]) == (0, 2)


def test_a_connector_that_breaks_holds_up_nobody_else_and_its_words_are_not_kept(store: Closures) -> None:
    opened(store, messages=[Message(key, "refund", {"minor": 1}, NOW) for key in ("a", "b", "c")])
    box, now = Outbox(store.engine), NOW

    def breaks(row: Row) -> str:
        if row.key == "a":
            raise ValueError("no such person: 13900000005")
        if row.key == "b":
            raise NotAllowed("the person 13900000005 is forgotten")
        return "done"

    assert box.work("w", {"refund": breaks}, now) == 1
    with writing(store.engine) as db:
        errors = set(db.execute(text("SELECT error FROM outbox WHERE done IS NULL")).scalars())
    assert {one.split(":")[0] for one in errors} == {
        f"broke/{e} at test_closures.py" for e in ("ValueError", "NotAllowed")
    }
    assert "139" not in str(errors)
    assert box.broken().keys() == {"c-1"}
    for _ in range(3 * TRIES):
        now += timedelta(days=1)
        box.work("w", {"refund": breaks}, now)
    assert (box.standing("c-1", ["refund"]), box.broken()) == ((0, 2), {})  # tried as often as any, then for an officer
    with pytest.raises(Killed):
        box.carry([replace(box.take("a", "w", now), kind="kill")], {"kill": kill}, now)


def kill(_row: Row) -> str:
    raise Killed


# ---------------------------------------------------------------- what stays in the files


def test_what_was_sealed_leaves_no_byte_in_the_files_of_sqlite(tmp_path: Path) -> None:
    store = Closures(f"sqlite:///{tmp_path / 'c.db'}")
    marker = b"a marker of sixteen words that nobody else would ever write"
    for n in range(50):
        store.open(
            f"c-{n}", receipt=f"r-{n}", account=f"account-{n}", ref=b"r", digests={}, sealed=marker,
            change=Change("draft", {}, TOLD), now=NOW,
        )  # fmt: skip
    files = [tmp_path / "c.db", tmp_path / "c.db-wal"]
    assert any(marker in f.read_bytes() for f in files if f.exists())
    for n in range(50):
        store.move(f"c-{n}", 0, to("closed", live=False, forget=True), NOW)
    left = b"".join(f.read_bytes() for f in tmp_path.iterdir())
    assert marker not in left
    assert b"account-7" not in left


def test_a_reader_that_keeps_old_pages_is_told(tmp_path: Path) -> None:
    store = Closures(f"sqlite:///{tmp_path / 'c.db'}")
    opened(store)
    with closing(sqlite3.connect(tmp_path / "c.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM closure").fetchall()
        opened(store, "c-2", account="a-2")
        with pytest.raises(Incomplete, match="old pages"):
            settle(store.engine, tries=2)
    settle(store.engine)


def test_migrations_make_the_tables_that_the_code_knows_and_twice_changes_nothing(make: Make) -> None:
    make()
    store = make()
    with store.engine.connect() as db:
        assert compare_metadata(MigrationContext.configure(db), METADATA) == []
        assert MigrationContext.configure(db).get_current_revision() == NEWEST
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == NEWEST


def test_errors_quote_no_row(store: Closures) -> None:
    with pytest.raises(StoreUnavailable) as refused, writing(store.engine) as db:
        db.execute(text("INSERT INTO nowhere VALUES (:secret)"), {"secret": "13900001111"})
    assert "13900001111" not in str(refused.value)
    assert refused.value.__cause__ is None
    with pytest.raises(InputError, match="sqlite:///FILE"):
        Closures("mysql://somewhere")

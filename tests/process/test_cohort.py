"""A cohort's moves in one transaction come to what single moves come to, and each of them is refused by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from process.test_closures import NOW, opened, to
from sqlalchemy import select

from fangxin.data.closures.engine import reading
from fangxin.data.closures.outbox import Outbox
from fangxin.data.closures.schema import CLOCK, CLOSURE, EVENT, OUTBOX, POSTING, TIMER, WATCH
from fangxin.data.closures.store import Change, Closures, Message, Overtaken, Timer
from fangxin.data.errors import InputError

WHO = ("c-1", "c-2", "c-3")


def a_clock(met: datetime | None = None) -> dict[str, Any]:  # Any: a row
    return {"started": 1, "deadline": 9, "met": met and 5, "alarmed": 0, "told": {"zone": "Asia/Shanghai"}}


def ways(name: str) -> list[Change]:
    """A life in four moves: a clock starts and is met, money is owed and paid for, a watch begins."""
    message = Message(f"{name}-pay", "payout", {"minor": 7}, NOW, b"s")
    owed = [(f"{name}-e", "wallet", "CNY", -7), (f"{name}-e", "owed", "CNY", 7)]
    return [
        to("submitted", clocks={"review": a_clock()}, timers=[Timer("plan", NOW, "unplanned", NOW)]),
        to("review", postings=owed, messages=[message], timers=[Timer("review", NOW, "review", NOW)]),
        to("cooling", clocks={"review": a_clock(NOW), "done": a_clock()}, sealed=b"more"),
        to("certified", watched=("2026-4", [b"t" * 16]), forget=True, live=False),
    ]


def lived(store: Closures, name: str) -> None:
    for version, change in enumerate(ways(name)):
        assert store.move(name, version, change, NOW + timedelta(minutes=version)).version == version + 1


def rows(store: Closures) -> dict[str, list[Any]]:
    """Every row but what is random in it: the refs."""
    found = {}
    with reading(store.engine) as db:
        for table in (CLOSURE, EVENT, CLOCK, TIMER, WATCH, OUTBOX, POSTING):
            wanted = [c for c in table.c if c.name != "ref"]
            found[table.name] = sorted(map(repr, db.execute(select(*wanted)).all()))
    return found


def test_moves_made_together_leave_the_rows_that_single_moves_leave(store: Closures, tmp_path_factory: Any) -> None:
    alone = Closures(f"sqlite:///{tmp_path_factory.mktemp('alone') / 'closures.db'}")
    for n, name in enumerate(WHO):
        opened(alone, name, account=f"a-{n}")
        lived(alone, name)
        opened(store, name, account=f"a-{n}")
    with store.together(WHO[:2]):  # the third is read when it comes
        for name in WHO:
            lived(store, name)
    assert rows(store) == rows(alone)
    assert [e["type"] for e in store.events("c-2")][-1] == "certified"  # and the chain of hashes holds


def test_what_is_refused_is_refused_alone_and_what_is_read_inside_is_what_was_written(store: Closures) -> None:
    for n, name in enumerate(WHO):
        opened(store, name, account=f"a-{n}")
    with store.together(WHO):
        first = store.move("c-1", 0, ways("c-1")[0], NOW)
        store.move(first.id, 1, ways("c-1")[1], NOW)
        assert store.books("c-1") == {"CNY": {"wallet": -7, "owed": 7}}
        assert store.clocks("c-1")["review"]["deadline"] == 9
        with pytest.raises(Overtaken):
            store.move("c-2", 3, to("submitted"), NOW)  # somebody read another version
        with pytest.raises(Overtaken):  # the same money twice: in this round, and in one before it
            store.move("c-2", 0, replace(ways("c-1")[1], messages=[]), NOW)
        with pytest.raises(InputError):
            store.get("c-9")
        store.move("c-3", 0, to("submitted", give_back=True), NOW)
    assert [store.get(one).version for one in WHO] == [2, 0, 1]
    assert Outbox(store.engine).open() == {"payout": 1}
    with store.together(), pytest.raises(Overtaken):
        store.move("c-2", 0, replace(ways("c-1")[1], postings=[]), NOW)


def test_an_error_of_ours_keeps_what_was_written_before_it_and_a_kill_keeps_nothing(
    make: Callable[[], Closures],
) -> None:
    store = make()
    for n, name in enumerate(WHO):
        opened(store, name, account=f"a-{n}")

    def stopped(name: str, error: BaseException) -> None:
        with store.together(WHO):
            store.move(name, 0, to("submitted"), NOW)
            raise error

    with pytest.raises(InputError, match="stop"):
        stopped("c-1", InputError("stop"))
    with pytest.raises(KeyboardInterrupt):
        stopped("c-2", KeyboardInterrupt())
    assert [make().get(one).version for one in WHO] == [1, 0, 0]
    moment = datetime(2026, 11, 27, 3, tzinfo=UTC)
    assert store.move("c-2", 0, to("submitted"), moment).version == 1  # and the store is free again

"""A round: the moves of a cohort inside one transaction, decided one by one and written table by table.

A move alone reads the head of its history and writes six tables; a thousand moves so would be ten thousand statements.
Here the closures are read once, locked; each move is checked against what is known of them in memory, as the database
would check it, and all rows are written together: before anybody reads, and at the end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from fangxin.data.closures import undone
from fangxin.data.closures.schema import CLOCK, CLOSURE, EVENT, OUTBOX, POSTING, REPLAY, TIMER, WATCH

MOST = 500  # ids in one statement
_SWAP = (
    update(CLOSURE)
    .where(CLOSURE.c.id == bindparam("of"))
    .values({name: bindparam(f"to_{name}") for name in ("state", "version", "facts", "live", "sealed")})
)
_CLOCK = (
    update(CLOCK)
    .where(CLOCK.c.closure == bindparam("of"), CLOCK.c.name == bindparam("of_name"))
    .values({name: bindparam(f"to_{name}") for name in ("started", "deadline", "met", "alarmed", "told")})
)

Row = dict[str, Any]


class Round:
    """What is known of the closures of a transaction, and the rows that are not written yet."""

    def __init__(self, db: Connection) -> None:
        self.db = db
        self.closures: dict[str, Any] = {}  # store.Closure, as it is by now
        self.heads: dict[str, tuple[int, str, int]] = {}  # seq, hash and time (ms) of the last event
        self.clocks: dict[str, dict[str, Row]] = {}
        self._clear()

    def _clear(self) -> None:
        self.events: list[Row] = []  # not written yet
        self._moved: dict[str, Row] = {}
        self._timers: dict[str, list[Row]] = {}
        self._new_clocks: dict[tuple[str, str], Row] = {}
        self._clocks: dict[tuple[str, str], Row] = {}
        self._watched: dict[str, list[Row]] = {}
        self._messages: dict[str, Row] = {}
        self._postings: dict[tuple[str, str], Row] = {}
        self._superseded: list[Row] = []
        self._forgotten: list[str] = []

    def load(self, ids: Sequence[str], made: Any) -> None:
        """Read what is known of these closures, and lock them; `made` makes one of a row."""
        missing = [one for one in dict.fromkeys(ids) if one not in self.closures]
        for first in range(0, len(missing), MOST):
            some = missing[first : first + MOST]
            for row in self.db.execute(select(CLOSURE).where(CLOSURE.c.id.in_(some)).with_for_update()):
                self.closures[row.id] = made(row)
            seq, time = func.max(EVENT.c.seq).label("seq"), func.max(EVENT.c.time).label("time")
            last = select(EVENT.c.closure, seq, time).where(EVENT.c.closure.in_(some)).group_by(EVENT.c.closure)
            sub = last.subquery()
            heads = select(sub, EVENT.c.hash).join(
                EVENT, (EVENT.c.closure == sub.c.closure) & (EVENT.c.seq == sub.c.seq)
            )
            for row in self.db.execute(heads):
                self.heads[row.closure] = (row.seq, row.hash, row.time)
            for one in some:
                self.clocks[one] = {}
            wanted = select(CLOCK).where(CLOCK.c.closure.in_(some)).order_by(CLOCK.c.started, CLOCK.c.name)
            for row in self.db.execute(wanted):
                self.clocks[row.closure][row.name] = {**row._mapping, "told": json.loads(row.told)}

    def drop(self, closure: str) -> None:
        """Know nothing more of a closure that is written by another way."""
        for known in (self.closures, self.heads, self.clocks):
            known.pop(closure, None)

    def taken(self, messages: Sequence[Row], postings: Sequence[Row]) -> bool:
        """Whether one of these rows stands already, here or in the database."""
        keys = [one["key"] for one in messages]
        entries = [one["entry"] for one in postings]
        if any(key in self._messages for key in keys):
            return True
        if any((one["entry"], one["account"]) in self._postings for one in postings):
            return True
        if keys and self.db.execute(select(OUTBOX.c.key).where(OUTBOX.c.key.in_(keys)).limit(1)).scalar() is not None:
            return True
        if not entries:
            return False
        there = self.db.execute(select(POSTING.c.entry, POSTING.c.account).where(POSTING.c.entry.in_(entries)))
        return not {(e, a) for e, a in there}.isdisjoint((one["entry"], one["account"]) for one in postings)

    def take(self, closure: str, values: Mapping[str, Any], rows: Mapping[str, Any], *, forget: bool) -> Any:
        """Keep a move's rows back and answer with the closure as it is now; `rows` are those of store.rows_of."""
        known = self.closures[closure]
        sealed = None if forget else values.get("sealed", known.sealed)
        self.closures[closure] = now = replace(
            known,
            state=values["state"],
            version=values["version"],
            facts=json.loads(values["facts"]),
            live=bool(values["live"]),
            sealed=sealed,
        )
        self._moved[closure] = {
            "of": closure, "to_sealed": sealed, **{f"to_{k}": values[k] for k in ("state", "version", "facts", "live")}
        }  # fmt: skip
        event = rows["event"]
        self.events.append(event)
        time = max(event["time"], self.heads[closure][2]) if closure in self.heads else event["time"]
        self.heads[closure] = (event["seq"], event["hash"], time)
        for row in rows["clocks"]:
            name = row["name"]
            new = name not in self.clocks[closure] or (closure, name) in self._new_clocks
            (self._new_clocks if new else self._clocks)[closure, name] = row
            self.clocks[closure][name] = {**row, "told": json.loads(row["told"])}
        self._timers[closure] = rows["timers"]
        if rows["watched"] is not None:
            self._watched[closure] = rows["watched"]
        self._messages |= {one["key"]: one for one in rows["messages"]}
        self._postings |= {(one["entry"], one["account"]): one for one in rows["postings"]}
        self._superseded += rows["superseded"]
        if forget:
            self._forgotten.append(closure)
        return now

    def flush(self) -> None:
        """Write everything that is kept back."""
        if not self._moved:
            return
        db = self.db
        db.execute(_SWAP, list(self._moved.values()))
        db.execute(insert(EVENT), self.events)
        if self._clocks:
            rows = [{"of": c, "of_name": n, **_to(row)} for (c, n), row in self._clocks.items()]
            db.execute(_CLOCK, rows)
        _all(db, CLOCK, list(self._new_clocks.values()))
        for table, kept in ((TIMER, self._timers), (WATCH, self._watched)):
            ids = list(kept)
            for first in range(0, len(ids), MOST):
                db.execute(delete(table).where(table.c.closure.in_(ids[first : first + MOST])))
            _all(db, table, [row for some in kept.values() for row in some])
        _all(db, OUTBOX, list(self._messages.values()))
        _all(db, POSTING, list(self._postings.values()))
        undone.supersede(db, self._superseded)
        for first in range(0, len(self._forgotten), MOST):
            some = self._forgotten[first : first + MOST]
            db.execute(update(CLOSURE).where(CLOSURE.c.id.in_(some)).values(account=None))
            db.execute(update(REPLAY).where(REPLAY.c.closure.in_(some)).values(body=""))
        self._clear()


def _to(row: Row) -> Row:
    return {f"to_{name}": row[name] for name in ("started", "deadline", "met", "alarmed", "told")}


def _all(db: Connection, table: Any, rows: list[Row]) -> None:  # Any: a table of SQLAlchemy's
    if rows:
        db.execute(insert(table), rows)

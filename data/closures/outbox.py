"""The outbox: what must happen at somebody else's, exactly once, whatever dies in between.

A row is written in the transaction of the move that wants it. A worker claims it for a while, calls the far side with
the row's key as idempotency key, and marks it done. A worker that dies leaves a claim that runs out; the next one calls
again with the same key, and the far side answers what it answered before. Where the far side knows no such keys, its
connector asks first. What fails is tried again, later each time; after the last try it is *parked* for an officer.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Engine, or_, select, update

from fangxin.data.closures.engine import reading, writing
from fangxin.data.closures.schema import OUTBOX
from fangxin.data.closures.store import stamp

LEASE: Final = timedelta(minutes=2)
TRIES: Final = 8
FIRST_WAIT: Final = timedelta(seconds=30)
PARKED: Final = "parked"


@dataclass(frozen=True)
class Row:
    """A claimed row."""

    key: str
    closure: str
    kind: str
    body: Mapping[str, Any]
    tries: int
    sealed: bytes | None = field(repr=False)


class Refused(Exception):  # noqa: N818  the far side's answer, not a failure of ours
    """The far side did not do it; `code` is one of our codes. `final`: asking again is of no use."""

    def __init__(self, code: str, *, final: bool = False) -> None:
        self.code, self.final = code, final
        super().__init__(code)


Connector = Callable[[Row], str]  # does it once for the row's key, and returns the far side's reference


class Outbox:
    """The outbox of one store."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def claim(self, worker: str, now: datetime, *, most: int = 50) -> list[Row]:
        """Take rows that are due and that nobody holds; they are this worker's until the lease runs out."""
        at = stamp(now)
        free = or_(OUTBOX.c.claimed.is_(None), OUTBOX.c.claimed <= at)
        wanted = (
            select(OUTBOX)
            .where(
                OUTBOX.c.done.is_(None),
                OUTBOX.c.due <= at,
                free,
                or_(OUTBOX.c.error.is_(None), OUTBOX.c.error != PARKED),
            )
            .order_by(OUTBOX.c.due, OUTBOX.c.key)
            .limit(most)
            .with_for_update(skip_locked=True)  # PostgreSQL; SQLite has one writer anyway
        )
        with writing(self.engine) as db:
            rows = db.execute(wanted).all()
            keys = [row.key for row in rows]
            if keys:
                db.execute(
                    update(OUTBOX).where(OUTBOX.c.key.in_(keys)).values(claimed=stamp(now + LEASE), worker=worker)
                )
        return [Row(r.key, r.closure, r.kind, json.loads(r.body), r.tries, r.sealed) for r in rows]

    def done(self, key: str, answer: str, now: datetime) -> bool:
        """Mark a row done; False if it was done already. What is sealed in it is emptied."""
        with writing(self.engine) as db:
            mark = update(OUTBOX).where(OUTBOX.c.key == key, OUTBOX.c.done.is_(None))
            return db.execute(mark.values(done=stamp(now), answer=answer, sealed=None, claimed=None)).rowcount == 1

    def failed(self, row: Row, refused: Refused, now: datetime, *, chance: Callable[[], float] = random.random) -> bool:
        """Put a row back with a longer wait each time (with jitter); True where it is parked for an officer."""
        tries = row.tries + 1
        parked = refused.final or tries >= TRIES
        wait = FIRST_WAIT * 2 ** min(tries - 1, 10) * (0.5 + chance())
        values = {
            "tries": tries,
            "error": PARKED if parked else refused.code,
            "claimed": None,
            "due": stamp(now + wait),
        }
        with writing(self.engine) as db:
            db.execute(update(OUTBOX).where(OUTBOX.c.key == row.key, OUTBOX.c.done.is_(None)).values(**values))
        return parked

    def work(self, worker: str, connectors: Mapping[str, Connector], now: datetime, *, most: int = 50) -> int:
        """Claim, call, mark; returns how many rows were done. A kind without a connector is parked, never dropped."""
        count = 0
        for row in self.claim(worker, now, most=most):
            connector = connectors.get(row.kind)
            try:
                if connector is None:
                    raise Refused("no_connector", final=True)
                answer = connector(row)
            except Refused as refused:
                self.failed(row, refused, now)
            else:
                count += self.done(row.key, answer, now)
        return count

    def open(self, closure: str | None = None) -> dict[str, int]:
        """How many rows are not done, by kind; of one closure or all."""
        wanted = select(OUTBOX.c.kind).where(OUTBOX.c.done.is_(None))
        if closure is not None:
            wanted = wanted.where(OUTBOX.c.closure == closure)
        found: dict[str, int] = {}
        with reading(self.engine) as db:
            for kind in db.execute(wanted).scalars():
                found[kind] = found.get(kind, 0) + 1
        return found

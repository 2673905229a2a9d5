"""Wrong codes, counted by the minute and by where they came from, so that nobody tries codes for long.

A code has 120 bits, so the count guards the store's time more than the code. Only wrong ones count: who has a code is
never slowed down by it, but waits with everybody else of a place from which too many wrong ones came. Where they came
from is a keyed digest that the caller makes; a row is gone after a day.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Engine, delete, func, insert, select, update

from fangxin.data.closures.engine import reading, writing
from fangxin.data.closures.schema import ATTEMPT
from fangxin.data.closures.store import stamp
from fangxin.data.errors import NotAllowed

A_MINUTE, A_DAY, ALL_A_MINUTE = 10, 100, 600
EVERYWHERE = ""


class Attempts:
    """The wrong codes of one store."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def allow(self, source: str, now: datetime) -> None:
        """NotAllowed, before anything is looked up, where too many wrong codes came from here, or from everywhere."""
        minute = _minute(now)
        if (
            self._count(source, minute) >= A_MINUTE
            or self._count(source, minute - 24 * 60 + 1) >= A_DAY
            or self._count(EVERYWHERE, minute) >= ALL_A_MINUTE
        ):
            raise NotAllowed("too many wrong codes", hint="wait a minute; after a hundred in a day, a day")

    def wrong(self, source: str, now: datetime) -> None:
        """Count a wrong code, here and everywhere."""
        minute = _minute(now)
        with writing(self.engine) as db:
            db.execute(delete(ATTEMPT).where(ATTEMPT.c.minute <= minute - 24 * 60))
            for one in (source, EVERYWHERE):
                same = (ATTEMPT.c.source == one, ATTEMPT.c.minute == minute)
                if not db.execute(update(ATTEMPT).where(*same).values(count=ATTEMPT.c.count + 1)).rowcount:
                    db.execute(insert(ATTEMPT), {"source": one, "minute": minute, "count": 1})

    def _count(self, source: str, since: int) -> int:
        total = select(func.coalesce(func.sum(ATTEMPT.c.count), 0))
        with reading(self.engine) as db:
            return int(db.execute(total.where(ATTEMPT.c.source == source, ATTEMPT.c.minute >= since)).scalar_one())


def _minute(now: datetime) -> int:
    return stamp(now) // int(timedelta(minutes=1).total_seconds() * 1000)

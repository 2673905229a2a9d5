"""What a move undoes, in its transaction: messages that a later one takes the place of; and where a closing does not
happen, money goes back, open offers lapse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, and_, bindparam, or_, select, update

from fangxin.data.closures import money
from fangxin.data.closures.schema import ENTITLEMENT, OFFER, OUTBOX, POSTING

VOID: Final = "void"  # how a row ends that nobody ever sent, and nobody will
SUPERSEDED: Final = "superseded"  # how a row ends that was never taken, and whose place a later one took
_STOP = '"event":"stop"'
_OWED = '"owed":true'  # a stop that took the place of a resume: whoever did not hear it has to be told to go on
_INSTEAD = (
    update(OUTBOX)
    .where(OUTBOX.c.key == bindparam("of"), OUTBOX.c.done.is_(None))
    .values(done=bindparam("at"), answer=SUPERSEDED, sealed=None)
)


def supersede(db: Connection, rows: Sequence[Mapping[str, Any]]) -> None:  # Any: keys (`of`) and UTC milliseconds
    """End rows whose place others took. A lease stays as it is: who holds one may be calling just now."""
    if rows:
        db.execute(_INSTEAD, [dict(one) for one in rows])


def give_back(db: Connection, closure: str, at: int) -> None:
    """The closing does not happen: rows that nobody ever sent end, and what is owed beyond the others goes back.

    Nobody is told to stop any more, also who did not take it yet: they would hear it after being told to go on. Whoever
    was never called at all need not be told to go on either.

    A row that may have been sent stays open: its far side is told to stop, and says whether it was paid (a worker does
    that; `flows/payments.py`). `at`: UTC milliseconds.
    """
    _unheard(db, closure, at)
    mine = and_(OUTBOX.c.closure == closure, OUTBOX.c.kind == "payout", OUTBOX.c.done.is_(None))
    never = and_(mine, OUTBOX.c.tries == 0, OUTBOX.c.claimed.is_(None))
    db.execute(update(OUTBOX).where(never).values(done=at, answer=VOID))
    db.execute(update(OUTBOX).where(mine).values(due=at))
    on_the_way: dict[str, int] = {}
    for body in db.execute(select(OUTBOX.c.body).where(mine)).scalars():
        currency, minor = money.amount_of(body)
        on_the_way[currency] = on_the_way.get(currency, 0) + minor
    currencies = select(POSTING.c.currency).where(POSTING.c.closure == closure).distinct()
    for currency in sorted(db.execute(currencies).scalars()):
        left = money.balances(db, closure, currency).get("owed", 0) - on_the_way.get(currency, 0)
        if left > 0:
            money.enter(db, closure, f"back-{closure}-{currency}", currency, left, "owed", "wallet")


def _unheard(db: Connection, closure: str, at: int) -> None:
    """End what tells consumers to stop; where nobody ever called one, what tells them to go on as well."""
    stops = OUTBOX.alias("stops")
    told = select(stops.c.lane).where(
        stops.c.closure == closure, stops.c.body.contains(_STOP), or_(stops.c.answer.is_(None), stops.c.answer != VOID)
    )
    of = and_(OUTBOX.c.closure == closure, OUTBOX.c.kind == "consumer", OUTBOX.c.done.is_(None))
    stop = OUTBOX.c.body.contains(_STOP)
    never = and_(OUTBOX.c.tries == 0, OUTBOX.c.claimed.is_(None), ~OUTBOX.c.body.contains(_OWED))
    for rows, answer in ((and_(stop, never), VOID), (stop, SUPERSEDED), (OUTBOX.c.lane.not_in(told), VOID)):
        db.execute(update(OUTBOX).where(of, rows).values(done=at, answer=answer, sealed=None))


def lapse(db: Connection, closure: str) -> None:
    """End every open offer of a closure in this transaction: its account came back, or was never closed."""
    mine = select(ENTITLEMENT.c.id).where(ENTITLEMENT.c.closure == closure)
    db.execute(update(OFFER).where(OFFER.c.entitlement.in_(mine), OFFER.c.state == "offered").values(state="withdrawn"))
    offered = update(ENTITLEMENT).where(ENTITLEMENT.c.closure == closure, ENTITLEMENT.c.state == "offered")
    db.execute(offered.values(state="active", version=ENTITLEMENT.c.version + 1))

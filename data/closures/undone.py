"""What a closing that does not happen undoes, in the transaction of its move: money goes back, open offers lapse."""

from __future__ import annotations

from sqlalchemy import Connection, and_, select, update

from fangxin.data.closures import money
from fangxin.data.closures.schema import ENTITLEMENT, OFFER, OUTBOX, POSTING


def give_back(db: Connection, closure: str, at: int) -> None:
    """The closing does not happen: rows that nobody ever sent end, and what is owed beyond the others goes back.

    Nobody is told to stop any more, also who did not take it yet: they would hear it after being told to go on.

    A row that may have been sent stays open: its far side is told to stop, and says whether it was paid (a worker does
    that; `flows/payments.py`). `at`: UTC milliseconds.
    """
    mine = and_(OUTBOX.c.closure == closure, OUTBOX.c.kind == "payout", OUTBOX.c.done.is_(None))
    never = and_(mine, OUTBOX.c.tries == 0, OUTBOX.c.claimed.is_(None))
    db.execute(update(OUTBOX).where(never).values(done=at, answer="void"))
    db.execute(update(OUTBOX).where(mine).values(due=at))
    stop = and_(OUTBOX.c.kind == "consumer", OUTBOX.c.body.contains('"event":"stop"'))
    db.execute(
        update(OUTBOX).where(OUTBOX.c.closure == closure, OUTBOX.c.done.is_(None), stop).values(done=at, answer="void")
    )
    on_the_way: dict[str, int] = {}
    for body in db.execute(select(OUTBOX.c.body).where(mine)).scalars():
        currency, minor = money.amount_of(body)
        on_the_way[currency] = on_the_way.get(currency, 0) + minor
    currencies = select(POSTING.c.currency).where(POSTING.c.closure == closure).distinct()
    for currency in sorted(db.execute(currencies).scalars()):
        left = money.balances(db, closure, currency).get("owed", 0) - on_the_way.get(currency, 0)
        if left > 0:
            money.enter(db, closure, f"back-{closure}-{currency}", currency, left, "owed", "wallet")


def lapse(db: Connection, closure: str) -> None:
    """End every open offer of a closure in this transaction: its account came back, or was never closed."""
    mine = select(ENTITLEMENT.c.id).where(ENTITLEMENT.c.closure == closure)
    db.execute(update(OFFER).where(OFFER.c.entitlement.in_(mine), OFFER.c.state == "offered").values(state="withdrawn"))
    offered = update(ENTITLEMENT).where(ENTITLEMENT.c.closure == closure, ENTITLEMENT.c.state == "offered")
    db.execute(offered.values(state="active", version=ENTITLEMENT.c.version + 1))

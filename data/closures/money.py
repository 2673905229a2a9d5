"""Where money stands in the books while it is on its way: every posting in the transaction of what it tells of.

Accounts: `wallet` (the other side), `owed` (decided, not paid yet), `escrow` (owed when regret ended: it is still being
paid), `unclaimed` (it cannot be paid as it was meant to: whoever has the receipt code claims it otherwise), `paid`.
An entry is named after the outbox row it tells of, so that it cannot be written twice.
"""

from __future__ import annotations

from sqlalchemy import Connection, and_, func, insert, select, update

from fangxin.data.closures.schema import CLOSURE, OUTBOX, POSTING

PAYING = ("payout", "claim")  # kinds of outbox rows that move money
WAITS = ("owed", "escrow")  # where money stands that a row is to pay, in the order in which it is looked for


def move(db: Connection, closure: str, key: str, currency: str, minor: int, to: str) -> None:
    """Move what a row was to pay from where it stands to another account."""
    db.execute(select(CLOSURE.c.id).where(CLOSURE.c.id == closure).with_for_update())  # one at a time, on PostgreSQL
    there = balances(db, closure, currency)
    source = next((name for name in WAITS if there.get(name, 0) >= minor), WAITS[0])
    if minor and source != to:
        enter(db, closure, f"{to}-{key}", currency, minor, source, to)


def enter(db: Connection, closure: str, entry: str, currency: str, minor: int, source: str, to: str) -> None:
    """One double entry."""
    halves = ((source, -minor), (to, minor))
    rows = [
        {"closure": closure, "entry": entry, "account": account, "currency": currency, "minor": amount}
        for account, amount in halves
    ]
    db.execute(insert(POSTING), rows)


def balances(db: Connection, closure: str, currency: str) -> dict[str, int]:
    """What stands in each account of a closing, in one currency."""
    total = func.sum(POSTING.c.minor)
    wanted = select(POSTING.c.account, total).where(POSTING.c.closure == closure, POSTING.c.currency == currency)
    return {account: int(minor) for account, minor in db.execute(wanted.group_by(POSTING.c.account))}


def give_back(db: Connection, closure: str, at: int) -> None:
    """The closing does not happen: rows that nobody ever sent end, and what is owed beyond the others goes back.

    A row that may have been sent stays open: its far side is told to stop, and says whether it was paid (a worker does
    that; `flows/payments.py`). `at`: UTC milliseconds.
    """
    mine = and_(OUTBOX.c.closure == closure, OUTBOX.c.kind == "payout", OUTBOX.c.done.is_(None))
    never = and_(mine, OUTBOX.c.tries == 0, OUTBOX.c.claimed.is_(None))
    db.execute(update(OUTBOX).where(never).values(done=at, answer="void"))
    db.execute(update(OUTBOX).where(mine).values(due=at))
    on_the_way: dict[str, int] = {}
    for body in db.execute(select(OUTBOX.c.body).where(mine)).scalars():
        currency, minor = amount_of(body)
        on_the_way[currency] = on_the_way.get(currency, 0) + minor
    currencies = select(POSTING.c.currency).where(POSTING.c.closure == closure).distinct()
    for currency in sorted(db.execute(currencies).scalars()):
        left = balances(db, closure, currency).get("owed", 0) - on_the_way.get(currency, 0)
        if left > 0:
            enter(db, closure, f"back-{closure}-{currency}", currency, left, "owed", "wallet")


def amount_of(body: str) -> tuple[str, int]:
    """Currency and minor units of a row's body."""
    import json

    told = json.loads(body)
    return str(told["currency"]), int(told["minor"])

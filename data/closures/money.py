"""Where money stands in the books while it is on its way: every posting in the transaction of what it tells of.

Accounts: `wallet` (the other side), `owed` (decided, not paid yet), `escrow` (owed when regret ended: it is still being
paid), `unclaimed` (it cannot be paid as it was meant to: whoever has the receipt code claims it otherwise), `paid`.
An entry is named after the outbox row it tells of, so that it cannot be written twice.
"""

from __future__ import annotations

import json

from sqlalchemy import Connection, func, insert, select

from fangxin.data.closures.schema import CLOSURE, POSTING

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


def amount_of(body: str) -> tuple[str, int]:
    """Currency and minor units of a row's body."""
    told = json.loads(body)
    return str(told["currency"]), int(told["minor"])

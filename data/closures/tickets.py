"""Tickets as they are stored: bound to a receipt's digest, with a clock, and texts under a key of the ticket's own.

A ticket's row says nothing about anybody and stays for ever: what it was about (a category), when it was opened, by
when a person was to answer and when one did. Its texts are sealed, and emptied when their key has died.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Engine, Row, func, insert, select, update

from fangxin.data.closures.engine import reading, settle, writing
from fangxin.data.closures.schema import CLOSURE, TICKET, WORD
from fangxin.data.closures.store import instant, stamp
from fangxin.data.errors import InputError, NotAllowed

OPEN, ANSWERED, CLOSED = "open", "answered", "closed"


@dataclass(frozen=True)
class Ticket:
    """One ticket; `told` is what its clock was counted by. `forgotten`: its texts' key is dead."""

    id: str
    receipt: str
    category: str
    state: str
    opened: datetime
    due: datetime
    told: Mapping[str, Any]  # JSON
    alarmed: int
    answered: datetime | None
    closed: datetime | None
    forgotten: datetime | None
    ref: bytes = field(repr=False)


@dataclass(frozen=True)
class Word:
    """What somebody said in a ticket: by role, never by name; sealed."""

    seq: int
    time: datetime
    role: str
    sealed: bytes | None = field(repr=False)


class Tickets:
    """The tickets of one store."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def open(self, ticket: Ticket, role: str, sealed: bytes, *, most: int, since: datetime) -> None:
        """Write a new ticket with its first text; NotAllowed where the receipt has had `most` since an instant."""
        recent = select(func.count()).where(TICKET.c.receipt == ticket.receipt, TICKET.c.opened > stamp(since))
        with writing(self.engine) as db:
            if db.execute(recent).scalar_one() >= most:
                raise NotAllowed(f"{most} tickets were opened within a day under this code", hint="try again tomorrow")
            db.execute(
                insert(TICKET),
                {
                    "id": ticket.id,
                    "receipt": ticket.receipt,
                    "category": ticket.category,
                    "state": OPEN,
                    "opened": stamp(ticket.opened),
                    "due": stamp(ticket.due),
                    "told": json.dumps(dict(ticket.told), sort_keys=True, separators=(",", ":")),
                    "ref": ticket.ref,
                },
            )
            db.execute(insert(WORD), _word(ticket.id, 0, ticket.opened, role, sealed))

    def answer(self, ticket: str, seq: int, sealed: bytes, now: datetime) -> Ticket:
        """Add an officer's answer in its place; the first one meets the clock.

        NotAllowed once the ticket is closed, Taken where somebody else's answer came first.
        """
        with writing(self.engine) as db:
            still = update(TICKET).where(TICKET.c.id == ticket, TICKET.c.state != CLOSED)
            met = func.coalesce(TICKET.c.answered, stamp(now))
            if db.execute(still.values(state=ANSWERED, answered=met)).rowcount != 1:
                raise NotAllowed(f"ticket {ticket} is closed", hint="a new one can be opened with the receipt code")
            db.execute(insert(WORD), _word(ticket, seq, now, "officer", sealed))
        return self.get(ticket)

    def close(self, tickets: Sequence[str], now: datetime) -> None:
        """Close tickets; one that is closed already keeps its date."""
        if tickets:
            with writing(self.engine) as db:
                due = update(TICKET).where(TICKET.c.id.in_(tickets), TICKET.c.state != CLOSED)
                db.execute(due.values(state=CLOSED, closed=stamp(now)))

    def alarm(self, ticket: str, percent: int) -> bool:
        """Note the highest alarm that was told of a ticket; False where it was told before."""
        with writing(self.engine) as db:
            due = update(TICKET).where(TICKET.c.id == ticket, TICKET.c.alarmed < percent)
            return db.execute(due.values(alarmed=percent)).rowcount == 1

    def forget(self, tickets: Sequence[str], now: datetime) -> None:
        """Empty the texts of tickets whose key is dead, and what SQLite's log still holds of them."""
        if not tickets:
            return
        with writing(self.engine) as db:
            db.execute(update(WORD).where(WORD.c.ticket.in_(tickets)).values(sealed=None))
            due = update(TICKET).where(TICKET.c.id.in_(tickets), TICKET.c.forgotten.is_(None))
            db.execute(due.values(forgotten=stamp(now)))
        settle(self.engine)

    # ------------------------------------------------------------ reading

    def get(self, ticket: str) -> Ticket:
        """The ticket of that id; InputError if there is none."""
        found = self._where(TICKET.c.id == ticket)
        if not found:
            raise InputError(f"no ticket {ticket}", hint="`fangxin ticket list` shows them")
        return found[0]

    def of(self, receipt: str) -> list[Ticket]:
        """The tickets of a receipt (its digest), oldest first."""
        return self._where(TICKET.c.receipt == receipt)

    def standing(self, *states: str) -> list[Ticket]:
        """The tickets in these states, those due first."""
        return self._where(TICKET.c.state.in_(states))

    def all(self) -> list[Ticket]:
        """Every ticket that ever was, those due first."""
        return self._where()

    def every(self) -> list[tuple[str, Ticket]]:
        """Every ticket with the closure that its receipt is of."""
        wanted = select(TICKET, CLOSURE.c.id.label("closure")).join(CLOSURE, CLOSURE.c.receipt == TICKET.c.receipt)
        with reading(self.engine) as db:
            return [(row.closure, _ticket(row)) for row in db.execute(wanted.order_by(TICKET.c.opened))]

    def known(self) -> list[Ticket]:
        """Closed tickets whose texts still have a key."""
        return self._where(TICKET.c.state == CLOSED, TICKET.c.forgotten.is_(None))

    def words(self, ticket: str) -> list[Word]:
        """What was said in a ticket, in order."""
        wanted = select(WORD).where(WORD.c.ticket == ticket).order_by(WORD.c.seq)
        with reading(self.engine) as db:
            return [Word(r.seq, instant(r.time), r.role, _bytes(r.sealed)) for r in db.execute(wanted)]

    def _where(self, *conditions: ColumnElement[bool]) -> list[Ticket]:
        wanted = select(TICKET).where(*conditions).order_by(TICKET.c.due, TICKET.c.id)
        with reading(self.engine) as db:
            return [_ticket(row) for row in db.execute(wanted)]


def _word(ticket: str, seq: int, at: datetime, role: str, sealed: bytes) -> dict[str, object]:
    return {"ticket": ticket, "seq": seq, "time": stamp(at), "role": role, "sealed": sealed}


def _bytes(value: bytes | None) -> bytes | None:
    return None if value is None else bytes(value)


def _ticket(row: Row[Any]) -> Ticket:  # Any: SQLAlchemy's row
    known = {name: None if (at := getattr(row, name)) is None else instant(at) for name in ("answered", "closed")}
    forgotten = None if row.forgotten is None else instant(row.forgotten)
    return Ticket(
        row.id,
        row.receipt,
        row.category,
        row.state,
        instant(row.opened),
        instant(row.due),
        json.loads(row.told),
        row.alarmed,
        forgotten=forgotten,
        ref=bytes(row.ref),
        **known,
    )

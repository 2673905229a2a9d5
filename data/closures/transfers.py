"""Transfers of coupons and points: offered, then accepted by somebody who proves an account of their own; never twice.

One open offer an item; the row of the item is changed only where it is still as it was read (state and version), in the
transaction that writes the offer's end and the outbox row. Whoever comes second finds nothing to take. The sender never
learns whether an address exists: an offer is a random code, handed over by the sender.
"""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import datetime

from sqlalchemy import Connection, Engine, insert, select, update

from fangxin.data.closures.engine import Taken, reading, writing
from fangxin.data.closures.schema import CLOSURE, ENTITLEMENT, OFFER, OUTBOX
from fangxin.data.closures.store import stamp
from fangxin.data.errors import NotAllowed


class Transfers:
    """The offers of one store."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def hold(self, closure: str, items: dict[str, tuple[str, int, str | None]], *, holder: str) -> None:
        """Write the items of a closure (id -> kind, amount, currency) as active, held by an opaque holder."""
        rows = [
            {
                "id": item,
                "closure": closure,
                "kind": kind,
                "amount": amount,
                "currency": currency,
                "state": "active",
                "version": 0,
                "holder": holder,
                "told": "{}",
            }
            for item, (kind, amount, currency) in items.items()
        ]
        if rows:
            with writing(self.engine) as db:
                db.execute(insert(ENTITLEMENT), rows)

    def offer(self, item: str, code: str, *, until: datetime) -> None:
        """Offer an item under a code; NotAllowed unless it is active and no offer of it is open."""
        try:
            with writing(self.engine) as db:
                row = db.execute(select(ENTITLEMENT).where(ENTITLEMENT.c.id == item)).one_or_none()
                if row is None or row.state != "active":
                    raise NotAllowed("this item cannot be offered", hint="it is gone, offered or settled already")
                _swap(db, item, row.version, "offered")
                values = {"id": code, "entitlement": item, "state": "offered", "version": 0, "due": stamp(until)}
                db.execute(insert(OFFER), values)
        except Taken:
            raise NotAllowed("this item is offered already") from None

    def accept(self, code: str, *, receiver: str, closing: bool, now: datetime, sealed: bytes | None = None) -> str:
        """Take an offered item over; returns the item's id. NotAllowed for oneself, a closing account, or too late.

        `sealed`: whose it becomes, for the far side that moves it.
        """
        with writing(self.engine) as db:
            found = db.execute(
                select(OFFER, ENTITLEMENT.c.version.label("held"), ENTITLEMENT.c.holder, ENTITLEMENT.c.closure)
                .join(ENTITLEMENT, OFFER.c.entitlement == ENTITLEMENT.c.id)
                .where(OFFER.c.id == code)
            ).one_or_none()
            if found is None or found.state != "offered":
                raise NotAllowed("nothing is offered under this code")
            if stamp(now) >= found.due:
                raise NotAllowed("this offer is over")
            if receiver == found.holder:
                raise NotAllowed("nobody takes over from themselves")
            if closing:
                raise NotAllowed("an account that is closing takes nothing over")
            end = update(OFFER).where(OFFER.c.id == code, OFFER.c.state == "offered", OFFER.c.version == found.version)
            moved = end.values(state="accepted", version=found.version + 1, receiver=receiver)
            if db.execute(moved).rowcount != 1:
                raise NotAllowed("nothing is offered under this code")
            _swap(db, found.entitlement, found.held, "moved", holder=receiver)
            body = json.dumps({"item": found.entitlement, "to": receiver}, sort_keys=True)
            key = f"transfer:{found.entitlement}:{found.held + 1}"
            message = {"key": key, "closure": found.closure, "kind": "transfer", "body": body, "due": stamp(now)}
            db.execute(insert(OUTBOX), {**message, "sealed": sealed})
            return str(found.entitlement)

    def end(self, code: str, state: str) -> str:
        """Decline, withdraw or expire an open offer; its item is active again. NotAllowed if it is not open."""
        if state not in ("declined", "withdrawn", "expired"):
            raise NotAllowed(f"an offer cannot become {state}")
        with writing(self.engine) as db:
            row = db.execute(select(OFFER).where(OFFER.c.id == code)).one_or_none()
            ended = update(OFFER).where(OFFER.c.id == code, OFFER.c.state == "offered").values(state=state)
            if row is None or db.execute(ended).rowcount != 1:
                raise NotAllowed("nothing is offered under this code")
            held = db.execute(select(ENTITLEMENT.c.version).where(ENTITLEMENT.c.id == row.entitlement)).scalar_one()
            _swap(db, row.entitlement, held, "active")
            return str(row.entitlement)

    def expire(self, now: datetime) -> int:
        """End every open offer whose date has come; how many."""
        with reading(self.engine) as db:
            due = select(OFFER.c.id).where(OFFER.c.state == "offered", OFFER.c.due <= stamp(now))
            codes = list(db.execute(due).scalars())
        for code in codes:
            self.end(code, "expired")
        return len(codes)

    def close(self, closure: str) -> int:
        """End every open offer of a closing, whatever its date; how many. Nobody can accept one from then on."""
        mine = select(OFFER.c.id).join(ENTITLEMENT, OFFER.c.entitlement == ENTITLEMENT.c.id)
        with reading(self.engine) as db:
            found = db.execute(mine.where(ENTITLEMENT.c.closure == closure, OFFER.c.state == "offered")).scalars()
            codes = list(found)
        for code in codes:
            with suppress(NotAllowed):  # somebody accepted it just now
                self.end(code, "expired")
        return len(codes)

    def state(self, item: str) -> str | None:
        """Where an item stands; None where it was never held."""
        with reading(self.engine) as db:
            found: str | None = db.execute(select(ENTITLEMENT.c.state).where(ENTITLEMENT.c.id == item)).scalar()
        return found

    def closure(self, code: str) -> str | None:
        """The closure whose item is offered under a code."""
        wanted = (
            select(ENTITLEMENT.c.closure)
            .join(OFFER, OFFER.c.entitlement == ENTITLEMENT.c.id)
            .where(OFFER.c.id == code, OFFER.c.state == "offered")
        )
        with reading(self.engine) as db:
            found: str | None = db.execute(wanted).scalar()
        return found

    def moved(self, closure: str) -> frozenset[str]:
        """The items of a closure that became somebody else's."""
        wanted = select(ENTITLEMENT.c.id).where(ENTITLEMENT.c.closure == closure, ENTITLEMENT.c.state == "moved")
        with reading(self.engine) as db:
            return frozenset(db.execute(wanted).scalars())

    def live(self, account: str) -> bool:
        """Whether an account (its keyed digest) has a live closure."""
        with writing(self.engine) as db:
            wanted = select(CLOSURE.c.id).where(CLOSURE.c.account == account, CLOSURE.c.live == 1)
            return db.execute(wanted).scalar() is not None


def _swap(db: Connection, item: str, version: int, state: str, *, holder: str | None = None) -> None:
    values = {"state": state, "version": version + 1, **({"holder": holder} if holder else {})}
    same = update(ENTITLEMENT).where(ENTITLEMENT.c.id == item, ENTITLEMENT.c.version == version)
    if db.execute(same.values(**values)).rowcount != 1:
        raise NotAllowed("somebody else was first", hint="look at the item again")

"""Giving away: coupons and points of a closing that go to somebody else, offered by a code and accepted once.

    offer     the plan gives an item the fate `transfer`; its holder draws a code and hands it over as they like
    accept    somebody proves an account of their own; never the giver's, never one that is closing itself
    (carry)   the operator's system moves the row, once a key; run-due asks it
    decline   by whoever has the code; an offer also ends on its date, with regret, also where its holder waives the
              rest of it, or when the account comes back

Whoever offers never learns whether an account exists. High risk gives nothing away. What nobody accepted is settled as
if it had not been offered (`late.py`); what was accepted stays the receiver's, also when the account is restored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol

from fangxin.data.closures.outbox import Connector, Refused, Row
from fangxin.data.closures.store import Closure
from fangxin.data.closures.transfers import Transfers
from fangxin.data.errors import FangxinError, InputError, NotAllowed
from fangxin.data.keys.envelope import open_blob, seal_blob
from fangxin.data.requests import REQUEST_DOMAIN, receipt_code
from fangxin.data.vocabulary import Identity
from fangxin.flows.closing import account_token
from fangxin.flows.desk import Desk, renamed, request_of
from fangxin.flows.lifecycle import Request, State
from fangxin.flows.looks import accounts

LASTS: Final = timedelta(hours=72)
_OFFERING: Final = (State.REVIEW, State.SEALING, State.COOLING)
_LABEL: Final = b"fangxin/transfer/1"


class Mover(Protocol):
    """Whoever moves items between accounts for the operator; once a key. Refused where it does not."""

    def move(self, key: str, place: str, receiver: str) -> str: ...  # noqa: D102


def offer(desk: Desk, closure_id: str, item: str, until: datetime | None = None) -> tuple[str, datetime]:
    """Offer an item of a closing; its code, shown once, and when it ends. NotAllowed where it cannot be given away."""
    closure = desk.closures.get(closure_id)
    request = request_of(closure)
    if request.state not in _OFFERING or request.high_risk:
        raise NotAllowed(
            "nothing can be given away now", hint="after the plan, before regret is over, and never at high risk"
        )
    planned = next((one for one in closure.facts["plan"]["items"] if one["id"] == item), None)
    if planned is None or planned["fate"] != "transfer":
        raise InputError("this item of the plan is not to be given away", hint="plan with --choose ITEM=transfer")
    latest = min([desk.now + LASTS, *_ends(request)])
    if until is not None and not desk.now < until <= latest:
        raise InputError(f"--until: expected a time until {latest:%Y-%m-%dT%H:%M:%SZ}, and not a past one")
    ends, code = until or latest, receipt_code()
    transfers = Transfers(desk.closures.engine)
    holder = desk.closures.account(closure_id)
    if holder is None:
        raise NotAllowed("this account is closed")
    if transfers.state(item) is None:
        told = (planned["kind"], planned["amount"], planned["currency"])
        transfers.hold(closure_id, {item: told}, holder=holder)
    transfers.offer(item, _hash(code), until=ends)
    desk.write(closure, renamed(request), "offered", desk.now, by="holder", body={"item": item})
    return code, ends


def accept(desk: Desk, code: str, identities: Sequence[Identity]) -> str:
    """Take an offered item over into the account of these identities, which were verified; the item's id."""
    transfers = Transfers(desk.closures.engine)
    (there,) = accounts(desk, [identities])
    if isinstance(there, FangxinError) or len(there) != 1:
        many = "several" if isinstance(there, FangxinError) else str(len(there))
        raise InputError(f"expected identities of one account, found {many}", hint="name the account itself")
    closure = transfers.closure(_hash(code))
    if closure is None:
        raise NotAllowed("nothing is offered under this code")
    giver = desk.closures.get(closure)
    request = request_of(giver)
    if request.state not in _OFFERING or any(desk.now >= end for end in _ends(request)):
        raise NotAllowed("this offer is over", hint="it ended with the days in which its giver could change their mind")
    token = account_token(desk, there[0])
    key = desk.estate.tree.get(giver.ref, REQUEST_DOMAIN)
    return transfers.accept(
        _hash(code),
        receiver=token,
        closing=transfers.live(token),
        now=desk.now,
        sealed=seal_blob(key, there[0].encode(), _LABEL + giver.ref),
    )


def decline(desk: Desk, code: str) -> str:
    """End an open offer, for whoever has its code; the item's id."""
    return Transfers(desk.closures.engine).end(_hash(code), "declined")


def expire(desk: Desk) -> int:
    """End every offer whose date has come; how many."""
    return Transfers(desk.closures.engine).expire(desk.now)


def mover(desk: Desk, far: Mover) -> Connector:
    """How accepted items are moved by run-due, while what is known of the giver's rows is known."""

    def work(row: Row) -> str:
        giver: Closure = desk.closures.get(row.closure)
        if giver.sealed is None or row.sealed is None:
            raise Refused("giver_forgotten", final=True)
        place = dict(desk.opened(giver).places).get(row.body["item"], "")
        key = desk.estate.tree.get(giver.ref, REQUEST_DOMAIN)
        return far.move(row.key, place, open_blob(key, row.sealed, _LABEL + giver.ref).decode())

    return work


def _ends(request: Request) -> list[datetime]:
    """When a giver may change their mind no more, as far as those days have begun; also where they waived the rest."""
    return [end for end in (request.regret_ends, request.waived_from) if end is not None]


def _hash(code: str) -> str:
    """Offers are found by the digest of their code, as receipts are."""
    plain = code.upper().replace("-", "").replace(" ", "").translate(str.maketrans("OIL", "011"))
    return hashlib.sha256(b"offer" + plain.encode()).hexdigest()

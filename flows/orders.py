"""Orders to others: a mandate is cancelled, a card unbound, a grant revoked; once a key, with the other side's proof.

They stand in the outbox from the approval on. Unbinding waits until nothing is to be paid any more: a payment may need
what is bound. The other side's reference is the proof, and stays with the closing under an opaque key.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any, Final

from fangxin.data.closures import money
from fangxin.data.closures.outbox import Connector, Refused, Row
from fangxin.data.closures.store import Closure, Message
from fangxin.flows.desk import Desk
from fangxin.flows.payments import Provider

FATES: Final = ("cancel", "unbind", "revoke", "dissolve")  # what somebody else has to do
KIND: Final = "order"


def orders(closure: Closure, due: datetime) -> list[Message]:
    """The outbox rows of a plan whose items others have to end."""
    return [
        Message(_key(closure.id, one), KIND, {"item": one["id"], "what": one["fate"]}, due)
        for one in closure.facts["plan"]["items"]
        if one["fate"] in FATES
    ]


def proofs(desk: Desk, closure: Closure) -> list[dict[str, Any]]:
    """How every order of a closing stands: by item what was ordered, and the other side's reference. Any: JSON."""
    found = []
    for one in closure.facts.get("plan", {}).get("items", ()):
        if one["fate"] in FATES:
            said = desk.outbox.answer(_key(closure.id, one))
            found.append({"item": one["id"], "what": one["fate"], "proof": said})
    return found


def orderer(desk: Desk, far: Provider) -> Connector:
    """How orders are carried out by run-due, while what is known of the person's rows is known."""

    def work(row: Row) -> str:
        closure = desk.closures.get(row.closure)
        if closure.sealed is None:
            raise Refused("person_forgotten", final=True)
        if row.body["what"] == "unbind" and set(desk.outbox.open(closure.id)) & set(money.PAYING):
            raise Refused("payments_first", waits=True)
        place = dict(desk.opened(closure).places).get(row.body["item"], "")
        return far.order(row.key, str(row.body["what"]), place)

    return work


def _key(closure_id: str, item: dict[str, Any]) -> str:  # Any: JSON
    return hashlib.sha256(f"{closure_id}|{item['id']}|{item['fate']}|{item['version']}".encode()).hexdigest()

"""Delivery: notices go out, and when the last one of a closing has gone its addresses are destroyed.

At least once: a run that dies between sending and noting it sends again, with the same key, by which the far side knows
it (a Message-ID, an Idempotency-Key, a webhook-id). What is not taken is tried again for days, later each time; what is
refused for good is parked, told by run-due, and keeps nobody's address for longer than thirty days after the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import partial

from fangxin.data.closures.outbox import Connector, Refused, Row
from fangxin.data.closures.store import Closure, Message
from fangxin.data.keys.domains import CONTACT
from fangxin.data.keys.faults import KeyAbsent
from fangxin.data.keys.grant import Grant
from fangxin.data.requests import REQUEST_DOMAIN
from fangxin.flows import sealing
from fangxin.flows.channels import OFFICERS, Channel, Channels
from fangxin.flows.desk import FORGET, LONGEST, Desk, renamed, request_of
from fangxin.flows.notices import KINDS, Notice, address_of

_TRIES = 16
_AT_ONCE = 5  # rows claimed together: as many slow servers fit into a lease


@dataclass(frozen=True)
class Delivered:
    """How many notices went out in this run, and the closings of those that are given up in it."""

    sent: int
    parked: tuple[str, ...]


def deliver(desk: Desk, channels: Channels) -> Delivered:
    """Send what is due; a row whose channel this home does not have any more waits."""
    connectors: dict[str, Connector] = {
        kind: partial(_send, desk, channel, channels.officers) for kind, channel in channels.by_kind.items()
    }
    if not connectors:
        return Delivered(0, ())
    kinds, count = tuple(connectors), 0
    before = desk.outbox.parked(kinds)
    while rows := desk.outbox.claim("run-due", desk.now, most=_AT_ONCE, only=kinds):
        count += desk.outbox.carry(rows, connectors, desk.now, most_tries=_TRIES)
    given_up = {closure for key, closure in desk.outbox.parked(kinds).items() if key not in before}
    return Delivered(count, tuple(sorted(given_up)))


def shred(desk: Desk) -> list[str]:
    """Destroy the addresses, and what else is still known, of closings that are over and whose last notice is out.

    All under one new root; ids of the closings.
    """
    due = [desk.closures.get(one) for one, kind in desk.closures.due(desk.now) if kind == FORGET]
    over = [one for one in due if not desk.outbox.standing(one.id, KINDS)[0] or _latest(one, desk.now)]
    if not over:
        return []
    tree = desk.estate.tree
    drops = {one.ref: frozenset({CONTACT, REQUEST_DOMAIN}) for one in over}
    grant = Grant.of(drops, vault=tree.vault_id, generation=tree.generation, catalog="", not_before=desk.estate.now)
    tree.destroy(drops, grant=grant, now=desk.estate.now)
    sealing.commit_root(desk.estate)
    desk.outbox.give_up([one.id for one in over], KINDS)
    for one in over:
        desk.write(
            one, renamed(request_of(one)), "addresses_destroyed", desk.now, by="system", facts={"channels": []},
            forget=True,
        )  # fmt: skip
    return [one.id for one in over]


def escalation(key: str, template: str, now: datetime, channels: Channels) -> list[Message]:
    """A row that tells the officers' mailbox of something, in the language of officers; none where there is none."""
    if not channels.officers or "mail" not in channels.by_kind:
        return []
    return [Message(key, "mail", {"template": template, "locale": "zh", "to": OFFICERS}, now)]


def _latest(closure: Closure, now: datetime) -> bool:
    entered = request_of(closure).entered
    return entered is not None and now >= entered + LONGEST


def _send(desk: Desk, channel: Channel, officers: str, row: Row) -> str:
    if row.body.get("to") == OFFICERS:
        address = officers
    else:
        ref = desk.closures.get(row.closure).ref
        try:
            key = desk.estate.tree.get(ref, CONTACT)
        except KeyAbsent:
            raise Refused("address_destroyed", final=True) from None
        address = address_of(ref, row.sealed or b"", key)
    return channel.send(Notice(row.key, row.body["template"], row.body["locale"], address, row.closure), desk.now)

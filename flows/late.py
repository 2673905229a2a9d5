"""What appears after the plan: points that arrive, a coupon that is issued, an order that opens, a debt.

Everybody whose days are over is looked at once more, right before they are erased, in one look for all of them.

* What can be settled by itself is: the settlement grows, the money is paid or kept under the receipt code. What only
  the person could choose for (no fate of its own) is kept in kind under the receipt code; nothing is lost by silence.
* What blocks a closing (an open order, a debt, a dispute) holds it back with the reason, who ends it and how, and the
  latest date by the clearance rules. On that date it goes on with the end that needs nobody's goodwill.
* An item that nobody's rules know, or a balance below zero, holds it back until somebody looks.

The person is not asked again for what they only gain by; deadlines do not move.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from fangxin.data.catalog.calendar import Calendar
from fangxin.data.catalog.clearance import Clearance, Latest
from fangxin.data.closures.store import Closure
from fangxin.data.closures.transfers import Transfers
from fangxin.data.errors import FangxinError, NotAllowed
from fangxin.flows.closing import owed_for, payout, told_of
from fangxin.flows.desk import SETTLED, Desk, renamed, request_of
from fangxin.flows.lifecycle import Event, Settlement
from fangxin.flows.looks import bounds, holdings, looked_up
from fangxin.flows.settlement import Disposition, Entitlement, settle

MOVING: Final = timedelta(hours=72)  # how long an accepted transfer that nobody carried out yet holds an end back
Seen = Mapping[str, Mapping[str, str]]  # an item's id -> its blocker as it was told first, and since when


@dataclass(frozen=True)
class Blocker:
    """An item that a closing waits for: who ends it, how, until when, and what happens by itself then."""

    item: str
    kind: str
    actor: str
    exit: str
    latest: datetime
    otherwise: str

    def told(self) -> dict[str, str]:
        """As an answer shows it."""
        return {**dataclasses.asdict(self), "latest": self.latest.strftime("%Y-%m-%dT%H:%M:%SZ")}

    def __str__(self) -> str:
        return (
            f"{self.kind}: {self.actor} ends it ({self.exit}), at the latest on "
            f"{self.latest:%Y-%m-%dT%H:%M:%SZ}; then {self.otherwise}"
        )


def blockers(items: Sequence[Entitlement], rules: Clearance, seen: Seen, now: datetime, cn: Calendar) -> list[Blocker]:
    """The items that block, each with its date; `seen`: what is known of them already, by their ids."""
    found = []
    for one in items:
        rule = rules.rules.get(one.kind)
        if rule is not None and rule.blocks is not None:
            since = datetime.fromisoformat(seen[one.id]["since"]) if one.id in seen else now
            block = rule.blocks
            found.append(
                Blocker(one.id, one.kind, block.actor, block.exit, _date(block.latest, since, cn), block.otherwise)
            )
    return found


def noted(desk: Desk, closure: Closure, found: Sequence[Blocker]) -> Closure:
    """Note since when items block, so that their dates stand."""
    seen: Seen = closure.facts.get("blocked", {})
    new = {one.item: {**one.told(), "since": desk.now.isoformat()} for one in found if one.item not in seen}
    if not new:
        return closure
    return desk.write(
        closure, renamed(request_of(closure)), "blocked", desk.now, by="system", facts={"blocked": {**seen, **new}},
        body={"items": sorted(new)},
    )  # fmt: skip


def look(desk: Desk, closures: Sequence[Closure]) -> dict[str, str]:
    """Take in what these people hold beyond their plans; by closure, what the others wait for."""
    if not closures:
        return {}
    secrets = [desk.opened(one) for one in closures]
    fates, waits = looked_up(desk, [one.facts for one in secrets], bounds(closures))
    held = holdings(desk, fates, secrets)
    waiting = {}
    with desk.together(closures):
        for n, (closure, found) in enumerate(zip(closures, held, strict=True)):
            items = waits.get(n, found)
            try:
                why = items.message if isinstance(items, FangxinError) else _taken(desk, closure, items)
            except FangxinError as error:
                why = error.message
            if why:
                waiting[closure.id] = why
    return waiting


def _taken(desk: Desk, closure: Closure, items: Sequence[Entitlement]) -> str:
    offers = Transfers(desk.closures.engine)
    offers.close(closure.id)  # what was offered and not taken is as if it were not, and nobody takes it any more
    moved = offers.moved(closure.id)
    planned = [one for one in closure.facts["plan"]["items"] if one["fate"] != "transfer" or one["id"] in moved]
    more = list(beyond(planned, items))
    seen: Seen = closure.facts.get("blocked", {})
    standing = blockers(more, desk.rules, seen, desk.now, desk.calendar)
    closure = noted(desk, closure, standing)
    waits = [str(one) for one in standing if desk.now < one.latest]
    ends = request_of(closure).regret_ends
    if ends is not None and desk.now < ends + MOVING and desk.outbox.open(closure.id).get("transfer"):
        waits.append(f"an accepted transfer: merchant ends it (move), at the latest on {ends + MOVING:%Y-%m-%dT%H:%MZ}")
    if waits:
        return "; ".join(waits)
    if more:
        _grown(desk, closure, decided(more, desk.rules, desk.now, {one.item for one in standing}))
    return ""


def beyond(planned: Sequence[dict[str, Any]], items: Sequence[Entitlement]) -> list[Entitlement]:
    """What is held beyond a plan's items: new ones whole, grown ones by their difference. Any: JSON."""
    known: dict[str, list[int]] = {}
    for one in planned:
        known.setdefault(one["id"], []).append(one["amount"])
    found = []
    for item in items:
        before = known.get(item.id, [])
        if item.amount > sum(before) or item.amount < 0:
            amount = item.amount - sum(before) if item.amount > 0 else item.amount
            found.append(dataclasses.replace(item, amount=amount, version=len(before)))
    return found


def decided(items: Sequence[Entitlement], rules: Clearance, now: datetime, overdue: set[str]) -> list[Disposition]:
    """Decide items that nobody chose for; what only its holder could choose for is kept in kind."""
    found: list[Disposition] = []
    for one in items:
        try:
            found += settle([one], (), rules, closed=now, overdue=overdue)
        except NotAllowed:
            if one.amount < 0:
                raise
            found.append(Disposition(one.id, one.kind, "unclaimed", one.amount, None, 0, one.version))
    return found


def _grown(desk: Desk, closure: Closure, more: Sequence[Disposition]) -> Closure:
    """The settlement grows by these: entries, postings and payouts with one move."""
    request, plan = request_of(closure), closure.facts["plan"]
    late = [told_of(one) | {"late": True} for one in more]
    entries: list[tuple[int, dict[str, int | str]]] = [
        (
            SETTLED + len(plan["items"]) + n,
            {"type": "settled", "kind": d.kind, "disposition": d.fate, "digest": d.digest, "late": 1},
        )
        for n, d in enumerate(more)
    ]
    closure = desk.write(
        closure, renamed(request), "late", desk.now, by="system", entries=entries,
        body={"items": [one["digest"] for one in late]},
        facts={"plan": {**plan, "items": [*plan["items"], *late]}},
        postings=owed_for(closure.id, more, first=len(plan["items"])),
        messages=[payout(closure.id, one, desk.now) for one in late if one["minor"]],
    )  # fmt: skip
    worth = any(one["minor"] for one in late)
    if worth and request.settlement is Settlement.NONE:
        return desk.take(closure, Event("settle"), desk.now)
    return closure


def _date(latest: Latest, since: datetime, cn: Calendar) -> datetime:
    if latest.unit == "wd":
        return cn.deadline(since, latest.amount).moment
    return since + timedelta(**{"days" if latest.unit == "d" else "hours": latest.amount})

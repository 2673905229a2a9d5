"""Legal holds: what two officers keep from being erased, with a basis, a scope and a date on which they look again.

A hold keeps all of a closing, or what it names: collections, or record classes, which stand for the collections that
hold them. Before the point of no return a hold of all stops the closing; one with a scope stops nothing: the rest is
erased, what it names is kept whole, and the certificate says so with the date left to an officer. After the
certificate it keeps what is still there. In between it is too late, and the attempt is put on record.

* What is kept goes by itself once the hold is lifted (flows/kept.py), or stays where a law keeps it longer.
* A scope over values under the person's key is refused: they are sealed, and die, together with the rest.
* On its review date, within a year, it is told every night until two officers lift it or sign another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from fangxin.data.closures.store import Closure
from fangxin.data.errors import InputError, NotAllowed
from fangxin.data.keys.approval import Approval
from fangxin.data.keys.grant import Grant
from fangxin.data.vocabulary import Collection, Mode
from fangxin.flows.closing import current, grant_of, iso, signed
from fangxin.flows.desk import HELD, Desk, renamed, request_of
from fangxin.flows.lifecycle import Actor, Event, Hold, State
from fangxin.flows.notices import UNTOLD
from fangxin.flows.plainly import code

HOLD_WITHIN = timedelta(days=3650)  # a hold may come late: its paper is bound to the holds before it, not to days
REVIEW, REVIEW_WITHIN = timedelta(days=90), timedelta(days=366)
_TOO_LATE = (State.DESTROYING, State.OVERWRITING, State.VALIDATING, State.STALLED)


@dataclass(frozen=True)
class Asked:
    """A hold as it is asked for: a code for its basis, what it names (nothing: all), when it is looked at again."""

    reason: str
    scope: tuple[str, ...] = ()
    review: datetime | None = None
    lift: bool = False

    def __post_init__(self) -> None:
        """InputError for a reason that is free text."""
        code(self.reason, "--reason")


def paper(desk: Desk, closure_id: str, given: Asked) -> Grant:
    """What two officers sign for a hold, or for lifting what stands: basis, scope, review date, how many there were."""
    closure = desk.closures.get(closure_id)
    known = closure.facts.get("holds", ())
    action = "lift" if given.lift else "hold"
    review = given.review or _review(closure)
    said = json.dumps([action, given.reason, sorted(given.scope), iso(review), len(known), len(standing(closure))])
    return grant_of(desk, closure, action, hashlib.sha256(said.encode()).hexdigest(), HOLD_WITHIN)


def hold(desk: Desk, closure_id: str, given: Asked, approvals: Sequence[Approval]) -> Closure:
    """Keep what is named from being erased, or no longer, signed by two officers. Too late once keys are destroyed.

    The person is told, unless the reason ends in `/untold`, which officers sign with it: only where a law forbids it.
    InputError for a scope that names nothing here; NotAllowed past the point of no return, where the attempt is put on
    record, and for a scope over values under keys.
    """
    closure = current(desk, closure_id)
    names = signed(desk, paper(desk, closure_id, given), approvals)
    known = desk.located(closure)
    secret = known.secret if known is not None else None
    request = request_of(closure)
    entry = {
        "type": "exception",
        "code": f"{'lifted' if given.lift else 'hold'}/{given.reason}"[:64],
        "role": "officer",
    }
    place = HELD + closure.version
    if request.state in _TOO_LATE:
        late = {**entry, "code": "hold_too_late"}
        desk.write(closure, renamed(request), "hold_too_late", desk.now, by="officer", entries=[(place, late)])
        raise NotAllowed(
            "the hold comes too late: keys are destroyed, and there is no way back", hint="it is on record"
        )
    noted: list[dict[str, Any]] = [dict(one) for one in closure.facts.get("holds", ())]
    facts: dict[str, Any] = {}
    how = Hold.NONE
    if given.lift:
        for one in noted:
            one["lifted"] = one["lifted"] or iso(desk.now)
        if kept := closure.facts.get("kept"):
            facts["kept"] = {
                **kept,
                "next": desk.now.isoformat(),
            }  # looked at by the next run: a law may keep it longer
    else:
        until = given.review or _review(closure)
        if not desk.now < until <= desk.now + REVIEW_WITHIN:
            raise InputError(
                f"--review: expected a date after now, within {REVIEW_WITHIN.days} days", hint="--review DATE"
            )
        addresses = _addresses(desk, closure, given.scope)
        told = {"basis": given.reason, "officers": sorted(names), "since": iso(desk.now), "review": iso(until)}
        noted.append({**told, "lifted": None, "scope": addresses})
        how = Hold.ALL if any(not one.get("scope") for one in noted if one["lifted"] is None) else Hold.SOME
    event = Event("lift_hold" if given.lift else "hold", Actor.OFFICER, tuple(names), hold=how, reason=given.reason)
    untold = given.reason.endswith(UNTOLD)
    return desk.take(
        closure,
        event,
        desk.now,
        by=",".join(names),
        entries=[(place, entry)],
        secret=secret,
        untold=untold,
        facts={"untold": untold and not given.lift, "holds": noted, **facts},
    )


def standing(closure: Closure) -> list[dict[str, Any]]:  # Any: JSON
    """The holds that nobody lifted."""
    return [one for one in closure.facts.get("holds", ()) if one["lifted"] is None]


def scope(closure: Closure) -> frozenset[str]:
    """The collections that holds with a scope keep whole."""
    return frozenset(address for one in standing(closure) for address in one.get("scope", ()))


def overdue(closure: Closure, now: datetime) -> str:
    """What a closing waits for whose holds were to be looked at by now; "" where none was."""
    passed = [one["review"] for one in standing(closure) if now >= datetime.fromisoformat(one["review"])]
    if not passed:
        return ""
    what = ", ".join(sorted(scope(closure))) if request_of(closure).hold is Hold.SOME else "all of it"
    return f"a legal hold keeps {what}, and its review was due on {min(passed)}: two officers lift it or hold it anew"


def waits(closure: Closure, now: datetime) -> str:
    """What a hold of all waits for: its review, or whoever has to look at it since."""
    review = max((one["review"] for one in standing(closure)), default="")
    return overdue(closure, now) or "a legal hold keeps all of it" + (f"; its review is on {review}" if review else "")


# ---------------------------------------------------------------- inside


def _addresses(desk: Desk, closure: Closure, words: Sequence[str]) -> list[str]:
    """The collections that a scope names, in order; nothing for a hold of all."""
    if not words:
        return []
    catalog = desk.estate.catalog
    found: dict[str, None] = {}
    for word in words:
        named = [one for one in catalog.collections if word in (one.address, *_classes(one))]
        if not named:
            raise InputError(f"--scope {word}: the catalog has no such collection or record class", hint="dataset/name")
        for one in named:
            if any(f.mode is Mode.CRYPTO_ERASE for f in one.fields):
                raise NotAllowed(
                    f"{one.address}: its values lie under the person's key and are sealed with all others",
                    hint="only a hold of all keeps them: leave --scope out",
                )
            found[one.address] = None
    rows = (closure.facts.get("kept") or closure.facts.get("plan") or {}).get("rows", {})
    if not rows.keys() & found.keys():
        raise NotAllowed("nothing of this person lies in that scope", hint="`fangxin request status` lists collections")
    return sorted(rows.keys() & found.keys())


def _classes(one: Collection) -> list[str]:
    return [r.record_class for r in (one.retention, *(f.retention for f in one.fields)) if r is not None]


def _review(closure: Closure) -> datetime:
    """When a hold is looked at again where nobody named a date."""
    return closure.opened + REVIEW

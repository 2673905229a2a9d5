"""Decisions: what an officer decides about rows that others use too, where the catalog says `on_shared: ask`.

Nobody is planned before it is decided, for one closing and one collection at a time: `unlink` keeps the rows for the
others and lets the leaver's references to them go, `erase` removes them for all. An officer signs it with a ground, two
where the risk is high, never about their own account; once, and not after the point of no return.

A walk that halts (two accounts under one identity, a reference that is too unsure) is listed here as well, and not
decided here: it ends when the request names the accounts, or the catalog is set right.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import pyarrow.compute as pc

from fangxin.data.closures.store import Closure
from fangxin.data.errors import FangxinError, InputError, NotAllowed
from fangxin.data.keys.approval import Approval
from fangxin.data.keys.grant import Grant
from fangxin.data.vocabulary import Cohort, Identity, Subject
from fangxin.flows.closing import current, grant_of, iso, signed
from fangxin.flows.desk import DECIDED, Desk, renamed, request_of
from fangxin.flows.lifecycle import State
from fangxin.flows.locate import find
from fangxin.flows.looks import decided
from fangxin.flows.plainly import code

CHOICES: Final = ("unlink", "erase")
DECIDE_WITHIN: Final = timedelta(days=90)
_BEFORE: Final = (State.SUBMITTED, State.PREFLIGHT, State.REVIEW, State.SEALING, State.COOLING, State.READY)


@dataclass(frozen=True)
class Pending:
    """What waits for an officer: how many rows of a collection, and why; `shared` alone is decided here."""

    closure: str
    collection: str
    reason: str  # shared, or the guard at which the walk halted
    rows: int
    others: int  # people who use them, too, as far as the catalog's references tell


@dataclass(frozen=True)
class Asked:
    """A decision as it is asked for; `ground` is a code."""

    collection: str
    choice: str
    ground: str


def pending(desk: Desk, closures: Sequence[Closure] | None = None) -> list[Pending]:
    """What officers have to decide of these closings, or of all that are not planned; nothing is changed.

    Each is looked for alone: whose a shared row is must not hang on who else is closed that day.
    """
    there = desk.closures.those(State.PREFLIGHT.value) if closures is None else closures
    return [one for closure in there if closure.sealed is not None for one in _of(desk, closure)]


def _of(desk: Desk, closure: Closure) -> list[Pending]:
    catalog, known = desk.estate.catalog, decided(closure)
    secret = desk.opened(closure)
    pairs = secret.facts or secret.identities
    person = Subject("0", tuple(Identity(kind, value) for kind, value in pairs))
    try:
        found = find(desk.estate, Cohort((person,)))
    except FangxinError:
        return []  # it waits for something else, which run-due tells
    waits = [Pending(closure.id, one.collection, one.guard, 0, 0) for one in found.halts]
    shared = found.traces.filter(pc.equal(found.traces["edge"], "shares"))
    others = {one.collection: one.others for one in found.shared}
    for address in sorted(set(shared["collection"].to_pylist()) - known.keys()):
        if catalog.collection(address).on_shared == "ask":
            rows = shared.filter(pc.equal(shared["collection"], address))
            number = rows.group_by(["unit", "position"]).aggregate([]).num_rows
            waits.append(Pending(closure.id, address, "shared", number, others.get(address, 0)))
    return waits


def paper(desk: Desk, closure_id: str, given: Asked) -> Grant:
    """What officers sign: collection, choice and ground."""
    closure = desk.closures.get(closure_id)
    may(desk, closure, given)
    said = json.dumps(["decide", given.collection, given.choice, given.ground])
    return grant_of(desk, closure, "decide", hashlib.sha256(said.encode()).hexdigest(), DECIDE_WITHIN)


def decide(desk: Desk, closure_id: str, given: Asked, approvals: Sequence[Approval]) -> Closure:
    """Note what officers decided, in the history of the closing and in the ledger; the plan follows it.

    InputError for another choice or a collection that is not there; NotAllowed for what is not to be decided, what was
    decided before, signatures of too few or of the account's owner, and past the point of no return.
    """
    closure = current(desk, closure_id)
    names = signed(desk, paper(desk, closure_id, given), approvals)
    request = request_of(closure)
    if request.owner_officer in names:
        raise NotAllowed("nobody decides about their own account", hint="another officer signs")
    if (request.high_risk or closure.facts.get("risk")) and len(names) < 2:  # the plan, which decides it, comes later
        raise NotAllowed("the risk of this closing is high: two officers decide", hint="--approval twice")
    if not any(one.collection == given.collection and one.reason == "shared" for one in _of(desk, closure)):
        raise NotAllowed(f"{given.collection}: nothing of this person is to be decided there")
    noted = [*closure.facts.get("decisions", ())]
    told: dict[str, Any] = {"collection": given.collection, "choice": given.choice, "ground": given.ground}
    noted.append({**told, "officers": sorted(names), "at": iso(desk.now)})
    code = f"decided/{given.choice}/{given.ground}"[:64]
    entry: dict[str, int | str] = {"type": "exception", "code": code, "role": "officer"}
    return desk.write(
        closure, renamed(request), "decided", desk.now, by=",".join(sorted(names)), body=told,
        entries=[(DECIDED + closure.version, entry)], facts={"decisions": noted},
    )  # fmt: skip


def deciders(closures: Sequence[Closure]) -> dict[str, list[str]]:
    """By number of a closing in its batch the officers who decided something of it, for its certificate."""
    found = {
        str(n): sorted({name for one in closure.facts.get("decisions", ()) for name in one["officers"]})
        for n, closure in enumerate(closures)
    }
    return {n: names for n, names in found.items() if names}


def may(desk: Desk, closure: Closure, given: Asked) -> None:
    """Raise InputError or NotAllowed for what cannot be decided at all, whoever signs it."""
    if given.choice not in CHOICES:
        raise InputError(f"--choice {given.choice}: no such choice", hint=f"one of {', '.join(CHOICES)}")
    code(given.ground, "--ground")
    if given.collection not in {one.address for one in desk.estate.catalog.collections}:
        raise InputError(f"--collection {given.collection}: the catalog has none", hint="dataset/name")
    if request_of(closure).state not in _BEFORE:
        raise NotAllowed(
            "it is too late to decide: this closing is over, or beyond its point of no return",
            hint="`fangxin request status` shows how it stands",
        )
    if given.collection in decided(closure):
        raise NotAllowed(f"{given.collection}: it was decided before", hint="a decision is made once")

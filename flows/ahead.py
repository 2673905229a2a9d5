"""Ahead: people are located again a day before their days are over, and once more right before they are erased.

    ahead     what was found is compared with what was approved; where it is more, officers can sign the grown plan
              before regret is over, and a home's own past says whether the erasing fits into what is left of P3
    again     right before the batch. As many rows as were approved, or fewer: on it goes. More: the plan that stands
              is the grown one, earlier signatures are void, and it waits for officers, as many as its risk asks for

One look for everybody who is due. Nothing is changed in any store, and keys are sealed all the while.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from fangxin.data.closures.store import Closure
from fangxin.data.errors import NotAllowed
from fangxin.flows.clocks import gap
from fangxin.flows.closing import grown_signed
from fangxin.flows.desk import GROWN, Desk, renamed, request_of
from fangxin.flows.estate import Estate
from fangxin.flows.lifecycle import Event
from fangxin.flows.looks import bounds, looked_up, rows_of

_PAST: Final = 30  # batches that say how long one takes

Rows = Mapping[str, Mapping[str, int]]  # collection -> fate -> rows


def look_ahead(desk: Desk, closures: Sequence[Closure]) -> dict[str, str]:
    """Locate these sealed people again; returns by closure what has to be told to somebody."""
    waiting: dict[str, str] = {}
    found, needed = located(desk, closures), seconds_needed(desk.estate)
    with desk.together(closures):
        for closure, rows in zip(closures, found, strict=True):
            if isinstance(rows, NotAllowed):
                waiting[closure.id] = rows.message
                continue
            more = grown(closure, rows)
            fits = fit(desk, request_of(closure).regret_ends, needed)
            noted: dict[str, Any] = {"at": desk.now.isoformat(), **fits}
            if more:
                noted["plan"] = _plan(closure, rows)
                waiting[closure.id] = f"{_said(more)}: officers can sign the grown plan now"
            elif fits["fits"] is False:
                waiting[closure.id] = "the erasing will not fit before its date: the last ones took longer"
            body = {"grown": more, "plan": noted["plan"]["digest"] if more else None, **fits}
            desk.write(
                closure, renamed(request_of(closure)), "located_ahead", desk.now, by="system", body=body,
                facts={"ahead": noted, "approvals_ahead": []},
            )  # fmt: skip
    return waiting


def look_again(desk: Desk, closures: Sequence[Closure]) -> tuple[list[Closure], dict[str, str]]:
    """Locate people whose days are over; who can be erased, and by closure what the others wait for."""
    due: list[Closure] = []
    waiting: dict[str, str] = {}
    found = located(desk, closures)
    with desk.together(closures):
        for closure, rows in zip(closures, found, strict=True):
            if isinstance(rows, NotAllowed):
                waiting[closure.id] = rows.message
                continue
            more = grown(closure, rows)
            if more:
                closure = _grown(desk, closure, rows)
                closure = grown_signed(desk, closure)
            if not request_of(closure).approved:
                waiting[closure.id] = f"{_said(more) if more else 'its plan grew'}: officers have to sign it"
                continue
            due.append(closure if more else desk.take(closure, Event("locate_again"), desk.now))
    return due, waiting


def located(desk: Desk, closures: Sequence[Closure]) -> list[Rows | NotAllowed]:
    """The rows of each of these people now, by collection and fate; one look for all of them.

    Whose rows an officer has to decide about first, since others use them too, has that error in their place.
    """
    if not closures:
        return []
    fates, waits = looked_up(desk, [desk.opened(c).facts for c in closures], bounds(closures))
    return [waits.get(n, rows) for n, rows in enumerate(rows_of(fates, len(closures)))]


def grown(closure: Closure, rows: Rows) -> list[str]:
    """The collections in which more rows stand than the plan that stands knows of."""
    approved: Rows = closure.facts["plan"]["rows"]
    return sorted(a for a, some in rows.items() if sum(some.values()) > sum(approved.get(a, {}).values()))


def fit(desk: Desk, regret_ends: datetime | None, needed: float | None) -> dict[str, Any]:
    """Whether an erasing of so many seconds fits between the end of regret and the end of P3; None: not known."""
    if regret_ends is None:
        return {"needs": needed, "left": None, "fits": None}
    left = gap(regret_ends - desk.promise.regret, desk.promise, desk.calendar).total_seconds()
    return {"needs": needed, "left": int(left), "fits": None if needed is None else needed < left}


def seconds_needed(estate: Estate) -> float | None:
    """What the longest of the last batches took, all steps together; None before the first."""
    found = []
    for batch in estate.requests.finished()[-_PAST:]:
        notes = [
            estate.requests.note(batch, step) for step in ("locate", "baseline", "overwrite", "validate", "publish")
        ]
        if all(notes):
            found.append(sum(float(one["seconds"]) for one in notes if one))
    return round(max(found), 1) if found else None


def _grown(desk: Desk, closure: Closure, rows: Rows) -> Closure:
    plan = _plan(closure, rows)
    entry: dict[str, int | str] = {"type": "exception", "code": "plan_grown", "role": "system"}
    before = closure.facts.get("approvals", [])
    return desk.take(
        closure, Event("locate_again", plan=plan["digest"], grown=True), desk.now, body={"plan": plan["digest"]},
        entries=[(GROWN + closure.version, entry)],
        facts={"plan": plan, "approvals": [], "approvals_before": before},
    )  # fmt: skip


def _plan(closure: Closure, rows: Rows) -> dict[str, Any]:
    """The plan that was approved with the rows that are there now, under a digest of its own.

    What was settled since, by the rules that were approved, is no part of what is signed: it may come after the look
    ahead, and signatures under that stay good.
    """
    plan = {k: v for k, v in closure.facts["plan"].items() if k != "digest"} | {
        "rows": {a: dict(f) for a, f in rows.items()}
    }
    told = plan | {"items": [one for one in plan["items"] if not one.get("late")]}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    return {**plan, "digest": digest}


def _said(more: Sequence[str]) -> str:
    return f"more rows than were approved, in {', '.join(more)}"

"""How a closing stands: states, dates, sums and counts, nobody's name; for officers and for who has its receipt."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from fangxin.data.closures.store import Closure
from fangxin.data.closures.tickets import Tickets
from fangxin.flows import claims, consumers
from fangxin.flows.closing import iso
from fangxin.flows.codes import tries
from fangxin.flows.desk import Desk, request_of
from fangxin.flows.lifecycle import REVERSIBLE, Request, State
from fangxin.flows.notices import KINDS, UNTOLD
from fangxin.flows.orders import proofs
from fangxin.flows.receipt import says, steps


def status(desk: Desk, closure: Closure, *, holder: bool = False) -> dict[str, Any]:
    """How a closing stands: states, dates and sums, nobody's name. Any: JSON.

    `holder`: as whoever has the receipt code may see it, without a hold that a law forbids to tell of.
    """
    request, now = request_of(closure), desk.now
    ends = request.regret_ends and min(request.regret_ends, request.waived_from or request.regret_ends)
    waits = claims.unclaimed(desk, closure)
    plan = closure.facts.get("plan") or {}
    books = desk.closures.books(closure.id)
    return {
        "closure": closure.id,
        "state": request.state.value,
        "public": request.public.value,
        "version": closure.version,
        "opened": iso(closure.opened),
        "plan_digest": request.plan,
        "high_risk": request.high_risk,
        "approvals": len(request.approvals) + request.automatic,
        "restore_until": iso(ends) if ends and now < ends and request.state in REVERSIBLE else None,
        "restore_code": tries(closure, now) if request.state in REVERSIBLE else None,
        "hold": "none" if holder and closure.facts.get("untold") else request.hold.value,
        "holds": [
            {"scope": [], **one}
            for one in closure.facts.get("holds", ())
            if not (holder and str(one["basis"]).endswith(UNTOLD))
        ],
        "settlement": request.settlement.value,
        "clocks": [
            {
                "name": one.name,
                "started": iso(one.started),
                "deadline": iso(one.deadline),
                "by": one.by,
                "source": one.source if one.by == "law" else desk.promise.name,
                "draft": one.draft,
                "provisional": one.provisional,
                "first_told": iso(one.first) if one.first else None,
                "extended": one.extended,
                "used": max(0, int(one.used(now) * 100)),
                "met": iso(one.met) if one.met else None,
                "breached": one.broken(now),
            }
            for one in desk.clocks(closure).values()
        ],
        "items": [{k: v for k, v in one.items() if k not in ("digest", "version")} for one in plan.get("items", ())],
        "owed": [
            {"currency": currency, "minor": minor, "where": account}
            for currency, accounts in sorted(books.items())
            for account, minor in sorted(accounts.items())
            if account != "wallet" and minor
        ],
        "blocked": [
            {k: v for k, v in one.items() if k != "item"} | {"id": name}
            for name, one in sorted(closure.facts.get("blocked", {}).items())
            if request.state in (State.PREFLIGHT, State.READY)
        ],
        "orders": proofs(desk, closure),
        "export": _export(request, closure.facts.get("export")),
        "unclaimed": waits
        and {"since": iso(waits.since), "until": iso(waits.until), "ground": claims.GROUND, "text": claims.TEXT},
        "collections": [
            {
                "collection": address,
                "fates": fates,
                "sealed": plan["sealed"].get(address, []),
                "otherwise": "frozen, not sealed",
            }
            for address, fates in sorted(plan.get("rows", {}).items())
        ],
        "certificate": closure.facts.get("certificate"),
        "superseded": list(closure.facts.get("superseded", ())),
        "delayed": closure.facts.get("delayed"),
        "ahead": {k: (closure.facts.get("ahead") or {}).get(k) for k in ("needs", "left", "fits")},
        "kept": _kept(closure.facts.get("kept")),
        "watched_until": (closure.facts.get("watch") or {}).get("until"),
        "round": request.round,
        "says": says(request),
        "zone": desk.promise.zone,
        "steps": steps(desk, closure),
        "told_by": list(closure.facts.get("channels", ())),
        "notices": dict(zip(("waiting", "undelivered"), desk.outbox.standing(closure.id, KINDS), strict=True)),
        "consumers": [
            {"name": name, **vars(one)}
            for name, one in consumers.heard(desk.outbox.history(closure.id, consumers.KIND)).items()
        ],
        "tickets": [
            {"ticket": one.id, "category": one.category, "state": one.state, "first_answer_by": iso(one.due)}
            for one in Tickets(desk.closures.engine).of(closure.receipt)
        ],
        "refused": next(
            (e["body"].get("reason") for e in desk.closures.events(closure.id) if e["type"] in ("reject", "expire")),
            None,
        ),
    }


def _export(request: Request, noted: Mapping[str, Any] | None) -> dict[str, Any]:  # Any: JSON
    """How the copy of their data stands that the person asked for."""
    known = {name: noted[name] for name in ("manifest", "rows", "files")} if noted else {}
    expires = iso(datetime.fromisoformat(noted["expires"])) if noted else None
    return {"state": request.export.value, "manifest": None, "rows": None, "files": None, **known, "expires": expires}


def _kept(noted: Mapping[str, Any] | None) -> dict[str, Any] | None:  # Any: JSON
    """What a law or a hold keeps after the end: rows by collection, when the next of it goes, who decides."""
    if not noted or not noted["rows"]:
        return None
    following = iso(datetime.fromisoformat(noted["next"])) if noted["next"] else None
    return {"rows": noted["rows"], "next": following, "undecided": noted["undecided"]}

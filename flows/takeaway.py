"""Taking one's data along before an account is closed: an export of a closing, which never outlives regret.

The rows are those that the erasure would find, opened where they lie under keys, one Parquet file a collection with a
manifest of hashes and a readable index (`export.py`); as many rows as were located, or it is no export. So it is made
before the seal: afterwards nobody alone can read them, and bringing the account back is the way.

The folder is a copy of ours until its hours are over or regret is: then `run-due` destroys its files. Whoever collected
it answers for their copy. An export that was asked for and failed holds the erasure back until it is made or waived.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from fangxin.data.closures.store import Closure
from fangxin.data.errors import NotAllowed
from fangxin.data.requests import Request
from fangxin.data.vocabulary import Identity
from fangxin.flows.closing import current
from fangxin.flows.desk import UNMADE, WAIVED, Desk, renamed, request_of
from fangxin.flows.evidence import EXPORTED
from fangxin.flows.export import by_person, check_folder, hand_over, seal_folders
from fangxin.flows.exports import destroy_folder
from fangxin.flows.lifecycle import Actor, Event, Export, Keys, State
from fangxin.flows.looks import bounds, plan_of
from fangxin.flows.places import roots

_OVER = (State.READY, State.DESTROYING, State.OVERWRITING, State.VALIDATING, State.CERTIFIED, State.RESTRICTED)


def take(desk: Desk, closure_id: str, to: Path) -> Closure:
    """Write the person's rows into a new folder; NotAllowed once they are sealed, and what exporting raises."""
    from fangxin.checks.suites.exported import judge_export

    closure, estate = current(desk, closure_id), desk.estate
    request = request_of(closure)
    if request.keys is not Keys.INTACT:
        raise NotAllowed("the account is sealed: nobody alone can read it", hint="`fangxin request restore` first")
    check_folder(to, home=estate.settings.home, roots=[*roots(estate).values(), *(s.root for s in estate.stores)])
    name = "export_again" if request.export is Export.FAILED else "export"
    closure = desk.take(closure, Event(name, Actor.HOLDER), desk.now)
    secret = desk.opened(closure)
    identities = tuple(Identity(kind, value) for kind, value in secret.identities)
    person = Request(closure.id, "", 0, False, closure.ref, secret.secret, identities, secret.receipt)
    try:
        plan = plan_of(desk, secret, bounds([closure]))
        table = hand_over(estate, plan.fates, [person], to)
        judge_export(
            by_person(estate, table, [person]), collections=len(estate.catalog.collections), tmp=estate.settings.tmp
        ).require("the export")
        manifest = seal_folders(to, [person], {})[closure.id]
    except Exception:
        destroy_folder(to / closure.id)
        entry = {"type": "exception", "code": "export_failed", "role": "system"}
        desk.take(closure, Event("export_failed"), desk.now, entries=[(UNMADE + closure.version, entry)])
        raise
    noted = {
        "folder": str(to.resolve() / closure.id),
        "manifest": manifest,
        "rows": int(table["rows_exported"].sum()),
        "files": int(table["files"].sum()),
        "expires": (desk.now + timedelta(hours=desk.rules.link_hours)).isoformat(),
    }
    entry = {"type": "exported", "manifest": manifest}
    return desk.take(closure, Event("exported"), desk.now, entries=[(EXPORTED, entry)], facts={"export": noted})


def collected(desk: Desk, closure_id: str) -> Closure:
    """The holder has their copy."""
    return desk.take(current(desk, closure_id), Event("collect", Actor.HOLDER), desk.now)


def waived(desk: Desk, closure_id: str) -> Closure:
    """The holder wants none, or gives up one that failed; the ledger has that they said so."""
    entry: dict[str, int | str] = {"type": "exception", "code": "export_waived", "role": "holder"}
    closure = current(desk, closure_id)
    return desk.take(
        closure, Event("waive_export", Actor.HOLDER), desk.now, entries=[(WAIVED + closure.version, entry)]
    )


def expire(desk: Desk) -> list[str]:
    """Destroy every export whose hours are over, or whose account is past regret; ids of these closings."""
    found = []
    for name in desk.closures.exporting():
        closure = desk.closures.get(name)
        noted: dict[str, Any] = closure.facts["export"]
        request = request_of(closure)
        if desk.now < datetime.fromisoformat(noted["expires"]) and request.state not in _OVER:
            continue
        files, logical = destroy_folder(Path(noted["folder"]))
        told = {**noted, "folder": "", "destroyed": {"files": files, "logical": logical}}
        if request.export is Export.READY:
            desk.take(closure, Event("export_expired"), desk.now, facts={"export": told})
        else:
            desk.write(closure, renamed(request), "export_expired", desk.now, by="system", facts={"export": told})
        found.append(name)
    return found

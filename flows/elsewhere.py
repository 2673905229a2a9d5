"""Elsewhere: where people stand that an erasure will not reach, said to whoever decides before keys are destroyed.

    seen       files below the catalog's root, and what `watch` names, that no collection names: searched now
    shut       those among them that cannot be examined
    declared   copies that the catalog says exist, and that no store of ours holds

A look ahead and no evidence: what a certificate says of such places comes from the run's own two searches. Real paths
(`behind`) are for the operator's own eyes; certificates and packages name places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from fangxin.checks.residue.scan import scan, stored
from fangxin.flows.estate import Estate
from fangxin.flows.frames import tuples
from fangxin.flows.outside import closed, outside
from fangxin.flows.places import NOBODYS, places, watched
from fangxin.flows.plan import Plan
from fangxin.flows.sight import needles, sight

Bar = Callable[[int], AbstractContextManager[Callable[[int], object]]]


def elsewhere(estate: Estate, plan: Plan, bar: Bar) -> dict[str, Any]:  # Any: JSON
    """Search what no collection names for the people of a plan, each file once; subjects are counted from 1.

    `bar` is given how many bytes that is and yields something to be told of those that are done.
    """
    where = places(estate)
    loose = [(place, path) for place, path in where.files if where.claims[place] == NOBODYS]
    wanted = needles(estate.catalog, plan.facts, plan.texts)
    with bar(stored(loose)) as progress:
        seen = sight(scan(loose, wanted, progress=progress), wanted, where.claims)
    found = list(tuples(outside(seen, seen, where.paths), "subject", "place", "containers", "hits"))
    shut = closed(seen, where.paths)
    return {
        "searched": len(loose),
        "seen": [{"ref": str(s + 1), "place": p, "containers": c, "hits": n} for s, p, c, n in found],
        "shut": [{"place": place, "reason": reason} for place, reason in shut],
        "declared": declared(estate),
        "places": behind(estate, [*(one[1] for one in found), *(place for place, _reason in shut)]),
    }


def declared(estate: Estate) -> list[dict[str, Any]]:  # Any: JSON
    """The copies that the catalog declares and no collection holds, each once, with the datasets of which they are."""
    found: dict[tuple[str, str, str], set[str]] = {}
    for collection in estate.catalog.collections:
        for one in collection.copies or ():
            if not one.in_catalog:
                found.setdefault((one.kind, one.name, one.keep or ""), set()).add(collection.dataset)
    return [
        {"kind": kind, "name": name, "keep": keep or None, "datasets": sorted(of)}
        for (kind, name, keep), of in sorted(found.items())
    ]


def behind(estate: Estate, found: Iterable[str]) -> dict[str, str]:
    """By the beginning of each of these places the real folder or file that it stands for."""
    known: dict[str, Path] = {store.name: store.root for store in estate.stores}
    known |= {"outside": estate.catalog.root, **watched(estate)}
    longest = sorted(known, key=len, reverse=True)
    begins = (next((one for one in longest if place.startswith(f"{one}/")), None) for place in set(found))
    return {one: str(known[one].absolute()) for one in sorted({b for b in begins if b is not None})}

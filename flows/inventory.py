"""Inventory: which files the stores lay in before anything was destroyed, sealed until it is accounted for.

Taken at the baseline and closed at validation (checks/residue/inventory.py has the rules); in between it lies among
the sealed parts of the batch, so that a crash loses nothing of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fangxin.checks.residue.inventory import Closure, Done, Inventory, close, take
from fangxin.data.requests import Batch
from fangxin.data.vocabulary import Erasure, Method, Store, Unit
from fangxin.flows.estate import Estate
from fangxin.flows.places import Places
from fangxin.flows.sight import Sight


def keep_inventory(estate: Estate, batch: Batch, where: Places) -> None:
    """Read and seal what lies in every store now; an earlier one of this batch is replaced, nothing being destroyed."""
    for name, found in _taken(estate, where).items():
        estate.requests.keep(batch, f"inventory/{name}", found.pack())


def shed(
    estate: Estate, batch: Batch, store: Store, units: Iterable[str], states: Mapping[tuple[str, str], Unit]
) -> None:
    """Note units that others wrote before we could hold them: what they freed was never ours to destroy.

    `states`: as the units were located. Where another inode, or none, is in their place now, they were replaced.
    """
    now = {(store.name, unit.name): unit for unit in store.units()}
    told = _shed(estate, batch, store)
    for name in units:
        key, place = (store.name, name), f"{store.name}/{name}"
        replaced = key not in now or key not in states or _inode(now[key]) != _inode(states[key])
        told[place] = told.get(place, False) or replaced
    estate.requests.keep(batch, f"shed/{store.name}", json.dumps(told, sort_keys=True).encode())


def built(estate: Estate, batch: Batch, store: Store, done: Sequence[Erasure]) -> None:
    """Note which file of ours stands for each unit of an opaque store: it is what was shown of it that holds."""
    if not store.capabilities.raw_scan:
        ours = {one.unit for one in done if one.construction is not None}
        told = {unit.name: _inode(unit) for unit in store.units() if unit.name in ours}
        estate.requests.keep(batch, f"built/{store.name}", json.dumps(told, sort_keys=True).encode())


def closures(
    estate: Estate,
    batch: Batch,
    where: Places,
    erasures: Mapping[str, Sequence[Erasure]],
    before: Sight,
    after: Sight,
) -> dict[str, Closure]:
    """Account for every inode of every store, by store name. A store without an inventory has a leftover: nothing."""
    now = _taken(estate, where)
    found = {}
    for store in estate.stores:
        kept = estate.requests.kept(batch, f"inventory/{store.name}")
        if kept is None:
            found[store.name] = Closure(leftovers=((store.name, "no inventory was taken at the baseline"),))
            continue
        then = Inventory.unpack(kept)
        held = set(before.hits["place"])
        if not store.capabilities.raw_scan:
            held |= {one.place for one in then.inodes}
        ends = close(
            then,
            now[store.name],
            _done(store, erasures.get(store.name, ()), _shed(estate, batch, store)),
            units=[f"{store.name}/{unit.name}" for unit in store.units()],
            held=held,
            read=set(after.read) - {place for place, _reason in after.not_examinable},
        )
        found[store.name] = replace(ends, leftovers=(*ends.leftovers, *exchanged(estate, batch, store)))
    return found


def exchanged(estate: Estate, batch: Batch, store: Store) -> list[tuple[str, str]]:
    """Files that we built for an opaque store and that are not there any more: of what is there, nothing is shown."""
    told: dict[str, list[int]] = json.loads(estate.requests.kept(batch, f"built/{store.name}") or b"{}")
    now = {unit.name: _inode(unit) for unit in store.units()}
    why = "not the file that we built: somebody replaced it since"
    return [(f"{store.name}/{name}", why) for name, ours in sorted(told.items()) if now.get(name) != ours]


def _inode(unit: Unit) -> list[int]:
    return [unit.dev, unit.ino]


def _taken(estate: Estate, where: Places) -> dict[str, Inventory]:
    """The files of each store; what lies in the folder of several is listed with the one whose name it carries."""
    names = sorted((s.name for s in estate.stores), key=len, reverse=True)
    files: dict[str, list[tuple[str, Path]]] = {name: [] for name in names}
    for place, path in where.files:
        owner = next((name for name in names if place.startswith(f"{name}/")), None)
        if owner is not None:
            files[owner].append((place, path))
    return {name: take(listed) for name, listed in files.items()}


def _done(store: Store, erasures: Sequence[Erasure], others: Mapping[str, bool]) -> Done:
    units = {False: set[str](), True: set[str]()}
    for one in erasures:
        units[one.method is Method.LOGICAL_DELETE].add(f"{store.name}/{one.unit}")
    replaced = [place for place, gone in others.items() if gone]
    return Done([d for one in erasures for d in one.destructions], units[False], units[True], list(others), replaced)


def _shed(estate: Estate, batch: Batch, store: Store) -> dict[str, bool]:
    """Places of units that others wrote, and whether they were replaced."""
    found: dict[str, bool] = json.loads(estate.requests.kept(batch, f"shed/{store.name}") or b"{}")
    return found

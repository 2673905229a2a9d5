"""Resurrection: what a full backup from before still gives, opened with everything that lives today.

Key destruction is the only erasure that reaches a backup. So a backup of stores, vault and requests is opened with
today's vault and root: values under the keys of the living come back, those of the erased do not. What was never under
a key is still readable there, and is said to be, with the day on which the catalog says that the backup goes.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Collection as Collection_
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from fangxin.data.catalog.dataset import read_catalog
from fangxin.data.keys.columns import open_rows, owner_of
from fangxin.data.keys.disclosure import disclosed
from fangxin.data.keys.roots import shares
from fangxin.data.stores.registry import open_stores
from fangxin.data.vocabulary import Catalog, Collection, Field, Meter, Mode, Store
from fangxin.flows.estate import Estate


@dataclass(frozen=True)
class Backup:
    """A full backup: the estate's folder as it was, pages of the vault (never its root), the requests store."""

    estate: Path
    vault: Path
    requests: Path


@dataclass(frozen=True)
class Opened:
    """Values of one protected field in a backup: how many of the living and of the erased open today."""

    collection: str
    field: str
    domain: str  # the key domain, which a law may keep
    living: int
    living_opened: int
    erased: int
    erased_opened: int


@dataclass(frozen=True)
class Readable:
    """A personal field that lies in clear in a backup: rows of the erased there, and when the backup goes."""

    collection: str
    field: str
    erased: int
    until: str  # YYYY-MM-DD; "" where the catalog names no day


@dataclass(frozen=True)
class Resurrection:
    """Everything that a backup gave: values under keys, values in clear, keys of the old vault, sealed identities."""

    opened: tuple[Opened, ...]
    readable: tuple[Readable, ...]
    keys: int  # that the old pages give under today's root
    sealed: int  # requests in the backup
    unsealed: int  # of which the identities open today


def back_up(estate: Estate, folder: Path) -> Backup:
    """Copy stores, vault and requests as a nightly job would; the root of the vault is in no backup."""
    folder.mkdir(parents=True)
    backup = Backup(folder / "estate", folder / "vault.db", folder / "requests.db")
    shutil.copytree(_root(estate), backup.estate)
    estate.tree.backup(backup.vault)
    with (
        closing(sqlite3.connect(estate.settings.home / "requests.db")) as live,
        closing(sqlite3.connect(backup.requests)) as copy,
    ):
        live.backup(copy)
    return backup


def resurrect(estate: Estate, backup: Backup, *, erased: Collection_[str]) -> Resurrection:
    """Open a backup with today's keys and root. `erased`: values of the person collection's primary key."""
    catalog = read_catalog([backup.estate / estate.catalog_path.relative_to(_root(estate))])
    gone = pa.array(sorted(erased), pa.string())
    opened, readable = [], []
    for store in open_stores(catalog, Meter()):
        for collection in store.collections:
            names = [f for f in collection.fields if f.personal]
            if not names or not _leads_to_a_person(catalog, collection):
                continue
            told, clear = _fields(estate, catalog, store, collection, names, gone)
            opened += told
            readable += [Readable(collection.address, name, n, _until(collection, estate.now)) for name, n in clear]
    root = shares.load(estate.tree.anchor, estate.tree.holders)[1]
    sealed, unsealed = _requests(estate, backup.requests)
    keys = len(disclosed([backup.vault], [root]).keys)
    return Resurrection(tuple(opened), tuple(readable), keys, sealed, unsealed)


def _fields(
    estate: Estate, catalog: Catalog, store: Store, collection: Collection, names: list[Field], gone: pa.Array
) -> tuple[list[Opened], list[tuple[str, int]]]:
    owner = owner_of(catalog, collection).name
    shut = [f.name for f in names if f.mode is Mode.CRYPTO_ERASE and not store.clear(collection, (f.name,))]
    counts = {name: [0, 0, 0, 0] for name in shut}
    clear = {f.name: 0 for f in names if f.name not in shut}
    asked = {owner, *(f.name for f in names)} | ({collection.primary_key.name} if collection.primary_key else set())
    for _address, rows in store.scan({collection.address: sorted(asked)}):
        theirs = pc.is_in(rows.columns.column(owner).cast(pa.string()), value_set=gone)
        for name in shut:
            there = pc.is_valid(rows.columns.column(name))
            opens = pc.is_valid(open_rows(estate.tree, catalog, collection, name, rows.columns))
            for at, whose in ((0, pc.invert(theirs)), (2, theirs)):
                counts[name][at] += pc.sum(pc.and_(there, whose)).as_py() or 0
                counts[name][at + 1] += pc.sum(pc.and_(opens, whose)).as_py() or 0
        for name in clear:
            clear[name] += pc.sum(pc.and_(pc.is_valid(rows.columns.column(name)), theirs)).as_py() or 0
    told = [Opened(collection.address, n, collection.field(n).key_domain, *counts[n]) for n in shut]
    return told, [(name, n) for name, n in clear.items() if n]


def _requests(estate: Estate, copy: Path) -> tuple[int, int]:
    """Requests in a copy of the requests store, and those whose identities open with today's vault."""
    from fangxin.data.requests import Requests

    old = Requests(copy, estate.tree)
    found = [one for batch in old.unfinished() for one in old.requests(batch) if not one.canary]
    return len(found), sum(bool(one.identities) for one in found)


def _leads_to_a_person(catalog: Catalog, collection: Collection) -> bool:
    return any(catalog.person_kind in (*f.matches, *f.emits) for f in collection.fields)


def _until(collection: Collection, now: datetime) -> str:
    days = [
        int(c.keep[:-1]) for c in collection.copies or () if c.keep and c.keep.endswith("d") and c.keep[:-1].isdigit()
    ]
    return (now + timedelta(days=max(days))).date().isoformat() if days else ""


def _root(estate: Estate) -> Path:
    """The folder that holds catalog and stores."""
    path = estate.catalog_path
    return (path if path.is_dir() else path.parent).parent

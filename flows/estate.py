"""The estate: a home of ours and the stores its catalog names, opened for one step.

Every step opens its own: keys and rows never cross from one task to another, only opaque ids do.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import fangxin.data
from fangxin.data.catalog.dataset import read_catalog
from fangxin.data.catalog.law import Laws
from fangxin.data.errors import InputError, NotAllowed, WriterBusy
from fangxin.data.keys.approval import Guard
from fangxin.data.keys.memory import no_core_dumps
from fangxin.data.keys.roots.file import FileRoot
from fangxin.data.keys.roots.protocol import Root
from fangxin.data.keys.roots.wrapped import WrappedRoot
from fangxin.data.keys.tree import KeyTree
from fangxin.data.requests import Requests
from fangxin.data.stores.registry import open_stores
from fangxin.data.vocabulary import Catalog, Meter, Store, Unit
from fangxin.flows.settings import Settings, load
from fangxin.reports.ledger.entries import minute
from fangxin.reports.ledger.keys import SigningKeys, check_origin
from fangxin.reports.ledger.log import Ledger
from fangxin.reports.ledger.tiles import replace_file

_ROOMS = Path(fangxin.data.__file__ or "").parent.parent
LAWS = _ROOMS / "data" / "laws"
SCHEMAS = _ROOMS / "reports" / "schemas"


@dataclass(frozen=True)
class Estate:
    """Settings, catalog and clock; vault, ledger, requests and stores are opened when first asked for."""

    settings: Settings
    catalog_path: Path
    now: datetime
    since: float = field(default_factory=time.monotonic)  # when it was opened: steps tell how long they took

    @cached_property
    def meter(self) -> Meter:
        """Counts the openings of units in this step."""
        return Meter()

    @cached_property
    def catalog(self) -> Catalog:
        """The catalog as it is on disk now."""
        return read_catalog([self.catalog_path])

    @cached_property
    def stores(self) -> tuple[Store, ...]:
        """Every store of the catalog."""
        return open_stores(self.catalog, self.meter)

    @cached_property
    def tree(self) -> KeyTree:
        """The key vault of this home."""
        return open_tree(self.settings)

    @cached_property
    def signing(self) -> SigningKeys:
        """The keys that sign checkpoints and statements."""
        return SigningKeys.load(self.settings.home / "keys")

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger of this home."""
        if (self.settings.home / "shards" / "next" / "ready").exists():
            raise NotAllowed("a new shard was begun and not finished", hint="`fangxin ledger shard` again finishes it")
        return Ledger.open(self.settings.home / "ledger", head=self.settings.ledger_head, keys=self.signing)

    @cached_property
    def requests(self) -> Requests:
        """Batches and requests, sealed under the vault."""
        return Requests(self.settings.home / "requests.db", self.tree)

    @cached_property
    def laws(self) -> Laws:
        """The laws that ship with the product."""
        return Laws.load(LAWS)

    def store_of(self, address: str) -> Store:
        """The store that holds a collection."""
        return next(s for s in self.stores if any(c.address == address for c in s.collections))

    def store_id(self, store: Store) -> str:
        """The name under which a store appears in the ledger: no path, no name of anything."""
        return f"s-{[s.name for s in self.stores].index(store.name) + 1:02d}"

    @property
    def minute(self) -> str:
        """Now, in whole minutes UTC, as the ledger and certificates print it."""
        return self.now.strftime("%Y-%m-%dT%H:%MZ")

    def states(self) -> dict[tuple[str, str], Unit]:
        """The present state of every unit, by store name and unit name; opens nothing."""
        return {(s.name, u.name): u for s in self.stores for u in s.units()}


def open_estate(home: Path, catalog: Path | None = None, now: datetime | None = None) -> Estate:
    """Open a home; without a catalog the one in the home is used."""
    settings = load(home)
    path = (catalog or home / "catalog").resolve()
    if not path.exists():
        hint = "correct the path after --catalog" if catalog else "--catalog PATH names the catalog's file or folder"
        raise InputError(f"{catalog or 'catalog'}: no such catalog file or folder", hint=hint)
    return Estate(settings, path, now or datetime.now(UTC))


def estate_of(batch_id: str, home: Path | None = None) -> Estate:
    """Open the home for a batch, with the catalog and the clock the batch was opened with."""
    from fangxin.flows.settings import home_from

    folder = home_from(home)
    settings = load(folder)
    requests = Requests(folder / "requests.db", open_tree(settings))
    options = requests.batch(batch_id).options
    fixed = options.get("now")
    now = datetime.fromisoformat(fixed) if fixed else datetime.now(UTC)
    return Estate(settings, Path(options["catalog"]), now)


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """Hold the home for one run that changes things; WriterBusy when another run holds it.

    Who holds it already may enter again: a command holds it around the flow that would hold it by itself.
    """
    home = home.resolve()
    if home in _HELD.get():
        yield
        return
    home.mkdir(parents=True, exist_ok=True)
    fd = os.open(home / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise WriterBusy("another run is at work in this home", hint="wait for it, then run this again") from None
        sweep_tmp(home)
        entered, kept = _HELD.set(_HELD.get() | {home}), _KEPT.set({})
        try:
            yield
        finally:
            for one in memory().get(_STORES, {}).values():
                os.close(one)
            _HELD.reset(entered)
            _KEPT.reset(kept)
    finally:
        os.close(fd)


def hold_stores(estate: Estate) -> None:
    """Hold every store of the estate until this run ends; WriterBusy when a run of another home holds one.

    Asked for before anything is changed in a store. It is the folder itself that is locked: nothing is made in it, and
    the lock dies with its process. Outside of a run it is let go at once; where a folder cannot be locked, the journal
    of each store still keeps two apart (data/pending.py).
    """
    held: dict[tuple[int, int], int] = memory().setdefault(_STORES, {})
    new: dict[tuple[int, int], int] = {}
    try:
        for store in estate.stores:
            with suppress(FileNotFoundError, NotADirectoryError):
                _hold(store, held, new)
        held |= new if _KEPT.get() is not None else {}
    finally:
        for key, fd in new.items():
            if key not in held:
                os.close(fd)


def _hold(store: Store, held: Mapping[tuple[int, int], int], new: dict[tuple[int, int], int]) -> None:
    fd = os.open(store.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    seen = os.fstat(fd)
    key = seen.st_dev, seen.st_ino
    if key in held or key in new:
        os.close(fd)
        return
    new[key] = fd
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise WriterBusy(
            f"{store.name}: a run of another home is at work in this store; nothing was changed",
            hint="wait for it, then run this again",
        ) from None
    except OSError:  # a file system that locks no folders
        return


def memory() -> dict[str, Any]:  # Any: whatever a step keeps
    """What the run that holds a home keeps in memory from one step to the next; outside of a run it is lost at once."""
    kept = _KEPT.get()
    return {} if kept is None else kept


_STORES = "stores"  # where the run keeps the descriptors of the folders that it holds
_KEPT: ContextVar[dict[str, Any] | None] = ContextVar("kept", default=None)
_HELD: ContextVar[frozenset[Path]] = ContextVar("held", default=frozenset())  # homes that this run of ours holds


def sweep_tmp(home: Path) -> None:
    """Empty our temporary folder; nothing of a run outlives it there."""
    tmp = home / "tmp"
    if tmp.exists():
        shutil.rmtree(tmp)
    tmp.mkdir(mode=0o700)


def open_tree(settings: Settings) -> KeyTree:
    """The key vault of a home, with the root holders that its settings name."""
    no_core_dumps()
    folder = settings.home / "keys"
    anchor = FileRoot(folder / "root", backup_sets=settings.backup_sets)
    others = _holders(settings.roots, folder, settings.stated, settings.rehearsal, settings.backup_sets)
    return KeyTree.open(folder, anchor=anchor, holders=others)


def _holders(
    roots: Sequence[str],
    folder: Path,
    stated: Sequence[str],
    rehearsal: bool,
    backup_sets: Sequence[Path] | None = None,
) -> tuple[Root, ...]:
    from fangxin.data.keys.roots.choose import holders

    chosen = holders(roots, folder, stated=stated, backup_sets=backup_sets)
    for holder in () if rehearsal else chosen:
        if holder.claim().effect == "test-only":
            raise NotAllowed(
                f"root holder {holder.name} is a software token or a stand-in: it is for rehearsal homes only",
                hint="fangxin init --rehearsal, or name a real holder",
            )
    return chosen


def make_home(
    home: Path,
    *,
    rehearsal: bool,
    origin: str,
    now: datetime,
    capacity: int = 200_000,
    roots: Sequence[str] = (),
) -> None:
    """Create a home: settings, empty catalog, vault with its root, signing keys, ledger. InputError if it exists.

    `roots` are the addresses of further root holders; what is wrong with one, or with the origin, is said before
    anything is made. What an interrupted creation left is cleared away: nothing can lie under its keys yet.
    """
    from fangxin.flows.settings import TEMPLATE
    from fangxin.reports.paper.signatory import Signatory

    if (home / "fangxin.toml").exists():
        raise InputError(f"{home}: is a home of fangxin already", hint="choose another folder")
    check_origin(origin)
    holders = _holders(roots, home / "keys", (), rehearsal)
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise InputError(f"{home}: cannot be made: {os.strerror(error.errno or 0)}", hint="name a new folder") from None
    _clear_interrupted(home, holders)
    for folder in ("catalog", "certificates", "dsse", "reports", "tmp"):
        (home / folder).mkdir(exist_ok=True, mode=0o700)
    guard = Guard(lifted=rehearsal)
    with KeyTree.create(home / "keys", capacity=capacity, holders=holders, guard=guard) as tree:
        root = tree.commitment
    keys = SigningKeys.create(home / "keys", origin=origin)
    Signatory.create(home / "keys", origin=origin, now=now)
    ledger = Ledger.create(home / "ledger", origin=origin, head=home / "ledger-head", keys=keys)
    ledger.append([{"type": "key.committed", "time": minute(now), "root": root}])
    text = TEMPLATE.format(
        rehearsal=str(rehearsal).lower(), origin=origin, capacity=capacity, roots=json.dumps(list(roots))
    )
    (home / _MAKING).unlink()  # before the settings: a home in use never bears the mark that lets keys go
    replace_file(home / "fangxin.toml", text.encode())


_MAKING = "making"  # lies in a home until it is whole


def _clear_interrupted(home: Path, holders: Sequence[Root]) -> None:
    """Mark a home as being made; what lies there with that mark already was never anybody's, and goes.

    InputError where keys or a ledger lie there without it: their settings are lost, and they may be everybody's.
    """
    mark, made = home / _MAKING, [home / name for name in ("keys", "ledger", "ledger-head")]
    if not mark.exists() and (found := next((one.name for one in made if one.exists()), None)):
        raise InputError(
            f"{home}: holds {found} of a home, and no fangxin.toml",
            hint="bring fangxin.toml back from a backup, or choose another folder",
        )
    if mark.exists():
        for holder in holders:
            if isinstance(holder, WrappedRoot):
                holder.forget()
        for one in made[:2]:
            shutil.rmtree(one, ignore_errors=True)
        made[2].unlink(missing_ok=True)
    mark.touch()

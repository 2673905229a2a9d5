"""Places: everything a look goes through, and whose each of them is.

    sqlite:wallet.db/wallet.db    a unit of a store             -> its collections
    sqlite:wallet.db/….db-wal     a side file of a store        -> all collections of that store
    home/requests.db              a file of our own home        -> one of the parts in flows/own.py
    outside/old/export.zip        the rest of every root        -> nobody's: no order reaches it
    watched-1/…                   a place named in `watch`      -> nobody's either

Roots are walked whole: the catalog's own root, and every folder or file that `watch` in fangxin.toml names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fangxin.checks.residue.control import MARK
from fangxin.checks.residue.scan import walk
from fangxin.data.errors import InputError
from fangxin.data.vocabulary import shown
from fangxin.flows.estate import Estate
from fangxin.flows.own import HOME, part_of

NOBODYS: tuple[str, ...] = ()
_SIDE = ("-wal", "-journal", "-shm", ".wal", ".crc", "_metadata")  # they go with their unit


@dataclass(frozen=True)
class Places:
    """Every place with its path, and the addresses of what lies there; none means that no collection names it."""

    files: tuple[tuple[str, Path], ...]
    claims: Mapping[str, tuple[str, ...]]

    @cached_property
    def paths(self) -> Mapping[str, Path]:
        """Where a place lies."""
        return dict(self.files)


def places(estate: Estate) -> Places:
    """Walk every store, our home and every root, each file once; opens nothing."""
    found: dict[Path, str] = {}
    claims: dict[str, tuple[str, ...]] = {}
    for place, path, owners in (*_units(estate), *_side_files(estate), *_own(estate), *_rest(estate)):
        if found.setdefault(path, place) == place:
            claims[place] = claims.get(place, ()) + tuple(a for a in owners if a not in claims.get(place, ()))
    return Places(tuple((place, path) for path, place in found.items()), claims)


def roots(estate: Estate) -> dict[str, Path]:
    """The roots that are walked whole, by the beginning of their places."""
    named = watched(estate)
    for path in named.values():
        if not path.exists():
            raise InputError(
                f"{estate.settings.home / 'fangxin.toml'}: watch: {path}: no such file or folder",
                hint="correct the path, or take it out",
            )
    return {"outside": estate.catalog.root, **named}


def watched(estate: Estate) -> dict[str, Path]:
    """What `watch` in the settings names, there or not, by the beginning of its places."""
    return {f"watched-{n}": path for n, path in enumerate(estate.settings.watch, start=1)}


_Found = tuple[str, Path, tuple[str, ...]]


def _units(estate: Estate) -> Iterator[_Found]:
    for store in estate.stores:
        for collection in store.collections:
            for unit in store.units(collection):
                yield f"{store.name}/{unit.name}", store.root / unit.name, (collection.address,)


def _side_files(estate: Estate) -> Iterator[_Found]:
    """What else lies in a store's folders: its own side files, and files that no collection names."""
    for store in estate.stores:
        for path in store.files():
            place = f"{store.name}/{inside(store.root, path)}"
            own = place.endswith(_SIDE) or "/.fangxin-" in place
            yield place, path, tuple(c.address for c in store.collections) if own else NOBODYS


def _own(estate: Estate) -> Iterator[_Found]:
    home = estate.settings.home
    for _name, path in walk([home]):
        if not path.name.startswith(MARK):
            name = inside(home, path)
            yield f"{HOME}/{name}", path, (part_of(name),)


def _rest(estate: Estate) -> Iterator[_Found]:
    home = estate.settings.home.resolve()
    for name, root in roots(estate).items():
        for _name, path in walk([root]):
            if not path.is_relative_to(home):
                yield f"{name}/{inside(root, path)}", path, NOBODYS


def inside(root: Path, path: Path) -> str:
    """A path relative to its root; a name alone where it lies elsewhere."""
    return shown(path.relative_to(root) if path.is_relative_to(root) and path != root else path.name)

"""Units that are plain files: which files a glob claims, what state they are in, and how one is exchanged for another.

* A unit is a regular file with one name. A symbolic link, a second name, a read-only file are refused by name.
* Names that begin with a dot are never units: they are ours (`.fangxin-pending`) or belong to an engine.
* Everything below the folders that a collection's glob can reach is a file of the store, unit or not.
* A unit is exchanged whole: survivors to a new file, verified, put in its place, the old inode destroyed.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from fangxin.data.errors import CatalogError, FangxinError, NotAsCatalogued, StoreUnavailable, UnitChanged
from fangxin.data.medium import why_not
from fangxin.data.pending import FOLDER, Done, Pending
from fangxin.data.vocabulary import Collection, Erasure, Meter, Method, Order, Positions, Unit, shown

PLANTING = "plant"  # the batch name under which plants leave records
PLANTED = "fangxincanary"  # in the name of a unit that holds nothing but a planted row
_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Built:
    """What went into the new file of a unit: rows of the old, rows kept, rows kept with values replaced."""

    before: int
    after: int
    changed: int


class Folder:
    """The files below one root, and which collection each belongs to."""

    def __init__(
        self, root: Path, url: str, collections: Sequence[Collection], *, store: str, hidden: str = "."
    ) -> None:
        base = root.resolve()
        place = (base / url).resolve()
        if not place.is_relative_to(base):
            where = collections[0].where if collections else ""
            raise CatalogError(f"{where}: store.url {url!r} leaves the catalog's root; expected a path below it")
        self.root = place
        self.collections = tuple(collections)
        self.pending = Pending(place, store=store)
        self._hidden = hidden
        self._claims = [(c, _pattern(c)) for c in self.collections]

    def units(self, collection: Collection | None = None) -> tuple[Unit, ...]:
        """Every unit (of one collection), sorted by name; reads directories, opens no file."""
        found = self.claimed()
        wanted = found if collection is None else [f for f in found if f[0].address == collection.address]
        return tuple(unit for _, unit in wanted)

    def claimed(self) -> list[tuple[Collection, Unit]]:
        """Every unit with the collection it belongs to, sorted by name; CatalogError if two claim one."""
        found: list[tuple[Collection, Unit]] = []
        for entry in _walk(self.root):
            name = entry.relative_to(self.root).as_posix()
            if any(part[0] in self._hidden for part in name.split("/")):
                continue
            owners = [c for c, pattern in self._claims if pattern.fullmatch(name)]
            if len(owners) > 1:
                raise CatalogError(
                    [f"{c.where}: {c.address} claims unit {name!r}, which {owners[0].address} claims too; "
                     "expected one collection a unit; narrow one glob" for c in owners[1:]]
                )  # fmt: skip
            if owners:
                found.append((owners[0], state(entry, name)))
        return sorted(found, key=lambda pair: pair[1].name)

    def path(self, unit: str) -> Path:
        """Where a unit lies."""
        return self.root / unit

    def files(self) -> tuple[Path, ...]:
        """Every file below the folders of the collections, units or not, and all that awaits destruction."""
        folders = {self.root / _fixed(c.store.glob) for c in self.collections}
        found = {entry for folder in folders if folder.is_dir() for entry in _walk(folder)}
        return tuple(sorted(found | set(self.pending.files())))

    def refuse(self, unit: str, *, for_writing: bool) -> None:
        """Raise StoreUnavailable unless the unit is a plain file of its own that we may read (and replace)."""
        path = self.path(unit)
        try:
            seen = path.lstat()
        except OSError:
            raise unusable(unit, "a file", "nothing there", "locate again, or restore the file") from None
        if stat.S_ISLNK(seen.st_mode):
            raise unusable(unit, "a plain file", "a symbolic link", "put the file itself where the catalog says")
        if not stat.S_ISREG(seen.st_mode):
            raise unusable(unit, "a plain file", "something else", "narrow the glob or remove it")
        if seen.st_nlink > 1:
            raise unusable(
                unit, "one name", f"{seen.st_nlink} hard links", "remove the other names: they would keep the rows"
            )
        if not seen.st_mode & 0o444 or not os.access(path, os.R_OK):
            raise unusable(unit, "a readable file", "no permission", "give this account permission to read it")
        if for_writing:
            self._refuse_readonly(unit, path, seen.st_mode)

    def refuse_strays(self) -> None:
        """Raise StoreUnavailable if a link hides below a collection's folder: its bytes would escape us."""
        for path in self.files():
            if path.is_symlink():
                name = path.relative_to(self.root).as_posix()
                raise unusable(name, "plain files and folders", "a symbolic link", "put what it points to in its place")

    def examine(self) -> dict[str, str]:
        """Per unit "" where its bytes can be overwritten, else why the medium refuses."""
        return {unit.name: why_not(self.path(unit.name)) for unit in self.units()}

    def settle(self, orders: Sequence[Order], *, batch: str) -> dict[str, Erasure]:
        """Compare every order with its unit before any is touched; return what this batch has already done.

        Raises UnitChanged for a unit that is neither as located nor ours, StoreUnavailable for an unusable one.
        """
        settled: dict[str, Erasure] = {}
        owners = {unit.name: (collection, unit) for collection, unit in self.claimed()}
        for order in orders:
            name = order.unit.name
            owner, now = owners.get(name, (None, None))
            if now == order.unit:
                self.refuse(name, for_writing=True)
                if not order.changes or any(
                    owner is None or c.collection.address != owner.address for c in order.changes
                ):
                    raise UnitChanged(f"unit {name!r} is not of the collection that was located", hint="locate again")
                continue
            done = self.pending.outcome(self.path(name), batch=batch)
            if done is None:
                raise UnitChanged(
                    f"unit {name!r} of {self.root.name!r} is not in the state in which it was located; expected "
                    f"{order.unit.size} bytes in inode {order.unit.ino}, found "
                    + (f"{now.size} bytes in inode {now.ino}" if now else "no unit"),
                    hint="somebody wrote it since; nothing was changed; locate again",
                )
            settled[name] = _erasure(name, done)
        return settled

    def exchange(
        self, unit: str, address: str, build: Callable[[Path], Built], *, batch: str, also: Sequence[Path] = ()
    ) -> Erasure:
        """Let `build` write and verify the survivors, put them in the unit's place, destroy the old inode.

        A unit that was planted by us and has no rows left is removed instead: nobody else's file is.
        """
        path = self.path(unit)
        seen = path.lstat()
        beside = [p for p in (path.with_name(f".{path.name}.crc"), *also) if p.is_file() and not p.is_symlink()]
        new = self.pending.scratch(path, batch=batch)
        try:
            built = build(new)
            note = {"address": address, "before": built.before, "after": built.after, "changed": built.changed}
            if built.after or PLANTED not in path.name:
                done = self.pending.replace(new, path, batch=batch, note=note, also=beside, seen=seen)
                return _erasure(unit, done)
        except (FangxinError, OSError):
            self._abandon(new, batch)
            raise
        self._abandon(new, batch)
        return _erasure(unit, self.pending.remove(path, batch=batch, note=note, also=beside))

    def settled(self, unit: str, *, batch: str) -> Iterator[Erasure]:
        """Yield what this batch has already done to a unit, if it has."""
        done = self.pending.outcome(self.path(unit), batch=batch)
        if done is not None:
            yield _erasure(unit, done)

    def newcomer(self, collection: Collection, row: Mapping[str, Any]) -> Path | None:
        """A free name for a new unit that the glob claims, where data already lies; None without a wildcard."""
        glob = collection.store.glob
        *_, last = glob.split("/")
        if not _WILD.search(last):
            return None
        taken = [u for u in self.units(collection) if PLANTED not in u.name]
        parent = PurePosixPath(taken[0].name).parent.as_posix() if taken else _fixed(glob)
        if collection.store.partition == "hive":
            parts = [p.partition("=") for p in parent.split("/")]
            parent = "/".join(f"{k}={row[k]}" if eq and row.get(k) is not None else k + eq + v for k, eq, v in parts)
        token = PLANTED + secrets.token_hex(6)
        stem = re.sub(r"\[[^]]*\]|\?", lambda m: "0" if m[0] == "?" else m[0][1], last)
        first, _, rest = stem.partition("*")
        if rest.endswith("*") and taken:  # `*.jsonl.*` is packed like the first of them
            rest = rest[:-1]
            rest += PurePosixPath(taken[0].name).name.rpartition(rest.rpartition("*")[2] or "/")[2]
        name = (PurePosixPath(parent) / (first + token + rest.replace("*", ""))).as_posix()
        if PLANTED not in name or not _pattern(collection).fullmatch(name):
            return None
        return self.root / name

    def _abandon(self, new: Path, batch: str) -> None:
        """Destroy a file of survivors that never came to be published."""
        if new.exists():
            self.pending.discard(new, batch=batch)

    def _refuse_readonly(self, unit: str, path: Path, mode: int) -> None:
        advice = "make it writable for this account, or declare the collection read_only"
        # root may write anything, so the mode is asked too: whoever made it read-only meant it
        if not mode & 0o222 or not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
            raise unusable(unit, "a writable file in a writable folder", "read-only", advice)
        try:
            os.close(os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC))
        except OSError as error:
            raise unusable(unit, "a writable file", error.strerror or "no access", advice) from None


class FileStore(ABC):
    """What stores of plain files share: which units there are, and the order of checking, erasing and forgetting."""

    kind: ClassVar[str]
    _hidden: ClassVar[str] = "."  # first letters of names that are never units

    def __init__(self, root: Path, url: str, collections: tuple[Collection, ...], meter: Meter) -> None:
        self.name = f"{self.kind}:{url}"
        self._folder = Folder(root, url, collections, store=self.name, hidden=self._hidden)
        self.root = self._folder.root
        self.pending = self._folder.pending
        self.collections = collections
        self.meter = meter

    @abstractmethod
    def _possible(self, order: Order) -> None:
        """Raise unless the order can be carried out as it stands."""

    @abstractmethod
    def _erase(self, order: Order, batch: str) -> Erasure:
        """Copy what stays of one unit to a new file and destroy the old inode."""

    @abstractmethod
    def _plant(self, collection: Collection, row: Mapping[str, Any], model: Unit) -> None:
        """Add one row in the manner of an existing unit."""

    def units(self, collection: Collection | None = None) -> tuple[Unit, ...]:
        """Every unit (of one collection), sorted by name; opens nothing."""
        return self._folder.units(collection)

    def files(self) -> tuple[Path, ...]:
        """Every file below the folders of the collections, units or not, and all that awaits destruction."""
        return self._folder.files()

    def examine(self) -> Mapping[str, str]:
        """Per unit "" where its bytes can be overwritten, else the reason why the medium refuses."""
        return self._folder.examine()

    def rehearse(self, orders: Sequence[Order]) -> None:
        """Refuse orders that cannot be carried out; `erase` builds files of rows and has no rules to break."""
        there = set(self.units())
        for order in orders:
            if order.unit in there:
                self.meter.open(self.name, order.unit.name)
                self._possible(order)

    def erase(self, orders: Sequence[Order], *, batch: str) -> Iterator[Erasure]:
        """Build every unit afresh from the rows that stay and destroy the old inode; all orders are checked first."""
        settled = self._folder.settle(orders, batch=batch)
        for order in orders:
            if order.unit.name not in settled:
                self._possible(order)
        for order in orders:
            done = settled.get(order.unit.name)
            yield done if done is not None else self._erase(order, batch)

    def recover(self, *, batch: str | None) -> None:
        """Finish or undo what a killed run left of this batch (None: of any), and of planting."""
        self.pending.recover(batch=batch)
        self.pending.recover(batch=PLANTING)

    def forget(self, *, batch: str) -> None:
        """Drop the records of a batch whose outcomes are in the ledger."""
        self.pending.forget(batch=batch)
        self.pending.forget(batch=PLANTING)

    def plant(self, rows: Sequence[tuple[Collection, Mapping[str, Any]]]) -> None:  # Any: a value of any column type
        """Add each row as a unit of its own where the glob leaves room for one, made like an existing unit."""
        for collection, row in rows:
            units = self.units(collection)
            models = [unit for unit in units if PLANTED not in unit.name] or list(units)
            if not models:
                raise StoreUnavailable(
                    f"{collection.address}: no unit to learn the columns from; nothing was changed",
                    hint="a collection without units needs no canary",
                )
            self._plant(collection, row, models[0])
            self.pending.recover(batch=PLANTING)  # drops the record of a scratch that got its name
            self.pending.forget(batch=PLANTING)


def lacking_column(unit: str, address: str, name: str) -> NotAsCatalogued:
    """The error for a column that the catalog names and a whole unit does not have."""
    return NotAsCatalogued(
        f"unit {unit!r}: expected column {name!r} of {address}, found none of that name; nothing was changed",
        hint="mend the catalog or the file",
    )


def unusable(unit: str, expected: str, found: str, todo: str) -> StoreUnavailable:
    """The error for a unit that cannot be used: where, expected, found, what to do."""
    return StoreUnavailable(f"unit {unit!r}: expected {expected}, found {found}; nothing was changed", hint=todo)


def state(path: Path, name: str) -> Unit:
    """What identifies this state of a file; a link is described itself, never what it points to."""
    seen = path.lstat()
    if name != (text := shown(name)):
        raise unusable(text, "a name in UTF-8", "other bytes", "rename the file")
    return Unit(name, seen.st_size, seen.st_mtime_ns, seen.st_dev, seen.st_ino)


def publish(new: Path, path: Path) -> None:
    """Give a finished file that replaces nothing its name, durably."""
    new.replace(path)  # its name is random, so it replaces nothing
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def hive(unit: str, partition: str | tuple[str, ...] | None) -> dict[str, str | None]:
    """The values that a unit's path holds: `month=2024-01/` or, for named fields, one folder each."""
    from urllib.parse import unquote

    folders = unit.split("/")[:-1]
    if partition is None or partition == "none":
        return {}
    if partition == "hive":
        pairs = [folder.split("=", 1) for folder in folders if "=" in folder]
    else:
        names = (partition,) if isinstance(partition, str) else partition
        pairs = [[name, folder] for name, folder in zip(names, folders[-len(names) :], strict=False)]
    return {key: None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value) for key, value in pairs}


def together(changes: Sequence[Positions]) -> Positions:
    """The distinct positions of several lists, sorted."""
    import numpy as np

    return np.unique(np.concatenate([np.asarray(c, dtype=np.int64) for c in changes] or [np.empty(0, np.int64)]))


def _pattern(collection: Collection) -> re.Pattern[str]:
    """A glob as an expression over paths: `*` stays within a folder, `**` crosses them."""
    parts = collection.store.glob.split("/")
    if ".." in parts or collection.store.glob.startswith("/"):
        raise CatalogError(f"{collection.where}: store.glob leaves the store's root; expected a path below store.url")
    out = ""
    for piece in re.findall(
        r"\*\*/|\*\*|\*|\?|\[!?[^]]+\]|[^*?\[]+|\[", "/".join(p for p in parts if p not in ("", "."))
    ):
        if piece == "**/":
            out += "(?:[^/]+/)*"
        elif piece[0] == "[" and len(piece) > 1:
            out += piece.replace("[!", "[^")
        else:
            out += {"**": ".*", "*": "[^/]*", "?": "[^/]"}.get(piece) or re.escape(piece)
    return re.compile(out, re.DOTALL)


def _fixed(glob: str) -> str:
    """The folder below which everything that a glob can reach lies."""
    parts = glob.split("/")[:-1]
    wild = next((i for i, part in enumerate(parts) if _WILD.search(part)), len(parts))
    return "/".join(parts[:wild])


def _walk(folder: Path) -> Iterator[Path]:
    """Every file below a folder, links unfollowed, the pending folder left to its keeper."""
    try:
        entries = sorted(os.scandir(folder), key=lambda e: e.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if entry.name != FOLDER:
                yield from _walk(Path(entry.path))
        else:
            yield Path(entry.path)


def _erasure(unit: str, done: Done) -> Erasure:
    """An erasure rebuilt from what the pending journal remembers, the same right away and after a crash."""
    address = str(done.note["address"])
    return Erasure(
        unit=unit,
        method=Method.LOGICAL_DELETE if done.refused else Method.OVERWRITE,
        reason=done.refused,
        rows_before={address: int(done.note["before"])},
        rows_after={address: int(done.note["after"])},
        changed={address: int(done.note["changed"])},
        destructions=done.destructions,
        claim=done.claim,
    )

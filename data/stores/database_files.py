"""What stores of embedded engines share: a unit is a database file, a collection is a table in it.

An engine brings how a database is opened, what its tables look like and how work on it is done; which files are
units, what state they are in, and that nothing is touched which changed since, is the same for all of them.
"""

from __future__ import annotations

import contextlib
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from fangxin.data.errors import CatalogError, NotAsCatalogued, StoreUnavailable, UnitChanged
from fangxin.data.medium import why_not
from fangxin.data.pending import Done, Pending
from fangxin.data.vocabulary import Collection, Erasure, Meter, Order, Positions, Rows, Unit, shown

PLANTING = "plant"  # the batch name under which plants leave records
REHEARSING = "rehearse"  # and rehearsals


class Known(Protocol):
    """What is known of a table: its columns by name."""

    @property
    def columns(self) -> Mapping[str, Any]:
        """The columns, in the table's order."""

    def require(self, column: str, where: str) -> object:
        """Raise StoreUnavailable if the column is not there; `where` is the catalog's line."""


Connection = TypeVar("Connection")
Table = TypeVar("Table", bound=Known)


class DatabaseFiles(ABC, Generic[Connection, Table]):
    """Database files below a root; `url` is one file or a folder whose databases the collections' globs name."""

    kind: ClassVar[str]
    wals: ClassVar[tuple[str, ...]]  # ends of the files beside a database that hold committed rows
    sidecars: ClassVar[tuple[str, ...]]  # ends of everything that the engine keeps beside a database: never units

    def __init__(self, root: Path, url: str, collections: tuple[Collection, ...], meter: Meter) -> None:
        self.name = f"{self.kind}:{url}"
        self.collections = collections
        self.meter = meter
        place = root / url
        if not place.resolve().is_relative_to(root.resolve()):
            where = collections[0].where if collections else ""
            raise CatalogError(f"{where}: store.url {url!r} leaves the catalog's root; expected a path below it")
        self._file = None if place.is_dir() else place
        self.root = place if self._file is None else place.parent
        self.pending = Pending(self.root, store=self.name)
        self._seen: dict[tuple[Unit, str], Table] = {}
        self.conceded = False  # that the one file is gone: then it is no unit, else every look is refused

    # ------------------------------------------------------------ what an engine brings

    @abstractmethod
    def _reading(self, unit: Unit, *, counted: bool = True) -> contextlib.AbstractContextManager[Connection]:
        """Open a database read-only; every way in which the engine refuses becomes StoreUnavailable."""

    @abstractmethod
    def _look(self, db: Connection, unit: str, collection: Collection) -> Table:
        """Read what there is to know of a collection's table."""

    @abstractmethod
    def _stream(
        self, db: Connection, unit: str, table: Table, names: Sequence[str], positions: Positions | None
    ) -> Iterator[Rows]:
        """Yield these columns of all rows, or of those at the positions, up to 65,536 rows at a time."""

    @abstractmethod
    def _sound(self, path: Path, unit: str, *, for_writing: bool) -> None:
        """Raise StoreUnavailable unless the file is a whole database of this engine that may be used."""

    @abstractmethod
    def _carry_out(self, order: Order, batch: str) -> Done:
        """Lock a database, change a copy as ordered, publish the copy, destroy what was."""

    @abstractmethod
    def _told(self, done: Done) -> Erasure:
        """Say what happened to a unit, from the note kept with its record."""

    # ------------------------------------------------------------ what is there

    @property
    def gone(self) -> bool:
        """Whether the one file that the catalog names is not there."""
        return self._file is not None and not self._file.exists() and not self._file.is_symlink()

    def units(self, collection: Collection | None = None) -> tuple[Unit, ...]:
        """Every database (of one collection), sorted by name; a WAL that holds something counts to its state."""
        wanted = self.collections if collection is None else (collection,)
        paths = {path for one in wanted for path in self._paths(one)}
        return tuple(self._state(path) for path in sorted(paths))

    def scan(
        self, wanted: Mapping[str, Sequence[str]], units: Sequence[str] | None = None
    ) -> Iterator[tuple[str, Rows]]:
        """Yield (address, rows) with the wanted columns, up to 65,536 rows at a time."""
        for unit in self.units():
            here = [c for c in self._collections(unit.name) if c.address in wanted]
            if not here or (units is not None and unit.name not in units):
                continue
            with self._reading(unit) as db:
                for one in here:
                    table = self._table(db, unit, one)
                    for field in wanted[one.address]:
                        table.require(field, one.where)
                    for rows in self._stream(db, unit.name, table, tuple(wanted[one.address]), None):
                        yield one.address, rows

    def take(self, wanted: Mapping[str, Mapping[str, Positions]]) -> Iterator[tuple[str, Rows]]:
        """Yield every column of the rows at the given rowids."""
        for unit in self.units():
            here = [c for c in self._collections(unit.name) if unit.name in wanted.get(c.address, {})]
            if not here:
                continue
            with self._reading(unit) as db:
                for one in here:
                    table = self._table(db, unit, one)
                    chosen = wanted[one.address][unit.name]
                    for rows in self._stream(db, unit.name, table, tuple(table.columns), chosen):
                        yield one.address, rows

    def examine(self) -> Mapping[str, str]:
        """Per database: "" where its bytes can be overwritten, else why not."""
        return {unit.name: why_not(self.root / unit.name) for unit in self.units()}

    def files(self) -> tuple[Path, ...]:
        """Databases, what the engine keeps beside them, and everything pending."""
        units = [self.root / unit.name for unit in self.units()]
        sidecars = [p for path in units for end in self.sidecars if (p := beside(path, end)).is_file()]
        return tuple(sorted({*units, *sidecars, *self.pending.files()}))

    # ------------------------------------------------------------ what is done

    def erase(self, orders: Sequence[Order], *, batch: str) -> Iterator[Erasure]:
        """Carry out the orders, one database at a time; what this batch already did is reported, not repeated."""
        already = {order.unit.name: self._ready(order.unit, batch) for order in orders}
        for name, done in already.items():  # all of them, before any is changed
            if done is None:
                self._sound(self.root / name, name, for_writing=True)
        for order in orders:
            self.meter.open(self.name, order.unit.name)
            yield self._told(already[order.unit.name] or self._carry_out(order, batch))

    def recover(self, *, batch: str | None) -> None:
        """Finish or undo what a killed run left of this batch (None: of any), of planting and of rehearsing."""
        self.pending.recover(batch=batch)
        self.pending.recover(batch=PLANTING)
        self.pending.recover(batch=REHEARSING)

    def forget(self, *, batch: str) -> None:
        """Drop the records of a batch whose outcomes are in the ledger."""
        self.pending.forget(batch=batch)
        self.pending.forget(batch=PLANTING)

    # ------------------------------------------------------------ parts

    def _paths(self, collection: Collection) -> set[Path]:
        if self._file is not None:
            if self.gone:
                if self.conceded:
                    return set()
                where = f"correct the catalog at {collection.where or 'its url'}, or restore the file"
                away = unavailable if is_away(self._file.parent) else not_there
                what = f"{collection.address}: {self._file.name}"
                raise away(what, "a database file", "nothing", where)
            return {self._file}
        found = self.root.glob(collection.store.glob)
        return {
            p for p in found if not p.name.startswith(".") and not p.name.endswith(self.sidecars) and not p.is_dir()
        }

    def _collections(self, unit: str) -> list[Collection]:
        return [c for c in self.collections if self.root / unit in self._paths(c)]

    def _state(self, path: Path) -> Unit:
        """What identifies this state of a database: a WAL with something in it is part of it."""
        now = path.lstat()
        name = path.relative_to(self.root).as_posix()
        if name != (text := shown(name)):
            raise unavailable(text, "a name in UTF-8", "other bytes", "rename the file")
        size, changed = now.st_size, now.st_mtime_ns
        for end in self.wals:
            with contextlib.suppress(FileNotFoundError):
                wal = beside(path, end).lstat()
                if wal.st_size:
                    size, changed = size + wal.st_size, max(changed, wal.st_mtime_ns)
        return Unit(name, size, changed, now.st_dev, now.st_ino)

    def _as_located(self, unit: Unit) -> bool:
        """Whether nobody wrote the unit since it was located."""
        path = self.root / unit.name
        return path.exists() and self._state(path) == unit

    def _ready(self, unit: Unit, batch: str) -> Done | None:
        """Raise unless the unit is as it was located, or return what this batch already did to it."""
        if self._as_located(unit):
            return None
        if (done := self.pending.outcome(self.root / unit.name, batch=batch)) is not None:
            return done
        raise UnitChanged(f"{unit.name}: it changed since it was located", hint="locate again")

    def _table(self, db: Connection, unit: Unit, collection: Collection) -> Table:
        """What is known of a collection's table in this state of the unit; looked at once."""
        key = (unit, collection.name)
        if key not in self._seen:
            self._seen = {k: t for k, t in self._seen.items() if k[0].name != unit.name or k[0] == unit}
            self._seen[key] = self._look(db, unit.name, collection)
        return self._seen[key]

    def _where(
        self, collection: Collection, names: Sequence[str], so: Callable[[Table, Sequence[str]], object]
    ) -> tuple[str, ...]:
        """The databases for whose table something is so of those of the columns that it has."""
        found = []
        for unit in self.units(collection):
            with self._reading(unit, counted=False) as db:
                table = self._table(db, unit, collection)
            if so(table, [name for name in names if name in table.columns]):
                found.append(unit.name)
        return tuple(found)

    def _newcomers(
        self,
        rows: Sequence[tuple[Collection, Mapping[str, Any]]],  # Any: a value of any column type
    ) -> dict[Unit, list[tuple[Collection, Mapping[str, Any]]]]:
        """Each row with the database it goes to: the first of its collection."""
        here: dict[Unit, list[tuple[Collection, Mapping[str, Any]]]] = {}
        for collection, row in rows:
            units = self.units(collection)
            if not units:
                raise unavailable(
                    collection.address, "a database to add a row to", "none", "see the catalog's url and glob"
                )
            here.setdefault(units[0], []).append((collection, row))
        return here


def plain_file(path: Path, unit: str, *, for_writing: bool) -> os.stat_result:
    """Raise StoreUnavailable unless the path is a regular file with one name that we may use as asked."""
    try:
        now = path.lstat()
    except OSError:
        raise unavailable(unit, "a database file", "nothing", "correct the catalog or restore the file") from None
    if not stat.S_ISREG(now.st_mode):
        found = "a symbolic link" if stat.S_ISLNK(now.st_mode) else "no regular file"
        raise unavailable(unit, "a plain file", found, "give the catalog the real file")
    if now.st_nlink > 1:
        raise unavailable(unit, "a file with one name", f"{now.st_nlink} names (hard links)", "remove the others")
    if not os.access(path, os.R_OK):
        raise unavailable(unit, "a readable file", "no permission", "make it readable for us")
    writable = os.access(path, os.W_OK) and now.st_mode & 0o222 and os.access(path.parent, os.W_OK)
    if for_writing and not writable:  # root may write anything: whoever made it read-only meant it
        raise unavailable(unit, "a writable file and folder", "read-only", "make them writable for us")
    return now


def beside(path: Path, end: str) -> Path:
    """The file that an engine keeps beside a database."""
    return path.with_name(path.name + end)


def quoted(name: str) -> str:
    """A name of a table or column as SQL, whatever characters it has."""
    return '"' + name.replace('"', '""') + '"'


def is_away(folder: Path) -> bool:
    """Whether a folder is not there, or empty as a mount point is without its device: then the catalog may be right."""
    return next(folder.iterdir(), None) is None if folder.is_dir() else True


def not_there(what: str, expected: str, found: str, hint: str) -> NotAsCatalogued:
    """The error for what the catalog names and a store that can be used does not have."""
    return NotAsCatalogued(f"{what}: expected {expected}, found: {found}", hint=hint)


def unavailable(what: str, expected: str, found: str, hint: str) -> StoreUnavailable:
    """The error that says what was expected and found, and what to do."""
    return StoreUnavailable(f"{what}: expected {expected}, found: {found}", hint=hint)

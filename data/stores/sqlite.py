"""SQLite databases as a store: a collection is a table, a unit is a database file, a position is a rowid.

A live database is never half erased: its rows are removed in a private working copy, the survivors are written by
`VACUUM INTO` to a new file, compared with the old one row by row, and published under the old name; then the old
file, its journals, a held WAL and the working copy are destroyed.

* The working copy keeps its journal (PERSIST) and deletes securely; it is destroyed as a whole, journal included, and
  `VACUUM INTO` copies cells, never free space.
* A WAL is checkpointed without truncating and held by a second link, because SQLite unlinks it on closing. So is a
  journal, because SQLite unlinks it on rolling back; one that waits for that (hot) is refused, not rolled back by us.
* Triggers do not fire and foreign keys do not cascade: the order names every row that changes.
* Full-text indexes are rebuilt, sampled statistics (sqlite_stat4) emptied: both keep values of deleted rows.
* Positions are valid for the located state only. Nothing is read from a file that changed since.
"""

# ruff: noqa: S608  -- names of tables and columns are quoted by quoted, values are always bound
from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from fangxin.data.errors import DoesNotHold, NotAllowed, UnitChanged
from fangxin.data.medium import why_not
from fangxin.data.pending import Done, Pending
from fangxin.data.stores.sqlite_rewrite import Work
from fangxin.data.stores.sqlite_tables import (
    SIDECARS,
    Table,
    Value,
    asking,
    begin_writing,
    beside,
    bindable,
    broken,
    connect,
    forgetful,
    look,
    plain_database,
    put_back,
    quietly,
    quoted,
    remember,
    sequences,
    state,
    stream,
    unavailable,
)
from fangxin.data.vocabulary import (
    Capabilities,
    Collection,
    Erasure,
    Meter,
    Method,
    Order,
    Positions,
    Rows,
    Turn,
    Unit,
)

_PLANTING = "plant"  # the batch name under which plants leave records
_REHEARSING = "rehearse"  # and rehearsals


class SqliteStore:
    """Tables of SQLite databases; `url` is one file or a folder whose databases the collections' globs name."""

    kind = "sqlite"
    capabilities = Capabilities(overwrite=True, mask=True, redact=True, plant=True, raw_scan=True)

    def __init__(self, root: Path, url: str, collections: tuple[Collection, ...], meter: Meter) -> None:
        self.name = f"{self.kind}:{url}"
        self.collections = collections
        self.meter = meter
        place = root / url
        self._file = None if place.is_dir() else place
        self.root = place if self._file is None else place.parent
        self.pending = Pending(self.root, store=self.name)
        self._seen: dict[tuple[Unit, str], Table] = {}

    # ------------------------------------------------------------ what is there

    def units(self, collection: Collection | None = None) -> tuple[Unit, ...]:
        """Every database (of one collection), sorted by name; a WAL that holds something counts to its state."""
        wanted = self.collections if collection is None else (collection,)
        paths = {path for one in wanted for path in self._paths(one)}
        return tuple(state(path, self.root) for path in sorted(paths))

    def check(self, *, for_writing: bool) -> None:
        """Open every database once: plain file, SQLite header, whole, tables and columns there, alone if writing."""
        for unit in self.units():
            path = self.root / unit.name
            plain_database(path, unit.name, for_writing=for_writing)
            with self._reading(unit) as db:
                if for_writing and db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                    raise unavailable(unit.name, "a sound database", "damaged pages", "restore it from a backup")
                if for_writing:
                    forgetful(db, unit.name)
                for one in self._collections(unit.name):
                    table = self._table(db, unit, one)
                    for field in one.fields:
                        table.require(field.name, field.where)
            if for_writing:
                why_not(path)  # raises if another process or connection keeps it open

    def fields(self, collection: Collection) -> pa.Schema:
        """The table's columns with the types that its values have; unlike types in two units become text or bytes.

        A column not declared BLOB that holds nothing but blobs is marked as protected.
        """
        found: dict[str, pa.Field] = {}
        for unit in self.units(collection):
            with self._reading(unit, counted=False) as db:
                for name, column in self._table(db, unit, collection).columns.items():
                    known = found.setdefault(name, column.field)
                    if known.type != column.type:
                        mixed = pa.large_binary() if pa.large_binary() in (known.type, column.type) else pa.string()
                        found[name] = pa.field(name, mixed)
                    elif known.metadata and not column.field.metadata and column.kinds:
                        found[name] = column.field
        return pa.schema(list(found.values()))

    def clear(self, collection: Collection, names: Sequence[str]) -> tuple[str, ...]:
        """The databases whose table holds anything but blobs and nulls in one of these columns."""
        found = []
        for unit in self.units(collection):
            with self._reading(unit, counted=False) as db:
                table = self._table(db, unit, collection)
            if table.plain([n for n in names if n in table.columns]):
                found.append(unit.name)
        return tuple(found)

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
                    for rows in stream(db, unit.name, table, tuple(wanted[one.address])):
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
                    ids = remember(db, wanted[one.address][unit.name])
                    only = f" WHERE {table.rowid} IN (SELECT id FROM {ids})"
                    for rows in stream(db, unit.name, table, tuple(table.columns), where=only):
                        yield one.address, rows

    def examine(self) -> Mapping[str, str]:
        """Per database: "" where its bytes can be overwritten, else why not."""
        return {unit.name: why_not(self.root / unit.name) for unit in self.units()}

    def files(self) -> tuple[Path, ...]:
        """Databases, their WALs, journals and shared memory, and everything pending."""
        units = [self.root / unit.name for unit in self.units()]
        sidecars = [p for path in units for end in SIDECARS if (p := beside(path, end)).exists()]
        return tuple(sorted({*units, *sidecars, *self.pending.files()}))

    # ------------------------------------------------------------ what is done

    def rehearse(self, orders: Sequence[Order]) -> None:
        """Carry the orders out in private copies, up to publishing, and destroy those: constraints speak up now.

        The live database is only read. A unit that somebody wrote since it was located is left out: it is located
        again later.
        """
        self.pending.recover(batch=_REHEARSING)
        try:
            for order in orders:
                path = self.root / order.unit.name
                if not path.exists() or state(path, self.root) != order.unit:
                    continue
                plain_database(path, order.unit.name, for_writing=True)
                self.meter.open(self.name, order.unit.name)
                self._rehearse(order, Work(self.pending, path, _REHEARSING))
        finally:
            self.pending.forget(batch=_REHEARSING)

    def _rehearse(self, order: Order, work: Work) -> None:
        unit, table = order.unit.name, ""
        nothing = "this database is as it was; choose another mask in the catalog, or change the table"
        try:
            with asking(unit):
                try:
                    work.look_on()
                    work.copy_out()
                    for change in order.changes:
                        table = f" of table {change.collection.name}"
                        work.apply(change, self._table(work.copy, order.unit, change.collection))
                    table = ""
                    work.prove()
                except sqlite3.Error as refused:
                    if not broken(refused):
                        raise
                    raise NotAllowed(
                        f"{unit}: the new values{table} break a rule of the database", hint=nothing
                    ) from None
        except DoesNotHold as differs:
            if state(self.root / unit, self.root) == order.unit:
                raise NotAllowed(f"rehearsal: {differs.message}", hint=nothing) from None
        finally:
            work.close()

    def erase(self, orders: Sequence[Order], *, batch: str) -> Iterator[Erasure]:
        """Carry out the orders, one database at a time; what this batch already did is reported, not repeated."""
        already = {order.unit.name: self._ready(order.unit, batch) for order in orders}
        for name, done in already.items():  # all of them, before any is changed
            if done is None:
                plain_database(self.root / name, name, for_writing=True)
        for order in orders:
            self.meter.open(self.name, order.unit.name)
            done = already[order.unit.name]
            if done is None:
                with self._live(self.root / order.unit.name, batch) as work:
                    self._ready(order.unit, batch)  # nobody slipped in before the lock
                    work.copy_out()
                    for change in order.changes:
                        work.apply(change, self._table(work.copy, order.unit, change.collection))
                    done = work.publish()
            yield _erasure(done)

    def rewrite(self, fields: Mapping[str, Sequence[str]], turn: Turn, *, batch: str) -> Iterator[Erasure]:
        """Replace whole columns by what `turn` makes of them, in a working copy, then destroy the old bytes."""
        yield from self._exchange(fields, turn, batch, Table.plain, Work.turn)  # blobs are under keys already

    def covered(self, collection: Collection, names: Sequence[str]) -> tuple[str, ...]:
        """The databases whose table holds a blob in one of these columns."""
        found = []
        for unit in self.units(collection):
            with self._reading(unit, counted=False) as db:
                if self._table(db, unit, collection).hidden(names):
                    found.append(unit.name)
        return tuple(found)

    def uncover(self, fields: Mapping[str, Sequence[str]], turn: Turn, *, batch: str) -> Iterator[Erasure]:
        """Replace the blobs of these columns by what `turn` makes of them, as `rewrite` does with what is in clear."""
        yield from self._exchange(fields, turn, batch, Table.hidden, Work.turn_back)

    def _exchange(
        self,
        fields: Mapping[str, Sequence[str]],
        turn: Turn,
        batch: str,
        due: Callable[[Table, Sequence[str]], tuple[str, ...]],
        work_on: Callable[[Work, Collection, Table, Sequence[str], Turn], None],
    ) -> Iterator[Erasure]:
        for unit in self.units():
            here = [c for c in self._collections(unit.name) if fields.get(c.address)]
            if not here:
                continue
            path = self.root / unit.name
            self.meter.open(self.name, unit.name)
            done = self.pending.outcome(path, batch=batch)
            if done is not None:
                yield _erasure(done)
            with self._live(path, batch) as work:
                tables = [(one, self._table(work.live, unit, one)) for one in here]
                names = {one.address: due(table, fields[one.address]) for one, table in tables}
                if not any(names.values()):
                    continue  # done already, and nobody has written since
                work.copy_out()
                for one, table in tables:
                    work_on(work, one, table, names[one.address], turn)
                done = work.publish()
            yield _erasure(done)

    def recover(self, *, batch: str | None) -> None:
        """Finish or undo what a killed run left of this batch (None: of any), of planting and of rehearsing."""
        self.pending.recover(batch=batch)
        self.pending.recover(batch=_PLANTING)
        self.pending.recover(batch=_REHEARSING)

    def forget(self, *, batch: str) -> None:
        """Drop the records of a batch whose outcomes are in the ledger."""
        self.pending.forget(batch=batch)
        self.pending.forget(batch=_PLANTING)

    def plant(self, rows: Sequence[tuple[Collection, Mapping[str, Any]]]) -> None:  # Any: a value of any column type
        """Insert each row into the first database of its collection; NOT NULL columns without a value are filled.

        The journal stays (PERSIST), and a WAL that closing would shed is destroyed: both hold copies of neighbours.
        """
        here: dict[Unit, list[tuple[Collection, Mapping[str, Any]]]] = {}
        for collection, row in rows:
            units = self.units(collection)
            if not units:
                raise unavailable(
                    collection.address, "a database to add a row to", "none", "see the catalog's url and glob"
                )
            here.setdefault(units[0], []).append((collection, row))
        for unit, newcomers in here.items():
            self._plant(unit, newcomers)

    def _plant(self, unit: Unit, rows: Sequence[tuple[Collection, Mapping[str, Any]]]) -> None:
        """Insert rows into one database, in one transaction."""
        path = self.root / unit.name
        plain_database(path, unit.name, for_writing=True)
        self.meter.open(self.name, unit.name)
        held: Path | None = None
        with asking(unit.name), contextlib.closing(connect(path, "rw")) as db:
            wal = begin_writing(db, unit.name)
            counters = sequences(db)
            for collection, row in rows:
                table = self._table(db, unit, collection)
                values: dict[str, Value] = {
                    name: column.filler for name, column in table.columns.items() if column.must_be_filled
                }
                values |= {n: bindable(value) for n, value in row.items() if table.require(n, collection.where)}
                names = ", ".join(quoted(name) for name in values)
                marks = ", ".join("?" * len(values))
                with quietly(db, unit.name):
                    db.execute(f"INSERT INTO {table.sql} ({names}) VALUES ({marks})", tuple(values.values()))
            put_back(db, counters)
            db.execute("COMMIT")
            if wal:
                held = self.pending.hold(beside(path, "-wal"), batch=_PLANTING)
        if held is not None:
            self.pending.discard(held, batch=_PLANTING)
            self.pending.forget(batch=_PLANTING)

    # ------------------------------------------------------------ parts

    def _paths(self, collection: Collection) -> set[Path]:
        if self._file is not None:
            if not self._file.exists() and not self._file.is_symlink():
                raise unavailable(self._file.name, "a database file", "nothing", f"see {collection.where or 'the url'}")
            return {self._file}
        found = self.root.glob(collection.store.glob)
        return {p for p in found if not p.name.startswith(".") and not p.name.endswith(SIDECARS) and not p.is_dir()}

    def _collections(self, unit: str) -> list[Collection]:
        return [c for c in self.collections if self.root / unit in self._paths(c)]

    @contextlib.contextmanager
    def _reading(self, unit: Unit, *, counted: bool = True) -> Iterator[sqlite3.Connection]:
        """Open a database read-only; every way in which SQLite refuses becomes StoreUnavailable."""
        path = self.root / unit.name
        plain_database(path, unit.name, for_writing=False)
        if counted:  # looking at a table's columns is no pass over its rows
            self.meter.open(self.name, unit.name)
        with asking(unit.name), contextlib.closing(connect(path, "ro")) as db:
            yield db

    @contextlib.contextmanager
    def _live(self, path: Path, batch: str) -> Iterator[Work]:
        """Lock a database against everybody; whatever was not published is destroyed on the way out."""
        unit = path.relative_to(self.root).as_posix()
        plain_database(path, unit, for_writing=True)
        with asking(unit):
            work = Work(self.pending, path, batch)
            try:
                work.lock()
                yield work
            finally:
                work.close()

    def _ready(self, unit: Unit, batch: str) -> Done | None:
        """Raise unless the unit is as it was located, or return what this batch already did to it."""
        path = self.root / unit.name
        if path.exists() and state(path, self.root) == unit:
            return None
        if (done := self.pending.outcome(path, batch=batch)) is not None:
            return done
        raise UnitChanged(f"{unit.name}: it changed since it was located", hint="locate again")

    def _table(self, db: sqlite3.Connection, unit: Unit, collection: Collection) -> Table:
        """What is known of a collection's table in this state of the unit; looked at once."""
        key = (unit, collection.name)
        if key not in self._seen:
            self._seen = {k: t for k, t in self._seen.items() if k[0].name != unit.name or k[0] == unit}
            self._seen[key] = look(db, unit.name, collection)
        return self._seen[key]


def _erasure(done: Done) -> Erasure:
    """Say what happened to a unit, from the note kept with its record."""
    method = Method.LOGICAL_DELETE if done.refused else Method.OVERWRITE
    note = done.note
    return Erasure(
        done.unit, method, done.refused, note["before"], note["after"], note["changed"], done.destructions, done.claim
    )

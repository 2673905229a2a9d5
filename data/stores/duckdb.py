"""DuckDB databases as a store: a collection is a table, a unit is a database file, a position is a rowid.

A search of the raw bytes shows nothing in a DuckDB file, before a delete or after one: its values are compressed, and
freed blocks keep them. So the store is opaque, and what it shows instead is how the new file was made
(`data/stores/duckdb_rewrite.py`): survivors only, into a file of our own, compared, published; the old file, its WAL
and what was spilled beside it destroyed.

* Reading never changes a database: it is opened read-only, and a WAL is replayed in memory.
* A row that is planted goes the same way as one that is erased: an insert would free blocks inside the file, and the
  engine may give such blocks back to the file system with people in them.
* Nothing of ours spills: what does not fit in the memory limit is refused.
* A column under keys is a BLOB, and its comment says what it was before.
* Positions are valid for the located state only. Nothing is read from a file that changed since.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fangxin.data.errors import CatalogError, DoesNotHold, NotAllowed, UnitChanged
from fangxin.data.medium import why_not
from fangxin.data.pending import Done, Pending
from fangxin.data.stores.duckdb_rewrite import Work
from fangxin.data.stores.duckdb_tables import (
    SPILL,
    WALS,
    Column,
    Table,
    asking,
    attach,
    beside,
    engine,
    look,
    plain_database,
    schema_of,
    spilled,
    state,
    stream,
    unavailable,
)
from fangxin.data.vocabulary import (
    Capabilities,
    Collection,
    Construction,
    Erasure,
    Meter,
    Method,
    Order,
    Positions,
    Rows,
    Turn,
    Unit,
)

if TYPE_CHECKING:
    import duckdb

_PLANTING = "plant"  # the batch name under which plants leave records
_REHEARSING = "rehearse"  # and rehearsals


class DuckdbStore:
    """Tables of DuckDB databases; `url` is one file or a folder whose databases the collections' globs name."""

    kind = "duckdb"
    capabilities = Capabilities(overwrite=True, mask=True, redact=True, plant=True, raw_scan=False)

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
        self._seen: dict[tuple[Unit, str], tuple[Table, pa.Schema]] = {}

    # ------------------------------------------------------------ what is there

    def units(self, collection: Collection | None = None) -> tuple[Unit, ...]:
        """Every database (of one collection), sorted by name; a WAL that holds something counts to its state."""
        wanted = self.collections if collection is None else (collection,)
        paths = {path for one in wanted for path in self._paths(one)}
        return tuple(state(path, self.root) for path in sorted(paths))

    def check(self, *, for_writing: bool) -> None:
        """Open every database once: plain file, whole, in clear, tables and columns there, alone if writing."""
        for unit in self.units():
            with self._reading(unit, for_writing=for_writing) as db:
                for one in self._collections(unit.name):
                    table, _ = self._table(db, unit, one)
                    for field in one.fields:
                        table.require(field.name, field.where)
            if for_writing:
                why_not(self.root / unit.name)  # raises if another process or connection keeps it open

    def fields(self, collection: Collection) -> pa.Schema:
        """The table's columns as Arrow has them; unlike types in two units become text, or bytes if one is."""
        found: dict[str, pa.Field] = {}
        for unit in self.units(collection):
            with self._reading(unit, counted=False) as db:
                for one in self._table(db, unit, collection)[1]:
                    known = found.setdefault(one.name, one)
                    if known.type != one.type:
                        mixed = pa.large_binary() if pa.large_binary() in (known.type, one.type) else pa.string()
                        found[one.name] = pa.field(one.name, mixed)
        return pa.schema(list(found.values()))

    def clear(self, collection: Collection, names: Sequence[str]) -> tuple[str, ...]:
        """The databases whose table has one of these columns in another type than envelopes have."""
        return self._where(collection, names, lambda column: not column.hidden)

    def covered(self, collection: Collection, names: Sequence[str]) -> tuple[str, ...]:
        """The databases whose table has one of these columns under keys."""
        return self._where(collection, names, lambda column: column.hidden)

    def _where(self, collection: Collection, names: Sequence[str], so: Callable[[Column], bool]) -> tuple[str, ...]:
        found = []
        for unit in self.units(collection):
            with self._reading(unit, counted=False) as db:
                table, _ = self._table(db, unit, collection)
                if any(so(table.columns[name]) for name in names if name in table.columns):
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
                    table, _ = self._table(db, unit, one)
                    for field in wanted[one.address]:
                        table.require(field, one.where)
                    for rows in stream(db, table, tuple(wanted[one.address])):
                        yield one.address, rows

    def take(self, wanted: Mapping[str, Mapping[str, Positions]]) -> Iterator[tuple[str, Rows]]:
        """Yield every column of the rows at the given rowids."""
        for unit in self.units():
            here = [c for c in self._collections(unit.name) if unit.name in wanted.get(c.address, {})]
            if not here:
                continue
            with self._reading(unit) as db:
                for one in here:
                    table, _ = self._table(db, unit, one)
                    for rows in stream(db, table, tuple(table.columns), wanted[one.address][unit.name]):
                        yield one.address, rows

    def examine(self) -> Mapping[str, str]:
        """Per database: "" where its bytes can be overwritten, else why not."""
        return {unit.name: why_not(self.root / unit.name) for unit in self.units()}

    def files(self) -> tuple[Path, ...]:
        """Databases, their WALs, what was spilled beside them, and everything pending."""
        units = [self.root / unit.name for unit in self.units()]
        sidecars = [p for path in units for end in WALS if (p := beside(path, end)).exists()]
        spill = [p for path in units for p in spilled(path)]
        return tuple(sorted({*units, *sidecars, *spill, *self.pending.files()}))

    # ------------------------------------------------------------ what is done

    def rehearse(self, orders: Sequence[Order]) -> None:
        """Build the new file of each order, compare it, and destroy it: constraints speak up now.

        The live database is only read. A unit that somebody wrote since it was located is left out: it is located
        again later.
        """
        self.pending.recover(batch=_REHEARSING)
        try:
            for order in orders:
                path = self.root / order.unit.name
                if not path.exists() or state(path, self.root) != order.unit:
                    continue
                self.meter.open(self.name, order.unit.name)
                try:
                    with self._work(path, _REHEARSING, Work.look_on) as work:
                        self._apply(work, order)
                        work.prove()
                except DoesNotHold as differs:
                    if state(path, self.root) == order.unit:
                        hint = "this database is as it was; choose another mask in the catalog, or change the table"
                        raise NotAllowed(f"rehearsal: {differs.message}", hint=hint) from None
        finally:
            self.pending.forget(batch=_REHEARSING)

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
                self._ready(order.unit, batch)  # nobody slipped in before the lock
                with self._work(self.root / order.unit.name, batch, Work.lock) as work:
                    self._apply(work, order)
                    done = work.publish()
            yield _erasure(done)

    def rewrite(self, fields: Mapping[str, Sequence[str]], turn: Turn, *, batch: str) -> Iterator[Erasure]:
        """Replace whole columns by what `turn` makes of them; columns that are under keys already are left alone."""
        yield from self._exchange(fields, turn, batch, lambda column: not column.hidden)

    def uncover(self, fields: Mapping[str, Sequence[str]], turn: Turn, *, batch: str) -> Iterator[Erasure]:
        """Replace columns of envelopes by what `turn` makes of them, in the type that they had before."""
        yield from self._exchange(fields, turn, batch, lambda column: column.hidden)

    def _exchange(
        self, fields: Mapping[str, Sequence[str]], turn: Turn, batch: str, due: Callable[[Column], bool]
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
            with self._reading(unit, counted=False) as db:
                tables = [(one, self._table(db, unit, one)[0]) for one in here]
            names = {
                one.address: [n for n in fields[one.address] if due(table.require(n, one.where))]
                for one, table in tables
            }
            if not any(names.values()):
                continue  # done already
            with self._work(path, batch, Work.lock) as work:
                work.copy_out()
                for one, table in tables:
                    if names[one.address]:
                        work.turn(one, table, names[one.address], turn)
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
        """Add each row to the first database of its collection; NOT NULL columns without a value are filled."""
        here: dict[Unit, list[tuple[Collection, Mapping[str, Any]]]] = {}
        for collection, row in rows:
            units = self.units(collection)
            if not units:
                raise unavailable(
                    collection.address, "a database to add a row to", "none", "see the catalog's url and glob"
                )
            here.setdefault(units[0], []).append((collection, row))
        for unit, newcomers in here.items():
            self.meter.open(self.name, unit.name)
            with self._work(self.root / unit.name, _PLANTING, Work.lock) as work:
                work.copy_out()
                for collection, row in newcomers:
                    work.plant(look(work.db, unit.name, collection), row, collection.where)
                work.publish()
        self.pending.forget(batch=_PLANTING)

    # ------------------------------------------------------------ parts

    def _paths(self, collection: Collection) -> set[Path]:
        if self._file is not None:
            if not self._file.exists() and not self._file.is_symlink():
                raise unavailable(self._file.name, "a database file", "nothing", f"see {collection.where or 'the url'}")
            return {self._file}
        found = self.root.glob(collection.store.glob)
        return {
            p for p in found if not p.name.startswith(".") and not p.name.endswith((*WALS, SPILL)) and not p.is_dir()
        }

    def _collections(self, unit: str) -> list[Collection]:
        return [c for c in self.collections if self.root / unit in self._paths(c)]

    @contextlib.contextmanager
    def _reading(
        self, unit: Unit, *, counted: bool = True, for_writing: bool = False
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open a database read-only; every way in which DuckDB refuses becomes StoreUnavailable."""
        path = self.root / unit.name
        plain_database(path, unit.name, for_writing=for_writing)
        if counted:  # looking at a table's columns is no pass over its rows
            self.meter.open(self.name, unit.name)
        with asking(unit.name), engine(path) as db:
            attach(db, path, "live", "READ_ONLY")
            yield db

    @contextlib.contextmanager
    def _work(self, path: Path, batch: str, begin: Callable[[Work], None]) -> Iterator[Work]:
        """Open a database for work; whatever was not published is destroyed on the way out."""
        unit = path.relative_to(self.root).as_posix()
        plain_database(path, unit, for_writing=True)
        with asking(unit):
            work = Work(self.pending, path, batch)
            try:
                begin(work)
                yield work
            finally:
                work.close()

    def _apply(self, work: Work, order: Order) -> None:
        work.copy_out()
        for change in order.changes:
            work.apply(change, look(work.db, order.unit.name, change.collection))

    def _ready(self, unit: Unit, batch: str) -> Done | None:
        """Raise unless the unit is as it was located, or return what this batch already did to it."""
        path = self.root / unit.name
        if path.exists() and state(path, self.root) == unit:
            return None
        if (done := self.pending.outcome(path, batch=batch)) is not None:
            return done
        raise UnitChanged(f"{unit.name}: it changed since it was located", hint="locate again")

    def _table(self, db: duckdb.DuckDBPyConnection, unit: Unit, collection: Collection) -> tuple[Table, pa.Schema]:
        """What is known of a collection's table in this state of the unit; looked at once."""
        key = (unit, collection.name)
        if key not in self._seen:
            self._seen = {k: t for k, t in self._seen.items() if k[0].name != unit.name or k[0] == unit}
            table = look(db, unit.name, collection)
            self._seen[key] = (table, schema_of(db, table))
        return self._seen[key]


def _erasure(done: Done) -> Erasure:
    """Say what happened to a unit, from the note kept with its record."""
    note = done.note
    shed = f"; {note['shed']} bytes were given back by the engine before and are not addressable"
    return Erasure(
        done.unit,
        Method.LOGICAL_DELETE if done.refused else Method.OVERWRITE,
        done.refused,
        note["before"],
        note["after"],
        note["changed"],
        done.destructions,
        done.claim + (shed if note["shed"] else ""),
        Construction(**note["built"]),
    )

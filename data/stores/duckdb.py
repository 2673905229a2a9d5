"""DuckDB databases as a store: a collection is a table, a unit a database file, a position the number of rows before.

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
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fangxin.data.errors import DoesNotHold, NotAllowed
from fangxin.data.medium import why_not
from fangxin.data.pending import Done
from fangxin.data.stores.database_files import PLANTING, REHEARSING, DatabaseFiles
from fangxin.data.stores.duckdb_rewrite import Work
from fangxin.data.stores.duckdb_tables import (
    SPILL,
    WALS,
    Column,
    Gaps,
    Table,
    asking,
    look,
    plain_database,
    reader,
    schema_of,
    spilled,
    stream,
)
from fangxin.data.vocabulary import (
    Capabilities,
    Collection,
    Construction,
    Erasure,
    Method,
    Order,
    Positions,
    Rows,
    Turn,
    Unit,
)

if TYPE_CHECKING:
    import duckdb


class DuckdbStore(DatabaseFiles["duckdb.DuckDBPyConnection", Table]):
    """Tables of DuckDB databases; `url` is one file or a folder whose databases the collections' globs name."""

    kind = "duckdb"
    wals = WALS
    sidecars = (*WALS, SPILL)
    capabilities = Capabilities(overwrite=True, mask=True, redact=True, plant=True, raw_scan=False)

    # ------------------------------------------------------------ what is there

    def check(self, *, for_writing: bool) -> None:
        """Open every database once: plain file, whole, in clear, tables and columns there, alone if writing."""
        for unit in self.units():
            with self._reading(unit, for_writing=for_writing) as db:
                for one in self._collections(unit.name):
                    table = self._table(db, unit, one)
                    for field in one.fields:
                        table.require(field.name, field.where)
            if for_writing:
                why_not(self.root / unit.name)  # raises if another process or connection keeps it open

    def fields(self, collection: Collection) -> pa.Schema:
        """The table's columns as Arrow has them; unlike types in two units become text, or bytes if one is."""
        found: dict[str, pa.Field] = {}
        for unit in self.units(collection):
            with self._reading(unit, counted=False) as db:
                for one in schema_of(db, self._table(db, unit, collection)):
                    known = found.setdefault(one.name, one)
                    if known.type != one.type:
                        mixed = pa.large_binary() if pa.large_binary() in (known.type, one.type) else pa.string()
                        found[one.name] = pa.field(one.name, mixed)
        return pa.schema(list(found.values()))

    def clear(self, collection: Collection, names: Sequence[str]) -> tuple[str, ...]:
        """The databases whose table has one of these columns in another type than envelopes have."""
        return self._where(collection, names, lambda table, here: any(not table.columns[n].hidden for n in here))

    def covered(self, collection: Collection, names: Sequence[str]) -> tuple[str, ...]:
        """The databases whose table has one of these columns under keys."""
        return self._where(collection, names, lambda table, here: any(table.columns[n].hidden for n in here))

    def files(self) -> tuple[Path, ...]:
        """Databases, their WALs, what was spilled beside them, and everything pending."""
        spill = [p for unit in self.units() for p in spilled(self.root / unit.name)]
        return tuple(sorted({*super().files(), *spill}))

    # ------------------------------------------------------------ what is done

    def rehearse(self, orders: Sequence[Order]) -> None:
        """Build the new file of each order, compare it, and destroy it: constraints speak up now.

        The live database is only read. A unit that somebody wrote since it was located is left out: it is located
        again later.
        """
        self.pending.recover(batch=REHEARSING)
        try:
            for order in orders:
                path = self.root / order.unit.name
                if not self._as_located(order.unit):
                    continue
                self.meter.open(self.name, order.unit.name)
                try:
                    with self._work(path, REHEARSING, Work.look_on) as work:
                        self._apply(work, order)
                        work.prove()
                except DoesNotHold as differs:
                    if self._as_located(order.unit):
                        hint = "this database is as it was; choose another mask in the catalog, or change the table"
                        raise NotAllowed(f"rehearsal: {differs.message}", hint=hint) from None
        finally:
            self.pending.forget(batch=REHEARSING)

    def _carry_out(self, order: Order, batch: str) -> Done:
        self._ready(order.unit, batch)  # nobody slipped in before the lock
        with self._work(self.root / order.unit.name, batch, Work.lock) as work:
            self._apply(work, order)
            return work.publish()

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
                yield self._told(done)
            with self._reading(unit, counted=False) as db:
                tables = [(one, self._table(db, unit, one)) for one in here]
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
            yield self._told(done)

    def plant(self, rows: Sequence[tuple[Collection, Mapping[str, Any]]]) -> None:  # Any: a value of any column type
        """Add each row to the first database of its collection; NOT NULL columns without a value are filled."""
        for unit, newcomers in self._newcomers(rows).items():
            self.meter.open(self.name, unit.name)
            with self._work(self.root / unit.name, PLANTING, Work.lock) as work:
                work.copy_out()
                for collection, row in newcomers:
                    work.plant(look(work.db, unit.name, collection), row, collection.where)
                work.publish()
        self.pending.forget(batch=PLANTING)

    # ------------------------------------------------------------ parts

    @contextlib.contextmanager
    def _reading(
        self, unit: Unit, *, counted: bool = True, for_writing: bool = False
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open a database read-only; every way in which DuckDB refuses becomes StoreUnavailable."""
        path = self.root / unit.name
        plain_database(path, unit.name, for_writing=for_writing)
        if counted:  # looking at a table's columns is no pass over its rows
            self.meter.open(self.name, unit.name)
        with asking(unit.name), reader(path) as db:
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

    def _sound(self, path: Path, unit: str, *, for_writing: bool) -> None:
        plain_database(path, unit, for_writing=for_writing)

    def _look(self, db: duckdb.DuckDBPyConnection, unit: str, collection: Collection) -> Table:
        return look(db, unit, collection)

    def _stream(
        self, db: duckdb.DuckDBPyConnection, unit: str, table: Table, names: Sequence[str], positions: Positions | None
    ) -> Iterator[Rows]:
        gaps = Gaps.of(db, table)
        for rows in stream(db, table, names, None if positions is None else gaps.ids(positions)):
            yield replace(rows, positions=gaps.positions(rows.positions))

    def _told(self, done: Done) -> Erasure:
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

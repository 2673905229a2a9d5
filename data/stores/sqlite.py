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

from fangxin.data.errors import DoesNotHold, NotAllowed
from fangxin.data.medium import why_not
from fangxin.data.pending import Done
from fangxin.data.stores.database_files import PLANTING, REHEARSING, DatabaseFiles, beside, quoted, unavailable
from fangxin.data.stores.sqlite_rewrite import Work
from fangxin.data.stores.sqlite_tables import (
    Table,
    Value,
    asking,
    begin_writing,
    bindable,
    broken,
    connect,
    forgetful,
    look,
    plain_database,
    put_back,
    quietly,
    remember,
    sequences,
    stream,
)
from fangxin.data.vocabulary import (
    Capabilities,
    Collection,
    Erasure,
    Method,
    Order,
    Positions,
    Rows,
    Turn,
    Unit,
)


class SqliteStore(DatabaseFiles[sqlite3.Connection, Table]):
    """Tables of SQLite databases; `url` is one file or a folder whose databases the collections' globs name."""

    kind = "sqlite"
    wals = ("-wal",)
    sidecars = ("-wal", "-journal", "-shm")
    capabilities = Capabilities(overwrite=True, mask=True, redact=True, plant=True, raw_scan=True)

    # ------------------------------------------------------------ what is there

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
        return self._where(collection, names, Table.plain)

    def covered(self, collection: Collection, names: Sequence[str]) -> tuple[str, ...]:
        """The databases whose table holds a blob in one of these columns."""
        return self._where(collection, names, Table.hidden)

    # ------------------------------------------------------------ what is done

    def rehearse(self, orders: Sequence[Order]) -> None:
        """Carry the orders out in private copies, up to publishing, and destroy those: constraints speak up now.

        The live database is only read. A unit that somebody wrote since it was located is left out: it is located
        again later.
        """
        self.pending.recover(batch=REHEARSING)
        try:
            for order in orders:
                path = self.root / order.unit.name
                if not self._as_located(order.unit):
                    continue
                plain_database(path, order.unit.name, for_writing=True)
                self.meter.open(self.name, order.unit.name)
                self._rehearse(order, Work(self.pending, path, REHEARSING))
        finally:
            self.pending.forget(batch=REHEARSING)

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
            if self._as_located(order.unit):
                raise NotAllowed(f"rehearsal: {differs.message}", hint=nothing) from None
        finally:
            work.close()

    def _carry_out(self, order: Order, batch: str) -> Done:
        with self._live(self.root / order.unit.name, batch) as work:
            self._ready(order.unit, batch)  # nobody slipped in before the lock
            work.copy_out()
            for change in order.changes:
                work.apply(change, self._table(work.copy, order.unit, change.collection))
            return work.publish()

    def rewrite(self, fields: Mapping[str, Sequence[str]], turn: Turn, *, batch: str) -> Iterator[Erasure]:
        """Replace whole columns by what `turn` makes of them, in a working copy, then destroy the old bytes."""
        yield from self._exchange(fields, turn, batch, Table.plain, Work.turn)  # blobs are under keys already

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
                yield self._told(done)
            with self._live(path, batch) as work:
                tables = [(one, self._table(work.live, unit, one)) for one in here]
                names = {one.address: due(table, fields[one.address]) for one, table in tables}
                if not any(names.values()):
                    continue  # done already, and nobody has written since
                work.copy_out()
                for one, table in tables:
                    work_on(work, one, table, names[one.address], turn)
                done = work.publish()
            yield self._told(done)

    def plant(self, rows: Sequence[tuple[Collection, Mapping[str, Any]]]) -> None:  # Any: a value of any column type
        """Insert each row into the first database of its collection; NOT NULL columns without a value are filled.

        The journal stays (PERSIST), and a WAL that closing would shed is destroyed: both hold copies of neighbours.
        """
        for unit, newcomers in self._newcomers(rows).items():
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
                held = self.pending.hold(beside(path, "-wal"), batch=PLANTING)
        if held is not None:
            self.pending.discard(held, batch=PLANTING)
            self.pending.forget(batch=PLANTING)

    # ------------------------------------------------------------ parts

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

    def _sound(self, path: Path, unit: str, *, for_writing: bool) -> None:
        plain_database(path, unit, for_writing=for_writing)

    def _look(self, db: sqlite3.Connection, unit: str, collection: Collection) -> Table:
        return look(db, unit, collection)

    def _stream(
        self, db: sqlite3.Connection, unit: str, table: Table, names: Sequence[str], positions: Positions | None
    ) -> Iterator[Rows]:
        only = "" if positions is None else f" WHERE {table.rowid} IN (SELECT id FROM {remember(db, positions)})"
        return stream(db, unit, table, names, where=only)

    def _told(self, done: Done) -> Erasure:
        method = Method.LOGICAL_DELETE if done.refused else Method.OVERWRITE
        note = done.note
        return Erasure(
            done.unit, method, done.refused, note["before"], note["after"], note["changed"], done.destructions,
            done.claim,
        )  # fmt: skip

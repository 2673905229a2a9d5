"""SQLite databases as a store: a collection is a table, a unit is a database file, a position is a rowid.

A live database is never half erased: its rows are removed in a private working copy, the survivors are written by
`VACUUM INTO` to a new file, compared with the old one row by row, and published under the old name; then the old
file, its journals, a held WAL and the working copy are destroyed.

* The working copy keeps no journal at all: it is thrown away on any error, so nothing else is shed.
* A WAL is checkpointed without truncating and held by a second link, because SQLite unlinks it on closing.
* Triggers do not fire and foreign keys do not cascade: the order names every row that changes.
* Full-text indexes are rebuilt, sampled statistics (sqlite_stat4) emptied: both keep values of deleted rows.
* Positions are valid for the located state only. Nothing is read from a file that changed since.
"""

# ruff: noqa: S608  -- names of tables and columns are quoted by _quoted, values are always bound
from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from fangxin.data.errors import DoesNotHold, Incomplete, StoreUnavailable, UnitChanged
from fangxin.data.medium import Done, Pending, why_not
from fangxin.data.vocabulary import (
    Capabilities,
    Change,
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

BATCH = 65536  # rows
BUSY = 1.0  # seconds to wait for another connection's lock
_MAGIC = b"SQLite format 3\x00"
_Value = int | float | str | bytes | None  # what a column of SQLite holds
_HOT = bytes.fromhex("d9d505f920a163d7")  # how a rollback journal begins while it still counts
_SIDECARS = ("-wal", "-journal", "-shm")


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
        self._seen: dict[tuple[Unit, str], _Table] = {}

    # ------------------------------------------------------------ what is there

    def units(self, collection: Collection | None = None) -> tuple[Unit, ...]:
        """Every database (of one collection), sorted by name; a WAL that holds something counts to its state."""
        wanted = self.collections if collection is None else (collection,)
        paths = {path for one in wanted for path in self._paths(one)}
        return tuple(_state(path, self.root) for path in sorted(paths))

    def check(self, *, for_writing: bool) -> None:
        """Open every database once: plain file, SQLite header, whole, tables and columns there, alone if writing."""
        for unit in self.units():
            path = self.root / unit.name
            _plain_database(path, unit.name, for_writing=for_writing)
            with self._reading(unit) as db:
                if for_writing and db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                    raise _unavailable(unit.name, "a sound database", "damaged pages", "restore it from a backup")
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
            with self._reading(unit) as db:
                for name, column in self._table(db, unit, collection).columns.items():
                    known = found.setdefault(name, column.field)
                    if known.type != column.type:
                        mixed = pa.large_binary() if pa.large_binary() in (known.type, column.type) else pa.string()
                        found[name] = pa.field(name, mixed)
                    elif known.metadata and not column.field.metadata and column.kinds:
                        found[name] = column.field
        return pa.schema(list(found.values()))

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
                    for rows in _stream(db, unit.name, table, tuple(wanted[one.address])):
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
                    ids = _remember(db, wanted[one.address][unit.name])
                    only = f" WHERE {table.rowid} IN (SELECT id FROM {ids})"
                    for rows in _stream(db, unit.name, table, tuple(table.columns), where=only):
                        yield one.address, rows

    def examine(self) -> Mapping[str, str]:
        """Per database: "" where its bytes can be overwritten, else why not."""
        return {unit.name: why_not(self.root / unit.name) for unit in self.units()}

    def files(self) -> tuple[Path, ...]:
        """Databases, their WALs, journals and shared memory, and everything pending."""
        units = [self.root / unit.name for unit in self.units()]
        beside = [p for path in units for end in _SIDECARS if (p := _beside(path, end)).exists()]
        return tuple(sorted({*units, *beside, *self.pending.files()}))

    # ------------------------------------------------------------ what is done

    def erase(self, orders: Sequence[Order], *, batch: str) -> Iterator[Erasure]:
        """Carry out the orders, one database at a time; what this batch already did is reported, not repeated."""
        already = {order.unit.name: self._ready(order.unit, batch) for order in orders}
        for name, done in already.items():  # all of them, before any is changed
            if done is None:
                _plain_database(self.root / name, name, for_writing=True)
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
        for unit in self.units():
            here = [c for c in self._collections(unit.name) if fields.get(c.address)]
            if not here:
                continue
            path = self.root / unit.name
            self.meter.open(self.name, unit.name)
            done = self.pending.outcome(path, batch=batch)
            if done is None:
                with self._live(path, batch) as work:
                    tables = [(one, self._table(work.live, unit, one)) for one in here]
                    plain = {one.address: table.plain(fields[one.address]) for one, table in tables}
                    if not any(plain.values()):
                        continue  # under keys already
                    work.copy_out()
                    for one, table in tables:
                        work.turn(one, table, plain[one.address], turn)
                    done = work.publish()
            yield _erasure(done)

    def recover(self, *, batch: str) -> None:
        """Finish or undo what a killed run left."""
        self.pending.recover(batch=batch)

    def forget(self, *, batch: str) -> None:
        """Drop the records of a batch whose outcomes are in the ledger."""
        self.pending.forget(batch=batch)

    def plant(self, collection: Collection, row: Mapping[str, Any]) -> None:  # Any: a value of any column type
        """Insert one row into the first database of the collection; NOT NULL columns without a value are filled.

        The journal stays (PERSIST), and a WAL that closing would shed is destroyed: both hold copies of neighbours.
        """
        units = self.units(collection)
        if not units:
            raise _unavailable(
                collection.address, "a database to add a row to", "none", "see the catalog's url and glob"
            )
        unit = units[0]
        path = self.root / unit.name
        _plain_database(path, unit.name, for_writing=True)
        self.meter.open(self.name, unit.name)
        held: Path | None = None
        with _asking(unit.name), contextlib.closing(_connect(path, "rw")) as db:
            wal = _begin_writing(db, unit.name)
            table = self._table(db, unit, collection)
            values: dict[str, _Value] = {
                name: column.filler for name, column in table.columns.items() if column.must_be_filled
            }
            values |= {name: _bindable(value) for name, value in row.items() if table.require(name, collection.where)}
            names = ", ".join(_quoted(name) for name in values)
            marks = ", ".join("?" * len(values))
            db.execute(f"INSERT INTO {table.sql} ({names}) VALUES ({marks})", tuple(values.values()))
            db.execute("COMMIT")
            if wal:
                held = self.pending.hold(_beside(path, "-wal"), batch="plant")
        if held is not None:
            self.pending.discard(held, batch="plant")
            self.pending.forget(batch="plant")

    # ------------------------------------------------------------ parts

    def _paths(self, collection: Collection) -> set[Path]:
        if self._file is not None:
            if not self._file.exists() and not self._file.is_symlink():
                raise _unavailable(
                    self._file.name, "a database file", "nothing", f"see {collection.where or 'the url'}"
                )
            return {self._file}
        found = self.root.glob(collection.store.glob)
        return {p for p in found if not p.name.startswith(".") and not p.name.endswith(_SIDECARS) and not p.is_dir()}

    def _collections(self, unit: str) -> list[Collection]:
        return [c for c in self.collections if self.root / unit in self._paths(c)]

    @contextlib.contextmanager
    def _reading(self, unit: Unit) -> Iterator[sqlite3.Connection]:
        """Open a database read-only; every way in which SQLite refuses becomes StoreUnavailable."""
        path = self.root / unit.name
        _plain_database(path, unit.name, for_writing=False)
        self.meter.open(self.name, unit.name)
        with _asking(unit.name), contextlib.closing(_connect(path, "ro")) as db:
            yield db

    @contextlib.contextmanager
    def _live(self, path: Path, batch: str) -> Iterator[_Work]:
        """Lock a database against everybody; whatever was not published is destroyed on the way out."""
        unit = path.relative_to(self.root).as_posix()
        _plain_database(path, unit, for_writing=True)
        with _asking(unit):
            work = _Work(self.pending, path, batch)
            try:
                work.lock(unit)
                yield work
            finally:
                work.close()

    def _ready(self, unit: Unit, batch: str) -> Done | None:
        """Raise unless the unit is as it was located, or return what this batch already did to it."""
        path = self.root / unit.name
        if path.exists() and _state(path, self.root) == unit:
            return None
        if (done := self.pending.outcome(path, batch=batch)) is not None:
            return done
        raise UnitChanged(f"{unit.name}: it changed since it was located", hint="locate again")

    def _table(self, db: sqlite3.Connection, unit: Unit, collection: Collection) -> _Table:
        """What is known of a collection's table in this state of the unit; looked at once."""
        key = (unit, collection.name)
        if key not in self._seen:
            self._seen = {k: t for k, t in self._seen.items() if k[0].name != unit.name or k[0] == unit}
            self._seen[key] = _look(db, unit.name, collection)
        return self._seen[key]


# ---------------------------------------------------------------- one database being rewritten


class _Work:
    """A locked live database, its private working copy, and the file that will take its name."""

    def __init__(self, pending: Pending, path: Path, batch: str) -> None:
        self.pending, self.path, self.batch = pending, path, batch
        self.unit = path.relative_to(pending.root).as_posix()
        self.also: list[Path] = []  # what dies with the old file
        self.stack = contextlib.ExitStack()
        self.live: sqlite3.Connection
        self.copy: sqlite3.Connection
        self.wal = False
        self.ours: list[Path] = []  # scratches not yet handed over
        self.drops: dict[str, Positions] = {}  # by table
        self.changes: dict[str, dict[str, Positions]] = {}  # by table and column
        self.whole: set[tuple[str, str]] = set()  # (table, column) replaced in every row
        self.note: dict[str, dict[str, int]] = {"before": {}, "after": {}, "changed": {}}

    def lock(self, unit: str) -> None:
        """Take the exclusive lock; hold the WAL first, because SQLite drops it when the last connection closes."""
        wal = _beside(self.path, "-wal")
        if wal.exists() and wal.stat().st_size:
            self.ours.append(self.pending.hold(wal, batch=self.batch))
        self.live = self.stack.enter_context(contextlib.closing(_connect(self.path, "rw")))
        self.live.execute("PRAGMA locking_mode=EXCLUSIVE")
        self.wal = self.live.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        self.live.execute("BEGIN EXCLUSIVE")
        self.live.execute("COMMIT")  # the lock stays in this locking mode

    def copy_out(self) -> None:
        """Settle the WAL and copy every page, through the locked connection, into a scratch without a journal."""
        if self.wal:
            busy, log, moved = self.live.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
            if busy or log != moved:
                raise _unavailable(self.unit, "its whole WAL in the database", "a busy WAL", "close its readers")
        self.seen = self.path.stat()
        scratch = self._scratch()
        self.copy = self.stack.enter_context(contextlib.closing(_connect(scratch, "rwc")))
        self.copy.execute("PRAGMA synchronous=OFF")  # thrown away on any error
        self.copy.execute("PRAGMA journal_mode=OFF")
        self.live.backup(self.copy, pages=4096)
        if self.copy.execute("PRAGMA journal_mode=OFF").fetchone()[0] != "off":
            raise DoesNotHold(f"{self.unit}: its working copy insists on a journal")
        self.copy.execute("PRAGMA locking_mode=EXCLUSIVE")
        self.copy.execute("PRAGMA foreign_keys=OFF")
        self.triggers = [row[0] for row in self.copy.execute("SELECT sql FROM sqlite_master WHERE type='trigger'")]
        for (name,) in self.copy.execute("SELECT name FROM sqlite_master WHERE type='trigger'").fetchall():
            self.copy.execute(f"DROP TRIGGER {_quoted(name)}")

    def apply(self, change: Change, table: _Table) -> None:
        """Delete and replace what one change says, in the working copy."""
        address, db = change.collection.address, self.copy
        self.note["before"][address] = _count(db, table.sql)
        db.execute("BEGIN")
        drop = _remember(db, change.drop)
        gone = db.execute(f"DELETE FROM {table.sql} WHERE {table.rowid} IN (SELECT id FROM {drop})").rowcount
        if gone != len(np.unique(change.drop)):
            raise UnitChanged(f"{self.unit}: rows that were located are not there any more", hint="locate again")
        self._expect(table, None, change.drop)
        for name, blank in change.blank.items():
            table.require(name, change.collection.where)
            ids = _remember(db, blank.positions)
            db.execute(
                f"UPDATE {table.sql} SET {_quoted(name)} = ? WHERE {table.rowid} IN (SELECT id FROM {ids})",
                (blank.filler,),
            )
            self._expect(table, name, blank.positions)
        for name, redaction in change.redact.items():
            table.require(name, change.collection.where)
            column = _quoted(name)
            texts = redaction.texts.to_pylist()
            longest_first = np.argsort([-len(text) for text in texts], kind="stable")  # one text may hold another
            db.executemany(
                f"UPDATE {table.sql} SET {column} = replace({column}, ?1, ?2) "
                f"WHERE {table.rowid} = ?3 AND instr({column}, ?1)",
                ((texts[i], redaction.filler, int(redaction.positions[i])) for i in longest_first),
            )
            self._expect(table, name, redaction.positions)
        db.execute("COMMIT")
        touched = [b.positions for b in change.blank.values()] + [r.positions for r in change.redact.values()]
        self.note["changed"][address] = len(np.unique(np.concatenate(touched))) if touched else 0
        self.note["after"][address] = _count(db, table.sql)

    def turn(self, collection: Collection, table: _Table, names: Sequence[str], turn: Turn) -> None:
        """Replace whole columns: read the locked original, write the working copy. Blobs are under keys already."""
        half = [name for name in names if "blob" in table.columns[name].kinds]
        whole = [name for name in names if name not in half]
        changed = 0
        for group in ([whole] if whole else []) + [[name] for name in half]:
            changed = max(changed, self._turn(collection, table.without_blobs(group), group, turn))
            self.whole |= {(table.name, name) for name in group}
        rows = _count(self.copy, table.sql)
        for key, number in (("before", rows), ("after", rows), ("changed", changed)):
            self.note[key][collection.address] = number

    def _turn(self, collection: Collection, table: _Table, names: Sequence[str], turn: Turn) -> int:
        """Replace these columns in the rows where one of them is neither null nor a blob; return how many."""
        plain = " OR ".join(f"typeof({_quoted(name)}) NOT IN ('blob', 'null')" for name in names)
        sets = ", ".join(f"{_quoted(name)} = ?" for name in names)
        rows = 0
        self.copy.execute("BEGIN")
        for batch in _stream(self.live, self.unit, table, tuple(table.columns), where=f" WHERE {plain}"):
            turned = turn(collection, batch.columns)
            values = [turned.column(name).to_pylist() for name in names]
            self.copy.executemany(
                f"UPDATE {table.sql} SET {sets} WHERE {table.rowid} = ?",
                zip(*values, batch.positions.tolist(), strict=True),
            )
            rows += len(batch.positions)
        self.copy.execute("COMMIT")
        return rows

    def publish(self) -> Done:
        """Write the survivors afresh, compare them with the original, publish, and destroy all that came before."""
        _settle_indexes(self.copy)
        for sql in self.triggers:
            self.copy.execute(sql)
        self.copy.execute("PRAGMA temp_store=MEMORY")
        new = self._scratch()
        self.copy.execute("VACUUM INTO ?", (os.fspath(new),))
        with contextlib.closing(_connect(new, "rw")) as db:
            if (found := db.execute("PRAGMA integrity_check(1)").fetchone()[0]) != "ok":
                raise DoesNotHold(f"{self.unit}: the rewritten database is damaged", hint=str(found)[:80])
        self._compare(new)
        if self.wal:
            with contextlib.closing(_connect(new, "rw")) as db:
                db.execute("PRAGMA journal_mode=WAL")
        self.stack.close()  # our own connections would count as somebody who has it open
        aside = [_beside(self.path, end) for end in ("-journal", "-shm")]
        copies = [p for p in self.ours if p != new]
        try:
            done = self.pending.replace(
                new,
                self.path,
                batch=self.batch,
                note=self.note,
                also=[*(p for p in aside if p.exists()), *copies],
                seen=self.seen,
                absent=[_beside(self.path, "-wal")],
            )
        except Incomplete:  # published: what is left belongs to the journal now
            self.ours.clear()
            raise
        self.ours.clear()
        return done

    def close(self) -> None:
        """Close the connections and destroy the scratches that were not handed over."""
        self.stack.close()
        for path in self.ours:
            self.pending.discard(path, batch=self.batch)
        self.ours.clear()

    def _scratch(self) -> Path:
        path = self.pending.scratch(self.path, batch=self.batch)
        self.ours.append(path)
        return path

    def _expect(self, table: _Table, column: str | None, positions: Positions) -> None:
        """Remember which rows (None: are dropped; else: may differ in this column), for the comparison."""
        known = self.drops if column is None else self.changes.setdefault(table.name, {})
        key = table.name if column is None else column
        known[key] = np.union1d(known[key], positions) if key in known else positions

    def _compare(self, new: Path) -> None:
        """Raise DoesNotHold unless every row that was not ordered to change is in the new file as it was."""
        db = self.live
        db.execute("PRAGMA temp_store=MEMORY")
        db.execute("ATTACH ? AS survivors", (f"{new.absolute().as_uri()}?mode=ro",))
        schema = "SELECT type, name, tbl_name, sql FROM {}.sqlite_master"
        for one, other in (("main", "survivors"), ("survivors", "main")):
            if db.execute(f"{schema.format(one)} EXCEPT {schema.format(other)}").fetchone():
                raise DoesNotHold(f"{self.unit}: tables or indexes are not the same after rewriting")
        for pragma in ("user_version", "application_id", "page_size", "auto_vacuum", "encoding"):
            values = {db.execute(f"PRAGMA {where}.{pragma}").fetchone()[0] for where in ("main", "survivors")}
            if len(values) != 1:
                raise DoesNotHold(f"{self.unit}: {pragma} is not the same after rewriting")
        for name in _plain_tables(db):
            before, after, same = self._same(db, name)
            if not (before == after == same):
                raise DoesNotHold(
                    f"{self.unit}: expected {before} rows of {name} to survive unchanged, found {same} of {after}",
                    hint="nothing was published; the old database is as it was",
                )
        db.execute("DETACH survivors")

    def _same(self, db: sqlite3.Connection, name: str) -> tuple[int, int, int]:
        """(rows expected to survive, rows there, rows that are the same but for declared changes) of one table."""
        columns = [row[1] for row in db.execute(f"PRAGMA main.table_xinfo({_quoted(name)})")]
        keys = _row_key(db, name, columns)
        clauses = [f"o.{key} = n.{key}" for key in keys]
        for column in columns:
            q = _quoted(column)
            equal = f"(o.{q} COLLATE BINARY IS n.{q} AND typeof(o.{q}) = typeof(n.{q}))"
            positions = self.changes.get(name, {}).get(column)
            if positions is not None:
                clauses.append(f"({equal} OR o.{keys[0]} IN (SELECT id FROM {_remember(db, positions)}))")
            elif (name, column) not in self.whole:
                clauses.append(equal)
        table = _quoted(name)
        before = _count(db, f"main.{table}")
        if name in self.drops:
            gone = _remember(db, self.drops[name])
            clauses.append(f"o.{keys[0]} NOT IN (SELECT id FROM {gone})")
            before -= _count(db, gone)
        same = _count(db, f"main.{table} o JOIN survivors.{table} n ON {' AND '.join(clauses)}")
        return before, _count(db, f"survivors.{table}"), same


# ---------------------------------------------------------------- tables and columns


class _Column:
    """A column as it is stored: the Arrow type its values fit, and how to select them so."""

    def __init__(self, name: str, declared: str, kinds: set[str], *, must_be_filled: bool) -> None:
        self.name, self.declared, self.kinds, self.must_be_filled = name, declared.upper(), kinds, must_be_filled
        self.type = _arrow_type(self.declared, kinds)
        protected = kinds == {"blob"} and bool(declared) and "BLOB" not in self.declared
        self.field = pa.field(name, self.type, metadata={"fangxin.protected": "1"} if protected else None)
        q = _quoted(name)
        mixed = len(kinds) > 1
        if mixed and self.type == pa.large_binary():
            self.sql = f"CAST({q} AS BLOB)"
        elif mixed and self.type == pa.string():
            self.sql = f"CAST({q} AS TEXT)"
        else:
            self.sql = q

    @property
    def filler(self) -> int | float | str | bytes:
        """What fills a NOT NULL column nobody gave a value for."""
        if self.type == pa.int64():
            return 0
        if self.type == pa.float64():
            return 0.0
        return b"" if self.type == pa.large_binary() else ""


class _Table:
    """A table with rowids: how to name it in SQL, its rowid, and its columns."""

    def __init__(self, unit: str, name: str, rowid: str, columns: Mapping[str, _Column]) -> None:
        self.unit, self.name, self.rowid, self.columns = unit, name, rowid, columns
        self.sql = _quoted(name)

    def plain(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those of the columns that hold values in the clear."""
        for name in names:
            self.require(name, "")
        return tuple(name for name in names if self.columns[name].kinds - {"blob"})

    def without_blobs(self, names: Sequence[str]) -> _Table:
        """The same table, reading only the plain values of these columns."""
        columns = dict(self.columns)
        for name in names:
            old = columns[name]
            columns[name] = _Column(name, old.declared, old.kinds - {"blob"}, must_be_filled=old.must_be_filled)
        return _Table(self.unit, self.name, self.rowid, columns)

    def require(self, column: str, where: str) -> bool:
        """Raise StoreUnavailable if the column is not there; `where` is the catalog's line."""
        if column not in self.columns:
            raise _unavailable(
                self.unit,
                f"column {column} in table {self.name}",
                ", ".join(self.columns),
                f"correct the catalog{f' at {where}' if where else ''}",
            )
        return True


def _look(db: sqlite3.Connection, unit: str, collection: Collection) -> _Table:
    """Read a table's columns and the types its values really have (SQLite's columns hold anything)."""
    name = collection.name
    kind = db.execute("SELECT type, wr FROM pragma_table_list WHERE schema = 'main' AND name = ?", (name,)).fetchone()
    fix = f"correct the catalog at {collection.where}" if collection.where else "correct the catalog"
    if kind is None:
        raise _unavailable(unit, f"table {name}", "no such table", fix)
    if kind[0] not in ("table", "virtual"):
        raise _unavailable(unit, f"table {name}", f"a {kind[0]}", "name the table behind it in the catalog")
    if kind[1]:
        raise _unavailable(
            unit, f"rowids in table {name}", "WITHOUT ROWID", "its rows cannot be addressed; recreate it"
        )
    info = db.execute(f"PRAGMA table_xinfo({_quoted(name)})").fetchall()
    info = [row for row in info if row[6] != 1]  # hidden columns of virtual tables
    names = [row[1] for row in info]
    keys = [row for row in info if row[5]]
    alias = len(keys) == 1 and keys[0][2].upper() == "INTEGER"
    rowid = next((r for r in ("rowid", "_rowid_", "oid") if r not in {n.lower() for n in names}), None)
    if rowid is None:
        raise _unavailable(unit, f"rowids in table {name}", "columns of that name", "rename one of the columns")
    kinds: list[set[str]] = [set() for _ in names]
    types = ", ".join(f"typeof({_quoted(n)})" for n in names)
    for combination in db.execute(f"SELECT DISTINCT {types} FROM {_quoted(name)}"):
        for found, one in zip(kinds, combination, strict=True):
            found.add(one)
    columns = {
        row[1]: _Column(
            row[1],
            row[2],
            found - {"null"},
            must_be_filled=bool(row[3] or (row[5] and not alias)) and row[4] is None and row[6] == 0,
        )
        for row, found in zip(info, kinds, strict=True)
    }
    return _Table(unit, name, rowid, columns)


def _arrow_type(declared: str, kinds: set[str]) -> pa.DataType:
    """The Arrow type that holds all values of a column: what is stored decides, the declaration if all is null."""
    if "blob" in kinds:
        return pa.large_binary()
    if "text" in kinds:
        return pa.string()
    if kinds == {"integer"}:
        return pa.int64()
    if kinds == {"real"}:
        return pa.float64()
    if (
        kinds
    ):  # whole and broken numbers: text keeps both exactly, unless the column is declared as a number with a point
        exact = any(word in declared for word in ("REAL", "FLOA", "DOUB", "DEC", "NUMERIC"))
        return pa.float64() if exact else pa.string()
    if "INT" in declared or "BOOL" in declared:
        return pa.int64()
    if "BLOB" in declared:
        return pa.large_binary()
    if any(word in declared for word in ("REAL", "FLOA", "DOUB", "DEC", "NUMERIC")):
        return pa.float64()
    return pa.string()


def _stream(
    db: sqlite3.Connection, unit: str, table: _Table, names: Sequence[str], *, where: str = ""
) -> Iterator[Rows]:
    """Yield rows in the order of rowids, in Arrow batches."""
    chosen = ", ".join([table.rowid, *(table.columns[name].sql for name in names)])
    cursor = db.execute(f"SELECT {chosen} FROM {table.sql}{where} ORDER BY {table.rowid}")
    schema = pa.schema([(name, table.columns[name].type) for name in names])
    while rows := cursor.fetchmany(BATCH):
        ids, *columns = zip(*rows, strict=True)
        arrays = [pa.array(values, type=kind) for values, kind in zip(columns, schema.types, strict=True)]
        yield Rows(unit, np.array(ids, dtype=np.int64), pa.record_batch(arrays, schema=schema))


def _remember(db: sqlite3.Connection, positions: Positions) -> str:
    """Put rowids into a temporary table in memory, so that no statement names a row; return its name."""
    taken = _count(db, "sqlite_temp_master WHERE name LIKE 'ids~_%' ESCAPE '~'")
    name = f"temp.ids_{taken}"
    db.execute(f"CREATE TEMP TABLE ids_{taken} (id INTEGER PRIMARY KEY)")
    if alone := not db.in_transaction:
        db.execute("BEGIN")
    db.executemany(f"INSERT OR IGNORE INTO {name} VALUES (?)", zip(positions.tolist()))  # noqa: B905
    if alone:
        db.execute("COMMIT")
    return name


def _settle_indexes(db: sqlite3.Connection) -> None:
    """Rebuild full-text indexes from their content and empty sampled statistics: both remember deleted values."""
    found = db.execute(
        "SELECT name, lower(sql) FROM sqlite_master WHERE type = 'table' AND lower(sql) LIKE 'create virtual table%'"
    ).fetchall()
    for name, sql in found:
        if "using fts" in " ".join(sql.split()):
            contentless = "content=''" in sql.replace(" ", "").replace('"', "'")
            word = "optimize" if contentless else "rebuild"
            table = _quoted(name)
            db.execute(f"INSERT INTO {table} ({table}) VALUES (?)", (word,))
            db.execute(f"INSERT INTO {table} ({table}) VALUES ('optimize')")
    for (name,) in db.execute(
        "SELECT name FROM sqlite_master WHERE name IN ('sqlite_stat3', 'sqlite_stat4')"
    ).fetchall():
        db.execute(f"DELETE FROM {_quoted(name)}")


def _plain_tables(db: sqlite3.Connection) -> list[str]:
    """Tables whose rows are compared: not virtual, not the shadows of one (rebuilt), not the sampled statistics."""
    found = db.execute("SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'").fetchall()
    skipped = ("sqlite_schema", "sqlite_stat3", "sqlite_stat4")
    return sorted(name for (name,) in found if name not in skipped)


def _row_key(db: sqlite3.Connection, name: str, columns: Sequence[str]) -> list[str]:
    """What names a row of the table: its rowid, or its primary key if it has none."""
    (wr,) = db.execute("SELECT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?", (name,)).fetchone()
    rowid = next((r for r in ("rowid", "_rowid_", "oid") if r not in {c.lower() for c in columns}), None)
    if not wr and rowid:
        return [rowid]
    return [_quoted(row[1]) for row in db.execute(f"PRAGMA main.table_xinfo({_quoted(name)})") if row[5]]


# ---------------------------------------------------------------- files and connections


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    db = sqlite3.connect(
        f"file:{quote(os.fspath(path.absolute()))}?mode={mode}", uri=True, timeout=BUSY, isolation_level=None
    )
    db.execute("PRAGMA temp_store=MEMORY")
    return db


def _begin_writing(db: sqlite3.Connection, unit: str) -> bool:
    """Begin to write so that no journal is shed; return whether the database uses a WAL."""
    wal = bool(db.execute("PRAGMA journal_mode").fetchone()[0] == "wal")
    if not wal and db.execute("PRAGMA journal_mode=PERSIST").fetchone()[0] != "persist":
        raise _unavailable(unit, "to be the only connection", "another one", "close the application")
    db.execute("BEGIN IMMEDIATE")
    return wal


@contextlib.contextmanager
def _asking(unit: str) -> Iterator[None]:
    """Say in our words what SQLite refused: its own messages may quote a value."""
    try:
        yield
    except sqlite3.Error as refused:
        code = getattr(refused, "sqlite_errorname", "") or ""
        raise _unavailable(unit, "to work on it with SQLite", *_explained(code)) from None
    except pa.ArrowException:
        raise _unavailable(
            unit, "values of the type seen before", "others", "somebody writes to it: try again"
        ) from None


def _explained(code: str) -> tuple[str, str]:
    """What a code of SQLite means here, and what to do."""
    known = {
        "SQLITE_BUSY": ("it is locked by another connection", "close the application and try again"),
        "SQLITE_LOCKED": ("it is locked by another connection", "close the application and try again"),
        "SQLITE_READONLY": ("it is read-only or needs a rollback", "make file and folder writable"),
        "SQLITE_PERM": ("no permission", "make file and folder readable and writable"),
        "SQLITE_CANTOPEN": ("it cannot be opened", "make file and folder readable and writable"),
        "SQLITE_NOTADB": ("it is no SQLite database", "correct the catalog, or decrypt the file"),
        "SQLITE_CORRUPT": ("it is damaged or truncated", "restore it from a backup"),
        "SQLITE_FULL": ("no room on the disk", "make room for two copies of the file"),
        "SQLITE_IOERR": ("the device failed", "mend the device"),
        "SQLITE_CONSTRAINT": ("the new value breaks a constraint of the table", "choose another mask in the catalog"),
    }
    for name, words in known.items():
        if code == name or code.startswith(name + "_"):
            return words
    return f"an error {code or 'in its text (not UTF-8)'}", "look at the database with the sqlite3 shell"


def _plain_database(path: Path, unit: str, *, for_writing: bool) -> None:
    """Raise StoreUnavailable unless the path is a plain, whole SQLite file we may use, without a hot journal."""
    try:
        now = path.lstat()
    except OSError:
        raise _unavailable(unit, "a database file", "nothing", "correct the catalog or restore the file") from None
    if not stat.S_ISREG(now.st_mode):
        found = "a symbolic link" if stat.S_ISLNK(now.st_mode) else "no regular file"
        raise _unavailable(unit, "a plain file", found, "give the catalog the real file")
    if now.st_nlink > 1:
        raise _unavailable(unit, "a file with one name", f"{now.st_nlink} names (hard links)", "remove the others")
    if not os.access(path, os.R_OK):
        raise _unavailable(unit, "a readable file", "no permission", "make it readable for us")
    if for_writing and not (_writable(path, now) and os.access(path.parent, os.W_OK)):
        raise _unavailable(unit, "a writable file and folder", "read-only", "make them writable for us")
    with path.open("rb") as file:  # before SQLite opens it: closing a second handle would drop SQLite's locks
        head = file.read(100)
    if len(head) < 100 or not head.startswith(_MAGIC):
        raise _unavailable(unit, "a SQLite database", "another format or a truncated file", "correct the catalog")
    size = int.from_bytes(head[16:18], "big")
    pages = int.from_bytes(head[28:32], "big")
    if head[24:28] == head[92:96] and pages * (65536 if size == 1 else size) > now.st_size:
        raise _unavailable(unit, "a whole database", "a truncated file", "restore it from a backup")
    journal = _beside(path, "-journal")
    if journal.is_file() and _begins(journal) == _HOT:
        raise _unavailable(
            unit, "no open transaction", "a hot journal", "an application stopped midway: open it once with that"
        )


def _writable(path: Path, now: os.stat_result) -> bool:
    """Whether we may write, and the owner meant the file to be written (root may always)."""
    return os.access(path, os.W_OK) and bool(now.st_mode & 0o222)


def _begins(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(_HOT))


def _state(path: Path, root: Path) -> Unit:
    """What identifies this state of a database: a WAL with something in it is part of it."""
    now = path.lstat()
    size, changed = now.st_size, now.st_mtime_ns
    with contextlib.suppress(FileNotFoundError):
        wal = _beside(path, "-wal").lstat()
        if wal.st_size:
            size, changed = size + wal.st_size, max(changed, wal.st_mtime_ns)
    return Unit(path.relative_to(root).as_posix(), size, changed, now.st_dev, now.st_ino)


def _beside(path: Path, end: str) -> Path:
    return path.with_name(path.name + end)


def _count(db: sqlite3.Connection, table: str) -> int:
    return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _bindable(value: object) -> _Value:
    """A value as SQLite stores it; dates and decimals as their text."""
    return value if value is None or isinstance(value, int | float | str | bytes) else str(value)


def _unavailable(what: str, expected: str, found: str, hint: str) -> StoreUnavailable:
    return StoreUnavailable(f"{what}: expected {expected}, found: {found}", hint=hint)


def _erasure(done: Done) -> Erasure:
    """Say what happened to a unit, from the note kept with its record."""
    method = Method.LOGICAL_DELETE if done.refused else Method.OVERWRITE
    note = done.note
    return Erasure(
        done.unit, method, done.refused, note["before"], note["after"], note["changed"], done.destructions, done.claim
    )

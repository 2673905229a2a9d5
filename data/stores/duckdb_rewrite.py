"""One DuckDB database being rewritten: locked, its survivors copied to a new file, compared, published, destroyed.

A raw search of a DuckDB file shows nothing, so that the new file is clean is shown by how it was made:

1. What the engine would drop on opening is held first: the WAL and its kin.
2. The old file is opened alone; the WAL is settled into it.
3. The new file has a random name that did not exist. It is written without a WAL, in the storage version and block
   size of the old one, and gets the same schemas, tables, types, sequences, views, macros, indexes and comments.
4. Into every table go the rows that an anti-join with the row numbers to be dropped leaves over, in their order; values
   to be replaced are replaced on the way. No statement holds a value of a person.
5. The new file is closed, opened again read-only and compared: everything it consists of, and for every table the
   count and an order-free digest of the rows that nobody ordered to change.
6. It is published; the old file, the held WALs and what others spilled beside it are destroyed.
"""

# ruff: noqa: S608  -- names of tables and columns are quoted by `quoted`, values are always bound
from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from fangxin.data.errors import DoesNotHold, Incomplete, NotAllowed, UnitChanged
from fangxin.data.pending import Done, Pending
from fangxin.data.steps import due
from fangxin.data.stores.database_files import beside, quoted, unavailable
from fangxin.data.stores.duckdb_tables import (
    SPILL,
    WALS,
    Column,
    Gaps,
    Table,
    attach,
    engine,
    listed,
    literal,
    marked,
    spilled,
    stream,
    tables,
    things,
    unmarked,
)
from fangxin.data.vocabulary import Blank, Change, Collection, Positions, Turn, by_position, redacted

if TYPE_CHECKING:
    import duckdb

Key = tuple[str, str]  # schema and name of a table
_NOBODY = np.empty(0, np.int64)


@dataclass(frozen=True)
class Digest:
    """How many rows, and the sum and exclusive or of their hashes: the same in any order of rows."""

    rows: int
    total: int
    mixed: int

    def __add__(self, other: Digest) -> Digest:
        return Digest(self.rows + other.rows, self.total + other.total, self.mixed ^ other.mixed)


@dataclass
class _Task:
    """What is done to one table: rows that go, values by (row ids, filler), values by (row ids, new values)."""

    drop: Positions = field(default_factory=lambda: _NOBODY)
    blanks: list[tuple[str, Blank]] = field(default_factory=list)
    texts: list[tuple[str, pa.Table]] = field(default_factory=list, repr=False)
    turned: dict[str, Column] = field(default_factory=dict)  # whole columns, and what they become
    turn: Turn | None = None
    collection: Collection | None = None
    rows: list[Mapping[str, Any]] = field(default_factory=list, repr=False)  # Any: values of any column type

    @property
    def changed(self) -> Positions:
        """The rows of which a value is replaced."""
        found = [blank.positions for _name, blank in self.blanks]
        found += [table.column("id").to_numpy() for _name, table in self.texts]
        return np.unique(np.concatenate(found)) if found else _NOBODY


class Work:
    """An old database, opened alone, and the new file that will take its name."""

    def __init__(self, pending: Pending, path: Path, batch: str) -> None:
        self.pending, self.path, self.batch = pending, path, batch
        self.unit = path.relative_to(pending.root).as_posix()
        self.stack = contextlib.ExitStack()
        self.db: duckdb.DuckDBPyConnection
        self.new: Path
        self.ours: list[Path] = []  # the scratch and the holds not yet handed over
        self.tasks: dict[Key, _Task] = {}
        self.note: dict[str, Any] = {"before": {}, "after": {}, "changed": {}}  # Any: JSON of the record
        self.shed = 0  # bytes that the engine gave back while it settled the WAL

    def lock(self) -> None:
        """Hold what the engine drops on opening, open the old file alone, and settle its WAL."""
        for end in WALS:
            wal = beside(self.path, end)
            if wal.exists() and wal.stat().st_size:
                self.ours.append(self.pending.hold(wal, batch=self.batch))
        size = self.path.stat().st_size
        self._open("RECOVERY_MODE no_wal_writes")
        if self.ours:
            self.db.execute("CHECKPOINT live")
        if left := [end for end in WALS if beside(self.path, end).exists()]:
            raise unavailable(self.unit, "its WAL in the database", f"{left[0]} beside it", "open it once with duckdb")
        self.seen = self.path.stat()
        self.shed = max(0, size - self.seen.st_size)

    def look_on(self) -> None:
        """Instead of the lock, for a rehearsal: read what others may read, and leave the WAL where it is."""
        self._open("READ_ONLY")

    def _open(self, how: str) -> None:
        self.new = self.pending.scratch(self.path, batch=self.batch)
        self.ours.append(self.new)
        self.db = self.stack.enter_context(engine(self.path, self.new))
        attach(self.db, self.path, "live", how)

    def copy_out(self) -> None:
        """Create the new file, with everything that the old one consists of but its rows."""
        version, size = self._manner()
        if os.path.lexists(self.new):
            raise DoesNotHold(f"{self.unit}: the file for its survivors exists already, and we did not create it")
        how = ("RECOVERY_MODE no_wal_writes", f"STORAGE_VERSION {literal(version)}", f"BLOCK_SIZE {size}")
        attach(self.db, self.new, "survivors", *how)
        self.db.execute("COPY FROM DATABASE live TO survivors (SCHEMA)")
        self.tables = {(t.schema, t.name): t for t in tables(self.db, self.unit, "live")}

    def _manner(self) -> tuple[str, int]:
        """Storage version and block size of the old file: what read it before reads the new one too."""
        ((tags,),) = self.db.execute("SELECT tags FROM duckdb_databases() WHERE database_name = 'live'").fetchall()
        sizes = {row[0]: row[2] for row in self.db.execute("PRAGMA database_size").fetchall()}
        return str(tags["storage_version"]).rstrip("+"), int(sizes["live"])

    # ------------------------------------------------------------ what is to be done

    def apply(self, change: Change, table: Table) -> None:
        """Take down what one change says; StoreUnavailable or UnitChanged if it cannot be done."""
        address, task, gaps = change.collection.address, self._task(table), Gaps.of(self.db, table)
        drop = np.unique(np.concatenate([task.drop, gaps.ids(change.drop)]))
        task.drop = drop if due("duckdb: rows") else task.drop
        if self._count(table, "live", drop) != len(drop):
            raise UnitChanged(f"{self.unit}: rows that were located are not there any more", hint="locate again")
        for name, blank in change.blank.items():
            self._settable(table, name, change.collection.where)
            task.blanks.append((name, replace(blank, positions=gaps.ids(blank.positions))))
        for name, redaction in change.redact.items():
            column = self._settable(table, name, change.collection.where)
            redaction = replace(redaction, positions=gaps.ids(redaction.positions))
            texts = by_position(redaction)
            values: list[str | bytes | None] = []
            where: list[int] = []
            for rows in stream(self.db, table, [name], redaction.positions):
                for position, value in zip(rows.positions.tolist(), rows.columns.column(0).to_pylist(), strict=True):
                    where.append(position)
                    values.append(_redacted(value, texts[position], redaction.filler))
            kind = pa.large_binary() if column.hidden else pa.string()
            task.texts.append((name, pa.table({"id": pa.array(where, pa.int64()), "v": pa.array(values, kind)})))
        self.note["before"][address] = self._count(table, "live")
        self.note["after"][address] = self.note["before"][address] - len(drop)
        self.note["changed"][address] = len(task.changed)

    def turn(self, collection: Collection, table: Table, names: Sequence[str], turn: Turn) -> None:
        """Take down that whole columns are replaced: by envelopes, or where they are envelopes by what was in them."""
        task = self._task(table)
        task.turn, task.collection = turn, collection
        for name in names:
            old = self._settable(table, name, collection.where)
            kind, comment = (old.protected or "VARCHAR", unmarked(old)) if old.hidden else ("BLOB", marked(old))
            task.turned[name] = Column(name, kind, old.nullable, old.default, old.generated, old.unique, comment)
        rows = self._count(table, "live")
        for key in ("before", "after", "changed"):
            self.note[key][collection.address] = rows

    def plant(self, table: Table, row: Mapping[str, Any], where: str) -> None:  # Any: values of any column type
        """Take down that a row is added."""
        for name in row:
            self._settable(table, name, where)
        self._task(table).rows.append(row)

    def _task(self, table: Table) -> _Task:
        return self.tasks.setdefault((table.schema, table.name), _Task())

    def _settable(self, table: Table, name: str, where: str) -> Column:
        column = table.require(name, where)
        if column.generated:
            raise unavailable(
                self.unit, f"a stored column {name} in table {table.name}", "a generated one", "change what it is from"
            )
        return column

    # ------------------------------------------------------------ doing it

    def prove(self) -> Path:
        """Write the survivors, close and open the new file again, and compare it with the old one; return it."""
        for key, task in self.tasks.items():
            if task.turned:
                self._retype(self.tables[key], task.turned)
        for key, table in self.tables.items():
            self._fill(table, self.tasks.get(key, _Task()))
            self.db.execute("CHECKPOINT survivors")  # memory is that of one table
        self.db.execute("DETACH survivors")
        if left := [end for end in WALS if beside(self.new, end).exists()]:
            raise DoesNotHold(f"{self.unit}: the file of its survivors has a {left[0]}, which would keep rows")
        with self.new.open("rb") as file:
            os.fsync(file.fileno())
        attach(self.db, self.new, "survivors", "READ_ONLY")
        self._same_things()
        total, whole = 0, hashlib.sha256()
        for (schema, name), table in sorted(self.tables.items()):
            found = self._compare(table, self.tasks.get((schema, name), _Task()))
            total += found.rows
            whole.update(repr((schema, name, found.rows, found.total, found.mixed)).encode())
        self.db.execute("DETACH survivors")
        self.note["built"] = {"tables": len(self.tables), "rows": total, "digest": whole.hexdigest()}
        self.note["shed"] = self.shed
        return self.new

    def publish(self) -> Done:
        """Publish the survivors, once they are proven, and destroy all that came before."""
        new = self.prove()
        self.stack.close()  # our own engine would count as somebody who has it open
        spill = spilled(self.path)
        also = [path for path in self.ours if path != new and path.exists()]
        try:
            done = self.pending.replace(
                new,
                self.path,
                batch=self.batch,
                note=self.note,
                also=[*also, *spill],
                seen=self.seen,
                absent=[beside(self.path, end) for end in WALS],
            )
        except Incomplete:  # published: what is left belongs to the journal now
            self.ours.clear()
            raise
        self.ours.clear()
        with contextlib.suppress(OSError):  # somebody else's files are in it, or it was not there
            beside(self.path, SPILL).rmdir()
        return done

    def close(self) -> None:
        """Close the engine and destroy the scratch and the holds that were not handed over."""
        self.stack.close()
        for path in self.ours:
            self.pending.discard(path, batch=self.batch)
        self.ours.clear()

    def _retype(self, table: Table, columns: Mapping[str, Column]) -> None:
        """Give columns of the new, empty table their new types; indexes on others are put back."""
        here = (table.schema, table.name)
        indexes = self.db.execute(
            "SELECT index_name, sql FROM duckdb_indexes() WHERE database_name = 'survivors' AND schema_name = ? AND"
            " table_name = ? ORDER BY index_name",
            here,
        ).fetchall()
        import duckdb

        place = f"survivors.{quoted(table.schema)}"
        for name, _sql in indexes:
            self.db.execute(f"DROP INDEX {place}.{quoted(name)}")
        for name, column in columns.items():
            try:
                self.db.execute(
                    f"ALTER TABLE {table.sql('survivors')} ALTER COLUMN {quoted(name)} SET DATA TYPE {column.type}"
                )
            except (duckdb.BinderException, duckdb.DependencyException, duckdb.CatalogException):
                raise unavailable(
                    self.unit,
                    f"column {name} of table {table.name} to change its type",
                    "an index, a rule, a generated column or another table that depends on it",
                    "take that off, or leave the column out of crypto-erase",
                ) from None
            comment = "NULL" if column.comment is None else literal(column.comment)
            self.db.execute(f"COMMENT ON COLUMN {table.sql('survivors')}.{quoted(name)} IS {comment}")
        self.db.execute(f"USE {place}")
        for _name, sql in indexes:
            self.db.execute(sql)
        self.db.execute("USE memory.main")

    def _fill(self, table: Table, task: _Task) -> None:
        """Write one table's survivors into the new file, and the rows that are added."""
        if task.turn is not None and task.collection is not None:
            self._fill_turned(table, task, task.turn, task.collection)
        else:
            with self._joined(task) as joins:
                values, bound = self._values(table, task)
                source = f"{table.sql('live')} o{joins} ANTI JOIN dropped ON o.rowid = dropped.id"
                self._insert(table, f"SELECT {values} FROM {source}", bound)
        for row in task.rows:
            self._add(table, row)

    def _add(self, table: Table, row: Mapping[str, Any]) -> None:  # Any: values of any column type
        """Add a row; NOT NULL columns without a value or a default are filled."""
        given = [column for column in table.stored if column.name in row]
        filled = [c for c in table.stored if c not in given and not c.nullable and not c.default]
        names = ", ".join(quoted(column.name) for column in [*given, *filled])
        values = [f"CAST(? AS {column.type})" for column in given] + [self._filler(table, c) for c in filled]
        sql = f"INSERT INTO {table.sql('survivors')} ({names}) SELECT {', '.join(values)}"
        self._write(table, sql, [row[column.name] for column in given])

    def _fill_turned(self, table: Table, task: _Task, turn: Turn, collection: Collection) -> None:
        """Write a table of which whole columns are replaced, batch by batch."""
        names = [
            f"CAST(turned.{quoted(c.name)} AS {task.turned[c.name].type})"
            if c.name in task.turned
            else f"o.{quoted(c.name)}"
            for c in table.stored
        ]
        reader = self.stack.enter_context(contextlib.closing(self.db.cursor()))
        for rows in stream(reader, table, list(table.columns)):
            new = turn(collection, rows.columns)
            columns = {name: new.column(name) for name in task.turned}
            self.db.register("turned", pa.table({"id": pa.array(rows.positions), **columns}))
            self._insert(
                table,
                f"SELECT {', '.join(names)} FROM {table.sql('live')} o JOIN turned ON o.rowid = turned.id"
                " WHERE o.rowid BETWEEN ? AND ? ORDER BY o.rowid",
                [int(rows.positions[0]), int(rows.positions[-1])],
            )
            self.db.unregister("turned")

    def _insert(self, table: Table, select: str, bound: Sequence[Any]) -> None:
        names = ", ".join(quoted(column.name) for column in table.stored)
        self._write(table, f"INSERT INTO {table.sql('survivors')} ({names}) {select}", bound)

    def _write(self, table: Table, sql: str, bound: Sequence[Any]) -> None:  # Any: fillers of any column type
        import duckdb

        try:
            self.db.execute(sql, list(bound))
        except (duckdb.ConstraintException, duckdb.ConversionException):
            raise NotAllowed(
                f"{self.unit}: the new values of table {table.name} break a rule of the database",
                hint="this database is as it was; choose another mask in the catalog, or change the table",
            ) from None

    def _filler(self, table: Table, column: Column) -> str:
        """What fills a NOT NULL column nobody gave a value for, as SQL."""
        kind = column.type.split("(")[0]
        name = f"{quoted(column.name)}"
        if column.unique and kind in ("VARCHAR", "UUID"):
            return f"CAST('{secrets.token_hex(16)}' AS {kind})"
        if column.unique:
            return f"(SELECT coalesce(max({name}), 0) + 1 FROM {table.sql('survivors')})"
        if kind == "ENUM":
            return f"enum_first(CAST(NULL AS {column.type}))"
        known = {"VARCHAR": "''", "BLOB": "''::BLOB", "BOOLEAN": "false", "JSON": "'null'", "TIME": "TIME '00:00'"}
        if kind.startswith(("DATE", "TIMESTAMP")):
            return f"CAST('1970-01-01' AS {column.type})"
        return known.get(kind, f"CAST('{'[]' if kind.endswith(']') else '0'}' AS {column.type})")

    @contextlib.contextmanager
    def _joined(self, task: _Task) -> Iterator[str]:
        """Give the engine the row numbers and values of a task as tables in memory; yield the joins with them."""
        made = {"dropped": listed(task.drop), "touched": listed(np.concatenate([task.drop, task.changed]))}
        made["changed"] = listed(np.setdiff1d(task.changed, task.drop))
        made |= {f"blank_{n}": listed(blank.positions) for n, (_name, blank) in enumerate(task.blanks)}
        made |= {f"text_{n}": table for n, (_name, table) in enumerate(task.texts)}
        for name, table in made.items():
            self.db.register(name, table)
        try:
            joins = [name for name in made if name.startswith(("blank_", "text_"))]
            yield "".join(f" LEFT JOIN {name} ON o.rowid = {name}.id" for name in joins)
        finally:
            for name in made:
                self.db.unregister(name)

    def _values(self, table: Table, task: _Task) -> tuple[str, list[Any]]:  # Any: fillers of any column type
        """The values of a survivor as SQL, column by column, and what is bound in it."""
        found: list[str] = []
        bound: list[Any] = []
        for column in table.stored:
            sql = f"o.{quoted(column.name)}"
            for n, (name, _table) in enumerate(task.texts):
                if name == column.name:
                    sql = f"CASE WHEN text_{n}.id IS NULL THEN {sql} ELSE CAST(text_{n}.v AS {column.type}) END"
            for n, (name, blank) in enumerate(task.blanks):
                if name == column.name:
                    sql = f"CASE WHEN blank_{n}.id IS NULL THEN {sql} ELSE CAST(? AS {column.type}) END"
                    bound.append(blank.filler)  # of nested cases the inner one comes first in the statement
            found.append(sql)
        return ", ".join(found), bound

    # ------------------------------------------------------------ comparing

    def _compare(self, table: Table, task: _Task) -> Digest:
        """Raise DoesNotHold unless the new table holds what was to survive; return the digest of what it holds."""
        plain = [column for column in table.stored if column.name not in task.turned]
        columns = ", ".join(f"o.{quoted(column.name)}" for column in plain)
        with self._joined(task) as joins:
            live, (values, bound) = table.sql("live"), self._values(table, task)
            expected = self._digest(columns, f"{live} o ANTI JOIN touched ON o.rowid = touched.id")
            if len(task.changed):
                source = f"{live} o{joins} SEMI JOIN changed ON o.rowid = changed.id"
                expected += self._digest(values, source, bound)
        found = self._digest(columns, f"{table.sql('survivors')} o WHERE o.rowid < ?", [expected.rows])
        rows = self._count(table, "survivors")
        if found != expected or rows != expected.rows + len(task.rows):
            raise DoesNotHold(
                f"{self.unit}: expected {expected.rows} rows of {table.name} to survive unchanged, found {found.rows}"
                f" of {rows}" + ("" if found.rows != expected.rows else ", not all as they were"),
                hint="nothing was published; the old database is as it was",
            )
        for name in task.turned:
            sides = [self._filled(table, side, name) for side in ("live", "survivors")]
            if sides[0] < sides[1]:
                raise DoesNotHold(f"{self.unit}: {name} of {table.name} holds more values than before")
        return found

    def _digest(self, columns: str, source: str, bound: Sequence[Any] = ()) -> Digest:  # Any: fillers
        total = "coalesce(sum(h), 0)::VARCHAR, coalesce(bit_xor(h), 0)::VARCHAR"
        sql = f"SELECT count(*), {total} FROM (SELECT hash({columns}) AS h FROM {source})"
        ((rows, total, mixed),) = self.db.execute(sql, list(bound)).fetchall()
        return Digest(int(rows), int(total), int(mixed))

    def _filled(self, table: Table, database: str, name: str) -> int:
        return int(self._one(f"SELECT count({quoted(name)}) FROM {table.sql(database)}"))

    def _count(self, table: Table, database: str, positions: Positions | None = None) -> int:
        """How many rows a table has, in all or at these positions."""
        if positions is None:
            return int(self._one(f"SELECT count(*) FROM {table.sql(database)}"))
        self.db.register("asked", listed(positions))
        found = self._one(f"SELECT count(*) FROM {table.sql(database)} o SEMI JOIN asked ON o.rowid = asked.id")
        self.db.unregister("asked")
        return int(found)

    def _one(self, sql: str) -> Any:  # Any: one value of SQL
        ((found,),) = self.db.execute(sql).fetchall()
        return found

    def _same_things(self) -> None:
        """Raise DoesNotHold unless the new file consists of what the old one does, but for columns that were turned."""
        turned = {(*key, name) for key, task in self.tasks.items() for name in task.turned}
        planted = any(task.rows for task in self.tasks.values())  # a default may have taken a number
        old, new = things(self.db, "live", but=turned), things(self.db, "survivors", but=turned)
        wrong = sorted(kind for kind in old if old[kind] != new[kind] and not (planted and kind == "sequence"))
        if wrong:
            raise DoesNotHold(
                f"{self.unit}: not the same after rewriting: {', '.join(wrong)}",
                hint="nothing was published; report what kind of thing our copy does not carry over",
            )


def _redacted(value: object, texts: Sequence[str], filler: str) -> str | bytes | None:
    """A value with texts replaced; what is no text is left to the cast to say no."""
    if value is None:
        return None
    if isinstance(value, bytes):
        try:
            return redacted(value.decode(), texts, filler).encode()
        except UnicodeDecodeError:
            return value
    return redacted(str(value), texts, filler)

"""What the DuckDB store knows of one database file: whether it is sound, its tables, and rows as Arrow batches.

The engine that opens it is in memory and locked down: it may open the files that it is given and no others, loads no
extension, never spills to disk, and cannot be told otherwise afterwards. Its own messages may quote values; every
refusal is said again in our words.
"""

# ruff: noqa: S608  -- names are quoted by `quoted`, paths by `literal`, values are always bound
from __future__ import annotations

import contextlib
import graphlib
import os
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from fangxin.data.stores.database_files import beside, not_there, plain_file, quoted, unavailable
from fangxin.data.vocabulary import Collection, Positions, Rows

if TYPE_CHECKING:
    import duckdb

BATCH = 65536  # rows
WALS = (".wal", ".wal.checkpoint", ".wal.recovery")  # what DuckDB keeps beside a database
SPILL = ".tmp"  # the folder beside it into which it spills
SETTINGS: Mapping[str, str | int | bool] = {
    "temp_directory": "",  # nothing spills: what does not fit in memory is refused
    "memory_limit": "2GB",
    "threads": 1,  # inserting keeps the order of rows
    "async_threads": 0,  # reads are of a local file; an idle engine has no threads, and can be closed after a fork
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "allow_persistent_secrets": False,
}
_MARK = "fangxin.protected "  # begins the comment of a column of envelopes; the type it had follows
_HEADER = 4096  # bytes of each of the three headers


# ---------------------------------------------------------------- tables and columns


@dataclass(frozen=True)
class Column:
    """A column as it is declared; `protected` is the type it had before its values were put under keys."""

    name: str
    type: str
    nullable: bool
    default: bool
    generated: bool
    unique: bool
    comment: str | None

    @property
    def sql(self) -> str:
        """How to select it so that Arrow has a plain type for it."""
        named = f"o.{quoted(self.name)}"
        return f"CAST({named} AS VARCHAR)" if self.type.split("(")[0] in _AS_TEXT else named

    @property
    def protected(self) -> str | None:
        """The type of what the envelopes hold, None for a column in clear."""
        marked = self.type == "BLOB" and (self.comment or "").startswith(_MARK)
        return (self.comment or "").removeprefix(_MARK).split("\n")[0] if marked else None

    @property
    def hidden(self) -> bool:
        """Whether its values are blobs, and so under keys."""
        return self.type == "BLOB"


_AS_TEXT = ("ENUM", "UNION", "VARIANT", "GEOMETRY", "BIGNUM", "VARINT")


def marked(column: Column) -> str:
    """The comment of a column once its values are under keys."""
    return _MARK + column.type + (f"\n{column.comment}" if column.comment else "")


def unmarked(column: Column) -> str | None:
    """The comment that the column had before."""
    return (column.comment or "").partition("\n")[2] or None


@dataclass(frozen=True)
class Table:
    """A table: how to name it in SQL, and its columns in their order."""

    unit: str
    schema: str
    name: str
    columns: Mapping[str, Column]

    def sql(self, database: str) -> str:
        """Its name within one of the attached databases."""
        return f"{database}.{quoted(self.schema)}.{quoted(self.name)}"

    @property
    def stored(self) -> list[Column]:
        """The columns that hold values of their own."""
        return [column for column in self.columns.values() if not column.generated]

    def require(self, column: str, where: str) -> Column:
        """The column of that name; StoreUnavailable if it is not there. `where` is the catalog's line."""
        if column not in self.columns:
            raise not_there(
                self.unit,
                f"column {column} in table {self.name}",
                ", ".join(self.columns),
                f"correct the catalog{f' at {where}' if where else ''}",
            )
        return self.columns[column]


def tables(db: duckdb.DuckDBPyConnection, unit: str, database: str) -> list[Table]:
    """Every table of a database, those that others refer to first."""
    columns: dict[tuple[str, str], dict[str, Column]] = {}
    unique = {
        (schema, table, name)
        for schema, table, names in db.execute(
            "SELECT schema_name, table_name, constraint_column_names FROM duckdb_constraints()"
            " WHERE database_name = ? AND constraint_type IN ('PRIMARY KEY', 'UNIQUE')",
            [database],
        ).fetchall()
        for name in names
    }
    for schema, table, name, kind, nullable, default, generated, comment in db.execute(
        "SELECT schema_name, table_name, column_name, data_type, is_nullable, column_default IS NOT NULL, is_generated,"
        " comment FROM duckdb_columns() WHERE database_name = ? AND table_name IN (SELECT table_name FROM"
        " duckdb_tables() WHERE database_name = ?) ORDER BY schema_name, table_name, column_index",
        [database, database],
    ).fetchall():
        one = Column(name, kind, nullable, default, generated, (schema, table, name) in unique, comment)
        columns.setdefault((schema, table), {})[name] = one
    order = graphlib.TopologicalSorter[tuple[str, str]]()
    for schema, table in db.execute(
        "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = ? ORDER BY ALL", [database]
    ).fetchall():
        order.add((schema, table))
    for schema, table, other in db.execute(
        "SELECT schema_name, table_name, referenced_table FROM duckdb_constraints()"
        " WHERE database_name = ? AND constraint_type = 'FOREIGN KEY' AND referenced_table <> table_name",
        [database],
    ).fetchall():
        order.add((schema, table), (schema, other))
    return [Table(unit, schema, name, columns[schema, name]) for schema, name in order.static_order()]


def look(db: duckdb.DuckDBPyConnection, unit: str, collection: Collection) -> Table:
    """The table that a collection names, in the schema `main` or in the only one that has it."""
    found = [table for table in tables(db, unit, "live") if table.name == collection.name]
    found = [table for table in found if table.schema == "main"] or found
    fix = f"correct the catalog at {collection.where}" if collection.where else "correct the catalog"
    if len(found) > 1:
        raise unavailable(unit, f"one table {collection.name}", f"one in {len(found)} schemas", "rename all but one")
    if not found:
        views = "SELECT count(*) FROM duckdb_views() WHERE database_name = 'live' AND view_name = ? AND NOT internal"
        view = db.execute(views, [collection.name]).fetchall() != [(0,)]
        fix = "name the table behind it in the catalog" if view else fix
        raise not_there(unit, f"table {collection.name}", "a view" if view else "no such table", fix)
    return found[0]


def schema_of(db: duckdb.DuckDBPyConnection, table: Table) -> pa.Schema:
    """The columns of a table as Arrow has them."""
    chosen = ", ".join(f"{column.sql} AS {quoted(name)}" for name, column in table.columns.items())
    found = db.sql(f"SELECT {chosen} FROM {table.sql('live')} o LIMIT 0").to_arrow_table().schema
    marks = {name: {"fangxin.protected": "1"} for name, column in table.columns.items() if column.protected}
    return pa.schema([pa.field(f.name, _plain(f.type), metadata=marks.get(f.name)) for f in found])


def stream(
    db: duckdb.DuckDBPyConnection, table: Table, names: Sequence[str], positions: Positions | None = None
) -> Iterator[Rows]:
    """Yield rows in Arrow batches, in their order: all of them, or those with the row ids `positions`.

    Their positions are row ids (see `Gaps`). While it lasts the connection cannot be asked anything else.
    """
    chosen = ", ".join(["o.rowid", *(f"{table.columns[name].sql} AS {quoted(name)}" for name in names)])
    only = ""
    if positions is not None:
        db.register("wanted", listed(positions))
        only = " SEMI JOIN wanted ON o.rowid = wanted.id ORDER BY o.rowid"
    reader = db.sql(f"SELECT {chosen} FROM {table.sql('live')} o{only}").to_arrow_reader(BATCH)
    for batch in reader:
        ids, *columns = batch.columns
        fields = [(name, _plain(column.type)) for name, column in zip(names, columns, strict=True)]
        arrays = [_cast(column, kind) for column, (_name, kind) in zip(columns, fields, strict=True)]
        yield Rows(table.unit, ids.to_numpy().astype(np.int64), pa.record_batch(arrays, schema=pa.schema(fields)))
    if positions is not None:
        db.unregister("wanted")


class Gaps:
    """Where rows of a table were deleted: how its row ids become positions, and these row ids again.

    A position is the number of rows before it, so that it stays what it is when a database is written anew: then the
    engine numbers the rows that are left without gaps. In memory are 16 bytes for each gap.
    """

    def __init__(self, starts: Positions, lengths: Positions) -> None:
        self._starts = starts  # row ids that are missing, as stretches in order,
        self._before = np.concatenate([[0], np.cumsum(lengths)])  # how many are missing before each and in all
        self._seen = starts - self._before[:-1]  # and the position of the first row behind each

    @classmethod
    def of(cls, db: duckdb.DuckDBPyConnection, table: Table) -> Gaps:
        """Those of one table of the attached database `live`."""
        none = np.empty(0, np.int64)
        ((count, last),) = db.execute(f"SELECT count(*), max(rowid) FROM {table.sql('live')}").fetchall()
        if not count or last == count - 1:
            return cls(none, none)
        starts, lengths, due = [], [], 0
        for batch in db.sql(f"SELECT rowid AS id FROM {table.sql('live')} ORDER BY id").to_arrow_reader(BATCH):
            ids = np.concatenate([[due - 1], batch.column(0).to_numpy()])
            at = np.flatnonzero(np.diff(ids) != 1)
            starts.append(ids[at] + 1)
            lengths.append(ids[at + 1] - ids[at] - 1)
            due = int(ids[-1]) + 1
        return cls(np.concatenate(starts), np.concatenate(lengths))

    def positions(self, ids: Positions) -> Positions:
        """The positions of rows by their ids."""
        found: Positions = ids - self._before[np.searchsorted(self._starts, ids, side="right")]
        return found

    def ids(self, positions: Positions) -> Positions:
        """The row ids at positions; one behind the last row has no row."""
        found: Positions = positions + self._before[np.searchsorted(self._seen, positions, side="right")]
        return found


def listed(positions: Positions) -> pa.Table:
    """Row numbers as a table to join with, so that no statement names a row."""
    return pa.table({"id": pa.array(np.unique(positions), pa.int64())})


def _plain(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.large_binary() if pa.types.is_binary(kind) else kind


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    return column if column.type == kind else column.cast(kind)


# ---------------------------------------------------------------- what a database consists of

_THINGS = {  # what has to be the same after rewriting: what names a thing, then what is said of it
    "schema": "SELECT schema_name, comment, tags FROM duckdb_schemas() WHERE database_name = ?",
    "table": "SELECT schema_name, table_name, comment, tags FROM duckdb_tables() WHERE database_name = ?",
    "column": "SELECT schema_name, table_name, column_name, column_index, column_default, is_nullable, is_generated,"
    " generation_expression, tags, data_type, comment FROM duckdb_columns() WHERE database_name = ?",
    "constraint": "SELECT schema_name, table_name, constraint_type, constraint_text, constraint_name,"
    " constraint_column_names, referenced_table, referenced_column_names FROM duckdb_constraints()"
    " WHERE database_name = ?",
    "index": "SELECT schema_name, index_name, table_name, comment, tags, is_unique, is_primary, expressions, sql"
    " FROM duckdb_indexes() WHERE database_name = ?",
    "view": "SELECT schema_name, view_name, comment, tags, sql FROM duckdb_views() WHERE database_name = ?",
    "sequence": "SELECT schema_name, sequence_name, comment, tags, start_value, min_value, max_value, increment_by,"
    " cycle, last_value FROM duckdb_sequences() WHERE database_name = ?",
    "macro": "SELECT schema_name, function_name, function_type, parameters, parameter_types, varargs, macro_definition,"
    " comment, tags, return_type FROM duckdb_functions() WHERE database_name = ?",
    "type": "SELECT schema_name, type_name, type_category, logical_type, labels, comment, tags, parameters FROM"
    " duckdb_types() WHERE database_name = ?",
    "trigger": "SELECT schema_name, trigger_name, sql, comment, tags FROM duckdb_triggers() WHERE database_name = ?",
}


def things(
    db: duckdb.DuckDBPyConnection, database: str, *, but: AbstractSet[tuple[str, str, str]]
) -> dict[str, list[str]]:
    """Everything a database consists of but its rows, by kind of thing; `but` these columns (schema, table, name)."""
    found = {kind: db.execute(sql, [database]).fetchall() for kind, sql in _THINGS.items()}
    return {
        kind: sorted(repr(row) for row in rows if kind != "column" or row[:3] not in but)
        for kind, rows in found.items()
    }


# ---------------------------------------------------------------- files and engines


@contextlib.contextmanager
def engine(*files: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """An engine in memory that may open these files and what DuckDB keeps beside them, and nothing else."""
    db = _confined(*files)
    try:
        yield db
    finally:
        db.close()


@contextlib.contextmanager
def reader(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """An engine that may open one database file and no other, and has it open as `live`, read-only.

    To make one takes longer than to read a small table. So the last few stay, with nothing open, for whoever reads
    that file next; an error ends them. A forked child makes its own.
    """
    pid = os.getpid()
    key = (pid, path.absolute(), tuple(SETTINGS.items()))
    base = _IDLE.pop(key, None) or _confined(path)
    try:
        with base.cursor() as db:  # what is made for a question is its own, and ends with it
            attach(db, path, "live", "READ_ONLY")
            yield db
            db.execute("DETACH live")
    except BaseException:
        base.close()
        raise
    if (other := _IDLE.pop(key, None)) is not None:  # a thread that read the same file
        other.close()
    _IDLE[key] = base
    for old in [one for one in list(_IDLE) if one[0] == pid][:-IDLE]:
        if (gone := _IDLE.pop(old, None)) is not None:
            gone.close()


IDLE = 4  # engines that stay; each takes some two megabytes
_IDLE: dict[tuple[object, ...], duckdb.DuckDBPyConnection] = {}


def _confined(*files: Path) -> duckdb.DuckDBPyConnection:
    import duckdb

    db = duckdb.connect(":memory:", config=dict(SETTINGS))
    allowed = ", ".join(literal(os.fspath(file.absolute()) + end) for file in files for end in ("", *WALS))
    db.execute(f"SET allowed_paths = [{allowed}]")
    db.execute("SET enable_external_access = false")
    db.execute("SET lock_configuration = true")
    return db


def attach(db: duckdb.DuckDBPyConnection, path: Path, name: str, *options: str) -> None:
    """Open a database file under a name."""
    db.execute(f"ATTACH {literal(os.fspath(path.absolute()))} AS {name} ({', '.join(options)})")


@contextlib.contextmanager
def asking(unit: str) -> Iterator[None]:
    """Say in our words what DuckDB refused: its own messages may quote a value."""
    import duckdb

    try:
        yield
    except duckdb.Error as refused:
        raise unavailable(unit, "to work on it with DuckDB", *_explained(refused)) from None
    except pa.ArrowException as refused:
        raise unavailable(unit, "rows that Arrow can hold", type(refused).__name__, "look at it with duckdb") from None


def _explained(refused: Exception) -> tuple[str, str]:
    """What an error of DuckDB means here, and what to do."""
    import duckdb

    text = str(refused)
    for words, found, todo in (
        ("lock on file", "it is open in another process", "close that and try again"),
        ("file handle conflict", "it is open in this process already", "close that connection and try again"),
        ("already attached", "it is open in this process already", "close that connection and try again"),
        ("version number", "a storage version that our DuckDB cannot read", "install a DuckDB that can, or convert it"),
        ("without a key", "it is encrypted", "a database that we cannot read cannot be erased from: decrypt it"),
        ("not a valid DuckDB", "another format", "correct the catalog"),
        ("orrupt", "it is damaged", "restore it from a backup"),
        ("read enough bytes", "a truncated file", "restore it from a backup"),
        ("No space left", "no room on the disk", "make room for another copy of the file"),
    ):
        if words in text:
            return found, todo
    if isinstance(refused, duckdb.OutOfMemoryException):
        return f"more than {SETTINGS['memory_limit']} of memory needed", "divide the table, or take its indexes off"
    if isinstance(refused, duckdb.ConstraintException):
        return "the new value breaks a constraint of the table", "choose another mask in the catalog"
    return f"an error ({type(refused).__name__})", "look at the database with the duckdb shell"


def plain_database(path: Path, unit: str, *, for_writing: bool) -> None:
    """Raise StoreUnavailable unless the path is a plain, whole, unencrypted DuckDB file that we may use."""
    now = plain_file(path, unit, for_writing=for_writing)
    with path.open("rb") as file:  # before DuckDB opens it: closing a second handle would drop its lock
        head = file.read(3 * _HEADER)
    if len(head) < 3 * _HEADER or head[8:12] != b"DUCK":
        raise unavailable(unit, "a DuckDB database", "another format or a truncated file", "correct the catalog")
    if head[20] & 1:
        raise unavailable(unit, "a database in clear", "an encrypted one", "decrypt it: we hold no keys of databases")
    current = max((head[_HEADER * n : _HEADER * (n + 1)] for n in (1, 2)), key=lambda h: _number(h, 1))
    if _cut_off(current, now.st_size):
        raise unavailable(unit, "a whole database", "a truncated file", "restore it from a backup")


def _cut_off(header: bytes, size: int) -> bool:
    """Whether a file ends before what its header says, and not where DuckDB itself gave free blocks at the end back.

    It does so after a checkpoint, whole blocks at a time, and leaves the count in the header as it was. Where a copy
    was cut off between two blocks, reading what is missing fails, at the latest when the rewriting is rehearsed.
    """
    block = _number(header, 5)
    there, rest = divmod(size - 3 * _HEADER, block)
    if _number(header, 4) <= there:
        return False
    needed = [
        _number(header, n) for n in (2, 3)
    ]  # all ones: there is none; else the lower 56 bits are a block's number
    return rest != 0 or any(there <= one & (1 << 56) - 1 for one in needed if one != 2**64 - 1)


def _number(header: bytes, n: int) -> int:
    """A field of a database header: checksum, iteration, meta block, free list, block count, size of a block."""
    return int.from_bytes(header[8 * n : 8 * n + 8], "little")


def spilled(path: Path) -> list[Path]:
    """What engines of others spilled beside a database and, killed, left there."""
    folder = beside(path, SPILL)
    if folder.is_symlink() or not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_file() and not p.is_symlink())


def literal(text: str) -> str:
    """A path as SQL."""
    return "'" + text.replace("'", "''") + "'"

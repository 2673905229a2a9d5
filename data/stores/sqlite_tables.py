"""What the SQLite store knows of one database file: whether it is sound, its tables, and rows as Arrow batches.

SQLite's columns hold values of any type, so a column's Arrow type is that of the values it really has. SQLite's own
messages may quote values; every refusal is said again in our words.
"""

# ruff: noqa: S608  -- names of tables and columns are quoted by `quoted`, values are always bound
from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from fangxin.data.stores.database_files import beside, not_there, plain_file, quoted, unavailable
from fangxin.data.vocabulary import Collection, Positions, Rows

BATCH = 65536  # rows
BUSY = 1.0  # seconds to wait for another connection's lock
_MAGIC = b"SQLite format 3\x00"
Value = int | float | str | bytes | None  # what a column of SQLite holds
_HOT = bytes.fromhex("d9d505f920a163d7")  # how a rollback journal begins while it still counts


# ---------------------------------------------------------------- tables and columns


class Column:
    """A column as it is stored: the Arrow type its values fit, and how to select them so."""

    def __init__(self, name: str, declared: str, kinds: set[str], *, must_be_filled: bool) -> None:
        self.name, self.declared, self.kinds, self.must_be_filled = name, declared.upper(), kinds, must_be_filled
        self.type = _arrow_type(self.declared, kinds)
        protected = kinds == {"blob"} and bool(declared) and "BLOB" not in self.declared
        self.field = pa.field(name, self.type, metadata={"fangxin.protected": "1"} if protected else None)
        q = quoted(name)
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


class Table:
    """A table with rowids: how to name it in SQL, its rowid, and its columns."""

    def __init__(self, unit: str, name: str, rowid: str, columns: Mapping[str, Column]) -> None:
        self.unit, self.name, self.rowid, self.columns = unit, name, rowid, columns
        self.sql = quoted(name)

    def plain(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those of the columns that hold values in the clear."""
        for name in names:
            self.require(name, "")
        return tuple(name for name in names if self.columns[name].kinds - {"blob"})

    def hidden(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those of the columns that hold blobs."""
        for name in names:
            self.require(name, "")
        return tuple(name for name in names if "blob" in self.columns[name].kinds)

    def without_blobs(self, names: Sequence[str]) -> Table:
        """The same table, reading only the plain values of these columns."""
        return self._with({name: self.columns[name].kinds - {"blob"} for name in names})

    def only_blobs(self, name: str, *, without: Sequence[str]) -> Table:
        """The same table, reading only the blobs of this column, and not the others."""
        found = self._with({name: {"blob"}})
        columns = {one: column for one, column in found.columns.items() if one == name or one not in without}
        return Table(self.unit, self.name, self.rowid, columns)

    def _with(self, kinds: Mapping[str, set[str]]) -> Table:
        columns = dict(self.columns)
        for name, some in kinds.items():
            old = columns[name]
            columns[name] = Column(name, old.declared, some, must_be_filled=old.must_be_filled)
        return Table(self.unit, self.name, self.rowid, columns)

    def require(self, column: str, where: str) -> bool:
        """Raise StoreUnavailable if the column is not there; `where` is the catalog's line."""
        if column not in self.columns:
            raise not_there(
                self.unit,
                f"column {column} in table {self.name}",
                ", ".join(self.columns),
                f"correct the catalog{f' at {where}' if where else ''}",
            )
        return True


def look(db: sqlite3.Connection, unit: str, collection: Collection) -> Table:
    """Read a table's columns and the types its values really have (SQLite's columns hold anything)."""
    name = collection.name
    kind = db.execute("SELECT type, wr FROM pragma_table_list WHERE schema = 'main' AND name = ?", (name,)).fetchone()
    fix = f"correct the catalog at {collection.where}" if collection.where else "correct the catalog"
    if kind is None:
        raise not_there(unit, f"table {name}", "no such table", fix)
    if kind[0] not in ("table", "virtual"):
        raise not_there(unit, f"table {name}", f"a {kind[0]}", "name the table behind it in the catalog")
    if kind[1]:
        raise unavailable(unit, f"rowids in table {name}", "WITHOUT ROWID", "its rows cannot be addressed; recreate it")
    info = db.execute(f"PRAGMA table_xinfo({quoted(name)})").fetchall()
    info = [row for row in info if row[6] != 1]  # hidden columns of virtual tables
    names = [row[1] for row in info]
    keys = [row for row in info if row[5]]
    alias = len(keys) == 1 and keys[0][2].upper() == "INTEGER"
    rowid = next((r for r in ("rowid", "_rowid_", "oid") if r not in {n.lower() for n in names}), None)
    if rowid is None:
        raise unavailable(unit, f"rowids in table {name}", "columns of that name", "rename one of the columns")
    kinds: list[set[str]] = [set() for _ in names]
    types = ", ".join(f"typeof({quoted(n)})" for n in names)
    for combination in db.execute(f"SELECT DISTINCT {types} FROM {quoted(name)}"):
        for found, one in zip(kinds, combination, strict=True):
            found.add(one)
    columns = {
        row[1]: Column(
            row[1],
            row[2],
            found - {"null"},
            must_be_filled=bool(row[3] or (row[5] and not alias)) and row[4] is None and row[6] == 0,
        )
        for row, found in zip(info, kinds, strict=True)
    }
    return Table(unit, name, rowid, columns)


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


def stream(db: sqlite3.Connection, unit: str, table: Table, names: Sequence[str], *, where: str = "") -> Iterator[Rows]:
    """Yield rows in the order of rowids, in Arrow batches."""
    chosen = ", ".join([table.rowid, *(table.columns[name].sql for name in names)])
    cursor = db.execute(f"SELECT {chosen} FROM {table.sql}{where} ORDER BY {table.rowid}")
    schema = pa.schema([(name, table.columns[name].type) for name in names])
    while rows := cursor.fetchmany(BATCH):
        ids, *columns = zip(*rows, strict=True)
        arrays = [pa.array(values, type=kind) for values, kind in zip(columns, schema.types, strict=True)]
        yield Rows(unit, np.array(ids, dtype=np.int64), pa.record_batch(arrays, schema=schema))


def remember(db: sqlite3.Connection, positions: Positions) -> str:
    """Put rowids into a temporary table in memory, so that no statement names a row; return its name."""
    taken = count(db, "sqlite_temp_master WHERE name LIKE 'ids~_%' ESCAPE '~'")
    name = f"temp.ids_{taken}"
    db.execute(f"CREATE TEMP TABLE ids_{taken} (id INTEGER PRIMARY KEY)")
    if alone := not db.in_transaction:
        db.execute("BEGIN")
    db.executemany(f"INSERT OR IGNORE INTO {name} VALUES (?)", zip(positions.tolist()))  # noqa: B905
    if alone:
        db.execute("COMMIT")
    return name


def sequences(db: sqlite3.Connection) -> dict[str, int]:
    """The last number that every AUTOINCREMENT table gave; none where the database has no such table."""
    if not count(db, "main.sqlite_master WHERE name = 'sqlite_sequence'"):
        return {}
    return dict(db.execute("SELECT name, seq FROM main.sqlite_sequence").fetchall())


def put_back(db: sqlite3.Connection, counters: Mapping[str, int]) -> None:
    """Let AUTOINCREMENT go on from these numbers: a row that comes and goes leaves no gap behind it."""
    for name, now in sequences(db).items():
        if name not in counters:
            db.execute("DELETE FROM main.sqlite_sequence WHERE name = ?", (name,))
        elif counters[name] != now:
            db.execute("UPDATE main.sqlite_sequence SET seq = ? WHERE name = ?", (counters[name], name))


class FullText:
    """A full-text index, known by its shadow tables: who made it, and whether it keeps what it indexed."""

    def __init__(self, name: str, sql: str, shadows: set[str]) -> None:
        self.name, self.table = name, quoted(name)
        self.fts5 = f"{name}_data".lower() in shadows
        own = f"{name}_content".lower() in shadows
        elsewhere = not own and _CONTENT.search(without_comments(sql)) is not None
        self.contentless, self.elsewhere = not own and not elsewhere, elsewhere

    def agrees(self, db: sqlite3.Connection) -> bool:
        """Whether the index is what its content would make of it (asked of a connection that may write)."""
        column, value = (", rank", ", 1") if self.fts5 else ("", "")
        try:
            db.execute(f"INSERT INTO {self.table} ({self.table}{column}) VALUES ('integrity-check'{value})")
        except sqlite3.DatabaseError as refused:
            code = getattr(refused, "sqlite_errorcode", 0) & 0xFF
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
                raise
            return False
        return True

    def rebuild(self, db: sqlite3.Connection) -> None:
        """Make the index anew from its content."""
        for word in ("rebuild", "optimize"):
            db.execute(f"INSERT INTO {self.table} ({self.table}) VALUES (?)", (word,))


_CONTENT = re.compile(r"""[(,]\s*content\s*=\s*['"`\[]?\s*[^\s'"`\],)]""", re.IGNORECASE)  # with a name behind it
_TOKENS = re.compile(
    r"""('(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\])|/\*.*?(?:\*/|\Z)|--[^\n]*""", re.DOTALL
)


def without_comments(sql: str) -> str:
    """SQL with a space for every comment; quotes keep what looks like one."""
    return _TOKENS.sub(lambda found: found[1] or " ", sql)


def full_texts(db: sqlite3.Connection) -> list[FullText]:
    """Every full-text index of the database, however its statement was written."""
    tables = db.execute("SELECT name, sql FROM main.sqlite_master WHERE type = 'table'").fetchall()
    names = {name.lower() for name, _sql in tables}
    virtual = [row for row in tables if _VIRTUAL.match(without_comments(row[1] or ""))]
    signs = (("_data", "_idx"), ("_segments", "_segdir"))
    return [
        FullText(name, sql, names)
        for name, sql in virtual
        if any(all(name.lower() + end in names for end in sign) for sign in signs)
    ]


_VIRTUAL = re.compile(r"\s*CREATE\s+VIRTUAL\s", re.IGNORECASE)


def forgetful(db: sqlite3.Connection, unit: str) -> None:
    """Raise StoreUnavailable for a full-text index without content: it cannot be shown to forget a row."""
    for index in full_texts(db):
        if index.contentless:
            raise unavailable(
                unit,
                f"full-text index {index.name} to have its content",
                "a contentless one, whose words cannot be shown to go",
                "drop it, or make it anew with content",
            )


def faithful(db: sqlite3.Connection, unit: str) -> None:
    """Raise StoreUnavailable for an index over another table that rebuilding would change for other people."""
    forgetful(db, unit)
    for index in full_texts(db):
        if index.elsewhere and not index.agrees(db):
            raise unavailable(
                unit,
                f"full-text index {index.name} to say what its content table says",
                "another text, or no such content",
                "rebuild it and see whether it still serves, or drop it",
            )


def settle_indexes(db: sqlite3.Connection) -> None:
    """Rebuild full-text indexes from their content and empty sampled statistics: both remember deleted values."""
    for index in full_texts(db):
        index.rebuild(db)
    for (name,) in db.execute(
        "SELECT name FROM sqlite_master WHERE name IN ('sqlite_stat3', 'sqlite_stat4')"
    ).fetchall():
        db.execute(f"DELETE FROM {quoted(name)}")


@contextlib.contextmanager
def quietly(db: sqlite3.Connection, unit: str) -> Iterator[None]:
    """Inside a transaction: the application's triggers do not fire, its full-text indexes follow; all is put back."""
    schema = "SELECT type, name, tbl_name, sql FROM main.sqlite_master ORDER BY type, name"
    before = db.execute(schema).fetchall()
    triggers = db.execute("SELECT name, sql FROM main.sqlite_master WHERE type = 'trigger' ORDER BY rowid").fetchall()
    faithful(db, unit)
    for name, _sql in triggers:
        db.execute(f"DROP TRIGGER main.{quoted(name)}")
    yield
    for _name, sql in triggers:
        db.execute(sql)
    for index in full_texts(db):
        if index.elsewhere and not index.agrees(db):
            index.rebuild(db)  # a trigger kept it up to date
    if db.execute(schema).fetchall() != before:
        raise unavailable(unit, "its triggers as they were", "others", "report it as a defect; nothing was changed")


def plain_tables(db: sqlite3.Connection) -> list[str]:
    """Tables whose rows are compared: not virtual, not the shadows of one (rebuilt), not the sampled statistics."""
    found = db.execute("SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'").fetchall()
    skipped = ("sqlite_schema", "sqlite_stat3", "sqlite_stat4")
    return sorted(name for (name,) in found if name not in skipped)


def row_key(db: sqlite3.Connection, name: str, columns: Sequence[str]) -> list[str]:
    """What names a row of the table: its rowid, or its primary key if it has none."""
    (wr,) = db.execute("SELECT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?", (name,)).fetchone()
    rowid = next((r for r in ("rowid", "_rowid_", "oid") if r not in {c.lower() for c in columns}), None)
    if not wr and rowid:
        return [rowid]
    return [quoted(row[1]) for row in db.execute(f"PRAGMA main.table_xinfo({quoted(name)})") if row[5]]


# ---------------------------------------------------------------- files and connections


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """Open a database in autocommit; mode ro, rw or rwc. Sorting never spills to disk."""
    db = sqlite3.connect(
        f"file:{quote(os.fspath(path.absolute()))}?mode={mode}", uri=True, timeout=BUSY, isolation_level=None
    )
    db.execute("PRAGMA temp_store=MEMORY")
    return db


def begin_writing(db: sqlite3.Connection, unit: str) -> bool:
    """Begin to write so that no journal is shed; return whether the database uses a WAL."""
    wal = bool(db.execute("PRAGMA journal_mode").fetchone()[0] == "wal")
    if not wal and db.execute("PRAGMA journal_mode=PERSIST").fetchone()[0] != "persist":
        raise unavailable(unit, "to be the only connection", "another one", "close the application")
    db.execute("BEGIN IMMEDIATE")
    return wal


@contextlib.contextmanager
def asking(unit: str) -> Iterator[None]:
    """Say in our words what SQLite refused: its own messages may quote a value."""
    try:
        yield
    except sqlite3.Error as refused:
        code = "SQLITE_CONSTRAINT" if broken(refused) else getattr(refused, "sqlite_errorname", "") or ""
        raise unavailable(unit, "to work on it with SQLite", *_explained(code)) from None
    except pa.ArrowException:
        raise unavailable(
            unit, "values of the type seen before", "others", "somebody writes to it: try again"
        ) from None


def broken(refused: sqlite3.Error) -> bool:
    """Whether SQLite refused because a rule of the table is broken; Python does not name all of those codes."""
    return getattr(refused, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CONSTRAINT


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


def plain_database(path: Path, unit: str, *, for_writing: bool) -> None:
    """Raise StoreUnavailable unless the path is a plain, whole SQLite file we may use, without a hot journal."""
    now = plain_file(path, unit, for_writing=for_writing)
    with path.open("rb") as file:  # before SQLite opens it: closing a second handle would drop SQLite's locks
        head = file.read(100)
    if len(head) < 100 or not head.startswith(_MAGIC):
        raise unavailable(unit, "a SQLite database", "another format or a truncated file", "correct the catalog")
    size = int.from_bytes(head[16:18], "big")
    pages = int.from_bytes(head[28:32], "big")
    if head[24:28] == head[92:96] and pages * (65536 if size == 1 else size) > now.st_size:
        raise unavailable(unit, "a whole database", "a truncated file", "restore it from a backup")
    journal = beside(path, "-journal")
    if journal.is_file() and _begins(journal) == _HOT:
        raise unavailable(
            unit, "no open transaction", "a hot journal", "an application stopped midway: open it once with that"
        )


def _begins(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(_HOT))


def count(db: sqlite3.Connection, table: str) -> int:
    """How many rows a table (or a join, or a selection of one) has."""
    return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def bindable(value: object) -> Value:
    """A value as SQLite stores it; dates and decimals as their text."""
    return value if value is None or isinstance(value, int | float | str | bytes) else str(value)

"""The file of a vault's pages: SQLite as a crash-safe map from row id to page body, and a little plain metadata.

Only ciphertext and public facts are in it, so it may be copied anywhere. `node(id, slot)` has id = 2 * page + half and
says in which row of `slot(slot, body)` the body lies; `meta(name, value)` says how the tree is shaped and which
numbers, nonces and domain codes were handed out.

* A body fills a page of the file. What dies is overwritten with zeros where it lies, and `free(slot, long)` keeps the
  place for the next body: taking a row out of SQLite's tree, or putting one between two, would write ten pages.
* Pieces of a body that grew can stay in the slack of a page. They are ciphertext; nothing rests on their absence.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import numpy as np

from fangxin.data.errors import Unavailable, VaultDamaged, WriterBusy
from fangxin.data.keys.gcm import Numbers, Texts
from fangxin.data.keys.mapped import Mapped, Sight, Table
from fangxin.data.keys.roots.file import sync_folder

TABLES = """
CREATE TABLE node(id INTEGER PRIMARY KEY, slot INTEGER NOT NULL);
CREATE TABLE slot(slot INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE free(slot INTEGER PRIMARY KEY, long INTEGER NOT NULL);
CREATE TABLE meta(name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
"""
PLACES = (
    ("places of two rows", "SELECT count(*) - count(DISTINCT slot) FROM node"),
    ("rows without a place", "SELECT count(*) FROM node WHERE slot NOT IN (SELECT slot FROM slot)"),
    ("free places that a row has", "SELECT count(*) FROM free WHERE slot IN (SELECT slot FROM node)"),
    (
        "places that no row has and that are not free",
        "SELECT count(*) FROM slot WHERE slot NOT IN (SELECT slot FROM node UNION ALL SELECT slot FROM free)",
    ),
    (
        "free places that are not zeros",
        "SELECT count(*) FROM free CROSS JOIN slot ON slot.slot = free.slot WHERE body != zeroblob(length(body))",
    ),
)
ROWS = "SELECT id, body FROM node CROSS JOIN slot ON slot.slot = node.slot"
ROW = "SELECT body FROM slot WHERE slot = (SELECT slot FROM node WHERE id = ?)"
# Only what is zeros is written over: a list of free places that is damaged costs no living page.
FREE = (
    "SELECT free.slot FROM free CROSS JOIN slot ON slot.slot = free.slot "
    "WHERE long = ? AND body = zeroblob(length(body)) LIMIT ?"
)
NOTES_BUT = (
    "SELECT name, value FROM meta WHERE name < ? UNION ALL SELECT name, value FROM meta WHERE name >= ? "
    "UNION ALL SELECT name, value FROM meta WHERE name = ?"
)
SIZES = "SELECT node.id, node.slot, length(body) FROM node CROSS JOIN slot ON slot.slot = node.slot"
TOLD = (
    "SELECT group_concat(id), group_concat(CAST(slot AS INTEGER)) "
    "FROM (SELECT id, slot FROM node WHERE id > ? ORDER BY id LIMIT 65536)"
)
WAL_LIMIT = 8 << 20  # bytes of log after which an insert checkpoints
CACHE = 64 << 20  # bytes of pages that a batch keeps before it spills them to the log, to write them there once
MAPPED = 1 << 40  # bytes of the file that are read where the kernel has them; nobody cuts the file short
LOSSY = "lossy"  # noted where a restore may have lost keys that older copies still open
HALF = 2048  # bytes of a body above which it fills its page alone
FEW = 4  # rows that are read one by one
SPACED = 8  # of so many rows one leaves room for another
PLACEABLE = 16  # values that a statement names one by one
LAST = "\U0010ffff"  # above every name
MANY = 4096  # rows from which looking where they lie pays
DENSE = 8  # a range of ids is read whole if at least every fourth page is wanted
SEEN = 16  # so many ids to a wanted one at most, and bodies are looked for where they lie

# A connection inherited over fork must be neither used nor closed: both touch the parent's locks.
_inherited: list[sqlite3.Connection] = []


@dataclass
class Changes:
    """What a transaction writes: bodies (None = row deleted) and metadata (None = removed), for a replica."""

    bodies: dict[int, bytes | None] = field(default_factory=dict, repr=False)
    notes: dict[str, bytes | None] = field(default_factory=dict)


class VaultFile:
    """One connection to the pages of one tree; threads take turns on it, a forked child opens its own."""

    def __init__(self, path: Path, *, fixed: bool = False) -> None:
        """`fixed`: a self-contained copy that nobody writes, perhaps on a medium that nobody can write."""
        self.path = path
        self._name, self._log, self._spoken = str(path), f"{path}-wal", _Spoken(path.name)
        self._mode = "mode=ro&immutable=1" if fixed else "mode=rw"
        self._mutex = threading.RLock()
        self._pid = os.getpid()
        self._inode = 0
        self._connection: sqlite3.Connection | None = None
        self._changes: Changes | None = None
        self._mapped: Mapped | None = None
        self._known: tuple[tuple[Mapped, int, int], tuple[Numbers, Numbers, Table]] | None = None

    @classmethod
    def create(cls, path: Path, meta: Mapping[str, bytes], nodes: Iterable[tuple[int, bytes]]) -> None:
        """Write a whole new file; it appears under its name whole and durable, or not at all."""
        part = path.with_name(path.name + ".partial")
        part.unlink(missing_ok=True)
        with _Spoken(path.name), contextlib.closing(sqlite3.connect(part, isolation_level=None)) as db:
            db.execute("PRAGMA page_size=4096")
            db.execute("PRAGMA journal_mode=OFF")
            db.execute("PRAGMA synchronous=OFF")
            db.executescript(TABLES)
            db.execute("BEGIN IMMEDIATE")
            db.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
            placed = []
            for slot, (node, body) in enumerate(nodes, 1):
                db.execute("INSERT INTO slot VALUES (?, ?)", (slot, body))
                placed.append((node, slot))
            db.executemany("INSERT INTO node VALUES (?, ?)", _spaced(placed))
            db.execute("DELETE FROM node WHERE slot = 0")
            db.execute("COMMIT")
            db.execute("PRAGMA journal_mode=WAL")
        sync_file(part)
        part.rename(path)
        sync_folder(path.parent)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Reads inside see one state, which begins with the first of them; nests in a transaction."""
        with self._mutex, self._spoken:
            db = self._db()
            if db.in_transaction:
                yield
                return
            db.execute("BEGIN")
            try:
                yield
            finally:
                db.execute("ROLLBACK")

    @contextlib.contextmanager
    def transaction(self, ship: Callable[[Changes], None] | None = None, *, soon: bool = False) -> Iterator[None]:
        """All writes inside are durable when it ends, or none is. `Unchanged` ends it quietly without any.

        `ship` is given all that was written just before the commit; if it raises, nothing was written. `soon`: durable
        with the checkpoint that follows, so that nobody waits twice.
        """
        with self._mutex, self._spoken:
            db = self._db()
            if soon:
                db.execute("PRAGMA synchronous=NORMAL")
            db.execute("BEGIN IMMEDIATE")
            self._changes = Changes() if ship else None
            try:
                yield
                if ship and self._changes and (self._changes.bodies or self._changes.notes):
                    ship(self._changes)
                db.execute("COMMIT")
            except Unchanged:
                db.execute("ROLLBACK")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            finally:
                self._changes = None
                if soon:
                    db.execute("PRAGMA synchronous=FULL")

    @contextlib.contextmanager
    def part(self) -> Iterator[None]:
        """A part of a transaction that can fail alone: then what it wrote is undone, and its error goes on."""
        db, changes = self._db(), self._changes
        kept = Changes(dict(changes.bodies), dict(changes.notes)) if changes else None
        db.execute("SAVEPOINT part")
        try:
            yield
        except BaseException:
            db.execute("ROLLBACK TO part")
            self._changes = kept
            raise
        finally:
            db.execute("RELEASE part")

    def rows(self, nodes: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """Id and body of some rows (both ascending), as far as they are there; perhaps of others between them."""
        db = self._db()
        if len(nodes) <= FEW:
            return ((node, body) for node in nodes if (body := self.body(node)) is not None)
        if nodes[-1] - nodes[0] < DENSE * len(nodes):
            return db.execute(f"{ROWS} WHERE id BETWEEN ? AND ? ORDER BY id", (nodes[0], nodes[-1]))
        # The left side of a cross join is always the outer loop, so the rows come in the order asked for.
        asked = (
            "SELECT node.id, body FROM json_each(?) AS asked CROSS JOIN node ON node.id = asked.value "
            "CROSS JOIN slot ON slot.slot = node.slot"
        )
        return db.execute(asked, (json.dumps(nodes),))

    def body(self, node: int) -> Any:
        """One row's body; None if it is not there, and perhaps something else where there is damage."""
        found = self._db().execute(ROW, (node,)).fetchone()
        return found and found[0]

    def bodies(self, nodes: Numbers) -> Texts:
        """The bodies of some rows (ascending), one after the other; size 0 where a row is not there."""
        wanted = dict.fromkeys(nodes.tolist(), b"")
        for node, body in self.rows(list(wanted)) if wanted else ():
            if node in wanted and isinstance(body, bytes):  # damage may have put anything there
                wanted[node] = body
        found = wanted.values()
        size = np.fromiter(map(len, found), np.int64, len(found))
        memory = b"".join((*found, bytes(2)))  # never empty, so that a row that is not there has a place, too
        return Texts(np.frombuffer(memory, np.uint8), np.cumsum(size) - size, size)

    def sight(self, nodes: Numbers) -> Sight | None:
        """Where the bodies of some rows (ascending) seem to lie, for `mapped.py`; None where that does not pay."""
        if len(nodes) < MANY or nodes[-1] - nodes[0] >= SEEN * len(nodes):
            return None
        # A look by SQLite comes first: if the log is empty then, its snapshot is the file, and stays it to its end.
        (root,) = self._db().execute("SELECT rootpage FROM sqlite_master WHERE name = 'slot'").fetchone()
        try:
            whole = self._log_size() == 0
            if self._mapped is None or self._mapped.size != self.path.stat().st_size:
                self._mapped = Mapped(self.path)
            ids, slots, table = self._whereabouts(self._mapped, root)
        except (OSError, ValueError):
            return None
        place = np.minimum(np.searchsorted(ids, nodes), len(ids) - 1)
        return table.sight(np.where(ids[place] == nodes, slots[place], 0), whole=whole)

    def _whereabouts(self, mapped: Mapped, root: int) -> tuple[Numbers, Numbers, Table]:
        """Every row and the slot that it has, and the table of slots; kept until somebody writes."""
        db = self._db()
        now = (db.execute("PRAGMA data_version").fetchone()[0], db.total_changes)
        if self._known is None or self._known[0] != (mapped, *now):
            ids, slots = np.array([-1]), np.array([0])
            while True:
                told = db.execute(TOLD, (int(ids[-1]),)).fetchone()
                if told[0] is None:
                    break
                more = [np.fromstring(text, np.int64, sep=",") for text in told]
                ids, slots = np.concatenate((ids, more[0])), np.concatenate((slots, more[1]))
            self._known = (mapped, *now), (ids, slots, mapped.table(root))
        return self._known[1]

    def put(self, nodes: Iterable[tuple[int, bytes]], instead: Sequence[int] = ()) -> None:
        """Write bodies; inside a transaction. `instead`: rows that go, so that new ones may lie in their places."""
        bodies = dict(nodes)
        held, going = self._lying(bodies, instead)
        moved: dict[int, int] = {}
        for node, body in bodies.items():
            if node not in held and (dead := going[len(body) > HALF]):
                moved[node], held[node] = dead.popitem()
        if held:
            bodies_of = ((bytearray(bodies[node]), slot) for node, slot in held.items())
            self._db().executemany("UPDATE slot SET body = ? WHERE slot = ?", bodies_of)
        if moved:
            self._db().executemany("UPDATE node SET id = ? WHERE id = ?", moved.items())
        if new := [(node, body) for node, body in bodies.items() if node not in held]:
            self._place(new)
        if self._changes:
            self._changes.bodies.update(bodies)
            self._changes.bodies.update(dict.fromkeys(moved.values()))
        if rest := [*going[False], *going[True]]:
            self.drop(rest)

    def drop(self, nodes: Iterable[int]) -> None:
        """Delete rows; inside a transaction. Their bodies are zeros from then on."""
        nodes = list(nodes)
        db, slots = self._db(), [(slot,) for slot in self._slots(nodes).values()]
        db.executemany("INSERT OR REPLACE INTO free SELECT slot, length(body) > 2048 FROM slot WHERE slot = ?", slots)
        db.executemany("UPDATE slot SET body = zeroblob(length(body)) WHERE slot = ?", slots)
        db.executemany("DELETE FROM node WHERE id = ?", ((node,) for node in nodes))
        if self._changes:
            self._changes.bodies.update(dict.fromkeys(nodes))

    def _slots(self, nodes: Sequence[int]) -> dict[int, int]:
        """In which slot each row lies, as far as it is there."""
        among, values = _among(nodes)
        return dict(self._db().execute(f"SELECT id, slot FROM node WHERE id {among}", values))  # noqa: S608

    def _sizes(self, nodes: Sequence[int]) -> sqlite3.Cursor:
        if len(nodes) <= PLACEABLE:  # one after the other costs less than a list of them
            return self._db().execute(" UNION ALL ".join([f"{SIZES} WHERE node.id = ?"] * len(nodes)), nodes)
        among, values = _among(nodes)
        return self._db().execute(f"{SIZES} WHERE node.id {among}", values)

    def _lying(
        self, wanted: Mapping[int, bytes], instead: Sequence[int]
    ) -> tuple[dict[int, int], tuple[dict[int, int], dict[int, int]]]:
        """Rows and their slots, as far as they are there: those wanted, and of those that go the short and the long."""
        held: dict[int, int] = {}
        going: tuple[dict[int, int], dict[int, int]] = {}, {}
        if not instead:
            return self._slots(list(wanted)), going
        for node, slot, size in self._sizes([*{*wanted, *instead}]):
            (held if node in wanted else going[size > HALF])[node] = slot
        return held, going

    def _place(self, nodes: Sequence[tuple[int, bytes]]) -> None:
        """Put new rows into free slots that held as much, and where there is none behind the last."""
        db = self._db()
        for long in (False, True):
            some = [(node, body) for node, body in nodes if (len(body) > HALF) == long]
            if not some:
                continue
            free = db.execute(FREE, (long, len(some))).fetchall()
            slots = [slot for (slot,) in free]
            if lacking := len(some) - len(free):
                (last,) = db.execute("SELECT ifnull(max(slot), 0) FROM slot").fetchone()
                slots += range(last + 1, last + 1 + lacking)
            db.executemany("DELETE FROM free WHERE slot = ?", free)
            bodies = ((slot, body) for slot, (_, body) in zip(slots, some, strict=True))
            db.executemany("INSERT OR REPLACE INTO slot VALUES (?, ?)", bodies)
            placed = ((node, slot) for slot, (node, _) in zip(slots, some, strict=True))
            db.executemany("INSERT INTO node VALUES (?, ?)", placed)

    def nodes(self) -> Iterator[int]:
        """The id of every row."""
        return (row[0] for row in self._db().execute("SELECT id FROM node"))

    def meta(self, prefix: str = "") -> dict[str, bytes]:
        """All metadata whose names begin so."""
        rows = self._db().execute("SELECT name, value FROM meta WHERE name >= ? AND name < ?", (prefix, prefix + LAST))
        return {name: bytes(value) for name, value in rows}

    def some(self, *names: str) -> dict[str, bytes]:
        """Some pieces of metadata at once, as far as they are there."""
        among, values = _among(names)
        rows = self._db().execute(f"SELECT name, value FROM meta WHERE name {among}", values)  # noqa: S608
        return {name: bytes(value) for name, value in rows}

    def peek(self, *names: str) -> dict[str, bytes]:
        """The same of one moment, outside of a snapshot or transaction."""
        with self._mutex, self._spoken:
            return self.some(*names)

    def all_but(self, prefix: str, name: str) -> dict[str, bytes]:
        """All metadata but what begins so, and one piece that does: a third of what a dozen names cost."""
        rows = self._db().execute(NOTES_BUT, (prefix, prefix + LAST, name))
        return {name: bytes(value) for name, value in rows}

    def noted(self, name: str) -> bytes | None:
        """One piece of metadata."""
        row = self._db().execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return bytes(row[0]) if row else None

    def number(self, name: str) -> int:
        """One piece of metadata that is a number; 0 where there is none."""
        return int(self.noted(name) or b"0")

    def note(self, name: str, value: bytes | None) -> None:
        """Set one piece of metadata, or remove it; inside a transaction."""
        self.notes({name: value})

    def notes(self, notes: Mapping[str, bytes | None]) -> None:
        """Set some pieces of metadata, or remove them (None); inside a transaction."""
        db = self._db()
        # A bytearray is what the driver takes as it is; of bytes it asks each time whether they can be adapted.
        kept = [(name, bytearray(value)) for name, value in notes.items() if value is not None]
        gone = [(name,) for name, value in notes.items() if value is None]
        if kept:
            db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", kept)
        if gone:
            db.executemany("DELETE FROM meta WHERE name = ?", gone)
        if self._changes:
            self._changes.notes.update(notes)

    def checkpoint(self, *, always: bool) -> None:
        """Bring the log into the file and empty it; if not `always`, only a long one.

        A long reader may keep that from finishing, and the next one finishes it.
        """
        with self._mutex, self._spoken:
            if always or self._log_size() > WAL_LIMIT:
                self._db().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def faults(self) -> list[str]:
        """What SQLite itself finds wrong with the file; empty if nothing."""
        with self._mutex, self._spoken:
            found = [row[0] for row in self._db().execute("PRAGMA integrity_check(10)")]
        return [] if found == ["ok"] else found

    def misplaced(self) -> list[str]:
        """What is wrong with the places of bodies, each of which is one row's, or free and zeros; empty if nothing."""
        with self.snapshot():
            found = [(what, self._db().execute(sql).fetchone()[0]) for what, sql in PLACES]
        return [f"{what}: {count}" for what, count in found if count]

    def copy_to(self, target: Path, labels: Mapping[str, bytes], *, journal: str = "DELETE") -> None:
        """Write one consistent, self-contained copy with extra metadata; it appears, or takes another's place, whole.

        The log and journal of a file whose place it takes must be gone.
        """
        part = target.with_name(target.name + ".partial")
        part.unlink(missing_ok=True)
        with self._mutex, self._spoken:
            with contextlib.closing(sqlite3.connect(part, isolation_level=None)) as copy:
                copy.execute("PRAGMA synchronous=OFF")
                self._db().backup(copy)
                copy.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", labels.items())
                copy.execute(f"PRAGMA journal_mode={journal}")
            sync_file(part)
        part.rename(target)
        sync_folder(target.parent)

    def idle(self) -> None:
        """Return when a thread that reads just now has ended."""
        with self._mutex:
            pass

    def close(self) -> None:
        """Let the file go; the next use opens it again."""
        with self._mutex:
            if self._connection is not None and self._pid == os.getpid():
                self._connection.close()
            self._connection = self._mapped = self._known = None

    def _db(self) -> sqlite3.Connection:
        if self._connection is not None and self._pid != os.getpid():
            _inherited.append(self._connection)
            self._connection = None
        if self._connection is not None and not self._connection.in_transaction and self._inode != _inode(self._name):
            self._connection.close()  # a restored copy took its place, or it grew into another file
            self._connection = None
        if self._connection is None:
            self._mapped = self._known = None
            self._pid = os.getpid()
            self._inode = _inode(self._name)
            name = f"file:{quote(str(self.path))}?{self._mode}"
            db = sqlite3.connect(name, uri=True, isolation_level=None, timeout=10, check_same_thread=False)
            _prepare(db)
            self._connection = db
        return self._connection

    def _log_size(self) -> int:
        try:
            return os.stat(self._log).st_size  # noqa: PTH116  # after every batch
        except FileNotFoundError:
            return 0


class Unchanged(Exception):
    """Raised inside a transaction that turned out to have nothing to write."""


@contextlib.contextmanager
def alone(lock: Path | str, *, patience: float) -> Iterator[None]:
    """Hold a vault's lock; WriterBusy if somebody else holds it for longer than `patience` seconds."""
    fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        limit = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= limit:
                    raise WriterBusy(
                        "somebody else is writing this key vault",
                        hint="one writer at a time: wait for the other run, or stop it, then repeat",
                    ) from None
                time.sleep(0.01)
        yield
    finally:
        os.close(fd)


def read_copy(path: Path) -> tuple[dict[str, bytes], dict[int, bytes]]:
    """All metadata and all bodies of a self-contained copy, without changing it. VaultDamaged if it is none."""
    with (
        _Spoken(path.name),
        contextlib.closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro&immutable=1", uri=True)) as db,
    ):
        meta = {name: bytes(value) for name, value in db.execute("SELECT name, value FROM meta")}
        return meta, {node: bytes(body) for node, body in db.execute(ROWS)}


def siblings(path: Path) -> Iterator[Path]:
    """The names that SQLite gives what belongs to a file: log, index of the log, journal."""
    return (path.with_name(path.name + ending) for ending in ("-wal", "-shm", "-journal"))


def sync_file(path: Path) -> None:
    """Make the contents of a file durable."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _spaced(rows: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    # SQLite fills its pages to the last byte where rows ascend. Then the other half of a page would find no room beside
    # it, and a batch would write three pages more and a new one. So some come first, and go again.
    for number, (node, slot) in enumerate(rows):
        yield node, slot
        if not number % SPACED and not node & 1:
            yield node ^ 1, 0


def _among(values: Sequence[Any]) -> tuple[str, Sequence[Any]]:
    # A statement has places for some values only, and text for many takes longer to make than to read.
    if len(values) <= PLACEABLE:
        return f"IN ({','.join('?' * len(values))})", values
    return "IN (SELECT value FROM json_each(?))", (json.dumps(values),)


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino  # noqa: PTH116  # looked at before every use
    except FileNotFoundError:
        return 0


def _prepare(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA synchronous=FULL")
    db.execute("PRAGMA secure_delete=ON")
    db.execute("PRAGMA wal_autocheckpoint=0")
    db.execute("PRAGMA trusted_schema=OFF")
    db.execute("PRAGMA temp_store=MEMORY")
    db.execute(f"PRAGMA cache_size=-{CACHE >> 10}")
    db.execute(f"PRAGMA mmap_size={MAPPED}")


class _Spoken:
    """Turns SQLite's errors about a file into ours. A class, for it is entered again and again."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: type[BaseException] | None, cause: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(cause, sqlite3.OperationalError):
            raise Unavailable(
                f"the key vault's file {self._name} cannot be used: {cause}",
                hint="look for a full disk, a missing file, or a permission; nothing was half-written",
            ) from cause
        if isinstance(cause, sqlite3.DatabaseError):
            raise VaultDamaged(
                f"the key vault's file {self._name} is not what SQLite wrote: {cause}",
                hint="restore the newest backup that was made since the last destroy batch",
            ) from cause

"""The file of a vault's pages: SQLite as a crash-safe map from row id to page body, and a little plain metadata.

Only ciphertext and public facts are in it, so it may be copied anywhere. `node(id, body)` has id = 2 * page + half;
`meta(name, value)` says how the tree is shaped and which numbers, nonces and domain codes were handed out.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from fangxin.data.errors import NotAllowed, Unavailable, VaultDamaged, WriterBusy
from fangxin.data.keys.roots.file import sync_folder

TABLES = """
CREATE TABLE node(id INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE meta(name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
"""
WAL_LIMIT = 8 << 20  # bytes of log after which an insert checkpoints

# A connection inherited over fork must be neither used nor closed: both touch the parent's locks.
_inherited: list[sqlite3.Connection] = []


class VaultFile:
    """One connection to the pages of one tree; threads take turns on it, a forked child opens its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mutex = threading.RLock()
        self._pid = os.getpid()
        self._connection: sqlite3.Connection | None = None

    @classmethod
    def create(cls, path: Path, meta: Mapping[str, bytes], nodes: Iterable[tuple[int, bytes]]) -> None:
        """Write a whole new file; durable when it returns."""
        with _spoken(path), contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("PRAGMA page_size=4096")
            db.execute("PRAGMA journal_mode=WAL")
            _prepare(db)
            db.executescript(TABLES)
            db.execute("BEGIN IMMEDIATE")
            db.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
            db.executemany("INSERT INTO node VALUES (?, ?)", nodes)
            db.execute("COMMIT")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        sync_folder(path.parent)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Reads inside see one state, which begins with the first of them; nests in a transaction."""
        with self._mutex, _spoken(self.path):
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
    def transaction(self) -> Iterator[None]:
        """All writes inside are durable when it ends, or none is. `Unchanged` ends it quietly without any."""
        with self._mutex, _spoken(self.path):
            db = self._db()
            db.execute("BEGIN IMMEDIATE")
            try:
                yield
                db.execute("COMMIT")
            except Unchanged:
                db.execute("ROLLBACK")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    def body(self, node: int) -> bytes | None:
        """The body in a row, if there is one."""
        row = self._db().execute("SELECT body FROM node WHERE id = ?", (node,)).fetchone()
        return bytes(row[0]) if row else None

    def put(self, nodes: Iterable[tuple[int, bytes]]) -> None:
        """Write bodies; inside a transaction."""
        self._db().executemany("INSERT OR REPLACE INTO node VALUES (?, ?)", nodes)

    def drop(self, nodes: Iterable[int]) -> None:
        """Delete rows; inside a transaction. SQLite zeroes what it frees (secure_delete)."""
        self._db().executemany("DELETE FROM node WHERE id = ?", ((node,) for node in nodes))

    def nodes(self) -> Iterator[int]:
        """The id of every row."""
        return (row[0] for row in self._db().execute("SELECT id FROM node"))

    def meta(self, prefix: str = "") -> dict[str, bytes]:
        """All metadata whose names begin so."""
        rows = self._db().execute("SELECT name, value FROM meta WHERE substr(name, 1, ?) = ?", (len(prefix), prefix))
        return {name: bytes(value) for name, value in rows}

    def note(self, name: str, value: bytes | None) -> None:
        """Set one piece of metadata, or remove it; inside a transaction."""
        if value is None:
            self._db().execute("DELETE FROM meta WHERE name = ?", (name,))
        else:
            self._db().execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def checkpoint(self, *, always: bool) -> None:
        """Bring the log into the file and empty it; if not `always`, only a long one.

        A long reader may keep that from finishing, and the next one finishes it.
        """
        with self._mutex, _spoken(self.path):
            if always or self._log_size() > WAL_LIMIT:
                self._db().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def copy_to(self, target: Path, labels: Mapping[str, bytes]) -> None:
        """Write one consistent, self-contained copy with extra metadata; it appears whole or not at all."""
        if target.exists():
            raise NotAllowed("a backup would overwrite a file that exists", hint="give every backup its own name")
        part = target.with_name(target.name + ".partial")
        part.unlink(missing_ok=True)
        with self._mutex, _spoken(self.path):
            with contextlib.closing(sqlite3.connect(part, isolation_level=None)) as copy:
                self._db().backup(copy)
                copy.execute("PRAGMA journal_mode=DELETE")
                copy.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", labels.items())
            fd = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        part.rename(target)
        sync_folder(target.parent)

    def close(self) -> None:
        """Let the file go; the next use opens it again."""
        with self._mutex:
            if self._connection is not None and self._pid == os.getpid():
                self._connection.close()
            self._connection = None

    def _db(self) -> sqlite3.Connection:
        if self._connection is not None and self._pid != os.getpid():
            _inherited.append(self._connection)
            self._connection = None
        if self._connection is None:
            self._pid = os.getpid()
            db = sqlite3.connect(
                f"file:{self.path}?mode=rw", uri=True, isolation_level=None, timeout=10, check_same_thread=False
            )
            _prepare(db)
            self._connection = db
        return self._connection

    def _log_size(self) -> int:
        log = self.path.with_name(self.path.name + "-wal")
        return log.stat().st_size if log.exists() else 0


class Unchanged(Exception):
    """Raised inside a transaction that turned out to have nothing to write."""


@contextlib.contextmanager
def alone(lock: Path, *, patience: float) -> Iterator[None]:
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
    with _spoken(path), contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as db:
        meta = {name: bytes(value) for name, value in db.execute("SELECT name, value FROM meta")}
        return meta, {node: bytes(body) for node, body in db.execute("SELECT id, body FROM node")}


def _prepare(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA synchronous=FULL")
    db.execute("PRAGMA secure_delete=ON")
    db.execute("PRAGMA wal_autocheckpoint=0")
    db.execute("PRAGMA trusted_schema=OFF")
    db.execute("PRAGMA temp_store=MEMORY")


@contextlib.contextmanager
def _spoken(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except sqlite3.OperationalError as cause:
        raise Unavailable(
            f"the key vault's file {path.name} cannot be used: {cause}",
            hint="look for a full disk, a missing file, or a permission; nothing was half-written",
        ) from cause
    except sqlite3.DatabaseError as cause:
        raise VaultDamaged(
            f"the key vault's file {path.name} is not what SQLite wrote: {cause}",
            hint="restore the newest backup that was made since the last destroy batch",
        ) from cause

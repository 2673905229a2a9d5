"""Prefect's empty database, kept for the next home: to make one by its migrations takes fourteen seconds of a core.

A copy of a new one, taken before any flow ran in it and without what its server made up for itself, lies in the user's
cache (XDG Base Directory Specification) under Prefect's version. Where something is amiss nothing is copied, and
Prefect makes its own as ever. Nobody's data can be in it: it is kept only while no run was ever recorded.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing, suppress
from importlib.metadata import version
from pathlib import Path

_CONFIGURED = (
    "PREFECT_API_URL",
    "PREFECT_API_DATABASE_CONNECTION_URL",
    "PREFECT_SERVER_DATABASE_CONNECTION_URL",
    "PREFECT_PROFILE",
)
# What a server need not do over a database that is ready; both default to true.
PREPARED = ("PREFECT_API_DATABASE_MIGRATE_ON_START", "PREFECT_API_BLOCKS_REGISTER_ON_START")


def lay(database: Path) -> None:
    """Put the kept database where there is none yet."""
    with suppress(OSError, RuntimeError, sqlite3.Error):
        kept = _kept()
        if _elsewhere() or database.exists() or not kept.exists():
            return
        if not _whole(kept):
            kept.unlink()
            return
        new = database.with_name(f".{database.name}-{os.getpid()}")
        shutil.copyfile(kept, new)
        new.chmod(0o600)
        new.replace(database)


def is_ready(database: Path) -> bool:
    """Whether a database stands where the kept one does, which this Prefect migrated: nothing is left to be done."""
    with suppress(OSError, RuntimeError, sqlite3.Error):
        return not _elsewhere() and _revision(database) == _revision(_kept())
    return False


def _revision(database: Path) -> str:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
        return str(db.execute("SELECT version_num FROM alembic_version").fetchall())


def keep(database: Path) -> None:
    """Keep a database in which nothing ran, where none is kept; it may be open."""
    with suppress(OSError, RuntimeError, sqlite3.Error):
        kept = _kept()
        if _elsewhere() or kept.exists() or not database.exists():
            return
        kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = kept.with_name(f".{kept.name}-{os.getpid()}")
        try:
            with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as old, closing(_opened(new)) as db:
                old.backup(db)
                if db.execute("SELECT EXISTS (SELECT 1 FROM flow_run) + EXISTS (SELECT 1 FROM flow)").fetchone()[0]:
                    return
                with db:
                    db.execute("DELETE FROM configuration")  # a key for secrets that we never store there, among others
                db.execute("PRAGMA journal_mode = DELETE")
                db.execute("VACUUM")
            new.replace(kept)
        finally:
            new.unlink(missing_ok=True)


def _whole(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            return bool(db.execute("PRAGMA quick_check").fetchall() == [("ok",)])
    except sqlite3.DatabaseError:
        return False


def _opened(path: Path) -> sqlite3.Connection:
    path.touch(mode=0o600)
    return sqlite3.connect(path)


def _elsewhere() -> bool:
    return any(os.environ.get(name) for name in _CONFIGURED)


def _kept() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "fangxin" / f"prefect-{version('prefect')}.db"

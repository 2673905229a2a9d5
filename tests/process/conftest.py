"""A closures store on each database that carries one: a file of SQLite, and a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from process.postgres import database, server

from fangxin.data.closures.store import Closures

__all__ = ["server"]


@pytest.fixture(params=["sqlite", "postgresql"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Closures]]:
    """Opens the same new store again and again, as each process and thread does for itself."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'closures.db'}"
    else:
        url = database(request.getfixturevalue("server"))
    opened: list[Closures] = []

    def again() -> Closures:
        opened.append(Closures(url))
        return opened[-1]

    yield again
    for one in opened:
        one.engine.dispose()


@pytest.fixture
def store(make: Callable[[], Closures]) -> Closures:
    return make()

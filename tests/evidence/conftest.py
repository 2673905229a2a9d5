"""Homes with one erased person, for the tests of evidence."""

from __future__ import annotations

from pathlib import Path

import pytest
from evidence.small_home import Home, make_home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """One home for tests that only read it."""
    return make_home(tmp_path_factory.mktemp("home"))

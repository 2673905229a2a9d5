"""One LeCard estate for all journeys; whoever changes it takes a copy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from journeys.lecard import LeCard, make
from journeys.small_house import House, build


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> LeCard:
    """The estate that nobody may change: read from it, or copy it."""
    return make(tmp_path_factory.mktemp("pristine") / "lecard")


@pytest.fixture(scope="session")
def short(pristine: LeCard, tmp_path_factory: pytest.TempPathFactory) -> LeCard:
    """Four months of the estate, as it was; nobody changes it."""
    return pristine.short(tmp_path_factory.mktemp("short") / "lecard")


@pytest.fixture
def lecard(short: LeCard, tmp_path: Path) -> LeCard:
    """Four months of one's own."""
    return short.copy(tmp_path / "lecard")


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    """A house so small that every row can be counted by hand."""
    made = build(tmp_path)
    monkeypatch.setenv("FANGXIN_HOME", str(made.home))
    return made


@pytest.fixture(autouse=True, scope="module")
def _environment() -> Iterator[None]:
    """Journeys name their home in the environment; the tests of others never see it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FANGXIN_HOME", "unset")
        yield

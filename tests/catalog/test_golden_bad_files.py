"""Every wrong catalog is named after what is wrong with it, and says so at exactly that line and column."""

from pathlib import Path

import pytest

from fangxin.data.catalog.dataset import Severity, read_catalog
from fangxin.data.catalog.law import Laws
from fangxin.data.catalog.lint import lint
from fangxin.data.errors import CatalogError

HERE = Path(__file__).parent
FILES = sorted(p.name for p in (HERE / "bad").glob("*.yml"))


@pytest.fixture(scope="module")
def laws() -> Laws:
    return Laws.load(HERE.parents[1] / "data/laws")


@pytest.mark.parametrize("name", FILES)
def test_a_wrong_catalog_is_told_what_is_wrong_and_where(
    name: str, laws: Laws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(HERE / "bad")
    found = [f"{p.severity}: {p}" for p in lint([Path(name)], laws)]
    assert found == Path(name).with_suffix(".txt").read_text("utf-8").splitlines()


@pytest.mark.parametrize("name", [n for n in FILES if not n.startswith("lint_")])
def test_a_catalog_that_cannot_be_read_whole_is_refused_with_all_its_errors(
    name: str, laws: Laws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(HERE / "bad")
    with pytest.raises(CatalogError) as caught:
        read_catalog([Path(name)])
    assert caught.value.problems == [str(p) for p in lint([Path(name)], laws) if p.severity is Severity.ERROR]
    assert caught.value.exit_code == 3

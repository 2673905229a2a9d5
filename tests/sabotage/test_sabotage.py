"""A few lines of `make sabotage` in every test run, and where no step is ever left out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sabotage.estate import NOW, Estate, build
from sabotage.procedures import BLIND, BY_HAND, LEFT_OUT
from sabotage.run import blinded, leave_out

from fangxin.data.errors import InputError, NotAllowed
from fangxin.data.steps import STEPS, due, leaving_out, pretended
from fangxin.flows.estate import make_home, open_estate
from fangxin.flows.publish import software
from fangxin.flows.sabotage import log_run, permit


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Estate]:
    before = os.environ.get("FANGXIN_HOME")
    yield build(tmp_path_factory.mktemp("sabotage") / "pristine")
    os.environ.pop("FANGXIN_HOME", None)
    if before is not None:
        os.environ["FANGXIN_HOME"] = before


@pytest.mark.parametrize(
    ("step", "store"),
    [
        ("old file: hold", "sqlite:w"),
        pytest.param("parquet: dictionaries", "parquet", marks=pytest.mark.drill),
    ],
    ids=str,
)
def test_a_step_that_was_left_out_is_noticed_though_its_record_says_success(
    pristine: Estate, tmp_path: Path, step: str, store: str
) -> None:
    assert LEFT_OUT[step, store] in leave_out(pristine, tmp_path / "run", step, store)


def test_a_scanner_that_opens_no_gzip_is_stopped_at_the_baseline(pristine: Estate, tmp_path: Path) -> None:
    assert blinded(pristine, tmp_path / "run", BLIND["container gzip"]) == {"control"}


def test_every_step_that_can_be_left_out_is_on_the_list() -> None:
    listed = {step for step, _store in LEFT_OUT}
    assert listed == set(STEPS) - {"old file: overwrite"}  # which no reading of files can notice
    assert len(BY_HAND) > 5


def test_no_step_is_left_out_in_a_home_that_is_no_rehearsal_or_holds_a_request(
    pristine: Estate, tmp_path: Path
) -> None:
    make_home(tmp_path / "earnest", rehearsal=False, origin="earnest.example/erasure", now=NOW, capacity=500)
    with pytest.raises(NotAllowed, match="not a rehearsal home"):
        permit(tmp_path / "earnest")
    mine = pristine.copy(tmp_path / "asked")
    os.environ["FANGXIN_HOME"] = str(mine.home)
    allowed = permit(mine.home)
    mine.begin()
    with pytest.raises(NotAllowed, match="holds requests"):
        permit(mine.home)
    with pytest.raises(InputError, match="no procedure has a step"), leaving_out("everything", allowed):
        pass


def test_a_run_is_on_record_where_a_home_wants_to_show_it(pristine: Estate, tmp_path: Path) -> None:
    mine = pristine.copy(tmp_path / "shown")
    shutil.copytree(mine.catalog, mine.home / "catalog", dirs_exist_ok=True)
    log_run(mine.home, tried=52, noticed=51)
    told = [e for _n, e in open_estate(mine.home, mine.catalog).ledger.entries() if e["type"] == "sabotage.run"]
    assert [(e["mutants"], e["caught"], e["digest"]) for e in told] == [(52, 51, software().sha256)]


def test_outside_of_a_rehearsal_every_step_is_due_and_no_destruction_is_made_up() -> None:
    assert all(due(step) for step in STEPS)
    with pytest.raises(NotAllowed):
        pretended(1, 2, 3, ())

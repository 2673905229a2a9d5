"""What the closure finds of each leaver is what the generator knows of them, row for row."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import fangxin.data
from fangxin.data.catalog.dataset import read_catalog
from fangxin.data.catalog.identity import Closure, closure
from fangxin.data.catalog.kinds import canonical
from fangxin.data.catalog.law import Laws
from fangxin.data.sample.lecard import sample
from fangxin.data.stores.registry import open_stores
from fangxin.data.vocabulary import Cohort, Identity, Meter, Subject
from fangxin.flows.locate import Look


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Closure, dict[str, Any]]:
    """The closure of all leavers over the real stores, and the generator's own account of them."""
    made = sample(tmp_path_factory.mktemp("estate") / "lecard", people=200, seed=7)
    catalog = read_catalog([made.catalog])
    laws = Laws.load(Path(fangxin.data.__file__ or "").parent / "laws")
    here = SimpleNamespace(catalog=catalog, stores=open_stores(catalog, Meter()), laws=laws)
    subjects = tuple(
        Subject(str(number), tuple(Identity(kind, canonical(kind, value)) for kind, value in row.items()))
        for number, row in enumerate(csv.DictReader(made.leavers.read_text().splitlines()))
    )
    return closure(catalog, Cohort(subjects), Look(here)), json.loads(made.cast.read_text())


def _counts(found: Closure, subject: int, edge: str) -> dict[str, int]:
    counted: dict[str, int] = {}
    for row in found.traces.select(["subject", "collection", "edge"]).to_pylist():
        if row["subject"] == subject and row["edge"] == edge:
            counted[row["collection"]] = counted.get(row["collection"], 0) + 1
    return counted


@pytest.mark.parametrize("edge", ["owns", "shares", "mentions"])
def test_every_row_of_every_leaver_is_found_and_no_other(found: tuple[Closure, dict[str, Any]], edge: str) -> None:
    traced, truth = found
    for number, person in enumerate(truth["leavers"]):
        expected = {collection: rows for collection, rows in person[edge].items() if rows}
        assert _counts(traced, number, edge) == expected


def test_nobody_halts_a_walk_over_the_sample(found: tuple[Closure, dict[str, Any]]) -> None:
    assert found[0].halts == ()

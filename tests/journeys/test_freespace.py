"""Free space is worked on only where somebody asks for it, once, and the ledger and the answer say what was reached."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from journeys.small_house import NOW, House

from fangxin.data import freespace
from fangxin.data.errors import InputError, NotAllowed
from fangxin.data.freespace import Filled
from fangxin.flows import erase
from fangxin.flows import freespace as flow
from fangxin.flows.estate import open_estate


def _steps(house: House) -> list[str]:
    entries = [entry for _n, entry in open_estate(house.home, house.catalog.parent, NOW).ledger.entries()]
    return [str(entry["step"]) for entry in entries if entry["type"] == "step.done"]


def test_free_space_is_filled_once_after_the_stores_and_told_in_ledger_and_answer(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def fill(folder: Path) -> Filled:  # the disk of whoever runs the tests is not ours to fill; test_image.py fills one
        asked.append(folder)
        return Filled((10, 10), 2, "")

    monkeypatch.setattr(freespace, "fill", fill)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    batch = house.begin(wipe_free_space="fill")
    house.until(erase.close, batch)
    assert len(asked) == 1, "one file system, one filling"
    steps = _steps(house)
    places = [
        steps.index(one) for one in ("destroy_keys", "free-space.fill.begun", "free-space.fill.done", "overwrite")
    ]
    assert places == sorted(places)
    assert erase.summary(house.home, batch)["free_space"] == [Filled((10, 10), 2, "").claim]
    estate = open_estate(house.home, house.catalog.parent, NOW)
    flow.wipe(estate, estate.requests.batch(batch))
    assert len(asked) == 1, "and never again"
    assert house.verified(batch) == 0


@pytest.mark.drill
def test_nobody_who_did_not_ask_has_free_space_worked_on(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("fill", "discard"):
        monkeypatch.setattr(freespace, name, lambda *_a, **_k: pytest.fail("nobody asked for it"))
    with pytest.raises(InputError, match="expected fill or discard"):
        house.begin(wipe_free_space="yes")
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(NotAllowed, match="needs root"):
            house.begin(wipe_free_space="discard")
    batch = house.begin()
    house.until(erase.validate, batch)
    assert erase.summary(house.home, batch)["free_space"] == []
    assert not [step for step in _steps(house) if step.startswith("free-space")]

"""An export is a copy of ours until its day: printed on the certificate, destroyed then, and nothing beside it."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

from journeys.small_house import NOW, THEIRS, House

from fangxin.flows import erase
from fangxin.flows.estate import open_estate
from fangxin.flows.exports import end_exports


def test_an_export_is_printed_with_its_last_day_and_destroyed_on_it(house: House) -> None:
    folder = house.root / "handed-over"
    batch = house.begin(export=str(folder))
    erase.journey(batch)
    (request,) = erase.summary(house.home, batch)["requests"]
    copies = json.loads(Path(request["certificate"]).read_bytes())["copies"]
    assert [(one["kind"], one["expires"]) for one in copies] == [("export", "2026-12-24")]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any(THEIRS.encode() in path.read_bytes() for path in files)
    (folder / "mine.txt").write_text("the operator's own")

    day_before = open_estate(house.home, house.home, NOW + timedelta(days=29))
    assert end_exports(day_before) == ()
    assert all(path.exists() for path in files)

    due = open_estate(house.home, house.home, NOW + timedelta(days=30))
    assert [(one.batch, one.files) for one in end_exports(due)] == [(batch, len(files))]
    assert [path.name for path in folder.rglob("*")] == ["mine.txt"]
    assert end_exports(due) == ()

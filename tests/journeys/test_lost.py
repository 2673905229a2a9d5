"""Files of stores that are deleted while a batch is open and its keys are dead: nothing is claimed, the batch ends."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from journeys.small_house import NOW, THEIRS, House

from fangxin.flows import batch as batches
from fangxin.flows import erase
from fangxin.flows.cli.main import main
from fangxin.flows.estate import open_estate


@pytest.mark.parametrize(
    "killed_before", [erase.overwrite, pytest.param(erase.validate, marks=pytest.mark.drill)], ids=lambda s: s.__name__
)
def test_deleted_files_are_named_fail_and_a_word_ends_the_batch_without_any_claim(
    house: House, killed_before: batches.Step, capsys: pytest.CaptureFixture[str]
) -> None:
    database, text = house.root / "stores/w/w.db", house.root / "stores/t/m.csv"
    (house.root / "stores/w/other").touch()  # else its device may be away
    batch = house.begin()
    house.until(killed_before, batch)
    end = f"`fangxin resume {batch} --as-it-stands CODE` ends it"
    text.unlink()
    if killed_before is erase.validate:
        assert main(["resume"]) == 1
        said = capsys.readouterr().err
        place = "text:t//m.csv: expected a file of the collection, found none any more"
        for words in ("failed in t/members", place, "where this batch had rewritten it, put that file back", end):
            assert words in said, said
    database.unlink()
    assert main(["resume"]) == 3
    said = capsys.readouterr().err
    place = "w/accounts: w.db: expected a database file, found: nothing"
    for words in (place, "restore the file, then `fangxin resume`", end):
        assert words in said

    assert main(["resume", batch, "--as-it-stands", "deleted"]) == 1
    assert "failed: w/accounts: no file of it is there any more" in capsys.readouterr().out
    (request,) = erase.summary(house.home, batch)["requests"]
    told = json.loads(Path(request["certificate"]).read_bytes())
    assert told["outcome"] == "failed"
    rows = {row["dataset"]: row for row in told["collections"]}
    for name in "wt":
        assert (rows[name]["verdict"], rows[name]["claim"], rows[name]["units_expected"]) == ("FAILED", "", 0)
        assert "what became of what lay there is not known" in rows[name]["reason"]
    assert house.verified(batch) == 0
    assert main(["resume", batch, "--as-it-stands", "deleted"]) == 4
    assert capsys.readouterr().err.strip() == f"fangxin: batch {batch} is closed: nothing of it is left to be ended"

    with closing(sqlite3.connect(database)) as db, db:
        db.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, phone TEXT, name TEXT)")
        db.execute("INSERT INTO accounts VALUES (5, ?, 'n5')", [THEIRS])
    text.write_text("who,phone\n")
    assert house.begin(THEIRS) in open_estate(house.home, house.catalog.parent, NOW).requests.unfinished()


@pytest.mark.drill
def test_a_database_that_was_passed_over_is_erased_where_it_comes_back_and_fails_where_it_does_not(
    house: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    database = house.root / "stores/w/w.db"
    away = house.root.with_name(f"{house.root.name}-away.db")
    (house.root / "stores/w/other").touch()

    def die(*_args: object, **_more: object) -> None:
        raise KeyboardInterrupt

    def lost(phone: str) -> str:
        batch = house.begin(phone)
        house.until(erase.overwrite, batch)
        database.rename(away)
        assert main(["resume"]) == 3
        return batch

    batch = lost(THEIRS)
    with monkeypatch.context() as patch:
        patch.setattr("fangxin.flows.validate.look", die)
        assert main(["resume", batch, "--as-it-stands", "gone"]) == 130
    assert house.entries().count("store.overwritten") == 1  # nothing is said of what was not there
    away.rename(database)
    assert main(["resume"]) == 0
    assert THEIRS.encode() not in database.read_bytes()
    assert house.verified(batch) == 0

    batch = lost("13900000007")
    with monkeypatch.context() as patch:
        patch.setattr("fangxin.flows.validate.end_passed_over", die)
        assert main(["resume", batch, "--as-it-stands", "gone"]) == 130
    assert main(["resume"]) == 1  # validated under the word: a plain run finishes it
    assert house.entries().count("store.overwritten") == 3  # both of the first batch, one of this
    assert house.verified(batch) == 0
    capsys.readouterr()


@pytest.mark.drill
def test_an_intent_whose_database_was_lost_before_anything_was_done_gets_an_outcome_that_claims_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    database = house.root / "stores/w/w.db"
    (house.root / "stores/w/other").touch()

    def die(*_args: object, **_more: object) -> None:
        raise KeyboardInterrupt

    batch = house.begin()
    house.until(erase.overwrite, batch)
    with monkeypatch.context() as patch:
        patch.setattr("fangxin.data.stores.sqlite.SqliteStore._carry_out", die)
        assert main(["resume"]) == 130
    database.unlink()
    with monkeypatch.context() as patch:
        patch.setattr("fangxin.flows.validate.end_passed_over", die)
        assert main(["resume", batch, "--as-it-stands", "gone"]) == 130
    assert main(["resume"]) == 1
    ledger = open_estate(house.home, house.catalog.parent, NOW).ledger
    (told,) = (e for _n, e in ledger.entries() if e["type"] == "store.rewritten")
    assert (told["method"], told["units"], told["bytes"]) == ("LOGICAL_DELETE", "0", "0")
    assert house.verified(batch) == 0
    capsys.readouterr()

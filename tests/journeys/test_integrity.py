"""What was approved is what is carried out, on a house so small that every row can be counted by hand."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from unittest.mock import Mock

import pandas as pd
import pytest
from journeys.small_house import DATABASE, NOW, TEXT, THEIRS, House

from fangxin.data.errors import DoesNotHold, FangxinError, InputError, NotAllowed, WriterBusy
from fangxin.data.vocabulary import Identity
from fangxin.flows import batch as batches
from fangxin.flows import erase, officers, sealed
from fangxin.flows.cli.main import main
from fangxin.flows.estate import alone, make_home, open_estate
from fangxin.flows.export import by_person


@pytest.mark.drill
def test_without_any_key_nothing_is_said_of_destroyed_keys_and_the_package_verifies(house: House) -> None:
    batch = house.begin()
    house.until(erase.close, batch)
    assert "key.destroyed" not in house.entries()
    assert house.verified(batch) == 0
    (request,) = erase.summary(house.home, batch)["requests"]
    told = json.loads(Path(request["certificate"]).read_bytes())
    assert request["outcome"] == "erased"
    assert (told["keys"]["destroyed"], told["keys"]["domains"], told["times"]["keys_destroyed"]) == (0, [], None)


def test_a_catalog_that_loses_a_store_after_the_approval_stops_every_step_until_it_is_put_back(house: House) -> None:
    batch = house.begin()
    house.until(erase.overwrite, batch)
    house.catalog.write_text(DATABASE)
    for step in erase.STEPS:
        with pytest.raises(NotAllowed, match="the catalog is not the one"):
            erase.run_step(step, batch)
    assert THEIRS in (house.root / "stores/t/m.csv").read_text()
    house.catalog.write_text(DATABASE + TEXT)
    erase.journey(batch)
    assert THEIRS not in (house.root / "stores/t/m.csv").read_text()
    house.catalog.write_text(DATABASE)  # what is closed can be asked about, and resumed, whatever the catalog says
    erase.journey(batch)
    assert erase.summary(house.home, batch)["requests"][0]["outcome"] == "erased"


def test_the_ledger_says_which_steps_are_done_and_a_note_alone_does_not(house: House) -> None:
    batch = house.begin()
    for number, step in enumerate(erase.STEPS[:-1], start=1):
        erase.run_step(step, batch)
        estate, opened = batches.opened(batch)
        assert batches.is_done(estate, opened, step.__name__)
        assert house.entries().count("step.done") == number
        with closing(sqlite3.connect(house.home / "requests.db")) as db:
            (note,) = db.execute("SELECT note FROM step WHERE name = ?", [step.__name__]).fetchone()
            db.execute("UPDATE step SET note = json_set(note, '$.seconds', 99) WHERE name = ?", [step.__name__])
            db.commit()
            with pytest.raises(DoesNotHold, match="the requests store does not know its outcome"):
                batches.is_done(estate, opened, step.__name__)
            db.execute("UPDATE step SET name = 'lost' WHERE name = ?", [step.__name__])
            db.commit()
            with pytest.raises(DoesNotHold, match="older than the ledger"):
                step(batch)
            db.execute("UPDATE step SET name = ?, note = ? WHERE name = 'lost'", [step.__name__, note])
            db.commit()
    with pytest.MonkeyPatch.context() as killed:
        killed.setattr("fangxin.data.requests.Requests.finish", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):  # within close: the keys are dead, what they sealed is still there
            erase.run_step(erase.close, batch)
    estate = open_estate(house.home, house.catalog.parent, NOW)
    estate.requests.done(batch, officers.PLANNED, at=estate.minute, note={"grant": "theirs"})
    with pytest.raises(NotAllowed, match="no batch waits for this plan"):
        officers.approve(estate, [Mock(grant="theirs")])
    with pytest.raises(NotAllowed, match="or is closed"):
        sealed.unopened(batch)
    assert main(["resume", batch]) == 0  # whatever lies sealed under them is not needed any more
    requests = open_estate(house.home, house.catalog.parent, NOW).requests
    assert (requests.batch(batch).state, requests.unfinished()) == ("closed", ())
    with closing(sqlite3.connect(house.home / "requests.db")) as db:
        assert db.execute("SELECT count(*), count(sealed) FROM request").fetchone() == (2, 0)
        assert db.execute("SELECT count(*) FROM part").fetchone() == (0,)
    assert house.verified(batch) == 0


def test_a_store_that_the_ledger_knows_as_overwritten_is_not_done_again_by_an_older_requests_store(
    house: House,
) -> None:
    batch = house.begin()
    house.until(erase.overwrite, batch)
    older = house.root / "older.db"
    with closing(sqlite3.connect(house.home / "requests.db")) as live, closing(sqlite3.connect(older)) as copy:
        live.backup(copy)
    with pytest.MonkeyPatch.context() as killed:
        killed.setattr("fangxin.flows.overwrite.finish", Mock(side_effect=KeyboardInterrupt))  # before the step is done
        with pytest.raises(KeyboardInterrupt):
            erase.run_step(erase.overwrite, batch)
    for left in house.home.glob("requests.db*"):
        left.unlink()
    older.rename(house.home / "requests.db")
    with pytest.raises(DoesNotHold, match="older than the ledger"):
        erase.run_step(erase.overwrite, batch)


@pytest.mark.drill
def test_a_note_of_which_the_ledger_knows_nothing_is_no_step_done(house: House) -> None:
    batch = house.begin()
    estate, opened = batches.opened(batch)
    estate.requests.done(batch, "locate", at=estate.minute, note={"rows": 0})
    assert not batches.is_done(estate, opened, "locate")
    erase.journey(batch)
    assert (estate.requests.note(batch, "locate") or {})["rows"] > 0
    assert erase.summary(house.home, batch)["requests"][0]["outcome"] == "erased"


def test_two_homes_never_work_on_one_estate_at_once_and_the_second_changes_nothing(house: House) -> None:
    second = house.root / "second"
    make_home(second, rehearsal=True, origin="second.example/erasure", now=NOW, capacity=500)
    other = open_estate(second, house.catalog.parent, NOW)
    people = [[Identity("phone_number", "13900000007")]]
    with alone(house.home):
        batch = house.begin()
        stores = {path: path.read_bytes() for path in (house.root / "stores").rglob("*") if path.is_file()}
        for step in (erase.locate, erase.plant):
            with alone(second), pytest.raises(WriterBusy, match="a run of another home is at work"):
                erase.open_batch(other, people, options={"approved": True})
            there = {path: path.read_bytes() for path in (house.root / "stores").rglob("*") if path.is_file()}
            assert there == stores
            assert other.requests.unfinished() == ()
            erase.run_step(step, batch)
            stores = {path: path.read_bytes() for path in (house.root / "stores").rglob("*") if path.is_file()}
    with alone(second):  # the first run is over, its batch is not: nobody waits for it
        assert erase.open_batch(other, people, options={"approved": True}) in other.requests.unfinished()


def test_other_facts_about_the_operator_than_at_the_opening_stop_a_batch(house: House) -> None:
    batch = house.begin()
    settings = house.home / "fangxin.toml"
    settings.write_text(settings.read_text().replace('facts = ["platform_operator"]', "facts = []"))
    with pytest.raises(NotAllowed, match=r"facts in fangxin\.toml"):
        erase.run_step(erase.locate, batch)


@pytest.mark.parametrize("stops", [DoesNotHold("not so", hint="mend it, then `fangxin resume`"), ZeroDivisionError()])
def test_what_gives_a_batch_up_does_not_advise_to_resume_it(
    house: House, stops: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = house.begin()
    monkeypatch.setattr("fangxin.flows.locate.find", Mock(side_effect=stops))
    assert main(["resume"]) in (1, 70)
    said = capsys.readouterr().err
    assert f"batch {batch} is given up" in said
    assert "resume" not in said  # it would find nothing to do
    assert said.count("fangxin erase") == (2 if isinstance(stops, DoesNotHold) else 1)


def test_a_sealed_plan_that_is_not_the_approved_one_is_not_carried_out(house: House) -> None:
    batch = house.begin()
    house.until(erase.destroy_keys, batch)
    estate, opened = batches.opened(batch)
    plan = batches.read_plan(estate, opened, "whole")
    more = pd.concat([plan.fates, plan.fates.tail(1).assign(position=7)], ignore_index=True)
    batches.keep_plan(estate, opened, "whole", batches.Plan(more, plan.texts, plan.facts, plan.digest))
    with pytest.raises(NotAllowed, match="not the one that was approved"):
        erase.run_step(erase.destroy_keys, batch)
    assert "erase.intended" not in house.entries()


@pytest.mark.drill  # tests/journeys/test_as_it_stands.py has units that were replaced
def test_units_written_after_the_approval_are_located_again_and_the_ledger_says_so(house: House) -> None:
    batch = house.begin()
    house.until(erase.overwrite, batch)
    path = house.root / "stores/t/m.csv"
    path.write_text(path.read_text() + "x99,13900000099\n")
    erase.journey(batch)
    assert "exception" in house.entries()
    assert "x99" in path.read_text()
    assert THEIRS not in path.read_text()
    assert house.verified(batch) == 0


@pytest.mark.parametrize(
    "refusing",
    [
        pytest.param("w.db", id="a unit that was written", marks=pytest.mark.drill),
        pytest.param("x.db", id="a unit that is new", marks=pytest.mark.drill),
    ],
)
def test_units_written_after_the_approval_are_rehearsed_again_before_any_of_their_store_is_touched(
    house: House, refusing: str
) -> None:
    house.catalog.write_text(house.catalog.read_text().replace("url: w/w.db}", 'url: w/, glob: "*.db"}'))
    folder = house.root / "stores/w"
    with closing(sqlite3.connect(folder / "a.db")) as db, db:
        db.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, phone TEXT, name TEXT)")
        db.execute("INSERT INTO accounts VALUES (105, ?, 'n105')", [THEIRS])
    batch = house.begin()
    house.until(erase.overwrite, batch)
    with closing(sqlite3.connect(folder / "w.db")) as db, db:  # an application splits its database meanwhile
        db.execute("ATTACH ? AS x", [str(folder / "x.db")])
        db.execute("CREATE TABLE x.accounts (id INTEGER PRIMARY KEY, phone TEXT, name TEXT)")
        db.execute("INSERT INTO x.accounts SELECT * FROM accounts WHERE id = 5")
        db.execute("DELETE FROM accounts WHERE id BETWEEN 5 AND 9" if refusing == "x.db" else "DELETE FROM x.accounts")
    with closing(sqlite3.connect(folder / refusing)) as db, db:
        db.execute("CREATE VIRTUAL TABLE words USING fts5(phone, content='')")  # cannot be shown to forget
    before = {path.name: path.read_bytes() for path in folder.glob("*.db")}
    with pytest.raises(FangxinError, match="full-text index words to have its content") as refused:
        erase.run_step(erase.overwrite, batch)
    assert "drop it" in str(refused.value)
    assert {path.name: path.read_bytes() for path in folder.glob("*.db")} == before
    with closing(sqlite3.connect(folder / refusing)) as db, db:
        db.execute("DROP TABLE words")
    erase.journey(batch)
    assert not [path for path in folder.iterdir() if THEIRS.encode() in path.read_bytes()]
    assert house.verified(batch) == 0


@pytest.mark.drill
def test_a_full_text_index_over_a_catalogued_table_is_no_stray_and_forgets(house: House) -> None:
    path = house.root / "stores/w/w.db"
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE VIRTUAL TABLE words USING fts5(phone, name, content='accounts', content_rowid='id')")
        db.execute("INSERT INTO words (words) VALUES ('rebuild')")
    assert THEIRS.encode() in path.read_bytes()
    batch = house.begin()
    erase.journey(batch)
    assert erase.summary(house.home, batch)["requests"][0]["outcome"] == "erased"
    assert THEIRS.encode() not in path.read_bytes()
    with closing(sqlite3.connect(path)) as db:
        found = [
            db.execute("SELECT count(*) FROM words WHERE words MATCH ?", [p]).fetchone()[0] for p in (THEIRS, "n7")
        ]
    assert found == [0, 1]


def test_a_full_text_table_that_keeps_rows_of_its_own_is_a_stray_where_no_collection_names_it(house: House) -> None:
    path = house.root / "stores/w/w.db"
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE VIRTUAL TABLE notes USING fts5(said)")
        db.execute("INSERT INTO notes VALUES (?)", [f"call {THEIRS} back"])
    batch = house.begin()
    with pytest.raises(NotAllowed, match="table notes, which no collection names"):
        house.until(erase.destroy_keys, batch)
    assert not [e for e in house.entries() if e in ("store.overwritten", "store.rewritten", "located")]


@pytest.mark.drill
def test_every_failed_look_is_logged_and_the_validation_that_holds_answers_them(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = house.begin()
    house.until(erase.validate, batch)
    left = house.root / "stores/t/notes.txt"
    left.write_text(f"call {THEIRS}\n")
    for rounds in (1, 2):
        with pytest.raises(DoesNotHold, match="the findings do not hold"):
            erase.run_step(erase.validate, batch)
        assert house.entries().count("residue.found") >= rounds
    capsys.readouterr()
    assert main(["resume", "--json"]) == 1
    said = json.loads(capsys.readouterr().out)["batches"]
    (request,) = said[0]["requests"]
    assert (request["outcome"], request["certificate"]) == ("failed", None)
    bad = [v for v in request["verdicts"] if v["verdict"] == "FAILED"]
    assert bad
    assert {v["claim"] for v in bad} == {""}  # never stronger than what was shown
    left.unlink()
    erase.journey(batch)
    assert house.entries().count("exception") == house.entries().count("residue.found")
    assert house.verified(batch) == 0


@pytest.mark.drill
def test_a_batch_that_fails_does_not_hold_up_the_next_one(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    failing, other = house.begin(), house.begin("13900000007")
    house.until(erase.validate, failing)
    (house.root / "stores/t/notes.txt").write_text(f"call {THEIRS}\n")
    assert main(["resume"]) == 1
    assert "the findings do not hold" in capsys.readouterr().err
    assert erase.summary(house.home, other)["requests"][0]["outcome"] == "erased"
    assert erase.summary(house.home, failing)["requests"][0]["outcome"] == "failed"


def test_an_export_never_lies_where_validation_would_find_it(house: House) -> None:
    for inside in ("home/exports/x", "stores/t/out", "stores/w/out", "."):
        with pytest.raises(InputError):
            house.begin(export=str(house.root / inside))
    assert open_estate(house.home, house.catalog.parent, NOW).requests.unfinished() == ()


def test_one_persons_missing_row_is_not_made_up_for_by_another_persons(house: House) -> None:
    batch = house.begin()
    estate, opened = batches.opened(batch)
    requests = estate.requests.requests(opened.id)
    (one,) = [r.id for r in requests if not r.canary]
    table = pd.DataFrame(
        [(one, "w/accounts", 2, 1, 1), ("r-other", "w/accounts", 1, 2, 1)],
        columns=["request", "collection", "rows_located", "rows_exported", "files"],
    )
    judged = by_person(estate, table, requests)
    assert set(judged["collection"]) == {f"{one}/w/accounts", f"{one}/t/members", "r-other/w/accounts"}
    assert (judged["rows_located"] != judged["rows_exported"]).sum() == 2

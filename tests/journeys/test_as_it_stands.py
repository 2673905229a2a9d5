"""Files that somebody replaced while a batch was open: no claim is made of them, and the batch comes to an end."""

from __future__ import annotations

import fcntl
import json
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from journeys import crash_support as crash
from journeys.small_house import DATABASE, NOW, TEXT, THEIRS, House

from fangxin.checks import verify
from fangxin.data.errors import NotAllowed
from fangxin.data.vocabulary import Construction, Erasure, Method
from fangxin.flows import erase, validate
from fangxin.flows.cli.main import main
from fangxin.flows.estate import open_estate
from fangxin.flows.evidence import VALIDATED, VALIDATED_FAILED, of_look
from fangxin.flows.inventory import built, exchanged
from fangxin.flows.unplant import stays, stays_no_more, withdraw
from fangxin.flows.validate import _look

OTHER = "13900000007"  # in every store but the opaque one
DUCK = """  - fides_key: d
    name: d
    erasure: {store: {kind: duckdb, url: d/d.duckdb}, mode: delete, copies: []}
    collections:
      - name: coupons
        fields:
          - {name: phone, data_categories: [user.contact.phone_number], fides_meta: {identity: phone_number}}
  - fides_key: p
    name: p
    erasure: {store: {kind: parquet, url: p/}, mode: delete, copies: []}
    collections:
      - name: events
        erasure: {store: {glob: "*.parquet"}}
        fields:
          - {name: phone, data_categories: [user.contact.phone_number], fides_meta: {identity: phone_number}}
"""


@pytest.fixture
def shop(house: House) -> House:
    """The small house with a DuckDB database and a Parquet file beside it."""
    phones = [f"139{n:08d}" for n in range(1, 40)]
    for name in "dp":
        (house.root / "stores" / name).mkdir()
    with duckdb.connect(house.root / "stores/d/d.duckdb") as db:
        db.execute("CREATE TABLE coupons (phone VARCHAR)")
        db.executemany("INSERT INTO coupons VALUES (?)", [[one] for one in phones if one != OTHER])
    pq.write_table(pa.table({"phone": phones}), house.root / "stores/p/e.parquet")
    house.catalog.write_text(DATABASE + TEXT + DUCK)
    return house


def replaced(path: Path) -> None:
    """What `cp old new && mv new old` does."""
    copy = path.with_name(f".{path.name}.new")
    shutil.copy2(path, copy)
    copy.replace(path)


def told(house: House, batch: str) -> dict[str, dict[str, dict[str, object]]]:
    """By outcome: what the certificate says of each collection."""
    found = {}
    for request in erase.summary(house.home, batch)["requests"]:
        document = json.loads(Path(request["certificate"]).read_bytes())
        found[document["outcome"]] = {row["dataset"]: row for row in document["collections"]}
    return found


def test_files_replaced_in_an_open_batch_are_never_claimed_and_a_word_ends_it(
    shop: House, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = shop.begin(THEIRS, OTHER)
    shop.until(erase.overwrite, batch)
    for name in ("w/w.db", "t/m.csv", "d/d.duckdb", "p/e.parquet"):
        replaced(shop.root / "stores" / name)
    text = shop.root / "stores/t/m.csv"
    text.write_text(text.read_text() + "x99,13900000099\n")
    assert main(["resume", batch, "--as-it-stands", "etl"]) == 4  # nothing failed yet: it may end well
    capsys.readouterr()
    assert main(["resume"]) == 1
    said = capsys.readouterr().err
    place = "duckdb:d/d.duckdb/d.duckdb: expected the old file to be overwritten"
    end = f"`fangxin resume {batch} --as-it-stands CODE`"
    for words in ("failed in d/coupons", place, "clause 4", "nothing is left there", end):
        assert words in said
    assert "remove what is left" not in said  # nothing is
    with pytest.raises(NotAllowed, match=f"batch {batch} has them already"):
        shop.begin(THEIRS)
    assert main(["resume", batch, "--as-it-stands", "Mr Wang 13900000005"]) == 3
    with (shop.home / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["resume", batch, "--as-it-stands", "refused"]) == 5
    shop.catalog.rename(shop.catalog.with_suffix(".away"))
    assert main(["resume", batch, "--as-it-stands", "refused"]) == 3
    shop.catalog.with_suffix(".away").rename(shop.catalog)
    assert main(["resume"]) == 1  # a word that was refused holds for no later run
    assert open_estate(shop.home).requests.batch(batch).state == "open"
    capsys.readouterr()

    assert main(["resume", batch, "--as-it-stands", "etl"]) == 1
    assert "failed: d/coupons: an opaque store, and of the proof by construction clause 4 is open" in (
        capsys.readouterr().out
    )
    theirs, other = (told(shop, batch)[outcome] for outcome in ("failed", "erased"))
    assert (theirs["d"]["verdict"], theirs["d"]["claim"], theirs["d"]["method"]) == ("FAILED", "", "LOGICAL_DELETE")
    assert "clause 4" in str(theirs["d"]["reason"])
    assert other["d"]["verdict"] == "NOT_PRESENT"
    for row in (one[kind] for one in (theirs, other) for kind in "wtp"):
        assert (row["verdict"], row["method"]) == ("ERASED", "LOGICAL_DELETE")
        assert "1 old file(s) were replaced by another writer, and never overwritten" in str(row["reason"])
    package = Path(erase.summary(shop.home, batch)["package"])
    checks = verify.verify(package, trust=shop.home / "keys")
    assert verify.exit_code(checks) == 0
    (certificates,) = (one for one in checks if one.name == "certificates")
    assert "1 FAILED: " in certificates.reason
    assert "2 where old files were not overwritten" in certificates.reason
    assert "x99" in text.read_text()  # what a neighbour wrote meanwhile stays
    assert not {THEIRS, OTHER} & set(text.read_text().replace("\n", ",").split(","))
    codes = [e["code"] for _n, e in open_estate(shop.home, shop.catalog.parent, NOW).ledger.entries() if "code" in e]
    assert {"plan.relocated", "ended.as_it_stands/etl"} <= set(codes)
    assert shop.begin(THEIRS) in open_estate(shop.home, shop.catalog.parent, NOW).requests.unfinished()


def test_what_somebody_else_took_away_is_not_claimed_and_what_left_in_the_file_in_place_is(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    database, text = house.root / "stores/w/w.db", house.root / "stores/t/m.csv"
    batch = house.begin(THEIRS)
    house.until(erase.overwrite, batch)
    with closing(sqlite3.connect(database)) as db, db:  # its owner, in a file that we then rewrite and overwrite
        db.execute("DELETE FROM accounts WHERE phone = ?", [THEIRS])
    text.rename(house.root / "away.csv")
    text.write_text("who,phone\n")
    assert main(["resume"]) == 1
    said = capsys.readouterr().err
    for words in ("failed in t/members", "this batch did not remove it", "nothing is left there", "--as-it-stands"):
        assert words in said, said
    assert main(["resume", batch, "--as-it-stands", "moved"]) == 1
    rows = told(house, batch)["failed"]
    assert (rows["t"]["verdict"], rows["t"]["method"], rows["t"]["claim"]) == ("FAILED", "", "")
    assert "was there before and is not found now" in str(rows["t"]["reason"])
    assert (rows["w"]["verdict"], rows["w"]["method"], rows["w"]["rows_erased"]) == ("ERASED", "OVERWRITE", 0)
    assert rows["w"]["claim"]
    assert house.verified(batch) == 0


def killed(monkeypatch: pytest.MonkeyPatch, *command: str) -> None:
    """Run a command that ends when the look is logged, and the step is not done."""

    def die(*_args: object, **_more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fangxin.flows.validate.finish", die)
        assert main(["resume", *command]) == 130


@pytest.mark.drill
def test_a_look_that_finds_something_else_than_the_one_before_a_kill_has_entries_of_its_own(
    house: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = house.root / "stores/t/m.csv"

    def looks() -> list[int]:
        ledger = open_estate(house.home, house.catalog.parent, NOW).ledger
        return [int(e.get("failed", 0)) for _n, e in ledger.entries() if e["type"] == "validated"]

    batch = house.begin(THEIRS, OTHER)
    house.until(erase.validate, batch)
    clean = text.read_text()
    killed(monkeypatch)
    killed(monkeypatch)  # the same findings: the same look, logged once
    assert looks() == [0]
    text.write_text(f"{clean}x5,{THEIRS}\n")
    assert main(["resume"]) == 1
    killed(monkeypatch, batch, "--as-it-stands", "left")
    assert looks() == [0, 0, 1]
    text.write_text(f"{clean}x5,{THEIRS}\nx7,{OTHER}\n")
    assert main(["resume"]) == 1  # nobody conceded that of a second person
    assert main(["resume", batch, "--as-it-stands", "left"]) == 1
    assert looks()[3:] == [2]
    assert {r["outcome"] for r in erase.summary(house.home, batch)["requests"]} == {"failed"}
    assert house.verified(batch) == 0

    again = house.begin(THEIRS, OTHER)
    house.until(erase.validate, again)
    text.write_text(f"{clean}x5,{THEIRS}\n")
    assert main(["resume"]) == 1
    killed(monkeypatch, again, "--as-it-stands", "left")
    text.write_text(clean)
    assert main(["resume"]) == 0  # mended meanwhile: everybody's certificate rests on the look that held
    assert house.verified(again) == 0
    capsys.readouterr()


def test_the_planted_person_that_came_back_leaves_with_the_word_and_where_it_stays_is_told(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    database, text, stray = (house.root / "stores" / name for name in ("w/w.db", "t/m.csv", "note.txt"))

    def rows() -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(database)) as db:
            return db.execute("SELECT * FROM accounts ORDER BY id").fetchall()

    before = rows()
    batch = house.begin(THEIRS)
    house.until(erase.export, batch)
    shutil.copy2(database, database.with_suffix(".old"))
    (planted,) = set(rows()) - set(before)
    house.until(erase.validate, batch)
    database.with_suffix(".old").replace(database)
    stray.write_text(f"call {planted[1]}\n")
    assert main(["resume"]) == 1
    capsys.readouterr()
    note = {"places": {"text:t//away.csv": 2}}  # what an earlier look under a word, killed, said
    estate = open_estate(house.home, house.catalog.parent, NOW)
    estate.requests.done(batch, "planted_left", at=estate.minute, note=note, anew=True)
    stays_no_more(estate, estate.requests.batch(batch), pd.DataFrame({"subject": [], "place": [], "hits": []}))
    assert stays(estate, batch) == {}
    assert main(["resume", batch, "--as-it-stands", "old_copy"]) == 1
    assert "planted stays in outside/note.txt (1 hit)" in capsys.readouterr().err
    assert rows() == before  # the person's row came back as well: the certificate says FAILED
    assert str(planted[1]).encode() not in database.read_bytes() + text.read_bytes()
    (told_,) = erase.summary(house.home, batch)["requests"]
    limits = {one["id"]: one for one in json.loads(Path(told_["certificate"]).read_bytes())["limits"]}
    assert "outside/note.txt (1)" in limits["planted"]["en"]
    assert "outside/note.txt (1)" in limits["planted"]["zh"]
    assert "w/accounts" in limits["control"]["en"]
    assert house.verified(batch) == 0


def test_a_look_is_the_same_one_only_where_it_comes_again_at_once_with_the_same_findings_and_word(house: House) -> None:
    estate = open_estate(house.home, house.catalog.parent, NOW)
    batch = estate.requests.batch(house.begin(THEIRS))
    one = pd.DataFrame([[0, "ERASED", 5]], columns=["subject", "verdict", "bytes_read"])
    one = one.assign(units_expected=1, units_read=1, not_examinable="")
    other = one.assign(verdict="FAILED")

    def at(table: pd.DataFrame, total: int, word: str | None = None) -> tuple[int, int]:
        return _look(estate, batch, table, total, word)

    assert [at(one, 5), at(one.assign(bytes_read=6), 6)] == [(0, 5), (0, 5)]  # our own home grew
    assert [at(other, 7), at(other, 7, "etl"), at(other, 8, "etl")] == [(1, 7), (2, 7), (2, 7)]
    assert [at(one, 9), at(one, 9)] == [(3, 9), (3, 9)]
    places = [of_look(VALIDATED, n) for n in range(3)]
    assert places[0] == VALIDATED
    assert len({*places, *(of_look(VALIDATED_FAILED, n) for n in range(3))}) == 6


def test_an_opaque_file_that_is_not_the_one_we_built_any_more_is_a_leftover(shop: House) -> None:
    estate = open_estate(shop.home, shop.catalog.parent, NOW)
    batch = estate.requests.batch(shop.begin(THEIRS))
    store = estate.store_of("d/coupons")
    shown = Construction(tables=1, rows=38, digest="ab" * 32)
    done = Erasure("d.duckdb", Method.OVERWRITE, "", {}, {}, {}, (), "", shown)
    built(estate, batch, store, [done])
    assert exchanged(estate, batch, store) == []
    replaced(shop.root / "stores/d/d.duckdb")
    ((place, why),) = exchanged(estate, batch, store)
    assert (place, "not the file that we built" in why) == ("duckdb:d/d.duckdb/d.duckdb", True)


def came_back(house: House) -> tuple[str, bytes]:
    """A batch of which a look failed: the database with the person and the planted one came back, erased bytes kept."""
    database = house.root / "stores/w/w.db"
    batch = house.begin(THEIRS)
    house.until(erase.export, batch)
    shutil.copy2(database, database.with_suffix(".old"))
    house.until(erase.validate, batch)
    erased = database.read_bytes()
    database.with_suffix(".old").replace(database)
    assert main(["resume"]) == 1
    return batch, erased


def dies_taking_out(batch: str, at: int) -> None:
    """Give the word in a child that is killed at its n-th change of a name while the planted person goes."""

    def work() -> None:
        done: list[str] = []
        inside: list[bool] = []

        def told(event: str, _args: object) -> None:
            if inside and event in ("os.link", "os.rename", "os.remove"):
                done.append(event)
                if len(done) == at:
                    crash.die()

        def out(*args: Any, **more: Any) -> None:
            inside.append(True)
            withdraw(*args, **more)
            raise AssertionError(f"{len(done)} changes of names only")

        validate.withdraw = out  # a child's own
        sys.addaudithook(told)
        main(["resume", batch, "--as-it-stands", "old"])

    assert crash.in_child(work).signal == 9


def ours(house: House) -> list[str]:
    """What of ours lies in the stores."""
    return [p.name for p in (house.root / "stores").rglob(".fangxin-*")]


@pytest.mark.drill
def test_a_kill_while_the_planted_person_is_taken_out_leaves_nothing_that_a_later_run_cannot_mend(
    house: House, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    batch, erased = came_back(house)
    database = house.root / "stores/w/w.db"
    kept = tmp_path.with_name(f"{tmp_path.name}-kept")
    shutil.copytree(tmp_path, kept)
    names = []
    for at in (1, 3, 5, 8):
        shutil.rmtree(tmp_path)
        shutil.copytree(kept, tmp_path)
        dies_taking_out(batch, at)
        names.append(database.stat().st_nlink)
        assert ours(house)
        database.with_suffix(".new").write_bytes(erased)
        if names[-1] == 1:  # somebody mends it: our own copies fail nobody
            database.with_suffix(".new").replace(database)
            assert main(["resume"]) == 0
        else:
            database.with_suffix(".new").unlink()
            assert main(["resume"]) == 1
            assert main(["resume", batch, "--as-it-stands", "old"]) == 1
        assert ours(house) == []
        assert house.verified(batch) == 0
    assert max(names) == 2  # our own second name was among them
    capsys.readouterr()

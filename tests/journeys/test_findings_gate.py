"""Whatever is still there when validation looks stops publishing: no certificate, nothing issued in the ledger."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from journeys.lecard import LeCard, seed
from journeys.small_house import NOW, THEIRS, House, build
from journeys.witness import Needles, read, same

from fangxin.checks.suites import erased
from fangxin.checks.suites.judgement import Answer, Judgement
from fangxin.data.errors import CatalogError, DoesNotHold, FangxinError, Incomplete
from fangxin.data.keys.envelope import ref_of
from fangxin.data.keys.tree import RollbackSuspected
from fangxin.flows import baseline
from fangxin.flows import erase as journeys
from fangxin.flows.estate import open_estate


@dataclass(frozen=True)
class Waiting:
    """A journey that has done everything but validate; `before` is the estate as it was."""

    house: House
    before: Path
    batch: str


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path, str]:
    """Where the journey ran, the stores before it, a copy of all of it before validation, and the batch."""
    root = tmp_path_factory.mktemp("waiting")
    house = build(root / "house")
    before = Path(shutil.copytree(house.root / "stores", root / "before"))
    os.environ["FANGXIN_HOME"] = str(house.home)
    batch = house.begin()
    house.until(journeys.validate, batch)
    return house.root, before, Path(shutil.copytree(house.root, root / "frozen")), batch


@pytest.fixture
def waiting(stopped: tuple[Path, Path, Path, str]) -> Waiting:
    """The same moment for every test: a batch remembers where its catalog lies, so the place must be the same."""
    place, before, frozen, batch = stopped
    shutil.rmtree(place)
    os.environ["FANGXIN_HOME"] = str(place / "home")
    return Waiting(House(Path(shutil.copytree(frozen, place))), before, batch)


# ---------------------------------------------------------------- what may be left behind


def an_old_file_of_theirs(waiting: Waiting) -> Path:
    """A file comes back from a backup."""
    return Path(shutil.copy2(waiting.before / "t/m.csv", waiting.house.root / "stores/t/m.csv"))


def a_row_of_theirs(waiting: Waiting) -> Path:
    """Somebody still writes: a row for an account that is gone."""
    wallet = waiting.house.root / "stores/w/w.db"
    with closing(sqlite3.connect(wallet)) as db, db:
        db.execute("INSERT INTO accounts VALUES (5, ?, 'again')", [THEIRS])
    return wallet


def a_file_that_nobody_catalogued(waiting: Waiting) -> Path:
    """A note with their phone in a folder of a store."""
    note = waiting.house.root / "stores/t/notes.txt"
    note.write_text(f"call back {THEIRS}\n")
    return note


def a_line_of_theirs_in_a_later_file(waiting: Waiting) -> Path:
    """A new unit that was not there when people were located."""
    late = waiting.house.root / "stores/t/m2.csv"
    late.write_text(f"who,phone\nx5,{THEIRS}\n")
    return late


LEFT_BEHIND = (
    an_old_file_of_theirs,
    pytest.param(a_row_of_theirs, marks=pytest.mark.drill),
    pytest.param(a_file_that_nobody_catalogued, marks=pytest.mark.drill),  # the next test has one, too
    pytest.param(a_line_of_theirs_in_a_later_file, marks=pytest.mark.drill),
)


def _nothing_is_published(waiting: Waiting) -> None:
    """Neither after the failure, nor when somebody tries the later steps directly."""
    for step in (journeys.publish, journeys.close):
        with pytest.raises(FangxinError) as refused:
            step(waiting.batch)
        assert refused.value.exit_code in (1, 2, 4)
    estate = open_estate(waiting.house.home, waiting.house.catalog.parent, NOW)
    issued = [entry["type"] for _index, entry in estate.ledger.entries()]
    assert "certificate.issued" not in issued
    assert "validated" not in issued
    assert list((estate.settings.home / "certificates").iterdir()) == []
    assert list((estate.settings.home / "dsse").iterdir()) == []
    assert estate.requests.unfinished() == (waiting.batch,)


@pytest.mark.parametrize("what", LEFT_BEHIND, ids=lambda f: f.__name__)
def test_nothing_is_published_while_there_is(waiting: Waiting, what: Callable[[Waiting], Path]) -> None:
    what(waiting)
    with pytest.raises(DoesNotHold) as found:
        journeys.run_step(journeys.validate, waiting.batch)
    assert found.value.exit_code == 1
    assert list(Needles({THEIRS: "phone"}).within(str(found.value).encode())) == []
    _nothing_is_published(waiting)
    assert "residue.found" in waiting.house.entries()


def test_when_the_cause_is_gone_the_same_batch_is_published(waiting: Waiting) -> None:
    house = waiting.house
    note = a_file_that_nobody_catalogued(waiting)
    with pytest.raises(DoesNotHold):
        journeys.journey(waiting.batch, home=house.home)
    note.unlink()
    journeys.journey(waiting.batch, home=house.home)
    assert [one["outcome"] for one in journeys.summary(house.home, waiting.batch)["requests"]] == ["erased"]
    assert _held(house.root / "stores") == [row for row in _held(waiting.before) if THEIRS not in row]


def _held(stores: Path) -> list[tuple[str, ...]]:
    """Every row of both stores, as text."""
    with closing(sqlite3.connect(stores / "w/w.db")) as db:
        rows = db.execute("SELECT * FROM accounts ORDER BY id").fetchall()
    lines = (stores / "t/m.csv").read_text("utf-8").splitlines()
    return [tuple(map(str, row)) for row in rows] + [tuple(line.split(",")) for line in lines]


# ---------------------------------------------------------------- what may be wrong with the findings


SPOILED: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], type[FangxinError]]] = {
    "a missing collection": (lambda t: t[t["collection"] != "members"], DoesNotHold),
    "a null": (lambda t: t.astype({"ground": object}).assign(ground=None), DoesNotHold),
    "a hit": (lambda t: t.assign(hits_after=1), DoesNotHold),
    "an expectation that cannot be evaluated": (lambda t: t.drop(columns=["hits_after"]), Incomplete),
}


def test_nothing_is_published_over_findings_that_are_spoiled(waiting: Waiting, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table alone is spoiled on its way to the suite, each time from one look; the suite is the real one."""
    judge = erased.judge
    answers: dict[str, Answer] = {}

    def spoiled(table: pd.DataFrame, **known: Any) -> Answer:  # Any: as `judge` is asked
        assert judge(table, **known).verdict is Judgement.PASSED
        answers.update({what: judge(spoil(table), **known) for what, (spoil, _error) in SPOILED.items()})
        return answers["a null"]

    monkeypatch.setattr(erased, "judge", spoiled)
    with pytest.raises(DoesNotHold):
        journeys.run_step(journeys.validate, waiting.batch)
    _nothing_is_published(waiting)
    for what, (_spoil, error) in SPOILED.items():
        with pytest.raises(error):
            answers[what].require(what)


# ---------------------------------------------------------------- a look that is blind beforehand


def test_a_catalog_through_which_somebody_could_not_be_found_is_refused_before_a_batch_exists(lecard: LeCard) -> None:
    """It forgot how coupons refer to accounts: nobody would be found there, the canary neither."""
    reference = "{data_type: integer, references: [{dataset: wallet, field: accounts.account_id, direction: from}]}"
    head, tail = lecard.catalog.read_text("utf-8").split("- name: coupons", 1)
    lecard.catalog.write_text(f"{head}- name: coupons{tail.replace(reference, '{data_type: integer}', 1)}", "utf-8")
    before = _digests(lecard.stores)
    with pytest.raises(CatalogError, match="wallet/coupons") as refused:
        lecard.begin([seed(lecard.cast["two_accounts"])])
    assert refused.value.exit_code == 3
    assert _digests(lecard.stores) == before
    assert lecard.open().requests.unfinished() == ()


def test_a_scan_that_does_not_see_the_canary_stops_the_run_before_anything_of_anybody_is_touched(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scan is given the person's forms and not the canary's: whatever it says afterwards would prove nothing."""
    searching = baseline.searching
    monkeypatch.setattr(
        baseline,
        "searching",
        lambda catalog, facts, texts: searching(catalog, facts[facts["subject"] == 0], texts.iloc[:0]),
    )
    before = _held(house.root / "stores")
    batch = house.begin()
    with pytest.raises(DoesNotHold, match="the baseline is blind"):
        journeys.journey(batch, home=house.home)
    assert _held(house.root / "stores") == before  # the canary left again, too
    assert open_estate(house.home, house.catalog.parent, NOW).requests.unfinished() == ()
    assert not {"validated", "certificate.issued", "store.overwritten"} & set(house.entries())
    assert list((house.home / "certificates").iterdir()) == []
    assert Needles({THEIRS: "phone"}).below(house.home) == []


@pytest.mark.drill
def test_where_the_baseline_is_blind_every_row_and_key_of_a_whole_estate_is_what_it_was(
    lecard: LeCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    searching = baseline.searching
    monkeypatch.setattr(
        baseline,
        "searching",
        lambda catalog, facts, texts: searching(catalog, facts[facts["subject"] == 0], texts.iloc[:0]),
    )
    before, person = read(lecard.stores), lecard.cast["two_accounts"]
    batch = lecard.begin([seed(person)])
    with pytest.raises(DoesNotHold, match="the baseline is blind"):
        journeys.journey(batch, home=lecard.home)
    assert same(before, read(lecard.stores)) == {}  # the canary left again, too
    estate = lecard.open()
    assert estate.requests.unfinished() == ()
    for account in person["accounts"]:
        assert estate.tree.get(ref_of(estate.catalog.person_kind or "", str(account)), estate.tree.domain_code("kyc"))
    types = {entry["type"] for _index, entry in estate.ledger.entries()}
    assert not types & {"validated", "certificate.issued"}
    assert list((lecard.home / "certificates").iterdir()) == []
    values = {number: "phone" for number in person["phones"]} | {person["email"]: "email"}
    assert Needles(values).below(lecard.home) == []


def _digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.drill
def test_a_vault_that_somebody_put_back_is_noticed_before_the_next_run(lecard: LeCard) -> None:
    old = shutil.copytree(lecard.home / "keys", lecard.root / "keys before")
    people = lecard.subjects()
    batch = lecard.begin(people[:1])
    for step in journeys.STEPS[: journeys.STEPS.index(journeys.overwrite)]:  # keys are dead now
        journeys.run_step(step, batch)
    shutil.rmtree(lecard.home / "keys")
    shutil.copytree(old, lecard.home / "keys")
    with pytest.raises(RollbackSuspected, match="generation"):
        lecard.begin(people[1:2])

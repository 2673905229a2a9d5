"""What the findings refuse to overlook: a store that did not do as planned, a person where no collection looks."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pandas as pd
import pytest
from journeys.small_house import THEIRS, House

from fangxin.data.errors import DoesNotHold, NotAllowed
from fangxin.data.vocabulary import Erasure, Method
from fangxin.flows import erase
from fangxin.flows.findings import _stood, account
from fangxin.flows.plan import Plan
from fangxin.flows.sight import Sight, live

COLUMNS = ["subject", "collection", "unit", "position", "fate"]


def plan(*rows: tuple[int, str, str, int, str]) -> Plan:
    empty = pd.DataFrame()
    return Plan(pd.DataFrame(rows, columns=COLUMNS), empty, empty, "0" * 64)


def test_where_bytes_stood_is_told_by_unit_and_a_side_file_counts_as_its_own() -> None:
    places = ["sqlite:w.db/w.db", "sqlite:w.db/w.db-wal", "sqlite:w.db/other.db", "text:t/m.csv"]
    hits = pd.DataFrame([(0, places[0]), (0, places[1]), (1, places[2]), (1, places[3])], columns=["subject", "place"])
    claims = {place: ("t/members",) if place.startswith("text") else ("w/accounts",) for place in places}
    seen = Sight(hits, {}, (), 1, 1, "", claims)
    assert _stood(seen, "sqlite:w.db", "w/accounts") == {0: {"w.db"}, 1: {"other.db"}}
    assert _stood(seen, "text:t", "t/members") == {1: {"m.csv"}}


def erasure(unit: str, before: dict[str, int], after: dict[str, int]) -> Erasure:
    return Erasure(unit, Method.OVERWRITE, "", before, after, {}, (), "ext4")


def test_a_store_that_dropped_what_was_planned_is_believed() -> None:
    planned = plan((0, "s/a", "u", 3, "drop"), (1, "s/a", "u", 3, "drop"), (0, "s/a", "u", 4, "retain"))
    assert account(planned, {"s": [erasure("u", {"s/a": 9, "s/b": 2}, {"s/a": 8, "s/b": 2})]}) is None


@pytest.mark.parametrize("after", [9, 7], ids=["too few rows are gone", "a neighbour's row is gone"])
def test_a_store_that_dropped_something_else_stops_publishing(after: int) -> None:
    with pytest.raises(DoesNotHold, match="s/a"):
        account(plan((0, "s/a", "u", 3, "drop")), {"s": [erasure("u", {"s/a": 9}, {"s/a": after})]})


def test_rows_that_went_from_a_collection_nobody_planned_stop_publishing() -> None:
    with pytest.raises(DoesNotHold, match="s/b"):
        account(plan((0, "s/a", "u", 3, "drop")), {"s": [erasure("u", {"s/a": 9, "s/b": 2}, {"s/a": 8, "s/b": 1})]})


def test_only_prefects_own_moving_files_may_be_read_as_they_stand() -> None:
    torn = "sqlite: cannot be decoded (DatabaseError)"
    assert live("home/prefect/prefect.db", torn)
    assert live("home/prefect/prefect.db-wal", "changed while it was read")
    assert not live("home/requests.db", torn)
    assert not live("sqlite:wallet.db/wallet.db", "changed while it was read")
    assert not live("home/prefect/prefect.db", "cannot be read (Permission denied)")


BESIDE = {
    "a table": ("CREATE TABLE chats (said TEXT)", "INSERT INTO chats VALUES (?)"),
    "a table named like the content of a full-text index": (
        "CREATE VIRTUAL TABLE chats USING fts5(phone, content='accounts', content_rowid='id');"
        "CREATE TABLE chats_content (said TEXT)",
        "INSERT INTO chats_content VALUES (?)",
    ),
    "a table that a full-text index covers": (
        "CREATE TABLE chats (said TEXT); CREATE VIRTUAL TABLE words USING fts5(said, content='chats');"
        "CREATE TRIGGER t AFTER INSERT ON chats BEGIN INSERT INTO words VALUES (new.said); END",
        "INSERT INTO chats VALUES (?)",
    ),
    "a spatial index that keeps texts": (
        "CREATE VIRTUAL TABLE chats USING rtree(id, low, high, +said)",
        "INSERT INTO chats (id, low, high, said) VALUES (1, 0, 1, ?)",
    ),
}


@pytest.mark.parametrize(
    ("made", "filled"),
    [pytest.param(*one, id=name, marks=[] if name == "a table" else pytest.mark.drill) for name, one in BESIDE.items()],
)
def test_a_person_in_what_no_collection_names_stops_the_run_before_anything_is_destroyed(
    house: House, made: str, filled: str
) -> None:
    path = house.root / "stores/w/w.db"
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript(made)
        db.execute(filled, [THEIRS])
    batch = house.begin()
    with pytest.raises(NotAllowed, match="table chats, which no collection names"):
        house.until(erase.overwrite, batch)
    assert THEIRS.encode() in path.read_bytes()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM accounts WHERE phone = ?", [THEIRS]).fetchone() == (1,)
    assert not {"located", "approved"} & set(house.entries()), "only the planted canary was taken back"

"""What the findings refuse to overlook: a store that did something else than the plan."""

from __future__ import annotations

import pandas as pd
import pytest

from fangxin.data.errors import DoesNotHold
from fangxin.data.vocabulary import Erasure, Method
from fangxin.flows.findings import _live, account
from fangxin.flows.plan import Plan

COLUMNS = ["subject", "collection", "unit", "position", "fate"]


def plan(*rows: tuple[int, str, str, int, str]) -> Plan:
    empty = pd.DataFrame()
    return Plan(pd.DataFrame(rows, columns=COLUMNS), empty, empty, "0" * 64)


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
    assert _live("home/prefect/prefect.db", torn)
    assert _live("home/prefect/prefect.db-wal", "changed while it was read")
    assert not _live("home/requests.db", torn)
    assert not _live("sqlite:wallet.db/wallet.db", "changed while it was read")
    assert not _live("home/prefect/prefect.db", "cannot be read (Permission denied)")

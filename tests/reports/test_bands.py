"""Nobody can be counted out of published tables: an attacker who knows all sums learns no count under five."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fangxin.reports.bands import SMALL, Tables, lower, upper


def possible(tables: Tables) -> dict[str, set[int]]:
    """By brute force: the values that each count may have, for somebody who sees the tables."""
    shown = tables.shown()
    known = {name: (lower(shown[name]), upper(shown[name])) for name in shown}
    leaves = [name for name in tables.counts if name not in {total for total, _parts in tables.sums}]
    found: dict[str, set[int]] = {name: set() for name in shown}
    for values in itertools.product(*(range(known[name][0], known[name][1] + 1) for name in leaves)):
        seen = dict(zip(leaves, values, strict=True))
        for total, parts in tables.sums:
            seen[total] = sum(seen[one] for one in parts)
        if all(low <= seen[name] <= high for name, (low, high) in known.items()):
            for name, value in seen.items():
                found[name].add(value)
    return found


def two_tables(parts: list[int], more: list[int]) -> Tables:
    """A table, and a second one over the same people and some more: two tables that subtract."""
    tables = Tables()
    first = [tables.add(f"a{n}", count) for n, count in enumerate(parts)]
    tables.add("total", sum(parts))
    tables.total("total", first)
    if more:
        second = [tables.add(f"b{n}", count) for n, count in enumerate(more)]
        tables.add("all", sum(parts) + sum(more))
        tables.total("all", ["total", *second])
    return tables


def hidden_well(tables: Tables) -> None:
    """Every count is among those that a reader must think possible, and no small one alone."""
    for name, values in possible(tables).items():
        assert tables.counts[name] in values, name
        if 0 < tables.counts[name] < SMALL:
            assert len(values) > 1, name


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=2, max_size=3), st.lists(st.integers(0, 12), min_size=0, max_size=2))
def test_no_small_count_follows_from_what_is_published(parts: list[int], more: list[int]) -> None:
    hidden_well(two_tables(parts, more))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(3, 5), min_size=2, max_size=3), st.lists(st.integers(3, 5), min_size=1, max_size=2))
def test_counts_at_the_edge_of_their_bands_are_published_without_following(parts: list[int], more: list[int]) -> None:
    hidden_well(two_tables(parts, more))


def test_where_no_band_can_hide_a_count_all_that_hangs_together_begins_at_nothing() -> None:
    """Five fours make twenty, whose band begins at twenty: each part would be at its most."""
    tables = two_tables([4, 4, 4], [4, 4])
    tables.add("apart", 4)
    shown = tables.shown()
    assert {shown[name] for name in ("a0", "a1", "a2", "b0", "b1")} == {"0-4"}
    assert (shown["total"], shown["all"], shown["apart"]) == ("0-19", "0-99", "1-4")
    assert tables.coarse == {"a0", "a1", "a2", "b0", "b1", "total", "all"}
    hidden_well(tables)


def test_one_small_count_hides_another_beside_it() -> None:
    tables = Tables()
    named = [tables.add(name, count) for name, count in (("refused", 1), ("erased", 40), ("kept", 60))]
    tables.add("closed", 101)
    tables.main.add("closed")
    tables.total("closed", named)
    assert tables.shown() == {"refused": "1-4", "erased": "20-99", "kept": 60, "closed": 101}


def test_what_was_published_before_cannot_be_hidden_any_more() -> None:
    tables = Tables()
    tables.fixed.add(tables.add("first two months", 30))
    tables.unpublished.add(tables.add("the third", 1))
    tables.add("quarter", 31)
    tables.main.add("quarter")
    tables.total("quarter", ["first two months", "the third"])
    assert tables.shown() == {"first two months": 30, "quarter": "20-99"}


def test_a_sum_that_is_none_is_a_defect() -> None:
    tables = Tables({"a": 1, "total": 3})
    with pytest.raises(ValueError, match="not the sum"):
        tables.total("total", ["a"])

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
    names = [name for name in tables.counts if name in shown]
    ranges = [range(lower(shown[name]), upper(shown[name]) + 1) for name in names]
    found: dict[str, set[int]] = {name: set() for name in names}
    for values in itertools.product(*ranges):
        seen = dict(zip(names, values, strict=True))
        if all(seen[total] == sum(seen[one] for one in parts) for total, parts in tables.sums):
            for name, value in seen.items():
                found[name].add(value)
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=2, max_size=3), st.lists(st.integers(0, 12), min_size=0, max_size=2))
def test_no_small_count_follows_from_what_is_published(parts: list[int], more: list[int]) -> None:
    tables = Tables()
    first = [tables.add(f"a{n}", count) for n, count in enumerate(parts)]
    tables.add("total", sum(parts))
    tables.total("total", first)
    if more:  # a second table over the same people and some more: two tables that subtract
        second = [tables.add(f"b{n}", count) for n, count in enumerate(more)]
        tables.add("all", sum(parts) + sum(more))
        tables.total("all", ["total", *second])
    try:
        left = possible(tables)
    except ValueError as refused:  # nothing can hide it: then nothing is published at all
        if "whatever is hidden" not in str(refused):
            raise
        return
    for name, values in left.items():
        if 0 < tables.counts[name] < SMALL:
            assert len(values) > 1, name


def test_where_nothing_can_hide_a_count_nothing_is_published() -> None:
    """Five fours make twenty, whose band begins at twenty: each part must be at its most."""
    tables = Tables()
    first = [tables.add(f"a{n}", 4) for n in range(3)]
    tables.add("total", 12)
    tables.total("total", first)
    second = [tables.add(f"b{n}", 4) for n in range(2)]
    tables.add("all", 20)
    tables.total("all", ["total", *second])
    with pytest.raises(ValueError, match="whatever is hidden"):
        tables.shown()


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

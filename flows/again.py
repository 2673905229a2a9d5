"""Again: rows located afterwards with everything that was known beforehand; the decoded half of looking again.

A row of free text is counted as often as it holds the value, no more: what else stands in its file it does not explain.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from fangxin.checks.residue.patterns import Needles
from fangxin.data.catalog.identity import Question, searched
from fangxin.flows.cells import touched
from fangxin.flows.estate import Estate
from fangxin.flows.frames import tuples
from fangxin.flows.locate import Look, facts_of
from fangxin.flows.sight import searchable

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Again:
    """Rows located afterwards with everything known: per fact where it still stands."""

    hits: pd.DataFrame = field(repr=False)  # subject, collection, unit, position, field, kind, value, times


def locate_again(estate: Estate, facts: pd.DataFrame, wanted: Needles) -> Again:
    """Look every fact up in every collection once; positions are those of the present units.

    `times`: how often the cell holds the value, which only a cell of free text does more than once.
    """
    import pandas as pd

    table = facts_of(pa.Table.from_pandas(facts[["subject", "kind", "value"]], preserve_index=False))
    kinds = tuple(sorted(set(facts["kind"])))
    fields = {
        c.address: tuple(f.name for f in c.fields if searched(f, kinds, estate.catalog.kinds))
        for c in estate.catalog.collections
    }
    answers = [a.hits for a in Look(estate)(Question({a: f for a, f in fields.items() if f}, table))]
    hits = pa.concat_tables(answers).to_pandas() if answers else pd.DataFrame(columns=_HIT)
    known = facts.reset_index(drop=True)[["subject", "kind", "value"]].rename_axis("fact").reset_index()
    found = hits.merge(known, on="fact").drop(columns=["fact", "text"]).drop_duplicates()
    return Again(found.assign(times=_times(estate, found, facts, wanted)))


_HIT = ["collection", "unit", "position", "field", "fact", "text"]


def _times(estate: Estate, found: pd.DataFrame, facts: pd.DataFrame, wanted: Needles) -> list[int]:
    """How often each located cell holds its value. Only units with located free text are read once more."""
    free = {(c.address, f.name) for c in estate.catalog.collections for f in c.fields if f.data_type == "text"}
    names = {c.address: s.name for s in estate.stores for c in s.collections}
    columns = ("collection", "unit", "position", "field", "kind", "value")
    rows = list(tuples(found, *columns))
    cells = {tuple(row[:4]) for row in rows if (row[0], row[3]) in free}
    if not cells:
        return [1] * len(rows)
    searched_for, _kinds = searchable(estate.catalog, facts)
    known = list(tuples(searched_for, "kind", "value"))
    counts: Counter[tuple[object, ...]] = Counter()
    estate.meter.step = f"{estate.meter.step}-texts"
    for cell in touched(estate, wanted, {f"{names[address]}/{unit}" for address, unit, _at, _field in cells}):
        at = (cell.address, cell.unit, cell.position, cell.name)
        if at in cells:
            numbers, found_here = np.unique(wanted.find(cell.body).needle, return_counts=True)
            for number, n in zip(numbers.tolist(), found_here.tolist(), strict=True):
                for needle in wanted.of(number):  # an occurrence may match in several forms, in each form once
                    key = (*at, *known[needle.identity])
                    counts[key] = max(counts[key], n)
    return [counts[tuple(row)] if tuple(row[:4]) in cells else 1 for row in rows]

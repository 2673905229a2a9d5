"""Again: rows located afterwards with everything that was known beforehand; the decoded half of looking again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from fangxin.data.catalog.identity import Question, searched
from fangxin.flows.estate import Estate
from fangxin.flows.locate import Look, facts_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Again:
    """Rows located afterwards with everything known: per fact where it still stands."""

    hits: pd.DataFrame = field(repr=False)  # subject, collection, unit, position, field, kind, value


def locate_again(estate: Estate, facts: pd.DataFrame) -> Again:
    """Look every fact up in every collection once; positions are those of the present units."""
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
    return Again(hits.merge(known, on="fact").drop(columns=["fact", "text"]).drop_duplicates())


_HIT = ["collection", "unit", "position", "field", "fact", "text"]

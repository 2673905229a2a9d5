"""An export is complete only if it holds, person by person and collection by collection, the rows locate counted.

The table has one row per request and collection of the catalog: `collection` (request/collection, unique),
`rows_located`, `rows_exported`, `files`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fangxin.checks.suites.judgement import Answer, Suite, run

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("collection", "rows_located", "rows_exported", "files")


def judge_export(exported: pd.DataFrame, *, collections: int, tmp: Path) -> Answer:
    """Judge the table of one export; `collections`, how many, comes from requests and catalog.

    Expecting 0 is allowed (nobody had anything to export); an empty table where some were expected is not.
    """
    suites = [Suite("exported", exported, lambda e: _whole(e, collections))]
    if "rows_located" in exported.columns:
        there = exported[exported["rows_located"] != 0]
        if len(there):
            suites.append(Suite("exported_files", there, _files))
    return run(suites, tmp=tmp)


def _whole(e: Any, collections: int) -> Sequence[Any]:
    return [
        *[e.ExpectColumnValuesToNotBeNull(column=c) for c in COLUMNS],
        e.ExpectTableColumnsToMatchSet(column_set=list(COLUMNS), exact_match=True),
        e.ExpectTableRowCountToEqual(value=collections),
        e.ExpectColumnValuesToBeUnique(column="collection"),
        e.ExpectColumnPairValuesToBeEqual(column_A="rows_located", column_B="rows_exported"),
        *[e.ExpectColumnValuesToBeBetween(column=c, min_value=0) for c in COLUMNS[1:]],
    ]


def _files(e: Any) -> Sequence[Any]:
    """Rows that were located lie in at least one file."""
    return [e.ExpectColumnValuesToBeBetween(column="files", min_value=1)]

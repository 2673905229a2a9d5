"""Cells that a store is not asked for: a key that the first record lacks, a column that only later files have.

Stores answer for the columns of their first unit. What stands elsewhere is read here, record by record, and only where
the bytes of a record hold one of the values that are searched.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from fangxin.checks.residue.patterns import Needles
from fangxin.data.stores.records import blocks, form, reading


def unasked(kind: str, path: Path, asked: frozenset[str], wanted: Needles) -> Iterator[tuple[int, str, Any]]:
    """Position, field and value of cells in fields that are not among `asked`; `kind` is the store's.

    Any: the text of one cell, or an Arrow column whose first row has that position.
    """
    if kind == "text":
        yield from _text(path, asked, wanted)
    elif kind == "parquet":
        file = pq.ParquetFile(path)
        more = [name for name in file.schema_arrow.names if name not in asked]
        start = 0
        for batch in file.iter_batches(columns=more) if more else ():
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                yield start, name, column
            start += batch.num_rows


def _text(path: Path, asked: frozenset[str], wanted: Needles) -> Iterator[tuple[int, str, str]]:
    how = form(path)
    if how is None:
        return
    with reading(path, how) as stream:
        for head, block in blocks(stream, how, path.name):
            if how.csv and set(head.names) <= asked:
                return
            starts = wanted.find(block.data).start
            for row in np.unique(np.searchsorted(block.starts, starts, side="right") - 1).tolist():
                if row < 0:
                    continue
                record = block.data[int(block.starts[row]) : int(block.ends[row])].decode(errors="replace")
                for name, text in _cells(record, head.names) if how.csv else _keys(record):
                    if name not in asked:
                        yield block.first + row, name, text


def _cells(record: str, names: tuple[str, ...]) -> list[tuple[str, str]]:
    cells = next(csv.reader([record.rstrip("\r\n")]), [])
    return [(names[n] if n < len(names) else f"column {n + 1}", cell) for n, cell in enumerate(cells)]


def _keys(record: str) -> list[tuple[str, str]]:
    try:
        found = json.loads(record)
    except ValueError:
        return [("a record that is no JSON", record)]
    return [(str(k), text) for k, value in found.items() for text in _texts(value)] if isinstance(found, dict) else []


def _texts(value: Any) -> list[str]:  # Any: JSON
    if isinstance(value, Mapping):
        return [text for key, one in value.items() for text in (str(key), *_texts(one))]
    if isinstance(value, list):
        return [text for one in value for text in _texts(one)]
    return [] if value is None or isinstance(value, bool) else [str(value)]

"""Cells that a hit touches, or that hold something packed: where a value begins and ends, in which row and column.

Stores answer for the fields that the catalog declares. Others may come and go from file to file and from record to
record: they are read here, and records of text only where their bytes hold a value that is searched.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Set
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fangxin.checks.residue.patterns import Needles
from fangxin.data.stores.database_files import quoted
from fangxin.data.stores.records import blocks, form, reading
from fangxin.data.stores.sqlite_tables import asking, connect, look, stream
from fangxin.data.vocabulary import Collection, Positions, Store
from fangxin.flows.estate import Estate
from fangxin.flows.packed import beginnings

NOWHERE = -1  # the position of what belongs to no row
_READ_HERE = ("text", "parquet", "sqlite")  # kinds of stores whose undeclared fields are read here, unit by unit


@dataclass(frozen=True)
class Cell:
    """One value that may hold needles, as bytes: text in UTF-8, numbers as their store keeps them."""

    place: str
    address: str
    unit: str
    position: int
    name: str  # of the column
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class _Wanted:
    """What a cell is handed out for: a needle in it, or (where `packed`) the beginning of something packed."""

    needles: Needles
    packed: bool

    def at(self, body: bytes | memoryview) -> Positions:
        """Where in these bytes it stands: first and last byte of every needle, the first of what is packed."""
        hits = self.needles.find(body)
        places = [hits.start, hits.end - 1]
        if self.packed:
            places.append(np.array(beginnings(bytes(body)), dtype=np.int64))
        return np.concatenate(places)


def touched(estate: Estate, needles: Needles, places: Set[str], packed: Set[str] = frozenset()) -> Iterator[Cell]:
    """Every cell in these places that a hit touches, also in columns that no field declares; each unit read once.

    In places that are `packed`, also cells in which something packed begins.
    """
    for store in estate.stores:
        units = [u.name for u in store.units() if f"{store.name}/{u.name}" in places]
        wanted = {name: _Wanted(needles, f"{store.name}/{name}" in packed) for name in units}
        asked = {c.address: _asked(store, c) for c in store.collections} if units else {}
        for address, rows in store.scan(asked, units) if asked else ():
            for name, column in zip(rows.columns.schema.names, rows.columns.columns, strict=True):
                for row, body in _with_needles(column, wanted[rows.unit], binary=store.kind == "parquet"):
                    position = int(rows.positions[row])
                    yield Cell(f"{store.name}/{rows.unit}", address, rows.unit, position, name, body)
        for collection in store.collections if asked else ():
            for unit in (u.name for u in store.units(collection) if u.name in units):
                yield from _unasked(store, collection, unit, frozenset(asked[collection.address]), wanted[unit])


def _asked(store: Store, collection: Collection) -> list[str]:
    there = store.fields(collection).names
    return [f.name for f in collection.fields if f.name in there] if store.kind in _READ_HERE else list(there)


def _unasked(store: Store, collection: Collection, unit: str, asked: frozenset[str], wanted: _Wanted) -> Iterator[Cell]:
    """Cells in fields that the catalog does not declare."""
    place = f"{store.name}/{unit}"
    for positions, name, values in _columns(store.kind, store.root / unit, collection, asked, wanted):
        if isinstance(values, str):
            yield Cell(place, collection.address, unit, int(positions[0]), name, values.encode())
        else:
            for row, body in _with_needles(values, wanted, binary=store.kind == "parquet"):
                yield Cell(place, collection.address, unit, int(positions[row]), name, body)


def _with_needles(column: pa.Array, wanted: _Wanted, *, binary: bool) -> Iterator[tuple[int, bytes]]:
    """Row and bytes of the cells that are wanted, if a hit touches them only over the edge of two.

    Integers are searched as text, but as eight bytes where the store is `binary`.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if binary and pa.types.is_integer(column.type):
        values = column.cast(pa.int64(), safe=False).fill_null(0).to_numpy(zero_copy_only=False)
        body, width = values.astype("<i8").tobytes(), 8
        starts = wanted.needles.find(body).start
        for row in np.unique(starts[starts % width == 0] // width).tolist():
            yield row, body[row * width : (row + 1) * width]
        return
    if pa.types.is_nested(column.type):
        for leaf, rows in _leaves(column, np.arange(len(column))):
            for at, body in _with_needles(leaf, wanted, binary=binary):
                yield int(rows[at]), body
        return
    if pa.types.is_null(column.type):
        return
    try:
        cells = column.cast(pa.string()).cast(pa.large_string()).fill_null("").cast(pa.large_binary())
    except pa.ArrowInvalid:
        cells = column.cast(pa.large_binary()).fill_null(b"")
    offsets = np.frombuffer(cells.buffers()[1], np.int64)[cells.offset : cells.offset + len(cells) + 1]
    data = cells.buffers()[2]
    if data is None or not len(cells):
        return
    edges = offsets - offsets[0]
    places = wanted.at(memoryview(data).cast("B")[int(offsets[0]) : int(offsets[-1])])
    for row in np.unique(np.searchsorted(edges, places, side="right") - 1).tolist():
        yield row, cells[row].as_py()


def _leaves(column: pa.Array, rows: Positions) -> Iterator[tuple[pa.Array, Positions]]:
    """The flat columns inside a column, however it is nested, and of each value the row it stands in."""
    kind = column.type
    if pa.types.is_map(kind):
        pairs = pa.StructArray.from_arrays([column.keys, column.items], ["key", "value"])
        yield from _leaves(pa.ListArray.from_arrays(column.offsets, pairs), rows)
    elif pa.types.is_struct(kind):
        for number in range(kind.num_fields):
            yield from _leaves(pc.struct_field(column, [number]), rows)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        parents = pc.list_parent_indices(column).to_numpy(zero_copy_only=False)
        yield from _leaves(pc.list_flatten(column), rows[parents])
    else:
        yield column, rows


def _columns(
    kind: str, path: Path, collection: Collection, asked: frozenset[str], wanted: _Wanted
) -> Iterator[tuple[Positions, str, Any]]:
    """Positions, field and values of cells in fields that are not among `asked`, and the names of fields.

    `kind` is the store's. Names are told for every block of a file: values of people should not stand there.

    Any: the text of one cell, or an Arrow column.
    """
    if kind == "text":
        for position, name, text in _text(path, asked, wanted):
            yield np.array([position]), name, text
    elif kind == "parquet":
        yield from _parquet(path, asked)
    elif kind == "sqlite":
        yield from _sqlite(path, collection, asked)


def _parquet(path: Path, asked: frozenset[str]) -> Iterator[tuple[Positions, str, Any]]:
    file = pq.ParquetFile(path)
    for number in range(len(file.schema)):
        yield np.array([NOWHERE]), "the name of a column", file.schema.column(number).path
    more = [name for name in file.schema_arrow.names if name not in asked]
    start = 0
    for batch in file.iter_batches(columns=more) if more else ():
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            yield np.arange(start, start + batch.num_rows), name, column
        start += batch.num_rows


def _sqlite(path: Path, collection: Collection, asked: frozenset[str]) -> Iterator[tuple[Positions, str, Any]]:
    with asking(path.name), closing(connect(path, "ro")) as db:
        for (statement,) in db.execute("SELECT sql FROM main.sqlite_master WHERE sql IS NOT NULL"):
            yield np.array([NOWHERE]), "the schema", statement
        if {row[1] for row in db.execute(f"PRAGMA table_xinfo({quoted(collection.name)})")} <= asked:
            return  # and `look` reads every row
        table = look(db, path.name, collection)
        more = tuple(name for name in table.columns if name not in asked)
        for rows in stream(db, path.name, table, more):
            for name, column in zip(more, rows.columns.columns, strict=True):
                yield rows.positions, name, column


def _text(path: Path, asked: frozenset[str], wanted: _Wanted) -> Iterator[tuple[int, str, str]]:
    how = form(path)
    if how is None:
        return
    with reading(path, how) as stream:
        for head, block in blocks(stream, how, path.name):
            if how.csv:
                yield NOWHERE, "the header", head.raw.decode(errors="replace")
            if how.csv and set(head.names) <= asked:
                return
            places = wanted.at(block.data)
            for row in np.unique(np.searchsorted(block.starts, places, side="right") - 1).tolist():
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
    except (ValueError, RecursionError):
        return [("a record that is no JSON", record)]
    if not isinstance(found, dict):
        return []
    cells = [(str(k), text) for k, value in found.items() for text in _texts(value)]
    return [*(("the name of a key", str(k)) for k in found), *cells]


def _texts(value: Any) -> list[str]:  # Any: JSON
    if isinstance(value, Mapping):
        return [text for key, one in value.items() for text in (str(key), *_texts(one))]
    if isinstance(value, list):
        return [text for one in value for text in _texts(one)]
    return [] if value is None or isinstance(value, bool) else [str(value)]

"""A Parquet file built afresh, row group by row group, in the manner of the old one.

Nothing that could remember a row is carried over: statistics, page index, bloom filters and dictionaries are computed
from the rows that stay; an Arrow dictionary is decoded first, because its unreferenced entries would be written again.

* Mirrored: codec, dictionary or other encoding, page version, checksums, page index, bloom filters, sorting columns,
  row-group boundaries (an emptied one vanishes), schema, key-values that are still true.
* Not mirrored, because a file does not tell them: compression level, page size, bloom filter size.
* The new file is read back and compared with what had to stay before anybody relies on it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fangxin.data.steps import due
from fangxin.data.stores.files import Built, together, unusable
from fangxin.data.vocabulary import Blank, Positions, Redaction, by_position, redacted

PROTECTED = {b"fangxin.protected": b"1"}
_TRUSTED = frozenset({b"ARROW:schema", b"pandas", b"geo"})
_ENCODINGS = frozenset({"DELTA_BINARY_PACKED", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY", "BYTE_STREAM_SPLIT"})

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Edits:
    """What is to be dropped, blanked and redacted in one file, by row number."""

    drop: Positions = field(default_factory=lambda: together(()))
    blank: Mapping[str, Sequence[Blank]] = field(default_factory=dict)
    redact: Mapping[str, Sequence[Redaction]] = field(default_factory=dict)

    def touched(self, name: str) -> Positions:
        """Positions at which the values of one column are declared to change."""
        blanks, redactions = self.blank.get(name, ()), self.redact.get(name, ())
        return together([*(b.positions for b in blanks), *(r.positions for r in redactions)])

    @property
    def changed(self) -> int:
        """How many rows are kept with values replaced."""
        return len(together([self.touched(name) for name in (*self.blank, *self.redact)]))


@dataclass(frozen=True)
class Manner:
    """How a file is written: arguments of pyarrow's writer, read off an existing file."""

    settings: Mapping[str, Any]  # Any: keyword arguments of a library without types
    keys: Mapping[bytes, bytes]  # key-value metadata, without what the writer makes itself


def edit(old: Path, new: Path, unit: str, edits: Edits) -> Built:
    """Write the rows of `old` that stay, with the declared values replaced, to `new`, and verify it."""
    with opened(old) as file:
        _refuse_far_dates(file, old, unit)
        schema = (
            plain_schema(file.schema_arrow) if due("parquet: dictionaries") else file.schema_arrow.remove_metadata()
        )
        asked = edits
        if not due("parquet: row group"):
            last = file.metadata.num_rows - file.metadata.row_group(file.metadata.num_row_groups - 1).num_rows
            edits = replace(edits, drop=edits.drop[edits.drop < last])
        resorted = {*edits.blank, *edits.redact}
        removed: set[str] = set()
        curious = bool(set(file.metadata.metadata or {}) - _TRUSTED)

        def tables() -> Iterator[pa.Table]:
            for start, table in _groups(file, schema):
                if curious and due("parquet: key-values"):
                    removed.update(_removed(table, start, edits))
                yield _edited(table, start, edits, unit)

        rows = file.metadata.num_rows
        after = write(new, schema, manner(file, old, touched=resorted), tables(), before=rows, removed=removed)
        if after != rows - len(edits.drop):
            raise unusable(unit, f"{rows - len(edits.drop)} rows to stay", f"{after}", "locate again")
        _verify(file, new, unit, schema, edits)
    return Built(rows, rows - len(asked.drop), edits.changed)


def exchange_columns(old: Path, new: Path, unit: str, turn: Callable[[pa.RecordBatch], pa.RecordBatch]) -> Built:
    """Write `old` with the columns that `turn` returns in the place of those of that name; verify every column."""
    digests: list[dict[str, bytes]] = []
    with opened(old) as file:
        _refuse_far_dates(file, old, unit)
        before = plain_schema(file.schema_arrow)

        def turned(table: pa.Table) -> pa.Table:
            done = turn(one_batch(table))
            if done.num_rows != table.num_rows:
                raise unusable(unit, f"{table.num_rows} turned rows", f"{done.num_rows}", "this is a defect of ours")
            for name in done.schema.names:
                at = table.schema.get_field_index(name)
                is_binary = pa.types.is_large_binary(done.schema.field(name).type)
                column = pa.field(name, done.schema.field(name).type, metadata=PROTECTED if is_binary else None)
                table = table.set_column(at, column, done.column(name))
                digests[-1][name] = _digest(done.column(name))
            return table

        def tables(source: pq.ParquetFile) -> Iterator[pa.Table]:
            for _, table in _groups(source, before):
                digests.append({})
                yield turned(table)

        stream = tables(file)
        first = next(stream, None)
        schema = first.schema if first is not None else _turned_empty(before, turn).schema
        how = manner(file, old, retyped=schema)
        rows = file.metadata.num_rows
        after = write(new, schema, how, chain([first] if first is not None else [], stream), before=rows)
        with opened(new) as fresh:
            pairs = zip(_groups(file, before), _groups(fresh, schema), digests, strict=True)
            for (_, was), (_, now), made in pairs:
                for name in schema.names:
                    good = _digest(now[name]) == made[name] if name in made else same(was[name], now[name])
                    _expect(good, unit)
    return Built(rows, after, after)


def opened(path: Path, *, extensions: bool = True) -> pq.ParquetFile:
    """Open a Parquet file for reading; its handle closes with the `with` statement."""
    return pq.ParquetFile(path, arrow_extensions_enabled=extensions, page_checksum_verification=True)


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The schema with every dictionary type replaced by the type of its values, and no key-values."""
    return pa.schema([f.with_type(_plain(f.type)) for f in schema])


def plain_table(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with dictionaries decoded."""
    columns = [c if c.type == f.type else c.cast(f.type) for c, f in zip(table.columns, schema, strict=True)]
    return pa.Table.from_arrays(columns, schema=schema)


def one_batch(table: pa.Table) -> pa.RecordBatch:
    """A table as one batch; a row group is small enough for that unless a text column exceeds 2 GiB."""
    columns = [pa.concat_arrays(c.chunks) if c.num_chunks != 1 else c.chunk(0) for c in map(_chunked, table.columns)]
    return pa.RecordBatch.from_arrays(columns, schema=table.schema)


def manner(
    file: pq.ParquetFile, path: Path, *, touched: set[str] | None = None, retyped: pa.Schema | None = None
) -> Manner:
    """Read off how a file was written; sorting columns are not promised for columns whose values change."""
    meta, keys = file.metadata, dict(file.metadata.metadata or {})
    leaves = [file.schema.column(i) for i in range(len(file.schema))]
    whole = {c.physical_type for c in leaves if "Decimal" in str(c.logical_type)}
    settings: dict[str, Any] = {  # Any: see Manner
        "version": "1.0" if meta.format_version == "1.0" else "2.6",
        "store_schema": b"ARROW:schema" in keys or retyped is not None,
        "use_compliant_nested_type": any(".list.element" in c.path for c in leaves),
        "store_decimal_as_integer": bool(whole & {"INT32", "INT64"}),
        "use_deprecated_int96_timestamps": any(c.physical_type == "INT96" for c in leaves),
    }
    keys.pop(b"ARROW:schema", None)
    if not meta.num_row_groups or not meta.num_columns:
        return Manner(settings, keys)
    chunks = [meta.row_group(0).column(i) for i in range(meta.num_columns)]
    gone = {n for n in retyped.names if file.schema_arrow.field(n).type != retyped.field(n).type} if retyped else set()
    chunks = [c for c in chunks if c.path_in_schema.split(".")[0] not in gone]
    encodings = {c.path_in_schema: next(iter(set(c.encodings) & _ENCODINGS), "") for c in chunks}
    dictionary = [c.path_in_schema for c in chunks if any("DICTIONARY" in e for e in c.encodings)]
    plain = {p: e for p, e in encodings.items() if e and p not in dictionary}
    version, checksum = _first_page(path, meta.row_group(0).column(0).data_page_offset)
    settings |= {
        "compression": {c.path_in_schema: "NONE" if c.compression == "UNCOMPRESSED" else c.compression for c in chunks},
        "use_dictionary": dictionary or False,
        "column_encoding": plain or None,
        "write_statistics": [c.path_in_schema for c in chunks if c.is_stats_set] or False,
        "data_page_version": version,
        "write_page_checksum": checksum,
        "write_page_index": any(c.has_offset_index for c in chunks),
    }
    largest = max(meta.row_group(i).num_rows for i in range(meta.num_row_groups))
    blooms = {c.path_in_schema: {"ndv": largest, "fpp": 0.01} for c in chunks if c.bloom_filter_offset is not None}
    if blooms:
        settings["bloom_filter_options"] = blooms
    order = meta.row_group(0).sorting_columns
    names = {file.schema.column(s.column_index).path.split(".")[0] for s in order}
    if order and not names & (touched or set()):
        settings["sorting_columns"] = order
    return Manner(settings, keys)


def write(
    new: Path,
    schema: pa.Schema,
    how: Manner,
    tables: Iterator[pa.Table],
    *,
    before: int,
    removed: set[str] | None = None,
) -> int:
    """Write the tables as one row group each, flush to the medium, return the rows written."""
    rows = 0
    with new.open("xb") as out:
        writer = pq.ParquetWriter(out, schema, **how.settings)
        try:
            for table in tables:
                if table.num_rows:
                    writer.write_table(table, row_group_size=table.num_rows)
                    rows += table.num_rows
            writer.add_key_value_metadata(_honest(how.keys, before, rows, removed or set()))
        finally:
            writer.close()
        out.flush()
        os.fsync(out.fileno())
    return rows


def rewritable(file: pq.ParquetFile, path: Path) -> str:
    """ "" if our writer gives every column the form it has in the file, else the first column that would differ."""
    trial = io.BytesIO()
    schema = plain_schema(file.schema_arrow)
    settings = dict(manner(file, path).settings)
    settings.pop("sorting_columns", None)
    pq.ParquetWriter(trial, schema, **settings).close()
    mine, theirs = pq.ParquetFile(trial).schema, file.schema
    if len(mine) != len(theirs):
        return "the number of columns"
    for i in range(len(theirs)):
        if _leaf(mine.column(i)) != _leaf(theirs.column(i)):
            return f"column {theirs.column(i).path!r}"
    return ""


def filler(value: str | int | float | bool | None, column: pa.Field) -> pa.Scalar:
    """The filler as a value of the column's type; a required column gets a typed zero instead of null.

    Raises pyarrow's errors if the constant of the catalog is no value of that type.
    """
    kind = _plain(column.type)
    kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    if value is not None and column.metadata and b"fangxin.protected" in column.metadata:
        value = None  # a constant would not open as a protected value
    if value is not None:
        return pa.scalar(value).cast(kind)
    if column.nullable:
        return pa.scalar(None, kind)
    if pa.types.is_fixed_size_binary(kind):
        return pa.scalar(bytes(kind.byte_width), kind)
    if pa.types.is_large_binary(kind) or pa.types.is_binary(kind):
        return pa.scalar(b"", kind)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pa.scalar("", kind)
    if pa.types.is_boolean(kind):
        return pa.scalar(False)
    if pa.types.is_temporal(kind):
        return pa.scalar(0, pa.int32() if kind.bit_width == 32 else pa.int64()).cast(kind)
    return pa.scalar(0).cast(kind)


def same(a: pa.ChunkedArray, b: pa.ChunkedArray) -> bool:
    """Whether two columns hold the same values, bit for bit where they are floating-point numbers (NaN included)."""
    return a.equals(b) or (len(a) == len(b) and _same(_one(a), _one(b)))


# ---------------------------------------------------------------- reading, editing, comparing


def _groups(file: pq.ParquetFile, schema: pa.Schema) -> Iterator[tuple[int, pa.Table]]:
    """Yield (first row, row group decoded), empty groups left out."""
    start = 0
    for i in range(file.metadata.num_row_groups):
        if file.metadata.row_group(i).num_rows:
            yield start, plain_table(file.read_row_group(i), schema)
        start += file.metadata.row_group(i).num_rows


def _refuse_far_dates(file: pq.ParquetFile, path: Path, unit: str) -> None:
    """Refuse INT96 times outside the years 1678-2262: read as nanoseconds they wrap round, unnoticed by any check."""
    leaves = [file.schema.column(i) for i in range(len(file.schema))]
    names = sorted({c.path.split(".")[0] for c in leaves if c.physical_type == "INT96"})
    if not names:
        return
    with pq.ParquetFile(path, coerce_int96_timestamp_unit="us") as coarse:
        for i in range(coarse.metadata.num_row_groups):
            for column in coarse.read_row_group(i, columns=names).columns:
                try:
                    fine = pa.timestamp("ns", getattr(column.type, "tz", None))
                    column.cast(fine)
                except pa.ArrowException:
                    raise unusable(
                        unit, "INT96 times between 1678 and 2262", "others", "write them as INT64 timestamps first"
                    ) from None


def _local(positions: Positions, start: int, rows: int) -> Positions:
    """Those positions that lie in a row group, relative to it; order and repetitions are kept."""
    return positions[(positions >= start) & (positions < start + rows)] - start


def _flags(positions: Positions, start: int, rows: int) -> Mask:
    flags = np.zeros(rows, dtype=np.bool_)
    flags[_local(positions, start, rows)] = True
    return flags


def _edited(table: pa.Table, start: int, edits: Edits, unit: str) -> pa.Table:
    """A row group as it shall be."""
    rows = table.num_rows
    for name, blanks in edits.blank.items():
        column = table.schema.field(name)
        for blank in blanks:
            flags = pa.array(_flags(blank.positions, start, rows))
            stored = _storage(table[name])
            value = pc.if_else(flags, filler(blank.filler, column), stored)
            table = table.set_column(table.schema.get_field_index(name), column, _wrapped(value, column.type))
    for name, redactions in edits.redact.items():
        column = table.schema.field(name)
        for redaction in redactions:
            value = _redacted(table[name], start, redaction)
            table = table.set_column(table.schema.get_field_index(name), column, value)
    drop = _flags(edits.drop, start, rows)
    return table.filter(pa.array(~drop)) if drop.any() else table


def _redacted(column: pa.ChunkedArray, start: int, redaction: Redaction) -> pa.ChunkedArray:
    """Replace texts inside the few values they were found in."""
    here = (redaction.positions >= start) & (redaction.positions < start + len(column))
    if not here.any():
        return column
    distinct = np.unique(redaction.positions[here] - start)
    values = dict(zip(distinct.tolist(), column.take(pa.array(distinct)).to_pylist(), strict=True))
    texts = by_position(redaction)
    for position, value in values.items():
        if value is not None:
            values[position] = redacted(value, texts[position + start], redaction.filler)
    flags = np.zeros(len(column), dtype=np.bool_)
    flags[distinct] = True
    return pc.replace_with_mask(column, pa.array(flags), pa.array(list(values.values()), column.type))


def _verify(file: pq.ParquetFile, new: Path, unit: str, schema: pa.Schema, edits: Edits) -> None:
    """Compare the new file with the old one: every kept row equal, but for the declared values; those as declared."""
    with opened(new) as fresh:
        later = _groups(fresh, schema)
        for start, was in _groups(file, schema):
            keep = pa.array(~_flags(edits.drop, start, was.num_rows))
            should = _edited(was, start, edits, unit)
            if not should.num_rows:
                continue
            _, now = next(later, (0, schema.empty_table()))
            _expect(now.num_rows == should.num_rows, unit)
            for name in schema.names:
                _expect(same(should[name], now[name]), unit)
                if name in edits.blank or name in edits.redact:
                    rest = pc.and_(keep, pa.array(~_flags(edits.touched(name), start, was.num_rows)))
                    _expect(same(was[name].filter(rest), now[name].filter(rest.filter(keep))), unit)
                else:
                    _expect(same(was[name].filter(keep), now[name]), unit)
        _expect(next(later, None) is None, unit)


def _expect(holds: bool, unit: str) -> None:
    if not holds:
        raise unusable(
            unit,
            "a new file equal to the rows that stay",
            "a difference",
            "report it: our writer cannot keep this file",
        )


def _same(a: pa.Array, b: pa.Array) -> bool:
    if a.equals(b):
        return True
    if len(a) != len(b) or a.type != b.type or not a.is_null().equals(b.is_null()):
        return False
    kind = a.type
    if pa.types.is_floating(kind):
        bits = {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}[kind.bit_width]
        return bool(a.view(bits).equals(b.view(bits)))
    if isinstance(kind, pa.BaseExtensionType):
        return _same(a.storage, b.storage)
    if pa.types.is_struct(kind):
        return all(_same(x, y) for x, y in zip(a.flatten(), b.flatten(), strict=True))
    if pa.types.is_map(kind):
        entries = pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)]))
        return _same(a.cast(entries), b.cast(entries))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return bool(pc.list_value_length(a).equals(pc.list_value_length(b))) and _same(a.flatten(), b.flatten())
    return False


def _digest(column: pa.ChunkedArray | pa.Array) -> bytes:
    """The digest of a flat column, the same whatever its buffers look like."""
    array = _one(column) if isinstance(column, pa.ChunkedArray) else column
    if not pa.types.is_large_binary(array.type):
        text = array if pa.types.is_binary(array.type) else array.cast(pa.large_string())
        array = text.cast(pa.large_binary())
    fresh = array.take(pa.array(np.arange(len(array))))  # compact, offsets from zero
    out = hashlib.sha256(np.asarray(fresh.is_null()).tobytes())
    for buffer in pc.binary_length(fresh).fill_null(0).cast(pa.int64()).buffers()[1:]:
        out.update(memoryview(buffer)[: 8 * len(fresh)])
    offsets = np.frombuffer(fresh.buffers()[1], dtype=np.int64)[: len(fresh) + 1]
    if len(fresh) and fresh.buffers()[2] is not None:
        out.update(memoryview(fresh.buffers()[2])[: int(offsets[-1])])
    return out.digest()


def _turned_empty(schema: pa.Schema, turn: Callable[[pa.RecordBatch], pa.RecordBatch]) -> pa.Table:
    """The columns that a file without rows would get."""
    empty = schema.empty_table()
    done = turn(one_batch(empty))
    for name in done.schema.names:
        column = pa.field(name, done.schema.field(name).type, metadata=PROTECTED)
        empty = empty.set_column(schema.get_field_index(name), column, done.column(name))
    return empty


def _removed(table: pa.Table, start: int, edits: Edits) -> set[str]:
    """The values that leave a row group, as text; short ones are in every text by chance and left out."""
    found: set[str] = set()
    for name in table.schema.names:
        at = _local(together([edits.drop, edits.touched(name)]), start, table.num_rows)
        if len(at):
            leaving = table[name].take(pa.array(at))
            if not pa.types.is_nested(leaving.type):
                leaving = leaving.unique()
            found |= {str(v) for v in leaving.to_pylist() if v is not None}
    return {v for v in found if len(v) >= 6}


# ---------------------------------------------------------------- types, key-values, pages


def _plain(kind: pa.DataType) -> pa.DataType:
    """A type without dictionaries, however deep they are."""
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_struct(kind):
        return pa.struct([f.with_type(_plain(f.type)) for f in kind])
    if pa.types.is_map(kind):
        return pa.map_(_plain(kind.key_type), _plain(kind.item_type), kind.keys_sorted)
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_plain(kind.value_type)))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(_plain(kind.value_type)), kind.list_size)
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_plain(kind.value_type)))
    return kind


def _honest(keys: Mapping[bytes, bytes], before: int, after: int, removed: set[str]) -> dict[bytes, bytes]:
    """The key-values that are still true of the new file, and name nobody who left."""
    kept: dict[bytes, bytes] = {}
    for key, value in keys.items():
        if key in (b"pandas", b"geo"):
            try:
                told = json.loads(value)
                if key == b"pandas" and before != after:
                    for index in told.get("index_columns", []):
                        if isinstance(index, dict) and index.get("kind") == "range":
                            index["stop"] = index["start"] + after * index["step"]
                for column in told.get("columns", {}).values() if key == b"geo" else ():
                    column.pop("bbox", None)  # an extreme of rows that may have left; optional in GeoParquet
                value = json.dumps(told).encode()
            except (ValueError, AttributeError, KeyError, TypeError):
                continue  # it does not say what its name promises
        elif any(form in key + b" " + value for v in removed for form in (v.encode(), json.dumps(v)[1:-1].encode())):
            continue
        kept[key] = value
    return kept


def _first_page(path: Path, offset: int) -> tuple[str, bool]:
    """Page version and whether pages carry checksums, from the Thrift header of one page (PageHeader, fields 1-4)."""
    with path.open("rb") as file:
        file.seek(offset)
        head = file.read(64)
    kind, at = head[1:2], 0
    for _ in range(3):  # type, uncompressed and compressed size: one byte of field header, then a varint
        at += 1
        while at < len(head) and head[at] & 0x80:
            at += 1
        at += 1
    return ("2.0" if kind == b"\x06" else "1.0"), head[at : at + 1] == b"\x15"


def _leaf(column: Any) -> tuple[Any, ...]:  # Any: pyarrow's ColumnSchema has no types
    length = column.length if column.physical_type == "FIXED_LEN_BYTE_ARRAY" else 0
    levels = (column.max_definition_level, column.max_repetition_level)
    return (column.path, column.physical_type, length, *levels, str(column.logical_type))


def _chunked(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column if column.num_chunks else pa.chunked_array([pa.array([], column.type)])


def _one(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(_chunked(column).chunks)


def _storage(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if isinstance(column.type, pa.BaseExtensionType):
        return pa.chunked_array([c.storage for c in column.chunks], column.type.storage_type)
    return column


def _wrapped(column: pa.ChunkedArray | pa.Array, kind: pa.DataType) -> pa.ChunkedArray | pa.Array:
    if isinstance(kind, pa.BaseExtensionType):
        chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        return pa.chunked_array([pa.ExtensionArray.from_storage(kind, c) for c in chunks], kind)
    return column

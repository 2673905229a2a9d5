"""The map of a Parquet file covers every writer's files, and no damage makes it fail in another way."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fangxin.data.columnar import thrift
from fangxin.data.columnar.footer import Footer, InMemory, MalformedFooter, open_footer, pages

TABLE = pa.table({"a": [f"value {i}" for i in range(3000)], "b": range(3000), "n": [{"x": [i]} for i in range(3000)]})


def by_pyarrow(**options: object) -> bytes:
    out = io.BytesIO()
    pq.write_table(TABLE, out, row_group_size=1000, **options)
    return out.getvalue()


def by_pandas(_folder: Path) -> bytes:
    out = io.BytesIO()
    pd.DataFrame({"a": pd.Categorical(["x", "y", "x"]), "b": [1.5, None, 2]}).to_parquet(out)
    return out.getvalue()


def by_duckdb(folder: Path) -> bytes:
    import duckdb

    target = folder / "d.parquet"
    duckdb.sql(
        f"COPY (SELECT i::VARCHAR a, i b, [i] c FROM range(200000) t(i)) TO '{target}' "
        "(FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION v2)"
    )
    return target.read_bytes()


WRITERS = {
    "pyarrow": lambda _f: by_pyarrow(),
    "pyarrow, everything on": lambda _f: by_pyarrow(
        compression="zstd",
        data_page_version="2.0",
        write_page_index=True,
        write_page_checksum=True,
        bloom_filter_options={"a": {"ndv": 3000, "fpp": 0.01}},
    ),
    "pyarrow, plain": lambda _f: by_pyarrow(compression="none", use_dictionary=False, data_page_size=2000),
    "pandas": by_pandas,
    "duckdb": by_duckdb,
}


def walked(data: bytes) -> Footer:
    file = InMemory(data)
    footer = open_footer(file)
    for chunk in footer.chunks:
        list(pages(file, chunk))
    return footer


@pytest.mark.parametrize("writer", WRITERS)
def test_every_writers_footer_survives_byte_for_byte_and_its_pages_add_up(writer: str, tmp_path: Path) -> None:
    data = WRITERS[writer](tmp_path)
    file, footer, theirs = InMemory(data), walked(data), pq.ParquetFile(io.BytesIO(data)).metadata
    assert footer.exact
    assert (footer.rows, footer.row_groups) == (theirs.num_rows, theirs.num_row_groups)
    spans = []
    for chunk in footer.chunks:
        column = next(
            theirs.row_group(chunk.row_group).column(i)
            for i in range(theirs.num_columns)
            if theirs.row_group(chunk.row_group).column(i).path_in_schema == chunk.path
        )
        assert chunk.span.length == column.total_compressed_size
        found = list(pages(file, chunk))
        assert sum(p.values for p in found if p.kind.startswith("data")) == column.num_values
        assert found[-1].body.end == chunk.span.end
        assert all(data[b.at : b.at + len(b)] == b for b in chunk.statistics)
        spans += [(p.header.offset, p.body.end) for p in found]
    spans.sort()
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(spans))


SMALL = by_pyarrow(compression="zstd", write_page_index=True)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(SMALL) - 1), st.integers(1, 255), st.booleans())
def test_a_flipped_byte_is_read_or_refused_and_nothing_else(at: int, flip: int, in_footer: bool) -> None:
    footer = open_footer(InMemory(SMALL)).span.offset
    at = footer + at % (len(SMALL) - footer) if in_footer else at
    data = bytearray(SMALL)
    data[at] ^= flip
    try:
        size = walked(bytes(data)).size
    except MalformedFooter:
        size = len(SMALL)
    assert size == len(SMALL)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(SMALL)), st.integers(0, len(SMALL)))
def test_a_cut_file_is_refused(start: int, end: int) -> None:
    piece = SMALL[min(start, end) : max(start, end)]
    if piece == SMALL:
        assert walked(piece).exact
    else:
        with pytest.raises(MalformedFooter):
            walked(piece)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_struct_or_malformed(data: bytes) -> None:
    try:
        struct, end = thrift.read(data, 0)
    except MalformedFooter:
        return
    assert end == thrift.skip(data, 0) <= len(data)
    assert thrift.loads(thrift.dumps(struct)) == struct


SCALARS = st.one_of(
    st.tuples(st.just(thrift.TRUE), st.just(True)),
    st.tuples(st.just(thrift.BYTE), st.integers(-128, 127)),
    st.tuples(st.just(thrift.I64), st.integers(-(2**63), 2**63 - 1)),
    st.tuples(st.just(thrift.DOUBLE), st.binary(min_size=8, max_size=8)),
    st.tuples(st.just(thrift.BINARY), st.binary(max_size=40).map(thrift.Binary)),
    st.tuples(st.just(thrift.LIST), st.lists(st.integers(-9, 9), max_size=40).map(lambda v: thrift.List(5, list(v)))),
    st.tuples(
        st.just(thrift.MAP),
        st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1).map(lambda v: thrift.Map(5, 1, list(v))),
    ),
)
STRUCTS = st.recursive(
    st.dictionaries(st.integers(1, 32767), SCALARS, max_size=6).map(
        lambda fields: [(number, *fields[number]) for number in sorted(fields)]
    ),
    lambda inner: st.dictionaries(st.integers(1, 99), inner, max_size=3).map(
        lambda fields: [(number, thrift.STRUCT, fields[number]) for number in sorted(fields)]
    ),
)


@settings(max_examples=150, deadline=None)
@given(STRUCTS)
def test_any_struct_survives_the_round_trip(struct: thrift.Struct) -> None:
    data = thrift.dumps(struct)
    assert thrift.loads(data) == struct
    assert thrift.dumps(thrift.loads(data)) == data
    assert thrift.skip(data + b"more", 0) == len(data)


def test_a_field_can_be_put_and_dropped_without_touching_the_others() -> None:
    struct = thrift.loads(thrift.dumps([(1, thrift.I32, 5), (9, thrift.BINARY, thrift.Binary(b"unknown"))]))
    thrift.put(struct, 4, thrift.I32, 7)
    thrift.put(struct, 1, thrift.I32, 6)
    assert [thrift.get(struct, n) for n in (1, 4, 9, 2)] == [6, 7, b"unknown", None]
    thrift.drop(struct, 4)
    assert struct == [(1, thrift.I32, 6), (9, thrift.BINARY, b"unknown")]


def test_structs_nested_too_deep_are_refused() -> None:
    with pytest.raises(MalformedFooter):
        thrift.loads(b"\x1c" * 5000)


def test_an_encrypted_footer_is_refused_with_what_to_do() -> None:
    with pytest.raises(MalformedFooter, match="encrypted"):
        open_footer(InMemory(b"PARE" + b"\0" * 40 + b"\x08\0\0\0PARE"))


def test_a_file_without_rows_has_pages_where_its_writer_says_so() -> None:
    """Its dictionary page is there, its data page is not: an offset of 0 is no place."""
    out = io.BytesIO()
    pq.write_table(pa.table({"phone": pa.array([], pa.string())}), out)
    (chunk,) = walked(out.getvalue()).chunks
    assert (chunk.span.offset, chunk.values) == (4, 0)

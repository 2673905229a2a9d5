"""The Parquet store keeps the promises of every store, and no trace in dictionaries, statistics or filters."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from contracts.store import BATCH, PEOPLE, PERSON, StoreContract, collection

from fangxin.data.errors import CatalogError, StoreUnavailable
from fangxin.data.stores import rebuild
from fangxin.data.stores.parquet import ParquetStore
from fangxin.data.stores.registry import open_stores
from fangxin.data.vocabulary import Blank, Catalog, Change, Dataset, Meter, Order

SCHEMA = pa.schema([("member_id", pa.int64()), ("phone", pa.string()), ("name", pa.string()), ("note", pa.string())])


class TestParquetStore(StoreContract):
    glob = "members/*.parquet"
    partition: str | None = None
    names = ("members/a.parquet", "members/b.parquet")

    def lay(self, root: Path) -> None:
        for name, rows in zip(self.names, (PEOPLE[:3], PEOPLE[3:]), strict=True):
            path = root / "lake" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            table = pa.Table.from_pylist(list(rows), schema=SCHEMA)
            pq.write_table(table, path, compression="none", row_group_size=2)

    def open(self, root: Path, meter: Meter | None = None) -> ParquetStore:
        base = root if (root / "lake").is_dir() else root.parent
        return ParquetStore(
            base, "lake/", (collection("parquet", "lake/", self.glob, partition=self.partition),), meter or Meter()
        )


class TestPartitionedParquetStore(TestParquetStore):
    glob = "orders/month=*/*.parquet"
    partition = "hive"
    names = ("orders/month=2024-01/a.parquet", "orders/month=2024-02/b.parquet")

    def test_the_path_is_a_column(self, root: Path) -> None:
        store = self.open(root)
        assert store.fields(store.collections[0]).field("month").type == pa.string()
        months = [
            (rows.unit.split("/")[1], set(rows.columns.column("month").to_pylist()))
            for _, rows in store.scan({"shop/members": ["month", "phone"]})
        ]
        assert {m for m in (u.removeprefix("month=") for u, _ in months)} == {"2024-01", "2024-02"}
        assert all(values == {unit.removeprefix("month=")} for unit, values in months)

    def test_a_value_in_the_path_cannot_be_blanked(self, root: Path) -> None:
        store = self.open(root)
        change = Change(store.collections[0], none(), blank={"month": Blank(np.array([0]), None)})
        with pytest.raises(StoreUnavailable, match="path"):
            list(store.erase([Order(store.units()[0], (change,))], batch=BATCH))


def none() -> np.ndarray:
    return np.empty(0, np.int64)


def one(tmp_path: Path, table: pa.Table, **settings: Any) -> ParquetStore:
    pq.write_table(table, tmp_path / "a.parquet", **settings)
    return opened(tmp_path)


def opened(tmp_path: Path) -> ParquetStore:
    return ParquetStore(tmp_path, ".", (collection("parquet", ".", "*.parquet"),), Meter())


def people(n: int = 400) -> pa.Table:
    """Many members; the one at 57 has the extreme of every column."""
    return pa.table(
        {
            "member_id": pa.array([10**9 if i == 57 else i for i in range(n)]),
            "phone": pa.array(["zz-" + PERSON if i == 57 else f"139{i:08d}" for i in range(n)]),
            "name": pa.array(["unique-needle" if i == 57 else f"name {i % 7}" for i in range(n)]).dictionary_encode(),
            "note": pa.array(["zzz-needle-note" if i == 57 else f"note {i}" for i in range(n)]),
        }
    )


def drop(store: ParquetStore, *at: int) -> Order:
    return Order(store.units()[0], (Change(store.collections[0], np.array(at, dtype=np.int64)),))


def hits(path: Path) -> int:
    raw = path.read_bytes()
    return sum(
        raw.count(n)
        for n in (b"unique-needle", b"zzz-needle-note", b"zz-" + PERSON.encode(), (10**9).to_bytes(8, "little"))
    )


def test_an_unreferenced_category_is_forgotten_everywhere(tmp_path: Path) -> None:
    store = one(tmp_path, people(), row_group_size=50, compression="none")
    assert (tmp_path / "a.parquet").read_bytes().count(b"unique-needle") >= 8  # control: every row group's dictionary
    list(store.erase([drop(store, 57)], batch=BATCH))
    assert hits(tmp_path / "a.parquet") == 0


def test_an_order_without_rows_still_rids_a_unit_of_stale_dictionaries(tmp_path: Path) -> None:
    stale = people().filter(pa.array([i != 57 for i in range(400)]))
    store = one(tmp_path, stale, compression="none")
    assert b"unique-needle" in (tmp_path / "a.parquet").read_bytes()
    list(store.erase([drop(store)], batch=BATCH))
    assert b"unique-needle" not in (tmp_path / "a.parquet").read_bytes()
    assert pq.read_table(tmp_path / "a.parquet")["name"].to_pylist() == stale["name"].to_pylist()


def test_the_holder_of_every_extreme_leaves_statistics_index_and_bloom_filter(tmp_path: Path) -> None:
    store = one(
        tmp_path,
        people(),
        row_group_size=100,
        compression="zstd",
        write_page_index=True,
        bloom_filter_options={"phone": {"ndv": 100, "fpp": 0.01}},
        write_page_checksum=True,
        data_page_version="2.0",
    )
    assert hits(tmp_path / "a.parquet") > 0
    list(store.erase([drop(store, 57)], batch=BATCH))
    assert hits(tmp_path / "a.parquet") == 0
    meta = pq.ParquetFile(tmp_path / "a.parquet").metadata
    assert [meta.row_group(i).num_rows for i in range(4)] == [99, 100, 100, 100]
    assert meta.row_group(0).column(0).statistics.max == 99


def test_a_key_value_that_names_somebody_who_left_in_escapes_is_left_out() -> None:
    keys = {b"best": json.dumps({"holder": "王小一"}).encode(), b"owner": b"team 7", "王小一".encode(): b"1"}
    assert rebuild._honest(keys, 3, 2, {"王小一"}) == {b"owner": b"team 7"}


def test_the_new_file_is_written_in_the_manner_of_the_old(tmp_path: Path) -> None:
    table = people().replace_schema_metadata(
        {
            "geo": json.dumps({"columns": {"p": {"bbox": [1, 2, 3, 4]}}}),
            "owner": "team 7",
            "top": "zzz-needle-note leads",
        }
    )
    store = one(
        tmp_path,
        table,
        row_group_size=100,
        compression={"member_id": "zstd", "phone": "gzip", "name": "none", "note": "snappy"},
        use_dictionary=["name"],
        column_encoding={"member_id": "DELTA_BINARY_PACKED"},
        write_page_index=True,
        write_page_checksum=True,
        data_page_version="2.0",
        sorting_columns=[pq.SortingColumn(3)],
        bloom_filter_options={"phone": {"ndv": 100, "fpp": 0.01}},
        write_statistics=["member_id", "phone"],
    )
    list(store.erase([drop(store, 57, *range(200, 300))], batch=BATCH))
    meta = pq.ParquetFile(tmp_path / "a.parquet").metadata
    assert [meta.row_group(i).num_rows for i in range(meta.num_row_groups)] == [99, 100, 100]
    chunks = [meta.row_group(1).column(i) for i in range(4)]
    assert [c.compression for c in chunks] == ["ZSTD", "GZIP", "UNCOMPRESSED", "SNAPPY"]
    assert [c.has_dictionary_page for c in chunks] == [False, False, True, False]
    assert "DELTA_BINARY_PACKED" in chunks[0].encodings
    assert [c.is_stats_set for c in chunks] == [True, True, False, False]
    assert chunks[1].bloom_filter_offset is not None
    assert chunks[0].has_offset_index
    assert meta.row_group(0).sorting_columns == (pq.SortingColumn(3),)
    told = meta.metadata
    assert told[b"owner"] == b"team 7"
    assert json.loads(told[b"geo"]) == {"columns": {"p": {}}}
    assert b"top" not in told


def test_pandas_still_reads_what_stays(tmp_path: Path) -> None:
    frame = people().to_pandas()
    frame.to_parquet(tmp_path / "a.parquet")
    store = opened(tmp_path)
    list(store.erase([drop(store, 57)], batch=BATCH))
    import pandas as pd

    back = pd.read_parquet(tmp_path / "a.parquet")
    assert back["phone"].tolist() == frame.drop(57)["phone"].tolist()
    assert back.index.tolist() == list(range(399))


@pytest.mark.parametrize(
    "column",
    [
        pa.array([float("nan"), 1.5, None], pa.float64()),
        pa.array([[1.0, float("nan")], None, []], pa.list_(pa.float32())),
        pa.array([{"a": "x", "b": [1]}, None, {"a": None, "b": None}]),
        pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int32())),
        pa.array([1, None, 3], pa.timestamp("ns", tz="Asia/Shanghai")),
        pa.array([b"12", None, b"34"], pa.binary(2)),
        pa.array(["1.10", None, "-3.00"]).cast(pa.decimal128(9, 2)),
        pa.array([1, None, 3], pa.date32()),
        pa.array([1, 2, 3], pa.uint16()),
        pa.array(["a", None, "c"], pa.large_string()),
        pa.array([["a"], None, ["c"]]),
    ],
    ids=lambda c: str(c.type),
)
def test_neighbours_of_every_type_are_untouched(tmp_path: Path, column: pa.Array) -> None:
    table = pa.Table.from_pylist(list(PEOPLE[:3]), schema=SCHEMA).append_column("extra", column)
    store = one(tmp_path, table)
    store.check(for_writing=True)
    list(store.erase([drop(store, 1)], batch=BATCH))
    left = pq.read_table(tmp_path / "a.parquet")
    assert str(left["extra"].to_pylist()) == str(table["extra"].take([0, 2]).to_pylist())
    assert left.schema.field("extra").type == table.schema.field("extra").type


def test_a_required_column_is_blanked_with_a_typed_zero(tmp_path: Path) -> None:
    schema = pa.schema([f.with_nullable(False) for f in SCHEMA])
    store = one(tmp_path, pa.Table.from_pylist(list(PEOPLE), schema=schema))
    blank = {n: Blank(np.array([1]), None) for n in ("member_id", "phone")}
    list(store.erase([Order(store.units()[0], (Change(store.collections[0], none(), blank=blank),))], batch=BATCH))
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert rows[1] == {**PEOPLE[1], "member_id": 0, "phone": ""}
    assert rows[2:] == list(PEOPLE[2:])


def test_a_mask_that_does_not_fit_the_column_is_refused_before_anything_changes(tmp_path: Path) -> None:
    store = one(tmp_path, pa.Table.from_pylist(list(PEOPLE), schema=SCHEMA))
    before = (tmp_path / "a.parquet").read_bytes()
    change = Change(store.collections[0], none(), blank={"member_id": Blank(np.array([1]), "hidden")})
    with pytest.raises(StoreUnavailable, match="mask"):
        list(store.erase([Order(store.units()[0], (change,))], batch=BATCH))
    assert (tmp_path / "a.parquet").read_bytes() == before


def test_an_emptied_unit_stays_a_valid_file_and_can_be_erased_again(tmp_path: Path) -> None:
    store = one(tmp_path, people(5))
    list(store.erase([drop(store, *range(5))], batch=BATCH))
    assert pq.read_table(tmp_path / "a.parquet").num_rows == 0
    store.check(for_writing=True)
    (again,) = store.erase([drop(store)], batch="second")
    assert again.rows_after == {"shop/members": 0}


def test_summaries_and_checksums_of_the_old_file_go_with_it(tmp_path: Path) -> None:
    store = one(tmp_path, people())
    (tmp_path / "_metadata").write_bytes(b"repeats zzz-needle-note")
    (tmp_path / ".a.parquet.crc").write_bytes(b"crc")
    (tmp_path / "_SUCCESS").write_bytes(b"")
    assert {p.name for p in store.files()} == {"a.parquet", "_metadata", ".a.parquet.crc", "_SUCCESS"}
    (done,) = store.erase([drop(store, 57)], batch=BATCH)
    store.forget(batch=BATCH)
    assert {p.name for p in store.files()} == {"a.parquet", "_SUCCESS"}
    assert done.rows_after == {"shop/members": 399}


def test_times_that_our_writer_would_wrap_round_are_refused_and_others_kept(tmp_path: Path) -> None:
    for year, fits in ((2024, True), (3000, False)):
        when = pa.array([datetime(year, 5, 6, 7, tzinfo=UTC)] * 3, pa.timestamp("us", "UTC"))
        store = one(tmp_path, people(3).append_column("at", when), use_deprecated_int96_timestamps=True)
        before = (tmp_path / "a.parquet").read_bytes()
        if fits:
            list(store.erase([drop(store, 1)], batch=BATCH))
            left = pq.ParquetFile(tmp_path / "a.parquet")
            assert left.schema.column(4).physical_type == "INT96"
            assert left.read()["at"].cast(pa.timestamp("us", "UTC")).to_pylist() == when.to_pylist()[:2]
        else:
            with pytest.raises(StoreUnavailable, match="INT96"):
                list(store.erase([drop(store, 1)], batch=BATCH))
            assert (tmp_path / "a.parquet").read_bytes() == before


def test_rows_in_one_group_leave_the_others_unread(tmp_path: Path) -> None:
    store = one(tmp_path, people(), row_group_size=50)
    taken = [rows for _, rows in store.take({"shop/members": {"a.parquet": np.array([57, 60, 399])}})]
    assert [rows.positions.tolist() for rows in taken] == [[57, 60], [399]]
    assert [m for rows in taken for m in rows.columns.column("member_id").to_pylist()] == [10**9, 60, 399]


def test_an_encrypted_file_is_refused_by_name_with_what_to_do(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    pq.write_table(people(5), buffer)
    (tmp_path / "a.parquet").write_bytes(b"PARE" + buffer.getvalue()[4:-4] + b"PARE")
    with pytest.raises(StoreUnavailable, match=r"a\.parquet.*encrypted.*destroy its key"):
        opened(tmp_path).check(for_writing=False)


def test_an_identity_in_a_nested_column_is_refused(tmp_path: Path) -> None:
    table = people(3).set_column(1, "phone", pa.array([["1"], ["2"], None]))
    store = one(tmp_path, table)
    with pytest.raises(StoreUnavailable, match=r"a\.parquet.*phone"):
        store.check(for_writing=False)


def test_collections_of_one_place_share_a_store_and_unknown_kinds_are_named(tmp_path: Path) -> None:
    (tmp_path / "lake").mkdir()
    collections = (
        collection("parquet", "lake", "a/*"),
        collection("text", "lake", "b/*.csv", name="texts"),
        collection("parquet", "lake", "c/*", name="more"),
    )
    catalog = Catalog((Dataset("shop", "Shop", collections),), tmp_path, "digest", None)
    stores = open_stores(catalog, Meter())
    assert [(s.name, [c.name for c in s.collections]) for s in stores] == [
        ("parquet:lake", ["members", "more"]),
        ("text:lake", ["texts"]),
    ]
    strange = Catalog((Dataset("shop", "Shop", (collection("tape", "x", "*"),)),), tmp_path, "digest", None)
    with pytest.raises(CatalogError, match=r"shop.yml:3:5: store.kind 'tape'"):
        open_stores(strange, Meter())

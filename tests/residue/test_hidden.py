"""Ways in which a value was hidden from the scan once, each as small as it was found."""

from __future__ import annotations

import base64
import bz2
import gzip
import lzma
import os
import random
import sqlite3
import uuid
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import duckdb
import lz4.frame
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fangxin.checks.residue.patterns import Needles, needles_for
from fangxin.checks.residue.scan import scan, walk
from fangxin.data.vocabulary import Identity

TEXT = b"call back 13912345678 tomorrow, order 8871; " * 3
PHONE = Identity("phone_number", "+8613912345678")


@pytest.fixture(scope="module")
def needles() -> Needles:
    return needles_for([(0, PHONE)])


def narrow(bits: int, level: int = 6) -> bytes:
    machine = zlib.compressobj(level, zlib.DEFLATED, bits)
    return machine.compress(TEXT) + machine.flush()


def alone(preset: int) -> bytes:
    return lzma.compress(TEXT, format=lzma.FORMAT_ALONE, preset=preset)


def with_another_checksum(packed: bytes) -> bytes:
    return packed[:-8] + bytes(b ^ 1 for b in packed[-8:-4]) + packed[-4:]


@pytest.mark.parametrize(
    "make",
    [
        *(pytest.param(lambda n=n: alone(n), id=f"lzma -{n}") for n in range(10)),
        *(pytest.param(lambda n=n: narrow(n), id=f"zlib of {n} bits") for n in range(9, 16)),
        *(
            pytest.param(lambda n=n: base64.b64encode(zlib.compress(TEXT, n)), id=f"zlib -{n} in base64")
            for n in (1, 6, 9)
        ),
        *(
            pytest.param(lambda n=n: base64.b64encode(bz2.compress(TEXT, n)), id=f"bz2 -{n} in base64")
            for n in (1, 3, 9)
        ),
        pytest.param(lambda: base64.b64encode(lz4.frame.compress(TEXT)), id="lz4 in base64"),
        pytest.param(lambda: base64.urlsafe_b64encode(lzma.compress(TEXT)), id="xz in base64url"),
        pytest.param(lambda: base64.b64encode(alone(1)), id="lzma in base64"),
        pytest.param(lambda: with_another_checksum(gzip.compress(TEXT)), id="a small gzip with a wrong checksum"),
    ],
)
def test_a_small_container_is_opened(make: Callable[[], bytes], needles: Needles, tmp_path: Path) -> None:
    (tmp_path / "u").write_bytes(make())
    assert b"13912345678" not in (tmp_path / "u").read_bytes()
    assert scan(walk([tmp_path]), needles, workers=1).hits.num_rows > 0


def test_what_a_damaged_gzip_says_before_its_damage_is_searched_and_the_damage_named(
    needles: Needles, tmp_path: Path
) -> None:
    whole = gzip.compress(TEXT + base64.b64encode(random.Random(3).randbytes(3000)), mtime=0)
    for at in (400, 1500):
        packed = bytearray(whole)
        packed[at : at + 40] = bytes(40)
        (tmp_path / "u").write_bytes(packed)
        found = scan(walk([tmp_path]), needles, workers=1)
        assert found.hits.num_rows > 0, at
        assert found.not_examinable != [], at


def test_an_attribute_of_a_folder_that_is_not_empty_is_searched(needles: Needles, tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "u").write_bytes(b"nobody")
    os.setxattr(tmp_path / "f", "user.owner", b"13912345678")
    assert scan(walk([tmp_path]), needles, workers=1).hits["place"].to_pylist() == [str(tmp_path / "f")]


def test_a_packed_value_that_was_deleted_from_a_database_is_opened(needles: Needles, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "u")) as db:
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB)")
        db.execute("PRAGMA secure_delete = OFF")
        with db:
            db.executemany("INSERT INTO t VALUES (?, ?)", [(n, gzip.compress(b"nobody %d" % n)) for n in range(20)])
            db.execute("INSERT INTO t VALUES (99, ?)", [gzip.compress(TEXT)])
        with db:
            db.execute("DELETE FROM t WHERE id = 99")
    found = scan(walk([tmp_path]), needles, workers=1).hits["container"].to_pylist()
    assert {one for one in found if "gzip" in one} == {"sqlite:free > gzip"}


@pytest.mark.parametrize("pack", [lambda b: b, gzip.compress, lambda b: base64.b64encode(gzip.compress(b))])
def test_a_packed_value_in_the_metadata_of_a_parquet_file_is_found(
    pack: Callable[[bytes], bytes], needles: Needles, tmp_path: Path
) -> None:
    table = pa.table({"a": [1]}).replace_schema_metadata({b"sample": pack(TEXT)})
    pq.write_table(table, tmp_path / "k.parquet")
    hits = scan(walk([tmp_path]), needles, workers=1).hits.to_pylist()
    assert any("parquet:key-value" in hit["container"] for hit in hits)


def test_an_integer_of_any_size_in_duckdb_is_read_as_a_number(needles: Needles, tmp_path: Path) -> None:
    with duckdb.connect(tmp_path / "n.duckdb") as db:
        db.execute("CREATE TABLE t AS SELECT '13912345678'::VARINT AS n, ['13912345678'::VARINT] AS many")
    hits = scan(walk([tmp_path]), needles, workers=1).hits.to_pylist()
    assert {hit["column"].rpartition(".")[2] for hit in hits} >= {"n", "many"}


def test_a_uuid_is_found_as_its_bytes(tmp_path: Path) -> None:
    one = uuid.UUID("6b0e5ad2-58a1-4c43-9b3e-0d1f2a3b4c5d")
    (tmp_path / "u").write_bytes(b"xx" + one.bytes + b"yy" + one.bytes_le + base64.b64encode(b"z" + one.bytes))
    found = scan(walk([tmp_path]), needles_for([(0, Identity("device", str(one)))]), workers=1).hits.to_pylist()
    assert {hit["form"].partition(" at")[0] for hit in found} == {"uuid", "guid", "base64"}


def test_a_name_that_is_not_utf8_is_walked_and_printed(needles: Needles, tmp_path: Path) -> None:
    (tmp_path / os.fsdecode("客户备份.csv".encode("gbk"))).write_text("13912345678")
    found = scan(walk([tmp_path]), needles, workers=1)
    (place,) = set(found.hits["place"].to_pylist())
    assert place.endswith(r"/\xbf\xcd\xbb\xa7\xb1\xb8\xb7\xdd.csv")

"""Whatever a person's bytes were packed into, the scan finds them there, or says what it could not open."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import os
import signal
import sqlite3
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import fastavro
import lz4.block
import lz4.frame
import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from residue.references import uuid_bytes

from fangxin.checks.residue.carve import Limits, Probes, carve
from fangxin.checks.residue.containers import apart
from fangxin.checks.residue.patterns import Breadth, Context, Needles, needles_for, spellings
from fangxin.checks.residue.results import classes
from fangxin.checks.residue.scan import Scan, scan, walk
from fangxin.data.columnar.footer import InMemory, open_footer, pages
from fangxin.data.vocabulary import Identity

PHONE, MAIL = "13912345678", "mei.zhang+x@example.com"
PEOPLE = [
    (0, Identity("phone_number", "+86" + PHONE)),
    (0, Identity("email", MAIL)),
    (1, Identity("cn_resident_id", "11010119900307231X")),
    (1, Identity("address", "上海市徐汇区漕溪北路88号")),
]
Build = Callable[[Sequence[bytes], Path], bytes]


@pytest.fixture(scope="module")
def needles() -> Needles:
    return needles_for(PEOPLE)


@pytest.fixture(scope="module")
def phone() -> Needles:
    return needles_for(PEOPLE[:1])


@pytest.fixture(scope="module")
def values(needles: Needles) -> list[bytes]:
    """Every byte form, once; base64 with the neighbours that a real encoding gives it."""
    whole = {}
    for number, (_subject, identity) in enumerate(PEOPLE):
        written = {name: text.encode() for name, text in spellings(identity).items()}
        for name, raw in (written | uuid_bytes(identity.value)).items():
            for shift in range(3):
                encoded = base64.b64encode(b"?" * shift + raw + b"?")
                of = f" ({name})" if name else ""
                whole[(number, f"base64 at {shift}{of}")] = encoded
                whole[(number, f"base64url at {shift}{of}")] = encoded.replace(b"+", b"-").replace(b"/", b"_")
    return list({whole.get((n.identity, n.form), n.data): None for n in needles})


def labels(result: Scan) -> set[str]:
    return set(result.hits["container"].to_pylist())


def once(data: bytes, needles: Needles, folder: Path, **kw: Limits) -> Scan:
    path = folder / "unit"
    path.write_bytes(data)
    return scan([("here", path)], needles, **kw)


def lines(values: Sequence[bytes]) -> bytes:
    return b"\n".join(values)


def twice(pack: Callable[[bytes], bytes], values: Sequence[bytes], between: bytes = b"") -> bytes:
    """Two streams one behind the other; a value begins in the first and ends in the second."""
    text = lines(values)
    cut = len(values[0]) + 1 + len(values[1]) // 2
    return pack(text[:cut]) + between + pack(text[cut:])


# ---------------------------------------------------------------- what packs


def zipped(data: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr("a.csv", data)
    return out.getvalue()


def zipped_as_a_stream(data: bytes) -> bytes:
    """As a pipe would get it: sizes behind the member."""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    out = Pipe()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", data)
    return out.getvalue()


def without_directory(archive: bytes) -> bytes:
    return archive[: archive.index(b"PK\1\2")]


def tarred(data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("a")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def snappy_framed(data: bytes) -> bytes:
    out = b"\xff\x06\0\0sNaPpY"
    for at in range(0, len(data), 60_000):
        body = b"\0\0\0\0" + pa.Codec("snappy").compress(data[at : at + 60_000], asbytes=True)
        out += b"\0" + len(body).to_bytes(3, "little") + body
    return out


def lz4_legacy(data: bytes) -> bytes:
    packed = lz4.block.compress(data, store_size=False)
    return b"\x02\x21\x4c\x18" + len(packed).to_bytes(4, "little") + packed


def parquet(values: pa.Array, **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"note": values}), out, **options)
    return out.getvalue()


def binary(values: Sequence[bytes]) -> pa.Array:
    return pa.array(values, pa.binary())


def unreferenced(values: Sequence[bytes]) -> pa.Array:
    """A category column whose entries no row refers to: what a filter leaves behind."""
    return pa.DictionaryArray.from_arrays(pa.array([len(values)] * 3, pa.int32()), binary([*values, b"kept"]))


def feathered(values: pa.Array, **options: Any) -> bytes:
    out = io.BytesIO()
    feather.write_feather(pa.table({"note": values}), out, **options)
    return out.getvalue()


def ipc_stream(values: pa.Array, compression: str | None = "lz4") -> bytes:
    out = io.BytesIO()
    table = pa.table({"note": values})
    with pa.ipc.new_stream(out, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)
    return out.getvalue()


def orc_file(values: pa.Array, **options: Any) -> bytes:
    out = io.BytesIO()
    orc.write_table(pa.table({"note": values}), out, **options)
    return out.getvalue()


def number(value: int) -> bytes:
    """A long as Avro writes it."""
    value, out = value << 1, bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def counted(value: bytes) -> bytes:
    return number(len(value)) + value


def avro_file(values: Sequence[bytes], codec: str) -> bytes:
    schema = {"type": "record", "name": "r", "fields": [{"name": "note", "type": "bytes"}]}
    if codec == "zstandard":  # fastavro wants another library for it
        rows = b"".join(counted(v) for v in values)
        packed = zstandard.compress(rows)
        meta = {b"avro.codec": b"zstandard", b"avro.schema": json.dumps(schema).encode()}
        head = b"Obj\1" + number(2) + b"".join(counted(k) + counted(v) for k, v in meta.items()) + b"\0"
        return head + b"0123456789abcdef" + number(len(values)) + counted(packed) + b"0123456789abcdef"
    out = io.BytesIO()
    fastavro.writer(out, fastavro.parse_schema(schema), [{"note": v} for v in values], codec=codec)
    return out.getvalue()


def pickled(value: object, protocol: int) -> bytes:
    """A pickle, made by an interpreter of its own: no module of ours writes or reads one."""
    script = "import pickle, sys; sys.stdout.buffer.write(pickle.dumps(eval(sys.stdin.read()), int(sys.argv[1])))"
    done = subprocess.run(
        [sys.executable, "-c", script, str(protocol)], input=repr(value).encode(), capture_output=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def sqlite_file(
    path: Path, values: Sequence[bytes], *, after: str = "", padding: int = 0, mode: str = "DELETE"
) -> bytes:
    """The file of a database of notes, or the log or journal beside it, as it lies while the database is open."""
    path.unlink(missing_ok=True)
    base = sqlite3.connect(path)
    base.executescript(
        f"PRAGMA page_size = 4096; PRAGMA journal_mode = {mode}; PRAGMA secure_delete = OFF;"
        "CREATE TABLE notes (id INTEGER, note BLOB)"
    )
    base.executemany("INSERT INTO notes VALUES (?, ?)", [(i, b"-" * padding + v) for i, v in enumerate(values)])
    base.commit()
    if after:
        base.executescript(after)
    suffix = {"WAL": "-wal", "PERSIST": "-journal"}.get(mode, "")
    data = Path(f"{path}{suffix}").read_bytes()
    base.close()
    return data


def duckdb_file(path: Path, values: Sequence[bytes], *, checkpoint: bool = True) -> bytes:
    """The file of a database of notes, or the log beside it."""
    for old in (path, Path(f"{path}.wal")):
        old.unlink(missing_ok=True)
    with duckdb.connect(str(path)) as base:
        base.execute("CREATE TABLE notes (id BIGINT, note BLOB)")
        if not checkpoint:
            base.execute("CHECKPOINT; SET checkpoint_threshold = '1GB'; SET wal_autocheckpoint = '1GB'")
        base.executemany("INSERT INTO notes VALUES (?, ?)", [(i, v) for i, v in enumerate(values)])
        if checkpoint:
            base.execute("CHECKPOINT")
            return path.read_bytes()
        return Path(f"{path}.wal").read_bytes()


def lzf(data: bytes) -> bytes:
    """Packs as Redis does, with a back reference wherever three bytes repeat within reach."""
    out, literals, at, seen = bytearray(), bytearray(), 0, dict[bytes, int]()

    def flush() -> None:
        for start in range(0, len(literals), 32):
            part = literals[start : start + 32]
            out.append(len(part) - 1)
            out.extend(part)
        literals.clear()

    while at < len(data):
        key, known = data[at : at + 3], seen.get(data[at : at + 3], -1)
        seen[key] = at
        if len(key) == 3 and known >= 0 and at - known <= 8192:
            length = 3
            while length < 264 and at + length < len(data) and data[known + length] == data[at + length]:
                length += 1
            flush()
            back, told = at - known - 1, length - 2
            out.append((min(told, 7) << 5) | back >> 8)
            if told >= 7:
                out.append(told - 7)
            out.append(back & 0xFF)
            at += length
        else:
            literals.append(data[at])
            at += 1
    flush()
    return bytes(out)


def redis_dump(values: Sequence[bytes]) -> bytes:
    """A dump of strings, each with something that repeats, so that packing pays."""
    out = b"REDIS0011\xfe\x00"
    for i, value in enumerate(values):
        plain = b"note=" * 40 + value + b";" * 40
        packed = lzf(plain)
        out += b"\0\x04k%03d" % (i % 1000) + b"\xc3"
        out += struct.pack(">H", 0x4000 | len(packed)) + struct.pack(">H", 0x4000 | len(plain)) + packed
    return out + b"\xff" + bytes(8)


NOISE = bytes(range(7, 250)) * 5

FAMILIES: dict[str, dict[str, tuple[str, Build]]] = {
    "streams": {
        "plain file": ("raw", lambda v, _p: lines(v)),
        "gzip": ("gzip", lambda v, _p: gzip.compress(lines(v))),
        "gzip, two members in a row": (
            "gzip",
            lambda v, _p: gzip.compress(lines(v)[:999]) + gzip.compress(lines(v)[999:]),
        ),
        "zlib": ("zlib", lambda v, _p: zlib.compress(lines(v))),
        "bz2": ("bz2", lambda v, _p: bz2.compress(lines(v))),
        "bz2, two in a row": ("bz2", lambda v, _p: twice(bz2.compress, v)),
        "xz": ("xz", lambda v, _p: lzma.compress(lines(v))),
        "xz, two with padding": (
            "xz",
            lambda v, _p: lzma.compress(lines(v)[:9]) + bytes(8) + lzma.compress(lines(v)[9:]),
        ),
        "lzma": ("lzma", lambda v, _p: lzma.compress(lines(v), lzma.FORMAT_ALONE)),
        "zstd": ("zstd", lambda v, _p: zstandard.compress(lines(v))),
        "zstd, two with a skipped frame": (
            "zstd",
            lambda v, _p: twice(zstandard.compress, v, b"\x50\x2a\x4d\x18\4\0\0\0skip"),
        ),
        "lz4 frame": ("lz4", lambda v, _p: lz4.frame.compress(lines(v))),
        "lz4 legacy frame": ("lz4", lambda v, _p: lz4_legacy(lines(v))),
        "lz4 block": ("lz4", lambda v, _p: lz4.block.compress(lines(v))),
        "snappy framed": ("snappy", lambda v, _p: snappy_framed(lines(v))),
        "snappy block": ("snappy", lambda v, _p: pa.Codec("snappy").compress(lines(v), asbytes=True)),
    },
    "streams in the middle of a file": {
        f"{name} in noise": (name.split()[0], lambda v, _p, pack=pack: NOISE + pack(lines(v)) + NOISE)
        for name, pack in {
            "gzip": gzip.compress,
            "zlib": zlib.compress,
            "zlib (fast)": lambda d: zlib.compress(d, 1),
            "bz2": bz2.compress,
            "xz": lzma.compress,
            "lzma": lambda d: lzma.compress(d, lzma.FORMAT_ALONE),
            "zstd": zstandard.compress,
            "lz4": lz4.frame.compress,
            "snappy": snappy_framed,
            "zip": zipped,
        }.items()
    },
    "archives": {
        **{
            f"zip, {name}": ("zip", lambda v, _p, method=method: zipped(lines(v), method))
            for name, method in (("stored", 0), ("deflate", 8), ("bz2", 12), ("lzma", 14))
        },
        "zip, sizes behind the member": ("zip", lambda v, _p: zipped_as_a_stream(lines(v))),
        "zip without its directory": ("zip", lambda v, _p: without_directory(zipped(lines(v)))),
        "gzip in zip": ("zip > gzip", lambda v, _p: zipped(gzip.compress(lines(v)))),
        "zip in gzip in xz": ("xz > gzip > zip", lambda v, _p: lzma.compress(gzip.compress(zipped(lines(v))))),
        "tar.gz": ("gzip", lambda v, _p: gzip.compress(tarred(lines(v)))),
        "tar.zst with a gzip": ("zstd > tar > gzip", lambda v, _p: zstandard.compress(tarred(gzip.compress(lines(v))))),
        "Parquet in tar": ("tar > parquet:dictionary", lambda v, _p: tarred(parquet(binary(v)))),
        "Parquet in zip": ("zip > parquet:dictionary", lambda v, _p: zipped(parquet(binary(v)))),
        "SQLite in zip": ("zip > sqlite:table=notes", lambda v, p: zipped(sqlite_file(p, v))),
        "DuckDB in zip": ("zip > duckdb:table=notes", lambda v, p: zipped(duckdb_file(p, v))),
    },
    "Parquet": {
        **{
            f"plain, {codec}, v{version[0]}": (
                "parquet:page",
                lambda v, _p, codec=codec, version=version: parquet(
                    binary(v), use_dictionary=False, compression=codec, data_page_version=version
                ),
            )
            for codec in ("none", "snappy", "gzip", "zstd", "lz4", "brotli")
            for version in ("1.0", "2.0")
        },
        "dictionary": ("parquet:dictionary", lambda v, _p: parquet(binary(v), compression="zstd")),
        "entry without a row": ("parquet:dictionary", lambda v, _p: parquet(unreferenced(v))),
        "DELTA_BYTE_ARRAY": (
            "parquet:values",
            lambda v, _p: parquet(
                binary(sorted(v)), use_dictionary=False, column_encoding={"note": "DELTA_BYTE_ARRAY"}
            ),
        ),
        "DELTA_LENGTH_BYTE_ARRAY": (
            "parquet:page",
            lambda v, _p: parquet(binary(v), use_dictionary=False, column_encoding={"note": "DELTA_LENGTH_BYTE_ARRAY"}),
        ),
        "small pages": (
            "parquet:page",
            lambda v, _p: parquet(binary(v), use_dictionary=False, data_page_size=512, write_batch_size=8),
        ),
        "in the middle of an image": (
            "parquet:page",
            lambda v, _p: NOISE + parquet(binary(v), use_dictionary=False, compression="zstd") + NOISE,
        ),
        "two in an image": (
            "parquet:page",
            lambda v, _p: (
                NOISE
                + parquet(binary(v[::2]), use_dictionary=False, compression="zstd")
                + parquet(binary(v[1::2]), use_dictionary=False, compression="gzip")
            ),
        ),
        "gzip in a page": (
            "parquet:page > gzip",
            lambda v, _p: parquet(binary([gzip.compress(lines(v))]), use_dictionary=False),
        ),
    },
    "Arrow, ORC, Avro": {
        **{
            f"Feather, {codec}": ("arrow:column", lambda v, _p, codec=codec: feathered(binary(v), compression=codec))
            for codec in ("zstd", "lz4", "uncompressed")
        },
        "Feather, entry without a row": ("arrow:column", lambda v, _p: feathered(unreferenced(v), compression="zstd")),
        "IPC stream": ("arrow:column", lambda v, _p: ipc_stream(binary(v))),
        "Feather in noise": ("arrow:column", lambda v, _p: NOISE + feathered(binary(v), compression="zstd") + NOISE),
        **{
            f"ORC, {codec}": ("orc:stream", lambda v, _p, codec=codec: orc_file(binary(v), compression=codec))
            for codec in ("uncompressed", "zlib", "snappy", "lz4", "zstd")
        },
        "ORC in noise": ("orc:stream", lambda v, _p: NOISE + orc_file(binary(v), compression="zlib") + NOISE),
        **{
            f"Avro, {codec}": ("avro:block", lambda v, _p, codec=codec: avro_file(v, codec))
            for codec in ("null", "deflate", "snappy", "bzip2", "xz", "zstandard")
        },
        "Avro in noise": ("avro:block", lambda v, _p: NOISE + avro_file(v, "deflate") + NOISE),
    },
    "pickles": {
        **{
            f"protocol {n}": ("pickle:text" if n < 3 else "pickle:bytes", lambda v, _p, n=n: pickled(list(v), n))
            for n in range(6)
        },
        "in noise": ("pickle:bytes", lambda v, _p: NOISE + pickled(list(v), 4) + NOISE),
        "base64 of one, in lines": (
            "base64 > pickle:bytes",
            lambda v, _p: base64.encodebytes(pickled([b"\xff" * 3, *v], 5)),
        ),
        "base64 of one, in JSON": (
            "base64 > pickle:bytes",
            lambda v, _p: json.dumps({"result": base64.encodebytes(pickled(list(v), 4)).decode()}).encode(),
        ),
        "base64 of gzip": (
            "base64 > gzip",
            lambda v, _p: b'{"data": "' + base64.b64encode(gzip.compress(lines(v))) + b'"}',
        ),
        "base64 of a packed pickle": (
            "base64 > xz > pickle:bytes",
            lambda v, _p: base64.encodebytes(lzma.compress(pickled(list(v), 4))),
        ),
    },
    "databases": {
        "SQLite row": ("sqlite:table=notes", lambda v, p: sqlite_file(p, v)),
        "SQLite row over many pages": ("sqlite:table=notes", lambda v, p: sqlite_file(p, v, padding=4050)),
        "SQLite in noise": ("sqlite:table=notes", lambda v, p: NOISE + sqlite_file(p, v, padding=40)),
        "SQLite free page": ("sqlite:free", lambda v, p: sqlite_file(p, v, padding=2000, after="DROP TABLE notes")),
        "SQLite free pages, over many": (
            "sqlite:free",
            lambda v, p: sqlite_file(p, v, padding=4050, after="DROP TABLE notes"),
        ),
        "SQLite log": ("sqlite:record", lambda v, p: sqlite_file(p, v, mode="WAL")),
        "SQLite log, over many pages": ("sqlite:record", lambda v, p: sqlite_file(p, v, mode="WAL", padding=4050)),
        "SQLite log in noise": ("sqlite:record", lambda v, p: NOISE + sqlite_file(p, v, mode="WAL", padding=4050)),
        "SQLite journal that was kept": (
            "sqlite:record",
            lambda v, p: sqlite_file(p, v, mode="PERSIST", padding=40, after="UPDATE notes SET note = zeroblob(9)"),
        ),
        "SQLite cut short": ("sqlite:record", lambda v, p: sqlite_file(p, v, after=_LAST)[:-4096]),
        "gzip in a SQLite row": (
            "sqlite:table=notes > gzip",
            lambda v, p: sqlite_file(p, [gzip.compress(lines(v))]),
        ),
        "DuckDB row": ("duckdb:table=notes", lambda v, p: duckdb_file(p, v)),
        "DuckDB log": ("raw", lambda v, p: duckdb_file(p, v, checkpoint=False)),
        "Redis dump": ("redis:string", lambda v, _p: redis_dump(v)),
    },
}
_LAST = "CREATE TABLE last (x); INSERT INTO last VALUES (zeroblob(3000))"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_byte_form_is_found_in_every_container(
    family: str, needles: Needles, values: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The positive control: a row of the table for each container, and none with anything missing."""
    # Needles that count in some surroundings only are other tests' matter.
    searched = {(n.identity, n.form) for n in needles if n.context is Context.ANY}
    plain = _forms(once(lines(values), needles, tmp_path), "raw") & searched
    assert len(plain) >= 0.97 * len(searched)  # the rest are numbers that only a database's pages hold
    table, wrong = [], []
    for name, (label, build) in FAMILIES[family].items():
        result = once(build(values, tmp_path / "made"), needles, tmp_path)
        missing = plain - _forms(result, label)
        table.append(f"{name:34} {label:28} {len(plain) - len(missing):5} of {len(plain)} forms")
        # Where a row is deleted, SQLite writes four bytes over the start of its cell.
        if len(missing) > (0.01 * len(plain) if "free" in label else 0):
            wrong.append(
                (name, label, len(missing), sorted(missing)[:3], sorted(labels(result)), result.not_examinable)
            )
        elif result.not_examinable and "cut short" not in name:
            wrong.append((name, result.not_examinable))
    with capsys.disabled():
        print("\n" + "\n".join(table))
    assert wrong == []


def _forms(result: Scan, label: str) -> set[tuple[int, str]]:
    own = result.hits.filter(pa.compute.equal(result.hits["container"], label))
    return set(zip(own["identity"].to_pylist(), own["form"].to_pylist(), strict=True))


def test_other_peoples_data_gives_no_hit_in_any_container(needles: Needles, tmp_path: Path) -> None:
    """The negative control: neighbours whose values differ by a digit or a letter."""
    others = [
        *(str(int(PHONE) + i).encode() for i in range(1, 200)),
        *(f"mei{i}.zhang+x@example.com".encode() for i in range(200)),
        *(f"1101011990030723{i:02}".encode() for i in range(20, 90)),
    ]
    for family in FAMILIES.values():
        for name, (_label, build) in family.items():
            result = once(build(others, tmp_path / "made"), needles, tmp_path)
            assert result.hits.num_rows == 0, name


def picture(width: int, text: bytes) -> bytes:
    """A PNG whose pixels are noise, cut into small chunks as encoders do, with a packed comment."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixels = zlib.compress(b"".join(b"\0" + os.urandom(width // 2) + bytes(width // 2) for _ in range(width)))
    parts = [chunk(b"IDAT", pixels[i : i + 8192]) for i in range(0, len(pixels), 8192)]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, width, 8, 0, 0, 0, 0))
    comment = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(text))
    return b"\x89PNG\r\n\x1a\n" + header + comment + b"".join(parts) + chunk(b"IEND", b"")


def test_a_picture_is_whole_though_its_stream_is_cut_into_chunks(phone: Needles, tmp_path: Path) -> None:
    data = picture(300, b"sent by " + PHONE.encode())
    for whole in (data, NOISE + data + NOISE, tarred(data)):
        result = once(whole, phone, tmp_path)
        assert {label.split(" > ")[-1] for label in labels(result)} == {"png"}
        assert result.not_examinable == []


# ---------------------------------------------------------------- a person whose phone stands in one place only


def test_a_phone_only_in_a_zipped_csv_in_a_forgotten_folder(phone: Needles, tmp_path: Path) -> None:
    folder = tmp_path / "old" / "Copy of export (2)"
    folder.mkdir(parents=True)
    (folder / "misc.zip").write_bytes(zipped(b"name,phone\nx," + PHONE.encode() + b"\n"))
    result = scan(walk([tmp_path]), phone)
    assert labels(result) == {"zip"}
    assert result.not_examinable == []


def test_a_phone_only_in_a_chat_with_escapes(phone: Needles, tmp_path: Path) -> None:
    text = "".join(f"\\u{ord(c):04x}" for c in PHONE)
    result = once(f'{{"from": "a", "text": "call {text}"}}'.encode(), phone, tmp_path)
    assert set(result.totals(0)) == {"here"}


def test_a_phone_only_in_a_categorical_dictionary(phone: Needles, tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame({"phone": pd.Categorical([PHONE, "-"])})
    frame[frame["phone"] != PHONE].to_parquet(tmp_path / "unit")
    result = scan([("here", tmp_path / "unit")], phone)
    assert "parquet:dictionary" in labels(result)
    assert pd.read_parquet(tmp_path / "unit")["phone"].tolist() == ["-"]


def test_a_phone_only_in_a_pickle_of_an_arrow_slice(phone: Needles, tmp_path: Path) -> None:
    script = (
        "import pickle, sys, pyarrow as pa; v = sys.stdin.read(); "
        "t = pa.table({'phone': ['-'] * 9 + [v], 'n': [0] * 9 + [int(v)]}).slice(0, 3); "
        "assert v not in str(t.to_pydict()); sys.stdout.buffer.write(pickle.dumps(t))"
    )
    made = subprocess.run([sys.executable, "-c", script], input=PHONE.encode(), capture_output=True, check=True)
    for data, start in (
        (made.stdout, ""),
        (base64.encodebytes(made.stdout), "base64 > "),
        (gzip.compress(made.stdout), "gzip > "),
    ):
        result = once(data, phone, tmp_path)
        assert f"{start}pickle:bytes" in labels(result)
        assert {"utf-8 (11)", "int64 le (11)"} <= set(result.hits["form"].to_pylist())


def test_schemas_that_call_functions_hinder_no_reading(phone: Needles, tmp_path: Path) -> None:
    """Prefect's own database has such an index; what is stored is read without calling what only an application has."""
    base = sqlite3.connect(tmp_path / "app.db")
    base.create_function("fold", 1, str, deterministic=True)
    base.create_collation("LOCALIZED", lambda one, other: (one > other) - (one < other))
    base.executescript(
        "CREATE TABLE notes (note TEXT COLLATE LOCALIZED, more TEXT, folded AS (fold(note)) VIRTUAL);"
        "CREATE INDEX a ON notes (json_extract(more, '$.id')); CREATE INDEX b ON notes (fold(more));"
        "CREATE VIEW v AS SELECT load_extension('x') FROM notes"
    )
    base.execute("INSERT INTO notes (note, more) VALUES (?, '{}')", (PHONE,))
    base.commit()
    base.close()
    result = once((tmp_path / "app.db").read_bytes(), phone, tmp_path)
    assert not result.not_examinable
    assert "sqlite:table=notes" in labels(result)


def test_a_phone_only_in_a_sqlite_free_page(phone: Needles, tmp_path: Path) -> None:
    rows = [b"%d" % i * 30 for i in range(200)] + [PHONE.encode()]
    data = sqlite_file(tmp_path / "made", rows, after="DROP TABLE notes")
    result = once(data, phone, tmp_path)
    assert "sqlite:free" in labels(result)
    assert not {label for label in labels(result) if "table=" in label}


def test_a_phone_only_in_a_duckdb_wal(phone: Needles, tmp_path: Path) -> None:
    log = duckdb_file(tmp_path / "base.duckdb", [PHONE.encode()], checkpoint=False)
    assert labels(once(log, phone, tmp_path)) == {"raw"}


def test_a_phone_only_in_a_file_name(phone: Needles, tmp_path: Path) -> None:
    (tmp_path / f"{PHONE}.csv").write_bytes(b"nothing")
    result = scan(walk([tmp_path]), phone)
    assert labels(result) == {"name"}


def test_a_phone_only_in_a_log_of_duckdb_is_a_row_of_the_database_beside_it(phone: Needles, tmp_path: Path) -> None:
    for suffix in ("", ".wal"):
        (tmp_path / f"b.duckdb{suffix}").unlink(missing_ok=True)
    script = (
        "import duckdb, os, sys; b = duckdb.connect(sys.argv[1]); "
        "b.execute('CREATE TABLE notes (note VARCHAR)'); b.execute('CHECKPOINT'); "
        "b.execute(\"SET checkpoint_threshold = '1GB'\"); "
        "b.execute('INSERT INTO notes VALUES (?)', [sys.stdin.read()]); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "b.duckdb")], input=PHONE.encode(), check=True)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    result = scan([("here", tmp_path / "b.duckdb")], phone)
    assert labels(result) == {"duckdb:table=notes"}
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


# ---------------------------------------------------------------- numbers, and what else hides


@pytest.mark.parametrize(
    ("name", "label", "form"),
    [
        ("orc", "orc:column", "int64 le (11)"),
        ("avro", "avro:row", "utf-8 (11)"),
        ("pickle", "pickle:text", "utf-8 (11)"),
        ("duckdb", "duckdb:table=t", "int64 le (11)"),
        ("feather", "arrow:column", "int64 le (11)"),
    ],
)
def test_a_phone_stored_as_a_number_is_found(name: str, label: str, form: str, phone: Needles, tmp_path: Path) -> None:
    near = [13_000_000_001, int(PHONE), 13_999_999_999, *range(13_500_000_000, 13_500_000_500)]
    if name == "orc":
        data = orc_file(pa.array(near), compression="zlib")
    elif name == "avro":
        out = io.BytesIO()
        schema = {"type": "record", "name": "r", "fields": [{"name": "n", "type": ["null", "long"]}]}
        fastavro.writer(out, fastavro.parse_schema(schema), [{"n": n} for n in near], codec="deflate")
        data = out.getvalue()
    elif name == "pickle":
        data = pickled({"n": near}, 4)
    elif name == "feather":
        data = feathered(pa.array(near), compression="zstd")
    else:
        with duckdb.connect(str(tmp_path / "n.duckdb")) as base:
            base.register("near", pa.table({"n": near}))
            base.execute("CREATE TABLE t AS SELECT n FROM near; CHECKPOINT")
        data = (tmp_path / "n.duckdb").read_bytes()
    result = once(data, phone, tmp_path)
    own = result.hits.filter(pa.compute.equal(result.hits["container"], label))
    assert form in own["form"].to_pylist()
    assert not any(own["inside"].to_pylist())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(-300, 300), min_size=1, max_size=700), st.data())
def test_numbers_of_orc_are_read_as_pyarrow_reads_them(numbers: list[int], data: st.DataObject) -> None:
    repeated = data.draw(st.sampled_from([1, 2, 5, 40]))
    rising = [n & 0xFFFF for n in numbers] if data.draw(st.booleans()) else numbers
    column = sorted(rising) * repeated if data.draw(st.booleans()) else rising * repeated
    file = InMemory(orc_file(pa.array(column, pa.int64()), compression="zlib"))
    problems: list[str] = []
    pieces = [p for p in carve(file, margin=64, problems=problems) if p.container == "orc:column"]
    assert problems == []
    assert np.frombuffer(b"".join(bytes(p.data) for p in pieces), "<i8").tolist() == column


def test_free_blocks_of_duckdb_are_named_and_empty_ones_are_not(phone: Needles, tmp_path: Path) -> None:
    path = tmp_path / "b.duckdb"
    with duckdb.connect(str(path)) as base:
        base.execute(
            "CREATE TABLE t AS SELECT (13000000000 + i * 7919)::VARCHAR AS p FROM range(300000) r(i); CHECKPOINT"
        )
        base.execute("CREATE TABLE keep AS SELECT 1 AS n")
    assert scan([("here", path)], phone).not_examinable == []
    with duckdb.connect(str(path)) as base:
        base.execute("DROP TABLE t; CHECKPOINT")
    ((_place, reason),) = scan([("here", path)], phone).not_examinable
    assert "are free and not empty" in reason


@pytest.mark.drill
def test_what_a_killed_sort_of_duckdb_spilled_is_searched(tmp_path: Path) -> None:
    """Its keys are there in the engine's own order of bytes, some of them in packed blocks."""
    script = (
        "import duckdb, os, sys; b = duckdb.connect(sys.argv[1] + '/b.duckdb'); "
        "b.execute(f\"SET temp_directory = '{sys.argv[1]}/spill'; SET memory_limit = '40MB'; SET threads = 1\"); "
        "b.execute(\"SELECT '139' || (10000000 + (i * 7919) % 90000000) AS p, repeat('z', 9) || i AS pad "
        'FROM range(600000) t(i) ORDER BY p").fetchmany(10); os.kill(os.getpid(), 9)'
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    # Which keys were written is the engine's choice: of these sixty a good part.
    sorted_ones = [f"139{10_000_000 + (i * 7919) % 90_000_000}" for i in range(0, 600_000, 10_000)]
    people = [(i, Identity("phone_number", f"+86{phone}")) for i, phone in enumerate(sorted_ones)]
    result = scan(walk([tmp_path / "spill"]), needles_for(people, breadth=Breadth.CORE))
    own = result.hits.filter(pa.compute.equal(result.hits["container"], "duckdb:spill"))
    assert len(set(own["subject"].to_pylist())) > 10


def test_columns_are_handed_out_for_a_join(tmp_path: Path) -> None:
    table = pa.table({"phone": [PHONE, "x"], "n": [1, 2]})
    pq.write_table(table, tmp_path / "u")
    pieces = list(carve(InMemory((tmp_path / "u").read_bytes()), margin=64, problems=[], columns=True))
    columns = {p.column: p.values.to_pylist() for p in pieces if p.values is not None}
    assert columns == table.to_pydict()


# ---------------------------------------------------------------- what is not whole


CUT: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zlib": zlib.compress,
    "bz2": lambda d: bz2.compress(d, 1),
    "xz": lzma.compress,
    "lzma": lambda d: lzma.compress(d, lzma.FORMAT_ALONE),
    "zstd": zstandard.compress,
    "lz4": lz4.frame.compress,
    "snappy": snappy_framed,
    "zip": zipped,
    "tar": lambda d: tarred(gzip.compress(d)),
    "orc": lambda d: orc_file(binary([d[i : i + 999] for i in range(0, len(d), 999)]), compression="zlib"),
    "parquet": lambda d: parquet(
        binary([d[i : i + 999] for i in range(0, len(d), 999)]),
        use_dictionary=False,
        data_page_size=9_999,
        write_batch_size=8,
    ),
    "arrow": lambda d: ipc_stream(binary([d[i : i + 999] for i in range(0, len(d), 999)]).cast(pa.binary())),
    "avro": lambda d: avro_file([d[i : i + 999] for i in range(0, len(d), 999)], "deflate"),
    "pickle": lambda d: pickled([PHONE, *(d[i : i + 999] for i in range(0, len(d), 999))], 4),
}


@pytest.mark.parametrize("name", CUT)
@pytest.mark.parametrize("where", ["alone", "in noise"])
def test_what_is_cut_short_is_searched_as_far_as_it_goes_and_named(
    name: str, where: str, phone: Needles, tmp_path: Path
) -> None:
    text = PHONE.encode() + b"\n" + base64.b64encode(os.urandom(300_000))
    packed = CUT[name](text)
    data = (NOISE if where == "in noise" else b"") + packed[: len(packed) * 2 // 3]
    result = once(data, phone, tmp_path)
    assert {label for label in labels(result) if label != "raw"} or name in WITHOUT_A_PART
    assert result.not_examinable or (name, where) in SILENT


WITHOUT_A_PART = ("orc", "arrow")  # packed bytes without the end that explains them; one batch is there whole or not
# Nothing is left that tells the format, or how far it went: these stay packed bytes, searched as they lie.
SILENT = {("orc", "alone"), ("orc", "in noise"), ("arrow", "in noise"), ("avro", "in noise")}


# ---------------------------------------------------------------- limits, damage, traces


def test_pages_that_cannot_be_unpacked_are_searched_raw_where_the_footer_is_gone(
    phone: Needles, tmp_path: Path
) -> None:
    """Every page is walked to the file's last byte: that is no reason to take the file for searched."""
    data = bytearray(parquet(binary([PHONE.encode() + b"\n"]), use_dictionary=False, compression="snappy"))
    footer = open_footer(InMemory(bytes(data)))
    (page,) = pages(InMemory(bytes(data)), footer.chunks[0])
    data[page.body.offset] ^= 0x55  # the length that the packed page announces
    end = page.body.end
    result = once(bytes(data[:end]), phone, tmp_path)
    assert "raw" in labels(result)
    assert len(result.not_examinable) >= 2


BOMBS: dict[str, Callable[[bytes], bytes]] = {
    name: pack
    for name, pack in CUT.items()
    if name in ("gzip", "zlib", "bz2", "xz", "lzma", "zstd", "lz4", "snappy", "zip", "parquet")
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_stops_and_is_named(name: str, phone: Needles, tmp_path: Path) -> None:
    bomb = BOMBS[name](bytes(16 << 20))
    result = once(bomb, phone, tmp_path, limits=Limits(free=1 << 20, ratio=2, memory=1 << 20))
    assert [reason for _place, reason in result.not_examinable if "unpacks to more than" in reason]


def test_containers_in_containers_stop_at_the_limit_and_are_named(phone: Needles, tmp_path: Path) -> None:
    data = PHONE.encode()
    for pack in (gzip.compress, lzma.compress, zipped, zstandard.compress, tarred, bz2.compress, gzip.compress, zipped):
        data = pack(data)
    assert "nested deeper" in once(data, phone, tmp_path).not_examinable[0][1]
    deep = once(data, phone, tmp_path, limits=Limits(depth=9))
    assert deep.totals(0) == {"here": 1}
    assert deep.not_examinable == []


def test_an_encrypted_member_is_named_and_the_others_are_read(phone: Needles, tmp_path: Path) -> None:
    first, second = bytearray(zipped(b"x" * 99)), zipped(PHONE.encode())
    first[6] |= 1
    result = once(bytes(first) + second, phone, tmp_path)
    assert labels(result) == {"zip"}
    assert [reason for _place, reason in result.not_examinable if "encrypted" in reason]


def test_a_directory_without_its_members_is_named(phone: Needles, tmp_path: Path) -> None:
    archive = zipped(PHONE.encode() * 50)
    ((_place, reason),) = once(archive[60:], phone, tmp_path).not_examinable
    assert "1 of 1 members of the directory are not there" in reason


def test_marks_by_chance_are_no_problem(phone: Needles, tmp_path: Path) -> None:
    """Every mark of every kind, with noise behind it, in the middle of a file."""
    from fangxin.checks.residue.containers.registry import KINDS

    marks = [bytes(k.before) + mark for k in KINDS for mark in k.marks if k.name != "zip"]
    data = b"".join(mark + os.urandom(300) for mark in marks)
    assert once(b"text " + data, phone, tmp_path).not_examinable == []


def samples(folder: Path) -> dict[str, bytes]:
    """One of every container, with the phone in it."""
    rows = [PHONE.encode(), *(b"%d" % (i * 7919) * 9 for i in range(60))]
    folder.mkdir(exist_ok=True)
    made = {}
    for family in FAMILIES.values():
        for name, (_label, build) in family.items():
            made[name] = build(rows, folder / "made")
    return made


def test_a_stream_larger_than_what_is_held_is_searched_as_it_passes(phone: Needles, tmp_path: Path) -> None:
    inner = gzip.compress(b"x" * 5000 + PHONE.encode())
    text = base64.b64encode(os.urandom(1 << 20)) + b"\n" + PHONE.encode() + b"\n" + inner + b"\n" * (1 << 20)
    small = Limits(memory=1 << 19, chunk=1 << 16)
    for pack, name in ((gzip.compress, "gzip"), (zstandard.compress, "zstd"), (lzma.compress, "xz"), (zipped, "zip")):
        result = once(pack(text), phone, tmp_path, limits=small)
        assert labels(result) == {name, f"{name} > gzip"}
        assert result.not_examinable == []


def test_nothing_is_written_and_nothing_is_opened_for_writing(phone: Needles, tmp_path: Path) -> None:
    """The kernel is asked: strace is not everywhere, so the process's own audit hook looks at every call, of C too."""
    store = tmp_path / "store"
    store.mkdir()
    for number, data in enumerate(samples(tmp_path / "made").values()):
        (store / str(number)).write_bytes(data)
    with duckdb.connect(str(store / "b.duckdb")) as base:
        base.execute("CREATE TABLE t (a VARCHAR)")
    script = f"""
import os, sys
from pathlib import Path
from fangxin.checks.residue.carve import carve, OpenFile
from fangxin.checks.residue import containers
import duckdb, fastavro, fsspec, pyarrow.orc, tempfile
opened = []
def seen(event, args):
    if event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        opened.append(str(args[0]))
    elif event in ("tempfile.mkstemp", "tempfile.mkdtemp", "os.rename", "os.remove", "os.truncate", "os.mkdir"):
        opened.append(event)
sys.addaudithook(seen)
for path in sorted(Path({str(store)!r}).iterdir()):
    fd = os.open(path, os.O_RDONLY)
    for piece in carve(OpenFile(fd), margin=64, problems=[]):
        for link in Path("/proc/self/fd").iterdir():
            try:
                where = os.readlink(link)
                flags = int(Path(f"/proc/self/fdinfo/{{link.name}}").read_text().split()[3], 8)
            except OSError:
                continue
            if where.startswith("/") and flags & 3 and int(link.name) > 2 and not where.startswith(("/dev", "/memfd:")):
                opened.append(where)
    os.close(fd)
print(opened)
"""
    before = {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in store.iterdir()}
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp"), "HOME": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.stdout.strip() == "[]", done.stderr
    assert {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in store.iterdir()} == before
    assert list((tmp_path / "tmp").rglob("*")) == []


def test_a_decoder_that_dies_is_named_and_the_scan_goes_on(
    phone: Needles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = duckdb_file(tmp_path / "made", [PHONE.encode()])
    apart._IDLE.end()
    with monkeypatch.context() as patch:
        patch.setattr(apart, "_START", "import os; os.read(0, 1); os.abort()")
        for data, where in ((base, "duckdb"), (zipped(base), "zip > duckdb")):
            seen = once(data, phone, tmp_path)
            assert classes(seen)[0].reasons == (f"{where}: the decoder died on it",)
    for data, where in ((base, "duckdb"), (zipped(base), "zip > duckdb")):  # the next one is read
        seen = once(data, phone, tmp_path)
        assert (seen.not_examinable, f"{where}:table=notes" in labels(seen)) == ([], True)
    assert len(apart._IDLE._workers) == 1  # one for all


def leading_nowhere() -> dict[str, bytes]:
    """Streams of Arrow whose numbers point behind what is there: its own functions would end the process on them."""
    texts, numbers = ["x" * n for n in range(1, 200)], list(range(199))
    plain = ipc_stream(pa.array(texts), None)
    ends = np.cumsum([0, *range(1, 200)]).astype("<i4").tobytes()
    parts = ipc_stream(pa.StructArray.from_arrays([pa.array(numbers)], ["n"]), None)
    at = plain.index(ends) + 4 * 100
    node = struct.pack("<qq", 199, 0)  # a length and the count of nulls: once for the struct, once for what is in it
    first = parts.index(node)
    return {
        "an end of a text": plain[:at] + struct.pack("<i", -5) + plain[at + 4 :],
        "the length in a struct": parts[: first + 16] + struct.pack("<qq", -(1 << 62), 0) + parts[first + 32 :],
    }


@pytest.mark.parametrize("name", leading_nowhere())
@pytest.mark.parametrize("breadth", Breadth)
def test_numbers_that_lead_nowhere_are_named_and_end_nothing(name: str, breadth: Breadth, tmp_path: Path) -> None:
    seen = once(leading_nowhere()[name], needles_for(PEOPLE[:1], breadth=breadth), tmp_path)
    if name == "the length in a struct" or breadth is Breadth.CORE:  # few people are searched in buffers, not columns
        assert any("lead nowhere" in reason for _place, reason in seen.not_examinable)


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return samples(tmp_path_factory.mktemp("every") / "made")


@settings(max_examples=150, deadline=None)
@given(
    st.randoms(use_true_random=False),
    st.lists(st.tuples(st.sampled_from(["flip", "zero", "cut", "insert", "twice"]), st.floats(0, 1)), max_size=6),
)
def test_no_damage_raises_anything(every: dict[str, bytes], random: Any, damages: list[tuple[str, float]]) -> None:
    """Whatever happened to a container: pieces and reasons come out of it, never an exception."""
    name = random.choice(sorted(every))
    data = bytearray(every[name])
    for kind, share in damages:
        at = int(share * len(data))
        if kind == "flip":
            data[at : at + 8] = random.randbytes(len(data[at : at + 8]))
        elif kind == "zero":
            data[at : at + 64] = bytes(len(data[at : at + 64]))
        elif kind == "cut":
            del data[at:]
        elif kind == "insert":
            data[at:at] = random.randbytes(7)
        else:
            data[at:at] = data[at : at + 512]
    problems: list[str] = []
    limits = Limits(free=16 << 20, memory=4 << 20, page=8 << 20)
    size = 0
    for piece in carve(InMemory(bytes(data)), margin=64, limits=limits, problems=problems, probes=Probes({PHONE: [0]})):
        size += len(piece.data)
    assert size >= len(data) - 4  # all but the mark of a Parquet file
    assert all(isinstance(reason, str) and PHONE not in reason for reason in problems)

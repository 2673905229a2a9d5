"""Drill: damaged files of every kind; no decoder may end the process, hang, or take memory without end.

    python tests/residue/damage_drill.py [--inputs 20000] [--only duckdb] [--from 0]

Each input is one container of `test_containers.py` (or one of the richer ones below) with bytes flipped, zeroed, cut,
inserted or doubled, or numbers replaced by huge ones. They are read in a child process, as the scan reads them, for few
people and for a crowd; a child that dies is named with its input, and the next one goes on behind it.
"""

from __future__ import annotations

import argparse
import collections
import faulthandler
import io
import random
import resource
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

import duckdb  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.orc as orc  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from test_containers import PEOPLE, samples  # noqa: E402

from fangxin.checks.residue.carve import InMemory, Limits, Probes, carve  # noqa: E402
from fangxin.checks.residue.patterns import Breadth, needles_for  # noqa: E402

SECONDS = 30  # an input that takes longer hangs
HUGE = (0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 31, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)


def rich(folder: Path) -> dict[str, bytes]:
    """Files in which decoders have more to do: many types, encodings, nested columns, indexes, several row groups."""
    rows = 500
    table = pa.table(
        {
            "phone": [f"139{i:08}" for i in range(rows)],
            "number": pa.array(range(13_900_000_000, 13_900_000_000 + rows)),
            "small": pa.array([i % 7 for i in range(rows)], pa.int32()),
            "real": [i / 3 for i in range(rows)],
            "money": pa.array([i * 100 for i in range(rows)], pa.int64()).cast(pa.decimal128(25, 2)),
            "when": pa.array([i * 1_000_000 for i in range(rows)], pa.timestamp("us")),
            "list": [[f"a{i}"] * (i % 4) for i in range(rows)],
            "struct": [{"a": i, "b": f"x{i}"} if i % 3 else None for i in range(rows)],
            "kind": pa.array([f"k{i % 5}" for i in range(rows)]).dictionary_encode(),
            "gone": pa.array([None] * rows, pa.string()),
        }
    )
    flat = table.select([n for n in table.column_names if n != "kind"])
    made: dict[str, bytes] = {}

    def parquet(name: str, data: pa.Table, **options: object) -> None:
        out = io.BytesIO()
        pq.write_table(data, out, row_group_size=200, **options)
        made[name] = out.getvalue()

    for codec in ("none", "snappy", "zstd", "gzip", "brotli", "lz4"):
        parquet(f"rich parquet {codec}", table, compression=codec, write_page_index=True)
    asked = {n: {"ndv": rows, "fpp": 0.01} for n in ("phone", "number")}
    parquet("rich parquet bloom", table, bloom_filter_options=asked)
    for encoding in ("DELTA_BINARY_PACKED", "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY", "BYTE_STREAM_SPLIT"):
        named = "number" if "BINARY" in encoding or "SPLIT" in encoding else "phone"
        parquet(
            f"rich parquet {encoding}", table.select([named, "list"]), use_dictionary=False,
            column_encoding={named: encoding}, compression="none",
        )  # fmt: skip
    for codec in (None, "lz4", "zstd"):
        for kind in (pa.ipc.new_file, pa.ipc.new_stream):
            sink = io.BytesIO()
            with kind(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
                writer.write_table(table, max_chunksize=150)
            made[f"rich arrow {kind.__name__} {codec}"] = sink.getvalue()
    for codec in ("uncompressed", "zlib", "snappy", "lz4", "zstd"):
        sink = io.BytesIO()
        orc.write_table(flat.drop_columns(["gone"]), sink, compression=codec)
        made[f"rich orc {codec}"] = sink.getvalue()
    path = folder / "rich.duckdb"
    with duckdb.connect(str(path)) as base:
        base.execute("CREATE TYPE mood AS ENUM ('a', 'b')")
        base.register("given", flat)
        base.execute("CREATE TABLE t AS SELECT *, 'a'::mood AS mood FROM given, range(8)")
        base.execute("CREATE INDEX i ON t(phone)")
        base.execute("CREATE VIEW v AS SELECT phone FROM t")
        base.execute("CHECKPOINT; DELETE FROM t WHERE number % 3 = 0; CHECKPOINT")
    made["rich duckdb"] = path.read_bytes()
    path = folder / "rich.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA page_size = 1024")
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, phone TEXT UNIQUE, n INT, body BLOB, g AS (n + 1))")
        db.execute("CREATE INDEX i ON t(n)")
        db.execute("CREATE TABLE w (a TEXT PRIMARY KEY, b) WITHOUT ROWID")
        db.execute("CREATE VIRTUAL TABLE f USING fts5(words)")
        db.execute("CREATE VIRTUAL TABLE r USING rtree(id, a, b)")
        db.executemany(
            "INSERT INTO t VALUES (?, ?, ?, ?)", [(i, f"139{i:08}", i, b"x" * (i * 13 % 3000)) for i in range(300)]
        )
        db.executemany("INSERT INTO w VALUES (?, ?)", [(f"139{i:08}", i) for i in range(300)])
        db.executemany("INSERT INTO f VALUES (?)", [(f"word{i} phone 139{i:08}",) for i in range(200)])
        db.executemany("INSERT INTO r VALUES (?, ?, ?)", [(i, i, i + 1) for i in range(100)])
        db.execute("DELETE FROM t WHERE id % 4 = 0")
    db.close()
    made["rich sqlite"] = path.read_bytes()
    return made


def damaged(data: bytes, chance: random.Random) -> bytes:
    """The file with one to six things done to it; the ends, where footers and headers lie, are hit more often."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        edge = chance.choice((0, 0, 1, 2))
        near = min(len(out), chance.choice((64, 512, 4096)))
        at = chance.randrange(len(out) + 1) if not edge else chance.randrange(near + 1)
        at = len(out) - at if edge == 2 else at
        kind = chance.choice(("bit", "bit", "flip", "zero", "cut", "insert", "twice", "huge", "huge", "swap"))
        if kind == "bit" and at < len(out):
            out[at] ^= 1 << chance.randrange(8)
        elif kind == "flip":
            out[at : at + 8] = chance.randbytes(len(out[at : at + 8]))
        elif kind == "zero":
            out[at : at + 64] = bytes(len(out[at : at + 64]))
        elif kind == "cut" and chance.random() < 0.3:
            del out[at:]
        elif kind == "insert":
            out[at:at] = chance.randbytes(chance.randrange(1, 9))
        elif kind == "twice":
            out[at:at] = out[at : at + chance.choice((16, 512))]
        elif kind == "huge":
            number = chance.choice(HUGE)
            body = struct.pack(chance.choice("<>") + "Q", number)[: chance.choice((1, 2, 4, 8))]
            out[at : at + len(body)] = body[: len(out[at : at + len(body)])]
        elif kind == "swap":
            other = chance.randrange(len(out) + 1)
            out[at : at + 16], out[other : other + 16] = out[other : other + 16], out[at : at + 16]
    return bytes(out)


def read(data: bytes, crowd: object) -> None:
    """Open everything in the bytes as the scan does, and touch every byte of every piece."""
    limits = Limits(free=64 << 20, memory=16 << 20, page=16 << 20)
    probes = Probes({"13900000007": [0], "13900009999": [1]})
    pieces = carve(InMemory(data), margin=64, problems=[], limits=limits, probes=probes, columns=crowd is not None)
    for piece in pieces:
        bytes(piece.data)
        if piece.values is not None and callable(crowd):
            crowd(piece.values)


def inputs(folder: Path, only: str) -> dict[str, bytes]:
    made = {**samples(folder / "made"), **rich(folder)}
    return {name: data for name, data in sorted(made.items()) if only.lower() in name.lower()}


def child(first: int, last: int, only: str) -> None:
    """Read inputs number `first` to `last`; each is told before it is read."""
    faulthandler.enable()
    with tempfile.TemporaryDirectory(prefix="fangxin-damage-") as folder:
        made = inputs(Path(folder), only)
        crowd = needles_for(PEOPLE, breadth=Breadth.CORE).columns
        peak = 0
        for number in range(first, last):
            name = list(made)[number % len(made)]
            data = damaged(made[name], random.Random(number))
            print(number, name, flush=True)
            signal.alarm(SECONDS)
            read(data, crowd if number // len(made) % 2 else None)
            signal.alarm(0)
            now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
            if now > peak + 100:
                print("memory", now, flush=True)
            peak = max(now, peak)


def told(first: int, last: int, only: str) -> Iterator[tuple[int, str]]:
    """Runs a child, and says where it died and how; another one goes on behind it."""
    while first < last:
        argv = [sys.executable, __file__, "--child", "--from", str(first), "--inputs", str(last), "--only", only]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            out, errors = process.communicate()
        lines = [line for line in out.splitlines() if not line.startswith("memory")]
        for before, line in zip(out.splitlines(), out.splitlines()[1:], strict=False):
            if line.startswith("memory"):
                print(f"{line} MiB after {before}", flush=True)
        if process.returncode == 0:
            return
        if not lines:
            raise RuntimeError(errors)
        at, _, name = lines[-1].partition(" ")
        yield int(at), f"{name}: exit {process.returncode}\n{errors[:3000]}"
        first = int(at) + 1


def main() -> int:
    """Run the drill; 0 when no child died."""
    given = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    given.add_argument("--inputs", type=int, default=20_000)
    given.add_argument("--from", dest="first", type=int, default=0)
    given.add_argument("--only", default="")
    given.add_argument("--child", action="store_true")
    asked = given.parse_args()
    if asked.child:
        child(asked.first, asked.inputs, asked.only)
        return 0
    died = collections.Counter[str]()
    for number, how in told(asked.first, asked.first + asked.inputs, asked.only):
        print(f"input {number}, {how}", flush=True)
        died[how.partition(":")[0]] += 1
    print(f"{asked.inputs} damaged inputs, {sum(died.values())} ended the process: {dict(died)}")
    return 1 if died else 0


if __name__ == "__main__":
    sys.exit(main())

"""How fast a cohort's needles are looked for: beside ripgrep, GNU grep and Python's `re`, and inside Parquet.

    make bench CASE=scan            (or: python bench/scan.py --rounds 5 --size 64)

Everybody searches the same file for the same byte strings, in turns. CPU is user and system time of the process and
of those that it started, so that a busy machine blurs it little; MB/s are stored bytes by CPU, on one core. `scan` is
the whole of it: reading, looking for containers, searching, judging the hits; beside it, what the file costs to read.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from _rounds import Bar, Row, publish, ratio, take_turns

from fangxin.checks.residue.carve import carve
from fangxin.checks.residue.engines import Engine
from fangxin.checks.residue.forms import Breadth, Context, Form, forms_of
from fangxin.checks.residue.patterns import Needles, needles_for
from fangxin.checks.residue.scan import scan
from fangxin.data.columnar.footer import InMemory, open_footer, pages
from fangxin.data.vocabulary import Identity

MB = 1_000_000
MANY = (10, 200, 1_000)
RE = 1 << 18  # bytes that Python's `re` is given: it needs seconds for each of them


def table(rows: int) -> pa.Table:
    """Orders as a shop keeps them: numbers, addresses, dates, Chinese text; none of the people searched for."""
    chance = np.random.default_rng(5)
    phones = chance.integers(13_000_000_000, 19_999_999_999, rows)
    letters = chance.integers(0, 26, (rows, 8)).astype(np.uint8) + ord("a")
    names = letters.view("S8").ravel().astype(str)
    houses = chance.integers(1, 999, rows).tolist()
    streets = np.array(["漕溪北路", "中山西路", "解放大道", "人民东路"])[chance.integers(0, 4, rows)]
    return pa.table(
        {
            "order": pa.array(np.arange(rows) + 202600000000),
            "phone": pa.array(phones).cast(pa.string()),
            "mail": pa.array([f"{name}@example.com" for name in names.tolist()]),
            "paid": pa.array(chance.integers(100, 99_999, rows) / 100),
            "at": pa.array(chance.integers(1_760_000_000, 1_790_000_000, rows)),
            "to": pa.array([f"上海市徐汇区{s}{n}号" for s, n in zip(streets.tolist(), houses, strict=True)]),
        }
    )


def files(folder: Path, size: int) -> dict[str, Path]:
    """The same orders as CSV and as Parquet, and random bytes."""
    from pyarrow import csv

    found = {name: folder / name for name in ("orders.csv", "orders.parquet", "random.bin")}
    rows = table(size // 95)
    csv.write_csv(rows, found["orders.csv"], csv.WriteOptions(include_header=False, quoting_style="none"))
    pq.write_table(rows, found["orders.parquet"], compression="zstd", row_group_size=250_000)
    found["random.bin"].write_bytes(np.random.default_rng(6).bytes(size))
    return found


def cohort(people: int) -> list[tuple[int, Identity]]:
    """People of three identities each."""
    found = []
    for n in range(people):
        phone = f"1{37_000_000_00 + 7_919 * n:010d}"
        found += [
            (n, Identity("phone_number", f"+86{phone}")),
            (n, Identity("email", f"li.na.{n}@example.org")),
            (n, Identity("bank_card", f"62220209030{n:08d}")),
        ]
    return found


def some(count: int) -> dict[Form, list[tuple[int, int, str]]]:
    """So many needles, of the kinds that a cohort's are, all of which grep can be given as a line."""
    found: dict[Form, list[tuple[int, int, str]]] = {}
    for number, (subject, identity) in enumerate(cohort(max(1, count // 40))):
        for form in forms_of(identity, Breadth.FULL):
            text = form.data
            if len(text) < 8 or form.context is not Context.ANY or form.sqlite_only or not text.isascii():
                continue
            if len(found) < count and not re.search(rb"[\0-\x1f]", text):
                found.setdefault(form, []).append((subject, number, identity.kind))
    return found


def outside(command: list[str]) -> Callable[[], object]:
    return lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=False, env={"LC_ALL": "C"})


def ours(path: Path, needles: Needles) -> Callable[[], object]:
    def work() -> None:
        result = scan([(path.name, path)], needles, workers=1)
        assert not result.not_examinable, result.not_examinable

    return work


def searchers(path: Path, count: int, folder: Path) -> dict[str, Callable[[], object]]:
    """Everybody who is there, with the same needles."""
    forms = some(count)
    assert len(forms) == count
    patterns = folder / f"patterns-{count}"
    patterns.write_bytes(b"".join(form.data + b"\n" for form in forms))
    alternation = re.compile(b"|".join(re.escape(form.data) for form in forms))
    some_bytes = path.read_bytes()[:RE]
    found = {f"scan, {count}": ours(path, Needles(forms, breadth=Breadth.FULL, omitted=_none()))}
    if count <= 300:
        found[f"scan, {count}, hyperscan"] = ours(
            path, Needles(forms, breadth=Breadth.FULL, omitted=_none(), engine=Engine.HYPERSCAN)
        )
    if shutil.which("rg"):
        found[f"rg -aFf, {count}"] = outside([shutil.which("rg") or "", "-aFcj1", "-f", str(patterns), str(path)])
    found[f"grep -aFf, {count}"] = outside([shutil.which("grep") or "", "-aFcf", str(patterns), str(path)])
    found[f"re, {count}, 256 KiB"] = lambda: alternation.findall(some_bytes)
    return found


def _none() -> dict[str, int]:
    return {}


def unpacked(path: Path) -> list[bytes | memoryview]:
    """What every page of a Parquet file decompresses to."""
    file = InMemory(path.read_bytes())
    found: list[bytes | memoryview] = []
    for chunk in open_footer(file).chunks:
        for page in pages(file, chunk):
            body = memoryview(file.at(page.body.offset, page.body.length))
            if page.compressed:
                found.append(
                    memoryview(pa.Codec(chunk.codec).decompress(body[page.levels :], page.uncompressed - page.levels))
                )
            else:
                found.append(body)
    return found


def parquet(path: Path, needles: Needles) -> dict[str, Callable[[], object]]:
    """The decoding scan; beside it the pages decompressed and their bytes scanned like those of any file.

    And what even that cannot do without: the pages decompressed, and the needles looked for in their bytes.
    """

    def apart() -> None:
        body, problems = InMemory(b"".join(unpacked(path))), list[str]()
        for piece in carve(body, margin=needles.margin, problems=problems):
            needles.find(piece.data)
        assert not problems, problems

    return {
        "parquet: scan": ours(path, needles),
        "parquet: decompress, scan raw": apart,
        "parquet: decompress, find": lambda: needles.find(b"".join(unpacked(path))),
        "parquet: decompress": lambda: unpacked(path),
    }


def main() -> int:
    """Run the case; the bars inform."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=64, help="MiB of CSV")
    given = parser.parse_args()
    if not shutil.which("rg"):
        print("ripgrep is not here and is left out: apt-get install ripgrep")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = files(folder, given.size << 20)
        orders = made["orders.csv"]
        work: dict[str, Callable[[], object]] = {"read": lambda: orders.read_bytes()}
        for count in MANY:
            work |= searchers(orders, count, folder)
        two_hundred = Needles(some(200), breadth=Breadth.FULL, omitted=_none())
        work["random bytes: scan, 200"] = ours(made["random.bin"], two_hundred)
        work |= parquet(made["orders.parquet"], two_hundred)
        crowd = needles_for(cohort(3_000))
        work["a crowd of 3,000: scan"] = ours(orders, crowd)
        sizes = {name: _bytes(name, made) for name in work}
        rows = take_turns(work, rounds=given.rounds)
    print(f"\n{'contestant':<44}{'MB/s of CPU':>12}{'CPU s':>9}{'wall s':>9}")
    for name, row in rows.items():
        print(f"{name:<44}{sizes[name] / MB / row.cpu_s:>12.1f}{row.cpu_s:>9.3f}{row.wall_s:>9.3f}")
    publish("scan", list(rows.values()), _ratios(rows), _bars(rows, sizes))
    return 0


def _bytes(name: str, made: dict[str, Path]) -> int:
    if name.startswith("re,"):
        return RE
    which = (
        "orders.parquet" if name.startswith("parquet") else "random.bin" if name.startswith("random") else "orders.csv"
    )
    return made[which].stat().st_size


def _ratios(rows: dict[str, Row]) -> dict[str, float]:
    found = {}
    for count in MANY:
        for other in ("rg -aFf", "grep -aFf"):
            if f"{other}, {count}" in rows:
                found[f"{other} / scan, {count} needles"] = ratio(rows[f"{other}, {count}"], rows[f"scan, {count}"])
    found["decoded Parquet scan / (decompress + find)"] = ratio(
        rows["parquet: scan"], rows["parquet: decompress, find"]
    )
    found["scan / read, 200 needles"] = ratio(rows["scan, 200"], rows["read"])
    return found


def _bars(rows: dict[str, Row], sizes: dict[str, int]) -> list[Bar]:
    speed = sizes["scan, 200"] / MB / rows["scan, 200"].cpu_s
    floor = ratio(rows["parquet: scan"], rows["parquet: decompress, scan raw"])
    return [
        Bar("raw scan at 200 needles, MB/s of one core", speed, ">=", 250),
        Bar("decoded Parquet scan / (decompress + raw scan)", floor, "<=", 1.3),
    ]


if __name__ == "__main__":
    sys.exit(main())

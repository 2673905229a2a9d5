"""Drill: a gibibyte of random bytes, searched for few people in every form and for a crowd, gives no hit at all.

    python tests/residue/random_drill.py [--mebibytes 1024]

The bytes go through the whole scan, as a file: containers that begin by chance are looked into and said nothing of.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from fangxin.checks.residue.patterns import needles_for
from fangxin.checks.residue.scan import scan
from fangxin.data.vocabulary import Identity

MIB = 1 << 20


def cohort(people: int) -> list[tuple[int, Identity]]:
    """People of every kind of identity, names of two characters and short numbers among them."""
    found = []
    for n in range(people):
        values = {
            "phone_number": f"+86{13_100_000_000 + 7_919 * n}",
            "email": f"li.na{n}@example.org",
            "cn_resident_id": f"11010119{n * 97:09d}X",
            "bank_card": f"62220209030{n:08d}",
            "oaid": f"1b4e28ba-2fa1-11d2-883f-{n:012x}",
            "account": f"{204_417 + n}",
            "address": f"上海市徐汇区漕溪北路{n}号，二楼靠近地铁站的那一家",
        }
        found += [(n, Identity(kind, value)) for kind, value in values.items()]
        found.append((n, Identity("name", "王李张刘陈"[n % 5] + "伟芳娜敏静强磊洋"[n % 8])))
    return found


def main() -> int:
    """Run the drill; 0 when there was no hit and nothing was called unreadable."""
    given = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    given.add_argument("--mebibytes", type=int, default=1024)
    size = given.parse_args().mebibytes
    chance, wrong = np.random.default_rng(20261127), 0
    with tempfile.TemporaryDirectory(prefix="fangxin-random-") as folder:
        path = Path(folder) / "random"
        with path.open("wb") as file:
            for _ in range(size // 16):
                file.write(chance.bytes(16 * MIB))
        for people in (8, 1_000):
            needles, start = needles_for(cohort(people)), time.process_time()
            result = scan([("random", path)], needles)
            spent = time.process_time() - start
            hits = sum(result.hits["hits"].to_pylist())
            told = f"{hits} hits, {len(result.not_examinable)} not examinable, {spent:.0f} s of CPU"
            print(f"{size} MiB, {people:,} people, {len(needles):,} needles ({needles.breadth}): {told}", flush=True)
            wrong += hits + len(result.not_examinable)
            print(*result.hits.select(["form", "context", "container"]).to_pylist(), sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""The ledger: what an entry costs on its way in, and a proof on its way out, at ten million entries.

`python bench/ledger.py [ENTRIES]`: default one million, appended in flushes of 10,000 with every file flushed to the
medium. The proofs at ten million are made from a tree whose hash tiles were written directly: a proof reads tiles and
nothing else. Memory is the growth of this process between the first and the last flush.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import _rounds as rounds
import rfc8785

from fangxin.reports.ledger import entries, merkle, tiles
from fangxin.reports.ledger.keys import SigningKeys
from fangxin.reports.ledger.log import Ledger

FLUSH, TREE, SECRET = 10_000, 10_000_000, bytes(range(32))
DIGEST = hashlib.sha256(b"x").hexdigest()


def made(first: int, count: int) -> list[dict[str, int | str]]:
    tags = [entries.tag(SECRET, first + n) for n in range(count)]
    return [
        {
            "type": "certificate.issued",
            "time": "2026-11-27T08:00Z",
            "tag": one,
            "json": DIGEST,
            "html": DIGEST,
            "verdict": "erased",
        }
        for one in tags
    ]


def rss() -> int:
    """Resident bytes now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def cpu(work: Callable[[], object]) -> tuple[float, float]:
    before, start = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - before, time.perf_counter() - start


def write_tree(folder: Path, size: int) -> None:
    """Write the hash tiles of a tree of `size` leaves, without entries."""
    row: Iterable[bytes] = (hashlib.sha256(b"\x00%d" % n).digest() for n in range(size))
    level = 0
    while True:
        above, hashes = [], iter(row)
        for index in itertools.count():
            part = list(itertools.islice(hashes, tiles.WIDTH))
            if not part:
                break
            path = folder / tiles.tile_path(level, index, len(part))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"".join(part))
            if len(part) == tiles.WIDTH:
                while len(part) > 1:
                    part = [merkle.node_hash(part[i], part[i + 1]) for i in range(0, len(part), 2)]
                above.append(part[0])
        if not above:
            return
        row, level = above, level + 1


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        keys = SigningKeys.create(folder / "keys", origin="bench.example/ledger")
        ledger = Ledger.create(folder / "ledger", origin=keys.origin, head=folder / "second" / "head", keys=keys)
        ledger.append(made(0, FLUSH))
        begin, spent, waited = rss(), [], []
        for first in range(FLUSH, count, FLUSH):
            batch = made(first, FLUSH)
            c, w = cpu(lambda batch=batch: ledger.append(batch))
            spent.append(c / FLUSH * 1e6)
            waited.append(w / FLUSH * 1e6)
        grown = rss() - begin
        late = statistics.median(spent[-10:]) / statistics.median(spent[:10])
        encode, _ = cpu(lambda: [entries.encode(one) for one in made(0, FLUSH)])
        floor, _ = cpu(lambda: [hashlib.sha256(rfc8785.dumps({"v": 1, **one})).digest() for one in made(0, FLUSH)])
        reopened, _ = cpu(lambda: Ledger.open(ledger.folder, head=folder / "second" / "head", keys=keys))
        here = [cpu(lambda: ledger.receipt(random.randrange(ledger.size)))[0] * 1e3 for _ in range(300)]
        find, _ = cpu(lambda: ledger.find([entries.tag(SECRET, count // 2)]))
        print(f"{ledger.size} entries in {len(spent) + 1} flushes; last flushes cost {late:.2f} of the first")

        tall = folder / "tall"
        write_tree(tall, TREE)
        empty = rss()
        tree = tiles.Tree(tall, TREE)
        root = merkle.root(TREE, tree.subtree)
        took = []
        for _ in range(300):
            index = random.randrange(TREE)
            cold = tiles.Tree(tall, TREE)  # nothing in its caches
            before = time.process_time()
            proof = merkle.inclusion(index, TREE, cold.subtree)
            took.append((time.process_time() - before) * 1e3)
            merkle.check_inclusion(hashlib.sha256(b"\x00%d" % index).digest(), index, TREE, proof, root)
        warm = [cpu(lambda: merkle.inclusion(random.randrange(TREE), TREE, tree.subtree))[0] * 1e3 for _ in range(300)]
        held = rss() - empty

    def row(name: str, cpu_s: float, wall_s: float = 0.0) -> rounds.Row:
        return rounds.Row(name, cpu_s, wall_s, peak_rss=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)

    us = statistics.median(spent)
    rounds.publish(
        "ledger",
        [
            row("append, us an entry", us * 1e-6, statistics.median(waited) * 1e-6),
            row("canonical JSON alone, us an entry", encode / FLUSH),
            row("rfc8785 and SHA-256 alone, us an entry", floor / FLUSH),
            row("open", reopened),
            row("find one tag", find),
            row("receipt", statistics.median(here) / 1e3),
            row("inclusion proof at 10 M, nothing cached", statistics.median(took) / 1e3),
            row("inclusion proof at 10 M", statistics.median(warm) / 1e3),
        ],
        {
            "append/rfc8785 and SHA-256 alone, cpu": us / (floor / FLUSH * 1e6),
            "last ten flushes/first ten, cpu": late,
            "MB grown over all flushes": grown / 1e6,
            "MB of caches and proofs at 10 M": held / 1e6,
            "find one tag among all, s": find,
            "open, ms": reopened * 1e3,
        },
        [
            rounds.Bar("append: CPU us an entry", us, "<=", 40),
            rounds.Bar("inclusion proof at 10 M, nothing cached: CPU ms", statistics.median(took), "<=", 2),
            rounds.Bar("receipt in the ledger of this run: CPU ms", statistics.median(here), "<=", 2),
        ],
    )


if __name__ == "__main__":
    main()

"""What the key vault costs at ten million people, beside a flat list of wrapped keys and what the pages alone cost.

    make bench CASE=keys            (or: python bench/keys.py --people 1000000)

CPU is process time of one core, user and system; bytes are those of the pages' bodies. Figures with a goal say
whether they meet it, and the run ends with 1 if one does not. Needs about 2 GB of disk and 3 GB of memory.

Batches of reads are held against their goal in two vaults: the large one, where 200,000 keys lie in nearly as many
pages, and one of a million people, where the design measured (docs/decisions/0017). Smaller batches come before them,
so what an opened vault and a process do once (inner pages, the map of the file, the loop of data/keys/pick.py) is done
by then; the line below says what a batch reaches as the first thing that is asked.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fangxin.data.keys.approval import Guard
from fangxin.data.keys.gcm import Texts, library
from fangxin.data.keys.grant import Drops, Grant
from fangxin.data.keys.page import ENTRY, HEAD, LEAF, aad, addresses
from fangxin.data.keys.pick import picker
from fangxin.data.keys.tree import KeyTree

NOW = datetime(2026, 11, 23, tzinfo=UTC)
BATCH = 5_000_000  # people created in one transaction
SMALL = 1_000_000  # people of the other vault
FLAT = 200_000  # keys of the flat list that are really wrapped again; the rest is arithmetic
missed = 0


class Watch:
    cpu = 0.0
    wall = 0.0


@contextmanager
def watch() -> Iterator[Watch]:
    it, cpu, wall = Watch(), time.process_time(), time.perf_counter()
    yield it
    it.cpu, it.wall = time.process_time() - cpu, time.perf_counter() - wall


def say(what: str, value: str, goal: str = "", met: bool = True) -> None:
    global missed
    missed += not met
    print(f"{what:<46} {value:<34} {f'goal {goal}: ' + ('met' if met else 'MISSED') if goal else ''}", flush=True)


def people(start: int, count: int) -> list[bytes]:
    """Refs as random as real ones; the same numbers give the same refs."""
    words = np.random.Generator(np.random.Philox(key=7, counter=start)).bytes(16 * count)
    return [words[at : at + 16] for at in range(0, len(words), 16)]


def planned(tree: KeyTree, refs: list[bytes]) -> tuple[Drops, Grant]:
    """What is written down and approved before anybody destroys: the batch and its grant. The vault checks both."""
    drops = dict.fromkeys(refs)
    grant = Grant.of(drops, vault=tree.vault_id, generation=tree.generation, catalog="bench", not_before=NOW)
    return drops, Grant.parse(grant.canonical())


def create(tree: KeyTree, count: int) -> None:
    cpu = wall = 0.0
    for start in range(0, count, BATCH):
        refs = people(start, min(BATCH, count - start))
        with watch() as it:
            tree.create_keys(refs, [1])
        cpu, wall = cpu + it.cpu, wall + it.wall
        print(f"  {start + len(refs):,} created, {len(refs) / it.cpu / 1e6:.2f} M keys/s of CPU", flush=True)
    rate = count / cpu / 1e6
    say("bulk create", f"{rate:.2f} M keys/s/core ({wall:.0f} s wall)", "0.4", rate >= 0.4)
    size = tree.size / count
    say("file", f"{tree.size / 1e6:,.0f} MB, {size:.1f} bytes a key", "64", size <= 64)


def read(tree: KeyTree, count: int, sizes: tuple[int, ...] = (1, 1_000, 20_000, 200_000, 1_000_000)) -> None:
    chance = np.random.default_rng(1)
    for many in sizes:
        if many > count:
            continue
        block = people((int(chance.integers(0, count)) // BATCH) * BATCH, min(BATCH, count))
        some = [block[i] for i in chance.choice(len(block), 2000 if many == 1 else many, replace=False)]
        del block  # else Python's collector would look through it in our time
        with watch() as it:
            if many == 1:
                for ref in some:
                    tree.get(ref, 1)
                many = 2000
                label = "get, one by one"
            else:
                with tree.get_many(some, 1) as keys:
                    assert keys.found.all()
                label = f"get_many of {many:,}"
        rate = many / it.cpu / 1e6
        goal = "0.4" if many >= 200_000 else ""
        say(label, f"{rate:.3f} M keys/s/core", goal, not goal or rate >= 0.4)
        if many == 200_000:
            with KeyTree.open(tree.folder) as other, watch() as it, other.get_many(some, 1) as keys:
                assert keys.found.all()
            say("  as the first thing that is asked of a vault", f"{many / it.cpu / 1e6:.3f} M keys/s/core")
            least(tree, many)


class Pages:
    """As many pages as one lot has, of the usual length, sealed: what no program around the cryptography can save."""

    LOT = 1024
    BY = type(library()).__name__

    def __init__(self) -> None:
        lot, plain = self.LOT, HEAD.pack(LEAF, 3, 72, 0) + bytes(72 * ENTRY)
        self.names = np.frombuffer(aad(bytes(16), 0, 3, 0) * lot, np.uint8).reshape(lot, -1)
        self.keys, self.plains = np.zeros((lot, 32), np.uint8), [plain] * lot
        body = bytes((1, 1)) + bytes(12) + self.seal()[0]
        at, size = np.arange(lot) * len(body), np.full(lot, len(body))
        self.bodies = Texts(np.frombuffer(body * lot, np.uint8), at, size)
        self.into = Texts(np.zeros(lot * len(plain), np.uint8), np.arange(lot) * len(plain), np.full(lot, len(plain)))

    def seal(self) -> list[bytes]:
        names, keys = ([row.tobytes() for row in rows] for rows in (self.names, self.keys))
        return library().seal(keys, names, [bytes(12)] * self.LOT, self.plains)

    def open(self) -> None:
        memory, at, size = self.bodies
        sealed = Texts(memory, at + 14, size - 14)
        assert not library().open(self.keys, self.names, sealed, at + 2, self.into)

    def pick(self) -> None:
        loop, none, raw = picker(), np.zeros(self.LOT + 1, np.int64), np.zeros((0, 32), np.uint8)
        assert loop is not None
        asked = none, none[:0], raw[:, :13], raw, raw[:, 0] > 0
        assert loop(self.bodies, self.keys, none[1:], *asked, tree_id=bytes(16), level=3).all()


def least(tree: KeyTree, many: int) -> None:
    """What is left when nobody reads, searches or hands out: opening the pages, enciphering the refs."""
    count = int(tree.shape.buckets * (1 - (1 - 1 / tree.shape.buckets) ** many))
    lot, how = Pages(), "a call a page" if picker() is None else "one call for all"
    with watch() as it:
        for _ in range(count // lot.LOT):
            lot.open() if picker() is None else lot.pick()
        addresses(bytes(32), [ref.to_bytes(16, "little") for ref in range(many)])
    say(f"  at most, for {count:,} pages", f"{many / it.cpu / 1e6:.3f} M keys/s/core ({lot.BY}, {how})")


def kill(tree: KeyTree, count: int) -> None:
    many = min(10_000, count // 10)
    victims = people(0, 100 + many)  # no more: Python's collector would look through millions of them in our time
    took, receipt = [], None
    for ref in victims[:40]:
        drops, grant = planned(tree, [ref])
        with watch() as it:
            receipt = tree.destroy(drops, grant=grant, now=NOW)
        took.append(it)
    assert receipt is not None
    cpu = statistics.median(one.cpu for one in took) * 1e3
    wall = statistics.median(one.wall for one in took) * 1e3
    say("destroy 1: pages", str(receipt.pages), "4", receipt.pages <= 4)
    say("destroy 1: bodies", f"{receipt.bytes:,} bytes", "12 kB", receipt.bytes <= 12_000)
    say("destroy 1: CPU (median of 40)", f"{cpu:.2f} ms ({wall:.1f} ms wall)", "1 ms", cpu <= 1)
    drops, grant = planned(tree, victims[100 : 100 + many])
    with watch() as it:
        receipt = tree.destroy(drops, grant=grant, now=NOW)
    assert receipt.destroyed == many
    say(f"destroy {many:,}: pages", f"{receipt.pages:,}", "13,000", receipt.pages <= 13_000)
    say(f"destroy {many:,}: bodies", f"{receipt.bytes / 1e6:.1f} MB", "40 MB", receipt.bytes <= 40e6)
    say(f"destroy {many:,}: CPU", f"{it.cpu:.2f} s ({it.wall:.1f} s wall)", "1.5 s", it.cpu <= 1.5)
    lot = Pages()
    with watch() as it:
        for _ in range(receipt.pages // lot.LOT):
            lot.seal()
            lot.open()
    say(f"  of which AES-GCM over as many pages ({lot.BY})", f"{it.cpu:.2f} s of CPU")


def flat(count: int) -> None:
    """The design that was rejected: every key wrapped under one, and all wrapped again when one person goes."""
    old, new = AESGCM(os.urandom(32)), AESGCM(os.urandom(32))
    wrapped = [old.encrypt(bytes(12), os.urandom(32), None) for _ in range(FLAT)]
    with watch() as it:
        for one in wrapped:
            new.encrypt(os.urandom(12), old.decrypt(bytes(12), one, None), None)
    say("flat list: destroy 1 (AES-GCM alone)", f"{it.cpu / FLAT * count:.1f} s of CPU, {72 * count / 1e6:,.0f} MB")


def main() -> int:
    """Run the case; 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, help="where the vault is made; default a temporary folder")
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=given.folder) as folder,
        KeyTree.create(Path(folder) / "vault", capacity=given.people, guard=Guard(lifted=True)) as tree,
    ):
        shape = f"F={tree.shape.fanout}, depth {tree.shape.depth}, {tree.shape.buckets:,} buckets"
        say(f"{given.people:,} people", shape)
        create(tree, given.people)
        read(tree, given.people)
        kill(tree, given.people)
        with watch() as it:
            held = tree.examine()
        say("deep check of every page", f"{held.keys:,} keys, fullest bucket {held.fullest}, {it.cpu:.1f} s of CPU")
    flat(given.people)
    if given.people > SMALL:
        with (
            tempfile.TemporaryDirectory(dir=given.folder) as folder,
            KeyTree.create(Path(folder) / "vault", capacity=SMALL, guard=Guard(lifted=True)) as tree,
        ):
            say(f"{SMALL:,} people", f"{tree.shape.buckets:,} buckets")
            create(tree, SMALL)
            read(tree, SMALL, (20_000, 200_000, 1_000_000))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

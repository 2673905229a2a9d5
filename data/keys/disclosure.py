"""What old copies of a vault and a root still open: the proof that destroyed keys are dead, as an adversary runs it.

At each position every body ever stored there (both halves, any tree, any generation) is tried under every key
known for that position; keys found inside are tried one level below, and so on. For tests, and for an auditor's
supervised examination: it holds all copies in memory, and what it returns is raw keys.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from fangxin.data.keys import page as pages
from fangxin.data.keys.page import Inner, PageWrong, Shape
from fangxin.data.keys.roots import shares
from fangxin.data.keys.vault import read_copy

# tree id -> (page, half) -> every body ever stored there
Bodies = Mapping[bytes, Mapping[tuple[int, int], set[bytes]]]


@dataclass(frozen=True)
class Disclosed:
    """Raw subjects' keys that were recovered, how many (key, body) pairs were tried, how many bodies opened."""

    keys: frozenset[bytes] = field(repr=False)
    tried: int
    opened: int


def disclosed(backups: Sequence[Path], roots: Sequence[bytes]) -> Disclosed:
    """Everything that these copies of pages open under these roots (as `shares.load` gives them).

    A copy that has a write-ahead log beside it (`-wal`) is read with it and without it. Changes no copy.
    """
    bodies, shapes = _gather(backups)
    keys: set[bytes] = set()
    tried = opened = 0
    for tree_id, stored in bodies.items():
        shape = shapes[tree_id]
        # Children lie on higher page numbers, so one pass in page order reaches everything that can be reached.
        known: dict[int, set[bytes]] = defaultdict(set)
        known[0] = {shares.top_key(root) for root in roots}
        for number, half in sorted(stored):
            level = shape.level(number)
            for body in stored[number, half]:
                for key in known[number]:
                    tried += 1
                    try:
                        plain = pages.open_page(key, body, tree_id=tree_id, page=number, level=level, half=half)
                    except PageWrong:
                        continue
                    opened += 1
                    if level == shape.depth:
                        keys |= {entry[pages.TAGGED :] for entry in pages.entries_of(plain, level=level)}
                        continue
                    first = shape.page(level + 1, (number - shape.page(level, 0)) * shape.fanout)
                    inner = Inner.decode(plain, level=level, fanout=shape.fanout)
                    for slot in range(shape.fanout):
                        known[first + slot].add(inner.child(slot)[0])
    return Disclosed(frozenset(keys), tried, opened)


def _gather(backups: Sequence[Path]) -> tuple[Bodies, dict[bytes, Shape]]:
    bodies: dict[bytes, dict[tuple[int, int], set[bytes]]] = defaultdict(lambda: defaultdict(set))
    shapes: dict[bytes, Shape] = {}
    for backup in backups:
        for meta, nodes in _states(backup):
            tree_id = meta["tree_id"]
            shapes[tree_id] = Shape(int(meta["fanout"]), int(meta["depth"]))
            for node, body in nodes.items():
                bodies[tree_id][node >> 1, node & 1].add(body)
    return bodies, shapes


def _states(backup: Path) -> list[tuple[dict[str, bytes], dict[int, bytes]]]:
    states = [read_copy(backup)]
    log = backup.with_name(backup.name + "-wal")
    if log.exists() and log.stat().st_size:
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch, "copy.db")
            shutil.copyfile(backup, copy)
            shutil.copyfile(log, copy.with_name("copy.db-wal"))
            with closing(sqlite3.connect(copy)) as db:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            states.append(read_copy(copy))
    return states

"""Small vaults for the tests, and the adversary who copies everything."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from fangxin.data.keys.approval import Guard
from fangxin.data.keys.disclosure import disclosed
from fangxin.data.keys.envelope import ref_of
from fangxin.data.keys.grant import Drops, Grant
from fangxin.data.keys.receipt import Receipt
from fangxin.data.keys.roots import shares
from fangxin.data.keys.tree import KeyTree

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
LIFTED = Guard(lifted=True)  # who is not testing the guard
FLAT, DEEP = 300, 9_000  # capacities of a tree with one and with two levels of inner pages


def refs(count: int, start: int = 0) -> list[bytes]:
    return [ref_of("account", f"A{i}") for i in range(start, start + count)]


def raw(tree: KeyTree, some: Iterable[bytes], domain: int = 1) -> dict[bytes, bytes]:
    """The keys that are there, by ref."""
    wanted = list(some)
    keys = tree.get_many(wanted, domain)
    return {ref: bytes(keys.view(i)) for i, ref in enumerate(wanted) if keys.found[i]}


def grant(tree: KeyTree, drops: Drops, **other: object) -> Grant:
    return Grant.of(drops, vault=tree.vault_id, generation=tree.generation, catalog="c0", not_before=NOW, **other)  # type: ignore[arg-type]  # the fields a test changes


def destroy(tree: KeyTree, some: Iterable[bytes] | Drops) -> Receipt:
    drops: Drops = some if isinstance(some, dict) else dict.fromkeys(some)
    return tree.destroy(drops, grant=grant(tree, drops), now=NOW)


def grow(tree: KeyTree, capacity: int) -> Receipt:
    return tree.grow(capacity, grant=grant(tree, {}, action="grow"), now=NOW)


class Adversary:
    """Copies the pages with their log whenever it likes, and notes the root of the moment.

    `others` are folders of replicas and backups: they are its to copy too.
    """

    def __init__(self, tree: KeyTree, folder: Path, *others: Path) -> None:
        self.tree, self.folder, self.others = tree, folder, others
        self.copies: list[Path] = []
        self.roots: list[bytes] = []
        folder.mkdir()

    def visit(self) -> None:
        for source in (path for place in (self.tree.folder, *self.others) for path in place.glob("*.db")):
            to = self.folder / f"copy-{len(self.copies)}.db"
            shutil.copyfile(source, to)
            log = source.with_name(source.name + "-wal")
            if log.exists():
                shutil.copyfile(log, to.with_name(to.name + "-wal"))
            self.copies.append(to)
        self.roots.append(self.root())

    def root(self) -> bytes:
        return shares.load(self.tree.anchor, self.tree.holders)[1]

    def opens(self, *roots: bytes) -> frozenset[bytes]:
        """The keys that all copies so far yield under these roots, or under today's."""
        return disclosed(self.copies, roots or [self.root()]).keys


def in_child(work: Callable[[], None]) -> int:
    """Run in a forked child that never returns here; its process id."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child

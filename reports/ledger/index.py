"""Where tags stand in a ledger, and its entries of the rare kinds: read once, then only what is new.

A night that moves a thousand closings asks thousands of times whether a tag is there; one pass over all entries for
each question would grow with their product. About 150 bytes of memory an entry. Nothing is written to disk: what is
answered comes from the tiles as they lie there.
"""

from __future__ import annotations

import json
import re

from fangxin.reports.ledger import tiles

RARE = ("law.loaded", "code.loaded", "calendar.loaded", "keys.loaded", "key.committed", "key.destroyed")
_TAG = re.compile(rb'"tag":"([0-9a-f]{32})"')
_KIND = re.compile(rb'"type":"(' + "|".join(RARE).replace(".", r"\.").encode() + rb')"')


class Index:
    """What is known of the entries up to `size`."""

    def __init__(self) -> None:
        self.size = 0
        self.rare: list[tuple[int, dict[str, int | str]]] = []  # in the order of the ledger
        self._tags: dict[bytes, int] = {}

    def grow(self, tree: tiles.Tree) -> None:
        """Read the entries that the tree has beyond what is known."""
        for bundle in range(self.size // tiles.WIDTH, -(-tree.size // tiles.WIDTH)):
            first = bundle * tiles.WIDTH
            for place, line in enumerate(tree.bundle(bundle)):
                if first + place < self.size:
                    continue
                if found := _TAG.search(line):
                    self._tags.setdefault(bytes.fromhex(found[1].decode()), first + place)
                if _KIND.search(line):
                    self.rare.append((first + place, json.loads(line)))
        self.size = tree.size

    def of(self, tag: str) -> int | None:
        """The index of the first entry that carries a tag."""
        return self._tags.get(bytes.fromhex(tag))

"""The pages of a destroy batch: every touched bucket and its ancestors, under fresh keys, in halves that do not live.

Nothing here decides or commits: it reads the living pages and returns the bodies that would take their place.
"""

from __future__ import annotations

import os
from bisect import insort
from collections.abc import Mapping
from dataclasses import dataclass, field

from fangxin.data.keys import page as pages
from fangxin.data.keys.faults import AddressTaken
from fangxin.data.keys.grant import Drops
from fangxin.data.keys.material import KEY
from fangxin.data.keys.page import Inner
from fangxin.data.keys.walk import State, Walk

Adds = Mapping[bytes, Mapping[int, bytes]]
"""Ref -> domain code -> key to put in place (a seal's share, a restored key)."""


@dataclass
class Batch:
    """Rows to write, rows that will be dead, and what dies."""

    written: list[tuple[int, bytes]] = field(default_factory=list, repr=False)
    dead: list[int] = field(default_factory=list)
    above: dict[int, Inner] = field(default_factory=dict, repr=False)  # changed inner pages by number
    destroyed: int = 0
    domains: set[int] = field(default_factory=set)
    half: int = 0  # of the new top page


def shadow(walk: Walk, state: State, drop: Drops, add: Adds) -> Batch:
    """The new bodies of the buckets that change. AddressTaken if an added key has an entry that does not die."""
    batch = Batch()
    depth = walk.shape.depth
    dying = {walk.address(state, ref): some for ref, some in drop.items()}
    coming = {walk.address(state, ref): some for ref, some in add.items()}
    if len(dying) != len(drop) or len(coming) != len(add):
        raise AddressTaken("two subjects of the batch share an address", hint="nothing was changed; report this")
    for bucket, addresses in walk.by_bucket({*dying, *coming}):
        entries = walk.entries(state, bucket)
        kept: list[bytes] = []
        for entry in entries:
            some = dying.get(entry[: pages.ADDRESS], frozenset())
            if some is None or entry[pages.ADDRESS] in some:
                batch.destroyed += 1
                batch.domains.add(entry[pages.ADDRESS])
            else:
                kept.append(entry)
        changed = len(kept) < len(entries)
        known = {entry[: pages.TAGGED] for entry in kept}
        for address in addresses:
            for code, key in coming.get(address, {}).items():
                tagged = address + bytes((code,))
                if tagged in known or len(key) != KEY:
                    raise AddressTaken("a key to be put in place has an entry already, or is not 32 bytes long")
                insort(kept, tagged + key)
                changed = True
        if changed:
            _rewrite(walk, state, batch, depth, bucket, pages.encode_leaf(kept, level=depth))
    return batch


def crown(walk: Walk, state: State, batch: Batch, top_key: bytes) -> None:
    """The new bodies of the ancestors, level by level, and of the top page under the new root's key."""
    for level in range(walk.shape.depth - 1, 0, -1):
        first = walk.shape.page(level, 0)
        for number in sorted(n for n, inner in batch.above.items() if inner.level == level):
            _rewrite(walk, state, batch, level, number - first, batch.above[number].encode())
    # Never by the parity of the generation: an aborted attempt burns a number, and would hit the living half.
    batch.half = 1 - state.living.half
    plain = batch.above[0].encode()
    body = pages.seal_page(top_key, plain, tree_id=walk.tree_id, page=0, level=0, half=batch.half)
    batch.written.append((batch.half, body))
    batch.dead.append(state.living.half)


def _rewrite(walk: Walk, state: State, batch: Batch, level: int, index: int, plain: bytes) -> None:
    """A page below the top goes into its dead half under a fresh key, and the page above is told both."""
    number = walk.shape.page(level, index)
    half = 1 - walk.child(state, level, index)[1]
    key = os.urandom(KEY)
    body = pages.seal_page(key, plain, tree_id=walk.tree_id, page=number, level=level, half=half)
    batch.written.append((2 * number + half, body))
    batch.dead.append(2 * number + 1 - half)
    above, slot = divmod(index, walk.shape.fanout)
    parent = walk.shape.page(level - 1, above)
    if parent not in batch.above:
        now = walk.inner(state, level - 1, above)
        batch.above[parent] = Inner(now.level, list(now.keys), bytearray(now.halves), now.hkey)
    batch.above[parent].keys[slot] = key
    batch.above[parent].halves[slot] = half

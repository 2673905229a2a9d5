"""The pages of a destroy batch: every touched bucket and its ancestors, under fresh keys, in halves that do not live.

Nothing here decides or commits: it reads the living pages and returns the bodies that would take their place.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fangxin.data.errors import InputError
from fangxin.data.keys import page as pages
from fangxin.data.keys.faults import AddressTaken
from fangxin.data.keys.grant import Drops
from fangxin.data.keys.leaves import Rows, sorted_names
from fangxin.data.keys.material import KEY
from fangxin.data.keys.page import Inner
from fangxin.data.keys.walk import SEARCHED, State, Walk, names_of

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


def shadow(walk: Walk, state: State, drop: Drops, add: Adds, *, always: bool = False, unseen: bool = False) -> Batch:
    """The new bodies of the buckets that change. AddressTaken if an added key has an entry that does not die.

    `always`: the top page changes even if no bucket does. `unseen`: the bucket of everybody named is re-keyed, for a
    key that this vault lost may lie in an older copy of it.
    """
    batch = Batch()
    if always:
        _above(walk, state, batch, 0, 0)
    refs = list(dict.fromkeys((*drop, *add)))
    if not refs:
        return batch
    if len(refs) <= SEARCHED and not add:
        _few(walk, state, batch, drop, unseen)
        return batch
    addresses = walk.hiding(state).addresses(refs)
    _check_apart({row.tobytes() for row in addresses}, refs)
    lowest = names_of(addresses, np.zeros(len(refs), np.uint8))
    highest = names_of(addresses, np.full(len(refs), 0xFF, np.uint8))
    for some, order, leaves in walk.by_bucket(state, lowest):
        begins, _ = leaves.place(lowest[some], order)
        ends, last = leaves.place(highest[some], order)
        gone = np.zeros(len(leaves.rows), np.bool_)
        for place, begin, end in zip(some.tolist(), begins.tolist(), (ends + last).tolist(), strict=True):
            codes = drop.get(refs[place], frozenset())
            for row in range(begin, end):
                gone[row] = codes is None or int(leaves.rows[row, pages.ADDRESS]) in codes
        batch.destroyed += int(gone.sum())
        batch.domains |= set(leaves.rows[gone, pages.ADDRESS].tolist())
        after, changed = leaves.without(gone), np.repeat(leaves.buckets, leaves.counts)[gone]
        if unseen:
            changed = np.concatenate((changed, walk.shape.buckets_of(addresses[some])))
        if add:
            names, keys = _coming([refs[place] for place in some.tolist()], addresses[some], add)
            by = sorted_names(names, walk.order(names))
            names, keys = names[by], keys[by]
            at, taken = after.place(names, walk.order(names))
            if taken.any():
                raise AddressTaken(
                    "a key to be put in place has an entry already", hint="nothing was changed; drop it too"
                )
            coming = walk.shape.buckets_of(names)
            after = after.merged(np.concatenate((names, keys), axis=1), coming, at)
            changed = np.concatenate((changed, coming))
        few = after.only(changed)
        _rewrite(walk, state, batch, few.buckets.tolist(), few.plains(walk.shape.depth))
    return batch


def _few(walk: Walk, state: State, batch: Batch, drop: Drops, unseen: bool) -> None:
    """Drop the entries of a few subjects, in the bytes of their buckets: numpy pays for more of them only."""
    depth = walk.shape.depth
    addresses = walk.hiding(state).few(drop)
    _check_apart(set(addresses), drop)
    buckets: dict[int, bytes] = {}
    changed = set()
    for address, codes in zip(addresses, drop.values(), strict=True):
        bucket = walk.shape.bucket_of(address)
        entries = buckets[bucket] if bucket in buckets else walk.entries(state, bucket)
        places = pages.places_of(address, entries)
        gone = [at for at in places if codes is None or entries[at + pages.ADDRESS] in codes]
        if gone or unseen:
            changed.add(bucket)
        for at in reversed(gone):
            batch.domains.add(entries[at + pages.ADDRESS])
            entries = entries[:at] + entries[at + pages.ENTRY :]
        batch.destroyed += len(gone)
        buckets[bucket] = entries
    some = sorted(changed)
    plains = [pages.leaf_page(buckets[bucket], level=depth) for bucket in some]
    _rewrite(walk, state, batch, some, plains)


def _check_apart(addresses: Collection[bytes], refs: Collection[bytes]) -> None:
    if len(addresses) != len(refs):
        raise AddressTaken("two subjects of the batch share an address", hint="nothing was changed; report this")


def _coming(refs: Sequence[bytes], addresses: Rows, add: Adds) -> tuple[Rows, Rows]:
    # Names and keys of what is put in place.
    names, keys = [], []
    for ref, address in zip(refs, addresses, strict=True):
        for code, key in add.get(ref, {}).items():
            if len(key) != KEY:
                raise InputError(f"a key to be put in place has {len(key)} bytes", hint="keys have 32")
            names.append(address.tobytes() + bytes((code,)))
            keys.append(key)
    return (
        np.frombuffer(b"".join(names), np.uint8).reshape(-1, pages.TAGGED),
        np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY),
    )


def crown(walk: Walk, state: State, batch: Batch, top_key: bytes) -> None:
    """The new bodies of the ancestors, level by level, and of the top page under the new root's key."""
    keys: list[bytes] = []
    nodes: list[int] = []
    changed: list[Inner] = []
    for level in range(walk.shape.depth - 1, 0, -1):
        first = walk.shape.page(level, 0)
        some = sorted(number for number, inner in batch.above.items() if inner.level == level)
        fresh, halves = _moved(walk, state, batch, level, [number - first for number in some])
        keys, nodes, changed = keys + fresh, nodes + halves, changed + [batch.above[number] for number in some]
    # Never by the parity of the generation: an aborted attempt burns a number, and would hit the living half.
    batch.half = 1 - state.living.half
    keys, nodes, changed = [*keys, top_key], [*nodes, batch.half], [*changed, batch.above[0]]
    plains, levels = [inner.encode() for inner in changed], [inner.level for inner in changed]
    batch.written += pages.seal_pages(keys, nodes, plains, tree_id=walk.tree_id, level=levels)
    batch.dead.append(state.living.half)


def _rewrite(walk: Walk, state: State, batch: Batch, buckets: Sequence[int], plains: Sequence[bytes]) -> None:
    """Buckets (ascending) go into their dead halves under fresh keys."""
    depth = walk.shape.depth
    keys, nodes = _moved(walk, state, batch, depth, buckets)
    batch.written += pages.seal_pages(keys, nodes, plains, tree_id=walk.tree_id, level=depth)


def _moved(walk: Walk, state: State, batch: Batch, level: int, indices: Sequence[int]) -> tuple[list[bytes], list[int]]:
    """Fresh keys and dead halves for pages below the top (ascending); the pages above are told both."""
    _, nodes = walk.children(state, level, indices)
    drawn, others = os.urandom(KEY * len(nodes)), [node ^ 1 for node in nodes]
    keys = [drawn[at : at + KEY] for at in range(0, len(drawn), KEY)]
    batch.dead += nodes
    for index, key, node in zip(indices, keys, others, strict=True):
        above, slot = divmod(index, walk.shape.fanout)
        _above(walk, state, batch, level - 1, above).put(slot, key, node & 1)
    return keys, others


def _above(walk: Walk, state: State, batch: Batch, level: int, index: int) -> Inner:
    """An inner page that will change; the same one each time."""
    number = walk.shape.page(level, index)
    if number not in batch.above:
        batch.above[number] = walk.inner(state, level, index).copy()
    return batch.above[number]

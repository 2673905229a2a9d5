"""The pages of an insert: buckets with new entries, under the page keys they have, in the rows where they live.

Generation and root stay as they are, since nothing dies.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from fangxin.data.errors import NotAllowed
from fangxin.data.keys import domains as codes
from fangxin.data.keys import page as pages
from fangxin.data.keys.faults import AddressTaken, SubjectSealed
from fangxin.data.keys.leaves import Leaves, Order, Rows
from fangxin.data.keys.material import KEY
from fangxin.data.keys.walk import State, Walk, names_of


def additions(
    walk: Walk, state: State, refs: Sequence[bytes], domains: Sequence[int], *, newcomers: bool
) -> Iterator[list[tuple[int, bytes]]]:
    """Rows in which every ref has a key in every domain, some buckets at a time; a key that exists stays.

    AddressTaken if `newcomers` and one has an entry in any domain, or if two refs share an address.
    SubjectSealed if one is in the cooling-off period.
    """
    names = walk.names(state, refs, domains)
    for some, order, leaves in walk.by_bucket(state, names):
        wanted = names[some]
        twice = np.flatnonzero((wanted[1:] == wanted[:-1]).all(axis=1))
        shared = any(refs[some[at] // len(domains)] != refs[some[at + 1] // len(domains)] for at in twice)
        if len(twice):
            wanted, order = np.delete(wanted, twice, axis=0), np.delete(order, twice)
        if shared or (newcomers and _present(leaves, wanted, order).any()):
            raise AddressTaken(
                "a subject to be created has keys already, or shares an address with somebody who has",
                hint="nothing was created; use `ensure` for known subjects, another ref for a new one",
            )
        sealed = names_of(wanted[:, : pages.ADDRESS], np.full(len(wanted), codes.SEALED, np.uint8))
        if leaves.place(sealed, order)[1].any():
            raise SubjectSealed
        at, known = leaves.place(wanted, order)
        fresh = wanted[~known]
        if len(fresh):
            keys = np.frombuffer(os.urandom(KEY * len(fresh)), np.uint8).reshape(-1, KEY)
            buckets = walk.shape.buckets_of(fresh)
            after = leaves.merged(np.concatenate((fresh, keys), axis=1), buckets, at[~known])
            yield _sealed(walk, state, after, buckets)


def _present(leaves: Leaves, wanted: Rows, order: Order) -> npt.NDArray[np.bool_]:
    # Codes count from 1: what is not below the name with code 0 is the subject's first entry, if there is one.
    lowest = names_of(wanted[:, : pages.ADDRESS], np.zeros(len(wanted), np.uint8))
    at, _ = leaves.place(lowest, order)
    inside = at < len(leaves.rows)
    present = np.zeros(len(wanted), np.bool_)
    there = leaves.rows[at[inside], : pages.ADDRESS]
    present[inside] = (there == wanted[inside, : pages.ADDRESS]).all(axis=1)
    return present


def _sealed(walk: Walk, state: State, after: Leaves, changed: npt.NDArray[np.int64]) -> list[tuple[int, bytes]]:
    if after.counts.max() > pages.MOST_ENTRIES:
        raise NotAllowed("a bucket of the key vault is full", hint="`fangxin keys grow` makes room; then repeat")
    depth = walk.shape.depth
    few = after.only(changed)
    keys, nodes = walk.children(state, depth, few.buckets.tolist())
    return pages.seal_pages(keys, nodes, few.plains(depth), tree_id=walk.tree_id, level=depth)

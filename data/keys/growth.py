"""The same entries in a new tree of another size: fresh page keys throughout, positions by the addresses they carry.

An entry holds its whole address, so no ref has to be known. Old and new buckets both follow the address read as a
number, so one pass over the old buckets yields the new ones in order, a few at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from fangxin.data.keys import page as pages
from fangxin.data.keys.leaves import Leaves, order_of, sorted_names
from fangxin.data.keys.material import KEY
from fangxin.data.keys.page import Inner, Shape, seal_page
from fangxin.data.keys.walk import State, Walk


def rebuilt(walk: Walk, state: State, shape: Shape, tree_id: bytes, top_key: bytes) -> Iterator[tuple[int, bytes]]:
    """Rows of the new tree, all in half 0: the living entries of the old one, under `top_key`."""
    return tree_rows(shape, tree_id, top_key, walk.inner(state, 0, 0).hkey, _regrouped(walk, state, shape))


def tree_rows(
    shape: Shape, tree_id: bytes, top_key: bytes, hkey: bytes, leaves: Iterator[bytes]
) -> Iterator[tuple[int, bytes]]:
    """Rows of a whole tree, all in half 0 and ascending, from the plaintexts of its buckets in order."""
    above = [top_key]
    for level in range(shape.depth):
        below: list[bytes] = []
        for index, key in enumerate(above):
            drawn = os.urandom(KEY * shape.fanout)
            below += [drawn[at : at + KEY] for at in range(0, len(drawn), KEY)]
            plain = Inner(level, bytearray(drawn), bytearray(shape.fanout), b"" if level else hkey).encode()
            number = shape.page(level, index)
            yield 2 * number, seal_page(key, plain, tree_id=tree_id, page=number, level=level, half=0)
        above = below
    for index, (key, plain) in enumerate(zip(above, leaves, strict=True)):
        number = shape.page(shape.depth, index)
        yield 2 * number, seal_page(key, plain, tree_id=tree_id, page=number, level=shape.depth, half=0)


def _regrouped(walk: Walk, state: State, shape: Shape) -> Iterator[bytes]:
    # What lies in the last new bucket seen so far may go on in the next old ones, so it is kept back.
    done, kept = 0, np.zeros((0, pages.ENTRY), np.uint8)
    for old in walk.all_leaves(state):
        rows = np.concatenate((kept, old.rows))
        buckets = shape.buckets_of(rows)
        last = int(walk.shape.next_first(int(old.buckets[-1])) * shape.buckets >> 64)
        whole = buckets < last
        yield from _sorted(rows[whole], done, last, shape)
        done, kept = last, rows[~whole]
    yield from _sorted(kept, done, shape.buckets, shape)


def _sorted(rows: np.ndarray[tuple[int, int], np.dtype[np.uint8]], start: int, end: int, shape: Shape) -> list[bytes]:
    buckets = shape.buckets_of(rows)
    by = sorted_names(rows, order_of(buckets, rows, shape.buckets))
    counts = np.bincount(buckets - start, minlength=end - start)
    return Leaves(np.arange(start, end), counts, rows[by], shape.buckets).plains(shape.depth)

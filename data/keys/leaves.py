"""Many buckets at once: their entries as rows of bytes, searched, thinned and merged in numpy instead of one by one.

Rows of all buckets lie one after the other, sorted by bucket and then by name (address ‖ domain). The search goes
over `order`, the bucket above the first bits of the name in one u64; what ties there is compared byte by byte.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fangxin.data.keys import page as pages

Rows = npt.NDArray[np.uint8]  # (N, 45) entries or (N, 13) names
Numbers = npt.NDArray[np.int64]
Order = npt.NDArray[np.uint64]
NEAR = 8  # rows around where an address is expected, among which nearly all are
_NEAR = np.arange(NEAR) * pages.ENTRY
AT_ONCE = 2048  # buckets in the clear at a time: about 8 MB, so that what is done once for all of them weighs little


@dataclass
class Sheet:
    """Some buckets in the clear as they were opened, heads and padding between their entries.

    `rows` is a view of memory that the next buckets are opened into.
    """

    buckets: Numbers  # ascending
    first: Numbers  # row of each bucket's first entry
    counts: Numbers
    rows: Rows = field(repr=False)

    def find(self, names: Rows, buckets: Numbers) -> tuple[Rows, npt.NDArray[np.bool_]]:
        """For each name of these buckets its row (another one where it has none), and whether it has one.

        Addresses are spread evenly, so most lie near where their first bytes say; the others are halved down to.
        """
        owner = np.searchsorted(self.buckets, buckets)
        first, counts = self.first[owner], self.counts[owner]
        at = first + self._near(names, first, counts)
        ends = first + counts
        rows = self.rows.take(at, axis=0, mode="clip")
        found = (_text(rows) == _text(names)) & (at < ends)
        if (others := np.flatnonzero(~found)).size:
            at[others] = self._halved(names[others], first[others], counts[others])
            self._tied(names, at, ends, others, found)
            rows[others] = self.rows.take(at[others], axis=0, mode="clip")
        return rows, found

    def _near(self, names: Rows, first: Numbers, counts: Numbers) -> Numbers:
        # Which row of its bucket each name probably is: one that has the same first two bytes, if one is near.
        flat, last = self.rows.reshape(-1), np.maximum(counts - 1, 0)
        wanted = names[:, 0].astype(np.int64) << 8 | names[:, 1]
        nth = wanted * counts >> 16
        place = (first + nth) * pages.ENTRY
        there = flat.take(place, mode="clip").astype(np.int64) << 8 | flat.take(place + 1, mode="clip")
        nth = np.clip(nth + ((wanted - there) * counts >> 16), 0, last)
        nth = np.clip(nth - NEAR // 2, 0, np.maximum(counts - NEAR, 0))
        places = ((first + nth) * pages.ENTRY)[:, np.newaxis] + _NEAR
        like = flat.take(places, mode="clip") == names[:, :1]
        like &= flat.take(places + 1, mode="clip") == names[:, 1:2]
        nearest: Numbers = nth + like.argmax(axis=1)
        return nearest

    def _halved(self, names: Rows, at: Numbers, counts: Numbers) -> Numbers:
        # The first row of each one's bucket that is not below it in its first eight bytes.
        ends = at + counts
        heads = np.ndarray(len(self.rows), ">u8", self.rows, strides=(pages.ENTRY,))
        wanted, end = _first_bits(names), len(heads) - 1
        step = 1 << int(counts.max(initial=0)).bit_length() >> 1
        while step:
            further = at + step
            below = (further <= ends) & (heads[np.minimum(further - 1, end)] < wanted)
            at = np.where(below, further, at)
            step >>= 1
        return at

    def _tied(self, names: Rows, at: Numbers, ends: Numbers, tied: Numbers, found: npt.NDArray[np.bool_]) -> None:
        # Marks which of these are in their rows, or, as `at` says then, in one behind: an address in several domains.
        while (tied := tied[at[tied] < ends[tied]]).size:
            mine, sought = _text(self.rows.take(at[tied], axis=0)), _text(names[tied])
            found[tied[mine == sought]] = True
            tied = tied[mine < sought]
            at[tied] += 1

    def leaves(self, total: int) -> Leaves:
        """Their entries alone, in memory of their own."""
        whole = self.rows.reshape(-1).data
        starts = self.first * pages.ENTRY
        ends = starts + self.counts * pages.ENTRY
        parts = [whole[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
        rows = np.frombuffer(b"".join(parts), np.uint8).reshape(-1, pages.ENTRY)
        return Leaves(self.buckets, self.counts, rows, total)


@dataclass
class Leaves:
    """Some buckets of a tree in the clear: `counts[i]` rows belong to `buckets[i]`, buckets ascending."""

    buckets: Numbers
    counts: Numbers
    rows: Rows = field(repr=False)
    total: int  # buckets of the whole tree

    @cached_property
    def order(self) -> Order:
        """What the rows are searched by."""
        return order_of(np.repeat(self.buckets, self.counts), self.rows, self.total)

    def place(self, names: Rows, order: Order) -> tuple[Numbers, npt.NDArray[np.bool_]]:
        """For each name the first row that is not below it, and whether that row is it."""
        at = np.searchsorted(self.order, order).astype(np.int64)
        found = np.zeros(len(names), np.bool_)
        tied = self._tied(np.arange(len(names)), at, order)
        while tied.size:
            mine, wanted = _text(self.rows[at[tied]]), _text(names[tied])
            found[tied[mine == wanted]] = True
            below = tied[mine < wanted]
            at[below] += 1
            tied = self._tied(below, at, order)
        return at, found

    def without(self, gone: npt.NDArray[np.bool_]) -> Leaves:
        """The same buckets without some rows."""
        owner = np.repeat(np.arange(len(self.buckets)), self.counts)
        left = np.bincount(owner[~gone], minlength=len(self.buckets))
        return Leaves(self.buckets, left, self.rows[~gone], self.total)

    def merged(self, entries: Rows, buckets: Numbers, at: Numbers) -> Leaves:
        """The same buckets with new entries, sorted among themselves, in the places that `place` gave for them."""
        rows = np.empty((len(self.rows) + len(entries), pages.ENTRY), np.uint8)
        new = np.zeros(len(rows), np.bool_)
        new[at + np.arange(len(entries))] = True
        rows[new] = entries
        rows[~new] = self.rows
        more = np.bincount(np.searchsorted(self.buckets, buckets), minlength=len(self.buckets))
        return Leaves(self.buckets, self.counts + more, rows, self.total)

    def only(self, buckets: Numbers) -> Leaves:
        """Only these buckets of them."""
        kept = np.zeros(len(self.buckets), np.bool_)
        kept[np.searchsorted(self.buckets, buckets)] = True
        if kept.all():
            return self
        return Leaves(self.buckets[kept], self.counts[kept], self.rows[np.repeat(kept, self.counts)], self.total)

    def plains(self, level: int) -> list[bytes]:
        """The plaintext of each bucket's page."""
        ends = np.cumsum(self.counts)
        starts = (ends - self.counts).tolist()
        return [
            pages.leaf_page(self.rows[start:end].tobytes(), level=level)
            for start, end in zip(starts, ends.tolist(), strict=True)
        ]

    def _tied(self, which: Numbers, at: Numbers, order: Order) -> Numbers:
        inside = which[at[which] < len(self.rows)]
        tied: Numbers = inside[self.order[at[inside]] == order[inside]]
        return tied


def order_of(buckets: Numbers, rows: Rows, total: int) -> Order:
    """The bucket above the first bits of each name: what rows are sorted by, but for ties."""
    bits = max(1, (total - 1).bit_length())
    return (buckets.astype(np.uint64) << np.uint64(64 - bits)) | (_first_bits(rows) >> np.uint64(bits))


def sorted_names(names: Rows, order: Order) -> Numbers:
    """The places of names in the order in which rows lie."""
    by = np.argsort(order)
    if (np.diff(order[by]) == 0).any():
        by = np.lexsort((_text(names), order))
    return by


def _first_bits(rows: Rows) -> Order:
    return np.ascontiguousarray(rows[:, :8]).view(">u8")[:, 0].astype(np.uint64)


def _text(rows: Rows) -> npt.NDArray[np.bytes_]:
    # Fixed-length bytes compare as memory does; equal lengths make numpy's blindness for trailing zeros harmless.
    return np.ascontiguousarray(rows[:, : pages.TAGGED]).view(f"S{pages.TAGGED}")[:, 0]

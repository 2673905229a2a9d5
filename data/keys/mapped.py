"""Where bodies lie in the vault's file, for reads that want a good part of them: SQLite's pages as memory.

SQLite hands out one row at a time, for more than opening it costs. Its format (sqlite.org/fileformat2.html, sections
1.5 and 1.6) is simple where bodies lie: the interior pages of the tree of `slot` say on which page a row is, and a body
that fits a page lies there in one piece.

All that is found here is a hint. What is seen may be older than what a transaction sees, torn, or of something else:
whoever opens a copy of a body by its tag knows, and asks SQLite for the others.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fangxin.data.descriptors import mapped
from fangxin.data.keys.gcm import Bytes, Numbers, Texts

PAGE = 4096
INTERIOR, LEAF = 5, 13
LONGEST = PAGE - 35  # bytes of a row that lie on its page
DEEPEST = 8  # levels of a table


class Mapped:
    """The pages of a file as they are now."""

    def __init__(self, path: Path) -> None:
        """OSError if it cannot be mapped; ValueError if it is empty, or no file of such pages."""
        self._pages = np.frombuffer(mapped(path, PAGE), np.uint8).reshape(-1, PAGE)  # keeps the memory while it lives
        if int(_number(self._pages[0], np.array([16]), 2)[0]) != PAGE:
            raise ValueError("pages of another size")

    @property
    def size(self) -> int:
        """Bytes of the file that are seen."""
        return self._pages.nbytes

    def table(self, root: int) -> Table:
        """The table with this root page; ValueError if there is none."""
        pages, last = np.array([root]), np.array([np.iinfo(np.int64).max])
        for _ in range(DEEPEST):
            kind = int(self._pages[min(int(pages[0]), len(self._pages)) - 1, 0])  # one level, one kind
            if kind == LEAF:
                return Table(self._pages, pages, last)
            if kind != INTERIOR:
                break
            pages, last = _below(self._pages.take(pages - 1, axis=0, mode="clip"), last)
        raise ValueError("no tree of pages")


class Table:
    """The leaf pages of a table in order, and the highest row that may be on each; no row is ever taken out."""

    def __init__(self, memory: Bytes, pages: Numbers, last: Numbers) -> None:
        self._memory, self._pages, self._last = memory, pages, last

    def sight(self, rows: Numbers, *, whole: bool) -> Sight:
        """Where these rows (0: none) seem to lie. `whole`: nothing newer can lie elsewhere, as long as it is used."""
        on = np.searchsorted(self._last, rows)
        before = np.where(on > 0, self._last[on - 1], 0)
        return Sight(self._memory, self._pages[on], rows - before - 1, 2 + _lengths(rows), whole)


class Sight:
    """Where some rows seem to lie: on which page each, and as which one of its rows."""

    def __init__(self, pages: Bytes, on: Numbers, nth: Numbers, heads: Numbers, whole: bool) -> None:  # noqa: FBT001
        self._pages, self._on, self._nth, self._heads = pages, on, nth, heads
        self.whole = whole

    def bodies(self, start: int, end: int) -> Texts:
        """The blobs of the rows with these numbers where they lie in the file; size 0 where none is seen."""
        page = np.clip(self._on[start:end] - 1, 0, len(self._pages) - 1)
        return self._blobs(start, end, self._pages.reshape(-1), page * PAGE)

    def copies(self, start: int, end: int, room: Bytes) -> Texts:
        """The same in copies of their pages in `room`."""
        on = self._on[start:end]
        self._pages.take(on - 1, axis=0, mode="clip", out=room[: len(on) * PAGE].reshape(-1, PAGE))
        return self._blobs(start, end, room, np.arange(len(on)) * PAGE)

    def _blobs(self, start: int, end: int, memory: Bytes, base: Numbers) -> Texts:
        # Each number is read once, and none leads out of its page.
        nth = self._nth[start:end]
        seen = (memory.take(base) == LEAF) & (nth >= 0) & (nth < _number(memory, base + 3, 2))
        at = base + _number(memory, base + 8 + 2 * np.where(seen, nth, 0), 2)
        high, low = (memory.take(at + place, mode="clip").astype(np.int64) for place in (0, 1))
        size = (high & 0x7F) << 7 | low  # of the row: a body has more than 127 bytes and less than 16,384
        at += self._heads[start:end]
        head = memory.take(at, mode="clip").astype(np.int64)
        at += head
        size -= head
        seen &= (high > 0x7F) & (low < 0x80) & (size > 0) & (size + head <= LONGEST) & (at + size <= base + PAGE)
        return Texts(memory, at, np.where(seen, size, 0))


def _below(pages: Bytes, last: Numbers) -> tuple[Numbers, Numbers]:
    """The pages below some interior ones, and the highest row that may be on each."""
    flat, base = pages.reshape(-1), np.arange(len(pages)) * PAGE
    counts = np.minimum(_number(flat, base + 3, 2), PAGE // 6)
    ends = np.cumsum(counts + 1)
    right = ends - 1  # the last page below each stands in its head, and has no number of its own
    children, highest = np.empty(int(ends[-1]), np.int64), np.empty(int(ends[-1]), np.int64)
    children[right], highest[right] = _number(flat, base + 8, 4), last
    others = np.ones(len(children), np.bool_)
    others[right] = False
    owner = np.repeat(np.arange(len(pages)), counts)
    nth = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    cell = owner * PAGE + _number(flat, owner * PAGE + 12 + 2 * nth, 2)
    children[others], highest[others] = _number(flat, cell, 4), _varint(flat, cell + 4)
    return children, highest


def _number(flat: Bytes, at: Numbers, size: int) -> Numbers:
    """Numbers of so many bytes, big endian."""
    found = np.zeros(len(at), np.int64)
    for place in range(size):
        found = found << 8 | flat.take(at + place, mode="clip")
    return found


def _varint(flat: Bytes, at: Numbers) -> Numbers:
    """Numbers of one to five bytes, seven bits in each."""
    found, more = np.zeros(len(at), np.int64), np.ones(len(at), np.bool_)
    for place in range(5):
        byte = flat.take(at + place, mode="clip").astype(np.int64)
        found = np.where(more, found << 7 | byte & 0x7F, found)
        more &= byte > 0x7F
    return found


def _lengths(numbers: Numbers) -> Numbers:
    """How many bytes each takes as a varint."""
    return 1 + (numbers >> 7 > 0) + (numbers >> 14 > 0) + (numbers >> 21 > 0) + (numbers >> 28 > 0).astype(np.int64)

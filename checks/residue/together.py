"""Together: small pieces are searched in one go, and the same bytes once; each answer is the one it has alone.

A search costs some 0.2 ms (of a crowd 0.7 ms) before its first byte, and a home of ours is ten thousand small
documents. So pieces of any files are laid side by side, NULs between them, and searched in one pass; where anything is
seen in one, or across its edge, that piece is searched once more by itself, and this answer counts.

* What begins or ends with its piece may count there and not beside a NUL: base64, forms that need a context. So a
  piece is laid beside others only if nothing of the kind can stand at its edges (`Edges`).
* Who remembers knows what was searched by its SHA-256: a member of an archive that is a file as well, and a file that
  is read again and is the same to the byte, are answered from memory. They are read and unpacked all the same, and a
  digest is made of what is there now.

In memory: `LOT` bytes of pieces a thread, and some 200 bytes for every piece that was searched.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from fangxin.checks.residue.carve import Piece
from fangxin.checks.residue.forms import SEXTET, Breadth, Context
from fangxin.checks.residue.patterns import Needles
from fangxin.checks.residue.views import COLUMN, MARKS, NAMES

Found = list[tuple[tuple[int, bool, int], int, int]]  # (needle, inside, view), hits, offset of the first
SMALL = 256 << 10  # bytes of a piece up to which it is laid beside others
LOT = 1 << 20  # bytes that are searched together
_BETWEEN = bytes(64)  # more than what is looked at beside a text (vocabulary.ASIDE)


class Together:
    """Searches pieces for the needles of a cohort; what it has searched it knows, if it is to `remember`."""

    def __init__(self, needles: Needles, *, remember: bool = False) -> None:
        self.needles = needles
        self.remember = remember
        self._edges = Edges(needles)
        self._known: dict[bytes, Found] = {}
        self._labels: dict[str, bool] = {}

    def quotes(self, label: str) -> bool:
        """Whether a label, which may come from the file, is or holds a needle itself."""
        if label not in self._labels:
            self._labels[label] = len(self.needles.find(label.encode("utf-8", "replace")).needle) > 0
        return self._labels[label]

    def search(self, piece: Piece) -> Found:
        """What stands in a piece; called from any thread."""
        if piece.values is not None and self.needles.columns is not None:
            found_in = self.needles.columns(piece.values)
            return [((number, False, NAMES.index(COLUMN)), n, at) for number, (n, at) in found_in.items()]
        # A digest costs as much as a search for few; a crowd's costs five times that.
        if not self.remember or (len(piece.data) >= SMALL and self.needles.breadth is not Breadth.CORE):
            return _at(piece, self._alone(piece))
        key = _digest(piece)
        if key not in self._known:
            self._known[key] = self._alone(piece)
        return _at(piece, self._known[key])

    def each(self, pieces: Sequence[Piece]) -> list[Found]:
        """The same for many small pieces at once, in order."""
        keys = [_digest(one) if self.remember else b"%d" % n for n, one in enumerate(pieces)]
        found = {key: self._known[key] for key in keys if key in self._known}
        new = {key: one for key, one in zip(keys, pieces, strict=True) if key not in found}
        beside = {key: one for key, one in new.items() if self._edges.clear(one.data)}
        seen = self._seen_in(beside)
        found |= {key: [] if key in beside and key not in seen else self._alone(one) for key, one in new.items()}
        if self.remember:
            self._known |= {key: found[key] for key in new}
        return [_at(one, found[key]) for key, one in zip(keys, pieces, strict=True)]

    def _seen_in(self, pieces: Mapping[bytes, Piece]) -> set[bytes]:
        """Those of these pieces in which, or across whose edges, anything is seen."""
        if not pieces:
            return set()
        keys, body = list(pieces), _BETWEEN.join(one.data for one in pieces.values())
        ends = np.cumsum([len(one.data) + len(_BETWEEN) for one in pieces.values()])
        touched = set[int]()
        for sqlite in (False, True) if any(one.sqlite for one in pieces.values()) else (False,):
            seen = self.needles.find(body, sqlite=sqlite)
            first, last = (np.searchsorted(ends, at, side="right").tolist() for at in (seen.start, seen.end - 1))
            touched |= {n for a, b in zip(first, last, strict=True) for n in range(a, b + 1)}
        return {keys[n] for n in touched}

    def _alone(self, piece: Piece) -> Found:
        """Search a piece by itself; offsets count from its first byte."""
        rows: Found = []
        stop = len(piece.data) if piece.stop is None else piece.stop
        for sqlite in (False, True) if piece.sqlite else (False,):
            found = self.needles.find(piece.data, sqlite=sqlite)
            own = (found.start >= piece.start) & (found.start < stop)
            if not own.any():
                continue
            keys = (found.needle[own] * 2 + found.inside[own]) * len(NAMES) + found.view[own]
            numbers, which, hits = np.unique(keys, return_inverse=True, return_counts=True)
            first = np.full(len(numbers), np.iinfo(np.int64).max)
            np.minimum.at(first, which, found.start[own])
            for number, at, n in zip(numbers.tolist(), first.tolist(), hits.tolist(), strict=True):
                rest, view = divmod(number, len(NAMES))
                rows.append(((rest // 2, bool(rest % 2), view), n, at))
        return rows


class Lot:
    """Small pieces that wait to be searched together, and whom each answer is told."""

    def __init__(self, together: Together) -> None:
        self._together = together
        self._pieces: list[Piece] = []
        self._told: list[Callable[[Piece, Found], None]] = []
        self._bytes = 0

    def add(self, piece: Piece, told: Callable[[Piece, Found], None]) -> None:
        """Lay one more beside the others; `told` gets its answer, at the latest when `search` is called."""
        # A view would keep all of the page or column that it was cut from.
        data = piece.data if isinstance(piece.data, bytes) else bytes(piece.data.cast("B"))
        self._pieces.append(replace(piece, data=data))
        self._told.append(told)
        self._bytes += len(piece.data)
        if self._bytes >= LOT:
            self.search()

    def search(self) -> None:
        """Search what waits."""
        pieces, told = self._pieces, self._told
        self._pieces, self._told, self._bytes = [], [], 0
        for one, piece, found in zip(told, pieces, self._together.each(pieces), strict=True):
            one(piece, found)


class Edges:
    """Whether something at the edge of a piece could count there, and not beside a NUL.

    That is base64, whose neighbours are looked at, and what needs a context; where escapes are, what they stand for.
    """

    def __init__(self, needles: Needles) -> None:
        self._needles = needles
        self._lock = threading.Lock()
        self._made = False

    def clear(self, data: bytes | memoryview) -> bool:
        """Whether neither edge of these bytes can matter."""
        body = bytes(data)
        self._make()
        if not body or not self._whole:  # of a crowd: nothing looks at its neighbours
            return True
        if not any(mark in body for mark in MARKS):  # nothing can be read in another way
            low = body.lower()
            starts = any(body[:n] in self._whole or low[:n] in self._whole for n in self._lengths)
            return not starts and not any(body[-n:] in self._whole or low[-n:] in self._whole for n in self._lengths)
        last = body.rstrip(b"\r\n")
        soft = len(last) < len(body) and last.endswith(b"=")  # a soft line break: what was before it ends here
        return body[0] not in self._first and not soft and body[-1] not in self._last

    def _make(self) -> None:
        with self._lock:
            if self._made:
                return
            own, first, last = set[bytes](), {mark[0] for mark in MARKS}, set(b'\0;"/=')  # where an escape ends
            for one in self._needles.forms:
                if one.context is not Context.ANY:
                    first |= {one.data[0], one.data[:1].lower()[0], one.data[:1].upper()[0]}
                    last |= {one.data[-1], one.data[-1:].lower()[0], one.data[-1:].upper()[0]}
                    own.add(one.data.lower())
                elif one.name.startswith("base64"):
                    own.add(one.data)
            self._whole, self._first, self._last = own, first | set(SEXTET), last | set(SEXTET)
            self._lengths = sorted({len(data) for data in own})
            self._made = True


def _digest(piece: Piece) -> bytes:
    """What an answer hangs on: the bytes, which of them are the piece's own, and how they are searched."""
    stop = len(piece.data) if piece.stop is None else piece.stop
    return hashlib.sha256(piece.data).digest() + b"%d-%d-%d" % (piece.start, stop, piece.sqlite)


def _at(piece: Piece, rows: Found) -> Found:
    return [(key, hits, at + piece.offset) for key, hits, at in rows]

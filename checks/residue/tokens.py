"""The crowd's engine: what looks like a value is taken out of the bytes and joined with the cohort's by hash.

An automaton over a thousand people has hundreds of thousands of needles and slows down with each. Here the cost
follows the bytes: one pass finds the runs of digits, the words, and what stands around each @; those of a length that
somebody's value has are looked up in a table of 64-bit hashes, and what agrees is compared byte by byte.

* Digits: whole runs, 17 digits with an X, and the usual groups (3-4-4, fours, 6-8-4) with one blank or hyphen.
* Words of letters, digits, `_` and `-`: ids, device numbers, hexadecimal digests.
* Base64 of digests, its padding left out.
* Addresses in any case: the run of characters that an address may have.
* Numbers of 8 bytes in either order.

A value counts where it is a whole token; a run of digits inside a longer one is another number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

Table = npt.NDArray[np.int64]
_Bytes = npt.NDArray[np.uint8]
_Words = npt.NDArray[np.uint64]

_SHAPES = {
    "digits": re.compile(rb"\d{8,20}"),
    "id": re.compile(rb"\d{17}[Xx]"),
    "groups": re.compile(rb"\d{3}([ -])\d{4}\1\d{4}|\d{4}([ -])(?:\d{4}\2)+\d{1,4}|\d{6}([ -])\d{8}\3\d{3}[\dXx]"),
    "address": re.compile(rb"[0-9A-Za-z._%+-]+@[0-9A-Za-z._-]*[0-9A-Za-z]"),
    "word": re.compile(rb"[0-9A-Za-z_-]{8,128}"),
    "base64": re.compile(rb"[0-9A-Za-z+/]{27,128}"),  # of SHA-1 or longer: a number behind a + is none
}
_GROUPS = ((3, 4, 4), (4, 4, 4, 1), (4, 4, 4, 2), (4, 4, 4, 3), (4, 4, 4, 4), (4, 4, 4, 4, 1), (4, 4, 4, 4, 2),
           (4, 4, 4, 4, 3), (6, 8, 4), (6, 8, 3))  # fmt: skip
_FOLD = np.uint64(0x2020202020202020)  # letters to lower case; what else it changes is compared afterwards
_ODD = np.uint64(0x9E3779B97F4A7C15)


def shape(data: bytes) -> str | None:
    """What kind of token a value is; None where it is none."""
    return next((name for name, pattern in _SHAPES.items() if pattern.fullmatch(data)), None)


class Tokens:
    """Values that are tokens, by number; those in `folded` in any case."""

    def __init__(self, wanted: Mapping[int, bytes], folded: frozenset[int] = frozenset()) -> None:
        self._exact = {number: data for number, data in wanted.items() if number not in folded}
        self._folded = {number: wanted[number] for number in folded}
        by_shape: dict[str, dict[int, bytes]] = {}
        for number, data in wanted.items():
            by_shape.setdefault(shape(data) or "word", {})[number] = data
        self._joins = {name: _Join(values) for name, values in by_shape.items()}

    def __call__(self, body: bytes) -> Table:
        """Every token that is one of the values."""
        if not self._joins or len(body) < 8:
            return np.empty((0, 3), np.int64)
        codes = np.frombuffer(body, np.uint8)
        found = [row for rows in self._candidates(codes, body) for row in rows]
        return np.array(found, dtype=np.int64).reshape(-1, 3)

    def _candidates(self, codes: _Bytes, body: bytes) -> Iterator[list[tuple[int, int, int]]]:
        starts, ends = _runs((codes - np.uint8(48)) < 10)
        for name in ("digits", "id", "groups"):
            if name not in self._joins:
                continue
            begin, end = starts, ends
            if name == "id":
                after = codes[np.minimum(ends, len(codes) - 1)] | 0x20
                fits = (ends - starts == 17) & (ends < len(codes)) & (after == ord("x"))
                begin, end = starts[fits], ends[fits] + 1
            elif name == "groups":
                begin, end = _grouped(codes, starts, ends)
            yield self._looked_up(name, body, begin, end)
        if "word" in self._joins:
            yield self._looked_up("word", body, *_runs(np.frombuffer(body.translate(_WORD), bool)))
        if "base64" in self._joins:
            yield self._looked_up("base64", body, *_runs(np.frombuffer(body.translate(_BASE64), bool)))
        if "address" in self._joins and b"@" in body:
            begin, end = _runs(np.frombuffer(body.translate(_ADDRESS), bool))
            signs = np.flatnonzero(codes == ord("@"))
            which = np.searchsorted(begin, signs, side="right") - 1
            which = which[np.concatenate([[True], which[1:] != which[:-1]])]
            begin, end = begin[which], end[which].copy()
            for _ in range(2):  # the end of a sentence
                last = codes[end - 1]
                end -= (last == ord(".")) | (last == ord("-"))
            yield self._looked_up("address", body, begin, end)

    def _looked_up(self, name: str, body: bytes, begin: Table, end: Table) -> list[tuple[int, int, int]]:
        found = []
        for number, start, stop in self._joins[name](body, begin, end):
            text = body[start:stop]
            if self._exact.get(number) == text or self._folded.get(number) == text.lower():
                found.append((number, start, stop))
        return found


_LETTERS = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_WORD = bytes(code in _LETTERS + b"_-" for code in range(256))
_BASE64 = bytes(code in _LETTERS + b"+/" for code in range(256))
_ADDRESS = bytes(code in _LETTERS + b"._%+-@" for code in range(256))


class _Join:
    """A table of hashes per length, and the numbers of the values that have each."""

    def __init__(self, values: Mapping[int, bytes]) -> None:
        by_length: dict[int, list[int]] = {}
        for number, data in values.items():
            by_length.setdefault(len(data), []).append(number)
        self._tables: dict[int, tuple[_Words, Table, npt.NDArray[np.bool_]]] = {}
        for length, numbers in by_length.items():
            body = b"".join(values[n] for n in numbers) + bytes(8)
            keys = _hashes(body, np.arange(len(numbers), dtype=np.int64) * length, length)
            order = np.argsort(keys, kind="stable")
            known = np.zeros(1 << 16, dtype=bool)
            known[keys >> np.uint64(48)] = True
            self._tables[length] = keys[order], np.array(numbers, np.int64)[order], known
        self._wanted = np.zeros(max(by_length) + 2, dtype=bool)
        self._wanted[list(by_length)] = True

    def __call__(self, body: bytes, begin: Table, end: Table) -> Iterator[tuple[int, int, int]]:
        """Number, start and end of the candidates whose hash is known; they may still differ."""
        sizes = np.minimum(end - begin, len(self._wanted) - 1)
        sought = self._wanted[sizes]
        begin, sizes = begin[sought], sizes[sought]
        for length, (keys, numbers, known) in self._tables.items():
            at = begin[sizes == length]
            if not len(at):
                continue
            hashes = _hashes(body, at, length)
            likely = known[hashes >> np.uint64(48)]
            at, hashes = at[likely], hashes[likely]
            low = np.searchsorted(keys, hashes, side="left")
            high = np.searchsorted(keys, hashes, side="right")
            for i in np.flatnonzero(high > low).tolist():
                for number in numbers[low[i] : high[i]].tolist():
                    yield number, int(at[i]), int(at[i]) + length


def _hashes(body: bytes, at: Table, length: int) -> _Words:
    """A 64-bit hash of `length` bytes (8 at least) at each place, letters folded."""
    words: _Words = np.ndarray((max(len(body) - 7, 0),), np.uint64, body, strides=(1,))
    found = np.full(len(at), length, np.uint64)
    for offset in (*range(0, length - 8, 8), length - 8):
        found = (found ^ (words[at + offset] | _FOLD)) * _ODD
        found ^= found >> np.uint64(29)
    return found * _ODD


def _runs(mask: npt.NDArray[np.bool_]) -> tuple[Table, Table]:
    """Begin and end of every run of true."""
    edges = np.flatnonzero(mask[1:] != mask[:-1]) + 1
    if len(mask) and mask[0]:
        edges = np.concatenate([[0], edges])
    if len(edges) % 2:
        edges = np.concatenate([edges, [len(mask)]])
    return edges[0::2], edges[1::2]


def _grouped(codes: _Bytes, starts: Table, ends: Table) -> tuple[Table, Table]:
    """Runs of digits that stand in the usual groups, one blank or hyphen between."""
    near = np.zeros(len(starts), dtype=bool)  # whether the next run follows after a single separator
    near[:-1] = starts[1:] == ends[:-1] + 1
    signs = codes[np.minimum(ends, len(codes) - 1)]
    near &= (signs == ord(" ")) | (signs == ord("-"))
    sizes = ends - starts
    begin, end = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for group in _GROUPS:
        room = max(0, len(near) - len(group) + 1)  # how many runs have enough others behind them
        first = np.flatnonzero(near[:room] & (sizes[:room] == group[0]))
        for n, size in enumerate(group[1:], 1):
            first = first[sizes[first + n] == size]
            first = first[near[first + n - 1] & (signs[first + n - 1] == signs[first])]
        last = ends[first + len(group) - 1]
        if group == (6, 8, 3):
            fits = (last < len(codes)) & ((codes[np.minimum(last, len(codes) - 1)] | 0x20) == ord("x"))
            first, last = first[fits], last[fits] + 1
        begin.append(starts[first])
        end.append(last)
    return np.concatenate(begin), np.concatenate(end)


class Numbers:
    """Numbers of 8 bytes, little- and big-endian, at any offset."""

    def __init__(self, wanted: Mapping[int, bytes]) -> None:
        self._keys = np.array([int.from_bytes(data, "little") for data in wanted.values()], np.uint64)
        order = np.argsort(self._keys, kind="stable")
        self._numbers, self._keys = np.array(list(wanted), np.int64)[order], self._keys[order]
        # Which first and last two bytes there are: the cheapest question that most places answer with no.
        self._low, self._high = np.zeros(1 << 16, dtype=bool), np.zeros(1 << 16, dtype=bool)
        self._low[self._keys & np.uint64(0xFFFF)] = True
        self._high[self._keys >> np.uint64(48)] = True
        self._first = np.unique(self._keys & np.uint64(0xFF)).astype(np.uint8)
        self._last = np.unique(self._keys >> np.uint64(56)).astype(np.uint8)

    def __call__(self, body: bytes) -> Table:
        """Every place where one of the numbers stands."""
        if not len(self._keys) or len(body) < 8:
            return np.empty((0, 3), np.int64)
        codes = np.frombuffer(body, np.uint8)
        words: _Words = np.ndarray((len(body) - 7,), np.uint64, body, strides=(1,))
        # Numbers of people leave a byte of zero at one end: text has none.
        at = self._places(codes)
        values = words[at]
        sound = self._high[values >> np.uint64(48)] & self._low[values & np.uint64(0xFFFF)]
        at, values = at[sound], values[sound]
        low, high = (np.searchsorted(self._keys, values, side=side) for side in ("left", "right"))
        rows = [
            (number, start, start + 8)
            for i, start in ((i, int(at[i])) for i in np.flatnonzero(high > low).tolist())
            for number in self._numbers[low[i] : high[i]].tolist()
        ]
        return np.array(rows, dtype=np.int64).reshape(-1, 3)

    def _places(self, codes: _Bytes) -> Table:
        side, ends = min(((0, self._first), (7, self._last)), key=lambda pair: len(pair[1]))
        there = codes[side : len(codes) - 7 + side]
        mask = there == ends[0]
        for one in ends[1:]:
            mask |= there == one
        return np.flatnonzero(mask)

"""Parquet's bloom filters: does one remember a value that its column no longer holds?

A filter answers "never" or "perhaps", and "perhaps" of some values that were never there (of one in a hundred, as most
are written). Who was erased and is asked for may be one of these by chance, so an answer alone is no finding. But a
filter holds nothing except bits, and its column is there: a filter made of what stands in the column has no bit that
no value of the column sets. So for every "perhaps" the column is read, and the answer is one of

* *explained*: values that stand in the column set every bit that was asked for. The filter knows nothing more.
* *remembered*: bits are set that no value of the column sets. The filter was made when other values stood there (an old
  filter under new rows) and does not exclude this one: a hit.
* neither, where the column cannot be read: then the chunk is not examinable.

Split block filters with XXH64, as parquet-format's BloomFilter.md has them; there are no others in Parquet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fangxin.checks.residue.containers.piece import NotExaminable
from fangxin.data.columnar import thrift

PROBE = "parquet:bloom-probe"  # the label of what a filter remembers
TEXTS = frozenset({"byte_array", "fixed_len_byte_array"})
NUMBERS = {"int64": "<i8", "int32": "<i4", "double": "<f8", "float": "<f4"}
_SALT = np.array(
    [0x47B6137B, 0x44974D91, 0x8824AD5B, 0xA2B7289D, 0x705495C7, 0x2DF1424B, 0x9EFC4947, 0x5C6BFB31], np.uint32
)
_Hashes = npt.NDArray[np.uint64]
_Words = npt.NDArray[np.uint32]


class Probes:
    """Values to ask filters for, each with the numbers of the needles that a hit is counted for."""

    def __init__(self, values: Mapping[str, Iterable[int]]) -> None:
        """`values`: as people write them; those that are numbers are asked for in columns of numbers too."""
        self.needles: Sequence[tuple[int, ...]] = [tuple(numbers) for numbers in values.values()]
        self._values = list(values)

    def __len__(self) -> int:
        return len(self._values)

    @cached_property
    def _texts(self) -> tuple[_Hashes, npt.NDArray[np.int64]]:
        found = hashes(pa.array([text.encode("utf-8", "surrogatepass") for text in self._values], pa.large_binary()))
        return found, np.arange(len(self._values))

    @cached_property
    def _numbers(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The values that are whole numbers as a column keeps them, and which of the values they are."""
        which = [n for n, text in enumerate(self._values) if text.isascii() and text.isdigit() and len(text) < 19]
        return np.array([int(self._values[n]) for n in which], np.int64), np.array(which, np.int64)

    def of(self, physical: str) -> tuple[_Hashes, npt.NDArray[np.int64]]:
        """The hashes of what can stand in a column of this physical type, and which of the values each is."""
        if physical in TEXTS:
            return self._texts
        numbers, which = self._numbers
        kind = NUMBERS.get(physical)
        if kind is None:
            return np.zeros(0, np.uint64), which[:0]
        same = numbers.astype(kind)
        fits = same.astype(np.int64) == numbers
        return hashes(_plain(pa.array(same[fits])) or pa.array([], pa.large_binary())), which[fits]


@dataclass(frozen=True)
class Answer:
    """What one filter said: of `asked` values it does not exclude `perhaps`, which the column explains or does not.

    `by_chance`: how many of so many values it would not exclude if none of them had ever been there; from its own bits.
    `remembered`: which of the probes it remembers.
    """

    container: str
    column: str
    offset: int
    asked: int
    perhaps: int
    explained: int
    by_chance: float
    remembered: tuple[int, ...] = field(repr=False)

    @property
    def unread(self) -> int:
        """Values it does not exclude of which nothing can be told, for the column cannot be read."""
        return self.perhaps - self.explained - len(self.remembered)


class Filter:
    """The bits of one filter."""

    def __init__(self, data: bytes) -> None:
        """`data` begins with the filter's header. Raises NotExaminable for what is none, or of another kind."""
        header, begin = thrift.read(data, 0)
        size = thrift.get(header, 1)
        if not isinstance(size, int) or size <= 0 or size % 32 or begin + size > len(data):
            raise NotExaminable("a bloom filter's header is none")
        for number, what in ((2, "algorithm"), (3, "hash"), (4, "compression")):
            chosen = thrift.get(header, number)
            if isinstance(chosen, list) and thrift.get(chosen, 1) is None:
                raise NotExaminable(f"a bloom filter has an {what} that is not known here")
        self.blocks: _Words = np.frombuffer(data, "<u4", size // 4, begin).reshape(-1, 8)

    def places(self, found: _Hashes) -> tuple[npt.NDArray[np.int64], _Words]:
        """The block of each hash, and the bit it sets in each of the block's eight words."""
        block = ((found >> np.uint64(32)) * np.uint64(len(self.blocks)) >> np.uint64(32)).astype(np.int64)
        low = (found & np.uint64(0xFFFFFFFF)).astype(np.uint32)
        return block, np.uint32(1) << (low[:, None] * _SALT >> np.uint32(27))

    def perhaps(self, found: _Hashes) -> npt.NDArray[np.int64]:
        """Which of the hashes the filter does not exclude."""
        block, bits = self.places(found)
        return np.flatnonzero((self.blocks[block] & bits == bits).all(axis=1))

    @cached_property
    def by_chance(self) -> float:
        """The share of values that were never there which it does not exclude: each word of a block by its set bits."""
        ones = np.unpackbits(self.blocks.view(np.uint8).reshape(-1, 8, 4), axis=2).sum(axis=2)
        return float((ones / 32).prod(axis=1).mean())

    def explained(self, found: _Hashes, column: Iterable[pa.Array]) -> npt.NDArray[np.bool_]:
        """For which of the hashes every bit is one that a value of the column sets.

        Raises NotExaminable where the values cannot be had as the filter got them.
        """
        block, bits = self.places(found)
        mine = np.unique(block)
        seen = np.zeros((len(mine), 8), np.uint32)
        for part in column:
            values = _plain(part)
            if values is None:
                raise NotExaminable(f"values of type {part.type} cannot be hashed here")
            theirs, set_by = self.places(hashes(values))
            at = np.searchsorted(mine, theirs)
            here = np.flatnonzero(mine[np.minimum(at, len(mine) - 1)] == theirs)
            np.bitwise_or.at(seen, at[here], set_by[here])
        answer: npt.NDArray[np.bool_] = (seen[np.searchsorted(mine, block)] & bits == bits).all(axis=1)
        return answer


def asked(data: bytes, probes: Probes, physical: str) -> tuple[Filter, _Hashes, npt.NDArray[np.int64], int]:
    """The filter, the hashes it does not exclude, which probes they are, and how many it was asked for."""
    filter_ = Filter(data)
    found, which = probes.of(physical)
    perhaps = filter_.perhaps(found)
    return filter_, found[perhaps], which[perhaps], len(found)


def leaves(array: pa.Array) -> Iterator[pa.Array]:
    """The plain values in an array of one column, however deep they are nested; nulls are in no filter."""
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        yield from leaves(array.storage)
    elif isinstance(array, pa.DictionaryArray):
        yield from leaves(array.dictionary_decode())
    elif pa.types.is_struct(kind):
        for part in array.flatten():
            yield from leaves(part)
    elif pa.types.is_map(kind):
        yield from leaves(array.keys)
        yield from leaves(array.items)
    elif pa.types.is_nested(kind):
        yield from leaves(array.flatten())
    else:
        yield array.drop_null()


def _plain(values: pa.Array) -> pa.Array | None:
    """Values as the bytes that a writer hashes (Parquet's plain encoding without lengths); None for other types."""
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return values.cast(pa.large_string()).view(pa.large_binary())
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return values.cast(pa.large_binary())
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_temporal(kind):
        if kind.bit_width < 32:
            values = values.cast(pa.int32())
        elif kind.bit_width > 64:
            return None
        data = np.frombuffer(values.buffers()[1] or b"", np.uint8)
        width = values.type.bit_width // 8
        data = data[values.offset * width : (values.offset + len(values)) * width]
        ends = pa.array(np.arange(len(values) + 1, dtype=np.int64) * width)
        return pa.LargeBinaryArray.from_buffers(
            pa.large_binary(), len(values), [None, ends.buffers()[1], pa.py_buffer(data.tobytes())]
        )
    return None


# ---------------------------------------------------------------- XXH64

_P1, _P2, _P3 = (np.uint64(n) for n in (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9))
_P4, _P5 = np.uint64(0x85EBCA77C2B2AE63), np.uint64(0x27D4EB2F165667C5)


def hashes(values: pa.Array) -> _Hashes:
    """XXH64 with seed 0 of each value of a large_binary array (xxHash's specification, section "XXH64 algorithm")."""
    _nulls, ends, body = values.buffers()
    offsets = np.frombuffer(ends, np.int64)[values.offset : values.offset + len(values) + 1] if ends else np.zeros(1)
    starts, sizes = offsets[:-1].astype(np.int64), np.diff(offsets).astype(np.int64)
    data = np.frombuffer(body or b"", np.uint8)
    found = np.zeros(len(values), np.uint64)
    with np.errstate(over="ignore"):
        for size in np.unique(sizes).tolist():
            same = np.flatnonzero(sizes == size)
            most = max(1, (4 << 20) // max(size, 1))  # of long ones few at a time
            for at in range(0, len(same), most):
                rows = same[at : at + most]
                found[rows] = _hashed(data[starts[rows][:, None] + np.arange(size)])
    return found


def _hashed(rows: npt.NDArray[np.uint8]) -> _Hashes:
    """The hashes of values that are equally long, a row each."""
    count, end = rows.shape
    at = 0
    if end >= 32:
        lanes = [np.full(count, seed, np.uint64) for seed in (_P1 + _P2, _P2, np.uint64(0), np.uint64(0) - _P1)]
        while at + 32 <= end:
            lanes = [_round(lane, _word(rows, at + 8 * i, 8)) for i, lane in enumerate(lanes)]
            at += 32
        found = np.zeros(count, np.uint64)
        for lane, by in zip(lanes, (1, 7, 12, 18), strict=True):
            found = found + _turned(lane, by)
        for lane in lanes:
            found = (found ^ _round(np.uint64(0), lane)) * _P1 + _P4
    else:
        found = np.full(count, _P5, np.uint64)
    found = found + np.uint64(end)
    while at + 8 <= end:
        found = _turned(found ^ _round(np.uint64(0), _word(rows, at, 8)), 27) * _P1 + _P4
        at += 8
    if at + 4 <= end:
        found = _turned(found ^ _word(rows, at, 4) * _P1, 23) * _P2 + _P3
        at += 4
    while at < end:
        found = _turned(found ^ rows[:, at].astype(np.uint64) * _P5, 11) * _P1
        at += 1
    found = (found ^ found >> np.uint64(33)) * _P2
    found = (found ^ found >> np.uint64(29)) * _P3
    answer: _Hashes = found ^ found >> np.uint64(32)
    return answer


def _word(rows: npt.NDArray[np.uint8], at: int, width: int) -> _Hashes:
    return np.ascontiguousarray(rows[:, at : at + width]).view(f"<u{width}")[:, 0].astype(np.uint64)


def _round(lane: _Hashes | np.uint64, word: _Hashes) -> _Hashes:
    return _turned(lane + word * _P2, 31) * _P1


def _turned(word: _Hashes, by: int) -> _Hashes:
    return word << np.uint64(by) | word >> np.uint64(64 - by)

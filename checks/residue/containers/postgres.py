"""PostgreSQL's own files, page by page and without its catalog: relations, TOAST, and the write-ahead log.

* `postgres:compressed`: values that were packed inside a row (pglz, lz4), unpacked; from dead rows too, as long as
  their bytes stand. `postgres:toast`: values that lie out of line, joined from their chunks, unpacked.
* `postgres:wal`: the log without its page headers, so that a record is whole; `postgres:image`: pages that it packed.
* Pages themselves are `raw`: text and numbers of up to 2 kB or so lie in rows as they are. Logs of statements are text.

Layouts: storage/bufpage.h, access/htup_details.h, varatt.h, common/pg_lzcompress.c, access/xlogrecord.h of PostgreSQL
13 to 18. A server that runs changes its files while they are read: scan one that is stopped, or a base backup.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import numpy as np

from fangxin.checks.residue.containers.piece import Piece, Place, Readable, Spans, inside

if TYPE_CHECKING:
    from fangxin.checks.residue.carve import Walk

PAGE = 8192
HELD = 64 << 20  # bytes of out-of-line chunks that wait for their neighbours


def is_relation(file: Readable) -> bool:
    """Whether a file consists of pages of 8 KiB whose headers are PostgreSQL's; empty pages may come first."""
    if file.size < PAGE or file.size % PAGE:
        return False
    for at in range(0, min(file.size, 16 * PAGE), PAGE):
        head = file.at(at, 24)
        if any(head):
            lower, upper, special, layout = struct.unpack_from("<4H", head, 12)
            return bool(layout == 0x2004 and 24 <= lower <= upper <= special <= PAGE)
    return False


def relation(walk: Walk, place: Place) -> Generator[Piece, None, Spans]:
    """Unpack what the pages of a relation hold packed or out of line; their plain bytes are searched as they lie.

    Containers in values are opened where a value is whole, in line or joined: a chunk holds part of one only.
    """
    label, held = inside(place.label, "postgres"), _Chunks(walk, inside(place.label, "postgres:toast"), place.depth)
    step = 128 * PAGE
    for at in range(0, place.file.size, step):
        data = place.file.at(at, step)
        yield from _compressed(walk, data, (0,), label, place.depth, at)
        known = held.count
        yield from held.take(data)
        if held.count == known:
            values = walk.leaf(data, f"{label}:value", "", place.depth, at)
            next(values)  # the stretch itself: the raw search has it
            yield from values
    yield from held.rest()
    return [(0, place.file.size)]


# ---------------------------------------------------------------- values


def _compressed(
    walk: Walk, data: bytes, phases: tuple[int, ...], label: str, depth: int, offset: int = 0
) -> Iterator[Piece]:
    """Every value packed in line: a header that says so, its length, the unpacked length, and a body that unpacks."""
    for phase in phases:
        words = np.frombuffer(data, "<u4", max(0, (len(data) - phase) // 4), phase).astype(np.int64)
        length, plain, method = words[:-1] >> 2, words[1:] & 0x3FFFFFFF, words[1:] >> 30
        likely = (words[:-1] & 3 == 2) & (length > 12) & (length <= PAGE) & (method < 2)
        likely &= (plain >= length - 8) & (plain < 255 * length)
        for at in (np.flatnonzero(likely) * 4 + phase).tolist():
            size = int.from_bytes(data[at : at + 4], "little") >> 2
            value = _unpacked(data[at + 4 : at + size])
            if value is not None and at + size <= len(data):
                walk.spend(len(value))
                yield from walk.leaf(value, f"{label}:compressed", "", depth, offset + at)


def _unpacked(data: bytes) -> bytes | None:
    """A packed value behind the word that says how long it was and who packed it; None where that is no such value."""
    word = int.from_bytes(data[:4], "little")
    size = word & 0x3FFFFFFF
    if len(data) < 8 or size > 255 * len(data):
        return None
    if word >> 30 == 0:
        return pglz(data[4:], size)
    if word >> 30 == 1:
        import lz4.block

        try:
            plain = bytes(lz4.block.decompress(data[4:], uncompressed_size=size))
        except lz4.block.LZ4BlockError:
            return None
        return plain if len(plain) == size else None
    return None


def pglz(data: bytes, size: int) -> bytes | None:
    """Unpack PostgreSQL's own format to exactly `size` bytes; None where it is not that."""
    out, at, end = bytearray(), 0, len(data)
    while at < end and len(out) < size:
        flags = data[at]
        at += 1
        for bit in range(8):
            if at >= end or len(out) >= size:
                break
            if not flags >> bit & 1:
                out.append(data[at])
                at += 1
                continue
            if at + 1 >= end:
                return None
            length, back = (data[at] & 0x0F) + 3, (data[at] & 0xF0) << 4 | data[at + 1]
            at += 2
            if length == 18:
                if at >= end:
                    return None
                length += data[at]
                at += 1
            if not 0 < back <= len(out):
                return None
            for _ in range(length):
                out.append(out[-back])
    return bytes(out) if len(out) == size and at == end else None


class _Chunks:
    """Chunks of values that lie out of line, by value; joined when all are there, or as far as they are at the end."""

    def __init__(self, walk: Walk, label: str, depth: int) -> None:
        self._walk, self._label, self._depth = walk, label, depth
        self._values: dict[int, dict[int, bytes]] = {}
        self._size = self.count = 0

    def take(self, data: bytes) -> Iterator[Piece]:
        """Collect the chunks of some pages: rows of three columns (value, number, bytes), living or dead."""
        codes = np.frombuffer(data, np.uint8)
        at = np.arange(0, max(0, len(data) - 40), 8)
        likely = (codes[at + 22] == 24) & (codes[at + 18] == 3) & (codes[at + 19] & 0x07 == 0)
        yield from self._at(data, (at[likely] + 24).tolist())

    def take_logged(self, data: bytes) -> Iterator[Piece]:
        """Collect the chunks that records of the log insert: of a row's header they keep five bytes."""
        yield from self._at(data, [found.end() for found in re.finditer(rb"\x03\x00..\x18\x00", data, re.DOTALL)])

    def _at(self, data: bytes, begins: list[int]) -> Iterator[Piece]:
        for begin in begins:
            if begin + 12 > len(data):
                continue
            value, number, word = struct.unpack_from("<IiI", data, begin)
            if word & 3 == 0 and 4 < word >> 2 <= 2048:
                chunk = data[begin + 12 : begin + 8 + (word >> 2)]
            elif word & 1 and (word & 0xFF) >> 1 > 1:
                chunk = data[begin + 9 : begin + 8 + ((word & 0xFF) >> 1)]
            else:
                continue
            if value and 0 <= number < 1 << 20:
                self._values.setdefault(value, {})[number] = chunk
                self._size += len(chunk)
                self.count += 1
        if self._size > HELD:
            yield from self.rest()

    def rest(self) -> Iterator[Piece]:
        """Hand out what has come together."""
        for chunks in self._values.values():
            run, previous = list[bytes](), -1
            for number in [*sorted(chunks), None]:
                if number is None or (run and number != previous + 1):
                    yield from self._joined(b"".join(run))
                    run = []
                if number is not None:
                    run.append(chunks[number])
                    previous = number
        self._values, self._size = {}, 0

    def _joined(self, data: bytes) -> Iterator[Piece]:
        plain = _unpacked(data)
        data = data if plain is None else plain
        self._walk.spend(len(data))
        yield from self._walk.leaf(data, self._label, "", self._depth)


# ---------------------------------------------------------------- the write-ahead log


def is_wal(file: Readable) -> bool:
    """Whether a file begins with the long page header of a segment (its pages are 8 KiB, its size is told)."""
    head = file.at(0, 40)
    if len(head) < 40 or head[1] != 0xD1 or not head[2] & 2:
        return False
    segment, block = struct.unpack_from("<II", head, 32)
    return block == PAGE and segment in (1 << n for n in range(20, 31))


def wal(walk: Walk, place: Place) -> Generator[Piece, None, Spans]:
    """Join the records of a segment, and unpack the pages and values in them."""
    label, file = inside(place.label, "postgres"), place.file
    step = 256 * PAGE
    tail, held = b"", _Chunks(walk, f"{label}:toast", place.depth)
    for at in range(0, file.size, step):
        data = tail + _without_headers(file.at(at, step), first=at == 0)
        yield Piece(f"{label}:wal", "", data)
        yield from walk.guarded(_compressed(walk, data, (0, 1, 2, 3), label, place.depth), f"{label}:compressed")
        yield from walk.guarded(_images(walk, data, label, place.depth), f"{label}:image")
        yield from walk.guarded(held.take_logged(data), f"{label}:toast")
        tail = data[-4 * PAGE :]  # a record that goes on, with its pages
    yield from held.rest()
    return [(0, file.size)]


def _without_headers(data: bytes, *, first: bool) -> bytes:
    parts = []
    for at in range(0, len(data), PAGE):
        long = data[at + 2 : at + 3] >= b"\2" and data[at + 2] & 2 and first and at == 0
        parts.append(data[at + (40 if long else 24) : at + PAGE])
    return b"".join(parts)


def _images(walk: Walk, data: bytes, label: str, depth: int) -> Iterator[Piece]:
    """Pages that records hold packed: found by the header of their block, whatever record they are in."""
    codes = np.frombuffer(data, np.uint8)
    # A block header: its number, flags with an image, length of data; length, hole and kind of the image.
    at = np.arange(max(0, len(codes) - 16))
    likely = (codes[at] <= 32) & (codes[at + 1] & 0x10 > 0) & (codes[at + 1] & 0x0F <= 3)
    likely &= (codes[at + 8] & 0x1C > 0) & (codes[at + 8] & 0xE0 == 0)
    for begin in at[likely].tolist():
        length, hole, kind = struct.unpack_from("<HHB", data, begin + 4)
        if not 16 < length < PAGE or hole >= PAGE:
            continue
        gone = struct.unpack_from("<H", data, begin + 9)[0] if kind & 1 else 0
        plain = _image(data, begin, length, kind, PAGE - gone) if gone < PAGE else None
        if plain is not None:
            page = plain[:hole] + bytes(gone) + plain[hole:] if kind & 1 else plain
            walk.spend(PAGE)
            yield from walk.leaf(page, f"{label}:image", "", depth)
            yield from _compressed(walk, page, (0,), label, depth)


def _image(data: bytes, begin: int, length: int, kind: int, size: int) -> bytes | None:
    """The image whose block header lies at `begin`: its body follows the rest of the record's headers."""
    at = begin + 9 + 2 * (kind & 1) + (0 if data[begin + 1] & 0x80 else 12) + 4
    for skipped in range(64):  # headers of other blocks and of the main data come first
        body = data[at + skipped : at + skipped + length]
        if kind & 0x04:
            plain = pglz(body, size)
        elif kind & 0x08:
            plain = _unpacked((size | 1 << 30).to_bytes(4, "little") + body)
        else:
            plain = _zstd(body, size)
        if plain is not None and _is_page(plain, size):
            return plain
    return None


def _zstd(body: bytes, size: int) -> bytes | None:
    import zstandard

    if body[:4] != b"\x28\xb5\x2f\xfd":
        return None
    try:
        return zstandard.ZstdDecompressor().decompress(body, max_output_size=size)
    except zstandard.ZstdError:
        return None


def _is_page(plain: bytes, size: int) -> bool:
    return len(plain) == size and plain[18:20] == b"\x04\x20"

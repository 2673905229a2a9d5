"""Compressed streams: gzip, zlib, bz2, xz, lzma, zstd, lz4 and snappy, whole, cut short, joined, at any offset.

The label is the codec's name. Streams that follow each other are one (a value may begin in one frame and end in the
next). What could be decoded before an error or the end of the file is searched, and the rest is said to be missing.
Bare blocks of lz4 and snappy bear no mark: they are recognised where one is all of a file, by its announced length.
"""

from __future__ import annotations

import bz2 as _bz2
import io
import lzma as _lzma
import zlib as _zlib
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Protocol

import lz4.block as _block
import lz4.frame as _frame
import pyarrow as pa
import zstandard

from fangxin.checks.residue.containers.piece import (
    MIB,
    InMemory,
    NotExaminable,
    Piece,
    Place,
    Readable,
    Reader,
    Slice,
    Spans,
    inside,
)

if TYPE_CHECKING:
    from fangxin.checks.residue.carve import Walk

READ = 256 << 10
CUT = "cut short: the stream ends before its end mark"
MEMORY = 256 * MIB  # what a decoder may hold to look back at: a file that asks for more is not examinable


class _Decoder(Protocol):
    """What the decoders of bz2, lzma and lz4 have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes | None: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


# ---------------------------------------------------------------- deflate


def gzip(walk: Walk, place: Place) -> Generator[Piece, None, Spans]:
    """Open gzip members that follow each other."""
    meant = _is_a_header(place.bytes(10))
    ends: list[int] = []
    stream = inflated(walk, place.file, place.at, _zlib.MAX_WBITS | 16, ends)
    label = inside(place.label, "gzip")
    yield from walk.unpacked(stream, label, place.depth, sure=place.sure, chance=1 if meant else 4096)
    return [(place.at, ends[-1])] if ends else ()


def _is_a_header(head: bytes) -> bool:
    """Whether ten bytes are a header that is meant: flags that exist, a compression mark and a system that do."""
    return len(head) == 10 and not head[3] & 0xE0 and head[8] in (0, 2, 4) and head[9] in (*range(14), 255)


def is_gzip(data: bytes, at: int) -> bool:
    """Whether a member may begin here: known flags, and deflate that makes sense as far as it is seen."""
    if not at and _is_a_header(data[:10]):
        return True  # a file that begins so is one, whatever became of the rest
    flags = data[at + 3 : at + 4]
    if not flags or flags[0] & 0xE0:
        return len(data) < at + 4
    return _inflates(data[at : at + 512], _zlib.MAX_WBITS | 16)


def zlib(walk: Walk, place: Place) -> Generator[Piece, None, Spans]:
    """Open one zlib stream."""
    if not _is_meant(place.bytes(64 << 10)):
        return ()
    ends: list[int] = []
    stream = inflated(walk, place.file, place.at, _zlib.MAX_WBITS, ends)
    yield from walk.unpacked(stream, inside(place.label, "zlib"), place.depth, sure=False)
    return [(place.at, ends[-1])] if ends else ()


def is_zlib(data: bytes, at: int) -> bool:
    """Whether deflate that makes sense follows; the first block's type alone sorts out much of what does not."""
    if len(data) < at + 8:
        return False
    first = data[at + 2]
    if first & 6 == 6 or (first & 6 == 4 and (first >> 3 > 29 or data[at + 3] & 31 > 29)):
        return False
    return _inflates(data[at : at + 512], _zlib.MAX_WBITS)


def is_narrow_zlib(file: Readable) -> bool:
    """Whether all of it may be a stream that looks back less than 32 KiB; too short a mark to look for everywhere."""
    head = file.at(0, 512)
    if len(head) < 8 or head[0] & 15 != 8 or head[0] >> 4 > 6 or head[1] & 32 or (head[0] << 8 | head[1]) % 31:
        return False
    return is_zlib(head, 0)


def _is_meant(packed: bytes) -> bool:
    """Whether somebody packed this: a run of one byte behind a mark by chance decodes, but packs far better.

    A first block that is stored says its length twice; one that ends here has a checksum.
    """
    machine = _zlib.decompressobj()
    try:
        plain = machine.decompress(packed, MIB)
    except _zlib.error:  # cut or damaged further on: as far as it makes sense
        machine, plain = _zlib.decompressobj(), b""
        for at in range(0, len(packed), 64):
            try:
                plain += machine.decompress(packed[at : at + 64], MIB)
            except _zlib.error:
                packed = packed[:at]
                break
            if len(plain) > MIB:
                packed = packed[: at + 64]
                break
    used = len(packed) - len(machine.unconsumed_tail)
    return machine.eof or packed[2] & 6 == 0 or 8 * len(_zlib.compress(plain)) >= used


def _inflates(data: bytes, window: int) -> bool:
    try:
        _zlib.decompressobj(window).decompress(data, 4096)
    except _zlib.error as why:
        return "check" in str(why)  # all of it made sense; only its checksum or length is another
    return True


def inflated(walk: Walk, file: Readable, at: int, window: int, ends: list[int]) -> Iterator[bytes]:
    """Decode deflate from `at` on, gzip members one after the other; `ends` collects where each ended."""
    while True:
        machine, packed = _zlib.decompressobj(window), b""
        while not machine.eof:
            if not packed:
                packed = file.at(at, READ)
                at += len(packed)
            before = machine.copy()
            try:
                plain = machine.decompress(packed, walk.limits.chunk)
            except _zlib.error:
                yield _before_the_damage(before, packed)
                raise
            if not packed and not plain and not machine.eof:  # nothing left, neither outside nor inside
                raise NotExaminable(CUT)
            packed = machine.unconsumed_tail
            if plain:
                yield plain
        at -= len(machine.unused_data)
        ends.append(at)
        if window != _zlib.MAX_WBITS | 16 or file.at(at, 3) != b"\x1f\x8b\x08":
            return


def _before_the_damage(machine: _zlib._Decompress, packed: bytes) -> bytes:
    """What can be decoded of a piece up to where it is damaged."""
    plain = bytearray()
    for at in range(len(packed)):
        try:
            plain += machine.decompress(packed[at : at + 1], MIB)
        except _zlib.error:
            break
    return bytes(plain)


# ---------------------------------------------------------------- decoders that work alike


def bz2(walk: Walk, place: Place) -> Generator[Piece, None, Spans]:
    """Open bz2 streams that follow each other."""
    return (yield from _opened(walk, place, "bz2", _bz2.BZ2Decompressor, b"BZh"))


def is_bz2(data: bytes, at: int) -> bool:
    """Whether the header of a stream stands before the mark of a block."""
    return at >= 0 and data[at : at + 3] == b"BZh" and 0x31 <= data[at + 3] <= 0x39


def xz(walk: Walk, place: Place) -> Generator[Piece, None, Spans]:
    """Open xz streams that follow each other, with the zeros between them."""
    return (yield from _opened(walk, place, "xz", lambda: _lzma.LZMADecompressor(memlimit=MEMORY), b"\xfd7zXZ\0"))


def lzma(walk: Walk, place: Place) -> Generator[Piece, None, Spans]:
    """Open a stream of the format that xz followed."""
    made = lambda: _lzma.LZMADecompressor(_lzma.FORMAT_ALONE, memlimit=MEMORY)  # noqa: E731
    return (yield from _opened(walk, place, "lzma", made, None))


def is_lzma(data: bytes, at: int) -> bool:
    """Whether the dictionary has a usual size, the length is unknown or below a TiB, and the coder begins with zero."""
    size = int.from_bytes(data[at + 1 : at + 5], "little")
    rest = size & (size - 1)  # without its lowest bit
    if rest and rest != (size & -size) << 1:
        return False  # neither a power of two nor three halves of one
    length = int.from_bytes(data[at + 5 : at + 13], "little")
    return data[at + 13 : at + 14] == b"\0" and (length == (1 << 64) - 1 or 0 < length < 1 << 40)


def lz4(walk: Walk, place: Place) -> Generator[Piece, None, Spans]:
    """Open lz4 frames that follow each other."""
    return (yield from _opened(walk, place, "lz4", _frame.LZ4FrameDecompressor, b"\x04\x22\x4d\x18"))


def _opened(
    walk: Walk, place: Place, name: str, make: Callable[[], _Decoder], again: bytes | None
) -> Generator[Piece, None, Spans]:
    ends: list[int] = []
    stream = decoded(walk, place.file, place.at, make, again, ends)
    yield from walk.unpacked(stream, inside(place.label, name), place.depth, sure=place.sure, chance=1)
    return [(place.at, ends[-1])] if ends else ()


def decoded(
    walk: Walk, file: Readable, at: int, make: Callable[[], _Decoder], again: bytes | None, ends: list[int]
) -> Iterator[bytes]:
    """Decode a stream from `at` on, and others that begin with `again` behind it; `ends` collects where each ended."""
    while True:
        machine = make()
        while not machine.eof:
            packed = b""
            if machine.needs_input:
                packed = file.at(at, READ)
                at += len(packed)
            plain = machine.decompress(packed, walk.limits.chunk)
            if plain:
                yield plain
            elif machine.needs_input and not packed and not machine.eof:
                raise NotExaminable(CUT)
        at -= len(machine.unused_data or b"")
        ends.append(at)
        if again is None:
            return
        while again[:1] != b"B" and file.at(at, 4) == b"\0\0\0\0":  # padding of xz
            at += 4
        if file.at(at, len(again)) != again:
            return


# ---------------------------------------------------------------- zstd


def zstd(walk: Walk, place: Place) -> Generator[Piece, None, Spans]:
    """Open zstd frames that follow each other; skippable frames between them are searched raw only."""
    ends: list[int] = []
    stream = zstd_frames(walk, place.file, place.at, ends)
    yield from walk.unpacked(stream, inside(place.label, "zstd"), place.depth, sure=place.sure, chance=1)
    return [(place.at, ends[-1])] if ends else ()


def zstd_frames(walk: Walk, file: Readable, at: int, ends: list[int]) -> Iterator[bytes]:
    """Decode frames from `at` on; `ends` collects where each ended."""
    while True:
        end, whole = _zstd_end(file, at)
        machine = zstandard.ZstdDecompressor(max_window_size=MEMORY // 2)
        with machine.stream_reader(io.BufferedReader(Reader(Slice(file, at, end - at)), READ), read_size=READ) as frame:
            while plain := frame.read(walk.limits.chunk):
                yield plain
        if not whole:
            raise NotExaminable(CUT)
        ends.append(end)
        at = end
        while file.at(at + 1, 3) == b"\x2a\x4d\x18" and file.at(at, 1)[0] & 0xF0 == 0x50:
            at += 8 + int.from_bytes(file.at(at + 4, 4), "little")
        if file.at(at, 4) != b"\x28\xb5\x2f\xfd":
            return


def _zstd_end(file: Readable, at: int) -> tuple[int, bool]:
    """Where a frame ends, and whether all of it is there: from the sizes of its blocks (RFC 8878, 3.1.1)."""
    mark = file.at(at + 4, 1)
    if not mark:
        return file.size, False
    one_segment = mark[0] >> 5 & 1
    end = at + 5 + (not one_segment) + (0, 1, 2, 4)[mark[0] & 3] + ((one_segment, 2, 4, 8)[mark[0] >> 6])
    last = 0
    while not last:
        head = int.from_bytes(file.at(end, 3), "little")
        last, kind, size = head & 1, head >> 1 & 3, head >> 3
        end += 3 + (1 if kind == 1 else size)
        if kind == 3 or end > file.size:
            return file.size, False
    end += 4 * (mark[0] >> 2 & 1)
    return min(end, file.size), end <= file.size


# ---------------------------------------------------------------- frames of blocks


def lz4_legacy(walk: Walk, place: Place) -> Generator[Piece, None, Spans]:
    """Open a legacy frame: blocks of 8 MiB, each behind its packed size, to the end of the file or another mark."""
    ends: list[int] = []
    stream = _lz4_legacy(place, ends)
    yield from walk.unpacked(stream, inside(place.label, "lz4"), place.depth, sure=place.sure, chance=1)
    return [(place.at, ends[-1])] if ends else ()


def _lz4_legacy(place: Place, ends: list[int]) -> Iterator[bytes]:
    at = place.at + 4
    while head := place.file.at(at, 4):
        size = int.from_bytes(head, "little")
        if not 0 < size <= 8 * MIB + 33_000:  # the next frame, or something else
            break
        packed = place.file.at(at + 4, size)
        if len(packed) < size:
            raise NotExaminable(CUT)
        yield _block.decompress(packed, uncompressed_size=8 * MIB)
        at += 4 + size
        ends.append(at)


def snappy(walk: Walk, place: Place) -> Generator[Piece, None, Spans]:
    """Open snappy's framing format: chunks of up to 64 KiB with their checksums."""
    ends: list[int] = []
    stream = _snappy(place, ends)
    yield from walk.unpacked(stream, inside(place.label, "snappy"), place.depth, sure=place.sure, chance=1)
    return [(place.at, ends[-1])] if ends else ()


def _snappy(place: Place, ends: list[int]) -> Iterator[bytes]:
    at = place.at
    while head := place.file.at(at, 4):
        kind, size = head[0], int.from_bytes(head[1:], "little")
        if 0x02 <= kind <= 0x7F:  # reserved, not to be skipped: the stream ended
            return
        body = place.file.at(at + 4, size)
        if len(head) < 4 or len(body) < size:
            raise NotExaminable(CUT)
        if kind == 0:
            yield snappy_raw(body[4:])
        elif kind == 1:
            yield body[4:]
        at += 4 + size
        ends.append(at)


def snappy_raw(packed: bytes | memoryview) -> bytes:
    """One bare block of snappy. Raises NotExaminable where the announced length cannot be true."""
    length, _start = _announced(packed[:5])
    if length > 64 * len(packed) + 64:
        raise NotExaminable(f"a block announces {length} bytes")
    return bytes(pa.Codec("snappy").decompress(packed, length).to_pybytes())


def _announced(head: bytes | memoryview) -> tuple[int, int]:
    """The varint at the start of a snappy block, and its own length."""
    length = 0
    for n, byte in enumerate(bytes(head[:5])):
        length |= (byte & 0x7F) << 7 * n
        if byte < 0x80:
            return length, n + 1
    return 0, 0


def is_snappy_block(file: Readable) -> bool:
    """Whether a file of less than 16 MiB is one block: its length fits, and all of it decodes to exactly that."""
    head = file.at(0, 6)
    length, start = _announced(head)
    # The first element is always a literal; a block is never much longer than what it holds.
    if not 16 <= file.size <= 16 * MIB or length < 32 or len(head) < 6 or head[start] & 3:
        return False
    if not file.size * 5 // 6 - 32 <= length <= 22 * file.size:
        return False
    try:
        snappy_raw(file.at(0, file.size))
    except (pa.ArrowException, OSError, NotExaminable):
        return False
    return True


def snappy_block(walk: Walk, place: Place) -> Generator[Piece, None, Spans]:
    """Open a file that is one bare block."""
    plain = snappy_raw(place.file.at(0, place.file.size))
    walk.spend(len(plain))
    yield from walk.layers(InMemory(plain), inside(place.label, "snappy"), place.depth + 1)
    return ()


def is_lz4_block(file: Readable) -> bool:
    """Whether a file of less than 16 MiB is one block behind its length, as the libraries' simple calls write it."""
    if not 12 <= file.size <= 16 * MIB:
        return False
    length = int.from_bytes(file.at(0, 4), "little")
    if not max(32, file.size * 5 // 6 - 32) <= length <= min(255 * file.size, 256 * MIB):
        return False
    try:
        _block.decompress(file.at(0, file.size))
    except _block.LZ4BlockError:
        return False
    return True


def lz4_block(walk: Walk, place: Place) -> Generator[Piece, None, Spans]:
    """Open a file that is one block of lz4 behind its length."""
    plain = _block.decompress(place.file.at(0, place.file.size))
    walk.spend(len(plain))
    yield from walk.layers(InMemory(plain), inside(place.label, "lz4"), place.depth + 1)
    return ()

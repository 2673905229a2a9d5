"""Archives: zip and tar, member by member from their local headers, so that no directory at the end is needed.

* `zip`: a member as it was unpacked (stored, deflate, bz2, lzma, zstd, xz), also from an archive that was cut or
  whose central directory is gone. Encrypted members and other methods are named; so are members that the central
  directory knows and that are not there. Names of members lie plain in the archive and are found as its raw bytes.
* `tar`: members that are containers themselves; the raw search has seen the others, and all names.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fangxin.checks.residue.containers import streams
from fangxin.checks.residue.containers.piece import NotExaminable, Piece, Place, Readable, Slice, Spans, inside

if TYPE_CHECKING:
    from fangxin.checks.residue.carve import Walk

# PKWARE's APPNOTE 4.4.5: what a header may say, and what is decoded here.
_METHODS = frozenset({0, 1, 6, 8, 9, 10, 12, 14, 16, 18, 19, 20, 93, 94, 95, 96, 97, 98, 99})
_OPENED = frozenset({8, 12, 14, 93, 95})
_ENCRYPTED = 0x2041  # plainly, strongly, or with a masked header


def zip_member(walk: Walk, place: Place) -> Generator[Piece, None, Spans]:
    """Open the member whose local header stands at the place."""
    label, file = inside(place.label, "zip"), place.file
    head = place.bytes(30)
    needs, flags, method = (int.from_bytes(head[i : i + 2], "little") for i in (4, 6, 8))
    crc, packed, plain = (int.from_bytes(head[i : i + 4], "little") for i in (14, 18, 22))
    names, extra = (int.from_bytes(head[i : i + 2], "little") for i in (26, 28))
    if len(head) < 30 or needs & 0xFF > 63 or method not in _METHODS or names > 4096:
        if place.sure:
            raise NotExaminable("a member's header is none, or damaged")
        return ()
    begin = place.at + 30 + names + extra
    packed, plain = _sizes(file.at(begin - extra, extra), packed, plain)
    told = not flags & 8 or packed > 0  # else the sizes follow the member
    if flags & _ENCRYPTED:
        walk.note(label, f"the member at byte {place.at} is encrypted")
        return [(place.at, begin)]
    if method == 0:
        if not told:
            return [(place.at, begin)]  # nobody says where it ends: its bytes lie plain, the raw search sees them
        member = Slice(file, begin, max(0, min(packed, file.size - begin)))
        if member.size < packed:
            walk.note(label, streams.CUT)
        yield from walk.layers(member, label, place.depth + 1)
        return [(place.at, begin + member.size)]
    if method not in _OPENED:
        raise NotExaminable(f"the member at byte {place.at} is packed by method {method}, which is not decoded here")
    whole = Slice(file, begin, min(packed, file.size - begin) if told else file.size - begin)
    ends: list[int] = []
    stream = _checked(_member(walk, whole, method, -1 if flags & 2 else plain, ends), None if flags & 8 else crc)
    yield from walk.unpacked(stream, label, place.depth, sure=True)
    return [(place.at, begin + (whole.size if told or not ends else ends[0]))]


def _sizes(extra: bytes, packed: int, plain: int) -> tuple[int, int]:
    """The member's sizes, from its zip64 field where they do not fit into the header."""
    at = 0
    while at + 4 <= len(extra):
        kind, size = (int.from_bytes(extra[at + i : at + i + 2], "little") for i in (0, 2))
        if kind == 1:
            values = [int.from_bytes(extra[at + 4 + i : at + 12 + i], "little") for i in range(0, size - 7, 8)]
            if plain == 0xFFFFFFFF and values:
                plain = values.pop(0)
            if packed == 0xFFFFFFFF and values:
                packed = values.pop(0)
        at += 4 + size
    return packed, plain


def _member(walk: Walk, file: Readable, method: int, plain: int, ends: list[int]) -> Iterator[bytes]:
    """Decode what lies in `file` by the method of its header."""
    if method == 8:
        return streams.inflated(walk, file, 0, -zlib.MAX_WBITS, ends)
    if method == 12:
        return streams.decoded(walk, file, 0, bz2.BZ2Decompressor, None, ends)
    if method == 93:
        return streams.zstd_frames(walk, file, 0, ends)
    if method == 95:
        return streams.decoded(walk, file, 0, lambda: lzma.LZMADecompressor(memlimit=streams.MEMORY), None, ends)
    # Two bytes of version, two of length, the properties: in the lzma format the size stands behind them, if any.
    size = (1 << 64) - 1 if plain < 0 else plain
    alone = _Behind(file.at(4, 5) + size.to_bytes(8, "little"), Slice(file, 9, max(0, file.size - 9)))
    make = lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=streams.MEMORY)  # noqa: E731
    return streams.decoded(walk, alone, 0, make, None, ends)


@dataclass(frozen=True)
class _Behind:
    """A file behind a header that it does not have."""

    head: bytes
    file: Readable

    @property
    def size(self) -> int:
        return len(self.head) + self.file.size

    def at(self, offset: int, length: int) -> bytes:
        start = self.head[offset : offset + length]
        return start + self.file.at(max(0, offset - len(self.head)), length - len(start))


def _checked(stream: Iterator[bytes], crc: int | None) -> Iterator[bytes]:
    seen = 0
    for plain in stream:
        seen = zlib.crc32(plain, seen)
        yield plain
    if crc is not None and seen != crc:
        raise NotExaminable("a member's checksum does not fit: it is damaged")


def zip_directory(walk: Walk, place: Place) -> Generator[Piece, None, Spans]:
    """Compare the central directory that ends at the place with the members that are there; opens nothing."""
    yield from ()  # a generator like every opener
    file, label = place.file, inside(place.label, "zip")
    end, at = place.bytes(22), place.at
    disks, entries = end[4:8], int.from_bytes(end[10:12], "little")
    size, offset = (int.from_bytes(end[i : i + 4], "little") for i in (12, 16))
    if len(end) < 22 or (disks != bytes(4) and disks != b"\xff" * 4):
        return ()
    locator = file.at(at - 20, 20) if at >= 20 else b""
    if locator[:4] == b"PK\6\7" and at >= 76 and file.at(at - 76, 4) == b"PK\6\6":  # zip64, without its extensions
        large = file.at(at - 76, 56)
        entries, size, offset = (int.from_bytes(large[i : i + 8], "little") for i in (32, 40, 48))
        at -= 76
    if size < 46 * entries:
        return ()
    directory = file.at(at - size, size) if at >= size else b""
    base, pos, missing, seen = at - size - offset, 0, 0, 0
    while directory[pos : pos + 4] == b"PK\1\2":
        entry = directory[pos : pos + 46]
        local = base + int.from_bytes(entry[42:46], "little")
        seen += 1
        missing += local < 0 or (entry[42:46] != b"\xff" * 4 and file.at(local, 4) != b"PK\3\4")
        pos += 46 + sum(int.from_bytes(entry[i : i + 2], "little") for i in (28, 30, 32))
    if missing or seen < entries:
        walk.note(label, f"{missing + max(0, entries - seen)} of {entries} members of the directory are not there")
    return ()


def tar_member(walk: Walk, place: Place) -> Generator[Piece, None, Spans]:
    """Open the member whose header stands at the place, if a container is all of it."""
    head = place.bytes(512)
    told = sum(head[:148]) + 8 * 0x20 + sum(head[156:])
    size = _number(head[124:136])
    if len(head) < 512 or _number(head[148:156]) != told or size is None:
        return ()
    begin = place.at + 512
    member = Slice(place.file, begin, max(0, min(size, place.file.size - begin)))
    if member.size < size:
        walk.note(inside(place.label, "tar"), streams.CUT)
    if head[156:157] not in (b"0", b"\0", b"7") or not walk.opens(member):
        return [(place.at, begin)]
    yield from walk.layers(member, inside(place.label, "tar"), place.depth + 1)
    return [(place.at, begin + member.size)]


def _number(field: bytes) -> int | None:
    """A number of a tar header: octal, or binary where the first bit is set."""
    if field[:1] >= b"\x80":
        return int.from_bytes(field, "big") & (1 << (8 * len(field) - 1)) - 1
    text = field.strip(b" \0")
    return int(text, 8) if text.isdigit() and not {*b"89"} & {*text} else None

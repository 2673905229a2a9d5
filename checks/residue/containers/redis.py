"""Redis: `redis:string` are the strings of a dump (RDB) that were packed with LZF; the others lie in it as they are.

An append-only file is text with lengths, and begins with a dump where Redis writes it so: both are raw bytes too.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import TYPE_CHECKING

from fangxin.checks.residue.containers.piece import Piece, Place, Spans, inside

if TYPE_CHECKING:
    from fangxin.checks.residue.carve import Walk

LARGEST = 512 << 20  # of one string


def is_dump(data: bytes, at: int) -> bool:
    """Whether a version in four digits follows the mark."""
    return data[at + 5 : at + 9].isdigit()


def opened(walk: Walk, place: Place) -> Generator[Piece, None, Spans]:
    """Unpack every packed string behind the mark: its own mark, both lengths, and a body that unpacks to just that."""
    label = inside(place.label, "redis:string")
    together, size, at = list[bytes](), 0, place.at + 9
    while data := place.file.at(at, walk.limits.chunk):
        end = at + len(data)
        for found in re.finditer(rb"\xc3", data):
            plain = _string(place, at + found.start() + 1)
            if plain is None:
                continue
            walk.spend(len(plain))
            together.append(plain)
            size += len(plain)
            if size >= walk.limits.chunk:
                yield from walk.leaf(b"\n".join(together), label, "", place.depth)
                together, size = [], 0
        at = end
    if together:
        yield from walk.leaf(b"\n".join(together), label, "", place.depth)
    return ()


def _string(place: Place, at: int) -> bytes | None:
    lengths = []
    for _ in range(2):
        head = place.file.at(at, 5)
        if not head:
            return None
        if head[0] >> 6 == 0:
            lengths.append(head[0])
            at += 1
        elif head[0] >> 6 == 1:
            lengths.append((head[0] & 0x3F) << 8 | int.from_bytes(head[1:2], "big"))
            at += 2
        elif head[0] == 0x80:
            lengths.append(int.from_bytes(head[1:5], "big"))
            at += 5
        else:
            return None
    packed, plain = lengths
    if not 4 <= packed < plain <= min(LARGEST, 264 * packed) or packed > place.file.size - at:
        return None
    return lzf(place.file.at(at, packed), plain)


def lzf(data: bytes, size: int) -> bytes | None:
    """Unpack LZF to exactly `size` bytes; None where it is not that."""
    out, at, end = bytearray(), 0, len(data)
    while at < end:
        control = data[at]
        at += 1
        if control < 32:
            if at + control + 1 > end:
                return None
            out += data[at : at + control + 1]
            at += control + 1
        else:
            length = control >> 5
            if length == 7:
                if at >= end:
                    return None
                length += data[at]
                at += 1
            if at >= end:
                return None
            back = (control & 0x1F) << 8 | data[at]
            at += 1
            start = len(out) - back - 1
            if start < 0:
                return None
            for i in range(length + 2):
                out.append(out[start + i])
        if len(out) > size:
            return None
    return bytes(out) if len(out) == size else None

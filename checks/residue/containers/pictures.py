"""PNG: `png` is what the chunks of a picture hold together, for the stream that they share is cut into them.

Pixels, text and profiles alike; the chunks' own bytes are raw. Other pictures are packed in ways that hold no text.
"""

from __future__ import annotations

import zlib
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fangxin.checks.residue.containers.piece import InMemory, NotExaminable, Piece, Place, Spans, inside
from fangxin.checks.residue.containers.streams import CUT, inflated

if TYPE_CHECKING:
    from fangxin.checks.residue.carve import Walk

PNG = b"\x89PNG\r\n\x1a\n"
_TEXT = (b"zTXt", b"iTXt", b"iCCP")


@dataclass
class _Joined:
    """Stretches of a file one behind the other, as something readable."""

    place: Place
    spans: list[tuple[int, int]] = field(default_factory=list)  # from the place, length

    @property
    def size(self) -> int:
        return sum(length for _start, length in self.spans)

    def at(self, offset: int, length: int) -> bytes:
        found = []
        for start, size in self.spans:
            if offset < size and length > 0:
                found.append(self.place.bytes(min(size - offset, length), start + offset))
                length -= len(found[-1])
            offset = max(0, offset - size)
        return b"".join(found)


def png(walk: Walk, place: Place) -> Generator[Piece, None, Spans]:
    """Open the picture that begins at the place."""
    label, at, pixels, ended = inside(place.label, "png"), 8, _Joined(place), False
    texts = []
    while not ended:
        head = place.bytes(8, at)
        size, kind = int.from_bytes(head[:4], "big"), head[4:]
        if len(head) < 8 or not kind.isalpha() or size > 1 << 31:
            break
        if kind == b"IDAT":
            pixels.spans.append((at + 8, size))
        elif kind in _TEXT:
            texts.append(place.bytes(size, at + 8))
        ended = kind == b"IEND"
        at += 12 + size
    if pixels.spans:
        stream = inflated(walk, pixels, 0, zlib.MAX_WBITS, [])
        yield from walk.unpacked(stream, label, place.depth, sure=ended)
    for text in texts:
        packed = text.find(b"\x78")
        while packed >= 0:
            try:
                plain = zlib.decompress(text[packed:])
            except zlib.error:
                packed = text.find(b"\x78", packed + 1)
                continue
            walk.spend(len(plain))
            yield from walk.layers(InMemory(plain), label, place.depth + 1)
            break
    if not ended and pixels.spans:
        raise NotExaminable(CUT)
    return [(place.at, min(place.at + at, place.file.size))]

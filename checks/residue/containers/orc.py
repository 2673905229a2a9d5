"""ORC: every stream of every stripe unpacked, and the numbers that encodings hide.

* `orc:stream`: one stream of a column as it was unpacked: text back to back, dictionaries whole (entries that no row
  refers to included), the statistics of row groups; `orc:footer`: the file's, the stripes' and their statistics'
  own descriptions. `orc:column`: whole numbers and decimals, out of the runs they lie in.

The format's postscript gives every size, so a file is also found in the middle of another, by its end.
"""

from __future__ import annotations

import zlib
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import zstandard

from fangxin.checks.residue.containers.orc_numbers import decimals, runs
from fangxin.checks.residue.containers.piece import NotExaminable, Piece, Place, Readable, Slice, Spans, inside
from fangxin.checks.residue.containers.streams import snappy_raw

if TYPE_CHECKING:
    from fangxin.checks.residue.carve import Walk

# The last field of every postscript, and what stands in front of a file.
END = b"\x82\xf4\x03\x03ORC"
DATA = 1  # the kind of stream that holds a column's values
WHOLE, DECIMAL = frozenset({2, 3, 4}), 14  # kinds of columns: short, int, long
Message = dict[int, list[int | bytes]]


def is_orc(file: Readable) -> bool:
    """Whether a file is one from its first byte to its last."""
    return file.at(0, 3) == b"ORC" and file.at(file.size - len(END) - 1, len(END)) == END


def whole(walk: Walk, place: Place) -> Generator[Piece, None, Spans]:
    """Open a file that is one, before what is packed in it is taken for something by itself."""
    at = place.file.size - len(END) - 1
    return (yield from opened(walk, Place(place.file, at, place.label, place.depth, place.sure)))


def opened(walk: Walk, place: Place) -> Generator[Piece, None, Spans]:
    """Open the file whose postscript ends with the mark at the place."""
    label, file = inside(place.label, "orc"), place.file
    end = place.at + len(END) + 1
    size = (place.bytes(1, len(END)) or b"\0")[0]
    if file.at(end - 1 - size, 1) == b"" or size < len(END):
        return ()
    try:
        postscript = message(file.at(end - 1 - size, size))
    except NotExaminable:  # the mark stands there by chance
        return ()
    footer, packed, metadata = (number(postscript, n) for n in (1, 2, 5))
    tail = end - 1 - size - footer
    if tail < 0 or tail - metadata < 0:
        return ()
    described = message(unpacked(file.at(tail, footer), packed, walk.limits.page))
    start = tail - metadata - number(described, 1) - number(described, 2)
    columns = _columns(described)
    yield from walk.leaf(unpacked(file.at(tail, footer), packed, walk.limits.page), f"{label}:footer", "", place.depth)
    if metadata:
        statistics = unpacked(file.at(tail - metadata, metadata), packed, walk.limits.page)
        yield from walk.leaf(statistics, f"{label}:footer", "", place.depth)
    inner = Slice(file, start, end - start)
    kinds = [number(message(kind), 1) for kind in described.get(4, []) if isinstance(kind, bytes)]
    for stripe in described.get(3, []):
        if isinstance(stripe, bytes):
            layer = _stripe(walk, inner, message(stripe), packed, columns, kinds, label, place.depth)
            yield from walk.guarded(layer, label)
    return [(max(start, 0), end)]


def _stripe(
    walk: Walk,
    file: Readable,
    stripe: Message,
    packed: int,
    columns: list[str],
    kinds: list[int],
    label: str,
    depth: int,
) -> Iterator[Piece]:
    at, index, data, foot = (number(stripe, n) for n in (1, 2, 3, 4))
    footer = unpacked(file.at(at + index + data, foot), packed, walk.limits.page)
    yield from walk.leaf(footer, f"{label}:footer", "", depth)
    described = message(footer)
    encodings = [number(message(e), 1) for e in described.get(2, []) if isinstance(e, bytes)]
    for stream in described.get(1, []):
        if not isinstance(stream, bytes):
            continue
        fields = message(stream)
        size, column = number(fields, 3), number(fields, 2)
        plain = unpacked(file.at(at, size), packed, walk.limits.page)
        walk.spend(len(plain))
        name = columns[column] if column < len(columns) else ""
        yield from walk.leaf(plain, f"{label}:stream", name, depth)
        if number(fields, 1) == DATA and column < min(len(kinds), len(encodings)):
            second = encodings[column] in (2, 3)
            yield from walk.guarded(_numbers(walk, plain, kinds[column], name, label, second=second), label)
        at += size


def _numbers(walk: Walk, plain: bytes, kind: int, name: str, label: str, *, second: bool) -> Iterator[Piece]:
    """The values of a column of whole numbers or of decimals; others lie in their stream as they are."""
    if kind in WHOLE:
        values = runs(plain, second=second)
    elif kind == DECIMAL:
        values = decimals(plain)
    else:
        return
    walk.spend(len(values))
    yield Piece(f"{label}:column", name, values)


def _columns(footer: Message) -> list[str]:
    """The name of every column by its number, nested ones with the name of the one they lie in."""
    kinds = [message(kind) for kind in footer.get(4, []) if isinstance(kind, bytes)]
    names = [""] * len(kinds)
    for parent, kind in enumerate(kinds):
        children = [
            n for packed in kind.get(2, []) for n in (_varints(packed) if isinstance(packed, bytes) else [packed])
        ]
        fields = [f.decode("utf-8", "replace") for f in kind.get(3, []) if isinstance(f, bytes)]
        for place, child in enumerate(children):
            own = fields[place] if place < len(fields) else ""
            if child < len(names):
                names[child] = ".".join(part for part in (names[parent], own) if part)
    return names


def unpacked(data: bytes, codec: int, most: int) -> bytes:
    """A stretch as the file's codec packed it: chunks, each behind three bytes of size and a flag for unpacked ones."""
    if codec == 0:
        return data
    out, at, size = [], 0, 0
    while at + 3 <= len(data):
        head = int.from_bytes(data[at : at + 3], "little")
        chunk = data[at + 3 : at + 3 + (head >> 1)]
        if len(chunk) < head >> 1:
            raise NotExaminable("cut short: a chunk is longer than what is there")
        out.append(chunk if head & 1 else _chunk(chunk, codec))
        size += len(out[-1])
        if size > most:
            raise NotExaminable(f"a stream unpacks to more than {most} bytes")
        at += 3 + (head >> 1)
    return b"".join(out)


def _chunk(chunk: bytes, codec: int) -> bytes:
    if codec == 1:
        return zlib.decompress(chunk, -zlib.MAX_WBITS)
    if codec == 2:
        return snappy_raw(chunk)
    if codec == 4:
        import lz4.block

        return bytes(lz4.block.decompress(chunk, uncompressed_size=16 << 20))
    if codec == 5:
        return zstandard.ZstdDecompressor().decompressobj().decompress(chunk)
    raise NotExaminable(f"codec {codec} of ORC is not decoded here")


# ---------------------------------------------------------------- protocol buffers, as far as ORC needs them


def message(data: bytes) -> Message:
    """The fields of a message by number: varints as numbers, the rest as bytes. Raises NotExaminable."""
    found: Message = {}
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        value: int | bytes
        if wire == 0:
            value, at = _varint(data, at)
        elif wire in (1, 5):
            width = 8 if wire == 1 else 4
            value, at = data[at : at + width], at + width
        elif wire == 2:
            size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
        else:
            raise NotExaminable("a description is damaged")
        if at > len(data):
            raise NotExaminable("a description is cut short")
        found.setdefault(key >> 3, []).append(value)
    return found


def number(fields: Message, which: int) -> int:
    """A number of a message, 0 where it has none."""
    value = fields.get(which, [0])[0]
    return value if isinstance(value, int) else 0


def _varints(data: bytes) -> list[int]:
    found, at = [], 0
    while at < len(data):
        value, at = _varint(data, at)
        found.append(value)
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
        shift += 7
    raise NotExaminable("a description is damaged")

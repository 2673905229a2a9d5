"""Parquet: every page through its Thrift header, whole files and what is left of them, at any offset.

* `parquet:page`, `parquet:dictionary`: decompressed pages of one column (dictionary entries also where no row refers
  to them); `parquet:values`: columns whose encoding hides values, decoded; `parquet:header`: page headers, and bodies
  as stored where they could not be unpacked; `parquet:statistics`, `parquet:index`, `parquet:bloom`,
  `parquet:key-value`, `parquet:footer` and `parquet:gap`: the rest, so that every byte of the file belongs to one.
* `parquet:bloom-probe`: what bloom filters answer is told apart from the pieces (`Walk.answers`; bloom.py).
* A file whose footer is cut off is walked page by page from its start, its codec tried; one whose beginning is
  missing is read as far as it is there. In a raw image a file is found by either end; what the image keeps of it in
  another place (a file in fragments) is not examinable.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fangxin.checks.residue.containers import bloom
from fangxin.checks.residue.containers.arrow import arrays
from fangxin.checks.residue.containers.piece import NotExaminable, Piece, Place, Readable, Reader, Slice, Spans, inside
from fangxin.data.columnar import thrift
from fangxin.data.columnar.footer import Chunk, Footer, MalformedFooter, Page, Span, open_footer, page_at, pages

if TYPE_CHECKING:
    from fangxin.checks.residue.carve import Walk

_HIDING = frozenset({"DELTA_BINARY_PACKED", "DELTA_BYTE_ARRAY", "BYTE_STREAM_SPLIT"})
_TRIED = ("zstd", "snappy", "gzip", "lz4_raw", "brotli", "lz4")
SMALL = 1 << 16  # pages below this are searched together, a mebibyte at a time


def opened(walk: Walk, place: Place) -> Generator[Piece, None, Spans]:
    """Open the file whose first or last four bytes stand at the place."""
    file, label = place.file, place.label
    if place.at == 0:
        try:
            yield from _file(walk, file, open_footer(file), label, place.depth)
        except MalformedFooter as error:
            walk.note(inside(label, "parquet"), error.message)
        else:
            return [(0, file.size)]
    elif tail := _that_ends_at(file, place.at + 4):
        start, footer = tail
        yield from _file(walk, Slice(file, start, place.at + 4 - start), footer, label, place.depth)
        return [(max(start, 0), place.at + 4)]
    following = _next(file, place.at + 4)
    if following and (tail := _that_ends_at(file, following + 4)) and tail[0] == place.at:
        yield from _file(walk, Slice(file, tail[0], following + 4 - tail[0]), tail[1], label, place.depth)
        return [(place.at, following + 4)]
    return (yield from _pages_without_a_footer(walk, place, following or file.size))


def _file(walk: Walk, file: Readable, footer: Footer, label: str, depth: int) -> Iterator[Piece]:
    known: list[tuple[int, int]] = [(footer.span.offset, footer.size), (0, 4)]
    decimals = _decimals(file)
    for chunk in footer.chunks:
        yield from walk.guarded(_chunk(walk, file, chunk, label, depth, known), inside(label, "parquet"))
        if (chunk.path in decimals or walk.columns) and not chunk.encrypted:
            yield from walk.guarded(_values(walk, file, chunk, label), inside(label, "parquet:values"))
    yield from _around(walk, file, footer, label, depth)
    yield from _gaps(walk, file, known, inside(label, "parquet:gap"), depth)


def _chunk(
    walk: Walk, file: Readable, chunk: Chunk, label: str, depth: int, known: list[tuple[int, int]]
) -> Iterator[Piece]:
    if chunk.encrypted:
        walk.note(inside(label, "parquet"), f"row group {chunk.row_group} has an encrypted column")
        return
    hidden, headers, small = False, _Together(inside(label, "parquet:header"), chunk.path, decoded=False), None
    small = _Together(inside(label, "parquet:page"), chunk.path)
    try:
        for page in pages(file, chunk):
            hidden = hidden or page.encoding in _HIDING
            known.append((page.header.offset, page.body.end))
            yield from headers.add(file.at(page.header.offset, page.header.length), page.header.offset)
            yield from walk.guarded(_page(walk, file, chunk, page, label, depth, small), inside(label, "parquet:page"))
    except MalformedFooter as error:
        walk.note(inside(label, "parquet:page"), error.message)
    yield from headers.rest()
    for piece in small.rest():
        yield from walk.leaf(piece.data, piece.container, piece.column, depth, piece.offset)
    if hidden and not walk.columns:
        yield from walk.guarded(_values(walk, file, chunk, label), inside(label, "parquet:values"))
    for what, span in (("index", chunk.column_index), ("index", chunk.offset_index), ("bloom", chunk.bloom)):
        if span is not None:
            known.append((span.offset, span.end))
            data = file.at(span.offset, span.length)
            yield Piece(inside(label, f"parquet:{what}"), chunk.path, data, span.offset)
            if what == "bloom" and walk.probes is not None:
                yield from walk.guarded(_asked(walk, walk.probes, file, data, chunk, label), inside(label, bloom.PROBE))


def _page(
    walk: Walk, file: Readable, chunk: Chunk, page: Page, label: str, depth: int, small: _Together
) -> Iterator[Piece]:
    """A page as it was unpacked; as it is stored only where that fails."""
    body = memoryview(file.at(page.body.offset, page.body.length))
    try:
        plain = unpacked(chunk.codec, page, body, walk.limits.page)
        walk.spend(len(plain))
    except Exception:
        yield Piece(inside(label, "parquet:header"), chunk.path, body, page.body.offset, decoded=False)
        raise
    kind = "dictionary" if page.kind == "dictionary" else "page"
    if kind == "page" and len(plain) < SMALL:
        for piece in small.add(plain, page.body.offset):
            yield from walk.leaf(piece.data, piece.container, piece.column, depth, piece.offset)
    else:
        yield from walk.leaf(plain, inside(label, f"parquet:{kind}"), chunk.path, depth)


def unpacked(codec: str, page: Page, body: memoryview, most: int) -> bytes | memoryview:
    """The body of a page, decompressed; the levels of a v2 page are left out, they are no values."""
    if not page.compressed or page.body.length <= page.levels:
        return body
    if page.uncompressed > most:
        raise NotExaminable(f"a page unpacks to {page.uncompressed} bytes")
    return _decompressed(codec, body[page.levels :], page.uncompressed - page.levels)


class _Together:
    """Small stretches of a column in one piece, a zero between them: a search costs a little each time it begins."""

    def __init__(self, container: str, column: str, *, decoded: bool = True) -> None:
        self._names, self._decoded = (container, column), decoded
        self._parts: list[bytes | memoryview] = []
        self._size = self._offset = 0

    def add(self, data: bytes | memoryview, offset: int) -> Iterator[Piece]:
        """Take a stretch; hand out what has come together."""
        if not self._parts:
            self._offset = offset
        self._parts.append(data)
        self._size += len(data)
        if self._size >= 16 * SMALL:
            yield from self.rest()

    def rest(self) -> Iterator[Piece]:
        """Hand out what is left."""
        if self._parts:
            yield Piece(*self._names, b"\0".join(self._parts), self._offset, decoded=self._decoded)
        self._parts, self._size = [], 0


def _values(walk: Walk, file: Readable, chunk: Chunk, label: str) -> Iterator[Piece]:
    """A column chunk whose encoding or type hides values (deltas, split bytes, decimals), decoded by pyarrow."""
    for column in _decoded(file, chunk):
        if pa.types.is_decimal(column.type):  # scaled numbers: as people write them, a line each
            column = pc.binary_join_element_wise(column.cast(pa.string()), "", "\n")
        yield from arrays(walk, column, inside(label, "parquet:values"), chunk.path)


def _decoded(file: Readable, chunk: Chunk) -> Iterator[pa.Array]:
    reader = pq.ParquetFile(pa.PythonFile(Reader(file), mode="r"), pre_buffer=False)
    for batch in reader.iter_batches(64 << 10, row_groups=[chunk.row_group], columns=[chunk.path], use_threads=False):
        yield from batch.columns


def _asked(walk: Walk, probes: bloom.Probes, file: Readable, data: bytes, chunk: Chunk, label: str) -> Iterator[Piece]:
    """Ask the filter of a chunk for the probes; where it does not exclude some, its column says whether it may."""
    yield from ()
    bits, perhaps, which, asked = bloom.asked(data, probes, chunk.physical)
    explained = np.zeros(len(perhaps), bool)
    failure: Exception | None = None
    if len(perhaps):
        try:
            explained = bits.explained(perhaps, (leaf for a in _decoded(file, chunk) for leaf in bloom.leaves(a)))
        except Exception as error:
            failure = error
    remembered = () if failure else tuple(which[~explained].tolist())
    container = inside(label, bloom.PROBE)
    told = (asked, len(perhaps), int(explained.sum()), asked * bits.by_chance, remembered)
    walk.answers.append(bloom.Answer(container, chunk.path, chunk.bloom.offset if chunk.bloom else 0, *told))
    if failure:
        raise failure


def _decimals(file: Readable) -> frozenset[str]:
    """The columns of decimals; none where pyarrow cannot read the schema (its pages are searched as they are)."""
    try:
        schema = pq.read_schema(pa.PythonFile(Reader(file), mode="r"))
    except (pa.ArrowException, OSError, NotExaminable):
        return frozenset()
    return frozenset(field.name for field in schema if pa.types.is_decimal(field.type))


def _around(walk: Walk, file: Readable, footer: Footer, label: str, depth: int) -> Iterator[Piece]:
    """Statistics and key-values by their own names, with what is packed in them, then the footer without them."""
    rest = bytearray(file.at(footer.span.offset, footer.size - footer.span.offset))
    named = [("statistics", c.path, b) for c in footer.chunks for b in c.statistics]
    named += [("key-value", c.path, b) for c in footer.chunks for b in c.key_values]
    named += [("key-value", "", b) for pair in footer.key_values for b in pair]
    for what, column, value in named:
        if value.at >= 0:
            start = value.at - footer.span.offset
            rest[start : start + len(value)] = bytes(len(value))
        yield from walk.leaf(bytes(value), inside(label, f"parquet:{what}"), column, depth, max(value.at, 0))
    yield Piece(inside(label, "parquet:footer"), "", bytes(rest), footer.span.offset, decoded=False)


def _gaps(walk: Walk, file: Readable, known: list[tuple[int, int]], label: str, depth: int) -> Iterator[Piece]:
    at = 0
    for start, end in [*sorted(known), (file.size, file.size)]:
        if start > at:
            yield from walk.guarded(_gap(walk, file, at, start, label, depth), label)
        at = max(at, end)


def _gap(walk: Walk, file: Readable, at: int, end: int, label: str, depth: int) -> Iterator[Piece]:
    for seen in walk.windows(Slice(file, at, end - at)):
        yield Piece(label, "", seen.data, at + seen.offset, seen.start, seen.stop, decoded=False)
        yield from walk.within(seen.data, label, depth)


def _decompressed(codec: str, body: memoryview, size: int) -> bytes | memoryview:
    if codec == "lz4":  # Hadoop's frames of big-endian sizes around raw blocks; some writers wrote bare blocks
        out, rest = [], body
        try:
            while len(rest):
                plain, packed = (int.from_bytes(rest[i : i + 4], "big") for i in (0, 4))
                if plain > size or packed > len(rest) - 8:
                    raise pa.ArrowInvalid("not Hadoop's framing")
                out.append(pa.Codec("lz4_raw").decompress(rest[8 : 8 + packed], plain).to_pybytes())
                rest = rest[8 + packed :]
            return b"".join(out)
        except (pa.ArrowException, OSError):
            return memoryview(pa.Codec("lz4_raw").decompress(body, size))
    if codec not in ("snappy", "gzip", "brotli", "zstd", "lz4_raw"):
        raise NotExaminable(f"codec {codec} cannot be decoded here")
    return memoryview(pa.Codec(codec).decompress(body, size))


# ---------------------------------------------------------------- files in images, and what is left of them


def _next(file: Readable, at: int) -> int | None:
    """Where the next mark stands."""
    tail = b""
    while data := file.at(at, 4 << 20):
        found = (tail + data).find(b"PAR1")
        if found >= 0:
            return at - len(tail) + found
        tail = data[-3:]
        at += len(data)
    return None


def _that_ends_at(file: Readable, end: int) -> tuple[int, Footer] | None:
    """The file whose last byte lies before `end`: where it begins (or would, before this file), and its footer."""
    length = int.from_bytes(file.at(end - 8, 4), "little") if end >= 12 else 0
    if not 8 <= length <= end - 8:
        return None
    try:
        struct, used = thrift.read(file.at(end - 8 - length, length), 0)
        if used != length or not isinstance(thrift.get(struct, 2), thrift.List):  # the schema: every footer has one
            return None
        # Where the last thing lies that the footer knows, the footer itself begins: that gives the start.
        for size in _sizes(struct, length):
            start = end - size
            if start < 0 or file.at(start, 4) == b"PAR1":
                return start, open_footer(_Ended(file, start, size))
    except MalformedFooter:
        return None
    return None


class _Ended(Slice):
    """A slice that begins with the mark, whatever lies there: so that a footer can be read without its beginning."""

    def at(self, offset: int, length: int) -> bytes:
        return b"PAR1" if (offset, length) == (0, 4) else super().at(offset, length)


def _sizes(struct: thrift.Struct, length: int) -> Iterator[int]:
    """How long the file may be: its footer follows the last page, index or filter at once, or at a multiple of 8."""
    ends = [4]
    groups = thrift.get(struct, 4)
    for group in groups.items if isinstance(groups, thrift.List) else ():
        columns = thrift.get(group, 1) if isinstance(group, list) else None
        for column in columns.items if isinstance(columns, thrift.List) else ():
            ends += _column_ends(column) if isinstance(column, list) else ()
    yield max(ends) + length + 8
    yield -(-max(ends) // 8) * 8 + length + 8


def _column_ends(column: thrift.Struct) -> Iterator[int]:
    meta = thrift.get(column, 3)
    pairs = [(thrift.get(column, a), thrift.get(column, b)) for a, b in ((4, 5), (6, 7))]
    if isinstance(meta, list):
        starts = [v for v in (thrift.get(meta, 9), thrift.get(meta, 11)) if isinstance(v, int) and v > 0]
        pairs += [(min(starts, default=0), thrift.get(meta, 7)), (thrift.get(meta, 14), thrift.get(meta, 15))]
    for start, size in pairs:
        if isinstance(start, int) and isinstance(size, int):
            yield start + size


def _pages_without_a_footer(walk: Walk, place: Place, end: int) -> Generator[Piece, None, Spans]:
    """Pages one behind the other from the start of a file that lost its footer."""
    file, at, number, codec = place.file, place.at + 4, 0, ""
    small = _Together(inside(place.label, "parquet:page"), "")
    hidden = False
    while at < end:
        chunk = Chunk(0, "", "", codec or "zstd", (), Span(at, end - at), 1)
        try:
            page = page_at(file, at, chunk)
        except MalformedFooter:
            break
        body = memoryview(file.at(page.body.offset, page.body.length))
        if len(body) < page.body.length and not number:
            break
        plain: bytes | memoryview | None = None
        for tried in (codec, "", *_TRIED) if codec else ("", *_TRIED):
            fits = tried or page.uncompressed == page.body.length
            try:
                plain = unpacked(tried, page, body, walk.limits.page) if tried else body if fits else None
            except Exception:  # noqa: S112  the wrong codec, or a damaged page
                continue
            if plain is not None:
                codec = tried or codec
                break
        number += 1
        hidden = hidden or page.encoding in _HIDING
        if plain is None:
            walk.note(inside(place.label, "parquet:page"), f"the page at byte {at} cannot be unpacked")
        else:
            walk.spend(len(plain))
            for piece in small.add(plain, at):
                yield from walk.leaf(piece.data, piece.container, piece.column, place.depth, piece.offset)
        at = page.body.end
    for piece in small.rest():
        yield from walk.leaf(piece.data, piece.container, piece.column, place.depth, piece.offset)
    if number:
        lost = "the footer is missing: pages were read as far as they follow each other"
        walk.note(inside(place.label, "parquet"), lost + (", and some hide their values" if hidden else ""))
        # In two parts, for these pages are not all that there is to search: what could not be unpacked is searched raw.
        return [(place.at, place.at + 4), (place.at + 4, min(at, file.size))]
    return ()

"""The map of a Parquet file: where every page, index, filter and statistic lies, as byte spans.

Reads the footer and, on demand, the page headers; decodes no values. The numbers of the fields stand here once,
as in the format's `parquet.thrift`. Whatever is wrong with a file is a `MalformedFooter`: a foreign file, a cut
one, offsets beyond the end, pages that do not add up, an encrypted footer.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from fangxin.data.columnar import thrift
from fangxin.data.columnar.thrift import Binary, Cut, MalformedFooter, Struct

__all__ = [
    "Chunk",
    "Footer",
    "InMemory",
    "MalformedFooter",
    "Page",
    "Readable",
    "Span",
    "open_footer",
    "page_at",
    "pages",
]

CODECS = ("uncompressed", "snappy", "gzip", "lzo", "brotli", "lz4", "zstd", "lz4_raw")
PHYSICAL = ("boolean", "int32", "int64", "int96", "float", "double", "byte_array", "fixed_len_byte_array")
ENCODINGS = {
    0: "PLAIN",
    2: "PLAIN_DICTIONARY",
    3: "RLE",
    4: "BIT_PACKED",
    5: "DELTA_BINARY_PACKED",
    6: "DELTA_LENGTH_BYTE_ARRAY",
    7: "DELTA_BYTE_ARRAY",
    8: "RLE_DICTIONARY",
    9: "BYTE_STREAM_SPLIT",
}
PAGE_KINDS = {0: "data", 1: "index", 2: "dictionary", 3: "data v2"}
LONGEST_HEADER = 1 << 24  # readers give up on page headers beyond 16 MiB


class Readable(Protocol):
    """Bytes that can be read at any place: an open file, or bytes in memory."""

    @property
    def size(self) -> int:
        """How many bytes there are."""
        ...

    def at(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`; fewer only at the end."""
        ...


@dataclass(frozen=True)
class InMemory:
    """Bytes in memory as something readable."""

    data: bytes = field(repr=False)

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return len(self.data)

    def at(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`."""
        return self.data[offset : offset + length]


@dataclass(frozen=True)
class Span:
    """`length` bytes from `offset` of the file."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        """Offset just behind the span."""
        return self.offset + self.length


@dataclass(frozen=True)
class Page:
    """One page: its header, its body as stored, and how to read it. `levels` bytes of a v2 body are never packed."""

    kind: str
    header: Span
    body: Span
    uncompressed: int
    compressed: bool
    encoding: str
    values: int
    levels: int = 0
    statistics: tuple[Binary, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Chunk:
    """One column of one row group. `statistics` are min and max as they stand in the footer (`at` is in the file)."""

    row_group: int
    path: str
    physical: str
    codec: str
    encodings: tuple[str, ...]
    span: Span
    values: int
    statistics: tuple[Binary, ...] = field(default=(), repr=False)
    key_values: tuple[Binary, ...] = field(default=(), repr=False)
    column_index: Span | None = None
    offset_index: Span | None = None
    bloom: Span | None = None
    encrypted: bool = False


@dataclass(frozen=True)
class Footer:
    """The footer's span (without length and magic), what it maps, and the struct itself."""

    size: int
    span: Span
    rows: int
    row_groups: int
    chunks: tuple[Chunk, ...]
    key_values: tuple[tuple[Binary, Binary], ...] = field(repr=False)
    struct: Struct = field(repr=False)
    exact: bool  # writing the struct again gives the same bytes: what surgery asks for


def open_footer(file: Readable) -> Footer:
    """Read the footer of a Parquet file into a map. Raises MalformedFooter."""
    if file.size < 12:
        raise MalformedFooter(f"{file.size} bytes are too few for a Parquet file")
    tail = file.at(file.size - 8, 8)
    if tail[4:] == b"PARE":
        raise MalformedFooter("the footer is encrypted", hint="destroy its key, or rewrite the file with its key")
    if tail[4:] != b"PAR1" or file.at(0, 4) != b"PAR1":
        raise MalformedFooter("the file does not begin and end with PAR1", hint="it is cut, or not Parquet")
    length = int.from_bytes(tail[:4], "little")
    span = Span(file.size - 8 - length, length)
    if span.offset < 4:
        raise MalformedFooter(f"a footer of {length} bytes does not fit into a file of {file.size}")
    data = file.at(span.offset, length)
    running = gc.isenabled()
    gc.disable()  # millions of small tuples that form no cycles: collecting them costs five times the parse
    try:
        struct, end = thrift.read(data, 0)
        return _footer(file.size, span, struct, exact=end == length and thrift.dumps(struct) == data)
    finally:
        if running:
            gc.enable()


def pages(file: Readable, chunk: Chunk) -> Iterator[Page]:
    """Yield the pages of a chunk in order. Raises MalformedFooter, after the pages that could be read."""
    at, left = chunk.span.offset, chunk.values
    while at < chunk.span.end and left > 0:
        page = page_at(file, at, chunk)
        if page.body.end > chunk.span.end:
            raise MalformedFooter(f"the page at {at} of column {chunk.path} runs over the end of its chunk")
        if page.kind.startswith("data"):
            left -= page.values
        at = page.body.end
        yield page
    if left > 0:
        raise MalformedFooter(f"the pages of column {chunk.path} hold {left} values fewer than the footer says")


def page_at(file: Readable, at: int, chunk: Chunk) -> Page:
    """Read the header of the page at `at` of a chunk. Raises MalformedFooter."""
    struct, length = _header(file, at, chunk.span.end)
    return _page(struct, Span(at, length), chunk)


# ---------------------------------------------------------------- pages


def _header(file: Readable, at: int, end: int) -> tuple[Struct, int]:
    window = 4096
    while True:
        data = file.at(at, min(window, end - at))
        try:
            struct, length = thrift.read(data, 0)
        except Cut:
            if len(data) < window or window >= LONGEST_HEADER:
                raise MalformedFooter(f"the page header at {at} is cut") from None
            window *= 16
        else:
            return struct, length


def _page(struct: Struct, header: Span, chunk: Chunk) -> Page:
    kind = PAGE_KINDS.get(_int(struct, 1))
    unpacked, packed = _int(struct, 2), _int(struct, 3)
    if kind is None or unpacked < 0 or packed < 0:
        raise MalformedFooter(f"the page header at {header.offset} of column {chunk.path} is not one of Parquet's")
    compressed, levels, encoding, values = chunk.codec != "uncompressed", 0, "PLAIN", 0
    statistics: tuple[Binary, ...] = ()
    if kind == "data":
        body = _sub(struct, 5)
        values, encoding = _int(body, 1), _encoding(_int(body, 2))
        statistics = _statistics(_maybe(body, 5), header.offset)
    elif kind == "data v2":
        body = _sub(struct, 8)
        values, encoding = _int(body, 1), _encoding(_int(body, 4))
        definition, repetition = _int(body, 5), _int(body, 6)
        levels = definition + repetition
        if min(definition, repetition) < 0 or levels > min(packed, unpacked):
            raise MalformedFooter(f"the levels of the page at {header.offset} are longer than the page")
        compressed = compressed and thrift.get(body, 7) is not False
        statistics = _statistics(_maybe(body, 8), header.offset)
    elif kind == "dictionary":
        body = _sub(struct, 7)
        values, encoding = _int(body, 1), _encoding(_int(body, 2))
    if values < 0:
        raise MalformedFooter(f"the page at {header.offset} announces {values} values")
    return Page(kind, header, Span(header.end, packed), unpacked, compressed, encoding, values, levels, statistics)


def _encoding(number: int) -> str:
    return ENCODINGS.get(number, f"encoding {number}")


# ---------------------------------------------------------------- the footer


def _footer(size: int, span: Span, struct: Struct, *, exact: bool) -> Footer:
    if thrift.get(struct, 8) is not None and not _items(struct, 4):
        raise MalformedFooter("the file is encrypted", hint="destroy its key, or rewrite the file with its key")
    groups = _items(struct, 4)
    chunks: list[Chunk] = []
    for number, group in enumerate(groups):
        for column in _items(_as_struct(group), 1):
            chunks.append(_chunk(number, _as_struct(column), size, span))
    rows = _int(struct, 3)
    return Footer(size, span, rows, len(groups), tuple(chunks), _pairs(struct, 5, span.offset), struct, exact)


def _chunk(row_group: int, column: Struct, size: int, footer: Span) -> Chunk:
    encrypted = thrift.get(column, 8) is not None
    if thrift.get(column, 1) is not None:
        raise MalformedFooter(
            "a column lies in another file", hint="files with a _metadata summary are read one by one"
        )
    meta = _maybe(column, 3)
    if meta is None:
        if encrypted:
            return Chunk(row_group, "(encrypted)", "", "", (), Span(0, 0), 0, encrypted=True)
        raise MalformedFooter("a column chunk has no metadata")
    path = ".".join(_text(p) for p in _items(meta, 3))
    codec, physical = _int(meta, 4), _int(meta, 1)
    pages = [at for at in (_int(meta, 11, -1), _int(meta, 9)) if at > 0]  # writers say 0 where there is no such page
    chunk = Chunk(
        row_group=row_group,
        path=path,
        physical=PHYSICAL[physical] if 0 <= physical < len(PHYSICAL) else f"type {physical}",
        codec=CODECS[codec] if 0 <= codec < len(CODECS) else f"codec {codec}",
        encodings=tuple(_encoding(_as_int(e)) for e in _items(meta, 2)),
        span=_inside(Span(min(pages, default=0), _int(meta, 7)), footer.offset, f"column {path}"),
        values=_int(meta, 5),
        statistics=_statistics(_maybe(meta, 12), footer.offset),
        key_values=tuple(b for pair in _pairs(meta, 8, footer.offset) for b in pair),
        column_index=_blob(column, 6, 7, footer),
        offset_index=_blob(column, 4, 5, footer),
        bloom=_bloom(meta, footer),
        encrypted=encrypted,
    )
    if chunk.values < 0:
        raise MalformedFooter(f"column {path} announces {chunk.values} values")
    return chunk


def _blob(column: Struct, offset: int, length: int, footer: Span) -> Span | None:
    if thrift.get(column, offset) is None:
        return None
    return _inside(Span(_int(column, offset), _int(column, length)), footer.offset, "a page index")


def _bloom(meta: Struct, footer: Span) -> Span | None:
    """The filter's span; where the writer left its length out, it ends with the data section at the latest."""
    if thrift.get(meta, 14) is None:
        return None
    at = _int(meta, 14)
    return _inside(Span(at, _int(meta, 15, footer.offset - at)), footer.offset, "a bloom filter")


def _inside(span: Span, end: int, what: str) -> Span:
    if span.length == 0:
        return Span(4, 0)  # a chunk without rows may point anywhere
    if span.offset < 4 or span.length < 0 or span.end > end:
        raise MalformedFooter(f"{what} lies at {span.offset} + {span.length}, outside the file's {end} data bytes")
    return span


def _statistics(struct: Struct | None, base: int) -> tuple[Binary, ...]:
    """Min and max, old and new fields, with their place in the file."""
    if struct is None:
        return ()
    found = [v for number, _wire, v in struct if number in (1, 2, 5, 6) and isinstance(v, Binary)]
    return tuple(_moved(v, base) for v in found)


def _pairs(struct: Struct, number: int, base: int) -> tuple[tuple[Binary, Binary], ...]:
    found = []
    for item in _items(struct, number):
        pair = _as_struct(item)
        key, value = thrift.get(pair, 1), thrift.get(pair, 2)
        key, value = key if key is not None else Binary(), value if value is not None else Binary()
        if not isinstance(key, Binary) or not isinstance(value, Binary):
            raise MalformedFooter("a key-value pair is not text")
        found.append((_moved(key, base), _moved(value, base)))
    return tuple(found)


def _moved(value: Binary, base: int) -> Binary:
    moved = Binary(value)
    moved.at = base + value.at if value.at >= 0 else -1
    return moved


# ---------------------------------------------------------------- a field of the type it should have


def _int(struct: Struct, number: int, default: int | None = None) -> int:
    value = thrift.get(struct, number)
    if value is None and default is not None:
        return default
    return _as_int(value)


def _as_int(value: thrift.Value | None) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise MalformedFooter("a number is missing, or is of another type")
    return value


def _as_struct(value: thrift.Value | None) -> Struct:
    if not isinstance(value, list):
        raise MalformedFooter("a struct is missing, or is of another type")
    return value


def _sub(struct: Struct, number: int) -> Struct:
    return _as_struct(thrift.get(struct, number))


def _maybe(struct: Struct, number: int) -> Struct | None:
    value = thrift.get(struct, number)
    return None if value is None else _as_struct(value)


def _items(struct: Struct, number: int) -> list[thrift.Value]:
    value = thrift.get(struct, number)
    if value is None:
        return []
    if not isinstance(value, thrift.List):
        raise MalformedFooter("a list is missing, or is of another type")
    return value.items


def _text(value: thrift.Value) -> str:
    if not isinstance(value, bytes):
        raise MalformedFooter("a name is not text")
    return value.decode("utf-8", "replace")

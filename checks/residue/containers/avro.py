"""Avro object container files (Iceberg's manifests among them), block by block.

`avro:block`: a block as it was unpacked, in which text stands as it is; `avro:row`: numbers of the rows, written out,
for they lie in the block with a bit moved. The header with the schema and the file's own key-values is plain. After a
damaged block the next one is found by the marker that ends each.
"""

from __future__ import annotations

import bz2
import io
import json
import lzma
import zlib
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import zstandard

from fangxin.checks.residue.containers.piece import NotExaminable, Piece, Place, Readable, Spans, inside
from fangxin.checks.residue.containers.streams import MEMORY, snappy_raw

if TYPE_CHECKING:
    from fangxin.checks.residue.carve import Walk

_CODECS: dict[bytes, Callable[[bytes], bytes]] = {
    b"null": bytes,
    b"": bytes,
    b"deflate": lambda data: zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, MEMORY),
    b"snappy": lambda data: snappy_raw(data[:-4]),  # a checksum stands behind the block
    b"bzip2": lambda data: bz2.BZ2Decompressor().decompress(data, MEMORY),
    b"xz": lambda data: lzma.LZMADecompressor(memlimit=MEMORY).decompress(data, MEMORY),
    b"zstandard": lambda data: zstandard.ZstdDecompressor(max_window_size=MEMORY // 2).stream_reader(data).read(MEMORY),
}


def opened(walk: Walk, place: Place) -> Generator[Piece, None, Spans]:
    """Open the file that begins at the place."""
    label, file = inside(place.label, "avro"), place.file
    if not place.sure and b"avro.schema" not in place.bytes(1 << 16):
        return ()  # four letters by chance
    meta, at = _header(file, place.at + 4)
    sync = file.at(at, 16)
    codec = meta.get(b"avro.codec", b"null")
    if len(sync) < 16 or b"avro.schema" not in meta:
        raise NotExaminable("the header is damaged")
    if codec not in _CODECS:
        raise NotExaminable("a codec that is not decoded here")
    decode = _rows_of(walk, meta[b"avro.schema"], label)
    at += 16
    while at < file.size:
        data, end = _block(file, at, sync)
        if data is None:
            following = _find(file, sync, at)
            if following is not None or place.sure:  # in an image something else may follow the last block
                walk.note(label, f"the block at byte {at} is damaged or cut short")
            if following is None:
                break
            at = following + 16
            continue
        count, body = data
        yield from walk.guarded(_opened(walk, body, count, codec, decode, label, place.depth), label)
        at = end
        if file.at(at, 4) == b"Obj\x01":  # another file follows
            break
    return [(place.at, min(at, file.size))]


def _opened(
    walk: Walk, body: bytes, count: int, codec: bytes, decode: _Decode | None, label: str, depth: int
) -> Iterator[Piece]:
    plain = _CODECS[codec](body)
    walk.spend(len(plain))
    yield from walk.leaf(plain, f"{label}:block", "", depth)
    if decode is not None:
        for column, text in decode(plain, count).items():
            yield Piece(f"{label}:row", column, text.encode("utf-8", "surrogatepass"))


_Decode = Callable[[bytes, int], dict[str, str]]


def _rows_of(walk: Walk, schema: bytes, label: str) -> _Decode | None:
    """What writes out the numbers of a block, if the schema has any."""
    if b'"long"' not in schema and b'"int"' not in schema and b'"decimal"' not in schema:
        return None
    import fastavro

    try:
        parsed = fastavro.parse_schema(json.loads(schema))
    except Exception:
        walk.note(label, "the schema cannot be read: numbers in it were not written out")
        return None

    def decode(plain: bytes, count: int) -> dict[str, str]:
        source, found = io.BytesIO(plain), dict[str, list[str]]()
        for _ in range(count):
            _numbers(fastavro.schemaless_reader(source, parsed, None), "", found)
        return {column: "\n".join(values) for column, values in found.items()}

    return decode


def _numbers(value: Any, column: str, found: dict[str, list[str]]) -> None:  # whatever a schema may describe
    if isinstance(value, dict):
        for key, one in value.items():
            _numbers(one, f"{column}.{key}" if column else str(key), found)
    elif isinstance(value, list | tuple):
        for one in value:
            _numbers(one, column, found)
    elif value is not None and not isinstance(value, str | bytes | bool):
        found.setdefault(column, []).append(str(value))


def _header(file: Readable, at: int) -> tuple[dict[bytes, bytes], int]:
    meta: dict[bytes, bytes] = {}
    while True:
        count, at = _long(file, at)
        if count < 0:
            _size, at = _long(file, at)
        if count == 0:
            return meta, at
        for _ in range(abs(count)):
            parts = []
            for _part in range(2):
                size, at = _long(file, at)
                if not 0 <= size <= file.size - at:
                    raise NotExaminable("the header is damaged")
                parts.append(file.at(at, size))
                at += size
            meta[parts[0]] = parts[1]


def _block(file: Readable, at: int, sync: bytes) -> tuple[tuple[int, bytes] | None, int]:
    try:
        count, begin = _long(file, at)
        size, begin = _long(file, begin)
    except NotExaminable:
        return None, at
    if count < 0 or not 0 <= size <= file.size - begin or file.at(begin + size, 16) != sync:
        return None, at
    return (count, file.at(begin, size)), begin + size + 16


def _find(file: Readable, sync: bytes, at: int) -> int | None:
    tail = b""
    while data := file.at(at, 4 << 20):
        found = (tail + data).find(sync)
        if found >= 0:
            return at - len(tail) + found
        tail = data[-15:]
        at += len(data)
    return None


def _long(file: Readable, at: int) -> tuple[int, int]:
    value = 0
    for n, byte in enumerate(file.at(at, 10)):
        value |= (byte & 0x7F) << 7 * n
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at + n + 1
    raise NotExaminable("a number is damaged or cut short")

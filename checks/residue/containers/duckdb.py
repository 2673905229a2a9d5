"""DuckDB: rows decoded by DuckDB itself, for a search of the stored bytes finds nothing in compressed blocks.

* `duckdb:table=t` (or `schema.t`): values of rows by column, once as the file holds them and once more with the
  write-ahead log beside it replayed, so that a row deleted in the log is still seen. `duckdb:catalog`: the SQL of
  tables, views, indexes and macros, the entries of enums, comments.
* The file's blocks and its log are raw bytes as well: an uncompressed block, column bounds and small inserts in the
  log show their values there. What sorts spilled is told in duckdb_spill.py.
* A block on the free list keeps what it held. Compressed, nobody can decode it without the metadata that is gone:
  such blocks are counted and named as not examinable.

The engine works in a process of its own (duckdb_reader.py, apart.py), for it may die of a damaged file.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from fangxin.checks.residue.containers import apart
from fangxin.checks.residue.containers.arrow import texts
from fangxin.checks.residue.containers.piece import (
    NotExaminable,
    OpenFile,
    Piece,
    Place,
    Readable,
    Slice,
    Spans,
    inside,
)

if TYPE_CHECKING:
    from fangxin.checks.residue.carve import Walk

HEADERS = 12_288  # a main header and two database headers of 4 KiB each
NONE = (1 << 64) - 1


def is_duckdb(data: bytes, at: int) -> bool:
    """Whether a checksum stands before the mark and a storage version behind it."""
    return 0 <= at <= len(data) - 20 and int.from_bytes(data[at + 12 : at + 20], "little") < 1 << 16


def opened(walk: Walk, place: Place) -> Generator[Piece, None, Spans]:
    """Open the database that begins at the place."""
    label = inside(place.label, "duckdb")
    header = _header(place)
    file = place.file if place.at == 0 else Slice(place.file, place.at, _size(place, header))
    if header is not None:
        yield from walk.guarded(_free(walk, file, header, label), label)
    with _log_beside(file) as log:
        for wal in (None, log) if log is not None else (None,):
            yield from walk.guarded(_rows(walk, file, wal, label, place.depth), label)
    return [(place.at, place.at + file.size)]


def _size(place: Place, header: tuple[int, ...] | None) -> int:
    rest = place.file.size - place.at
    return min(rest, HEADERS + header[4] * header[5]) if header else rest


def _header(place: Place) -> tuple[int, ...] | None:
    """The newer database header: checksum, iteration, metadata, free list, count and size of the blocks."""
    found = []
    for at in (4096, 8192):
        data = place.bytes(48, at)
        fields = struct.unpack("<6Q", data) if len(data) == 48 else ()
        if fields and fields[5] in (1 << n for n in range(14, 19)) and fields[4] < 1 << 40:
            found.append(fields)
    return max(found, key=lambda fields: fields[1], default=None)


def _free(walk: Walk, file: Readable, header: tuple[int, ...], label: str) -> Iterator[Piece]:
    """Name the blocks on the free list that are not empty; their bytes are searched as they lie, with all others."""
    yield from ()
    count, size = header[4], header[5]
    data = b"".join(_chain(file, header[3], size, count))
    free = int.from_bytes(data[:8], "little")
    if free * 8 + 8 > len(data):
        raise NotExaminable("the list of free blocks is damaged")
    numbers = [n for n in struct.unpack_from(f"<{free}Q", data, 8) if n < count] if free else []
    used = sum(any(file.at(HEADERS + n * size, size)) for n in numbers)
    if used:
        walk.note(
            label, f"{used} of {count} blocks are free and not empty: what they keep compressed cannot be decoded"
        )


def _chain(file: Readable, pointer: int, size: int, count: int) -> Iterator[bytes]:
    """The parts of one piece of metadata: 64 of them share a block, each begins with where the next one is."""
    part, seen = (size - 8) // 64 // 8 * 8, set[int]()
    while pointer != NONE:
        block, index = pointer & (1 << 56) - 1, pointer >> 56
        if pointer in seen or block >= count or index >= 64:
            raise NotExaminable("the list of free blocks is damaged")
        seen.add(pointer)
        data = file.at(HEADERS + block * size + 8 + index * part, part)
        pointer = int.from_bytes(data[:8], "little")
        yield data[8:]


class _log_beside:  # noqa: N801  read as a word: with _log_beside(file) as log
    """The write-ahead log that lies beside an open file, opened read-only; None where there is none."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._fd = -1

    def __enter__(self) -> OpenFile | None:
        if not isinstance(self._file, OpenFile):
            return None
        try:
            path = f"{Path(f'/proc/self/fd/{self._file.fd}').readlink()}.wal"
            self._fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return None
        log = OpenFile(self._fd)
        return log if log.size else None

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)


def _rows(walk: Walk, file: Readable, wal: Readable | None, label: str, depth: int) -> Iterator[Piece]:
    for head, body in apart.duckdb(file, wal):
        if head["kind"] == "catalog":
            walk.spend(len(body))
            yield Piece(f"{label}:catalog", "", body)
            continue
        schema, table = head["schema"], head["table"]
        place = f"{label}:table={table if schema == 'main' else f'{schema}.{table}'}"
        for batch in pa.ipc.open_stream(pa.py_buffer(body)):
            for column, values in zip(batch.schema.names, batch.columns, strict=True):
                yield from texts(walk, values, place, column, depth)

"""What DuckDB's sorts spilled to disk and a killed process left there.

`duckdb:spill`: the keys of a sort as values again. Text in a key has every byte raised by one; keys of a fixed size are
words of eight bytes, each last byte first; short ones are both. The payload lies as it is and is found raw, where it
is packed as `zstd`. Files are recognised by the engine's names for them, for they begin with no mark.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import zstandard

from fangxin.checks.residue.containers.piece import OpenFile, Piece, Place, Readable, Spans, inside

if TYPE_CHECKING:
    from fangxin.checks.residue.carve import Walk

_NAME = re.compile(r"duckdb_temp_\w*(?:storage|block)\w*?(?:_S(\d+)K)?(?:-\d+)?\.(?:tmp|block)")


def is_spill(file: Readable) -> bool:
    """Whether an open file has the name of one."""
    return _named(file) is not None


def _named(file: Readable) -> re.Match[str] | None:
    if not isinstance(file, OpenFile):
        return None
    return _NAME.fullmatch(Path(f"/proc/self/fd/{file.fd}").readlink().name)


def opened(walk: Walk, place: Place) -> Generator[Piece, None, Spans]:
    """Turn the keys back; blocks that were packed lie in slots of the size in the file's name."""
    name, label = _named(place.file), inside(place.label, "duckdb:spill")
    slot = int(name[1] or 0) << 10 if name else 0
    for at in range(0, place.file.size, slot) if slot else ():
        block = _block(place, at, slot)
        walk.spend(len(block))
        for view in _views(block):
            yield Piece(label, "", view)
    if slot:
        return ()
    for at in range(0, place.file.size, walk.limits.chunk):
        before = min(at, -(-walk.margin // 8) * 8)
        for view in _views(place.file.at(at - before, walk.limits.chunk + before)):
            yield Piece(label, "", view, at - before)
    return ()


def _block(place: Place, at: int, slot: int) -> bytes:
    size = int.from_bytes(place.file.at(at, 8), "little")
    try:
        packed = place.file.at(at + 8, min(size, slot - 8))
        return zstandard.ZstdDecompressor().decompressobj().decompress(packed)
    except zstandard.ZstdError:
        return b""


def _views(data: bytes) -> Iterator[bytes]:
    codes = np.frombuffer(data, np.uint8)
    words = np.frombuffer(data, "<u8", len(data) // 8).byteswap()
    yield (codes - np.uint8(1)).tobytes()
    yield words.tobytes()
    yield (words.view(np.uint8) - np.uint8(1)).tobytes()

"""Pickles, read as the list of instructions that they are and never run; base64 around them and other containers.

* `pickle:text`: every text and number of the instructions, a line each: numbers lie in them as few bytes as they need,
  text of the oldest protocol with escapes. `pickle:bytes`: byte strings (the buffers of arrays and of Arrow), and the
  containers in them. Protocols 0 to 5.
* `base64`: what a run of base64 unpacks to, where that is a container: Prefect keeps results so, in JSON. Plain text
  in base64 is found by its own forms, at any alignment.
"""

from __future__ import annotations

import base64
import binascii
import io
import pickletools
import re
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

from fangxin.checks.residue.containers.piece import (
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

# Marks of the protocols that have one: the version, and what pickles begin with.
FRAMED = (b"\x80\x04\x95", b"\x80\x05\x95")
PLAIN = tuple(bytes((0x80, version, first)) for version in (2, 3) for first in b"c}](X")


def is_pickle(file: Readable) -> bool:
    """Whether a file is a pickle without a mark: one instruction after the other up to the last byte."""
    head = file.at(0, 3)
    if head.startswith((*FRAMED, *PLAIN)) or not head:
        return False
    known = head[0] == 0x80 and head[1:2] <= b"\5"
    if not known and (head[:1] not in b"(])}cVSIFLNKMJGXT" or file.at(file.size - 1, 1) != b"."):
        return False
    seen = 0
    try:
        for seen, _instruction in enumerate(pickletools.genops(_Source(Slice(file, 0, file.size))), 1):
            if known and seen == 16:
                break
    except Exception:
        return False
    return seen > 1


def may_begin(data: bytes, at: int) -> bool:
    """Whether what follows the mark can: a frame of a size that exists, the name of a module, a note to remember."""
    if data[at + 1 : at + 2] >= b"\4":
        return int.from_bytes(data[at + 3 : at + 11], "little") < 1 << 40
    first = data[at + 2 : at + 3]
    if first == b"X":
        return int.from_bytes(data[at + 3 : at + 7], "little") < 1 << 30
    return (_MODULE if first == b"c" else _NOTE).match(data, at + 3) is not None


_MODULE, _NOTE = re.compile(rb"[A-Za-z_][A-Za-z0-9_.]{0,99}\n"), re.compile(rb"[qr(.X]")


def opened(walk: Walk, place: Place) -> Generator[Piece, None, Spans]:
    """Read the instructions from the place on."""
    label, source = inside(place.label, "pickle"), _Source(place.rest())
    texts, size, held, failure = list[bytes](), 0, 0, ""
    instructions = pickletools.genops(source)
    while True:
        try:
            _code, value, _at = next(instructions)
        except StopIteration:
            break
        except Exception:  # an instruction that is none, or is cut
            failure = "cut short or damaged: its instructions end before the last one"
            break
        if isinstance(value, bytes | bytearray):
            held += len(value)
            walk.spend(len(value))
            yield from _bytes(walk, bytes(value), f"{label}:bytes", place.depth)
        elif isinstance(value, str | int | float):
            texts += _written(value)
            size += len(texts[-1])
        if size >= walk.limits.chunk:
            walk.spend(size)
            yield from walk.leaf(b"\n".join(texts), f"{label}:text", "", place.depth)
            held, texts, size = held + size, [], 0
    if failure and not place.sure and held + size < 1024:
        return ()
    if texts:
        yield from walk.leaf(b"\n".join(texts), f"{label}:text", "", place.depth)
    if failure:
        raise NotExaminable(failure)
    return [(place.at, place.at + source.tell())]


class _Source(io.BufferedReader):
    """What the instructions are read from: a length that goes beyond the end is not read for."""

    def __init__(self, file: Slice) -> None:
        super().__init__(Reader(file))
        self._size = file.size

    def read(self, size: int | None = -1) -> bytes:
        """As many bytes as there are; none where more are wanted."""
        return super().read(size) if size is not None and 0 <= size <= self._size - self.tell() else b""

    def readline(self, size: int | None = -1) -> bytes:
        """A line of the old protocols, of a mebibyte at most."""
        return super().readline(1 << 20 if size is None or size < 0 else size)


def _written(value: str | int | float) -> Iterator[bytes]:
    text = value if isinstance(value, str) else str(value)
    yield text.encode("utf-8", "surrogatepass")
    if isinstance(value, str) and not text.isascii():  # the oldest protocol writes bytes as text of Latin letters
        narrow = text.encode("latin-1", "ignore")
        if len(narrow) == len(text):
            yield narrow


def _bytes(walk: Walk, value: bytes, label: str, depth: int) -> Iterator[Piece]:
    if walk.opens(InMemory(value)):
        yield from walk.layers(InMemory(value), label, depth + 1)
    else:
        yield from walk.leaf(value, label, "", depth)


# ---------------------------------------------------------------- base64

_ZLIB = ((b"eJ", b"wxyz"), (b"eN", b"opqr"), (b"eA", b"EFGH"), (b"eF", b"4567"))
# What containers begin with, in base64: as many characters as the first bytes settle.
BASE64 = (
    *(b"gASV", b"gAWV", b"gANj", b"gAN9", b"gANd", b"gANY", b"gAJj", b"gAJ9", b"gAJd", b"gAJY"),  # pickle
    *(b"H4sI", b"KLUv/", b"KLUv_", b"UEsDB", b"/Td6WFo", b"_Td6WFo", b"XQAA"),  # gzip zstd zip xz lzma
    *(b"QlpoM", b"QlpoN", b"QlpoO", b"BCJNGE", b"BCJNGF", b"BCJNGG", b"BCJNGH", b"iVBORw0KGgo"),  # bz2 lz4 PNG
    *(b"UEFSMR", b"QVJST1cx", b"T2JqA", b"U1FMaXRlIGZvcm1hdCAz"),  # Parquet, Arrow, Avro, SQLite
    *(start + bytes([sign]) for start, signs in _ZLIB for sign in signs),  # the third character depends on the data
)
_RUN = re.compile(rb"(?:[A-Za-z0-9+/_-]|\r?\n|\\r|\\n|\\/)+=*")
_BREAKS = re.compile(rb"\s|\\[rn]|\\(?=/)")
_ALPHABET = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_")


def is_base64(data: bytes, at: int) -> bool:
    """Whether a run begins here, long enough for a container, and its first bytes are one's."""
    if at and data[at - 1] in _ALPHABET and data[at - 2 : at] != b"\\n":
        return False
    run = _RUN.match(data, at, at + 96)
    return run is not None and len(run[0]) >= 24


def base64_run(walk: Walk, place: Place) -> Generator[Piece, None, Spans]:
    """Decode the run that begins at the place and open what is in it; nothing where that is no container."""
    start = _decoded(place.bytes(96))
    if not walk.opens(InMemory(start)):
        return ()
    size = 1 << 16
    while True:  # as far as the run goes
        run = _RUN.match(place.bytes(size))
        end = len(run[0]) if run else 0
        if end < size - 2 or size >= walk.limits.memory * 2:
            break
        size *= 4
    plain = _decoded(place.bytes(end))
    walk.spend(len(plain))
    yield from walk.layers(InMemory(plain), inside(place.label, "base64"), place.depth + 1)
    return [(place.at, place.at + end)]


def _decoded(run: bytes) -> bytes:
    match = _RUN.match(run)
    text = _BREAKS.sub(b"", match[0]).rstrip(b"=") if match else b""
    text = text[: len(text) - (len(text) % 4 == 1)].translate(bytes.maketrans(b"-_", b"+/"))
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4))
    except binascii.Error:
        return b""

"""What the walk hands out and what families of containers are given: pieces, limits, places, and bytes to read at."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa

from fangxin.data.columnar.footer import InMemory, Readable
from fangxin.data.vocabulary import ASIDE

__all__ = [
    "MIB",
    "InMemory",
    "Limits",
    "NotExaminable",
    "OpenFile",
    "Piece",
    "Place",
    "Readable",
    "Reader",
    "Seen",
    "Slice",
    "Spans",
    "Window",
    "inside",
]

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Where carving stops and says so. Sizes in bytes; `ratio` counts from `free` decoded bytes of one file on.

    `chunk` is a multiple of 64 KiB, SQLite's largest page.
    """

    chunk: int = 4 * MIB
    depth: int = 6
    memory: int = 64 * MIB  # a nested container is opened in memory up to this size
    database: int = 128 * MIB  # a SQLite file is opened in memory up to this size, else read-only in place
    page: int = 256 * MIB
    ratio: int = 1_000
    free: int = 256 * MIB
    total: int = 64 << 30


@dataclass(frozen=True)
class Piece:
    """Bytes to search: `data` begins at `offset` of its layer; hits that start in [start, stop) of it are its own.

    The bytes around belong to the pieces before and after, and are there so that a hit is seen whole.
    """

    container: str
    column: str
    data: bytes | memoryview = field(repr=False)
    offset: int = 0
    start: int = 0
    stop: int | None = None
    decoded: bool = True
    sqlite: bool = False
    values: pa.Array | None = field(default=None, repr=False)  # the same bytes as a column, where they were decoded so

    @property
    def size(self) -> int:
        """Bytes that are this piece's own."""
        return (len(self.data) if self.stop is None else self.stop) - self.start


WHOLE = 64 << 10  # bytes of a file up to which it is taken at one moment
AGAIN = 8  # looks at such a file before its changes are told


class NotExaminable(Exception):  # noqa: N818  the printed class of result, not a failure of ours
    """A part that cannot be examined; the message is the printed reason and quotes no data."""


class OpenFile:
    """An open regular file, read at any place without moving its position.

    A small one is taken whole, once more where its owner writes to it at that moment: a heartbeat is no change.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.first = self.last = os.fstat(fd)  # how it was before the first read, and after the last one
        self.read = 0  # bytes handed out
        self._whole: bytes | None = None
        for _ in range(AGAIN):
            if self.first.st_size > WHOLE or not stat.S_ISREG(self.first.st_mode):
                break
            body = os.pread(fd, WHOLE + 1, 0)
            self.last = os.fstat(fd)
            if len(body) == self.first.st_size and unchanged(self.first, self.last):
                self._whole = body
                break
            self.first = self.last
        self.size = self.first.st_size

    def at(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes; raises NotExaminable if the file has become shorter than it was."""
        wanted = max(0, min(length, self.size - offset))
        if self._whole is not None:
            self.read += wanted
            return self._whole[offset : offset + wanted]
        parts = []
        while wanted > 0:
            part = os.pread(self.fd, wanted, offset)
            if not part:
                raise NotExaminable("the file became shorter while it was read")
            parts.append(part)
            offset, wanted = offset + len(part), wanted - len(part)
        found = parts[0] if len(parts) == 1 else b"".join(parts)
        self.read += len(found)
        self.last = os.fstat(self.fd)
        return found


def unchanged(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether a file is as it was, as far as its size and the time of its last change tell."""
    return (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)


@dataclass(frozen=True)
class Slice:
    """A stretch of something readable: a member that lies unpacked in an archive, a file in an image.

    `start` may be negative where the beginning of a file is missing: what lies there is not examinable.
    """

    of: Readable
    start: int
    size: int

    def at(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset` of the slice."""
        if self.start + offset < 0:
            raise NotExaminable("its beginning is missing")
        return self.of.at(self.start + offset, max(0, min(length, self.size - offset)))


Spans = Iterable[tuple[int, int]]  # stretches of a file [start, end) that an opened container accounts for


@dataclass(frozen=True)
class Place:
    """Where something may begin: offset `at` of a file that is labelled `label`, `depth` containers deep.

    `sure` where it is the file's first byte: then what cannot be opened is said, for it is not there by chance.
    """

    file: Readable
    at: int
    label: str
    depth: int
    sure: bool

    def bytes(self, length: int, offset: int = 0) -> bytes:
        """Up to `length` bytes from the place, or from `offset` behind it."""
        return self.file.at(self.at + offset, length)

    def rest(self) -> Slice:
        """Everything from the place to the end of the file."""
        return Slice(self.file, self.at, self.file.size - self.at)


class Seen(NamedTuple):
    """A window on a stream: the first fields of a Piece after its names."""

    data: bytes
    offset: int
    start: int
    stop: int


class Window:
    """Cuts a stream into windows in which every hit is seen whole, with the bytes beside it, exactly once."""

    def __init__(self, margin: int) -> None:
        self._margin = margin
        self._tail = b""
        self._offset = 0  # of the tail's first byte
        self._begin = 0  # first offset whose hits were not handed out yet

    def push(self, new: bytes, *, last: bool) -> Seen:
        """The window that `new` completes; hits that start in its last `margin` bytes wait for the next one."""
        data = self._tail + new if self._tail else new
        offset, start = self._offset, self._begin - self._offset
        stop = len(data) if last else max(start, len(data) - self._margin)
        keep = max(0, stop - ASIDE)  # what stands before a hit may disprove it
        self._tail, self._offset, self._begin = data[keep:], offset + keep, offset + stop
        return Seen(data, offset, start, stop)


class Reader(io.RawIOBase):
    """Something readable as the file object that other libraries want."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._at = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """The position of the next read."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position; it may lie behind the end."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def size(self) -> int:
        """How many bytes there are."""
        return self._file.size

    def read(self, size: int | None = -1) -> bytes:
        """Up to `size` bytes, fewer at the end only."""
        wanted = self._file.size - self._at if size is None or size < 0 else size
        data = self._file.at(self._at, max(wanted, 0))
        self._at += len(data)
        return data

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # the base allows any buffer
        """Fill the buffer as far as there are bytes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def inside(label: str, what: str) -> str:
    """The label of a container in another."""
    return f"{label} > {what}" if label else what

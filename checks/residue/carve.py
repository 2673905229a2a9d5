"""Open whatever holds bytes inside a file, and hand over every layer to be searched.

A file is read once, in pieces that overlap by the longest needle, and each container in it is opened in memory,
recursively. What each container label means:

* `raw`: bytes as they lie in the file. Inside a container its own name stands instead (`gzip`, `zip`, `tar`, ...),
  joined by ` > ` where one lies in another.
* `parquet:page`, `parquet:dictionary`: decompressed pages of one column (dictionary entries also where no row
  refers to them); `parquet:values`: columns whose encoding hides values, decoded; `parquet:header`: page headers
  and packed bodies as stored; `parquet:statistics`, `parquet:index`, `parquet:bloom`, `parquet:key-value`,
  `parquet:footer` and `parquet:gap`: the rest, so that every byte of the file belongs to one of them.
* `sqlite:table=t`: values of living rows by column, overflow chains joined; `sqlite:index=t`: what a full-text index
  keeps of another table's rows; `sqlite:free`: pages on the free list
  and unallocated bytes inside pages, which belong to no row; `sqlite:page`: the whole file as it lies, both at once.
* `arrow:column`: buffers of Arrow IPC and Feather files.

What cannot be opened is named with its reason and searched raw all the same: encrypted, damaged, cut short, too
deep, larger than the limits (a bomb), or of a kind that is recognised but not decoded here. Embedded containers are
found at any offset for gzip only. Bloom filters are searched as bytes, not probed.
"""

from __future__ import annotations

import bz2
import io
import lzma
import os
import re
import sqlite3
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from fangxin.data.columnar.footer import Chunk, Footer, InMemory, MalformedFooter, Page, Readable, open_footer, pages

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

    @property
    def size(self) -> int:
        """Bytes that are this piece's own."""
        return (len(self.data) if self.stop is None else self.stop) - self.start


class NotExaminable(Exception):  # noqa: N818  the printed class of result, not a failure of ours
    """A part that cannot be examined; the message is the printed reason and quotes no data."""


class OpenFile:
    """An open regular file, read at any place without moving its position."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.size = os.fstat(fd).st_size
        self.read = 0  # bytes handed out

    def at(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes; raises NotExaminable if the file has become shorter than it was."""
        wanted = max(0, min(length, self.size - offset))
        parts = []
        while wanted > 0:
            part = os.pread(self.fd, wanted, offset)
            if not part:
                raise NotExaminable("the file became shorter while it was read")
            parts.append(part)
            offset, wanted = offset + len(part), wanted - len(part)
        found = parts[0] if len(parts) == 1 else b"".join(parts)
        self.read += len(found)
        return found


@dataclass(frozen=True)
class _Slice:
    """A stretch of something readable: a member that lies unpacked in an archive."""

    of: Readable
    start: int
    size: int

    def at(self, offset: int, length: int) -> bytes:
        return self.of.at(self.start + offset, max(0, min(length, self.size - offset)))


def carve(file: Readable, *, margin: int, limits: Limits | None = None, problems: list[str]) -> Iterator[Piece]:
    """Yield every layer of a file in pieces that overlap by `margin`; reasons of what stays closed go to `problems`."""
    yield from _Carver(file.size, margin, limits or Limits(), problems).layers(file, "", 0)


class _Carver:
    """One walk through one file: its budget, and the reasons of what could not be opened."""

    def __init__(self, stored: int, margin: int, limits: Limits, problems: list[str]) -> None:
        self.stored = max(stored, 1)
        self.margin = margin
        self.limits = limits
        self.problems = problems
        self.decoded = 0

    def layers(self, file: Readable, label: str, depth: int) -> Iterator[Piece]:
        """Every layer of a file or of something found in one."""
        head = file.at(0, 512)
        kind = _kind(head)
        if depth > self.limits.depth:
            self._note(label, f"containers are nested deeper than {self.limits.depth}")
            yield from self._raw(file, label, depth, members=False)
        elif kind == "parquet":
            yield from self._parquet(file, label, depth)
        elif kind == "sqlite":
            yield from self._sqlite(file, label, depth)
        else:
            yield from self._raw(file, label, depth, members=True)
            yield from self._opened(file, head, kind, label, depth)

    def _opened(self, file: Readable, head: bytes, kind: str, label: str, depth: int) -> Iterator[Piece]:
        streams: dict[str, Callable[[Readable], Iterator[bytes]]] = {
            "bz2": lambda f: self._stream(f, bz2.BZ2Decompressor),
            "xz": lambda f: self._stream(f, lambda: lzma.LZMADecompressor(memlimit=256 * MIB)),
            "zstd": lambda f: self._arrow_stream(f, "zstd"),
            "lz4": lambda f: self._arrow_stream(f, "lz4"),
            "zlib": lambda f: self._inflated(f, 0, zlib.MAX_WBITS),
        }
        if kind in streams:
            yield from self._unpacked(streams[kind](file), _in(label, kind), depth, sure=kind != "zlib")
        elif kind == "tar":
            yield from self._guarded(self._tar(file, _in(label, "tar"), depth), _in(label, "tar"))
        elif kind == "arrow":
            yield from self._guarded(self._arrow(file, _in(label, "arrow")), _in(label, "arrow"))
        elif kind == "zip" or b"PK\5\6" in file.at(max(0, file.size - 65_557), 65_557):
            yield from self._guarded(self._zip(file, _in(label, "zip"), depth), _in(label, "zip"))
        elif kind == "DuckDB" or kind in _CLOSED.values():
            self._note(label, f"{kind}: recognised, but not decoded; only its raw bytes were searched")

    def _note(self, label: str, reason: str) -> None:
        text = f"{label}: {reason}" if label else reason
        if text not in self.problems:
            self.problems.append(text)

    def _guarded(self, layer: Iterator[Piece], label: str) -> Iterator[Piece]:
        """Whatever a decoder raises on bytes it did not expect, the answer is the same: not examinable."""
        try:
            yield from layer
        except NotExaminable as reason:
            self._note(label, str(reason))
        except MalformedFooter as error:
            self._note(label, error.message)
        except Exception as error:
            self._note(label, f"cannot be decoded ({type(error).__name__})")

    def _spend(self, size: int) -> None:
        self.decoded += size
        if self.decoded > self.limits.total or (
            self.decoded > self.limits.free and self.decoded > self.limits.ratio * self.stored
        ):
            raise NotExaminable(f"unpacks to more than {self.decoded // MIB} MiB from {self.stored} bytes")

    # ------------------------------------------------------------ bytes as they lie

    def _windows(self, file: Readable) -> Iterator[_Seen]:
        """The whole of something readable, window by window."""
        window, at = _Window(self.margin), 0
        while at < file.size:
            new = file.at(at, self.limits.chunk)
            at += len(new)
            yield window.push(new, last=at >= file.size)

    def _raw(self, file: Readable, label: str, depth: int, *, members: bool) -> Iterator[Piece]:
        opened_to = 0
        for seen in self._windows(file):
            yield Piece(label or "raw", "", *seen, decoded=bool(label))
            # A magic number that the border cuts in two is found whole at the start of the next window.
            for found in _GZIP.finditer(seen.data) if members else ():
                at = seen.offset + found.start()
                if at >= opened_to:
                    opened_to = at + 1
                    end = yield from self._member(file, at, label, depth)
                    opened_to = max(opened_to, end)

    def _member(self, file: Readable, at: int, label: str, depth: int) -> Generator[Piece, None, int]:
        """Open the gzip members that begin at `at`; return where they end."""
        ends: list[int] = []
        stream = self._inflated(file, at, zlib.MAX_WBITS | 16, ends)
        yield from self._unpacked(stream, _in(label, "gzip"), depth, sure=at == 0)
        return ends[-1] if ends else at

    def _leaf(
        self, data: bytes | memoryview, container: str, column: str, depth: int, offset: int = 0
    ) -> Iterator[Piece]:
        """A decoded layer that lies in memory, with the gzip members in it."""
        yield Piece(container, column, data, offset)
        opened_to = 0
        for found in _GZIP.finditer(data) if depth < self.limits.depth else ():
            if found.start() >= opened_to:
                inside = InMemory(bytes(data))
                opened_to = yield from self._member(inside, found.start(), f"{container}", depth + 1)
                opened_to = max(opened_to, found.end())

    # ------------------------------------------------------------ compressed streams

    def _unpacked(self, stream: Iterator[bytes], label: str, depth: int, *, sure: bool) -> Iterator[Piece]:
        """A decoded stream: opened as a file of its own if it fits in memory, else searched as it passes.

        `sure` is false where the magic number may be chance; then a failure counts only after 4 KiB of sense.
        """
        held: list[bytes] = []
        size, window, failure = 0, _Window(self.margin), ""
        try:
            for data in stream:
                self._spend(len(data))
                size += len(data)
                if size <= self.limits.memory:
                    held.append(data)
                    continue
                if held:
                    if _kind(held[0]) not in ("", "gzip"):
                        self._note(label, f"a container of more than {self.limits.memory} bytes lies in another")
                    data, held = b"".join([*held, data]), []
                yield from self._leaf_in_stream(window.push(data, last=False), label, depth)
        except NotExaminable as reason:
            failure = str(reason)
        except Exception as error:
            failure = f"cannot be decoded to its end ({type(error).__name__})"
        if failure and (sure or size >= 4096):
            self._note(label, failure)
        if held:
            yield from self.layers(InMemory(b"".join(held)), label, depth + 1)
        elif size:
            yield Piece(label, "", *window.push(b"", last=True))

    def _leaf_in_stream(self, seen: _Seen, label: str, depth: int) -> Iterator[Piece]:
        yield Piece(label, "", *seen)
        for found in _GZIP.finditer(seen.data, seen.start) if depth < self.limits.depth else ():
            yield from self._member(InMemory(seen.data), found.start(), label, depth + 1)

    def _inflated(self, file: Readable, at: int, window: int, ends: list[int] | None = None) -> Iterator[bytes]:
        """Decode deflate members that follow each other; `ends` collects where each ended."""
        while True:
            machine, packed = zlib.decompressobj(window), b""
            while not machine.eof:
                if not packed:
                    packed = file.at(at, 256 << 10)
                    at += len(packed)
                plain = machine.decompress(packed, self.limits.chunk)
                if not packed and not plain and not machine.eof:  # nothing left, neither outside nor inside
                    raise NotExaminable("cut short: the stream ends before its end mark")
                packed = machine.unconsumed_tail
                if plain:
                    yield plain
            at -= len(machine.unused_data)
            if ends is not None:
                ends.append(at)
            if window == zlib.MAX_WBITS or not _GZIP.match(file.at(at, 4)):
                return

    def _stream(self, file: Readable, make: Callable[[], _Decompressor]) -> Iterator[bytes]:
        """Decode bz2 or xz streams that follow each other."""
        at, packed, begun = 0, b"", False
        while True:
            machine = make()
            while not machine.eof:
                if machine.needs_input and not packed:
                    packed = file.at(at, 256 << 10)
                    at += len(packed)
                    if not packed:
                        if begun and machine.needs_input:
                            raise NotExaminable("cut short: the stream ends before its end mark")
                        return
                plain = machine.decompress(packed, self.limits.chunk)
                packed, begun = b"", True
                if plain:
                    yield plain
            packed, begun = machine.unused_data.lstrip(b"\0"), False
            if not packed and at >= file.size:
                return

    def _arrow_stream(self, file: Readable, codec: str) -> Iterator[bytes]:
        with pa.CompressedInputStream(pa.PythonFile(_Reader(file), mode="r"), codec) as stream:
            while data := stream.read(self.limits.chunk):
                yield data

    # ------------------------------------------------------------ archives

    def _zip(self, file: Readable, label: str, depth: int) -> Iterator[Piece]:
        with zipfile.ZipFile(io.BufferedReader(_Reader(file))) as archive:
            for number, member in enumerate(archive.infolist(), 1):
                if member.is_dir():
                    continue
                if member.flag_bits & 1:
                    self._note(label, f"member {number} is encrypted")
                    continue
                yield from self._unpacked(self._zip_member(archive, member), label, depth, sure=True)

    def _zip_member(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
        with archive.open(member) as stream:
            while data := stream.read(self.limits.chunk):
                yield data

    def _tar(self, file: Readable, label: str, depth: int) -> Iterator[Piece]:
        """Open members that are containers themselves; the raw search has seen the others, and their names."""
        with tarfile.open(fileobj=io.BufferedReader(_Reader(file)), mode="r:") as archive:
            for member in archive:
                inside = _Slice(file, member.offset_data, member.size)
                if member.isreg() and _kind(inside.at(0, 512)) not in ("", "gzip"):
                    yield from self.layers(inside, label, depth + 1)

    def _arrow(self, file: Readable, label: str) -> Iterator[Piece]:
        reader = pa.ipc.open_file(pa.PythonFile(_Reader(file), mode="r"))
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                yield from self._arrays(column, f"{label}:column", name)

    def _arrays(self, array: pa.Array, container: str, column: str) -> Iterator[Piece]:
        for buffer in array.buffers():
            if buffer is not None and buffer.size:
                self._spend(buffer.size)
                yield Piece(container, column, memoryview(buffer))
        if isinstance(array, pa.DictionaryArray):
            yield from self._arrays(array.dictionary, container, column)

    # ------------------------------------------------------------ Parquet

    def _parquet(self, file: Readable, label: str, depth: int) -> Iterator[Piece]:
        try:
            footer = open_footer(file)
        except MalformedFooter as error:
            self._note(_in(label, "parquet"), error.message)
            yield from self._raw(file, label, depth, members=True)
            return
        known: list[tuple[int, int]] = [(footer.span.offset, footer.size), (0, 4)]
        for chunk in footer.chunks:
            yield from self._chunk(file, chunk, label, depth, known)
        yield from self._around(file, footer, label)
        yield from self._gaps(file, known, _in(label, "parquet:gap"))

    def _chunk(
        self, file: Readable, chunk: Chunk, label: str, depth: int, known: list[tuple[int, int]]
    ) -> Iterator[Piece]:
        if chunk.encrypted:
            self._note(_in(label, "parquet"), f"row group {chunk.row_group} has an encrypted column")
            return
        hidden = False
        try:
            for page in pages(file, chunk):
                yield from self._guarded(self._page(file, chunk, page, label, depth, known), _in(label, "parquet:page"))
                hidden = hidden or page.encoding in _HIDING
        except MalformedFooter as error:
            self._note(_in(label, "parquet:page"), error.message)
        if hidden:
            yield from self._guarded(self._values(file, chunk, label), _in(label, "parquet:values"))
        for what, span in (("index", chunk.column_index), ("index", chunk.offset_index), ("bloom", chunk.bloom)):
            if span is not None:
                known.append((span.offset, span.end))
                yield Piece(_in(label, f"parquet:{what}"), chunk.path, file.at(span.offset, span.length), span.offset)

    def _page(
        self, file: Readable, chunk: Chunk, page: Page, label: str, depth: int, known: list[tuple[int, int]]
    ) -> Iterator[Piece]:
        stored = file.at(page.header.offset, page.header.length + page.body.length)
        known.append((page.header.offset, page.body.end))
        body = memoryview(stored)[page.header.length :]
        as_stored = stored if page.compressed else stored[: page.header.length]
        yield Piece(_in(label, "parquet:header"), chunk.path, as_stored, page.header.offset, decoded=False)
        if page.compressed and page.uncompressed > self.limits.page:
            raise NotExaminable(f"a page unpacks to {page.uncompressed} bytes")
        plain: bytes | memoryview = body
        if page.compressed and page.body.length > page.levels:
            plain = _decompressed(chunk.codec, body[page.levels :], page.uncompressed - page.levels)
        self._spend(len(plain))
        kind = "dictionary" if page.kind == "dictionary" else "page"
        yield from self._leaf(plain, _in(label, f"parquet:{kind}"), chunk.path, depth)

    def _values(self, file: Readable, chunk: Chunk, label: str) -> Iterator[Piece]:
        """A column chunk whose encoding hides values (deltas, split bytes), decoded by pyarrow."""
        reader = pq.ParquetFile(pa.PythonFile(_Reader(file), mode="r"), pre_buffer=False)
        for batch in reader.iter_batches(
            64 << 10, row_groups=[chunk.row_group], columns=[chunk.path], use_threads=False
        ):
            for column in batch.columns:
                yield from self._arrays(column, _in(label, "parquet:values"), chunk.path)

    def _around(self, file: Readable, footer: Footer, label: str) -> Iterator[Piece]:
        """Statistics and key-values by their own names, then the footer without them."""
        rest = bytearray(file.at(footer.span.offset, footer.size - footer.span.offset))
        named = [("statistics", c.path, b) for c in footer.chunks for b in c.statistics]
        named += [("key-value", c.path, b) for c in footer.chunks for b in c.key_values]
        named += [("key-value", "", b) for pair in footer.key_values for b in pair]
        for what, column, value in named:
            if value.at >= 0:
                start = value.at - footer.span.offset
                rest[start : start + len(value)] = bytes(len(value))
            yield Piece(_in(label, f"parquet:{what}"), column, bytes(value), max(value.at, 0))
        yield Piece(_in(label, "parquet:footer"), "", bytes(rest), footer.span.offset, decoded=False)

    def _gaps(self, file: Readable, known: list[tuple[int, int]], label: str) -> Iterator[Piece]:
        at = 0
        for start, end in [*sorted(known), (file.size, file.size)]:
            if start > at:
                for seen in self._windows(_Slice(file, at, start - at)):
                    yield Piece(label, "", seen.data, at + seen.offset, seen.start, seen.stop, decoded=False)
            at = max(at, end)

    # ------------------------------------------------------------ SQLite

    def _sqlite(self, file: Readable, label: str, depth: int) -> Iterator[Piece]:
        yield from self._guarded(self._sqlite_pages(file, label), _in(label, "sqlite:page"))
        yield from self._guarded(self._sqlite_rows(file, label, depth), _in(label, "sqlite"))

    def _sqlite_pages(self, file: Readable, label: str) -> Iterator[Piece]:
        """The file as it lies, and the same with everything blanked that some row may still own."""
        head = file.at(0, 100)
        size = int.from_bytes(head[16:18], "big")
        size = 65_536 if size == 1 else size
        known = size >= 512 and not size & (size - 1)
        if not known:
            self._note(_in(label, "sqlite"), f"a page size of {size} is not one of SQLite's")
        free = _free_pages(file, head, size) if known else frozenset()
        as_stored, only_free, at = _Window(self.margin), _Window(self.margin), 0
        while at < file.size:
            new, first = file.at(at, self.limits.chunk), at // size + 1 if known else 0
            at += len(new)
            last = at >= file.size
            seen = as_stored.push(new, last=last)
            yield Piece(_in(label, "sqlite:page"), "", *seen, decoded=bool(label), sqlite=True)
            if known:
                seen = only_free.push(_only_free(new, first, size, free), last=last)
                yield Piece(_in(label, "sqlite:free"), "", *seen, decoded=False, sqlite=True)

    def _sqlite_rows(self, file: Readable, label: str, depth: int) -> Iterator[Piece]:
        database = self._sqlite_open(file)
        try:
            database.execute("PRAGMA trusted_schema = OFF")
            database.text_factory = bytes
            tables = database.execute(
                "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 ORDER BY name"
            ).fetchall()
            for (raw_table,) in tables:
                table = raw_table.decode("utf-8", "replace")
                rows = database.execute("SELECT name FROM pragma_table_xinfo(?) WHERE hidden <> 1", (table,)).fetchall()
                columns = [name.decode("utf-8", "replace") for (name,) in rows]
                place = _in(label, _table_or_index(database, table))
                # Names come from the file and are quoted as identifiers; numbers become decimal text here.
                wanted = ", ".join(f"ifnull(CAST({_quoted(c)} AS BLOB), x'')" for c in columns)
                cursor = database.execute(f"SELECT {wanted} FROM {_quoted(table)}")  # noqa: S608
                offsets = dict.fromkeys(columns, 0)
                rows_at_once = 64
                while batch := cursor.fetchmany(rows_at_once):
                    size = 0
                    for column, values in zip(columns, zip(*batch, strict=True), strict=True):
                        joined = b"\n".join(values)
                        self._spend(len(joined))
                        named = "" if "sqlite:index=" in place else column  # an index has no columns of anybody's
                        yield from self._leaf(joined, place, named, depth, offsets[column])
                        offsets[column] += len(joined) + 1
                        size += len(joined)
                    rows_at_once = max(1, min(10_000, self.limits.chunk * len(batch) // (size + 1)))
        finally:
            database.close()

    def _sqlite_open(self, file: Readable) -> sqlite3.Connection:
        if file.size <= self.limits.database:
            image = bytearray(file.at(0, file.size))
            image[18:20] = b"\1\1"  # a database in WAL mode opens from memory only as one that is not
            database = sqlite3.connect(":memory:")
            database.deserialize(bytes(image))
            return database
        if isinstance(file, OpenFile):
            return sqlite3.connect(f"file:/proc/self/fd/{file.fd}?mode=ro&immutable=1", uri=True)
        raise NotExaminable(f"a database of {file.size} bytes lies in another container")


def _table_or_index(database: sqlite3.Connection, table: str) -> str:
    """How the rows of a table are labelled: those in which a full-text index keeps its words are the index's own.

    What else a virtual table keeps (`_content`, the texts of an R-tree) stands nowhere else: it is that table's own.
    """
    listed = dict(database.execute("SELECT name, type FROM pragma_table_list WHERE schema = 'main'").fetchall())
    if listed.get(table.encode()) != b"shadow":
        return f"sqlite:table={table}"
    owners = [n.decode("utf-8", "replace") for n, kind in listed.items() if kind == b"virtual"]
    owner = max((o for o in owners if table.startswith(f"{o}_")), key=len, default=table)
    words = table.removeprefix(f"{owner}_") in _WORDS
    return f"sqlite:index={owner}" if words else f"sqlite:table={owner}"


_WORDS = ("data", "idx", "docsize", "config", "segments", "segdir", "stat")  # of FTS5, FTS4 and FTS3


class _Seen(NamedTuple):
    """A window on a stream: the first fields of a Piece after its names."""

    data: bytes
    offset: int
    start: int
    stop: int


class _Window:
    """Cuts a stream into windows in which every hit is seen whole, with the byte before and after it, exactly once."""

    def __init__(self, margin: int) -> None:
        self._margin = margin
        self._tail = b""
        self._offset = 0  # of the tail's first byte
        self._begin = 0  # first offset whose hits were not handed out yet

    def push(self, new: bytes, *, last: bool) -> _Seen:
        """The window that `new` completes; hits that start in its last `margin` bytes wait for the next one."""
        data = self._tail + new if self._tail else new
        offset, start = self._offset, self._begin - self._offset
        stop = len(data) if last else max(start, len(data) - self._margin)
        keep = max(0, stop - 1)  # one byte more: what stands before a hit may disprove it
        self._tail, self._offset, self._begin = data[keep:], offset + keep, offset + stop
        return _Seen(data, offset, start, stop)


# ---------------------------------------------------------------- what bytes look like

_GZIP = re.compile(rb"\x1f\x8b\x08[\x00-\x1f]")
_HIDING = frozenset({"DELTA_BINARY_PACKED", "DELTA_BYTE_ARRAY", "BYTE_STREAM_SPLIT"})
_CLOSED = {
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!\x1a\x07": "RAR",
    b"Obj\x01": "Avro",
    b"age-encryption.org/v1": "age (encrypted)",
    b"LUKS\xba\xbe": "LUKS (encrypted)",
    b"-----BEGIN PGP MESSAGE": "OpenPGP (encrypted)",
    b"\x02\x21\x4c\x18": "LZ4 (legacy)",
}
_OPENED = {
    b"\x1f\x8b\x08": "gzip",
    b"BZh": "bz2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"PK\3\4": "zip",
    b"SQLite format 3\0": "sqlite",
    b"ARROW1\0\0": "arrow",
}


def _kind(head: bytes) -> str:
    """What a file is by its first bytes; "" for anything that is its own plain bytes."""
    if head[:4] in (b"PAR1", b"PARE"):
        return "parquet"
    if head[257:262] == b"ustar":
        return "tar"
    if head[8:12] == b"DUCK":
        return "DuckDB"
    for magic, kind in (*_OPENED.items(), *_CLOSED.items()):
        if head.startswith(magic):
            return "" if kind == "bz2" and head[4:10] not in (b"1AY&SY", b"\x17rE8P\x90") else kind
    if head[:1] == b"\x78" and len(head) > 2 and int.from_bytes(head[:2], "big") % 31 == 0:
        return "zlib"
    return ""


def _in(label: str, what: str) -> str:
    return f"{label} > {what}" if label else what


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


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _free_pages(file: Readable, head: bytes, size: int) -> frozenset[int]:
    """Numbers of the pages on the free list (SQLite file format, section 1.5); stops at anything odd."""
    found: set[int] = set()
    trunk, last = int.from_bytes(head[32:36], "big"), file.size // size
    while 0 < trunk <= last and trunk not in found:
        found.add(trunk)
        page = file.at((trunk - 1) * size, size)
        count = min(int.from_bytes(page[4:8], "big"), size // 4 - 2)
        found.update(int.from_bytes(page[8 + 4 * i : 12 + 4 * i], "big") for i in range(count))
        trunk = int.from_bytes(page[:4], "big")
    return frozenset(found)


def _only_free(data: bytes, first: int, size: int, free: frozenset[int]) -> bytes:
    """Pages from number `first` on, with every byte zeroed that is not free."""
    out = bytearray(len(data))
    for i in range(0, len(data), size):
        number = first + i // size
        page = data[i : i + size]
        if number in free:
            out[i : i + size] = page
            continue
        for start, end in _unallocated(page, 100 if number == 1 else 0):
            out[i + start : i + end] = page[start:end]
    return bytes(out)


def _unallocated(page: bytes, at: int) -> Iterator[tuple[int, int]]:
    """The gap between a b-tree page's cell pointers and its cells, and its free blocks (section 1.6)."""
    kind = page[at] if len(page) > at + 12 else 0
    if kind not in (2, 5, 10, 13):
        return
    block, cells, content = (int.from_bytes(page[at + o : at + o + 2], "big") for o in (1, 3, 5))
    begin = at + (8 if kind > 5 else 12) + 2 * cells
    if begin < (content or 65_536) <= len(page):
        yield begin, content or 65_536
    previous = 0
    while previous < block <= len(page) - 4:
        length = int.from_bytes(page[block + 2 : block + 4], "big")
        yield block + 4, min(block + length, len(page))
        previous, block = block, int.from_bytes(page[block : block + 2], "big")


class _Decompressor(Protocol):
    """What the decoders of bz2 and lzma have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Reader(io.RawIOBase):
    """Something readable as the file object that archive readers want."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def size(self) -> int:
        return self._file.size

    def read(self, size: int | None = -1) -> bytes:
        wanted = self._file.size - self._at if size is None or size < 0 else size
        data = self._file.at(self._at, max(wanted, 0))
        self._at += len(data)
        return data

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # the base allows any buffer
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

"""SQLite: rows of every table, what lies in free pages, and the file as it is stored.

* `sqlite:table=t`: values of living rows by column, overflow chains joined; `sqlite:index=t`: what a full-text index
  keeps of another table's rows; `sqlite:free`: pages on the free list and unallocated bytes inside pages, which
  belong to no row; `sqlite:page`: the whole file as it lies, both at once.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import numpy as np

from fangxin.checks.residue.containers.piece import (
    NotExaminable,
    OpenFile,
    Piece,
    Place,
    Readable,
    Slice,
    Spans,
    Window,
    inside,
)
from fangxin.checks.residue.containers.sqlite_pages import of_pages

if TYPE_CHECKING:
    from fangxin.checks.residue.carve import Walk


def opened(walk: Walk, place: Place) -> Generator[Piece, None, Spans]:
    """Open the database that begins at the place."""
    label, depth = place.label, place.depth
    file = place.file if place.at == 0 else _alone(place)
    if file is None:
        return ()
    yield from walk.guarded(_pages(walk, file, label, depth), inside(label, "sqlite:page"))
    known = len(walk.problems)
    yield from walk.guarded(_rows(walk, file, label, depth), inside(label, "sqlite"))
    damaged = len(walk.problems) > known
    yield from walk.guarded(_records(walk, file, label, depth, damaged=damaged), inside(label, "sqlite:record"))
    return [(place.at, place.at + file.size)]


def _alone(place: Place) -> Slice | None:
    """A database that lies in something else: as many pages as its header says; None where that is no database.

    Logs and journals hold copies of a database's first page: what follows there does not begin like a page of its.
    """
    head = place.bytes(100)
    size = int.from_bytes(head[16:18], "big")
    size, count = 65_536 if size == 1 else size, int.from_bytes(head[28:32], "big")
    if size < 512 or size & (size - 1) or not count:
        return None
    for number in range(1, min(count, 9)):
        if place.bytes(1, number * size) not in (b"\0", b"\2", b"\5", b"\n", b"\r"):
            return None
    return Slice(place.file, place.at, min(size * count, place.file.size - place.at))


def _pages(walk: Walk, file: Readable, label: str, depth: int) -> Iterator[Piece]:
    """The file as it lies, and the same with everything blanked that some row may still own; containers in that."""
    head = file.at(0, 100)
    size = int.from_bytes(head[16:18], "big")
    size = 65_536 if size == 1 else size
    known = size >= 512 and not size & (size - 1)
    if not known:
        walk.note(inside(label, "sqlite"), f"a page size of {size} is not one of SQLite's")
    free = _free_pages(file, head, size) if known else frozenset()
    as_stored, only_free, at = Window(walk.margin), Window(walk.margin), 0
    while at < file.size:
        new, first = file.at(at, walk.limits.chunk), at // size + 1 if known else 0
        at += len(new)
        last = at >= file.size
        seen = as_stored.push(new, last=last)
        yield Piece(inside(label, "sqlite:page"), "", *seen, decoded=bool(label), sqlite=True)
        if known:
            seen = only_free.push(_only_free(new, first, size, free), last=last)
            yield from _written(inside(label, "sqlite:free"), *seen)
            yield from walk.within(seen[0], inside(label, "sqlite:free"), depth)


def _written(label: str, data: bytes, offset: int, start: int, stop: int) -> Iterator[Piece]:
    """What of a window is not blank, where that is little of it: zeros take as long to search as anything."""
    there = np.flatnonzero(np.frombuffer(data, np.uint8))
    breaks = np.flatnonzero(np.diff(there) > _BLANK)
    if len(breaks) * _BLANK > len(data):
        yield Piece(label, "", data, offset, start, stop, decoded=False, sqlite=True)
        return
    if not len(there):
        yield Piece(label, "", b"", offset, decoded=False, sqlite=True)
        return
    begins, ends = there[np.append(0, breaks + 1)].tolist(), there[np.append(breaks, -1)].tolist()
    for begin, end in zip(begins, ends, strict=True):
        low, high = max(0, begin - _BLANK // 4), min(len(data), end + 1 + _BLANK // 4)
        first, last = max(start, low), min(stop, high)
        if first < last:
            yield Piece(label, "", data[low:high], offset + low, first - low, last - low, decoded=False, sqlite=True)


_BLANK = 2048  # zeros that part two stretches: more than lies between a form and what it needs beside it


def _records(walk: Walk, file: Readable, label: str, depth: int, *, damaged: bool) -> Iterator[Piece]:
    """Records of free pages, joined across overflow pages; where the database cannot be read, of all pages."""
    head = file.at(0, 100)
    size = int.from_bytes(head[16:18], "big")
    size = 65_536 if size == 1 else size
    if size < 512 or size & (size - 1):
        return

    def page(number: int) -> bytes:
        return file.at((number - 1) * size, size) if number > 0 else b""

    free = _free_pages(file, head, size)
    yield from of_pages(walk, sorted(free), page, inside(label, "sqlite:free"), depth)
    for number in sorted(free):  # what goes on from one free overflow page to the next
        after = int.from_bytes(page(number)[:4], "big")
        if after in free and after != number:
            joint = page(number)[-walk.margin :] + page(after)[4 : 4 + walk.margin]
            yield Piece(inside(label, "sqlite:free"), "", joint, (number - 1) * size, sqlite=True)
    if damaged:
        every = (n for n in range(1, file.size // size + 1) if n not in free)
        yield from of_pages(walk, every, page, inside(label, "sqlite:record"), depth)


def _rows(walk: Walk, file: Readable, label: str, depth: int) -> Iterator[Piece]:
    database = _open(walk, file)
    try:
        database.set_authorizer(_harmless)
        database.text_factory = bytes
        tables = database.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 ORDER BY name"
        ).fetchall()
        for (raw_table,) in tables:
            yield from walk.guarded(
                _table(walk, database, raw_table.decode("utf-8", "replace"), label, depth), inside(label, "sqlite")
            )
    finally:
        database.close()


def _harmless(action: int, one: str | None, two: str | None, *_rest: str | None) -> int:
    """Keep a database of others within itself.

    Its indexes and generated columns may call functions, and SQLite's own switch (trusted_schema) would forbid even
    json_extract, which honest ones use: what is denied is what reaches beyond the database.
    """
    reaches = action == sqlite3.SQLITE_ATTACH or (
        action == sqlite3.SQLITE_FUNCTION and (two or "").lower() in ("load_extension", "fts3_tokenizer")
    )
    return sqlite3.SQLITE_DENY if reaches else sqlite3.SQLITE_OK


def _asked(database: sqlite3.Connection, statement: str) -> sqlite3.Cursor:
    """Run a query; a function that only the application has gives nothing: what it made is not stored in the file."""
    while True:
        try:
            return database.execute(statement)
        except sqlite3.OperationalError as refused:
            missing = _MISSING.search(str(refused))
            if missing is None:
                raise
            database.create_function(missing[1], -1, _nothing)


def _nothing(*_: object) -> None:
    return None


_MISSING = re.compile(r"(?:no such|unknown) function: (\w+)")


def _table(walk: Walk, database: sqlite3.Connection, table: str, label: str, depth: int) -> Iterator[Piece]:
    rows = database.execute("SELECT name FROM pragma_table_xinfo(?) WHERE hidden <> 1", (table,)).fetchall()
    columns = [name.decode("utf-8", "replace") for (name,) in rows]
    place = inside(label, _table_or_index(database, table))
    # Names come from the file and are quoted as identifiers; numbers become decimal text here.
    wanted = ", ".join(f"ifnull(CAST({_quoted(c)} AS BLOB), x'')" for c in columns)
    cursor = _asked(database, f"SELECT {wanted} FROM {_quoted(table)}")  # noqa: S608
    offsets = dict.fromkeys(columns, 0)
    rows_at_once = 64
    while batch := cursor.fetchmany(rows_at_once):
        size = 0
        for column, values in zip(columns, zip(*batch, strict=True), strict=True):
            joined = b"\n".join(values)
            walk.spend(len(joined))
            named = "" if "sqlite:index=" in place else column  # an index has no columns of anybody's
            yield from walk.leaf(joined, place, named, depth, offsets[column])
            offsets[column] += len(joined) + 1
            size += len(joined)
        rows_at_once = max(1, min(10_000, walk.limits.chunk * len(batch) // (size + 1)))


def _open(walk: Walk, file: Readable) -> sqlite3.Connection:
    if file.size <= walk.limits.database:
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

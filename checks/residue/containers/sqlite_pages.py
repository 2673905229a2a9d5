"""Records of SQLite's pages without a database to read them: from logs, journals, free pages, damaged files.

`sqlite:record`: the records of a page, those that go on in overflow pages joined across them, where these are at hand
(SQLite file format, sections 1.6 and 1.7). A log (`-wal`) and a journal hold whole pages behind small headers; both
are `raw` as well, byte by byte, and numbers of six bytes are searched in them as in a database.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING

from fangxin.checks.residue.containers.piece import Piece, Place, Readable, Spans, inside

if TYPE_CHECKING:
    from fangxin.checks.residue.carve import Walk

WAL = (b"\x37\x7f\x06\x82\x00\x2d\xe2\x18", b"\x37\x7f\x06\x83\x00\x2d\xe2\x18")
JOURNAL = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
LARGEST = 1 << 30  # SQLite's own limit for a value, nearly

Pages = Callable[[int], bytes]  # the page of a number; nothing where it is not at hand


def records(page: bytes, first: int, pages: Pages) -> Iterator[bytes]:
    """The records of a b-tree page (its header at `first`), whole as far as their overflow pages are at hand."""
    kind = page[first] if len(page) > first + 12 else 0
    if kind not in (2, 10, 13):
        return
    size = len(page)
    most = size - 35 if kind == 13 else (size - 12) * 64 // 255 - 23
    count = int.from_bytes(page[first + 3 : first + 5], "big")
    begin = first + (12 if kind == 2 else 8)
    for at in range(begin, min(begin + 2 * count, size - 1), 2):
        cell = int.from_bytes(page[at : at + 2], "big") + 4 * (kind == 2)
        length, cell = _varint(page, cell)
        if kind == 13:
            _rowid, cell = _varint(page, cell)
        if not 0 < length <= LARGEST or cell >= size:
            continue
        local = length
        if length > most:
            least = (size - 12) * 32 // 255 - 23
            local = least + (length - least) % (size - 4)
            local = local if local <= most else least
        parts, left = [page[cell : cell + local]], length - local
        following = int.from_bytes(page[cell + local : cell + local + 4], "big") if left else 0
        seen = set[int]()
        while left > 0 and following and following not in seen:
            seen.add(following)
            over = pages(following)
            if not over:
                break
            parts.append(over[4 : 4 + left])
            left -= len(over) - 4
            following = int.from_bytes(over[:4], "big")
        yield b"".join(parts)


def _varint(page: bytes, at: int) -> tuple[int, int]:
    value = 0
    for n, byte in enumerate(page[at : at + 9]):
        value = value << 8 | byte if n == 8 else value << 7 | byte & 0x7F
        if byte < 0x80 or n == 8:
            return value, at + n + 1
    return 0, len(page)


def of_pages(
    walk: Walk, numbers: Iterable[int], pages: Pages, label: str, depth: int, *, first: int = 100
) -> Iterator[Piece]:
    """The records of many pages, a piece for each page, or for each large record; containers in them are opened."""
    for number in numbers:
        small = []
        for record in records(pages(number), first if number == 1 else 0, pages):
            walk.spend(len(record))
            if len(record) < 4096:
                small.append(record)
            else:
                yield from walk.leaf(record, label, "", depth, sqlite=True)
        if small:
            yield from walk.leaf(b"\0".join(small), label, "", depth, sqlite=True)


# ---------------------------------------------------------------- logs and journals


def wal(walk: Walk, place: Place) -> Generator[Piece, None, Spans]:
    """Open a write-ahead log: frames of 24 bytes and a page each, also those of earlier rounds behind the last one."""
    size = int.from_bytes(place.bytes(4, 8), "big")
    if size < 512 or size & (size - 1) or size > 65_536:
        return ()
    frames = []
    for at in range(place.at + 32, place.file.size - 24 - size + 1, 24 + size):
        number, commit = (int.from_bytes(place.file.at(at + i, 4), "big") for i in (0, 4))
        if place.at and not 0 < number < 1 << 31:  # in an image nothing says where the log ends
            break
        frames.append((number, at + 24, commit))
    yield from _pages(walk, place, frames, size)
    end = frames[-1][1] + size if frames else place.at + 32
    return [(place.at, place.file.size if place.at == 0 else end)]


def journal(walk: Walk, place: Place) -> Generator[Piece, None, Spans]:
    """Open a rollback journal: pages as they were, behind their numbers, from the first sector on."""
    sector, size = (int.from_bytes(place.bytes(4, i), "big") for i in (20, 24))
    if place.bytes(8) != JOURNAL:  # the header of one that is kept is zeroed at the end of a transaction
        sector, size = 512, _page_size(place.file)
    if size < 512 or size & (size - 1) or size > 65_536 or not 0 < sector <= 65_536:
        return ()
    frames = []
    for at in range(place.at + sector, place.file.size - size - 8 + 1, size + 8):
        number = int.from_bytes(place.file.at(at, 4), "big")
        if not 0 < number < 1 << 31:
            break
        frames.append((number, at + 4, 0))
    yield from _pages(walk, place, frames, size)
    end = frames[-1][1] + size + 4 if frames else place.at + sector
    return [(place.at, place.file.size if place.at == 0 else end)]


def is_kept_journal(file: Readable) -> bool:
    """Whether a file is a journal whose header was zeroed, with the database's first page among its pages."""
    return file.at(0, 28) == bytes(28) and file.size > 1024 and _page_size(file) > 0


def _page_size(file: Readable) -> int:
    data = file.at(512, 1 << 20)
    at = data.find(b"SQLite format 3\0")
    size = int.from_bytes(data[at + 16 : at + 18], "big") if at >= 4 else 0
    size = 65_536 if size == 1 else size
    return size if size and (at - 4) % (size + 8) == 0 else 0


def _pages(walk: Walk, place: Place, frames: list[tuple[int, int, int]], size: int) -> Iterator[Piece]:
    """Everything as it lies (once more, where it lies in an image), and the records of the pages."""
    if place.at == 0:
        for seen in walk.windows(place.file):
            yield Piece(place.label or "raw", "", *seen, decoded=bool(place.label), sqlite=True)
    versions: dict[int, list[int]] = {}
    for i, (number, _at, _commit) in enumerate(frames):
        versions.setdefault(number, []).append(i)
    ends = [i for i, (_number, _at, commit) in enumerate(frames) if commit]
    label = inside(place.label, "sqlite:record")
    for i, (number, at, _commit) in enumerate(frames):
        last = ends[bisect_right(ends, i - 1)] if ends and i <= ends[-1] else len(frames)

        def page(wanted: int, here: int = at, own: int = number, last: int = last) -> bytes:
            """The version of a page that the same transaction saw, or the next one."""
            if wanted == own:
                return place.file.at(here, size)
            known = versions.get(wanted)
            if not known:
                return b""
            return place.file.at(frames[known[max(bisect_right(known, last) - 1, 0)]][1], size)

        yield from walk.guarded(of_pages(walk, (number,), page, label, place.depth), label)

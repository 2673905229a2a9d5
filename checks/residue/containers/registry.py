"""Every kind of container, the bytes that announce it, and who opens it.

* A mark is found at any offset of any layer, in one pass over the bytes of a window that costs a tenth of the search
  for needles or less (a vectorised prefilter: the marks must stay few). `before` bytes lie between the container's
  first byte and the mark; `test` sorts out what bears the mark by chance.
* `whole` kinds account for every byte of a file that begins with them, so that it is not searched raw a second time.
* Kinds without a mark are recognised by the beginning of a file only: of a file on the disk, a member of an
  archive, or what a stream was unpacked to.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from ahocorasick_rs import BytesAhoCorasick, MatchKind

from fangxin.checks.residue.containers import (
    archives,
    arrow,
    avro,
    closed,
    duckdb,
    duckdb_spill,
    orc,
    parquet,
    pickled,
    pictures,
    postgres,
    redis,
    sqlite,
    sqlite_pages,
    streams,
)
from fangxin.checks.residue.containers.piece import Piece, Place, Readable, Spans
from fangxin.checks.residue.engines import Hyperscan, hyperscan_or_none

if TYPE_CHECKING:
    from fangxin.checks.residue.carve import Walk

HEAD = 512  # bytes by which the kind of a file is recognised
LARGE = 64 << 10  # bytes from which on it pays to call hyperscan


@dataclass(frozen=True)
class Kind:
    """One kind of container. `open` hands out its layers and returns which bytes of the file it accounts for."""

    name: str
    open: Callable[[Walk, Place], Generator[Piece, None, Spans]]
    marks: tuple[bytes, ...] = ()
    before: int = 0
    test: Callable[[bytes, int], bool] | None = None  # whether it may begin at this place of these bytes
    head: Callable[[Readable], bool] | None = None  # whether a file without a mark is one
    whole: bool = False
    apart: bool = False  # cannot be opened while it passes in a stream


KINDS = (
    Kind("gzip", streams.gzip, (b"\x1f\x8b\x08",), test=streams.is_gzip),
    Kind("zlib", streams.zlib, (b"x\x01", b"x\x5e", b"x\x9c", b"x\xda"), test=streams.is_zlib),
    Kind("bz2", streams.bz2, (b"1AY&SY", b"\x17rE8P\x90"), before=4, test=streams.is_bz2),
    Kind("xz", streams.xz, (b"\xfd7zXZ\0",)),
    Kind("zlib", streams.zlib, head=streams.is_narrow_zlib),
    Kind("lzma", streams.lzma, (b"\x5d\0\0",), test=streams.is_lzma),
    Kind("zstd", streams.zstd, (b"\x28\xb5\x2f\xfd",)),
    Kind("lz4", streams.lz4, (b"\x04\x22\x4d\x18",)),
    Kind("lz4", streams.lz4_legacy, (b"\x02\x21\x4c\x18",)),
    Kind("snappy", streams.snappy, (b"\xff\x06\0\0sNaPpY",)),
    Kind("lz4", streams.lz4_block, head=streams.is_lz4_block),
    Kind("snappy", streams.snappy_block, head=streams.is_snappy_block),
    Kind("zip", archives.zip_member, (b"PK\3\4",)),
    Kind("zip", archives.zip_directory, (b"PK\5\6",)),
    Kind("tar", archives.tar_member, (b"ustar",), before=257),
    Kind("parquet", parquet.opened, (b"PAR1", b"PARE"), whole=True, apart=True),
    Kind("sqlite", sqlite.opened, (b"SQLite format 3\0",), whole=True, apart=True),
    Kind("arrow", arrow.opened, (b"ARROW1\0\0",), apart=True),
    Kind("arrow", arrow.stream, head=arrow.is_stream),
    Kind("duckdb", duckdb.opened, (b"DUCK",), before=8, test=duckdb.is_duckdb, apart=True),
    Kind("duckdb", duckdb_spill.opened, head=duckdb_spill.is_spill),
    Kind("orc", orc.whole, head=orc.is_orc),
    Kind("orc", orc.opened, (orc.END,)),
    Kind("avro", avro.opened, (b"Obj\x01",)),
    Kind("pickle", pickled.opened, (*pickled.FRAMED, *pickled.PLAIN), test=pickled.may_begin),
    Kind("pickle", pickled.opened, head=pickled.is_pickle),
    Kind("base64", pickled.base64_run, pickled.BASE64, test=pickled.is_base64),
    Kind("sqlite", sqlite_pages.wal, sqlite_pages.WAL, whole=True),
    Kind("sqlite", sqlite_pages.journal, (sqlite_pages.JOURNAL,), whole=True),
    Kind("sqlite", sqlite_pages.journal, head=sqlite_pages.is_kept_journal, whole=True),
    Kind("png", pictures.png, (pictures.PNG,)),
    Kind("postgres", postgres.relation, head=postgres.is_relation),
    Kind("postgres", postgres.wal, head=postgres.is_wal),
    Kind("redis", redis.opened, (b"REDIS0",), test=redis.is_dump),
    Kind("closed", closed.closed, head=closed.is_closed, apart=True),
)


def whole(file: Readable) -> Kind | None:
    """The kind that accounts for every byte of a file, if there is one."""
    head = file.at(0, HEAD)
    return next((k for k in KINDS if k.whole and (k.head(file) if k.head else head.startswith(k.marks))), None)


def at_head(file: Readable) -> Iterator[Kind]:
    """Kinds without a mark that a file may be."""
    return (k for k in KINDS if k.head is not None and not k.whole and k.head(file))


def is_container(file: Readable) -> bool:
    """Whether a file is a container from its first byte on."""
    head = file.at(0, HEAD)
    return any(
        k.head(file) if k.head else head.startswith(k.marks, k.before) and (k.test is None or k.test(head, 0))
        for k in KINDS
    )


def needs_all(head: bytes) -> bool:
    """Whether something that begins so can only be opened when all of it is there."""
    return any(k.apart and k.marks and head.startswith(k.marks, k.before) for k in KINDS)


def marks(data: bytes) -> Iterator[tuple[Kind, int, int]]:
    """Every mark in `data`: the kind, where the mark stands, and where the container would begin (may be negative)."""
    *long, short = _machines()
    found = [(at, one[0][number]) for one in long for number, at, _end in one[1].find_matches_as_indexes(data)]
    # A mark of two bytes slows the search for all others down: a pass of its own, where its second byte stands at all.
    if len(data) >= LARGE and (quick := _quick_for_short()):
        found += [(at, short[0][number]) for number, at, _end in quick(data).tolist()]
    elif any(mark[1:] in data for mark in short[2]):
        found += [(at, short[0][number]) for number, at, _end in short[1].find_matches_as_indexes(data)]
    found.sort(key=lambda pair: pair[0])
    for at, kind in found:
        begin = at - kind.before
        if kind.test is None or kind.test(data, begin):
            yield kind, at, begin


@cache
def _machines() -> tuple[_Machine, ...]:
    """The automata of the long marks, and last that of the short ones.

    Leftmost matches only: an overlapping search would be ten times slower, and no mark begins with the end of another.
    Up to 64 marks are looked for with vector instructions, more of them eight times slower: in two passes, then.
    """
    pairs = [(k, m) for k in KINDS for m in k.marks]
    long = sorted((p for p in pairs if len(p[1]) > 2), key=lambda pair: pair[0].name == "base64")
    halves = long[: len(long) // 2], long[len(long) // 2 :]
    return (*map(_machine, halves), _machine([p for p in pairs if len(p[1]) == 2]))


@cache
def _quick_for_short() -> Hyperscan | None:
    """hyperscan, where it is installed: half the time of the other for marks of two bytes, and more to begin with."""
    return hyperscan_or_none(dict(enumerate(_machines()[-1][2])))


_Machine = tuple[list[Kind], BytesAhoCorasick, list[bytes]]


def _machine(pairs: list[tuple[Kind, bytes]]) -> _Machine:
    known = [mark for _kind, mark in pairs]
    return [kind for kind, _mark in pairs], BytesAhoCorasick(known, matchkind=MatchKind.LeftmostFirst), known

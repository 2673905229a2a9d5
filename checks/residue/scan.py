"""Search files and everything in them for the needles of a cohort, and say what was searched and what was not.

Each file is opened once, read-only, without following links, and is searched for everybody at the same time; names
(path, link target, extended attributes) are searched like contents, as container `name`. Findings are counted per
(place, container, column, needle) while the bytes pass; no value and no context is kept. A finding names its needle
by an HMAC under a key drawn for this run, so that two runs cannot be compared by whoever reads the reports.

Files are read side by side, and the pieces of each are searched side by side as well, so that one large file keeps
every core busy. In memory are at most two pieces a worker that wait or are searched (`Limits.chunk` each, or a page or
a nested container as large as `Limits` lets it be), what the decoder of each open file holds (`Limits.memory`), and
while a stretch of `patterns.WINDOW` bytes is searched some forty times that.

What could not be read, was changed while it was read, or could not be decoded is `not_examinable` with its reason,
never a silent pass.
"""

from __future__ import annotations

import hmac
import os
import secrets
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from fangxin.checks.residue.carve import Answer, Limits, NotExaminable, OpenFile, Piece, carve
from fangxin.checks.residue.containers.piece import unchanged
from fangxin.checks.residue.patterns import Needles
from fangxin.checks.residue.together import SMALL, Found, Lot, Together
from fangxin.checks.residue.views import BLOOM, NAMES
from fangxin.data.descriptors import reading
from fangxin.data.vocabulary import shown

HITS = pa.schema(
    [
        ("place", pa.string()),
        ("container", pa.string()),
        ("column", pa.string()),
        ("subject", pa.int32()),
        ("identity", pa.int32()),
        ("form", pa.string()),
        ("inside", pa.bool_()),  # the bytes around look like a longer number, address or word
        ("context", pa.string()),  # what had to stand around it: any(thing), a value's edges, beside another needle
        ("hits", pa.int64()),
        ("first_offset", pa.int64()),  # in the layer that `container` names; for columns in their piece of it
        ("digest", pa.string()),
    ]
)
COVERAGE = pa.schema(
    [
        ("place", pa.string()),
        ("bytes_read", pa.int64()),  # stored bytes of the file
        ("bytes_decoded", pa.int64()),
        ("containers", pa.string()),  # comma-joined
        ("needles", pa.int64()),
        ("breadth", pa.string()),
    ]
)
FILTERS = pa.schema(
    [
        ("place", pa.string()),
        ("container", pa.string()),
        ("column", pa.string()),
        ("filters", pa.int64()),
        ("asked", pa.int64()),  # values, summed over the filters
        ("perhaps", pa.int64()),  # not excluded
        ("by_chance", pa.float64()),  # as many would not be excluded if none had ever been there
        ("explained", pa.int64()),  # by values that stand in the column
        ("remembered", pa.int64()),  # by nothing that stands there: these are hits
    ]
)
WITHHELD = "(name withheld)"


@dataclass(frozen=True)
class Scan:
    """What was found, what was searched, what bloom filters said, and what could not be examined: (place, reason)."""

    hits: pa.Table
    coverage: pa.Table
    not_examinable: list[tuple[str, str]]
    filters: pa.Table
    omitted: dict[str, int] = field(default_factory=dict)  # forms too short to search, and how many needles of each

    def totals(self, subject: int) -> dict[str, int]:
        """Hits of one subject per place; places without any are left out."""
        own = self.hits.filter(pc.field("subject") == subject).group_by("place").aggregate([("hits", "sum")])
        return dict(zip(own["place"].to_pylist(), own["hits_sum"].to_pylist(), strict=True))


def walk(roots: Sequence[Path]) -> list[tuple[str, Path]]:
    """Everything below the roots that has bytes or a name: files, links (not followed), folders; sorted.

    A folder is named by what is in it: by itself only where it is empty or has attributes.
    """
    found: list[tuple[str, Path]] = []
    for root in roots:
        if root.is_symlink() or not root.is_dir():
            found.append((shown(root), root))
            continue
        pending = [root]
        while pending:
            folder = pending.pop()
            try:
                entries = sorted(os.scandir(folder), key=lambda e: e.name)
            except OSError:
                found.append((shown(folder), folder))  # the scan says why it cannot be read
                continue
            if not entries or _has_attributes(folder):
                found.append((shown(folder), folder))
            for entry in entries:
                path = Path(entry.path)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(path)
                else:
                    found.append((shown(path), path))
    return sorted(set(found), key=lambda pair: pair[0])


def _has_attributes(folder: Path) -> bool:
    try:
        return bool(os.listxattr(folder))
    except OSError:
        return False


def stored(files: Sequence[tuple[str, Path]]) -> int:
    """Bytes of all plain files among these: what `progress` adds up to."""
    return sum(_size(path) for _place, path in files)


def _size(path: Path) -> int:
    try:
        found = path.lstat()
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def scan(
    files: Sequence[tuple[str, Path]],
    needles: Needles,
    *,
    workers: int = 2,
    limits: Limits | None = None,
    progress: Callable[[int], object] | None = None,
    searched: Together | None = None,
) -> Scan:
    """Search every file (place, path) for all needles at once. Places name the rows of the result.

    `progress` is told, from any thread, how many more stored bytes have been read. `searched` remembers what an earlier
    scan for the same needles searched.
    """
    key = secrets.token_bytes(32)
    together = searched or Together(needles)
    searches = [(_Search(place, together, limits or Limits()), path) for place, path in files]
    with _Crew.of(max(1, workers), progress or (lambda _bytes: None)) as crew:
        # The large ones first: whoever begins one last would be waited for.
        order = sorted(range(len(files)), key=lambda i: -_size(files[i][1]))
        large = sum(_size(path) >= SMALL for _place, path in files)
        heaps = [order[n : n + 1] for n in range(large)]
        heaps += [order[n : n + HEAP] for n in range(large, len(order), HEAP)]
        list(crew.readers.map(lambda heap: _run([searches[i] for i in heap], Lot(together), crew), heaps))
    results = [one for one, _path in searches]
    rows = [row for one in results for row in one.rows(key)]
    coverage = [(r.place, r.read, r.decoded, r.layers(), len(needles), str(needles.breadth)) for r in results]
    return Scan(
        hits=_table(rows, HITS),
        coverage=_table(coverage, COVERAGE),
        not_examinable=[(r.place, reason) for r in results for reason in r.problems],
        filters=_table([row for one in results for row in one.answers()], FILTERS),
        omitted=dict(needles.omitted),
    )


def _run(searches: Sequence[tuple[_Search, Path]], lot: Lot, crew: _Crew) -> None:
    """Search some files, one after the other; their small pieces together."""
    for one, path in searches:
        one.run(path, crew, lot)
    lot.search()


def _table(rows: Sequence[tuple[object, ...]], schema: pa.Schema) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [() for _ in schema]
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)


@dataclass(frozen=True)
class _Crew:
    """Threads that read files and decode them, threads that search pieces, and how many pieces may wait."""

    readers: ThreadPoolExecutor
    searchers: ThreadPoolExecutor
    room: threading.Semaphore
    progress: Callable[[int], object]

    @classmethod
    @contextmanager
    def of(cls, workers: int, progress: Callable[[int], object]) -> Iterator[_Crew]:
        """A crew for as many cores."""
        with ThreadPoolExecutor(workers) as readers, ThreadPoolExecutor(workers) as searchers:
            yield cls(readers, searchers, threading.Semaphore(2 * workers), progress)

    def search(self, work: Callable[[], Found]) -> Future[Found]:
        """Search a piece as soon as there is room for one more."""
        self.room.acquire()
        future = self.searchers.submit(work)
        future.add_done_callback(lambda _future: self.room.release())
        return future


HEAP = 64  # small files that one thread takes at a time


class _Search:
    """The search through one file, and its counts."""

    def __init__(self, place: str, together: Together, limits: Limits) -> None:
        self.place = place
        self.together = together
        self.needles = together.needles
        self.limits = limits
        self.read = 0
        self.decoded = 0
        self.containers: set[str] = set()
        self.problems: list[str] = []
        self._counts: dict[tuple[str, str], dict[tuple[int, bool, int], tuple[int, int]]] = {}
        self._answers: list[Answer] = []

    def run(self, path: Path, crew: _Crew, lot: Lot) -> None:
        """Search the path's names and, if it is a plain file, its contents; what the lot holds is not counted yet."""
        try:
            self._names(path, lot)
            kind = path.lstat().st_mode
            if stat.S_ISREG(kind):
                self._contents(path, crew, lot)
            elif stat.S_ISDIR(kind):
                os.scandir(path).close()
            elif not stat.S_ISLNK(kind):
                self.problems.append("neither a file nor a folder nor a link")
        except NotExaminable as reason:
            self.problems.append(str(reason))
        except OSError as error:
            self.problems.append(f"cannot be read ({error.strerror or type(error).__name__})")

    def rows(self, key: bytes) -> Iterator[tuple[object, ...]]:
        """The hits as rows of HITS, once for every owner of a needle."""
        for (container, column), counts in self._counts.items():
            where = (self.place, self._printable(container), self._printable(column))
            for (number, inside, view), (hits, first) in sorted(counts.items()):
                digest = hmac.new(key, self.needles.data(number), "sha256").hexdigest()
                for needle in self.needles.of(number):
                    form = f"{needle.form}, {NAMES[view]}" if view else needle.form
                    context = needle.context.name.lower()
                    yield *where, needle.subject, needle.identity, form, inside, context, hits, first, digest

    def answers(self) -> Iterator[tuple[object, ...]]:
        """What bloom filters said as rows of FILTERS, one for each column."""
        of: dict[tuple[str, str], list[Answer]] = {}
        for one in self._answers:
            of.setdefault((one.container, one.column), []).append(one)
        for (container, column), same in of.items():
            figures = [(a.asked, a.perhaps, a.by_chance, a.explained, len(a.remembered)) for a in same]
            sums = (sum(one) for one in zip(*figures, strict=True))
            yield self.place, self._printable(container), self._printable(column), len(same), *sums

    def layers(self) -> str:
        """The labels of every container that was searched, sorted and comma-joined."""
        return ",".join(sorted({self._printable(c) for c in self.containers}))

    def _printable(self, label: str) -> str:
        """Table and column names come from the file: one that is a needle itself is not repeated."""
        return WITHHELD if self.together.quotes(label) else label

    def _names(self, path: Path, lot: Lot) -> None:
        texts = [os.fsencode(path)]
        if path.is_symlink():
            texts.append(os.fsencode(path.readlink()))
        try:
            for name in os.listxattr(path, follow_symlinks=False):
                texts += [os.fsencode(name), os.getxattr(path, name, follow_symlinks=False)]
        except OSError as error:
            if error.errno not in _NO_ATTRIBUTES:
                raise
        for text in texts:
            lot.add(Piece("name", "", text, decoded=False), self._count)

    def _contents(self, path: Path, crew: _Crew, lot: Lot) -> None:
        with reading(path) as fd:
            file = OpenFile(fd)
            if not stat.S_ISREG(file.first.st_mode):
                raise NotExaminable("changed while it was read")
            self.read = file.size
            told, waiting = 0, list[tuple[Piece, Future[Found]]]()
            columns, plain = self.needles.columns is not None, True
            pieces = carve(
                file,
                margin=self.needles.margin,
                limits=self.limits,
                problems=self.problems,
                probes=lambda: self.needles.probes,
                answers=self._answers,
                columns=columns,
            )
            try:
                for piece in pieces:
                    plain = plain and piece.container == "raw"
                    if piece.values is None and len(piece.data) < SMALL:
                        lot.add(piece, self._count)
                    elif len(piece.data) < SMALL:
                        self._count(piece, self.together.search(piece))
                    else:
                        waiting.append((piece, crew.search(partial(self.together.search, piece))))
                    waiting = self._counted(waiting)
                    told, before_it = max(told, min(file.read, file.size)), told
                    crew.progress(told - before_it)
            finally:
                for piece, future in waiting:
                    self._count(piece, future.result())
                crew.progress(file.size - told)
            self._remembered()
            # Of plain bytes nothing is read any more once they are searched; engines read as they like.
            if not unchanged(file.first, file.last if plain else os.fstat(fd)):
                raise NotExaminable("changed while it was read")

    def _remembered(self) -> None:
        """Values that a bloom filter holds and its column does not are hits."""
        view = NAMES.index(BLOOM)
        for one in self._answers:
            owners = (number for probe in one.remembered for number in self.needles.probes.needles[probe])
            found: Found = [((number, False, view), 1, one.offset) for number in owners]
            self._count(Piece(one.container, one.column, b""), found)

    def _counted(self, waiting: list[tuple[Piece, Future[Found]]]) -> list[tuple[Piece, Future[Found]]]:
        """Count the pieces whose search is done; those that are still waited for."""
        rest = []
        for piece, future in waiting:
            if future.done():
                self._count(piece, future.result())
            else:
                rest.append((piece, future))
        return rest

    def _count(self, piece: Piece, rows: Found) -> None:
        self.containers.add(piece.container)
        self.decoded += piece.size * piece.decoded
        counts = self._counts.setdefault((piece.container, piece.column), {}) if rows else {}
        for key, hits, at in rows:
            known, where = counts.get(key, (0, at))
            counts[key] = (known + hits, min(where, at))


_NO_ATTRIBUTES = frozenset({95, 61, 38})  # EOPNOTSUPP, ENODATA, ENOSYS: the file system keeps none

"""Open whatever holds bytes inside a file, and hand over every layer to be searched.

A file is read once, in pieces that overlap by the longest needle, and each container in it is opened in memory,
recursively and at any offset; `containers/` has a file for each family of them, which says what its labels mean.

* `raw`: bytes as they lie in the file. Inside a container its own name stands instead (`gzip`, `zip`, `tar`, ...),
  joined by ` > ` where one lies in another.
* What cannot be opened is named with its reason and searched raw all the same: encrypted, damaged, cut short, too
  deep, larger than the limits (a bomb), or of a kind that is recognised but not decoded here.
* What looks like a container by chance (four bytes are soon found in a disk) and makes no sense is no problem: a
  failure is named where the container is the first thing in a file, or where some of it could be decoded.
* Nothing is copied to a disk, nothing is opened for writing, nothing that was packed is ever run.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Generator, Iterator

from fangxin.checks.residue.containers import registry
from fangxin.checks.residue.containers.bloom import Answer, Probes
from fangxin.checks.residue.containers.piece import (
    MIB,
    InMemory,
    Limits,
    NotExaminable,
    OpenFile,
    Piece,
    Place,
    Readable,
    Seen,
    Spans,
    Window,
    inside,
)
from fangxin.data.columnar.footer import MalformedFooter
from fangxin.data.vocabulary import ASIDE

__all__ = ["Answer", "Limits", "NotExaminable", "OpenFile", "Piece", "Probes", "Walk", "carve"]


def carve(
    file: Readable,
    *,
    margin: int,
    problems: list[str],
    limits: Limits | None = None,
    probes: Probes | Callable[[], Probes] | None = None,
    answers: list[Answer] | None = None,
    columns: bool = False,
) -> Iterator[Piece]:
    """Yield every layer of a file in pieces that overlap by `margin`; reasons of what stays closed go to `problems`.

    Bloom filters are asked for the `probes`, and what they say goes to `answers`. With `columns`, columns that can be
    decoded come as Arrow arrays too, in pieces without bytes.
    """
    told = [] if answers is None else answers
    walk = Walk(file.size, margin, limits or Limits(), problems, probes, told, columns=columns)
    yield from walk.layers(file, "", 0)


class Walk:
    """One walk through one file: its budget, and the reasons of what could not be opened."""

    def __init__(
        self,
        stored: int,
        margin: int,
        limits: Limits,
        problems: list[str],
        probes: Probes | Callable[[], Probes] | None,
        answers: list[Answer],
        *,
        columns: bool,
    ) -> None:
        self.stored = max(stored, 1)
        self.margin = margin
        self.limits = limits
        self.problems = problems
        self._probes = probes
        self.answers = answers
        self.columns = columns
        self.decoded = 0

    @property
    def probes(self) -> Probes | None:
        """What bloom filters are asked for; made when the first of them is met."""
        if callable(self._probes):
            self._probes = self._probes()
        return self._probes

    # ------------------------------------------------------------ what a container calls

    def layers(self, file: Readable, label: str, depth: int) -> Iterator[Piece]:
        """Every layer of a file, or of something found in one that can be read like a file."""
        place = Place(file, 0, label, depth, sure=True)
        if depth > self.limits.depth:
            self.note(label, f"containers are nested deeper than {self.limits.depth}")
            yield from self._raw(file, label, depth, members=False)
            return
        kind = registry.whole(file)
        spans = (yield from self._open(kind, place)) if kind else ()
        if not any(start == 0 and end >= file.size for start, end in spans):
            yield from self._raw(file, label, depth, members=True, spans=spans)

    def opens(self, file: Readable) -> bool:
        """Whether a file is a container from its first byte on."""
        return registry.is_container(file)

    def leaf(
        self,
        data: bytes | memoryview,
        container: str,
        column: str,
        depth: int,
        offset: int = 0,
        *,
        sqlite: bool = False,
    ) -> Iterator[Piece]:
        """A decoded layer that lies in memory, and the containers in it."""
        yield Piece(container, column, data, offset, sqlite=sqlite)
        yield from self.within(data, container, depth)

    def within(self, data: bytes | memoryview, container: str, depth: int) -> Iterator[Piece]:
        """The containers in a layer that is searched already."""
        body = data if isinstance(data, bytes) else bytes(memoryview(data).cast("B"))
        if depth >= self.limits.depth:
            if next(registry.marks(body), None):
                self.note(container, f"containers are nested deeper than {self.limits.depth}")
        else:
            yield from self._carved(InMemory(body), body, 0, container, depth + 1, _Covered())

    def unpacked(
        self, stream: Iterator[bytes], label: str, depth: int, *, sure: bool, chance: int = 4096
    ) -> Iterator[Piece]:
        """A decoded stream: opened as a file of its own if it fits in memory, else searched as it passes.

        Where the stream is not `sure`, a failure before `chance` bytes of sense is none: there was no container.
        """
        held: list[bytes] = []
        size, window, failure = 0, Window(self.margin), ""
        try:
            for data in stream:
                size += len(data)
                self.spend(len(data))
                if size <= self.limits.memory:
                    held.append(data)
                    continue
                if held:
                    if registry.needs_all(held[0]):
                        self.note(label, f"a container of more than {self.limits.memory} bytes lies in another")
                    data, held = b"".join([*held, data]), []
                yield from self._leaf_in_stream(window.push(data, last=False), label, depth)
        except NotExaminable as reason:
            failure = str(reason)
        except Exception as error:
            failure = f"cannot be decoded to its end ({type(error).__name__})"
        if failure and (sure or size >= chance):
            self.note(label, failure)
        if held:
            yield from self.layers(InMemory(b"".join(held)), label, depth + 1)
        elif size:
            yield Piece(label, "", *window.push(b"", last=True))

    def windows(self, file: Readable) -> Iterator[Seen]:
        """The whole of something readable, window by window.

        They are those of `Window`; what two of them share is read twice, which is cheaper than to copy all of it.
        """
        offset = begin = end = 0
        while end < file.size:
            data = file.at(offset, end - offset + self.limits.chunk)
            if offset + len(data) <= end:
                raise NotExaminable("the file became shorter while it was read")
            end = offset + len(data)
            stop = len(data) if end >= file.size else max(begin - offset, len(data) - self.margin)
            yield Seen(data, offset, begin - offset, stop)
            offset, begin = offset + max(0, stop - ASIDE), offset + stop

    def note(self, label: str, reason: str) -> None:
        """Say what stays closed, and why; each reason once."""
        text = f"{label}: {reason}" if label else reason
        if text not in self.problems:
            self.problems.append(text)

    def guarded(self, layer: Iterator[Piece], label: str) -> Iterator[Piece]:
        """Whatever a decoder raises on bytes it did not expect, the answer is the same: not examinable."""
        try:
            yield from layer
        except Exception as error:
            self.note(label, _reason(error))

    def spend(self, size: int) -> None:
        """Count decoded bytes. Raises NotExaminable where a file unpacks to more than its size can explain."""
        self.decoded += size
        if self.decoded > self.limits.total or (
            self.decoded > self.limits.free and self.decoded > self.limits.ratio * self.stored
        ):
            raise NotExaminable(f"unpacks to more than {self.decoded // MIB} MiB from {self.stored} bytes")

    # ------------------------------------------------------------ bytes as they lie, and what begins in them

    def _raw(self, file: Readable, label: str, depth: int, *, members: bool, spans: Spans = ()) -> Iterator[Piece]:
        covered = _Covered()
        covered.add(spans)
        for number, seen in enumerate(self.windows(file)):
            heads = list(registry.at_head(file)) if members and number == 0 else []
            yield Piece(label or "raw", "", *seen, decoded=bool(label))
            if not members:
                continue
            for kind in heads:
                covered.add((yield from self._open(kind, Place(file, 0, label, depth, sure=True))))
            yield from self._carved(file, seen.data, seen.offset, label, depth, covered)

    def _leaf_in_stream(self, seen: Seen, label: str, depth: int) -> Iterator[Piece]:
        yield Piece(label, "", *seen)
        if depth < self.limits.depth:
            covered = _Covered(seen.start)
            yield from self._carved(InMemory(seen.data), seen.data, 0, label, depth + 1, covered)

    def _carved(
        self, file: Readable, data: bytes, offset: int, label: str, depth: int, covered: _Covered
    ) -> Iterator[Piece]:
        """Open what begins anywhere in `data`, a window at `offset` of the file, and was not accounted for yet."""
        # A mark that the border cuts in two is found whole at the start of the next window.
        for kind, mark, begin in registry.marks(data):
            at = offset + begin
            if offset + mark < covered.seen or at < 0 or at in covered:
                continue
            covered.seen = offset + mark + 1
            covered.add((yield from self._open(kind, Place(file, at, label, depth, sure=at == 0))))

    def _open(self, kind: registry.Kind, place: Place) -> Generator[Piece, None, tuple[tuple[int, int], ...]]:
        """Open one container; the stretches of the file that it accounts for."""
        try:
            return tuple((yield from kind.open(self, place)))
        except NotExaminable as reason:
            self.note(inside(place.label, kind.name), str(reason))
        except Exception as error:
            if place.sure:
                self.note(inside(place.label, kind.name), _reason(error))
        return ()


class _Covered:
    """The stretches of a file that opened containers account for, and up to where marks were looked at."""

    def __init__(self, seen: int = 0) -> None:
        self.seen = seen
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, spans: Spans) -> None:
        """Spans come in about the order of the file; one inside another adds nothing."""
        for start, end in spans:
            at = bisect_right(self._starts, start)
            self._starts.insert(at, start)
            self._ends.insert(at, max(end, self._ends[at - 1] if at else 0))

    def __contains__(self, at: int) -> bool:
        before = bisect_right(self._starts, at)
        return before > 0 and at < self._ends[before - 1]


def _reason(error: Exception) -> str:
    if isinstance(error, NotExaminable):
        return str(error)
    if isinstance(error, MalformedFooter):
        return error.message
    return f"cannot be decoded ({type(error).__name__})"

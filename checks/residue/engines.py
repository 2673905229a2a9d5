"""Automata that find many byte strings in one pass.

* `AhoCorasick` (ahocorasick_rs): a full DFA while its table stays small, a compact automaton above. It holds its own
  copy of nothing but the states, reads buffers in place, and gives up the interpreter's lock while it searches.
* `Hyperscan` (the extra `fast`): one and a half to three times as fast, and slower to build.
* `Quickest`, which searches unless one of them is asked for: the first until as much was searched as makes building the
  second worth while, where that is installed and the needles are few enough.
* `Mailboxes`: addresses in any case, by what stands around each @; `WithAddresses` finds a few of them on the way.

Each answers with a table of (number of the needle, start, end), nested and overlapping occurrences included.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from itertools import product
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from ahocorasick_rs import BytesAhoCorasick, Implementation

from fangxin.data.errors import InputError

Table = npt.NDArray[np.int64]
DFA = 192 << 10  # bytes of all needles up to which a full DFA is the fastest: its table has then some 100 MB
FEW = (
    5_000  # needles up to which hyperscan was measured faster: 270 to 570 MB/s with 430 of them, 155 to 166 with 8,800
)
WORTH = 20_000  # bytes to be searched for each needle that take as long as hyperscan takes to compile it
ADDRESSES = 64  # so many are found on the way of an automaton; more have a pass of their own


class Engine(StrEnum):
    """Which automaton searches."""

    QUICKEST = "quickest"
    AHOCORASICK = "ahocorasick"
    HYPERSCAN = "hyperscan"


class Finder(Protocol):
    """Finds byte strings in bytes."""

    def __call__(self, body: bytes, /) -> Table:
        """(number, start, end) of every occurrence."""
        ...


def finder(needles: Mapping[int, bytes], engine: Engine = Engine.QUICKEST) -> Finder:
    """An automaton over numbered byte strings; InputError where hyperscan is asked for and not installed."""
    if not needles:
        return _nothing
    if engine is Engine.HYPERSCAN:
        return Hyperscan(needles)
    few = engine is Engine.QUICKEST and len(needles) <= FEW
    return Quickest(needles) if few and importlib.util.find_spec("hyperscan") else AhoCorasick(needles)


def _nothing(_body: bytes) -> Table:
    return np.empty((0, 3), dtype=np.int64)


class AhoCorasick:
    """One automaton of ahocorasick_rs."""

    def __init__(self, needles: Mapping[int, bytes]) -> None:
        self._numbers = np.array(list(needles), dtype=np.int64)
        small = sum(map(len, needles.values())) <= DFA
        self._machine = BytesAhoCorasick(needles.values(), implementation=Implementation.DFA if small else None)

    def __call__(self, body: bytes) -> Table:
        """Every occurrence, in order of where it ends."""
        # Without `overlapping` only one of several nested needles would be reported.
        table = np.array(self._machine.find_matches_as_indexes(body, overlapping=True), dtype=np.int64).reshape(-1, 3)
        table[:, 0] = self._numbers[table[:, 0]]
        return table


class Hyperscan:
    """The same through hyperscan; needles are compiled as `\\xNN`, for its literals end at a NUL."""

    def __init__(self, needles: Mapping[int, bytes]) -> None:
        hyperscan = _hyperscan()
        self._numbers = np.array(list(needles), dtype=np.int64)
        self._lengths = np.array([len(data) for data in needles.values()], dtype=np.int64)
        try:
            self._database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
            self._database.compile(
                expressions=[b"".join(b"\\x%02x" % code for code in data) for data in needles.values()],
                ids=list(range(len(needles))),
                elements=len(needles),
                flags=[hyperscan.HS_FLAG_DOTALL] * len(needles),
            )
        except hyperscan.error as why:  # of the kind only: its words may quote a needle
            told = f"hyperscan cannot search for these {len(needles)} forms here: {type(why).__name__}"
            raise InputError(told, hint="leave --engine out") from None
        self._scratch = threading.local()  # one a thread: it is written while a search runs

    def __call__(self, body: bytes) -> Table:
        """Every occurrence, in order of where it ends."""
        if not hasattr(self._scratch, "own"):
            self._scratch.own = _hyperscan().Scratch(self._database)
        found: list[tuple[int, int]] = []
        self._database.scan(body, match_event_handler=_collect, context=found, scratch=self._scratch.own)
        pairs = np.array(found, dtype=np.int64).reshape(-1, 2)
        return np.stack([self._numbers[pairs[:, 0]], pairs[:, 1] - self._lengths[pairs[:, 0]], pairs[:, 1]], axis=1)


def hyperscan_or_none(needles: Mapping[int, bytes]) -> Hyperscan | None:
    """It, once it has searched something; None where it is not installed, cannot compile these, or cannot run here.

    Whatever it cannot do, ahocorasick_rs can: nothing is lost but time, so the reason is not told.
    """
    with suppress(Exception):
        found = Hyperscan(needles)
        found(b"\0")
        return found
    return None


def _collect(number: int, _start: int, end: int, _flags: int, found: list[tuple[int, int]]) -> None:
    found.append((number, end))


def _hyperscan() -> Any:  # Any: an optional module without types
    try:
        import hyperscan
    except ImportError:
        raise InputError(
            "the engine hyperscan was asked for and is not installed", hint="pip install 'fangxin[fast]'"
        ) from None
    return hyperscan


class Quickest:
    """Aho-Corasick at first, hyperscan from when enough was searched that compiling it has paid; the hits are the same.

    What it cannot compile (or this machine cannot run) goes on as it began.
    """

    def __init__(self, needles: Mapping[int, bytes]) -> None:
        self._needles = needles
        self._find: Finder = AhoCorasick(needles)
        self._left = WORTH * len(needles)  # bytes until it has paid
        self._turn = threading.Lock()

    def __call__(self, body: bytes) -> Table:
        """Every occurrence, in order of where it ends."""
        if self._left > 0 and self._pays(len(body)):
            self._find = hyperscan_or_none(self._needles) or self._find
        return self._find(body)

    def _pays(self, searched: int) -> bool:
        """Whether it pays from here on; true once, for one of all threads."""
        with self._turn:
            before, self._left = self._left, self._left - searched
            return before > 0 >= self._left


class WithAddresses:
    """An automaton that finds a few addresses in any case on the way: by what stands around their @, in every case."""

    def __init__(self, needles: Mapping[int, bytes], addresses: Mapping[int, bytes], engine: Engine) -> None:
        self._base = max([*needles, *addresses], default=-1) + 1
        cores: dict[bytes, list[tuple[int, int, bytes]]] = {}  # some bytes in one case -> address, their place in it
        for number, text in addresses.items():
            begin = max(0, text.rindex(b"@") - 3)
            letters = ({code, bytes([code]).upper()[0]} for code in text[begin : begin + 5])
            for core in product(*letters):
                cores.setdefault(bytes(core), []).append((number, begin, text))
        self._owners = list(cores.values())
        self._find = finder({**needles, **{self._base + n: core for n, core in enumerate(cores)}}, engine)

    def __call__(self, body: bytes) -> Table:
        """Every occurrence."""
        table = self._find(body)
        core = table[:, 0] >= self._base
        if not core.any():
            return table
        rows = [
            (number, start - begin, start - begin + len(text))
            for which, start, _end in table[core].tolist()
            for number, begin, text in self._owners[which - self._base]
            if start >= begin and body[start - begin : start - begin + len(text)].lower() == text
        ]
        return np.concatenate([table[~core], np.array(rows, dtype=np.int64).reshape(-1, 3)])


class Mailboxes:
    """Addresses in any case: what stands around each @ is compared with what stands around those that are sought."""

    def __init__(self, wanted: Mapping[int, bytes]) -> None:
        self._last, self._first = np.zeros(256, dtype=bool), np.zeros(256, dtype=bool)  # beside the @, in either case
        # By how many bytes on either side of the @ are compared (up to four): those bytes -> form, place of its @.
        self._groups: dict[tuple[int, int], dict[int, list[tuple[int, int, bytes]]]] = {}
        for number, text in wanted.items():
            at = text.rindex(b"@")
            for which, code in (
                ((self._last, text[at - 1]), (self._first, text[at + 1])) if 0 < at < len(text) - 1 else ()
            ):
                which[[code, bytes([code]).upper()[0]]] = True
            sides = min(4, at), min(4, len(text) - at - 1)
            key = int.from_bytes(text[at - sides[0] : at] + text[at + 1 : at + 1 + sides[1]], "little")
            self._groups.setdefault(sides, {}).setdefault(key, []).append((number, at, text))

    def __call__(self, body: bytes) -> Table:
        """Every occurrence, by the lengths of what was compared."""
        codes = np.frombuffer(body, np.uint8)
        signs = self._signs(codes) if self._groups and b"@" in body else np.empty(0, np.int64)
        found = []
        for (left, right), known in self._groups.items() if len(signs) else ():
            at = signs[(signs >= left) & (signs < len(codes) - right)]
            keys = np.zeros(len(at), np.uint64)
            for n, offset in enumerate([*range(-left, 0), *range(1, right + 1)]):
                keys |= _LOWER[codes[at + offset]].astype(np.uint64) << np.uint64(8 * n)
            sought = np.array(sorted(known), np.uint64)
            nearest = sought[np.minimum(np.searchsorted(sought, keys), len(sought) - 1)]
            for place in at[nearest == keys].tolist():
                low = body[place - left : place] + body[place + 1 : place + 1 + right]
                for number, before, text in known[int.from_bytes(low.lower(), "little")]:
                    start = place - before
                    if start >= 0 and body[start : start + len(text)].lower() == text:
                        found.append((number, start, start + len(text)))
        return np.array(found, dtype=np.int64).reshape(-1, 3)

    def _signs(self, codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        """Where an @ stands between two characters that one of the addresses has there."""
        found = []
        for at in range(0, len(codes), _BLOCK):  # what is made of a block stays in the cache
            signs = np.flatnonzero(codes[at : at + _BLOCK] == ord("@"))
            if at:
                signs += at
            elif len(signs) and not signs[0]:
                signs = signs[1:]  # nothing stands before the first byte,
            if len(signs) and signs[-1] == len(codes) - 1:
                signs = signs[:-1]  # and nothing behind the last
            signs = signs[self._first[codes[signs + 1]]]
            found.append(signs[self._last[codes[signs - 1]]])
        return np.concatenate(found)


_BLOCK = 1 << 18
_LOWER = np.frombuffer(bytes(range(256)).lower(), np.uint8)

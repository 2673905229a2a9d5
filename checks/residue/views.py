r"""The same bytes as a reader of JSON, URLs, HTML, mail or program text would see them: escapes resolved.

A writer escapes what it must, what it likes, or everything, in either case of the hexadecimal digits; a search for
spelled-out escapes misses the mixtures. So the escapes are resolved where they stand, the text around them is
searched once more, and a hit counts only if an escape lies in it (the others were found as they stand).

* `backslash`: `\uXXXX` with surrogates, `\xNN`, `\NNN`, `\/`, `\"`, also where the backslashes were doubled.
* `percent`: `%XX`, `%uXXXX`.  `entity`: `&#N;`, `&#xN;`, and the five names that every writer uses.
* `quoted-printable`: `=XX`, and soft line breaks.
* Views are taken of views once: JSON in JSON, `%25E4`, JSON in a URL.
* Wide text (UTF-16, UTF-32) around each @ is narrowed, so that addresses are found there in any case, too.

The cost follows the escapes: without one a view costs a count of one byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_Bytes = npt.NDArray[np.uint8]
_Ints = npt.NDArray[np.int64]


class View(NamedTuple):
    """A text, where each of its bytes begins and ends in the bytes it was read from, and what was changed in it."""

    name: str
    text: bytes
    starts: _Ints
    ends: _Ints
    changes: _Ints  # how many bytes before each (and before the end) come of an escape
    joints: _Ints  # how many bytes before each follow something that is gone: a soft line break
    breaks: _Ints  # how many bytes before each stand between two stretches

    def new(self, start: _Ints, end: _Ints) -> npt.NDArray[np.bool_]:
        """Which spans of the text are seen only in this view: an escape lies in them."""
        inside = (self.changes[end] > self.changes[start]) | (self.joints[end] > self.joints[start + 1])
        found: npt.NDArray[np.bool_] = inside & (self.breaks[end] == self.breaks[start])
        return found


class _Escapes(NamedTuple):
    """Escapes by where they begin, how long they are, and what they stand for: a character, a byte, or (-1) nothing."""

    at: _Ints
    length: _Ints
    code: _Ints
    byte: npt.NDArray[np.bool_]


def views(body: bytes, reach: int, *, again: bool = True) -> Iterator[View]:
    """What the bytes say once escapes are resolved, in a stretch of `reach` bytes around each."""
    present = [name for name, rule in _RULES.items() if rule.mark in body]
    if not present:
        return
    codes = np.frombuffer(body + bytes(_LONGEST), np.uint8)
    for name, at in _marks(codes, body, present):
        escapes = _RULES[name].resolve(codes, at) if len(at) else _NO_ESCAPES
        if not len(escapes.at):
            continue
        view = _resolved(name, codes[: len(body)], escapes, reach)
        yield view
        for inner in views(view.text, reach, again=False) if again else ():
            starts, ends = view.starts[inner.starts], view.ends[inner.ends - 1]
            yield inner._replace(name=f"{name} > {inner.name}", starts=starts, ends=ends)


_LONGEST = 12  # bytes of an escape


def _marks(codes: _Bytes, body: bytes, present: Sequence[str]) -> Iterator[tuple[str, _Ints]]:
    """Where the marks of each rule stand that something which makes an escape of them follows."""
    if len(present) < 3:
        for name in present:
            at = np.flatnonzero(codes[: len(body)] == _RULES[name].mark[0])
            yield name, at[_RULES[name].follows[codes[at + 1]]]
        return
    at = np.flatnonzero(np.frombuffer(body.translate(_MARKED), bool))  # all of them in one pass
    at = at[_FOLLOWS[codes[at], codes[at + 1]]]
    for name, rule in _RULES.items():
        yield name, at[codes[at] == rule.mark[0]]


def narrowed(body: bytes, reach: int) -> Iterator[View]:
    """Text in wide characters around each @, a byte a character; what is not Latin-1 becomes NUL."""
    if b"\0" not in body or b"@" not in body:
        return
    codes = np.frombuffer(body, np.uint8)
    signs = np.flatnonzero(codes == ord("@"))
    for name, width, first in (("utf-16-le", 2, 0), ("utf-16-be", 2, -1), ("utf-32-le", 4, 0), ("utf-32-be", 4, -3)):
        at = signs
        at = at[(at + first >= width) & (at + first + 2 * width <= len(codes))]  # an address has two sides
        for n in (n for n in range(width) if first + n):
            for beside in (0, -width, width):
                at = at[codes[at + first + n + beside] == 0]  # hardly any sign of narrow text is left after the first
        at = at[_ADDRESS[codes[at - width]] & _ADDRESS[codes[at + width]]]
        for phase in range(width):  # texts that begin at odd places are texts of their own
            if (mine := at % width == phase).any():
                yield _narrow(codes, name, at[mine], width, first, reach)


def _narrow(codes: _Bytes, name: str, at: _Ints, width: int, first: int, reach: int) -> View:
    places = np.unique((at[:, None] + width * np.arange(-reach, reach + 1)).ravel())
    places = places[(places + first >= 0) & (places + first + width <= len(codes))]
    text = codes[places].copy()
    for n in range(width):
        if first + n:
            text[codes[places + first + n] != 0] = 0
    # Stretches around different signs do not touch: what is no neighbour becomes NUL.
    gap = np.flatnonzero(np.diff(places) != width) + 1
    starts = np.insert(places + first, gap, places[gap - 1] + first)
    none = np.zeros(len(starts) + 1, np.int64)
    changes = np.arange(len(none))  # all of it
    return View(name, np.insert(text, gap, 0).tobytes(), starts, starts + width, changes, none, none)


# ---------------------------------------------------------------- escapes resolved


def _resolved(name: str, codes: _Bytes, escapes: _Escapes, reach: int) -> View:
    """The stretches around the escapes with these resolved, one after the other, a NUL between."""
    stretches = _stretches(escapes, reach, len(codes))
    sizes = stretches[:, 1] - stretches[:, 0]
    before = np.cumsum(sizes) - sizes
    places = np.arange(int(sizes.sum()), dtype=np.int64) + np.repeat(stretches[:, 0] - before, sizes)
    text, starts, ends = codes[places], places.copy(), places + 1
    between = np.zeros(len(text), dtype=bool)
    between[before[1:] - 1] = True  # the last byte of a stretch lies beyond everything that an escape can touch
    text[between] = 0
    kept = np.ones(len(text), dtype=bool)
    at = np.searchsorted(places, escapes.at)
    for n in range(int(escapes.length.max())):
        kept[at[escapes.length > n] + n] = False
    for n, (has, value) in enumerate(_utf8(escapes.code, escapes.byte)):
        there = at[has] + n
        kept[there], text[there] = True, value[has]
        starts[there], ends[there] = escapes.at[has], (escapes.at + escapes.length)[has]
    starts, ends = starts[kept], ends[kept]
    gone = np.concatenate([[False], starts[1:] != ends[:-1]])
    counts = (_before(ends - starts > 1), _before(gone), _before(between[kept]))
    return View(name, text[kept].tobytes(), starts, ends, *counts)


def _before(true: npt.NDArray[np.bool_]) -> _Ints:
    """How many are true before each place, and before the end."""
    return np.concatenate([[0], np.cumsum(true)])


def _stretches(escapes: _Escapes, reach: int, size: int) -> _Ints:
    low = np.maximum(escapes.at - reach, 0)
    high = np.minimum(escapes.at + escapes.length + reach, size)
    new = np.concatenate([[True], low[1:] > high[:-1]])
    last = np.concatenate([np.flatnonzero(new)[1:] - 1, [len(high) - 1]])
    return np.stack([low[new], high[last]], axis=1)


def _utf8(code: _Ints, byte: npt.NDArray[np.bool_]) -> Iterator[tuple[npt.NDArray[np.bool_], _Ints]]:
    """The bytes of each character, one place after the other: which have it, and its value (RFC 3629)."""
    count = np.select([code < 0, byte | (code < 0x80), code < 0x800, code < 0x10000], [0, 1, 2, 3], 4)
    lead = np.select([count == 1, count == 2, count == 3], [0, 0xC0, 0xE0], 0xF0)
    for n in range(4):
        rest = code >> (6 * np.maximum(count - 1 - n, 0))
        value = np.where(n == 0, lead | rest, 0x80 | (rest & 0x3F))
        yield count > n, np.where((n == 0) & (count == 1), code, value) & 0xFF


_HEX = np.full(256, -1, np.int64)
for _digit in b"0123456789abcdefABCDEF":
    _HEX[_digit] = int(chr(_digit), 16)


def _among(signs: bytes) -> npt.NDArray[np.bool_]:
    return np.isin(np.arange(256), np.frombuffer(signs, np.uint8))


_SIMPLE = _among(b'"/')
_ADDRESS = _among(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._%+-")


def _hexadecimal(codes: _Bytes, at: _Ints, digits: int) -> _Ints:
    """The number that hexadecimal digits at these places write; -1 where one is none."""
    found, sound = np.zeros(len(at), np.int64), np.ones(len(at), dtype=bool)
    for n in range(digits):
        value = _HEX[codes[at + n]]
        found, sound = found * 16 + value, sound & (value >= 0)
    return np.where(sound, found, -1)


_NONE = np.empty(0, np.int64)
_NO_ESCAPES = _Escapes(_NONE, _NONE, _NONE, np.empty(0, dtype=bool))


def _joined(*parts: tuple[_Ints, int | _Ints, _Ints, bool]) -> _Escapes:
    """Escapes of several shapes in order of where they stand; the codes that are -1 are none."""
    rows = []
    for at, length, code, byte in parts:
        if (sound := code >= 0).any():
            row = np.empty((4, len(at)), np.int64)
            row[0], row[1], row[2], row[3] = at, length, code, byte
            rows.append(row[:, sound])
    if not rows:
        return _NO_ESCAPES
    table = np.concatenate(rows, axis=1)
    at, length, code, byte = table[:, np.argsort(table[0], kind="stable")]
    apart = np.concatenate([[True], at[1:] >= (at + length)[:-1]])
    return _Escapes(at[apart], length[apart], code[apart], byte[apart] == 1)


def _backslash(codes: _Bytes, at: _Ints) -> _Escapes:
    following = codes[at + 1]
    unit, byte = at[following == ord("u")], at[following == ord("x")]
    octal = at[(following >= 0x30) & (following <= 0x33)]
    digits = codes[octal[:, None] + np.arange(1, 4)].astype(np.int64) - 0x30
    eights = np.where(((digits >= 0) & (digits < 8)).all(axis=1), digits @ np.array([64, 8, 1]), -1)
    units, bytes_ = _hexadecimal(codes, unit + 2, 4), _hexadecimal(codes, byte + 2, 2)
    escapes = _joined((unit, 6, units, False), (byte, 4, bytes_, True), (octal, 4, eights, True))
    if not len(escapes.at):
        return escapes
    simple = at[_SIMPLE[following]]
    escapes = _joined((escapes.at, escapes.length, escapes.code * 2 + escapes.byte, False),
                      (simple, 2, codes[simple + 1].astype(np.int64) * 2 + 1, False))  # fmt: skip
    escapes = _whole_pairs(escapes._replace(code=escapes.code // 2, byte=escapes.code % 2 == 1))
    start, length = escapes.at.copy(), escapes.length.copy()
    for _ in range(3):  # doubled backslashes: JSON in JSON
        more = (start > 0) & (codes[np.maximum(start - 1, 0)] == 0x5C)
        more[1:] &= start[1:] - 1 >= (start + length)[:-1]
        start, length = start - more, length + more
    return _Escapes(start, length, escapes.code, escapes.byte)


def _whole_pairs(escapes: _Escapes) -> _Escapes:
    """Two surrogates in a row are one character; one alone is none, and stays as it is written."""
    at, length, code, byte = escapes
    high, low = (code >> 10 == 0x36) & ~byte, (code >> 10 == 0x37) & ~byte
    pair = high[:-1] & low[1:] & (at[1:] == (at + length)[:-1])
    first, second = np.append(pair, False), np.insert(pair, 0, False)
    code = np.where(first, 0x10000 + ((code & 0x3FF) << 10) + (np.append(code[1:], 0) & 0x3FF), code)
    length = np.where(first, length + np.append(length[1:], 0), length)
    sound = ~second & ~((high | low) & ~first)
    return _Escapes(at[sound], length[sound], code[sound], byte[sound])


def _percent(codes: _Bytes, at: _Ints) -> _Escapes:
    unit = at[codes[at + 1] == ord("u")]
    return _whole_pairs(
        _joined((at, 3, _hexadecimal(codes, at + 1, 2), True), (unit, 6, _hexadecimal(codes, unit + 2, 4), False))
    )


def _entity(codes: _Bytes, at: _Ints) -> _Escapes:
    numeric = at[codes[at + 1] == 0x23]
    sixteen = (codes[numeric + 2] | 0x20) == ord("x")
    parts = []
    for base, start in ((10, numeric[~sixteen] + 2), (16, numeric[sixteen] + 3)):
        code, open_ = np.zeros(len(start), np.int64), np.ones(len(start), dtype=bool)
        for n in range(8 if len(start) else 0):
            sign = codes[start + n]
            done = open_ & (sign == 0x3B) & (n > 0)
            begin = start - (2 if base == 10 else 3)
            value = np.where(done & (code > 0) & (code < 0x110000) & (code >> 11 != 0x1B), code, -1)
            parts.append((begin[done], (start + n + 1 - begin)[done], value[done], False))
            digit = _HEX[sign]
            open_ &= (digit >= 0) & (digit < base)
            code = code * base + digit
    for name, sign in _ENTITIES.items():
        there = at
        for n, letter in enumerate(name, 1):
            there = there[codes[there + n] == letter]
        parts.append((there, len(name) + 1, np.full(len(there), sign, np.int64), False))
    return _joined(*parts)


_ENTITIES = {b"amp;": 0x26, b"lt;": 0x3C, b"gt;": 0x3E, b"quot;": 0x22, b"apos;": 0x27, b"nbsp;": 0x20}


def _quoted(codes: _Bytes, at: _Ints) -> _Escapes:
    escapes = _joined((at, 3, _hexadecimal(codes, at + 1, 2), True))
    for ending in (b"\r\n", b"\n"):
        soft = at
        for n, sign in enumerate(ending, 1):
            soft = soft[codes[soft + n] == sign]
        if not len(soft):
            continue
        table = np.concatenate(
            [np.stack(escapes), np.stack([soft, soft * 0 + 1 + len(ending), soft * 0 - 1, soft * 0])], 1
        )
        table = table[:, np.argsort(table[0], kind="stable")]
        escapes = _Escapes(table[0], table[1], table[2], table[3] == 1)
    return escapes


class _Rule(NamedTuple):
    """A way to escape: the mark that every escape begins with, what may follow it, and who reads it."""

    mark: bytes
    follows: npt.NDArray[np.bool_]
    resolve: Callable[[_Bytes, _Ints], _Escapes]


_HEXADECIMAL = b"0123456789abcdefABCDEF"
_RULES = {
    "backslash": _Rule(b"\\", _among(b'ux0123"/'), _backslash),
    "percent": _Rule(b"%", _among(_HEXADECIMAL + b"u"), _percent),
    "entity": _Rule(b"&", _among(b"#algqn"), _entity),
    "quoted-printable": _Rule(b"=", _among(_HEXADECIMAL + b"\r\n"), _quoted),
}
_FOLLOWS = np.zeros((256, 256), dtype=bool)
for _rule in _RULES.values():
    _FOLLOWS[_rule.mark[0]] = _rule.follows
_MARKED = _FOLLOWS.any(axis=1).tobytes()
COLUMN = "value of a column"  # decoded, not read in bytes at all (columns.py)
BLOOM = "remembered by a bloom filter"  # its bits fit, and no value of its column explains them (bloom.py)
_WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
NAMES = ("", *_RULES, *(f"{outer} > {inner}" for outer in _RULES for inner in _RULES), *_WIDE, COLUMN, BLOOM)
MARKS = (*(rule.mark for rule in _RULES.values()), b"\0")  # without one of these there is nothing to see

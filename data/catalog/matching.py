"""Matching: which rows of an Arrow column hold a fact, in whichever spelling or hash it is stored.

The few facts are expanded to their stored forms; the many rows are compared as they are (a column is only
normalised where the catalog does not call it `normalised`, and cells beyond ASCII are brought to canonical form).
Free text is searched with one automaton over the whole value buffer, without regard to ASCII case, and its runs of
digits are compared without their separators. Python only runs per hit and per run of digits, not per row.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fangxin.data.catalog.identity import searched
from fangxin.data.catalog.kinds import NUMBERS, SPELLED, as_text, canonical_column, stored_forms
from fangxin.data.vocabulary import Field, IdentityFormat, whole

Index = npt.NDArray[np.int64]

_SEPARATORS = r"[\s\-()./]"
_BLANKS = r"\s"  # li.wei@ and liwei@ are two people: an e-mail keeps its dots and dashes
_INTEGER = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_SHORTEST = 8  # what is shorter is not looked for in free text

# Runs of digits in UTF-8. A full-width digit (or X) was folded to its ASCII one and two bytes 01, so lengths are kept.
_DIGIT = rb"[0-9]\x01*+"
_BETWEEN = (
    rb"(?:[ \t\-()./]|\xc2[\xa0\xad]|\xe2\x80[\x80-\x95\xaf]|\xe2\x81[\x9f\xa0]|\xe2\x88\x92"
    rb"|\xe3\x80\x80|\xef\xbb\xbf|\xef\xbc[\x88\x89\x8d\x8e\x8f])"
)
_RUN = re.compile(rb"%b(?:%b{0,3}+%b){7,}+(?:[Xx]\x01*+)?" % (_DIGIT, _BETWEEN, _DIGIT))
_GROUP = re.compile(rb"(?:%b)++(?:[Xx]\x01*+)?" % _DIGIT)
_OPENING = (b"+", b"\xef\xbc\x8b"), (b"(", b"\xef\xbc\x88")


@dataclass(frozen=True)
class Found:
    """Row numbers inside the column, the fact each holds, and how it is written there: null for a usual spelling."""

    rows: Index
    facts: Index
    texts: Sequence[str | None] | None = None


class Matcher:
    """Finds facts (schema FACT: id, kind, value) in the columns of one field; built once per question."""

    def __init__(self, one: Field, facts: pa.Table, declared: frozenset[str], *, secret: bytes | None = None) -> None:
        self.field = one
        self.text = one.data_type == "text"
        kinds = set(searched(one, tuple(sorted(set(facts["kind"].to_pylist()))), declared))
        owners: dict[str, list[int]] = {}
        self._canonical: dict[str, dict[str, list[int]]] = {}  # kind, canonical value: facts
        self._mailboxes: dict[str, list[int]] = {}  # e-mails of a loose column
        self._needles: dict[bytes, list[tuple[int, bytes | None]]] = {}  # fact, and the spelling if case matters
        self._numbers: dict[bytes, list[int]] = {}  # digits alone
        self._usual: set[str] = set()  # spellings of a loose column that whoever looks for a fact knows
        for ident, kind, value in zip(
            facts["id"].to_pylist(), facts["kind"].to_pylist(), facts["value"].to_pylist(), strict=True
        ):
            if kind not in kinds or (self.text and kind == "name"):
                continue
            shape = IdentityFormat.RAW if kind.startswith("ref:") else one.identity_format
            self._canonical.setdefault(kind, {}).setdefault(value, []).append(ident)
            for form in stored_forms(kind, value, shape, secret):
                self._usual.add(form)
                if self.text:
                    self._seek(ident, kind, form, shape)
                elif self._loose and kind == "email":
                    self._mailboxes.setdefault(re.sub(_BLANKS, "", form).lower(), []).append(ident)
                else:
                    owners.setdefault(self._squeezed(form), []).append(ident)
        self._longest = max(map(len, self._numbers), default=0)
        self.forms = sorted(owners)
        self.owners = [sorted(set(owners[f])) for f in self.forms]

    def __bool__(self) -> bool:
        return bool(self.forms or self._mailboxes or self._needles)

    def find(self, column: pa.Array) -> Found:
        """Return where the facts stand; the column may be of any type the stores yield."""
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if self.text:
            return self._in_text(column)
        if pa.types.is_integer(column.type):
            pairs = [(int(f), n) for n, f in enumerate(self.forms) if _INTEGER.fullmatch(f)]
            if not pairs:
                return _NOTHING
            wanted = pa.array([p[0] for p in pairs], pa.int64())
            at = pc.index_in(column.cast(pa.int64()), value_set=wanted)
            rows, which = _indexes(at)
            return self._exploded(rows, np.array([p[1] for p in pairs], np.int64)[which])
        column = as_text(column)
        if self._loose:
            return self._in_loose(column)
        at = pc.index_in(column, value_set=pa.array(self.forms, pa.string()))
        return self._exploded(*_indexes(at))

    def _in_loose(self, column: pa.Array) -> Found:
        """Cells of ASCII by their squeezed spelling; the others by their canonical form, too."""
        found = []
        if self.forms:
            squeezed = pc.utf8_lower(pc.replace_substring_regex(column, pattern=_SEPARATORS, replacement=""))
            at = pc.index_in(squeezed, value_set=pa.array(self.forms, pa.string()))
            found.append(self._exploded(*_indexes(at)))
        if self._mailboxes:
            bare = pc.utf8_lower(pc.replace_substring_regex(column, pattern=_BLANKS, replacement=""))
            found.append(_looked_up(bare, self._mailboxes))
        beyond = np.flatnonzero(pc.invert(pc.string_is_ascii(column)).fill_null(False).to_numpy(zero_copy_only=False))
        if len(beyond):
            cells = column.take(pa.array(beyond))
            for kind, wanted in self._canonical.items():
                part = _looked_up(canonical_column(kind, cells), wanted)
                found.append(Found(beyond[part.rows].astype(np.int64), part.facts))
        if not found:
            return _NOTHING
        rows, facts = np.concatenate([f.rows for f in found]), np.concatenate([f.facts for f in found])
        both = np.unique(np.stack([rows, facts]), axis=1)
        written = column.take(pa.array(both[0])).to_pylist()
        return Found(both[0], both[1], [None if text in self._usual else text for text in written])

    # A column that is not canonical is compared without case, blanks and separators, on both sides.
    @cached_property
    def _loose(self) -> bool:
        return (
            not self.field.normalised
            and self.field.identity is not None
            and (self.field.identity_format is IdentityFormat.RAW)
        )

    def _squeezed(self, form: str) -> str:
        if not self._loose:
            return form
        return (form if form.isalnum() else re.sub(_SEPARATORS, "", form)).lower()  # most have no separator

    def _seek(self, ident: int, kind: str, form: str, shape: IdentityFormat) -> None:
        """Note a spelling to look for in free text, and its digits if it is a number."""
        spelling = form.encode()
        if len(spelling) >= _SHORTEST:
            exact = None if kind in SPELLED and shape is IdentityFormat.RAW else spelling
            self._needles.setdefault(spelling.lower(), []).append((ident, exact))
        if kind in NUMBERS and shape is IdentityFormat.RAW:
            digits = re.sub(r"[^0-9X]", "", unicodedata.normalize("NFKC", form).upper()).encode()
            same = self._numbers.setdefault(digits, []) if len(digits) >= _SHORTEST else [ident]
            if ident not in same:
                same.append(ident)

    def _exploded(self, rows: Index, forms: Index) -> Found:
        return _explode(rows, forms, self.owners)

    def _in_text(self, column: pa.Array) -> Found:
        column = as_text(column).cast(pa.large_string()).fill_null("")
        offsets = np.frombuffer(column.buffers()[1], np.int64)[column.offset : column.offset + len(column) + 1]
        data = column.buffers()[2]
        if data is None or not self._needles:
            return _NOTHING
        body = bytes(memoryview(data).cast("B")[int(offsets[0]) : int(offsets[-1])])
        edges = offsets - offsets[0]
        hits = _outermost(_whole({*self._spelled(body, edges), *self._grouped(body, edges)}, body, edges))
        found = sorted({(row, fact, body[start:end].decode()) for row, fact, start, end in hits})
        rows, facts = np.array([f[0] for f in found], np.int64), np.array([f[1] for f in found], np.int64)
        return Found(rows, facts, [f[2] for f in found])

    def _spelled(self, body: bytes, edges: Index) -> Iterator[tuple[int, int, int, int]]:
        """Row, fact, start, end of every stored spelling; bytes.lower() folds ASCII only, so places stay."""
        from ahocorasick_rs import BytesAhoCorasick

        needles = list(self._needles)
        machine = BytesAhoCorasick(needles)
        hits = np.array(machine.find_matches_as_indexes(body.lower(), overlapping=True), np.int64).reshape(-1, 3)
        first = np.searchsorted(edges, hits[:, 1], side="right") - 1
        last = np.searchsorted(edges, hits[:, 2] - 1, side="right") - 1
        for row, end_row, (form, start, end) in zip(first.tolist(), last.tolist(), hits.tolist(), strict=True):
            if row != end_row:
                continue  # over the edge of a value
            for fact, exact in self._needles[needles[form]]:
                if exact is None or exact == body[start:end]:
                    yield row, fact, start, end

    def _grouped(self, body: bytes, edges: Index) -> Iterator[tuple[int, int, int, int]]:
        """Row, fact, start, end of every number, however its digits are grouped."""
        if not self._numbers:
            return
        folded = _folded(body)
        for run in _RUN.finditer(folded):
            if run[0].isdigit():
                continue  # not grouped: the spellings have it
            row = int(np.searchsorted(edges, run.start(), side="right")) - 1
            while row < len(edges) - 1 and edges[row] < run.end():  # values touch in the buffer: cut at their edges
                low, high = int(edges[row]), int(edges[row + 1])
                part = max(run.start(), low), min(run.end(), high)
                if part[1] - part[0] >= _SHORTEST:
                    for start, end, digits in self._whole_numbers(folded, part, low, high):
                        opened = _opened(body, start, end, low)
                        for fact in self._numbers[digits]:
                            yield row, fact, opened, end
                row += 1

    def _whole_numbers(
        self, folded: bytes, part: tuple[int, int], low: int, high: int
    ) -> Iterator[tuple[int, int, bytes]]:
        """The known numbers made of whole neighbouring groups, the longest first, none inside another."""
        groups = [(g.start(), g.end(), g[0].replace(b"\x01", b"").upper()) for g in _GROUP.finditer(folded, *part)]
        at = 0
        while at < len(groups):
            digits, best, then = b"", None, at + 1
            for number, (start, end, more) in enumerate(groups[at:], start=at):
                digits += more
                if len(digits) > self._longest + 1:
                    break
                crossed = start + folded[start:end].upper().find(b"X")  # an X may end an ID, or follow a number
                for known, last in ((digits, end), (digits.removesuffix(b"X"), crossed)):
                    if known in self._numbers and start < last:
                        best, then = (groups[at][0], last, known), number + 1
                        break
            if best:
                yield best
            at = then


def emitted(kind: str, column: pa.Array) -> pa.Array:
    """The canonical text of values that become facts of `kind`; same length, nulls stay."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return canonical_column(kind, as_text(column))


def _folded(body: bytes) -> bytes:
    """The text with every full-width digit (EF BC 90 to 99) or X as an ASCII one and two bytes 01."""
    codes = np.frombuffer(body, np.uint8)
    if len(codes) < 3:
        return body
    at = np.flatnonzero(codes[:-2] == 0xEF)
    middle, last = codes[at + 1], codes[at + 2]
    digit = (middle == 0xBC) & (last - np.uint8(0x90) < 10)
    cross = ((middle == 0xBC) & (last == 0xB8)) | ((middle == 0xBD) & (last == 0x98))
    if not (digit | cross).any():
        return body
    codes = codes.copy()
    codes[at[digit]] = last[digit] - 0x60
    codes[at[cross]] = ord("X")
    at = at[digit | cross]
    codes[at + 1] = codes[at + 2] = 1
    return codes.tobytes()


def _whole(hits: set[tuple[int, int, int, int]], body: bytes, edges: Index) -> set[tuple[int, int, int, int]]:
    """The hits (row, fact, start, end) that are no part of a longer number, address or word of their row."""
    spans: dict[int, set[tuple[int, int]]] = {}
    for row, _fact, start, end in hits:
        spans.setdefault(row, set()).add((start, end))
    kept = {row: whole(body, found, int(edges[row]), int(edges[row + 1])) for row, found in spans.items()}
    return {hit for hit in hits if hit[2:] in kept[hit[0]]}


def _outermost(hits: set[tuple[int, int, int, int]]) -> Iterator[tuple[int, int, int, int]]:
    """The hits (row, fact, start, end) without those inside another of the same fact: +86 goes with its number."""
    last = (-1, -1, -1)
    for row, fact, start, end in sorted(hits, key=lambda h: (h[0], h[1], h[2], -h[3])):
        if (row, fact) != last[:2] or end > last[2]:
            last = row, fact, end
            yield row, fact, start, end


def _opened(body: bytes, start: int, end: int, low: int) -> int:
    """Where a number starts with the plus and the parenthesis that belong to it."""
    pluses, parens = _OPENING
    closed = b")" in body[start:end] or b"\xef\xbc\x89" in body[start:end]
    for marks in (pluses, parens) if closed else (pluses,):
        for mark in marks:
            if start - len(mark) >= low and body.endswith(mark, low, start):
                start -= len(mark)
                break
    return start


def _looked_up(column: pa.Array, wanted: dict[str, list[int]]) -> Found:
    at = pc.index_in(column, value_set=pa.array(list(wanted), pa.string()))
    return _explode(*_indexes(at), [sorted(set(owners)) for owners in wanted.values()])


def _explode(rows: Index, forms: Index, owners: list[list[int]]) -> Found:
    """One (row, fact) for every fact that a form stands for."""
    counts = np.array([len(o) for o in owners], np.int64)
    flat = np.array([i for o in owners for i in o], np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    n = counts[forms]
    within = np.arange(n.sum(), dtype=np.int64) - np.repeat(np.cumsum(n) - n, n)
    return Found(np.repeat(rows, n), flat[np.repeat(starts[forms], n) + within])


def _indexes(at: pa.Array) -> tuple[Index, Index]:
    rows = np.flatnonzero(pc.is_valid(at).to_numpy(zero_copy_only=False)).astype(np.int64)
    return rows, at.take(pa.array(rows)).to_numpy(zero_copy_only=False).astype(np.int64)


_NOTHING = Found(np.array([], np.int64), np.array([], np.int64))

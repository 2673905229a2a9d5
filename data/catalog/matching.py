"""Matching: which rows of an Arrow column hold a fact, in whichever spelling or hash it is stored.

The few facts are expanded to their stored forms; the many rows are compared as they are (a column is only
normalised where the catalog does not call it `normalised`). Free text is searched with one automaton over the
whole value buffer. No loop over rows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fangxin.data.catalog.identity import searched
from fangxin.data.catalog.kinds import canonical_column, stored_forms
from fangxin.data.vocabulary import Field, IdentityFormat

Index = npt.NDArray[np.int64]

_SEPARATORS = r"[\s\-().]"
_INTEGER = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_WORD = re.compile(rb"[0-9A-Za-z]")


@dataclass(frozen=True)
class Found:
    """Row numbers inside the column, the fact each holds, and for free text the spelling that stood there."""

    rows: Index
    facts: Index
    texts: list[str] | None = None


class Matcher:
    """Finds facts (schema FACT: id, kind, value) in the columns of one field; built once per question."""

    def __init__(self, one: Field, facts: pa.Table, declared: frozenset[str], *, secret: bytes | None = None) -> None:
        self.field = one
        self.text = one.data_type == "text"
        kinds = set(searched(one, tuple(sorted(set(facts["kind"].to_pylist()))), declared))
        owners: dict[str, list[int]] = {}
        for ident, kind, value in zip(
            facts["id"].to_pylist(), facts["kind"].to_pylist(), facts["value"].to_pylist(), strict=True
        ):
            if kind in kinds and not (self.text and kind == "name"):
                shape = IdentityFormat.RAW if kind.startswith("ref:") else one.identity_format
                for form in stored_forms(kind, value, shape, secret):
                    key = form if self.text else self._squeezed(form)
                    owners.setdefault(key, []).append(ident)
        if self.text:
            owners = {f: o for f, o in owners.items() if len(f.encode()) >= 8}
        self.forms = sorted(owners)
        self.owners = [sorted(set(owners[f])) for f in self.forms]

    def __bool__(self) -> bool:
        return bool(self.forms)

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
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            column = column.cast(pa.string())
        at = pc.index_in(self._squeezed_column(column.cast(pa.string())), value_set=pa.array(self.forms, pa.string()))
        return self._exploded(*_indexes(at))

    # A column that is not canonical is compared without case, blanks and separators, on both sides.
    @property
    def _loose(self) -> bool:
        return (
            not self.field.normalised
            and self.field.identity is not None
            and (self.field.identity_format is IdentityFormat.RAW)
        )

    def _squeezed(self, form: str) -> str:
        return re.sub(_SEPARATORS, "", form).lower() if self._loose else form

    def _squeezed_column(self, column: pa.Array) -> pa.Array:
        if not self._loose:
            return column
        return pc.utf8_lower(pc.replace_substring_regex(column, pattern=_SEPARATORS, replacement=""))

    def _exploded(self, rows: Index, forms: Index) -> Found:
        counts = np.array([len(o) for o in self.owners], np.int64)
        flat = np.array([i for o in self.owners for i in o], np.int64)
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
        n = counts[forms]
        out_rows = np.repeat(rows, n)
        within = np.arange(n.sum(), dtype=np.int64) - np.repeat(np.cumsum(n) - n, n)
        return Found(out_rows, flat[np.repeat(starts[forms], n) + within])

    def _in_text(self, column: pa.Array) -> Found:
        from ahocorasick_rs import BytesAhoCorasick

        column = column.cast(pa.large_string()).fill_null("")
        offsets = np.frombuffer(column.buffers()[1], np.int64)[column.offset : column.offset + len(column) + 1]
        data = column.buffers()[2]
        if data is None or not self.forms:
            return _NOTHING
        body = memoryview(data).cast("B")[int(offsets[0]) : int(offsets[-1])]
        machine = BytesAhoCorasick([f.encode() for f in self.forms])
        hits = np.array(machine.find_matches_as_indexes(body, overlapping=True), np.int64).reshape(-1, 3)
        first = np.searchsorted(offsets - offsets[0], hits[:, 1], side="right") - 1
        last = np.searchsorted(offsets - offsets[0], hits[:, 2] - 1, side="right") - 1
        rows, facts, texts = [], [], []
        for row, end_row, (form, start, end) in zip(first.tolist(), last.tolist(), hits.tolist(), strict=True):
            low, high = int(offsets[row] - offsets[0]), int(offsets[row + 1] - offsets[0])
            if row != end_row or (start > low and _WORD.match(body[start - 1 : start]) and _WORD.match(body[start:])):
                continue  # over the edge of a value, or the tail of a longer number or word
            if end < high and _WORD.match(body[end : end + 1]) and _WORD.match(body[end - 1 : end]):
                continue
            for fact in self.owners[form]:
                rows.append(row)
                facts.append(fact)
                texts.append(self.forms[form])
        return Found(np.array(rows, np.int64), np.array(facts, np.int64), texts)


def emitted(kind: str, column: pa.Array) -> pa.Array:
    """The canonical text of values that become facts of `kind`; same length, nulls stay."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return canonical_column(kind, column.cast(pa.string()))


def _indexes(at: pa.Array) -> tuple[Index, Index]:
    rows = np.flatnonzero(pc.is_valid(at).to_numpy(zero_copy_only=False)).astype(np.int64)
    return rows, at.take(pa.array(rows)).to_numpy(zero_copy_only=False).astype(np.int64)


_NOTHING = Found(np.array([], np.int64), np.array([], np.int64))

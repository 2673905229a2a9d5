"""Decoded columns joined with a crowd's values: each value is brought into one spelling, then looked up by hash.

This sees what bytes hide: numbers in packed or scaled encodings, full-width digits, blanks and hyphens anywhere. All
of it is Arrow's work; only values that agree are compared one by one, by the rule of their kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fangxin.data.catalog.kinds import canonical

_BETWEEN = r"[\s()\x{2010}-\x{2015}\x{2212}.\-/\x{00b7}]+"


@dataclass(frozen=True)
class Value:
    """A value that is looked for: the number of its needle, its kind, and how it is compared and written."""

    number: int
    kind: str
    value: str = field(repr=False)
    spellings: Sequence[str] = field(repr=False)


class Columns:
    """The values of a crowd, to be found in columns."""

    def __init__(self, wanted: Sequence[Value]) -> None:
        pairs = [(one, text) for one in wanted for text in one.spellings]
        keys = _plain(pa.array([text for _one, text in pairs], pa.large_string())).to_pylist()
        self._owners: dict[str, dict[int, Value]] = {}
        for (one, _text), key in zip(pairs, keys, strict=True):
            self._owners.setdefault(key, {})[one.number] = one
        self._keys = pa.array(list(self._owners), pa.large_string())

    def __call__(self, column: pa.Array) -> Mapping[int, tuple[int, int]]:
        """Per needle how many values of the column are its own, and the place of the first."""
        found: dict[int, tuple[int, int]] = {}
        for place, number in self._found(column):
            count, first = found.get(number, (0, place))
            found[number] = (count + 1, first)
        return found

    def _found(self, column: pa.Array) -> Iterator[tuple[int, int]]:
        texts = _texts(column)
        if texts is None or not len(texts):
            return
        which = pc.index_in(_plain(texts), value_set=self._keys)
        for place in np.flatnonzero(which.is_valid().to_numpy(zero_copy_only=False)).tolist():
            raw = texts[place].as_py()
            for one in self._owners[self._keys[which[place].as_py()].as_py()].values():
                if canonical(one.kind, raw) == one.value:
                    yield place, one.number


def _texts(column: pa.Array) -> pa.Array | None:
    """The values as text; None for columns that hold none."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_floating(kind):
        whole = pc.and_(pc.equal(column, pc.floor(column)), pc.less(pc.abs(column), 2.0**53)).fill_null(False)
        column = pc.if_else(whole, column, pa.scalar(None, kind)).cast(pa.int64())
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        try:
            return column.cast(pa.large_binary()).cast(pa.large_string())
        except pa.ArrowInvalid:
            return None  # no text; its bytes are searched
    elif not any(test(kind) for test in _READABLE):
        return None
    texts = column.cast(pa.string()).cast(pa.large_string())
    if pa.types.is_integer(kind):
        return texts
    return pc.replace_substring_regex(texts, pattern=r"^([0-9]{8,})\.0+\s*$", replacement=r"\1")  # scaled numbers


_READABLE = (pa.types.is_integer, pa.types.is_decimal, pa.types.is_string, pa.types.is_large_string)


def _plain(texts: pa.Array) -> pa.Array:
    """One spelling for many: compatibility forms resolved, nothing between the characters, small letters."""
    return pc.utf8_lower(pc.replace_substring_regex(pc.utf8_normalize(texts, "NFKC"), pattern=_BETWEEN, replacement=""))

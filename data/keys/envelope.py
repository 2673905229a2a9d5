"""Values under a subject's key, one envelope a value: `suite 1 ‖ nonce 12 ‖ ciphertext ‖ tag 16`.

No subject is inside: the row's own owner value picks the key, and the AAD (field id, and row id where rows have a
primary key) nails the value to its place, so a value moved to another person, column or row does not open.

* A column is written in its domain's suite and read in any (`suites.py`). Suite 02 goes many values at a time
  (`lanes.py`) up to 64 bytes; one value at a time is the reference, and makes the same envelopes.
* Text is UTF-8, whole numbers, dates, times and floats are fixed-width little endian, null stays null.
* Length outlives the key: free text can be padded (`pad`, part of the field id) by 80 then zeros, ISO/IEC 7816-4.
* Nonces are random, never row numbers, which a second run would use again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from cryptography.exceptions import InvalidTag

from fangxin.data.errors import DoesNotHold, InputError
from fangxin.data.keys import lanes, suites
from fangxin.data.keys.material import KEY, Keys

NONCE = 12
OVERHEAD = 1 + NONCE + suites.TAG
AT_ONCE = 131_072  # rows in work: bounds what is copied to sort them by length

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]
Marks = npt.NDArray[np.bool_]


class ValueForged(DoesNotHold):
    """Values do not open under the key of their row: moved, altered, or never ours. Holds positions only."""

    def __init__(self, positions: Sequence[int]) -> None:
        self.positions = tuple(positions)
        shown = ", ".join(map(str, self.positions[:10])) + (", ..." if len(self.positions) > 10 else "")
        super().__init__(
            f"{len(self.positions)} protected value(s) do not open under their row's key, at position {shown}",
            hint="the value was altered, moved to another row or column, or its field was renamed without protected_as",
        )


class Opened(NamedTuple):
    """A column in the clear; `gone` marks values whose key is destroyed, which are null."""

    values: pa.Array
    gone: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Place:
    """Where a column's values belong: vault, domain and the names pinned in the catalog (`protected_as`)."""

    vault_id: bytes
    domain: int
    dataset: str
    collection: str
    field: str
    version: int = 1
    pad: int = 0

    def id(self, suite: int) -> bytes:
        """The 16 bytes that bind a value to its field."""
        names = b"".join(_prefixed(name) for name in (self.dataset, self.collection, self.field))
        tail = self.version.to_bytes(4, "little") + self.pad.to_bytes(2, "little")
        whole = b"fangxin/field/1" + self.vault_id + bytes((suite, self.domain)) + names + tail
        return hashlib.sha256(whole).digest()[:16]


def ref_of(kind: str, value: str) -> bytes:
    """The ref under which somebody's keys are kept: BLAKE2b-128 of the kind and value that rows point with."""
    return refs_of(kind, [value])[0]


def refs_of(kind: str, values: Sequence[str]) -> list[bytes]:
    """The refs of many."""
    return _hashes(hashlib.blake2b(b"fangxin/ref/1\0" + kind.encode() + b"\0", digest_size=16), values)


def row_ids(field: bytes, primary_keys: Sequence[str | bytes | None]) -> Bytes:
    """The 16 bytes each that bind values to their rows, under the id of their field: (N, 16)."""
    made = _hashes(hashlib.blake2b(digest_size=16, key=field), primary_keys)
    return np.frombuffer(b"".join(made), np.uint8).reshape(-1, 16)


def protect_column(
    values: pa.Array | pa.ChunkedArray,
    keys: Keys,
    place: Place,
    rows: Sequence[str | bytes | None] | None,
    *,
    suite: int,
    batch: bool = True,
) -> pa.LargeBinaryArray:
    """Put each value under the key of its row (keys[i] for row i); null stays null. Protects what is not yet.

    Whoever calls decides which values are in the clear. `rows` are the rows' primary keys; `batch=False` keeps to
    the scalar path. InputError if a key is missing, a type has no encoding, or lengths differ.
    """
    plain = encode(values, pad=place.pad)
    _check_lengths(len(plain), keys, rows)
    missing = int((_valid(plain) & ~keys.found).sum())
    if missing:
        raise InputError(
            f"{missing} value(s) have no key to go under",
            hint="make the missing keys first (`ensure`); none can be made for somebody who was erased",
        )
    field = place.id(suite)

    def sealed(some: _Same) -> list[bytes] | Bytes:
        own, nonces = _own(field, rows, some.rows), os.urandom(NONCE * len(some.rows))
        with some.of(keys) as raw:
            if some.width is None or not batch or suite != suites.CHACHA or some.width > lanes.LONGEST:
                return _seal_each(suite, raw, nonces, some.each(), field, own)
            out = np.empty((len(raw), OVERHEAD + some.width), np.uint8)
            out[:, 0] = suite
            out[:, 1 : 1 + NONCE] = np.frombuffer(nonces, np.uint8).reshape(-1, NONCE)
            out[:, 1 + NONCE :] = lanes.seal(raw, out[:, 1 : 1 + NONCE], some.body(), field, own)
            return out

    return _by_length(plain, _valid(plain), sealed)


def open_column(
    values: pa.Array | pa.ChunkedArray,
    keys: Keys,
    place: Place,
    rows: Sequence[str | bytes | None] | None,
    type: pa.DataType,  # noqa: A002 - the word of the trade
    *,
    batch: bool = True,
) -> Opened:
    """Open each value under the key of its row; where the key is gone the value is null and marked.

    ValueForged, with positions only and no plaintext at all, if any value with a key does not open.
    """
    bodies = _one(values).cast(pa.large_binary())
    _check_lengths(len(bodies), keys, rows)
    forged: list[int] = []

    def opened(some: _Same) -> list[bytes] | Bytes:
        cut = 1 + NONCE
        with some.of(keys) as raw:
            if some.width is not None and OVERHEAD <= some.width <= OVERHEAD + lanes.LONGEST and batch:
                body = some.body()
                if (body[:, 0] == suites.CHACHA).all():
                    own = _own(place.id(suites.CHACHA), rows, some.rows)
                    plain, good = lanes.unseal(raw, body[:, 1:cut], body[:, cut:], place.id(suites.CHACHA), own)
                    forged.extend(some.rows[~good].tolist())
                    return plain
            return _open_each(raw, some, place, rows, forged)

    there = _valid(bodies)
    plain = _by_length(bodies, there & keys.found, opened)
    if forged:
        raise ValueForged(sorted(forged))
    return Opened(decode(plain, type, pad=place.pad), there & ~keys.found)


def seal_blob(key: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """One envelope around bytes of our own."""
    nonce = os.urandom(NONCE)
    return bytes((suites.AES,)) + nonce + suites.aead(suites.AES, key).encrypt(nonce, plaintext, aad)


def open_blob(key: bytes, envelope: bytes, aad: bytes) -> bytes:
    """The bytes in one envelope; ValueForged if it does not open."""
    if len(envelope) < OVERHEAD or envelope[0] != suites.AES:
        raise ValueForged((0,))
    try:
        return suites.aead(suites.AES, key).decrypt(envelope[1 : 1 + NONCE], envelope[1 + NONCE :], aad)
    except InvalidTag:
        raise ValueForged((0,)) from None


def encode(values: pa.Array | pa.ChunkedArray, *, pad: int = 0) -> pa.LargeBinaryArray:
    """Each value as the bytes that are protected. InputError for a type without an encoding."""
    array = _one(values)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    if pa.types.is_null(kind):
        return array.cast(pa.large_binary())
    if _is_text(kind) or _is_bytes(kind):
        found = array.cast(pa.large_binary())
        return _padded(found, pad) if pad else found
    numbers = _numbers(kind)
    if numbers is None or pad:
        raise _no_encoding(kind, pad)
    if pa.types.is_boolean(kind):
        array = array.cast(pa.uint8())
    elif pa.types.is_integer(kind):
        array = array.cast(pa.uint64() if kind == pa.uint64() else pa.int64())
    elif pa.types.is_floating(kind):
        array = array.cast(pa.float64())
    elif pa.types.is_temporal(kind):
        array = array.cast(pa.int32() if pa.types.is_date32(kind) else pa.int64())
    raw = array.drop_null().to_numpy(zero_copy_only=False).astype(numbers)
    valid = _valid(array)
    ends = np.cumsum(np.where(valid, numbers.itemsize, 0))
    return _binary(np.concatenate([[0], ends]), raw.view(np.uint8), valid)


def decode(plain: pa.LargeBinaryArray, kind: pa.DataType, *, pad: int = 0) -> pa.Array:
    """Values from the bytes that were protected. InputError if they are not of this type."""
    if pa.types.is_dictionary(kind):
        return decode(plain, kind.value_type, pad=pad).dictionary_encode().cast(kind)
    if _is_text(kind) or _is_bytes(kind):
        try:
            return (_unpadded(plain) if pad else plain).cast(kind)
        except (pa.ArrowInvalid, ValueError):
            raise _other_type(kind) from None
    numbers = _numbers(kind)
    if numbers is None or pad:
        raise _no_encoding(kind, pad)
    valid, (starts, ends, data) = _valid(plain), _parts(plain)
    if not (ends - starts == np.where(valid, numbers.itemsize, ends - starts)).all():
        raise _other_type(kind)
    raw = np.zeros(len(plain), numbers)
    at = starts[valid][:, None] + np.arange(numbers.itemsize)
    raw[valid] = data[at].view(numbers)[:, 0]
    if pa.types.is_boolean(kind):
        return pa.array(raw.astype(np.bool_), mask=~valid)
    try:
        return pa.array(raw, mask=~valid).cast(kind)
    except pa.ArrowInvalid:
        raise _other_type(kind) from None


# ------------------------------------------------------------ values of one length, together


class _Same:
    """Some values of a column: `rows` says which; all of `width` bytes, or of any length if that is None."""

    def __init__(self, rows: Numbers, values: pa.LargeBinaryArray, width: int | None) -> None:
        self.rows, self.width, self._values = rows, width, values

    @contextmanager
    def of(self, keys: Keys) -> Iterator[Bytes]:
        """The keys of these rows; a copy is wiped."""
        if _adjoining(self.rows):
            yield keys.raw[self.rows[0] : self.rows[-1] + 1]
            return
        raw = keys.raw[self.rows]
        try:
            yield raw
        finally:
            raw.fill(0)

    def body(self) -> Bytes:
        """The values as (N, width)."""
        starts, ends, data = _parts(self._values)
        return data[starts[0] : ends[-1]].reshape(len(self.rows), -1)

    def each(self) -> Iterator[bytes]:
        """The values one by one."""
        return iter(self._values.to_pylist())


_MANY = 255  # a length that nothing of ours treats together


def _by_length(
    values: pa.LargeBinaryArray, wanted: Marks, work: Callable[[_Same], list[bytes] | Bytes]
) -> pa.LargeBinaryArray:
    """What `work` makes of the wanted values, in their rows, null elsewhere; it is given values of one length."""
    starts, ends, _ = _parts(values)
    lengths = np.minimum(ends - starts, _MANY).astype(np.uint8)
    done = [
        _some(values, first + np.flatnonzero(wanted[first : first + AT_ONCE]), lengths, work, first)
        for first in range(0, len(values), AT_ONCE)
    ]
    if len(done) == 1:
        return done[0]
    return pa.concat_arrays(done) if done else pa.array([], pa.large_binary())


def _some(
    values: pa.LargeBinaryArray,
    rows: Numbers,
    lengths: Bytes,
    work: Callable[[_Same], list[bytes] | Bytes],
    first: int,
) -> pa.LargeBinaryArray:
    """As above, for at most AT_ONCE rows."""
    count = min(AT_ONCE, len(values) - first)
    order = rows[np.argsort(lengths[rows], kind="stable")]
    borders = np.flatnonzero(np.diff(lengths[order])) + 1
    parts: list[Bytes] = []
    sizes: list[Numbers] = []
    for same in np.split(order, borders) if len(order) else ():
        width = int(lengths[same[0]])
        those = values.slice(same[0], len(same)) if _adjoining(same) else values.take(pa.array(same))
        made = work(_Same(same, those, None if width == _MANY else width))
        if isinstance(made, np.ndarray):
            parts.append(np.ascontiguousarray(made).reshape(-1))
            sizes.append(np.full(len(made), made.shape[1], np.int64))
        else:
            parts.append(np.frombuffer(b"".join(made), np.uint8))
            sizes.append(np.fromiter(map(len, made), np.int64, len(made)))
    ends = np.cumsum(np.concatenate(sizes)) if sizes else np.zeros(0, np.int64)
    data = parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, np.uint8), *parts])
    sorted_ = _binary(np.concatenate([[0], ends]), data, None)
    if len(order) == count and len(borders) == 0:
        return sorted_  # one length and no null: they lie in their order
    back = np.zeros(count, np.int64)
    back[order - first] = np.arange(len(order))
    absent = np.ones(count, np.bool_)
    absent[order - first] = False
    return sorted_.take(pa.array(back, mask=absent))


def _seal_each(
    suite: int, raw: Bytes, nonces: bytes, values: Iterator[bytes], field: bytes, own: Bytes | None
) -> list[bytes]:
    first = bytes((suite,))
    made = []
    for row, value in enumerate(values):
        nonce = nonces[row * NONCE : (row + 1) * NONCE]
        aad = field if own is None else field + own[row].tobytes()
        made.append(first + nonce + suites.aead(suite, memoryview(raw[row])).encrypt(nonce, value, aad))
    return made


def _open_each(
    raw: Bytes, some: _Same, place: Place, rows: Sequence[str | bytes | None] | None, forged: list[int]
) -> list[bytes]:
    """Values of any suite one by one; where one does not open its row is noted."""
    fields: dict[int, bytes] = {suite: place.id(suite) for suite in suites.NAMES}
    owns: dict[int, Bytes | None] = {}
    made = []
    for row, body in enumerate(some.each()):
        value = b""
        suite = body[0] if len(body) >= OVERHEAD else 0
        if suite in fields:
            if suite not in owns:
                owns[suite] = _own(fields[suite], rows, some.rows)
            own = owns[suite]
            aad = fields[suite] if own is None else fields[suite] + own[row].tobytes()
            try:
                value = suites.aead(suite, memoryview(raw[row])).decrypt(body[1 : 1 + NONCE], body[1 + NONCE :], aad)
            except InvalidTag:
                suite = 0
        if suite not in fields:
            forged.append(int(some.rows[row]))
        made.append(value)
    return made


def _own(field: bytes, rows: Sequence[str | bytes | None] | None, which: Numbers) -> Bytes | None:
    if rows is None:
        return None
    if _adjoining(which):
        return row_ids(field, rows[which[0] : which[-1] + 1])
    return row_ids(field, [rows[row] for row in which.tolist()])


def _adjoining(rows: Numbers) -> bool:
    return bool(rows[-1] - rows[0] + 1 == len(rows))  # they ascend


def _hashes(start: hashlib.blake2b, values: Sequence[str | bytes | None]) -> list[bytes]:
    """The digest of each value after what `start` has taken in; null like nothing at all."""
    made = []
    for value in values:
        one = start.copy()
        one.update(value.encode() if isinstance(value, str) else value or b"")
        made.append(one.digest())
    return made


# ------------------------------------------------------------ Arrow


def _one(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        return values.combine_chunks() if values.num_chunks != 1 else values.chunk(0)
    return values


def _parts(values: pa.LargeBinaryArray) -> tuple[Numbers, Numbers, Bytes]:
    """Where each value starts and ends, and the bytes they lie in."""
    _, offsets, data = values.buffers()
    if offsets is None or not len(values):
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint8)
    ends = np.frombuffer(offsets, np.int64)[values.offset : values.offset + len(values) + 1]
    return ends[:-1], ends[1:], np.frombuffer(data or b"", np.uint8)


def _valid(values: pa.Array) -> Marks:
    found: Marks = values.is_valid().to_numpy(zero_copy_only=False)
    return found


def _binary(offsets: Numbers, data: bytes | Bytes, valid: Marks | None) -> pa.LargeBinaryArray:
    marks = None if valid is None or valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    buffers = [marks, pa.py_buffer(offsets.astype(np.int64)), pa.py_buffer(data)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(offsets) - 1, buffers)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _numbers(kind: pa.DataType) -> np.dtype[np.generic] | None:
    """The fixed width a type is protected in, little endian; None if it has none."""
    if pa.types.is_boolean(kind):
        return np.dtype("u1")
    if pa.types.is_date32(kind):
        return np.dtype("<i4")
    if kind == pa.uint64():
        return np.dtype("<u8")
    if pa.types.is_integer(kind) or pa.types.is_timestamp(kind) or pa.types.is_time64(kind) or pa.types.is_date64(kind):
        return np.dtype("<i8")
    return np.dtype("<f8") if pa.types.is_floating(kind) else None


def _padded(values: pa.LargeBinaryArray, pad: int) -> pa.LargeBinaryArray:
    starts, ends, _ = _parts(values)
    fill = pa.array([b"\x80" + bytes(more) for more in range(pad)], pa.large_binary())
    more = pa.array(-(ends - starts + 1) % pad)
    return pc.binary_join_element_wise(values, fill.take(more), pa.scalar(b"", pa.large_binary()))


def _unpadded(values: pa.LargeBinaryArray) -> pa.LargeBinaryArray:
    bare = [None if one is None else one.rstrip(b"\0") for one in values.to_pylist()]
    if not all(one is None or one.endswith(b"\x80") for one in bare):
        raise ValueError("not padded")
    return pa.array([None if one is None else one[:-1] for one in bare], pa.large_binary())


def _prefixed(name: str) -> bytes:
    raw = name.encode()
    return len(raw).to_bytes(2, "little") + raw


def _check_lengths(count: int, keys: Keys, rows: Sequence[str | bytes | None] | None) -> None:
    if len(keys) != count or keys.raw.shape[1] != KEY or (rows is not None and len(rows) != count):
        raise InputError(
            f"a column of {count} values came with {len(keys)} keys"
            + ("" if rows is None else f" and {len(rows)} primary keys"),
            hint="one key, and the primary key where rows have one, for each row",
        )


def _no_encoding(kind: pa.DataType, pad: int) -> InputError:
    return InputError(
        f"values of type {kind} cannot be put under keys" + (" with padding" if pad else ""),
        hint="store decimals and nested values as text; only text and bytes are padded",
    )


def _other_type(kind: pa.DataType) -> InputError:
    return InputError(
        f"values opened, but are not of type {kind}: they were protected as another type",
        hint="give the field the data_type in the catalog with which it was protected",
    )

"""Values under a subject's key, one envelope a value: `suite 01 ‖ nonce 12 ‖ ciphertext ‖ tag 16` (AES-256-GCM).

The scalar path, and the reference for any faster one. No subject is inside: the row's own owner value picks the
key, and the AAD (field id, and row id where rows have a primary key) nails the value to its place, so a value
moved to another person, column or row does not open.

* Text is UTF-8, whole numbers, dates, times and floats are fixed-width little endian, null stays null.
* Length outlives the key: free text can be padded (`pad`, part of the field id) by 80 then zeros, ISO/IEC 7816-4.
* Nonces are random, never row numbers, which a second run would use again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fangxin.data.errors import DoesNotHold, InputError
from fangxin.data.keys.material import KEY, Keys

SUITE = 1
NONCE = 12
OVERHEAD = 1 + NONCE + 16


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


def ref_of(kind: str, value: str) -> bytes:
    """The ref under which somebody's keys are kept: BLAKE2b-128 of the kind and value that rows point with."""
    return hashlib.blake2b(b"fangxin/ref/1\0" + kind.encode() + b"\0" + value.encode(), digest_size=16).digest()


def field_id(
    vault_id: bytes,
    domain: int,
    dataset: str,
    collection: str,
    field: str,
    *,
    suite: int = SUITE,
    version: int = 1,
    pad: int = 0,
) -> bytes:
    """The 16 bytes that bind a value to its field; names are those pinned in the catalog (`protected_as`)."""
    names = b"".join(_prefixed(name) for name in (dataset, collection, field))
    tail = version.to_bytes(4, "little") + pad.to_bytes(2, "little")
    return hashlib.sha256(b"fangxin/field/1" + vault_id + bytes((suite, domain)) + names + tail).digest()[:16]


def row_id(field: bytes, primary_key: str | bytes) -> bytes:
    """The 16 bytes that bind a value to its row, under the id of its field."""
    value = primary_key.encode() if isinstance(primary_key, str) else primary_key
    return hashlib.blake2b(value, digest_size=16, key=field).digest()


def protect_column(
    values: pa.Array | pa.ChunkedArray, keys: Keys, field: bytes, row_ids: Sequence[bytes] | None, *, pad: int = 0
) -> pa.LargeBinaryArray:
    """Put each value under the key of its row (keys[i] for row i); null stays null. Protects what is not yet.

    Whoever calls decides which values are in the clear. `pad` rounds lengths of text and bytes up and must be
    the one in the field id. InputError if a key is missing, a type has no encoding, or lengths differ.
    """
    plain = encode(values, pad=pad)
    valid = np.fromiter((one is not None for one in plain), np.bool_, len(plain))
    _check_lengths(len(plain), keys, row_ids)
    if not keys.found[valid].all():
        raise InputError(
            f"{int((valid & ~keys.found).sum())} value(s) have no key to go under",
            hint="make the missing keys first (`ensure`); none can be made for somebody who was erased",
        )
    nonces = os.urandom(NONCE * len(plain))
    sealed: list[bytes] = []
    sizes = np.zeros(len(plain) + 1, np.int64)
    for row, one in enumerate(plain):
        if one is None:
            continue
        nonce = nonces[row * NONCE : (row + 1) * NONCE]
        aad = field if row_ids is None else field + row_ids[row]
        body = AESGCM(keys.view(row)).encrypt(nonce, one, aad)
        sealed += (b"\x01", nonce, body)
        sizes[row + 1] = 1 + NONCE + len(body)
    buffers = [_bitmap(valid), pa.py_buffer(np.cumsum(sizes)), pa.py_buffer(b"".join(sealed))]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(plain), buffers)


def open_column(
    values: pa.Array | pa.ChunkedArray,
    keys: Keys,
    field: bytes,
    row_ids: Sequence[bytes] | None,
    type: pa.DataType,  # noqa: A002 - the word of the trade
    *,
    pad: int = 0,
) -> Opened:
    """Open each value under the key of its row; where the key is gone the value is null and marked.

    ValueForged, with positions only and no plaintext at all, if any value with a key does not open.
    """
    bodies = values.to_pylist()
    _check_lengths(len(bodies), keys, row_ids)
    gone = np.zeros(len(bodies), np.bool_)
    plain: list[bytes | None] = [None] * len(bodies)
    forged: list[int] = []
    for row, body in enumerate(bodies):
        if body is None:
            continue
        if not keys.found[row]:
            gone[row] = True
            continue
        aad = field if row_ids is None else field + row_ids[row]
        try:
            plain[row] = _open(keys.view(row), body, aad)
        except InvalidTag:
            forged.append(row)
    if forged:
        raise ValueForged(forged)
    return Opened(decode(plain, type, pad=pad), gone)


def seal_blob(key: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """One envelope around bytes of our own."""
    nonce = os.urandom(NONCE)
    return bytes((SUITE,)) + nonce + AESGCM(key).encrypt(nonce, plaintext, aad)


def open_blob(key: bytes, envelope: bytes, aad: bytes) -> bytes:
    """The bytes in one envelope; ValueForged if it does not open."""
    try:
        return _open(key, envelope, aad)
    except InvalidTag:
        raise ValueForged((0,)) from None


def encode(values: pa.Array | pa.ChunkedArray, *, pad: int = 0) -> list[bytes | None]:
    """Each value as the bytes that are protected. InputError for a type without an encoding."""
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    if pa.types.is_null(kind):
        return [None] * len(array)
    if _is_text(kind) or _is_bytes(kind):
        found: list[bytes | None] = array.cast(pa.large_binary()).to_pylist()
        return [None if one is None else _padded(one, pad) for one in found] if pad else found
    numbers = _numbers(kind)
    if numbers is None or pad:
        raise _no_encoding(kind, pad)
    if pa.types.is_boolean(kind):
        array = array.cast(pa.uint8())
    elif pa.types.is_integer(kind):
        array = array.cast(pa.uint64() if kind == pa.uint64() else pa.int64())
    elif pa.types.is_floating(kind):
        array = array.cast(pa.float64())
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    raw = np.zeros(len(array), numbers)
    if pa.types.is_temporal(kind):
        array = array.cast(pa.int32() if pa.types.is_date32(kind) else pa.int64())
    raw[valid] = array.drop_null().to_numpy(zero_copy_only=False)
    whole, width = raw.tobytes(), numbers.itemsize
    return [whole[i * width : (i + 1) * width] if valid[i] else None for i in range(len(array))]


def decode(plain: Sequence[bytes | None], kind: pa.DataType, *, pad: int = 0) -> pa.Array:
    """Values from the bytes that were protected. InputError if they are not of this type."""
    if pa.types.is_dictionary(kind):
        return decode(plain, kind.value_type, pad=pad).dictionary_encode().cast(kind)
    if _is_text(kind) or _is_bytes(kind):
        try:
            found = [None if one is None else _unpadded(one) for one in plain] if pad else plain
            return pa.array(found, pa.large_binary()).cast(kind)
        except (pa.ArrowInvalid, ValueError):
            raise _other_type(kind) from None
    numbers = _numbers(kind)
    if numbers is None or pad:
        raise _no_encoding(kind, pad)
    width = numbers.itemsize
    if any(one is not None and len(one) != width for one in plain):
        raise _other_type(kind)
    blank = bytes(width)
    raw = np.frombuffer(b"".join(blank if one is None else one for one in plain), numbers)
    absent = np.fromiter((one is None for one in plain), np.bool_, len(plain))
    if pa.types.is_boolean(kind):
        return pa.array(raw.astype(np.bool_), mask=absent)
    try:
        return pa.array(raw, mask=absent).cast(kind)
    except pa.ArrowInvalid:
        raise _other_type(kind) from None


def _open(key: bytes | memoryview[int], envelope: bytes, aad: bytes) -> bytes:
    if len(envelope) < OVERHEAD or envelope[0] != SUITE:
        raise InvalidTag
    return AESGCM(key).decrypt(envelope[1 : 1 + NONCE], envelope[1 + NONCE :], aad)


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


def _padded(one: bytes, pad: int) -> bytes:
    return one + b"\x80" + bytes(-(len(one) + 1) % pad)


def _unpadded(one: bytes) -> bytes:
    bare = one.rstrip(b"\0")
    if not bare.endswith(b"\x80"):
        raise ValueError("not padded")
    return bare[:-1]


def _bitmap(valid: npt.NDArray[np.bool_]) -> pa.Buffer | None:
    return None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))


def _prefixed(name: str) -> bytes:
    raw = name.encode()
    return len(raw).to_bytes(2, "little") + raw


def _check_lengths(rows: int, keys: Keys, row_ids: Sequence[bytes] | None) -> None:
    if len(keys) != rows or keys.raw.shape[1] != KEY or (row_ids is not None and len(row_ids) != rows):
        raise InputError(
            f"a column of {rows} values came with {len(keys)} keys"
            + ("" if row_ids is None else f" and {len(row_ids)} row ids"),
            hint="one key, and one row id where rows have a primary key, for each row",
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

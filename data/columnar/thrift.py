"""Thrift compact structs read and written without a schema, so that nothing in them is lost.

The wire format is Apache Thrift's compact protocol. A struct is a list of `[field id, wire type, value]` in the
order of the file; unknown fields survive, and `dumps(loads(b)) == b` for every writer we met. Whoever wants to
change bytes in place checks exactly that first.

* Values: bool, int (byte, i16, i32, i64), `bytes` of 8 for a double, `Binary` (bytes that know where they lay),
  `List` for lists and sets, `Map`, and a struct again.
* A parser never trusts a length: over-long numbers, nesting deeper than 64, lengths beyond the buffer and unknown
  wire types raise `MalformedFooter`, and nothing else leaves this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, Union

from fangxin.data.errors import StoreUnavailable

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
DEEPEST = 64  # nested structs and lists; Parquet itself needs 7


class MalformedFooter(StoreUnavailable):
    """A Parquet footer, page header or index is not what the format says."""


class Binary(bytes):
    """The bytes of a binary or string field; `at` is where they lay in the buffer that was read."""

    at: int = -1


@dataclass
class List:
    """A list or set: wire type of its items, and the items."""

    of: int
    items: list[Value]


@dataclass
class Map:
    """A map: wire types of keys and values, and the pairs in order."""

    keys: int
    values: int
    pairs: list[tuple[Value, Value]]


# The aliases refer to themselves (a struct holds values, a value may be a struct), which `|` cannot say at run time.
Struct: TypeAlias = "list[tuple[int, int, Value]]"
Value: TypeAlias = Union[bool, int, bytes, Binary, List, Map, "list[tuple[int, int, Value]]"]  # noqa: UP007


def loads(data: bytes) -> Struct:
    """Read the struct at the start of `data`; trailing bytes are left alone."""
    return read(data, 0)[0]


def read(data: bytes, pos: int) -> tuple[Struct, int]:
    """Read the struct at `pos` and return it with the position just behind it."""
    try:
        return _struct(data, pos, 0)
    except IndexError:
        raise Cut(f"a Thrift struct runs over the end of {len(data)} bytes") from None


class Cut(MalformedFooter):
    """The buffer ended inside a struct: more bytes may help."""


def skip(data: bytes, pos: int) -> int:
    """Return the position just behind the struct at `pos`."""
    return read(data, pos)[1]


def dumps(struct: Struct) -> bytes:
    """Write a struct as the compact protocol does, with the shortest headers."""
    out = bytearray()
    _put_struct(out, struct)
    return bytes(out)


def get(struct: Struct, field: int) -> Value | None:
    """The value of a field, or None where the struct has none."""
    for one, _type, value in struct:
        if one == field:
            return value
    return None


def put(struct: Struct, field: int, wire: int, value: Value) -> None:
    """Set a field in place, or insert it in ascending order."""
    for i, (one, _type, _value) in enumerate(struct):
        if one == field:
            struct[i] = (field, wire, value)
            return
    at = next((i for i, (one, _type, _value) in enumerate(struct) if one > field), len(struct))
    struct.insert(at, (field, wire, value))


def drop(struct: Struct, field: int) -> None:
    """Remove a field if it is there."""
    struct[:] = [entry for entry in struct if entry[0] != field]


# ---------------------------------------------------------------- reading


def _varint(data: bytes, pos: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[pos]
        pos += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 63:
            raise MalformedFooter(f"a number at byte {pos} is longer than 64 bits")
    if (shift and not byte) or number >= 1 << 64:
        raise MalformedFooter(f"a number at byte {pos} is not written the shortest way")
    return number, pos


def _zigzag(data: bytes, pos: int) -> tuple[int, int]:
    number, pos = _varint(data, pos)
    return (number >> 1) ^ -(number & 1), pos


def _struct(data: bytes, pos: int, depth: int) -> tuple[Struct, int]:
    if depth > DEEPEST:
        raise MalformedFooter(f"structs are nested deeper than {DEEPEST} at byte {pos}")
    fields: Struct = []
    last = 0
    while True:
        head = data[pos]
        pos += 1
        if head == 0:
            return fields, pos
        wire, delta = head & 0x0F, head >> 4
        if delta:
            last += delta
        else:
            last, pos = _zigzag(data, pos)
        if not 0 < last < 1 << 15:
            raise MalformedFooter(f"field number {last} at byte {pos} is not one of Thrift's")
        if wire in (TRUE, FALSE):
            fields.append((last, wire, wire == TRUE))
        else:
            value, pos = _value(data, pos, wire, depth)
            fields.append((last, wire, value))


def _value(data: bytes, pos: int, wire: int, depth: int) -> tuple[Value, int]:
    if I16 <= wire <= I64:
        return _zigzag(data, pos)
    if wire == BINARY:
        length, pos = _varint(data, pos)
        if length > len(data) - pos:
            raise Cut(f"{length} bytes are announced at byte {pos}, {len(data) - pos} are there")
        value = Binary(data[pos : pos + length])
        value.at = pos
        return value, pos + length
    if wire == STRUCT:
        return _struct(data, pos, depth + 1)
    if wire in (LIST, SET):
        return _list(data, pos, depth + 1)
    if wire in (TRUE, FALSE):  # an item of a list: one byte, 1 or 2
        if data[pos] not in (TRUE, FALSE):
            raise MalformedFooter(f"byte {pos} should hold a boolean")
        return data[pos] == TRUE, pos + 1
    if wire == BYTE:
        return data[pos] - 256 * (data[pos] > 127), pos + 1
    if wire == DOUBLE:
        data[pos + 7]  # noqa: B018  an IndexError here says that the buffer is cut
        return data[pos : pos + 8], pos + 8
    if wire == MAP:
        return _map(data, pos, depth + 1)
    raise MalformedFooter(f"wire type {wire} at byte {pos} is not one of Thrift's")


def _list(data: bytes, pos: int, depth: int) -> tuple[List, int]:
    if depth > DEEPEST:
        raise MalformedFooter(f"lists are nested deeper than {DEEPEST} at byte {pos}")
    head = data[pos]
    pos += 1
    size, of = head >> 4, head & 0x0F
    if size == 15:
        size, pos = _varint(data, pos)
        if size < 15:
            raise MalformedFooter(f"a list at byte {pos} does not write its length the shortest way")
    if size > len(data) - pos:  # every item takes a byte at least
        raise Cut(f"{size} items are announced at byte {pos}, {len(data) - pos} bytes are there")
    found = List(of, [])
    for _ in range(size):
        item, pos = _value(data, pos, of, depth)
        found.items.append(item)
    return found, pos


def _map(data: bytes, pos: int, depth: int) -> tuple[Map, int]:
    if depth > DEEPEST:
        raise MalformedFooter(f"maps are nested deeper than {DEEPEST} at byte {pos}")
    size, pos = _varint(data, pos)
    if not size:
        return Map(0, 0, []), pos
    if 2 * size > len(data) - pos:
        raise Cut(f"{size} pairs are announced at byte {pos}, {len(data) - pos} bytes are there")
    found = Map(data[pos] >> 4, data[pos] & 0x0F, [])
    pos += 1
    for _ in range(size):
        key, pos = _value(data, pos, found.keys, depth)
        value, pos = _value(data, pos, found.values, depth)
        found.pairs.append((key, value))
    return found, pos


# ---------------------------------------------------------------- writing


def _put_varint(out: bytearray, number: int) -> None:
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _put_zigzag(out: bytearray, number: int) -> None:
    _put_varint(out, (number << 1) ^ (number >> 63))


def _put_struct(out: bytearray, struct: Struct) -> None:
    last = 0
    for field, wire, value in struct:
        if wire in (TRUE, FALSE):
            wire = TRUE if value else FALSE
        if 0 < field - last <= 15:
            out.append((field - last) << 4 | wire)
        else:
            out.append(wire)
            _put_zigzag(out, field)
        last = field
        if wire not in (TRUE, FALSE):
            _put_value(out, wire, value)
    out.append(0)


def _put_value(out: bytearray, wire: int, value: Value) -> None:
    if isinstance(value, bool):
        out.append(TRUE if value else FALSE)
    elif isinstance(value, int):
        if wire == BYTE:
            out.append(value & 0xFF)
        else:
            _put_zigzag(out, value)
    elif isinstance(value, bytes):
        if wire == BINARY:
            _put_varint(out, len(value))
        out += value
    elif isinstance(value, List):
        if len(value.items) < 15:
            out.append(len(value.items) << 4 | value.of)
        else:
            out.append(0xF0 | value.of)
            _put_varint(out, len(value.items))
        for item in value.items:
            _put_value(out, value.of, item)
    elif isinstance(value, Map):
        _put_varint(out, len(value.pairs))
        if value.pairs:
            out.append(value.keys << 4 | value.values)
        for key, item in value.pairs:
            _put_value(out, value.keys, key)
            _put_value(out, value.values, item)
    else:
        _put_struct(out, value)

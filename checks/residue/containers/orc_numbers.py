"""Numbers of an ORC column out of their runs (ORC specification v1: run length encodings, versions 1 and 2).

Our own reading, because pyarrow's brings the whole process down on some damaged files. Raises NotExaminable.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fangxin.checks.residue.containers.piece import NotExaminable

_WIDTHS = (*range(1, 25), 26, 28, 30, 32, 40, 48, 56, 64)
Numbers = npt.NDArray[np.uint64]


def runs(data: bytes, *, second: bool) -> bytes:
    """Signed numbers of a stream as 8 bytes each, little-endian; `second` for version 2 of the encoding."""
    found, at = list[Numbers](), 0
    try:
        while at < len(data):
            run, at = (_second if second else _first)(data, at)
            found.append(run)
    except (IndexError, ValueError) as error:
        raise NotExaminable(f"a run of numbers is damaged or cut short ({type(error).__name__})") from None
    return b"".join(run.astype("<u8").tobytes() for run in found)


def decimals(data: bytes) -> bytes:
    """Unscaled decimals of a stream, a line each."""
    found, at = list[str](), 0
    while at < len(data):
        try:
            value, at = _varint(data, at)
        except IndexError:
            raise NotExaminable("a decimal is cut short") from None
        found.append(str(value >> 1 ^ -(value & 1)))
    return "\n".join(found).encode()


def _second(data: bytes, at: int) -> tuple[Numbers, int]:
    head = data[at]
    kind = head >> 6
    if kind == 0:  # one number, repeated
        width = (head >> 3 & 7) + 1
        value = np.array([_big(data, at + 1, width)], np.uint64)
        return np.repeat(_zigzag(value), (head & 7) + 3), at + 1 + width
    count, code = (head & 1) << 8 | data[at + 1], head >> 1 & 31
    count, at = count + 1, at + 2
    if kind == 1:  # each number by itself
        values, at = _packed(data, at, count, _WIDTHS[code])
        return _zigzag(values), at
    if kind == 2:  # most numbers in few bits, the rest patched
        width, third, fourth = _WIDTHS[code], data[at], data[at + 1]
        size, patch, gap, patches = (third >> 5) + 1, _WIDTHS[third & 31], (fourth >> 5) + 1, fourth & 31
        base = _big(data, at + 2, size)
        sign = 1 << (8 * size - 1)
        base = -(base ^ sign) if base & sign else base
        values, at = _packed(data, at + 2 + size, count, width)
        entries, at = _packed(data, at, patches, next(w for w in _WIDTHS if w >= gap + patch))
        place = 0
        for entry in entries.tolist():
            place += entry >> patch
            values[place] |= np.uint64((entry & (1 << patch) - 1) << width & (1 << 64) - 1)
        return values + np.uint64(base & (1 << 64) - 1), at
    first, at = _varint(data, at)  # steps from one to the next
    step, at = _varint(data, at)
    first, step = first >> 1 ^ -(first & 1), step >> 1 ^ -(step & 1)
    if code == 0:
        steps = np.full(count - 1, step & (1 << 64) - 1, np.uint64)
    else:
        more, at = _packed(data, at, count - 2, _WIDTHS[code])
        more = more if step >= 0 else np.uint64(0) - more
        steps = np.concatenate([np.array([step & (1 << 64) - 1], np.uint64), more])
    start = np.array([first & (1 << 64) - 1], np.uint64)
    return np.cumsum(np.concatenate([start, steps]), dtype=np.uint64), at


def _first(data: bytes, at: int) -> tuple[Numbers, int]:
    head = data[at]
    if head < 128:
        step = data[at + 1] - 256 * (data[at + 1] > 127)
        base, at = _varint(data, at + 2)
        base = base >> 1 ^ -(base & 1)
        return np.array([(base + i * step) & (1 << 64) - 1 for i in range(head + 3)], np.uint64), at
    values = []
    at += 1
    for _ in range(256 - head):
        value, at = _varint(data, at)
        values.append((value >> 1 ^ -(value & 1)) & (1 << 64) - 1)
    return np.array(values, np.uint64), at


def _packed(data: bytes, at: int, count: int, width: int) -> tuple[Numbers, int]:
    """Numbers of `width` bits, the highest first, and the byte behind them."""
    end = at + -(-count * width // 8)
    bits = np.unpackbits(np.frombuffer(data[at:end], np.uint8))[: count * width].reshape(count, width)
    out = np.zeros(count, np.uint64)
    for column in range(width):
        out = out << np.uint64(1) | bits[:, column]
    return out, end


def _big(data: bytes, at: int, width: int) -> int:
    if at + width > len(data):
        raise IndexError
    return int.from_bytes(data[at : at + width], "big")


def _zigzag(values: Numbers) -> Numbers:
    return values >> np.uint64(1) ^ (np.uint64(0) - (values & np.uint64(1)))


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
        shift += 7

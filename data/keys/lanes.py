"""ChaCha20-Poly1305 (RFC 8439) over many short values at once in numpy, each value under its own key and nonce.

A lane is one value. The sixteen words of the ChaCha20 state are rows and lanes are columns, so that one numpy call
does a step of four quarter rounds for all lanes; Poly1305 keeps 130-bit numbers as five rows of 26 bits in u64.
A value of up to 64 bytes needs two blocks: number 0 for the one-time key, number 1 for the value.

* Byte for byte what `cryptography` makes; the scalar path opens it and the other way round.
* All values of a call have the same length; the last lanes of a call are padded up to one of a few widths.
* Buffers are per thread and width, and zeroed after every call. numpy does not promise constant time: this is for
  values at rest, where nobody measures us.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

LONGEST = 64  # bytes of a value: one block of key stream
WIDTH = 2048  # lanes at a time: fewer pay for numpy's calls, more fall out of the processor's cache
STEP = 256  # widths of what is left over
TAG = 16

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint32]
Limbs = npt.NDArray[np.uint64]

_SIGMA = np.frombuffer(b"expand 32-byte k", "<u4").astype(np.uint32)[:, None]
_CLAMP = np.array([0x0FFFFFFF, 0x0FFFFFFC, 0x0FFFFFFC, 0x0FFFFFFC], np.uint32)[:, None]
_26 = np.array(2**26 - 1, np.uint64)
_32 = np.array(2**32 - 1, np.uint64)
# Where the limbs of a block lie in its four words: limb i+1 = word i from these bits up, and word i+1 above them.
_DOWN = np.array([26, 20, 14, 8], np.uint64)[:, None]
_UP = np.array([6, 12, 18], np.uint64)[:, None]
_N = {n: np.array(n, np.uint64) for n in (5, 26, 32)}


def seal(keys: Bytes, nonces: Bytes, plain: Bytes, field: bytes, rows: Bytes | None) -> Bytes:
    """Encrypt N values of n bytes: keys (N, 32), nonces (N, 12), plain (N, n) to ciphertext and tag, (N, n + 16).

    The AAD of a value is `field`, then its own of `rows` (N, 16) if given; a field's id has 16 bytes, too.
    """
    size = plain.shape[1]
    out = np.empty((len(plain), size + TAG), np.uint8)
    with _buffers() as buffers:
        for lanes, scratch in buffers.turns(len(plain)):
            words = scratch.crypt(keys[lanes], nonces[lanes], plain[lanes])
            tags = scratch.tag(words, size, field, None if rows is None else rows[lanes])
            out[lanes, :size] = _columns(words, len(out[lanes]), size)
            out[lanes, size:] = _columns(tags, len(out[lanes]), TAG)
    return out


def unseal(
    keys: Bytes, nonces: Bytes, sealed: Bytes, field: bytes, rows: Bytes | None
) -> tuple[Bytes, npt.NDArray[np.bool_]]:
    """Decrypt what `seal` made: the values (N, n), and which tags were right. Where one was not, the value is zeros."""
    size = sealed.shape[1] - TAG
    out = np.empty((len(sealed), size), np.uint8)
    good = np.zeros(len(sealed), np.bool_)
    with _buffers() as buffers:
        for lanes, scratch in buffers.turns(len(sealed)):
            body = sealed[lanes, :size]
            plain = scratch.crypt(keys[lanes], nonces[lanes], body)
            tags = scratch.tag(scratch.text, size, field, None if rows is None else rows[lanes])
            wrong = tags[:, : len(body)] ^ _words(sealed[lanes, size:])
            good[lanes] = np.bitwise_or.reduce(wrong, axis=0) == 0
            out[lanes] = _columns(plain, len(body), size)
    out[~good] = 0
    return out, good


class _Buffers(threading.local):
    """The buffers of a thread by width; all zero between calls."""

    def __init__(self) -> None:
        self.by_width: dict[int, _Scratch] = {}

    def of(self, width: int) -> _Scratch:
        """Buffers for so many lanes."""
        if width not in self.by_width:
            self.by_width[width] = _Scratch(width)
        return self.by_width[width]

    def turns(self, count: int) -> Iterator[tuple[slice, _Scratch]]:
        """Some lanes after the other, with the buffers for them."""
        for start in range(0, count, WIDTH):
            lanes = min(WIDTH, count - start)
            yield slice(start, start + lanes), self.of(-(-lanes // STEP) * STEP)


@contextmanager
def _buffers() -> Iterator[_Buffers]:
    try:
        yield _OURS
    finally:
        for scratch in _OURS.by_width.values():
            scratch.wipe()


class _Scratch:
    """The buffers for so many lanes at a time, and the steps that fill them."""

    def __init__(self, width: int) -> None:
        self.state = np.zeros((16, 2, width), np.uint32)  # block 0 and block 1 of every lane
        self.key = np.zeros((8, width), np.uint32)
        self.nonce = np.zeros((3, width), np.uint32)
        self.text = np.zeros((16, width), np.uint32)  # what `crypt` was given
        self.made = np.zeros((16, width), np.uint32)
        self.block = np.zeros((width, LONGEST), np.uint8)
        self.spare = np.zeros((4, 2 * width), np.uint32)
        self.own = np.zeros((4, width), np.uint32)
        self.powers = np.zeros((9, width), np.uint64)  # 5r1..5r4, r0..r4: limb i meets rows 4-i..8-i
        self.sum = np.zeros((5, width), np.uint64)
        self.product = np.zeros((5, width), np.uint64)
        self.term = np.zeros((5, width), np.uint64)
        self.limbs = np.zeros((5, width), np.uint64)
        self.wide = np.zeros((4, width), np.uint64)
        self.double_round = _double_round(self.state.reshape(16, -1), self.spare)
        self.used = False

    def wipe(self) -> None:
        """Zero what was used."""
        if self.used:
            for one in vars(self).values():
                if isinstance(one, np.ndarray):
                    one.fill(0)
        self.used = False

    def load(self, text: Bytes) -> Words:
        """Up to 64 bytes a lane as rows of words, zeros behind."""
        self.block[: len(text), : text.shape[1]] = text
        self.block[: len(text), text.shape[1] :] = 0
        self.text[:, : len(text)] = self.block[: len(text)].view("<u4").T
        return self.text

    def crypt(self, keys: Bytes, nonces: Bytes, text: Bytes) -> Words:
        """The text of each lane under its key stream, as rows of words; the one-time key stays in block 0."""
        lanes, size = text.shape
        state, key = self.state, self.key
        self.used = True
        key[:, :lanes] = _words(keys)
        self.nonce[:, :lanes] = _words(nonces)
        state[0:4] = _SIGMA[:, :, None]
        state[4:12] = key[:, None]
        state[12] = np.array([[0], [1]], np.uint32)
        state[13:16] = self.nonce[:, None]
        for _ in range(10):
            for step, left, right, into in self.double_round:
                step(left, right, into)
        state[0:4] += _SIGMA[:, :, None]
        state[4:8] += key[:4, None]
        used = -(-size // 4)
        if used > 8:
            state[8:12, 1] += key[4:]
            state[12, 1] += np.uint32(1)
            state[13:16, 1] += self.nonce
        words = self.load(text)
        np.bitwise_xor(words[:used], state[:used, 1], self.made[:used])
        self.made[used:] = 0
        if size % 4:
            self.made[used - 1] &= np.uint32(2 ** (8 * (size % 4)) - 1)
        return self.made

    def tag(self, words: Words, size: int, field: bytes, rows: Bytes | None) -> Words:
        """The tags as four rows of words, under the one-time keys in block 0."""
        self.state[0:4, 0] &= _CLAMP
        self._multiply_by(self.state[0:4, 0])
        self.sum.fill(0)
        aad = len(field)
        for first in range(0, aad, 16):
            self._absorb(_limbs(field[first : first + 16].ljust(16, b"\0")))
        if rows is not None:
            aad += rows.shape[1]
            self.own[:, : len(rows)] = _words(rows)
            self._absorb(self._split(self.own, 1))
        for first in range(0, -(-size // 16) * 4, 4):
            self._absorb(self._split(words[first : first + 4], 1))
        self._absorb(_limbs(aad.to_bytes(8, "little") + size.to_bytes(8, "little")))
        return self._finish(self.state[4:8, 0])

    def _multiply_by(self, r: Words) -> None:
        """Split r into limbs; times five they stand for what wraps round 2^130 - 5."""
        self.powers[4:] = self._split(r, 0)
        np.multiply(self.limbs[1:], _N[5], self.powers[:4])

    def _split(self, words: Words, above: int) -> Limbs:
        """Four words and a bit above them as five limbs of 26 bits."""
        self.wide[:] = words
        limbs = self.limbs
        limbs[0] = self.wide[0]
        np.right_shift(self.wide, _DOWN, limbs[1:])
        np.left_shift(self.wide[1:], _UP, self.term[:3])
        limbs[1:4] |= self.term[:3]
        limbs[:4] &= _26
        limbs[4] |= np.uint64(above << 24)
        return limbs

    def _absorb(self, block: Limbs) -> None:
        """sum = (sum + block) * r, with limbs below 2^27 again."""
        self.sum += block
        product, powers = self.product, self.powers
        np.multiply(self.sum[0], powers[4:9], product)
        for i in range(1, 5):
            np.multiply(self.sum[i], powers[4 - i : 9 - i], self.term)
            product += self.term
        _carry(product, self.term[0])
        self.sum, self.product = product, self.sum

    def _finish(self, s: Words) -> Words:
        """Reduce below 2^130 - 5, add s, keep 128 bits."""
        h, spare = self.sum, self.term[0]
        _carry(h, spare)
        _carry(h, spare)
        over = (h[0] + _N[5]) >> _N[26]  # becomes 1 where h >= 2^130 - 5
        for i in range(1, 5):
            over = (h[i] + over) >> _N[26]
        h[0] += over * _N[5]
        for i in range(4):
            h[i + 1] += h[i] >> _N[26]
            h[i] &= _26
        h[4] &= _26
        wide = self.wide
        wide[0] = h[0] | h[1] << np.uint64(26)
        wide[1] = h[1] >> np.uint64(6) | h[2] << np.uint64(20)
        wide[2] = h[2] >> np.uint64(12) | h[3] << np.uint64(14)
        wide[3] = h[3] >> np.uint64(18) | h[4] << np.uint64(8)
        wide &= _32
        wide += s
        for i in range(3):
            wide[i + 1] += wide[i] >> _N[32]
        return (wide & _32).astype(np.uint32)


_OURS = _Buffers()


def _limbs(block: bytes) -> Limbs:
    """A whole block that all lanes share, and the bit above it, as limbs."""
    number = int.from_bytes(block, "little") | 1 << 128
    return np.array([[number >> 26 * i & 2**26 - 1] for i in range(5)], np.uint64)


def _carry(limbs: Limbs, spare: Limbs) -> None:
    """Bring limbs below 2^59 down to 26 bits (the second may exceed them a little)."""
    for i in (0, 1, 2, 3, 4, 0):
        np.right_shift(limbs[i], _N[26], spare)
        limbs[i] &= _26
        if i == 4:
            np.multiply(spare, _N[5], spare)
        limbs[(i + 1) % 5] += spare


# A step: a numpy function, its two operands, and where the result goes.
_Step = tuple[Callable[..., Any], Words, Words, Words]  # Any: numpy's functions have no simple type


def _double_round(state: Words, spare: Words) -> Sequence[_Step]:
    """The steps of a column round and a diagonal round (RFC 8439, section 2.3), four quarter rounds at a time."""
    a, b, c, d = state[0:4], state[4:8], state[8:12], state[12:16]
    steps: list[_Step] = []

    def pairwise(step: Callable[..., Any], left: Words, right: Words, shift: tuple[int, int]) -> None:
        # Row i+shift of one with row i+shift of the other, in as few calls as the wrapping of rows allows.
        i = 0
        while i < 4:
            p, q = (i + shift[0]) % 4, (i + shift[1]) % 4
            n = min(4 - p, 4 - q, 4 - i)
            steps.append((step, left[p : p + n], right[q : q + n], left[p : p + n]))
            i += n

    def rotate(rows: Words, bits: int) -> None:
        # a scalar of the rows' own type costs numpy no conversion at each call
        down, up = np.array(32 - bits, np.uint32), np.array(bits, np.uint32)
        steps.append((np.right_shift, rows, down, spare))
        steps.append((np.left_shift, rows, up, rows))
        steps.append((np.bitwise_or, rows, spare, rows))

    for diagonal in (0, 1):
        sb, sc, sd = diagonal, 2 * diagonal, 3 * diagonal
        for first, second in ((16, 12), (8, 7)):
            pairwise(np.add, a, b, (0, sb))
            pairwise(np.bitwise_xor, d, a, (sd, 0))
            rotate(d, first)
            pairwise(np.add, c, d, (sc, sd))
            pairwise(np.bitwise_xor, b, c, (sb, sc))
            rotate(b, second)
    return steps


def _words(rows: Bytes) -> Words:
    return np.ascontiguousarray(rows).view("<u4").T


def _columns(words: Words, lanes: int, size: int) -> Bytes:
    """The first bytes of each lane, from rows of words."""
    used = -(-size // 4)
    return np.ascontiguousarray(words[:used, :lanes].T).astype("<u4", copy=False).view(np.uint8)[:, :size]

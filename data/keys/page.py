"""The bytes of a page of the vault, and nothing else.

Body: `01 ‖ suite 01 (AES-256-GCM) ‖ nonce 12 ‖ ciphertext ‖ tag 16`, integers little endian.
AAD nails it to its place: `"FXP1" ‖ suite ‖ level ‖ half ‖ 00 ‖ tree_id 16 ‖ page_no u64`.

* Inner page: `49 ‖ level ‖ F u16 ‖ 0 u32`, in the top page `hkey 32`, then F child keys of 32, then F halves of 1.
* Leaf (bucket): `4C ‖ level ‖ count u16 ‖ 0 u32`, then count x (address 12 ‖ domain 1 ‖ key 32) sorted, then
  zero entries up to a multiple of 8, so that the length tells little of the count.
* Address: the first 12 bytes of AES-256(hkey, ref), a ref being 16 random bytes, one block; any other ref counts by
  its BLAKE2b-128. A permutation nobody can tell from chance, and thousands of refs are one call.
* The top page is level 0 and page 0; pages are numbered level by level. Row id = 2 * page_no + half.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import repeat

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import ECB

from fangxin.data.keys.gcm import KEY, Bytes, Numbers, Texts, library

VERSION = 1
SUITE = 1
OVERHEAD = 30
HEAD = struct.Struct("<BBHI")
INNER, LEAF = 0x49, 0x4C
REF = 16  # bytes of a ref that is enciphered as it is
HOT = 256  # refs that are looked at twice while the processor has them at hand
ADDRESS = 12
TAGGED = ADDRESS + 1  # address and domain: what entries are sorted by
ENTRY = TAGGED + 32
PER_BUCKET = 70  # entries a bucket is meant to hold at capacity
WIDEST = 128
MOST_ENTRIES = 0xFFFF
_HEADS = np.dtype([("kind", "u1"), ("level", "u1"), ("count", "<u2"), ("zero", "<u4")])
AAD = struct.Struct("<4sBBBB16sQ")
_GAP = ENTRY - HEAD.size  # so that the entries behind a head are whole rows of a sheet


class PageWrong(Exception):
    """A body does not open here under this key; the tree decides whether that is a stale root or damage."""


@dataclass(frozen=True)
class Shape:
    """How wide and deep a tree is: `depth` levels of inner pages of `fanout` children above `buckets` leaves."""

    fanout: int
    depth: int

    @classmethod
    def for_capacity(cls, capacity: int) -> Shape:
        """A full tree with about 70 entries a bucket when `capacity` keys are in it."""
        buckets = max(4, -(-capacity // PER_BUCKET))
        depth = next(d for d in range(1, 9) if buckets <= WIDEST**d)
        return cls(max(2, round(buckets ** (1 / depth))), depth)

    @cached_property
    def buckets(self) -> int:
        """Number of leaves."""
        return int(self.fanout**self.depth)

    @cached_property
    def firsts(self) -> tuple[int, ...]:
        """The number of the first page of each level; one more than there are levels, for what comes after the last."""
        return tuple((self.fanout**level - 1) // (self.fanout - 1) for level in range(self.depth + 2))

    def page(self, level: int, index: int) -> int:
        """The number of the index-th page of a level."""
        return self.firsts[level] + index

    def pages(self) -> int:
        """Number of pages of the tree."""
        return self.firsts[-1]

    def level(self, page: int) -> int:
        """The level a page lies on."""
        return next(level for level in range(self.depth + 1) if page < self.page(level + 1, 0))

    def bucket_of(self, address: bytes) -> int:
        """The bucket an address belongs to; monotone in its first eight bytes read little endian."""
        return (int.from_bytes(address[:8], "little") * self.buckets) >> 64

    def next_first(self, bucket: int) -> int:
        """The lowest number (first eight bytes, little endian) that belongs to the bucket after this one."""
        return -(-((bucket + 1) << 64) // self.buckets)

    def buckets_of(self, names: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        """The buckets of many addresses (or names of entries), one a row."""
        first = np.ascontiguousarray(names[:, :8]).view("<u8")[:, 0].astype(np.uint64)
        half, many = np.uint64(32), np.uint64(self.buckets)
        # (first * buckets) >> 64 in two halves that cannot overflow, since there are less than 2^32 buckets
        low = (first & np.uint64(0xFFFFFFFF)) * many >> half
        return (((first >> half) * many + low) >> half).astype(np.int64)


@dataclass
class Inner:
    """An inner page in the clear: the keys of its children and which half of each lives. `hkey` in the top only."""

    level: int
    keys: bytearray = field(repr=False)  # one after the other
    halves: bytearray
    hkey: bytes = field(default=b"", repr=False)

    def child(self, slot: int) -> tuple[bytes, int]:
        """Key and living half of a child."""
        return bytes(self.keys[slot * KEY : slot * KEY + KEY]), self.halves[slot]

    def put(self, slot: int, key: bytes, half: int) -> None:
        """A child has this key from now on, and lives in this half."""
        self.keys[slot * KEY : slot * KEY + KEY] = key
        self.halves[slot] = half

    def copy(self) -> Inner:
        """One that can change alone."""
        return Inner(self.level, self.keys[:], self.halves[:], self.hkey)

    def encode(self) -> bytes:
        """The plaintext of the page."""
        head = HEAD.pack(INNER, self.level, len(self.halves), 0)
        return b"".join((head, self.hkey, self.keys, self.halves))

    @classmethod
    def decode(cls, plain: bytes, *, level: int, fanout: int) -> Inner:
        """Read a plaintext that authenticated; PageWrong if it is no inner page of this level and width."""
        start = HEAD.size + (32 if level == 0 else 0)
        if len(plain) != start + 33 * fanout or HEAD.unpack_from(plain) != (INNER, level, fanout, 0):
            raise PageWrong
        end = start + KEY * fanout
        return cls(level, bytearray(plain[start:end]), bytearray(plain[end:]), plain[HEAD.size : start])


class Hiding:
    """Where the entries of refs lie: nobody without `hkey` can tell it from chance. Made once for many questions."""

    def __init__(self, hkey: bytes) -> None:
        self.hkey = hkey
        # Each block for itself is what is wanted here: equal refs have equal addresses.
        self._cipher = Cipher(AES256(hkey), ECB()).encryptor()  # noqa: S305

    def few(self, refs: Iterable[bytes]) -> list[bytes]:
        """Their addresses, one by one."""
        return [self._cipher.update(_block(ref))[:ADDRESS] for ref in refs]

    def addresses(self, refs: Collection[bytes]) -> npt.NDArray[np.uint8]:
        """Their addresses, (N, 12)."""
        refs = refs if isinstance(refs, list) else list(refs)
        blocks = b"".join(_blocks(refs[start : start + HOT]) for start in range(0, len(refs), HOT))
        return np.frombuffer(self._cipher.update(blocks), np.uint8).reshape(-1, REF)[:, :ADDRESS]


def addresses(hkey: bytes, refs: Collection[bytes]) -> npt.NDArray[np.uint8]:
    """Where the entries of refs lie, asked once."""
    return Hiding(hkey).addresses(refs)


def _blocks(refs: list[bytes]) -> bytes:
    if set(map(len, refs)) == {REF}:
        return b"".join(refs)
    return b"".join(map(_block, refs))


def _block(ref: bytes) -> bytes:
    return ref if len(ref) == REF else hashlib.blake2b(ref, digest_size=REF).digest()


def encode_leaf(entries: Sequence[bytes], *, level: int) -> bytes:
    """The plaintext of a bucket; `entries` are 45 bytes each and sorted."""
    return leaf_page(b"".join(entries), level=level)


def leaf_page(entries: bytes, *, level: int) -> bytes:
    """The plaintext of a bucket whose sorted entries lie one after the other."""
    count = len(entries) // ENTRY
    padded = max(8, -(-count // 8) * 8)
    return HEAD.pack(LEAF, level, count, 0) + entries + bytes(ENTRY * (padded - count))


def entries_in(plain: bytes, *, level: int) -> bytes:
    """The entries of a bucket, one after the other; PageWrong if the plaintext is no bucket of this level."""
    return plain[HEAD.size : HEAD.size + count_of(plain, level=level) * ENTRY]


def entries_of(plain: bytes, *, level: int) -> list[bytes]:
    """The same, each for itself."""
    entries = entries_in(plain, level=level)
    return [entries[at : at + ENTRY] for at in range(0, len(entries), ENTRY)]


def places_of(address: bytes, entries: bytes) -> Iterator[int]:
    """Where the entries of an address begin; they lie side by side. A search in the bytes beats stepping through."""
    at = entries.find(address)
    while at >= 0 and at % ENTRY:  # the same bytes across a border, or inside a key
        at = entries.find(address, at + 1)
    while at >= 0 and entries.startswith(address, at):
        yield at
        at += ENTRY


def find(plain: bytes, tagged: bytes, *, level: int) -> bytes | None:
    """The key of (address ‖ domain) in a bucket, or None."""
    entries = entries_in(plain, level=level)
    at = next(places_of(tagged, entries), None)
    return None if at is None else entries[at + TAGGED : at + ENTRY]


def seal_page(key: bytes, plain: bytes, *, tree_id: bytes, page: int, level: int, half: int) -> bytes:
    """The body that goes into the file, under a fresh random nonce."""
    nonce = os.urandom(12)
    sealed = AESGCM(key).encrypt(nonce, plain, aad(tree_id, page, level, half))
    return bytes((VERSION, SUITE)) + nonce + sealed


def open_page(key: bytes, body: bytes, *, tree_id: bytes, page: int, level: int, half: int) -> bytes:
    """The plaintext of a body; PageWrong if it is not this page, this half, this tree, or not under this key."""
    if not isinstance(body, bytes) or len(body) < OVERHEAD or body[0] != VERSION or body[1] != SUITE:
        raise PageWrong
    if (plain := library().open_one(key, aad(tree_id, page, level, half), body[2:14], body[14:])) is None:
        raise PageWrong
    return plain


def open_leaves(
    sheet: Bytes, keys: Bytes, nodes: Numbers, bodies: Texts, *, tree_id: bytes, level: int
) -> tuple[Bytes, Numbers, list[int]]:
    """Decrypt many buckets onto a sheet of rows of 45 bytes, a longer one where this is too short.

    Returns the sheet, how many rows each bucket takes (1 + its entries with their padding), and the numbers of those
    that do not open or have no bucket's length. Each begins with a row of which only the last 8 bytes count: its head.
    """
    memory, at, size = bodies
    entries, odd = np.divmod(size - OVERHEAD - HEAD.size, ENTRY)
    good = (odd == 0) & (entries >= 0)
    good &= (memory.take(at, mode="clip") == VERSION) & (memory.take(at + 1, mode="clip") == SUITE)
    took = 1 + np.where(good, entries, 0)
    ends = np.cumsum(took) * ENTRY
    if int(ends[-1]) > len(sheet):
        sheet = np.zeros(2 * int(ends[-1]), np.uint8)
    to = ends - took * ENTRY + _GAP
    some = np.flatnonzero(good)
    if len(some) < len(good):
        keys, nodes, at, size, to = keys[some], nodes[some], at[some], size[some], to[some]
    names = np.frombuffer(aad(tree_id, 0, level, 0) * len(some), np.uint8).reshape(-1, AAD.size).copy()
    names[:, 6] = nodes & 1
    names[:, -8:] = (nodes >> 1).astype("<u8")[:, np.newaxis].view(np.uint8)
    sealed = Texts(memory, at + 14, size - 14)
    closed = library().open(keys, names, sealed, at + 2, Texts(sheet, to, size - OVERHEAD))
    return sheet, took, sorted([*np.flatnonzero(~good).tolist(), *some[closed].tolist()])


def seal_pages(
    keys: Sequence[bytes],
    nodes: Sequence[int],
    plains: Sequence[bytes],
    *,
    tree_id: bytes,
    level: int | Sequence[int],
) -> list[tuple[int, bytes]]:
    """Rows of many pages, each under a fresh random nonce. `level`: of all, or of each."""
    place, begin, drawn = AAD.pack, bytes((VERSION, SUITE)), os.urandom(12 * len(keys))
    nonces = [drawn[at : at + 12] for at in range(0, len(drawn), 12)]
    each = zip(nodes, repeat(level) if isinstance(level, int) else level, strict=False)
    names = [place(b"FXP1", SUITE, on, node & 1, 0, tree_id, node >> 1) for node, on in each]
    sealed = library().seal(keys, names, nonces, plains)
    return [(node, begin + nonce + text) for node, nonce, text in zip(nodes, nonces, sealed, strict=True)]


def aad(tree_id: bytes, page: int, level: int, half: int) -> bytes:
    """The 32 bytes that bind a body to its place."""
    return AAD.pack(b"FXP1", SUITE, level, half, 0, tree_id, page)


def count_of(plain: bytes, *, level: int) -> int:
    """How many entries a bucket has; PageWrong if the plaintext is no bucket of this level."""
    if len(plain) < HEAD.size or (len(plain) - HEAD.size) % ENTRY:
        raise PageWrong
    kind, found, count, zero = HEAD.unpack_from(plain)
    if kind != LEAF or found != level or zero or HEAD.size + count * ENTRY > len(plain):
        raise PageWrong
    return int(count)


def counts_of(heads: npt.NDArray[np.uint8], room: npt.NDArray[np.int64], *, level: int) -> npt.NDArray[np.int64]:
    """How many entries each of many buckets has, from heads (N, 8) and room for entries; -1 where one is no bucket."""
    head = np.ascontiguousarray(heads).view(_HEADS)[:, 0]
    counts = head["count"].astype(np.int64)
    good = (head["kind"] == LEAF) & (head["level"] == level) & (head["zero"] == 0)
    return np.where(good & (counts <= room), counts, -1)

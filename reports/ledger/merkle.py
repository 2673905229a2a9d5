"""The Merkle tree of RFC 6962, section 2.1: hashes, roots, inclusion and consistency proofs.

Pure. A tree is a size and a function that answers with the hash of any *complete* subtree, so the same lines
serve a list in memory and tiles on disk.

* Leaf = SHA-256(0x00 || entry), node = SHA-256(0x01 || left || right), empty tree = SHA-256("").
* A tree of n > 1 leaves splits at the largest power of two smaller than n.
* The checks are those of RFC 9162, sections 2.1.3.2 and 2.1.4.2: they raise, they never answer False.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from fangxin.data.errors import DoesNotHold

Subtree = Callable[[int, int], bytes]  # (level, index) -> hash of leaves index * 2**level ... + 2**level
EMPTY = hashlib.sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    """Hash one entry as a leaf."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash two subtrees into their parent."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(size: int, subtree: Subtree) -> bytes:
    """Return the root of the tree of the first `size` leaves."""
    return _range_hash(0, size, subtree) if size else EMPTY


def inclusion(index: int, size: int, subtree: Subtree) -> list[bytes]:
    """Return the proof that leaf `index` is in the tree of `size` leaves, from its sibling to the root's child."""
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size}")
    proof: list[bytes] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            proof.append(_range_hash(middle, high, subtree))
            high = middle
        else:
            proof.append(_range_hash(low, middle, subtree))
            low = middle
    return proof[::-1]


def consistency(old: int, new: int, subtree: Subtree) -> list[bytes]:
    """Return the proof that the tree of `old` leaves is a prefix of the tree of `new`; empty if either is trivial."""
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {new} cannot extend one of {old}")
    if old in (0, new):
        return []
    proof: list[bytes] = []
    low, high, whole = 0, new, True  # whole: the old tree's root itself, which the checker knows
    while old != high:
        middle = low + _split(high - low)
        if old <= middle:
            proof.append(_range_hash(middle, high, subtree))
            high = middle
        else:
            proof.append(_range_hash(low, middle, subtree))
            low, whole = middle, False
    if not whole:
        proof.append(_range_hash(low, high, subtree))
    return proof[::-1]


def check_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], expected: bytes) -> None:
    """Raise DoesNotHold unless the proof leads from the leaf hash to the expected root."""
    if not 0 <= index < size:
        raise DoesNotHold(f"inclusion proof: index {index} is not below the size {size}")
    first, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise DoesNotHold("inclusion proof: a hash is left over")
        if first & 1 or first == last:
            found = node_hash(sibling, found)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        first, last = first >> 1, last >> 1
    if last:
        raise DoesNotHold("inclusion proof: a hash is missing")
    if found != expected:
        raise DoesNotHold("inclusion proof: it leads to another root")


def check_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Raise DoesNotHold unless the proof shows that the new tree begins with the old one."""
    if old > new:
        raise DoesNotHold(f"consistency proof: the tree shrank from {old} to {new}")
    if old in (0, new):
        if proof:
            raise DoesNotHold("consistency proof: a hash is left over")
        if (old == new and old_root != new_root) or (old == 0 and old_root != EMPTY):
            raise DoesNotHold(f"consistency proof: two roots for size {old}")
        return
    hashes = list(proof) if old & (old - 1) else [old_root, *proof]
    if not hashes:
        raise DoesNotHold("consistency proof: a hash is missing")
    first, last = old - 1, new - 1
    while first & 1:
        first, last = first >> 1, last >> 1
    before = after = hashes[0]
    for one in hashes[1:]:
        if last == 0:
            raise DoesNotHold("consistency proof: a hash is left over")
        if first & 1 or first == last:
            before, after = node_hash(one, before), node_hash(one, after)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            after = node_hash(after, one)
        first, last = first >> 1, last >> 1
    if last:
        raise DoesNotHold("consistency proof: a hash is missing")
    if before != old_root or after != new_root:
        raise DoesNotHold("consistency proof: the new tree does not begin with the old one")


def _split(size: int) -> int:
    """Return the largest power of two smaller than `size` (size > 1)."""
    return 1 << ((size - 1).bit_length() - 1)


def _range_hash(low: int, high: int, subtree: Subtree) -> bytes:
    """Hash the leaves low..high, where `low` is aligned as RFC 6962's splits leave it."""
    size = high - low
    if size & (size - 1) == 0:
        level = size.bit_length() - 1
        return subtree(level, low >> level)
    middle = low + _split(size)
    return node_hash(_range_hash(low, middle, subtree), _range_hash(middle, high, subtree))

"""The native loop opens what the steps in numpy open, finds what they find, and believes no copy that is torn."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest

from fangxin.data.keys import page as pages
from fangxin.data.keys.gcm import Texts
from fangxin.data.keys.leaves import Sheet
from fangxin.data.keys.pick import picker

TREE, LEVEL, MANY = b"t" * 16, 3, 60
chance = np.random.default_rng(5)


def names(bucket: int, count: int) -> list[bytes]:
    """Sorted names; some share an address, some its first eight bytes."""
    made = {bytes((bucket,)) + chance.bytes(11) + b"\1" for _ in range(count)}
    made |= {name[:12] + b"\2" for name in sorted(made)[::3]} | {
        name[:8] + b"\xff" * 4 + b"\1" for name in [*made][::4]
    }
    return sorted(made)[:count]


def test_the_loop_opens_and_finds_what_the_steps_in_numpy_do() -> None:
    held = [names(bucket, bucket * 85 // MANY) for bucket in range(MANY)]  # from none to more than two lots of eight
    keys, nodes = chance.integers(0, 256, (MANY, 32), np.uint8), np.arange(MANY) * 2 + 600 + (np.arange(MANY) & 1)
    plains = [pages.encode_leaf([name + os.urandom(32) for name in some], level=LEVEL) for some in held]
    plains[7] = pages.HEAD.pack(pages.LEAF, LEVEL, 900, 0) + plains[7][8:]  # more entries than there are bytes
    plains[8] = pages.HEAD.pack(pages.INNER, LEVEL, 8, 0) + plains[8][8:]
    plains[9] = pages.HEAD.pack(pages.LEAF, LEVEL - 1, 8, 0) + plains[9][8:]
    rows = pages.seal_pages([key.tobytes() for key in keys], nodes.tolist(), plains, tree_id=TREE, level=LEVEL)
    bodies = [bytearray(body) for _, body in rows]
    older = pages.seal_pages([key.tobytes() for key in keys], nodes.tolist(), plains, tree_id=TREE, level=LEVEL)
    bodies[20][700:] = older[20][1][700:]  # torn: the front of one writing, the end of another
    for number, place in ((21, 0), (22, 1), (23, 5), (24, 14), (25, 700), (26, -1)):
        bodies[number][place] ^= 1
    bodies[27], bodies[28] = bodies[28], bodies[27]
    bodies[29], bodies[30], bodies[31] = bodies[29][:-45], bodies[30][:37], bytearray()
    size = np.array([len(body) for body in bodies])
    memory = np.frombuffer(b"".join((b"before", *bodies, bytes(2))), np.uint8)
    texts = Texts(memory, 6 + np.cumsum(size) - size, size)

    asked = [sorted([*some[::2], *names(bucket, 3)]) for bucket, some in enumerate(held)]
    first = np.cumsum([0, *map(len, asked)])
    mixed = chance.permutation(first[-1])  # the names lie in another order than their pages
    wanted = np.empty((first[-1], pages.TAGGED), np.uint8)
    wanted[mixed] = np.frombuffer(b"".join(name for some in asked for name in some), np.uint8).reshape(-1, pages.TAGGED)
    raw, found = np.zeros((first[-1], 32), np.uint8), np.zeros(first[-1], np.bool_)
    pick = picker()
    assert pick is not None
    opened = pick(texts, keys, nodes, first, mixed, wanted, raw, found, tree_id=TREE, level=LEVEL)

    sheet, took, closed = pages.open_leaves(np.zeros(0, np.uint8), keys, nodes, texts, tree_id=TREE, level=LEVEL)
    begins = np.cumsum(took) - took + 1
    flat = sheet[: pages.ENTRY * int(took.sum())].reshape(-1, pages.ENTRY)
    counts = pages.counts_of(flat[begins - 1, -pages.HEAD.size :], took - 1, level=LEVEL)
    fine = (counts >= 0) & ~np.isin(np.arange(MANY), closed)
    assert opened.tolist() == fine.tolist()
    assert np.flatnonzero(~opened).tolist() == [7, 8, 9, *range(20, 32)]
    owner = np.repeat(np.arange(MANY), np.diff(first))
    entries, there = Sheet(np.arange(MANY), begins, np.where(fine, counts, 0), flat).find(wanted[mixed], owner)
    there &= fine[owner]
    assert found[mixed].tolist() == there.tolist()
    assert 1000 < int(there.sum()) < len(there) - 100
    assert raw[mixed][there].tolist() == entries[there, pages.TAGGED :].tolist()
    assert not raw[~found].any()


def test_without_llvm_there_is_no_loop_and_that_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llvmlite.binding", None)
    assert picker.__wrapped__() is None

"""A vault grows into another file under a new root: all keys stay, old copies die, and a kill changes nothing."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from keys.vaults import DEEP, FLAT, LIFTED, NOW, Adversary, destroy, grant, grow, in_child, raw, refs

from fangxin.data.errors import InputError, NotAllowed
from fangxin.data.keys.lease import Lease
from fangxin.data.keys.tree import KeyTree

STEPS = ("settled", "prepared", "written", "pages", "committed", "retired", "quiet", "scrubbed")


def test_growth_keeps_every_key_and_kills_every_older_copy(tmp_path: Path) -> None:
    tree = KeyTree.create(tmp_path / "vault", capacity=70, guard=LIFTED)
    people = refs(900)
    tree.ensure(people, 1)
    tree.ensure(people[:40], 2)
    code = tree.domain_code("finance")
    thief = Adversary(tree, tmp_path / "copies")
    thief.visit()
    before, more, shape = raw(tree, people), raw(tree, people, 2), tree.shape
    receipt = grow(tree, DEEP)
    assert (receipt.destroyed, receipt.generation_after, receipt.domains) == (0, 2, ())
    assert receipt.pages == tree.shape.pages() > shape.pages()
    assert (raw(tree, people), raw(tree, people, 2)) == (before, more)
    assert tree.domain_code("finance") == code
    assert tree.examine().fullest < 30
    assert thief.opens() == set()  # nothing alive is in the old copies, and what is there is under a dead root
    destroy(tree, people[:100])
    thief.visit()
    assert thief.opens() == set(raw(tree, people).values()) | set(raw(tree, people, 2).values())
    assert [path.name for path in tree.folder.glob("tree-*.db")] == [f"tree-{tree.tree_id.hex()}.db"]
    with pytest.raises(NotAllowed):
        tree.grow(FLAT, grant=grant(tree, {}), now=NOW)  # a grant to destroy is none to grow
    with pytest.raises(InputError):
        grow(tree, 0)


def test_a_kill_while_growing_leaves_the_old_tree_or_the_new_one(tmp_path: Path) -> None:
    people = refs(60)
    grown = []
    for step in STEPS:
        folder = tmp_path / step

        def die(now: str, step: str = step) -> None:
            if now == step:
                os.kill(os.getpid(), signal.SIGKILL)

        with KeyTree.create(folder, capacity=70, at=die, guard=LIFTED) as tree:
            tree.ensure(people, 1)
            before, thief = raw(tree, people), Adversary(tree, tmp_path / f"{step}-copies")
            thief.visit()
            leave = grant(tree, {}, action="grow")
            child = in_child(lambda: tree.grow(FLAT, grant=leave, now=NOW))  # noqa: B023
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        with KeyTree.open(folder) as tree:
            grown.append(tree.generation > 1)
            assert raw(tree, people) == before
            thief.tree = tree
            thief.visit()
            assert tree.grow(FLAT, grant=leave, now=NOW).generation_after == tree.generation
            assert raw(tree, people) == before
            assert len(list(folder.glob("tree-*.db"))) == 1
            destroy(tree, people[:9])
            thief.visit()
            assert thief.opens() == set(raw(tree, people).values())
    assert grown == [False] * 4 + [True] * 4


def test_whoever_has_the_old_file_open_follows(tmp_path: Path) -> None:
    tree = KeyTree.create(tmp_path / "vault", capacity=70, guard=LIFTED)
    people = refs(50)
    tree.ensure(people, 1)
    before = raw(tree, people)
    with KeyTree.open(tmp_path / "vault") as other:
        assert raw(other, people) == before
        grow(tree, FLAT)
        assert raw(other, people) == before
        grow(tree, DEEP)
        other.ensure(refs(1, start=70), 1)
        assert destroy(other, people[:5]).destroyed == 5
    assert tree.live() == 46


def test_readers_in_other_processes_never_get_a_wrong_key(tmp_path: Path) -> None:
    folder = tmp_path / "vault"
    tree = KeyTree.create(folder, capacity=FLAT, guard=LIFTED)
    people = refs(60)
    tree.ensure(people, 1)
    expected = raw(tree, people)

    def read() -> None:
        gone: set[bytes] = set()
        with KeyTree.open(folder) as mine:
            while not (tmp_path / "stop").exists():
                found = raw(mine, people)
                gone |= set(people) - set(found)
                wrong = any(expected[ref] != key for ref, key in found.items()) or gone & set(found)
                if wrong or gone - set(people[:10]):
                    os._exit(1)
        os._exit(7)

    readers = [in_child(read) for _ in range(3)]
    for turn in range(10):
        destroy(tree, people[turn : turn + 1])
        tree.ensure(refs(1, start=1000 + turn), 1)
        if turn == 5:
            grow(tree, DEEP)
    (tmp_path / "stop").touch()
    assert [os.waitstatus_to_exitcode(os.waitpid(reader, 0)[1]) for reader in readers] == [7, 7, 7]
    assert raw(tree, people) == {ref: expected[ref] for ref in people[10:]}


def test_a_batch_takes_effect_when_the_last_cache_is_gone(tmp_path: Path) -> None:
    folder, retired = tmp_path / "vault", threading.Event()
    tree = KeyTree.create(
        folder, capacity=FLAT, guard=LIFTED, at=lambda step: retired.set() if step == "retired" else None
    )
    people = refs(10)
    tree.ensure(people, 1)

    def cache() -> None:
        with KeyTree.open(folder) as mine:
            mine.get(people[5], 1)
            (tmp_path / "cached").touch()
            time.sleep(60)

    child = in_child(cache)
    while not (tmp_path / "cached").exists():
        time.sleep(0.01)
    os.kill(child, signal.SIGSTOP)  # asleep with keys in memory: it cannot see that they are dead
    done: list[float] = []
    waiting = threading.Thread(
        target=lambda: done.append((destroy(tree, people[:3]).effective_at - NOW).total_seconds())
    )
    waiting.start()
    assert retired.wait(20)  # from here on it waits for the caches of others
    waiting.join(0.7)
    assert done == []
    os.kill(child, signal.SIGCONT)  # it looks at the generation, and forgets
    waiting.join(20)
    assert len(done) == 1
    assert done[0] > 0.4
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert destroy(tree, people[3:5]).destroyed == 2  # a dead process holds nothing


def test_a_lease_ends_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fangxin.data.keys.lease.LENGTH", 0.3)
    dropped: list[int] = []
    mine = Lease(tmp_path, moved=lambda generation: False, drop=lambda: dropped.append(1))
    mine.hold(4)
    Lease(tmp_path, moved=lambda generation: False, drop=lambda: None).wait(4)  # it has that generation
    assert mine.look()
    assert dropped == []
    time.sleep(0.35)
    assert not mine.look()
    assert dropped
    mine.close()
    assert [one.read_bytes() for one in (tmp_path / "leases").iterdir()] == [bytes(16)]  # a file for the next one


def test_an_entry_in_a_wrong_bucket_is_found_by_a_deep_look(tmp_path: Path) -> None:
    from fangxin.data.errors import VaultDamaged
    from fangxin.data.keys import page as pages

    tree = KeyTree.create(tmp_path / "vault", capacity=FLAT, guard=LIFTED)
    tree.ensure(refs(30), 1)
    held = tree.examine()
    assert (held.keys, held.subjects, held.domains, held.unscrubbed) == (30, 30, {1: 30}, 0)
    with tree._file.transaction():
        state = tree._walk.state()
        key, half = tree._walk.child(state, 1, 0)
        entry = b"\xff" * 12 + b"\x01" + bytes(32)
        body = pages.seal_page(
            key, pages.encode_leaf([entry], level=1), tree_id=tree.tree_id, page=1, level=1, half=half
        )
        tree._file.put([(2 + half, body)])
    with pytest.raises(VaultDamaged, match="another bucket"):
        tree.examine()


def test_threads_that_write_at_once_share_a_transaction_and_keep_their_own_outcome(tmp_path: Path) -> None:
    from fangxin.data.keys.faults import AddressTaken
    from fangxin.data.keys.vault import alone

    tree = KeyTree.create(tmp_path / "vault", capacity=FLAT, patience=30, guard=LIFTED)
    people = refs(24)
    tree.ensure(people[:1], 1)
    refused: list[int] = []

    def add(number: int) -> None:
        try:
            tree.create_keys(people[3 * number : 3 * number + 3], [1])
        except AddressTaken:
            refused.append(number)

    with tree._file.snapshot():
        first = tree._file.number("seq")
    threads = [threading.Thread(target=add, args=(n,)) for n in range(8)]
    with alone(tmp_path / "vault" / "vault.lock", patience=0):  # all of them wait for another writer
        for thread in threads:
            thread.start()
        time.sleep(0.3)
    for thread in threads:
        thread.join()
    assert refused == [0]
    assert tree.live() == 1 + 21
    with tree._file.snapshot():
        assert tree._file.number("seq") - first <= 2

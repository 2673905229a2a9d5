"""The promise of the vault: every backup and today's root open exactly the living."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from keys.vaults import DEEP, FLAT, LIFTED, Adversary, destroy, raw, refs

from fangxin.data.errors import Unavailable
from fangxin.data.keys.roots import shares
from fangxin.data.keys.roots.file import FileRoot
from fangxin.data.keys.tree import KeyTree


class Interrupted(Exception):
    pass


def history(tmp_path: Path, capacity: int) -> tuple[KeyTree, Adversary, dict[bytes, bytes], dict[bytes, bytes]]:
    """Eight visits of an adversary over inserts, batches, an aborted one and one that was never scrubbed."""
    stop: set[str] = set()

    def at(step: str) -> None:
        if step in stop:
            stop.clear()
            raise Interrupted

    tree = KeyTree.create(tmp_path / "vault", capacity=capacity, at=at, guard=LIFTED)
    thief = Adversary(tree, tmp_path / "copies")
    people = refs(120)
    everyone: dict[bytes, bytes] = {}
    tree.ensure(people[:60], 1)
    tree.ensure(people[:60], 2)
    everyone |= {b"\2" + ref: key for ref, key in raw(tree, people, 2).items()}
    everyone |= raw(tree, people)
    thief.visit()
    destroy(tree, people[:5])
    thief.visit()
    tree.ensure(people[60:100], 1)
    everyone |= raw(tree, people)
    thief.visit()
    stop.add("pages")
    with pytest.raises(Interrupted):
        destroy(tree, people[5:10])
    thief.visit()
    tree.ensure(people[100:], 1)
    everyone |= raw(tree, people)
    thief.visit()
    stop.add("retired")
    with pytest.raises(Interrupted):
        destroy(tree, people[10:20])
    thief.visit()
    destroy(tree, {ref: frozenset({1}) for ref in people[20:30]})
    thief.visit()
    destroy(tree, people[90:])
    thief.visit()
    living = raw(tree, people) | {b"\2" + ref: key for ref, key in raw(tree, people, 2).items()}
    return tree, thief, everyone, living


@pytest.mark.parametrize("capacity", [FLAT, DEEP])
def test_old_backups_and_todays_root_open_exactly_the_living(tmp_path: Path, capacity: int) -> None:
    tree, thief, everyone, living = history(tmp_path, capacity)
    assert len(everyone) == 180
    assert thief.opens() == set(living.values())
    assert len(living) == tree.live() == 180 - 2 * 5 - 2 * 10 - 10 - 30


def test_yesterdays_root_opens_everything(tmp_path: Path) -> None:
    tree, thief, everyone, _ = history(tmp_path, DEEP)
    # The control: with the roots that were retired the same copies give everybody back, so the proof can fail.
    assert thief.opens(*thief.roots) == set(everyone.values())
    last_but_one = thief.roots[-2]
    assert {everyone[ref] for ref in refs(120)[90:]} <= thief.opens(last_but_one)
    assert tree.generation > 4


def test_an_aborted_root_is_retired_before_the_next_write(tmp_path: Path) -> None:
    second = FileRoot(tmp_path / "second", name="second")
    stop = {"pages"}

    def at(step: str) -> None:
        if step in stop:
            stop.clear()
            raise Interrupted

    tree = KeyTree.create(tmp_path / "vault", capacity=FLAT, holders=[second], at=at, guard=LIFTED)
    people = refs(40)
    tree.ensure(people, 1)
    with pytest.raises(Interrupted):
        destroy(tree, people[:3])
    assert second.generations() == (1, 2)
    tree.ensure(refs(1, start=900), 1)
    assert second.generations() == (1,)
    assert destroy(tree, people[:3]).generation_after == 3  # the aborted number is burnt


def test_an_aborted_root_that_is_kept_opens_keys_that_die_later(tmp_path: Path) -> None:
    seen: list[bytes] = []

    class Unanswered(FileRoot):
        def commit(self, generation: int, share: bytes, half: int, tree_id: bytes) -> None:
            if generation == 2:
                seen.append(shares.combine([share], tree_id=tree_id, generation=2, holders=[self.name]))
                raise Unavailable("the disk is gone")
            super().commit(generation, share, half, tree_id)

    tree = KeyTree.create(tmp_path / "vault", capacity=FLAT, anchor=Unanswered(tmp_path / "root"), guard=LIFTED)
    thief = Adversary(tree, tmp_path / "copies")
    people = refs(40)
    tree.ensure(people, 1)
    before = raw(tree, people)
    with pytest.raises(Unavailable):
        destroy(tree, people[:3])
    thief.visit()
    destroy(tree, people[3:10])
    thief.visit()
    later = {before[ref] for ref in people[3:10]}
    assert not later & thief.opens()
    assert later <= thief.opens(*seen)  # the control: this is why settling comes first


def test_no_destroyed_key_is_left_in_any_file(tmp_path: Path) -> None:
    tree = KeyTree.create(tmp_path / "vault", capacity=DEEP, guard=LIFTED)
    people = refs(50)
    tree.ensure(people, 1)
    tree.backup(tmp_path / "backup.db")
    dead = list(raw(tree, people[:20]).values())
    dead.append(tree.anchor.get(1))
    dead.append(shares.load(tree.anchor, [])[1])
    destroy(tree, people[:20])

    def found() -> int:
        hits = 0
        for file in (p for p in tmp_path.rglob("*") if p.is_file()):
            bytes_ = file.read_bytes()
            hits += sum(form in bytes_ for key in dead for form in (key, key.hex().encode(), base64.b64encode(key)))
        return hits

    assert found() == 0
    (tmp_path / "planted").write_text("x" + dead[3].hex())  # the control: the search finds what is there
    assert found() == 1

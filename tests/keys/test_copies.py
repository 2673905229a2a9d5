"""A lost vault comes back from a replica or a fresh copy, whole; no copy ever brings back what was destroyed."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from keys.vaults import DEEP, FLAT, LIFTED, Adversary, destroy, grow, in_child, raw, refs

from fangxin.data.errors import NotAllowed, VaultDamaged
from fangxin.data.keys import backup
from fangxin.data.keys.delta import Delta, DeltaWrong
from fangxin.data.keys.faults import BackupUnusable, ReplicaAway, ReplicaBehind
from fangxin.data.keys.replica import Places, Replica, last_write
from fangxin.data.keys.roots import shares
from fangxin.data.keys.roots.file import FileRoot
from fangxin.data.keys.tree import KeyTree
from fangxin.data.keys.vault import Changes


def vault(tmp_path: Path, *, capacity: int = FLAT, replicas: int = 1, backups: bool = True) -> KeyTree:
    tree = KeyTree.create(tmp_path / "vault", capacity=capacity, guard=LIFTED)
    copies = tuple(tmp_path / f"replica-{n}" for n in range(replicas))
    tree.keep_copies(Places(copies, tmp_path / "backups" if backups else None))
    return tree


def lose(tree: KeyTree) -> None:
    tree.close()
    for path in tree.folder.glob("tree-*"):
        path.unlink()


def restore(tmp_path: Path, *places: str, carry_out: bool = True) -> backup.Restored:
    anchor = FileRoot(tmp_path / "vault" / "root")
    return backup.restore(
        tmp_path / "vault", [tmp_path / place for place in places], anchor=anchor, carry_out=carry_out
    )


def test_a_replica_brings_back_every_key_that_was_acknowledged(tmp_path: Path) -> None:
    tree = vault(tmp_path, capacity=DEEP)
    people = refs(60)
    tree.ensure(people, 1)
    tree.domain_code("finance")
    destroy(tree, people[:20])
    tree.ensure(people[50:], 2)  # after the last base copy
    living, named = (raw(tree, people), raw(tree, people, 2)), tree.domain_names()
    lose(tree)
    with pytest.raises(VaultDamaged, match="pages are not here"):
        KeyTree.open(tmp_path / "vault")
    plan = restore(tmp_path, "replica-0", "backups", carry_out=False)
    assert (plan.done, plan.holds.keys, plan.copy.path.parent.name) == (False, 50, "replica-0")
    with pytest.raises(VaultDamaged):
        KeyTree.open(tmp_path / "vault")  # a plan changes nothing
    assert restore(tmp_path, "replica-0", "backups").done
    with KeyTree.open(tmp_path / "vault") as again:
        assert (raw(again, people), raw(again, people, 2)) == living
        assert again.domain_names() == named
        assert destroy(again, people[20:30]).destroyed == 10


def test_a_base_copy_brings_back_what_it_holds_and_says_what_it_lacks(tmp_path: Path) -> None:
    tree = vault(tmp_path, replicas=0)
    people = refs(30)
    tree.ensure(people, 1)
    destroy(tree, people[:5])
    living = raw(tree, people)
    tree.ensure(refs(3, start=90), 1)
    tree.close()
    with closing(sqlite3.connect(next(tree.folder.glob("tree-*.db")))) as db, db:
        db.execute("UPDATE slot SET body = zeroblob(400) WHERE slot = (SELECT slot FROM node ORDER BY id DESC LIMIT 1)")
    restored = restore(tmp_path, "backups")
    assert restored.lacking == 1
    with KeyTree.open(tmp_path / "vault") as again:
        assert raw(again, [*people, *refs(3, start=90)]) == living


def test_a_destroyed_key_comes_back_from_no_copy(tmp_path: Path) -> None:
    tree = vault(tmp_path)
    people = refs(30)
    tree.ensure(people, 1)
    thief = Adversary(tree, tmp_path / "copies", tmp_path / "replica-0", tmp_path / "backups")
    thief.visit()
    before = raw(tree, people)
    destroy(tree, people[:10])
    thief.visit()
    assert thief.opens() == set(raw(tree, people).values())
    assert thief.opens(*thief.roots) == set(before.values())  # the control: yesterday's root opens everything
    shutil.copytree(tmp_path / "copies", tmp_path / "old")
    lose(tree)
    shutil.rmtree(tmp_path / "replica-0")
    shutil.rmtree(tmp_path / "backups")
    first = sorted((tmp_path / "old").glob("copy-[0-2].db"))  # all from before the batch
    with pytest.raises(BackupUnusable, match="cannot be brought back"):
        restore(tmp_path, *(str(path.relative_to(tmp_path)) for path in first))
    assert not list((tmp_path / "vault").glob("tree-*"))


def test_the_root_is_in_no_copy(tmp_path: Path) -> None:
    tree = vault(tmp_path)
    people = refs(20)
    tree.ensure(people, 1)
    held = [tree.anchor.get(1), shares.load(tree.anchor, ())[1]]
    destroy(tree, people[:3])
    held += [tree.anchor.get(2), shares.load(tree.anchor, ())[1], *raw(tree, people).values()]
    written = b"".join(path.read_bytes() for place in ("replica-0", "backups") for path in (tmp_path / place).iterdir())
    assert len(written) > 10_000
    assert [secret for secret in held if secret in written] == []
    for inside in (tmp_path / "vault" / "copies", tmp_path):
        with pytest.raises(NotAllowed, match="where the root lies"):
            tree.keep_copies(Places((inside,)))
    with pytest.raises(NotAllowed):
        tree.backup(tmp_path / "vault" / "copy.db")


def test_a_whole_vault_is_never_replaced(tmp_path: Path) -> None:
    tree = vault(tmp_path)
    tree.ensure(refs(5), 1)
    with pytest.raises(NotAllowed, match="whole"):
        restore(tmp_path, "replica-0")
    lose(tree)
    with pytest.raises(BackupUnusable, match="no such copy"):
        restore(tmp_path, "nowhere.db")


def test_nothing_is_written_that_no_replica_has(tmp_path: Path) -> None:
    tree = vault(tmp_path, replicas=2)
    people = refs(20)
    tree.ensure(people[:10], 1)
    (tmp_path / "replica-0").rename(tmp_path / "away-0")
    tree.ensure(people[10:15], 1)  # one is enough
    (tmp_path / "replica-1").rename(tmp_path / "away-1")
    with pytest.raises(ReplicaAway):
        tree.ensure(people[15:], 1)
    with pytest.raises(ReplicaAway):
        destroy(tree, people[:3])
    assert len(raw(tree, people)) == 15
    (tmp_path / "away-0").rename(tmp_path / "replica-0")  # it missed a write, so it takes a fresh copy
    assert destroy(tree, people[:3]).destroyed == 3
    living = raw(tree, people)
    lose(tree)
    restore(tmp_path, "replica-0")
    with KeyTree.open(tmp_path / "vault") as again:
        assert raw(again, people) == living


def test_a_delta_is_taken_once_whole_and_in_order(tmp_path: Path) -> None:
    tree = vault(tmp_path, backups=False)
    tree.ensure(refs(3), 1)
    replica = Replica(tmp_path / "replica-0")
    held = replica.held(tree.tree_id)
    assert held is not None
    seq, mark = held
    changes = Changes({7: b"body", 9: None}, {"seq": str(seq + 1).encode(), "write": b"a" * 8, "gone": None})
    delta = Delta(tree.tree_id, 1, 1, seq + 1, mark, changes)
    assert Delta.decode(delta.encode()) == delta
    data = delta.encode()
    for torn in (data[:-1], data[1:], b"", data[:60] + b"\x01" + data[61:]):
        with pytest.raises(DeltaWrong):
            replica.apply(torn)
    assert replica.held(tree.tree_id) == held
    replica.apply(data)
    replica.apply(data)
    assert replica.held(tree.tree_id) == (seq + 1, b"a" * 8)
    for other in (Delta(tree.tree_id, 1, 1, seq + 1, mark, Changes({}, {"write": b"b" * 8})),
                  Delta(tree.tree_id, 1, 1, seq + 2, b"b" * 8, changes)):  # fmt: skip
        with pytest.raises(ReplicaBehind):
            replica.apply(other.encode())  # of the same number, or after another of the same number
    tree.ensure(refs(1, start=9), 1)  # the vault knows nothing of that delta: the replica takes a fresh copy
    with tree._file.snapshot():
        assert replica.held(tree.tree_id) == last_write(tree._file)


def test_a_replica_that_took_a_write_nobody_else_has_is_given_a_fresh_copy(tmp_path: Path) -> None:
    # Once the number of a write was all that was compared: a killed write and the next one bear the same.
    stop: set[str] = set()

    def at(step: str) -> None:
        if step in stop:
            stop.clear()
            raise KeyboardInterrupt

    tree = KeyTree.create(tmp_path / "vault", capacity=FLAT, guard=LIFTED, at=at)
    tree.keep_copies(Places((tmp_path / "replica-0", tmp_path / "replica-1")))
    people = refs(20)
    tree.ensure(people[:10], 1)
    stop.add("shipped")
    with pytest.raises(KeyboardInterrupt):
        tree.ensure(people[10:11], 1)
    (tmp_path / "replica-0").rename(tmp_path / "away")
    tree.ensure(people[11:12], 1)
    (tmp_path / "away").rename(tmp_path / "replica-0")
    tree.ensure(people[12:13], 1)
    living = raw(tree, people)
    lose(tree)
    restore(tmp_path, "replica-0")
    with KeyTree.open(tmp_path / "vault") as again:
        assert raw(again, people) == living


def test_an_old_copy_put_back_by_hand_is_noticed_before_a_replica_is_spoilt(tmp_path: Path) -> None:
    # Of the same generation, so it opens: once the replica was overwritten with it, and later keys were gone.
    tree = vault(tmp_path)
    people = refs(20)
    tree.ensure(people[:5], 1)
    tree.close()
    pages = next(tree.folder.glob("tree-*.db"))
    shutil.copyfile(pages, tmp_path / "old")
    for n in range(5, 8):
        tree.ensure(people[n : n + 1], 1)
    living = raw(tree, people)
    tree.close()
    replica = next((tmp_path / "replica-0").glob("tree-*.db"))
    replica.write_bytes(b"x" * 8192)  # a damaged replica stops nobody: it takes a fresh copy
    with KeyTree.open(tree.folder) as again:
        again.ensure(people[8:9], 1)
        living |= raw(again, people[8:9])
    for left in tree.folder.glob("tree-*"):
        left.unlink()
    shutil.copyfile(tmp_path / "old", pages)
    with KeyTree.open(tree.folder) as old, pytest.raises(VaultDamaged, match="4 writes"):
        destroy(old, people[7:8])
    pages.unlink()
    restore(tmp_path, "replica-0")
    with KeyTree.open(tree.folder) as again:
        assert raw(again, people) == living


@pytest.mark.parametrize("many", [2, 9])
def test_a_key_that_a_restore_lost_dies_with_its_owner_all_the_same(tmp_path: Path, many: int) -> None:
    tree = vault(tmp_path, capacity=DEEP, replicas=0)
    people = refs(40)
    tree.ensure(people[:30], 1)
    tree.back_up()
    tree.ensure(people[30:], 1)
    lost = raw(tree, people[30:])
    thief = Adversary(tree, tmp_path / "copies")
    thief.visit()
    lose(tree)
    assert restore(tmp_path, "backups").lacking is None
    tree = thief.tree = KeyTree.open(tmp_path / "vault")
    assert tree.lossy
    destroy(tree, people[:1])
    thief.visit()
    named = people[30 : 30 + many]
    assert thief.opens() & {lost[ref] for ref in named}  # the control: a new root alone does not reach them
    receipt = destroy(tree, named)
    thief.visit()
    assert (receipt.destroyed, receipt.generation_after) == (0, 3)
    assert not thief.opens() & {lost[ref] for ref in named}
    assert tree.live() == 29
    grow(tree, FLAT)
    thief.visit()
    assert not tree.lossy
    assert destroy(tree, named).pages == 0
    assert thief.opens() == set(raw(tree, people).values())


def test_a_kill_while_restoring_changes_nothing_or_is_finished(tmp_path: Path) -> None:
    people = refs(25)
    found = []
    for step in ("chosen", "staged", "cleared", "swapped"):
        place = tmp_path / step
        place.mkdir()
        tree = vault(place)
        tree.ensure(people, 1)
        destroy(tree, people[:5])
        living = raw(tree, people)
        lose(tree)

        def die(now: str, step: str = step) -> None:
            if now == step:
                os.kill(os.getpid(), signal.SIGKILL)

        def work(place: Path = place) -> None:
            anchor = FileRoot(place / "vault" / "root")
            backup.restore(place / "vault", [place / "replica-0"], anchor=anchor, carry_out=True, at=die)  # noqa: B023

        assert os.waitstatus_to_exitcode(os.waitpid(in_child(work), 0)[1]) == -signal.SIGKILL
        try:
            again = KeyTree.open(place / "vault")
            found.append(True)
        except VaultDamaged:
            found.append(False)
            restore(place, "replica-0")
            again = KeyTree.open(place / "vault")
        assert raw(again, people) == living
        again.close()
        assert not list((place / "vault").glob("restoring-*"))
    assert found == [False, True, True, True]


def test_copies_follow_a_vault_that_grows(tmp_path: Path) -> None:
    tree = vault(tmp_path, capacity=70)
    people = refs(300)
    tree.ensure(people, 1)
    grow(tree, DEEP)
    living = raw(tree, people)
    assert [path.name for path in (tmp_path / "replica-0").glob("*.db")] == [f"tree-{tree.tree_id.hex()}.db"]
    standing = [backup.standing(one, tree.anchor, ()) for one in backup.found([tmp_path / "backups"])]
    assert [one.restorable for one in standing] == [False, True]
    assert "another tree" in standing[0].why
    lose(tree)
    restore(tmp_path, "replica-0")
    with KeyTree.open(tmp_path / "vault") as again:
        assert raw(again, people) == living

"""A batch happens whole or not at all, once, and only as it was approved."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from keys.vaults import DEEP, FLAT, LIFTED, NOW, Adversary, destroy, grant, in_child, raw, refs

from fangxin.data.errors import NotAllowed, RootUnreachable, Unavailable, WriterBusy
from fangxin.data.keys import domains
from fangxin.data.keys.faults import (
    AddressTaken,
    BackupUnusable,
    KeyAbsent,
    RollbackSuspected,
    SubjectSealed,
)
from fangxin.data.keys.grant import Grant
from fangxin.data.keys.roots.file import FileRoot
from fangxin.data.keys.roots.protocol import RootUnsettled
from fangxin.data.keys.sealed import Sealing
from fangxin.data.keys.tree import KeyTree
from fangxin.data.keys.vault import alone

STEPS = ("settled", "prepared", "written", "pages", "committed", "retired", "scrubbed")


def check_whole(folder: Path, thief: Adversary, leave: Grant, doomed: list[bytes], before: dict[bytes, bytes]) -> bool:
    """After a kill: all of the batch or none of it; then the same grant finishes it. Whether it had happened."""
    with KeyTree.open(folder) as tree:
        left = raw(tree, before)
        gone = set(before) - set(left)
        assert gone in (set(), set(doomed))
        assert all(before[ref] == key for ref, key in left.items())
        thief.visit()  # also while half of it is done
        again = tree.destroy(dict.fromkeys(doomed), grant=leave, now=NOW)
        assert again.destroyed + again.earlier == len(doomed)
        assert again.generation_after == tree.generation
        assert raw(tree, before) == {ref: key for ref, key in before.items() if ref not in doomed}
        thief.visit()
        assert thief.opens() >= set(raw(tree, before).values())
        assert not thief.opens() & {before[ref] for ref in doomed}
        tree.ensure(refs(1, start=5000), 1)  # and the vault takes new people
        destroy(tree, refs(1, start=5000))
        return bool(gone)


def test_a_kill_at_any_step_leaves_all_or_nothing(tmp_path: Path) -> None:
    outcomes = []
    for step in STEPS:
        folder = tmp_path / step

        def die(now: str, step: str = step) -> None:
            if now == step:
                os.kill(os.getpid(), signal.SIGKILL)

        with KeyTree.create(folder, capacity=FLAT, at=die, guard=LIFTED) as tree:
            thief = Adversary(tree, tmp_path / f"{step}-copies")
            people = refs(30)
            tree.ensure(people, 1)
            before = raw(tree, people)
            leave = grant(tree, dict.fromkeys(people[:6]))
            thief.visit()
            child = in_child(lambda: tree.destroy(dict.fromkeys(people[:6]), grant=leave, now=NOW))  # noqa: B023
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
            outcomes.append(check_whole(folder, thief, leave, people[:6], before))
    assert outcomes == [False, False, False, False, True, True, True]


def test_a_kill_at_a_random_moment_leaves_all_or_nothing(tmp_path: Path) -> None:
    chance = random.Random(20261123)
    with KeyTree.create(tmp_path / "vault", capacity=DEEP, guard=LIFTED) as tree:
        thief = Adversary(tree, tmp_path / "copies")
        for turn in range(12):
            people = refs(20, start=100 * turn)
            tree.ensure(people, 1)
            before = raw(tree, people)
            leave = grant(tree, dict.fromkeys(people[:10]))
            child = in_child(lambda: tree.destroy(dict.fromkeys(people[:10]), grant=leave, now=NOW))  # noqa: B023
            time.sleep(chance.uniform(0, 0.02))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            check_whole(tmp_path / "vault", thief, leave, people[:10], before)
        assert tree.live() == 12 * 10


def test_a_second_destroy_finds_nothing_and_says_so(tmp_path: Path) -> None:
    tree = KeyTree.create(tmp_path / "vault", capacity=DEEP, guard=LIFTED)
    people = refs(12)
    tree.ensure(people, 1)
    tree.ensure(people[:4], 2)
    first = destroy(tree, people[:5])
    assert (first.destroyed, first.domains, first.pages) == (9, (1, 2), first.pages)
    assert first.generation_after == first.generation_before + 1
    assert first.commitment_before != first.commitment_after
    assert first.bytes > 0
    second = destroy(tree, people[:5])
    assert (second.destroyed, second.pages, second.generation_after) == (0, 0, first.generation_after)
    assert second.commitment_before == second.commitment_after == first.commitment_after
    with pytest.raises(KeyAbsent):
        tree.get(people[0], 1)


def test_a_retained_domain_outlives_the_others(tmp_path: Path) -> None:
    tree = KeyTree.create(tmp_path / "vault", capacity=FLAT, guard=LIFTED)
    (person,) = refs(1)
    for domain in (domains.GENERAL, domains.SENSITIVE, domains.RETAINED):
        tree.ensure([person], domain)
    kept = tree.get(person, domains.RETAINED)
    assert destroy(tree, {person: frozenset({1, 2, 4})}).domains == (1, 2)
    assert tree.get(person, domains.RETAINED) == kept
    assert tree.live() == 1


def test_a_changed_plan_is_refused(tmp_path: Path) -> None:
    tree = KeyTree.create(tmp_path / "vault", capacity=FLAT, guard=LIFTED)
    people = refs(6)
    tree.ensure(people, 1)
    before = raw(tree, people)
    drops = dict.fromkeys(people[:3])
    leave = grant(tree, drops)
    narrow = grant(tree, {ref: frozenset({1}) for ref in people[:3]})
    some_other = dict.fromkeys(people[1:4])
    for wrong, dropped, now in (
        (leave, some_other, NOW),
        (leave, dict.fromkeys(people[:4]), NOW),
        (leave, drops, NOW - timedelta(seconds=1)),
        (leave, drops, NOW + timedelta(days=2)),
        (narrow, drops, NOW),
        (grant(tree, drops, action="replace"), drops, NOW),
        (Grant.of(drops, vault=bytes(16), generation=1, catalog="c0", not_before=NOW), drops, NOW),
        (Grant.of(drops, vault=tree.vault_id, generation=7, catalog="c0", not_before=NOW), drops, NOW),
    ):
        with pytest.raises(NotAllowed):
            tree.destroy(dropped, grant=wrong, now=now)
    assert raw(tree, people) == before
    tree.destroy(drops, grant=leave, now=NOW)
    with pytest.raises(NotAllowed, match="nonce"):
        tree.destroy(
            dict.fromkeys(people[3:]), grant=grant(tree, dict.fromkeys(people[3:]), nonce=leave.nonce), now=NOW
        )
    assert Grant.parse(leave.canonical()) == leave


def test_a_lost_answer_of_the_anchor_is_settled_by_repeating_the_batch(tmp_path: Path) -> None:
    class Forgetful(FileRoot):
        lose = False

        def commit(self, generation: int, share: bytes, half: int, tree_id: bytes) -> None:
            super().commit(generation, share, half, tree_id)
            if self.lose:
                raise RootUnreachable("no answer")

    anchor = Forgetful(tmp_path / "root")
    tree = KeyTree.create(tmp_path / "vault", capacity=FLAT, anchor=anchor, guard=LIFTED)
    people = refs(8)
    tree.ensure(people, 1)
    leave = grant(tree, dict.fromkeys(people[:2]))
    anchor.lose = True
    with pytest.raises(RootUnsettled):
        tree.destroy(dict.fromkeys(people[:2]), grant=leave, now=NOW)
    again = tree.destroy(dict.fromkeys(people[:2]), grant=leave, now=NOW)
    assert (again.destroyed, again.earlier, again.generation_after) == (0, 2, 2)
    assert len(raw(tree, people)) == 6


def test_a_full_disk_undoes_the_whole_batch(tmp_path: Path) -> None:
    tree = KeyTree.create(tmp_path / "vault", capacity=FLAT, guard=LIFTED)
    people = refs(400)
    tree.ensure(people, 1)
    before = raw(tree, people)
    leave = grant(tree, dict.fromkeys(people[:200]))
    db = tree._file._db()
    (size,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count = {size}")
    with pytest.raises(Unavailable, match="full"):
        tree.destroy(dict.fromkeys(people[:200]), grant=leave, now=NOW)
    with pytest.raises(Unavailable, match="full"):
        tree.ensure(refs(400, start=1000), 1)
    assert raw(tree, people) == before
    assert tree.live() == 400
    db.execute("PRAGMA max_page_count = 1000000")
    assert tree.destroy(dict.fromkeys(people[:200]), grant=leave, now=NOW).destroyed == 200
    assert raw(tree, people) == {ref: before[ref] for ref in people[200:]}


def test_nothing_is_written_while_a_holder_is_away(tmp_path: Path) -> None:
    second = FileRoot(tmp_path / "second", name="second")
    tree = KeyTree.create(tmp_path / "vault", capacity=FLAT, holders=[second], guard=LIFTED)
    people = refs(4)
    tree.ensure(people, 1)
    second.path.rename(tmp_path / "away")
    second.path.mkdir()
    with pytest.raises((RootUnsettled, RootUnreachable)):
        destroy(tree, people)
    with pytest.raises((RootUnsettled, RootUnreachable)):
        tree.ensure(refs(1, start=50), 1)
    second.path.rmdir()
    (tmp_path / "away").rename(second.path)
    assert len(raw(tree, people)) == 4
    assert destroy(tree, people).destroyed == 4


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    tree = KeyTree.create(tmp_path / "vault", capacity=FLAT, patience=0, guard=LIFTED)
    people = refs(2)
    tree.ensure(people[:1], 1)
    with alone(tmp_path / "vault" / "vault.lock", patience=0):
        with pytest.raises(WriterBusy):
            tree.ensure(people, 1)
        assert len(raw(tree, people)) == 1  # readers go on
    assert tree.ensure(people, 1).found.all()


def test_a_newcomer_never_takes_somebody_elses_place(tmp_path: Path) -> None:
    tree = KeyTree.create(tmp_path / "vault", capacity=FLAT, guard=LIFTED)
    people = refs(3)
    tree.create_keys(people[:2], [1, 2])
    with pytest.raises(AddressTaken):
        tree.create_keys([people[2], people[0]], [3])
    assert tree.live() == 4  # all or none
    assert not raw(tree, people[2:], 3)


def test_a_sealed_subject_gets_no_new_key(tmp_path: Path) -> None:
    tree = KeyTree.create(tmp_path / "vault", capacity=FLAT, guard=LIFTED)
    people = refs(2)
    tree.ensure(people, 1)
    drops = {people[0]: frozenset({1})}
    leave = grant(tree, drops, action="replace")
    share, until = {people[0]: {domains.SEALED: bytes(32)}}, {people[0]: Sealing(bytes(16), NOW + timedelta(days=7))}
    receipt = tree.replace(drop=drops, add=share, grant=leave, now=NOW, sealings=until)
    assert receipt.destroyed == 1
    with pytest.raises(SubjectSealed):
        tree.get(people[0], 1)
    with pytest.raises(SubjectSealed):
        tree.ensure(people, 1)
    assert len(raw(tree, people)) == 1


def test_a_backup_is_restorable_until_the_next_destroy(tmp_path: Path) -> None:
    tree = KeyTree.create(tmp_path / "vault", capacity=DEEP, guard=LIFTED)
    people = refs(9)
    tree.ensure(people, 1)
    assert tree.backup(tmp_path / "one.db") == 1
    assert tree.check_backup(tmp_path / "one.db") > 16
    tree.confirm(1)
    destroy(tree, people[:1])
    with pytest.raises(BackupUnusable, match="its root no longer exists"):
        tree.check_backup(tmp_path / "one.db")
    assert tree.backup(tmp_path / "two.db") == 2
    with pytest.raises(NotAllowed):
        tree.backup(tmp_path / "two.db")
    with pytest.raises(RollbackSuspected):
        tree.confirm(3)
    # The copy is a vault's file: under the tree's name it takes the place of a lost one.
    living = raw(tree, people)
    tree.close()
    pages = next((tmp_path / "vault").glob("tree-*.db"))
    for file in (tmp_path / "vault").glob("tree-*"):
        file.unlink()
    pages.write_bytes((tmp_path / "two.db").read_bytes())
    assert raw(KeyTree.open(tmp_path / "vault"), people) == living


def test_a_domain_keeps_its_code_for_ever(tmp_path: Path) -> None:
    tree = KeyTree.create(tmp_path / "vault", capacity=FLAT, guard=LIFTED)
    named = domains.Domains.of(tree)
    assert [named.code(n) for n in ("general", "request", "finance", "chat", "finance")] == [1, 6, 0x40, 0x41, 0x40]
    again = domains.Domains.of(KeyTree.open(tmp_path / "vault"))
    assert [again.code(n) for n in ("chat", "new", "finance")] == [0x41, 0x42, 0x40]
    assert again.name(0x41) == "chat"
    assert again.name(3) == "retained"


def test_what_died_is_zeros_in_the_file_and_its_place_is_used_again(tmp_path: Path) -> None:
    with KeyTree.create(tmp_path / "vault", capacity=FLAT, guard=LIFTED) as tree:
        tree.create_keys(refs(200), (1,))
        destroy(tree, refs(20))
    with closing(sqlite3.connect(tree._file.path)) as db:
        free = dict(db.execute("SELECT slot, body FROM slot WHERE slot NOT IN (SELECT slot FROM node)"))
        assert free
        assert not any(any(body) for body in free.values())
        assert sorted(free) == [slot for (slot,) in db.execute("SELECT slot FROM free ORDER BY slot")]
        before = db.execute("SELECT count(*) FROM slot").fetchone()
    with KeyTree.open(tmp_path / "vault") as tree:
        destroy(tree, refs(1, start=30))
        assert len(raw(tree, refs(200))) == 179
    with closing(sqlite3.connect(tree._file.path)) as db:
        assert db.execute("SELECT count(*) FROM slot").fetchone() == before
        assert db.execute("SELECT count(*) FROM slot JOIN free USING (slot)").fetchone() == (len(free),)


@pytest.mark.parametrize("killed", [False, True])
def test_the_next_batch_puts_its_pages_where_the_last_one_left_dead_ones(tmp_path: Path, killed: bool) -> None:
    """Each by a process of its own, which may die before it has cleared away; no place is lost."""
    with KeyTree.create(tmp_path / "vault", capacity=DEEP, guard=LIFTED) as tree:
        tree.create_keys(refs(400), (1,))
        for turn in range(12):

            def work(turn: int = turn) -> None:
                with KeyTree.open(tmp_path / "vault") as other:
                    destroy(other, refs(1, start=turn))
                    if killed:
                        os.kill(os.getpid(), signal.SIGKILL)

            os.waitpid(in_child(work), 0)
            assert tree.examine().unscrubbed == (3 if killed else 0)
            with closing(sqlite3.connect(f"file:{tree._file.path}?mode=ro", uri=True)) as db:
                unused = "SELECT count(*) FROM slot WHERE slot NOT IN (SELECT slot FROM node)"
                assert db.execute(unused).fetchone()[0] <= 3
            assert tree.misplaced() == []
        assert raw(tree, refs(400)).keys() == set(refs(388, start=12))

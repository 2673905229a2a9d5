"""Readers never get a wrong key, damage is never called absence, and a vault opens only with its own root."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from keys.vaults import DEEP, FLAT, LIFTED, destroy, grow, in_child, raw, refs

from fangxin.data.errors import InputError, Unavailable, VaultDamaged
from fangxin.data.keys.faults import KeyAbsent
from fangxin.data.keys.gcm import Bytes, Numbers, Texts
from fangxin.data.keys.mapped import Sight
from fangxin.data.keys.material import Keys
from fangxin.data.keys.page import Shape
from fangxin.data.keys.pick import picker
from fangxin.data.keys.roots.file import FileRoot
from fangxin.data.keys.roots.protocol import RootDamaged
from fangxin.data.keys.tree import KeyTree


def test_many_keys_are_found_over_lots_of_buckets_that_get_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two buckets at a time, the first ones nearly empty: the memory they are opened into must grow while the last lot
    # is still looked at (once a BufferError).
    monkeypatch.setattr("fangxin.data.keys.walk.AT_ONCE", 2)
    with KeyTree.create(tmp_path / "vault", capacity=1000, guard=LIFTED) as tree:
        crowd = refs(1000)
        buckets = tree._reading(lambda walk, state: walk.shape.buckets_of(walk.names(state, crowd, (1,))))
        late = [ref for ref, bucket in zip(crowd, buckets, strict=True) if bucket >= tree.shape.buckets // 2]
        early = [ref for ref in crowd if ref not in set(late)][:8]
        people = early + late
        tree.create_keys(people, (1, 2))
        expected = raw(tree, people)
        with tree.get_many(people[::-1] + refs(50, start=5000), 1) as keys:
            assert keys.found.tolist() == [True] * len(people) + [False] * 50
            assert [bytes(keys.view(n)) for n in range(len(people))] == [expected[ref] for ref in people[::-1]]
        with tree.get_many(people, 2) as others:
            assert others.found.all()
            assert not {bytes(others.view(n)) for n in range(len(people))} & set(expected.values())


def test_keys_that_are_seen_past_sqlite_are_those_that_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Some buckets fill a page of the file, one goes over it, one is nearly empty; and writes that lie in the log only.
    # Each question is asked three times: past SQLite by the native loop, past SQLite in numpy, and of SQLite.
    folder, seen = tmp_path / "vault", [0, 0]
    blobs, pick = Sight._blobs, picker()
    assert pick is not None, "llvmlite and libsodium are among what the tests need"

    def counted(self: Sight, start: int, end: int, memory: Bytes, base: Numbers) -> Texts:
        found = blobs(self, start, end, memory, base)
        seen[0] += int((found.size > 0).sum())
        seen[1] += int((found.size == 0).sum())
        return found

    def same(*trees: KeyTree, living: list[bytes]) -> None:
        for way, many in ((pick, 1), (None, 1), (None, 1_000_000)):
            with monkeypatch.context() as often:
                often.setattr("fangxin.data.keys.vault.MANY", many)
                often.setattr("fangxin.data.keys.walk.SEARCHED", 0)
                often.setattr("fangxin.data.keys.walk.picker", lambda way=way: way)
                often.setattr(Sight, "_blobs", counted)
                for one in trees:
                    compare(one, living)

    def compare(one: KeyTree, living: list[bytes]) -> None:
        with one.get_many([*people, *refs(60, start=9000)], 1) as keys, one.get_many(people, 2) as second:
            assert keys.found.tolist() == [ref in set(living) for ref in people] + [False] * 60
            got = {ref: bytes(keys.view(n)) for n, ref in enumerate(people) if keys.found[n]}
            assert got == {ref: expected[ref] for ref in living}
            assert second.found.tolist() == keys.found[: len(people)].tolist()
            assert not keys.raw[~keys.found].any()

    with KeyTree.create(folder, capacity=1000, guard=LIFTED) as tree, KeyTree.open(folder) as other:
        crowd = refs(900)
        buckets = tree._reading(lambda walk, state: walk.shape.buckets_of(walk.names(state, crowd, (1,)))).tolist()
        long, brief = max(buckets, key=buckets.count), min(buckets, key=buckets.count)
        people = [ref for ref, bucket in zip(crowd, buckets, strict=True) if bucket not in (long, brief)][:450]
        people += [ref for ref, bucket in zip(crowd, buckets, strict=True) if bucket == long]
        tree.create_keys(people, (1, 2))
        expected = raw(tree, people)
        same(tree, other, living=people)
        assert seen[0] > 0, "what is seen is older: buckets without anybody"
        tree._file.checkpoint(always=True)
        same(tree, other, living=people)
        assert min(seen) > 0, "most are seen, one is too long for that"
        late = refs(50, start=20_000)
        tree.create_keys(late, (1, 2))
        people, expected = people + late, expected | raw(tree, late)
        assert (folder / f"tree-{tree.tree_id.hex()}.db-wal").stat().st_size > 0
        same(tree, other, living=people)
        destroy(tree, people[:20])
        same(tree, other, living=people[20:])
        grow(tree, 5000)
        same(tree, other, living=people[20:])
        leaf = tree.shape.page(tree.shape.depth, tree.shape.buckets // 2)
        with closing(sqlite3.connect(folder / f"tree-{tree.tree_id.hex()}.db")) as db, db:
            slot = db.execute("SELECT slot FROM node WHERE id = ?", (2 * leaf,)).fetchone()
            db.execute("UPDATE slot SET body = zeroblob(length(body)) WHERE slot = ?", slot)
        tree._file.checkpoint(always=True)  # until then the true page is what is seen
        with pytest.raises(VaultDamaged, match=f"page {leaf} of the key vault does not open"):
            same(tree, living=people[20:])
        tree._file._db().execute("UPDATE slot SET body = 'no bytes at all' WHERE slot = ?", slot)
        with pytest.raises(VaultDamaged, match=f"page {leaf} of the key vault does not open"):
            tree.get_many(people, 1)
        tree._file._db().execute("UPDATE node SET slot = 'nowhere' WHERE slot = ?", slot)
        with pytest.raises(VaultDamaged, match=f"page {leaf} of the key vault is missing"):
            same(tree, living=people[20:])


def test_readers_never_get_a_wrong_key(tmp_path: Path) -> None:
    folder = tmp_path / "vault"
    tree = KeyTree.create(folder, capacity=FLAT, guard=LIFTED)
    people = refs(80)
    tree.ensure(people, 1)
    expected = raw(tree, people)
    stop = threading.Event()
    wrong: list[str] = []
    reads = [0] * 4

    def read(number: int) -> None:
        try:
            with KeyTree.open(folder) as mine:
                while not stop.is_set():
                    for ref in people[number::4]:
                        try:
                            if mine.get(ref, 1) != expected[ref]:
                                wrong.append("another key")
                        except KeyAbsent:
                            if ref in people[20:]:
                                wrong.append("a living key called absent")
                        reads[number] += 1
        except BaseException as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=read, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for turn in range(20):
        destroy(tree, people[turn : turn + 1])
        tree.ensure(refs(1, start=1000 + turn), 1)
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert min(reads) > 20
    assert raw(tree, people) == {ref: expected[ref] for ref in people[20:]}
    assert tree.live() == 80


def test_racing_writers_lose_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "vault"
    KeyTree.create(folder, capacity=FLAT, guard=LIFTED)

    def add(start: int) -> None:
        with KeyTree.open(folder, patience=30) as mine:
            for turn in range(8):
                mine.ensure(refs(2, start=start + 2 * turn), 1)

    threads = [threading.Thread(target=add, args=(n,)) for n in (0, 8, 100)]  # the first two overlap
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with KeyTree.open(folder) as tree:
        assert tree.live() == 24 + 16


def test_a_damaged_page_is_never_reported_as_an_absent_key(tmp_path: Path) -> None:
    tree = KeyTree.create(tmp_path / "vault", capacity=FLAT, guard=LIFTED)
    people = refs(60)
    tree.ensure(people, 1)
    tree.close()
    pages = next((tmp_path / "vault").glob("tree-*.db"))
    with closing(sqlite3.connect(pages)) as db, db:
        db.execute("DELETE FROM node WHERE id = 2 * 1")
        body = bytearray(db.execute("SELECT body FROM node JOIN slot USING (slot) WHERE id = 2 * 2").fetchone()[0])
        body[-1] ^= 1
        db.execute("UPDATE slot SET body = ? WHERE slot = (SELECT slot FROM node WHERE id = 2 * 2)", (bytes(body),))
    seen = set()
    for ref in people:
        try:
            tree.get(ref, 1)
        except VaultDamaged as damage:
            seen.add(str(damage).split(" at generation")[0])
    assert seen == {"page 1 of the key vault is missing", "page 2 of the key vault does not open"}
    with pytest.raises(VaultDamaged):
        tree.live()


def test_a_damaged_list_of_free_places_is_told_and_costs_no_living_page(tmp_path: Path) -> None:
    tree = KeyTree.create(tmp_path / "vault", capacity=FLAT, guard=LIFTED)
    people = refs(60)
    tree.ensure(people, 1)
    destroy(tree, people[:1])
    assert tree.misplaced() == []
    tree.close()
    with closing(sqlite3.connect(next((tmp_path / "vault").glob("tree-*.db")))) as db, db:
        db.execute("DELETE FROM free")
        db.execute("INSERT INTO free SELECT slot, 0 FROM node")
    assert tree.faults() == []
    assert (tree.live(), len(tree.misplaced())) == (59, 3)
    living = raw(tree, people)
    destroy(tree, people[1:2])  # once it was written over pages that live
    del living[people[1]]
    assert raw(tree, people) == living
    grow(tree, FLAT)
    assert (raw(tree, people), tree.misplaced()) == (living, [])


@pytest.mark.parametrize("damage", ["name = 'fanout', value = x'00'", "value = x''", "name = name || 'x'"])
def test_damaged_metadata_is_told_as_damage(tmp_path: Path, damage: str) -> None:
    KeyTree.create(tmp_path / "vault", capacity=FLAT, guard=LIFTED).close()
    with closing(sqlite3.connect(next((tmp_path / "vault").glob("tree-*.db")))) as db, db:
        db.execute(f"UPDATE meta SET {damage} WHERE name IN ('fanout')")
    with pytest.raises(VaultDamaged, match="metadata"):
        KeyTree.open(tmp_path / "vault")


def test_a_page_put_in_anothers_place_does_not_open(tmp_path: Path) -> None:
    tree = KeyTree.create(tmp_path / "vault", capacity=FLAT, guard=LIFTED)
    tree.ensure(refs(60), 1)
    tree.close()
    with closing(sqlite3.connect(next((tmp_path / "vault").glob("tree-*.db")))) as db, db:
        db.execute("UPDATE node SET slot = (SELECT slot FROM node WHERE id = 4) WHERE id = 2")
    with pytest.raises(VaultDamaged):
        tree.live()


def test_a_vault_opens_only_with_its_own_root(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no key vault"):
        KeyTree.open(tmp_path / "nowhere")
    for name in ("one", "two"):
        KeyTree.create(tmp_path / name, capacity=FLAT, guard=LIFTED).close()
    with pytest.raises(InputError, match="already"):
        KeyTree.create(tmp_path / "one", capacity=FLAT, guard=LIFTED)
    with pytest.raises(VaultDamaged, match="pages are not here"):
        KeyTree.open(tmp_path / "one", anchor=FileRoot(tmp_path / "two" / "root"))
    with pytest.raises(VaultDamaged, match="holders"):
        KeyTree.open(tmp_path / "one", holders=[FileRoot(tmp_path / "three", name="three")])
    pages = next((tmp_path / "two").glob("tree-*.db"))
    with closing(sqlite3.connect(pages, isolation_level=None)) as db:
        db.execute("UPDATE meta SET value = x'31' WHERE name = 'version'")
    with pytest.raises(Unavailable, match="version 1; expected 2"):
        KeyTree.open(tmp_path / "two")
    (tmp_path / "one" / "root").rename(tmp_path / "lost")
    with pytest.raises(InputError, match="no root"):
        KeyTree.create(tmp_path / "one", capacity=FLAT, guard=LIFTED)  # it must not clear away everybody's keys
    (tmp_path / "one" / "root").write_bytes(bytes(8192))
    with pytest.raises(RootDamaged):
        KeyTree.open(tmp_path / "one")


def test_an_interrupted_creation_is_cleared_away_and_done_again(tmp_path: Path) -> None:
    class Dying(FileRoot):
        def commit(self, generation: int, share: bytes, half: int, tree_id: bytes) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        KeyTree.create(tmp_path, capacity=FLAT, anchor=Dying(tmp_path / "root"), guard=LIFTED)
    with pytest.raises(Unavailable, match="no key vault"):
        KeyTree.open(tmp_path)
    tree = KeyTree.create(tmp_path, capacity=FLAT, guard=LIFTED)
    assert tree.live() == 0
    assert [file.name for file in tmp_path.glob("tree-*.db")] == [f"tree-{tree.tree_id.hex()}.db"]
    assert not (tmp_path / "creating").exists()


def test_a_forked_child_reads_and_its_parent_is_not_disturbed(tmp_path: Path) -> None:
    tree = KeyTree.create(tmp_path / "vault", capacity=FLAT, guard=LIFTED)
    people = refs(6)
    tree.ensure(people, 1)
    before = raw(tree, people)

    def child() -> None:
        tree.ensure(refs(1, start=70), 1)
        os._exit(7 if raw(tree, people) == before else 1)

    assert os.waitstatus_to_exitcode(os.waitpid(in_child(child), 0)[1]) == 7
    assert raw(tree, people) == before
    assert destroy(tree, people[:1]).destroyed == 1
    assert tree.live() == 6


def test_a_reader_who_ends_after_a_batch_puts_no_old_page_among_the_new_ones(tmp_path: Path) -> None:
    tree = KeyTree.create(tmp_path / "vault", capacity=FLAT, guard=LIFTED)
    people = refs(40)
    tree.ensure(people, 1)
    before = raw(tree, people)
    reader = tree._walk.state()  # of a thread that goes on after the batch
    seen = dict(reader.inner)
    destroy(tree, people[:1])
    reader.inner.update(seen)
    living = {ref: before[ref] for ref in people[1:]}
    assert raw(tree, people) == living
    tree.ensure(refs(10, start=100), 1)
    destroy(tree, people[1:2])
    del living[people[1]]
    assert raw(KeyTree.open(tree.folder), people) == living
    assert tree.examine().keys == len(living) + 10


def test_an_effect_is_dated_after_a_thread_that_reads_by_what_lived_before(tmp_path: Path) -> None:
    steps: list[str] = []
    reading = threading.Event()
    tree = KeyTree.create(tmp_path / "vault", capacity=FLAT, guard=LIFTED)
    tree.ensure(people := refs(4), 1)

    def read() -> None:
        with tree._file.snapshot():
            reading.set()
            while "retired" not in steps:
                time.sleep(0.001)
            time.sleep(0.1)
            steps.append("read")

    def at(step: str) -> None:
        steps.append(step)
        if step == "pages":
            reader.start()
            reading.wait()

    reader = threading.Thread(target=read)
    tree._at = at
    destroy(tree, people[:1])
    reader.join()
    assert steps[-4:] == ["retired", "read", "quiet", "scrubbed"]


def test_a_vault_takes_more_than_it_was_made_for(tmp_path: Path) -> None:
    tree = KeyTree.create(tmp_path / "vault", capacity=10, guard=LIFTED)
    people = refs(2000)
    tree.ensure(people, 1)
    assert tree.live() == 2000
    assert destroy(tree, people[:10]).destroyed == 10
    assert len(raw(tree, people)) == 1990


@pytest.mark.parametrize(
    ("capacity", "fanout", "depth"), [(200_000, 53, 2), (10**6, 120, 2), (10**7, 52, 3), (10**8, 113, 3)]
)
def test_the_tree_is_shaped_as_designed(capacity: int, fanout: int, depth: int) -> None:
    shape = Shape.for_capacity(capacity)
    assert (shape.fanout, shape.depth) == (fanout, depth)
    assert 60 < capacity / shape.buckets < 80
    assert shape.bucket_of(b"\xff" * 12) == shape.buckets - 1
    assert shape.level(shape.page(depth, shape.buckets - 1)) == depth


def test_one_destroyed_person_costs_three_pages(tmp_path: Path) -> None:
    tree = KeyTree.create(tmp_path / "vault", capacity=DEEP, guard=LIFTED)
    people = refs(300)
    tree.ensure(people, 1)
    assert destroy(tree, people[:1]).pages == 3
    assert destroy(tree, people[:200]).pages <= 1 + 11 + 121


def test_keys_print_only_a_count_and_are_wiped(tmp_path: Path) -> None:
    tree = KeyTree.create(tmp_path / "vault", capacity=FLAT, guard=LIFTED)
    people = refs(5)
    tree.ensure(people[:3], 1)
    with tree.get_many(people, 1) as keys:
        assert repr(keys) == "Keys(3 of 5)"
        buffer = keys.raw
        assert buffer.any()
    assert not buffer.any()
    assert len(keys) == 5
    assert isinstance(keys, Keys)
    with pytest.raises(TypeError):
        keys.__reduce__()

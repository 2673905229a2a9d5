"""What every root holder must keep: suites to inherit. Give them `holder(tmp_path)`, an empty holder of your kind.

`RootContract` is for every holder; `KeeperContract` for those that wrap shares under keys of a keeper.
"""

from __future__ import annotations

import base64
import os
import shutil
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from ahocorasick_rs import BytesAhoCorasick
from keys.vaults import LIFTED, Adversary, destroy, in_child, raw, refs

from fangxin.data.errors import RootUnreachable
from fangxin.data.keys.disclosure import disclosed
from fangxin.data.keys.roots import shares
from fangxin.data.keys.roots.protocol import CONDITIONS, Root, RootDamaged, RootGone, RootUnsettled
from fangxin.data.keys.roots.wrapped import WrappedRoot
from fangxin.data.keys.tree import KeyTree


class RootContract:
    """Subclass, and return an empty holder over storage in `folder`; the same folder is the same storage."""

    def holder(self, folder: Path) -> Root:
        raise AssertionError("give the suite a holder")

    def test_a_share_is_there_for_a_new_process_once_put_returns(self, tmp_path: Path) -> None:
        share = os.urandom(32)
        self.holder(tmp_path).put(1, share)
        assert self.holder(tmp_path).get(1) == share
        assert tuple(self.holder(tmp_path).generations()) == (1,)

    def test_putting_the_same_share_again_changes_nothing(self, tmp_path: Path) -> None:
        root, share = self.holder(tmp_path), os.urandom(32)
        root.put(1, share)
        root.put(1, share)
        assert tuple(root.generations()) == (1,)
        assert root.get(1) == share

    def test_two_generations_live_side_by_side_until_one_is_retired(self, tmp_path: Path) -> None:
        root, old, new = self.holder(tmp_path), os.urandom(32), os.urandom(32)
        root.put(4, old)
        root.put(6, new)
        assert tuple(root.generations()) == (4, 6)
        receipt = root.retire(keep=6)
        assert (receipt.holder, receipt.kept, receipt.retired) == (root.name, 6, (4,))
        assert tuple(root.generations()) == (6,)
        assert root.get(6) == new
        with pytest.raises(RootGone):
            root.get(4)

    def test_an_aborted_generation_is_retired_like_an_old_one(self, tmp_path: Path) -> None:
        root, old = self.holder(tmp_path), os.urandom(32)
        root.put(4, old)
        root.put(5, os.urandom(32))
        assert root.retire(keep=4).retired == (5,)
        assert root.get(4) == old
        root.put(6, os.urandom(32))
        assert tuple(root.generations()) == (4, 6)

    def test_retiring_twice_retires_nothing_more_and_still_says_what_it_claims(self, tmp_path: Path) -> None:
        root = self.holder(tmp_path)
        root.put(1, os.urandom(32))
        root.put(2, os.urandom(32))
        first, second = root.retire(keep=2), root.retire(keep=2)
        assert second.retired == ()
        assert second.claim == first.claim

    def test_a_generation_that_was_never_put_cannot_be_kept(self, tmp_path: Path) -> None:
        root, share = self.holder(tmp_path), os.urandom(32)
        root.put(1, share)
        with pytest.raises(RootGone):
            root.retire(keep=2)
        assert root.get(1) == share

    def test_a_claim_is_made_of_printed_sentences_and_is_never_unconditional(self, tmp_path: Path) -> None:
        root = self.holder(tmp_path)
        root.put(1, os.urandom(32))
        claim = root.retire(keep=1).claim
        assert claim.conditions
        assert set(claim.conditions) <= set(CONDITIONS)
        assert claim.backup_resistant in {"if", "no"}
        assert claim.effect in {"immediate", "best-effort", "test-only"} or claim.effect.startswith("after:")
        if claim.effect != "immediate":
            assert claim.backup_resistant == "no" or claim.effect.startswith("after:")


class KeeperContract(RootContract):
    """For holders whose share lies wrapped beside the vault. Say what it prints, and where its keeper's files are."""

    printed: tuple[str, str, tuple[str, ...]]  # effect, resistance and sentences (English), word for word

    def holder(self, folder: Path) -> WrappedRoot:
        raise AssertionError("give the suite a holder")

    def away(self, folder: Path) -> WrappedRoot:
        """The same holder, its keeper out of reach."""
        raise AssertionError("give the suite a holder that cannot be reached")

    def files(self) -> Iterable[Path]:
        """Every file in which the keeper lies."""
        raise AssertionError("say where the keeper keeps its keys")

    def test_the_claim_is_printed_word_for_word(self, tmp_path: Path) -> None:
        root = self.holder(tmp_path)
        root.put(1, os.urandom(32))
        root.put(2, os.urandom(32))
        for claim in (root.claim(), root.retire(keep=2).claim):
            told = tuple(CONDITIONS[one][0] for one in claim.conditions)
            assert (claim.effect, claim.backup_resistant, told) == self.printed

    def test_a_share_of_another_vault_is_refused_and_destroys_nothing(self, tmp_path: Path) -> None:
        ours, theirs = self.holder(tmp_path / "ours"), self.holder(tmp_path / "theirs")
        mine, other = os.urandom(32), os.urandom(32)
        ours.put(1, mine)
        theirs.put(1, other)
        kept = (ours.folder / "1.share").read_bytes()
        shutil.copyfile(theirs.folder / "1.share", ours.folder / "1.share")
        with pytest.raises(RootDamaged, match="another vault"):
            ours.get(1)
        with pytest.raises(RootDamaged):
            ours.retire(keep=1)
        (ours.folder / "1.share").write_bytes(kept)
        assert (ours.get(1), theirs.get(1)) == (mine, other)

    def test_a_file_that_is_no_share_is_named_as_that(self, tmp_path: Path) -> None:
        root = self.holder(tmp_path)
        root.put(1, os.urandom(32))
        whole = (root.folder / "1.share").read_bytes()
        for wrong in (b"", b"{}", whole[:-9], b"[1]", b'{"key": "x", "share": "\xc3\xa9"}'):
            (root.folder / "1.share").write_bytes(wrong)
            with pytest.raises(RootDamaged, match="newest copy"):
                root.get(1)

    def test_an_older_copy_of_the_folder_opens_nothing_and_destroys_nothing(self, tmp_path: Path) -> None:
        root, new = self.holder(tmp_path / "now"), os.urandom(32)
        root.put(1, os.urandom(32))
        shutil.copytree(root.folder, tmp_path / "then" / root.folder.name)
        root.put(2, new)
        root.retire(keep=2)
        stale = self.holder(tmp_path / "then")
        assert stale.generations() == ()
        with pytest.raises(RootGone):
            stale.get(1)
        for generation in (1, 2):
            with pytest.raises(RootGone):
                stale.retire(keep=generation)
        assert root.get(2) == new

    def test_a_key_that_no_file_names_any_more_is_retired_too(self, tmp_path: Path) -> None:
        root = self.holder(tmp_path)
        root.put(4, os.urandom(32))
        root.put(5, os.urandom(32))
        lost = (root.folder / "5.share").read_bytes()
        (root.folder / "5.share").unlink()
        root.retire(keep=4)
        (root.folder / "5.share").write_bytes(lost)
        assert root.generations() == (4,)
        with pytest.raises(RootGone):
            root.get(5)

    def test_a_put_that_was_killed_after_its_key_was_made_can_be_repeated(self, tmp_path: Path) -> None:
        root, share = self.holder(tmp_path), os.urandom(32)
        root.put(1, os.urandom(32))
        root.keeper.make(root._prefix() + "2")
        assert root.generations() == (1,)
        root.put(2, share)
        assert root.get(2) == share
        root.retire(keep=2)
        assert root.generations() == (2,)

    def test_a_holder_that_is_away_says_so_and_stops_writes_only(self, tmp_path: Path) -> None:
        with KeyTree.create(tmp_path / "vault", capacity=300, holders=[self.holder(tmp_path)], guard=LIFTED) as tree:
            some = refs(5)
            tree.create_keys(some, [1])
            known = raw(tree, some)
            tree.holders = (self.away(tmp_path),)
            with pytest.raises(RootUnreachable) as told:
                tree.holders[0].get(1)  # type: ignore[attr-defined]  # a tuple of holders
            assert told.value.hint
            with pytest.raises(RootUnsettled):
                destroy(tree, some[:1])
            assert raw(tree, some) == known

    def test_a_forked_child_can_go_on_with_the_same_holder(self, tmp_path: Path) -> None:
        root, share = self.holder(tmp_path), os.urandom(32)
        root.put(1, share)

        def look() -> None:
            if root.get(1) == share:
                os._exit(7)

        assert os.waitstatus_to_exitcode(os.waitpid(in_child(look), 0)[1]) == 7
        assert root.get(1) == share

    def test_nothing_of_fifty_destroyed_people_is_left_but_what_the_claim_says(self, tmp_path: Path) -> None:
        root = self.holder(tmp_path / "home")
        with KeyTree.create(tmp_path / "home" / "vault", capacity=300, holders=[root], guard=LIFTED) as tree:
            people = refs(200)
            tree.create_keys(people, [1])
            before, living = raw(tree, people[:50]), set(raw(tree, people[50:]).values())
            adversary = Adversary(tree, tmp_path / "copies")
            adversary.visit()
            old = [holder.get(tree.generation) for holder in (tree.anchor, root)] + [adversary.root()]
            receipt = destroy(tree, people[:50])
            assert receipt.destroyed == 50
            assert set(raw(tree, people).values()) == living
            adversary.visit()
            assert adversary.opens() == living
            assert adversary.opens(adversary.roots[0]) >= set(before.values())  # the old root would open them all
        files = [*self.files(), *(path for path in (tmp_path / "home").rglob("*") if path.is_file())]
        assert found(files, [*before.values(), *old]) == []
        planted = tmp_path / "home" / "planted"
        planted.write_bytes(b"x" * 5000 + base64.b64encode(old[0]))
        assert found([*files, planted], old) == [planted]

    def test_a_kill_between_holder_and_anchor_leaves_all_or_nothing(self, tmp_path: Path) -> None:
        folder, people = tmp_path / "vault", refs(40)
        with KeyTree.create(folder, capacity=300, holders=[self.holder(tmp_path)], guard=LIFTED) as tree:
            tree.create_keys(people, [1])
            known = raw(tree, people)
        gone = 0
        for turn, step in enumerate(("prepared", "pages", "committed", "retired")):
            victim = people[gone]

            def batch(step: str = step, victim: bytes = victim) -> None:
                def stop(now: str) -> None:
                    if now == step:
                        os.kill(os.getpid(), signal.SIGKILL)

                with KeyTree.open(folder, holders=[self.holder(tmp_path)], at=stop) as tree:
                    destroy(tree, [victim])

            _, status = os.waitpid(in_child(batch), 0)
            assert os.WTERMSIG(status) == signal.SIGKILL
            with KeyTree.open(folder, holders=[self.holder(tmp_path)]) as tree:
                done = step in ("committed", "retired")
                gone += done
                assert raw(tree, people) == {ref: known[ref] for ref in people[gone:]}
                aborted = set(tree.holders[0].generations()) - {tree.generation}
                assert aborted or step == "retired"  # what the kill left behind
                tree.ensure(refs(1, 1000 + turn), 1)  # the next write settles first
                assert tree.holders[0].generations() == (tree.generation,)
                roots = [shares.load(tree.anchor, tree.holders)[1]]
                opened = disclosed(list(folder.glob("tree-*.db")), roots).keys
                assert opened.isdisjoint(known[ref] for ref in people[:gone])


def found(files: Iterable[Path], secrets: Iterable[bytes]) -> list[Path]:
    """The files in which one of the secrets stands, raw, in hex or in base64."""
    forms = BytesAhoCorasick([form for secret in secrets for form in forms_of(secret)])
    return [path for path in files if forms.find_matches_as_indexes(path.read_bytes())]


def forms_of(secret: bytes) -> Iterator[bytes]:
    """Raw, both spellings of hex, and what base64 makes of its middle at any of the three alignments."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    for shift in range(3):
        yield base64.b64encode(bytes(shift) + secret)[4:-4]

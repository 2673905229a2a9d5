"""What every root holder must keep: a suite to inherit. Give it `holder(tmp_path)`, an empty holder of your kind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fangxin.data.keys.roots.protocol import CONDITIONS, Root, RootGone


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

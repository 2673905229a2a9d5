"""The file holder keeps the root contract, and a torn record is never a commit."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from contracts.root import RootContract

from fangxin.data.errors import NotAllowed, RootUnreachable
from fangxin.data.keys.roots import file as root_file
from fangxin.data.keys.roots.file import BLOCK, RECORD, FileRoot, claim_of
from fangxin.data.keys.roots.protocol import Claim, Living, RootReceipt, strongest
from fangxin.flows.estate import make_home, open_tree
from fangxin.flows.settings import load


class TestTheFileHolder(RootContract):
    def holder(self, folder: Path) -> FileRoot:
        return FileRoot(folder / "root")


TREE = bytes(range(16))


def test_a_torn_record_is_not_a_commit_at_any_length(tmp_path: Path) -> None:
    root, old, new = FileRoot(tmp_path / "root"), os.urandom(32), os.urandom(32)
    root.commit(1, old, 0, TREE)
    start = root.path.read_bytes()
    root.commit(2, new, 1, TREE)
    whole = root.path.read_bytes()
    assert root.living() == Living(2, 1, TREE)
    for length in range(RECORD.size):
        torn = start[:BLOCK] + whole[BLOCK : BLOCK + length] + start[BLOCK + length :]
        root.path.write_bytes(torn)
        assert root.living() == Living(1, 0, TREE)
        assert root.get(1) == old
        root.retire(keep=1)
        after = root.path.read_bytes()
        assert after[:BLOCK] == start[:BLOCK]
        assert length < 40 or whole[BLOCK + 32 : BLOCK + length] not in after  # the torn share is wiped
    root.commit(3, new, 1, TREE)
    assert root.living().generation == 3


def test_the_commit_survives_a_torn_retirement(tmp_path: Path) -> None:
    root, new = FileRoot(tmp_path / "root"), os.urandom(32)
    root.commit(1, os.urandom(32), 0, TREE)
    root.commit(2, new, 1, TREE)
    both = root.path.read_bytes()
    for length in (0, 1, 40, 79, 80, BLOCK - 1):
        root.path.write_bytes(os.urandom(length) + both[length:])
        assert root.living() == Living(2, 1, TREE)
        root.retire(keep=2)
        assert both[32:64] not in root.path.read_bytes()
        assert root.get(2) == new


def test_the_record_lies_as_the_format_says(tmp_path: Path) -> None:
    root, share = FileRoot(tmp_path / "root"), bytes(range(100, 132))
    root.commit(5, share, 1, TREE)
    head = b"FXR1" + b"\x01\x01\x00\x00" + (5).to_bytes(8, "little") + TREE + share
    raw = root.path.read_bytes()
    assert len(raw) == 8192
    assert raw[:64] == head
    assert share not in repr(root._records()).encode()
    inode = root.path.stat().st_ino
    root.commit(6, share, 0, TREE)
    root.retire(keep=6)
    assert root.path.stat().st_ino == inode  # written in place, never renamed
    wiped = root.path.read_bytes()
    assert share in wiped
    assert head not in wiped
    other = FileRoot(root.path)  # of another process, which has never seen this block
    assert other.settle() == (other.living(), other.retire(keep=6)) == (Living(6, 0, TREE), root.retire(keep=6))
    assert root.path.read_bytes() == wiped  # what is wiped is known by itself
    root.path.write_bytes(wiped[:100] + bytes((wiped[100] ^ 1,)) + wiped[101:])
    assert other.settle()[1].retired == ()
    assert root.path.read_bytes()[:BLOCK] != wiped[:BLOCK]  # of one that is not whole nobody knows, so it goes again
    assert root.path.stat().st_mode & 0o777 == 0o600


def test_what_another_thread_remembers_of_the_file_changes_nothing(tmp_path: Path) -> None:
    class Shared(FileRoot):
        def _said(self, both: bytes) -> Any:
            said = super()._said(both)
            self._known = old  # a thread that read the file before comes late
            return said

    FileRoot(tmp_path / "root").commit(1, bytes(32), 0, TREE)
    root, share = Shared(tmp_path / "root"), os.urandom(32)
    old = FileRoot(root.path)._look()
    root.commit(2, share, 1, TREE)
    living, receipt = root.settle()
    assert (living, receipt.retired) == (Living(2, 1, TREE), (1,))
    assert FileRoot(root.path).generations() == (2,)
    assert root.get(2) == share


def test_a_third_generation_waits_until_one_is_retired(tmp_path: Path) -> None:
    root = FileRoot(tmp_path / "root")
    root.commit(1, os.urandom(32), 0, TREE)
    root.commit(2, os.urandom(32), 1, TREE)
    with pytest.raises(NotAllowed, match="settle"):
        root.commit(3, os.urandom(32), 0, TREE)
    with pytest.raises(NotAllowed, match="another share"):
        root.commit(2, os.urandom(32), 1, TREE)
    assert root.generations() == (1, 2)


def test_a_link_in_the_roots_place_is_refused(tmp_path: Path) -> None:
    FileRoot(tmp_path / "real").commit(1, os.urandom(32), 0, TREE)
    (tmp_path / "root").symlink_to(tmp_path / "real")
    with pytest.raises(RootUnreachable):
        FileRoot(tmp_path / "root").living()


def test_a_claim_never_exceeds_what_the_medium_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert claim_of(tmp_path / "root", [tmp_path]) == Claim("best-effort", "no", ("inside-backup-set",))
    assert claim_of(Path("/dev/shm/root")).backup_resistant == "no"
    seen = {}
    for fs, options, objections in (
        ("ext4", ("rw",), []),
        ("ext4", ("rw", "data=journal"), []),
        ("ext4", ("rw",), ["solid-state"]),
        ("btrfs", ("rw",), []),
        ("overlay", ("rw",), []),
        ("", (), []),
    ):
        monkeypatch.setattr(root_file, "_mount_of", lambda path, found=(fs, options, "8:1"): found)
        monkeypatch.setattr(root_file, "_disk_objections", lambda device, found=objections: list(found))
        seen[fs, options, tuple(objections)] = claim_of(tmp_path / "root", []).effect
        assert claim_of(tmp_path / "root").backup_resistant == "no", "nobody said what is copied away"
    assert list(seen.values()) == ["immediate"] + ["best-effort"] * 5


def test_a_home_says_which_folders_are_copied_away_and_its_root_claims_accordingly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(root_file, "_mount_of", lambda path: ("ext4", ("rw",), "8:1"))
    monkeypatch.setattr(root_file, "_disk_objections", lambda device: [])
    home = tmp_path / "home"
    make_home(home, rehearsal=True, origin="root.example/erasure", now=datetime(2026, 11, 24, tzinfo=UTC), capacity=70)
    settings = home / "fangxin.toml"
    bare, seen = settings.read_text("utf-8"), []
    for said in ("", "backup_sets = []", 'backup_sets = ["/elsewhere"]', f'backup_sets = ["{tmp_path}"]'):
        settings.write_text(f"{said}\n{bare}", "utf-8")
        with open_tree(load(home)) as tree:
            seen.append(tree.anchor.claim())
    good = Claim("immediate", "if", ("in-place-medium", "outside-backup-sets"))
    unknown, inside = (Claim("best-effort", "no", (why,)) for why in ("backup-sets-unknown", "inside-backup-set"))
    assert seen == [unknown, good, good, inside]


def test_a_batch_claims_what_its_strongest_holder_claims_and_no_sum() -> None:
    weak, strong = Claim("best-effort", "no", ("solid-state",)), Claim("immediate", "if", ("in-place-medium",))
    later = Claim("after:2027-01-08", "if", ("in-place-medium",))
    receipts = [RootReceipt(str(i), 2, (1,), claim) for i, claim in enumerate((weak, later, strong))]
    assert strongest(receipts) == strong
    assert strongest(receipts[:2]) == later
    assert strongest(receipts[:1]) == weak

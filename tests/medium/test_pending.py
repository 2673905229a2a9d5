"""The journal of pending destructions: no crash leaves a unit half done, an old inode alive, or a stranger lost."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from fangxin.data import extents, medium
from fangxin.data.errors import FangxinError, Incomplete, StoreUnavailable, UnitChanged, WriterBusy
from fangxin.data.medium import why_not
from fangxin.data.pending import Pending

OLD, NEW, WAL = b"old rows of everybody " * 1000, b"survivors " * 500, b"frames " * 300


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for others, but not long."""
    monkeypatch.setattr(medium, "PATIENCE", 0.1)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    (tmp_path / "part").mkdir()
    path = tmp_path / "part" / "unit.bin"
    path.write_bytes(OLD)
    return path


def publish(pending: Pending, unit: Path, *, wal: bool = False) -> None:
    new = pending.scratch(unit, batch="b")
    new.write_bytes(NEW)
    new.with_name(new.name + "-journal").write_bytes(b"x")
    new.with_name(new.name + "-journal").unlink()
    copy = pending.scratch(unit, batch="b")
    copy.write_bytes(OLD)
    also = [copy]
    if wal:
        also.append(pending.hold(unit.with_name("unit.bin-wal"), batch="b"))
        unit.with_name("unit.bin-wal").unlink()  # as the engine does on closing
    pending.replace(new, unit, batch="b", note={"rows": 3}, also=also)


def take_away(pending: Pending, unit: Path) -> None:
    pending.remove(unit, batch="b", note={"rows": 0})


def try_and_discard(pending: Pending, unit: Path) -> None:
    new = pending.scratch(unit, batch="b")
    new.write_bytes(NEW)
    new.with_name(new.name + "-journal").write_bytes(NEW)
    pending.discard(new, batch="b")


def dies_at(n: int, root: Path, work: Callable[[Pending], None]) -> bool:
    """Work in a child that is killed at the n-th step; whether it got to the end instead."""
    pid = os.fork()
    if pid == 0:
        left = [n]
        pending = Pending(root)

        def at(_step: str) -> None:
            left[0] -= 1
            if left[0] < 0:
                os._exit(9)

        pending.at = at
        try:
            work(pending)
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 9)
    return code == 0


def everything(root: Path) -> list[str]:
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())


@pytest.mark.parametrize("wal", [False, True])
def test_a_kill_after_any_step_of_replacing_leaves_the_unit_whole(tmp_path: Path, wal: bool) -> None:
    ended, n = False, -1
    while not ended:
        n += 1
        root = tmp_path / f"r{n}"
        root.mkdir()
        unit = root / "unit.bin"
        unit.write_bytes(OLD)
        if wal:
            unit.with_name("unit.bin-wal").write_bytes(WAL)
        old = unit.stat().st_ino
        plain = why_not(unit) == ""
        ended = dies_at(n, root, lambda p, u=unit: publish(p, u, wal=wal))  # type: ignore[misc]  # bound per round
        assert unit.read_bytes() in (OLD, NEW)
        pending = Pending(root)
        pending.recover()
        pending.recover()
        done = pending.outcome(unit, batch="b")
        if unit.read_bytes() == OLD:
            assert done is None
            assert unit.stat().st_nlink == 1
            live = [p for p in everything(root) if not p.startswith(".fangxin-pending")]
            assert set(live) <= {"unit.bin", "unit.bin-wal"}
        else:
            assert done is not None
            assert done.note == {"rows": 3}
            assert [d.ino for d in done.destructions].count(old) == (1 if plain else 0)
            assert len(done.destructions) == ((3 if wal else 2) if plain else 0)
        pending.forget(batch="b")
        assert set(everything(root)) <= {"unit.bin", "unit.bin-wal"}
        if unit.read_bytes() == NEW:
            assert everything(root) == ["unit.bin"]
    assert n > 8


@pytest.mark.parametrize("work", [take_away, try_and_discard])
def test_a_kill_while_removing_or_discarding_leaves_no_stray(
    tmp_path: Path, work: Callable[[Pending, Path], None]
) -> None:
    ended, n = False, -1
    while not ended:
        n += 1
        root = tmp_path / f"r{n}"
        root.mkdir()
        unit = root / "unit.bin"
        unit.write_bytes(OLD)
        ended = dies_at(n, root, lambda p, u=unit: work(p, u))  # type: ignore[misc]  # bound per round
        pending = Pending(root)
        pending.recover(batch="b")
        done = pending.outcome(unit, batch="b")
        assert (done is not None) == (not unit.exists())
        if work is try_and_discard:
            assert unit.read_bytes() == OLD
        pending.forget(batch="b")
        assert everything(root) == (["unit.bin"] if unit.exists() else [])
    assert n > 1


def test_the_journal_is_private_and_names_nobody(unit: Path, tmp_path: Path) -> None:
    pending = Pending(tmp_path)
    publish(pending, unit)
    folder = tmp_path / ".fangxin-pending"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (record,) = folder.glob("*.json")
    told = json.loads(record.read_text())
    assert told["unit"] == "part/unit.bin"
    assert {"batch", "step", "note", "held", "destroyed"} <= set(told)
    assert set(pending.files()) == set(folder.iterdir())


def test_the_new_file_wears_what_the_old_one_wore(unit: Path, tmp_path: Path) -> None:
    unit.chmod(0o604)
    os.setxattr(unit, "user.kind", b"ledger")
    publish(Pending(tmp_path), unit)
    assert unit.read_bytes() == NEW
    assert stat.S_IMODE(unit.stat().st_mode) == 0o604
    assert os.getxattr(unit, "user.kind") == b"ledger"


def test_an_open_reader_stops_it_before_anything_changed(unit: Path, tmp_path: Path) -> None:
    with unit.open("rb"), pytest.raises(StoreUnavailable, match="open"):
        publish(Pending(tmp_path), unit)
    pending = Pending(tmp_path)
    pending.recover()
    assert unit.read_bytes() == OLD
    assert everything(tmp_path) == ["part/unit.bin"]


def test_a_unit_that_changed_meanwhile_is_not_replaced(unit: Path, tmp_path: Path) -> None:
    pending = Pending(tmp_path)
    new = pending.scratch(unit, batch="b")
    new.write_bytes(NEW)
    seen = unit.stat()
    with unit.open("ab") as out:
        out.write(b"a late row")
    with pytest.raises(UnitChanged):
        pending.replace(new, unit, batch="b", note={}, seen=seen)
    pending.discard(new, batch="b")
    assert unit.read_bytes() == OLD + b"a late row"


def test_whoever_comes_while_we_publish_waits_and_never_sees_half_a_unit(unit: Path, tmp_path: Path) -> None:
    pending = Pending(tmp_path)
    new = pending.scratch(unit, batch="b")
    new.write_bytes(NEW)
    refused: list[int] = []

    def at(step: str) -> None:
        if step == "held":
            pid = os.fork()
            if pid == 0:
                try:
                    os.open(unit, os.O_RDONLY | os.O_NONBLOCK)
                except BlockingIOError:
                    os._exit(7)
                os._exit(0)
            refused.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    pending.at = at
    done = pending.replace(new, unit, batch="b", note={})
    assert refused == ([7] if not done.refused else refused)
    assert unit.read_bytes() == NEW


def test_an_old_file_that_somebody_keeps_open_leaves_the_rest_due_until_it_is_closed(
    unit: Path, tmp_path: Path
) -> None:
    pending = Pending(tmp_path)
    new = pending.scratch(unit, batch="b")
    new.write_bytes(NEW)
    journal = unit.with_name("unit.bin-journal")
    journal.write_bytes(WAL)
    with journal.open("rb"), pytest.raises(Incomplete, match="close what uses it"):
        pending.replace(new, unit, batch="b", note={"rows": 3}, also=[journal])
    assert unit.read_bytes() == NEW
    assert pending.outcome(unit, batch="b") is None
    pending.recover(batch="b")
    done = pending.outcome(unit, batch="b")
    assert done is not None
    assert len(done.destructions) == (0 if done.refused else 2)
    pending.forget(batch="b")
    assert everything(tmp_path) == ["part/unit.bin"]


def test_a_hold_whose_file_still_lives_only_loses_our_link(unit: Path, tmp_path: Path) -> None:
    pending = Pending(tmp_path)
    held = pending.hold(unit, batch="b")
    assert held.stat().st_ino == unit.stat().st_ino
    pending.discard(held, batch="b")
    assert unit.read_bytes() == OLD
    assert unit.stat().st_nlink == 1


def test_what_is_not_ours_is_never_discarded(unit: Path, tmp_path: Path) -> None:
    with pytest.raises(FangxinError, match="neither"):
        Pending(tmp_path).discard(unit, batch="b")
    assert unit.read_bytes() == OLD


def test_two_runs_at_once_never_meet(unit: Path, tmp_path: Path) -> None:
    mine = Pending(tmp_path)
    mine.scratch(unit, batch="b")
    pid = os.fork()
    if pid == 0:
        try:
            Pending(tmp_path).recover()
        except WriterBusy:
            os._exit(5)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    mine.recover()
    Pending(tmp_path).recover()
    assert everything(tmp_path) == ["part/unit.bin"]


def test_an_outcome_counts_only_for_what_was_published(unit: Path, tmp_path: Path) -> None:
    pending = Pending(tmp_path)
    publish(pending, unit)
    assert pending.outcome(unit, batch="b") is not None
    assert pending.outcome(unit, batch="another") is None
    other = unit.with_name("other")
    other.write_bytes(b"restored from a backup")
    other.replace(unit)
    assert pending.outcome(unit, batch="b") is None


def test_stores_of_one_folder_keep_apart(unit: Path, tmp_path: Path) -> None:
    one, two = Pending(tmp_path, store="sqlite:a"), Pending(tmp_path, store="text:b")
    scratch = one.scratch(unit, batch="b")
    scratch.write_bytes(NEW)
    two.recover()
    two.forget(batch="b")
    assert scratch.exists()
    one.discard(scratch, batch="b")
    one.forget(batch="b")
    assert everything(tmp_path) == ["part/unit.bin"]


def test_a_refusing_medium_still_publishes_and_says_why(unit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extents, "_OVERWRITABLE", ())
    pending = Pending(unit.parent)
    new = pending.scratch(unit, batch="b")
    new.write_bytes(b"survivors")
    done = pending.replace(new, unit, batch="b", note={"rows": 1})
    assert unit.read_bytes() == b"survivors"
    assert done.destructions == ()
    assert "not known to overwrite" in done.refused
    assert "overwritten" not in done.claim
    pending.forget(batch="b")
    assert list(unit.parent.iterdir()) == [unit]


def test_a_failing_device_leaves_the_work_to_be_finished_later(unit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if why_not(unit):
        return
    old = unit.stat().st_ino
    pending = Pending(unit.parent)
    new = pending.scratch(unit, batch="b")
    new.write_bytes(b"survivors")
    real = os.pwrite
    with monkeypatch.context() as fault:
        fault.setattr(os, "pwrite", lambda fd, data, at: real(fd, data[:1000], at) and fail())
        with pytest.raises(Incomplete, match="resume"):
            pending.replace(new, unit, batch="b", note={})
    assert unit.read_bytes() == b"survivors"
    assert pending.outcome(unit, batch="b") is None
    pending.recover()
    done = pending.outcome(unit, batch="b")
    assert done is not None
    assert [d.ino for d in done.destructions] == [old]


def fail() -> int:
    raise OSError(errno.EIO, "fault")

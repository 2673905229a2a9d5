"""A power cut at any moment: what a disk may legally hold then is put in place, and the journal recovers from it.

Every call that changes a disk is noted while a unit is replaced. After each of them a disk may hold any file as it was
when it was last flushed or as it was last written, and any folder as it was when it was last flushed or as it is: the
four corners of that are built in a folder of their own (one inode each, with the numbers that the records name), and
`recover` runs there. The same is done with one flush left out: then it has to fail, or the flush would be for nothing.
Not tried: a device that says it flushed and did not, and sectors torn in two.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fangxin.data import medium
from fangxin.data.medium import why_not
from fangxin.data.pending import FOLDER, Pending

OLD, NEW = b"old rows of everybody " * 300, b"survivors " * 200
Names = dict[str, int]  # a folder: name -> inode
State = tuple[dict[int, bytes], dict[Path, Names]]


@dataclass
class Disk:
    """What was written and what was flushed: contents by inode, names by folder; and every state in between."""

    root: Path
    skip: str = ""  # the function of ours whose flush is left out
    skipped: int = 0
    written: dict[int, bytes] = field(default_factory=dict)
    flushed: dict[int, bytes] = field(default_factory=dict)
    names: dict[Path, Names] = field(default_factory=dict)  # as they were flushed
    states: list[State] = field(default_factory=list)
    _seen: dict[int, tuple[int, int]] = field(default_factory=dict)

    def begin(self) -> None:
        """What is there before is on the disk."""
        self.names = self._now()
        self.flushed = dict(self.written)

    def look(self) -> None:
        """Take up what stands there now; if anything changed, a power cut may come here."""
        now = self._now()
        for data, listing in itertools.product((self.written, self.flushed), (now, self.names)):
            state = dict(data), {folder: dict(names) for folder, names in listing.items()}
            if state not in self.states[-4:]:
                self.states.append(state)

    def flush(self, fd: int) -> None:
        """A flush of a folder keeps its names; of a file, its bytes."""
        place, number = Path(f"/proc/self/fd/{fd}").readlink(), os.fstat(fd).st_ino
        if place.is_dir():
            self.names[place.relative_to(self.root)] = _names(place)
        elif number in self.written:  # else the probe of the medium, which never has a name
            with contextlib.suppress(OSError):  # opened for writing only
                self.written[number] = os.pread(fd, 1 << 24, 0)
            self.flushed[number] = self.written[number]

    def _now(self) -> dict[Path, Names]:
        folders = [self.root, *(p for p in self.root.rglob("*") if p.is_dir())]
        now = {folder.relative_to(self.root): _names(folder) for folder in folders}
        for folder, names in now.items():
            for name, number in names.items():
                seen = (self.root / folder / name).stat()
                if self._seen.get(number) != (seen.st_mtime_ns, seen.st_size):  # opening it would wait for its lease
                    self.written[number] = (self.root / folder / name).read_bytes()
                    self._seen[number] = (seen.st_mtime_ns, seen.st_size)
        return now


def _names(folder: Path) -> Names:
    return {one.name: one.inode() for one in os.scandir(folder) if one.is_file()}


@contextmanager
def watched(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Note what is done to the disk; the flush of `disk.skip` is left out."""

    def noted(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **more: Any) -> Any:
            disk.look()
            done = call(*args, **more)
            disk.look()
            return done

        return wrapped

    def fsync(fd: int) -> None:
        disk.look()
        frame = sys._getframe(1)
        who = frame.f_code.co_name
        if who == "sync_dir" and frame.f_back is not None:
            who = f"names after {frame.f_back.f_code.co_name}"
        if who == disk.skip:
            disk.skipped += 1
        else:
            disk.flush(fd)
        disk.look()

    with monkeypatch.context() as patch:
        for name in ("ftruncate", "link", "unlink", "rename", "replace"):
            patch.setattr(os, name, noted(getattr(os, name)))
        patch.setattr(os, "fsync", fsync)
        yield


def put_in_place(state: State, to: Path) -> None:
    """A folder as the disk may hold it; the records name the inodes that stand for the old ones."""
    contents, folders = state
    first: dict[int, Path] = {}
    for folder, names in folders.items():
        (to / folder).mkdir(parents=True, exist_ok=True)
        for name, number in names.items():
            if number in first:
                os.link(first[number], to / folder / name)
            else:
                first[number] = to / folder / name
                first[number].write_bytes(contents.get(number, b""))
    device = to.stat().st_dev
    number_of = {number: path.stat().st_ino for number, path in first.items()}
    for path in (to / FOLDER).glob("*.json"):
        if not path.stat().st_size:
            continue  # whoever trusts it fails
        record = json.loads(path.read_bytes())
        for one in record["held"]:
            one["dev"], one["ino"] = device, number_of.get(one["ino"], 1)
        if record["published"]:
            record["published"] = [device, number_of.get(record["published"][1], 1)]
        path.write_text(json.dumps(record))


def what_does_not_hold(disk: Disk, old: int, folder: Path) -> set[str]:
    """Recover from every state that the disk may be in."""
    found = set()
    for number, state in enumerate(disk.states):
        contents, folders = state
        root = folder / str(number)
        named = {inode for names in folders.values() for inode in names.values()}
        if contents[old] == OLD and old not in named:
            found.add("old bytes stand in blocks that nobody can address any more")
        records = [contents.get(n, b"") for name, n in folders.get(Path(FOLDER), {}).items() if name.endswith(".json")]
        said = [json.loads(one)["destroyed"].values() for one in records if one]
        if contents[old] == OLD and any(one and one["ino"] == old for destroyed in said for one in destroyed):
            found.add("a record says that bytes were destroyed which the disk still holds")
        put_in_place(state, root)
        try:
            Pending(root).recover()
        except Exception as error:
            found.add(f"cannot be recovered from: {type(error).__name__}")
            continue
        unit = root / "part" / "unit.bin"
        if not unit.exists() or unit.read_bytes() not in (OLD, NEW):
            found.add("the unit is neither what it was nor the survivors")
    return found


def cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skip: str = "") -> set[str]:
    """Replace a unit, and recover from a power cut at every moment of it."""
    unit = tmp_path / "store" / "part" / "unit.bin"
    unit.parent.mkdir(parents=True)
    unit.write_bytes(OLD)
    old = unit.stat().st_ino
    disk = Disk(tmp_path / "store", skip)
    disk.begin()
    pending = Pending(disk.root)
    with watched(disk, monkeypatch):
        new = pending.scratch(unit, batch="b")
        new.write_bytes(NEW)
        done = pending.replace(new, unit, batch="b", note={})
    assert unit.read_bytes() == NEW
    assert done.refused == why_not(unit)
    assert len(disk.states) > 50
    assert disk.skipped > 0 or not skip
    monkeypatch.setattr(os, "fsync", lambda _fd: None)  # nothing is cut while we recover, a hundred times
    monkeypatch.setattr(medium, "PATIENCE", 0.01)
    memory = Path("/dev/shm")  # nothing is shown of the medium there, and it waits for no disk
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        return what_does_not_hold(disk, old, Path(folder))


def test_a_power_cut_at_any_moment_leaves_the_unit_whole_and_no_false_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = cut(tmp_path, monkeypatch)
    if why_not(tmp_path / "store" / "part" / "unit.bin"):  # there old bytes are not overwritten at all, and it is said
        found.discard("old bytes stand in blocks that nobody can address any more")
    assert found == set()


@pytest.mark.parametrize(
    ("flush", "then"),
    [
        ("overwrite", "a record says that bytes were destroyed which the disk still holds"),
        ("_dress", "the unit is neither what it was nor the survivors"),
        ("_write", "cannot be recovered from: JSONDecodeError"),
        ("names after replace", "the unit is neither what it was nor the survivors"),
        ("names after _link", "old bytes stand in blocks that nobody can address any more"),
    ],
)
def test_the_loss_is_seen_when_a_flush_is_left_out(
    flush: str, then: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert then in cut(tmp_path, monkeypatch, flush)

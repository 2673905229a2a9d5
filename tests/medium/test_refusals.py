"""What is refused before the first byte changes, each with its reason: the kernel says it, or a probe shows it."""

from __future__ import annotations

import errno
import fcntl
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

from fangxin.data import extents
from fangxin.data.extents import LOGICAL, Refused, examine
from fangxin.data.medium import destroy, why_not
from fangxin.data.pending import Pending

HERS = b"13900001234 Wang Xiaoming " * 1000

T = TypeVar("T")
Raw = list[tuple[int, int, int, int]]  # logical, physical, length, flags


@dataclass
class Kernel:
    """A kernel that answers as the test says, so that every refusal is seen whatever the tests run on.

    `map` is where a file with a name lies, `probe` where the probe, which has none, lies each time it is asked (the
    last answer stays). An OSError is raised.
    """

    fs: str = "xfs"
    flags: int | OSError = 0
    map: Raw | OSError = field(default_factory=lambda: [(0, 1 << 30, 1 << 20, 1)])
    probe: list[Raw | OSError] = field(default_factory=lambda: [[(0, 1 << 29, 1 << 20, 1)]])
    probed: int = 0  # maps of a probe asked for

    def extents(self, fd: int) -> Raw:
        """Answer FIEMAP."""
        if os.fstat(fd).st_nlink:
            return _told(self.map)
        self.probed += 1
        return _told(self.probe[min(self.probed, len(self.probe)) - 1])


def _told(answer: T | OSError) -> T:
    if isinstance(answer, OSError):
        raise answer
    return answer


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """Put a kernel in place that finds nothing wrong, and forget what real probes found."""
    one = Kernel()
    monkeypatch.setattr(extents, "_file_system", lambda _: one.fs)
    monkeypatch.setattr(extents, "_inode_flags", lambda _: _told(one.flags))
    monkeypatch.setattr(extents, "_extents", one.extents)
    monkeypatch.setattr(extents, "_PROBED", {})
    return one


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    path = tmp_path / "unit"
    path.write_bytes(HERS)
    return path


def refused(unit: Path) -> str:
    """Why the unit refuses; it must have kept every byte."""
    why = why_not(unit)
    with pytest.raises(Refused) as told:
        destroy(unit)
    assert told.value.reason == why
    assert unit.read_bytes() == HERS
    return why


def test_nothing_is_refused_where_the_kernel_finds_nothing_wrong(unit: Path, kernel: Kernel) -> None:
    assert why_not(unit) == ""
    kernel.map = [(0, 1 << 30, 1 << 20, 0x1 | 0x800 | 0x1000)]  # last, unwritten, merged
    assert why_not(unit) == ""


# ------------------------------------------------------------ what the kernel says


@pytest.mark.parametrize("fs", ["btrfs", "zfs", "bcachefs"])
def test_copying_file_systems_are_refused_by_name_without_a_probe(unit: Path, kernel: Kernel, fs: str) -> None:
    kernel.fs = fs
    assert refused(unit).startswith(f"copy-on-write: the file system {fs}")
    assert kernel.probed == 0


@pytest.mark.parametrize("fs", ["overlay", "tmpfs", "nfs4", "fuse.sshfs", "f2fs", "ext2", "unknown"])
def test_a_file_system_that_is_not_on_the_list_is_refused_by_name(unit: Path, kernel: Kernel, fs: str) -> None:
    kernel.fs = fs
    assert refused(unit) == f"the file system {fs} is not known to overwrite in place (known: ext4, xfs)"
    assert kernel.probed == 0


@pytest.mark.parametrize(("place", "fs"), [("/proc/self/status", "proc"), ("", "unknown")])
def test_the_file_system_is_the_one_the_file_was_reached_through(place: str, fs: str) -> None:
    fd = os.open(place, os.O_RDONLY) if place else os.memfd_create("nowhere")
    try:
        assert extents._file_system(fd) == fs
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        (0x2, "unknown"),
        (0x4, "no place on disk yet"),
        (0x8, "encoded"),
        (0x80, "encrypted"),
        (0x100, "not aligned"),
        (0x300, "inside the inode"),
        (0x500, "share a block"),
        (0x2000, "snapshot or a clone"),
    ],
)
def test_bytes_that_do_not_lie_plainly_on_blocks_of_their_own_are_refused(
    unit: Path, kernel: Kernel, flag: int, words: str
) -> None:
    kernel.map = [(0, 1 << 30, 4096, 0), (4096, 1 << 31, 1 << 20, flag | 0x1)]
    assert words in refused(unit)


@pytest.mark.parametrize(
    ("flag", "words"),
    [(0x10, "immutable"), (0x20, "append-only"), (0x4000, "through the journal"), (0x100000, "sealed")],
)
def test_files_whose_flags_forbid_overwriting_are_refused(unit: Path, kernel: Kernel, flag: int, words: str) -> None:
    kernel.flags = flag | 0x80000  # extents: what every ext4 file has
    assert words in refused(unit)


@pytest.mark.parametrize("code", [errno.ENOTTY, errno.EOPNOTSUPP])
def test_a_file_system_that_does_not_answer_is_refused(unit: Path, kernel: Kernel, code: int) -> None:
    kernel.map = OSError(code, os.strerror(code))
    assert refused(unit) == "the file system does not tell where the bytes of the file lie"
    kernel.flags = OSError(code, os.strerror(code))
    assert refused(unit) == "the file system does not tell the flags of the file"


def test_an_ext4_that_journals_data_is_refused_whatever_the_mount_table_says(
    unit: Path, kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.fs = "ext4"
    monkeypatch.setattr(extents, "_EXT4", tmp_path)
    monkeypatch.setattr(extents, "_block", lambda _: Path("/sys/block/sdz"))
    assert "does not tell whether this ext4 journals data" in refused(unit)
    options = tmp_path / "sdz" / "options"
    options.parent.mkdir()
    options.write_text("rw\nbarrier\ndata=journal\nerrors=continue\n")
    assert "data=journal" in refused(unit)
    options.write_text("rw\nbarrier\ndata=ordered\nerrors=continue\n")
    assert why_not(unit) == ""


def test_a_system_that_does_not_tell_who_has_it_open_is_refused(
    unit: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.fcntl

    def stranger(fd: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETLEASE:
            raise PermissionError(errno.EACCES, "neither owner nor CAP_LEASE")
        return real(fd, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", stranger)
    assert refused(unit) == "the system does not tell us whether somebody else has the file open"


# ------------------------------------------------------------ what the probe shows


def test_a_probe_that_moved_refuses_every_file_of_its_file_system(unit: Path, kernel: Kernel) -> None:
    kernel.probe = [[(0, 1 << 29, 1 << 20, 1)], [(0, 1 << 28, 1 << 20, 1)]]
    assert refused(unit) == "copy-on-write: the probe's extents moved"
    assert refused(unit) == "copy-on-write: the probe's extents moved"
    assert kernel.probed == 2


def test_a_probe_that_moved_in_part_refuses(unit: Path, kernel: Kernel) -> None:
    kernel.probe = [[(0, 1 << 29, 1 << 20, 1)], [(0, 1 << 29, 12288, 0), (12288, 1 << 28, 4096, 1)]]
    assert refused(unit) == "copy-on-write: the probe's extents moved"


def test_a_unit_whose_probe_moved_is_published_and_called_deleted_logically(unit: Path, kernel: Kernel) -> None:
    kernel.probe = [[(0, 1 << 29, 1 << 20, 1)], [(0, 1 << 28, 1 << 20, 1)]]
    pending = Pending(unit.parent)
    new = pending.scratch(unit, batch="b")
    new.write_bytes(b"survivors")
    done = pending.replace(new, unit, batch="b", note={})
    assert unit.read_bytes() == b"survivors"
    assert (done.destructions, done.refused, done.claim) == ((), "copy-on-write: the probe's extents moved", LOGICAL)
    pending.forget(batch="b")
    assert list(unit.parent.iterdir()) == [unit]


def test_a_file_system_is_probed_once_per_process(unit: Path, kernel: Kernel) -> None:
    (unit.parent / "part").mkdir()
    other = unit.parent / "part" / "other"
    other.write_bytes(HERS)
    assert (why_not(unit), why_not(other), why_not(unit)) == ("", "", "")
    assert kernel.probed == 2  # before and after being overwritten


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_a_probe_that_could_not_be_written_refuses_with_the_reason_until_it_can(
    unit: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    def broken(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as fault:
        fault.setattr(os, call, broken)
        why = refused(unit)
    assert why.startswith("it could not be tried whether the file system overwrites in place: ")
    assert why.endswith(os.strerror(code).lower())
    assert why_not(unit) == ""


def test_a_probe_that_was_written_in_part_refuses(unit: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwrite", lambda _fd, data, _offset: len(data) - 1)
    assert refused(unit).endswith("no space left on device")


def test_a_probe_whose_place_is_not_told_refuses(unit: Path, kernel: Kernel) -> None:
    kernel.probe = [OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))]
    assert refused(unit).endswith("operation not supported")
    kernel.probe, kernel.probed = [[]], 0
    assert refused(unit).endswith("their place is not told whole")
    kernel.probe, kernel.probed = [[(0, 1 << 29, 8192, 1)]], 0
    assert refused(unit).endswith("their place is not told whole")
    kernel.probe, kernel.probed = [[(0, 0, 1 << 20, 0x3)]], 0
    assert refused(unit).endswith("their place is unknown")


def test_a_folder_that_takes_no_probe_or_lies_elsewhere_refuses(unit: Path, kernel: Kernel, tmp_path: Path) -> None:
    fd = os.open(unit, os.O_RDONLY)
    try:
        with pytest.raises(Refused, match="could not be tried"):
            examine(fd, Path("/proc/self"))
        with pytest.raises(Refused, match="on another"):
            extents._moves(tmp_path, dev=-1)
    finally:
        os.close(fd)


def test_a_probe_leaves_nothing_even_when_killed_between_its_two_writes(
    unit: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (list(unit.parent.iterdir()), unit.parent.stat().st_mtime_ns)
    pid = os.fork()
    if pid == 0:
        try:
            monkeypatch.setattr(extents, "_unfit", lambda _: os._exit(9) if kernel.probed else "")
            why_not(unit)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert (list(unit.parent.iterdir()), unit.parent.stat().st_mtime_ns) == before
    assert why_not(unit) == ""
    assert (list(unit.parent.iterdir()), unit.parent.stat().st_mtime_ns) == before

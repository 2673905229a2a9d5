"""Where the bytes of one file lie, and whether overwriting it in place would reach them.

The kernel is asked (FIEMAP, inode flags, mount table, a write lease), and a file system only counts as overwriting in
place once a probe of ours stayed where it was; nothing is changed by asking.

* Refused: another name, open or mapped elsewhere, extents that are shared, inline, encoded or unknown, a file system
  that is not on the list or that moved the probe, data that goes through a journal, immutable files. Each reason is a
  sentence to print.
* The probe is random bytes in a file that never has a name: closing it, a kill or a power cut leaves nothing to sweep.
* What overwriting may be called follows the device: a disk of its own, flash, or a virtual device.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import stat
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fangxin.data import descriptors
from fangxin.data.errors import FangxinError, NotAllowed, StoreUnavailable

LOGICAL = "logically deleted: overwriting has no effect here"

Extents = tuple[tuple[int, int, int], ...]  # (logical, physical, length) in bytes, merged


class Refused(FangxinError):
    """The bytes of this file cannot be overwritten in place; `reason` is the sentence to print."""

    exit_code = NotAllowed.exit_code

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class NotAlone(Refused):
    """Somebody else has the file open, or it has another name: worth waiting for."""


class Moved(Refused):
    """The file system wrote elsewhere while we overwrote: the old blocks still hold what they held."""


@dataclass(frozen=True)
class Medium:
    """What one file lies on; `claim` says what overwriting it may be called."""

    fs: str
    block: int
    extents: Extents
    rotational: bool | None  # None: unknown
    claim: str


def examine(fd: int, folder: Path) -> Medium:
    """Say what the open file lies on and that overwriting it in place would reach its bytes; changes nothing.

    `folder` lies on the same file system and takes the probe. Raises Refused: no regular file, another name, open or
    mapped elsewhere, a file system that is not on the list or copies on writing, journalled data, immutable, or extents
    that are shared, inline, encoded or unknown.
    """
    _one_name(fd)
    with _lease(fd):
        return _examine(fd, folder)


# ---------------------------------------------------------------- being alone with a file


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """Open for reading without following a link or waiting for a pipe; symlinks and absence are StoreUnavailable."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as broken:
        if broken.errno == errno.EWOULDBLOCK:
            raise NotAlone("somebody else has the file open") from None
        found = "a symbolic link" if broken.errno == errno.ELOOP else os.strerror(broken.errno or 0).lower()
        raise StoreUnavailable(
            f"{path.name}: expected a plain readable file, found {found}", hint="name the file itself in the catalog"
        ) from None
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def alone(path: Path, *, patience: float) -> Iterator[tuple[int, bool]]:
    """Yield (fd, leased) for a plain file of one name that nobody else has open, waiting `patience` seconds for that.

    While the lease lasts, whoever opens the file waits. Not leased: the kernel does not let us ask.
    """
    give_up = time.monotonic() + patience
    with contextlib.ExitStack() as stack:
        while True:
            descriptors.let_go()
            try:
                with contextlib.ExitStack() as attempt:
                    fd = attempt.enter_context(opened(path))
                    plain(fd, path)
                    leased = True
                    try:
                        attempt.enter_context(_lease(fd))
                    except NotAlone:
                        raise
                    except Refused:
                        leased = False
                    stack.push(attempt.pop_all())
                break
            except NotAlone as busy:
                if time.monotonic() > give_up:
                    raise StoreUnavailable(
                        f"{path.name}: {busy.reason}", hint="close whatever uses it and try again; nothing was changed"
                    ) from None
            time.sleep(0.05)
        yield fd, leased


@contextlib.contextmanager
def _lease(fd: int) -> Iterator[None]:
    """Hold a write lease: granted only if nobody else has the file open or mapped. Raises NotAlone or Refused."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)  # a break would send SIGIO, which kills; SIGURG is ignored
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError as broken:
        if broken.errno in (errno.EAGAIN, errno.EBUSY):
            raise NotAlone("somebody else has the file open or mapped") from None
        raise Refused("the system does not tell us whether somebody else has the file open") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # somebody waited so long that the kernel took it back
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def plain(fd: int, path: Path) -> None:
    """Raise StoreUnavailable unless the open file is a regular one with a single name."""
    try:
        _one_name(fd)
    except Refused as no:
        raise StoreUnavailable(
            f"{path.name}: expected a plain file with one name, found otherwise: {no.reason}",
            hint="a copy under another name would survive: remove it, or give the catalog the real file",
        ) from None


def _one_name(fd: int) -> None:
    now = os.fstat(fd)
    if not stat.S_ISREG(now.st_mode):
        raise Refused("it is not a regular file")
    if now.st_nlink > 1:
        raise NotAlone(f"the file has {now.st_nlink} names (hard links)")


# ---------------------------------------------------------------- what the kernel says about a file

_FIEMAP, _FIEMAP_SYNC, _LAST = 0xC020660B, 1, 1
_UNFIT = {
    0x2: "their place is unknown",
    0x4: "they have no place on disk yet",
    0x8: "they are stored encoded (compressed)",
    0x80: "they are stored encrypted by the file system",
    0x200: "they lie inside the inode",  # these two come with 0x100
    0x400: "they share a block with other files",
    0x100: "they are not aligned to blocks",
    0x2000: "they are shared with a snapshot or a clone",
}
_FLAGS_IOCTL = 0x80086601  # FS_IOC_GETFLAGS
_INODE_FLAGS = {
    0x10: "it is immutable",
    0x20: "it is append-only",
    0x4000: "its data goes through the journal",
    0x100000: "it is sealed (fs-verity)",
}
_OVERWRITABLE = ("ext4", "xfs")
_COPYING = ("btrfs", "zfs", "bcachefs")  # also without data CoW: a snapshot brings it back
_EXT4 = Path("/proc/fs/ext4")
_VIRTUAL = ("QEMU", "VMware", "Msft", "VBOX", "Xen", "Google", "Amazon", "LIO-ORG", "VIRTUAL")


def judge(fd: int, leased: bool, folder: Path) -> tuple[Medium | None, str]:
    """The medium of a file we are alone with, or None and the reason why it refuses; `folder` takes the probe."""
    try:
        if not leased:
            with _lease(fd):
                pass
        return _examine(fd, folder), ""
    except Refused as no:
        return None, no.reason


def _examine(fd: int, folder: Path) -> Medium:
    """Judge file system, inode flags, extents and the probe; the caller is alone with the file."""
    now = os.fstat(fd)
    fs = _file_system(fd)
    if fs in _COPYING:
        raise Refused(f"copy-on-write: the file system {fs} writes elsewhere, so the old blocks keep their bytes")
    if fs not in _OVERWRITABLE:
        raise Refused(f"the file system {fs} is not known to overwrite in place (known: {', '.join(_OVERWRITABLE)})")
    try:
        flags = _inode_flags(fd)
    except OSError:
        raise Refused("the file system does not tell the flags of the file") from None
    for bit, words in _INODE_FLAGS.items():
        if flags & bit:
            raise Refused(f"the file cannot be overwritten in place: {words}")
    if fs == "ext4":
        _not_journalled(now.st_dev)
    try:
        raw = _extents(fd)
    except OSError:
        raise Refused("the file system does not tell where the bytes of the file lie") from None
    if why := _unfit(raw):
        raise Refused(f"the bytes do not lie plainly on blocks of their own: {why}")
    _stays(fd, folder)
    rotational, physical = _device(now.st_dev)
    if rotational and physical:
        claim = (
            f"{fs}, disk: extents of these files overwritten once, flushed, read back, unmoved: partial sanitization"
        )
    else:
        claim = f"{fs}, {'virtual device' if not physical else 'flash'}: logical overwrite of addressable blocks"
    return Medium(fs, os.fstatvfs(fd).f_bsize, _merged(raw), rotational, claim)


def _inode_flags(fd: int) -> int:
    flags = bytearray(8)
    fcntl.ioctl(fd, _FLAGS_IOCTL, flags)
    return int.from_bytes(flags, "little")


def _unfit(raw: Sequence[tuple[int, int, int, int]]) -> str:
    """Why bytes on these extents cannot be reached by overwriting them, "" if they can."""
    return next((words for *_, bits in raw for bit, words in _UNFIT.items() if bits & bit), "")


def _extents(fd: int) -> list[tuple[int, int, int, int]]:
    """Ask the kernel (FIEMAP) for (logical, physical, length, flags) of every extent, flushing first."""
    found: list[tuple[int, int, int, int]] = []
    start = 0
    while True:
        buf = bytearray(32 + 56 * 256)
        struct.pack_into("=QQLLLL", buf, 0, start, 2**64 - 1 - start, _FIEMAP_SYNC, 0, 256, 0)
        fcntl.ioctl(fd, _FIEMAP, buf)
        n = struct.unpack_from("=L", buf, 20)[0]
        page = [struct.unpack_from("=QQQQQL", buf, 32 + 56 * i) for i in range(n)]
        found += [(p[0], p[1], p[2], p[5]) for p in page]
        if not n or found[-1][3] & _LAST:
            return found
        start = found[-1][0] + found[-1][2]


def _merged(raw: Sequence[tuple[int, int, int, int]]) -> Extents:
    """Join neighbours into runs and forget the flags: unwritten tails become written when we write them."""
    runs: list[tuple[int, int, int]] = []
    for logical, physical, length, _ in raw:
        if runs and runs[-1][0] + runs[-1][2] == logical and runs[-1][1] + runs[-1][2] == physical:
            runs[-1] = (runs[-1][0], runs[-1][1], runs[-1][2] + length)
        else:
            runs.append((logical, physical, length))
    return tuple(runs)


def runs(fd: int, end: int) -> Extents:
    """Where the bytes before `end` lie now, neighbouring extents merged."""
    return within(_merged(_extents(fd)), end)


def within(extents: Extents, end: int) -> Extents:
    """The part of the runs before `end`: room reserved after it was never ours."""
    return tuple((a, b, min(c, end - a)) for a, b, c in extents if a < end)


# ---------------------------------------------------------------- the probe

_PROBE = 4 * 4096  # bytes; more than any inode keeps inside
_PROBED: dict[tuple[int, int], bool] = {}  # per device and file system id: whether the probe moved


def _stays(fd: int, folder: Path) -> None:
    """Raise Refused unless a probe on the file system of the open file, in `folder`, is overwritten where it lies.

    Asked once per process and file system: copying is a property of the whole of it, as directories cannot set it on
    those we know. What hindered the probe may pass, so it is not remembered.
    """
    key = (os.fstat(fd).st_dev, os.fstatvfs(fd).f_fsid)
    if key not in _PROBED:
        try:
            _PROBED[key] = _moves(folder, key[0])
        except OSError as broken:
            raise Refused(
                "it could not be tried whether the file system overwrites in place: "
                f"{os.strerror(broken.errno or errno.EIO).lower()}"
            ) from None
    if _PROBED[key]:
        raise Refused("copy-on-write: the probe's extents moved")


def _moves(folder: Path, dev: int) -> bool:
    """Write a few random blocks to a file without a name, overwrite them, and say whether they lie elsewhere then."""
    fd = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(fd).st_dev != dev:
            raise Refused("it could not be tried whether the file system overwrites in place: its folder is on another")
        places = []
        for _ in range(2):
            if os.pwrite(fd, os.urandom(_PROBE), 0) != _PROBE:
                raise OSError(errno.ENOSPC, "the probe found no room")
            os.fsync(fd)
            raw = _extents(fd)
            lies = within(_merged(raw), _PROBE)
            if why := _unfit(raw) or ("" if sum(n for *_, n in lies) == _PROBE else "their place is not told whole"):
                raise Refused(f"the bytes of a probe do not lie plainly on blocks of their own: {why}")
            places.append(lies)
        return places[0] != places[1]
    finally:
        os.close(fd)


# ---------------------------------------------------------------- file system and device


def _file_system(fd: int) -> str:
    """The type of the file system that the open file was reached through, as the kernel's mount table names it.

    Found by mount id: the device number of a file is not always that of its mount (btrfs subvolumes, overlays).
    """
    with contextlib.suppress(OSError, ValueError):  # no /proc, or one that does not tell
        told = Path(f"/proc/self/fdinfo/{fd}").read_text(encoding="ascii").split()
        mount = told[told.index("mnt_id:") + 1]
        for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            left, _, right = line.partition(" - ")
            if left.split()[0] == mount:
                return right.split()[0]
    return "unknown"


def _not_journalled(dev: int) -> None:
    """Raise Refused unless the kernel shows that this ext4 does not journal data (the mount table does not)."""
    name = _block(dev).name
    try:
        options = (_EXT4 / name / "options").read_text(encoding="utf-8").split()
    except OSError:
        raise Refused("the system does not tell whether this ext4 journals data") from None
    if "data=journal" in options:
        raise Refused("this ext4 writes all data through its journal (data=journal), where a copy stays")


def device_of(dev: int) -> Path | None:
    """The node of the block device that a file system lies on; None where there is none that is it."""
    node = Path("/dev") / _block(dev).name
    with contextlib.suppress(OSError):
        now = node.stat()
        if stat.S_ISBLK(now.st_mode) and now.st_rdev == dev:
            return node
    return None


def _device(dev: int) -> tuple[bool | None, bool]:
    """Return (rotational or None if unknown, whether it looks like a disk of its own)."""
    block = _block(dev)
    disk = block if (block / "queue").is_dir() else block.parent  # a partition lies in its disk's folder
    rotational: bool | None = None
    vendor = "VIRTUAL"  # a device without a vendor is none that we could touch
    with contextlib.suppress(OSError):
        rotational = (disk / "queue/rotational").read_text(encoding="ascii").strip() == "1"
        vendor = (disk / "device/vendor").read_text(encoding="ascii", errors="replace").strip()
    physical = disk.name.startswith(("sd", "hd")) and not any(v.lower() in vendor.lower() for v in _VIRTUAL)
    return rotational, physical


def _block(dev: int) -> Path:
    return Path(f"/sys/dev/block/{os.major(dev)}:{os.minor(dev)}").resolve()

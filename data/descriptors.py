"""Reading files that this process may hold locks on.

POSIX locks end when their process closes *any* descriptor of the file, whoever opened it and why (fcntl(2)). SQLite and
DuckDB hold such locks on what they have open: after a plain open, read, close of a database that is in use here,
another process may take its last connection to be the last of all and remove the write-ahead log; what is committed
here from then on is lost without an error. Whoever reads such files as bytes opens and closes them here.

* A descriptor whose file is locked by this process is kept instead of closed, and handed out when the same file is
  read again; it is closed once the lock has gone. So there are as many as files in use were ever read at one time.
* The kernel is asked about locks just before the descriptor is closed. Another thread could take one between the two
  calls, so a database, or the index of its log, that this process has open elsewhere is kept as well, locked or not.
  Only a thread that opens *and* locks one just then, within some 0.1 ms, is not seen.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FLOCK = struct.Struct("@hhqqi4x")  # l_type, l_whence, l_start, l_len, l_pid: Linux on 64 bits
_READING = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_POPULATE = 22  # MADV_POPULATE_READ, Linux 5.14
_FAILED = ctypes.c_void_p(-1).value
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_kept: dict[tuple[int, int], list[int]] = {}  # by device and inode
_turn = threading.RLock()


@contextmanager
def reading(path: Path) -> Iterator[int]:
    """A descriptor of a file for reading at any place (`os.pread`): its position is nobody's. OSError as `os.open`."""
    fd = _known(path)
    if fd is None:
        fd = os.open(path, _READING)
    try:
        yield fd
    finally:
        _shut(fd)


def mapped(path: Path, unit: int) -> memoryview:
    """The whole units of a file, in memory that is shared with it for as long as anything looks at it.

    Without a descriptor of its own, as `mmap.mmap` has one and closes it. OSError if it cannot be mapped, ValueError
    if there is no whole unit.
    """
    with reading(path) as fd:
        size = os.fstat(fd).st_size // unit * unit
        if not size:
            raise ValueError("nothing to map")
        address = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
    if address == _FAILED:
        raise OSError(ctypes.get_errno(), "cannot be mapped")
    memory = (ctypes.c_ubyte * size).from_address(address)
    weakref.finalize(memory, _libc.munmap, ctypes.c_void_p(address), ctypes.c_size_t(size)).atexit = False
    _libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(size), _POPULATE)  # an older kernel maps as it is read
    return memoryview(memory).cast("B").toreadonly()


def _known(path: Path) -> int | None:
    if not _kept:
        return None
    with _turn:
        same = _kept.get(_inode(os.lstat(path)))
        return same.pop() if same else None


def let_go() -> None:
    """Close what was kept and need not be any more; whoever wants a file for itself asks for that first."""
    if not _kept:
        return
    with _turn:
        for inode, same in list(_kept.items()):
            for one in [one for one in same if not (_locked(one) or _kept_for(one))]:
                same.remove(one)
                os.close(one)
            if not same:
                del _kept[inode]


def _shut(fd: int) -> None:
    let_go()
    with _turn:
        if _kept_for(fd):
            _kept.setdefault(_inode(os.fstat(fd)), []).append(fd)
        else:
            os.close(fd)


def _kept_for(fd: int) -> bool:
    """Whether a lock of this process may end with this descriptor; the lock is asked for last, just before closing."""
    return (_lockable(fd) and _elsewhere(fd)) or _locked(fd)


def _lockable(fd: int) -> bool:
    """Whether an engine locks such a file: a database of SQLite or DuckDB, the index of a log, or one that begins."""
    try:
        head = os.pread(fd, 16, 0)
    except OSError:  # a folder, or a device that does not answer
        return False
    return not head or head.startswith((b"SQLite format 3\0", _SHM)) or head[8:12] == b"DUCK"


_SHM = struct.pack("=I", 3_007_000)  # https://www.sqlite.org/walformat.html#the_wal_index_file_format


def _locked(fd: int) -> bool:
    """Whether this process may hold a POSIX lock on the file; an open file description asks, so that all are alien."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        kind, *_, owner = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))
    except OSError:  # a file system that does not tell
        kind, owner = fcntl.F_WRLCK, 0
    if kind == fcntl.F_UNLCK or owner == os.getpid():
        return bool(kind != fcntl.F_UNLCK)
    # Somebody else's lock was told, which may hide ours: and ours needs another descriptor of the file in this process.
    return _elsewhere(fd)


def _elsewhere(fd: int) -> bool:
    """Whether this process has the file open besides here."""
    inode = _inode(os.fstat(fd))
    ours = {fd, *_kept.get(inode, ())}
    others = (int(one.name) for one in Path("/proc/self/fd").iterdir())
    return any(_opened(number) == inode for number in others if number not in ours)


def _opened(fd: int) -> tuple[int, int] | None:
    try:
        return _inode(os.fstat(fd))
    except OSError:  # the list's own, or one that has been closed since
        return None


def _inode(seen: os.stat_result) -> tuple[int, int]:
    return seen.st_dev, seen.st_ino

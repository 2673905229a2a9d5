"""Who else has keys of this vault in memory: a lease per open vault, waited for before a destroy takes effect.

Whoever caches a root or inner pages takes a file `leases/<number>` that nobody else has locked, with the generation
that is cached and an expiry on CLOCK_BOOTTIME (which counts suspended time); the lock dies with the process. It
drops its caches when the lease ends, or when it sees that the generation has moved on: at its next read, or soon.

* Files stay when nobody has them, so that whoever lists the folder (a scan, a backup) finds what was listed.
* Record: `g u64 ‖ expiry in ns u64`, little endian, written in one piece; all zero = nothing cached.
* Other vaults opened by the writer's own process are told directly.
* The lock is of the descriptor (flock): whoever reads the file and closes it again, a scan, leaves it alone. A forked
  child closes what it inherited, and starts with empty caches and a lease of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

FOLDER = "leases"
LENGTH = 30.0  # seconds a cache may live without being looked after
LOOK = 0.25  # seconds between two looks at the generation of an idle process
RECORD = struct.Struct("<QQ")
_register: weakref.WeakSet[Lease] = weakref.WeakSet()


class Lease:
    """What one open vault says about its caches. `moved` tells whether a generation lives no more; `drop` empties."""

    def __init__(self, folder: Path, *, moved: Callable[[int], bool], drop: Callable[[], None]) -> None:
        self._folder = str(folder / FOLDER)
        self._moved, self._drop = moved, drop
        self._mutex = threading.RLock()
        self._fd = -1
        self._pid = 0
        self._said = (0, 0)
        self._watch: threading.Thread | None = None
        self._busy = 0
        self._finalizer: weakref.finalize[..., Lease] | None = None

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """While a read is under way its keys are in use, and no look may say that they were dropped."""
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1

    def hold(self, generation: int) -> None:
        """Say that keys of a generation are about to be cached; renewed when half of the time has gone."""
        ends = _now() + int(LENGTH * 1e9)
        if self._pid == os.getpid() and self._said[0] == generation and ends - self._said[1] < int(LENGTH * 5e8):
            return
        with self._mutex:
            if self._pid != os.getpid():
                self._begin()
            self._say(generation, ends)
            if self._watch is None or not self._watch.is_alive():
                self._watch = threading.Thread(target=_watch, args=(weakref.ref(self),), name="lease", daemon=True)
                self._watch.start()

    def release(self) -> None:
        """Say that nothing is cached any more."""
        with self._mutex:
            if self._pid == os.getpid() and self._said != (0, 0):
                self._say(0, 0)

    def close(self) -> None:
        """Give the lease up."""
        with self._mutex:
            if self._finalizer is not None:
                self._finalizer()
            self._fd, self._pid, self._said = -1, 0, (0, 0)

    def look(self) -> bool:
        """Drop the caches if their time has gone or their generation lives no more; whether anything is cached."""
        with self._mutex:
            generation, ends = self._said
            if self._pid != os.getpid() or not generation:
                return False
            if not self._busy and (_now() >= ends or self._moved(generation)):
                self._drop()
                self._say(0, 0)
                return False
            return True

    def wait(self, generation: int) -> None:
        """Return when nobody has keys of an older generation cached: dropped, process dead, or the time has ended."""
        pid = os.getpid()
        mine = [one for one in list(_register) if one._pid == pid and one._folder == self._folder]
        for one in mine:
            while not one._quiet(generation):
                time.sleep(0.001)
        names = os.listdir(self._folder) if mine or os.path.isdir(self._folder) else []  # noqa: PTH112, PTH208  # in every batch
        for path in (f"{self._folder}/{name}" for name in names if name.isdecimal()):
            while not _over(path, generation):
                time.sleep(0.001)

    def _quiet(self, generation: int) -> bool:
        with self._mutex:
            cached, ends = self._said
            if not cached or cached >= generation or _now() >= ends:
                return True
            if self._busy:
                return False
            self._drop()
            self._say(0, 0)
            return True

    def _begin(self) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._folder, 0o700)  # noqa: PTH102
        self._fd = next(fd for n in count() if (fd := _take(f"{self._folder}/{n}")) is not None)
        self._pid, self._watch, self._said = os.getpid(), None, (0, 0)
        self._finalizer = weakref.finalize(self, _give_up, self._fd, self._pid)
        _register.add(self)

    def _say(self, generation: int, ends: int) -> None:
        os.pwrite(self._fd, RECORD.pack(generation, ends), 0)
        self._said = (generation, ends)


def _over(path: str, generation: int) -> bool:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        said = os.pread(fd, RECORD.size, 0)
        if len(said) < RECORD.size:  # it is just beginning, and will find the new generation
            return True
        cached, ends = RECORD.unpack(said)
        if cached >= generation or not cached or _now() >= ends:
            return True
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True  # its process is dead
    finally:
        os.close(fd)


def _take(path: str) -> int | None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    os.pwrite(fd, RECORD.pack(0, 0), 0)
    return fd


def _give_up(fd: int, pid: int) -> None:
    # Also of an opening that nobody closed: it was forgotten, and its caches with it.
    if pid == os.getpid():
        os.pwrite(fd, RECORD.pack(0, 0), 0)
        os.close(fd)


def _forked() -> None:
    # What a parent has is the parent's: an inherited descriptor would hold its lock after its death.
    for one in list(_register):
        if one._fd >= 0:
            os.close(one._fd)
            one._fd = -1


os.register_at_fork(after_in_child=_forked)


def _watch(lease: weakref.ref[Lease]) -> None:
    # Ends when nothing is cached; `hold` starts another.
    while True:
        time.sleep(LOOK)
        one = lease()
        if one is None:
            return
        with contextlib.suppress(Exception):  # an anchor that is away: the expiry still bounds it
            if not one.look():
                return
        del one


def _now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

"""The free space of a file system: opt-in work for copies that an engine freed before anybody could hold them.

Two kinds of work, neither of which is ever done unless somebody asked for it by name:

* `fill` writes a keystream into all free blocks but the headroom, flushes, gives them back, and does it again.
* `discard` asks the device to forget its free blocks. What the device makes of that nobody can tell, so it is reported
  as a request, never as proof.

The file that fills has no name: a kill or a power cut gives the room back by itself. While it grows, the room that is
left is looked at before every write; where others need it, filling stops and gives everything back at once.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import secrets
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fangxin.data.errors import NotAllowed, StoreUnavailable

HEADROOM = 64 << 20  # bytes left to others at least; or a hundredth of the file system where that is more
ROUNDS = 2  # after one round on a journalling file system something was still found (docs/limits.md)
_CHUNK, _BLOCK = 4 << 20, 4096
_FLUSH = 64 << 20  # bytes between two flushes: others' writes do not wait behind more than that
_FITRIM = 0xC0185879


@dataclass(frozen=True)
class Filled:
    """What filling reached: bytes written in each round, bytes that were left free, and why it stopped early."""

    written: tuple[int, ...]
    left: int
    stopped: str  # "" where only the headroom was left

    @property
    def claim(self) -> str:
        """What may be said of it, in a printed sentence."""
        rounds = " and ".join(f"{n:,}" for n in self.written)
        short = f"; stopped early: {self.stopped}" if self.stopped else ""
        return (
            f"free space overwritten in {len(self.written)} rounds of {rounds} bytes; not reached: {self.left:,} bytes "
            f"left to others, names, the file system's journal, spare cells{short}"
        )


def fill(folder: Path, *, headroom: int | None = None, progress: Callable[[int], None] | None = None) -> Filled:
    """Overwrite the free blocks of the file system that a folder lies on, but for the headroom (bytes).

    `progress` is told the bytes written so far in a round. NotAllowed unless root: some blocks are kept for root, and
    would stay as they are. StoreUnavailable if the file system takes no file without a name.
    """
    if os.geteuid() != 0:
        raise NotAllowed("filling free space needs root", hint="others do not get all free blocks; run it as root")
    space = os.statvfs(folder)
    room = max(HEADROOM, space.f_blocks * space.f_frsize // 100) if headroom is None else headroom
    written: list[int] = []
    left, stopped = 0, ""
    while len(written) < ROUNDS and not stopped:
        _sync(folder)  # blocks that were freed a moment ago can be had only after the journal has said so
        size, left, stopped = _round(folder, room, progress)
        written.append(size)
    _sync(folder)
    return Filled(tuple(written), left, stopped)


def _round(folder: Path, room: int, tell: Callable[[int], None] | None) -> tuple[int, int, str]:
    """Fill once; bytes written, bytes that stayed free, and why it ended before the headroom was reached."""
    stream = Cipher(algorithms.AES(secrets.token_bytes(32)), modes.CTR(bytes(16))).encryptor()
    zeros = memoryview(bytes(_CHUNK))
    try:
        fd = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as refused:
        raise StoreUnavailable(
            f"{folder.name}: expected a file system that takes a file without a name, found: "
            f"{os.strerror(refused.errno or errno.EIO).lower()}",
            hint="its free space cannot be filled safely; use the device's own means",
        ) from None
    size, unflushed, most = 0, 0, _CHUNK
    try:
        while most >= _BLOCK and (spare := _free(folder) - room) >= _BLOCK:
            try:
                took = os.write(fd, stream.update(zeros[: min(most, spare // _BLOCK * _BLOCK)]))
            except OSError as full:
                if full.errno != errno.ENOSPC:
                    raise
                most //= 2  # the last ones come one by one
                continue
            size, unflushed = size + took, unflushed + took
            if unflushed >= _FLUSH:
                os.fsync(fd)
                unflushed = 0
                if tell is not None:
                    tell(size)
        os.fsync(fd)
        left = _free(folder)
        return size, left, "others needed the room" if left < room // 2 else ""
    finally:
        os.close(fd)  # the blocks are free again


def _free(folder: Path) -> int:
    space = os.statvfs(folder)
    return space.f_bfree * space.f_frsize


def _sync(folder: Path) -> None:
    """Flush this file system and no other: sync() of everything waits for whatever the whole machine writes."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd):
            raise OSError(ctypes.get_errno(), f"{folder.name} was not flushed")
    finally:
        os.close(fd)


def discard(folder: Path) -> int:
    """Ask the device to forget the free blocks of the file system that a folder lies on; bytes that it was asked for.

    A request, and no proof. StoreUnavailable where the file system or the device does not take it.
    """
    _sync(folder)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        asked = bytearray(struct.pack("=QQQ", 0, 2**64 - 1, 0))
        fcntl.ioctl(fd, _FITRIM, asked)
        return int(struct.unpack_from("=Q", asked, 8)[0])
    except OSError as refused:
        raise StoreUnavailable(
            f"{folder.name}: expected a device that takes discards, found: "
            f"{os.strerror(refused.errno or errno.EIO).lower()}",
            hint="fill the free space instead, or use the device's own means",
        ) from None
    finally:
        os.close(fd)

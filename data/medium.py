"""Destroying the bytes of one file where they lie.

Deleting is bookkeeping: bytes die when their *old extents* are overwritten and flushed.

* One pass of a keystream (AES-256-CTR, fresh seed, counter = offset / 16), whole blocks, fsync, read back, and the
  extents must not have moved. Overwriting files is partial sanitisation, never more than that.
* Nothing is overwritten before the medium was examined: another name, another reader, shared or journalled or
  copy-on-write bytes are refused, with the reason in a sentence that is printed.
* Where the block device may be read, the stream is looked for there too, at the old extents: that asks neither the
  file nor the page cache.
* Not reached, ever: spare and remapped cells, host snapshots, file names, blocks a file gave back earlier.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fangxin.data import extents
from fangxin.data.extents import Extents, Moved, alone, examine, judge
from fangxin.data.vocabulary import Destruction

PATIENCE = 1.0  # seconds we wait for somebody else to close a file
CHUNK = 1 << 20


def why_not(path: Path) -> str:
    """Say why the bytes of a unit cannot be overwritten, "" if they can; changes nothing.

    Raises StoreUnavailable if it is no plain file of one name, or somebody keeps it open.
    """
    with alone(path, patience=PATIENCE) as (fd, leased):
        return judge(fd, leased, path.parent)[1]


def destroy(path: Path) -> Destruction:
    """Overwrite the bytes of a file where they lie, read them back, then truncate and unlink it.

    Raises Refused before the first byte changes, Moved if the blocks moved meanwhile (the file then stays), OSError
    if the device fails: in none of these is there a Destruction.
    """
    done = overwrite(path)
    drop(path)
    return done


def overwrite(path: Path) -> Destruction:
    """Overwrite, flush, read back and compare extents; the file keeps its name."""
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        before = examine(fd, path.parent)
        now = os.fstat(fd)
        end = -(-now.st_size // before.block) * before.block  # whole blocks: the slack after the end too
        old = extents.within(before.extents, end)
        seed = secrets.token_bytes(32)
        for offset, chunk in _keystream(seed, old):
            _write_all(fd, chunk, offset)
        os.fsync(fd)  # an error is final: nothing is retried on this pass and called good
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # else we read our own cache
        for offset, chunk in _keystream(seed, old):
            if os.pread(fd, len(chunk), offset) != chunk:
                raise OSError(errno.EIO, "what was read back is not what was written")
        if extents.runs(fd, end) != old:
            raise Moved(
                "the file system moved the blocks while they were overwritten, so the old ones keep their bytes"
            )
        overwritten = sum(length for _, _, length in old)
        done = Destruction(now.st_dev, now.st_ino, now.st_size, overwritten, seed.hex(), old, before.fs)
        return replace(done, on_device=on_device(done))
    finally:
        os.close(fd)


def drop(path: Path, *, truncate: bool = True) -> None:
    """Unlink a file, and truncate it first once its bytes are destroyed; nothing if it is gone."""
    with contextlib.suppress(FileNotFoundError):
        if truncate:
            fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.ftruncate(fd, 0)
                os.fsync(fd)
            finally:
                os.close(fd)
        path.unlink()
        sync_dir(path.parent)


def on_device(done: Destruction, device: Path | None = None) -> int:
    """Look for the stream of a destruction in its old extents on the block device; bytes found, 0 if not permitted.

    `device` is given where it is not the device that the file lay on (an image of it). Raises Moved if there are other
    bytes: either the blocks were not those of the file, or they have been given to another file since.
    """
    place = extents.device_of(done.dev) if device is None else device
    try:
        fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC | (os.O_DIRECT if device is None else 0)) if place else -1
    except OSError:
        return 0
    if fd < 0:
        return 0
    try:
        with mmap.mmap(-1, CHUNK) as page:  # what is read directly goes to whole pages
            for logical, physical, length in done.extents:
                for offset, chunk in _keystream(bytes.fromhex(done.seed), ((logical, physical, length),)):
                    with memoryview(page)[: len(chunk)] as view:
                        same = os.preadv(fd, [view], physical + offset - logical) == len(chunk) and view == chunk
                    if not same:
                        raise Moved("the block device holds other bytes at the old place of the file")
        return sum(length for _, _, length in done.extents)
    except OSError:
        return 0  # the device does not let us read so
    finally:
        os.close(fd)


def _keystream(seed: bytes, extents: Extents) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, bytes) over the extents: AES-256-CTR with the counter at offset / 16, regenerated at will."""
    zeros = memoryview(bytes(CHUNK))
    for logical, _, length in extents:
        stream = Cipher(algorithms.AES(seed), modes.CTR((logical // 16).to_bytes(16, "big"))).encryptor()
        for offset in range(logical, logical + length, CHUNK):
            yield offset, stream.update(zeros[: min(CHUNK, logical + length - offset)])


def _write_all(fd: int, chunk: bytes, offset: int) -> None:
    view = memoryview(chunk)
    while view:
        n = os.pwrite(fd, view, offset)
        if n <= 0:
            raise OSError(errno.EIO, "the device took nothing")
        view, offset = view[n:], offset + n


def sync_dir(path: Path) -> None:
    """Flush the names in a folder: what was linked, renamed or unlinked there survives a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

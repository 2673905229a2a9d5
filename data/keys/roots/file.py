"""A root share in a file of 8 KiB: two records, each alone in its own block, written in place and never renamed.

Record (80 bytes at offset 0 or 4096): `FXR1 ‖ version 1 ‖ half 1 ‖ 00 00 ‖ g u64 ‖ tree_id 16 ‖ share 32 ‖
SHA-256 of the 64 bytes before, first 16`, integers little endian, the rest of the block noise.

* A new generation goes into the block that does not live; the old block is then overwritten.
* Two valid records mean an interruption after the commit: the highest lives, and retiring finishes the job.
* A torn record is not a commit, but it may show a share: a block that is neither the living record nor a
  wiped block is wiped again. What wipes: `key 32 ‖ AES-256-GCM of 4048 zeros under it, nonce zero ‖ tag 16`, which
  nobody can tell from chance, and which says of itself that it is whole.
* What an overwrite achieves depends on the medium, so the claim is read off the medium, never assumed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fangxin.data.errors import NotAllowed, RootUnreachable
from fangxin.data.keys.roots.protocol import SHARE, TREE_ID, Claim, Living, RootDamaged, RootGone, RootReceipt

BLOCK = 4096
WRITING = os.O_RDWR | os.O_DSYNC
RECORD = struct.Struct("<4sBBHQ16s32s16s")
MAGIC = b"FXR1"
IN_PLACE = frozenset({"ext2", "ext3", "ext4"})
LOOK = 1.0  # seconds for which a look at the medium counts: a batch asks twice
PATIENCE = 200  # looks at a file whose writer is between two blocks, 1 ms apart


class FileRoot:
    """A share in a file; as anchor it is also the commit point. One per vault may be the anchor.

    `backup_sets` are folders that are known to be copied away; a root inside one claims nothing, nor does one of which
    nobody has said what is copied (None).
    """

    def __init__(self, path: Path, *, name: str = "file", backup_sets: Sequence[Path] | None = None) -> None:
        self.path, self._file = path, str(path)
        self.name = name
        self.backup_sets = None if backup_sets is None else tuple(backup_sets)
        self._judged: tuple[float, Claim] | None = None
        self._known: tuple[bytes, _Both] = b"", (None, None)  # what was read last, and what it says
        self._noise = b""  # what this one wipes blocks with

    def generations(self) -> tuple[int, ...]:
        """Every generation with a valid record, ascending; none where there is no file."""
        return tuple(sorted(record.generation for record in self._records() if record))

    def get(self, generation: int) -> bytes:
        """The share of that generation, or RootGone."""
        for record in self._records():
            if record and record.generation == generation:
                return record.share
        raise RootGone(f"holder {self.name} keeps no share of generation {generation}")

    def put(self, generation: int, share: bytes) -> None:
        """Keep a share beside the living one. On an anchor the higher number lives, so the tree uses `commit`."""
        self._write(generation, share, 0, bytes(TREE_ID))

    def living(self) -> Living:
        """What the highest valid record says."""
        return self._highest(self._records())

    def _highest(self, records: _Both) -> Living:
        highest = max(filter(None, records), default=None)
        if highest is None:
            raise RootGone(f"holder {self.name} has never held a root")
        return Living(highest.generation, highest.half, highest.tree_id)

    def commit(self, generation: int, share: bytes, half: int, tree_id: bytes) -> None:
        """Write the record that makes a generation the living one; it is on the medium when this returns."""
        self._write(generation, share, half, tree_id)

    def retire(self, *, keep: int) -> RootReceipt:
        """Overwrite every block that does not hold `keep`; a block already wiped is left alone."""
        fd = self._open(WRITING)
        try:
            both = self._read(fd)
            return self._keep(fd, keep, (both, self._said(both)))
        finally:
            _close(fd)

    def settle(self) -> tuple[Living, RootReceipt]:
        """`living` and `retire` after one look."""
        fd = self._open(WRITING)
        try:
            seen = self._look(fd)
            living = self._highest(seen[1])
            return living, self._keep(fd, living.generation, seen)
        finally:
            _close(fd)

    def _keep(self, fd: int, keep: int, seen: _Seen) -> RootReceipt:
        both, records = seen
        if not any(record and record.generation == keep for record in records):
            raise RootGone(f"holder {self.name} keeps no share of generation {keep}")
        retired: list[int] = []
        for number, record in enumerate(records):
            if record and record.generation == keep:
                continue
            block = both[number * BLOCK : (number + 1) * BLOCK]
            if record is None and (block == self._noise or _wiped(block)):
                continue
            self._noise = self._noise or _fresh()
            seen = self._put(fd, number, self._noise, None, seen)
            if record:
                retired.append(record.generation)
        return RootReceipt(self.name, keep, tuple(retired), self.claim())

    def claim(self) -> Claim:
        """What overwriting this file is worth on the medium it lies on now."""
        now = time.monotonic()
        if self._judged is None or now - self._judged[0] > LOOK:
            self._judged = now, claim_of(self.path, self.backup_sets)
        return self._judged[1]

    def _write(self, generation: int, share: bytes, half: int, tree_id: bytes) -> None:
        if len(share) != SHARE or len(tree_id) != TREE_ID or half not in (0, 1) or not 0 < generation < 2**64:
            raise NotAllowed(
                f"not a root record for holder {self.name}: a share of {len(share)} bytes, half {half}",
                hint="a share has 32 bytes, a tree id 16, half is 0 or 1, generations count from 1",
            )
        fd = self._open(WRITING)
        try:
            self._add(fd, _Record(generation, half, tree_id, share), self._look(fd))
        finally:
            _close(fd)

    def _add(self, fd: int, new: _Record, seen: _Seen) -> None:
        head = RECORD.pack(MAGIC, 1, new.half, 0, new.generation, new.tree_id, new.share, bytes(16))[:-16]
        said = head + hashlib.sha256(head).digest()[:16]
        both, records = seen
        if not any(records):
            self._found(said + _fresh()[RECORD.size :])
            return
        for record in records:
            if record and record.generation == new.generation:
                if record == new:
                    return
                raise NotAllowed(f"holder {self.name} already keeps another share of generation {new.generation}")
        if all(records):
            raise NotAllowed(
                f"holder {self.name} keeps two generations already",
                hint="settle first: the one that does not live must be retired",
            )
        number = 1 if records[0] else 0
        rest = both[number * BLOCK + RECORD.size : (number + 1) * BLOCK]  # of what wiped it
        if len(said + rest) < BLOCK:
            rest = _fresh()[RECORD.size :]
        self._put(fd, number, said + rest, new, seen)

    def _found(self, block: bytes) -> None:
        # The very first record appears with its file or not at all: there is no older share a rename could leave.
        start = self.path.with_name(self.path.name + ".new")
        with contextlib.suppress(FileNotFoundError):
            start.unlink()
        fd = os.open(start, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, block + _fresh())
            os.fsync(fd)
        finally:
            os.close(fd)
        start.rename(self.path)
        sync_folder(self.path.parent)

    def _put(self, fd: int, number: int, block: bytes, record: _Record | None, seen: _Seen) -> _Seen:
        """Write one block; what is known of both from then on: what was seen, and what was written."""
        both, (first, second) = seen
        self._known = b"", (None, None)  # no copy of a share that is about to be overwritten
        try:
            _put_block(fd, number, block)
        except OSError as cause:
            raise self._unusable(cause) from cause
        now = (both[:BLOCK] + block, (first, record)) if number else (block + both[BLOCK:], (record, second))
        self._known = now
        return now

    def _unusable(self, cause: OSError) -> RootUnreachable:
        return RootUnreachable(
            f"holder {self.name} cannot use its root file: {os.strerror(cause.errno or 0)}",
            hint="the root is a plain file of its own that this user may read and write",
        )

    def _open(self, flags: int) -> int:
        """A descriptor of the file; -1 where there is none."""
        try:
            return os.open(self._file, flags | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return -1
        except OSError as cause:
            raise self._unusable(cause) from cause

    def _read(self, given: int = -1) -> bytes:
        """Both blocks, one after the other; empty where there is no file."""
        if (fd := self._open(os.O_RDONLY) if given < 0 else given) < 0:
            return b""
        try:
            return os.pread(fd, 2 * BLOCK, 0)
        except OSError as cause:
            raise self._unusable(cause) from cause
        finally:
            if fd != given:
                os.close(fd)

    def _said(self, both: bytes) -> _Both:
        # A batch looks at the same two blocks again and again; threads may look at the same time.
        known = self._known
        if both != known[0]:
            self._known = known = both, (_parse(both, 0), _parse(both, BLOCK))
        return known[1]

    def _records(self) -> _Both:
        return self._look()[1]

    def _look(self, fd: int = -1) -> _Seen:
        # A reader may see one block before and the other after a writer: then none is valid, and it looks again.
        for _ in range(PATIENCE):
            both = self._read(fd)
            records = self._said(both)
            if any(records):
                return both, records
            if not both and not self.path.exists():
                return both, (None, None)
            time.sleep(0.001)
        raise RootDamaged(
            f"holder {self.name} has a root file without a valid record",
            hint="bring back the file itself; a root exists nowhere else, and without it no key can be opened",
        )


def claim_of(path: Path, backup_sets: Sequence[Path] | None = None) -> Claim:
    """What overwriting a file in place is worth: read from its mount, the disk's flags and the backup sets."""
    real = path.resolve()
    if any(real.is_relative_to(folder.resolve()) for folder in backup_sets or ()):
        return Claim("best-effort", "no", ("inside-backup-set",))
    fs, options, device = _mount_of(real)
    against: list[str] = []
    if fs not in IN_PLACE:
        against.append("copying-filesystem" if fs else "unknown-medium")
    elif "data=journal" in options:
        against.append("data-journal")
    if not against:
        against += _disk_objections(device)
    if not against and backup_sets is None:
        against.append("backup-sets-unknown")
    if against:
        return Claim("best-effort", "no", tuple(against))
    return Claim("immediate", "if", ("in-place-medium", "outside-backup-sets"))


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class _Record(NamedTuple):
    generation: int
    half: int
    tree_id: bytes
    share: bytes

    def __repr__(self) -> str:
        return f"_Record(generation={self.generation}, half={self.half})"


_Both = tuple[_Record | None, _Record | None]
_Seen = tuple[bytes, _Both]


def _parse(both: bytes, at: int) -> _Record | None:
    end = at + RECORD.size
    if len(both) < end or both[at : at + 4] != MAGIC:
        return None
    _, version, half, zero, generation, tree_id, share, digest = RECORD.unpack_from(both, at)
    if version != 1 or half > 1 or zero or digest != hashlib.sha256(both[at : end - 16]).digest()[:16]:
        return None
    return _Record(generation, half, tree_id, share)


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)


def _fresh() -> bytes:
    # Nobody can tell it from chance, no medium can make it shorter, and it says of itself that it is what it is.
    key = os.urandom(32)
    return key + AESGCM(key).encrypt(bytes(12), bytes(BLOCK - 48), None)


def _wiped(block: bytes) -> bool:
    try:
        return AESGCM(block[:32]).decrypt(bytes(12), block[32:], None) == bytes(BLOCK - 48)
    except (ValueError, InvalidTag):
        return False


def _put_block(fd: int, number: int, block: bytes) -> None:
    # O_DSYNC: the block is on the medium when pwrite returns; then it is read back past the page cache.
    if os.pwrite(fd, block, number * BLOCK) != BLOCK:
        raise RootUnreachable("a block of the root file was written only in part", hint="free space, then repeat")
    os.posix_fadvise(fd, number * BLOCK, BLOCK, os.POSIX_FADV_DONTNEED)
    if os.pread(fd, BLOCK, number * BLOCK) != block:
        raise RootDamaged("a block of the root file reads back otherwise than written", hint="replace the disk")


def _mount_of(path: Path) -> tuple[str, tuple[str, ...], str]:
    """File system, all mount options and `major:minor` of the mount a path lies on; empty where unknown."""
    best: tuple[int, str, tuple[str, ...], str] = (-1, "", (), "")
    real = f"{path}/"
    with contextlib.suppress(OSError), Path("/proc/self/mountinfo").open(encoding="utf-8") as table:
        for line in table:
            left, _, right = line.partition(" - ")
            fields, kind = left.split(), right.split()
            point = fields[4].encode().decode("unicode_escape") if "\\" in fields[4] else fields[4]
            if real.startswith(point.rstrip("/") + "/") and len(point) >= best[0]:
                options = (*fields[5].split(","), *kind[2].split(",")) if len(kind) > 2 else ()
                best = (len(point), kind[0], options, fields[2])
    return best[1:]


def _disk_objections(device: str) -> list[str]:
    disk = Path("/sys/dev/block") / device
    if not disk.exists():
        return ["unknown-medium"]
    if (disk / "dm").exists():
        return ["volume-manager"]
    for place in (disk / "queue", disk.resolve().parent / "queue"):
        flag = place / "rotational"
        if flag.exists():
            return [] if flag.read_text().strip() == "1" else ["solid-state"]
    return ["unknown-medium"]

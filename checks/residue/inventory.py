"""Inventory closure: every inode that held a store's bytes, before and after, and what became of it.

A scan reads the files that are there. What a rewriting shed is not there any more, so it is accounted for by inode:

* each old inode is unchanged (and was scanned again), or was destroyed with evidence, where it lay, in its old size;
* each new one is a unit of the store, and was scanned;
* what is neither is a leftover, and a leftover fails the store.

Where a medium refused to be overwritten, an old inode counts as deleted logically, and the certificate says so. What
other writers did to files in which nobody of the cohort stood, or which were located again afterwards, is counted
apart: bytes that they shed were never ours to destroy. Where somebody of the cohort stood in a file that was replaced,
it is told as freed: what became of its blocks nobody can show.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fangxin.data import extents
from fangxin.data.descriptors import reading
from fangxin.data.errors import FangxinError
from fangxin.data.extents import Extents
from fangxin.data.vocabulary import Destruction

_BLOCK = 1 << 20
_NO_VALUES = ("-shm",)  # SQLite's index of its WAL: locks and page numbers, made and dropped by whoever reads
_SIDE = ("-wal", "-journal", "-shm", ".wal")
_OURS = "/.fangxin-"  # scratches, and the folder in which old files wait to be destroyed


@dataclass(frozen=True)
class Inode:
    """One file as it was: place, what identifies it, content, and where it lay ((): the medium does not say)."""

    place: str
    dev: int
    ino: int
    size: int
    sha256: str
    extents: Extents = ()

    @property
    def key(self) -> tuple[int, int]:
        """What two names of the same bytes have in common."""
        return self.dev, self.ino


@dataclass(frozen=True)
class Inventory:
    """Every inode of some files; `unread` are places whose file was gone or closed to us, with the reason."""

    inodes: tuple[Inode, ...]
    unread: tuple[tuple[str, str], ...] = ()

    def pack(self) -> bytes:
        """As JSON, to be sealed until validation: what a crash must not lose."""
        return json.dumps({"inodes": [asdict(one) for one in self.inodes], "unread": self.unread}).encode()

    @classmethod
    def unpack(cls, body: bytes) -> Inventory:
        """Read back what `pack` wrote."""
        raw = json.loads(body)
        inodes = tuple(Inode(**{**one, "extents": _triples(one["extents"])}) for one in raw["inodes"])
        return cls(inodes, tuple((place, reason) for place, reason in raw["unread"]))


@dataclass(frozen=True)
class Closure:
    """What became of the inodes of one store; it is closed when there is no leftover."""

    unchanged: int = 0
    destroyed: int = 0
    deleted: int = 0  # logically: the medium refused
    new: int = 0
    others: int = 0  # shed or changed by other writers, those that were freed among them
    leftovers: tuple[tuple[str, str], ...] = ()  # place, why
    freed: tuple[str, ...] = ()  # places whose old file, with people in it, somebody else replaced


def take(files: Iterable[tuple[str, Path]]) -> Inventory:
    """Read every regular file once: device, inode, size, SHA-256, extents. Links and folders have no bytes here."""
    found, unread = [], []
    for place, path in files:
        try:
            if not stat.S_ISREG(path.lstat().st_mode):
                continue
            with reading(path) as fd:
                seen, digest = os.fstat(fd), _sha256(fd)
                found.append(Inode(place, seen.st_dev, seen.st_ino, seen.st_size, digest, _extents(fd, seen.st_size)))
        except OSError as error:
            unread.append((place, f"cannot be read ({error.strerror or type(error).__name__})"))
    return Inventory(tuple(found), tuple(unread))


@dataclass(frozen=True)
class Done:
    """What a store says it did, in places: evidence of destructions, units rewritten or removed, refusals."""

    destructions: Sequence[Destruction]
    rewritten: Collection[str]  # places of units that were overwritten
    deleted: Collection[str]  # places of units whose medium refused
    shed: Collection[str] = ()  # places of units that others rewrote before we could, located again since
    replaced: Collection[str] = ()  # those of them in whose place another file stood then, or none


def close(
    before: Inventory,
    after: Inventory,
    done: Done,
    *,
    units: Collection[str],
    held: Collection[str],
    read: Collection[str],
) -> Closure:
    """Account for every inode of one store.

    `units`: places of the store's units now; `held`: places in which somebody of the cohort may have stood before;
    `read`: places that the scan afterwards read.
    """
    now = {one.key: one for one in after.inodes}
    gone: dict[tuple[int, int], list[Destruction]] = {}
    for one in done.destructions:  # a number that was given out again may have been destroyed twice
        gone.setdefault((one.dev, one.ino), []).append(one)
    then = {old.key: old for old in before.inodes if old.key not in gone}
    ends = [(old.place, _end(old, now, gone, done, held, read)) for old in before.inodes]
    ends += [(new.place, _came(new, then.get(new.key), units, read)) for new in after.inodes]
    ends += [(place, reason) for place, reason in after.unread]
    counts = {word: sum(end == word for _place, end in ends) for word in _ENDS}
    freed = tuple(place for place, end in ends if end == _FREED)
    counts["others"] += len(freed)
    left = tuple((place, end) for place, end in ends if end not in (*_ENDS, _FREED, ""))
    return Closure(**counts, leftovers=left, freed=freed)


_ENDS = ("unchanged", "destroyed", "deleted", "new", "others")
_FREED = "freed"


def _end(
    old: Inode,
    now: Mapping[tuple[int, int], Inode],
    gone: Mapping[tuple[int, int], Sequence[Destruction]],
    done: Done,
    held: Collection[str],
    read: Collection[str],
) -> str:
    """What became of an old inode: one of _ENDS, _FREED, or why it is a leftover."""
    if old.place.endswith(_NO_VALUES):
        return "others"
    evidence, here = gone.get(old.key, ()), now.get(old.key)
    shed = any(_of_unit(old.place, unit) for unit in done.shed)
    if evidence:
        if any(one.size >= old.size and _covered(old.extents, one.extents) for one in evidence):  # it may have grown
            return "destroyed"
        if shed:
            return _FREED if old.place in held else "others"
        most = max(one.size for one in evidence)
        if most < old.size:
            return f"{most} bytes of it were destroyed, and it had {old.size}"
        return "its bytes were destroyed elsewhere than they lay"
    if here is not None and (here.size, here.sha256) == (old.size, old.sha256):
        if old.place in done.rewritten:
            return "said to be rewritten, and is the old file still"
        return "unchanged" if here.place in read else "not read again"
    if old.place in held and any(_of_unit(old.place, unit) for unit in done.replaced):
        return _FREED
    if any(_of_unit(old.place, unit) for unit in done.deleted):
        return "deleted"
    if shed or old.place not in held:
        return "others"
    return "changed in place" if here is not None else "gone, and nothing shows that its bytes were destroyed"


def _came(one: Inode, old: Inode | None, units: Collection[str], read: Collection[str]) -> str:
    """What a present inode is: "new", "" where it is told as an old one, or why it is a leftover."""
    if old is not None:
        waits = _OURS in one.place and old.place != one.place
        return "an old file that was not destroyed, under another name" if waits else ""
    if not one.size or one.place.endswith(_NO_VALUES):
        return ""  # nothing can be in it
    if one.place not in read:
        return "new, and not read"
    if _OURS in one.place:
        return "a working file of ours that was not destroyed"
    if not any(_of_unit(one.place, unit) for unit in units):
        return "new, no unit of the store, and not ours"
    return "new"


def _covered(old: Extents, destroyed: Extents) -> bool:
    """Whether every block that a file had was overwritten where it lay; extents are (logical, physical, length)."""
    return all(
        any(a <= logical and logical + length <= a + c and physical - logical == b - a for a, b, c in destroyed)
        for logical, physical, length in old
    )


def _of_unit(place: str, unit: str) -> bool:
    """Whether a place is a unit or a side file of it (`-wal`, `-journal`, `.crc` before its name)."""
    folder, slash, name = unit.rpartition("/")
    return place in (unit, f"{folder}{slash}.{name}.crc", *(unit + end for end in _SIDE))


def _sha256(fd: int) -> str:
    running = hashlib.sha256()
    offset = 0
    while body := os.pread(fd, _BLOCK, offset):
        running.update(body)
        offset += len(body)
    return running.hexdigest()


def _extents(fd: int, size: int) -> Extents:
    """The runs up to the last whole block, as a destruction would have to name them; () where the medium is silent."""
    try:
        block = os.fstatvfs(fd).f_bsize
        return extents.runs(fd, -(-size // block) * block)
    except (OSError, FangxinError):
        return ()


def _triples(raw: Sequence[Sequence[int]]) -> Extents:
    return tuple((a, b, c) for a, b, c in raw)

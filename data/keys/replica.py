"""Copies of the pages elsewhere: live replicas that take every page delta, and a base copy after each destroy batch.

* A delta is acknowledged by a replica before the write it describes is committed here. So a replica is never
  behind what anybody was told; where a crash left it ahead (or it was away), the next writer gives it a fresh copy.
* Neither ever holds the root: an old copy opens nothing once a batch has put the pages under a new one.
* Which places a vault writes to is kept beside it (`places.json`), so that every process ships to all of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fangxin.data.errors import InputError, NotAllowed, Unavailable, VaultDamaged
from fangxin.data.keys.delta import MARK, Delta
from fangxin.data.keys.faults import ReplicaAway, ReplicaBehind
from fangxin.data.keys.founding import tree_path
from fangxin.data.keys.roots.file import sync_folder
from fangxin.data.keys.vault import VaultFile, siblings, sync_file

PLACES = "places.json"
LAST_WRITE = ("seq", "write")  # the names it is noted under
Write = tuple[int, bytes]  # a number, and a mark: after a crash another write may have the same number


class Replica:
    """A folder, best on another disk or machine, that holds a plain copy of the pages and takes deltas at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file: VaultFile | None = None

    def held(self, tree_id: bytes) -> Write | None:
        """The last write of a tree that it holds; None if it holds none. Unavailable if it cannot be reached."""
        if not self.folder.is_dir():
            raise Unavailable("a replica's folder is not there", hint="mount it, or take it off the vault's places")
        file = self._of(tree_id)
        if not file.path.exists():
            return None
        try:
            with file.snapshot():
                return last_write(file)
        except VaultDamaged:  # of the replica's file: it takes a fresh copy
            return None

    def apply(self, data: bytes) -> None:
        """Take one delta; durable when it returns. The same one again changes nothing; ReplicaBehind on a gap."""
        delta = Delta.decode(data)
        held = self.held(delta.tree_id)
        if held == (delta.seq, delta.mark):
            return
        if held != (delta.seq - 1, delta.on):
            raise ReplicaBehind("a replica holds another state than the vault", hint="the next write refreshes it")
        file = self._of(delta.tree_id)
        with file.transaction():
            file.put((node, body) for node, body in delta.changes.bodies.items() if body is not None)
            file.drop(node for node, body in delta.changes.bodies.items() if body is None)
            for name, value in delta.changes.notes.items():
                file.note(name, value)

    def refresh(self, source: VaultFile, tree_id: bytes) -> None:
        """Take a whole fresh copy of a tree's pages in place of what it holds of that tree."""
        self.close()
        target = tree_path(self.folder, tree_id)
        with _reached():
            for left in siblings(target):
                left.unlink(missing_ok=True)
            source.copy_to(target, {})

    def forget(self, *, but: bytes) -> None:
        """Delete the pages of every other tree: the vault grew out of them, or an attempt to grow was given up."""
        kept = tree_path(self.folder, but).name
        for left in self.folder.glob("tree-*.db*"):
            if not left.name.startswith(kept):
                left.unlink()

    def close(self) -> None:
        """Let the file go."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _of(self, tree_id: bytes) -> VaultFile:
        path = tree_path(self.folder, tree_id)
        if self._file is None or self._file.path != path:
            self.close()
            self._file = VaultFile(path)
        return self._file


class Replicas:
    """All replicas of a vault; a write goes on if at least one acknowledges it."""

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self._all = tuple(replicas)

    def __bool__(self) -> bool:
        return bool(self._all)

    def catch_up(self, source: VaultFile, tree_id: bytes, last: Write, *, lossy: bool) -> None:
        """Give a fresh copy to each that is not at this write; one that is away is left for the next writer.

        VaultDamaged if one holds writes that the pages lack, though no restore says so: a crash costs one at most.
        """
        for replica in self._all:
            with contextlib.suppress(Unavailable):
                if (held := replica.held(tree_id)) != last:
                    if held and held[0] > last[0] + 1 and not lossy:
                        raise VaultDamaged(
                            f"a replica holds {held[0] - last[0]} writes that the key vault's file lacks: an old copy "
                            "of the pages was put back in its place, and nothing is written",
                            hint=f"move {source.path.name} out of the vault's folder, then `fangxin keys restore`",
                        )
                    replica.refresh(source, tree_id)
                replica.forget(but=tree_id)

    def ship(self, delta: Delta) -> None:
        """Send a delta to all. ReplicaAway unless one has it, durably."""
        data = delta.encode() if self._all else b""
        taken = 0
        for replica in self._all:
            with contextlib.suppress(Unavailable, ReplicaBehind):
                replica.apply(data)
                taken += 1
        self._enough(taken)

    def refresh(self, source: VaultFile, tree_id: bytes) -> None:
        """Send a whole new tree to all, before its root is committed. ReplicaAway unless one has it."""
        taken = 0
        for replica in self._all:
            with contextlib.suppress(Unavailable):
                if replica.folder.is_dir():
                    replica.refresh(source, tree_id)
                    taken += 1
        self._enough(taken)

    def forget(self, *, but: bytes) -> None:
        """Let every replica that can be reached delete the pages of other trees."""
        for replica in self._all:
            if replica.folder.is_dir():
                replica.forget(but=but)

    def close(self) -> None:
        """Let all files go."""
        for replica in self._all:
            replica.close()

    def _enough(self, taken: int) -> None:
        if self._all and not taken:
            raise ReplicaAway(
                f"none of {len(self._all)} replicas acknowledged the write, so nothing was written",
                hint="make one reachable, or take them off with `fangxin keys replicate --off`, then repeat",
            )


@dataclass(frozen=True)
class Places:
    """Where else a vault's pages go: replicas, and the folder of base copies made after each batch."""

    replicas: tuple[Path, ...] = ()
    backups: Path | None = None

    @classmethod
    def of(cls, folder: Path) -> Self:
        """What is noted beside a vault. InputError if it is not what we wrote."""
        if not os.path.exists(f"{folder}/{PLACES}"):  # noqa: PTH110  # looked at before every write
            return cls()
        try:
            noted = json.loads((folder / PLACES).read_text("utf-8"))
            return cls(tuple(map(Path, noted["replicas"])), Path(noted["backups"]) if noted["backups"] else None)
        except (ValueError, TypeError, KeyError):
            raise InputError(
                f"{PLACES} of the key vault is not readable",
                hint="name the places again with `fangxin keys replicate` and `fangxin keys backup`",
            ) from None

    def note(self, folder: Path) -> None:
        """Keep them beside the vault. NotAllowed if one of them could receive the root."""
        for place in (*self.replicas, *((self.backups,) if self.backups else ())):
            outside(folder, place)
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        said = {
            "replicas": [str(place.resolve()) for place in self.replicas],
            "backups": str(self.backups.resolve()) if self.backups else None,
        }
        part = folder / (PLACES + ".partial")
        part.write_text(json.dumps(said, indent=1), "utf-8")
        sync_file(part)
        os.replace(part, folder / PLACES)  # noqa: PTH105  # replaces in one step
        sync_folder(folder)


def outside(folder: Path, place: Path) -> None:
    """NotAllowed if a place for copies is the vault's own folder, inside it, or around it: the root lies there."""
    here, there = folder.resolve(), place.resolve()
    if there.is_relative_to(here) or here.is_relative_to(there):
        raise NotAllowed(
            "copies of the pages must not lie where the root lies",
            hint="choose a folder on another disk, outside the vault's folder and not around it",
        )


def last_write(file: VaultFile) -> Write:
    """The last write that a file of pages holds."""
    return written(file.some(*LAST_WRITE))


def written(noted: Mapping[str, bytes]) -> Write:
    """The last write, from what is noted of it (LAST_WRITE)."""
    return int(noted.get("seq", b"0")), noted.get("write", bytes(MARK))


@contextlib.contextmanager
def _reached() -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as cause:
        raise Unavailable("a replica cannot be written", hint="look for a full disk or a missing mount") from cause

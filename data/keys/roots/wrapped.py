"""A root share under a key that a keeper of keys never hands out: one key per generation, destroyed to retire it.

The share itself lies as ciphertext in a folder beside the vault, one file per generation: JSON with the keeper's
handle of the key and the wrapped share. It may be copied anywhere; what it is worth dies with the key.

* Every key carries the vault's own random id in its name, so two vaults may share one keeper and never meet.
* A key is made before its file; one that an interruption left without a file has wrapped nothing that was kept.
* Retiring asks for the living share first: who cannot open it (a foreign or stale folder) destroys nothing.
* Retiring goes by the folder and by the keeper's own list: either may be older than the other.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Protocol

from fangxin.data.errors import NotAllowed, RootUnreachable
from fangxin.data.keys.roots.file import sync_folder
from fangxin.data.keys.roots.protocol import SHARE, Claim, RootDamaged, RootGone, RootReceipt


class Keeper(Protocol):
    """Keeps keys that never leave it. A handle is what it calls a key; every call may raise RootUnreachable."""

    def make(self, name: str) -> str:
        """Make a key that cannot be exported, or find the one that was made under this name; its handle."""
        ...

    def alive(self, handle: str) -> bool:
        """Whether the key can still be used."""
        ...

    def wrap(self, handle: str, share: bytes, bound: bytes) -> bytes:
        """Encrypt with associated data."""
        ...

    def unwrap(self, handle: str, wrapped: bytes, bound: bytes) -> bytes:
        """Decrypt; RootGone if there is no such key, RootDamaged if it does not open."""
        ...

    def named(self, prefix: str) -> Iterable[str]:
        """Handles of all keys whose names begin so, those waiting for their deletion too."""
        ...

    def destroy(self, handle: str) -> datetime | None:
        """Destroy the key; idempotent. When it will be gone, None if it is gone now."""
        ...

    def claim(self, gone: datetime | None) -> Claim:
        """What may be said of keys of which the last will be gone then; None: of a key destroyed now."""
        ...


class WrappedRoot:
    """A holder made of a keeper and a folder for the wrapped shares."""

    def __init__(self, folder: Path, keeper: Keeper, *, name: str) -> None:
        self.folder = folder
        self.keeper = keeper
        self.name = name

    def generations(self) -> tuple[int, ...]:
        """Every generation whose key still works, ascending."""
        return tuple(g for g in self._kept() if self.keeper.alive(self._read(g).handle))

    def put(self, generation: int, share: bytes) -> None:
        """Wrap a share under a key of its own; on the medium and opened again when this returns."""
        if len(share) != SHARE or not 0 < generation < 2**64:
            raise NotAllowed(
                f"not a root share for holder {self.name}: {len(share)} bytes",
                hint="a share has 32 bytes, generations count from 1",
            )
        if generation in self._kept():
            try:
                known = self.get(generation)
            except RootGone:
                raise NotAllowed(
                    f"holder {self.name} has retired generation {generation}", hint="take a number never seen"
                ) from None
            if known != share:
                raise NotAllowed(f"holder {self.name} already keeps another share of generation {generation}")
            return
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = self.keeper.make(self._prefix() + str(generation))
        wrapped = self.keeper.wrap(handle, share, self._bound(generation))
        if self.keeper.unwrap(handle, wrapped, self._bound(generation)) != share:
            raise RootDamaged(f"holder {self.name} opens another share than it wrapped")
        record = {"key": handle, "share": base64.b64encode(wrapped).decode()}
        _write(self._path(generation), json.dumps(record).encode())

    def get(self, generation: int) -> bytes:
        """The share of that generation; RootGone if it or its key is not here, RootDamaged if it does not open."""
        record = self._read(generation)
        try:
            share = self.keeper.unwrap(record.handle, record.wrapped, self._bound(generation))
        except RootGone as gone:
            raise RootGone(
                f"holder {self.name} keeps no key of generation {generation}: {gone.message}", hint=gone.hint
            ) from gone
        except RootDamaged as wrong:
            raise RootDamaged(
                f"holder {self.name} does not open its share of generation {generation}: "
                "the key or the file belongs to another vault, or was altered",
                hint="use the holder that this vault was created with, and the newest copy of its folder",
            ) from wrong
        if len(share) != SHARE:
            raise RootDamaged(f"holder {self.name} opened something that is no share")
        return share

    def claim(self) -> Claim:
        """What destroying a generation's key is worth here and now."""
        return self.keeper.claim(None)

    def retire(self, *, keep: int) -> RootReceipt:
        """Destroy every key of this vault but that of `keep`, then the files of their shares."""
        self.get(keep)
        living = self._read(keep).handle
        dying = {g: self._read(g).handle for g in self._kept() if g != keep}
        retired = tuple(g for g, handle in dying.items() if self.keeper.alive(handle))
        strays = set(self.keeper.named(self._prefix())) - {living, *dying.values()}
        ends = [self.keeper.destroy(handle) for handle in (*dying.values(), *sorted(strays))]
        # The file goes last: as long as it is there, an interruption finds the key again.
        for generation in dying:
            self._path(generation).unlink()
        if dying:
            sync_folder(self.folder)
        return RootReceipt(self.name, keep, retired, self.keeper.claim(max((end for end in ends if end), default=None)))

    def forget(self) -> None:
        """Destroy every key of this vault, then its files: for a creation that was interrupted before it committed."""
        if not (self.folder / "id").exists():
            return
        for handle in {*self.keeper.named(self._prefix()), *(self._read(g).handle for g in self._kept())}:
            self.keeper.destroy(handle)
        for generation in self._kept():
            self._path(generation).unlink()
        sync_folder(self.folder)

    # ------------------------------------------------------------ the folder

    def _path(self, generation: int) -> Path:
        return self.folder / f"{generation}.share"

    def _kept(self) -> tuple[int, ...]:
        """Generations that have a file, ascending."""
        if not self.folder.is_dir():
            return ()
        found = (re.fullmatch(r"([1-9][0-9]*)\.share", path.name) for path in self.folder.iterdir())
        return tuple(sorted(int(one[1]) for one in found if one))

    def _read(self, generation: int) -> _Record:
        try:
            text = self._path(generation).read_bytes()
        except FileNotFoundError:
            raise RootGone(
                f"holder {self.name} keeps no share of generation {generation}",
                hint="retired, never put, or its folder is an older copy: bring back the newest",
            ) from None
        except OSError as cause:
            raise RootUnreachable(
                f"holder {self.name} cannot read its share: {os.strerror(cause.errno or 0)}"
            ) from cause
        try:
            record = json.loads(text)
            return _Record(record["key"], base64.b64decode(record["share"], validate=True))
        except (ValueError, KeyError, TypeError, binascii.Error):
            raise RootDamaged(
                f"holder {self.name} has a file for generation {generation} that is no wrapped share",
                hint="bring back the newest copy of its folder",
            ) from None

    def _prefix(self) -> str:
        """How this vault's keys begin; drawn once, before the first key is made."""
        path = self.folder / "id"
        if not path.exists():
            if self._kept():
                raise RootDamaged(
                    f"holder {self.name} has shares, and not the id they are bound to",
                    hint="bring back the newest copy of its folder",
                )
            _write(path, os.urandom(8).hex().encode())
        text = path.read_text("ascii", errors="replace")
        if not re.fullmatch(r"[0-9a-f]{16}", text):
            raise RootDamaged(f"holder {self.name} has an id that is none", hint="bring back the newest copy")
        return f"fangxin-{text}-"

    def _bound(self, generation: int) -> bytes:
        """The associated data: a wrapped share opens as itself only."""
        return f"fangxin/root/share/1/{self._prefix()}{generation}".encode()


class _Record(NamedTuple):
    handle: str
    wrapped: bytes


def _write(path: Path, content: bytes) -> None:
    """A small file that appears whole or not at all, and is on the medium when this returns."""
    part = path.with_name(path.name + ".new")
    with contextlib.suppress(FileNotFoundError):
        part.unlink()
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, content)
        os.fsync(fd)
    finally:
        os.close(fd)
    part.rename(path)
    sync_folder(path.parent)

"""The journal of pending destructions: no crash leaves a unit half done or an old inode alive.

The old inode is held by a second link, the survivors are published under the unit's name, and only then the held
inode is overwritten.

* A refusal is not an error here: the unit is rewritten and unlinked all the same and `Done.refused` says why.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fangxin.data import medium
from fangxin.data.errors import FangxinError, Incomplete, StoreUnavailable, UnitChanged, WriterBusy
from fangxin.data.extents import LOGICAL, Extents, NotAlone, Refused, alone, judge, opened, plain
from fangxin.data.medium import drop, overwrite, sync_dir
from fangxin.data.steps import due, pretended
from fangxin.data.vocabulary import Destruction

FOLDER = ".fangxin-pending"
_SCRATCH = ".fangxin-"


@dataclass(frozen=True)
class Done:
    """What happened to one unit: `refused` "" means overwritten, else why it was only deleted logically."""

    unit: str
    note: Mapping[str, Any]  # Any: the caller's own JSON, given back as it was
    destructions: tuple[Destruction, ...]
    refused: str
    claim: str = ""  # what may be said about it on a certificate


@dataclass(frozen=True)
class _Held:
    """One inode to be destroyed: its live name (relative to the root; "" if none) and ours in the folder."""

    live: str
    hold: str
    dev: int
    ino: int
    size: int
    extents: Extents


@dataclass(frozen=True)
class _Record:
    """One line of the journal. No path or value of a person; paths are relative to the root."""

    name: str
    kind: str  # scratch | hold | replace | remove
    batch: str
    unit: str
    step: str = "intent"  # intent | done
    held: tuple[_Held, ...] = ()
    published: tuple[int, int] | None = None  # dev, ino of what took the unit's name
    note: Mapping[str, Any] = field(default_factory=dict)  # Any: the caller's JSON
    refused: str = ""
    claim: str = ""
    destroyed: Mapping[str, Destruction | None] = field(default_factory=dict)  # by hold; None: refused


class Pending:
    """The journal of pending destructions of one store root: `.fangxin-pending/`, mode 0700, random names.

    Of two Pendings on one root with different `store` neither sees the other's records. One process at a time:
    the others get WriterBusy until `forget`. `at`, if set, is called with a step's name after every step.
    """

    def __init__(self, root: Path, *, store: str = "") -> None:
        self.root = root
        self.folder = root / FOLDER
        self.at: Callable[[str], None] | None = None
        self._tag = hashlib.blake2b(store.encode(), digest_size=4).hexdigest()
        self._lock_fd: int | None = None

    def scratch(self, unit: Path, *, batch: str) -> Path:
        """Return a random dot-name beside the unit, not yet existing, that `recover` would destroy.

        Whatever is created beside it with the same beginning (`<name>-journal`) belongs to it.
        """
        path = unit.parent / f"{_SCRATCH}{secrets.token_hex(12)}"
        with _reachable(unit):
            self._lock()
            self._write(_Record(self._name(), "scratch", batch, self._relative(path)))
        self._step("scratch")
        return path

    def hold(self, path: Path, *, batch: str) -> Path:
        """Hold a journal that an engine is about to drop, by a second link; hand it on as `also`, or discard it."""
        with _reachable(path), opened(path) as fd:
            plain(fd, path)
            self._lock()
            name = self._name()
            held = self._held(path, fd)
            self._write(_Record(name, "hold", batch, held.live, held=(held,)))
            self._link(held)
        self._step("hold")
        return self.folder / held.hold

    def replace(
        self,
        new: Path,
        unit: Path,
        *,
        batch: str,
        note: Mapping[str, Any],  # Any: the caller's JSON
        also: Sequence[Path] = (),
        seen: os.stat_result | None = None,
        absent: Sequence[Path] = (),
    ) -> Done:
        """Publish `new` (a scratch) as the unit, keeping owner, mode and xattrs, then destroy the old inode.

        `also` are files that lose their meaning with it (journals, working copies, what `hold` returned): they lose
        their names before the unit changes and are destroyed with it, so they must be redundant. `seen` is the state
        the work is based on, `absent` are files whose appearance means that somebody wrote. Raises StoreUnavailable or
        UnitChanged before anything changed, Incomplete if the old bytes could not be destroyed after publishing: then
        `recover` goes on.
        """
        with _reachable(unit):
            self._lock()
            with alone(unit, patience=medium.PATIENCE) as (fd, leased):
                _unchanged(fd, unit, seen, absent)
                _dress(new, fd, unit)
                self._step("survivors")
                record = self._intend("replace", fd, leased, unit, batch, note, also, published=_identity(new))
                for held in record.held:
                    if held.live != record.unit:
                        self._unname(held)
                self._step("aside")
                new.replace(unit)
                sync_dir(unit.parent)
                self._step("published")
        return self._finish(record)

    def remove(self, unit: Path, *, batch: str, note: Mapping[str, Any], also: Sequence[Path] = ()) -> Done:
        """Take the whole unit away, with `also`, and destroy its bytes. Errors as in `replace`."""
        with _reachable(unit):
            self._lock()
            with alone(unit, patience=medium.PATIENCE) as (fd, leased):
                record = self._intend("remove", fd, leased, unit, batch, note, also, published=None)
                for held in (*record.held[1:], *record.held[:1]):
                    self._unname(held)
                self._step("published")
        return self._finish(record)

    def discard(self, path: Path, *, batch: str) -> Done:
        """Destroy a scratch with all that begins with its name, or let go of a hold (destroyed if it is alone)."""
        self._lock()
        records = self._records(batch=batch)
        mine = [r for r in records if r.kind == "scratch" and r.unit == self._relative(path)]
        mine += [r for r in records if r.kind == "hold" and self.folder / r.held[0].hold == path]
        if not mine:
            raise FangxinError(f"{path.name}: neither a scratch nor a hold of this journal, so it is not destroyed")
        return self._let_go(mine[0])

    def outcome(self, unit: Path, *, batch: str) -> Done | None:
        """Return what this batch already did to the unit, if what lies there is still what we published."""
        try:
            now: tuple[int, int] | None = _identity(unit)
        except FileNotFoundError:
            now = None
        for record in self._records(batch=batch):
            if record.unit == self._relative(unit) and record.step == "done" and record.published == now:
                return _done(record)
        return None

    def recover(self, *, batch: str | None = None) -> None:
        """After a crash at any byte: finish what was published, drop what was not, destroy strays.

        Live data is never touched: a hold whose inode still has its live name only loses our link. Idempotent.
        Raises WriterBusy if another process is at work here, Incomplete if somebody keeps an old file open.
        """
        if not self.folder.is_dir():
            return
        with _reachable(self.root):
            self._lock()
            for torn in self.folder.glob(f"{self._tag}-*.tmp"):  # a record that never came to be
                torn.unlink()
            records = [r for r in self._records(batch=batch) if r.step != "done"]
        order = ("replace", "remove", "hold", "scratch")  # links are dropped before the scratches they point at
        for record in sorted(records, key=lambda r: order.index(r.kind)):
            if record.kind in ("hold", "scratch"):
                self._let_go(record)
            elif self._published(record):
                self._finish(record)
            else:
                self._undo(record)
        self._unlock()

    def forget(self, *, batch: str) -> None:
        """Drop the finished records of a batch, once the ledger has its outcomes, and let others in."""
        if not self.folder.is_dir():
            return
        self._lock()
        for record in self._records(batch=batch):
            if record.step == "done":
                self._erase_record(record)
        self._unlock()

    def files(self) -> tuple[Path, ...]:
        """Every file of ours on disk: records, holds, scratches (of every store of this root)."""
        found = {p for p in self.root.rglob(".fangxin-*") if p.is_file()}
        if self.folder.is_dir():
            found.update(p for p in self.folder.iterdir() if p.is_file())
        return tuple(sorted(found))

    # ------------------------------------------------------------ moves

    def _intend(
        self,
        kind: str,
        fd: int,
        leased: bool,
        unit: Path,
        batch: str,
        note: Mapping[str, Any],  # Any: the caller's JSON
        also: Sequence[Path],
        *,
        published: tuple[int, int] | None,
    ) -> _Record:
        """Write down what is about to happen, then hold every inode that is going to lose its name."""
        found, refused = judge(fd, leased, self.folder)
        held = [self._held(unit, fd, found.extents if found else ())] if due("old file: hold") else []
        for path in also:
            if path.exists() and due("working copy: destroy" if path.name.startswith(_SCRATCH) else "journal: destroy"):
                with opened(path) as other:
                    held.append(self._held(path, other))
        record = _Record(
            self._name(),
            kind,
            batch,
            self._relative(unit),
            held=tuple(held),
            published=published,
            note=dict(note),
            refused=refused,
            claim=found.claim if found else LOGICAL,
        )
        self._write(record)
        self._step("intent")
        for one in held:
            if one.live:
                self._link(one)
        self._step("held")
        return record

    def _finish(self, record: _Record) -> Done:
        """Destroy every held inode of a published record; evidence is written before the inode is let go."""
        for held in record.held:
            path = self.folder / held.hold
            if held.hold not in record.destroyed:
                proof: Destruction | None = None
                try:
                    if not path.exists():
                        raise Refused("an old file was gone before its bytes could be overwritten")
                    proof = _destroyed(path, self.root / record.unit, held)
                except Refused as no:
                    record = replace(record, refused=record.refused or no.reason, claim=LOGICAL)
                record = replace(record, destroyed={**record.destroyed, held.hold: proof})
                self._write(record)
                self._step("overwritten")
            if due("old file: destroy"):
                drop(path, truncate=record.destroyed[held.hold] is not None)
            self._step("dropped")
        record = replace(record, step="done")
        self._write(record)
        self._step("done")
        self._sweep(record.batch)
        return _done(record)

    def _undo(self, record: _Record) -> None:
        """Drop what was held for a change that never was published; journals that lost their names are destroyed."""
        unit, first = self.root / record.unit, record.held[0]
        if (self.folder / first.hold).exists() and not unit.exists():
            os.link(self.folder / first.hold, unit)  # somebody else removed the name: ours may be the last copy
            sync_dir(unit.parent)
        for held in record.held:
            if held.live:  # else it has a record of its own
                self._release(held, unit)
        self._erase_record(record)

    def _let_go(self, record: _Record) -> Done:
        """End a scratch or a hold: destroy what has no live name, drop our link from what has one."""
        destroyed: list[Destruction] = []
        refused, claim = "", ""
        paths = self._beginning(self.root / record.unit) if record.kind == "scratch" else ()
        for path in paths:
            try:
                destroyed.append(_patiently(path, path))
                drop(path)
            except Refused as no:
                refused, claim = refused or no.reason, LOGICAL
                drop(path, truncate=False)
            self._step("discarded")
        for held in record.held:
            proof, no_reason = self._release(held, self.root / record.unit)
            destroyed += [proof] if proof else []
            refused = refused or no_reason
        self._erase_record(record)
        return Done(record.unit, {}, tuple(destroyed), refused, claim)

    def _release(self, held: _Held, unit: Path) -> tuple[Destruction | None, str]:
        """Let go of one hold: our link only, if the live name still leads to the inode, else destroy it."""
        path = self.folder / held.hold
        with contextlib.suppress(FileNotFoundError):
            now = path.lstat()
            live = self.root / held.live if held.live else None
            if now.st_nlink > 1 and live is not None and live.exists() and live.lstat().st_ino == now.st_ino:
                drop(path, truncate=False)
                return None, ""
            try:
                proof = _patiently(path, unit)
            except Refused as no:
                drop(path, truncate=False)
                return None, no.reason
            drop(path)
            return proof, ""
        return None, ""

    def _published(self, record: _Record) -> bool:
        """Whether the unit's name already leads to what the record promised (or to nothing)."""
        if record.destroyed:
            return True
        try:
            now: tuple[int, int] | None = _identity(self.root / record.unit)
        except FileNotFoundError:
            now = None
        return now == record.published

    def _sweep(self, batch: str) -> None:
        """Drop the records of scratches and holds that no longer exist because they were published or destroyed."""
        for record in self._records(batch=batch):
            gone = record.kind == "scratch" and not self._beginning(self.root / record.unit)
            if gone or (record.kind == "hold" and not (self.folder / record.held[0].hold).exists()):
                self._erase_record(record)

    # ------------------------------------------------------------ files of the journal

    def _name(self) -> str:
        return f"{self._tag}-{secrets.token_hex(12)}"

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _beginning(self, path: Path) -> tuple[Path, ...]:
        """Every file whose name begins with that of the scratch."""
        if not path.parent.is_dir():
            return ()
        return tuple(sorted(p for p in path.parent.iterdir() if p.name.startswith(path.name)))

    def _held(self, path: Path, fd: int, extents: Extents = ()) -> _Held:
        """Describe an inode to be held; a path inside the folder is one that we hold already."""
        now = os.fstat(fd)
        ours = path.parent == self.folder
        live = "" if ours else self._relative(path)
        return _Held(live, path.name if ours else self._name(), now.st_dev, now.st_ino, now.st_size, extents)

    def _link(self, held: _Held) -> None:
        live = self.root / held.live
        try:
            os.link(live, self.folder / held.hold, follow_symlinks=False)
        except OSError as broken:
            raise StoreUnavailable(
                f"{live.name}: cannot be held by a second link ({os.strerror(broken.errno or 0)})",
                hint="units must lie on the same file system as the root of their store",
            ) from None
        sync_dir(self.folder)

    def _unname(self, held: _Held) -> None:
        """Take away the live name of an inode that we hold."""
        if held.live:
            live = self.root / held.live
            live.unlink()
            sync_dir(live.parent)

    def _write(self, record: _Record) -> None:
        """Put a record on disk, whole or not at all."""
        torn = self.folder / f"{record.name}.tmp"
        with torn.open("x", encoding="utf-8") as out:
            json.dump(asdict(record), out)
            out.flush()
            os.fsync(out.fileno())
        torn.replace(self.folder / f"{record.name}.json")
        sync_dir(self.folder)

    def _erase_record(self, record: _Record) -> None:
        (self.folder / f"{record.name}.json").unlink(missing_ok=True)
        sync_dir(self.folder)
        self._step("record")

    def _records(self, *, batch: str | None) -> list[_Record]:
        found = [_read(p) for p in sorted(self.folder.glob(f"{self._tag}-*.json"))] if self.folder.is_dir() else []
        return [r for r in found if batch is None or r.batch == batch]

    def _lock(self) -> None:
        """Take the lock of this store's journal for this process; POSIX locks die with it."""
        if self._lock_fd is not None:
            return
        path = self.folder / f"{self._tag}.lock"
        while True:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            try:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except FileNotFoundError:
                continue  # its last user has just removed the folder
            try:
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(fd)
                raise WriterBusy(
                    f"{self.root}: another process is erasing here",
                    hint="wait until it has ended, then run `fangxin resume`",
                ) from None
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == os.fstat(fd).st_ino:
                    self._lock_fd = fd
                    return
            os.close(fd)

    def _unlock(self) -> None:
        """Let others in once no record is left; the folder goes with the last one."""
        if self._lock_fd is None or self._records(batch=None):
            return
        (self.folder / f"{self._tag}.lock").unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another store of this root still keeps something here
            self.folder.rmdir()
        os.close(self._lock_fd)
        self._lock_fd = None

    def _step(self, name: str) -> None:
        if self.at is not None:
            self.at(name)


def _read(path: Path) -> _Record:
    raw = json.loads(path.read_text(encoding="utf-8"))
    raw["held"] = tuple(_Held(**{**h, "extents": _triples(h["extents"])}) for h in raw["held"])
    raw["published"] = tuple(raw["published"]) if raw["published"] else None
    raw["destroyed"] = {
        hold: Destruction(**{**d, "extents": _triples(d["extents"])}) if d else None
        for hold, d in raw["destroyed"].items()
    }
    return _Record(**raw)


def _triples(raw: Sequence[Sequence[int]]) -> Extents:
    return tuple((a, b, c) for a, b, c in raw)


def _done(record: _Record) -> Done:
    proofs = tuple(d for d in record.destroyed.values() if d is not None)
    return Done(record.unit, record.note, proofs, record.refused, record.claim)


def _destroyed(path: Path, unit: Path, held: _Held) -> Destruction:
    """Overwrite what is held; in a rehearsal that leaves it out, write down what the record would say."""
    if due("old file: overwrite") and due("old file: destroy"):
        return _patiently(path, unit)
    return pretended(held.dev, held.ino, held.size, held.extents)


def _patiently(path: Path, unit: Path) -> Destruction:
    """Overwrite a file that is ours alone; wait a little for whoever still has it open."""
    give_up = time.monotonic() + medium.PATIENCE
    while True:
        try:
            return overwrite(path)
        except NotAlone as busy:
            if time.monotonic() > give_up:
                raise Incomplete(
                    f"{unit.name}: its old bytes wait to be destroyed: {busy.reason}",
                    hint="close what uses it, then run `fangxin resume`",
                ) from None
            time.sleep(0.05)
        except OSError as broken:
            raise Incomplete(
                f"{unit.name}: overwriting its old bytes stopped: {os.strerror(broken.errno or errno.EIO)}",
                hint="nothing counts as overwritten; mend the device or make room, then run `fangxin resume`",
            ) from broken


# ---------------------------------------------------------------- files and folders


def _unchanged(fd: int, unit: Path, seen: os.stat_result | None, absent: Sequence[Path]) -> None:
    now = os.fstat(fd)
    same = seen is None or (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns) == (
        seen.st_dev,
        seen.st_ino,
        seen.st_size,
        seen.st_mtime_ns,
    )
    if not same or any(path.exists() for path in absent):
        raise UnitChanged(f"{unit.name}: somebody changed it while its survivors were written", hint="locate again")


def _dress(new: Path, fd: int, unit: Path) -> None:
    """Give the new file owner, mode and extended attributes of the old one, and flush it."""
    old = os.fstat(fd)
    with new.open("rb+") as out:
        try:
            os.fchown(out.fileno(), old.st_uid, old.st_gid)
            os.fchmod(out.fileno(), stat.S_IMODE(old.st_mode))
            for name in os.listxattr(fd):
                os.setxattr(out.fileno(), name, os.getxattr(fd, name))
        except OSError as broken:
            raise StoreUnavailable(
                f"{unit.name}: owner, mode or attributes cannot be kept ({os.strerror(broken.errno or 0)})",
                hint="run as the owner of the file",
            ) from None
        os.fsync(out.fileno())
    sync_dir(new.parent)


@contextlib.contextmanager
def _reachable(path: Path) -> Iterator[None]:
    """Turn a refusal of the operating system before publishing into StoreUnavailable."""
    try:
        yield
    except OSError as broken:
        raise StoreUnavailable(
            f"{path.name}: cannot be worked on ({os.strerror(broken.errno or 0)})",
            hint="the folder must be writable for us and have room",
        ) from broken


def _identity(path: Path) -> tuple[int, int]:
    now = path.lstat()
    return now.st_dev, now.st_ino

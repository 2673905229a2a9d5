"""The ledger: an append-only tree of entries on disk that is signed, never forks, and survives a kill at any byte.

One `append` is one flush, in five steps:

1. lock, and compare the tree with the checkpoint that was signed last, read from its *second place* (`head`:
   another device, outside the ledger's backups). A tree that does not reach it is refused: it was restored
   from a backup, and going on would sign two histories.
2. write new entry bundles and hash tiles, durably.
3. compute the root from the tiles as read back, prove old -> new, and only then sign.
4. write the checkpoint to the second place, before the signature leaves the process.
5. publish it as `checkpoint`, and delete partial tiles that a full one replaced.

Opening after a crash deletes what reaches past the head (unsigned, nobody saw it) and publishes a head that is
newer than `checkpoint`. An entry exists when a signed checkpoint covers it. Within a flush the order is shuffled;
between flushes the order intent -> act -> outcome holds. The lock is held per flush, so that several processes
may take turns; a second writer at the same moment gets WriterBusy, not a wait.

* `witnessed` adds what outsiders cosigned to `checkpoint`; `stamp` gets a time token over its very bytes and freezes
  both as `checkpoints/<size>` and `<size>.tsr`: a later cosignature goes to a later checkpoint.
* `rotate` logs `key.rotated` in a checkpoint that the old and the new log key sign both; its receipt stays in
  `rotations/`, so that whoever trusts one of the two comes to trust the other.
* A shard that is full or closed is never continued: a new origin starts with `ledger.continued`, which names it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fangxin.data.errors import DoesNotHold, InputError, LedgerForked, NotAllowed, Unavailable, WriterBusy
from fangxin.reports.ledger import checkpoint as notes
from fangxin.reports.ledger import merkle, tiles
from fangxin.reports.ledger.checkpoint import Checkpoint, VKey
from fangxin.reports.ledger.entries import Entry, encode
from fangxin.reports.ledger.index import Index
from fangxin.reports.ledger.keys import LOG_VKEY, SigningKeys

_UNFINISHED = "unfinished"  # lies in the folder while a flush runs: whoever finds it repairs first
_CLOSED = "keep the folder as it is; start a new origin that names this one, or ask the auditor for the last tiles"
_AWAY = "bring back the device that it lies on; nothing was changed"
Hook = Callable[[str], None]


class Ledger:
    """An open ledger. Reading needs no lock; `append` takes it. Use `create` or `open`, not the constructor."""

    def __init__(self, folder: Path, head: Path, keys: SigningKeys, at: Hook | None = None) -> None:
        self.folder = folder
        self.origin = keys.origin
        self.at = at  # told the name of each boundary of a flush: tests kill the process there
        self._head = head
        self._keys = keys
        self._signed = Checkpoint(keys.origin, 0, merkle.EMPTY)
        self._note = b""
        self._tree = tiles.Tree(folder, 0)
        self._index = Index()

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        origin: str,
        head: Path,
        keys: SigningKeys,
        at: Hook | None = None,
    ) -> Ledger:
        """Start an empty ledger with a signed checkpoint of size 0; NotAllowed where one exists already."""
        if origin != keys.origin:
            raise InputError("the ledger's origin is not the name of its log key", hint="one origin = one log key")
        if head.exists() or (folder / "checkpoint").exists() or (folder / "tile").exists():
            raise NotAllowed("a ledger exists already", hint="open it; an origin is never started twice")
        folder.mkdir(parents=True, exist_ok=True)
        head.parent.mkdir(parents=True, exist_ok=True)
        new = cls(folder, head, keys, at)
        note = notes.sign(Checkpoint(origin, 0, merkle.EMPTY), keys.log)
        with new._locked():
            tiles.replace_file(head, note)
            tiles.replace_file(folder / "checkpoint", note)
        new._adopt(note)
        return new

    @classmethod
    def open(cls, folder: Path, *, head: Path, keys: SigningKeys, at: Hook | None = None) -> Ledger:
        """Open a ledger and repair what a crash left.

        Raises LedgerForked if the tree does not reach the head, or head and checkpoint disagree; WriterBusy
        while another process is in the middle of a flush; Unavailable while the head's device is away.
        """
        found = cls(folder, head, keys, at)
        if not folder.is_dir():
            raise InputError("the ledger's folder is missing", hint="`fangxin init` makes it")
        with found._locked():
            found._recover()
        return found

    @classmethod
    def reseat(cls, folder: Path, *, head: Path, keys: SigningKeys, seen: bytes, at: Hook | None = None) -> Ledger:
        """Put a lost or older head back, where the checkpoint that a witness cosigned last is the one that we have.

        `seen` is that checkpoint with the witness's line. NotAllowed where no known witness cosigned it, or the head
        reaches further; LedgerForked where it is another than `checkpoint`: then this shard is closed for ever.
        """
        found = cls(folder, head, keys, at)
        with found._locked():
            note = (folder / "checkpoint").read_bytes() if (folder / "checkpoint").is_file() else b""
            if not note:
                raise LedgerForked("ledger: head and `checkpoint` are both lost", hint=_CLOSED)
            signed, last = (notes.parse(one, *keys.vkeys) for one in (note, seen))
            if not notes.cosignatures(seen, keys.witnesses):
                raise NotAllowed(
                    "ledger: no known witness cosigned that checkpoint",
                    hint="`fangxin witness --last` writes it; its key stands in keys/witness.vkeys",
                )
            if signed != last:
                raise LedgerForked(
                    f"ledger: the witness cosigned {last.size} entries last, `checkpoint` has {signed.size}",
                    hint=_CLOSED,
                )
            if head.is_file() and notes.parse(head.read_bytes(), *keys.vkeys).size >= signed.size:
                raise NotAllowed("ledger: the head is not behind `checkpoint`", hint="nothing has to be put back")
            if merkle.root(signed.size, tiles.Tree(folder, signed.size).subtree) != signed.root:
                raise LedgerForked(
                    "ledger: the tiles do not have the root that was signed", hint="bring them back from a package"
                )
            if not head.parent.is_dir():
                raise Unavailable("ledger: the folder of the head is not there", hint=_AWAY)
            tiles.replace_file(head, note)
            found._recover()
        return found

    @property
    def size(self) -> int:
        """How many entries the last signed checkpoint covers."""
        return self._signed.size

    @property
    def vkeys(self) -> tuple[VKey, ...]:
        """The verifier keys that may have signed something of this log, the present one first."""
        return self._keys.vkeys

    def root(self, size: int) -> bytes:
        """Return the root of the first `size` entries."""
        if not 0 <= size <= self.size:
            raise InputError(f"ledger: never had size {size}", hint=f"it has {self.size} entries")
        return merkle.root(size, self._tree.subtree)

    def checkpoint(self) -> bytes:
        """Return the last signed checkpoint, as a note."""
        return self._note

    def append(self, entries: Sequence[Entry]) -> list[int]:
        """Add entries in one durable flush and return their indexes, in the order given; `v` is added.

        Their order in the tree is random. Raises InputError for an entry that breaks the table of types (nothing
        is then written), WriterBusy, LedgerForked.
        """
        lines = [encode(one) for one in entries]
        if not lines:
            return []
        order = list(range(len(lines)))
        secrets.SystemRandom().shuffle(order)
        with self._locked():
            self._at("locked")
            if (self.folder / _UNFINISHED).exists():
                self._recover()
            else:
                self._compare()
            first = self.size
            self._flush([lines[i] for i in order], self._keys.log)
        where = {given: first + place for place, given in enumerate(order)}
        return [where[i] for i in range(len(lines))]

    def continues(self, old: Checkpoint, minute: str) -> None:
        """Say in the first entry which shard this one goes on from, and how that one ended; NotAllowed later."""
        if self.size or old.origin == self.origin:
            raise NotAllowed("a shard says what it goes on from in its first entry", hint="start a new origin")
        root = old.root.hex()
        self.append(
            [{"type": "ledger.continued", "time": minute, "origin": old.origin, "size": old.size, "root": root}]
        )

    def rotate(self, minute: str) -> int:
        """Put a new log key in the place of the present one; returns the index of `key.rotated`.

        Safe to repeat after a crash: a rotation that no head covers starts again with the same next key, and one that
        a head covers is finished when the ledger is opened.
        """
        with self._locked():
            self._recover()
            keys = self._keys = self._keys.with_next()
            _present, following, *_former = keys.vkeys
            line = encode({"type": "key.rotated", "time": minute, "old": str(keys.vkey), "new": str(following)})
            self._flush([line], keys.log, *([keys.next] if keys.next else []))
        return self.size - 1

    def witnessed(self, lines: bytes) -> int:
        """Add witnesses' signature lines to the published checkpoint; returns how many known witnesses signed it now.

        Raises DoesNotHold for a line that is false or of nobody in `witness.vkeys`, NotAllowed once it is stamped.
        """
        with self._locked():
            self._recover()
            if self.stamped:
                raise NotAllowed(
                    f"ledger: the checkpoint of {self.size} entries has its time token already",
                    hint="a late cosignature goes to the next checkpoint",
                )
            note = notes.with_lines(self._note, lines)
            by = notes.cosignatures(note, self._keys.witnesses)
            expected = [line for line in lines.split(b"\n") if line]
            if not all(any(notes.signed_by(self._body() + line + b"\n", one) for one in by) for line in expected):
                raise DoesNotHold("ledger: a line that is of no known witness", hint="keys/witness.vkeys has them")
            self._publish(note)
            return len(by)

    def stamp(self, stamp: Callable[[bytes], bytes]) -> None:
        """Get a time token over the published checkpoint and freeze the two together; what `stamp` raises travels."""
        size, note = self.size, self._note
        token = stamp(note)  # without the lock: a network may be slow
        with self._locked():
            self._recover()
            if (self.size, self._note) != (size, note):
                raise WriterBusy("ledger: it grew while the time token was fetched", hint="stamp the new checkpoint")
            frozen = self.folder / "checkpoints"
            frozen.mkdir(exist_ok=True)
            tiles.sync_folder(self.folder)
            self._at("token")
            tiles.replace_file(frozen / f"{size}.tsr", token)
            tiles.replace_file(frozen / str(size), note)

    @property
    def stamped(self) -> bool:
        """Whether the published checkpoint has its time token and is frozen."""
        return (self.folder / "checkpoints" / str(self.size)).exists()

    def check(self) -> None:
        """Read every bundle and tile again, and compare each with what lies below it; LedgerForked where one differs.

        Memory: one bundle, and 64 tiles.
        """
        tree, size = self._tree, self.size
        for index in range(-(-size // tiles.WIDTH)):
            leaves = b"".join(merkle.leaf_hash(one) for one in tree.bundle(index))
            self._same(tiles.tile_path(0, index, len(leaves) // 32), tree.tile(0, index), leaves)
        level = 1
        while count := size >> (8 * level):
            for index in range(-(-count // tiles.WIDTH)):
                width = min(tiles.WIDTH, count - index * tiles.WIDTH)
                below = b"".join(_fold(tree.tile(level - 1, index * tiles.WIDTH + one)) for one in range(width))
                self._same(tiles.tile_path(level, index, width), tree.tile(level, index), below)
            level += 1
        if merkle.root(size, tree.subtree) != self._signed.root:
            raise LedgerForked("ledger: the tiles do not have the root that was signed", hint=_CLOSED)

    @staticmethod
    def _same(name: str, found: bytes, expected: bytes) -> None:
        if found != expected:
            raise LedgerForked(
                f"{name}: not the hashes of what lies below it", hint="bring it back from an auditor's package"
            )

    def entries(self, start: int = 0) -> Iterator[tuple[int, dict[str, int | str]]]:
        """Yield (index, entry) from `start` on, as far as the last signed checkpoint."""
        for index, line in self._lines(start):
            yield index, json.loads(line)

    def find(self, tags: Collection[str]) -> dict[str, tuple[int, dict[str, int | str]]]:
        """Return for each tag that the ledger knows the first entry carrying it."""
        at = self.places(tags)
        wanted = {index: one for one, index in at.items()}
        found: dict[str, tuple[int, dict[str, int | str]]] = {}
        for bundle in sorted({index // tiles.WIDTH for index in wanted}):
            for index, line in enumerate(self._tree.bundle(bundle), bundle * tiles.WIDTH):
                if index in wanted:
                    found[wanted[index]] = (index, json.loads(line))
        return found

    def places(self, tags: Collection[str]) -> dict[str, int]:
        """Return for each tag that the ledger knows the index of the first entry carrying it; reads what is new."""
        self._index.grow(self._tree)
        return {one: index for one in tags if (index := self._index.of(one)) is not None}

    def rare(self, *types: str) -> list[tuple[int, dict[str, int | str]]]:
        """Return (index, entry) of these types, which are among `index.RARE`, in order; reads what is new."""
        self._index.grow(self._tree)
        return [(index, entry) for index, entry in self._index.rare if entry["type"] in types]

    def receipt(self, index: int) -> bytes:
        """Return the `.tlog-proof` of an entry under the last signed checkpoint."""
        if not 0 <= index < self.size:
            raise InputError(f"ledger: no entry {index}", hint=f"it has {self.size} entries")
        return notes.proof_text(index, merkle.inclusion(index, self.size, self._tree.subtree), self._note)

    def consistency(self, old: int) -> list[bytes]:
        """Return the proof that the first `old` entries are still what the tree begins with."""
        if not 0 <= old <= self.size:
            raise InputError(f"ledger: never had size {old}", hint=f"it has {self.size} entries")
        return merkle.consistency(old, self.size, self._tree.subtree)

    def files(self) -> Iterator[tuple[str, Callable[[], bytes]]]:
        """Yield (path, reader) of the checkpoint, older frozen ones with their tokens, rotations, and every tile."""
        note, tree = self._note, self._tree
        yield "checkpoint", lambda: note
        for frozen in sorted((self.folder / "checkpoints").glob("[0-9]*")):
            if frozen.name == str(self.size):
                yield "checkpoint.tsr", frozen.with_suffix(".tsr").read_bytes
            elif int(frozen.stem) < self.size and frozen.with_suffix("").exists():
                yield f"checkpoints/{frozen.name}", frozen.read_bytes
        for receipt in sorted((self.folder / "rotations").glob("*.tlog-proof")):
            yield f"rotations/{receipt.name}", receipt.read_bytes
        for level, index, width in tiles.tiles_of(self.size):
            if level == "entries":
                yield tiles.tile_path(level, index, width), partial(_bundle_bytes, tree, index)
            else:
                yield tiles.tile_path(level, index, width), partial(tree.tile, int(level), index)

    # ------------------------------------------------------------ the flush

    def _flush(self, lines: Sequence[bytes], *keys: Ed25519PrivateKey) -> None:
        (self.folder / _UNFINISHED).touch()
        old, size = self._signed, self.size + len(lines)
        # (2) tiles
        tiles.write_files(self.folder, self._grown(lines), self._at)
        self._at("tiles")
        # (3) sign, from what lies on disk
        tree = tiles.Tree(self.folder, size)
        self._same_leaves(tree, lines)
        root = merkle.root(size, tree.subtree)
        proof = merkle.consistency(old.size, size, tree.subtree)
        merkle.check_consistency(old.size, size, old.root, root, proof)
        note = notes.sign(Checkpoint(self.origin, size, root), *keys)
        self._at("signed")
        # (4) second place
        tiles.replace_file(self._head, note)
        self._at("head")
        # (5) publish, then tidy
        self._publish(note)
        self._at("published")
        self._finish_rotation()
        for level in range(8):
            count = old.size >> (8 * level)
            if count % tiles.WIDTH and (size >> (8 * level)) // tiles.WIDTH > count // tiles.WIDTH:
                self._drop_partials(level, count // tiles.WIDTH)
        (self.folder / _UNFINISHED).unlink()

    def _grown(self, lines: Sequence[bytes]) -> dict[str, bytes]:
        """Return the files that these new entries add to the tree: bundles, then tiles level by level."""
        width, old = tiles.WIDTH, self.size
        files: dict[str, bytes] = {}
        index, place = divmod(old, width)
        queue = [*(self._tree.bundle(index) if place else []), *lines]
        for at in range(0, len(queue), width):
            part = queue[at : at + width]
            files[tiles.tile_path("entries", index + at // width, len(part))] = tiles.join_bundle(part)
        level, count, hashes = 0, old, [merkle.leaf_hash(one) for one in lines]
        while hashes:
            index, place = divmod(count, width)
            joined = (self._tree.tile(level, index) if place else b"") + b"".join(hashes)
            full = len(joined) // (32 * width)
            for at in range(0, len(joined), 32 * width):
                part_of = joined[at : at + 32 * width]
                files[tiles.tile_path(level, index + at // (32 * width), len(part_of) // 32)] = part_of
            hashes = [_fold(joined[at : at + 32 * width]) for at in range(0, full * 32 * width, 32 * width)]
            level, count = level + 1, index
        return files

    def _same_leaves(self, tree: tiles.Tree, lines: Sequence[bytes]) -> None:
        """Read back every new entry and its leaf hash; LedgerForked if the medium returned anything else."""
        for place, line in enumerate(self._read(tree, self.size)):
            expected = merkle.leaf_hash(lines[place])
            if line != lines[place] or tree.subtree(0, self.size + place) != expected:
                raise LedgerForked("ledger: an entry read back is not the one written", hint="check the medium")

    def _finish_rotation(self) -> None:
        """Where the next key signed the head too: keep the receipt of `key.rotated`, and let that key take over."""
        keys = self._keys
        if keys.next is None or not notes.signed_by(self._note, keys.vkeys[1]):
            return
        index = self.size - 1
        folder = self.folder / "rotations"
        folder.mkdir(exist_ok=True)
        tiles.sync_folder(self.folder)
        tiles.replace_file(folder / f"{index}.tlog-proof", self.receipt(index))
        self._at("receipt")
        self._keys = keys.promoted()
        self._at("promoted")

    def _body(self) -> bytes:
        """The signed text of the present checkpoint, with its blank line."""
        return self._signed.body() + b"\n"

    def _publish(self, note: bytes) -> None:
        tiles.replace_file(self.folder / "checkpoint", note)
        self._adopt(note)

    def _drop_partials(self, level: int, index: int) -> None:
        """Delete the partial tiles of one place, now that the full tile is there."""
        for name in (level, "entries") if level == 0 else (level,):
            folder = (self.folder / tiles.tile_path(name, index, 1)).parent
            for one in sorted(folder.glob("*")):
                one.unlink()
            with contextlib.suppress(FileNotFoundError):
                folder.rmdir()

    # ------------------------------------------------------------ never fork

    def _compare(self) -> None:
        """Take over the head and require the tree on disk to have its root; LedgerForked otherwise."""
        try:
            note = self._head.read_bytes()
        except FileNotFoundError:
            if not self._head.parent.is_dir():
                raise Unavailable("ledger: the folder of the head is not there", hint=_AWAY) from None
            raise LedgerForked("ledger: the head, the last checkpoint's second place, is lost", hint=_CLOSED) from None
        except OSError as error:
            raise Unavailable(f"ledger: the head cannot be read ({error.strerror})", hint=_AWAY) from None
        if str(self._keys.vkey) not in (self._keys.folder / LOG_VKEY).read_text("ascii"):
            self._keys = SigningKeys.load(self._keys.folder)  # another process rotated the key
        signed = notes.parse(note, *self._keys.vkeys)
        if signed.size < self.size:
            raise LedgerForked(f"ledger: the head went back from {self.size} to {signed.size} entries", hint=_CLOSED)
        tree = tiles.Tree(self.folder, signed.size)
        if merkle.root(signed.size, tree.subtree) != signed.root:
            raise LedgerForked(
                f"ledger: the tiles do not have the root that was signed for {signed.size} entries",
                hint="bring the tiles back from an auditor's package",
            )
        self._adopt(note)

    def _recover(self) -> None:
        """Repair after a crash: compare with the head, delete what was never signed, publish the head."""
        self._compare()
        try:
            published = (self.folder / "checkpoint").read_bytes()
        except FileNotFoundError:
            published = b""
        if published != self._note:
            older = notes.parse(published, *self._keys.vkeys) if published else None
            if older == self._signed:  # the same, with what witnesses added
                self._note = published
            elif older is not None:
                self._extends(older)
        for left in self.folder.glob(".*.new"):
            left.unlink()
        if (self.folder / "tile").is_dir():
            tiles.sweep(self.folder, self.size)
        if published != self._note:
            self._at("republish")
            self._publish(self._note)
        self._finish_rotation()
        (self.folder / _UNFINISHED).unlink(missing_ok=True)

    def _extends(self, older: Checkpoint) -> None:
        """Require the published checkpoint to be a prefix of the head; LedgerForked if it is newer or another."""
        if older.size > self.size:
            raise LedgerForked(
                f"ledger: `checkpoint` has {older.size} entries, the head {self.size}: the head is the older one",
                hint=_CLOSED,
            )
        if merkle.root(older.size, self._tree.subtree) != older.root:
            raise LedgerForked("ledger: `checkpoint` and head are of two histories", hint=_CLOSED)

    def _adopt(self, note: bytes) -> None:
        self._signed, self._note = notes.parse(note, *self._keys.vkeys), note
        self._tree = tiles.Tree(self.folder, self._signed.size)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise WriterBusy("ledger: another process is writing it", hint="try again when it is done") from None
            yield
        finally:
            os.close(handle)

    # ------------------------------------------------------------ reading

    def _lines(self, start: int) -> Iterator[tuple[int, bytes]]:
        yield from enumerate(self._read(self._tree, start), start)

    def _read(self, tree: tiles.Tree, start: int) -> Iterator[bytes]:
        for bundle in range(start // tiles.WIDTH, -(-tree.size // tiles.WIDTH)):
            skip = max(0, start - bundle * tiles.WIDTH)
            yield from tree.bundle(bundle)[skip:]

    def _at(self, boundary: str) -> None:
        if self.at is not None:
            self.at(boundary)


def _bundle_bytes(tree: tiles.Tree, index: int) -> bytes:
    return tiles.join_bundle(tree.bundle(index))


def _fold(tile: bytes) -> bytes:
    """Return the root of a full tile: its one hash in the level above."""
    row = [tile[at : at + 32] for at in range(0, len(tile), 32)]
    while len(row) > 1:
        row = [merkle.node_hash(row[i], row[i + 1]) for i in range(0, len(row), 2)]
    return row[0]

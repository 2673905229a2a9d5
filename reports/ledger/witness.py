"""The witness: somebody else's memory of a ledger, which makes it impossible to show two histories.

A witness keeps, for each log it knows, the last checkpoint that it cosigned. It cosigns a newer one only with a proof
that the newer tree begins with the older (C2SP tlog-witness, tlog-cosignature).

* It refuses a smaller tree, another root at the same size, and a log whose key it was not given.
* To compare, to store durably and to cosign are one step under one lock: what it answered it remembers.
* One key per name: the message that is signed does not name the witness. The operator must not hold it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # Any: the state file, before it is checked

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fangxin.data.errors import DoesNotHold, FangxinError, InputError, NotAllowed
from fangxin.reports.ledger import checkpoint as notes
from fangxin.reports.ledger import merkle, tiles
from fangxin.reports.ledger.checkpoint import WITNESS_KEY, Checkpoint, VKey

FORMAT = "fangxin/witness/1"
MOST_PROOF = 63


class UnknownLog(NotAllowed):
    """The witness was never given this log's key."""


class Conflict(DoesNotHold):
    """The proof starts from another size than the one that was cosigned last; `known` is that size."""

    def __init__(self, known: int) -> None:
        super().__init__(f"witness: cosigned {known} entries last", hint=f"prove from {known}")
        self.known = known


@dataclass(frozen=True)
class Seen:
    """What a witness knows of a log: its keys, and the checkpoint that it cosigned last (of size 0 before any)."""

    vkeys: tuple[VKey, ...]
    last: Checkpoint
    note: bytes


class Witness:
    """A witness whose memory is one JSON file; its key lies beside it, `FILE.key.pem`, mode 0600."""

    def __init__(self, state: Path, name: str, key: Ed25519PrivateKey) -> None:
        self.state, self.name = state, name
        self._key = key

    @classmethod
    def create(cls, state: Path, name: str) -> Witness:
        """Make a key and an empty memory; NotAllowed where there is one, InputError for a name that cannot be one."""
        if not notes.is_origin(name):
            raise InputError(
                "the witness's name is not a schema-less URL",
                hint="letters, digits and . _ : / - such as audit.example/w1",
            )
        path = _key_path(state)
        if state.exists():
            raise NotAllowed(f"{state.name}: a witness remembers there already", hint="leave out --name")
        state.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            raise NotAllowed(
                f"{path.name}: a key without the memory that belongs to it",
                hint="bring the memory back; where it is lost, start a witness of another name in another file",
            )
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        found = cls(state, name, key)
        found._keep({})
        return found

    @classmethod
    def load(cls, state: Path) -> Witness:
        """Open a witness; InputError where its memory or key cannot be read: it then cosigns nothing."""
        if not state.is_file():
            raise InputError(f"{state.name}: no witness remembers there", hint="--name NAME starts a new one")
        try:
            key = serialization.load_pem_private_key(_key_path(state).read_bytes(), password=None)
        except (OSError, ValueError, TypeError):
            raise InputError(f"{_key_path(state).name}: cannot be read as a private key") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise InputError(f"{_key_path(state).name}: not an Ed25519 key")
        name = _document(state)["name"]
        found = cls(state, str(name), key)
        found.logs()
        return found

    @property
    def vkey(self) -> VKey:
        """What everybody who counts on this witness needs."""
        return VKey(self.name, self._key.public_key().public_bytes_raw(), WITNESS_KEY)

    def logs(self) -> dict[str, Seen]:
        """Return what it remembers, by origin."""
        found = {}
        for origin, one in _document(self.state)["logs"].items():
            try:
                vkeys = tuple(notes.parse_vkey(text) for text in one["vkeys"])
                note = str(one["note"]).encode()
                last = notes.parse(note, *vkeys) if note else Checkpoint(origin, 0, merkle.EMPTY)
            except (KeyError, TypeError, IndexError, DoesNotHold):
                raise InputError(
                    f"{self.state.name}: not the memory that a witness wrote", hint="bring it back; never start it anew"
                ) from None
            found[origin] = Seen(vkeys, last, note)
        return found

    def know(self, vkey: VKey) -> None:
        """Take a log's key, as it was got from outside; a further key of the same origin is one that was rotated to."""
        with self._locked():
            logs = self.logs()
            old = logs.get(vkey.name, Seen((), Checkpoint(vkey.name, 0, merkle.EMPTY), b""))
            if vkey not in old.vkeys:
                logs[vkey.name] = Seen((vkey, *old.vkeys), old.last, old.note)
                self._keep(logs)

    def see(self, note: bytes, old: int, proof: Sequence[bytes], now: int) -> bytes:
        """Cosign a checkpoint that extends the one cosigned last; returns the signature line. `now` in POSIX seconds.

        Raises UnknownLog, Conflict when `old` is not the size remembered, and DoesNotHold for everything that is
        false: a signature, a smaller tree, another root at the same size, a proof.
        """
        origin = note.partition(b"\n")[0].decode("ascii", "replace")
        with self._locked():
            logs = self.logs()
            if origin not in logs:
                raise UnknownLog("witness: was not given the key of that log", hint="--log FILE names its log.vkey")
            known = logs[origin]
            new = notes.parse(note, *known.vkeys)
            if old > new.size:
                raise InputError(f"witness: the proof starts at {old}, the checkpoint ends at {new.size} entries")
            if old != known.last.size:
                raise Conflict(known.last.size)
            if len(proof) > MOST_PROOF:
                raise DoesNotHold(f"witness: a proof of more than {MOST_PROOF} hashes")
            merkle.check_consistency(known.last.size, new.size, known.last.root, new.root, proof)
            logs[origin] = Seen(known.vkeys, new, note)
            self._keep(logs)  # before it answers
        return notes.cosign(new.body(), self.name, self._key, now)

    def last(self, origin: str, now: int) -> bytes:
        """Return the checkpoint of a log that was cosigned last, with a fresh line of ours: nothing newer.

        An operator whose second place is lost goes on only if it is theirs. UnknownLog where nothing was cosigned.
        """
        known = self.logs().get(origin)
        if known is None or not known.note:
            raise UnknownLog("witness: cosigned nothing of that log", hint="a log's origin, as its checkpoint names it")
        body, log_lines, blank = known.last.body(), known.note.partition(b"\n\n")[2], b"\n"
        own = [line for line in log_lines.split(b"\n") if line and not line.startswith(f"— {self.name} ".encode())]
        line = notes.cosign(body, self.name, self._key, now)
        return body + blank + b"".join(one + b"\n" for one in own) + line

    def visit(self, source: tiles.Source, now: int, origin: str | None = None) -> tuple[Checkpoint, bytes]:
        """Read a log's checkpoint and tiles, prove by them that it extends what was seen, and cosign.

        `source` reads a file of the ledger by name. Returns the checkpoint and the signature line.
        """
        try:
            note = source("checkpoint")
        except FileNotFoundError:
            raise InputError("witness: no `checkpoint` there", hint="name a ledger's folder or its URL") from None
        named = note.partition(b"\n")[0].decode("ascii", "replace")
        known = self.logs().get(named)
        if known is None or (origin is not None and named != origin):
            raise UnknownLog("witness: was not given the key of that log", hint="--log FILE names its log.vkey")
        new = notes.parse(note, *known.vkeys)
        last = known.last
        if new.size < last.size:
            raise DoesNotHold(
                f"witness: the log shows {new.size} entries, {last.size} were cosigned before: it was cut, or is older",
                hint="ask the operator for the checkpoint that follows the one you cosigned",
            )
        tree = tiles.Tree(source, new.size)
        try:
            proof = merkle.consistency(last.size, new.size, tree.subtree)
        except FangxinError as error:
            raise DoesNotHold(f"witness: no consistency proof can be made: {error.message}") from None
        return new, self.see(note, last.size, proof, now)

    def _keep(self, logs: dict[str, Seen]) -> None:
        document = {
            "format": FORMAT,
            "name": self.name,
            "logs": {
                origin: {"vkeys": [str(key) for key in one.vkeys], "note": one.note.decode()}
                for origin, one in sorted(logs.items())
            },
        }
        tiles.replace_file(self.state, json.dumps(document, indent=1, ensure_ascii=False).encode())

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        path = self.state.with_name(f"{self.state.name}.lock")
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _key_path(state: Path) -> Path:
    return state.with_name(f"{state.name}.key.pem")


def _document(state: Path) -> dict[str, Any]:
    try:
        found = json.loads(state.read_bytes())
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or found.get("format") != FORMAT or not isinstance(found.get("logs"), dict):
        raise InputError(
            f"{state.name}: not the memory that a witness wrote", hint="bring it back; never start it anew"
        )
    return found

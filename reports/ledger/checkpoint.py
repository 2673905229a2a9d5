"""Checkpoints: what a ledger signs, as C2SP signed notes (signed-note, tlog-checkpoint, tlog-proof).

Bytes in, values out, nothing in between: a parser refuses whatever it would not itself have written.

* body: `<origin>\\n<size>\\n<base64(root)>\\n`, no extension lines;
* note: body, blank line, signature lines `— <name> <base64(keyID[4] || signature)>\\n` (U+2014);
* the Ed25519 signature covers the body with its last newline, without the blank line;
* keyID = SHA-256(name || 0x0A || 0x01 || public key)[:4]; vkey = `<name>+<hex>+<base64(0x01 || public key)>`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fangxin.data.errors import DoesNotHold
from fangxin.reports.ledger.merkle import EMPTY

_ED25519 = b"\x01"
_DASH = "— "
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,254}", re.ASCII)
_NOTE_LIMIT = 65_536
_SIGNATURES = 16


@dataclass(frozen=True)
class Checkpoint:
    """A signed head: the tree of `size` entries of `origin` has this root."""

    origin: str
    size: int
    root: bytes

    def body(self) -> bytes:
        """Return the signed text."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n".encode()


@dataclass(frozen=True)
class VKey:
    """A verifier key: the name of a log and its Ed25519 public key (32 bytes)."""

    name: str
    key: bytes

    @property
    def id(self) -> bytes:
        """The four bytes that announce this key's signatures."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.key).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(_ED25519 + self.key).decode()}"


def is_origin(text: str) -> bool:
    """Tell whether a text can be an origin: a schema-less URL in ASCII, no space, no plus."""
    return _NAME.fullmatch(text) is not None


def parse_vkey(text: str) -> VKey:
    """Read `<name>+<8 hex>+<base64>`; DoesNotHold if it is not an Ed25519 log key or its ID is not its key's."""
    parts = text.split("+", 2)  # base64 may itself contain a plus
    if len(parts) != 3 or not is_origin(parts[0]):
        raise DoesNotHold("verifier key: expected name+id+key")
    raw = _decode(parts[2], "verifier key")
    if len(raw) != 33 or raw[:1] != _ED25519:
        raise DoesNotHold("verifier key: expected type 0x01 and 32 bytes of Ed25519 key")
    found = VKey(parts[0], raw[1:])
    if found.id.hex() != parts[1]:
        raise DoesNotHold("verifier key: its ID does not belong to its key")
    return found


def sign(checkpoint: Checkpoint, key: Ed25519PrivateKey) -> bytes:
    """Return the checkpoint as a note with one signature line by the log key."""
    body = checkpoint.body()
    vkey = VKey(checkpoint.origin, key.public_key().public_bytes_raw())
    line = base64.b64encode(vkey.id + key.sign(body)).decode()
    return body + f"\n{_DASH}{checkpoint.origin} {line}\n".encode()


def open_note(note: bytes, vkey: VKey) -> bytes:
    """Return the text of a note that this key signed; DoesNotHold for anything else."""
    if len(note) > _NOTE_LIMIT:
        raise DoesNotHold("note: larger than 64 KiB")
    if any(byte < 0x20 and byte != 0x0A for byte in note):
        raise DoesNotHold("note: a control character other than newline")
    body, blank, tail = note.rpartition(b"\n\n")
    if not blank or not body or not tail.endswith(b"\n"):
        raise DoesNotHold("note: expected a text, a blank line and signature lines that end in a newline")
    body += b"\n"
    lines = tail[:-1].split(b"\n")
    if len(lines) > _SIGNATURES:
        raise DoesNotHold("note: more than 16 signature lines")
    seen: set[tuple[str, bytes]] = set()
    for line in lines:
        name, signature = _signature_line(line)
        if (name, signature[:4]) in seen:
            raise DoesNotHold("note: the same key signed twice")
        seen.add((name, signature[:4]))
        if (name, signature[:4]) == (vkey.name, vkey.id):
            try:
                Ed25519PublicKey.from_public_bytes(vkey.key).verify(signature[4:], body)
            except InvalidSignature:
                raise DoesNotHold("note: the log key's signature is false") from None
    if (vkey.name, vkey.id) not in seen:
        raise DoesNotHold("note: no signature by the log key")
    return body


def parse(note: bytes, vkey: VKey) -> Checkpoint:
    """Read a checkpoint note of the log this key belongs to; DoesNotHold for anything else."""
    lines = open_note(note, vkey).split(b"\n")
    if len(lines) != 4:
        raise DoesNotHold("checkpoint: expected origin, size and root, one a line, and nothing else")
    try:
        origin, size, root = (line.decode() for line in lines[:3])
    except UnicodeDecodeError:
        raise DoesNotHold("checkpoint: not UTF-8") from None
    if origin != vkey.name:
        raise DoesNotHold("checkpoint: of another origin")
    if not _DECIMAL.fullmatch(size):
        raise DoesNotHold("checkpoint: the size is not a plain decimal")
    found = Checkpoint(origin, int(size), _decode(root, "checkpoint"))
    if len(found.root) != 32 or (found.size == 0 and found.root != EMPTY):
        raise DoesNotHold("checkpoint: not a root of that size")
    return found


def proof_text(index: int, proof: Sequence[bytes], note: bytes) -> bytes:
    """Return a `.tlog-proof` receipt: index, inclusion proof and the checkpoint it leads to, verbatim."""
    hashes = "".join(f"{base64.b64encode(one).decode()}\n" for one in proof)
    return f"c2sp.org/tlog-proof@v1\nindex {index}\n{hashes}\n".encode() + note


def _signature_line(line: bytes) -> tuple[str, bytes]:
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise DoesNotHold("note: a signature line is not UTF-8") from None
    parts = text.removeprefix(_DASH).split(" ")
    if not text.startswith(_DASH) or len(parts) != 2 or not parts[0] or "+" in parts[0] or len(parts[0].split()) != 1:
        raise DoesNotHold("note: expected `— name base64` on a signature line")
    raw = _decode(parts[1], "signature line")
    if len(raw) < 5:
        raise DoesNotHold("note: a signature is too short")
    return parts[0], raw


def _decode(text: str, what: str) -> bytes:
    """Decode standard base64, padded, without spare bits: what does not encode back to itself is refused."""
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except ValueError:  # binascii.Error and UnicodeEncodeError are both
        raise DoesNotHold(f"{what}: not base64") from None
    if base64.b64encode(raw).decode() != text:
        raise DoesNotHold(f"{what}: base64 that does not encode back to itself")
    return raw

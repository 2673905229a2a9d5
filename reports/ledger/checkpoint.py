"""Checkpoints: what a ledger signs and witnesses cosign, as C2SP signed notes.

Standards: signed-note, tlog-checkpoint, tlog-cosignature, tlog-proof.

Bytes in, values out, nothing in between: a parser refuses whatever it would not itself have written.

* body: `<origin>\\n<size>\\n<base64(root)>\\n`, no extension lines;
* note: body, blank line, signature lines `— <name> <base64(keyID[4] || signature)>\\n` (U+2014);
* the Ed25519 signature covers the body with its last newline, without the blank line;
* keyID = SHA-256(name || 0x0A || type || public key)[:4]; vkey = `<name>+<hex>+<base64(type || public key)>`;
  type 0x01 is a log's key, 0x04 a witness's;
* a witness signs `cosignature/v1\\ntime <POSIX seconds>\\n` || body, and its line holds
  keyID || seconds (8 bytes, big-endian) || signature. The message does not name the witness: one key, one name.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fangxin.data.errors import DoesNotHold
from fangxin.reports.ledger.merkle import EMPTY

LOG_KEY, WITNESS_KEY = b"\x01", b"\x04"
_DASH = "— "
_DECIMAL = re.compile(rb"0|[1-9][0-9]{0,18}")
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
    """A verifier key: the name of a log or witness, its Ed25519 public key (32 bytes), and what it may sign."""

    name: str
    key: bytes
    kind: bytes = LOG_KEY

    @property
    def id(self) -> bytes:
        """The four bytes that announce this key's signatures."""
        return hashlib.sha256(self.name.encode() + b"\n" + self.kind + self.key).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(self.kind + self.key).decode()}"


def is_origin(text: str) -> bool:
    """Tell whether a text can be an origin: a schema-less URL in ASCII, no space, no plus."""
    return _NAME.fullmatch(text) is not None


def parse_vkey(text: str, kind: bytes = LOG_KEY) -> VKey:
    """Read `<name>+<8 hex>+<base64>`; DoesNotHold if it is no Ed25519 key of that kind or its ID is not its key's."""
    parts = text.split("+", 2)  # base64 may itself contain a plus
    if len(parts) != 3 or not is_origin(parts[0]):
        raise DoesNotHold("verifier key: expected name+id+key")
    raw = decode(parts[2], "verifier key")
    if len(raw) != 33 or raw[:1] != kind:
        raise DoesNotHold(f"verifier key: expected type 0x{kind.hex()} and 32 bytes of Ed25519 key")
    found = VKey(parts[0], raw[1:], kind)
    if found.id.hex() != parts[1]:
        raise DoesNotHold("verifier key: its ID does not belong to its key")
    return found


def sign(checkpoint: Checkpoint, *keys: Ed25519PrivateKey) -> bytes:
    """Return the checkpoint as a note with a signature line by each log key: one, and two where a key is rotated."""
    body, lines = checkpoint.body(), []
    for key in keys:
        vkey = VKey(checkpoint.origin, key.public_key().public_bytes_raw())
        lines.append(f"{_DASH}{checkpoint.origin} {base64.b64encode(vkey.id + key.sign(body)).decode()}\n")
    return body + b"\n" + "".join(lines).encode()


def cosign(body: bytes, name: str, key: Ed25519PrivateKey, when: int) -> bytes:
    """Return a witness's signature line (with its newline) over a checkpoint's body; `when` in POSIX seconds."""
    vkey = VKey(name, key.public_key().public_bytes_raw(), WITNESS_KEY)
    signature = key.sign(_cosigned(body, when))
    return f"{_DASH}{name} {base64.b64encode(vkey.id + struct.pack('>Q', when) + signature).decode()}\n".encode()


def cosignatures(note: bytes, witnesses: Sequence[VKey]) -> dict[VKey, int]:
    """Return when each of these witnesses cosigned a note, in POSIX seconds; DoesNotHold if one's line is false."""
    body, lines = _split(note)
    found: dict[VKey, int] = {}
    for name, raw in lines:
        for one in witnesses:
            if (name, raw[:4]) != (one.name, one.id):
                continue
            if len(raw) != 4 + 8 + 64:
                raise DoesNotHold(f"note: the cosignature of {one.name} is not 72 bytes long")
            when = int.from_bytes(raw[4:12], "big")
            try:
                Ed25519PublicKey.from_public_bytes(one.key).verify(raw[12:], _cosigned(body, when))
            except InvalidSignature:
                raise DoesNotHold(f"note: the cosignature of {one.name} is false") from None
            found[one] = when
    return found


def with_lines(note: bytes, lines: bytes) -> bytes:
    """Return a note with further signature lines; those that it has stay as they are, the same line comes once."""
    have = note.split(b"\n")
    new = b"".join(line + b"\n" for line in lines.split(b"\n") if line and line not in have)
    _split(note + new)
    return note + new


def open_note(note: bytes, *vkeys: VKey) -> bytes:
    """Return the text of a note that at least one of these keys signed; DoesNotHold for anything else."""
    body, lines = _split(note)
    known = {(one.name, one.id): one for one in vkeys}
    good = 0
    for name, raw in lines:
        vkey = known.get((name, raw[:4]))
        if vkey is not None:
            try:
                Ed25519PublicKey.from_public_bytes(vkey.key).verify(raw[4:], body)
            except InvalidSignature:
                raise DoesNotHold("note: the log key's signature is false") from None
            good += 1
    if not good:
        raise DoesNotHold("note: no signature by the log key")
    return body


def signed_by(note: bytes, vkey: VKey) -> bool:
    """Tell whether a note has a line that claims to be this key's; whether it is true says `open_note`."""
    return any((name, raw[:4]) == (vkey.name, vkey.id) for name, raw in _split(note)[1])


def parse(note: bytes, *vkeys: VKey) -> Checkpoint:
    """Read a checkpoint note of the log these keys belong to; DoesNotHold for anything else."""
    lines = open_note(note, *vkeys).split(b"\n")
    if len(lines) != 4:
        raise DoesNotHold("checkpoint: expected origin, size and root, one a line, and nothing else")
    try:
        origin, size, root = (line.decode() for line in lines[:3])
    except UnicodeDecodeError:
        raise DoesNotHold("checkpoint: not UTF-8") from None
    if origin != vkeys[0].name:
        raise DoesNotHold("checkpoint: of another origin")
    found = Checkpoint(origin, decimal(size.encode()), decode(root, "checkpoint"))
    if len(found.root) != 32 or (found.size == 0 and found.root != EMPTY):
        raise DoesNotHold("checkpoint: not a root of that size")
    return found


def proof_text(index: int, proof: Sequence[bytes], note: bytes) -> bytes:
    """Return a `.tlog-proof` receipt: index, inclusion proof and the checkpoint it leads to, verbatim."""
    hashes = "".join(f"{base64.b64encode(one).decode()}\n" for one in proof)
    return f"c2sp.org/tlog-proof@v1\nindex {index}\n{hashes}\n".encode() + note


def _cosigned(body: bytes, when: int) -> bytes:
    return f"cosignature/v1\ntime {when}\n".encode() + body


def _split(note: bytes) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Return a note's text and its signature lines as (name, key ID || signature); nothing is verified yet."""
    if len(note) > _NOTE_LIMIT:
        raise DoesNotHold("note: larger than 64 KiB")
    if any(byte < 0x20 and byte != 0x0A for byte in note):
        raise DoesNotHold("note: a control character other than newline")
    body, blank, tail = note.rpartition(b"\n\n")
    if not blank or not body or not tail.endswith(b"\n"):
        raise DoesNotHold("note: expected a text, a blank line and signature lines that end in a newline")
    lines = [_signature_line(line) for line in tail[:-1].split(b"\n")]
    if len(lines) > _SIGNATURES:
        raise DoesNotHold("note: more than 16 signature lines")
    if len({(name, raw[:4]) for name, raw in lines}) != len(lines):
        raise DoesNotHold("note: the same key signed twice")
    return body + b"\n", lines


def _signature_line(line: bytes) -> tuple[str, bytes]:
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise DoesNotHold("note: a signature line is not UTF-8") from None
    parts = text.removeprefix(_DASH).split(" ")
    if not text.startswith(_DASH) or len(parts) != 2 or not parts[0] or "+" in parts[0] or len(parts[0].split()) != 1:
        raise DoesNotHold("note: expected `— name base64` on a signature line")
    raw = decode(parts[1], "signature line")
    if len(raw) < 5:
        raise DoesNotHold("note: a signature is too short")
    return parts[0], raw


def decimal(text: bytes) -> int:
    """Read a plain decimal number: no sign, space, underscore, leading zero or digit of another script."""
    if not _DECIMAL.fullmatch(text):
        raise DoesNotHold("checkpoint: the size is not a plain decimal")
    return int(text)


def decode(text: str, what: str) -> bytes:
    """Decode standard base64, padded, without spare bits: what does not encode back to itself is refused."""
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except ValueError:  # binascii.Error and UnicodeEncodeError are both
        raise DoesNotHold(f"{what}: not base64") from None
    if base64.b64encode(raw).decode() != text:
        raise DoesNotHold(f"{what}: base64 that does not encode back to itself")
    return raw

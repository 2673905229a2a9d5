"""The two signing keys of a home: the log key signs checkpoints, the evidence key signs statements; never otherwise.

Both are Ed25519, in PEM files (PKCS#8, mode 0600). Beside them lie the public halves that an auditor obtains
outside any package: `log.vkey` (C2SP verifier key; its name is the ledger's origin) and `evidence.pub.pem`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fangxin.data.errors import DoesNotHold, InputError, NotAllowed
from fangxin.reports.ledger.checkpoint import VKey, is_origin, parse_vkey
from fangxin.reports.ledger.tiles import sync_folder

_LOG, _EVIDENCE = "log.key.pem", "evidence.key.pem"
LOG_VKEY, EVIDENCE_PUBLIC = "log.vkey", "evidence.pub.pem"


@dataclass(frozen=True)
class SigningKeys:
    """The log key and the evidence key of one origin; private halves never show in a repr."""

    origin: str
    folder: Path
    log: Ed25519PrivateKey = field(repr=False)
    evidence: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def create(cls, folder: Path, *, origin: str) -> SigningKeys:
        """Make both keys and write them; InputError for a bad origin, NotAllowed where keys already are."""
        if not is_origin(origin):
            raise InputError(
                "the ledger's origin is not a schema-less URL",
                hint="letters, digits and . _ : / - only, such as ledger.example.com/erasure/2026",
            )
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if any((folder / name).exists() for name in (_LOG, _EVIDENCE)):
            raise NotAllowed(f"{folder.name}: signing keys exist already", hint="one origin has one log key, for ever")
        log, evidence = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        vkey = VKey(origin, log.public_key().public_bytes_raw())
        _write(folder / _LOG, _private_pem(log), 0o600)
        _write(folder / _EVIDENCE, _private_pem(evidence), 0o600)
        _write(folder / LOG_VKEY, f"{vkey}\n".encode(), 0o644)
        _write(folder / EVIDENCE_PUBLIC, _public_pem(evidence), 0o644)
        sync_folder(folder)
        return cls(origin, folder, log, evidence)

    @classmethod
    def load(cls, folder: Path) -> SigningKeys:
        """Read both keys; InputError if they are missing, DoesNotHold if the public halves are not theirs."""
        log, evidence = _load(folder / _LOG), _load(folder / _EVIDENCE)
        try:
            vkey = parse_vkey((folder / LOG_VKEY).read_text("ascii").removesuffix("\n"))
            public = (folder / EVIDENCE_PUBLIC).read_bytes()
        except (OSError, UnicodeDecodeError):
            raise InputError(f"{folder.name}: {LOG_VKEY} or {EVIDENCE_PUBLIC} cannot be read") from None
        if vkey.key != log.public_key().public_bytes_raw() or public != _public_pem(evidence):
            raise DoesNotHold(
                f"{folder.name}: a public key does not belong to the private key beside it",
                hint="bring the folder back from its own backup; never mix two origins' keys",
            )
        return cls(vkey.name, folder, log, evidence)

    @property
    def vkey(self) -> VKey:
        """The verifier key of the log."""
        return VKey(self.origin, self.log.public_key().public_bytes_raw())

    def public_files(self) -> dict[str, bytes]:
        """Return the files of the public halves by name, as they travel in a package."""
        return {LOG_VKEY: f"{self.vkey}\n".encode(), EVIDENCE_PUBLIC: _public_pem(self.evidence)}


def _private_pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _public_pem(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _load(path: Path) -> Ed25519PrivateKey:
    try:
        found = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError):
        raise InputError(f"{path.name}: cannot be read as a private key", hint="`fangxin init` makes it") from None
    if not isinstance(found, Ed25519PrivateKey):
        raise InputError(f"{path.name}: expected an Ed25519 key")
    return found


def _write(path: Path, content: bytes, mode: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())

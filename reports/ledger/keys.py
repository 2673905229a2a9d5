"""The two signing keys of a home: the log key signs checkpoints, the evidence key signs statements; never otherwise.

Both are Ed25519, in PEM files (PKCS#8, mode 0600). Beside them lie the public halves that an auditor obtains
outside any package: `log.vkey` (C2SP verifier key; its name is the ledger's origin) and `evidence.pub.pem`.

A log key is rotated in steps that a crash may end anywhere: `log.next.pem` is written, the ledger signs one checkpoint
with both keys, and only then does the next key take the old one's place; what the old one signed is still checked
with `log.former.vkeys`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fangxin.data.errors import DoesNotHold, InputError, NotAllowed
from fangxin.reports.ledger.checkpoint import LOG_KEY, WITNESS_KEY, VKey, is_origin, parse_vkey
from fangxin.reports.ledger.tiles import replace_file, sync_folder

_LOG, _NEXT, _EVIDENCE = "log.key.pem", "log.next.pem", "evidence.key.pem"
LOG_VKEY, FORMER, EVIDENCE_PUBLIC = "log.vkey", "log.former.vkeys", "evidence.pub.pem"
WITNESSES, TSA_CA, CERTIFICATE_CA = "witness.vkeys", "tsa-ca.pem", "certificate-ca.pem"


def check_origin(origin: str) -> None:
    """Raise InputError for what cannot be a ledger's origin."""
    if not is_origin(origin):
        raise InputError(
            "the ledger's origin is not a schema-less URL",
            hint="letters, digits and . _ : / - only, such as ledger.example.com/erasure/2026",
        )


@dataclass(frozen=True)
class SigningKeys:
    """The log key and the evidence key of one origin; private halves never show in a repr."""

    origin: str
    folder: Path
    log: Ed25519PrivateKey = field(repr=False)
    evidence: Ed25519PrivateKey = field(repr=False)
    next: Ed25519PrivateKey | None = field(default=None, repr=False)  # while the log key is being rotated
    former: tuple[VKey, ...] = ()

    @classmethod
    def create(cls, folder: Path, *, origin: str) -> SigningKeys:
        """Make both keys and write them; InputError for a bad origin, NotAllowed where keys already are."""
        check_origin(origin)
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
            former = _vkeys(folder / FORMER, LOG_KEY)
        except (OSError, UnicodeDecodeError):
            raise InputError(f"{folder.name}: {LOG_VKEY} or {EVIDENCE_PUBLIC} cannot be read") from None
        if (
            vkey in former and vkey.key != log.public_key().public_bytes_raw()
        ):  # a rotation, cut off before its last step
            vkey = VKey(vkey.name, log.public_key().public_bytes_raw())
            replace_file(folder / LOG_VKEY, f"{vkey}\n".encode())
        if vkey.key != log.public_key().public_bytes_raw() or public != _public_pem(evidence):
            raise DoesNotHold(
                f"{folder.name}: a public key does not belong to the private key beside it",
                hint="bring the folder back from its own backup; never mix two origins' keys",
            )
        following = _load(folder / _NEXT) if (folder / _NEXT).exists() else None
        return cls(vkey.name, folder, log, evidence, following, tuple(one for one in former if one != vkey))

    def with_next(self) -> SigningKeys:
        """Return the same keys and, durably written, the one that will follow the log key; made once."""
        if self.next is not None:
            return self
        path = self.folder / _NEXT
        if not path.exists():
            following = Ed25519PrivateKey.generate()
            temporary = path.with_name(f".{_NEXT}.new")
            temporary.unlink(missing_ok=True)
            _write(temporary, _private_pem(following), 0o600)
            temporary.rename(path)
            sync_folder(self.folder)
        return replace(self, next=_load(path))

    def promoted(self) -> SigningKeys:
        """Put the next key in the log key's place, durably: once a head that both signed is in its second place."""
        if self.next is None:
            return self
        former = (*self.former, self.vkey)
        replace_file(self.folder / FORMER, "".join(f"{one}\n" for one in former).encode())
        (self.folder / _NEXT).replace(self.folder / _LOG)
        sync_folder(self.folder)
        found = replace(self, log=self.next, next=None, former=former)
        replace_file(self.folder / LOG_VKEY, f"{found.vkey}\n".encode())
        return found

    @property
    def vkey(self) -> VKey:
        """The verifier key of the log."""
        return VKey(self.origin, self.log.public_key().public_bytes_raw())

    @property
    def vkeys(self) -> tuple[VKey, ...]:
        """The verifier keys that may have signed something of this log: the present one first, the next, the former."""
        following = () if self.next is None else (VKey(self.origin, self.next.public_key().public_bytes_raw()),)
        return (self.vkey, *following, *self.former)

    @property
    def witnesses(self) -> tuple[VKey, ...]:
        """The witnesses that this home knows: `witness.vkeys`, one verifier key of type 0x04 a line."""
        try:
            return _vkeys(self.folder / WITNESSES, WITNESS_KEY)
        except UnicodeDecodeError:
            raise InputError(f"{WITNESSES}: not ASCII", hint="one verifier key of a witness a line") from None

    def public_files(self) -> dict[str, bytes]:
        """Return the public files by name, as they travel in a package: keys, witnesses and CAs."""
        found = {LOG_VKEY: f"{self.vkey}\n".encode(), EVIDENCE_PUBLIC: _public_pem(self.evidence)}
        if self.witnesses:
            found[WITNESSES] = "".join(f"{one}\n" for one in self.witnesses).encode()
        for name in (TSA_CA, CERTIFICATE_CA):
            if (self.folder / name).is_file():
                found[name] = (self.folder / name).read_bytes()
        return found


def _private_pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _public_pem(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _vkeys(path: Path, kind: bytes) -> tuple[VKey, ...]:
    if not path.exists():
        return ()
    return tuple(parse_vkey(line, kind) for line in path.read_text("ascii").split("\n") if line)


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

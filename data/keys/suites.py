"""The suites of values under keys: which AEAD an envelope's first byte stands for, one value at a time.

    01  AES-256-GCM         NIST SP 800-38D
    02  ChaCha20-Poly1305   RFC 8439; many values at once in `lanes.py`
    03  SM4-GCM             GB/T 32907 in GCM (RFC 8998); the key is HKDF-Expand-SM3(key, "fangxin/values/sm4/1", 16)

A key domain keeps one suite for ever, so that no key ever serves two algorithms; the vault remembers which. Readers
open all three.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SM3
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from fangxin.data.errors import InputError

AES, CHACHA, SM4 = 1, 2, 3
NAMES: Mapping[int, str] = {AES: "aes-256-gcm", CHACHA: "chacha20-poly1305", SM4: "sm4-gcm"}
TAG = 16
Key = bytes | memoryview


class Aead(Protocol):
    """One value under one key."""

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
        """Ciphertext and tag."""
        ...

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
        """The value; InvalidTag."""
        ...


def aead(suite: int, key: Key) -> Aead:
    """The AEAD of a suite under a key of 32 bytes; KeyError for a suite that does not exist."""
    return _SUITES[suite](key)


def code_of(name: str) -> int:
    """The code of a suite; InputError if there is none of that name."""
    for code, known in NAMES.items():
        if name == known:
            return code
    raise InputError(f"{name!r} is no suite of ours", hint=f"one of {', '.join(NAMES.values())}")


class Sm4Gcm:
    """SM4 in GCM with a key of our 32 bytes, in the shape of the other two."""

    def __init__(self, key: Key) -> None:
        self._key = HKDFExpand(SM3(), 16, b"fangxin/values/sm4/1").derive(bytes(key))

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
        """Ciphertext and tag."""
        work = Cipher(algorithms.SM4(self._key), modes.GCM(nonce)).encryptor()
        work.authenticate_additional_data(associated_data or b"")
        return work.update(data) + work.finalize() + work.tag

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
        """The value; InvalidTag, before any of it is handed out."""
        if len(data) < TAG:
            raise InvalidTag
        work = Cipher(algorithms.SM4(self._key), modes.GCM(nonce, data[-TAG:])).decryptor()
        work.authenticate_additional_data(associated_data or b"")
        return work.update(data[:-TAG]) + work.finalize()


_SUITES: Mapping[int, Callable[[Key], Aead]] = {AES: AESGCM, CHACHA: ChaCha20Poly1305, SM4: Sm4Gcm}

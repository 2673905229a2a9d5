"""AES-256-GCM over many texts at once, each under a key of its own.

OpenSSL spends more on preparing a key than on a page of 3 kB. libsodium, which comes with PyNaCl, does not, and makes
the same bytes. It works only where the processor has AES, and its functions for memory that we have laid out are taken
from where PyNaCl keeps them: where one of both is missing, OpenSSL does the work.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Sequence
from functools import cache
from itertools import compress, count, repeat
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]
KEY, NONCE, TAG = 32, 12, 16


class Texts(NamedTuple):
    """Many texts in one memory: where each begins, and how long it is. Nobody checks that they lie inside."""

    memory: Bytes  # (bytes,)
    at: Numbers
    size: Numbers


class Library(Protocol):
    """One that makes AES-256-GCM."""

    def open(self, keys: Bytes, names: Bytes, sealed: Texts, nonces: Numbers, plain: Texts) -> list[int]:
        """Decrypt each text (ciphertext and tag) to its place in `plain`; the numbers of those that do not open.

        keys (N, 32); names, the associated data, (N, n); nonces: where each lies in the memory of `sealed`. What lies
        in the place of a text that does not open means nothing.
        """
        ...

    def open_one(self, key: bytes, name: bytes, nonce: bytes, sealed: bytes) -> bytes | None:
        """One text, None if it does not open."""
        ...

    def seal(
        self, keys: Sequence[bytes], names: Sequence[bytes], nonces: Sequence[bytes], plains: Sequence[bytes]
    ) -> list[bytes]:
        """Ciphertext and tag of each text."""
        ...


@cache
def library() -> Library:
    """The faster one that is here."""
    with contextlib.suppress(ImportError, AttributeError):
        return Sodium()
    return OpenSSL()


class OpenSSL:
    """By `cryptography`."""

    def open(self, keys: Bytes, names: Bytes, sealed: Texts, nonces: Numbers, plain: Texts) -> list[int]:
        """See Library."""
        whole, out = sealed.memory.data, plain.memory.data
        closed = []
        places = zip(nonces.tolist(), sealed.at.tolist(), sealed.size.tolist(), plain.at.tolist(), strict=True)
        for number, (nonce, at, size, to) in enumerate(places):
            key, name, into = keys[number].tobytes(), names[number].tobytes(), out[to : to + size - TAG]
            try:
                AESGCM(key).decrypt_into(whole[nonce : nonce + NONCE], whole[at : at + size], name, into)
            except InvalidTag:
                closed.append(number)
        return closed

    def open_one(self, key: bytes, name: bytes, nonce: bytes, sealed: bytes) -> bytes | None:
        """See Library."""
        try:
            return AESGCM(key).decrypt(nonce, sealed, name)
        except InvalidTag:
            return None

    def seal(
        self, keys: Sequence[bytes], names: Sequence[bytes], nonces: Sequence[bytes], plains: Sequence[bytes]
    ) -> list[bytes]:
        """See Library."""
        each = zip(keys, names, nonces, plains, strict=True)
        return [AESGCM(key).encrypt(nonce, plain, name) for key, name, nonce, plain in each]


class Sodium:
    """By libsodium. ImportError or AttributeError where it cannot be."""

    def __init__(self) -> None:
        importlib.import_module("nacl.bindings").sodium_init()
        inner: Any = importlib.import_module("nacl._sodium")  # Any: made by cffi, without types
        if not inner.lib.crypto_aead_aes256gcm_is_available():
            raise ImportError("the processor has no AES of its own")
        self._ffi: Any = inner.ffi
        self._decrypt, self._encrypt = inner.lib.crypto_aead_aes256gcm_decrypt, inner.lib.crypto_aead_aes256gcm_encrypt

    def address(self) -> int:
        """Where `crypto_aead_aes256gcm_decrypt` lies, for machine code that calls it."""
        return int(self._ffi.cast("uintptr_t", self._decrypt))

    def open(self, keys: Bytes, names: Bytes, sealed: Texts, nonces: Numbers, plain: Texts) -> list[int]:
        """See Library."""
        null, rows, wide = repeat(self._ffi.NULL), np.arange(len(keys)), names.shape[1]
        keys, names = np.ascontiguousarray(keys).reshape(-1), np.ascontiguousarray(names).reshape(-1)
        codes = map(
            self._decrypt, self._places(plain.memory, plain.at), null, null,
            self._places(sealed.memory, sealed.at), sealed.size.tolist(),
            self._places(names, rows * wide), repeat(wide),
            self._places(sealed.memory, nonces), self._places(keys, rows * KEY),
        )  # fmt: skip
        return list(compress(count(), codes))

    def open_one(self, key: bytes, name: bytes, nonce: bytes, sealed: bytes) -> bytes | None:
        """See Library."""
        if len(key) != KEY or len(nonce) != NONCE:
            raise ValueError("not the length of a key or a nonce of AES-256-GCM")
        if len(sealed) < TAG:
            return None
        null, room = self._ffi.NULL, bytearray(len(sealed) - TAG)
        into = self._ffi.from_buffer(room)
        closed = self._decrypt(into, null, null, sealed, len(sealed), name, len(name), nonce, key)
        return None if closed else bytes(room)

    def seal(
        self, keys: Sequence[bytes], names: Sequence[bytes], nonces: Sequence[bytes], plains: Sequence[bytes]
    ) -> list[bytes]:
        """See Library."""
        made, null, place = [], self._ffi.NULL, self._ffi.from_buffer
        if {*map(len, keys)} - {KEY} or {*map(len, nonces)} - {NONCE}:
            raise ValueError("not the length of a key or a nonce of AES-256-GCM")
        for key, name, nonce, plain in zip(keys, names, nonces, plains, strict=True):
            room = bytearray(len(plain) + TAG)
            self._encrypt(place(room), null, plain, len(plain), name, len(name), null, nonce, key)
            made.append(bytes(room))
        return made

    def _places(self, memory: Bytes, at: Numbers) -> list[Any]:
        # Pointers into memory that the caller holds.
        addresses = memory.ctypes.data + at
        told = self._ffi.cast("unsigned char **", self._ffi.from_buffer(addresses))
        return list(self._ffi.unpack(told, len(at)))

"""A PKCS#11 token as keeper: an AES-256 key per generation that can neither be read nor exported, destroyed with
C_DestroyObject (OASIS PKCS#11 2.40, AES-GCM).

* A session is opened for each call and closed again: sessions survive no fork, and a closed one is logged out.
* The module is initialised anew in a forked child; calls of one process take turns.
* The PIN is read from its file at each login, tried once, and never again in that call: tokens lock.
* A software token is claimed as what it is; hardware claims no more than its operator states of its copies.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Collection, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from fangxin.data.errors import InputError, RootUnreachable
from fangxin.data.keys.roots.protocol import Claim, RootDamaged, RootGone, RootRefused

NONCE = 12
STATED = ("no-module-backup", "no-key-blobs-on-host")  # what an operator must state of a hardware module

_turns: dict[int, threading.RLock] = {}  # by process: a lock inherited over fork may be held by nobody
_ready: dict[tuple[int, Path], Any] = {}  # modules initialised in a process; Any: python-pkcs11 is an extra


class Token:
    """Keys on one token of one module. `stated`: ids of conditions that the operator states of it."""

    def __init__(self, module: Path, token: str, pin_file: Path, *, stated: Collection[str] = ()) -> None:
        self.module = module
        self.token = token
        self.pin_file = pin_file
        self.stated = frozenset(stated)

    def make(self, name: str) -> str:
        """Generate the key on the token; RootDamaged if the token makes one that could leave it."""
        p11 = _library()
        with self._session(rw=True) as session:
            if not self._find(session, name):
                session.generate_key(
                    p11.KeyType.AES,
                    256,
                    label=name,
                    store=True,
                    capabilities=p11.MechanismFlag.ENCRYPT | p11.MechanismFlag.DECRYPT,
                    template={
                        p11.Attribute.SENSITIVE: True,
                        p11.Attribute.EXTRACTABLE: False,
                        p11.Attribute.PRIVATE: True,
                        p11.Attribute.COPYABLE: False,
                    },
                )
            (key,) = self._find(session, name)
            if not (
                key[p11.Attribute.NEVER_EXTRACTABLE]
                and key[p11.Attribute.ALWAYS_SENSITIVE]
                and key[p11.Attribute.LOCAL]
            ):
                key.destroy()
                raise RootDamaged(
                    f"token {self.token} made a key that can be read out of it", hint="use another token or module"
                )
        return name

    def alive(self, handle: str) -> bool:
        """Whether the object is on the token."""
        with self._session() as session:
            return bool(self._find(session, handle))

    def wrap(self, handle: str, share: bytes, bound: bytes) -> bytes:
        """Nonce and AES-GCM ciphertext."""
        p11 = _library()
        nonce = os.urandom(NONCE)
        with self._session() as session:
            key = self._key(session, handle)
            return nonce + bytes(
                key.encrypt(share, mechanism=p11.Mechanism.AES_GCM, mechanism_param=p11.GCMParams(nonce, bound))
            )

    def unwrap(self, handle: str, wrapped: bytes, bound: bytes) -> bytes:
        """The share."""
        p11 = _library()
        with self._session() as session:
            key = self._key(session, handle)
            try:
                param = p11.GCMParams(wrapped[:NONCE], bound)
                return bytes(key.decrypt(wrapped[NONCE:], mechanism=p11.Mechanism.AES_GCM, mechanism_param=param))
            except (p11.DeviceError, p11.DeviceRemoved, p11.TokenNotPresent):
                raise
            except p11.PKCS11Error as wrong:  # modules report a wrong tag as they like
                raise RootDamaged(f"token {self.token} does not open it: {type(wrong).__name__}") from None

    def named(self, prefix: str) -> tuple[str, ...]:
        """Labels of the secret keys that begin so."""
        p11 = _library()
        with self._session() as session:
            labels = [
                key[p11.Attribute.LABEL]
                for key in session.get_objects({p11.Attribute.CLASS: p11.ObjectClass.SECRET_KEY})
            ]
        return tuple(label for label in labels if label.startswith(prefix))

    def destroy(self, handle: str) -> None:
        """C_DestroyObject, then look again."""
        with self._session(rw=True) as session:
            for key in self._find(session, handle):
                key.destroy()
            if self._find(session, handle):
                raise RootUnreachable(f"token {self.token} still has a key that it was told to destroy")

    def claim(self, gone: datetime | None) -> Claim:
        """Software: test-only. Hardware: what its operator states of copies."""
        p11 = _library()
        with self._module() as module:
            token = self._token(module)
            software = "softhsm" in f"{module.manufacturer_id} {module.library_description} {token.model}".lower()
            return claim_of(software, bool(token.slot.flags & p11.SlotFlag.HW_SLOT), self.stated)

    # ------------------------------------------------------------ sessions

    @contextlib.contextmanager
    def _module(self) -> Iterator[Any]:  # Any: python-pkcs11 is an extra, and its module is made of C
        p11 = _library()
        with _turns.setdefault(os.getpid(), threading.RLock()):
            try:
                if (os.getpid(), self.module) not in _ready:
                    module = p11.lib(str(self.module))
                    if any(path == self.module for _, path in _ready):
                        module.reinitialize()
                    _ready[os.getpid(), self.module] = module
                yield _ready[os.getpid(), self.module]
            except (p11.PinIncorrect, p11.PinInvalid, p11.PinLenRange):
                raise RootRefused(
                    f"token {self.token} refuses the PIN",
                    hint=f"correct the file {self.pin_file.name}; repeated wrong tries lock a token",
                ) from None
            except (p11.PinLocked, p11.PinExpired, p11.UserPinNotInitialized) as locked:
                raise RootRefused(
                    f"token {self.token} lets nobody in: {type(locked).__name__}",
                    hint="its security officer sets a new PIN",
                ) from None
            except p11.NoSuchToken:
                raise RootUnreachable(
                    f"the PKCS#11 module knows no token {self.token!r}", hint="is it plugged in, and its label right?"
                ) from None
            except RuntimeError as cause:  # pkcs11.PKCS11Error is one; so is a module that cannot be loaded
                raise RootUnreachable(
                    f"the PKCS#11 module {self.module.name} fails: {type(cause).__name__}",
                    hint="is the module installed, its device plugged in, its configuration readable?",
                ) from None

    def _token(self, module: Any) -> Any:  # Any: see _module
        return module.get_token(token_label=self.token)

    @contextlib.contextmanager
    def _session(self, *, rw: bool = False) -> Iterator[Any]:  # Any: see _module
        try:
            pin = self.pin_file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise RootRefused(
                f"the PIN of token {self.token} cannot be read from {self.pin_file.name}",
                hint="a file with the PIN alone, readable for this user only",
            ) from None
        with self._module() as module, self._token(module).open(rw=rw, user_pin=pin) as session:
            yield session

    def _find(self, session: Any, name: str) -> list[Any]:  # Any: see _module
        p11 = _library()
        return list(session.get_objects({p11.Attribute.CLASS: p11.ObjectClass.SECRET_KEY, p11.Attribute.LABEL: name}))

    def _key(self, session: Any, handle: str) -> Any:  # Any: see _module
        found = self._find(session, handle)
        if not found:
            raise RootGone(f"token {self.token} has no such key", hint="another token, or the key was destroyed")
        return found[0]


def _library() -> Any:  # Any: python-pkcs11 is an extra
    try:
        import pkcs11
    except ImportError:
        raise InputError(
            "a PKCS#11 root needs python-pkcs11, which is not installed", hint="pip install 'fangxin[pkcs11]'"
        ) from None
    return pkcs11


def claim_of(software: bool, hardware_slot: bool, stated: Collection[str]) -> Claim:
    """What C_DestroyObject is worth on such a token."""
    if software:
        return Claim("test-only", "no", ("software-token",))
    if not hardware_slot:
        return Claim("best-effort", "no", ("software-token",))
    if not set(STATED) <= set(stated):
        return Claim("best-effort", "no", ("module-copies-unknown",))
    return Claim("immediate", "if", STATED)

"""OpenBao's transit engine as keeper: an AES-256-GCM key per generation, deleted to retire it.

A key per generation and not a version: trimming removes the oldest versions only, and an aborted attempt is a newer
one. The interface is the same as HashiCorp Vault's, and only OpenBao was tried.

* Encrypting under a name that is unknown would make a key, so nothing is wrapped before `make`.
* A deleted key lives on in every earlier snapshot of the server for whoever has its unseal shares: the claim says so.
* The token goes to one host only: no redirect and no proxy is followed, and never in clear beyond this machine.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fangxin.data.errors import InputError, RootUnreachable
from fangxin.data.keys.roots.protocol import Claim, RootDamaged, RootGone, RootRefused, RootSealed

TIMEOUT = 10.0  # seconds for one answer
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Transit:
    """Keys in one transit engine. The token is read from its file at each call, so that it may be renewed."""

    def __init__(self, url: str, mount: str, token_file: Path, *, ca_file: Path | None = None) -> None:
        at = urlsplit(url)
        try:
            port = at.port or 8200
        except ValueError:
            port = 0
        if at.scheme not in ("http", "https") or not at.hostname or at.username or not mount or not port:
            raise InputError("an OpenBao root names its server and engine", hint="bao:https://host:8200/transit?…")
        if at.scheme == "http" and at.hostname not in LOOPBACK:
            raise InputError("a token never travels in clear beyond this machine", hint="use https:// for the server")
        self.tls = at.scheme == "https"
        self.host, self.port = at.hostname, port
        self.mount = mount
        self.token_file = token_file
        self.ca_file = ca_file

    def make(self, name: str) -> str:
        """Create the key if it is not there; RootDamaged if the server has one that can be exported."""
        asked = {"type": "aes256-gcm96", "exportable": False, "allow_plaintext_backup": False}
        self._call("POST", f"keys/{name}", asked)
        key = self._call("GET", f"keys/{name}")["data"]
        if key["exportable"] or key["allow_plaintext_backup"] or key["type"] != "aes256-gcm96":
            raise RootDamaged(f"OpenBao has a key under {self.mount} that can be exported", hint="use another engine")
        return name

    def alive(self, handle: str) -> bool:
        """Whether the key is there."""
        return self._call("GET", f"keys/{handle}", absent=True) is not None

    def wrap(self, handle: str, share: bytes, bound: bytes) -> bytes:
        """The engine's ciphertext, `vault:v1:…`."""
        body = {"plaintext": _text(share), "associated_data": _text(bound)}
        return str(self._call("POST", f"encrypt/{handle}", body)["data"]["ciphertext"]).encode()

    def unwrap(self, handle: str, wrapped: bytes, bound: bytes) -> bytes:
        """The share."""
        body = {"ciphertext": wrapped.decode("ascii", errors="replace"), "associated_data": _text(bound)}
        try:
            return base64.b64decode(self._call("POST", f"decrypt/{handle}", body)["data"]["plaintext"])
        except _Refusal as no:
            # Both are "400"; only looking tells a key that is gone from a share that does not open.
            if not self.alive(handle):
                raise RootGone("OpenBao has no such key", hint="another server, or the key was deleted") from no
            raise RootDamaged("OpenBao does not open it") from no

    def named(self, prefix: str) -> tuple[str, ...]:
        """Names of the engine's keys that begin so."""
        found = self._call("GET", "keys?list=true", absent=True)
        return tuple(name for name in (found["data"]["keys"] if found else ()) if name.startswith(prefix))

    def destroy(self, handle: str) -> None:
        """Allow the deletion, delete, look again."""
        if self.alive(handle):
            self._call("POST", f"keys/{handle}/config", {"deletion_allowed": True})
            self._call("DELETE", f"keys/{handle}", absent=True)
            if self.alive(handle):
                raise RootUnreachable("OpenBao still has a key that it was told to delete")

    def claim(self, gone: datetime | None) -> Claim:
        """Deleting alone: an earlier snapshot with the unseal shares of its time opens the key again."""
        return Claim("best-effort", "no", ("snapshots-revive",))

    # ------------------------------------------------------------ one call

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None, *, absent: bool = False) -> Any:
        """The server's JSON, None where there is nothing; Any: JSON."""
        try:
            token = self.token_file.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):
            raise RootRefused(
                f"OpenBao's token cannot be read from {self.token_file.name}",
                hint="a file with the token alone, readable for this user only",
            ) from None
        link = self._connect()
        try:
            headers = {"X-Vault-Token": token, "Content-Type": "application/json"}
            link.request(method, f"/v1/{self.mount}/{path}", json.dumps(body) if body else None, headers)
            answer = link.getresponse()
            status, text = answer.status, answer.read()
        except (OSError, http.client.HTTPException) as cause:
            raise RootUnreachable(
                f"OpenBao at {self.host}:{self.port} does not answer: {type(cause).__name__}",
                hint="is the server running, and its certificate known to this machine (ca-file)?",
            ) from None
        finally:
            link.close()
        if absent and status == 404:
            return None
        _check(status, self.mount)
        try:
            return json.loads(text) if text else None
        except ValueError:
            raise RootUnreachable(
                f"what answers at {self.host}:{self.port} is no OpenBao", hint="check the address"
            ) from None

    def _connect(self) -> http.client.HTTPConnection:
        if not self.tls:
            return http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT)
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except OSError:
            raise InputError("ca-file: no certificates can be read from it", hint="a PEM file") from None
        return http.client.HTTPSConnection(self.host, self.port, timeout=TIMEOUT, context=context)


class _Refusal(RootUnreachable):
    """A 400 of the engine."""


def _check(status: int, mount: str) -> None:
    """Turn a status into our errors; the server's text is not repeated."""
    if status < 300:
        return
    if status == 400:
        raise _Refusal("OpenBao refused a call", hint="look into the server's log")
    if status == 403:
        raise RootRefused(
            "OpenBao refuses the token",
            hint=f"a living token whose policy allows read, create, update, delete and list below {mount}/",
        )
    if status == 404:
        raise RootRefused(f"OpenBao has no engine {mount!r}", hint=f"bao secrets enable -path={mount} transit")
    if status == 503:
        raise RootSealed("OpenBao is sealed", hint="its operators unseal it (bao operator unseal), then repeat")
    raise RootUnreachable(f"OpenBao answers with status {status}", hint="repeat; look into the server's log")


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()

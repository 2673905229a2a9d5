"""A strict stand-in for AWS KMS: a loopback server that the real boto3 talks to (AWS JSON 1.1, TrentService).

Written from AWS's API reference, never compared with AWS itself; what it proves is about our side of the wire.

* The waiting period is 7 to 30 days; a key that waits, or is disabled, refuses all use.
* Cancelling a deletion leaves the key disabled. At its date the key is gone, with its aliases.
* Decrypting wants the key and the encryption context that encrypted.
* Signatures are not verified, only the access key id is.
"""

from __future__ import annotations

import base64
import json
import os
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ACCESS_KEY = "AKIDSTANDIN"
PAGE = 2  # aliases in one answer, so that nobody forgets to turn the page


class Refusal(Exception):
    """An error answer; its text is the code."""


@dataclass
class Key:
    secret: bytes = field(repr=False)
    state: str = "Enabled"
    deletion: datetime | None = None


class StandIn:
    """The service's state, and the knobs of its faults."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 23, 12, tzinfo=UTC)
        self.keys: dict[str, Key] = {}
        self.aliases: dict[str, str] = {}
        self.unseen: dict[str, int] = {}  # alias -> answers in which it is not yet listed
        self.delay = 0  # answers for which a new alias stays unlisted
        self.throttle = 0  # calls to be throttled
        self.lose: set[str] = set()  # operations that are done and never answered, once each
        self.calls: Counter[str] = Counter()
        self.url = ""

    def answer(self, operation: str, asked: dict[str, Any]) -> dict[str, Any]:
        self.calls[operation] += 1
        if self.throttle > 0:
            self.throttle -= 1
            raise Refusal("ThrottlingException")
        for name, key in list(self.keys.items()):
            if key.deletion is not None and key.deletion <= self.now:
                del self.keys[name]
                self.aliases = {alias: target for alias, target in self.aliases.items() if target != name}
        work: Callable[..., dict[str, Any]] | None = getattr(self, f"do_{operation}", None)
        if work is None:
            raise Refusal("UnknownOperationException")
        return work(**asked)

    # ------------------------------------------------------------ operations

    def do_CreateKey(self, KeySpec: str, KeyUsage: str, MultiRegion: bool, Description: str = "") -> dict[str, Any]:
        if (KeySpec, KeyUsage, MultiRegion) != ("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT", False):
            raise Refusal("ValidationException")
        name = str(uuid.uuid4())
        self.keys[name] = Key(os.urandom(32))
        return {"KeyMetadata": self._metadata(name)}

    def do_CreateAlias(self, AliasName: str, TargetKeyId: str) -> dict[str, Any]:
        if not AliasName.startswith("alias/") or AliasName.startswith("alias/aws/"):
            raise Refusal("InvalidAliasNameException")
        if AliasName in self.aliases:
            raise Refusal("AlreadyExistsException")
        if self._key(TargetKeyId).state == "PendingDeletion":
            raise Refusal("KMSInvalidStateException")
        self.aliases[AliasName] = self._name(TargetKeyId)
        self.unseen[AliasName] = self.delay
        return {}

    def do_ListAliases(self, Limit: int = 50, Marker: str = "") -> dict[str, Any]:
        if not Marker:
            self.unseen = {alias: left - 1 for alias, left in self.unseen.items()}
        seen = sorted(alias for alias in self.aliases if self.unseen.get(alias, -1) < 0 and alias > Marker)
        some = [{"AliasName": alias, "TargetKeyId": self.aliases[alias]} for alias in seen[:PAGE]]
        return {"Aliases": some, "Truncated": len(seen) > PAGE} | (
            {"NextMarker": seen[PAGE - 1]} if seen[PAGE:] else {}
        )

    def do_DescribeKey(self, KeyId: str) -> dict[str, Any]:
        return {"KeyMetadata": self._metadata(self._name(KeyId))}

    def do_Encrypt(self, KeyId: str, Plaintext: str, EncryptionContext: dict[str, str]) -> dict[str, Any]:
        key, nonce = self._usable(KeyId), os.urandom(12)
        sealed = AESGCM(key.secret).encrypt(nonce, base64.b64decode(Plaintext), _context(EncryptionContext))
        return {"CiphertextBlob": _text(self._name(KeyId).encode() + nonce + sealed), "KeyId": _arn(self._name(KeyId))}

    def do_Decrypt(self, CiphertextBlob: str, EncryptionContext: dict[str, str], KeyId: str = "") -> dict[str, Any]:
        blob = base64.b64decode(CiphertextBlob)
        name = blob[:36].decode("ascii", errors="replace")
        if KeyId:
            self._key(KeyId)
        if name not in self.keys and name != self._name(KeyId):
            raise Refusal("InvalidCiphertextException")
        if KeyId and self._name(KeyId) != name:
            raise Refusal("IncorrectKeyException")
        try:
            plain = AESGCM(self._usable(name).secret).decrypt(blob[36:48], blob[48:], _context(EncryptionContext))
        except InvalidTag:
            raise Refusal("InvalidCiphertextException") from None
        return {"Plaintext": _text(plain), "KeyId": _arn(name)}

    def do_ScheduleKeyDeletion(self, KeyId: str, PendingWindowInDays: int = 30) -> dict[str, Any]:
        key = self._key(KeyId)
        if not 7 <= PendingWindowInDays <= 30:
            raise Refusal("ValidationException")
        if key.state == "PendingDeletion":
            raise Refusal("KMSInvalidStateException")
        key.state, key.deletion = "PendingDeletion", self.now + timedelta(days=PendingWindowInDays)
        return {"KeyId": _arn(self._name(KeyId)), "DeletionDate": key.deletion.timestamp(), "KeyState": key.state}

    def do_CancelKeyDeletion(self, KeyId: str) -> dict[str, Any]:
        key = self._key(KeyId)
        if key.state != "PendingDeletion":
            raise Refusal("KMSInvalidStateException")
        key.state, key.deletion = "Disabled", None
        return {"KeyId": _arn(self._name(KeyId))}

    def do_EnableKey(self, KeyId: str) -> dict[str, Any]:
        return self._switch(KeyId, "Enabled")

    def do_DisableKey(self, KeyId: str) -> dict[str, Any]:
        return self._switch(KeyId, "Disabled")

    # ------------------------------------------------------------ keys

    def _switch(self, key_id: str, state: str) -> dict[str, Any]:
        if self._key(key_id).state == "PendingDeletion":
            raise Refusal("KMSInvalidStateException")
        self._key(key_id).state = state
        return {}

    def _name(self, key_id: str) -> str:
        return key_id.rpartition("/")[2]

    def _key(self, key_id: str) -> Key:
        if self._name(key_id) not in self.keys:
            raise Refusal("NotFoundException")
        return self.keys[self._name(key_id)]

    def _usable(self, key_id: str) -> Key:
        key = self._key(key_id)
        if key.state == "Disabled":
            raise Refusal("DisabledException")
        if key.state != "Enabled":
            raise Refusal("KMSInvalidStateException")
        return key

    def _metadata(self, name: str) -> dict[str, Any]:
        key = self._key(name)
        dated = {"DeletionDate": key.deletion.timestamp()} if key.deletion else {}
        return {"KeyId": name, "Arn": _arn(name), "KeyState": key.state, "Enabled": key.state == "Enabled", **dated}


@contextmanager
def serving() -> Iterator[StandIn]:
    """The service on a free port of this machine."""
    service = StandIn()
    turn = threading.Lock()

    class Door(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
            operation = self.headers["X-Amz-Target"].removeprefix("TrentService.")
            try:
                if f"Credential={ACCESS_KEY}/" not in self.headers.get("Authorization", ""):
                    raise Refusal("UnrecognizedClientException")
                with turn:
                    status, answer = 200, service.answer(operation, asked)
                    if operation in service.lose:
                        service.lose.discard(operation)
                        self.connection.close()
                        return
            except Refusal as no:
                status, answer = 400, {"__type": str(no), "message": "not repeated"}
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

        def handle(self) -> None:
            with suppress(OSError, ValueError):  # an answer that was lost on purpose
                super().handle()

        def finish(self) -> None:
            with suppress(OSError, ValueError):
                super().finish()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    server.daemon_threads = True
    service.url = f"http://127.0.0.1:{server.server_port}"
    worker = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    worker.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        worker.join()


def _arn(name: str) -> str:
    return f"arn:aws-cn:kms:cn-north-1:111122223333:key/{name}"


def _context(context: dict[str, str]) -> bytes:
    return json.dumps(context, sort_keys=True).encode()


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()

"""Statements: what was found and done, in full, signed by the evidence key (in-toto Statement v1 in DSSE v1).

The ledger holds only the SHA-256 of a statement's file; the file is held apart. The predicate carries a random
nonce, or the digest of a guessable document would tell what is in it. The subject of a statement is an artefact
(a certificate, a manifest, a table of findings), never the person.

* payload: RFC 8785 JSON without floats; payloadType `application/vnd.in-toto+json`;
* the signature covers `DSSEv1 SP len(type) SP type SP len(payload) SP payload`.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fangxin.data.errors import InputError
from fangxin.reports.ledger.keys import SigningKeys
from fangxin.reports.ledger.tiles import replace_file

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"


def write(
    folder: Path,
    *,
    keys: SigningKeys,
    predicate_type: str,
    subjects: Mapping[str, str],
    predicate: Mapping[str, object],
) -> str:
    """Sign a statement, write it durably as `<sha256>.json` below `folder`, and return that SHA-256.

    `subjects` maps names of artefacts to their SHA-256 in hex. A nonce of 16 random bytes is added to the
    predicate unless it has one. Raises InputError for floats, integers beyond 2**53 - 1 or malformed digests.
    """
    envelope = sign(keys=keys, predicate_type=predicate_type, subjects=subjects, predicate=predicate)
    digest = hashlib.sha256(envelope).hexdigest()
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / f"{digest}.json", envelope)
    return digest


def sign(
    *,
    keys: SigningKeys | Ed25519PrivateKey,
    predicate_type: str,
    subjects: Mapping[str, str],
    predicate: Mapping[str, object],
) -> bytes:
    """Return the bytes of a signed statement, as `write` puts them into a file.

    A home signs with its evidence key; an officer's own key may be given instead.
    """
    key = keys.evidence if isinstance(keys, SigningKeys) else keys
    for digest in subjects.values():
        if not re.fullmatch(r"[0-9a-f]{64}", digest, re.ASCII):
            raise InputError("statement: a subject's digest is not 64 hex digits")
    if not re.match(r"https://[^/ ]+/", predicate_type):
        raise InputError("statement: its predicate type is not a URL", hint="https://<origin host>/erasure/v1")
    if not subjects:
        raise InputError("statement: it has no subject", hint="name the artefact that it speaks about")
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": subjects[name]}} for name in sorted(subjects)],
        "predicateType": predicate_type,
        "predicate": {"nonce": secrets.token_hex(16), **predicate},
    }
    payload = canonical(statement, "statement")
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [
            {
                "keyid": hashlib.sha256(key.public_key().public_bytes_raw()).hexdigest(),
                "sig": base64.b64encode(key.sign(pae(payload))).decode(),
            }
        ],
    }
    return canonical(envelope, "statement")


def pae(payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding of a payload: the bytes that are signed."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def canonical(document: object, what: str) -> bytes:
    """Return RFC 8785 bytes of a document; InputError for floats, other types and integers beyond 2**53 - 1."""
    _no_floats(document, what)
    try:
        # Any: rfc8785's own type for JSON is recursive and private.
        return rfc8785.dumps(document)  # type: ignore[arg-type]
    except (rfc8785.CanonicalizationError, UnicodeEncodeError):
        raise InputError(f"{what}: holds something that canonical JSON cannot", hint="text, integers, lists") from None


def _no_floats(value: object, what: str) -> None:
    if isinstance(value, float):
        raise InputError(f"{what}: holds a float", hint="write integers, or decimals as text")
    if isinstance(value, Mapping):
        for name, one in value.items():
            if not isinstance(name, str) or not name.isascii():
                raise InputError(f"{what}: a key is not ASCII text")
            _no_floats(one, what)
    elif isinstance(value, list | tuple):
        for one in value:
            _no_floats(one, what)

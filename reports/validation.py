"""Validation: an officer's word that the organisation accepts an erasure's outcome.

Verification says that the technique was completed, and the tool's signatory signs it; validation is somebody else's
signature, at another time (NIST SP 800-88, appendix on certificates; residue.md). The officer signs a statement about
certificate.json with the Ed25519 key by which they are enrolled; nobody can sign it for them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fangxin.data.errors import DoesNotHold, InputError, NotAllowed
from fangxin.reports.certificate import FAILED, certificate_bytes
from fangxin.reports.ledger.statement import PAYLOAD_TYPE, pae, sign


@dataclass(frozen=True)
class Validation:
    """What an officer signed: about which certificate, as whom, when, and with which key (SHA-256)."""

    number: str
    certificate: str  # SHA-256 of certificate.json
    officer: str
    signed: str  # whole minute, UTC
    key: str
    digest: str  # SHA-256 of the statement


def accept(certificate: Mapping[str, Any], *, officer: str, key: Ed25519PrivateKey, minute: str) -> bytes:
    """Sign, as an officer, that a certificate's outcome is accepted; NotAllowed for one that failed."""
    if certificate["outcome"] == FAILED:
        raise NotAllowed(
            f"{certificate['number']}: its outcome is failed",
            hint="erase the person again: what it says was not shown stays so",
        )
    if officer == certificate["signer"]:
        raise NotAllowed(
            f"{officer} signs for the tool: who validates is somebody else", hint="two people, two signatures"
        )
    host = certificate["evidence"]["origin"].partition("/")[0]
    return sign(
        keys=key,
        predicate_type=f"https://{host}/validation/v1",
        subjects={f"{certificate['number']}.json": hashlib.sha256(certificate_bytes(certificate)).hexdigest()},
        predicate={"officer": officer, "signed": minute, "outcome": certificate["outcome"]},
    )


def read(statement: bytes) -> Validation:
    """Say what a statement says; whether its signature holds is `check`'s to tell. InputError for anything else."""
    try:
        envelope = json.loads(statement)
        payload = json.loads(base64.b64decode(envelope["payload"], validate=True))
        (subject,) = payload["subject"]
        (signature,) = envelope["signatures"]
        told = payload["predicate"]
        found = Validation(
            subject["name"].removesuffix(".json"),
            subject["digest"]["sha256"],
            told["officer"],
            told["signed"],
            signature["keyid"],
            hashlib.sha256(statement).hexdigest(),
        )
        if envelope["payloadType"] != PAYLOAD_TYPE or not all(isinstance(v, str) for v in vars(found).values()):
            raise ValueError
    except (ValueError, TypeError, KeyError, AttributeError, binascii.Error):
        raise InputError(
            "not a validation: expected the file that `fangxin certificate validate` wrote", hint="give it unchanged"
        ) from None
    return found


def check(statement: bytes, certificate: Mapping[str, Any], officers: Mapping[str, bytes]) -> Validation:
    """Return what an enrolled officer signed about this very certificate; raise where that is not so."""
    found = read(statement)
    key = officers.get(found.officer)
    if key is None:
        raise NotAllowed(f"{found.officer} is no officer here", hint="`fangxin keys officers` lists and enrols them")
    envelope = json.loads(statement)
    payload, signature = base64.b64decode(envelope["payload"]), envelope["signatures"][0]
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(base64.b64decode(signature["sig"]), pae(payload))
    except (InvalidSignature, ValueError, KeyError):
        raise DoesNotHold(
            f"the validation of {found.number} is not signed by {found.officer}", hint="have it signed again"
        ) from None
    if found.key != hashlib.sha256(key).hexdigest():
        raise DoesNotHold(f"the validation of {found.number} names another key than the one that signed it")
    if found.certificate != hashlib.sha256(certificate_bytes(certificate)).hexdigest():
        raise DoesNotHold(f"the validation is of another {found.number} than the one in this home")
    if found.officer == certificate["signer"]:
        raise NotAllowed(f"{found.officer} signs for the tool: who validates is somebody else")
    return found

"""Paper of a home: who signs it, the pages of a certificate, and what becomes of them once an officer accepts it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fangxin.data.errors import InputError
from fangxin.flows.estate import Estate
from fangxin.reports import validation
from fangxin.reports.ledger.entries import Entry
from fangxin.reports.ledger.tiles import replace_file
from fangxin.reports.paper.pades import sign
from fangxin.reports.paper.pages import certificate_pdf
from fangxin.reports.paper.signatory import CERTIFICATE, Signatory
from fangxin.reports.render import render
from fangxin.reports.validation import Validation

PAGES = ("html", "pdf")


def signatory(estate: Estate) -> Signatory:
    """Who signs this home's paper; a home that is older than its paper makes its certificate now."""
    folder = estate.settings.home / "keys"
    if not (folder / CERTIFICATE).exists():
        return Signatory.create(folder, origin=estate.settings.origin, now=estate.now)
    return Signatory.load(folder)


def pages(
    estate: Estate, certificate: Mapping[str, Any], *, by: Signatory, accepted: Validation | None = None
) -> dict[str, bytes]:
    """A certificate's pages, HTML and signed PDF."""
    reason = f"Verification: {certificate['number']}"
    pdf = sign(certificate_pdf(certificate, accepted), by=by, at=estate.now, reason=reason)
    return {"html": render(certificate, accepted), "pdf": pdf}


def printed(estate: Estate, number: str) -> bytes:
    """A certificate of this home as a PDF that is signed now: where it was not printed at its issue, or once more.

    It carries the certificate's JSON, whose digest the ledger holds since the issue; its own stands nowhere.
    """
    record = estate.settings.home / "certificates" / f"{number}.validation.json"
    document = read_certificate(estate.settings.home, number)
    officers = estate.tree.guard.officers
    accepted = validation.check(record.read_bytes(), document, officers) if record.exists() else None
    return pages(estate, document, by=signatory(estate), accepted=accepted)["pdf"]


def certificate_files(home: Path, number: str) -> list[Path]:
    """A certificate's files in a home: JSON, pages, and an officer's validation where there is one."""
    names = [f"{number}.json", *(f"{number}.{kind}" for kind in PAGES), f"{number}.validation.json"]
    return [path for name in names if (path := home / "certificates" / name).exists()]


def read_certificate(home: Path, number: str) -> dict[str, Any]:  # Any: a JSON document
    """A certificate of this home; InputError where there is none of that number."""
    path = home / "certificates" / f"{number}.json"
    if not path.is_file():
        raise InputError(f"{number}: no such certificate in this home", hint="a number such as FX-7Q2M5K-0001")
    document: dict[str, Any] = json.loads(path.read_bytes())
    return document


def admit(estate: Estate, statements: Sequence[bytes]) -> list[Validation]:
    """Take in what officers signed: new pages that say so, one flush of the ledger for all of them.

    Everything is checked before anything is written. The pages of the issue give way to the new ones; the ledger keeps
    the digests of both. A validation that was admitted before changes nothing.
    """
    home = estate.settings.home
    officers = estate.tree.guard.officers
    by = signatory(estate)
    found: list[Validation] = []
    fresh: list[tuple[Validation, bytes, dict[str, bytes]]] = []
    for statement in statements:
        document = read_certificate(home, validation.read(statement).number)
        one = validation.check(statement, document, officers)
        found.append(one)
        record = home / "certificates" / f"{one.number}.validation.json"
        if not record.exists() or record.read_bytes() != statement:
            fresh.append((one, statement, pages(estate, document, by=by, accepted=one)))
    entries: list[Entry] = [
        {
            "type": "certificate.validated",
            "time": estate.minute,
            "statement": one.digest,
            **{kind: hashlib.sha256(body).hexdigest() for kind, body in made.items()},
        }
        for one, _statement, made in fresh
    ]
    estate.ledger.append(entries)
    for one, statement, made in fresh:
        for kind, body in made.items():
            replace_file(home / "certificates" / f"{one.number}.{kind}", body)
        replace_file(home / "certificates" / f"{one.number}.validation.json", statement)
        public = home / "keys" / "officers" / f"{one.officer}.pub"
        public.parent.mkdir(exist_ok=True, mode=0o700)
        replace_file(public, f"{officers[one.officer].hex()}\n".encode())
    return found

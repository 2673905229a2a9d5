"""A certificate on paper: what its JSON says, in one PDF with a part in each language.

First the verdict, for the person; then what was kept and what still exists; last what an auditor asks. The pages hold
the JSON that they show as an attachment. Once an officer accepted the outcome there is an edition that says so.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from fangxin.reports.certificate import certificate_bytes
from fangxin.reports.paper.press import LANGUAGES, press
from fangxin.reports.render import methods, sentences, totals, verdicts


def certificate_pdf(
    certificate: Mapping[str, Any],  # Any: a JSON document
    validation: bytes | None = None,
    *,
    languages: Sequence[str] = LANGUAGES,
) -> bytes:
    """Print a certificate; `validation` is the statement that an officer signed about it (reports/validation.py)."""
    body = certificate_bytes(certificate)
    rows = certificate["collections"]
    counted = verdicts(rows)
    digest = hashlib.sha256(body).hexdigest()
    view = {
        "digest": digest,
        "total": totals(rows),
        "verdicts": counted,
        "touched": counted["ERASED"] + counted["RETAINED"],
        "methods": methods(rows),
        "holders": [
            {**one, "conditions": [{"en": en, "zh": zh} for en, zh in sentences(one["conditions"])]}
            for one in certificate["keys"]["holders"]
        ],
        "not_examinable": [
            f"{row['dataset']}/{row['collection']}: {row['not_examinable']}" for row in rows if row["not_examinable"]
        ],
        **_claims(rows),
        "qr": qr(f"{certificate['number']} {digest} {certificate['evidence']['origin']}"),
        "validation": None if validation is None else validated(validation),
    }
    return press("certificate.typ", ("certificate.json", body), view, languages=languages)


def _claims(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:  # Any: JSON
    """What each store says of method and medium, every wording once, and which collection it marks."""
    marks: dict[tuple[str, str, str], str] = {}
    of: dict[str, str] = {}
    for row in rows:
        said = (row["method"], row["claim"], row["reason"])
        if any(said):
            of[f"{row['dataset']}/{row['collection']}"] = marks.setdefault(said, _mark(len(marks)))
    keys = ("method", "claim", "reason")
    return {
        "marks": of,
        "claims": [{"mark": mark, **dict(zip(keys, said, strict=True))} for said, mark in marks.items()],
    }


def _mark(n: int) -> str:
    """a, b, ... z, aa, ab: marks in the order in which they come up."""
    return (_mark(n // 26 - 1) if n >= 26 else "") + chr(ord("a") + n % 26)


def validated(statement: bytes) -> dict[str, str]:
    """What an officer's statement says of itself: who, when, SHA-256 of key and statement; checked before."""
    envelope = json.loads(statement)
    predicate = json.loads(base64.b64decode(envelope["payload"]))["predicate"]
    return {
        "officer": predicate["officer"],
        "signed": predicate["signed"],
        "key": envelope["signatures"][0]["keyid"],
        "digest": hashlib.sha256(statement).hexdigest(),
    }


def qr(text: str) -> str:
    """A QR code as SVG, without a border; the same text gives the same drawing."""
    import segno

    out = io.BytesIO()
    # A fixed mask: to try all eight costs ten times as much, and the code is as valid.
    segno.make(text, error="m", micro=False, mask=3, boost_error=False).save(
        out, kind="svg", border=0, dark="#1d2733", xmldecl=False
    )
    return out.getvalue().decode()

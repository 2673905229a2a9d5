"""A certificate on paper: what its JSON says, in one PDF with a part in each language.

First the verdict, for the person; then what was kept and what still exists; last what an auditor asks. The pages hold
the JSON that they show as an attachment. Once an officer accepted the outcome there is an edition that says so.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fangxin.reports.certificate import certificate_bytes
from fangxin.reports.paper.press import LANGUAGES, press
from fangxin.reports.render import methods, sentences, totals, verdicts
from fangxin.reports.validation import Validation


def certificate_pdf(
    certificate: Mapping[str, Any],  # Any: a JSON document
    accepted: Validation | None = None,
    *,
    languages: Sequence[str] = LANGUAGES,
) -> bytes:
    """Print a certificate; `accepted` is what an officer signed about it, once one did."""
    body = certificate_bytes(certificate)
    rows = certificate["collections"]
    counted = verdicts(rows)
    digest = hashlib.sha256(body).hexdigest()
    view = {
        "digest": digest,
        "total": totals(rows),
        "verdicts": counted,
        "touched": sum(
            r["verdict"] in ("ERASED", "RETAINED") or (r["verdict"] == "FAILED" and r["rows_found"] > 0) for r in rows
        ),
        "methods": methods(rows),
        "holders": [
            {**one, "conditions": [{"en": en, "zh": zh} for en, zh in sentences(one["conditions"])]}
            for one in certificate["keys"]["holders"]
        ],
        "not_examinable": [
            f"{row['dataset']}/{row['collection']}: {row['not_examinable']}" for row in rows if row["not_examinable"]
        ],
        **_claims(rows),
        "short": [f"{row['dataset']}/{row['collection']}" for row in rows if _short(row)],
        "qr": qr(f"{certificate['number']} {digest} {certificate['evidence']['origin']}"),
        "validation": None if accepted is None else vars(accepted),
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


def _short(row: Mapping[str, Any]) -> bool:  # Any: JSON
    """Whether name and store surely take a line each in the first column of the results (116 points at 8 a letter)."""
    name, store = f"{row['dataset']}/{row['collection']}", f"{row['store']}  aa)"
    return max(_width(name), _width(store)) <= 116 / 8


def _width(text: str) -> float:
    """What a text takes at most, in the size of its letters: a bound, since only the press knows the face."""
    return sum(0.63 if one in _NARROW else 1.0 for one in text)


_NARROW = frozenset("abcdefghijklnopqrstuvxyz0123456789/._-: ")


def _mark(n: int) -> str:
    """a, b, ... z, aa, ab: marks in the order in which they come up."""
    return (_mark(n // 26 - 1) if n >= 26 else "") + chr(ord("a") + n % 26)


def qr(text: str) -> str:
    """A QR code as SVG, without a border; the same text gives the same drawing."""
    import segno

    # A fixed mask: to try all eight costs ten times as much, and the code is as valid.
    rows = segno.make(text, error="m", micro=False, mask=3, boost_error=False).matrix
    dark = "".join(
        f"M{start} {y}.5h{end - start}"
        for y, row in enumerate(rows)
        for start, end in (run.span() for run in _DARK.finditer(row))
    )
    side = len(rows)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{side}" height="{side}">'
        f'<path stroke="#1d2733" d="{dark}"/></svg>'
    )


_DARK = re.compile(rb"\x01+")

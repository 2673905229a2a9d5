"""Pages made from documents: one self-contained HTML file each, both languages, nothing fetched, no script.

A page says what its JSON says, in words of `reports/words.py`; it adds no fact and no date of its own, so the same
document always gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from fangxin.data.keys.roots.protocol import CONDITIONS
from fangxin.reports.certificate import certificate_bytes
from fangxin.reports.validation import Validation
from fangxin.reports.words import CLAIMS, LEFT_OUT, claim_of, filled


def render(certificate: Mapping[str, Any], accepted: Validation | None = None) -> bytes:  # Any: a JSON document
    """Render a certificate as one HTML page; raises jinja2.UndefinedError if a part of it is missing.

    `accepted` is what an officer signed about it, once one did.
    """
    rows = certificate["collections"]
    return draw(
        certificate_template(),
        c=certificate,
        digest=hashlib.sha256(certificate_bytes(certificate)).hexdigest(),
        total=totals(rows),
        verdicts=verdicts(rows),
        methods=methods(rows),
        accepted=accepted,
    )


@cache
def certificate_template() -> str:
    """The certificate's page as one text; see `whole`."""
    return whole("certificate.html.j2", claims=dict(CLAIMS), conditions=dict(CONDITIONS), left_out=dict(LEFT_OUT))


def whole(template: str, **words: Mapping[str, object]) -> str:
    """A template with words and style inside: one text, in which nothing is left out to be looked up elsewhere.

    It goes into each package, and checks/verify.py knows its SHA-256: the verifier draws pages again with an engine of
    its own, which understands the few constructs that our templates use, and compares the bytes.
    """
    source, style = ((_TEMPLATES / name).read_text("utf-8") for name in (template, "style.css.j2"))
    said = (f"{{% set {name} = {json.dumps(table, ensure_ascii=False)} %}}\n" for name, table in words.items())
    return "".join(said) + source.replace('{% include "style.css.j2" %}\n', style)


def draw(text: str, **values: Any) -> bytes:  # Any: whatever the template prints
    """Fill a template's text; UTF-8."""
    return _compiled(text).render(**values).encode()


@lru_cache(maxsize=8)
def _compiled(text: str) -> Template:
    """The template of a text: to make one takes longer than everything else of a certificate."""
    return _environment().from_string(text)


def page(template: str, **values: Any) -> bytes:  # Any: whatever the template prints
    """Fill one of our templates; UTF-8."""
    return _environment().get_template(template).render(**values).encode()


_TEMPLATES = Path(__file__).with_name("templates")
_VERDICTS = ("ERASED", "RETAINED", "NOT_PRESENT", "OUT_OF_SCOPE", "FAILED")
_TOTALS = (
    "rows_found", "rows_erased", "rows_retained", "values_masked", "rows_shared", "rows_mentioned", "baseline_hits",
    "hits_after", "hits_explained", "bytes_overwritten", "bytes_read",
)  # fmt: skip


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": number, "size": size, "codes": codes, "filled": filled}
    return environment


def number(n: int) -> str:
    """A whole number with thousands apart: 12 345 (with narrow no-break spaces, neutral in both languages)."""
    return f"{n:,}".replace(",", "\u202f")


def size(n: int) -> str:
    """Bytes in a readable unit, cut to one decimal: 1.5 MiB."""
    for unit, shift in (("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if n >= 1 << shift:
            tenths = n * 10 >> shift
            return f"{number(tenths // 10)}.{tenths % 10} {unit}"
    return f"{n} B"


def sentences(conditions: str) -> list[tuple[str, str]]:
    """What a root holder's claim is bound to, word for word (English, Chinese); an id that is unknown stays itself."""
    return [CONDITIONS.get(one, (one, one)) for one in codes(conditions)]


def codes(conditions: str) -> list[str]:
    """The ids in a holder's list of conditions."""
    return [one for one in conditions.split(", ") if one]


def totals(rows: list[Mapping[str, Any]]) -> dict[str, int]:
    """The figures of all collections together."""
    return {name: sum(row[name] for row in rows) for name in _TOTALS}


def verdicts(rows: list[Mapping[str, Any]]) -> dict[str, int]:
    """How many collections came to each verdict."""
    return {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in _VERDICTS}


def methods(rows: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What was done to the bytes: one entry for each different wording, with the collections it speaks about.

    Nothing is said of what FAILED: its reason stands beside it.
    """
    said: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["method"] and row["verdict"] != "FAILED":
            key, why = claim_of(row["method"], row["claim"], row["reason"])
            said.setdefault((key, why), []).append(f"{row['dataset']}/{row['collection']}")
    return [
        {"key": key, "why": why, "en": filled(CLAIMS[key][0], why), "zh": filled(CLAIMS[key][1], why), "where": where}
        for (key, why), where in said.items()
    ]

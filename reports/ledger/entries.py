"""Entries: what a line of the ledger may say, so that no personal data can get into it.

Every entry is canonical JSON (RFC 8785) of integers and strings under ASCII keys, 1..65,535 bytes. It carries
`v` (1), `type` and `time` (whole minutes, UTC); a request's or batch's entry also carries a `tag`. A type and its
fields (those with `?` may be absent) stand in the table below; anything else is refused, and so is any value outside
its field's pattern: there is no free text.

* A tag is opaque: HMAC-SHA256(K, "tag" || u64be(i))[:16] in hex, K being the request's receipt secret.
* A commitment is HMAC-SHA256(K, "subject" || JCS(selectors)), once, in `request.opened`.
* Small counts are bands: 0, 1-4, 5-19, 20-99, 100-999, then decades.

`checks/verify.py` holds the same table a second time, on purpose.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, lru_cache

import rfc8785

from fangxin.data.errors import InputError

Entry = Mapping[str, int | str]

_CODE = r"[A-Za-z0-9][A-Za-z0-9._:/+-]{0,63}"
_BAND = r"0|1-4|5-19|20-99|10{2,17}-9{3,18}"
_STORE = r"s-[0-9]{2,4}"
_PATTERNS = {
    "tag": r"[0-9a-f]{32}",
    "digest": r"[0-9a-f]{64}",
    "digests": r"[0-9a-f]{64}(?:,[0-9a-f]{64})*",
    "tree": r"[0-9a-f]{40}|[0-9a-f]{64}",
    "time": r"[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]Z",
    "code": _CODE,
    "codes": rf"{_CODE}(?:,{_CODE})*",
    "store": rf"{_STORE}|vault",
    "band": _BAND,
    "counts": rf"(?:{_STORE}:(?:{_BAND})(?:,{_STORE}:(?:{_BAND}))*)?",
    "until": r"[0-9]{4}-(?:0[1-9]|1[0-2])|officer",
    "month": r"[0-9]{4}-(?:0[1-9]|1[0-2])",
    "by": r"officers|request|timer|rehearsal",
    "method": r"OVERWRITE|CRYPTOGRAPHIC_ERASE|LOGICAL_DELETE|EXPIRY",
    "outcome": r"erased|erased_with_retention|partial|failed",
    "vkey": r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,254}\+[0-9a-f]{8}\+[A-Za-z0-9+/]{44}",
    "origin": r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,254}",
}
_STORE_DONE = {
    "tag": "tag",
    "intent": "int",
    "store": "store",
    "units": "band",
    "method": "method",
    "bytes": "band",
    "fs": "code",
    "digest": "digest",
}
TYPES: Mapping[str, Mapping[str, str]] = {
    "request.opened": {"tag": "tag", "commitment": "digest", "law": "codes", "promise": "code", "catalog": "digest"},
    "request.verified": {"tag": "tag", "level": "code"},
    "request.refused": {"tag": "tag", "reason": "code"},
    "request.withdrawn": {"tag": "tag"},
    "settled": {
        "tag": "tag",
        "kind": "code",
        "disposition": "code",
        "digest": "digest",
        "late?": "int",
        "reason?": "code",
    },
    "located": {"tag": "tag", "counts": "counts", "baseline": "digest"},
    "exported": {"tag": "tag", "manifest": "digest"},
    "approved": {
        "tag": "tag",
        "plan": "digest",
        "by": "by",
        "cap?": "int",  # by request: how many people the vault lets go in a day without officers
        "grant?": "digest",  # by officers: what they signed, who they are (SHA-256 of their keys), and their signatures
        "officers?": "digests",
        "approvals?": "digests",
    },
    "retained": {
        "tag": "tag",
        "rule": "code",
        "class": "codes",  # of one collection, all that the rule keeps
        "until": "until",
        "event?": "month",
        "seal?": "digest",
    },
    "sealed": {"tag": "tag", "until": "time"},
    "restored": {"tag": "tag"},
    "regret.ended": {"tag": "tag", "waived?": "code"},
    "law.loaded": {"digest": "digest", "law?": "code"},
    "calendar.loaded": {"digest": "digest", "calendar": "code"},
    "keys.loaded": {"evidence": "digest", "certificates?": "digest"},
    "code.loaded": {"digest": "digest", "tree?": "tree"},
    "key.committed": {"root": "digest"},
    "erase.intended": {"tag": "tag", "store": "store", "units": "band", "plan?": "digest"},
    "key.destroyed": {
        "tag": "tag",
        "intent": "int",
        "before": "digest",
        "after": "digest",
        "generation": "int",
        "count": "band",
        "claim": "code",
        "grant?": "digest",  # the one that the vault carried out
    },
    "store.overwritten": _STORE_DONE,
    "store.rewritten": _STORE_DONE,
    "validated": {
        "tag": "tag",
        "stores": "int",
        "bytes": "int",
        "patterns": "int",
        "hits": "int",
        "failed?": "int",  # verdicts: of a batch that an operator ended as it stands
        "canaries": "int",
        "scanner": "digest",
        "baseline": "digest",
        "findings": "digest",
    },
    "residue.found": {"tag": "tag", "store": "store", "code": "code"},
    "exception": {"tag?": "tag", "code": "code", "role": "code"},
    "processor.notified": {"tag": "tag", "processor": "code", "channel": "code", "digest": "digest"},
    "processor.confirmed": {"tag": "tag", "processor": "code", "digest": "digest"},
    "certificate.issued": {"tag": "tag", "json": "digest", "html": "digest", "pdf?": "digest", "verdict": "outcome"},
    "certificate.validated": {"statement": "digest", "html": "digest", "pdf?": "digest"},
    "step.done": {"tag": "tag", "step": "code", "note": "digest"},
    "swept": {"patterns": "int", "bytes": "int", "hits": "int"},
    "canary.planted": {"digest": "digest"},
    "canary.erased": {
        "digest": "digest",
        "seal?": "digest",  # an auditor's: the commitment that was planted
        "placements?": "int",
        "erased?": "int",
        "retained?": "int",
        "reported?": "int",
        "missed?": "int",
    },
    "report.published": {
        "period": "code",
        "json": "digest",
        "html?": "digest",
        "pdf?": "digest",
        "parquet?": "digest",
        "previous?": "digest",
    },
    "package.published": {"digest": "digest"},
    "key.rotated": {"old": "vkey", "new": "vkey"},
    "ledger.continued": {"origin": "origin", "size": "int", "root": "digest"},
    "incident.recorded": {"digest": "digest", "requests": "band"},
    "sabotage.run": {"mutants": "int", "caught": "int", "digest": "digest"},
}
_MOST = 2**53 - 1
_LONGEST = 65_535


def encode(entry: Entry) -> bytes:
    """Return the canonical bytes of an entry, adding `v`; InputError names the type and field that is wrong."""
    whole = {"v": 1, **entry}
    kind = whole.get("type")
    if not isinstance(kind, str) or kind not in TYPES:
        raise InputError("ledger entry: unknown type", hint=f"one of {', '.join(sorted(TYPES))}")
    fields, needed = _plan(kind)
    if not needed <= whole.keys() <= fields.keys():
        if whole.keys() - fields.keys():
            raise InputError(f"ledger entry {kind}: a field that it does not have", hint=f"fields: {sorted(fields)}")
        raise InputError(f"ledger entry {kind}: field {min(needed - whole.keys())} is missing")
    for name, value in whole.items():
        pattern, fits = fields[name]
        if not fits(value):
            raise InputError(f"ledger entry {kind}: field {name} is not a {pattern}")  # never quotes the value
    if whole["v"] != 1:
        raise InputError(f"ledger entry {kind}: version is not 1")
    # ASCII keys, integers below 2**53 and ASCII strings without escapes: these are RFC 8785's very bytes.
    written = json.dumps(whole, sort_keys=True, separators=(",", ":")).encode()
    if len(written) > _LONGEST:
        raise InputError(f"ledger entry {kind}: longer than {_LONGEST} bytes", hint="log its digest instead")
    return written


def fields() -> dict[str, dict[str, tuple[str, bool]]]:
    """Return the table as others need it: type -> field -> (regular expression or "int", may be absent)."""
    common = {"v": "int", "type": "code", "time": "time"}
    return {
        kind: {
            name.removesuffix("?"): (_PATTERNS.get(pattern, pattern), name.endswith("?"))
            for name, pattern in {**common, **own}.items()
        }
        for kind, own in TYPES.items()
    }


def minute(when: datetime) -> str:
    """Return a moment as the ledger writes it: whole minutes, UTC."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%MZ")


def band(n: int) -> str:
    """Return the band a count falls into: 0, 1-4, 5-19, 20-99, 100-999, 1000-9999 and so on."""
    if n < 0:
        raise ValueError("a count is never negative")
    for low, high in ((0, 0), (1, 4), (5, 19), (20, 99)):
        if low <= n <= high:
            return f"{low}-{high}" if high else "0"
    digits = len(str(n))
    return f"{10 ** (digits - 1)}-{10**digits - 1}"


def tag(secret: bytes, i: int) -> str:
    """Return the tag of the i-th entry of whoever holds this receipt secret: 32 hex digits."""
    return hmac.new(secret, b"tag" + i.to_bytes(8, "big"), hashlib.sha256).digest()[:16].hex()


def commitment(secret: bytes, selectors: Sequence[tuple[str, str]]) -> str:
    """Return the commitment to a subject: HMAC over the sorted (kind, canonical value) pairs, 64 hex digits."""
    pairs = rfc8785.dumps([[kind, value] for kind, value in sorted(selectors)])
    return hmac.new(secret, b"subject" + pairs, hashlib.sha256).hexdigest()


@cache
def _plan(kind: str) -> tuple[dict[str, tuple[str, Callable[[object], bool]]], frozenset[str]]:
    """Return for a type every field's pattern and test, and the names that may not be absent."""
    allowed = {"v": "int", "type": "code", "time": "time", **TYPES[kind]}
    fields = {name.removesuffix("?"): (pattern, _test(pattern)) for name, pattern in allowed.items()}
    return fields, frozenset(name for name in allowed if not name.endswith("?"))


def _test(pattern: str) -> Callable[[object], bool]:
    if pattern == "int":
        return lambda value: type(value) is int and 0 <= value <= _MOST
    matches = re.compile(_PATTERNS[pattern], re.ASCII).fullmatch
    if pattern == "time":
        return lambda value: isinstance(value, str) and matches(value) is not None and _is_minute(value)
    return lambda value: isinstance(value, str) and matches(value) is not None


@lru_cache(maxsize=4096)
def _is_minute(value: str) -> bool:
    try:
        datetime.strptime(value, "%Y-%m-%dT%H:%M%z")
    except ValueError:
        return False
    return True

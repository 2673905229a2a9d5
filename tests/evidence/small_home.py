"""A small home with one erased person: keys, ledger, statement, certificate, package."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # a JSON document

from fangxin.reports import package
from fangxin.reports.ledger import entries, statement
from fangxin.reports.ledger.keys import SigningKeys
from fangxin.reports.ledger.log import Ledger
from fangxin.reports.render import render

ORIGIN = "ledger.example.com/erasure/2026"
NOW = "2026-11-22T22:30Z"
SECRET = bytes(range(32))
TABLE = (
    b'{"format":"fangxin/retention/1","rules":['
    b'{"begins":"2019-01-01","classes":["order"],"from":"trade.completed","id":"ecommerce-31","keep":"P3Y","law":"cn"}]}'
)
SELECTORS = [("phone_number", "+8613800001234"), ("member_id", "4711")]

KEPT = {"rule": "ecommerce-31", "class": "order", "event": "2026-11", "until": "2029-11"}


def sha(text: str | bytes) -> str:
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()


def entry(kind: str, **fields: int | str) -> dict[str, int | str]:
    """An entry of a type with harmless values for all its fields; keyword arguments replace some."""
    plain: dict[str, int | str] = {
        "tag": "ab" * 16,
        "digest": sha(kind),
        "code": "c-1",
        "codes": "cn",
        "store": "s-01",
        "band": "1-4",
        "by": "request",
        "counts": "s-01:1-4",
        "until": "officer",
        "month": "2026-11",
        "method": "OVERWRITE",
        "outcome": "erased",
        "int": 0,
        "time": NOW,
        "vkey": "ledger.example.com/erasure/2026+86b48cdc+" + "A" * 44,
        "origin": ORIGIN,
    }
    made: dict[str, int | str] = {"type": kind, "time": NOW}
    made |= {name: plain[pattern] for name, pattern in entries.TYPES[kind].items() if not name.endswith("?")}
    return made | {name.rstrip("_"): value for name, value in fields.items()}


def certificate(index: int, **changed: Any) -> dict[str, Any]:
    """A certificate of three collections: one erased, one never there, one kept by law."""
    counts = ("rows_found", "rows_erased", "rows_retained", "values_masked", "rows_residual", "baseline_hits")
    common = {"store": "s-01", "method": "OVERWRITE", "claim": "", "reason": "", "not_examinable": ""}
    common |= dict.fromkeys((*counts, "hits_after", "hits_explained", "rows_shared", "rows_mentioned"), 0)
    common |= dict.fromkeys(("bytes_read", "bytes_overwritten", "units_read", "units_expected"), 0)
    common |= {"canary_found": False, "ground": "", "until": ""}
    collections = [
        {"collection": "people", "verdict": "ERASED", "rows_found": 1, "baseline_hits": 3, "hits_after": 0}
        | {"rows_erased": 1, "rows_residual": 0},
        {"collection": "chats", "verdict": "NOT_PRESENT", "canary_found": True, "hits_after": 0},
        {"collection": "trades", "verdict": "RETAINED", "ground": "ecommerce-31", "until": "2029-11-22"}
        | {"rows_found": 1, "rows_retained": 1},
    ]
    return {
        "format": "fangxin/certificate/1",
        "number": "C-1",
        "request": "r-1",
        "batch": "b-1",
        "outcome": "erased_with_retention",
        "times": {"received": NOW, "approved": None, "keys_destroyed": None, "overwritten": None, "validated": NOW},
        "collections": [{"dataset": "lecard", **common, **one} for one in collections],
        "keys": {"destroyed": 2, "commitment_before": sha("before"), "commitment_after": sha("after")}
        | {"domains": [], "kept": [], "holders": [], "generation_before": 1, "generation_after": 2},
        "retained": [
            {"dataset": "lecard", "collection": "trades", "class": "order", "rule": "ecommerce-31", "rows": 1}
            | {"event": "2026-11-22", "until": "2029-11-22", "text_en": "E-commerce law.", "text_zh": "电子商务法。"}
        ],
        "shared": [],
        "mentions": [],
        "copies": [],
        "export": None,
        "scan": dict.fromkeys(("patterns", "forms", "bytes", "found", "not_found"), 1)
        | {"kinds_by_record": [], "not_examinable": [], "scanner": sha("scanner")},
        "outside": [],
        "inventory": [],
        "canaries": [],
        "limits": [],
        "evidence": {"origin": ORIGIN, "validated": index, "proof": "validated.tlog-proof"},
        "software": {"version": "1", "sha256": sha("wheel")},
        "catalog": sha("catalog"),
        "law": [{"name": "cn.yaml", "sha256": sha("keep: P3Y\n")}],
        "cohort": 1,
        "signer": "operator",
        "settlements": None,
        "deadline": None,
        "processors": [],
        "accountability": [],
        "approvers": [],
        "rehearsal": False,
    } | changed


@dataclass
class Home:
    """Where things lie, and what goes into a package."""

    folder: Path
    keys: SigningKeys
    ledger: Ledger
    parts: dict[str, Any]
    trust: Path
    zip: Path

    def pack(self, name: str = "again.zip") -> Path:
        """Write a package of the home as it is now."""
        package.write_package(self.folder / name, ledger=self.ledger, keys=self.keys, **self.parts)
        return self.folder / name


def start(folder: Path) -> tuple[SigningKeys, Ledger]:
    """Keys and an empty ledger."""
    keys = SigningKeys.create(folder / "keys", origin=ORIGIN)
    return keys, Ledger.create(folder / "ledger", origin=ORIGIN, head=folder / "second" / "head", keys=keys)


def begin(ledger: Ledger) -> None:
    """Log what comes before any erasure: law, code, a request with an approved plan, the key store's root."""
    evidence = sha(ledger._keys.public_files()["evidence.pub.pem"])
    ledger.append([entry("law.loaded", digest=sha("keep: P3Y\n"), law="cn"), entry("code.loaded", digest=sha("wheel"))])
    ledger.append([entry("law.loaded", digest=sha(TABLE), law="retention"), entry("keys.loaded", evidence=evidence)])
    opened = {"tag": entries.tag(SECRET, 0), "commitment": entries.commitment(SECRET, SELECTORS)}
    ledger.append(
        [
            entry("request.opened", **opened, catalog=sha("catalog")),
            entry("approved", tag=entries.tag(SECRET, 1), plan=sha("plan")),
            entry("retained", tag=entries.tag(SECRET, 2), **KEPT),
            entry("key.committed", root=sha("before")),
        ]
    )


def erase(ledger: Ledger, findings: str = "") -> int:
    """Log intents, their outcomes and a clean validation; return the validation's index."""
    vault, store = ledger.append([entry("erase.intended", store="vault"), entry("erase.intended", plan=sha("plan"))])
    destroyed = entry("key.destroyed", intent=vault, before=sha("before"), after=sha("after"))
    ledger.append([destroyed, entry("store.overwritten", intent=store)])
    (validated,) = ledger.append([entry("validated", bytes=5, findings=findings or sha("findings"))])
    return validated


def issue(folder: Path, ledger: Ledger, document: Mapping[str, Any], page: bytes | None = None) -> list[Path]:
    """Write a certificate in both forms and log it; `page` stands for one that cannot be drawn, or another one."""
    raw = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    page = render(document) if page is None else page
    paths = [folder / "C-1.json", folder / "C-1.html"]
    for path, content in zip(paths, (raw, page), strict=True):
        path.write_bytes(content)
    issued = {"json": sha(raw), "html": sha(page), "verdict": str(document["outcome"])}
    ledger.append([entry("certificate.issued", tag=entries.tag(SECRET, 3), **issued)])
    return paths


def make_home(folder: Path) -> Home:
    """Build the whole home."""
    keys, ledger = start(folder)
    begin(ledger)
    findings = statement.write(
        folder / "dsse",
        keys=keys,
        predicate_type="https://ledger.example.com/erasure/v1",
        subjects={"findings.parquet": sha("findings")},
        predicate={"hits": 0, "plan": sha("plan")},
    )
    validated = erase(ledger, findings)
    proof = ledger.receipt(validated)
    paths = issue(folder, ledger, certificate(validated))
    (folder / "cn.yaml").write_text("keep: P3Y\n")
    (folder / "retention.json").write_bytes(TABLE)
    trust = folder / "trusted"
    trust.mkdir()
    for name, content in keys.public_files().items():
        (trust / name).write_bytes(content)
    parts: dict[str, Any] = {
        "statements": [folder / "dsse" / f"{findings}.json"],
        "certificates": paths,
        "proofs": {"validated.tlog-proof": proof, "C-1.tlog-proof": ledger.receipt(ledger.size - 1)},
        "laws": [folder / "cn.yaml", folder / "retention.json"],
    }
    home = Home(folder, keys, ledger, parts, trust, folder / "package.zip")
    home.pack("package.zip")
    return home

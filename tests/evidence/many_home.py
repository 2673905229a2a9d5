"""A home with a handful of erased people, as commands open it: settings, certificates in their folder, real laws."""

from __future__ import annotations

import json
from pathlib import Path

from evidence.small_home import SECRET, SELECTORS, TABLE, begin, certificate, entry, erase, sha, start

from fangxin.flows.estate import LAWS
from fangxin.reports.ledger import entries, statement
from fangxin.reports.render import render

PEOPLE = 12


def make_many(folder: Path, *, more: str = "", people: int = PEOPLE) -> Path:
    """Build it, with certificates C-001 ... of requests r-001 ...; half in September, half in October 2026."""
    keys, ledger = start(folder)
    laws = sorted(LAWS.glob("*.yaml"))
    ledger.append([entry("law.loaded", digest=sha(path.read_bytes()), law=path.stem) for path in laws])
    begin(ledger)
    (folder / "law").mkdir()
    (folder / "law" / f"retention-{sha(TABLE)}.json").write_bytes(TABLE)
    (folder / "catalog").mkdir()
    (folder / "certificates").mkdir()
    (folder / "fangxin.toml").write_text(f'origin = "{ledger.origin}"\nledger_head = "second/head"\n{more}')
    findings = statement.write(
        folder / "dsse",
        keys=keys,
        predicate_type="https://ledger.example.com/erasure/v1",
        subjects={"findings.parquet": sha("findings")},
        predicate={"hits": 0, "plan": sha("plan")},
    )
    validated = erase(ledger, findings)
    named = [{"name": path.name, "sha256": sha(path.read_bytes())} for path in laws]
    for n in range(1, people + 1):
        document = certificate(validated, number=f"C-{n:03d}", request=f"r-{n:03d}", law=named)
        raw = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        page = render(document)
        (folder / "certificates" / f"C-{n:03d}.json").write_bytes(raw)
        (folder / "certificates" / f"C-{n:03d}.html").write_bytes(page)
        issued = entry("certificate.issued", tag=entries.tag(SECRET, 100 + n), json=sha(raw), html=sha(page))
        month = "09" if n <= people // 2 else "10"
        ledger.append([issued | {"verdict": str(document["outcome"]), "time": f"2026-{month}-20T08:00Z"}])
    assert SELECTORS
    return folder

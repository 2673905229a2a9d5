"""A package with everything that a package can have: witness, time tokens, a rotated key, signed PDFs, a report."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

from evidence.many_home import make_many
from evidence.small_home import NOW, SECRET, certificate, entry, sha
from evidence.test_approvals import KEYS, grant, told
from evidence.test_approvals import sign as sign_grant
from evidence.test_witness import WHEN, reader
from evidence.tsa import LocalTsa

from fangxin.flows.estate import LAWS, open_estate
from fangxin.flows.gather import by_period, published, write
from fangxin.flows.publish import software
from fangxin.flows.report import _report, earlier
from fangxin.reports.ledger import entries
from fangxin.reports.ledger.witness import Witness
from fangxin.reports.paper.pades import sign
from fangxin.reports.paper.signatory import CA, Signatory
from fangxin.reports.period import Period
from fangxin.reports.periodic import report_bytes
from fangxin.reports.periodic_pages import report_html
from fangxin.reports.render import render

_PAGE = """#set document(title: "C", date: datetime(year: 2026, month: 11, day: 22))
#set text(lang: "en")
#pdf.attach("certificate.json", bytes(sys.inputs.data), relationship: "data", mime-type: "application/json",
  description: "x")
Certificate
"""


def make_full(folder: Path) -> tuple[Path, Path]:
    """Return the package and the folder of trusted keys."""
    home = make_many(folder / "home", people=2, more="quorum = 1\ntsa = 'http://tsa.invalid'\n")
    estate = open_estate(home)
    ledger, keys = estate.ledger, home / "keys"
    witness = Witness.create(folder / "auditor" / "state.json", "audit.example/w1")
    witness.know(estate.signing.vkey)
    tsa = LocalTsa.make(folder / "tsa")
    (keys / "witness.vkeys").write_text(f"{witness.vkey}\n")
    (keys / "tsa-ca.pem").write_bytes(tsa.ca.read_bytes())
    signed_pdf(home, number="C-100")
    evidence = sha((keys / "evidence.pub.pem").read_bytes())
    ledger.append([entry("code.loaded", digest=software().sha256)])
    officers(home)
    ledger.append([entry("keys.loaded", evidence=evidence, certificates=sha((keys / CA).read_bytes()))])
    report(home, "2026-10")
    report(home, "2026-11", previous=sha((home / "reports" / "2026-10.json").read_bytes()))
    for _round in range(2):
        _seen, line = witness.visit(reader(ledger.folder), WHEN)
        ledger.witnessed(line)
        ledger.stamp(tsa.stamp)
        if not _round:
            ledger.rotate(NOW)
            published(estate, sha("an earlier package"))
            witness.know(ledger.vkeys[0])
    estate = open_estate(home)
    write(estate, folder / "full.zip", by_period(estate, "2026"))
    return folder / "full.zip", keys


def officers(home: Path) -> None:
    """Two officers approve a plan, and the keys of its people are destroyed under what they signed."""
    estate = open_estate(home)
    paper = grant()
    signatures = sign_grant(paper, "an", "bo")
    for name, key in KEYS.items():
        path = home / "keys" / "officers" / f"{name}.pub"
        path.parent.mkdir(exist_ok=True)
        path.write_text(key.public_key().public_bytes_raw().hex() + "\n")
    (home / "approvals").mkdir()
    for one in signatures:
        (home / "approvals" / f"{sha(one.public())}.json").write_bytes(one.public())
    said = told(paper, signatures)
    estate.ledger.append([entry("approved", tag=entries.tag(SECRET, 901), plan=sha("big"), **said)])
    (intent,) = estate.ledger.append([entry("erase.intended", store="vault", plan=sha("big"), units="20-99")])
    gone = {"intent": intent, "before": sha("after"), "after": sha("later"), "grant": paper.plan_hash}
    estate.ledger.append([entry("key.destroyed", **gone)])


def signed_pdf(home: Path, *, number: str) -> None:
    """Issue one more certificate, with a PDF that was signed twice and carries its JSON."""
    import typst

    estate = open_estate(home)
    validated = next(index for index, one in estate.ledger.entries() if one["type"] == "validated")
    named = [{"name": path.name, "sha256": sha(path.read_bytes())} for path in sorted(LAWS.glob("*.yaml"))]
    document = certificate(validated, number=number, request="r-100", law=named)
    raw = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    source = home / "tmp-page.typ"
    source.write_text(_PAGE)
    pdf = typst.Compiler(source).compile(format="pdf", pdf_standards=["a-3a"], sys_inputs={"data": raw.decode()})
    source.unlink()
    now = datetime.datetime.now(datetime.UTC)
    by = Signatory.create(home / "keys", origin=estate.settings.origin, now=now)
    assert isinstance(pdf, bytes)
    forms = {"json": raw, "html": render(document), "pdf": sign(pdf, by=by, at=now, reason="Verification")}
    for kind, content in forms.items():
        (home / "certificates" / f"{number}.{kind}").write_bytes(content)
    digests = {kind: sha(content) for kind, content in forms.items()}
    issued = entry("certificate.issued", tag=entries.tag(SECRET, 900), verdict=str(document["outcome"]), **digests)
    estate.ledger.append([issued])


def report(home: Path, period: str, **more: str) -> None:
    """Publish a periodic report, as JSON and as a page."""
    (home / "reports").mkdir(exist_ok=True)
    estate = open_estate(home)
    path = home / "reports" / f"{period}.json"
    document = _report(estate, Period.parse(period), earlier(estate), preview=False)
    path.write_bytes(report_bytes(document))
    page = path.with_suffix(".html")
    page.write_bytes(report_html(document))
    estate.ledger.append(
        [entry("report.published", period=period, json=sha(path.read_bytes()), html=sha(page.read_bytes()), **more)]
    )

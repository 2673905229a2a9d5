"""Paper that strangers' programs accept, and reject once a byte of it is changed: openssl, pdfsig, qpdf, pikepdf."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import signal
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pikepdf
import pytest
from cryptography import x509
from evidence.made_up_year import made_up_report
from evidence.tsa import LocalTsa

from fangxin.checks import verify
from fangxin.data.errors import DoesNotHold, InputError, NotAllowed, Unavailable
from fangxin.flows.estate import make_home, open_estate
from fangxin.flows.report import publish_report
from fangxin.reports.certificate import CertificateFacts, certificate, certificate_bytes
from fangxin.reports.paper.pades import sign, sign_for_long
from fangxin.reports.paper.pages import certificate_pdf
from fangxin.reports.paper.signatory import CA, CA_KEY, CERTIFICATE, KEY, Signatory
from fangxin.reports.period import Period
from fangxin.reports.periodic_pages import report_pdf
from fangxin.reports.render import render

NOW = datetime.now(UTC).replace(microsecond=0)


def tool(name: str) -> str:
    found = shutil.which(name)
    assert found, f"{name} is not installed: `make components` as root installs it"
    return found


def run(*words: str | Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([tool(str(words[0])), *map(str, words[1:])], capture_output=True, check=False)


@pytest.fixture(scope="module")
def by(tmp_path_factory: pytest.TempPathFactory) -> Signatory:
    return Signatory.create(tmp_path_factory.mktemp("keys"), origin="ledger.example.com/erasure/2026", now=NOW)


@pytest.fixture
def document(facts: CertificateFacts) -> dict[str, Any]:
    return certificate(facts)


def signatures(pdf: bytes) -> list[tuple[bytes, bytes, int]]:
    """What each signature covers, its CMS, and where what it covers ends."""
    found = []
    for match in re.finditer(rb"/ByteRange\s*\[\s*(\d+) (\d+) (\d+) (\d+)\s*\]", pdf):
        start, first, second, last = map(int, match.groups())
        assert start == 0
        contents = pdf[first + 1 : second - 1]
        assert re.fullmatch(rb"[0-9a-fA-F]+", contents)
        raw = bytes.fromhex(contents.decode())
        length = 4 + int.from_bytes(raw[2:4], "big")  # DER: a SEQUENCE with a length of two bytes
        found.append((pdf[:first] + pdf[second : second + last], raw[:length], second + last))
    return found


def cms_holds(pdf: bytes, ca: Path, folder: Path) -> bool:
    covered, cms, _end = signatures(pdf)[0]
    (folder / "covered").write_bytes(covered)
    (folder / "cms").write_bytes(cms)
    return not run(
        "openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", folder / "cms", "-content", folder / "covered",
        "-CAfile", ca, "-purpose", "any", "-out", folder / "out",
    ).returncode  # fmt: skip


def ca_of(by: Signatory, folder: Path) -> Path:
    from cryptography.hazmat.primitives.serialization import Encoding

    path = folder / "ca.pem"
    path.write_bytes(by.chain[-1].public_bytes(Encoding.PEM))
    return path


def pdfsig(pdf: bytes, ca: Path, folder: Path) -> str:
    database = folder / "nss"
    if not database.exists():
        database.mkdir()
        assert not run("certutil", "-N", "-d", f"sql:{database}", "--empty-password").returncode
        added = ("certutil", "-A", "-d", f"sql:{database}", "-n", "ca", "-t", "CT,C,C", "-i", ca)
        assert not run(*added).returncode
    (folder / "seen.pdf").write_bytes(pdf)
    return run("pdfsig", "-nssdir", f"sql:{database}", folder / "seen.pdf").stdout.decode(errors="replace")


# ------------------------------------------------------------ pages


def test_a_rehearsals_certificate_says_so_in_every_form_and_on_every_page(facts: CertificateFacts) -> None:
    real, rehearsed = certificate(facts), certificate(replace(facts, rehearsal=True))
    assert (real["rehearsal"], rehearsed["rehearsal"]) == (False, True)
    for document in (real, rehearsed):
        says = document["rehearsal"]
        page = render(document).decode()
        assert ("演练:本证明不证明任何真实的擦除" in page) is ("proves no real erasure" in page) is says
        for language, (title, short) in {"zh": ("演练：本证明", "演练"), "en": ("A rehearsal:", "rehearsal")}.items():
            pdf = subprocess.run(
                [tool("pdftotext"), "-", "-"],
                input=certificate_pdf(document, languages=[language]), capture_output=True, check=True,
            ).stdout.decode()  # fmt: skip
            pages = pdf.split("\f")[:-1]
            assert [title in text for text in pages] == [says] + [False] * (len(pages) - 1)
            assert [short in text.split(document["number"])[-1] for text in pages] == [says] * len(pages)


def test_a_certificate_conforms_to_what_it_says_it_conforms_to(document: dict[str, Any]) -> None:
    with pikepdf.open(io.BytesIO(certificate_pdf(document))) as pdf:
        with pdf.open_metadata() as told:
            assert (told["pdfaid:part"], told["pdfaid:conformance"], told["pdfuaid:part"]) == ("3", "A", "1")
        root = pdf.Root
        assert root.MarkInfo.Marked
        assert str(root.Lang).startswith("zh")
        assert [str(one.S) for one in root.OutputIntents] == ["/GTS_PDFA1"]
        assert [str(one.AFRelationship) for one in root.AF] == ["/Data"]
        assert "/StructTreeRoot" in root
        assert root.ViewerPreferences.DisplayDocTitle
        fonts = [one for one in pdf.objects if isinstance(one, pikepdf.Dictionary) and "/FontDescriptor" in one]
        assert fonts
        for one in fonts:
            assert {"/FontFile2", "/FontFile3"} & set(one.FontDescriptor.keys())
        assert list(pdf.attachments) == ["certificate.json"]
        assert pdf.attachments["certificate.json"].get_file().read_bytes() == certificate_bytes(document)


def test_the_same_certificate_gives_the_same_pages(document: dict[str, Any]) -> None:
    assert certificate_pdf(document) == certificate_pdf(document)


def test_the_words_of_a_certificate_need_the_same_glyphs_whatever_its_figures(document: dict[str, Any]) -> None:
    """Cutting them out of the face is then remembered from one certificate of a batch to the next (decision 25)."""
    row = document["collections"][0]
    figures = {"rows_found": 98_765, "baseline_hits": 43_210, "bytes_read": 1 << 42}
    other = {**document, "number": "FX-2031-987654", "collections": [{**row, **figures}, *document["collections"][1:]]}

    def faces(certificate: dict[str, Any]) -> list[bytes]:
        with pikepdf.open(io.BytesIO(certificate_pdf(certificate, languages=["zh"]))) as pdf:
            found = [one for one in pdf.objects if isinstance(one, pikepdf.Dictionary) and "/FontFile2" in one]
            return sorted((one.FontFile2.read_bytes() for one in found), key=len)[-1:]

    assert faces(document) == faces(other)


def test_a_forked_child_prints_the_same_pages_and_waits_for_no_thread_of_its_parent(
    document: dict[str, Any], tmp_path: Path
) -> None:
    """Typst's threads stay with the process that printed first; a child that counted on them would hang."""
    first = certificate_pdf(document)
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # a hang ends as a failure
        (tmp_path / "page.pdf").write_bytes(certificate_pdf(document))
        try:
            certificate_pdf({**document, "number": "FX-\U0001f600"})
        except DoesNotHold as error:
            (tmp_path / "said").write_text(error.message)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (tmp_path / "page.pdf").read_bytes() == first
    assert "U+1F600" in (tmp_path / "said").read_text()


@pytest.mark.parametrize("language", ["zh", "en"])
def test_a_certificate_has_three_pages_in_each_language(document: dict[str, Any], language: str) -> None:
    with pikepdf.open(io.BytesIO(certificate_pdf(document, languages=[language]))) as pdf:
        assert len(pdf.pages) == 3


def test_paper_says_what_the_document_says(document: dict[str, Any], tmp_path: Path) -> None:
    document["scan"] |= {"breadth": "core", "omitted": [{"form": "reversed", "identities": 1_200}]}
    (tmp_path / "c.pdf").write_bytes(certificate_pdf(document))
    text = re.sub(r"[\s\u200b]+", "", run("pdftotext", "-layout", tmp_path / "c.pdf", "-").stdout.decode())
    for shown in ("个人信息擦除证明", "CertificateofErasure", "FX-2026-000147", "已擦除，法律要求保留的记录除外",
                  "Erased,exceptforwhatthelawrequirestobekept", "lecard/会员", "2029-11-22", "1/3", "3/3",
                  "notsearched:reversed", "未查找:倒序", "core:thebatchheldmorethan1,000"):  # fmt: skip
        assert shown in text
    for limit in document["limits"]:
        assert re.sub(r"\s+", "", limit["en"])[:20] in text


@pytest.mark.parametrize(("text", "point"), [("\ue000", "U+E000"), ("က", "U+1000"), ("😀", "U+1F600")])
def test_a_character_that_cannot_be_drawn_fails_the_page_by_its_code_point(
    facts: CertificateFacts, text: str, point: str
) -> None:
    kept = replace(facts.retained[0], text_en=f"before {text} after")
    with pytest.raises(DoesNotHold) as failed:
        certificate_pdf(certificate(replace(facts, retained=(kept,))))
    assert point in failed.value.message
    assert text not in str(failed.value)
    assert "before" not in str(failed.value)
    assert failed.value.__cause__ is None
    assert failed.value.__suppress_context__


def test_ideographs_beyond_the_first_plane_are_drawn(facts: CertificateFacts) -> None:
    kept = replace(facts.retained[0], text_zh="𠮷田、㐂寿司、〇")
    assert certificate_pdf(certificate(replace(facts, retained=(kept,))), languages=["zh"])


# ------------------------------------------------------------ signatures


def test_strangers_programs_accept_a_signed_certificate_and_reject_a_changed_one(
    document: dict[str, Any], by: Signatory, tmp_path: Path
) -> None:
    pdf = sign(certificate_pdf(document), by=by, at=NOW, reason="Verification")
    ca = ca_of(by, tmp_path)
    assert signatures(pdf)[-1][2] == len(pdf)
    assert cms_holds(pdf, ca, tmp_path)
    seen = pdfsig(pdf, ca, tmp_path)
    assert "Signature is Valid" in seen
    assert "Certificate is Trusted" in seen
    assert "Total document signed" in seen
    assert not run("qpdf", "--check", tmp_path / "seen.pdf").returncode
    with pikepdf.open(io.BytesIO(pdf)) as again:
        assert again.attachments["certificate.json"].get_file().read_bytes() == certificate_bytes(document)

    changed = bytearray(pdf)
    changed[len(pdf) // 3] ^= 1
    assert not cms_holds(bytes(changed), ca, tmp_path)
    assert "Signature is Valid" not in pdfsig(bytes(changed), ca, tmp_path)
    cut = pdf[: len(pdf) * 2 // 3]
    (tmp_path / "cut.pdf").write_bytes(cut)
    assert run("qpdf", "--check", tmp_path / "cut.pdf").returncode


def test_another_authority_is_not_trusted(document: dict[str, Any], by: Signatory, tmp_path: Path) -> None:
    other = Signatory.create(tmp_path / "other", origin="elsewhere.example/erasure", now=NOW)
    pdf = sign(certificate_pdf(document, languages=["en"]), by=other, at=NOW, reason="Verification")
    ca = ca_of(by, tmp_path)
    assert not cms_holds(pdf, ca, tmp_path)
    assert "Certificate is Trusted" not in pdfsig(pdf, ca, tmp_path)


def test_a_report_signed_for_the_long_term_ends_with_its_last_time_stamp(by: Signatory, tmp_path: Path) -> None:
    tsa = LocalTsa.make(tmp_path / "tsa")
    roots = x509.load_pem_x509_certificates(tsa.ca.read_bytes())
    pages = report_pdf(made_up_report("2026-02"))
    now = datetime.now(UTC)
    with pytest.raises(DoesNotHold, match="do not hold together"):
        sign_for_long(pages, by=by, at=now, reason="Report", replies=tsa.reply, authorities=())
    pdf = sign_for_long(pages, by=by, at=now, reason="Report", replies=tsa.reply, authorities=roots)
    found = signatures(pdf)
    assert len(found) == 2
    assert found[0][2] < found[1][2] == len(pdf)
    assert b"/DSS" in pdf
    assert b"/Type /DocTimeStamp" in pdf or b"/Type/DocTimeStamp" in pdf
    ca = ca_of(by, tmp_path)
    assert cms_holds(pdf, ca, tmp_path)
    assert "Signature is Valid" in pdfsig(pdf, ca, tmp_path)
    covered, token, _end = found[1]
    (tmp_path / "covered").write_bytes(covered)
    (tmp_path / "token").write_bytes(token)
    words = ("openssl", "ts", "-verify", "-data", tmp_path / "covered", "-in", tmp_path / "token", "-token_in")
    assert not run(*words, "-CAfile", tsa.ca).returncode
    (tmp_path / "covered").write_bytes(covered + b" ")
    assert run(*words, "-CAfile", tsa.ca).returncode


def test_a_home_with_a_time_stamping_authority_signs_its_reports_for_the_long_term(tmp_path: Path) -> None:
    tsa = LocalTsa.make(tmp_path / "tsa")

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            reply = tsa.reply(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answers)
    Thread(target=server.serve_forever, daemon=True).start()
    now, home = datetime.now(UTC), tmp_path / "home"
    make_home(home, rehearsal=True, origin="ledger.example.com/erasure/2026", now=now, capacity=1_000)
    settings = (home / "fangxin.toml").read_text("utf-8")
    url = f"http://127.0.0.1:{server.server_port}/"
    (home / "fangxin.toml").write_text(settings.replace('tsa = ""', f'tsa = "{url}"'), "utf-8")
    yesterday = (now - timedelta(days=1)).date()
    estate = open_estate(home, now=now)
    with pytest.raises(InputError, match=r"tsa-ca\.pem"):
        publish_report(estate, Period(yesterday, yesterday))
    shutil.copy(tsa.ca, home / "keys" / "tsa-ca.pem")
    document = publish_report(estate, Period(yesterday, yesterday))
    server.shutdown()

    pdf = (home / "reports" / f"{document['period']['id']}.pdf").read_bytes()
    assert len(signatures(pdf)) == 2
    own = x509.load_pem_x509_certificates((home / "keys" / CA).read_bytes())
    stamps = x509.load_pem_x509_certificates(tsa.ca.read_bytes())
    assert len(verify.signed_pdf(pdf, own, stamps, "report.pdf")) == 2  # our own verifier, which shares no code
    with pytest.raises(verify.Wrong):
        verify.signed_pdf(pdf + b"\n%more\n", own, stamps, "report.pdf")
    published = [one for _index, one in estate.ledger.entries() if one["type"] == "report.published"]
    assert [one["pdf"] for one in published] == [hashlib.sha256(pdf).hexdigest()]


def test_an_authority_that_gives_no_token_leaves_nothing_signed(by: Signatory) -> None:
    def silent(_request: bytes) -> bytes:
        raise ConnectionRefusedError

    with pytest.raises(Unavailable, match="gave no token"):
        sign_for_long(report_pdf(made_up_report("2026-02"), languages=["en"]), by=by, at=NOW, reason="Report",
                      replies=silent, authorities=())  # fmt: skip


def test_an_operator_brings_a_certificate_of_their_own(document: dict[str, Any], by: Signatory, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    made = Signatory.create(keys, origin="a.example", now=NOW)
    (keys / CA_KEY).unlink()  # an authority elsewhere keeps its own key
    brought = Signatory.load(keys)
    assert brought.fingerprint == made.fingerprint
    assert brought.revoked(NOW) == ()
    pdf = sign(certificate_pdf(document, languages=["en"]), by=brought, at=NOW, reason="Verification")
    assert cms_holds(pdf, keys / CA, tmp_path)


def test_what_does_not_belong_together_is_refused(by: Signatory, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    Signatory.create(one, origin="one.example", now=NOW)
    Signatory.create(two, origin="two.example", now=NOW)
    with pytest.raises(NotAllowed):
        Signatory.create(one, origin="one.example", now=NOW)
    shutil.copy(two / CA, one / CA)
    with pytest.raises(InputError, match="does not issue"):
        Signatory.load(one)
    shutil.copy(two / CERTIFICATE, one / CERTIFICATE)
    with pytest.raises(InputError, match="not the one of"):
        Signatory.load(one)
    (one / KEY).write_text("no key")
    with pytest.raises(InputError, match="cannot be read"):
        Signatory.load(one)
    assert "PRIVATE" not in repr(by)

"""No change of a package passes: not one by a stranger, and by who holds the evidence key only what the key may say."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from evidence.full_package import make_full
from evidence.mutations import judge, judge_insider, signed_again
from evidence.small_home import entry, sha
from evidence.test_verify import contents, rows
from evidence.test_witness import WHEN
from evidence.tsa import LocalTsa, openssl

from fangxin.checks import verify
from fangxin.flows.estate import open_estate
from fangxin.reports.ledger import stamp
from fangxin.reports.ledger.keys import SigningKeys

# What the holder of the evidence key may do beside his own words: leave out what nothing in the package asks for, call
# a law's file otherwise, and put signature lines of unknown keys under a note, which everybody ignores.
LEFT_OUT = re.compile(
    r"his own words|signature lines of nobody that is known, or their order|"
    r"(rename|swap files|copy over) in law/.*|"
    r"drop in (checkpoints|dsse|proofs|reports|certificate-ca\.pem|tsa-ca\.pem)/.*|rename in (reports|dsse)/.*"
)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_full(tmp_path_factory.mktemp("full"))


def test_a_package_with_everything_in_it_holds(full: tuple[Path, Path]) -> None:
    checks = verify.verify(full[0], trust=full[1])
    assert verify.exit_code(checks) == 0, verify.table(checks)
    named = {one.name for one in checks if one.result == verify.NOT_APPLICABLE}
    assert named == {"shards", "calendar", "challenge", "mine"}
    (pages,) = (one for one in checks if one.name == "pages")
    assert re.search(r"certificate pages drawn again from JSON: the same bytes; [1-9] report page", pages.reason)
    (seen,) = (one for one in checks if one.result == verify.NOT_COMPARED)
    assert seen.name == "words"
    assert re.search(r"seen in [1-9][0-9]* html, [1-9][0-9]* pdf:", seen.reason), seen.reason


def test_no_change_by_a_stranger_passes_and_none_is_merely_incomplete(full: tuple[Path, Path], tmp_path: Path) -> None:
    assert sum(judge(*full, tmp_path, rounds=200, seed=1).values()) > 190


def test_who_holds_the_evidence_key_can_rewrite_his_own_words_alone(full: tuple[Path, Path], tmp_path: Path) -> None:
    refused, passed = judge_insider(*full, tmp_path, rounds=90, seed=2)
    assert sum(refused.values()) > 30
    assert [kind for kind in passed if not LEFT_OUT.fullmatch(kind)] == []


# ------------------------------------------------------------ one lie at a time, each with its own message


def told(full: tuple[Path, Path], tmp_path: Path, check: str, changed: dict[str, bytes]) -> str:
    """What a check says of the package with these files replaced and everything signed again by its maker."""
    keys = SigningKeys.load(full[1])
    path = signed_again(tmp_path / "x.zip", contents(full[0]) | changed, keys)
    found = rows(verify.verify(path, trust=full[1]))[check]
    assert found.result == verify.FALSE, found
    assert "verifier itself" not in found.reason
    return found.reason


def test_each_wrong_time_token_has_its_own_message(full: tuple[Path, Path], tmp_path: Path) -> None:
    files = contents(full[0])
    note, good = files["checkpoint"], files["checkpoint.tsr"]
    mine = full[1].parent.parent / "tsa"
    stranger = LocalTsa.make(tmp_path / "stranger")
    other_use = LocalTsa.make(tmp_path / "use", kind="rsa", usage="serverAuth")
    loose = LocalTsa.make(tmp_path / "loose", kind="rsa", usage="timeStamping")
    both = (tmp_path / "use" / "ca.pem").read_bytes() + (tmp_path / "loose" / "ca.pem").read_bytes()
    roots = verify._ca_file(both, "ca")
    said = {
        "covers other bytes": told(full, tmp_path, "time", {"checkpoint.tsr": LocalTsa(mine).stamp(note + b"\n")}),
        "no given CA": told(full, tmp_path, "time", {"checkpoint.tsr": stranger.stamp(note)}),
        "not a TimeStampResp": told(full, tmp_path, "time", {"checkpoint.tsr": good + b"\0"}),
        "cut off": told(full, tmp_path, "time", {"checkpoint.tsr": good[:-1]}),
        "did not grant": told(
            full, tmp_path, "time", {"checkpoint.tsr": good.replace(b"0\x03\x02\x01\x00", b"0\x03\x02\x01\x02", 1)}
        ),
    }
    assert {words for words, reason in said.items() if words not in reason} == set()
    for one in (other_use, loose):  # openssl would not stamp with these
        with pytest.raises(verify.Wrong, match="time stamps"):
            verify.time_token(stamped_with(one, note), note, roots, "token")
    fit = LocalTsa.make(tmp_path / "fit", kind="rsa")
    assert verify.time_token(stamped_with(fit, note), note, verify._ca_file(fit.ca.read_bytes(), "ca"), "token")
    data, token = tmp_path / "data", tmp_path / "token"
    data.write_bytes(note)
    for content, holds in ((good, True), (good[:-40] + bytes([good[-40] ^ 1]) + good[-39:], False)):
        token.write_bytes(content)
        words = ("ts", "-verify", "-data", data, "-in", token, "-CAfile", full[1] / "tsa-ca.pem")
        if holds:
            openssl(*words)
        else:
            with pytest.raises(AssertionError):
                openssl(*words)


def stamped_with(tsa: LocalTsa, data: bytes) -> bytes:
    """A reply signed with this authority's key, whatever its certificate is for."""
    from asn1crypto import keys, pem, tsp, x509
    from pyhanko.sign.timestamps import DummyTimeStamper

    def read(name: str) -> bytes:
        return bytes(pem.unarmor((tsa.folder / name).read_bytes())[2])

    stamper = DummyTimeStamper(x509.Certificate.load(read("tsa.pem")), keys.PrivateKeyInfo.load(read("tsa.key")))
    return bytes(stamper.request_tsa_response(tsp.TimeStampReq.load(stamp.question(data)[0])).dump())


def test_an_entry_that_is_dated_after_the_token_that_covers_it_is_false(tmp_path: Path) -> None:
    package, trust = make_full(tmp_path / "full")
    estate = open_estate(trust.parent)
    estate.ledger.append([entry("swept") | {"time": "2099-01-01T00:00Z"}])
    estate.ledger.stamp(LocalTsa(tmp_path / "full" / "tsa").stamp)
    files = {name: content for name, content in contents(package).items() if not name.startswith("tile/")}
    files |= {name: read() for name, read in estate.ledger.files()}
    path = signed_again(tmp_path / "x.zip", files, SigningKeys.load(trust))
    found = rows(verify.verify(path, trust=trust))["time"]
    assert (found.result, "is dated 2099-01-01T00:00Z" in found.reason) == (verify.FALSE, True)


def test_each_wrong_pdf_has_its_own_message_and_openssl_agrees(full: tuple[Path, Path], tmp_path: Path) -> None:
    files = contents(full[0])
    good, ca = files["certificates/C-100.pdf"], (full[1] / "certificate-ca.pem").read_bytes()
    roots = verify._ca_file(ca, "ca")
    assert verify.signed_pdf(good, roots, None, "pdf") == ["signature"]
    start = good.rindex(b"/ByteRange")
    first, second = (int(one) for one in good[start:].split(b"[")[1].split()[1:3])
    inside = good.index(b"EmbeddedFile")
    lies = {
        "1 bytes after the last signature": good + b"\n",
        "leaves out more than the signature": good[:-1],
        "the signature is of other bytes": good[:inside] + b"embeddedFile" + good[inside + 12 :],
        "no signature, or a malformed ByteRange": good.replace(b"/ByteRange", b"/Byterange"),
        "something else behind a signature": good[: second - 3] + b"41>" + good[second:],
    }
    for words, lie in lies.items():
        with pytest.raises(verify.Wrong, match=words):
            verify.signed_pdf(lie, roots, None, "pdf")
    with pytest.raises(verify.Wrong, match="no given CA"):
        verify.signed_pdf(good, verify._ca_file((full[1] / "tsa-ca.pem").read_bytes(), "ca"), None, "pdf")
    assert "attached to it is not the one" in swapped(full, tmp_path)
    (tmp_path / "sig.der").write_bytes(verify.der(bytes.fromhex(good[first + 1 : second - 1].decode()), "pdf")[0].raw)
    (tmp_path / "ca.pem").write_bytes(ca)
    words = ("cms", "-verify", "-binary", "-inform", "DER", "-in", tmp_path / "sig.der", "-CAfile", tmp_path / "ca.pem")
    more = ("-content", tmp_path / "ranges", "-purpose", "any", "-out", tmp_path / "out")
    for content, holds in ((good[:first] + good[second:], True), (good[:first] + good[second:-1] + b"x", False)):
        (tmp_path / "ranges").write_bytes(content)
        if holds:
            openssl(*words, *more)
        else:
            with pytest.raises(AssertionError):
                openssl(*words, *more)


def swapped(full: tuple[Path, Path], tmp_path: Path) -> str:
    """A true PDF of another certificate, beside this one's JSON."""
    files = contents(full[0])
    path = signed_again(
        tmp_path / "s.zip",
        {**files, "certificates/C-001.pdf": files["certificates/C-100.pdf"]},
        SigningKeys.load(full[1]),
    )
    return rows(verify.verify(path, trust=full[1]))["papers"].reason


def test_each_wrong_cosignature_has_its_own_message(full: tuple[Path, Path]) -> None:
    note = contents(full[0])["checkpoint"]
    (line,) = [one for one in note.split(b"\n") if b"audit.example" in one]
    witness = verify._vkeys_file((full[1] / "witness.vkeys").read_bytes(), "witness.vkeys")
    assert list(verify.cosignatures(note, witness, WHEN).values()) == [WHEN]
    with pytest.raises(verify.Wrong, match="from the future"):
        verify.cosignatures(note, witness, WHEN - 601)
    with pytest.raises(verify.Wrong, match="signed twice"):
        verify.cosignatures(note + line + b"\n", witness, WHEN)
    with pytest.raises(verify.Wrong, match="not 72 bytes"):
        verify.cosignatures(note.replace(line, b" ".join(line.split(b" ")[:2]) + b" " + short(line)), witness, WHEN)
    other = re.sub(rb"\n([0-9]+)\n", lambda size: b"\n%d\n" % (int(size[1]) + 1), note, count=1)
    assert other != note
    with pytest.raises(verify.Wrong, match="is false"):
        verify.cosignatures(other, witness, WHEN)
    for wrong in ((full[1] / "log.vkey").read_bytes(), b"", b"junk\n", (full[1] / "witness.vkeys").read_bytes() * 2):
        with pytest.raises(verify.Wrong, match=r"^witness\.vkeys"):
            verify._vkeys_file(wrong, "witness.vkeys")


def short(line: bytes) -> bytes:
    import base64

    return base64.b64encode(base64.b64decode(line.split(b" ")[2])[:70])


@pytest.mark.scenario("S35")
def test_reports_that_leave_a_gap_or_deny_their_predecessor_are_false() -> None:
    def one(period: str, **more: str) -> dict[str, str]:
        return {"period": period, "json": sha(period), **more}

    chain = [one("2026-11"), one("2026-12", previous=sha("2026-11")), one("2027-01", previous=sha("2026-12"))]
    verify._no_gap(
        [*chain, one("2026-Q4"), one("2027-Q1", previous=sha("2026-Q4")), one("2026"), one("2026-01_2026-02")]
    )
    for wrong, said in (
        ([chain[0], one("2027-01", previous=sha("2026-11"))], "2026-12 is missing"),
        ([chain[0], one("2026-12")], "does not name"),
        ([one("2026-12", previous=sha("x"))], "not on record"),
        ([one("2026-Q4"), one("2027-Q2", previous=sha("2026-Q4"))], "2027-Q1 is missing"),
        ([one("2025"), one("2027", previous=sha("2025"))], "2026 is missing"),
    ):
        with pytest.raises(verify.Wrong, match=said):
            verify._no_gap(wrong)


def test_openssl_alone_accepts_the_whole_package_and_refuses_another_token(
    full: tuple[Path, Path], tmp_path: Path
) -> None:
    for name, content in contents(full[0]).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)

    def run() -> int:
        return subprocess.run(["sh", "verify.sh", full[1]], cwd=tmp_path, capture_output=True, check=False).returncode

    assert run() == 0
    good = (tmp_path / "checkpoint.tsr").read_bytes()
    wrong = (tmp_path / "checkpoints").glob("*.tsr")
    (tmp_path / "checkpoint.tsr").write_bytes(next(wrong).read_bytes())
    manifest = tmp_path / "MANIFEST.sha256"
    manifest.write_text(manifest.read_text().replace(sha(good), sha((tmp_path / "checkpoint.tsr").read_bytes())))
    assert run() != 0

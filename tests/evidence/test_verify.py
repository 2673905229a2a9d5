"""The verifier says yes to what is true, no to every lie, and "incomplete" to what it could not see."""

from __future__ import annotations

import ast
import base64
import hashlib
import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any  # JSON documents

import pytest
from evidence import small_home
from evidence.made_up_year import made_up_report
from evidence.small_home import (
    ORIGIN,
    SECRET,
    SELECTORS,
    Home,
    begin,
    certificate,
    entry,
    erase,
    issue,
    make_home,
    sha,
    start,
)

from bench.certificates import example
from fangxin.checks import verify
from fangxin.data.errors import InputError
from fangxin.reports import package
from fangxin.reports.certificate import certificate_bytes
from fangxin.reports.ledger import entries, statement
from fangxin.reports.periodic import report_bytes
from fangxin.reports.periodic_pages import report_html, report_template
from fangxin.reports.render import certificate_template, render
from fangxin.reports.validation import Validation


def rows(checks: list[verify.Check]) -> dict[str, verify.Check]:
    return {one.name: one for one in checks}


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    """Write these files as a package whose manifest and headers are right: only the content may be a lie."""
    own = (package.MANIFEST, package.SIGNED)
    lines = [f"{sha(files[name])}  {name}\n" for name in sorted(files) if name not in own]
    whole = files | ({package.MANIFEST: "".join(lines).encode()} if package.MANIFEST in files else {})
    package._write_zip(path, {name: package._fixed(whole[name]) for name in sorted(whole)})
    return path


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


# ------------------------------------------------------------ what is true


@pytest.mark.scenario("S34")
def test_a_true_package_holds_when_the_keys_come_from_outside(shared: Home) -> None:
    checks = verify.verify(shared.zip, trust=shared.trust)
    assert verify.exit_code(checks) == 0, verify.table(checks)
    assert {one.name for one in checks if one.result == verify.NOT_APPLICABLE} == {
        *("witnesses", "time", "history", "shards", "approvals", "papers", "reports", "figures", "calendar"),
        *("challenge", "mine", "words"),
    }
    assert rows(checks)["pages"].reason == "1 certificate page drawn again from JSON: the same bytes"


def _signed_again(home: Home, page: bytes) -> list[verify.Check]:
    """What an operator who logs and signs this page of the true certificate gets."""
    document = json.loads((home.folder / "C-1.json").read_bytes())
    issue(home.folder, home.ledger, document, page)
    receipt = {"C-1.tlog-proof": home.ledger.receipt(home.ledger.size - 1)}
    home.parts["proofs"] = home.parts["proofs"] | receipt
    return verify.verify(home.pack(), trust=home.trust)


def test_who_signs_a_page_that_says_something_else_than_its_json_never_gets_a_pass(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    true = (tmp_path / "C-1.html").read_bytes()
    lies = {
        "another verdict": (b"<b>Erased, except for what the law requires to be kept.</b>", b"<b>Erased.</b>"),
        "another figure": ("<b>1</b><span>擦除的记录".encode(), "<b>7</b><span>擦除的记录".encode()),
        "another date": (b"2029-11-22", b"2026-11-22"),
        "two labels changed places": (b"records erased", b"records kept by law"),
        "a rule that hides": (b"</style>", b".result{display:none}</style>"),
        "a word more": (b"</main>", b"<p>Approved by the authority.</p></main>"),
        "a section less": ("<h2>法律要求保留的记录".encode(), "<h2 hidden>法律要求保留的记录".encode()),
        "a remark that nobody sees": (b"</body>", b"<!-- --></body>"),
    }
    for lie, (said, instead) in lies.items():
        assert true.count(said) >= 1, lie
        checks = _signed_again(home, true.replace(said, instead))
        assert [one.name for one in checks if one.result == verify.FALSE] == ["pages"], lie
        assert verify.exit_code(checks) == 1
    assert rows(_signed_again(home, b""))["pages"].result == verify.FALSE
    assert verify.exit_code(_signed_again(home, true)) == 0


def test_a_page_of_a_template_that_the_verifier_does_not_know_is_not_called_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # who changes a template adds its digest, and keeps the old one
    assert {sha(certificate_template()), sha(report_template())} <= verify._PAGES.keys()
    home = make_home(tmp_path)
    own = certificate_template().replace("records erased", "records saved")
    monkeypatch.setattr(package, "certificate_template", lambda: own)
    page = (tmp_path / "C-1.html").read_bytes().replace(b"records erased", b"records saved")
    checks = _signed_again(home, page)
    assert (rows(checks)["pages"].result, verify.exit_code(checks)) == (verify.MISSING, 2)
    files = contents(home.zip)
    without = {name: raw for name, raw in files.items() if not name.startswith("pages/")}
    swapped = {(f"pages/{'0' * 64}.j2" if name.startswith("pages/") else name): raw for name, raw in files.items()}
    for changed, result in ((without, verify.MISSING), (swapped, verify.FALSE)):
        again = verify.verify(zipped(tmp_path / "x.zip", changed), trust=home.trust)
        assert rows(again)["pages"].result == result


def test_a_reports_page_says_the_verdict_of_its_json_and_nothing_hides_it() -> None:
    report = json.loads(report_bytes(made_up_report("2026-Q2")))
    page, drawing = report_html(report), verify.Drawing(report_template())
    values = {"digest": sha(report_bytes(report)), "accepted": None}
    assert drawing.shows("report", report, values, page)
    for said, instead in {
        b"There are matters to explain": b"Every erasure was checked again",
        b"2026-06-30</dd>": b"2026-09-30</dd>",
        b"</style>": b".result{display:none}</style>",
        b"</h2>": b"</h2><style>.result{display:none}</style>",
        b"<h2>": b'<p style="margin-top:-900px">All is well.</p><h2>',
        b"</figure>": b'<svg overflow="visible"><rect y="-2000" width="900" height="900"/></svg></figure>',
        b"<footer>": b"<dialog open>All is well.</dialog><footer>",
        b"</html>": b"</html><p>All is well.</p>",
    }.items():
        assert page.count(said) >= 1, said
        assert not drawing.shows("report", report, values, page.replace(said, instead)), said
    other = {"good": "mind", "mind": "good"}[report["verdict"]]
    assert not drawing.shows("report", report | {"verdict": other}, values, page)


def drawn() -> Iterator[tuple[dict[str, Any], Validation | None]]:
    """Certificates that between them take every way through the template."""
    yield example(), None
    odd = json.loads(json.dumps(example()))
    odd |= {"outcome": "partial", "rehearsal": True, "approvers": ["anna", "bo"], "copies": [], "inventory": []}
    odd["outside"] = [{"place": "a<b>&'\"", "containers": "zip", "before": 5000, "hits": 3, "doubtful": True}]
    odd["shared"] = [{"dataset": "x", "collection": "y", "rows": 3, "others": 2}]
    odd["mentions"] = [{"dataset": "x", "collection": "y", "rows": 3, "masked": 2}]
    odd["settlements"] = [{"kind": "points", "disposition": "paid", "reference": "p-1"}]
    odd["deadline"] = {"until": "2026-12-01T00:00Z", "rule": "promise"}
    odd["processors"] = [{"name": "p", "datasets": ["a", "b"], "told": None, "confirmed": "2026-11-24T01:00Z"}]
    canary = {"commitment": "ab" * 32, "opened": False, "placements": 2}
    odd["canaries"] = [canary | dict.fromkeys(("erased", "retained", "reported", "missed"), 0)]
    odd["scan"]["not_examinable"] = [{"place": "x.zip", "reason": "encrypted"}]
    left_out = [{"form": "base64", "identities": 1200}, {"form": "unheard of", "identities": 1}]
    odd["scan"] |= {"breadth": "core", "omitted": left_out}
    odd["keys"]["kept"] = [{"domain": "d", "ground": "g", "until": "officer"}]
    odd["keys"] |= {"replicas": None, "copies": None, "domains": []}
    odd["keys"]["holders"][0] |= {"backup_resistant": True, "conditions": "in-place-medium, unheard-of, "}
    more = {"values_masked": 3, "hits_explained": 9, "not_examinable": "a part"}
    odd["collections"][0] |= more | {"method": "LOGICAL_DELETE", "reason": "<why>"}
    odd["collections"][1] |= {"method": "EXPIRY"}
    odd["collections"][2] |= {"method": "CRYPTOGRAPHIC_ERASE", "verdict": "NOT_PRESENT"}
    odd["collections"][3] |= {"method": "OVERWRITE", "claim": "ext4, disk: extents"}
    yield odd, Validation("n", "c", "anna", "2026-11-24T01:00Z", "ab" * 32, "cd" * 32)
    odd = json.loads(json.dumps(odd))
    odd["collections"][0] |= {"verdict": "FAILED", "claim": ""}
    del odd["scan"]["breadth"], odd["scan"]["omitted"]  # as certificates were before they told it
    yield odd | {"outcome": "failed", "export": None, "times": dict.fromkeys(odd["times"])}, None


def test_the_verifier_draws_what_jinja_draws() -> None:
    drawing = verify.Drawing(certificate_template())
    for document, accepted in drawn():
        digest = sha(certificate_bytes(document))
        values = {"digest": digest, "accepted": None if accepted is None else vars(accepted)}
        assert drawing.page(document, values).encode() == render(document, accepted)
    for text in ("{% block x %}", "{{ a ** b }}", "{{ a b }}", "{% if a %}", "{{ [x for x in a] }}", "{% endif %}"):
        with pytest.raises(verify.Wrong, match="template"):
            verify.Drawing(text)


@pytest.mark.parametrize("told", [True, False])
def test_a_rehearsal_says_so_or_does_not_hold(told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, plainly = small_home.entry, small_home.certificate
    rehearsed = {"approved": {"by": "rehearsal"}}
    monkeypatch.setattr(small_home, "entry", lambda kind, **rest: plain(kind, **(rehearsed.get(kind, {}) | rest)))
    monkeypatch.setattr(small_home, "certificate", lambda index: plainly(index, rehearsal=told))
    home = make_home(tmp_path)
    checks = verify.verify(home.zip, trust=home.trust)
    assert verify.exit_code(checks) == (0 if told else 1)
    found = rows(checks)["certificates"]
    assert ("OF A REHEARSAL" if told else "does not say that it is one") in found.reason


def test_a_partial_certificate_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plainly = small_home.certificate
    there = [{"place": "outside/old.zip", "containers": "zip", "before": 1, "hits": 1, "doubtful": False}]
    monkeypatch.setattr(small_home, "certificate", lambda index: plainly(index, outcome="partial", outside=there))
    home = make_home(tmp_path)
    checks = verify.verify(home.zip, trust=home.trust)
    assert verify.exit_code(checks) == 0
    assert "1 PARTIAL: more of the person is named, and stands" in rows(checks)["certificates"].reason


def test_without_outside_keys_the_answer_is_at_best_incomplete(shared: Home) -> None:
    checks = verify.verify(shared.zip)
    assert verify.exit_code(checks) == 2
    assert [one.name for one in checks if one.result == verify.MISSING] == ["trust"]
    assert str(shared.keys.vkey) in rows(checks)["trust"].reason


def test_the_same_files_as_a_plain_folder_hold_too(shared: Home, tmp_path: Path) -> None:
    out = tmp_path / "package"
    package.write_folder(out, ledger=shared.ledger, keys=shared.keys, **shared.parts)
    assert verify.exit_code(verify.verify(out, trust=shared.trust)) == 0
    (out / "extra").write_bytes(b"")
    assert rows(verify.verify(out, trust=shared.trust))["manifest"].result == verify.FALSE
    (out / "extra").unlink()
    (out / "link").symlink_to(out / "checkpoint")
    assert "not a plain file" in rows(verify.verify(out, trust=shared.trust))["container"].reason


def test_the_same_home_gives_the_same_bytes(shared: Home) -> None:
    assert shared.pack("second.zip").read_bytes() == shared.zip.read_bytes()
    assert not list(shared.folder.glob(".*"))


def test_any_zip_program_can_read_the_package(shared: Home) -> None:
    with zipfile.ZipFile(shared.zip) as archive:
        assert archive.testzip() is None
        assert all(one.compress_type == zipfile.ZIP_STORED for one in archive.infolist())
        assert all(one.date_time == (1980, 1, 1, 0, 0, 0) for one in archive.infolist())


def test_the_program_inside_the_package_runs_alone_and_agrees(shared: Home, tmp_path: Path) -> None:
    with zipfile.ZipFile(shared.zip) as archive:
        (tmp_path / "verify.py").write_bytes(archive.read("verify.py"))
    run = [sys.executable, "-I", str(tmp_path / "verify.py"), str(shared.zip)]
    trusted = subprocess.run([*run, "--trust", str(shared.trust)], capture_output=True, text=True, check=False)
    assert (trusted.returncode, trusted.stderr) == (0, "")
    assert "Every check that applies was run and holds." in trusted.stdout
    asjson = subprocess.run([*run, "--json"], capture_output=True, text=True, check=False)
    assert asjson.returncode == json.loads(asjson.stdout)["exit_code"] == 2


def test_the_verifier_imports_only_the_standard_library_and_cryptography() -> None:
    tree = ast.parse(Path(verify.__file__).read_text("utf-8"))
    found = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    found |= {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert found - {"cryptography"} <= set(sys.stdlib_module_names)


def test_openssl_and_sha256sum_agree_and_notice_a_change(shared: Home, tmp_path: Path) -> None:
    with zipfile.ZipFile(shared.zip) as archive:
        archive.extractall(tmp_path)

    def run() -> int:
        return subprocess.run(
            ["sh", "verify.sh", shared.trust], cwd=tmp_path, capture_output=True, check=False
        ).returncode

    assert run() == 0
    original = (tmp_path / "checkpoint").read_bytes()
    changed = original.replace(b"\n", b"\n1", 1)
    manifest = tmp_path / package.MANIFEST
    (tmp_path / "checkpoint").write_bytes(changed)
    assert run() != 0  # the manifest notices
    manifest.write_text(manifest.read_text().replace(sha(original), sha(changed)))
    assert run() != 0  # the signature notices


# ------------------------------------------------------------ wrong usage


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["nowhere.zip"],
        ["{zip}", "--trust", "nowhere"],
        ["{zip}", "--since", "nowhere"],
        ["{zip}", "--secret", "{zip}"],
        ["{zip}", "--unknown"],
        ["{folder}", "--trust", "{folder}"],
    ],
)
def test_wrong_usage_is_its_own_answer(shared: Home, argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([one.format(zip=shared.zip, folder=shared.folder) for one in argv]) == 3
    assert capsys.readouterr().err.startswith("verify: ")


@pytest.mark.parametrize("odd", ["fifo", "device", "long", "null", "folder", "endless"])
def test_what_is_no_plain_file_is_wrong_usage_and_nobody_waits_for_it(
    shared: Home, tmp_path: Path, odd: str, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "fifo")
    paths = {"fifo": f"{tmp_path}/fifo", "device": "/dev/null", "long": "x" * 5000, "null": "a\0b"}
    path = {**paths, "folder": str(tmp_path), "endless": "/dev/zero"}[odd]
    zip_, trust = str(shared.zip), ["--trust", str(shared.trust)]
    lines = [[zip_, *trust, "--since", path], [zip_, *trust, "--secret", path]]
    lines += [] if odd == "folder" else [[path, *trust], [zip_, "--trust", path]]
    for argv in lines:
        assert verify.main(argv) == 3
        said = capsys.readouterr().err
        assert said.startswith("verify: ")
        assert len(said) < 400


# ------------------------------------------------------------ one flipped byte


def test_no_flipped_byte_anywhere_in_the_file_goes_unnoticed(shared: Home, tmp_path: Path) -> None:
    raw, path = shared.zip.read_bytes(), tmp_path / "x.zip"
    chance = random.Random(1)
    with zipfile.ZipFile(shared.zip) as archive:
        directory = archive.start_dir
        heads = [one.header_offset + at for one in archive.infolist() for at in range(30)]
    where = {*chance.sample(heads, 120), *chance.sample(range(directory, len(raw)), 150)}
    where |= set(chance.sample(range(directory), 130)) | set(range(len(raw) - 22, len(raw)))
    for at in where:
        path.write_bytes(raw[:at] + bytes([raw[at] ^ (1 << chance.randrange(8))]) + raw[at + 1 :])
        checks = verify.verify(path, trust=shared.trust)
        assert verify.exit_code(checks) == 1, at
        assert "verifier itself" not in verify.table(checks)


def test_nothing_cut_doubled_moved_or_added_goes_unnoticed(shared: Home, tmp_path: Path) -> None:
    raw, path = shared.zip.read_bytes(), tmp_path / "x.zip"
    chance = random.Random(2)
    changed = [raw + b"\x00", b"\x00" + raw, raw[:-1], raw[1:], b"", raw + raw, raw[:-22]]
    for _ in range(150):
        at, length = chance.randrange(len(raw)), chance.choice([1, 2, 7, 300])
        other = chance.randrange(len(raw) - 300)
        piece = raw[at : at + length]
        changed += [
            raw[:at] + raw[at + length :],
            raw[:at] + piece + raw[at:],
            raw[:at] + raw[other : other + length] + raw[at + length :],
        ]
    for one in changed:
        if one == raw:
            continue
        path.write_bytes(one)
        checks = verify.verify(path, trust=shared.trust)
        assert verify.exit_code(checks) == 1
        assert "verifier itself" not in verify.table(checks)


@pytest.mark.drill
def test_with_the_manifest_made_right_again_no_change_of_any_file_passes(shared: Home, tmp_path: Path) -> None:
    files = contents(shared.zip)
    chance = random.Random(3)
    names = [name for name in sorted(files) if name != package.MANIFEST]
    for round_ in range(300):
        name = names[round_ % len(names)]
        content = files[name]
        at = chance.randrange(len(content))
        piece = content[at : at + chance.choice([1, 1, 4, 40])]
        new = chance.choice(
            [
                content[:at] + bytes([content[at] ^ (1 << chance.randrange(8))]) + content[at + 1 :],
                content[:at] + content[at + len(piece) :],
                content[:at] + piece + content[at:],
                content[at:] + content[:at],
                b"",
            ]
        )
        if new == content:
            continue
        checks = verify.verify(zipped(tmp_path / "x.zip", files | {name: new}), trust=shared.trust)
        assert "verifier itself" not in verify.table(checks)
        assert (verify.exit_code(checks), rows(checks)["signed"].result) == (1, verify.FALSE), name
    for name in names:
        without = {key: value for key, value in files.items() if key != name}
        checks = verify.verify(zipped(tmp_path / "x.zip", without), trust=shared.trust)
        assert (verify.exit_code(checks), rows(checks)["signed"].result) == (1, verify.FALSE), name


def _drop(files: dict[str, bytes], start: str) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if not name.startswith(start)}


def _swap(files: dict[str, bytes], one: str, other: str) -> dict[str, bytes]:
    return files | {one: files[other], other: files[one]}


def _renamed(files: dict[str, bytes], number: str, *, keep: bool = False) -> dict[str, bytes]:
    same = {f"certificates/{number}.{end}": files[f"certificates/C-1.{end}"] for end in ("json", "html")}
    return (files if keep else _drop(files, "certificates/")) | same


FORGERIES: dict[str, tuple[Callable[[dict[str, bytes]], dict[str, bytes]], str]] = {
    "another verify.py": (lambda files: files | {"verify.py": b"raise SystemExit(0)\n"}, "signed"),
    "another README": (lambda files: files | {"README.en.md": b"All data was erased.\n"}, "signed"),
    "a schema more": (lambda files: files | {"schemas/claim.json": b"{}"}, "signed"),
    "no certificate": (lambda files: _drop(files, "certificates/"), "signed"),
    "no statement": (lambda files: _drop(files, "dsse/"), "signed"),
    "no law": (lambda files: _drop(files, "law/"), "signed"),
    "no manifest and no signature": (lambda files: _drop(files, "MANIFEST"), "signed"),
    "no signature": (lambda files: _drop(files, "MANIFEST.dsse"), "signed"),
    "a certificate under another number": (lambda files: _renamed(files, "C-2"), "certificates"),
    "a certificate under two numbers": (lambda files: _renamed(files, "C-2", keep=True), "certificates"),
    "a certificate's page and text exchanged": (
        lambda files: _swap(files, "certificates/C-1.json", "certificates/C-1.html"),
        "certificates",
    ),
    "receipts exchanged": (
        lambda files: _swap(files, "proofs/C-1.tlog-proof", "proofs/validated.tlog-proof"),
        "certificates",
    ),
    "a receipt under two names": (
        lambda files: files | {"proofs/C-2.tlog-proof": files["proofs/C-1.tlog-proof"]},
        "certificates",
    ),
    "a law under two names": (lambda files: files | {"law/eu.yaml": files["law/cn.yaml"]}, "law"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_what_was_replaced_dropped_exchanged_or_added_is_false_though_the_manifest_was_written_again(
    shared: Home, tmp_path: Path, forgery: str
) -> None:
    forge, by = FORGERIES[forgery]
    checks = verify.verify(zipped(tmp_path / "x.zip", forge(contents(shared.zip))), trust=shared.trust)
    assert verify.exit_code(checks) == 1
    assert {rows(checks)["signed"].result, rows(checks)[by].result} == {verify.FALSE}


@pytest.mark.parametrize("lie", ["another kind", "another subject", "another count", "two signatures", "other ID"])
def test_only_the_statement_about_this_very_manifest_signs_a_package(home: Home, tmp_path: Path, lie: str) -> None:
    files = contents(home.zip)
    host = ORIGIN.split("/")[0]
    kind = "erasure" if lie == "another kind" else "package"
    name = "policy.json" if lie == "another subject" else package.MANIFEST
    count = len(files) - 2 + (lie == "another count")
    envelope = json.loads(
        statement.sign(
            keys=home.keys,
            predicate_type=f"https://{host}/{kind}/v1",
            subjects={name: sha(files[package.MANIFEST])},
            predicate={"files": count},
        )
    )
    if lie == "two signatures":
        envelope["signatures"] *= 2
    elif lie == "other ID":
        envelope["signatures"][0]["keyid"] = "0" * 64
    raw = statement.canonical(envelope, "statement")
    checks = verify.verify(zipped(tmp_path / "x.zip", files | {package.SIGNED: raw}), trust=home.trust)
    assert [one.name for one in checks if one.result == verify.FALSE] == ["signed"]


def test_a_package_signed_again_with_other_keys_never_passes(shared: Home, tmp_path: Path) -> None:
    keys, ledger = start(tmp_path)
    begin(ledger)
    validated = erase(ledger)
    proof = {"validated.tlog-proof": ledger.receipt(validated)}
    paths = issue(tmp_path, ledger, certificate(validated))
    package.write_package(tmp_path / "x.zip", ledger=ledger, keys=keys, certificates=paths, proofs=proof)
    assert verify.exit_code(verify.verify(tmp_path / "x.zip")) == 2
    checks = rows(verify.verify(tmp_path / "x.zip", trust=shared.trust))
    assert checks["trust"].result == checks["checkpoint"].result == verify.FALSE


# ------------------------------------------------------------ zips that are not ours


def hostile(names: list[str], mode: int = 0o100644, method: int = 0) -> bytes:
    """A zip, made by hand, whose members have these names and the content "x"."""
    out, directory = b"", b""
    for name in names:
        encoded = name.encode()
        head = (20, 0, method, 0, 0x21, verify.zlib.crc32(b"x"), 1, 1, len(encoded), 0)
        directory += (
            struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, 0x314, *head, 0, 0, 0, mode << 16, len(out)) + encoded
        )
        out += struct.pack("<IHHHHHIIIHH", 0x04034B50, *head) + encoded + b"x"
    count = len(names)
    return out + directory + struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, count, count, len(directory), len(out), 0)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (hostile(["../up"]), "unsafe name"),
        (hostile(["/etc/x"]), "unsafe name"),
        (hostile(["a/../b"]), "unsafe name"),
        (hostile(["a\\b"]), "unsafe name"),
        (hostile([".hidden"]), "unsafe name"),
        (hostile(["名"]), "not ASCII"),
        (hostile(["a", "a"]), "twice"),
        (hostile(["b", "a"]), "sorted"),
        (hostile(["a"], mode=0o120777), "not as written"),
        (hostile(["a"], method=8), "not as written"),
        (b"PK\x05\x06" + bytes(18), "end record|not in the package"),
        (b"\0not a zip at all, just some noise", "not a zip"),
    ],
)
def test_a_hostile_zip_is_refused_and_nothing_is_extracted(tmp_path: Path, raw: bytes, reason: str) -> None:
    (tmp_path / "x.zip").write_bytes(raw)
    checks = verify.verify(tmp_path / "x.zip")
    assert verify.exit_code(checks) != 0
    assert re.search(reason, verify.table(checks))
    assert "verifier itself" not in verify.table(checks)
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]


def test_a_deflated_copy_is_refused_even_with_the_same_files(shared: Home, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents(shared.zip).items():
            archive.writestr(name, content)
    assert rows(verify.verify(tmp_path / "x.zip"))["container"].result == verify.FALSE


# ------------------------------------------------------------ history and holders


def test_an_older_checkpoint_must_be_a_prefix(home: Home) -> None:
    older = home.folder / "older"
    older.write_bytes(home.ledger.checkpoint())
    home.ledger.append([entry("package.published")])
    newer = home.pack()
    assert rows(verify.verify(newer, trust=home.trust, since=older))["history"].result == verify.HOLDS
    (home.folder / "newer").write_bytes(home.ledger.checkpoint())
    cut = rows(verify.verify(home.zip, trust=home.trust, since=home.folder / "newer"))["history"]
    assert cut.result == verify.FALSE
    assert "cut" in cut.reason


def test_two_histories_under_one_key_are_told_apart(home: Home) -> None:
    other = home.folder / "other"
    shutil.copytree(home.folder / "ledger", other / "ledger")
    shutil.copytree(home.folder / "second", other / "second")
    twin = type(home.ledger).open(other / "ledger", head=other / "second" / "head", keys=home.keys)
    twin.append([entry("package.published", digest=sha("one"))])
    home.ledger.append([entry("package.published", digest=sha("two"))])
    (home.folder / "since").write_bytes(twin.checkpoint())
    found = rows(verify.verify(home.pack(), trust=home.trust, since=home.folder / "since"))["history"]
    assert (found.result, "two histories" in found.reason) == (verify.FALSE, True)


def test_a_holder_of_the_receipt_secret_finds_their_entries(shared: Home, tmp_path: Path) -> None:
    path = tmp_path / "secret"

    def mine(text: str) -> verify.Check:
        path.write_text(text)
        return rows(verify.verify(shared.zip, trust=shared.trust, secret=path))["mine"]

    selectors = "".join(f"{kind}={value}\n" for kind, value in SELECTORS)
    good = mine(f"{SECRET.hex()}\n{selectors}")
    assert good.result == verify.HOLDS
    assert "certificate.issued" in good.reason
    assert mine(f"{base64.b32encode(SECRET).decode().rstrip('=')}\n{selectors}").result == verify.HOLDS
    assert mine(f"{SECRET.hex()}\n").result == verify.MISSING
    assert mine(f"{bytes(32).hex()}\n{selectors}").result == verify.FALSE
    assert mine(f"{SECRET.hex()}\nphone_number=+8613800009999\n").result == verify.FALSE


# ------------------------------------------------------------ what the entries say


def told(tmp_path: Path, story: Callable[[Any], object]) -> verify.Check:
    """Log a story under true keys, pack it, and return what the verifier says of its order."""
    keys, ledger = start(tmp_path)
    story(ledger)
    package.write_package(tmp_path / "x.zip", ledger=ledger, keys=keys)
    return rows(verify.verify(tmp_path / "x.zip"))["order"]


def _outcome_first(ledger: Any) -> None:
    begin(ledger)
    ledger.append([entry("store.overwritten", intent=99)])


def _other_store(ledger: Any) -> None:
    begin(ledger)
    (intent,) = ledger.append([entry("erase.intended", store="s-01")])
    ledger.append([entry("store.rewritten", store="s-02", intent=intent)])


def _other_plan(ledger: Any) -> None:
    begin(ledger)
    ledger.append([entry("erase.intended", plan=sha("another plan"))])


def _hits(ledger: Any) -> None:
    begin(ledger)
    ledger.append([entry("validated", hits=1)])
    ledger.append([entry("certificate.issued")])


def _failures(ledger: Any) -> None:
    begin(ledger)
    ledger.append([entry("validated", failed=1)])
    ledger.append([entry("certificate.issued")])


def _validated_too_early(ledger: Any) -> None:
    begin(ledger)
    ledger.append([entry("erase.intended")])
    ledger.append([entry("validated")])


def _no_law(ledger: Any) -> None:
    ledger.append([entry("request.opened")])


def _other_law(ledger: Any) -> None:
    begin(ledger)
    ledger.append([entry("request.opened", law="cn,eu")])


def _key_root(ledger: Any) -> None:
    begin(ledger)
    (intent,) = ledger.append([entry("erase.intended", store="vault")])
    ledger.append([entry("key.destroyed", intent=intent, before=sha("elsewhere"), after=sha("after"))])


def _same_root(ledger: Any) -> None:
    begin(ledger)
    (intent,) = ledger.append([entry("erase.intended", store="vault")])
    ledger.append([entry("key.destroyed", intent=intent, before=sha("before"), after=sha("before"))])


def _residue_ignored(ledger: Any) -> None:
    begin(ledger)
    erase(ledger)
    ledger.append([entry("residue.found")])


def _open_intent(ledger: Any) -> None:
    begin(ledger)
    ledger.append([entry("erase.intended")])


@pytest.mark.parametrize(
    ("story", "result", "reason"),
    [
        (_outcome_first, verify.FALSE, "without an intent"),
        (_other_store, verify.FALSE, "another store"),
        (_other_plan, verify.FALSE, "not approved"),
        (_hits, verify.FALSE, "found nothing"),
        (_failures, verify.FALSE, "found nothing"),
        (_validated_too_early, verify.FALSE, "had no outcome"),
        (_no_law, verify.FALSE, "before any law"),
        (_other_law, verify.FALSE, "not loaded before"),
        (_key_root, verify.FALSE, "not the last one"),
        (_same_root, verify.FALSE, "the same"),
        (_residue_ignored, verify.MISSING, "work is due"),
        (_open_intent, verify.MISSING, "without outcome"),
    ],
)
def test_a_true_signature_does_not_excuse_a_wrong_order(
    tmp_path: Path, story: Callable[[Any], object], result: str, reason: str
) -> None:
    found = told(tmp_path, story)
    assert (found.result, reason in found.reason) == (result, True), found


def test_an_entry_of_a_newer_version_makes_the_answer_incomplete(
    tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "TYPES", {**entries.TYPES, "unheard.of": {"hits": "int"}})
    home.ledger.append([{"type": "unheard.of", "time": "2026-11-22T22:30Z", "hits": 0}])
    checks = verify.verify(home.pack(), trust=home.trust)
    assert verify.exit_code(checks) == 2
    assert "unheard.of" in rows(checks)["entries"].reason


# ------------------------------------------------------------ certificates and statements


def _first(**changed: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["collections"][0].update(changed)


CERTIFICATE_LIES: dict[str, Callable[[dict[str, Any]], None]] = {
    "erased without baseline": _first(baseline_hits=0),
    "erased by no method": _first(method=""),
    "erased with hits": _first(hits_after=1),
    "erased with rows left": _first(rows_residual=1),
    "erased with a part unread": _first(units_read=1, units_expected=2),
    "erased, something not examinable": _first(not_examinable="an encrypted archive"),
    "an invented verdict": _first(verdict="SKIPPED"),
    "a negative count": _first(rows_found=-1),
    "a truth value for a count": _first(hits_after=False),
    "not present without canary": lambda document: document["collections"][1].update(canary_found=False),
    "not present but found": lambda document: document["collections"][1].update(rows_found=1),
    "retained without ground": lambda document: document["collections"][2].update(ground=""),
    "retained without date": lambda document: document["collections"][2].pop("until"),
    "failed but called erased": lambda document: document["collections"][2].update(verdict="FAILED", reason="locked"),
    "failed with a claim": lambda document: (
        document["collections"][2].update(verdict="FAILED", reason="locked", claim="disk: extents overwritten once"),
        document.update(outcome="failed"),
    ),
    "retained but called erased": lambda document: document.update(outcome="erased"),
    "one verdict twice": lambda document: document["collections"].append(document["collections"][0]),
    "no collections": lambda document: document.update(collections=[]),
    "a part missing": lambda document: document.pop("limits"),
    "another ledger": lambda document: document["evidence"].update(origin="ledger.example.com/other"),
    "another entry than validated": lambda document: document["evidence"].update(validated=0),
    "an entry that does not exist": lambda document: document["evidence"].update(validated=9999),
    "a proof for another entry": lambda document: document["evidence"].update(proof="first.tlog-proof"),
    "a proof that is not there": lambda document: document["evidence"].update(proof="none.tlog-proof"),
    "a proof outside the package": lambda document: document["evidence"].update(proof="../../proof"),
    "an unknown catalog": lambda document: document.update(catalog=sha("another catalog")),
    "an unknown law": lambda document: document["law"][0].update(sha256=sha("another law")),
    "unknown software": lambda document: document["software"].update(sha256=sha("another wheel")),
    "erased with rows kept": _first(rows_retained=1),
    "not present but erased": lambda document: document["collections"][1].update(rows_erased=1),
    "more keys than died": lambda document: document["keys"].update(destroyed=5),
    "validated before it was": lambda document: document["times"].update(validated="2026-11-22T22:29Z"),
    "received after it was validated": lambda document: document["times"].update(received="2026-11-22T22:31Z"),
    "a time that does not exist": lambda document: document["times"].update(approved="2026-02-30T00:00Z"),
    "unknown key roots": lambda document: document["keys"].update(commitment_after=sha("elsewhere")),
    "an unapproved plan": lambda document: document.update(plan=sha("another plan")),
}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any, int]:
    """A ledger in which everything but a certificate is logged."""
    folder = tmp_path_factory.mktemp("desk")
    keys, ledger = start(folder)
    begin(ledger)
    return folder, keys, ledger, erase(ledger)


def test_a_certificate_whose_text_is_the_proof_itself_holds(desk: tuple[Path, Any, Any, int]) -> None:
    folder, keys, ledger, validated = desk
    document = certificate(validated)
    document["evidence"] = {
        "origin": ledger.origin,
        "validated": validated,
        "proof": ledger.receipt(validated).decode(),
    }
    paths = issue(folder, ledger, document)
    package.write_package(folder / "x.zip", ledger=ledger, keys=keys, certificates=paths)
    assert rows(verify.verify(folder / "x.zip"))["certificates"].result == verify.HOLDS


def test_a_statement_that_is_not_in_the_ledger_or_not_ours_is_false(home: Home) -> None:
    stray = statement.write(
        home.folder / "dsse",
        keys=home.keys,
        predicate_type="https://x.example/y",
        subjects={"a": sha("a")},
        predicate={},
    )
    home.parts["statements"] = [home.folder / "dsse" / f"{stray}.json"]
    assert "in no entry" in rows(verify.verify(home.pack(), trust=home.trust))["statements"].reason
    foreign, _ledger = start(home.folder / "foreign")
    forged = statement.write(
        home.folder / "dsse", keys=foreign, predicate_type="https://x.example/y", subjects={"a": sha("a")}, predicate={}
    )
    home.ledger.append([entry("exported", manifest=forged)])
    home.parts["statements"] = [home.folder / "dsse" / f"{forged}.json"]
    found = rows(verify.verify(home.pack(), trust=home.trust))["statements"]
    assert (found.result, "not signed by the evidence key" in found.reason) == (verify.FALSE, True)


def test_the_digest_of_a_statement_tells_nothing_about_what_it_says(home: Home) -> None:
    same: dict[str, Any] = {
        "keys": home.keys,
        "predicate_type": "https://x.example/y",
        "subjects": {"a": sha("a")},
        "predicate": {"n": 1},
    }
    first, second = (statement.write(home.folder / "dsse", **same) for _ in range(2))
    assert first != second
    assert hashlib.sha256((home.folder / "dsse" / f"{first}.json").read_bytes()).hexdigest() == first


@pytest.mark.parametrize("predicate", [{"n": 1.5}, {"n": 2**53}, {"ä": 1}, {"n": b"bytes"}])
def test_a_statement_holds_only_what_canonical_json_can(home: Home, predicate: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="statement"):
        statement.sign(
            keys=home.keys, predicate_type="https://x.example/y", subjects={"a": sha("a")}, predicate=predicate
        )


def test_what_was_never_a_package_is_a_slip_and_no_false_evidence(shared: Home, tmp_path: Path) -> None:
    """Exit 3, not 1: nothing is said of a package. Whatever may be a damaged one stays false."""
    other = tmp_path / "leavers.csv"
    other.write_text("phone_number,email\n13800138000,a@example.com\n")
    (tmp_path / "home").mkdir()
    for slip in (
        {"path": other},
        {"path": tmp_path / "home"},
        {"path": shared.zip, "trust": "garbage+00000000+AAAA"},
        {"path": shared.zip, "trust": other},
        {"path": shared.zip, "since": shared.trust / "log.vkey"},
    ):
        with pytest.raises(verify.Usage):
            verify.verify(**slip)  # type: ignore[arg-type]  # of several types, by name
    raw = shared.zip.read_bytes()
    for damaged in (b"", b"P", raw[:3], raw[:40], raw[len(raw) // 2 :], bytes(64), raw[:900] + b"x" + raw[901:]):
        (tmp_path / "x.zip").write_bytes(damaged)
        checks = verify.verify(tmp_path / "x.zip", trust=shared.trust)
        assert verify.exit_code(checks) == 1
        assert len(verify.table(checks).splitlines()) == 4  # what is wrong, how much that leaves open, the answer


def test_without_the_library_the_program_says_what_it_needs_and_gives_no_verdict() -> None:
    """-S: no installed packages; 1 would say that something is false."""
    done = subprocess.run(
        [sys.executable, "-S", verify.__file__, "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert "cryptography 42 or later" in done.stderr
    assert "Traceback" not in done.stderr

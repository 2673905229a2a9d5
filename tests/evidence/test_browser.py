"""The page verifies as verify.py does, loads nothing from anywhere, and can send nothing."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from evidence.many_home import make_many
from evidence.small_home import NOW, Home, begin, certificate, entry, erase, issue, sha, start
from evidence.test_verify import CERTIFICATE_LIES, FORGERIES, contents, rows, zipped

from fangxin.checks import verify
from fangxin.flows.estate import open_estate
from fangxin.flows.gather import by_period, write
from fangxin.reports import browser, package
from fangxin.reports.ledger import entries, statement

Answers = list[dict[str, object]]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "verify.html"
    path.write_bytes(browser.page())
    return path


def answers(page: Path, trust: Path | None, packages: Sequence[Path]) -> Answers:
    """What the page's own script says of packages, run by node."""
    assert shutil.which("node") is not None, "node is missing: `make components` installs it"
    driver = Path(__file__).with_name("browser.mjs")
    words = ["node", str(driver), str(page), str(trust or "-"), *map(str, packages)]
    run = subprocess.run(words, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found: Answers = json.loads(run.stdout)
    return found


def test_the_page_and_the_program_agree_on_a_true_package(shared: Home, page: Path, tmp_path: Path) -> None:
    slip = tmp_path / "leavers.csv"  # never a package: nothing is said of one
    slip.write_text("phone_number,email\n13800138000,a@example.com\n")
    assert [one["exit_code"] for one in answers(page, shared.trust, [shared.zip, slip])] == [0, 3]
    without = answers(page, None, [shared.zip])[0]
    assert without["exit_code"] == 2
    mine = {one.name: one.result for one in verify.verify(shared.zip, trust=shared.trust)}
    rows = answers(page, shared.trust, [shared.zip])[0]["checks"]
    assert isinstance(rows, list)
    (unseen,) = (row for row in rows if row["result"] == verify.NOT_COMPARED)  # the page draws no certificate again
    assert (unseen["name"], mine["pages"]) == ("words", verify.HOLDS)
    for row in rows:
        if row["name"] in mine and row is not unseen:
            assert row["result"] == mine[row["name"]], row


def test_the_page_says_false_to_every_forgery_and_to_any_changed_byte(shared: Home, page: Path, tmp_path: Path) -> None:
    made, raw = [], shared.zip.read_bytes()
    for number, (forge, _by) in enumerate(FORGERIES.values()):
        made.append(zipped(tmp_path / f"forged-{number}.zip", forge(contents(shared.zip))))
    chance = random.Random(5)
    files = contents(shared.zip)
    for number, name in enumerate(sorted(files.keys() - {package.MANIFEST})):  # which `zipped` writes again
        at, content = chance.randrange(len(files[name])), files[name]
        changed = content[:at] + bytes([content[at] ^ (1 << chance.randrange(8))]) + content[at + 1 :]
        made.append(zipped(tmp_path / f"flip-{number}.zip", files | {name: changed}))
    for number, odd in enumerate((b"", raw + b"\0", raw[:-1], b"\0" + raw, raw[:-22], raw[: len(raw) // 2])):
        made.append(tmp_path / f"odd-{number}.zip")
        made[-1].write_bytes(odd)
    for path, one in zip(made, answers(page, shared.trust, made), strict=True):
        assert "itself failed" not in json.dumps(one), (path.name, one)
        assert one["exit_code"] == 1, path.name


def test_a_certificate_that_was_logged_but_contradicts_itself_is_false_to_program_and_page(
    page: Path, tmp_path: Path
) -> None:
    keys, ledger = start(tmp_path)
    begin(ledger)
    validated = erase(ledger)
    lies, made = ["", *CERTIFICATE_LIES], list[Path]()
    for number, lie in enumerate(lies):
        document = json.loads(json.dumps(certificate(validated)))
        if lie:
            CERTIFICATE_LIES[lie](document)
        paths = issue(tmp_path, ledger, document, b"<!doctype html>")  # some of them no page can be drawn of
        proofs = {"validated.tlog-proof": ledger.receipt(validated)}
        if lie == "a proof for another entry":
            proofs["first.tlog-proof"] = ledger.receipt(0)
        made.append(tmp_path / f"{number}.zip")
        package.write_package(made[-1], ledger=ledger, keys=keys, certificates=paths, proofs=proofs)
    counts = Counter(row["verdict"] for row in certificate(validated)["collections"])
    for said in ({"people": 1, "verdicts": counts}, {"people": 0}, {"people": 1, "verdicts": {}}):
        digest = statement.write(
            tmp_path / "dsse",
            keys=keys,
            predicate_type="https://ledger.example.com/erasure/v1",
            subjects={"findings.csv": sha("findings")},
            predicate=said,
        )
        (again,) = ledger.append([entry("validated", bytes=5, findings=digest)])
        lies.append("" if said.get("verdicts") else f"covered by no statement: {said}")
        made.append(tmp_path / f"{len(made)}.zip")
        package.write_package(
            made[-1],
            ledger=ledger,
            keys=keys,
            statements=[tmp_path / "dsse" / f"{digest}.json"],
            certificates=issue(tmp_path, ledger, certificate(again), b"<!doctype html>"),
            proofs={"validated.tlog-proof": ledger.receipt(again)},
        )
    for lie, path, one in zip(lies, made, answers(page, None, made), strict=True):
        found = rows(verify.verify(path))["certificates"]
        missing = lie == "a proof that is not there"
        assert found.result == (verify.MISSING if missing else verify.FALSE if lie else verify.HOLDS), (lie, found)
        (row,) = [row for row in one["checks"] if row["name"] == "certificates"]  # type: ignore[attr-defined]
        assert row["result"] == found.result, (lie, row)
        assert "itself failed" not in row["reason"] + found.reason, (lie, row)


def test_a_package_signed_again_with_other_keys_is_false_and_a_rotated_key_is_followed(
    shared: Home, page: Path, tmp_path: Path
) -> None:
    home = make_many(tmp_path / "home", people=2)
    estate = open_estate(home)
    shutil.copytree(home / "keys", tmp_path / "old")
    estate.ledger.rotate(NOW)
    write(estate, tmp_path / "x.zip", by_period(estate, "2026"))
    for trust in (tmp_path / "old", home / "keys"):
        assert [one["exit_code"] for one in answers(page, trust, [tmp_path / "x.zip"])] == [0]
    assert [one["exit_code"] for one in answers(page, shared.trust, [tmp_path / "x.zip"])] == [1]


def test_the_page_names_nothing_outside_and_its_policy_allows_its_own_script_and_style_alone() -> None:
    text = browser.page().decode()
    assert browser.page() == browser.page()
    assert "@" not in re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert re.findall(r"""(?:src|href|action)\s*=|url\(|@import|fetch\(|XMLHttpRequest|WebSocket|eval\(""", text) == []
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy.startswith("default-src 'none'; base-uri 'none'; form-action 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert set(re.findall(r"https?://[^\s\"'`$]+", text)) <= {"https://in-toto.io/Statement/v1"}
    assert set(entries.TYPES) == set(verify._TYPES)

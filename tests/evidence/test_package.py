"""An auditor asks, by request, by period or by a draw that nobody controls, and gets everything or a clear refusal."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from evidence.many_home import PEOPLE, make_many
from evidence.small_home import NOW, ORIGIN, entry
from evidence.test_verify import contents, rows, zipped
from evidence.tsa import LocalTsa
from test_cli_answers import conforms

from fangxin.checks import verify
from fangxin.data.errors import Unavailable
from fangxin.flows.cli.main import main
from fangxin.flows.estate import open_estate
from fangxin.flows.gather import span
from fangxin.flows.outsiders import asked as asked_of
from fangxin.reports import controls, package
from fangxin.reports.challenge import Challenge
from fangxin.reports.ledger import exchange
from fangxin.reports.ledger.witness import Witness


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_many(tmp_path_factory.mktemp("many") / "home")


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, dict[str, object], str]:
    code = main([*map(str, words), "--json"])
    said = capsys.readouterr()
    if said.out:
        name = "-".join(map(str, words[:2])) if words[0] == "ledger" else str(words[0])
        conforms(name, json.loads(said.out))
    return code, json.loads(said.out) if said.out else {}, said.err


def numbers(path: Path) -> set[str]:
    return set(re.findall(r"certificates/(C-\d+)\.json", " ".join(contents(path))))


def test_a_package_by_request_by_number_and_by_period_holds_what_was_asked_for(
    many: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, expected in (
        (["r-003", "C-011"], {"C-003", "C-011"}),
        (["--period", "2026-Q3"], {f"C-{n:03d}" for n in range(1, 7)}),
        (["--period", "2026-10-20_2026-12-31"], {f"C-{n:03d}" for n in range(7, 13)}),
        (["--period", "2026"], {f"C-{n:03d}" for n in range(1, 13)}),
    ):
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}.zip"
        code, said, _err = run(capsys, "package", *words, "--out", out, "--home", many)
        assert (code, said["certificates"], numbers(out)) == (0, len(expected), expected)
        checks = verify.verify(out, trust=many / "keys")
        assert verify.exit_code(checks) == 0, verify.table(checks)
        assert verify.exit_code(verify.verify(out, trust=(many / "keys/log.vkey").read_text().strip())) == 0
    last = open_estate(many).ledger
    logged = [index for index, one in last.entries() if one["type"] == "package.published"]
    assert f"proofs/package-{logged[-2]}.tlog-proof" in contents(out)  # the receipt of the package before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "what the package is about"),
        (["r-001", "--period", "2026"], "what the package is about"),
        (["r-999"], "no certificate of that request"),
        (["--period", "2026-13"], "not a period"),
        (["--period", "2026-Q5"], "not a period"),
        (["--period", "2026-02-30"], "not a period"),
        (["--period", "2026-10-02_2026-10-01"], "not a period"),
        (["--period", "０２０２"], "not a period"),
        (["--challenge", "nowhere"], "no such file"),
    ],
)
def test_a_question_that_is_none_is_refused(
    many: Path, tmp_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _document, err = run(capsys, "package", *words, "--out", tmp_path / "x.zip", "--home", many)
    assert (code, said in err, list(tmp_path.iterdir())) == (3, True, [])


def test_a_certificate_that_is_on_record_and_not_in_its_folder_is_said_not_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = make_many(tmp_path / "home", people=4)
    (home / "certificates" / "C-002.json").unlink()
    code, _document, err = run(capsys, "package", "--period", "2026", "--out", tmp_path / "x.zip", "--home", home)
    assert code == 2
    assert "1 certificate(s) on record are not" in err
    assert not (tmp_path / "x.zip").exists()


def test_periods_have_the_days_that_they_say() -> None:
    assert span("2026") == ("2026-01-01T00:00Z", "2027-01-01T00:00Z")
    assert span("2026-Q4") == ("2026-10-01T00:00Z", "2027-01-01T00:00Z")
    assert span("2026-12") == ("2026-12-01T00:00Z", "2027-01-01T00:00Z")
    assert span("2024-02") == ("2024-02-01T00:00Z", "2024-03-01T00:00Z")
    assert span("2026-11-20") == ("2026-11-20T00:00Z", "2026-11-21T00:00Z")


# ------------------------------------------------------------ challenges


def asked(many: Path, folder: Path, capsys: pytest.CaptureFixture[str], *words: str | Path) -> Path:
    """An auditor makes a challenge about the ledger as it is now."""
    folder.mkdir(exist_ok=True)
    (folder / "checkpoint").write_bytes(open_estate(many).ledger.checkpoint())
    out = folder / f"challenge-{len(list(folder.iterdir()))}.json"
    about = ("--checkpoint", folder / "checkpoint", "--log", many / "keys" / "log.vkey")
    assert run(capsys, "challenge", *about, *words, "--out", out)[0] == 0
    return out


def test_the_auditor_and_not_the_operator_chooses_what_is_proved(
    many: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = asked(many, tmp_path / "auditor", capsys, "--count", "5", "--period", "2026")
    second = asked(many, tmp_path / "auditor", capsys, "--count", "5", "--period", "2026")
    drawn = []
    for one in (first, second):
        out = tmp_path / f"{one.stem}.zip"
        assert run(capsys, "package", "--challenge", one, "--out", out, "--home", many)[0] == 0
        checks = verify.verify(out, trust=many / "keys", challenge=one)
        assert verify.exit_code(checks) == 0, verify.table(checks)
        assert rows(checks)["challenge"].reason == "all 5 entries that your challenge draws are answered"
        assert rows(verify.verify(out, trust=many / "keys"))["challenge"].result == verify.MISSING
        drawn.append(numbers(out))
    assert drawn[0] != drawn[1]  # 792 ways; the nonce is the auditor's
    other = rows(verify.verify(out, trust=many / "keys", challenge=first))["challenge"]
    assert (other.result, "another challenge" in other.reason) == (verify.FALSE, True)
    # an operator who answers with other certificates, or leaves one out
    files = contents(out)
    one = sorted(drawn[1])[0]
    fewer = {name: content for name, content in files.items() if f"/{one}." not in name}
    assert rows(verify.verify(zipped(tmp_path / "f.zip", fewer), challenge=second))["challenge"].result == verify.FALSE


def test_a_draw_depends_on_every_byte_of_nonce_and_checkpoint_and_takes_all_when_there_are_few(many: Path) -> None:
    ledger = open_estate(many).ledger
    note = ledger.checkpoint()
    draws = {
        tuple(Challenge(note, (), bytes([n]) * 32, 4, "2026-01-01T00:00Z", "2027-01-01T00:00Z").draw(ledger))
        for n in range(30)
    }
    assert len(draws) > 25
    assert {index for draw in draws for index in draw} == {
        index for index, one in ledger.entries() if one["type"] == "certificate.issued"
    }
    few = Challenge(note, (), bytes(32), 40, "2026-01-01T00:00Z", "2027-01-01T00:00Z").draw(ledger)
    assert len(few) == PEOPLE
    body = note.partition(b"\n\n")[0] + b"\n"
    seed = hashlib.sha256(b"fangxin/challenge/1\n" + body + bytes(32)).digest()
    assert few == sorted(few, key=lambda index: hashlib.sha256(seed + index.to_bytes(8, "big")).digest())


def test_prove_this_receipt(many: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = open_estate(many).ledger
    index = next(index for index, one in ledger.entries() if one["type"] == "certificate.issued")
    (tmp_path / "slip.tlog-proof").write_bytes(ledger.receipt(index))
    made = asked(many, tmp_path / "auditor", capsys, "--receipt", tmp_path / "slip.tlog-proof")
    out = tmp_path / "x.zip"
    assert run(capsys, "package", "--challenge", made, "--out", out, "--home", many)[0] == 0
    assert numbers(out) == {"C-001"}
    assert verify.exit_code(verify.verify(out, trust=many / "keys", challenge=made)) == 0


def test_a_challenge_that_is_malformed_or_of_another_ledger_is_refused(
    many: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = asked(many, tmp_path / "auditor", capsys, "--count", "2", "--period", "2026").read_text()
    foreign = make_many(tmp_path / "foreign", people=2)
    for wrong, code in (
        ("{}", 3),
        (good + "\n", 3),
        (good.replace('"count":2', '"count":0'), 3),
        (good.replace('"count":2', '"count":2.0'), 3),
        (re.sub('"nonce":"[0-9a-f]+"', '"nonce":"00"', good), 3),
        (re.sub('"from":"[^"]+"', '"from":"today"', good), 3),
        (good.replace(ORIGIN, "x"), 1),
    ):
        (tmp_path / "c.json").write_text(wrong)
        words = ("package", "--challenge", tmp_path / "c.json", "--out", tmp_path / "x.zip", "--home", many)
        assert run(capsys, *words)[0] == code, wrong
    (tmp_path / "c.json").write_text(good)
    words = ("package", "--challenge", tmp_path / "c.json", "--out", tmp_path / "x.zip", "--home", foreign)
    assert run(capsys, *words)[0] == 1
    assert not (tmp_path / "x.zip").exists()


# ------------------------------------------------------------ those outside


class _Outside(BaseHTTPRequestHandler):
    """A witness at /add-checkpoint and a time stamping authority everywhere else."""

    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == exchange.PATH:
            status, kind, answer = exchange.answer(server.witness, body, 1_795_300_000)
        else:
            status, kind, answer = 200, "application/timestamp-reply", server.tsa.reply(body)
        self.send_response(status if server.up else 503)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_words: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    witness: Witness
    tsa: LocalTsa
    up = True


@pytest.fixture
def attested(tmp_path: Path) -> Iterator[tuple[Path, _Server]]:
    """A home whose settings name a witness and an authority, both at work."""
    server = _Server(("127.0.0.1", 0), _Outside)
    url = f"http://127.0.0.1:{server.server_port}"
    home = make_many(tmp_path / "home", people=4, more=f'witnesses = ["{url}"]\nquorum = 1\ntsa = "{url}/tsa"\n')
    server.witness = Witness.create(tmp_path / "auditor" / "state.json", "audit.example/w1")
    server.witness.know(open_estate(home).signing.vkey)
    server.tsa = LocalTsa.make(tmp_path / "tsa")
    (home / "keys" / "witness.vkeys").write_text(f"{server.witness.vkey}\n")
    (home / "keys" / "tsa-ca.pem").write_bytes(server.tsa.ca.read_bytes())
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield home, server
    server.shutdown()
    server.server_close()


def test_a_package_carries_cosignatures_and_a_token_and_only_outside_keys_make_them_count(
    attested: tuple[Path, _Server], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, _server = attested
    out = tmp_path / "x.zip"
    code, said, err = run(capsys, "package", "--period", "2026", "--out", out, "--home", home)
    assert (code, said["lacking"]) == (0, []), err
    checks = verify.verify(out, trust=home / "keys")
    assert verify.exit_code(checks) == 0, verify.table(checks)
    assert "audit.example/w1 (2026-11-21T" in rows(checks)["witnesses"].reason
    assert "every entry existed by" in rows(checks)["time"].reason
    own = rows(verify.verify(out, trust=(home / "keys/log.vkey").read_text().strip()))
    assert {own["witnesses"].result, own["time"].result} == {verify.MISSING}
    assert rows(verify.verify(out, trust=home / "keys", quorum=2))["witnesses"].result == verify.MISSING
    again, said, _err = run(capsys, "package", "--period", "2026", "--out", tmp_path / "y.zip", "--home", home)
    assert (again, said["lacking"]) == (0, [])
    assert any(name.startswith("checkpoints/") and name.endswith(".tsr") for name in contents(tmp_path / "y.zip"))
    assert verify.exit_code(verify.verify(tmp_path / "y.zip", trust=home / "keys")) == 0


def test_outsiders_that_are_away_delay_nothing_and_leave_an_exception_and_an_incomplete_answer(
    attested: tuple[Path, _Server], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, server = attested
    server.up = False
    out = tmp_path / "x.zip"
    code, said, _err = run(capsys, "package", "--period", "2026", "--out", out, "--home", home)
    assert (code, said["lacking"]) == (0, ["witness.unavailable"])
    checks = rows(verify.verify(out, trust=home / "keys"))
    assert {checks["witnesses"].result, checks["time"].result} == {verify.MISSING}
    assert verify.exit_code(list(checks.values())) == 2
    server.up = True
    run(capsys, "package", "--period", "2026", "--out", out, "--home", home)
    assert verify.exit_code(verify.verify(out, trust=home / "keys")) == 0


def test_a_witness_by_command_reads_a_home_and_a_package_and_its_file_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = make_many(tmp_path / "home", people=2, more="quorum = 1\n")
    state = ("--state", tmp_path / "w" / "state.json")
    code, said, _err = run(capsys, "witness", *state, "--name", "audit.example/w1", "--log", home / "keys/log.vkey")
    assert code == 0
    (home / "keys" / "witness.vkeys").write_text(f"{said['witness']}\n")
    code, said, err = run(capsys, "witness", home, *state, "--out", tmp_path / "line")
    assert (code, said["size"]) == (0, open_estate(home).ledger.size), err
    code, said, _err = run(capsys, "ledger", "cosigned", tmp_path / "line", "--home", home)
    assert (code, said["witnesses"]) == (0, 1)
    out = tmp_path / "x.zip"
    assert run(capsys, "package", "--period", "2026", "--out", out, "--home", home)[0] == 0
    assert rows(verify.verify(out, trust=home / "keys"))["witnesses"].result == verify.HOLDS
    assert run(capsys, "witness", out, *state)[0] == 0
    assert run(capsys, "ledger", "rotate", "--home", home)[0] == 3
    assert run(capsys, "ledger", "rotate", "--yes", "--home", home)[0] == 0
    assert run(capsys, "witness", home, *state)[0] == 0  # both keys signed that head
    assert run(capsys, "package", "--period", "2026", "--out", out, "--home", home)[0] == 0
    assert run(capsys, "witness", home, *state)[0] == 1  # the new key alone, which was not given
    assert run(capsys, "witness", home, *state, "--log", home / "keys/log.vkey")[0] == 0
    assert run(capsys, "ledger", "check", "--home", home)[1]["stamped"] is False
    for wrong, code in ((["nowhere", *state], 3), ([*state], 3), ([home, "--state", tmp_path / "none"], 3)):
        assert run(capsys, "witness", *wrong)[0] == code


def test_a_package_after_a_rotation_is_trusted_through_either_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = make_many(tmp_path / "home", people=2)
    estate = open_estate(home)
    old, early = str(estate.signing.vkey), estate.ledger.receipt(3)
    estate.ledger.rotate(NOW)
    estate.ledger.rotate(NOW)
    out = tmp_path / "x.zip"
    assert run(capsys, "package", "--period", "2026", "--out", out, "--home", home)[0] == 0
    new = (home / "keys" / "log.vkey").read_text().strip()
    for key in (old, new):
        checks = verify.verify(out, trust=key)
        assert verify.exit_code(checks) == 0, verify.table(checks)
        assert "rotated 2 times" in rows(checks)["trust"].reason
    files = contents(out)
    rotations = sorted(name for name in files if name.startswith("rotations/"))
    without = {name: content for name, content in files.items() if name != rotations[0]}
    lies = {
        "no rotation": {name: content for name, content in files.items() if name not in rotations},
        "one left out": without,
        "exchanged": files | {rotations[0]: files[rotations[1]], rotations[1]: files[rotations[0]]},
        "another entry's receipt": files | {rotations[0]: early},
    }
    for lie, changed in lies.items():
        found = rows(verify.verify(zipped(tmp_path / "l.zip", changed), trust=old))["trust"]
        assert found.result == verify.FALSE, lie
        assert "verifier itself" not in found.reason


def test_the_controls_map_names_only_checks_and_files_that_exist(many: Path, tmp_path: Path) -> None:
    names = {
        name
        for name, _check in verify._Case(
            tmp_path, trust=None, officers=(), since=None, quorum=0, challenge=None, secret=None
        ).checks()
    }
    for row in controls.read():
        assert set(row["checks"]) <= names, row
        assert row["confidence"] in ("verbatim", "secondary", "unconfirmed")
    assert {row["framework"].split()[0] for row in controls.read()} >= {"SOC", "ISO/IEC", "GB/T", "PIPL"}
    for page in controls.pages().values():
        page.decode("utf-8")
    assert package.TEMPLATES


def test_a_witness_reads_a_ledger_from_a_url_and_answers_over_http(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both ends as they run: the ledger's files behind a plain web server, the witness as a process of its own."""
    home = make_many(tmp_path / "home", people=2)
    estate = open_estate(home)
    files = partial(SimpleHTTPRequestHandler, directory=str(home / "ledger"))
    with ThreadingHTTPServer(("127.0.0.1", 0), files) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        state = ("--state", str(tmp_path / "state.json"))
        run(capsys, "witness", *state, "--name", "audit.example/w1", "--log", home / "keys/log.vkey")
        code, said, err = run(capsys, "witness", f"http://127.0.0.1:{site.server_port}", *state)
        assert (code, said["size"]) == (0, estate.ledger.size), err
        assert run(capsys, "witness", f"http://127.0.0.1:{site.server_port}/tile", *state)[0] == 3
        site.shutdown()
    assert run(capsys, "witness", "http://127.0.0.1:9", *state)[0] == 5
    vkey = str(said["witness"])
    (home / "keys" / "witness.vkeys").write_text(f"{vkey}\n")
    words = [sys.executable, "-c", "from fangxin.flows.cli.main import run; run()", "witness", *state]
    child = subprocess.Popen([*words, "--serve", "127.0.0.1:0"], stderr=subprocess.PIPE, text=True)
    try:
        assert child.stderr is not None
        (port,) = re.findall(r"127\.0\.0\.1:(\d+)/add-checkpoint", child.stderr.readline())
        estate.ledger.append([entry("swept")])
        line = asked_of(f"http://127.0.0.1:{port}", estate.ledger)
        assert estate.ledger.witnessed(line) == 1
        with pytest.raises(Unavailable, match="answered 404"):
            asked_of(f"http://127.0.0.1:{port}/elsewhere", estate.ledger)
    finally:
        child.terminate()
        child.wait()
        assert child.stderr is not None
        child.stderr.close()

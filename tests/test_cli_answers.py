"""What scripts rely on: every `--json` answer is what its schema says, and exit codes are those of the contract."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from evidence.small_home import make_home
from jsonschema import Draft202012Validator

import fangxin.reports
from fangxin.checks.verify import attachments
from fangxin.flows.batch import Step
from fangxin.flows.cli.main import main
from fangxin.flows.erase import STEPS, locate, overwrite, run_step, validate

SCHEMAS = Path(fangxin.reports.__file__).parent / "schemas"
Document = dict[str, Any]  # Any: JSON


@dataclass(frozen=True)
class Shop:
    """A tiny LeCard estate, protected, with a rehearsal home beside it, and what the commands answered on the way."""

    root: Path
    answers: dict[str, Document]

    @property
    def catalog(self) -> str:
        return str(self.root / "shop" / "catalog")

    @property
    def home(self) -> list[str]:
        return ["--home", str(self.root / "house")]

    def subjects(self, people: int) -> str:
        lines = (self.root / "shop" / "leavers.csv").read_text("utf-8").splitlines()
        path = self.root / f"first-{people}.csv"
        path.write_text("\n".join(lines[: people + 1]) + "\n", "utf-8")
        return str(path)

    def phone(self) -> str:
        with (self.root / "shop" / "leavers.csv").open(encoding="utf-8") as lines:
            found = next(csv.DictReader(lines))["phone_number"]
        path = self.root / "phone.txt"
        path.write_text(found + "\n", "utf-8")
        return str(path)


def asked(*argv: str) -> tuple[int, Document, str]:
    """Run a command in this process: exit code, its one JSON document, and what it said on stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([*argv, "--json"])
    return code, json.loads(out.getvalue() or "{}"), err.getvalue()


def refused(*argv: str) -> tuple[int, str]:
    """Run a command that must not answer: exit code and what it said on stderr."""
    code, document, said = asked(*argv)
    assert document == {}
    return code, said


def conforms(name: str, document: Document) -> None:
    schema = Draft202012Validator(json.loads((SCHEMAS / f"{name}.json").read_text("utf-8")))
    assert [error.message for error in schema.iter_errors(document)] == []


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    root = tmp_path_factory.mktemp("answers")
    before = dict(os.environ)
    found = Shop(root, {})
    for name, argv in {
        "sample": ["sample", str(root / "shop"), "--people", "40"],
        "init": ["init", str(root / "house"), "--rehearsal"],
        "protect": ["protect", "--catalog", found.catalog, *found.home],
        "protect again": ["protect", "--catalog", found.catalog, *found.home],
    }.items():
        code, found.answers[name], said = asked(*argv)
        assert code == 0, said
        if name == "sample":  # every kind of store, few files
            _shorten(root / "shop" / "stores")
    yield found
    os.environ.clear()
    os.environ.update(before)


def _shorten(stores: Path) -> None:
    """Four months are enough of trades, events and chats: one whose trades go, three whose trades a law keeps."""
    for unit in (*stores.glob("lake/*/month=*"), *stores.glob("support/*")):
        if not any(month in unit.name for month in ("2023-07", "2026-08", "2026-09", "2026-10")):
            shutil.rmtree(unit) if unit.is_dir() else unit.unlink()


@pytest.mark.parametrize("name", ["sample", "init", "protect"])
def test_making_and_protecting_an_estate_answers_as_declared(shop: Shop, name: str) -> None:
    conforms(name, shop.answers[name])


def test_protecting_twice_changes_nothing_the_second_time(shop: Shop) -> None:
    assert shop.answers["protect"]["stores"] != []
    assert shop.answers["protect again"] == {"stores": []}


def test_a_catalog_is_judged_with_place_and_severity(shop: Shop, tmp_path: Path) -> None:
    code, document, _ = asked("catalog", "lint", shop.catalog)
    conforms("catalog-lint", document)
    assert (code, document["errors"]) == (0, 0)
    wrong = tmp_path / "wrong.yml"
    wrong.write_text("dataset:\n  - fides_key: shop\n    colections: []\n", "utf-8")
    code, document, _ = asked("catalog", "lint", str(wrong))
    conforms("catalog-lint", document)
    assert code == 3
    assert document["problems"][0]["where"].startswith(str(wrong) + ":")


def test_locating_answers_with_counts_and_paths_and_never_a_value(shop: Shop) -> None:
    subjects = shop.subjects(2)
    code, document, _ = asked("locate", "--catalog", shop.catalog, "--subjects", subjects, *shop.home)
    conforms("locate", document)
    assert code == 0
    assert len(document["subjects"]) == 2
    assert all(one["traces"] for one in document["subjects"])
    with Path(subjects).open(encoding="utf-8") as lines:
        values = {value for row in csv.DictReader(lines) for value in row.values()}
    assert not [value for value in values if value in json.dumps(document)]


def test_erasing_without_approval_shows_the_plan_and_touches_nothing(shop: Shop) -> None:
    stores = shop.root / "shop" / "stores"
    before = {path: path.read_bytes() for path in stores.rglob("*") if path.is_file()}
    code, document, said = asked("erase", "--catalog", shop.catalog, "--subjects", shop.subjects(1), *shop.home)
    conforms("locate", document)
    assert code == 4
    assert "--yes" in said
    assert {path: path.read_bytes() for path in stores.rglob("*") if path.is_file()} == before


def test_the_vault_tells_its_keys_by_domain_and_what_its_root_holder_may_claim(shop: Shop) -> None:
    code, document, _ = asked("keys", "status", *shop.home)
    conforms("keys-status", document)
    assert code == 0
    assert document["keys"] == sum(one["keys"] for one in document["domains"]) > 0
    assert [one["name"] for one in document["holders"]] == ["file"]


def test_resuming_a_finished_home_finds_nothing_to_do(shop: Shop) -> None:
    code, document, _ = asked("resume", *shop.home)
    conforms("resume", document)
    assert (code, document["batches"]) == (0, [])


# ------------------------------------------------------------ exit codes of scan and verify


def test_a_scan_that_finds_somebody_answers_1_with_places_and_without_the_value(shop: Shop) -> None:
    stores, phone = str(shop.root / "shop" / "stores"), shop.phone()
    code, document, said = asked("scan", stores, "--identity", f"phone_number=@{phone}", *shop.home)
    conforms("scan", document)
    other = asked("scan", stores, "--identity", f"phone_number=@{phone}", "--engine", "hyperscan", *shop.home)[1]
    assert [(h["path"], h["offset"], h["hits"]) for h in other["hits"]] == [
        (h["path"], h["offset"], h["hits"]) for h in document["hits"]
    ]
    assert code == 1
    assert {Path(hit["path"]).name for hit in document["hits"]} >= {"wallet.db", "members.csv"}
    assert Path(phone).read_text("utf-8").strip() not in json.dumps(document) + said


def test_a_scan_that_finds_nobody_answers_0(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing about anybody", "utf-8")
    (tmp_path / "phone").write_text("13900001111\n", "utf-8")
    place, phone = str(tmp_path / "notes.txt"), str(tmp_path / "phone")
    code, document, _ = asked("scan", place, "--identity", f"phone_number=@{phone}", *shop.home)
    conforms("scan", document)
    assert (code, document["hits"], document["files"]) == (0, [], 1)


def test_a_scan_that_cannot_open_a_container_answers_2(shop: Shop, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "cut.db")) as db:
        db.execute("CREATE TABLE t (a)")
        db.executemany("INSERT INTO t VALUES (?)", [("x" * 500,)] * 100)
        db.commit()
    whole = (tmp_path / "cut.db").read_bytes()
    (tmp_path / "cut.db").write_bytes(whole[: len(whole) // 2 + 100])
    (tmp_path / "phone").write_text("13900001111\n", "utf-8")
    place, phone = str(tmp_path / "cut.db"), str(tmp_path / "phone")
    code, document, _ = asked("scan", place, "--identity", f"phone_number=@{phone}", *shop.home)
    conforms("scan", document)
    assert code == 2
    assert document["not_examinable"][0]["path"] == place


@pytest.mark.parametrize(
    ("argv", "what"),
    [
        (["scan", "there-is-none", "--identity", "phone_number=@nothing"], "no such file"),
        (["scan", "."], "at least one identity"),
        (["scan", ".", "--identity", "phone_number"], "KIND=@FILE"),
        (["scan", ".", "--identity", "phone=13900001111"], "phone_number"),
        (["scan"], "PATHS is missing"),
        (["verify", "there-is-none"], "No such file or directory"),
        (["unknown-command"], "no such command"),
    ],
    ids=["no such path", "no identity", "no value", "no such kind", "no path", "no package", "no such command"],
)
def test_wrong_usage_answers_3_and_says_what_was_expected(shop: Shop, argv: list[str], what: str) -> None:
    code, said = refused(*argv)
    assert code == 3
    assert what in said


def test_verify_answers_0_1_and_2_for_true_false_and_incomplete_evidence(shop: Shop, tmp_path: Path) -> None:
    small = make_home(tmp_path)
    package, trust = str(small.zip), str(small.trust)
    answers = {}
    answers["true"] = asked("verify", package, "--trust", trust, *shop.home)
    answers["incomplete"] = asked("verify", package, *shop.home)
    raw = bytearray(small.zip.read_bytes())
    raw[len(raw) // 2] ^= 1
    (tmp_path / "false.zip").write_bytes(raw)
    answers["false"] = asked("verify", str(tmp_path / "false.zip"), "--trust", trust, *shop.home)
    for _code, document, _said in answers.values():
        conforms("verify", document)
    assert {name: code for name, (code, _, _) in answers.items()} == {"true": 0, "incomplete": 2, "false": 1}
    assert all(code == document["exit_code"] for code, document, _ in answers.values())


def test_a_value_on_the_command_line_is_warned_about_outside_rehearsal_homes(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("", "utf-8")
    plain = ["scan", str(tmp_path / "empty.txt"), "--identity", "phone_number=13900001111"]
    assert "shell history" in asked(*plain, "--home", str(tmp_path / "no-home"))[2]
    assert "shell history" not in asked(*plain, *shop.home)[2]


def test_the_clock_moves_in_rehearsal_homes_only(shop: Shop, tmp_path: Path) -> None:
    assert asked("init", str(tmp_path / "real"))[0] == 0
    asking = ["locate", "--catalog", shop.catalog, "--subjects", shop.subjects(1), "--now", "2026-11-24T09:00:00+08:00"]
    code, said = refused(*asking, "--home", str(tmp_path / "real"))
    assert code == 4
    assert "rehearsal" in said


# ------------------------------------------------------------ requests that come to no end, or not to a good one


def erasing(shop: Shop, place: Path, patch: pytest.MonkeyPatch, before: Step, event: Callable[[Path], object]) -> Shop:
    """A copy of the shop, in which something happens to the stores right before a step; steps run in this process."""
    copy = Shop(place / "copy", {})
    shutil.copytree(shop.root, copy.root)

    def run(batch: str) -> None:
        for step in STEPS:
            if step is before:
                event(copy.root / "shop" / "stores")
            run_step(step, batch)

    patch.setattr("fangxin.flows.deployed.run_erase", run)
    return copy


def test_an_erasure_that_a_busy_store_stops_answers_failed_with_what_resume_needs(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[sqlite3.Connection] = []

    def hold(stores: Path) -> None:
        held.append(sqlite3.connect(stores / "wallet.db", isolation_level=None))
        held[0].execute("BEGIN IMMEDIATE")

    copy = erasing(shop, tmp_path, monkeypatch, overwrite, hold)
    asking = ["erase", "--catalog", copy.catalog, "--subjects", copy.subjects(1), "--yes", *copy.home]
    code, document, said = asked(*asking)
    held[0].close()
    conforms("erase", document)
    assert code == 5
    assert "wallet.db" in said
    (request,) = document["requests"]
    assert (request["outcome"], request["verdicts"], request["certificate"]) == ("failed", [], None)
    assert document["package"] is None

    code, again, said = asked("resume", document["batch"], *copy.home)
    conforms("resume", again)
    assert code == 0, said
    (done,) = again["batches"][0]["requests"]
    assert done["outcome"] in ("erased", "erased_with_retention")
    assert {key: done[key] for key in ("request_id", "receipt_code")} == {
        key: request[key] for key in ("request_id", "receipt_code")
    }


@pytest.mark.drill
def test_an_erasure_that_leaves_something_behind_answers_failed_with_its_findings(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone = Path(shop.phone()).read_text("utf-8").strip()

    def leak(stores: Path) -> None:
        (stores / "exports" / "left.csv").write_text(f"{phone}\n", "utf-8")

    copy = erasing(shop, tmp_path, monkeypatch, validate, leak)
    asking = ["erase", "--catalog", copy.catalog, "--subjects", copy.subjects(1), "--yes", *copy.home]
    code, document, said = asked(*asking)
    conforms("erase", document)
    assert code == 1
    assert phone not in json.dumps(document) + said
    (request,) = document["requests"]
    assert (request["outcome"], request["certificate"], document["package"]) == ("failed", None, None)
    assert "FAILED" in {one["verdict"] for one in request["verdicts"]}


def test_an_erasure_that_is_refused_before_anything_is_destroyed_answers_failed_and_is_given_up(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = erasing(shop, tmp_path, monkeypatch, locate, lambda _stores: None)
    (tmp_path / "nobody.csv").write_text("phone_number\n13900001111\n", "utf-8")
    asking = ["erase", "--catalog", copy.catalog, "--subjects", str(tmp_path / "nobody.csv"), "--yes", *copy.home]
    code, document, _ = asked(*asking)
    conforms("erase", document)
    assert code == 3
    assert [one["outcome"] for one in document["requests"]] == ["failed"]
    assert asked("resume", *copy.home)[1] == {"batches": [], "exports_ended": 0}


# ------------------------------------------------------------ paper: reports, incidents, an officer's word


@pytest.fixture(scope="module")
def closed(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A copy of the shop in which two people were erased, step by step in this process."""
    place = tmp_path_factory.mktemp("closed")
    with pytest.MonkeyPatch.context() as patch:
        found = erasing(shop, place, patch, locate, lambda _stores: None)
        asking = ["--catalog", found.catalog, "--subjects", found.subjects(2), "--now", "2026-11-24T09:00:00+08:00"]
        code, found.answers["erase"], said = asked("erase", *asking, "--yes", *found.home)
        assert code == 0, said
    return found


def test_a_report_is_published_once_when_its_period_is_over(closed: Shop, tmp_path: Path) -> None:
    month = ["report", "--from", "2026-11-01", "--to", "2026-11-30", "--catalog", closed.catalog, *closed.home]
    code, said = refused(*month, "--now", "2026-11-30T23:59:00Z")
    assert (code, "not over" in said) == (4, True)
    code, preview, _ = asked(*month, "--preview", "--out", str(tmp_path), "--now", "2026-11-30T23:59:00Z")
    conforms("report", preview)
    assert (code, preview["report"]["preview"]) == (0, True)
    code, document, _ = asked(*month, "--out", str(tmp_path), "--now", "2026-12-01T00:00:00Z")
    conforms("report", document)
    assert (code, document["report"]["verdict"], document["report"]["flow"]["closed"]) == (0, "good", "1-4")
    made = [Path(one).read_bytes() for one in document["files"]]
    code, again, _ = asked(*month, "--now", "2026-12-09T00:00:00Z")
    assert again["report"] == document["report"]
    assert [Path(one).read_bytes() for one in again["files"]] == made
    code, later, _ = asked(
        "report", "--from", "2026-12-01", "--to", "2026-12-31", "--catalog", closed.catalog, *closed.home,
        "--now", "2027-01-02T00:00:00Z",
    )  # fmt: skip
    assert later["report"]["verdict"] == "none"
    assert later["report"]["chain"]["previous"]["period"] == "2026-11"
    assert later["report"]["chain"]["missing"] is None


@pytest.mark.scenario("S36")
def test_an_incident_lists_who_is_affected_by_receipt_and_who_answers_for_it(closed: Shop) -> None:
    asking = ["report", "incident", "--dataset", "wallet", "--catalog", closed.catalog, *closed.home]
    code, before, _ = asked(*asking, "--at", "2026-11-23T00:00:00Z")
    conforms("report-incident", before)
    assert (code, before["owner"], before["executor"]) == (0, "wallet-team", "data-platform")
    assert before["affected"]["present"] == len(before["requests"]) == 2
    issued = closed.answers["erase"]["requests"]
    codes = [hashlib.sha256(one["receipt_code"].replace("-", "").encode()).hexdigest() for one in issued]
    assert sorted(one["receipt"] for one in before["requests"]) == sorted(codes)
    _code, after, _ = asked(*asking, "--at", "2026-11-25T00:00:00Z", "--record")
    conforms("report-incident", after)
    assert after["affected"]["erased"] == 2
    for one in after["requests"]:
        (path,) = (Path(closed.home[1]) / "certificates").glob(f"*{one['certificate']}*.json")
        document = json.loads(path.read_bytes())
        (mine,) = [who for who in document["accountability"] if who["dataset"] == "wallet"]
        assert (mine["owner"], mine["executor"], mine["terms"]) == ("wallet-team", "data-platform", after["terms"])
        assert (one["executor"], one["approvers"]) == ("data-platform", document["approvers"])
        assert one["software"] == document["software"]["sha256"]
        assert len(one["software"]) == 64
    assert len(after["statement"]) == 64
    code, said = refused("report", "incident", "--dataset", "nothing", "--at", "2026-11-25", *asking[4:])
    assert (code, "one of" in said) == (3, True)


def test_an_officer_accepts_a_certificate_and_a_stranger_can_check_it(closed: Shop, tmp_path: Path) -> None:
    issued = Path(closed.answers["erase"]["requests"][0]["certificate"])
    first = issued.with_suffix(".pdf").read_bytes()
    assert asked("keys", "officer", "ada", "--out", str(tmp_path), *closed.home)[0] == 0
    accepting = ["certificate", "validate", issued.stem, "--officer", "ada", "--key", str(tmp_path / "ada.key")]
    code, said = refused(*accepting, *closed.home)
    assert (code, "no officer here" in said) == (4, True)
    assert asked("keys", "officers", "--add", str(tmp_path / "ada.pub"), *closed.home)[0] == 0

    code, only, _ = asked(*accepting, "--out", str(tmp_path / "signed"), *closed.home)
    conforms("certificate-validate", only)
    assert issued.with_suffix(".pdf").read_bytes() == first
    code, document, _ = asked("certificate", "validate", "--signed", only["signed"][0], *closed.home)
    conforms("certificate-validate", document)
    assert (code, document["validated"][0]["officer"]) == (0, "ada")
    assert issued.with_suffix(".pdf").read_bytes() != first
    assert "ada" in issued.with_suffix(".html").read_text("utf-8")
    second = issued.with_suffix(".pdf").read_bytes()
    assert asked("certificate", "validate", "--signed", only["signed"][0], *closed.home)[0] == 0
    assert issued.with_suffix(".pdf").read_bytes() == second  # admitted already
    printed = tmp_path / "printed.pdf"
    code, document, _ = asked("certificate", "print", issued.stem, "--out", str(printed), *closed.home)
    conforms("certificate-print", document)
    assert attachments(printed.read_bytes(), printed.name, 1 << 20) == [issued.read_bytes()]
    code, said = refused("certificate", "print", issued.stem, "--out", str(printed), *closed.home)
    assert (code, "exists already" in said) == (3, True)

    package = tmp_path / "p.zip"
    assert asked("package", issued.stem, "--out", str(package), *closed.home)[0] == 0
    trust = str(Path(closed.home[1]) / "keys")
    code, checks, _ = asked("verify", str(package), "--trust", trust, *closed.home)
    held = {one["name"]: one["result"] for one in checks["checks"]}
    assert (code, held["certificates"], held["papers"]) == (0, "HOLDS", "HOLDS")


def test_what_nobody_signed_is_no_validation(closed: Shop, tmp_path: Path) -> None:
    issued = Path(closed.answers["erase"]["requests"][1]["certificate"])
    for name in ("eve", "operator"):
        assert asked("keys", "officer", name, "--out", str(tmp_path), *closed.home)[0] == 0
    assert asked("keys", "officers", "--add", str(tmp_path / "eve.pub"), *closed.home)[0] == 0
    sign = ["certificate", "validate", issued.stem, "--out", str(tmp_path)]
    code, said = refused(*sign, "--officer", "operator", "--key", str(tmp_path / "operator.key"), *closed.home)
    assert (code, "somebody else" in said) == (4, True)
    forged = asked(*sign, "--officer", "eve", "--key", str(tmp_path / "operator.key"), *closed.home)[1]["signed"][0]
    code, said = refused("certificate", "validate", "--signed", forged, *closed.home)
    assert (code, "not signed by eve" in said) == (1, True)
    (tmp_path / "x.json").write_text("{}")
    assert refused("certificate", "validate", "--signed", str(tmp_path / "x.json"), *closed.home)[0] == 3
    assert refused("certificate", "validate", *closed.home)[0] == 3
    assert refused("certificate", "validate", "FX-NONE-0001", "--officer", "eve", "--key", forged, *closed.home)[0] == 3

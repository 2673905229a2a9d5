"""More people than one person may decide about: planned, signed by two officers, carried out, in a house in earnest."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from journeys.paper import on_request

from fangxin.checks import verify
from fangxin.data.errors import NotAllowed
from fangxin.data.keys.approval import Approval
from fangxin.data.keys.grant import Grant
from fangxin.data.keys.replica import Places
from fangxin.data.vocabulary import Identity
from fangxin.flows import erase
from fangxin.flows.cli.main import main
from fangxin.flows.estate import Estate, make_home, open_estate
from fangxin.flows.officers import approve, plan
from fangxin.flows.protect import protect

LATER = datetime.now(UTC)  # a home in earnest has no other clock
NOW = LATER - timedelta(hours=2)
CATALOG = """root: ../stores
dataset:
  - fides_key: w
    name: w
    erasure: {store: {kind: sqlite, url: w/w.db}, mode: delete, copies: []}
    collections:
      - name: accounts
        erasure: {person: true}
        fields:
          - {name: id, data_categories: [user.unique_id], fides_meta: {primary_key: true, data_type: integer}}
          - {name: phone, data_categories: [user.contact.phone_number], fides_meta: {identity: phone_number}}
          - name: card
            data_categories: [user.financial.bank_account]
            erasure: {sensitive: true, mode: crypto-erase, key_domain: kyc}
"""
PEOPLE = 600


@dataclass(frozen=True)
class Office:
    """A home that is no rehearsal, 600 people, three officers with their keys."""

    root: Path

    @property
    def home(self) -> Path:
        return self.root / "home"

    def estate(self, now: datetime = NOW) -> Estate:
        return open_estate(self.home, self.root / "catalog" / "c.yml", now)

    def plan(self, count: int, start: int = 1) -> tuple[str, Grant]:
        people = [[Identity("phone_number", f"139{n:08d}")] for n in range(start, start + count)]
        return plan(self.estate(), people, options={"now": LATER.isoformat()})

    def sign(self, grant: Grant, *names: str) -> list[Approval]:
        found = []
        (self.root / "plan.json").write_text(grant.canonical())
        for name in names:
            out = self.root / f"{name}.json"
            key = str(self.root / "keys" / f"{name}.key")
            plan_file = str(self.root / "plan.json")
            assert main(["keys", "approve", plan_file, "--officer", name, "--key", key, "--out", str(out)]) == 0
            found.append(Approval.parse(out.read_text()))
        return found

    def rows(self) -> int:
        with closing(sqlite3.connect(self.root / "stores/w/w.db")) as db:
            return int(db.execute("SELECT count(*) FROM accounts").fetchone()[0])


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Office:
    made = Office(tmp_path)
    for folder in ("stores/w", "catalog"):
        (tmp_path / folder).mkdir(parents=True)
    with closing(sqlite3.connect(tmp_path / "stores/w/w.db")) as db, db:
        db.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, phone TEXT, card BLOB)")
        rows = [(100_000_000_000 + n, f"139{n:08d}", f"62220209030{n:08d}") for n in range(1, PEOPLE + 1)]
        db.executemany("INSERT INTO accounts VALUES (?, ?, ?)", rows)
    (tmp_path / "catalog/c.yml").write_text(CATALOG)
    make_home(made.home, rehearsal=False, origin="office.example/erasure", now=NOW, capacity=2_000)
    on_request(made.home)
    monkeypatch.setenv("FANGXIN_HOME", str(made.home))
    protect(made.estate())
    for name in ("an", "bo", "chen"):
        assert main(["keys", "officer", name, "--out", str(tmp_path / "keys")]) == 0
    assert main(["keys", "officers", *(f"--add={tmp_path / 'keys' / name}.pub" for name in ("an", "bo", "chen"))]) == 0
    capsys.readouterr()
    return made


def signed_before(grant: Grant, approvals: list[Approval], office: Office) -> list[Approval]:
    """The same officers' signatures, dated two hours ago: nobody waits an hour in a test."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    found = []
    for one in approvals:
        key = load_pem_private_key((office.root / "keys" / f"{one.officer}.key").read_bytes(), None)
        assert isinstance(key, Ed25519PrivateKey)
        found.append(Approval.sign(grant, officer=one.officer, key=key, now=NOW))
    return found


def test_more_people_than_one_may_decide_about_stop_before_anything_is_planted(office: Office) -> None:
    people = [[Identity("phone_number", f"139{n:08d}")] for n in range(1, 26)]
    batch = erase.open_batch(office.estate(), people, options={"approved": True, "now": LATER.isoformat()})
    with pytest.raises(NotAllowed, match="two different officers"):
        erase.journey(batch)
    assert office.rows() == PEOPLE
    assert office.estate().requests.unfinished() == (), "given up: its people are forgotten"


def test_a_signed_plan_is_carried_out_and_the_evidence_says_how_many_signed(office: Office) -> None:
    tree = office.estate().tree
    tree.keep_copies(Places((office.root / "replica", office.root / "second"), office.root / "copies"))
    tree.back_up()
    batch, grant = office.plan(21)
    assert office.rows() == PEOPLE
    approvals = signed_before(grant, office.sign(grant, "an", "chen"), office)
    assert approve(office.estate(LATER), approvals) == batch
    erase.journey(batch)
    answer = erase.summary(office.home, batch)
    assert {one["outcome"] for one in answer["requests"]} == {"erased"}
    assert office.rows() == PEOPLE - 21
    assert (office.estate().requests.note(batch, "destroy_keys") or {})["event"]["officers"] == 2
    keys = json.loads(Path(answer["requests"][0]["certificate"]).read_bytes())["keys"]
    assert (keys["replicas"], keys["copies"]) == ({"n": 2, "of": 2}, {"n": 2, "of": 2})
    checks = verify.verify(Path(answer["package"]), trust=office.home / "keys")
    assert verify.exit_code(checks) == 0, verify.table(checks)
    told = {one.name: one.reason for one in checks}["approvals"]
    assert told.startswith("21 approvals signed by officers")
    log = (office.home / "keys" / "log.vkey").read_text().strip()
    keys = [office.root / "keys" / f"{name}.pub" for name in ("an", "chen")]
    assert verify.exit_code(verify.verify(Path(answer["package"]), trust=log, officers=keys)) == 0
    assert verify.exit_code(verify.verify(Path(answer["package"]), trust=log)) == 2
    with pytest.raises(NotAllowed, match="no batch waits"):
        approve(office.estate(LATER), approvals)


def test_one_signature_an_early_one_and_one_for_another_plan_are_refused(office: Office) -> None:
    batch, grant = office.plan(21)
    early = office.sign(grant, "an", "bo")
    with pytest.raises(NotAllowed, match="less than"):
        approve(office.estate(datetime.now(UTC)), early)
    _other, another = office.plan(22, start=100)
    mixed = [replace(one, grant=another.canonical()) for one in signed_before(grant, early, office)]
    with pytest.raises(NotAllowed, match="not for this plan"):
        approve(office.estate(LATER), mixed)
    one = signed_before(grant, early, office)[:1]
    with pytest.raises(NotAllowed, match="two different officers"):
        approve(office.estate(LATER), one)
    office.estate().requests.approve(batch, [one[0].text()])  # as if nobody had asked: the vault asks again
    with pytest.raises(NotAllowed, match="two different officers"):
        erase.journey(batch)
    assert office.estate().tree.live() > PEOPLE
    assert office.rows() == PEOPLE, "nobody is gone, and the canary went again"


def test_a_plan_is_written_by_the_command_and_nothing_is_touched(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    people = office.root / "people.csv"
    people.write_text("phone_number\n" + "".join(f"139{n:08d}\n" for n in range(1, 26)))
    wanted = ["erase", "--catalog", str(office.root / "catalog" / "c.yml"), "--subjects", str(people)]
    assert main([*wanted, "--plan", str(office.root / "signed.json"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    grant = Grant.parse((office.root / "signed.json").read_text())
    assert told["plan_digest"] == grant.plan_hash
    assert grant.count == 26, "the people and the canary"
    assert "13900000" not in (office.root / "signed.json").read_text()
    assert office.rows() == PEOPLE
    assert main([*wanted, "--plan", str(office.root / "signed.json")]) == 3
    approvals = office.sign(grant, "an", "bo")
    files = [f"--approval={office.root / one.officer}.json" for one in approvals]
    assert main(["erase", *files, "--yes"]) == 4  # the hour has not passed
    assert "less than 1:00:00 old" in capsys.readouterr().err


def test_officers_are_changed_by_two_of_them(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    file = office.root / "fewer.json"
    assert main(["keys", "officers", "--remove", "chen"]) == 4
    assert main(["keys", "officers", "--remove", "chen", "--plan", str(file)]) == 4
    capsys.readouterr()
    assert main(["keys", "officers", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["officers"] == ["an", "bo", "chen"]
    approvals = signed_before(grant := Grant.parse(file.read_text()), office.sign(grant, "an", "bo"), office)
    for one in approvals:
        (office.root / f"{one.officer}.json").write_text(one.text())
    files = [f"--approval={office.root / one.officer}.json" for one in approvals]
    assert main(["keys", "officers", "--remove", "chen", *files]) == 0
    capsys.readouterr()
    assert main(["keys", "officers", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["officers"] == ["an", "bo"]

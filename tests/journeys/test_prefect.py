"""Prefect says when and learns nobody's name: the real server, the real flows, the real command.

The only tests that use Prefect: one server for all of them, its home, database and logs in a folder that is searched
like any other. A command is killed in the middle, a step fails with a person in its error, and nothing of anybody
may be found anywhere in our home or in Prefect's.
"""

from __future__ import annotations

import base64
import csv
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from journeys.lecard import NOW, LeCard
from journeys.small_house import THEIRS, House
from jsonschema import Draft202012Validator

from fangxin.checks.residue.patterns import Needles
from fangxin.checks.residue.scan import scan, walk
from fangxin.data.catalog.kinds import canonical
from fangxin.data.errors import InputError, NotAllowed
from fangxin.data.vocabulary import Cohort, Identity, Subject
from fangxin.flows.empty_database import PREPARED, is_ready, keep, lay
from fangxin.flows.estate import SCHEMAS, Estate, open_estate
from fangxin.flows.locate import find
from fangxin.flows.plan import decide
from fangxin.flows.settings import PREFECT, prepare_prefect
from fangxin.flows.sight import needles

ROOT = Path(__file__).resolve().parents[2]
FANGXIN = Path(sys.executable).with_name("fangxin")
STEPS = ("locate", "plant", "baseline", "export", "destroy_keys", "overwrite", "validate", "publish", "close")
FLOWS = ("erase", "due", *STEPS)
EMAIL, PHONE = "planted.nobody@example.com", "13912345678"  # the canary of the failing step


# ---------------------------------------------------------------- a server, and what it keeps


@dataclass(frozen=True)
class Prefect:
    """A running server: where it answers, and the folder with its home, database and logs."""

    url: str
    folder: Path

    def ask(self, sql: str, *values: str) -> list[tuple[Any, ...]]:
        """Read its database."""
        (database,) = self.folder.rglob("prefect-test.db")
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as db:
            return db.execute(sql, values).fetchall()

    def runs(self, batch: str) -> list[tuple[str, str, str]]:
        """Flow runs of a batch: name of the flow, state, what was said about the state."""
        found = self.ask(
            "SELECT f.name, r.state_type, s.message, r.parameters FROM flow_run r JOIN flow f ON f.id = r.flow_id"
            " LEFT JOIN flow_run_state s ON s.id = r.state_id ORDER BY r.created"
        )
        return [(name, state, said) for name, state, said, given in found if json.loads(given).get("batch_id") == batch]


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    folder = tmp_path_factory.mktemp("prefect")
    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith("PREFECT_")]:
            patch.delenv(name)
        patch.setenv("PREFECT_HOME", "")  # both are put back as they were, whatever is set in between
        for name in PREFECT:
            patch.setenv(name, "")
        for name in ("PREFECT_HOME", *PREFECT):
            os.environ.pop(name)
        prepare_prefect(folder)
        patch.setattr(tempfile, "tempdir", str(folder))
        from prefect.settings import PREFECT_API_URL
        from prefect.testing.utilities import prefect_test_harness

        database = folder / "harness" / "prefect-test.db"
        database.parent.mkdir()
        lay(database)
        if is_ready(database):
            for name in PREPARED:
                patch.setenv(name, "false")
        patch.setattr("prefect.testing.utilities.mkdtemp", lambda: str(database.parent))
        with prefect_test_harness(server_startup_timeout=300):
            keep(database)
            yield Prefect(str(PREFECT_API_URL.value()), folder)


# ---------------------------------------------------------------- what must not be found


@dataclass(frozen=True)
class Known:
    """Everything that is known of the leavers, as needles and as plain values."""

    needles: Needles
    values: tuple[str, ...]

    def found_in(self, *folders: Path) -> list[str]:
        """Where anything of them is: by our scan of all forms and containers, and by a simple search of its own."""
        result = scan(walk(folders), self.needles)
        assert result.coverage.num_rows, "nothing was searched"
        found = {f"{h['place']}: {h['form']}" for h in result.hits.select(["place", "form"]).to_pylist()}
        return sorted(found | {str(p) for f in folders for p in _files(f) if _holds(p, *self.values)})


def _files(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.is_symlink()]


def _holds(path: Path, *values: str) -> bool:
    """Whether a file holds a value as bytes, as UTF-16, or in anything that decodes from base64 (pickles are)."""
    body = path.read_bytes()
    runs = (run[: len(run) // 4 * 4] for run in re.findall(rb"[A-Za-z0-9+/_-]{16,}", body))
    plain = (base64.b64decode(run.translate(bytes.maketrans(b"-_", b"+/"))) for run in runs)
    everything = b"\n".join([body, *plain])  # read and decoded once, whoever is looked for
    return any(
        form in everything
        for value in values
        for form in (
            value.encode(), value.encode("utf-16-le"), value.encode("utf-16-be"), json.dumps(value)[1:-1].encode()
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def leaving(pristine: LeCard) -> list[tuple[Identity, ...]]:
    return pristine.subjects()[:2]


@pytest.fixture(scope="module")
def known(pristine: LeCard, leaving: list[tuple[Identity, ...]]) -> Known:
    return known_of(pristine.open(), leaving)


def known_of(estate: Estate, leaving: list[tuple[Identity, ...]]) -> Known:
    found = find(estate, Cohort(tuple(Subject(str(n), one) for n, one in enumerate(leaving))))
    facts = decide(estate.catalog, found, estate.laws, estate.settings.facts, estate.now.date()).facts
    kinds = {*estate.catalog.kinds, "name"}
    return Known(needles(estate.catalog, facts), tuple(sorted(set(facts.loc[facts["kind"].isin(kinds), "value"]))))


# ---------------------------------------------------------------- the command


def command(
    lecard: LeCard | House, prefect: Prefect, leaving: list[tuple[Identity, ...]], *more: str
) -> subprocess.Popen[str]:
    """`fangxin erase` as an operator starts it; the people are in a file beside the home."""
    subjects = lecard.root / "people.csv"
    with subjects.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, [i.kind for i in leaving[0]])
        writer.writeheader()
        writer.writerows({i.kind: i.value for i in one} for one in leaving)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_") and k not in PREFECT}
    words = ["--catalog", str(lecard.catalog), "--subjects", str(subjects), "--now", NOW.isoformat(), "--yes", *more]
    return subprocess.Popen(
        [FANGXIN, "erase", "--home", str(lecard.home), *words],
        env={**clean, "PREFECT_API_URL": prefect.url}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@dataclass(frozen=True)
class Erased:
    lecard: LeCard
    code: int
    stdout: str
    stderr: str

    @property
    def answer(self) -> dict[str, Any]:  # Any: JSON
        found: dict[str, Any] = json.loads(self.stdout)
        return found


@pytest.fixture(scope="module")
def erased(
    pristine: LeCard,
    prefect: Prefect,
    leaving: list[tuple[Identity, ...]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Erased:
    """The whole command once, with an export, so that both suites of Great Expectations speak as well."""
    lecard = pristine.short(tmp_path_factory.mktemp("command") / "lecard")
    child = command(lecard, prefect, leaving, "--export", str(lecard.root / "export"), "--json")
    stdout, stderr = child.communicate(timeout=900)
    return Erased(lecard, child.returncode, stdout, stderr)


def test_the_command_answers_with_one_document_and_leaves_with_zero(erased: Erased) -> None:
    assert erased.code == 0, erased.stderr
    Draft202012Validator(json.loads((SCHEMAS / "erase.json").read_text("utf-8"))).validate(erased.answer)
    assert [r["outcome"].startswith("erased") for r in erased.answer["requests"]] == [True, True]
    assert all(erased.answer["seconds"][step] > 0 for step in ("locate", "export", "overwrite", "validate", "publish"))


def test_the_command_names_nobody_on_its_screens(erased: Erased, known: Known, tmp_path: Path) -> None:
    (tmp_path / "stdout").write_text(erased.stdout)
    (tmp_path / "stderr").write_text(erased.stderr)
    assert known.found_in(tmp_path) == []


def test_prefect_learns_the_batch_and_nothing_else(erased: Erased, prefect: Prefect) -> None:
    batch = erased.answer["batch"]
    assert [(name, state) for name, state, _said in prefect.runs(batch)] == [("erase", "COMPLETED")]
    rows = _until(lambda: _tasks(prefect, batch), lambda found: len(found) == len(STEPS))
    assert [name.rsplit("-", 1)[0] for name, *_ in rows] == list(STEPS)
    assert {state for _name, state, _inputs in rows} == {"COMPLETED"}
    assert {inputs for _name, _state, inputs in rows} == {'{"batch_id": []}'}


def _tasks(prefect: Prefect, batch: str) -> list[tuple[Any, ...]]:
    return prefect.ask(
        "SELECT t.name, t.state_type, t.task_inputs FROM task_run t JOIN flow_run r ON r.id = t.flow_run_id"
        " WHERE json_extract(r.parameters, '$.batch_id') = ? ORDER BY t.start_time",
        batch,
    )


def test_after_the_command_nothing_of_anybody_is_in_our_home_or_in_prefects(
    erased: Erased, prefect: Prefect, known: Known
) -> None:
    assert erased.code == 0
    assert known.found_in(erased.lecard.home, prefect.folder) == []


def test_the_search_would_have_found_somebody(pristine: LeCard, known: Known, tmp_path: Path) -> None:
    value = max(known.values, key=len)
    for name, body in {
        "plain": f"row: {value}".encode(),
        "utf-16": f"row: {value}".encode("utf-16"),
        "pickled": base64.b64encode(b"\x80\x05\x95" + f"ValueError: {value}".encode()),
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "file").write_bytes(body)
        assert len(known.found_in(folder)) >= 2, name  # by both searches
    assert known.found_in(pristine.stores)


def test_another_team_s_flow_reads_and_writes_columns_and_prefect_learns_no_value(
    pristine: LeCard, prefect: Prefect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from journeys.test_tables import ADDRESS, stored
    from prefect import flow

    from fangxin.flows.tasks import protect_columns, read_columns

    lecard = pristine.copy(tmp_path / "lecard")
    shutil.copy(lecard.catalog, lecard.home / "catalog")
    monkeypatch.setenv("FANGXIN_HOME", str(lecard.home))
    table, seen = stored(lecard), list[str]()

    @flow(name="team", persist_result=False)
    def team() -> None:
        clear = read_columns(ADDRESS, table)
        seen.extend(v for name in ("id_number", "bank_card") for v in clear[name].to_pylist() if v)
        assert read_columns(ADDRESS, protect_columns(ADDRESS, clear)).equals(clear)

    team()
    assert len(seen) > 20
    told = "SELECT name FROM task_run WHERE name LIKE '%_columns-%'"  # the server writes task runs when it gets to it
    _until(lambda: prefect.ask(told), lambda names: len(names) == 3)
    assert [p for p in _files(prefect.folder) if _holds(p, *seen[:10])] == []


# ---------------------------------------------------------------- killed in the middle


def test_a_killed_run_leaves_nothing_behind_and_the_night_finishes_it(
    house: House, prefect: Prefect, capfd: pytest.CaptureFixture[str]
) -> None:
    from fangxin.flows import deployed
    from fangxin.flows.erase import journey
    from fangxin.flows.runner import run

    phones = [canonical("phone_number", phone) for phone in (THEIRS, "13900000007")]
    leaving = [(Identity("phone_number", phone),) for phone in phones]
    known = known_of(open_estate(house.home, house.catalog, NOW), leaving)
    assert known.found_in(house.root / "stores")
    nobody = house.begin(PHONE)  # refused by its first step, and holds up nobody
    child = command(house, prefect, leaving)
    # One connection all the while: the last one that closes takes the log away under the scan of the home.
    with closing(sqlite3.connect(f"file:{house.home / 'requests.db'}?mode=ro", uri=True, timeout=10)) as watching:
        while child.poll() is None and not _noted(watching, "destroy_keys"):  # as long as this machine needs
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
    stdout, stderr = child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL, stdout + stderr

    requests = open_estate(house.home, house.catalog, NOW).requests
    (batch,) = (b for b in requests.unfinished() if b != nobody)
    with pytest.raises(NotAllowed, match=f"batch {batch} has them already"):
        house.begin(*phones)
    assert requests.note(batch, "destroy_keys") is not None
    assert requests.note(batch, "publish") is None
    (house.home / "tmp" / "screens").write_text(stdout + stderr)
    assert known.found_in(house.home, prefect.folder) == []

    with pytest.raises(InputError):
        run(deployed.due)
    assert requests.batch(batch).state == "closed"
    assert requests.batch(nobody).state == "abandoned"
    before = {p: p.read_bytes() for p in _files(house.root / "stores")}
    journey(batch)
    assert {p: p.read_bytes() for p in _files(house.root / "stores")} == before

    screens = capfd.readouterr()
    (house.home / "tmp" / "screens").write_text(screens.out + screens.err)
    assert known.found_in(house.home, prefect.folder) == []


def _noted(db: sqlite3.Connection, step: str) -> bool:
    return bool(db.execute("SELECT 1 FROM step WHERE name = ?", [step]).fetchone())


def _until(
    look: Callable[[], Any], enough: Callable[[Any], bool], seconds: float = 60
) -> Any:  # Any: what is looked at
    deadline = time.monotonic() + seconds
    while not enough(found := look()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert enough(found), f"not within {seconds} s"
    return found


# ---------------------------------------------------------------- refused


def test_flows_started_by_hand_change_nothing_without_an_approved_plan(
    pristine: LeCard, tmp_path: Path, prefect: Prefect, leaving: list[tuple[Identity, ...]]
) -> None:
    from fangxin.flows import deployed
    from fangxin.flows.runner import run

    lecard = pristine.short(tmp_path / "lecard")
    batch = lecard.begin(leaving, approved=False)
    run(deployed.locate, batch)
    estate = lecard.open()
    before = {p: p.read_bytes() for p in _files(lecard.stores)}, estate.tree.generation, estate.tree.live()
    started = (deployed.plant, deployed.destroy_keys, deployed.overwrite, deployed.validate, deployed.close)
    for flow in (*started, deployed.erase):
        with pytest.raises(NotAllowed):
            run(flow, batch)
        assert (flow.name, "FAILED") in [(name, state) for name, state, _said in prefect.runs(batch)]
    run(deployed.due)  # it waits for its officer: the night passes it by
    estate = lecard.open()
    assert ({p: p.read_bytes() for p in _files(lecard.stores)}, estate.tree.generation, estate.tree.live()) == before
    assert estate.requests.unfinished() == (batch,)
    said = {said for name, state, said in prefect.runs(batch) if state == "FAILED"}
    assert said == {"Flow run encountered an exception: StepFailed: NotAllowed"}


# ---------------------------------------------------------------- a failure leaves as a code


def test_a_failing_step_leaves_a_code_with_prefect_and_no_person(
    prefect: Prefect, capfd: pytest.CaptureFixture[str]
) -> None:
    from prefect import flow

    from fangxin.flows.runner import StepFailed, discreet, step

    def read_a_row(batch_id: str) -> None:
        try:
            raise KeyError(EMAIL)
        except KeyError as error:
            raise ValueError(f"row of {EMAIL}, {PHONE} in {batch_id}") from error

    @flow(name="failing-step", persist_result=False, validate_parameters=False)
    @discreet
    def in_a_step(batch_id: str) -> None:
        step(read_a_row)(batch_id)

    @flow(name="failing-flow", persist_result=False, validate_parameters=False)
    @discreet
    def in_the_flow(batch_id: str) -> None:
        read_a_row(batch_id)

    @flow(name="talkative", persist_result=False, validate_parameters=False)
    def talkative(batch_id: str) -> None:
        raise ValueError(f"row of control.{EMAIL}")

    for one in (in_a_step, in_the_flow):
        with pytest.raises(StepFailed, match=r"^defect/ValueError$") as caught:
            one("b-failing")
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
    with pytest.raises(ValueError, match="control"):
        talkative("b-failing")
    _until(lambda: prefect.runs("b-failing"), lambda found: [state for _n, state, _s in found] == ["FAILED"] * 3)

    screens = capfd.readouterr()
    assert "a defect of ours: ValueError at" in screens.err
    assert EMAIL not in (screens.out + screens.err).replace(f"control.{EMAIL}", "")
    files = _files(prefect.folder)
    assert any(_holds(p, f"control.{EMAIL}") for p in files), "the control shows that Prefect does keep such a text"
    assert [p.name for p in files if _holds(p, PHONE, f"of {EMAIL}")] == []
    assert _until(lambda: [said for name, _state, said in prefect.runs("b-failing") if name == "failing-step"], bool)


# ---------------------------------------------------------------- deployment and environment


def test_command_worker_and_tests_give_prefect_the_same_environment(
    tmp_path: Path, prefect: Prefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    nightly, *others = yaml.safe_load((ROOT / "prefect.yaml").read_text("utf-8"))["deployments"]
    assert [one["name"] for one in others if one["work_pool"] == nightly["work_pool"]] == ["closings", "officers"]
    worker = nightly["work_pool"]["job_variables"]["env"]
    assert worker.pop("FANGXIN_HOME") == "{{ $FANGXIN_HOME }}"
    assert worker.pop("PREFECT_HOME") == "{{ $FANGXIN_HOME }}/prefect"
    assert worker == PREFECT
    assert {name: os.environ[name] for name in PREFECT} == PREFECT
    for name in ("PREFECT_HOME", *PREFECT):
        monkeypatch.delenv(name)
    prepare_prefect(tmp_path)
    assert {name: os.environ[name] for name in ("PREFECT_HOME", *PREFECT)} == {
        "PREFECT_HOME": str(tmp_path / "prefect"), **PREFECT,
    }  # fmt: skip


def test_prefect_reads_the_environment_that_we_write(prefect: Prefect) -> None:
    from prefect.settings import Settings

    settings = Settings()  # from the environment as it is now: whoever imported Prefect before may have read another
    assert settings.home == prefect.folder / "prefect"
    assert settings.server.ephemeral.startup_timeout_seconds == 120
    assert settings.server.analytics_enabled is False
    assert settings.results.persist_by_default is False
    assert settings.logging.to_api.enabled is False


def test_the_night_is_one_run_at_two_in_shanghai() -> None:
    nightly, closings, officers = yaml.safe_load((ROOT / "prefect.yaml").read_text("utf-8"))["deployments"]
    assert (officers["entrypoint"], "schedules" in officers) == ("fangxin.flows.deployed:review", False)
    assert (closings["entrypoint"], closings["concurrency_limit"]) == ("fangxin.flows.deployed:run_due", 1)
    assert closings["schedules"] == [{"cron": "10 * * * *", "timezone": "Asia/Shanghai"}]
    assert nightly["schedules"] == [{"cron": "0 2 * * *", "timezone": "Asia/Shanghai"}]
    assert nightly["concurrency_limit"] == 1
    assert nightly["entrypoint"] == "fangxin.flows.deployed:due"


@pytest.mark.parametrize("name", FLOWS)
def test_every_flow_loads_by_its_path_and_by_its_module(name: str, prefect: Prefect) -> None:
    from prefect import Flow
    from prefect.flows import load_flow_from_entrypoint

    for entrypoint in (f"{ROOT / 'flows' / 'deployed.py'}:{name}", f"fangxin.flows.deployed:{name}"):
        found: object = load_flow_from_entrypoint(entrypoint)
        assert isinstance(found, Flow)
        assert found.name == name
        assert set(found.parameters.properties) == ({"batch_id"} if name != "due" else set())


# ---------------------------------------------------------------- closings


@pytest.mark.drill
def test_the_bell_of_the_end_of_regret_is_set_once_and_an_officer_s_word_is_looked_up_in_our_store(
    prefect: Prefect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from uuid import UUID

    from prefect.client.orchestration import get_client
    from prefect.exceptions import Pause
    from prefect.flow_engine import run_flow
    from process.shop import make

    from fangxin.flows import bell, deployed

    shop = make(tmp_path / "shop")
    monkeypatch.setenv("FANGXIN_HOME", str(shop.home))
    shutil.copytree(shop.root / "catalog", shop.home / "catalog", dirs_exist_ok=True)
    (shop.home / "catalog" / "c.yml").write_text(
        (shop.root / "catalog" / "c.yml").read_text().replace("root: ../stores", f"root: {shop.root / 'stores'}")
    )
    closure = shop.ask("request", "open", "--identity", shop.phone(3), "--verified", "session")["closure"]
    shop.ask("request", "plan", closure, "--out", shop.file("plan.json"))

    ends = datetime(2026, 12, 1, 16, 5, tzinfo=UTC)
    assert bell.ring(ends) is None  # no deployment: the night does it
    with get_client(sync_client=True) as client:
        client.create_deployment(client.create_flow(deployed.run_due), "closings")
        first, again, other = bell.ring(ends), bell.ring(ends), bell.ring(ends + timedelta(days=1))
        assert first is not None
        assert first == again != other
        run = client.read_flow_run(first)
        assert (run.parameters, run.state and run.state.state_details.scheduled_time) == ({}, ends)

        place = client.create_deployment(
            client.create_flow(deployed.review), "officers", enforce_parameter_schema=False
        )
        waiting = client.create_flow_run_from_deployment(place, parameters={"closure_id": closure}).id

        def turn() -> str:
            with suppress(Pause):  # how a worker's process ends
                run_flow(deployed.review, flow_run=client.read_flow_run(waiting), parameters={"closure_id": closure})
            state = client.read_flow_run(UUID(str(waiting))).state
            assert state is not None
            return str(state.name)

        assert turn() == "Suspended"
        client.resume_flow_run(waiting)
        assert turn() == "Suspended"  # nobody signed: resuming decides nothing
        shop.sign("plan.json", "dpo_1")
        shop.ask("request", "approve", closure, "--approval", shop.file("dpo_1.json"))
        client.resume_flow_run(waiting)
        assert turn() == "Completed"
    assert [p for p in _files(prefect.folder) if _holds(p, "13900000003")] == []

"""Commands that are stopped from outside: Ctrl-C is told in one line, and kill -9 leaves no server behind.

Real processes and Prefect's own throw-away server; signals go to the whole process group, as a terminal sends them.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from test_cli_answers import asked, conforms

from fangxin.flows.server import servers
from fangxin.flows.settings import PREFECT

pytestmark = pytest.mark.slow
FANGXIN = Path(sys.executable).with_name("fangxin")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A small protected estate with its home; the environment is put back afterwards."""
    before = dict(os.environ)
    catalog, home = str(tmp_path / "shop" / "catalog"), str(tmp_path / "house")
    for argv in (
        ["sample", str(tmp_path / "shop"), "--people", "60"],
        ["init", home, "--rehearsal"],
        ["protect", "--catalog", catalog, "--home", home],
    ):
        assert asked(*argv)[0] == 0
    lines = (tmp_path / "shop" / "leavers.csv").read_text("utf-8").splitlines()
    (tmp_path / "people.csv").write_text("\n".join(lines[:3]) + "\n", "utf-8")
    yield tmp_path
    os.environ.clear()
    os.environ.update(before)


def start(*argv: str) -> subprocess.Popen[str]:
    """A command in a process group of its own, without a Prefect server that is configured."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "FANGXIN_")) and k not in PREFECT}
    return subprocess.Popen(
        [FANGXIN, *argv], env=clean, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def erase(place: Path) -> subprocess.Popen[str]:
    named = ["--catalog", str(place / "shop" / "catalog"), "--subjects", str(place / "people.csv")]
    return start("erase", *named, "--home", str(place / "house"), "--yes", "--json")


def wait(running: subprocess.Popen[str], ready: Callable[[], bool]) -> None:
    """Until something is so while the command runs; it may not end before."""
    until = time.monotonic() + 240
    while not ready():
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)


def noted(home: Path) -> set[str]:
    """Steps of which the requests store has a note."""
    if not (home / "requests.db").is_file():
        return set()
    with closing(sqlite3.connect(f"file:{home / 'requests.db'}?mode=ro", uri=True, timeout=30)) as db:
        try:
            return {name for (name,) in db.execute("SELECT name FROM step")}
        except sqlite3.OperationalError:  # the tables are just being made
            return set()


def interrupt(running: subprocess.Popen[str]) -> tuple[int, str, str]:
    os.killpg(running.pid, signal.SIGINT)
    out, err = running.communicate(timeout=120)
    return running.returncode, out, err


def advised(said: str) -> list[str]:
    """The command that the one line on stderr advises, as arguments."""
    (line,) = said.splitlines()
    assert line.startswith("fangxin: interrupted at ")
    return shlex.split(line.split("`")[1])[1:]


def test_an_erasure_that_is_interrupted_says_where_it_stands_and_resume_ends_it(place: Path) -> None:
    home = place / "house"
    running = erase(place)
    wait(running, lambda: "plant" in noted(home))
    code, out, err = interrupt(running)
    assert code == 130
    argv = advised(err)
    assert argv == ["resume", "--home", str(home)]
    stopped = json.loads(out)
    conforms("erase", stopped)
    assert [(one["outcome"], one["verdicts"]) for one in stopped["requests"]] == [("failed", [])] * 2
    assert stopped["package"] is None
    assert servers(str(home / "prefect")) == []

    running = start(*argv, "--json")
    wait(running, lambda: "destroy_keys" in noted(home))
    code, out, err = interrupt(running)
    assert (code, advised(err)) == (130, argv)
    assert "keys may be destroyed already" in err
    conforms("resume", json.loads(out))

    code, document, said = asked(*argv)
    assert code == 0, said
    (batch,) = document["batches"]
    assert {one["outcome"] for one in batch["requests"]} <= {"erased", "erased_with_retention"}
    receipts = {one["request_id"]: one["receipt_code"] for one in stopped["requests"]}
    assert {one["request_id"]: one["receipt_code"] for one in batch["requests"]} == receipts


def test_a_demo_that_is_interrupted_can_be_resumed_as_it_says(tmp_path: Path) -> None:
    running = start("demo", "--people", "60", "--home", str(tmp_path / "var"))
    wait(running, lambda: "plant" in noted(tmp_path / "var" / "demo" / "home"))
    code, out, err = interrupt(running)
    assert code == 130
    assert "Traceback" not in out
    again = start(*advised(err))
    out, err = again.communicate(timeout=240)
    assert (again.returncode, err) == (0, "")
    assert "erased" in out


def test_an_interrupted_command_with_nothing_open_says_that_it_may_be_run_again(place: Path) -> None:
    os.mkfifo(place / "phone")
    named = ["--identity", f"phone_number=@{place / 'phone'}"]
    running = start("scan", str(place / "shop"), *named, "--home", str(place / "house"))
    with (place / "phone").open("w"):  # opens once the command reads at the other end, and waits there
        code, out, err = interrupt(running)
    assert (code, out) == (130, "")
    assert err == "fangxin: interrupted; no erasure is open: the same command may be run again\n"


def test_the_server_that_a_killed_command_leaves_behind_is_ended_by_the_next(place: Path) -> None:
    home = place / "house"
    running = erase(place)
    wait(running, lambda: "locate" in noted(home))
    (server,) = servers(str(home / "prefect"))
    running.kill()
    running.wait(60)  # not communicate: the server holds our pipes open
    assert servers(str(home / "prefect")) == [server]  # the control: nobody has ended it

    code, document, said = asked("resume", "--home", str(home))
    assert code == 0, said
    assert len(document["batches"]) == 1
    assert servers(str(home / "prefect")) == []


def test_the_server_of_a_command_that_runs_is_left_alone(place: Path) -> None:
    home = place / "house"
    running = erase(place)
    wait(running, lambda: "locate" in noted(home))
    (server,) = servers(str(home / "prefect"))
    assert asked("resume", "--home", str(home))[0] == 5  # the home is at work
    assert servers(str(home / "prefect")) == [server]
    running.communicate(timeout=240)
    assert running.returncode == 0

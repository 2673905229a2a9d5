"""The worker drill: a real server, a work pool, a deployment from prefect.yaml, a worker, and a batch that it finishes.

Run it with `make drill`. Everything lies in a temporary folder and listens on loopback; server and worker are our
own children and are stopped by their process ids. It prints counts and seconds, and exits 0 only if the batch was
closed by the worker with a certificate for everybody.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from journeys.lecard import PEOPLE, make

from fangxin.flows.erase import summary
from fangxin.flows.estate import open_estate
from fangxin.flows.settings import PREFECT

ROOT = Path(__file__).resolve().parents[2]
PREFECT_COMMAND = Path(sys.executable).with_name("prefect")
LEAVERS = 3


def drill(place: Path) -> int:
    """Run the drill in `place`; 0 if the worker closed the batch."""
    started = time.monotonic()
    home = place / "lecard" / "home"
    port = _free_port()
    url = f"http://127.0.0.1:{port}/api"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    environment |= {**PREFECT, "PREFECT_HOME": str(place / "server"), "FANGXIN_HOME": str(home), "PREFECT_API_URL": url}

    def lap(what: str) -> None:
        print(f"{time.monotonic() - started:6.1f} s  {what}", flush=True)

    def prefect(*words: str) -> str:
        done = subprocess.run(
            [PREFECT_COMMAND, "--no-prompt", *words], cwd=ROOT, env=environment, capture_output=True, text=True,
            timeout=180, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"prefect {words[0]}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def start(name: str, *words: str) -> subprocess.Popen[bytes]:
        with (place / f"{name}.log").open("wb") as log:
            return subprocess.Popen([PREFECT_COMMAND, *words], cwd=ROOT, env=environment, stdout=log, stderr=log)

    children: list[subprocess.Popen[bytes]] = []
    try:
        children.append(start("server", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"))
        estate = make(place / "lecard")
        leaving = estate.subjects()[:LEAVERS]
        batch = estate.begin(leaving)
        lap(f"{len(leaving)} of {PEOPLE} people leave: batch {batch} is open")
        _until(lambda: _healthy(url), 120, "the server answers")
        lap(f"the server answers on 127.0.0.1:{port}")
        prefect("work-pool", "create", "erasure", "--type", "process")
        prefect("deploy", "--all")
        lap("work pool and deployment from prefect.yaml")
        children.append(start("worker", "worker", "start", "--pool", "erasure", "--name", "drill"))
        nightly = _ask(f"{url}/deployments/name/due/nightly")["id"]
        run = f"{url}/flow_runs/{_ask(f'{url}/deployments/{nightly}/create_flow_run', {})['id']}"
        lap("the nightly run is asked for")
        _until(lambda: _ask(run)["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"), 240, "the run ends")
        state = _ask(run)["state_type"]
        lap(f"the run is {state}")
    finally:
        for child in reversed(children):
            _stop(child)
        lap(f"{len(children)} children stopped by pid")
    done = summary(home, batch)
    certificates = sum(r["certificate"] is not None and Path(r["certificate"]).is_file() for r in done["requests"])
    closed = open_estate(home).requests.batch(batch).state == "closed"
    print(f"run {state}; batch {'closed' if closed else 'NOT closed'}; {certificates} of {LEAVERS} certificates issued")
    return 0 if state == "COMPLETED" and closed and certificates == LEAVERS else 1


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _ask(url: str, body: dict[str, str] | None = None) -> dict[str, str]:
    """What the server answers: to a GET, or to a POST of `body`."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: dict[str, str] = json.load(answer)
        return found


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _until(holds: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.3)


def _stop(child: subprocess.Popen[bytes]) -> None:
    """End a child of ours: asked twice, for a worker needs it, then made to."""
    for wish in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
        child.send_signal(wish)
        try:
            child.wait(timeout=15)
            return
        except subprocess.TimeoutExpired:
            continue


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="fangxin-drill-") as folder:
        sys.exit(drill(Path(folder)))

"""Prefect's throw-away server: deaf to Ctrl-C while its command lives, ended by the next command when it was killed.

Where no server is configured Prefect starts one on loopback for a command and stops it at the end. A terminal sends
Ctrl-C to both, and a flow whose server is gone waits for it for minutes. After `kill -9` nobody stops the server;
the kernel could, but only with the thread that started it, and that one may end early.

* An orphan is a throw-away server over the same PREFECT_HOME whose starter, named in its environment, is gone.
* When in doubt it stays: a process id that is in use again counts as the starter.
* Linux only: elsewhere there is no /proc to look into, and nothing happens.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from contextlib import suppress
from pathlib import Path

from fangxin.data.importing import uncollected
from fangxin.flows.empty_database import PREPARED, is_ready, keep, lay

STARTER = "FANGXIN_STARTER"
_PATIENCE = 5.0  # seconds for a server to end by itself; Prefect gives it as long


def wake() -> threading.Thread:
    """Start the server, where none is configured, beside other work; join the thread before a flow is called."""
    waking = threading.Thread(target=_wake, daemon=True)
    waking.start()
    return waking


def _wake() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # of this thread, and inherited by what it starts
    database = Path(os.environ.get("PREFECT_HOME") or Path("~/.prefect").expanduser()) / "prefect.db"
    lay(database)
    if is_ready(database):  # its migrations ran and its blocks are registered: looking again takes two seconds
        for name in PREPARED:
            os.environ.setdefault(name, "false")
    with suppress(Exception):  # the flow meets the same obstacle, and tells it
        with uncollected():
            from prefect.client.orchestration import get_client

            from fangxin.flows import deployed as _deployed  # noqa: F401 - imported for the time it takes

        with get_client(sync_client=True) as client:
            client.hello()
        keep(database)


def end_orphans(home: Path) -> int:
    """End the orphans of a home and return how many; leaves our own id for the server that is started next."""
    os.environ[STARTER] = str(os.getpid())
    place = os.environ.get("PREFECT_HOME", str(home / "prefect"))
    return sum(_ended(int(one.name), place) for one in Path("/proc").glob("[0-9]*"))


def servers(place: str) -> list[int]:
    """Process ids of the throw-away servers over a PREFECT_HOME, orphans or not."""
    found = [int(one.name) for one in Path("/proc").glob("[0-9]*")]
    return [pid for pid in found if _serves(_environment(pid), place)]


def _ended(pid: int, place: str) -> bool:
    if not _serves(_environment(pid), place):
        return False
    try:
        process = os.pidfd_open(pid)  # from here on the number cannot come to mean another process
    except OSError:
        return False
    try:
        environment = _environment(pid)
        if not _serves(environment, place) or _runs(environment.get(STARTER, "")):
            return False
        signal.pidfd_send_signal(process, signal.SIGTERM)
        if not select.select([process], [], [], _PATIENCE)[0]:
            signal.pidfd_send_signal(process, signal.SIGKILL)
        return True
    except ProcessLookupError:  # it ended by itself meanwhile
        return False
    finally:
        os.close(process)


def _serves(environment: dict[str, str], place: str) -> bool:
    return environment.get("PREFECT__SERVER_EPHEMERAL") == "1" and environment.get("PREFECT_HOME") == place


def _runs(starter: str) -> bool:
    """Whether the process that started a server still runs; of an unknown one we say yes."""
    if not starter.isdecimal():
        return True
    try:
        os.kill(int(starter), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _environment(pid: int) -> dict[str, str]:
    """What a process was started with; nothing where it is gone or another user's."""
    try:
        body = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    pairs = (part.partition("=") for part in os.fsdecode(body).split("\0"))
    return {name: value for name, _equals, value in pairs}

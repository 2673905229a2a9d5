"""One sabotage: an estate of its own, the whole journey with one thing wrong, and who noticed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from sabotage.estate import NOW, Estate

from fangxin.data.errors import DoesNotHold
from fangxin.data.keys.tree import RollbackSuspected
from fangxin.data.steps import leaving_out
from fangxin.flows import erase
from fangxin.flows import overwrite as overwriting
from fangxin.flows.estate import open_estate
from fangxin.flows.frames import unpack
from fangxin.flows.sabotage import permit

_HOLDER = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1])
db.execute("BEGIN"); db.execute("SELECT count(*) FROM visits").fetchone()
print("open", flush=True); time.sleep(600)
"""


def leave_out(pristine: Estate, to: Path, step: str, store: str) -> set[str]:
    """Run a copy of the estate with one step left out in one store; return who noticed at validation."""
    mine = pristine.copy(to)
    os.environ["FANGXIN_HOME"] = str(mine.home)
    allowed = permit(mine.home)
    batch = mine.begin()
    erase.run_step(erase.locate, batch)
    reader = _reader(mine.stores / "v/v.db") if step == "sqlite: WAL" else None
    erase.run_step(erase.plant, batch)
    if reader is not None:  # killed, so that the WAL stays; else SQLite would settle it
        reader.kill()
        reader.wait()
    erase.run_step(erase.baseline, batch)
    erase.run_step(erase.export, batch)
    with leaving_out(step, allowed) if store == "vault" else nullcontext():
        erase.run_step(erase.destroy_keys, batch)
    _overwrite(batch, step, store, allowed) if store != "vault" else erase.run_step(erase.overwrite, batch)
    assert allowed.times, f"{step} was not due in {store}"
    return noticed(mine, batch)


def spoil(pristine: Estate, to: Path, what: Callable[[Estate, Estate], None]) -> set[str]:
    """Erase well, spoil what is there, and look again; return who noticed."""
    mine = pristine.copy(to)
    os.environ["FANGXIN_HOME"] = str(mine.home)
    batch = mine.begin()
    for one in erase.STEPS[: erase.STEPS.index(erase.destroy_keys)]:
        erase.run_step(one, batch)
    before = mine.copy(to.with_name(f"{to.name}-before"))
    for one in (erase.destroy_keys, erase.overwrite):
        erase.run_step(one, batch)
    what(mine, before)
    return noticed(mine, batch)


def blinded(pristine: Estate, to: Path, how: Callable[[], object]) -> set[str]:
    """Run with a part of the scanner switched off; return who noticed at the baseline."""
    mine = pristine.copy(to)
    os.environ["FANGXIN_HOME"] = str(mine.home)
    batch = mine.begin()
    for one in (erase.locate, erase.plant):
        erase.run_step(one, batch)
    with how():  # type: ignore[attr-defined]  # a context manager
        try:
            erase.run_step(erase.baseline, batch)
        except DoesNotHold as seen:
            return {"control"} if "the scanner is blind" in str(seen) else {"baseline"}
    return set()


def noticed(mine: Estate, batch: str) -> set[str]:
    """Validate, and say what of it found something wrong: by what was read, not by what a store recorded."""
    try:
        erase.run_step(erase.validate, batch)
    except RollbackSuspected:
        return {"keys"}
    except DoesNotHold as error:
        if "keys that had to die" in str(error) or "copy of the vault" in str(error):
            return {"keys"}
    requests = open_estate(mine.home, mine.catalog, NOW).requests
    kept = requests.kept(requests.batch(batch), "findings")
    if kept is None:
        return set()
    table = unpack(kept)[0]
    closed = json.loads(requests.kept(requests.batch(batch), "closures") or b"{}")
    return {
        name
        for name, found in (
            ("scan", (table["hits_after"] > 0).any()),
            ("rows", (table["rows_residual"] > 0).any()),
            ("outside", len(unpack(requests.kept(requests.batch(batch), "outside") or b"")[0])),
            ("inventory", any(one["leftovers"] for one in closed.values())),
        )
        if found
    }


def _overwrite(batch: str, step: str, store: str, allowed: object) -> None:
    """Overwrite, with the step left out in the one store alone."""
    whole = overwriting._store

    def one(estate, batch_, plan, which, number, work):  # type: ignore[no-untyped-def]  # as the function it wraps
        mine = which.name.startswith(store)
        with leaving_out(step, allowed) if mine else nullcontext():  # type: ignore[arg-type]
            return whole(estate, batch_, plan, which, number, work)

    overwriting._store = one
    try:
        erase.run_step(erase.overwrite, batch)
    finally:
        overwriting._store = whole


def _reader(path: Path) -> subprocess.Popen[str]:
    found = subprocess.Popen([sys.executable, "-c", _HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    assert found.stdout is not None
    assert found.stdout.readline() == "open\n"
    return found

"""Sabotage: who may leave a step out, and where. The list of what is left out is in tests/sabotage.

Only in a rehearsal home that has never held a request: nobody's erasure may depend on a run like that.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from fangxin.data.errors import NotAllowed
from fangxin.data.steps import Permit
from fangxin.flows.settings import load


def permit(home: Path) -> Permit:
    """A permit for a home made for nothing else; NotAllowed for every other one."""
    if not load(home).rehearsal:
        raise NotAllowed(
            f"{home}: not a rehearsal home, so every step of a procedure is carried out in it",
            hint="fangxin init DIR --rehearsal",
        )
    path = home / "requests.db"
    if path.exists():
        with closing(sqlite3.connect(path)) as db:
            tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            held = "batch" in tables and db.execute("SELECT count(*) FROM batch").fetchone()[0]
        if held:
            raise NotAllowed(
                f"{home}: holds requests, and no step is ever left out where somebody asked",
                hint="make a home of its own: fangxin init DIR --rehearsal",
            )
    return Permit(str(home))

"""Sabotage: who may leave a step out, and where; and the record of a whole run. The list of it is in tests/sabotage.

Only in a rehearsal home that has never held a request: nobody's erasure may depend on a run like that. What came of it
is logged in any home that wants to show it: `make sabotage LOG=HOME`.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
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


def log_run(home: Path, *, tried: int, noticed: int) -> None:
    """Log in a home's ledger how much of the whole list was tried and noticed, with the digest of the program."""
    from fangxin.flows.estate import alone, open_estate
    from fangxin.flows.publish import software

    with alone(home):
        estate = open_estate(home, now=datetime.now(UTC))
        estate.ledger.append(
            [
                {
                    "type": "sabotage.run",
                    "time": estate.minute,
                    "mutants": tried,
                    "caught": noticed,
                    "digest": software().sha256,
                }
            ]
        )

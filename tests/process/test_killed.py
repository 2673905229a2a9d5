"""SIGKILL of run-due at every move it makes, before the commit and after it, and around what it does to the vaults.

The same end, and nothing twice.
One chain: a child runs run-due and kills itself at the first place where no child died yet; the next child goes on.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from journeys.preload import before_forks
from keys.vaults import in_child
from process.postgres import database
from process.shop import Shop, make

from fangxin.checks import verify
from fangxin.data.closures import store as module
from fangxin.data.closures.round import Round
from fangxin.data.closures.store import Change, Closure, Closures
from fangxin.data.keys.tree import KeyTree
from fangxin.flows import sealing
from fangxin.flows.estate import open_estate

REVIEWED = datetime(2026, 11, 26, 16, 10, tzinfo=UTC)  # 00:10 in Shanghai, the second working day is over
SEALED_UNTIL = REVIEWED + timedelta(days=7)
NIGHTS = (REVIEWED, SEALED_UNTIL - timedelta(hours=20), SEALED_UNTIL, SEALED_UNTIL + timedelta(days=1, hours=1))
MOVES = {
    "alarm", "approve_automatically", "approve", "seal", "located_ahead", "end_regret", "escrow", "locate_again",
    "begin", "first_share_gone", "keys_gone", "overwritten", "clean", "watching", "forgotten", "watched",
}  # fmt: skip
# Where the gate kills; the drill does at every move.
FEW = {"keys_gone"}
ACTS = ((KeyTree, "destroy"), (sealing, "seal"), (sealing, "end"), (sealing, "settle"))  # on the vaults


@dataclass(frozen=True)
class End:
    """What must be the same, however often somebody was killed on the way."""

    state: str
    owed: list[dict[str, Any]]  # Any: JSON
    rows: dict[str, list[tuple[Any, ...]]]
    entries: Counter[str]
    events: Counter[str]


def begun(shop: Shop) -> str:
    closure = shop.ask("request", "open", "--identity", shop.phone(6), "--verified", "session")["closure"]
    shop.ask("request", "plan", closure)
    return str(closure)


def end(shop: Shop, closure: str, url: str) -> End:
    status = shop.ask("request", "status", closure)
    estate = open_estate(shop.home, shop.root / "catalog", shop.now)
    entries = Counter(str(e["type"]) for _n, e in estate.ledger.entries())
    store = Closures(url)
    events = Counter(e["type"] for e in store.events(closure))
    assert all(sum(accounts.values()) == 0 for accounts in store.books().values())
    store.engine.dispose()
    (package,) = (shop.home / "reports").glob("package-*.zip")
    assert verify.exit_code(verify.verify(package, trust=shop.home / "keys")) == 0
    return End(status["state"], status["owed"], shop.rows(), entries, events)


def differ(some: Counter[str], others: Counter[str]) -> dict[str, tuple[int, int]]:
    """What was done more or less often; who looks twice, because somebody died in between, does nothing twice."""
    done = (some | others).keys() - {"swept", "locate_again"}
    return {name: (some[name], others[name]) for name in done if some[name] != others[name]}


def killed_on_the_way(shop: Shop, wanted: set[str], *, acts: bool) -> int:
    """Go through the nights with a child for each; returns how many children were killed."""
    place = shop.root / "died.json"
    place.write_text("[]")

    def dies(at: str, name: str) -> bool:
        died = json.loads(place.read_text())
        if (name not in wanted and at.endswith(("commit", "it"))) or [at, name] in died:
            return False
        place.write_text(json.dumps([*died, [at, name]]))
        return True

    def work() -> None:
        write, move, flush, together = module._write, Closures.move, Round.flush, Closures.together
        cohort: list[str] = []

        def deadly(owner: Any, name: str) -> None:
            act = getattr(owner, name)

            def acting(*args: Any, **kwargs: Any) -> Any:
                if acts and dies("before the act", name):
                    os.kill(os.getpid(), 9)
                found = act(*args, **kwargs)
                if acts and dies("after the act", name):
                    os.kill(os.getpid(), 9)
                return found

            setattr(owner, name, acting)

        for owner, name in ACTS:
            deadly(owner, name)

        def writing(db: Any, closure: str, change: Change, now: datetime) -> None:
            write(db, closure, change, now)
            if dies("before the commit", change.told.type):
                os.kill(os.getpid(), 9)

        def flushing(self: Round) -> None:
            moved = [row["type"] for row in self.events]
            flush(self)
            for name in moved:
                if dies("before the commit", name):
                    os.kill(os.getpid(), 9)

        def moving(self: Closures, closure: str, version: int, change: Change, now: datetime) -> Closure:
            found = move(self, closure, version, change, now)
            if self._round() is not None:
                cohort.append(change.told.type)
            elif dies("after it", change.told.type):
                os.kill(os.getpid(), 9)
            return found

        @contextmanager
        def committing(self: Closures, ids: Sequence[str] = ()) -> Iterator[None]:
            with together(self, ids):
                yield
            for name in cohort:  # written, and the ledger does not know yet
                if dies("after it", name):
                    os.kill(os.getpid(), 9)
            cohort.clear()

        module._write, Closures.move = writing, moving  # type: ignore[method-assign]
        Round.flush, Closures.together = flushing, committing  # type: ignore[method-assign]
        code, done = shop.run("run-due")
        (shop.root / "last.json").write_text(json.dumps([code, done, shop.said]))
        os._exit(code)

    kills = 0
    for night in NIGHTS:
        shop.now = night
        while os.WIFSIGNALED(os.waitpid(in_child(work), 0)[1]):
            kills += 1
        code, done, said = json.loads((shop.root / "last.json").read_text())
        assert (code, done.get("waiting")) == (0, []), said
    return kills


@pytest.mark.parametrize("moves", [FEW, pytest.param(MOVES, marks=pytest.mark.drill)], ids=["few", "every"])
def test_killed_at_its_moves_it_ends_as_if_nobody_had_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, moves: set[str]
) -> None:
    """On SQLite; the drill does it on PostgreSQL, too, whose address comes from the environment."""
    before_forks()
    first = make(tmp_path / "first")
    on_sqlite, on_postgres = first.copy(tmp_path / "sqlite"), first.copy(tmp_path / "postgres")
    whole = Counter[str]()
    ends = {}
    lives = [(first, set[str]()), (on_sqlite, moves), (on_postgres, {"seal", "begin", "clean"})]
    for shop, wanted in lives[:2] if moves is FEW else lives:
        monkeypatch.setenv("FANGXIN_HOME", str(shop.home))
        url = f"sqlite:///{shop.home / 'closures.db'}"
        if shop is on_postgres:
            url = database(request.getfixturevalue("server"))
            monkeypatch.setenv("FANGXIN_CLOSURES", url)
        closure = begun(shop)
        kills = killed_on_the_way(shop, wanted, acts=shop is on_sqlite)
        assert kills == 2 * (len(wanted) + (len(ACTS) if shop is on_sqlite else 0))
        ends[shop.root.name] = end(shop, closure, url)
        assert (shop.home / "closures.db").exists() == (shop is not on_postgres)
        whole |= ends[shop.root.name].events
    assert whole.keys() >= MOVES
    for name in ends.keys() - {"first"}:
        assert differ(ends[name].entries, ends["first"].entries) == {}
        assert differ(ends[name].events, ends["first"].events) == {}
        assert (ends[name].state, ends[name].owed, ends[name].rows) == (
            ends["first"].state, ends["first"].owed, ends["first"].rows
        )  # fmt: skip
    assert ends["first"].state == "certified"

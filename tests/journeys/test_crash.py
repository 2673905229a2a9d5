"""Killed anywhere and resumed, a run ends like one that nobody disturbed; and what others write meanwhile is noticed.

`crash_drill.py` kills a journey of its own for every point; here one journey is killed again and again.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from journeys import crash_support as crash
from journeys.crash_support import Arena, Doom, differing, in_child, journey, resumed, told
from journeys.paper import on_request

from fangxin.data.errors import NotAllowed, UnitChanged, WriterBusy
from fangxin.data.requests import Requests
from fangxin.flows import erase
from fangxin.flows.cli.main import main

NAMES = tuple(step.__name__ for step in erase.STEPS)
POINTS = 20


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Arena:
    return crash.build(tmp_path_factory.mktemp("crash"), settle=on_request)


@pytest.fixture(autouse=True)
def _fresh(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    arena.reset()
    monkeypatch.setenv("FANGXIN_HOME", str(arena.home))


@pytest.fixture(scope="module")
def undisturbed(arena: Arena) -> dict[str, Any]:
    """What a run that nobody disturbs leaves behind, and how many acts on the disk each of its steps takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FANGXIN_HOME", str(arena.home))
        arena.reset()
        acts = told(in_child(journey(arena)))
        return {"acts": acts, "outcome": told(in_child(lambda: crash.outcome(arena)))}


def ends_like(undisturbed: dict[str, Any], arena: Arena) -> None:
    """Resume twice: the outcome is that of the undisturbed run, and the second time nothing changes."""
    found = told(in_child(resumed(arena)))
    assert not differing(undisturbed["outcome"], found["outcome"])
    assert not differing(found["outcome"], found["again"])
    assert found["changed"] == []


def test_an_undisturbed_run_closes_every_intent_leaves_nothing_behind_and_can_be_verified(
    undisturbed: dict[str, Any],
) -> None:
    found = undisturbed["outcome"]
    assert found["verify"] == 0
    assert found["open intents"] == []
    assert not [name for name, rows in found["rows"].items() if rows == ["left behind"]]
    assert {"erased_with_retention"} <= {v for v in found["verdicts"].values() if isinstance(v, str)}


@pytest.mark.slow
def test_a_run_killed_before_and_after_every_step_ends_like_an_undisturbed_one(
    arena: Arena, undisturbed: dict[str, Any]
) -> None:
    arena.reset()
    assert in_child(journey(arena, before=NAMES[0])).signal == 9
    for name in NAMES:  # after one is before the next; the drill kills at both
        assert in_child(journey(arena, after=name)).signal == 9
    ends_like(undisturbed, arena)


@pytest.mark.drill
def test_a_run_killed_at_random_points_inside_its_steps_ends_like_an_undisturbed_one(
    arena: Arena, undisturbed: dict[str, Any]
) -> None:
    arena.reset()
    points = {step: (step, number, after) for step, number, after in crash.moments(undisturbed["acts"], POINTS, seed=5)}
    for step, number, after in sorted(points.values(), key=lambda p: NAMES.index(p[0])):  # no step twice
        end = in_child(journey(arena, Doom((step, number), after=after)))
        assert end.signal == 9, f"{step} {number}: {end.error or 'it was over before'}"
    ends_like(undisturbed, arena)


# ---------------------------------------------------------------- others at work


def test_a_second_run_in_the_same_home_is_turned_away_and_nothing_changes(
    arena: Arena, capsys: pytest.CaptureFixture[str]
) -> None:
    with (arena.home / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before, keys = crash.fingerprint(arena.place), crash.keys(arena)
        with pytest.raises(WriterBusy):
            erase.journey(arena.batch)
        assert main(["resume", arena.batch]) == 5
    assert "another run is at work" in capsys.readouterr().err
    written = crash.changed(before, crash.fingerprint(arena.place))
    # SQLite may settle its own WAL, and whoever has keys in memory says so.
    assert not [name for name in written if not name.startswith(("home/keys/tree-", "home/keys/leases/"))]
    assert crash.keys(arena) == keys


def test_a_store_written_between_locating_and_planting_stops_the_run_and_the_people_are_forgotten(
    arena: Arena,
) -> None:
    erase.run_step(erase.locate, arena.batch)
    _somebody_pays(arena)
    stores = crash.fingerprint(arena.stores)
    with pytest.raises(NotAllowed, match="a store changed after it was located"):
        erase.run_step(erase.plant, arena.batch)
    assert crash.changed(stores, crash.fingerprint(arena.stores)) == []
    _is_forgotten(arena)


@pytest.mark.drill
def test_a_run_killed_while_it_is_given_up_is_given_up_when_resumed(arena: Arena) -> None:
    def refused() -> int:
        doom = Doom()
        with pytest.raises(NotAllowed):
            journey(arena, doom)()
        return doom.seen["plant"]

    acts = 0
    for part in (0, 5, 7, 9):  # the first is not killed, it counts
        arena.reset()
        erase.run_step(erase.locate, arena.batch)
        _somebody_pays(arena)
        if not part:
            acts = told(in_child(refused))
        else:
            assert in_child(journey(arena, Doom(("plant", acts * part // 10)))).signal == 9
            in_child(lambda: erase.journey(arena.batch))
        _is_forgotten(arena)


def _is_forgotten(arena: Arena) -> None:
    estate = crash.opened(arena)
    requests: Requests = estate.requests
    assert requests.batch(arena.batch).state == "abandoned"
    assert all(not r.identities for r in requests.requests(arena.batch))
    keys = estate.tree.get_many(requests.refs(arena.batch), 0x06)
    assert not keys.found.any()
    assert not crash.ledger(arena)["open intents"]


@pytest.mark.slow
@pytest.mark.drill
def test_what_neighbours_write_after_the_plan_is_kept_and_new_rows_of_the_people_need_an_approval_of_their_own(
    arena: Arena, undisturbed: dict[str, Any]
) -> None:
    arena.reset()

    def work() -> Any:
        for step in erase.STEPS[:5]:
            erase.run_step(step, arena.batch)
        _somebody_pays(arena)
        _somebody_joins(arena)
        account = _account_of_a_leaver(arena)
        _change(arena, "INSERT INTO coupons(account_id, kind) VALUES (?, 'late')", account)
        said = []
        for _again in range(2):
            try:
                erase.journey(arena.batch)
            except NotAllowed as no:
                said.append(str(no))
        _change(arena, "DELETE FROM coupons WHERE account_id = ? AND kind = 'late'", account)  # a batch of its own
        erase.journey(arena.batch)
        return {"said": said, "outcome": crash.outcome(arena)}

    found = told(in_child(work))
    assert len(found["said"]) == 2
    assert all("somebody still writes: 1 more rows" in said and "wallet/coupons" in said for said in found["said"])
    assert found["outcome"]["verify"] == 0
    assert found["outcome"]["verdicts"] == undisturbed["outcome"]["verdicts"]
    expected = {name: len(rows) for name, rows in undisturbed["outcome"]["rows"].items()}
    expected["wallet.db:coupons"] += 1
    expected["exports/members.csv"] += 1
    assert {name: len(rows) for name, rows in found["outcome"]["rows"].items()} == expected


def test_a_unit_that_others_wrote_is_refused_by_its_store_before_any_is_touched(arena: Arena) -> None:
    estate = crash.opened(arena)
    store = estate.store_of("exports/members")
    from fangxin.data.vocabulary import Order

    orders = [Order(unit, ()) for unit in store.units()]
    _somebody_joins(arena)
    before = crash.fingerprint(arena.stores)
    with pytest.raises(UnitChanged):
        list(store.erase(orders, batch=arena.batch))
    assert crash.changed(before, crash.fingerprint(arena.stores)) == []


def _somebody_pays(arena: Arena) -> None:
    """A neighbour gets a coupon."""
    _change(arena, "INSERT INTO coupons(account_id, kind) VALUES (?, 'neighbour')", 1)


def _change(arena: Arena, sql: str, account: int) -> None:
    with closing(sqlite3.connect(arena.stores / "wallet.db")) as wallet:
        wallet.execute(sql, [account])
        wallet.commit()


def _somebody_joins(arena: Arena) -> None:
    """A neighbour is appended to a file."""
    path = Path(arena.stores / "exports" / "members.csv")
    with path.open("a", encoding="utf-8") as out:
        out.write(",".join(["1"] + ["x"] * path.read_text("utf-8").split("\n")[0].count(",")) + "\n")
        out.flush()
        os.fsync(out.fileno())


def _account_of_a_leaver(arena: Arena) -> int:
    phone = (arena.place / "estate" / "leavers.csv").read_text("utf-8").splitlines()[1].split(",")[0]
    with closing(sqlite3.connect(arena.stores / "wallet.db")) as wallet:
        return int(wallet.execute("SELECT account_id FROM accounts WHERE phone = ?", [phone]).fetchone()[0])

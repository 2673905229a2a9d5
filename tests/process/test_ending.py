"""What happens around the erasing: plans that grow, erasures that stall, data that comes back."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from process.shop import Shop, make
from test_cli_answers import conforms

from fangxin.checks import verify
from fangxin.data.errors import StoreUnavailable
from fangxin.flows import erase
from fangxin.flows.estate import open_estate

TONIGHT = datetime(2026, 11, 24, 16, 5, tzinfo=UTC)  # 00:05 in Shanghai
OVER = TONIGHT + timedelta(days=7)


@pytest.fixture(scope="module")
def cooling(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shop, str]:
    """A shop in which one person's account is sealed."""
    shop = make(tmp_path_factory.mktemp("ending") / "shop")
    catalog = shop.root / "catalog" / "c.yml"
    catalog.write_text(
        catalog.read_text("utf-8") + "          - {name: is_deleted, fides_meta: {data_type: integer}}\n"
    )
    sql(shop, "ALTER TABLE coupons ADD COLUMN is_deleted INTEGER NOT NULL DEFAULT 0")
    sql(shop, "UPDATE coupons SET is_deleted = 1 WHERE account = 5")  # hidden by the application, and still there
    opened = shop.ask("request", "open", "--identity", shop.phone(5), "--verified", "session")
    closure = opened["closure"]
    Path(shop.file("code")).write_text(opened["restore_code"])
    shop.ask("request", "plan", closure, "--out", shop.file("plan.json"))
    shop.sign("plan.json", "dpo_1")
    shop.ask("request", "approve", closure, "--approval", shop.file("dpo_1.json"))
    shop.now = TONIGHT
    assert shop.ask("run-due")["sealed"] == [closure]
    return shop, closure


@pytest.fixture
def sealed(cooling: tuple[Shop, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Shop, str]:
    shop = cooling[0].copy(tmp_path / "shop")
    shop.now = TONIGHT
    monkeypatch.setenv("FANGXIN_HOME", str(shop.home))
    return shop, cooling[1]


def sql(shop: Shop, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(shop.wallet)) as db, db:
        db.execute(statement, values)


def signed(shop: Shop, closure: str, officer: str) -> dict[str, Any]:  # Any: JSON
    (shop.root / "grown.json").unlink(missing_ok=True)
    shop.ask("request", "plan", closure, "--out", shop.file("grown.json"))
    shop.sign("grown.json", officer)
    return shop.ask("request", "approve", closure, "--approval", shop.file(f"{officer}.json"))


COUPON = "INSERT INTO coupons(coupon, account, kind, face, expires) VALUES(?, 5, 'coffee', 900, '2027-01-01T00:00:00Z')"


@pytest.mark.drill
def test_what_grew_a_day_before_is_signed_ahead_and_what_grows_at_the_last_minute_waits(
    sealed: tuple[Shop, str],
) -> None:
    shop, closure = sealed
    sql(shop, COUPON, 9001)
    shop.now = OVER - timedelta(hours=23)
    code, done = shop.run("run-due")
    conforms("run-due", done)
    assert code == 2
    assert "officers can sign" in done["waiting"][0]["why"]
    assert shop.ask("run-due")["waiting"] == []  # it is told once
    before = shop.ask("request", "status", closure)["plan_digest"]
    assert signed(shop, closure, "dpo_2")["approvals"] == 1  # the plan that was approved still stands
    sql(shop, COUPON, 9002)
    shop.now = OVER
    code, done = shop.run("run-due")
    assert (code, done["erased"]) == (2, [])
    status = shop.ask("request", "status", closure)
    assert (status["state"], status["approvals"]) == ("ready", 0)
    assert status["plan_digest"] != before
    assert shop.run("run-due")[0] == 2
    assert signed(shop, closure, "dpo_1")["approvals"] == 1
    assert shop.ask("run-due")["erased"] == [closure]


@pytest.mark.drill
def test_days_that_their_holder_waives_end_a_day_later_and_the_ledger_says_so(sealed: tuple[Shop, str]) -> None:
    shop, closure = sealed
    shop.now = TONIGHT + timedelta(hours=1)
    assert shop.ask("request", "status", closure)["restore_until"] == f"{OVER:%Y-%m-%dT%H:%M:%SZ}"
    shop.ask("request", "waive", closure, "--code", "@" + shop.file("code"))
    ends = shop.now + timedelta(days=1)
    assert shop.ask("request", "status", closure)["restore_until"] == f"{ends:%Y-%m-%dT%H:%M:%SZ}"
    shop.now = ends - timedelta(seconds=1)
    assert shop.ask("run-due")["erased"] == []
    shop.now = ends
    done = shop.ask("run-due")
    assert done["erased"] == [closure]
    assert shop.ask("request", "status", closure)["restore_until"] is None
    assert verify.exit_code(verify.verify(package(shop, done), trust=shop.home / "keys")) == 0


def package(shop: Shop, done: dict[str, Any]) -> Path:  # Any: JSON
    return shop.home / "reports" / f"package-{done['batches'][0]}.zip"


@pytest.mark.scenario("S29")
def test_an_erasure_that_fails_is_told_as_delayed_and_goes_on_by_itself(
    sealed: tuple[Shop, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that is away; then a row that is only marked as deleted: a flag is no deletion."""
    shop, closure = sealed
    shop.now = OVER
    with monkeypatch.context() as patch:
        patch.setattr(erase, "run_step", _away(erase.run_step))
        assert shop.run("run-due")[0] == 5
    status = shop.ask("request", "status", closure)
    conforms("request", status)
    assert (status["state"], status["public"], status["delayed"]["what"]) == ("stalled", "erasing", "StoreUnavailable")
    assert shop.run("request", "resume", closure, "--officer", "dpo_1")[0] == 4  # it needs none
    shop.now += timedelta(hours=12)
    with monkeypatch.context() as patch:
        patch.setattr(erase, "run_step", _flagged(erase.run_step, shop))
        code, done = shop.run("run-due")
    assert (code, done["erased"]) == (1, [])
    assert "wallet/coupons" in done["waiting"][0]["why"]
    assert shop.run("request", "status", closure)[1]["certificate"] is None
    assert shop.run("run-due")[0] == 1  # nor later, while the row is there
    sql(shop, "DELETE FROM coupons WHERE is_deleted = 1")
    assert shop.ask("run-due")["erased"] == [closure]
    assert shop.ask("request", "status", closure)["delayed"] is None
    assert [r for r in shop.rows()["coupons"] if r[1] == 5] == []


@pytest.mark.drill
def test_a_batch_that_an_operator_ends_as_it_stands_leaves_its_closing_to_an_officer_who_has_it_erased_anew(
    sealed: tuple[Shop, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, closure = sealed
    shop.now = OVER
    with monkeypatch.context() as patch:
        patch.setattr(erase, "run_step", _flagged(erase.run_step, shop))
        assert shop.run("run-due")[0] == 1
    (batch,) = open_estate(shop.home).requests.unfinished()
    assert shop.plain("resume", batch, "--as-it-stands", "row_back") == 1
    code, done = shop.run("run-due")
    assert (code, done["erased"], [one["closure"] for one in done["waiting"]]) == (2, [], [closure])
    assert "its certificate says FAILED" in done["waiting"][0]["why"]
    assert shop.run("run-due")[1]["waiting"] == done["waiting"]  # and nothing more is done about it by itself
    assert verify.exit_code(verify.verify(package(shop, {"batches": [batch]}), trust=shop.home / "keys")) == 0
    shop.ask("request", "resume", closure, "--officer", "dpo_1")
    assert shop.ask("run-due")["erased"] == [closure]
    assert [r for r in shop.rows()["coupons"] if r[1] == 5] == []


def _away(real: Callable[..., None]) -> Callable[..., None]:
    def run_step(step: Callable[[str], None], batch: str) -> None:
        if step is erase.overwrite:
            raise StoreUnavailable("the store is away")
        real(step, batch)

    return run_step


def _flagged(real: Callable[..., None], shop: Shop) -> Callable[..., None]:
    def run_step(step: Callable[[str], None], batch: str) -> None:
        if step is erase.validate:
            sql(shop, "INSERT INTO coupons VALUES(9001, 5, 'coffee', 900, '2027-01-01', 1)")
        real(step, batch)

    return run_step


@pytest.mark.scenario("S30")
def test_data_that_comes_back_is_found_on_its_day_and_erased_under_a_new_certificate(sealed: tuple[Shop, str]) -> None:
    """What grew while they could regret it was signed ahead, and all of it went in the minute regret ended."""
    shop, closure = sealed
    sql(shop, COUPON, 9001)
    shop.now = OVER - timedelta(hours=23)
    assert shop.run("run-due")[0] == 2
    signed(shop, closure, "dpo_2")
    with closing(sqlite3.connect(shop.wallet)) as db:
        (row,) = db.execute("SELECT * FROM accounts WHERE id = 5").fetchall()
    shop.now = OVER
    first = shop.ask("run-due")
    assert first["erased"] == [closure]
    assert [r for r in shop.rows()["coupons"] if r[1] == 5] == []
    before = shop.ask("request", "status", closure)
    assert (before["state"], before["superseded"]) == ("certified", [])
    sql(shop, f"INSERT INTO accounts VALUES({','.join('?' * len(row))})", *row)  # a restored backup
    shop.now = OVER + timedelta(hours=23)
    assert shop.ask("run-due")["came_back"] == []
    shop.now = OVER + timedelta(days=1)
    done = shop.ask("run-due")
    assert (done["came_back"], done["erased"]) == ([closure], [closure])
    assert [r for r in shop.rows()["accounts"] if r[0] == 5] == []
    after = shop.ask("request", "status", closure)
    conforms("request", after)
    assert (after["state"], after["round"], after["superseded"]) == ("certified", 2, [before["certificate"]])
    for one in (first, done):
        assert verify.exit_code(verify.verify(package(shop, one), trust=shop.home / "keys")) == 0
    assert b"13900000005" not in (shop.home / "closures.db").read_bytes()
    for days in (2, 31, 62):
        shop.now = OVER + timedelta(days=days, hours=1)
        assert shop.ask("run-due")["came_back"] == []
    assert shop.ask("request", "status", closure)["state"] == "closed"
    with closing(sqlite3.connect(shop.home / "closures.db")) as db:
        assert db.execute("SELECT count(*) FROM watch").fetchone() == (0,)


@pytest.mark.scenario("S29")
def test_whoever_stands_where_no_collection_looks_waits_for_an_officer_and_every_night_says_so(
    sealed: tuple[Shop, str],
) -> None:
    """A note that nobody catalogued names them: what the catalog knows is erased, and the certificate is partial."""
    shop, closure = sealed
    note = shop.root / "stores" / "note.txt"
    note.write_text("call 13900000005\n", "utf-8")
    shop.now = OVER
    code, done = shop.run("run-due")
    assert (code, done["erased"]) == (2, [])
    assert [(one["closure"], "partial" in one["why"]) for one in done["waiting"]] == [(closure, True)]
    shop.now += timedelta(days=1)
    code, again = shop.run("run-due")
    assert (code, again["waiting"], again["batches"]) == (2, done["waiting"], [])
    note.unlink()
    shop.ask("request", "resume", closure, "--officer", "dpo_1")
    done = shop.ask("run-due")
    assert (done["erased"], done["waiting"]) == ([closure], [])
    assert verify.exit_code(verify.verify(package(shop, done), trust=shop.home / "keys")) == 0

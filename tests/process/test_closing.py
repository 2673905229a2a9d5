"""One account closed from the request to the certificate, with a clock that moves; and every way back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from process.shop import Shop, make
from test_cli_answers import conforms


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return make(tmp_path_factory.mktemp("closing"))


@pytest.fixture
def shop(pristine: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    found = pristine.copy(tmp_path / "shop")
    monkeypatch.setenv("FANGXIN_HOME", str(found.home))
    return found


def test_one_account_through_all_of_it(shop: Shop) -> None:
    opened = shop.ask("request", "open", "--identity", shop.phone(5), "--verified", "session")
    conforms("request-open", opened)
    closure = opened["closure"]
    plan = shop.ask("request", "plan", closure, "--out", str(shop.root / "plan.json"))
    conforms("request", plan)
    assert plan["state"] == "review"
    shop.sign("plan.json", "dpo_1")
    assert shop.ask("request", "approve", closure, "--approval", shop.file("dpo_1.json"))["state"] == "sealing"
    shop.now = datetime(2026, 11, 24, 16, 5, tzinfo=UTC)
    assert shop.ask("run-due")["sealed"] == [closure]
    shop.now += timedelta(days=7)
    done = shop.ask("run-due")
    conforms("run-due", done)
    assert done["erased"] == [closure]
    status = shop.ask("request", "status", "--receipt", opened["receipt_code"])
    conforms("request", status)
    assert status["state"] == "closed"
    assert status["certificate"]

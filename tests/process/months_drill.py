"""Two hundred requests through the whole process in simulated weeks (bench/process.py does ten thousand)."""

from __future__ import annotations

from pathlib import Path

import pytest
from process.months import simulate


def test_two_hundred_requests_come_to_their_end_and_no_promise_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FANGXIN_HOME", str(tmp_path / "shop" / "home"))
    found = simulate(tmp_path / "shop", requests=200, a_day=40)
    assert found.requests == 200
    assert found.wrong() == []
    assert found.errors == []
    assert found.states["certified"] > 150
    assert found.states["restored"] > 0
    assert found.states["cancelled"] > 0

"""Some dozens of requests through simulated weeks; months_drill.py does two hundred, bench/process.py ten thousand."""

from __future__ import annotations

from pathlib import Path

import pytest
from process.months import simulate


@pytest.mark.scenario("S20", "S22", "S23", "S38", "S44")
def test_forty_requests_come_to_their_end_and_the_public_figures_are_those_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FANGXIN_HOME", str(tmp_path / "shop" / "home"))
    found = simulate(tmp_path / "shop", requests=40, a_day=40, lapsing=2, nightly=True)
    assert found.wrong() == []  # nobody stuck, books at zero, no cent owed, each promise kept, each loss counted
    assert found.errors == []
    assert (found.requests, found.days) == (40, 11)
    assert set(found.states) == {"certified", "cancelled", "restored"}
    assert found.public["lapsed/coupon"] == found.public["forfeited/CNY/1000-9999"] == 2
    assert found.public["complaint/complaint"] == 1
    clocks = {one["name"]: one for one in found.sla["clocks"]}
    assert {"review", "start", "regret", "done"} <= set(clocks)
    assert clocks["start"]["hours"]["p100"] <= 24
    assert clocks["regret"]["hours"]["p50"] == 7 * 24
    assert all(one["used"]["p100"] <= 100 for one in clocks.values())

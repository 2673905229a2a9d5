"""What appears after the plan: it adds to the settlement, or holds the closing back with a reason and a date."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import pytest

import fangxin.data
from fangxin.data.catalog.calendar import Calendar
from fangxin.data.catalog.clearance import Clearance
from fangxin.data.errors import InputError, NotAllowed
from fangxin.flows.closing import owed_for, told_of
from fangxin.flows.late import beyond, blockers, decided
from fangxin.flows.refund import Money
from fangxin.flows.settlement import Entitlement, settle

DATA = Path(fangxin.data.__file__).parent
NOW = datetime(2026, 9, 25, 4, tzinfo=UTC)  # noon in Shanghai, a holiday
BALANCE = Entitlement("i-b", "balance", 3650, "CNY")
POINTS = Entitlement("i-p", "points", 100, "CNY")
COUPON = Entitlement("i-c", "coupon", 999, "CNY", None, True, Fraction(0), NOW + timedelta(days=90), "terms")


@pytest.fixture(scope="module")
def rules() -> Clearance:
    return Clearance.load(DATA / "clearance" / "lecard.yaml")


@pytest.mark.scenario("S3", "S5", "S6")
def test_points_that_arrive_and_a_coupon_that_is_issued_add_to_the_settlement(rules: Clearance) -> None:
    planned = [told_of(d) for d in settle([BALANCE, POINTS], (), rules, closed=NOW)]
    assert beyond(planned, [BALANCE, POINTS]) == []
    assert beyond(planned, [replace(BALANCE, amount=1000)]) == []  # paid out or spent meanwhile: nothing new
    more = beyond(planned, [replace(BALANCE, amount=3700), replace(POINTS, amount=130), COUPON])
    assert [(one.id, one.amount, one.version) for one in more] == [("i-b", 50, 1), ("i-p", 30, 1), ("i-c", 999, 0)]
    late = decided(more, rules, NOW, set())
    assert [(d.fate, d.money) for d in late[:2]] == [("payout", Money(50, "CNY")), ("convert", Money(30, "CNY"))]
    assert (late[2].fate, late[2].money, late[2].lost) == ("unclaimed", None, 0)  # only its holder could choose
    planned += [told_of(d) for d in late]
    assert beyond(planned, [replace(BALANCE, amount=3700), replace(POINTS, amount=130), COUPON]) == []  # once
    entries = owed_for("c", late, first=2)
    assert sum(minor for _e, _a, _c, minor in entries) == 0
    assert {entry for entry, *_ in entries} == {"owed-c-2", "owed-c-3"}


def test_a_charge_that_came_back_and_what_nobody_knows_hold_it_back(rules: Clearance) -> None:
    with pytest.raises(NotAllowed, match="negative"):
        decided(beyond([told_of(d) for d in settle([BALANCE], (), rules, closed=NOW)],
                       [replace(BALANCE, amount=-1)]), rules, NOW, set())  # fmt: skip
    with pytest.raises(InputError, match="no rule"):
        decided([Entitlement("i", "spaceship", 1, "CNY")], rules, NOW, set())


def test_what_blocks_has_an_actor_an_exit_and_a_date_on_which_nobody_is_needed_any_more(rules: Clearance) -> None:
    cn = Calendar.load(DATA / "calendars", "cn")
    items = [replace(BALANCE, id=kind, kind=kind, amount=1) for kind in ("open_order", "debt", "dispute", "balance")]
    found = blockers(items, rules, {}, NOW, cn)
    assert [(one.kind, one.actor, one.exit, one.latest, one.otherwise) for one in found] == [
        ("open_order", "merchant", "complete", NOW + timedelta(days=15), "split_off"),
        ("debt", "holder", "pay", NOW + timedelta(days=7), "claim"),
        ("dispute", "officer", "decide", datetime(2026, 10, 22, 16, tzinfo=UTC), "split_off"),  # 15 working days
    ]
    seen = {one.item: {**one.told(), "since": NOW.isoformat()} for one in found}
    assert blockers(items, rules, seen, NOW + timedelta(days=3), cn) == found  # its date stands
    ended = settle(items, (), rules, closed=NOW, overdue={"open_order", "debt", "dispute"})
    assert [(one.fate, one.lost) for one in ended] == [("split_off", 0), ("claim", 0), ("split_off", 0), ("payout", 0)]

"""The promises' clocks: every day of 2008 to 2026 as a starting day, and what is left to erase in."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

import fangxin.data
from fangxin.data.catalog.calendar import Calendar
from fangxin.data.catalog.law import Laws
from fangxin.data.errors import InputError, NotAllowed
from fangxin.flows.clocks import Clock, Promise, gap, lawful, lengthened, promised

DATA = Path(fangxin.data.__file__).parent
SHANGHAI = ZoneInfo("Asia/Shanghai")
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def cn() -> Calendar:
    return Calendar.load(DATA / "calendars", "cn")


@pytest.fixture(scope="module")
def promise() -> Promise:
    return Promise.load(DATA / "promises" / "lecard.toml")


def local(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=SHANGHAI)


def test_the_worked_chain_over_the_national_holiday(cn: Calendar, promise: Promise) -> None:
    review = promised("review", promise, local("2026-09-24T10:00"), cn)
    assert review.deadline == local("2026-10-01T00:00")
    approved = local("2026-09-30T15:30")
    sealed = promise.seal_from(approved)
    assert sealed == local("2026-10-01T00:05")
    assert sealed <= promised("start", promise, approved, cn).deadline
    regret = promised("regret", promise, sealed, cn)
    assert regret.deadline == local("2026-10-08T00:05")
    assert promised("done", promise, sealed, cn).deadline == local("2026-10-16T00:00")
    assert gap(sealed, promise, cn) == timedelta(hours=191, minutes=55)


@pytest.mark.scenario("S20", "S23")
def test_on_every_day_the_promises_fit_into_each_other(cn: Calendar, promise: Promise) -> None:
    """Approved at every hour that matters: sealed within 24 h, and 23 h 55 min at the least are left to erase in."""
    worst, longest = timedelta(days=99), timedelta()
    day = date(2008, 1, 2)
    while day < date(2026, 11, 1):
        start = datetime(day.year, day.month, day.day, 9, tzinfo=SHANGHAI)
        review = promised("review", promise, start, cn)
        for hour in (0, 23):
            approved = start.replace(hour=hour, minute=4 if hour == 0 else 59)
            sealed = promise.seal_from(approved)
            assert timedelta() < sealed - approved <= timedelta(hours=24)
            worst = min(worst, gap(sealed, promise, cn))
        latest = promise.seal_from(review.deadline - timedelta(minutes=1))
        longest = max(longest, promised("done", promise, latest, cn).deadline - start)
        day += DAY
    assert worst == timedelta(hours=23, minutes=55)
    assert longest <= timedelta(days=27)


def test_whoever_seals_at_once_may_have_one_minute(cn: Calendar, promise: Promise) -> None:
    assert gap(local("2008-01-27T23:59"), promise, cn) == timedelta(minutes=1)


@pytest.mark.scenario("S30")
def test_a_clock_is_kept_or_breached_for_ever(cn: Calendar, promise: Promise) -> None:
    clock = promised("start", promise, local("2026-11-27T10:00"), cn)
    early, late = local("2026-11-28T09:59:59"), local("2026-11-28T10:00")
    assert not clock.done(early).breached(late)
    assert clock.done(late).breached(late)
    assert clock.breached(late)
    assert clock.done(late).done(early).breached(late)
    assert clock.done(early).done(late).met == early


def test_alarms_at_half_at_four_fifths_and_at_the_end(cn: Calendar, promise: Promise) -> None:
    start = local("2026-11-27T10:00")
    clock = promised("start", promise, start, cn)
    due = {hour: clock.alarm(start + timedelta(hours=hour)) for hour in (0, 11, 12, 19, 20, 23, 24, 48)}
    assert due == {0: None, 11: None, 12: 50, 19: 50, 20: 80, 23: 80, 24: 100, 48: 100}
    assert clock.done(start + timedelta(hours=13)).alarm(start + timedelta(hours=14)) is None


def test_a_clock_stands_still_with_a_reason_only_and_ends_later_by_as_much(cn: Calendar, promise: Promise) -> None:
    start = local("2026-11-27T10:00")
    clock = promised("start", promise, start, cn)
    with pytest.raises(NotAllowed, match="cannot be suspended"):
        clock.suspend("", start)
    still = clock.suspend("identity_disputed", start + timedelta(hours=6))
    with pytest.raises(NotAllowed):
        still.suspend("again", start + timedelta(hours=7))
    again = still.go_on(start + timedelta(hours=16))
    assert again.deadline == clock.deadline + timedelta(hours=10)
    assert again.used(start + timedelta(hours=22)) == pytest.approx(0.5)
    assert [(s.reason, s.until) for s in again.suspended] == [("identity_disputed", start + timedelta(hours=16))]
    with pytest.raises(NotAllowed, match="not suspended"):
        again.go_on(start)


def test_a_provisional_deadline_is_counted_again_when_the_notice_comes_and_only_later(
    cn: Calendar, promise: Promise
) -> None:
    start = local("2025-12-29T10:00")
    before = promised("done", promise, start, cn.as_of(2026))
    assert before.provisional
    after = before.recount(cn)
    assert (after.provisional, after.deadline) == (False, promised("done", promise, start, cn).deadline)
    assert after.deadline >= before.deadline
    assert after.first == (before.deadline if after.deadline != before.deadline else None)
    assert after.recount(cn) == after


def test_the_laws_own_clocks_run_beside(cn: Calendar) -> None:
    laws = Laws.load(DATA / "laws")
    start = local("2026-02-10T10:00")
    found = {c.name: c for c in lawful(laws.law("pipl"), "request.opened", start, {"cn": cn})}
    assert found["cac-draft-2026-close"].draft
    assert found["cac-draft-2026-close"].deadline == local("2026-03-10T00:00")
    (gdpr,) = lawful(laws.law("gdpr"), "request.opened", datetime(2026, 1, 31, 9, tzinfo=UTC), {})
    assert gdpr.source == "gdpr/gdpr-12-3"
    assert lawful(laws.law("gdpr"), "complaint.received", start, {}) == []


def test_a_law_s_clock_is_lengthened_once_inside_its_first_period_and_keeps_the_first_date(cn: Calendar) -> None:
    laws = Laws.load(DATA / "laws")
    start = datetime(2026, 11, 27, 9, tzinfo=UTC)
    (gdpr,) = lawful(laws.law("gdpr"), "request.opened", start, {})
    confirm, answer = lawful(laws.law("ccpa"), "request.opened", start, {})
    assert (confirm.ends, answer.ends) == ("confirmed", "closed")
    longer = lengthened(gdpr, laws, {}, "complex", start + 20 * DAY)
    assert (longer.first, longer.extended) == (gdpr.deadline, "complex")
    assert longer.deadline > gdpr.deadline + 58 * DAY
    with pytest.raises(NotAllowed, match="once"):
        lengthened(longer, laws, {}, "complex", start + 21 * DAY)
    with pytest.raises(NotAllowed, match="inside the first"):
        lengthened(gdpr, laws, {}, "complex", gdpr.deadline)
    with pytest.raises(NotAllowed):
        lengthened(gdpr, laws, {}, "", start)
    for other in (confirm, *lawful(laws.law("lgpd"), "request.opened", start, {})):
        with pytest.raises(InputError, match="no longer period"):
            lengthened(other, laws, {}, "complex", start)


@pytest.mark.parametrize(
    ("line", "put", "said"),
    [
        ("version = 1", "", "missing key version"),
        ("start = {hours = 24}", "start = {minutes = 24}", "start: expected one of"),
        ("regret = {hours = 168}", "regret = {working_days = 7}", "counted in hours"),
        ("review = {working_days = 3}", "review = {working_days = 0}", "above 0"),
        ("review =", "revieww =", "key review"),
        ("seal_at = 00:05:00", 'seal_at = "midnight"', "local time"),
    ],
)
def test_a_wrong_promise_is_refused_by_name(tmp_path: Path, line: str, put: str, said: str) -> None:
    text = (DATA / "promises" / "lecard.toml").read_text("utf-8")
    assert line in text
    (tmp_path / "p.toml").write_text(text.replace(line, put, 1), "utf-8")
    with pytest.raises(InputError, match=said):
        Promise.load(tmp_path / "p.toml")


def test_a_clock_says_how_it_was_counted(cn: Calendar, promise: Promise) -> None:
    clock: Clock = promised("review", promise, local("2026-11-27T10:00"), cn)
    assert (clock.source, clock.calendar, clock.zone) == (promise.digest, cn.digest, "Asia/Shanghai")

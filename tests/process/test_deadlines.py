"""Deadlines of law: the worked examples of each jurisdiction, and that our own target is never the later one."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import holidays
import pytest

import fangxin.data
from fangxin.data.catalog.calendar import Calendar
from fangxin.data.catalog.deadlines import LegalDue, due
from fangxin.data.catalog.law import Laws
from fangxin.data.errors import InputError

DATA = Path(fangxin.data.__file__).parent
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def laws() -> Laws:
    return Laws.load(DATA / "laws")


@pytest.fixture(scope="module")
def calendars() -> dict[str, Calendar]:
    return {name: Calendar.load(DATA / "calendars", name) for name in ("cn", "uk")}


def count(
    laws: Laws, calendars: dict[str, Calendar], law: str, rule: str, day: str, *, extended: bool = False
) -> LegalDue:
    found = laws.law(law)
    (deadline,) = (one for one in found.deadlines if one.id == rule)
    event = datetime.fromisoformat(day).replace(hour=11, tzinfo=ZoneInfo(found.zone) if "/" in found.zone else UTC)
    return due(
        deadline, event, zone="Asia/Shanghai" if law == "pipl" else found.zone, calendars=calendars, extended=extended
    )


def last_day(moment: datetime, zone: str) -> str:
    return str((moment.astimezone(ZoneInfo(zone)) - timedelta(seconds=1)).date())


@pytest.mark.parametrize(
    ("law", "rule", "day", "zone", "target", "legal"),
    [
        ("uk", "uk-gdpr-12-3", "2026-09-03", "Europe/London", "2026-10-03", "2026-10-05"),
        ("uk", "uk-gdpr-12-3", "2026-03-31", "Europe/London", "2026-04-30", "2026-04-30"),
        ("uk", "uk-gdpr-12-3", "2026-11-25", "Europe/London", "2026-12-25", "2026-12-29"),
        ("gdpr", "gdpr-12-3", "2026-01-31", "Europe/Brussels", "2026-02-28", "2026-03-02"),
        ("ccpa", "ccpa-7021-confirm", "2026-10-01", "America/Los_Angeles", "2026-10-15", "2026-10-15"),
        ("ccpa", "ccpa-7021-answer", "2026-10-01", "America/Los_Angeles", "2026-11-14", "2026-11-15"),
        ("drop", "drop-fetch", "2026-08-01", "America/Los_Angeles", "2026-09-14", "2026-09-15"),
        ("lgpd", "lgpd-19-ii", "2026-11-27", "America/Sao_Paulo", "2026-12-12", "2026-12-14"),
        ("pipl", "cac-draft-2026-close", "2026-02-10", "Asia/Shanghai", "2026-03-09", "2026-03-09"),
        ("pipl", "gbt-35273-8-7-answer", "2026-09-01", "Asia/Shanghai", "2026-10-01", "2026-10-08"),
    ],
)
def test_worked_examples(
    laws: Laws, calendars: dict[str, Calendar], law: str, rule: str, day: str, zone: str, target: str, legal: str
) -> None:
    found = count(laws, calendars, law, rule, day)
    assert (last_day(found.target, zone), last_day(found.legal, zone)) == (target, legal)


@pytest.mark.parametrize(
    ("law", "rule", "day", "zone", "target"),
    [
        ("gdpr", "gdpr-12-3", "2026-01-31", "Europe/Brussels", "2026-04-30"),
        ("ccpa", "ccpa-7021-answer", "2026-10-01", "America/Los_Angeles", "2026-12-29"),
    ],
)
def test_with_a_notice_the_period_is_counted_anew_from_receipt(
    laws: Laws, calendars: dict[str, Calendar], law: str, rule: str, day: str, zone: str, target: str
) -> None:
    assert last_day(count(laws, calendars, law, rule, day, extended=True).target, zone) == target


def test_an_extension_that_a_law_does_not_know_is_refused(laws: Laws, calendars: dict[str, Calendar]) -> None:
    with pytest.raises(InputError, match="knows no extension"):
        count(laws, calendars, "lgpd", "lgpd-19-ii", "2026-10-01", extended=True)


def test_our_target_is_never_after_the_law_s_end_on_any_day_of_a_leap_year_and_a_common_one(
    laws: Laws, calendars: dict[str, Calendar]
) -> None:
    for law in laws.laws.values():
        for deadline in law.deadlines:
            zone = "Asia/Shanghai" if law.name == "pipl" else law.zone
            for n in range(730):
                event = datetime(2024, 1, 1, 23, 30, tzinfo=ZoneInfo(zone)) + n * DAY
                known = {k: v for k, v in calendars.items() if k == "cn"}  # the other lists begin in 2026
                found = due(deadline, event, zone=zone, calendars=known)
                assert event < found.target <= found.legal, (deadline.id, event)


def test_without_china_s_calendar_no_working_day_is_counted(laws: Laws) -> None:
    (deadline,) = (one for one in laws.law("pipl").deadlines if one.id == "cac-draft-2026-close")
    with pytest.raises(InputError, match="its calendar is not loaded"):
        due(deadline, datetime(2026, 11, 27, tzinfo=UTC), zone="Asia/Shanghai", calendars={})


def test_days_off_of_the_united_kingdom_are_what_a_library_says(calendars: dict[str, Calendar]) -> None:
    england = holidays.country_holidays("GB", subdiv="ENG", years=[2026, 2027])
    for n in range((date(2027, 12, 15) - date(2026, 1, 1)).days + 1):
        day = date(2026, 1, 1) + n * DAY
        assert calendars["uk"].works(day) == (day.weekday() < 5 and day not in england), day

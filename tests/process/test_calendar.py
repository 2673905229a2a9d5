"""Working days: published ones agree with two libraries; where no notice has come the deadline is the earliest."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import chinese_calendar
import holidays
import pytest

import fangxin.data
from fangxin.data.catalog.calendar import Calendar
from fangxin.data.errors import InputError

FOLDER = Path(fangxin.data.__file__).parent / "calendars"
SHANGHAI = ZoneInfo("Asia/Shanghai")
DAY = timedelta(days=1)
START, END = date(2008, 1, 1), date(2026, 12, 15)


@pytest.fixture(scope="module")
def cn() -> Calendar:
    return Calendar.load(FOLDER, "cn")


def noon(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 12, tzinfo=SHANGHAI)


def every(start: date, end: date) -> list[date]:
    return [start + n * DAY for n in range((end - start).days + 1)]


def test_every_published_day_is_what_two_libraries_say(cn: Calendar) -> None:
    china = holidays.country_holidays("CN", years=range(2008, 2027))
    for day in every(START, END):
        assert cn.final(day)
        assert cn.works(day) == chinese_calendar.is_workday(day), day
        made_up = day in {w for one in cn.notices.values() for w in one.work}
        assert cn.works(day) == (made_up or (day.weekday() < 5 and day not in china)), day


@pytest.mark.parametrize(
    ("event", "days", "due"),
    [
        ("2026-02-10", 15, "2026-03-09"),
        ("2026-09-25", 15, "2026-10-22"),
        ("2026-02-13", 3, "2026-02-25"),  # Spring Festival: nine days off, two Saturdays made up
        ("2026-02-13", 7, "2026-03-02"),
        ("2026-02-27", 3, "2026-03-03"),
        ("2026-05-08", 3, "2026-05-12"),
        ("2026-09-18", 3, "2026-09-22"),
        ("2026-09-30", 7, "2026-10-15"),
        ("2026-04-30", 7, "2026-05-13"),
        ("2025-12-31", 3, "2026-01-06"),
        ("2026-09-24", 3, "2026-09-30"),
    ],
)
def test_deadlines_of_the_spot_list(cn: Calendar, event: str, days: int, due: str) -> None:
    found = cn.deadline(noon(date.fromisoformat(event)), days)
    assert (str(found.day), found.provisional) == (due, False)
    assert found.moment == datetime.fromisoformat(due).replace(tzinfo=SHANGHAI) + DAY


@pytest.mark.parametrize(
    ("event", "days", "due"),
    [("2026-12-25", 7, "2027-01-02"), ("2027-01-29", 7, "2027-02-09"), ("2026-12-30", 3, "2027-01-03")],
)
def test_what_no_notice_covers_is_provisional_and_the_earliest_possible(
    cn: Calendar, event: str, days: int, due: str
) -> None:
    found = cn.deadline(noon(date.fromisoformat(event)), days)
    assert (str(found.day), found.provisional) == (due, True)


@pytest.mark.parametrize("days", [3, 7, 15])
def test_a_provisional_deadline_is_never_after_the_one_that_the_notice_brings(cn: Calendar, days: int) -> None:
    before = {year: cn.as_of(year) for year in range(2009, 2027)}
    early = 0
    for start in every(date(2008, 1, 2), date(2026, 11, 20)):
        truth = cn.deadline(noon(start), days)
        for year in (start.year, start.year + 1):
            if year in before:
                guess = before[year].deadline(noon(start), days)
                assert guess.day <= truth.day, (start, year)
                assert guess.provisional or guess.day == truth.day, (start, year)
                early += guess.day < truth.day
    assert early > 100  # so that "provisional" is not a word alone


def test_working_days_used_up_agree_with_the_deadline(cn: Calendar) -> None:
    for start in every(date(2025, 9, 1), date(2026, 3, 1)):
        due = cn.deadline(noon(start), 7)
        assert cn.between(noon(start), due.moment - timedelta(seconds=1)) == 7
        assert cn.between(noon(start), noon(due.day - DAY)) <= 6


def test_the_hour_of_the_event_is_read_in_the_calendar_s_zone(cn: Calendar) -> None:
    late = datetime(2026, 11, 26, 16, 30, tzinfo=UTC)  # 00:30 of the 27th in Shanghai
    assert cn.deadline(late, 1).day == date(2026, 11, 30)
    assert cn.deadline(late - timedelta(hours=1), 1).day == date(2026, 11, 27)


def copied(to: Path, *years: int) -> Path:
    for year in years:
        (to / f"cn-{year}.toml").write_bytes((FOLDER / f"cn-{year}.toml").read_bytes())
    return to


def test_a_calendar_with_a_hole_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"hole: cn-2025\.toml"):
        Calendar.load(copied(tmp_path, 2024, 2026), "cn")


def test_beyond_the_loaded_years_no_deadline_is_made_up(tmp_path: Path) -> None:
    cn = Calendar.load(copied(tmp_path, 2025, 2026), "cn")
    with pytest.raises(InputError, match="does not reach 2027"):
        cn.deadline(noon(date(2026, 12, 29)), 7)


@pytest.mark.parametrize(
    ("line", "put", "said"),
    [
        ("year = 2026", "year = 2025", "year: expected"),
        ('zone = "Asia/Shanghai"', 'zone = "Asia/Nowhere"', "zone: expected"),
        ("  2026-01-04,", "  2026-01-05,", "is a weekday"),
        ("  2026-01-04,", "  2026-01-01,", "stands in off and in work"),
        ("  2026-01-04,", "  2027-01-04,", "no day that the notice"),
        ("off = [", "offf = [", "unknown key offf"),
        ("2026-01-01, 2026-01-02", "2026-01-01, 2026-01-01", "stands twice"),
        ("2026-01-01, 2026-01-02", '2026-01-01, "soon"', "list of dates"),
        ("title = ", "name = ", "a published year has"),
        ("year = 2026", "year = = 2026", "not TOML"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, line: str, put: str, said: str) -> None:
    text = (copied(tmp_path, 2026) / "cn-2026.toml").read_text("utf-8")
    assert line in text
    (tmp_path / "cn-2026.toml").write_text(text.replace(line, put, 1), "utf-8")
    with pytest.raises(InputError, match=said) as refused:
        Calendar.load(tmp_path, "cn")
    assert "cn-2026.toml" in str(refused.value)


def test_an_event_without_a_zone_or_a_deadline_of_no_day_is_refused(cn: Calendar) -> None:
    with pytest.raises(InputError, match="zone"):
        cn.deadline(datetime(2026, 11, 27, 12), 3)  # noqa: DTZ001
    with pytest.raises(InputError, match="at least one"):
        cn.deadline(noon(date(2026, 11, 27)), 0)

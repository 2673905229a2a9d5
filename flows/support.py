"""How support is given: what people ask about, how soon a person answers, and how long texts are kept.

A file with a version and a digest (`data/support/*.toml`), like a promise. Hours of work are local ones on working days
of the calendar; a span of them that reaches a day which may still change is provisional, the earliest possible.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from fangxin.data.catalog.calendar import Calendar
from fangxin.data.errors import InputError
from fangxin.flows.clocks import Clock, Promise, promised


@dataclass(frozen=True)
class Category:
    """What a ticket can be about; without hours of its own it has the promise's first answer."""

    code: str
    zh: str
    en: str
    working_hours: int | None = None


@dataclass(frozen=True)
class Support:
    """How support is given: categories, the hours in which it works, how long texts are kept."""

    version: int
    hours: tuple[time, time]
    keep: timedelta
    quiet: timedelta
    categories: Mapping[str, Category]
    digest: str

    @classmethod
    def load(cls, path: Path) -> Support:
        """Read a support file strictly; InputError names key, what was expected and found."""
        body = path.read_bytes()
        try:
            found: dict[str, Any] = tomllib.loads(body.decode("utf-8"))  # Any: TOML
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not TOML in UTF-8: {error}") from None
        for key in sorted(set(found) ^ {"version", "hours", "keep_days", "quiet_days", "category"}):
            raise InputError(f"{path}: {'unknown' if key in found else 'missing'} key {key}", hint="see lecard.toml")
        hours = found["hours"]
        if not (isinstance(hours, list) and len(hours) == 2 and all(isinstance(h, time) for h in hours)):
            raise InputError(f"{path}: hours: expected two local times such as [09:00:00, 18:00:00]")
        if hours[0] >= hours[1]:
            raise InputError(f"{path}: hours: expected the first one earlier; found {hours[0]} to {hours[1]}")
        for key in ("version", "keep_days", "quiet_days"):
            if type(found[key]) is not int or found[key] < 1:
                raise InputError(f"{path}: {key}: expected a whole number above 0; found {found[key]!r}")
        categories = {code: _category(path, code, raw) for code, raw in found["category"].items()}
        return cls(
            found["version"],
            (hours[0], hours[1]),
            timedelta(days=found["keep_days"]),
            timedelta(days=found["quiet_days"]),
            categories,
            hashlib.sha256(body).hexdigest(),
        )

    def clock(self, category: str, promise: Promise, calendar: Calendar, now: datetime) -> Clock:
        """The clock of a ticket that is opened at an instant; InputError for a category that there is not."""
        one = self.categories.get(category)
        if one is None:
            raise InputError(f"no category {category}", hint=f"one of {', '.join(self.categories)}")
        if one.working_hours is None:
            return promised("first_answer", promise, now, calendar)
        span = timedelta(hours=one.working_hours)
        at, provisional = in_working_hours(calendar, self.hours, now, span)
        return Clock("first_answer", now, at, calendar.zone, self.digest, calendar.digest, provisional=provisional)


def in_working_hours(
    calendar: Calendar, hours: tuple[time, time], start: datetime, span: timedelta
) -> tuple[datetime, bool]:
    """When a span of working hours is used up that begins at an instant; and whether a day of it may still change."""
    zone = ZoneInfo(calendar.zone)
    day, left, certain = start.astimezone(zone).date(), span, True
    while True:
        certain = certain and calendar.final(day)
        if calendar.works(day):
            begins = max(datetime.combine(day, hours[0], tzinfo=zone), start)
            room = datetime.combine(day, hours[1], tzinfo=zone) - begins
            if room >= left:
                return (begins + left).astimezone(start.tzinfo), not certain
            left -= max(room, timedelta())
        day += timedelta(days=1)


def _category(path: Path, code: str, raw: Any) -> Category:  # Any: TOML
    if not isinstance(raw, dict) or not {"zh", "en"} <= set(raw) <= {"zh", "en", "first_answer"}:
        raise InputError(f"{path}: category.{code}: expected zh, en and perhaps first_answer")
    span = raw.get("first_answer")
    hours = span.get("working_hours") if isinstance(span, dict) else None
    if span is not None and (type(hours) is not int or hours < 1 or len(span) != 1):
        raise InputError(f"{path}: category.{code}: first_answer: expected {{working_hours = 4}}")
    return Category(code, raw["zh"], raw["en"], hours)

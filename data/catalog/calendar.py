"""Working days of a country, told by dated notices; and the earliest possible ones where no notice has come yet.

One TOML file per notice (`data/calendars/cn-2026.toml`): days off, weekend days made working days, and the days that
a statute fixes. A year without `off` and `work` is *unpublished*: only its statutory days are known.

* A notice also moves the last days of the year before it: from 16 December on, a year is not final until the next
  notice is loaded. That happened at the end of 2007, 2011, 2018, 2022 and 2023.
* Where a day is not final the deadline is *provisional*, the earliest possible: a statutory day does not work, Monday
  to Friday work, a weekend day within 14 days of a statutory one may be made a working day and counts as one. When the
  notice comes the deadline can only move later. "Every weekday works" would not be the earliest.
* The day of the event is not counted and the last day ends at 24:00 in the calendar's zone (Civil Code of China,
  Art. 201, 203).

A calendar is data with a digest, handed in; nothing here reads a clock.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property, lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fangxin.data.errors import InputError

SETTLED_UNTIL = (12, 15)  # month and day up to which a published year is final while the next is not
NEAR = timedelta(days=14)  # of a statutory day: all 123 days made up in 2008-2026 were nearer than that
_DAY = timedelta(days=1)
_KEYS = frozenset({"year", "zone", "off", "work", "statutory", "notice"})


@dataclass(frozen=True)
class Notice:
    """What is known of one year: the notice's title where it was published, its days, and the file's SHA-256."""

    year: int
    title: str | None
    off: frozenset[date] = field(repr=False)
    work: frozenset[date] = field(repr=False)
    statutory: frozenset[date] = field(repr=False)
    digest: str

    @property
    def published(self) -> bool:
        """Whether the notice has come."""
        return self.title is not None


@dataclass(frozen=True)
class Due:
    """A deadline: `day` is its last day, `moment` the first instant after it (UTC), which is already too late."""

    day: date
    moment: datetime
    provisional: bool
    calendar: str  # digest of the calendar it was counted by


@dataclass(frozen=True)
class Calendar:
    """The working days of one country over the years that are loaded."""

    name: str
    zone: str
    notices: Mapping[int, Notice]

    @classmethod
    def load(cls, folder: Path, name: str, *, newer: Path | None = None) -> Calendar:
        """Read every NAME-YYYY.toml of a folder; InputError names file, key, what was expected and found.

        A file of a `newer` folder, which need not be there, takes the place of the one of the same name.
        Years must follow one another without a hole, and published ones must come first.
        """
        notices: dict[int, Notice] = {}
        zones: dict[str, Path] = {}
        files = {path.name: path for path in folder.glob(f"{name}-*.toml")}
        files |= {path.name: path for path in newer.glob(f"{name}-*.toml")} if newer else {}
        for _name, path in sorted(files.items()):
            notice, zone = _read(path)
            notices[notice.year] = notice
            zones.setdefault(zone, path)
        if not notices:
            raise InputError(f"{folder}: no calendar {name}-YYYY.toml", hint="name another folder, or add the files")
        if len(zones) > 1:
            raise InputError(f"{folder}: calendar {name} has several zones: {', '.join(sorted(zones))}", hint="use one")
        years = sorted(notices)
        for year in range(years[0], years[-1]):
            if year not in notices:
                raise InputError(
                    f"{folder}: calendar {name} has a hole: {name}-{year}.toml is missing",
                    hint="add the file; a year without a notice has its statutory days alone",
                )
        late = [y for y in years if notices[y].published and any(not notices[b].published for b in years if b < y)]
        if late:
            raise InputError(
                f"{folder}: {name}-{late[0]}.toml is published, an earlier year is not",
                hint="add `off`, `work` and the notice's title to the earlier one",
            )
        return cls(name, next(iter(zones)), notices)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the digests of its files, oldest first."""
        return hashlib.sha256("".join(self.notices[y].digest for y in sorted(self.notices)).encode()).hexdigest()

    def as_of(self, year: int) -> Calendar:
        """The calendar before the notice for `year` had come: that year and later ones have statutory days only."""
        kept = {
            y: one if y < year else Notice(y, None, frozenset(), frozenset(), one.statutory, one.digest)
            for y, one in self.notices.items()
        }
        return Calendar(self.name, self.zone, kept)

    # ------------------------------------------------------------ days

    def final(self, day: date) -> bool:
        """Whether the notices that can still move the day are all here."""
        one = self._year(day)
        if not one.published:
            return False
        following = self.notices.get(day.year + 1)
        return (day.month, day.day) <= SETTLED_UNTIL or (following is not None and following.published)

    def works(self, day: date) -> bool:
        """Whether it is a working day; where the day is not final, whether it might be one."""
        if self.final(day):
            if day in self._off:
                return False
            return day in self._work or day.weekday() < 5
        if day in self._statutory:
            return False
        if day.weekday() < 5:
            return True
        return any(day + n * _DAY in self._statutory for n in range(-NEAR.days, NEAR.days + 1))

    def deadline(self, event: datetime, days: int) -> Due:
        """The end of the `days`-th working day after an instant (aware); InputError beyond the loaded years."""
        if event.tzinfo is None:
            raise InputError("a deadline starts at an instant with a zone; found one without")
        if days < 1:
            raise InputError(f"a deadline is at least one working day away; found {days}")
        zone = ZoneInfo(self.zone)
        day, left, certain = event.astimezone(zone).date(), days, True
        while left:
            day += _DAY
            certain = certain and self.final(day)
            left -= self.works(day)
        return Due(day, end_of(day, zone), not certain, self.digest)

    def between(self, start: datetime, end: datetime) -> int:
        """Working days from the day after `start` to the day of `end`, both included."""
        zone = ZoneInfo(self.zone)
        first, last = start.astimezone(zone).date(), end.astimezone(zone).date()
        return sum(self.works(first + n * _DAY) for n in range(1, (last - first).days + 1))

    def _year(self, day: date) -> Notice:
        one = self.notices.get(day.year)
        if one is None:
            raise InputError(
                f"calendar {self.name} does not reach {day.year}; it has {min(self.notices)} to {max(self.notices)}",
                hint=f"add {self.name}-{day.year}.toml; while there is no notice, with its statutory days alone",
            )
        return one

    @cached_property
    def _off(self) -> frozenset[date]:
        return frozenset().union(*(one.off for one in self.notices.values()))

    @cached_property
    def _work(self) -> frozenset[date]:
        return frozenset().union(*(one.work for one in self.notices.values()))

    @cached_property
    def _statutory(self) -> frozenset[date]:
        return frozenset().union(*(one.statutory for one in self.notices.values()))


def end_of(day: date, zone: ZoneInfo) -> datetime:
    """24:00 of a local day, in UTC."""
    following = day + _DAY
    return datetime(following.year, following.month, following.day, tzinfo=zone).astimezone(UTC)


def _read(path: Path) -> tuple[Notice, str]:
    return _parsed(path, path.read_bytes())


@lru_cache(maxsize=256)  # some sixteen years a country, asked for by every command and every request of a night
def _parsed(path: Path, body: bytes) -> tuple[Notice, str]:
    try:
        found = tomllib.loads(body.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not TOML in UTF-8: {error}", hint="see cn-2026.toml for an example") from None
    unknown = sorted(set(found) - _KEYS)
    if unknown:
        raise InputError(f"{path}: unknown key {unknown[0]}; expected one of {', '.join(sorted(_KEYS))}")
    year = found.get("year")
    if type(year) is not int or not path.name.endswith(f"-{year}.toml"):
        raise InputError(f"{path}: year: expected the one of the file's name; found {year!r}")
    zone = found.get("zone")
    if not isinstance(zone, str) or not _is_zone(zone):
        raise InputError(f'{path}: zone: expected Area/City; found "{zone}"')
    notice = found.get("notice", {})
    title = notice.get("title") if isinstance(notice, dict) else None
    published = {"off", "work"} & set(found)
    if bool(title) != (len(published) == 2):
        raise InputError(
            f"{path}: a published year has off, work and notice.title; this one has "
            f"{', '.join(sorted(published | ({'notice.title'} if title else set()))) or 'none of them'}",
        )
    days = {key: _days(path, key, found.get(key, [])) for key in ("off", "work", "statutory")}
    if not days["statutory"]:
        raise InputError(f"{path}: statutory: expected the days that a statute fixes; found none")
    both = days["off"] & days["work"]
    if both:
        raise InputError(f"{path}: {min(both)} stands in off and in work")
    earliest, latest = date(year - 1, *SETTLED_UNTIL), date(year, 12, 31)
    for key, some in days.items():
        for day in sorted(some):
            if not earliest < day <= latest or (key == "statutory" and day.year != year):
                raise InputError(f"{path}: {key}: {day} is no day that the notice for {year} can set")
    weekdays = [day for day in sorted(days["work"]) if day.weekday() < 5]
    if weekdays:
        raise InputError(f"{path}: work: {weekdays[0]} is a weekday; only weekend days are made up")
    return Notice(year, title, days["off"], days["work"], days["statutory"], hashlib.sha256(body).hexdigest()), zone


def _days(path: Path, key: str, found: object) -> frozenset[date]:
    if not isinstance(found, Sequence) or not all(type(one) is date for one in found):
        raise InputError(f"{path}: {key}: expected a list of dates such as 2026-10-01")
    if len(set(found)) != len(found):
        raise InputError(f"{path}: {key}: a day stands twice")
    return frozenset(found)


def _is_zone(name: str) -> bool:
    if not re.fullmatch(r"[A-Z][A-Za-z_]+(/[A-Z][A-Za-z_]+)+", name):
        return False
    try:
        ZoneInfo(name)
    except ZoneInfoNotFoundError:
        return False
    return True

"""Periods of reports: a month, a quarter, a year, or any range of whole days; UTC, both ends included."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Self

from fangxin.data.errors import InputError

_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Period:
    """From the first day to the last; `id` names it in files and in the ledger."""

    first: date
    last: date

    @classmethod
    def of(cls, first: str, last: str) -> Self:
        """Read two ISO dates; InputError where they are none, or the wrong way round."""
        try:
            found = cls(date.fromisoformat(first), date.fromisoformat(last))
        except ValueError:
            raise InputError("--from and --to: expected two dates such as 2026-11-01 and 2026-11-30") from None
        if found.first > found.last:
            raise InputError("--from lies after --to", hint="the first day, then the last; both are included")
        return found

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `id` wrote; InputError for anything else."""
        if re.fullmatch(r"[0-9]{4}", text):
            return cls(date(int(text), 1, 1), date(int(text), 12, 31))
        if match := re.fullmatch(r"([0-9]{4})-(0[1-9]|1[0-2])", text):
            return cls(*_months(int(match[1]), int(match[2]), 1))
        if match := re.fullmatch(r"([0-9]{4})-Q([1-4])", text):
            return cls(*_months(int(match[1]), 3 * int(match[2]) - 2, 3))
        first, dashes, last = text.partition("--")
        if not dashes:
            raise InputError("a period: expected 2026-11, 2026-Q4, 2026 or 2026-11-01--2026-11-15")
        return cls.of(first, last)

    @property
    def id(self) -> str:
        """`2026-11`, `2026-Q4`, `2026`, else `2026-11-01--2026-11-15`."""
        year, month = self.first.year, self.first.month
        if self == (Period(date(year, 1, 1), date(year, 12, 31))):
            return f"{year:04d}"
        if self == Period(*_months(year, month, 1)):
            return f"{year:04d}-{month:02d}"
        if month % 3 == 1 and self == Period(*_months(year, month, 3)):
            return f"{year:04d}-Q{(month + 2) // 3}"
        return f"{self.first.isoformat()}--{self.last.isoformat()}"

    @property
    def kind(self) -> str:
        """What it is a period of: reports of one kind follow each other."""
        return re.sub("[0-9]+", "9", self.id)

    @property
    def days(self) -> int:
        """How many days it has."""
        return (self.last - self.first).days + 1

    def has(self, minute: str) -> bool:
        """Whether a moment as the ledger writes it lies within."""
        return self.first.isoformat() <= minute[:10] <= self.last.isoformat()

    def contains(self, other: Period) -> bool:
        """Whether all days of another lie within."""
        return self.first <= other.first and other.last <= self.last

    def parts(self) -> list[Period]:
        """Its days, weeks from Monday, or months: at most 31 bars for a chart."""
        if self.days > 92:
            return [p for p in _cut(self, lambda d: _months(d.year, d.month, 1)[1])]
        if self.days > 14:
            return [p for p in _cut(self, lambda d: d + _DAY * (6 - d.weekday()))]
        return [Period(day, day) for day in (self.first + n * _DAY for n in range(self.days))]

    @property
    def label(self) -> str:
        """A short name for a bar."""
        if self.id.count("-") == 1 and "Q" not in self.id:
            return self.id
        return f"{self.first.month}/{self.first.day}"


def _months(year: int, month: int, count: int) -> tuple[date, date]:
    after = month + count
    return date(year, month, 1), date(year + (after - 1) // 12, (after - 1) % 12 + 1, 1) - _DAY


def _cut(period: Period, end: object) -> list[Period]:
    found, day = [], period.first
    while day <= period.last:
        last = min(end(day), period.last)  # type: ignore[operator]  # a function of a date
        found.append(Period(day, last))
        day = last + _DAY
    return found

"""When a law wants something done: each jurisdiction counts in its own way, and we aim at the earlier day.

cn  the day after the event is the first (Civil Code 201); a month ends on the same date or at the month's end (202);
    an end on a day off moves to the next working day (203)
eu  the same (Regulation 1182/71, Art. 3)
uk  the day of receipt is the first (ICO): a month ends on the corresponding date or at the month's end; moves
us  calendar days begin with the day of receipt, business days with the day after; nothing moves

`target` is what we promise ourselves: the day before it is moved, and for days off that we have no list of, as if there
were none. `legal` is where the law ends. Both are the first instant after the last day, in UTC. Drafts count like law.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from fangxin.data.catalog.calendar import Calendar, end_of
from fangxin.data.catalog.law import Deadline, Period
from fangxin.data.errors import InputError

_DAY = timedelta(days=1)
_MOVES = frozenset({"cn", "eu", "uk", "br"})
_FROM_RECEIPT = frozenset({"us"})
_UNIT = {"day": "D", "month": "M", "year": "Y"}


@dataclass(frozen=True)
class LegalDue:
    """One deadline of one law, counted for one event."""

    id: str
    target: datetime
    legal: datetime
    provisional: bool
    draft: bool
    confidence: str
    derivation: str  # how it was counted, in words that hold no person


def due(
    deadline: Deadline, event: datetime, *, zone: str, calendars: Mapping[str, Calendar], extended: bool = False
) -> LegalDue:
    """Count one deadline from an instant (aware); `calendars` by name, those that we have lists of days off for.

    InputError for a working day of China without its calendar, an event without a zone, or an extension that the
    law does not know.
    """
    if event.tzinfo is None:
        raise InputError("a deadline starts at an instant with a zone; found one without")
    if extended and deadline.extended is None:
        raise InputError(f"{deadline.id} knows no extension")
    amount = deadline.extended if extended and deadline.extended else deadline.within
    here = ZoneInfo(zone)
    calendar = calendars.get(deadline.calendar)
    how = f"{amount} {deadline.unit} from {event.astimezone(here).date()} ({deadline.calendar})"
    if deadline.unit == "hour":
        end = event.astimezone(UTC) + timedelta(hours=amount)
        return LegalDue(deadline.id, end, end, False, deadline.draft, deadline.confidence, how)
    if deadline.unit == "working_day":
        return _working(deadline, event, amount, here, calendar, how)
    start = event.astimezone(here).date()
    last = Period(amount, _UNIT[deadline.unit]).after(start)
    target = last - _DAY if deadline.calendar in _FROM_RECEIPT and deadline.unit == "day" else last
    moved, certain = last, True
    if deadline.calendar in _MOVES:
        while not _works(moved, calendar):
            moved += _DAY
        certain = calendar is None or calendar.final(moved)
    return LegalDue(
        deadline.id, end_of(target, here), end_of(moved, here), not certain, deadline.draft, deadline.confidence, how
    )


def _working(
    deadline: Deadline, event: datetime, days: int, here: ZoneInfo, calendar: Calendar | None, how: str
) -> LegalDue:
    if deadline.calendar == "cn":
        if calendar is None:
            raise InputError(f"{deadline.id} counts working days of China; its calendar is not loaded")
        found = calendar.deadline(event, days)
        moment, provisional = found.moment, found.provisional
    else:  # weekdays alone: a holiday that we do not subtract only makes us earlier
        day, left = event.astimezone(here).date(), days
        while left:
            day += _DAY
            left -= day.weekday() < 5
        moment, provisional = end_of(day, here), False
    return LegalDue(deadline.id, moment, moment, provisional, deadline.draft, deadline.confidence, how)


def _works(day: date, calendar: Calendar | None) -> bool:
    """Whether the law's period may end on the day; without a list of days off, whether it is a weekday."""
    return day.weekday() < 5 if calendar is None else calendar.works(day)

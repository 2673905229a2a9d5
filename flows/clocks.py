"""The clocks of a request: what was promised until when, by which calendar, and whether it was kept.

A promise is a file with a version and a digest (`data/promises/*.toml`); each becomes one row per request, with the
laws' own deadlines beside it. Pure: time and calendars are handed in.

* A deadline is counted once, at the starting event, and stored with the calendar's digest. A provisional one is
  counted again when its notice comes, and may only move later; the date that was told first stays beside it.
* A law's clock runs from receipt, also while we verify. Where the law knows a longer period for a notice with
  reasons, that is given inside the first one, once.
* A clock never pauses in silence: every suspended span has a reason, and is shown.
* Kept means met before the deadline; a breach is for ever, also when the thing is done later.
* Alarms stand at 50, 80 and 100 % of the time between start and deadline.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from fangxin.data.catalog.calendar import Calendar
from fangxin.data.catalog.deadlines import due as legally_due
from fangxin.data.catalog.law import Deadline, Law, Laws
from fangxin.data.errors import InputError, NotAllowed

RIGHT: Final = "regret"
ALARMS: Final = (50, 80, 100)  # per cent of the time
_NAMES: Final = ("review", "start", "done", "regret", "first_answer", "report")
_UNITS: Final = ("working_days", "hours", "days", "months")


@dataclass(frozen=True)
class Span:
    """How long: an amount of one unit."""

    amount: int
    unit: str


@dataclass(frozen=True)
class Promise:
    """What the operator promises: P1 review, P2 start, P3 done, P4 regret, P6 first answer, P7 report."""

    name: str
    version: int
    zone: str
    seal_at: time  # local: sealing waits for it, within P2, so that regret ends early in a day
    spans: Mapping[str, Span]
    digest: str

    @classmethod
    def load(cls, path: Path) -> Promise:
        """Read a promise file strictly; InputError names key, what was expected and found."""
        body = path.read_bytes()
        try:
            found: dict[str, Any] = tomllib.loads(body.decode("utf-8"))  # Any: TOML
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not TOML in UTF-8: {error}") from None
        expected = {"version", "zone", "seal_at", *_NAMES}
        for key in sorted(set(found) ^ expected):
            raise InputError(f"{path}: {'unknown' if key in found else 'missing'} key {key}", hint="see lecard.toml")
        spans = {}
        for name in _NAMES:
            span = found[name]
            if not isinstance(span, dict) or len(span) != 1 or next(iter(span)) not in _UNITS:
                raise InputError(f"{path}: {name}: expected one of {', '.join(_UNITS)}, as in {{hours = 24}}")
            unit, amount = next(iter(span.items()))
            if type(amount) is not int or amount < 1:
                raise InputError(f"{path}: {name}: expected a whole number above 0; found {amount!r}")
            spans[name] = Span(amount, unit)
        if spans["regret"].unit != "hours" or spans["start"].unit != "hours":
            raise InputError(f"{path}: regret and start are counted in hours, so that they end at an instant")
        if type(found["version"]) is not int or not isinstance(found["seal_at"], time):
            raise InputError(f"{path}: expected version as a number and seal_at as a local time such as 00:05:00")
        return cls(
            path.stem, found["version"], found["zone"], found["seal_at"], spans, hashlib.sha256(body).hexdigest()
        )

    @property
    def regret(self) -> timedelta:
        """The days to change one's mind, as a span of hours."""
        return timedelta(hours=self.spans["regret"].amount)

    def seal_from(self, approved: datetime) -> datetime:
        """When to seal: at the next `seal_at` in the promise's zone, never later than P2."""
        local = approved.astimezone(ZoneInfo(self.zone))
        tonight = datetime.combine(local.date(), self.seal_at, tzinfo=ZoneInfo(self.zone))
        if tonight <= local:
            tonight = datetime.combine(local.date() + timedelta(days=1), self.seal_at, tzinfo=ZoneInfo(self.zone))
        latest = approved + timedelta(hours=self.spans["start"].amount)
        return min(tonight, latest).astimezone(UTC)

    def seals_now(self, moment: datetime) -> bool:
        """Whether it is the hour of sealing: the one that begins at `seal_at`."""
        local = moment.astimezone(ZoneInfo(self.zone))
        begins = datetime.combine(local.date(), self.seal_at, tzinfo=ZoneInfo(self.zone))
        return begins <= local < begins + timedelta(hours=1)


@dataclass(frozen=True)
class Suspended:
    """A span in which a clock did not run, and why (a code of our list)."""

    reason: str
    since: datetime
    until: datetime | None = None


@dataclass(frozen=True)
class Clock:
    """One row: `deadline` is the first instant that is too late, in UTC."""

    name: str
    started: datetime
    deadline: datetime
    zone: str
    source: str  # digest of the promise, or "law/rule"
    calendar: str | None = None  # digest of the calendar, where days were counted
    provisional: bool = False
    draft: bool = False
    met: datetime | None = None
    suspended: tuple[Suspended, ...] = ()
    days: int | None = None  # working days that were counted, where they were
    first: datetime | None = None  # the deadline that was told first, where it has moved
    extended: str | None = None  # why it was lengthened: a code
    by: str = "promise"  # whose it is: the operator's promise or a law
    ends: str = "closed"  # what keeps a law's: see data/catalog/law.py

    def used(self, now: datetime) -> float:
        """The share of its time that is used up, suspended spans left out; 1.0 at the deadline."""
        end = self.met or now
        return (end - self.started - self.paused(end)) / (self.deadline - self.started - self.paused(end))

    def paused(self, now: datetime) -> timedelta:
        """How long it stood still until now."""
        spans = (min(s.until or now, now) - s.since for s in self.suspended if s.since < now)
        return sum(spans, timedelta())

    def alarm(self, now: datetime) -> int | None:
        """The highest alarm that is due, in per cent; None before the first, and once it was met in time."""
        if self.met is not None and not self.breached(now):
            return None
        return max((a for a in ALARMS if self.used(now) * 100 >= a), default=None)

    def breached(self, now: datetime) -> bool:
        """Whether it was not met in time: for ever, once it is so."""
        return (self.met or now) >= self.deadline

    def broken(self, now: datetime) -> bool:
        """Whether a duty was not kept; the days of regret are a right of the person, and nothing of ours to break."""
        return self.name != RIGHT and self.breached(now)

    def done(self, now: datetime) -> Clock:
        """The clock, met; the first time counts."""
        return self if self.met is not None else replace(self, met=now)

    def suspend(self, reason: str, now: datetime) -> Clock:
        """Stand still from now on; NotAllowed without a reason, twice at once, or after it was met."""
        if not reason or self.met is not None or any(s.until is None for s in self.suspended):
            raise NotAllowed(f"clock {self.name}: cannot be suspended now", hint="give a reason, once at a time")
        return replace(self, suspended=(*self.suspended, Suspended(reason, now)))

    def go_on(self, now: datetime) -> Clock:
        """Run again; the deadline moves by the time that it stood still."""
        if not self.suspended or self.suspended[-1].until is not None:
            raise NotAllowed(f"clock {self.name}: is not suspended")
        last = self.suspended[-1]
        ended = (*self.suspended[:-1], replace(last, until=now))
        return replace(self, suspended=ended, deadline=self.deadline + (now - last.since))

    def recount(self, calendar: Calendar) -> Clock:
        """Count a provisional deadline again under a newer calendar; it may only move later, and says from when."""
        if not self.provisional or self.days is None or self.met is not None:
            return self
        found = calendar.deadline(self.started, self.days)
        moved = max(self.deadline, found.moment + self.paused(self.deadline))
        first = self.first or (self.deadline if moved != self.deadline else None)
        return replace(self, deadline=moved, calendar=found.calendar, provisional=found.provisional, first=first)

    def extend(self, deadline: datetime, reason: str, now: datetime) -> Clock:
        """Run until a later deadline that the law allows; NotAllowed twice, after it was met, or after the first."""
        if not reason or self.extended is not None or self.met is not None or now >= self.deadline:
            raise NotAllowed(
                f"clock {self.name}: cannot be lengthened now", hint="once, with a reason, inside the first period"
            )
        later = max(self.deadline, deadline + self.paused(now))
        return replace(self, deadline=later, extended=reason, first=self.first or self.deadline)


def promised(name: str, promise: Promise, started: datetime, calendar: Calendar) -> Clock:
    """The clock of one promise from its starting event (an instant with a zone)."""
    span = promise.spans[name]
    if span.unit == "working_days":
        found = calendar.deadline(started, span.amount)
        return Clock(
            name, started, found.moment, promise.zone, promise.digest, found.calendar,
            provisional=found.provisional, days=span.amount,
        )  # fmt: skip
    days = {"hours": timedelta(hours=1), "days": timedelta(days=1), "months": timedelta(days=28)}[span.unit]
    return Clock(name, started, started + span.amount * days, promise.zone, promise.digest)


def lawful(law: Law, event: str, started: datetime, calendars: Mapping[str, Calendar]) -> list[Clock]:
    """The clocks that a law starts with an event; each ends at our target, the earlier day."""
    return [_of_law(law, one, started, calendars) for one in law.deadlines if one.start == event]


def lengthened(clock: Clock, laws: Laws, calendars: Mapping[str, Calendar], reason: str, now: datetime) -> Clock:
    """A law's clock with the longer period that the law allows; InputError for one that knows none."""
    name, _, rule = clock.source.partition("/")
    if clock.by != "law":
        raise InputError(f"clock {clock.name} is the operator's promise: nothing lengthens it")
    law = laws.law(name)
    deadline = next((one for one in law.deadlines if one.id == rule), None)
    if deadline is None or deadline.extended is None:
        raise InputError(f"clock {clock.name}: its law knows no longer period")
    longer = legally_due(deadline, clock.started, zone=_zone(law), calendars=calendars, extended=True)
    return clock.extend(longer.target, reason, now)


def _of_law(law: Law, deadline: Deadline, started: datetime, calendars: Mapping[str, Calendar]) -> Clock:
    one = legally_due(deadline, started, zone=_zone(law), calendars=calendars)
    known = calendars.get(deadline.calendar)
    counted = deadline.unit == "working_day" and known is not None  # else our target does not follow days off
    return Clock(
        one.id, started, one.target, _zone(law), f"{law.name}/{one.id}", known.digest if known else None,
        provisional=one.provisional and counted, draft=one.draft, days=deadline.within if counted else None,
        by="law", ends=deadline.ends,
    )  # fmt: skip


def _zone(law: Law) -> str:
    return law.zone if "/" in law.zone else "Asia/Shanghai"


def gap(sealed: datetime, promise: Promise, calendar: Calendar) -> timedelta:
    """The time that is left to erase in: from the end of regret to the end of P3."""
    return promised("done", promise, sealed, calendar).deadline - (sealed + promise.regret)

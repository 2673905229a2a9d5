"""Alarms: what the clocks of all closings have to say tonight, each thing once.

    alarm      at 50, 80 and 100 % of a clock's time: in the closing's history, and in the answer of run-due
    breach     at 100 %: in the ledger as well, for ever, also when the thing is done later
    recount    a provisional date is counted again when a newer calendar is here: only ever later, and never in
               silence: the history has both dates, and the status shows the first one beside the one that stands

Days of regret are a right and no duty of ours: their clock raises nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from fangxin.data.closures.store import Closure
from fangxin.data.errors import InputError
from fangxin.flows.clocks import ALARMS, RIGHT, Clock, lengthened
from fangxin.flows.desk import Desk, breaches, renamed, request_of
from fangxin.flows.plainly import code, officer


@dataclass(frozen=True)
class Alarm:
    """A clock of a closing has used up so many per cent of its time; at 100 it is broken."""

    closure: str
    clock: str
    percent: int


def sound(desk: Desk) -> list[Alarm]:
    """Raise every alarm that is due and was not raised yet, and count provisional dates again."""
    found: list[Alarm] = []
    desk.load_calendars()
    pressing = desk.closures.many(desk.closures.pressing(desk.now, ALARMS))
    with desk.together(pressing):
        for closure in pressing:
            closure = _recounted(desk, closure)
            due = _due(desk, closure)
            if due:
                found += _raised(desk, closure, due)
    return found


def extend(desk: Desk, closure: Closure, name: str, reason: str, by: str) -> Closure:
    """Lengthen a law's clock, inside its first period and once; the reason is told to the person and kept.

    InputError for a clock that it does not have, or whose law knows no longer period.
    """
    officer(by)
    code(reason, "--reason")
    running = desk.clocks(closure)
    if name not in running:
        raise InputError(f"closure {closure.id} has no clock {name}", hint=f"it has {', '.join(sorted(running))}")
    longer = lengthened(running[name], desk.estate.laws, desk.calendars, reason, desk.now)
    body = {"clock": name, "reason": reason, "until": _day(longer.deadline)}
    return desk.write(closure, renamed(request_of(closure)), "extended", desk.now, by=by, body=body, clocks=[longer])


def _due(desk: Desk, closure: Closure) -> list[tuple[Clock, int]]:
    raised = desk.closures.alarmed(closure.id)
    running = [c for c in desk.clocks(closure).values() if c.met is None and c.name != RIGHT]
    return [(c, at) for c in running if (at := c.alarm(desk.now) or 0) > raised.get(c.name, 0)]


def _raised(desk: Desk, closure: Closure, due: Sequence[tuple[Clock, int]]) -> list[Alarm]:
    broken = [one.name for one, at in due if at == 100]
    body = {"alarms": [[one.name, at] for one, at in due]}
    entries = breaches(broken) if closure.sealed is not None else []
    clocks = [one for one, _at in due]
    desk.write(
        closure, renamed(request_of(closure)), "alarm", desk.now, by="system", body=body, clocks=clocks, entries=entries
    )
    return [Alarm(closure.id, one.name, at) for one, at in due]


def _recounted(desk: Desk, closure: Closure) -> Closure:
    moved = []
    for one in desk.clocks(closure).values():
        calendar = next((c for c in desk.calendars.values() if c.zone == one.zone), None)
        if calendar is not None and (again := one.recount(calendar)) != one:
            moved.append((one, again))
    if not moved:
        return closure
    body = {"dates": [[was.name, _day(was.deadline), _day(now.deadline)] for was, now in moved]}
    clocks = [now for _was, now in moved]
    return desk.write(
        closure, renamed(request_of(closure)), "recounted", desk.now, by="system", body=body, clocks=clocks
    )


def _day(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")

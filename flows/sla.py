"""How promises were kept, over every closing there ever was: counts, percentiles, and what was broken.

A percentile is the nearest rank: the smallest value that so many per cent of the kept clocks do not pass. Hours run
from the clock's start to the moment it was kept, suspended spans left out. Broken stays broken, also when the thing
was done later; the days of regret are a right and can be ended early, never broken.

Memory: twelve bytes a kept clock, and a line for each broken one.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from fangxin.flows.clocks import Clock

SHOWN: Final = (50, 90, 99, 100)
_HOUR = timedelta(hours=1)


@dataclass
class _Counted:
    by: str
    running: int = 0
    met: int = 0
    breached: int = 0
    provisional: int = 0
    hours: array[float] = field(default_factory=lambda: array("d"))
    used: array[float] = field(default_factory=lambda: array("f"))


def figures(clocks: Iterable[tuple[str, Clock]], now: datetime) -> dict[str, Any]:  # Any: JSON
    """Counts and percentiles by clock, and the broken ones; `clocks` are (closure, clock)."""
    found: dict[str, _Counted] = {}
    breaches = []
    for closure, one in clocks:
        counted = found.setdefault(one.name, _Counted(one.by))
        over = one.broken(now)
        counted.breached += over
        counted.running += one.met is None and not over
        counted.met += one.met is not None and not over
        counted.provisional += one.provisional
        if one.met is not None:
            counted.hours.append((one.met - one.started - one.paused(one.met)) / _HOUR)
            counted.used.append(one.used(now) * 100)
        if over:
            met = one.met.strftime("%Y-%m-%dT%H:%M:%SZ") if one.met else None
            deadline = one.deadline.strftime("%Y-%m-%dT%H:%M:%SZ")
            breaches.append({"closure": closure, "promise": one.name, "deadline": deadline, "met": met})
    return {"clocks": [_told(name, one) for name, one in sorted(found.items())], "breaches": breaches}


def percentile(values: Sequence[float], percent: int) -> float:
    """The nearest rank among sorted values; ValueError for none."""
    if not values:
        raise ValueError("no percentile of nothing")
    return values[max(0, -(-len(values) * percent // 100) - 1)]


def _told(name: str, one: _Counted) -> dict[str, Any]:
    counts = {k: getattr(one, k) for k in ("by", "running", "met", "breached", "provisional")}
    kept: dict[str, Any] = {"hours": None, "used": None}
    if one.hours:
        for what, values in (("hours", sorted(one.hours)), ("used", sorted(one.used))):
            kept[what] = {f"p{p}": round(percentile(values, p), 2) for p in SHOWN}
    return {"name": name, **counts, **kept}

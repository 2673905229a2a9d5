"""The vault's own clock: what a caller says of the time ends no seal, no waiting hour and no day of a cap.

Two sources have to agree: CLOCK_REALTIME, which can be set, and CLOCK_BOOTTIME, which counts suspended time and which
nobody sets. The first batch of a boot notes both; from then on they move together, or the vault refuses (ClockJumped).
From one boot to the next only the first goes on, and it never goes back.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from fangxin.data.errors import NotAllowed
from fangxin.data.keys.grant import stamp

SLACK = timedelta(minutes=10)  # what a correction of the clock may amount to in one boot
NOTE = "clock"


class ClockJumped(NotAllowed):
    """The machine's clock was set: what depends on days that have gone by cannot be decided."""


class Moment(NamedTuple):
    """One look at both sources: the time, which boot it is, and seconds since that boot."""

    now: datetime
    boot: str
    since: float


def look() -> Moment:
    """Both sources of this machine, now."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return Moment(datetime.now(UTC), boot, time.clock_gettime(time.CLOCK_BOOTTIME))


def agreed(moment: Moment, noted: bytes | None) -> bytes:
    """What to note after a look that fits what was noted before; ClockJumped if it does not fit."""
    if noted is None:
        return _note(moment, moment.now)
    kept = json.loads(noted)
    first, last = Moment(_time(kept["now"]), kept["boot"], kept["since"]), _time(kept["last"])
    if moment.boot == first.boot:
        jumped = (moment.now - first.now) - timedelta(seconds=moment.since - first.since)
        if abs(jumped) > SLACK:
            raise ClockJumped(
                f"the machine's clock was set by {abs(jumped)} since it started: keys are destroyed by no such clock",
                hint="set it right; if it was wrong before and is right now, restart the machine",
            )
        return _note(first, max(last, moment.now))
    if moment.now < last - SLACK:
        raise ClockJumped(
            f"the machine's clock says {stamp(moment.now)}, the vault was last written at {stamp(last)}",
            hint="set the clock right",
        )
    return _note(moment, max(last, moment.now))


def _note(first: Moment, last: datetime) -> bytes:
    said = {"now": first.now.timestamp(), "boot": first.boot, "since": first.since, "last": last.timestamp()}
    return json.dumps(said).encode()


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)

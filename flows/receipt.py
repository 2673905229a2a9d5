"""What a receipt code shows: how a closing stands, in the words of the person whose account it is, also after the end.

A code is compared by its digest. A wrong one gets the same answer whatever there is, a mistyped one is told so from its
check character alone, and after ten wrong ones in a minute nothing is looked up any more for a while.

Steps have dates, not durations: what is done with its moment, what is ahead with the latest instant at which it is due
if everything before it takes as long as it may.
"""

from __future__ import annotations

import hmac
import tomllib
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from fangxin.data.closures.attempts import Attempts
from fangxin.data.closures.store import Closure
from fangxin.data.errors import InputError
from fangxin.data.keys.domains import INDEX
from fangxin.data.keys.envelope import ref_of
from fangxin.data.requests import receipt_digest
from fangxin.flows.clocks import Clock, promised
from fangxin.flows.desk import Desk, request_of
from fangxin.flows.lifecycle import Request, State

_TEXTS = Path(__file__).resolve().parents[1] / "data" / "receipt.toml"
_STOPPED = (State.CANCELLED, State.REJECTED, State.EXPIRED, State.RESTORED)
_AFTER_SEAL = (State.DESTROYING, State.OVERWRITING, State.VALIDATING, State.STALLED)
_OVER = (State.CERTIFIED, State.RESTRICTED, State.CLOSED)


@cache
def texts() -> Mapping[str, Mapping[str, Mapping[str, str]]]:
    """Group -> name -> language -> sentence, from `data/receipt.toml`."""
    found: dict[str, dict[str, dict[str, str]]] = tomllib.loads(_TEXTS.read_text("utf-8"))
    return found


def by_code(desk: Desk, code: str, *, source: str) -> Closure:
    """The closing of a receipt code that came from somewhere (an address, a console).

    InputError, in the same words, for a code that is nobody's; NotAllowed while too many wrong ones come from there.
    """
    digest = receipt_digest(code)
    attempts, place = Attempts(desk.closures.engine), _place(desk, source)
    attempts.allow(place, desk.now)
    try:
        return desk.closures.by_receipt(digest)
    except InputError:
        attempts.wrong(place, desk.now)
        raise


def steps(desk: Desk, closure: Closure) -> list[dict[str, Any]]:  # Any: JSON
    """The steps of a closing with their dates, in both languages.

    `state`: done | now | ahead | stopped; `at`: when it was done; `by`: the first instant that is too late.
    """
    request, clocks = request_of(closure), desk.clocks(closure)
    ended = closure.facts.get("restoring", {}).get("at") if request.state is State.RESTORED else None
    found = []
    latest = closure.opened
    reached = True
    for name, clock, at in _dated(desk, closure, request, clocks):
        latest = clock.deadline if clock is not None else latest
        if at is not None:
            found.append(_step(desk, name, "done", at=at, by=latest if clock else None, clock=clock))
        elif request.state in _STOPPED:
            break
        else:
            found.append(_step(desk, name, "now" if reached else "ahead", by=latest, clock=clock))
            reached = False
    if request.state in _STOPPED:
        moment = datetime.fromisoformat(ended) if ended else request.entered
        found.append(_step(desk, "stopped", "stopped", at=moment))
    return found


def says(request: Request) -> dict[str, str]:
    """What the state means, by language."""
    return dict(texts()["state"].get(request.state.value) or texts()["public"][request.public.value])


# ---------------------------------------------------------------- inside


def _dated(
    desk: Desk, closure: Closure, request: Request, clocks: Mapping[str, Clock]
) -> list[tuple[str, Clock | None, datetime | None]]:
    """Each step with its clock, the one it will have at the latest where it has not begun, and when it was done."""
    review = clocks.get("review") or promised("review", desk.promise, closure.opened, desk.calendar)
    reviewed = review.met or max(review.deadline, desk.now)  # who is late already counts from now on
    start = clocks.get("start") or promised("start", desk.promise, reviewed, desk.calendar)
    sealed = start.met or max(start.deadline, desk.now)
    regret = clocks.get("regret") or promised("regret", desk.promise, sealed, desk.calendar)
    done = clocks.get("done") or promised("done", desk.promise, sealed, desk.calendar)
    gone = request.state in _STOPPED
    over = request.state in _OVER
    approved = "start" in clocks
    sealed_at = clocks["regret"].started if "regret" in clocks else None
    regret_at = regret.met if regret.met and not gone else None
    return [
        ("received", None, closure.opened),
        ("review", review, review.met if approved else None),
        ("seal", start, sealed_at),
        ("regret", regret, regret_at if request.state in (State.READY, *_AFTER_SEAL, *_OVER) else None),
        ("erase", done, done.met if over else None),
        ("certificate", done, done.met if over else None),
    ]


def _step(
    desk: Desk,
    name: str,
    state: str,
    *,
    at: datetime | None = None,
    by: datetime | None = None,
    clock: Clock | None = None,
) -> dict[str, Any]:
    late = clock is not None and name != "regret" and clock.breached(desk.now)
    words = "late" if late and state == "now" else state
    if name == "regret":
        words = "regret_done" if state == "done" else "regret"
    told = {}
    for locale in ("zh", "en"):
        dates = {
            "at": _local(at, desk.promise.zone, locale) if at else "",
            "by": _local(by, desk.promise.zone, locale) if by else "",
        }
        sentence = texts()["when"]["done" if words == "stopped" else words][locale].format(**dates)
        if clock is not None and clock.provisional and state != "done":
            sentence += texts()["when"]["provisional"][locale].format(**dates)
        told[locale] = f"{texts()['step'][name][locale]}{'：' if locale == 'zh' else ': '}{sentence}"
    return {"step": name, "state": state, "at": _iso(at), "by": _iso(by), "late": late, "says": told}


def _local(moment: datetime, zone: str, locale: str) -> str:
    """A moment as the person reads it; midnight is the end of the day before, as laws count."""
    here = moment.astimezone(ZoneInfo(zone))
    clock = f"{here:%H:%M}"
    if (here.hour, here.minute) == (0, 0):
        here, clock = here - timedelta(days=1), "24:00"
    if locale == "zh":
        return f"{here.year}年{here.month}月{here.day}日 {clock}"
    return f"{here.day} {here:%B %Y} {clock}"


def _place(desk: Desk, source: str) -> str:
    ref = ref_of("fangxin", "accounts")
    desk.estate.tree.ensure([ref], INDEX)
    return hmac.new(desk.estate.tree.get(ref, INDEX), b"attempt" + source.encode(), "sha256").hexdigest()


def _iso(moment: datetime | None) -> str | None:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None

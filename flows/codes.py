"""The restore code at the counter: who shows it acts for the holder, and nobody tries codes for long.

Five wrong ones lock a closing for an hour, and every verified channel of the person hears of it. Each try is an event
of the closing, written over the version that was read *before* anything is compared: tries that run at the same time,
on whichever node, count one by one, and a crash forgets none. A code that is only mistyped is told so by its check
character and costs no try.

While it is locked, and for whoever lost the code, the other way stays open: two officers who answer (`request cases`,
`keys answer`). The days to change one's mind do not stop for a lock.
"""

from __future__ import annotations

import hmac
from datetime import datetime, timedelta
from typing import Any, Final

from fangxin.data.closures.store import Closure
from fangxin.data.errors import NotAllowed
from fangxin.data.keys.seal import public_of
from fangxin.flows.desk import LOCKED, Desk, renamed, request_of

WRONG: Final = 5  # so many wrong codes lock a closing
FOR: Final = timedelta(hours=1)
_OFFICERS = "two officers bring it back without the code: `fangxin request cases`, `fangxin keys answer`"


def proved(desk: Desk, closure: Closure, code: str) -> Closure:
    """The closing as it stands once its restore code was shown; the tries begin anew.

    InputError, and no try is counted, for a code that is mistyped. NotAllowed for a wrong one, and for any code while
    the closing is locked; Overtaken where somebody else moved it, and nothing was compared.
    """
    shown = public_of(code)
    before, until = standing(closure)
    if until is not None and desk.now < until:
        raise NotAllowed(_locked(until), hint=f"wait until then; or {_OFFICERS}")
    wrong = before + 1 if until is None else 1
    ends = desk.now + FOR if wrong >= WRONG else None  # stands before the comparison: no crash unlocks it
    closure = _noted(desk, closure, "code_tried", wrong, ends)
    if hmac.compare_digest(shown, desk.opened(closure).restore):
        return _noted(desk, closure, "code_proved", 0, None)
    if ends is None:
        left = WRONG - wrong
        raise NotAllowed(
            f"the restore code is not the one of this closing; {left} more {'tries' if left > 1 else 'try'}",
            hint=f"look at the print; or {_OFFICERS}",
        )
    entry: dict[str, int | str] = {"type": "exception", "code": "restore_code_locked", "role": "system"}
    again = renamed(request_of(closure))
    desk.write(closure, again, "code_locked", desk.now, by="system", entries=[(LOCKED + closure.version, entry)])
    raise NotAllowed(_locked(ends), hint=f"every channel was told; wait until then, or {_OFFICERS}")


def standing(closure: Closure) -> tuple[int, datetime | None]:
    """How many wrong codes in a row were shown, and until when no code is taken (also once that is past)."""
    noted: dict[str, Any] = closure.facts.get("code") or {}
    until = noted.get("locked")
    return noted.get("tries", 0), datetime.fromisoformat(until) if until else None


def tries(closure: Closure, now: datetime) -> dict[str, Any]:
    """The same for an answer: tries that are left, and until when none is taken. Any: JSON."""
    wrong, until = standing(closure)
    if until is None or now >= until:
        return {"tries_left": WRONG if until else WRONG - wrong, "locked_until": None}
    return {"tries_left": 0, "locked_until": until.strftime("%Y-%m-%dT%H:%M:%SZ")}


def _noted(desk: Desk, closure: Closure, name: str, wrong: int, until: datetime | None) -> Closure:
    noted = {"code": {"tries": wrong, "locked": until.isoformat() if until else None}}
    return desk.write(closure, renamed(request_of(closure)), name, desk.now, by="holder", facts=noted)


def _locked(until: datetime) -> str:
    return f"the restore code was wrong {WRONG} times: no code is taken before {until:%Y-%m-%dT%H:%M:%SZ}"

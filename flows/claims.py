"""Unclaimed money: what cannot be paid as it was meant to be is kept under the receipt code, and claimed with it.

It becomes unclaimed when the provider will never pay it (the account is closed, the card is gone), when nothing is
known to pay it to, when what was in escrow lost its instrument with the erasure, or when it arrives afterwards (a
merchant's refund, a cash-back). What is kept is a sum under the digest of a code: nothing of a person.

* Whoever has the receipt code claims it to an instrument of theirs, the provider's token; we use it once, in memory.
* A claim that nobody heard the end of is looked up at the provider; what was not paid is voided there and can be
  claimed again. So it is paid once, whatever happens.
* The law's own clock (Civil Code 188: three years) is shown with it; afterwards an officer decides, and until one did
  a claim is honoured. It is never revenue in silence.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

from fangxin.data.closures.outbox import UNPAID, Connector, Row
from fangxin.data.closures.store import Closure, Message
from fangxin.data.errors import InputError, NotAllowed, Unavailable
from fangxin.flows.desk import Desk, renamed, request_of
from fangxin.flows.lifecycle import State
from fangxin.flows.payments import Provider, connector
from fangxin.flows.receipt import by_code
from fangxin.flows.refund import Money

YEARS: Final = 3
GROUND: Final = "cn/civil-code-188"
TEXT: Final = {
    "zh": "无法原路退回的款项凭回执码领取，不转为收入；依《民法典》第一百八十八条，自知道之日起三年。",
    "en": "What cannot be paid back is claimed with the receipt code and never becomes revenue; "
    "Civil Code of the PRC, Art. 188: three years from knowing of it.",
}
_STOPPED = (State.RESTORED, State.CANCELLED, State.REJECTED)


@dataclass(frozen=True)
class Unclaimed:
    """What stands under a receipt code, since when, and until when by the law's clock."""

    sums: tuple[Money, ...]
    since: datetime
    until: datetime


def unclaimed(desk: Desk, closure: Closure) -> Unclaimed | None:
    """What of a closing nobody could be paid; None where there is nothing."""
    books = desk.closures.books(closure.id)
    sums = tuple(Money(a["unclaimed"], c) for c, a in sorted(books.items()) if a.get("unclaimed"))
    if not sums:
        return None
    first = desk.outbox.since(closure.id), desk.closures.first(closure.id, "arrived")
    since = min((one for one in first if one is not None), default=closure.opened)
    return Unclaimed(sums, since, ends(since, desk.promise.zone))


def ends(since: datetime, zone: str) -> datetime:
    """When the law's clock of unclaimed money ends: the same local date three years later, or the month's last day."""
    local = since.astimezone(ZoneInfo(zone))
    day = 28 if (local.month, local.day) == (2, 29) else local.day
    return local.replace(year=local.year + YEARS, day=day)


def claim(desk: Desk, code: str, instrument: str) -> dict[str, str]:
    """Pay everything unclaimed under a receipt code to an instrument; what became of each currency.

    NotAllowed where nothing is unclaimed or nobody pays here; Unavailable where the provider gave no answer: what it
    did is looked up by `run-due`, and nothing is lost or paid twice.
    """
    if not instrument:
        raise InputError("a claim names the provider's token to pay to", hint="--to @FILE")
    closure = by_code(desk, code, source="console")
    there = unclaimed(desk, closure)
    if there is None:
        raise NotAllowed("nothing is unclaimed under this code")
    if desk.provider is None:
        raise NotAllowed("nobody pays here yet", hint="HOME/payments.toml names the provider; docs/payments.md")
    made = []
    postings: list[tuple[str, str, str, int]] = []
    for money in there.sums:
        key = hashlib.sha256(f"{closure.id}|claim|{money.currency}|{closure.version}".encode()).hexdigest()
        body = {"fate": "claim", "minor": money.minor, "currency": money.currency}
        made.append(Message(key, "claim", body, desk.now))
        postings += [(f"claim-{key}", "unclaimed", money.currency, -money.minor)]
        postings += [(f"claim-{key}", "owed", money.currency, money.minor)]
    desk.write(
        closure, renamed(request_of(closure)), "claimed", desk.now, by="holder", messages=made, postings=postings
    )
    pays = connector(desk.provider, lambda _row: instrument, lambda _row: "")
    found = {}
    for one in made:
        row = desk.outbox.take(one.key, "claim", desk.now)
        done = desk.outbox.carry([row], {"claim": pays}, desk.now)
        said = desk.outbox.answer(one.key) or ""
        found[str(one.body["currency"])] = "paid" if done else said.removeprefix(UNPAID)
    if "" in found.values():
        raise Unavailable("the provider gave no answer", hint="`fangxin run-due` asks it what it did; claim again then")
    return found


def arrived(desk: Desk, closure_id: str, money: Money, reference: str) -> Closure:
    """Note money that came in for somebody who is gone or going; the same reference is noted once."""
    if money.minor <= 0:
        raise InputError("what arrives is more than nothing")
    closure = desk.closures.get(closure_id)
    if request_of(closure).state in _STOPPED:
        raise NotAllowed("this account was not closed: it receives what arrives by itself")
    entry = "arrived-" + hashlib.sha256(f"{closure_id}|{reference}".encode()).hexdigest()
    if desk.closures.posted(entry):
        raise NotAllowed("this was noted before", hint="each arrival has a reference of its own")
    rows = [(entry, "wallet", money.currency, -money.minor), (entry, "unclaimed", money.currency, money.minor)]
    return desk.write(closure, renamed(request_of(closure)), "arrived", desk.now, by="system", postings=rows)


def payer(desk: Desk, provider: Provider) -> Connector:
    """How rows that pay are carried out by run-due: with the instrument of their item, while it is known."""

    def instrument(row: Row) -> str:
        closure = desk.closures.get(row.closure)
        if row.kind == "claim" or closure.sealed is None:
            return ""
        return dict(desk.opened(closure).instruments).get(row.body["item"], "")

    def stop(row: Row) -> str:
        closure = desk.closures.get(row.closure)
        if request_of(closure).state in _STOPPED:
            return "wallet"
        return "unclaimed" if row.kind == "claim" or closure.sealed is None else ""

    return connector(provider, instrument, stop)

"""Months of a shop in a loop: requests every working day, officers who come and go, and run-due twice a day.

Everything is the product's own (desk, closures store, vault with seals, ledger, batches, certificates) but the
people, the clock and the bank, which are ours. The bank fails, hangs and answers twice, and pays once a key. What
becomes of a request is drawn from a seed: most go through on their own, some are signed by officers, are of high risk,
are cancelled, or come back by the restore code.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from process.shop import Shop, make

from fangxin.data.closures.outbox import Refused, Row
from fangxin.data.closures.store import Closure
from fangxin.data.closures.tickets import OPEN, Tickets
from fangxin.data.errors import FangxinError
from fangxin.data.keys.approval import Approval
from fangxin.data.requests import receipt_digest
from fangxin.data.vocabulary import Identity
from fangxin.flows import closing, holds, looks, tickets
from fangxin.flows.closing import Opened
from fangxin.flows.desk import Desk, at_desk, clock_of
from fangxin.flows.ending import lapses, run_due
from fangxin.flows.estate import alone, open_estate
from fangxin.flows.settlement import Choice
from fangxin.flows.sla import figures
from fangxin.reports.period import Period
from fangxin.reports.periodic import gather

START = datetime(2026, 3, 2, tzinfo=UTC)  # 08:00 in Shanghai, a Monday
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@dataclass
class Bank:
    """A far side that pays once a key, whatever it is asked how often; a tenth of the calls fail in some way."""

    chance: random.Random
    paid: dict[str, int] = field(default_factory=dict)
    calls: int = 0

    def pay(self, row: Row) -> str:
        """Pay, or refuse for now, or pay and have the answer lost."""
        self.calls += 1
        luck = self.chance.random()
        if luck < 0.05:
            raise Refused("busy")
        self.paid.setdefault(row.key, int(row.body["minor"]))
        if luck < 0.10:
            raise Refused("timeout")
        return f"paid-{row.key[:8]}"


@dataclass
class Months:
    """What came of it."""

    shop: Shop
    bank: Bank
    states: Counter[str]
    sla: dict[str, Any]  # Any: JSON
    books: dict[str, dict[str, int]]
    errors: list[str]
    seconds: dict[str, float]  # CPU by what was done
    days: int
    store_bytes: int
    ledger_entries: int
    tickets: int
    late_answers: int
    public: Counter[str]  # what the public report counts as exceptions, by code
    known: Counter[str]  # the same, as the store of closings has it

    @property
    def requests(self) -> int:
        """How many there were."""
        return sum(self.states.values())

    def wrong(self) -> list[str]:
        """What is not as it has to be: requests that are stuck, money that is lost or doubled, broken promises."""
        ended = ("certified", "restricted", "closed", "cancelled", "rejected", "expired", "restored")
        found = [f"{n} requests are stuck in {state}" for state, n in self.states.items() if state not in ended]
        for currency, accounts in self.books.items():
            if sum(accounts.values()):
                found.append(f"the books of {currency} sum to {sum(accounts.values())}")
            if accounts.get("owed"):
                found.append(f"{accounts['owed']} {currency} are still owed")
            paid = sum(self.bank.paid.values())
            if accounts.get("paid", 0) != paid:
                found.append(f"the bank paid {paid}, the books say {accounts.get('paid', 0)}")
        if self.public != self.known:
            found.append(f"the public report counts {dict(self.public)}, there were {dict(self.known)}")
        found += [f"{self.late_answers} tickets were answered late or never"] if self.late_answers else []
        found += [f"{c['name']} was broken {c['breached']} times" for c in self.sla["clocks"] if c["breached"]]
        found += [f"{c['name']} still runs {c['running']} times" for c in self.sla["clocks"] if c["running"]]
        return found


@dataclass
class _Way:
    """What becomes of a request; `held` days ago a legal hold was put on it."""

    id: str
    restore: str
    what: str
    held: int = 0
    lapses: bool = False


def _cpu(seconds: dict[str, float]) -> str:
    return ", ".join(f"{name} {spent:.0f} s" for name, spent in sorted(seconds.items()))


def simulate(
    root: Path,
    *,
    requests: int,
    a_day: int,
    seed: int = 1,
    paper: str = "request",
    lapsing: int = 0,
    nightly: bool = False,
    progress: Callable[[str], object] = lambda _line: None,
) -> Months:
    """Open so many requests, so many each day, and go on until nothing is under way; FANGXIN_HOME has to be set.

    `lapsing` of each day's people give up their coupon. `nightly`: run-due comes once a day, and officers sign on the
    second day, so that everybody of a day is sealed and erased in the same night.
    """
    chance = random.Random(seed)
    shop = make(root, number=requests + 20, now=START)
    os.environ["FANGXIN_HOME"] = str(shop.home)
    settings = shop.home / "fangxin.toml"
    settings.write_text(settings.read_text("utf-8").replace('paper = "request"', f'paper = "{paper}"'), "utf-8")
    officers = {
        n: load_pem_private_key((shop.root / "keys" / f"{n}.key").read_bytes(), None) for n in ("dpo_1", "dpo_2")
    }
    bank, errors, seconds = Bank(chance), list[str](), dict[str, float]()
    ways: list[_Way] = []
    people = iter(chance.sample(range(1, requests + 20), requests))
    day, left = START, requests
    while True:
        with _timed(seconds, "run_due"):
            errors += _night(shop, bank, day.replace(hour=16, minute=10) - DAY)
        if left:
            with _desk(shop, day + HOUR) as desk:
                ways += _opened(desk, [next(people) for _n in range(min(a_day, left))], chance, seconds, lapsing)
                left = max(0, left - a_day)
        with _timed(seconds, "officers"):
            _officers(shop, day + 3 * HOUR, ways, officers, wait=2 * DAY if nightly else timedelta())
        with _timed(seconds, "run_due"):
            errors += [] if nightly else _night(shop, bank, day + 4 * HOUR + timedelta(minutes=10))
        day += DAY
        progress(f"{day:%Y-%m-%d}: {requests - left} of {requests} taken in; {_cpu(seconds)}")
        if not left and not _under_way(shop, day):
            break
        if day > START + timedelta(days=requests / a_day + 60):
            break
    return _sums(shop, bank, day, errors, seconds)


def _opened(
    desk: Desk, people: list[int], chance: random.Random, seconds: dict[str, float], lapsing: int
) -> list[_Way]:
    """A day's arrivals: taken in together, planned together; who will cancel is never planned."""
    whats = [next(w for w, upto in _LUCK if luck < upto) for luck in (chance.random() for _one in people)]
    asked = [
        closing.Asked(
            (Identity("phone_number", f"139{person:08d}"),),
            "session",
            ("new_device",) if what == "risky" else (),
            laws=("pipl", "gdpr"),
        )
        for person, what in zip(people, whats, strict=True)
    ]
    with _timed(seconds, "open"):
        made = closing.open_closures(desk, asked)
    for one in made:
        if isinstance(one, Opened) and chance.random() < _ASKING:
            digest = receipt_digest(one.receipt)
            category = "complaint" if chance.random() < 0.5 else "question"
            tickets.open_ticket(desk, digest, category, "When?", role=tickets.Role.WEB, locale="en", mask=False)
    ways = [_Way(one.id, one.restore, what) for one, what in zip(made, whats, strict=True) if isinstance(one, Opened)]
    assert len(ways) == len(people), [one for one in made if not isinstance(one, Opened)]
    for way in [one for one in ways if one.what == "alone"][:lapsing]:
        (seen,) = looks.look(desk, [desk.opened(desk.closures.get(way.id))])
        assert isinstance(seen, looks.Look)
        coupon = next(item.id for item in seen.items if item.kind == "coupon")
        closing.make_plan(desk, way.id, [Choice(coupon, "lapse", tick=True)])
        way.lapses = True
    planned = desk.closures.many([one.id for one in ways if one.what != "cancelled" and not one.lapses])
    with _timed(seconds, "plan"):
        refused = {c: e for c, e in closing.make_plans(desk, planned).items() if isinstance(e, FangxinError)}
    assert not refused, refused
    return ways


_LUCK = (("alone", 0.68), ("signed", 0.82), ("risky", 0.88), ("held", 0.90), ("cancelled", 0.94), ("restored", 1.0))
_ASKING = 0.03  # so many open a ticket on their first day


def _officers(
    shop: Shop, now: datetime, ways: list[_Way], officers: Any, *, wait: timedelta
) -> None:  # Any: private keys
    """Officers sign what has waited so long for them; people cancel, or come back on the third day."""
    with _desk(shop, now) as desk:
        for ticket in Tickets(desk.closures.engine).standing(OPEN):
            if ticket.opened < now - 12 * HOUR:
                tickets.answer_ticket(desk, ticket.id, "By the date on your receipt page.", mask=False)
        for way, closure in zip(list(ways), desk.closures.many([one.id for one in ways]), strict=True):
            if way.what == "held":
                if not _held(desk, way, closure, officers):
                    continue
            elif way.what == "cancelled":
                closing.cancel(desk, way.id)
            elif (
                way.what in ("signed", "risky")
                and closure.state == "review"
                and now - closure.opened >= wait - 3 * HOUR
            ):
                grant = closing.paper(desk, way.id)
                names = list(officers) if way.what == "risky" else ["dpo_1"]
                signed = [Approval.sign(grant, officer=n, key=officers[n], now=desk.now - 2 * HOUR) for n in names]
                closing.approve(desk, way.id, signed)
            elif way.what == "restored" and closure.state == "cooling":
                if desk.now < (closing.request_of(closure).regret_ends or desk.now) - 4 * DAY:
                    continue
                closing.restore(desk, way.id, code=way.restore)
            elif way.what != "alone":
                continue
            ways.remove(way)


def _held(desk: Desk, way: _Way, closure: Closure, officers: Any) -> bool:  # Any: private keys
    """Two officers hold a sealed account for a matter, and lift that two days later; whether it is over."""
    if closure.state != "cooling" and not way.held:
        return False
    way.held += 1
    if way.held in (1, 3):
        given = holds.Asked("court", lift=way.held == 3)
        grant = holds.paper(desk, way.id, given)
        signed = [Approval.sign(grant, officer=n, key=officers[n], now=desk.now - 2 * HOUR) for n in officers]
        holds.hold(desk, way.id, given, signed)
    return way.held == 3


def _night(shop: Shop, bank: Bank, now: datetime) -> list[str]:
    with _desk(shop, now) as desk, alone(shop.home):
        done = run_due(desk, connectors={"payout": bank.pay}, options={"now": now.isoformat()})
    return [f"{now:%m-%d} {type(e).__name__}: {e.message}" for e in done.errors]


@contextmanager
def _desk(shop: Shop, now: datetime) -> Iterator[Desk]:
    with at_desk(open_estate(shop.home, shop.root / "catalog", now)) as desk:
        yield desk


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    before = time.process_time()
    try:
        yield
    finally:
        seconds[name] = seconds.get(name, 0.0) + time.process_time() - before


def _under_way(shop: Shop, now: datetime) -> bool:
    states = ("draft", "submitted", "preflight", "review", "sealing", "cooling", "ready", "destroying", "overwriting",
              "validating", "stalled")  # fmt: skip
    with _desk(shop, now) as desk:
        return bool(desk.closures.in_state(*states))


def _sums(shop: Shop, bank: Bank, now: datetime, errors: list[str], seconds: dict[str, float]) -> Months:
    from fangxin.flows.lifecycle import State

    with _desk(shop, now) as desk:
        states: Counter[str] = Counter()
        for state in State:
            if found := len(desk.closures.in_state(state.value)):
                states[state.value] = found
        rows = ((closure, clock_of(row["name"], row)) for closure, row in desk.closures.every_clock())
        sla = figures(rows, desk.now)
        books = desk.closures.books()
        entries = desk.estate.ledger.size
        asked = Tickets(desk.closures.engine).all()
        told = gather(desk.estate.ledger.entries(), Period.parse("2026"))
        public = Counter(str(one["code"]) for one in told.entries if one["type"] == "exception")
        known = Counter(f"complaint/{one.category}" for one in asked if one.category in tickets.COMPLAINTS)
        for closure in desk.closures.many(desk.closures.in_state("certified", "restricted", "closed")):
            known.update(str(entry["code"]) for _place, entry in lapses(closure))
        public = Counter({code: n for code, n in public.items() if not code.startswith(("hold/", "lifted/"))})
    late = sum(one.answered is None or one.answered >= one.due for one in asked)
    files = [p for p in shop.home.glob("closures.db*") if p.is_file()]
    days = (now - START).days
    return Months(
        shop,
        bank,
        states,
        sla,
        books,
        errors,
        seconds,
        days,
        sum(p.stat().st_size for p in files),
        entries,
        len(asked),
        late,
        public,
        known,
    )

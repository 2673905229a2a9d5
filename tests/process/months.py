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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from process.shop import Shop, make

from fangxin.data.closures.outbox import Refused, Row
from fangxin.data.keys.approval import Approval
from fangxin.data.vocabulary import Identity
from fangxin.flows import closing
from fangxin.flows.desk import Desk, at_desk, clock_of
from fangxin.flows.ending import run_due
from fangxin.flows.estate import alone, open_estate
from fangxin.flows.sla import figures

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
        found += [f"{c['name']} was broken {c['breached']} times" for c in self.sla["clocks"] if c["breached"]]
        found += [f"{c['name']} still runs {c['running']} times" for c in self.sla["clocks"] if c["running"]]
        return found


@dataclass
class _Way:
    """What becomes of a request."""

    id: str
    restore: str
    what: str


def simulate(root: Path, *, requests: int, a_day: int, seed: int = 1) -> Months:
    """Open so many requests, so many each day, and go on until nothing is under way; FANGXIN_HOME has to be set."""
    chance = random.Random(seed)
    shop = make(root, number=requests + 20, now=START)
    os.environ["FANGXIN_HOME"] = str(shop.home)
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
                for _n in range(min(a_day, left)):
                    ways.append(_opened(desk, next(people), chance, seconds, officers))
                left = max(0, left - a_day)
        with _timed(seconds, "officers"):
            _officers(shop, day + 3 * HOUR, ways, officers)
        with _timed(seconds, "run_due"):
            errors += _night(shop, bank, day + 4 * HOUR + timedelta(minutes=10))
        day += DAY
        if not left and not _under_way(shop, day):
            break
        if day > START + timedelta(days=requests / a_day + 60):
            break
    return _sums(shop, bank, day, errors, seconds)


def _opened(desk: Desk, person: int, chance: random.Random, seconds: dict[str, float], officers: Any) -> _Way:
    luck = chance.random()
    what = next(w for w, upto in _LUCK if luck < upto)
    risk = ["new_device"] if what == "risky" else []
    with _timed(seconds, "open"):
        made = closing.open_closure(
            desk, [Identity("phone_number", f"139{person:08d}")], level="session", risk=risk, laws=("pipl", "gdpr")
        )
    if what != "cancelled":
        with _timed(seconds, "plan"):
            closing.make_plan(desk, made.id)
    return _Way(made.id, made.restore, what)


_LUCK = (("alone", 0.70), ("signed", 0.84), ("risky", 0.90), ("cancelled", 0.94), ("restored", 1.0))


def _officers(shop: Shop, now: datetime, ways: list[_Way], officers: Any) -> None:  # Any: private keys
    """Officers sign what waits for them; people cancel, or come back on the third day."""
    with _desk(shop, now) as desk:
        for way in list(ways):
            closure = desk.closures.get(way.id)
            if way.what == "cancelled":
                closing.cancel(desk, way.id)
            elif way.what in ("signed", "risky") and closure.state == "review":
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
    files = [p for p in shop.home.glob("closures.db*") if p.is_file()]
    days = (now - START).days
    return Months(shop, bank, states, sla, books, errors, seconds, days, sum(p.stat().st_size for p in files), entries)

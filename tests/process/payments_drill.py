"""Drill: 300 refunds to a provider that misbehaves, by a worker that is killed 24 times with SIGKILL: 300 payments.

Once on SQLite and once on a real PostgreSQL. The provider is a server of its own; a fifth of its first answers are
lost, late, doubled or refused. A worker is killed when the provider has been called a random number of times more, so
that it dies before, during and after a call. Prints what it counted; exit 1 where a payment is missing or wrong.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from process import bank as banks
from process.bank import Bank

from fangxin.data.closures.outbox import LEASE, Outbox
from fangxin.data.closures.store import Change, Closures, Message, Told
from fangxin.flows.payments import at, connector

REFUNDS, KILLS = 300, 24
NOW = datetime(2026, 11, 27, 2, tzinfo=UTC)
FAULTS = ("down", "lost", "late", "slow", "twice")


def owe(url: str) -> int:
    """A closing that owes 300 refunds of different amounts; the sum in minor units."""
    store = Closures(url)
    rows = [Message(f"k-{n}", "payout", {"minor": 100 + n, "currency": "CNY"}, NOW) for n in range(REFUNDS)]
    owed = [(f"o-{n}", a, "CNY", m) for n in range(REFUNDS) for a, m in (("wallet", -100 - n), ("owed", 100 + n))]
    change = Change("ready", {}, Told("system", "x"), messages=rows, postings=owed)
    store.open("c", receipt="r", account="a", ref=b"r" * 16, digests={}, change=change, now=NOW)
    store.engine.dispose()
    return sum(100 + n for n in range(REFUNDS))


def worker(url: str, bank: str, now: datetime) -> int:
    """Fork a worker that pays whatever is due at an instant; its process id."""
    child = os.fork()
    if child:
        return child
    try:
        box = Outbox(Closures(url).engine)
        pays = connector(at(bank, "secret", rehearsal=True, timeout=0.15), lambda row: f"t-{row.key}", lambda _row: "")
        while rows := box.claim(f"w-{os.getpid()}", now, most=20):
            box.carry(rows, {"payout": pays}, now)
    finally:
        os._exit(0)


def killed(bank: Bank, child: int, chance: random.Random) -> bool:
    """Kill a worker after some more calls; False where it ended by itself before."""
    target = sum(bank.calls.values()) + chance.randrange(1, 16)
    while sum(bank.calls.values()) < target:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.0005)
    time.sleep(chance.random() * 0.004)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def drill(url: str, seed: int) -> bool:
    """One whole run; prints its counts."""
    chance, kills, now = random.Random(seed), 0, NOW
    wanted = owe(url)
    with banks.running() as bank:
        bank.faults = {f"k-{n}": [chance.choice(FAULTS)] for n in range(REFUNDS) if chance.random() < 0.2}
        while kills < KILLS:
            kills += killed(bank, worker(url, bank.url, now), chance)
            now += LEASE + timedelta(seconds=1)
        for _ in range(12):
            os.waitpid(worker(url, bank.url, now), 0)
            now += timedelta(hours=2)
        store = Closures(url)
        books, left = store.books()["CNY"], Outbox(store.engine).open()
        store.engine.dispose()
        per_key = Counter(key for key, _minor in bank.payments)
        print(
            f"{url.split(':', 1)[0]}: {len(bank.payments)} payments of {REFUNDS}, most of one key "
            f"{max(per_key.values())}, sum {bank.sum} of {wanted}, killed {kills} times, calls {dict(bank.calls)}, "
            f"books {books}, left {left}"
        )
        return (
            len(bank.payments) == len(per_key) == REFUNDS
            and bank.sum == wanted == books["paid"]
            and not books.get("owed")
            and not left
        )


def main() -> int:
    """Both databases."""
    from process.postgres import database, server

    with tempfile.TemporaryDirectory() as folder:
        held = drill(f"sqlite:///{folder}/c.db", 1)
    started = server.__wrapped__()  # type: ignore[attr-defined]  # the fixture's own function
    try:
        held &= drill(database(next(started)), 2)
    finally:
        started.close()
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())

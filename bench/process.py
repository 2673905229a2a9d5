"""The process: requests through all of it in simulated months, on the real desk, vault, ledger, store and batches.

`python bench/process.py [REQUESTS] [A_DAY]`: default 10,000 requests, 2,500 a day, until nothing is under way. That is
how a shop of this size has it: people come all day, officers sign by day, and run-due comes once a night, seals
everybody who was approved and erases everybody whose days are over in one batch. Only the people, the clock and the
bank are made up (tests/process/months.py). It prints each simulated day as it passes, then requests a second of CPU
time, what each part of the work took, the size of the closures store and of the ledger, the peak of this process, and
every promise's percentiles; it exits 1 where a request is stuck, a cent is lost, a ticket was answered late, or a
promise was broken. Every batch is located, overwritten, searched twice, judged and packed; certificates are issued as
JSON and HTML, and their PDFs left to whoever asks (`paper = "request"`).

How long: ten thousand took 1,094 s of CPU beside other work (9.1 a second), 1.3 GiB at the peak. Opening took 5 ms a
request, planning 3, officers 9. Everybody was erased in five nights of 142, 157, 181, 134 and 179 s: each looks through
all of our own home twice, and the home grows. On a slower day of the same machine, before hits that need company were
looked at by a sorted search, it took twice as long.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from process.months import Months


def told(found: Months, cpu: float) -> int:
    """Print what came of it; 1 where something is wrong."""
    states = ", ".join(f"{v} {k}" for k, v in found.states.items())
    print(f"{found.requests} requests, {found.days} simulated days: {states}")
    print(f"CPU {cpu:.0f} s, {found.requests / cpu:.2f} requests a second of CPU: "
          + ", ".join(f"{k} {v:.0f} s" for k, v in sorted(found.seconds.items())))  # fmt: skip
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"closures store {found.store_bytes / found.requests / 1024:.1f} KiB a request, "
          f"{found.ledger_entries / found.requests:.1f} ledger entries a request, peak {peak:.0f} MiB")  # fmt: skip
    print(f"{found.tickets} tickets, {found.late_answers} answered late; "
          f"the books: {found.books}, the bank was called {found.bank.calls} times")  # fmt: skip
    for one in found.sla["clocks"]:
        hours = one["hours"] or {}
        share = one["used"]["p100"] if one["used"] else 0
        counts = f"kept {one['met']:6} broken {one['breached']:4} running {one['running']:4}"
        taken = " ".join(f"{k} {v:8.2f}" for k, v in hours.items())
        print(f"  {one['name']:24} {counts}  hours {taken}  at most {share:.0f} % of its time")
    wrong = found.wrong()
    for line in wrong:
        print(f"WRONG: {line}")
    for line in found.errors[:10]:
        print(f"told by run-due: {line}")
    return 1 if wrong else 0


def main(requests: int = 10_000, a_day: int = 2_500) -> int:
    """Run it in a temporary folder."""
    sys.path[0] = str(Path(__file__).parents[1] / "tests")  # where `process` is a package, and not this file
    warnings.filterwarnings("ignore")
    from process.months import simulate

    before = time.process_time()
    with tempfile.TemporaryDirectory(prefix="process-") as folder:
        home = Path(folder) / "shop"
        told_of = partial(print, flush=True)
        found = simulate(home, requests=requests, a_day=a_day, nightly=True, progress=told_of)
        return told(found, time.process_time() - before)


if __name__ == "__main__":
    os.environ.setdefault("TQDM_DISABLE", "1")
    raise SystemExit(main(*map(int, sys.argv[1:])))

"""Drill: the 20,000-person estate. What one person costs and what a thousand cost; whose rows changed; what is left.

    python tests/journeys/scale_drill.py [--people 20000] [--leavers 100] [--crowd 1000] [--keep DIR]

Each erasure runs in a process of its own through the command line's own plain functions; its peak memory is the
kernel's figure. Neighbours are compared by checksums that DuckDB, sqlite3 and the file formats' own readers give,
never by our stores; leavers' values are searched in every byte that these readers can open.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

LIMIT = 2 << 30  # bytes of resident memory
MASKED = {"contacts": ("contact_name", "contact_phone"), "transactions": ("memo", "device_id"), "chats": ("text",)}
ENOUGH = {"locate": 9}  # hops of the sample's catalog, the reverse pass included; every other step opens a unit once


def main() -> int:
    """Run the drill; 0 when everything held."""
    given = argparse.ArgumentParser()
    given.add_argument("--people", type=int, default=20_000)
    given.add_argument("--leavers", type=int, default=100)
    given.add_argument("--crowd", type=int, default=1_000)
    given.add_argument("--child", nargs=3, metavar=("ROOT", "FROM", "COUNT"))
    wanted = given.parse_args()
    if wanted.child:
        return child(Path(wanted.child[0]), int(wanted.child[1]), int(wanted.child[2]))
    with tempfile.TemporaryDirectory(prefix="fangxin-scale-") as folder:
        return drill(Path(folder), wanted.people, wanted.leavers, wanted.crowd)


def drill(folder: Path, people: int, leavers: int, crowd: int) -> int:
    """Make the estate once, erase from copies of it, compare."""
    from datetime import UTC, datetime

    from fangxin.data.sample.lecard import sample
    from fangxin.flows.estate import make_home, open_estate
    from fangxin.flows.protect import protect

    made = sample(folder / "whole" / "estate", people=people, seed=20)
    now = datetime(2026, 11, 24, 1, tzinfo=UTC)
    home = folder / "whole" / "home"
    make_home(home, rehearsal=True, origin="drill.invalid/erasure", now=now)
    print(f"{made.total:,} rows of {people:,} people")
    protect(open_estate(home, made.catalog, now))
    costs = []
    for count in (1, leavers, crowd):
        place = folder / f"erase {count}"
        shutil.copytree(folder / "whole", place)
        costs.append(told(place, count))
        if count == leavers:
            compare(folder / "whole", place, count)
        shutil.rmtree(place)
    openings = [one["openings"] for one in costs]
    assert all(_within(one) for one in openings), openings
    assert all(one["peak"] < LIMIT for one in costs), [one["peak"] for one in costs]
    print("scale drill: 3 passed, 0 failed")
    return 0


def told(place: Path, count: int) -> dict[str, Any]:
    """Erase `count` people in a child; print and return what it cost."""
    start = time.monotonic()
    command = [sys.executable, __file__, "--child", str(place), "0", str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    cost: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{count} people: {time.monotonic() - start:.0f} s, peak {cost['peak'] / 2**20:.0f} MiB, openings of the most "
        f"opened unit {cost['openings']}, verdicts {cost['verdicts']}, verify {cost['verify']}"
    )
    return cost


def child(place: Path, first: int, count: int) -> int:
    """Erase people of the estate at `place`; the last line printed is what it cost."""
    from datetime import UTC, datetime

    from fangxin.checks.verify import exit_code, verify
    from fangxin.data.catalog.kinds import canonical
    from fangxin.data.vocabulary import Identity
    from fangxin.flows.erase import STEPS, journey, open_batch, summary
    from fangxin.flows.estate import open_estate

    os.environ["FANGXIN_HOME"] = str(place / "home")
    now = datetime(2026, 11, 24, 1, tzinfo=UTC)
    estate = open_estate(place / "home", place / "estate" / "catalog" / "lecard.yml", now)
    people = [[Identity(k, canonical(k, v)) for k, v in one.items()] for one in leaving(place, first + count)[first:]]
    options = {"approved": True, "now": now.isoformat()}
    if count <= 100:
        options["export"] = str(place / "export")
    batch = open_batch(estate, people, options=options)
    journey(batch)
    answer = summary(place / "home", batch)
    requests = open_estate(place / "home", place / "estate" / "catalog" / "lecard.yml", now).requests
    notes = {s.__name__: requests.note(batch, s.__name__) or {} for s in STEPS[:-1]}
    openings = {name: max((note.get("opened") or {"-": 0}).values()) for name, note in notes.items()}
    verdicts: dict[str, int] = {}
    for one in answer["requests"]:
        for verdict in one["verdicts"]:
            verdicts[verdict["verdict"]] = verdicts.get(verdict["verdict"], 0) + 1
    code = exit_code(verify(answer["package"], trust=place / "home" / "keys"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"peak": peak, "openings": openings, "verdicts": verdicts, "verify": code}))
    return 0 if code == 0 and set(verdicts) <= {"ERASED", "NOT_PRESENT", "RETAINED"} else 1


def leaving(place: Path, count: int) -> list[dict[str, str]]:
    """The people of leavers.csv first, then further accounts."""
    with (place / "estate" / "leavers.csv").open(encoding="utf-8") as lines:
        found = list(csv.DictReader(lines))
    if count > len(found):
        known = {one["phone_number"] for one in found}
        with closing(sqlite3.connect(place / "estate" / "stores" / "wallet.db")) as db:
            rows = db.execute("SELECT phone, email FROM accounts ORDER BY account_id").fetchall()
        found += [{"phone_number": p, "email": e} for p, e in rows if p not in known]
    return found[:count]


def compare(before: Path, after: Path, count: int) -> None:
    """Every row of everybody else is what it was, but for masked values; nothing of the leavers is left in clear."""
    truth = json.loads((before / "estate" / "cast.json").read_text("utf-8"))["leavers"][:count]
    accounts = {a for one in truth for a in one["accounts"]}
    phones = {p for one in truth for p in one["phones"]}
    with closing(sqlite3.connect(before / "estate" / "stores" / "wallet.db")) as db:
        places = ",".join("?" * len(accounts))
        mails = {m for (m,) in db.execute(f"SELECT email FROM accounts WHERE account_id IN ({places})", [*accounts])}
    for name in ("accounts", "identities", "contacts", "coupons", "devices", "logins", "transactions", "app_events",
                 "chats", "members"):  # fmt: skip
        was, now = (checksum(root / "estate" / "stores", name, accounts) for root in (before, after))
        assert was == now, f"{name}: neighbours changed, {was} before, {now} after"
    left = remains(after / "estate" / "stores", phones | mails)
    assert not left, left
    exported = sum(1 for _ in (after / "export").rglob("*.parquet"))
    print(f"neighbours identical in 10 collections; {exported} exported files")
    print(f"nothing of {len(phones)} phones and {len(mails)} mails in any byte of any store")


def checksum(stores: Path, name: str, accounts: set[int]) -> tuple[int, int]:
    """Rows that belong to nobody of these accounts: their number, and the sum of their hashes but for masked fields."""
    import duckdb
    import pandas as pd

    with duckdb.connect() as db:
        db.register("gone", pd.DataFrame({"account_id": sorted(accounts)}))
        if name in ("transactions", "app_events"):
            source = f"read_parquet('{stores}/lake/{name}/*/*.parquet', hive_partitioning = true)"
        elif name == "chats":
            source = f"read_json('{stores}/support/*.jsonl.gz', format = 'newline_delimited')"
        elif name == "members":
            source = f"read_csv('{stores}/exports/members*.csv', all_varchar = true)"
        else:
            with closing(sqlite3.connect(stores / "wallet.db")) as wallet:
                db.register("rows_of", pd.read_sql_query(f"SELECT * FROM {name}", wallet))
            source = "rows_of"
        db.execute(f"CREATE TABLE t AS SELECT * FROM {source}")
        columns = [f'"{c}"' for (c, *_r) in db.execute("DESCRIBE t").fetchall() if c not in MASKED.get(name, ())]
        ((count, total),) = db.execute(
            f"SELECT count(*), sum(hash({', '.join(columns)})::HUGEINT) FROM t"
            " WHERE account_id IS NULL OR account_id::BIGINT NOT IN (SELECT account_id FROM gone)"
        ).fetchall()
    return count, total


def remains(stores: Path, values: set[str]) -> list[str]:
    """Where any of these values still stands: raw, gunzipped, and in decoded Parquet columns and dictionaries."""
    import pyarrow.parquet as pq
    from ahocorasick_rs import BytesAhoCorasick

    machine = BytesAhoCorasick([v.encode() for v in values])
    found = []
    for path in sorted(p for p in stores.rglob("*") if p.is_file()):
        bodies = [path.read_bytes()]
        if path.suffix == ".gz":
            bodies.append(gzip.decompress(bodies[0]))
        if path.suffix == ".parquet":
            for batch in pq.ParquetFile(path).iter_batches():
                bodies += [b for column in batch.columns for b in map(_bytes, _buffers(column)) if b]
        if any(machine.find_matches_as_indexes(body) for body in bodies):
            found.append(str(path.relative_to(stores)))
    return found


def _buffers(column: Any) -> list[Any]:
    dictionary = [column.dictionary] if hasattr(column, "dictionary") else []
    return [b for one in [column, *dictionary] for b in one.buffers() if b is not None]


def _bytes(buffer: Any) -> bytes:
    return bytes(buffer)


def _within(openings: dict[str, int]) -> bool:
    return all(n <= ENOUGH.get(step, 13 if step == "plant" else 1) for step, n in openings.items())


if __name__ == "__main__":
    sys.exit(main())

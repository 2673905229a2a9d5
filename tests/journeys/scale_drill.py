"""Drill: the 20,000-person estate. What one person costs and what a thousand cost; whose rows changed; what is left.

    python tests/journeys/scale_drill.py [--people 20000] [--leavers 100] [--crowd 1000]
    python tests/journeys/scale_drill.py --command
    python tests/journeys/scale_drill.py --people 2000 --sabotage

Each erasure runs in a process of its own through the command line's own plain functions; its peak memory is the
kernel's figure. Afterwards every row of every collection must be what scale_compare works out from the rows before,
nothing of the leavers may be found by scale_search but what the law keeps, and the certificates in the package must
list exactly the rows that were erased, kept, shared and mentioned. `--command` erases by `fangxin erase --export`, and
reads the export, too. `--sabotage` damages stores that were erased well and wants each damage to be noticed.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))

if TYPE_CHECKING:
    from journeys.scale_compare import Leaver

NOW = datetime(2026, 11, 24, 1, tzinfo=UTC)
LIMIT = 2 << 30  # bytes of resident memory
HOPS = 9  # of the sample's catalog at most, the reverse pass included
FIGURES = ("rows_erased", "rows_retained", "rows_mentioned", "rows_shared")


def main() -> int:
    """Run the drill; 0 when everything held."""
    given = argparse.ArgumentParser()
    given.add_argument("--people", type=int, default=20_000)
    given.add_argument("--leavers", type=int, default=100)
    given.add_argument("--crowd", type=int, default=1_000)
    given.add_argument("--sabotage", action="store_true", help="damage what was erased well: each must be noticed")
    given.add_argument("--command", action="store_true", help="by `fangxin erase` itself, with an export that is read")
    given.add_argument("--child", nargs=2, metavar=("ROOT", "COUNT"))
    wanted = given.parse_args()
    if wanted.child:
        return child(Path(wanted.child[0]), int(wanted.child[1]))
    with tempfile.TemporaryDirectory(prefix="fangxin-scale-") as folder:
        make(Path(folder), wanted.people)
        if wanted.sabotage:
            return sabotage(Path(folder), wanted.leavers)
        if wanted.command:
            return command(Path(folder), wanted.leavers)
        return drill(Path(folder), (1, wanted.leavers, wanted.crowd))


def make(folder: Path, people: int) -> None:
    """Make the estate once, under keys, in `whole`; `clear` has its stores from before."""
    from fangxin.data.sample.lecard import sample
    from fangxin.flows.estate import make_home, open_estate
    from fangxin.flows.protect import protect

    made = sample(folder / "whole" / "estate", people=people, seed=20)
    shutil.copytree(made.stores, folder / "clear")
    make_home(folder / "whole" / "home", rehearsal=True, origin="drill.invalid/erasure", now=NOW)
    protect(open_estate(folder / "whole" / "home", made.catalog, NOW))
    print(f"{made.total:,} rows of {people:,} people")


def drill(folder: Path, counts: Sequence[int]) -> int:
    """Erase so many people from a copy each, and examine what is there afterwards."""
    for count in counts:
        place, people = folder / "erased", leavers(folder, count)
        shutil.copytree(folder / "whole", place)
        cost = told(place, count)
        assert within(cost["openings"], cost["hops"]), cost
        assert cost["peak"] < LIMIT, cost["peak"]
        noticed = examine(folder, place, people, say=print)
        assert not any(noticed.values()), noticed
        shutil.rmtree(place)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"scale drill: {len(counts)} passed, 0 failed; the examiner's own peak was {peak:,} MiB")
    return 0


def command(folder: Path, count: int) -> int:
    """Erase so many people by the command line; the export is what locate counted, and all else as in the drill."""
    place, people = folder / "erased", leavers(folder, count)
    shutil.copytree(folder / "whole", place)
    with (place / "people.csv").open("w", encoding="utf-8", newline="") as file:
        lines = csv.DictWriter(file, ["phone_number", "email"], extrasaction="ignore")
        lines.writeheader()
        lines.writerows(seeds(place, count))
    asked = (
        f"--catalog {place}/estate/catalog --home {place}/home --subjects {place}/people.csv --export {place}/export"
    )
    fangxin = [Path(sys.executable).with_name("fangxin"), "erase", *asked.split(), "--now", NOW.isoformat()]
    done = subprocess.run([*fangxin, "--yes", "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr[-4000:])
    answer: dict[str, Any] = json.loads(done.stdout)
    judged = [v for one in answer["requests"] for v in one["verdicts"] if v["dataset"] != "fangxin"]
    verdicts = Counter(v["verdict"] for v in judged)
    print(f"fangxin erase: exit 0, {len(answer['requests'])} requests, {dict(verdicts)}")
    assert set(verdicts) == {"ERASED", "NOT_PRESENT", "RETAINED"}, verdicts
    assert all(v["canary_found"] for v in judged if v["verdict"] == "NOT_PRESENT"), "a control is missing"
    assert all(v["ground"] and v["until"] for v in judged if v["verdict"] == "RETAINED"), "no ground, or no date"
    exported(place / "export", answer["requests"])
    noticed = examine(folder, place, people, say=print)
    assert not any(noticed.values()), noticed
    print("scale drill: the command line passed, 0 failed")
    return 0


def exported(folder: Path, requests: Sequence[dict[str, Any]]) -> None:
    """Every file of the export opens in pandas and in DuckDB, with as many rows as locate found; told as a new copy."""
    files = rows = 0
    for one in requests:
        verdicts = [v for v in one["verdicts"] if v["dataset"] != "fangxin"]
        found = {f"{v['dataset']}.{v['collection']}": v["rows_found"] for v in verdicts if v["rows_found"]}
        there = sorted((folder / one["request_id"]).glob("*.parquet"))
        assert {file.stem for file in there} == set(found), found
        for file in there:
            (ours,) = duckdb.sql(f"SELECT count(*) FROM read_parquet('{file}')").fetchall()
            assert ours == (len(pd.read_parquet(file)),) == (found[file.stem],), (file.stem, ours, found[file.stem])
        certificate = Path(one["certificate"])
        told = json.loads(certificate.read_bytes())["export"]
        assert (told["files"], told["rows"]) == (len(there), sum(found.values())), told
        assert "This is a new copy" in certificate.with_suffix(".html").read_text("utf-8")
        files, rows = files + len(there), rows + sum(found.values())
    print(f"  export: {files:,} files with {rows:,} rows, as many as locate counted, in pandas and in DuckDB")


def sabotage(folder: Path, count: int) -> int:
    """Erase once; damage copies of it one way each; what is done must be noticed by whom it concerns, and only them."""
    from journeys.scale_sabotage import SABOTAGES

    place, people = folder / "erased", leavers(folder, count)
    shutil.copytree(folder / "whole", place)
    told(place, count)
    for damage, concerned in [(None, set[str]()), *SABOTAGES.items()]:
        copy = folder / "damaged"
        shutil.copytree(place, copy)
        if damage:
            damage(copy / "estate" / "stores", people)
        noticed = examine(folder, copy, people)
        print(f"{damage.__name__ if damage else 'undamaged'}: {noticed}")
        assert {name for name, found in noticed.items() if found} == concerned, noticed
        shutil.rmtree(copy)
    print(f"scale drill: {len(SABOTAGES)} sabotages noticed, 0 missed")
    return 0


# ---------------------------------------------------------------- an erasure in a process of its own


def told(place: Path, count: int) -> dict[str, Any]:
    """Erase `count` people in a child; print and return what it cost."""
    start = time.monotonic()
    command = [sys.executable, __file__, "--child", str(place), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    cost: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(
        f"\n{count} people: {time.monotonic() - start:.0f} s, peak {cost['peak'] >> 20} MiB, openings of the most"
        f" opened unit {cost['openings']}, hops {cost['hops']}, verdicts {cost['verdicts']}, verify {cost['verify']}"
    )
    return cost


def child(place: Path, count: int) -> int:
    """Erase people of the estate at `place`; the last line printed is what it cost."""
    from fangxin.checks.verify import exit_code, verify
    from fangxin.data.catalog.kinds import canonical
    from fangxin.data.vocabulary import Identity
    from fangxin.flows.erase import STEPS, journey, open_batch, summary
    from fangxin.flows.estate import open_estate

    os.environ["FANGXIN_HOME"] = str(place / "home")
    estate = open_estate(place / "home", place / "estate" / "catalog" / "lecard.yml", NOW)
    people = [[Identity(k, canonical(k, v)) for k, v in one.items()] for one in seeds(place, count)]
    options = {"approved": True, "now": NOW.isoformat()}
    if count <= 100:
        options["export"] = str(place / "export")
    batch = open_batch(estate, people, options=options)
    journey(batch)
    answer = summary(place / "home", batch)
    requests = open_estate(place / "home", place / "estate" / "catalog" / "lecard.yml", NOW).requests
    notes = {s.__name__: requests.note(batch, s.__name__) or {} for s in STEPS[:-1]}
    openings = {name: max((note.get("opened") or {"-": 0}).values()) for name, note in notes.items()}
    verdicts = Counter(
        verdict["verdict"]
        for one in answer["requests"]
        for verdict in one["verdicts"]
        if verdict["dataset"] != "fangxin"
    )
    code = exit_code(verify(answer["package"], trust=place / "home" / "keys"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    hops = notes["locate"]["hops"]
    print(json.dumps({"peak": peak, "openings": openings, "hops": hops, "verdicts": verdicts, "verify": code}))
    return 0 if code == 0 and set(verdicts) <= {"ERASED", "NOT_PRESENT", "RETAINED"} else 1


def within(openings: dict[str, int], hops: int) -> bool:
    """Whether locating opened a unit once a hop at most, the reverse pass among them, and every other step once."""
    return hops <= HOPS and all(n <= (hops if step == "locate" else 1) for step, n in openings.items())


# ---------------------------------------------------------------- who leaves


def seeds(place: Path, count: int) -> list[dict[str, str]]:
    """What the leavers are known by: the people of leavers.csv first, then further accounts."""
    with (place / "estate" / "leavers.csv").open(encoding="utf-8") as lines:
        found = list(csv.DictReader(lines))
    if count > len(found):
        known = {phone for one in portraits(place) for phone in one["phones"]}
        with closing(sqlite3.connect(place / "estate" / "stores" / "wallet.db")) as db:
            rows = db.execute("SELECT phone, email FROM accounts ORDER BY account_id").fetchall()
        found += [{"phone_number": p, "email": e} for p, e in rows if p not in known]
    return found[:count]


def portraits(place: Path) -> list[dict[str, Any]]:
    """What the generator knows of the people of leavers.csv."""
    found: list[dict[str, Any]] = json.loads((place / "estate" / "cast.json").read_text("utf-8"))["leavers"]
    return found


def leavers(folder: Path, count: int) -> list[Leaver]:
    """The same people with all that identifies them, from the generator and the stores before they were protected."""
    from journeys.scale_compare import Leaver

    accounts = {one["phone_number"]: tuple(one["accounts"]) for one in portraits(folder / "whole")}
    asked = {
        "phone": "SELECT phone FROM accounts WHERE account_id = ?",
        "e-mail": "SELECT email FROM accounts WHERE account_id = ?",
        "resident id": "SELECT id_number FROM identities WHERE account_id = ?",
        "bank card": "SELECT bank_card FROM identities WHERE account_id = ?",
        "device": "SELECT device_id FROM devices WHERE account_id = ?",
    }
    found = []
    with closing(sqlite3.connect(folder / "clear" / "wallet.db")) as db:
        whose = dict(db.execute("SELECT phone, account_id FROM accounts"))
        for one in seeds(folder / "whole", count):
            mine = accounts.get(one["phone_number"]) or (whose[one["phone_number"]],)
            values = {what: tuple({v for a in mine for (v,) in db.execute(q, (a,))}) for what, q in asked.items()}
            found.append(Leaver(mine, values))
        gone = {a for one in found for a in one.accounts}
        others = {d for d, a in db.execute("SELECT device_id, account_id FROM devices") if a not in gone}
    assert not others & {d for one in found for d in one.values["device"]}, "a device of theirs is also a neighbour's"
    return found


# ---------------------------------------------------------------- what is there afterwards


def examine(
    folder: Path, place: Path, people: Sequence[Leaver], say: Callable[[str], None] = lambda _line: None
) -> dict[str, list[str]]:
    """What is not as it must be: {"rows": what the comparison found, "bytes": the search, "papers": certificates}."""
    from journeys.scale_compare import FATES, judge, kept_rows, listed, load, outside
    from journeys.scale_search import Search, unexplained

    before, after = folder / "whole" / "estate" / "stores", place / "estate" / "stores"
    noticed: dict[str, list[str]] = {"rows": outside(before, after), "bytes": [], "papers": []}
    with load(before, people) as db:
        for name, one in judge(db, after).items():
            counts = ", ".join(f"{one.fates[fate]:,} {fate}" for fate in FATES)
            say(f"  {name}: {counts}; checksum {one.checksum:x}, {one.missing} missing, {one.strange} strange")
            if one.missing or one.strange:
                noticed["rows"].append(f"{name}: {one.missing} rows missing, {one.strange} strange")
        must, kept = listed(db), kept_rows(db)
    told = certified(place)
    noticed["papers"] += [
        f"{key}: {told[key]} certified, {must[key]} true" for key in must | told if must[key] != told[key]
    ]
    known = portraits(folder / "whole")
    if len(people) == len(known):
        true = tallied(known)
        noticed["papers"] += [f"{key}: {true[key]} of the generator" for key in must | true if must[key] != true[key]]
    sums = {figure: sum(n for (_p, _c, f), n in told.items() if f == figure) for figure in FIGURES}
    others = len(noticed["papers"])
    say(f"  certificates list {sums}; person by person and collection by collection {others} figures are otherwise")

    search = Search(people)
    found = {one.value for one in search.below(folder / "clear") if one.form == "plain"}
    noticed["bytes"] += [f"{what}: not seen even before" for v, what in search.values.items() if v not in found]
    search.bytes = 0
    left = search.below(after)
    noticed["bytes"] += unexplained(left, kept) + unexplained(search.below(place / "home"), {})
    kinds = dict(Counter(search.values.values()))
    say(f"  {len(search.values):,} values {kinds} in {len(search.needles):,} forms, {len(found):,} seen before")
    say(
        f"  {search.bytes:,} bytes of stores and home: {left.total():,} sightings left for the account ids of"
        f" {kept.total():,} rows that the law keeps, {len(noticed['bytes'])} unexplained"
    )
    return noticed


def certified(place: Path) -> Counter[tuple[int, str, str]]:
    """What the certificates in the package list, as scale_compare lists it; person n has the n-th certificate."""
    (package,) = (place / "home" / "reports").glob("package-*.zip")
    found: Counter[tuple[int, str, str]] = Counter()
    with zipfile.ZipFile(package) as archive:
        names = sorted(n for n in archive.namelist() if n.startswith("certificates/") and n.endswith(".json"))
        for number, name in enumerate(names):
            for row in json.loads(archive.read(name))["collections"]:
                found.update({(number, row["collection"], figure): row[figure] for figure in FIGURES})
    return +found


def tallied(known: Sequence[dict[str, Any]]) -> Counter[tuple[int, str, str]]:
    """The same of what the generator counted while it made the rows, if all these people leave together."""
    found: Counter[tuple[int, str, str]] = Counter()
    for number, one in enumerate(known):
        erased = Counter(one["owns"])
        erased.subtract(one["retained"])
        for figure, counts in zip(FIGURES, (erased, one["retained"], one["mentions"], one["shares"]), strict=True):
            found.update({(number, address.partition("/")[2], figure): rows for address, rows in counts.items()})
    return +found


if __name__ == "__main__":
    sys.exit(main())

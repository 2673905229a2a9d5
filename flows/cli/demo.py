"""The demo: an estate of made-up people, six of whom leave: five at once, and one through every day of a closing.

Everything runs as in earnest, through the real flows. It starts Prefect's server in the background of the first steps,
shows where each person was found and why, what was there before and is not there after, and ends with the auditor's
table and a clock that moves.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fangxin.data.errors import InputError
from fangxin.flows.cli.console import answer, say, table

NOW = "2026-11-24T09:00:00+08:00"  # rehearsal time: the sample's months end shortly before
_ROLES = {
    "two_accounts": "two accounts, linked only through a bound device",
    "household": "shares an address row with somebody who stays",
    "merged": "two accounts merged into one (self reference)",
    "cycle": "accounts, logins and devices refer in a circle",
    "mentioned": "stands in other people's contacts and chats",
}


def demo(home: Path, *, people: int, seed: int, as_json: bool) -> int:
    """Run the whole main job in `home/demo`, which is made anew; exit code of the verifier."""
    if not as_json:
        return _demo(home, people=people, seed=seed)[0]
    with contextlib.redirect_stdout(sys.stderr):  # the story goes where logs go
        code, document = _demo(home, people=people, seed=seed)
    answer(document, as_json=True, words=lambda: None)
    return code


def _demo(home: Path, *, people: int, seed: int) -> tuple[int, dict[str, Any]]:  # Any: JSON
    from fangxin.data.sample.lecard import sample
    from fangxin.flows.cli import protect as commands
    from fangxin.flows.estate import make_home
    from fangxin.flows.server import end_orphans, wake
    from fangxin.flows.settings import prepare_prefect

    started = time.monotonic()
    root = home / "demo"
    house = root / "home"
    end_orphans(house)
    _make_room(root)
    prepare_prefect(house)
    _enter(house)
    waking = wake()

    made = sample(root / "estate", people=people, seed=seed)
    say(f"1. The estate: {made.total:,} rows of {people:,} made-up people in {root / 'estate' / 'stores'}")
    table(("collection", "rows"), [(k, f"{v:,}") for k, v in sorted(made.rows.items())])

    make_home(
        house, rehearsal=True, origin="demo.invalid/erasure/2026", now=datetime.fromisoformat(NOW).astimezone(UTC)
    )
    say("\n2. ID and card numbers go under a key of each person (fangxin protect)")
    commands.protect(house, made.catalog, as_json=False)

    cast = json.loads(made.cast.read_text("utf-8"))["cast"]
    leaving = {role: cast[role] for role in _ROLES if role in cast}
    subjects = root / "people.csv"
    lines = ["phone_number,email", *(f"{p['phone_number']},{p['email']}" for p in leaving.values())]
    subjects.write_text("\n".join(lines) + "\n", "utf-8")

    say(f"\n3. {len(leaving)} of them leave. Where each is, and why")
    batch, estate = _open(house, made.catalog, subjects)
    _where(estate, subjects, leaving)

    from fangxin.flows.resurrection import back_up

    backup = back_up(estate, root / "backup")
    say(f"\n   A full backup of stores, vault and requests is taken now: {root / 'backup'}")

    say("\n4. fangxin erase: locate, export, destroy keys, overwrite, validate, publish (Prefect runs the steps)")
    waking.join()
    document = _carried_out(house, batch)
    _told(house, document)

    say("\n5. The backup from before, opened with everything that lives today")
    kept = {one["domain"] for r in document["requests"] for one in _certificate(r)["keys"]["kept"]}
    resurrected = _resurrected(house, made.catalog, backup, leaving, kept)

    say("\n6. What a stranger checks (python verify.py, no part of fangxin needed)")
    from fangxin.checks.verify import main as verify

    code = verify([document["package"], "--trust", str(house / "keys")])

    say("\n7. Two people close their accounts, with a clock that moves (fangxin request ..., run-due)")
    from fangxin.data.vocabulary import Identity
    from fangxin.flows.cli.walk import walk

    back, gone = (Identity("phone_number", cast[role]["phone_number"]) for role in ("housemate", "nothing"))
    walked = walk(house, made.catalog, back, gone, datetime.fromisoformat(NOW).astimezone(UTC))
    certificate = document["requests"][0]["certificate"].removesuffix(".json")
    say(f"\ncertificate  {certificate}.pdf   (signed; .html and .json beside it)")
    say(f"report       {_report(house, made.catalog)}   (a preview of the month)")
    say(f"package      {document['package']}")
    say(f"export       {root / 'export'}   (a new copy: delete it when you have seen it)")
    say(f"verify       exit {code}; {time.monotonic() - started:.0f} s in all")
    answered = {
        **document,
        "verify": code,
        "export": str(root / "export"),
        "resurrected": resurrected,
        **walked,
    }
    return code or int(resurrected > 0 or walked["closed"] not in ("certified", "restricted")), answered


def _report(house: Path, catalog: Path) -> Path:
    """What the public would read about this month, as far as it has come: unsigned, and no part of the ledger."""
    from fangxin.flows.estate import open_estate
    from fangxin.flows.report import preview_report
    from fangxin.reports.period import Period

    month, out = Period.parse(NOW[:7]), house.parent / "report"
    out.mkdir()
    preview_report(open_estate(house, catalog, datetime.fromisoformat(NOW).astimezone(UTC)), month, out)
    return out / f"{month.id}.preview.pdf"


def _make_room(root: Path) -> None:
    """Remove an earlier demo, and only that; InputError when the folder is somebody else's."""
    mark = root / ".fangxin-demo"
    if root.exists() and any(root.iterdir()) and not mark.is_file():
        raise InputError(
            f"{root}: expected nothing or an earlier demo, found something else", hint="choose another --home"
        )
    if root.exists():
        shutil.rmtree(root)
    root.mkdir(parents=True)
    mark.write_text("made by `fangxin demo`, which may remove this folder\n", "utf-8")


def _enter(house: Path) -> None:
    import os

    os.environ["FANGXIN_HOME"] = str(house)


def _open(house: Path, catalog: Path, subjects: Path) -> tuple[str, Any]:  # Any: an Estate
    from fangxin.flows.erase import open_batch
    from fangxin.flows.estate import open_estate
    from fangxin.flows.subjects import read_subjects

    now = datetime.fromisoformat(NOW).astimezone(UTC)
    estate = open_estate(house, catalog, now)
    options = {"approved": True, "now": now.isoformat(), "export": str(house.parent / "export")}
    return open_batch(estate, read_subjects(str(subjects), estate.catalog), options=options), estate


def _where(estate: Any, subjects: Path, leaving: dict[str, Any]) -> None:  # Any: an Estate; JSON
    """Print, per person, rows per collection and the shortest path that led there; no value is printed."""
    from fangxin.data.vocabulary import Cohort, Subject
    from fangxin.flows.cli.erase import located
    from fangxin.flows.locate import find
    from fangxin.flows.subjects import read_subjects

    people = read_subjects(str(subjects), estate.catalog)
    found = find(estate, Cohort(tuple(Subject(str(n), p) for n, p in enumerate(people))))
    document = located(found, people)
    for one, role in zip(document["subjects"], leaving, strict=True):
        say(f"\n   person {one['ref']}: {_ROLES[role]}")
        rows: dict[tuple[str, str], tuple[int, str]] = {}
        for trace in one["traces"]:
            key = (f"{trace['dataset']}/{trace['collection']}", trace["edge"])
            n, via = rows.get(key, (0, ""))
            shortest = min([via, *trace["via"]], key=lambda v: (not v, v.count(" > "), v))
            rows[key] = (n + trace["rows"], shortest)
        table(
            ("   collection", "rows", "edge", "why"), [(f"   {k[0]}", n, k[1], v) for k, (n, v) in sorted(rows.items())]
        )
        for s in one["shared"]:
            say(f"   shared: {s['rows']} row of {s['dataset']}/{s['collection']} with {s['others']} other person: kept")


def _carried_out(house: Path, batch: str) -> dict[str, Any]:  # Any: JSON
    from fangxin.flows.cli.erase import carried_out
    from fangxin.flows.deployed import run_erase

    return carried_out(house, batch, run_erase)


def _certificate(request: dict[str, Any]) -> dict[str, Any]:  # Any: JSON
    document: dict[str, Any] = json.loads(Path(request["certificate"]).read_bytes())
    return document


def _resurrected(
    house: Path,
    catalog: Path,
    backup: Any,
    leaving: dict[str, Any],
    kept: set[str],  # Any: a Backup; JSON
) -> int:
    """Print what the backup still gives, and return how much of the erased came back: nothing may."""
    from fangxin.flows.estate import open_estate
    from fangxin.flows.resurrection import resurrect

    erased = {str(account) for one in leaving.values() for account in one["accounts"]}
    found = resurrect(open_estate(house, catalog, datetime.fromisoformat(NOW)), backup, erased=erased)
    header = ("under keys", "of the living", "open", "of the erased", "open", "")
    table(
        header,
        [
            (
                f"{o.collection}.{o.field}",
                o.living,
                o.living_opened,
                o.erased,
                o.erased_opened,
                "a law keeps this key" if o.domain in kept else "",
            )
            for o in found.opened
        ],
    )
    say(f"keys that the old vault gives under today's root   {found.keys}")
    say(f"identities in the old requests store that open      {found.unsealed} of {found.sealed}")
    days = ", ".join(sorted({one.until for one in found.readable if one.until})) or "no day is declared"
    values = sum(one.erased for one in found.readable)
    where = f"{values} values in {len(found.readable)} fields, until {days}"
    say(f"never under a key, so still readable there          {where}")
    return sum(one.erased_opened for one in found.opened if one.domain not in kept) + found.keys + found.unsealed


def _told(house: Path, document: dict[str, Any]) -> None:  # Any: JSON
    """Print what was there before and is not there after, per collection, and the keys and bytes that went."""
    from fangxin.flows.estate import estate_of

    sums: dict[str, list[int]] = {}
    for request in document["requests"]:
        for v in request["verdicts"]:
            row = sums.setdefault(f"{v['dataset']}/{v['collection']}", [0] * 6)
            figures = (
                v["baseline_hits"], v["rows_found"], v["rows_erased"], v["rows_retained"], v["values_masked"],
                v["hits_after"],
            )  # fmt: skip
            sums[f"{v['dataset']}/{v['collection']}"] = [a + b for a, b in zip(row, figures, strict=True)]
    header = ("collection", "hits before", "rows", "erased", "kept by law", "masked for others", "hits after")
    table(header, [(k, *v) for k, v in sorted(sums.items())])
    requests = estate_of(document["batch"]).requests
    event = (requests.note(document["batch"], "destroy_keys") or {}).get("event", {})
    bytes_ = (requests.note(document["batch"], "overwrite") or {}).get("bytes", 0)
    kept = sum(v["rows_retained"] for r in document["requests"] for v in r["verdicts"])
    say(f"\nkeys destroyed     {event.get('keys_destroyed')} (generation {event.get('generation_after')} of the vault)")
    say(f"bytes overwritten  {bytes_:,}")
    say(f"rows kept by law   {kept} (e-commerce law, three years; each certificate gives ground and date)")
    opened = {s: max((requests.note(document["batch"], s) or {}).get("opened", {}).values(), default=0)
              for s in ("locate", "baseline", "overwrite", "validate")}  # fmt: skip
    say("openings of a unit at most: " + ", ".join(f"{step} {n}" for step, n in opened.items()))
    say("seconds            " + ", ".join(f"{k} {v:.1f}" for k, v in document["seconds"].items()))

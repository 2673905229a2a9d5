"""The periodic report: what happened to requests in a period, from ledger and certificates, as canonical JSON.

Every figure is computed from entries of the ledger, and from certificates whose digests stand in it; whoever holds
both can compute it again (docs/paper.md says how, figure by figure). Nothing is guessed: where no entry of a kind was
ever written, the figure is null and the pages say "not recorded".

* Counts of requests and records are banded where they are small, so that no table and no two tables give one away.
  `coarse` names those whose bands begin at nothing, because no narrower one would hide a small count among them.
* Percentiles are given for five requests or more.
* A report names the one of its kind before it by SHA-256, and the days since that one's end that no report covers.
* Canaries are no requests: they are counted apart, ours and an auditor's, whose misses make a report one to explain.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import rfc8785

from fangxin.data.errors import DoesNotHold
from fangxin.reports.bands import SMALL, Shown, Tables
from fangxin.reports.ledger.entries import band
from fangxin.reports.period import Period

FORMAT = "fangxin/report/1"
BOUNDS = (1, 2, 3, 5, 7, 10, 15, 20, 30)  # days, of the histogram of durations
_ANSWERS = "residue.answered:"
_USED = frozenset({
    "request.opened", "request.refused", "request.withdrawn", "restored", "certificate.issued",
    "certificate.validated", "retained", "residue.found", "exception", "validated", "key.destroyed", "swept",
    "sabotage.run", "incident.recorded", "processor.notified", "processor.confirmed", "code.loaded", "law.loaded",
    "package.published", "canary.planted", "canary.erased",
})  # fmt: skip
_PLACED = ("placements", "erased", "retained", "reported", "missed")  # of an auditor's canaries
_ROWS = ("rows_found", "rows_erased", "rows_retained", "values_masked", "baseline_hits", "hits_after")
Entry = Mapping[str, int | str]


@dataclass(frozen=True)
class Earlier:
    """A report that was published before: its period, the SHA-256 of its JSON, and the JSON where it is at hand."""

    period: Period
    json: str
    document: Mapping[str, Any] | None = None  # Any: JSON


@dataclass(frozen=True)
class Gathered:
    """What a report needs of the ledger: about a kilobyte for each request, whatever else the ledger holds."""

    entries: tuple[Entry, ...]  # of the kinds that figures are made from, from the first entry on
    count: int  # all entries of the period, and the index of its first and last
    first: int | None
    last: int | None
    begun: str | None  # the day of the ledger's first entry


def gather(entries: Iterable[tuple[int, Entry]], period: Period) -> Gathered:
    """Read a ledger once, from its first entry on, and keep what a report of this period is made from."""
    kept, count, first, last, begun = [], 0, None, None, None
    for index, one in entries:
        begun = begun or str(one["time"])[:10]
        if period.has(str(one["time"])):
            count, first, last = count + 1, index if first is None else first, index
        if one["type"] in _USED:
            kept.append(one)
    return Gathered(tuple(kept), count, first, last, begun)


@dataclass(frozen=True)
class Facts:
    """What a report is made from."""

    period: Period
    origin: str
    ledger: Gathered
    certificates: Mapping[str, Mapping[str, Any]]  # SHA-256 of certificate.json -> certificate; Any: JSON
    rules: Mapping[str, tuple[str, str]]  # rule id -> what it says (English, Chinese)
    working_days: Callable[[datetime, datetime], int] | None
    witnesses: tuple[str, ...]  # names that cosigned the checkpoint
    time_stamped: bool
    software: Mapping[str, str]  # version, sha256
    earlier: tuple[Earlier, ...] = ()
    preview: bool = False  # the period is not over, or nothing is to be logged


@dataclass
class _Work:
    """Sums over a dataset."""

    figures: Counter[str] = field(default_factory=Counter)
    bytes: dict[tuple[str, str, str], tuple[int, int]] = field(default_factory=dict)  # read, overwritten


def report(facts: Facts) -> dict[str, Any]:  # Any: a JSON document
    """Compute the report of a period."""
    period, by_type = facts.period, _by_type(facts.ledger.entries)
    tables = Tables()
    closed = _closed(facts)
    flow = _flow(facts, tables, closed)
    spans = _spans(facts, closed)
    histogram = _histogram(tables, spans)
    work = _work(tables, closed)
    kept = _kept(tables, facts, by_type)
    keys = [one for one in by_type.get("key.destroyed", []) if period.has(str(one["time"]))]
    tables.add("keys/batches", len(keys))
    trust = _trust(facts, by_type, tables)
    _overlaps(facts, tables)
    shown = tables.shown()
    document = {
        "format": FORMAT,
        "period": {
            "id": period.id,
            "from": period.first.isoformat(),
            "to": period.last.isoformat(),
            "days": period.days,
        },
        "preview": facts.preview,
        "rehearsal": _rehearsed(facts, by_type, closed),
        "origin": facts.origin,
        "ledger": {"entries": facts.ledger.count, "first": facts.ledger.first, "last": facts.ledger.last},
        "flow": flow(shown),
        "time": {
            "measured": shown["time/measured"],
            "calendar_minutes": _percentiles([one for one, _days in spans]),
            "working_days": _percentiles([days for _one, days in spans if days is not None]),
            "histogram": [{"days": bound, "count": shown[name]} for bound, name in histogram],
            "overdue": None,
        },
        "work": [
            {
                "dataset": name,
                **{key: _rows(shown[f"work/{name}/{key}"], shown["flow/closed"]) for key in _ROWS},
                "bytes_read": sum(read for read, _over in one.bytes.values()),
                "bytes_overwritten": sum(over for _read, over in one.bytes.values()),
            }
            for name, one in sorted(work.items())
        ],
        "keys": {"batches": shown["keys/batches"], "bands": sorted({str(one["count"]) for one in keys})},
        "residues": _residues(facts, by_type),
        "kept": [{**one, "requests": shown[f"kept/{one['rule']}/{one['class']}"]} for one in kept],
        "trust": trust(shown),
        "software": dict(facts.software),
        "chain": _chain(facts),
    }
    document["coarse"] = sorted(tables.coarse - tables.unpublished)
    document["comparison"] = _comparison(facts, document)
    document["verdict"] = _verdict(document)
    return document


def report_bytes(document: Mapping[str, Any]) -> bytes:
    """Canonical bytes (RFC 8785) of a report."""
    return rfc8785.dumps(dict(document))


def figures(document: Mapping[str, Any]) -> list[tuple[str, int | None, str | None]]:
    """Every figure of a report, as (path, count, band): what the Parquet file holds, in the order of the JSON."""
    found: list[tuple[str, int | None, str | None]] = []

    def walk(value: Any, path: str) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                walk(inner, f"{path}/{key}")
        elif isinstance(value, list | tuple):
            for n, inner in enumerate(value):
                name = (
                    inner.get("dataset") or inner.get("rule") or inner.get("label") if isinstance(inner, dict) else None
                )
                walk(inner, f"{path}/{name or n}")
        elif isinstance(value, bool):
            found.append((path, int(value), None))
        elif isinstance(value, int):
            found.append((path, value, None))
        elif value is None:
            found.append((path, None, None))
        elif re.fullmatch(r"[0-9]+-[0-9]+", str(value)) and not path.endswith(("/id", "/next")):
            found.append((path, None, str(value)))

    for section in ("flow", "time", "work", "keys", "residues", "kept", "trust", "comparison"):
        walk(document[section], section)
    return found


# ---------------------------------------------------------------- flow and time


def _by_type(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {}
    for one in entries:
        found.setdefault(str(one["type"]), []).append(one)
    return found


def _closed(facts: Facts) -> list[tuple[Entry, Mapping[str, Any] | None]]:
    """The certificates issued in the period that did not fail, with their documents where they are at hand."""
    return [
        (one, facts.certificates.get(str(one["json"])))
        for one in facts.ledger.entries
        if one["type"] == "certificate.issued" and one["verdict"] != "failed" and facts.period.has(str(one["time"]))
    ]


def _rehearsed(
    facts: Facts, by_type: Mapping[str, Sequence[Entry]], closed: Sequence[tuple[Entry, Mapping[str, Any] | None]]
) -> bool:
    """Whether any plan of the period was approved as a rehearsal, or any certificate says that it is one."""
    approved = [one["by"] for one in by_type.get("approved", []) if facts.period.has(str(one["time"]))]
    return "rehearsal" in approved or any(one is not None and one.get("rehearsal") for _entry, one in closed)


def _flow(
    facts: Facts, tables: Tables, closed: Sequence[tuple[Entry, Mapping[str, Any] | None]]
) -> Callable[[Mapping[str, Shown]], dict[str, Any]]:
    """Counts of requests: by part of the period, by outcome, and what is open before and after."""
    period, by_type = facts.period, _by_type(facts.ledger.entries)
    last = period.last.isoformat()

    def times(kind: str) -> list[str]:
        return [str(one["time"]) for one in by_type.get(kind, [])]

    def within(found: Iterable[str], of: Period) -> int:
        return sum(of.has(one) for one in found)

    opened, done = times("request.opened"), [str(one["time"]) for one, _document in closed]
    ended = {kind: times(kind) for kind in ("request.refused", "request.withdrawn", "restored")}
    issued = [str(one["time"]) for one in by_type.get("certificate.issued", []) if one["verdict"] != "failed"]
    failed = [str(one["time"]) for one in by_type.get("certificate.issued", []) if one["verdict"] == "failed"]

    def open_at(before: Callable[[str], bool]) -> int:
        gone = [*issued, *(moment for found in ended.values() for moment in found)]
        return max(0, sum(map(before, opened)) - sum(map(before, gone)))

    parts = period.parts()
    tables.main |= {tables.add("flow/received", within(opened, period)), tables.add("flow/closed", len(done))}
    for name, found in (("received", opened), ("closed", done)):
        named = [tables.add(f"flow/{name}/{part.id}", within(found, part)) for part in parts]
        tables.total(f"flow/{name}", named)
    for verdict in ("erased", "erased_with_retention", "partial"):
        tables.add(f"flow/{verdict}", sum(one["verdict"] == verdict for one, _document in closed))
    tables.total("flow/closed", ["flow/erased", "flow/erased_with_retention", "flow/partial"])
    tables.add("flow/failed", within(failed, period))
    for kind, found in ended.items():
        tables.add(f"flow/{kind}", within(found, period))
    reasons = Counter(str(one["reason"]) for one in by_type.get("request.refused", []) if period.has(str(one["time"])))
    named = [tables.add(f"flow/refused/{reason}", count) for reason, count in sorted(reasons.items())]
    tables.total("flow/request.refused", named)
    begin, end = open_at(lambda t: t[:10] < period.first.isoformat()), open_at(lambda t: t[:10] <= last)
    tables.add("flow/open_before", begin)
    tables.add("flow/open", end)
    leaving = ["flow/open", "flow/closed", *(f"flow/{kind}" for kind in ended)]
    if begin + tables.counts["flow/received"] == sum(tables.counts[one] for one in leaving):
        tables.add("flow/all", begin + tables.counts["flow/received"])
        tables.unpublished.add("flow/all")
        tables.total("flow/all", ["flow/open_before", "flow/received"])
        tables.total("flow/all", leaving)

    def shown(seen: Mapping[str, Shown]) -> dict[str, Any]:
        known = {kind: kind in by_type for kind in ended}
        return {
            "received": seen["flow/received"],
            "closed": seen["flow/closed"],
            "erased": seen["flow/erased"],
            "erased_with_retention": seen["flow/erased_with_retention"],
            "partial": seen["flow/partial"],
            "failed": seen["flow/failed"],
            "open_before": seen["flow/open_before"],
            "open": seen["flow/open"],
            "refused": seen["flow/request.refused"] if known["request.refused"] else None,
            "refusals": [{"reason": reason, "count": seen[f"flow/refused/{reason}"]} for reason in sorted(reasons)],
            "withdrawn": seen["flow/request.withdrawn"] if known["request.withdrawn"] else None,
            "restored": seen["flow/restored"] if known["restored"] else None,
            "parts": [
                {
                    "label": part.label,
                    "received": seen[f"flow/received/{part.id}"],
                    "closed": seen[f"flow/closed/{part.id}"],
                }
                for part in parts
            ],
        }

    return shown


def _spans(facts: Facts, closed: Sequence[tuple[Entry, Mapping[str, Any] | None]]) -> list[tuple[int, int | None]]:
    """From receipt to validation, of each closed request whose certificate is at hand: minutes, working days."""
    found = []
    for _entry, document in closed:
        if document is None or document["times"]["validated"] is None:
            continue
        start, end = (datetime.fromisoformat(document["times"][key]) for key in ("received", "validated"))
        days = facts.working_days(start, end) if facts.working_days else None
        found.append((int((end - start) / timedelta(minutes=1)), days))
    return found


def _histogram(tables: Tables, spans: Sequence[tuple[int, int | None]]) -> list[tuple[int | None, str]]:
    counts = [0] * (len(BOUNDS) + 1)
    for minutes, _days in spans:
        counts[sum(minutes > bound * 1440 for bound in BOUNDS)] += 1
    names = [tables.add(f"time/{bound}", n) for bound, n in zip((*BOUNDS, "more"), counts, strict=True)]
    tables.add("time/measured", len(spans))
    tables.total("time/measured", names)
    if len(spans) == tables.counts["flow/closed"]:  # the same people, counted twice
        tables.total("time/measured", ["flow/closed"])
    return list(zip((*BOUNDS, None), names, strict=True))


def _percentiles(values: Sequence[int]) -> dict[str, int] | None:
    """Nearest rank; None for fewer than five."""
    if len(values) < SMALL:
        return None
    ordered = sorted(values)
    return {f"p{p}": ordered[max(0, -(-len(ordered) * p // 100) - 1)] for p in (50, 90, 95, 99)} | {"max": ordered[-1]}


# ---------------------------------------------------------------- work, kept, residues


def _work(tables: Tables, closed: Sequence[tuple[Entry, Mapping[str, Any] | None]]) -> dict[str, _Work]:
    """Rows by dataset. Bytes speak of everybody erased together, so each collection counts once for each batch."""
    found: dict[str, _Work] = {}
    for _entry, document in closed:
        for row in document["collections"] if document is not None else []:
            one = found.setdefault(row["dataset"], _Work())
            one.figures.update({key: row[key] for key in _ROWS})
            place = (document["batch"], row["dataset"], row["collection"])  # type: ignore[index]  # not None here
            one.bytes[place] = (row["bytes_read"], row["bytes_overwritten"])
    for name, one in found.items():
        for key in _ROWS:
            tables.add(f"work/{name}/{key}", one.figures[key])
    return found


def _rows(shown: Shown, closed: Shown) -> Shown:
    """A count of records: where few people are in the report, any count of records is theirs alone."""
    return band(shown) if isinstance(shown, int) and not (isinstance(closed, int) and closed >= SMALL) else shown


def _kept(tables: Tables, facts: Facts, by_type: Mapping[str, Sequence[Entry]]) -> list[dict[str, Any]]:
    """By rule and class: for how many requests something is kept, and when the next of it ends."""
    groups: dict[tuple[str, str], list[str]] = {}
    for one in by_type.get("retained", []):
        if str(one["time"])[:10] <= facts.period.last.isoformat():
            groups.setdefault((str(one["rule"]), str(one["class"])), []).append(str(one["until"]))
    found = []
    for (rule, record_class), until in sorted(groups.items()):
        tables.add(f"kept/{rule}/{record_class}", len(until))
        dated = [one for one in until if one != "officer" and one >= facts.period.last.isoformat()[:7]]
        en, zh = facts.rules.get(rule, (rule, rule))
        found.append(
            {"rule": rule, "class": record_class, "text_en": en, "text_zh": zh, "next": min(dated, default=None)}
        )
    return found


def _residues(facts: Facts, by_type: Mapping[str, Sequence[Entry]]) -> dict[str, Any]:
    """What a validation found that should be gone, and how long until one answered it."""
    answered = {
        str(one["code"]).removeprefix(_ANSWERS): str(one["time"])
        for one in by_type.get("exception", [])
        if str(one["code"]).startswith(_ANSWERS)
    }
    listed = []
    for one in by_type.get("residue.found", []):
        if facts.period.has(str(one["time"])):
            end = answered.get(str(one["tag"]))
            listed.append({"store": one["store"], "minutes": None if end is None else _minutes(str(one["time"]), end)})
    spans = sorted(one["minutes"] for one in listed if one["minutes"] is not None)
    return {
        "found": len(listed),
        "answered": len(spans),
        "open": len(listed) - len(spans),
        "median_minutes": spans[(len(spans) - 1) // 2] if spans else None,
        "longest_minutes": spans[-1] if spans else None,
        "stores": [list(one) for one in sorted(Counter(str(one["store"]) for one in listed).items())],
    }


def _minutes(start: str, end: str) -> int:
    return int((datetime.fromisoformat(end) - datetime.fromisoformat(start)) / timedelta(minutes=1))


# ---------------------------------------------------------------- trust and chain


def _trust(
    facts: Facts, by_type: Mapping[str, Sequence[Entry]], tables: Tables
) -> Callable[[Mapping[str, Shown]], dict[str, Any]]:
    def of(kind: str) -> list[Entry] | None:
        """Entries of a kind in the period; None where none was ever written."""
        known = by_type.get(kind)
        return None if known is None else [one for one in known if facts.period.has(str(one["time"]))]

    def summed(found: Sequence[Entry], key: str) -> int:
        return sum(int(one.get(key, 0)) for one in found)

    validated, sweeps, sabotage = of("validated") or [], of("swept"), of("sabotage.run")
    codes = Counter(str(one["code"]) for one in of("exception") or [] if not str(one["code"]).startswith(_ANSWERS))
    told, confirmed = of("processor.notified"), of("processor.confirmed")
    incidents = of("incident.recorded")
    sealed, opened = of("canary.planted"), [one for one in of("canary.erased") or [] if "seal" in one]
    tables.add("trust/validations", len(validated))
    tables.add("trust/canaries", summed(validated, "canaries"))
    tables.add("trust/accepted", len(of("certificate.validated") or []))
    catalogs = {str(one["catalog"]) for one in of("request.opened") or []}

    def shown(seen: Mapping[str, Shown]) -> dict[str, Any]:
        return {
            "validations": seen["trust/validations"],
            "bytes_scanned": summed(validated, "bytes"),
            "hits_unexplained": summed(validated, "hits"),
            "canaries": seen["trust/canaries"],
            "auditors_canaries": None
            if sealed is None
            else {"sealed": len(sealed), "opened": len(opened), **{key: summed(opened, key) for key in _PLACED}},
            "accepted_by_officers": seen["trust/accepted"],
            "sweeps": None
            if sweeps is None
            else {"runs": len(sweeps), "bytes": summed(sweeps, "bytes"), "hits": summed(sweeps, "hits")},
            "sabotage": None
            if sabotage is None
            else {"runs": len(sabotage), "mutants": summed(sabotage, "mutants"), "caught": summed(sabotage, "caught")},
            "incidents": None if incidents is None else len(incidents),
            "exceptions": [{"code": code, "count": count} for code, count in sorted(codes.items())],
            "processors": None if told is None else {"told": len(told), "confirmed": len(confirmed or [])},
            "witnesses": sorted(facts.witnesses),
            "time_stamped": facts.time_stamped,
            "catalogs": len(catalogs),
            "code": sorted({str(one["digest"]) for one in of("code.loaded") or []}),
            "laws": sorted(
                {str(one.get("law", "")) for one in of("law.loaded") or []} - {"retention"}
            ),  # a table of them
            "packages": None if of("package.published") is None else len(of("package.published") or []),
            "outside_audit": None,
        }

    return shown


def _chain(facts: Facts) -> dict[str, Any]:
    """The report of this kind before this one, and the days that no report of this kind covers."""
    same = [one for one in facts.earlier if one.period.kind == facts.period.kind and one.period != facts.period]
    previous = same[-1] if same else None
    begun = facts.ledger.begun
    covered_to = previous.period.last.isoformat() if previous else None
    since = _next(covered_to) if covered_to else begun
    gap = since is not None and since < facts.period.first.isoformat()
    return {
        "previous": {"period": previous.period.id, "json": previous.json} if previous else None,
        "missing": {"from": since, "to": _before(facts.period.first.isoformat())} if gap else None,
    }


def _next(day: str) -> str:
    return (datetime.fromisoformat(day) + timedelta(days=1)).date().isoformat()


def _before(day: str) -> str:
    return (datetime.fromisoformat(day) - timedelta(days=1)).date().isoformat()


def _comparison(facts: Facts, document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Main figures beside those of the report before; empty where there is none, or it is not at hand."""
    previous = document["chain"]["previous"]
    old = next((one.document for one in facts.earlier if previous and one.json == previous["json"]), None)
    if old is None:
        return []

    def pick(of: Any, path: str) -> Any:
        for key in path.split("/"):
            of = of.get(key) if isinstance(of, Mapping) else None
        return of

    paths = ("flow/received", "flow/closed", "flow/failed", "flow/open", "time/calendar_minutes/p50",
             "time/calendar_minutes/p90", "residues/found", "trust/hits_unexplained")  # fmt: skip
    return [{"label": path, "before": pick(old, path), "now": pick(document, path)} for path in paths]


def _verdict(document: Mapping[str, Any]) -> str:
    """bad: a hit nobody explained; mind: something to explain; none: nothing was closed; else good."""
    if document["trust"]["hits_unexplained"] or document["residues"]["open"]:
        return "bad"
    trouble = document["flow"]["failed"] != 0 or document["trust"]["incidents"] or document["chain"]["missing"]
    sabotage = document["trust"]["sabotage"]
    missed = sabotage is not None and sabotage["caught"] != sabotage["mutants"]
    canaries = document["trust"]["auditors_canaries"]
    missed = missed or (canaries is not None and canaries["missed"] > 0)
    if trouble or missed:
        return "mind"
    return "none" if document["flow"]["closed"] == 0 else "good"


def _overlaps(facts: Facts, tables: Tables) -> None:
    """Earlier reports of parts of this period: what is left between them may not be a small count either."""
    inside = [one for one in facts.earlier if one.document and facts.period.contains(one.period)]
    inside = [one for one in inside if one.period != facts.period]
    for name in ("received", "closed"):
        disjoint: list[Earlier] = []
        for one in sorted(inside, key=lambda e: (e.period.first, e.period.last)):
            if not disjoint or disjoint[-1].period.last < one.period.first:
                disjoint.append(one)
        counts = [one.document["flow"][name] for one in disjoint if one.document]
        known = [count for count in counts if isinstance(count, int)]
        if not known or len(known) != len(counts):
            continue  # a band among them: nothing can be subtracted exactly
        rest = tables.counts[f"flow/{name}"] - sum(known)
        if rest < 0:
            raise DoesNotHold(f"more was {name} in earlier reports than in all of {facts.period.id}")
        tables.fixed.add(tables.add(f"before/{name}", sum(known)))
        tables.add(f"rest/{name}", rest)
        tables.unpublished.add(f"rest/{name}")
        tables.total(f"flow/{name}", [f"before/{name}", f"rest/{name}"])

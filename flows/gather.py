"""Gather: what goes into an auditor's package, chosen by request, by period, or by the auditor's own draw.

Everything comes from the ledger and from files that were published before; no vault and no store is opened. What the
ledger says was issued and whose file is not there stops the work: a package never leaves out in silence what it was
asked for.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any  # Any: JSON documents

from fangxin.data.errors import Incomplete, InputError
from fangxin.flows.approvals import APPROVALS
from fangxin.flows.estate import LAWS, SCHEMAS, Estate
from fangxin.flows.paper import certificate_files
from fangxin.reports.challenge import Challenge
from fangxin.reports.ledger.entries import Entry
from fangxin.reports.package import write_package
from fangxin.reports.period import Period

_ROOMS = LAWS.parent
CALENDARS = _ROOMS / "calendars"
_LOADED = ("law.loaded", "calendar.loaded")


@dataclass(frozen=True)
class Issued:
    """A certificate on record: where it stands in the ledger, and its document."""

    index: int
    path: Path
    document: dict[str, Any]


def by_requests(estate: Estate, names: Sequence[str]) -> list[Issued]:
    """The certificates of requests, named by request id or certificate number; InputError for one without."""
    wanted = set(names)
    found = [
        one
        for one in _issued(estate, lambda _index, _entry: True)
        if not wanted.isdisjoint((one.document["request"], one.document["number"]))
    ]
    if wanted - {one.document[key] for one in found for key in ("request", "number")}:
        raise InputError("no certificate of that request is on record", hint="`fangxin erase` prints request ids")
    return found


def by_period(estate: Estate, period: str) -> list[Issued]:
    """The certificates issued in a period: 2026, 2026-Q3, 2026-11, 2026-11-20, or FIRST_LAST (both days included)."""
    first, after = span(period)
    return list(_issued(estate, lambda _index, entry: first <= str(entry["time"]) < after))


def by_challenge(estate: Estate, challenge: Challenge) -> list[Issued]:
    """The certificates that an auditor's challenge draws."""
    drawn = set(challenge.draw(estate.ledger))
    return list(_issued(estate, lambda index, _entry: index in drawn))


def span(period: str) -> tuple[str, str]:
    """The first minute of a period and the first one after it, UTC, as entries write them; InputError otherwise."""
    try:
        first, after = _days(period)
    except ValueError:
        raise InputError(
            "not a period", hint="a year, quarter, month, day or range: 2026, 2026-Q3, 2026-11, 2026-11-20, FIRST_LAST"
        ) from None
    return first.strftime("%Y-%m-%dT00:00Z"), after.strftime("%Y-%m-%dT00:00Z")


def write(estate: Estate, out: Path, chosen: Sequence[Issued], challenge: Challenge | None = None) -> str:
    """Write a package of these certificates and everything that proves them; returns the manifest's SHA-256."""
    ledger = estate.ledger
    at = dict(
        _of_types(
            estate, ("validated", "approved", "certificate.issued", *_LOADED, "report.published", "package.published")
        )
    )
    proofs, statements = {}, set()
    for one in chosen:
        evidence = one.document["evidence"]
        proofs[evidence["proof"].removeprefix("proofs/")] = evidence["validated"]
        proofs[f"{one.document['number']}.tlog-proof"] = one.index
        statements.add(str(at[evidence["validated"]]["findings"]))
    before = [index for index, entry in at.items() if entry["type"] == "package.published"]
    if before:
        proofs[f"package-{before[-1]}.tlog-proof"] = before[-1]
    loaded = {entry["digest"] for entry in at.values() if entry["type"] in _LOADED}
    signed = {one for entry in at.values() for one in str(entry.get("approvals", "")).split(",")}
    behind = {_sha(one.path) for one in chosen}
    reports = [
        entry for index, entry in at.items() if entry["type"] == "report.published" and _rests(at, index, behind)
    ]
    home = estate.settings.home
    tables = [path for path in sorted((home / "law").glob("retention-*.json")) if _sha(path) in loaded]
    return write_package(
        out,
        ledger=ledger,
        keys=estate.signing,
        statements=sorted(home / "dsse" / f"{digest}.json" for digest in statements),
        certificates=sorted({path for one in chosen for path in certificate_files(home, one.document["number"])}),
        proofs={name: ledger.receipt(index) for name, index in proofs.items()},
        laws=[*sorted(LAWS.glob("*.yaml")), *tables],
        schemas=sorted(SCHEMAS.glob("*.json")),
        officers=sorted((home / "keys" / "officers").glob("*.pub")),
        approvals=sorted(path for path in (home / APPROVALS).glob("*.json") if path.stem in signed),
        calendars=[path for path in sorted(CALENDARS.glob("*.toml")) if _sha(path) in loaded],
        reports=[path for one in reports for path in _report_files(home / "reports", one)],
        challenge=None if challenge is None else challenge.document(),
        policy=policy(estate),
    )


def policy(estate: Estate) -> dict[str, object]:
    """What the settings promise about witnesses and time, as a package states it."""
    settings = estate.settings
    return {
        "quorum": settings.quorum,
        "witnesses": [str(one) for one in estate.signing.witnesses],
        "time_stamps": "rfc3161" if settings.tsa else "none",
    }


def published(estate: Estate, digest: str) -> None:
    """Log that a package was given out: its receipt travels with the next one. Once for each."""
    if any(entry["digest"] == digest for _index, entry in _of_types(estate, ("package.published",))):
        return
    estate.ledger.append([{"type": "package.published", "time": estate.minute, "digest": digest}])


def _issued(estate: Estate, wanted: Callable[[int, Entry], bool]) -> Iterator[Issued]:
    from fangxin.checks.verify import Wrong, strict_json

    folder = estate.settings.home / "certificates"
    files = {_sha(path): path for path in sorted(folder.glob("*.json")) if path.suffixes == [".json"]}
    lacking = 0
    for index, entry in _of_types(estate, ("certificate.issued",)):
        if not wanted(index, entry):
            continue
        path = files.get(str(entry["json"]))
        if path is None:
            lacking += 1
            continue
        try:
            document = strict_json(path.read_bytes(), path.name)
        except Wrong as error:
            raise Incomplete(str(error), hint="bring the file back; its SHA-256 is in the ledger") from None
        yield Issued(index, path, document)
    if lacking:
        raise Incomplete(
            f"{lacking} certificate(s) on record are not in the home's folder `certificates`",
            hint="bring them back; their SHA-256 are in the ledger",
        )


def _of_types(estate: Estate, kinds: Sequence[str]) -> Iterator[tuple[int, Entry]]:
    return ((index, entry) for index, entry in estate.ledger.entries() if entry["type"] in kinds)


def _rests(at: Mapping[int, Entry], index: int, behind: Collection[str]) -> bool:
    """Whether all certificates that a report was made from are in the package: then it can be computed again."""
    period = Period.parse(str(at[index]["period"]))
    issued = [one for before, one in at.items() if before < index and one["type"] == "certificate.issued"]
    return all(one["json"] in behind for one in issued if period.has(str(one["time"])) and one["verdict"] != "failed")


def _report_files(folder: Path, entry: Entry) -> Iterator[Path]:
    for kind in ("json", "html", "pdf", "parquet"):
        path = folder / f"{entry['period']}.{kind}"
        if kind in entry and path.is_file() and _sha(path) == entry[kind]:
            yield path


def _days(period: str) -> tuple[date, date]:
    if match := re.fullmatch(r"(\d{4})(?:-(?:Q([1-4])|(\d\d)))?", period, re.ASCII):
        year = int(match[1])
        if match[2]:
            month, months = int(match[2]) * 3 - 2, 3
        else:
            month, months = int(match[3] or 1), 1 if match[3] else 12
        last = year * 12 + month - 1 + months
        return date(year, month, 1), date(last // 12, last % 12 + 1, 1)
    first, _, last_day = period.partition("_")
    days = date.fromisoformat(first), date.fromisoformat(last_day or first)
    if days[1] < days[0]:
        raise ValueError(period)
    return days[0], days[1] + timedelta(days=1)


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

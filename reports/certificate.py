"""One subject's certificate of erasure, as canonical JSON: what was found, done, kept, and what is not claimed.

The JSON is the truth, pages are renderings of it. It holds no name, phone, mail or account: the request is named
by number. Integers, strings, booleans, lists and nulls only, ASCII keys, RFC 8785 bytes, so that the same facts
give the same digest everywhere.

* The outcome follows from the verdicts, and from where the subject stands outside the catalog; nobody passes it in.
* A retained collection must be explained: rule, class, rows, until.
* A rehearsal's certificate says that it is one, and that it is nobody's.
* Unit-level figures (units, bytes) speak about all subjects erased together; `cohort` says how many.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fangxin.data.errors import DoesNotHold
from fangxin.data.vocabulary import FINDING, Verdict
from fangxin.reports.words import claims_too_much, limits

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

FORMAT = "fangxin/certificate/1"

ERASED = "erased"
ERASED_WITH_RETENTION = "erased_with_retention"
PARTIAL = "partial"
FAILED = "failed"


@dataclass(frozen=True)
class Times:
    """When each step ended (aware datetimes); None for a step that did not take place."""

    received: datetime
    approved: datetime | None
    keys_destroyed: datetime | None
    overwritten: datetime | None
    validated: datetime | None


@dataclass(frozen=True)
class KeptKey:
    """A key domain that stays because a law wants its class kept."""

    domain: str
    ground: str
    until: str


@dataclass(frozen=True)
class Holder:
    """A holder of the key root, and what its part of the destruction can claim."""

    name: str
    effect: str
    backup_resistant: bool
    conditions: str


@dataclass(frozen=True)
class Share:
    """So many of so many."""

    n: int
    of: int


@dataclass(frozen=True)
class Keys:
    """What happened to the subject's keys; commitments are hex roots of the key store before and after."""

    destroyed: int
    domains: tuple[str, ...]
    kept: tuple[KeptKey, ...]
    generation_before: int
    generation_after: int
    commitment_before: str
    commitment_after: str
    holders: tuple[Holder, ...]
    replicas: Share | None = None  # replicas of the vault that hold the new generation; None: not examined
    copies: Share | None = None  # its copies from before that open no page any more; None: not examined


@dataclass(frozen=True)
class Retained:
    """Rows of a class that a rule keeps; `until` is an ISO date or "officer", `event` the date it counts from."""

    dataset: str
    collection: str
    record_class: str
    rule: str
    rows: int
    until: str
    text_en: str
    text_zh: str
    event: str = ""


@dataclass(frozen=True)
class SharedRows:
    """Rows that `others` other people use too; they are kept for them."""

    dataset: str
    collection: str
    rows: int
    others: int


@dataclass(frozen=True)
class Mention:
    """Other people's rows that mention the subject, and in how many of them the value was masked."""

    dataset: str
    collection: str
    rows: int
    masked: int


@dataclass(frozen=True)
class DeclaredCopy:
    """A copy outside the catalog: how long it is kept, how it ends, and the day on which it has ended."""

    name: str
    kind: str
    keep: str
    method: str
    expires: str


@dataclass(frozen=True)
class ExportFacts:
    """What was handed over: SHA-256 of the manifest, rows and files."""

    manifest: str
    rows: int
    files: int


@dataclass(frozen=True)
class Scan:
    """How it was searched: byte patterns and forms, bytes read, kinds judged by record, digest of the scanner.

    `breadth` is full, or core for a crowd; `omitted` are forms that were not searched, and of how many identities.

    Every place ended in one of three classes: places in which this subject was found (explained rows, or outside the
    catalog), places in which nothing was found, and those that could not be examined, each with its reason.
    """

    patterns: int
    forms: int
    bytes: int
    kinds_by_record: tuple[str, ...]
    scanner: str
    found: int = 0
    not_found: int = 0
    not_examinable: tuple[tuple[str, str], ...] = ()  # place, reason
    breadth: str = "full"
    omitted: tuple[tuple[str, int], ...] = ()  # form, identities


@dataclass(frozen=True)
class Outside:
    """A place that no collection names in which the subject stands: hits before and now, and what they lie in."""

    place: str
    containers: str
    before: int
    hits: int
    doubtful: bool  # they look like parts of longer values


@dataclass(frozen=True)
class Inodes:
    """What became of every inode of a store; files deleted logically and those of other writers are counted apart."""

    store: str
    unchanged: int
    destroyed: int
    deleted: int
    new: int
    others: int


@dataclass(frozen=True)
class SealedCanaries:
    """What became of made-up people whom an auditor sealed beforehand; `opened` says whether the seal was opened."""

    commitment: str
    opened: bool
    placements: int
    erased: int
    retained: int
    reported: int
    missed: int


@dataclass(frozen=True)
class LedgerProof:
    """Where the entry `validated` stands in the ledger: origin, its index, and the text of its `.tlog-proof`."""

    origin: str
    validated: int
    proof: str


@dataclass(frozen=True)
class Software:
    """What ran: version, and SHA-256 over its code."""

    version: str
    sha256: str


@dataclass(frozen=True)
class Settlement:
    """What was settled before the erasure, by kind; `reference` is the payout's or transfer's own opaque number."""

    kind: str
    disposition: str
    reference: str


@dataclass(frozen=True)
class Deadline:
    """The day by which the request had to be done, and the rule that says so."""

    until: str  # whole minute, UTC
    rule: str


@dataclass(frozen=True)
class Processor:
    """Somebody who processes data of these datasets for us; when they were told and when they confirmed, if ever."""

    name: str
    datasets: tuple[str, ...]
    told: str | None = None
    confirmed: str | None = None


@dataclass(frozen=True)
class Accountable:
    """Who answers for a dataset and who carries erasures out in it, by role; SHA-256 of the terms accepted, or ""."""

    dataset: str
    owner: str
    executor: str
    terms: str


@dataclass(frozen=True)
class CertificateFacts:
    """All that one subject's certificate says. `findings` is the batch's table, or `finding_table` of it; `subject`
    picks the rows of it."""

    number: str
    request: str
    batch: str
    subject: int
    findings: pd.DataFrame | pa.Table
    times: Times
    keys: Keys
    retained: tuple[Retained, ...]
    shared: tuple[SharedRows, ...]
    mentions: tuple[Mention, ...]
    copies: tuple[DeclaredCopy, ...]
    export: ExportFacts | None
    scan: Scan
    evidence: LedgerProof
    software: Software
    catalog: str  # SHA-256 of the catalog's sources
    law: Mapping[str, str]  # name of the law's file -> SHA-256
    cohort: int
    signer: str  # who signs, by role or key id; never a person's name
    outside: tuple[Outside, ...] = ()
    inventory: tuple[Inodes, ...] = ()
    canaries: tuple[SealedCanaries, ...] = ()
    witnessed: bool = False
    time_stamped: bool = False
    settlements: tuple[Settlement, ...] | None = None  # None: no process recorded any
    deadline: Deadline | None = None
    processors: tuple[Processor, ...] = ()
    accountability: tuple[Accountable, ...] = ()
    approvers: tuple[str, ...] = ()  # officers who signed the plan, where somebody had to
    rehearsal: bool = False  # of a home that holds made-up people only
    control: tuple[str, ...] = ()  # collections in which the planted control FAILED, of a batch ended as it stands
    planted: tuple[str, ...] = ()  # where the planted control stayed, and how often, of a batch ended as it stands


def certificate(facts: CertificateFacts) -> dict[str, Any]:  # Any: a JSON document
    """Build the certificate; raises DoesNotHold where the facts contradict each other, instead of printing them."""
    rows = collection_rows(facts.findings, facts.subject)
    outcome = outcome_of((str(row["verdict"]) for row in rows), outside=bool(facts.outside))
    if outcome != FAILED:
        _explained(rows, facts.retained)
    _sound(rows)
    if outcome != FAILED and facts.times.validated is None:
        raise DoesNotHold("certificate: expected a time of validation, found none", hint="validate first, then publish")
    document = {
        "format": FORMAT,
        "number": facts.number,
        "request": facts.request,
        "batch": facts.batch,
        "outcome": outcome,
        "times": {name: _minute(when) for name, when in vars(facts.times).items()},
        "collections": rows,
        "keys": asdict(facts.keys),
        "retained": [_with_class(asdict(one)) for one in _sorted(facts.retained)],
        "shared": [asdict(one) for one in _sorted(facts.shared)],
        "mentions": [asdict(one) for one in _sorted(facts.mentions)],
        "copies": [asdict(one) for one in sorted(facts.copies, key=lambda c: (c.kind, c.name))],
        "export": asdict(facts.export) if facts.export else None,
        "scan": {
            **asdict(facts.scan),
            "not_examinable": [_place(*one) for one in facts.scan.not_examinable],
            "omitted": [{"form": form, "identities": n} for form, n in facts.scan.omitted],
        },
        "outside": [asdict(one) for one in sorted(facts.outside, key=lambda o: o.place)],
        "inventory": [asdict(one) for one in sorted(facts.inventory, key=lambda i: i.store)],
        "canaries": [asdict(one) for one in sorted(facts.canaries, key=lambda c: c.commitment)],
        "limits": [asdict(one) for one in _limits(facts, rows)],
        "evidence": asdict(facts.evidence),
        "software": asdict(facts.software),
        "catalog": facts.catalog,
        "law": [{"name": name, "sha256": digest} for name, digest in sorted(facts.law.items())],
        "cohort": facts.cohort,
        "signer": facts.signer,
        "settlements": None if facts.settlements is None else [asdict(one) for one in facts.settlements],
        "deadline": asdict(facts.deadline) if facts.deadline else None,
        "processors": [asdict(one) for one in sorted(facts.processors, key=lambda p: p.name)],
        "accountability": [asdict(one) for one in sorted(facts.accountability, key=lambda a: a.dataset)],
        "approvers": sorted(facts.approvers),
        "rehearsal": facts.rehearsal,
    }
    # What is returned is what a reader of the bytes gets: lists, not tuples.
    read: dict[str, Any] = json.loads(certificate_bytes(document))
    return read


def certificate_bytes(document: Mapping[str, Any]) -> bytes:
    """Canonical bytes (RFC 8785) of a certificate; raises DoesNotHold for a float or a key that is not ASCII."""
    _plain(document, "certificate")
    # ASCII keys, no floats and integers below 2**53: these are RFC 8785's very bytes, in a tenth of the time.
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def outcome_of(verdicts: Iterable[str], *, outside: bool = False) -> str:
    """What the verdicts of all collections come to: erased, erased_with_retention, partial or failed.

    `outside`: the subject stands in files that no collection names; then the erasure is partial at most.
    """
    seen = {Verdict(one) for one in verdicts}
    if not seen or Verdict.FAILED in seen:
        return FAILED
    if outside:
        return PARTIAL
    return ERASED_WITH_RETENTION if Verdict.RETAINED in seen else ERASED


def finding_table(findings: pd.DataFrame) -> pa.Table:
    """A batch's findings under their schema; DoesNotHold where columns are missing or too many.

    To convert a table costs more than the rows of one person: whoever certifies a crowd does it once.
    """
    import pyarrow as pa

    if set(findings.columns) != set(FINDING.names):
        found = ", ".join(sorted(map(str, findings.columns)))
        raise DoesNotHold(f"findings: expected the columns of data/vocabulary.py FINDING, found {found}")
    return pa.Table.from_pandas(findings[FINDING.names], schema=FINDING, preserve_index=False)


def collection_rows(findings: pd.DataFrame | pa.Table, subject: int) -> list[dict[str, Any]]:
    """One subject's findings, sorted by address, as plain integers, strings and booleans."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = findings if isinstance(findings, pa.Table) else finding_table(findings)
    table = table.filter(pc.equal(table["subject"], subject))
    if not table.num_rows or any(column.null_count for column in table.columns):
        raise DoesNotHold(
            f"findings of subject {subject}: expected one row per collection without nulls, "
            f"found {table.num_rows} rows and {sum(c.null_count for c in table.columns)} nulls",
            hint="validate again",
        )
    ordered = table.sort_by([("dataset", "ascending"), ("collection", "ascending")])
    rows: list[dict[str, Any]] = ordered.drop_columns(["subject"]).to_pylist()
    return rows


def _explained(rows: Sequence[Mapping[str, Any]], retained: Sequence[Retained]) -> None:
    """Every retained row is explained by a rule, and nothing is explained that is not retained."""
    kept = {(r["dataset"], r["collection"]): r["rows_retained"] for r in rows if r["rows_retained"]}
    told: dict[tuple[str, str], int] = {}
    for one in retained:
        told[one.dataset, one.collection] = told.get((one.dataset, one.collection), 0) + one.rows
    if kept != told:
        where = ", ".join(sorted("/".join(a) for a in kept.keys() ^ told.keys() or kept.keys()))
        raise DoesNotHold(f"retained rows: expected a rule, class and date for each, found a difference in {where}")


def _sound(rows: Sequence[Mapping[str, Any]]) -> None:
    """No words stronger than what was shown, and no verdict that needs a reason without one."""
    for row in rows:
        if row["verdict"] in (Verdict.FAILED, Verdict.OUT_OF_SCOPE) and not row["reason"]:
            raise DoesNotHold(
                f"{row['dataset']}/{row['collection']}: expected a reason for {row['verdict']}, found none"
            )
        if row["verdict"] == Verdict.FAILED and row["claim"]:
            raise DoesNotHold(f"{row['dataset']}/{row['collection']}: expected no claim beside FAILED, found one")
        if claims_too_much(row["method"], f"{row['claim']} {row['reason']}"):
            raise DoesNotHold(
                f"{row['dataset']}/{row['collection']}: expected the words of overwriting, found those for a medium",
                hint="reports/words.py lists what may be said",
            )


def _limits(facts: CertificateFacts, rows: Sequence[Mapping[str, Any]]) -> Sequence[Any]:
    return limits(
        methods={row["method"] for row in rows},
        keys=facts.keys.destroyed > 0,
        copies=bool(facts.copies),
        export=facts.export is not None,
        witnessed=facts.witnessed,
        time_stamped=facts.time_stamped,
        crowd=facts.scan.breadth != "full",
        planted=facts.planted,
        control=facts.control,
    )


def _sorted(items: Iterable[Any]) -> list[Any]:
    return sorted(items, key=lambda one: (one.dataset, one.collection, getattr(one, "rule", "")))


def _place(place: str, reason: str) -> dict[str, str]:
    return {"place": place, "reason": reason}


def _with_class(one: dict[str, Any]) -> dict[str, Any]:
    return {("class" if key == "record_class" else key): value for key, value in one.items()}


def _minute(when: datetime | None) -> str | None:
    """A whole minute in UTC, e.g. 2026-11-22T22:30Z: seconds would tie entries of one person together."""
    if when is None:
        return None
    if when.tzinfo is None:
        raise ValueError("a time without zone cannot be certified")
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%MZ")


def _plain(value: Any, *where: Any) -> None:  # Any: walks a JSON document
    if isinstance(value, str | bool) or value is None:
        return
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not (isinstance(key, str) and key.isascii()):
                raise DoesNotHold(f"{_named(where)}: expected ASCII keys only")
            _plain(inner, where, key)
    elif isinstance(value, list | tuple):
        for n, inner in enumerate(value):
            _plain(inner, where, n)
    elif not isinstance(value, int):
        raise DoesNotHold(
            f"{_named(where)}: expected text, a whole number or a truth value, found {type(value).__name__}"
        )
    elif abs(value) >= 2**53:
        raise DoesNotHold(f"{_named(where)}: expected a whole number below 2**53")


def _named(
    where: tuple[Any, ...],
) -> str:  # Any: a place, and the key or index below it; put into words only when needed
    if len(where) == 1:
        return str(where[0])
    above, last = where
    return f"{_named(above)}[{last}]" if isinstance(last, int) else f"{_named(above)}.{last}"

"""Reports of a home: the periodic one, published once for a period, and who is affected by an incident.

A period is reported when it is over. Before that, and with `preview`, pages are only written where somebody wants to
see them: nothing is signed and the ledger does not learn of it.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fangxin.data.catalog.calendar import Calendar
from fangxin.data.errors import InputError, NotAllowed
from fangxin.flows.estate import LAWS, Estate
from fangxin.flows.paper import signatory
from fangxin.flows.publish import software
from fangxin.reports.ledger import checkpoint as notes
from fangxin.reports.ledger.entries import Entry, band
from fangxin.reports.ledger.tiles import replace_file
from fangxin.reports.paper.pades import sign, sign_for_long
from fangxin.reports.period import Period
from fangxin.reports.periodic import Earlier, Facts, figures, gather, report, report_bytes

KINDS = ("json", "html", "pdf", "parquet")
_CALENDARS = LAWS.parent / "calendars"


def publish_report(estate: Estate, period: Period) -> dict[str, Any]:  # Any: a JSON document
    """Publish the report of a period that is over, once; return it. A second call returns what was published."""
    if period.last.isoformat() >= estate.now.date().isoformat():
        raise NotAllowed(
            f"{period.id} is not over yet", hint="--preview --out DIR shows what is known so far, unsigned"
        )
    folder = estate.settings.home / "reports"
    known = earlier(estate)
    same = [one for one in known if one.period == period]
    if same:
        if same[-1].document is None:
            raise InputError(
                f"{period.id} was published, but its file is not in this home", hint="bring reports/ back from a backup"
            )
        return dict(same[-1].document)
    document = _report(estate, period, known, preview=False)
    files = _files(estate, document)
    for kind, body in files.items():
        replace_file(folder / f"{period.id}.{kind}", body)
    entry: Entry = {
        "type": "report.published",
        "time": estate.minute,
        "period": period.id,
        **{kind: hashlib.sha256(body).hexdigest() for kind, body in files.items()},
    }
    previous = document["chain"]["previous"]
    estate.ledger.append([{**entry, "previous": previous["json"]} if previous else entry])
    return document


def preview_report(estate: Estate, period: Period, out: Path) -> dict[str, Any]:  # Any: a JSON document
    """Write a report that nobody publishes: unsigned, marked on its first page, unknown to the ledger."""
    document = _report(estate, period, earlier(estate), preview=True)
    for kind, body in _files(estate, document).items():
        (out / f"{period.id}.preview.{kind}").write_bytes(body)
    return document


def earlier(estate: Estate) -> tuple[Earlier, ...]:
    """The reports that the ledger knows, in its order, with their documents where the home has them unchanged."""
    found = []
    for _index, one in estate.ledger.entries():
        if one["type"] == "report.published":
            path = estate.settings.home / "reports" / f"{one['period']}.json"
            body = path.read_bytes() if path.is_file() else b""
            there = hashlib.sha256(body).hexdigest() == one["json"]
            found.append(
                Earlier(Period.parse(str(one["period"])), str(one["json"]), json.loads(body) if there else None)
            )
    return tuple(found)


def _report(estate: Estate, period: Period, known: tuple[Earlier, ...], *, preview: bool) -> dict[str, Any]:
    laws = estate.laws.laws.values()
    document = report(
        Facts(
            period=period,
            origin=estate.settings.origin,
            ledger=gather(estate.ledger.entries(), period),
            certificates=_certificates(estate),
            rules={rule.id: (rule.text_en, rule.text_zh) for law in laws for rule in law.rules},
            working_days=_working_days,
            witnesses=tuple(
                one.name for one in notes.cosignatures(estate.ledger.checkpoint(), estate.signing.witnesses)
            ),
            time_stamped=estate.ledger.stamped,
            software=asdict(software()),
            earlier=known,
            preview=preview,
        )
    )
    read: dict[str, Any] = json.loads(report_bytes(document))
    return read


def _certificates(estate: Estate) -> dict[str, Mapping[str, Any]]:
    """By SHA-256: what a report needs of the certificates in this home."""
    found: dict[str, Mapping[str, Any]] = {}
    for path in sorted((estate.settings.home / "certificates").glob("*.json")):
        if path.suffixes == [".json"]:
            body = path.read_bytes()
            document = json.loads(body)
            found[hashlib.sha256(body).hexdigest()] = {key: document[key] for key in ("batch", "times", "collections")}
    return found


def _working_days(start: datetime, end: datetime) -> int:
    return Calendar.load(_CALENDARS, "cn").between(start, end)


def _files(estate: Estate, document: Mapping[str, Any]) -> dict[str, bytes]:
    from fangxin.reports.periodic_pages import report_html, report_pdf

    pdf = report_pdf(document)
    return {
        "json": report_bytes(document),
        "html": report_html(document),
        "pdf": pdf if document["preview"] else _signed(estate, pdf, document["period"]["id"]),
        "parquet": _table(document),
    }


def _signed(estate: Estate, pdf: bytes, period: str) -> bytes:
    """Sign for the long term where a time-stamping authority is named and its roots are here; else at level B-B."""
    from cryptography import x509

    from fangxin.reports.ledger.stamp import HttpTimeStamper

    by, reason = signatory(estate), f"Report {period}"
    roots = estate.settings.home / "keys" / "tsa-ca.pem"
    if not estate.settings.tsa:
        return sign(pdf, by=by, at=estate.now, reason=reason)
    if not roots.is_file():
        raise InputError("keys/tsa-ca.pem: not there", hint="the root certificate of the authority that `tsa` names")
    authorities = x509.load_pem_x509_certificates(roots.read_bytes())
    replies = HttpTimeStamper(estate.settings.tsa).ask
    return sign_for_long(pdf, by=by, at=estate.now, reason=reason, replies=replies, authorities=authorities)


def _table(document: Mapping[str, Any]) -> bytes:
    """Every figure as a row: path, count, band; null for both where nothing was recorded."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths, counts, bands = zip(*figures(document), strict=True)
    table = pa.table(
        {"figure": pa.array(paths), "count": pa.array(counts, pa.int64()), "band": pa.array(bands, pa.string())}
    )
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd")
    return out.getvalue()


# ---------------------------------------------------------------- incidents


def incident(estate: Estate, dataset: str, at: str) -> dict[str, Any]:  # Any: a JSON document
    """Who is affected if a dataset leaked at a moment, and who answers for it: requests by receipt, never people.

    Of each request that a certificate speaks about: was something of theirs in that dataset at that moment?

        present     it was, and was erased later
        retained    it was, because a law keeps it; it still is, until its day
        erased      nothing of theirs was there any more: the certificate shows since when
        absent      nothing of theirs was ever found there

    Open requests are `unknown`: they have no certificate yet. A receipt is the SHA-256 of the code that the person has.
    """
    moment = _minute(at)
    accountable = next((d.accountable for d in estate.catalog.datasets if d.key == dataset), None)
    if accountable is None:
        known = ", ".join(d.key for d in estate.catalog.datasets)
        raise InputError(f"--dataset: the catalog has no {dataset}", hint=f"one of {known}")
    rows = []
    for request, receipt, path in estate.requests.receipts():
        document = json.loads(Path(path).read_bytes()) if path and Path(path).is_file() else None
        state = _state(document, dataset, moment)
        row = {"request": request, "receipt": receipt, "state": state, "certificate": None, "until": None}
        if document is not None:
            row |= {"certificate": document["number"], "until": _until(document, dataset)}
            row |= {"executor": _executor(document, dataset), "approvers": document.get("approvers", [])}
            row |= {"software": document["software"]["sha256"]}
        rows.append(row)
    counts = {state: sum(row["state"] == state for row in rows) for state in _STATES}
    return {
        "dataset": dataset,
        "at": moment,
        "owner": accountable.owner,
        "executor": accountable.executor,
        "terms": accountable.terms,
        "processors": list(accountable.processors),
        "affected": counts,
        "requests": sorted(rows, key=lambda row: (_STATES.index(str(row["state"])), str(row["receipt"]))),
    }


def record_incident(estate: Estate, document: Mapping[str, Any]) -> str:
    """Put an incident on record: a signed statement in `dsse/`; the ledger has its digest and a band."""
    from fangxin.reports.ledger import statement

    body = json.dumps(document, sort_keys=True, ensure_ascii=False).encode()
    host = estate.settings.origin.partition("/")[0]
    digest = statement.write(
        estate.settings.home / "dsse",
        keys=estate.signing,
        predicate_type=f"https://{host}/incident/v1",
        subjects={"incident.json": hashlib.sha256(body).hexdigest()},
        predicate={"dataset": document["dataset"], "at": document["at"], "affected": document["affected"]},
    )
    affected = sum(document["affected"][state] for state in ("present", "retained", "unknown"))
    estate.ledger.append(
        [{"type": "incident.recorded", "time": estate.minute, "digest": digest, "requests": band(affected)}]
    )
    return digest


_STATES = ("present", "retained", "unknown", "erased", "absent")


def _state(document: Mapping[str, Any] | None, dataset: str, moment: str) -> str:
    if document is None:
        return "unknown"
    rows = [row for row in document["collections"] if row["dataset"] == dataset]
    if any(row["rows_retained"] for row in rows):
        return "retained"
    if not any(row["rows_found"] for row in rows):
        return "absent"
    validated = document["times"]["validated"]
    return "erased" if validated is not None and validated <= moment else "present"


def _until(document: Mapping[str, Any], dataset: str) -> str | None:
    return max((one["until"] for one in document["retained"] if one["dataset"] == dataset), default=None)


def _executor(document: Mapping[str, Any], dataset: str) -> str:
    named = [one["executor"] for one in document.get("accountability", []) if one["dataset"] == dataset]
    return named[0] if named else ""


def _minute(text: str) -> str:
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        raise InputError("--at: expected an ISO 8601 time such as 2026-11-24T09:00:00+08:00") from None
    return (given if given.tzinfo else given.replace(tzinfo=UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%MZ")

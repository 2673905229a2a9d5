"""Commands about paper: periodic reports, incidents, an officer's validation of certificates."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from fangxin.data.errors import InputError, unread
from fangxin.flows.cli.console import answer, say, table


def report(
    home: Path,
    catalog: Path | None,
    first: str,
    last: str,
    *,
    out: Path | None,
    preview: bool,
    now: str | None,
    as_json: bool,
) -> int:
    """Publish a period's report, or show a preview of it."""
    from fangxin.flows.estate import alone, open_estate
    from fangxin.flows.report import KINDS, preview_report, publish_report
    from fangxin.flows.settings import clock, load
    from fangxin.reports.period import Period

    period = Period.of(first, last)
    if preview and out is None:
        raise InputError("--preview: say where the pages go", hint="--out DIR; a preview is never kept in the home")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    estate = open_estate(home, catalog, clock(load(home), now))
    if preview and out is not None:
        document = preview_report(estate, period, out)
        files = [out / f"{period.id}.preview.{kind}" for kind in KINDS]
    else:
        with alone(home):
            document = publish_report(estate, period)
        files = [home / "reports" / f"{period.id}.{kind}" for kind in KINDS]
        if out is not None:
            files = [Path(shutil.copy(one, out / one.name)) for one in files]

    def words() -> None:
        flow = document["flow"]
        say(f"{period.id}: {flow['received']} received, {flow['closed']} closed, {flow['open']} open")
        say(_VERDICT[document["verdict"]])
        if missing := document["chain"]["missing"]:
            say(f"no report covers {missing['from']} to {missing['to']}")
        for one in files:
            say(str(one))

    answer({"report": document, "files": [str(one) for one in files]}, as_json=as_json, words=words)
    return int(document["verdict"] == "bad")


_VERDICT = {
    "good": "everything that was closed was checked again and nothing was left",
    "none": "nothing was closed",
    "mind": "there are matters to explain",
    "bad": "something that should be gone is still there",
}


def incident(
    home: Path, catalog: Path | None, dataset: str, at: str, *, record: bool, now: str | None, as_json: bool
) -> int:
    """List who is affected by an incident, by receipt, and who answers for the dataset."""
    from fangxin.flows.estate import alone, open_estate
    from fangxin.flows.report import incident as find
    from fangxin.flows.report import record_incident
    from fangxin.flows.settings import clock, load

    estate = open_estate(home, catalog, clock(load(home), now))
    document = find(estate, dataset, at)
    if record:
        with alone(home):
            document["statement"] = record_incident(estate, document)

    def words() -> None:
        say(f"dataset {dataset} at {document['at']}")
        say(f"owner {document['owner'] or 'not declared'}, carried out by {document['executor'] or 'not declared'}")
        say(f"accepted terms {document['terms'] or 'not declared'}")
        rows = [
            (one["state"], one["receipt"][:16], one["request"], one["certificate"] or "", one["until"] or "")
            for one in document["requests"]
        ]
        table(("state", "receipt", "request", "certificate", "kept until"), rows)
        if record:
            say(f"on record: statement {document['statement']}")

    answer(document, as_json=as_json, words=words)
    return 0


def print_certificate(home: Path, number: str, *, out: Path, now: str | None, as_json: bool) -> int:
    """Write a certificate's PDF into a new file."""
    from fangxin.flows.estate import open_estate
    from fangxin.flows.paper import printed
    from fangxin.flows.settings import clock, load

    if out.exists():
        raise InputError(f"{out}: exists already", hint="name a new file")
    body = printed(open_estate(home, now=clock(load(home), now)), number)
    try:
        out.write_bytes(body)
    except OSError as error:
        raise InputError(f"{out}: {unread(error)}", hint="--out FILE in a folder that exists") from None
    document = {"certificate": number, "pdf": str(out), "bytes": len(body)}
    answer(document, as_json=as_json, words=lambda: say(f"{out}: {number}, signed; its JSON is attached"))
    return 0


def validate(
    home: Path,
    numbers: Sequence[str],
    *,
    officer: str | None,
    key: Path | None,
    out: Path | None,
    signed: Sequence[Path],
    now: str | None,
    as_json: bool,
) -> int:
    """Sign as an officer that certificates are accepted, and take in what officers signed."""
    from fangxin.flows.estate import alone, open_estate
    from fangxin.flows.paper import admit
    from fangxin.flows.settings import clock, load

    if bool(numbers) == bool(signed):
        raise InputError("say what to validate", hint="certificates with --officer and --key, or --signed FILE...")
    if numbers and (officer is None or key is None):
        raise InputError("who validates?", hint="--officer NAME --key NAME.key, as `fangxin keys officer` made them")
    if numbers:
        when = datetime.now(UTC) if now is None else clock(load(home), now)
        statements = [_sign(home, one, officer or "", key or Path(), when) for one in numbers]
    else:
        statements = [(one, _read(one)) for one in signed]
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        files = []
        for name, body in statements:
            files.append(out / f"{name.name.partition('.')[0]}.validation.json")
            files[-1].write_bytes(body)
        answer(
            {"signed": [str(one) for one in files]},
            as_json=as_json,
            words=lambda: say("\n".join(str(one) for one in files)),
        )
        return 0
    with alone(home):
        found = admit(open_estate(home, now=clock(load(home), now)), [body for _name, body in statements])
    document = {"validated": [vars(one) for one in found]}

    def words() -> None:
        for one in found:
            say(f"{one.number}: accepted by {one.officer} at {one.signed}")

    answer(document, as_json=as_json, words=words)
    return 0


def _sign(home: Path, what: str, officer: str, key: Path, when: datetime) -> tuple[Path, bytes]:
    """A certificate, by number in this home or as a file elsewhere, and the officer's statement about it."""
    import json

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    from fangxin.reports.ledger.entries import minute
    from fangxin.reports.validation import accept

    path = Path(what) if what.endswith(".json") else home / "certificates" / f"{what}.json"
    try:
        secret = load_pem_private_key(_read(key), None)
        document = json.loads(_read(path))
    except (ValueError, TypeError) as error:
        raise InputError(f"{key} or {path.name}: cannot be read: {unread(error)}") from None
    if not isinstance(secret, Ed25519PrivateKey):
        raise InputError(f"{key}: expected an Ed25519 key", hint="`fangxin keys officer` makes one")
    if not isinstance(document, dict) or document.get("format") != "fangxin/certificate/1":
        raise InputError(f"{path.name}: not a certificate", hint="the JSON file, or its number in this home")
    return path, accept(document, officer=officer, key=secret, minute=minute(when))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {unread(error)}") from None

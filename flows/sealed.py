"""Sealed canaries: made-up people of an auditor, whom the run does not know from anybody else until it is over.

    before    the auditor writes a file of made-up people and of where their records stand, and gives away a commitment:
              HMAC-SHA256 of the people under 32 random bytes that stay in the file. `canary.planted` logs it
    the run   erases them like everybody who asked; nothing in it can tell them apart
    after     validation is done, and before anything is published, the auditor opens the file: every placement is
              erased, kept by law, reported as found outside the catalog, or missed. `canary.erased` logs the outcome

Misses stand on every certificate of the batch. The operator cannot choose the people, cannot learn them before, and
cannot leave the opening out unseen: a certificate says that a seal was never opened.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rfc8785
import yaml

from fangxin.checks.residue.patterns import needles_for
from fangxin.checks.residue.scan import scan
from fangxin.data.catalog.kinds import check
from fangxin.data.errors import FangxinError, Incomplete, InputError, NotAllowed
from fangxin.data.requests import Batch
from fangxin.data.vocabulary import Identity
from fangxin.flows.batch import opened, outcome
from fangxin.flows.canary import canary_identities
from fangxin.flows.estate import Estate
from fangxin.flows.frames import unpack
from fangxin.flows.places import Places, places
from fangxin.flows.sight import Sight
from fangxin.reports.ledger.tiles import replace_file

if TYPE_CHECKING:
    import pandas as pd

FORMAT, SEAL = "fangxin/canaries/1", "fangxin/canary-seal/1"
OUTCOMES = ("erased", "retained", "reported", "missed")
_HINT = "`fangxin canary draft FILE` writes one that is right"


@dataclass(frozen=True)
class Placement:
    """Where a record of a made-up person stands: a collection of the catalog, or a file below its root."""

    collection: str = ""
    file: str = ""


@dataclass(frozen=True)
class Person:
    """One made-up person."""

    identities: tuple[Identity, ...]
    placements: tuple[Placement, ...]


@dataclass(frozen=True)
class Envelope:
    """What the auditor sealed; the blinding keeps the commitment from being guessed."""

    people: tuple[Person, ...]
    blinding: bytes = field(repr=False)

    @property
    def commitment(self) -> str:
        """HMAC-SHA256(blinding, RFC 8785 of the people), in hex."""
        return hmac.new(self.blinding, rfc8785.dumps(self.listed()), hashlib.sha256).hexdigest()

    @property
    def placements(self) -> int:
        """How many there are, of all people."""
        return sum(len(one.placements) for one in self.people)

    def listed(self) -> list[dict[str, Any]]:  # Any: JSON
        """The people as the file has them; what is committed to."""
        return [
            {
                "identities": {i.kind: i.value for i in one.identities},
                "placements": [{k: v for k, v in asdict(p).items() if v} for p in one.placements],
            }
            for one in self.people
        ]


@dataclass(frozen=True)
class Seal:
    """What the auditor gives away beforehand."""

    commitment: str
    people: int
    placements: int


@dataclass(frozen=True)
class Found:
    """What became of one placement: an outcome of OUTCOMES and, for people, why."""

    person: int  # from 1, in the order of the file
    placement: Placement
    outcome: str
    why: str


# ------------------------------------------------------------ the auditor's files


def draft(path: Path, *, people: int, kinds: Sequence[str]) -> Envelope:
    """Make people up and write them into a new file, with placements to be filled in."""
    if path.exists():
        raise InputError(f"{path}: is there already", hint="name a new file")
    made = tuple(
        Person(
            canary_identities(frozenset(kinds), None), (Placement("dataset/collection"), Placement("", "a/file.csv"))
        )
        for _ in range(people)
    )
    envelope = Envelope(made, secrets.token_bytes(32))
    document = {"format": FORMAT, "blinding": envelope.blinding.hex(), "people": envelope.listed()}
    head = (
        "# An auditor's canaries: keep this file to yourself until the run is validated.\n"
        "# Correct the placements (`collection:` of the catalog, or `file:` below its root), plant the people there,\n"
        "# then `fangxin canary seal` and give away the seal alone. A change after that breaks it.\n"
    )
    path.touch(mode=0o600)
    path.write_text(head + yaml.safe_dump(document, sort_keys=False, allow_unicode=True), "utf-8")
    return envelope


def read_envelope(path: Path) -> Envelope:
    """Read an auditor's file; InputError says what is wrong with it, and quotes no value."""
    raw = _document(path, yaml.safe_load, FORMAT)
    blinding, listed = raw.get("blinding"), raw.get("people")
    if not isinstance(blinding, str) or len(blinding) != 64 or set(blinding) - set("0123456789abcdef"):
        raise InputError(f"{path}: blinding: expected 64 hexadecimal digits", hint=_HINT)
    if not isinstance(listed, list) or not listed:
        raise InputError(f"{path}: people: expected a list of at least one", hint=_HINT)
    people = tuple(_person(path, n, one) for n, one in enumerate(listed, start=1))
    return Envelope(people, bytes.fromhex(blinding))


def seal(envelope: Envelope, to: Path) -> Seal:
    """Write the seal of an envelope into a new file."""
    if to.exists():
        raise InputError(f"{to}: is there already", hint="name a new file for the seal")
    made = Seal(envelope.commitment, len(envelope.people), envelope.placements)
    to.write_text(json.dumps({"format": SEAL, **asdict(made)}, indent=1) + "\n", "utf-8")
    return made


def read_seal(path: Path) -> Seal:
    """Read a seal; InputError for anything else."""
    raw = _document(path, json.loads, SEAL)
    commitment, people, placements = (raw.get(k) for k in ("commitment", "people", "placements"))
    good = isinstance(commitment, str) and len(commitment) == 64 and not set(commitment) - set("0123456789abcdef")
    if not good or type(people) is not int or type(placements) is not int or people < 1 or placements < 1:
        raise InputError(f"{path}: expected commitment, people and placements", hint="`fangxin canary seal` writes it")
    return Seal(str(commitment), people, placements)


def _document(path: Path, load: Any, kind: str) -> dict[str, Any]:  # Any: a parser, and JSON
    try:
        raw = load(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, yaml.YAMLError):
        raise InputError(f"{path}: not well-formed; expected {kind}", hint=_HINT) from None
    if not isinstance(raw, dict) or raw.get("format") != kind:
        raise InputError(f"{path}: format: expected {kind}, found another", hint=_HINT)
    return raw


def _person(path: Path, number: int, raw: Any) -> Person:  # Any: YAML
    where = f"{path}: person {number}"
    identities = raw.get("identities") if isinstance(raw, dict) else None
    listed = raw.get("placements") if isinstance(raw, dict) else None
    if not isinstance(identities, dict) or not identities or not isinstance(listed, list) or not listed:
        raise InputError(f"{where}: expected identities and placements, at least one of each", hint=_HINT)
    if not all(isinstance(k, str) and isinstance(v, str) for k, v in identities.items()):
        raise InputError(f"{where}: identities: expected texts; put numbers into quotes")
    found = []
    for one in listed:
        if not isinstance(one, dict) or len(one) != 1 or not {"collection", "file"} & one.keys():
            raise InputError(f"{where}: a placement is either `collection: dataset/name` or `file: path`")
        if not all(isinstance(v, str) and v for v in one.values()):
            raise InputError(f"{where}: a placement names a collection or a file")
        found.append(Placement(**one))
    try:
        known = tuple(Identity(k, check(k, v)) for k, v in identities.items())
    except FangxinError as error:
        raise InputError(f"{where}: {error.message}", hint=error.hint) from None
    return Person(known, tuple(found))


# ------------------------------------------------------------ the operator's side


def commit(estate: Estate, seals: Sequence[Seal]) -> None:
    """Log the commitments before anything is located; once, however often a run is opened under them."""
    known = {e["digest"] for _n, e in estate.ledger.entries() if e["type"] == "canary.planted"}
    estate.ledger.append(
        [
            {"type": "canary.planted", "time": estate.minute, "digest": one.commitment}
            for one in seals
            if one.commitment not in known
        ]
    )


def watched(batch: Batch) -> tuple[Seal, ...]:
    """The seals under which a batch runs."""
    return tuple(Seal(**one) for one in batch.options.get("canaries") or ())


def told(estate: Estate, batch: Batch) -> dict[str, Mapping[str, Any]]:  # Any: JSON
    """What became of every seal of a batch, by commitment; Incomplete while one waits for its auditor."""
    found = {}
    for one in watched(batch):
        note = estate.requests.note(batch.id, f"canary/{one.commitment}")
        if note is None:
            raise Incomplete(
                f"{one.people} sealed canaries of an auditor are not opened yet; nothing is published before",
                hint="`fangxin canary open FILE`, then `fangxin resume`; or `fangxin canary unopened BATCH --yes`",
            )
        found[one.commitment] = note
    return found


def unopened(batch_id: str) -> int:
    """Go on without the auditor: what waits is published as never opened. Returns how many seals that were."""
    estate, batch = opened(batch_id)
    _validated(estate, batch)
    waiting = [s for s in watched(batch) if estate.requests.note(batch.id, f"canary/{s.commitment}") is None]
    for one in waiting:
        note = {"opened": False, "placements": one.placements, **dict.fromkeys(OUTCOMES, 0)}
        estate.requests.done(batch.id, f"canary/{one.commitment}", at=estate.minute, note=note)
    return len(waiting)


def unseal(estate: Estate, batch: Batch, envelope: Envelope) -> tuple[Found, ...]:
    """Open an envelope: judge every placement, keep the counts for the certificates, log the outcome. Idempotent.

    Raises NotAllowed for an envelope whose commitment the batch does not run under (or that was changed since), or
    before the batch is validated.
    """
    if envelope.commitment not in {one.commitment for one in watched(batch)}:
        raise NotAllowed(
            "this file is not what was sealed for the batch: its commitment is another",
            hint="the file must be, to the letter, the one from which the seal was made",
        )
    _validated(estate, batch)
    found = tuple(_judged(estate, batch, envelope))
    counts = {word: sum(one.outcome == word for one in found) for word in OUTCOMES}
    listed = [{"person": f.person, **asdict(f.placement), "outcome": f.outcome, "why": f.why} for f in found]
    document = {"format": "fangxin/canaries-opened/1", "batch": batch.id, "commitment": envelope.commitment}
    body = json.dumps({**document, **counts, "placements": listed}, sort_keys=True, separators=(",", ":")).encode()
    folder = estate.settings.home / "reports"
    replace_file(folder / f"canaries-{envelope.commitment[:16]}.json", body)
    digest = hashlib.sha256(body).hexdigest()
    known = {e.get("seal") for _n, e in estate.ledger.entries() if e["type"] == "canary.erased"}
    if envelope.commitment not in known:
        entry = {"type": "canary.erased", "time": estate.minute, "digest": digest, "seal": envelope.commitment}
        estate.ledger.append([{**entry, "placements": len(found), **counts}])
    note = {"opened": True, "placements": len(found), **counts}
    estate.requests.done(batch.id, f"canary/{envelope.commitment}", at=estate.minute, note=note)
    return found


def _validated(estate: Estate, batch: Batch) -> None:
    closing = batch.state != "open" or not batch.secret  # its keys are dead, and what they sealed with them
    if closing or outcome(estate, batch, "validate") is None:
        raise NotAllowed(
            "the batch is not validated, or is closed", hint="the seal is opened after validation, before publishing"
        )


def _judged(estate: Estate, batch: Batch, envelope: Envelope) -> Sequence[Found]:
    """Every placement against what the run recorded, and against a search of these places now."""
    requests = [r for r in estate.requests.requests(batch.id) if not r.canary]
    owners = {i: r.number for r in requests for i in r.identities}
    table = unpack(estate.requests.kept(batch, "findings") or b"")[0]
    before, after = (Sight.unpack(estate.requests.kept(batch, name) or b"") for name in ("before", "after"))
    where = places(estate)
    now = _now(where, envelope, [_places(estate, where, p) for one in envelope.people for p in one.placements])
    found = []
    for person, one in enumerate(envelope.people, start=1):
        numbers = {owners[i] for i in one.identities if i in owners}
        for placement in one.placements:
            here = _places(estate, where, placement)
            if len(numbers) != 1:
                outcome_, why = "missed", "nobody in this batch has these identities"
            elif placement.file and not any(where.claims.get(p) for p in here):
                outcome_, why = _reported(numbers.copy().pop(), here, before, after)
            else:
                addresses = (
                    {placement.collection} if placement.collection else {a for p in here for a in where.claims[p]}
                )
                still = any((person - 1, p) in now for p in here)
                outcome_, why = _erased(table, numbers.copy().pop(), addresses, still=still)
            found.append(Found(person, placement, outcome_, why))
    return found


def _places(estate: Estate, where: Places, placement: Placement) -> tuple[str, ...]:
    """The places of a placement: the units of its collection, or its file."""
    if placement.collection:
        return tuple(p for p, owners in where.claims.items() if placement.collection in owners)
    path = estate.catalog.root / placement.file  # an absolute path stays itself
    return tuple(place for place, at in where.files if at == path)


def _now(where: Places, envelope: Envelope, wanted: Sequence[Sequence[str]]) -> set[tuple[int, str]]:
    """Person (from 0) and place, where the made-up people stand now: searched anew, from the auditor's own values."""
    asked = sorted({place for one in wanted for place in one})
    people = [(n, i) for n, one in enumerate(envelope.people) for i in one.identities]
    hits = scan([(p, where.paths[p]) for p in asked], needles_for(people)).hits
    return set(zip(hits["subject"].to_pylist(), hits["place"].to_pylist(), strict=True))


def _reported(number: int, here: Sequence[str], before: Sight, after: Sight) -> tuple[str, str]:
    def stands(seen: Sight) -> bool:
        return bool(((seen.hits["subject"] == number) & seen.hits["place"].isin(here)).any())

    if stands(after):
        return "reported", "found outside the catalog, and told on the certificate"
    if not here:
        return "missed", "no such file is walked: neither below the catalog's root nor watched"
    return "missed", "gone since the baseline saw it" if stands(before) else "a file that the search did not see it in"


def _erased(table: pd.DataFrame, number: int, addresses: set[str], *, still: bool) -> tuple[str, str]:
    mine = table[(table["subject"] == number) & (table["dataset"] + "/" + table["collection"]).isin(addresses)]
    if mine.empty:
        return "missed", "the catalog has no such collection"
    if not (mine["baseline_hits"] > 0).any():
        return "missed", "the baseline did not see it there"
    if set(mine["verdict"]) == {"ERASED"}:
        return ("missed", "found again now") if still else ("erased", "seen before, and in no byte now")
    kept = set(mine["verdict"]) <= {"ERASED", "RETAINED"}
    return ("retained", "kept under a rule, as the certificate says") if kept else ("missed", "not erased there")

"""Publish: a certificate for every person, a statement of the findings, and the auditor's package.

Nothing is published unless the suites over the findings (and over the export) passed, or an operator ended the batch as
it stands (flows/as_it_stands.py): then whoever something FAILED of gets a certificate that says so. A certificate is
issued when a signed checkpoint of the ledger covers its digest; its receipt lies beside it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fangxin
from fangxin.data.errors import DoesNotHold
from fangxin.data.requests import Batch, Request
from fangxin.data.vocabulary import Mode
from fangxin.flows import gather, sealed
from fangxin.flows.batch import approved_plan, finish, is_done, opened, outcome, signed
from fangxin.flows.consumers import KIND
from fangxin.flows.estate import Estate
from fangxin.flows.evidence import ISSUED, VALIDATED, VALIDATED_FAILED, load_keys, load_sources, mark, of_look, record
from fangxin.flows.frames import each, tuples, unpack
from fangxin.flows.outside import closed as closed_places
from fangxin.flows.outside import drafts
from fangxin.flows.outsiders import attest
from fangxin.flows.paper import pages, signatory
from fangxin.flows.places import places
from fangxin.flows.plan import Plan, held_classes, last_day, needs
from fangxin.flows.sight import Sight, needles, searchable
from fangxin.flows.unplant import stays
from fangxin.reports.certificate import (
    Accountable,
    CertificateFacts,
    DeclaredCopy,
    ExportFacts,
    Holder,
    Inodes,
    KeptKey,
    Keys,
    LedgerProof,
    Mention,
    Outside,
    Processor,
    Retained,
    Scan,
    SealedCanaries,
    Share,
    SharedRows,
    Software,
    Times,
    certificate,
    certificate_bytes,
    finding_table,
)
from fangxin.reports.ledger import statement
from fangxin.reports.ledger.tiles import replace_file
from fangxin.reports.paper.signatory import Signatory
from fangxin.reports.render import render

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@dataclass(frozen=True)
class Story:
    """Everything about a batch that its certificates tell."""

    batch: Batch
    requests: Sequence[Request]
    plan: Plan
    findings: pd.DataFrame = field(repr=False)
    after: Sight
    outside: pd.DataFrame = field(repr=False)  # flows/outside.py
    shut: tuple[tuple[str, str], ...]  # places that could not be examined, and why, as a page may show them
    closures: Mapping[str, Mapping[str, Any]]  # store name -> what became of its inodes
    canaries: Mapping[str, Mapping[str, Any]]  # an auditor's commitment -> what became of it
    account: str  # the kind that says who somebody is
    approvers: tuple[str, ...]  # officers who signed the plan, where somebody had to
    keys: Mapping[str, Any]  # the vault receipt's event
    gone: Mapping[str, int]  # flows/keys_gone.py
    shared: pd.DataFrame = field(repr=False)  # subject, collection, rows, others
    exported: Mapping[str, Mapping[str, Any]]  # request id -> manifest, rows, files
    times: Mapping[str, str | None]
    look: int = 0  # how many looks came before the one that validated it (flows/validate.py)
    planted: Mapping[str, int] = field(default_factory=dict)  # where the canary stayed (flows/unplant.py)
    control: tuple[str, ...] = ()  # in which collections the look FAILED for the canary
    heard: Mapping[str, Mapping[str, Sequence[str | None]]] = field(default_factory=dict)  # flows/consumers.py

    @cached_property
    def by_subject(self) -> Mapping[str, Mapping[int, pd.DataFrame]]:
        """Each subject's part of these tables; most people are in few of them, and an empty one costs nothing."""
        return {name: dict(each(frame, "subject")) for name, frame in self._frames.items()}

    @cached_property
    def _frames(self) -> Mapping[str, pd.DataFrame]:
        fates, facts = self.plan.fates, self.plan.facts
        return {
            "retained": fates[fates["fate"] == "retain"],
            "mentioned": fates[fates["fate"].isin(["mask", "mention"])],
            "hits": self.after.hits,
            "shared": self.shared,
            "outside": self.outside,
            "accounts": facts[facts["kind"] == self.account],
        }

    @cached_property
    def _none(self) -> Mapping[str, pd.DataFrame]:
        return {name: frame.iloc[:0] for name, frame in self._frames.items()}

    def of(self, name: str, subject: int) -> pd.DataFrame:
        """One subject's part of one of these tables."""
        found = self.by_subject[name]
        return found[subject] if subject in found else self._none[name]

    @cached_property
    def rows(self) -> pa.Table:
        """The findings of everybody, as certificates take them."""
        return finding_table(self.findings)

    @cached_property
    def failed(self) -> frozenset[int]:
        """The subjects of whom something FAILED, where the batch ended as it stands."""
        return frozenset(self.findings.loc[self.findings["verdict"] == "FAILED", "subject"].tolist())

    @cached_property
    def people(self) -> Sequence[Request]:
        """Everybody but the canary."""
        return [one for one in self.requests if not one.canary]

    @cached_property
    def clean(self) -> frozenset[str]:
        """The places that were read to their end; a home has tens of thousands, so they are taken together once."""
        return frozenset(self.after.read) - {place for place, _reason in self.after.not_examinable}

    @cached_property
    def bytes(self) -> int:
        """Bytes read over all places."""
        return self.after.total


def publish(batch_id: str) -> None:
    """Issue the certificates and write the auditor's package."""
    estate, batch = opened(batch_id)
    if is_done(estate, batch, "publish"):
        return
    load_sources(estate, software().sha256)  # what certifies may be a newer version than what opened the batch
    story = _story(estate, batch)
    issued = issue(estate, story)
    entries = offer(estate, story)
    path = package(estate, issued, batch)
    finish(estate, batch, "publish", issued=issued, package=str(path), drafts=entries)


def issue(estate: Estate, story: Story) -> dict[str, dict[str, str]]:
    """Issue a certificate per person and write the package; idempotent. Returns paths per request id."""
    folder = estate.settings.home / "certificates"
    by = signatory(estate)
    load_keys(estate)
    issued, entries = {}, []
    people = story.people
    proofs = {one: _proof(estate, story, failed=one) for one in {p.number in story.failed for p in people}}
    _by_bytes, by_record = searchable(estate.catalog, story.plan.facts)
    for one in people:
        number = f"FX-{story.batch.id.split('-')[1][:6].upper()}-{one.number + 1:04d}"
        path = folder / f"{number}.json"
        if path.exists():  # issued before a crash: the same bytes are published, never a second version
            body = path.read_bytes()
            document = _read(body)
        else:
            document = certificate(_facts(estate, story, one, number, proofs[one.number in story.failed], by_record))
            body = certificate_bytes(document)
            replace_file(path, body)
        made = _pages(estate, document, by)
        digests = {kind: hashlib.sha256(content).hexdigest() for kind, content in {"json": body, **made}.items()}
        entries.append(
            {
                "type": "certificate.issued",
                "tag": mark(one, ISSUED),
                **digests,
                "verdict": document["outcome"],
            }
        )
        issued[one.id] = {"number": number, "outcome": document["outcome"], "certificate": str(path)}
    found = record(estate, entries)
    for one, entry in zip(people, entries, strict=True):
        issued[one.id]["index"] = str(found[str(entry["tag"])])
    estate.requests.certified([(one, told["outcome"], told["certificate"]) for one, told in issued.items()])
    return issued


def _pages(estate: Estate, document: Mapping[str, Any], by: Signatory) -> dict[str, bytes]:
    """Write a certificate's pages; a PDF that was signed before a crash stays, since no second one has its bytes."""
    folder, number = estate.settings.home / "certificates", document["number"]
    before = folder / f"{number}.pdf"
    there = before.exists()
    if there or estate.settings.paper == "request":
        made = {"html": render(document), **({"pdf": before.read_bytes()} if there else {})}
    else:
        made = pages(estate, document, by=by)
    for kind, content in made.items():
        replace_file(folder / f"{number}.{kind}", content)
    return made


def offer(estate: Estate, story: Story) -> list[str]:
    """Draft catalog entries for the files outside the catalog in which people stand; the drafts, one for each root."""
    found = sorted(set(story.outside["place"]))  # as printed: a name with rare characters is listed, not drafted
    if not found:
        return []
    wanted = needles(estate.catalog, story.plan.facts, story.plan.texts)
    written = []
    for root, text in drafts(estate, places(estate), found, wanted).items():
        path = estate.settings.home / "reports" / f"{root}-{story.batch.id}.yml"
        replace_file(path, text.encode())
        written.append(str(path))
    return written


def package(estate: Estate, issued: Mapping[str, Mapping[str, str]], batch: Batch) -> Path:
    """Write the auditor's package of the batch under a head that outsiders were asked about."""
    chosen = [
        gather.Issued(int(one["index"]), Path(one["certificate"]), _read(Path(one["certificate"]).read_bytes()))
        for one in issued.values()
    ]
    attest(estate)
    out = estate.settings.home / "reports" / f"package-{batch.id}.zip"
    gather.published(estate, gather.write(estate, out, chosen))
    return out


def state_findings(
    estate: Estate, batch: Batch, findings: pd.DataFrame, figures: Mapping[str, Any], *, name: str = "statement"
) -> str:
    """Sign what was found as an in-toto statement; the ledger holds its digest only. `name`: under which it is kept."""
    kept = estate.requests.kept(batch, name)
    if kept is not None:
        return kept.decode()
    table = hashlib.sha256(findings.to_csv(index=False).encode()).hexdigest()
    verdicts = {str(k): int(v) for k, v in findings["verdict"].value_counts().sort_index().items()}
    host = estate.settings.origin.split("/", 1)[0]
    digest = statement.write(
        estate.settings.home / "dsse",
        keys=estate.signing,
        predicate_type=f"https://{host}/erasure/v1",
        subjects={"findings.csv": table},
        predicate={"batch": batch.id, "verdicts": verdicts, **figures},
    )
    estate.requests.keep(batch, name, digest.encode())
    return digest


@cache
def software() -> Software:
    """Version, and SHA-256 over every source file of the four rooms, sorted by path."""
    root = Path(fangxin.__file__).resolve().parent
    running = hashlib.sha256()
    for room in ("checks", "data", "flows", "reports"):
        folder = (root / room).resolve()
        for path in sorted(folder.rglob("*.py")):
            running.update(f"{room}/{path.relative_to(folder)}\0".encode())
            running.update(hashlib.sha256(path.read_bytes()).digest())
    return Software(fangxin.__version__, running.hexdigest())


def _story(estate: Estate, batch: Batch) -> Story:
    steps = ("plant", "export", "destroy_keys", "overwrite", "validate")
    notes = {s: outcome(estate, batch, s) or {} for s in steps}
    if not notes["overwrite"]:  # a lost database was passed over under an operator's word: when the others were
        notes["overwrite"] = estate.requests.note(batch.id, "overwrite") or {}
    after = Sight.unpack(estate.requests.kept(batch, "after") or b"")
    requests = estate.requests.requests(batch.id)
    findings = unpack(estate.requests.kept(batch, "findings") or b"")[0]
    control = findings[(findings["subject"] == requests[-1].number) & (findings["verdict"] == "FAILED")]
    return Story(
        batch=batch,
        requests=requests,
        plan=approved_plan(estate, batch),
        findings=findings,
        after=after,
        outside=unpack(estate.requests.kept(batch, "outside") or b"")[0],
        shut=closed_places(after, places(estate).paths) if after.not_examinable else (),
        canaries=sealed.told(estate, batch),
        closures=json.loads(estate.requests.kept(batch, "closures") or b"{}"),
        account=estate.catalog.person_kind or "",
        approvers=tuple({one.officer for one in (signed(estate, batch) or (None, ()))[1]}),
        keys=notes["destroy_keys"]["event"],
        gone=notes["validate"].get("keys", {}),
        shared=unpack(estate.requests.kept(batch, "shared") or b"")[0],
        exported=notes["export"].get("exported", {}),
        times={
            "received": batch.created,
            "approved": notes["plant"].get("at"),
            "keys_destroyed": notes["destroy_keys"].get("at") if notes["destroy_keys"]["event"]["domains"] else None,
            "overwritten": notes["overwrite"].get("at"),
            "validated": notes["validate"].get("at"),
        },
        planted=stays(estate, batch.id),
        control=tuple(sorted(control["dataset"] + "/" + control["collection"])),
        look=notes["validate"].get("look", 0),
        heard={n: one for n, one in (estate.requests.note(batch.id, KIND) or {}).items() if n != "at"},
    )


def _facts(
    estate: Estate, story: Story, one: Request, number: str, proof: LedgerProof, by_record: tuple[str, ...]
) -> CertificateFacts:
    told = story.exported.get(one.id)
    return CertificateFacts(
        number=number,
        request=one.id,
        batch=story.batch.id,
        subject=one.number,
        findings=story.rows,
        times=Times(**{k: _time(story.times.get(k)) for k in Times.__dataclass_fields__}),  # type: ignore[arg-type]  # received is always there
        keys=_keys(estate, story, one),
        retained=_retained(estate, story.of("retained", one.number)),
        shared=_shared(story.of("shared", one.number)),
        mentions=_mentions(story.of("mentioned", one.number)),
        copies=(*_copies(estate), *_handed_over(estate, told)),
        export=ExportFacts(told["manifest"], told["rows"], told["files"]) if told else None,
        scan=_scan(story, one, by_record),
        outside=_outside(story.of("outside", one.number)),
        canaries=tuple(_sealed(commitment, note) for commitment, note in story.canaries.items()),
        inventory=tuple(_inodes(store, closure) for store, closure in story.closures.items()),
        evidence=proof,
        software=software(),
        catalog=estate.catalog.digest,
        law=estate.laws.digests,
        cohort=len(story.people),
        signer=estate.settings.signer,
        processors=_processors(estate, story.heard.get(str(one.number), {})),
        accountability=tuple(
            Accountable(d.key, d.accountable.owner, d.accountable.executor, d.accountable.terms)
            for d in estate.catalog.datasets
        ),
        approvers=tuple({*story.approvers, *story.batch.options.get("deciders", {}).get(str(one.number), ())}),
        rehearsal=estate.settings.rehearsal,
        control=story.control,
        planted=tuple(f"{place} ({n})" for place, n in story.planted.items()),
    )


def _proof(estate: Estate, story: Story, *, failed: bool) -> LedgerProof:
    """Where `validated` stands, that of all that holds or that of what FAILED."""
    tagged = mark(story.batch, of_look(VALIDATED_FAILED if failed else VALIDATED, story.look))
    found = estate.ledger.find([tagged])
    if tagged not in found:
        raise DoesNotHold("no validation of this batch stands in the ledger", hint="validate first, then publish")
    name = f"{'failed' if failed else 'validated'}-{story.batch.id}.tlog-proof"
    return LedgerProof(estate.ledger.origin, found[tagged][0], name)


def _scan(story: Story, one: Request, by_record: tuple[str, ...]) -> Scan:
    """How it was searched, and how many places ended in each class for this person."""
    after = story.after
    hits = story.of("hits", one.number)
    found = set() if hits.empty else set(hits["place"])
    return Scan(
        after.patterns,
        after.forms,
        story.bytes,
        by_record,
        after.scanner,
        len(found),
        len(story.clean) - len(story.clean & found),
        story.shut,
        after.breadth,
        after.omitted,
    )


def _outside(rows: pd.DataFrame) -> tuple[Outside, ...]:
    columns = ("place", "containers", "before", "hits", "doubtful")
    return tuple(Outside(*row) for row in tuples(rows, *columns))


def _sealed(commitment: str, note: Mapping[str, Any]) -> SealedCanaries:  # Any: JSON
    counts = (note[k] for k in ("placements", *sealed.OUTCOMES))
    return SealedCanaries(commitment, note["opened"], *counts)


def _inodes(store: str, closure: Mapping[str, Any]) -> Inodes:  # Any: JSON
    return Inodes(store, *(closure[k] for k in ("unchanged", "destroyed", "deleted", "new", "others")))


def _keys(estate: Estate, story: Story, one: Request) -> Keys:
    event = story.keys
    kept: dict[str, KeptKey] = {}
    for address, rows in each(story.of("retained", one.number), "collection"):
        held = held_classes(rows)
        for declared in estate.catalog.collection(address).fields:
            if needs(declared, held) and declared.mode is Mode.CRYPTO_ERASE:
                rule, until = ",".join(sorted(set(rows["rule"]))), str(max(rows["until"]))
                kept[declared.key_domain] = KeptKey(declared.key_domain, rule, until)
    names = estate.tree.domain_names()
    destroyed = tuple(sorted(n for c in event["domains"] if (n := names.get(c, str(c))) not in kept))
    return Keys(
        destroyed=len(story.of("accounts", one.number)) * len(destroyed),
        domains=destroyed,
        kept=tuple(kept[n] for n in sorted(kept)),
        generation_before=event["generation_before"],
        generation_after=event["generation_after"],
        commitment_before=event["commitment_before"],
        commitment_after=event["commitment_after"],
        holders=tuple(
            Holder(h["holder"], h["effect"], h["backup_resistant"] == "yes", ", ".join(h["conditions"]))
            for h in event["holders"]
        ),
        **_elsewhere(story.gone),
    )


def _elsewhere(gone: Mapping[str, int]) -> dict[str, Share | None]:
    """What became of the vault's replicas and of its copies from before, ours among them; None: nothing to examine."""
    copies = gone.get("copies", 0) + gone.get("copy", 0)  # the one that was made for this and no longer opens
    return {
        "replicas": Share(gone["replicas"], gone["replicas_known"]) if gone.get("replicas_known") else None,
        "copies": Share(gone["copies_dead"] + gone.get("copy", 0), copies) if copies and "copies" in gone else None,
    }


def _retained(estate: Estate, kept: pd.DataFrame) -> tuple[Retained, ...]:
    found = []
    once = kept if kept.empty else kept.drop_duplicates(["collection", "unit", "position"])
    for address, rule, rows in each(once, "collection", "rule"):
        collection = estate.catalog.collection(address)
        texts = rule_text(estate, rule)
        until, event = last_day(rows)
        found.append(
            Retained(
                collection.dataset,
                collection.name,
                ",".join(sorted(held_classes(rows))),
                rule,
                len(rows),
                until,
                *texts,
                event,
            )
        )
    return tuple(found)


def rule_text(estate: Estate, rule: str) -> tuple[str, str]:
    """What a rule says, in one sentence (English, Chinese), from its law file."""
    for law in estate.laws.laws.values():
        for one in law.rules:
            if one.id == rule:
                return one.text_en, one.text_zh
    raise DoesNotHold(f"rule {rule} decided about rows but stands in no law that is loaded")


def _mentions(mentioned: pd.DataFrame) -> tuple[Mention, ...]:
    found = []
    for address, rows in each(mentioned, "collection"):
        dataset, name = address.split("/", 1)
        found.append(Mention(dataset, name, len(rows), int((rows["fate"] == "mask").sum())))
    return tuple(found)


def _shared(rows: pd.DataFrame) -> tuple[SharedRows, ...]:
    found = []
    for address, count, others in tuples(rows, "collection", "rows", "others"):
        dataset, name = address.split("/", 1)
        found.append(SharedRows(dataset, name, count, others))
    return tuple(found)


def _copies(estate: Estate) -> tuple[DeclaredCopy, ...]:
    found = {}
    for collection in estate.catalog.collections:
        for copy in collection.copies or ():
            days = re.fullmatch(r"(\d+)d", copy.keep or "")
            day = (estate.now + timedelta(days=int(days[1]))).date().isoformat() if days else ""
            found[copy.name] = DeclaredCopy(copy.name, copy.kind, copy.keep or "", copy.method or "", day)
    return tuple(found[n] for n in sorted(found))


def _handed_over(estate: Estate, told: Mapping[str, Any] | None) -> tuple[DeclaredCopy, ...]:  # Any: JSON
    """The export itself: a copy of ours until its day."""
    if not told:
        return ()
    return (DeclaredCopy("export", "export", f"{estate.settings.export_days}d", "overwrite", told["expires"]),)


def _processors(estate: Estate, heard: Mapping[str, Sequence[str | None]]) -> tuple[Processor, ...]:
    """Who else processes these datasets, as the catalog declares; `heard`: when they were told, and took it."""
    datasets: dict[str, list[str]] = {}
    for one in estate.catalog.datasets:
        for name in one.accountable.processors:
            datasets.setdefault(name, []).append(one.key)
    return tuple(Processor(name, tuple(of), *heard.get(name, (None, None))) for name, of in sorted(datasets.items()))


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _read(body: bytes) -> dict[str, Any]:  # Any: a JSON document of ours
    document: dict[str, Any] = json.loads(body)
    return document

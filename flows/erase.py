"""Erase: the whole journey of a batch, in this order. The page an auditor reads first.

    locate        find every row of every person, in every collection, and why; decide what happens to it
    plant         put one made-up person, the canary, into every collection
    baseline      search all bytes of all stores: the people and the canary must be found
    export        hand over what was found, where the operator asked for it
    destroy_keys  one new root: keys die first, in backups too
    overwrite     rewrite every unit without them, overwrite the old bytes, store by store
    validate      search everything again: nothing may be left that the plan does not list
    publish       certificates, statement, receipts, package; only after the suites passed
    close         destroy the keys under which the people's identities lay with us

Every step is a plain function of a batch id, idempotent, and remembers that it is done; `resume` simply runs them
all again. Prefect calls the same functions as tasks; it learns the batch id and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fangxin.checks.readiness import check
from fangxin.data.errors import DoesNotHold, InputError, NotAllowed
from fangxin.data.requests import Batch, Request, Requests
from fangxin.data.vocabulary import Cohort, Identity, Subject, Unit
from fangxin.flows import canary as canaries
from fangxin.flows import destroy_keys as keys
from fangxin.flows import export as exports
from fangxin.flows.estate import Estate, alone, estate_of
from fangxin.flows.evidence import (
    APPROVED,
    EXPORTED,
    KEYS_INTENDED,
    LOCATED,
    OPENED,
    RESIDUE,
    RETAINED,
    VALIDATED,
    VERIFIED,
    load_sources,
    mark,
    record,
)
from fangxin.flows.frames import each, pack, unpack
from fangxin.flows.locate import locate as find
from fangxin.flows.overwrite import overwrite as act
from fangxin.flows.overwrite import read_erasures
from fangxin.flows.plan import Plan, decide, join, orders
from fangxin.flows.publish import Story, package, software, state_findings
from fangxin.flows.publish import publish as issue
from fangxin.flows.relocate import Relocated
from fangxin.flows.validate import Sight, findings, locate_again, look, needles, unseen
from fangxin.reports.ledger.entries import band, commitment

if TYPE_CHECKING:
    import pandas as pd

Step = Callable[[str], None]


# ---------------------------------------------------------------- opening


def open_batch(estate: Estate, subjects: Sequence[Sequence[Identity]], *, options: Mapping[str, Any]) -> str:
    """Take in a cohort after every check that needs no change; return the batch id.

    Raises InputError for an empty cohort or an identity given twice, StoreUnavailable for a store that cannot be
    written, NotAllowed where `require` cannot be met or the catalog is not ready. Nothing is touched before.
    """
    check(estate.catalog, [estate.catalog_path], estate.stores, require=options.get("require"))
    seen: dict[Identity, int] = {}
    for number, identities in enumerate(subjects, start=1):
        if not identities:
            raise InputError(
                f"subject {number}: no identity is given", hint="one subject a line, at least one identity"
            )
        for one in identities:
            if one in seen and seen[one] != number:
                raise InputError(
                    f"subjects {seen[one]} and {number} name the same {one.kind}", hint="one line a person"
                )
            seen[one] = number
    if options.get("export"):
        exports.check_folder(Path(options["export"]))
    load_sources(estate, software().sha256)
    batch_id, _receipts = estate.requests.open(
        subjects,
        canary=canaries.canary_identities(estate.catalog.kinds, estate.catalog.person_kind),
        catalog=estate.catalog.digest,
        options={**options, "catalog": str(estate.catalog_path)},
        now=estate.minute,
    )
    return batch_id


# ---------------------------------------------------------------- the steps


def locate(batch_id: str) -> None:
    """Find the people's rows and decide their fates; what was found is sealed, counts go to the ledger."""
    estate, batch = _open(batch_id)
    if _done(estate, batch, "locate"):
        return
    estate.meter.step = "locate"
    people = [r for r in estate.requests.requests(batch.id) if not r.canary]
    record(estate, [_opened(estate, r) for r in people])
    record(estate, [{"type": "request.verified", "tag": mark(r, VERIFIED), "level": "operator"} for r in people])
    found = find(estate, Cohort(tuple(Subject(r.id, r.identities) for r in people)))
    if found.halts:
        first = found.halts[0]
        raise NotAllowed(
            f"subject {first.subject + 1}: the walk halted at {first.collection} ({first.guard}); "
            f"{len({h.subject for h in found.halts})} subjects need a person to look",
            hint="name both accounts in one line, raise the guard, or set guards.merge in the catalog",
        )
    nobody = sorted(set(range(len(people))) - set(found.traces["subject"].to_pylist()))
    if nobody:
        raise InputError(
            f"subject {nobody[0] + 1}: nobody has these identities in any collection ({len(nobody)} such subjects)",
            hint="check the line; leave it out if the person was erased before",
        )
    plan = decide(estate.catalog, found, estate.laws, estate.settings.facts, estate.now.date())
    _too_much(estate, found.shared)
    _keep_plan(estate, batch, "people", plan)
    estate.requests.keep(batch, "shared", pack(_shared_frame(found.shared)))
    estate.requests.keep(batch, "states/located", _pack_states(estate.states()))
    _finish(estate, batch, "locate", rows=len(plan.fates), hops=found.hops, stopped=found.stopped, digest=found.digest)


def plant(batch_id: str) -> None:
    """Plant the canary where nobody wrote meanwhile, locate it, and approve the plan the operator said yes to."""
    estate, batch = _open(batch_id)
    if _done(estate, batch, "plant"):
        return
    if not _is_approved(batch):  # before the canary: without an approval nothing changes in any store
        raise NotAllowed("the plan is not approved", hint="--yes approves it in operator mode")
    people = _plan(estate, batch, "people")
    interrupted = estate.requests.note(batch.id, "planting") is not None
    if not interrupted:
        if _unpack_states(estate.requests.kept(batch, "states/located")) != estate.states():
            raise NotAllowed("a store changed after it was located", hint="stop its writers, then run this again")
        estate.requests.done(batch.id, "planting", at=estate.minute, note={})
    one = estate.requests.requests(batch.id)[-1]
    estate.meter.step = "plant"
    cohort = Cohort((Subject(one.id, one.identities),))
    for store in estate.stores:
        store.recover(batch=batch.id)
    persona = canaries.persona(estate.catalog, one.identities)
    standing: set[str] = set()
    if interrupted:  # some rows may stand already: they are not planted twice
        standing = set(find(estate, Cohort((Subject(one.id, persona),))).traces["collection"].to_pylist())
    planted = canaries.plant(estate, persona, but=standing)
    found = find(estate, cohort)
    planted = {a: 1 for a in [*planted, *standing]}
    mine = _numbered(decide(estate.catalog, found, estate.laws, estate.settings.facts, estate.now.date()), one.number)
    digest = hashlib.sha256(f"{people.digest}{mine.digest}{batch.catalog}".encode()).hexdigest()
    plan = join(people, mine, digest=digest)
    _keep_plan(estate, batch, "whole", plan)
    estate.requests.keep(batch, "states", _pack_states(estate.states()))
    estate.requests.keep(batch, "planted", json.dumps(planted).encode())
    _finish(estate, batch, "plant", plan=digest, planted=len(planted))


def baseline(batch_id: str) -> None:
    """Search everything before anything is touched; a scan that does not see the canary stops the run here."""
    estate, batch = _open(batch_id)
    if _done(estate, batch, "baseline"):
        return
    plan = _plan(estate, batch, "whole")
    estate.meter.step = "baseline"
    seen = look(estate, needles(estate.catalog, plan.facts))
    planted = json.loads(estate.requests.kept(batch, "planted") or b"{}")
    subjects = [r.number for r in estate.requests.requests(batch.id)]
    located = set(plan.fates.loc[plan.fates["subject"] == subjects[-1], "collection"])
    blind = sorted((set(planted) - located) | set(unseen(estate.catalog, plan, seen, planted, subjects[-1])))
    missed = sorted(set(subjects) - set(seen.hits["subject"]))
    if blind or missed:
        raise DoesNotHold(
            f"the baseline is blind: no canary in {', '.join(blind) or 'no collection'}, {len(missed)} people not seen",
            hint="the catalog misses a reference or a store cannot be searched; nothing was touched",
        )
    named = seen.hits[seen.hits["container"].str.startswith("name")]
    if len(named):
        raise NotAllowed(
            f"{len(set(named['place']))} units carry an identity in their names, which no overwriting reaches",
            hint="name units by numbers or random ids, then run this again",
        )
    estate.requests.keep(batch, "before", seen.pack())
    digest = hashlib.sha256(seen.pack()).hexdigest()
    people = [r for r in estate.requests.requests(batch.id) if not r.canary]
    record(estate, [e for r in people for e in _planned(estate, plan, r, digest)])
    _finish(estate, batch, "baseline", digest=digest, bytes=seen.total, patterns=seen.patterns)


def export(batch_id: str) -> None:
    """Hand over the located rows where the operator named a folder, and check that they are what was located."""
    estate, batch = _open(batch_id)
    if _done(estate, batch, "export"):
        return
    told: dict[str, Any] = {}
    if batch.options.get("export"):
        from fangxin.checks.suites.exported import judge_export

        estate.meter.step = "export"
        to = Path(batch.options["export"])
        requests = [r for r in estate.requests.requests(batch.id) if not r.canary]
        table = exports.export(estate, _plan(estate, batch, "people").fates, requests, to)
        answer = judge_export(
            exports.by_collection(estate, table), collections=len(estate.catalog.collections), tmp=estate.settings.tmp
        )
        answer.require("the export")
        hashes = exports.finish(to, requests, {r.id: r.receipt for r in requests})
        record(estate, [{"type": "exported", "tag": mark(r, EXPORTED), "manifest": hashes[r.id]} for r in requests])
        for one in requests:
            mine = table[table["request"] == one.id]
            told[one.id] = {
                "manifest": hashes[one.id],
                "rows": int(mine["rows_exported"].sum()),
                "files": int(mine["files"].sum()),
            }
    _finish(estate, batch, "export", exported=told)


def destroy_keys(batch_id: str) -> None:
    """Destroy the cohort's keys under the approved plan."""
    estate, batch = _open(batch_id)
    if _done(estate, batch, "destroy_keys"):
        return
    plan = _approved(estate, batch)
    event = keys.destroy_keys(estate, batch, plan)
    _finish(estate, batch, "destroy_keys", event=dict(event))


def overwrite(batch_id: str) -> None:
    """Rewrite every unit without the cohort and destroy the old bytes."""
    estate, batch = _open(batch_id)
    if _done(estate, batch, "overwrite"):
        return
    plan = _approved(estate, batch)
    if estate.requests.note(batch.id, "destroy_keys") is None:
        raise NotAllowed("keys are destroyed before bytes", hint="run destroy_keys first")
    estate.meter.step = "overwrite"

    def changed(again: Relocated) -> None:
        _keep_plan(estate, batch, "whole", again.plan)
        estate.requests.keep(batch, "states", _pack_states(again.states))

    done = act(estate, batch, plan, _unpack_states(estate.requests.kept(batch, "states")), changed=changed)
    total = sum(e.bytes_overwritten for es in done.values() for e in es)
    _finish(estate, batch, "overwrite", units=sum(len(e) for e in done.values()), bytes=total)


def validate(batch_id: str) -> None:
    """Look again, write the findings, and let the suite judge them; DoesNotHold when anything is left."""
    estate, batch = _open(batch_id)
    if _done(estate, batch, "validate"):
        return
    from fangxin.checks.suites.erased import judge

    plan = _approved(estate, batch)
    erasures = {
        s.name: read_erasures(estate.requests.kept(batch, f"erasures/{s.name}") or b"[]") for s in estate.stores
    }
    before = Sight.unpack(estate.requests.kept(batch, "before") or b"")
    estate.meter.step = "validate"
    after = look(estate, needles(estate.catalog, plan.facts))
    estate.meter.step = "validate-rows"
    again = locate_again(estate, plan.facts)
    planted = json.loads(estate.requests.kept(batch, "planted") or b"{}")
    table = findings(estate, plan, erasures, before, after, again, planted)
    estate.requests.keep(batch, "findings", pack(table))
    estate.requests.keep(batch, "after", after.pack())
    people = [r for r in estate.requests.requests(batch.id) if not r.canary]
    answer = judge(
        table, subjects=len(people) + 1, collections=len(estate.catalog.collections), tmp=estate.settings.tmp
    )
    bad = table[table["verdict"] == "FAILED"]
    if len(bad):
        _residue(estate, batch, table)
        where = sorted({f"{d}/{c}" for d, c in zip(bad["dataset"], bad["collection"], strict=True)})
        raise DoesNotHold(
            f"the findings do not hold: {len(bad)} failed in {', '.join(where)}",
            hint="find what still writes or what the catalog misses, then `fangxin resume`",
        )
    answer.require("the findings")
    figures = {"stores": len(estate.stores), "bytes": after.total, "patterns": after.patterns, "cohort": len(people)}
    digest = state_findings(estate, batch, table, figures)
    entry: dict[str, int | str] = {
        "type": "validated",
        "tag": mark(batch, VALIDATED),
        "stores": len(estate.stores),
        "bytes": after.total,
        "patterns": after.patterns,
        "hits": 0,
        "canaries": len(planted),
        "scanner": after.scanner,
        "baseline": str((estate.requests.note(batch.id, "baseline") or {}).get("digest")),
        "findings": digest,
    }
    record(estate, [entry])
    _finish(estate, batch, "validate", bytes=after.total)


def publish(batch_id: str) -> None:
    """Issue the certificates and write the auditor's package."""
    estate, batch = _open(batch_id)
    if _done(estate, batch, "publish"):
        return
    load_sources(estate, software().sha256)  # what certifies may be a newer version than what opened the batch
    story = _story(estate, batch)
    issued = issue(estate, story)
    path = package(estate, story, issued)
    _finish(estate, batch, "publish", issued=issued, package=str(path))


def close(batch_id: str) -> None:
    """Destroy the keys under which the identities lay, and empty what they sealed."""
    estate, batch = _open(batch_id)
    if batch.state != "open":
        return
    if estate.requests.note(batch.id, "publish") is None:
        raise NotAllowed("a batch is closed after its certificates", hint="fangxin resume")
    keys.close(estate, batch)
    estate.requests.finish(batch.id, state="closed")


STEPS: tuple[Step, ...] = (
    locate, plant, baseline, export, destroy_keys, overwrite, validate, publish, close,
)  # fmt: skip


_BEFORE_DESTRUCTION = (locate, plant, baseline, export)


def journey(batch_id: str, *, home: Path | None = None) -> None:
    """Run every step of a batch that is not done yet: what `resume` does, and what the flow does as tasks."""
    with alone(estate_of(batch_id, home).settings.home):
        for step in STEPS:
            run_step(step, batch_id)


def run_step(step: Step, batch_id: str) -> None:
    """Run one step; an approved batch that is refused before anything is destroyed is given up, its people forgotten.

    Later steps that are started too early just say so: nothing is given up once a key may be dead.
    """
    try:
        _end_giving_up(batch_id)
        step(batch_id)
    except (InputError, NotAllowed, DoesNotHold):
        if step in _BEFORE_DESTRUCTION:
            abandon(batch_id)
        raise


def due(estate: Estate) -> tuple[str, ...]:
    """The open batches whose plan is approved, oldest first; the others wait for their officer."""
    return tuple(b for b in estate.requests.unfinished() if _is_approved(estate.requests.batch(b)))


def abandon(batch_id: str) -> None:
    """Give up an approved batch that has destroyed nothing yet: the canary goes, its keys die, its seals empty."""
    estate, batch = _open(batch_id)
    if batch.state != "open" or not _is_approved(batch) or estate.ledger.find([mark(batch, KEYS_INTENDED)]):
        return
    one = estate.requests.requests(batch.id)[-1]
    if estate.requests.note(batch.id, "planting") is not None and one.identities:
        found = find(estate, Cohort((Subject(one.id, one.identities),)))
        plan = decide(estate.catalog, found, estate.laws, estate.settings.facts, estate.now.date())
        work = orders(estate.catalog, plan, estate.stores, estate.states())
        for store in estate.stores:
            store.recover(batch=batch.id)
            for _done in store.erase(work.get(store.name, []), batch=batch.id):
                pass
            store.forget(batch=batch.id)
    keys.close(estate, batch)
    estate.requests.finish(batch.id, state="abandoned")


# ---------------------------------------------------------------- helpers


def _end_giving_up(batch_id: str) -> None:
    """Finish what a crash interrupted in `abandon`: its keys were about to die, or are dead already."""
    estate, batch = _open(batch_id)
    noted = {name: estate.requests.note(batch.id, name) for name in ("closing", "publish")}
    if batch.state == "open" and noted["closing"] is not None and noted["publish"] is None:
        keys.close(estate, batch)
        estate.requests.finish(batch.id, state="abandoned")


def _open(batch_id: str) -> tuple[Estate, Batch]:
    estate = estate_of(batch_id)
    return estate, estate.requests.batch(batch_id)


def _done(estate: Estate, batch: Batch, step: str) -> bool:
    return batch.state != "open" or estate.requests.note(batch.id, step) is not None


def _finish(estate: Estate, batch: Batch, step: str, **note: Any) -> None:
    """Note that a step is done: its counts, how often the most opened unit was opened, how long it took."""
    seconds = round(time.monotonic() - estate.since, 3)
    told = {**note, "opened": estate.meter.most(), "seconds": seconds}
    estate.requests.done(batch.id, step, at=estate.minute, note=told)


def _is_approved(batch: Batch) -> bool:
    return batch.options.get("approved") is True


def _approved(estate: Estate, batch: Batch) -> Plan:
    """The plan, if its digest is the one that was approved; destructive steps go no other way."""
    noted = estate.requests.note(batch.id, "plant")
    body = estate.requests.kept(batch, "plan/whole")
    if noted is None or body is None or not _is_approved(batch):
        raise NotAllowed("no approved plan stands for this batch", hint="`fangxin erase … --yes` approves one")
    plan = _plan(estate, batch, "whole")
    if plan.digest != noted["plan"]:
        raise NotAllowed("the plan is not the one that was approved", hint="locate again and have it approved")
    return plan


def _keep_plan(estate: Estate, batch: Batch, name: str, plan: Plan) -> None:
    estate.requests.keep(batch, f"fates/{name}", pack(plan.fates))
    estate.requests.keep(batch, f"texts/{name}", pack(plan.texts))
    estate.requests.keep(batch, f"facts/{name}", pack(plan.facts))
    estate.requests.keep(batch, f"plan/{name}", plan.digest.encode())


def _plan(estate: Estate, batch: Batch, name: str) -> Plan:
    parts = [estate.requests.kept(batch, f"{part}/{name}") for part in ("fates", "texts", "facts", "plan")]
    if any(p is None for p in parts):
        raise NotAllowed("this batch was not located yet", hint="fangxin resume")
    fates, texts, facts = (unpack(p or b"")[0] for p in parts[:3])
    return Plan(fates, texts, facts, (parts[3] or b"").decode())


def _numbered(plan: Plan, number: int) -> Plan:
    """The canary's plan with its own subject number."""
    fates, texts, facts = (f.assign(subject=np.int32(number)) for f in (plan.fates, plan.texts, plan.facts))
    return Plan(fates, texts, facts, plan.digest)


def _shared_frame(shared: Sequence[Any]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame([asdict(s) for s in shared], columns=["subject", "collection", "rows", "others"])


def _too_much(estate: Estate, shared: Sequence[Any]) -> None:
    """Rows of others that would go with `on_shared: erase` are collateral, and limited."""
    for one in shared:
        collection = estate.catalog.collection(one.collection)
        limit = estate.catalog.guards(collection).max_collateral
        if collection.on_shared == "erase" and one.rows > limit:
            raise NotAllowed(
                f"{one.collection}: {one.rows} rows used by {one.others} other people would go, {limit} are allowed",
                hint="on_shared: unlink keeps them; guards.max_collateral allows more",
            )


def _pack_states(states: Mapping[tuple[str, str], Unit]) -> bytes:
    return json.dumps([[s, asdict(u)] for (s, _n), u in sorted(states.items())]).encode()


def _unpack_states(body: bytes | None) -> dict[tuple[str, str], Unit]:
    found = {}
    for store, raw in json.loads(body or b"[]"):
        found[(store, raw["name"])] = Unit(**raw)
    return found


def _opened(estate: Estate, one: Request) -> dict[str, int | str]:
    return {
        "type": "request.opened",
        "tag": mark(one, OPENED),
        "commitment": commitment(one.secret, [(i.kind, i.value) for i in one.identities]),
        "law": ",".join(sorted(n.removesuffix(".yaml") for n in estate.laws.digests)),
        "promise": "operator",
        "catalog": estate.catalog.digest,
    }


def _planned(estate: Estate, plan: Plan, one: Request, digest: str) -> list[dict[str, int | str]]:
    """What was located, approved and retained for one request, in bands."""
    fates = plan.fates[plan.fates["subject"] == one.number]
    counts = []
    for store in estate.stores:
        n = int(fates["collection"].isin([c.address for c in store.collections]).sum())
        counts.append(f"{estate.store_id(store)}:{band(n)}")
    approvals = hashlib.sha256(f"operator{plan.digest}".encode()).hexdigest()
    entries: list[dict[str, int | str]] = [
        {"type": "located", "tag": mark(one, LOCATED), "counts": ",".join(counts), "baseline": digest},
        {"type": "approved", "tag": mark(one, APPROVED), "plan": plan.digest, "approvals": approvals},
    ]
    kept = fates[fates["fate"] == "retain"]
    for place, (address, rule, rows) in enumerate(each(kept, "collection", "rule")):
        retention = estate.catalog.collection(address).retention
        entries.append(
            {
                "type": "retained",
                "tag": mark(one, RETAINED + place),
                "rule": rule,
                "class": retention.record_class if retention else "",
                "until": "officer" if "officer" in set(rows["until"]) else str(max(rows["until"]))[:7],
            }
        )
    return entries


def _residue(estate: Estate, batch: Batch, table: pd.DataFrame) -> None:
    """Log that something was found, by store; the next look decides again."""
    bad = table[table["verdict"] == "FAILED"]
    names = sorted(set(bad["store"]))
    stores = [s for s in estate.stores if s.name in names]
    tagged = [
        {
            "type": "residue.found",
            "tag": mark(batch, RESIDUE + 256 * (n + 1)),
            "store": estate.store_id(s),
            "code": "hits",
        }
        for n, s in enumerate(stores)
    ]
    record(estate, tagged)


def _story(estate: Estate, batch: Batch) -> Story:
    notes = {s.__name__: estate.requests.note(batch.id, s.__name__) or {} for s in STEPS}
    validated = estate.ledger.find([mark(batch, VALIDATED)])
    index = next((str(i) for i, _e in validated.values()), None)
    return Story(
        batch=batch,
        requests=estate.requests.requests(batch.id),
        plan=_plan(estate, batch, "whole"),
        findings=unpack(estate.requests.kept(batch, "findings") or b"")[0],
        after=Sight.unpack(estate.requests.kept(batch, "after") or b""),
        keys=notes["destroy_keys"]["event"],
        shared=unpack(estate.requests.kept(batch, "shared") or b"")[0],
        exported=notes["export"].get("exported", {}),
        times={
            "received": batch.created,
            "approved": notes["plant"].get("at"),
            "keys_destroyed": notes["destroy_keys"].get("at"),
            "overwritten": notes["overwrite"].get("at"),
            "validated": notes["validate"].get("at"),
            "proof_index": index,
        },
    )


def summary(home: Path, batch_id: str) -> dict[str, Any]:
    """What `erase --json` answers with for a batch, from its notes and certificates."""
    estate = estate_of(batch_id, home)
    return _summary(estate, estate.requests, batch_id)


def _summary(estate: Estate, requests: Requests, batch_id: str) -> dict[str, Any]:
    noted = requests.note(batch_id, "publish") or {}
    answers = []
    for one in requests.requests(batch_id):
        if one.canary:
            continue
        issued = noted.get("issued", {}).get(one.id)
        document = json.loads(Path(issued["certificate"]).read_bytes()) if issued else {"collections": []}
        answers.append(
            {
                "request_id": one.id,
                "receipt_code": one.receipt,
                "outcome": one.outcome or "failed",
                "certificate": issued["certificate"] if issued else None,
                "verdicts": [{**c, "not_examinable": _sentences(c["not_examinable"])} for c in document["collections"]],
            }
        )
    steps = [s.__name__ for s in STEPS if s is not close]
    seconds = {s: (requests.note(batch_id, s) or {}).get("seconds", 0.0) for s in steps}
    return {"batch": batch_id, "requests": answers, "package": noted.get("package"), "seconds": seconds}


def _sentences(text: str) -> list[str]:
    return [one for one in text.split(";") if one]


__all__ = ["STEPS", "abandon", "due", "journey", "open_batch", "summary"]

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

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fangxin.checks.readiness import check
from fangxin.data.errors import (
    GIVEN_UP,
    DoesNotHold,
    FangxinError,
    Incomplete,
    InputError,
    NotAllowed,
    StoreUnavailable,
)
from fangxin.data.requests import Requests
from fangxin.data.vocabulary import Identity
from fangxin.flows import as_it_stands
from fangxin.flows import canary as canaries
from fangxin.flows.baseline import baseline
from fangxin.flows.batch import Step, begun, grounds, is_approved, opened
from fangxin.flows.close import close
from fangxin.flows.destroy_keys import destroy_keys, forget
from fangxin.flows.elsewhere import behind
from fangxin.flows.estate import Estate, alone, estate_of, hold_stores
from fangxin.flows.evidence import KEYS_INTENDED, confirm_vault, load_sources, mark
from fangxin.flows.export import check_folder, export
from fangxin.flows.exports import take_back
from fangxin.flows.frames import unpack
from fangxin.flows.freespace import allowed, reached
from fangxin.flows.locate import locate
from fangxin.flows.lost import lost
from fangxin.flows.overwrite import overwrite
from fangxin.flows.places import roots
from fangxin.flows.plant import plant
from fangxin.flows.publish import publish, software
from fangxin.flows.sealed import Seal, commit
from fangxin.flows.unplant import take_out
from fangxin.flows.validate import validate
from fangxin.reports.certificate import collection_rows

STEPS: tuple[Step, ...] = (
    locate,
    plant,
    baseline,
    export,
    destroy_keys,
    overwrite,
    validate,
    publish,
    close,
)

_BEFORE_DESTRUCTION = (locate, plant, baseline, export)
_CHANGING = (*_BEFORE_DESTRUCTION, destroy_keys, overwrite)  # with what they rest on: no other home comes between


def open_batch(
    estate: Estate,
    subjects: Sequence[Sequence[Identity]],
    *,
    options: Mapping[str, Any],
    known: Sequence[tuple[bytes, str]] = (),
) -> str:
    """Take in a cohort after every check that needs no change; return the batch id.

    `known`: secret and receipt code of each subject, where a closing drew them before.

    Raises InputError for an empty cohort or an identity given twice, WriterBusy where another home's run is at work
    in a store, StoreUnavailable for a store that cannot be written, NotAllowed where `require` cannot be met, the
    catalog is not ready, or one is in an open batch. Nothing is touched before.
    """
    allowed(options.get("wipe_free_space"))
    hold_stores(estate)
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
        check_folder(
            Path(options["export"]),
            home=estate.settings.home,
            roots=[*roots(estate).values(), *(s.root for s in estate.stores)],
        )
    confirm_vault(estate)
    _in_no_other(estate, seen)
    load_sources(estate, software().sha256)
    commit(estate, [Seal(**one) for one in options.get("canaries") or ()])
    batch_id, _receipts = estate.requests.open(
        subjects,
        canary=canaries.canary_identities(estate.catalog.kinds, estate.catalog.person_kind),
        catalog=estate.catalog.digest,
        options={**options, **grounds(estate), "catalog": str(estate.catalog_path)},
        now=estate.minute,
        known=known,
    )
    return batch_id


def _in_no_other(estate: Estate, seen: Mapping[Identity, int]) -> None:
    """Raise NotAllowed where an approved batch that did not come to its end has one of these people already."""
    for batch in due(estate):
        for one in estate.requests.requests(batch):
            if number := next((seen[i] for i in one.identities if i in seen), None):
                raise NotAllowed(
                    f"subject {number}: batch {batch} has them already, and did not come to its end",
                    hint="`fangxin resume` finishes it; nothing was touched now",
                )


def journey(batch_id: str, *, home: Path | None = None, word: str | None = None) -> None:
    """Run every step of a batch that is not done yet: what `resume` does, and what the flow does as tasks.

    `word`: the code under which an operator ends it though something FAILED, in this run (flows/as_it_stands.py).
    """
    estate = estate_of(batch_id, home)
    confirm_vault(estate)
    with alone(estate.settings.home), as_it_stands.given(estate, batch_id, word):
        for step in STEPS:
            run_step(step, batch_id)


def run_step(step: Step, batch_id: str) -> None:
    """Run one step; an approved batch that is refused before anything is destroyed is given up, its people forgotten.

    So is one that met a defect of ours there: it would meet it again, and its canary would stay in the stores. What may
    pass (a store or a disk that does not answer) leaves the batch open. Later steps that are started too early just say
    so: nothing is given up once a key may be dead.
    """
    try:
        estate = estate_of(batch_id)
        _end_giving_up(estate, batch_id)
        if step in _CHANGING and estate.requests.batch(batch_id).state == "open":
            hold_stores(estate)
        step(batch_id)
    except Exception as error:
        refused = isinstance(error, (InputError, NotAllowed, Incomplete, DoesNotHold))
        defect = not isinstance(error, (FangxinError, OSError))
        if step in _BEFORE_DESTRUCTION and (refused or defect):
            abandon(batch_id)
            _advise(error, batch_id)
        if isinstance(error, StoreUnavailable):
            _concedable(error, batch_id)
        raise


def _concedable(error: FangxinError, batch_id: str) -> None:
    """A database that is gone for good holds nobody up for ever."""
    estate = estate_of(batch_id)
    if lost(estate, estate.requests.batch(batch_id)):
        error.hint += (
            ", then `fangxin resume`; where that cannot be done,"
            f" `fangxin resume {batch_id} --as-it-stands CODE` ends it with certificates that say FAILED and why"
        )


def _advise(error: Exception, batch_id: str) -> None:
    """Nothing resumes a batch that is given up: what to do is what opens another one."""
    batch = estate_of(batch_id).requests.batch(batch_id)
    if batch.state != "abandoned":
        return
    another = "`fangxin run-due`" if batch.options.get("closures") else "`fangxin erase` with these people again"
    if isinstance(error, FangxinError):
        error.hint = error.hint.replace("then `fangxin resume`", f"then {another}")
    else:
        error.add_note(GIVEN_UP)


def due(estate: Estate) -> tuple[str, ...]:
    """The open batches whose plan is approved, oldest first; the others wait for their officer, or for run-due."""
    return tuple(
        b
        for b in estate.requests.unfinished()
        if is_approved(estate.requests.batch(b)) and begun(estate, estate.requests.batch(b))
    )


def abandon(batch_id: str) -> None:
    """Give up an approved batch that has destroyed nothing yet: canary and export go, its keys die, its seals empty."""
    estate, batch = opened(batch_id)
    if batch.state != "open" or not is_approved(batch) or estate.ledger.find([mark(batch, KEYS_INTENDED)]):
        return
    take_back(estate, batch)
    if estate.requests.note(batch.id, "planting") is not None and estate.requests.requests(batch.id)[-1].identities:
        take_out(estate, batch)
    forget(estate, batch, given_up=True)
    estate.requests.finish(batch.id, state="abandoned")


def _end_giving_up(estate: Estate, batch_id: str) -> None:
    """Finish what a crash interrupted in `abandon`: its keys were about to die, or are dead already."""
    batch = estate.requests.batch(batch_id)
    noted = {name: estate.requests.note(batch.id, name) for name in ("closing", "publish")}
    if batch.state == "open" and noted["closing"] is not None and noted["publish"] is None:
        forget(estate, batch)
        estate.requests.finish(batch.id, state="abandoned")


def summary(home: Path, batch_id: str) -> dict[str, Any]:
    """What `erase --json` answers with for a batch, from its notes and certificates."""
    estate = estate_of(batch_id, home)
    return _summary(estate, estate.requests, batch_id)


def _summary(estate: Estate, requests: Requests, batch_id: str) -> dict[str, Any]:
    batch = requests.batch(batch_id)
    noted = requests.note(batch_id, "publish") or {}
    # What a failed validation found. Nothing of it opens any more where a run was killed within `close`: keys are dead.
    kept = requests.kept(batch, "findings") if batch.state == "open" and batch.secret else None
    findings = None if kept is None else unpack(kept)[0]
    answers = []
    outside: list[str] = []
    for one in requests.requests(batch_id):
        if one.canary:
            continue
        issued = noted.get("issued", {}).get(one.id)
        verdicts: list[dict[str, Any]] = []
        elsewhere: list[dict[str, Any]] = []
        if issued:
            told = json.loads(Path(issued["certificate"]).read_bytes())
            verdicts, elsewhere = told["collections"], told.get("outside", [])
            outside += [where["place"] for where in elsewhere]
        elif findings is not None:
            verdicts = collection_rows(findings, one.number)
        answers.append(
            {
                "request_id": one.id,
                "receipt_code": one.receipt,
                "outcome": one.outcome or "failed",
                "certificate": issued["certificate"] if issued else None,
                "outside": elsewhere,
                "verdicts": [{**v, "not_examinable": _sentences(v["not_examinable"])} for v in verdicts],
            }
        )
    steps = [s.__name__ for s in STEPS if s is not close]
    seconds = {s: (requests.note(batch_id, s) or {}).get("seconds", 0.0) for s in steps}
    drafts = noted.get("drafts", [])
    papers = {"package": noted.get("package"), "draft": drafts[0] if drafts else None, "drafts": drafts}
    return {
        "batch": batch_id,
        "requests": answers,
        **papers,
        "places": behind(estate, outside),
        "seconds": seconds,
        "free_space": reached(estate, batch_id),
    }


def _sentences(text: str) -> list[str]:
    return [one for one in text.split(";") if one]


__all__ = ["STEPS", "abandon", "baseline", "close", "destroy_keys", "due", "export", "journey", "locate", "open_batch"]
__all__ += ["overwrite", "plant", "publish", "run_step", "summary", "validate"]

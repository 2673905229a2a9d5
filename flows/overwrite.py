"""Overwrite: every unit that held the cohort is rewritten without it and its old bytes are destroyed, store by store.

Intent to the ledger, act, outcome. A unit that was finished before a crash is recognised by the store's own
journal and reported again, not touched again. A unit that somebody else wrote since is located again first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from fangxin.data.errors import DoesNotHold, NotAllowed
from fangxin.data.requests import Batch
from fangxin.data.steps import due
from fangxin.data.vocabulary import Construction, Destruction, Erasure, Method, Order, Store
from fangxin.flows.batch import (
    approved_plan,
    bound,
    finish,
    is_done,
    keep_relocated,
    missing,
    opened,
    outcome,
    pack_states,
    relocations,
    unpack_states,
)
from fangxin.flows.estate import Estate
from fangxin.flows.evidence import RELOCATED, STORES, mark, record
from fangxin.flows.freespace import wipe
from fangxin.flows.inventory import built, shed
from fangxin.flows.lost import passed_over
from fangxin.flows.plan import Plan, orders
from fangxin.flows.relocate import Relocated, States, foreign, relocate
from fangxin.reports.ledger.entries import band


def overwrite(batch_id: str) -> None:
    """Rewrite every unit without the cohort and destroy the old bytes."""
    estate, batch = opened(batch_id)
    if is_done(estate, batch, "overwrite") or is_done(estate, batch, "validate"):  # the latter under a word alone
        return
    plan = approved_plan(estate, batch)
    if outcome(estate, batch, "destroy_keys") is None:
        raise NotAllowed("keys are destroyed before bytes", hint="run destroy_keys first")
    estate.meter.step = "overwrite"

    def changed(again: Relocated) -> None:
        record(estate, [_relocated(batch, relocations(estate, batch))])
        keep_relocated(estate, batch, again.plan)
        estate.requests.keep(batch, "states", pack_states(again.states))

    done = carry_out(estate, batch, plan, unpack_states(estate.requests.kept(batch, "states")), changed=changed)
    wipe(estate, batch)
    total = sum(e.bytes_overwritten for es in done.values() for e in es)
    counts: dict[str, Any] = {"units": sum(len(e) for e in done.values()), "bytes": total}
    if missing(estate, batch):
        # Not done: the database may come back before the word's look is validated. When the others were is noted.
        estate.requests.done(batch.id, "overwrite", at=estate.minute, note=counts, anew=True)
        return
    finish(estate, batch, "overwrite", **counts)


def carry_out(
    estate: Estate, batch: Batch, plan: Plan, states: States, *, changed: Callable[[Relocated], None]
) -> dict[str, tuple[Erasure, ...]]:
    """Carry out the plan in every store; idempotent. Returns the erasures per store name.

    `changed` keeps the plan and the states of units that were located again, before they are touched.
    """
    found: dict[str, tuple[Erasure, ...]] = {}
    for number, store in enumerate(estate.stores):
        kept = estate.requests.kept(batch, f"erasures/{store.name}")
        if kept is None:
            _not_done_before(estate, batch, number)
            store.recover(batch=batch.id)
            if passed_over(store):
                found[store.name] = ()
                continue
            work = orders(estate.catalog, plan, [store], states).get(store.name, [])
            written = foreign(store, work, batch=batch)
            if written:
                again = relocate(estate, plan, store, written, states, bound=bound(batch))
                work = orders(estate.catalog, again.plan, [store], again.states).get(store.name, [])
                estate.meter.step = "rehearse"  # what was rehearsed before is not what lies there now
                store.rehearse([one for one in work if states.get((store.name, one.unit.name)) != one.unit])
                shed(estate, batch, store, written, states)  # first: a run that dies here finds the same units again
                changed(again)
                plan, states = again.plan, again.states
                estate.meter.step = "overwrite"
            done = _store(estate, batch, plan, store, number, work)
        else:
            done = read_erasures(kept)
            _outcome(estate, batch, store, number, done)
        store.forget(batch=batch.id)
        found[store.name] = done
    return found


def _store(estate: Estate, batch: Batch, plan: Plan, store: Store, number: int, work: list[Any]) -> tuple[Erasure, ...]:
    """One store: intent, act, keep what was done, outcome. Any: Order, which the store alone reads."""
    intent = mark(batch, STORES + 2 * number)
    entry: dict[str, int | str] = {
        "type": "erase.intended",
        "tag": intent,
        "store": estate.store_id(store),
        "units": band(len(work)),
    }
    if not relocations(estate, batch):  # else the plan's digest is our own: nobody approved that one as such
        entry["plan"] = plan.digest
    record(estate, [entry])
    done = tuple(store.erase(work, batch=batch.id)) if due("unit: rewrite") else _all_but_one(store, work, batch)
    built(estate, batch, store, done)
    estate.requests.keep(batch, f"erasures/{store.name}", write_erasures(done))
    _outcome(estate, batch, store, number, done)
    return done


def _all_but_one(store: Store, work: list[Order], batch: Batch) -> tuple[Erasure, ...]:
    """What a store answers with that passed over its last unit: a rehearsal's defect (data/steps.py)."""
    done = tuple(store.erase(work[:-1], batch=batch.id))
    missed = [
        Erasure(
            unit=one.unit.name,
            method=Method.OVERWRITE,
            reason="",
            rows_before={c.collection.address: len(c.drop) for c in one.changes},
            rows_after={c.collection.address: 0 for c in one.changes},
            changed={},
            destructions=(),
            claim=done[0].claim if done else "",
        )
        for one in work[-1:]
    ]
    return (*done, *missed)


def end_passed_over(estate: Estate, batch: Batch) -> None:
    """Close intents whose store was lost before their outcome, once a look under an operator's word is validated.

    Nothing was overwritten there as far as anybody knows. Idempotent; nothing where every store was dealt with.
    """
    if batch.state != "open" or not batch.secret or outcome(estate, batch, "overwrite") is not None:
        return
    for number, store in enumerate(estate.stores):
        intent, ended = mark(batch, STORES + 2 * number), mark(batch, STORES + 2 * number + 1)
        known = estate.ledger.find([intent, ended])
        if intent in known and ended not in known:
            _outcome(estate, batch, store, number, (), logical=True)


def _relocated(batch: Batch, times: int) -> dict[str, int | str]:
    """Units that others wrote were located again under the same approval: the ledger says that it happened."""
    return {"type": "exception", "tag": mark(batch, RELOCATED + times), "code": "plan.relocated", "role": "overwrite"}


def _not_done_before(estate: Estate, batch: Batch, number: int) -> None:
    """DoesNotHold where the ledger has the outcome of a store that the requests store knows nothing of."""
    if estate.ledger.find([mark(batch, STORES + 2 * number + 1)]):
        raise DoesNotHold(
            "the ledger says that a store was overwritten, the requests store does not know what was done",
            hint="requests.db is older than the ledger: put the newest copy back, then `fangxin resume`",
        )


def _outcome(
    estate: Estate, batch: Batch, store: Store, number: int, done: tuple[Erasure, ...], *, logical: bool = False
) -> None:
    intent, outcome = mark(batch, STORES + 2 * number), mark(batch, STORES + 2 * number + 1)
    index = estate.ledger.find([intent])[intent][0]
    logical = logical or any(e.method is not Method.OVERWRITE for e in done)
    systems = sorted({d.fs for e in done for d in e.destructions}) or ["none"]
    record(
        estate,
        [
            {
                "type": "store.rewritten" if logical else "store.overwritten",
                "tag": outcome,
                "intent": index,
                "store": estate.store_id(store),
                "units": band(len(done)),
                "method": (Method.LOGICAL_DELETE if logical else Method.OVERWRITE).value,
                "bytes": band(sum(e.bytes_overwritten for e in done)),
                "fs": systems[0],
                "digest": hashlib.sha256(write_erasures(done)).hexdigest(),
            }
        ],
    )


def write_erasures(done: tuple[Erasure, ...]) -> bytes:
    """Erasures as JSON, for the sealed parts of the requests store."""
    return json.dumps([asdict(e) for e in done], sort_keys=True, separators=(",", ":")).encode()


def read_erasures(body: bytes) -> tuple[Erasure, ...]:
    """Read back what `write_erasures` wrote."""
    found = []
    for raw in json.loads(body):
        gone = tuple(
            Destruction(**{**d, "extents": tuple(tuple(x) for x in d["extents"])}) for d in raw["destructions"]
        )
        built = Construction(**raw["construction"]) if raw.get("construction") else None
        found.append(Erasure(**{**raw, "method": Method(raw["method"]), "destructions": gone, "construction": built}))
    return tuple(found)

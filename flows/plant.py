"""Plant: one made-up person, the canary, goes into every collection, before anything is destroyed.

Only where nobody wrote since the people were located, and only under an approval: the canary is the first thing
that a run changes in a store.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from fangxin.data.errors import NotAllowed
from fangxin.data.requests import Batch
from fangxin.data.vocabulary import Cohort, Subject
from fangxin.flows import canary as canaries
from fangxin.flows.batch import (
    digest_of,
    finish,
    is_approved,
    is_done,
    keep_plan,
    opened,
    pack_states,
    read_plan,
    signed,
    unpack_states,
)
from fangxin.flows.estate import Estate
from fangxin.flows.locate import find
from fangxin.flows.plan import Plan, decide_canary, domains, drops, join


def plant(batch_id: str) -> None:
    """Plant the canary where nobody wrote meanwhile, locate it, and approve the plan the operator said yes to."""
    estate, batch = opened(batch_id)
    if is_done(estate, batch, "plant"):
        return
    if not is_approved(batch):  # before the canary: without an approval nothing changes in any store
        raise NotAllowed("the plan is not approved", hint="--yes approves it in operator mode")
    if signed(estate, batch) is None:
        _few_enough(estate, batch)
    people = read_plan(estate, batch, "people")
    interrupted = estate.requests.note(batch.id, "planting") is not None
    if not interrupted:
        if unpack_states(estate.requests.kept(batch, "states/located")) != estate.states():
            raise NotAllowed("a store changed after it was located", hint="stop its writers, then run this again")
        estate.requests.done(batch.id, "planting", at=estate.minute, note={})
    one = estate.requests.requests(batch.id)[-1]
    for store in estate.stores:
        store.recover(batch=batch.id)
    persona = canaries.persona(estate.catalog, one.identities)
    cohort = Cohort((Subject(one.id, persona),))
    standing: set[str] = set()
    if interrupted:  # some rows may stand already: they are not planted twice
        estate.meter.step = "plant-again"
        standing = set(find(estate, cohort, whole=True).traces["collection"].to_pylist())
    estate.meter.step = "plant"
    planted = canaries.plant(estate, persona, but=standing)
    estate.meter.step = "plant-locate"
    found = find(estate, cohort, whole=True)
    planted = {a: 1 for a in [*planted, *standing]}
    mine = _numbered(decide_canary(estate.catalog, found), one.number)
    plan = join(people, mine, digest="")
    digest = digest_of(batch.catalog, plan.fates, plan.texts)
    plan = replace(plan, digest=digest)
    keep_plan(estate, batch, "whole", plan)
    estate.requests.keep(batch, "states", pack_states(estate.states()))
    estate.requests.keep(batch, "planted", json.dumps(planted).encode())
    finish(estate, batch, "plant", plan=digest, planted=len(planted))


def _few_enough(estate: Estate, batch: Batch) -> None:
    """Raise NotAllowed where so many people need officers; the vault asks again when the keys die."""
    codes = {name: estate.tree.domain_code(name) for name in domains(estate.catalog)}
    dying = drops(estate.catalog, read_plan(estate, batch, "people"), codes)
    estate.tree.allowed(dying, now=estate.now)


def _numbered(plan: Plan, number: int) -> Plan:
    """The canary's plan with its own subject number."""
    fates, texts, facts = (f.assign(subject=np.int32(number)) for f in (plan.fates, plan.texts, plan.facts))
    return Plan(fates, texts, facts, plan.digest)

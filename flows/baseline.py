"""Baseline: the search that must find everybody, before the same search must find nobody.

A scan that does not see the canary in a collection would not have seen the person either: the run stops here, and
nothing was destroyed.
"""

from __future__ import annotations

import hashlib
import json
from itertools import zip_longest

from fangxin.data.errors import DoesNotHold, Incomplete, NotAllowed
from fangxin.data.requests import Request
from fangxin.flows.approvals import of_batch
from fangxin.flows.batch import finish, is_done, opened, read_plan, unpack_states
from fangxin.flows.estate import Estate
from fangxin.flows.evidence import APPROVED, LOCATED, RETAINED, mark, record
from fangxin.flows.frames import each
from fangxin.flows.hits import opaque, unseen
from fangxin.flows.inventory import keep_inventory
from fangxin.flows.places import places
from fangxin.flows.plan import Plan, held_classes, last_day, orders
from fangxin.flows.sight import look, searching
from fangxin.flows.strays import discreetly, remains, strays, unread
from fangxin.reports.ledger.entries import band


def baseline(batch_id: str) -> None:
    """Search everything before anything is touched; a scan that does not see the canary stops the run here.

    At its end every rewriting is rehearsed: what a store would refuse after keys are dead, it refuses now.
    """
    estate, batch = opened(batch_id)
    if is_done(estate, batch, "baseline"):
        return
    for store in estate.stores:  # what a killed rehearsal left holds the people, and is a file that nobody catalogued
        store.recover(batch=batch.id)
    plan = read_plan(estate, batch, "whole")
    estate.meter.step = "baseline"
    together = searching(estate.catalog, plan.facts, plan.texts)
    wanted = together.needles
    seen = look(estate, together)
    shut = unread(estate.catalog, seen)
    if shut:  # afterwards it would be no better, and keys would be dead
        raise Incomplete(
            f"what cannot be examined cannot be certified: {discreetly(shut, wanted)}",
            hint="restore it, or take it out of the folder, then run this again; nothing was destroyed",
        )
    keep_inventory(estate, batch, places(estate))
    planted = json.loads(estate.requests.kept(batch, "planted") or b"{}")
    subjects = [r.number for r in estate.requests.requests(batch.id)]
    located = set(plan.fates.loc[plan.fates["subject"] == subjects[-1], "collection"])
    missed = unseen(estate.catalog, plan, seen, opaque=opaque(estate))
    blind = sorted((set(planted) - located) | {address for _subject, address in missed})
    if blind:
        raise DoesNotHold(
            f"the baseline is blind in {', '.join(blind)}: rows of {len({s for s, _a in missed})} subjects (the canary "
            "may be one) were located there and not seen",
            hint="the catalog misses a reference or a store cannot be searched; nothing was touched",
        )
    claimed = seen.hits["place"].map(lambda place: bool(seen.claims.get(place)))
    named = seen.hits[seen.hits["container"].str.startswith("name") & claimed]
    if len(named):
        raise NotAllowed(
            f"{len(set(named['place']))} units carry an identity in their names, which no overwriting reaches",
            hint="name units by numbers or random ids, then run this again",
        )
    approval = of_batch(estate, batch, plan)
    states = unpack_states(estate.requests.kept(batch, "states"))
    work = orders(estate.catalog, plan, estate.stores, states)
    estate.meter.step = "remains"
    outside = sorted({*strays(estate, plan, seen), *remains(estate, plan, seen, wanted, work)})
    if outside:
        raise NotAllowed(
            f"these people also stand where this run would leave them: {discreetly(outside, wanted)}",
            hint="add it to the catalog, or remove it, then run this again; nothing was destroyed",
        )
    estate.meter.step = "rehearse"
    for name, ordered in work.items():
        next(store for store in estate.stores if store.name == name).rehearse(ordered)
    estate.meter.step = "baseline"
    estate.requests.keep(batch, "before", seen.pack())
    digest = hashlib.sha256(seen.pack()).hexdigest()
    people = [r for r in estate.requests.requests(batch.id) if not r.canary]
    record(estate, [entry for one in people for entry in _planned(estate, plan, one, digest, approval)])
    # A flush never holds two kept classes of one person: dates that belong together would tell that they do.
    for kept in zip_longest(*(_retained(plan, one) for one in people)):
        record(estate, [entry for entry in kept if entry is not None])
    finish(estate, batch, "baseline", digest=digest, bytes=seen.total, patterns=seen.patterns)


def _planned(
    estate: Estate, plan: Plan, one: Request, digest: str, approval: dict[str, int | str]
) -> list[dict[str, int | str]]:
    """What was located and approved for one request. The bands are the cohort's: a person's own would single it out."""
    counts = []
    for store in estate.stores:
        n = int(plan.fates["collection"].isin([c.address for c in store.collections]).sum())
        counts.append(f"{estate.store_id(store)}:{band(n)}")
    return [
        {"type": "located", "tag": mark(one, LOCATED), "counts": ",".join(counts), "baseline": digest},
        {"type": "approved", "tag": mark(one, APPROVED), **approval},
    ]


def _retained(plan: Plan, one: Request) -> list[dict[str, int | str]]:
    """What a law keeps of one request, an entry for each rule in each collection."""
    fates = plan.fates[(plan.fates["subject"] == one.number) & (plan.fates["fate"] == "retain")]
    found = []
    for place, (_address, rule, rows) in enumerate(each(fates, "collection", "rule")):
        until, event = last_day(rows)
        entry: dict[str, int | str] = {"type": "retained", "tag": mark(one, RETAINED + place), "rule": rule}
        entry |= {"class": ",".join(sorted(held_classes(rows))), "until": until if until == "officer" else until[:7]}
        found.append(entry | ({"event": event[:7]} if event else {}))
    return found

"""Unplant: the canary leaves the stores where a batch ends before, or without, everything having been shown.

Its values are known only to the batch; once that has forgotten them, no command could name its rows any more.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from fangxin.data.requests import Batch
from fangxin.data.vocabulary import Cohort, Subject
from fangxin.flows.canary import persona
from fangxin.flows.estate import Estate
from fangxin.flows.locate import find
from fangxin.flows.plan import Plan, decide_canary, orders

if TYPE_CHECKING:
    import pandas as pd

_STAYS = "planted_left"


def take_out(estate: Estate, batch: Batch, *, mentioned: Collection[str] | None = None) -> None:
    """Take every row of a batch's canary out of the stores, as they are now.

    `mentioned`: the collections whose planted row only mentions it. Elsewhere such a row is a chance hit in somebody's
    data, which cannot be told once the canary's own row is gone; None where that still stands.
    """
    mend(estate, batch)
    one = estate.requests.requests(batch.id)[-1]
    found = find(estate, Cohort((Subject(one.id, persona(estate.catalog, one.identities)),)), whole=True)
    plan = decide_canary(estate.catalog, found)
    if mentioned is not None:
        chance = (plan.fates["edge"] == "mentions") & ~plan.fates["collection"].isin(list(mentioned))
        plan.fates.loc[chance, "fate"] = "mention"
    work = orders(estate.catalog, plan, estate.stores, estate.states())
    for store in estate.stores:
        for _done in store.erase(work.get(store.name, []), batch=batch.id):
            pass
        store.forget(batch=batch.id)


def mend(estate: Estate, batch: Batch) -> None:
    """Finish or undo what a kill while rows were taken out left in the stores: until then a unit may have a second
    name, which every store refuses, and our own copies hold people. Idempotent; touches no live data."""
    for store in estate.stores:
        store.recover(batch=batch.id)
        store.forget(batch=batch.id)


def withdraw(estate: Estate, batch: Batch, plan: Plan, findings: pd.DataFrame, elsewhere: pd.DataFrame) -> None:
    """Take out what a look found of the canary, and look again: what stays is noted, by place.

    Only where an operator ends the batch as it stands: nobody looks for the canary afterwards. Where the look found
    nothing of it, nothing is touched. `elsewhere`: what stands outside the catalog (flows/outside.py), where no order
    reaches.
    """
    number = estate.requests.requests(batch.id)[-1].number
    mine = findings[findings["subject"] == number]
    there = _beyond(number, elsewhere)
    if (mine["rows_residual"] + mine["hits_after"]).any():
        fates = plan.fates[plan.fates["subject"] == number]
        owned = set(fates.loc[fates["edge"] != "mentions", "collection"])
        take_out(estate, batch, mentioned=set(fates["collection"]) - owned)
        there |= _left(estate, plan, number)
    estate.requests.done(batch.id, _STAYS, at=estate.minute, note={"places": there}, anew=True)


def stays_no_more(estate: Estate, batch: Batch, elsewhere: pd.DataFrame) -> None:
    """A look that holds, without a word, replaces what an earlier one under a word noted: only what it found stays."""
    if estate.requests.note(batch.id, _STAYS) is not None:
        there = _beyond(estate.requests.requests(batch.id)[-1].number, elsewhere)
        estate.requests.done(batch.id, _STAYS, at=estate.minute, note={"places": there}, anew=True)


def _beyond(number: int, elsewhere: pd.DataFrame) -> dict[str, int]:
    """How often the canary stands outside the catalog, by place."""
    mine = elsewhere[elsewhere["subject"] == number]
    return {str(place): int(n) for place, n in zip(mine["place"], mine["hits"], strict=True)}


def stays(estate: Estate, batch_id: str) -> dict[str, int]:
    """How often the canary of a batch that ended as it stands is still found, by place; empty where it is gone."""
    return dict((estate.requests.note(batch_id, _STAYS) or {}).get("places", {}))


def _left(estate: Estate, plan: Plan, number: int) -> dict[str, int]:
    """How often the canary is found now, by collection: in rows, or in bytes where that is more."""
    from fangxin.checks.residue.together import Together
    from fangxin.flows.again import locate_again
    from fangxin.flows.hits import attributed, explained, known_facts, sums
    from fangxin.flows.plan import standing
    from fangxin.flows.sight import look, needles

    facts, texts, fates = (part[part["subject"] == number] for part in (plan.facts, plan.texts, plan.fates))
    alone = Plan(fates, texts, facts, plan.digest)
    wanted = needles(estate.catalog, facts, texts)
    again = locate_again(estate, facts, wanted)
    everything = list(attributed(look(estate, Together(wanted)), known_facts(estate.catalog, alone)))
    listed = sums(explained(estate, everything, again, standing(estate.catalog, fates)))
    found = {address: n - listed.get((s, address), 0) for (s, address), n in sums(everything).items()}
    rows = again.hits.drop_duplicates(["collection", "unit", "position"])["collection"].value_counts()
    for address, n in rows.items():
        found[str(address)] = max(found.get(str(address), 0), int(n))
    return {address: n for address, n in sorted(found.items()) if n > 0}

"""Relocate: units that somebody wrote after the plan was approved are searched again, by everything that was known.

Keys may be dead by then and earlier stores erased, so the way from a phone to a row may be gone: the sealed facts
themselves are looked up. The approval stands as long as it covers what is found: as many rows of each person as were
approved, or fewer, wherever they lie now. More of them mean that somebody still writes about these people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fangxin.data.errors import NotAllowed, UnitChanged
from fangxin.data.requests import Batch
from fangxin.data.vocabulary import Cohort, Erasure, Identity, Order, Store, Subject, Unit
from fangxin.flows.batch import digest_of
from fangxin.flows.estate import Estate
from fangxin.flows.frames import each, tuples
from fangxin.flows.locate import find
from fangxin.flows.plan import Bound, Plan, decide

if TYPE_CHECKING:
    import pandas as pd

States = Mapping[tuple[str, str], Unit]


@dataclass(frozen=True)
class Relocated:
    """The plan and the states to go on with: those of the units that others wrote are new."""

    plan: Plan
    states: States


def foreign(store: Store, work: Sequence[Order], *, batch: Batch) -> tuple[str, ...]:
    """The units that are neither as they were located nor what this batch made of them; changes nothing."""
    now = {unit.name: unit for unit in store.units()}
    found = []
    for order in work:
        if now.get(order.unit.name) != order.unit:
            try:
                _ours(store, order, batch)
            except UnitChanged:
                found.append(order.unit.name)
    return tuple(found)


def relocate(
    estate: Estate, plan: Plan, store: Store, changed: Sequence[str], states: States, *, bound: Mapping[int, Bound]
) -> Relocated:
    """Search the changed units, and those that are new, and put what is found in the plan's place.

    NotAllowed where a person has more rows there than were approved.
    """
    import pandas as pd

    now = {unit.name: unit for unit in store.units()}
    mine = [c.address for c in store.collections]
    known = {name for (of, name) in states if of == store.name}
    units = {*changed, *(now.keys() - known)}
    estate.meter.step = "relocate"
    people = tuple(
        Subject(str(number), tuple(Identity(k, v) for k, v in tuples(rows, "kind", "value")))
        for number, rows in each(plan.facts, "subject")
    )
    found = find(estate, Cohort(people))
    fresh = decide(estate.catalog, found, estate.laws, estate.settings.facts, estate.now.date(), bound=bound)
    old, new = (_inside(p.fates, mine, units) for p in (plan, fresh))
    _same_or_fewer(store, old, new)
    texts = [plan.texts.drop(_inside(plan.texts, mine, units).index), _inside(fresh.texts, mine, units)]
    fates = [plan.fates.drop(old.index), new]
    rows, marks = pd.concat(fates, ignore_index=True), pd.concat(texts, ignore_index=True)
    digest = digest_of(estate.catalog.digest, rows, marks)
    joined = replace(plan, fates=rows, texts=marks, digest=digest)
    here = {(store.name, name): now[name] for name in units if name in now}
    gone = {(store.name, name) for name in units if name not in now}
    kept = {key: unit for key, unit in states.items() if key not in gone}
    return Relocated(joined, {**kept, **here})


def _ours(store: Store, order: Order, batch: Batch) -> tuple[Erasure, ...]:
    """What this batch did to a unit before; UnitChanged if it is somebody else's. The unit is not as it was located,
    so no store can act on the order."""
    return tuple(store.erase([order], batch=batch.id))


def _inside(rows: pd.DataFrame, addresses: Sequence[str], units: set[str]) -> pd.DataFrame:
    return rows[rows["collection"].isin(addresses) & rows["unit"].isin(units)]


def _same_or_fewer(store: Store, old: pd.DataFrame, new: pd.DataFrame) -> None:
    by = ["subject", "collection"]
    approved = {(subject, address): len(rows) for subject, address, rows in each(old, *by)}
    over = {
        (subject, address): more
        for subject, address, rows in each(new, *by)
        if (more := len(rows) - approved.get((subject, address), 0)) > 0
    }
    if over:
        where = sorted({address for _subject, address in over})
        raise NotAllowed(
            f"{store.name}: somebody still writes: {sum(over.values())} more rows of these people than were approved, "
            f"in {', '.join(where)}",
            hint="stop the writers, take out what they added of these people, then `fangxin resume`",
        )

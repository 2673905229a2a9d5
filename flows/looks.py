"""Looks: what many people are found by, what becomes of their rows and what they hold, each unit opened once for all.

Somebody in a cohort is seen as they would be alone. Whoever shares a row with another of the cohort, or at whom the
walk halts, is looked for alone after it: what becomes of a shared row must not hang on who else came that day.
"""

from __future__ import annotations

import secrets as random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from fangxin.data.catalog.identity import Closure as Found
from fangxin.data.catalog.identity import Halt
from fangxin.data.closures.store import Closure
from fangxin.data.errors import FangxinError, InputError, NotAllowed
from fangxin.data.keys.envelope import ref_of
from fangxin.data.vocabulary import Cohort, Identity, Subject
from fangxin.flows.desk import Desk, Secret
from fangxin.flows.frames import tuples
from fangxin.flows.holdings import held_by
from fangxin.flows.locate import find
from fangxin.flows.plan import Bound, Plan, decide, domains, drops, undecided
from fangxin.flows.settlement import Entitlement

if TYPE_CHECKING:
    import pandas as pd

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Look:
    """What was found of one person: rows by collection and fate, cases for the seal, facts (kind, value), items."""

    rows: dict[str, dict[str, int]]
    cases: tuple[tuple[bytes, bytes, tuple[int, ...]], ...] = field(repr=False)
    facts: Pairs = field(repr=False)
    items: tuple[Entitlement, ...] = field(repr=False)


def accounts(desk: Desk, people: Sequence[Sequence[Identity]]) -> list[list[str] | FangxinError]:
    """The accounts of each person, in order; where a person has to look, that error in their place."""
    found = _find(desk, people)
    if found is None:
        return [accounts(desk, [one])[0] for one in people] if len(people) > 1 else [_refused(desk, people[0])]
    halted = {one.subject: one for one in found.halts}
    apart = _apart(found) if len(people) > 1 else set()
    told: list[list[str]] = [[] for _one in people]
    facts = found.facts.to_pandas()
    for subject, value in tuples(facts[facts["kind"] == (desk.estate.catalog.person_kind or "")], "subject", "value"):
        told[subject].append(value)
    answers: list[list[str] | FangxinError] = []
    for n, one in enumerate(told):
        if n in apart:
            answers += accounts(desk, [people[n]])
        else:
            answers.append(walked(halted[n]) if n in halted else sorted(one))
    return answers


def decided(closure: Closure) -> dict[str, str]:
    """By collection what officers decided about rows of a closing that others use too (decisions.py)."""
    return {one["collection"]: one["choice"] for one in closure.facts.get("decisions", ())}


def bounds(closures: Sequence[Closure]) -> dict[int, Bound]:
    """The same for people in this order, as a plan takes it."""
    return {n: Bound(decided=found) for n, one in enumerate(closures) if (found := decided(one))}


def look(
    desk: Desk, secrets: Sequence[Secret], bound: Mapping[int, Bound] = MappingProxyType({})
) -> list[Look | FangxinError]:
    """Look for these people by the identities they gave; whoever cannot be planned has their error in their place.

    `bound`: what officers decided, by their number (`bounds`).
    """
    people = [tuple(Identity(k, v) for k, v in one.identities) for one in secrets]
    found = _find(desk, people)
    try:
        if found is None:
            raise _refused(desk, people[0]) if len(people) == 1 else NotAllowed("somebody cannot be walked")
        estate = desk.estate
        plan = decide(estate.catalog, found, estate.laws, estate.settings.facts, estate.now.date(), bound=bound)
    except FangxinError as error:
        return [error] if len(secrets) == 1 else [_alone(desk, n, one, bound) for n, one in enumerate(secrets)]
    apart = _apart(found) if len(secrets) > 1 else set()
    halted = {one.subject: one for one in found.halts}
    codes = {name: estate.tree.domain_code(name) for name in domains(estate.catalog)}
    dying = drops(estate.catalog, plan, codes)
    refs, facts = _facts(desk, plan.facts, len(people))
    rows = rows_of(plan.fates, len(people))
    items = holdings(desk, plan.fates, secrets)
    seen: list[Look | FangxinError] = []
    for n, secret in enumerate(secrets):
        mine = items[n]
        if n in apart:
            seen.append(_alone(desk, n, secret, bound))
        elif n in halted:
            seen.append(walked(halted[n]))
        elif not rows[n]:
            seen.append(InputError("nobody has these identities any more", hint="the request may be withdrawn"))
        elif isinstance(mine, FangxinError):
            seen.append(mine)
        else:
            cases = tuple(
                (random.token_bytes(16), ref, tuple(sorted(dying[ref]))) for ref in sorted(refs[n]) if dying.get(ref)
            )
            seen.append(Look(rows[n], cases, tuple(sorted(facts[n] | set(secret.identities))), mine))
    return seen


def _alone(desk: Desk, number: int, secret: Secret, bound: Mapping[int, Bound]) -> Look | FangxinError:
    return look(desk, [secret], {0: bound[number]} if number in bound else {})[0]


def plan_of(desk: Desk, secret: Secret, bound: Mapping[int, Bound] = MappingProxyType({})) -> Plan:
    """What becomes of every row of one person; nothing in any store is changed."""
    estate = desk.estate
    found = find(estate, _cohort([[Identity(k, v) for k, v in secret.identities]]))
    if found.halts:
        raise walked(found.halts[0])
    return decide(estate.catalog, found, estate.laws, estate.settings.facts, estate.now.date(), bound=bound)


def looked_up(
    desk: Desk, people: Sequence[Pairs], bound: Mapping[int, Bound]
) -> tuple[pd.DataFrame, dict[int, NotAllowed]]:
    """What becomes of every row of people, by everything that they are found by; and who waits for a decision.

    One look for all of them. Whoever has rows that others use too, and about which nobody decided, has no fates here,
    and holds up nobody else.
    """
    estate = desk.estate
    found = find(estate, _cohort([[Identity(k, v) for k, v in one] for one in people]))
    waits = undecided(estate.catalog, found, bound)
    if waits:
        mine = pc.is_in(found.traces["subject"], pa.array(sorted(waits), found.traces.schema.field("subject").type))
        found = replace(found, traces=found.traces.filter(pc.invert(mine)))
    plan = decide(estate.catalog, found, estate.laws, estate.settings.facts, estate.now.date(), bound=bound)
    return plan.fates, waits


def holdings(
    desk: Desk, fates: pd.DataFrame, secrets: Sequence[Secret]
) -> list[tuple[Entitlement, ...] | FangxinError]:
    """By subject the items they hold; an item that nobody's rules know stands in the way of its holder alone."""
    try:
        keys, zone = [one.secret for one in secrets], desk.promise.zone
        return list(held_by(desk.estate, fates, desk.sources, secrets=keys, zone=zone))
    except FangxinError as error:
        if len(secrets) == 1:
            return [error]
        each_own = [fates[fates["subject"] == n].assign(subject=0) for n in range(len(secrets))]
        return [holdings(desk, own, [secret])[0] for own, secret in zip(each_own, secrets, strict=True)]


def rows_of(fates: pd.DataFrame, people: int) -> list[dict[str, dict[str, int]]]:
    """By subject how many rows of each collection end how."""
    rows = fates.drop_duplicates(["subject", "collection", "unit", "position"])
    counted = rows.groupby(["subject", "collection", "fate"], sort=True).size().reset_index(name="rows")
    told: list[dict[str, dict[str, int]]] = [{} for _one in range(people)]
    for subject, address, fate, count in tuples(counted, "subject", "collection", "fate", "rows"):
        told[subject].setdefault(address, {})[fate] = count
    return told


def walked(halt: Halt) -> NotAllowed:
    """What is said where a walk halted."""
    return NotAllowed(
        f"the walk halted at {halt.collection} ({halt.guard}): a person has to look",
        hint="name every account, or set guards in the catalog",
    )


def _find(desk: Desk, people: Sequence[Sequence[Identity]]) -> Found | None:
    """The walk for all of them; None where it was refused for somebody."""
    try:
        return find(desk.estate, _cohort(people))
    except NotAllowed:
        return None


def _refused(desk: Desk, person: Sequence[Identity]) -> FangxinError:
    try:
        find(desk.estate, _cohort([person]))
    except FangxinError as error:
        return error
    return NotAllowed("the stores changed while they were read", hint="ask again")


def _cohort(people: Sequence[Sequence[Identity]]) -> Cohort:
    return Cohort(tuple(Subject(str(n), tuple(one)) for n, one in enumerate(people)))


def _apart(found: Found) -> set[int]:
    """The subjects with a row that another of the cohort has, too, and those at whom the walk halted."""
    rows = found.traces.to_pandas()[["subject", "collection", "unit", "position"]].drop_duplicates()
    shared = rows[rows.duplicated(["collection", "unit", "position"], keep=False)]
    return {*shared["subject"].tolist(), *(one.subject for one in found.halts)}


def _facts(desk: Desk, facts: pd.DataFrame, people: int) -> tuple[list[set[bytes]], list[set[tuple[str, str]]]]:
    """By subject the key refs of their accounts, and what they are found by."""
    own = desk.estate.catalog.person_kind
    refs: list[set[bytes]] = [set() for _one in range(people)]
    known: list[set[tuple[str, str]]] = [set() for _one in range(people)]
    for subject, kind, value in tuples(facts, "subject", "kind", "value"):
        if kind == own:
            refs[subject].add(ref_of(kind, value))
        if kind == own or not kind.startswith("ref:"):
            known[subject].add((kind, value))
    return refs, known

"""Which kinds each column matches and emits: references joined into domains, identities, and the person's own kind.

Columns that references connect hold the same thing, so they share one kind, `ref:` and the least of their
addresses; children of an account row that is already gone are still found by it.

* `direction: from` - this column matches, the other emits; `to` - the other way round; absent - both do both.
* An `identity` makes a column match and emit that kind. A mention, a hash and free text match only.
* A `name` is neither matched nor emitted: it confirms, it never leads anywhere.
* The primary key of the person collection always matches and emits its kind: keys hang on it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from fangxin.data.catalog.shape import Address, Draft, Link
from fangxin.data.catalog.tree import Problem, Severity
from fangxin.data.vocabulary import Dataset, Field, IdentityFormat, Mode, Ownership


@dataclass(frozen=True)
class Resolved:
    """Datasets with matches and emits filled in, and what follows from them."""

    datasets: tuple[Dataset, ...]
    person_kind: str | None
    kinds: frozenset[str]


def resolve(draft: Draft, problems: list[Problem]) -> Resolved:
    """Resolve every reference of a draft; missing targets are errors in our datasets, warnings in those of Fides."""
    fields = {
        address: (one, ownership)
        for dataset in draft.datasets
        for collection in dataset.collections
        for ownership in [collection.ownership]
        for address, one in _walk((dataset.key, collection.name, ()), collection.fields)
    }
    links = [link for link in draft.links if _exists(link, fields, problems)]
    person = _person(draft, problems)
    domain = _domains([(link.source, link.target) for link in links], [person] if person else [], person)
    matches: dict[Address, set[str]] = {a: set() for a in fields}
    emits: dict[Address, set[str]] = {a: set() for a in fields}
    for link in links:
        kind = domain[link.source]
        if link.direction != "to":
            matches[link.source].add(kind)
            emits[link.target].add(kind)
        if link.direction != "from":
            emits[link.source].add(kind)
            matches[link.target].add(kind)
    kinds = frozenset(f.identity for f, _o in fields.values() if f.identity) | frozenset(draft.customs.values())
    for address, (one, ownership) in fields.items():
        if address in draft.customs:
            matches[address].add(draft.customs[address])
        if one.identity and one.identity != "name":
            matches[address].add(one.identity)
            if one.identity_format is IdentityFormat.RAW:
                emits[address].add(one.identity)
        if one.data_type == "text":
            matches[address] |= kinds - {"name"}
            emits[address].clear()
        if Ownership.MENTION in (one.ownership, ownership):
            matches[address] |= emits[address]
            emits[address].clear()
    person_kind = None
    if person:
        person_kind = domain[person]
        matches[person].add(person_kind)
        emits[person].add(person_kind)

    def filled(one: Field, address: Address) -> Field:
        sub = tuple(filled(s, (address[0], address[1], (*address[2], s.name))) for s in one.sub)
        if not (sub or matches[address] or emits[address]):
            return one  # most fields lead nowhere, and copying 48,000 of them costs half a second
        return replace(one, matches=tuple(sorted(matches[address])), emits=tuple(sorted(emits[address])), sub=sub)

    datasets = tuple(
        replace(
            d,
            collections=tuple(
                replace(c, fields=tuple(filled(f, (d.key, c.name, (f.name,))) for f in c.fields)) for c in d.collections
            ),
        )
        for d in draft.datasets
    )
    return Resolved(datasets, person_kind, kinds)


def printed(address: Address) -> str:
    """`dataset/collection.field.sub`, as it stands in the name of a kind."""
    return f"{address[0]}/{address[1]}.{'.'.join(address[2])}"


def _walk(parent: Address, fields: tuple[Field, ...]) -> Iterator[tuple[Address, Field]]:
    for one in fields:
        address = (parent[0], parent[1], (*parent[2], one.name))
        yield address, one
        yield from _walk(address, one.sub)


def _exists(link: Link, fields: dict[Address, tuple[Field, Ownership]], problems: list[Problem]) -> bool:
    if link.source not in fields:
        return False  # the field itself was refused, and reported
    if link.target in fields:
        return True
    dataset, wanted = link.target[0], ".".join((link.target[1], *link.target[2]))
    there = [".".join((a[1], *a[2])) for a in fields if a[0] == dataset]
    if not there:
        known = sorted({a[0] for a in fields})
        close = difflib.get_close_matches(dataset, known, n=1)
        text = f'reference to dataset "{dataset}", which is not in the catalog'
    else:
        close = difflib.get_close_matches(wanted, there, n=1)
        text = f'reference to "{wanted}", which is not in dataset "{dataset}"'
    hint = f'; did you mean "{close[0]}"?' if close else ""
    severity = Severity.ERROR if link.ours else Severity.WARNING
    problems.append(Problem(link.where, severity, text + hint))
    return False


def _person(draft: Draft, problems: list[Problem]) -> Address | None:
    """The address of the one person collection's primary key; keys hang on it, so there must be exactly one."""
    ours = [c for d in draft.datasets if d.ours for c in d.collections]
    people = [c for c in ours if c.person]
    protected = [f for c in ours for f in c.fields if f.mode is Mode.CRYPTO_ERASE]
    if len(people) > 1:
        for extra in people[1:]:
            text = f"a second person collection; expected only {people[0].address}; one row of it is one account"
            problems.append(Problem(extra.where, Severity.ERROR, text))
        return None
    if not people:
        if protected:
            text = "crypto-erase without a person collection; expected one collection with erasure.person: true"
            problems.append(Problem(protected[0].where, Severity.ERROR, text))
        return None
    key = people[0].primary_key
    return (people[0].dataset, people[0].name, (key.name,)) if key else None


def _domains(pairs: list[tuple[Address, Address]], alone: list[Address], person: Address | None) -> dict[Address, str]:
    """Union-find over the references; a domain is named by its least address, the person's own by the person's key.

    Keys are found by the person's kind: its name must not change when a dataset is added.
    """
    parent: dict[Address, Address] = {a: a for pair in pairs for a in pair} | {a: a for a in alone}

    def root(address: Address) -> Address:
        while parent[address] != address:
            parent[address] = parent[parent[address]]
            address = parent[address]
        return address

    for one, other in pairs:
        low, high = sorted((root(one), root(other)), key=printed)
        parent[high] = low
    names = {root(a): printed(root(a)) for a in parent}
    if person in parent:
        names[root(person)] = printed(person)
    return {a: f"ref:{names[root(a)]}" for a in parent}

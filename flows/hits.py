"""Hits laid at somebody's door: whose they are, in which collection, and which rows that stay explain them.

A hit afterwards is explained only by a row that the plan lists as remaining: in the same unit, in the same column,
the same value, as the store itself keeps it. What is packed inside a value is explained by nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fangxin.data.vocabulary import Catalog, Field, IdentityFormat, Mode
from fangxin.flows.again import Again
from fangxin.flows.estate import Estate
from fangxin.flows.frames import each, tuples
from fangxin.flows.own import is_own
from fangxin.flows.packed import is_packed
from fangxin.flows.places import NOBODYS
from fangxin.flows.plan import Plan
from fangxin.flows.sight import Sight, searchable

if TYPE_CHECKING:
    import pandas as pd

_SHORTEST = 8  # bytes; shorter values are not searched as such: they would hit by chance (checks/residue/patterns.py)


@dataclass(frozen=True)
class Hit:
    """Byte hits of one value in one place, laid at the door of one collection; `certain` where it can only be that."""

    subject: int
    address: str
    place: str
    container: str
    column: str
    fact: tuple[str, str] = field(repr=False)
    hits: int
    most: int  # of one form: no more occurrences than that
    certain: bool
    foreign: bool  # in a table that no collection names
    inside: bool  # as far as its neighbours tell, part of a longer value
    longer: int  # if so, how often cells of the place hold it as a part of longer ones

    @property
    def packed(self) -> bool:
        """Whether it stands in what a value holds packed, where no row explains it."""
        return is_packed(self.place, self.container)


def opaque(estate: Estate) -> frozenset[str]:
    """Addresses in stores whose bytes a search cannot read."""
    return frozenset(c.address for s in estate.stores if not s.capabilities.raw_scan for c in s.collections)


def known_facts(catalog: Catalog, plan: Plan) -> list[tuple[str, str]]:
    """Kind and value of every needle's identity, by its number."""
    facts, _kinds = searchable(catalog, plan.facts)
    return [(k, v) for k, v in tuples(facts, "kind", "value")]


def attributed(seen: Sight, known: Sequence[tuple[str, str]]) -> Iterator[Hit]:
    """Lay every hit at the door of the collections whose unit it stands in.

    A decoded SQLite row names its table; the raw pages of a database, a journal, a sidecar or our own home do not
    name a collection: afterwards such hits count against every one of the place, before they count for none.
    """
    columns = ("place", "container", "column", "subject", "identity", "hits", "most", "inside")
    for place, container, column, subject, identity, hits, most, inside in tuples(seen.hits, *columns):
        addresses = seen.claims.get(place, NOBODYS)
        table = table_of(container)
        own = tuple(a for a in addresses if a.split("/", 1)[1] == table)
        foreign = table is not None and not own and not any(map(is_own, addresses))
        for address in own or addresses:
            certain = bool(own) or (len(addresses) == 1 and not foreign)
            fact, longer = known[identity], seen.longer.get((place, identity), 0) if inside else 0
            yield Hit(subject, address, place, container, column, fact, hits, most, certain, foreign, inside, longer)


def explained(estate: Estate, seen: Iterable[Hit], again: Again, stands: pd.DataFrame) -> Iterator[Hit]:
    """Hits afterwards that a row explains which the plan leaves standing: same unit, same field, same value.

    Where the bytes do not name a field, only whole rows can be explained (text, and the pages of a database); in
    text no more occurrences than such rows hold. What stands in a table nobody catalogued, in free pages, footers,
    sidecars, names, or packed inside a value is never explained by a row. Nor is part of a longer value a hit: a cell
    has to hold that value.
    """
    names = {c.address: s.name for s in estate.stores for c in s.collections}
    keys = ["subject", "collection", "unit", "field"]
    still = again.hits.merge(stands[keys].drop_duplicates(), on=keys)
    exact: set[tuple[str, str, str, tuple[str, str]]] = set()
    room: dict[tuple[str, tuple[str, str]], int] = {}
    columns = ("collection", "unit", "field", "kind", "value", "times")
    for collection, unit, name, kind, value, times in tuples(still, *columns):
        place = f"{names[collection]}/{unit}"
        exact.add((collection, place, name, (kind, value)))
        room[(place, (kind, value))] = room.get((place, (kind, value)), 0) + times
    for hit in seen:
        if hit.foreign or hit.packed or hit.container in ("sqlite:free", "name"):
            continue
        if hit.longer and (hit.column or hit.container.startswith("sqlite") or hit.most <= hit.longer):
            yield hit
            continue
        pages = hit.container.startswith(("sqlite:page", "sqlite:index="))
        text = not hit.column and not pages and not hit.container.startswith("parquet")
        left = room.get((hit.place, hit.fact), 0)
        if (hit.address, hit.place, hit.column, hit.fact) in exact or (pages and left) or (text and hit.most <= left):
            yield hit


def sums(hits: Iterable[Hit]) -> dict[tuple[int, str], int]:
    """Hits per subject and collection."""
    found: dict[tuple[int, str], int] = {}
    for one in hits:
        found[(one.subject, one.address)] = found.get((one.subject, one.address), 0) + one.hits
    return found


def table_of(container: str) -> str | None:
    """The table of a database in which a decoded hit stands, if only packed in a value, from the container's label."""
    return container.split(" > ")[0].partition(":table=")[2] or None


def sighted(
    catalog: Catalog, plan: Plan, seen: Sight, *, opaque: Collection[str] = frozenset()
) -> dict[tuple[int, str], int]:
    """What the baseline saw, per subject and collection; what looks like part of a longer value only beside rows.

    Where a row was located by a value that is searched by its bytes, only bytes count, and only where they can be
    nothing else than that collection's; rows located by other values (short numbers, names of things, values under
    keys) are judged by record: they count themselves. So do all rows of `opaque` collections, whose bytes a search
    cannot read: what is shown there is shown by construction.
    """
    located = set(tuples(plan.fates, "subject", "collection"))
    found = sums(
        h
        for h in attributed(seen, known_facts(catalog, plan))
        if h.certain and (not h.inside or (h.subject, h.address) in located)
    )
    facts, _kinds = searchable(catalog, plan.facts)
    long = {(s, k) for s, k, v in tuples(facts, "subject", "kind", "value") if len(v.encode()) >= _SHORTEST}
    for subject, address, rows in each(plan.fates, "subject", "collection"):
        collection = catalog.collection(address)
        matched = {name for names in rows["fields"].unique() for name in names.split(",")}
        fields = (f for f in collection.fields if f.name in matched)
        by_bytes = address not in opaque and any(
            (subject, kind) in long
            for f in fields
            if f.mode is not Mode.CRYPTO_ERASE and _byte_form(f)
            for kind in (catalog.kinds if f.data_type == "text" else f.matches)
        )
        if not by_bytes:
            found[(subject, address)] = found.get((subject, address), 0) + len(rows)
    return found


def unseen(
    catalog: Catalog, plan: Plan, seen: Sight, *, opaque: Collection[str] = frozenset()
) -> tuple[tuple[int, str], ...]:
    """Subjects and collections of which rows were located that the baseline did not see: there the scan is blind."""
    shown = sighted(catalog, plan, seen, opaque=opaque)
    owned = plan.fates[plan.fates["edge"].isin(["owns", "joint"])]
    return tuple((s, a) for s, a, _rows in each(owned, "subject", "collection") if not shown.get((s, a)))


def _byte_form(one: Field) -> bool:
    """Whether the scan knows the bytes of a value in this field: in clear, or hashed without a key."""
    return one.identity_format is not IdentityFormat.HMAC

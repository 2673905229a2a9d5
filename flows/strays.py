"""Strays: where people stand that a run would leave, told before anything is destroyed; and what is left afterwards.

Every cell of the units in which the baseline saw somebody is read as the orders will leave it. What stands in tables
that no collection names, no order reaches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from fangxin.checks.residue.containers.bloom import PROBE
from fangxin.checks.residue.patterns import Needles
from fangxin.data.vocabulary import Catalog, Change, Mode, Order, redacted
from fangxin.flows.again import Again
from fangxin.flows.cells import Cell, touched
from fangxin.flows.estate import Estate
from fangxin.flows.frames import tuples
from fangxin.flows.hits import Hit, attributed, explained, known_facts, table_of
from fangxin.flows.own import is_own
from fangxin.flows.packed import beside_rows, packed_in
from fangxin.flows.places import NOBODYS
from fangxin.flows.plan import REMAINS, Plan, standing
from fangxin.flows.printable import message
from fangxin.flows.sight import Sight, live

_BLANKED = (Mode.OVERWRITE, Mode.MASK, Mode.DELETE, Mode.CRYPTO_ERASE)


def strays(estate: Estate, plan: Plan, seen: Sight) -> tuple[str, ...]:
    """Where the baseline sees people in places that nothing would clean: to be told before anything is destroyed.

    Tables that no collection names, in a database that is rewritten; the definitions of its views and the like;
    columns, in units where rows of theirs stay, in which the catalog does not expect such a value; and our own home.
    Files that no collection names are no reason to stop: what stands there is reported (flows/outside.py).
    """
    stay = {(s, a, u) for s, a, u, f in tuples(plan.fates, "subject", "collection", "unit", "fate") if f in REMAINS}
    store_of = {c.address: s.name for s in estate.stores for c in s.collections}
    declared = {
        (c.address, f.name)
        for c in estate.catalog.collections
        for f in c.fields
        if f.matches or f.data_type == "text" or (f.mode in _BLANKED and f.retention is None)
    }
    found = set()
    for hit in attributed(seen, known_facts(estate.catalog, plan)):
        if is_own(hit.address):
            found.add(f"{hit.place}: in our own home, where no identity belongs")
        elif hit.container == "duckdb:catalog" and hit.address not in _out_of_scope(estate.catalog):
            found.add(f"{hit.place}: the definition of a view, table, macro or type, or a comment")
        elif hit.foreign:
            found.add(f"{hit.place}: table {table_of(hit.container)}, which no collection names")
        elif hit.longer:
            continue  # somebody else's longer value
        elif hit.certain and hit.column and (hit.address, hit.column) not in declared:
            unit = hit.place.removeprefix(f"{store_of[hit.address]}/")
            if (hit.subject, hit.address, unit) in stay:
                found.add(f"{hit.address}.{hit.column}: rows of these people stay, and nothing empties this column")
    return tuple(sorted(found))


def left(estate: Estate, plan: Plan, after: Sight, again: Again) -> tuple[str, ...]:
    """Places (and columns, where known) of the hits afterwards that nothing explains; no value is named."""
    everything = list(attributed(after, known_facts(estate.catalog, plan)))
    listed = set(map(id, explained(estate, everything, again, standing(estate.catalog, plan.fates))))
    return tuple(
        sorted(
            {*unread(estate.catalog, after)}
            | {
                f"{h.place} ({h.container}{f', {h.column}' if h.column else ''})"
                for h in everything
                if id(h) not in listed
            }
        )
    )


def unread(catalog: Catalog, seen: Sight) -> tuple[str, ...]:
    """What could not be examined, and why, where a collection lies that the run is to make true."""
    keep = _out_of_scope(catalog)
    return tuple(
        sorted(
            f"{place}: {reason}"
            for place, reason in seen.not_examinable
            if not live(place, reason) and _in_scope(place, seen, keep)
        )
    )


def _out_of_scope(catalog: Catalog) -> set[str]:
    """The collections that are out of scope, and said to be."""
    return {c.address for c in catalog.collections if c.mode is Mode.KEEP}


def _in_scope(place: str, seen: Sight, keep: set[str]) -> bool:
    """Whether a place lies in a store's folders or our home, and not in declared collections alone."""
    owners = seen.claims.get(place, NOBODYS)
    return not keep.issuperset(owners) if owners else not place.startswith(("outside/", "watched-"))


def discreetly(places: Sequence[str], wanted: Needles) -> str:
    """The first five of these places, for a message: none whose name holds an identity, or looks so, is named."""
    shown = [
        message(one) if not len(wanted.find(one.encode()).needle) else "a place named by an identity" for one in places
    ]
    more = f"; and {len(shown) - 5} more places" if len(shown) > 5 else ""
    return "; ".join(shown[:5]) + more


def remains(estate: Estate, plan: Plan, seen: Sight, wanted: Needles, work: Mapping[str, Sequence[Order]]) -> set[str]:
    """Columns in which a value would stay that nothing explains: to be told before anything is destroyed.

    Every cell of the units in which the baseline saw somebody is read as the orders will leave it: without the rows and
    values that go, with texts redacted. What stands there alone has to be listed by the plan, or validation would fail
    when keys are dead; what is packed inside a value no plan lists. A unit that nothing rewrites keeps what stands
    beside its rows, too.
    """
    changes = {
        (f"{name}/{order.unit.name}", change.collection.address): change
        for name, orders in work.items()
        for order in orders
        for change in order.changes
    }
    stands = set(tuples(standing(estate.catalog, plan.fates), *_STANDING))
    keep = _out_of_scope(estate.catalog)
    known = known_facts(estate.catalog, plan)
    hits = [h for h in attributed(seen, known) if not is_own(h.address) and h.address not in keep]
    rewritten = {place for place, _address in changes}
    units = {f"{store.name}/{unit.name}" for store in estate.stores for unit in store.units()}
    found = {_beside(h) for h in hits if h.place in units - rewritten and _beside(h)}
    packed = {h.place for h in hits if h.packed}
    accounted: set[tuple[str, tuple[str, str]]] = set()
    for cell in touched(estate, wanted, set(seen.hits["place"]), packed):
        if cell.address in keep:
            continue
        change = changes.get((cell.place, cell.address))
        goes = change is not None and _goes(change, cell)
        within = packed_in(cell.body, wanted) if cell.place in packed else set()
        accounted |= {(cell.place, known[needle.identity]) for number in within for needle in wanted.of(number)}
        if goes:
            continue
        body = _left_of(change, cell)
        plain = wanted.find(body)
        at = (cell.address, cell.unit, cell.position, cell.name)
        for number in set(plain.needle[~plain.inside].tolist()):
            if any((needle.subject, *at) not in stands for needle in wanted.of(number)):
                found.add(f"{cell.address}.{cell.name}: a value in rows that stay, and nothing empties it there")
        if within and packed_in(body, wanted):
            found.add(f"{cell.address}.{cell.name}: a value packed in rows that stay, and nothing empties it there")
    for hit in hits:
        if hit.packed and not (hit.foreign or beside_rows(hit.container) or (hit.place, hit.fact) in accounted):
            found.add(f"{hit.place} ({hit.container}): packed, and no row is known that holds it")
    return found


def _beside(hit: Hit) -> str:
    """What to tell of a hit beside the rows of a unit that nothing rewrites; "" for one in its rows."""
    if hit.container.endswith(PROBE):
        return f"{hit.place}: a bloom filter remembers a value that its column no longer holds, and nothing rewrites it"
    if beside_rows(hit.container) or (hit.container.startswith("parquet") and not hit.column):
        return f"{hit.place} ({hit.container}): a value beside the rows, and nothing rewrites the file"
    return ""


_STANDING = ("subject", "collection", "unit", "position", "field")


def _goes(change: Change, cell: Cell) -> bool:
    blank = change.blank.get(cell.name)
    return cell.position in change.drop or (blank is not None and cell.position in blank.positions)


def _left_of(change: Change | None, cell: Cell) -> bytes:
    """What a cell holds after its texts were redacted."""
    redaction = change.redact.get(cell.name) if change is not None else None
    if redaction is None or cell.position not in redaction.positions:
        return cell.body
    texts = redaction.texts.filter(pa.array(redaction.positions == cell.position)).to_pylist()
    return redacted(cell.body.decode(), texts, redaction.filler).encode()

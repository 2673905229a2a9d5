"""Findings: the same look before and after, and one row per person and collection.

Before anything is touched the baseline must find the person; afterwards the same search must find nothing that is
not explained. Two independent ways look: rows are located again with everything that was known (decoded), and all
bytes of all files are searched for every byte form of the identities (checks/residue). A hit afterwards is
explained only by a row that the plan lists as remaining: in the same unit, in the same column, the same value.

Kinds whose values others also have (names, ids of shared things) are judged by record, not by bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from fangxin.checks.residue.patterns import Needles, needles_for, spellings
from fangxin.checks.residue.scan import Scan, scan, walk
from fangxin.data.catalog.identity import Question, searched
from fangxin.data.errors import DoesNotHold
from fangxin.data.vocabulary import (
    FINDING,
    Catalog,
    Collection,
    Erasure,
    Field,
    Identity,
    IdentityFormat,
    Method,
    Mode,
    Store,
    stands_alone,
)
from fangxin.flows.estate import Estate
from fangxin.flows.frames import each, pack, tuples, unpack
from fangxin.flows.locate import Look, facts_of
from fangxin.flows.plan import REMAINS, Plan, standing
from fangxin.reports.verdict import Observation, failure, verdict_of

if TYPE_CHECKING:
    import pandas as pd

HOME = "home"
_SHORTEST = 8  # bytes; shorter values are not searched as such: they would hit by chance (checks/residue/patterns.py)
_BLANKED = (Mode.OVERWRITE, Mode.MASK, Mode.DELETE, Mode.CRYPTO_ERASE)


@dataclass(frozen=True)
class Sight:
    """What one scan saw: hits per subject, place, column and identity; bytes and units read; what it could not open."""

    hits: pd.DataFrame = field(repr=False)  # place, container, column, subject, identity, inside, hits, most
    read: Mapping[str, int]  # bytes read per place
    not_examinable: tuple[tuple[str, str], ...]
    patterns: int
    forms: int
    scanner: str
    claims: Mapping[str, tuple[str, ...]]  # place -> collections that lie there; "" -> all of them

    @property
    def total(self) -> int:
        """Bytes read over all places."""
        return sum(self.read.values())

    def pack(self) -> bytes:
        """As Arrow IPC, to be sealed until the certificate."""
        import json

        import pandas as pd

        meta = {
            "read": dict(self.read),
            "not_examinable": list(self.not_examinable),
            "patterns": self.patterns,
            "forms": self.forms,
            "scanner": self.scanner,
            "claims": dict(self.claims),
        }
        return pack(pd.DataFrame(self.hits), meta=json.dumps(meta))

    @classmethod
    def unpack(cls, body: bytes) -> Sight:
        """Read back what `pack` wrote."""
        import json

        hits, meta = unpack(body)
        raw = json.loads(meta)
        found = tuple((p, r) for p, r in raw["not_examinable"])
        claims = {place: tuple(addresses) for place, addresses in raw["claims"].items()}
        return cls(hits, raw["read"], found, raw["patterns"], raw["forms"], raw["scanner"], claims)


def searchable(catalog: Catalog, facts: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The facts whose byte forms are searched, numbered in order; and the kinds judged by record only.

    Searched are identities and the values of personal reference columns (accounts, devices); names and the numbers
    of things (addresses, logins) are shared by chance or by design and judged by record.
    """
    personal = {k for c in catalog.collections for f in c.fields if f.personal for k in (*f.matches, *f.emits)}
    wanted = (set(catalog.kinds) | personal) - {"name"}
    by_bytes = facts[facts["kind"].isin(wanted)].reset_index(drop=True)
    return by_bytes, tuple(sorted(set(facts["kind"]) - wanted))


def needles(catalog: Catalog, facts: pd.DataFrame) -> Needles:
    """Every byte form of the searchable facts; identity n of the needles is row n of `searchable`."""
    found, _kinds = searchable(catalog, facts)
    pairs = [(int(s), Identity(k, v)) for s, k, v in zip(found["subject"], found["kind"], found["value"], strict=True)]
    return needles_for(pairs)


def look(estate: Estate, wanted: Needles, *, workers: int = 2) -> Sight:
    """Search every file of every store, and of our own home, once."""
    files = [(f"{s.name}/{_inside(s.root, p)}", p) for s in estate.stores for p in s.files()]
    home = estate.settings.home
    files += [(f"{HOME}/{_inside(home, p)}", p) for _name, p in walk([home])]
    for label, _path in files:
        estate.meter.open("scan", label)
    return sight(scan(files, wanted, workers=workers), wanted, _claims(estate, [label for label, _path in files]))


def _live(place: str, reason: str) -> bool:
    """Prefect writes ids into its own files while we read them: searched as they stand, and a printed limit.

    A database caught between two of its writes cannot be decoded, and a journal may be gone when its turn comes; the
    bytes that are there are searched all the same.
    """
    moving = ("changed while it was read", "sqlite: cannot be decoded", "cannot be read (No such file")
    return place.startswith(f"{HOME}/prefect/") and reason.startswith(moving)


def _claims(estate: Estate, places: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Which collections lie in a place: those of the unit, else all of the store, else (our home) all there are."""
    claims: dict[str, tuple[str, ...]] = {"": tuple(c.address for c in estate.catalog.collections)}
    units: dict[str, tuple[str, ...]] = {}
    for store in estate.stores:
        for collection in store.collections:
            for unit in store.units(collection):
                place = f"{store.name}/{unit.name}"
                units[place] = (*units.get(place, ()), collection.address)
    for place in places:
        whole = next((s for s in estate.stores if place.startswith(f"{s.name}/")), None)
        if place in units:
            claims[place] = units[place]
        elif whole is not None:
            claims[place] = tuple(c.address for c in whole.collections)
    return claims


def sight(found: Scan, wanted: Needles, claims: Mapping[str, tuple[str, ...]]) -> Sight:
    """Reduce a scan to what findings need."""
    hits = found.hits.to_pandas()
    keys = ["place", "container", "column", "subject", "identity", "inside"]
    # One occurrence of a value may match in several forms, but in each form only once: `most` bounds occurrences.
    grouped = hits.groupby(keys, as_index=False, sort=True).agg(hits=("hits", "sum"), most=("hits", "max"))
    coverage = found.coverage.to_pandas().groupby("place")["bytes_read"].sum()
    code = Path(scan.__code__.co_filename).parent
    digest = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(code.glob("*.py")))).hexdigest()
    forms = len({n.form for n in wanted})
    return Sight(
        grouped,
        {str(k): int(v) for k, v in coverage.items()},
        tuple(found.not_examinable),
        len(wanted),
        forms,
        digest,
        claims,
    )


def sighted(catalog: Catalog, plan: Plan, seen: Sight) -> dict[tuple[int, str], int]:
    """What the baseline saw, per subject and collection; what looks like part of a longer value only beside rows.

    Where a row was located by a value that is searched by its bytes, only bytes count, and only where they can be
    nothing else than that collection's; rows located by other values (short numbers, names of things, values under
    keys) are judged by record: they count themselves.
    """
    located = set(tuples(plan.fates, "subject", "collection"))
    found = _sums(
        h
        for h in _attributed(seen, _known(catalog, plan))
        if h.certain and (not h.inside or (h.subject, h.address) in located)
    )
    facts, _kinds = searchable(catalog, plan.facts)
    long = {(s, k) for s, k, v in tuples(facts, "subject", "kind", "value") if len(v.encode()) >= _SHORTEST}
    for subject, address, rows in each(plan.fates, "subject", "collection"):
        collection = catalog.collection(address)
        matched = {name for names in rows["fields"].unique() for name in names.split(",")}
        fields = (f for f in collection.fields if f.name in matched)
        by_bytes = any(
            (subject, kind) in long
            for f in fields
            if f.mode is not Mode.CRYPTO_ERASE and _byte_form(f)
            for kind in (catalog.kinds if f.data_type == "text" else f.matches)
        )
        if not by_bytes:
            found[(subject, address)] = found.get((subject, address), 0) + len(rows)
    return found


def unseen(catalog: Catalog, plan: Plan, seen: Sight) -> tuple[tuple[int, str], ...]:
    """Subjects and collections of which rows were located that the baseline did not see: there the scan is blind."""
    shown = sighted(catalog, plan, seen)
    owned = plan.fates[plan.fates["edge"].isin(["owns", "joint"])]
    return tuple((s, a) for s, a, _rows in each(owned, "subject", "collection") if not shown.get((s, a)))


def _byte_form(one: Field) -> bool:
    """Whether the scan knows the bytes of a value in this field: in clear, or hashed without a key."""
    return one.identity_format is not IdentityFormat.HMAC


_OWN_FILES = ("-wal", "-journal", "-shm", ".crc", "_metadata")  # they go with their unit


def strays(estate: Estate, plan: Plan, seen: Sight) -> tuple[str, ...]:
    """Where the baseline sees people in places that nothing would clean: to be told before anything is destroyed.

    Tables and files that no collection names; and, in units where rows of theirs stay, columns in which the catalog
    does not expect such a value.
    """
    units = {f"{s.name}/{u.name}" for s in estate.stores for u in s.units()}
    stay = {(s, a, u) for s, a, u, f in tuples(plan.fates, "subject", "collection", "unit", "fate") if f in REMAINS}
    store_of = {c.address: s.name for s in estate.stores for c in s.collections}
    declared = {
        (c.address, f.name)
        for c in estate.catalog.collections
        for f in c.fields
        if f.matches or f.data_type == "text" or (f.mode in _BLANKED and f.retention is None)
    }
    found = set()
    everything = list(_attributed(seen, _known(estate.catalog, plan)))
    longer = _longer(estate, everything)
    for hit in everything:
        outside = hit.place not in units and not hit.place.startswith((f"{HOME}/",)) and not _own_file(hit.place)
        if hit.foreign:
            found.add(f"{hit.place}: table {_table(hit.container)}, which no collection names")
        elif outside:
            found.add(f"{hit.place}: a file that no collection names")
        elif hit.inside and longer.get((hit.place, hit.fact)):
            continue  # somebody else's longer value
        elif hit.certain and hit.column and (hit.address, hit.column) not in declared:
            unit = hit.place.removeprefix(f"{store_of[hit.address]}/")
            if (hit.subject, hit.address, unit) in stay:
                found.add(f"{hit.address}.{hit.column}: rows of these people stay, and nothing empties this column")
    return tuple(sorted(found))


def left(estate: Estate, plan: Plan, after: Sight, again: Again) -> tuple[str, ...]:
    """Places (and columns, where known) of the hits afterwards that nothing explains; no value is named."""
    everything = list(_attributed(after, _known(estate.catalog, plan)))
    blind = {f"{place}: {reason}" for place, reason in after.not_examinable if not _live(place, reason)}
    explained = set(map(id, _explained(estate, everything, again, standing(estate.catalog, plan.fates))))
    return tuple(
        sorted(
            blind
            | {
                f"{h.place} ({h.container}{f', {h.column}' if h.column else ''})"
                for h in everything
                if id(h) not in explained
            }
        )
    )


def _own_file(place: str) -> bool:
    return place.endswith(_OWN_FILES) or ".fangxin-pending" in place


@dataclass(frozen=True)
class Again:
    """Rows located afterwards with everything known: per fact where it still stands."""

    hits: pd.DataFrame = field(repr=False)  # subject, collection, unit, position, field, kind, value


def locate_again(estate: Estate, facts: pd.DataFrame) -> Again:
    """Look every fact up in every collection once; positions are those of the present units."""
    import pandas as pd

    table = facts_of(pa.Table.from_pandas(facts[["subject", "kind", "value"]], preserve_index=False))
    kinds = tuple(sorted(set(facts["kind"])))
    fields = {
        c.address: tuple(f.name for f in c.fields if searched(f, kinds, estate.catalog.kinds))
        for c in estate.catalog.collections
    }
    answers = [a.hits for a in Look(estate)(Question({a: f for a, f in fields.items() if f}, table))]
    hits = pa.concat_tables(answers).to_pandas() if answers else pd.DataFrame(columns=_HIT)
    known = facts.reset_index(drop=True)[["subject", "kind", "value"]].rename_axis("fact").reset_index()
    return Again(hits.merge(known, on="fact").drop(columns=["fact", "text"]).drop_duplicates())


_HIT = ["collection", "unit", "position", "field", "fact", "text"]


def findings(
    estate: Estate,
    plan: Plan,
    erasures: Mapping[str, Sequence[Erasure]],
    before: Sight,
    after: Sight,
    again: Again,
    planted: Mapping[str, int],
) -> pd.DataFrame:
    """One row per subject and collection (schema FINDING) for the whole cohort, the canary last."""
    import pandas as pd

    subjects = sorted(set(plan.facts["subject"]))
    people, canary = subjects[:-1], subjects[-1]
    stands = standing(estate.catalog, plan.fates)
    residual = _residual(stands, again)
    known = _known(estate.catalog, plan)
    seen_before = sighted(estate.catalog, plan, before)
    everything = list(_attributed(after, known))
    seen_after = _sums(everything)
    explained = _sums(_explained(estate, everything, again, stands))
    rows = []
    for collection in estate.catalog.collections:
        store = estate.store_of(collection.address)
        shown = _Collection(estate, store, collection, plan, erasures, before, after, planted, canary)
        for subject in [*people, canary]:
            rows.append(shown.row(subject, residual, seen_before, seen_after, explained, again))
    return pd.DataFrame(rows, columns=FINDING.names)


class _Collection:
    """What is the same for every subject of one collection, and the row of each."""

    def __init__(
        self,
        estate: Estate,
        store: Store,
        collection: Collection,
        plan: Plan,
        erasures: Mapping[str, Sequence[Erasure]],
        before: Sight,
        after: Sight,
        planted: Mapping[str, int],
        canary: int,
    ) -> None:
        self.collection, self.store = collection, store
        mine = plan.fates[plan.fates["collection"] == collection.address]
        self.fates = {s: f for s, f in each(mine, "subject")}
        units = {u.name for u in store.units(collection)}
        places = [f"{store.name}/{u}" for u in units]
        done = [e for e in erasures.get(store.name, ()) if collection.address in e.rows_before]
        refused = sorted({e.reason for e in done if e.method is Method.LOGICAL_DELETE})
        self.method = "" if not done else (Method.LOGICAL_DELETE if refused else Method.OVERWRITE).value
        self.reason = "; ".join(refused)
        self.claim = done[0].claim if done else ""
        self.overwritten = sum(e.bytes_overwritten for e in done)
        self.expected = len(units)
        self.units_read = sum(p in after.read for p in places)
        self.bytes_read = sum(after.read.get(p, 0) for p in places)
        self.blind = [
            reason
            for seen in (before, after)
            for place, reason in seen.not_examinable
            if collection.address in seen.claims.get(place, seen.claims[""]) and not _live(place, reason)
        ]
        self.canary_found = planted.get(collection.address, 0) > 0 and canary in self.fates
        self.scope = collection.because or "declared read-only" if collection.mode is Mode.KEEP else ""

    def row(
        self,
        subject: int,
        residual: Mapping[tuple[int, str], int],
        seen_before: Mapping[tuple[int, str], int],
        seen_after: Mapping[tuple[int, str], int],
        explained: Mapping[tuple[int, str], int],
        again: Again,
    ) -> dict[str, object]:
        fates = self.fates.get(subject)
        count = {} if fates is None else fates["fate"].value_counts().to_dict()
        owned = 0 if fates is None else int(fates["edge"].isin(["owns", "joint"]).sum())
        kept = None if fates is None else fates[fates["fate"] == "retain"]
        key = (subject, self.collection.address)
        acted = count.get("drop", 0) + count.get("blank", 0) + count.get("mask", 0) + count.get("retain", 0)
        row: dict[str, object] = {
            "subject": subject,
            "dataset": self.collection.dataset,
            "collection": self.collection.name,
            "store": self.store.name,
            "method": self.method if acted else "",
            "claim": self.claim if acted else "",
            "reason": self.reason if acted else "",
            "rows_found": owned,
            "rows_erased": count.get("drop", 0) + count.get("blank", 0),
            "rows_retained": count.get("retain", 0),
            "values_masked": count.get("mask", 0),
            "rows_shared": count.get("shared", 0),
            "rows_mentioned": count.get("mask", 0) + count.get("mention", 0),
            "rows_residual": residual.get(key, 0),
            "baseline_hits": seen_before.get(key, 0),
            "hits_after": seen_after.get(key, 0) - explained.get(key, 0),
            "hits_explained": explained.get(key, 0),
            "units_expected": self.expected,
            "units_read": self.units_read,
            "bytes_read": self.bytes_read,
            "bytes_overwritten": self.overwritten if acted else 0,
            "canary_found": self.canary_found,
            "ground": "" if kept is None or kept.empty else ",".join(sorted(set(kept["rule"]))),
            "until": "" if kept is None or kept.empty else str(max(kept["until"])),
            "not_examinable": ";".join(sorted(set(self.blind))),
        }
        shown: dict[str, Any] = {k: row[k] for k in Observation.__dataclass_fields__ if k in row}  # by FINDING's names
        seen = Observation(**shown, in_scope=not self.scope, out_of_scope=self.scope)
        row["verdict"] = verdict_of(seen).value
        row["reason"] = failure(seen) or self.scope or row["reason"]
        return row


def _residual(stands: pd.DataFrame, again: Again) -> dict[tuple[int, str], int]:
    """Values that stand beyond those that may: per subject and collection, counted unit by unit, field by field.

    Positions move when a unit is rewritten, so rows are counted, not compared.
    """
    keys = ["subject", "collection", "unit", "field"]
    allowed = {tuple(k): len(rows) for *k, rows in each(stands.drop_duplicates([*keys, "position"]), *keys)}
    over: dict[tuple[int, str], int] = {}
    for *key, rows in each(again.hits.drop_duplicates([*keys, "position"]), *keys):
        extra = len(rows) - allowed.get(tuple(key), 0)
        if extra > 0:
            over[(key[0], key[1])] = over.get((key[0], key[1]), 0) + extra
    return over


@dataclass(frozen=True)
class _Hit:
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


def _known(catalog: Catalog, plan: Plan) -> list[tuple[str, str]]:
    """Kind and value of every needle's identity, by its number."""
    facts, _kinds = searchable(catalog, plan.facts)
    return [(k, v) for k, v in tuples(facts, "kind", "value")]


def _attributed(seen: Sight, known: Sequence[tuple[str, str]]) -> Iterator[_Hit]:
    """Lay every hit at the door of the collections whose unit it stands in.

    A decoded SQLite row names its table; the raw pages of a database, a journal, a sidecar or our own home do not
    name a collection: afterwards such hits count against every one of the place, before they count for none.
    """
    columns = ("place", "container", "column", "subject", "identity", "hits", "most", "inside")
    for place, container, column, subject, identity, hits, most, inside in tuples(seen.hits, *columns):
        addresses = seen.claims.get(place, seen.claims[""])
        table = _table(container)
        own = tuple(a for a in addresses if a.split("/", 1)[1] == table)
        foreign = table is not None and not own
        for address in own or addresses:
            certain = bool(own) or (len(addresses) == 1 and not foreign)
            fact = known[identity]
            yield _Hit(subject, address, place, container, column, fact, hits, most, certain, foreign, inside)


def _explained(estate: Estate, seen: Iterable[_Hit], again: Again, stands: pd.DataFrame) -> Iterator[_Hit]:
    """Hits afterwards that a row explains which the plan leaves standing: same unit, same field, same value.

    Where the bytes do not name a field, only whole rows can be explained (text, and the pages of a database); in
    text no more occurrences than such rows hold. What stands in a table nobody catalogued, in free pages, footers,
    sidecars or names is never explained by a row. Nor is part of a longer value a hit: a cell has to hold that value.
    """
    names = {c.address: s.name for s in estate.stores for c in s.collections}
    free = {(c.address, f.name) for c in estate.catalog.collections for f in c.fields if f.data_type == "text"}
    keys = ["subject", "collection", "unit", "field"]
    still = again.hits.merge(stands[keys].drop_duplicates(), on=keys)
    exact: set[tuple[str, str, str, tuple[str, str]]] = set()
    room: dict[tuple[str, tuple[str, str]], float] = {}
    columns = ("collection", "unit", "field", "kind", "value")
    for collection, unit, name, kind, value in tuples(still, *columns):
        place = f"{names[collection]}/{unit}"
        exact.add((collection, place, name, (kind, value)))
        more = float("inf") if (collection, name) in free else 1.0
        room[(place, (kind, value))] = room.get((place, (kind, value)), 0.0) + more
    seen = list(seen)
    longer = _longer(estate, seen)
    for hit in seen:
        if hit.foreign or hit.container in ("sqlite:free", "name"):
            continue
        if hit.inside and (others := longer.get((hit.place, hit.fact), 0)):
            if hit.column or hit.container.startswith("sqlite") or hit.most <= others:
                yield hit
            continue
        pages = hit.container.startswith(("sqlite:page", "sqlite:index="))
        text = not hit.column and not pages and not hit.container.startswith("parquet")
        left = room.get((hit.place, hit.fact), 0.0)
        if (hit.address, hit.place, hit.column, hit.fact) in exact or (pages and left) or (text and hit.most <= left):
            yield hit


def _longer(estate: Estate, hits: Iterable[_Hit]) -> dict[tuple[str, tuple[str, str]], int]:
    """How often a value stands in cells as a part of longer ones, per place and value; 0 is left out.

    Asked only of places where bytes look like that: their cells are read once more, and a cell says where a value ends.
    """
    wanted: dict[str, set[tuple[str, str]]] = {}
    for hit in hits:
        if hit.inside and not hit.foreign:
            wanted.setdefault(hit.place, set()).add(hit.fact)
    found: Counter[tuple[str, tuple[str, str]]] = Counter()
    for store in estate.stores:
        places = {f"{store.name}/{u.name}" for u in store.units()} & wanted.keys()
        asked = {c.address: store.fields(c).names for c in store.collections} if places else {}
        for _address, rows in store.scan(asked) if asked else ():
            place = f"{store.name}/{rows.unit}"
            for column in rows.columns.columns if place in places else ():
                for fact in wanted[place]:
                    found[place, fact] += _parts(column, fact)
    return {key: n for key, n in found.items() if n}


def _parts(column: pa.Array, fact: tuple[str, str]) -> int:
    """How often a value stands in the cells of a column as part of a longer one."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return 0
    found = 0
    texts = sorted(set(spellings(Identity(*fact)).values()), key=len)
    for n, text in enumerate(texts):
        if any(shorter in text for shorter in texts[:n]):
            continue  # counted with the shorter one
        cells = column.filter(pc.fill_null(pc.match_substring(column, text), fill_value=False))
        for cell in cells.to_pylist():
            body, word = cell.encode(), text.encode()
            starts = (m.start() for m in re.finditer(re.escape(word), body))
            found += sum(not stands_alone(body, at, at + len(word)) for at in starts)
    return found


def _sums(hits: Iterable[_Hit]) -> dict[tuple[int, str], int]:
    """Hits per subject and collection."""
    found: dict[tuple[int, str], int] = {}
    for one in hits:
        found[(one.subject, one.address)] = found.get((one.subject, one.address), 0) + one.hits
    return found


def _table(container: str) -> str | None:
    """The SQLite table a decoded hit stands in, from the container's label."""
    for part in container.split(":"):
        if part.startswith("table="):
            return part.removeprefix("table=")
    return None


def _inside(root: Path, path: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else path.name


def account(plan: Plan, erasures: Mapping[str, Sequence[Erasure]]) -> None:
    """Compare what the stores did with what was planned: DoesNotHold unless just the dropped rows are gone."""
    dropped = plan.fates[plan.fates["fate"] == "drop"].drop_duplicates(["collection", "unit", "position"])
    planned = {address: len(rows) for address, rows in each(dropped, "collection")}
    done: dict[str, int] = {}
    for one in (e for es in erasures.values() for e in es):
        for address, before in one.rows_before.items():
            done[address] = done.get(address, 0) + before - one.rows_after.get(address, 0)
    wrong = sorted(a for a in planned.keys() | done.keys() if planned.get(a, 0) != done.get(a, 0))
    if wrong:
        raise DoesNotHold(
            f"{', '.join(wrong)}: the rows that are gone are not the rows that were planned to go",
            hint="a store or the plan is wrong: nothing is published; keep the home for whoever looks into it",
        )

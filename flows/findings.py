"""Findings: the same look before and after, and one row per person and collection.

Before anything is touched the baseline must find the person; afterwards the same search must find nothing that is
not explained. Two independent ways look: rows are located again with everything that was known (decoded), and all
bytes of all files are searched for every byte form of the identities (checks/residue). A hit afterwards is
explained only by a row that the plan lists as remaining: in the same unit, in the same column, the same value.

Kinds whose values others also have (names, ids of shared things) are judged by record, not by bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fangxin.checks.residue.patterns import Needles, needles_for
from fangxin.checks.residue.scan import Scan, scan
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
)
from fangxin.flows.estate import Estate
from fangxin.flows.frames import each, pack, tuples, unpack
from fangxin.flows.locate import Look, facts_of
from fangxin.flows.plan import REMAINS, Plan
from fangxin.reports.verdict import Observation, failure, verdict_of

if TYPE_CHECKING:
    import pandas as pd

HOME = "home"
_LIVE = f"{HOME}/prefect/"  # Prefect writes ids there while we read: searched as it stands, and a printed limit


@dataclass(frozen=True)
class Sight:
    """What one scan saw: hits per subject, place, column and identity; bytes and units read; what it could not open."""

    hits: pd.DataFrame = field(repr=False)  # place, container, column, subject, identity, hits
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
    files += [
        (f"{HOME}/{p.relative_to(home)}", p) for p in sorted(home.rglob("*")) if p.is_file() and not p.is_symlink()
    ]
    for label, _path in files:
        estate.meter.open("scan", label)
    return sight(scan(files, wanted, workers=workers), wanted, _claims(estate, [label for label, _path in files]))


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
    keys = ["place", "container", "column", "subject", "identity"]
    grouped = hits.groupby(keys, as_index=False, sort=True)["hits"].sum() if len(hits) else hits[[*keys, "hits"]]
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


def unseen(catalog: Catalog, plan: Plan, seen: Sight, planted: Mapping[str, int], canary: int) -> tuple[str, ...]:
    """Collections whose canary the bytes did not show although a value of it stands there in clear: a blind scan."""
    shown = {h.address for h in _attributed(seen, _known(catalog, plan)) if h.certain and h.subject == canary}
    facts, _kinds = searchable(catalog, plan.facts)
    kinds = set(facts["kind"])
    clear = {
        c.address
        for c in catalog.collections
        if any(set(f.matches) & kinds and f.mode is not Mode.CRYPTO_ERASE and _byte_form(f) for f in c.fields)
    }
    return tuple(sorted((set(planted) & clear) - shown))


def _byte_form(one: Field) -> bool:
    """Whether the scan knows the bytes of a value in this field: in clear, or hashed without a key."""
    return one.identity_format is not IdentityFormat.HMAC


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
    remaining = _remaining(estate.catalog, plan)
    residual = _residual(remaining, again)
    known = _known(estate.catalog, plan)
    seen_before = _sums(h for h in _attributed(before, known) if h.certain)
    everything = list(_attributed(after, known))
    seen_after = _sums(everything)
    explained = _sums(_explained(estate, everything, again))
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
            if collection.address in seen.claims.get(place, seen.claims[""]) and not place.startswith(_LIVE)
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
        located = 0 if fates is None else len(fates)
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
            # Located rows are hits of the decoded look; byte hits come on top.
            "baseline_hits": seen_before.get(key, 0) + located,
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


def _remaining(catalog: Catalog, plan: Plan) -> pd.DataFrame:
    """The traced rows that the plan leaves standing, with a field that still matches."""
    fates = plan.fates
    gone = fates.loc[fates["fate"] == "drop", ["collection", "unit", "position"]].drop_duplicates()
    kept = fates[fates["fate"].isin(REMAINS)].merge(gone, how="left", indicator=True)
    return kept[kept["_merge"] == "left_only"].drop(columns="_merge")


def _residual(remaining: pd.DataFrame, again: Again) -> dict[tuple[int, str], int]:
    """Rows that still hold a subject beyond those that may: per subject and collection, unit by unit."""
    keys = ["subject", "collection", "unit"]
    allowed = {tuple(k): len(rows) for *k, rows in each(remaining.drop_duplicates([*keys, "position"]), *keys)}
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
    certain: bool


def _known(catalog: Catalog, plan: Plan) -> list[tuple[str, str]]:
    """Kind and value of every needle's identity, by its number."""
    facts, _kinds = searchable(catalog, plan.facts)
    return [(k, v) for k, v in tuples(facts, "kind", "value")]


def _attributed(seen: Sight, known: Sequence[tuple[str, str]]) -> Iterator[_Hit]:
    """Lay every hit at the door of the collections whose unit it stands in.

    A decoded SQLite row names its table; the raw pages of a database, a journal, a sidecar or our own home do not
    name a collection: afterwards such hits count against every one of the place, before they count for none.
    """
    columns = ("place", "container", "column", "subject", "identity", "hits")
    for place, container, column, subject, identity, hits in tuples(seen.hits, *columns):
        addresses = seen.claims.get(place, seen.claims[""])
        table = _table(container)
        if table is not None and len(addresses) > 1:
            addresses = tuple(a for a in addresses if a.split("/", 1)[1] == table) or addresses
        for address in addresses:
            yield _Hit(subject, address, place, container, column, known[identity], hits, len(addresses) == 1)


def _explained(estate: Estate, seen: Iterable[_Hit], again: Again) -> Iterator[_Hit]:
    """Hits afterwards that a remaining row explains: same unit, same value, and same column where one is known.

    Without a column only bytes in which whole rows lie can be explained: text, and the pages of a database. What
    stands in free pages, footers, sidecars or names is never explained by a row.
    """
    names = {c.address: s.name for s in estate.stores for c in s.collections}
    exact, loose = set(), set()
    columns = ["collection", "unit", "field", "kind", "value"]
    for collection, unit, name, kind, value in tuples(again.hits[columns].drop_duplicates(), *columns):
        place = f"{names[collection]}/{unit}"
        exact.add((place, name, (kind, value)))
        loose.add((place, (kind, value)))
    for hit in seen:
        whole_rows = not hit.container.startswith("parquet") and hit.container not in ("sqlite:free", "name")
        if (hit.place, hit.column, hit.fact) in exact or (
            not hit.column and whole_rows and (hit.place, hit.fact) in loose
        ):
            yield hit


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

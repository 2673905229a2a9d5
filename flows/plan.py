"""The plan: what happens to every located row, decided from the catalog's modes and the law; values in, values out.

A fate per traced row:

* `drop`    the row goes;                        `blank`   the row stays, its personal values go;
* `retain`  a law keeps it until a date (fields that the law does not need are blanked now);
* `keep`    the catalog says keep, with a reason; `shared`  others use it too: kept, listed;
* `mask`    a mention in somebody else's row: only the declared values change;
* `mention` a mention that the catalog does not mask: kept, listed;
* `uncertain` reached by too unsure a reference: listed, never changed.

Two things are decided by field: a masked mention that matched goes in every row that stays, and in a row that a law
keeps, what no kept record class (`held`) needs goes now.

Where a row is located for several subjects, the strongest fate wins: a row that is dropped is gone for all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fangxin.data.catalog.identity import Closure
from fangxin.data.catalog.law import Laws
from fangxin.data.errors import NotAllowed
from fangxin.data.keys.envelope import ref_of
from fangxin.data.vocabulary import (
    Blank,
    Catalog,
    Change,
    Collection,
    Field,
    Mode,
    Order,
    Ownership,
    Positions,
    Redaction,
    Store,
    Unit,
)
from fangxin.flows.frames import each, tuples

if TYPE_CHECKING:
    import pandas as pd

REMAINS = ("retain", "keep", "shared", "mention", "uncertain")  # fates after which the row still holds the subject
_DECIDED = ("fate", "until", "rule", "held", "event")

Emptied = dict[str, Positions]  # by field

_GONE = (Mode.OVERWRITE, Mode.MASK, Mode.DELETE, Mode.CRYPTO_ERASE)


HOLD_RULE, HOLD_CLASS = "legal-hold", "legal_hold"  # data/laws/hold.yaml


@dataclass(frozen=True)
class Bound:
    """What binds one subject's rows besides today's laws.

    `closed`: the day of their first erasure, from which "closed" counts. `held`: addresses of the collections that a
    legal hold keeps whole. `decided`: by collection what an officer decided about rows that others use too.
    """

    closed: date | None = None
    held: frozenset[str] = frozenset()
    decided: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """Fates of all traced rows (pandas: the traces' columns and fate, until, rule), and the digest officers approve."""

    fates: pd.DataFrame = field(repr=False)
    texts: pd.DataFrame = field(repr=False)
    facts: pd.DataFrame = field(repr=False)
    digest: str


def decide(
    catalog: Catalog,
    found: Closure,
    laws: Laws,
    facts: frozenset[str],
    today: date,
    *,
    bound: Mapping[int, Bound] = MappingProxyType({}),
) -> Plan:
    """Give every traced row its fate; NotAllowed where the catalog asks a person to decide.

    `bound` says by subject what else binds their rows.
    """
    import pandas as pd

    traces = found.traces.to_pandas()
    starts = found.starts.to_pandas()
    pieces = []
    for address, rows in each(traces, "collection"):
        collection = catalog.collection(address)
        decided = rows.copy()
        decided = decided.assign(fate="uncertain", until="", rule="", held="", event="")
        decided.loc[_complete(collection, rows), "edge"] = "owns"
        decided.loc[decided["edge"] == "owns", "fate"] = _own(collection)
        decided.loc[decided["edge"] == "joint", "fate"] = "keep" if collection.mode is Mode.KEEP else "blank"
        shares = decided["edge"] == "shares"
        if shares.any():
            whose = decided.loc[shares, "subject"].tolist()
            decided.loc[shares, "fate"] = [_shared(collection, bound.get(one, Bound())) for one in whose]
        masks = [f.name for f in mentions(collection) if f.mode is Mode.MASK]
        hit = rows["fields"].map(lambda names, masks=masks: any(n in masks for n in names.split(",")))
        decided.loc[rows["edge"] == "mentions", "fate"] = "mention"
        decided.loc[(rows["edge"] == "mentions") & hit, "fate"] = "mask"
        pieces.append(_retained(collection, decided, starts, laws, facts, today, bound))
    columns = [*traces.columns, *_DECIDED]
    fates = pd.concat(pieces)[columns] if pieces else pd.DataFrame(columns=columns)
    fates = fates.sort_values(["subject", "collection", "unit", "position"], ignore_index=True)
    running = hashlib.sha256(catalog.digest.encode())
    running.update(fates.to_csv(index=False).encode())
    return Plan(fates, found.texts.to_pandas(), found.facts.to_pandas(), running.hexdigest())


def undecided(catalog: Catalog, found: Closure, bound: Mapping[int, Bound]) -> dict[int, NotAllowed]:
    """By subject what keeps them from being decided: rows that others use too, about which nobody decided yet."""
    shared = found.traces.filter(pc.equal(found.traces["edge"], "shares")).group_by(["subject", "collection"])
    waits: dict[int, NotAllowed] = {}
    for one in shared.aggregate([]).to_pylist():
        try:
            _shared(catalog.collection(one["collection"]), bound.get(one["subject"], Bound()))
        except NotAllowed as error:
            waits[one["subject"]] = error
    return waits


def decide_canary(catalog: Catalog, found: Closure) -> Plan:
    """Give the canary's own rows the fate `drop`, whatever modes and laws say: it is made up and leaves whole.

    Its own is one row a collection, planted with everything known of it: where that row is owned, another that only
    mentions one of its made-up values is a chance hit in somebody's data, and is not touched.
    """
    fates = found.traces.to_pandas().assign(fate="drop", until="", rule="", held="", event="")
    owned = fates["collection"].isin(fates.loc[fates["edge"] != "mentions", "collection"])
    fates.loc[owned & (fates["edge"] == "mentions"), "fate"] = "mention"
    running = hashlib.sha256(catalog.digest.encode())
    running.update(fates.to_csv(index=False).encode())
    return Plan(fates, found.texts.to_pandas(), found.facts.to_pandas(), running.hexdigest())


def join(first: Plan, second: Plan, *, digest: str) -> Plan:
    """One plan of two (the people's and the canary's); subjects keep their numbers."""
    import pandas as pd

    return Plan(
        pd.concat([first.fates, second.fates], ignore_index=True),
        pd.concat([first.texts, second.texts], ignore_index=True),
        pd.concat([first.facts, second.facts], ignore_index=True),
        digest,
    )


def orders(
    catalog: Catalog, plan: Plan, stores: Sequence[Store], states: Mapping[tuple[str, str], Unit]
) -> dict[str, list[Order]]:
    """The work per store and unit: every unit once, for the whole cohort. Untouched units get no order."""
    found: dict[str, list[Order]] = {}
    texts = {(a, u, f): rows for a, u, f, rows in each(plan.texts, "collection", "unit", "field")}
    for store in stores:
        changes: dict[str, list[Change]] = {}
        mine = [c.address for c in store.collections]
        for address, rows in each(plan.fates[plan.fates["collection"].isin(mine)], "collection"):
            for unit, change in _changes(catalog.collection(address), rows, texts):
                changes.setdefault(unit, []).append(change)
        for unit in sorted(changes):
            state = states.get((store.name, unit))
            if state is None:
                raise NotAllowed(f"{store.name}: a unit that was located is gone", hint="locate again")
            found.setdefault(store.name, []).append(Order(state, tuple(changes[unit])))
    return found


def standing(catalog: Catalog, fates: pd.DataFrame) -> pd.DataFrame:
    """What may still be found after the plan: one row per traced (row, field) that the plan leaves as it is.

    Columns subject, collection, unit, position, field; sorted, without repetition. Exact: made of the very positions
    that `orders` sends to the stores. A row that is dropped for anybody stands for nobody; a value that is blanked or
    redacted for anybody is gone for all (every text found in it is redacted, whoever it names). What is left are
    fields that a law, the catalog (keep, no mode) or other people need, primary keys, and mentions without a mask.
    """
    import pandas as pd

    keys = ["subject", "collection", "unit", "position", "field"]
    pieces = []
    for address, mine in each(fates, "collection"):
        rows, _places = _numbered(mine)
        gone, emptied, redacted = _touched(catalog.collection(address), rows)
        left = rows[~rows["row"].isin(gone)]
        left = left.assign(field=left["fields"].str.split(",")).explode("field")
        for changed in (emptied, redacted):
            for name, numbers in changed.items():
                left = left.loc[(left["field"] != name) | ~left["row"].isin(numbers)]
        pieces.append(left[keys])
    if not pieces:
        return pd.DataFrame(columns=keys)
    found: pd.DataFrame = pd.concat(pieces).drop_duplicates().sort_values(keys, ignore_index=True)
    return found


def drops(catalog: Catalog, plan: Plan, codes: Mapping[str, int]) -> dict[bytes, frozenset[int]]:
    """Which keys die: for every key ref of the cohort, all catalogued domains but those of rows that a law retains."""
    kept: dict[int, set[int]] = {}
    retained = plan.fates[plan.fates["fate"] == "retain"]
    for subject, address, rows in each(retained, "subject", "collection"):
        held = held_classes(rows)
        for one in catalog.collection(address).fields:
            if needs(one, held) and one.mode is Mode.CRYPTO_ERASE and one.key_domain in codes:
                kept.setdefault(subject, set()).add(codes[one.key_domain])
    people = plan.facts[plan.facts["kind"] == (catalog.person_kind or "")]
    found: dict[bytes, frozenset[int]] = {}
    for subject, value in tuples(people, "subject", "value"):
        ref = ref_of(catalog.person_kind or "", value)
        dying = frozenset(codes.values()) - kept.get(subject, set())
        found[ref] = found[ref] & dying if ref in found else dying
    return found


def held_classes(rows: pd.DataFrame) -> frozenset[str]:
    """The record classes for which a law keeps these rows: only their values and keys are needed."""
    return frozenset(name for classes in rows["held"].unique() for name in classes.split(",") if name)


def needs(one: Field, held: frozenset[str]) -> bool:
    """Whether a row that is kept for these classes is kept with this field; a hold keeps a row whole."""
    return HOLD_CLASS in held or (one.retention is not None and one.retention.record_class in held)


def last_day(rows: pd.DataFrame) -> tuple[str, str]:
    """The last day on which rows kept under one rule go, and the day of the event it counts from; "officer" and ""."""
    until = str(max(rows["until"]))  # "officer" sorts after every day
    return until, "" if until == "officer" else str(max(rows["event"]))


def domains(catalog: Catalog) -> tuple[str, ...]:
    """Names of all key domains under which the catalog puts values."""
    return tuple(
        sorted(
            {
                f.key_domain
                for c in catalog.collections
                for f in c.fields
                if f.mode is Mode.CRYPTO_ERASE and f.key_domain
            }
        )
    )


def mentions(collection: Collection) -> tuple[Field, ...]:
    """The fields in which a third person may appear."""
    return tuple(
        f
        for f in collection.fields
        if f.data_type == "text" or Ownership.MENTION in (f.ownership, collection.ownership)
    )


def _own(collection: Collection) -> str:
    if collection.mode is Mode.KEEP:
        return "keep"
    return "drop" if collection.mode is Mode.DELETE else "blank"


def _shared(collection: Collection, bound: Bound) -> str:
    way = bound.decided.get(collection.address) if collection.on_shared == "ask" else collection.on_shared
    if way is None:
        raise NotAllowed(
            f"{collection.address}: rows are shared with people outside the cohort and the catalog says ask",
            hint="an officer decides: `fangxin request decide`; or for everybody, on_shared: unlink or erase",
        )
    return "drop" if way == "erase" else "shared"


def _complete(collection: Collection, rows: pd.DataFrame) -> pd.Series:
    """Joint rows all of whose parties leave in this cohort: nobody is left to keep them for."""
    parties = {f.party for f in collection.fields if f.party}
    joint = rows["edge"] == "joint"
    if not joint.any():
        return joint
    here = rows[joint].assign(party=rows.loc[joint, "fields"].str.split(",")).explode("party")
    here["party"] = here["party"].map({f.name: f.party for f in collection.fields if f.party})
    found = here.groupby(["unit", "position"])["party"].nunique()  # several subjects may each be one party
    whole = found[found >= len(parties)].index
    return joint & rows.set_index(["unit", "position"]).index.isin(whole)


def _retained(
    collection: Collection, rows: pd.DataFrame, starts: pd.DataFrame, laws: Laws, facts: frozenset[str], today: date,
    bound: Mapping[int, Bound],
) -> pd.DataFrame:  # fmt: skip
    """Turn the subjects' rows of which a law keeps some class into `retain`: the latest day, its rule, the classes.

    `event` is the day from which the rule counts; empty where an officer decides, as for what a hold keeps.
    """
    wanted = [collection.retention, *(f.retention for f in collection.fields)]
    retentions = [r for r in dict.fromkeys(wanted) if r is not None]
    holding = [subject for subject, one in bound.items() if collection.address in one.held]
    if not retentions and not holding:
        return rows
    mine = starts[starts["collection"] == collection.address]
    dated = rows.merge(mine, on=["collection", "unit", "position"], how="left")
    texts = [t if isinstance(t, str) else None for t in dated["start"]]
    own = collection.retention.start if collection.retention is not None else ""
    days = (
        [bound[s].closed or today if s in bound else today for s in dated["subject"]] if bound else [today] * len(dated)
    )
    asked = list(zip(texts, days, strict=True))
    verdicts = {}
    for text, closed in dict.fromkeys(asked):
        kept = []
        for one in retentions:
            day = closed if one.start == "closed" else None
            if text is not None and one.start == own:
                day = date.fromisoformat(text)
            until = laws.decide(one, day, facts=facts, today=today)
            if until is not None:
                last_day, event = (until.day.isoformat(), str(day)) if until.day else ("officer", "")
                kept.append((last_day, until.rule, one.record_class, event))
        verdicts[text, closed] = kept
    mine_to_keep = (dated["fate"].isin(["drop", "blank"]) & dated["edge"].isin(["owns", "joint"])).to_numpy()
    holds = mine_to_keep & np.array([bool(verdicts[t]) for t in asked], dtype=bool)
    last = {t: max(v) if v else ("", "", "", "") for t, v in verdicts.items()}  # "officer" sorts after every day
    held = {t: ",".join(sorted({k[2] for k in v})) for t, v in verdicts.items()}
    found = {
        "until": [last[t][0] for t in asked],
        "rule": [last[t][1] for t in asked],
        "held": [held[t] for t in asked],
        "event": [last[t][3] for t in asked],
    }
    dated["fate"] = np.where(holds, "retain", dated["fate"].to_numpy(dtype=object))
    for name, values in found.items():
        dated[name] = np.where(holds, np.array(values, dtype=object), "")
    if holding:
        whole = dated["subject"].isin(holding) & mine_to_keep
        classes = [",".join(filter(None, [one, HOLD_CLASS])) for one in dated.loc[whole, "held"]]
        dated.loc[whole, ["fate", "until", "rule", "event"]] = ["retain", "officer", HOLD_RULE, ""]
        dated.loc[whole, "held"] = classes
    return dated.drop(columns=["start"])


@dataclass(frozen=True)
class _Places:
    """The units and positions of some rows, in order: the place of a row is one number for both."""

    units: list[str]
    positions: Positions

    def within(self, numbers: Positions, unit: int) -> Positions:
        """The positions of those of these rows that lie in one unit; `numbers` ascend."""
        width = len(self.positions)
        first, last = np.searchsorted(numbers, [unit * width, (unit + 1) * width])
        return self.positions[numbers[first:last] - unit * width]


def _numbered(rows: pd.DataFrame) -> tuple[pd.DataFrame, _Places]:
    """One collection's rows with `row`, the number of their place; positions can be as large as SQLite's rowids."""
    import pandas as pd

    unit, units = pd.factorize(rows["unit"], sort=True)
    positions, at = np.unique(rows["position"].to_numpy(np.int64), return_inverse=True)
    return rows.assign(row=unit.astype(np.int64) * len(positions) + at), _Places(list(units), positions)


def _changes(
    collection: Collection, rows: pd.DataFrame, texts: Mapping[tuple[str, str, str], pd.DataFrame]
) -> Iterator[tuple[str, Change]]:
    """What is done to one collection, unit by unit; units in which nothing is done are left out."""
    numbered, places = _numbered(rows)
    gone, emptied, masked = _touched(collection, numbered)
    for number, unit in enumerate(places.units):
        blank: dict[str, Blank] = {}
        redact: dict[str, Redaction] = {}
        for name, found in emptied.items():
            if len(positions := places.within(found, number)):
                one = collection.field(name)
                blank[name] = Blank(positions, one.mask.constant if one.mode is Mode.MASK else None)
        for name, found in masked.items():
            said = texts.get((collection.address, unit, name))
            if said is None or not len(positions := places.within(found, number)):
                continue
            pairs = said.loc[said["position"].isin(positions), ["position", "text"]]
            pairs = pairs.drop_duplicates().sort_values(["position", "text"])
            constant = collection.field(name).mask.constant
            if len(pairs):
                redact[name] = Redaction(
                    pairs["position"].to_numpy(np.int64),
                    pa.array(pairs["text"].tolist(), pa.string()),
                    str(constant) if constant is not None else "***",
                )
        drop = places.within(gone, number)
        if len(drop) or blank or redact:
            yield unit, Change(collection, drop, blank, redact)


def _touched(collection: Collection, rows: pd.DataFrame) -> tuple[Positions, Emptied, Emptied]:
    """Of one collection's rows (by `row`): those that go, and by field whose value goes and whose text is redacted.

    A fate is a row's, but mentions are a field's: a masked mention that matched goes in every row that stays.
    """
    gone = np.unique(rows.loc[rows["fate"] == "drop", "row"].to_numpy(np.int64))
    rest = rows[~rows["row"].isin(gone)]
    if rest.empty:
        return gone, {}, {}
    edge, fate = rest["edge"].to_numpy(dtype=object), rest["fate"].to_numpy(dtype=object)
    retained, changing = fate == "retain", np.isin(fate, ["blank", "retain"])
    owned, joint = (edge == "owns") & changing, (edge == "joint") & changing
    numbers = rest["row"].to_numpy(np.int64)
    # What is asked of a row's fields is asked once for each list of fields, and of its classes likewise.
    which, lists = _lists(rest["fields"])
    held, classes = _lists(rest["held"])
    masks = [f for f in mentions(collection) if f.mode is Mode.MASK]
    values = {f.name for f in masks if f.data_type != "text"}
    sure = edge != "uncertain"
    emptied: Emptied = {}
    redacted: Emptied = {}
    for one in collection.fields:
        at = np.zeros(len(rest), dtype=bool)
        if one.mode in _GONE and not one.primary_key:
            mine = joint & np.array([_party(collection, names, one) for names in lists])[which]
            at = (owned | mine) & (~retained | np.array([_outside(held_for, one) for held_for in classes])[held])
        if one.name in values:
            reasons = _mentioned_by(one, [f for f in masks if f.name in values])
            at = at | (sure & np.array([not reasons.isdisjoint(names) for names in lists])[which])
        positions = np.unique(numbers[at])
        if len(positions):
            emptied[one.name] = positions
        if one in masks and one.name not in values:
            listed = sure & np.array([one.name in names for names in lists])[which]
            texts = np.setdiff1d(np.unique(numbers[listed]), positions)
            if len(texts):
                redacted[one.name] = texts
    return gone, emptied, redacted


def _lists(column: pd.Series) -> tuple[Positions, list[frozenset[str]]]:
    """A column of lists written with commas, as indices into the different ones."""
    import pandas as pd

    codes, different = pd.factorize(column)
    return codes, [frozenset(text.split(",")) for text in different]


def _mentioned_by(one: Field, masks: Sequence[Field]) -> frozenset[str]:
    """The matched fields that say a value of `one` is the leaver's too.

    An identity speaks for itself only: the other number in a row may be a stranger's. The name beside a number goes
    with it where that number is the only one of its row, or where the catalog says that both are of one `party`.
    """
    if one.identity is not None:
        return frozenset([one.name])
    numbers = [f for f in masks if f.identity is not None and (one.party is None or f.party == one.party)]
    return frozenset([one.name, *(f.name for f in numbers)]) if len(numbers) == 1 else frozenset([one.name])


def _outside(held: frozenset[str], one: Field) -> bool:
    """Whether no law that keeps a row for these classes needs this field."""
    return not needs(one, held) or not (HOLD_CLASS in held or (one.retention and one.retention.record_class))


def _party(collection: Collection, names: frozenset[str], one: Field) -> bool:
    return one.party is not None and any(collection.field(n).party == one.party for n in names if n)

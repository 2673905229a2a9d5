"""The plan: what happens to every located row, decided from the catalog's modes and the law; values in, values out.

A fate per traced row:

* `drop`    the row goes;                        `blank`   the row stays, its personal values go;
* `retain`  a law keeps it until a date (fields that the law does not need are blanked now);
* `keep`    the catalog says keep, with a reason; `shared`  others use it too: kept, listed;
* `mask`    a mention in somebody else's row: only the declared values change;
* `mention` a mention that the catalog does not mask: kept, listed.

Where a row is located for several subjects, the strongest fate wins: a row that is dropped is gone for all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

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
    Redaction,
    Store,
    Unit,
)
from fangxin.flows.frames import each, tuples

if TYPE_CHECKING:
    import pandas as pd

REMAINS = ("retain", "keep", "shared", "mention")  # fates after which the row still holds the subject
GOES = ("drop", "blank", "mask")

_GONE = (Mode.OVERWRITE, Mode.MASK, Mode.DELETE, Mode.CRYPTO_ERASE)


@dataclass(frozen=True)
class Plan:
    """Fates of all traced rows (pandas: the traces' columns and fate, until, rule), and the digest officers approve."""

    fates: pd.DataFrame = field(repr=False)
    texts: pd.DataFrame = field(repr=False)
    facts: pd.DataFrame = field(repr=False)
    digest: str


def decide(catalog: Catalog, found: Closure, laws: Laws, facts: frozenset[str], today: date) -> Plan:
    """Give every traced row its fate; NotAllowed where the catalog asks a person to decide."""
    import pandas as pd

    traces = found.traces.to_pandas()
    starts = found.starts.to_pandas()
    pieces = []
    for address, rows in each(traces, "collection"):
        collection = catalog.collection(address)
        decided = rows.copy()
        decided["fate"], decided["until"], decided["rule"] = "", "", ""
        decided.loc[rows["edge"] == "owns", "fate"] = _own(collection)
        decided.loc[rows["edge"] == "joint", "fate"] = "blank"
        decided.loc[rows["edge"] == "shares", "fate"] = _shared(collection)
        masks = [f.name for f in mentions(collection) if f.mode is Mode.MASK]
        hit = rows["fields"].map(lambda names, masks=masks: any(n in masks for n in names.split(",")))
        decided.loc[rows["edge"] == "mentions", "fate"] = "mention"
        decided.loc[(rows["edge"] == "mentions") & hit, "fate"] = "mask"
        pieces.append(_retained(collection, decided, starts, laws, facts, today))
    columns = [*traces.columns, "fate", "until", "rule"]
    fates = pd.concat(pieces)[columns] if pieces else pd.DataFrame(columns=columns)
    fates = fates.sort_values(["subject", "collection", "unit", "position"], ignore_index=True)
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
    acting = plan.fates[plan.fates["fate"].isin([*GOES, "retain"])]
    for store in stores:
        mine = [c.address for c in store.collections]
        for unit, rows in each(acting[acting["collection"].isin(mine)], "unit"):
            changes = []
            for address, part in each(rows, "collection"):
                change = _change(catalog.collection(address), part, plan.texts, unit)
                if change is not None:
                    changes.append(change)
            if changes:
                state = states.get((store.name, unit))
                if state is None:
                    raise NotAllowed(f"{store.name}: a unit that was located is gone", hint="locate again")
                found.setdefault(store.name, []).append(Order(state, tuple(changes)))
    return found


def drops(catalog: Catalog, plan: Plan, codes: Mapping[str, int]) -> dict[bytes, frozenset[int]]:
    """Which keys die: for every key ref of the cohort, all catalogued domains but those of rows that a law retains."""
    kept: dict[int, set[int]] = {}
    retained = plan.fates[plan.fates["fate"] == "retain"]
    for subject, address, _rows in each(retained, "subject", "collection"):
        for one in catalog.collection(address).fields:
            if one.retention is not None and one.mode is Mode.CRYPTO_ERASE and one.key_domain in codes:
                kept.setdefault(subject, set()).add(codes[one.key_domain])
    people = plan.facts[plan.facts["kind"] == (catalog.person_kind or "")]
    found: dict[bytes, frozenset[int]] = {}
    for subject, value in tuples(people, "subject", "value"):
        ref = ref_of(catalog.person_kind or "", value)
        dying = frozenset(codes.values()) - kept.get(subject, set())
        found[ref] = found[ref] & dying if ref in found else dying
    return found


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


def _shared(collection: Collection) -> str:
    if collection.on_shared == "ask":
        raise NotAllowed(
            f"{collection.address}: rows are shared with people outside the cohort and the catalog says ask",
            hint="decide: on_shared: unlink or erase",
        )
    return "drop" if collection.on_shared == "erase" else "shared"


def _retained(
    collection: Collection, rows: pd.DataFrame, starts: pd.DataFrame, laws: Laws, facts: frozenset[str], today: date
) -> pd.DataFrame:
    """Turn owned rows whose record class a law keeps into `retain` with date and rule."""
    if collection.retention is None:
        return rows
    mine = starts[starts["collection"] == collection.address]
    dated = rows.merge(mine, on=["collection", "unit", "position"], how="left")
    decisions = {}
    for text in dated["start"].dropna().unique():
        decisions[text] = laws.decide(collection.retention, date.fromisoformat(text), facts=facts, today=today)
    closed = today if collection.retention.start == "closed" else None
    unknown = laws.decide(collection.retention, closed, facts=facts, today=today)
    found = [decisions[t] if isinstance(t, str) else unknown for t in dated["start"]]
    owned = (dated["fate"].isin(["drop", "blank"]) & (dated["edge"] == "owns")).to_numpy()
    holds = np.array([d is not None for d in found]) & owned
    fate = dated["fate"].to_numpy(dtype=object)
    fate[holds] = "retain"
    dated["fate"] = fate
    dated["until"] = [
        (d.day.isoformat() if d.day else "officer") if h and d else "" for d, h in zip(found, holds, strict=True)
    ]
    dated["rule"] = [d.rule if h and d else "" for d, h in zip(found, holds, strict=True)]
    return dated.drop(columns=["start"])


def _change(collection: Collection, rows: pd.DataFrame, texts: pd.DataFrame, unit: str) -> Change | None:
    gone = np.unique(rows.loc[rows["fate"] == "drop", "position"].to_numpy(np.int64))
    rest = rows[~rows["position"].isin(gone)]
    blank: dict[str, Blank] = {}
    redact: dict[str, Redaction] = {}
    emptied = rest.loc[(rest["fate"] == "blank") & (rest["edge"] == "owns"), "position"]
    kept = rest.loc[rest["fate"] == "retain", "position"]
    masked = rest.loc[rest["fate"] == "mask", "position"]
    for one in collection.fields:
        at = [emptied] if one.mode in _GONE and not one.primary_key else []
        if one.mode in _GONE and one.retention is None and collection.retention is not None:
            at.append(kept)
        if one.party is not None and one.mode in _GONE:
            at.append(
                rest.loc[
                    (rest["edge"] == "joint") & rest["fields"].map(lambda n, o=one: _party(collection, n, o)),
                    "position",
                ]
            )
        if one in mentions(collection) and one.mode is Mode.MASK:
            if one.data_type == "text":
                found = texts[
                    (texts["collection"] == collection.address)
                    & (texts["unit"] == unit)
                    & (texts["field"] == one.name)
                    & texts["position"].isin(masked)
                ]
                if len(found):
                    pairs = found[["position", "text"]].drop_duplicates().sort_values(["position", "text"])
                    redact[one.name] = Redaction(
                        pairs["position"].to_numpy(np.int64),
                        pa.array(pairs["text"].tolist(), pa.string()),
                        str(one.mask.constant) if one.mask.constant is not None else "***",
                    )
            else:
                at.append(masked)
        positions = np.unique(np.concatenate([p.to_numpy(np.int64) for p in at])) if at else np.array([], np.int64)
        if len(positions):
            blank[one.name] = Blank(positions, one.mask.constant if one.mode is Mode.MASK else None)
    if not len(gone) and not blank and not redact:
        return None
    return Change(collection, gone, blank, redact)


def _party(collection: Collection, names: str, one: Field) -> bool:
    return any(collection.field(n).party == one.party for n in names.split(",") if n)

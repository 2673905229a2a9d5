"""Holdings: what an account still holds, read from the catalogued stores by a mapping; nothing unknown passes.

A source says which collection holds items, of which kind of the clearance rules, and in which columns amount and end
stand. Only rows that were located as the person's own count. A word in the kind's column that the mapping does not
list, an amount that is no whole number, or a collection that the catalog does not have stops the plan.
"""

from __future__ import annotations

import hashlib
import hmac
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np

from fangxin.data.errors import InputError
from fangxin.flows.estate import Estate
from fangxin.flows.frames import each, tuples
from fangxin.flows.settlement import Entitlement

if TYPE_CHECKING:
    import pandas as pd

_NEEDED = frozenset({"collection", "amount", "currency"})
_KNOWN = _NEEDED | {"kind", "column", "kinds", "expires", "transferable", "cash_rate", "source", "instrument"}


@dataclass(frozen=True)
class Source:
    """One collection whose rows are items. Either `kind`, or `column` and `kinds` for what stands in it."""

    collection: str
    amount: str
    currency: str
    kind: str = ""
    column: str = ""
    kinds: Mapping[str, str] = field(default_factory=dict)
    expires: str = ""
    transferable: bool | None = None
    cash_rate: Fraction | None = None
    source: str | None = None
    instrument: str = ""  # the column of the payment provider's token


@dataclass(frozen=True)
class Sources:
    """All sources of an operator, and the file's SHA-256."""

    sources: tuple[Source, ...]
    digest: str

    @classmethod
    def load(cls, path: Path) -> Sources:
        """Read a file of sources strictly; InputError names the source and the key."""
        body = path.read_bytes()
        try:
            found: dict[str, Any] = tomllib.loads(body.decode("utf-8"))  # Any: TOML
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not TOML in UTF-8: {error}") from None
        if set(found) != {"source"} or not isinstance(found["source"], list):
            raise InputError(
                f"{path}: expected a list of [[source]]",
                hint="one for each collection that holds something of worth, as in data/holdings/lecard.toml; where"
                " no collection does: source = []",
            )
        return cls(tuple(map(_source, found["source"])), hashlib.sha256(body).hexdigest())


def _source(raw: Mapping[str, Any]) -> Source:  # Any: TOML
    name = str(raw.get("collection", "?"))
    for key in sorted((_NEEDED - raw.keys()) | (raw.keys() - _KNOWN)):
        raise InputError(f"source {name}: {'unknown' if key in raw else 'missing'} key {key}")
    if ("kind" in raw) == ("column" in raw and "kinds" in raw):
        raise InputError(f"source {name}: expected either kind, or column with kinds")
    try:
        rate = Fraction(raw["cash_rate"]) if "cash_rate" in raw else None
    except (ValueError, ZeroDivisionError, TypeError):
        raise InputError(f'source {name}: cash_rate: expected a fraction such as "1/10"') from None
    return Source(**{**raw, "cash_rate": rate})


def held(estate: Estate, fates: pd.DataFrame, sources: Sources, *, secret: bytes, zone: str) -> tuple[Entitlement, ...]:
    """Every item in the located rows that are a person's own: `held_by` for one, whatever their number is."""
    return held_by(estate, fates.assign(subject=0), sources, secrets=[secret], zone=zone)[0]


def held_by(
    estate: Estate, fates: pd.DataFrame, sources: Sources, *, secrets: Sequence[bytes], zone: str
) -> list[tuple[Entitlement, ...]]:
    """By subject every item in the located rows that are their own, in the order of the rows; no worth is no item.

    Each source is read once for everybody. An item's id is a keyed digest of its row's primary key: the same whenever
    it is looked for, and nobody's without that subject's secret. A date without a zone is read in `zone`. What has
    expired is held no more.
    """
    own = fates[fates["edge"].isin(["owns", "joint"])].drop_duplicates(["subject", "collection", "unit", "position"])
    known = {c.address for c in estate.catalog.collections}
    found: list[list[Entitlement]] = [[] for _one in secrets]
    for one in sources.sources:
        if one.collection not in known:
            raise InputError(
                f"the mapping of what accounts hold names {one.collection}, which the catalog does not have",
                hint=f"write {estate.settings.home / 'holdings.toml'}: a [[source]] for each collection that holds"
                " something of worth, as in data/holdings/lecard.toml; where no collection does: source = []",
            )
        rows = own[own["collection"] == one.collection]
        wanted = {unit: np.unique(part["position"].to_numpy(np.int64)) for unit, part in each(rows, "unit")}
        if not wanted:
            continue
        whose: dict[tuple[str, int], list[int]] = {}
        for subject, unit, position in tuples(rows, "subject", "unit", "position"):
            whose.setdefault((unit, position), []).append(subject)
        for unit, position, name, item in _items(estate, one, wanted, zone):
            for subject in whose[unit, position]:
                text = f"{one.collection}|{one.amount}|{name}".encode()
                digest = hmac.digest(secrets[subject], text, "sha256").hex()[:16]
                found[subject].append(Entitlement(f"i-{digest}", place=f"{one.collection}|{name}", **item))
    return [tuple(items) for items in found]


def _items(
    estate: Estate, one: Source, wanted: Mapping[str, Any], zone: str
) -> Iterator[tuple[str, int, str, dict[str, Any]]]:
    """The items of one source: unit, position, what names the row, and an entitlement's fields. Any: numpy, JSON."""
    key = estate.catalog.collection(one.collection).primary_key
    names = [n for n in (one.amount, one.column, one.expires, one.instrument, key.name if key else "") if n]
    names = list(dict.fromkeys(names))
    for _address, rows in estate.store_of(one.collection).take({one.collection: wanted}):
        missing = [n for n in names if n not in rows.columns.schema.names]
        if missing:
            raise InputError(f"source {one.collection}: no column {missing[0]}", hint="correct the mapping")
        for at, row in zip(rows.positions, rows.columns.select(names).to_pylist(), strict=True):  # a handful
            amount = row[one.amount]
            if amount is None or amount == 0:
                continue
            if type(amount) is not int:
                raise InputError(f"source {one.collection}: {one.amount} holds something else than whole minor units")
            kind = one.kind or one.kinds.get(str(row[one.column]), "")
            if not kind:
                raise InputError(
                    f"source {one.collection}: an item of a kind that the mapping does not know",
                    hint="add it to the mapping; nothing is lost because nobody thought of it",
                )
            end = _end(one, row.get(one.expires), zone) if one.expires else None
            if end is not None and end <= estate.now:
                continue
            yield (
                rows.unit,
                int(at),
                str(row[key.name]) if key else f"{rows.unit}|{at}",
                {
                    "kind": kind,
                    "amount": amount,
                    "currency": one.currency,
                    "expires": end,
                    "transferable": one.transferable,
                    "cash_rate": one.cash_rate,
                    "source": one.source,
                    "instrument": str(row.get(one.instrument) or "") if one.instrument else "",
                },
            )


def _end(one: Source, given: Any, zone: str) -> datetime | None:  # Any: what stands in a column
    if given is None:
        return None
    try:
        moment = given if isinstance(given, datetime) else datetime.fromisoformat(str(given))
    except ValueError:
        raise InputError(f"source {one.collection}: {one.expires} holds something else than a time") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(zone))

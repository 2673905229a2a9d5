"""The canary: a made-up person planted in every collection of a run, found by the baseline, erased with the cohort.

It is the control of every NOT_PRESENT: a scan that did not find the canary before the erase would not have found
the person either. Its values are random and valid-looking, never a real person's; it leaves with the run.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection as Collection_
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
from stdnum import luhn
from stdnum.cn import ric

from fangxin.data.catalog.kinds import canonical, stored_forms
from fangxin.data.keys.columns import protect_rows
from fangxin.data.vocabulary import Catalog, Collection, Field, Identity, IdentityFormat, Mode
from fangxin.flows.estate import Estate

LONG_AGO = date(2000, 1, 3)  # before every retention period, so that no law keeps a canary


def _digits(n: int) -> str:
    return "".join(secrets.choice("0123456789") for _ in range(n))


def _value(kind: str) -> str:
    """A random raw value of an identity kind."""
    token = secrets.token_hex(8)
    if kind == "phone_number":
        return "199" + _digits(8)
    if kind == "email":
        return f"canary.{token}@canary.invalid"
    if kind == "cn_resident_id":
        body = (
            "11010119" + f"{50 + secrets.randbelow(49)}0{1 + secrets.randbelow(9)}1{secrets.randbelow(9)}" + _digits(3)
        )
        return body + str(ric.calc_check_digit(body + "0"))
    if kind == "bank_card":
        body = "62" + _digits(16)
        return body + luhn.calc_check_digit(body)
    if kind == "imei":
        body = "86" + _digits(12)
        return body + luhn.calc_check_digit(body)
    if kind in ("oaid", "idfa", "gaid"):
        return f"{token[:8]}-{token[8:12]}-4{token[12:15]}-8{token[:3]}-{secrets.token_hex(6)}"
    return f"canary-{token}"


def canary_identities(kinds: frozenset[str], person_kind: str | None) -> tuple[Identity, ...]:
    """One identity of every declared kind, and the canary's own account number."""
    found = [Identity(k, canonical(k, _value(k))) for k in sorted(kinds)]
    if person_kind is not None:
        found.append(Identity(person_kind, str(880_000_000_000_000_000 + secrets.randbelow(10**16))))
    return tuple(found)


def persona(catalog: Catalog, identities: tuple[Identity, ...]) -> tuple[Identity, ...]:
    """The identities, and the canary's value of every reference: the same ones whenever they are asked for.

    A planting that was killed goes on with rows that refer to those which stand already, and finds these even where
    nothing leads to them yet.
    """
    known = {i.kind: i.value for i in identities}
    seed = "".join(v for _k, v in sorted(known.items())).encode()
    for collection in catalog.collections:
        for one in collection.fields:
            kind = _reference(one)
            if kind is not None and one.identity is None and kind not in known:
                digest = hashlib.blake2b(seed + kind.encode(), digest_size=8).digest()
                known[kind] = str(870_000_000_000_000_000 + int.from_bytes(digest, "big") % 10**16)
    return tuple(Identity(k, v) for k, v in known.items())


def plant(estate: Estate, identities: tuple[Identity, ...], *, but: Collection_[str] = frozenset()) -> dict[str, int]:
    """Plant one row of a persona in every collection that can be erased, but for those where it stands already."""
    known = {i.kind: i.value for i in identities}
    planted = {}
    for store in estate.stores:
        wanted = [
            c
            for c in estate.catalog.collections
            if estate.store_of(c.address) is store
            and c.address not in but
            and store.capabilities.plant
            and c.mode is not Mode.KEEP
            and _ours(estate, c)
        ]
        store.plant([(c, _row(estate, c, store.fields(c), known)) for c in wanted])
        planted.update(dict.fromkeys((c.address for c in wanted), 1))
    return planted


def _ours(estate: Estate, collection: Collection) -> bool:
    return any(d.ours for d in estate.catalog.datasets if d.key == collection.dataset)


def _row(estate: Estate, collection: Collection, stored: pa.Schema, known: dict[str, str]) -> Mapping[str, Any]:
    row: dict[str, Any] = {}
    for one in collection.fields:
        text = _text(collection, one, known)
        if text is not None and one.name in stored.names:
            row[one.name] = text
    hidden = [n for n in row if pa.types.is_large_binary(stored.field(n).type) and _crypto(collection, n)]
    key = collection.primary_key
    if hidden and key is not None and key.name not in row:  # the values are bound to it
        number = 10**9 + secrets.randbelow(10**9)
        row[key.name] = str(number) if pa.types.is_integer(stored.field(key.name).type) else f"canary {number}"
    typed = {n: _typed(v, stored.field(n).type) for n, v in row.items() if n not in hidden}
    if hidden:
        batch = pa.RecordBatch.from_pylist([{n: str(v) for n, v in row.items()}])
        sealed = protect_rows(estate.tree, estate.catalog, collection, hidden, batch, scalar=not estate.settings.lanes)
        typed.update({n: sealed.column(n)[0].as_py() for n in hidden})
    return typed


def _crypto(collection: Collection, name: str) -> bool:
    return collection.field(name).mode is Mode.CRYPTO_ERASE


def _text(collection: Collection, one: Field, known: dict[str, str]) -> str | None:
    """What the canary's row holds in a field, as text; None leaves the field to the store."""
    if one.identity is not None:
        return stored_forms(one.identity, known[one.identity], one.identity_format, None)[-1 if _raw(one) else 0]
    reference = _reference(one)
    if reference is not None:
        return known[reference]
    if collection.retention is not None and one.name == collection.retention.start:
        return LONG_AGO.isoformat()
    if one.data_type == "text":
        return "canary " + " ".join(v for k, v in sorted(known.items()) if not k.startswith("ref:"))
    return f"canary {secrets.token_hex(6)}" if one.personal else None


def _reference(one: Field) -> str | None:
    return next((k for k in (*one.matches, *one.emits) if k.startswith("ref:")), None)


def _raw(one: Field) -> bool:
    return one.identity_format is IdentityFormat.RAW and not one.normalised


def _typed(value: str, kind: pa.DataType) -> Any:  # Any: whatever Python type the column's Arrow type takes
    if pa.types.is_integer(kind):
        return int(value) if value.isdigit() else secrets.randbelow(10**9)
    if pa.types.is_floating(kind):
        return float(value) if value.isdigit() and int(value) < 2**53 else 0.0  # a greater one would be another
    if pa.types.is_timestamp(kind):
        return datetime.combine(LONG_AGO, datetime.min.time(), UTC if kind.tz else None)
    if pa.types.is_date(kind):
        return LONG_AGO
    return value

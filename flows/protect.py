"""Protect: put sensitive fields under their subjects' keys, so that a key can die for a value in every copy.

Columns the catalog calls `crypto-erase` are replaced by envelopes, unit by unit; keys are durable before any value is
written under them. The plaintext files are destroyed like any erased unit. Running it again changes nothing: a
column that lies under keys already is left alone. A run that was killed is finished by the next one: what it held is
destroyed first, what it did is reported again, and the intent it left in the ledger gets its outcome.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import pyarrow as pa

from fangxin.checks.readiness import overwritable
from fangxin.data.errors import InputError, StoreUnavailable
from fangxin.data.keys.columns import owner_of, protect_rows, under_keys
from fangxin.data.keys.suites import NAMES
from fangxin.data.vocabulary import Collection, Erasure, Method, Store
from fangxin.flows.estate import Estate, alone, hold_stores
from fangxin.flows.evidence import record
from fangxin.flows.overwrite import write_erasures
from fangxin.reports.ledger.entries import band, tag

_BATCH = "protect"  # always the same name: the next run finds the records of a killed one


def protect(estate: Estate, *, require: str | None = None, suite: int | None = None) -> dict[str, tuple[Erasure, ...]]:
    """Protect every column that stands in clear and should not; return what was rewritten, per store name.

    `suite` is for key domains without values yet; InputError if a domain that is needed has another.
    Holds the home. Raises StoreUnavailable where a store cannot be written, NotAllowed where `require` is "overwrite"
    and a unit in clear lies on a medium that refuses; apart from finishing a killed run, nothing is touched before.
    """
    with alone(estate.settings.home):
        hold_stores(estate)
        due = open_intents(estate)
        for store in estate.stores:
            store.recover(batch=None)
            if estate.store_id(store) not in due:
                store.forget(batch=_BATCH)  # killed after its outcome was recorded
        wanted = {s.name: clear_fields(estate, s.name) for s in estate.stores}
        if require == "overwrite":
            overwritable(estate.stores, {s.name: _units(s, wanted[s.name]) for s in estate.stores if wanted[s.name]})
        for store in estate.stores:
            if wanted[store.name]:
                store.check(for_writing=True)
        if suite is not None:
            _settle_suite(estate, wanted, suite)
        secret = secrets.token_bytes(32)  # ties no entry to anybody
        found = {}
        for number, store in enumerate(estate.stores):
            intent = due.get(estate.store_id(store))
            fields = wanted[store.name] if intent is None else _crypto(store)
            if fields:
                marks = tag(secret, 2 * number), tag(secret, 2 * number + 1)
                work = partial(store.rewrite, fields, _Turn(estate, fields), batch=_BATCH)
                found[store.name] = exchanged(estate, store, work, len(_units(store, fields)), marks, intent)
                store.forget(batch=_BATCH)
        return {name: done for name, done in found.items() if done}


def clear_fields(estate: Estate, store_name: str) -> dict[str, tuple[str, ...]]:
    """Per collection of a store: the crypto-erase fields that stand in clear in any unit."""
    store = next(s for s in estate.stores if s.name == store_name)
    found: dict[str, tuple[str, ...]] = {}
    for collection in store.collections:
        for name in _crypto(store).get(collection.address, ()):
            owner_of(estate.catalog, collection)
            if store.clear(collection, (name,)):
                found[collection.address] = (*found.get(collection.address, ()), name)
    return found


def _crypto(store: Store) -> dict[str, tuple[str, ...]]:
    named = {c.address: under_keys(c) for c in store.collections}
    return {address: names for address, names in named.items() if names}


def _units(store: Store, fields: Mapping[str, Sequence[str]]) -> set[str]:
    return {u for c in store.collections if c.address in fields for u in store.clear(c, fields[c.address])}


def exchanged(
    estate: Estate,
    store: Store,
    work: Callable[[], Iterator[Erasure]],
    units: int,
    marks: tuple[str, str],
    intent: int | None,
) -> tuple[Erasure, ...]:
    """One store's units exchanged by `work`: intent (unless a killed run left one), act, outcome."""
    before, after = marks
    if intent is None:
        entry = {"type": "erase.intended", "tag": before, "store": estate.store_id(store), "units": band(units)}
        intent = record(estate, [entry])[before]
    done: list[Erasure] = []
    try:
        for one in work():
            done.append(one)
    except StoreUnavailable:
        if not done:  # it refused before it changed anything, so nothing is due
            _outcome(estate, store, after, intent, ())
        raise
    _outcome(estate, store, after, intent, tuple(done))
    return tuple(done)


def _settle_suite(estate: Estate, wanted: Mapping[str, Mapping[str, Sequence[str]]], suite: int) -> None:
    """Note the suite of domains that have none yet; a domain keeps its suite for ever."""
    named = [(estate.catalog.collection(a), n) for fields in wanted.values() for a, ns in fields.items() for n in ns]
    for domain in sorted({collection.field(name).key_domain for collection, name in named}):
        kept = estate.tree.suite(estate.tree.domain_code(domain), suite)
        if kept != suite:
            raise InputError(
                f"key domain {domain!r} keeps {NAMES[kept]} for ever: its first values were written in it",
                hint="leave --suite out, or give the fields another key_domain",
            )


def _outcome(estate: Estate, store: Store, mark: str, intent: int, done: tuple[Erasure, ...]) -> None:
    logical = any(e.method is not Method.OVERWRITE for e in done)
    systems = sorted({d.fs for e in done for d in e.destructions}) or ["none"]
    entry: dict[str, int | str] = {
        "type": "store.rewritten" if logical else "store.overwritten",
        "tag": mark,
        "intent": intent,
        "store": estate.store_id(store),
        "units": band(len(done)),
        "method": (Method.LOGICAL_DELETE if logical else Method.OVERWRITE).value,
        "bytes": band(sum(e.bytes_overwritten for e in done)),
        "fs": systems[0],
        "digest": hashlib.sha256(write_erasures(done)).hexdigest(),
    }
    record(estate, [entry])


def open_intents(estate: Estate) -> dict[str, int]:
    """Per store the intent that a killed run of ours left: the intents to erase people carry a plan, ours do not."""
    found: dict[int, str] = {}
    for index, entry in estate.ledger.entries():
        if entry["type"] == "erase.intended" and "plan" not in entry and entry["store"] != "vault":
            found[index] = str(entry["store"])
        elif entry["type"] in ("store.overwritten", "store.rewritten"):
            found.pop(int(entry["intent"]), None)
    return {store: index for index, store in found.items()}


class _Turn:
    """Turns the clear columns of a collection's rows into envelopes."""

    def __init__(self, estate: Estate, fields: Mapping[str, Sequence[str]]) -> None:
        self.estate, self.fields = estate, fields

    def __call__(self, collection: Collection, columns: pa.RecordBatch) -> pa.RecordBatch:
        """Return the protected columns, made from the full rows; those of them that stand in clear in this unit."""
        names = [n for n in self.fields[collection.address] if n in columns.schema.names]
        names = [n for n in names if not pa.types.is_large_binary(columns.schema.field(n).type)]
        scalar = not self.estate.settings.lanes
        return protect_rows(self.estate.tree, self.estate.catalog, collection, names, columns, scalar=scalar)

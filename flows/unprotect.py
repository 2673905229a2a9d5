"""Unprotect: bring protected values back in clear, for collections that leave the scheme.

The way back of `protect`, unit by unit, with the same care: what a unit held before is destroyed, a run that was
killed is finished by the next one, and running it again changes nothing. Values whose key is gone become null. From
then on nothing but overwriting will erase these values: the catalog must say so, or `protect` puts them back.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, cast, runtime_checkable

import pyarrow as pa

from fangxin.data.errors import InputError
from fangxin.data.keys.columns import open_all, owner_of, under_keys
from fangxin.data.vocabulary import Collection, Erasure, Turn
from fangxin.flows.estate import Estate, alone, hold_stores
from fangxin.flows.protect import exchanged, open_intents
from fangxin.reports.ledger.entries import tag

_BATCH = "unprotect"


@runtime_checkable
class Reversible(Protocol):
    """A store that can take envelopes out of its units again."""

    def covered(self, collection: Collection, names: Sequence[str]) -> tuple[str, ...]:
        """The units in which a value of one of these fields lies under keys."""
        ...

    def uncover(self, fields: Mapping[str, Sequence[str]], turn: Turn, *, batch: str) -> Iterator[Erasure]:
        """Replace columns under keys (address -> fields) by what `turn` makes of them, then destroy the old bytes."""
        ...


@dataclass
class Unprotected:
    """What was rewritten, per store name, and how many values were null because their key is gone."""

    stores: dict[str, tuple[Erasure, ...]] = field(default_factory=dict)
    gone: int = 0


def unprotect(estate: Estate, addresses: Sequence[str]) -> Unprotected:
    """Bring the values of these collections (`dataset/collection`) back in clear. Holds the home.

    InputError for a collection that is not there, has no field under keys, or lies in a store that cannot go back;
    ValueForged, and that unit stays as it is, if a value does not open under its row's key.
    """
    wanted = _wanted(estate, addresses)
    done = Unprotected()
    with alone(estate.settings.home):
        hold_stores(estate)
        due = open_intents(estate)
        secret = secrets.token_bytes(32)  # ties no entry to anybody
        for number, store in enumerate(estate.stores):
            fields = wanted.get(store.name)
            if not fields:
                continue
            back = cast(Reversible, store)  # `_wanted` looked
            store.recover(batch=None)
            intent = due.get(estate.store_id(store))
            if intent is None:
                store.forget(batch=_BATCH)  # killed after its outcome was recorded
            units = {u for c in store.collections if c.address in fields for u in back.covered(c, fields[c.address])}
            if not units and intent is None:
                continue
            store.check(for_writing=True)
            work = partial(back.uncover, fields, _Turn(estate, fields, done), batch=_BATCH)
            marks = tag(secret, 2 * number), tag(secret, 2 * number + 1)
            found = exchanged(estate, store, work, len(units), marks, intent)
            store.forget(batch=_BATCH)
            if found:
                done.stores[store.name] = found
    return done


def _wanted(estate: Estate, addresses: Sequence[str]) -> dict[str, dict[str, tuple[str, ...]]]:
    """Per store and collection the fields under keys."""
    known = {c.address: (store, c) for store in estate.stores for c in store.collections}
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for address in dict.fromkeys(addresses):
        if address not in known:
            raise InputError(f"{address!r} is no collection of the catalog", hint=f"one of {', '.join(sorted(known))}")
        store, collection = known[address]
        names = under_keys(collection)
        if not names:
            raise InputError(f"{address}: no field of it is called crypto-erase", hint="nothing lies under keys there")
        owner_of(estate.catalog, collection)
        if not isinstance(store, Reversible):
            raise InputError(f"{address}: a store of kind {store.kind} holds no values under keys")
        found.setdefault(store.name, {})[address] = names
    if not found:
        raise InputError("no collection is named", hint="fangxin unprotect DATASET/COLLECTION")
    return found


class _Turn:
    """Turns columns of envelopes into what was protected."""

    def __init__(self, estate: Estate, fields: Mapping[str, Sequence[str]], done: Unprotected) -> None:
        self.estate, self.fields, self.done = estate, fields, done

    def __call__(self, collection: Collection, columns: pa.RecordBatch) -> pa.RecordBatch:
        """Return the columns in clear, made from the full rows; those of them that lie under keys in this unit."""
        names = [n for n in self.fields[collection.address] if n in columns.schema.names]
        names = [n for n in names if pa.types.is_large_binary(columns.schema.field(n).type)]
        scalar = not self.estate.settings.lanes
        opened = open_all(self.estate.tree, self.estate.catalog, collection, names, columns, scalar=scalar)
        self.done.gone += sum(int(one.gone.sum()) for one in opened.values())
        return pa.RecordBatch.from_arrays([one.values for one in opened.values()], names=list(opened))

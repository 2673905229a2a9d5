"""Protect: put sensitive fields under their subjects' keys, so that a key can die for a value in every copy.

Columns the catalog calls `crypto-erase` are replaced by envelopes, unit by unit; keys are durable before any value is
written under them. The plaintext files are destroyed like any erased unit. Running it again changes nothing: a
column that lies under keys already is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from fangxin.data.keys.columns import owner_of, protect_rows
from fangxin.data.requests import opaque
from fangxin.data.vocabulary import Collection, Erasure, Mode
from fangxin.flows.estate import Estate


def protect(estate: Estate) -> dict[str, tuple[Erasure, ...]]:
    """Protect every column that stands in clear and should not; return what was rewritten, per store name.

    Raises StoreUnavailable before anything is touched where a store cannot be written.
    """
    wanted = {s.name: clear_fields(estate, s.name) for s in estate.stores}
    for store in estate.stores:
        if wanted[store.name]:
            store.check(for_writing=True)
    found = {}
    for store in estate.stores:
        fields = wanted[store.name]
        if not fields:
            continue
        batch = opaque("p")
        store.recover(batch=batch)
        turn = _Turn(estate, fields)
        found[store.name] = tuple(store.rewrite(fields, turn, batch=batch))
        store.forget(batch=batch)
    return found


def clear_fields(estate: Estate, store_name: str) -> dict[str, tuple[str, ...]]:
    """Per collection of a store: the crypto-erase fields that stand in clear."""
    store = next(s for s in estate.stores if s.name == store_name)
    found = {}
    for collection in store.collections:
        wanted = [f.name for f in collection.fields if f.mode is Mode.CRYPTO_ERASE]
        if wanted:
            owner_of(estate.catalog, collection)
            stored = store.fields(collection)
            clear = [n for n in wanted if n in stored.names and not pa.types.is_large_binary(stored.field(n).type)]
            if clear:
                found[collection.address] = tuple(clear)
    return found


class _Turn:
    """Turns the clear columns of a collection's rows into envelopes."""

    def __init__(self, estate: Estate, fields: Mapping[str, tuple[str, ...]]) -> None:
        self.estate, self.fields = estate, fields

    def __call__(self, collection: Collection, columns: pa.RecordBatch) -> pa.RecordBatch:
        """Return the protected columns, made from the full rows."""
        names = self.fields[collection.address]
        return protect_rows(self.estate.tree, self.estate.catalog, collection, names, columns)

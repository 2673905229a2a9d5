"""Columns under keys: protect and open the sensitive columns of a record batch, as the catalog declares them.

The row's own owner value (the account number that its collection holds) picks the key; the field's pinned name
and, where rows have a primary key, the row's key are authenticated with the value, so that a value moved to
another row, column or person does not open.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fangxin.data.errors import InputError
from fangxin.data.keys.envelope import field_id, open_column, protect_column, ref_of, row_id
from fangxin.data.keys.tree import KeyTree
from fangxin.data.vocabulary import Catalog, Collection, Field


def owner_of(catalog: Catalog, collection: Collection) -> Field:
    """The field whose value picks a row's key; InputError when the collection has none."""
    for one in collection.fields:
        if catalog.person_kind in (*one.matches, *one.emits):
            return one
    raise InputError(
        f"{collection.where or collection.address}: values under keys, but no field leads to the person",
        hint="add a reference to the person collection's primary key",
    )


def protect_rows(
    tree: KeyTree, catalog: Catalog, collection: Collection, names: Sequence[str], batch: pa.RecordBatch
) -> pa.RecordBatch:
    """Return the named columns as envelopes (large_binary); keys that are missing are created and durable first."""
    owners, at = _owners(catalog, collection, batch)
    columns = []
    for name in names:
        one = collection.field(name)
        code = tree.domain_code(one.key_domain)
        keys = tree.ensure(owners, code).take(at)
        ident = _field_id(tree, collection, one, code)
        columns.append(protect_column(batch.column(name), keys, ident, _row_ids(collection, batch, ident)))
    return pa.RecordBatch.from_arrays(columns, names=list(names))


def open_rows(tree: KeyTree, catalog: Catalog, collection: Collection, name: str, batch: pa.RecordBatch) -> pa.Array:
    """Return a protected column in clear, as text or its declared type; null where the key is gone."""
    one = collection.field(name)
    owners, at = _owners(catalog, collection, batch)
    code = tree.domain_code(one.key_domain)
    keys = tree.get_many(owners, code).take(at)
    ident = _field_id(tree, collection, one, code)
    return open_column(
        batch.column(name), keys, ident, _row_ids(collection, batch, ident), _TYPES[one.data_type]
    ).values


_TYPES: dict[str | None, pa.DataType] = {
    None: pa.string(),
    "string": pa.string(),
    "text": pa.string(),
    "integer": pa.int64(),
    "float": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "bytes": pa.binary(),
    "uuid": pa.string(),
    "decimal": pa.string(),
    "time": pa.string(),
    "json": pa.string(),
}


def _owners(catalog: Catalog, collection: Collection, batch: pa.RecordBatch) -> tuple[list[bytes], np.ndarray]:
    """The distinct key refs of a batch, and for each row which of them is its own."""
    column = batch.column(owner_of(catalog, collection).name)
    if not pa.types.is_dictionary(column.type):
        column = pc.dictionary_encode(column.cast(pa.string()))
    values = column.dictionary.cast(pa.string()).to_pylist()
    refs = [ref_of(catalog.person_kind or "", v) for v in values]
    at = column.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    if len(at) and at.min() < 0:  # a row without an owner has no key: it must not borrow somebody else's
        refs = [*refs, ref_of(catalog.person_kind or "", "")]
        at = np.where(at < 0, len(refs) - 1, at)
    return refs, at


def _field_id(tree: KeyTree, collection: Collection, one: Field, code: int) -> bytes:
    dataset, name, column = (one.protected_as or f"{collection.dataset}/{collection.name}/{one.name}").split("/", 2)
    return field_id(tree.vault_id, code, dataset, name, column)


def _row_ids(collection: Collection, batch: pa.RecordBatch, ident: bytes) -> list[bytes] | None:
    key = collection.primary_key
    if key is None or key.name not in batch.schema.names:
        return None
    return [row_id(ident, v) for v in batch.column(key.name).cast(pa.string()).to_pylist()]

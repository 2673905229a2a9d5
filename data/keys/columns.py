"""Columns under keys: protect and open the sensitive columns of record batches, as the catalog declares them.

The row's own owner value (the account number that its collection holds) picks the key; the field's pinned name
and, where rows have a primary key, the row's key are authenticated with the value, so that a value moved to
another row, column or person does not open.

* A batch's owners are looked up once per domain, whatever the number of columns; keys are wiped before we return.
* A value is protected as the type that the catalog declares, so that it opens as what it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fangxin.data.errors import InputError
from fangxin.data.keys import suites
from fangxin.data.keys.envelope import Opened, Place, open_column, protect_column, refs_of
from fangxin.data.keys.material import Keys
from fangxin.data.vocabulary import Catalog, Collection, Field, Mode


class Vault(Protocol):
    """What columns need of the key vault."""

    @property
    def vault_id(self) -> bytes:
        """Its name for ever, 16 bytes."""
        ...

    def domain_code(self, name: str) -> int:
        """The code of a key domain."""
        ...

    def suite(self, domain: int, wanted: int) -> int:
        """The suite of a domain's values."""
        ...

    def get_many(self, refs: Sequence[bytes], domain: int) -> Keys:
        """Keys in the order of refs, and which exist."""
        ...

    def ensure(self, refs: Sequence[bytes], domain: int) -> Keys:
        """Keys in the order of refs; what is missing is made, and durable."""
        ...


def owner_of(catalog: Catalog, collection: Collection) -> Field:
    """The field whose value picks a row's key; InputError when the collection has none."""
    for one in collection.fields:
        if catalog.person_kind in (*one.matches, *one.emits):
            return one
    raise InputError(
        f"{collection.where or collection.address}: values under keys, but no field leads to the person",
        hint="add a reference to the person collection's primary key",
    )


def needed(catalog: Catalog, collection: Collection, names: Sequence[str]) -> tuple[str, ...]:
    """The columns a batch must have for these to be protected or opened: they, the owner's, the primary key."""
    key = collection.primary_key
    more = [owner_of(catalog, collection).name, *([key.name] if key else [])]
    return tuple(dict.fromkeys([*names, *more]))


def under_keys(collection: Collection) -> tuple[str, ...]:
    """The fields of a collection whose values belong under keys."""
    return tuple(one.name for one in collection.fields if one.mode is Mode.CRYPTO_ERASE)


def protect_rows(
    vault: Vault,
    catalog: Catalog,
    collection: Collection,
    names: Sequence[str],
    batch: pa.RecordBatch,
    *,
    suite: int = suites.CHACHA,
    scalar: bool = False,
) -> pa.RecordBatch:
    """Return the named columns as envelopes (large_binary); keys that are missing are created and durable first.

    `suite` counts for domains without values yet. `scalar` keeps to one value at a time: same envelopes, slower.
    """
    columns = {}
    with _keys(vault, catalog, collection, names, batch, make=True) as found:
        for name in names:
            one = collection.field(name)
            code = vault.domain_code(one.key_domain)
            values = _as_declared(collection, one, batch.column(name))
            place, rows = _place(vault, collection, one, code), _rows(collection, batch)
            chosen = vault.suite(code, suite)
            columns[name] = protect_column(values, found[code], place, rows, suite=chosen, batch=not scalar)
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def open_rows(
    vault: Vault,
    catalog: Catalog,
    collection: Collection,
    name: str,
    batch: pa.RecordBatch,
    *,
    scalar: bool = False,
) -> pa.Array:
    """Return a protected column in clear, as text or its declared type; null where the key is gone."""
    return open_all(vault, catalog, collection, [name], batch, scalar=scalar)[name].values


def open_all(
    vault: Vault,
    catalog: Catalog,
    collection: Collection,
    names: Sequence[str],
    batch: pa.RecordBatch,
    *,
    scalar: bool = False,
) -> dict[str, Opened]:
    """Protected columns in clear with the marks of values whose key is gone. ValueForged, and nothing is opened."""
    opened = {}
    with _keys(vault, catalog, collection, names, batch, make=False) as found:
        for name in names:
            one = collection.field(name)
            code = vault.domain_code(one.key_domain)
            place, rows = _place(vault, collection, one, code), _rows(collection, batch)
            opened[name] = open_column(
                batch.column(name), found[code], place, rows, _TYPES[one.data_type], batch=not scalar
            )
    return opened


_TYPES: Mapping[str | None, pa.DataType] = {
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


@contextmanager
def _keys(
    vault: Vault, catalog: Catalog, collection: Collection, names: Sequence[str], batch: pa.RecordBatch, *, make: bool
) -> Iterator[dict[int, Keys]]:
    """The rows' keys in each domain that the fields need; wiped in the end."""
    refs, at = _owners(catalog, collection, batch)
    wanted = {vault.domain_code(collection.field(name).key_domain) for name in names}
    with ExitStack() as stack:
        found = {}
        for code in sorted(wanted):
            with (vault.ensure if make else vault.get_many)(refs, code) as distinct:
                found[code] = stack.enter_context(distinct.take(at))
        yield found


def _owners(
    catalog: Catalog, collection: Collection, batch: pa.RecordBatch
) -> tuple[list[bytes], npt.NDArray[np.int64]]:
    """The distinct key refs of a batch, and for each row which of them is its own."""
    column = batch.column(owner_of(catalog, collection).name)
    if not pa.types.is_dictionary(column.type):
        column = pc.dictionary_encode(column)
    kind = catalog.person_kind or ""
    refs = refs_of(kind, column.dictionary.cast(pa.string()).to_pylist())
    at = column.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    if len(at) and at.min() < 0:  # a row without an owner has no key: it must not borrow somebody else's
        refs = [*refs, *refs_of(kind, [""])]
        at = np.where(at < 0, len(refs) - 1, at)
    return refs, at


def _place(vault: Vault, collection: Collection, one: Field, code: int) -> Place:
    dataset, name, column = (one.protected_as or f"{collection.dataset}/{collection.name}/{one.name}").split("/", 2)
    return Place(vault.vault_id, code, dataset, name, column, pad=one.pad)


def _rows(collection: Collection, batch: pa.RecordBatch) -> list[str | None] | None:
    """The primary keys of the rows as text, where they have one."""
    key = collection.primary_key
    if key is None:
        return None
    if key.name not in batch.schema.names:
        raise InputError(
            f"{collection.address}: columns under keys came without {key.name}, the rows' primary key",
            hint="hand over that column too: values are bound to their row",
        )
    found: list[str | None] = batch.column(key.name).cast(pa.string()).to_pylist()
    return found


def _as_declared(collection: Collection, one: Field, values: pa.Array) -> pa.Array:
    """Values as the type in which they will be opened. InputError where that would change them."""
    kind = _TYPES[one.data_type]
    if values.type == kind or pa.types.is_null(values.type):
        return values
    try:
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        found = values.cast(kind)
        widened = pa.types.is_floating(values.type) and pa.types.is_floating(kind)  # NaN equals nothing
        if widened or found.cast(values.type).equals(values):
            return found
    except pa.ArrowException:
        pass
    raise InputError(
        f"{one.where or collection.address}: values of {one.name} are stored as {values.type} and would not "
        f"come back the same as {kind}",
        hint="correct the field's data_type in the catalog",
    )

"""Tables of other teams: read and write columns under keys from pandas or Arrow, for as long as a lease is held.

    with Tables.open(home) as tables:
        frame = tables.read("wallet/identities", frame)       # values in clear, null where a key is gone
        table = tables.protect("wallet/identities", table)    # envelopes, ready to be written

While tables are open the process holds a lease on the vault: a destruction of keys waits until it has dropped what it
cached. `docs/protected-columns.md` tells the format, for those who read it without us.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from fangxin.data.errors import InputError
from fangxin.data.keys.columns import needed, open_all, protect_rows, under_keys
from fangxin.data.vocabulary import Collection, Field
from fangxin.flows.estate import Estate, open_estate
from fangxin.flows.settings import home_from

AT_ONCE = 65_536  # rows in work
Either = Any  # a pandas.DataFrame or a pyarrow.Table, and the same kind comes back; pyarrow has no types


class Tables:
    """The columns under keys of one home. Use it in a `with` statement: it holds a lease, and caches keys of pages."""

    def __init__(self, estate: Estate) -> None:
        self._estate = estate

    @classmethod
    def open(cls, home: Path | None = None, catalog: Path | None = None) -> Self:
        """Open a home's vault and catalog (default: FANGXIN_HOME, and the catalog in it)."""
        return cls(open_estate(home_from(home), catalog))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Drop what is cached and give the lease up."""
        self._estate.tree.close()

    def read(self, address: str, table: Either, columns: Sequence[str] | None = None) -> Either:
        """The table with these columns of `dataset/collection` in clear; default all that are there and under keys.

        Null where a key is gone. It must have the columns of the owner and of the primary key. ValueForged.
        """
        estate, scalar = self._estate, not self._estate.settings.lanes

        def work(collection: Collection, names: Sequence[str], batch: pa.RecordBatch) -> list[pa.Array]:
            opened = open_all(estate.tree, estate.catalog, collection, names, batch, scalar=scalar)
            return [opened[name].values for name in names]

        return self._turned(address, table, columns, work, envelopes=True)

    def protect(self, address: str, table: Either, columns: Sequence[str] | None = None) -> Either:
        """The table with these columns as envelopes; keys of people who have none yet are made, and durable first.

        SubjectSealed for somebody in the cooling-off period. A column that lies under keys already is left alone.
        """
        estate, scalar = self._estate, not self._estate.settings.lanes

        def work(collection: Collection, names: Sequence[str], batch: pa.RecordBatch) -> list[pa.Array]:
            return list(protect_rows(estate.tree, estate.catalog, collection, names, batch, scalar=scalar).columns)

        return self._turned(address, table, columns, work, envelopes=False)

    def _turned(
        self,
        address: str,
        table: Either,
        columns: Sequence[str] | None,
        work: Callable[[Collection, Sequence[str], pa.RecordBatch], list[pa.Array]],
        *,
        envelopes: bool,
    ) -> Either:
        catalog = self._estate.catalog
        try:
            collection = catalog.collection(address)
        except KeyError:
            known = ", ".join(c.address for c in catalog.collections)
            raise InputError(f"{address!r} is no collection of the catalog", hint=f"one of {known}") from None
        here = list(table.schema.names if isinstance(table, pa.Table) else table.columns)
        names = [n for n in under_keys(collection) if n in here] if columns is None else list(columns)
        if unfit := sorted(set(names) - set(under_keys(collection))):
            raise InputError(f"{address}: {unfit[0]!r} is no field under keys", hint="see the catalog: crypto-erase")
        wanted = needed(catalog, collection, names)
        if missing := [n for n in wanted if n not in here]:
            raise InputError(
                f"{address}: the table has no column {missing[0]!r}",
                hint=f"to open or protect its values it needs {', '.join(wanted)}",
            )
        rows = _arrow(table, wanted)
        names = [n for n in names if _are_envelopes(table, collection.field(n), rows.column(n), envelopes) is envelopes]
        done: list[list[pa.Array]] = [[] for _ in names]
        for batch in rows.to_batches(max_chunksize=AT_ONCE) if names else ():
            for column, made in zip(done, work(collection, names, batch), strict=True):
                column.append(made)
        turned = {n: pa.chunked_array(parts) for n, parts in zip(names, done, strict=True) if parts}
        if isinstance(table, pa.Table):
            for name, made in turned.items():
                table = table.set_column(table.schema.get_field_index(name), name, made)
            return table
        return table.assign(**{n: _of_frame(made, table) for n, made in turned.items()})


def _arrow(table: Either, names: Sequence[str]) -> pa.Table:
    if isinstance(table, pa.Table):
        return table.select(list(names))
    return pa.Table.from_pandas(table[list(names)], preserve_index=False)


def _are_envelopes(table: Either, one: Field, column: pa.ChunkedArray, wanted: bool) -> bool:
    """Arrow tells envelopes by their type; a frame has one kind of bytes, which are envelopes or what is `wanted`."""
    if pa.types.is_large_binary(column.type):
        return True
    if isinstance(table, pa.Table) or not pa.types.is_binary(column.type):
        return False
    return wanted if one.data_type == "bytes" else True


def _of_frame(made: pa.ChunkedArray, frame: Either) -> Any:  # Any: a pandas.Series
    found = made.to_pandas()
    found.index = frame.index
    return found

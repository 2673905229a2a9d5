"""The store of Parquet files: folders of them, hive partitions included, each file one unit.

* Rows are read by row group and by column; positions are row numbers in the file.
* A unit is erased by building it afresh from the rows that stay and destroying the old inode.
* Values in a path (`month=2024-01/`) appear as text columns; they cannot be blanked.
* An order without positions still rebuilds its unit: that is how an unreferenced dictionary entry is got rid of.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fangxin.data.errors import FangxinError, StoreUnavailable
from fangxin.data.stores.files import (
    PLANTING,
    Built,
    FileStore,
    hive,
    lacking_column,
    publish,
    together,
    unusable,
)
from fangxin.data.stores.rebuild import (
    Edits,
    edit,
    exchange_columns,
    filler,
    manner,
    one_batch,
    opened,
    plain_schema,
    plain_table,
    rewritable,
    write,
)
from fangxin.data.vocabulary import (
    Capabilities,
    Collection,
    Erasure,
    Field,
    Meter,
    Order,
    Positions,
    Rows,
    Turn,
    Unit,
)

_EXPECTED: Mapping[
    str, Callable[[pa.DataType], bool]
] = {  # what a catalog's data_type may be stored as; types not named here are taken as they come
    "integer": lambda t: pa.types.is_integer(t) or pa.types.is_null(t),
    "boolean": lambda t: pa.types.is_boolean(t) or pa.types.is_null(t),
    "string": lambda t: _is_text(t) or pa.types.is_null(t),
    "text": lambda t: _is_text(t) or pa.types.is_null(t),
}


class ParquetStore(FileStore):
    """Parquet files below one root; see `Store` for what each method promises."""

    kind = "parquet"
    capabilities = Capabilities(overwrite=True, mask=True, redact=True, plant=True, raw_scan=True)

    _hidden = "._"

    def __init__(self, root: Path, url: str, collections: tuple[Collection, ...], meter: Meter) -> None:
        super().__init__(root, url, collections, meter)
        self._schemas: dict[Unit, pa.Schema] = {}
        self._summaries: set[Path] = set()
        self._guard = threading.Lock()

    def check(self, *, for_writing: bool) -> None:
        """Open every footer once: format, columns, types, links, permissions, and whether we could write it back."""
        self._folder.refuse_strays()
        for collection, unit in self._folder.claimed():
            self._folder.refuse(unit.name, for_writing=for_writing)
            self.meter.open(self.name, unit.name)
            with _reading(unit.name), opened(self.root / unit.name) as file:
                differs = rewritable(file, self.root / unit.name) if for_writing else ""
                schema = self._learn(collection, unit, file)
            if differs:
                raise unusable(unit.name, "columns that our writer can write back as they are", differs, "exclude it")
            _compare(collection, unit.name, schema)

    def fields(self, collection: Collection) -> pa.Schema:
        """The schema of the first unit, path columns included; reads a footer at most, no row, so it is not metered."""
        for unit in self.units(collection):
            return self._schema(collection, unit)
        return pa.schema([])

    def clear(self, collection: Collection, names: Sequence[str]) -> tuple[str, ...]:
        """The units whose footer has one of these columns in another type than envelopes have."""
        found = []
        for unit in self.units(collection):
            schema = self._schema(collection, unit)
            if any(n in schema.names and not _under_keys(schema.field(n)) for n in names):
                found.append(unit.name)
        return tuple(found)

    def scan(
        self, wanted: Mapping[str, Sequence[str]], units: Sequence[str] | None = None
    ) -> Iterator[tuple[str, Rows]]:
        """Yield (address, rows) by row group with only the wanted fields; memory is bounded by a row group."""
        chosen = None if units is None else frozenset(units)
        for collection, unit in self._folder.claimed():
            names = wanted.get(collection.address)
            if names is None or (chosen is not None and unit.name not in chosen):
                continue
            yield from (
                (collection.address, rows) for rows in self._read(collection, unit, list(dict.fromkeys(names)), None)
            )

    def take(self, wanted: Mapping[str, Mapping[str, Positions]]) -> Iterator[tuple[str, Rows]]:
        """Yield all stored fields of the rows asked for; row groups without any are not read."""
        for collection, unit in self._folder.claimed():
            positions = wanted.get(collection.address, {}).get(unit.name)
            if positions is not None and len(positions):
                yield from ((collection.address, rows) for rows in self._read(collection, unit, None, positions))

    def _plant(self, collection: Collection, row: Mapping[str, Any], model: Unit) -> None:
        path = self._folder.newcomer(collection, row)
        if path is None:
            raise StoreUnavailable(
                f"{collection.address}: glob {collection.store.glob!r} leaves no room for another unit",
                hint="use a wildcard in the file name",
            )
        pattern = self.root / model.name
        with _reading(model.name), opened(pattern) as file:
            schema = plain_schema(file.schema_arrow)
            columns = [_planted(row.get(f.name), f) for f in schema]
            how = manner(file, pattern)
        table = pa.Table.from_arrays(columns, schema=schema)
        path.parent.mkdir(parents=True, exist_ok=True)
        new = self.pending.scratch(path, batch=PLANTING)
        with _reading(model.name):
            write(new, schema, how, iter([table]), before=1)
            new.chmod(pattern.stat().st_mode & 0o777)
            publish(new, path)

    def rewrite(self, fields: Mapping[str, Sequence[str]], turn: Turn, *, batch: str) -> Iterator[Erasure]:
        """Replace whole columns by what `turn` makes of them; units where they are protected already are left alone."""
        yield from self._exchange(fields, turn, batch, under_keys=False)

    def covered(self, collection: Collection, names: Sequence[str]) -> tuple[str, ...]:
        """The units whose footer has one of these columns in the type of envelopes."""
        found = []
        for unit in self.units(collection):
            schema = self._schema(collection, unit)
            if any(n in schema.names and _under_keys(schema.field(n)) for n in names):
                found.append(unit.name)
        return tuple(found)

    def uncover(self, fields: Mapping[str, Sequence[str]], turn: Turn, *, batch: str) -> Iterator[Erasure]:
        """Replace columns of envelopes by what `turn` makes of them, as `rewrite` does with those in clear."""
        yield from self._exchange(fields, turn, batch, under_keys=True)

    def _exchange(
        self, fields: Mapping[str, Sequence[str]], turn: Turn, batch: str, *, under_keys: bool
    ) -> Iterator[Erasure]:
        claimed = [(c, u) for c, u in self._folder.claimed() if fields.get(c.address)]
        work: list[tuple[Collection, Unit, list[str]]] = []
        for collection, unit in claimed:
            schema = self._schema(collection, unit)
            _missing(collection, unit.name, fields[collection.address], schema)
            stored = [n for n in fields[collection.address] if _under_keys(schema.field(n)) is under_keys]
            done = [n for n in stored if n in hive(unit.name, collection.store.partition)]
            if done:
                raise unusable(
                    unit.name, "columns in the file", f"field {done[0]!r} in the path", "take it out of the path"
                )
            if stored:
                self._folder.refuse(unit.name, for_writing=True)
            work.append((collection, unit, stored))
        for collection, unit, stored in work:
            if not stored:
                yield from self._folder.settled(unit.name, batch=batch)
                continue
            yield self._rewrite(collection, unit, stored, turn, batch)

    # ------------------------------------------------------------ one unit

    def _read(
        self, collection: Collection, unit: Unit, names: list[str] | None, positions: Positions | None
    ) -> Iterator[Rows]:
        self._folder.refuse(unit.name, for_writing=False)
        self.meter.open(self.name, unit.name)
        with _reading(unit.name), opened(self.root / unit.name, extensions=False) as file:
            schema = self._learn(collection, unit, file)
            names = schema.names if names is None else names
            _missing(collection, unit.name, names, schema)
            inside = file.schema_arrow.names
            stored = plain_schema(pa.schema([file.schema_arrow.field(n) for n in names if n in inside]))
            start = 0
            for i in range(file.metadata.num_row_groups):
                rows = file.metadata.row_group(i).num_rows
                here = np.arange(start, start + rows, dtype=np.int64)
                if positions is not None:
                    here = positions[(positions >= start) & (positions < start + rows)]
                if len(here):
                    table = file.read_row_group(i, columns=stored.names).select(stored.names)
                    if positions is not None:
                        table = table.take(pa.array(here - start))
                    yield from _slices(unit.name, here, plain_table(table, stored), names, schema, collection)
                start += rows

    def _erase(self, order: Order, batch: str) -> Erasure:
        collection, unit = order.changes[0].collection, order.unit.name
        drop = together([c.drop for c in order.changes])
        edits = Edits(
            drop=drop,
            blank={n: [c.blank[n] for c in order.changes if n in c.blank] for c in order.changes for n in c.blank},
            redact={n: [c.redact[n] for c in order.changes if n in c.redact] for c in order.changes for n in c.redact},
        )

        def build(new: Path) -> Built:
            with _reading(unit):
                return edit(self.root / unit, new, unit, edits)

        self.meter.open(self.name, unit)
        return self._folder.exchange(unit, collection.address, build, batch=batch, also=self._summary(unit))

    def _rewrite(self, collection: Collection, unit: Unit, stored: list[str], turn: Turn, batch: str) -> Erasure:
        paths = hive(unit.name, collection.store.partition)

        def turned(rows: pa.RecordBatch) -> pa.RecordBatch:
            for name, value in paths.items():
                if name not in rows.schema.names:
                    rows = rows.append_column(name, pa.array([value] * rows.num_rows, pa.string()))
            return turn(collection, rows).select(stored)

        def build(new: Path) -> Built:
            with _reading(unit.name):
                return exchange_columns(self.root / unit.name, new, unit.name, turned)

        self.meter.open(self.name, unit.name)
        return self._folder.exchange(unit.name, collection.address, build, batch=batch, also=self._summary(unit.name))

    def _summary(self, unit: str) -> list[Path]:
        """`_metadata` files above a unit repeat its statistics and are optional: the first order takes them."""
        with self._guard:
            found = [self.root / parent / "_metadata" for parent in Path(unit).parents]
            fresh = [p for p in found if p.is_file() and p not in self._summaries]
            self._summaries.update(fresh)
            return fresh

    def _possible(self, order: Order) -> None:
        """Refuse an order that this unit's columns cannot carry out, before any unit is touched."""
        for change in order.changes:
            schema = self._schema(change.collection, order.unit)
            paths = hive(order.unit.name, change.collection.store.partition)
            _missing(change.collection, order.unit.name, [*change.blank, *change.redact], schema)
            for name in (*change.blank, *change.redact):
                column, where = schema.field(name), f"field {name!r}"
                if name in paths and name not in self._stored(order.unit.name):
                    raise unusable(order.unit.name, f"{where} in the file", "it in the path", "move the unit")
                if name in change.redact and not _is_text(column.type):
                    raise unusable(order.unit.name, f"{where} to be text", str(column.type), "blank it instead")
                if name in change.blank:
                    try:
                        filler(change.blank[name].filler, column)
                    except (pa.ArrowException, ValueError, TypeError):
                        raise unusable(
                            order.unit.name, f"a mask that is a {column.type} for {where}", "another", "mend `mask`"
                        ) from None

    def _stored(self, unit: str) -> list[str]:
        with _reading(unit), opened(self.root / unit, extensions=False) as file:
            return list(file.schema_arrow.names)

    def _schema(self, collection: Collection, unit: Unit) -> pa.Schema:
        known = self._schemas.get(unit)
        if known is None:
            self._folder.refuse(unit.name, for_writing=False)
            with _reading(unit.name), opened(self.root / unit.name, extensions=False) as file:
                known = self._learn(collection, unit, file)
        return known

    def _learn(self, collection: Collection, unit: Unit, file: pq.ParquetFile) -> pa.Schema:
        schema = pa.schema([_bare(f) for f in plain_schema(file.schema_arrow)])
        if len(set(schema.names)) != len(schema.names):
            raise unusable(unit.name, "columns with different names", "a name twice", "rename one of them")
        for name in hive(unit.name, collection.store.partition):
            if name not in schema.names:
                schema = schema.append(pa.field(name, pa.string()))
        self._schemas[unit] = schema
        return schema


@contextmanager
def _reading(unit: str) -> Iterator[None]:
    """Turn what pyarrow or the system says about a file into our error; their words may quote values."""
    try:
        yield
    except FangxinError:
        raise
    except (pa.ArrowException, OSError, ValueError, NotImplementedError, UnicodeDecodeError) as error:
        encrypted = "encrypt" in str(error).lower() or "PARE" in str(error)
        raise unusable(
            unit,
            "a whole Parquet file (PAR1 at both ends, a footer that fits)",
            "an encrypted one" if encrypted else f"something unreadable ({type(error).__name__})",
            "destroy its key instead" if encrypted else "restore it from its source, or take it out of the folder",
        ) from None


def _slices(
    unit: str, here: Positions, table: pa.Table, names: Sequence[str], schema: pa.Schema, collection: Collection
) -> Iterator[Rows]:
    """A row group as batches, with path columns added and columns in the order asked for."""
    paths = hive(unit, collection.store.partition)
    wanted = pa.schema([schema.field(n) for n in names])
    if not wanted.names:
        yield Rows(unit, here, pa.RecordBatch.from_arrays([], schema=wanted))
        return
    if not table.column_names:
        batches = [pa.RecordBatch.from_arrays([pa.nulls(len(here))], names=[""])]
    else:
        batches = [one_batch(table)] if table.nbytes < 1 << 30 else table.to_batches()
    at = 0
    for batch in batches:
        columns = [
            batch.column(n) if n in table.column_names else pa.repeat(pa.scalar(paths[n], pa.string()), batch.num_rows)
            for n in names
        ]
        yield Rows(unit, here[at : at + batch.num_rows], pa.RecordBatch.from_arrays(columns, schema=wanted))
        at += batch.num_rows


def _bare(column: pa.Field) -> pa.Field:
    """A field with our mark only: field ids and names of extensions are the file's own business."""
    return pa.field(
        column.name,
        column.type.storage_type if isinstance(column.type, pa.BaseExtensionType) else column.type,
        column.nullable,
        {b"fangxin.protected": b"1"} if _protected(column) else None,
    )


def _protected(column: pa.Field) -> bool:
    return bool(column.metadata and b"fangxin.protected" in column.metadata)


def _under_keys(column: pa.Field) -> bool:
    return _protected(column) or bool(pa.types.is_large_binary(column.type))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _missing(collection: Collection, unit: str, names: Sequence[str], schema: pa.Schema) -> None:
    for name in names:
        if name not in schema.names:
            raise lacking_column(unit, collection.address, name)


def _compare(collection: Collection, unit: str, schema: pa.Schema) -> None:
    """Compare a unit's columns with the catalog's fields."""
    _missing(collection, unit, [f.name for f in collection.fields], schema)
    for one in collection.fields:
        kind = schema.field(one.name).type
        fits = _EXPECTED.get(one.data_type or "")
        if _protected(schema.field(one.name)):
            continue
        if fits is not None and not fits(kind):
            raise unusable(unit, f"column {one.name!r} to be {one.data_type}", str(kind), "mend `data_type`")
        if pa.types.is_nested(kind) and _searched(one):
            raise unusable(
                unit, f"identities in flat columns, {one.name!r} too", str(kind), "store it in a column of its own"
            )


def _searched(one: Field) -> bool:
    return bool(one.identity or one.matches or one.emits or any(_searched(s) for s in one.sub))


def _planted(value: Any, column: pa.Field) -> pa.Array:  # Any: one value of a row, as Python has it
    kind = column.type.storage_type if isinstance(column.type, pa.BaseExtensionType) else column.type
    if value is None:
        made = filler(None, column)
    else:
        try:
            made = pa.scalar(value, kind)
        except (pa.ArrowException, TypeError, ValueError):
            made = pa.scalar(str(value)).cast(kind)
    array = pa.array([made.as_py()], kind)
    return pa.ExtensionArray.from_storage(column.type, array) if kind != column.type else array

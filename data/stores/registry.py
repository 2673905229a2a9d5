"""Which kind of store serves which collections of a catalog: one row here makes a kind known.

Collections that share kind and url share one store, so that a unit is opened once for all of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import cast

from fangxin.data.errors import CatalogError
from fangxin.data.vocabulary import Catalog, Collection, Meter, Store

KINDS = {  # imported when a catalog names them: a store brings heavy libraries along
    "parquet": ("fangxin.data.stores.parquet", "ParquetStore"),
    "duckdb": ("fangxin.data.stores.duckdb", "DuckdbStore"),
    "sqlite": ("fangxin.data.stores.sqlite", "SqliteStore"),
    "text": ("fangxin.data.stores.text", "TextStore"),
}


def open_stores(catalog: Catalog, meter: Meter) -> tuple[Store, ...]:
    """Open every store the catalog names, in the order in which it names them; touches no unit.

    Raises CatalogError with every collection of an unknown kind.
    """
    groups: dict[tuple[str, str], list[Collection]] = {}
    for collection in catalog.collections:
        groups.setdefault((collection.store.kind, collection.store.url), []).append(collection)
    unknown = [
        f"{c.where}: store.kind {kind!r} of {c.address}; expected one of {', '.join(sorted(KINDS))}; found another; "
        "correct it, or install a version that knows it"
        for (kind, _), collections in groups.items()
        if kind not in KINDS
        for c in collections
    ]
    if unknown:
        raise CatalogError(unknown)
    stores: list[Store] = []
    for (kind, url), collections in groups.items():
        module, name = KINDS[kind]
        made = getattr(import_module(module), name)(catalog.root, url, tuple(collections), meter)
        stores.append(cast(Store, made))
    return tuple(stores)

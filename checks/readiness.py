"""Readiness: what must hold before anything is touched; the first thing that does not is an error that says what to do.

* The catalog has no lint error, and every collection can be erased: reviewed, with a mode, led to by an
  identity.
* Every store can be opened and written, and holds what the catalog says; no collection is without a unit.
* What is to die with its key lies under a key already.
* Where the operator requires overwriting, every unit lies on a medium that allows it.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from fangxin.data.catalog.lint import leaving, lint, reachable
from fangxin.data.catalog.tree import Severity
from fangxin.data.errors import CatalogError, NotAllowed, NotAsCatalogued, StoreUnavailable
from fangxin.data.vocabulary import Catalog, Collection, Mode, Store


def check(catalog: Catalog, sources: Sequence[Path], stores: Sequence[Store], *, require: str | None) -> None:
    """Raise CatalogError, NotAllowed or StoreUnavailable; changes nothing."""
    wrong = [str(p) for p in lint(sources) if p.severity is Severity.ERROR]
    if wrong:
        raise CatalogError(wrong)
    for dataset in catalog.datasets:
        for collection in dataset.collections:
            _erasable(collection, ours=dataset.ours)
    _led_to(catalog, stores)
    for store in stores:
        store.check(for_writing=True)
    for store in stores:
        for collection in store.collections:
            _there(store, collection)
    for store in stores:
        for collection in store.collections:
            _under_keys(store, collection)
    if require == "overwrite":
        overwritable(stores)


def readable(catalog: Catalog, stores: Sequence[Store]) -> None:
    """Raise CatalogError or StoreUnavailable unless every store can be read and has what the catalog names."""
    wrong = [f"{where}: {text}" for where, _severity, text in leaving(catalog)]
    if wrong:
        raise CatalogError(wrong)
    for store in stores:
        store.check(for_writing=False)


def _led_to(catalog: Catalog, stores: Sequence[Store]) -> None:
    """Refuse a collection into which nothing leads: no canary could be found again in it."""
    reached = reachable(catalog)
    for collection in (c for store in stores if store.capabilities.plant for c in store.collections):
        texts = any(f.data_type == "text" for f in collection.fields)
        if collection.mode is not Mode.KEEP and collection.address not in reached and not texts:
            raise NotAllowed(
                f"{collection.where or collection.address}: {collection.address} cannot be erased: no identity leads"
                " to its rows",
                hint="give a field of it an identity or a reference; where it holds nobody, leave it out",
            )


def _erasable(collection: Collection, *, ours: bool) -> None:
    lacking = (
        "it has no erasure block"
        if not ours
        else "it is not reviewed"
        if not collection.reviewed
        else "it has no mode"
        if collection.mode is None
        else ""
    )
    if lacking:
        raise NotAllowed(
            f"{collection.where or collection.address}: {collection.address} cannot be erased: {lacking}",
            hint="finish the catalog: `fangxin catalog lint` says what is missing",
        )


def _there(store: Store, collection: Collection) -> None:
    """Where there is no unit no canary can be planted, so nobody could tell "nothing there" from "not looked"."""
    if collection.mode is not Mode.KEEP and not store.units(collection):
        away = StoreUnavailable if _is_away(store) else NotAsCatalogued
        raise away(
            f"{collection.where or collection.address}: {collection.address}: expected at least one unit below "
            f"{store.name} that store.glob {collection.store.glob!r} names, found none",
            hint="correct url or glob, or leave the collection out while it has no file",
        )


def _is_away(store: Store) -> bool:
    """Whether a store's folder is empty or not there, as when its device is away: then the catalog may be right."""
    return not store.root.is_dir() or next(store.root.iterdir(), None) is None


def _under_keys(store: Store, collection: Collection) -> None:
    for one in collection.fields:
        if one.mode is Mode.CRYPTO_ERASE and (clear := store.clear(collection, (one.name,))):
            raise NotAllowed(
                f"{one.where or collection.address}: {collection.address}.{one.name} is to be erased by its key, but "
                f"stands in clear in {len(clear)} units; first: {clear[0]}",
                hint="run `fangxin protect` first",
            )


def overwritable(stores: Sequence[Store], only: Mapping[str, Container[str]] | None = None) -> None:
    """Raise NotAllowed if a unit lies on a medium that refuses overwriting; `only` names the units, per store."""
    refused = [
        f"{s.name}: {unit}: {why}"
        for s in stores
        if only is None or s.name in only
        for unit, why in sorted(s.examine().items())
        if why and (only is None or unit in only[s.name])
    ]
    if refused:
        raise NotAllowed(
            f"--require overwrite: {len(refused)} units cannot be overwritten where they lie; first: {refused[0]}",
            hint="move the store to an ext4 or xfs file system of its own, or run without --require",
        )

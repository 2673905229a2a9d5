"""Export: a person's rows as Parquet, one folder a request, with the hash of every file.

Rows are taken from the stores once per unit for the whole cohort, opened where they lie under keys, and split by
person. Memory holds the rows of the cohort, not the stores. An export is a new copy: it lies only where the
operator said, and the certificate names its manifest's hash.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from fangxin.data.errors import InputError
from fangxin.data.keys.columns import open_rows
from fangxin.data.requests import Request
from fangxin.data.vocabulary import Mode
from fangxin.flows.batch import finish, is_done, opened, read_plan
from fangxin.flows.estate import Estate
from fangxin.flows.evidence import EXPORTED, mark, record
from fangxin.flows.frames import each

if TYPE_CHECKING:
    import pandas as pd


def export(batch_id: str) -> None:
    """Hand over the located rows where the operator named a folder, and check that they are what was located."""
    estate, batch = opened(batch_id)
    if is_done(estate, batch, "export"):
        return
    told: dict[str, Any] = {}
    if batch.options.get("export"):
        from fangxin.checks.suites.exported import judge_export

        estate.meter.step = "export"
        expires = estate.now.date() + timedelta(days=estate.settings.export_days)  # flows/exports.py
        to = Path(batch.options["export"])
        requests = [r for r in estate.requests.requests(batch.id) if not r.canary]
        table = hand_over(estate, read_plan(estate, batch, "people").fates, requests, to)
        answer = judge_export(
            by_person(estate, table, requests),
            collections=len(requests) * len(estate.catalog.collections),
            tmp=estate.settings.tmp,
        )
        answer.require("the export")
        hashes = seal_folders(to, requests, {r.id: r.receipt for r in requests})
        record(estate, [{"type": "exported", "tag": mark(r, EXPORTED), "manifest": hashes[r.id]} for r in requests])
        for one in requests:
            mine = table[table["request"] == one.id]
            told[one.id] = {
                "manifest": hashes[one.id],
                "rows": int(mine["rows_exported"].sum()),
                "files": int(mine["files"].sum()),
                "expires": expires.isoformat(),
            }
    finish(estate, batch, "export", exported=told)


def check_folder(to: Path, *, home: Path, roots: Sequence[Path]) -> None:
    """The export folder must be new or empty, and lie where nothing is searched: an export is meant to remain.

    InputError for a folder with something in it, inside the home, or inside or above the root of a store, where
    validation would find the people again.
    """
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise InputError(f"{to}: expected a new or empty folder for the export, found something in it")
    hint = "name a folder elsewhere: validation searches there, and would find these people in their own export"
    place = to.resolve()
    if place.is_relative_to(home.resolve()) or home.resolve().is_relative_to(place):
        raise InputError(f"{to}: expected a folder outside the home for the export", hint=hint)
    for root in (one.resolve() for one in roots):
        if place.is_relative_to(root) or root.is_relative_to(place):
            raise InputError(f"{to}: expected a folder outside every store for the export", hint=hint)


def hand_over(estate: Estate, fates: pd.DataFrame, requests: Sequence[Request], to: Path) -> pd.DataFrame:
    """Write every owned row of every request; return (request, collection, rows_located, rows_exported, files)."""
    import pandas as pd
    import pyarrow.parquet as pq

    owned = fates[fates["edge"].isin(["owns", "joint"])]
    people = {r.number: r for r in requests if not r.canary}
    owned = owned[owned["subject"].isin(people)]
    folders = {n: to / r.id for n, r in people.items()}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    counts: dict[tuple[int, str], int] = {}
    for store in estate.stores:
        mine = owned[owned["collection"].isin([c.address for c in store.collections])]
        wanted = {
            address: {u: np.unique(p["position"].to_numpy(np.int64)) for u, p in each(rows, "unit")}
            for address, rows in each(mine, "collection")
        }
        gathered: dict[tuple[int, str], list[pa.RecordBatch]] = {}
        for address, rows in store.take(wanted):
            batch = _opened(estate, address, rows.columns)
            whose = mine[(mine["collection"] == address) & (mine["unit"] == rows.unit)]
            for number, part in each(whose, "subject"):
                at = np.flatnonzero(np.isin(rows.positions, part["position"].to_numpy(np.int64)))
                if len(at):
                    gathered.setdefault((number, address), []).append(batch.take(pa.array(at)))
        for (number, address), batches in sorted(gathered.items(), key=lambda one: one[0]):
            table = _joined(batches)
            pq.write_table(table, folders[number] / f"{address.replace('/', '.')}.parquet", compression="zstd")
            counts[(number, address)] = table.num_rows
    located = owned.drop_duplicates(["subject", "collection", "unit", "position"])
    rows_out = [
        {
            "request": people[n].id,
            "collection": address,
            "rows_located": len(part),
            "rows_exported": counts.get((n, address), 0),
            "files": int((n, address) in counts),
        }
        for n, address, part in each(located, "subject", "collection")
    ]
    return pd.DataFrame(rows_out, columns=["request", "collection", "rows_located", "rows_exported", "files"])


def _joined(batches: Sequence[pa.RecordBatch]) -> pa.Table:
    """One table of units whose columns may differ: all columns, each in a type that holds every value, else as text."""
    tables = [pa.Table.from_batches([one]) for one in batches]
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException:  # unlike types, or a number that the wider one would not hold
        types: dict[str, set[pa.DataType]] = {}
        for one in (column for table in tables for column in table.schema):
            types.setdefault(one.name, set()).add(one.type)
        unlike = frozenset(name for name, seen in types.items() if len(seen) > 1)
        return pa.concat_tables([_told_in_text(one, unlike) for one in tables], promote_options="default")


def _told_in_text(table: pa.Table, names: frozenset[str]) -> pa.Table:
    for at, name in enumerate(table.column_names):
        if name in names:
            column = table.column(at)
            try:
                column = column.cast(pa.string())
            except pa.ArrowException:  # a nested column, or bytes that are no text
                column = pa.array([None if one is None else str(one) for one in column.to_pylist()], pa.string())
            table = table.set_column(at, name, column)
    return table


def by_person(estate: Estate, table: pd.DataFrame, requests: Sequence[Request]) -> pd.DataFrame:
    """The figures per request and collection of the catalog, zero where that person has no rows: what the suite judges.

    Never sums over people: one's missing row must not be made up for by a row too many of somebody else. In the
    suite's `collection` stands request/collection.
    """
    import pandas as pd

    columns = ["rows_located", "rows_exported", "files"]
    pairs = [(r.id, c.address) for r in requests if not r.canary for c in estate.catalog.collections]
    every = pd.DataFrame(pairs, columns=["request", "collection"])
    joined = every.merge(table, on=["request", "collection"], how="outer")  # outer: what nobody expected is judged too
    joined = joined.fillna(dict.fromkeys(columns, 0)).astype(dict.fromkeys(columns, "int64"))
    return joined.assign(collection=joined["request"] + "/" + joined["collection"])[["collection", *columns]]


def seal_folders(to: Path, requests: Sequence[Request], receipts: Mapping[str, str]) -> dict[str, str]:
    """Write manifest, readable index and receipt slip into every request's folder; return manifest hashes."""
    import hashlib

    from fangxin.reports.export import manifest, write_index

    found = {}
    for one in requests:
        if one.canary:
            continue
        folder = to / one.id
        listing = manifest(folder)
        body = json.dumps(listing, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        (folder / "manifest.json").write_bytes(body)
        write_index(folder, listing)
        if one.id in receipts:
            # The slip is what `verify --secret` reads: with it, and only with it, entries can be tied to the person.
            lines = [one.secret.hex(), *(f"{i.kind}={i.value}" for i in one.identities)]
            (folder / "receipt-slip.txt").write_text("\n".join(lines) + "\n", "utf-8")
            (folder / "receipt-code.txt").write_text(f"{receipts[one.id]}\n", "utf-8")
        found[one.id] = hashlib.sha256(body).hexdigest()
    return found


def _opened(estate: Estate, address: str, batch: pa.RecordBatch) -> pa.RecordBatch:
    """The rows with protected values in clear: what the person gets."""
    collection = estate.catalog.collection(address)
    for one in collection.fields:
        at = batch.schema.get_field_index(one.name)
        if at >= 0 and one.mode is Mode.CRYPTO_ERASE and pa.types.is_large_binary(batch.schema.field(at).type):
            values = open_rows(
                estate.tree, estate.catalog, collection, one.name, batch, scalar=not estate.settings.lanes
            )
            batch = batch.set_column(at, one.name, values)
    for at, column in enumerate(batch.schema):
        if pa.types.is_dictionary(column.type):
            batch = batch.set_column(at, column.name, batch.column(at).dictionary_decode())
    return batch

"""Ways in which an erasure could go wrong unseen, done by hand to stores that were erased well.

Each takes the stores and the leavers, and is listed with what must notice it: rows, bytes, or both.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from journeys.scale_compare import Leaver

_FREE = bytes(256)  # so many zeros together are no rows


def change_a_memo(stores: Path, people: Sequence[Leaver]) -> None:
    """One character of one neighbour's memo is another."""
    path, table = _last_trades(stores)
    memos = table["memo"].to_pylist()
    row = next(n for n, memo in enumerate(memos) if memo and "***" not in memo)
    memos[row] = memos[row][:-1] + "x"
    _rewrite(path, table, "memo", pa.array(memos, table.schema.field("memo").type))


def drop_a_kept_row(stores: Path, people: Sequence[Leaver]) -> None:
    """A row that the law keeps is gone."""
    path, table = _last_trades(stores)
    accounts = {a for one in people for a in one.accounts}
    row = next(n for n, account in enumerate(table["account_id"].to_pylist()) if account in accounts)
    pq.write_table(pa.concat_tables([table[:row], table[row + 1 :]]), path, compression="zstd")


def unmask_a_contact(stores: Path, people: Sequence[Leaver]) -> None:
    """A masked phone in a neighbour's address book is a leaver's again."""
    with closing(sqlite3.connect(stores / "wallet.db")) as wallet, wallet:
        first = "(SELECT min(contact_id) FROM contacts WHERE contact_phone = '***')"
        wallet.execute(
            f"UPDATE contacts SET contact_phone = ? WHERE contact_id = {first}", people[0].values["phone"][:1]
        )


def write_into_free_bytes(stores: Path, people: Sequence[Leaver]) -> None:
    """A leaver's resident id lies between the rows of an SQLite page, where no query finds it."""
    with (stores / "wallet.db").open("r+b") as wallet:
        wallet.seek(wallet.read().index(_FREE) + len(_FREE) // 2)
        wallet.write(people[-1].values["resident id"][0].encode())


def leave_a_dictionary_entry(stores: Path, people: Sequence[Leaver]) -> None:
    """A leaver's device stands in a Parquet dictionary, and no row refers to it."""
    path = max((stores / "lake" / "app_events").rglob("*.parquet"))
    table = pq.ParquetFile(path).read()
    column = table["device_id"].combine_chunks().dictionary_encode()
    entries = pa.concat_arrays([column.dictionary, pa.array(people[-1].values["device"][:1], column.dictionary.type)])
    _rewrite(path, table, "device_id", pa.DictionaryArray.from_arrays(column.indices, entries))


def leave_an_account_id(stores: Path, people: Sequence[Leaver]) -> None:
    """A leaver's account id stands as a number in a row of somebody else."""
    path, table = _last_trades(stores)
    amounts = table["amount_minor"].combine_chunks()
    first = pa.array([people[-1].accounts[0]], amounts.type)
    _rewrite(path, table, "amount_minor", pa.concat_arrays([first, amounts[1:]]))


SABOTAGES: dict[Callable[[Path, Sequence[Leaver]], None], set[str]] = {
    change_a_memo: {"rows"},
    drop_a_kept_row: {"rows", "bytes"},
    unmask_a_contact: {"rows", "bytes"},
    write_into_free_bytes: {"bytes"},
    leave_a_dictionary_entry: {"bytes"},
    leave_an_account_id: {"rows", "bytes"},
}


def _last_trades(stores: Path) -> tuple[Path, pa.Table]:
    path = max((stores / "lake" / "transactions").rglob("*.parquet"))
    return path, pq.ParquetFile(path).read()


def _rewrite(path: Path, table: pa.Table, name: str, column: pa.Array) -> None:
    pq.write_table(table.set_column(table.column_names.index(name), name, column), path, compression="zstd")

"""LeCard, a made-up prepaid card company: its stores, its catalog, and a list of the people who leave.

    to/stores/wallet.db                                       accounts, cards, contacts, coupons, devices (SQLite)
    to/stores/club.duckdb                                     memberships, wallets (DuckDB)
    to/stores/lake/transactions/month=.../part-0.parquet      trades of three years, zstd
    to/stores/lake/app_events/month=.../part-*.parquet        what people did in the app, zstd
    to/stores/support/chats-YYYY-MM.jsonl.gz or .zst          free text, some lines escaped, some raw UTF-8
    to/stores/exports/members.csv, ads/audience.csv           copies that somebody once made
    to/catalog/lecard.yml  to/leavers.csv  to/cast.json       what is held, who leaves, who is who

The same seed gives the same bytes in every file (with the same versions of pyarrow and SQLite), but for the database of
DuckDB, which gives itself a random name: there the same rows in the same order. `cast.json` holds
the true number of rows of every leaver, counted by the generator while it made them.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fangxin.data.errors import InputError
from fangxin.data.sample import estate
from fangxin.data.sample.people import Ints, People, make_people

FEWEST = 40  # people; with fewer the cast would be a crowd
_LARGE_GROUP, _SMALL_GROUP = 1 << 20, 8_192  # rows per row group
_ESCAPED_EVERY = 3  # every third chat line is written with \uXXXX escapes

_WALLET = {
    "addresses": "address_id INTEGER PRIMARY KEY, street TEXT, city TEXT",
    "accounts": "account_id INTEGER PRIMARY KEY, phone TEXT NOT NULL, email TEXT, name TEXT, city TEXT,"
    " address_id INTEGER REFERENCES addresses, merged_into INTEGER REFERENCES accounts, last_login_id INTEGER,"
    " created_at TEXT",
    "identities": "account_id INTEGER PRIMARY KEY, id_number TEXT, bank_card TEXT, bound_at TEXT",
    "contacts": "contact_id INTEGER PRIMARY KEY, account_id INTEGER, contact_name TEXT, contact_phone TEXT",
    "coupons": "coupon_id INTEGER PRIMARY KEY, account_id INTEGER, kind TEXT, face_minor INTEGER, expires_at TEXT",
    "devices": "device_id TEXT, account_id INTEGER, model TEXT, bound_at TEXT, PRIMARY KEY (device_id, account_id)",
    "logins": "login_id INTEGER PRIMARY KEY, account_id INTEGER, device_id TEXT, at TEXT",
}
_INDEXES = (
    "CREATE UNIQUE INDEX accounts_phone ON accounts (phone)",
    "CREATE INDEX contacts_account ON contacts (account_id)",
    "CREATE INDEX logins_account ON logins (account_id)",
)

_CLUB = {
    "memberships": "account_id BIGINT PRIMARY KEY, phone VARCHAR, level VARCHAR, points INTEGER, joined_on DATE",
    "wallets": "wallet_id BIGINT PRIMARY KEY, account_id BIGINT NOT NULL, balance_minor BIGINT, payout_card VARCHAR,"
    " opened_at TIMESTAMPTZ",
}


@dataclass(frozen=True)
class Sample:
    """Where everything of the estate lies, and how many rows each collection has."""

    root: Path
    stores: Path
    catalog: Path
    leavers: Path
    cast: Path
    rows: Mapping[str, int]

    @property
    def total(self) -> int:
        """Rows in all collections together."""
        return sum(self.rows.values())


def sample(to: Path, *, people: int, seed: int) -> Sample:
    """Write the whole estate under `to`, which must be empty or new; at least 40 people, about 100 rows each.

    Raises InputError if `to` holds anything already or there are too few people.
    """
    if people < FEWEST:
        raise InputError(
            f"a sample of {people} people is too small; expected at least {FEWEST}", hint="use --people 200"
        )
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise InputError(f"{to}: expected a new or empty folder, found something in it", hint="name another folder")
    stores = to / "stores"
    for folder in (stores / "lake", stores / "support", stores / "exports" / "ads", to / "catalog"):
        folder.mkdir(parents=True)

    rng = np.random.default_rng(seed)
    ties = estate.tie(rng, people)
    who = make_people(rng, len(ties.person), strangers=estate.PER_PERSON["strangers"] * people)
    tally = estate.Tally(len(who))
    _write_wallet(stores / "wallet.db", estate.wallet(rng, who, ties, tally))
    for month, table in estate.trades(rng, who, ties, tally):
        _write_parquet(stores / f"lake/transactions/month={month}/part-0.parquet", table, _SMALL_GROUP)
    for number, (month, table) in enumerate(estate.events(rng, who, ties, tally)):
        _write_events(stores / f"lake/app_events/month={month}", table, halves=number % 2 == 1)
    for number, (month, table) in enumerate(estate.chats(rng, who, ties, tally)):
        packed = "gz" if number % 2 == 0 else "zst"
        _write_chats(stores / f"support/chats-{month}.jsonl.{packed}", table)
    _write_csv(stores / "exports/members.csv", estate.members(rng, who, tally))
    _write_csv(stores / "exports/ads/audience.csv", _audience(who, estate.audience(rng, ties, tally)))
    leaving = _leaving(rng, ties)
    _write_club(stores / "club.duckdb", estate.club(rng, who, tally))

    found = Sample(to, stores, to / "catalog/lecard.yml", to / "leavers.csv", to / "cast.json", dict(tally.rows))
    shutil.copyfile(Path(__file__).with_name("lecard.yml"), found.catalog)
    _write_csv(found.leavers, _seeds(who, leaving))
    found.cast.write_text(json.dumps(_who_is_who(who, ties, tally, leaving, seed), ensure_ascii=False, indent=1) + "\n")
    return found


# ---------------------------------------------------------------- who leaves, and what is true of them


def _leaving(rng: np.random.Generator, ties: estate.Ties) -> list[int]:
    """The first account of each leaver: the cast without the housemate, then others, 5 % of the people up to 100."""
    cast = [accounts[0] for role, accounts in ties.cast.items() if role != "housemate"]
    others = [int(i) for i in rng.permutation(ties.people) if i not in set(ties.players.tolist())]
    return cast + others[: max(0, min(100, ties.people // 20) - len(cast))]


def _seeds(who: People, leaving: list[int]) -> pa.Table:
    """What a leaver is known by: phone and e-mail of the first account, never those of a second one."""
    index = pa.array(leaving)
    return pa.table({"phone_number": who.phone.take(index), "email": who.email.take(index)})


def _who_is_who(
    who: People, ties: estate.Ties, tally: estate.Tally, leaving: list[int], seed: int
) -> dict[str, Any]:  # Any: JSON of several shapes
    return {
        "as_of": str(estate.AS_OF),
        "seed": seed,
        "people": ties.people,
        "rows": tally.rows,
        "cast": {role: _portrait(who, ties, tally, accounts[0], leaving) for role, accounts in ties.cast.items()},
        "leavers": [_portrait(who, ties, tally, first, leaving) for first in leaving],
    }


def _portrait(
    who: People, ties: estate.Ties, tally: estate.Tally, first: int, leaving: list[int]
) -> dict[str, Any]:  # Any: JSON of several shapes
    """What is true of one person when all leavers go together: an address that nobody else needs is owned."""
    accounts = np.flatnonzero(ties.person == first)
    accounts = np.concatenate([[first], accounts[accounts != first]])  # the one with the seed first
    homes = np.unique(ties.address[accounts])
    staying = ties.address[~np.isin(ties.person, [first, *leaving])]
    shared = int(np.isin(homes, staying).sum())
    counts = {
        "owns": {"wallet/addresses": len(homes) - shared, **_of(tally.owns, accounts)},
        "retained": _of(tally.retained, accounts),
        "shares": {"wallet/addresses": shared},
        "mentions": _of(tally.mentions, accounts),
    }
    return {
        "phone_number": who.phone[first].as_py(),
        "email": who.email[first].as_py(),
        "name": who.name[first].as_py(),
        "accounts": [int(who.account_id[a]) for a in accounts],
        "phones": [who.phone[int(a)].as_py() for a in accounts],
        "address_ids": [estate.address_id(int(h)) for h in homes],
        **counts,
    }


def _of(counted: Mapping[str, Ints], accounts: Ints) -> dict[str, int]:
    return {collection: int(rows[accounts].sum()) for collection, rows in counted.items()}


# ---------------------------------------------------------------- writing the stores


def _write_wallet(path: Path, tables: Mapping[str, pa.Table]) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as wallet:
        wallet.execute("PRAGMA journal_mode=OFF")
        wallet.execute("PRAGMA synchronous=OFF")
        wallet.execute("BEGIN")
        for name, columns in _WALLET.items():
            table = tables[name]
            wallet.execute(f"CREATE TABLE {name} ({columns})")
            insert = f"INSERT INTO {name} VALUES ({','.join('?' * table.num_columns)})"  # noqa: S608  # names are ours
            wallet.executemany(insert, zip(*(column.to_pylist() for column in table.columns), strict=True))
        for index in _INDEXES:
            wallet.execute(index)
        wallet.execute("COMMIT")


def _write_club(path: Path, tables: Mapping[str, pa.Table]) -> None:
    import duckdb

    with duckdb.connect(path) as club:
        for name, columns in _CLUB.items():
            club.execute(f"CREATE TABLE {name} ({columns})")
            club.register("made", tables[name])
            club.execute(f"INSERT INTO {name} FROM made")  # noqa: S608  # names are ours
            club.unregister("made")
        club.execute("CREATE INDEX wallets_account ON wallets (account_id)")


def _write_parquet(path: Path, table: pa.Table, row_group: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd", row_group_size=row_group)


def _write_events(folder: Path, table: pa.Table, *, halves: bool) -> None:
    """One file with one large row group, or two files with many small ones."""
    if not halves:
        _write_parquet(folder / "part-0.parquet", table, _LARGE_GROUP)
        return
    middle = table.num_rows // 2
    for number, half in enumerate((table.slice(0, middle), table.slice(middle))):
        _write_parquet(folder / f"part-{number}.parquet", half.unify_dictionaries(), _SMALL_GROUP)


def _write_chats(path: Path, table: pa.Table) -> None:
    import zstandard

    lines = [
        json.dumps(line, ensure_ascii=number % _ESCAPED_EVERY == 0).encode() + b"\n"
        for number, line in enumerate(table.to_pylist())
    ]
    gzipped = path.suffix == ".gz"
    pack = partial(gzip.compress, compresslevel=6, mtime=0) if gzipped else zstandard.ZstdCompressor().compress
    path.write_bytes(pack(b"".join(lines)))


def _write_csv(path: Path, table: pa.Table) -> None:
    """Plain CSV without quotes: no value of ours holds a comma, a quote or a line break."""
    path.write_bytes(b"".join(_lines(table)))


def _lines(table: pa.Table) -> Iterator[bytes]:
    yield (",".join(table.column_names) + "\n").encode()
    for row in zip(*(column.to_pylist() for column in table.columns), strict=True):
        yield (",".join(map(str, row)) + "\n").encode()


def _audience(who: People, chosen: Ints) -> pa.Table:
    """Phones as advertising audiences hash them: base64 of SHA-256 over the last ten digits."""
    phones = who.phone.take(pa.array(chosen)).to_pylist()
    hashes = [base64.b64encode(hashlib.sha256(phone[-10:].encode()).digest()).decode() for phone in phones]
    return pa.table(
        {"phone_hash": hashes, "campaign": [("spring-2026", "autumn-2026")[n % 2] for n in range(len(hashes))]}
    )

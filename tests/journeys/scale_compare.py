"""What every row must be after an erasure, worked out from the rows before, and how many rows are not that.

Read with sqlite3 and DuckDB, never by our stores. Of every collection all columns of all rows count, and the file a
row lies in, as a multiset of hashes. Rows of the wallet are compared as SQL literals, so that a value's type counts
too; chats as the lines they are. A row has one of these fates:

    same       somebody else's: every column is what it was
    masked     somebody else's that mentions a leaver: exactly the leaver's value has become the mask
    retained   a leaver's that the law keeps: what the law does not ask for is blank
    erased     a leaver's: it is gone
"""

from __future__ import annotations

import base64
import hashlib
import re
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from journeys.witness import CLUB, KEPT_SINCE, WALLET

FATES = ("same", "masked", "retained", "erased")
LAKE = ("transactions", "app_events")
SAID = ("phone", "e-mail", "resident id", "bank card")  # what one person may write of another


@dataclass(frozen=True)
class Leaver:
    """All that identifies one person who leaves: accounts, and values by what they are."""

    accounts: tuple[int, ...]
    values: Mapping[str, tuple[str, ...]] = field(repr=False)


@dataclass(frozen=True)
class Rule:
    """Whose a row is, where it may mention others, and what masks and the law make of it; SQL by column."""

    key: str = "account_id::BIGINT"
    owners: str = "gone.account"  # the relation (key, person) of what leaves
    mention: str | None = None
    masks: Mapping[str, str] = field(default_factory=dict)
    kept: str = "false"
    blanks: Mapping[str, str] = field(default_factory=dict)


RULES = {
    "addresses": Rule(key="address_id::BIGINT", owners="gone.vacated"),
    "accounts": Rule(),
    "identities": Rule(),
    "contacts": Rule(mention="contact_phone", masks={"contact_phone": "'''***'''", "contact_name": "'''***'''"}),
    "coupons": Rule(),
    "devices": Rule(),
    "memberships": Rule(),
    "wallets": Rule(),
    "logins": Rule(),
    "transactions": Rule(
        mention="memo",
        masks={"memo": "masked(memo)"},
        kept=f"epoch_us(completed_at) >= {int(KEPT_SINCE.timestamp())}000000",
        blanks={"memo": "'***'", "device_id": "NULL"},
    ),
    "app_events": Rule(),
    "chats": Rule(key="(line->>'account_id')::BIGINT", mention="line", masks={"line": "masked(line)"}),
    "members": Rule(),
    "audience": Rule(key="phone_hash", owners="gone.audience"),
}


@dataclass(frozen=True)
class Judged:
    """Rows of a collection by fate, the sum of the hashes of what is there, and how many rows are otherwise."""

    fates: Counter[str]
    checksum: int
    missing: int  # rows that must be there and are not
    strange: int  # rows that are there and must not be


def load(before: Path, people: Sequence[Leaver]) -> duckdb.DuckDBPyConnection:
    """The rows before, with their fates if these people leave."""
    db = duckdb.connect(config={"threads": 2, "memory_limit": "1GB"})
    _tables(db, "was", before)
    db.execute("CREATE SCHEMA gone; CREATE SCHEMA fate")
    said = [(v, n) for n, one in enumerate(people) for what in SAID for v in one.values[what]]
    _relation(db, "gone.said", said)
    _relation(db, "gone.account", [(a, n) for n, one in enumerate(people) for a in one.accounts])
    _relation(db, "gone.audience", [(_hashed(p), n) for n, one in enumerate(people) for p in one.values["phone"]])
    db.execute(
        "CREATE TABLE gone.home AS SELECT DISTINCT address_id::BIGINT AS key, person"
        " FROM was.accounts JOIN gone.account ON account_id::BIGINT = key;"
        "CREATE TABLE gone.vacated AS FROM gone.home WHERE key NOT IN (SELECT address_id::BIGINT FROM was.accounts"
        " WHERE account_id::BIGINT NOT IN (SELECT key FROM gone.account))"
    )
    pattern = "|".join(re.escape(v) for v, _n in sorted(said))
    db.execute(f"CREATE MACRO mentioned(t) AS regexp_extract(t, '{pattern}')")
    db.execute(f"CREATE MACRO masked(t) AS regexp_replace(t, '{pattern}', '***', 'g')")
    for name, rule in RULES.items():
        gone = f"owner IN (SELECT key FROM {rule.owners})"
        mentions = f"mentioned({rule.mention}) <> ''" if rule.mention else "false"
        db.execute(
            f"CREATE VIEW fate.{name} AS SELECT *, {rule.key} AS owner,"
            f" CASE WHEN {gone} AND {rule.kept} THEN 'retained' WHEN {gone} THEN 'erased'"
            f" WHEN {mentions} THEN 'masked' ELSE 'same' END AS fate FROM was.{name}"
        )
    return db


def judge(db: duckdb.DuckDBPyConnection, after: Path) -> dict[str, Judged]:
    """Compare every collection of the stores after with what must be there."""
    _tables(db, "now", after)
    return {name: _judge(db, name, rule) for name, rule in RULES.items()}


def _judge(db: duckdb.DuckDBPyConnection, name: str, rule: Rule) -> Judged:
    was, now = (db.execute(f"DESCRIBE {schema}.{name}").fetchall() for schema in ("was", "now"))
    assert was == now, f"{name}: other columns or types than before"
    columns = [f'"{c}"' for (c, *_rest) in was]
    changed = [
        f"CASE fate WHEN 'masked' THEN {rule.masks.get(c, quoted)} WHEN 'retained' THEN {rule.blanks.get(c, quoted)}"
        f" ELSE {quoted} END"
        for (c, *_rest), quoted in zip(was, columns, strict=True)
    ]
    wanted = f"SELECT hash({', '.join(changed)}) AS h FROM fate.{name} WHERE fate <> 'erased'"
    db.execute(f"CREATE OR REPLACE TEMP TABLE wanted AS {wanted}")
    db.execute(f"CREATE OR REPLACE TEMP TABLE found AS SELECT hash({', '.join(columns)}) AS h FROM now.{name}")
    missing, strange = (
        _one(db, f"SELECT count(*) FROM (FROM {a} EXCEPT ALL FROM {b})")
        for a, b in (("wanted", "found"), ("found", "wanted"))
    )
    fates = Counter(dict(db.execute(f"SELECT fate, count(*) FROM fate.{name} GROUP BY fate").fetchall()))
    return Judged(fates, _one(db, "SELECT coalesce(sum(h), 0) FROM found"), missing, strange)


def listed(db: duckdb.DuckDBPyConnection) -> Counter[tuple[int, str, str]]:
    """What a certificate must list: {(person, collection, rows_erased | _retained | _mentioned | _shared): rows}."""
    found: Counter[tuple[int, str, str]] = Counter()
    for name, rule in RULES.items():
        questions = [
            f"SELECT person, 'rows_' || fate, count(*) FROM fate.{name} JOIN {rule.owners} ON key = owner GROUP BY ALL"
        ]
        if rule.mention:
            questions.append(
                f"SELECT said.person, 'rows_mentioned', count(*) FROM fate.{name}"
                f" JOIN gone.said ON said.key = mentioned({rule.mention}) LEFT JOIN gone.account ON account.key = owner"
                f" WHERE account.person IS DISTINCT FROM said.person GROUP BY ALL"
            )
        if rule.owners == "gone.vacated":
            questions.append(
                "SELECT person, 'rows_shared', count(*) FROM (FROM gone.home EXCEPT FROM gone.vacated) GROUP BY ALL"
            )
        for question in questions:
            found.update({(person, name, figure): rows for person, figure, rows in db.execute(question).fetchall()})
    return found


def kept_rows(db: duckdb.DuckDBPyConnection) -> Counter[tuple[str, str]]:
    """In which files which accounts have rows that the law keeps: {(place, account): rows}."""
    question = "SELECT place, owner::VARCHAR, count(*) FROM fate.transactions WHERE fate = 'retained' GROUP BY ALL"
    return Counter({(place, account): rows for place, account, rows in db.execute(question).fetchall()})


def outside(before: Path, after: Path) -> list[str]:
    """What changed beside rows: files that came or went, tables or indexes of the wallet, its integrity."""
    found = [f"{place}: there only before or only after" for place in sorted(_files(before) ^ _files(after))]
    found += [f"wallet.db: {kind} {name} is other than before" for kind, name, _sql in _schema(before) ^ _schema(after)]
    with closing(sqlite3.connect(f"file:{after / 'wallet.db'}?mode=ro", uri=True)) as wallet:
        found += [f"wallet.db: {answer}" for (answer,) in wallet.execute("PRAGMA integrity_check") if answer != "ok"]
    return found


def _files(stores: Path) -> set[str]:
    return {str(path.relative_to(stores)) for path in stores.rglob("*")}


def _schema(stores: Path) -> set[tuple[str, str, str]]:
    with closing(sqlite3.connect(f"file:{stores / 'wallet.db'}?mode=ro", uri=True)) as wallet:
        return set(wallet.execute("SELECT type, name, sql FROM sqlite_master"))


# ---------------------------------------------------------------- what stands in the files


def _tables(db: duckdb.DuckDBPyConnection, schema: str, stores: Path) -> None:
    """Every collection as a relation; `place` is the file that a row lies in."""
    db.execute(f"CREATE SCHEMA {schema}")
    with closing(sqlite3.connect(f"file:{stores / 'wallet.db'}?mode=ro", uri=True)) as wallet:
        for name in WALLET:
            columns = [c for (_n, c, *_rest) in wallet.execute(f"PRAGMA table_info({name})")]
            rows = wallet.execute(f"SELECT {', '.join(f'quote({c})' for c in columns)} FROM {name}").fetchall()
            _fill(db, f"{schema}.{name}", dict(zip(columns, zip(*rows, strict=True), strict=True)))
    db.execute(f"ATTACH '{stores}/club.duckdb' AS club (READ_ONLY)")
    for name in CLUB:
        db.execute(f"CREATE TABLE {schema}.{name} AS SELECT *, 'club.duckdb' AS place FROM club.{name}")
    db.execute("DETACH club")
    sources = {name: f"read_parquet('{stores}/lake/{name}/*/*.parquet', filename = true)" for name in LAKE}
    sources["members"] = f"read_csv('{stores}/exports/members*.csv', all_varchar = true, filename = true)"
    sources["audience"] = f"read_csv('{stores}/exports/ads/*.csv', all_varchar = true, filename = true)"
    lines = f"read_json_objects('{stores}/support/*.jsonl.*', format = 'newline_delimited', filename = true)"
    sources["chats"] = f"(SELECT json::VARCHAR AS line, filename FROM {lines})"
    for name, source in sources.items():
        place = f"filename[{len(str(stores)) + 2}:] AS place"
        db.execute(f"CREATE VIEW {schema}.{name} AS SELECT * EXCLUDE (filename), {place} FROM {source}")


def _relation(db: duckdb.DuckDBPyConnection, name: str, rows: Sequence[tuple[int | str, int]]) -> None:
    keys, people = zip(*rows, strict=True)
    _fill(db, name, {"key": keys, "person": people})


def _fill(db: duckdb.DuckDBPyConnection, name: str, columns: Mapping[str, Sequence[Any]]) -> None:
    incoming = pa.table({name: list(values) for name, values in columns.items()})
    db.register("incoming", incoming)
    db.execute(f"CREATE TABLE {name} AS SELECT * FROM incoming")
    db.unregister("incoming")


def _one(db: duckdb.DuckDBPyConnection, question: str) -> int:
    ((answer,),) = db.execute(question).fetchall()
    return int(answer)


def _hashed(phone: str) -> str:
    """As an advertising audience has it: base64 of SHA-256 over the last ten digits."""
    return base64.b64encode(hashlib.sha256(phone[-10:].encode()).digest()).decode()

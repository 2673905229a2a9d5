"""A small estate with every kind of store of files, made so that each step of each procedure has something to do.

A database in WAL mode whose WAL holds rows; another with a full-text index and masked mentions; Parquet in two
partitions of two row groups, with a dictionary column and a key-value that names somebody; CSV; JSON Lines in a gzip
of two members; DuckDB with a WAL. Card numbers lie under keys.
"""

from __future__ import annotations

import gzip
import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from journeys.paper import on_request

from fangxin.data.vocabulary import Identity
from fangxin.flows.estate import make_home, open_estate
from fangxin.flows.protect import protect

NOW = datetime(2026, 11, 24, 1, 0, tzinfo=UTC)
PEOPLE, LEAVER = 60, 60  # the last rows of every file are the leaver's
MEMBERS = 31  # where the second gzip member begins
_PERSON = """          - name: phone
            data_categories: [user.contact.phone_number]
            fides_meta: {identity: phone_number}
          - {name: name, data_categories: [user.name]}
"""
_MENTION = """          - name: said
            data_categories: [user.content]
            erasure: {data_type: text, ownership: mention, mode: mask, mask: {constant: "***"}}
"""
CATALOG = f"""root: ../stores
dataset:
  - fides_key: w
    name: w
    erasure: {{store: {{kind: sqlite, url: w/w.db}}, mode: delete, copies: []}}
    collections:
      - name: accounts
        erasure: {{person: true}}
        fields:
          - {{name: id, data_categories: [user.unique_id], fides_meta: {{primary_key: true, data_type: integer}}}}
          - name: card
            data_categories: [user.financial.bank_account]
            erasure: {{sensitive: true, mode: crypto-erase, key_domain: kyc}}
          - name: passport
            data_categories: [user.government_id]
            erasure: {{sensitive: true, mode: crypto-erase, key_domain: travel}}
{_PERSON}{_MENTION}  - fides_key: v
    name: v
    erasure: {{store: {{kind: sqlite, url: v/v.db}}, mode: delete, copies: []}}
    collections:
      - name: visits
        fields:
{_PERSON}  - fides_key: l
    name: l
    erasure: {{store: {{kind: parquet, url: l/}}, mode: delete, copies: []}}
    collections:
      - name: trades
        erasure: {{store: {{glob: "**/*.parquet"}}}}
        fields:
{_PERSON}  - fides_key: t
    name: t
    erasure: {{store: {{kind: text, url: t/}}, mode: delete, copies: []}}
    collections:
      - name: members
        erasure: {{store: {{glob: "*.csv"}}}}
        fields:
{_PERSON}      - name: chats
        erasure: {{store: {{glob: "*.jsonl.gz"}}}}
        fields:
{_PERSON}  - fides_key: d
    name: d
    erasure: {{store: {{kind: duckdb, url: d/d.duckdb}}, mode: delete, copies: []}}
    collections:
      - name: coupons
        fields:
{_PERSON}"""


def phone(number: int) -> str:
    """The phone of a person, by number from 1."""
    return f"139{number * 1_000_003 % 10**8:08d}"


def name(number: int) -> str:
    """A name that nobody else has."""
    return f"person {number}"


@dataclass(frozen=True)
class Estate:
    """Where it lies; every sabotage works on a copy of its own."""

    root: Path

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def stores(self) -> Path:
        return self.root / "stores"

    @property
    def catalog(self) -> Path:
        return self.root / "catalog"

    def copy(self, to: Path) -> Estate:
        shutil.copytree(self.root, to)
        return Estate(to)

    def begin(self) -> str:
        from fangxin.flows.erase import open_batch

        options = {"approved": True, "now": NOW.isoformat()}
        estate = open_estate(self.home, self.catalog, NOW)
        return open_batch(estate, [[Identity("phone_number", phone(LEAVER))]], options=options)


def build(root: Path) -> Estate:
    """Write the estate with its home, and put the cards under keys."""
    made = Estate(root)
    for folder in ("w", "v", "l/p=1", "l/p=2", "t", "d"):
        (made.stores / folder).mkdir(parents=True)
    made.catalog.mkdir()
    (made.catalog / "c.yml").write_text(CATALOG)
    people = range(1, PEOPLE + 1)
    _database(made.stores / "w/w.db", people)
    _parquet(made.stores / "l/p=1/a.parquet", people)
    _parquet(made.stores / "l/p=2/a.parquet", people)
    rows = "".join(f"{phone(n)},{name(n)}\n" for n in people)
    (made.stores / "t/members.csv").write_text(f"phone,name\n{rows}")
    lines = [json.dumps({"phone": phone(n), "name": name(n)}) + "\n" for n in people]
    halves = ("".join(lines[: MEMBERS - 1]), "".join(lines[MEMBERS - 1 :]))
    (made.stores / "t/chats.jsonl.gz").write_bytes(b"".join(gzip.compress(h.encode()) for h in halves))
    make_home(made.home, rehearsal=True, origin="sabotage.example/erasure", now=NOW, capacity=500)
    on_request(made.home)
    _in_wal(made.stores / "v/v.db", people)
    _duckdb(made.stores / "d/d.duckdb", people)
    protect(open_estate(made.home, made.catalog, NOW))
    return made


def _database(path: Path, people: range) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(
            "CREATE TABLE accounts (id INTEGER PRIMARY KEY, card BLOB, passport BLOB, phone TEXT, name TEXT, said TEXT)"
        )
        said = {1: f"call {phone(LEAVER)} back"}
        db.executemany(
            "INSERT INTO accounts VALUES (?, ?, ?, ?, ?, ?)",
            [
                (500_000_000_000 + n, f"6222{n:012d}", f"E{n:08d}", phone(n), name(n), said.get(n, "-" * 200))
                for n in people
            ],
        )
        db.execute("CREATE VIRTUAL TABLE words USING fts5(phone, content='accounts', content_rowid='id')")
        db.execute("INSERT INTO words (words) VALUES ('rebuild')")


def _in_wal(path: Path, people: range) -> None:
    """Rows of the leaver stand in the WAL alone, as a program that was killed leaves them."""
    live = path.with_name("live.db")
    with closing(sqlite3.connect(live)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA wal_autocheckpoint=0")
        db.execute("CREATE TABLE visits (phone TEXT, name TEXT)")
        db.executemany("INSERT INTO visits VALUES (?, ?)", [(phone(n), name(n)) for n in people])
        db.commit()
        shutil.copyfile(live, path)
        shutil.copyfile(f"{live}-wal", f"{path}-wal")
    for left in path.parent.glob("live.db*"):
        left.unlink()


def _parquet(path: Path, people: range) -> None:
    column = pa.array([phone(n) for n in people]).dictionary_encode()
    table = pa.table({"phone": column, "name": [name(n) for n in people]})
    noted = {b"largest": phone(LEAVER).encode()}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **noted})
    write_parquet(table, path)


def write_parquet(table: pa.Table, path: Path) -> None:
    """Two row groups, the phones of each in a bloom filter."""
    asked = {"phone": {"ndv": PEOPLE, "fpp": 0.01}}
    pq.write_table(table, path, compression="zstd", row_group_size=PEOPLE // 2, bloom_filter_options=asked)


def _duckdb(path: Path, people: range) -> None:
    """Half of the rows, the leaver's among them, stand in the WAL alone."""
    import duckdb

    with duckdb.connect(path) as db:
        db.execute("CREATE TABLE coupons (phone VARCHAR, name VARCHAR)")
        db.executemany("INSERT INTO coupons VALUES (?, ?)", [(phone(n), name(n)) for n in people if n < PEOPLE // 2])
        db.execute("CHECKPOINT")
        db.execute("SET checkpoint_threshold = '1GB'")
        db.executemany("INSERT INTO coupons VALUES (?, ?)", [(phone(n), name(n)) for n in people if n >= PEOPLE // 2])
        kept = {p: p.read_bytes() for p in path.parent.iterdir()}
    for p in path.parent.iterdir():
        p.unlink()
    for p, body in kept.items():
        p.write_bytes(body)

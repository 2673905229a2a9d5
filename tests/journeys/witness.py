"""A witness who knows the LeCard files but none of our code: what stands in them, and what must stand there after.

Everything is read with sqlite3, duckdb, pyarrow, csv, json, gzip and zstandard. `expected` works out from the rows
before, the accounts of the leavers and the law's date what every collection must hold afterwards, row by row and value
by value.
"""

from __future__ import annotations

import base64
import csv
import gzip
import hashlib
import io
import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

Row = dict[str, Any]  # Any: values of files of several kinds
Tables = dict[str, list[Row]]

WALLET = ("addresses", "accounts", "identities", "contacts", "coupons", "devices", "logins")
CLUB = ("memberships", "wallets")
KEPT_SINCE = datetime(2023, 11, 24, tzinfo=UTC)  # three years before the day of the erasure
SEALED = {
    "wallet/identities": ("id_number", "bank_card"),
    "lake/transactions": ("card_no",),
    "club/wallets": ("payout_card",),
}


# ---------------------------------------------------------------- what stands in the files


def read(stores: Path) -> Tables:
    """Every row of every collection, as its files hold it."""
    found: Tables = {}
    with closing(sqlite3.connect(f"file:{stores / 'wallet.db'}?mode=ro", uri=True)) as wallet:
        wallet.row_factory = sqlite3.Row
        for name in WALLET:
            found[f"wallet/{name}"] = [dict(row) for row in wallet.execute(f"SELECT * FROM {name}")]
    with duckdb.connect(stores / "club.duckdb", read_only=True) as club:
        for name in CLUB:
            found[f"club/{name}"] = club.sql(f"FROM {name}").to_arrow_table().to_pylist()
    for name in ("transactions", "app_events"):
        found[f"lake/{name}"] = [
            {**row, "month": path.parent.name}
            for path in sorted((stores / "lake" / name).rglob("*.parquet"))
            for row in pq.ParquetFile(path).read().to_pylist()
        ]
    found["support/chats"] = [
        {**json.loads(line), "file": path.name}
        for path in sorted((stores / "support").glob("*.jsonl.*"))
        for line in unpacked(path).decode().splitlines()
    ]
    for name, path in (("members", "members.csv"), ("audience", "ads/audience.csv")):
        found[f"exports/{name}"] = list(csv.DictReader(io.StringIO((stores / "exports" / path).read_text("utf-8"))))
    return found


def unpacked(path: Path) -> bytes:
    """The text of a file, whatever it is packed with."""
    if path.suffix == ".zst":
        return zstandard.ZstdDecompressor().stream_reader(path.read_bytes(), read_across_frames=True).read()
    return gzip.decompress(path.read_bytes())


def same(first: Tables, second: Tables) -> dict[str, int]:
    """Per collection, how many rows the two do not have in common; empty if they are equal."""
    found = {}
    for address in sorted(first.keys() | second.keys()):
        one, other = (Counter(map(_frozen, tables.get(address, []))) for tables in (first, second))
        if one != other:
            found[address] = ((one - other) + (other - one)).total()
    return found


def _frozen(row: Row) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(row.items()))


# ---------------------------------------------------------------- what must stand there after


@dataclass(frozen=True)
class Leaving:
    """What identifies the leavers in rows: all their accounts and all their phones."""

    accounts: frozenset[int]
    phones: frozenset[str]

    @classmethod
    def of(cls, people: Sequence[Mapping[str, Any]]) -> Leaving:
        return cls(
            frozenset(a for p in people for a in p["accounts"]), frozenset(n for p in people for n in p["phones"])
        )

    def owns(self, row: Row) -> bool:
        return int(row["account_id"]) in self.accounts

    def hashes(self) -> frozenset[str]:
        """As the advertising audience has them."""
        return frozenset(base64.b64encode(hashlib.sha256(p[-10:].encode()).digest()).decode() for p in self.phones)


@dataclass(frozen=True)
class Expected:
    """The rows afterwards; and how many were kept by law, and masked in the rows of others, per collection."""

    after: Tables
    retained: Counter[str]
    masked: Counter[str]


def expected(before: Tables, leaving: Leaving) -> Expected:
    """Work out what an erasure of the leavers must leave behind, to the value."""
    after: Tables = {}
    retained: Counter[str] = Counter()
    masked: Counter[str] = Counter()
    used = {r["address_id"] for r in before["wallet/accounts"] if r["account_id"] not in leaving.accounts}
    theirs = {r["address_id"] for r in before["wallet/accounts"] if r["account_id"] in leaving.accounts}
    hashes = leaving.hashes()
    phones = re.compile("|".join(sorted(leaving.phones)))
    for address, rows in before.items():
        kept = []
        for row in rows:
            if address == "wallet/addresses":
                gone = row["address_id"] in theirs - used
            elif address == "exports/audience":
                gone = row["phone_hash"] in hashes
            else:
                gone = leaving.owns(row)
            if gone and address == "lake/transactions" and row["completed_at"] >= KEPT_SINCE:
                retained[address] += 1
                kept.append({**row, "device_id": None, "memo": "***"})
            elif not gone:
                masks = _masked(address, row, leaving, phones)
                masked[address] += bool(masks)
                kept.append({**row, **masks})
        after[address] = kept
    return Expected(after, retained, +masked)


def _masked(address: str, row: Row, leaving: Leaving, phones: re.Pattern[str]) -> Row:
    """The values of another person's row that change because they are about a leaver."""
    if address == "wallet/contacts" and row["contact_phone"] in leaving.phones:
        return {"contact_name": "***", "contact_phone": "***"}
    name = {"lake/transactions": "memo", "support/chats": "text"}.get(address)
    if name is not None and row[name] and phones.search(row[name]):
        return {name: phones.sub("***", row[name])}
    return {}


# ---------------------------------------------------------------- whether a value is in any byte

_HEAD = 6  # bytes of a needle that are looked up at every offset; what matches is then compared whole


def forms(value: str) -> dict[str, bytes]:
    """How a value may stand in bytes; nothing shorter than six bytes, which would be found by chance."""
    plain = value.encode()
    found = {
        "plain": plain,
        "utf-16-le": value.encode("utf-16-le"),
        "utf-16-be": value.encode("utf-16-be"),
        "hex": plain.hex().encode(),
        "HEX": plain.hex().upper().encode(),
        "reversed": plain[::-1],
    }
    for shift in range(3):  # characters that depend on the neighbours are left out
        body = base64.b64encode(b"\0" * shift + plain)
        spare = -(shift + len(plain)) % 3
        found[f"base64/{shift}"] = body[(0, 2, 3)[shift] : len(body) - (0, 2, 3)[spare]]
    for name in ("md5", "sha1", "sha256", "sha512"):
        digest = hashlib.new(name, plain).digest()
        found[name], found[f"{name}/hex"] = digest, digest.hex().encode()
        found[f"{name}/base64"] = base64.b64encode(digest).rstrip(b"=")
    if value.isdigit() and int(value) < 1 << 63:
        found["int64/little"] = int(value).to_bytes(8, "little")
        found["int64/big"] = int(value).to_bytes(8, "big")
    return {name: data for name, data in found.items() if len(data) >= _HEAD}


def layers(path: Path) -> Iterator[tuple[str, bytes]]:
    """Every layer of a file: as it lies, unpacked gzip, every zstd frame wherever it starts, every Parquet column."""
    body = path.read_bytes()
    yield "raw", body
    if body[:2] == b"\x1f\x8b":
        yield "gzip", gzip.decompress(body)
    for frame in _frames(body):
        yield "zstd", frame
    if body[8:12] == b"DUCK":
        with duckdb.connect(path, read_only=True) as db:
            for (name,) in db.execute("SELECT table_name FROM duckdb_tables()").fetchall():
                yield "duckdb", str(db.execute(f'FROM "{name}"').fetchall()).encode()
    if body[:4] == b"PAR1":
        names = pq.ParquetFile(io.BytesIO(body)).schema_arrow.names
        # Dictionaries as the pages hold them, also what no row refers to any more.
        for column in pq.ParquetFile(io.BytesIO(body), read_dictionary=names).read().itercolumns():
            texts = [
                str(v)
                for chunk in column.chunks
                for v in (chunk.dictionary if isinstance(chunk, pa.DictionaryArray) else chunk).to_pylist()
            ]
            yield "column", "\n".join(texts).encode()


def _frames(body: bytes) -> Iterator[bytes]:
    """Every zstd frame (RFC 8878, 3.1.1), unpacked, at whatever offset it starts."""
    at = body.find(_ZSTD)
    while at >= 0:
        described = body[at + 4]
        single = described >> 5 & 1
        end = at + 5 + (1 - single) + (0, 1, 2, 4)[described & 3] + (single, 2, 4, 8)[described >> 6]
        last = 0
        while not last and end + 3 <= len(body):
            block = int.from_bytes(body[end : end + 3], "little")
            last, kind, size = block & 1, block >> 1 & 3, block >> 3
            end += 3 + (1 if kind == 1 else size)
        end += 4 * (described >> 2 & 1)
        try:
            with pa.CompressedInputStream(pa.BufferReader(body[at:end]), "zstd") as stream:
                yield stream.read()
        except OSError:
            pass  # four bytes that look like the beginning of a frame and are not
        at = body.find(_ZSTD, at + 1)


_ZSTD = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True)
class Sighting:
    """A value that was seen: in which file and layer, what it is, and in which form."""

    place: str
    layer: str
    what: str
    form: str


class Needles:
    """Values by what they are, in every form, looked for at every offset."""

    def __init__(self, values: Mapping[str, str]) -> None:
        """Take {value: what it is}."""
        self.by_head: dict[int, list[tuple[str, str, bytes]]] = {}
        for value, what in values.items():
            for form, data in forms(value).items():
                head = int.from_bytes(data[:_HEAD], "little")
                self.by_head.setdefault(head, []).append((what, form, data))
        self.heads = np.array(sorted(self.by_head), np.int64)

    def below(self, folder: Path) -> list[Sighting]:
        """Everything seen in files (and their names) below a folder, once per file, layer and form."""
        found = set()
        for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink()):
            place = str(path.relative_to(folder))
            for layer, body in [("name", place.encode()), *layers(path)]:
                found |= {Sighting(place, layer, what, form) for what, form in self.within(body)}
        return sorted(found, key=lambda s: (s.place, s.layer, s.what, s.form))

    def within(self, body: bytes) -> Iterator[tuple[str, str]]:
        """What is in these bytes, and in which form."""
        if len(body) < _HEAD:
            return
        buffer = np.frombuffer(body, np.uint8)
        width = len(buffer) - _HEAD + 1
        rolling = np.zeros(width, np.int64)
        for n in range(_HEAD):
            rolling |= buffer[n : n + width].astype(np.int64) << (8 * n)
        place = np.searchsorted(self.heads, rolling)
        at = np.flatnonzero(self.heads[np.minimum(place, len(self.heads) - 1)] == rolling)
        for offset in at.tolist():
            for what, form, data in self.by_head[int(rolling[offset])]:
                if body.startswith(data, offset):
                    yield what, form

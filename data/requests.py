"""Batches and their requests: the only mutable state of ours, and the only place where a cohort's identities lie.

SQLite with `secure_delete` and truncating checkpoints. Everything personal is one sealed column, encrypted under
the key of its request (or batch) in the vault; that key dies after the certificate, and the column is emptied.
What is not sealed are opaque ids, hashes, states, counts and times.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fangxin.data.errors import InputError, NotAllowed
from fangxin.data.keys.envelope import open_blob, seal_blob
from fangxin.data.keys.tree import KeyAbsent, KeyTree
from fangxin.data.vocabulary import Identity

REQUEST_DOMAIN = 0x06  # keys.md section 6: identities and evidence secrets of one closure

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_AS_TYPED = str.maketrans({"O": "0", "I": "1", "L": "1", "-": None, " ": None})

_DEAD: Mapping[str, Any] = {"secret": "", "receipt": "", "identities": []}  # when the request's key is gone

_SCHEMA = """
CREATE TABLE IF NOT EXISTS batch(
  id TEXT PRIMARY KEY, created TEXT NOT NULL, catalog TEXT NOT NULL, options TEXT NOT NULL,
  ref BLOB NOT NULL, sealed BLOB, state TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS request(
  id TEXT PRIMARY KEY, batch TEXT NOT NULL REFERENCES batch(id), number INTEGER NOT NULL, canary INTEGER NOT NULL,
  ref BLOB NOT NULL, receipt TEXT NOT NULL, sealed BLOB, outcome TEXT, certificate TEXT,
  UNIQUE(batch, number));
CREATE TABLE IF NOT EXISTS step(
  batch TEXT NOT NULL, name TEXT NOT NULL, at TEXT NOT NULL, note TEXT NOT NULL, PRIMARY KEY(batch, name));
CREATE TABLE IF NOT EXISTS part(
  batch TEXT NOT NULL, name TEXT NOT NULL, sealed BLOB, PRIMARY KEY(batch, name));
"""


@dataclass(frozen=True)
class Request:
    """One subject's closure inside a batch; the secret and the identities never show."""

    id: str
    batch: str
    number: int
    canary: bool
    ref: bytes = field(repr=False)
    secret: bytes = field(repr=False)
    identities: tuple[Identity, ...] = field(repr=False)
    receipt: str = field(repr=False, default="")  # the code itself, while the request's key lives
    outcome: str | None = None
    certificate: str | None = None


@dataclass(frozen=True)
class Batch:
    """The subjects handled in one pass, and how far they are."""

    id: str
    created: str
    catalog: str
    options: Mapping[str, Any]
    state: str
    ref: bytes = field(repr=False)
    secret: bytes = field(repr=False)


def opaque(prefix: str) -> str:
    """A random id of 80 bits: says nothing about anybody."""
    return f"{prefix}-{base64.b32encode(secrets.token_bytes(10)).decode().lower()}"


def receipt_code() -> str:
    """24 Crockford characters (120 bits) and a check character that can be said on the phone, in groups of five."""
    while True:
        body = "".join(secrets.choice(_CROCKFORD) for _ in range(24))
        code = body + _check_of(body)
        if code[-1] not in "*~$=":
            return "-".join(code[i : i + 5] for i in range(0, 25, 5))


def receipt_digest(typed: str) -> str:
    """SHA-256 of a receipt code as people type it; InputError, which never quotes it, where it is mistyped.

    That a code is mistyped is seen from the code alone: it says nothing about what we have.
    """
    plain = typed.upper().translate(_AS_TYPED)
    if len(plain) != 25 or not set(plain[:24]) <= set(_CROCKFORD) or plain[24] != _check_of(plain[:24]):
        raise InputError("a receipt code: expected 25 characters that fit together", hint="look for a mistyped one")
    return hashlib.sha256(plain.encode()).hexdigest()


def _check_of(body: str) -> str:
    value = 0
    for letter in body:
        value = value * 32 + _CROCKFORD.index(letter)
    return (_CROCKFORD + "*~$=U")[value % 37]


class Requests:
    """The store of batches and requests under `home/requests.db`; the vault seals what is personal in it."""

    def __init__(self, path: Path, tree: KeyTree) -> None:
        self.path, self.tree = path, tree
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)  # before SQLite makes it for everybody to read; its side files take the same mode
        with self._write() as db:
            db.executescript(_SCHEMA)

    # ------------------------------------------------------------ opening and reading

    def open(
        self,
        subjects: Sequence[Sequence[Identity]],
        *,
        canary: Sequence[Identity],
        catalog: str,
        options: Mapping[str, Any],
        now: str,
        known: Sequence[tuple[bytes, str]] = (),
    ) -> tuple[str, list[str]]:
        """Take in a cohort; return the batch's id and the receipt codes (shown once, only hashes are kept).

        `known`: secret and receipt code of each subject, where a closing drew them before. The canary is the last
        subject. Keys of all requests are durable before anything is written under them.
        """
        batch_id, batch_ref, batch_secret = opaque("b"), secrets.token_bytes(16), secrets.token_bytes(32)
        refs = [secrets.token_bytes(16) for _ in range(len(subjects) + 1)]
        self.tree.ensure([batch_ref, *refs], REQUEST_DOMAIN)
        receipts, rows = [], []
        for number, (ref, identities) in enumerate(zip(refs, [*subjects, canary], strict=True)):
            request_id = opaque("r")
            told = known[number] if number < len(known) else (secrets.token_bytes(32), receipt_code())
            secret, receipt = told
            receipts.append(receipt)
            payload = {
                "secret": secret.hex(),
                "receipt": receipt,
                "identities": [[i.kind, i.value] for i in identities],
            }
            rows.append(
                (
                    request_id,
                    batch_id,
                    number,
                    int(number == len(subjects)),
                    ref,
                    hashlib.sha256(receipt.replace("-", "").encode()).hexdigest(),
                    self._seal(ref, json.dumps(payload).encode()),
                )
            )
        sealed = self._seal(batch_ref, json.dumps({"secret": batch_secret.hex()}).encode())
        with self._write() as db:
            db.execute(
                "INSERT INTO batch VALUES(?,?,?,?,?,?,'open')",
                [batch_id, now, catalog, json.dumps(dict(options), sort_keys=True), batch_ref, sealed],
            )
            db.executemany(
                "INSERT INTO request(id, batch, number, canary, ref, receipt, sealed) VALUES(?,?,?,?,?,?,?)", rows
            )
        return batch_id, receipts[:-1]

    def batch(self, batch_id: str) -> Batch:
        """The batch of that id; InputError if there is none."""
        row = self._one("SELECT id, created, catalog, options, state, ref, sealed FROM batch WHERE id = ?", batch_id)
        if row is None:
            raise InputError(
                f"no batch {batch_id} in this home", hint="`fangxin resume` without an id carries out every open one"
            )
        secret = bytes.fromhex(self._payload(row[5], row[6])["secret"])
        return Batch(row[0], row[1], row[2], json.loads(row[3]), row[4], row[5], secret)

    def approve(self, batch_id: str, approvals: Sequence[str]) -> None:
        """Note that the plan of a batch is approved, with the officers' signatures; they hold no personal data."""
        with self._write() as db:
            (told,) = db.execute("SELECT options FROM batch WHERE id = ?", [batch_id]).fetchone()
            options = {**json.loads(told), "approved": True, "approvals": list(approvals)}
            db.execute("UPDATE batch SET options = ? WHERE id = ?", [json.dumps(options, sort_keys=True), batch_id])

    def requests(self, batch_id: str) -> tuple[Request, ...]:
        """The requests of a batch in the order of the cohort, the canary last; empty identities once closed."""
        found = []
        with self._read() as db:
            rows = db.execute(
                "SELECT id, batch, number, canary, ref, sealed, receipt, outcome, certificate FROM request"
                " WHERE batch = ? ORDER BY number",
                [batch_id],
            ).fetchall()
        for row in rows:
            payload = self._payload(row[4], row[5])
            identities = tuple(Identity(k, v) for k, v in payload["identities"])
            secret = bytes.fromhex(payload["secret"])
            found.append(
                Request(
                    row[0], row[1], row[2], bool(row[3]), row[4], secret, identities, payload["receipt"], row[7], row[8]
                )
            )
        return tuple(found)

    def unfinished(self) -> tuple[str, ...]:
        """Batches that are neither closed nor abandoned, oldest first."""
        with self._read() as db:
            rows = db.execute("SELECT id FROM batch WHERE state = 'open' ORDER BY created, id").fetchall()
        return tuple(r[0] for r in rows)

    def receipts(self) -> tuple[tuple[str, str, str | None], ...]:
        """Every request but the canaries and those given up: id, hash of the receipt code, path of its certificate."""
        with self._read() as db:
            rows = db.execute(
                "SELECT request.id, receipt, certificate FROM request JOIN batch ON batch.id = request.batch"
                " WHERE NOT canary AND batch.state != 'abandoned' ORDER BY batch.created, batch.id, number"
            ).fetchall()
        return tuple((r[0], r[1], r[2]) for r in rows)

    def finished(self) -> tuple[str, ...]:
        """Batches that are closed or abandoned, oldest first."""
        with self._read() as db:
            rows = db.execute("SELECT id FROM batch WHERE state != 'open' ORDER BY created, id").fetchall()
        return tuple(r[0] for r in rows)

    # ------------------------------------------------------------ sealed parts and steps

    def keep(self, batch: Batch, name: str, body: bytes) -> None:
        """Seal a part of the batch's plan (traces, facts, findings) under the batch's key."""
        with self._write() as db:
            db.execute("INSERT OR REPLACE INTO part VALUES(?,?,?)", [batch.id, name, self._seal(batch.ref, body)])

    def kept(self, batch: Batch, name: str) -> bytes | None:
        """Open a sealed part; None if it was never kept."""
        row = self._one("SELECT sealed FROM part WHERE batch = ? AND name = ?", batch.id, name)
        return None if row is None or row[0] is None else self._open(batch.ref, row[0])

    def done(self, batch_id: str, step: str, *, at: str, note: Mapping[str, Any], anew: bool = False) -> None:
        """Note what a step of the batch came to; the first note stands, unless it is written `anew`.

        Notes hold counts and digests only.
        """
        with self._write() as db:
            db.execute(
                f"INSERT OR {'REPLACE' if anew else 'IGNORE'} INTO step VALUES(?,?,?,?)",
                [batch_id, step, at, json.dumps(dict(note), sort_keys=True)],
            )

    def note(self, batch_id: str, step: str) -> Mapping[str, Any] | None:
        """What was noted when the step completed; None if it has not."""
        row = self._one("SELECT note, at FROM step WHERE batch = ? AND name = ?", batch_id, step)
        return None if row is None else {**json.loads(row[0]), "at": row[1]}

    def certified(self, issued: Sequence[tuple[str, str, str]]) -> None:
        """Note requests' outcomes and where their certificates lie: (request, outcome, certificate)."""
        with self._write() as db:
            rows = [(outcome, certificate, request) for request, outcome, certificate in issued]
            db.executemany("UPDATE request SET outcome = ?, certificate = ? WHERE id = ?", rows)

    def finish(self, batch_id: str, *, state: str) -> None:
        """Empty every sealed column of the batch; called when its keys are dead. State: closed or abandoned."""
        if state not in ("closed", "abandoned"):
            raise NotAllowed(f"a batch cannot become {state!r}")
        with self._write() as db:
            db.execute("UPDATE request SET sealed = NULL WHERE batch = ?", [batch_id])
            db.execute("DELETE FROM part WHERE batch = ?", [batch_id])
            db.execute("UPDATE batch SET sealed = NULL, state = ? WHERE id = ?", [state, batch_id])

    def refs(self, batch_id: str) -> tuple[bytes, ...]:
        """The vault refs of a batch and its requests, whose keys die last."""
        with self._read() as db:
            rows = db.execute(
                "SELECT ref FROM batch WHERE id = ? UNION ALL SELECT ref FROM request WHERE batch = ?", [batch_id] * 2
            ).fetchall()
        return tuple(r[0] for r in rows)

    # ------------------------------------------------------------ inside

    def _seal(self, ref: bytes, body: bytes) -> bytes:
        key = self.tree.get(ref, REQUEST_DOMAIN)
        return seal_blob(key, body, b"fangxin/requests/1" + ref)

    def _open(self, ref: bytes, body: bytes) -> bytes:
        key = self.tree.get(ref, REQUEST_DOMAIN)
        return open_blob(key, body, b"fangxin/requests/1" + ref)

    def _payload(self, ref: bytes, sealed: bytes | None) -> Mapping[str, Any]:  # Any: JSON
        """What is sealed in a row; nothing any more once its key is dead or its column emptied."""
        if sealed is None:
            return _DEAD
        try:
            payload: Mapping[str, Any] = json.loads(self._open(ref, sealed))
        except KeyAbsent:
            return _DEAD
        return payload

    def _one(self, sql: str, *values: str) -> tuple[Any, ...] | None:
        with self._read() as db:
            row: tuple[Any, ...] | None = db.execute(sql, values).fetchone()
            return row

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self.path, isolation_level=None, timeout=10)
        try:
            yield db
        finally:
            db.close()

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._read() as db:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA secure_delete=ON")
            db.execute("PRAGMA synchronous=FULL")
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                if db.in_transaction:
                    db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            # The WAL would keep old pages: it is emptied after every change.
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

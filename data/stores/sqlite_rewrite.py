"""One SQLite database being rewritten: locked, copied, changed in the copy, compared, published, destroyed.

The working copy keeps its journal (PERSIST), which is destroyed with it. The comparison runs inside SQLite, between
the locked original and the new file, and covers every row of every table that was not ordered to change.
"""

# ruff: noqa: S608  -- names of tables and columns are quoted by `quoted`, values are always bound
from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fangxin.data.errors import DoesNotHold, Incomplete, UnitChanged
from fangxin.data.pending import Done, Pending
from fangxin.data.steps import due
from fangxin.data.stores.database_files import beside, quoted, unavailable
from fangxin.data.stores.sqlite_tables import (
    Table,
    Value,
    bindable,
    connect,
    count,
    faithful,
    plain_tables,
    remember,
    row_key,
    settle_indexes,
    stream,
)
from fangxin.data.vocabulary import Change, Collection, Positions, Turn, by_position, redacted


def _redacted(value: Value, texts: str, filler: str) -> Value:
    """A value as SQLite hands it over with texts (a JSON list) replaced; what holds none of them keeps its type."""
    if value is None:
        return None
    try:
        old = value.decode() if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError:
        return value
    new = redacted(old, json.loads(texts), filler)
    if new == old:
        return value
    return new.encode() if isinstance(value, bytes) else new


class Work:
    """A locked live database, its private working copy, and the file that will take its name."""

    def __init__(self, pending: Pending, path: Path, batch: str) -> None:
        self.pending, self.path, self.batch = pending, path, batch
        self.unit = path.relative_to(pending.root).as_posix()
        self.stack = contextlib.ExitStack()
        self.live: sqlite3.Connection
        self.copy: sqlite3.Connection
        self.wal = False
        self.ours: list[Path] = []  # scratches not yet handed over
        self.drops: dict[str, Positions] = {}  # by table
        self.changes: dict[str, dict[str, Positions]] = {}  # by table and column
        self.whole: set[tuple[str, str]] = set()  # (table, column) replaced in every row
        self.note: dict[str, dict[str, int]] = {"before": {}, "after": {}, "changed": {}}

    def lock(self) -> None:
        """Take the exclusive lock; hold WAL and journal first: SQLite drops one on closing, the other on rolling back.

        A writer that dies just before we open leaves a journal that SQLite rolls back and unlinks, bytes and all.
        """
        for log in (beside(self.path, "-wal"), beside(self.path, "-journal")):
            if log.exists() and log.stat().st_size and due("sqlite: WAL"):
                self.ours.append(self.pending.hold(log, batch=self.batch))
        self.live = self.stack.enter_context(contextlib.closing(connect(self.path, "rw")))
        self.live.execute("PRAGMA locking_mode=EXCLUSIVE")
        self.wal = self.live.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        self.live.execute("BEGIN EXCLUSIVE")
        self.live.execute("COMMIT")  # the lock stays in this locking mode

    def look_on(self) -> None:
        """Instead of the lock, for a rehearsal: read what everybody may read, and leave the WAL where it is."""
        self.live = self.stack.enter_context(contextlib.closing(connect(self.path, "ro")))

    def copy_out(self) -> None:
        """Settle the WAL and copy every page, through the locked connection, into a scratch.

        What is deleted there goes through a journal that stays (PERSIST), beside the scratch and under its name: no
        block is shed, and the journal is destroyed with the copy.
        """
        if self.wal:
            busy, log, moved = self.live.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
            if busy or log != moved:
                raise unavailable(self.unit, "its whole WAL in the database", "a busy WAL", "close its readers")
        self.seen = self.path.stat()
        scratch = self._scratch()
        self.copy = self.stack.enter_context(contextlib.closing(connect(scratch, "rwc")))
        self.copy.execute("PRAGMA synchronous=OFF")  # thrown away on any error
        self.copy.execute("PRAGMA journal_mode=OFF")  # nothing to undo while the pages come
        self.live.backup(self.copy, pages=4096)
        self.copy.execute("PRAGMA locking_mode=EXCLUSIVE")
        self.copy.execute(f"PRAGMA secure_delete={'ON' if due('sqlite: free pages') else 'OFF'}")
        self.copy.execute("PRAGMA temp_store=MEMORY")
        if self.copy.execute("PRAGMA journal_mode=PERSIST").fetchone()[0] != "persist":
            raise DoesNotHold(f"{self.unit}: its working copy does not keep its journal")
        self.copy.execute("PRAGMA foreign_keys=OFF")
        self.triggers = [row[0] for row in self.copy.execute("SELECT sql FROM sqlite_master WHERE type='trigger'")]
        for (name,) in self.copy.execute("SELECT name FROM sqlite_master WHERE type='trigger'").fetchall():
            self.copy.execute(f"DROP TRIGGER {quoted(name)}")
        faithful(self.copy, self.unit)

    def apply(self, change: Change, table: Table) -> None:
        """Delete and replace what one change says, in the working copy."""
        address, db = change.collection.address, self.copy
        self.note["before"][address] = count(db, table.sql)
        db.execute("BEGIN")
        if due("sqlite: rows"):
            drop = remember(db, change.drop)
            gone = db.execute(f"DELETE FROM {table.sql} WHERE {table.rowid} IN (SELECT id FROM {drop})").rowcount
            if gone != len(np.unique(change.drop)):
                raise UnitChanged(f"{self.unit}: rows that were located are not there any more", hint="locate again")
            self._expect(table, None, change.drop)
        for name, blank in change.blank.items() if due("sqlite: values") else ():
            table.require(name, change.collection.where)
            ids = remember(db, blank.positions)
            db.execute(
                f"UPDATE {table.sql} SET {quoted(name)} = ? WHERE {table.rowid} IN (SELECT id FROM {ids})",
                (blank.filler,),
            )
            self._expect(table, name, blank.positions)
        for name, redaction in change.redact.items() if due("sqlite: values") else ():
            table.require(name, change.collection.where)
            column = quoted(name)
            db.create_function("redacted_here", 3, _redacted, deterministic=True)
            db.executemany(
                f"UPDATE {table.sql} SET {column} = redacted_here({column}, ?1, ?2) WHERE {table.rowid} = ?3",
                ((json.dumps(texts), redaction.filler, position) for position, texts in by_position(redaction).items()),
            )
            self._expect(table, name, redaction.positions)
        db.execute("COMMIT")
        touched = [b.positions for b in change.blank.values()] + [r.positions for r in change.redact.values()]
        self.note["changed"][address] = len(np.unique(np.concatenate(touched))) if touched else 0
        self.note["after"][address] = self.note["before"][address] - len(np.unique(change.drop))

    def turn(self, collection: Collection, table: Table, names: Sequence[str], turn: Turn) -> None:
        """Replace whole columns: read the locked original, write the working copy. Blobs are under keys already."""
        half = [name for name in names if "blob" in table.columns[name].kinds]
        whole = [name for name in names if name not in half]
        groups = ([whole] if whole else []) + [[name] for name in half]
        taken = "typeof({}) NOT IN ('blob', 'null')"
        done = [self._turn(collection, table.without_blobs(group), group, turn, taken) for group in groups]
        self._note(collection, table, done, names)

    def turn_back(self, collection: Collection, table: Table, names: Sequence[str], turn: Turn) -> None:
        """Replace the blobs of these columns, and nothing else."""
        taken = "typeof({}) = 'blob'"
        alone = [(table.only_blobs(name, without=names), [name]) for name in names]
        self._note(collection, table, [self._turn(collection, one, name, turn, taken) for one, name in alone], names)

    def _note(self, collection: Collection, table: Table, changes: Sequence[int], names: Sequence[str]) -> None:
        changed = max(changes, default=0)
        self.whole |= {(table.name, name) for name in names}
        rows = count(self.copy, table.sql)
        for key, number in (("before", rows), ("after", rows), ("changed", changed)):
            self.note[key][collection.address] = number

    def _turn(self, collection: Collection, table: Table, names: Sequence[str], turn: Turn, taken: str) -> int:
        """Replace these columns in the rows where one of them is what is `taken`; return how many."""
        where = " OR ".join(taken.format(quoted(name)) for name in names)
        sets = ", ".join(f"{quoted(name)} = ?" for name in names)
        rows = 0
        self.copy.execute("BEGIN")
        for batch in stream(self.live, self.unit, table, tuple(table.columns), where=f" WHERE {where}"):
            turned = turn(collection, batch.columns)
            values = [map(bindable, turned.column(name).to_pylist()) for name in names]
            self.copy.executemany(
                f"UPDATE {table.sql} SET {sets} WHERE {table.rowid} = ?",
                zip(*values, batch.positions.tolist(), strict=True),
            )
            rows += len(batch.positions)
        self.copy.execute("COMMIT")
        return rows

    def publish(self) -> Done:
        """Publish the survivors, once they are proven, and destroy all that came before."""
        new = self.prove()
        if self.wal:
            with contextlib.closing(connect(new, "rw")) as db:
                db.execute("PRAGMA journal_mode=WAL")
        self.stack.close()  # our own connections would count as somebody who has it open
        self._let_go_of_the_journal()
        aside = [beside(self.path, end) for end in ("-journal", "-shm")]
        copies = [q for p in self.ours if p != new for q in (p, beside(p, "-journal"))]
        try:
            done = self.pending.replace(
                new,
                self.path,
                batch=self.batch,
                note=self.note,
                also=[p for p in (*aside, *copies) if p.exists()],
                seen=self.seen,
                absent=[beside(self.path, "-wal")],
            )
        except Incomplete:  # published: what is left belongs to the journal now
            self.ours.clear()
            raise
        self.ours.clear()
        return done

    def prove(self) -> Path:
        """Write the survivors afresh and compare them with the original; return the new file."""
        if due("sqlite: indexes"):
            settle_indexes(self.copy)
        for sql in self.triggers:
            self.copy.execute(sql)
        new = self._scratch()
        if due("sqlite: free pages"):
            self.copy.execute("VACUUM INTO ?", (os.fspath(new),))
        else:
            with contextlib.closing(connect(new, "rwc")) as db:
                self.copy.backup(db)
        with contextlib.closing(connect(new, "rw")) as db:
            if (found := db.execute("PRAGMA integrity_check(1)").fetchone()[0]) != "ok":
                raise DoesNotHold(f"{self.unit}: the rewritten database is damaged", hint=str(found)[:80])
        self._compare(new)
        return new

    def _let_go_of_the_journal(self) -> None:
        """Drop our link to a journal that kept its name: it is destroyed under that one, and alone."""
        journal = beside(self.path, "-journal")
        for held in [p for p in self.ours if journal.exists() and p.exists() and p.samefile(journal)]:
            self.pending.discard(held, batch=self.batch)
            self.ours.remove(held)

    def close(self) -> None:
        """Close the connections and destroy the scratches that were not handed over."""
        self.stack.close()
        for path in self.ours:
            self.pending.discard(path, batch=self.batch)
        self.ours.clear()

    def _scratch(self) -> Path:
        path = self.pending.scratch(self.path, batch=self.batch)
        self.ours.append(path)
        return path

    def _expect(self, table: Table, column: str | None, positions: Positions) -> None:
        """Remember which rows (None: are dropped; else: may differ in this column), for the comparison."""
        known = self.drops if column is None else self.changes.setdefault(table.name, {})
        key = table.name if column is None else column
        known[key] = np.union1d(known[key], positions) if key in known else positions

    def _compare(self, new: Path) -> None:
        """Raise DoesNotHold unless every row that was not ordered to change is in the new file as it was."""
        db = self.live
        db.execute("PRAGMA temp_store=MEMORY")
        db.execute("ATTACH ? AS survivors", (f"{new.absolute().as_uri()}?mode=ro",))
        schema = "SELECT type, name, tbl_name, sql FROM {}.sqlite_master"
        for one, other in (("main", "survivors"), ("survivors", "main")):
            if db.execute(f"{schema.format(one)} EXCEPT {schema.format(other)}").fetchone():
                raise DoesNotHold(f"{self.unit}: tables or indexes are not the same after rewriting")
        for pragma in ("user_version", "application_id", "page_size", "auto_vacuum", "encoding"):
            values = {db.execute(f"PRAGMA {where}.{pragma}").fetchone()[0] for where in ("main", "survivors")}
            if len(values) != 1:
                raise DoesNotHold(f"{self.unit}: {pragma} is not the same after rewriting")
        for name in plain_tables(db):
            before, after, same = self._same(db, name)
            if not (before == after == same):
                raise DoesNotHold(
                    f"{self.unit}: expected {before} rows of {name} to survive unchanged, found {same} of {after}",
                    hint="nothing was published; the old database is as it was",
                )
        db.execute("DETACH survivors")

    def _same(self, db: sqlite3.Connection, name: str) -> tuple[int, int, int]:
        """(rows expected to survive, rows there, rows that are the same but for declared changes) of one table."""
        info = db.execute(f"PRAGMA main.table_xinfo({quoted(name)})").fetchall()
        columns = [row[1] for row in info]
        generated = {row[1] for row in info if row[6] in (2, 3)}  # computed from others, perhaps from a changed one
        keys = row_key(db, name, columns)
        declared = self.changes.get(name, {})
        anywhere = {table for table, _column in self.whole}
        clauses = [f"o.{key} = n.{key}" for key in keys]
        for column in columns:
            q = quoted(column)
            equal = f"(o.{q} COLLATE BINARY IS n.{q} AND typeof(o.{q}) = typeof(n.{q}))"
            positions = declared.get(column)
            if column in generated and declared:
                positions = np.unique(np.concatenate(list(declared.values())))
            if column in generated and name in anywhere:
                continue
            if positions is not None:
                clauses.append(f"({equal} OR o.{keys[0]} IN (SELECT id FROM {remember(db, positions)}))")
            elif (name, column) not in self.whole:
                clauses.append(equal)
        table = quoted(name)
        before = count(db, f"main.{table}")
        if name in self.drops:
            gone = remember(db, self.drops[name])
            clauses.append(f"o.{keys[0]} NOT IN (SELECT id FROM {gone})")
            before -= count(db, gone)
        same = count(db, f"main.{table} o JOIN survivors.{table} n ON {' AND '.join(clauses)}")
        return before, count(db, f"survivors.{table}"), same

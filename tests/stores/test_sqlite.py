"""SQLite databases as stores: what is erased is gone from every byte, and nobody else's row is touched."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from contracts import store as contract

from fangxin.data import medium
from fangxin.data.errors import NotAllowed, StoreUnavailable, UnitChanged
from fangxin.data.stores import sqlite_rewrite, sqlite_tables
from fangxin.data.stores.sqlite import SqliteStore
from fangxin.data.vocabulary import (
    Blank,
    Change,
    Collection,
    Erasure,
    Field,
    Meter,
    Method,
    Order,
    Positions,
    Redaction,
    StoreAddress,
)

PEOPLE = 3000
NEEDLES = (b"13900001234", "王小明".encode(), b"xiaoming@example.com")


def ids(*values: int) -> Positions:
    return np.array(values, dtype=np.int64)


def collection(name: str = "people", *columns: str, url: str = "crm.db", glob: str = "*") -> Collection:
    chosen = columns or ("id", "name", "phone", "mail", "note", "score")
    return Collection("crm", name, tuple(Field(c) for c in chosen), StoreAddress("sqlite", url, glob))


def make(path: Path, *, wal: bool = False, journal: str = "DELETE", extra: str = "", people: int = PEOPLE) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA secure_delete=OFF")
        db.execute(f"PRAGMA journal_mode={'WAL' if wal else journal}")
        db.execute("PRAGMA user_version=7")
        db.execute("PRAGMA application_id=99")
        db.executescript(
            "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT NOT NULL, phone TEXT UNIQUE, mail TEXT, note TEXT,"
            " score REAL NOT NULL DEFAULT 0.5); CREATE INDEX by_mail ON people (mail);"
            "CREATE TABLE calls (caller TEXT, callee TEXT, at INTEGER);" + extra
        )
        db.execute("BEGIN")
        db.executemany(
            "INSERT INTO people (id, name, phone, mail, note) VALUES (?,?,?,?,?)",
            (
                (i, f"person {i}", f"138{i:08d}", f"p{i}@example.org", "n" * (i % 50) + f" note of {i}")
                for i in range(1, people + 1)
            ),
        )
        db.execute(
            "UPDATE people SET name='王小明', phone='13900001234', mail='xiaoming@example.com' WHERE id=?",
            (people // 2,),
        )
        db.execute("UPDATE people SET note='call my friend 13900001234 please' WHERE id=17")
        db.executemany("INSERT INTO calls VALUES (?,?,?)", ((f"138{i:08d}", "x", i) for i in range(1, 500)))
        db.execute("COMMIT")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for others, but not long."""
    monkeypatch.setattr(medium, "PATIENCE", 0.1)
    monkeypatch.setattr(sqlite_tables, "BUSY", 0.1)


class TestSqliteKeepsThePromisesOfEveryStore(contract.StoreContract):
    def lay(self, root: Path) -> None:
        for name, people in (("east.db", contract.PEOPLE[:3]), ("west.db", contract.PEOPLE[3:])):
            with closing(sqlite3.connect(root / name)) as db, db:
                db.execute("CREATE TABLE members (member_id INTEGER PRIMARY KEY, phone TEXT, name TEXT, note TEXT)")
                db.executemany("INSERT INTO members VALUES (?,?,?,?)", [tuple(person.values()) for person in people])

    def open(self, root: Path, meter: Meter | None = None) -> SqliteStore:
        return SqliteStore(root, ".", (contract.collection("sqlite", ".", "*.db"),), meter or Meter())


@pytest.fixture
def home(tmp_path: Path) -> Path:
    make(tmp_path / "crm.db")
    return tmp_path


def open_store(home: Path, *collections: Collection, url: str = "crm.db") -> SqliteStore:
    return SqliteStore(home, url, collections or (collection(),), Meter())


def rows(path: Path, table: str = "people", where: str = "1") -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return db.execute(f"SELECT rowid, * FROM {table} WHERE {where} ORDER BY rowid").fetchall()


def order(store: SqliteStore, *, drop: Positions | None = None, **rest: object) -> Order:
    one = store.collections[0]
    change = Change(one, ids(PEOPLE // 2) if drop is None else drop, **rest)  # type: ignore[arg-type]  # test shorthand
    return Order(store.units()[0], (change,))


def erase(store: SqliteStore, *orders: Order) -> list[Erasure]:
    return list(store.erase(orders, batch="b1"))


def bytes_of(folder: Path) -> Iterator[bytes]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path.read_bytes()


def holds(folder: Path, needle: bytes) -> int:
    return sum(data.count(needle) for data in bytes_of(folder))


def test_nothing_of_an_erased_person_remains_in_any_byte_of_the_folder(home: Path) -> None:
    store = open_store(home)
    assert all(holds(home, needle) for needle in NEEDLES)
    note = Blank(ids(17), "")
    (done,) = erase(store, order(store, blank={"note": note}))
    assert [holds(home, needle) for needle in NEEDLES] == [0, 0, 0]
    assert done.rows_before == {"crm/people": PEOPLE}
    assert done.rows_after == {"crm/people": PEOPLE - 1}
    assert done.changed == {"crm/people": 1}


def test_the_old_file_and_the_working_copy_are_overwritten_with_evidence(home: Path) -> None:
    store = open_store(home)
    old = (home / "crm.db").stat()
    (done,) = erase(store, order(store))
    if done.method is Method.OVERWRITE:
        assert done.reason == ""
        assert (done.destructions[0].ino, done.destructions[0].size) == (old.st_ino, old.st_size)
        assert len(done.destructions) == 3, "the database, its working copy, and the journal of that"
        assert done.bytes_overwritten >= 2 * old.st_size
    else:
        assert done.reason


def test_neighbours_are_untouched_and_so_is_the_dress_of_the_database(home: Path) -> None:
    path = home / "crm.db"
    path.chmod(0o640)
    os.setxattr(path, "user.owner", b"crm team")
    before, calls = rows(path, where=f"id != {PEOPLE // 2}"), rows(path, "calls")
    store = open_store(home)
    erase(store, order(store))
    assert rows(path) == before
    assert rows(path, "calls") == calls
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.getxattr(path, "user.owner") == b"crm team"
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (7,)
        assert db.execute("PRAGMA application_id").fetchone() == (99,)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_only_the_mentioned_text_of_a_neighbours_row_changes(home: Path) -> None:
    store = open_store(home)
    before = rows(home / "crm.db", where="id = 17")[0]
    redaction = Redaction(ids(17, 17), pa.array(["1390000", "13900001234"]))
    erase(store, order(store, redact={"note": redaction}))
    after = rows(home / "crm.db", where="id = 17")[0]
    assert after[5] == "call my friend *** please"
    assert after[:5] + after[6:] == before[:5] + before[6:]


def test_a_wal_database_leaves_nothing_in_its_wal_and_stays_a_wal_database(tmp_path: Path) -> None:
    make(tmp_path / "crm.db", wal=True)
    pid = os.fork()
    if pid == 0:  # an application that dies with its last commits only in the WAL
        db = sqlite3.connect(tmp_path / "crm.db", isolation_level=None)
        db.execute("UPDATE people SET note='late 13900001234' WHERE id=18")
        os._exit(0)
    os.waitpid(pid, 0)
    wal = tmp_path / "crm.db-wal"
    held = wal.stat()
    assert b"late 13900001234" in wal.read_bytes()
    store = open_store(tmp_path)
    seen = sum(len(r.positions) for _, r in store.scan({"crm/people": ["note"]}))
    assert seen == PEOPLE
    (done,) = erase(store, order(store, blank={"note": Blank(ids(17, 18), None)}))
    store.forget(batch="b1")
    assert [holds(tmp_path, needle) for needle in NEEDLES] == [0, 0, 0]
    assert held.st_ino in {d.ino for d in done.destructions} or done.reason
    assert sorted(p.name for p in tmp_path.iterdir()) == ["crm.db"]
    with closing(sqlite3.connect(tmp_path / "crm.db")) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert len(rows(tmp_path / "crm.db")) == PEOPLE - 1


def test_a_kept_journal_is_destroyed_with_its_database(tmp_path: Path) -> None:
    make(tmp_path / "crm.db", journal="PERSIST")
    with closing(sqlite3.connect(tmp_path / "crm.db", isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=PERSIST")
        db.execute("UPDATE people SET score=1")
    journal = (tmp_path / "crm.db-journal").stat()
    assert NEEDLES[2] in (tmp_path / "crm.db-journal").read_bytes()
    store = open_store(tmp_path)
    (done,) = erase(store, order(store, blank={"note": Blank(ids(17), "")}))
    assert journal.st_ino in {d.ino for d in done.destructions} or done.reason
    assert [holds(tmp_path, needle) for needle in NEEDLES] == [0, 0, 0]


def test_a_journal_that_sqlite_rolls_back_under_our_hands_is_destroyed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that dies after our last look leaves one; SQLite would unlink it with its bytes."""
    path, before = home / "crm.db", rows(home / "crm.db")
    if (pid := os.fork()) == 0:
        db = sqlite3.connect(path, isolation_level=None)
        db.executescript("PRAGMA cache_size=1; BEGIN; UPDATE people SET mail='other'")
        os._exit(0)
    os.waitpid(pid, 0)
    journal = (home / "crm.db-journal").stat()
    assert NEEDLES[2] in (home / "crm.db-journal").read_bytes()
    store, destroyed = open_store(home), []
    discard = store.pending.discard
    monkeypatch.setattr(store.pending, "discard", lambda p, *, batch: destroyed.append(discard(p, batch=batch)))
    work = sqlite_rewrite.Work(store.pending, path, "b1")
    work.lock()
    work.close()
    store.forget(batch="b1")
    assert any(done.refused or journal.st_ino in {d.ino for d in done.destructions} for done in destroyed)
    assert sorted(p.name for p in home.iterdir()) == ["crm.db"]
    assert rows(path) == before


def test_full_text_indexes_forget_the_words_and_triggers_do_not_fire(tmp_path: Path) -> None:
    make(
        tmp_path / "crm.db",
        extra="CREATE VIRTUAL TABLE words USING fts5(note, content='people', content_rowid='id');"
        "CREATE TABLE log (what TEXT);"
        "CREATE TRIGGER gone AFTER DELETE ON people BEGIN INSERT INTO log VALUES (old.phone); END;",
    )
    path = tmp_path / "crm.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE people SET note='zanzibarian secrets' WHERE id=?", (PEOPLE // 2,))
        db.execute("INSERT INTO words(words) VALUES ('rebuild')")
    assert holds(tmp_path, b"anzibarian")
    store = open_store(tmp_path)
    erase(store, order(store))
    assert holds(tmp_path, b"anzibarian") == 0
    assert rows(path, "log") == []
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM words WHERE words MATCH 'note'").fetchone()[0] == PEOPLE - 2
        assert db.execute("SELECT name FROM sqlite_master WHERE type='trigger'").fetchall() == [("gone",)]


def test_erasing_twice_changes_nothing_and_reports_the_same(home: Path) -> None:
    store = open_store(home)
    work = order(store)
    first = erase(store, work)
    state = (home / "crm.db").stat()
    again = erase(open_store(home), work)
    assert again == first
    assert (home / "crm.db").stat().st_mtime_ns == state.st_mtime_ns


def test_a_database_that_changed_since_it_was_located_is_refused_unharmed(home: Path) -> None:
    store = open_store(home)
    work = order(store)
    with closing(sqlite3.connect(home / "crm.db")) as db, db:
        db.execute("UPDATE people SET score=2 WHERE id=1")
    before = (home / "crm.db").read_bytes()
    with pytest.raises(UnitChanged):
        erase(store, work)
    assert (home / "crm.db").read_bytes() == before


def test_a_locked_or_open_database_is_refused_unharmed(home: Path) -> None:
    store = open_store(home)
    work = order(store)
    before = (home / "crm.db").read_bytes()
    with closing(sqlite3.connect(home / "crm.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreUnavailable, match="locked"):
            erase(store, work)
        with pytest.raises(StoreUnavailable, match="locked"):
            list(store.scan({"crm/people": ["id"]}))
        other.execute("ROLLBACK")
    store.forget(batch="b1")
    assert (home / "crm.db").read_bytes() == before
    assert sorted(p.name for p in home.iterdir()) == ["crm.db"]


def kill_at(store: SqliteStore, work: Order, n: int) -> bool:
    """Erase in a child that dies at the n-th step; whether it got to the end instead."""
    pid = os.fork()
    if pid == 0:
        left = [n]

        def at(_step: str) -> None:
            left[0] -= 1
            if left[0] < 0:
                os._exit(9)

        store.pending.at = at
        try:
            erase(store, work)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_kill_amid_the_deleting_leaves_a_journal_that_recovery_destroys_with_the_copy(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The working copy's journal holds the rows just deleted: it keeps its name until its bytes are overwritten."""
    store = open_store(home)
    work = order(store)
    pid = os.fork()
    if pid == 0:
        monkeypatch.setattr(sqlite_rewrite, "settle_indexes", lambda _db: os.kill(os.getpid(), signal.SIGKILL))
        with suppress(BaseException):
            list(store.erase([work], batch="b1"))
        os._exit(1)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    (journal,) = home.glob(".fangxin-*-journal")
    assert NEEDLES[2] in journal.read_bytes()
    assert journal in store.files()
    store.recover(batch="b1")
    assert not journal.exists()
    assert not [p for p in home.rglob(".fangxin-*") if p.is_file()]


@pytest.mark.parametrize("journal", [pytest.param("DELETE", marks=pytest.mark.drill), "PERSIST"])
def test_a_kill_after_any_step_loses_nobody_and_the_rerun_ends_the_same(tmp_path: Path, journal: str) -> None:
    for n in range(40):
        home = tmp_path / str(n)
        home.mkdir()
        make(home / "crm.db", people=200, journal=journal)
        assert (home / "crm.db-journal").exists() == (journal == "PERSIST")
        store = open_store(home)
        work = order(store, drop=ids(100), blank={"note": Blank(ids(17), "")})
        survivors = rows(home / "crm.db", where="id NOT IN (17, 100)")
        ended = kill_at(store, work, n)
        assert rows(home / "crm.db", where="id NOT IN (17, 100)") == survivors
        store.recover(batch="b1")
        if store.units()[0] == work.unit:
            assert holds(home, NEEDLES[1])
        (done,) = erase(store, work)
        assert done.rows_after == {"crm/people": 199}
        assert rows(home / "crm.db", where="id NOT IN (17, 100)") == survivors
        assert [holds(home, needle) for needle in NEEDLES] == [0, 0, 0]
        store.forget(batch="b1")
        assert [p.name for p in home.iterdir()] == ["crm.db"]
        if ended:
            break
    assert ended
    assert n > 10


def test_a_scan_reads_only_what_is_wanted_with_exact_types(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "crm.db", isolation_level=None)) as db:
        db.execute('CREATE TABLE "odd ""table" (a INTEGER, b TEXT, c BLOB, d NUMERIC, e, f REAL)')
        db.execute("INSERT INTO \"odd \"\"table\" VALUES (9007199254740993, 'x', x'00ff', 1, 5, 1.5)")
        db.execute('INSERT INTO "odd ""table" VALUES (NULL, NULL, NULL, 2.5, \'text\', NULL)')
    one = collection('odd "table', "a", "b", "c", "d", "e", "f")
    store = open_store(tmp_path, one)
    store.check(for_writing=True)
    ((address, found),) = store.scan({one.address: ["e", "a", "c", "b"]})
    assert address == one.address
    assert found.positions.tolist() == [1, 2]
    assert found.columns.to_pydict() == {
        "e": ["5", "text"],
        "a": [9007199254740993, None],
        "c": [b"\x00\xff", None],
        "b": ["x", None],
    }
    assert store.fields(one) == pa.schema(
        {
            "a": pa.int64(),
            "b": pa.string(),
            "c": pa.large_binary(),
            "d": pa.float64(),
            "e": pa.string(),
            "f": pa.float64(),
        }
    )


def test_take_returns_whole_rows_at_their_positions(home: Path) -> None:
    store = open_store(home)
    ((_, found),) = store.take({"crm/people": {"crm.db": ids(3, 1500, 2999)}})
    assert found.positions.tolist() == [3, 1500, 2999]
    assert found.columns.column("phone").to_pylist() == ["13800000003", "13900001234", "13800002999"]
    assert found.columns.schema.names == ["id", "name", "phone", "mail", "note", "score"]


@pytest.mark.parametrize("wal", [False, True])
def test_a_planted_row_is_found_by_the_same_scan(tmp_path: Path, wal: bool) -> None:
    make(tmp_path / "crm.db", wal=wal)
    store = open_store(tmp_path)
    store.plant([(store.collections[0], {"id": 9_000_001, "phone": "16600000000"})])
    found = {
        phone
        for _, r in store.scan({"crm/people": ["phone", "name"]})
        for phone in r.columns.column("phone").to_pylist()
    }
    assert "16600000000" in found
    assert not (tmp_path / "crm.db-wal").exists() or (tmp_path / "crm.db-wal").stat().st_size == 0


def test_columns_put_under_keys_leave_no_plaintext_behind(home: Path) -> None:
    store = open_store(home)

    def turn(_: Collection, columns: pa.RecordBatch) -> pa.RecordBatch:
        sealed = [None if v is None else b"\x01" + v.encode()[::-1] for v in columns.column("mail").to_pylist()]
        return pa.record_batch([pa.array(sealed, pa.large_binary())], names=["mail"])

    before = [r[:4] + r[5:] for r in rows(home / "crm.db")]
    (done,) = store.rewrite({"crm/people": ["mail"]}, turn, batch="p1")
    assert holds(home, b"@example.org") == 0
    assert [r[:4] + r[5:] for r in rows(home / "crm.db")] == before
    assert store.fields(store.collections[0]).field("mail").type == pa.large_binary()
    assert done.changed == {"crm/people": PEOPLE}
    assert list(store.rewrite({"crm/people": ["mail"]}, turn, batch="p1")) == [done]


def test_many_databases_in_a_folder_are_each_opened_once_per_pass(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    for i in range(3):
        make(tmp_path / "shards" / f"s{i}.db", people=50)
    store = open_store(tmp_path, collection(url="shards", glob="*.db"), collection("calls", "caller"), url="shards")
    store.meter.step = "locate"
    assert len(list(store.scan({"crm/people": ["phone"], "crm/calls": ["caller"]}))) == 6
    assert store.meter.most() == {"locate": 1}
    store.meter.step = "erase"
    orders = [Order(u, (Change(store.collections[0], ids(25)),)) for u in store.units()]
    assert len(erase(store, *orders)) == 3
    assert store.meter.most() == {"locate": 1, "erase": 1}


def test_plain_values_that_arrive_later_are_put_under_keys_without_touching_the_others(home: Path) -> None:
    store = open_store(home)

    def turn(_: Collection, columns: pa.RecordBatch) -> pa.RecordBatch:
        sealed = [b"\x01" + v.encode()[::-1] for v in columns.column("mail").to_pylist()]
        return pa.record_batch([pa.array(sealed, pa.large_binary())], names=["mail"])

    list(store.rewrite({"crm/people": ["mail"]}, turn, batch="p1"))
    store.plant([(store.collections[0], {"id": 9_000_001, "mail": "late@example.net"})])
    (done,) = store.rewrite({"crm/people": ["mail"]}, turn, batch="p2")
    assert done.changed == {"crm/people": 1}
    assert holds(home, b"late@example.net") == 0
    mails = [mail for (_, _, _, _, mail, *_) in rows(home / "crm.db")]
    assert mails[0] == b"\x01gro.elpmaxe@1p"
    assert mails[-1] == b"\x01ten.elpmaxe@etal"


def no_file(path: Path) -> None:
    path.unlink()


def a_link(path: Path) -> None:
    path.rename(path.with_name("real"))
    path.symlink_to("real")


def a_second_name(path: Path) -> None:
    os.link(path, path.with_name("other"))


def truncated(path: Path) -> None:
    os.truncate(path, 20_000)


def foreign(path: Path) -> None:
    path.write_bytes(b"PAR1" + bytes(500))


def read_only(path: Path) -> None:
    path.chmod(0o444)


def hot_journal(path: Path) -> None:
    path.with_name("crm.db-journal").write_bytes(bytes.fromhex("d9d505f920a163d7") + bytes(600))


@pytest.mark.parametrize("spoil", [no_file, a_link, a_second_name, truncated, foreign, read_only, hot_journal])
def test_what_is_no_sound_database_of_its_own_is_refused_clearly(home: Path, spoil: object) -> None:
    store = open_store(home)
    spoil(home / "crm.db")  # type: ignore[operator]  # one of the functions above
    with pytest.raises(StoreUnavailable, match=r"crm\.db.*expected.*found") as refused:
        store.check(for_writing=True)
    assert refused.value.hint


def test_a_catalog_naming_what_is_not_there_is_told_what_is(home: Path) -> None:
    with closing(sqlite3.connect(home / "crm.db")) as db:
        db.executescript("CREATE VIEW v AS SELECT 1 AS id; CREATE TABLE w (id TEXT PRIMARY KEY) WITHOUT ROWID")
    for one, words in (
        (collection("nobody"), "no such table"),
        (collection("people", "fax"), "column fax"),
        (collection("v", "id"), "a view"),
        (collection("w", "id"), "WITHOUT ROWID"),
    ):
        with pytest.raises(StoreUnavailable, match=words):
            open_store(home, one).check(for_writing=False)


def test_a_mask_that_breaks_a_constraint_changes_nothing(home: Path) -> None:
    store = open_store(home)
    before = (home / "crm.db").read_bytes()
    with pytest.raises(StoreUnavailable, match="constraint"):
        erase(store, order(store, blank={"phone": Blank(ids(1, 2), "same")}))
    store.forget(batch="b1")
    assert (home / "crm.db").read_bytes() == before
    assert [p.name for p in home.iterdir()] == ["crm.db"]


def test_a_mask_that_the_table_refuses_is_refused_in_the_rehearsal_and_nothing_stays_of_it(tmp_path: Path) -> None:
    make(tmp_path / "crm.db")
    before = (tmp_path / "crm.db").read_bytes()
    store = open_store(tmp_path)
    work = order(store, blank={"phone": Blank(ids(1, 2), "***")})
    with pytest.raises(NotAllowed, match="people break a rule"):
        store.rehearse([work])
    assert (tmp_path / "crm.db").read_bytes() == before
    assert [p for p in tmp_path.rglob("*") if p.is_file() and p.name != "crm.db"] == []


def test_a_rehearsal_leaves_the_database_and_its_wal_as_they_were_located(tmp_path: Path) -> None:
    make(tmp_path / "crm.db", wal=True)
    store = open_store(tmp_path)
    work = order(store)
    store.rehearse([work])
    assert store.units() == (work.unit,)
    (done,) = erase(store, work)
    assert done.rows_after == {"crm/people": PEOPLE - 1}


def test_a_column_computed_from_a_masked_one_follows_it(tmp_path: Path) -> None:
    extra = "ALTER TABLE people ADD COLUMN tail TEXT AS (substr(note, -4));"
    make(tmp_path / "crm.db", extra=extra)
    store = open_store(tmp_path)
    work = order(store, blank={"note": Blank(ids(17), "gone")})
    store.rehearse([work])
    erase(store, work)
    assert rows(tmp_path / "crm.db", where="id = 17")[0][-1] == "gone"


@pytest.mark.parametrize("made", ["using/**/\"FTS5\"(note, content='')", 'USING fts4(note, content="")'])
def test_a_full_text_index_that_cannot_forget_is_refused(tmp_path: Path, made: str) -> None:
    make(tmp_path / "crm.db", extra=f"create virtual -- words\n table words {made};")
    with pytest.raises(StoreUnavailable, match="contentless"):
        open_store(tmp_path).check(for_writing=True)


def test_an_index_that_rebuilding_would_change_for_others_is_refused(tmp_path: Path) -> None:
    extra = (
        "CREATE TABLE docs (id INTEGER PRIMARY KEY, body TEXT); INSERT INTO docs VALUES (1, '放心退款流程');"
        "CREATE VIRTUAL TABLE words USING fts5(body, content='docs', content_rowid='id');"
        "INSERT INTO words (rowid, body) VALUES (1, '放心 退款 流程');"
    )
    make(tmp_path / "crm.db", extra=extra)
    store = open_store(tmp_path)
    with pytest.raises(StoreUnavailable, match="what its content table says"):
        store.rehearse([order(store)])


def test_a_planted_record_fires_no_trigger_and_indexes_follow_it(tmp_path: Path) -> None:
    extra = (
        "CREATE TABLE log (what TEXT); CREATE VIRTUAL TABLE words USING fts5(note, content='people',"
        " content_rowid='id'); CREATE TRIGGER told AFTER INSERT ON people BEGIN INSERT INTO log VALUES (new.phone);"
        " INSERT INTO words (rowid, note) VALUES (new.id, new.note); END;"
    )
    make(tmp_path / "crm.db", extra=extra)
    with closing(sqlite3.connect(tmp_path / "crm.db", isolation_level=None)) as db:
        db.execute("DELETE FROM log")
        db.execute("INSERT INTO words (words) VALUES ('rebuild')")
        schema = db.execute("SELECT * FROM sqlite_master WHERE type = 'trigger'").fetchall()
    store = open_store(tmp_path)
    store.plant([(store.collections[0], {"name": "canary", "phone": "19900000000", "note": "canarywords"})])
    assert rows(tmp_path / "crm.db", "log") == []
    assert len(rows(tmp_path / "crm.db", "words", "words MATCH 'canarywords'")) == 1
    with closing(sqlite3.connect(tmp_path / "crm.db")) as db:
        after = db.execute("SELECT * FROM sqlite_master WHERE type = 'trigger'").fetchall()
    assert [row[4] for row in after] == [row[4] for row in schema]


@pytest.mark.parametrize("given", [0, 7])
def test_a_planted_record_leaves_no_gap_in_the_numbers_that_a_table_gives(tmp_path: Path, given: int) -> None:
    make(tmp_path / "crm.db")
    with closing(sqlite3.connect(tmp_path / "crm.db")) as db, db:
        db.execute("CREATE TABLE tickets (id INTEGER PRIMARY KEY AUTOINCREMENT, phone TEXT)")
        db.executemany("INSERT INTO tickets (phone) VALUES (?)", [("x",)] * given)
        db.execute("DELETE FROM tickets WHERE id > 5")
    before = rows(tmp_path / "crm.db", "sqlite_sequence")
    tickets = collection("tickets", "id", "phone")
    store = SqliteStore(tmp_path, "crm.db", (tickets,), Meter())
    store.plant([(tickets, {"id": 880_000_000_000_000_001, "phone": "19900000000"})])
    assert rows(tmp_path / "crm.db", "sqlite_sequence") == before
    assert rows(tmp_path / "crm.db", "tickets")[-1][0] == 880_000_000_000_000_001

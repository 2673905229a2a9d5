"""DuckDB databases as stores: who is erased is in no row and no byte, though a search of bytes would prove nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from contracts import store as contract
from hypothesis import given, settings
from hypothesis import strategies as st

from fangxin.data import medium
from fangxin.data.errors import DoesNotHold, NotAllowed, StoreUnavailable, UnitChanged
from fangxin.data.stores import duckdb_rewrite, duckdb_tables
from fangxin.data.stores.duckdb import DuckdbStore
from fangxin.data.stores.duckdb_tables import Gaps, Table
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


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for others, but not long."""
    monkeypatch.setattr(medium, "PATIENCE", 0.1)


PLAIN = {"force_compression": "uncompressed"}  # so that values can be seen in the bytes


def decoded(path: Path) -> str:
    """Every row of every table of a database file, as text; "" for any other file."""
    with path.open("rb") as file:
        if file.read(12)[8:] != b"DUCK":
            return ""
    with duckdb.connect(config={"temp_directory": ""}) as db:
        db.execute(f"ATTACH '{path}' AS seen (READ_ONLY)")
        names = db.execute(
            "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = 'seen'"
        ).fetchall()
        return "".join(str(db.execute(f'SELECT * FROM seen."{s}"."{t}"').fetchall()) for s, t in names)


class TestDuckdbKeepsThePromisesOfEveryStore(contract.StoreContract):
    """With every value in the clear in the old files and the new ones, so that a search of bytes can see."""

    @pytest.fixture(autouse=True)
    def uncompressed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(duckdb_tables, "SETTINGS", {**duckdb_tables.SETTINGS, **PLAIN})

    def lay(self, root: Path) -> None:
        for name, content in self.laid().items():
            (root / name).write_bytes(content)

    @staticmethod
    @cache
    def laid() -> dict[str, bytes]:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            TestDuckdbKeepsThePromisesOfEveryStore.write(root)
            return {path.name: path.read_bytes() for path in root.iterdir()}

    @staticmethod
    def write(root: Path) -> None:
        columns = "member_id BIGINT PRIMARY KEY, phone VARCHAR, name VARCHAR, note VARCHAR"
        for name, people in (("east.duckdb", contract.PEOPLE[:3]), ("west.duckdb", contract.PEOPLE[3:])):
            with duckdb.connect(root / name, config=PLAIN) as db:
                db.execute(f"CREATE TABLE members ({columns})")
                rows = [list(person.values()) for person in people]
                gone = [[90 + n, "x", "x", "x"] for n in range(3)]  # an application deleted rows: row ids have gaps
                db.executemany("INSERT INTO members VALUES (?,?,?,?)", [*gone[:2], rows[0], gone[2], *rows[1:]])
                db.execute("DELETE FROM members WHERE member_id >= 90")

    def open(self, root: Path, meter: Meter | None = None) -> DuckdbStore:
        return DuckdbStore(root, ".", (contract.collection("duckdb", ".", "*.duckdb"),), meter or Meter())

    def every_byte(self, store: Any) -> bytes:
        """All bytes, and the rows of every database among them."""
        return super().every_byte(store) + "".join(decoded(path) for path in store.files()).encode()

    def test_a_raw_search_sees_everybody_before(self, root: Path) -> None:
        raw = contract.StoreContract.every_byte(self, self.open(root))
        assert all(text.encode() in raw for text in (*contract.ALONE, contract.PERSON))


# ---------------------------------------------------------------- one richer database

PEOPLE = 400
NEEDLES = (b"13900001234", "王小明".encode(), b"xiaoming@example.com")
RICH = """
CREATE SEQUENCE numbers START 5; CREATE TYPE mood AS ENUM ('glad', 'sad'); CREATE SCHEMA archive;
CREATE TABLE people (id INTEGER PRIMARY KEY, name VARCHAR NOT NULL, phone VARCHAR UNIQUE, mail VARCHAR,
  note VARCHAR DEFAULT 'none', score DOUBLE CHECK (score < 100), feels mood, double_id INTEGER GENERATED ALWAYS AS
  (id * 2), tags VARCHAR[], home STRUCT(street VARCHAR, "no" INTEGER), born DATE, made TIMESTAMPTZ,
  total DECIMAL(20, 3),
  big HUGEINT, raw BLOB, number INTEGER DEFAULT nextval('numbers'));
CREATE TABLE calls (caller INTEGER REFERENCES people (id), callee VARCHAR, minute INTEGER);
CREATE TABLE archive.people (id INTEGER, remark VARCHAR);
CREATE INDEX by_mail ON people (mail); CREATE VIEW names AS SELECT name FROM people;
CREATE MACRO twice(a) AS a * 2; CREATE MACRO first_ones(n) AS TABLE SELECT * FROM people LIMIT n;
COMMENT ON TABLE people IS 'customers'; COMMENT ON COLUMN people.name IS 'as on the card'; COMMENT ON VIEW names IS 'v';
"""


def make(path: Path, *, people: int = PEOPLE, options: str = "", settings: Mapping[str, str] = PLAIN) -> None:
    path.write_bytes(made(people, options, tuple(settings.items())))


@cache
def made(people: int, options: str, settings: tuple[tuple[str, str], ...]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "made.duckdb", people, options, settings)
        return (Path(folder) / "made.duckdb").read_bytes()


def write(path: Path, people: int, options: str, settings: Sequence[tuple[str, str]]) -> None:
    with duckdb.connect(config=dict(settings)) as db:
        db.execute(f"ATTACH '{path}' AS made {options}")
        db.execute("USE made")
        db.execute(RICH)
        db.execute(
            "INSERT INTO people BY NAME SELECT i AS id, 'person ' || i AS name, '138' || lpad(i::VARCHAR, 8, '0') AS"
            " phone, 'p' || i || '@example.org' AS mail, 'note of ' || i AS note, i % 90 AS score, 'glad' AS feels,"
            " ['a', 'b' || i] AS tags, {'street': 's' || i, 'no': i} AS home, DATE '1990-01-01' + i::INTEGER AS born,"
            " TIMESTAMPTZ '2024-01-01 00:00:00+00' AS made, i AS total, i AS big, encode('raw' || i) AS raw"
            " FROM range(1, ?) r(i)",
            [people + 1],
        )
        db.execute(
            "UPDATE people SET name = '王小明', phone = '13900001234', mail = 'xiaoming@example.com' WHERE id = ?",
            [people // 2],
        )
        db.execute("UPDATE people SET note = 'call my friend 13900001234 please' WHERE id = 17")
        db.execute("INSERT INTO calls SELECT i, 'x', i FROM range(1, 200) r(i)")
        db.execute("INSERT INTO archive.people VALUES (1, 'old'), (NULL, NULL)")


def collection(name: str = "people", *columns: str) -> Collection:
    chosen = columns or ("id", "name", "phone", "mail", "note", "score")
    return Collection("crm", name, tuple(Field(c) for c in chosen), StoreAddress("duckdb", "crm.duckdb"))


def open_store(home: Path, *collections: Collection) -> DuckdbStore:
    return DuckdbStore(home, "crm.duckdb", collections or (collection(),), Meter())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(duckdb_tables, "SETTINGS", {**duckdb_tables.SETTINGS, **PLAIN})
    make(tmp_path / "crm.duckdb")
    return tmp_path


def ids(*values: int) -> Positions:
    return np.array(values, dtype=np.int64)


def at(store: DuckdbStore, *people: int) -> Positions:
    """The positions of people, by their id."""
    wanted = [(rows.positions, rows.columns.column("id")) for _, rows in store.scan({"crm/people": ["id"]})]
    where = {i: p for positions, column in wanted for p, i in zip(positions.tolist(), column.to_pylist(), strict=True)}
    return ids(*(where[one] for one in people))


def order(store: DuckdbStore, *, drop: Positions | None = None, **rest: object) -> Order:
    change = Change(store.collections[0], at(store, PEOPLE // 2) if drop is None else drop, **rest)  # type: ignore[arg-type]  # test shorthand
    return Order(store.units()[0], (change,))


@given(st.sets(st.integers(0, 60), min_size=1))
@settings(max_examples=25, deadline=None)
def test_rows_are_numbered_as_if_none_had_been_deleted(there: set[int]) -> None:
    with duckdb.connect(":memory:") as db:
        db.execute("ATTACH ':memory:' AS live")
        db.execute("CREATE TABLE live.t AS SELECT i FROM range(61) r(i)")
        db.execute(f"DELETE FROM live.t WHERE i NOT IN ({', '.join(map(str, there))})")
        gaps = Gaps.of(db, Table("t.duckdb", "main", "t", {}))
    ids = np.array(sorted(there), np.int64)
    assert gaps.positions(ids).tolist() == list(range(len(ids)))
    assert gaps.ids(np.arange(len(ids))).tolist() == ids.tolist()
    assert gaps.ids(np.array([len(ids)])) > ids[-1]


def erase(store: DuckdbStore, *orders: Order) -> list[Erasure]:
    return list(store.erase(orders, batch="b1"))


def rows(path: Path, query: str = "FROM people ORDER BY rowid") -> list[tuple[Any, ...]]:
    with duckdb.connect(path, read_only=True) as db:
        return db.execute(query).fetchall()


def holds(folder: Path, needle: bytes) -> int:
    return sum(path.read_bytes().count(needle) for path in folder.rglob("*") if path.is_file())


def test_nothing_of_an_erased_person_remains_in_any_byte_of_the_folder(home: Path) -> None:
    store = open_store(home)
    assert all(holds(home, needle) for needle in NEEDLES)
    old = (home / "crm.duckdb").stat()
    (done,) = erase(store, order(store, blank={"note": Blank(at(store, 17), "")}))
    assert [holds(home, needle) for needle in NEEDLES] == [0, 0, 0]
    assert (done.rows_before, done.rows_after) == ({"crm/people": PEOPLE}, {"crm/people": PEOPLE - 1})
    assert done.changed == {"crm/people": 1}
    assert done.construction is not None
    assert (done.construction.tables, done.construction.rows) == (3, PEOPLE - 1 + 199 + 2)
    if done.method is Method.OVERWRITE:
        assert [(d.ino, d.size) for d in done.destructions] == [(old.st_ino, old.st_size)]
    store.forget(batch="b1")
    assert [p.name for p in home.iterdir()] == ["crm.duckdb"]


def test_a_raw_search_of_a_compressed_database_shows_nothing_even_before(tmp_path: Path) -> None:
    """Why the store is opaque: the people are there, and a search of the bytes says no."""
    path = tmp_path / "crm.duckdb"
    with duckdb.connect(path) as db:
        db.execute("CREATE TABLE people AS SELECT i AS id, 'p' || i || '@example.org' AS mail FROM range(20000) r(i)")
    everybody = [f"p{i}@example.org" for i in range(5, 20_000, 37)]
    raw, cells = path.read_bytes(), decoded(path)
    assert not [mail for mail in everybody if mail.encode() in raw]
    assert all(mail in cells for mail in everybody)
    assert not DuckdbStore.capabilities.raw_scan
    store = open_store(tmp_path, collection("people", "id", "mail"))
    (done,) = erase(store, order(store))
    assert done.construction is not None
    assert done.construction.rows == 19_999
    assert f"p{PEOPLE // 2}@" not in decoded(path)
    assert f"p{PEOPLE // 2 + 1}@" in decoded(path)


def test_all_that_a_database_consists_of_is_carried_over_and_neighbours_keep_their_order(home: Path) -> None:
    path = home / "crm.duckdb"
    path.chmod(0o640)
    others = f"FROM people WHERE id <> {PEOPLE // 2} ORDER BY rowid"
    before = rows(path, others), rows(path, "FROM calls"), rows(path, "FROM archive.people")
    assert before[0] == rows(path, others.replace("rowid", "id"))
    asked = [
        "SELECT sql, comment, tags FROM duckdb_tables() ORDER BY ALL",
        "SELECT sql, is_unique FROM duckdb_indexes() ORDER BY ALL",
        "SELECT sql, comment FROM duckdb_views() WHERE NOT internal ORDER BY ALL",
        "SELECT sequence_name, last_value, start_value FROM duckdb_sequences()",
        "SELECT function_name, macro_definition FROM duckdb_functions() WHERE NOT internal ORDER BY ALL",
        "SELECT type_name, labels FROM duckdb_types() WHERE NOT internal ORDER BY ALL",
        "SELECT constraint_text FROM duckdb_constraints() ORDER BY ALL",
        "SELECT column_name, comment FROM duckdb_columns() WHERE comment IS NOT NULL AND NOT internal ORDER BY ALL",
    ]
    made = [rows(path, query) for query in asked]
    assert all(made)
    store = open_store(home)
    erase(store, order(store))
    assert (rows(path, others), rows(path, "FROM calls"), rows(path, "FROM archive.people")) == before
    assert [rows(path, query) for query in asked] == made
    assert path.stat().st_mode & 0o777 == 0o640
    with duckdb.connect(path) as db:
        assert db.execute("SELECT twice(4), double_id FROM first_ones(1)").fetchall() == [(8, 2)]
        with pytest.raises(duckdb.ConstraintException):
            db.execute("INSERT INTO people (id, name) VALUES (1, 'again')")


@pytest.mark.parametrize(("options", "version", "block"), [
    ("(STORAGE_VERSION 'v1.0.0', BLOCK_SIZE 16384)", "v1.0.0+", 16384), ("", "v2.0.0+", 262144),
])  # fmt: skip
def test_who_could_read_the_database_before_can_read_it_afterwards(
    tmp_path: Path, options: str, version: str, block: int
) -> None:
    make(tmp_path / "crm.duckdb", options=options)
    store = open_store(tmp_path)
    for person in (17, 18):
        with duckdb.connect(tmp_path / "crm.duckdb", read_only=True) as db:
            assert db.execute("SELECT tags FROM duckdb_databases() WHERE path IS NOT NULL").fetchall() == [
                ({"storage_version": version},)
            ]
            assert db.execute(
                "SELECT block_size FROM pragma_database_size() WHERE database_name = 'crm'"
            ).fetchall() == [(block,)]
        note = Blank(at(store, person), None)
        list(store.erase([order(store, drop=ids(), blank={"note": note})], batch=str(person)))


def killed(path: Path, *statements: str, settings: Mapping[str, str] = PLAIN) -> None:
    """An application that dies with its last changes."""
    if (pid := os.fork()) == 0:
        db = duckdb.connect(path, config=dict(settings))
        for statement in statements:
            db.execute(statement)
        os._exit(0)
    os.waitpid(pid, 0)


def test_a_wal_that_a_killed_writer_left_is_held_before_the_engine_drops_it(home: Path) -> None:
    killed(home / "crm.duckdb", "UPDATE people SET note = 'late 13900001234' WHERE id = 18")
    wal = home / "crm.duckdb.wal"
    held = wal.stat()
    assert NEEDLES[0] in wal.read_bytes()
    store = open_store(home)
    assert [r[4] for r in rows(home / "crm.duckdb", "FROM people WHERE id = 18")] == ["late 13900001234"]
    assert wal in store.files()
    note = Blank(at(store, 17, 18), None)
    store.rehearse([order(store, blank={"note": note})])
    assert wal.stat() == held, "reading and rehearsing leave the WAL alone"
    (done,) = erase(store, order(store, blank={"note": note}))
    store.forget(batch="b1")
    assert [holds(home, needle) for needle in NEEDLES] == [0, 0, 0]
    assert held.st_ino in {d.ino for d in done.destructions} or done.reason
    assert [p.name for p in home.iterdir()] == ["crm.duckdb"]
    assert len(rows(home / "crm.duckdb")) == PEOPLE - 1


def test_what_a_killed_engine_spilled_beside_the_database_is_destroyed(home: Path) -> None:
    killed(
        home / "crm.duckdb",
        "SET memory_limit = '40MB'", "SET threads = 1", "SET preserve_insertion_order = false",
        "CREATE TEMP TABLE t AS SELECT '13900001234 ' || hash(i) AS s, hash(i + 1) AS u FROM range(1000000) r(i)",
    )  # fmt: skip
    spill = list((home / "crm.duckdb.tmp").iterdir())
    assert spill
    store = open_store(home)
    assert set(spill) <= set(store.files())
    old = {p.stat().st_ino for p in spill}
    (done,) = erase(store, order(store))
    assert old <= {d.ino for d in done.destructions} or done.reason
    store.forget(batch="b1")
    assert [p.name for p in home.iterdir()] == ["crm.duckdb"]


def test_nothing_of_ours_is_ever_spilled_or_written_to_a_wal(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[str] = set()
    compare = duckdb_rewrite.Work._compare

    def look(self: duckdb_rewrite.Work, *rest: Any) -> Any:
        seen.update(p.name for p in home.rglob("*") if p.is_file() and ".fangxin-pending" not in str(p))
        return compare(self, *rest)

    monkeypatch.setattr(duckdb_rewrite.Work, "_compare", look)
    store = open_store(home)
    erase(store, order(store))
    assert len(seen) == 2, "the database and its successor"
    assert not any(name.endswith((".wal", ".tmp")) for name in seen)


def test_no_statement_holds_a_value_of_a_person(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    class Overheard:
        def __init__(self, db: duckdb.DuckDBPyConnection) -> None:
            self.db = db

        def execute(self, sql: str, *bound: Any) -> Any:
            said.append(sql)
            return self.db.execute(sql, *bound)

        def sql(self, sql: str, **rest: Any) -> Any:
            said.append(sql)
            return self.db.sql(sql, **rest)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.db, name)

    real = duckdb_tables.engine

    @contextlib.contextmanager
    def engine(*files: Path) -> Iterator[Overheard]:
        with real(*files) as db:
            yield Overheard(db)

    store = open_store(home)
    redaction = Redaction(at(store, 17), pa.array(["13900001234"]))
    work = order(store, redact={"note": redaction}, blank={"mail": Blank(at(store, 18), None)})
    monkeypatch.setattr(duckdb_rewrite, "engine", engine)
    erase(store, work)
    store.plant([(store.collections[0], {"id": 900001, "phone": "19900001111", "name": "canary"})])
    assert len(said) > 40
    values = ("13900001234", "王小明", "xiaoming", "19900001111", "person 1", str(PEOPLE // 2), str(PEOPLE // 2 - 1))
    assert not [sql for sql in said if any(value in sql for value in values)]


def test_only_the_mentioned_text_of_a_neighbours_row_changes(home: Path) -> None:
    store = open_store(home)
    path = home / "crm.duckdb"
    before = rows(path, "FROM people WHERE id = 17")[0]
    redaction = Redaction(np.repeat(at(store, 17), 2), pa.array(["1390000", "13900001234"]))
    erase(store, order(store, redact={"note": redaction}))
    (after,) = rows(path, "FROM people WHERE id = 17")
    assert after[4] == "call my friend *** please"
    assert after[:4] + after[5:] == before[:4] + before[5:]


def test_values_of_every_type_can_be_masked_and_what_is_computed_from_them_follows(home: Path) -> None:
    store = open_store(home)
    one = at(store, 20)
    blank = {"score": Blank(one, 0.5), "mail": Blank(one, "***"), "total": Blank(one, 7), "tags": Blank(one, None),
             "id": Blank(at(store, PEOPLE), 77_777), "note": Blank(at(store, 20, 21), None)}  # fmt: skip
    (done,) = erase(store, order(store, blank=blank))
    assert done.changed == {"crm/people": 3}
    seen = rows(
        home / "crm.duckdb", "SELECT score, mail, total, tags, note FROM people WHERE id IN (20, 21) ORDER BY id"
    )
    assert [[None if v is None else str(v) for v in row] for row in seen] == [
        ["0.5", "***", "7.000", None, None],
        ["21.0", "p21@example.org", "21.000", "['a', 'b21']", None],
    ]
    assert rows(home / "crm.duckdb", "SELECT double_id FROM people WHERE id = 77777") == [(155_554,)]


def test_a_scan_reads_only_what_is_wanted_with_exact_types(home: Path) -> None:
    store = open_store(home)
    ((address, found),) = list(store.scan({"crm/people": ["feels", "big", "born", "raw"]}))
    assert address == "crm/people"
    assert found.columns.schema == pa.schema(
        {"feels": pa.string(), "big": pa.decimal128(38, 0), "born": pa.date32(), "raw": pa.large_binary()}
    )
    assert found.columns.slice(1, 1).to_pylist()[0]["raw"] == b"raw2"
    assert store.fields(store.collections[0]).field("double_id").type == pa.int32()


def test_a_locked_engine_opens_nothing_else(home: Path) -> None:
    (home / "other.csv").write_text("a\n1\n")
    with duckdb_tables.engine(home / "crm.duckdb") as db:
        duckdb_tables.attach(db, home / "crm.duckdb", "live", "READ_ONLY")
        for words in (f"FROM read_csv('{home}/other.csv')", f"COPY (SELECT 1) TO '{home}/o.csv'", "SET threads = 8",
                      f"ATTACH '{home}/n.db' AS new", "INSTALL httpfs", "SET enable_external_access = 1"):  # fmt: skip
            with pytest.raises(duckdb.Error):
                db.execute(words)
    assert sorted(p.name for p in home.iterdir()) == ["crm.duckdb", "other.csv"]


# ---------------------------------------------------------------- what is refused


def test_a_mask_that_the_table_refuses_is_refused_in_the_rehearsal_and_nothing_stays_of_it(home: Path) -> None:
    before = (home / "crm.duckdb").read_bytes()
    store = open_store(home)
    work = order(store, blank={"phone": Blank(at(store, 1, 2), "19912312312")})
    with pytest.raises(NotAllowed, match="people break a rule") as told:
        store.rehearse([work])
    assert "199" not in str(told.value)
    parent = order(store, drop=at(store, 5))
    with pytest.raises(NotAllowed, match="calls break a rule"):  # a call of theirs would refer to nobody
        store.rehearse([parent])
    assert (home / "crm.duckdb").read_bytes() == before
    assert [p.name for p in home.iterdir()] == ["crm.duckdb"]


def test_a_copy_that_lost_or_changed_a_neighbour_is_never_published(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (home / "crm.duckdb").read_bytes()
    store = open_store(home)
    insert = duckdb_rewrite.Work._insert
    for wrong in (" LIMIT 100", " ", None):

        def spoiled(self: Any, table: Any, select: str, bound: Any, wrong: str | None = wrong) -> None:
            insert(self, table, select + (wrong or ""), bound)
            if wrong is None and table.name == "calls":
                self.db.execute("UPDATE survivors.calls SET minute = minute + 1 WHERE minute = 7")

        monkeypatch.setattr(duckdb_rewrite.Work, "_insert", spoiled)
        if wrong == " ":
            store.rehearse([order(store)])
            continue
        with pytest.raises(DoesNotHold, match="to survive unchanged"):
            erase(store, order(store))
        store.forget(batch="b1")
        assert (home / "crm.duckdb").read_bytes() == before
        assert [p.name for p in home.iterdir()] == ["crm.duckdb"]


def test_a_database_that_somebody_has_open_is_refused_unharmed(home: Path) -> None:
    store = open_store(home)
    work = order(store)
    before = (home / "crm.duckdb").read_bytes()
    ready, done = os.pipe(), os.pipe()
    if (pid := os.fork()) == 0:
        db = duckdb.connect(home / "crm.duckdb")
        os.write(ready[1], b"x")
        os.read(done[0], 1)
        db.close()
        os._exit(0)
    os.read(ready[0], 1)
    try:
        for step in (lambda: erase(store, work), lambda: list(store.scan({"crm/people": ["id"]})),
                     lambda: store.check(for_writing=True)):  # fmt: skip
            with pytest.raises(StoreUnavailable, match="open in another process"):
                step()
    finally:
        os.write(done[1], b"x")
        os.waitpid(pid, 0)
    with duckdb.connect(home / "crm.duckdb"), pytest.raises(StoreUnavailable, match="open in this process"):
        erase(store, work)
    store.forget(batch="b1")
    assert (home / "crm.duckdb").read_bytes() == before
    assert [p.name for p in home.iterdir()] == ["crm.duckdb"]


def test_a_database_that_changed_since_it_was_located_is_refused_unharmed(home: Path) -> None:
    store = open_store(home)
    work = order(store)
    killed(home / "crm.duckdb", "UPDATE calls SET minute = 0")  # the file is as it was, the WAL is new
    with pytest.raises(UnitChanged):
        erase(store, work)
    assert sorted(p.name for p in home.iterdir()) == ["crm.duckdb", "crm.duckdb.wal"]


def no_file(path: Path) -> None:
    path.unlink()


def a_link(path: Path) -> None:
    path.rename(path.with_name("real"))
    path.symlink_to("real")


def a_second_name(path: Path) -> None:
    os.link(path, path.with_name("other"))


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 300_000)


def foreign(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + bytes(20_000))


def read_only(path: Path) -> None:
    path.chmod(0o444)


def damaged(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[4096:4104] = raw[8192:8200] = bytes(8)
    path.write_bytes(raw)


def encrypted(path: Path) -> None:
    path.unlink()
    with duckdb.connect() as db:
        db.execute("SET force_mbedtls_unsafe = true")
        db.execute(f"ATTACH '{path}' AS made (ENCRYPTION_KEY 'k')")
        db.execute("CREATE TABLE made.people (id INTEGER)")


def newer(path: Path) -> None:
    """A storage version nobody knows yet, sealed as DuckDB seals its first header."""
    raw = bytearray(path.read_bytes())
    raw[12:20] = (9999).to_bytes(8, "little")
    seal = 5381
    for at in range(8, 4096, 8):
        seal ^= int.from_bytes(raw[at : at + 8], "little") * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    raw[:8] = seal.to_bytes(8, "little")
    path.write_bytes(raw)


@pytest.mark.parametrize(("spoil", "words"), [
    (no_file, "nothing"), (a_link, "a symbolic link"), (a_second_name, "2 names"), (truncated, "a truncated file"),
    (foreign, "another format"), (read_only, "read-only"), (damaged, "damaged"), (encrypted, "an encrypted one"),
    (newer, "a storage version that our DuckDB cannot read"),
])  # fmt: skip
def test_what_is_no_sound_database_of_its_own_is_refused_clearly(home: Path, spoil: Any, words: str) -> None:
    store = open_store(home)
    spoil(home / "crm.duckdb")
    before = {p: p.read_bytes() for p in home.rglob("*")}
    with pytest.raises(StoreUnavailable, match=rf"crm\.duckdb.*expected.*found.*{words}") as refused:
        store.check(for_writing=True)
    assert refused.value.hint
    assert {p: p.read_bytes() for p in home.rglob("*")} == before


def test_a_database_whose_engine_gave_free_blocks_back_is_whole(home: Path) -> None:
    path = home / "crm.duckdb"
    sizes = []
    for work in ("CREATE TABLE much AS SELECT md5(range::VARCHAR) FROM range(100000)", "DROP TABLE much", "CHECKPOINT"):
        with duckdb.connect(path) as db:
            db.execute(work)
            db.execute("FORCE CHECKPOINT")
        sizes.append(path.stat().st_size)
    assert sizes[-1] < sizes[0]
    header = max((path.read_bytes()[at : at + 48] for at in (4096, 8192)), key=lambda h: h[8:16][::-1])
    assert int.from_bytes(header[32:40], "little") * 262_144 > path.stat().st_size  # what its header still says
    open_store(home).check(for_writing=True)


def test_a_catalog_naming_what_is_not_there_is_told_what_is(home: Path) -> None:
    for one, words in (
        (collection("nobody"), "no such table"),
        (collection("people", "fax"), "column fax"),
        (collection("names", "name"), "a view"),
    ):
        with pytest.raises(StoreUnavailable, match=words):
            open_store(home, one).check(for_writing=False)


# ---------------------------------------------------------------- crashes, canaries, keys


def test_a_kill_before_publishing_leaves_a_copy_that_recovery_destroys(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(home / "crm.duckdb", "UPDATE calls SET minute = 0 WHERE minute = 9")
    store = open_store(home)
    work = order(store)
    if (pid := os.fork()) == 0:
        monkeypatch.setattr(duckdb_rewrite.Work, "_compare", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        with contextlib.suppress(BaseException):
            erase(store, work)
        os._exit(1)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    (copy,) = [p for p in home.glob(".fangxin-*") if p.is_file()]
    assert copy in store.files()
    assert b"person 19" in copy.read_bytes()
    store.recover(batch="b1")
    assert [p.name for p in home.iterdir()] == ["crm.duckdb"]
    assert rows(home / "crm.duckdb", "SELECT count(*) FROM calls WHERE minute = 0") == [(1,)], "the WAL was not lost"
    assert len(rows(home / "crm.duckdb")) == PEOPLE


def test_a_planted_row_fills_what_the_table_demands_and_frees_no_block(home: Path) -> None:
    with duckdb.connect(home / "crm.duckdb") as db:
        db.execute("CREATE TABLE odd (k UUID PRIMARY KEY, n INTEGER NOT NULL UNIQUE, made TIMESTAMP NOT NULL, m mood"
                   " NOT NULL, l VARCHAR[] NOT NULL, j JSON NOT NULL, phone VARCHAR)")  # fmt: skip
        db.execute("INSERT INTO odd VALUES (uuid(), 41, now(), 'sad', [], '{}', 'x')")
    old = (home / "crm.duckdb").stat().st_ino
    store = open_store(home, collection(), collection("odd", "phone"))
    people, odd = store.collections
    store.plant([(people, {"id": 900_001, "name": "canary", "phone": "16600000000"}), (odd, {"phone": "16600000000"})])
    assert (home / "crm.duckdb").stat().st_ino != old
    assert rows(home / "crm.duckdb", "SELECT n, m, l, j, phone FROM odd WHERE n > 41") == [
        (42, "glad", [], "null", "16600000000")
    ]
    assert rows(home / "crm.duckdb", "SELECT note, phone FROM people WHERE id = 900001") == [("none", "16600000000")]
    assert [p.name for p in home.iterdir()] == ["crm.duckdb"]
    assert len(rows(home / "crm.duckdb")) == PEOPLE + 1


def test_columns_put_under_keys_and_taken_back_are_what_they_were(home: Path) -> None:
    def turn(_: Collection, columns: pa.RecordBatch) -> pa.RecordBatch:
        sealed = [None if v is None else b"\x01" + str(v).encode()[::-1] for v in columns.column("callee").to_pylist()]
        return pa.record_batch([pa.array(sealed, pa.large_binary())], names=["callee"])

    def back(_: Collection, columns: pa.RecordBatch) -> pa.RecordBatch:
        clear = [None if v is None else v[1:][::-1].decode() for v in columns.column("callee").to_pylist()]
        return pa.record_batch([pa.array(clear)], names=["callee"])

    with duckdb.connect(home / "crm.duckdb") as db:
        db.execute("CREATE INDEX by_time ON calls (minute); COMMENT ON COLUMN calls.callee IS 'who; was called'")
    path, calls = home / "crm.duckdb", collection("calls", "callee")
    said = "SELECT data_type, comment FROM duckdb_columns() WHERE table_name = 'calls' AND column_name = 'callee'"
    before, declared = rows(path, "FROM calls ORDER BY rowid"), rows(path, said)
    store = open_store(home, calls)
    assert store.clear(calls, ["callee"]) == ("crm.duckdb",)
    (done,) = store.rewrite({calls.address: ["callee"]}, turn, batch="p1")
    assert done.changed == {calls.address: 199}
    assert rows(path, said) == [("BLOB", "fangxin.protected VARCHAR\nwho; was called")]
    assert (store.clear(calls, ["callee"]), store.covered(calls, ["callee"])) == ((), ("crm.duckdb",))
    assert rows(path, "FROM calls LIMIT 1") == [(1, b"\x01x", 1)]
    (undone,) = store.uncover({calls.address: ["callee"]}, back, batch="u1")
    assert undone.changed == {calls.address: 199}
    assert (rows(path, "FROM calls ORDER BY rowid"), rows(path, said)) == (before, declared)
    assert ("by_time",) in rows(path, "SELECT index_name FROM duckdb_indexes()")
    with pytest.raises(StoreUnavailable, match="phone of table people to change its type"):
        list(open_store(home).rewrite({"crm/people": ["phone"]}, turn, batch="p2"))

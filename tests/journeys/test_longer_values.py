"""What stands in rows that stay is told before anything is destroyed; a longer value of somebody else is none."""

from __future__ import annotations

import base64
import csv
import gzip
import json
import random
import sqlite3
import zipfile
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from journeys.small_house import DATABASE, NOW, TEXT, THEIRS, House, build

from fangxin.data.errors import Incomplete, NotAllowed
from fangxin.flows import erase
from fangxin.flows.again import locate_again
from fangxin.flows.cli.main import main
from fangxin.flows.estate import open_estate
from fangxin.flows.hits import Hit, explained, table_of
from fangxin.flows.packed import is_packed
from fangxin.flows.printable import label, message, names_somebody, printable
from fangxin.flows.sight import needles

LAKE = """  - fides_key: l
    name: l
    erasure: {store: {kind: parquet, url: l/}, mode: delete, copies: []}
    collections:
      - name: notes
        erasure: {store: {glob: "n*.parquet"}}
        fields:
          - {name: phone, data_categories: [user.contact.phone_number], fides_meta: {identity: phone_number}}
"""


def beside(house: House, *remarks: str) -> Path:
    """Somebody else's row has columns that the catalog does not declare: remark1, remark2, ..."""
    members = house.root / "stores/t/m.csv"
    with members.open("w", encoding="utf-8", newline="") as out:
        lines = csv.writer(out)
        lines.writerow(["who", "phone", *(f"remark{n}" for n in range(1, len(remarks) + 1))])
        lines.writerow(["x1", "13900000001", *remarks])
        lines.writerow(["x5", THEIRS, *("" for _ in remarks)])
    return members


def lake(house: House, phones: list[str], **columns: pa.Array) -> Path:
    house.catalog.write_text(DATABASE + TEXT + LAKE)
    (house.root / "stores/l").mkdir(exist_ok=True)
    path = house.root / "stores/l/n.parquet"
    pq.write_table(pa.table({"phone": phones, **columns}), path)
    return path


def verdicts(house: House, batch: str, person: int = 0) -> dict[str, str]:
    request = erase.summary(house.home, batch)["requests"][person]
    return {v["collection"]: v["verdict"] for v in request["verdicts"] if v["dataset"] != "fangxin"}


def refused(house: House, *where: str) -> None:
    """The run stops before anything of theirs is gone, and says where (five places at most), not what."""
    batch = house.begin()
    with pytest.raises(NotAllowed) as told:
        erase.journey(batch)
    assert [one for one in where if one not in str(told.value)] == []
    assert THEIRS not in str(told.value)
    with closing(sqlite3.connect(house.root / "stores/w/w.db")) as db:
        assert db.execute("SELECT count(*) FROM accounts WHERE phone = ?", [THEIRS]).fetchone() == (1,)


@pytest.mark.parametrize(
    "remarks",
    [
        (THEIRS, f"tel{THEIRS}", f"86{THEIRS}"),
        pytest.param(
            (f"+86{THEIRS}", f'{{"said": "\\u7535{THEIRS}"}}', f"https://example.cn/?q=%E7%94%B5{THEIRS}"),
            marks=pytest.mark.drill,
        ),
    ],
    ids=["alone, after letters, after 86", "after +86, after an escaped character, after a character in a URL"],
)
def test_a_value_in_a_row_of_others_that_nothing_would_clean_stops_the_run_first(
    house: House, remarks: tuple[str, ...]
) -> None:
    beside(house, *remarks)
    refused(house, *(f"t/members.remark{n}:" for n in (1, 2, 3)))


@pytest.mark.drill
def test_a_value_kept_as_a_number_in_a_row_of_others_stops_the_run_first(house: House) -> None:
    amounts = {"amount": pa.array([int(THEIRS), 1]), "price": pa.array([Decimal(f"{THEIRS}.00"), Decimal("1.00")])}
    first = lake(house, ["13900000001", THEIRS], **amounts)
    # and a column that only a later file has
    pq.write_table(pa.table({"phone": ["13900000002"], "memo": [f"for {THEIRS}"]}), first.with_name("n2.parquet"))
    refused(house, "l/notes.amount:", "l/notes.price:", "l/notes.memo:")


# ---------------------------------------------------------------- one run past what does not stop it

REMARKS = (f"9{THEIRS}77", f"{THEIRS}0", f"order 2024{THEIRS}")
NOTE = f"88{THEIRS}01"
STRANGERS = (
    "13900000007.txt",
    "139-0000-0007/letter 7.txt",
    "wang@example.cn/2026-11-28/x.txt",
    "110101199003070038/x.txt",
    "day/2026-11-28.txt",
)
SPELLED = {
    "13900000011": "139\u30000000\u30000011",
    "13900000012": "139\u200b00000012",
    "13900000013": "139\u20130000\u20130013",
    "13900000014": "１３９　００００　００１４",
    "13900000015": "139\u00a00000\u00a00015",
}


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, str]]:
    """A run for the person of the longer values, and for five whose notes hold an unusual spelling each."""
    house = build(tmp_path_factory.mktemp("passed"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FANGXIN_HOME", str(house.home))
        with closing(sqlite3.connect(house.root / "stores/w/w.db")) as db, db:
            db.execute("ALTER TABLE accounts ADD COLUMN trade INTEGER")
            db.execute("UPDATE accounts SET trade = ? WHERE id = 7", [int(f"9{THEIRS}77")])
        beside(house, *REMARKS)
        lake(house, [*SPELLED.values(), "13900000001"])
        strangers(house)
        chats(house, f'"{NOTE}"')
        house.catalog.write_text(DATABASE + TEXT + LAKE + CHATS)
        batch = house.begin(THEIRS, *SPELLED)
        erase.journey(batch)
        yield house, batch


def strangers(house: House) -> None:
    """Files that no collection names, called by other people's numbers and addresses, hold the leaver's."""
    for name in STRANGERS:
        path = house.root / "stores/mail" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"from {THEIRS}")
    (house.root / "stores/mail/wang@example.cn.csv.gz").write_bytes(
        gzip.compress(random.Random(1).randbytes(5000))[:2000]
    )


def test_names_of_files_that_look_like_other_people_are_printed_nowhere_and_can_be_found_by_inode(
    passed: tuple[House, str],
) -> None:
    house, batch = passed
    told = erase.summary(house.home, batch)
    (mine,) = (r for r in told["requests"] if r["outcome"] == "partial")
    places = [one["place"] for one in mine["outside"]]
    assert sorted(p.rsplit("/", 1)[-1] for p in places if "withheld" not in p) == ["2026-11-28.txt"]
    inodes = {(house.root / "stores/mail" / name).lstat().st_ino for name in STRANGERS if name.startswith("1390")}
    assert [n for n in inodes if not any(f"inode {n}" in p for p in places)] == []
    certificate = json.loads(Path(mine["certificate"]).read_bytes())
    assert any("withheld" in one["place"] for one in certificate["scan"]["not_examinable"])
    wrong = [b"1390000000", b"13900000007", b"0000-0007", b"wang@", b"110101199003070038"]
    files = [p for p in house.home.rglob("*") if p.is_file()]
    assert any(p.suffix == ".yml" for p in files)
    for path in files:
        body = path.read_bytes()
        members = zipfile.ZipFile(path) if path.suffix == ".zip" else None
        parts = [members.read(name) for name in members.namelist()] if members else [body]
        assert [(path, w) for w in wrong for part in parts if w in part] == []


def test_a_longer_number_in_a_column_nobody_declared_does_not_stop_it(passed: tuple[House, str]) -> None:
    house, batch = passed
    assert verdicts(house, batch)["members"] == "ERASED"
    members = (house.root / "stores/t/m.csv").read_text()
    assert [remark for remark in REMARKS if remark not in members] == []
    assert members.count(THEIRS) == len(REMARKS)


def test_a_longer_number_kept_as_a_number_does_not_stop_it(passed: tuple[House, str]) -> None:
    house, batch = passed
    assert verdicts(house, batch)["accounts"] == "ERASED"
    with closing(sqlite3.connect(house.root / "stores/w/w.db")) as db:
        assert db.execute("SELECT trade FROM accounts WHERE id IN (5, 7)").fetchall() == [(int(f"9{THEIRS}77"),)]


def test_a_longer_value_in_a_key_that_the_first_record_lacks_is_somebody_elses(passed: tuple[House, str]) -> None:
    house, batch = passed
    assert verdicts(house, batch)["chats"] == "ERASED"
    said = (house.root / "stores/j/c.jsonl").read_text()
    assert said.count(THEIRS) == said.count(NOTE) == 1


def test_a_person_whose_only_row_holds_an_unusual_spelling_is_seen_and_goes(passed: tuple[House, str]) -> None:
    house, batch = passed
    found = [verdicts(house, batch, person)["notes"] for person in range(1 + len(SPELLED))]
    assert found == ["NOT_PRESENT", *["ERASED"] * len(SPELLED)]
    left = sorted((house.root / "stores/l").glob("n*.parquet"))
    assert [pq.read_table(one)["phone"].to_pylist() for one in left] == [["13900000001"]]


# ---------------------------------------------------------------- keys, nested columns, names, schemas

BACKUP = gzip.compress(json.dumps([{"phone": THEIRS, "home": "12 Secret Lane"}] * 3).encode(), mtime=0)

CHATS = """  - fides_key: j
    name: j
    erasure: {store: {kind: text, url: j/}, mode: delete, copies: []}
    collections:
      - name: chats
        erasure: {store: {glob: "c*.jsonl"}}
        fields:
          - {name: id, data_categories: [user.unique_id], fides_meta: {primary_key: true}}
          - {name: phone, data_categories: [user.contact.phone_number], fides_meta: {identity: phone_number}}
"""


def chats(house: House, *notes: str) -> Path:
    """The first record has no notes; somebody else's second one has: note1, note2, ..."""
    house.catalog.write_text(DATABASE + TEXT + CHATS)
    (house.root / "stores/j").mkdir()
    path = house.root / "stores/j/c.jsonl"
    keys = "".join(f', "note{n}": {note}' for n, note in enumerate(notes, start=1))
    path.write_text(
        f'{{"id": 1, "phone": "13900000001"}}\n{{"id": 2, "phone": "13900000002"{keys}}}\n'
        f'{{"id": 5, "phone": "{THEIRS}", "backup": "{base64.b64encode(BACKUP).decode()}"}}\n'  # goes with its row
    )
    return path


def test_a_key_that_the_first_record_lacks_is_read_before_anything_is_destroyed(house: House) -> None:
    path = chats(house, f'"call {THEIRS}"', f'"\\u7535\\u8bdd{THEIRS}"', f'{{"a": [{THEIRS}]}}')
    before = path.read_text()
    refused(house, *(f"j/chats.note{n}:" for n in (1, 2, 3)))
    assert path.read_text() == before


@pytest.mark.drill
def test_a_value_in_a_nested_column_stops_the_run_first_unless_its_row_goes(house: House) -> None:
    nested = {
        "list_in_struct": pa.array([{"of": [f"call {THEIRS}"]}, None]),
        "key_of_map": pa.array([[(THEIRS, 1)], []], pa.map_(pa.string(), pa.int64())),
        "number_in_map": pa.array([[("x", int(THEIRS))], []], pa.map_(pa.string(), pa.int64())),
        "struct_in_lists": pa.array([[[{"n": THEIRS.encode()}]], None]),
    }
    path = lake(house, ["13900000001", THEIRS], **nested)
    refused(house, *(f"l/notes.{name}:" for name in nested))
    pq.write_table(pa.table({"phone": [THEIRS, "13900000001"], **nested}), path)
    batch = house.begin()
    erase.journey(batch)
    assert verdicts(house, batch)["notes"] == "ERASED"
    stays = {name: column[1].as_py() for name, column in nested.items()}
    assert pq.read_table(path).to_pylist() == [{"phone": "13900000001", **stays}]


@pytest.mark.drill
def test_a_name_of_a_column_or_key_that_is_somebodys_number_stops_the_run_and_is_not_repeated(house: House) -> None:
    chats(house, f'"x", "{THEIRS}": "{THEIRS}"')
    refused(house, "j/chats.the name of a key")
    (house.root / "stores/j/c.jsonl").write_text('{"id": 5, "phone": "13900000001"}\n')
    members = house.root / "stores/t/m.csv"
    members.write_text(f"who,phone,{THEIRS}\nx5,{THEIRS},\n")
    refused(house, "t/members.the header")


def test_a_column_named_by_somebodys_number_stops_the_run_and_is_not_repeated(house: House) -> None:
    lake(house, ["13900000001", THEIRS], **{THEIRS: pa.array([THEIRS, ""])})
    refused(house, "a place named by an identity; l/notes.the name of a column")


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param(f"CREATE VIEW vip AS SELECT * FROM accounts WHERE phone = '{THEIRS}'", marks=pytest.mark.drill),
        f"ALTER TABLE accounts ADD COLUMN boss TEXT DEFAULT '{THEIRS}'",
    ],
    ids=["view", "default"],
)
def test_a_number_in_the_schema_of_a_database_stops_the_run_first(house: House, statement: str) -> None:
    with closing(sqlite3.connect(house.root / "stores/w/w.db")) as db, db:
        db.execute(statement)
    refused(house, "w/accounts.the schema")


# ---------------------------------------------------------------- packed in a value

DUCK = """  - fides_key: d
    name: d
    erasure: {store: {kind: duckdb, url: d/d.duckdb}, mode: delete, copies: []}
    collections:
      - name: members
        fields:
          - {name: phone, data_categories: [user.contact.phone_number], fides_meta: {identity: phone_number}}
"""

CALLS = """  - fides_key: j
    name: j
    erasure: {store: {kind: text, url: j/}, mode: delete, copies: []}
    collections:
      - name: calls
        erasure: {store: {glob: "c*.jsonl*"}}
        fields:
          - {name: id, data_categories: [user.unique_id], fides_meta: {primary_key: true}}
          - name: text
            erasure: {data_type: text, ownership: mention, mode: keep, because: what others said stays}
"""


def calls(house: House, **more: str) -> Path:
    """Somebody else's note mentions them, which the catalog keeps; another record of somebody else holds `more`."""
    house.catalog.write_text(DATABASE + TEXT + CALLS)
    (house.root / "stores/j").mkdir(exist_ok=True)
    path = house.root / "stores/j/c.jsonl"
    records = [{"id": 7, "text": f"call {THEIRS}"}, {"id": 9, **more}]
    path.write_text("".join(json.dumps(one) + "\n" for one in records))
    return path


def test_a_value_packed_in_rows_of_others_stops_the_run_first_in_every_store(house: House) -> None:
    """So do a table that no collection names and the SQL of a view, where a search sees it and no order reaches."""
    import duckdb

    lake(house, ["13900000001", THEIRS], shut=pa.array([BACKUP, b""]))
    path = calls(house, backup=base64.b64encode(BACKUP).decode())
    path = path.rename(path.with_suffix(".jsonl.gz"))
    path.write_bytes(gzip.compress(path.read_bytes()))
    with closing(sqlite3.connect(house.root / "stores/w/w.db")) as db, db:
        db.execute("ALTER TABLE accounts ADD COLUMN shut BLOB")
        db.execute("UPDATE accounts SET shut = ? WHERE id = 7", [BACKUP])
        db.execute("CREATE TABLE notes (said BLOB)")
        db.execute("INSERT INTO notes VALUES (?)", [BACKUP])
    (house.root / "stores/d").mkdir()
    with duckdb.connect(str(house.root / "stores/d/d.duckdb")) as base:
        base.execute(f"CREATE TABLE members AS SELECT '{THEIRS}' AS phone UNION SELECT '13900000001'")
        base.execute(f"CREATE VIEW vip AS SELECT * FROM members WHERE phone = '{THEIRS}'")
    house.catalog.write_text(DATABASE + TEXT + LAKE + CALLS + DUCK)
    before = path.read_bytes()
    packed = (
        f"{one}: a value packed in rows that stay" for one in ("j/calls.backup", "l/notes.shut", "w/accounts.shut")
    )
    refused(house, *packed, "table notes, which", "d.duckdb: the definition of a view, table, macro or type")
    assert path.read_bytes() == before


def test_a_kept_mention_explains_what_its_own_text_holds_and_no_more(house: House) -> None:
    """As often as the texts hold it, in the file's own form: not what is packed in some other record of the file."""
    calls(house, text=f"{THEIRS} or {THEIRS}", more="\u7535")
    estate = open_estate(house.home, house.catalog.parent, NOW)
    facts = pd.DataFrame({"subject": [1], "kind": ["phone_number"], "value": [f"+86{THEIRS}"]})
    again = locate_again(estate, facts, needles(estate.catalog, facts))
    mine = again.hits[again.hits["collection"] == "j/calls"]
    assert sorted(zip(mine["position"], mine["times"], strict=True)) == [(0, 1), (1, 2)]

    def stays(container: str, most: int, place: str) -> bool:
        hit = Hit(
            1, "j/calls", place, container, "", (facts["kind"][0], facts["value"][0]), 9, most,
            certain=True, foreign=False, inside=False, longer=0,
        )  # fmt: skip
        return bool(list(explained(estate, [hit], again, mine)))

    place = next(f"{s.name}/c.jsonl" for s in estate.stores if s.kind == "text" and "j" in s.name)
    assert [stays("raw", most, place) for most in (1, 3, 4)] == [True, True, False]
    assert not any(stays(one, 1, place) for one in ("base64 > gzip", "gzip", "zip > raw", "raw > gzip"))


def test_what_is_packed_lies_below_the_form_in_which_the_store_itself_keeps_it() -> None:
    own = [("text:a/b.jsonl", "raw"), ("text:a/b.csv.gz", "gzip"), ("text:a/b.csv.zst", "zstd")]
    own += [("sqlite:a/b.db", "sqlite:table=notes"), ("parquet:a/b.parquet", "parquet:page"), ("duckdb:a/b", "raw")]
    assert not [one for one in own if is_packed(*one)]
    assert [one for one in own if not is_packed(one[0], f"{one[1]} > gzip")] == []
    assert is_packed("text:a/b.jsonl", "gzip")
    assert is_packed("text:a/b.csv.gz", "zstd")
    assert is_packed("duckdb:a/b", "gzip")
    assert table_of("sqlite:table=notes > gzip") == table_of("sqlite:table=notes") == "notes"
    assert table_of("sqlite:table=a:b") == "a:b"
    assert table_of("base64 > sqlite:table=notes") is None


@pytest.mark.drill
def test_databases_of_one_collection_may_have_other_columns_each(house: House) -> None:
    house.catalog.write_text(DATABASE.replace("url: w/w.db", "url: w/") + TEXT)
    with closing(sqlite3.connect(house.root / "stores/w/v.db")) as db, db:
        db.execute("CREATE TABLE accounts (memo TEXT, phone TEXT, name TEXT, id INTEGER PRIMARY KEY)")
        db.execute("INSERT INTO accounts VALUES (?, '13900000007', 'n', 7)", [f"for {THEIRS}"])
    refused(house, "w/accounts.memo")
    with closing(sqlite3.connect(house.root / "stores/w/v.db")) as db, db:
        db.execute("UPDATE accounts SET memo = 'nothing'")
    batch = house.begin()
    erase.journey(batch)
    assert verdicts(house, batch)["accounts"] == "ERASED"


def test_a_batch_that_is_given_up_takes_its_export_back(house: House, tmp_path: Path) -> None:
    """It is a copy of ours in clear, and nobody would know of it any more; what else lies there stays."""
    out = tmp_path / "out"
    batch = house.begin(export=str(out))
    house.until(erase.destroy_keys, batch)
    assert list(out.rglob("*.parquet"))
    (out / "mine.txt").write_text("of the operator")
    erase.abandon(batch)
    assert [one.name for one in out.iterdir()] == ["mine.txt"]


def test_what_cannot_be_examined_stops_the_run_first_and_the_batch_is_given_up(house: House) -> None:
    """Afterwards it could not be examined either, and keys would be dead."""
    (house.root / "stores/t/old.csv.gz").write_bytes(gzip.compress(random.Random(1).randbytes(5000))[:2000])
    batch = house.begin()
    with pytest.raises(Incomplete, match=r"old\.csv\.gz") as told:
        erase.journey(batch)
    assert told.value.exit_code == 2
    assert open_estate(house.home, house.catalog.parent, NOW).requests.batch(batch).state == "abandoned"
    assert (house.root / "stores/t/m.csv").read_text().count(THEIRS) == 1


def test_a_look_that_meets_a_defect_leaves_no_canary_behind_and_the_next_run_goes_through_it(
    house: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a defect")

    before = (house.root / "stores/t/m.csv").read_bytes()
    batch = house.begin()
    with monkeypatch.context() as patch:
        patch.setattr("fangxin.flows.sight.scan", broken)
        assert main(["resume"]) == 70
    assert f"batch {batch} is given up: nothing of it was destroyed" in capsys.readouterr().err
    assert (house.root / "stores/t/m.csv").read_bytes() == before
    with closing(sqlite3.connect(house.root / "stores/w/w.db")) as db:
        assert db.execute("SELECT count(*), max(id) FROM accounts").fetchone() == (39, 39)
    assert main(["resume"]) == 0
    with monkeypatch.context() as patch:  # a disk that does not answer may answer later: that batch stays
        patch.setattr("fangxin.flows.sight.scan", lambda *_a, **_k: (_ for _ in ()).throw(OSError("full")))
        waits = house.begin()
        with pytest.raises(OSError, match="full"):
            erase.journey(waits)
    assert open_estate(house.home, house.catalog.parent, NOW).requests.unfinished() == (waits,)


@pytest.mark.drill
def test_units_with_other_columns_are_exported_together(house: House, tmp_path: Path) -> None:
    """A column that came later, and one whose type changed: the person gets every value."""
    first = lake(house, ["13900000001", THEIRS], amount=pa.array([1, 2]))
    for name, phone, columns in (
        ("n2.parquet", pa.array([int(THEIRS)]), {"amount": pa.array([1.5]), "memo": pa.array(["late"])}),
        ("n3.parquet", pa.array([THEIRS]).dictionary_encode(), {"memo": pa.array([{"a": 1}])}),
    ):
        pq.write_table(pa.table({"phone": phone, **columns}), first.with_name(name))
    erase.journey(house.begin(export=str(tmp_path / "export")))
    (found,) = (tmp_path / "export").glob("*/l.notes.parquet")
    assert pq.read_table(found).to_pylist() == [
        {"phone": THEIRS, "amount": "2", "memo": None},
        {"phone": THEIRS, "amount": "1.5", "memo": "late"},
        {"phone": THEIRS, "amount": None, "memo": "{'a': 1}"},
    ]


def test_what_looks_like_an_identity_in_a_name_is_told_from_dates_numbers_and_words() -> None:
    somebody = [
        "13900000007", "139-0000-0007.txt", "+86 139 0000 0007", "a@b.cn", "a%40b.cn",
        "\uff11\uff13\uff19\uff10\uff10\uff10\uff10\uff10\uff10\uff10\uff17", "tel1234567",
        "110101199003070038", "6222021234567890128", "oLVPpjqs9BhvzwPj5A-vTYAX3GLc",
        "0f8fad5b-d9cb-469f-a165-70867728950e", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    ]  # fmt: skip
    nobody = [
        "2026-11-28", "dt=20261128", "backup_20261128_103000.tar.gz", "export-2026-11-28T10-30-00.csv",
        "part-00000.parquet",
        "CustomerExport_2024_final-Version2.xlsx", "members", "客户资料", "v1.2.3", "outside",
    ]  # fmt: skip
    assert [one for one in somebody if not names_somebody(one)] == []
    assert [one for one in nobody if names_somebody(one)] == []
    assert printable("outside/13900000007/2026-11-28/a.txt") == "outside/(name withheld)/2026-11-28/a.txt"
    assert label("sqlite:table=t13900000007 > gzip") == "(name withheld) > gzip"
    assert message("text:t/139-0000-0007.csv: a page unpacks to 123456789 bytes; wang@b.cn/x") == (
        "text:t/(name withheld).csv: a page unpacks to 123456789 bytes; (name withheld)/x"
    )

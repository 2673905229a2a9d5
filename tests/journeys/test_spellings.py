"""However a number is written it goes, and whatever only contains it stays: one house, every spelling, every store."""

from __future__ import annotations

import csv
import sqlite3
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from journeys.small_house import DATABASE, THEIRS, House

from fangxin.flows import erase

FIELDS = """        fields:
          - {name: id, data_categories: [user.unique_id], fides_meta: {primary_key: true}}
          - {name: phone, data_categories: [user.contact.phone_number], fides_meta: {identity: phone_number}}
          - name: said
            data_categories: [user.content]
            erasure: {data_type: text, ownership: mention, mode: mask, mask: {constant: "***"}}
"""
STORES = f"""  - fides_key: c
    name: c
    erasure: {{store: {{kind: text, url: c/}}, mode: delete, copies: []}}
    collections:
      - name: chats
        erasure: {{store: {{glob: "c*.csv"}}}}
{FIELDS}  - fides_key: l
    name: l
    erasure: {{store: {{kind: parquet, url: l/}}, mode: delete, copies: []}}
    collections:
      - name: notes
        erasure: {{store: {{glob: "n*.parquet"}}}}
{FIELDS}"""
TABLE = f"      - name: talks\n{FIELDS}"
BETWEEN = (" ", "-", "\u00a0", "\u3000", "\u200b", "\u2013", "\u2009", ".")
WRITTEN = [f"139{mark}0000{mark}0005" for mark in BETWEEN] + ["１３９０００００００５", "+86 139 0000 0005"]
LONGER = ["9139000000058800", "parcel 77139000000051", "139000000050", "13900000005139000000051"]
Row = tuple[str, str, str]


def rows(*, mask: str = "") -> list[Row]:
    """Others who mention every spelling, others whose longer numbers contain it, theirs; with a mask: what is left."""
    told = [("13900000033", f"tel{mask or one} bitte") for one in WRITTEN]
    told += [("13900000033", f"call {mask or one} now") for one in WRITTEN]
    longer = [("13900000034", f"order {one}") for one in LONGER] + [("13900000035", "nothing of theirs")]
    mine = [] if mask else [(one, "mine") for one in WRITTEN]
    return [(str(n), phone, said) for n, (phone, said) in enumerate([*told, *longer, *mine])]


def lay(house: House) -> None:
    (house.root / "stores/c").mkdir()
    (house.root / "stores/l").mkdir()
    with (house.root / "stores/c/c.csv").open("w", newline="", encoding="utf-8") as out:
        csv.writer(out, lineterminator="\n").writerows([("id", "phone", "said"), *rows()])
    names = ["id", "phone", "said"]
    table = pa.table({name: list(column) for name, column in zip(names, zip(*rows(), strict=True), strict=True)})
    pq.write_table(table, house.root / "stores/l/n.parquet", compression="zstd")
    with closing(sqlite3.connect(house.root / "stores/w/w.db")) as db, db:
        db.execute("CREATE TABLE talks (id TEXT PRIMARY KEY, phone TEXT, said TEXT)")
        db.executemany("INSERT INTO talks VALUES (?, ?, ?)", rows())
    house.catalog.write_text(DATABASE + TABLE + STORES)
    (house.root / "stores/t/m.csv").unlink()  # else it is a file that no collection names


def held(root: Path) -> dict[str, list[Row]]:
    with (root / "stores/c/c.csv").open(newline="", encoding="utf-8") as lines:
        texts = [tuple(row) for row in csv.reader(lines)][1:]
    files = sorted((root / "stores/l").glob("n*.parquet"))
    parquet = [tuple(map(str, row.values())) for file in files for row in pq.read_table(file).to_pylist()]
    with closing(sqlite3.connect(root / "stores/w/w.db")) as db:
        tables = db.execute("SELECT id, phone, said FROM talks ORDER BY CAST(id AS INTEGER)").fetchall()
    return {"text": texts, "parquet": parquet, "sqlite": tables}  # type: ignore[dict-item]  # three fields each


def test_every_spelling_goes_and_longer_numbers_of_others_stay(house: House) -> None:
    lay(house)
    batch = house.begin()
    erase.journey(batch)
    (request,) = erase.summary(house.home, batch)["requests"]
    assert request["outcome"] == "erased"
    assert {v["verdict"] for v in request["verdicts"] if v["dataset"] != "fangxin"} == {"ERASED"}
    for store, left in held(house.root).items():
        assert left == rows(mask="***"), store
    assert house.verified(batch) == 0


def test_a_longer_number_of_somebody_else_is_no_sight_of_the_person(house: House) -> None:
    """Where nothing of theirs stands, a neighbour's order number does not make the verdict ERASED."""
    (house.root / "stores/t/m.csv").write_text(f"who,phone\nx1,13900000001\nx9,9{THEIRS}77\n")
    batch = house.begin()
    erase.journey(batch)
    (request,) = erase.summary(house.home, batch)["requests"]
    assert {v["collection"]: v["verdict"] for v in request["verdicts"] if v["dataset"] != "fangxin"} == {
        "accounts": "ERASED",
        "members": "NOT_PRESENT",
    }
    assert f"x9,9{THEIRS}77" in (house.root / "stores/t/m.csv").read_text()


@pytest.mark.drill
def test_bytes_that_look_like_part_of_a_longer_number_make_it_partial_in_a_file_nobody_catalogued(house: House) -> None:
    for name in ("raw.bin", "notes.txt"):
        (house.root / "stores/t" / name).write_text(f"0042{THEIRS}0017\n")
    batch = house.begin()
    erase.journey(batch)
    (request,) = erase.summary(house.home, batch)["requests"]
    assert request["outcome"] == "partial"
    assert {one["place"].rpartition("/")[2]: one["doubtful"] for one in request["outside"]} == {
        "raw.bin": True,
        "notes.txt": True,
    }

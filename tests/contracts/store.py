"""What every store promises, as tests to inherit: a new store subclasses StoreContract and lays out its files.

The estate is small and known: some people, one of whom (PERSON) leaves; a neighbour's note mentions her phone.
"""

from __future__ import annotations

import gzip
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import zstandard

from fangxin.data import medium
from fangxin.data.errors import CatalogError, FangxinError, StoreUnavailable, UnitChanged
from fangxin.data.vocabulary import (
    Blank,
    Change,
    Collection,
    Erasure,
    Field,
    Meter,
    Method,
    Order,
    Redaction,
    Store,
    StoreAddress,
)

PERSON = "13800138000"
CANARY = "19912345678"
BATCH = "batch-1"
KILLS = 4  # the gate kills at every fourth step of a store, the drill at each
PEOPLE: tuple[Mapping[str, Any], ...] = (
    {"member_id": 1, "phone": "13900000001", "name": "李雷", "note": "likes tea"},
    {"member_id": 2, "phone": PERSON, "name": "韩梅梅", "note": 'prefers, "quoted"\nlines'},
    {"member_id": 3, "phone": "13900000003", "name": "王小明", "note": "friend of 13800138000, and 13800138000 again"},
    {"member_id": 4, "phone": "13900000004", "name": "赵四", "note": "nothing"},
    {"member_id": 5, "phone": PERSON, "name": "韩梅梅", "note": "second row"},
    {"member_id": 6, "phone": "13900000006", "name": "孙七", "note": "x" * 40},
)
ALONE = ("韩梅梅", "second row", "prefers")  # what nobody but PERSON has


def collection(kind: str, url: str, glob: str, *, name: str = "members", partition: str | None = None) -> Collection:
    """The catalogued collection of the estate."""
    fields = (
        Field("member_id", data_type="integer", primary_key=True),
        Field("phone", data_type="string", identity="phone_number"),
        Field("name", data_type="string"),
        Field("note", data_type="text"),
    )
    address = StoreAddress(kind=kind, url=url, glob=glob, partition=partition)
    return Collection(dataset="shop", name=name, fields=fields, store=address, where="shop.yml:3:5")


class StoreContract:
    """Inherit, implement `lay` and `open`; every promise below is then tested."""

    keeps_rows_in = 2  # how many units `lay` spreads PEOPLE over
    protects = True  # whether columns can be put under keys

    def lay(self, root: Path) -> None:
        """Write PEOPLE into real files of this store below `root`."""
        raise AssertionError("a store's test lays out its files")

    def open(self, root: Path, meter: Meter | None = None) -> Store:
        """A new instance of the store over `root`, with one collection."""
        raise AssertionError("a store's test opens its store")

    def pending(self, store: Store) -> Any:  # Any: a store keeps its journal where it likes
        return store.pending  # type: ignore[attr-defined]  # not part of the protocol

    def truncate(self, path: Path) -> None:
        """Cut a unit short, as a full disk does."""
        os.truncate(path, path.stat().st_size // 2)

    def hidden_keys(self) -> frozenset[str]:
        """Columns a store adds to the rows (partition keys)."""
        return frozenset()

    # ------------------------------------------------------------ the estate and questions to it

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        root = tmp_path / "estate"
        root.mkdir()
        self.lay(root)
        return root

    def rows(self, store: Store) -> list[dict[str, Any]]:
        """Every row as the store reads it, by member_id."""
        address = store.collections[0].address
        names = ["member_id", "phone", "name", "note"]
        found = [r for _, rows in store.scan({address: names}) for r in rows.columns.to_pylist()]
        for row in found:
            row["member_id"] = None if row["member_id"] in (None, "") else int(row["member_id"])
        return sorted(found, key=lambda r: (r["member_id"] is None, r["member_id"] or 0))

    def find(self, store: Store, field: str, part: str) -> dict[str, np.ndarray]:
        """Unit -> positions of the rows whose field contains a text."""
        found: dict[str, np.ndarray] = {}
        for _, rows in store.scan({store.collections[0].address: [field]}):
            hits = [part in (v or "") for v in rows.columns.column(field).to_pylist()]
            if any(hits):
                old = found.get(rows.unit, np.empty(0, np.int64))
                found[rows.unit] = np.concatenate([old, rows.positions[np.array(hits)]])
        return found

    def leave(self, store: Store, phone: str = PERSON) -> list[Order]:
        """The orders that drop a person's rows."""
        units = {u.name: u for u in store.units()}
        return [
            Order(units[name], (Change(store.collections[0], drop=positions),))
            for name, positions in self.find(store, "phone", phone).items()
        ]

    def every_byte(self, store: Store) -> bytes:
        """All bytes of all files of the store, unpacked where they are packed."""
        out = b""
        for path in store.files():
            raw = path.read_bytes()
            out += raw + (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else b"")
            if raw[:4] == zstandard.FRAME_HEADER:
                out += zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True).read()
        return out

    def snapshot(self, root: Path) -> dict[str, bytes]:
        return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}

    def others(self, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        return [r for r in rows if r["phone"] != PERSON]

    # ------------------------------------------------------------ promises

    def test_what_was_stored_is_found(self, root: Path) -> None:
        store = self.open(root)
        store.check(for_writing=True)
        assert self.rows(store) == list(PEOPLE)
        assert len(store.units()) == self.keeps_rows_in
        assert [u.name for u in store.units()] == sorted(u.name for u in store.units())
        assert {"member_id", "phone", "name", "note"} <= set(store.fields(store.collections[0]).names)

    def test_a_store_may_not_leave_the_root(self, root: Path) -> None:
        kind: Any = type(self.open(root))  # the protocol says nothing of how a store is made
        away = (collection(kind.kind, "../elsewhere", "*"),)
        with pytest.raises(CatalogError, match="leaves the catalog's root"):
            kind(root, "../elsewhere", away, Meter())

    def test_nothing_remains_after_erasure_and_neighbours_are_untouched(self, root: Path) -> None:
        store = self.open(root)
        if store.capabilities.raw_scan:
            assert PERSON.encode() in self.every_byte(store)
        before = self.rows(store)
        done = list(store.erase(self.leave(store), batch=BATCH))
        assert sum(sum(d.rows_before.values()) - sum(d.rows_after.values()) for d in done) == 2
        assert self.find(store, "phone", PERSON) == {}
        assert self.rows(store) == self.others(before)
        raw = self.every_byte(store)
        for text in ALONE:
            assert text.encode() not in raw
        for one in done:
            assert (one.method is Method.OVERWRITE) == (one.reason == "")
            if one.method is Method.OVERWRITE:
                assert one.bytes_overwritten > 0
                assert one.claim
        store.forget(batch=BATCH)
        self.open(root).check(for_writing=True)

    def test_every_unit_says_beforehand_whether_it_can_be_overwritten(self, root: Path) -> None:
        store = self.open(root)
        said = store.examine()
        assert set(said) == {u.name for u in store.units()}
        for one in store.erase(self.leave(store), batch=BATCH):
            assert (one.method is Method.OVERWRITE) == (said[one.unit] == "")

    def test_erasing_twice_changes_nothing(self, root: Path) -> None:
        store = self.open(root)
        orders = self.leave(store)
        first = list(store.erase(orders, batch=BATCH))
        files = {n: v for n, v in self.snapshot(root).items() if ".fangxin" not in n}
        again = list(self.open(root).erase(orders, batch=BATCH))
        assert again == first
        assert {n: v for n, v in self.snapshot(root).items() if ".fangxin" not in n} == files

    def test_a_changed_unit_is_refused(self, root: Path) -> None:
        store = self.open(root)
        orders = self.leave(store)
        path = store.root / orders[-1].unit.name
        os.utime(path, ns=(1, 1))
        before = self.snapshot(root)
        with pytest.raises(UnitChanged):
            list(store.erase(orders, batch=BATCH))
        assert {n: v for n, v in self.snapshot(root).items() if ".fangxin" not in n} == {
            n: v for n, v in before.items() if ".fangxin" not in n
        }

    def test_an_open_reader_is_refused_or_declared(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(medium, "PATIENCE", 0.05)  # nobody is going to close the file meanwhile
        store = self.open(root)
        orders = self.leave(store)[:1]
        before = self.rows(store)
        done: list[Erasure] = []
        with (store.root / orders[0].unit.name).open("rb"):
            try:
                done = list(store.erase(orders, batch=BATCH))
            except FangxinError:
                assert self.rows(store) == before
        assert all(one.method is not Method.OVERWRITE and one.reason for one in done)
        store.recover(batch=BATCH)

    def test_links_and_read_only_files_are_refused_before_anything_changes(self, root: Path) -> None:
        for spoil, mend in (
            (lambda p: p.chmod(0o444), lambda p: p.chmod(0o644)),
            (lambda p: os.link(p, root.parent / "other"), lambda p: (root.parent / "other").unlink()),
            (
                lambda p: (p.rename(root.parent / "away"), p.symlink_to(root.parent / "away")),
                lambda p: (p.unlink(), (root.parent / "away").rename(p)),
            ),
        ):
            store = self.open(root)
            orders = self.leave(store)
            path = store.root / orders[-1].unit.name
            spoil(path)
            before = self.snapshot(root)
            with pytest.raises(StoreUnavailable):
                store.check(for_writing=True)
            with pytest.raises((StoreUnavailable, UnitChanged)):
                list(store.erase(orders, batch=BATCH))
            after = self.snapshot(root)
            assert {n: v for n, v in after.items() if ".fangxin" not in n} == before
            mend(path)

    def test_a_unit_whose_name_is_no_text_is_refused(self, root: Path) -> None:
        store = self.open(root)
        unit = Path(store.root, store.units()[0].name)
        unit.rename(unit.with_name(unit.name.replace(".", os.fsdecode(b"\xbf."), 1)))
        if "*" in store.collections[0].store.glob:
            with pytest.raises(StoreUnavailable, match="UTF-8"):
                self.open(root).units()
        else:
            assert not self.open(root).units()

    def test_truncated_and_foreign_units_are_refused(self, root: Path) -> None:
        store = self.open(root)
        path = store.root / store.units()[0].name
        whole = path.read_bytes()
        for spoil in (self.truncate, lambda p: p.write_bytes(b"\x00\x01 this is not a unit of this store \xff\n" * 40)):
            spoil(path)
            before = self.snapshot(root)
            with pytest.raises(StoreUnavailable) as told:
                self.open(root).check(for_writing=False)
            assert PERSON not in str(told.value)
            assert told.value.hint
            assert self.snapshot(root) == before
            path.write_bytes(whole)
        self.open(root).check(for_writing=False)

    def test_a_missing_column_is_refused(self, root: Path) -> None:
        store = self.open(root)
        with pytest.raises(StoreUnavailable, match="no_such_column"):
            list(store.scan({store.collections[0].address: ["no_such_column"]}))

    def test_a_mask_changes_that_value_of_that_row_only(self, root: Path) -> None:
        store = self.open(root)
        before = self.rows(store)
        units = {u.name: u for u in store.units()}
        blank = {n: (Blank(p, None), Blank(p, "***")) for n, p in self.find(store, "phone", "13900000003").items()}
        orders = [
            Order(units[n], (Change(store.collections[0], np.empty(0, np.int64), blank={"phone": a, "name": b}),))
            for n, (a, b) in blank.items()
        ]
        done = list(store.erase(orders, batch=BATCH))
        assert sum(sum(d.changed.values()) for d in done) == 1
        after = self.rows(store)
        assert [r for r in after if r["member_id"] != 3] == [r for r in before if r["member_id"] != 3]
        (masked,) = [r for r in after if r["member_id"] == 3]
        assert masked["phone"] in (None, "")
        assert masked["name"] == "***"
        assert masked["note"] == PEOPLE[2]["note"]

    def test_a_redaction_changes_that_text_only(self, root: Path) -> None:
        store = self.open(root)
        before = self.rows(store)
        units = {u.name: u for u in store.units()}
        orders = [
            Order(
                units[n],
                (
                    Change(
                        store.collections[0],
                        np.empty(0, np.int64),
                        redact={"note": Redaction(p, pa.array([PERSON] * len(p)))},
                    ),
                ),
            )
            for n, p in self.find(store, "note", PERSON).items()
        ]
        list(store.erase([*orders], batch=BATCH))
        after = self.rows(store)
        assert [r for r in after if r["member_id"] != 3] == [r for r in before if r["member_id"] != 3]
        (told,) = [r for r in after if r["member_id"] == 3]
        assert told == {**PEOPLE[2], "note": "friend of ***, and *** again"}

    def test_a_planted_canary_is_found_and_can_be_erased(self, root: Path) -> None:
        store = self.open(root)
        before = self.rows(store)
        units = [u.name for u in store.units()]
        row = {"member_id": 99, "phone": CANARY, "name": "金丝雀", "note": "canary"}
        places = [self.find(store, "phone", p["phone"]) for p in PEOPLE]
        store.plant([(store.collections[0], row)])
        now = [self.find(self.open(root), "phone", p["phone"]) for p in PEOPLE]
        told = [[{u: at.tolist() for u, at in one.items()} for one in some] for some in (places, now)]
        assert told[0] == told[1], "a row stands where it was located, also when a canary is planted in between"
        assert not list(root.rglob(".fangxin-*")), "planting leaves nothing of ours behind"
        store = self.open(root)
        store.check(for_writing=True)
        assert self.rows(store) == [*before, row]
        assert CANARY.encode() in self.every_byte(store)
        list(store.erase(self.leave(store, CANARY), batch=BATCH))
        store.forget(batch=BATCH)
        assert self.rows(store) == before
        assert CANARY.encode() not in self.every_byte(store)
        assert [u.name for u in store.units()] == units

    def test_take_returns_exactly_the_located_rows(self, root: Path) -> None:
        store = self.open(root)
        located = self.find(store, "phone", PERSON)
        taken = [rows for _, rows in store.take({store.collections[0].address: located})]
        people = sorted((r for rows in taken for r in rows.columns.to_pylist()), key=lambda r: int(r["member_id"]))
        wanted = ("member_id", "phone", "name", "note")
        assert [{k: str(r[k]) for k in wanted} for r in people] == [
            {k: str(v) for k, v in p.items()} for p in PEOPLE if p["phone"] == PERSON
        ]
        assert {(r.unit, p) for r in taken for p in r.positions.tolist()} == {
            (n, p) for n, ps in located.items() for p in ps.tolist()
        }

    def test_every_unit_is_opened_once_for_all(self, root: Path) -> None:
        meter = Meter()
        store = self.open(root, meter)
        for step, work in self._passes(root, store):
            meter.step = step
            work()
        assert set(meter.most().values()) == {1}
        assert set(meter.most()) == {"check", "scan", "take", "erase"}

    def _passes(self, root: Path, store: Store) -> Iterator[tuple[str, Callable[[], object]]]:
        address = store.collections[0].address
        yield "check", lambda: store.check(for_writing=True)
        yield "scan", lambda: list(store.scan({address: ["phone", "note"]}))
        plain = self.open(root)  # its opens are not counted
        located, orders = self.find(plain, "phone", PERSON), self.leave(plain)
        yield "take", lambda: list(store.take({address: located}))
        yield "erase", lambda: list(store.erase(orders, batch=BATCH))

    def test_no_file_is_unaccounted_for(self, root: Path) -> None:
        store = self.open(root)
        list(store.erase(self.leave(store), batch=BATCH))
        for _ in range(2):
            known = {p.resolve() for p in store.files()}
            assert {p.resolve() for p in root.rglob("*") if p.is_file()} <= known
            store.forget(batch=BATCH)

    @pytest.mark.parametrize("every", [KILLS, pytest.param(1, marks=pytest.mark.drill)])
    def test_a_kill_at_any_step_then_recovery_ends_as_if_undisturbed(self, root: Path, every: int) -> None:
        undisturbed = root.parent / "undisturbed"
        shutil.copytree(root, undisturbed)
        steps: list[str] = []
        store = self.open(undisturbed)
        self.pending(store).at = steps.append
        clean = list(store.erase(self.leave(store)[:1], batch=BATCH))
        should = self.rows(self.open(undisturbed))
        assert len(steps) >= 5
        for n in range(0, len(steps), every):
            copy = root.parent / f"kill-{n}"
            shutil.copytree(root, copy)
            orders = self.leave(self.open(copy))[:1]
            self._killed(copy, orders, n)
            store = self.open(copy)
            store.recover(batch=BATCH)
            done = list(store.erase(orders, batch=BATCH))
            assert [(d.unit, d.method, d.rows_before, d.rows_after) for d in done] == [
                (d.unit, d.method, d.rows_before, d.rows_after) for d in clean
            ], steps[n]
            old = {(o.unit.dev, o.unit.ino) for o in orders}
            if all(d.method is Method.OVERWRITE for d in done):
                assert old <= {(x.dev, x.ino) for d in done for x in d.destructions}, steps[n]
            store.forget(batch=BATCH)
            assert self.rows(store) == should, steps[n]
            raw = self.every_byte(store)
            assert PEOPLE[1]["note"].encode()[:7] not in raw, steps[n]
            assert not [p for p in copy.rglob(".fangxin-*") if p.is_file() and p.suffix != ".lock"], steps[n]
            shutil.rmtree(copy)

    def _killed(self, root: Path, orders: Sequence[Order], n: int) -> None:
        """Erase in a child process that dies at the n-th step."""
        child = os.fork()
        if child == 0:  # the child never returns, whatever happens
            try:
                left = [n]

                def at(_: str) -> None:
                    if left[0] == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    left[0] -= 1

                store = self.open(root)
                self.pending(store).at = at
                list(store.erase(orders, batch=BATCH))
            finally:
                os._exit(7)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "the child was to be killed"

    def test_protected_columns_leave_no_plaintext(self, root: Path) -> None:
        store = self.open(root)
        address = store.collections[0].address
        before = self.snapshot(root)

        def turn(_: Collection, columns: pa.RecordBatch) -> pa.RecordBatch:
            hidden = [None if v is None else b"\x01" + v.encode()[::-1] for v in columns.column("name").to_pylist()]
            return pa.RecordBatch.from_arrays([pa.array(hidden, pa.large_binary())], names=["name"])

        if not self.protects:
            with pytest.raises(StoreUnavailable):
                list(store.rewrite({address: ["name"]}, turn, batch=BATCH))
            assert self.snapshot(root) == before
            return
        done = list(store.rewrite({address: ["name"]}, turn, batch=BATCH))
        assert {d.unit for d in done} == {u.name for u in store.units()}
        store.forget(batch=BATCH)
        store = self.open(root)
        column = store.fields(store.collections[0]).field("name")
        assert column.type == pa.large_binary()
        assert column.metadata == {b"fangxin.protected": b"1"}
        assert [r["name"] for r in self.rows(store)] == [b"\x01" + p["name"].encode()[::-1] for p in PEOPLE]
        raw = self.every_byte(store)
        assert not any(p["name"].encode() in raw for p in PEOPLE)
        store.check(for_writing=True)
        assert list(store.rewrite({address: ["name"]}, turn, batch="another")) == []
        list(store.erase(self.leave(store), batch="third"))
        assert store.fields(store.collections[0]).field("name").metadata == {b"fangxin.protected": b"1"}
        assert [r["member_id"] for r in self.rows(store)] == [1, 3, 4, 6]

    def test_a_crash_is_no_excuse_to_touch_live_data(self, root: Path) -> None:
        store = self.open(root)
        before = self.rows(store)
        store.recover(batch="never ran")
        assert self.rows(store) == before

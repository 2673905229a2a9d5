"""Protect: killed anywhere and run again, no plaintext is left; what arrives later in clear is seen."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import signal
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from journeys.lecard import NOW, ORIGIN, LeCard
from jsonschema import Draft202012Validator
from keys.vaults import destroy

import fangxin.reports
from fangxin.checks import readiness
from fangxin.data.errors import InputError, NotAllowed
from fangxin.data.keys import lanes
from fangxin.data.keys.columns import open_rows
from fangxin.data.keys.envelope import ref_of
from fangxin.data.keys.suites import CHACHA, SM4
from fangxin.data.pending import Pending
from fangxin.data.vocabulary import Cohort, Mode, Subject
from fangxin.flows.cli import protect as commands
from fangxin.flows.estate import Estate, make_home
from fangxin.flows.locate import find
from fangxin.flows.protect import clear_fields, protect
from fangxin.flows.unprotect import unprotect

MONTHS = ("2026-08", "2026-09", "2026-10")


@pytest.fixture
def fresh(pristine: LeCard, tmp_path: Path) -> LeCard:
    """Three months of the estate as they were before anything was protected, with a new home."""
    root = tmp_path / "fresh"
    (root / "estate").mkdir(parents=True)
    shutil.copytree(pristine.catalog.parent, root / "estate" / "catalog")
    shutil.copy(pristine.root / "estate" / "leavers.csv", root / "estate")
    shutil.copytree(pristine.clear, root / "clear")
    found = LeCard(root)
    for unit in (*found.clear.glob("lake/*/month=*"), *found.clear.glob("support/*")):
        if not any(month in unit.name for month in MONTHS):
            shutil.rmtree(unit) if unit.is_dir() else unit.unlink()
    shutil.copytree(found.clear, found.stores)
    make_home(root / "home", rehearsal=True, origin=ORIGIN, now=NOW, capacity=2_000)
    return found


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A folder on a file system that lies in memory: it refuses overwriting, and says why."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.mark.parametrize(
    ("step", "number"),
    [
        pytest.param("survivors", 1, id="before the first unit is replaced", marks=pytest.mark.drill),
        pytest.param("published", 2, id="when one unit is done and the next replaced"),
        pytest.param("held", 3, id="when two units are done and the third is held", marks=pytest.mark.drill),
        pytest.param("published", 0, id="after the last unit is replaced", marks=pytest.mark.drill),
        pytest.param("done", 0, id="after the last unit is destroyed", marks=pytest.mark.drill),
    ],
)
def test_a_protect_that_was_killed_is_finished_by_the_next_one(fresh: LeCard, step: str, number: int) -> None:
    truth, secrets = _values(fresh.open(), fresh), _secrets(fresh)
    _killed(fresh, step, number or _units(fresh))

    done = protect(fresh.open())

    assert done
    assert all(not clear_fields(fresh.open(), s.name) for s in fresh.open().stores)
    readiness.check(fresh.open().catalog, [fresh.catalog], fresh.open().stores, require=None)
    assert not _left(fresh, secrets)
    assert _values(fresh.open(), fresh) == truth
    assert not [p for p in fresh.stores.rglob(".fangxin-pending/*") if p.is_file()]
    assert _open_intents(fresh.open()) == 0
    assert protect(fresh.open()) == {}


def test_the_search_for_plaintext_would_find_what_a_killed_protect_left(fresh: LeCard) -> None:
    secrets = _secrets(fresh)
    _killed(fresh, "published", _units(fresh))
    assert _left(fresh, secrets), "the inode that is held still has the plaintext"
    assert _open_intents(fresh.open()) == 1


def test_running_it_twice_changes_no_byte_of_stores_vault_or_ledger(fresh: LeCard) -> None:
    done = protect(fresh.open())
    assert {e.unit for es in done.values() for e in es} >= {"wallet.db"}
    assert _open_intents(fresh.open()) == 0
    before = _bytes(fresh)
    assert protect(fresh.open()) == {}
    assert _bytes(fresh) == before


def test_a_month_that_arrives_in_clear_is_seen_by_readiness_by_locate_and_by_protect(fresh: LeCard) -> None:
    truth, secrets = _values(fresh.open(), fresh), _secrets(fresh)
    cohort = Cohort((Subject("r", fresh.subjects()[0]),))
    located = find(fresh.open(), cohort).traces
    late = next(p for p in fresh.stores.glob("lake/transactions/*") if MONTHS[-1] in p.name)
    shutil.move(late, fresh.root / "late")
    protect(fresh.open())
    shutil.move(fresh.root / "late", late)

    estate = fresh.open()
    with pytest.raises(NotAllowed, match="stands in clear in 1 units") as refused:
        readiness.check(estate.catalog, [fresh.catalog], estate.stores, require=None)
    assert refused.value.exit_code == 4
    assert _values(fresh.open(), fresh) == truth, "what is under keys and what is not are read alike"
    assert find(fresh.open(), cohort).traces.num_rows == located.num_rows

    done = protect(fresh.open())
    assert [MONTHS[-1] in e.unit for es in done.values() for e in es] == [True]
    assert not _left(fresh, secrets)
    assert _values(fresh.open(), fresh) == truth


def test_a_row_that_an_application_adds_in_clear_to_a_protected_table_is_seen_and_protected(fresh: LeCard) -> None:
    protect(fresh.open())
    with contextlib.closing(sqlite3.connect(fresh.stores / "wallet.db")) as db:
        db.execute(
            "UPDATE identities SET id_number = '11010119900307881X' WHERE rowid = (SELECT min(rowid) FROM identities)"
        )
        db.commit()
    estate = fresh.open()
    with pytest.raises(NotAllowed, match=r"id_number .* stands in clear in 1 units"):
        readiness.check(estate.catalog, [fresh.catalog], estate.stores, require=None)
    assert [e.unit for es in protect(fresh.open()).values() for e in es] == ["wallet.db"]
    assert not _left(fresh, {b"11010119900307881X"})
    assert "11010119900307881X" in _values(fresh.open(), fresh)["wallet/identities", "id_number", "wallet.db"]


def test_where_overwriting_is_required_a_medium_that_refuses_stops_protect_before_anything_is_touched(
    fresh: LeCard, in_memory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = fresh.copy(in_memory / "lecard")
    before = _bytes(there)
    with pytest.raises(NotAllowed, match="--require overwrite") as refused:
        commands.protect(there.home, there.catalog, require="overwrite", as_json=False)
    assert refused.value.exit_code == 4
    assert _bytes(there) == before

    assert commands.protect(there.home, there.catalog, as_json=False) == 0
    said = capsys.readouterr().out
    assert "LOGICAL_DELETE" in said
    assert "tmpfs" in said
    assert "store.rewritten" in {e["type"] for _n, e in there.open().ledger.entries()}


# ---------------------------------------------------------------- suites, and the way back


def test_a_key_domain_keeps_the_suite_its_first_values_were_written_in(fresh: LeCard) -> None:
    truth = _values(fresh.open(), fresh)
    protect(fresh.open(), suite=SM4)
    assert _suites(fresh) == {SM4}
    assert _values(fresh.open(), fresh) == truth
    with contextlib.closing(sqlite3.connect(fresh.stores / "wallet.db")) as db:
        db.execute("UPDATE identities SET bank_card = '6222020000000000017' WHERE bank_card IS NOT NULL")
        db.commit()
    with pytest.raises(InputError, match="keeps sm4-gcm for ever"):
        protect(fresh.open(), suite=CHACHA)
    protect(fresh.open())
    assert _suites(fresh) == {SM4}


@pytest.mark.drill
def test_without_lanes_the_same_is_written_and_read_one_by_one(fresh: LeCard, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = _values(fresh.open(), fresh)
    text = (fresh.home / "fangxin.toml").read_text("utf-8")
    (fresh.home / "fangxin.toml").write_text(text.replace("lanes = true", "lanes = false"), "utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(lanes, "seal", None)  # whoever called it now would fail
        patch.setattr(lanes, "unseal", None)
        protect(fresh.open())
        assert _suites(fresh) == {CHACHA}
        assert find(fresh.open(), Cohort((Subject("r", fresh.subjects()[0]),))).traces.num_rows
    assert _values(fresh.open(), fresh) == truth


def test_what_was_protected_comes_back_in_clear_but_for_those_whose_key_is_gone(
    fresh: LeCard, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _tables(fresh)
    protect(fresh.open())
    assert _suites(fresh) == {CHACHA}
    tree, gone = fresh.open().tree, _somebody(fresh)
    destroy(tree, [ref_of(fresh.open().catalog.person_kind or "", gone)])
    addresses = sorted({address for address, _ in _crypto(fresh.open())})
    options = {"yes": True, "as_json": True}

    with pytest.raises(NotAllowed, match="in clear"):
        commands.unprotect(fresh.home, fresh.catalog, addresses, yes=False, as_json=True)
    with pytest.raises(InputError, match="no field of it"):
        commands.unprotect(fresh.home, fresh.catalog, ["wallet/accounts"], **options)
    assert commands.unprotect(fresh.home, fresh.catalog, addresses, **options) == 0
    answer = json.loads(capsys.readouterr().out)

    schema = json.loads((Path(fangxin.reports.__file__).parent / "schemas" / "unprotect.json").read_text("utf-8"))
    Draft202012Validator(schema).validate(answer)
    lost = _without(before, gone)
    assert answer["values_gone"] == lost > 0
    assert _tables(fresh) == before
    assert _open_intents(fresh.open()) == 0
    assert not [p for p in fresh.stores.rglob(".fangxin-pending/*") if p.is_file()]
    assert unprotect(fresh.open(), addresses).stores == {}
    assert protect(fresh.open()), "the catalog still calls the fields crypto-erase"


@pytest.mark.drill
def test_an_unprotect_that_was_killed_is_finished_by_the_next_one(fresh: LeCard) -> None:
    before = _tables(fresh)
    protect(fresh.open())
    addresses = sorted({address for address, _ in _crypto(fresh.open())})
    _killed(fresh, "published", 2, lambda: unprotect(fresh.open(), addresses))
    assert _open_intents(fresh.open()) == 1
    assert unprotect(fresh.open(), addresses).stores
    assert _tables(fresh) == before
    assert _open_intents(fresh.open()) == 0


# ---------------------------------------------------------------- what they need


def _in_child(work: Callable[[], object]) -> int:
    """Run in a forked child; return the signal that ended it, 0 for none."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(7)
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def _killed(lecard: LeCard, step: str, number: int, run: Callable[[], object] | None = None) -> None:
    """Protect (or `run`), killed at the n-th time that a journal of pending destructions reaches this step."""

    def work() -> None:
        left = [number]
        tell = Pending._step

        def at(self: Pending, name: str) -> None:
            tell(self, name)
            left[0] -= name == step
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

        Pending._step = at  # type: ignore[method-assign]  # in the child only, which dies
        (run or (lambda: protect(lecard.open())))()

    assert _in_child(work) == signal.SIGKILL, "the child was to be killed"


def _crypto(estate: Estate) -> list[tuple[str, str]]:
    return [(c.address, f.name) for c in estate.catalog.collections for f in c.fields if f.mode is Mode.CRYPTO_ERASE]


def _units(lecard: LeCard) -> int:
    """How many units protect has to replace."""
    estate = lecard.open()
    addresses = {address for address, _ in _crypto(estate)}
    of = [(estate.store_of(a), estate.catalog.collection(a)) for a in addresses]
    return len({(store.name, unit.name) for store, collection in of for unit in store.units(collection)})


def _values(estate: Estate, lecard: LeCard) -> dict[tuple[str, str, str], list[object]]:
    """Every sensitive value in clear, by collection, field and unit, whether it lies under a key or not."""
    found: dict[tuple[str, str, str], list[object]] = {}
    for address, name in _crypto(estate):
        collection = estate.catalog.collection(address)
        for _, rows in estate.store_of(address).scan({address: [f.name for f in collection.fields]}):
            column = rows.columns.column(name)
            if pa.types.is_large_binary(column.type):
                column = open_rows(estate.tree, estate.catalog, collection, name, rows.columns)
            found.setdefault((address, name, rows.unit), []).extend(column.to_pylist())
    assert any(v for vs in found.values() for v in vs)
    return found


def _tables(lecard: LeCard) -> dict[tuple[str, str], list[dict[str, object]]]:
    """All rows of the collections with sensitive fields as they are stored, by collection and unit."""
    estate = lecard.open()
    found: dict[tuple[str, str], list[dict[str, object]]] = {}
    for address in sorted({address for address, _ in _crypto(estate)}):
        names = [f.name for f in estate.catalog.collection(address).fields]
        for _, rows in estate.store_of(address).scan({address: names}):
            found.setdefault((address, rows.unit), []).extend(rows.columns.to_pylist())
    return found


def _somebody(lecard: LeCard) -> str:
    """The account number of somebody who has sensitive values of every kind."""
    rows = [row for (address, _), some in _tables(lecard).items() if address == "wallet/identities" for row in some]
    return str(next(row["account_id"] for row in rows))


def _without(tables: dict[tuple[str, str], list[dict[str, object]]], account: str) -> int:
    """Empty the sensitive fields of somebody's rows; how many values that were."""
    lost = 0
    for row in (row for some in tables.values() for row in some if str(row["account_id"]) == account):
        for name in {"id_number", "bank_card", "card_no", "payout_card"} & row.keys():
            lost += row[name] is not None
            row[name] = None
    return lost


def _suites(lecard: LeCard) -> set[int]:
    """The first bytes of all envelopes."""
    estate = lecard.open()
    found = set()
    for address, name in _crypto(estate):
        for _, rows in estate.store_of(address).scan({address: [name]}):
            found |= {body[0] for body in rows.columns.column(0).to_pylist() if body is not None}
    return found


def _secrets(lecard: LeCard) -> set[bytes]:
    """Some of the values that must not be found in any byte afterwards; those of units that hold them plainly."""
    found = _values(lecard.open(), lecard)
    return {str(v).encode() for values in found.values() for v in values[:40] if v}


def _left(lecard: LeCard, secrets: set[bytes]) -> list[str]:
    """The files of the stores that hold any of the values: raw bytes, and every column of every Parquet file."""
    left = []
    for path in sorted(p for p in lecard.stores.rglob("*") if p.is_file()):
        body = path.read_bytes()
        if body[:4] == b"PAR1":
            table = pq.read_table(path, partitioning=None)
            texts = [c for c in table.columns if pa.types.is_string(c.type) or pa.types.is_large_binary(c.type)]
            body += b"\n".join(v.encode() if isinstance(v, str) else v for c in texts for v in c.to_pylist() if v)
        if any(secret in body for secret in secrets):
            left.append(path.name)
    return left


def _bytes(lecard: LeCard) -> dict[Path, bytes]:
    gc.collect()  # an estate that was let go still holds the vault open; closing it folds the WAL in
    roots = (lecard.stores, lecard.home / "keys", lecard.home / "ledger")
    return {p: p.read_bytes() for root in roots for p in sorted(root.rglob("*")) if p.is_file()}


def _open_intents(estate: Estate) -> int:
    entries = list(estate.ledger.entries())
    intents = {n for n, e in entries if e["type"] == "erase.intended"}
    return len(intents - {e["intent"] for _n, e in entries if "intent" in e})

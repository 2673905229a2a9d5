"""The ledger keeps every entry it signed, survives a kill anywhere, and never signs two histories."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from evidence.small_home import NOW, ORIGIN, SECRET, SELECTORS, Home, entry, start
from hypothesis import given, settings
from hypothesis import strategies as st

from fangxin.checks import verify
from fangxin.data.errors import DoesNotHold, InputError, LedgerForked, NotAllowed, Unavailable, WriterBusy
from fangxin.reports.ledger import entries, merkle, tiles
from fangxin.reports.ledger.keys import SigningKeys
from fangxin.reports.ledger.log import Ledger

BOUNDARIES = ("locked", "temporary", "tiles", "signed", "head", "published")
SIGNED = ("head", "published")  # from here on the new entries exist


def some(count: int, first: int = 0) -> list[dict[str, int | str]]:
    return [entry("request.verified", tag=entries.tag(SECRET, first + i)) for i in range(count)]


def reopened(folder: Path) -> Ledger:
    return Ledger.open(folder / "ledger", head=folder / "second" / "head", keys=SigningKeys.load(folder / "keys"))


def whole(ledger: Ledger) -> bool:
    """Tiles lead to the signed root, by the verifier's own hashing."""
    leaves = [b"\x00" + entries.encode(one) for _index, one in ledger.entries()]
    tree = verify.Tree([verify.hashlib.sha256(leaf).digest() for leaf in leaves])
    vkey = verify.parse_vkey(str(SigningKeys.load(ledger.folder.parent / "keys").vkey))
    signed = verify.parse_checkpoint(ledger.checkpoint(), vkey)
    return signed.size == len(leaves) == ledger.size and tree.root(ledger.size) == signed.root


def in_a_child(work: Callable[[], None]) -> int:
    """Run work in a forked process and return its exit code."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_entries_come_back_as_they_were_given_and_the_answer_follows_the_input_order(tmp_path: Path) -> None:
    _keys, ledger = start(tmp_path)
    given_ = some(700)
    where = ledger.append(given_[:3]) + ledger.append(given_[3:300]) + ledger.append(given_[300:])
    assert sorted(where) == list(range(700))
    kept = dict(reopened(tmp_path).entries())
    assert [kept[index] for index in where] == [{"v": 1, **one} for one in given_]
    assert [index for index, _one in ledger.entries(650)] == list(range(650, 700))
    assert whole(ledger)


def test_the_order_inside_a_flush_says_nothing_about_who_came_first(tmp_path: Path) -> None:
    _keys, ledger = start(tmp_path)
    assert ledger.append(some(300)) != list(range(300))


def test_entries_are_found_by_tag_and_only_those_asked_for(tmp_path: Path) -> None:
    _keys, ledger = start(tmp_path)
    where = ledger.append(some(400))
    found = ledger.find([entries.tag(SECRET, 7), entries.tag(SECRET, 399), "00" * 16])
    assert {tag: index for tag, (index, _entry) in found.items()} == {
        entries.tag(SECRET, 7): where[7],
        entries.tag(SECRET, 399): where[399],
    }


def test_files_on_disk_are_exactly_the_tiles_of_the_specification(tmp_path: Path) -> None:
    _keys, ledger = start(tmp_path)
    ledger.append(some(200))
    ledger.append(some(400, 200))
    top = tmp_path / "ledger"
    names = sorted(str(path.relative_to(top)) for path in top.rglob("*") if path.is_file())
    level_0 = ["tile/0/000", "tile/0/001", "tile/0/002.p/88", "tile/1/000.p/2"]
    bundles = ["tile/entries/000", "tile/entries/001", "tile/entries/002.p/88"]
    assert names == ["checkpoint", *level_0, *bundles]
    assert (top / "tile/0/000").stat().st_size == 8192


def test_tile_names_are_those_of_the_specification() -> None:
    assert tiles.tile_path(0, 1234067) == "tile/0/x001/x234/067"
    assert tiles.tile_path("entries", 5) == "tile/entries/005"
    assert tiles.tile_path(0, 273, 112) == "tile/0/273.p/112"
    assert [name for name in tiles.tiles_of(70_000) if name[2] < 256] == [
        ("entries", 273, 112),
        (0, 273, 112),
        (1, 1, 17),
        (2, 0, 1),
    ]


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_kill_at_any_boundary_of_a_flush_loses_nothing_that_was_signed(tmp_path: Path, boundary: str) -> None:
    _keys, ledger = start(tmp_path)
    ledger.append(some(250))

    def die(where: str) -> None:
        if where == boundary:
            os._exit(9)

    def killed() -> None:
        ledger.at = die
        ledger.append(some(300, 250))

    assert in_a_child(killed) == 9
    after = reopened(tmp_path)
    assert after.size == (550 if boundary in SIGNED else 250)
    assert (tmp_path / "ledger" / "checkpoint").read_bytes() == after.checkpoint()
    after.append(some(10, 600))
    assert whole(reopened(tmp_path))


def test_a_kill_at_any_write_to_the_medium_leaves_a_ledger_that_goes_on(tmp_path: Path) -> None:
    start(tmp_path / "clean")[1].append(some(250))
    real, kills = os.fsync, 0
    while True:
        folder = tmp_path / f"kill-{kills}"
        shutil.copytree(tmp_path / "clean", folder)
        left = [kills]

        def counted(handle: int, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                os._exit(9)
            real(handle)

        def killed(folder: Path = folder, counted: Callable[..., None] = counted) -> None:
            ledger = reopened(folder)
            os.fsync = counted  # in the child alone
            ledger.append(some(20, 250))

        code = in_a_child(killed)
        after = reopened(folder)
        assert after.size in (250, 270)
        after.append(some(1, 900))
        assert whole(after)
        kills += 1
        if code == 0:
            break
        assert code == 9
    assert kills > 8


def test_an_open_ledger_repairs_what_another_process_left_unfinished(tmp_path: Path) -> None:
    _keys, ledger = start(tmp_path)
    ledger.append(some(5))

    def killed() -> None:
        ledger.at = lambda where: os._exit(9) if where == "tiles" else None
        ledger.append(some(7, 5))

    assert in_a_child(killed) == 9
    ledger.append(some(2, 20))
    assert ledger.size == 7
    assert whole(ledger)


def test_a_second_writer_gets_an_error_not_a_wait(tmp_path: Path) -> None:
    _keys, ledger = start(tmp_path)
    other = reopened(tmp_path)
    seen = []

    def meanwhile(where: str) -> None:
        if where == "tiles":
            with pytest.raises(WriterBusy):
                other.append(some(1))
            with pytest.raises(WriterBusy):
                reopened(tmp_path)
            seen.append(where)

    ledger.at = meanwhile
    ledger.append(some(3))
    assert seen == ["tiles"]
    other.append(some(1, 9))
    assert other.size == 4


def test_two_processes_may_take_turns(tmp_path: Path) -> None:
    _keys, ledger = start(tmp_path)
    other = reopened(tmp_path)
    ledger.append(some(300))
    assert other.append(some(1, 300)) == [300]
    assert ledger.append(some(1, 301)) == [301]
    assert whole(ledger)


def test_a_ledger_restored_from_an_older_backup_refuses_to_sign(tmp_path: Path) -> None:
    _keys, ledger = start(tmp_path)
    ledger.append(some(5))
    shutil.copytree(tmp_path / "ledger", tmp_path / "backup")
    ledger.append(some(5, 5))
    shutil.rmtree(tmp_path / "ledger")
    shutil.copytree(tmp_path / "backup", tmp_path / "ledger")
    with pytest.raises(LedgerForked, match="missing"):
        reopened(tmp_path)
    with pytest.raises(LedgerForked):
        ledger.append(some(1, 99))


def test_a_lost_or_older_head_closes_the_ledger(tmp_path: Path) -> None:
    _keys, ledger = start(tmp_path)
    head = tmp_path / "second" / "head"
    older = head.read_bytes()
    ledger.append(some(5))
    newest = head.read_bytes()
    head.write_bytes(older)
    with pytest.raises(LedgerForked, match="the head is the older one"):
        reopened(tmp_path)
    with pytest.raises(LedgerForked, match="went back"):
        ledger.append(some(1, 9))
    head.unlink()
    with pytest.raises(LedgerForked, match="lost"):
        reopened(tmp_path)
    head.write_bytes(newest)
    assert reopened(tmp_path).size == 5


def test_a_head_whose_device_is_away_changes_nothing(tmp_path: Path) -> None:
    _keys, ledger = start(tmp_path)
    ledger.append(some(5))
    (tmp_path / "second").rename(tmp_path / "away")
    with pytest.raises(Unavailable, match="not there"):
        ledger.append(some(1, 9))
    (tmp_path / "away").rename(tmp_path / "second")
    assert ledger.append(some(1, 9)) == [5]


def test_a_changed_tile_is_noticed_before_anything_is_signed(tmp_path: Path) -> None:
    _keys, ledger = start(tmp_path)
    ledger.append(some(5))
    tile = tmp_path / "ledger" / "tile/0/000.p/5"
    tile.write_bytes(bytes(32) + tile.read_bytes()[32:])
    with pytest.raises(LedgerForked, match="root"):
        ledger.append(some(1, 9))


def test_a_head_signed_by_another_key_is_refused(tmp_path: Path) -> None:
    start(tmp_path)
    _keys, foreign = start(tmp_path / "foreign")
    (tmp_path / "second" / "head").write_bytes(foreign.checkpoint())
    with pytest.raises(DoesNotHold, match="no signature by the log key"):
        reopened(tmp_path)


def test_an_origin_is_started_once_and_has_one_log_key(tmp_path: Path) -> None:
    keys, _ledger = start(tmp_path)
    again = {"head": tmp_path / "second" / "head", "keys": keys}
    with pytest.raises(NotAllowed):
        Ledger.create(tmp_path / "ledger", origin=ORIGIN, **again)
    with pytest.raises(InputError):
        Ledger.create(tmp_path / "elsewhere", origin="ledger.example.com/other", **again)
    with pytest.raises(NotAllowed):
        SigningKeys.create(tmp_path / "keys", origin=ORIGIN)


def test_the_lock_is_released_when_a_flush_fails(tmp_path: Path) -> None:
    _keys, ledger = start(tmp_path)

    def fail(where: str) -> None:
        if where == "signed":
            raise OSError("no space")

    ledger.at = fail
    with pytest.raises(OSError, match="no space"):
        ledger.append(some(3))
    ledger.at = None
    ledger.append(some(3))
    handle = os.open(tmp_path / "ledger", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(handle)
    assert whole(ledger)


WRONG = {
    "an unknown type": {"type": "note", "time": NOW},
    "free text": entry("exception", code="the phone is +86 138"),
    "an unknown field": entry("exported", name="x"),
    "a missing field": {"type": "exported", "time": NOW, "tag": "ab" * 16},
    "a float": entry("validated", hits=0.5),
    "a truth value for a count": entry("validated", hits=True),
    "seconds": entry("exported", time="2026-11-22T22:30:01Z"),
    "a day that does not exist": entry("exported", time="2026-02-30T22:30Z"),
    "a local time": entry("exported", time="2026-11-22T22:30+08:00"),
    "a plain count": entry("erase.intended", units="7"),
    "a path for a store": entry("erase.intended", store="parquet:/people"),
    "an upper-case tag": entry("exported", tag="AB" * 16),
    "another version": entry("exported") | {"v": 2},
    "digits of another script": entry("exported", time="２026-11-22T22:30Z"),
    "a trailing newline": entry("exported", tag="ab" * 16 + "\n"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_an_entry_can_say_nothing_but_its_table(tmp_path: Path, wrong: str) -> None:
    _keys, ledger = start(tmp_path)
    with pytest.raises(InputError) as error:
        ledger.append([entry("exported"), WRONG[wrong]])
    assert ledger.size == 0  # all or nothing
    assert "138" not in str(error.value)


def test_both_tables_of_entry_types_are_the_same() -> None:
    def fields(table: object) -> dict[str, set[str]]:
        assert isinstance(table, dict)
        return {kind: set(of) for kind, of in table.items()}

    assert fields(entries.TYPES) == fields(verify._TYPES)
    for kind in entries.TYPES:
        verify._entry(json.loads(entries.encode(entry(kind))), 0)


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0"), (1, "1-4"), (4, "1-4"), (5, "5-19"), (99, "20-99"), (100, "100-999"), (12345, "10000-99999")],
)
def test_small_counts_are_banded(count: int, expected: str) -> None:
    assert entries.band(count) == expected


@given(st.integers(0, 10**17))
def test_every_band_is_one_that_an_entry_may_hold(count: int) -> None:
    low, _, high = entries.band(count).partition("-")
    assert int(low) <= count <= int(high or low)
    assert entries.encode(entry("erase.intended", units=entries.band(count)))


def test_no_identity_is_in_any_file_of_the_evidence(home: Home) -> None:
    written = b"".join(path.read_bytes() for path in home.folder.rglob("*") if path.is_file())
    for kind, value in SELECTORS:
        assert value.encode() not in written, kind
    assert SECRET not in written


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=3))
def test_any_way_of_batching_gives_a_tree_that_extends_itself(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    _keys, ledger = start(folder)
    olds = []
    for size in sizes:
        olds.append(verify.parse_checkpoint(ledger.checkpoint(), verify.parse_vkey(str(_keys.vkey))))
        ledger.append(some(size))
    new = verify.parse_checkpoint(ledger.checkpoint(), verify.parse_vkey(str(_keys.vkey)))
    for old in olds:
        proof = ledger.consistency(old.size)
        verify.check_consistency(old.size, new.size, old.root, new.root, proof)
        merkle.check_consistency(old.size, new.size, old.root, new.root, proof)
    assert whole(ledger)
    shutil.rmtree(folder)


def test_tiles_and_head_are_on_the_medium_before_the_checkpoint_takes_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut keeps what was flushed, in that order: so nothing may be named before what it rests on is flushed."""
    _keys, ledger = start(tmp_path)
    ledger.append(some(250))
    done: list[tuple[str, str]] = []
    fsync, rename, replace = os.fsync, Path.rename, Path.replace

    def flushed(handle: int) -> None:
        done.append(("flush", str(Path(f"/proc/self/fd/{handle}").readlink())))
        fsync(handle)

    def named(path: Path, target: Path, real: Callable[[Path, Path], Path]) -> Path:
        done.append(("name", str(target)))
        return real(path, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "rename", lambda path, target: named(path, target, rename))
    monkeypatch.setattr(Path, "replace", lambda path, target: named(path, target, replace))
    ledger.append(some(20, 250))
    monkeypatch.undo()
    head, checkpoint = (
        done.index(("name", str(path))) for path in (tmp_path / "second/head", ledger.folder / "checkpoint")
    )
    tiles_named = [at for at, (what, path) in enumerate(done) if what == "name" and "/tile/" in path]
    assert len(tiles_named) == 5  # a full and a partial tile, a full and a partial bundle, one tile above
    for at in tiles_named:
        path = Path(done[at][1])
        temporary = ("flush", str(path.with_name(f".{path.name}.new")))
        assert done.index(temporary) < at < done.index(("flush", str(path.parent)), at) < head
    folder = ("flush", str(tmp_path / "second"))
    assert head < done.index(folder, head) < checkpoint < done.index(("flush", str(ledger.folder)), checkpoint)

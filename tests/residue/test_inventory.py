"""Inventory closure: every old inode unchanged or destroyed where it lay, every new one a unit; a leftover is named."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fangxin.checks.residue.inventory import Closure, Done, Inventory, close, take
from fangxin.data import medium
from fangxin.data.vocabulary import Destruction

UNIT, OTHER = "s/u.csv", "s/other.csv"


def files(root: Path) -> list[tuple[str, Path]]:
    return [(f"s/{p.relative_to(root)}", p) for p in sorted(root.rglob("*")) if p.is_file()]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("u.csv", "other.csv"):
        (tmp_path / name).write_text(f"{name}\n" * 9)
    return tmp_path


def closed(root: Path, before: Inventory, *destroyed: Destruction, **more: object) -> Closure:
    now = take(files(root))
    done = replace(Done(destroyed, {UNIT}, ()), **more)  # type: ignore[arg-type]  # fields of Done
    read = {one.place for one in now.inodes}
    return close(before, now, done, units=[UNIT, OTHER], held={UNIT}, read=read)


def rewritten(root: Path) -> Destruction:
    """What a store does: survivors beside the unit, the old inode held, published, destroyed."""
    old, new = root / "held", root / "new"
    os.link(root / "u.csv", old)
    new.write_text("survivors\n")
    new.replace(root / "u.csv")
    return medium.destroy(old)


def test_a_unit_rewritten_and_destroyed_where_it_lay_closes_the_store(root: Path) -> None:
    before = Inventory.unpack(take(files(root)).pack())
    found = closed(root, before, rewritten(root))
    assert found == Closure(unchanged=1, destroyed=1, new=1)


def unlinked(root: Path, gone: Destruction) -> tuple[Destruction, ...]:
    """Replaced without holding the old inode: no evidence."""
    return ()


def shorter(root: Path, gone: Destruction) -> tuple[Destruction, ...]:
    """Evidence for fewer bytes than the file had."""
    return (replace(gone, size=gone.size - 1),)


def elsewhere(root: Path, gone: Destruction) -> tuple[Destruction, ...]:
    """Evidence for other blocks than those in which the file lay."""
    return (replace(gone, extents=tuple((a, b + 4096, c) for a, b, c in gone.extents)),)


def a_working_copy(root: Path, gone: Destruction) -> tuple[Destruction, ...]:
    (root / ".fangxin-0123").write_text("neighbours\n")
    return (gone,)


def a_file_of_nobody(root: Path, gone: Destruction) -> tuple[Destruction, ...]:
    (root / "u.csv.bak").write_text("neighbours\n")
    return (gone,)


LEFT = {
    unlinked: "nothing shows that its bytes were destroyed",
    shorter: "were destroyed, and it had",
    elsewhere: "elsewhere than they lay",
    a_working_copy: "a working file of ours",
    a_file_of_nobody: "no unit of the store",
}


@pytest.mark.parametrize("what", LEFT, ids=lambda what: what.__name__)
def test_a_leftover_is_named(root: Path, what: Callable[[Path, Destruction], tuple[Destruction, ...]]) -> None:
    before = take(files(root))
    found = closed(root, before, *what(root, rewritten(root)))
    assert [why for _place, why in found.leftovers if LEFT[what] in why], found


def test_a_unit_that_is_said_to_be_rewritten_and_is_not_is_a_leftover(root: Path) -> None:
    found = closed(root, take(files(root)))
    assert found.leftovers == ((UNIT, "said to be rewritten, and is the old file still"),)


def test_an_old_inode_that_waits_under_our_name_is_a_leftover(root: Path) -> None:
    before = take(files(root))
    (root / ".fangxin-pending").mkdir()
    os.link(root / "u.csv", root / ".fangxin-pending/x")
    (root / "new").write_text("survivors\n")
    (root / "new").replace(root / "u.csv")
    found = closed(root, before)
    assert "an old file that was not destroyed, under another name" in {why for _place, why in found.leftovers}


def test_a_file_in_which_somebody_stood_and_that_changed_in_place_is_a_leftover(root: Path) -> None:
    before = take(files(root))
    with (root / "u.csv").open("a") as out:
        out.write("more\n")
    assert closed(root, before).leftovers == ((UNIT, "changed in place"),)


def test_what_other_writers_did_where_nobody_stood_is_counted_apart(root: Path) -> None:
    before = take(files(root))
    gone = rewritten(root)
    (root / "other.csv").unlink()
    assert closed(root, before, gone) == Closure(destroyed=1, new=1, others=1)


def test_where_the_medium_refused_the_old_file_counts_as_deleted_and_not_as_destroyed(root: Path) -> None:
    before = take(files(root))
    rewritten(root)
    assert closed(root, before, rewritten=set(), deleted={UNIT}) == Closure(unchanged=1, deleted=1, new=1)


def test_a_number_that_was_given_out_again_and_destroyed_twice_is_no_contradiction(root: Path) -> None:
    before = take(files(root))
    gone = rewritten(root)
    again = replace(gone, size=gone.size + 9, extents=tuple((a, b + 8192, c) for a, b, c in gone.extents))
    assert closed(root, before, gone, again) == Closure(unchanged=1, destroyed=1, new=1)


def test_a_file_with_people_that_somebody_replaced_is_told_as_freed_and_one_without_is_not(root: Path) -> None:
    before = take(files(root))
    for name in ("u.csv", "other.csv"):
        (root / "new").write_text("theirs\n")
        (root / "new").replace(root / name)
    found = closed(root, before, shed=[UNIT, OTHER], replaced=[UNIT, OTHER], rewritten=set(), deleted={UNIT, OTHER})
    assert (found.freed, found.others, found.deleted, found.leftovers) == ((UNIT,), 1, 1, ())  # numbers come again

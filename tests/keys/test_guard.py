"""The vault asks for officers itself, whoever calls: few people a day need none, many need two who signed this plan."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from keys.vaults import NOW, raw, refs

from fangxin.data.errors import InputError, NotAllowed, VaultDamaged
from fangxin.data.keys.approval import GUARDED, Approval, Guard
from fangxin.data.keys.clock import ClockJumped, Moment
from fangxin.data.keys.domains import GENERAL, REQUEST, SEALED
from fangxin.data.keys.faults import BackupUnusable
from fangxin.data.keys.grant import Drops, Grant
from fangxin.data.keys.receipt import Receipt
from fangxin.data.keys.sealed import Sealing
from fangxin.data.keys.tree import KeyTree

KEYS = {name: Ed25519PrivateKey.generate() for name in ("an", "bo", "chen")}
OFFICERS = Guard({name: key.public_key().public_bytes_raw() for name, key in KEYS.items()})
PEOPLE = refs(1_000)
LATER = NOW + timedelta(hours=2)


def grant(tree: KeyTree, drops: Drops, **other: object) -> Grant:
    return Grant.of(drops, vault=tree.vault_id, generation=tree.generation, catalog="c", not_before=NOW, **other)  # type: ignore[arg-type]  # the fields a test changes


def signed(one: Grant, *names: str) -> list[Approval]:
    return [Approval.sign(one, officer=name, key=KEYS[name], now=NOW) for name in names]


class Machine:
    """The clocks of a machine: the time that it says, and the seconds since it started."""

    def __init__(self) -> None:
        self.now, self.boot, self.since = LATER, "first", 1000.0

    def __call__(self) -> Moment:
        return Moment(self.now, self.boot, self.since)

    def pass_(self, gone: timedelta) -> None:
        self.now, self.since = self.now + gone, self.since + gone.total_seconds()

    def to(self, now: datetime) -> None:
        self.pass_(now - self.now)


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def tree(tmp_path: Path, machine: Machine) -> KeyTree:
    made = KeyTree.create(tmp_path / "vault", capacity=2_000, guard=OFFICERS, clock=machine)
    made.ensure(PEOPLE, 1)
    return made


def destroy(tree: KeyTree, count: int, *names: str) -> Receipt:
    drops: Drops = dict.fromkeys(list(raw(tree, PEOPLE))[:count])
    one = grant(tree, drops, valid_for=timedelta(days=3))
    return tree.destroy(drops, grant=one, approvals=signed(one, *names), now=LATER)


def test_twenty_people_a_day_need_no_officer_and_the_twenty_first_does(tree: KeyTree, machine: Machine) -> None:
    assert destroy(tree, 12).officers == 0
    machine.pass_(timedelta(hours=3))
    assert destroy(tree, 8).destroyed == 8
    machine.pass_(timedelta(hours=1))
    with pytest.raises(NotAllowed, match="two different officers"):
        destroy(tree, 1)
    assert len(raw(tree, PEOPLE)) == 980
    machine.pass_(timedelta(hours=20, seconds=1))
    assert destroy(tree, 12).destroyed == 12, "the first twelve are a day old"


def test_a_batch_that_was_interrupted_and_repeated_counts_once(tree: KeyTree) -> None:
    def stop(now: str) -> None:
        if now == "pages":
            tree._at = lambda _step: None
            raise InterruptedError

    tree._at = stop
    drops: Drops = dict.fromkeys(PEOPLE[:15])
    one = grant(tree, drops)
    with pytest.raises(InterruptedError):
        tree.destroy(drops, grant=one, now=LATER)
    assert tree.destroy(drops, grant=one, now=LATER).destroyed == 15
    assert destroy(tree, 5).destroyed == 5
    with pytest.raises(NotAllowed, match="20 more in the last 24 h"):
        destroy(tree, 1)


def test_no_caller_can_tell_the_vault_what_time_it_is(tree: KeyTree, machine: Machine) -> None:
    """Neither the hour of objection nor the day of the cap nor a grant's end follows what a caller says."""
    destroy(tree, 20)
    drops: Drops = dict.fromkeys(PEOPLE[20:60])
    one = grant(tree, drops, valid_for=timedelta(days=3))
    machine.to(LATER + timedelta(minutes=5))
    fresh = [Approval.sign(one, officer=name, key=KEYS[name], now=machine.now) for name in ("an", "bo")]
    machine.pass_(timedelta(minutes=59))
    later = machine.now + timedelta(days=2)
    with pytest.raises(NotAllowed, match="less than"):
        tree.destroy(drops, grant=one, approvals=fresh, now=later)
    few: Drops = dict.fromkeys(PEOPLE[20:25])
    with pytest.raises(NotAllowed, match="20 more in the last 24 h"):
        tree.destroy(few, grant=grant(tree, few, valid_for=timedelta(days=9)), now=later)
    machine.pass_(timedelta(minutes=1))
    assert tree.destroy(drops, grant=one, approvals=fresh, now=LATER).destroyed == 40


def test_a_clock_that_was_set_is_noticed_by_the_second_source(tree: KeyTree, machine: Machine) -> None:
    destroy(tree, 20)
    for jump in (timedelta(hours=25), timedelta(hours=-3)):
        machine.now += jump
        with pytest.raises(ClockJumped, match="was set by"):
            destroy(tree, 1)
        machine.now -= jump
    machine.boot, machine.since, machine.now = "second", 5.0, machine.now - timedelta(hours=1)
    with pytest.raises(ClockJumped, match="last written"):
        destroy(tree, 1)
    machine.now += timedelta(hours=26)
    assert destroy(tree, 20).destroyed == 20


def test_putting_something_else_in_place_of_keys_does_not_go_past_the_guard(tree: KeyTree) -> None:
    drops: Drops = dict.fromkeys(PEOPLE[:40])
    one = grant(tree, drops, action="replace")
    for coming in ({GENERAL: bytes(32)}, {REQUEST: bytes(32)}):
        with pytest.raises(NotAllowed, match="two different officers"):
            tree.replace(drop=drops, add=dict.fromkeys(PEOPLE[:40], coming), grant=one, now=LATER)
    named: Drops = dict.fromkeys(PEOPLE[:40], frozenset({GENERAL}))
    sealing = {ref: Sealing(bytes([n]) * 16, LATER + timedelta(days=7)) for n, ref in enumerate(named)}
    share = {ref: {SEALED: bytes([n]) * 32} for n, ref in enumerate(named)}
    with pytest.raises(NotAllowed, match="two different officers"):
        tree.replace(drop=named, add=share, grant=grant(tree, named, action="replace"), now=LATER, sealings=sealing)
    assert len(raw(tree, PEOPLE)) == 1_000


def test_two_officers_open_the_way_for_more_and_what_they_signed_counts_for_no_day(tree: KeyTree) -> None:
    done = destroy(tree, 45, "an", "chen")
    assert (done.destroyed, done.officers, done.event()["officers"]) == (45, 2, 2)
    assert destroy(tree, 20).officers == 0
    for names in ((), ("an",), ("bo", "bo")):
        with pytest.raises(NotAllowed, match="two different officers"):
            destroy(tree, 21, *names)
    with pytest.raises(NotAllowed, match="one in 20"):
        destroy(tree, 400, "an", "bo", "chen")
    assert len(raw(tree, PEOPLE)) == 935


def test_another_process_that_opens_the_vault_meets_the_same_guard_and_the_same_count(
    tree: KeyTree, machine: Machine
) -> None:
    destroy(tree, 20)
    with KeyTree.open(tree.folder, clock=machine) as other, pytest.raises(NotAllowed, match="20 more in the last 24 h"):
        destroy(other, 1)


def test_signatures_for_another_plan_a_used_one_or_a_changed_one_destroy_nothing(
    tree: KeyTree, machine: Machine
) -> None:
    drops: Drops = dict.fromkeys(PEOPLE[:40])
    one = grant(tree, drops)
    yes = signed(one, "an", "bo")
    more: Drops = dict.fromkeys(PEOPLE[:41])
    with pytest.raises(NotAllowed, match="not for this plan"):
        tree.destroy(more, grant=grant(tree, more), approvals=yes, now=LATER)
    with pytest.raises(NotAllowed, match="not the one that was approved"):
        tree.destroy(more, grant=one, approvals=yes, now=LATER)
    machine.to(NOW + timedelta(days=2))
    with pytest.raises(NotAllowed, match="good from"):
        tree.destroy(drops, grant=one, approvals=yes, now=LATER)
    machine.to(LATER)
    assert len(raw(tree, PEOPLE)) == 1_000
    assert tree.destroy(drops, grant=one, approvals=yes, now=LATER).destroyed == 40
    again = tree.destroy(drops, grant=one, approvals=yes, now=LATER)
    assert (again.destroyed, again.earlier, again.officers) == (0, 40, 2)
    tree.ensure(PEOPLE[:40], 1)
    assert tree.destroy(drops, grant=one, approvals=yes, now=LATER).destroyed == 0, "a grant is used once"
    assert len(raw(tree, PEOPLE)) == 1_000


def test_our_own_request_keys_count_for_no_cap(tree: KeyTree) -> None:
    requests = refs(60, start=5_000)
    tree.ensure(requests, REQUEST)
    drops: Drops = dict.fromkeys(requests, frozenset({REQUEST}))
    assert tree.destroy(drops, grant=grant(tree, drops), now=LATER).destroyed == 60
    assert destroy(tree, 20).destroyed == 20


def test_the_share_of_the_living_counts_in_a_large_vault(tmp_path: Path, machine: Machine) -> None:
    made = KeyTree.create(tmp_path / "large", capacity=40_000, clock=machine)
    people = refs(40_000)
    made.ensure(people, 1)
    drops: Drops = dict.fromkeys(people[:36])
    assert made.destroy(drops, grant=grant(made, drops), now=LATER).destroyed == 36
    more: Drops = dict.fromkeys(people[100:130])
    with pytest.raises(NotAllowed, match="two different officers"):
        made.destroy(more, grant=grant(made, more), now=LATER)


def test_officers_are_changed_by_two_of_them_and_caps_are_never_lifted_later(tmp_path: Path, machine: Machine) -> None:
    made = KeyTree.create(tmp_path / "vault", capacity=100, clock=machine)
    assert made.guard == GUARDED

    def enrol(guard: Guard, *names: str) -> Receipt:
        one = grant(made, guard.as_drops(), action="enrol")
        return made.enrol(guard, grant=one, approvals=signed(one, *names), now=LATER)

    enrol(OFFICERS)
    fewer = Guard({name: key for name, key in OFFICERS.officers.items() if name != "chen"})
    for names in ((), ("an",), ("an", "an")):
        with pytest.raises(NotAllowed, match="two of the present officers"):
            enrol(fewer, *names)
    assert made.guard == OFFICERS
    enrol(fewer, "an", "chen")
    assert made.guard == fewer
    with pytest.raises(NotAllowed, match="nobody who is an officer"):
        enrol(OFFICERS, "an", "chen")
    with pytest.raises(NotAllowed, match="when a vault is founded"):
        enrol(Guard(fewer.officers, lifted=True), "an", "bo")
    with pytest.raises(InputError, match="same key"):
        Guard({"an": OFFICERS.officers["an"], "ann": OFFICERS.officers["an"]})


def test_an_officer_who_was_removed_comes_back_neither_by_an_old_grant_nor_by_an_old_copy(
    tmp_path: Path, machine: Machine
) -> None:
    made = KeyTree.create(tmp_path / "vault", capacity=100, guard=OFFICERS, clock=machine)
    made.ensure(PEOPLE[:3], 1)
    before = made.commitment
    made.backup(tmp_path / "earlier.db")
    fewer = Guard({name: key for name, key in OFFICERS.officers.items() if name != "chen"})
    back = grant(made, OFFICERS.as_drops(), action="enrol")
    again = signed(back, "an", "bo")
    made.enrol(OFFICERS, grant=back, approvals=again, now=LATER)
    away = grant(made, fewer.as_drops(), action="enrol")
    gone = made.enrol(fewer, grant=away, approvals=signed(away, "an", "bo"), now=LATER)
    assert gone.destroyed == 0
    assert gone.commitment_after not in (before, gone.commitment_before)
    made.enrol(OFFICERS, grant=back, approvals=again, now=LATER)  # carried out long ago: nothing happens
    assert made.guard == fewer
    with pytest.raises(BackupUnusable, match="no longer exists"):
        made.check_backup(tmp_path / "earlier.db")
    assert len(raw(made, PEOPLE)) == 3


def test_a_guard_that_was_changed_in_the_file_or_put_back_from_an_older_copy_guards_nothing(
    tmp_path: Path, machine: Machine
) -> None:
    """Copies of the pages travel, and their metadata is in clear: lifting the caps there would lift nothing here."""
    made = KeyTree.create(tmp_path / "vault", capacity=1_000, guard=OFFICERS, clock=machine)
    made.ensure(PEOPLE[:900], 1)
    (pages,) = made.folder.glob("tree-*.db")

    def told() -> dict[str, bytes]:
        with closing(sqlite3.connect(pages)) as db:
            return dict(db.execute("SELECT name, value FROM meta WHERE name IN ('guard', 'guarded')"))

    def put(said: dict[str, bytes]) -> None:
        with closing(sqlite3.connect(pages)) as db, db:
            db.executemany("UPDATE meta SET value = ? WHERE name = ?", [(value, name) for name, value in said.items()])

    before = told()
    fewer = Guard({name: key for name, key in OFFICERS.officers.items() if name != "chen"})
    one = grant(made, fewer.as_drops(), action="enrol")
    made.enrol(fewer, grant=one, approvals=signed(one, "an", "bo"), now=LATER)
    now = told()
    for wrong in (before, {"guard": Guard(fewer.officers, lifted=True).text().encode()}, {"guarded": bytes(32)}):
        put(wrong)
        with pytest.raises(VaultDamaged, match="who guards"):
            destroy(made, 1)
        put(now)
    assert destroy(made, 1).destroyed == 1


def test_the_guard_is_read_while_a_batch_waits_to_be_undone(tree: KeyTree) -> None:
    def stop(now: str) -> None:
        if now == "pages":
            raise InterruptedError

    one = grant(tree, GUARDED.as_drops(), action="enrol")
    tree._at = stop
    with pytest.raises(InterruptedError):
        tree.enrol(GUARDED, grant=one, approvals=signed(one, "an", "bo"), now=LATER)
    tree._at = lambda _step: None
    assert tree.guard == OFFICERS
    tree.enrol(GUARDED, grant=one, approvals=signed(one, "an", "bo"), now=LATER)
    assert tree.guard == GUARDED

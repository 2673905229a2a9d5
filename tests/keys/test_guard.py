"""The vault asks for officers itself, whoever calls: few people a day need none, many need two who signed this plan."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from keys.vaults import NOW, raw, refs

from fangxin.data.errors import NotAllowed
from fangxin.data.keys.approval import GUARDED, Approval, Guard
from fangxin.data.keys.domains import REQUEST
from fangxin.data.keys.grant import Drops, Grant
from fangxin.data.keys.receipt import Receipt
from fangxin.data.keys.tree import KeyTree

KEYS = {name: Ed25519PrivateKey.generate() for name in ("an", "bo", "chen")}
OFFICERS = Guard({name: key.public_key().public_bytes_raw() for name, key in KEYS.items()})
PEOPLE = refs(1_000)
LATER = NOW + timedelta(hours=2)


def grant(tree: KeyTree, drops: Drops, **other: object) -> Grant:
    return Grant.of(drops, vault=tree.vault_id, generation=tree.generation, catalog="c", not_before=NOW, **other)  # type: ignore[arg-type]  # the fields a test changes


def signed(one: Grant, *names: str) -> list[Approval]:
    return [Approval.sign(one, officer=name, key=KEYS[name], now=NOW) for name in names]


@pytest.fixture
def tree(tmp_path: Path) -> KeyTree:
    made = KeyTree.create(tmp_path / "vault", capacity=2_000, guard=OFFICERS)
    made.ensure(PEOPLE, 1)
    return made


def destroy(tree: KeyTree, count: int, *names: str, now: datetime = LATER) -> Receipt:
    drops: Drops = dict.fromkeys(list(raw(tree, PEOPLE))[:count])
    one = grant(tree, drops, valid_for=timedelta(days=3))
    return tree.destroy(drops, grant=one, approvals=signed(one, *names), now=now)


def test_twenty_people_a_day_need_no_officer_and_the_twenty_first_does(tree: KeyTree) -> None:
    assert destroy(tree, 12).officers == 0
    assert destroy(tree, 8, now=LATER + timedelta(hours=3)).destroyed == 8
    with pytest.raises(NotAllowed, match="two different officers"):
        destroy(tree, 1, now=LATER + timedelta(hours=4))
    assert len(raw(tree, PEOPLE)) == 980
    assert destroy(tree, 12, now=LATER + timedelta(hours=24, seconds=1)).destroyed == 12, (
        "the first twelve are a day old"
    )


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


def test_another_process_that_opens_the_vault_meets_the_same_guard_and_the_same_count(tree: KeyTree) -> None:
    destroy(tree, 20)
    with KeyTree.open(tree.folder) as other, pytest.raises(NotAllowed, match="20 more in the last 24 h"):
        destroy(other, 1)


def test_signatures_for_another_plan_a_used_one_or_a_changed_one_destroy_nothing(tree: KeyTree) -> None:
    drops: Drops = dict.fromkeys(PEOPLE[:40])
    one = grant(tree, drops)
    yes = signed(one, "an", "bo")
    more: Drops = dict.fromkeys(PEOPLE[:41])
    with pytest.raises(NotAllowed, match="not for this plan"):
        tree.destroy(more, grant=grant(tree, more), approvals=yes, now=LATER)
    with pytest.raises(NotAllowed, match="not the one that was approved"):
        tree.destroy(more, grant=one, approvals=yes, now=LATER)
    with pytest.raises(NotAllowed, match="good from"):
        tree.destroy(drops, grant=one, approvals=yes, now=NOW + timedelta(days=2))
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


def test_the_share_of_the_living_counts_in_a_large_vault(tmp_path: Path) -> None:
    made = KeyTree.create(tmp_path / "large", capacity=40_000)
    people = refs(40_000)
    made.ensure(people, 1)
    drops: Drops = dict.fromkeys(people[:36])
    assert made.destroy(drops, grant=grant(made, drops), now=LATER).destroyed == 36
    more: Drops = dict.fromkeys(people[100:130])
    with pytest.raises(NotAllowed, match="two different officers"):
        made.destroy(more, grant=grant(made, more), now=LATER)


def test_officers_are_changed_by_two_of_them_and_caps_are_never_lifted_later(tmp_path: Path) -> None:
    made = KeyTree.create(tmp_path / "vault", capacity=100)
    assert made.guard == GUARDED

    def enrol(guard: Guard, *names: str) -> None:
        one = grant(made, guard.as_drops(), action="enrol")
        made.enrol(guard, grant=one, approvals=signed(one, *names), now=LATER)

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

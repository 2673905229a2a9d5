"""Destruction in bulk needs two different officers, and they signed this very plan."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from fangxin.data.errors import InputError, NotAllowed
from fangxin.data.keys.approval import Approval, Guard
from fangxin.data.keys.grant import Grant

NOW = datetime(2026, 11, 24, 9, tzinfo=UTC)
KEYS = {name: Ed25519PrivateKey.generate() for name in ("an", "bo", "chen", "stranger")}
GUARD = Guard({n: k.public_key().public_bytes_raw() for n, k in KEYS.items() if n != "stranger"})
LATER = NOW + timedelta(hours=2)


def plan(count: int = 30, **other: object) -> Grant:
    drops = {bytes((n,)) * 4: frozenset({1}) for n in range(count)}
    return Grant.of(drops, vault=b"v" * 16, generation=7, catalog="c", not_before=NOW, nonce="ab" * 16, **other)  # type: ignore[arg-type]  # the fields a test changes


def signed(grant: Grant, *names: str, now: datetime = NOW) -> list[Approval]:
    return [Approval.sign(grant, officer=name, key=KEYS[name], now=now) for name in names]


def asked(approvals: list[Approval], *, grant: Grant | None = None, now: datetime = LATER) -> tuple[str, ...]:
    return GUARD.check(grant or plan(), approvals, subjects=30, today=0, living=2_000, now=now)


def test_two_different_officers_are_enough_and_one_twice_is_not() -> None:
    assert asked(signed(plan(), "an", "chen")) == ("an", "chen")
    for few in ([], signed(plan(), "an"), signed(plan(), "an", "an")):
        with pytest.raises(NotAllowed, match="two different officers"):
            asked(few)


@pytest.mark.parametrize(
    "change",
    [{"count": 31}, {"refs_sha256": "00" * 32}, {"generation": 8}, {"catalog": "d"}, {"nonce": "cd" * 16},
     {"expires": "2027-01-01T00:00:00Z"}, {"domains": (1, 2)}, {"vault": "00" * 16}, {"action": "replace"}],
    ids=lambda c: next(iter(c)),
)  # fmt: skip
def test_an_approval_is_for_one_plan_and_no_changed_one(change: dict[str, object]) -> None:
    other = replace(plan(), **change)  # type: ignore[arg-type]
    with pytest.raises(NotAllowed, match="is not for this plan"):
        asked(signed(plan(), "an", "bo"), grant=other)


def test_forged_foreign_expired_and_early_approvals_are_refused() -> None:
    good = signed(plan(), "an", "bo")
    with pytest.raises(NotAllowed, match="nobody who is an officer"):
        asked([good[0], *signed(plan(), "stranger")])
    with pytest.raises(NotAllowed, match="was changed"):
        asked([good[0], replace(good[0], officer="bo")])
    with pytest.raises(NotAllowed, match="was changed"):
        asked([good[0], replace(good[1], expires="2027-01-01T00:00:00Z")])
    with pytest.raises(NotAllowed, match="is good from"):
        asked(good, now=NOW + timedelta(days=2))
    with pytest.raises(NotAllowed, match="is good from"):
        asked(signed(plan(), "an", "bo", now=LATER + timedelta(hours=1)))
    with pytest.raises(NotAllowed, match="less than"):
        asked(good, now=NOW + timedelta(minutes=59))
    assert asked(good, now=NOW + timedelta(minutes=60)) == ("an", "bo")


@given(st.data())
def test_every_changed_bit_of_a_signature_is_refused(data: st.DataObject) -> None:
    good = signed(plan(), "an", "bo")
    raw = bytearray.fromhex(good[0].signature)
    raw[data.draw(st.integers(0, 63))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(NotAllowed):
        asked([replace(good[0], signature=raw.hex()), good[1]])


def test_few_subjects_need_no_officer_until_the_day_is_full() -> None:
    def free(subjects: int, today: int, living: int) -> bool:
        try:
            return GUARD.check(plan(), [], subjects=subjects, today=today, living=living, now=LATER) == ()
        except NotAllowed:
            return False

    assert free(20, 0, 0)
    assert not free(21, 0, 2_000)
    assert not free(1, 20, 2_000)
    assert free(100, 0, 100_000)
    assert free(60, 40, 100_000)
    assert not free(60, 41, 100_000)


def test_more_than_one_in_twenty_at_once_is_refused_whoever_signs() -> None:
    with pytest.raises(NotAllowed, match="at most one in 20"):
        GUARD.check(plan(101), signed(plan(101), "an", "bo"), subjects=101, today=0, living=2_000, now=LATER)
    lifted = Guard(lifted=True)
    assert lifted.check(plan(101), [], subjects=101, today=0, living=2_000, now=LATER) == ()


def test_an_approval_file_and_the_guard_are_read_back_as_written_and_nothing_else_is() -> None:
    (one,) = signed(plan(), "an")
    assert Approval.parse(one.text()) == one
    assert Guard.parse(GUARD.text()) == GUARD
    for wrong in ("", "[]", "{}", one.text().replace('"officer"', '"oficer"'), one.text().replace("signature", "x"),
                  one.text().replace('\\"count\\":30', '\\"count\\": 30')):  # fmt: skip
        with pytest.raises(InputError):
            Approval.parse(wrong)
    for wrong in ("", "{}", GUARD.text().replace("false", "0"), '{"officers":{"an":"00"},"lifted":false}'):
        with pytest.raises(InputError):
            Guard.parse(wrong)

"""A full backup from before, opened with everything that lives today: the living come back, the erased do not."""

from __future__ import annotations

from pathlib import Path

import pytest
from journeys.lecard import LeCard

from fangxin.flows import erase
from fangxin.flows.resurrection import back_up, resurrect


@pytest.fixture
def erased(lecard: LeCard) -> set[str]:
    return {str(account) for one in lecard.leavers for account in one["accounts"]}


def test_a_backup_gives_back_the_living_and_none_of_the_erased_and_says_what_is_readable_until_its_day(
    lecard: LeCard, tmp_path: Path, erased: set[str]
) -> None:
    batch = lecard.begin(lecard.subjects())
    backup = back_up(lecard.open(), tmp_path / "backup")
    before = resurrect(lecard.open(), backup, erased=erased)
    assert before.opened
    assert all(one.living_opened == one.living > 0 and one.erased_opened == one.erased > 0 for one in before.opened)
    assert before.keys == lecard.open().tree.live() > 0, "today's root is still the backup's"
    assert before.unsealed == before.sealed == len(lecard.subjects())
    erase.journey(batch)
    after = resurrect(lecard.open(), backup, erased=erased)
    assert {(o.collection, o.field, o.living, o.erased) for o in after.opened} == {
        (o.collection, o.field, o.living, o.erased) for o in before.opened
    }
    assert all(one.living_opened == one.living for one in after.opened)
    by_law = {one.domain: one.erased_opened for one in after.opened}
    assert by_law == {"kyc": 0, "payout": 0, "orders": by_law["orders"]}, (
        "trades are kept by law, and with them their key"
    )
    assert by_law["orders"] > 0
    assert (after.keys, after.unsealed) == (0, 0)
    assert after.sealed == before.sealed
    # What was never under a key can still be read there, and until when is said.
    readable = {(one.collection, one.field): one for one in after.readable}
    assert readable["wallet/accounts", "phone"].erased == len(erased)
    assert readable["wallet/accounts", "phone"].until == "2026-12-29"  # the nightly backup's 35 days

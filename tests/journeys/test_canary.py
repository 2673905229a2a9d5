"""The canary: made up, valid, and one person in every spelling, so that one look finds all of it."""

from __future__ import annotations

import pytest

from fangxin.data.catalog.kinds import canonical, check, stored_forms
from fangxin.data.vocabulary import Identity, IdentityFormat
from fangxin.flows.canary import canary_identities

KINDS = frozenset({"phone_number", "email", "cn_resident_id", "bank_card", "imei", "oaid", "loyalty"})


@pytest.mark.parametrize("_round", range(20))
def test_every_made_up_value_is_valid_and_every_spelling_of_it_leads_back_to_it(_round: int) -> None:
    made = canary_identities(KINDS, "ref:account")
    assert {one.kind for one in made} == KINDS | {"ref:account"}
    for one in made:
        if one.kind in KINDS:
            assert check(one.kind, one.value) == one.value
            forms = stored_forms(one.kind, one.value, IdentityFormat.RAW)
            assert {canonical(one.kind, form) for form in forms} == {one.value}


def test_two_canaries_are_never_the_same_person() -> None:
    seen: set[Identity] = set()
    for _ in range(20):
        made = set(canary_identities(KINDS, "ref:account"))
        assert not made & seen
        seen |= made

"""An identity is one thing however it was written; a typo of the operator's is told without quoting it."""

import hashlib
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fangxin.data.catalog.kinds import (
    canonical,
    canonical_column,
    check,
    is_stop,
    load_stop_list,
    stop_entry,
    stored_forms,
)
from fangxin.data.errors import IdentityError, InputError
from fangxin.data.vocabulary import IdentityFormat

RAW = IdentityFormat.RAW
KINDS = ("phone_number", "email", "cn_resident_id", "bank_card", "imei", "oaid", "openid", "name", "ref:a/b.c")
MOBILES = st.from_regex(r"1[3-9][0-9]{9}", fullmatch=True)


@pytest.mark.parametrize(
    ("kind", "raw", "expected"),
    [
        ("phone_number", "138-0013-8000", "+8613800138000"),
        ("phone_number", "(+86) 138 0013 8000", "+8613800138000"),
        ("phone_number", "008613800138000", "+8613800138000"),
        ("phone_number", "１３８００１３８０００", "+8613800138000"),
        ("phone_number", "\u200b13800138000\ufeff", "+8613800138000"),
        ("phone_number", "+44 20 7946 0958", "+442079460958"),
        ("phone_number", "0044 20 7946 0958", "+442079460958"),
        ("phone_number", "4155559317", "4155559317"),
        ("phone_number", "ask reception", "askreception"),
        ("email", "  Zhang.San+Card@Example.COM ", "zhang.san+card@example.com"),
        ("email", "李@例子.中国", "李@xn--fsqu00a.xn--fiqs8s"),
        ("cn_resident_id", "11010519491231002x", "11010519491231002X"),
        ("cn_resident_id", "110105 491231 002", "11010519491231002X"),
        ("cn_resident_id", "110105194912310021", "110105194912310021"),
        ("bank_card", "6222 0212-3456 7890", "6222021234567890"),
        ("imei", "49-015420-323751-8", "490154203237518"),
        ("idfa", "{6D92078A-8246-4BA4-AE5B-76104861E7DC}", "6d92078a-8246-4ba4-ae5b-76104861e7dc"),
        ("idfa", "6D92078A82464BA4AE5B76104861E7DC", "6d92078a-8246-4ba4-ae5b-76104861e7dc"),
        ("openid", " oX1_Ab-c ", "oX1_Ab-c"),
        ("name", "阿卜杜\u200b拉 • 买买提", "阿卜杜拉·买买提"),
        ("name", "约翰・史密斯", "约翰·史密斯"),
        ("name", "张  三", "张三"),
        ("name", "Li  Lei", "Li Lei"),
        ("ref:a/b.c", " 00042 ", "00042"),
        ("member_no", "cafe\u0301", "caf\u00e9"),
    ],
)
def test_every_spelling_has_one_canonical_form(kind: str, raw: str, expected: str) -> None:
    assert canonical(kind, raw) == expected


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(KINDS), st.text(max_size=30))
def test_a_canonical_form_is_its_own_canonical_form(kind: str, raw: str) -> None:
    once = canonical(kind, raw)
    assert canonical(kind, once) == once


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(KINDS), st.lists(st.none() | st.text(max_size=20) | MOBILES, max_size=20))
def test_a_column_is_made_canonical_like_its_values(kind: str, raws: list[str | None]) -> None:
    found = canonical_column(kind, pa.array(raws, pa.string())).to_pylist()
    assert found == [None if r is None else canonical(kind, r) for r in raws]


def test_columns_of_numbers_bytes_and_dictionaries_become_the_same_text() -> None:
    for column in (
        pa.array([42, None], pa.int64()),
        pa.array([42.0, None], pa.float64()),
        pa.array(["42", None]).dictionary_encode(),
        pa.array([b"42", None], pa.large_binary()),
        pa.chunked_array([["42"], [None]], pa.string()),
    ):
        assert canonical_column("ref:a/b.c", column).to_pylist() == ["42", None]


@settings(max_examples=60, deadline=None)
@given(MOBILES)
def test_every_stored_form_of_a_phone_leads_back_to_it(number: str) -> None:
    value = "+86" + number
    forms = stored_forms("phone_number", value, RAW)
    assert {canonical("phone_number", f) for f in forms} == {value}
    assert {number, f"{number[:3]}-{number[3:7]}-{number[7:]}", f"+86 {number}", f"0086{number}"} <= set(forms)
    assert forms[0] == value


def test_resident_ids_and_cards_are_found_as_people_write_them() -> None:
    forms = stored_forms("cn_resident_id", "11010519491231002X", RAW)
    assert {"11010519491231002x", "110105491231002", "110105 19491231 002X"} <= set(forms)
    assert {canonical("cn_resident_id", f) for f in forms} == {"11010519491231002X"}
    assert {"6222 0212 3456 7890", "6222-0212-3456-7890"} <= set(stored_forms("bank_card", "6222021234567890", RAW))
    assert "李@例子.中国" in stored_forms("email", "李@xn--fsqu00a.xn--fiqs8s", RAW)
    assert stored_forms("ref:a/b.c", "42", RAW) == ("42",)


def test_hashes_are_those_the_standards_publish() -> None:
    drop = stored_forms("phone_number", "+14155559317", IdentityFormat.DROP)
    assert drop == ("vGM7y5n+hBXRSEAklhHDPCbysyNgYTmXdMcagGUOY8E=",)
    assert len(stored_forms("email", "a b@x.org", IdentityFormat.DROP)) == 2
    plain = hashlib.sha256(b"+8613800138000").hexdigest()
    assert stored_forms("phone_number", "+8613800138000", IdentityFormat.SHA256)[0] == plain
    # RFC 4231, test case 2
    hmac = stored_forms("other", "what do ya want for nothing?", IdentityFormat.HMAC, b"Jefe")
    assert hmac[0] == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"


def test_a_keyed_hash_without_its_secret_is_refused() -> None:
    with pytest.raises(IdentityError, match="secret is missing"):
        stored_forms("phone_number", "+8613800138000", IdentityFormat.HMAC)


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        ("phone_number", "1380013800"),
        ("phone_number", "+86138001380001"),
        ("phone_number", "4155559317"),
        ("phone_number", "hello"),
        ("cn_resident_id", "110105194912310021"),
        ("cn_resident_id", "1101051949123"),
        ("bank_card", "6222021234567890"),
        ("bank_card", "6222"),
        ("email", "zhang.example.com"),
        ("email", "zhang@localhost"),
        ("imei", "12"),
        ("phone_number", "00000000000"),
        ("member_no", "unknown"),
        ("member_no", "  "),
    ],
)
def test_a_malformed_identity_is_refused_and_never_quoted(kind: str, raw: str) -> None:
    with pytest.raises(IdentityError) as caught:
        check(kind, raw)
    assert kind in str(caught.value)
    assert "expected" in str(caught.value)
    assert len(raw.strip()) < 3 or raw not in str(caught.value)


def test_what_an_operator_may_give_comes_back_canonical() -> None:
    assert check("phone_number", "138 0013 8000") == "+8613800138000"
    assert check("cn_resident_id", "110105491231002") == "11010519491231002X"
    assert check("bank_card", "4111 1111 1111 1111") == "4111111111111111"
    assert check("email", "A@B.CN") == "a@b.cn"
    assert check("member_no", "7") == "7"


@pytest.mark.parametrize(
    ("kind", "raw", "stop"),
    [
        *[("ref:a/b.c", v, True) for v in ("", "0", "NULL", "N/A", "未知", "***", "--", "None")],
        *[("ref:a/b.c", v, False) for v in ("11", "7", "00", "abc", "null-1")],
        *[("phone_number", v, True) for v in ("00000000000", "+86 00000000000", "11111111111", "138****8000")],
        ("phone_number", "13800138000", False),
        ("oaid", "00000000-0000-0000-0000-000000000000", True),
        ("oaid", "00000000-0000-0000-0000-000000000001", False),
        ("imei", "000000000000000", True),
        ("cn_resident_id", "111111111111111111", True),
        ("email", "null@example.com", True),
        ("email", "zhang@example.com", False),
        ("name", "***", True),
    ],
)
def test_values_that_name_no_one_join_nobody(kind: str, raw: str, stop: bool) -> None:
    assert is_stop(kind, canonical(kind, raw)) is stop


def test_the_operators_stop_list_holds_values_in_clear_or_as_hmac(tmp_path: Path) -> None:
    entry = stop_entry("phone_number", "+8613800138000", b"secret")
    (tmp_path / "s").write_text(f"# hotline\nphone_number plain:400 800 1234\n\nphone_number hmac:{entry}\n")
    stops = load_stop_list(tmp_path / "s")
    assert stops.holds("phone_number", "4008001234")
    assert stops.holds("phone_number", "+8613800138000", b"secret")
    assert not stops.holds("phone_number", "+8613800138001", b"secret")
    assert "4008001234" not in repr(stops)
    with pytest.raises(InputError, match="secret is missing"):
        stops.holds("phone_number", "+8613800138000")
    (tmp_path / "bad").write_text("phone_number 13800138000\n")
    with pytest.raises(InputError, match=r"bad:1: expected KIND hmac:HEX") as caught:
        load_stop_list(tmp_path / "bad")
    assert "13800138000" not in str(caught.value)

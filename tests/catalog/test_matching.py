"""A person is found in a column and in free text however their number or address was written, and nobody else is."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fangxin.checks.residue.patterns import needles_for
from fangxin.data.catalog.matching import Matcher
from fangxin.data.vocabulary import Field, Identity, IdentityFormat, redacted

KINDS = frozenset({"phone_number", "email", "bank_card", "cn_resident_id", "openid"})
VALUES = {
    "phone_number": "+8613900000001",
    "email": "li.wei@mail.example.cn",
    "bank_card": "6222020000000000018",
    "cn_resident_id": "11010519491231002X",
    "openid": "oAbCdEfGhIjK",
}
FACTS = pa.table({"id": list(range(len(VALUES))), "kind": list(VALUES), "value": list(VALUES.values())})
NUMBER = {kind: n for n, kind in enumerate(VALUES)}


def _column(kind: str, cells: list[str | None], **more: object) -> list[tuple[int, int]]:
    field = Field("c", identity=kind, matches=(kind,), **more)  # type: ignore[arg-type]  # one setting a test
    found = Matcher(field, FACTS, KINDS).find(pa.array(cells, pa.string()))
    return list(zip(found.rows.tolist(), found.facts.tolist(), strict=True))


def _text(cells: list[str | None]) -> list[tuple[int, int, str]]:
    found = Matcher(Field("note", data_type="text"), FACTS, KINDS).find(pa.array(cells, pa.string()))
    assert found.texts is not None or not len(found.rows)
    return list(zip(found.rows.tolist(), found.facts.tolist(), found.texts or [], strict=True))


@pytest.mark.parametrize(
    "cell",
    [
        "13900000001",
        "(+86) 139-0000-0001",
        "139\u30000000\u30000001",
        "139\u00a00000\u00a00001",
        "139\u200b00000001",
        "139\u20130000\u20130001",
        "１３９　００００　０００１",
        "+８６１３９０００００００１",
    ],
)
def test_a_phone_column_finds_every_spelling_that_is_canonically_the_same(cell: str) -> None:
    assert _column("phone_number", ["13900000002", cell, None, "１３９００００００２"]) == [(1, NUMBER["phone_number"])]


def test_cards_ids_and_mailboxes_are_found_beyond_ascii_and_case() -> None:
    assert _column("bank_card", ["6222\u30000200\u30000000\u30000000\u3000018"]) == [(0, NUMBER["bank_card"])]
    assert _column("bank_card", ["6222/0200/0000/0000/018"]) == [(0, NUMBER["bank_card"])]
    assert _column("cn_resident_id", ["110105\u201019491231\u2010002ｘ"]) == [(0, NUMBER["cn_resident_id"])]
    assert _column("email", ["Li.Wei@Mail.Example.CN", "ｌｉ.wei@mail.example.cn"]) == [(0, 1), (1, 1)]


def test_a_mailbox_that_differs_by_a_dot_is_another_person() -> None:
    assert _column("email", ["liwei@mail.example.cn", "li-wei@mail.example.cn", "li.wei@mailexample.cn"]) == []


def test_a_column_declared_normalised_or_hashed_is_compared_as_it_is() -> None:
    assert _column("phone_number", ["+8613900000001", "１３９　００００　０００１"], normalised=True) == [(0, 0)]
    assert _column("phone_number", ["１３９　００００　０００１"], identity_format=IdentityFormat.SHA256) == []


def test_a_slice_of_a_column_counts_its_own_rows() -> None:
    field = Field("c", identity="phone_number", matches=("phone_number",))
    column = pa.array(["x", "y", "139\u00a00000\u00a00001"])[1:]
    assert Matcher(field, FACTS, KINDS).find(column).rows.tolist() == [1]
    note = pa.array(["x", "y", "call 139.0000.0001"])[1:]
    assert Matcher(Field("note", data_type="text"), FACTS, KINDS).find(note).rows.tolist() == [1]


@pytest.mark.parametrize(
    "written",
    [
        "139.0000.0001",
        "139 00 00 00 01",
        "+86(139)0000-0001",
        "(139) 0000 0001",
        "1390000 0001",
        "0086-139-0000-0001",
        "139\u00a00000\u00a00001",
        "139\u20130000\u20130001",
        "１３９０００００００１",
        "＋８６ １３９ ００００ ０００１",
        "13900000001",
    ],
)
def test_free_text_gives_a_phone_number_as_it_was_written(written: str) -> None:
    found = _text([f"请致电{written}，谢谢", None, f"2024-05-20 {written} 13900000002"])
    assert found == [(0, 0, written), (2, 0, written)]


def test_free_text_finds_mailboxes_and_ids_in_any_case_and_quotes_them() -> None:
    cells = ["ask Li.Wei@Mail.Example.CN now", "id 110105 1949 1231 002x.", "卡6222-02-0000000000-018"]
    assert _text(cells) == [
        (0, NUMBER["email"], "Li.Wei@Mail.Example.CN"),
        (1, NUMBER["cn_resident_id"], "110105 1949 1231 002x"),
        (2, NUMBER["bank_card"], "6222-02-0000000000-018"),
    ]


def test_exact_identities_keep_their_case_in_free_text() -> None:
    assert _text(["oAbCdEfGhIjK", "OABCDEFGHIJK"]) == [(0, NUMBER["openid"], "oAbCdEfGhIjK")]


def test_free_text_leaves_longer_numbers_words_and_neighbouring_values_alone() -> None:
    cells = ["parcel 7713900000001888", "139.0000.00012", "9139.0000.0001", "139.0000", ".0001"]
    assert _text(cells) == []


def test_free_text_finds_a_number_between_letters() -> None:
    cells = ["tel139.0000.0001", "139 0000 0001x", "QQ13900000001abc", "号13900000001转"]
    assert [row for row, _fact, _text in _text(cells)] == [0, 1, 2, 3]
    assert _text(["77１３９００００００１", "139 0000 000", "1"]) == []


def test_two_numbers_in_a_row_are_two_numbers() -> None:
    assert _text(["139.0000.0001 139.0000.0002 139-0000 0001"]) == [
        (0, 0, "139-0000 0001"),
        (0, 0, "139.0000.0001"),
    ]


_BETWEEN = st.sampled_from(
    ["", " ", "-", "\u00a0", "\u3000", "\u2013", "\u200b", "\ufeff", "(", ")", ".", "\u202f", "\t"]
)
_AROUND = st.sampled_from(
    [" ", "，", "电话", "x", "1", "86", "tel:", "2024-05-20 ", "+", "、", "A", "@", "13900000002", "é"]
)


@st.composite
def _number(draw: st.DrawFn) -> str:
    """A leaver's number as somebody may write it: split anywhere, with any prefix."""
    prefix, digits = draw(
        st.sampled_from([(p, VALUES["phone_number"][3:]) for p in ("", "86", "+86", "0086", "0")])
        | st.sampled_from([("", VALUES["bank_card"]), ("", VALUES["cn_resident_id"])])
    )
    at = sorted(draw(st.sets(st.integers(2, len(digits) - 2), max_size=4)))
    parts = [digits[a:b] for a, b in zip([0, *at], [*at, len(digits)], strict=True)]
    return prefix + draw(_BETWEEN).join(parts)


@settings(max_examples=500, deadline=None)
@given(st.lists(_number() | st.just("Li.Wei@mail.example.cn") | _AROUND, min_size=1, max_size=5).map("".join))
def test_what_is_located_is_masked_whole_and_neither_is_found_again(text: str) -> None:
    """One rule for all three: nothing that stands alone is left for the byte search, or for another look."""
    located = _text([text])
    left = redacted(text, [spelling for _row, _fact, spelling in located], "***")
    assert _text([left]) == []
    hits = _NEEDLES.find(left.encode())
    assert hits.inside.all()


_NEEDLES = needles_for([(0, Identity(kind, value)) for kind, value in VALUES.items() if kind != "openid"])


def test_a_number_written_onto_an_address_goes_with_it() -> None:
    text = "13900000001li.wei@mail.example.cn"
    spelled = [spelling for _row, _fact, spelling in _text([text])]
    assert sorted(spelled) == ["13900000001", "li.wei@mail.example.cn"]
    assert redacted(text, spelled, "*") == "**"


@pytest.mark.parametrize(
    "longer", ["li.wei@mail.example.cn.org", "xli.wei@mail.example.cn", "ab+li.wei@mail.example.cn"]
)
def test_a_longer_address_is_somebody_elses(longer: str) -> None:
    assert _text([longer]) == []
    assert redacted(longer, ["li.wei@mail.example.cn"], "*") == longer


def test_a_number_that_became_a_float_or_bytes_is_found_and_bytes_that_are_no_text_are_nobodys() -> None:
    """pandas makes floats of integers where some are missing; a SQLite column without a type may hold blobs."""
    one = Matcher(Field("c", identity="phone_number", matches=("phone_number",)), FACTS, KINDS)
    assert one.find(pa.array([1.5, None, 13900000001.0, float("nan")])).rows.tolist() == [2]
    assert one.find(pa.array([b"\xff\x00", None, b"13900000001"])).rows.tolist() == [2]

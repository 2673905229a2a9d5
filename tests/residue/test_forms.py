"""A value is found however it is written: every reference encoding, for every kind of identity, and by every engine."""

from __future__ import annotations

import pytest
from residue.references import mixed, references

from fangxin.checks.residue.patterns import Needles, needles_for
from fangxin.data.vocabulary import Identity

PEOPLE = [
    Identity("phone_number", "+8613912345678"),
    Identity("email", "mei.zhang+x@example.com"),
    Identity("bank_card", "6222020903001234567"),
    Identity("cn_resident_id", "11010119900307231X"),
    Identity("address", "上海市徐汇区漕溪北路88号 5 层 / 东楼，靠近地铁站"),
    Identity("imei", "490154203237518"),
    Identity("oaid", "1b4e28ba-2fa1-11d2-883f-0016d3cca427"),
    Identity("account", "202611230000417"),
    Identity("openid", "oX3kP5-Lk0_aBcDeFgHiJkLmNoPq"),
    Identity("text", "客户说她住在二楼，晚上八点以后才有人，电话打不通就放在门口的鞋柜里"),
]
IDS = [one.kind for one in PEOPLE]


@pytest.fixture(scope="module")
def needles() -> dict[str, Needles]:
    return {one.kind: needles_for([(0, one)]) for one in PEOPLE}


@pytest.mark.parametrize("one", PEOPLE, ids=IDS)
def test_every_reference_encoding_of_a_value_is_found(one: Identity, needles: dict[str, Needles]) -> None:
    wanted = references(one.kind, one.value)
    missing = {name for name, data in wanted.items() if not found_in(needles[one.kind], data)}
    print(f"{one.kind:16} {len(wanted):4} encodings, {len(needles[one.kind]):4} needles, {len(missing)} missing")
    assert missing == IN_COMPANY.get(one.kind, set())


def found_in(needles: Needles, data: bytes) -> bool:
    """Whether a hit that stands alone lies in the data, other bytes around it."""
    hits = needles.find(b"\x00\x01\xff, " + data + b" ,\xfe\x00")
    return bool(((hits.start < 5 + len(data)) & (hits.end > 5) & ~hits.inside).any())


SCALED = {
    f"as it is, {name}"
    for name in (
        "decimal128 scale 2 le",
        "decimal128 scale 2 be",
        "decimal64 scale 2 le",
        "decimal of 9 bytes, scale 2",
    )
}
# Numbers that may be a time in milliseconds (microseconds): they count beside another needle of the same person only.
IN_COMPANY = {"phone_number": SCALED, "account": {name.replace("scale 2", "scale 4") for name in SCALED}}


@pytest.mark.parametrize("kind", IN_COMPANY)
def test_what_may_be_a_time_is_found_beside_the_person(kind: str, needles: dict[str, Needles]) -> None:
    one = PEOPLE[IDS.index(kind)]
    wanted = references(kind, one.value)
    for name in IN_COMPANY[kind]:
        hits = needles[kind].find(wanted[name] + b"\0" * 100 + one.value.encode())
        assert any("decimal" in n.form for number in hits.needle.tolist() for n in needles[kind].of(number)), name


NAME = Identity("name", "王伟")


def test_a_name_of_two_characters_counts_as_a_whole_value_or_beside_its_owner() -> None:
    needles = needles_for([(0, NAME), (0, PEOPLE[0])])
    for codec in ("utf-8", "gb18030", "utf-16-le", "utf-16-be"):
        name = NAME.value.encode(codec)
        assert len(needles.find(b"1," + name + b",2").needle) == 1, codec
        assert len(needles.find(name).needle) == 1
        assert len(needles.find(b"zz" + name + b"yy").needle) == 0
        assert len(needles.find(b"zz" + name + b"yy 13912345678 ").needle) == 2
    assert len(needles.find(b"\x06\0\0\0" + NAME.value.encode() + b"\x09\0\0\0").needle) == 1
    assert len(needles.find("王伟业".encode()).needle) == 0


def test_a_short_number_counts_beside_its_owner_only() -> None:
    needles = needles_for([(0, Identity("account", "204417")), (0, PEOPLE[0]), (1, Identity("account", "317"))])
    assert len(needles.find(b"x,204417,y").needle) == 0
    assert {n.form for i in needles.find(b"x,204417,y,13912345678").needle.tolist() for n in needles.of(i)} == {
        "utf-8 (11)",
        "utf-8",
    }
    assert needles.omitted == {"number too short for a search": 1, "bcd": 1, "varint": 1, "varint zigzag": 1}


@pytest.mark.parametrize("codec", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "gb18030"])
def test_an_address_in_mixed_case_is_found_in_every_encoding(codec: str, needles: dict[str, Needles]) -> None:
    text = mixed(PEOPLE[1].value)
    assert text not in (text.lower(), text.upper())
    for around in ("<{}>", "邮箱{}。", "a,{},b"):
        data = around.format(text).encode(codec)
        hits = needles["email"].find(b"\xfe\xfe\xfe" + data + b"\xfe\xfe\xfe")
        spans = zip(hits.start.tolist(), hits.end.tolist(), strict=True)
        assert text.encode(codec) in {data[start - 3 : end - 3] for start, end in spans}
        assert not hits.inside.all()


def test_the_references_know_published_vectors() -> None:
    """GB/T 32905 (SM3 of "abc"); protobuf's 300; MessagePack and PostgreSQL by their specifications."""
    from residue.references import _groups, _septets, digests

    assert dict(digests("abc"))["sm3 hex"].startswith(b"66c7f0f462eeedd9d1f2d46bdc10e4e2")
    assert [int(bits, 2) for bits in _septets(300)] == [0x2C, 0x02]
    assert _groups(13900000000) == [139]

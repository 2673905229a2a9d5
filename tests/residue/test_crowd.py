"""A crowd is searched at a cost that follows the bytes: tokens and decoded columns are joined with its values."""

from __future__ import annotations

import io
import struct
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from residue.references import digests, mixed

from fangxin.checks.residue.patterns import CROWD, Breadth, Needles, needles_for
from fangxin.checks.residue.scan import scan
from fangxin.checks.residue.tokens import Numbers, Tokens
from fangxin.data.catalog.kinds import stored_forms
from fangxin.data.vocabulary import Identity, IdentityFormat


def person(n: int) -> list[Identity]:
    return [
        Identity("phone_number", f"+86{13_000_000_000 + 7_919 * n}"),
        Identity("email", f"li.na-{n}@mail{n % 7}.example.org"),
        Identity("bank_card", f"62220209030{n * 31:08d}"),
        Identity("cn_resident_id", f"11010119{n * 97:09d}X"),
        Identity("openid", f"oX3kP5-Lk{n:06d}_aBcD"),
        Identity("address", f"上海市徐汇区漕溪北路{n}号楼{n % 30}室"),
    ]


UNKEYED = [f for f in IdentityFormat if f is not IdentityFormat.HMAC]  # what a catalog may declare, and a scan can see
PEOPLE = [(n, one) for n in range(400) for one in person(n)]


@pytest.fixture(scope="module")
def crowd() -> Needles:
    return needles_for(PEOPLE)


def writings(n: int) -> dict[str, bytes]:
    """How programs write the values of one person, each a way that a crowd is searched for."""
    phone, mail, card, ident, openid, address = (one.value for one in person(n))
    digits = phone.removeprefix("+86")
    return {
        "phone": digits.encode(),
        "phone +86": phone.encode(),
        "phone 0086": b"0086" + digits.encode(),
        "phone 3-4-4": f"{digits[:3]}-{digits[3:7]}-{digits[7:]}".encode(),
        "phone full width": "".join(chr(ord(c) + 0xFEE0) for c in digits).encode(),
        "phone amid words": f"tel{digits}x".encode(),
        "phone int64": struct.pack("<q", int(digits)),
        "phone int64 be": struct.pack(">q", int(digits)),
        "phone sha256": dict(digests(digits))["sha256 hex"],
        **{f"phone in a column of {f}": stored_forms("phone_number", phone, f)[0].encode() for f in UNKEYED},
        "mail in a column of drop": stored_forms("email", mail, IdentityFormat.DROP)[-1].encode(),
        "phone SM3": dict(digests(digits))["sm3 HEX"],
        "mail": mail.encode(),
        "mail in mixed case": mixed(mail).encode(),
        "mail in UTF-16": mixed(mail).encode("utf-16-le"),
        "mail escaped": mail.replace("@", "\\u0040").encode(),
        "mail in a URL": b"mailto:" + mail.replace("@", "%40").encode(),
        "mail ends a sentence": mail.encode() + b". ",
        "card": card.encode(),
        "card in fours": " ".join(card[i : i + 4] for i in range(0, len(card), 4)).encode(),
        "card int64": struct.pack("<q", int(card)),
        "id": ident.encode(),
        "id, small x": ident.lower().encode(),
        "id 6-8-4": f"{ident[:6]} {ident[6:14]} {ident[14:]}".encode(),
        "openid": openid.encode(),
        "address": address.encode(),
        "address in JSON": address.encode("unicode_escape"),
        "address in GB18030": address.encode("gb18030"),
    }


def test_everybody_of_a_crowd_is_found_however_programs_write(crowd: Needles, tmp_path: Path) -> None:
    assert len(PEOPLE) > CROWD
    assert crowd.breadth is Breadth.CORE
    for way in writings(0):
        lines = [writings(n)[way] for n in range(0, 400, 9)]
        (tmp_path / "u").write_bytes(b"\n\x01\n".join([b"x", *lines, b"y"]))
        result = scan([("u", tmp_path / "u")], crowd)
        assert set(result.hits["subject"].to_pylist()) == set(range(0, 400, 9)), way
        assert not any(result.hits["inside"].to_pylist()), way


@pytest.mark.parametrize(
    "column",
    [
        lambda digits: pa.array([Decimal(d) for d in digits], pa.decimal128(22, 2)),
        lambda digits: pa.array([float(d) for d in digits]),
        lambda digits: pa.array([f"（+86）{d[:3]} {d[3:7]}－{d[7:]}" for d in digits]),
        lambda digits: pa.array(digits).dictionary_encode(),
        lambda digits: pa.array([int(d) for d in digits]),
    ],
    ids=["decimals", "floats", "odd spellings", "a dictionary", "numbers"],
)
def test_values_of_decoded_columns_are_joined(column: object, crowd: Needles, tmp_path: Path) -> None:
    digits = [person(n)[0].value.removeprefix("+86") for n in range(50)]
    others = [str(15_000_000_000 + 31 * n) for n in range(1000)]
    out = io.BytesIO()
    pq.write_table(pa.table({"note": column([*digits, *others])}), out, compression="zstd")  # type: ignore[operator]
    (tmp_path / "u").write_bytes(out.getvalue())
    result = scan([("u", tmp_path / "u")], crowd)
    joined = [row for row in result.hits.to_pylist() if row["form"].endswith("value of a column")]
    assert {row["subject"] for row in joined} == set(range(50))
    assert {row["column"] for row in joined} == {"note"}
    assert result.not_examinable == []


def test_neighbours_of_a_crowd_are_not_taken_for_it(crowd: Needles, tmp_path: Path) -> None:
    digits = person(3)[0].value.removeprefix("+86")
    body = f"9{digits} {digits}7 x{person(3)[1].value}.cn {person(3)[4].value}z 2{person(3)[2].value}"
    (tmp_path / "u").write_text(body)
    assert scan([("u", tmp_path / "u")], crowd).totals(3) == {}
    random = np.random.default_rng(3).bytes(16 << 20)
    assert len(crowd.find(random).needle) == 0


def test_what_a_crowd_is_not_searched_for_is_counted(crowd: Needles, tmp_path: Path) -> None:
    (tmp_path / "u").write_bytes(b"nothing")
    result = scan([("u", tmp_path / "u")], crowd)
    assert result.omitted["base64"] == result.omitted["fragments"] == len(PEOPLE)
    assert result.coverage["breadth"].to_pylist() == ["core"]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(max_size=6) | st.sampled_from([b"13000000000", b"13000007919", b"a@b.example", b" ", b"-"])))
def test_tokens_are_those_that_a_plain_reading_finds(parts: list[bytes]) -> None:
    """Against the regular expressions: whole runs of digits, whole runs of what an address may have."""
    import re

    body = b"".join(parts)
    wanted = {0: b"13000000000", 1: b"13000007919", 2: b"a@b.example"}
    found = {tuple(row) for row in Tokens(wanted, frozenset({2}))(body).tolist()}
    plain = {(n, m.start(), m.end()) for n in (0, 1) for m in re.finditer(rb"[0-9]+", body) if m[0] == wanted[n]}
    for m in re.finditer(rb"[0-9A-Za-z._%+@-]+", body):
        text = re.sub(rb"[.-]{1,2}$", b"", m[0])
        if text.lower() == wanted[2]:
            plain.add((2, m.start(), m.start() + len(text)))
    assert found == plain


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(max_size=9) | st.sampled_from([struct.pack("<q", 13_000_000_000), bytes(5)])))
def test_numbers_are_found_at_any_offset(parts: list[bytes]) -> None:
    data, body = struct.pack("<q", 13_000_000_000), b"".join(parts)
    found = [row[1] for row in Numbers({7: data})(body).tolist()]
    assert found == [i for i in range(len(body)) if body[i : i + 8] == data]


@pytest.mark.parametrize("body", [b"6222 0212 3456", b"139-1234", b"6222 0212 3456 7890", b"1", b"110101 19900307"])
def test_a_text_that_is_shorter_than_the_groups_of_a_number_is_searched(body: bytes) -> None:
    needles = needles_for([(0, Identity("bank_card", "6222021234567894"))], breadth=Breadth.CORE)
    assert len(needles.find(body).needle) == 0
    assert len(needles.find(b"6222 0212 3456 7894").needle) > 0


def test_a_long_name_behind_its_length_is_a_value() -> None:
    name = "欧阳" * 24  # 144 bytes: its length is written in two
    needles = needles_for([(0, Identity("name", name))])
    raw = name.encode()
    for length in (len(raw), 2 * len(raw)):  # Thrift; Avro
        assert len(needles.find(b"ab" + bytes([0x80 | length & 0x7F, length >> 7]) + raw + b"cd").needle) > 0
    assert len(needles.find(b"ab" + raw + b"cd").needle) == 0

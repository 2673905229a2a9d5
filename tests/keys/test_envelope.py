"""A value opens only in its own place, under its own person's key, and never again once the key is gone."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st
from keys.vaults import LIFTED

from fangxin.data.catalog.dataset import read_catalog
from fangxin.data.errors import InputError
from fangxin.data.keys.columns import open_rows, protect_rows
from fangxin.data.keys.envelope import (
    Place,
    ValueForged,
    decode,
    encode,
    open_blob,
    open_column,
    protect_column,
    ref_of,
    row_ids,
    seal_blob,
)
from fangxin.data.keys.material import Keys
from fangxin.data.keys.suites import AES, CHACHA, SM4
from fangxin.data.keys.tree import KeyTree

PLACE = Place(bytes(16), 2, "main", "accounts", "phone")
FIELD = PLACE.id(AES)


def keys(count: int, seed: int = 7) -> Keys:
    raw = np.random.default_rng(seed).integers(0, 256, (count, 32), np.uint8)
    return Keys(raw, np.ones(count, np.bool_))


PHONES = pa.array(["13800138000", None, "13900139000", ""])


def test_field_and_row_ids_are_the_bytes_of_the_format() -> None:
    names = b"\x04\x00main" + b"\x08\x00accounts" + b"\x05\x00phone"
    whole = b"fangxin/field/1" + bytes(16) + b"\x01\x02" + names + b"\x01\0\0\0" + b"\0\0"
    assert hashlib.sha256(whole).digest()[:16] == FIELD
    known = hashlib.blake2b(b"42", digest_size=16, key=FIELD).digest()
    assert row_ids(FIELD, ["42", b"42", "43"])[:2].tobytes() == known * 2
    assert ref_of("k", "v") == hashlib.blake2b(b"fangxin/ref/1\0k\0v", digest_size=16).digest()
    different = {
        Place(bytes(16), 2, "main", "accounts", "phone", pad=32),
        Place(bytes(16), 2, "main", "accounts", "phone", version=2),
        Place(bytes(16), 3, "main", "accounts", "phone"),
        Place(bytes(16), 2, "maina", "ccounts", "phone"),
        Place(b"1" * 16, 2, "main", "accounts", "phone"),
        PLACE,
    }
    assert len({place.id(suite) for place in different for suite in (AES, CHACHA, SM4)}) == 18


def test_an_envelope_is_suite_nonce_ciphertext_tag() -> None:
    with keys(4) as own:
        sealed = protect_column(PHONES, own, PLACE, None, suite=AES)
        assert sealed.type == pa.large_binary()
        assert sealed.is_null().to_pylist() == [False, True, False, False]
        body = sealed[0].as_py()
        assert (body[0], len(body)) == (1, 11 + 29)
        assert AESGCM(bytes(own.view(0))).decrypt(body[1:13], body[13:], FIELD) == b"13800138000"
        assert len({one[1:13] for one in sealed.to_pylist() if one}) == 3


def test_aes_gcm_is_the_published_one() -> None:
    # NIST GCM test case 16 (AES-256, 20 bytes of AAD), through the envelope.
    key = bytes.fromhex("feffe9928665731c6d6a8f9467308308" * 2)
    nonce = bytes.fromhex("cafebabefacedbaddecaf888")
    aad = bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
    sealed = bytes.fromhex(
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
        "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
        "76fc6ece0f4e1768cddf8853bb2d551b"
    )
    plain = bytes.fromhex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
        "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
    )
    assert open_blob(key, b"\x01" + nonce + sealed, aad) == plain


@pytest.mark.parametrize(
    "column",
    [
        PHONES,
        pa.array([1, -(2**63), None, 2**63 - 1]),
        pa.array([2**64 - 1, None, 0], pa.uint64()),
        pa.array([3, None], pa.int8()),
        pa.array([date(1970, 1, 1), None, date(1903, 2, 3)]),
        pa.array([datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC), None], pa.timestamp("us", "UTC")),
        pa.array([datetime(1960, 1, 2, 3), None], pa.timestamp("ms")),  # noqa: DTZ001 - a naive column
        pa.array([1.5, None, float("inf"), -0.0]),
        pa.array([True, False, None]),
        pa.array([b"\0\x80", None, b""]),
        pa.array(["甲", "乙", None, "甲"]).dictionary_encode(),
        pa.array(["x", None, "y", "z"]).slice(1, 2),
        pa.array([None, None], pa.string()),
        pa.array([], pa.string()),
    ],
    ids=lambda column: str(column.type),
)
@pytest.mark.parametrize("suite", [AES, CHACHA, SM4])
def test_every_type_comes_back_as_it_was(column: pa.Array, suite: int) -> None:
    count = len(column)
    rows = [str(i) for i in range(count)]
    sealed = protect_column(column, keys(count), PLACE, rows, suite=suite)
    back = open_column(sealed, keys(count), PLACE, rows, column.type)
    assert back.values.equals(column)
    assert back.values.type == column.type
    assert not back.gone.any()
    chunked = pa.chunked_array([sealed, sealed])
    both = open_column(
        chunked, keys(count).take(np.r_[0:count, 0:count]), PLACE, rows + rows, column.type
    ).values.to_pylist()
    assert both == column.to_pylist() * 2


@pytest.mark.parametrize("suite", [AES, CHACHA, SM4])
def test_a_value_moved_to_another_person_column_or_row_does_not_open(suite: int) -> None:
    own, rows = keys(4), [str(i) for i in range(4)]
    sealed = protect_column(PHONES, own, PLACE, rows, suite=suite)
    other = replace(PLACE, field="mobile")
    swapped = [rows[2], rows[1], rows[0], rows[3]]
    whole = sealed.to_pylist()
    for bodies, under, field, ids, forged in (
        (whole, keys(4, seed=8), PLACE, rows, (0, 2, 3)),
        (whole, own, other, rows, (0, 2, 3)),
        (whole, own, PLACE, swapped, (0, 2)),
        ([whole[2], None, whole[0], whole[3]], own, PLACE, rows, (0, 2)),
        ([bytes((suite % 3 + 1,)) + whole[0][1:], None, whole[2][:-1], b""], own, PLACE, rows, (0, 2, 3)),
    ):
        with pytest.raises(ValueForged) as refused:
            open_column(pa.array(bodies, pa.large_binary()), under, field, ids, pa.string())
        assert refused.value.positions == forged
        assert "13800138000" not in str(refused.value)


def test_one_flipped_bit_anywhere_is_refused() -> None:
    own = keys(1)
    (body,) = protect_column(pa.array(["6222021234567890"]), own, PLACE, None, suite=AES).to_pylist()
    for at in range(len(body) * 8):
        forged = bytearray(body)
        forged[at // 8] ^= 1 << at % 8
        with pytest.raises(ValueForged):
            open_blob(bytes(own.view(0)), bytes(forged), FIELD)


def test_a_destroyed_key_leaves_null_and_a_mark() -> None:
    own = keys(4)
    sealed = protect_column(PHONES, own, PLACE, None, suite=AES)
    own.found[2] = False
    own.raw[2] = 0
    back = open_column(sealed, own, PLACE, None, pa.string())
    assert back.values.to_pylist() == ["13800138000", None, None, ""]
    assert back.gone.tolist() == [False, False, True, False]


def test_nothing_is_protected_without_a_key() -> None:
    own = keys(4)
    own.found[1] = False  # a null needs none
    assert protect_column(PHONES, own, PLACE, None, suite=AES).null_count == 1
    own.found[0] = False
    with pytest.raises(InputError, match="1 value"):
        protect_column(PHONES, own, PLACE, None, suite=AES)
    with pytest.raises(InputError, match="keys"):
        protect_column(PHONES, keys(3), PLACE, None, suite=CHACHA)
    with pytest.raises(InputError, match="decimal"):
        protect_column(pa.array([Decimal("1.5")]), keys(1), PLACE, None, suite=CHACHA)


def test_a_value_of_another_type_is_said_to_be_so() -> None:
    sealed = protect_column(pa.array(["five!"]), keys(1), PLACE, None, suite=CHACHA)
    for kind in (pa.int64(), pa.date32(), pa.bool_()):
        with pytest.raises(InputError, match="another type"):
            open_column(sealed, keys(1), PLACE, None, kind)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.none() | st.binary(max_size=70), max_size=6), st.integers(1, 64))
def test_padding_hides_lengths_and_loses_nothing(values: list[bytes | None], pad: int) -> None:
    plain = encode(pa.array(values, pa.binary()), pad=pad)
    assert all(one is None or len(one) % pad == 0 for one in plain.to_pylist())
    assert decode(plain, pa.binary(), pad=pad).to_pylist() == values


def test_a_sealed_blob_opens_only_in_its_place() -> None:
    key = bytes(range(32))
    sealed = seal_blob(key, b"identities", b"request 7")
    assert open_blob(key, sealed, b"request 7") == b"identities"
    for wrong_key, aad in ((key, b"request 8"), (bytes(32), b"request 7")):
        with pytest.raises(ValueForged):
            open_blob(wrong_key, sealed, aad)


def test_a_pad_in_the_catalog_hides_how_long_a_text_is(tmp_path: Path) -> None:
    (tmp_path / "shop.yml").write_text(
        """dataset:
  - fides_key: shop
    erasure: {store: {kind: parquet, url: lake/}, mode: delete, copies: []}
    collections:
      - name: members
        erasure: {store: {glob: "members/*.parquet"}, person: true}
        fields:
          - {name: id, fides_meta: {primary_key: true}}
          - {name: note, erasure: {mode: crypto-erase, data_type: text, pad: 32}}
"""
    )
    catalog = read_catalog([tmp_path / "shop.yml"])
    members = catalog.collection("shop/members")
    notes = pa.array(["a", "a" * 31, None])
    rows = pa.RecordBatch.from_pydict({"id": pa.array(["1", "2", "3"]), "note": notes})
    with KeyTree.create(tmp_path / "vault", capacity=100, guard=LIFTED) as tree:
        hidden = protect_rows(tree, catalog, members, ["note"], rows).column("note")
        assert [one and len(one) for one in hidden.to_pylist()] == [29 + 32, 29 + 32, None]
        back = pa.RecordBatch.from_arrays([rows.column("id"), hidden], names=["id", "note"])
        assert open_rows(tree, catalog, members, "note", back).to_pylist() == notes.to_pylist()

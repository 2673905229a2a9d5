"""Many values at once are the same bytes as one at a time, published ones included; nothing forged gets through."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from fangxin.data.keys import lanes, suites
from fangxin.data.keys.envelope import Place, ValueForged, open_column, protect_column
from fangxin.data.keys.material import Keys

PUBLISHED = json.loads((Path(__file__).parent.parent / "vectors" / "values.json").read_text())
PLACE = Place(bytes(16), 1, "main", "accounts", "phone")
AEAD = [pytest.param(one, id=f"{n}") for n, one in enumerate(PUBLISHED["chacha20-poly1305"])]

Bytes = npt.NDArray[np.uint8]


def row(data: bytes) -> Bytes:
    return np.frombuffer(data, np.uint8).reshape(1, -1)


def random(seed: int, *shape: int) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


# ------------------------------------------------------------ published


@pytest.mark.parametrize("vector", AEAD)
def test_the_published_vectors_come_out_of_the_scalar_path(vector: dict[str, str]) -> None:
    key, nonce, aad, plain, body, tag = _fields(vector)
    one = suites.aead(suites.CHACHA, key)
    assert one.encrypt(nonce, plain, aad) == body + tag
    assert one.decrypt(nonce, body + tag, aad) == plain


@pytest.mark.parametrize("vector", [one for one in AEAD if len(one.values[0]["plaintext"]) <= 2 * lanes.LONGEST])
def test_the_published_vectors_come_out_of_the_lanes(vector: dict[str, str]) -> None:
    key, nonce, aad, plain, body, tag = _fields(vector)
    made = lanes.seal(row(key), row(nonce), row(plain), aad, None)
    assert made.tobytes() == body + tag
    back, good = lanes.unseal(row(key), row(nonce), made, aad, None)
    assert (back.tobytes(), good.tolist()) == (plain, [True])
    for at in range(len(body + tag)):
        forged = made.copy()
        forged[0, at] ^= 1
        back, good = lanes.unseal(row(key), row(nonce), forged, aad, None)
        assert (back.any(), good.any()) == (False, False)


@pytest.mark.parametrize("vector", [one for one in PUBLISHED["poly1305"] if len(one["msg"]) % 32 == 0])
def test_the_limbs_carry_and_wrap_as_published(vector: dict[str, str]) -> None:
    r, s = np.frombuffer(bytes.fromhex(vector["key"]), "<u4").astype(np.uint32).reshape(2, 4, 1)
    message = np.frombuffer(bytes.fromhex(vector["msg"]), "<u4").astype(np.uint32)
    scratch = lanes._Scratch(3)
    scratch._multiply_by(r & lanes._CLAMP)
    for first in range(0, len(message), 4):
        scratch._absorb(scratch._split(message[first : first + 4, None], 1))
    made = scratch._finish(s)
    assert made[:, -1].astype("<u4").tobytes() == bytes.fromhex(vector["tag"])


def test_the_key_stream_is_that_of_the_standard() -> None:
    # RFC 8439, section 2.3.2: the block with number 1 under this key and nonce.
    key, nonce = bytes(range(32)), bytes.fromhex("000000090000004a00000000")
    made = lanes.seal(row(key), row(nonce), np.zeros((1, 64), np.uint8), b"", None)
    assert made[0, :64].tobytes() == bytes.fromhex(
        "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
        "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e"
    )
    stream = Cipher(algorithms.ChaCha20(key, (1).to_bytes(4, "little") + nonce), None).encryptor()
    assert stream.update(bytes(64)) == made[0, :64].tobytes()


def test_sm4_gcm_is_the_published_one() -> None:
    (vector,) = PUBLISHED["sm4-gcm"]
    key, nonce, aad, plain, body, tag = _fields(vector)
    one = suites.Sm4Gcm(bytes(32))
    one._key = key  # the vector's own key of 16 bytes, in the place of the derived one
    assert one.encrypt(nonce, plain, aad) == body + tag
    assert one.decrypt(nonce, body + tag, aad) == plain
    for forged in (body + tag[:-1] + b"\0", (body + tag)[:15]):
        with pytest.raises(InvalidTag):
            one.decrypt(nonce, forged, aad)


# ------------------------------------------------------------ against the library


@settings(max_examples=60, deadline=None)
@given(
    count=st.sampled_from([1, 2, 63, lanes.WIDTH - 1, lanes.WIDTH, lanes.WIDTH + 1]),
    size=st.integers(0, lanes.LONGEST),
    common=st.integers(0, 64),
    per_row=st.booleans(),
    seed=st.integers(0, 2**32),
    extreme=st.sampled_from([None, 0, 255]),
)
def test_lanes_make_what_the_library_makes(
    count: int, size: int, common: int, per_row: bool, seed: int, extreme: int | None
) -> None:
    keys, nonces, plain = random(seed, count, 32), random(seed + 1, count, 12), random(seed + 2, count, size)
    if extreme is not None:
        keys[:] = plain[:] = extreme
    field = random(seed + 3, common - common % 16 if per_row else common).tobytes()
    rows = random(seed + 4, count, 16) if per_row else None
    made = lanes.seal(keys, nonces, plain, field, rows)
    for i in {0, count // 2, count - 1}:
        aad = field if rows is None else field + rows[i].tobytes()
        assert made[i].tobytes() == ChaCha20Poly1305(keys[i].tobytes()).encrypt(
            nonces[i].tobytes(), plain[i].tobytes(), aad
        )
    back, good = lanes.unseal(keys, nonces, made, field, rows)
    assert good.all()
    assert np.array_equal(back, plain)
    made[count // 2, -1] ^= 128
    back, good = lanes.unseal(keys, nonces, made, field, rows)
    assert np.flatnonzero(~good).tolist() == [count // 2]
    assert not back[count // 2].any()


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.none() | st.text(max_size=24) | st.sampled_from(["x" * 64, "x" * 65, "y" * 300]), max_size=9),
    cut=st.integers(0, 4),
    chunked=st.booleans(),
    dictionary=st.booleans(),
    bound=st.booleans(),
    suite=st.sampled_from(sorted(suites.NAMES)),
)
def test_what_one_path_protects_the_other_opens(
    values: list[str | None], cut: int, chunked: bool, dictionary: bool, bound: bool, suite: int
) -> None:
    column = pa.array(values, pa.string())
    column = (column.dictionary_encode() if dictionary else column).slice(cut)
    count = len(column)
    given_ = pa.chunked_array([column.slice(0, 2), column.slice(2)]) if chunked else column
    keys, rows = Keys(random(5, count, 32), np.ones(count, np.bool_)), [str(i) for i in range(count)] if bound else None
    for fast in (False, True):
        sealed = protect_column(given_, keys, PLACE, rows, suite=suite, batch=fast)
        assert {body[0] for body in sealed.to_pylist() if body is not None} <= {suite}
        back = open_column(sealed, keys, PLACE, rows, pa.string(), batch=not fast)
        assert back.values.to_pylist() == column.to_pylist()
        assert not back.gone.any()


def test_a_column_with_values_of_every_suite_opens() -> None:
    values = pa.array([f"value {i}" for i in range(9)])
    keys = Keys(random(6, 9, 32), np.ones(9, np.bool_))
    by_suite = [protect_column(values, keys, PLACE, None, suite=suite).to_pylist() for suite in suites.NAMES]
    mixed = [by_suite[i % 3][i] for i in range(9)]
    assert open_column(pa.array(mixed, pa.large_binary()), keys, PLACE, None, pa.string()).values.equals(values)
    for code in (0, 4, 255, 1):  # a suite that is none, or not the one it was made with
        forged = [bytes((code,)) + by_suite[1][0][1:], *mixed[1:]]
        with pytest.raises(ValueForged) as refused:
            open_column(pa.array(forged, pa.large_binary()), keys, PLACE, None, pa.string())
        assert refused.value.positions == (0,)


def test_many_rows_come_back_in_their_order_and_forged_ones_are_named() -> None:
    count = 70_000  # more than are in work at a time
    values = pa.array([None if i % 7 == 3 else f"{i}" * (1 + i % 3) for i in range(count)])
    keys = Keys(random(7, count, 32), np.ones(count, np.bool_))
    sealed = protect_column(values, keys, PLACE, None, suite=suites.CHACHA)
    assert open_column(sealed, keys, PLACE, None, pa.string()).values.equals(values)
    keys.raw[[1, 40_000, 69_999]] ^= 1
    keys.found[5] = False
    with pytest.raises(ValueForged) as refused:
        open_column(sealed, keys, PLACE, None, pa.string())
    assert refused.value.positions == (1, 40_000, 69_999)


# ------------------------------------------------------------ memory


def test_nothing_is_left_in_the_buffers_of_a_thread() -> None:
    keys, nonces = random(8, 3000, 32), random(9, 3000, 12)
    made = lanes.seal(keys, nonces, random(10, 3000, 40), bytes(16), None)
    lanes.unseal(keys, nonces, made, bytes(16), None)
    widths = lanes._OURS.by_width
    assert {lanes.WIDTH, 1024} <= widths.keys()
    buffers = [b for one in widths.values() for b in vars(one).values() if isinstance(b, np.ndarray)]
    assert len(buffers) >= 28
    assert not any(one.any() for one in buffers)


def _fields(vector: dict[str, str]) -> tuple[bytes, ...]:
    return tuple(bytes.fromhex(vector[name]) for name in ("key", "nonce", "aad", "plaintext", "ciphertext", "tag"))

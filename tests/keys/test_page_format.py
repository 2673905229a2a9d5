"""Pages and roots are, byte for byte, what the format says: a vault written today is read by every later version."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from fangxin.data.keys import gcm
from fangxin.data.keys import page as pages
from fangxin.data.keys.gcm import Texts
from fangxin.data.keys.grant import refs_digest
from fangxin.data.keys.page import Inner, PageWrong
from fangxin.data.keys.roots import shares

TREE = bytes(range(16))
KEY = bytes(range(32))


def test_a_body_is_version_suite_nonce_ciphertext_tag_bound_to_its_place() -> None:
    body = pages.seal_page(KEY, b"plain", tree_id=TREE, page=7, level=2, half=1)
    assert body[:2] == b"\x01\x01"
    assert len(body) == 5 + 30
    place = b"FXP1" + b"\x01\x02\x01\x00" + TREE + struct.pack("<Q", 7)
    assert len(place) == 32
    assert AESGCM(KEY).decrypt(body[2:14], body[14:], place) == b"plain"
    here = {"tree_id": TREE, "page": 7, "level": 2, "half": 1}
    assert pages.open_page(KEY, body, **here) == b"plain"  # type: ignore[arg-type]  # one dict of mixed values
    for elsewhere in ({"page": 8}, {"level": 1}, {"half": 0}, {"tree_id": bytes(16)}):
        with pytest.raises(PageWrong):
            pages.open_page(KEY, body, **(here | elsewhere))  # type: ignore[arg-type]
    for torn in (body[:-1], b"\x02" + body[1:], body[:1] + b"\x03" + body[2:], b""):
        with pytest.raises(PageWrong):
            pages.open_page(KEY, torn, **here)  # type: ignore[arg-type]


def test_a_bucket_is_sorted_entries_padded_to_eight() -> None:
    entries = [bytes((i,)) * 12 + b"\x01" + bytes((100 + i,)) * 32 for i in range(9)]
    plain = pages.encode_leaf(entries, level=2)
    assert plain == b"\x4c\x02\x09\x00\x00\x00\x00\x00" + b"".join(entries) + bytes(45 * 7)
    assert pages.entries_of(plain, level=2) == entries
    assert [pages.find(plain, e[:13], level=2) for e in entries] == [e[13:] for e in entries]
    assert pages.find(plain, b"\x03" * 12 + b"\x02", level=2) is None
    assert len(pages.encode_leaf([], level=1)) == len(pages.encode_leaf(entries[:8], level=1)) == 8 + 45 * 8
    wrong = (plain[:-1], b"\x49" + plain[1:], plain[:2] + b"\xff" + plain[3:], b"", plain[:4] + b"\1" + plain[5:])
    for one in wrong:
        with pytest.raises(PageWrong):
            pages.entries_of(one, level=2)


def test_many_buckets_are_opened_at_once_and_those_that_are_none_are_told() -> None:
    entries = [bytes((i,)) * 12 + b"\x01" + bytes((100 + i,)) * 32 for i in range(9)]
    plain = pages.encode_leaf(entries, level=2)
    keys, nodes = [bytes((i,)) * 32 for i in range(4)], [8, 11, 12, 16]

    def opened(third: bytes, *, level: int = 2, missing: int = -1) -> tuple[list[int], list[int], list[bytes]]:
        sealed = dict(pages.seal_pages(keys, nodes, [plain, plain, third, plain], tree_id=TREE, level=level))
        bodies = [b"" if node == missing else sealed[node] for node in nodes]
        size = np.array([len(body) for body in bodies])
        short = np.zeros(10, np.uint8)  # looked at to the end: this memory must not grow
        sheet, took, closed = pages.open_leaves(
            short,
            np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32),
            np.array(nodes),
            Texts(np.frombuffer(b"".join(bodies), np.uint8), np.cumsum(size) - size, size),
            tree_id=TREE,
            level=2,
        )
        assert not short.any()
        every = sheet[: 45 * took.sum()].reshape(-1, 45)
        first = np.cumsum(took) - took
        counts = pages.counts_of(every[first, -8:], took - 1, level=2)
        return closed, counts.tolist(), [row.tobytes() for row in every[first[-1] + 1 :][:9]]

    assert opened(plain) == ([], [9] * 4, entries)
    assert opened(plain, missing=12)[0] == [2]  # a missing row
    assert opened(plain[:-1])[0] == [2]  # no bucket's length
    assert opened(b"")[0] == [2]
    assert opened(plain, level=1)[0] == [0, 1, 2, 3]  # sealed for another level
    for wrong in (b"\x49" + plain[1:], plain[:2] + b"\xff" + plain[3:], plain[:4] + b"\1" + plain[5:]):
        assert opened(wrong)[1] == [9, 9, -1, 9]


def test_two_libraries_seal_the_same_bytes_and_tell_the_same_that_do_not_open() -> None:
    sodium, openssl = gcm.Sodium(), gcm.OpenSSL()
    rng = np.random.default_rng(3)
    keys, names, nonces = (rng.integers(0, 256, (5, wide), np.uint8) for wide in (32, 32, 12))
    plains = [rng.bytes(size) for size in (0, 1, 368, 3248, 9000)]
    told = [[row.tobytes() for row in rows] for rows in (keys, names, nonces)]
    ours, theirs = sodium.seal(*told, plains), openssl.seal(*told, plains)
    assert ours == theirs == [AESGCM(k).encrypt(n, p, a) for k, a, n, p in zip(*told, plains, strict=True)]
    size = np.array([len(text) for text in ours])
    memory = np.frombuffer(nonces.tobytes() + b"".join(ours), np.uint8).copy()
    sealed = Texts(memory, 60 + np.cumsum(size) - size, size)
    for _ in range(2):
        for library in (sodium, openssl):
            made = Texts(np.zeros(20_000, np.uint8), 7 + np.cumsum(size) - size, size - 16)
            closed = library.open(keys, names, sealed, np.arange(5) * 12, made)
            assert closed == ([] if memory[-1] == ours[-1][-1] else [1, 4])
            for number in {0, 2, 3} if closed else range(5):
                assert bytes(made.memory[made.at[number] :][: made.size[number]]) == plains[number]
            for number, (at, length) in enumerate(zip(sealed.at, size, strict=True)):
                text = memory[at : at + length].tobytes()
                one = library.open_one(told[0][number], told[1][number], told[2][number], text)
                assert one == (None if number in closed else plains[number])
        memory[-1] ^= 1  # a tag
        memory[sealed.at[1]] ^= 1  # a text


def test_an_inner_page_is_keys_then_living_halves_and_the_top_has_the_hash_key() -> None:
    keys = [bytes((i,)) * 32 for i in range(3)]
    top = Inner(0, bytearray(b"".join(keys)), bytearray(b"\x00\x01\x00"), b"h" * 32)
    assert top.encode() == b"\x49\x00\x03\x00\0\0\0\0" + b"h" * 32 + b"".join(keys) + b"\x00\x01\x00"
    assert Inner.decode(top.encode(), level=0, fanout=3) == top
    below = Inner(1, bytearray(b"".join(keys)), bytearray(3))
    assert len(below.encode()) == 8 + 33 * 3
    assert Inner.decode(below.encode(), level=1, fanout=3) == below
    with pytest.raises(PageWrong):
        Inner.decode(below.encode(), level=0, fanout=3)


def test_a_root_is_hkdf_over_all_shares_and_names_its_generation_and_holders() -> None:
    given = [b"a" * 32, b"b" * 32]
    root = shares.combine(given, tree_id=TREE, generation=5, holders=["file", "second"])
    info = b"fangxin/keys/root/1" + struct.pack("<Q", 5) + b"file\0second"
    assert root == HKDF(SHA256(), 32, salt=TREE, info=info).derive(b"".join(given))
    assert shares.top_key(root) == HKDFExpand(SHA256(), 32, info=b"fangxin/keys/top/1").derive(root)
    assert shares.commitment(root) == hashlib.sha256(b"fangxin/keys/commit/1" + root).hexdigest()
    assert repr(top := Inner(0, [KEY], bytearray(1), KEY)).count("\\x") == 1  # no key in it, only the halves
    assert top.hkey == KEY


def test_a_set_of_refs_has_one_digest_in_any_order() -> None:
    assert refs_digest([b"b", b"a"]) == refs_digest([b"a", b"b"])
    assert refs_digest([b"ab"]) != refs_digest([b"a", b"b"])


def test_an_address_is_the_ref_enciphered_under_the_key_of_the_top_page() -> None:
    # FIPS 197, appendix C.3
    key, ref = bytes(range(32)), bytes.fromhex("00112233445566778899aabbccddeeff")
    other = b"a ref of another length"
    found = pages.addresses(key, [ref, other, ref])
    assert found[0].tobytes() == found[2].tobytes() == bytes.fromhex("8ea2b7ca516745bfeafc4990")
    assert found[1].tobytes() == pages.addresses(key, [hashlib.blake2b(other, digest_size=16).digest()])[0].tobytes()
    assert len(pages.addresses(key, [])) == 0

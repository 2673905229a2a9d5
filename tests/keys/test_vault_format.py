"""docs/vault-format.md is enough: a key is found with SQLite, hashes and AES alone, without any code of ours."""

from __future__ import annotations

import hashlib
import hmac
import json
import sqlite3
import struct
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import ECB
from keys.vaults import DEEP, FLAT, LIFTED, destroy, raw, refs

from fangxin.data.keys.roots.file import FileRoot
from fangxin.data.keys.tree import KeyTree


def expand(key: bytes, info: bytes) -> bytes:
    return hmac.digest(key, info + b"\1", "sha256")


def record(path: Path) -> tuple[int, int, bytes, bytes]:
    """Generation, living half, tree id and share."""
    both, found = path.read_bytes(), []
    for block in (both[:4096], both[4096:]):
        magic, version, half, zero, generation, tree, share, digest = struct.unpack_from("<4sBBHQ16s32s16s", block)
        if (magic, version, zero) == (b"FXR1", 1, 0) and digest == hashlib.sha256(block[:64]).digest()[:16]:
            found.append((generation, half, tree, share))
    return max(found)


def key_of(folder: Path, ref: bytes, domain: int, *others: bytes) -> bytes | None:
    generation, half, tree, share = record(folder / "root")
    with closing(sqlite3.connect(folder / f"tree-{tree.hex()}.db")) as db:
        meta = dict(db.execute("SELECT name, value FROM meta"))
        fanout, depth, buckets = (int(meta[name]) for name in ("fanout", "depth", "n_buckets"))
        assert (meta["version"], meta["tree_id"], buckets) == (b"2", tree, fanout**depth)
        names = b"\0".join(name.encode() for name in json.loads(meta["holders"]))
        extract = hmac.digest(tree, share + b"".join(others), "sha256")
        root = expand(extract, b"fangxin/keys/root/1" + struct.pack("<Q", generation) + names)
        key, page, first = expand(root, b"fangxin/keys/top/1"), 0, 0
        address = b""
        for level in range(depth + 1):
            (body,) = db.execute(
                "SELECT body FROM node JOIN slot USING (slot) WHERE id = ?", (2 * page + half,)
            ).fetchone()
            place = struct.pack("<4sBBBB16sQ", b"FXP1", 1, level, half, 0, tree, page)
            assert body[:2] == b"\1\1"
            plain = AESGCM(key).decrypt(body[2:14], body[14:], place)
            kind, said, count, zero = struct.unpack_from("<BBHI", plain)
            assert (said, zero) == (level, 0)
            if level == depth:
                assert kind == 0x4C
                assert (len(plain) - 8) % (8 * 45) == 0
                entries = [plain[8 + 45 * n : 53 + 45 * n] for n in range(count)]
                assert entries == sorted(entries)
                return next((one[13:] for one in entries if one[:13] == address + bytes((domain,))), None)
            assert (kind, count) == (0x49, fanout)
            start = 8
            if level == 0:
                block = ref if len(ref) == 16 else hashlib.blake2b(ref, digest_size=16).digest()
                address = Cipher(AES256(plain[8:40]), ECB()).encryptor().update(block)[:12]  # noqa: S305
                bucket = int.from_bytes(address[:8], "little") * buckets >> 64
                start = 40
            child = bucket // fanout ** (depth - level - 1)  # its place on the next level
            key = plain[start + 32 * (child % fanout) :][:32]
            half = plain[start + 32 * fanout + child % fanout]
            first += fanout**level
            page = first + child
    raise AssertionError("a tree without buckets")


@pytest.mark.parametrize("capacity", [FLAT, DEEP])
def test_a_key_is_found_by_what_the_page_on_the_format_says(tmp_path: Path, capacity: int) -> None:
    second = FileRoot(tmp_path / "second", name="second")
    with KeyTree.create(tmp_path / "vault", capacity=capacity, holders=[second], guard=LIFTED) as tree:
        people = [*refs(20), b"a ref of another length"]
        tree.ensure(people, 1)
        tree.ensure(people[:3], 2)
        destroy(tree, people[:2])
        tree.ensure(people[4:6], 3)
        other = second.get(2)
        for domain in (1, 2, 3):
            found = {ref: key_of(tmp_path / "vault", ref, domain, other) for ref in people}
            assert {ref: key for ref, key in found.items() if key} == raw(tree, people, domain)

"""Makes evidence.json: run from the repository's root whenever a format of the evidence changes on purpose."""

from __future__ import annotations

import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fangxin.reports.ledger import checkpoint, entries, merkle, statement
from fangxin.reports.ledger.keys import SigningKeys

ORIGIN = "ledger.example.com/erasure/2026"
SECRET = bytes(range(32))
ENTRIES: list[dict[str, int | str]] = [
    {"type": "law.loaded", "time": "2026-11-22T22:30Z", "digest": "aa" * 32, "law": "cn"},
    {
        "type": "request.opened",
        "time": "2026-11-22T22:31Z",
        "tag": entries.tag(SECRET, 0),
        "commitment": entries.commitment(SECRET, [("phone_number", "+8613800000000"), ("member_id", "7")]),
        "law": "cn",
        "promise": "lecard",
        "catalog": "bb" * 32,
    },
    {"type": "request.verified", "time": "2026-11-22T22:32Z", "tag": entries.tag(SECRET, 1), "level": "otp"},
]


def build() -> dict[str, object]:
    """Return the vector: fixed keys and entries, and every byte that follows from them."""
    log, evidence = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2))
    keys = SigningKeys(ORIGIN, Path(), log, evidence)
    lines = [entries.encode(one) for one in ENTRIES]
    leaves = [merkle.leaf_hash(one) for one in lines]
    first = merkle.node_hash(leaves[0], leaves[1])

    def subtree(level: int, index: int) -> bytes:
        return leaves[index] if level == 0 else first

    root = merkle.root(3, subtree)
    note = checkpoint.sign(checkpoint.Checkpoint(ORIGIN, 3, root), log)
    signed = statement.sign(
        keys=keys,
        predicate_type="https://ledger.example.com/erasure/v1",
        subjects={"certificate.json": "cc" * 32},
        predicate={"nonce": "00" * 16, "hits": 0},
    )
    return {
        "vkey": str(keys.vkey),
        "evidence_pub": keys.public_files()["evidence.pub.pem"].decode(),
        "lines": [one.decode() for one in lines],
        "leaves": [one.hex() for one in leaves],
        "checkpoint": note.decode(),
        "receipt": checkpoint.proof_text(1, merkle.inclusion(1, 3, subtree), note).decode(),
        "statement": signed.decode(),
    }


if __name__ == "__main__":
    text = json.dumps(build(), indent=1, ensure_ascii=False, sort_keys=True)
    Path(__file__).with_name("evidence.json").write_text(f"{text}\n", "utf-8")

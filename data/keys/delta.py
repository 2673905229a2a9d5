"""The bytes of a page delta: what one write changed, on its way to a replica. Ciphertext and public facts only.

`FXD2 ‖ tree_id 16 ‖ from g u64 ‖ to g u64 ‖ seq u64 ‖ mark before 8 ‖ count u32 ‖ count x (id u64 ‖ length u32 ‖
body) ‖ count u32 ‖ count x (length u32 ‖ name ‖ length u32 ‖ value) ‖ SHA-256 of all before`, integers little endian.

* A length of FFFFFFFF says that the row (or the piece of metadata) is gone.
* Every write notes a random mark (`write`). A number alone would not tell a write from another that a crash undid.
* Metadata travels too: the codes of domains and the nonces of used grants must survive a restore.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from fangxin.data.errors import DoesNotHold
from fangxin.data.keys.vault import Changes

MAGIC = b"FXD2"
MARK = 8  # bytes of the mark of a write
HEAD = struct.Struct("<4s16sQQQ8s")
COUNT = struct.Struct("<I")
ROW = struct.Struct("<Q")
GONE = 0xFFFFFFFF


class DeltaWrong(DoesNotHold):
    """The bytes are no page delta, or not all of one."""


@dataclass(frozen=True)
class Delta:
    """One write: its place in the order of all writes (`seq`), and what it changed."""

    tree_id: bytes
    before: int  # generation
    after: int  # generation, once the anchor has committed it
    seq: int
    on: bytes  # mark of the write that it follows
    changes: Changes

    @property
    def mark(self) -> bytes:
        """The mark of this write, as it is noted."""
        return self.changes.notes.get("write") or bytes(MARK)

    def encode(self) -> bytes:
        """The bytes that travel."""
        parts = [HEAD.pack(MAGIC, self.tree_id, self.before, self.after, self.seq, self.on)]
        parts.append(COUNT.pack(len(self.changes.bodies)))
        for node, body in self.changes.bodies.items():
            parts += (ROW.pack(node), *_sized(body))
        parts.append(COUNT.pack(len(self.changes.notes)))
        for name, value in self.changes.notes.items():
            parts += (*_sized(name.encode()), *_sized(value))
        whole = b"".join(parts)
        return whole + hashlib.sha256(whole).digest()

    @classmethod
    def decode(cls, data: bytes) -> Delta:
        """Read it back; DeltaWrong if it is torn, changed, or none."""
        whole, digest = data[:-32], data[-32:]
        if len(data) < HEAD.size + 32 or whole[:4] != MAGIC or hashlib.sha256(whole).digest() != digest:
            raise DeltaWrong("not a page delta, or not all of one", hint="let the replica take a fresh copy")
        _, tree_id, before, after, seq, on = HEAD.unpack_from(whole)
        try:
            at, changes = HEAD.size, Changes()
            (count,), at = COUNT.unpack_from(whole, at), at + COUNT.size
            for _ in range(count):
                (node,) = ROW.unpack_from(whole, at)
                changes.bodies[node], at = _take(whole, at + ROW.size)
            (count,), at = COUNT.unpack_from(whole, at), at + COUNT.size
            for _ in range(count):
                name, at = _take(whole, at)
                changes.notes[(name or b"").decode()], at = _take(whole, at)
        except (struct.error, UnicodeDecodeError):
            at = -1
        if at != len(whole):
            raise DeltaWrong("a page delta does not say what its lengths promise", hint="the writer is defective")
        return cls(tree_id, before, after, seq, on, changes)


def _sized(value: bytes | None) -> tuple[bytes, bytes]:
    return (COUNT.pack(GONE), b"") if value is None else (COUNT.pack(len(value)), value)


def _take(data: bytes, at: int) -> tuple[bytes | None, int]:
    (length,) = COUNT.unpack_from(data, at)
    start = at + COUNT.size
    if length == GONE:
        return None, start
    if start + length > len(data):
        raise struct.error
    return data[start : start + length], start + length

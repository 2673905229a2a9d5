"""A challenge: the auditor, not the operator, chooses what a package has to prove.

Either entries by name ("prove this receipt") or a draw ("prove 30 of the third quarter"). The draw hangs on two things
that the operator cannot choose together: a checkpoint fixed before, and a nonce that the auditor makes afterwards.

    seed  = SHA-256("fangxin/challenge/1" || 0x0A || checkpoint body || nonce)
    drawn = of the `certificate.issued` entries in [from, to) under that checkpoint, the `count` with the smallest
            SHA-256(seed || index as 8 bytes, big-endian), in that order

Requests that were refused or withdrawn leave no document and are not drawn; entries of one request cannot be joined
once its secret is gone, so a draw is over the entries that end one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from fangxin.data.errors import DoesNotHold, InputError
from fangxin.reports.ledger import checkpoint as notes
from fangxin.reports.ledger.checkpoint import VKey
from fangxin.reports.ledger.log import Ledger
from fangxin.reports.ledger.statement import canonical

FORMAT = "fangxin/challenge/1"
_MINUTE = re.compile(r"[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]Z", re.ASCII)


@dataclass(frozen=True)
class Challenge:
    """What is to be proved, under which checkpoint: named entries, or `count` drawn from [first, after) by a nonce."""

    checkpoint: bytes
    entries: tuple[int, ...] = ()
    nonce: bytes = b""
    count: int = 0
    first: str = ""
    after: str = ""

    def document(self) -> bytes:
        """Return the file that auditor and operator exchange, canonical JSON."""
        common = {"format": FORMAT, "checkpoint": self.checkpoint.decode()}
        if self.entries:
            return canonical({**common, "entries": list(self.entries)}, "challenge")
        drawn = {"nonce": self.nonce.hex(), "count": self.count, "from": self.first, "to": self.after}
        return canonical({**common, **drawn}, "challenge")

    @classmethod
    def read(cls, raw: bytes) -> Challenge:
        """Read such a file; InputError for anything else."""
        try:
            asked = json.loads(raw)
            note = asked["checkpoint"].encode()
            if asked.keys() == {"format", "checkpoint", "entries"}:
                found = cls(note, entries=tuple(asked["entries"]))
            else:
                nonce = bytes.fromhex(asked["nonce"])
                found = cls(note, (), nonce, asked["count"], asked["from"], asked["to"])
            good = asked["format"] == FORMAT and found.document() == raw
        except (ValueError, KeyError, TypeError, AttributeError, InputError):
            good = False
        if not good or not found.is_sound():
            raise InputError("the challenge is not a fangxin/challenge/1", hint="`fangxin challenge` writes one")
        return found

    def is_sound(self) -> bool:
        """Whether its numbers, nonce and minutes are ones that the verifier takes."""
        if self.entries:
            return all(type(one) is int and 0 <= one < 2**53 for one in self.entries)
        minutes = all(_MINUTE.fullmatch(one) for one in (self.first, self.after))
        return minutes and 16 <= len(self.nonce) <= 64 and type(self.count) is int and self.count > 0

    def draw(self, ledger: Ledger) -> list[int]:
        """Return the indexes drawn from a ledger; DoesNotHold if its checkpoint is not one of that ledger."""
        at = notes.parse(self.checkpoint, *ledger.vkeys)
        if at.size > ledger.size or ledger.root(at.size) != at.root:
            raise DoesNotHold("the challenge's checkpoint is of another tree", hint="it was made for another ledger")
        ends = {
            index: str(entry["time"])
            for index, entry in ledger.entries()
            if index < at.size and entry["type"] == "certificate.issued"
        }
        if self.entries:
            if not ends.keys() >= set(self.entries):
                raise InputError("the challenge names an entry that is no certificate.issued")
            return list(self.entries)
        seed = hashlib.sha256(f"{FORMAT}\n".encode() + at.body() + self.nonce).digest()
        inside = [index for index, time in ends.items() if self.first <= time < self.after]
        inside.sort(key=lambda index: hashlib.sha256(seed + index.to_bytes(8, "big")).digest())
        return inside[: self.count]


def of_receipts(receipts: Sequence[bytes], vkeys: Sequence[VKey], checkpoint: bytes) -> Challenge:
    """Return the challenge "prove these receipts"; each must be a `.tlog-proof` of the same log."""
    indexes = []
    for one in receipts:
        match = re.match(rb"c2sp\.org/tlog-proof@v1\n(?:extra [^\n]*\n)?index ([0-9]{1,19})\n", one)
        if match is None:
            raise InputError("not a receipt: expected a .tlog-proof file")
        notes.parse(one.partition(b"\n\n")[2], *vkeys)
        indexes.append(int(match[1]))
    return Challenge(checkpoint, entries=tuple(indexes))

"""What a destroy batch leaves as evidence: numbers, commitments and claims, never a ref and never an address."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fangxin.data.keys.grant import stamp
from fangxin.data.keys.roots.protocol import Claim, RootReceipt, dated, strongest


@dataclass(frozen=True)
class Receipt:
    """The outcome of one batch. Nothing found: `destroyed` 0, the generation stays, no page was written.

    A grant that is carried out a second time (after an interruption) destroys 0 more; `earlier` is what it
    destroyed the first time, and all other figures are those of that first time.
    """

    vault: str  # hex
    tree: str  # hex
    grant: str  # plan hash
    generation_before: int
    generation_after: int
    commitment_before: str
    commitment_after: str
    pages: int
    bytes: int
    pages_sha256: str
    destroyed: int  # keys
    earlier: int  # keys
    domains: tuple[int, ...]  # codes of which at least one key died
    holders: tuple[RootReceipt, ...]
    effective_at: datetime
    officers: int = 0  # how many different officers had signed; 0 where none was needed

    @property
    def claim(self) -> Claim:
        """What may be said of the old root: the claim of the strongest single holder."""
        return strongest(self.holders)

    def event(self) -> Mapping[str, Any]:  # Any: a JSON object
        """The outcome as the ledger keeps it."""
        return {
            "vault": self.vault,
            "tree": self.tree,
            "grant": self.grant,
            "generation_before": self.generation_before,
            "generation_after": self.generation_after,
            "commitment_before": self.commitment_before,
            "commitment_after": self.commitment_after,
            "pages": self.pages,
            "bytes": self.bytes,
            "pages_sha256": self.pages_sha256,
            "keys_destroyed": self.destroyed + self.earlier,
            "domains": list(self.domains),
            "officers": self.officers,
            "holders": [
                {
                    "holder": holder.holder,
                    "kept": holder.kept,
                    "effect": holder.claim.effect,
                    "backup_resistant": holder.claim.backup_resistant,
                    "conditions": list(holder.claim.conditions),
                }
                for holder in self.holders
            ],
            "effective_at": stamp(dated(self.claim, self.effective_at)),
        }


class Tally:
    """Counts and digests rows on their way into the file, and keeps what a batch says of itself."""

    def __init__(self) -> None:
        self.pages = self.bytes = self.keys = 0
        self.domains: set[int] = set()
        self._digest = hashlib.sha256()

    def over(self, rows: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
        """The same rows, which must ascend."""
        for node, body in rows:
            self.pages += 1
            self.bytes += len(body)
            place = (node >> 1).to_bytes(8, "little") + bytes((node & 1,))
            self._digest.update(place + hashlib.sha256(body).digest())
            yield node, body

    def sha256(self) -> str:
        """SHA-256 in hex over the (page u64 ‖ half 1 ‖ SHA-256 of body) of all rows."""
        return self._digest.hexdigest()

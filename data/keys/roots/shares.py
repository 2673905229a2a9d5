"""How shares become a root, and how holders are brought to agree on the one generation that lives.

All shares are needed (m of m), so a root is dead once one share is dead. An aborted attempt's share is as
dangerous as an old one: it opens a shadow of the tree, with keys that are destroyed later. So every write
settles first.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from fangxin.data.errors import Unavailable
from fangxin.data.keys.roots.protocol import Anchor, Living, Root, RootGone, RootReceipt, RootUnsettled


def combine(shares: Sequence[bytes], *, tree_id: bytes, generation: int, holders: Sequence[str]) -> bytes:
    """The root of a generation: HKDF-SHA256 (RFC 5869) over all shares in the order of `holders`, the anchor first.

    Salt is the tree's id; info is "fangxin/keys/root/1", the generation as u64 little endian, and the holders'
    names with a zero byte between.
    """
    info = b"fangxin/keys/root/1" + generation.to_bytes(8, "little") + "\0".join(holders).encode()
    return _expand(hmac.digest(tree_id, b"".join(shares), "sha256"), info)


def top_key(root: bytes) -> bytes:
    """The key of the top page under a root."""
    return _expand(root, b"fangxin/keys/top/1")


def commitment(root: bytes) -> str:
    """What the ledger holds of a root: SHA-256 in hex, binding and telling nothing."""
    return hashlib.sha256(b"fangxin/keys/commit/1" + root).hexdigest()


def load(anchor: Anchor, holders: Sequence[Root]) -> tuple[Living, bytes]:
    """What lives, and its root. RootGone if the anchor moved on between the two looks; the caller looks again."""
    living = anchor.living()
    everyone: list[Root] = [anchor, *holders]
    shares = [holder.get(living.generation) for holder in everyone]
    root = combine(
        shares,
        tree_id=living.tree_id,
        generation=living.generation,
        holders=[holder.name for holder in everyone],
    )
    return living, root


def settle(anchor: Anchor, holders: Sequence[Root]) -> tuple[tuple[RootReceipt, ...], Living, int]:
    """Retire all that is not the anchor's generation, in every holder; receipts, what lives, the highest number seen.

    RootUnsettled if one cannot be reached: then writes are refused, for nobody knows which root is out there.
    """
    try:
        seen = max((g for holder in holders for g in holder.generations()), default=0)  # the anchor's highest lives
        living, first = anchor.settle()
        receipts = (first, *(holder.retire(keep=living.generation) for holder in holders))
    except RootGone as gone:
        raise RootGone(
            f"a root holder has lost the living generation: {gone.message}",
            hint="restore that holder's storage; without it nobody's keys can be opened",
        ) from gone
    except Unavailable as away:
        raise RootUnsettled(
            f"a root holder cannot be settled: {away.message}",
            hint="reading goes on; make the holder reachable, then repeat the write",
        ) from away
    return receipts, living, max(seen, living.generation)


def _expand(key: bytes, info: bytes) -> bytes:
    # The first block of HKDF-Expand, which is all that 32 bytes need: every batch does it twice.
    return hmac.digest(key, info + b"\x01", "sha256")

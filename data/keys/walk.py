"""The way from the root down to a bucket, under one generation of the root; readers take it without any lock.

* The anchor is asked before the first row is read, so a snapshot is never older than what the anchor says.
* A page that does not open means a stale root if the anchor has moved on (look again), and damage if it has
  not. Damage is never reported as an absent key, and "absent" is only said of what lives now.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TypeVar

import numpy as np

from fangxin.data.errors import Unavailable, VaultDamaged
from fangxin.data.keys import page as pages
from fangxin.data.keys.faults import StaleRoot
from fangxin.data.keys.material import KEY, Keys
from fangxin.data.keys.page import Inner, PageWrong, Shape
from fangxin.data.keys.roots import shares
from fangxin.data.keys.roots.protocol import Anchor, Living, Root, RootGone
from fangxin.data.keys.vault import VaultFile

TRIES = 20  # looks of a reader that destroy batches overtake
Result = TypeVar("Result")


@dataclass
class State:
    """What one generation's root opens: the top page's key, and the inner pages seen so far."""

    living: Living
    top_key: bytes = field(repr=False)
    commitment: str
    inner: dict[int, Inner] = field(default_factory=dict, repr=False)


class Walk:
    """Finds and opens the pages of one tree; `body` stands in for the file when a copy is examined."""

    def __init__(
        self,
        file: VaultFile,
        anchor: Anchor,
        holders: Sequence[Root],
        *,
        shape: Shape,
        tree_id: bytes,
        body: Callable[[int], bytes | None] | None = None,
    ) -> None:
        self.file = file
        self.anchor = anchor
        self.holders = tuple(holders)
        self.shape = shape
        self.tree_id = tree_id
        self._body = body or file.body
        self._cached: State | None = None

    def reading(self, work: Callable[[State], Result]) -> Result:
        """Do work on one snapshot of the pages and the root that opens it; again if a batch overtakes it."""
        for turn in range(TRIES):
            try:
                with self.file.snapshot():
                    return work(self.state())
            except StaleRoot:
                self.forget()
                time.sleep((1 + secrets.randbelow(1000) / 1000) * 0.0005 * turn)
        raise Unavailable("destroy batches overtook this reader again and again", hint="repeat it")

    def state(self) -> State:
        """What lives now. Inner pages are kept in RAM for as long as their generation lives."""
        living = self.anchor.living()
        cached = self._cached
        if cached is not None and cached.living == living:
            return cached
        try:
            living, root = shares.load(self.anchor, self.holders)
        except RootGone:
            if self.anchor.living() != living:
                raise StaleRoot from None
            raise
        if living.tree_id != self.tree_id:
            raise Unavailable("the vault has grown into another file", hint="open it again")
        self._cached = State(living, shares.top_key(root), shares.commitment(root))
        return self._cached

    def forget(self) -> None:
        """Drop what is kept in RAM."""
        self._cached = None

    def fetch(self, state: State, refs: Sequence[bytes], domain: int) -> Keys:
        """The keys of many refs, each bucket opened once."""
        tagged = [self.tagged(state, ref, domain) for ref in refs]
        buckets = [self.shape.bucket_of(name) for name in tagged]
        rows: list[int] = []
        found: list[bytes] = []
        for bucket, some in groupby(sorted(range(len(tagged)), key=buckets.__getitem__), key=buckets.__getitem__):
            plain = self.open(state, self.shape.depth, bucket)
            for row in some:
                key = pages.find(plain, tagged[row], level=self.shape.depth)
                if key is not None:
                    rows.append(row)
                    found.append(key)
        keys = Keys.empty(len(tagged))
        keys.raw[rows] = np.frombuffer(b"".join(found), np.uint8).reshape(-1, KEY)
        keys.found[rows] = True
        if not keys.found.all() and self.anchor.living() != state.living:
            raise StaleRoot
        return keys

    def address(self, state: State, ref: bytes) -> bytes:
        """Where a ref's entries lie: a keyed hash, whose key is in the top page and not in the clear."""
        hkey = self.inner(state, 0, 0).hkey
        return hashlib.blake2b(ref, digest_size=16, key=hkey).digest()[: pages.ADDRESS]

    def tagged(self, state: State, ref: bytes, domain: int) -> bytes:
        """Address and domain: the name of an entry."""
        return self.address(state, ref) + bytes((domain,))

    def by_bucket(self, names: Iterable[bytes]) -> Iterator[tuple[int, list[bytes]]]:
        """Addresses (or names of entries) by bucket; buckets ascending, names sorted."""
        found: dict[int, list[bytes]] = defaultdict(list)
        for name in names:
            found[self.shape.bucket_of(name)].append(name)
        return ((bucket, sorted(found[bucket])) for bucket in sorted(found))

    def entries(self, state: State, bucket: int) -> list[bytes]:
        """All entries of a bucket, sorted."""
        return pages.entries_of(self.open(state, self.shape.depth, bucket), level=self.shape.depth)

    def child(self, state: State, level: int, index: int) -> tuple[bytes, int]:
        """Key and living half of a page, as the page above says; of the top page, as the root and the anchor say."""
        if level == 0:
            return state.top_key, state.living.half
        above = self.inner(state, level - 1, index // self.shape.fanout)
        slot = index % self.shape.fanout
        return above.keys[slot], above.halves[slot]

    def node(self, state: State, level: int, index: int) -> int:
        """The row in which a page lives."""
        return 2 * self.shape.page(level, index) + self.child(state, level, index)[1]

    def alive(self, state: State) -> set[int]:
        """The rows of all living pages; opens every inner page."""
        widths = ((level, self.shape.fanout**level) for level in range(self.shape.depth + 1))
        return {self.node(state, level, index) for level, width in widths for index in range(width)}

    def inner(self, state: State, level: int, index: int) -> Inner:
        """An inner page in the clear."""
        number = self.shape.page(level, index)
        if number not in state.inner:
            plain = self.open(state, level, index)
            try:
                state.inner[number] = Inner.decode(plain, level=level, fanout=self.shape.fanout)
            except PageWrong:
                raise self._wrong(state, number, "is no inner page") from None
        return state.inner[number]

    def open(self, state: State, level: int, index: int) -> bytes:
        """The plaintext of a living page. StaleRoot if overtaken, VaultDamaged if not."""
        number = self.shape.page(level, index)
        key, half = self.child(state, level, index)
        body = self._body(2 * number + half)
        if body is None:
            raise self._wrong(state, number, "is missing")
        try:
            return pages.open_page(key, body, tree_id=self.tree_id, page=number, level=level, half=half)
        except PageWrong:
            raise self._wrong(state, number, "does not open") from None

    def _wrong(self, state: State, number: int, what: str) -> Exception:
        if self.anchor.living() != state.living:
            return StaleRoot()
        return VaultDamaged(
            f"page {number} of the key vault {what} at generation {state.living.generation}; "
            "expected a page sealed by the living root",
            hint="restore the newest backup made since the last destroy batch; no key was reported as absent",
        )

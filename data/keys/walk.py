"""The way from the root down to a bucket, under one generation of the root; readers take it without any lock.

* The anchor is asked before the first row is read, so a snapshot is never older than what the anchor says.
* A page that does not open means a stale root if the anchor has moved on (look again), and damage if it has
  not. Damage is never reported as an absent key, and "absent" is only said of what lives now.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from fangxin.data.errors import Unavailable, VaultDamaged
from fangxin.data.keys import page as pages
from fangxin.data.keys.faults import Grown, StaleRoot
from fangxin.data.keys.gcm import KEY, Bytes, Texts
from fangxin.data.keys.lease import Lease
from fangxin.data.keys.leaves import AT_ONCE, Leaves, Numbers, Order, Rows, Sheet, order_of, sorted_names
from fangxin.data.keys.mapped import PAGE, Sight
from fangxin.data.keys.material import Keys
from fangxin.data.keys.page import Inner, PageWrong, Shape
from fangxin.data.keys.pick import picker
from fangxin.data.keys.roots import shares
from fangxin.data.keys.roots.protocol import Anchor, Living, Root, RootGone
from fangxin.data.keys.vault import VaultFile

APART = 256  # changed pages that lie before the others
TRIES = 20  # looks of a reader that destroy batches overtake
SEARCHED = 4  # so many names are searched in the bytes of their buckets: numpy pays for more of them only
Result = TypeVar("Result")


@dataclass
class State:
    """What one generation's root opens: the top page's key, and the inner pages seen so far."""

    living: Living
    top_key: bytes = field(repr=False)
    commitment: str
    inner: dict[int, Inner] = field(default_factory=dict, repr=False)
    older: Mapping[int, Inner] = field(
        default_factory=dict, repr=False
    )  # of an earlier generation; `inner` goes before

    def known(self, number: int) -> Inner | None:
        """An inner page that was seen."""
        return self.inner.get(number) or self.older.get(number)

    def followed(self, living: Living, top_key: bytes, commitment: str, changed: dict[int, Inner]) -> State:
        """What the next generation opens, of which these pages changed; the others need not be read again.

        Readers of this generation may still add pages to what it has seen: old ones for those that changed. So these
        lie before what was seen, in a dictionary of their own, and all is copied only now and then.
        """
        if not self.older:
            return State(living, top_key, commitment, changed, self.inner)
        changed = self.inner | changed
        if len(changed) <= APART:
            return State(living, top_key, commitment, changed, self.older)
        return State(living, top_key, commitment, {**self.older, **changed})


class Asked(NamedTuple):
    """Names by the pages that their entries lie in: those at by[first[i]] to by[first[i + 1] - 1] in the i-th."""

    by: Numbers  # places of the names, in the order in which entries lie
    first: Numbers  # one more than there are pages
    buckets: Numbers  # of the pages, ascending
    keys: Bytes
    nodes: Numbers

    def some(self, start: int, end: int) -> Asked:
        """The same of the pages with these numbers."""
        first, some = self.first[start : end + 1], slice(start, end)
        by = self.by[first[0] : first[-1]]
        return Asked(by, first - first[0], self.buckets[some], self.keys[some], self.nodes[some])

    def only(self, which: npt.NDArray[np.bool_]) -> Asked:
        """The same of some pages."""
        counts = np.diff(self.first)
        first = np.concatenate(([0], np.cumsum(counts[which])))
        return Asked(self.by[np.repeat(which, counts)], first, self.buckets[which], self.keys[which], self.nodes[which])


class Walk:
    """Finds and opens the pages of one tree."""

    def __init__(
        self,
        file: VaultFile,
        anchor: Anchor,
        holders: Sequence[Root],
        *,
        shape: Shape,
        tree_id: bytes,
        lease: Lease | None = None,
    ) -> None:
        self.file = file
        self.anchor = anchor
        self.holders = tuple(holders)
        self.shape = shape
        self.tree_id = tree_id
        self._lease = lease
        self._cached: State | None = None
        self._hiding: pages.Hiding | None = None

    def reading(self, work: Callable[[State], Result]) -> Result:
        """Do work on one snapshot of the pages and the root that opens it; again if a batch overtakes it."""
        for turn in range(TRIES):
            try:
                with self.file.snapshot(), self._lease.reading() if self._lease else contextlib.nullcontext():
                    return work(self.state())
            except StaleRoot:
                self.forget()
                time.sleep((1 + secrets.randbelow(1000) / 1000) * 0.0005 * turn)
        raise Unavailable("destroy batches overtook this reader again and again", hint="repeat it")

    def state(self, living: Living | None = None) -> State:
        """What lives now. Inner pages are kept in RAM for as long as their generation lives.

        `living`: what the anchor has just said to a writer, whom nobody overtakes.
        """
        living = living or self.anchor.living()
        cached = self._cached
        if cached is not None and cached.living == living:
            if self._lease:
                self._lease.hold(living.generation)
            return cached
        if living.tree_id != self.tree_id:
            raise Grown
        if self._lease:
            # The writer looks at leases after its commit: either it sees this one, or we see its generation.
            self._lease.hold(living.generation)
            if self.anchor.living() != living:
                raise StaleRoot
        try:
            living, root = shares.load(self.anchor, self.holders)
        except RootGone:
            if self.anchor.living() != living:
                raise StaleRoot from None
            raise
        if living.tree_id != self.tree_id:
            raise Grown
        self._cached = State(living, shares.top_key(root), shares.commitment(root))
        return self._cached

    def go_on(self, state: State) -> None:
        """Take over what a batch that was just committed has made, instead of reading it back.

        Its pages are nobody else's: a reader who still goes by what lived before would put old ones among them.
        """
        self._cached = state

    def forget(self) -> None:
        """Drop what is kept in RAM."""
        self._cached = self._hiding = None

    # ------------------------------------------------------------ many subjects

    def fetch(self, state: State, refs: Sequence[bytes], domain: int) -> Keys:
        """The keys of many refs, each bucket opened once."""
        keys = Keys.empty(len(refs))
        if len(refs) <= SEARCHED:
            self._search(state, refs, domain, keys)
        else:
            names = self.names(state, refs, (domain,))
            asked = self._asked(state, names)
            if (seen := self.file.sight(asked.nodes)) is not None:
                asked = self._see(state, names, asked, seen, keys)
            self._take(state, names, asked, None, keys)
        if not keys.found.all() and self.anchor.living() != state.living:
            raise StaleRoot
        return keys

    def _see(self, state: State, names: Rows, asked: Asked, seen: Sight, keys: Keys) -> Asked:
        """Put the keys that are seen past SQLite into their places; what it has to be asked for all the same."""
        opened = np.ones(len(asked.nodes), np.bool_)
        if (pick := picker()) is None:
            self._take(state, names, asked, seen, keys)
        else:
            for start in range(0, len(opened), AT_ONCE):
                some = asked.some(start, start + AT_ONCE)
                opened[start : start + AT_ONCE] = pick(
                    seen.bodies(start, start + AT_ONCE), some.keys, some.nodes, some.first, some.by, names,
                    keys.raw, keys.found, tree_id=self.tree_id, level=self.shape.depth,
                )  # fmt: skip
        # What was found is right, however old its page: a key dies with the one that opens its page.
        lacking = np.logical_or.reduceat(~keys.found[asked.by], asked.first[:-1])
        return asked.only(lacking & ~(opened & seen.whole))

    def _take(self, state: State, names: Rows, asked: Asked, seen: Sight | None, keys: Keys) -> None:
        """Put the keys with these names into their places, as far as they are there."""
        for some, sheet in self._sheets(state, asked, seen):
            rows, found = sheet.find(names[some.by], np.repeat(some.buckets, np.diff(some.first)))
            rows[~found] = 0
            keys.raw[some.by], keys.found[some.by] = rows[:, pages.TAGGED :], found

    def hiding(self, state: State) -> pages.Hiding:
        """Where the entries of refs lie; the key of that is in the top page and not in the clear."""
        hkey, hiding = self.inner(state, 0, 0).hkey, self._hiding
        if hiding is None or hiding.hkey != hkey:
            self._hiding = hiding = pages.Hiding(hkey)
        return hiding

    def names(self, state: State, refs: Sequence[bytes], domains: Sequence[int]) -> Rows:
        """The names of entries: addresses and domains, all domains of a subject together."""
        codes = np.frombuffer(bytes(domains), np.uint8)
        return names_of(np.repeat(self.hiding(state).addresses(refs), len(codes), axis=0), np.tile(codes, len(refs)))

    def order(self, names: Rows) -> Order:
        """What rows with these names are sorted by; their domains count for nothing in it."""
        return order_of(self.shape.buckets_of(names), names, self.shape.buckets)

    def by_bucket(self, state: State, names: Rows) -> Iterator[tuple[Numbers, Order, Leaves]]:
        """Their buckets in the clear, some at a time, with the places of the names in them, sorted, and their order."""
        for some, sheet in self._sheets(state, self._asked(state, names), None):
            yield some.by, self.order(names[some.by]), sheet.leaves(self.shape.buckets)

    def _asked(self, state: State, names: Rows) -> Asked:
        buckets = self.shape.buckets_of(names)
        by = sorted_names(names, order_of(buckets, names, self.shape.buckets))
        buckets = buckets[by]
        first = np.flatnonzero(np.diff(buckets, prepend=-1))
        keys, nodes = self._below(state, buckets[first])
        return Asked(by, np.append(first, len(by)), buckets[first], keys, nodes)

    def _sheets(self, state: State, asked: Asked, seen: Sight | None) -> Iterator[tuple[Asked, Sheet]]:
        sheet, room = np.zeros(0, np.uint8), np.zeros(AT_ONCE * PAGE * 9 // 8 if seen else 0, np.uint8)
        for start in range(0, len(asked.nodes), AT_ONCE):
            some = asked.some(start, start + AT_ONCE)
            bodies = seen.copies(start, start + AT_ONCE, room) if seen else None
            opened, sheet = self._sheet(state, some.buckets, some.keys, some.nodes, bodies, sheet)
            yield some, opened

    def all_leaves(self, state: State) -> Iterator[Leaves]:
        """Every bucket of the tree, some at a time."""
        for start in range(0, self.shape.buckets, AT_ONCE):
            yield self.leaves(state, np.arange(start, min(start + AT_ONCE, self.shape.buckets)))

    def leaves(self, state: State, buckets: Numbers) -> Leaves:
        """Some buckets in the clear."""
        keys, nodes = self._below(state, buckets)
        return self._sheet(state, buckets, keys, nodes, None, np.zeros(0, np.uint8))[0].leaves(self.shape.buckets)

    def _sheet(
        self, state: State, buckets: Numbers, keys: Bytes, nodes: Numbers, seen: Texts | None, memory: Bytes
    ) -> tuple[Sheet, Bytes]:
        # On this memory if it is long enough, else on the longer one that is returned.
        depth, bodies = self.shape.depth, self.file.bodies(nodes) if seen is None else self._rest(nodes, seen)
        memory, sizes, closed = pages.open_leaves(memory, keys, nodes, bodies, tree_id=self.tree_id, level=depth)
        if closed and seen is not None:
            return self._sheet(state, buckets, keys, nodes, None, memory)
        if closed:
            raise self._closed(state, int(nodes[closed[0]]))
        first = np.cumsum(sizes) - sizes + 1
        sheet = memory[: pages.ENTRY * int(sizes.sum())].reshape(-1, pages.ENTRY)
        counts = pages.counts_of(sheet[first - 1, -pages.HEAD.size :], sizes - 1, level=depth)
        if (wrong := np.flatnonzero(counts < 0)).size:
            raise self._wrong(state, int(nodes[wrong[0]]) >> 1, "is no bucket")
        return Sheet(buckets, first, counts, sheet), memory

    def _rest(self, nodes: Numbers, seen: Texts) -> Texts:
        """What was seen, and what was not, as SQLite gives it."""
        if not (unseen := np.flatnonzero(seen.size == 0)).size:
            return seen
        others = self.file.bodies(nodes[unseen])
        at, size, end = seen.at.copy(), seen.size.copy(), len(nodes) * PAGE
        at[unseen], size[unseen] = others.at + end, others.size
        if (room := end + len(others.memory)) > len(seen.memory):
            return Texts(np.concatenate((seen.memory[:end], others.memory)), at, size)
        seen.memory[end:room] = others.memory
        return Texts(seen.memory, at, size)

    def _below(self, state: State, buckets: Numbers) -> tuple[Bytes, Numbers]:
        """Keys (N, 32) and rows of some buckets (ascending), as the pages above say."""
        above, fanout = self.shape.depth - 1, self.shape.fanout
        parents = np.unique(buckets // fanout)
        self._inners(state, above, parents.tolist())
        inner = [self.inner(state, above, index) for index in parents.tolist()]
        keys = np.frombuffer(b"".join([one.keys for one in inner]), np.uint8).reshape(-1, KEY)
        halves = np.frombuffer(b"".join([one.halves for one in inner]), np.uint8)
        which = np.searchsorted(parents, buckets // fanout) * fanout + buckets % fanout
        return keys[which], 2 * (self.shape.page(self.shape.depth, 0) + buckets) + halves[which]

    def entries(self, state: State, bucket: int) -> bytes:
        """One bucket's entries, one after the other."""
        try:
            return pages.entries_in(self.open(state, self.shape.depth, bucket), level=self.shape.depth)
        except PageWrong:
            raise self._wrong(state, self.shape.page(self.shape.depth, bucket), "is no bucket") from None

    def _search(self, state: State, refs: Sequence[bytes], domain: int, keys: Keys) -> None:
        for row, address in enumerate(self.hiding(state).few(refs)):
            tagged = address + bytes((domain,))
            plain = self.open(state, self.shape.depth, self.shape.bucket_of(tagged))
            key = pages.find(plain, tagged, level=self.shape.depth)
            if key is not None:
                keys.raw[row] = np.frombuffer(key, np.uint8)
                keys.found[row] = True

    # ------------------------------------------------------------ pages

    def child(self, state: State, level: int, index: int) -> tuple[bytes, int]:
        """Key and living half of a page, as the page above says; of the top page, as the root and the anchor say."""
        if level == 0:
            return state.top_key, state.living.half
        above, slot = divmod(index, self.shape.fanout)
        return self.inner(state, level - 1, above).child(slot)

    def node(self, state: State, level: int, index: int) -> int:
        """The row in which a page lives."""
        return 2 * self.shape.page(level, index) + self.child(state, level, index)[1]

    def alive(self, state: State) -> set[int]:
        """The rows of all living pages; opens every inner page."""
        widths = ((level, self.shape.fanout**level) for level in range(self.shape.depth + 1))
        return {self.node(state, level, index) for level, width in widths for index in range(width)}

    def inner(self, state: State, level: int, index: int) -> Inner:
        """An inner page in the clear."""
        number = self.shape.firsts[level] + index
        if (known := state.known(number)) is not None:
            return known
        plain = self.open(state, level, index)
        try:
            state.inner[number] = made = Inner.decode(plain, level=level, fanout=self.shape.fanout)
        except PageWrong:
            raise self._wrong(state, number, "is no inner page") from None
        return made

    def _inners(self, state: State, level: int, indices: Iterable[int]) -> None:
        """Have many inner pages of a level in the clear, read in one go; what is not there or wrong, `inner` says."""
        first, fanout = self.shape.page(level, 0), self.shape.fanout
        new = sorted(index for index in indices if state.known(first + index) is None)
        if len(new) <= SEARCHED:
            return
        keys, nodes = self.children(state, level, new)
        wanted = dict(zip(nodes, keys, strict=True))
        for node, body in self.file.rows(nodes):
            if (key := wanted.get(node)) is not None:
                with contextlib.suppress(PageWrong):
                    plain = pages.open_page(key, body, tree_id=self.tree_id, page=node >> 1, level=level, half=node & 1)
                    state.inner[node >> 1] = Inner.decode(plain, level=level, fanout=fanout)

    def open(self, state: State, level: int, index: int) -> bytes:
        """The plaintext of a living page. StaleRoot if overtaken, VaultDamaged if not."""
        key, half = self.child(state, level, index)
        number = self.shape.page(level, index)
        try:
            body = self.file.body(2 * number + half)
            return pages.open_page(key, body, tree_id=self.tree_id, page=number, level=level, half=half)
        except PageWrong:
            raise self._closed(state, 2 * number + half) from None

    def children(self, state: State, level: int, indices: Iterable[int]) -> tuple[list[bytes], list[int]]:
        """Keys and rows of many pages of a level (ascending), as `child` and `node` give them one by one."""
        if level == 0:
            return [state.top_key], [state.living.half]
        fanout, first = self.shape.fanout, self.shape.page(level, 0)
        indices = list(indices)
        if len(indices) > SEARCHED:
            self._inners(state, level - 1, {index // fanout for index in indices})
        keys, nodes, end = [], [], -1
        for index in indices:
            if index >= end:
                above = index // fanout
                inner, start = self.inner(state, level - 1, above), above * fanout
                end = start + fanout
            key, half = inner.child(index - start)
            keys.append(key)
            nodes.append(2 * (first + index) + half)
        return keys, nodes

    def _closed(self, state: State, node: int) -> Exception:
        return self._wrong(state, node >> 1, "does not open" if any(self.file.rows((node,))) else "is missing")

    def _wrong(self, state: State, number: int, what: str) -> Exception:
        if self.anchor.living() != state.living:
            return StaleRoot()
        generation = state.living.generation
        hint = "`fangxin keys restore` brings back the newest copy that opens; no key was reported as absent"
        if number == 0 and (tried := self.file.number("attempt")) != generation:
            older, newer = ("root", "pages") if tried > generation else ("pages", "root")
            return VaultDamaged(
                f"the {older} of the key vault are not of the same time as the {newer}: the root is of generation "
                f"{generation}, the pages have seen {tried}; an old copy of the {older} was put back",
                hint=hint if older == "pages" else "bring back the living root; an older one opens nothing",
            )
        return VaultDamaged(
            f"page {number} of the key vault {what} at generation {generation}; expected a page sealed by the "
            "living root",
            hint=hint,
        )


def names_of(addresses: Rows, codes: Rows) -> Rows:
    """Names of entries from addresses and, beside each, the code of a domain."""
    return np.concatenate((addresses, codes[:, np.newaxis]), axis=1)

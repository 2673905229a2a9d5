"""The key vault: a tree of wrapping keys whose only secret above the pages is a root that is replaced to kill.

Every page key is 32 fresh random bytes held by the page above; the top page's key is derived from the root of
the living generation. A destroy batch writes the touched buckets and their ancestors under fresh keys into the
halves that do not live, commits a new root in the anchor, and retires the old one: whoever holds every older
copy of the pages and today's root can open the keys of the living, and no others (`disclosure.py` shows it).

* One writer per vault (`flock`, WriterBusy); readers never lock, and never get a wrong key.
* Every write settles first: no root but the living one may be left with any holder.
* The position of a subject's entry is a keyed hash of the ref; there is no directory of subjects beside the tree.
* A key exists only once its page is durable here, so no value can be written under a key that a crash would lose.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import numpy as np

from fangxin.data.errors import InputError, NotAllowed, Unavailable, VaultDamaged
from fangxin.data.keys import domains as codes
from fangxin.data.keys import page as pages
from fangxin.data.keys.batch import Adds, Batch, crown, shadow
from fangxin.data.keys.faults import (
    AddressTaken,
    BackupUnusable,
    KeyAbsent,
    RollbackSuspected,
    SubjectSealed,
)
from fangxin.data.keys.founding import found_vault, tree_path
from fangxin.data.keys.grant import Drops, Grant
from fangxin.data.keys.material import KEY, Keys
from fangxin.data.keys.page import Shape
from fangxin.data.keys.receipt import Receipt, pages_digest
from fangxin.data.keys.roots import shares
from fangxin.data.keys.roots.file import FileRoot
from fangxin.data.keys.roots.protocol import (
    SHARE,
    Anchor,
    Living,
    Root,
    RootDamaged,
    RootGone,
    RootReceipt,
    RootUnsettled,
)
from fangxin.data.keys.vault import Unchanged, VaultFile, alone, read_copy
from fangxin.data.keys.walk import TRIES, State, Walk

__all__ = ["KeyAbsent", "KeyTree"]

CAPACITY = 200_000
PATIENCE = 5.0  # seconds a writer waits for another
SAMPLE = 16  # buckets opened when a backup is checked


class KeyTree:
    """One vault. Threads may share an instance; each process opens its own, and a forked child may go on using it."""

    def __init__(
        self,
        folder: Path,
        anchor: Anchor,
        holders: Sequence[Root],
        *,
        patience: float,
        at: Callable[[str], None],
    ) -> None:
        self.folder = folder
        self.anchor = anchor
        self.holders = tuple(holders)
        self._patience = patience
        self._at = at
        living = _living_or_explain(anchor)
        self.tree_id = living.tree_id
        path = tree_path(folder, living.tree_id)
        if not path.exists():
            raise VaultDamaged(
                f"the root belongs to a tree whose pages are not here: expected {path.name} in the vault's folder",
                hint="restore the newest backup made since the last destroy batch, under that name",
            )
        self._file = VaultFile(path)
        with self._file.snapshot():
            meta = self._file.meta()
        self.vault_id = meta["vault_id"]
        self.shape = Shape(int(meta["fanout"]), int(meta["depth"]))
        names = [holder.name for holder in (anchor, *holders)]
        if meta["tree_id"] != living.tree_id or json.loads(meta["holders"]) != names:
            raise VaultDamaged(
                f"the root does not belong to these pages: they expect holders {json.loads(meta['holders'])}",
                hint="open the vault with the root holders it was created with",
            )
        self._walk = Walk(self._file, anchor, self.holders, shape=self.shape, tree_id=self.tree_id)

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        capacity: int = CAPACITY,
        anchor: Anchor | None = None,
        holders: Sequence[Root] = (),
        patience: float = PATIENCE,
        at: Callable[[str], None] = lambda step: None,
    ) -> Self:
        """Make an empty vault for about `capacity` keys (more are accepted, in longer buckets) and open it.

        The default anchor is the file `root` in the folder, which no backup may include. InputError if there
        is a vault already; what an interrupted creation left is cleared away.
        """
        anchor = anchor or FileRoot(folder / "root")
        found_vault(folder, anchor, holders, capacity=capacity, patience=patience)
        return cls(folder, anchor, holders, patience=patience, at=at)

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        anchor: Anchor | None = None,
        holders: Sequence[Root] = (),
        patience: float = PATIENCE,
        at: Callable[[str], None] = lambda step: None,
    ) -> Self:
        """Open a vault. `patience`: seconds to wait for another writer; `at` hears each step of a batch (drills)."""
        return cls(folder, anchor or FileRoot(folder / "root"), holders, patience=patience, at=at)

    @property
    def generation(self) -> int:
        """The number of the living root; it counts destroy batches, with gaps where one was aborted."""
        return self.anchor.living().generation

    @property
    def commitment(self) -> str:
        """The commitment to the living root, in hex: what the ledger holds of it."""
        return self._walk.reading(lambda state: state.commitment)

    # ------------------------------------------------------------ reading

    def get(self, ref: bytes, domain: int) -> bytes:
        """A subject's key of a domain. KeyAbsent, SubjectSealed (cooling-off) or VaultDamaged."""
        with self.get_many([ref], domain) as keys:
            if keys.found[0]:
                return bytes(keys.view(0))
        if domain != codes.SEALED:
            with self.get_many([ref], codes.SEALED) as sealed:
                if sealed.found[0]:
                    raise SubjectSealed
        raise KeyAbsent("no such key in the vault", hint="it was never made, or it was destroyed")

    def get_many(self, refs: Sequence[bytes], domain: int) -> Keys:
        """The keys of many subjects in one domain, in the order of `refs`; each bucket is opened once."""
        _check_code(domain)
        return self._walk.reading(lambda state: self._walk.fetch(state, refs, domain))

    def live(self) -> int:
        """How many keys live. Opens every page, so it is an integrity check too (VaultDamaged)."""

        def count(state: State) -> int:
            return sum(len(self._walk.entries(state, bucket)) for bucket in range(self.shape.buckets))

        return self._walk.reading(count)

    def census(self) -> dict[str, int]:
        """How many keys live in each domain that has any, by its name. Opens every page, like `live`."""

        def count(state: State) -> Counter[int]:
            buckets = (self._walk.entries(state, bucket) for bucket in range(self.shape.buckets))
            return Counter(entry[pages.ADDRESS] for entries in buckets for entry in entries)

        names = self.domain_names()
        return {names[code]: n for code, n in sorted(self._walk.reading(count).items())}

    @property
    def size(self) -> int:
        """Bytes of the vault's file: what a backup holds, and what stays the same until the vault grows."""
        return tree_path(self.folder, self.tree_id).stat().st_size

    def confirm(self, generation: int) -> None:
        """Raise RollbackSuspected if the vault is older than the last outcome in the ledger."""
        if (now := self.generation) < generation:
            raise RollbackSuspected(
                f"the key vault is at generation {now}, the ledger has seen {generation}",
                hint="an old copy of vault and root was put back: destroyed keys may live again; find out who did it",
            )

    # ------------------------------------------------------------ domains

    def domain_code(self, name: str) -> int:
        """The code of a domain: reserved, known, or the next free one, then kept for ever."""
        with self._file.snapshot():
            taken = self._domain_codes()
        if name in codes.RESERVED or name in taken:
            return codes.next_code(name, taken)
        with self._writing(), self._file.transaction():
            code = codes.next_code(name, self._domain_codes())
            self._file.note(f"domain/{name}", str(code).encode())
        return code

    def domain_names(self) -> dict[int, str]:
        """Every domain by code: the house's own and those a catalog named."""
        with self._file.snapshot():
            taken = self._domain_codes()
        return {code: name for name, code in (*codes.RESERVED.items(), *taken.items())}

    def _domain_codes(self) -> dict[str, int]:
        return {name.removeprefix("domain/"): int(code) for name, code in self._file.meta("domain/").items()}

    # ------------------------------------------------------------ making keys

    def create_keys(self, refs: Sequence[bytes], domains: Sequence[int]) -> None:
        """Make keys for new subjects, all or none. AddressTaken if one has an entry in any domain."""
        for domain in domains:
            _check_code(domain)
        with self._writing():
            with self._file.transaction():
                state = self._walk.state()
                tagged = {self._walk.tagged(state, ref, domain) for ref in refs for domain in domains}
                self._insert(state, tagged, newcomers=True)
            self._file.checkpoint(always=False)

    def ensure(self, refs: Sequence[bytes], domain: int) -> Keys:
        """The keys of many subjects; what is missing is made, in one transaction, and durable on return.

        Cannot tell a known subject from a stranger with the same address: odds 6e-14 among 10^8 subjects.
        SubjectSealed if a key would have to be made for somebody in the cooling-off period.
        """
        keys = self.get_many(refs, domain)
        if keys.found.all():
            return keys
        with self._writing():
            with self._file.transaction():
                state = self._walk.state()
                wanted = {self._walk.tagged(state, refs[int(i)], domain) for i in np.flatnonzero(~keys.found)}
                self._insert(state, wanted, newcomers=False)
            self._file.checkpoint(always=False)
            keys.wipe()
            return self.get_many(refs, domain)

    def _insert(self, state: State, tagged: Iterable[bytes], *, newcomers: bool) -> None:
        for bucket, wanted in self._walk.by_bucket(tagged):
            entries = self._walk.entries(state, bucket)
            known = {entry[: pages.TAGGED] for entry in entries}
            addresses = {entry[: pages.ADDRESS]: None for entry in entries}
            fresh = os.urandom(KEY * len(wanted))
            for number, name in enumerate(wanted):
                address = name[: pages.ADDRESS]
                if newcomers and address in addresses:
                    raise AddressTaken(
                        "a subject to be created has keys already, or shares an address with somebody who has",
                        hint="nothing was created; use `ensure` for known subjects, another ref for a new one",
                    )
                if address + bytes((codes.SEALED,)) in known:
                    raise SubjectSealed
                if name not in known:
                    insort(entries, name + fresh[number * KEY : (number + 1) * KEY])
            if len(entries) > pages.MOST_ENTRIES:
                raise NotAllowed("a bucket of the key vault is full", hint="grow the vault before adding subjects")
            # Same page key, fresh nonce, same row: an insert leaves generation and root alone.
            level, node = self.shape.depth, self._walk.node(state, self.shape.depth, bucket)
            key, half = self._walk.child(state, level, bucket)
            plain = pages.encode_leaf(entries, level=level)
            body = pages.seal_page(key, plain, tree_id=self.tree_id, page=node >> 1, level=level, half=half)
            self._file.put([(node, body)])

    # ------------------------------------------------------------ destroying keys

    def destroy(self, drops: Drops, *, grant: Grant, now: datetime) -> Receipt:
        """Destroy keys for good: ref -> the domain codes that die, None = every domain.

        All subjects go in one batch under one new root. What is not there is not an error: a second call
        destroys nothing and says so. NotAllowed if the grant does not fit; RootUnsettled if a holder is away.
        """
        return self._replace(drops, {}, grant=grant, action="destroy", now=now)

    def replace(self, *, drop: Drops, add: Adds, grant: Grant, now: datetime) -> Receipt:
        """Destroy keys and put others in their place in the same batch (a seal). The grant covers what dies."""
        return self._replace(drop, add, grant=grant, action="replace", now=now)

    def _replace(self, drop: Drops, add: Adds, *, grant: Grant, action: str, now: datetime) -> Receipt:
        for code in {c for some in (*drop.values(), *add.values()) for c in some or ()}:
            _check_code(code)
        grant.check_names(drop, vault=self.vault_id, action=action)
        with self._writing() as settled:
            if (done := self._carried_out(grant)) is not None:
                return Receipt(**done, destroyed=0, holders=settled, effective_at=now)
            living = self.anchor.living()
            grant.check(drop, vault=self.vault_id, generation=living.generation, action=action, now=now)
            self._at("settled")
            batch: Batch | None = None
            with self._file.transaction():
                state = self._walk.state()
                batch = shadow(self._walk, state, drop, add)
                if not batch.written:
                    raise Unchanged
                # (1) prepare: every holder but the anchor has its share before a page needs it
                generation = max(self._highest(), living.generation) + 1
                names = [holder.name for holder in (self.anchor, *self.holders)]
                given = [os.urandom(SHARE) for _ in names]
                for holder, share in zip(self.holders, given[1:], strict=True):
                    self._hand_over(holder, generation, share)
                self._at("prepared")
                # (2) pages: all into halves that do not live, the top under the new root
                root = shares.combine(given, tree_id=self.tree_id, generation=generation, holders=names)
                crown(self._walk, state, batch, shares.top_key(root))
                facts = self._facts(state, batch, grant, generation, shares.commitment(root))
                self._file.put(batch.written)
                self._file.note("attempt", str(generation).encode())
                self._file.note("unscrubbed", b"1")
                self._file.note(f"grant/{grant.nonce}", json.dumps(facts).encode())
                self._at("written")
            if batch is None or not batch.written:
                return self._nothing(grant, living, settled, now)
            self._at("pages")
            # (4) the commit point: one record in the anchor
            try:
                self.anchor.commit(generation, given[0], batch.half, self.tree_id)
            except Unavailable as lost:
                raise RootUnsettled(
                    f"the anchor did not say whether it committed: {lost.message}",
                    hint="repeat the same batch with the same grant: it is finished or undone first",
                ) from lost
            self._walk.forget()
            self._at("committed")
            # (5) retire: from here on the old root, and with it every older copy of the pages, opens nothing
            receipts, _ = shares.settle(self.anchor, self.holders)
            self._at("retired")
            # (7) scrub: hygiene only, the proof holds without it
            self._scrub(batch.dead)
            self._at("scrubbed")
            return Receipt(
                **(facts | {"earlier": 0, "domains": tuple(facts["domains"])}),
                destroyed=facts["earlier"],
                holders=receipts,
                effective_at=now,
            )

    def _facts(self, state: State, batch: Batch, grant: Grant, generation: int, after: str) -> dict[str, Any]:
        # Any: the keyword arguments of a Receipt, as JSON keeps them beside the nonce
        return {
            "vault": self.vault_id.hex(),
            "tree": self.tree_id.hex(),
            "grant": grant.plan_hash,
            "generation_before": state.living.generation,
            "generation_after": generation,
            "commitment_before": state.commitment,
            "commitment_after": after,
            "pages": len(batch.written),
            "bytes": sum(len(body) for _, body in batch.written),
            "pages_sha256": pages_digest(batch.written),
            "earlier": batch.destroyed,
            "domains": sorted(batch.domains),
        }

    def _nothing(self, grant: Grant, living: Living, settled: tuple[RootReceipt, ...], now: datetime) -> Receipt:
        with self._file.snapshot():
            same = self._walk.state().commitment
        return Receipt(
            vault=self.vault_id.hex(),
            tree=self.tree_id.hex(),
            grant=grant.plan_hash,
            generation_before=living.generation,
            generation_after=living.generation,
            commitment_before=same,
            commitment_after=same,
            pages=0,
            bytes=0,
            pages_sha256=hashlib.sha256().hexdigest(),
            destroyed=0,
            earlier=0,
            domains=(),
            holders=settled,
            effective_at=now,
        )

    def _carried_out(self, grant: Grant) -> dict[str, Any] | None:
        # Any: see _facts. The nonce of an aborted batch was taken back by _writing.
        with self._file.snapshot():
            note = self._file.meta(f"grant/{grant.nonce}").get(f"grant/{grant.nonce}")
        if note is None:
            return None
        facts: dict[str, Any] = json.loads(note)
        if facts["grant"] != grant.plan_hash:
            raise NotAllowed("the grant's nonce was used for another batch", hint="have a new plan approved")
        return facts | {"domains": tuple(facts["domains"])}

    def _hand_over(self, holder: Root, generation: int, share: bytes) -> None:
        try:
            holder.put(generation, share)
            if holder.get(generation) != share:
                raise RootDamaged(f"holder {holder.name} reads back another share than it was given")
        except (Unavailable, RootGone) as away:
            raise RootUnsettled(
                f"holder {holder.name} did not take its share: {away.message}",
                hint="nothing was destroyed; make it reachable, then repeat with the same grant",
            ) from away

    # ------------------------------------------------------------ backups

    def backup(self, to: Path) -> int:
        """Write a consistent copy of the pages, never of the root, and prove that it opens; its generation.

        It can be restored until the next destroy batch and opens for nobody afterwards: make one after each.
        """
        for _ in range(TRIES):
            living = self.anchor.living()
            self._file.copy_to(to, {"backup": str(living.generation).encode()})
            if self.anchor.living() == living:
                self.check_backup(to)
                return living.generation
            to.unlink()
        raise Unavailable("destroy batches overtook the backup again and again", hint="repeat it in a quiet moment")

    def check_backup(self, backup: Path) -> int:
        """Open the top page and a sample of buckets of a backup under today's root; the number of pages opened.

        BackupUnusable, with the reason, if it is of another tree or older than the last destroy batch.
        """
        meta, bodies = read_copy(backup)
        if meta.get("tree_id") != self.tree_id:
            raise BackupUnusable("the backup is of another tree", hint="look for a backup of this vault")
        made, now = int(meta.get("backup", b"0")), self.generation
        if made != now:
            raise BackupUnusable(
                f"the backup was made at generation {made}, the vault is at {now}: its root no longer exists",
                hint="that is how destroyed keys stay dead; make a backup after each destroy batch",
            )

        def sample(state: State) -> int:
            copy = Walk(self._file, self.anchor, self.holders, shape=self.shape, tree_id=self.tree_id, body=bodies.get)
            fresh = State(state.living, state.top_key, state.commitment)
            some = range(0, self.shape.buckets, max(1, self.shape.buckets // SAMPLE))
            for bucket in some:
                copy.entries(fresh, bucket)
            return len(fresh.inner) + len(some)

        try:
            return self._walk.reading(sample)
        except VaultDamaged as wrong:
            raise BackupUnusable(f"the backup does not open: {wrong.message}", hint="make a new one") from wrong

    def close(self) -> None:
        """Let the file go and drop what is cached."""
        self._walk.forget()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"KeyTree({self.vault_id.hex()})"

    # ------------------------------------------------------------ writing, in general

    @contextlib.contextmanager
    def _writing(self) -> Iterator[tuple[RootReceipt, ...]]:
        """Hold the lock, with every holder settled and what an interrupted batch left undone or finished."""
        with alone(self.folder / "vault.lock", patience=self._patience):
            receipts, seen = shares.settle(self.anchor, self.holders)
            now = self.anchor.living()
            if now.tree_id != self.tree_id:
                raise Unavailable("the vault has grown into another file", hint="open it again")
            with self._file.snapshot():
                attempt, unscrubbed = self._highest(), "unscrubbed" in self._file.meta("unscrubbed")
            if seen > attempt or attempt > now.generation or unscrubbed:
                self._clear_up(now.generation, max(seen, attempt))
            yield receipts

    def _highest(self) -> int:
        return int(self._file.meta("attempt").get("attempt", b"0"))

    def _clear_up(self, generation: int, highest: int) -> None:
        # An aborted attempt burns its number but gives its grant back; its pages, and those of a batch that was
        # committed but not scrubbed, lie in halves that do not live.
        with self._file.transaction():
            for name, note in self._file.meta("grant/").items():
                if json.loads(note)["generation_after"] > generation:
                    self._file.note(name, None)
            self._file.note("attempt", str(highest).encode())
        with self._file.snapshot():
            alive = self._walk.alive(self._walk.state())
            dead = [node for node in self._file.nodes() if node not in alive]
        self._scrub(dead)

    def _scrub(self, dead: Iterable[int]) -> None:
        with self._file.transaction():
            self._file.drop(dead)
            self._file.note("unscrubbed", None)
        self._file.checkpoint(always=True)


def _living_or_explain(anchor: Anchor) -> Living:
    try:
        return anchor.living()
    except RootGone as none:
        raise Unavailable(
            f"no key vault can be opened here: {none.message}",
            hint="create the vault first, or bring back the root file that belongs to it",
        ) from none


def _check_code(domain: int) -> None:
    if not 0 < domain <= codes.LAST:
        raise InputError(f"{domain} is not the code of a key domain", hint="codes are 1 to 255; ask the vault by name")

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
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace as replaced
from datetime import datetime, timedelta
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np

from fangxin.data.errors import FangxinError, InputError, NotAllowed, Unavailable, VaultDamaged
from fangxin.data.keys import backup as copies
from fangxin.data.keys import clock
from fangxin.data.keys import domains as codes
from fangxin.data.keys import page as pages
from fangxin.data.keys import sealed as seals
from fangxin.data.keys.additions import additions
from fangxin.data.keys.approval import FREE, FREE_SHARE, GUARDED, WINDOW, Approval, Guard, bound
from fangxin.data.keys.batch import Adds, Batch, crown, shadow
from fangxin.data.keys.clock import Moment, look
from fangxin.data.keys.delta import MARK, Delta
from fangxin.data.keys.faults import Grown, KeyAbsent, RollbackSuspected, StaleRoot, SubjectSealed
from fangxin.data.keys.founding import VERSION, found_vault, told, tree_path
from fangxin.data.keys.grant import Drops, Grant, stamp
from fangxin.data.keys.group import Group, Wish
from fangxin.data.keys.growth import rebuilt
from fangxin.data.keys.integrity import Examined, examined
from fangxin.data.keys.lease import Lease
from fangxin.data.keys.material import Keys
from fangxin.data.keys.notes import (
    FEW,
    GRANT,
    LEFT,
    Notes,
    Said,
    carried_out,
    dead,
    next_number,
    tried,
    undo,
    undone,
    unscrubbed,
)
from fangxin.data.keys.receipt import Receipt, Tally
from fangxin.data.keys.replica import Places, Replica, Replicas, Write, outside, written
from fangxin.data.keys.roots import shares
from fangxin.data.keys.roots.file import FileRoot
from fangxin.data.keys.roots.protocol import (
    SHARE,
    TREE_ID,
    Anchor,
    Living,
    Root,
    RootDamaged,
    RootGone,
    RootReceipt,
    RootUnsettled,
)
from fangxin.data.keys.sealed import Sealing, Toll
from fangxin.data.keys.vault import LOSSY, Changes, Unchanged, VaultFile, alone
from fangxin.data.keys.walk import TRIES, State, Walk

__all__ = ["KeyAbsent", "KeyTree"]

CAPACITY = 200_000
NOW_AND_THEN = 16  # small batches from one look at the length of the log to the next
PATIENCE = 5.0  # seconds a writer waits for another
Result = TypeVar("Result")
Spent = tuple[str, int]  # when, and how many subjects


class Alone(NamedTuple):
    """What a writer knows who holds the lock: nobody else can change it now."""

    settled: tuple[RootReceipt, ...]
    living: Living
    seen: int  # the highest generation that any holder knows of


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
        clock: Callable[[], Moment] = look,
    ) -> None:
        self.folder = folder
        self._lock = str(folder / "vault.lock")
        self.anchor = anchor
        self.holders = tuple(holders)
        self._patience = patience
        self._at = at
        self._clock = clock
        self._attached = threading.RLock()
        self._lease = Lease(folder, moved=lambda g: anchor.living().generation != g, drop=self._forget)
        self._group = Group(self._fulfil)
        self._places, self._replicas = Places(), Replicas(())
        self._due: Sequence[int] = ()  # dead rows that the next batch takes out, for as long as the lock is held
        self._owing = 0  # the process that left such rows
        self._last: Write = 0, b""  # of the pages, for as long as the lock is held
        self._attach(_living_or_explain(anchor))

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        capacity: int = CAPACITY,
        anchor: Anchor | None = None,
        holders: Sequence[Root] = (),
        patience: float = PATIENCE,
        guard: Guard = GUARDED,
        at: Callable[[str], None] = lambda step: None,
        clock: Callable[[], Moment] = look,
    ) -> Self:
        """Make an empty vault for about `capacity` keys (more are accepted, in longer buckets) and open it.

        The default anchor is the file `root` in the folder, which no backup may include. InputError if there
        is a vault already; what an interrupted creation left is cleared away.
        """
        anchor = anchor or FileRoot(folder / "root")
        found_vault(folder, anchor, holders, capacity=capacity, patience=patience, guard=guard)
        return cls(folder, anchor, holders, patience=patience, at=at, clock=clock)

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        anchor: Anchor | None = None,
        holders: Sequence[Root] = (),
        patience: float = PATIENCE,
        at: Callable[[str], None] = lambda step: None,
        clock: Callable[[], Moment] = look,
    ) -> Self:
        """Open a vault. `patience`: seconds to wait for another writer; `at` hears each step of a batch (drills)."""
        return cls(folder, anchor or FileRoot(folder / "root"), holders, patience=patience, at=at, clock=clock)

    @property
    def generation(self) -> int:
        """The number of the living root; it counts destroy batches, with gaps where one was aborted."""
        return self.anchor.living().generation

    @property
    def commitment(self) -> str:
        """The commitment to the living root, in hex: what the ledger holds of it."""
        return self._reading(lambda walk, state: state.commitment)

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
        return self._reading(lambda walk, state: walk.fetch(state, refs, domain))

    def live(self) -> int:
        """How many keys live. Opens every page, so it is an integrity check too (VaultDamaged)."""
        return self.examine().keys

    def census(self) -> dict[str, int]:
        """How many keys live in each domain that has any, by its name. Opens every page, like `live`."""
        names = self.domain_names()
        return {names[code]: n for code, n in self.examine().domains.items()}

    def examine(self) -> Examined:
        """Open every page and check that every entry lies where it belongs, once; VaultDamaged says what does not."""
        return self._reading(examined)

    def faults(self) -> list[str]:
        """What SQLite itself finds wrong with the file; empty if nothing."""
        return self._file.faults()

    def misplaced(self) -> list[str]:
        """What is wrong with the places of bodies in the file; empty if nothing. No copy is needed: `grow` mends it."""
        return self._file.misplaced()

    @property
    def places(self) -> Places:
        """Where copies of the pages go."""
        return Places.of(self.folder)

    @property
    def size(self) -> int:
        """Bytes of the vault's file: what a backup holds, and what stays the same until the vault grows."""
        return tree_path(self.folder, self.tree_id).stat().st_size

    @property
    def lossy(self) -> bool:
        """Whether a restore may have lost keys that older copies open, until their owners' batch, or until it grows."""
        with self._file.snapshot():
            return self._file.noted(LOSSY) is not None

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
        with self._writing(), self._transaction():
            code = codes.next_code(name, self._domain_codes())
            self._file.note(f"domain/{name}", str(code).encode())
        return code

    def domain_names(self) -> dict[int, str]:
        """Every domain by code: the house's own and those a catalog named."""
        with self._file.snapshot():
            taken = self._domain_codes()
        return {code: name for name, code in (*codes.RESERVED.items(), *taken.items())}

    def suite(self, domain: int, wanted: int) -> int:
        """The suite of the values under a domain's keys: what is wanted when first asked, then kept for ever."""
        name = f"suite/{domain}"
        with self._file.snapshot():
            kept = self._file.meta(name).get(name)
        if kept is None:
            with self._writing(), self._transaction():
                kept = self._file.meta(name).get(name, str(wanted).encode())
                self._file.note(name, kept)
        return int(kept)

    def _domain_codes(self) -> dict[str, int]:
        return {name.removeprefix("domain/"): int(code) for name, code in self._file.meta("domain/").items()}

    # ------------------------------------------------------------ making keys

    def create_keys(self, refs: Sequence[bytes], domains: Sequence[int]) -> None:
        """Make keys for new subjects, all or none. AddressTaken if one has an entry in any domain."""
        self._make(refs, domains, newcomers=True)

    def ensure(self, refs: Sequence[bytes], domain: int) -> Keys:
        """The keys of many subjects; what is missing is made, in one transaction, and durable on return.

        Durable means here, and with one replica if the vault has any (ReplicaAway: nothing was made).
        Cannot tell a known subject from a stranger with the same address: odds 6e-14 among 10^8 subjects.
        SubjectSealed if a key would have to be made for somebody in the cooling-off period.
        """
        keys = self.get_many(refs, domain)
        absent = np.flatnonzero(~keys.found)
        if len(absent):
            missing = [refs[place] for place in absent.tolist()]
            self._make(missing, (domain,), newcomers=False)
            with self.get_many(missing, domain) as made:
                keys.raw[absent], keys.found[absent] = made.raw, made.found
        return keys

    def _make(self, refs: Sequence[bytes], domains: Sequence[int], *, newcomers: bool) -> None:
        for domain in domains:
            _check_code(domain)
            if domain == codes.SEALED:
                raise NotAllowed("a share of a seal is not made like a key", hint="seal.py puts it in place of keys")
        self._group.fulfil(Wish(refs, sorted(set(domains)), newcomers))

    def _fulfil(self, wishes: Sequence[Wish]) -> None:
        with self._writing():
            with self._transaction():
                state = self._walk.state()
                for wish in wishes:
                    try:
                        with self._file.part():
                            made = additions(self._walk, state, wish.refs, wish.domains, newcomers=wish.newcomers)
                            for rows in made:
                                self._file.put(rows)
                    except FangxinError as refused:
                        wish.error = refused
                if all(wish.error for wish in wishes):
                    raise Unchanged
            self._file.checkpoint(always=False)

    # ------------------------------------------------------------ destroying keys

    @property
    def guard(self) -> Guard:
        """Who may approve a destruction in bulk, as the vault itself keeps it, bound to the living root.

        VaultDamaged if somebody changed it in the file, or put back an earlier one.
        """
        return self._reading(self._kept_guard)

    def _kept_guard(self, walk: Walk, state: State, said: Said | None = None) -> Guard:
        said = walk.file.some("guard", "guarded", "undo", "attempt") if said is None else said
        said = {**said, **{name: old or b"" for name, old in undone(said, state.living.generation)}}
        text = said.get("guard", b"")
        if said.get("guarded") != bound(text, state.top_key):
            if self.anchor.living() != state.living:
                raise StaleRoot
            raise VaultDamaged(
                "who guards the key vault was changed in its file, or is of another time than its root",
                hint="find out who did it; `fangxin keys restore` takes a copy that nobody changed",
            )
        return _parsed(text.decode())

    def enrol(self, guard: Guard, *, grant: Grant, approvals: Sequence[Approval] = (), now: datetime) -> Receipt:
        """Put other officers in charge. Two of the present ones sign the grant (`as_drops`), once there are two.

        It takes a new root, as a destruction does: no older copy of the pages can bring former officers back, and a
        grant is used once. NotAllowed without them, and for a guard that would lift the caps: that is decided when the
        vault is founded.
        """

        def agreed(present: Guard, now: datetime) -> Notes:
            if guard.lifted != present.lifted:
                raise NotAllowed("caps are lifted, or not, when a vault is founded", hint="fangxin init --rehearsal")
            if len(present.officers) > 1 and len(present.approvers(grant, approvals, now=now)) < 2:
                raise NotAllowed("two of the present officers have to sign a change of officers", hint="--approval")
            return {"guard": guard.text().encode()}

        return self._replace({}, {}, grant=grant, named=guard.as_drops(), action="enrol", now=now, noting=agreed)

    def allowed(
        self, drops: Drops, *, now: datetime, grant: Grant | None = None, approvals: Sequence[Approval] = ()
    ) -> None:
        """Raise NotAllowed where destroying these would need officers who have not signed; nothing is changed."""
        with self._file.snapshot():
            said = self._file.all_but(GRANT, "")
        present = self.guard
        now, _ = self._time(present, now, said)
        if grant is None:
            grant = Grant.of(drops, vault=self.vault_id, generation=self.generation, catalog="", not_before=now)
        grant.check(drops, vault=self.vault_id, generation=self.generation, action="destroy", now=now)
        counted = self._toll(drops, {}, {}, said, waived=False, now=now)
        self._guarded(present, counted.dying, grant, approvals, now, said)

    @property
    def cap(self) -> int:
        """How many people may lose keys in 24 h on their requests' own approval; more need officers (approval.py)."""
        return max(FREE, self._subjects() // FREE_SHARE)

    def destroy(self, drops: Drops, *, grant: Grant, now: datetime, approvals: Sequence[Approval] = ()) -> Receipt:
        """Destroy keys for good: ref -> the domain codes that die, None = every domain.

        All subjects go in one batch under one new root. What is not there is not an error: a second call
        destroys nothing and says so (a `lossy` vault takes a new root all the same). NotAllowed if the grant does not
        fit, or if so many people need officers who signed it (approval.py), or before a seal's end; RootUnsettled if a
        holder is away. `now` counts in rehearsal vaults only: the others go by a clock of their own (clock.py,
        ClockJumped).
        """
        return self._replace(drops, {}, grant=grant, approvals=approvals, action="destroy", now=now)

    def replace(
        self,
        *,
        drop: Drops,
        add: Adds,
        grant: Grant,
        now: datetime,
        approvals: Sequence[Approval] = (),
        sealings: Mapping[bytes, Sealing] | None = None,
        waived: bool = False,
    ) -> Receipt:
        """Destroy keys and put others in their place in the same batch (a seal, a restore, a seal's end).

        The grant covers what dies. `sealings` says of each ref that gets a share of a seal what is to be noted
        (sealed.py); `waived`: the person asked for the end of the seal before its time.
        """
        return self._replace(
            drop, add, grant=grant, approvals=approvals, action="replace", now=now, sealings=sealings, waived=waived
        )

    def sealed_cases(self) -> frozenset[bytes]:
        """The names of the records that a living share belongs to; settles first, since an aborted batch is undone."""
        with self._writing(), self._file.snapshot():
            noted = self._file.meta(seals.SEAL)
        return frozenset(bytes.fromhex(seals.Sealed.parse(note).case) for note in noted.values())

    def sealed_until(self, ref: bytes) -> str | None:
        """When the time to regret a subject's seal ends, UTC to the second; None if the subject is not sealed."""
        with self.get_many([ref], codes.SEALED) as share, self._file.snapshot():
            note = self._file.noted(seals.name_of(bytes(share.view(0)))) if share.found[0] else None
        return None if note is None else seals.Sealed.parse(note).until

    def extend(self, refs: Sequence[bytes], until: datetime) -> None:
        """Let the seals of these subjects last until then at least; one that lasts longer stays as it is."""
        with self._writing(), self.get_many(refs, codes.SEALED) as shares_, self._transaction():
            for number in np.flatnonzero(shares_.found).tolist():
                name = seals.name_of(bytes(shares_.view(number)))
                known = seals.Sealed.parse(self._file.noted(name) or b"")
                self._file.note(name, replaced(known, until=max(known.until, stamp(until))).text())

    def cleared(self, cases: Collection[bytes]) -> None:
        """The officers' entries of these restored cases are dead: their subjects may be sealed or destroyed again."""
        with self._writing(), self._transaction():
            due = [
                name for name, case in self._file.meta(seals.RESTORED).items() if bytes.fromhex(case.decode()) in cases
            ]
            if not due:
                raise Unchanged
            for name in due:
                self._file.note(name, None)

    def grow(self, capacity: int, *, grant: Grant, now: datetime) -> Receipt:
        """Move all keys into a new tree for about `capacity` keys, under a new root; nothing else dies.

        The new root also kills the old file: every older copy opens nothing. Needs room for both files.
        """
        if capacity < 1:
            raise InputError(f"a vault for {capacity} keys was asked for", hint="capacity counts from 1")
        grant.check_names({}, vault=self.vault_id, action="grow")
        with self._writing() as (settled, living, _):
            said = self._file.peek("attempt", GRANT + grant.nonce)
            if (done := carried_out(grant, said)) is not None:
                return self._repeated(done, settled, now)
            grant.check({}, vault=self.vault_id, generation=living.generation, action="grow", now=now)
            self._at("settled")
            tree_id, shape = os.urandom(TREE_ID), pages.Shape.for_capacity(capacity)
            with self._transaction():
                generation = next_number(living, said)
                self._file.note("attempt", str(generation).encode())
            given, root = self._prepare(generation, tree_id)
            self._at("prepared")
            tally = Tally()
            with self._file.snapshot():
                state = self._walk.state()
                shaped = {"fanout": shape.fanout, "depth": shape.depth, "n_buckets": shape.buckets}
                meta = self._file.meta() | {name: str(number).encode() for name, number in shaped.items()}
                meta["guarded"] = bound(self.guard.text().encode(), shares.top_key(root))
                meta.pop(LOSSY, None)  # no page key of the old tree lives on
                rows = rebuilt(self._walk, state, shape, tree_id, shares.top_key(root))
                path = tree_path(self.folder, tree_id)
                VaultFile.create(path, meta | {"tree_id": tree_id}, tally.over(rows))
            facts = self._facts(state, tally, grant, generation, shares.commitment(root)) | {"tree": tree_id.hex()}
            with contextlib.closing(VaultFile(path)) as new:
                with new.transaction():
                    new.note(GRANT + grant.nonce, json.dumps(facts).encode())
                    new.note("unscrubbed", b"1")
                new.checkpoint(always=True)
                self._at("written")
                self._replicas.refresh(new, tree_id)
            self._at("pages")
            receipts, effective = self._conclude(generation, given[0], 0, tree_id, now)
            self._attach(lives := self.anchor.living())
            self._clear_up(Alone(receipts, lives, generation), {})
            self._at("scrubbed")
            self._back_up()
            return Receipt(**(facts | {"domains": ()}), destroyed=0, holders=receipts, effective_at=effective)

    def _replace(
        self,
        drop: Drops,
        add: Adds,
        *,
        grant: Grant,
        action: str,
        now: datetime,
        approvals: Sequence[Approval] = (),
        sealings: Mapping[bytes, Sealing] | None = None,
        waived: bool = False,
        named: Drops | None = None,
        noting: Callable[[Guard, datetime], Notes] | None = None,
    ) -> Receipt:
        """One batch under a new root. `named`: what the grant names where it is not `drop`.

        `noting` decides under the lock what else is noted; with it there is a new root even where no key dies.
        """
        for code in {c for some in (*drop.values(), *add.values()) for c in some or ()}:
            _check_code(code)
        named = drop if named is None else named
        grant.check_names(named, vault=self.vault_id, action=action)  # before anybody waits for the lock
        with self._locked() as here:
            settled, living = here.settled, here.living
            batch: Batch | None = None
            with self._batch(here, grant) as (said, noted):
                if (done := carried_out(grant, said)) is not None:
                    raise Unchanged
                state = self._walk.state(living)
                present = self._kept_guard(self._walk, state, said)
                now, ticked = self._time(present, now, said)
                grant.check_now(living.generation, now)
                notes = noting(present, now) if noting else {}
                counted = self._toll(drop, add, sealings or {}, said, waived=waived, now=now)
                spent, officers = self._guarded(present, counted.dying, grant, approvals, now, said)
                self._at("settled")
                batch = shadow(self._walk, state, drop, add, always=noting is not None, unseen=LOSSY in said)
                if not batch.written and not noting:
                    raise Unchanged
                # (1) prepare: every holder but the anchor has its share before a page needs it
                generation = next_number(living, said)
                given, root = self._prepare(generation, self.tree_id)
                top_key = shares.top_key(root)
                self._at("prepared")
                # (2) pages: all into halves that do not live, the top under the new root; (3) shipped at the end
                crown(self._walk, state, batch, top_key)
                tally = Tally()
                self._file.put(tally.over(sorted(batch.written)), self._due)
                tally.keys, tally.domains = batch.destroyed, batch.domains
                facts = self._facts(state, tally, grant, generation, shares.commitment(root)) | {"officers": officers}
                if counted.dying and not officers and not present.lifted:
                    spent.append((stamp(now), counted.dying))
                    notes["spent"] = json.dumps(spent).encode()
                guard = notes.get("guard") or said.get("guard", b"")
                notes |= counted.notes | ticked | {"guarded": bound(guard, top_key)}
                notes[GRANT + grant.nonce] = json.dumps(facts).encode()
                notes["undo"] = undo(generation, notes, said)
                noted |= notes | {"attempt": str(generation).encode(), "unscrubbed": unscrubbed(generation, batch.dead)}
                self._at("written")
            if done is not None:
                return self._repeated(done, settled, now)
            if batch is None or not batch.written:
                return self._nothing(grant, living, settled, now)
            self._at("pages")
            lives = Living(generation, batch.half, self.tree_id)
            after = state.followed(lives, top_key, facts["commitment_after"], batch.above)
            receipts, effective = self._conclude(generation, given[0], batch.half, self.tree_id, now, after)
            # (7) scrub: hygiene only, the proof holds without it. A few rows wait until the next batch puts its own in
            # their place, or until this is closed; but a copy that is made now is to lack no write.
            if len(batch.dead) > FEW or self._places.backups is not None:
                self._scrub(batch.dead)
            else:
                self._owing = os.getpid()
                if not generation % NOW_AND_THEN:
                    self._file.checkpoint(always=False)
            self._at("scrubbed")
            self._back_up()
            return Receipt(
                **(facts | {"earlier": 0, "domains": tuple(facts["domains"])}),
                destroyed=facts["earlier"],
                holders=receipts,
                effective_at=effective,
            )

    def _time(self, present: Guard, given: datetime, said: Said) -> tuple[datetime, Notes]:
        """The time that counts, and what to note of the clock: the caller's word counts in rehearsal vaults only."""
        if present.lifted:
            return given, {}
        moment = self._clock()
        return moment.now, {clock.NOTE: clock.agreed(moment, said.get(clock.NOTE))}

    def _toll(
        self, drop: Drops, add: Adds, sealings: Mapping[bytes, Sealing], said: Said, *, waived: bool, now: datetime
    ) -> Toll:
        noted, restored = ({n: said[n] for n in said if n.startswith(some)} for some in (seals.SEAL, seals.RESTORED))
        if not (noted or restored or add):
            return Toll(sum(map(seals.counts, drop.values())))
        touched = [ref for ref, some in drop.items() if some is None or codes.SEALED in some] if noted else []
        held = self._living(touched, codes.SEALED)
        sealing = [ref for ref, keys in add.items() if codes.SEALED in keys]
        leaving: dict[bytes, dict[int, bytes]] = {ref: {} for ref in sealing}
        for code in sorted({c for ref in sealing for c in drop.get(ref) or ()}):
            for ref, key in self._living([ref for ref in sealing if code in (drop.get(ref) or ())], code).items():
                leaving[ref][code] = key
        marks: dict[bytes, set[str]] = {}
        for code in sorted(seals.marked(restored)):
            for ref, key in self._living(list(drop), code).items():
                marks.setdefault(ref, set()).add(seals.mark({code: key}))
        return seals.toll(
            drop, add, shares=held, leaving=leaving, noted=noted, marks=marks, restored=restored,
            sealings=sealings, waived=waived, now=now,
        )  # fmt: skip

    def _living(self, refs: Sequence[bytes], domain: int) -> dict[bytes, bytes]:
        if not refs:
            return {}
        with self.get_many(refs, domain) as keys:
            return {refs[n]: bytes(keys.view(n)) for n in np.flatnonzero(keys.found).tolist()}

    def _guarded(
        self,
        present: Guard,
        dying: int,
        grant: Grant,
        approvals: Sequence[Approval],
        now: datetime,
        said: Said,
    ) -> tuple[list[Spent], int]:
        """What died without officers in the last 24 h, and how many officers signed this; NotAllowed (approval.py)."""
        if present.lifted:
            return [], 0
        noted = json.loads(said.get("spent", b"[]"))
        since = stamp(now - WINDOW)
        spent: list[Spent] = [(at, count) for at, count in noted if at > since]
        if not dying:
            return spent, 0
        today = sum(count for _at, count in spent)
        living = self._subjects() if dying + today > FREE else 0  # a sample costs more than a small destroy
        found = present.check(grant, approvals, subjects=dying, today=today, living=living, now=now)
        return spent, len(found)

    def _subjects(self) -> int:
        """About how many people have keys, from a sample of buckets."""
        with self._file.snapshot():
            state = self._walk.state()
            step = max(1, self.shape.buckets // 64)
            leaves = self._walk.leaves(state, np.arange(0, self.shape.buckets, step))
        addresses = np.ascontiguousarray(leaves.rows[:, : pages.ADDRESS])
        return len(np.unique(addresses, axis=0)) * step

    def _prepare(self, generation: int, tree_id: bytes) -> tuple[list[bytes], bytes]:
        names = [holder.name for holder in (self.anchor, *self.holders)]
        given = [os.urandom(SHARE) for _ in names]
        for holder, share in zip(self.holders, given[1:], strict=True):
            self._hand_over(holder, generation, share)
        return given, shares.combine(given, tree_id=tree_id, generation=generation, holders=names)

    def _conclude(
        self,
        generation: int,
        share: bytes,
        half: int,
        tree_id: bytes,
        now: datetime,
        after: State | None = None,
    ) -> tuple[tuple[RootReceipt, ...], datetime]:
        # (4) the commit point: one record in the anchor
        try:
            self.anchor.commit(generation, share, half, tree_id)
        except Unavailable as lost:
            raise RootUnsettled(
                f"the anchor did not say whether it committed: {lost.message}",
                hint="repeat the same batch with the same grant: it is finished or undone first",
            ) from lost
        if after is None:
            self._forget()
        else:
            self._lease.hold(generation)
            self._walk.go_on(after)
        self._at("committed")
        # (5) retire: from here on the old root, and with it every older copy of the pages, opens nothing
        receipts, _, _ = shares.settle(self.anchor, self.holders)
        self._at("retired")
        effective = self._quiet(generation, now)
        self._at("quiet")
        return receipts, effective

    def _quiet(self, generation: int, now: datetime) -> datetime:
        # (6) quiet: the effect is dated after the last cache that could open what died, and after a thread of our own
        # that reads by it
        start = time.monotonic()
        self._file.idle()
        self._lease.wait(generation)
        return now + timedelta(seconds=time.monotonic() - start)

    def _repeated(self, done: dict[str, Any], settled: tuple[RootReceipt, ...], now: datetime) -> Receipt:
        # Any: see _facts
        effective = self._quiet(done["generation_after"], now)
        return Receipt(**done, destroyed=0, holders=settled, effective_at=effective)

    def _facts(self, state: State, tally: Tally, grant: Grant, generation: int, after: str) -> dict[str, Any]:
        # Any: the keyword arguments of a Receipt, as JSON keeps them beside the nonce
        return {
            "vault": self.vault_id.hex(),
            "tree": self.tree_id.hex(),
            "grant": grant.plan_hash,
            "generation_before": state.living.generation,
            "generation_after": generation,
            "commitment_before": state.commitment,
            "commitment_after": after,
            "pages": tally.pages,
            "bytes": tally.bytes,
            "pages_sha256": tally.sha256(),
            "earlier": tally.keys,
            "domains": sorted(tally.domains),
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
        outside(self.folder, to)
        if to.exists():
            raise NotAllowed("a backup would overwrite a file that exists", hint="give every backup its own name")
        for _ in range(TRIES):
            living = self.anchor.living()
            if living.tree_id != self.tree_id:
                self._attach(living)
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
        return copies.opened(backup, self.anchor, self.holders)

    def keep_copies(self, places: Places) -> None:
        """From now on ship every write to these replicas, and make a base copy after each batch; begin at once."""
        places.note(self.folder)
        with self._writing():
            pass
        self.back_up()

    def back_up(self) -> Path | None:
        """Write a fresh base copy into the folder noted for them, under a name of its own; None if none is noted."""
        places = Places.of(self.folder)
        if places.backups is None:
            return None
        with self._file.snapshot():
            number = self._file.number("seq")
        to = places.backups / copies.name_of(self.generation, number)
        if not to.exists():
            self.backup(to)
        copies.prune(places.backups)
        return to

    def _back_up(self) -> None:
        # The batch has happened: a copy that fails cannot undo it, and `keys status` says that none opens.
        if self._places.backups is not None:
            with contextlib.suppress(FangxinError, OSError):
                self.back_up()

    def tidy(self) -> None:
        """Put zeros where the last batch left dead bodies. The next batch would do it; nothing rests on it."""
        if self._owing == os.getpid():
            self._owing = 0
            with contextlib.suppress(FangxinError, OSError), self._writing(patience=0):  # else who writes does it
                self._scrub(self._due)

    def close(self) -> None:
        """Let the files go and drop what is cached; what the last batch left dead in the file is zeros then."""
        self.tidy()
        self._forget()
        self._lease.close()
        self._file.close()
        self._replicas.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"KeyTree({self.vault_id.hex()})"

    # ------------------------------------------------------------ the tree in use

    def _attach(self, living: Living) -> None:
        with self._attached:
            copies.finish(self.folder, living.tree_id, patience=self._patience)
            path = tree_path(self.folder, living.tree_id)
            if not path.exists():
                raise VaultDamaged(
                    f"the root belongs to a tree whose pages are not here: expected {path.name} in the vault's folder",
                    hint="`fangxin keys restore` brings back the newest copy made since the last destroy batch",
                )
            file = VaultFile(path)
            with file.snapshot():
                meta = file.meta()
            if meta.get("version", VERSION) != VERSION:
                raise Unavailable(
                    f"the key vault is of version {meta['version'].decode()}; expected {VERSION.decode()}",
                    hint="open it with the fangxin that wrote it: in this one nobody's keys would be found",
                )
            shape, named = told(meta)
            names = [holder.name for holder in (self.anchor, *self.holders)]
            if meta["tree_id"] != living.tree_id or named != names:
                raise VaultDamaged(
                    f"the root does not belong to these pages: they expect holders {named}",
                    hint="open the vault with the root holders it was created with",
                )
            self.tree_id, self.vault_id = living.tree_id, meta["vault_id"]
            self.shape = shape
            self._tree, self._file = path.name, file
            self._walk = Walk(
                file, self.anchor, self.holders, shape=self.shape, tree_id=self.tree_id, lease=self._lease
            )

    def _reading(self, work: Callable[[Walk, State], Result]) -> Result:
        for _ in range(TRIES):
            walk = self._walk
            try:
                return walk.reading(partial(work, walk))
            except Grown:
                self._attach(self.anchor.living())
            except Unavailable:
                if (living := self.anchor.living()).tree_id == walk.tree_id:
                    raise
                self._attach(living)
        raise Unavailable("the vault grew again and again", hint="repeat it")

    def _forget(self) -> None:
        if hasattr(self, "_walk"):
            self._walk.forget()

    # ------------------------------------------------------------ writing, in general

    @contextlib.contextmanager
    def _locked(self, patience: float | None = None) -> Iterator[Alone]:
        """Hold the lock, with every holder settled."""
        with alone(self._lock, patience=self._patience if patience is None else patience):
            here = Alone(*shares.settle(self.anchor, self.holders))
            if here.living.tree_id != self.tree_id:
                self._attach(here.living)
            if (places := Places.of(self.folder)) != self._places:
                self._replicas.close()
                self._places, self._replicas = places, Replicas([Replica(folder) for folder in places.replicas])
            yield here

    @contextlib.contextmanager
    def _writing(self, patience: float | None = None) -> Iterator[Alone]:
        """Hold the lock, with what an interrupted batch left undone or finished, too."""
        with self._locked(patience) as here:
            said = self._file.peek(*LEFT)
            self._replicas.catch_up(self._file, self.tree_id, written(said), lossy=LOSSY in said)
            if not self._whole(here, said):
                self._clear_up(here, said)
            yield here

    @contextlib.contextmanager
    def _batch(self, here: Alone, grant: Grant) -> Iterator[tuple[Said, Notes]]:
        """A batch's transaction, which is told all that is noted but earlier grants; made ready as by `_writing`."""
        if self._replicas:  # no copy of the file is made in a transaction
            said: Said = self._file.peek(*LEFT)
            self._replicas.catch_up(self._file, self.tree_id, written(said), lossy=LOSSY in said)
        for cleared in (False, True):
            with self._transaction() as notes:
                said = self._file.all_but(GRANT, GRANT + grant.nonce)
                if not (ready := self._whole(here, said) or cleared):
                    raise Unchanged
                yield said, notes
            if ready:
                return
            self._clear_up(here, said)

    def _whole(self, here: Alone, said: Said) -> bool:
        """Whether no interrupted batch left anything to do. What the last one left dead is known from then on."""
        self._last = written(said)
        due = dead(said, here.living.generation)
        self._due = due or ()
        return here.seen <= tried(said) <= here.living.generation and due is not None

    @contextlib.contextmanager
    def _transaction(self, *, soon: bool = False) -> Iterator[Notes]:
        """One write under the lock: durable with one replica, then here, or nowhere. Notes in what it yields."""

        def ship(changes: Changes) -> None:
            number, on = self._last
            self._ship(changes, number + 1, on)

        last = None
        with self._file.transaction(ship if self._replicas else None, soon=soon):
            notes: Notes = {}
            yield notes
            last = self._last[0] + 1, os.urandom(MARK)
            self._file.notes(notes | {"seq": str(last[0]).encode(), "write": last[1]})
        self._last = last or self._last

    def _ship(self, changes: Changes, seq: int, on: bytes) -> None:
        living = self.anchor.living().generation
        after = max(living, int(changes.notes.get("attempt") or living))
        self._replicas.ship(Delta(self.tree_id, living, after, seq, on, changes))
        self._at("shipped")

    def _clear_up(self, here: Alone, said: Said) -> None:
        # An aborted attempt burns its number but takes its notes back; its pages, and those of a batch that was
        # committed but not scrubbed, lie in halves that do not live, or in another file.
        for path in self.folder.glob("tree-*"):  # which the vault grew out of, or an attempt to grow that was given up
            if not path.name.startswith(self._tree):
                path.unlink(missing_ok=True)
        with self._transaction() as notes:
            notes |= undone(self._file.some("undo", "attempt"), here.living.generation)
            notes |= {"undo": None, "attempt": str(max(here.seen, tried(said))).encode()}
        with self._file.snapshot():
            alive = self._walk.alive(self._walk.state())
            rest = [node for node in self._file.nodes() if node not in alive]
        self._scrub(rest)

    def _scrub(self, rows: Iterable[int]) -> None:
        # A replica that is away keeps old halves for longer; what must not live is dead without this.
        with contextlib.suppress(Unavailable), self._transaction(soon=True):
            self._file.drop(rows)
            self._file.notes({"unscrubbed": None, "undo": None})
        self._replicas.forget(but=self.tree_id)
        self._file.checkpoint(always=True)


def _living_or_explain(anchor: Anchor) -> Living:
    try:
        return anchor.living()
    except RootGone as none:
        raise Unavailable(
            f"no key vault can be opened here: {none.message}",
            hint="create the vault first, or bring back the root file that belongs to it",
        ) from none


_parsed = lru_cache(maxsize=16)(Guard.parse)  # every batch reads the same one


def _check_code(domain: int) -> None:
    if not 0 < domain <= codes.LAST:
        raise InputError(f"{domain} is not the code of a key domain", hint="codes are 1 to 255; ask the vault by name")

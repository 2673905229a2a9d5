"""After any history of creating, destroying, growing, losing and restoring, all copies open exactly the living."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from keys.vaults import DEEP, FLAT, LIFTED, Adversary, destroy, grow, raw, refs

from fangxin.data.keys import backup
from fangxin.data.keys.replica import Places
from fangxin.data.keys.tree import KeyTree

PEOPLE = refs(24)
SOME = st.lists(st.sampled_from(PEOPLE), min_size=1, max_size=8, unique=True)
UNDONE = ["settled", "prepared", "written", "shipped", "pages"]
DONE = ["committed", "retired", "quiet", "scrubbed"]

Living = dict[tuple[bytes, int], bytes]


class Interrupted(Exception):
    pass


class Vault(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.scratch = tempfile.TemporaryDirectory()
        self.stop = ""
        self.living: Living = {}
        self.saved: Living | None = None  # what the newest base copy that still opens holds
        self.lost: set[tuple[bytes, bytes]] = set()  # ref and key; old copies open them until a batch names the ref
        self.seen: set[bytes] = set()  # keys that lived when the adversary came by

    @initialize(capacity=st.sampled_from([FLAT, DEEP]), replicas=st.integers(0, 2))
    def begin(self, capacity: int, replicas: int) -> None:
        folder = Path(self.scratch.name)
        self.tree = KeyTree.create(folder / "vault", capacity=capacity, at=self.at, guard=LIFTED)
        self.replicas = tuple(folder / f"replica-{n}" for n in range(replicas))
        self.tree.keep_copies(Places(self.replicas, folder / "backups"))
        self.saved = {}
        self.thief = Adversary(self.tree, folder / "copies", *self.replicas, folder / "backups")

    def at(self, step: str) -> None:
        if step == self.stop:
            self.stop = ""
            raise Interrupted

    @rule(some=SOME, domain=st.sampled_from([1, 2]))
    def create(self, some: list[bytes], domain: int) -> None:
        self.tree.ensure(some, domain)
        made = {(ref, domain): key for ref, key in raw(self.tree, some, domain).items()}
        assert all(self.living.get(at, key) == key for at, key in made.items())
        self.living |= made

    @rule(some=SOME, codes=st.sampled_from([None, frozenset({1}), frozenset({1, 2})]))
    def destroy(self, some: list[bytes], codes: frozenset[int] | None) -> None:
        receipt = destroy(self.tree, dict.fromkeys(some, codes))
        dead = {at for at in self.living if at[0] in some and (codes is None or at[1] in codes)}
        assert receipt.destroyed == len(dead)
        self._bury(dead, some)
        assert bool(receipt.pages) == bool(dead or self.tree.lossy)
        if receipt.pages:
            self._new_root(whole=True)

    @precondition(lambda self: self.living)
    @rule(step=st.sampled_from(UNDONE + DONE), data=st.data())
    def interrupt(self, step: str, data: st.DataObject) -> None:
        ref = data.draw(st.sampled_from(sorted({at[0] for at in self.living})))
        self.stop = step
        with contextlib.suppress(Interrupted):
            destroy(self.tree, [ref])
        whole = bool(self.stop)  # where nothing is shipped, nothing could interrupt it
        self.stop = ""
        if whole or step in DONE:
            self._bury({at for at in self.living if at[0] == ref}, [ref])
            self._new_root(whole=whole)

    @rule(capacity=st.sampled_from([70, FLAT, DEEP]), step=st.sampled_from(["", *UNDONE, *DONE]))
    def grow(self, capacity: int, step: str) -> None:
        self.stop = step if step != "shipped" else ""  # the first step at which something is shipped undoes nothing
        with contextlib.suppress(Interrupted):
            grow(self.tree, capacity)
        assert not self.stop
        if step in ("", "shipped", *DONE):
            self.lost.clear()
            self._new_root(whole=step in ("", "shipped"))

    @rule()
    def back_up(self) -> None:
        self.tree.back_up()
        self.saved = dict(self.living)

    @precondition(lambda self: self.replicas or self.saved is not None)
    @rule(step=st.sampled_from(["", "chosen", "staged", "cleared", "swapped"]), gone=st.booleans())
    def lose_and_restore(self, step: str, gone: bool) -> None:
        self.tree.close()
        folder = self.tree.folder
        (pages,) = [path for path in folder.glob("tree-*.db") if self.tree.anchor.living().tree_id.hex() in path.name]
        for path in (pages, *folder.glob(f"{pages.name}-*")):
            path.unlink()
        if not gone:
            pages.write_bytes(os.urandom(8192))
        self.stop = step

        def restore() -> backup.Restored:
            places = [*self.replicas, Path(self.scratch.name, "backups")]
            return backup.restore(folder, places, anchor=self.tree.anchor, carry_out=True, at=self.at)

        with contextlib.suppress(Interrupted):
            restore()
        if step == "chosen":
            restore()
        if not self.replicas:
            assert self.saved is not None
            self.lost |= {(at[0], key) for at, key in self.living.items() if at not in self.saved}
            self.living = dict(self.saved)
        self.reopen()

    @rule()
    def visit(self) -> None:
        self.thief.visit()
        self.seen |= set(self.living.values())

    @rule()
    def reopen(self) -> None:
        self.tree.close()
        self.tree = self.thief.tree = KeyTree.open(self.tree.folder, at=self.at)

    @invariant()
    def everyone_alive_can_be_read(self) -> None:
        if hasattr(self, "tree"):
            for domain in (1, 2):
                assert raw(self.tree, PEOPLE, domain) == {r: k for (r, d), k in self.living.items() if d == domain}

    def teardown(self) -> None:
        if hasattr(self, "tree"):
            # A writer settles before anything else; then all copies and the root of now open the living, no more.
            self.living[PEOPLE[0], 3] = bytes(self.tree.ensure(PEOPLE[:1], 3).view(0))
            self.thief.visit()
            opens, living = self.thief.opens(), set(self.living.values())
            assert living <= opens <= living | {key for _, key in self.lost}
            assert self.thief.opens(*self.thief.roots) >= self.seen  # the control: with old roots all comes back
            self.tree.close()
        self.scratch.cleanup()

    def _bury(self, dead: set[tuple[bytes, int]], named: list[bytes]) -> None:
        self.lost = {(ref, key) for ref, key in self.lost if ref not in named}
        for at in dead:
            del self.living[at]

    def _new_root(self, *, whole: bool) -> None:
        # Older copies open for nobody; the vault makes a fresh one at the end of the batch.
        self.saved = dict(self.living) if whole else None


TestTheVault = Vault.TestCase
TestTheVault.settings = settings(
    max_examples=int(os.environ.get("VAULT_HISTORIES", "16")), stateful_step_count=14, deadline=None
)

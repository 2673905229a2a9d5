"""After any history of creating, destroying, backing up and aborting, all copies open exactly the living."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from keys.vaults import DEEP, FLAT, LIFTED, Adversary, destroy, raw, refs

from fangxin.data.keys.tree import KeyTree

PEOPLE = refs(24)
SOME = st.lists(st.sampled_from(PEOPLE), min_size=1, max_size=8, unique=True)


class Interrupted(Exception):
    pass


class Vault(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.scratch = tempfile.TemporaryDirectory()
        self.stop = ""
        self.living: dict[tuple[bytes, int], bytes] = {}

    @initialize(capacity=st.sampled_from([FLAT, DEEP]))
    def begin(self, capacity: int) -> None:
        folder = Path(self.scratch.name)
        self.tree = KeyTree.create(folder / "vault", capacity=capacity, at=self.at, guard=LIFTED)
        self.thief = Adversary(self.tree, folder / "copies")

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
        for at in dead:
            del self.living[at]

    @precondition(lambda self: self.living)
    @rule(step=st.sampled_from(["settled", "prepared", "written", "pages", "committed", "retired"]), data=st.data())
    def interrupt(self, step: str, data: st.DataObject) -> None:
        ref = data.draw(st.sampled_from(sorted({at[0] for at in self.living})))
        self.stop = step
        try:
            destroy(self.tree, [ref])
        except Interrupted:
            pass
        else:
            raise AssertionError("the batch was not interrupted")
        if step in ("committed", "retired"):
            self.living = {at: key for at, key in self.living.items() if at[0] != ref}

    @rule()
    def visit(self) -> None:
        self.thief.visit()

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
            assert self.thief.opens() == set(self.living.values())
            self.tree.close()
        self.scratch.cleanup()


TestTheVault = Vault.TestCase
TestTheVault.settings = settings(max_examples=24, stateful_step_count=12, deadline=None)

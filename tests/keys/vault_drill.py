"""Drill: the key vault in full length; prints counts and ends with 1 if anything was lost, wrong or left over.

    python tests/keys/vault_drill.py --kills 200 --destroys 200 --histories 300

* `kill -9` at random moments of destroying, growing and restoring; afterwards all copies open exactly the living.
* Eight readers in processes of their own while keys die, are made and the vault grows: no wrong key, no dead reader.
* Hundreds of random histories (`test_vault_laws.py`), each ended by the closure over every copy ever made.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from keys.vaults import DEEP, FLAT, LIFTED, NOW, Adversary, destroy, grant, grow, in_child, raw, refs

from fangxin.data.errors import VaultDamaged
from fangxin.data.keys import backup
from fangxin.data.keys.grant import Grant
from fangxin.data.keys.replica import Places
from fangxin.data.keys.roots.file import FileRoot
from fangxin.data.keys.tree import KeyTree


def kills(folder: Path, count: int, seed: int) -> str:
    """Kill batches, growths and restores at random moments; what happened, or AssertionError."""
    chance = random.Random(seed)
    tree = KeyTree.create(folder / "vault", capacity=DEEP, guard=LIFTED)
    tree.keep_copies(Places((folder / "replica",)))
    thief = Adversary(tree, folder / "copies", folder / "replica")
    ended: dict[str, int] = {}
    living: dict[bytes, bytes] = {}
    for turn in range(count):
        people = refs(20, start=100 * turn)
        tree.ensure(people, 1)
        living |= raw(tree, people)
        dying = people[:10] + chance.sample(sorted(living), 5)
        act = chance.choice(("destroy", "destroy", "grow", "restore"))
        size = chance.choice((FLAT, DEEP))
        leave = grant(tree, dict.fromkeys(dying)) if act == "destroy" else grant(tree, {}, action="grow")
        if act == "restore":
            tree.close()
            for path in tree.folder.glob("tree-*"):
                path.unlink()

        def work(
            vault: KeyTree = tree, act: str = act, dying: list[bytes] = dying, leave: Grant = leave, size: int = size
        ) -> None:
            if act == "restore":
                _restore(folder)
            elif act == "grow":
                vault.grow(size, grant=leave, now=NOW)
            else:
                vault.destroy(dict.fromkeys(dying), grant=leave, now=NOW)

        child = in_child(work)
        time.sleep(chance.uniform(0, 0.2))
        os.kill(child, signal.SIGKILL)
        killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        try:
            tree = thief.tree = KeyTree.open(tree.folder)
        except VaultDamaged:
            assert act == "restore"
            _restore(folder)
            tree = thief.tree = KeyTree.open(tree.folder)
        found = raw(tree, living)
        gone = set(living) - set(found)
        assert gone in (set(), set(dying) & set(living) if act == "destroy" else set()), act
        assert all(living[ref] == key for ref, key in found.items())
        living = found
        if turn % 10 == 0:
            thief.visit()
        kind = f"{act}: {'not killed' if not killed else 'done' if gone else 'killed'}"
        ended[kind] = ended.get(kind, 0) + 1
    tree.ensure(refs(1, start=10**6), 1)  # settles
    living |= raw(tree, refs(1, start=10**6))
    thief.visit()
    assert thief.opens() == set(living.values())
    tree.close()
    return ", ".join(f"{kind} {n}" for kind, n in sorted(ended.items())) + f"; {len(thief.copies)} copies"


def _restore(folder: Path) -> None:
    anchor = FileRoot(folder / "vault" / "root")
    backup.restore(folder / "vault", [folder / "replica"], anchor=anchor, carry_out=True)


def readers(folder: Path, count: int, many: int) -> str:
    """Readers against destroys, inserts and growth; how much was read, or AssertionError."""
    tree = KeyTree.create(folder / "vault", capacity=FLAT, guard=LIFTED)
    people = refs(2 * count)
    tree.ensure(people, 1)
    expected = raw(tree, people)
    dying = people[:count]

    def read(number: int) -> None:
        reads, gone = 0, set[bytes]()
        with KeyTree.open(folder / "vault") as mine:
            while not (folder / "stop").exists():
                found = raw(mine, people)
                gone |= set(people) - set(found)
                if any(expected[ref] != key for ref, key in found.items()) or gone & set(found) or gone - set(dying):
                    os._exit(1)
                reads += len(people)
        (folder / f"reads-{number}").write_text(str(reads))
        os._exit(7)

    children = [in_child(lambda n=n: read(n)) for n in range(many)]  # type: ignore[misc]  # binds the loop's number
    for turn, ref in enumerate(dying):
        destroy(tree, [ref])
        tree.ensure(refs(1, start=10_000 + turn), 1)
        if turn % 50 == 49:
            grow(tree, FLAT + 100 * turn)
    (folder / "stop").touch()
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [7] * many
    assert raw(tree, people) == {ref: expected[ref] for ref in people[count:]}
    tree.close()
    return f"{sum(int(path.read_text()) for path in folder.glob('reads-*')):,} reads, none wrong"


def main() -> int:
    """Run the drill."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--destroys", type=int, default=200)
    parser.add_argument("--readers", type=int, default=8)
    parser.add_argument("--histories", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(f"{given.kills} kills: {kills(Path(folder), given.kills, given.seed)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        told = readers(Path(folder), given.destroys, given.readers)
        print(f"{given.readers} readers, {given.destroys} destroys: {told}", flush=True)
    laws = Path(__file__).with_name("test_vault_laws.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(laws)], env=os.environ | {"VAULT_HISTORIES": str(given.histories)}
    )
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())

"""Copies of the pages: what they are called, which of them still open, and how one takes the place of a lost vault.

* A copy opens only if it was made, or brought up to date, since the last destroy batch: its root is the living one.
  So nothing that is restored can bring a destroyed key back, and there is no override.
* Of the copies that open the one with the most writes is taken, after every page of it was opened.
* A whole vault is never replaced: keys made since the copy would be lost.
* A key that is lost so is not dead: copies that were made with it open under page keys that live on. What is restored
  says so (`LOSSY`), and from then on a destroy batch re-keys the buckets of all whom it names, found or not.
* Restoring has one moment: the copy lies whole beside the vault under `restoring-…`. From then on every opening
  finishes it first; before it nothing has changed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fangxin.data.errors import FangxinError, InputError, NotAllowed, VaultDamaged
from fangxin.data.keys.faults import BackupUnusable, Grown, StaleRoot
from fangxin.data.keys.founding import told, tree_path
from fangxin.data.keys.integrity import Examined, examined
from fangxin.data.keys.roots.file import sync_folder
from fangxin.data.keys.roots.protocol import Anchor, Root
from fangxin.data.keys.vault import LOSSY, VaultFile, alone, siblings
from fangxin.data.keys.walk import State, Walk

SAMPLE = 16  # buckets opened when a copy is checked in passing
Result = TypeVar("Result")
KEPT = 2  # base copies of ours that stay in their folder; older ones open for nobody


@dataclass(frozen=True)
class Copy:
    """A copy of the pages, and whether it could be restored now (`why` says why not)."""

    path: Path
    generation: int  # of the living root when it was made; of a replica, now
    seq: int  # the last write it holds
    restorable: bool
    why: str


@dataclass(frozen=True)
class Restored:
    """What a restore brought back, or would: the copy, what it holds, and how many writes it lacks if that is known."""

    copy: Copy
    holds: Examined
    lacking: int | None
    done: bool


def name_of(generation: int, seq: int) -> str:
    """The name of a base copy; names sort by age."""
    return f"vault-g{generation:08}-s{seq:010}.db"


def prune(folder: Path) -> None:
    """Delete all but the newest base copies that `name_of` named."""
    for old in sorted(folder.glob("vault-g*-s*.db"))[:-KEPT]:
        old.unlink()


def found(places: Sequence[Path]) -> list[Path]:
    """The copies in some folders (or named themselves), without those that are not finished."""
    some = [sorted(place.glob("*.db")) if place.is_dir() else [place] for place in places]
    return list(dict.fromkeys(path.resolve() for paths in some for path in paths))


def standing(path: Path, anchor: Anchor, holders: Sequence[Root]) -> Copy:
    """Whether a copy could be restored now."""
    generation = seq = 0
    try:
        with _opened_file(path) as file:
            generation, seq = file.number("backup") or file.number("attempt"), file.number("seq")
        opened(path, anchor, holders)
    except FangxinError as reason:
        return Copy(path, generation, seq, False, reason.message)
    return Copy(path, anchor.living().generation, seq, True, "")


def opened(path: Path, anchor: Anchor, holders: Sequence[Root]) -> int:
    """Open the top page and a sample of buckets of a copy under today's root; the number of pages opened.

    BackupUnusable, with the reason, if it is of another tree or older than the last destroy batch.
    """

    def sample(walk: Walk, state: State) -> int:
        some = range(0, walk.shape.buckets, max(1, walk.shape.buckets // SAMPLE))
        for bucket in some:
            walk.open(state, walk.shape.depth, bucket)
        return len(state.inner) + len(some)

    return _under_today(path, anchor, holders, sample)


def restore(
    folder: Path,
    places: Sequence[Path],
    *,
    anchor: Anchor,
    holders: Sequence[Root] = (),
    carry_out: bool,
    patience: float = 5.0,
    at: Callable[[str], None] = lambda step: None,
) -> Restored:
    """Put the best copy found in these places where the vault's pages were lost or damaged.

    Without `carry_out` it only says what it would do. NotAllowed if the vault is whole; BackupUnusable if no copy
    opens under the living root: then the vault is lost.
    """
    living = anchor.living()
    target = tree_path(folder, living.tree_id)
    with alone(folder / "vault.lock", patience=patience):
        _finish(folder, living.tree_id, at)
        own, lossy = _own(target, anchor, holders)
        judged = [standing(path, anchor, holders) for path in found(places) if path != target.resolve()]
        for copy in sorted((one for one in judged if one.restorable), key=lambda one: one.seq, reverse=True):
            with contextlib.suppress(BackupUnusable):
                holds = _under_today(copy.path, anchor, holders, examined)
                break
        else:
            raise BackupUnusable(
                f"none of {len(judged)} copies opens under the living root, so the vault cannot be brought back: "
                + ("; ".join(f"{one.path.name}: {one.why or 'damaged inside'}" for one in judged) or "none was found"),
                hint="name every place where a replica or a copy made since the last destroy batch may lie",
            )
        # What the lost file tells counts only if it is not itself older than the copy.
        lacking = None if own is None or own < copy.seq else own - copy.seq
        if carry_out:
            at("chosen")
            with _opened_file(copy.path) as source:
                note = {LOSSY: b"1"} if lossy or lacking != 0 else {}
                source.copy_to(_staged(folder, living.tree_id), note, journal="WAL")
            at("staged")
            _finish(folder, living.tree_id, at)
    return Restored(copy, holds, lacking, carry_out)


def finish(folder: Path, tree_id: bytes, *, patience: float) -> None:
    """Finish a restore that was interrupted after its one moment."""
    if _staged(folder, tree_id).exists():
        with alone(folder / "vault.lock", patience=patience):
            _finish(folder, tree_id, lambda step: None)


def _finish(folder: Path, tree_id: bytes, at: Callable[[str], None]) -> None:
    staged, target = _staged(folder, tree_id), tree_path(folder, tree_id)
    if staged.exists():
        for left in siblings(target):
            left.unlink(missing_ok=True)
        at("cleared")
        staged.rename(target)
        sync_folder(folder)
        at("swapped")


def _own(target: Path, anchor: Anchor, holders: Sequence[Root]) -> tuple[int | None, bool]:
    # The last write that the lost vault still tells of, and whether it lacked some already; NotAllowed if not lost.
    if not target.exists():
        return None, True
    try:
        with contextlib.closing(VaultFile(target)) as file:
            if file.faults():
                return file.number("seq"), file.noted(LOSSY) is not None
            _examined(file, anchor, holders, examined)
        raise NotAllowed(
            "the key vault is whole; a copy in its place could only lose keys",
            hint="nothing needs to be restored; `fangxin keys status --deep` says what it holds",
        )
    except (VaultDamaged, BackupUnusable):
        with contextlib.suppress(FangxinError), contextlib.closing(VaultFile(target)) as file, file.snapshot():
            return file.number("seq"), file.noted(LOSSY) is not None
    return None, True


def _under_today(path: Path, anchor: Anchor, holders: Sequence[Root], work: Callable[[Walk, State], Result]) -> Result:
    with _opened_file(path) as file:
        return _examined(file, anchor, holders, work)


def _examined(
    file: VaultFile, anchor: Anchor, holders: Sequence[Root], work: Callable[[Walk, State], Result]
) -> Result:
    living = anchor.living()
    with file.snapshot():
        meta = file.meta()
    if meta.get("tree_id") != living.tree_id:
        raise BackupUnusable(
            f"{file.path.name} is of another tree", hint="look for a backup of this vault, made since it last grew"
        )
    try:
        walk = Walk(file, anchor, holders, shape=told(meta)[0], tree_id=living.tree_id)
        return walk.reading(lambda state: work(walk, state))
    except (VaultDamaged, StaleRoot, Grown) as wrong:
        made, now = int(meta.get("backup", b"0")), anchor.living().generation
        if made and made != now:
            raise BackupUnusable(
                f"the backup was made at generation {made}, the vault is at {now}: its root no longer exists",
                hint="that is how destroyed keys stay dead; make a backup after each destroy batch",
            ) from wrong
        raise BackupUnusable(f"{file.path.name} does not open: {wrong}", hint="make a new one") from wrong


@contextlib.contextmanager
def _opened_file(path: Path) -> Iterator[VaultFile]:
    if not path.is_file():
        raise InputError(f"{path.name}: no such copy of a key vault", hint="name a file, or a folder of copies")
    file = VaultFile(path, fixed=not any(left.exists() for left in siblings(path)))
    with contextlib.closing(file):
        yield file


def _staged(folder: Path, tree_id: bytes) -> Path:
    return folder / f"restoring-{tree_id.hex()}.db"

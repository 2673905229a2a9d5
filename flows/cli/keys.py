"""The commands of the key vault beyond `keys status`: copies of its pages, restoring, growing."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fangxin.flows.cli.console import answer, counted, incomplete, say, table

if TYPE_CHECKING:
    from fangxin.data.keys.backup import Copy
    from fangxin.data.keys.replica import Places
    from fangxin.data.keys.roots.protocol import Anchor, Root
    from fangxin.data.keys.tree import KeyTree


def deep(tree: KeyTree) -> dict[str, Any]:  # Any: a JSON object
    """What opening every page of the vault found."""
    from fangxin.data.errors import VaultDamaged
    from fangxin.data.keys import backup

    faults = tree.faults()
    if faults:
        raise VaultDamaged(
            f"the key vault's file is not sound: {'; '.join(faults)}",
            hint="`fangxin keys restore` brings back the newest copy that opens",
        )
    if misplaced := tree.misplaced():
        raise VaultDamaged(
            f"bodies of the key vault have lost their places ({'; '.join(misplaced)}): a batch could overwrite a page",
            hint="`fangxin keys grow` writes a new file of every page that opens; nothing else may be written before",
        )
    held, places = tree.examine(), tree.places
    folders = [*places.replicas, *([places.backups] if places.backups else [])]
    copies = [backup.standing(one, tree.anchor, tree.holders) for one in backup.found(folders)]
    return {
        "pages": held.pages,
        "keys": held.keys,
        "subjects": held.subjects,
        "buckets": held.buckets,
        "fullest": held.fullest,
        "load": round(held.load, 1),
        "grow": held.load > 100,
        "unscrubbed": held.unscrubbed,
        "copies": [_told(one) for one in copies],
    }


def say_deep(deep: dict[str, Any]) -> None:  # Any: a JSON object
    """The same for people."""
    say(f"every one of {deep['pages']} pages opens: {deep['keys']} keys of {deep['subjects']} subjects")
    say(f"{deep['load']} keys a bucket, {deep['fullest']} in the fullest of {deep['buckets']}")
    if deep["grow"]:
        say("buckets are long: `fangxin keys grow` makes more of them")
    if not any(one["restorable"] for one in deep["copies"]):
        say("no copy opens under the living root: if this file is lost, everybody's keys are; `fangxin keys backup`")
    _say_copies(deep["copies"])


def backup_vault(home: Path, to: Path | None, *, as_json: bool) -> int:
    """Write a fresh base copy; a folder that is named is remembered, and gets one after each destroy batch."""
    from fangxin.data.errors import InputError
    from fangxin.data.keys.replica import Places
    from fangxin.flows.estate import open_estate

    tree = open_estate(home).tree
    if to is not None:
        tree.keep_copies(Places(tree.places.replicas, to))
    made = tree.back_up()
    if made is None:
        raise InputError("no folder for copies is known yet", hint="name one: fangxin keys backup --to FOLDER")
    document = {"copy": made.name, "generation": tree.generation, "bytes": made.stat().st_size}
    words = (
        f"{made.name}: generation {tree.generation}, {document['bytes']} bytes; it opens until the next destroy batch"
    )
    answer(document, as_json=as_json, words=lambda: say(words))
    return 0


def replicate(home: Path, folders: list[Path], *, off: bool, as_json: bool) -> int:
    """Ship every write to these folders from now on, beginning with a whole copy; `off` ends it for all."""
    from fangxin.data.errors import InputError
    from fangxin.data.keys.replica import Places
    from fangxin.flows.estate import open_estate

    if off == bool(folders):
        raise InputError(
            "name the folders of the replicas, or --off", hint="fangxin keys replicate FOLDER [FOLDER ...]"
        )
    tree = open_estate(home).tree
    tree.keep_copies(Places(tuple(folders), tree.places.backups))
    count = len(tree.places.replicas)
    answer(
        {"replicas": count},
        as_json=as_json,
        words=lambda: say(f"replicas that every write goes to: {count}; one must have it"),
    )
    return 0


def copies_of(home: Path, folders: list[Path], *, as_json: bool) -> int:
    """Say of each copy whether it could be restored now, and why not."""
    from fangxin.data.keys import backup

    anchor, holders, places = _without_pages(home)
    known = [*places.replicas, *([places.backups] if places.backups else []), *folders]
    told = [_told(backup.standing(one, anchor, holders)) for one in backup.found(known)]
    answer({"copies": told}, as_json=as_json, words=lambda: _say_copies(told))
    return incomplete("" if any(one["restorable"] for one in told) else "no copy that was found can be restored")


def restore_vault(home: Path, folders: list[Path], *, yes: bool, as_json: bool) -> int:
    """Put the best copy in the place of a lost or damaged vault; without `yes` only say which."""
    from fangxin.data.keys import backup

    anchor, holders, places = _without_pages(home)
    known = [*places.replicas, *([places.backups] if places.backups else []), *folders]
    done = backup.restore(home / "keys", known, anchor=anchor, holders=holders, carry_out=yes)
    document = {
        "restored": done.done,
        "copy": done.copy.path.name,
        "generation": done.copy.generation,
        "keys": done.holds.keys,
        "lacking": done.lacking,
    }

    def words() -> None:
        opened = counted(done.holds.keys, "key")
        say(f"{'restored from' if yes else 'would restore'} {done.copy.path.name}: {opened}, all opened")
        lost = "an unknown number of" if done.lacking is None else done.lacking
        say(f"{lost} writes after that copy are not in it; a value whose key is missing cannot be opened")
        if not yes:
            say("stop every process of this home, then add --yes")

    answer(document, as_json=as_json, words=words)
    return 0


def grow_vault(home: Path, keys: int, *, yes: bool, as_json: bool) -> int:
    """Move all keys into a larger tree under a new root; every older copy of the vault stops opening."""
    from fangxin.data.errors import NotAllowed
    from fangxin.data.keys.grant import Grant
    from fangxin.flows.estate import open_estate
    from fangxin.reports.ledger.entries import minute

    estate = open_estate(home)
    tree, now = estate.tree, datetime.now(UTC)
    if not yes:
        raise NotAllowed(
            "growing puts the vault under a new root: every copy made before stops opening",
            hint="add --yes; the vault makes a fresh copy where `fangxin keys backup --to` named a folder",
        )
    grant = Grant.of({}, vault=tree.vault_id, generation=tree.generation, catalog="", not_before=now, action="grow")
    receipt = tree.grow(keys, grant=grant, now=now)
    estate.ledger.append([{"type": "key.committed", "time": minute(now), "root": receipt.commitment_after}])
    document = {"generation": receipt.generation_after, "buckets": tree.shape.buckets, "bytes": tree.size}
    words = f"generation {document['generation']}, {document['buckets']} buckets in {document['bytes']} bytes"
    answer(document, as_json=as_json, words=lambda: say(words))
    return 0


def _without_pages(home: Path) -> tuple[Anchor, tuple[Root, ...], Places]:
    """The root's holders and the places of copies, where the vault itself may be lost."""
    from fangxin.data.keys.replica import Places
    from fangxin.data.keys.roots.choose import holders
    from fangxin.data.keys.roots.file import FileRoot
    from fangxin.flows.settings import load

    settings, folder = load(home), home / "keys"
    return FileRoot(folder / "root"), tuple(holders(settings.roots, folder, stated=settings.stated)), Places.of(folder)


def _told(copy: Copy) -> dict[str, Any]:  # Any: a JSON object
    return {
        "copy": copy.path.name,
        "generation": copy.generation,
        "write": copy.seq,
        "restorable": copy.restorable,
        "why": copy.why,
    }


def _say_copies(copies: list[dict[str, Any]]) -> None:  # Any: JSON objects
    if copies:
        rows = [
            (one["copy"], one["generation"], one["write"], "yes" if one["restorable"] else one["why"]) for one in copies
        ]
        table(("copy", "generation", "write", "can be restored"), rows)
    else:
        say("no copy of the vault is known here: `fangxin keys backup --to FOLDER` makes one")

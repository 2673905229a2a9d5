"""How a vault begins: an empty tree of pages, then the root that opens it, so that an interruption leaves no vault."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from itertools import repeat
from pathlib import Path

from fangxin.data.errors import InputError, VaultDamaged
from fangxin.data.keys.approval import Guard, bound
from fangxin.data.keys.growth import tree_rows
from fangxin.data.keys.page import Shape, encode_leaf
from fangxin.data.keys.roots import shares
from fangxin.data.keys.roots.file import sync_folder
from fangxin.data.keys.roots.protocol import SHARE, TREE_ID, Anchor, Root
from fangxin.data.keys.vault import VaultFile, alone

VERSION = b"2"  # of the way to an entry: 1 hashed refs with BLAKE2b
MOST_LEVELS = 8
CREATING = "creating"  # marks a folder whose pages no root has been committed for yet


def found_vault(
    folder: Path, anchor: Anchor, holders: Sequence[Root], *, capacity: int, patience: float, guard: Guard
) -> None:
    """Make an empty vault. InputError if there is one already, or pages whose root is elsewhere."""
    if capacity < 1:
        raise InputError(f"a vault for {capacity} keys was asked for", hint="capacity counts from 1")
    names = [holder.name for holder in (anchor, *holders)]
    if len(set(names)) != len(names) or any("\0" in name for name in names):
        raise InputError("root holders need names of their own", hint="give each holder another name")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with alone(folder / "vault.lock", patience=patience):
        if anchor.generations():
            raise InputError("there is a key vault already", hint="open it; a vault is created once")
        for holder in holders:
            if holder.generations():
                raise InputError(f"root holder {holder.name} serves another vault", hint="use an empty one")
        _clear_interrupted(folder)
        shape, tree_id = Shape.for_capacity(capacity), os.urandom(TREE_ID)
        given = [os.urandom(SHARE) for _ in names]
        root = shares.combine(given, tree_id=tree_id, generation=1, holders=names)
        meta = {
            "version": VERSION,
            "vault_id": os.urandom(16),
            "tree_id": tree_id,
            "fanout": str(shape.fanout).encode(),
            "depth": str(shape.depth).encode(),
            "n_buckets": str(shape.buckets).encode(),
            "holders": json.dumps(names).encode(),
            "attempt": b"1",
            "guard": guard.text().encode(),
            "guarded": bound(guard.text().encode(), shares.top_key(root)),
        }
        for holder, share in zip(holders, given[1:], strict=True):
            holder.put(1, share)
        empty = repeat(encode_leaf([], level=shape.depth), shape.buckets)
        rows = tree_rows(shape, tree_id, shares.top_key(root), os.urandom(32), empty)
        VaultFile.create(tree_path(folder, tree_id), meta, rows)
        anchor.commit(1, given[0], 0, tree_id)
        (folder / CREATING).unlink()


def tree_path(folder: Path, tree_id: bytes) -> Path:
    """The file of a tree's pages; its name says which tree, so that the anchor's record picks the file."""
    return folder / f"tree-{tree_id.hex()}.db"


def told(meta: Mapping[str, bytes]) -> tuple[Shape, list[str]]:
    """The shape of a tree and the names of its root holders, from the metadata; VaultDamaged if it lacks some."""
    try:
        names = json.loads(meta["holders"])
        if not {"version", "tree_id", "vault_id"} <= meta.keys() or not isinstance(names, list):
            raise ValueError
        shape = Shape(int(meta["fanout"]), int(meta["depth"]))
        if shape.fanout < 2 or not 1 <= shape.depth <= MOST_LEVELS:
            raise ValueError
    except (KeyError, ValueError):
        raise VaultDamaged(
            "the metadata of the key vault's file is not what was written",
            hint="`fangxin keys restore` brings back the newest copy that opens",
        ) from None
    return shape, names


def _clear_interrupted(folder: Path) -> None:
    # Pages without a root are only ours to remove where a creation was interrupted: else their root is lost or
    # lies elsewhere, and they may be everybody's keys.
    if (folder / CREATING).exists():
        for left in folder.glob("tree-*.db*"):
            left.unlink()
    elif next(folder.glob("tree-*.db"), None):
        raise InputError(
            "there are pages of a key vault here, but no root that belongs to them",
            hint="bring back the root file; create a new vault only in an empty folder",
        )
    (folder / CREATING).touch()
    sync_folder(folder)

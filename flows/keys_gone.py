"""Keys gone: asked for again after they were destroyed, and looked for in a copy of the vault from before.

The receipt of a destruction says what the vault did. Here its word counts for nothing: every key that had to die is
asked for, and the pages as they were are opened with today's root, as somebody would who kept a backup.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from fangxin.data import medium
from fangxin.data.errors import DoesNotHold, FangxinError
from fangxin.data.keys.backup import Copy, found, standing
from fangxin.data.keys.disclosure import disclosed
from fangxin.data.keys.roots import shares
from fangxin.data.requests import Batch
from fangxin.flows.estate import Estate
from fangxin.flows.evidence import KEYS_INTENDED, mark
from fangxin.flows.plan import Plan, domains, drops


def copy_before(estate: Estate, batch: Batch) -> None:
    """Keep the vault's pages as they are now among our temporary files: noise once its root is replaced.

    After a crash temporary files are gone. Where the destruction was intended already, the vault may be the one from
    after it: then no copy is made, and `confirm_gone` says that there was none.
    """
    path = estate.settings.tmp / f"vault-{batch.id}.db"
    if not path.exists() and not estate.ledger.find([mark(batch, KEYS_INTENDED)]):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        estate.tree.backup(path)


def confirm_gone(estate: Estate, batch: Batch, plan: Plan) -> Mapping[str, int | bool]:
    """Raise DoesNotHold where a key that had to die still opens; say how many were asked for, and how.

    The copy from before lies among temporary files: after a crash it is gone, and `copy` says so. `replicas` of
    `replicas_known` open with today's root, so they took the new generation; of the copies from before that lie where
    we know (`copies`), `copies_dead` open no page any more.
    """
    codes = {name: estate.tree.domain_code(name) for name in domains(estate.catalog)}
    dying = drops(estate.catalog, plan, codes)
    for code in sorted(frozenset().union(*dying.values())):
        with estate.tree.get_many([ref for ref, those in dying.items() if code in those], code) as keys:
            if keys.found.any():
                raise DoesNotHold(
                    f"{int(keys.found.sum())} keys that had to die are still in the vault",
                    hint="nothing is published; keep the home for whoever looks into it",
                )
    path = estate.settings.tmp / f"vault-{batch.id}.db"
    changed = bool((estate.requests.note(batch.id, "destroy_keys") or {}).get("event", {}).get("keys_destroyed"))
    root = shares.load(estate.tree.anchor, estate.tree.holders)[1]
    said = {"asked": len(dying), **(_elsewhere(estate, root) if changed else {})}
    if not path.exists():
        return {**said, "copy": False}
    try:
        if changed and disclosed([path], [root]).keys:
            raise DoesNotHold(
                "a copy of the vault from before the destruction opens with today's root",
                hint="the root was not replaced: nothing is published",
            )
    finally:
        with contextlib.suppress(FileNotFoundError):
            try:
                medium.destroy(path)
            except FangxinError:  # a medium that cannot be overwritten; its pages are noise without the old root
                path.unlink()
    return {**said, "copy": True}


def _elsewhere(estate: Estate, root: bytes) -> dict[str, int]:
    """What the vault's replicas and its base copies from before are worth now. One copy at a time in memory."""
    tree = estate.tree
    places = tree.places

    def stands(path: Path) -> Copy:
        return standing(path, tree.anchor, tree.holders)

    current = [folder for folder in places.replicas if any(stands(one).restorable for one in found([folder]))]
    kept = [stands(one) for one in found([places.backups])] if places.backups else []
    before = [one.path for one in kept if one.generation < tree.generation]
    dead = sum(not disclosed([one], [root]).opened for one in before)
    return {
        "replicas": len(current),
        "replicas_known": len(places.replicas),
        "copies_dead": dead,
        "copies": len(before),
    }

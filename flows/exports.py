"""Exports end: what was handed over is a copy of ours until its day, and then its files are destroyed.

Each request's folder is known by its id and its manifest, so nothing else in the operator's folder is touched. Who
took a copy away answers for that one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from fangxin.data import medium
from fangxin.data.errors import FangxinError
from fangxin.data.requests import Batch
from fangxin.flows.estate import Estate

_NOTE = "export.destroyed"


@dataclass(frozen=True)
class Ended:
    """The exports of one batch that were destroyed: how many files, of those how many only deleted logically."""

    batch: str
    files: int
    logical: int


def due_exports(estate: Estate) -> dict[str, tuple[str, ...]]:
    """The requests, by closed batch, whose exports have come to their end and are not destroyed yet."""
    found: dict[str, tuple[str, ...]] = {}
    if not (estate.settings.home / "requests.db").exists():
        return found  # no batch was ever opened, and looking makes no store
    for batch_id in estate.requests.finished():
        told = (estate.requests.note(batch_id, "export") or {}).get("exported", {})
        due = tuple(r for r, one in told.items() if _day(one) <= estate.now.date())
        if due and estate.requests.note(batch_id, _NOTE) is None:
            found[batch_id] = due
    return found


def _day(told: Mapping[str, Any]) -> date:  # Any: JSON
    return date.fromisoformat(told.get("expires") or "9999-12-31")  # exports of earlier versions have no end


def end_exports(estate: Estate) -> tuple[Ended, ...]:
    """Destroy every export whose day has come; idempotent, and safe to run again after a crash."""
    found = []
    for batch_id, due in due_exports(estate).items():
        place = Path(estate.requests.batch(batch_id).options["export"])
        files = logical = 0
        for request in due:
            gone, refused = destroy_folder(place / request)
            files, logical = files + gone, logical + refused
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()
        estate.requests.done(batch_id, _NOTE, at=estate.minute, note={"files": files, "logical": logical})
        found.append(Ended(batch_id, files, logical))
    return tuple(found)


def take_back(estate: Estate, batch: Batch) -> None:
    """Destroy what a batch has exported that is given up: nobody would know of that copy any more."""
    if not batch.options.get("export"):
        return
    place = Path(batch.options["export"])
    for one in estate.requests.requests(batch.id):
        destroy_folder(place / one.id)
    if place.is_dir() and not any(place.iterdir()):
        place.rmdir()


def destroy_folder(folder: Path) -> tuple[int, int]:
    """Destroy the files of one request's folder: how many went, and how many of them the medium refused."""
    if not folder.is_dir() or folder.is_symlink():
        return 0, 0  # somebody took it away
    gone = refused = 0
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink()):
        try:
            medium.destroy(path)
        except FangxinError:
            path.unlink()
            refused += 1
        gone += 1
    for inner in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
        inner.rmdir()
    folder.rmdir()
    return gone, refused

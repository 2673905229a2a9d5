"""Free space: on request, what engines freed before we came is overwritten too, or the devices are asked to forget it.

Nothing of this happens unless `--wipe-free-space` names it. It comes after the stores were overwritten, once for every
file system that they lie on, with a ledger entry of its own before it and after it. What it reached is told as a
sentence; validation reads files and proves nothing about free space.
"""

from __future__ import annotations

import os
from pathlib import Path

from fangxin.data import freespace
from fangxin.data.errors import InputError, NotAllowed
from fangxin.data.requests import Batch
from fangxin.data.vocabulary import Store
from fangxin.flows.batch import digest_of_note
from fangxin.flows.estate import Estate
from fangxin.flows.evidence import FREE_BEGUN, FREE_DONE, mark, record

FILL, DISCARD = "fill", "discard"
_NOTE = "free_space"


def allowed(work: str | None) -> None:
    """Raise before anything is touched: InputError for a word that names no work, NotAllowed unless root."""
    if work not in (None, FILL, DISCARD):
        raise InputError(f"--wipe-free-space: expected {FILL} or {DISCARD}, found {work!r}")
    if work is not None and os.geteuid() != 0:
        raise NotAllowed("work on free space needs root", hint="run it as root, or leave out --wipe-free-space")


def wipe(estate: Estate, batch: Batch) -> None:
    """Do what the batch asks for on every file system of its stores; what is done already is not done again."""
    work = batch.options.get("wipe_free_space")
    if work is None or estate.requests.note(batch.id, _NOTE) is not None:
        return
    allowed(work)
    _log(estate, batch, FREE_BEGUN, f"free-space.{work}.begun", [])
    told = [_told(work, folder) for folder in _folders(estate.stores)]
    estate.requests.done(batch.id, _NOTE, at=estate.minute, note={"work": work, "told": told})
    _log(estate, batch, FREE_DONE, f"free-space.{work}.done", told)


def reached(estate: Estate, batch_id: str) -> list[str]:
    """What was reached, a sentence for each file system; empty where nobody asked."""
    return list((estate.requests.note(batch_id, _NOTE) or {}).get("told", []))


def _log(estate: Estate, batch: Batch, place: int, step: str, sentences: list[str]) -> None:
    note = digest_of_note(batch, step, {"told": sentences})
    record(estate, [{"type": "step.done", "tag": mark(batch, place), "step": step, "note": note}])


def _folders(stores: tuple[Store, ...]) -> list[Path]:
    """One folder on each file system that a store lies on."""
    return list({store.root.stat().st_dev: store.root for store in reversed(stores)}.values())


def _told(work: str, folder: Path) -> str:
    if work == FILL:
        return freespace.fill(folder).claim
    return f"the device was asked to forget {freespace.discard(folder):,} free bytes: a request, and no proof"

"""The steps of a procedure that a rehearsal may leave out, by name: the seam of the product's own mutation test.

A procedure asks `due(name)` before such a step. The answer is yes, always, but inside `leaving_out`, which wants a
permit that only flows/sabotage.py gives: for a rehearsal home that never held a request. What was left out writes its
normal record of success, so that only reading again can notice.

Nothing in settings, environment or command line leads here.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from fangxin.data.errors import InputError, NotAllowed
from fangxin.data.vocabulary import Destruction

STEPS: Mapping[str, str] = {
    "old file: hold": "the second link by which the old file is held before its name is given away",
    "old file: destroy": "overwriting the old file and dropping it",
    "old file: overwrite": "overwriting the old file, which is dropped all the same",
    "journal: destroy": "destroying a journal or WAL that lies beside the old file",
    "working copy: destroy": "destroying the copies that the rewriting made for itself",
    "unit: rewrite": "rewriting the last unit of a store",
    "sqlite: WAL": "holding the WAL before SQLite drops it",
    "sqlite: rows": "deleting the rows of one table",
    "sqlite: values": "replacing the values of one table",
    "sqlite: free pages": "zeroing deleted cells, and writing the new file afresh",
    "sqlite: indexes": "settling full-text indexes, which keep the words of deleted rows",
    "duckdb: rows": "leaving the rows out of the new file",
    "parquet: row group": "editing the first row group that holds somebody",
    "parquet: dictionaries": "decoding dictionaries, which keep entries that no row refers to",
    "parquet: key-values": "dropping key-values that name somebody who left",
    "text: records": "leaving the records out of the new file",
    "keys: one domain": "destroying the keys of one domain",
}


@dataclass
class Permit:
    """What opens the seam: see flows/sabotage.py."""

    home: str
    left_out: str = ""
    times: int = field(default=0)  # how often the step that was left out would have been due


_NOW: ContextVar[Permit | None] = ContextVar("permit", default=None)


def due(step: str) -> bool:
    """Whether a step is to be done; False only inside `leaving_out` that step."""
    permit = _NOW.get()
    if permit is None or permit.left_out != step:
        return True
    permit.times += 1
    return False


def pretended(dev: int, ino: int, size: int, extents: tuple[tuple[int, int, int], ...]) -> Destruction:
    """The record of a destruction that was left out, as a defect of ours might write it. NotAllowed anywhere else."""
    permit = _NOW.get()
    if permit is None:
        raise NotAllowed("no destruction is recorded that did not take place")
    written = sum(length for _logical, _physical, length in extents)
    return Destruction(dev, ino, size, written, secrets.token_hex(32), extents, "ext4")


@contextmanager
def leaving_out(step: str, permit: Permit) -> Iterator[Permit]:
    """Leave one step out. InputError for a step that no procedure has, NotAllowed for a second one at the same time."""
    if step not in STEPS:
        raise InputError(f"no procedure has a step {step!r}", hint=f"one of {', '.join(STEPS)}")
    if _NOW.get() is not None:
        raise NotAllowed("a step is left out already", hint="one at a time")
    permit.left_out, permit.times = step, 0
    entered = _NOW.set(permit)
    try:
        yield permit
    finally:
        _NOW.reset(entered)

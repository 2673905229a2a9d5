"""Packed: people in what a value holds compressed or encoded once more (a backup in a record, an archive in a cell).

A store's own form is no packing: `raw` text, the gzip or zstd that a text file's name promises, a database's pages
and rows, a Parquet file's columns. No order reaches into anything below that: it goes with its row, or it stays.
"""

from __future__ import annotations

from pathlib import Path

from fangxin.checks.residue.carve import carve
from fangxin.checks.residue.containers.piece import InMemory
from fangxin.checks.residue.containers.registry import marks
from fangxin.checks.residue.patterns import Needles
from fangxin.data.stores.records import form

_IN = " > "
_TEXT = {"": "raw", "gz": "gzip", "zst": "zstd"}
_AS_STORED = ("raw", "name", "sqlite", "parquet", "duckdb", "(name withheld)")


def is_packed(place: str, container: str) -> bool:
    """Whether a hit stands below the form in which the store itself keeps what lies at this place."""
    first, *deeper = container.split(_IN)
    if not place.startswith("text:"):
        return bool(deeper) or not first.startswith(_AS_STORED)
    how = form(Path(place))
    return bool(deeper) or first not in (_TEXT[how.packed if how else ""], "name", "raw")


def beside_rows(container: str) -> bool:
    """Whether a layer belongs to no row, so that only a rewriting leaves it behind: free pages, gaps, old records."""
    return container.split(_IN)[0] in ("sqlite:free", "sqlite:record", "parquet:gap")


def beginnings(data: bytes) -> list[int]:
    """Where in these bytes something packed may begin."""
    return [at for _kind, at, _begin in marks(data)]


def packed_in(body: bytes, wanted: Needles) -> set[int]:
    """Numbers of the needles that stand in what is packed in a value; those in its own text are not among them."""
    found: set[int] = set()
    if not beginnings(body):
        return found
    for piece in carve(InMemory(body), margin=wanted.margin, problems=[]):
        if piece.container != "raw":
            found.update(wanted.find(piece.data).needle.tolist())
    return found

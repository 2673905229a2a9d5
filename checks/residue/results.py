"""Three classes of result: found, not found in so many bytes by this method, not examinable for this reason.

Every place that a scan was given ends in exactly one of them. A place in which something was found stays FOUND where
another part of it could not be examined; its reasons are told all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from fangxin.checks.residue.scan import Scan


class Result(StrEnum):
    """How a place ends."""

    FOUND = "FOUND"
    NOT_FOUND = "NOT_FOUND"
    NOT_EXAMINABLE = "NOT_EXAMINABLE"


@dataclass(frozen=True)
class Place:
    """A place and its class: stored and decoded bytes, containers that were opened, needles, what stayed closed."""

    place: str
    result: Result
    bytes: int
    decoded: int
    method: str
    needles: int
    reasons: tuple[str, ...]


def classes(found: Scan) -> tuple[Place, ...]:
    """Every place of a scan with its class, in the order of the scan."""
    hit = set(found.hits["place"].to_pylist())
    closed: dict[str, list[str]] = {}
    for place, reason in found.not_examinable:
        closed.setdefault(place, []).append(reason)

    def of(place: str) -> Result:
        return Result.FOUND if place in hit else Result.NOT_EXAMINABLE if place in closed else Result.NOT_FOUND

    return tuple(
        Place(
            row["place"],
            of(row["place"]),
            row["bytes_read"],
            row["bytes_decoded"],
            row["containers"],
            row["needles"],
            tuple(closed.get(row["place"], ())),
        )
        for row in found.coverage.to_pylist()
    )

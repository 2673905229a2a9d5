"""Small counts, published as bands: nobody can be counted out of a table, nor out of two tables together.

A count of 1 to 4 people is shown as `1-4`. That is not enough where sums are published too: what is hidden can be
subtracted. So each published sum is an equation, and more counts are hidden until no small one follows from them:

* not by linear algebra: a hidden count is given away when its unit vector lies in the row space of the equations;
* not by ranges: bounds of the bands are carried through the equations until nothing changes.

What is hidden beside a small count is shown as its own band (`5-19`, `20-99`, ...). Where nothing is left to hide and
the bands alone give a count away (four counts of one make a total of `1-4`), it is shown as `0-4`. Where even that is
not enough (five counts of four make twenty, whose band begins at twenty), every count that hangs together with it
begins at nothing: `0-4`, `0-19`, `0-99`. Then all of them may be zero at once for all that a reader can tell, so none
follows. `coarse` names them, and the pages say why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fangxin.reports.ledger.entries import band

SMALL = 5
Shown = int | str  # a count, or the band it lies in
_MOST = 2**53


@dataclass
class Tables:
    """Counts by name, the sums that are published over them, and which counts are not published at all."""

    counts: dict[str, int] = field(default_factory=dict)
    sums: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    unpublished: set[str] = field(default_factory=set)
    fixed: set[str] = field(default_factory=set)  # published before: it cannot be hidden any more
    main: set[str] = field(default_factory=set)  # what readers look for: hidden last
    coarse: set[str] = field(default_factory=set)  # after `shown`: begin at nothing, since no narrower band hides them
    _wide: set[str] = field(default_factory=set)  # shown from nothing on: 0-4

    def add(self, name: str, count: int) -> str:
        """Note a count and return its name."""
        self.counts[name] = count
        return name

    def total(self, name: str, parts: Sequence[str]) -> None:
        """Say that a count is the sum of others. ValueError where it is not: then a figure is wrong."""
        if self.counts[name] != sum(self.counts[one] for one in parts):
            raise ValueError(f"{name} is not the sum of its {len(parts)} parts")
        self.sums.append((name, tuple(parts)))

    def shown(self) -> dict[str, Shown]:
        """What may be published for each count."""
        hidden = {name for name, count in self.counts.items() if 0 < count < SMALL} | self.unpublished
        hidden -= self.fixed
        while given := self._given_away(hidden):
            more = self._cover(given, hidden)
            if more is not None:
                hidden.add(more)
            elif given not in self._wide:
                self._wide.add(given)
            elif together := (self._together(given) & hidden) - self.coarse:
                self._wide |= together
                self.coarse |= together
            else:  # only where a figure that was published before gives it away
                raise ValueError(f"{given} follows from what was published before, whatever is hidden now")
        return {
            name: self._banded(name) if name in hidden else count
            for name, count in self.counts.items()
            if name not in self.unpublished
        }

    def _given_away(self, hidden: set[str]) -> str | None:
        """A small count that can be computed from what is shown; None if there is none."""
        small = sorted(name for name in hidden if 0 < self.counts[name] < SMALL)
        if not small or not self.sums:
            return None
        import numpy as np

        names = sorted(hidden)
        rows = [[(one == total) - (one in parts) for one in names] for total, parts in self.sums]
        matrix = np.array(rows, dtype=np.int64).reshape(len(rows), len(names))
        rank = np.linalg.matrix_rank(matrix)
        ranges = self._ranges(hidden)
        for name in small:
            unit = np.array([[int(one == name) for one in names]], dtype=np.int64)
            low, high = ranges[name]
            if low == high or np.linalg.matrix_rank(np.vstack([matrix, unit])) == rank:
                return name
        return None

    def _ranges(self, hidden: set[str]) -> dict[str, tuple[int, int]]:
        """What a reader knows of each count: bounds of bands, narrowed by the sums until nothing changes."""
        known = {name: (count, count) for name, count in self.counts.items() if name not in hidden}
        known |= {name: self._bounds(name) for name in hidden}
        changed = True
        while changed:
            changed = False
            for total, parts in self.sums:
                low, high = sum(known[one][0] for one in parts), sum(known[one][1] for one in parts)
                narrowed = {total: (low, high)}
                for one in parts:
                    rest_low, rest_high = low - known[one][0], high - known[one][1]
                    narrowed[one] = (known[total][0] - rest_high, known[total][1] - rest_low)
                for name, (least, most) in narrowed.items():
                    before = known[name]
                    known[name] = (max(before[0], least), min(before[1], most))
                    changed |= known[name] != before
        return known

    def _bounds(self, name: str) -> tuple[int, int]:
        """What a hidden count can be, by its band alone."""
        if name in self.unpublished:
            return 0, _MOST
        shown = self._banded(name)
        return lower(shown), upper(shown)

    def _banded(self, name: str) -> str:
        """The band that a hidden count is shown as."""
        own = band(self.counts[name])
        return f"0-{upper(own)}" if name in self._wide else own

    def _together(self, given: str) -> set[str]:
        """All counts that sums tie to this one, over however many sums."""
        reached, further = set[str](), {given}
        while further != reached:
            reached = further
            tied = [{total, *parts} for total, parts in self.sums if reached & {total, *parts}]
            further = reached.union(*tied)
        return reached

    def _cover(self, given: str, hidden: set[str]) -> str | None:
        """The least important count to hide as well: near by, the smallest, a part rather than a total."""
        reached, further, last_resort = set[str](), {given}, None
        while further != reached:  # from equation to equation
            reached = set(further)
            beside = [(total, parts) for total, parts in self.sums if reached & {total, *parts}]
            open_ = [
                (one == total, self.counts[one], one)
                for total, parts in beside
                for one in (total, *parts)
                if one not in hidden | self.fixed and self.counts[one]  # the band of nothing hides nobody
            ]
            if others := [one for one in open_ if one[2] not in self.main]:
                return min(others)[2]
            last_resort = last_resort or min(open_, default=None)
            further = reached | {one for total, parts in beside for one in (total, *parts)}
        return None if last_resort is None else last_resort[2]


def lower(shown: Shown) -> int:
    """The least that a shown count can be."""
    return shown if isinstance(shown, int) else int(shown.split("-")[0])


def upper(shown: Shown) -> int:
    """The most that a shown count can be."""
    return shown if isinstance(shown, int) else int(shown.split("-")[-1])

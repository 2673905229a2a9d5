"""Where values that identify leavers stand, in every byte that the witness can open, and in which form.

Files are searched as they lie (SQLite pages, Parquet dictionaries and statistics among them), and every gzip member,
zstd frame and Parquet column in them. Every value is searched in all forms of the witness: as text, as an int64 of
either byte order (so SQLite holds account ids), reversed, as hex, base64, and as digests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ahocorasick_rs import BytesAhoCorasick
from journeys.scale_compare import Leaver
from journeys.witness import forms, layers

ACCOUNT = "account id"
_DIGITS = b"0123456789"


@dataclass(frozen=True, order=True)
class Sighting:
    """A value that was seen; printed without it."""

    place: str
    layer: str
    what: str
    form: str
    value: str

    def __str__(self) -> str:
        return f"{self.place} ({self.layer}): {self.what}, {self.form}"


class Search:
    """All values of some people in all forms, sought in one pass."""

    def __init__(self, people: Sequence[Leaver]) -> None:
        self.values = {v: what for one in people for what, values in one.values.items() for v in values}
        self.values |= {str(a): ACCOUNT for one in people for a in one.accounts}
        needles = {d: (what, form, v) for v, what in self.values.items() for form, d in forms(v).items()}
        for one in people:  # an advertising audience hashes the last ten digits of a phone
            for phone in one.values["phone"]:
                hashed = {f: d for f, d in forms(phone[-10:]).items() if f.startswith(("md5", "sha"))}
                needles |= {d: ("phone", f"ten digits, {form}", phone) for form, d in hashed.items()}
        self.needles = list(needles.values())
        self.machine = BytesAhoCorasick(list(needles))
        self.bytes = 0

    def below(self, *folders: Path) -> Counter[Sighting]:
        """Everything seen in files (and their names) below these folders, with how often."""
        found: Counter[Sighting] = Counter()
        for folder in folders:
            for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink()):
                place = str(path.relative_to(folder))
                for layer, body in [("name", place.encode()), *layers(path)]:
                    self.bytes += len(body)
                    for number, start, end in self.machine.find_matches_as_indexes(body, overlapping=True):
                        if layer != "column" or not _inside_a_number(body, start, end):
                            what, form, value = self.needles[number]
                            found[Sighting(place, layer, what, form, value)] += 1
        return found


def _inside_a_number(body: bytes, start: int, end: int) -> bool:
    """Whether digits are a part of longer ones; columns write out integers, in which digits stand by chance."""
    near = body[max(start - 1, 0) : start] + body[end : end + 1]
    return body[start:end].isdigit() and any(b in _DIGITS for b in near)


def unexplained(seen: Counter[Sighting], kept: Mapping[tuple[str, str], int]) -> list[str]:
    """What is seen beside the account ids of rows that the law keeps, and where these are not seen as often.

    `kept` is {(place, account): rows}. Decoded columns hold exactly so many ids; pages and statistics hold them as
    little-endian integers, each at least once in the pages of its file, nowhere else.
    """
    columns: Counter[tuple[str, str]] = Counter()
    pages: set[tuple[str, str]] = set()
    found = []
    for one, times in sorted(seen.items()):
        where = (one.place, one.value)
        if one.what == ACCOUNT and where in kept and (one.layer, one.form) == ("column", "plain"):
            columns[where] += times
        elif one.what == ACCOUNT and where in kept and one.form == "int64/little" and one.layer in ("raw", "zstd"):
            pages |= {where} if one.layer == "zstd" else set()
        else:
            found.append(f"{one}: {times}")
    for (place, account), rows in kept.items():
        if columns[place, account] != rows:
            found.append(f"{place}: an account id of {rows} kept rows is seen {columns[place, account]} times")
        if (place, account) not in pages:
            found.append(f"{place}: the account id of a kept row is not seen in any page")
    return found

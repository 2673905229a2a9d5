"""Sight: what one look over every file saw of a cohort, and what it could not open.

The baseline looks before anything is touched, validation looks again in the same way. Hits are counted per place,
container, column and identity; no value and no context is kept.

Kinds whose values others also have (names, ids of shared things) are judged by record, not by bytes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fangxin.checks.residue.control import prove
from fangxin.checks.residue.forms import LEFT_OUT
from fangxin.checks.residue.patterns import Needles, needles_for
from fangxin.checks.residue.scan import Scan, scan, walk
from fangxin.checks.residue.together import Together
from fangxin.data.catalog.kinds import canonical
from fangxin.data.vocabulary import Catalog, Identity
from fangxin.flows.cells import touched
from fangxin.flows.estate import Estate, memory
from fangxin.flows.frames import each, pack, tuples, unpack
from fangxin.flows.own import HOME, controls
from fangxin.flows.places import NOBODYS, places
from fangxin.flows.printable import message

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Sight:
    """What one scan saw: hits per subject, place, column and identity; bytes and units read; what it could not open."""

    hits: pd.DataFrame = field(repr=False)  # place, container, column, subject, identity, inside, hits, most
    read: Mapping[str, int]  # bytes read per place
    not_examinable: tuple[tuple[str, str], ...]
    patterns: int
    forms: int
    scanner: str
    claims: Mapping[str, tuple[str, ...]]  # place -> addresses of what lies there; () -> no collection names it
    controls: tuple[str, ...] = ()  # parts of our own home in which the scanner found its control
    longer: Mapping[tuple[str, int], int] = field(default_factory=dict)  # place, identity: cells' longer values with it
    breadth: str = "full"
    omitted: tuple[tuple[str, int], ...] = ()  # forms that were not searched, and of how many identities

    @property
    def total(self) -> int:
        """Bytes read over all places."""
        return sum(self.read.values())

    def blind(self, address: str) -> list[str]:
        """Why parts of what an address holds could not be examined; Prefect's moving files are read as they stand."""
        shut = (r for p, r in self.not_examinable if address in self.claims.get(p, NOBODYS) and not live(p, r))
        return [message(reason) for reason in shut]

    def pack(self) -> bytes:
        """As Arrow IPC, to be sealed until the certificate."""
        import json

        import pandas as pd

        meta = {
            "read": dict(self.read),
            "not_examinable": list(self.not_examinable),
            "patterns": self.patterns,
            "forms": self.forms,
            "scanner": self.scanner,
            "claims": dict(self.claims),
            "controls": self.controls,
            "longer": [[*key, n] for key, n in self.longer.items()],
            "breadth": self.breadth,
            "omitted": self.omitted,
        }
        return pack(pd.DataFrame(self.hits), meta=json.dumps(meta))

    @classmethod
    def unpack(cls, body: bytes) -> Sight:
        """Read back what `pack` wrote."""
        import json

        hits, meta = unpack(body)
        raw = json.loads(meta)
        found = tuple((p, r) for p, r in raw["not_examinable"])
        claims = {place: tuple(addresses) for place, addresses in raw["claims"].items()}
        longer = {(place, identity): n for place, identity, n in raw["longer"]}
        told = (raw["patterns"], raw["forms"], raw["scanner"], claims, tuple(raw["controls"]), longer)
        omitted = tuple((form, n) for form, n in raw["omitted"])
        return cls(hits, raw["read"], found, *told, breadth=raw["breadth"], omitted=omitted)


def searchable(catalog: Catalog, facts: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The facts whose byte forms are searched, numbered in order; and the kinds judged by record only.

    Searched are identities and the values of personal reference columns (accounts, devices); names and the numbers
    of things (addresses, logins) are shared by chance or by design and judged by record.
    """
    personal = {k for c in catalog.collections for f in c.fields if f.personal for k in (*f.matches, *f.emits)}
    wanted = (set(catalog.kinds) | personal) - {"name"}
    by_bytes = facts[facts["kind"].isin(wanted)].reset_index(drop=True)
    return by_bytes, tuple(sorted(set(facts["kind"]) - wanted))


def needles(catalog: Catalog, facts: pd.DataFrame, texts: pd.DataFrame | None = None) -> Needles:
    """Every byte form of the searchable facts; identity n of the needles is row n of `searchable`.

    `texts`: how they were seen written, where that is not one of the usual spellings (`Plan.texts`).
    """
    found, _kinds = searchable(catalog, facts)
    rows = list(tuples(found, "subject", "kind", "value"))
    spelled: dict[int, list[str]] = {}
    if texts is not None:
        written = {s: sorted(set(rows["text"])) for s, rows in each(texts, "subject")}
        for number, (subject, kind, value) in enumerate(rows):
            spelled[number] = [t for t in written.get(subject, ()) if canonical(kind, t) == value]
    return needles_for([(int(s), Identity(k, v)) for s, k, v in rows], spelled=spelled)


def searching(catalog: Catalog, facts: pd.DataFrame, texts: pd.DataFrame) -> Together:
    """The needles of these people, and what this run has searched for them already.

    Baseline and validation of the same people in one run share it: a file that is the same to the byte is read and
    digested again, and its answer is known.
    """
    columns = facts[["subject", "kind", "value"]], texts[["subject", "text"]]
    people = hashlib.sha256(b"".join(pack(one.reset_index(drop=True)) for one in columns)).digest()
    run = memory()
    known: Together | None = run.get("searched") if run.get("searched for") == people else None
    if known is None:
        known = Together(needles(catalog, facts, texts), remember=True)
        run |= {"searched": known, "searched for": people}
    return known


def look(estate: Estate, together: Together, *, workers: int = 2) -> Sight:
    """Search every file of every store, of our own home and of every root, once.

    Raises DoesNotHold where the scanner misses its own control: then it proves nothing about anybody.
    """
    home = estate.settings.home
    parts = controls(home)
    prove(parts, estate.settings.tmp, walked=lambda: walk([home]))
    where = places(estate)
    for label, _path in where.files:
        estate.meter.open("scan", label)
    wanted = together.needles
    seen = sight(scan(where.files, wanted, workers=workers, searched=together), wanted, where.claims)
    return replace(seen, controls=tuple(parts), longer=longer(estate, wanted, seen))


def live(place: str, reason: str) -> bool:
    """Prefect writes ids into its own files while we read them: searched as they stand, and a printed limit.

    A database caught between two of its writes cannot be decoded, and a journal may be gone when its turn comes; the
    bytes that are there are searched all the same.
    """
    moving = ("changed while it was read", "sqlite: cannot be decoded", "cannot be read (No such file")
    return place.startswith(f"{HOME}/prefect/") and reason.startswith(moving)


def sight(found: Scan, wanted: Needles, claims: Mapping[str, tuple[str, ...]]) -> Sight:
    """Reduce a scan to what findings need."""
    hits = found.hits.to_pandas()
    keys = ["place", "container", "column", "subject", "identity", "inside"]
    # One occurrence of a value may match in several forms, but in each form only once: `most` bounds occurrences.
    grouped = hits.groupby(keys, as_index=False, sort=True).agg(hits=("hits", "sum"), most=("hits", "max"))
    coverage = found.coverage.to_pandas().groupby("place")["bytes_read"].sum()
    code = Path(scan.__code__.co_filename).parent
    digest = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(code.glob("*.py")))).hexdigest()
    forms = len({one.name for one in wanted.forms})
    return Sight(
        grouped,
        {str(k): int(v) for k, v in coverage.items()},
        tuple(found.not_examinable),
        len(wanted),
        forms,
        digest,
        claims,
        breadth=str(wanted.breadth),
        omitted=left_out(wanted.omitted),
    )


def left_out(counts: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """What a crowd is not searched for, and all that is too short for a search under one name."""
    known = [(name, counts[name]) for name in LEFT_OUT if name in counts]
    short = sum(n for name, n in counts.items() if name not in LEFT_OUT)
    return (*known, *([("too short", short)] if short else []))


def longer(estate: Estate, wanted: Needles, seen: Sight) -> dict[tuple[str, int], int]:
    """How often cells hold a value as a part of longer ones, per place and identity.

    Asked only of places where bytes look like that: their cells are read once more, and a cell says where a value ends.
    """
    found: Counter[tuple[str, int]] = Counter()
    for cell in touched(estate, wanted, set(seen.hits.loc[seen.hits["inside"], "place"])):
        hits = wanted.find(cell.body)
        numbers, counts = np.unique(hits.needle[hits.inside], return_counts=True)
        here: dict[int, int] = {}  # an occurrence may match in several forms, but in each form only once
        for number, n in zip(numbers.tolist(), counts.tolist(), strict=True):
            for needle in wanted.of(number):
                here[needle.identity] = max(here.get(needle.identity, 0), n)
        for identity, n in here.items():
            found[cell.place, identity] += n
    return dict(found)

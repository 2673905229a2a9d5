"""What a law or a hold keeps of somebody who was erased, and the day on which it goes by itself.

    noted     with the certificate: which rows stay, until when, and the least by which they are found again, sealed
              under a key of its own; everything else that was known of the person is forgotten as ever
    come_due  on the day after the last on which a law keeps them (UTC), or once a hold is lifted: the rows are looked
              up, the closing begins another round, and the next batch erases them under a certificate of their own

A plan that was approved said what would be kept and until when, so nobody signs again. Only rows that were noted go:
an account number that was given to somebody else since leads to other rows, and then an officer has to look. The day
from which "closed" counts stays that of the first erasure. One look for everybody who is due.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from fangxin.data.closures.store import Closure
from fangxin.data.requests import REQUEST_DOMAIN, receipt_code
from fangxin.data.vocabulary import Cohort, Identity, Subject
from fangxin.flows import holds
from fangxin.flows.desk import KEPT, Desk, Secret, breaches, renamed, request_of
from fangxin.flows.frames import each
from fangxin.flows.lifecycle import Event
from fangxin.flows.locate import find
from fangxin.flows.looks import decided, looked_up
from fangxin.flows.plan import Bound, decide

if TYPE_CHECKING:
    import pandas as pd

LATE = timedelta(hours=24)  # what goes later than that after its day is a breach, as any promise that was broken
_GOES = ("drop", "blank")


@dataclass(frozen=True)
class Remains:
    """What stays of one person: rows by collection, the day on which the next of it goes, how it is found again."""

    rows: Mapping[str, int]
    next: datetime | None  # None: only an officer's decision, or a hold that is lifted, makes it go
    undecided: int  # rows for which an officer decides
    by: tuple[tuple[str, str], ...]
    places: tuple[tuple[str, str], ...]  # collection, and what names the row there


def bound(closure: Closure) -> Bound:
    """What binds the rows of a closing besides today's laws: the day of its first end, and its holds."""
    noted = closure.facts.get("kept") or {}
    closed = date.fromisoformat(noted["closed"]) if noted else None
    return Bound(closed, holds.scope(closure), decided(closure))


def remains(desk: Desk, closures: Sequence[Closure]) -> dict[str, Remains]:
    """What is kept of people whose erasure just ended, by closing; one look for all of them."""
    if not closures:
        return {}
    person = desk.estate.catalog.person_kind or ""
    known = [tuple(dict.fromkeys((*desk.opened(one).facts, *_before(desk, one).facts))) for one in closures]
    least = [tuple(pair for pair in some if pair[0] == person) or some for some in known]
    fates = _look(desk, closures, least)
    found = {}
    for number, closure in enumerate(closures):
        rows, by = _kept(fates, number), least[number]
        planned = sum(some.get("retain", 0) for some in closure.facts["plan"]["rows"].values())
        if by != known[number] and (len(rows) < planned or holds.scope(closure)):
            everything = _kept(_look(desk, [closure], [known[number]]), 0)
            if len(everything) > len(rows):  # a number does not lead to all of it
                rows, by = everything, known[number]
        names = _names(desk, rows)
        days = [day for day in rows["until"].unique() if day != "officer"]
        found[closure.id] = Remains(
            {address: len(part) for address, part in each(rows, "collection")},
            _after(min(days)) if days else None,
            int((rows["until"] == "officer").sum()),
            by,
            tuple(sorted(names)),
        )
    return found


def noted(desk: Desk, closure: Closure, found: Remains) -> Closure:
    """Write down what stays; what it is found by is sealed under a new key, before the closing's own key dies."""
    ref, before = secrets.token_bytes(16), closure.facts.get("kept") or {}
    desk.estate.tree.ensure([ref], REQUEST_DOMAIN)
    sealed = desk.sealed(ref, Secret(secrets.token_bytes(32), "", b"", found.by, facts=found.by, places=found.places))
    told = {
        "round": request_of(closure).round,
        "closed": before.get("closed") or desk.estate.now.date().isoformat(),
        "rows": dict(found.rows),
        "next": found.next.isoformat() if found.next else None,
        "undecided": found.undecided,
        "ref": ref.hex(),
        "sealed": sealed.hex(),
        "before": [before["ref"], *before["before"]] if before else [],
    }
    body = {"rows": dict(found.rows), "next": told["next"]}
    return desk.write(
        closure, renamed(request_of(closure)), "kept", desk.now, by="system", body=body, facts={"kept": told}
    )  # fmt: skip


def over(closure: Closure, *, kept: bool) -> tuple[list[bytes], dict[str, Any]]:
    """The keys by which it was found before that die with the closing's own, and what is noted then. Any: JSON."""
    found = closure.facts.get("kept")
    if not found:
        return [], {}
    dying = found["before"] if kept else [found["ref"], *found["before"]]
    return [bytes.fromhex(ref) for ref in dying], {"kept": {**found, "before": []} if kept else None}


def come_due(desk: Desk, closures: Sequence[Closure]) -> tuple[list[str], dict[str, str]]:
    """Begin another round for whoever has rows that nothing keeps any longer; ids, and what the others wait for."""
    known = {one.id: secret for one in closures if (secret := desk.located(one)) is not None}
    due = [one for one in closures if one.id in known]
    begun: list[str] = []
    if not due:
        return begun, {}
    binding = {n: bound(one) for n, one in enumerate(due)}
    fates, undecided = looked_up(desk, [known[one.id].facts for one in due], binding)
    waiting = {due[number].id: error.message for number, error in undecided.items()}
    with desk.together():
        for number, closure in enumerate(due):
            if number in undecided:
                continue
            own = _own(fates, number)
            names, noted_before = Counter(_names(desk, own)), Counter(known[closure.id].places)
            if names - noted_before:
                where = ", ".join(sorted({address for address, _name in names - noted_before}))
                waiting[closure.id] = (
                    f"what a law kept of it is due, and its number leads to rows in {where} that were not kept then: "
                    "an officer looks whose they are"
                )
            elif not names:
                _moved(desk, closure, "kept_gone", None)  # somebody else removed it: there is nothing to erase
            elif not own["fate"].isin(_GOES).any():
                days = [day for day in own["until"].unique() if day not in ("", "officer")]
                _moved(desk, closure, "kept_longer", _after(min(days)) if days else None)
            else:
                _begin(desk, closure, known[closure.id])
                begun.append(closure.id)
    return begun, waiting


# ---------------------------------------------------------------- inside


def _begin(desk: Desk, closure: Closure, known: Secret) -> None:
    desk.estate.tree.ensure([closure.ref], REQUEST_DOMAIN)
    secret = Secret(secrets.token_bytes(32), receipt_code(), b"", known.facts, facts=known.facts)
    entry: dict[str, int | str] = {"type": "exception", "code": "kept_until_now", "role": "system"}
    late = desk.now >= datetime.fromisoformat(closure.facts["kept"]["next"]) + LATE
    entries = [(KEPT + closure.version, entry), *breaches(["kept"] * late)]
    desk.take(
        closure, Event("came_due"), desk.now, entries=entries, secret=secret.secret,
        sealed=desk.sealed(closure.ref, secret), facts={"batch": None, "watch": None},
    )  # fmt: skip


def _moved(desk: Desk, closure: Closure, name: str, following: datetime | None) -> None:
    found = {**closure.facts["kept"], "next": following.isoformat() if following else None}
    if name == "kept_gone":
        found |= {"rows": {}, "undecided": 0}
    body = {"next": found["next"]}
    desk.write(closure, renamed(request_of(closure)), name, desk.now, by="system", body=body, facts={"kept": found})


def _before(desk: Desk, closure: Closure) -> Secret:
    return desk.located(closure) or Secret(b"", "", b"", ())


def _look(desk: Desk, closures: Sequence[Closure], by: Sequence[Sequence[tuple[str, str]]]) -> pd.DataFrame:
    estate = desk.estate
    people = tuple(Subject(str(n), tuple(Identity(k, v) for k, v in some)) for n, some in enumerate(by))
    found = find(estate, Cohort(people))
    binding = {n: bound(one) for n, one in enumerate(closures)}
    today = estate.now.date()
    return decide(estate.catalog, found, estate.laws, estate.settings.facts, today, bound=binding).fates


def _own(fates: pd.DataFrame, number: int) -> pd.DataFrame:
    mine = fates[(fates["subject"] == number) & fates["edge"].isin(["owns", "joint"])]
    found: pd.DataFrame = mine.drop_duplicates(["collection", "unit", "position"])
    return found


def _kept(fates: pd.DataFrame, number: int) -> pd.DataFrame:
    own = _own(fates, number)
    return own[own["fate"] == "retain"]


def _names(desk: Desk, rows: pd.DataFrame) -> list[tuple[str, str]]:
    """What names each row: its collection and its primary key; rows without one are only counted."""
    found: list[tuple[str, str]] = []
    for address, mine in each(rows, "collection"):
        key = desk.estate.catalog.collection(address).primary_key
        if key is None:
            found += [(address, "")] * len(mine)
            continue
        wanted = {unit: np.unique(part["position"].to_numpy(np.int64)) for unit, part in each(mine, "unit")}
        for _address, some in desk.estate.store_of(address).take({address: wanted}):
            found += [(address, str(name)) for name in some.columns.column(key.name).to_pylist()]
    return found


def _after(last_day: str) -> datetime:
    """The instant after the last day of keeping, in UTC as days of laws are counted here."""
    return datetime.combine(date.fromisoformat(last_day) + timedelta(days=1), datetime.min.time(), UTC)

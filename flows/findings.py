"""Findings: the same look before and after, and one row per person and collection.

Before anything is touched the baseline must find the person; afterwards the same search must find nothing that is
not explained. Three independent ways look: rows are located again with everything that was known (decoded), all
bytes of all files are searched for every byte form of the identities, and every inode is accounted for
(checks/residue).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fangxin.checks.residue.inventory import Closure
from fangxin.data.errors import DoesNotHold
from fangxin.data.vocabulary import FINDING, Collection, Erasure, Method, Mode, Store
from fangxin.flows import own
from fangxin.flows.again import Again
from fangxin.flows.estate import Estate
from fangxin.flows.frames import each, tuples
from fangxin.flows.hits import attributed, explained, known_facts, opaque, sighted, sums
from fangxin.flows.plan import Plan, standing
from fangxin.flows.sight import Sight
from fangxin.reports.verdict import CLAUSES, LOGICAL_CLAUSES, Observation, failure, verdict_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Evidence:
    """Everything that findings rest on: the plan, what the stores say, two looks, rows located again, inventories."""

    plan: Plan
    erasures: Mapping[str, Sequence[Erasure]]  # by store name
    before: Sight
    after: Sight
    again: Again
    planted: Mapping[str, int]  # by address
    closures: Mapping[str, Closure]  # by store name
    require: str | None = None  # what the operator asked for beforehand: "overwrite"
    approved: Plan | None = None  # the plan before any unit was located again; None where none was


def findings(estate: Estate, seen: Evidence) -> pd.DataFrame:
    """One row per subject and collection (schema FINDING) for the whole cohort, the canary last; our own home too."""
    import pandas as pd

    subjects = sorted(set(seen.plan.facts["subject"]))
    people, canary = subjects[:-1], subjects[-1]
    stands = standing(estate.catalog, seen.plan.fates)
    residual = _residual(stands, seen.again)
    known = known_facts(estate.catalog, seen.plan)
    seen_before = sighted(estate.catalog, seen.approved or seen.plan, seen.before, opaque=opaque(estate))
    everything = list(attributed(seen.after, known))
    seen_after = sums(everything)
    listed = sums(explained(estate, everything, seen.again, stands))
    rows = []
    for collection in estate.catalog.collections:
        shown = _Collection(estate.store_of(collection.address), collection, seen, canary)
        for subject in [*people, canary]:
            rows.append(shown.row(subject, residual, seen_before, seen_after, listed))
    rows += own.rows(seen.before, seen.after, [*people, canary], seen_before, seen_after)
    return pd.DataFrame(rows, columns=FINDING.names)


_FREED = "logically deleted: what became of the old files that another writer replaced is not known"


_TOUCHED = ("drop", "blank", "mask", "retain")


class _Collection:
    """What is the same for every subject of one collection, and the row of each."""

    def __init__(self, store: Store, collection: Collection, seen: Evidence, canary: int) -> None:
        self.collection, self.store = collection, store
        fates = seen.plan.fates[seen.plan.fates["collection"] == collection.address]
        self.located = set(fates["subject"])
        self.counts = _counts(fates, "fate")
        self.edges = _counts(fates, "edge")
        self.approved = _approved(seen.approved or seen.plan, collection.address)
        self.kept = dict(each(fates[fates["fate"] == "retain"], "subject"))
        places = [f"{store.name}/{u.name}" for u in store.units(collection)]
        done = [e for e in seen.erasures.get(store.name, ()) if collection.address in e.rows_before]
        closure = seen.closures[store.name]
        elsewhere = {f"{store.name}/{u.name}" for u in store.units()} - set(places)
        self.freed = len(set(closure.freed) - elsewhere)  # what is gone may have been any collection's
        refused = sorted({e.reason for e in done if e.method is Method.LOGICAL_DELETE})
        refused += [f"{self.freed} old file(s) were replaced by another writer, and never overwritten"] * bool(
            self.freed
        )
        self.method = "" if not done else (Method.LOGICAL_DELETE if refused else Method.OVERWRITE).value
        self.reason = "; ".join(refused)
        self.claim = "" if not done else _FREED if self.freed else done[0].claim
        self.rewrote = {e.unit for e in done}
        self.stood = _stood(seen.before, store.name, collection.address)
        self.overwritten = sum(e.bytes_overwritten for e in done)
        self.not_overwritten = "; ".join(refused) if seen.require == "overwrite" else ""
        self.expected = len(places)
        self.units_read = sum(p in seen.after.read for p in places)
        self.bytes_read = sum(seen.after.read.get(p, 0) for p in places)
        self.blind = [*seen.before.blind(collection.address), *seen.after.blind(collection.address)]
        self.leftovers = len(closure.leftovers)
        self.canary_found = seen.planted.get(collection.address, 0) > 0 and canary in self.located
        self.scope = collection.because or "declared read-only" if collection.mode is Mode.KEEP else ""
        self.opaque = not store.capabilities.raw_scan
        self.built = all(one.construction is not None for one in done)
        # Clauses of a proof by construction that do not hang on one person: what was destroyed, and that it is all.
        # A medium that refuses overwriting leaves a deletion, as in every store: method and claim say so.
        self.deleted = bool(closure.deleted)
        self.open = ("4",) * bool(closure.others) + ("5",) * bool(closure.leftovers)

    def row(
        self,
        subject: int,
        residual: Mapping[tuple[int, str], int],
        seen_before: Mapping[tuple[int, str], int],
        seen_after: Mapping[tuple[int, str], int],
        listed: Mapping[tuple[int, str], int],
    ) -> dict[str, object]:
        count, edges, kept = self.counts.get(subject, {}), self.edges.get(subject, {}), self.kept.get(subject)
        owned = edges.get("owns", 0) + edges.get("joint", 0)
        key = (subject, self.collection.address)
        acted = sum(count.get(fate, 0) for fate in _TOUCHED)
        asked, units = self.approved.get(subject, (0, set()))
        lost = max(0, asked - acted)
        stood = units if lost else set() if acted else self.stood.get(subject, set())
        rewritten = bool(self.rewrote) and not self.freed and stood <= self.rewrote
        beside = count.get("shared", 0) + count.get("mention", 0)
        acted = acted or bool(
            rewritten and (lost or (seen_before.get(key, 0) and not beside))
        )  # the bytes went with it
        row: dict[str, object] = {
            "subject": subject,
            "dataset": self.collection.dataset,
            "collection": self.collection.name,
            "store": self.store.name,
            "method": self.method if acted else "",
            "claim": self.claim if acted else "",
            "reason": self.reason if acted or (self.freed and seen_before.get(key, 0)) else "",
            "rows_found": owned,
            "rows_erased": count.get("drop", 0) + count.get("blank", 0),
            "rows_retained": count.get("retain", 0),
            "values_masked": count.get("mask", 0),
            "rows_shared": count.get("shared", 0),
            "rows_mentioned": count.get("mask", 0) + count.get("mention", 0),
            "rows_residual": residual.get(key, 0),
            "baseline_hits": seen_before.get(key, 0),
            "hits_after": seen_after.get(key, 0) - listed.get(key, 0),
            "hits_explained": listed.get(key, 0),
            "units_expected": self.expected,
            "units_read": self.units_read,
            "bytes_read": self.bytes_read,
            "bytes_overwritten": self.overwritten if acted else 0,
            "canary_found": self.canary_found,
            "ground": "" if kept is None else ",".join(sorted(set(kept["rule"]))),
            "until": "" if kept is None else str(max(kept["until"])),
            "not_examinable": ";".join(sorted(set(self.blind))),
        }
        shown: dict[str, Any] = {k: row[k] for k in Observation.__dataclass_fields__ if k in row}  # by FINDING's names
        seen = Observation(
            **shown,
            in_scope=not self.scope,
            out_of_scope=self.scope,
            rows_lost=lost,
            rewritten=rewritten,
            leftovers=self.leftovers,
            opaque=self.opaque,
            open_clauses=self._open(row) if self.opaque else (),
            not_overwritten=self.not_overwritten if acted else "",
        )
        if self.opaque and row["claim"]:
            shown_by = LOGICAL_CLAUSES if self.deleted else CLAUSES
            row["claim"] = f"{row['claim']}; shown by construction: {shown_by}"
        row["verdict"], why = verdict_of(seen).value, failure(seen)
        row["claim"] = "" if why else row["claim"]  # what was done may have been shown; what matters was not
        row["reason"] = why or self.scope or row["reason"]
        return row

    def _open(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """The clauses of a proof by construction that are not shown for one person (reports/verdict.py)."""
        second = ("2",) * bool(row["rows_erased"] and not self.built)
        first = ("1",) * bool(row["rows_erased"] and not row["rows_found"])
        third = ("3",) * bool(row["rows_residual"] or row["hits_after"])
        return (*first, *second, *third, *self.open)


def _counts(fates: pd.DataFrame, column: str) -> dict[int, dict[str, int]]:
    """By subject how many rows have which value; grouped once, since a table costs more than the rows in it."""
    found: dict[int, dict[str, int]] = {}
    counted = fates.groupby(["subject", column]).size().reset_index(name="rows")
    for subject, value, count in tuples(counted, "subject", column, "rows"):
        found.setdefault(subject, {})[value] = count
    return found


def _approved(plan: Plan, address: str) -> dict[int, tuple[int, set[str]]]:
    """By subject how many rows of a collection were to be touched, and in which units."""
    fates = plan.fates[(plan.fates["collection"] == address) & plan.fates["fate"].isin(_TOUCHED)]
    return {subject: (len(rows), set(rows["unit"])) for subject, rows in each(fates, "subject")}


def _stood(before: Sight, store: str, address: str) -> dict[int, set[str]]:
    """By subject in which units of a collection the baseline saw their bytes; a side file is its unit."""
    places = {place for place, owners in before.claims.items() if address in owners}
    hits = before.hits[before.hits["place"].isin(places)].drop_duplicates(["subject", "place"])
    found: dict[int, set[str]] = {}
    for subject, place in tuples(hits, "subject", "place"):
        unit = place.removeprefix(f"{store}/")
        for side in ("-wal", "-journal", ".wal"):
            unit = unit.removesuffix(side)
        found.setdefault(subject, set()).add(unit)
    return found


def _residual(stands: pd.DataFrame, again: Again) -> dict[tuple[int, str], int]:
    """Values that stand beyond those that may: per subject and collection, counted unit by unit, field by field.

    Positions move when a unit is rewritten, so rows are counted, not compared.
    """
    keys = ["subject", "collection", "unit", "field"]
    allowed = {tuple(k): len(rows) for *k, rows in each(stands.drop_duplicates([*keys, "position"]), *keys)}
    over: dict[tuple[int, str], int] = {}
    for *key, rows in each(again.hits.drop_duplicates([*keys, "position"]), *keys):
        extra = len(rows) - allowed.get(tuple(key), 0)
        if extra > 0:
            over[(key[0], key[1])] = over.get((key[0], key[1]), 0) + extra
    return over


def account(plan: Plan, erasures: Mapping[str, Sequence[Erasure]]) -> None:
    """Compare what the stores did with what was planned: DoesNotHold unless just the dropped rows are gone."""
    dropped = plan.fates[plan.fates["fate"] == "drop"].drop_duplicates(["collection", "unit", "position"])
    planned = {address: len(rows) for address, rows in each(dropped, "collection")}
    done: dict[str, int] = {}
    for one in (e for es in erasures.values() for e in es):
        for address, before in one.rows_before.items():
            done[address] = done.get(address, 0) + before - one.rows_after.get(address, 0)
    wrong = sorted(a for a in planned.keys() | done.keys() if planned.get(a, 0) != done.get(a, 0))
    if wrong:
        raise DoesNotHold(
            f"{', '.join(wrong)}: the rows that are gone are not the rows that were planned to go",
            hint="a store or the plan is wrong: nothing is published; keep the home for whoever looks into it",
        )

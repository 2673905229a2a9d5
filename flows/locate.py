"""Locate: bring the stores and the closure together; what is found is sealed, only counts leave.

`Look` is the probe of the closure. It reads the matching, emitting and date columns of the asked collections, each
unit once for the whole cohort, and opens protected values of the rows it found (never a whole column, unless the
operator named an identity that stands only under keys).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fangxin.data.catalog.identity import EMITTED, FACT, HIT, START, Answer, Closure, Question, Shared, closure
from fangxin.data.catalog.matching import Matcher, emitted
from fangxin.data.errors import InputError, NotAllowed
from fangxin.data.keys.columns import open_rows
from fangxin.data.requests import Request
from fangxin.data.vocabulary import Cohort, Collection, Field, Mode, Rows, Store, Subject
from fangxin.flows.batch import bound, finish, is_done, keep_plan, opened, pack_states
from fangxin.flows.estate import Estate
from fangxin.flows.evidence import OPENED, VERIFIED, mark, record
from fangxin.flows.frames import pack
from fangxin.flows.plan import decide
from fangxin.reports.ledger.entries import commitment

if TYPE_CHECKING:
    import pandas as pd


def locate(batch_id: str) -> None:
    """Find the people's rows and decide their fates; what was found is sealed, counts go to the ledger."""
    estate, batch = opened(batch_id)
    if is_done(estate, batch, "locate"):
        return
    estate.meter.step = "locate"
    people = [r for r in estate.requests.requests(batch.id) if not r.canary]
    record(estate, [_opened(estate, r) for r in people])
    record(estate, [{"type": "request.verified", "tag": mark(r, VERIFIED), "level": "operator"} for r in people])
    found = find(estate, Cohort(tuple(Subject(r.id, r.identities) for r in people)))
    if found.halts:
        first = found.halts[0]
        raise NotAllowed(
            f"subject {first.subject + 1}: the walk halted at {first.collection} ({first.guard}); "
            f"{len({h.subject for h in found.halts})} subjects need a person to look",
            hint="name both accounts in one line, raise the guard, or set guards.merge in the catalog",
        )
    nobody = sorted(set(range(len(people))) - set(found.traces["subject"].to_pylist()))
    # An auditor's people may stand outside the catalog alone, and so may who is left of a closing: a round that an
    # officer asked for after a partial one finds the rows gone.
    if nobody and not (batch.options.get("canaries") or batch.options.get("closures")):
        raise InputError(
            f"subject {nobody[0] + 1}: nobody has these identities in any collection"
            + (f" ({len(nobody)} such subjects)" if len(nobody) > 1 else ""),
            hint="check the line; leave it out if the person was erased before" + _half_done(estate, batch.id),
        )
    _too_unsure(found)
    plan = decide(estate.catalog, found, estate.laws, estate.settings.facts, estate.now.date(), bound=bound(batch))
    _too_much(estate, found.shared)
    keep_plan(estate, batch, "people", plan)
    estate.requests.keep(batch, "shared", pack(_shared_frame(found.shared)))
    estate.requests.keep(batch, "states/located", pack_states(estate.states()))
    finish(estate, batch, "locate", rows=len(plan.fates), hops=found.hops, stopped=found.stopped, digest=found.digest)


def find(estate: Estate, cohort: Cohort, *, whole: bool = False) -> Closure:
    """Find every row of the cohort in every collection of the catalog.

    `whole`: its identities are all there are, so each unit is opened once (data/catalog/identity.py).
    """
    seeds = frozenset(i.kind for s in cohort.subjects for i in s.identities)
    return closure(estate.catalog, cohort, Look(estate, open_kinds=seeds), whole=whole)


class Look:
    """The probe: looks the facts of one question up in every store that holds an asked collection."""

    def __init__(self, estate: Estate, *, open_kinds: frozenset[str] = frozenset()) -> None:
        self.estate, self.open_kinds = estate, open_kinds
        self.clear: dict[tuple[str, str], frozenset[str]] = {}  # per crypto-erase field the units it stands clear in

    def __call__(self, question: Question) -> Iterator[Answer]:
        """Answer store by store, unit by unit."""
        for store in self.estate.stores:
            asked = {a: f for a, f in question.fields.items() if any(c.address == a for c in store.collections)}
            if asked:
                yield from self._store(store, asked, question)

    def _store(self, store: Store, asked: Mapping[str, Sequence[str]], question: Question) -> Iterator[Answer]:
        searches = {a: self._search(store, a, names, question) for a, names in asked.items()}
        searches = {a: s for a, s in searches.items() if s.matchers}
        if not searches:
            return
        for address, rows in store.scan({a: s.columns for a, s in searches.items()}):
            answer = searches[address].answer(rows, self.estate)
            if answer is not None:
                yield answer

    def _search(self, store: Store, address: str, names: Sequence[str], question: Question) -> _Search:
        collection = self.estate.catalog.collection(address)
        crypto = {f.name for f in collection.fields if f.mode is Mode.CRYPTO_ERASE}
        for name in crypto - {n for a, n in self.clear if a == address}:
            self.clear[address, name] = frozenset(store.clear(collection, (name,)))
        clear = {n: self.clear[address, n] for n in crypto}
        shut, matchers = set(), {}  # columns whose values nobody asked to open
        for name in names:
            one = collection.field(name)
            if name in crypto and not (set(one.matches) & self.open_kinds):
                shut.add(name)
                if not clear[name]:
                    continue
            if question.users:
                one = replace(one, matches=(*one.matches, *one.emits))
            matcher = Matcher(one, question.facts, self.estate.catalog.kinds)
            if matcher:
                matchers[name] = matcher
        return _Search(collection, matchers, clear, shut, self.estate.catalog.person_kind)


class _Search:
    """One collection's share of a question: what to match, what to read of the rows found."""

    def __init__(
        self,
        collection: Collection,
        matchers: Mapping[str, Matcher],
        clear: Mapping[str, frozenset[str]],
        shut: Set[str],
        person: str | None,
    ) -> None:
        self.collection, self.matchers, self.clear, self.shut = collection, matchers, clear, shut
        self.emitting: list[Field] = [f for f in collection.fields if f.emits]
        self.owner = next((f for f in collection.fields if person and person in (*f.matches, *f.emits)), None)
        self.start = collection.retention.start if collection.retention else ""
        wanted = [*matchers, *(f.name for f in self.emitting)]
        if self.start and any(f.name == self.start for f in collection.fields):
            wanted.append(self.start)
        if self.owner is not None:
            wanted.append(self.owner.name)
        if clear.keys() & set(wanted) and collection.primary_key is not None:
            wanted.append(collection.primary_key.name)
        self.columns = tuple(dict.fromkeys(wanted))

    def answer(self, rows: Rows, estate: Estate) -> Answer | None:
        found: list[tuple[str, npt.NDArray[np.int64], npt.NDArray[np.int64], Sequence[str | None] | None]] = []
        for name, matcher in self.matchers.items():
            column = rows.columns.column(name)
            if self._hidden(rows, name):
                if name in self.shut:
                    continue
                column = self._opened(name, rows.columns, estate)
            match = matcher.find(column)
            if len(match.rows):
                found.append((name, match.rows, match.facts, match.texts))
        if not found:
            return None
        hits = pa.concat_tables([self._hits(rows, *one) for one in found])
        owned = np.unique(np.concatenate([r for _n, r, _f, _t in found]))
        return Answer(hits, self._emitted(rows, owned, estate))

    def _hidden(self, rows: Rows, name: str) -> bool:
        """Whether a field's values lie under keys in this unit; NotAllowed where only some of them do."""
        if name not in self.clear or not pa.types.is_large_binary(rows.columns.schema.field(name).type):
            return False
        if rows.unit in self.clear[name]:
            raise NotAllowed(
                f"{self.collection.address}.{name}: in {rows.unit} some values lie under keys and some in clear",
                hint="run `fangxin protect` first",
            )
        return True

    def _opened(self, name: str, rows: pa.RecordBatch, estate: Estate) -> pa.Array:
        return open_rows(estate.tree, estate.catalog, self.collection, name, rows, scalar=not estate.settings.lanes)

    def _hits(
        self,
        rows: Rows,
        name: str,
        at: npt.NDArray[np.int64],
        facts: npt.NDArray[np.int64],
        texts: Sequence[str | None] | None,
    ) -> pa.Table:
        n = len(at)
        return pa.table(
            [
                _same(self.collection.address, n),
                _same(rows.unit, n),
                pa.array(rows.positions[at], pa.int64()),
                _same(name, n),
                pa.array(facts, pa.int64()),
                pa.array(texts, pa.string()) if texts is not None else pa.nulls(n, pa.string()),
            ],
            schema=HIT,
        )

    def _emitted(self, rows: Rows, at: npt.NDArray[np.int64], estate: Estate) -> pa.Table:
        taken = rows.columns.take(pa.array(at))
        positions = pa.array(rows.positions[at], pa.int64())
        made = []
        for one in self.emitting:
            column = taken.column(one.name)
            if self._hidden(rows, one.name):
                column = self._opened(one.name, taken, estate)
            for kind in one.emits:
                made.append(self._values(rows.unit, positions, one.name, kind, emitted(kind, column)))
        if self.owner is not None and not self.owner.emits:  # whose row it is, for counting other people
            kind = estate.catalog.person_kind or ""
            made.append(
                self._values(rows.unit, positions, self.owner.name, kind, emitted(kind, taken.column(self.owner.name)))
            )
        if self.start in taken.schema.names:
            zone = estate.laws.law(self.collection.retention.law).zone if self.collection.retention else "UTC"
            made.append(self._values(rows.unit, positions, self.start, START, _iso(taken.column(self.start), zone)))
        return pa.concat_tables(made) if made else EMITTED.empty_table()

    def _values(self, unit: str, positions: pa.Array, name: str, kind: str, values: pa.Array) -> pa.Table:
        n = len(values)
        table = pa.table(
            [_same(self.collection.address, n), _same(unit, n), positions, _same(name, n), _same(kind, n), values],
            schema=EMITTED,
        )
        return table.filter(pc.is_valid(table["value"]))


def _same(text: str, n: int) -> pa.Array:
    return pa.repeat(pa.scalar(text, pa.string()), n)


def _iso(column: pa.Array, zone: str) -> pa.Array:
    """Dates of a retention as `YYYY-MM-DD` in the law's zone, from dates, timestamps (UTC unless zoned) or ISO text."""
    if pa.types.is_date(column.type):
        return pc.strftime(column, format="%Y-%m-%d")
    if pa.types.is_timestamp(column.type):
        moments = column if column.type.tz else pc.assume_timezone(column, "UTC")
        return pc.strftime(moments.cast(pa.timestamp(column.type.unit, zone)), format="%Y-%m-%d")
    text = pc.utf8_slice_codeunits(column.cast(pa.string()), 0, 10)
    return pc.if_else(pc.match_substring_regex(text, r"^\d{4}-\d{2}-\d{2}$"), text, pa.scalar(None, pa.string()))


def facts_of(subjects: pa.Table) -> pa.Table:
    """Facts of a closure (subject, kind, value, hop) as a question's facts (schema FACT); ids are row numbers."""
    n = subjects.num_rows
    return pa.table([pa.array(range(n), pa.int64()), subjects["kind"], subjects["value"]], schema=FACT)


def _half_done(estate: Estate, batch_id: str) -> str:
    """A word about batches that were interrupted: their people may be gone already, without a certificate yet."""
    waiting = [b for b in estate.requests.unfinished() if b != batch_id and estate.requests.note(b, "planting")]
    return f"; batch {waiting[0]} was interrupted: `fangxin resume` finishes it" if waiting else ""


def _opened(estate: Estate, one: Request) -> dict[str, int | str]:
    return {
        "type": "request.opened",
        "tag": mark(one, OPENED),
        "commitment": commitment(one.secret, [(i.kind, i.value) for i in one.identities]),
        "law": ",".join(sorted(n.removesuffix(".yaml") for n in estate.laws.digests)),
        "promise": "operator",
        "catalog": estate.catalog.digest,
    }


def _shared_frame(shared: Sequence[Shared]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame([asdict(s) for s in shared], columns=["subject", "collection", "rows", "others"])


def _too_unsure(found: Closure) -> None:
    """Rows reached with less confidence than their dataset demands may be somebody else's: a person looks first."""
    unsure = found.traces.filter(pc.equal(found.traces["edge"], "uncertain"))
    if unsure.num_rows:
        counts = unsure.group_by("collection").aggregate([("position", "count")]).sort_by("collection").to_pylist()
        named = ", ".join(f"{c['collection']}: {c['position_count']} rows" for c in counts)
        raise NotAllowed(
            f"{named}: reached with less confidence than guards.min_confidence demands; a person has to look",
            hint="look at the path with `fangxin locate`; name the account if it is theirs, or correct the confidence",
        )


def _too_much(estate: Estate, shared: Sequence[Shared]) -> None:
    """Rows of others that would go with `on_shared: erase` are collateral, and limited."""
    for one in shared:
        collection = estate.catalog.collection(one.collection)
        limit = estate.catalog.guards(collection).max_collateral
        if collection.on_shared == "erase" and one.rows > limit:
            raise NotAllowed(
                f"{one.collection}: {one.rows} rows used by {one.others} other people would go, {limit} are allowed",
                hint="on_shared: unlink keeps them; guards.max_collateral allows more",
            )

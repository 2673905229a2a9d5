"""The closure: which rows belong to the people of a cohort, and why, as a fixpoint over references and identities.

Pure but for `probe`, which looks facts up in the stores. Two relations live in DuckDB memory (nothing spills:
spilled facts would be residue of ours): `fact` is what is known about a subject, `hit` is where it was found.

* Only the edge *owns* propagates; *shares* and *mentions* are listed, never followed.
* A hop probes every collection that can still yield facts once, for the whole cohort; collections that only
  match (logs, ledgers: the big ones) are probed once, at the end, with everything that is known.
* It ends: facts are drawn from stored values, a finite set that only grows. Cycles and self references need
  no special case.
* It is deterministic: new facts are a set in sorted order and a parent is the least (collection, unit,
  position, field); no order of threads, files or Python sets shows.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from fangxin.data.catalog.kinds import is_stop, load_stop_list
from fangxin.data.errors import NotAllowed
from fangxin.data.vocabulary import TRACE, Catalog, Cohort, Collection, Field, Identity, Ownership

if TYPE_CHECKING:
    import duckdb

FACT = pa.schema([("id", pa.int64()), ("kind", pa.string()), ("value", pa.string())])

HIT = pa.schema(
    [
        ("collection", pa.string()),
        ("unit", pa.string()),
        ("position", pa.int64()),
        ("field", pa.string()),
        ("fact", pa.int64()),
        ("text", pa.string()),  # the spelling that matched inside free text, else null
    ]
)

EMITTED = pa.schema(
    [
        ("collection", pa.string()),
        ("unit", pa.string()),
        ("position", pa.int64()),
        ("field", pa.string()),
        ("kind", pa.string()),
        ("value", pa.string()),
    ]
)

START = "@start"  # the pseudo kind under which a row's retention date comes back from a probe


@dataclass(frozen=True)
class Question:
    """What a probe looks up: per collection address the fields to match, and the facts (schema FACT) to match with."""

    fields: Mapping[str, tuple[str, ...]]
    facts: pa.Table
    users: bool = False  # look in columns that only emit, too: who else points to these facts


@dataclass(frozen=True)
class Answer:
    """What a probe found: where (schema HIT) and what stands in the emitting columns of those rows (EMITTED)."""

    hits: pa.Table
    emitted: pa.Table


Probe = Callable[[Question], Iterator[Answer]]


@dataclass(frozen=True)
class Halt:
    """A place where the walk stopped for one subject and a person has to look."""

    subject: int
    guard: str
    collection: str


@dataclass(frozen=True)
class Shared:
    """Rows of a shared or joint collection that a subject uses together with `others` other people."""

    subject: int
    collection: str
    rows: int
    others: int


@dataclass(frozen=True)
class Closure:
    """Everything found. `facts` and `texts` hold values of people: sealed at once, never logged."""

    traces: pa.Table  # vocabulary.TRACE, sorted
    facts: pa.Table = field(repr=False)  # subject, kind, value, hop; sorted
    texts: pa.Table = field(repr=False)  # subject, collection, unit, position, field, text: what to redact
    starts: pa.Table = field(repr=False)  # collection, unit, position, start: the date a retention runs from
    shared: tuple[Shared, ...] = ()
    halts: tuple[Halt, ...] = ()
    stopped: int = 0  # facts that a stop list kept from matching
    hops: int = 0
    joined: Mapping[int, int] = field(default_factory=dict)  # subject -> how many accounts its given identities lead to

    @property
    def digest(self) -> str:
        """SHA-256 over the sorted traces: equal for equal answers, whatever the order of work."""
        running = hashlib.sha256()
        for row in self.traces.to_batches():
            for column in row.columns:
                for value in column.to_pylist():
                    running.update(repr(value).encode() + b"\n")
        return running.hexdigest()


def closure(catalog: Catalog, cohort: Cohort, probe: Probe, *, whole: bool = False) -> Closure:
    """Find all rows of the cohort; NotAllowed when the walk does not end within the catalog's `max_hops`.

    `whole`: the given identities are all there are, as with somebody made up. Then one question to every collection
    is enough, and nobody is asked who else uses what; what turns out to be new is followed all the same.
    """
    walk = _Walk(catalog, cohort, probe)
    try:
        return walk.run(whole=whole)
    finally:
        walk.db.close()  # and with it all that was found


def edge_of(collection: Collection, one: Field) -> str:
    """What a match of this field means: owns, shares, joint or mentions."""
    if Ownership.MENTION in (one.ownership, collection.ownership) or one.data_type == "text":
        return "mentions"
    if Ownership.SHARED in (one.ownership, collection.ownership):
        return "shares"
    return "joint" if collection.ownership is Ownership.JOINT else "owns"


def searched(one: Field, kinds: Sequence[str], declared: frozenset[str]) -> tuple[str, ...]:
    """The kinds of `kinds` that this field is searched for: its own, and in free text every identity kind."""
    if one.data_type == "text":
        return tuple(k for k in kinds if k in declared)
    return tuple(k for k in kinds if k in one.matches)


@cache
def _engine(_process: int) -> duckdb.DuckDBPyConnection:
    """One for a process (its threads do not follow into a fork): to make it costs more than to walk for one person."""
    import duckdb

    return duckdb.connect(
        ":memory:",
        config={
            "autoinstall_known_extensions": "false",
            "threads": 2,
            "memory_limit": "1GB",
            "temp_directory": "",
        },
    )


FEW = 16  # people for whom a plan takes longer to be made better than to be carried out as it stands


class _Walk:
    def __init__(self, catalog: Catalog, cohort: Cohort, probe: Probe) -> None:
        self.catalog, self.probe = catalog, probe
        self.cohort = cohort
        lists = sorted({d.guards.stop_list for d in catalog.datasets if d.guards.stop_list})
        self.stop_lists = [load_stop_list(Path(one)) for one in lists]
        self.masks = {
            str(f.mask.constant) for c in catalog.collections for f in c.fields if f.mask.constant is not None
        }
        self.collections = {c.address: c for c in catalog.collections}
        self.stopped = self.reversed = 0
        self.halts: set[tuple[int, str, str]] = set()
        self.db = _engine(os.getpid()).cursor()  # temporary tables are its own, and end with it
        self.db.execute(f"SET enable_optimizer = {len(cohort.subjects) > FEW}")
        self.db.execute(
            "CREATE TEMP TABLE fact(id BIGINT, subject INT, kind TEXT, value TEXT, hop INT, confidence DOUBLE,"
            " via TEXT);"
            "CREATE TEMP TABLE hit(subject INT, collection TEXT, unit TEXT, position BIGINT, edge TEXT, hop INT,"
            " confidence DOUBLE, via TEXT, field TEXT, fact BIGINT, text TEXT);"
            "CREATE TEMP TABLE emitted(collection TEXT, unit TEXT, position BIGINT, field TEXT, kind TEXT, value TEXT);"
            "CREATE TEMP TABLE apart(fact BIGINT);"
        )
        edges = [(c.address, f.name, edge_of(c, f), f.confidence) for c in catalog.collections for f in c.fields]
        _load(self.db, "edge_of", pa.table({k: list(v) for k, v in zip(_EDGE, zip(*edges, strict=True), strict=True)}))
        limits = [
            (c.address, f.name, f.max_fanout, g.max_new_identities, g.min_confidence, g.merge, c.person)
            for c in catalog.collections
            for g in [catalog.guards(c)]
            for f in c.fields
        ]
        _load(self.db, "guard", pa.table({k: list(v) for k, v in zip(_GUARD, zip(*limits, strict=True), strict=True)}))

    # ------------------------------------------------------------ the walk

    def run(self, *, whole: bool) -> Closure:
        new = self._seed()
        hop = 0
        if whole:
            hop = 1
            self._ask(self._question(set(self.collections), None), hop)
            new = self._grow(hop)
            if not new:
                return self._result([], hop)
        limit = max((d.guards.max_hops for d in self.catalog.datasets), default=32)
        emitting = {a for a, c in self.collections.items() if any(f.emits for f in c.fields)}
        while new:
            hop += 1
            if hop > limit:
                raise NotAllowed(
                    f"the identity walk did not end within {limit} hops",
                    hint="look at the catalog's references, or raise guards.max_hops",
                )
            self._ask(self._question(emitting, hop - 1), hop)
            new = self._grow(hop)
        hop += 1
        self._ask(self._question(set(self.collections) - emitting, None), hop)
        shared = self._reverse()
        return self._result(shared, hop + self.reversed)

    def _stops(self, kind: str, value: str) -> bool:
        """Whether a fact matches nothing: built-in stop values, the operator's list, and our own masks."""
        return is_stop(kind, value) or value in self.masks or any(s.holds(kind, value) for s in self.stop_lists)

    def _seed(self) -> int:
        rows = sorted(
            {(n, i.kind, i.value) for n, s in enumerate(self.cohort.subjects) for i in s.identities},
        )
        kept = [r for r in rows if not self._stops(r[1], r[2])]
        self.stopped += len(rows) - len(kept)
        table = pa.table(
            {
                "id": pa.array(range(len(kept)), pa.int64()),
                "subject": pa.array([r[0] for r in kept], pa.int32()),
                "kind": pa.array([r[1] for r in kept], pa.string()),
                "value": pa.array([r[2] for r in kept], pa.string()),
                "hop": pa.array([0] * len(kept), pa.int32()),
                "confidence": pa.array([1.0] * len(kept), pa.float64()),
                "via": pa.array([f"{r[1]} (given)" for r in kept], pa.string()),
            }
        )
        _insert(self.db, "fact", table)
        return len(kept)

    def _question(self, among: set[str], hop: int | None) -> Question:
        """Facts of one hop (None: all) against every field of `among` that they can match."""
        where = "" if hop is None else f"AND hop = {int(hop)}"
        known = f"SELECT id, kind, value FROM fact WHERE id NOT IN (SELECT fact FROM apart) {where} ORDER BY id"  # noqa: S608
        facts = self.db.sql(known).to_arrow_table()
        kinds = tuple(sorted(set(facts.column("kind").to_pylist())))
        declared = self.catalog.kinds
        fields = {
            a: tuple(f.name for f in self.collections[a].fields if searched(f, kinds, declared)) for a in sorted(among)
        }
        return Question({a: f for a, f in fields.items() if f}, facts.cast(FACT))

    def _ask(self, question: Question, hop: int) -> None:
        if not question.fields or not question.facts.num_rows:
            return
        answers = list(self.probe(question))  # inserted at once: an insert costs more than the rows in it
        if not any(a.hits.num_rows for a in answers):
            return  # what a row emits comes with its hits
        _load(self.db, "found", pa.concat_tables([a.hits for a in answers]))
        _insert(self.db, "emitted", pa.concat_tables([a.emitted for a in answers]))
        # A row is a new hit of a subject unless it was reached before; which fact reached it first is decided by order.
        self.db.execute(
            f"""
            CREATE OR REPLACE TEMP TABLE fresh AS
            SELECT f.subject, d.collection, d.unit, d.position, e.edge, {int(hop)}::INT AS hop,
                   f.confidence * e.confidence AS confidence,
                   f.via || ' > ' || d.collection || '.' || d.field AS via, d.field, d.fact, d.text
            FROM found d JOIN fact f ON f.id = d.fact
            JOIN edge_of e ON e.collection = d.collection AND e.field = d.field
            """  # noqa: S608 - hop is an int
        )
        if any(self.collections[a].person for a in question.fields):
            self._merges()
        # A pair of (row, field) may be found by several facts; keep each once, so that masks see every field.
        self.db.execute(
            "INSERT INTO hit SELECT DISTINCT fresh.* FROM fresh ANTI JOIN hit"
            " USING (subject, collection, unit, position, field, fact)"
        )

    def _merges(self) -> None:
        """Halt where unverified identities lead to a second person row, unless the catalog says join.

        A row is vouched for by a verified identity or a reference; one row may be reached without either, if it is
        the only one. Two that come in the same hop are both in doubt: nobody knows which was there first. Such an
        identity may be somebody else's by now, so it is kept apart: it leads nowhere, in no collection.
        """
        rows = self.db.execute(
            """
            WITH reached AS (
              SELECT n.subject, n.collection, n.unit, n.position, n.fact, g.merge,
                     f.hop = 0 OR g.merge = 'join' OR starts_with(f.kind, 'ref:') AS sure
              FROM fresh n JOIN guard g ON g.collection = n.collection AND g.field = n.field
              JOIN fact f ON f.id = n.fact
              WHERE g.person AND n.edge = 'owns'
                AND NOT EXISTS (SELECT 1 FROM hit h WHERE h.subject = n.subject AND h.collection = n.collection
                                AND h.unit = n.unit AND h.position = n.position AND h.edge = 'owns')
            ), one AS (
              SELECT subject, collection, unit, position, bool_or(sure) AS sure FROM reached GROUP BY ALL
            ), crowd AS (
              SELECT subject, collection FROM (
                SELECT subject, collection, unit, position FROM one
                UNION SELECT subject, collection, unit, position FROM hit WHERE edge = 'owns'
              ) GROUP BY ALL HAVING count(*) > 1
            )
            SELECT DISTINCT r.subject, r.collection, r.merge, r.fact
            FROM reached r JOIN one USING (subject, collection, unit, position)
            JOIN crowd USING (subject, collection) WHERE NOT one.sure
            ORDER BY ALL
            """
        ).fetchall()
        for subject, collection, merge, fact in rows:
            if merge == "ask":
                self.halts.add((subject, "merge", collection))
            self.db.execute("INSERT INTO apart VALUES (?)", [fact])
        if rows:
            self.db.execute("DELETE FROM fresh WHERE fact IN (SELECT fact FROM apart)")

    def _grow(self, hop: int) -> int:
        """Turn what stands in the emitting columns of newly owned rows into facts; return how many are new."""
        candidates = self.db.sql(
            """
            SELECT h.subject, e.kind, e.value,
                   min(h.collection || chr(1) || h.unit || chr(1) || lpad(h.position::TEXT, 20, '0')
                       || chr(1) || e.field) AS least,
                   max(h.confidence) AS confidence
            FROM hit h JOIN emitted e USING (collection, unit, position)
            JOIN guard g ON g.collection = e.collection AND g.field = e.field
            WHERE h.edge = 'owns' AND e.value IS NOT NULL AND e.kind <> '@start' AND h.confidence >= g.min_confidence
              AND NOT EXISTS (SELECT 1 FROM fact f
                              WHERE f.subject = h.subject AND f.kind = e.kind AND f.value = e.value)
            GROUP BY ALL ORDER BY h.subject, e.kind, e.value
            """
        ).to_arrow_table()
        pairs = zip(candidates["kind"].to_pylist(), candidates["value"].to_pylist(), strict=True)
        stop = [self._stops(k, v) for k, v in pairs]
        self.stopped += sum(stop)
        candidates = candidates.filter(pc.invert(pa.array(stop, pa.bool_())))
        if not candidates.num_rows:
            return 0
        _load(self.db, "candidate", candidates)
        self.db.execute(
            """
            CREATE OR REPLACE TEMP TABLE grown AS
            SELECT c.*, split_part(least, chr(1), 1) AS collection, split_part(least, chr(1), 4) AS field
            FROM candidate c
            """
        )
        self._limits()
        ((start,),) = self.db.execute("SELECT coalesce(max(id), -1) + 1 FROM fact").fetchall()
        self.db.execute(
            f"""
            INSERT INTO fact
            SELECT {int(start)} + row_number() OVER (ORDER BY n.subject, n.kind, n.value) - 1,
                   n.subject, n.kind, n.value, {int(hop)}, n.confidence,
                   (SELECT min(h.via) FROM hit h WHERE h.subject = n.subject AND h.collection = n.collection
                      AND h.unit = split_part(n.least, chr(1), 2)
                      AND h.position = split_part(n.least, chr(1), 3)::BIGINT AND h.edge = 'owns')
                   || ' > ' || n.collection || '.' || n.field
            FROM grown n ORDER BY n.subject, n.kind, n.value
            """  # noqa: S608 - both are ints
        )
        self._in_common(hop)
        ((grown,),) = self.db.execute("SELECT count(*) FROM grown").fetchall()
        return int(grown)

    def _in_common(self, hop: int) -> None:
        """Halt where two subjects own one identity: they may be one person, or the identity may have changed hands.

        `apart` keeps the unverified side from following it; where one side has followed it before, that is too late,
        and a person has to look as well.
        """
        rows = self.db.execute(
            """
            SELECT n.id, n.subject, other.subject, other.hop, g.merge, min(o.collection)
            FROM fact n JOIN fact other ON other.kind = n.kind AND other.value = n.value AND other.subject <> n.subject
            JOIN grown o ON o.subject = n.subject AND o.kind = n.kind AND o.value = n.value
            JOIN guard g ON g.collection = o.collection AND g.field = o.field
            WHERE n.hop = ? AND NOT starts_with(n.kind, 'ref:') AND n.kind <> 'name' AND g.merge <> 'join'
              AND other.id NOT IN (SELECT fact FROM apart)
            GROUP BY ALL ORDER BY ALL
            """,
            [hop],
        ).fetchall()
        for fact, subject, other, since, merge, collection in rows:
            if merge == "ask" or 0 < since < hop:
                self.halts |= {(subject, "merge", collection), (other, "merge", collection)}
            self.db.execute("INSERT INTO apart VALUES (?)", [fact])

    def _limits(self) -> None:
        """A subject whose hop yields too much emits nothing from it, and is halted for a person to look."""
        tripped = self.db.execute(
            """
            SELECT DISTINCT subject, 'max_new_identities', min(collection) FROM grown n
              JOIN guard g USING (collection, field)
              WHERE NOT starts_with(kind, 'ref:') GROUP BY subject, g.max_new_identities
              HAVING count(*) > g.max_new_identities
            UNION ALL
            SELECT DISTINCT subject, 'max_fanout', collection FROM grown n JOIN guard g USING (collection, field)
              GROUP BY subject, collection, field, g.max_fanout HAVING count(*) > g.max_fanout
            ORDER BY ALL
            """
        ).fetchall()
        for subject, guard, collection in tripped:
            self.halts.add((subject, guard, collection))
            self.db.execute("DELETE FROM grown WHERE subject = ?", [subject])

    # ------------------------------------------------------------ whose else a row is

    def _reverse(self) -> list[Shared]:
        """Count, for each shared row, the people outside the cohort who use it too; a row nobody else uses is owned."""
        used = self.db.sql(
            """SELECT DISTINCT h.collection, h.unit, h.position, f.kind, f.value FROM hit h
               JOIN fact f ON f.id = h.fact WHERE h.edge = 'shares' ORDER BY ALL"""
        ).to_arrow_table()
        if not used.num_rows:
            return []
        self.reversed = 1  # one more pass over the stores
        kinds = sorted(set(used["kind"].to_pylist()))
        facts = (
            self.db.sql(
                """SELECT min(id) AS id, kind, value FROM fact WHERE (kind, value) IN
               (SELECT (f.kind, f.value) FROM hit h JOIN fact f ON f.id = h.fact WHERE h.edge = 'shares')
               GROUP BY kind, value ORDER BY 1"""
            )
            .to_arrow_table()
            .cast(FACT)
        )
        fields = {
            a: tuple(f.name for f in c.fields if set(kinds) & (set(f.emits) | set(f.matches)))
            for a, c in sorted(self.collections.items())
            if c.ownership is not Ownership.SHARED
        }
        self.db.execute(
            "CREATE TEMP TABLE user_row(collection TEXT, unit TEXT, position BIGINT, field TEXT, fact BIGINT,"
            " text TEXT); CREATE TEMP TABLE user_of(collection TEXT, unit TEXT, position BIGINT, field TEXT,"
            " kind TEXT, value TEXT)"
        )
        for answer in self.probe(Question({a: f for a, f in fields.items() if f}, facts, users=True)):
            _insert(self.db, "user_row", answer.hits)
            _insert(self.db, "user_of", answer.emitted)
        self.db.execute(
            """
            CREATE TEMP TABLE other AS
            SELECT DISTINCT f.kind, f.value, u.collection, u.unit, u.position, coalesce(o.value, u.collection || u.unit
                   || u.position::TEXT) AS who
            FROM user_row u JOIN fact f ON f.id = u.fact
            LEFT JOIN user_of o ON o.collection = u.collection AND o.unit = u.unit AND o.position = u.position
                 AND o.kind = ?
            WHERE NOT EXISTS (SELECT 1 FROM hit h WHERE h.edge = 'owns' AND h.collection = u.collection
                              AND h.unit = u.unit AND h.position = u.position)
            """,
            [self.catalog.person_kind or ""],
        )
        # Nobody outside the cohort uses it: the row may go with the last of its users.
        self.db.execute(
            """
            UPDATE hit SET edge = 'owns' WHERE edge = 'shares' AND NOT EXISTS (
              SELECT 1 FROM fact f JOIN other o ON o.kind = f.kind AND o.value = f.value WHERE f.id = hit.fact)
            """
        )
        rows = self.db.execute(
            """
            SELECT h.subject, h.collection, count(DISTINCT (h.unit, h.position)), count(DISTINCT o.who)
            FROM hit h JOIN fact f ON f.id = h.fact JOIN other o ON o.kind = f.kind AND o.value = f.value
            WHERE h.edge = 'shares' GROUP BY 1, 2 ORDER BY 1, 2
            """
        ).fetchall()
        return [Shared(*row) for row in rows]

    # ------------------------------------------------------------ the answer

    def _result(self, shared: list[Shared], hops: int) -> Closure:
        traces = self.db.sql(
            """
            SELECT subject, collection, unit, position,
                   CASE WHEN max(confidence) < (SELECT min(min_confidence) FROM guard g
                                                WHERE g.collection = hit.collection) THEN 'uncertain'
                     ELSE CASE min(CASE edge WHEN 'owns' THEN 0 WHEN 'joint' THEN 1 WHEN 'shares' THEN 2 ELSE 3 END)
                     WHEN 0 THEN 'owns' WHEN 1 THEN 'joint' WHEN 2 THEN 'shares' ELSE 'mentions' END END AS edge,
                   min(hop) AS hop, max(confidence) AS confidence,
                   min_by(via, (CASE edge WHEN 'owns' THEN 0 WHEN 'joint' THEN 1 WHEN 'shares' THEN 2 ELSE 3 END, hop,
                                length(via), via)) AS via,
                   string_agg(DISTINCT field, ',' ORDER BY field) AS fields
            FROM hit GROUP BY subject, collection, unit, position ORDER BY subject, collection, unit, position
            """
        ).to_arrow_table()
        facts = self.db.sql(
            "SELECT subject, kind, value, hop FROM fact WHERE id NOT IN (SELECT fact FROM apart)"
            " ORDER BY subject, kind, value"
        ).to_arrow_table()
        texts = self.db.sql(
            "SELECT DISTINCT subject, collection, unit, position, field, text FROM hit"
            " WHERE text IS NOT NULL ORDER BY ALL"
        ).to_arrow_table()
        starts = self.db.sql(
            "SELECT DISTINCT collection, unit, position, value AS start FROM emitted WHERE kind = '@start' ORDER BY ALL"
        ).to_arrow_table()
        return Closure(
            traces=traces.cast(TRACE),
            facts=facts,
            texts=texts,
            starts=starts,
            shared=tuple(shared),
            halts=tuple(Halt(*h) for h in sorted(self.halts)),
            stopped=self.stopped,
            hops=hops,
            joined=self._joined(),
        )

    def _joined(self) -> dict[int, int]:
        """Subjects whose given identities lead to several accounts, no one of them to all: a line may be wrong.

        Rows of one account, by its key, are one; so are rows that one identity leads to.
        """
        rows = self.db.execute(
            """
            SELECT DISTINCT h.subject, h.collection, h.unit || chr(1) || h.position, h.fact, e.value
            FROM hit h JOIN fact f ON f.id = h.fact
            JOIN guard g ON g.collection = h.collection AND g.field = h.field
            LEFT JOIN emitted e ON e.collection = h.collection AND e.unit = h.unit AND e.position = h.position
                 AND e.kind = ?
            WHERE f.hop = 0 AND g.person AND h.edge = 'owns' ORDER BY ALL
            """,
            [self.catalog.person_kind or ""],
        ).fetchall()
        groups: dict[tuple[int, str], list[set[object]]] = {}
        for subject, collection, row, fact, account in rows:
            mine = {("row", row), ("fact", fact), *([("account", account)] if account is not None else [])}
            known = groups.setdefault((subject, collection), [])
            apart = [one for one in known if not one & mine]
            groups[subject, collection] = [*apart, mine.union(*(one for one in known if one & mine))]
        found: dict[int, int] = {}
        for (subject, _collection), some in groups.items():
            if len(some) > 1:
                found[subject] = max(len(some), found.get(subject, 0))
        return found


_EDGE = ("collection", "field", "edge", "confidence")
_GUARD = ("collection", "field", "max_fanout", "max_new_identities", "min_confidence", "merge", "person")


def _load(db: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> None:
    db.register("incoming", table)
    db.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT * FROM incoming")  # noqa: S608 - our own names
    db.unregister("incoming")


def _insert(db: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> None:
    if table.num_rows:
        db.register("incoming", table)
        db.execute(f"INSERT INTO {name} SELECT * FROM incoming")  # noqa: S608 - our own names
        db.unregister("incoming")


def seeds_of(facts: Sequence[Identity]) -> tuple[Identity, ...]:
    """Sorted, without repetition: the order in which identities were given never shows."""
    return tuple(sorted(set(facts)))

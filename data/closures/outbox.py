"""The outbox: what must happen at somebody else's, exactly once, whatever dies in between.

A row is written in the transaction of the move that wants it. A worker claims it for a while, calls the far side with
the row's key as idempotency key, and marks it done. A worker that dies leaves a claim that runs out; the next one calls
again with the same key, and the far side answers what it answered before. Where the far side knows no such keys, its
connector asks first. What fails is tried again, later each time; after the last try it is *parked* for an officer.
Rows of a closure in one *lane* go one after the other, in the order of the moves that wrote them: a later one is not
claimed while an earlier one is open or somebody may still be calling for it. A parked one holds up nobody. Where a
row's body names rows of former closings (`behind`: the same account), it waits for those, too, and they are not tried
again once they are parked. What a later one takes the place of ends as `superseded` (`undone.py`); where the far side
took it after all, that is noted instead.
Where a row pays, the books say so in the transaction that ends it (`money.py`). A connector that breaks (an error that
is none of the far side's answers) holds up nobody else: its row says which error and where, never the error's words.
"""

from __future__ import annotations

import json
import random
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy import ColumnElement, Engine, Exists, FromClause, and_, func, insert, or_, select, update

from fangxin.data.closures import money
from fangxin.data.closures.engine import Taken, reading, writing
from fangxin.data.closures.round import MOST
from fangxin.data.closures.schema import EVENT, OUTBOX
from fangxin.data.closures.store import Message, instant, stamp
from fangxin.data.closures.undone import SUPERSEDED, VOID

LEASE: Final = timedelta(minutes=2)
TRIES: Final = 8
FIRST_WAIT: Final = timedelta(seconds=30)
LOOK_AGAIN: Final = timedelta(hours=1)
PARKED: Final = "parked"
BROKE: Final = "broke/"  # how the code of a row starts whose connector broke: the error's type, file and line follow
UNPAID: Final = "unpaid:"  # how the answer of a row starts that ended without being paid


@dataclass(frozen=True)
class Row:
    """A claimed row."""

    key: str
    closure: str
    kind: str
    body: Mapping[str, Any]
    tries: int
    sealed: bytes | None = field(repr=False)
    turn: int | None = None  # counts up within a closure
    asked: bool = True  # somebody may have called the far side before: ask it first


@dataclass(frozen=True)
class Sent:
    """What became of a row: its body, the code of its last refusal, when it was done and how."""

    key: str
    body: Mapping[str, Any]
    error: str | None
    done: datetime | None
    answer: str | None = None

    @property
    def taken(self) -> bool:
        """Whether the far side took it."""
        return self.done is not None and self.answer not in (VOID, SUPERSEDED)


@dataclass(frozen=True)
class Left:
    """A row that is not done, or (`over`) was ended while somebody may still be calling for it."""

    key: str
    closure: str
    lane: str
    body: Mapping[str, Any]
    over: bool
    parked: bool
    sealed: bytes | None = field(repr=False)


@dataclass(frozen=True)
class Unheard:
    """What a kind of messages has left, by lane and closing; whose hashes they hold; and a number for the next one.

    `turn` grows over the whole store with each event that is written: a message written later has a higher one.
    """

    rows: Mapping[tuple[str, str], Sequence[Left]]
    whose: Mapping[tuple[str, str], frozenset[str]] = field(repr=False)  # lane and hash -> closings
    turn: int

    def former(self, lane: str, hashes: Sequence[str], closure: str) -> list[Left]:
        """The rows of other closings in a lane that are about one of these accounts."""
        about = {c for one in hashes for c in self.whose.get((lane, one), ())} - {closure}
        return [row for one in sorted(about) for row in self.rows[lane, one]]


class Refused(Exception):  # noqa: N818  the far side's answer, not a failure of ours
    """The far side did not do it; `code` is one of our codes. `final`: asking again is of no use.

    `waits`: it is doing it; that it is not done yet is no try that failed.
    """

    def __init__(self, code: str, *, final: bool = False, waits: bool = False) -> None:
        self.code, self.final, self.waits = code, final, waits
        super().__init__(code)


class Never(Refused):
    """The far side says that it will not pay under this key, ever; `to` is the account where the money goes then."""

    def __init__(self, code: str, *, to: str) -> None:
        self.to = to
        super().__init__(code, final=True)


Connector = Callable[[Row], str]  # does it once for the row's key, and returns the far side's reference


class Outbox:
    """The outbox of one store."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def claim(self, worker: str, now: datetime, *, most: int = 50, only: Sequence[str] | None = None) -> list[Row]:
        """Take rows that are due and that nobody holds; they are this worker's until the lease runs out.

        `only`: rows of these kinds, None: of any.
        """
        at = stamp(now)
        free = or_(OUTBOX.c.claimed.is_(None), OUTBOX.c.claimed <= at)
        wanted = (
            select(OUTBOX)
            .where(
                OUTBOX.c.done.is_(None),
                OUTBOX.c.due <= at,
                free,
                _tried(OUTBOX),
                or_(OUTBOX.c.lane.is_(None), ~_behind(at)),
                or_(OUTBOX.c.lane.is_(None), ~OUTBOX.c.body.contains('"behind":'), ~_after(at)),
                *([] if only is None else [OUTBOX.c.kind.in_(only)]),
            )
            .order_by(OUTBOX.c.due, OUTBOX.c.key)
            .limit(most)
            .with_for_update(skip_locked=True, of=OUTBOX)  # PostgreSQL; SQLite has one writer anyway
        )
        with writing(self.engine) as db:
            rows = db.execute(wanted).all()
            keys = [row.key for row in rows]
            if keys:
                db.execute(
                    update(OUTBOX).where(OUTBOX.c.key.in_(keys)).values(claimed=stamp(now + LEASE), worker=worker)
                )
        return [_row(one) for one in rows]

    def take(self, key: str, worker: str, now: datetime) -> Row:
        """Take one row that was written this moment, to be worked at once."""
        with writing(self.engine) as db:
            found = db.execute(select(OUTBOX).where(OUTBOX.c.key == key)).one()
            db.execute(update(OUTBOX).where(OUTBOX.c.key == key).values(claimed=stamp(now + LEASE), worker=worker))
        return _row(found)

    def done(self, key: str, answer: str, now: datetime, *, to: str = "paid") -> bool:
        """Mark a row done; False if it was done already. What is sealed in it is emptied; what it pays is posted."""
        with writing(self.engine) as db:
            mark = update(OUTBOX).where(
                OUTBOX.c.key == key, or_(OUTBOX.c.done.is_(None), OUTBOX.c.answer == SUPERSEDED)
            )
            marked = db.execute(mark.values(done=stamp(now), answer=answer, sealed=None, claimed=None)).rowcount == 1
            row = db.execute(select(OUTBOX.c.closure, OUTBOX.c.kind, OUTBOX.c.body).where(OUTBOX.c.key == key)).one()
            if marked and row.kind in money.PAYING:
                money.move(db, row.closure, key, *money.amount_of(row.body), to)
            return marked

    def failed(
        self,
        row: Row,
        refused: Refused,
        now: datetime,
        *,
        most_tries: int = TRIES,
        chance: Callable[[], float] = random.random,
    ) -> bool:
        """Put a row back with a longer wait each time (with jitter); True where it is parked for an officer."""
        tries = row.tries + (not refused.waits)
        parked = refused.final or tries >= most_tries
        wait = LOOK_AGAIN if refused.waits else FIRST_WAIT * 2 ** min(tries - 1, 10) * (0.5 + chance())
        values = {
            "tries": tries,
            "error": PARKED if parked else refused.code,
            "claimed": stamp(now),  # the lease is over; that it once was claimed tells that somebody may have called
            "due": stamp(now + wait),
        }
        with writing(self.engine) as db:
            db.execute(update(OUTBOX).where(OUTBOX.c.key == row.key, OUTBOX.c.done.is_(None)).values(**values))
        return parked

    def work(self, worker: str, connectors: Mapping[str, Connector], now: datetime, *, most: int = 50) -> int:
        """Claim, call, mark; returns how many rows were done. A kind without a connector is parked, never dropped."""
        return self.carry(self.claim(worker, now, most=most), connectors, now)

    def carry(
        self, rows: Sequence[Row], connectors: Mapping[str, Connector], now: datetime, *, most_tries: int = TRIES
    ) -> int:
        """Call and mark rows that were claimed; returns how many were done.

        A connector that breaks is a try that failed, whatever it broke by; only what ends the process goes through.
        """
        count = 0
        for row in rows:
            connector = connectors.get(row.kind)
            try:
                if connector is None:
                    raise Refused("no_connector", final=True)
                answer = connector(row)
            except Never as never:
                self.done(row.key, UNPAID + never.code, now, to=never.to)
            except Refused as refused:
                self.failed(row, refused, now, most_tries=most_tries)
            except Exception as error:
                self.failed(row, Refused(_broke(error)), now, most_tries=most_tries)
            else:
                count += self.done(row.key, answer, now)
        return count

    def since(self, closure: str) -> datetime | None:
        """When a row of a closing first ended without being paid; None where none did."""
        ended = select(func.min(OUTBOX.c.done)).where(
            OUTBOX.c.closure == closure, OUTBOX.c.kind.in_(money.PAYING), OUTBOX.c.answer.startswith(UNPAID)
        )
        with reading(self.engine) as db:
            first = db.execute(ended).scalar()
        return None if first is None else instant(first)

    def answer(self, key: str) -> str | None:
        """What the far side said of a row that is done; None while it is not, or where there is none."""
        with reading(self.engine) as db:
            found: str | None = db.execute(select(OUTBOX.c.answer).where(OUTBOX.c.key == key)).scalar()
        return found

    def history(self, closure: str, kind: str) -> list[Sent]:
        """How the rows of a kind stand that a closure has, in the order in which they were written."""
        return self.histories([closure], kind)[closure]

    def histories(self, closures: Sequence[str], kind: str) -> dict[str, list[Sent]]:
        """The same of many closures."""
        found: dict[str, list[Sent]] = {one: [] for one in closures}
        for first in range(0, len(closures), MOST):
            mine = OUTBOX.c.closure.in_(closures[first : first + MOST])
            wanted = select(OUTBOX).where(mine, OUTBOX.c.kind == kind).order_by(OUTBOX.c.turn, OUTBOX.c.key)
            with reading(self.engine) as db:
                for r in db.execute(wanted):
                    done = None if r.done is None else instant(r.done)
                    found[r.closure].append(Sent(r.key, json.loads(r.body), r.error, done, r.answer))
        return found

    def open(self, closure: str | None = None) -> dict[str, int]:
        """How many rows are not done, by kind; of one closure or all."""
        wanted = select(OUTBOX.c.kind).where(OUTBOX.c.done.is_(None))
        if closure is not None:
            wanted = wanted.where(OUTBOX.c.closure == closure)
        found: dict[str, int] = {}
        with reading(self.engine) as db:
            for kind in db.execute(wanted).scalars():
                found[kind] = found.get(kind, 0) + 1
        return found

    def add(self, closure: str, message: Message) -> None:
        """Write a row by itself; one whose key is there already is left alone."""
        with suppress(Taken), writing(self.engine) as db:
            values = {"key": message.key, "closure": closure, "kind": message.kind, "sealed": message.sealed}
            body = json.dumps(dict(message.body), sort_keys=True, separators=(",", ":"))
            db.execute(insert(OUTBOX), {**values, "body": body, "due": stamp(message.due)})

    def parked(self, kinds: Sequence[str]) -> dict[str, str]:
        """Key -> closure of every row of these kinds that nobody tries any more."""
        wanted = select(OUTBOX.c.key, OUTBOX.c.closure).where(
            OUTBOX.c.done.is_(None), OUTBOX.c.error == PARKED, OUTBOX.c.kind.in_(kinds)
        )
        with reading(self.engine) as db:
            return {key: closure for key, closure in db.execute(wanted)}

    def broken(self) -> dict[str, str]:
        """Closure -> type and place of the error that broke the last try of a row that is tried again."""
        wanted = select(OUTBOX.c.closure, OUTBOX.c.error).where(
            OUTBOX.c.done.is_(None), OUTBOX.c.error.startswith(BROKE)
        )
        with reading(self.engine) as db:
            return {closure: error.removeprefix(BROKE) for closure, error in db.execute(wanted)}

    def standing(self, closure: str, kinds: Sequence[str]) -> tuple[int, int]:
        """How many rows of these kinds a closure has that are still tried, and how many are parked."""
        wanted = select(OUTBOX.c.error).where(
            OUTBOX.c.done.is_(None), OUTBOX.c.closure == closure, OUTBOX.c.kind.in_(kinds)
        )
        with reading(self.engine) as db:
            errors = list(db.execute(wanted).scalars())
        parked = sum(error == PARKED for error in errors)
        return len(errors) - parked, parked

    def tellable(self, closure: str, kind: str) -> list[str]:
        """The keys of parked rows of a closure that can be tried again: not emptied, and nothing came behind them."""
        later = OUTBOX.alias("later")
        behind = select(later.c.key).where(
            later.c.kind == kind, later.c.lane == OUTBOX.c.lane, later.c.body.contains('"behind":'),
            later.c.body.contains(OUTBOX.c.key),
        )  # fmt: skip
        wanted = select(OUTBOX.c.key).where(
            OUTBOX.c.done.is_(None), OUTBOX.c.closure == closure, OUTBOX.c.kind == kind, OUTBOX.c.error == PARKED,
            OUTBOX.c.sealed.is_not(None), ~behind.exists(),
        )  # fmt: skip
        with reading(self.engine) as db:
            return list(db.execute(wanted).scalars())

    def again(self, keys: Sequence[str], now: datetime) -> int:
        """Have parked rows tried again from the beginning; how many. What was ended or emptied meanwhile stays so."""
        rows = (OUTBOX.c.done.is_(None), OUTBOX.c.key.in_(keys), OUTBOX.c.error == PARKED)
        with writing(self.engine) as db:
            asked = update(OUTBOX).where(*rows, OUTBOX.c.sealed.is_not(None))
            return db.execute(asked.values(error=None, tries=0, due=stamp(now))).rowcount

    def unheard(self, kind: str, now: datetime) -> Unheard:
        """What is left of a kind whose `sealed` is a JSON list of hashes."""
        rows: dict[tuple[str, str], list[Left]] = {}
        whose: dict[tuple[str, str], set[str]] = {}
        left = select(OUTBOX).where(
            OUTBOX.c.kind == kind, OUTBOX.c.lane.is_not(None),
            or_(OUTBOX.c.done.is_(None), OUTBOX.c.claimed > stamp(now)),
        )  # fmt: skip
        with reading(self.engine) as db:
            for r in db.execute(left.order_by(OUTBOX.c.turn, OUTBOX.c.key)):
                one = Left(
                    r.key, r.closure, r.lane, json.loads(r.body), r.done is not None, r.error == PARKED, r.sealed
                )
                rows.setdefault((r.lane, r.closure), []).append(one)
                for about in json.loads(r.sealed or b"[]"):
                    whose.setdefault((r.lane, about), set()).add(r.closure)
            turn: int = db.execute(select(func.count()).select_from(EVENT)).scalar_one()
        return Unheard(rows, {key: frozenset(found) for key, found in whose.items()}, turn)

    def note(self, key: str, **more: str) -> None:
        """Note something in the body of a row; what is noted there stays."""
        with writing(self.engine) as db:
            body = json.loads(db.execute(select(OUTBOX.c.body).where(OUTBOX.c.key == key)).scalar_one())
            text = json.dumps({**more, **body}, sort_keys=True, separators=(",", ":"))
            db.execute(update(OUTBOX).where(OUTBOX.c.key == key).values(body=text))

    def park_empty(self, kind: str) -> list[str]:
        """Park rows of a kind in which nothing is sealed; the closures whose rows they are."""
        empty = and_(OUTBOX.c.done.is_(None), OUTBOX.c.kind == kind, OUTBOX.c.sealed.is_(None), _tried(OUTBOX))
        with writing(self.engine) as db:
            found = sorted(set(db.execute(select(OUTBOX.c.closure).where(empty)).scalars()))
            if found:
                db.execute(update(OUTBOX).where(empty).values(error=PARKED))
        return found

    def let_go(self, kind: str, *, tried: datetime, written: datetime) -> list[str]:
        """Park and empty rows of a kind that nobody tried since an instant, or that were written before another.

        The closures whose rows they are.
        """
        old = select(EVENT.c.seq).where(
            EVENT.c.closure == OUTBOX.c.closure, EVENT.c.seq == OUTBOX.c.turn, EVENT.c.time <= stamp(written)
        )
        wanted = select(OUTBOX.c.key, OUTBOX.c.closure).where(
            OUTBOX.c.done.is_(None), OUTBOX.c.kind == kind, OUTBOX.c.sealed.is_not(None),
            or_(OUTBOX.c.due <= stamp(tried), old.exists()),
        )  # fmt: skip
        with writing(self.engine) as db:
            found = db.execute(wanted).all()
            for first in range(0, len(found), MOST):
                some = update(OUTBOX).where(OUTBOX.c.key.in_([row.key for row in found[first : first + MOST]]))
                db.execute(some.values(sealed=None, error=PARKED, claimed=None))
        return sorted({row.closure for row in found})

    def give_up(self, closures: Sequence[str], kinds: Sequence[str]) -> None:
        """Park what is left of these kinds, and empty what is sealed in it."""
        rows = (OUTBOX.c.done.is_(None), OUTBOX.c.closure.in_(closures), OUTBOX.c.kind.in_(kinds))
        with writing(self.engine) as db:
            db.execute(update(OUTBOX).where(*rows).values(sealed=None, error=PARKED, claimed=None))


def _tried(rows: FromClause) -> ColumnElement[bool]:
    """Whether a row that is not done is still tried."""
    return or_(rows.c.error.is_(None), rows.c.error != PARKED)


def _behind(at: int) -> Exists:
    """Whether an earlier row of the same lane is tried, or is being called for, at an instant in UTC milliseconds."""
    one = OUTBOX.alias("earlier")
    return (
        select(one.c.key)
        .where(one.c.closure == OUTBOX.c.closure, one.c.lane == OUTBOX.c.lane, one.c.turn < OUTBOX.c.turn)
        .where(or_(and_(one.c.done.is_(None), _tried(one)), one.c.claimed > at))
        .exists()
    )


def _after(at: int) -> Exists:
    """Whether a row that a row names as one before it is tried, or is being called for, at an instant."""
    one = OUTBOX.alias("former")
    return (
        select(one.c.key)
        .where(one.c.kind == OUTBOX.c.kind, one.c.lane == OUTBOX.c.lane, one.c.key != OUTBOX.c.key)
        .where(or_(and_(one.c.done.is_(None), _tried(one)), one.c.claimed > at))
        .where(OUTBOX.c.body.contains(one.c.key))
        .exists()
    )


def _broke(error: Exception) -> str:
    """Which error and where it arose: a connector's own words may quote whom it is about."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{BROKE}{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"


def _row(one: Any) -> Row:  # Any: a row of SQLAlchemy's
    asked = one.tries > 0 or one.claimed is not None
    return Row(one.key, one.closure, one.kind, json.loads(one.body), one.tries, one.sealed, one.turn, asked)

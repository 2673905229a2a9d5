"""Closures, and the one way to change one: a compare-and-swap with its event, clocks, money and outbox in one breath.

A *move* names the version it read. Whoever comes second gets `Overtaken` and reads again; nothing of theirs stays.
Every event carries the hash of the one before it, so that a history cannot be shortened or edited unseen.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, and_, delete, func, insert, or_, select, update

from fangxin.data.closures import undone
from fangxin.data.closures.engine import Taken, connect, migrate, reading, settle, shared_of, together, writing
from fangxin.data.closures.round import MOST, Round
from fangxin.data.closures.schema import CLOCK, CLOSURE, EVENT, OUTBOX, POSTING, REPLAY, TIMER, WATCH
from fangxin.data.errors import DoesNotHold, InputError, NotAllowed

Facts = Mapping[str, Any]  # Any: JSON values


_ENDED = ("closed", "cancelled", "rejected", "expired", "restored")


class Overtaken(NotAllowed):
    """Somebody moved the closure meanwhile; read it again."""


class AlreadyLive(NotAllowed):
    """The account has a live closure; `closure` is its id."""

    def __init__(self, closure: str) -> None:
        self.closure = closure
        super().__init__("a closure of this account is live", hint="its receipt page shows how it stands")


class Replayed(NotAllowed):
    """The idempotency key stood under the same body before; `closure` is what answered then."""

    def __init__(self, closure: str) -> None:
        self.closure = closure
        super().__init__("this was asked before under the same idempotency key")


@dataclass(frozen=True)
class Closure:
    """One closure as it is stored; `sealed` opens under the key of `ref` only."""

    id: str
    receipt: str
    live: bool
    state: str
    version: int
    facts: Facts
    digests: Facts
    ref: bytes = field(repr=False)
    sealed: bytes | None = field(repr=False)
    opened: datetime


@dataclass(frozen=True)
class Told:
    """An event to be written: who, what, and codes or digests about it."""

    actor: str
    type: str
    body: Facts = field(default_factory=dict)


@dataclass(frozen=True)
class Timer:
    """When something is looked at again, why it waits (a code), and when it ends at the latest."""

    kind: str
    due: datetime
    reason: str
    latest: datetime


@dataclass(frozen=True)
class Message:
    """A row for the outbox; the key makes it act once at the far side.

    `lane`: rows of a closure in one lane go in the order of its moves. `instead`: keys of rows whose place it takes, as
    far as nobody took them yet.
    """

    key: str
    kind: str
    body: Facts
    due: datetime
    sealed: bytes | None = field(default=None, repr=False)
    lane: str | None = None
    instead: tuple[str, ...] = ()


@dataclass(frozen=True)
class Change:
    """What a move writes. `clocks`: rows by name; `timers` replace all timers of the closure."""

    state: str
    facts: Facts
    told: Told
    live: bool = True
    clocks: Mapping[str, Facts] = field(default_factory=dict)
    timers: Sequence[Timer] = ()
    messages: Sequence[Message] = ()
    postings: Sequence[tuple[str, str, str, int]] = ()  # entry, account, currency, minor units
    sealed: bytes | None = field(default=None, repr=False)  # what is sealed from now on; None: as it was
    forget: bool = False  # empty what is sealed, and the account's digest
    give_back: bool = False  # the closing does not happen: what was not paid goes back (undone.py)
    watched: tuple[str, Sequence[bytes]] | None = field(default=None, repr=False)  # epoch and tokens from now on


def stamp(moment: datetime) -> int:
    """An instant as UTC milliseconds."""
    if moment.tzinfo is None:
        raise InputError("an instant has a zone; found one without")
    return int(moment.timestamp() * 1000)


def instant(milliseconds: int) -> datetime:
    """UTC milliseconds as an instant."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


class Closures:
    """The store of closures at a URL; opening it brings its tables to the newest form."""

    def __init__(self, url: str) -> None:
        self.engine: Engine = connect(url)
        migrate(self.engine)

    # ------------------------------------------------------------ opening and moving

    def open(
        self,
        closure: str,
        *,
        receipt: str,
        account: str,
        ref: bytes,
        digests: Facts,
        change: Change,
        now: datetime,
        sealed: bytes | None = None,
        replay: tuple[str, str] | None = None,
    ) -> Closure:
        """Take in a closure; AlreadyLive, with its id, where the account has one.

        `replay`: digests of an idempotency key and of the body under it; they are written in the same breath, and
        `replayed` finds them again.
        """
        row = {
            "id": closure,
            "receipt": receipt,
            "account": account,
            "live": 1,
            "state": change.state,
            "version": 0,
            "facts": _json(change.facts),
            "digests": _json(digests),
            "ref": ref,
            "sealed": sealed,
            "opened": stamp(now),
        }
        try:
            with writing(self.engine) as db:
                db.execute(insert(CLOSURE), row)
                _write(db, closure, change, now)
                if replay is not None:
                    db.execute(insert(REPLAY), {"key": replay[0], "body": replay[1], "closure": closure})
        except Taken:
            if replay is not None:
                self.replayed(*replay)  # somebody was faster with the same key
            with reading(self.engine) as db:
                live = select(CLOSURE.c.id).where(CLOSURE.c.account == account, CLOSURE.c.live == 1)
                there = db.execute(live).scalar()
            if there is None:
                raise InputError("a receipt or an id stands twice; draw another") from None
            raise AlreadyLive(there) from None
        return self.get(closure)

    def replayed(self, key: str, body: str) -> None:
        """Raise Replayed where this key stood under this body before, NotAllowed where it stood under another."""
        with reading(self.engine) as db:
            found = db.execute(select(REPLAY).where(REPLAY.c.key == key)).one_or_none()
        if found is None:
            return
        if not found.body:
            raise NotAllowed("this idempotency key stood under a request that is over", hint="draw a new key")
        if not hmac.compare_digest(found.body, body):
            raise NotAllowed("this idempotency key stood under another request", hint="draw a new key for a new one")
        raise Replayed(found.closure)

    def move(self, closure: str, version: int, change: Change, now: datetime) -> Closure:
        """Write a move over the version that was read; Overtaken where it is another by now."""
        values: dict[str, Any] = {
            "state": change.state,
            "version": version + 1,
            "facts": _json(change.facts),
            "live": int(change.live),
        }
        if change.sealed is not None:
            values["sealed"] = change.sealed
        if change.forget:
            values |= {"sealed": None, "account": None}
        if (round_ := self._round()) is not None:
            if not change.give_back:
                return self._in(round_, closure, version, change, values, now)
            round_.flush()
            round_.drop(closure)
        try:
            with writing(self.engine) as db:
                swap = update(CLOSURE).where(CLOSURE.c.id == closure, CLOSURE.c.version == version).values(**values)
                if db.execute(swap).rowcount != 1:
                    raise Overtaken(f"closure {closure} was moved by somebody else", hint="read it again")
                if change.forget:  # a digest of who asked would tell a later stranger that it was they
                    db.execute(update(REPLAY).where(REPLAY.c.closure == closure).values(body=""))
                _write(db, closure, change, now)
                if change.give_back:
                    undone.give_back(db, closure, stamp(now))
                    undone.lapse(db, closure)
        except Taken:
            raise Overtaken(f"closure {closure}: this was written before", hint="read it again") from None
        if change.forget:
            settle(self.engine)
        return self.get(closure)

    @contextmanager
    def together(self, ids: Sequence[str] = ()) -> Iterator[None]:
        """One transaction for all moves of this thread inside (engine.py); `ids` are read for it at once."""
        with together(self.engine):
            if ids and (round_ := self._round()) is not None:
                round_.load(ids, _closure)
            yield

    def _round(self) -> Round | None:
        shared = shared_of(self.engine)
        if shared is None:
            return None
        if shared.kept_back is None:
            shared.kept_back = Round(shared.connection)
        found: Round = shared.kept_back
        return found

    def _in(self, round_: Round, closure: str, version: int, change: Change, values: Facts, now: datetime) -> Closure:
        """A move inside a round: checked here as the database would check it, written with the others."""
        round_.load([closure], _closure)
        known = round_.closures.get(closure)
        if known is None or known.version != version:
            raise Overtaken(f"closure {closure} was moved by somebody else", hint="read it again")
        rows = rows_of(closure, change, now, round_.heads.get(closure, (-1, "", 0))[:2])
        if round_.taken(rows["messages"], rows["postings"]):
            raise Overtaken(f"closure {closure}: this was written before", hint="read it again")
        if change.forget:
            settle(self.engine)  # once all of it is written
        moved: Closure = round_.take(closure, values, rows, forget=change.forget)
        return moved

    # ------------------------------------------------------------ reading

    def get(self, closure: str) -> Closure:
        """The closure of that id; InputError if there is none."""
        return self._one(CLOSURE.c.id == closure, f"no closure {closure}")

    def by_receipt(self, receipt: str) -> Closure:
        """The closure whose receipt code has this SHA-256; InputError, in the same words, for any stranger's."""
        return self._one(CLOSURE.c.receipt == receipt, "nothing is found under this code")

    def many(self, ids: Sequence[str]) -> list[Closure]:
        """The closures of these ids, in their order; InputError if there is none of one."""
        found: dict[str, Closure] = {}
        with reading(self.engine) as db:
            for first in range(0, len(ids), MOST):
                some = select(CLOSURE).where(CLOSURE.c.id.in_(ids[first : first + MOST]))
                found |= {row.id: _closure(row) for row in db.execute(some)}
        for one in ids:
            if one not in found:
                raise InputError(f"no closure {one}")
        return [found[one] for one in ids]

    def those(self, *states: str, due: tuple[str, datetime] | None = None) -> list[Closure]:
        """The closures in these states, oldest first; `due`: those with such a timer that is due at an instant."""
        wanted = select(CLOSURE).where(CLOSURE.c.state.in_(states)).order_by(CLOSURE.c.opened, CLOSURE.c.id)
        if due is not None:
            kind, now = due
            timers = select(TIMER.c.closure).where(TIMER.c.kind == kind, TIMER.c.due <= stamp(now))
            wanted = wanted.where(CLOSURE.c.id.in_(timers))
        with reading(self.engine) as db:
            return [_closure(row) for row in db.execute(wanted)]

    def in_state(self, *states: str, remembered: bool = False) -> tuple[str, ...]:
        """Ids of the closures in these states, oldest first; `remembered`: those of which something is still sealed."""
        wanted = select(CLOSURE.c.id).where(CLOSURE.c.state.in_(states)).order_by(CLOSURE.c.opened, CLOSURE.c.id)
        if remembered:
            wanted = wanted.where(CLOSURE.c.sealed.is_not(None))
        with reading(self.engine) as db:
            return tuple(db.execute(wanted).scalars())

    def due(self, now: datetime) -> tuple[tuple[str, str], ...]:
        """(closure, kind) of every timer that is due, the longest overdue first."""
        wanted = select(TIMER.c.closure, TIMER.c.kind).where(TIMER.c.due <= stamp(now)).order_by(TIMER.c.due)
        with reading(self.engine) as db:
            return tuple((c, k) for c, k in db.execute(wanted))

    def timers(self, closure: str) -> dict[str, datetime]:
        """When a closure is looked at again, by what for."""
        wanted = select(TIMER.c.kind, TIMER.c.due).where(TIMER.c.closure == closure)
        with reading(self.engine) as db:
            return {kind: instant(due) for kind, due in db.execute(wanted)}

    def clocks(self, closure: str) -> dict[str, dict[str, Any]]:
        """The clocks of a closure by name, as they were written."""
        if (round_ := self._round()) is not None and closure in round_.clocks:
            return dict(round_.clocks[closure])
        wanted = select(CLOCK).where(CLOCK.c.closure == closure).order_by(CLOCK.c.started, CLOCK.c.name)
        with reading(self.engine) as db:
            return {r.name: {**r._mapping, "told": json.loads(r.told)} for r in db.execute(wanted)}

    def exporting(self) -> tuple[str, ...]:
        """Ids of the closures whose export lies in a folder still."""
        wanted = select(CLOSURE.c.id).where(CLOSURE.c.facts.contains('"folder":"/')).order_by(CLOSURE.c.id)
        with reading(self.engine) as db:
            return tuple(db.execute(wanted).scalars())

    def account(self, closure: str) -> str | None:
        """The keyed digest of a closure's account; None once it is emptied."""
        with reading(self.engine) as db:
            found: str | None = db.execute(select(CLOSURE.c.account).where(CLOSURE.c.id == closure)).scalar()
        return found

    def last(self, closure: str) -> datetime:
        """When the last event of a closure was written."""
        if (round_ := self._round()) is not None and closure in round_.heads:
            return instant(round_.heads[closure][2])
        with reading(self.engine) as db:
            return instant(db.execute(select(func.max(EVENT.c.time)).where(EVENT.c.closure == closure)).scalar_one())

    def alarmed(self, closure: str) -> dict[str, int]:
        """The highest alarm of each clock of a closure that was raised, in per cent."""
        if (round_ := self._round()) is not None and closure in round_.clocks:
            return {name: one["alarmed"] for name, one in round_.clocks[closure].items()}
        wanted = select(CLOCK.c.name, CLOCK.c.alarmed).where(CLOCK.c.closure == closure)
        with reading(self.engine) as db:
            return {name: alarmed for name, alarmed in db.execute(wanted)}

    def pressing(self, now: datetime, alarms: Sequence[int]) -> tuple[str, ...]:
        """Ids of the closures with a running clock that has one of these alarms to raise (in per cent), or may move."""
        used = 100 * (stamp(now) - CLOCK.c.started)  # an upper bound: spans in which it stood still are told apart
        span = CLOCK.c.deadline - CLOCK.c.started
        due = or_(*(and_(CLOCK.c.alarmed < level, used >= level * span) for level in alarms))
        asked = or_(due, CLOCK.c.told.contains('"provisional":true'))
        wanted = select(CLOCK.c.closure).where(CLOCK.c.met.is_(None), asked).distinct().order_by(CLOCK.c.closure)
        with reading(self.engine) as db:
            return tuple(db.execute(wanted).scalars())

    def every_clock(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (closure, clock) of all closures, as they were written; a thousand rows in memory at a time."""
        with reading(self.engine) as db:
            rows = db.execution_options(yield_per=1000).execute(select(CLOCK).order_by(CLOCK.c.closure, CLOCK.c.name))
            for row in rows:
                yield row.closure, {**row._mapping, "told": json.loads(row.told)}

    def bodies(self) -> list[dict[str, Any]]:
        """The bodies of events in which something is told to the ledger, of closures under way, oldest first."""
        wanted = (
            select(EVENT.c.body)
            .join(CLOSURE, CLOSURE.c.id == EVENT.c.closure)
            .where(CLOSURE.c.sealed.is_not(None), CLOSURE.c.state.not_in(_ENDED), EVENT.c.body.contains('"entries":[{'))
            .order_by(EVENT.c.time, EVENT.c.closure, EVENT.c.seq)
        )
        with reading(self.engine) as db:
            return [json.loads(body) for body in db.execute(wanted).scalars()]

    def first(self, closure: str, kind: str) -> datetime | None:
        """When an event of this type was first written; None where none was."""
        wanted = select(func.min(EVENT.c.time)).where(EVENT.c.closure == closure, EVENT.c.type == kind)
        with reading(self.engine) as db:
            found = db.execute(wanted).scalar()
        return None if found is None else instant(found)

    def posted(self, entry: str) -> bool:
        """Whether a double entry of this name stands in the books."""
        with reading(self.engine) as db:
            return db.execute(select(POSTING.c.entry).where(POSTING.c.entry == entry).limit(1)).scalar() is not None

    def events(self, closure: str) -> list[dict[str, Any]]:
        """The history of a closure; DoesNotHold where a hash does not follow from the one before it."""
        with reading(self.engine) as db:
            rows = db.execute(select(EVENT).where(EVENT.c.closure == closure).order_by(EVENT.c.seq)).all()
        previous = ""
        for number, row in enumerate(rows):
            expected = _hash(closure, number, row.time, row.actor, row.type, row.body, previous)
            if (row.seq, row.previous, row.hash) != (number, previous, expected):
                raise DoesNotHold(f"closure {closure}: its history breaks at event {number}")
            previous = row.hash
        return [{**row._mapping, "body": json.loads(row.body)} for row in rows]

    def watched(self) -> dict[str, list[tuple[str, bytes]]]:
        """By epoch whom its tokens belong to: (closure, token). Some 200 bytes of memory a token."""
        found: dict[str, list[tuple[str, bytes]]] = {}
        with reading(self.engine) as db:
            for row in db.execute(select(WATCH)):
                found.setdefault(row.epoch, []).append((row.closure, bytes(row.token)))
        return found

    def books(self, closure: str | None = None) -> dict[str, dict[str, int]]:
        """Sums of minor units by currency and account, of one closure or all; each currency sums to zero."""
        total = func.sum(POSTING.c.minor)
        wanted = select(POSTING.c.currency, POSTING.c.account, total).group_by(POSTING.c.currency, POSTING.c.account)
        if closure is not None:
            wanted = wanted.where(POSTING.c.closure == closure)
        found: dict[str, dict[str, int]] = {}
        with reading(self.engine) as db:
            for currency, account, minor in db.execute(wanted):
                found.setdefault(currency, {})[account] = int(minor)
        return found

    def _one(self, condition: Any, otherwise: str) -> Closure:  # Any: a SQL condition
        with reading(self.engine) as db:
            row = db.execute(select(CLOSURE).where(condition)).one_or_none()
        if row is None:
            raise InputError(otherwise)
        return _closure(row)


def _closure(row: Any) -> Closure:  # Any: a row of SQLAlchemy's
    return Closure(
        row.id,
        row.receipt,
        bool(row.live),
        row.state,
        row.version,
        json.loads(row.facts),
        json.loads(row.digests),
        bytes(row.ref),
        None if row.sealed is None else bytes(row.sealed),
        instant(row.opened),
    )


def _write(db: Connection, closure: str, change: Change, now: datetime) -> None:
    """The event, and everything that goes with it, inside the transaction of the move."""
    last = db.execute(
        select(EVENT.c.seq, EVENT.c.hash).where(EVENT.c.closure == closure).order_by(EVENT.c.seq.desc()).limit(1)
    ).one_or_none()
    rows = rows_of(closure, change, now, (-1, "") if last is None else (last.seq, last.hash))
    db.execute(insert(EVENT), rows["event"])
    for row in rows["clocks"]:
        values = {k: v for k, v in row.items() if k not in ("closure", "name")}
        mine = (CLOCK.c.closure == closure, CLOCK.c.name == row["name"])
        if not db.execute(update(CLOCK).where(*mine).values(**values)).rowcount:
            db.execute(insert(CLOCK), row)
    db.execute(delete(TIMER).where(TIMER.c.closure == closure))
    if rows["watched"] is not None:
        db.execute(delete(WATCH).where(WATCH.c.closure == closure))
    for table, name in ((TIMER, "timers"), (WATCH, "watched"), (OUTBOX, "messages"), (POSTING, "postings")):
        if rows[name]:
            db.execute(insert(table), rows[name])
    undone.supersede(db, rows["superseded"])


def rows_of(closure: str, change: Change, now: datetime, head: tuple[int, str]) -> dict[str, Any]:
    """The rows of a move by what they are; `head`: number and hash of the event before it. Any: rows."""
    body, at, (last, previous) = _json(change.told.body), stamp(now), head
    event = {"closure": closure, "seq": last + 1, "time": at, "actor": change.told.actor, "type": change.told.type}
    event |= {"body": body, "previous": previous}
    event["hash"] = _hash(closure, last + 1, at, change.told.actor, change.told.type, body, previous)
    clocks = [
        {"closure": closure, "name": name, "told": _json(one["told"])}
        | {k: one[k] for k in ("started", "deadline", "met", "alarmed")}
        for name, one in change.clocks.items()
    ]
    timers = [
        {"closure": closure, "kind": t.kind, "due": stamp(t.due), "reason": t.reason, "latest": stamp(t.latest)}
        for t in change.timers
    ]
    watched = None
    if change.watched is not None:
        epoch, tokens = change.watched
        watched = [{"closure": closure, "token": token, "epoch": epoch} for token in tokens]
    messages = [
        {
            "key": message.key,
            "closure": closure,
            "kind": message.kind,
            "body": _json(message.body),
            "sealed": message.sealed,
            "due": stamp(message.due),
            "lane": message.lane,
            "turn": last + 1,
        }
        for message in change.messages
    ]
    superseded = [{"of": key, "at": at} for message in change.messages for key in message.instead]
    postings = [
        {"closure": closure, "entry": entry, "account": account, "currency": currency, "minor": minor}
        for entry, account, currency, minor in change.postings
    ]
    return {
        "event": event, "clocks": clocks, "timers": timers, "watched": watched, "messages": messages,
        "postings": postings, "superseded": superseded,
    }  # fmt: skip


def _json(value: Facts) -> str:
    return json.dumps(dict(value), sort_keys=True, separators=(",", ":"))


def _hash(closure: str, seq: int, at: int, actor: str, kind: str, body: str, previous: str) -> str:
    told = json.dumps([closure, seq, at, actor, kind, body, previous], separators=(",", ":"))
    return hashlib.sha256(told.encode()).hexdigest()

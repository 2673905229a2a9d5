"""The desk: a home's closings with everything that a decision about one needs, and the one way to move one.

A move is decided by the table (`lifecycle.py`), written as one compare-and-swap with its event, clocks, timers, money
and outbox rows (`data/closures/store.py`), and only then told to the ledger. What the ledger is to be told stands in
the event: after a crash `told` adds what is missing, by its tag, once. Moves of many closings are made `together`: one
transaction and one flush of the ledger, before anything that follows from them is done.

What is personal of a closing (identities, receipt code, where its seals are) is one sealed value under the closing's
own key in the vault; that key dies with the certificate.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

import fangxin.data
from fangxin.data.catalog.calendar import Calendar
from fangxin.data.catalog.clearance import Clearance
from fangxin.data.closures.outbox import Outbox, Unheard
from fangxin.data.closures.store import Change, Closure, Closures, Message, Timer, Told, instant, stamp
from fangxin.data.errors import FangxinError, InputError, NotAllowed
from fangxin.data.keys.domains import CONTACT
from fangxin.data.keys.envelope import open_blob, seal_blob
from fangxin.data.keys.faults import KeyAbsent
from fangxin.data.requests import REQUEST_DOMAIN
from fangxin.flows import consumers, payments
from fangxin.flows.clocks import Clock, Promise, Suspended, lawful, promised
from fangxin.flows.consumers import Consumer
from fangxin.flows.estate import Estate
from fangxin.flows.evidence import load_calendar, record
from fangxin.flows.holdings import Sources
from fangxin.flows.lifecycle import FINAL, Event, Export, Hold, Keys, Profile, Request, Settlement, State, step
from fangxin.flows.notices import template_of, written
from fangxin.flows.payments import Provider
from fangxin.flows.support import Support
from fangxin.reports.ledger.entries import encode, tag

_DATA = Path(fangxin.data.__file__ or "").parent
_OVER = FINAL | {State.CERTIFIED, State.RESTRICTED}  # no clock runs on from here
_LABEL = b"fangxin/closures/1"
AHEAD = timedelta(hours=24)  # so long before the end of regret people are located again
FORGET = "forget"  # the timer of what is still known of somebody whose closing is over
LONGEST = timedelta(days=30)  # after the end no address is kept longer, whether its last notice was taken or not
_PAIRS = ("identities", "facts", "channels", "instruments", "places")  # what is sealed in pairs of texts
UNPLANNED = timedelta(days=30)  # so long a request may wait for a plan
STALE = timedelta(days=15)  # what waits for an officer is looked at by then, at the latest
# Places of a closing's own entries, beside those of its request in a batch (flows/evidence.py).
SIGNED, SEALED, RESTORED, ENDED, REFUSED, WITHDRAWN, STALLED = 8, 9, 10, 11, 12, 13, 14
SETTLED, HELD, BROKEN, GROWN, DELAYED, BACK, LOCKED, WAIVED, KEPT, LAPSED, UNMADE, DECIDED = (
    2**n for n in range(33, 45)
)


@dataclass(frozen=True)
class Secret:
    """What is sealed of a closing. Identities and facts are (kind, value); cases are (name, ref, key domains)."""

    secret: bytes = field(repr=False)
    receipt: str = field(repr=False)
    restore: bytes = field(repr=False)  # the public key made from the restore code
    identities: tuple[tuple[str, str], ...] = field(repr=False)
    facts: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # everything the person was found by
    channels: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # (kind, address) of who hears of moves
    cases: tuple[tuple[bytes, bytes, tuple[int, ...]], ...] = field(default=(), repr=False)
    instruments: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # item, and the token to pay it back to
    places: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # item, and the row that it is

    def text(self) -> bytes:
        """As it is sealed."""
        cases = [[case.hex(), ref.hex(), codes] for case, ref, codes in self.cases]
        raw = {"secret": self.secret.hex(), "receipt": self.receipt, "restore": self.restore.hex(), "cases": cases}
        told = {name: getattr(self, name) for name in _PAIRS}
        return json.dumps({**raw, **told}).encode()

    @classmethod
    def parse(cls, text: bytes) -> Secret:
        """Read back what `text` wrote."""
        raw = json.loads(text)
        cases = tuple((bytes.fromhex(c), bytes.fromhex(r), tuple(d)) for c, r, d in raw["cases"])
        pairs = {name: tuple((k, v) for k, v in raw.get(name, ())) for name in _PAIRS}
        return cls(bytes.fromhex(raw["secret"]), raw["receipt"], bytes.fromhex(raw["restore"]), cases=cases, **pairs)


@dataclass(frozen=True)
class Desk:
    """The closings of an estate, under one promise, calendar, set of rules and mapping of what is held."""

    estate: Estate
    promise: Promise
    calendar: Calendar
    rules: Clearance
    sources: Sources
    support: Support
    provider: Provider | None = None  # who pays
    consumers: Mapping[str, Consumer] = field(default_factory=dict)  # who is told to stop, by name
    unusable: InputError | None = None  # what is wrong with others of `consumers.toml`: an approval is refused by it
    _later: list[list[Mapping[str, int | str]]] = field(default_factory=list, repr=False)  # told at the end, together
    _open: dict[tuple[bytes, bytes], Secret] = field(default_factory=dict, repr=False)  # while moves are made together
    _left: list[Unheard] = field(default_factory=list, repr=False)  # the same

    @cached_property
    def calendars(self) -> dict[str, Calendar]:
        """Every calendar that a clock of ours may count by, by name."""
        return {"cn": self.calendar, "uk": calendar_of(self.estate.settings.home, "uk")}

    @cached_property
    def closures(self) -> Closures:
        """The store of closings."""
        settings = self.estate.settings
        return Closures(settings.closures or f"sqlite:///{settings.home / 'closures.db'}")

    @cached_property
    def outbox(self) -> Outbox:
        """What has to happen at others'."""
        return Outbox(self.closures.engine)

    def unheard(self) -> Unheard:
        """What consumers did not hear yet; read once while moves are made together."""
        if not self._later:
            return self.outbox.unheard(consumers.KIND, self.now)
        if not self._left:
            self._left.append(self.outbox.unheard(consumers.KIND, self.now))
        return self._left[0]

    @property
    def now(self) -> datetime:
        """The time of this run, to the second: seals and clocks count in seconds."""
        return self.estate.now.replace(microsecond=0)

    def digests(self) -> dict[str, str]:
        """What a plan rests on besides the rows."""
        return {
            "catalog": self.estate.catalog.digest,
            "promise": self.promise.digest,
            "clearance": self.rules.digest,
            "holdings": self.sources.digest,
        }

    def opened(self, closure: Closure) -> Secret:
        """What is sealed of a closing; NotAllowed once it is forgotten.

        While moves are made together it is opened once, and forgotten at their end.
        """
        if closure.sealed is None:
            raise NotAllowed(f"closure {closure.id} is over: what was known of the person is forgotten")
        if not self._later:
            return self._unsealed(closure, closure.sealed)
        if (closure.ref, closure.sealed) not in self._open:
            self._open[closure.ref, closure.sealed] = self._unsealed(closure, closure.sealed)
        return self._open[closure.ref, closure.sealed]

    def _unsealed(self, closure: Closure, sealed: bytes) -> Secret:
        try:
            key = self.estate.tree.get(closure.ref, REQUEST_DOMAIN)
        except KeyAbsent:
            raise NotAllowed(f"closure {closure.id} is over: its key is destroyed") from None
        return Secret.parse(open_blob(key, sealed, _LABEL + closure.ref))

    def located(self, closure: Closure) -> Secret | None:
        """By what rows that a law or a hold keeps are found again; None where nothing of a closing is kept so."""
        found = closure.facts.get("kept")
        if not found:
            return None
        return self.opened(replace(closure, ref=bytes.fromhex(found["ref"]), sealed=bytes.fromhex(found["sealed"])))

    def sealed(self, ref: bytes, secret: Secret) -> bytes:
        """What is kept of a closing, under its own key."""
        return seal_blob(self.estate.tree.get(ref, REQUEST_DOMAIN), secret.text(), _LABEL + ref)

    # ------------------------------------------------------------ moving

    def take(self, closure: Closure, event: Event, now: datetime, *, by: str = "", **more: Any) -> Closure:
        """Make a move of the table at an instant; MoveRefused, and nothing changes, where the table says no.

        `more` are the fields of a Change, and: `entries` for the ledger (place, entry), `body` of the event, `facts`
        to be added, `clocks` to be written, `met` names of clocks that are kept now. Any: all of these.
        """
        request, move = step(request_of(closure), event, now)
        return self.write(closure, request, move.event, now, by=by or event.actor.value, **more)

    def write(
        self,
        closure: Closure,
        request: Request,
        name: str,
        now: datetime,
        *,
        by: str,
        entries: Sequence[tuple[int, Mapping[str, int | str]]] = (),
        body: Mapping[str, Any] | None = None,
        facts: Mapping[str, Any] | None = None,
        clocks: Sequence[Clock] = (),
        met: Sequence[str] = (),
        messages: Sequence[Message] = (),
        postings: Sequence[tuple[str, str, str, int]] = (),
        sealed: bytes | None = None,
        secret: bytes | None = None,
        forget: bool = False,
        give_back: bool = False,
        watched: tuple[str, Sequence[bytes]] | None = None,
        untold: bool = False,
    ) -> Closure:
        """Write a closing as it is now over the version that was read, then tell the ledger.

        NotAllowed where the clock of this run stands before the last event: it was set back.
        """
        last = self.closures.last(closure.id)
        if self.now < last.replace(microsecond=0):
            raise NotAllowed(
                f"the clock was set back: the last event of {closure.id} is of {last:%Y-%m-%dT%H:%M:%SZ}",
                hint="set the clock right; no deadline moves by it",
            )
        running = {**self.clocks(closure), **{one.name: one for one in clocks}}
        if request.state in _OVER:
            met = [name for name, one in running.items() if one.met is None]
        running |= {name: running[name].done(now) for name in met if name in running}
        late = [n for n in met if n in running and running[n].broken(now)]
        told = {**(body or {}), "entries": self._tagged(closure, [*entries, *breaches(late)], secret)}
        known = {**closure.facts, **(facts or {}), "machine": machine(request)}
        template = None if untold else template_of(name, request, body)
        if template == "delayed":  # told once a round: each night that it is tried again in vain says nothing new
            template = None if closure.facts.get("delay_told") == request.round else template
            known["delay_told"] = request.round
        change = Change(
            state=request.state.value,
            facts=known,
            told=Told(by, name, told),
            live=closure.live and request.state not in _OVER and not forget,
            clocks={n: _row(c, now) for n, c in running.items() if n in met or n in {one.name for one in clocks}},
            timers=[
                *self.timers(request, running, known, now),
                *self._last(closure, request, known, now, forget=forget),
            ],
            messages=[*messages, *(self._notices(closure, template, request.version, now) if template else ())],
            postings=postings,
            sealed=sealed,
            forget=forget,
            give_back=give_back,
            watched=watched,
        )
        moved = self.closures.move(closure.id, closure.version, change, now)
        self._tell(told["entries"])
        return moved

    def load_calendars(self) -> None:
        """Log the calendars' digests before the first date that is counted by them."""
        for name, calendar in sorted(self.calendars.items()):
            load_calendar(self.estate, f"{name}-{max(calendar.notices)}", calendar.digest)

    @contextmanager
    def together(self, closures: Sequence[Closure] = ()) -> Iterator[None]:
        """Write every move made inside in one transaction, then tell the ledger of all of them in one flush.

        Also where one of them was refused: the others stay. After a kill before its end none of them was made, after
        one behind it the next run tells the ledger. No store is read in here, and nobody is called: others wait.
        `closures` are those that will be moved, as far as they are known: they are read again at once.
        """
        if self._later:  # inside another
            yield
            return
        due: list[Mapping[str, int | str]] = []
        self._later.append(due)
        try:
            with self.closures.together([one.id for one in closures]):
                yield
        except FangxinError:
            self._later.clear()
            self._tell(due)
            raise
        finally:
            self._later.clear()
            self._open.clear()
            self._left.clear()
        self._tell(due)

    def _tell(self, entries: Sequence[Mapping[str, int | str]]) -> None:
        if self._later:
            self._later[-1].extend(entries)
        elif entries:
            record(self.estate, entries)

    def all_told(self) -> None:
        """Tell the ledger what a crash left untold of any live closing."""
        due = [entry for body in self.closures.bodies() for entry in body["entries"]]
        if due:
            record(self.estate, due)

    def told(self, closure: Closure) -> None:
        """Tell the ledger what it does not know yet of a closing."""
        due = [entry for event in self.closures.events(closure.id) for entry in event["body"].get("entries", ())]
        self._tell(due)

    def notices(
        self, closure_id: str, ref: bytes, channels: Sequence[tuple[str, str]], template: str, locale: str, version: int
    ) -> list[Message]:
        """The rows that tell the person of something by each of their channels."""
        if not channels:
            return []
        key = self.estate.tree.get(ref, CONTACT)
        return written(closure_id, ref, channels, template, locale, version=version, key=key, now=self.now)

    def _notices(self, closure: Closure, template: str, version: int, now: datetime) -> list[Message]:
        if not closure.facts.get("channels") or closure.sealed is None:
            return []
        channels, locale = self.opened(closure).channels, closure.facts.get("locale", "zh")
        return self.notices(closure.id, closure.ref, channels, template, locale, version)

    def _last(
        self, closure: Closure, request: Request, facts: Mapping[str, Any], now: datetime, *, forget: bool
    ) -> list[Timer]:
        """Of a closing that is over: what is still known of the person is destroyed when the last notice is out."""
        forgotten = forget or closure.sealed is None
        if not (forgotten or request.state in FINAL) or (forgotten and not facts.get("channels")):
            return []
        return [Timer(FORGET, now, "last_notice", now + LONGEST)]

    def clocks(self, closure: Closure) -> dict[str, Clock]:
        """The clocks of a closing by name."""
        return {name: clock_of(name, row) for name, row in self.closures.clocks(closure.id).items()}

    def timers(
        self, request: Request, clocks: Mapping[str, Clock], facts: Mapping[str, Any], now: datetime
    ) -> list[Timer]:
        """When run-due looks at a closing again, and why it waits; every wait has a latest date."""
        entered = request.entered or now
        if request.state is State.PREFLIGHT and "review" in clocks:
            first = self.calendar.deadline(clocks["review"].started, 1).moment
            return [Timer("plan", max(first, now), "unplanned", entered + UNPLANNED)]
        if request.state is State.REVIEW and "review" in clocks:
            latest = clocks["review"].deadline
            early = self.calendar.deadline(clocks["review"].started, 2).moment
            due = latest if request.high_risk else min(early, latest)
            return [Timer("review", due, "two_officers" if request.high_risk else "review", latest)]
        if request.state is State.SEALING:
            latest = entered + timedelta(hours=self.promise.spans["start"].amount)
            due = self.promise.seal_from(entered)
            if request.automatic and self.promise.seals_now(entered):
                due = entered  # the run that approved it seals it: the next night's might come a minute too late
            return [Timer("seal", due, "next_seal", latest)]
        if request.state is State.COOLING and request.regret_ends is not None:
            due = min(request.regret_ends, request.waived_from or request.regret_ends)
            ahead = max(request.regret_ends - AHEAD, entered)
            looks = [Timer("ahead", ahead, "ahead", request.regret_ends)] if "ahead" not in facts else []
            return [Timer("regret", due, "regret", request.regret_ends), *looks]
        if request.state in (State.CERTIFIED, State.RESTRICTED):
            return _afterwards(facts)
        if request.state is State.READY:
            return [Timer("erase", now, "hold" if request.hold is Hold.ALL else "erase", now + STALE)]
        return []

    def _tagged(
        self, closure: Closure, entries: Sequence[tuple[int, Mapping[str, int | str]]], secret: bytes | None
    ) -> list[dict[str, int | str]]:
        if not entries:
            return []
        key = secret or self.opened(closure).secret
        tagged = [{**entry, "tag": tag(key, place)} for place, entry in entries]
        for one in tagged:  # what the ledger would refuse must not happen here first
            encode({**one, "time": self.estate.minute})
        return tagged


def _afterwards(facts: Mapping[str, Any]) -> list[Timer]:
    """Looks for data that comes back, and the day on which the next of what is kept goes."""
    found = []
    if watch := facts.get("watch"):
        due, until = datetime.fromisoformat(watch["next"]), datetime.fromisoformat(watch["until"])
        found.append(Timer("watch", due, "watch", until))
    if (kept := facts.get("kept")) and kept["next"]:
        due = datetime.fromisoformat(kept["next"])
        found.append(Timer("kept", due, "law", due + STALE))
    reviews = [one["review"] for one in facts.get("holds", ()) if one["lifted"] is None]
    if reviews:
        due = datetime.fromisoformat(min(reviews))
        found.append(Timer("hold", due, "hold", due + STALE))
    return found


def breaches(names: Iterable[str]) -> list[tuple[int, dict[str, int | str]]]:
    """What the ledger is told of broken clocks, each at a place of its own, so that it stands there once."""
    places = {name: BROKEN + int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") for name in names}
    return [
        (place, {"type": "exception", "code": f"breach/{name}"[:64], "role": "system"})
        for name, place in sorted(places.items())
    ]


def calendar_of(home: Path, name: str) -> Calendar:
    """A calendar that ships; a file of the same name in `home/calendars` takes its place, and adds years."""
    return Calendar.load(_DATA / "calendars", name, newer=home / "calendars")


@contextmanager
def at_desk(estate: Estate) -> Iterator[Desk]:
    """A desk with LeCard's promise, calendar and rules; a home's own files of the same names come first.

    `home/promise.toml`, `clearance.yaml`, `holdings.toml` and `support.toml` take the place of those that ship, and so
    do notices of a calendar in `home/calendars`. Without `home/payments.toml` nobody pays, and what is owed waits;
    without `home/consumers.toml` no consumer is told. What is wrong with it stops approvals, nothing else.
    """
    home = estate.settings.home

    def one(name: str, shipped: Path) -> Path:
        return home / name if (home / name).is_file() else shipped

    desk = Desk(
        estate,
        Promise.load(one("promise.toml", _DATA / "promises" / "lecard.toml")),
        calendar_of(home, "cn"),
        Clearance.load(one("clearance.yaml", _DATA / "clearance" / "lecard.yaml")),
        Sources.load(one("holdings.toml", _DATA / "holdings" / "lecard.toml")),
        Support.load(one("support.toml", _DATA / "support" / "lecard.toml")),
        payments.load(home / "payments.toml", rehearsal=estate.settings.rehearsal),
        *consumers.usable(home / "consumers.toml", rehearsal=estate.settings.rehearsal),
    )
    try:
        yield desk
    finally:
        desk.closures.engine.dispose()


# ---------------------------------------------------------------- values and rows

_TIMES = ("entered", "regret_ends", "waived_from")
_ENUMS: Mapping[str, type[StrEnum]] = {
    "state": State,
    "profile": Profile,
    "keys": Keys,
    "settlement": Settlement,
    "export": Export,
    "hold": Hold,
}


def machine(request: Request) -> dict[str, Any]:
    """A request of the table as JSON; its id and version are the row's."""
    raw = {one.name: getattr(request, one.name) for one in fields(request) if one.name not in ("id", "version")}
    raw |= {name: raw[name].isoformat() if raw[name] else None for name in _TIMES}
    return {**raw, "approvals": sorted(raw["approvals"])}


def request_of(closure: Closure) -> Request:
    """The request of the table as it is stored."""
    raw: dict[str, Any] = dict(closure.facts["machine"])
    raw |= {name: datetime.fromisoformat(raw[name]) if raw[name] else None for name in _TIMES}
    raw |= {name: kind(raw[name]) for name, kind in _ENUMS.items()}
    return Request(id=closure.id, version=closure.version, **{**raw, "approvals": frozenset(raw["approvals"])})


def lawful_clocks(desk: Desk, closure: Closure) -> list[Clock]:
    """The clocks of the laws that were declared for a closing, from receipt; a list of the state's counts as fetched.

    What only asks for a confirmation is kept by the receipt code, which was shown when it was opened.
    """
    received = datetime.fromisoformat(closure.facts["received"]) if "received" in closure.facts else closure.opened
    found: list[Clock] = []
    for name in closure.facts.get("laws", ()):
        law = desk.estate.laws.law(name)
        for event in ("request.opened", "drop.fetched"):
            found += lawful(law, event, received, desk.calendars)
    return [one.done(closure.opened) if one.ends == "confirmed" else one for one in found]


def clock(desk: Desk, name: str, started: datetime) -> Clock:
    """A clock of the promise, from its starting event."""
    return promised(name, desk.promise, started, desk.calendar)


def _row(one: Clock, now: datetime) -> dict[str, Any]:
    told = {
        "zone": one.zone,
        "source": one.source,
        "calendar": one.calendar,
        "provisional": one.provisional,
        "draft": one.draft,
        "suspended": [[s.reason, stamp(s.since), stamp(s.until) if s.until else None] for s in one.suspended],
        "days": one.days,
        "first": stamp(one.first) if one.first else None,
        "extended": one.extended,
        "by": one.by,
        "ends": one.ends,
    }
    met = stamp(one.met) if one.met else None
    return {
        "started": stamp(one.started),
        "deadline": stamp(one.deadline),
        "met": met,
        "alarmed": one.alarm(now) or 0,
        "told": told,
    }


def clock_of(name: str, row: Mapping[str, Any]) -> Clock:  # Any: a row
    """A clock as it is stored."""
    told = row["told"]
    spans = tuple(Suspended(r, instant(s), instant(u) if u else None) for r, s, u in told["suspended"])
    met = instant(row["met"]) if row["met"] is not None else None
    rest = {k: told[k] for k in ("zone", "source", "calendar", "provisional", "draft")}
    rest |= {k: told[k] for k in ("days", "extended", "by", "ends") if k in told}  # rows of earlier versions have none
    if told.get("first") is not None:
        rest["first"] = instant(told["first"])
    return Clock(name, instant(row["started"]), instant(row["deadline"]), met=met, suspended=spans, **rest)


def renamed(request: Request, **fields: Any) -> Request:  # Any: fields of a Request
    """A request with other fields and the next version: what is noted without a move of the table."""
    return replace(request, version=request.version + 1, **fields)

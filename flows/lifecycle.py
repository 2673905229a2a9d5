"""The lifecycle of a request, as a table of moves.

Pure: it takes a request, what happened, who says so and the time, and returns the next request. Deadlines come from
PIPL Art. 45-50, GDPR Art. 12 and 17, and the operator's promises (`promise.py`, `clocks.py`); the table says what may
happen in which state, who may do it, and what must be true.

* Until the point of no return everything can be undone; from it on there is only forward.
* Keys go only when regret is over or waived, only under an approved plan that is still fresh, and only with money
  settled or in escrow and no export half done.
* A request is certified only in the round in which a baseline found the person and a validation found nothing.
* High risk needs two different officers; nobody approves their own account; time alone never counts as success.
* Staff are needed for five causes only, each with a latest date: a high-risk review, a full hold, a plan that grew, an
  export that failed after the seal, an erasure that stalled. Nothing waits for the person for ever.

Five regions run in parallel: closure (`State`), settlement, export, hold, keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from fangxin.data.errors import NotAllowed

ROUNDS_OF_RESIDUE = 3  # validations that find something before an officer is called


class State(StrEnum):
    """Where the closure stands."""

    DRAFT = "draft"
    SUBMITTED = "submitted"
    PREFLIGHT = "preflight"
    REVIEW = "review"
    SEALING = "sealing"
    COOLING = "cooling"
    READY = "ready"
    DESTROYING = "destroying"
    OVERWRITING = "overwriting"
    VALIDATING = "validating"
    STALLED = "stalled"
    CERTIFIED = "certified"
    RESTRICTED = "restricted"
    CLOSED = "closed"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    EXPIRED = "expired"
    RESTORED = "restored"


class Settlement(StrEnum):
    """Money and entitlements."""

    NONE = "none"
    PENDING = "pending"
    SETTLED = "settled"
    FAILED = "failed"
    ESCROWED = "escrowed"


class Export(StrEnum):
    """The copy of their data that the person asked for."""

    NONE = "none"
    PREPARING = "preparing"
    READY = "ready"
    COLLECTED = "collected"
    FAILED = "failed"
    WAIVED = "waived"
    EXPIRED = "expired"


class Hold(StrEnum):
    """What a legal hold keeps from being erased."""

    NONE = "none"
    SOME = "some"
    ALL = "all"


class Keys(StrEnum):
    """The person's keys; `half`: one of the two shares of the seal is gone."""

    INTACT = "intact"
    SEALED = "sealed"
    HALF = "half"
    DESTROYED = "destroyed"


class Profile(StrEnum):
    """Whose word starts the erasure: the holder's own, a controller's or state's, the operator's."""

    HOLDER = "holder"
    PROCESSOR = "processor"
    OPERATOR = "operator"


class Actor(StrEnum):
    """Who moves a request. Support agents act for the holder where the table says so."""

    HOLDER = "holder"
    OFFICER = "officer"
    AGENT = "agent"
    SYSTEM = "system"


class Public(StrEnum):
    """What the person sees."""

    RECEIVED = "received"
    IN_REVIEW = "in review"
    APPROVED = "approved"
    SEALED = "sealed"
    ERASING = "erasing"
    CHECKING = "checking"
    FINISHED = "finished"
    FINISHED_KEPT = "finished with legally kept items"
    STOPPED = "stopped"


FINAL: Final = frozenset({State.CLOSED, State.CANCELLED, State.REJECTED, State.EXPIRED, State.RESTORED})
BEFORE_SEAL: Final = (State.DRAFT, State.SUBMITTED, State.PREFLIGHT, State.REVIEW)
REVERSIBLE: Final = (*BEFORE_SEAL, State.SEALING, State.COOLING, State.READY)
ERASING: Final = (State.DESTROYING, State.OVERWRITING, State.VALIDATING)
PUBLIC: Final[Mapping[State, Public]] = {
    State.DRAFT: Public.RECEIVED,
    State.SUBMITTED: Public.RECEIVED,
    State.PREFLIGHT: Public.RECEIVED,
    State.REVIEW: Public.IN_REVIEW,
    State.SEALING: Public.APPROVED,
    State.COOLING: Public.SEALED,
    State.READY: Public.SEALED,
    State.DESTROYING: Public.ERASING,
    State.OVERWRITING: Public.ERASING,
    State.STALLED: Public.ERASING,
    State.VALIDATING: Public.CHECKING,
    State.CERTIFIED: Public.FINISHED,
    State.CLOSED: Public.FINISHED,
    State.RESTRICTED: Public.FINISHED_KEPT,
    State.CANCELLED: Public.STOPPED,
    State.REJECTED: Public.STOPPED,
    State.EXPIRED: Public.STOPPED,
    State.RESTORED: Public.STOPPED,
}


@dataclass(frozen=True)
class Request:
    """One closure as far as moving it goes; identities, money and words lie elsewhere. Times are aware."""

    id: str
    state: State = State.DRAFT
    profile: Profile = Profile.HOLDER
    version: int = 0
    entered: datetime | None = None  # when the state was entered
    verified: bool = False
    high_risk: bool = False
    plan: str | None = None  # digest of what was shown, approved and will be carried out
    fresh: bool = False  # located again, and no more rows than the plan says
    approvals: frozenset[str] = frozenset()  # ids of the officers who signed the plan
    automatic: bool = False  # low risk, approved by the timer
    owner_officer: str | None = None  # the id of the officer whose own account this is
    regret_ends: datetime | None = None
    waived_from: datetime | None = None  # the notice of a waiver has run out from here on
    keys: Keys = Keys.INTACT
    settlement: Settlement = Settlement.NONE
    export: Export = Export.NONE
    hold: Hold = Hold.NONE
    round: int = 1
    baseline: int = 0  # the round in which a baseline with its positive control found the person
    certified: int = 0  # the round that the newest certificate tells of
    residue: int = 0  # validations of this round that found something
    kept: bool = False  # a law or a hold keeps something

    @property
    def public(self) -> Public:
        """What the person sees."""
        return PUBLIC[self.state]

    @property
    def approved(self) -> bool:
        """Whether as many officers as the risk asks for signed the plan, or the timer did for low risk."""
        if self.profile is not Profile.HOLDER:
            return self.plan is not None
        return len(self.approvals) >= (2 if self.high_risk else 1) or (self.automatic and not self.high_risk)


@dataclass(frozen=True)
class Event:
    """Something that happened: its name in the table, who says so, and what it brings. No identity travels here."""

    name: str
    actor: Actor = Actor.SYSTEM
    officers: tuple[str, ...] = ()  # ids of the officers who stand behind it
    plan: str | None = None
    high_risk: bool = False
    grown: bool = False
    kept: bool = False
    hold: Hold = Hold.NONE
    proof: str | None = None  # of a restore: "code", "passkey" or "officers"
    reason: str | None = None  # a code of our list, where the move wants one


@dataclass(frozen=True)
class Move:
    """A row of the table. `guards` name what must be true; `ledger` is the entry that tells of it, if one does."""

    event: str
    sources: tuple[State, ...]
    to: State | None  # None: the state stays
    actors: tuple[Actor, ...]
    guards: tuple[str, ...] = ()
    effect: Callable[[Request, Event, datetime], Request] = field(default=lambda r, _e, _n: r)
    ledger: str | None = None
    region: Settlement | Export | None = None  # where the settlement or the export must stand


class MoveRefused(NotAllowed):
    """The move is not allowed now; `reason` is the guard's name, and the request stays as it was."""

    def __init__(self, event: str, state: State, reason: str) -> None:
        self.event, self.state, self.reason = event, state, reason
        super().__init__(f"{event} is not allowed now: {GUARDS[reason][1] if reason in GUARDS else reason}")


# ---------------------------------------------------------------- what must be true

Guard = Callable[[Request, Event, datetime], bool]


def _regret_over(r: Request, _e: Event, now: datetime) -> bool:
    if r.profile is not Profile.HOLDER:
        return True
    ended = r.regret_ends is not None and now >= r.regret_ends
    return ended or (not r.high_risk and r.waived_from is not None and now >= r.waived_from)


GUARDS: Final[Mapping[str, tuple[Guard, str]]] = {
    "verified": (lambda r, _e, _n: r.verified, "the person's identity is not verified"),
    "baseline": (lambda r, _e, _n: r.baseline == r.round, "no baseline of this round found the person"),
    "same plan": (lambda r, e, _n: e.plan == r.plan, "the plan is not the one that stands"),
    "officer": (
        lambda r, e, _n: len(e.officers) == 1 and e.officers[0] not in r.approvals,
        "one officer approves once",
    ),
    "not their own": (lambda r, e, _n: r.owner_officer not in e.officers, "nobody decides on their own account"),
    "low risk": (lambda r, _e, _n: not r.high_risk, "high risk needs two officers, and cannot be waived"),
    "approved": (lambda r, _e, _n: r.approved, "the plan is not approved by as many officers as its risk asks for"),
    "reason": (lambda _r, e, _n: bool(e.reason), "a reason is missing"),
    "keys intact": (lambda r, _e, _n: r.keys is Keys.INTACT, "the keys are not where a seal takes them from"),
    "regret runs": (
        lambda r, _e, now: r.state is State.SEALING or (r.regret_ends is not None and now < r.regret_ends),
        "the days to change one's mind are over",
    ),
    "not begun": (lambda r, _e, _n: r.keys in (Keys.INTACT, Keys.SEALED), "keys are destroyed already"),
    "restore proof": (
        lambda _r, e, _n: (
            (e.actor is Actor.HOLDER and e.proof in ("code", "passkey"))
            or (e.actor is Actor.AGENT and e.proof == "officers" and len(set(e.officers)) >= 2)
        ),
        "a login alone never restores: the restore code, a passkey, or two officers do",
    ),
    "held whole": (lambda r, _e, _n: r.hold is Hold.ALL, "nothing keeps it from being erased"),
    "regret over": (_regret_over, "the days to change one's mind are not over"),
    "not held whole": (lambda r, _e, _n: r.hold is not Hold.ALL, "a legal hold keeps all of it"),
    "money": (
        lambda r, _e, _n: r.settlement in (Settlement.NONE, Settlement.SETTLED, Settlement.ESCROWED),
        "money is neither settled nor in escrow",
    ),
    "export": (
        lambda r, _e, _n: r.export not in (Export.PREPARING, Export.FAILED),
        "an export is half done",
    ),
    "fresh": (lambda r, _e, _n: r.fresh, "the plan must be located again, and a grown one approved again"),
    "tries left": (lambda r, _e, _n: r.residue + 1 < ROUNDS_OF_RESIDUE, "residue was found three times"),
    "no tries left": (lambda r, _e, _n: r.residue + 1 >= ROUNDS_OF_RESIDUE, "it is tried again first"),
    "keys gone": (lambda r, _e, _n: r.keys is Keys.DESTROYED, "keys are not destroyed"),
    "keys left": (lambda r, _e, _n: r.keys is not Keys.DESTROYED, "keys are destroyed already"),
    "half": (lambda r, _e, _n: r.keys is Keys.HALF, "the first share is destroyed first"),
    "nothing kept": (lambda r, e, _n: not (r.kept or e.kept) and r.hold is Hold.NONE, "something is kept"),
    "something kept": (lambda r, e, _n: r.kept or e.kept or r.hold is not Hold.NONE, "nothing is kept"),
    "two officers": (lambda _r, e, _n: len(set(e.officers)) >= 2, "two different officers are needed"),
    "regret in this profile": (lambda r, _e, _n: r.profile is Profile.HOLDER, "this profile knows no regret"),
    "no regret in this profile": (lambda r, _e, _n: r.profile is not Profile.HOLDER, "the holder has days of regret"),
}

# ---------------------------------------------------------------- what a move changes


def _planned(r: Request, e: Event, _now: datetime) -> Request:
    return replace(r, plan=e.plan, high_risk=e.high_risk, baseline=r.round, fresh=True)


def _signed(r: Request, e: Event, _now: datetime) -> Request:
    return replace(r, approvals=r.approvals | {*e.officers})


def _sealed(r: Request, _e: Event, now: datetime) -> Request:
    return replace(r, keys=Keys.SEALED, regret_ends=now + REGRET, fresh=False)


def _restored(r: Request, _e: Event, _now: datetime) -> Request:
    return replace(r, keys=Keys.INTACT)


def _relocated(r: Request, e: Event, _now: datetime) -> Request:
    if not e.grown:
        return replace(r, fresh=True)
    return replace(r, fresh=False, plan=e.plan, approvals=frozenset(), automatic=False)


def _grown_signed(r: Request, e: Event, now: datetime) -> Request:
    signed = _signed(r, e, now)
    return replace(signed, fresh=signed.approved)


def _again(r: Request, _e: Event, _now: datetime) -> Request:
    return replace(r, residue=r.residue + 1)


def _certified(r: Request, e: Event, _now: datetime) -> Request:
    return replace(r, certified=r.round, residue=0, kept=r.kept or e.kept)


def _returned(r: Request, _e: Event, _now: datetime) -> Request:
    return replace(r, round=r.round + 1, baseline=r.round + 1, residue=0)


def _came_due(r: Request, _e: Event, _now: datetime) -> Request:
    return replace(r, round=r.round + 1, baseline=r.round + 1, residue=0, keys=Keys.SEALED, kept=False)


REGRET: Final = timedelta(hours=7 * 24)
WAIVER_NOTICE: Final = timedelta(hours=24)
_H, _O, _A, _S = Actor.HOLDER, Actor.OFFICER, Actor.AGENT, Actor.SYSTEM
_HELD_OR_LIFTED = (*REVERSIBLE, State.RESTRICTED)

MOVES: Final[tuple[Move, ...]] = (
    # ---- before the seal: everything is the person's to end
    Move("submit", (State.DRAFT,), State.SUBMITTED, (_H,), ledger="request.opened"),
    Move("cancel", BEFORE_SEAL, State.CANCELLED, (_H,), ledger="request.withdrawn"),
    Move("expire", (State.DRAFT, State.SUBMITTED, State.PREFLIGHT), State.EXPIRED, (_S,), ledger="request.refused"),
    Move(
        "verify",
        (State.SUBMITTED,),
        State.PREFLIGHT,
        (_S,),
        effect=lambda r, _e, _n: replace(r, verified=True),
        ledger="request.verified",
    ),
    Move(
        "plan",
        (State.PREFLIGHT,),
        State.REVIEW,
        (_S,),
        ("verified", "regret in this profile"),
        _planned,
        ledger="located",
    ),
    Move(
        "plan", (State.PREFLIGHT,), State.READY, (_S,), ("verified", "no regret in this profile"), _planned, "located"
    ),
    Move("sign", (State.REVIEW,), None, (_O,), ("same plan", "officer", "not their own"), _signed),
    Move(
        "approve_automatically",
        (State.REVIEW,),
        None,
        (_S,),
        ("low risk",),
        lambda r, _e, _n: replace(r, automatic=True),
    ),
    Move("approve", (State.REVIEW,), State.SEALING, (_S,), ("verified", "baseline", "approved"), ledger="approved"),
    Move("reject", (State.REVIEW,), State.REJECTED, (_O,), ("reason", "not their own"), ledger="request.refused"),
    # ---- sealed: nobody alone can read, and it can be undone
    Move("seal", (State.SEALING,), State.COOLING, (_S,), ("keys intact", "approved", "baseline"), _sealed, "sealed"),
    Move(
        "restore",
        (State.SEALING, State.COOLING),
        State.RESTORED,
        (_H, _A),
        ("restore proof", "regret runs", "not begun"),
        _restored,
        "restored",
    ),
    Move(
        "restore",
        (State.READY,),
        State.RESTORED,
        (_H, _A),
        ("restore proof", "held whole", "not begun"),
        _restored,
        "restored",
    ),
    Move(
        "waive",
        (State.COOLING,),
        None,
        (_H,),
        ("low risk",),
        lambda r, _e, now: replace(r, waived_from=now + WAIVER_NOTICE),
    ),
    Move("end_regret", (State.COOLING,), State.READY, (_S,), ("regret over",), ledger="regret.ended"),
    # ---- ready: located again, and everything that could stand in the way is looked at once more
    Move("locate_again", (State.READY,), None, (_S,), (), _relocated),
    Move("sign", (State.READY,), None, (_O,), ("same plan", "officer", "not their own"), _grown_signed),
    Move(
        "begin",
        (State.READY,),
        State.DESTROYING,
        (_S,),
        ("verified", "approved", "baseline", "regret over", "not held whole", "money", "export", "fresh", "not begun"),
        ledger="erase.intended",
    ),
    # ---- the point of no return: only forward
    Move(
        "first_share_gone",
        (State.DESTROYING,),
        None,
        (_S,),
        ("keys left",),
        lambda r, _e, _n: replace(r, keys=Keys.HALF),
    ),
    Move(
        "keys_gone",
        (State.DESTROYING,),
        State.OVERWRITING,
        (_S,),
        ("half",),
        lambda r, _e, _n: replace(r, keys=Keys.DESTROYED),
        "key.destroyed",
    ),
    Move("overwritten", (State.OVERWRITING,), State.VALIDATING, (_S,), ("keys gone",), ledger="store.overwritten"),
    Move("residue", (State.VALIDATING,), State.OVERWRITING, (_S,), ("tries left",), _again, "residue.found"),
    Move("residue", (State.VALIDATING,), State.STALLED, (_S,), ("no tries left",), _again, "residue.found"),
    Move("stall", ERASING, State.STALLED, (_S,), ledger="exception"),
    Move("resume", (State.STALLED,), State.DESTROYING, (_S, _O), ("keys left",)),
    Move(
        "resume",
        (State.STALLED,),
        State.OVERWRITING,
        (_S, _O),
        ("keys gone",),
        lambda r, _e, _n: replace(r, residue=0),
    ),
    Move(
        "clean",
        (State.VALIDATING,),
        State.CERTIFIED,
        (_S,),
        ("baseline", "keys gone", "nothing kept"),
        _certified,
        "certificate.issued",
    ),
    Move(
        "clean",
        (State.VALIDATING,),
        State.RESTRICTED,
        (_S,),
        ("baseline", "keys gone", "something kept"),
        _certified,
        "certificate.issued",
    ),
    # ---- afterwards: people who come back, and what a law kept
    Move(
        "found_again",
        (State.CERTIFIED, State.RESTRICTED),
        State.OVERWRITING,
        (_S,),
        ("keys gone",),
        _returned,
        "residue.found",
    ),
    Move("came_due", (State.RESTRICTED,), State.DESTROYING, (_S,), ("not held whole",), _came_due, "erase.intended"),
    Move("close", (State.CERTIFIED,), State.CLOSED, (_S,), ("nothing kept", "keys gone")),
    # ---- the other regions
    Move(
        "hold",
        _HELD_OR_LIFTED,
        None,
        (_O,),
        ("two officers", "reason", "not their own"),
        lambda r, e, _n: replace(r, hold=e.hold),
        "exception",
    ),
    Move("lift_hold", _HELD_OR_LIFTED, None, (_O,), ("two officers",), lambda r, _e, _n: replace(r, hold=Hold.NONE)),
)


_SETTLING = (State.REVIEW, State.SEALING, State.COOLING, State.READY)
_EXPORTING = (*BEFORE_SEAL, State.SEALING, State.COOLING)


def _region(
    event: str, source: Settlement | Export, to: Settlement | Export, states: tuple[State, ...], *actors: Actor
) -> Move:
    """A move of the settlement or the export region; the closure stays where it is."""
    if isinstance(to, Settlement):
        return Move(event, states, None, actors, (), lambda r, _e, _n: replace(r, settlement=to), region=source)
    return Move(event, states, None, actors, (), lambda r, _e, _n: replace(r, export=to), region=source)


REGIONS: Final[tuple[Move, ...]] = (
    _region("settle", Settlement.NONE, Settlement.PENDING, _SETTLING, _S),
    _region("settled", Settlement.PENDING, Settlement.SETTLED, _SETTLING, _S),
    _region("settlement_failed", Settlement.PENDING, Settlement.FAILED, _SETTLING, _S),
    _region("settle_again", Settlement.FAILED, Settlement.PENDING, _SETTLING, _S, _O),
    _region("escrow", Settlement.PENDING, Settlement.ESCROWED, (State.READY,), _S),
    _region("escrow", Settlement.FAILED, Settlement.ESCROWED, (State.READY,), _S),
    _region("export", Export.NONE, Export.PREPARING, _EXPORTING, _H, _A),
    _region("export", Export.EXPIRED, Export.PREPARING, _EXPORTING, _H, _A),
    _region("exported", Export.PREPARING, Export.READY, REVERSIBLE, _S),
    _region("export_failed", Export.PREPARING, Export.FAILED, REVERSIBLE, _S),
    _region("export_again", Export.FAILED, Export.PREPARING, REVERSIBLE, _H, _A, _O),
    _region("collect", Export.READY, Export.COLLECTED, REVERSIBLE, _H),
    _region("export_expired", Export.READY, Export.EXPIRED, REVERSIBLE, _S),
    _region("waive_export", Export.NONE, Export.WAIVED, REVERSIBLE, _H),
    _region("waive_export", Export.FAILED, Export.WAIVED, REVERSIBLE, _H, _O),
)
TABLE: Final = (*MOVES, *REGIONS)


def advance(request: Request, event: Event, now: datetime, *, moves: tuple[Move, ...] = TABLE) -> Request:
    """The request after the event; raises MoveRefused, which names what is not true, and changes nothing.

    The version rises by one: whoever stores the result compares it with the one they read.
    """
    return step(request, event, now, moves=moves)[0]


def step(request: Request, event: Event, now: datetime, *, moves: tuple[Move, ...] = TABLE) -> tuple[Request, Move]:
    """As `advance`, with the row of the table that was taken."""
    if now.tzinfo is None:
        raise ValueError("a move happens at an instant with a zone")
    reason = "it is no move in this state"
    for move in moves:
        if move.event != event.name or request.state not in move.sources:
            continue
        if event.actor not in move.actors:
            reason = "somebody else decides that"
            continue
        if move.region is not None and move.region not in (request.settlement, request.export):
            reason = "money or export stand elsewhere"
            continue
        missing = next((g for g in move.guards if not GUARDS[g][0](request, event, now)), None)
        if missing is not None:
            reason = missing
            continue
        moved = move.effect(request, event, now)
        to = move.to or request.state
        entered = now if move.to is not None else request.entered
        return replace(moved, state=to, entered=entered, version=request.version + 1), move
    raise MoveRefused(event.name, request.state, reason)

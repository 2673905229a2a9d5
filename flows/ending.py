"""The end of a closing: when the days to change one's mind are over, and everybody due is erased in one batch.

    plan      what nobody planned by the end of the first working day; what cannot be planned for a month ends
    ahead     a day before: located again, so that officers can sign what grew (flows/ahead.py)
    late      what appeared after the plan is settled, or holds its closing back until a date (flows/late.py)
    kept      what a law kept until now, or a hold that was lifted, goes by itself (flows/kept.py)
    ready     located again: as many rows as were approved, or fewer; more ask officers again. Money that is not paid
              goes to escrow under the receipt code: it never delays an erasure
    batch     locate, plant, baseline, export, while the seals still stand: what is refused here is given up unharmed
    begin     the point of no return: every closing's move first, then the end of their seals, in one new root each
    erase     the journey of the batch (flows/erase.py), certificates among it
    forget    what was known of the people is emptied, their closings end; the receipt code still opens the status
    tell      notices go out; with the last one of a closing its addresses are destroyed

`run_due` does all that is due, in the order of process and not of schedule: a missed night is caught up by the next,
and running it twice changes nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from time import monotonic
from typing import Any

from fangxin.data.closures.outbox import TRIES, Connector
from fangxin.data.closures.store import Closure
from fangxin.data.closures.tickets import CLOSED, Tickets
from fangxin.data.errors import FangxinError, NotAllowed
from fangxin.data.keys.domains import TICKET
from fangxin.data.keys.grant import Grant
from fangxin.data.requests import REQUEST_DOMAIN, Batch
from fangxin.data.vocabulary import Identity
from fangxin.flows import consumers, erase, holds, kept, late, plainly, sealing, takeaway, tickets, transfers
from fangxin.flows.ahead import look_again, look_ahead
from fangxin.flows.alarms import Alarm, sound
from fangxin.flows.batch import BEGUN, begun, binds
from fangxin.flows.channels import Channels
from fangxin.flows.claims import payer
from fangxin.flows.closing import current, expired, make_plans, payouts, restored, reviewed, seal, verified
from fangxin.flows.decisions import deciders
from fangxin.flows.delivery import deliver, shred
from fangxin.flows.desk import DELAYED, ENDED, LAPSED, UNPLANNED, Desk, Secret, renamed, request_of
from fangxin.flows.destroy_keys import destroy_keys
from fangxin.flows.lifecycle import ERASING, Actor, Event, Hold, Keys, Settlement, State
from fangxin.flows.orders import orderer
from fangxin.flows.watch import begin, watch
from fangxin.reports.certificate import FAILED, PARTIAL
from fangxin.reports.ledger.entries import band

_BROKE = "what was to be told or paid for it ran into an error of this program or of its settings"
_LOOKED = (
    "its certificate is partial: the person stands where no collection looks; "
    "an officer looks, then `fangxin request resume`"
)
_FAILED = "its certificate says FAILED, and of what; an officer looks, then `fangxin request resume` erases them anew"
_WAITS = {PARTIAL: _LOOKED, FAILED: _FAILED}  # for an officer, by what was certified
_UNTOLD = (
    "a consumer did not take what it was told in time: whom it is about is forgotten, and an officer has to see to it"
)
_UNTELLABLE = (
    "a consumer that was told of it before cannot be told what followed: consumers.toml did not say how it is reached; "
    "an officer reaches it in another way"
)
_ERASED = ("erased", "erased_with_retention")


@dataclass
class Done:
    """What a run of everything due came to: ids by what was done, and what waits and why."""

    planned: list[str] = field(default_factory=list)
    reviewed: list[str] = field(default_factory=list)
    sealed: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    erased: list[str] = field(default_factory=list)
    batches: list[str] = field(default_factory=list)
    messages: int = 0
    exports: list[str] = field(default_factory=list)  # closings whose export was destroyed
    alarms: list[Alarm] = field(default_factory=list)
    back: list[str] = field(default_factory=list)
    over: list[str] = field(default_factory=list)  # closings of which a law or a hold keeps something no longer
    asked: list[tickets.Alarm] = field(default_factory=list)  # tickets whose first answer runs late
    forgotten: list[str] = field(default_factory=list)
    waiting: dict[str, str] = field(default_factory=dict)
    calls: consumers.Calls = field(default_factory=consumers.Calls)
    errors: list[FangxinError] = field(default_factory=list)


def run_due(
    desk: Desk,
    *,
    connectors: Mapping[str, Connector] | None = None,
    channels: Channels | None = None,
    options: Mapping[str, Any] | None = None,
) -> Done:
    """Do everything that is due now. One closing that cannot go on holds up nobody else; its reason is told.

    `connectors` carry out the outbox; without one for a kind, its rows wait. `options` are the batch's. Any: JSON.
    """
    done = Done()
    desk.all_told()
    for closure in desk.closures.those("submitted", "sealing", "cooling", "ready"):
        if closure.state == State.SUBMITTED.value or "restoring" in closure.facts:
            _guarded(done, closure.id, partial(_unfinished, desk, closure))
    _carry_on(desk, done)
    done.alarms = sound(desk)
    _plan(desk, _due(desk, State.PREFLIGHT, "plan"), done)
    reviewing = _due(desk, State.REVIEW, "review")
    with desk.together(reviewing):
        for closure in reviewing:
            _guarded(done, closure.id, partial(_review, desk, closure, done))
    sealing_now = _due(desk, State.SEALING, "seal")
    if sealing_now:
        _guarded(done, sealing_now[0].id, lambda: done.sealed.extend(c.id for c in seal(desk, sealing_now)))
    looking = [c for c in _due(desk, State.COOLING, "ahead") if not _over(desk, c)]
    if looking:
        _guarded(done, looking[0].id, lambda: done.waiting.update(look_ahead(desk, looking)))
    over = _due(desk, State.COOLING, "regret")
    with desk.together(over):
        for closure in over:
            _guarded(done, closure.id, partial(_end_regret, desk, closure, done))
    transfers.expire(desk)
    done.exports = takeaway.expire(desk)
    paying = {**_far_sides(desk), **(connectors or {})}
    _guarded(done, "consumers", partial(_known, desk, done))
    done.messages = _outbox(desk, paying) + _consumers(desk, done)
    kept_back = _late(desk, done)
    done.messages += _outbox(desk, paying)  # what that added
    done.back = _watched(desk, done)
    _kept(desk, done)
    _erase(desk, done, dict(options or {}), kept_back)
    gone = desk.outbox.let_go(  # what was due is tried by now, also after a long gap
        consumers.KIND, tried=desk.now - consumers.KEPT, written=desk.now - consumers.LONGEST
    )
    done.waiting |= dict.fromkeys(gone, _UNTOLD)
    _guarded(done, "support", partial(_answers, desk, done))
    _guarded(done, "notices", partial(_tell, desk, channels, done))
    _halted(desk, done)
    for name, why in done.calls.untold.items():  # told once: beside whatever else its closing waits for
        done.waiting[name] = "; ".join([*filter(None, [done.waiting.get(name)]), why])
    for name, what in desk.outbox.broken().items():
        done.waiting.setdefault(name, f"{_BROKE} ({what}), and is tried again")
    return done


def _halted(desk: Desk, done: Done) -> None:
    """Whose erasure stands still until an officer says so is told every time, not only in the night it stopped."""
    going_on = set(desk.estate.requests.unfinished())
    for closure in desk.closures.those(State.STALLED.value):
        if closure.facts.get("batch") not in going_on:
            what = str((closure.facts.get("delayed") or {}).get("what"))
            done.waiting.setdefault(closure.id, _WAITS.get(what, _LOOKED))


def _watched(desk: Desk, done: Done) -> list[str]:
    """Look for data that came back, where it is the day for it; whoever is found is erased again, tonight."""
    due = [*_due(desk, State.CERTIFIED, "watch"), *_due(desk, State.RESTRICTED, "watch")]
    found: list[str] = []
    if due:
        _guarded(done, due[0].id, lambda: found.extend(watch(desk, due)))
    return found


def _kept(desk: Desk, done: Done) -> None:
    """What a law or a hold kept until now goes tonight; whose hold was to be looked at is told."""
    for closure in _due(desk, State.RESTRICTED, "hold"):
        done.waiting[closure.id] = holds.overdue(closure, desk.now)
    due = [one for one in _due(desk, State.RESTRICTED, "kept") if one.sealed is None]

    def look() -> None:
        done.over, waiting = kept.come_due(desk, due)
        done.waiting.update(waiting)

    if due:
        _guarded(done, due[0].id, look)


def _answers(desk: Desk, done: Done) -> None:
    """Tickets: alarms about first answers, what went quiet, texts whose days are over."""
    done.asked += tickets.look_after(desk, Channels.load(desk.estate.settings.home))


def _tell(desk: Desk, channels: Channels | None, done: Done) -> None:
    """Notices go out, and addresses that are needed no more are destroyed."""
    delivered = deliver(desk, channels or Channels.load(desk.estate.settings.home))
    done.messages += delivered.sent
    done.waiting |= {c: "a notice cannot be delivered by one of its channels" for c in delivered.parked}
    done.forgotten += shred(desk)


def _far_sides(desk: Desk) -> dict[str, Connector]:
    """Who pays and moves items for this home; nobody where no provider is named."""
    if desk.provider is None:
        return {}
    pays = payer(desk, desk.provider)
    return {
        "payout": pays,
        "claim": pays,
        "transfer": transfers.mover(desk, desk.provider),
        "order": orderer(desk, desk.provider),
    }


def _guarded(done: Done, name: str, work: Callable[[], object]) -> None:
    try:
        work()
    except FangxinError as error:
        done.errors.append(error)
        done.waiting[name] = error.message


def _due(desk: Desk, state: State, kind: str) -> list[Closure]:
    """The closings in a state whose timer is due."""
    return desk.closures.those(state.value, due=(kind, desk.now))


def _unfinished(desk: Desk, closure: Closure) -> None:
    """Finish what a crash left of a move: entries for the ledger, a verification, a restore whose keys are back."""
    if closure.state == State.SUBMITTED.value:
        verified(desk, closure)
    if "restoring" in closure.facts and request_of(closure).state in (State.SEALING, State.COOLING, State.READY):
        cases = desk.opened(closure).cases
        sealed = any(desk.estate.tree.sealed_until(ref) for _case, ref, _codes in cases)
        if cases and request_of(closure).keys is Keys.SEALED and not sealed:
            restored(desk, closure)


def _over(desk: Desk, closure: Closure) -> bool:
    """Whether the days to change one's mind are over, so that it is located again anyway."""
    ends = request_of(closure).regret_ends
    return ends is not None and desk.now >= ends


def _plan(desk: Desk, due: Sequence[Closure], done: Done) -> None:
    """Plan what nobody planned by the end of the first working day; what cannot be planned for a month ends."""
    planned: dict[str, Closure | FangxinError] = {}
    ending = {c.id for c in due if desk.now >= (request_of(c).entered or c.opened) + UNPLANNED}
    with desk.together():
        for closure in due:
            if closure.id in ending:
                _guarded(done, closure.id, partial(expired, desk, closure))
    there = [c for c in due if c.id not in ending]
    if there:
        _guarded(done, there[0].id, lambda: planned.update(make_plans(desk, there)))
    for name, one in planned.items():
        if isinstance(one, FangxinError):
            done.waiting[name] = one.message
        else:
            done.planned.append(name)


def _review(desk: Desk, closure: Closure, done: Done) -> None:
    if request_of(closure).high_risk:
        done.waiting[closure.id] = "two officers have to sign its plan"
        return
    reviewed(desk, closure)
    done.reviewed.append(closure.id)


def _end_regret(desk: Desk, closure: Closure, done: Done) -> None:
    request = request_of(closure)
    entry: dict[str, int | str] = {"type": "regret.ended"}
    if request.regret_ends is not None and desk.now < request.regret_ends:
        entry["waived"] = "holder"
    refunds = payouts(closure, desk.now, refunds=True)
    desk.take(closure, Event("end_regret"), desk.now, entries=[(ENDED, entry)], met=["regret"], messages=refunds)
    done.ended.append(closure.id)


def _outbox(desk: Desk, connectors: Mapping[str, Connector], *, most_tries: int = TRIES) -> int:
    """Carry out every row that is due and has a connector; the others wait for theirs."""
    count = 0
    while rows := desk.outbox.claim("run-due", desk.now, only=list(connectors)):
        count += desk.outbox.carry(rows, connectors, desk.now, most_tries=most_tries)
    return count


def _consumers(desk: Desk, done: Done) -> int:
    """Tell consumers to stop, to go on, to erase; what is given up is told once.

    A lease counts from its claim, though the time of the run stands still: else it would be over in a long run.
    """
    bare = desk.outbox.park_empty(consumers.KIND)
    done.calls.untold |= dict.fromkeys(bare, _UNTELLABLE)
    before, count, began = desk.outbox.parked((consumers.KIND,)), 0, monotonic()
    tells = {consumers.KIND: consumers.teller(desk, done.calls, partial(_since, desk, began))}
    while desk.consumers and (
        rows := desk.outbox.claim("run-due", _since(desk, began), most=consumers.at_once(desk), only=list(tells))
    ):
        count += desk.outbox.carry(rows, tells, _since(desk, began), most_tries=consumers.TRIES)
    why = {**done.calls.why, **consumers.away(desk)}
    if why:
        done.waiting["consumers"] = "; ".join(f"{name}: {text}" for name, text in sorted(why.items()))
    for key, closure in desk.outbox.parked((consumers.KIND,)).items():
        if key not in before:
            done.calls.untold[closure] = (
                "a consumer did not take what it was told: an officer sees to it, then `fangxin request tell`"
            )
    return count


def _known(desk: Desk, done: Done) -> None:
    """What is wrong with `consumers.toml` is told each time, and holds up nobody who is to be erased or comes back."""
    try:
        consumers.known(desk)
    except consumers.Unusable as error:
        done.waiting["consumers.toml"] = error.message


def _since(desk: Desk, began: float) -> datetime:
    return desk.now + timedelta(seconds=monotonic() - began)


# ---------------------------------------------------------------- ready


def _late(desk: Desk, done: Done) -> set[str]:
    """Take in what appeared since the plans of everybody ready; those who wait for something of it are kept back."""
    there = [c for c in desk.closures.those("ready") if request_of(c).hold is not Hold.ALL]
    kept_back = {one.id for one in there}

    def look() -> None:
        waiting = late.look(desk, there)
        done.waiting.update(waiting)
        kept_back.intersection_update(waiting)

    if there:
        _guarded(done, there[0].id, look)
    return kept_back


def _erase(desk: Desk, done: Done, options: dict[str, Any], kept_back: set[str]) -> None:
    """Erase everybody who is ready and not kept back, in one batch."""
    requests = desk.estate.requests
    taken = {c for b in requests.unfinished() for c in requests.batch(b).options.get("closures", ())}
    waiting = [c for c in desk.closures.those("ready", "destroying") if c.id not in taken]
    later = (c for c in desk.closures.those("overwriting") if c.id not in taken)
    waiting += [c for c in later if c.facts.get("batch") is None]
    held = [c for c in waiting if request_of(c).hold is Hold.ALL]
    done.waiting |= {c.id: holds.waits(c, desk.now) for c in held}
    due = [c for c in waiting if request_of(c).state is not State.READY]
    ready: list[Closure] = []
    with desk.together(waiting):
        for closure in waiting:
            if request_of(closure).state is State.READY and closure.id not in kept_back and closure not in held:
                _guarded(done, closure.id, partial(_ready, desk, closure, ready))
    if ready:
        _guarded(done, ready[0].id, partial(_again, desk, ready, due, done))
    if due:
        _guarded(done, due[0].id, lambda: _batch(desk, due, done, options))


def _ready(desk: Desk, closure: Closure, ready: list[Closure]) -> None:
    """Settle the money: paid, or in escrow."""
    ready.append(_settled(desk, closure))


def _again(desk: Desk, ready: Sequence[Closure], due: list[Closure], done: Done) -> None:
    """Locate again, everybody at once; who is unchanged is due."""
    found, waiting = look_again(desk, ready)
    due += found
    done.waiting |= waiting


def _settled(desk: Desk, closure: Closure) -> Closure:
    """Paid where everything is; else what is owed goes to escrow, under the receipt code, and is paid from there."""
    books = desk.closures.books(closure.id)
    rows = [
        (f"escrow-{closure.id}-{currency}-{closure.version}", account, currency, minor)
        for currency, accounts in books.items()
        if (owed := accounts.get("owed", 0))
        for account, minor in (("owed", -owed), ("escrow", owed))
    ]
    request = request_of(closure)
    if request.settlement not in (Settlement.PENDING, Settlement.FAILED):  # decided before; what came later follows
        return (
            desk.write(closure, renamed(request), "escrow", desk.now, by="system", postings=rows) if rows else closure
        )
    unpaid = bool(rows) or any(accounts.get("unclaimed") for accounts in books.values())
    return desk.take(closure, Event("escrow" if unpaid else "settled"), desk.now, postings=rows)


# ---------------------------------------------------------------- the batch


def _batch(desk: Desk, due: Sequence[Closure], done: Done, options: dict[str, Any]) -> None:
    estate = desk.estate
    due, secrets = _apart(desk, due)
    subjects = [tuple(Identity(k, v) for k, v in s.facts) for s in secrets]
    batch_id = erase.open_batch(
        estate,
        subjects,
        options={
            **options,
            "approved": True,
            "closures": [c.id for c in due],
            "bound": binds([kept.bound(c) for c in due]),
            "deciders": deciders(due),
        },
        known=[(s.secret, s.receipt) for s in secrets],
    )
    _carry(desk, batch_id, done)


def _apart(desk: Desk, due: Sequence[Closure]) -> tuple[list[Closure], list[Secret]]:
    """Those of these closings that share no identity; whoever shares one with an earlier closing comes next time."""
    seen: set[tuple[str, str]] = set()
    found, secrets = [], []
    for closure in due:
        secret = desk.opened(closure)
        if seen.isdisjoint(secret.facts):
            found.append(closure)
            secrets.append(secret)
            seen |= set(secret.facts)
    return found, secrets


def _carry_on(desk: Desk, done: Done) -> None:
    """Go on with batches of closings that a crash left open, and forget what their end left known."""
    for batch_id in desk.estate.requests.unfinished():
        closures = desk.estate.requests.batch(batch_id).options.get("closures")
        if closures:
            _guarded(done, batch_id, partial(_carry, desk, batch_id, done))
    states = ("overwriting", "validating", "certified", "restricted")
    left = [c for c in desk.closures.many(desk.closures.in_state(*states, remembered=True)) if c.facts.get("batch")]
    for batch_id in dict.fromkeys(c.facts["batch"] for c in left):
        _guarded(done, batch_id, partial(_finish, desk, batch_id, done))
    for batch_id in dict.fromkeys(c.facts["batch"] for c in desk.closures.those("stalled") if c.facts.get("batch")):
        _guarded(done, batch_id, partial(_finish_elsewhere, desk, batch_id, done))


def _finish_elsewhere(desk: Desk, batch_id: str, done: Done) -> None:
    """Take in how a batch came to its end outside of run-due, by `fangxin resume`, after its closings had stalled."""
    batch = desk.estate.requests.batch(batch_id)
    told = [(c.facts.get("delayed") or {}).get("what") for c in _closures(desk, batch)]
    if batch.state == "closed" and not {PARTIAL, FAILED} & set(told):
        _resumed(desk, batch)
        _finish(desk, batch_id, done)


def _carry(desk: Desk, batch_id: str, done: Done) -> None:
    """The journey of a batch with the point of no return in its middle."""
    estate = desk.estate
    batch = estate.requests.batch(batch_id)
    if not begun(estate, batch):
        bound = batch.options.get("bound", {}) == _binding(desk, batch)
        if not bound or not all(map(_may_begin, _closures(desk, batch))):
            erase.abandon(batch_id)
            raise NotAllowed("somebody of this batch is held or was restored: the others come in another one")
        for step in erase.STEPS[: erase.STEPS.index(destroy_keys)]:
            erase.run_step(step, batch_id)
        _begin(desk, batch)
    _resumed(desk, batch)
    done.messages += _consumers(desk, done)
    if heard := consumers.counted(desk, _closures(desk, batch)):
        estate.requests.done(batch_id, consumers.KIND, at=estate.minute, note=heard, anew=True)
    try:
        _end_seals(desk, batch)
        for step in erase.STEPS[erase.STEPS.index(destroy_keys) :]:
            erase.run_step(step, batch_id)
    except FangxinError as error:
        _stalled(desk, batch, type(error).__name__)
        raise
    _finish(desk, batch_id, done)


def _resumed(desk: Desk, batch: Batch) -> None:
    """Go on with closings that stalled in this batch: from the ledger, keys first."""
    there = _closures(desk, batch)
    with desk.together(there):
        for closure in there:
            if request_of(closure).state is State.STALLED:
                desk.take(closure, Event("resume"), desk.now, body={"batch": batch.id}, facts={"delayed": None})


def _stalled(desk: Desk, batch: Batch, code: str) -> None:
    """Past the point of no return something failed: on record, shown to the person, and tried again by the next run."""
    there = _closures(desk, batch)
    with desk.together(there):
        for closure in there:
            if request_of(closure).state in ERASING:
                since = (closure.facts.get("delayed") or {}).get("since") or desk.now.isoformat()
                stall(desk, closure, code, since)


def stall(desk: Desk, closure: Closure, code: str, since: str, **facts: Any) -> Closure:  # Any: JSON
    """Note that an erasure is delayed: what, and since when."""
    entry: dict[str, int | str] = {"type": "exception", "code": f"stalled/{code}"[:64], "role": "system"}
    noted = {**facts, "delayed": {"what": code, "since": since}}
    return desk.take(
        closure,
        Event("stall"),
        desk.now,
        entries=[(DELAYED + closure.version, entry)],
        facts=noted,
        body={"code": code},
    )


def resume(desk: Desk, closure_id: str, officer: str) -> Closure:
    """An officer has a closing tried again whose batch is over, in a batch of its own with the next run-due.

    NotAllowed where it does not wait for an officer: what merely failed goes on by itself.
    """
    plainly.officer(officer)
    closure = current(desk, closure_id)
    request = request_of(closure)
    if request.owner_officer == officer:
        raise NotAllowed("nobody decides about their own account", hint="another officer looks")
    batch = closure.facts.get("batch")
    if request.state is not State.STALLED or (batch and batch in desk.estate.requests.unfinished()):
        raise NotAllowed("this closing does not wait for an officer", hint="`fangxin run-due` goes on with what failed")
    fresh = replace(desk.opened(closure), secret=secrets.token_bytes(32))  # a round of its own in the ledger
    return desk.take(
        closure, Event("resume", Actor.OFFICER, (officer,)), desk.now, by=officer,
        facts={"batch": None, "delayed": None}, sealed=desk.sealed(closure.ref, fresh),
    )  # fmt: skip


def _closures(desk: Desk, batch: Batch) -> list[Closure]:
    return desk.closures.many(batch.options["closures"])


def _may_begin(closure: Closure) -> bool:
    request = request_of(closure)
    later = request.state in (State.DESTROYING, State.OVERWRITING)  # another round of somebody erased before
    return later or (request.state is State.READY and request.hold is not Hold.ALL)


def _binding(desk: Desk, batch: Batch) -> dict[str, Any]:  # Any: JSON
    """What binds the people of a batch besides today's laws, as it stands now."""
    return binds([kept.bound(one) for one in _closures(desk, batch)])


def _begin(desk: Desk, batch: Batch) -> None:
    """The point of no return: each closing's version is swapped, then the batch is noted as begun."""
    there, told = _closures(desk, batch), {"batch": batch.id}
    before = desk.outbox.histories([one.id for one in there], consumers.KIND)
    with desk.together(there):
        for closure in there:
            tells = partial(consumers.messages, desk, closure, consumers.ERASE, before.get(closure.id, ()))
            if request_of(closure).state is State.READY:
                desk.take(
                    closure, Event("begin"), desk.now, entries=lapses(closure), body=told, facts=told, messages=tells()
                )
            elif closure.facts.get("batch") is None:
                again = renamed(request_of(closure))
                desk.write(
                    closure, again, "begin_again", desk.now, by="system", body=told, facts=told, messages=tells()
                )
    desk.estate.requests.done(batch.id, BEGUN, at=desk.estate.minute, note={})


def lapses(closure: Closure) -> list[tuple[int, dict[str, int | str]]]:
    """What a person gave up, as the ledger has it and the public report counts it: its kind, and a band of the money.

    It is lost at the point of no return: until then an account can come back with everything.
    """
    lost = [one for one in (closure.facts.get("plan") or {}).get("items", ()) if one["lost"]]
    codes = [f"lapsed/{one['kind']}" for one in lost]
    codes += [f"forfeited/{one['currency']}/{band(one['lost'])}" for one in lost if one["currency"]]
    return [(LAPSED + n, {"type": "exception", "code": code, "role": "holder"}) for n, code in enumerate(codes)]


def _end_seals(desk: Desk, batch: Batch) -> None:
    """Both shares of everybody's seal die; each closing knows which are gone."""
    closures = [c for c in _closures(desk, batch) if request_of(c).keys is not Keys.DESTROYED]
    if not closures:
        return
    early: dict[bytes, bytes] = {}
    regular: dict[bytes, bytes] = {}
    for closure in closures:
        request = request_of(closure)
        waived = request.regret_ends is not None and desk.now < request.regret_ends
        for case, ref, _codes in desk.opened(closure).cases:
            (early if waived else regular)[case] = ref
    sealing.end(desk.estate, batch, {**regular, **early}, waived=bool(early), now=desk.now)
    sealing.settle(desk.estate, now=desk.now)
    with desk.together(closures):
        for closure in closures:
            if request_of(closure).keys is Keys.SEALED:
                closure = desk.take(closure, Event("first_share_gone"), desk.now)
            desk.take(closure, Event("keys_gone"), desk.now)


def _finish(desk: Desk, batch_id: str, done: Done) -> None:
    """Tell each closing how it ended, then forget the people; the batch has done so itself by now."""
    estate = desk.estate
    batch = estate.requests.batch(batch_id)
    requests = [r for r in estate.requests.requests(batch_id) if not r.canary]
    there = _closures(desk, batch)
    both = list(zip(there, requests, strict=True))
    staying = [c for c, r in both if r.outcome == _ERASED[1] and c.sealed is not None and not _noted(c)]
    stays = kept.remains(desk, staying)
    over: list[Closure] = []
    with desk.together(there):
        for closure, request in both:
            if request.outcome in _WAITS:
                _looked_at(desk, closure, request.outcome, request.certificate)
                done.waiting[closure.id] = _WAITS[request.outcome]
            elif request.outcome not in _ERASED:
                done.waiting[closure.id] = "its erasure did not come to its end: `fangxin run-due` goes on"
            else:
                keeps = request.outcome == _ERASED[1]
                over.append(_ended(desk, closure, keeps, request.certificate, stays.get(closure.id)))
    _forget(desk, [one for one in over if one.sealed is not None])
    done.erased += [one.id for one in over]
    done.batches.append(batch_id)


def _looked_at(desk: Desk, closure: Closure, outcome: str, certificate: str | None) -> None:
    """An officer looks: what was known of the person is kept until then."""
    if request_of(closure).state is State.OVERWRITING:
        stall(desk, closure, outcome, desk.now.isoformat(), certificate=certificate)


def _noted(closure: Closure) -> bool:
    """Whether it was noted in this round what of the person stays."""
    return bool((closure.facts.get("kept") or {}).get("round") == request_of(closure).round)


def _ended(desk: Desk, closure: Closure, keeps: bool, certificate: str | None, stays: kept.Remains | None) -> Closure:
    """A closing is certified, and it is noted what its watch looks for, while who they were can still be read."""
    if request_of(closure).state is State.OVERWRITING:
        closure = desk.take(closure, Event("overwritten"), desk.now)
    if request_of(closure).state is State.VALIDATING:
        before = closure.facts.get("certificate")
        issued = {
            "certificate": certificate,
            "superseded": [*closure.facts.get("superseded", ()), *([before] * bool(before))],
        }
        closure = desk.take(closure, Event("clean", kept=keeps), desk.now, met=["done"], facts=issued)
    if closure.sealed is not None and closure.facts.get("watch") is None:
        begun = begin(desk, closure)
        again = renamed(request_of(closure))
        closure = desk.write(closure, again, "watching", desk.now, by="system", facts=begun.facts, watched=begun.tokens)
    if closure.sealed is not None and stays is not None:
        closure = kept.noted(desk, closure, stays)
    return closure


def _forget(desk: Desk, closures: Sequence[Closure]) -> None:
    """The keys of what was known of these people die under one new root, those of their closed tickets too."""
    if not closures:
        return
    tree, asked = desk.estate.tree, Tickets(desk.closures.engine)
    over = [one for c in closures for one in asked.of(c.receipt) if one.state == CLOSED]
    left = {c.id: kept.over(c, kept=request_of(c).state is State.RESTRICTED) for c in closures}
    drops = {c.ref: frozenset({REQUEST_DOMAIN}) for c in closures} | {one.ref: frozenset({TICKET}) for one in over}
    drops |= {ref: frozenset({REQUEST_DOMAIN}) for dying, _noted in left.values() for ref in dying}
    grant = Grant.of(drops, vault=tree.vault_id, generation=tree.generation, catalog="", not_before=desk.estate.now)
    tree.destroy(drops, grant=grant, now=desk.estate.now)
    sealing.commit_root(desk.estate)
    asked.forget([one.id for one in over], desk.now)
    with desk.together(closures):
        for closure in closures:
            again, (_dying, noted) = renamed(request_of(closure)), left[closure.id]
            desk.write(closure, again, "forgotten", desk.now, by="system", facts=noted, forget=True)

"""The end of a closing: when the days to change one's mind are over, and everybody due is erased in one batch.

    ready     located again: as many rows as were approved, or fewer; more ask an officer again. Money that is not paid
              goes to escrow under the receipt code: it never delays an erasure
    batch     locate, plant, baseline, export, while the seals still stand: what is refused here is given up unharmed
    begin     the point of no return: every closing's move first, then the end of their seals, in one new root each
    erase     the journey of the batch (flows/erase.py), certificates among it
    forget    what was known of the people is emptied, their closings end; the receipt code still opens the status

`run_due` does all that is due, in the order of process and not of schedule: a missed night is caught up by the next,
and running it twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fangxin.data.closures.outbox import Connector
from fangxin.data.closures.store import Closure
from fangxin.data.errors import FangxinError, NotAllowed
from fangxin.data.keys.grant import Grant
from fangxin.data.requests import REQUEST_DOMAIN, Batch
from fangxin.data.vocabulary import Cohort, Identity, Subject
from fangxin.flows import erase, sealing
from fangxin.flows.alarms import Alarm, sound
from fangxin.flows.batch import BEGUN, begun
from fangxin.flows.claims import payer
from fangxin.flows.closing import fates_of, payouts, restored, reviewed, seal, verified
from fangxin.flows.desk import ENDED, STALLED, Desk, Secret, renamed, request_of
from fangxin.flows.destroy_keys import destroy_keys
from fangxin.flows.lifecycle import Event, Hold, Keys, Settlement, State
from fangxin.flows.locate import find
from fangxin.flows.plan import decide
from fangxin.reports.certificate import PARTIAL

_ERASED = ("erased", "erased_with_retention")


@dataclass
class Done:
    """What a run of everything due came to: ids by what was done, and what waits and why."""

    reviewed: list[str] = field(default_factory=list)
    sealed: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    erased: list[str] = field(default_factory=list)
    batches: list[str] = field(default_factory=list)
    messages: int = 0
    alarms: list[Alarm] = field(default_factory=list)
    waiting: dict[str, str] = field(default_factory=dict)
    errors: list[FangxinError] = field(default_factory=list)


def run_due(
    desk: Desk, *, connectors: Mapping[str, Connector] | None = None, options: Mapping[str, Any] | None = None
) -> Done:
    """Do everything that is due now. One closing that cannot go on holds up nobody else; its reason is told.

    `connectors` carry out the outbox; without one for a kind, its rows wait. `options` are the batch's. Any: JSON.
    """
    done = Done()
    desk.all_told()
    for name in desk.closures.in_state("submitted", "sealing", "cooling", "ready"):
        _guarded(done, name, partial(_unfinished, desk, desk.closures.get(name)))
    _carry_on(desk, done)
    done.alarms = sound(desk)
    with desk.together():
        for closure in _due(desk, State.REVIEW, "review"):
            _guarded(done, closure.id, partial(_review, desk, closure, done))
    sealing_now = _due(desk, State.SEALING, "seal")
    if sealing_now:
        _guarded(done, sealing_now[0].id, lambda: done.sealed.extend(c.id for c in seal(desk, sealing_now)))
    with desk.together():
        for closure in _due(desk, State.COOLING, "regret"):
            _guarded(done, closure.id, partial(_end_regret, desk, closure, done))
    paying = (
        {} if desk.provider is None else {"payout": payer(desk, desk.provider), "claim": payer(desk, desk.provider)}
    )
    if connectors or paying:
        done.messages = _outbox(desk, {**paying, **(connectors or {})})
    _erase(desk, done, dict(options or {}))
    return done


def _guarded(done: Done, name: str, work: Callable[[], object]) -> None:
    try:
        work()
    except FangxinError as error:
        done.errors.append(error)
        done.waiting[name] = error.message


def _due(desk: Desk, state: State, kind: str) -> list[Closure]:
    """The closings in a state whose timer is due."""
    due = {closure for closure, what in desk.closures.due(desk.now) if what == kind}
    return [desk.closures.get(one) for one in desk.closures.in_state(state.value) if one in due]


def _unfinished(desk: Desk, closure: Closure) -> None:
    """Finish what a crash left of a move: entries for the ledger, a verification, a restore whose keys are back."""
    if closure.state == State.SUBMITTED.value:
        verified(desk, closure)
    if "restoring" in closure.facts and request_of(closure).state in (State.SEALING, State.COOLING, State.READY):
        cases = desk.opened(closure).cases
        sealed = any(desk.estate.tree.sealed_until(ref) for _case, ref, _codes in cases)
        if cases and request_of(closure).keys is Keys.SEALED and not sealed:
            restored(desk, closure)


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


def _outbox(desk: Desk, connectors: Mapping[str, Connector]) -> int:
    """Carry out every row that is due and has a connector; the others wait for theirs."""
    count = 0
    while rows := desk.outbox.claim("run-due", desk.now, only=list(connectors)):
        count += desk.outbox.carry(rows, connectors, desk.now)
    return count


# ---------------------------------------------------------------- ready


def _erase(desk: Desk, done: Done, options: dict[str, Any]) -> None:
    """Erase everybody who is ready, in one batch."""
    requests = desk.estate.requests
    taken = {c for b in requests.unfinished() for c in requests.batch(b).options.get("closures", ())}
    waiting = [desk.closures.get(c) for c in desk.closures.in_state("ready", "destroying") if c not in taken]
    held = [c for c in waiting if request_of(c).hold is Hold.ALL]
    done.waiting |= {c.id: "a legal hold keeps all of it" for c in held}
    due: list[Closure] = []
    for closure in waiting:
        if closure not in held:
            _guarded(done, closure.id, partial(_ready, desk, closure, done, due))
    if not due:
        return
    _guarded(done, due[0].id, lambda: _batch(desk, due, done, options))


def _ready(desk: Desk, closure: Closure, done: Done, due: list[Closure]) -> None:
    """Settle the money and locate again: a closing more is due, unless its plan grew."""
    request = request_of(closure)
    if request.state is State.DESTROYING:
        due.append(closure)
        return
    if request.settlement in (Settlement.PENDING, Settlement.FAILED):
        closure = _settled(desk, closure)
    estate, secret = desk.estate, desk.opened(closure)
    found = find(estate, Cohort((Subject("0", tuple(Identity(k, v) for k, v in secret.facts)),)))
    fates = fates_of(decide(estate.catalog, found, estate.laws, estate.settings.facts, estate.now.date()))
    approved = closure.facts["plan"]["rows"]
    more = sorted(a for a, some in fates.items() if sum(some.values()) > sum(approved.get(a, {}).values()))
    if more:
        done.waiting[closure.id] = f"more rows than were approved, in {', '.join(more)}: an officer looks"
        return
    due.append(desk.take(closure, Event("locate_again"), desk.now))


def _settled(desk: Desk, closure: Closure) -> Closure:
    """Paid where everything is; else what is owed goes to escrow, under the receipt code, and is paid from there."""
    books = desk.closures.books(closure.id)
    rows = [
        (f"escrow-{closure.id}-{currency}", account, currency, minor)
        for currency, accounts in books.items()
        if (owed := accounts.get("owed", 0))
        for account, minor in (("owed", -owed), ("escrow", owed))
    ]
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
        options={**options, "approved": True, "closures": [c.id for c in due]},
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
    for closure in map(
        desk.closures.get, desk.closures.in_state("overwriting", "validating", "certified", "restricted")
    ):
        if closure.facts.get("batch") and closure.sealed is not None:
            _guarded(done, closure.id, partial(_finish, desk, closure.facts["batch"], done))


def _carry(desk: Desk, batch_id: str, done: Done) -> None:
    """The journey of a batch with the point of no return in its middle."""
    estate = desk.estate
    batch = estate.requests.batch(batch_id)
    if not begun(estate, batch):
        if not all(map(_may_begin, _closures(desk, batch))):
            erase.abandon(batch_id)
            raise NotAllowed("somebody of this batch is held or was restored: the others come in another one")
        for step in erase.STEPS[: erase.STEPS.index(destroy_keys)]:
            erase.run_step(step, batch_id)
        _begin(desk, batch)
    _end_seals(desk, batch)
    for step in erase.STEPS[erase.STEPS.index(destroy_keys) :]:
        erase.run_step(step, batch_id)
    _finish(desk, batch_id, done)


def _closures(desk: Desk, batch: Batch) -> list[Closure]:
    return [desk.closures.get(one) for one in batch.options["closures"]]


def _may_begin(closure: Closure) -> bool:
    request = request_of(closure)
    return request.state is State.DESTROYING or (request.state is State.READY and request.hold is not Hold.ALL)


def _begin(desk: Desk, batch: Batch) -> None:
    """The point of no return: each closing's version is swapped, then the batch is noted as begun."""
    for closure in _closures(desk, batch):
        if request_of(closure).state is State.READY:
            desk.take(closure, Event("begin"), desk.now, body={"batch": batch.id}, facts={"batch": batch.id})
    desk.estate.requests.done(batch.id, BEGUN, at=desk.estate.minute, note={})


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
    for closure in closures:
        if request_of(closure).keys is Keys.SEALED:
            closure = desk.take(closure, Event("first_share_gone"), desk.now)
        desk.take(closure, Event("keys_gone"), desk.now)


def _finish(desk: Desk, batch_id: str, done: Done) -> None:
    """Tell each closing how it ended, then forget the people; the batch has done so itself by now."""
    estate = desk.estate
    batch = estate.requests.batch(batch_id)
    requests = [r for r in estate.requests.requests(batch_id) if not r.canary]
    for closure, request in zip(_closures(desk, batch), requests, strict=True):
        if request.outcome == PARTIAL:
            _partial(desk, closure, request.certificate)
            done.waiting[closure.id] = "its certificate is partial: the person stands where no collection looks"
            continue
        if request.outcome not in _ERASED:
            done.waiting[closure.id] = "its erasure did not come to its end: `fangxin run-due` goes on"
            continue
        _ended(desk, closure, request.outcome == "erased_with_retention", request.certificate)
        done.erased.append(closure.id)
    done.batches.append(batch_id)


def _partial(desk: Desk, closure: Closure, certificate: str | None) -> None:
    """An officer looks: what was known of the person is kept until then."""
    if request_of(closure).state is State.OVERWRITING:
        entry = (STALLED, {"type": "exception", "code": "partial", "role": "system"})
        desk.take(closure, Event("stall"), desk.now, entries=[entry], facts={"certificate": certificate})


def _ended(desk: Desk, closure: Closure, kept: bool, certificate: str | None) -> None:
    if request_of(closure).state is State.OVERWRITING:
        closure = desk.take(closure, Event("overwritten"), desk.now)
    if request_of(closure).state is State.VALIDATING:
        closure = desk.take(
            closure, Event("clean", kept=kept), desk.now, met=["done"], facts={"certificate": certificate}
        )
    if closure.sealed is None:
        return
    tree, ref = desk.estate.tree, closure.ref
    drops = {ref: frozenset({REQUEST_DOMAIN})}
    grant = Grant.of(drops, vault=tree.vault_id, generation=tree.generation, catalog="", not_before=desk.estate.now)
    tree.destroy(drops, grant=grant, now=desk.estate.now)
    sealing.commit_root(desk.estate)
    request = request_of(closure)
    if request.state is State.CERTIFIED:
        desk.take(closure, Event("close"), desk.now, forget=True)
    else:
        desk.write(closure, renamed(request), "forgotten", desk.now, by="system", forget=True)

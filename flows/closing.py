"""The closing of an account, move by move: from the request to the end of the days to change one's mind.

    open       who they are is verified; a receipt code and a restore code are shown, once
    plan       what they hold, where they are found, what the law keeps: a digest that officers approve
    approve    by officers' signatures; low risk by itself at the end of the second working day
    seal       at the next 00:05: keys leave the vault, and any two of three shares bring them back
    restore    by the restore code, or two officers; never by a login
    (erase)    once the days are over: flows/ending.py

Every function reads, decides by the table (`lifecycle.py`) and writes one move (`desk.py`); what acts on the vault acts
between an intent and its move, and is found again after a crash. Nothing here hands an identity to anybody.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from fangxin.data.closures.store import AlreadyLive, Change, Closure, Message, Replayed, Told
from fangxin.data.errors import FangxinError, InputError, NotAllowed
from fangxin.data.keys.approval import Approval
from fangxin.data.keys.domains import CONTACT, INDEX
from fangxin.data.keys.envelope import ref_of
from fangxin.data.keys.grant import Grant, refs_digest
from fangxin.data.keys.seal import Case, new_code
from fangxin.data.requests import REQUEST_DOMAIN, opaque, receipt_code, receipt_digest
from fangxin.data.vocabulary import Identity
from fangxin.flows import consumers, sealing
from fangxin.flows.approvals import by_officers
from fangxin.flows.behalf import Behalf, stands
from fangxin.flows.codes import proved
from fangxin.flows.desk import (
    GROWN,
    REFUSED,
    RESTORED,
    SEALED,
    SETTLED,
    SIGNED,
    WITHDRAWN,
    Desk,
    Secret,
    clock,
    lawful_clocks,
    machine,
    renamed,
    request_of,
)
from fangxin.flows.evidence import OPENED, VERIFIED, confirm_vault, load_sources
from fangxin.flows.lifecycle import Actor, Event, Request, State, advance
from fangxin.flows.looks import Look, accounts, bounds, look
from fangxin.flows.notices import Contact
from fangxin.flows.orders import orders
from fangxin.flows.plainly import code, officer
from fangxin.flows.publish import software
from fangxin.flows.settlement import Choice, Disposition, Entitlement, posted, settle
from fangxin.reports.ledger.entries import commitment
from fangxin.reports.ledger.entries import tag as tag_of

VALUABLE = 500_000  # minor units: above it two officers approve
SIGN_WITHIN = timedelta(days=30)


@dataclass(frozen=True)
class Opened:
    """A closing that was taken in; the codes are shown once and are empty for one that was there before.

    `replayed`: asked before under the same idempotency key; nobody keeps the restore code, so it is empty then.
    """

    id: str
    receipt: str = field(repr=False, default="")
    restore: str = field(repr=False, default="")
    replayed: bool = False


# ---------------------------------------------------------------- taking in


def open_closure(
    desk: Desk,
    identities: Sequence[Identity],
    *,
    level: str,
    risk: Sequence[str] = (),
    owner: str | None = None,
    behalf: Behalf | None = None,
    key: str | None = None,
    laws: Sequence[str] = (),
    received: datetime | None = None,
    contact: Contact = Contact(),  # noqa: B008  frozen
) -> Opened:
    """Take in a request of somebody whose identities were verified; a live one of the same account is answered with.

    `level` and `risk` are codes; `owner` is the officer whose own account it is. `laws` are those whose clocks run
    beside the promises, from `received` (when the request reached the operator, now unless it came earlier); without
    any, those of the home. `key` is the caller's idempotency key, under which the same request is answered the same
    again. `contact` hears of every move. InputError where nobody is found, and for a law that is not loaded; NotAllowed
    in a house that could not seal what it takes in.
    """
    one = Asked(tuple(identities), level, tuple(risk), owner, behalf, key, tuple(laws), received, contact)
    (opened,) = open_closures(desk, [one])
    if isinstance(opened, FangxinError):
        raise opened
    return opened


@dataclass(frozen=True)
class Asked:
    """A request as it came in; the fields of `open_closure`."""

    identities: tuple[Identity, ...] = field(repr=False)
    level: str
    risk: tuple[str, ...] = ()
    owner: str | None = None
    behalf: Behalf | None = None
    key: str | None = None
    laws: tuple[str, ...] = ()
    received: datetime | None = None
    contact: Contact = Contact()  # noqa: RUF009  frozen

    def __post_init__(self) -> None:
        """InputError for a level, a risk or an owner that is free text."""
        for word, what in ((self.level, "--verified"), *((one, "--risk") for one in self.risk)):
            code(word, what)
        if self.owner is not None:
            officer(self.owner, "--owner")

    def replay(self, desk: Desk) -> tuple[str, str] | None:
        """Digests of the idempotency key and of what was asked under it; None without a key."""
        if self.key is None:
            return None
        told = [
            [[i.kind, i.value] for i in self.identities],
            self.level,
            sorted(self.risk),
            self.owner,
            self.behalf and self.behalf.facts(),
            sorted(self.laws),
        ]
        return hashlib.sha256(self.key.encode()).hexdigest(), account_token(desk, json.dumps(told))


def open_closures(desk: Desk, asked: Sequence[Asked]) -> list[Opened | FangxinError]:
    """Take in everybody who came: one look, one durable write of keys, one transaction. What is refused is told apart.

    Each is answered as `open_closure` answers alone.
    """
    estate = desk.estate
    told: list[Opened | FangxinError | None] = [_answered(desk, one) for one in asked]
    new = [n for n, one in enumerate(told) if one is None]
    if not new:
        return [one for one in told if one is not None]
    sealing.able(estate.settings.home)
    confirm_vault(estate)
    load_sources(estate, software().sha256)
    desk.load_calendars()
    found = dict(zip(new, accounts(desk, [asked[n].identities for n in new]), strict=True))
    refs = {n: secrets.token_bytes(16) for n in new if found[n] and not isinstance(found[n], FangxinError)}
    estate.tree.ensure([*refs.values()], REQUEST_DOMAIN)
    reached = [ref for n, ref in refs.items() if asked[n].contact.channels]
    if reached:
        estate.tree.ensure(reached, CONTACT)
    made: list[Closure] = []
    with desk.together():
        for n, account in found.items():
            try:
                if isinstance(account, FangxinError):
                    raise account
                if not account:
                    hint = "check them; who was erased before is not found again"
                    raise InputError("nobody has these identities", hint=hint)
                opened, closure = _taken_in(desk, asked[n], account[0], refs[n])
                told[n] = opened
                made += [closure] if closure is not None else []
            except Replayed as before:
                told[n] = _again(desk, before)
            except FangxinError as error:
                told[n] = error
    with desk.together(made):
        for closure in made:
            verified(desk, closure)
    return [one for one in told if one is not None]


def _answered(desk: Desk, one: Asked) -> Opened | FangxinError | None:
    """What needs no look: a request that was here before, or one that is wrong; None for all others."""
    try:
        for law in one.laws or desk.estate.settings.laws:
            desk.estate.laws.law(law)
        if (one.received or desk.now) > desk.now:
            raise InputError("a request is received before it is opened", hint="give the time at which it reached you")
        if not one.identities:
            raise InputError("no identity is given", hint="--identity KIND=@FILE, each of them verified")
        replay = one.replay(desk)
        if replay is not None:
            desk.closures.replayed(*replay)
    except Replayed as before:
        return _again(desk, before)
    except FangxinError as error:
        return error
    return None


def _again(desk: Desk, before: Replayed) -> Opened:
    there = desk.closures.get(before.closure)
    kept = there.sealed is not None
    return Opened(there.id, desk.opened(there).receipt if kept else "", replayed=True)


def _taken_in(desk: Desk, one: Asked, account: str, ref: bytes) -> tuple[Opened, Closure | None]:
    """What is answered, and the new closing; None where a live one of the account was there."""
    estate, now, behalf, contact = desk.estate, desk.now, one.behalf, one.contact
    closure_id, receipt = opaque("c"), receipt_code()
    code, public = new_code()
    pairs = tuple((i.kind, i.value) for i in one.identities)
    secret = Secret(secrets.token_bytes(32), receipt, public, pairs, channels=contact.channels)
    request = advance(Request(closure_id, owner_officer=one.owner), Event("submit", Actor.HOLDER), now)
    entry = {
        "type": "request.opened",
        "tag": tag_of(secret.secret, OPENED),
        "commitment": commitment(secret.secret, secret.identities),
        "law": ",".join(sorted(n.removesuffix(".yaml") for n in estate.laws.digests)),
        "promise": f"{desk.promise.name}-{desk.promise.version}",
        "catalog": estate.catalog.digest,
    }
    risk = sorted({*one.risk, *([behalf.risk] if behalf else [])})
    laws = sorted(set(one.laws or estate.settings.laws))
    facts = {"machine": machine(request), "risk": risk, "level": one.level, "behalf": behalf and behalf.facts()}
    facts |= {"laws": laws, "received": (one.received or now).isoformat()}
    facts |= {"channels": [kind for kind, _address in contact.channels], "locale": contact.locale}
    heard = desk.notices(closure_id, ref, contact.channels, "received", contact.locale, request.version)
    told = Told("holder", "submit", {"entries": [entry]})
    try:
        closure = desk.closures.open(
            closure_id,
            receipt=receipt_digest(receipt),
            account=account_token(desk, account),
            ref=ref,
            digests=desk.digests(),
            change=Change(request.state.value, facts, told, messages=heard),
            now=now,
            sealed=desk.sealed(ref, secret),
            replay=one.replay(desk),
        )
    except AlreadyLive as live:
        return Opened(live.closure), None
    desk.told(closure)
    return Opened(closure_id, receipt, code), closure


def verified(desk: Desk, closure: Closure) -> Closure:
    """Note that the identities were verified: the clocks of the review and of the laws start."""
    entry = {"type": "request.verified", "level": closure.facts["level"]}
    started = [clock(desk, "review", closure.opened), *lawful_clocks(desk, closure)]
    return desk.take(closure, Event("verify"), desk.now, entries=[(VERIFIED, entry)], clocks=started)


def make_plan(desk: Desk, closure_id: str, choices: Sequence[Choice] = ()) -> Closure:
    """Find the person, list what they hold and decide every item; the digest of it all is what officers approve.

    Nothing in any store is changed. Raises what locating, deciding and settling raise: an item of an unknown kind, a
    loss that was not ticked, rows about which a person must look.
    """
    closure = current(desk, closure_id)
    secret = desk.opened(closure)
    stands(Behalf.of(closure.facts.get("behalf")), desk.now)
    (seen,) = look(desk, [secret], bounds([closure]))
    if isinstance(seen, FangxinError):
        raise seen
    return _planned(desk, closure, secret, seen, choices)


def make_plans(desk: Desk, closures: Sequence[Closure]) -> dict[str, Closure | FangxinError]:
    """Plan everybody who chose nothing: one look for all of them, one transaction. By closing the error of who waits.

    None of them sees anything else than alone (looks.py).
    """
    there = [verified(desk, one) if one.state == State.SUBMITTED.value else one for one in closures]
    secrets = [desk.opened(one) for one in there]
    found: dict[str, Closure | FangxinError] = {}
    seen = look(desk, secrets, bounds(there)) if there else []
    with desk.together(there):
        for closure, secret, one in zip(there, secrets, seen, strict=True):
            try:
                stands(Behalf.of(closure.facts.get("behalf")), desk.now)
                found[closure.id] = one if isinstance(one, FangxinError) else _planned(desk, closure, secret, one, ())
            except FangxinError as error:
                found[closure.id] = error
    return found


def _planned(desk: Desk, closure: Closure, secret: Secret, seen: Look, choices: Sequence[Choice]) -> Closure:
    from fangxin.flows import late

    estate, items = desk.estate, seen.items
    standing = late.blockers(items, desk.rules, closure.facts.get("blocked", {}), desk.now, desk.calendar)
    closure = late.noted(desk, closure, standing)
    waits = [one for one in standing if desk.now < one.latest]
    if waits:
        raise NotAllowed(
            "; ".join(map(str, waits)), hint="then it is planned without; or it is ended, and planned anew"
        )
    overdue = {one.item for one in standing}
    decided = settle(items, choices, desk.rules, closed=estate.now, overdue=overdue)
    worth = sum(one.money.minor for one in decided if one.money is not None)
    risk = sorted({*closure.facts["risk"], *(["value"] if worth > VALUABLE else [])})
    told = {
        "rows": seen.rows,
        "items": [told_of(d) for d in decided],
        "sealed": {address: list(names) for address, names in sealing.protection(estate).items()},
        "risk": risk,
        **desk.digests(),
    }
    digest = hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    instruments = tuple((one.id, one.instrument) for one in items if one.instrument)
    places = tuple((one.id, one.place) for one in items)
    event = Event("plan", plan=digest, high_risk=bool(risk))
    entries = [
        (SETTLED + n, {"type": "settled", "kind": d.kind, "disposition": d.fate, "digest": d.digest})
        for n, d in enumerate(decided)
    ]
    entered = desk.take(
        closure,
        event,
        desk.now,
        entries=entries,
        body={"plan": digest},
        facts={"plan": {**told, "digest": digest}},
        sealed=desk.sealed(
            closure.ref,
            replace(secret, facts=seen.facts, cases=seen.cases, instruments=instruments, places=places),
        ),
        postings=owed_for(closure.id, decided, first=0),
    )
    return entered if not worth else desk.take(entered, Event("settle"), desk.now)


def choices_of(desk: Desk, closure_id: str) -> list[dict[str, Any]]:
    """The list of what is held: per item what may become of it, what happens without a choice, and what it is worth.

    What a fate is worth is in minor units, None where it pays nothing; `default` is None where the person has to
    choose. Any: JSON.
    """
    closure = current(desk, closure_id)
    (seen,) = look(desk, [desk.opened(closure)], bounds([closure]))
    if isinstance(seen, FangxinError):
        raise seen
    return [_choice(desk, one) for one in seen.items]


def _choice(desk: Desk, one: Entitlement) -> dict[str, Any]:  # Any: JSON
    rule = desk.rules.rules.get(one.kind)
    worth: dict[str, int | None] = {}
    for fate in rule.fates if rule else ():
        try:
            (decided,) = settle([one], [Choice(one.id, fate, tick=fate == "lapse")], desk.rules, closed=desk.now)
        except NotAllowed:
            continue
        worth[fate] = decided.money.minor if decided.money else None
    try:
        default = settle([one], (), desk.rules, closed=desk.now)[0].fate
    except NotAllowed:
        default = None
    return {
        "id": one.id,
        "kind": one.kind,
        "amount": one.amount,
        "currency": one.currency,
        "expires": iso(one.expires) if one.expires else None,
        "source": one.source,
        "fates": [{"fate": fate, "minor": minor} for fate, minor in worth.items()],
        "default": default,
        "blocks": bool(rule and rule.blocks),
        "text": {"zh": rule.text_zh, "en": rule.text_en} if rule else None,
    }


# ---------------------------------------------------------------- deciding


def paper(desk: Desk, closure_id: str) -> Grant:
    """What officers sign to close an account: it names the plan. The same each time."""
    closure = desk.closures.get(closure_id)
    subject = _standing(closure)
    if subject is None:
        raise NotAllowed("there is no plan yet", hint=f"fangxin request plan {closure_id}")
    return grant_of(desk, closure, "close", subject, SIGN_WITHIN)


def grant_of(desk: Desk, closure: Closure, action: str, subject: str, within: timedelta) -> Grant:
    """A paper for officers about one closing, bound to what it is about by a digest (`subject`)."""
    return Grant(
        vault=desk.estate.tree.vault_id.hex(),
        action=action,
        domains=None,
        count=1,
        refs_sha256=refs_digest([closure.ref]),
        generation=0,
        catalog=subject,
        not_before=closure.opened.strftime("%Y-%m-%dT%H:%M:%SZ"),
        expires=(closure.opened + within).strftime("%Y-%m-%dT%H:%M:%SZ"),
        nonce=closure.id,
    )


def approve(desk: Desk, closure_id: str, approvals: Sequence[Approval]) -> Closure:
    """Take officers' signatures under the plan; with as many as the risk asks for, the closing is approved.

    NotAllowed for a signature that does not hold, an officer who signed before, or the owner of the account.
    """
    closure = current(desk, closure_id)
    stands(Behalf.of(closure.facts.get("behalf")), desk.now)
    if closure.state == State.COOLING.value and (closure.facts.get("ahead") or {}).get("plan"):
        return _ahead(desk, closure, approvals)
    sealing.able(desk.estate.settings.home)
    consumers.known(desk)
    grant = paper(desk, closure_id)
    known = [Approval.parse(text) for text in closure.facts.get("approvals", ())]
    signed(desk, grant, [*known, *approvals])
    again = {one.officer for one in known} & {one.officer for one in approvals}
    if again or len({one.officer for one in approvals}) != len(approvals):
        raise NotAllowed("an officer signs a plan once", hint="another officer signs")
    with desk.together([closure]):
        for one in approvals:
            texts = [*closure.facts.get("approvals", ()), one.text()]
            closure = _signs(desk, closure, one, grant.catalog, texts)
        request = request_of(closure)
        if request.approved and request.state is State.REVIEW:
            return approved(desk, closure, by_officers(desk.estate, grant.catalog, [*known, *approvals]))
        if request.approved and request.state is State.READY:
            return regrown(desk, closure, [*known, *approvals])
        return closure


def _ahead(desk: Desk, closure: Closure, approvals: Sequence[Approval]) -> Closure:
    """Keep officers' signatures under the plan that grew while the account is sealed; they count once regret is over.

    The owner of the account is refused here as the table refuses them later.
    """
    request = request_of(closure)
    known = [Approval.parse(text) for text in closure.facts.get("approvals_ahead", ())]
    signed(desk, paper(desk, closure.id), [*known, *approvals])
    officers = [one.officer for one in (*known, *approvals)]
    if len(set(officers)) != len(officers) or request.owner_officer in officers:
        raise NotAllowed("an officer signs a plan once, and never their own", hint="another officer signs")
    texts = [one.text() for one in (*known, *approvals)]
    by = ",".join(one.officer for one in approvals)
    return desk.write(closure, renamed(request), "signed_ahead", desk.now, by=by, facts={"approvals_ahead": texts})


def grown_signed(desk: Desk, closure: Closure) -> Closure:
    """Take over what officers signed ahead, where it was this very plan."""
    ahead = closure.facts.get("ahead") or {}
    texts = closure.facts.get("approvals_ahead") or []
    if not texts or ahead.get("plan", {}).get("digest") != request_of(closure).plan:
        return closure
    grant = paper(desk, closure.id)
    approvals = [Approval.parse(text) for text in texts]
    signed(desk, grant, approvals)
    for n, one in enumerate(approvals, start=1):
        closure = _signs(desk, closure, one, grant.catalog, texts[:n])
    return regrown(desk, closure, approvals) if request_of(closure).approved else closure


def regrown(desk: Desk, closure: Closure, approvals: Sequence[Approval]) -> Closure:
    """The ledger learns that a plan which grew was approved again."""
    request = request_of(closure)
    told = by_officers(desk.estate, request.plan or "", approvals)
    entry = (GROWN + closure.version, {"type": "approved", **told})
    return desk.write(closure, renamed(request), "approved_again", desk.now, by="officer", entries=[entry])


def _signs(desk: Desk, closure: Closure, one: Approval, plan: str, texts: Sequence[str]) -> Closure:
    event = Event("sign", Actor.OFFICER, officers=(one.officer,), plan=plan)
    return desk.take(closure, event, desk.now, by=one.officer, facts={"approvals": list(texts)})


def _standing(closure: Closure) -> str | None:
    """The plan that officers can sign: while an account is sealed, the one that grew ahead of the end."""
    ahead: dict[str, Any] = closure.facts.get("ahead") or {}
    if closure.state == State.COOLING.value and "plan" in ahead:
        return str(ahead["plan"]["digest"])
    return request_of(closure).plan


def approved(desk: Desk, closure: Closure, approval: Mapping[str, int | str]) -> Closure:
    """The plan is approved, as the ledger is told: the review's clock is met, that of the seal starts."""
    return desk.take(
        closure,
        Event("approve"),
        desk.now,
        entries=[(SIGNED, {"type": "approved", **approval})],
        met=["review"],
        clocks=[clock(desk, "start", desk.now)],
        messages=[
            *payouts(closure, desk.now, refunds=False),
            *orders(closure, desk.now),
            *consumers.messages(desk, closure, consumers.STOP),
        ],
    )


def reviewed(desk: Desk, closure: Closure) -> Closure:
    """Low risk approves itself at the end of the second working day, so that absent officers break no promise."""
    sealing.able(desk.estate.settings.home)
    consumers.known(desk)
    if not request_of(closure).automatic:  # else a run died in between
        closure = desk.take(closure, Event("approve_automatically"), desk.now)
    return approved(desk, closure, {"plan": request_of(closure).plan or "", "by": "timer"})


def reject(desk: Desk, closure_id: str, by: str, reason: str) -> Closure:
    """Refuse a request, with a code as its reason; the person may appeal."""
    closure = current(desk, closure_id)
    event = Event("reject", Actor.OFFICER, officers=(officer(by),), reason=code(reason, "--reason"))
    entry = {"type": "request.refused", "reason": reason}
    return desk.take(
        closure, event, desk.now, by=by, entries=[(REFUSED, entry)], body={"reason": reason}, met=["review"],
        give_back=True,
    )  # fmt: skip


def cancel(desk: Desk, closure_id: str) -> Closure:
    """The person withdraws before the seal."""
    closure = current(desk, closure_id)
    return desk.take(
        closure,
        Event("cancel", Actor.HOLDER),
        desk.now,
        entries=[(WITHDRAWN, {"type": "request.withdrawn"})],
        give_back=True,
    )


def expired(desk: Desk, closure: Closure) -> Closure:
    """Nobody planned it, and nobody could: it ends, and the person may ask again."""
    entry = {"type": "request.refused", "reason": "unplanned"}
    return desk.take(closure, Event("expire"), desk.now, entries=[(REFUSED, entry)], body={"reason": "unplanned"})


# ---------------------------------------------------------------- sealing and restoring


def seal(desk: Desk, closures: Sequence[Closure]) -> list[Closure]:
    """Seal these closings together; their days to change their minds begin.

    The vault's own record of a seal decides: one that was made before a crash is only noted. NotAllowed, and nothing is
    sealed, while two officers cannot answer.
    """
    estate, now = desk.estate, desk.now
    asked = {c.id: (c, desk.opened(c)) for c in closures}
    ends = now + desk.promise.regret
    made = [
        Case(name, ref, codes, secret.restore, ends)
        for _closure, secret in asked.values()
        for name, ref, codes in secret.cases
    ]
    for one in closures:
        advance(request_of(one), Event("seal"), now)
    sealing.seal(estate, made, now=now)
    sealing.commit_root(estate)
    found = []
    with desk.together(closures):
        for closure, secret in asked.values():
            until = sealing.until(estate, [ref for _case, ref, _codes in secret.cases]) or ends
            at = until - desk.promise.regret
            entry: dict[str, int | str] = {"type": "sealed", "until": until.strftime("%Y-%m-%dT%H:%MZ")}
            clocks = [clock(desk, name, at) for name in ("regret", "done")]
            found.append(desk.take(closure, Event("seal"), at, entries=[(SEALED, entry)], met=["start"], clocks=clocks))
    return found


def restore(
    desk: Desk, closure_id: str, *, code: str | None = None, answers: Mapping[bytes, Sequence[bytes]] | None = None
) -> Closure:
    """Bring an account back: by the restore code, or by two officers who answered. A login alone is no proof.

    The intent is noted first: a restore that was interrupted after the keys were back is finished by run-due.
    """
    closure = current(desk, closure_id)
    secret, given = desk.opened(closure), answers or {}
    names = sorted({_name_of(desk, one[:4]) for some in given.values() for one in some})
    if code is not None:
        event = Event("restore", Actor.HOLDER, proof="code")
    else:
        event = Event("restore", Actor.AGENT, proof="officers", officers=tuple(names))
    advance(request_of(closure), event, desk.now)
    if code is None and not secret.cases and request_of(closure).state is not State.SEALING:
        raise NotAllowed("nothing of this person lies under keys: only the restore code brings it back")
    if code is not None:
        closure = proved(desk, closure, code)
    noted = {"actor": event.actor.value, "proof": event.proof, "officers": list(event.officers), "at": iso(desk.now)}
    intent = renamed(request_of(closure))
    closure = desk.write(
        closure, intent, "restore.intended", desk.now, by=event.actor.value, facts={"restoring": noted}
    )
    sealing.restore(desk.estate, secret.cases, code=code, answers=given, now=desk.now)
    return restored(desk, closure)


def restored(desk: Desk, closure: Closure) -> Closure:
    """Note a restore whose keys are back, as of the moment of its intent."""
    noted = closure.facts["restoring"]
    event = Event("restore", Actor(noted["actor"]), proof=noted["proof"], officers=tuple(noted["officers"]))
    return desk.take(
        closure,
        event,
        datetime.fromisoformat(noted["at"]),
        entries=[(RESTORED, {"type": "restored"})],
        met=["start", "regret", "done"],
        messages=consumers.messages(desk, closure, consumers.RESUME, desk.outbox.history(closure.id, consumers.KIND)),
        give_back=True,
    )


def waive(desk: Desk, closure_id: str, code: str) -> Closure:
    """The person, who shows the restore code, ends the days to change their mind a day from now. Low risk only."""
    closure, event = current(desk, closure_id), Event("waive", Actor.HOLDER)
    advance(request_of(closure), event, desk.now)
    return desk.take(proved(desk, closure, code), event, desk.now)


# ---------------------------------------------------------------- reading


def current(desk: Desk, closure_id: str) -> Closure:
    """A closing, with what a crash may have left to be told or noted."""
    closure = desk.closures.get(closure_id)
    desk.told(closure)
    if closure.state == State.SUBMITTED.value:
        closure = verified(desk, closure)
    return closure


# ---------------------------------------------------------------- inside


def told_of(d: Disposition) -> dict[str, Any]:
    """A disposition as it stands in a plan. Any: JSON."""
    return {
        "id": d.entitlement,
        "kind": d.kind,
        "fate": d.fate,
        "amount": d.amount,
        "minor": d.money.minor if d.money else None,
        "currency": d.money.currency if d.money else d.currency,
        "lost": d.lost,
        "version": d.version,
        "digest": d.digest,
    }


def owed_for(closure_id: str, decided: Sequence[Disposition], *, first: int) -> list[tuple[str, str, str, int]]:
    """The postings that owe what was decided; `first` numbers their entries on from those of an earlier plan."""
    return [
        (f"owed-{closure_id}-{first + n}", half.account, half.currency, half.minor)
        for n, one in enumerate(decided)
        for half in posted([one])
    ]


def payouts(closure: Closure, due: datetime, *, refunds: bool) -> list[Message]:
    """Outbox rows for what is owed: balances once it is approved; refunds, quoted until then, once regret is over."""
    found = []
    for one in closure.facts["plan"]["items"]:
        if one["minor"] and (one["fate"] == "refund") == refunds:
            found.append(payout(closure.id, one, due))
    return found


def payout(closure_id: str, item: Mapping[str, Any], due: datetime) -> Message:
    """The row that pays an item; its key makes it act once at the far side, however often it is tried."""
    key = hashlib.sha256(f"{closure_id}|{item['id']}|{item['fate']}|{item['version']}".encode()).hexdigest()
    body = {"item": item["id"], "fate": item["fate"], "minor": item["minor"], "currency": item["currency"]}
    return Message(key, "payout", body, due)


def signed(desk: Desk, grant: Grant, approvals: Sequence[Approval]) -> tuple[str, ...]:
    """The officers whose signatures under this paper hold; NotAllowed for one that is for something else."""
    if any(one.grant != grant.canonical() for one in approvals):
        raise NotAllowed("a signature is for another paper", hint="have the one signed that stands now")
    names = desk.estate.tree.guard.approvers(grant, approvals, now=desk.now)
    if not names:
        raise NotAllowed("no officer has signed", hint="`fangxin keys approve` signs what `fangxin request plan` wrote")
    return names


def _name_of(desk: Desk, fingerprint: bytes) -> str:
    """The officer of a fingerprint; two answers of one officer are one."""
    for name, key in sealing.answerers(desk.estate.settings.home).items():
        if hashlib.sha256(b"fangxin/seal/officer" + key).digest()[:4] == fingerprint:
            return name
    return fingerprint.hex()


def account_token(desk: Desk, account: str) -> str:
    """A keyed digest of an account, so that it has one live closing; the key never leaves the vault."""
    ref = ref_of("fangxin", "accounts")
    desk.estate.tree.ensure([ref], INDEX)
    return hmac.new(desk.estate.tree.get(ref, INDEX), account.encode(), hashlib.sha256).hexdigest()


def iso(moment: datetime) -> str:
    """An instant as answers show it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

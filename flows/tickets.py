"""Tickets: questions under a receipt code, answered by a person in time, also when the account is long gone.

    open      by the holder (web) or an agent who hears the code (phone); the receipt's digest binds it
    alarm     at 50, 80 and 100 % of the time to the first answer; at 100 it is a broken promise, for ever
    answer    by an officer; the first answer meets the clock
    close     by either side, or by itself when nobody has anything more to say
    forget    some days after the close, and at the erasure for what is closed by then: the texts' key dies

* Nothing personal is kept in clear: identities that can be seen are refused or masked before anything is written
  (`spotting.py`), and the rest lies under a key of the ticket's own.
* An agent on the phone sees states and dates and no text; an officer sees texts and no code.
* How soon: by category (`data/support/*.toml`), else the promise's first answer (P6).
"""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from fangxin.data.closures.engine import Taken as Overlapped
from fangxin.data.closures.tickets import ANSWERED, CLOSED, OPEN, Ticket, Tickets
from fangxin.data.errors import InputError, NotAllowed
from fangxin.data.keys.domains import TICKET
from fangxin.data.keys.envelope import open_blob, seal_blob
from fangxin.data.keys.faults import KeyAbsent
from fangxin.data.keys.grant import Grant
from fangxin.data.requests import opaque
from fangxin.flows import sealing
from fangxin.flows.channels import Channels
from fangxin.flows.clocks import Clock
from fangxin.flows.delivery import escalation
from fangxin.flows.desk import Desk
from fangxin.flows.evidence import record
from fangxin.flows.spotting import masked, warning

COMPLAINTS = frozenset({"complaint", "dispute", "appeal", "refund", "export_failed"})
MOST_A_DAY = 5
MOST_BYTES = 4096
_LABEL = b"fangxin/tickets/1"


class Role(StrEnum):
    """Who speaks."""

    WEB = "web"
    PHONE = "phone"
    OFFICER = "officer"


# ---------------------------------------------------------------- moving


@dataclass(frozen=True)
class Taken:
    """A ticket that was opened, and what was masked in its text, by kind."""

    ticket: Ticket
    masked: Counter[str]


def open_ticket(desk: Desk, receipt: str, category: str, text: str, *, role: Role, locale: str, mask: bool) -> Taken:
    """Open a ticket under a receipt (its digest; the closing of it exists). Nothing is kept that can be spotted.

    InputError for a text that is empty, longer than 4 KiB or, unless `mask`, holds an identity; NotAllowed after the
    fifth of a day.
    """
    if role is Role.OFFICER:
        raise NotAllowed("an officer answers tickets; holders open them", hint="--as web or --as phone")
    running = desk.support.clock(category, desk.promise, desk.calendar, desk.now)
    kept, counts = _kept(text, locale, mask=mask)
    ref = secrets.token_bytes(16)
    told = {
        "zone": running.zone,
        "source": running.source,
        "calendar": running.calendar,
        "provisional": running.provisional,
        "locale": locale,
    }
    ticket = Ticket(opaque("t"), receipt, category, OPEN, desk.now, running.deadline, told, 0, None, None, None, ref)
    desk.estate.tree.ensure([ref], TICKET)
    tickets = Tickets(desk.closures.engine)
    sealed = _sealed(desk, ref, 0, kept)
    tickets.open(ticket, role.value, sealed, most=MOST_A_DAY, since=desk.now - timedelta(days=1))
    record(desk.estate, complaints([ticket]))
    return Taken(tickets.get(ticket.id), counts)


def answer_ticket(desk: Desk, ticket_id: str, text: str, *, mask: bool) -> Taken:
    """An officer's answer; it is looked through like a question."""
    tickets = Tickets(desk.closures.engine)
    ticket = tickets.get(ticket_id)
    if ticket.state == CLOSED:
        raise NotAllowed(f"ticket {ticket_id} is closed", hint="a new one can be opened with the receipt code")
    kept, counts = _kept(text, ticket.told["locale"], mask=mask)
    seq = len(tickets.words(ticket_id))
    try:
        answered = tickets.answer(ticket_id, seq, _sealed(desk, ticket.ref, seq, kept), desk.now)
    except Overlapped:
        raise NotAllowed(f"ticket {ticket_id} was answered meanwhile", hint="read it again") from None
    return Taken(answered, counts)


def close_ticket(desk: Desk, ticket_id: str, role: Role) -> Ticket:
    """Nothing more is to be said: the days begin after which the texts' key dies.

    NotAllowed before the first answer unless the holder says so: no clock is stopped by whoever it runs against.
    """
    tickets = Tickets(desk.closures.engine)
    if tickets.get(ticket_id).answered is None and role is not Role.WEB:
        raise NotAllowed(f"ticket {ticket_id} has no answer yet", hint="answer it; only its holder closes it before")
    tickets.close([ticket_id], desk.now)
    return tickets.get(ticket_id)


def of_receipt(desk: Desk, ticket_id: str, receipt: str) -> Ticket:
    """A ticket of this receipt; InputError, in the words for one that does not exist, for anybody else's."""
    found = [one for one in Tickets(desk.closures.engine).of(receipt) if one.id == ticket_id]
    if not found:
        raise InputError(f"no ticket {ticket_id}", hint="`fangxin ticket list` shows them")
    return found[0]


def texts(desk: Desk, ticket: Ticket) -> list[dict[str, str | None]]:
    """What was said, in order; None for texts whose key is dead."""
    found: list[dict[str, str | None]] = []
    for word in Tickets(desk.closures.engine).words(ticket.id):
        said = None
        if word.sealed is not None:
            try:
                key = desk.estate.tree.get(ticket.ref, TICKET)
                said = open_blob(key, word.sealed, _label(ticket.ref, word.seq)).decode("utf-8")
            except KeyAbsent:
                said = None  # killed between the key's death and the emptying: run-due goes on
        found.append({"at": word.time.strftime("%Y-%m-%dT%H:%M:%SZ"), "role": word.role, "text": said})
    return found


# ---------------------------------------------------------------- what is due


@dataclass(frozen=True)
class Alarm:
    """A ticket that waits for its first answer has used up so many per cent of its time; at 100 it is a breach."""

    ticket: str
    category: str
    percent: int


def look_after(desk: Desk, channels: Channels) -> list[Alarm]:
    """Tell every alarm once, close what went quiet, and let the texts' keys die whose days are over.

    From 80 % on officers hear of it by their mailbox, where the home has one.
    """
    tickets, found = Tickets(desk.closures.engine), []
    record(desk.estate, complaints(tickets.standing(OPEN)))  # what a kill left untold
    for ticket in tickets.standing(OPEN):
        percent = clock_of(ticket).alarm(desk.now) or 0
        if percent <= ticket.alarmed:
            continue
        if percent >= 80:
            closure = desk.closures.by_receipt(ticket.receipt).id
            for message in escalation(f"{ticket.id}-{percent}", "ticket_late", desk.now, channels):
                desk.outbox.add(closure, message)
        if tickets.alarm(ticket.id, percent):
            found.append(Alarm(ticket.id, ticket.category, percent))
    quiet = desk.now - desk.support.quiet
    tickets.close([t.id for t in tickets.standing(ANSWERED) if t.answered and t.answered <= quiet], desk.now)
    forget(desk, [t for t in tickets.known() if t.closed and t.closed <= desk.now - desk.support.keep])
    return found


def complaints(tickets: Sequence[Ticket]) -> list[dict[str, int | str]]:
    """Complaints, as the ledger has them and the public report counts them: by category, under a tag of their own."""
    return [
        {
            "type": "exception",
            "tag": hashlib.sha256(b"fangxin/complaint" + one.ref).hexdigest()[:32],
            "code": f"complaint/{one.category}",
            "role": "holder",
        }
        for one in tickets
        if one.category in COMPLAINTS
    ]


def forget(desk: Desk, tickets: Sequence[Ticket]) -> None:
    """The keys of these tickets' texts die, all under one new root; then the texts are emptied."""
    if not tickets:
        return
    tree = desk.estate.tree
    drops = {ticket.ref: frozenset({TICKET}) for ticket in tickets}
    grant = Grant.of(drops, vault=tree.vault_id, generation=tree.generation, catalog="", not_before=desk.estate.now)
    tree.destroy(drops, grant=grant, now=desk.estate.now)
    sealing.commit_root(desk.estate)
    Tickets(desk.closures.engine).forget([ticket.id for ticket in tickets], desk.now)


def clock_of(ticket: Ticket) -> Clock:
    """The clock of a ticket's first answer; a holder who closes it unanswered needs none any more."""
    told = {key: ticket.told[key] for key in ("zone", "source", "calendar", "provisional")}
    return Clock("first_answer", ticket.opened, ticket.due, met=ticket.answered or ticket.closed, **told)


# ---------------------------------------------------------------- inside


def _kept(text: str, locale: str, *, mask: bool) -> tuple[str, Counter[str]]:
    text = text.strip()
    if not text or len(text.encode()) > MOST_BYTES:
        raise InputError(f"a text: expected 1 to {MOST_BYTES} bytes; found {len(text.encode())}")
    told, counts = masked(text, locale)
    if counts and not mask:
        raise InputError(
            f"{warning(counts, 'zh')} {warning(counts, 'en')} Nothing was kept.",
            hint="leave it out, or let it be masked with --mask",
        )
    return told, counts


def _sealed(desk: Desk, ref: bytes, seq: int, text: str) -> bytes:
    return seal_blob(desk.estate.tree.get(ref, TICKET), text.encode(), _label(ref, seq))


def _label(ref: bytes, seq: int) -> bytes:
    return _LABEL + ref + seq.to_bytes(4, "big")

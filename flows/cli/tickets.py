"""Commands of tickets: open, answer, list, show, close. Texts come from a file or standard input."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fangxin.data.errors import InputError, unread
from fangxin.flows.cli.console import answer, say, table
from fangxin.flows.cli.desk import at_home, read_code

if TYPE_CHECKING:
    from fangxin.data.closures.tickets import Ticket
    from fangxin.flows.desk import Desk
    from fangxin.flows.tickets import Taken

Document = dict[str, Any]  # Any: JSON


def open_ticket(
    home: Path, catalog: Path | None, receipt: str, category: str, text: str, *, role: str, mask: bool, locale: str,
    now: str | None, as_json: bool,
) -> int:  # fmt: skip
    """Ask something under a receipt code."""
    from fangxin.flows import tickets
    from fangxin.flows.receipt import by_code

    if locale not in ("zh", "en"):
        raise InputError(f"--lang: expected zh or en; found {locale}")
    said, who = _read(text), _role(role)
    with at_home(home, catalog, now, alone=False) as desk:
        closure = by_code(desk, read_code(receipt), source=f"console/{who.value}")
        made = tickets.open_ticket(desk, closure.receipt, category, said, role=who, locale=locale, mask=mask)
        document = _taken(desk, made)
    _tell(document, as_json=as_json)
    return 0


def answer_ticket(
    home: Path, catalog: Path | None, ticket: str, text: str, *, mask: bool, now: str | None, as_json: bool
) -> int:
    """Answer as an officer."""
    from fangxin.flows import tickets

    said = _read(text)
    with at_home(home, catalog, now, alone=False) as desk:
        document = _taken(desk, tickets.answer_ticket(desk, ticket, said, mask=mask))
    _tell(document, as_json=as_json)
    return 0


def listing(
    home: Path, catalog: Path | None, receipt: str | None, *, waiting: bool, now: str | None, as_json: bool
) -> int:
    """Tickets of a receipt, or all."""
    from fangxin.data.closures.tickets import OPEN, Tickets
    from fangxin.flows.receipt import by_code

    with at_home(home, catalog, now, alone=False) as desk:
        store = Tickets(desk.closures.engine)
        if receipt is None:
            found = store.standing(OPEN) if waiting else store.all()
        else:
            found = store.of(by_code(desk, read_code(receipt), source="console").receipt)
            found = [one for one in found if one.state == OPEN or not waiting]
        rows = [_row(desk, one) for one in found]
        categories = {c.code: {"zh": c.zh, "en": c.en} for c in desk.support.categories.values()}
    answer(
        {"tickets": rows, "categories": categories},
        as_json=as_json,
        words=lambda: table(
            ("ticket", "category", "state", "first answer by", "answered", ""),
            [
                (r["ticket"], r["category"], r["state"], r["first_answer_by"], r["answered"] or "",
                 "late" if r["breached"] else "")
                for r in rows
            ],
        ) if rows else say(f"no tickets; categories: {', '.join(categories)}"),
    )  # fmt: skip
    return 0


def show(
    home: Path, catalog: Path | None, ticket: str, receipt: str | None, *, role: str, now: str | None, as_json: bool
) -> int:
    """One ticket, with its texts unless an agent on the phone asks."""
    from fangxin.flows import tickets

    who = _role(role)
    with at_home(home, catalog, now, alone=False) as desk:
        one = _asked(desk, ticket, receipt, who)
        said = tickets.texts(desk, one)
        if who is tickets.Role.PHONE:
            said = [{**word, "text": None} for word in said]
        document = {**_alone(desk, one), "said": said}
    _tell(document, as_json=as_json)
    return 0


def close(
    home: Path, catalog: Path | None, ticket: str, receipt: str | None, *, role: str, now: str | None, as_json: bool
) -> int:
    """Close a ticket, by either side."""
    from fangxin.flows import tickets

    with at_home(home, catalog, now, alone=False) as desk:
        one = _asked(desk, ticket, receipt, _role(role))
        document = _alone(desk, tickets.close_ticket(desk, one.id, _role(role)))
    _tell(document, as_json=as_json)
    return 0


# ---------------------------------------------------------------- inside


def _asked(desk: Desk, ticket: str, receipt: str | None, role: Any) -> Ticket:  # Any: Role, imported late
    from fangxin.data.closures.tickets import Tickets
    from fangxin.flows.receipt import by_code
    from fangxin.flows.tickets import Role, of_receipt

    if role is Role.OFFICER:
        return Tickets(desk.closures.engine).get(ticket)
    if receipt is None:
        raise InputError("--receipt: expected the receipt code, or @FILE", hint="an officer adds --as officer instead")
    return of_receipt(desk, ticket, by_code(desk, read_code(receipt), source=f"console/{role.value}").receipt)


def _role(given: str) -> Any:  # Any: Role, imported late
    from fangxin.flows.tickets import Role

    try:
        return Role(given)
    except ValueError:
        raise InputError(f"--as: expected one of {', '.join(Role)}; found {given}") from None


def _read(given: str) -> str:
    try:
        if given == "-":
            return sys.stdin.read()
        if given.startswith("@"):
            return Path(given[1:]).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--text: cannot be read: {unread(error)}") from None
    raise InputError("--text: expected @FILE or -", hint="a text on the command line stays in the shell's history")


def _taken(desk: Desk, made: Taken) -> Document:
    return {**_alone(desk, made.ticket), "masked": dict(sorted(made.masked.items()))}


def _alone(desk: Desk, one: Ticket) -> Document:
    return {**_row(desk, one), "masked": {}, "said": []}


def _row(desk: Desk, one: Ticket) -> Document:
    from fangxin.flows.tickets import clock_of

    def iso(moment: Any) -> str | None:  # Any: datetime or None
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None

    return {
        "ticket": one.id,
        "category": one.category,
        "state": one.state,
        "opened": iso(one.opened),
        "first_answer_by": iso(one.due),
        "provisional": one.told["provisional"],
        "answered": iso(one.answered),
        "closed": iso(one.closed),
        "forgotten": iso(one.forgotten),
        "breached": clock_of(one).breached(desk.now),
    }


def _tell(document: Document, *, as_json: bool) -> None:
    def words() -> None:
        late = ", later than promised" if document["breached"] else ""
        say(f"{document['ticket']}: {document['category']}, {document['state']}{late}")
        say(f"first answer by {document['first_answer_by']}; given {document['answered'] or 'not yet'}")
        for kind, count in document["masked"].items():
            say(f"masked: {count} x {kind}")
        for word in document["said"]:
            say(f"{word['at']}  {word['role']}: {word['text'] if word['text'] is not None else '—'}")

    answer(document, as_json=as_json, words=words)

"""Commands of what an account holds: claim what nobody could be paid, note what arrives late, give items away."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fangxin.data.errors import InputError
from fangxin.flows.cli.closing import _moment as read_moment
from fangxin.flows.cli.closing import _tell as show
from fangxin.flows.cli.console import answer, say, table
from fangxin.flows.cli.desk import at_home, read_code


def claim(home: Path, catalog: Path | None, receipt: str, to: str, now: str | None, as_json: bool) -> int:
    """Pay what is unclaimed under a receipt code to the provider's token of whoever has the code."""
    from fangxin.flows import claims
    from fangxin.flows.receipt import by_code

    with at_home(home, catalog, now) as desk:
        found = claims.claim(desk, read_code(receipt), read_code(to))
        left = claims.unclaimed(desk, by_code(desk, read_code(receipt), source="console"))
    document: dict[str, Any] = {  # Any: JSON
        "claims": [{"currency": currency, "outcome": outcome} for currency, outcome in sorted(found.items())],
        "left": [{"currency": one.currency, "minor": one.minor} for one in (left.sums if left else ())],
    }

    def words() -> None:
        for one in document["claims"]:
            say(f"{one['currency']}: {one['outcome']}")
        for one in document["left"]:
            say(f"still unclaimed: {one['minor']} minor units {one['currency']}")

    answer(document, as_json=as_json, words=words)
    return 0 if left is None else 4


def arrived(
    home: Path, catalog: Path | None, closure: str, amount: str, currency: str, reference: str, now: str | None,
    as_json: bool,
) -> int:  # fmt: skip
    """Note money that came in for an account that is closed or closing."""
    from fangxin.flows import claims
    from fangxin.flows.refund import Money
    from fangxin.flows.standing import status

    with at_home(home, catalog, now) as desk:
        document = status(desk, claims.arrived(desk, closure, Money.parse(amount, currency), reference))
    show(document, as_json=as_json)
    return 0


def items(home: Path, catalog: Path | None, closure: str, now: str | None, as_json: bool) -> int:
    """The list of what the account of a closing holds, and what may become of each item."""
    from fangxin.flows.closing import choices_of

    with at_home(home, catalog, now) as desk:
        found = choices_of(desk, closure)

    def words() -> None:
        table(
            ("item", "kind", "amount", "may become", "else"),
            [
                (
                    one["id"],
                    one["kind"],
                    one["amount"],
                    " ".join(
                        fate["fate"] if fate["minor"] is None else f"{fate['fate']}:{fate['minor']}"
                        for fate in one["fates"]
                    ),
                    one["default"] or "to be chosen",
                )
                for one in found
            ],
        )

    answer({"closure": closure, "items": found}, as_json=as_json, words=words)
    return 0


def export(
    home: Path, catalog: Path | None, closure: str, out: Path | None, *, collected: bool, waive: bool, now: str | None,
    as_json: bool,
) -> int:  # fmt: skip
    """Write the person's data into a folder, or note that they have it, or that they want none."""
    from fangxin.flows import takeaway
    from fangxin.flows.standing import status

    if (out is not None) + collected + waive != 1:
        raise InputError("expected one of --out DIR, --collected, --waive")
    with at_home(home, catalog, now) as desk:
        if out is not None:
            found = takeaway.take(desk, closure, out)
        else:
            found = takeaway.collected(desk, closure) if collected else takeaway.waived(desk, closure)
        document = status(desk, found)
    show(document, as_json=as_json)
    return 0


def offer(
    home: Path, catalog: Path | None, closure: str, item: str, until: str | None, now: str | None, as_json: bool
) -> int:
    """Offer an item of a closing; the code is shown this once, and whoever has it may accept."""
    from fangxin.flows import transfers

    with at_home(home, catalog, now) as desk:
        code, ends = transfers.offer(desk, closure, item, read_moment(until, "--until") if until else None)
    document = {"item": item, "offer_code": code, "until": ends.strftime("%Y-%m-%dT%H:%M:%SZ")}

    def words() -> None:
        say(f"offer code  {code}  until {document['until']}; hand it to whoever shall have it")

    answer(document, as_json=as_json, words=words)
    return 0


def accept(
    home: Path, catalog: Path | None, code: str, identities: Sequence[str], now: str | None, as_json: bool
) -> int:
    """Take an offered item over into the account of these verified identities."""
    from fangxin.flows import transfers
    from fangxin.flows.subjects import read_identities

    with at_home(home, catalog, now) as desk:
        people, _plain = read_identities(identities, desk.estate.catalog)
        item = transfers.accept(desk, read_code(code), people)
    answer({"item": item, "state": "accepted"}, as_json=as_json, words=lambda: say(f"{item} is accepted"))
    return 0


def decline(home: Path, catalog: Path | None, code: str, now: str | None, as_json: bool) -> int:
    """End an open offer, for whoever has its code."""
    from fangxin.flows import transfers

    with at_home(home, catalog, now) as desk:
        item = transfers.decline(desk, read_code(code))
    answer({"item": item, "state": "declined"}, as_json=as_json, words=lambda: say(f"{item} is declined"))
    return 0

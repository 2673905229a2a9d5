"""Commands of the money side of a closing: claim what nobody could be paid, and note what arrives too late."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fangxin.flows.cli.closing import _code as read_code
from fangxin.flows.cli.closing import _desk as at_home
from fangxin.flows.cli.closing import _tell as show
from fangxin.flows.cli.console import answer, say


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
    from fangxin.flows.closing import status
    from fangxin.flows.refund import Money

    with at_home(home, catalog, now) as desk:
        document = status(desk, claims.arrived(desk, closure, Money.parse(amount, currency), reference))
    show(document, as_json=as_json)
    return 0

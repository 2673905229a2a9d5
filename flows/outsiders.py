"""Outsiders: the witnesses and the time stamping authority that the settings name are asked about the ledger's head.

In this order: signed by us, cosigned, stamped, published. Who does not answer in time delays nothing: the package goes
out without, an `exception` on record says so, and the next head is asked for again.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from fangxin.data.errors import DoesNotHold, FangxinError, Unavailable
from fangxin.flows.estate import Estate
from fangxin.reports.ledger import checkpoint as notes
from fangxin.reports.ledger import exchange
from fangxin.reports.ledger.log import Ledger
from fangxin.reports.ledger.stamp import HttpTimeStamper, TimeStamper

SECONDS = 5.0  # for each witness


def attest(estate: Estate, stamper: TimeStamper | None = None) -> list[str]:
    """Have the head cosigned and stamped; returns the codes of what was promised and did not happen."""
    settings, ledger = estate.settings, estate.ledger
    if ledger.stamped:
        return []
    stamper = stamper or (HttpTimeStamper(settings.tsa) if settings.tsa else None)
    lacking = [] if cosign(estate) >= settings.quorum else ["witness.unavailable"]
    if stamper is not None and not lacking:
        lacking += _tried(lambda: ledger.stamp(stamper.stamp), "tsa.unavailable")
    if lacking:
        ledger.append([{"type": "exception", "time": estate.minute, "code": one, "role": "ledger"} for one in lacking])
        cosign(estate)  # the head that says so deserves it as well
    return lacking


def cosign(estate: Estate) -> int:
    """Ask every witness of the settings, and return how many known witnesses have cosigned the head now."""
    ledger = estate.ledger
    for url in estate.settings.witnesses:
        _tried(lambda url=url: ledger.witnessed(asked(url, ledger)), "")  # type: ignore[misc]  # a bound default
    return len(notes.cosignatures(ledger.checkpoint(), estate.signing.witnesses))


def asked(url: str, ledger: Ledger, known: int = 0, *, again: bool = True) -> bytes:
    """Ask one witness over HTTP (tlog-witness); returns its signature lines, or raises Unavailable or DoesNotHold."""
    import httpx

    body = exchange.request(known, ledger.consistency(known), ledger.checkpoint())
    try:
        reply = httpx.post(url.rstrip("/") + exchange.PATH, content=body, timeout=SECONDS)
    except httpx.HTTPError:
        raise Unavailable("a witness does not answer", hint="it is asked again with the next head") from None
    if reply.status_code == 200:
        return reply.content
    size = reply.content.removesuffix(b"\n")
    if reply.status_code == 409 and again and size.isdigit() and int(size) != known and int(size) <= ledger.size:
        return asked(url, ledger, int(size), again=False)
    if reply.status_code == 409:
        raise DoesNotHold("a witness has seen more of this ledger, or another one", hint="compare with its checkpoint")
    raise Unavailable(f"a witness answered {reply.status_code}", hint="was it given this log's key?")


def _tried(work: Callable[[], object], code: str) -> list[str]:
    try:
        work()
    except FangxinError:
        return [code]
    return []


def now() -> int:
    """The time in POSIX seconds: a witness dates its own cosignature."""
    return int(time.time())

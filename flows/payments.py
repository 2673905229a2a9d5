"""Paying out: a small protocol to a provider of payments, and one that speaks HTTP; one payment a key, come what may.

What the provider promises; each call carries our key:

    pay    POST /payments             pays once a key; the same key again answers what it answered before
    find   GET  /payments/KEY         what became of a key; 404 where it never arrived
    void   POST /payments/KEY/void    from now on never to be paid; or says that it was paid already
    move   POST /transfers            moves an item to another account, once a key (`transfers.py`)
    order  POST /orders               ends a mandate, a binding, a grant, once a key (`orders.py`)

* Whoever may have called before asks first (`find`), and only then pays again under the same key.
* An answer whose key, amount or currency is not ours, or a refusal that `find` does not repeat, is a contradiction: the
  row is parked for an officer and nothing is booked as paid.
* Where the provider will never pay (the account is closed, the card is gone), or there is nothing to pay to, the money
  is unclaimed: whoever has the receipt code claims it otherwise (`claims.py`).
* When a closing does not happen, what may have been sent is voided: what was paid stays paid, the rest goes back.

Instruments are the provider's own tokens; they lie sealed with what is known of the person and die with it.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import re
import ssl
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote, urlsplit

from fangxin.data.closures.outbox import Connector, Never, Refused, Row
from fangxin.data.errors import InputError, unread
from fangxin.flows.refund import Money

STATUSES: Final = ("paid", "pending", "declined", "void")
_MOST = 65_536  # bytes of an answer
_CODE = re.compile(r"[A-Za-z0-9._:/+-]{0,128}")  # what is kept of an answer is a code, never a sentence


@dataclass(frozen=True)
class Order:
    """What is to be paid: the key under which it is paid once, the amount, and the provider's token to pay it to."""

    key: str
    money: Money
    instrument: str = field(repr=False, default="")


@dataclass(frozen=True)
class Answer:
    """What the provider says of a key; `reason` is its code, where it declined."""

    key: str
    money: Money
    status: str
    reference: str
    reason: str = ""


class Provider(Protocol):
    """Whoever pays and moves items for the operator. Each call raises Refused where no answer came."""

    def pay(self, order: Order) -> Answer: ...  # noqa: D102
    def find(self, key: str) -> Answer | None: ...  # noqa: D102
    def void(self, key: str, money: Money) -> Answer: ...  # noqa: D102
    def move(self, key: str, place: str, receiver: str) -> str: ...  # noqa: D102
    def order(self, key: str, what: str, place: str) -> str: ...  # noqa: D102


def carry(provider: Provider, order: Order, *, asked: bool, stop: str = "") -> str:
    """Have an order paid; returns the provider's reference. Refused where it is not, Never where it will never be.

    `stop`: it is not wanted any more, and this is the account where its money goes if it was not paid.
    """
    known = provider.find(order.key) if asked or stop else None
    if known is None or (stop and known.status == "pending"):
        if not stop and not order.instrument:
            raise Never("no_instrument", to="unclaimed")
        known = provider.void(order.key, order.money) if stop else provider.pay(order)
    if (known.key, known.money) != (order.key, order.money):
        raise Refused("contradiction", final=True)
    if known.status == "paid":
        return known.reference
    if known.status == "pending":
        raise Refused("pending", waits=True)
    again = provider.find(order.key)
    if again is None or (again.key, again.money, again.status) != (known.key, known.money, known.status):
        raise Refused("contradiction", final=True)
    raise Never(known.status if stop else known.reason or known.status, to=stop or "unclaimed")


def connector(provider: Provider, instrument: Callable[[Row], str], stop: Callable[[Row], str]) -> Connector:
    """Carry out rows that pay: `instrument` opens a row's token ("" where there is none), `stop` as in `carry`."""

    def work(row: Row) -> str:
        order = Order(row.key, Money(row.body["minor"], row.body["currency"]), instrument(row))
        return carry(provider, order, asked=row.asked, stop=stop(row))

    return work


# ---------------------------------------------------------------- over HTTP


@dataclass(frozen=True)
class HttpProvider:
    """A provider at an address; TLS, or our own machine in a rehearsal. Times are in seconds."""

    host: str
    port: int
    path: str
    token: str = field(repr=False)
    context: ssl.SSLContext | None = None  # None: no TLS
    timeout: float = 20.0

    def pay(self, order: Order) -> Answer:
        """Ask for a payment; the same key again answers the same."""
        body = {"amount": order.money.minor, "currency": order.money.currency, "instrument": order.instrument}
        return self._told(self._call("POST", "/payments", order.key, body))

    def find(self, key: str) -> Answer | None:
        """What became of a key; None where the provider never heard of it."""
        status, found = self._call("GET", f"/payments/{quote(key)}", key)
        return None if status == 404 else self._told((status, found))

    def void(self, key: str, money: Money) -> Answer:
        """Never pay under this key from now on; the answer says if it was paid already."""
        body = {"amount": money.minor, "currency": money.currency}
        return self._told(self._call("POST", f"/payments/{quote(key)}/void", key, body))

    def move(self, key: str, place: str, receiver: str) -> str:
        """Move an item to another account, once a key; the far side's reference."""
        return self._done("/transfers", key, {"item": place, "receiver": receiver})

    def order(self, key: str, what: str, place: str) -> str:
        """Have an item ended at the far side (cancel, unbind, revoke, dissolve), once a key; its reference is proof."""
        return self._done("/orders", key, {"what": what, "item": place})

    def _done(self, path: str, key: str, told: dict[str, Any]) -> str:
        status, body = self._call("POST", path, key, told)
        if not 200 <= status < 300:
            raise Refused(f"provider_{status}", final=400 <= status < 500 and status != 429)
        try:
            raw = json.loads(body)
            same, reference = raw["key"] == key, str(raw["id"])
        except (ValueError, KeyError, TypeError):
            raise Refused("provider_malformed") from None
        if not same or not _CODE.fullmatch(reference):
            raise Refused("contradiction", final=True)
        return reference

    def _call(self, method: str, path: str, key: str, body: dict[str, Any] | None = None) -> tuple[int, bytes]:
        made: http.client.HTTPConnection
        if self.context is None:
            made = http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)
        else:
            made = http.client.HTTPSConnection(self.host, self.port, timeout=self.timeout, context=self.context)
        headers = {"Authorization": f"Bearer {self.token}", "Idempotency-Key": key, "Content-Type": "application/json"}
        try:
            made.request(method, self.path + path, None if body is None else json.dumps(body).encode(), headers)
            answer = made.getresponse()
            return answer.status, answer.read(_MOST)
        except (OSError, http.client.HTTPException):
            raise Refused("provider_unreachable") from None  # it may have done it: the next try asks first
        finally:
            made.close()

    def _told(self, answer: tuple[int, bytes]) -> Answer:
        status, body = answer
        if status == 429 or status >= 500:
            raise Refused(f"provider_{status}")
        if not 200 <= status < 300:
            raise Refused(f"provider_{status}", final=True)  # our key under another body, or a call that is wrong
        try:
            raw = json.loads(body)
            found = Answer(
                raw["key"], Money(raw["amount"], raw["currency"]), raw["status"], raw["id"], raw.get("reason", "")
            )
            texts = (found.key, found.status, found.reference, found.reason)
            if not all(isinstance(one, str) and _CODE.fullmatch(one) for one in texts) or found.status not in STATUSES:
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError, InputError):
            raise Refused("provider_malformed") from None
        return found


def load(path: Path, *, rehearsal: bool) -> HttpProvider | None:
    """The provider that `payments.toml` names (url, token_file, timeout), or None; InputError for what is wrong."""
    if not path.is_file():
        return None
    try:
        raw: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))  # Any: TOML
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not TOML in UTF-8: {error}") from None
    for key in sorted(({"url", "token_file"} - raw.keys()) | (raw.keys() - {"url", "token_file", "timeout"})):
        raise InputError(f"{path}: {'unknown' if key in raw else 'missing'} key {key}", hint="url, token_file, timeout")
    timeout = raw.get("timeout", 20.0)
    if type(timeout) not in (int, float) or not 0 < timeout <= 60:
        raise InputError(f"{path}: timeout: expected seconds above 0, at most 60; found {timeout!r}")
    try:
        token = (path.parent / str(raw["token_file"])).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: token_file: cannot be read: {unread(error)}") from None
    return at(str(raw["url"]), token, rehearsal=rehearsal, timeout=float(timeout))


def at(url: str, token: str, *, rehearsal: bool, timeout: float = 20.0) -> HttpProvider:
    """A provider at an https address; in a rehearsal also at http on our own machine. InputError for anything else."""
    parts = urlsplit(url)
    try:
        port, host = parts.port, parts.hostname or ""
    except ValueError:
        port, host = None, ""
    inside = parts.scheme == "http" and rehearsal and _loopback(host)
    if not host or parts.username or parts.password or parts.query or not (parts.scheme == "https" or inside):
        raise InputError("a payment provider is https, without user info", hint="https://pay.example.com/v1")
    context = None if inside else ssl.create_default_context()
    return HttpProvider(host, port or (80 if inside else 443), parts.path.rstrip("/"), token, context, timeout)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

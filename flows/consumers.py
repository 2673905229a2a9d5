"""Consumers: whoever takes rows or events of ours for us is told to stop, to go on, and to erase; each once, signed.

Who they are the catalog says (`processors` of a dataset); how they are reached, `home/consumers.toml`. A message is a
row of the outbox, written in the transaction of its move, and tried again until it is taken (Standard Webhooks 1.0.0):

    closure.stop     approved: from now on nothing of this account is processed
    closure.resume   restored: the account is back
    closure.erase    past the point of no return: what was taken over goes

It names the closing by its opaque id, and the account by a keyed hash that only this consumer can make, from its secret
and an account number that it has: HMAC-SHA256(HMAC-SHA256(secret, "fangxin/consumers/1"), account number). No identity
leaves. That they took a message is their word: what they do with it, nobody sees from here.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from fangxin.data.closures.outbox import Connector, Refused, Row
from fangxin.data.closures.store import Closure, Message
from fangxin.data.errors import InputError, unread
from fangxin.data.vocabulary import Catalog
from fangxin.flows.channels import callback, signature

if TYPE_CHECKING:
    from fangxin.flows.desk import Desk

KIND: Final = "consumer"
TRIES: Final = 16  # as many as a notice has
STOP, RESUME, ERASE = "stop", "resume", "erase"
_LABEL = b"fangxin/consumers/1"
_ANSWERED = ("consumer_3", "consumer_4", "consumer_5")  # they heard, and did not take it
_KEYS = frozenset({"url", "secret_file", "timeout"})


@dataclass(frozen=True)
class Consumer:
    """Where one of them listens, and the secret by which it knows us."""

    name: str
    url: str
    secret: bytes = field(repr=False)
    timeout: float = 20.0

    def account(self, value: str) -> str:
        """The keyed hash of an account number, which only we and this consumer can make."""
        return hmac.new(hmac.digest(self.secret, _LABEL, "sha256"), value.encode(), hashlib.sha256).hexdigest()

    def tell(self, key: str, event: str, closure: str, accounts: Sequence[str], now: datetime) -> str:
        """Post one message; a redirect is not followed. Refused unless the answer is 2xx (410: final)."""
        import httpx

        told = {
            "type": f"closure.{event}",
            "timestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "data": {"closure": closure, "accounts": sorted(map(self.account, accounts))},
        }
        body, at = json.dumps(told, sort_keys=True, separators=(",", ":")).encode(), int(now.timestamp())
        headers = {
            "Content-Type": "application/json",
            "webhook-id": key,
            "webhook-timestamp": str(at),
            "webhook-signature": signature(self.secret, key, at, body),
        }
        try:
            answer = httpx.post(
                self.url, content=body, headers=headers, timeout=self.timeout, follow_redirects=False, trust_env=False
            )
        except httpx.HTTPError:
            raise Refused("consumer_unreachable") from None
        if not answer.is_success:
            raise Refused(f"consumer_{answer.status_code}", final=answer.status_code == 410)
        return str(answer.status_code)


def load(path: Path, catalog: Callable[[], Catalog], *, rehearsal: bool) -> dict[str, Consumer]:
    """The consumers of a home's `consumers.toml` by name: a table each, with `url`, `secret_file` and `timeout`.

    InputError names file, consumer, what was expected and found; https only, in a rehearsal also http on this machine.
    Whom no dataset of the catalog declares would never be told.
    """
    if not path.is_file():
        return {}
    try:
        raw: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))  # Any: TOML
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not TOML in UTF-8: {error}") from None
    known = {name for one in catalog().datasets for name in one.accountable.processors}
    for name in sorted(raw.keys() - known):
        raise InputError(f"{path}: {name}: no dataset of the catalog names it", hint=f"processors: [{name}]")
    return {name: _consumer(path, name, one, rehearsal=rehearsal) for name, one in raw.items()}


def _consumer(path: Path, name: str, raw: Any, *, rehearsal: bool) -> Consumer:  # Any: TOML
    if not isinstance(raw, dict):
        raise InputError(f"{path}: {name}: expected a table", hint=f"[{name}], then url and secret_file")
    for key in sorted(({"url", "secret_file"} - raw.keys()) | (raw.keys() - _KEYS)):
        raise InputError(f"{path}: {name}: {'unknown' if key in raw else 'missing'} key {key}")
    url, timeout = str(raw["url"]), raw.get("timeout", 20.0)
    if type(timeout) not in (int, float) or not 0 < timeout <= 60:
        raise InputError(f"{path}: {name}: timeout: expected seconds above 0, at most 60; found {timeout!r}")
    parts = urlsplit(url)
    inside = rehearsal and parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost")
    if not parts.hostname or parts.username or parts.password or not (parts.scheme == "https" or inside):
        raise InputError(f"{path}: {name}: a consumer is https, without user info", hint="https://events.example.com/x")
    try:
        secret = (path.parent / str(raw["secret_file"])).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {name}: secret_file: cannot be read: {unread(error)}") from None
    return Consumer(name, url, callback(f"{url} {secret}")[1], float(timeout))


def declared(desk: Desk, closure: Closure) -> list[str]:
    """The processors of the datasets in which rows of a closing stand, as the catalog has them; sorted."""
    there = {address.partition("/")[0] for address in (closure.facts.get("plan") or {}).get("rows", {})}
    return sorted(
        {name for one in desk.estate.catalog.datasets if one.key in there for name in one.accountable.processors}
    )


def messages(desk: Desk, closure: Closure, event: str) -> list[Message]:
    """The outbox rows that tell each consumer of a closing's rows of an event, once for the move that writes them.

    That an account is back is told to whom was told to stop, whatever the catalog says by now: coming back needs none.
    """
    if not desk.consumers:
        return []
    if event == RESUME:
        names = sorted({str(row.body["consumer"]) for row in desk.outbox.history(closure.id, KIND)})
    else:
        names = declared(desk, closure)
    told = {"event": event, "written": desk.estate.minute}
    return [
        Message(_key(closure, name, event), KIND, {**told, "consumer": name}, desk.now)
        for name in names
        if name in desk.consumers
    ]


def teller(desk: Desk) -> Connector:
    """How run-due tells them; one that does not answer is not called again for others in the same run."""
    silent: set[str] = set()

    def work(row: Row) -> str:
        consumer, closure = desk.consumers.get(str(row.body["consumer"])), desk.closures.get(row.closure)
        if consumer is None:
            raise Refused("consumer_unknown")
        if closure.sealed is None:
            raise Refused("person_forgotten", final=True)
        if consumer.name in silent:
            raise Refused("consumer_unreachable", waits=True)
        own = desk.estate.catalog.person_kind
        accounts = [value for kind, value in desk.opened(closure).facts if kind == own]
        try:
            return consumer.tell(row.key, str(row.body["event"]), row.closure, accounts, desk.now)
        except Refused as refused:
            if refused.code == "consumer_unreachable":
                silent.add(consumer.name)
            raise

    return work


def answers(desk: Desk, closure: Closure) -> dict[str, list[str | None]]:
    """By consumer when it was told first, and when it had taken all that it was told; None where it has not.

    Whole minutes, UTC. Who never answered anything is not in it: nobody knows whether they heard.
    """
    found: dict[str, list[str | None]] = {}
    for row in desk.outbox.history(closure.id, KIND):
        name, written = row.body["consumer"], row.body["written"]
        told, taken = found.get(name, [None, written])
        if row.done is not None or (row.error or "").startswith(_ANSWERED):
            told = min(told or written, written)
        found[name] = [told, None if row.done is None or taken is None else max(taken, _minute(row.done))]
    return {name: one for name, one in found.items() if one[0] is not None}


def _minute(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%MZ")


def _key(closure: Closure, name: str, event: str) -> str:
    return hashlib.sha256(f"{closure.id}|{name}|{event}|{closure.version}".encode()).hexdigest()


def counted(desk: Desk, closures: Sequence[Closure]) -> Mapping[str, Mapping[str, list[str | None]]]:
    """The same by the number of each closing in its batch, for the certificates."""
    return {str(n): one for n, closure in enumerate(closures) if (one := answers(desk, closure))}

"""Consumers: whoever takes rows or events of ours for us is told to stop, to go on, and to erase; in order, and signed.

Who they are the catalog says (`processors` of a dataset); how they are reached, `home/consumers.toml`. A message is a
row of the outbox, written in the transaction of its move, and tried again until it is taken (Standard Webhooks 1.0.0):

    closure.stop     approved: from now on nothing of this account is processed
    closure.resume   restored: the account is back
    closure.erase    past the point of no return: nothing more is processed, and what was taken over goes

* In order: of one closing a consumer hears a message when the one before it was taken, or given up. A stop that nobody
  took ends with what follows it: an erase says it, too, and after a resume it would be wrong. Who was never called to
  stop is not told to go on. `timestamp` says when it was written; `turn` grows over the whole store, so that of two
  messages about an account, of one closing or two, the later one has the higher turn.
* Of two closings of an account a consumer hears the later one's messages last, and what it did not hear of the former
  one's stop and resume ends. An erase is only ended by another erase: the others wait for it.
* It names the closing by its opaque id, and the account by a keyed hash that only this consumer can make, from its
  secret and an account number that it has: HMAC-SHA256(HMAC-SHA256(secret, "fangxin/consumers/1"), account number).
  The hash is made when the message is written and lies in its row until it is taken: a consumer that is down while
  somebody is erased is told later. No identity leaves, and none is kept for it.
* Nobody is called inside a network, unless the operator said that this one is (`inside = true`).

That they took a message is their word: what they do with it, nobody sees from here.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import ssl
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache, cached_property, partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from fangxin.data.closures.outbox import LEASE, PARKED, Connector, Refused, Row, Sent, Unheard
from fangxin.data.closures.store import Closure, Message
from fangxin.data.closures.undone import VOID
from fangxin.data.errors import InputError, NotAllowed, unread
from fangxin.flows import plainly
from fangxin.flows.channels import Lookup, callback, look_up, public, signature

if TYPE_CHECKING:
    from fangxin.flows.desk import Desk

KIND: Final = "consumer"
TRIES: Final = 16  # as many as a notice has
STOP, RESUME, ERASE = "stop", "resume", "erase"
_LABEL = b"fangxin/consumers/1"
_ANSWERED = ("consumer_3", "consumer_4", "consumer_5")  # they heard, and did not take it
SLOW: Final = 1.0  # seconds: a call that lasts longer counts against its consumer
PRIVATE: Final = "consumer_not_public"
KEPT: Final = timedelta(days=30)  # so long after its last try the hashes of a message stay for an officer
LONGEST: Final = timedelta(days=90)  # so long after it was written they stay at most, however long an outage lasts
_KEYS = frozenset({"url", "secret_file", "timeout", "inside"})


@dataclass(frozen=True)
class Consumer:
    """Where one of them listens, and the secret by which it knows us."""

    name: str
    url: str
    secret: bytes = field(repr=False)
    timeout: float = 20.0
    inside: bool = False  # the operator said that it lies in a network of theirs
    lookup: Lookup = look_up
    context: ssl.SSLContext | None = field(default=None, repr=False)  # None: what this system trusts

    def account(self, value: str) -> str:
        """The keyed hash of an account number, which only we and this consumer can make."""
        return hmac.new(hmac.digest(self.secret, _LABEL, "sha256"), value.encode(), hashlib.sha256).hexdigest()

    @cached_property
    def mark(self) -> str:
        """Four bytes by which a changed secret is seen; they say nothing of it."""
        return hmac.digest(hmac.digest(self.secret, _LABEL, "sha256"), b"which secret", "sha256")[:4].hex()

    def tell(self, row: Row, accounts: Sequence[str], now: datetime) -> str:
        """Post one message; `accounts` are hashes. Refused unless the answer is 2xx (410: final), or it is not public.

        The address is looked up once and called by number. All of it lasts `timeout` at most.
        """
        from fangxin.flows.within import Late, looked_up, post

        ends = monotonic() + self.timeout
        told = {
            "type": f"closure.{row.body['event']}",
            "timestamp": row.body["written"],
            "data": {"closure": row.closure, "turn": row.body.get("turn", row.turn), "accounts": list(accounts)},
        }
        body, at = json.dumps(told, sort_keys=True, separators=(",", ":")).encode(), int(now.timestamp())
        headers = {
            "Content-Type": "application/json",
            "webhook-id": row.key,
            "webhook-timestamp": str(at),
            "webhook-signature": signature(self.secret, row.key, at, body),
        }
        host = urlsplit(self.url).hostname or ""
        try:
            found = looked_up(partial(self._addresses, host), ends)
            status = post(self.url, found, headers, body, ends=ends, context=self.context or _trusted())
        except Late:
            raise Refused("consumer_unreachable") from None
        if not 200 <= status < 300:
            raise Refused(f"consumer_{status}", final=status == 410)
        return str(status)

    def _addresses(self, host: str) -> Sequence[str]:
        try:
            found = self.lookup(host)
        except Refused:
            return ()
        if not self.inside and not all(map(public, found)):
            raise Refused(PRIVATE)
        return found


@cache
def _trusted() -> ssl.SSLContext:
    return ssl.create_default_context()


def usable(path: Path, *, rehearsal: bool) -> tuple[dict[str, Consumer], InputError | None]:
    """The consumers of a file that can be told, and what is wrong with the first of the others: see `load`."""
    try:
        raw = _tables(path)
    except InputError as error:
        return {}, error
    found, wrong = {}, None
    for name, one in raw.items():
        try:
            found[name] = _consumer(path, name, one, rehearsal=rehearsal)
        except InputError as error:
            wrong = wrong or error
    return found, wrong


def load(path: Path, *, rehearsal: bool) -> dict[str, Consumer]:
    """The consumers of a home's `consumers.toml` by name: a table each, with the keys `url`, `secret_file` and more.

    InputError names file, consumer, what was expected and found; https only, in a rehearsal also http on this machine.
    """
    return {name: _consumer(path, name, one, rehearsal=rehearsal) for name, one in _tables(path).items()}


def _tables(path: Path) -> dict[str, Any]:  # Any: TOML
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not TOML in UTF-8: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {unread(error)}") from None


class Unusable(InputError):
    """A consumer of this home's could not be told."""


def known(desk: Desk) -> None:
    """Raise Unusable for a consumer that cannot be told, or that no dataset of the catalog names: it never would be."""
    if desk.unusable is not None:
        raise Unusable(desk.unusable.message, hint=desk.unusable.hint)
    if not desk.consumers:
        return
    there = {name for one in desk.estate.catalog.datasets for name in one.accountable.processors}
    for name in sorted(desk.consumers.keys() - there):
        raise Unusable(f"consumers.toml: {name}: no dataset of the catalog names it", hint=f"processors: [{name}]")


def _consumer(path: Path, name: str, raw: Any, *, rehearsal: bool) -> Consumer:  # Any: TOML
    if not isinstance(raw, dict):
        raise InputError(f"{path}: {name}: expected a table", hint=f"[{name}], then url and secret_file")
    for key in sorted(({"url", "secret_file"} - raw.keys()) | (raw.keys() - _KEYS)):
        raise InputError(f"{path}: {name}: {'unknown' if key in raw else 'missing'} key {key}")
    url, timeout, inside = str(raw["url"]), raw.get("timeout", 20.0), raw.get("inside", False)
    if type(timeout) not in (int, float) or not 0 < timeout <= 60:
        raise InputError(f"{path}: {name}: timeout: expected seconds above 0, at most 60; found {timeout!r}")
    if not isinstance(inside, bool):
        raise InputError(f"{path}: {name}: inside: expected true or false; found {inside!r}")
    parts = urlsplit(url)
    try:
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    ours = rehearsal and parts.scheme == "http" and host in ("127.0.0.1", "::1", "localhost")
    odd = not host or not url.isprintable() or " " in url or parts.username or parts.password
    if odd or not (parts.scheme == "https" or ours):
        raise InputError(f"{path}: {name}: a consumer is https, without user info", hint="https://events.example.com/x")
    if not (inside or ours or _may_be_public(host)):
        raise InputError(f"{path}: {name}: its address is not public", hint="inside = true, if it is in your network")
    try:
        secret = (path.parent / str(raw["secret_file"])).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {name}: secret_file: cannot be read: {unread(error)}") from None
    return Consumer(name, url, callback(f"{url} {secret}")[1], float(timeout), inside or ours)


def _may_be_public(host: str) -> bool:
    """Whether a host is a public number, or a name: what a name means is seen when it is called."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host != "localhost"
    return public(host)


def declared(desk: Desk, closure: Closure) -> set[str]:
    """The processors of the datasets in which rows of a closing stand, as the catalog has them."""
    there = {address.partition("/")[0] for address in (closure.facts.get("plan") or {}).get("rows", {})}
    if not there:
        return set()
    return {name for one in desk.estate.catalog.datasets if one.key in there for name in one.accountable.processors}


def messages(desk: Desk, closure: Closure, event: str, before: Sequence[Sent] = ()) -> list[Message]:
    """The outbox rows that tell consumers of a closing's rows of an event, once for the move that writes them.

    `before`: what they were told until now. Whoever was told anything is told what follows, whatever the catalog says
    by then: coming back needs none.
    """
    names = {str(one.body["consumer"]) for one in before if one.answer != VOID}
    if event != RESUME and desk.consumers:
        names |= declared(desk, closure) & desk.consumers.keys()
    if not names:
        return []
    kind = before[0].body.get("kind") if before else desk.estate.catalog.person_kind
    numbers = [value for one, value in desk.opened(closure).facts if one == kind]
    left = desk.unheard()
    return [_message(desk, closure, event, name, kind, numbers, left) for name in sorted(names)]


def _message(
    desk: Desk, closure: Closure, event: str, name: str, kind: str | None, numbers: Sequence[str], left: Unheard
) -> Message:
    """One of them. Hashes of somebody who is not in `consumers.toml` now are those of what they did not hear yet.

    Where there are none, the row has none: it is never sent, and an officer is told.
    """
    mine = [one for one in left.rows.get((name, closure.id), ()) if not one.over]
    consumer = desk.consumers.get(name)
    if consumer is not None:
        hashes, mark = sorted(map(consumer.account, numbers)), consumer.mark
    else:
        last = next((one for one in reversed(mine) if one.sealed is not None), None)
        hashes = [] if last is None else json.loads(last.sealed or b"[]")
        mark = "" if last is None else str(last.body.get("secret", ""))
    former = left.former(name, hashes, closure.id)
    ended = [one for one in former if not one.over and (event == ERASE or one.body["event"] != ERASE)]
    body: dict[str, Any] = {
        "consumer": name, "event": event, "kind": kind, "turn": left.turn, "secret": mark,
        "written": desk.now.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }  # fmt: skip
    if former:
        body["behind"] = [one.key for one in former]
    if event == STOP and any(one.body["event"] == RESUME or one.body.get("owed") for one in ended):
        body["owed"] = True  # data/closures/undone.py
    if event == ERASE:
        ended += [one for one in mine if one.body["event"] != RESUME]
    key = hashlib.sha256(f"{closure.id}|{name}|{event}|{closure.version}".encode()).hexdigest()
    sealed = json.dumps(hashes).encode() if hashes or consumer is not None else None
    instead = tuple(one.key for one in ended)
    return Message(key, KIND, body, desk.now, sealed=sealed, lane=name, instead=instead)


def at_once(desk: Desk) -> int:
    """How many rows are claimed together: as many consumers that take their time fit into a lease."""
    slowest = max(one.timeout for one in desk.consumers.values())
    return max(1, int(LEASE.total_seconds() // (2 * slowest)))


@dataclass
class Calls:
    """What a run learnt of consumers: who is not called any more in it, and what an officer is to be told."""

    silent: set[str] = field(default_factory=set)
    lost: dict[str, float] = field(default_factory=dict)  # seconds in calls that lasted longer than one
    why: dict[str, str] = field(default_factory=dict)  # by consumer
    untold: dict[str, str] = field(default_factory=dict)  # by closing

    def took(self, consumer: Consumer, seconds: float) -> None:
        """A call is over; who cost the run more than a timeout in slow ones is not called again in it."""
        self.lost[consumer.name] = self.lost.get(consumer.name, 0.0) + (seconds if seconds > SLOW else 0.0)
        if self.lost[consumer.name] > consumer.timeout:
            self.silent.add(consumer.name)


def teller(desk: Desk, calls: Calls, clock: Callable[[], datetime]) -> Connector:
    """How run-due tells them; one that does not answer is not called again for others in the same run.

    When it answered for the first time is noted in a row, whatever it answered. `clock`: the time of a call.
    """

    def work(row: Row) -> str:
        name = str(row.body["consumer"])
        consumer = desk.consumers.get(name)
        if consumer is None:
            raise Refused("consumer_unknown", waits=True)
        if row.sealed is None:
            raise Refused("accounts_forgotten", final=True)
        if row.body.get("secret", consumer.mark) != consumer.mark:
            calls.why[name] = "a message waits that was made with another secret: put that one back until it is taken"
            raise Refused("consumer_secret_changed", waits=True)
        if name in calls.silent:
            raise Refused("consumer_unreachable", waits=True)
        began, answered = monotonic(), True
        try:
            return consumer.tell(row, json.loads(row.sealed), desk.now)
        except Refused as refused:
            answered = refused.code.startswith(_ANSWERED)
            if refused.code == "consumer_unreachable":
                calls.silent.add(name)
            if refused.code == PRIVATE:
                calls.why[name] = "the address is not public: inside = true, if it is in your network"
            raise
        except Exception:
            answered = False
            raise
        finally:
            calls.took(consumer, monotonic() - began)
            if answered and "heard" not in row.body:
                desk.outbox.note(row.key, heard=clock().strftime("%Y-%m-%dT%H:%M:%SZ"))

    return work


def away(desk: Desk) -> dict[str, str]:
    """By consumer why nothing can be told: messages wait, and it is not in `consumers.toml`, or not usable there."""
    waits = {
        lane for (lane, _closure), rows in desk.unheard().rows.items() if any(not r.over and r.sealed for r in rows)
    }
    return dict.fromkeys(
        waits - desk.consumers.keys(), "messages wait for it, and consumers.toml does not say how it is reached"
    )


def again(desk: Desk, closure: str, officer: str) -> Closure:
    """Have what was given up of a closing's messages told again by the next run-due; on record, with the officer.

    NotAllowed where nothing is, where whom it is about was forgotten meanwhile, or where a later closing of the same
    account had something told since.
    """
    from fangxin.flows.desk import renamed, request_of

    there = desk.closures.get(closure)
    keys = desk.outbox.tellable(closure, KIND)
    if not keys:
        raise NotAllowed(
            "nothing that consumers were to be told of this closing was given up and can still be told",
            hint="`fangxin request status` shows how consumers stand",
        )
    there = desk.write(
        there, renamed(request_of(there)), "tell", desk.now, by=plainly.officer(officer), body={"messages": len(keys)}
    )
    desk.outbox.again(keys, desk.now)
    return there


@dataclass(frozen=True)
class Heard:
    """How a consumer stands with a closing: told first, had taken all of it (whole minutes, UTC; None: not), and how.

    `told` is the moment of its first answer, None where it never gave one: nobody knows whether it heard. `state`:
    confirmed | waiting | given_up, where an officer can have it told again for thirty days; `last` is what it was told
    last.
    """

    told: str | None
    confirmed: str | None
    state: str
    last: str


def heard(rows: Sequence[Sent]) -> dict[str, Heard]:
    """By consumer how they stand with a closing, from its rows in their order; without who never had to be told."""
    found = {}
    for name in sorted({str(one.body["consumer"]) for one in rows}):
        mine = [one for one in rows if one.body["consumer"] == name]
        told = [moment for one in mine if (moment := _first(one))]
        stands = [one for one in mine if one.done is None or one.taken]  # the others' place was taken
        if not stands:
            continue
        left, last = [one for one in mine if one.done is None], stands[-1]
        state = "given_up" if any(one.error == PARKED for one in left) else "waiting" if left else "confirmed"
        at = max(one.done for one in mine if one.taken and one.done).strftime("%Y-%m-%dT%H:%MZ") if not left else None
        found[name] = Heard(min(told, default=None), at, state, str(last.body["event"]))
    return found


def _first(row: Sent) -> str | None:
    """The minute of a consumer's first answer to a message."""
    if "heard" in row.body:
        return f"{row.body['heard'][:16]}Z"
    return row.done.strftime("%Y-%m-%dT%H:%MZ") if row.taken and row.done else None


def counted(desk: Desk, closures: Sequence[Closure]) -> Mapping[str, Mapping[str, list[str | None]]]:
    """By number of each closing in its batch, for the certificates: when who was told first, and took the erase."""
    rows = desk.outbox.histories([one.id for one in closures], KIND)
    found = {
        str(n): {
            name: [one.told, one.confirmed if one.last == ERASE else None]
            for name, one in heard(rows[closure.id]).items()
            if one.told
        }
        for n, closure in enumerate(closures)
    }
    return {n: one for n, one in found.items() if one}

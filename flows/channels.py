"""Channels: how a notice leaves, by mail, by text message, or to a callback; each takes one message for one key.

* Mail: `EmailMessage` (which refuses line breaks in headers) with a Message-ID made from the row's key, so that a
  second try is recognised as the same message. STARTTLS, unless the home says that its server is beside it.
* Text messages: the gateway of the operator's choice by one POST of JSON, with the row's key as Idempotency-Key.
* Callback: Standard Webhooks 1.0.0 (`webhook-id`, `webhook-timestamp`, `webhook-signature: v1,...`). The address is
  looked up once, must be public, and is then called by number: no redirect, no user info, port 443 only.

What a home can reach people by stands in its `channels.toml`; a kind that is not there is never written to the outbox.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import http.client
import ipaddress
import json
import smtplib
import socket
import ssl
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from fangxin.data.catalog.kinds import check
from fangxin.data.closures.outbox import Refused
from fangxin.data.errors import InputError, unread
from fangxin.data.vocabulary import Identity
from fangxin.flows.notices import Notice

_GLOBAL = ipaddress.ip_network("2000::/3")  # all of IPv6 that is unicast, and not other addresses, a site's or a host's
_FORBIDDEN = [
    ipaddress.ip_network(n) for n in ("2002::/16", "2001::/32", "3fff::/20", "100.64.0.0/10", "192.88.99.0/24")
]


class Channel(Protocol):
    """One way to reach somebody."""

    def send(self, notice: Notice, now: datetime) -> str:
        """Send one message; returns the far side's reference. Refused where it was not taken."""
        ...


@dataclass(frozen=True)
class Mail:
    """The operator's mail server."""

    host: str
    port: int
    sender: str
    domain: str
    user: str = ""
    password: str = field(repr=False, default="")
    context: ssl.SSLContext | None = field(default=None, repr=False)  # None: no STARTTLS
    timeout: float = 20.0

    def send(self, notice: Notice, now: datetime) -> str:
        """Send one message; returns its Message-ID. Refused where the server does not take it (4xx: try again)."""
        subject, body = notice.text()
        message = EmailMessage()
        message_id = f"<{hashlib.sha256(notice.key.encode()).hexdigest()[:32]}@{self.domain}>"
        try:
            message["From"], message["To"], message["Subject"] = self.sender, notice.address, subject
        except ValueError:
            raise Refused("address_malformed", final=True) from None
        message["Message-ID"], message["Date"] = message_id, format_datetime(now)
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answers
        message.set_content(body)
        try:
            with smtplib.SMTP(self.host, self.port, timeout=self.timeout) as server:
                if self.context is not None:
                    server.starttls(context=self.context)
                if self.user:
                    server.login(self.user, self.password)
                server.send_message(message)
        except smtplib.SMTPRecipientsRefused as refused:
            code = min((one[0] for one in refused.recipients.values()), default=500)
            raise Refused(f"smtp_{code}", final=code >= 500) from None
        except smtplib.SMTPResponseException as refused:
            raise Refused(f"smtp_{refused.smtp_code}", final=refused.smtp_code >= 500) from None
        except (OSError, smtplib.SMTPException):
            raise Refused("smtp_unreachable") from None
        return message_id


@dataclass(frozen=True)
class Sms:
    """A gateway for text messages, chosen by the operator: `{"to", "text", "reference"}`, answered with 2xx."""

    url: str
    token: str = field(repr=False)
    timeout: float = 20.0

    def send(self, notice: Notice, now: datetime) -> str:
        """Post one message; a redirect is not followed. Refused unless the answer is 2xx (4xx but 408, 429: final)."""
        import httpx

        subject, body = notice.text()
        told = {"to": notice.address, "text": f"{subject}: {body}", "reference": notice.key}
        headers = {"Authorization": f"Bearer {self.token}", "Idempotency-Key": notice.key}
        try:
            answer = httpx.post(self.url, json=told, headers=headers, timeout=self.timeout, follow_redirects=False)
        except httpx.HTTPError:
            raise Refused("sms_unreachable") from None
        status = answer.status_code
        if not 200 <= status < 300:
            raise Refused(f"sms_{status}", final=400 <= status < 500 and status not in (408, 429))
        return str(status)


# ---------------------------------------------------------------- callbacks


@dataclass(frozen=True)
class Target:
    """A callback that was looked up: whom to call, and by which number."""

    host: str
    address: str
    path: str


Lookup = Callable[[str], Sequence[str]]


def look_up(host: str) -> Sequence[str]:
    """Every address of a host."""
    try:
        found = socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)
    except OSError:
        raise Refused("webhook_unknown_host") from None
    return sorted({str(one[4][0]) for one in found})


def form(url: str) -> tuple[str, str]:
    """Host and path of a callback; InputError unless it is https, port 443, without user info, and names its host."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme != "https" or port not in (None, 443) or parts.username or parts.password or not parts.hostname:
        raise InputError("a callback is https on port 443, without user info", hint="https://hooks.example.com/path")
    host = parts.hostname
    if "." not in host or host.replace(".", "").isdigit() or ":" in host or host.lower().startswith("0x"):
        raise InputError("a callback names its host by a name, not by a number")
    return host, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def target(url: str, *, lookup: Lookup = look_up) -> Target:
    """Look a callback up, once; InputError unless its host is public by every address."""
    host, path = form(url)
    addresses = lookup(host)
    if not addresses or not all(public(one) for one in addresses):
        raise InputError("a callback's host is not public", hint="addresses inside a network are not called")
    return Target(host, addresses[0], path)


def public(address: str) -> bool:
    """Whether an address is a public one, also where another lies in it (mapped, NAT64, SIIT, 6to4, Teredo)."""
    try:
        one = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(one, "ipv4_mapped", None)
    if mapped is not None:
        return public(str(mapped))
    if one.version == 6 and one not in _GLOBAL:
        return False
    if any(one.version == net.version and one in net for net in _FORBIDDEN):
        return False
    return one.is_global and not one.is_multicast


def callback(address: str) -> tuple[str, bytes]:
    """The URL and the secret of a callback's address; InputError, which quotes neither, for anything else."""
    url, _, told = address.strip().partition(" ")
    try:
        secret = base64.b64decode(told.strip().removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if not told.strip().startswith("whsec_") or not 24 <= len(secret) <= 64:
        raise InputError("a callback: expected a URL, a space and whsec_ with 24 to 64 bytes in base64")
    return url, secret


def signature(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """The `webhook-signature` of Standard Webhooks: `v1,` and base64 of HMAC-SHA256 over `id.timestamp.body`."""
    told = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, told, "sha256")).decode()


@dataclass(frozen=True)
class Webhook:
    """Callbacks: an address is a URL and the secret that its owner checks us by, `https://... whsec_...`."""

    lookup: Lookup = look_up
    context: ssl.SSLContext = field(default_factory=ssl.create_default_context)
    port: int = 443  # tests call a server of their own
    timeout: float = 20.0

    def send(self, notice: Notice, now: datetime) -> str:
        """Post one event: an opaque id and what happened. Refused unless the answer is 2xx (410: final)."""
        try:
            url, secret = callback(notice.address)
            at = target(url, lookup=self.lookup)
        except InputError:  # it was public when it was taken in; what a name means may have changed
            raise Refused("webhook_not_public") from None
        timestamp = int(now.timestamp())
        event = {
            "type": f"closure.{notice.template}",
            "timestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "data": {"closure": notice.closure},
        }
        body = json.dumps(event, sort_keys=True, separators=(",", ":")).encode()
        headers = {
            "Host": at.host,
            "Content-Type": "application/json",
            "webhook-id": notice.key,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(secret, notice.key, timestamp, body),
        }
        connection = _Pinned(at, self.port, self.context, self.timeout)
        try:
            connection.request("POST", at.path, body, headers)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException):
            raise Refused("webhook_unreachable") from None
        finally:
            connection.close()
        if not 200 <= status < 300:
            raise Refused(f"webhook_{status}", final=status == 410)
        return str(status)


class _Pinned(http.client.HTTPSConnection):
    """A TLS connection to the number that was looked up, checked against the name."""

    def __init__(self, at: Target, port: int, context: ssl.SSLContext, timeout: float) -> None:
        super().__init__(at.host, port, timeout=timeout, context=context)
        self._at, self._tls = at, context

    def connect(self) -> None:
        """Connect without asking for the name's address again, which may have changed meanwhile."""
        raw = socket.create_connection((self._at.address, self.port), self.timeout)
        self.sock = self._tls.wrap_socket(raw, server_hostname=self._at.host)


# ---------------------------------------------------------------- what a home has

OFFICERS = "officers"  # a mailbox of their role: alarms go there
_KEYS: Mapping[str, frozenset[str]] = {
    "mail": frozenset({"host", "port", "sender", "domain", "tls", "user", "password_file"}),
    "sms": frozenset({"url", "token_file"}),
    "webhook": frozenset(),
    OFFICERS: frozenset({"mail"}),
}
_NEEDED: Mapping[str, set[str]] = {
    "mail": {"host", "port", "sender", "domain"},
    "sms": {"url", "token_file"},
    "webhook": set(),
    OFFICERS: {"mail"},
}
_KINDS = {"mail": "email", "sms": "phone_number"}  # the catalog's kind of an address


@dataclass(frozen=True)
class Channels:
    """What a home can reach people by; `officers` is the mailbox of their role, empty where there is none."""

    by_kind: Mapping[str, Channel]
    officers: str = ""

    @classmethod
    def load(cls, home: Path) -> Channels:
        """Read a home's `channels.toml`; nothing where it has no such file.

        InputError names file, key, what was expected and found. Secrets lie in files of their own, beside it.
        """
        path = home / "channels.toml"
        if not path.is_file():
            return cls({})
        try:
            found: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))  # Any: TOML
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not TOML in UTF-8: {error}") from None
        for kind, raw in found.items():
            if kind not in _KEYS or not isinstance(raw, dict):
                raise InputError(f"{path}: unknown channel {kind}", hint=f"one of {', '.join(_KEYS)}, each a table")
            wrong = sorted((set(raw) - _KEYS[kind]) | (_NEEDED[kind] - set(raw)))
            if wrong:
                raise InputError(f"{path}: {kind}.{wrong[0]}: {'unknown' if wrong[0] in raw else 'missing'}")
        made = {kind: _MAKE[kind](path, raw) for kind, raw in found.items() if kind in _MAKE}
        return cls(made, found.get(OFFICERS, {}).get("mail", ""))


def _mail(path: Path, raw: Mapping[str, Any]) -> Channel:
    if type(raw["port"]) is not int or not isinstance(raw.get("tls", True), bool):
        raise InputError(f"{path}: mail: expected port as a number and tls as true or false")
    password = _secret(path, raw["password_file"]) if "password_file" in raw else ""
    context = ssl.create_default_context() if raw.get("tls", True) else None
    return Mail(raw["host"], raw["port"], raw["sender"], raw["domain"], raw.get("user", ""), password, context)


def _sms(path: Path, raw: Mapping[str, Any]) -> Channel:
    return Sms(raw["url"], _secret(path, raw["token_file"]))


_MAKE: Mapping[str, Callable[[Path, Mapping[str, Any]], Channel]] = {
    "mail": _mail,
    "sms": _sms,
    "webhook": lambda _path, _raw: Webhook(),
}


def _secret(path: Path, name: str) -> str:
    try:
        return (path.parent / name).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path.parent / name}: cannot be read: {unread(error)}") from None


def checked(kind: str, address: str) -> str:
    """An address of a channel as it is called; InputError, which never quotes it, where it is none."""
    if kind in _KINDS:
        return check(_KINDS[kind], address)
    if kind != "webhook":
        raise InputError(f"no channel {kind}", hint=f"one of {', '.join(_KEYS)}")
    form(callback(address)[0])
    return address.strip()


def given(option: str, read: Callable[[str], str]) -> tuple[str, str]:
    """`KIND=@FILE` as (kind, address); InputError for an address on the command line, which stays in its history."""
    kind, _, where = option.partition("=")
    if not where.startswith("@"):
        raise InputError("--notify: expected KIND=@FILE", hint=f"KIND is one of {', '.join(_MAKE)}")
    return kind, checked(kind, read(where))


def reachable(channels: Channels, identities: Sequence[Identity]) -> list[tuple[str, str]]:
    """The channels by which the identities that were verified can be told."""
    return [
        (kind, one.value)
        for kind, wanted in _KINDS.items()
        if kind in channels.by_kind
        for one in identities
        if one.kind == wanted
    ]

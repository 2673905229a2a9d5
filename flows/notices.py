"""Notices: every verified channel hears of every move, and learns nothing but that there is something to look up.

A notice is a row of the outbox: a template, a language, and an address that lies sealed under a notice key until the
last notice is out. Its text holds no name, no link to sign in, no detail; a person looks up their receipt.

* Mail: `EmailMessage` (which refuses line breaks in headers) with a Message-ID made from the row's key, so that a
  second try is recognised as the same message.
* Webhook: Standard Webhooks 1.0.0 (`webhook-id`, `webhook-timestamp`, `webhook-signature: v1,...`). The address is
  looked up once, must be public, and is then called by number: no redirect, no user info, port 443 only.
"""

from __future__ import annotations

import base64
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
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from fangxin.data.closures.outbox import Refused
from fangxin.data.errors import InputError

_TEMPLATES = Path(__file__).resolve().parents[1] / "data" / "notices.toml"
_FORBIDDEN = [ipaddress.ip_network(n) for n in ("64:ff9b::/96", "2002::/16", "2001::/32", "100.64.0.0/10")]


@cache
def templates() -> Mapping[str, Mapping[str, Mapping[str, str]]]:
    """Event -> language -> subject and body, from `data/notices.toml`."""
    found: dict[str, dict[str, dict[str, str]]] = tomllib.loads(_TEMPLATES.read_text("utf-8"))
    return found


@dataclass(frozen=True)
class Notice:
    """One message to one address; the address never shows."""

    key: str  # of the outbox row
    template: str
    locale: str  # zh | en
    address: str = field(repr=False)

    def text(self) -> tuple[str, str]:
        """Subject and body; InputError for a template or a language that we do not have."""
        try:
            found = templates()[self.template][self.locale]
        except KeyError:
            raise InputError(f"no notice {self.template} in {self.locale}") from None
        return found["subject"], found["body"]


@dataclass(frozen=True)
class Mail:
    """The operator's mail server."""

    host: str
    port: int
    sender: str
    domain: str
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
                server.send_message(message)
        except smtplib.SMTPRecipientsRefused as refused:
            code = min((one[0] for one in refused.recipients.values()), default=500)
            raise Refused(f"smtp_{code}", final=code >= 500) from None
        except smtplib.SMTPResponseException as refused:
            raise Refused(f"smtp_{refused.smtp_code}", final=refused.smtp_code >= 500) from None
        except (OSError, smtplib.SMTPException):
            raise Refused("smtp_unreachable") from None
        return message_id


# ---------------------------------------------------------------- webhooks


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


def target(url: str, *, lookup: Lookup = look_up) -> Target:
    """Look a callback up once; InputError unless it is https, port 443, a name, and public by every address."""
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
    addresses = lookup(host)
    if not addresses or not all(public(one) for one in addresses):
        raise InputError("a callback's host is not public", hint="addresses inside a network are not called")
    return Target(host, addresses[0], (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))


def public(address: str) -> bool:
    """Whether an address is a public one, also where it is written inside another (mapped, NAT64, 6to4, Teredo)."""
    try:
        one = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(one, "ipv4_mapped", None)
    if mapped is not None:
        return public(str(mapped))
    if any(one.version == net.version and one in net for net in _FORBIDDEN):
        return False
    return one.is_global and not one.is_multicast


def signature(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """The `webhook-signature` of Standard Webhooks: `v1,` and base64 of HMAC-SHA256 over `id.timestamp.body`."""
    told = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, told, "sha256")).decode()


@dataclass(frozen=True)
class Webhook:
    """A subscriber: where to call, and the secret that it checks us by."""

    url: str
    secret: bytes = field(repr=False)
    lookup: Lookup = look_up
    context: ssl.SSLContext = field(default_factory=ssl.create_default_context)
    port: int = 443  # tests call a server of their own
    timeout: float = 20.0

    def send(self, key: str, event: Mapping[str, str], now: datetime) -> str:
        """Post one event; `event` holds opaque ids, a type and a state. Refused unless the answer is 2xx."""
        at = target(self.url, lookup=self.lookup)
        body = json.dumps(dict(event), sort_keys=True, separators=(",", ":")).encode()
        timestamp = int(now.timestamp())
        headers = {
            "Host": at.host,
            "Content-Type": "application/json",
            "webhook-id": key,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(self.secret, key, timestamp, body),
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

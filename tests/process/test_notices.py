"""Notices: real mail, real webhooks, no personal data, no address inside a network, no second message for one key."""

from __future__ import annotations

import asyncio
import base64
import http.server
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fangxin.data.closures.outbox import Outbox, Refused, Row
from fangxin.data.closures.store import Change, Closures, Message, Told
from fangxin.data.errors import InputError
from fangxin.flows.channels import Mail, Sms, Webhook, callback, checked, public, signature, target
from fangxin.flows.consumers import Consumer
from fangxin.flows.notices import Notice, templates

NOW = datetime(2026, 11, 27, 2, tzinfo=UTC)


class Box:
    """A mail server that says "later" as often as it is told to, then takes the message."""

    def __init__(self, later: int = 0) -> None:
        self.later, self.got = later, []

    async def handle_DATA(self, _server: object, _session: object, envelope: object) -> str:  # noqa: N802
        await asyncio.sleep(0)
        if self.later:
            self.later -= 1
            return "451 try again later"
        self.got.append(envelope)
        return "250 OK"


@pytest.fixture
def box() -> Iterator[tuple[Box, Mail]]:
    handler = Box(later=2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    controller = Controller(handler, hostname="127.0.0.1", port=port)
    controller.start()
    yield handler, Mail("127.0.0.1", port, "noreply@lecard.example", "lecard.example")
    controller.stop()


def test_a_message_that_is_put_off_twice_arrives_once(tmp_path: Path, box: tuple[Box, Mail]) -> None:
    handler, mail = box
    store = Closures(f"sqlite:///{tmp_path / 'c.db'}")
    message = Message("n-1", "mail", {"template": "sealed", "locale": "zh"}, NOW, sealed=b"li.wei@example.com")
    change = Change("cooling", {}, Told("system", "sealed"), messages=[message])
    store.open("c-1", receipt="r", account="a", ref=b"r", digests={}, change=change, now=NOW)

    def send(row: Row) -> str:
        address = (row.sealed or b"").decode()  # the test's seal is none
        return mail.send(Notice(row.key, row.body["template"], row.body["locale"], address), NOW)

    now, outbox = NOW, Outbox(store.engine)
    for _ in range(6):
        outbox.work("w", {"mail": send}, now)
        now += timedelta(hours=1)
    assert outbox.open() == {}
    (got,) = handler.got
    text = got.content.decode("utf-8", "replace")
    assert got.rcpt_tos == ["li.wei@example.com"]
    assert text.count("Message-ID: <") == 1
    assert "http" not in text
    with store.engine.connect() as db:
        assert db.exec_driver_sql("SELECT sealed FROM outbox").scalar() is None  # the address went with the message


def test_an_address_that_would_write_headers_is_refused(box: tuple[Box, Mail]) -> None:
    for address in ("a@b.example\r\nBcc: c@d.example", "a@b.example\nX: y"):
        with pytest.raises(Refused, match="address_malformed"):
            box[1].send(Notice("k", "sealed", "en", address), NOW)


def test_every_notice_exists_in_both_languages_and_leads_nowhere_to_sign_in() -> None:
    for languages in templates().values():
        assert set(languages) == {"zh", "en"}
        for told in languages.values():
            assert set(told) == {"subject", "body"}
            assert not [one for one in ("http", "www.", "{", "%s") if one in told["subject"] + told["body"]]
    with pytest.raises(InputError, match="no notice"):
        Notice("k", "sealed", "fr", "a@b.example").text()
    assert "a@b.example" not in repr(Notice("k", "sealed", "en", "a@b.example"))


# ---------------------------------------------------------------- webhooks

INSIDE = [
    "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
    "::1", "fe80::1", "fc00::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "2002:7f00:1::",
    "2001:0:7f00:1::", "not an address",
]  # fmt: skip


@pytest.mark.parametrize("address", INSIDE)
def test_no_address_inside_a_network_is_public(address: str) -> None:
    assert not public(address)
    with pytest.raises(InputError, match="not public"):
        target("https://hooks.example.com/x", lookup=lambda _host: ["93.184.216.34", address])


def test_a_public_address_is_and_is_pinned() -> None:
    found = target("https://hooks.example.com/x?y=1", lookup=lambda _host: ["93.184.216.34"])
    assert (found.host, found.address, found.path) == ("hooks.example.com", "93.184.216.34", "/x?y=1")


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/",
        "https://user:pass@hooks.example.com/",
        "https://hooks.example.com:8443/",
        "https://hooks.example.com:99999/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://localhost/",
        "file:///etc/passwd",
    ],
)
def test_other_forms_of_a_callback_are_refused(url: str) -> None:
    with pytest.raises(InputError):
        target(url, lookup=lambda _host: ["93.184.216.34"])


def test_the_signature_is_the_one_of_the_specification_s_example() -> None:
    """Standard Webhooks publishes this secret, message and signature."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    told = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert told == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.fixture
def hook(tmp_path: Path) -> Iterator[tuple[list[tuple[dict[str, str], bytes]], list[int], Webhook]]:
    """A TLS server with a certificate of its own for hooks.example.com, and the answers that it will give."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hooks.example.com")])
    moment = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(moment - timedelta(days=1))
        .not_valid_after(moment + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("hooks.example.com")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    got: list[tuple[dict[str, str], bytes]] = []
    answers: list[int] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # noqa: N802
            got.append((dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
            status = answers.pop(0)
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "https://169.254.169.254/")
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            return

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pem)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    trust = ssl.create_default_context(cafile=str(pem))
    yield got, answers, Webhook(lambda _host: ["127.0.0.1"], trust, server.server_port)
    server.shutdown()


def test_a_webhook_is_signed_and_what_is_not_taken_is_refused(
    hook: tuple[list[tuple[dict[str, str], bytes]], list[int], Webhook], monkeypatch: pytest.MonkeyPatch
) -> None:
    got, answers, webhook = hook
    secret = base64.b64encode(b"s" * 24).decode()
    notice = Notice("k-1", "sealed", "zh", f"https://hooks.example.com/closure whsec_{secret}", "c-1")
    with pytest.raises(Refused, match="webhook_not_public"):
        webhook.send(notice, NOW)  # the test's server is on loopback, as a trap would be
    monkeypatch.setattr("fangxin.flows.channels.public", lambda _address: True)
    answers += [200, 302, 503, 410]
    assert webhook.send(notice, NOW) == "200"
    headers, body = got[0]
    known = {k.lower(): v for k, v in headers.items()}
    assert known["webhook-signature"] == signature(b"s" * 24, "k-1", int(NOW.timestamp()), body)
    assert json.loads(body) == {
        "type": "closure.sealed", "timestamp": "2026-11-27T02:00:00Z", "data": {"closure": "c-1"}
    }  # fmt: skip
    for code, final in (("webhook_302", False), ("webhook_503", False), ("webhook_410", True)):
        with pytest.raises(Refused, match=code) as refused:
            webhook.send(notice, NOW)
        assert refused.value.final == final
    assert len(got) == 4  # the redirect was not followed


def test_a_name_that_means_another_address_the_second_time_is_asked_once_and_called_by_number(
    hook: tuple[list[tuple[dict[str, str], bytes]], list[int], Webhook], monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: public when it is checked, inside when it is called. There is no second look."""
    got, answers, webhook = hook
    asked: list[str] = []

    def lookup(host: str) -> list[str]:
        asked.append(host)
        return ["127.0.0.1" if len(asked) == 1 else "169.254.169.254"]

    monkeypatch.setattr("fangxin.flows.channels.public", lambda address: address == "127.0.0.1")
    answers.append(200)
    secret = base64.b64encode(b"s" * 24).decode()
    notice = Notice("k-2", "sealed", "en", f"https://hooks.example.com/ whsec_{secret}", "c-1")
    assert replace(webhook, lookup=lookup).send(notice, NOW) == "200"
    assert (asked, len(got)) == (["hooks.example.com"], 1)
    with pytest.raises(Refused, match="webhook_not_public"):  # the next message looks again, and sees the trap
        replace(webhook, lookup=lookup).send(notice, NOW)
    assert len(got) == 1


def test_a_consumer_of_the_operator_s_is_looked_up_once_called_by_number_and_known_by_its_certificate(
    hook: tuple[list[tuple[dict[str, str], bytes]], list[int], Webhook],
) -> None:
    got, answers, webhook = hook
    asked: list[str] = []

    def lookup(host: str) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    url, row = (
        f"https://hooks.example.com:{webhook.port}/x",
        Row("k", "c-1", "consumer", {"event": "stop", "written": ""}, 0, b""),
    )
    here = Consumer("events", url, b"s" * 24, 2.0, inside=True, lookup=lookup, context=webhook.context)
    answers += [204, 302]
    assert here.tell(row, [], NOW) == "204"
    for code, other in (
        ("consumer_302", here),  # not followed
        ("consumer_unreachable", replace(here, url=url.replace("hooks", "other"))),  # the certificate is another's
        ("consumer_not_public", replace(here, inside=False)),
    ):
        with pytest.raises(Refused, match=code):
            other.tell(row, [], NOW)
    assert asked == ["hooks.example.com", "hooks.example.com", "other.example.com", "hooks.example.com"]
    assert [headers["Host"] for headers, _body in got] == [f"hooks.example.com:{webhook.port}"] * 2


@pytest.mark.parametrize("told", ["https://hooks.example.com/", "https://hooks.example.com/ whsec_AAAA", "x whsec_!"])
def test_a_callback_without_a_secret_is_none(told: str) -> None:
    with pytest.raises(InputError, match="whsec_"):
        callback(told)
    with pytest.raises(InputError):
        checked("webhook", told)


# ---------------------------------------------------------------- text messages


def test_a_text_message_goes_to_the_operator_s_gateway_once_a_key() -> None:
    got: list[tuple[dict[str, str], dict[str, str]]] = []
    answers = [202, 302, 503, 400, 429]

    class Gateway(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # noqa: N802
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            got.append(({k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(answers[len(got) - 1])
            self.send_header("Location", "http://169.254.169.254/")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            return

    server = http.server.HTTPServer(("127.0.0.1", 0), Gateway)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sms = Sms(f"http://127.0.0.1:{server.server_port}/", "token")
    notice = Notice("k-1", "sealed", "zh", "+8613900000005", "c-1")
    assert sms.send(notice, NOW) == "202"
    headers, body = got[0]
    assert (headers["idempotency-key"], headers["authorization"]) == ("k-1", "Bearer token")
    assert (body["to"], body["reference"]) == ("+8613900000005", "k-1")
    assert "13900000005" not in body["text"]
    for code, final in (("sms_302", False), ("sms_503", False), ("sms_400", True), ("sms_429", False)):
        with pytest.raises(Refused, match=code) as refused:
            sms.send(notice, NOW)
        assert refused.value.final == final
    server.shutdown()
    assert "token" not in repr(sms)

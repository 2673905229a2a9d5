"""A desk without a shop behind it: closings that are walked along the table of moves, and real places for notices."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import io
import json
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller

from fangxin.data.closures.store import Change, Closure, Told
from fangxin.data.keys.domains import CONTACT, REQUEST
from fangxin.data.keys.seal import new_code
from fangxin.data.requests import opaque, receipt_code, receipt_digest
from fangxin.flows.cli.main import main
from fangxin.flows.closing import verified
from fangxin.flows.desk import Desk, Secret, at_desk, clock, machine, renamed, request_of
from fangxin.flows.estate import make_home, open_estate
from fangxin.flows.lifecycle import Actor, Event, Request, advance

NOW = datetime(2026, 11, 24, 1, tzinfo=UTC)  # 09:00 in Shanghai, a Tuesday
PERSON = (
    ("phone_number", "+8613900000005"), ("email", "li.wei@example.com"), ("cn_resident_id", "11010519491231002X"),
    ("bank_card", "4111111111111111"),
)  # fmt: skip
END = ("verify", "plan", "sign", "approve", "seal", "end_regret", "locate_again", "begin", "first_share_gone",
       "keys_gone", "overwritten", "clean")  # fmt: skip


@dataclass
class Front:
    """A rehearsal home under `root`; `now` is its clock."""

    root: Path
    now: datetime = NOW
    said: str = field(default="")
    code: str = field(default="")  # the restore code of the closing that was taken in last

    @classmethod
    def make(cls, root: Path) -> Front:
        make_home(root, rehearsal=True, origin="shop.example/erasure", now=NOW, capacity=500)
        return cls(root)

    @contextmanager
    def desk(self) -> Iterator[Desk]:
        with at_desk(open_estate(self.root, None, self.now)) as desk:
            yield desk

    def reach(self, **channels: dict[str, Any]) -> None:
        """Write `channels.toml`."""
        lines = []
        for kind, known in channels.items():
            lines += [f"[{kind}]", *(f"{k} = {json.dumps(v)}" for k, v in known.items())]
        (self.root / "channels.toml").write_text("\n".join(lines) + "\n", "utf-8")

    def opened(self, *channels: tuple[str, str], locale: str = "zh") -> tuple[str, str]:
        """A closing that was just taken in: its id and its receipt code."""
        with self.desk() as desk:
            name, ref, receipt = opaque("c"), secrets.token_bytes(16), receipt_code()
            desk.estate.tree.ensure([ref], REQUEST)
            desk.estate.tree.ensure([ref], CONTACT)
            self.code, public = new_code()
            secret = Secret(secrets.token_bytes(32), receipt, public, PERSON, facts=PERSON, channels=channels)
            request = advance(Request(name), Event("submit", Actor.HOLDER), self.now)
            facts = {
                "machine": machine(request), "risk": [], "level": "session", "locale": locale, "laws": [],
                "channels": [k for k, _a in channels], "received": self.now.isoformat(),
            }  # fmt: skip
            heard = desk.notices(name, ref, channels, "received", locale, request.version)
            desk.closures.open(
                name, receipt=receipt_digest(receipt), account=name, ref=ref, digests={},
                change=Change(request.state.value, facts, Told("holder", "submit"), messages=heard), now=self.now,
                sealed=desk.sealed(ref, secret),
            )  # fmt: skip
        return name, receipt

    def go(self, name: str, *moves: str, **known: Any) -> Closure:  # Any: fields of an event
        """Move a closing; what acts on vaults and stores is left out, the table and its rows are the real ones.

        The clock goes to the end of the days of regret where they end.
        """
        for move in moves:
            with self.desk() as desk:
                closure = desk.closures.get(name)
            if move == "end_regret":
                self.now = max(self.now, request_of(closure).regret_ends or self.now)
            with self.desk() as desk:
                closure = self._go(desk, closure, move, known)
        return closure

    def _go(self, desk: Desk, closure: Closure, move: str, known: dict[str, Any]) -> Closure:  # Any: as above
        more: dict[str, Any] = {}
        if move == "verify":
            return verified(desk, closure)
        if move == "plan":
            more = {"facts": {"plan": {"digest": "0" * 64, "items": [], "rows": {}, "sealed": {}, "risk": []}}}
        if move == "approve":
            more = {"met": ["review"], "clocks": [clock(desk, "start", desk.now)]}
        if move == "seal":
            more = {"met": ["start"], "clocks": [clock(desk, n, desk.now) for n in ("regret", "done")]}
        if move == "end_regret":
            more = {"met": ["regret"]}
        if move == "clean":
            more = {"met": ["done"], "facts": {"certificate": "certificates/one.pdf"}}
        officers = ("dpo_1",) if move in ("sign", "reject") else ("dpo_1", "dpo_2") if "hold" in move else ()
        actor = Actor.OFFICER if officers else Actor.HOLDER if move in ("cancel", "waive", "restore") else Actor.SYSTEM
        plan = "0" * 64 if move in ("plan", "sign") else None
        event = Event(move, actor, officers, **{"plan": plan, **known})
        return desk.take(closure, event, desk.now, **more)

    def forget(self, name: str) -> None:
        """What the end of an erasure does with what is known."""
        with self.desk() as desk:
            closure = desk.closures.get(name)
            desk.write(closure, renamed(request_of(closure)), "forgotten", desk.now, by="system", forget=True)

    def later(self, **span: float) -> None:
        self.now += timedelta(**span)

    def run(self, *argv: str) -> tuple[int, dict[str, Any]]:  # Any: JSON
        """Run a command of this home at the present time."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([*argv, "--home", str(self.root), "--json", "--now", self.now.isoformat()])
        self.said = err.getvalue()
        return code, json.loads(out.getvalue() or "{}")

    def text(self, words: str) -> str:
        path = self.root.parent / f"text-{hash(words)}"
        path.write_text(words, "utf-8")
        return f"@{path}"


class Post:
    """A real mail server; `answers` are given before it takes anything."""

    def __init__(self) -> None:
        self.answers: list[str] = []
        self.got: list[Any] = []  # Any: aiosmtpd's envelopes

    async def handle_DATA(self, _server: object, _session: object, envelope: Any) -> str:  # noqa: N802
        await asyncio.sleep(0)
        if self.answers:
            return self.answers.pop(0)
        self.got.append(envelope)
        return "250 OK"

    def taken(self) -> list[tuple[str, str, str, str]]:
        """To whom, Message-ID, subject and body of every message since the last look."""
        found = []
        for one in self.got:
            told = message_from_bytes(one.content, policy=policy.default)
            body = told.get_body()
            assert body is not None
            found.append((one.rcpt_tos[0], told["Message-ID"], told["Subject"], body.get_content()))
        self.got.clear()
        return found


@contextmanager
def post() -> Iterator[tuple[Post, dict[str, Any]]]:
    """A mail server and how a home reaches it."""
    handler = Post()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    controller = Controller(handler, hostname="127.0.0.1", port=port)
    controller.start()
    yield (
        handler,
        {
            "host": "127.0.0.1",
            "port": port,
            "sender": "noreply@lecard.example",
            "domain": "lecard.example",
            "tls": False,
        },
    )
    controller.stop()


@contextmanager
def gateway() -> Iterator[tuple[list[dict[str, str]], str]]:
    """A gateway for text messages, and its address."""
    got: list[dict[str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # noqa: N802
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(202)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            return

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield got, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@contextmanager
def listener(*answers: int) -> Iterator[tuple[list[tuple[dict[str, str], bytes]], str]]:
    """A consumer's endpoint that gives these answers, then 204: what came (headers, body), and its address."""
    got: list[tuple[dict[str, str], bytes]] = []
    left = list(answers)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # noqa: N802
            headers = {name.lower(): value for name, value in self.headers.items()}
            got.append((headers, self.rfile.read(int(headers["content-length"]))))
            self.send_response(left.pop(0) if left else 204)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            return

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield got, f"http://127.0.0.1:{server.server_port}/closures"
    server.shutdown()

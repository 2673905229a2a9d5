"""A provider of payments on a real socket, which pays once a key and misbehaves as it is told to.

`faults` are what it does with the next calls to pay, by key: `down` answers 503; `lost` pays and closes without an
answer; `late` answers after the caller has gone; `slow` pays only after that; `twice` is asked twice at once, as a
proxy does; `other` answers with another amount; `text` answers no JSON; `declined` and `pending` for good; `fickle`
declines and was paid all the same.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LATE = 0.3  # seconds; callers wait less


@dataclass
class Bank:
    """What it has done by key, how often it was asked, and what it does wrong next."""

    faults: dict[str, list[str]] = field(default_factory=dict)
    known: dict[str, dict[str, Any]] = field(default_factory=dict)  # Any: JSON
    payments: list[tuple[str, int]] = field(default_factory=list)  # every transfer of money, in order
    moved: dict[str, tuple[str, str]] = field(default_factory=dict)  # item and receiver, by key
    orders: dict[str, tuple[str, str]] = field(default_factory=dict)  # what was ended, and of which item, by key
    bodies: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""

    @property
    def sum(self) -> int:
        return sum(minor for _key, minor in self.payments)

    def charge(self, item: str) -> bool:
        """Whether a merchant may still charge by a mandate."""
        return ("cancel", item) not in self.orders.values()

    def fault(self, key: str) -> str:
        waiting = self.faults.get(key) or self.faults.get("*") or []
        return waiting.pop(0) if waiting else ""

    def pay(self, key: str, body: dict[str, Any], status: str = "paid") -> tuple[int, dict[str, Any]]:
        with self.lock:
            if key in self.known:
                same = self.known[key]["status"] == "void" or self.bodies[key] == body
                return (200, self.known[key]) if same else (422, {})
            self.bodies[key] = body
            if status == "paid":
                self.payments.append((key, body["amount"]))
            self.known[key] = {
                "id": f"p-{len(self.known)}",
                "key": key,
                "amount": body["amount"],
                "currency": body["currency"],
                "status": status,
                "reason": "account_closed" if status == "declined" else "",
            }
            return 201, self.known[key]

    def void(self, key: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self.lock:
            found = self.known.get(key)
            if found is None or found["status"] == "pending":
                self.known[key] = {**body, "id": f"v-{len(self.known)}", "key": key, "status": "void", "reason": ""}
            return 200, self.known[key]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A caller who was killed is no error of the bank's; anything else is told."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(*_)


@contextmanager
def running() -> Iterator[Bank]:
    """The bank, on a port of its own."""
    bank = Bank()

    class Door(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            key = self.path.rsplit("/", 1)[1]
            bank.calls["find"] += 1
            with bank.lock:
                found = bank.known.get(key)
            self.say(*((200, found) if found else (404, {})))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.headers["Authorization"] != "Bearer secret":
                return self.say(401, {})
            key = self.headers["Idempotency-Key"]
            if self.path.endswith("/void"):
                bank.calls["void"] += 1
                return self.say(*bank.void(key, body))
            if self.path.endswith("/transfers"):
                bank.moved.setdefault(key, (body["item"], body["receiver"]))
                return self.say(201, {"id": f"m-{len(bank.moved)}", "key": key})
            if self.path.endswith("/orders"):
                bank.orders.setdefault(key, (body["what"], body["item"]))
                return self.say(201, {"id": f"o-{len(bank.orders)}", "key": key})
            bank.calls["pay"] += 1
            return self.pay(key, body, bank.fault(key))

        def pay(self, key: str, body: dict[str, Any], fault: str) -> None:
            if fault == "down":
                return self.say(503, {})
            if fault == "slow":
                time.sleep(LATE)
            if fault == "twice":
                other = threading.Thread(target=bank.pay, args=(key, body))
                other.start()
                other.join()
            status, told = bank.pay(key, body, fault if fault in ("declined", "pending") else "paid")
            if fault == "lost":
                self.close_connection = True
                return None
            if fault == "late":
                time.sleep(LATE)
            if fault == "other":
                told = {**told, "amount": told["amount"] + 1}
            if fault == "fickle":
                told = {**told, "status": "declined", "reason": "no_funds"}
            return self.say(status, told, text=fault == "text")

        def say(self, status: int, told: dict[str, Any], *, text: bool = False) -> None:
            body = b"<html>fine</html>" if text else json.dumps(told).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                self.close_connection = True  # the caller has gone

        def log_message(self, *_: object) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Door)
    bank.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield bank
    finally:
        server.shutdown()
        server.server_close()

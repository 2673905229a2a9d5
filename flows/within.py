"""One POST that ends by a deadline, whatever the far side does: look-up, connecting, TLS, writing, reading, all of it.

A timeout that counts anew with each read never ends with somebody who sends a byte now and then, or endless interim
answers. Here each operation gets what is left of the whole. No redirect is followed, and no body is read.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import monotonic
from typing import Any

import httpcore
import httpx


class Late(Exception):  # noqa: N818  the far side's doing, not a failure of ours
    """The time is over, or nobody answered."""


class _Stream(httpcore.NetworkStream):
    """A connection of which no operation lasts longer than the whole may."""

    def __init__(self, inner: httpcore.NetworkStream, ends: float) -> None:
        self._inner, self._ends = inner, ends

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, _left(self._ends, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for first in range(0, len(buffer), 4096):  # the backend waits anew for each part that a socket takes
            self._inner.write(buffer[first : first + 4096], _left(self._ends, httpcore.WriteTimeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = _left(self._ends, httpcore.ConnectTimeout)
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, left), self._ends)

    def get_extra_info(self, info: str) -> object:
        return self._inner.get_extra_info(info)


class _Backend(httpcore.SyncBackend):
    """Connections that end by a deadline; `share` of what is left may go by until one stands."""

    def __init__(self, ends: float, share: float) -> None:
        self._ends, self._share = ends, share

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:  # fmt: skip
        left = _left(self._ends, httpcore.ConnectTimeout) * self._share
        return _Stream(super().connect_tcp(host, port, left, local_address, socket_options), self._ends)


def _left(ends: float, over: type[httpcore.TimeoutException]) -> float:
    left = ends - monotonic()
    if left <= 0:
        raise over
    return left


def looked_up(find: Callable[[], Sequence[str]], ends: float) -> Sequence[str]:
    """What a look-up finds until a moment (monotonic seconds), Late after it: the system's own knows no time.

    What it raises is raised here. One that is late goes on in a thread that nobody waits for.
    """
    found: list[Sequence[str]] = []
    broke: list[BaseException] = []

    def look() -> None:
        try:
            found.append(find())
        except BaseException as error:  # noqa: BLE001  raised by who waits
            broke.append(error)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(max(0.0, ends - monotonic()))
    if broke:
        raise broke[0]
    if not found:
        raise Late
    return found[0]


def post(
    url: str, addresses: Sequence[str], headers: Mapping[str, str], body: bytes, *, ends: float,
    context: ssl.SSLContext,
) -> int:  # fmt: skip
    """The status with which one of a host's addresses answers a POST until a moment (monotonic seconds); else Late.

    The next address is called where nothing was sent to the one before.
    """
    whole = httpx.URL(url)
    sent = [("Host", whole.netloc.decode("ascii")), *headers.items()]
    named = {"sni_hostname": whole.raw_host.decode("ascii")}  # whose certificate it has to show
    for n, address in enumerate(addresses):
        where = httpcore.URL(
            scheme=whole.raw_scheme, host=address.encode("ascii"), port=whole.port, target=whole.raw_path
        )
        backend = _Backend(ends, 1 / (len(addresses) - n))
        try:
            with (
                httpcore.ConnectionPool(context, network_backend=backend) as pool,
                pool.stream("POST", where, headers=sent, content=body, extensions=named) as answer,
            ):
                return answer.status
        except (httpcore.ConnectError, httpcore.ConnectTimeout):
            continue
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError):
            break
    raise Late

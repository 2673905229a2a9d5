"""A decoder that may die of what it reads runs apart: started when it is first needed, it serves scan after scan.

What dies is the decoder's process: the file is then not examinable, and the next one gets a new process. It is given
open descriptors (bytes that lie in memory as a memory file), never a path; what it decoded comes back over a socket.
Memory: one message, which is a batch of rows.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from fangxin.checks.residue.containers.piece import InMemory, NotExaminable, OpenFile, Readable, Slice

PATIENCE = 600.0  # seconds for one answer
DIED = "the decoder died on it"
_START = "from fangxin.checks.residue.containers.duckdb_reader import serve; serve()"


class _Worker:
    """A process that decodes, and the socket to it."""

    def __init__(self) -> None:
        self.line, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen([sys.executable, "-c", _START], stdin=theirs.fileno())
        self.line.settimeout(PATIENCE)

    def ask(self, fds: Sequence[int], where: Sequence[tuple[int, int]]) -> Iterator[tuple[dict[str, Any], bytes]]:
        """Send descriptors and where in them the files lie; yield what comes back up to its end."""
        socket.send_fds(self.line, [json.dumps(where).encode()], fds)
        while True:
            head = json.loads(self._bytes(int.from_bytes(self._bytes(4), "little")))
            body = self._bytes(head["size"])
            if head["kind"] == "end":
                return
            if head["kind"] == "error":
                raise NotExaminable(f"cannot be decoded ({head['name']})")
            yield head, body

    def _bytes(self, size: int) -> bytes:
        body = bytearray(size)
        view = memoryview(body)
        while view:
            read = self.line.recv_into(view)
            if not read:
                raise EOFError
            view = view[read:]
        return bytes(body)

    def end(self) -> None:
        self.line.close()
        self.process.kill()
        self.process.wait()


class _Idle:
    """Workers that wait for the next file. After a fork they are the parent's: the child starts its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._workers: list[_Worker] = []

    def take(self) -> _Worker:
        with self._lock:
            if self._pid != os.getpid():
                self._pid, self._workers = os.getpid(), []
            if self._workers:
                return self._workers.pop()
        return _Worker()

    def give_back(self, worker: _Worker) -> None:
        with self._lock:
            self._workers.append(worker)

    def end(self) -> None:
        with self._lock:
            workers, self._workers = self._workers if self._pid == os.getpid() else [], []
        for worker in workers:
            worker.end()


_IDLE = _Idle()
atexit.register(_IDLE.end)
os.register_at_fork(after_in_child=lambda: _IDLE.__init__())  # type: ignore[misc]  # a lock may be held while we fork


def duckdb(file: Readable, log: Readable | None) -> Iterator[tuple[dict[str, Any], bytes]]:
    """What DuckDB reads in a database and its log (duckdb_reader.py). Raises NotExaminable where it cannot, or dies."""
    worker, opened = _IDLE.take(), list[int]()
    done = False
    try:
        places = [_place(one, opened) for one in (file, log) if one is not None]
        yield from worker.ask([fd for fd, *_where in places], [(start, size) for _fd, start, size in places])
        done = True
    except NotExaminable:
        done = True
        raise
    except TimeoutError:
        raise NotExaminable(f"the decoder did not answer for {PATIENCE:.0f} s") from None
    except (OSError, EOFError):
        raise NotExaminable(DIED) from None
    finally:
        for fd in opened:
            os.close(fd)
        if done:
            _IDLE.give_back(worker)
        else:
            worker.end()


def _place(file: Readable, opened: list[int]) -> tuple[int, int, int]:
    """A descriptor, and where in it the file begins and how long it is."""
    start, size = 0, file.size
    while isinstance(file, Slice):
        start, file = start + file.start, file.of
    if isinstance(file, OpenFile):
        return file.fd, start, size
    data = file.data if isinstance(file, InMemory) and not start and size == file.size else file.at(start, size)
    fd = os.memfd_create("held", os.MFD_CLOEXEC)
    opened.append(fd)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    return fd, 0, len(data)

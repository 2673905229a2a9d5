"""Whoever reads a file as bytes leaves this process's locks on it alone: a commit after a scan is not lost."""

from __future__ import annotations

import fcntl
import gc
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fangxin.checks.residue.inventory import take
from fangxin.checks.residue.patterns import needles_for
from fangxin.checks.residue.scan import scan
from fangxin.data import descriptors
from fangxin.data.descriptors import mapped, reading
from fangxin.data.extents import alone
from fangxin.data.keys.lease import Lease
from fangxin.data.vocabulary import Identity

NEEDLES = needles_for([(0, Identity("phone", "13912345678"))])
COUNT = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); print(*c.execute('SELECT count(*) FROM t').fetchone())"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[tuple[Path, sqlite3.Connection]]:
    """A database with a write-ahead log that this process has open."""
    path = tmp_path / "store.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE t(x)")
        db.execute("INSERT INTO t VALUES ('13912345678')")
        yield path, db


def elsewhere(path: Path) -> int:
    """How many rows another process sees, which then takes its connection to be the last one if we have no lock."""
    return int(subprocess.run([sys.executable, "-c", COUNT, path], check=True, capture_output=True).stdout)


def opened(path: Path) -> int:
    """How many descriptors of a file this process has."""
    links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]  # noqa: PTH208
    return sum(os.path.samefile(link, path) for link in links if os.path.exists(link))  # noqa: PTH110, PTH121


def plainly(path: Path) -> None:
    for one in path.parent.iterdir():
        one.read_bytes()


def by_a_scan(path: Path) -> None:
    found = scan([(one.name, one) for one in sorted(path.parent.iterdir())], NEEDLES)
    assert sum(found.totals(0).values()) > 0


def by_an_inventory(path: Path) -> None:
    assert len(take((one.name, one) for one in path.parent.iterdir()).inodes) == 3


def mapped_and_let_go(path: Path) -> None:
    assert bytes(mapped(path, 4096)[:15]) == b"SQLite format 3"
    gc.collect()


@pytest.mark.parametrize(
    ("look", "lost"), [(plainly, True), (by_a_scan, False), (by_an_inventory, False), (mapped_and_let_go, False)]
)
def test_what_is_committed_after_a_look_at_the_bytes_is_not_lost(
    store: tuple[Path, sqlite3.Connection], look: Callable[[Path], None], lost: bool
) -> None:
    path, db = store
    look(path)
    assert elsewhere(path) == 1
    db.execute("INSERT INTO t VALUES ('second')")
    assert elsewhere(path) == (1 if lost else 2)  # lost without an error: the danger is real


def test_descriptors_are_kept_once_and_closed_with_the_database(store: tuple[Path, sqlite3.Connection]) -> None:
    path, db = store
    before = opened(path)
    for _ in range(20):
        by_a_scan(path)
        by_an_inventory(path)
    assert opened(path) == before + 1
    db.close()
    with alone(path, patience=0) as (_fd, leased):  # nobody has it open any more, we neither
        assert leased
    with reading(path.with_name("store.db")) as fd:
        assert os.pread(fd, 15, 0) == b"SQLite format 3"
    assert opened(path) == 0


def test_a_lock_of_somebody_else_keeps_nothing_open(tmp_path: Path) -> None:
    path = tmp_path / "theirs"
    path.write_bytes(bytes(100))
    hold = "import fcntl, sys; f = open(sys.argv[1], 'r+b'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin
        assert other.stdout
        other.stdout.readline()
        for _ in range(5):
            with reading(path):
                pass
        assert opened(path) == 0
        other.stdin.write("\n")


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(OSError, match="symbolic"), reading(tmp_path / "link"):
        pass


def test_a_lease_survives_a_scan_of_its_file(tmp_path: Path) -> None:
    mine = Lease(tmp_path, moved=lambda generation: False, drop=lambda: None)
    mine.hold(1)
    (file,) = (tmp_path / "leases").iterdir()
    file.read_bytes()
    other = os.open(file, os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)
    child = os.fork()
    if not child:
        os._exit(0 if opened(file) == 0 else 1)  # it keeps no lock of its parent's
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    mine.close()


@pytest.mark.parametrize("lost", [False, True])
def test_a_lock_that_another_thread_takes_between_the_question_and_the_closing_is_kept(
    lost: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, asks = tmp_path / "store.db", descriptors._kept_for
    with closing(sqlite3.connect(path)) as db, path.open("rb+") as other:
        db.execute("CREATE TABLE t(x)")

        def late(fd: int) -> bool:
            answer = asks(fd)
            fcntl.lockf(other, fcntl.LOCK_EX)
            return answer

        with monkeypatch.context() as patch:
            patch.setattr(descriptors, "_kept_for", late)
            if lost:  # where the lock alone is asked for
                patch.setattr(descriptors, "_lockable", lambda _fd: False)
            with reading(path):
                pass
        with reading(path) as fd:
            assert descriptors._locked(fd) is not lost
    descriptors.let_go()
    assert opened(path) == 0

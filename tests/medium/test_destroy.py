"""Overwriting the bytes of one file: refused where it would not reach them, evidence only where it did."""

from __future__ import annotations

import errno
import mmap
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fangxin.data import extents, medium
from fangxin.data.errors import StoreUnavailable
from fangxin.data.extents import Moved, NotAlone, Refused, examine
from fangxin.data.medium import destroy, overwrite, why_not

NEEDLE = b"13900001234 Wang Xiaoming"


@contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for others, but not long."""
    monkeypatch.setattr(medium, "PATIENCE", 0.1)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    path = tmp_path / "unit"
    path.write_bytes(NEEDLE * 4001)
    return path


def overwritable(path: Path) -> bool:
    return why_not(path) == ""


def test_a_plain_file_is_overwritten_to_whole_blocks_on_its_old_extents(unit: Path) -> None:
    if not overwritable(unit):
        with pytest.raises(Refused):
            destroy(unit)
        return
    now = unit.stat()
    with opened(unit) as fd:
        before = examine(fd, unit.parent)
    done = destroy(unit)
    assert (done.dev, done.ino, done.size) == (now.st_dev, now.st_ino, len(NEEDLE) * 4001)
    assert done.bytes_overwritten == -(-done.size // before.block) * before.block
    assert sum(length for _, _, length in done.extents) == done.bytes_overwritten
    assert done.extents == before.extents
    assert not unit.exists()


def test_the_seed_of_the_evidence_regenerates_what_lies_in_the_old_blocks(unit: Path) -> None:
    if not overwritable(unit):
        assert why_not(unit)
        return
    done = overwrite(unit)
    stream = Cipher(algorithms.AES(bytes.fromhex(done.seed)), modes.CTR(bytes(16))).encryptor()
    assert unit.read_bytes() == stream.update(bytes(done.bytes_overwritten))


def test_the_claim_speaks_of_overwriting_only(unit: Path) -> None:
    if not overwritable(unit):
        assert why_not(unit)
        return
    with opened(unit) as fd:
        claim = examine(fd, unit.parent).claim.lower()
    assert not any(word in claim for word in ("clear", "purge", "permanent"))
    assert "overw" in claim


def test_a_file_with_holes_is_overwritten_where_it_has_bytes(tmp_path: Path) -> None:
    path = tmp_path / "holes"
    with path.open("wb") as out:
        out.write(NEEDLE * 10)
        out.seek(1 << 20)
        out.write(NEEDLE * 10)
    if not overwritable(path):
        assert why_not(path)
        return
    done = destroy(path)
    assert done.size == (1 << 20) + len(NEEDLE) * 10
    assert 0 < done.bytes_overwritten < 1 << 17


def test_an_empty_file_needs_no_overwriting(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    if not overwritable(path):
        assert why_not(path)
        return
    assert destroy(path).bytes_overwritten == 0
    assert not path.exists()


def test_a_hard_link_is_refused(unit: Path) -> None:
    os.link(unit, unit.with_name("other"))
    with opened(unit) as fd, pytest.raises(Refused, match="2 names"):
        examine(fd, unit.parent)
    with pytest.raises(StoreUnavailable, match="one name"):
        why_not(unit)
    with pytest.raises(NotAlone):
        destroy(unit)
    assert NEEDLE in unit.read_bytes()


def test_a_symlink_is_refused_and_its_target_stays(unit: Path) -> None:
    link = unit.with_name("link")
    link.symlink_to(unit)
    with pytest.raises(StoreUnavailable, match="symbolic link"):
        why_not(link)
    with pytest.raises(OSError):
        destroy(link)
    assert NEEDLE in unit.read_bytes()


def test_an_open_reader_is_refused(unit: Path) -> None:
    with opened(unit), opened(unit) as fd, pytest.raises(NotAlone, match="open"):
        examine(fd, unit.parent)
    with opened(unit), pytest.raises(StoreUnavailable, match="open"):
        why_not(unit)
    assert NEEDLE in unit.read_bytes()


def test_a_mapping_whose_descriptor_is_closed_is_refused(unit: Path) -> None:
    with opened(unit) as fd:
        mapped = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
    with mapped, opened(unit) as fd, pytest.raises(NotAlone, match="mapped"):
        examine(fd, unit.parent)
    assert NEEDLE in unit.read_bytes()


def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StoreUnavailable, match="not a regular file"):
        why_not(tmp_path / "pipe")


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_falls_short_never_yields_evidence(unit: Path) -> None:
    if not overwritable(unit):
        assert why_not(unit)
        return
    with files_limited_to(50_000), pytest.raises(OSError):
        destroy(unit)
    assert unit.exists()


@pytest.mark.parametrize("call", ["pwrite", "fsync", "pread"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_failing_device_never_yields_evidence(
    unit: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    if not overwritable(unit):
        assert why_not(unit)
        return

    def broken(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, broken)
    with pytest.raises(OSError):
        destroy(unit)
    assert unit.exists()


def test_a_device_that_returns_other_bytes_never_yields_evidence(unit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not overwritable(unit):
        assert why_not(unit)
        return
    monkeypatch.setattr(os, "pread", lambda _fd, size, _offset: bytes(size))
    with pytest.raises(OSError, match="not what was written"):
        destroy(unit)
    assert unit.exists()


def test_blocks_that_moved_meanwhile_are_no_evidence(unit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not overwritable(unit):
        assert why_not(unit)
        return
    real, calls = extents._extents, []

    def moving(fd: int) -> list[tuple[int, int, int, int]]:
        calls.append(fd)
        return [(a, b + 4096 * (len(calls) - 1), c, d) for a, b, c, d in real(fd)]

    monkeypatch.setattr(extents, "_extents", moving)
    with pytest.raises(Moved):
        destroy(unit)
    assert unit.exists()

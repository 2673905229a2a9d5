"""Prefect's empty database is kept once and laid where none is, never with a run in it and never when it is damaged."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fangxin.flows.empty_database import is_ready, keep, lay


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("API_URL", "API_DATABASE_CONNECTION_URL", "SERVER_DATABASE_CONNECTION_URL", "PROFILE"):
        monkeypatch.delenv(f"PREFECT_{name}", raising=False)
    return tmp_path / "cache"


def new(path: Path, *runs: str) -> Path:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript("CREATE TABLE flow (name); CREATE TABLE flow_run (name); CREATE TABLE configuration (value)")
        db.executescript("CREATE TABLE alembic_version (version_num); INSERT INTO alembic_version VALUES ('head')")
        db.execute("INSERT INTO configuration VALUES ('ENCRYPTION_KEY')")
        db.executemany("INSERT INTO flow_run VALUES (?)", [(run,) for run in runs])
    return path


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


def test_it_is_laid_where_none_is_without_what_the_server_made_up(cache: Path, tmp_path: Path) -> None:
    keep(new(tmp_path / "prefect.db"))
    (tmp_path / "home").mkdir()
    there = tmp_path / "home" / "prefect.db"
    lay(there)
    with closing(sqlite3.connect(there)) as db:
        assert db.execute(
            "SELECT (SELECT count(*) FROM flow_run), (SELECT count(*) FROM configuration)"
        ).fetchone() == (0, 0)
    assert there.stat().st_mode & 0o777 == 0o600
    there.write_bytes(b"its own")
    lay(there)
    assert there.read_bytes() == b"its own"
    assert len(files(cache)) == len(files(there.parent)) == 1


def test_one_with_a_run_is_not_kept_and_a_damaged_one_is_not_laid(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(new(tmp_path / "used.db", "a run"))
    keep(tmp_path / "none.db")
    assert files(cache) == []
    keep(new(tmp_path / "new.db"))
    (kept,) = cache.rglob("*.db")
    kept.write_bytes(kept.read_bytes()[:5000])
    lay(tmp_path / "prefect.db")
    assert not (tmp_path / "prefect.db").exists()
    assert files(cache) == []
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")  # somebody else's server has its own
    keep(tmp_path / "new.db")
    assert files(cache) == []


def test_a_server_is_spared_its_preparations_only_over_a_database_that_this_prefect_prepared(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = new(tmp_path / "prefect.db")
    assert not is_ready(there)  # nobody knows what is ready: none is kept yet
    keep(there)
    assert is_ready(there)
    assert not is_ready(tmp_path / "none.db")
    with closing(sqlite3.connect(there)) as db, db:
        db.execute("UPDATE alembic_version SET version_num = 'older'")
    assert not is_ready(there)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    assert not is_ready(new(tmp_path / "theirs.db"))

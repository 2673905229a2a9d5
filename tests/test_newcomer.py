"""What a newcomer gets wrong: told in one sentence that says what to do, with the exit code of the contract."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from fangxin.data.errors import InputError
from fangxin.flows.cli.main import main
from fangxin.flows.estate import make_home, open_tree
from fangxin.flows.settings import load
from fangxin.reports.ledger.log import Ledger

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def made(home: Path) -> None:
    make_home(home, rehearsal=True, origin="new.example/erasure", now=NOW, capacity=70)


def told(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    """Run a command: its exit code, and what it said."""
    capsys.readouterr()
    code = main(argv)
    said = capsys.readouterr()
    return code, said.out + said.err


# ---------------------------------------------------------------- a home


def test_a_wrong_origin_is_refused_before_anything_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "home"
    code, said = told(capsys, "init", str(home), "--origin", "a b")
    assert code == 3
    assert "ledger.example.com/erasure" in said
    assert not home.exists()
    made(home)
    assert told(capsys, "init", str(home))[0] == 3  # it is a home already


def test_an_interrupted_init_is_repeated_and_keys_without_settings_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "create", lambda *_a, **_k: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            made(home)
    assert (home / "keys" / "root").exists()
    made(home)
    with open_tree(load(home)) as tree:
        assert tree.generation == 1
    (home / "fangxin.toml").unlink()
    with pytest.raises(InputError, match="holds keys of a home"):
        made(home)
    assert (home / "keys" / "root").exists()

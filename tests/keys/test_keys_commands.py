"""The commands that keep the vault alive: copies, a deep look, growing, and bringing a lost vault back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from keys.vaults import raw, refs

from fangxin.data.keys.tree import KeyTree
from fangxin.flows.cli.main import main


@pytest.fixture
def home(tmp_path: Path) -> Path:
    assert main(["init", str(tmp_path / "home"), "--rehearsal"]) == 0
    return tmp_path / "home"


def asked(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    capsys.readouterr()
    assert main(["keys", *words, "--json"]) == 0
    answer: dict[str, object] = json.loads(capsys.readouterr().out)
    return answer


def test_a_lost_vault_comes_back_by_the_runbook(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = ("--home", str(home))
    asked(capsys, "replicate", str(tmp_path / "replica"), *at)
    asked(capsys, "backup", "--to", str(tmp_path / "backups"), *at)
    people = refs(12)
    with KeyTree.open(home / "keys") as tree:
        tree.ensure(people, 1)
        living = raw(tree, people)
    grown = asked(capsys, "grow", "400000", "--yes", *at)
    assert grown["generation"] == 2
    deep = asked(capsys, "status", "--deep", *at)["deep"]
    assert isinstance(deep, dict)
    assert (deep["keys"], deep["subjects"], deep["grow"], deep["unscrubbed"]) == (12, 12, False, 0)
    assert [one["restorable"] for one in deep["copies"]] == [True, False, True]
    for path in (home / "keys").glob("tree-*"):
        path.unlink()
    assert main(["keys", "status", *at]) == 1
    assert asked(capsys, "restore", *at)["restored"] is False
    assert main(["keys", "status", *at]) == 1  # a plan changes nothing
    assert asked(capsys, "restore", "--yes", *at)["keys"] == 12
    with KeyTree.open(home / "keys") as tree:
        assert raw(tree, people) == living
    assert main(["keys", "restore", "--yes", *at]) == 4  # whole again
    assert main(["keys", "grow", "500000", *at]) == 4  # not without --yes
    assert main(["keys", "backups", *at]) == 0


def test_a_vault_without_a_copy_that_opens_says_so(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = ("--home", str(home))
    assert main(["keys", "status", "--deep", *at]) == 0
    assert "no copy opens under the living root" in capsys.readouterr().out
    assert main(["keys", "backup", *at]) == 3
    assert main(["keys", "backup", "--to", str(home / "keys" / "copies"), *at]) == 4
    assert main(["keys", "backups", str(tmp_path), *at]) == 2

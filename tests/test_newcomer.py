"""What a newcomer gets wrong: told in one sentence that says what to do, with the exit code of the contract."""

from __future__ import annotations

import sqlite3
from contextlib import closing
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


# ---------------------------------------------------------------- a command line


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("catlog", ("no such command", "did you mean catalog?", "`fangxin --help`")),
        ("--home x keys status", ("options stand behind the command",)),
        ("catalog lnit", ("`fangxin catalog` has no such command", "lint")),
        ("13800138000", ("there are canary, catalog,",)),
        ("locate --subject x", ("no option --subject", "did you mean --subjects?", "`fangxin locate --help`")),
        ("locate --13800138000", ("no such option",)),
        ("locate 13800138000", ("a word is left over",)),
        ("report --from 2026-11-01", ("--to is missing",)),
        ("resume --catalog c", ("`fangxin resume` has no option --catalog",)),
        ("request open", ("`fangxin request open`: --verified is missing",)),
        ("erase --identity", ("--identity needs a value",)),
        ("sample x --people p13800138000", ("--people: expected a whole number",)),
    ],
)
def test_a_wrong_command_line_is_told_by_the_option_or_command_that_is_wrong(
    line: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = told(capsys, *line.split())
    assert code == 3
    assert not [word for word in words if word not in said], said
    assert "13800138000" not in said  # whatever was typed may be somebody


def test_a_file_that_is_not_there_is_called_that(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line in (
        "catalog lint nowhere.yml",
        "keys approve nowhere --officer dpo --key k --out o",
        "keys officers --add nowhere --home {home}",
    ):
        code, said = told(capsys, *line.format(home=tmp_path / "home").split())
        assert code == 3
        assert "no such file" in said or "not a home" in said, said
        assert "Error" not in said


# ---------------------------------------------------------------- people


def test_doubtful_lines_are_told_before_anybody_is_erased(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A shifted column joins two accounts; nobody is found; a person comes twice. Each is said, none is passed over."""
    for folder in ("stores", "catalog"):
        (tmp_path / folder).mkdir()
    with closing(sqlite3.connect(tmp_path / "stores/w.db")) as db, db:
        db.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, phone TEXT, email TEXT)")
        db.executemany(
            "INSERT INTO accounts VALUES (?, ?, ?)", [(i, f"139{i:08d}", f"p{i}@example.com") for i in range(1, 9)]
        )
    (tmp_path / "catalog/c.yml").write_text(CATALOG)
    made(tmp_path / "home")

    def located(text: str) -> tuple[int, str]:
        (tmp_path / "people.csv").write_text(f"phone_number,email\n{text}")
        at = ["--catalog", str(tmp_path / "catalog"), "--home", str(tmp_path / "home")]
        return told(capsys, "locate", "--subjects", str(tmp_path / "people.csv"), *at)

    code, said = located("13900000001,p1@example.com\n13900000002,p3@example.com\n13811112222,\n")
    assert code == 0
    assert "subject 1: " not in said
    assert "subject 2: the identities given lead to 2 accounts" in said
    assert "subject 3: nobody has these identities" in said
    code, said = located("13900000001,\n13900000001,p1@example.com\n")
    assert code == 3
    assert "lines 2 and 3 name the same phone_number: they are one person" in said
    (tmp_path / "catalog/c.yml").write_text(CATALOG.replace("name: email", "name: mail"))
    code, said = located("13900000001,\n")
    assert code == 3
    assert "column mail in table accounts" in said


CATALOG = """root: ../stores
dataset:
  - fides_key: w
    name: w
    erasure: {store: {kind: sqlite, url: w.db}, mode: delete, copies: []}
    collections:
      - name: accounts
        erasure: {person: true}
        fields:
          - {name: id, data_categories: [user.unique_id], fides_meta: {primary_key: true, data_type: integer}}
          - {name: phone, data_categories: [user.contact.phone_number], fides_meta: {identity: phone_number}}
          - {name: email, data_categories: [user.contact.email], fides_meta: {identity: email}}
"""

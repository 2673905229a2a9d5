"""What a newcomer gets wrong: told in one sentence that says what to do, with the exit code of the contract."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fangxin.checks.residue.patterns import needles_for
from fangxin.data.errors import InputError
from fangxin.data.vocabulary import Identity
from fangxin.flows.cli.main import main
from fangxin.flows.estate import make_home, open_estate, open_tree
from fangxin.flows.outside import drafts
from fangxin.flows.places import places
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


# ---------------------------------------------------------------- what lies outside the catalog


SHOP = """
dataset:
  - fides_key: shop
    erasure: {store: {kind: text, url: t/}, mode: delete, copies: [{kind: backup, name: nightly, keep: 35d}]}
    collections:
      - name: members
        erasure: {store: {glob: "m.csv"}}
        fields:
          - {name: phone, data_categories: [user.contact.phone_number], fides_meta: {identity: phone_number}}
"""


def test_who_stands_outside_the_catalog_is_seen_in_the_plan_and_the_drafts_can_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A copied database in a watched folder: told with its real path before anything is destroyed."""
    home, shop, away = tmp_path / "home", tmp_path / "shop", tmp_path / "away"
    made(home)
    (shop / "t").mkdir(parents=True)
    (shop / "shop.yml").write_text(SHOP)
    (shop / "t" / "m.csv").write_text("phone\n13900000001\n13900000002\n")
    away.mkdir()
    with closing(sqlite3.connect(away / "copy.db")) as db, db:
        db.execute("CREATE TABLE m (phone text, since text)")
        db.execute("CREATE TABLE prices (no integer, price integer)")
        db.execute("INSERT INTO m VALUES ('13900000001', '2024')")
    settings = (home / "fangxin.toml").read_text("utf-8")
    (home / "fangxin.toml").write_text(settings.replace("watch = []", f'watch = ["{away}"]'), "utf-8")
    given = ["--home", str(home), "--catalog", str(shop / "shop.yml"), "--identity"]

    code, said = told(capsys, "erase", *given, "phone_number=13900000001")
    assert code == 4
    assert "outside the catalog, so not erased: watched-1/copy.db: " in said
    assert f"watched-1/ is {away} (`watch` in fangxin.toml)" in said
    assert "not touched: backup nightly, kept 35d, of shop" in said
    code, said = told(capsys, "erase", *given, "phone_number=13900000002")
    assert "none of these people seen there" in said
    code, said = told(capsys, "locate", *given, "phone_number=13900000009")
    assert (code, "locate looks only where the catalog points" in said) == (0, True)
    assert "did you mean phone_number?" in told(capsys, "locate", *given, "phone=13900000001")[1]

    estate = open_estate(home, shop / "shop.yml")
    wanted = needles_for([(0, Identity("phone_number", "+8613900000001"))])
    (name,) = found = drafts(estate, places(estate), ["watched-1/copy.db"], wanted)
    draft = tmp_path / "draft.yml"
    draft.write_text(found[name])
    assert name == "watched-1"
    assert told(capsys, "catalog", "lint", str(draft))[0] == 0
    assert told(capsys, "erase", *given[:3], str(draft), given[4], "phone_number=13900000001")[0] == 4  # not reviewed
    draft.write_text(found[name].replace(", reviewed: false", ""))
    code, said = told(capsys, "erase", *given[:3], str(draft), given[4], "phone_number=13900000001")
    assert (code, "outside_sqlite_1/m  1     goes" in said) == (4, True), said

    draft.write_text(draft.read_text().replace("\n#      ", "\n      "))  # prices, which leads to nobody
    code, said = told(capsys, "erase", *given[:3], str(draft), given[4], "phone_number=13900000001")
    assert "outside_sqlite_1/prices cannot be erased: no identity leads to its rows" in said
    (shop / "t" / "m.csv").unlink()
    code, said = told(capsys, "locate", *given, "phone_number=13900000001")
    assert (code, said.splitlines()[-1][:29]) == (2, "fangxin: incomplete (exit 2):")
    draft.write_text("dataset:\n\t- fides_key: x\n")
    assert "indented by a tab; expected spaces" in told(capsys, "catalog", "lint", str(draft))[1]

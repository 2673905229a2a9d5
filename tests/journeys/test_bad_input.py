"""Wrong input, unready stores and forbidden moves: the right exit code, what to do about it, and nothing is touched.

Every refusal comes from the command line itself, before Prefect is even imported; no message quotes a person.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from journeys import crash_support as crash
from journeys.crash_support import in_child, told
from journeys.small_house import build

from fangxin.flows import erase
from fangxin.flows.cli.main import main
from fangxin.flows.estate import open_estate
from fangxin.flows.protect import protect

NOW = "2026-11-24T09:00:00+08:00"


@dataclass(frozen=True)
class Desk:
    """An operator's desk: an estate with its home, and what may never be printed."""

    place: Path
    capsys: pytest.CaptureFixture[str]

    @property
    def home(self) -> Path:
        return self.place / "home"

    @property
    def stores(self) -> Path:
        return self.place / "estate" / "stores"

    @property
    def catalog(self) -> Path:
        return self.place / "estate" / "catalog" / "lecard.yml"

    @property
    def leavers(self) -> Path:
        return self.place / "estate" / "leavers.csv"

    def edit(self, old: str, new: str) -> None:
        """Change the catalog."""
        text = self.catalog.read_text("utf-8")
        assert old in text
        self.catalog.write_text(text.replace(old, new, 1), "utf-8")

    def subjects(self, text: str, name: str = "people.csv") -> str:
        """A subjects file of one's own."""
        path = self.place / name
        path.write_text(text, "utf-8")
        return str(path)

    def values(self) -> set[str]:
        """Every identity of every leaver, raw and canonical."""
        with self.leavers.open(encoding="utf-8") as lines:
            raw = {v for row in csv.DictReader(lines) for v in row.values()}
        return raw | {f"+86{v}" for v in raw if v.isdigit()}

    def refuses(self, code: int, *words: str, argv: list[str], hidden: tuple[str, ...] = ()) -> str:
        """Run a command: this exit code, these words, no person's value, and not one byte elsewhere."""
        self.capsys.readouterr()
        before = crash.fingerprint(self.place)
        found = main([*argv, "--home", str(self.home)])
        told_us = self.capsys.readouterr()
        said = told_us.out + told_us.err
        assert found == code, said
        for word in words:
            assert word in told_us.err, said
        assert not [v for v in {*self.values(), *hidden} if v in said]
        assert not self.touched(before)
        return said

    def touched(self, before: dict[str, str]) -> list[str]:
        """Files that changed; the lock, and SQLite's own settling of the vault's log, are no change."""
        written = crash.changed(before, crash.fingerprint(self.place))
        return [name for name in written if name != "home/lock" and not name.startswith("home/keys/tree-")]

    def erase(self, *more: str, subjects: str | None = None, yes: bool = True) -> list[str]:
        argv = ["erase", "--catalog", str(self.catalog), "--now", NOW, "--subjects", subjects or str(self.leavers)]
        return [*argv, *(["--yes"] if yes else []), *more]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("desk") / "made"

    def make() -> None:
        protect(open_estate(place / "home", crash.small_estate(place), crash.NOW))

    told(in_child(make))
    return place


@pytest.fixture
def desk(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    shutil.copytree(made, tmp_path / "desk")
    monkeypatch.setenv("FANGXIN_HOME", "unset")
    # Whoever reaches for Prefect after all ends with a defect of ours, exit code 70.
    monkeypatch.setitem(sys.modules, "fangxin.flows.deployed", None)
    return Desk(tmp_path / "desk", capsys)


# ---------------------------------------------------------------- the catalog


@pytest.mark.parametrize(
    ("old", "new", "code", "words"),
    [
        pytest.param("url: wallet.db", "url: walet.db", 3, ("walet.db", "lecard.yml"), id="a file that is not there"),
        pytest.param('"members*.csv"', '"memberz*.csv"', 3, ("exports/members",), id="a glob that finds nothing"),
        pytest.param("name: street", "name: streeet", 3, ("streeet", "lecard.yml:"), id="a column of a database"),
        pytest.param("{name: merchant", "{name: merchent", 3, ("merchent",), id="a column of Parquet"),
        pytest.param("{name: page", "{name: paage", 3, ("paage",), id="another column of Parquet"),
        pytest.param("dataset:\n", "dataset: [\n", 3, ("lecard.yml:",), id="broken YAML"),
        pytest.param("mode: delete", "mode: deleet", 3, ("lecard.yml:", "deleet"), id="a mode that nobody knows"),
    ],
)
def test_a_catalog_that_does_not_fit_what_is_there_is_refused_by_file_and_line(
    desk: Desk, old: str, new: str, code: int, words: tuple[str, ...]
) -> None:
    desk.edit(old, new)
    desk.refuses(code, *words, argv=desk.erase())
    if "*" not in new:  # where a glob finds nothing there is nothing to look into: locate says so, and goes on
        desk.refuses(code, *words, argv=["locate", "--catalog", str(desk.catalog), "--subjects", str(desk.leavers)])


def test_a_catalog_that_is_not_there_is_named(desk: Desk) -> None:
    desk.refuses(3, "nowhere.yml", "--catalog", argv=["erase", "--catalog", "nowhere.yml", "--subjects", "x", "--yes"])


# ---------------------------------------------------------------- the people


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("phone_number", "1380013800"),
        ("cn_resident_id", "110101199003070018"),
        ("bank_card", "6222021234567890129"),
        ("email", "somebody.example.com"),
    ],
)
def test_a_malformed_identity_is_refused_by_file_and_line_and_never_quoted(desk: Desk, kind: str, value: str) -> None:
    good = "13800138000" if kind == "phone_number" else "a@b.cn"
    first = "phone_number" if kind == "phone_number" else "email"
    text = f"{kind}\n{good}\n{value}\n" if kind == first else f"{first},{kind}\n{good},\n{good[:-1]}m,{value}\n"
    path = desk.subjects(text)
    desk.refuses(3, f"{path}:3", kind, "expected", argv=desk.erase(subjects=path), hidden=(value,))
    file = desk.subjects(value + "\n", "one.txt")
    argv = ["erase", "--catalog", str(desk.catalog), "--identity", f"{kind}=@{file}", "--yes"]
    desk.refuses(3, f"{file}:1: ", kind, "expected", argv=argv, hidden=(value,))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("oaid\n8f0e0b3c-2d4f-4b8e-9c7a-1b2c3d4e5f60\n", (":1", "'oaid'", "declared kinds"), id="kind"),
        pytest.param("13800138000\n13900139000\n", (":1", "11 characters", "first line"), id="no header"),
        pytest.param("phone_number,email\n13800138000\n", (":2", "expected 2 columns, found 1"), id="a column short"),
        pytest.param("", (":1", "expected a header line"), id="empty"),
        pytest.param("phone_number\n", ("found no subject",), id="only a header"),
        pytest.param("phone_number,email\n,\n13800138000,\n,\n;,\n", (":5", "found none"), id="nobody on a line"),
        pytest.param('phone_number\n"13800138000\n', ("not valid CSV",), id="an open quote"),
        pytest.param(
            '{"phone_number": 13800138000}\n', (":1", "phone_number", "expected text"), id="a number in JSONL"
        ),
        pytest.param('{"phone_number": "13800138000"\n', (":1", "not a JSON object"), id="half a line of JSONL"),
        pytest.param(
            "phone_number\n13800138000\n+86 138-0013-8000\n",
            ("lines 2 and 3 name the same phone_number", "one line a person"),
            id="twice",
        ),
    ],
)
def test_a_subjects_file_that_cannot_be_read_as_one_person_a_line_is_refused(
    desk: Desk, text: str, words: tuple[str, ...]
) -> None:
    path = desk.subjects(text)
    desk.refuses(3, *words, argv=desk.erase(subjects=path), hidden=("13800138000",))


def test_a_subjects_file_that_is_not_there_is_named(desk: Desk) -> None:
    desk.refuses(3, "nobody.csv", argv=desk.erase(subjects="nobody.csv"))


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        pytest.param(["--identity", "phone_number"], ("KIND=VALUE",), id="no value"),
        pytest.param(["--identity", "phone_number=@nowhere.txt"], ("nowhere.txt",), id="no such file"),
        pytest.param(["--identity", "shoe_size=@nowhere.txt"], ("nowhere.txt",), id="no such kind"),
        pytest.param([], ("either --identity or --subjects",), id="neither"),
        pytest.param(
            ["--identity", "email=a@b.cn", "--subjects", "x.csv"], ("either --identity or --subjects",), id="both"
        ),
        pytest.param(["--subjects", "x.csv", "--require", "magic"], ("expected overwrite",), id="another requirement"),
        pytest.param(["--subjects", "x.csv", "--now", "tomorrow"], ("ISO 8601",), id="another clock"),
        pytest.param(
            ["--subjects", "x.csv", "--shred"],
            ("no option --shred", "fangxin erase --help"),
            id="an option that nobody knows",
        ),
    ],
)
def test_wrong_usage_is_refused_with_what_was_expected(desk: Desk, argv: list[str], words: tuple[str, ...]) -> None:
    desk.refuses(3, *words, argv=["erase", "--catalog", str(desk.catalog), "--yes", *argv])


def test_somebody_whom_no_store_knows_is_not_erased_and_is_forgotten(desk: Desk) -> None:
    """Only the walk can tell; the run stops at its first step, and resuming is the same run without Prefect."""
    from fangxin.data.vocabulary import Identity

    estate = open_estate(desk.home, desk.catalog, crash.NOW)
    stranger = Identity("phone_number", "+8613800138000")
    batch = erase.open_batch(estate, [[stranger]], options={"approved": True, "now": crash.NOW.isoformat()})
    stores = crash.fingerprint(desk.stores)
    assert main(["resume", batch, "--home", str(desk.home)]) == 3
    said = desk.capsys.readouterr().err
    assert "subject 1: nobody has these identities" in said
    assert f"batch {batch} is given up" in said
    assert "13800138000" not in said
    assert crash.changed(stores, crash.fingerprint(desk.stores)) == []
    assert estate.requests.batch(batch).state == "abandoned"
    kinds = [e["type"] for _n, e in open_estate(desk.home, desk.catalog).ledger.entries()]
    assert kinds.count("request.opened") == kinds.count("request.refused") == 1  # none stays open in reports


# ---------------------------------------------------------------- the stores


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _magic(mark: bytes) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        body = path.read_bytes()
        path.write_bytes(mark + body[4:-4] + mark)

    return change


def _symlink(path: Path) -> None:
    aside = path.parents[3] / "aside.parquet"
    path.rename(aside)
    path.symlink_to(aside)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        pytest.param(_truncate, ("expected",), id="truncated"),
        pytest.param(_magic(b"ORC1"), ("expected",), id="foreign"),
        pytest.param(_magic(b"PARE"), ("encrypt",), id="encrypted"),
        pytest.param(_symlink, ("symbolic link",), id="a symbolic link"),
        pytest.param(lambda path: os.link(path, path.with_name("twin.bin")), ("2 hard links",), id="a second name"),
        pytest.param(lambda path: path.chmod(0o444), ("read-only", "writable"), id="read-only"),
        pytest.param(lambda path: path.write_bytes(b""), ("expected",), id="empty"),
    ],
)
def test_a_unit_that_is_not_whole_ours_alone_and_writable_is_refused_by_name(
    desk: Desk, spoil: Callable[[Path], None], words: tuple[str, ...]
) -> None:
    unit = next(desk.stores.glob("lake/transactions/month=*/part-0.parquet"))
    spoil(unit)
    desk.refuses(5, unit.relative_to(desk.stores / "lake").as_posix(), *words, argv=desk.erase())


def test_a_unit_that_is_a_link_out_of_the_root_is_told_alike_by_every_command(desk: Desk) -> None:
    path = desk.stores / "exports" / "members.csv"
    shutil.move(path, desk.place / "members.csv")
    path.symlink_to(desk.place / "members.csv")
    for argv in (desk.erase(), ["locate", "--catalog", str(desk.catalog), "--subjects", str(desk.leavers)]):
        desk.refuses(3, "exports/members.csv", "leaves its root through a link", argv=argv)


def test_a_table_without_a_declared_column_in_its_header_is_refused(desk: Desk) -> None:
    path = desk.stores / "exports" / "members.csv"
    text = path.read_text("utf-8")
    path.write_text(text.replace("phone", "telephone", 1), "utf-8")
    desk.refuses(3, "members.csv", "phone", argv=desk.erase())


def test_a_locked_database_is_refused_and_left_alone(desk: Desk) -> None:
    with closing(sqlite3.connect(desk.stores / "wallet.db", isolation_level=None)) as wallet:
        wallet.execute("PRAGMA journal_mode=DELETE")
        wallet.execute("BEGIN EXCLUSIVE")
        desk.refuses(5, "wallet.db", argv=desk.erase())


def test_a_file_that_is_no_database_is_refused(desk: Desk) -> None:
    (desk.stores / "wallet.db").write_bytes(b"not a database" * 100)
    desk.refuses(5, "wallet.db", "expected", argv=desk.erase())


def test_values_that_should_lie_under_keys_and_stand_in_clear_must_be_protected_first(
    desk: Desk, tmp_path: Path
) -> None:
    clear = Desk(tmp_path / "clear", desk.capsys)
    told(in_child(lambda: str(crash.small_estate(clear.place))))
    clear.refuses(4, "stands in clear", "fangxin protect", "lecard.yml:", argv=clear.erase())


# ---------------------------------------------------------------- what is not allowed


def test_without_yes_only_the_plan_is_shown(desk: Desk) -> None:
    said = desk.refuses(4, "not approved", "--yes", argv=desk.erase(yes=False))
    assert "what happens" in said
    assert "goes" in said


def test_an_export_never_lands_among_other_files(desk: Desk) -> None:
    folder = desk.place / "handed-over"
    folder.mkdir()
    (folder / "somebody-elses.txt").write_text("mine")
    desk.refuses(3, str(folder), "new or empty", argv=desk.erase("--export", str(folder)))


def test_the_clock_is_fixed_only_in_a_rehearsal(desk: Desk) -> None:
    settings = desk.home / "fangxin.toml"
    settings.write_text(settings.read_text("utf-8").replace("rehearsal = true", "rehearsal = false"), "utf-8")
    desk.refuses(4, "--now", "rehearsal", argv=desk.erase())


def test_a_folder_that_is_no_home_is_named(desk: Desk) -> None:
    (desk.place / "elsewhere").mkdir()
    other = Desk(desk.place, desk.capsys)
    before = crash.fingerprint(desk.place)
    assert main([*desk.erase(), "--home", str(other.place / "elsewhere")]) == 3
    assert "not a home of fangxin" in desk.capsys.readouterr().err
    assert crash.changed(before, crash.fingerprint(desk.place)) == []


def test_a_home_is_never_made_twice(desk: Desk) -> None:
    desk.refuses(3, "is a home of fangxin already", argv=["init", "--rehearsal"])


def test_a_batch_that_nobody_opened_cannot_be_resumed(desk: Desk) -> None:
    assert main(["resume", "--home", str(desk.home)]) == 0  # lays the book of requests out
    desk.refuses(3, "no batch b-nobody", argv=["resume", "b-nobody"])


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A folder on a file system that lies in memory: it refuses overwriting, and says why."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def test_where_overwriting_is_required_a_medium_that_refuses_stops_everything_before_it_begins(
    desk: Desk, in_memory: Path
) -> None:
    shutil.copytree(desk.place, in_memory / "desk")
    there = Desk(in_memory / "desk", desk.capsys)
    there.refuses(4, "--require overwrite", "tmpfs", argv=there.erase("--require", "overwrite"))


def test_where_it_is_not_required_the_certificate_says_that_the_rows_were_only_deleted_logically(
    in_memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = build(in_memory)
    monkeypatch.setenv("FANGXIN_HOME", str(house.home))
    batch = house.begin()
    erase.journey(batch)
    (request,) = erase.summary(house.home, batch)["requests"]
    acted = [v for v in request["verdicts"] if v["rows_erased"] or v["values_masked"]]
    assert {v["store"].partition(":")[0] for v in acted} == {"sqlite", "text"}
    assert {v["method"] for v in acted} == {"LOGICAL_DELETE"}
    assert all("tmpfs" in v["reason"] and not v["bytes_overwritten"] for v in acted)
    assert house.verified(batch) == 0
    page = Path(request["certificate"])
    assert "LOGICAL_DELETE" in json.dumps(json.loads(page.read_bytes())["collections"])

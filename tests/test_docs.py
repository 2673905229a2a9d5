"""Documents that stay true: links lead somewhere, commands and targets exist, and the README's session works."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import scenarios
from test_cli_answers import asked, conforms

from fangxin.data.catalog.law import Laws
from fangxin.data.errors import FangxinError
from fangxin.data.vocabulary import Store
from fangxin.flows.cli.console import INTERRUPTED
from fangxin.flows.cli.main import app, main
from fangxin.flows.erase import journey

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
README = (ROOT / "README.md").read_text("utf-8")
PLANNED = re.compile(r"^(##|\*\*)\s*Not yet.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def text_of(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def prose_of(name: str) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", text_of(name), flags=re.MULTILINE | re.DOTALL)


def anchors(name: str) -> set[str]:
    """The anchors that headings of a page get."""
    headings = re.findall(r"^#+ (.+)$", prose_of(name), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


def code_in(name: str) -> list[str]:
    """What stands in backticks, and every line of fenced blocks; plans of later versions left out."""
    text = PLANNED.sub("", text_of(name))
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", PLANNED.sub("", prose_of(name))) + [
        line for block in fenced for line in block.splitlines()
    ]


# ------------------------------------------------------------ what pages point to


@pytest.mark.parametrize("name", NAMES)
def test_no_link_leads_nowhere(name: str) -> None:
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(name)):
        if re.match(r"https?://|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (ROOT / name).parent / path if path else ROOT / name
        lost = bool(anchor) and there.exists() and anchor not in anchors(there.resolve().relative_to(ROOT).as_posix())
        if lost or not there.exists():
            dead.append(target)
    assert dead == []


@pytest.mark.parametrize("name", NAMES)
def test_files_that_pages_name_exist(name: str) -> None:
    rooms = re.compile(r"(?:data|checks|reports|flows|docs|tests|fangxin)/[\w./*-]*")
    named = [code.partition(":")[0] for code in code_in(name) if rooms.fullmatch(code.partition(":")[0])]
    assert [one for one in named if not list(ROOT.glob(one))] == []


def test_every_page_of_the_docs_is_linked_from_the_readme() -> None:
    pages = [name for name in NAMES if name.startswith("docs/") and "/decisions/" not in name]
    assert [name for name in pages if f"({name})" not in README] == []
    assert "(docs/decisions/)" in README


def test_every_decision_has_a_number_of_its_own_and_says_it_in_its_title() -> None:
    pages = sorted(ROOT.glob("docs/decisions/*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    titles = [page.read_text("utf-8").splitlines()[0] for page in pages]
    assert all(re.match(r"# \d+\. \S", title) for title in titles)
    assert [int(title[2:].partition(".")[0]) for title in titles] == list(range(1, len(pages) + 1))


@pytest.mark.parametrize("name", NAMES)
def test_commands_and_options_that_pages_name_exist(name: str) -> None:
    unknown = []
    for code in code_in(name):
        if not (found := re.match(r"fangxin ([a-z][a-z -]*)", code)):
            continue
        known = app
        for word in found[1].split():
            if word not in known:
                break
            known = known[word]
        if known is app:
            unknown.append(code)
            continue
        options = {option for argument in known.assemble_argument_collection() for option in argument.names}
        unknown += [f"{code}: {one}" for one in re.findall(r"--[a-z][a-z-]*", code) if one not in options]
    assert unknown == []


def test_make_has_the_targets_that_pages_name_and_no_empty_ones() -> None:
    makefile = text_of("Makefile")
    rules = set(re.findall(r"^([a-z]+):", makefile, flags=re.MULTILINE))
    phony = set(re.findall(r"^\.PHONY: (.+)$", makefile, flags=re.MULTILINE)[0].split("#")[0].split())
    assert phony == rules
    named = {one for name in NAMES for code in code_in(name) for one in re.findall(r"\bmake ([a-z]+)\b", code)}
    assert {"demo", "test", "check"} <= named <= rules


# ------------------------------------------------------------ what pages say of the code


def test_exit_codes_in_the_readme_are_those_of_the_errors() -> None:
    def family(one: type[FangxinError]) -> set[int]:
        return {one.exit_code}.union(*(family(child) for child in one.__subclasses__()))

    section = README.partition("| exit code |")[2].partition("\n## ")[0]
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", section, flags=re.MULTILINE)}
    assert told == {0, INTERRUPTED, *family(FangxinError)}


def test_the_page_on_stores_names_every_promise_of_a_store() -> None:
    table = text_of("docs/adding-a-store.md").partition("| method |")[2].partition("\n\n")[0]
    told = {
        name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1] if "|" in row else "")
    }
    promised = {name for name in vars(Store) if not name.startswith("_") and callable(getattr(Store, name))}
    assert told == promised


def test_the_law_that_the_page_on_laws_shows_can_be_loaded(tmp_path: Path) -> None:
    example = re.search(r"^    jurisdiction:.*?\n\n", text_of("docs/adding-a-law.md"), re.MULTILINE | re.DOTALL)
    assert example is not None
    (tmp_path / "cn.yaml").write_text(re.sub(r"^    ", "", example[0], flags=re.MULTILINE), "utf-8")
    assert list(Laws.load(tmp_path).digests) == ["cn"]


def test_the_page_on_scenarios_is_the_one_that_the_tests_marks_make() -> None:
    assert text_of("docs/scenarios.md") == scenarios.page(), "python tests/scenarios.py writes it"
    by = scenarios.shown()
    shown = [row for row, (_text, paged) in scenarios.ROWS.items() if not paged and by.get(row)]
    assert list(scenarios.ROWS) == [f"S{n}" for n in range(1, 45)]
    assert len(shown) >= 25  # of the rows that need no page


# ------------------------------------------------------------ the session


def session() -> list[str]:
    """The lines of the README's session that is marked as tested."""
    (block,) = re.findall(r"^<!-- tested -->\n```sh\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    return [line for line in block.splitlines() if line.strip()]


def expanded(folder: Path, word: str) -> list[str]:
    """What a shell that stands in the folder makes of a word."""
    return sorted(str(path) for path in folder.glob(word)) if "*" in word else [word]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to stand in; the environment is put back afterwards."""
    before = dict(os.environ)
    os.environ.pop("FANGXIN_HOME", None)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.slow
def test_the_session_in_the_readme_works_as_it_stands(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every line in this process; that Prefect runs the same steps is tested in journeys/test_prefect.py."""
    monkeypatch.setattr("fangxin.flows.deployed.run_erase", journey)
    said = {}
    for line in session():
        words = shlex.split(line, comments=True)
        if words[0] == "fangxin":
            argv = [one for word in words[1:] for one in (expanded(folder, word))]
            code = main(argv)
            said[words[1]] = capsys.readouterr()
            assert code == 0, (line, said[words[1]].err)
        elif words[0] == "export":
            name, _, value = words[1].partition("=")
            os.environ[name] = value.replace("$PWD", str(folder))
        else:
            subprocess.run(["sh", "-ec", line], cwd=folder, check=True)
    assert "erased" in said["erase"].out
    assert "FAILED" not in said["erase"].out
    assert "Every check that applies was run and holds." in said["verify"].out
    assert said["scan"].out.startswith("FOUND           0 places, 0 hits")
    assert list((folder / "handed-over").rglob("*.parquet")) != []

    (package,) = folder.glob("house/reports/package-*.zip")
    code, document, _ = asked("resume", package.stem.removeprefix("package-"))
    conforms("resume", document)
    assert code == 0
    assert {one["outcome"] for one in document["batches"][0]["requests"]} <= {"erased", "erased_with_retention"}

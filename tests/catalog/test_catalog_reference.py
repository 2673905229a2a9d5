"""The page on the catalog says what the reader does: its keys, its examples, and every message it shows."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection as Names
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from fangxin.data.catalog.dataset import problems, read_catalog
from fangxin.data.catalog.kinds import SPELLED
from fangxin.data.catalog.known import likely_kind
from fangxin.data.catalog.lint import lint
from fangxin.data.catalog.shape import Draft, FileReader
from fangxin.data.catalog.tree import Page, Problem, Severity, compose
from fangxin.data.vocabulary import Guards, IdentityFormat, Mode, Ownership

PAGE = (Path(__file__).parents[2] / "docs/catalog-reference.md").read_text("utf-8")

# A small catalog with every block in it; <name> is where that block stands.
BLOCKS: dict[str, dict[str, str]] = {
    "the file": {"dataset": "[<a dataset>]", "data_category": "[<data_category>]"},
    "data_category": {"fides_key": "shop.points"},
    "a dataset": {
        "fides_key": "shop",
        "fides_meta": "<fides_meta of a dataset>",
        "erasure": "<erasure of a dataset>",
        "collections": "[<a collection>, <other collection>]",
    },
    "fides_meta of a dataset": {},
    "erasure of a dataset": {"store": "{kind: text, url: x/}", "copies": "[<a copy>]", "guards": "<guards>"},
    "store": {"kind": "parquet", "url": "lake/", "glob": "a/*"},
    "a copy": {"kind": "backup", "name": "nightly"},
    "guards": {},
    "a collection": {
        "name": "members",
        "fides_meta": "<fides_meta of a collection>",
        "erasure": "<erasure of a collection>",
        "fields": "[{name: id, fides_meta: {primary_key: true, data_type: integer}}, <a field>]",
    },
    "fides_meta of a collection": {"masking_strategy_override": "{strategy: delete}"},
    "erasure of a collection": {"store": "<store>", "retention": "<retention>"},
    "retention": {"law": "pipl", "class": "order"},
    "a field": {"name": "x", "fides_meta": "<fides_meta>", "erasure": "<erasure of a field>"},
    "fides_meta": {
        "references": "[<a reference>]",
        "masking_strategy_override": "<masking_strategy_override>",
    },
    "a reference": {"dataset": "shop", "field": "orders.y"},
    "masking_strategy_override": {"strategy": "null_rewrite"},
    "erasure of a field": {"mask": "<mask>"},
    "mask": {"constant": "gone"},
    "other collection": {"name": "orders", "erasure": "{store: {glob: b/*}}", "fields": "[{name: y}]"},
}
EITHER = {("a copy", "dataset"): "name", ("mask", "bucket"): "constant"}  # one of the two
EITHER |= {(block, "fidesops_meta"): "fides_meta" for block in ("a dataset", "a collection", "a field")}
LEVELS = {"D": "dataset", "C": "collection", "F": "field"}


@dataclass(frozen=True)
class Row:
    """One row of a table of the page: the blocks it is about, and its cells by the header."""

    blocks: tuple[str, ...]
    cells: dict[str, str]

    @property
    def places(self) -> list[str]:
        """The blocks in which this key may stand."""
        if "at" not in self.cells:
            return list(self.blocks)
        levels = [LEVELS[letter] for letter in self.cells["at"].split()]
        return [one for one in self.blocks for level in levels if one.endswith(f" {level}")]


def rows(first: str) -> list[Row]:
    """Every row of the tables whose first column has this title, each below the comment that names its blocks."""
    found, blocks, header = [], (), []
    for line in PAGE.splitlines():
        if marked := re.fullmatch(r"<!-- keys: (.+) -->", line):
            blocks = tuple(marked[1].split(", "))
        elif line.startswith("|"):
            cells = [one.strip() for one in line[1:-1].split("|")]
            if not header:
                header = cells
            elif header[0] == first and not cells[0].startswith("---"):
                found.append(Row(blocks, dict(zip(header, cells, strict=True))))
        else:
            header = []
    return found


def code(cell: str) -> str:
    return cell.strip("`")


KEYS = rows("key")
EXAMPLES = [(place, code(row.cells["example"])) for row in KEYS if row.cells["example"] for place in row.places]
WRONG = [
    (row.blocks, code(row.cells["written wrong"]), code(row.cells["what is said"])) for row in rows("written wrong")
]


def written(block: str, fragment: str) -> str:
    """The small catalog with a fragment in one of its blocks, in place of what stands there under the same key."""
    blocks = {name: dict(keys) for name, keys in BLOCKS.items()}
    for key in yaml.safe_load("{" + fragment + "}"):
        for gone in (key, EITHER.get((block, key), key)):
            blocks[block].pop(gone, None)

    def body(name: str) -> str:
        parts = [f"{key}: {value}" for key, value in blocks[name].items()]
        if name == block:
            parts.append(fragment)
        return "{" + ", ".join(parts) + "}"

    text = "<the file>"
    while found := re.search("<([^<>]+)>", text):
        text = text[: found.start()] + body(found[1]) + text[found.end() :]
    return text


def said(folder: Path, block: str, fragment: str) -> list[Problem]:
    (folder / "shop.stop").touch()
    (folder / "c.yml").write_text(written(block, fragment), "utf-8")
    return problems([folder / "c.yml"])


class Listening(Page):
    """The reader's page, which notes the keys that each block is asked for."""

    def __init__(self, label: str, found: list[Problem]) -> None:
        super().__init__(label, found)
        self.heard: dict[str, set[str]] = defaultdict(set)

    def mapping(
        self, node: yaml.Node, what: str, known: Names[str] | None, **more: Any
    ) -> dict[str, yaml.Node]:  # Any: as the reader passes them on
        self.heard[what].update(known or ())
        return super().mapping(node, what, known, **more)


def accepted(folder: Path) -> dict[str, set[str]]:
    """What the reader accepts, by block, as it says itself while it reads the small catalog."""
    found: list[Problem] = []
    page = Listening("c.yml", found)
    node = compose("c.yml", written("guards", "").encode(), found)
    assert node is not None
    FileReader(page, Draft(), folder, folder, folder).read(node)
    assert found == []
    return {what: known for what, known in page.heard.items() if known}


def test_every_key_that_the_reader_accepts_is_on_the_page_and_no_other(tmp_path: Path) -> None:
    told: dict[str, set[str]] = defaultdict(set)
    for row in KEYS:
        for place in row.places:
            assert code(row.cells["key"]) not in told[place], "a key has one row"
            told[place].add(code(row.cells["key"]))
    assert told == accepted(tmp_path)


def test_every_key_without_blocks_of_its_own_has_an_example() -> None:
    blocks = {"dataset", "data_category", "collections", "fields", "erasure", "fides_meta"}
    assert {code(row.cells["key"]) for row in KEYS if not row.cells["example"]} == blocks


@pytest.mark.parametrize(("block", "example"), EXAMPLES, ids=[f"{b}: {e}" for b, e in EXAMPLES])
def test_every_example_is_read_without_an_error(tmp_path: Path, block: str, example: str) -> None:
    assert [str(p) for p in said(tmp_path, block, example) if p.severity is Severity.ERROR] == []


@pytest.mark.parametrize(("blocks", "wrong", "message"), WRONG, ids=[w for _b, w, _m in WRONG])
def test_what_is_written_wrong_is_told_as_the_page_says(
    tmp_path: Path, blocks: tuple[str, ...], wrong: str, message: str
) -> None:
    key = wrong.partition(":")[0]
    homes = [place for row in KEYS if code(row.cells["key"]) == key for place in row.places if place in blocks]
    found = said(tmp_path, (homes or list(blocks))[0], wrong)
    assert message in [p.text for p in found]


def test_the_catalog_at_the_top_is_a_whole_one(tmp_path: Path) -> None:
    shown = re.search(r"^    dataset:.*?\n\n", PAGE, re.MULTILINE | re.DOTALL)
    assert shown is not None
    (tmp_path / "c.yml").write_text(re.sub(r"^    ", "", shown[0], flags=re.MULTILINE), "utf-8")
    assert lint([tmp_path / "c.yml"]) == []
    assert read_catalog([tmp_path / "c.yml"]).person_kind == "ref:shop/members.id"


@pytest.mark.parametrize(
    ("title", "words"),
    [
        ("mode", {one.value for one in Mode}),
        ("ownership", {one.value for one in Ownership}),
        ("`identity_format`", {one.value for one in IdentityFormat}),
        ("kind", SPELLED | {"openid", "unionid"}),
    ],
)
def test_words_with_a_table_of_their_own_are_all_in_it(title: str, words: set[str]) -> None:
    assert {code(row.cells[title]) for row in rows(title)} == words
    assert title != "kind" or {likely_kind(one) for one in words} == {None}


def test_defaults_of_guards_are_those_of_the_code() -> None:
    told = {code(row.cells["key"]): code(row.cells["default"]) for row in KEYS if row.blocks == ("guards",)}
    ours = {
        key: "none" if value is None else f"{value:g}" if key != "merge" else value
        for key, value in vars(Guards()).items()
    }
    assert told == ours

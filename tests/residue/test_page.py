"""docs/residue-scan.md says what the program does: its lists and numbers are the program's."""

from __future__ import annotations

import re
from pathlib import Path

from residue.references import references
from residue.test_forms import PEOPLE

from fangxin.checks.residue.carve import Limits
from fangxin.checks.residue.forms import LEFT_OUT, SCALES, SHORTEST, SHORTEST_BESIDE, Breadth
from fangxin.checks.residue.patterns import CROWD, NEAR, WINDOW, needles_for
from fangxin.checks.residue.views import NAMES

PAGE = (Path(__file__).parents[2] / "docs" / "residue-scan.md").read_text("utf-8")
MIB = 1 << 20


def test_the_page_lists_what_a_crowd_is_not_searched_for() -> None:
    listed = re.search(r"Left out, and counted:\n\n((?:- .*\n)+)", PAGE)
    assert listed is not None
    assert listed[1].removeprefix("- ").rstrip("\n").split("\n- ") == list(LEFT_OUT)


def test_the_numbers_of_the_page_are_the_programs() -> None:
    limits = Limits()
    for said in (
        f"A form of {SHORTEST} bytes and more",
        f"(under {SHORTEST_BESIDE} bytes)",
        f"within {NEAR} bytes",
        f"Up to {CROWD:,} identities",
        f"({limits.chunk // MIB} MiB each",
        f"decoder holds ({limits.memory // MIB} MiB)",
        f"a stretch of {WINDOW // MIB} MiB",
        "scaled by {}, {} and {} digits".format(*SCALES),
    ):
        assert said in " ".join(PAGE.split()), said
    for name in [*(n for n in NAMES[1:5]), *map(str, Breadth)]:
        assert f"`{name}`" in PAGE


def test_the_counts_of_the_page_are_about_right() -> None:
    counts = {one.kind: len(needles_for([(0, one)])) for one in PEOPLE}
    assert 225 <= counts["phone_number"] <= 275
    assert 65 <= counts["email"] <= 85
    ways = [len(references(one.kind, one.value)) for one in PEOPLE]
    assert min(ways) >= 50
    assert max(ways) <= 470

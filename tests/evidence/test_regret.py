"""Days of regret last 7 x 24 h, unless they were waived: by one tag for everybody, by the secret for its holder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from evidence.small_home import SECRET, Home, entry
from evidence.test_browser import answers

from fangxin.checks import verify
from fangxin.reports import browser
from fangxin.reports.ledger import entries

SEALED, WEEK = "2026-11-22T22:30Z", "2026-11-29T22:30Z"
CASES = [
    (WEEK, WEEK, False, verify.HOLDS),
    (WEEK, "2026-12-01T00:05Z", False, verify.HOLDS),
    (WEEK, "2026-11-29T22:29Z", False, verify.FALSE),  # a minute before the seal's end
    ("2026-11-23T22:30Z", "2026-11-24T00:00Z", False, verify.FALSE),  # a seal of one day
    ("2026-11-29T20:30Z", "2026-11-29T20:31Z", False, verify.MISSING),  # a seal logged two hours late
    ("2026-11-29T20:30Z", "2026-11-29T22:30Z", False, verify.HOLDS),
    (WEEK, "2026-11-23T22:30Z", True, verify.HOLDS),
]


def tell(home: Home, tags: tuple[int, int], until: str, ended: str, waived: bool) -> None:
    first, second = (entries.tag(SECRET, tag) for tag in tags)
    home.ledger.append([entry("sealed", tag=first, until=until, time=SEALED)])
    more = {"waived": "holder"} if waived else {}
    home.ledger.append([entry("regret.ended", tag=second, time=ended, **more)])


def named(home: Home, name: str, secret: Path | None = None) -> verify.Check:
    checks = verify.verify(home.pack(), trust=home.trust, secret=secret)
    return next(one for one in checks if one.name == name)


@pytest.mark.parametrize(("until", "ended", "waived", "result"), CASES)
def test_the_program_and_the_page_compare_the_entries_of_one_tag(
    home: Home, until: str, ended: str, waived: bool, result: str
) -> None:
    tell(home, (20, 20), until, ended, waived)
    assert named(home, "order").result == result, named(home, "order")
    page = home.folder / "verify.html"
    page.write_bytes(browser.page())
    (said,) = answers(page, home.trust, [home.pack()])
    assert json.dumps({"name": "order", "result": result})[:-1] in json.dumps(said)


@pytest.mark.parametrize(("until", "ended", "waived", "result"), CASES)
def test_the_holder_compares_entries_whose_tags_nobody_else_can_join(
    home: Home, until: str, ended: str, waived: bool, result: str
) -> None:
    tell(home, (20, 21), until, ended, waived)
    assert named(home, "order").result == verify.HOLDS
    path = home.folder / "secret"
    path.write_text(f"{SECRET.hex()}\nphone_number=+8613800001234\nmember_id=4711\n")
    assert named(home, "mine", path).result == result, named(home, "mine", path)

"""The requirements of a closing, S1 to S44, and the tests that show each: docs/scenarios.md is written from here.

    python tests/scenarios.py        writes the page; tests/test_docs.py compares it

A test says which rows it shows: `@pytest.mark.scenario("S39")`. The marks are read from the files, no test is run.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "scenarios.md"

# What each asks for, in our words. `page`: it can only be shown on the pages for holders, which part 9 brings.
ROWS: dict[str, tuple[str, bool]] = {
    "S1": ("clearance and a copy of the data stand before the last yes; neither is skipped unseen", True),
    "S2": ("what is held is listed from every catalogued source; what nobody knows stops the plan", False),
    "S3": ("the loss of each item is shown before consent; nothing is forfeited by default", False),
    "S4": ("one list of what is pending, the same by every route", True),
    "S5": ("the balance is paid out; a balance of zero is no precondition", False),
    "S6": ("of each item: whether it can be transferred or cashed, at which rate, until when, by which rule", False),
    "S7": ("third parties' automatic debits are cancelled at the provider, with proof", False),
    "S8": ("real name and bank are unbound after the last payment, not before", False),
    "S9": ("everything that was located is in the export", False),
    "S10": ("an export on request: encrypted, fetched once by a link that expires", True),
    "S11": ("a signed manifest that is read offline; one changed byte fails", False),
    "S12": ("every collection has a fate: leaving, or kept by which law until when", False),
    "S13": ("closing is no deeper in the pages than registering", True),
    "S14": ("no waiting without a reason and a latest date", False),
    "S15": ("the way out is as prominent as the way in", True),
    "S16": ("one signed link that host applications embed", True),
    "S17": ("one official origin, no link to sign in in any message", True),
    "S18": ("the steps are numbered, with their state", True),
    "S19": ("each step says what follows from it, from the plan's own counts", True),
    "S20": ("done within seven working days of the seal, whatever the day", False),
    "S21": ("dates are told beforehand, and are the clocks that run", False),
    "S22": ("reviewed within three working days, also while every officer is absent", False),
    "S23": ("sealed within 24 hours of the approval", False),
    "S24": ("progress is shown within two seconds", True),
    "S25": ("few screens, few fields", True),
    "S26": ("nobody is held back by offers or guilt", True),
    "S27": ("from the seal on the data are out of service", False),
    "S28": ("keys are destroyed, bytes overwritten, and a search that found the person finds nothing", False),
    "S29": ("a flag is no deletion", False),
    "S30": ("what is late is a breach, for ever and counted", False),
    "S31": ("physical deletion and an audit in one certificate; half of it is none", False),
    "S32": ("the method of each collection in plain words, with its limits", False),
    "S33": ("sensitive values under keys of their own, whose destruction is evidence", False),
    "S34": ("an outsider checks from files alone", False),
    "S35": ("a public report, chained; a missing or altered one is noticed", False),
    "S36": ("who is responsible for which collection; who is affected by an incident", False),
    "S37": ("the person gets a certificate in plain words, on paper and as data", False),
    "S38": ("each kind of entitlement has rules of its own", False),
    "S39": ("what is left of a term is refunded by its days", False),
    "S40": ("coupons and points go to somebody else, once", False),
    "S41": ("seven days to change one's mind, to the second, and never by a mere login", False),
    "S42": ("support from the receipt code, with a clock for its first answer", False),
    "S43": ("support after the erasure, without a trace of the person", False),
    "S44": ("the figures of closings follow from what is on record", False),
}

# Parts of a row that no test shows, because nothing does them yet.
LACKS: dict[str, str] = {}


def shown() -> dict[str, list[tuple[str, str]]]:
    """By row the tests that show it: file below the root, and name."""
    found: dict[str, list[tuple[str, str]]] = {}
    for path in sorted((ROOT / "tests").rglob("*.py")):
        text = path.read_text("utf-8")
        if "mark.scenario" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                for row in [row for one in node.decorator_list for row in _rows(one)]:
                    found.setdefault(row, []).append((path.relative_to(ROOT).as_posix(), node.name))
    return found


def page() -> str:
    """The page as it has to be."""
    by = shown()
    unknown = sorted(set(by) - set(ROWS))
    if unknown:
        raise ValueError(f"a test marks rows that there are not: {', '.join(unknown)}")
    lines = [
        "# What a closing has to do, and the test that shows it",
        "",
        "Written by `python tests/scenarios.py` from the tests' own marks; a test compares the two. Rows that can only",
        "be shown on the pages for holders wait for part 9; what no test shows, because nothing does it, is *not yet*.",
        "",
        "| row | what it asks for | shown by |",
        "|---|---|---|",
    ]
    for row, (text, paged) in ROWS.items():
        tests = [f"[{name}](../{file})" for file, name in by.get(row, ())]
        missing = [f"not yet: {LACKS[row]}"] if row in LACKS else []
        said = "<br>".join([*tests, *(["part 9: pages"] if paged else []), *missing])
        lines.append(f"| {row} | {text} | {said or 'not shown yet'} |")
    return "\n".join(lines) + "\n"


def _rows(decorator: ast.expr) -> list[str]:
    if not isinstance(decorator, ast.Call) or ast.unparse(decorator.func) != "pytest.mark.scenario":
        return []
    return [one.value for one in decorator.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")

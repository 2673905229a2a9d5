"""The controls map: which evidence of a package answers which control of an audit.

The map is one data file, `templates/package/controls.json`; here it becomes the pages CONTROLS.en.md and .zh.md that
travel beside it. `confidence` says how the control's text is known: verbatim, secondary or unconfirmed, and the pages
repeat it: a map is a help for finding evidence, never a claim that a control is met.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any  # Any: parsed JSON of ours

_WORDS = {
    "en": (
        "Controls, and where their evidence is",
        "A help for finding evidence, not a claim that a control is met: that is for the auditor to say.",
        ("framework", "control", "in short", "checks of verify.py", "files", "the control's text is known"),
        {"verbatim": "from the text itself", "secondary": "from secondary sources", "unconfirmed": "to be confirmed"},
    ),
    "zh": (
        "控制项与证据所在",
        "本表只帮助寻找证据，并不声称某项控制已经满足：结论由审计方作出。",
        ("框架", "控制项", "内容", "verify.py 的检查", "文件", "条文来源"),
        {"verbatim": "原文", "secondary": "二手资料", "unconfirmed": "待确认"},
    ),
}


def read() -> list[dict[str, Any]]:
    """The map's rows: framework, control, zh, en, checks, files, confidence."""
    found: list[dict[str, Any]] = json.loads(_raw())
    return found


def pages() -> dict[str, bytes]:
    """The map and its two pages, by file name."""
    return {"controls.json": _raw(), **{f"CONTROLS.{tongue}.md": _page(tongue) for tongue in _WORDS}}


def _page(tongue: str) -> bytes:
    title, note, header, known = _WORDS[tongue]
    lines = [f"# {title}", "", note, "", f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for row in read():
        named = [", ".join(f"`{one}`" for one in row[key]) for key in ("checks", "files")]
        cells = (row["framework"], row["control"], row[tongue], *named, known[row["confidence"]])
        lines.append(f"| {' | '.join(cells)} |")
    return ("\n".join(lines) + "\n").encode()


def _raw() -> bytes:
    return files("fangxin").joinpath("reports", "templates", "package", "controls.json").read_bytes()

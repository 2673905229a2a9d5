"""The press: a document's JSON becomes a PDF that conforms to PDF/A-3a and PDF/UA-1 and has that JSON attached.

* The same document gives the same bytes: no clock, no random number, no font of this machine. Faces come from a wheel
  (Noto Sans CJK SC) and from Typst itself; the templates lie beside those of the HTML pages.
* One Compiler for each process: the first page costs half a second, each further one a few hundredths. A document comes
  as files in memory and not as `sys.inputs`, which are part of Typst's library: what templates are made of, and
  every piece that two documents share, is then laid out once.
* Typst's threads do not follow into a forked child, which would wait for them for ever: where the parent has printed
  already, the child prints in a process of its own.
* A character that the face cannot draw fails the page. The error names the code point, never the text.
* Conformance is what Typst's own checks claim; no independent validator has confirmed it (docs/limits.md).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fangxin.data.errors import DoesNotHold, Unavailable

if TYPE_CHECKING:
    import typst

LANGUAGES = ("zh", "en")
_TEMPLATES = Path(__file__).parent.parent / "templates" / "paper"
_FACES = "manimgx_fonts_cjk"
_STANDARDS = ["a-3a", "ua-1"]
_COMMENT = "//"
_UNDRAWN = re.compile(r'the text `"(.*?)"` could not be displayed', re.DOTALL)


def press(
    template: str,
    attached: tuple[str, bytes],
    view: Mapping[str, Any],  # Any: JSON that the template reads
    *,
    languages: Sequence[str] = LANGUAGES,
) -> bytes:
    """Print a document: `template` is one of ours, `attached` the name and bytes of the JSON that it shows and carries.

    `view` is what the pages say beyond that JSON: words, totals, drawings. Pages come once in each language, one
    after the other, in one file. Raises DoesNotHold for a character that the face cannot draw, and Unavailable where
    the face is not installed.
    """
    name, body = attached
    said = {**view, "name": name, "languages": list(languages)}
    files = {"document.json": body.decode(), "view.json": json.dumps(said, ensure_ascii=False)}
    return _printed(template, files) if _threads_of() == os.getpid() else _elsewhere(template, files)


@cache
def _threads_of() -> int:
    """The process in which the first page was printed: Typst's threads live there and nowhere else."""
    return os.getpid()


def _elsewhere(template: str, files: Mapping[str, str]) -> bytes:
    """Print in a fresh process; what it raises is raised here."""
    run = subprocess.run(
        [sys.executable, "-m", __spec__.name],
        input=json.dumps([template, files]).encode(),
        capture_output=True,
        check=False,
    )
    if run.returncode == DoesNotHold.exit_code:
        message, _, hint = run.stderr.decode().partition("\n")
        raise DoesNotHold(message, hint=hint)
    if run.returncode or not run.stdout.startswith(b"%PDF"):
        raise Unavailable(f"{template}: the process that prints it ended with {run.returncode}", hint="run it again")
    return run.stdout


def _printed(template: str, files: Mapping[str, str]) -> bytes:
    import typst

    # Typst parses each file in memory as one of its own; JSON in one line is passed over quickly as a comment.
    given = {name: f"{_COMMENT}{text}".encode() for name, text in files.items()}
    main = {"main.typ": f'#include "{template}"'.encode()}
    try:
        pages = _compiler().compile({**main, **given}, format="pdf", pdf_standards=_STANDARDS)  # type: ignore[arg-type, type-var]  # stubs know neither files nor a list of str
    except typst.TypstError as error:
        raise _explained(template, error.diagnostic) from None  # its text quotes the document
    assert isinstance(pages, bytes)  # noqa: S101 - one output was asked for; for mypy
    return pages


@cache
def _compiler() -> typst.Compiler:
    import typst

    found = find_spec(_FACES)
    if found is None or found.origin is None:
        raise Unavailable(f"the face for paper is not installed: no package {_FACES}", hint="`make setup` installs it")
    faces = typst.Fonts(include_system_fonts=False, font_paths=[str(Path(found.origin).parent)])
    return typst.Compiler(root=str(_TEMPLATES), font_paths=faces)


def _explained(template: str, diagnostic: str) -> DoesNotHold:
    """Say what failed without a word of the document: which code points, or which template."""
    points: list[str] = []
    for text in _UNDRAWN.findall(diagnostic):
        plain = re.sub(r"\\u\{([0-9a-f]{1,6})\}", lambda m: chr(int(m[1], 16)), text)
        points += [point for one in plain if (point := f"U+{ord(one):04X}") not in points]
    if points:
        return DoesNotHold(
            f"{template}: no glyph for {', '.join(points[:8])}",
            hint="a name in the catalog or a law's text has a character that Noto Sans CJK lacks: write it otherwise",
        )
    places = ", ".join(sorted(set(re.findall(r"[\w-]+\.typ:\d+:\d+", diagnostic)))[:3])
    return DoesNotHold(
        f"{template}: the page cannot be made ({places or 'no place is known'})", hint="a defect of ours"
    )


if __name__ == "__main__":
    try:
        sys.stdout.buffer.write(_printed(*json.load(sys.stdin)))
    except DoesNotHold as error:
        sys.stderr.write(f"{error.message}\n{error.hint}")
        sys.exit(error.exit_code)

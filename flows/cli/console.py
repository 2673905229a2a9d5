"""The console: one JSON document on stdout with --json, words otherwise; errors on stderr; exit codes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from fangxin.data.errors import FangxinError, told


def say(text: str = "") -> None:
    """Print a line for people, on stdout."""
    print(text, flush=True)


def warn(text: str) -> None:
    """Print a line for people on stderr."""
    print(text, file=sys.stderr, flush=True)


def answer(document: Any, *, as_json: bool, words: Callable[[], None]) -> None:  # Any: a JSON document
    """Print the answer as JSON, or in words."""
    if as_json:
        print(json.dumps(document, ensure_ascii=False, indent=1), flush=True)
    else:
        words()


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a plain table, columns as wide as they need; East Asian wide characters count two."""
    cells = [[str(c) for c in row] for row in (header, *rows)]
    widths = [max(_width(row[n]) for row in cells) for n in range(len(header))]
    for row in cells:
        say("  ".join(c + " " * (w - _width(c)) for c, w in zip(row, widths, strict=True)).rstrip())


def _width(text: str) -> int:
    import unicodedata

    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def guarded(work: Callable[[], int]) -> int:
    """Run a command; errors of ours become one message and their exit code, anything else is 70 without its text."""
    try:
        return work()
    except FangxinError as error:
        warn("\n".join(told(error)))
        return error.exit_code
    except BrokenPipeError:  # the reader of our output went away: nothing is left to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        warn("fangxin: interrupted; `fangxin resume` goes on")
        return 70
    except Exception as error:
        warn("\n".join(told(error)))
        return FangxinError.exit_code

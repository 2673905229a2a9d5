"""The console: one JSON document on stdout with --json, words otherwise; errors on stderr; exit codes.

Ctrl-C ends a command with 130 and one line, whatever the libraries below make of the signal.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from fangxin.data.errors import FangxinError, told

INCOMPLETE = 2  # something could not be examined, or people stand where nothing reaches
INTERRUPTED = 130  # what a shell gives a command that SIGINT ended


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


def incomplete(why: str) -> int:
    """The exit code of a command that did what it could: 2 and one last line on stderr that says why; 0 without one."""
    if not why:
        return 0
    warn(f"fangxin: incomplete (exit 2): {why}")
    return INCOMPLETE


def counted(count: int, thing: str) -> str:
    """A count with its word: 1 row, 2 rows, 0 copies."""
    if count == 1:
        return f"1 {thing}"
    return f"{count} {thing[:-1]}ies" if re.search("[^aeiou]y$", thing) else f"{count} {thing}s"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a plain table, columns as wide as they need; East Asian wide characters count two. Says so if empty."""
    cells = [[str(c) for c in row] for row in (header, *rows)]
    widths = [max(_width(row[n]) for row in cells) for n in range(len(header))]
    for row in cells:
        say("  ".join(c + " " * (w - _width(c)) for c, w in zip(row, widths, strict=True)).rstrip())
    if not rows:
        say("(none)")


def _width(text: str) -> int:
    import unicodedata

    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def guarded(work: Callable[[], int], *, standing: Callable[[], str]) -> int:
    """Run a command; errors of ours become one message and their exit code, anything else is 70 without its text.

    After Ctrl-C `standing` says how things stand; the answer is 130. Some libraries turn the signal into an error of
    their own, so it is the signal that counts and not what came of it.
    """
    asked: list[int] = []

    def heard(number: int, _frame: FrameType | None) -> None:
        asked.append(number)
        raise KeyboardInterrupt

    ours = threading.current_thread() is threading.main_thread()  # no other thread may set a handler
    before = signal.signal(signal.SIGINT, heard) if ours else None
    try:
        return work()
    except BrokenPipeError:  # the reader of our output went away: nothing is left to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (KeyboardInterrupt, Exception) as error:
        if asked or isinstance(error, KeyboardInterrupt):
            if ours:
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one has nothing left to stop
            warn(f"fangxin: interrupted{_said(standing)}")
            return INTERRUPTED
        warn("\n".join(told(error)))
        return error.exit_code if isinstance(error, FangxinError) else FangxinError.exit_code
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)


def _said(standing: Callable[[], str]) -> str:
    try:
        return standing()
    except Exception:  # a home that cannot be opened: what is due is known to the ledger all the same
        return "; `fangxin resume` goes on"

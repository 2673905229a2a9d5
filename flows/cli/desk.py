"""The desk as commands reach it: opened at a home for the length of one command; and codes that come in a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fangxin.data.errors import InputError, unread

if TYPE_CHECKING:
    from fangxin.flows.desk import Desk


@contextmanager
def at_home(home: Path, catalog: Path | None, now: str | None, *, alone: bool = True) -> Iterator[Desk]:
    """The desk of a home, which is held for this command where it changes something."""
    from contextlib import nullcontext

    from fangxin.flows import estate as estates
    from fangxin.flows.desk import at_desk
    from fangxin.flows.settings import clock, load

    opened = estates.open_estate(home, catalog, clock(load(home), now))
    with estates.alone(home) if alone else nullcontext(), at_desk(opened) as desk:
        yield desk


def read_code(given: str) -> str:
    """A code from the command line, or from a file after @."""
    if not given.startswith("@"):
        return given
    try:
        return Path(given[1:]).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{given[1:]}: cannot be read: {unread(error)}") from None

"""What is wrong with a command line, in one sentence: the option, argument or command that it is about.

Whatever was typed may be a person's identity, on the wrong place: nothing of it is repeated but an option's own name,
and that only where it is letters and dashes. Commands and options that come near are ours, so they are named.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

from cyclopts import App, CycloptsError
from cyclopts.exceptions import (
    CoercionError,
    MissingArgumentError,
    RepeatArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

_OPTION = re.compile(r"--?[a-z]+(?:-[a-z]+)*")
_ANY = 0.6  # how much alike two words are that may be one mistyped


def explained(error: CycloptsError, app: App) -> str:
    """Say what is wrong with a command line, and on a second line what to do."""
    chain = tuple(error.command_chain or ())
    command = " ".join((app.name[0], *chain))
    more = f"\n  what to do: `{command} --help` shows how it is called"
    if isinstance(error, UnknownCommandError):
        group = app
        for word in chain:
            group = group[word]
        known = sorted(name for name in group if not name.startswith("-"))
        first = (error.unused_tokens or [""])[0]
        if first.startswith("-"):
            return f"`{command}`: options stand behind the command, not before it; there are {_list(known)}{more}"
        meant = _near(first, known)
        return f"`{command}` has no such command{meant or f'; there are {_list(known)}'}{more}"
    if isinstance(error, UnknownOptionError):
        typed = (error.token.keyword or error.token.value).partition("=")[0]
        options = [name for one in error.argument_collection if one.parse for name in one.names if name[:1] == "-"]
        shown = f"no option {typed}" if _OPTION.fullmatch(typed) and len(typed) < 30 else "no such option"
        return f"`{command}` has {shown}{_near(typed, options)}{more}"
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        lacks = "needs a value" if getattr(error, "keyword", None) or error.argument.tokens else "is missing"
        return f"`{command}`: {error.argument.name} {lacks}{more}"
    if isinstance(error, CoercionError) and error.argument is not None:
        kind = getattr(error.target_type, "__name__", "")
        expected = {"int": "a whole number", "bool": "no value after it"}.get(kind, "another kind of value")
        return f"`{command}`: {error.argument.name}: expected {expected}{more}"
    if isinstance(error, RepeatArgumentError) and error.token.keyword:
        return f"`{command}`: {error.token.keyword} is given twice{more}"
    if isinstance(error, UnusedCliTokensError):
        return f"`{command}` takes {_list(_arguments(app, chain)) or 'options only'}: a word is left over{more}"
    return f"`{command}`: it does not fit together{more}"


def _near(typed: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(typed, list(known), n=1, cutoff=_ANY)
    return f"; did you mean {found[0]}?" if found else ""


def _list(words: Sequence[str]) -> str:
    return ", ".join(words)


def _arguments(app: App, chain: Sequence[str]) -> list[str]:
    """The names of a command's arguments that are no options."""
    return [one.name for one in app[" ".join(chain)].assemble_argument_collection() if not one.name.startswith("-")]

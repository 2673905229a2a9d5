"""Plainly: what may stand in history, ledger and certificates for good, under no key.

Reasons, risks, levels of proof and officers' names are codes. Free text would one day say whom it is about, and could
not be taken out again: the ledger refuses it, so it is refused before anything is written. A refusal quotes nothing.
"""

from __future__ import annotations

import re
from typing import Final

from fangxin.data.errors import InputError

_WORDS: Final = re.compile(r"[A-Za-z][A-Za-z0-9]*([-_/][A-Za-z0-9]+)*")
_LONGEST: Final = 40
_DIGITS: Final = 4  # too few for a number by which somebody is known


def code(value: str, what: str) -> str:
    """The same word, if it is a code. InputError if it is longer, or could be a name in another script, or a number."""
    if not _WORDS.fullmatch(value) or len(value) > _LONGEST or sum(map(str.isdigit, value)) > _DIGITS:
        raise InputError(
            f"{what}: expected a code of letters, at most {_LONGEST} characters and {_DIGITS} digits",
            hint="such as new_device; no name, no number: it stands in history and ledger for good",
        )
    return value


def officer(name: str, what: str = "--officer") -> str:
    """The same name, if it is one that an officer may have; InputError otherwise."""
    return code(name, f"{what}, an officer's name such as dpo_1")

"""Printable: a place as a page, a draft or a message may show it, without what in its names may name a person.

Files and folders that no collection names are called what somebody called them: often by a phone number or an e-mail
address, of people whom this run does not know. A name that looks like an identity of the kinds we search for is
withheld; the inode stands for it, so that whoever may look there finds it (`find ROOT -inum N`).

* An `@`, anything that spotting.py takes for an identity, seven digits and more that are no date, also with
  separators between them; hexadecimal of 32 digits and more, a UUID, a random word of 20 characters and more.
* A person's name is not seen, nor a short account number: neither is searched by its bytes.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from urllib.parse import unquote

from fangxin.checks.residue.scan import WITHHELD
from fangxin.data.vocabulary import shown
from fangxin.flows.spotting import spots

_DATE = re.compile(
    r"(?<!\d)(?:19|20)\d\d[-_.]?(?:0[1-9]|1[0-2])[-_.]?(?:0[1-9]|[12]\d|3[01])"
    r"(?:[T_ -]?(?:[01]\d|2[0-3])[-_:.]?[0-5]\d(?:[-_:.]?[0-5]\d)?)?(?!\d)"
)
_DIGITS = re.compile(r"\d(?:[\s()+._-]{0,2}\d){6,}")
_CODED = re.compile(r"[0-9a-f]{32,}|[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z0-9_-]{20,}")
_ADDRESS = re.compile(r"[^\s/]*@[^\s/]*")
_RUNS = re.compile(r"[a-z]+|[A-Z]+|[0-9]+")
_RANDOM = 0.35  # runs of one class per character: words have a tenth to a quarter, random ones a half


def names_somebody(name: str) -> bool:
    """Whether a name of a file, folder, table or column looks like an identity."""
    return any(_looks_so(one) for one in {name, unquote(name)})


def _looks_so(name: str) -> bool:
    plain = unicodedata.normalize("NFKC", name)
    return (
        "@" in plain
        or bool(spots(plain))
        or bool(_DIGITS.search(_DATE.sub("x", plain)))
        or bool(_CODED.search(plain))
        or any(len(_RUNS.findall(word)) > _RANDOM * len(word) for word in _WORD.findall(plain))
    )


def withheld(path: Path | None) -> str:
    """What stands for a name: the inode, where the file is still there."""
    try:
        return WITHHELD if path is None else f"{WITHHELD} inode {path.lstat().st_ino}"
    except OSError:
        return WITHHELD


def printable(place: str, path: Path | None = None) -> str:
    """A place without names that look like an identity; `path`: where it lies.

    What is neither ASCII nor a common Chinese character stands as its code point.
    """
    parts = place.split("/")
    for n in range(len(parts) - 1, -1, -1):
        if names_somebody(parts[n]):
            parts[n] = withheld(path if path is not None and shown(path.name) == parts[n] else None)
        path = path.parent if path is not None else None
    return _spelled("/".join(parts))


def label(container: str) -> str:
    """The label of a container; names of tables in it are whatever its file says."""
    return " > ".join(WITHHELD if names_somebody(one) else one for one in container.split(" > "))


def message(text: str) -> str:
    """A sentence that names places: what looks like an identity is withheld; sizes and offsets in it stay."""
    for one in reversed(spots(text)):
        text = f"{text[: one.start]}{WITHHELD}{text[one.end :]}"
    return _ADDRESS.sub(WITHHELD, text)


def _spelled(place: str) -> str:
    return "".join(c if "\x20" <= c < "\x7f" or "\u4e00" <= c <= "\u9fff" else f"%{ord(c):04X}" for c in place)

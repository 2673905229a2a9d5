"""Key domains: which one-byte code stands for which kind of key, for ever.

A subject has one random key per domain, so that each can die alone. The codes below 0x40 are the house's own;
a domain that a catalog names gets the next code from 0x40 up on first use, and the vault remembers it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, Self

from fangxin.data.errors import InputError

GENERAL, SENSITIVE, RETAINED, CONTACT, TICKET, REQUEST = 1, 2, 3, 4, 5, 6
SEALED, OFFICERS, INDEX = 0x10, 0x11, 0x20
OURS = frozenset({CONTACT, TICKET, REQUEST, OFFICERS, INDEX})  # not a person's data: their death counts for no cap
FIRST, LAST = 0x40, 0xFF

RESERVED: Mapping[str, int] = {
    "general": GENERAL,
    "sensitive": SENSITIVE,
    "retained": RETAINED,
    "contact": CONTACT,
    "ticket": TICKET,
    "request": REQUEST,
    "seal": SEALED,
    "officers": OFFICERS,
    "index": INDEX,
}


def next_code(name: str, taken: Mapping[str, int]) -> int:
    """The code a catalog's domain gets, given those the vault has handed out. InputError if none is left."""
    if not name or not name.isprintable() or len(name) > 64:
        raise InputError(
            "a key domain has no usable name", hint="a name of 1 to 64 printable characters, e.g. `finance`"
        )
    if name in RESERVED:
        return RESERVED[name]
    if name in taken:
        return taken[name]
    code = max(taken.values(), default=FIRST - 1) + 1
    if code > LAST:
        raise InputError(
            f"key domain {name!r} is one too many: expected at most {LAST - FIRST + 1}, all are in use",
            hint="let collections share a domain; codes are never used twice",
        )
    return code


class Named(Protocol):
    """What keeps the codes: the vault."""

    def domain_code(self, name: str) -> int:
        """The code of a domain, for ever."""
        ...

    def domain_names(self) -> Mapping[int, str]:
        """Every domain by code."""
        ...


class Domains:
    """The domains of one vault by name; a name is looked up once, since codes never change."""

    def __init__(self, vault: Named) -> None:
        self._vault = vault
        self._known: dict[str, int] = {}

    @classmethod
    def of(cls, vault: Named) -> Self:
        """The domains of that vault."""
        return cls(vault)

    def code(self, name: str) -> int:
        """The code of a domain; a new name gets the next free one. InputError if the name is unusable."""
        if name not in self._known:
            self._known[name] = self._vault.domain_code(name)
        return self._known[name]

    def name(self, code: int) -> str:
        """What a code is called, for certificates; its hex form if nobody named it."""
        return self._vault.domain_names().get(code, f"{code:#04x}")

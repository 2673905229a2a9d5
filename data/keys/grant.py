"""Who may destroy how many: a grant names exactly one batch, and the vault checks it, not the caller.

A grant is canonical JSON (RFC 8785); the SHA-256 of it is the *plan hash* that officers approve. It fits one
vault at one generation, one set of refs, one time window, and is used once.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Self

from fangxin.data.errors import InputError, NotAllowed

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
Drops = Mapping[bytes, frozenset[int] | None]
"""Ref -> the domain codes whose keys die; None = every domain."""


@dataclass(frozen=True)
class Grant:
    """Leave to carry out one batch. `domains` None means every domain may die; times are UTC to the second."""

    vault: str  # vault id, hex
    action: str  # destroy | replace
    domains: tuple[int, ...] | None
    count: int
    refs_sha256: str
    generation: int  # at which the vault is expected
    catalog: str  # digest of the catalog the plan was made with
    not_before: str
    expires: str
    nonce: str

    @classmethod
    def of(
        cls,
        drops: Drops,
        *,
        vault: bytes,
        generation: int,
        catalog: str,
        not_before: datetime,
        valid_for: timedelta = timedelta(hours=24),
        nonce: str = "",
        action: str = "destroy",
    ) -> Self:
        """The grant that fits these drops and nothing else; a random nonce unless one is given."""
        return cls(
            vault=vault.hex(),
            action=action,
            domains=codes_of(drops),
            count=len(drops),
            refs_sha256=refs_digest(drops),
            generation=generation,
            catalog=catalog,
            not_before=stamp(not_before),
            expires=stamp(not_before + valid_for),
            nonce=nonce or secrets.token_hex(16),
        )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read canonical JSON back; InputError if it is not exactly a grant."""
        try:
            fields = json.loads(text)
            domains = fields.pop("domains")
            grant = cls(domains=None if domains is None else tuple(map(int, domains)), **fields)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise InputError("not a grant: expected the JSON object that was approved") from None
        if grant.canonical() != text:
            raise InputError("a grant is not in canonical form", hint="use the text as it was approved, unchanged")
        return grant

    def canonical(self) -> str:
        """Canonical JSON: sorted keys, no spaces, ASCII names and plain numbers only."""
        return self._text

    @cached_property
    def _text(self) -> str:
        return _CANONICAL.encode({name: getattr(self, name) for name in self.__dataclass_fields__})

    @cached_property
    def plan_hash(self) -> str:
        """What officers approve, and the ledger repeats."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()

    def check(self, drops: Drops, *, vault: bytes, generation: int, action: str, now: datetime) -> None:
        """Raise NotAllowed unless this grant names exactly this batch, this vault as it is now, and this moment."""
        self.check_names(drops, vault=vault, action=action)
        self.check_now(generation, now)

    def check_now(self, generation: int, now: datetime) -> None:
        """Raise NotAllowed unless it is for the vault as it is now, and for this moment."""
        if self.generation != generation:
            raise NotAllowed(
                f"the grant expects the key vault at generation {self.generation}, it is at {generation}",
                hint="somebody destroyed keys in between: plan again and have it approved",
            )
        if not self.not_before <= (at := stamp(now)) <= self.expires:
            raise NotAllowed(
                f"the grant is good from {self.not_before} to {self.expires}, it is {at}",
                hint="wait, or have a new plan approved",
            )

    def check_names(self, drops: Drops, *, vault: bytes, action: str) -> None:
        """Raise NotAllowed unless this grant names these refs and domains of this vault."""
        codes = codes_of(drops)
        beyond = self.domains is not None and (codes is None or not set(codes) <= set(self.domains))
        for what, expected, found in (
            ("vault", self.vault, vault.hex()),
            ("action", self.action, action),
            ("number of subjects", self.count, len(drops)),
            ("set of refs", self.refs_sha256, refs_digest(drops)),
            ("key domains", False, beyond),
        ):
            if expected != found:
                raise NotAllowed(
                    f"the batch is not the one that was approved: its {what} differs",
                    hint="carry out the approved plan unchanged, or have the new one approved",
                )


def refs_digest(refs: Iterable[bytes]) -> str:
    """SHA-256 in hex over the sorted refs, each behind its length as u32 little endian."""
    digest = hashlib.sha256()
    for ref in sorted(refs):
        digest.update(len(ref).to_bytes(4, "little") + ref)
    return digest.hexdigest()


def codes_of(drops: Drops) -> tuple[int, ...] | None:
    """The domain codes that may die in a batch, sorted; None if somebody's every domain does."""
    found: set[int] = set()
    for codes in drops.values():
        if codes is None:
            return None
        found |= codes
    return tuple(sorted(found))


def stamp(moment: datetime) -> str:
    """A moment as UTC text that sorts by time."""
    if moment.tzinfo is None:
        raise InputError("a time without a zone was given", hint="pass an aware datetime")
    utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return utc.isoformat(timespec="seconds")[:19] + "Z"

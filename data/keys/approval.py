"""The guard against destruction in bulk: what officers sign, and what the vault asks for before it lets keys die.

Two levers (design: keys.md section 8), both counted by the vault itself, whoever calls:

    up to max(20, 0.1 % of the living subjects) in 24 h    the request's own approval is enough
    more                                                   two different officers signed this very grant, an hour ago
    more than 5 % of the living in one batch               refused

An approval is an Ed25519 signature over the SHA-256 of the grant (the plan hash), the officer's name and two times. It
fits one grant only, and a grant is used once: an approval can be neither replayed nor moved. Only a rehearsal home may
lift the levers; that is written into the vault when it is founded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fangxin.data.errors import InputError, NotAllowed
from fangxin.data.keys.grant import Grant, stamp

FREE = 20  # subjects in 24 h that need no officer
FREE_SHARE = 1_000  # or one in a thousand of the living, whichever is more
MOST_SHARE = 20  # one in twenty: more in one batch is refused
WINDOW = timedelta(hours=24)
DELAY = timedelta(hours=1)  # between the second signature and the act: time for somebody to object
LASTS = timedelta(hours=24)
PUBLIC = "fangxin/approval/1"
_LABEL = b"fangxin/approval/1\n"


@dataclass(frozen=True)
class Approval:
    """One officer's yes to one grant. `grant` is the grant's canonical JSON, so that a file says all there is."""

    grant: str
    officer: str
    signed: str  # UTC to the second
    expires: str
    signature: str  # Ed25519, hex

    @classmethod
    def sign(
        cls, grant: Grant, *, officer: str, key: Ed25519PrivateKey, now: datetime, lasts: timedelta = LASTS
    ) -> Self:
        """Sign a grant as an officer does, on their own machine."""
        signed, expires = stamp(now), stamp(now + lasts)
        message = _message(grant.plan_hash, officer, signed, expires)
        return cls(grant.canonical(), officer, signed, expires, key.sign(message).hex())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an approval file; InputError if it is not exactly one."""
        try:
            fields = json.loads(text)
            if not all(isinstance(value, str) for value in fields.values()):
                raise TypeError
            approval = cls(**fields)
            bytes.fromhex(approval.signature)
        except (ValueError, TypeError, AttributeError):
            raise InputError(
                "not an approval: expected the file that `fangxin keys approve` wrote", hint="give it unchanged"
            ) from None
        Grant.parse(approval.grant)
        return approval

    @property
    def grant_hash(self) -> str:
        """SHA-256 of the grant: what the signature is for."""
        return hashlib.sha256(self.grant.encode()).hexdigest()

    def public(self) -> bytes:
        """What a stranger needs to check the signature, as canonical JSON.

        The grant stays with us: the digest of refs in it could be tried out by whoever knows all people of a batch but
        one. Its own SHA-256 cannot, since it holds a random nonce.
        """
        fields = {"format": PUBLIC, "grant": self.grant_hash, "officer": self.officer, "signed": self.signed}
        fields |= {"expires": self.expires, "signature": self.signature}
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    def text(self) -> str:
        """The approval as a file holds it: one JSON object."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return json.dumps(fields, sort_keys=True, indent=2, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class Guard:
    """Who may approve, and how much needs them. `lifted` is for rehearsal homes: no officer, no share."""

    officers: Mapping[str, bytes] = field(default_factory=dict)  # name -> Ed25519 public key, raw
    lifted: bool = False

    def __post_init__(self) -> None:
        """InputError if two names share a key: they are one officer."""
        if len(set(self.officers.values())) < len(self.officers):
            raise InputError("two officers have the same key", hint="each signs with a key of their own")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read back what `text` wrote; InputError if it is something else."""
        try:
            raw = json.loads(text)
            officers = {str(name): bytes.fromhex(key) for name, key in raw["officers"].items()}
            lifted = raw["lifted"]
            if not isinstance(lifted, bool) or any(len(key) != 32 for key in officers.values()):
                raise ValueError
        except (ValueError, TypeError, KeyError, AttributeError):
            raise InputError(
                "the vault's guard cannot be read", hint="restore the vault from its newest backup"
            ) from None
        return cls(officers, lifted)

    def text(self) -> str:
        """The guard as the vault keeps it."""
        officers = {name: key.hex() for name, key in sorted(self.officers.items())}
        return json.dumps({"officers": officers, "lifted": self.lifted}, sort_keys=True, separators=(",", ":"))

    def as_drops(self) -> dict[bytes, frozenset[int] | None]:
        """What a grant for this guard names in the place of people: the guard itself."""
        return {self.text().encode(): frozenset()}

    def check(
        self, grant: Grant, approvals: Sequence[Approval], *, subjects: int, today: int, living: int, now: datetime
    ) -> tuple[str, ...]:
        """The officers who approved, none where none was needed; NotAllowed unless these subjects may die now.

        subjects: how many this batch names; today: how many died without officers in the last 24 h; living: how many
        there are, an estimate from a sample of buckets.
        """
        if self.lifted:
            return ()
        if subjects > max(FREE, living // MOST_SHARE):
            raise NotAllowed(
                f"{subjects} subjects in one batch: at most one in {MOST_SHARE} of about {living} may die at once",
                hint="erase them in smaller batches",
            )
        free = max(FREE, living // FREE_SHARE)
        if today + subjects <= free and not approvals:
            return ()
        found = self.approvers(grant, approvals, now=now)
        if len(found) < 2:
            raise NotAllowed(
                f"{subjects} subjects, {today} more in the last 24 h: beyond {free} two different officers sign, "
                f"{len(found)} did",
                hint="`fangxin keys approve` signs the plan that `fangxin erase --plan` wrote; give both files",
            )
        return found

    def approvers(self, grant: Grant, approvals: Sequence[Approval], *, now: datetime) -> tuple[str, ...]:
        """The different officers whose approvals hold for this grant now; NotAllowed for one that does not."""
        found = set()
        for one in approvals:
            key = self.officers.get(one.officer)
            if key is None:
                raise NotAllowed(
                    "an approval is signed by nobody who is an officer here", hint="`fangxin keys officers`"
                )
            message = _message(grant.plan_hash, one.officer, one.signed, one.expires)
            try:
                Ed25519PublicKey.from_public_bytes(key).verify(bytes.fromhex(one.signature), message)
            except InvalidSignature:
                raise NotAllowed(
                    f"the approval of {one.officer} is not for this plan, or was changed",
                    hint="have the plan as it is now signed",
                ) from None
            if not one.signed <= stamp(now) <= one.expires:
                raise NotAllowed(f"the approval of {one.officer} is good from {one.signed} to {one.expires}")
            found.add(one.officer)
        if len(found) > 1 and stamp(now - DELAY) < max(one.signed for one in approvals):
            raise NotAllowed(f"the last approval is less than {DELAY} old", hint="wait: somebody may want to object")
        return tuple(sorted(found))


def bound(guard: bytes, top_key: bytes) -> bytes:
    """What binds a guard to the living root: pages lie under it, plain metadata does not, and copies travel."""
    return hashlib.blake2b(guard, key=top_key, digest_size=32, person=b"fangxin/guard/1").digest()


GUARDED = Guard()  # nobody is an officer yet: only what needs none can be destroyed


def _message(plan: str, officer: str, signed: str, expires: str) -> bytes:
    fields = {"plan": plan, "officer": officer, "signed": signed, "expires": expires}
    return _LABEL + json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

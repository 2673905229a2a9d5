"""What the vault itself keeps of a sealed subject, so that a seal means the same whoever calls.

* A seal ends when its time is over, or, where the person waives the rest, a day after it was made; never before.
* `until` is only ever extended.
* What comes back is what was taken away: the note holds a commitment to it. Anything else in its place is a death.
* From a restore until the officers' entry in the second vault is dead, nothing of the subject is destroyed or sealed:
  the old record would open it later.

A note of a seal is named by a hash of the deployment's share, one of a restore by a hash of a key that came back: it
leads to nobody once that is dead. An address in its name would, for as long as somebody has the root and old copies.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Set
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Self

from fangxin.data.errors import NotAllowed
from fangxin.data.keys.batch import Adds
from fangxin.data.keys.domains import OURS
from fangxin.data.keys.domains import SEALED as SHARE
from fangxin.data.keys.grant import Drops, stamp

SEAL, RESTORED = "seal/", "restored/"  # how the names of notes begin
NOTICE = timedelta(hours=24)  # between the seal and an end that the person asked for early


@dataclass(frozen=True)
class Sealing:
    """What is to be noted of a seal: the name of its record, and when the time to regret it ends."""

    case: bytes
    until: datetime


@dataclass(frozen=True)
class Sealed:
    """What was noted of one; times are UTC to the second."""

    case: str
    at: str
    until: str
    keys: str  # commitment to what was taken away, in hex

    @classmethod
    def parse(cls, note: bytes) -> Self:
        """Read back what `text` wrote."""
        return cls(**json.loads(note))

    def text(self) -> bytes:
        """The note as the vault keeps it."""
        return json.dumps(asdict(self)).encode()

    def check_end(self, now: datetime, *, waived: bool) -> None:
        """NotAllowed before the end; a waiver brings it forward to a day after the seal, never further."""
        if stamp(now) >= self.until or (waived and stamp(now - NOTICE) >= self.at):
            return
        raise NotAllowed(
            f"the time to change one's mind runs until {self.until}",
            hint="wait for its end" if not waived else f"a waiver takes effect {NOTICE} after the seal of {self.at}",
        )

    def check_restore(self, now: datetime) -> None:
        """NotAllowed after the end."""
        if stamp(now) >= self.until:
            raise NotAllowed(f"the time to change one's mind ended {self.until}", hint="nothing brings it back")


def name_of(share: bytes) -> str:
    """The name of the note of a seal, from the deployment's share."""
    return SEAL + hashlib.sha256(b"fangxin/seal/1/note" + share).hexdigest()[:32]


def mark(keys: Mapping[int, bytes]) -> str:
    """The name of the note of a restore, from the keys that came back: the code of one, and a hash of it."""
    code = min(keys)
    return f"{RESTORED}{code:02x}/{hashlib.sha256(b'fangxin/seal/1/restored' + keys[code]).hexdigest()[:32]}"


def marked(names: Iterable[str]) -> frozenset[int]:
    """The codes of the keys that notes of restores are named by."""
    return frozenset(int(name.split("/")[1], 16) for name in names)


def commitment(share: bytes, keys: Mapping[int, bytes]) -> str:
    """Binds what a seal takes away (domain code -> key), and tells nothing of it."""
    taken = b"".join(bytes((code,)) + keys[code] for code in sorted(keys))
    return hashlib.sha256(b"fangxin/seal/1/keys" + share + taken).hexdigest()


@dataclass
class Toll:
    """How many subjects die with a batch, and what is to be noted with it (None = forgotten)."""

    dying: int = 0
    notes: dict[str, bytes | None] = field(default_factory=dict)


def counts(codes: frozenset[int] | None) -> bool:
    """Whether somebody dies with the keys of these domains (None = all): our own request keys do not count."""
    return codes is None or bool(codes - OURS)


def toll(
    drop: Drops,
    add: Adds,
    *,
    shares: Mapping[bytes, bytes],
    leaving: Mapping[bytes, Mapping[int, bytes]],
    noted: Mapping[str, bytes],
    marks: Mapping[bytes, Set[str]],
    restored: Mapping[str, bytes],
    sealings: Mapping[bytes, Sealing],
    waived: bool,
    now: datetime,
) -> Toll:
    """Count who dies, and refuse what no seal allows (NotAllowed).

    By ref: `shares` are the living shares of sealed subjects that the batch drops, `leaving` the keys that a seal takes
    away, `marks` the names that notes of restores have if its living keys came back. `noted` are all notes of seals,
    `restored` of restores.

    A subject that is sealed counts: the vault cannot know whether anybody kept the record.
    """
    found = Toll()
    for ref, codes in drop.items():
        if not restored.keys().isdisjoint(marks.get(ref, ())):
            raise NotAllowed(
                "a subject was restored, and the officers' entry of that seal lives: it would open what is destroyed",
                hint="finish the restore (`Seals.settle`), then repeat",
            )
        coming = add.get(ref, {})
        if (share := shares.get(ref)) is None:
            found.dying += counts(codes)
            continue
        name = name_of(share)
        if name not in noted:
            raise NotAllowed("nothing is known of this seal", hint="it was not made by `Seals.seal`: `keys restore`")
        known = Sealed.parse(noted[name])
        found.notes[name] = None
        if codes == frozenset({SHARE}) and commitment(share, coming) == known.keys:
            known.check_restore(now)
            if coming:  # else the record opens nothing
                found.notes[mark(coming)] = known.case.encode()
        else:
            known.check_end(now, waived=waived)
            found.dying += 1
    for ref, keys in add.items():
        if SHARE in keys:
            if ref not in sealings or set(keys) != {SHARE} or drop.get(ref) is None:
                raise NotAllowed("a seal says which keys it takes, the name of its record and its end", hint="seal.py")
            one = sealings[ref]
            said = Sealed(one.case.hex(), stamp(now), stamp(one.until), commitment(keys[SHARE], leaving.get(ref, {})))
            found.notes[name_of(keys[SHARE])] = said.text()
    return found

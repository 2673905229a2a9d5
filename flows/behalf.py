"""Who asks for somebody else: a guardian for a minor, an agent with a mandate, a relative for the dead (PIPL 31, 49).

Somebody of ours looked at their documents; what stays is that they did, and the documents' SHA-256. Such a request is
of high risk always: two officers sign it, nobody waives its days, and every verified channel of the person hears of it.

* A guardian shows one document, a relative two (of the death, of the kinship), an agent a mandate that has an end.
* An agent's mandate must still stand when the plan is made and when officers sign it.
* The person may withdraw before the seal; afterwards the code or two officers bring the account back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from fangxin.data.errors import InputError, NotAllowed, unread

DOCUMENTS: Final = {"guardian": 1, "agent": 1, "heir": 2}  # how many each role shows at the least
LEVEL: Final = "L3"


@dataclass(frozen=True)
class Behalf:
    """A role, the digests of what was shown for it, and when a mandate ends."""

    role: str
    documents: tuple[str, ...]
    until: datetime | None = None

    @property
    def risk(self) -> str:
        """The reason for high risk that goes with it."""
        return f"on_behalf_{self.role}"

    def facts(self) -> dict[str, Any]:
        """As it stands with a closing. Any: JSON."""
        return {
            "role": self.role,
            "documents": list(self.documents),
            "until": self.until.isoformat() if self.until else None,
        }

    @classmethod
    def of(cls, facts: dict[str, Any] | None) -> Behalf | None:
        """Read back what `facts` wrote."""
        if not facts:
            return None
        until = datetime.fromisoformat(facts["until"]) if facts["until"] else None
        return cls(facts["role"], tuple(facts["documents"]), until)


def shown(role: str, documents: Sequence[Path], *, level: str, until: datetime | None, now: datetime) -> Behalf:
    """Take in what was shown; InputError where it is not what the role asks for, NotAllowed where a mandate is over."""
    if role not in DOCUMENTS:
        raise InputError(f'--on-behalf: expected {", ".join(DOCUMENTS)}; found "{role}"')
    if level != LEVEL:
        raise InputError(
            f"on behalf of somebody: expected --verified {LEVEL}", hint="documents are looked at by people"
        )
    found = {_digest(path) for path in documents}
    if len(found) < DOCUMENTS[role]:
        raise InputError(
            f"{role}: expected {DOCUMENTS[role]} different documents, found {len(found)}",
            hint="a relative shows that the person died, and that they are related" if role == "heir" else "",
        )
    if (role == "agent") != (until is not None):
        raise InputError("--mandate-until: an agent's mandate has an end, and nobody else has a mandate")
    made = Behalf(role, tuple(sorted(found)), until)
    stands(made, now)
    return made


def stands(behalf: Behalf | None, now: datetime) -> None:
    """NotAllowed once a mandate is over."""
    if behalf is not None and behalf.until is not None and now >= behalf.until:
        raise NotAllowed(
            f"the agent's mandate ended on {behalf.until.isoformat()}", hint="the person asks, or gives another mandate"
        )


def _digest(path: Path) -> str:
    try:
        body = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {unread(error)}") from None
    if not body:
        raise InputError(f"{path}: is empty", hint="the document itself, as it was shown")
    return hashlib.sha256(body).hexdigest()

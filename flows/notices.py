"""Notices: which moves the person hears of by every verified channel, and that they are told to look at their receipt.

A notice is a row of the outbox, written in the transaction of the move: a template, a language, and an address that
lies sealed under a key of the closing's own until the last notice is out. Its text holds no name, no link, no detail.
What sends them is `delivery.py`; by what is `channels.py`.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final

from fangxin.data.closures.store import Message
from fangxin.data.errors import InputError
from fangxin.data.keys.envelope import open_blob, seal_blob
from fangxin.flows.lifecycle import Hold, Request, State

KINDS: Final = ("mail", "sms", "webhook")
UNTOLD: Final = "/untold"  # the end of a hold's reason where a law forbids to tell; officers sign it with the reason
_LABEL = b"fangxin/notices/1"
_TEMPLATES = Path(__file__).resolve().parents[1] / "data" / "notices.toml"

# What happened -> what is told. Moves of the table, and what is noted without one (alarms, dates that moved).
TOLD: Final[Mapping[str, str]] = {
    "submit": "received",
    "plan": "in_review",
    "approve": "reviewed",
    "reject": "stopped",
    "cancel": "stopped",
    "expire": "stopped",
    "seal": "sealed",
    "waive": "waived",
    "restore": "restored",
    "code_locked": "locked",
    "hold": "held",
    "lift_hold": "lifted",
    "begin": "erasing",
    "stall": "delayed",
    "clean": "erased",
    "exported": "exported",
    "export_failed": "export_failed",
    "alarm": "late",
    "recounted": "moved",
    "extended": "moved",
}
# Moves that nobody is told of, and why.
SILENT: Final[Mapping[str, str]] = {
    "verify": "in the minute of the submission",
    "sign": "an officer's half of a decision",
    "approve_automatically": "the approval follows in the same breath",
    "end_regret": "the person was told the instant; the beginning follows",
    "locate_again": "nothing is changed by looking",
    "first_share_gone": "a step of the erasing",
    "keys_gone": "a step of the erasing",
    "overwritten": "a step of the erasing",
    "residue": "it is done again; a delay is told",
    "resume": "the delay was told, and the end will be",
    "found_again": "after the last notice: no address is left, the receipt shows it",
    "came_due": "after the last notice: no address is left, the receipt shows it",
    "close": "the end was told",
    "settle": "the plan said so",
    "settled": "the receipt shows it",
    "settlement_failed": "tried again, else kept under the receipt",
    "settle_again": "tried again",
    "escrow": "the receipt shows it",
    "export": "they asked this minute",
    "export_again": "they asked this minute",
    "collect": "they fetched it",
    "export_expired": "the day was told with the export",
    "waive_export": "they said so this minute",
}


@dataclass(frozen=True)
class Contact:
    """How a person hears of their closing: (kind, address) of each verified channel, and the language."""

    channels: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    locale: str = "zh"


def template_of(event: str, request: Request, body: Mapping[str, Any] | None = None) -> str | None:
    """What is told of an event, as the request stands after it; None where nobody is told. Any: JSON."""
    if event == "clean" and request.state is State.RESTRICTED:
        return "kept"
    if event == "hold" and request.hold is Hold.SOME:
        return "held_part"
    if event == "alarm" and all(percent < 100 for _clock, percent in (body or {}).get("alarms", ())):
        return None  # half the time is used: officers are told, not the person
    return TOLD.get(event)


@cache
def templates() -> Mapping[str, Mapping[str, Mapping[str, str]]]:
    """Template -> language -> subject and body, from `data/notices.toml`."""
    found: dict[str, dict[str, dict[str, str]]] = tomllib.loads(_TEMPLATES.read_text("utf-8"))
    return found


@dataclass(frozen=True)
class Notice:
    """One message to one address; the address never shows."""

    key: str  # of the outbox row
    template: str
    locale: str  # zh | en
    address: str = field(repr=False)
    closure: str = ""

    def text(self) -> tuple[str, str]:
        """Subject and body; InputError for a template or a language that we do not have."""
        try:
            found = templates()[self.template][self.locale]
        except KeyError:
            raise InputError(f"no notice {self.template} in {self.locale}") from None
        return found["subject"], found["body"]


def written(
    closure: str, ref: bytes, channels: Sequence[tuple[str, str]], template: str, locale: str, *, version: int,
    key: bytes, now: datetime,
) -> list[Message]:  # fmt: skip
    """The outbox rows of one event: one a channel (kind, address), each with a key of its own for ever.

    Rows of one second go out in the order of their moves: the version decides within it.
    """
    found = []
    due = now - timedelta(seconds=1) + timedelta(milliseconds=min(version, 999))
    for number, (kind, address) in enumerate(channels):
        name = hashlib.sha256(f"{closure}|{version}|{template}|{number}".encode()).hexdigest()
        sealed = seal_blob(key, address.encode(), _LABEL + ref)
        found.append(Message(name, kind, {"template": template, "locale": locale}, due, sealed))
    return found


def address_of(ref: bytes, sealed: bytes, key: bytes) -> str:
    """The address of a row."""
    return open_blob(key, sealed, _LABEL + ref).decode("utf-8")

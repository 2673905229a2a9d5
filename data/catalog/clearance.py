"""Clearance: what becomes of everything an account holds before it is closed, as a versioned file of rules.

Strictly read, like a catalog: every problem is a line of `file:line:column`. The rules of the rules:

* An unknown kind of item stops a plan (fails closed); so every kind that the stores can hold must be listed.
* Whatever blocks a closing has an actor, an exit, a latest date, and an `else` that needs nobody's goodwill.
* Nothing is forfeited without a tick of its own for that item.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import yaml

from fangxin.data.catalog.tree import Page, Problem, compose, ordered
from fangxin.data.errors import CatalogError

FATES: Final = (
    "payout", "refund", "transfer", "cash", "convert", "cancel", "unbind", "revoke", "hand_over", "dissolve",
    "complete", "pay", "decide", "lapse",
)  # fmt: skip
ALONE: Final = ("dissolve", "split_off", "claim")  # what the system can do by itself when a date has passed
ACTORS: Final = ("holder", "merchant", "officer")
_SPAN = r"([1-9][0-9]{0,2})(wd|d|h)"


@dataclass(frozen=True)
class Latest:
    """How long a blocker may stand: working days, days or hours."""

    amount: int
    unit: str  # wd | d | h


@dataclass(frozen=True)
class Blocker:
    """Why a closing waits: who ends it and how, until when, and what happens by itself then."""

    actor: str
    exit: str
    latest: Latest
    otherwise: str


@dataclass(frozen=True)
class Rule:
    """What may become of items of one kind; the first fate is the default."""

    kind: str
    fates: tuple[str, ...]
    text_zh: str
    text_en: str
    blocks: Blocker | None = None
    before_seal: bool = False
    after: tuple[str, ...] = ()  # kinds that are paid first
    per_item: tuple[str, ...] = ()  # what each item must say of itself
    points: int = 0  # that many points ...
    minor: int = 0  # ... are worth this many minor units
    close_day_used: bool = True
    gift: str = "dilute"

    @property
    def forfeits(self) -> bool:
        """Whether an item may be lost; never without a tick of its own."""
        return "lapse" in self.fates


@dataclass(frozen=True)
class Clearance:
    """All rules of one version, and the file's SHA-256."""

    version: int
    rules: Mapping[str, Rule]
    forfeit_below: Mapping[str, int]  # minor units by currency that may be left, with a tick
    link_hours: int
    last_request_hours: int  # before the end of regret
    digest: str

    @classmethod
    def load(cls, path: Path) -> Clearance:
        """Read a file of rules; CatalogError carries every problem as file:line:column."""
        return _read(str(path), path.read_bytes())


@lru_cache(maxsize=8)
def _read(path: str, body: bytes) -> Clearance:
    problems: list[Problem] = []
    node = compose(path, body, problems)
    found = _Reader(Page(path, problems)).clearance(node, hashlib.sha256(body).hexdigest()) if node else None
    if problems or found is None:
        raise CatalogError([str(p) for p in ordered(problems, [path])])
    return found


class _Reader:
    def __init__(self, page: Page) -> None:
        self.page = page

    def clearance(self, node: yaml.Node, digest: str) -> Clearance:
        page = self.page
        known = ("clearance", "kinds", "forfeit", "export")
        keys = page.mapping(node, "a clearance", known, required=known)
        kinds = page.mapping(keys["kinds"], "kinds", None) if "kinds" in keys else {}
        rules = {name: self._rule(name, one) for name, one in kinds.items()}
        for name, rule in rules.items():
            for other in rule.after:
                if other not in rules:
                    page.say(kinds[name], f'kind {name}: after: "{other}" is no kind of this file')
        if not rules and "kinds" in keys:
            page.say(keys["kinds"], "kinds: expected at least one kind of item")
        forfeit = page.mapping(keys["forfeit"], "forfeit", ("below", "own_tick"), required=("below", "own_tick"))
        if "own_tick" in forfeit and page.flag(forfeit["own_tick"], "forfeit.own_tick") is not True:
            page.say(forfeit["own_tick"], "forfeit.own_tick: nothing is forfeited without a tick of its own")
        below = page.mapping(forfeit["below"], "forfeit.below", None) if "below" in forfeit else {}
        wanted = ("link", "last_request", "never_beyond")
        export = page.mapping(keys["export"], "export", wanted, required=wanted) if "export" in keys else {}
        if "never_beyond" in export:
            page.one_of(export["never_beyond"], "export.never_beyond", ("regret_ends",))
        return Clearance(
            version=(page.integer(keys["clearance"], "clearance", least=1) or 0) if "clearance" in keys else 0,
            rules=rules,
            forfeit_below={k: page.integer(v, f"forfeit.below.{k}") or 0 for k, v in below.items()},
            link_hours=self._hours(export, "link"),
            last_request_hours=self._hours(export, "last_request"),
            digest=digest,
        )

    def _rule(self, name: str, node: yaml.Node) -> Rule:
        page = self.page
        known = ("fate", "text", "blocks", "before", "after", "per_item", "rate", "basis", "close_day_used", "gift")
        keys = page.mapping(node, f"kind {name}", known, required=("fate", "text"))
        fates = page.names(keys["fate"], "fate") if "fate" in keys else ()
        for fate in fates:
            if fate not in FATES:
                page.say(keys["fate"], f'kind {name}: fate: expected {", ".join(FATES)}; found "{fate}"')
        if not fates and "fate" in keys:
            page.say(keys["fate"], f"kind {name}: fate: expected at least one")
        if fates and fates[0] == "lapse":
            page.say(keys["fate"], f"kind {name}: losing it is never the default; put another fate first")
        text = page.mapping(keys["text"], "text", ("zh", "en"), required=("zh", "en")) if "text" in keys else {}
        rate = (
            page.mapping(keys["rate"], "rate", ("points", "minor"), required=("points", "minor"))
            if "rate" in keys
            else {}
        )
        if "convert" in fates and not rate:
            page.say(node, f"kind {name}: converting needs a rate such as {{points: 100, minor: 100}}")
        if "basis" in keys:
            page.one_of(keys["basis"], "basis", ("days",))
        if "before" in keys:
            page.one_of(keys["before"], "before", ("seal",))
        used = page.flag(keys["close_day_used"], "close_day_used") if "close_day_used" in keys else True
        return Rule(
            kind=name,
            fates=fates,
            text_zh=(page.text(text["zh"], "text.zh") or "") if "zh" in text else "",
            text_en=(page.text(text["en"], "text.en") or "") if "en" in text else "",
            blocks=self._blocker(name, keys["blocks"], fates) if "blocks" in keys else None,
            before_seal="before" in keys,
            after=page.names(keys["after"], "after") if "after" in keys else (),
            per_item=page.names(keys["per_item"], "per_item") if "per_item" in keys else (),
            points=(page.integer(rate["points"], "rate.points", least=1) or 0) if "points" in rate else 0,
            minor=(page.integer(rate["minor"], "rate.minor", least=1) or 0) if "minor" in rate else 0,
            close_day_used=used is not False,
            gift=(page.one_of(keys["gift"], "gift", ("first", "dilute", "last")) or "dilute")
            if "gift" in keys
            else "dilute",
        )

    def _blocker(self, name: str, node: yaml.Node, fates: tuple[str, ...]) -> Blocker | None:
        page = self.page
        wanted = ("actor", "exit", "latest", "else")
        keys = page.mapping(node, f"kind {name}: blocks", wanted, required=wanted)
        if set(keys) != set(wanted):
            return None
        actor = page.one_of(keys["actor"], "blocks.actor", ACTORS) or ""
        otherwise = page.one_of(keys["else"], "blocks.else", ALONE) or ""
        way_out = page.one_of(keys["exit"], "blocks.exit", fates) or ""
        found = re.fullmatch(_SPAN, page.text(keys["latest"], "blocks.latest") or "")
        if not found:
            page.say(keys["latest"], f"kind {name}: blocks.latest: expected 7d, 15wd or 24h")
            return None
        return Blocker(actor, way_out, Latest(int(found[1]), found[2]), otherwise)

    def _hours(self, keys: dict[str, yaml.Node], key: str) -> int:
        if key not in keys:
            return 0
        found = re.fullmatch(_SPAN, self.page.text(keys[key], f"export.{key}") or "")
        if not found or found[2] == "wd":
            self.page.say(keys[key], f"export.{key}: expected hours or days such as 72h")
            return 0
        return int(found[1]) * (24 if found[2] == "d" else 1)

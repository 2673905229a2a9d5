"""Settlement: what an account still holds, what the person chose for each item, and what is owed to them.

Pure. An *entitlement* is one item as the stores have it; a *disposition* is what becomes of it. Every entitlement ends
in dispositions that add up to it; nothing vanishes, nothing is counted twice, and what is lost was ticked by itself.
Money is posted twice (`Posting`), so that every currency sums to zero at any moment.

* An item of a kind without a rule, without what its rule asks of it, or in a currency nobody knows stops the plan.
* A balance below zero is no balance: an officer looks at the account first.
* A choice is the person's; without one the first fate of the rule is taken, which is never a loss.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from typing import Final

from fangxin.data.catalog.clearance import Clearance, Rule
from fangxin.data.errors import InputError, NotAllowed
from fangxin.flows.refund import Gift, Money, Term, quote

MONEY: Final = frozenset({"payout", "refund", "cash", "convert"})  # fates that end in an amount for the person


@dataclass(frozen=True)
class Entitlement:
    """One item that an account holds. `amount` counts minor units for money, points for points, else 1."""

    id: str  # opaque, stable for the request
    kind: str
    amount: int
    currency: str | None = None
    term: Term | None = None
    transferable: bool | None = None
    cash_rate: Fraction | None = None  # of the face value in minor units
    expires: datetime | None = None
    source: str | None = None  # where its rule was told to the person
    version: int = 0
    instrument: str = field(default="", repr=False)  # the provider's token for paying it back, where one is known
    place: str = field(default="", repr=False)  # collection and key of the row that it is


@dataclass(frozen=True)
class Choice:
    """What the person wants for one item. `tick`: that they lose it, said for this item alone."""

    entitlement: str
    fate: str
    tick: bool = False


@dataclass(frozen=True)
class Disposition:
    """What becomes of one item. `money`: what the person gets; `lost`: what they gave up, in the item's own units."""

    entitlement: str
    kind: str
    fate: str
    amount: int
    money: Money | None = None
    lost: int = 0
    version: int = 0
    currency: str | None = None  # of what is lost, where it is counted in money

    @property
    def digest(self) -> str:
        """SHA-256 of the disposition as the ledger's `settled` entry names it; holds nothing of the person."""
        money = [self.money.minor, self.money.currency] if self.money else None
        body = [self.entitlement, self.kind, self.fate, self.amount, money, self.lost, self.version]
        return hashlib.sha256(json.dumps(body, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True)
class Posting:
    """Half of a double entry: `minor` to an account of the process's own books (never a person's)."""

    account: str  # owed | paid | escrow | unclaimed | suspense | forfeited | wallet
    currency: str
    minor: int


def settle(
    held: Sequence[Entitlement],
    choices: Sequence[Choice],
    rules: Clearance,
    *,
    closed: datetime,
    overdue: Collection[str] = (),
) -> tuple[Disposition, ...]:
    """Decide every item; the same items and choices give the same answer, in the order of `held`.

    `overdue`: items that block and whose latest date has passed; they end as their rule's `else` says.
    InputError for an unknown kind or currency, an item that does not say what its rule asks of it, a choice for an item
    that is not held or named twice; NotAllowed for a fate that the rule does not know, or a loss without its tick.
    """
    ids = [one.id for one in held]
    if len(set(ids)) != len(ids):
        raise InputError("an item stands twice in the inventory", hint="the inventory is taken again")
    chosen: dict[str, Choice] = {}
    for one in choices:
        if one.entitlement not in set(ids) or one.entitlement in chosen:
            raise InputError("a choice names an item that is not held, or names it twice")
        chosen[one.entitlement] = one
    return tuple(_decide(one, chosen.get(one.id), rules, closed, one.id in overdue) for one in held)


def _decide(one: Entitlement, choice: Choice | None, rules: Clearance, closed: datetime, overdue: bool) -> Disposition:
    rule = rules.rules.get(one.kind)
    if rule is None:
        raise InputError(
            f'an item of kind "{one.kind}" has no rule in clearance {rules.version}',
            hint="add the kind to the clearance file; nothing is lost because nobody thought of it",
        )
    if one.amount < 0:
        raise NotAllowed(
            f"{one.kind}: a negative amount is no entitlement", hint="an officer looks at the account first"
        )
    if overdue and rule.blocks is not None:
        return Disposition(one.id, one.kind, rule.blocks.otherwise, one.amount, None, 0, one.version)
    missing = [name for name in rule.per_item if getattr(one, name) is None]
    if missing:
        raise InputError(f"an item of kind {one.kind} does not say: {', '.join(missing)}")
    fate = choice.fate if choice else _default(one, rule)
    if fate not in rule.fates:
        raise NotAllowed(f"{one.kind}: {fate} is not possible; one of {', '.join(rule.fates)} is")
    if fate == "transfer" and one.transferable is False:
        raise NotAllowed(f"{one.kind}: this item cannot be transferred")
    if fate == "cash" and not one.cash_rate:
        raise NotAllowed(f"{one.kind}: this item cannot be cashed")
    if fate == "lapse":
        if choice is None or not choice.tick:
            raise NotAllowed(f"{one.kind}: an item is lost only where it is ticked by itself")
        return Disposition(one.id, one.kind, fate, one.amount, None, one.amount, one.version, one.currency)
    return Disposition(one.id, one.kind, fate, one.amount, _money(one, rule, fate, closed), 0, one.version)


def _default(one: Entitlement, rule: Rule) -> str:
    """The first fate that this item allows; a loss is never among them, so a person may have to choose."""
    for fate in rule.fates:
        if fate == "lapse" or (fate == "transfer" and len(rule.fates) > 1):
            continue  # a transfer needs a receiver whom only the person can name
        if fate == "cash" and not one.cash_rate:
            continue
        return fate
    raise NotAllowed(f"{one.kind}: the person chooses what becomes of this item", hint="show it on the list of items")


def _money(one: Entitlement, rule: Rule, fate: str, closed: datetime) -> Money | None:
    if fate not in MONEY:
        return None
    if fate == "refund":
        if one.term is None:
            raise InputError(f"an item of kind {one.kind} does not say its term")
        return quote(one.term, closed, close_day_used=rule.close_day_used, gift=Gift(rule.gift)).refund
    if one.currency is None:
        raise InputError(f"an item of kind {one.kind} does not say its currency")
    if fate == "convert":
        return Money(-(-one.amount * rule.minor // rule.points), one.currency)  # upwards: to the person
    if fate == "cash":
        worth = one.amount * (one.cash_rate or Fraction(0))
        return Money(-(-worth.numerator // worth.denominator), one.currency)
    return Money(one.amount, one.currency)


def blocked(held: Sequence[Entitlement], rules: Clearance) -> list[str]:
    """The ids of items that a closing waits for; each has its exit and its latest date in the rules."""
    return [one.id for one in held if one.kind in rules.rules and rules.rules[one.kind].blocks]


def in_order(dispositions: Sequence[Disposition], rules: Clearance) -> list[Disposition]:
    """The dispositions in the order they may be carried out: payouts first, unbinding after the last payment."""
    done: set[str] = set()
    left, found = list(dispositions), []
    kinds = {d.kind for d in dispositions}
    while left:
        ready = [d for d in left if all(k in done or k not in kinds for k in rules.rules[d.kind].after)]
        if not ready:
            raise InputError("the clearance file lets two kinds wait for each other")
        found += ready
        left = [d for d in left if d not in ready]
        done |= {d.kind for d in ready} - {d.kind for d in left}
    return found


def posted(dispositions: Sequence[Disposition]) -> list[Posting]:
    """The double entries that owe the person what was decided: from the wallet's side to what is owed."""
    found = []
    for one in dispositions:
        if one.money is not None and one.money.minor:
            found.append(Posting("wallet", one.money.currency, -one.money.minor))
            found.append(Posting("owed", one.money.currency, one.money.minor))
    return found


def moved(source: str, to: str, money: Money) -> list[Posting]:
    """A double entry between two accounts: owed to paid, owed to escrow, escrow to unclaimed."""
    if money.minor < 0:
        raise InputError("a posting moves an amount that is not negative")
    return [Posting(source, money.currency, -money.minor), Posting(to, money.currency, money.minor)]


def balance(postings: Sequence[Posting]) -> Mapping[str, int]:
    """What each currency sums to; a book that is right sums to zero."""
    sums: dict[str, int] = {}
    for one in postings:
        sums[one.currency] = sums.get(one.currency, 0) + one.minor
    return sums


def outbox_key(request: str, disposition: Disposition) -> str:
    """The idempotency key under which a disposition acts once at the far side, however often it is tried."""
    body = f"{request}|{disposition.entitlement}|{disposition.fate}|{disposition.version}"
    return hashlib.sha256(body.encode()).hexdigest()

"""What is paid back for a term that was paid for and not used up: exact, by days, never rounded against the person.

    refund = min(ceil(paid * left / total), paid - already refunded)

* Money is an integer of minor units with its currency's exponent; ratios are exact. `Decimal` only reads and prints.
* Days are local dates in the zone stored with the term, half open: `[start, end)`. The end is stored, never
  recomputed as "a month later".
* Gifts (months without a price) lie first, are diluted over the whole, or lie last; the default is to dilute.
* What several tenders paid goes back to each by its share, by the largest remainder, so that the parts sum.

Policies are data (`clearance.py`); nothing here knows a clock or a store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from fractions import Fraction
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fangxin.data.errors import InputError

EXPONENTS: Final = {
    "CNY": 2,
    "HKD": 2,
    "USD": 2,
    "EUR": 2,
    "GBP": 2,
    "JPY": 0,
    "KRW": 0,
    "KWD": 3,
    "BHD": 3,
}  # ISO 4217


class Gift(StrEnum):
    """Where the months without a price lie. For the person: first is never worse than dilute, nor dilute than last."""

    FIRST = "first"
    DILUTE = "dilute"
    LAST = "last"


@dataclass(frozen=True)
class Money:
    """An amount in minor units of a currency that we know."""

    minor: int
    currency: str

    def __post_init__(self) -> None:
        """Refuse what is no amount: a currency nobody declared, or a number that is not whole."""
        if self.currency not in EXPONENTS:
            raise InputError(f'unknown currency "{self.currency}"; expected one of {", ".join(sorted(EXPONENTS))}')
        if type(self.minor) is not int:
            raise InputError(f"an amount is a whole number of minor units; found {type(self.minor).__name__}")

    @classmethod
    def parse(cls, text: str, currency: str) -> Money:
        """Read `36.50`; InputError for more places than the currency has, signs that are none, and non-numbers."""
        exponent = Money(0, currency).exponent
        try:
            value = Decimal(text)
        except InvalidOperation:
            raise InputError(f"not an amount of {currency}", hint="write it as 36.50") from None
        scaled = value.scaleb(exponent) if value.is_finite() else Decimal("0.5")
        if scaled != scaled.to_integral_value():
            raise InputError(f"an amount of {currency} has {exponent} places at the most")
        return cls(int(scaled), currency)

    @property
    def exponent(self) -> int:
        """How many places the currency has."""
        return EXPONENTS[self.currency]

    def __str__(self) -> str:
        return f"{Decimal(self.minor).scaleb(-self.exponent):.{self.exponent}f} {self.currency}"


@dataclass(frozen=True)
class Term:
    """A paid term: local days `[start, end)` in `zone`, `paid` for it, `refunded` before; `free` days are a gift."""

    start: date
    end: date
    zone: str
    paid: Money
    refunded: Money
    free: int = 0  # days at the end of the term that had no price
    trial: bool = False

    def __post_init__(self) -> None:
        """Refuse a term that cannot be: one that ends before it starts, or gave back more than it took."""
        if self.start >= self.end:
            raise InputError("a term ends after it starts; this one does not")
        if not 0 <= self.free < (self.end - self.start).days:
            raise InputError("the free days of a term lie within it and are not all of it")
        if self.paid.currency != self.refunded.currency:
            raise InputError("paid and refunded before are of different currencies")
        if self.paid.minor < 0 or self.refunded.minor < 0:
            raise InputError("a payment and a refund are not negative")
        if self.refunded.minor > self.paid.minor:
            raise InputError("more was refunded than was paid", hint="an officer looks at the account first")
        try:
            ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError):
            raise InputError(f'unknown time zone "{self.zone}" of a term') from None


@dataclass(frozen=True)
class Quote:
    """A refund and the fraction of days that it comes from."""

    refund: Money
    left: int
    total: int


def quote(term: Term, closed: datetime, *, close_day_used: bool = True, gift: Gift = Gift.DILUTE) -> Quote:
    """What is paid back when the account closes at an instant (aware); the day is read in the term's own zone.

    A trial gives back nothing. InputError for an instant without a zone.
    """
    if closed.tzinfo is None:
        raise InputError("an account closes at an instant with a zone; found one without")
    day = closed.astimezone(ZoneInfo(term.zone)).date()
    whole = (term.end - term.start).days
    left = max(0, min(whole, (term.end - day).days - close_day_used))
    priced = whole - term.free
    match gift:
        case Gift.DILUTE:
            total = whole
        case Gift.FIRST:  # the priced days lie last
            left, total = min(left, priced), priced
        case Gift.LAST:  # the priced days lie first
            left, total = max(0, left - term.free), priced
    if term.trial:
        return Quote(Money(0, term.paid.currency), left, total)
    due = -(-term.paid.minor * left // total)  # upwards: a fraction goes to the person
    return Quote(Money(min(due, term.paid.minor - term.refunded.minor), term.paid.currency), left, total)


@dataclass(frozen=True)
class Tender:
    """One means by which something was paid: the provider's token for it, and how much of it."""

    token: str
    paid: Money


def split(refund: Money, tenders: Sequence[Tender]) -> list[tuple[str, Money]]:
    """Give a refund back to what it was paid with, by share and largest remainder; the parts sum, none exceeds.

    InputError if the tenders are of several currencies, or paid less than what is to go back.
    """
    total = sum(t.paid.minor for t in tenders)
    if any(t.paid.currency != refund.currency for t in tenders):
        raise InputError("the tenders of a payment are of its currency")
    if any(t.paid.minor < 0 for t in tenders) or refund.minor < 0 or refund.minor > total:
        raise InputError("a refund is not negative, and not above what the tenders paid")
    if not total:
        return [(t.token, Money(0, refund.currency)) for t in tenders]
    shares = [Fraction(refund.minor * t.paid.minor, total) for t in tenders]
    parts = [int(share) for share in shares]
    order = sorted(range(len(tenders)), key=lambda i: (parts[i] - shares[i], i))
    for i in order[: refund.minor - sum(parts)]:
        parts[i] += 1
    return [(t.token, Money(part, refund.currency)) for t, part in zip(tenders, parts, strict=True)]

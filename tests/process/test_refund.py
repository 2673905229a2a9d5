"""Refunds by days: the worked examples, and what holds for every term and every closing day."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fangxin.data.errors import InputError
from fangxin.flows.refund import Gift, Money, Quote, Tender, Term, quote, split

SHANGHAI = "Asia/Shanghai"


def term(
    start: str, end: str, paid: str, *, currency: str = "CNY", zone: str = SHANGHAI, refunded: str = "0", free: int = 0
) -> Term:
    return Term(
        date.fromisoformat(start),
        date.fromisoformat(end),
        zone,
        Money.parse(paid, currency),
        Money.parse(refunded, currency),
        free,
    )


def at(text: str, zone: str = SHANGHAI) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


@pytest.mark.scenario("S39")
@pytest.mark.parametrize(
    ("given", "closed", "used", "left", "total", "refund"),
    [
        (term("2024-02-01", "2024-03-01", "25.00"), at("2024-02-12T10:00"), True, 17, 29, "14.66 CNY"),
        (term("2023-02-01", "2023-03-01", "25.00"), at("2023-02-12T10:00"), True, 16, 28, "14.29 CNY"),
        (term("2026-11-01", "2026-12-01", "25.00"), at("2026-11-13T00:00"), True, 17, 30, "14.17 CNY"),
        (term("2026-11-01", "2026-12-01", "25.00"), at("2026-11-13T23:59:59"), True, 17, 30, "14.17 CNY"),
        (term("2026-11-01", "2026-12-01", "25.00"), at("2026-11-13T12:00"), False, 18, 30, "15.00 CNY"),
        (term("2024-01-01", "2025-01-01", "366.00"), at("2024-12-31T23:00"), True, 0, 366, "0.00 CNY"),
        (term("2024-01-01", "2025-01-01", "366.00"), at("2024-01-01T01:00"), True, 365, 366, "365.00 CNY"),
        (term("2024-02-01", "2024-03-01", "25.00", refunded="20.00"), at("2024-02-02T09:00"), True, 27, 29, "5.00 CNY"),
        (term("2026-01-31", "2026-02-28", "25.00"), at("2026-02-10T09:00"), True, 17, 28, "15.18 CNY"),
        (term("2026-01-31", "2026-02-28", "25.00"), at("2026-01-02T09:00"), True, 28, 28, "25.00 CNY"),
        (
            term("2026-11-01", "2026-12-01", "980", currency="JPY", zone="Asia/Tokyo"),
            at("2026-11-13T09:00", "Asia/Tokyo"),
            True,
            17,
            30,
            "556 JPY",
        ),
    ],
)
def test_worked_examples(given: Term, closed: datetime, used: bool, left: int, total: int, refund: str) -> None:
    found = quote(given, closed, close_day_used=used)
    assert (found.left, found.total, str(found.refund)) == (left, total, refund)


def test_the_zone_belongs_to_the_term() -> None:
    midnight = at("2026-11-13T00:00")
    assert quote(term("2026-11-01", "2026-12-01", "25.00"), midnight).left == 17
    assert quote(term("2026-11-01", "2026-12-01", "25.00", zone="Asia/Kuwait"), midnight).left == 18
    assert quote(term("2026-11-01", "2026-12-01", "25.00"), midnight.astimezone(UTC)).left == 17


@pytest.mark.parametrize(("gift", "refund"), [(Gift.FIRST, "116.72"), (Gift.DILUTE, "93.63"), (Gift.LAST, "87.13")])
def test_three_months_for_free(gift: Gift, refund: str) -> None:
    year = term("2026-01-01", "2027-04-01", "120.00", free=90)
    assert str(quote(year, at("2026-04-10T12:00"), gift=gift).refund) == f"{refund} CNY"


def test_a_trial_gives_back_nothing() -> None:
    trial = Term(date(2026, 11, 1), date(2026, 12, 1), SHANGHAI, Money(100, "CNY"), Money(0, "CNY"), trial=True)
    assert quote(trial, at("2026-11-02T12:00")).refund == Money(0, "CNY")


def test_a_refund_goes_back_to_what_paid_it() -> None:
    paid = [
        Tender("card", Money(2000, "CNY")),
        Tender("points", Money(300, "CNY")),
        Tender("coupon", Money(200, "CNY")),
    ]
    assert [m.minor for _token, m in split(Money(1417, "CNY"), paid)] == [1134, 170, 113]


terms = st.builds(
    lambda start, days, paid, before, free: Term(
        start,
        start + timedelta(days=days),
        SHANGHAI,
        Money(paid, "CNY"),
        Money(paid * before // 100, "CNY"),
        min(free, days - 1),
    ),
    st.dates(date(2019, 1, 1), date(2030, 1, 1)),
    st.integers(1, 800),
    st.integers(0, 10**7),
    st.integers(0, 100),
    st.integers(0, 120),
)
instants = st.datetimes(datetime(2018, 6, 1), datetime(2033, 1, 1)).map(lambda d: d.replace(tzinfo=UTC))  # noqa: DTZ001


@pytest.mark.scenario("S39")
@given(terms, instants, st.booleans())
def test_a_refund_has_bounds_falls_with_time_and_gifts_are_in_order(given: Term, closed: datetime, used: bool) -> None:
    def back(gift: Gift, when: datetime = closed) -> Quote:
        return quote(given, when, close_day_used=used, gift=gift)

    first, dilute, last = (back(g).refund.minor for g in (Gift.FIRST, Gift.DILUTE, Gift.LAST))
    assert 0 <= last <= dilute <= first <= given.paid.minor - given.refunded.minor
    assert back(Gift.DILUTE, closed + timedelta(days=1)).refund.minor <= dilute
    assert back(Gift.DILUTE, closed.astimezone(ZoneInfo("America/Lima"))).refund.minor == dilute
    exact = given.paid.minor * back(Gift.DILUTE).left / back(Gift.DILUTE).total
    assert dilute >= min(exact, given.paid.minor - given.refunded.minor) - 1e-6  # rounding goes to the person


@pytest.mark.scenario("S39")
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=6), st.integers(0, 10**6))
def test_the_parts_of_a_refund_sum_and_none_exceeds_what_it_paid(paid: list[int], share: int) -> None:
    refund = Money(sum(paid) * share // 10**6, "CNY")
    parts = split(refund, [Tender(str(n), Money(p, "CNY")) for n, p in enumerate(paid)])
    assert sum(m.minor for _t, m in parts) == refund.minor
    assert all(0 <= m.minor <= p for (_t, m), p in zip(parts, paid, strict=True))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Money(1, "XXX"), "unknown currency"),
        (lambda: Money.parse("1.005", "CNY"), "2 places"),
        (lambda: Money.parse("1.5", "JPY"), "0 places"),
        (lambda: Money.parse("NaN", "CNY"), "places"),
        (lambda: Money.parse("a lot", "CNY"), "not an amount"),
        (lambda: term("2026-02-01", "2026-02-01", "1"), "ends after it starts"),
        (lambda: term("2026-02-01", "2026-03-01", "-1"), "not negative"),
        (lambda: term("2026-02-01", "2026-03-01", "1", refunded="2"), "more was refunded"),
        (lambda: term("2026-02-01", "2026-03-01", "1", free=28), "free days"),
        (lambda: term("2026-02-01", "2026-03-01", "1", zone="Mars/Olympus"), "time zone"),
        (lambda: split(Money(2, "CNY"), [Tender("a", Money(1, "CNY"))]), "not above"),
        (lambda: split(Money(1, "CNY"), [Tender("a", Money(1, "JPY"))]), "of its currency"),
        (lambda: quote(term("2026-02-01", "2026-03-01", "1"), datetime(2026, 2, 2)), "with a zone"),  # noqa: DTZ001
    ],
)
def test_what_cannot_be_is_refused(make: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        make()  # type: ignore[operator]

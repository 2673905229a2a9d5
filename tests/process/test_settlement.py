"""Clearance and settlement: everything an account holds is decided, adds up, and is never lost by default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fangxin.data
from fangxin.data.catalog.clearance import ALONE, Clearance
from fangxin.data.errors import CatalogError, FangxinError, InputError, NotAllowed
from fangxin.flows.refund import Money, Term
from fangxin.flows.settlement import (
    Choice,
    Disposition,
    Entitlement,
    balance,
    blocked,
    in_order,
    moved,
    outbox_key,
    posted,
    settle,
)

FILE = Path(fangxin.data.__file__).parent / "clearance" / "lecard.yaml"
CLOSED = datetime(2026, 11, 13, 4, tzinfo=UTC)  # noon in Shanghai
LATER = datetime(2027, 6, 1, tzinfo=UTC)
TERM = Term(date(2026, 11, 1), date(2026, 12, 1), "Asia/Shanghai", Money(2500, "CNY"), Money(0, "CNY"))


@pytest.fixture(scope="module")
def rules() -> Clearance:
    return Clearance.load(FILE)


def coupon(name: str = "c", **known: object) -> Entitlement:
    given: dict[str, object] = {
        "transferable": True,
        "cash_rate": Fraction(1, 2),
        "expires": LATER,
        "source": "terms/7",
    }
    return Entitlement(name, "coupon", 999, "CNY", **{**given, **known})  # type: ignore[arg-type]


def one(rules: Clearance, held: Entitlement, *choices: Choice) -> Disposition:
    (found,) = settle([held], choices, rules, closed=CLOSED)
    return found


@pytest.mark.scenario("S5")
def test_a_balance_is_paid_out_and_no_precondition(rules: Clearance) -> None:
    found = one(rules, Entitlement("b", "balance", 3650, "CNY"))
    assert (found.fate, found.money) == ("payout", Money(3650, "CNY"))
    assert blocked([Entitlement("b", "balance", 3650, "CNY")], rules) == []


@pytest.mark.scenario("S38", "S39")
def test_a_membership_is_refunded_by_the_days_that_are_left(rules: Clearance) -> None:
    assert one(rules, Entitlement("m", "membership", 1, "CNY", TERM)).money == Money(1417, "CNY")


@pytest.mark.scenario("S6", "S38")
def test_points_are_converted_and_rounded_to_the_person(rules: Clearance) -> None:
    assert one(rules, Entitlement("p", "points", 101, "CNY")).money == Money(101, "CNY")


@pytest.mark.scenario("S3", "S6")
def test_a_coupon_is_cashed_where_it_can_be_and_never_lost_by_default(rules: Clearance) -> None:
    assert one(rules, coupon()).money == Money(500, "CNY")  # half of 9.99, upwards
    with pytest.raises(NotAllowed, match="the person chooses"):
        one(rules, coupon(cash_rate=Fraction(0)))
    with pytest.raises(NotAllowed, match="ticked by itself"):
        one(rules, coupon(), Choice("c", "lapse"))
    lost = one(rules, coupon(), Choice("c", "lapse", tick=True))
    assert (lost.lost, lost.money) == (999, None)


def test_what_cannot_be_transferred_is_not(rules: Clearance) -> None:
    assert one(rules, coupon(), Choice("c", "transfer")).fate == "transfer"
    with pytest.raises(NotAllowed, match="cannot be transferred"):
        one(rules, coupon(transferable=False), Choice("c", "transfer"))


@pytest.mark.scenario("S2")
@pytest.mark.parametrize(
    ("held", "choices", "said"),
    [
        ([Entitlement("x", "airline_miles", 5)], [], "has no rule"),
        ([Entitlement("b", "balance", -1, "CNY")], [], "negative amount"),
        ([Entitlement("b", "balance", 1, "XXX")], [], "unknown currency"),
        ([Entitlement("b", "balance", 1)], [], "does not say its currency"),
        ([Entitlement("m", "membership", 1, "CNY")], [], "does not say its term"),
        ([coupon(expires=None)], [], "does not say: expires"),
        ([coupon(), coupon()], [], "stands twice"),
        ([coupon()], [Choice("d", "cash")], "not held"),
        ([coupon()], [Choice("c", "cash"), Choice("c", "cash")], "names it twice"),
        ([coupon()], [Choice("c", "payout")], "is not possible"),
    ],
)
def test_what_nobody_thought_of_stops_the_plan(
    rules: Clearance, held: Sequence[Entitlement], choices: Sequence[Choice], said: str
) -> None:
    with pytest.raises(FangxinError, match=said):
        settle(held, choices, rules, closed=CLOSED)


@pytest.mark.scenario("S8")
def test_unbinding_waits_for_the_last_payment(rules: Clearance) -> None:
    held = [
        Entitlement("r", "real_name", 1),
        Entitlement("a", "access", 1),
        Entitlement("m", "membership", 1, "CNY", TERM),
        Entitlement("b", "balance", 1, "CNY"),
    ]
    order = [d.kind for d in in_order(settle(held, [], rules, closed=CLOSED), rules)]
    assert order.index("real_name") > max(order.index("membership"), order.index("balance"))
    assert sorted(order) == ["access", "balance", "membership", "real_name"]


@pytest.mark.scenario("S14")
def test_every_blocker_has_an_actor_an_exit_a_latest_date_and_an_end_that_needs_nobody(rules: Clearance) -> None:
    blocking = [r for r in rules.rules.values() if r.blocks]
    assert {r.kind for r in blocking} == {"shared", "open_order", "debt", "dispute"}
    for rule in blocking:
        assert rule.blocks is not None
        assert rule.blocks.latest.amount > 0
        assert rule.blocks.otherwise in ALONE
        assert rule.blocks.exit in rule.fates


amounts = st.integers(0, 10**8)
items = st.one_of(
    st.builds(lambda a: Entitlement("", "balance", a, "CNY"), amounts),
    st.builds(lambda a: Entitlement("", "points", a, "CNY"), amounts),
    st.builds(lambda a, t: replace(coupon(), amount=a, transferable=t), amounts, st.booleans()),
    st.just(Entitlement("", "membership", 1, "CNY", TERM)),
    st.sampled_from(["access", "mandate", "real_name", "shared", "open_order", "debt", "dispute"]).map(
        lambda kind: Entitlement("", kind, 1)
    ),
)


@pytest.mark.scenario("S3", "S38")
@given(st.lists(items, max_size=12), st.randoms(use_true_random=False))
def test_dispositions_are_the_assets_and_the_books_sum_to_zero(held: list[Entitlement], chance: object) -> None:
    rules = Clearance.load(FILE)
    held = [replace(h, id=str(n)) for n, h in enumerate(held)]
    ticked = [Choice(h.id, "lapse", tick=True) for h in held if h.kind == "coupon" and chance.random() < 0.3]  # type: ignore[attr-defined]
    found = settle(held, ticked, rules, closed=CLOSED)
    assert [(d.entitlement, d.kind, d.amount) for d in found] == [(h.id, h.kind, h.amount) for h in held]
    assert {d.entitlement for d in found if d.lost} <= {c.entitlement for c in ticked}
    assert all(v == 0 for v in balance(posted(found)).values())
    owed = sum(d.money.minor for d in found if d.money)
    assert sum(p.minor for p in posted(found) if p.account == "owed") == owed
    assert settle(held, ticked, rules, closed=CLOSED) == found
    assert len({outbox_key("r", d) for d in found}) == len(found)


def test_money_moves_between_two_accounts(rules: Clearance) -> None:
    book = [*moved("owed", "escrow", Money(5, "CNY")), *moved("escrow", "unclaimed", Money(5, "CNY"))]
    assert balance(book) == {"CNY": 0}
    with pytest.raises(InputError, match="not negative"):
        moved("owed", "paid", Money(-1, "CNY"))


@pytest.mark.parametrize(
    ("line", "put", "said"),
    [
        ("fate: [payout]", "fate: [pay_out]", 'fate: expected .* found "pay_out"'),
        ("fate: [transfer, cash, lapse]", "fate: [lapse, cash]", "never the default"),
        ("own_tick: true", "own_tick: false", "a tick of its own"),
        ("    rate: {points: 100, minor: 100}\n", "", "converting needs a rate"),
        ("latest: 7d, exit: hand_over", "latest: soon, exit: hand_over", "blocks.latest: expected"),
        ("exit: complete, else: split_off", "exit: complete, else: wait", "blocks.else"),
        ("exit: complete, else", "exit: refund, else", "blocks.exit"),
        ("actor: merchant", "actor: nobody", "blocks.actor"),
        ("after: [balance, membership]", "after: [balance, gold]", "is no kind"),
        ("never_beyond: regret_ends", "never_beyond: never", "never_beyond"),
        ("  balance:\n", "  balance:\n    fee: 5\n", 'unknown key "fee"'),
    ],
)
def test_a_wrong_rule_is_refused_with_its_line(tmp_path: Path, line: str, put: str, said: str) -> None:
    text = FILE.read_text("utf-8")
    assert line in text
    (tmp_path / "c.yaml").write_text(text.replace(line, put, 1), "utf-8")
    with pytest.raises(CatalogError, match=said) as refused:
        Clearance.load(tmp_path / "c.yaml")
    assert f"{tmp_path / 'c.yaml'}:" in str(refused.value)

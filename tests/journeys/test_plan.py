"""What happens to each row and each value in it: the catalog, the law and whoever else is in the row decide."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pandas as pd
import pyarrow as pa
import pytest

from fangxin.data.catalog.dataset import read_catalog
from fangxin.data.catalog.identity import EMITTED, HIT, Answer, Closure, Halt, Probe, Question, closure
from fangxin.data.catalog.law import Laws
from fangxin.data.vocabulary import (
    TRACE,
    Catalog,
    Change,
    Cohort,
    Field,
    Identity,
    Mask,
    Mode,
    Ownership,
    Store,
    Subject,
    Unit,
)
from fangxin.flows.estate import LAWS
from fangxin.flows.plan import Bound, Plan, _mentioned_by, decide, decide_canary, drops, orders, standing

TODAY = date(2026, 11, 24)
FACTS = frozenset({"platform_operator"})

SHOP = """
root: .
dataset:
  - fides_key: s
    name: s
    erasure:
      store: {kind: parquet, url: x/}
      mode: delete
      key_domain: profile
      copies: []
      guards: {min_confidence: 0.5}
    collections:
      - name: people
        erasure: {store: {glob: "p/*.parquet"}, person: true}
        fields:
          - {name: id, data_categories: [user.unique_id], fides_meta: {primary_key: true, data_type: integer}}
          - {name: phone, data_categories: [user.contact.phone_number], fides_meta: {identity: phone_number}}
          - name: id_number
            data_categories: [user.government_id]
            fides_meta: {identity: cn_resident_id}
            erasure:
              sensitive: true
              mode: crypto-erase
              key_domain: kyc
              retention: {law: pipl, class: order, from: closed}
          - name: guess
            fides_meta: {references: [{dataset: s, field: people.id}]}
            erasure: {confidence: 0.3}
      - name: logins
        erasure: {store: {glob: "l/*.parquet"}}
        fields:
          - {name: email, data_categories: [user.contact.email], fides_meta: {identity: email}}
          - {name: phone, data_categories: [user.contact.phone_number], fides_meta: {identity: phone_number}}
      - name: transfers
        erasure:
          store: {glob: "t/*.parquet"}
          ownership: joint
          key_domain: orders
          retention: {law: pipl, class: order, from: paid_at}
        fields:
          - name: sender
            data_categories: [user.unique_id]
            fides_meta: {references: [{dataset: s, field: people.id, direction: from}]}
            erasure: {party: sender}
          - name: sender_note
            data_categories: [user.content]
            erasure: {party: sender, retention: {class: none}}
          - name: receiver
            data_categories: [user.unique_id]
            fides_meta: {references: [{dataset: s, field: people.id, direction: from}]}
            erasure: {party: receiver}
          - name: memo
            data_categories: [user.content]
            erasure: {data_type: text, ownership: mention, mode: mask}
          - {name: paid_at, erasure: {data_type: timestamp, mode: keep, because: starts the retention period}}
      - name: gifts
        erasure: {store: {glob: "g/*.parquet"}, ownership: joint, mode: keep, because: a museum}
        fields:
          - name: giver
            data_categories: [user.unique_id]
            fides_meta: {references: [{dataset: s, field: people.id, direction: from}]}
            erasure: {party: giver}
          - name: taker
            data_categories: [user.unique_id]
            fides_meta: {references: [{dataset: s, field: people.id, direction: from}]}
            erasure: {party: taker}
      - name: homes
        erasure: {store: {glob: "h/*.parquet"}, ownership: shared, on_shared: unlink}
        fields:
          - {name: id, fides_meta: {primary_key: true}}
          - name: ring_name
            data_categories: [user.name]
            erasure: {ownership: mention, mode: mask, mask: {constant: "***"}}
          - name: ring_phone
            data_categories: [user.contact.phone_number]
            fides_meta: {identity: phone_number}
            erasure: {ownership: mention, mode: mask, mask: {constant: "***"}}
          - name: plate_phone
            data_categories: [user.contact.phone_number]
            fides_meta: {identity: phone_number}
            erasure: {ownership: mention, mode: keep, because: on the door}
"""


@pytest.fixture(scope="module")
def laws() -> Laws:
    return Laws.load(LAWS)


@pytest.fixture
def shop(tmp_path: Path) -> Catalog:
    return catalog(tmp_path, SHOP)


def catalog(folder: Path, text: str) -> Catalog:
    (folder / "c.yml").write_text(text, "utf-8")
    return read_catalog([folder / "c.yml"])


def traced(*rows: tuple[int, str, int, str, str]) -> pa.Table:
    """Traces of (subject, collection, position, edge, fields)."""
    names = ("subject", "collection", "position", "edge", "fields")
    rest = {"unit": "u", "hop": 1, "confidence": 1.0, "via": "x"}
    return pa.Table.from_pylist([{**dict(zip(names, row, strict=True)), **rest} for row in rows], schema=TRACE)


def planned(
    shop: Catalog,
    laws: Laws,
    traces: pa.Table,
    *,
    paid: Mapping[int, str] | None = None,
    bound: Mapping[int, Bound] | None = None,
) -> Plan:
    where = {"collection": "s/transfers", "unit": "u"}
    starts = [{**where, "position": p, "start": d} for p, d in (paid or {}).items()]
    memos = [
        {**where, "subject": t["subject"], "position": t["position"], "field": "memo", "text": "13900000000"}
        for t in traces.to_pylist()
        if "memo" in t["fields"].split(",")
    ]
    row = [("collection", pa.string()), ("unit", pa.string()), ("position", pa.int64())]
    found = Closure(
        traces,
        pa.table({"subject": [0], "kind": [shop.person_kind], "value": ["7"], "hop": [0]}),
        pa.Table.from_pylist(
            memos, schema=pa.schema([("subject", pa.int32()), *row, ("field", pa.string()), ("text", pa.string())])
        ),
        pa.Table.from_pylist(starts, schema=pa.schema([*row, ("start", pa.string())])),
    )
    return decide(shop, found, laws, FACTS, TODAY, bound=bound or {})


def test_a_hold_keeps_its_collection_whole_and_closed_counts_from_the_first_erasure(shop: Catalog, laws: Laws) -> None:
    traces = traced(
        (0, "s/people", 1, "owns", "id"), (1, "s/people", 2, "owns", "id"), (0, "s/logins", 3, "owns", "email")
    )
    kept = planned(shop, laws, traces, bound={0: Bound(held=frozenset(["s/people"]))}).fates
    assert fates_of(kept, 0, "s/people") == ("retain", "officer", "legal-hold", "order,legal_hold")
    assert fates_of(kept, 1, "s/people") == ("retain", "2029-11-24", "ecommerce-31", "order")
    assert fates_of(kept, 0, "s/logins")[0] != "retain"
    plan = planned(
        shop, laws, traces, bound={0: Bound(held=frozenset(["s/people"])), 1: Bound(closed=date(2023, 11, 23))}
    )
    assert fates_of(plan.fates, 1, "s/people")[0] != "retain"
    assert all(1 not in gone for gone in touched(shop, plan, "s/people")[1].values())  # what is held stays whole
    assert dict.fromkeys(drops(shop, plan, {"kyc": 5}).values()) == {frozenset(): None}  # with its key


def fates_of(fates: pd.DataFrame, subject: int, address: str) -> tuple[str, ...]:
    (row,) = fates[(fates["subject"] == subject) & (fates["collection"] == address)].to_dict("records")
    return tuple(str(row[name]) for name in ("fate", "until", "rule", "held"))


def fates(plan: Plan, address: str) -> list[str]:
    return list(plan.fates.loc[plan.fates["collection"] == address, "fate"])


def touched(shop: Catalog, plan: Plan, address: str) -> tuple[list[int], dict[str, list[int]], dict[str, list[int]]]:
    change = changes(shop, plan, address).get("u")
    if change is None:
        return [], {}, {}
    blanked = {name: one.positions.tolist() for name, one in change.blank.items()}
    return change.drop.tolist(), blanked, {n: one.positions.tolist() for n, one in change.redact.items()}


def changes(shop: Catalog, plan: Plan, address: str) -> dict[str, Change]:
    """What the store of one collection is told to do, by unit."""
    units = [Unit(name, 0, 0, 0, 0) for name in sorted(set(plan.fates["unit"]))]
    store = cast(Store, SimpleNamespace(name="s", collections=[shop.collection(address)]))
    work = orders(shop, plan, [store], {("s", unit.name): unit for unit in units})
    return {order.unit.name: change for order in work.get("s", ()) for change in order.changes}


def left(shop: Catalog, plan: Plan) -> list[tuple[int, str, int, str]]:
    found = standing(shop, plan.fates)
    return [tuple(row) for row in found[["subject", "collection", "position", "field"]].to_numpy().tolist()]


# ---------------------------------------------------------------- joint rows


def test_a_transfer_that_the_law_keeps_stays_and_only_what_the_law_does_not_need_goes(
    shop: Catalog, laws: Laws
) -> None:
    plan = planned(shop, laws, traced((0, "s/transfers", 1, "joint", "sender")), paid={1: "2026-10-01"})
    assert fates(plan, "s/transfers") == ["retain"]
    assert list(plan.fates["until"]) == ["2029-10-01"]
    assert touched(shop, plan, "s/transfers") == ([], {"sender_note": [1]}, {})
    assert left(shop, plan) == [(0, "s/transfers", 1, "sender")]


def test_of_an_old_transfer_only_the_leavers_columns_go(shop: Catalog, laws: Laws) -> None:
    plan = planned(shop, laws, traced((0, "s/transfers", 1, "joint", "sender")), paid={1: "2001-10-01"})
    assert touched(shop, plan, "s/transfers") == ([], {"sender": [1], "sender_note": [1]}, {})
    assert left(shop, plan) == []


def test_a_transfer_goes_when_both_who_made_it_leave(shop: Catalog, laws: Laws) -> None:
    both = traced((0, "s/transfers", 1, "joint", "sender"), (1, "s/transfers", 1, "joint", "receiver"))
    plan = planned(shop, laws, both, paid={1: "2001-10-01"})
    assert fates(plan, "s/transfers") == ["drop", "drop"]
    assert left(shop, plan) == []


def test_joint_rows_that_the_catalog_keeps_stay(shop: Catalog, laws: Laws) -> None:
    plan = planned(shop, laws, traced((0, "s/gifts", 1, "joint", "giver")))
    assert fates(plan, "s/gifts") == ["keep"]
    assert touched(shop, plan, "s/gifts") == ([], {}, {})


# ---------------------------------------------------------------- fields


def test_a_masked_mention_goes_whatever_becomes_of_its_row(shop: Catalog, laws: Laws) -> None:
    rows = traced(
        (0, "s/transfers", 1, "joint", "memo,sender"),
        (0, "s/homes", 2, "shares", "id,ring_phone"),
        (0, "s/homes", 3, "mentions", "plate_phone,ring_phone"),
        (0, "s/homes", 4, "mentions", "plate_phone"),
    )
    plan = planned(shop, laws, rows, paid={1: "2026-10-01"})
    assert fates(plan, "s/homes") == ["shared", "mask", "mention"]
    assert touched(shop, plan, "s/transfers") == ([], {"sender_note": [1]}, {"memo": [1]})
    assert touched(shop, plan, "s/homes") == ([], {"ring_name": [2, 3], "ring_phone": [2, 3]}, {})
    assert left(shop, plan) == [
        (0, "s/homes", 2, "id"),
        (0, "s/homes", 3, "plate_phone"),
        (0, "s/homes", 4, "plate_phone"),
        (0, "s/transfers", 1, "sender"),
    ]


def test_a_value_that_the_law_needs_keeps_its_row_and_its_key_and_the_rest_goes(shop: Catalog, laws: Laws) -> None:
    plan = planned(shop, laws, traced((0, "s/people", 1, "owns", "id,phone")))
    assert fates(plan, "s/people") == ["retain"]
    assert touched(shop, plan, "s/people") == ([], {"phone": [1], "guess": [1]}, {})
    (dying,) = drops(shop, plan, {"profile": 1, "kyc": 2}).values()
    assert dying == frozenset({1})
    assert left(shop, plan) == [(0, "s/people", 1, "id")]


def test_nothing_is_changed_in_a_row_that_may_be_somebody_elses(shop: Catalog, laws: Laws) -> None:
    plan = planned(shop, laws, traced((0, "s/people", 1, "uncertain", "guess")))
    assert fates(plan, "s/people") == ["uncertain"]
    assert touched(shop, plan, "s/people") == ([], {}, {})
    assert left(shop, plan) == [(0, "s/people", 1, "guess")]


def test_a_row_is_known_by_its_unit_and_its_position_however_large(shop: Catalog, laws: Laws) -> None:
    """SQLite's rowids go up to 2**63 - 1; the same position in another unit is another row."""
    last = 2**63 - 1
    rows = [(0, "s/people", position, "owns", "id") for position in (1, last, 1, last)]
    plan = planned(shop, laws, traced(*rows))
    told = plan.fates.sort_values("position", ignore_index=True)  # twice 1, twice the last
    told = told.assign(unit=["u", "v", "u", "v"], fate=["drop", "blank", "blank", "drop"], held="")
    plan = Plan(told, plan.texts, plan.facts, plan.digest)
    found = changes(shop, plan, "s/people")
    assert {unit: one.drop.tolist() for unit, one in found.items()} == {"u": [1], "v": [last]}
    assert [found[unit].blank["phone"].positions.tolist() for unit in ("u", "v")] == [[last], [1]]
    assert left(shop, plan) == [(0, "s/people", position, "id") for position in (last, 1)]


def test_the_canary_leaves_whole_whatever_modes_and_laws_say(shop: Catalog) -> None:
    rows = traced((0, "s/people", 1, "owns", "id"), (0, "s/gifts", 1, "joint", "giver"))
    none = pa.table({"subject": pa.array([], pa.int32())})
    plan = decide_canary(shop, Closure(rows, none, none, none))
    assert list(plan.fates["fate"]) == ["drop", "drop"]
    assert standing(shop, plan.fates).empty


# ---------------------------------------------------------------- where a person has to look


Row = tuple[str, int, dict[str, tuple[str, str]]]  # collection, position, field -> (kind, value)


def store(rows: Sequence[Row]) -> Probe:
    """A tiny store: rows whose values match and become facts."""

    def probe(question: Question) -> Iterator[Answer]:
        ids = [question.facts[name].to_pylist() for name in ("id", "kind", "value")]
        facts: dict[tuple[str, str], list[int]] = {}
        for number, kind, value in zip(*ids, strict=True):
            facts.setdefault((kind, value), []).append(number)
        for address, position, values in rows:
            where = {"collection": address, "unit": "u", "position": position}
            asked = question.fields.get(address, ())
            hits = [
                {**where, "field": f, "fact": n, "text": None}
                for f, fact in values.items()
                if f in asked
                for n in facts.get(fact, [])
            ]
            made = [{**where, "field": f, "kind": k, "value": v} for f, (k, v) in values.items()]
            if hits:
                yield Answer(pa.Table.from_pylist(hits, schema=HIT), pa.Table.from_pylist(made, schema=EMITTED))

    return probe


PHONE = ("phone_number", "+8613900000001")


def login(position: int, email: str) -> Row:
    return "s/logins", position, {"email": ("email", email), "phone": PHONE}


def account(shop: Catalog, number: int) -> Row:
    return "s/people", number, {"id": (shop.person_kind or "", str(number)), "phone": PHONE}


def walk(shop: Catalog, rows: Sequence[Row], *emails: str) -> Closure:
    people = tuple(Subject(str(n), (Identity("email", one),)) for n, one in enumerate(emails))
    return closure(shop, Cohort(people), store(rows))


def addresses(found: Closure) -> Iterable[str]:
    return found.traces["collection"].to_pylist()


def test_one_account_reached_by_a_phone_is_the_persons(shop: Catalog) -> None:
    found = walk(shop, [login(0, "a@b.cn"), account(shop, 1)], "a@b.cn")
    assert found.halts == ()
    assert "s/people" in addresses(found)


def test_two_accounts_reached_at_once_by_a_phone_wait_for_a_person(shop: Catalog) -> None:
    found = walk(shop, [login(0, "a@b.cn"), account(shop, 1), account(shop, 2)], "a@b.cn")
    assert found.halts == (Halt(0, "merge", "s/people"),)
    assert "s/people" not in addresses(found)


def test_two_people_who_own_one_phone_wait_for_a_person(shop: Catalog) -> None:
    found = walk(shop, [login(0, "a@b.cn"), login(1, "c@d.cn"), account(shop, 1)], "a@b.cn", "c@d.cn")
    assert {(h.subject, h.guard) for h in found.halts} == {(0, "merge"), (1, "merge")}
    assert "s/people" not in addresses(found)


@pytest.mark.parametrize(("policy", "reached"), [("apart", False), ("join", True)])
def test_where_the_catalog_decides_about_such_people_nobody_is_asked(
    policy: str, reached: bool, tmp_path: Path
) -> None:
    shop = catalog(tmp_path, SHOP.replace("guards: {", f"guards: {{merge: {policy}, "))
    for emails in (("a@b.cn",), ("a@b.cn", "c@d.cn")):
        rows = [*(login(n, one) for n, one in enumerate(emails)), account(shop, 1), account(shop, 2)]
        found = walk(shop, rows, *emails)
        assert found.halts == ()
        assert ("s/people" in addresses(found)) is reached


def test_a_row_reached_by_too_unsure_a_reference_is_listed_as_uncertain_and_leads_nowhere(shop: Catalog) -> None:
    kind = shop.person_kind or ""
    guessed: Row = ("s/people", 9, {"id": (kind, "9"), "guess": (kind, "1")})
    found = walk(shop, [login(0, "a@b.cn"), account(shop, 1), guessed], "a@b.cn")
    edges = {(t["collection"], t["position"]): t["edge"] for t in found.traces.to_pylist()}
    assert edges[("s/people", 9)] == "uncertain"
    assert edges[("s/people", 1)] == "owns"
    assert "9" not in found.facts["value"].to_pylist()


def test_the_other_number_of_a_call_is_a_strangers_and_stays() -> None:
    masked = Mask(constant="***")
    caller, callee, name = (
        Field(n, identity=k, mode=Mode.MASK, mask=masked, ownership=Ownership.MENTION, party=p)
        for n, k, p in (
            ("caller", "phone_number", "from"),
            ("callee", "phone_number", "to"),
            ("caller_name", None, "from"),
        )
    )
    fields = [caller, callee, name]
    assert _mentioned_by(caller, fields) == {"caller"}
    assert _mentioned_by(callee, fields) == {"callee"}
    assert _mentioned_by(name, fields) == {"caller_name", "caller"}
    alone = Field("note", mode=Mode.MASK, mask=masked, ownership=Ownership.MENTION)
    assert _mentioned_by(alone, [caller, callee, alone]) == {"note"}

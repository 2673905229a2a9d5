"""Rows that others use too: an officer sees what waits, decides with a ground, once, and not too late."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from process.shop import NOW, Shop, make
from test_cli_answers import conforms

from fangxin.data.errors import NotAllowed
from fangxin.data.keys.approval import Approval
from fangxin.data.keys.grant import Grant
from fangxin.flows import decisions, late
from fangxin.flows.ahead import look_again, look_ahead
from fangxin.flows.decisions import Asked
from fangxin.flows.desk import at_desk, machine, renamed, request_of
from fangxin.flows.estate import open_estate
from fangxin.flows.lifecycle import Request, State

HOME = """          - name: home
            fides_meta: {data_type: integer, references: [{dataset: wallet, field: homes.id, direction: to}]}
"""
HOMES = """      - name: homes
        erasure: {ownership: shared, on_shared: ask}
        fields:
          - {name: id, fides_meta: {primary_key: true, data_type: integer}}
          - {name: street, data_categories: [user.contact.address]}
"""
HOW = ("--collection", "wallet/homes", "--choice", "unlink", "--ground", "co-user")


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shop, str]]:
    """Two people live at one address; one of them leaves, and nobody may decide for the other."""
    shop = make(tmp_path_factory.mktemp("decisions") / "shop", number=6)
    catalog = shop.root / "catalog" / "c.yml"
    before, after = catalog.read_text("utf-8").split("      - name: coupons\n")
    catalog.write_text(f"{before}{HOME}      - name: coupons\n{after}{HOMES}", "utf-8")
    with closing(sqlite3.connect(shop.wallet)) as db, db:
        db.execute("CREATE TABLE homes (id INTEGER PRIMARY KEY, street TEXT)")
        db.execute("INSERT INTO homes VALUES (1, 'Lane 7, Building 3')")
        db.execute("ALTER TABLE accounts ADD COLUMN home INTEGER")
        db.execute("UPDATE accounts SET home = 1 WHERE id IN (5, 6)")
    was, os.environ["FANGXIN_HOME"] = os.environ.get("FANGXIN_HOME"), str(shop.home)
    yield shop, shop.ask("request", "open", "--identity", shop.phone(5), "--verified", "session")["closure"]
    os.environ.pop("FANGXIN_HOME") if was is None else os.environ.update(FANGXIN_HOME=was)


def decide(shop: Shop, closure: str, *officers: str, how: tuple[str, ...] = HOW) -> tuple[int, dict[str, Any]]:
    """Have it signed by these officers, and decide."""
    Path(shop.file("paper.json")).unlink(missing_ok=True)
    code, document = shop.run("request", "decide", closure, *how, "--out", shop.file("paper.json"))
    if not Path(shop.file("paper.json")).exists():
        return code, document
    assert code == 4  # nothing is decided by writing what is to be signed
    shop.sign("paper.json", *officers)
    files = [part for name in officers for part in ("--approval", shop.file(f"{name}.json"))]
    return shop.run("request", "decide", closure, *how, *files)


def test_an_officer_sees_what_waits_decides_it_once_and_the_plan_follows(waiting: tuple[Shop, str]) -> None:
    shop, closure = waiting
    assert shop.run("request", "plan", closure)[0] == 4
    assert "request decide" in shop.said
    listed = shop.ask("request", "decide")
    conforms("request-decide", listed)
    (one,) = listed["pending"]
    told = {"closure": closure, "collection": "wallet/homes", "reason": "shared", "rows": 1, "others": 1}
    assert one == told
    assert shop.ask("request", "decide", closure) == listed
    for code, wrong in (
        (3, ("--collection", "wallet/homes", "--choice", "unlink")),  # without a ground
        (3, ("--collection", "wallet/nowhere", *HOW[2:])),
        (3, (*HOW[:2], "--choice", "burn", *HOW[4:])),
        (3, (*HOW[:5], "13900000005 wei")),  # a ground is a code: it stays for good
    ):
        assert shop.run("request", "decide", closure, *wrong, "--out", shop.file("paper.json"))[0] == code
    assert decide(shop, closure, "dpo_1", how=("--collection", "wallet/coupons", *HOW[2:]))[0] == 4  # nothing to decide
    assert shop.run("request", "plan", closure)[0] == 4
    Path(shop.file("paper.json")).unlink()
    shop.run("request", "decide", closure, *HOW, "--out", shop.file("paper.json"))
    grant = Grant.parse(Path(shop.file("paper.json")).read_text("utf-8"))
    stranger = Approval.sign(grant, officer="dpo_1", key=Ed25519PrivateKey.generate(), now=NOW - timedelta(hours=2))
    Path(shop.file("stranger.json")).write_text(stranger.text(), "utf-8")
    assert shop.run("request", "decide", closure, *HOW, "--approval", shop.file("stranger.json"))[0] == 4
    assert shop.ask("request", "decide") == listed  # what was refused changed nothing
    code, document = decide(shop, closure, "dpo_1")
    conforms("request", document)
    assert (code, document["state"]) == (0, "preflight")
    assert shop.ask("request", "decide") == {"pending": []}
    code, _document = decide(shop, closure, "dpo_2", how=(*HOW[:3], "erase", *HOW[4:]))
    assert code == 4
    assert "decided before" in shop.said
    planned = shop.ask("request", "plan", closure, "--out", shop.file("plan.json"))
    (homes,) = [one for one in planned["collections"] if one["collection"] == "wallet/homes"]
    assert homes["fates"] == {"shared": 1}
    with at_desk(open_estate(shop.home, shop.root / "catalog", shop.now)) as desk:
        (event,) = [e for e in desk.closures.events(closure) if e["type"] == "decided"]
        known = {k: event["body"][k] for k in ("collection", "choice", "ground")}
        assert (event["actor"], known) == (
            "dpo_1",
            dict(zip(("collection", "choice", "ground"), HOW[1::2], strict=True)),
        )
        codes = [entry["code"] for _n, entry in desk.estate.ledger.entries() if entry["type"] == "exception"]
        assert codes == ["decided/unlink/co-user"]
        assert decisions.deciders([desk.closures.get(closure)]) == {"0": ["dpo_1"]}


@pytest.mark.drill
def test_the_certificate_names_who_decided_and_the_row_stays_for_the_other(waiting: tuple[Shop, str]) -> None:
    shop, closure = waiting
    if shop.ask("request", "status", closure)["state"] == "preflight":
        assert decide(shop, closure, "dpo_1")[0] == 0
        shop.ask("request", "plan", closure)
    Path(shop.file("whole.json")).unlink(missing_ok=True)
    shop.ask("request", "plan", closure, "--out", shop.file("whole.json"))
    shop.sign("whole.json", "dpo_2")
    shop.ask("request", "approve", closure, "--approval", shop.file("dpo_2.json"))
    for days in (1, 9):
        shop.now = NOW + timedelta(days=days)
        done = shop.ask("run-due")
    assert done["erased"] == [closure]
    issued = json.loads(Path(shop.ask("request", "status", closure)["certificate"]).read_bytes())
    assert issued["approvers"] == ["dpo_1"]
    assert [(one["collection"], one["rows"], one["others"]) for one in issued["shared"]] == [("homes", 1, 1)]
    with closing(sqlite3.connect(shop.wallet)) as db:
        assert db.execute("SELECT count(*) FROM homes").fetchone() == (1,)
        assert db.execute("SELECT home FROM accounts").fetchall() == [(None,)] * 4 + [(1,)]


def test_two_officers_decide_where_the_risk_is_high_and_nobody_about_their_own_account(
    waiting: tuple[Shop, str],
) -> None:
    shop, _closure = waiting
    opens = ("request", "open", "--identity", shop.phone(6), "--verified", "session")
    own = shop.ask(*opens, "--owner", "dpo_2")["closure"]
    assert decide(shop, own, "dpo_2")[0] == 4
    assert "own account" in shop.said
    shop.ask("request", "cancel", own)
    risky = shop.ask(*opens, "--risk", "new_device")["closure"]
    assert decide(shop, risky, "dpo_1")[0] == 4
    assert "two officers decide" in shop.said
    assert [one["closure"] for one in shop.ask("request", "decide", risky)["pending"]] == [risky]  # nothing is noted
    assert decide(shop, risky, "dpo_1", "dpo_2")[0] == 4
    assert "somebody may want to object" in shop.said  # an hour has to pass after the second one
    shop.now += timedelta(hours=1)
    shop.ask(
        "request", "decide", risky, *HOW, "--approval", shop.file("dpo_1.json"), "--approval", shop.file("dpo_2.json")
    )
    assert shop.ask("request", "decide", risky) == {"pending": []}
    shop.ask("request", "cancel", risky)


def test_who_shares_a_row_since_then_waits_and_the_others_of_that_night_go_on(waiting: tuple[Shop, str]) -> None:
    shop, _closure = waiting
    opens = [shop.ask("request", "open", "--identity", shop.phone(n), "--verified", "session") for n in (4, 6)]
    alone, shares = (one["closure"] for one in opens)
    shop.ask("request", "plan", alone)
    with at_desk(open_estate(shop.home, shop.root / "catalog", shop.now)) as desk:
        planned, unplanned = desk.closures.many([alone, shares])
        known = desk.opened(unplanned)
        sealed = desk.sealed(unplanned.ref, replace(known, facts=known.identities))
        plan, request = {"plan": planned.facts["plan"]}, renamed(request_of(unplanned))
        desk.write(unplanned, request, "planned", desk.now, by="system", facts=plan, sealed=sealed)
        for looks in (look_ahead, late.look, lambda desk, some: look_again(desk, some[1:])[1]):
            told = looks(desk, desk.closures.many([alone, shares]))
            assert list(told) == [shares]
            assert "wallet/homes: rows are shared" in told[shares]
        assert [one["type"] for one in desk.closures.events(alone)][-1] == "located_ahead"
    for name in (alone, shares):
        shop.ask("request", "cancel", name)


def test_nothing_is_decided_before_a_request_stands_or_once_it_cannot_be_undone(waiting: tuple[Shop, str]) -> None:
    shop, closure = waiting
    given, told = Asked("wallet/homes", "erase", "co-user"), dict[str, str]()
    with at_desk(open_estate(shop.home, shop.root / "catalog", shop.now)) as desk:
        there = desk.closures.get(closure)
        for state in State:
            request = machine(replace(Request(closure), state=state))
            facts = {**there.facts, "machine": request, "decisions": []}
            try:
                decisions.may(desk, replace(there, state=state.value, facts=facts), given)
            except NotAllowed as late:
                told[state.value] = late.message
    before = {"submitted", "preflight", "review", "sealing", "cooling", "ready"}
    assert told.keys() == {state.value for state in State} - before
    assert all("too late" in words for words in told.values())

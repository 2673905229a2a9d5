"""Every move is told by every verified channel, at least once, to nobody's harm; then the addresses are destroyed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from keys.vaults import in_child
from process.front import END, PERSON, Front, Post, gateway, post

from fangxin.data.closures.outbox import Outbox
from fangxin.data.errors import InputError
from fangxin.data.keys.domains import CONTACT, REQUEST
from fangxin.data.keys.faults import KeyAbsent
from fangxin.flows.channels import Channels, Mail
from fangxin.flows.delivery import deliver, shred
from fangxin.flows.desk import FORGET, renamed, request_of
from fangxin.flows.lifecycle import TABLE, Hold
from fangxin.flows.notices import SILENT, TOLD, templates

OLD, NEW = "li.wei@old.example", "li.wei@example.com"
CHANNELS = (("mail", NEW), ("mail", OLD), ("sms", "+8613900000005"))


@pytest.fixture
def reached(tmp_path: Path) -> Iterator[tuple[Front, Post, list[dict[str, str]]]]:
    """A home that can reach people by mail and by text message."""
    with post() as (box, mail), gateway() as (got, url):
        front = Front.make(tmp_path / "home")
        (front.root / "token").write_text("t", "utf-8")
        front.reach(mail=mail, sms={"url": url, "token_file": "token"}, officers={"mail": "desk@lecard.example"})
        yield front, box, got


def sent(front: Front) -> Any:  # Any: Delivered
    with front.desk() as desk:
        return deliver(desk, Channels.load(front.root))


def test_every_move_is_told_or_has_a_reason_why_nobody_is() -> None:
    moves = {move.event for move in TABLE}
    assert moves <= TOLD.keys() | SILENT.keys()
    assert not TOLD.keys() & SILENT.keys()
    assert set(TOLD.values()) | {"kept", "held_part", "ticket_late"} == set(templates())


@pytest.mark.scenario("S21", "S43")
def test_every_channel_hears_every_move_and_afterwards_no_address_is_left(
    reached: tuple[Front, Post, list[dict[str, str]]],
) -> None:
    front, box, got = reached
    name, _receipt = front.opened(*CHANNELS)
    heard = []
    for move in ("", *END):
        if move:
            front.go(name, move)
        before, delivered = len(got), sent(front)
        mails, texts = box.taken(), got[before:]
        told = {subject for _to, _id, subject, _body in mails}
        assert (delivered.sent, len(mails), len(texts)) in ((0, 0, 0), (3, 2, 1)), move
        assert {to for to, *_ in mails} in (set(), {OLD, NEW})  # takeover: the old address hears of it too
        assert len({number for _to, number, *_ in mails}) == len(mails)
        for words in (*(s + b for _to, _id, s, b in mails), *(t["text"] for t in texts)):
            assert not any(value.removeprefix("+86") in words for _kind, value in PERSON)
            assert "http" not in words
        heard += sorted(told)
    assert heard == ["已收到注销申请", "注销申请审核中", "注销申请已审核", "账户已封存", "开始删除", "数据已删除"]
    with front.desk() as desk:
        closure = desk.closures.get(name)
        ref = closure.ref
        assert shred(desk) == []  # what is known of the person is not forgotten before their erasure has ended
    front.forget(name)
    with front.desk() as desk:
        assert (name, FORGET) in desk.closures.due(desk.now)
        assert shred(desk) == [name]
        assert shred(desk) == []
        for domain in (CONTACT, REQUEST):
            with pytest.raises(KeyAbsent):
                desk.estate.tree.get(ref, domain)
        closure = desk.closures.get(name)
        assert (closure.facts["channels"], closure.sealed) == ([], None)
        assert desk.closures.events(name)[-1]["type"] == "addresses_destroyed"
        with desk.closures.engine.connect() as db:
            assert db.exec_driver_sql("SELECT count(*) FROM outbox WHERE sealed IS NOT NULL").scalar() == 0


@pytest.mark.parametrize("place", ["before it is sent", "after it is sent"])
def test_killed_between_the_writing_and_the_sending_it_is_sent_by_the_next_run_under_the_same_name(
    reached: tuple[Front, Post, list[dict[str, str]]], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    front, box, _got = reached
    front.opened(("mail", NEW))

    def kill(*_: object) -> None:
        os.kill(os.getpid(), 9)

    def work() -> None:
        if place == "before it is sent":
            monkeypatch.setattr(Mail, "send", kill)
        else:
            monkeypatch.setattr(Outbox, "done", kill)
        sent(front)

    assert os.WIFSIGNALED(os.waitpid(in_child(work), 0)[1])
    first = box.taken()
    assert len(first) == (place == "after it is sent")
    assert sent(front).sent == 0  # whoever died holds it until the lease is over
    front.later(minutes=3)
    assert sent(front).sent == 1
    ((_to, number, subject, _body),) = box.taken()
    assert {number} >= {n for _t, n, *_ in first}  # the same Message-ID: a mailbox shows it once
    assert subject == "已收到注销申请"
    front.later(hours=1)
    assert sent(front).sent == 0


def test_what_is_refused_for_good_is_told_once_and_what_is_put_off_is_tried_for_days(
    reached: tuple[Front, Post, list[dict[str, str]]],
) -> None:
    front, box, _got = reached
    name, receipt = front.opened(("mail", NEW), locale="en")
    box.answers = ["451 later"] * 9  # a mail server that is away for a night and more
    for _ in range(24):
        front.later(hours=12)
        sent(front)
    assert [subject for _to, _id, subject, _body in box.taken()] == ["Closure request received"]
    front.go(name, "verify")
    front.go(name, "plan", high_risk=True)
    box.answers = ["550 no such user"]
    for why in ("a notice cannot be delivered by one of its channels", "two officers have to sign its plan"):
        code, done = front.run("run-due")
        assert (code, done["waiting"]) == (2, [{"closure": name, "why": why}])
    status = front.run("request", "status", "--receipt", receipt)[1]
    assert (status["told_by"], status["notices"]) == (["mail"], {"waiting": 0, "undelivered": 1})


def test_a_request_that_came_to_nothing_is_forgotten_as_well(reached: tuple[Front, Post, list[dict[str, str]]]) -> None:
    front, box, _got = reached
    name, receipt = front.opened(("mail", NEW))
    front.go(name, "verify", "cancel")
    box.answers = ["451 later"] * 99
    assert front.run("run-due")[1]["forgotten"] == []  # the last notice is not out
    front.later(days=29)
    assert front.run("run-due")[1]["forgotten"] == []
    front.later(days=1, seconds=1)  # thirty days after the end no address is kept, delivered or not
    assert front.run("run-due")[1]["forgotten"] == [name]
    status = front.run("request", "status", "--receipt", receipt)[1]
    assert (status["state"], status["told_by"], status["notices"]["waiting"]) == ("cancelled", [], 0)
    with front.desk() as desk, desk.closures.engine.connect() as db:
        assert db.exec_driver_sql("SELECT count(*) FROM outbox WHERE sealed IS NOT NULL").scalar() == 0


def test_a_hold_that_a_law_forbids_to_tell_of_is_not_told_and_a_delay_is_told_once(
    reached: tuple[Front, Post, list[dict[str, str]]],
) -> None:
    front, box, _got = reached
    name, _receipt = front.opened(("mail", NEW))
    front.go(name, *END[:8])
    with front.desk() as desk:
        request = request_of(desk.closures.get(name))
        for body in ({"alarms": [["done", 50]]}, {"alarms": [["done", 100]]}):
            closure = desk.closures.get(name)
            desk.write(closure, renamed(request_of(closure)), "alarm", desk.now, by="system", body=body)
        assert request.state == "destroying"
    for _ in range(3):
        front.go(name, "stall")
        front.go(name, "resume")
    sent(front)
    subjects = [subject for _to, _id, subject, _body in box.taken()]
    assert subjects.count("超过承诺的时间") == 1
    assert subjects.count("删除延迟") == 1
    held, receipt = front.opened(("mail", NEW))
    front.go(held, *END[:5])
    for untold in (True, False):
        with front.desk() as desk:
            closure = desk.closures.get(held)
            kept = replace(renamed(request_of(closure)), hold=Hold.ALL)
            told = {"by": "dpo_1", "untold": untold, "facts": {"untold": untold}}
            desk.write(closure, kept, "hold", desk.now, **told)  # type: ignore[arg-type]  # as the hold does
        sent(front)
        assert ("删除暂缓" in [subject for _to, _id, subject, _body in box.taken()]) is not untold
        seen = front.run("request", "status", "--receipt", receipt)[1]["hold"]
        assert (seen, front.run("request", "status", held)[1]["hold"]) == ("none" if untold else "all", "all")


def test_what_a_law_keeps_is_told_as_such(reached: tuple[Front, Post, list[dict[str, str]]]) -> None:
    front, box, _got = reached
    name, receipt = front.opened(("mail", NEW), locale="en")
    front.go(name, *END[:-1])
    front.go(name, "clean", kept=True)
    sent(front)
    subjects = [subject for _to, _id, subject, _body in box.taken()]
    assert len(subjects) == 6
    assert subjects[-2:] == ["Erasure has begun", "Data erased, some kept by law"]  # in the order of the moves
    assert front.run("request", "status", "--receipt", receipt)[1]["says"]["en"].startswith("Finished. What a law")


def test_a_home_s_channels_are_read_strictly(tmp_path: Path) -> None:
    front = Front.make(tmp_path / "home")
    assert Channels.load(front.root) == Channels({})
    for known, said in (
        ({"pigeon": {"port": 1}}, "unknown channel"),
        ({"mail": {"host": "h", "port": 25, "sender": "s"}}, "domain: missing"),
        ({"mail": {"host": "h", "port": 25, "sender": "s", "domain": "d", "colour": "x"}}, "colour: unknown"),
        ({"mail": {"host": "h", "port": "25", "sender": "s", "domain": "d"}}, "port as a number"),
        ({"sms": {"url": "https://sms.example.com", "token_file": "nowhere"}}, "cannot be read"),
    ):
        front.reach(**known)  # type: ignore[arg-type]  # wrong on purpose
        with pytest.raises(InputError, match=said):
            Channels.load(front.root)

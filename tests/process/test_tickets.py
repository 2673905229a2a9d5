"""Questions under a receipt code: answered in time or on record for ever, also after the end, and without a name."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from process.front import END, NOW, PERSON, Front, post
from test_cli_answers import conforms

import fangxin.data
from fangxin.data.catalog.calendar import Calendar
from fangxin.data.closures.tickets import Tickets
from fangxin.data.errors import InputError
from fangxin.data.keys.domains import TICKET
from fangxin.data.keys.faults import KeyAbsent
from fangxin.flows.channels import Channels
from fangxin.flows.delivery import deliver
from fangxin.flows.support import Support, in_working_hours
from fangxin.flows.tickets import forget, look_after

DATA = Path(fangxin.data.__file__).parent
CALENDAR = Calendar.load(DATA / "calendars", "cn")
WORK = (time(9), time(18))
SHANGHAI = ZoneInfo("Asia/Shanghai")


@pytest.fixture
def front(tmp_path: Path) -> Front:
    return Front.make(tmp_path / "home")


def ask(front: Front, receipt: str, *more: str, category: str = "refund", words: str = "少退了5元") -> tuple[int, dict]:
    (front.root / "code").write_text(receipt, "utf-8")
    argv = ["ticket", "open", "--receipt", f"@{front.root / 'code'}", "--category", category]
    return front.run(*argv, "--text", front.text(words), *more)


@pytest.mark.scenario("S42")
def test_a_question_is_answered_in_time_and_both_sides_see_what_is_theirs(front: Front) -> None:
    _name, receipt = front.opened()
    code, made = ask(front, receipt)
    conforms("ticket", made)
    assert (code, made["state"], made["first_answer_by"]) == (0, "open", "2026-11-25T16:00:00Z")  # one working day
    front.later(hours=20)
    code, answered = front.run("ticket", "answer", made["ticket"], "--text", front.text("已补退5元"))
    conforms("ticket", answered)
    assert (code, answered["state"], answered["breached"]) == (0, "answered", False)
    shown = front.run("ticket", "show", made["ticket"], "--receipt", receipt)[1]
    conforms("ticket", shown)
    assert [(w["role"], w["text"]) for w in shown["said"]] == [("web", "少退了5元"), ("officer", "已补退5元")]
    heard = front.run("ticket", "show", made["ticket"], "--receipt", receipt, "--as", "phone")[1]
    assert {w["text"] for w in heard["said"]} == {None}  # an agent on the phone sees states and dates
    assert front.run("ticket", "show", made["ticket"], "--as", "officer")[1]["said"] == shown["said"]
    listed = front.run("ticket", "list", "--receipt", receipt)[1]
    conforms("ticket-list", listed)
    assert [t["ticket"] for t in listed["tickets"]] == [made["ticket"]]
    assert front.run("ticket", "list", "--open")[1]["tickets"] == []
    other = ask(front, receipt)[1]["ticket"]
    for role in ("phone", "officer"):  # no clock is stopped by whoever it runs against
        assert front.run("ticket", "close", other, "--receipt", receipt, "--as", role)[0] == 4
    front.run("ticket", "close", other, "--receipt", receipt)
    assert front.run("ticket", "close", made["ticket"], "--receipt", receipt)[1]["state"] == "closed"
    assert front.run("ticket", "answer", made["ticket"], "--text", front.text("x"))[0] == 4


@pytest.mark.scenario("S43")
def test_what_is_wrong_is_refused_and_nothing_is_kept(front: Front) -> None:
    _name, receipt = front.opened()
    other = front.opened()[1]
    code, made = ask(front, receipt, words="我的身份证11010519491231002X，手机13900000005")
    assert (code, made) == (3, {})
    assert "身份证号 1 处" in front.said
    assert "1 ID number, 1 phone number" in front.said
    assert "13900000005" not in front.said
    code, made = ask(front, receipt, "--mask", words="我的身份证11010519491231002X，手机13900000005")
    assert (code, made["masked"]) == (0, {"cn_resident_id": 1, "phone_number": 1})
    said = front.run("ticket", "show", made["ticket"], "--receipt", receipt)[1]["said"][0]["text"]
    assert said == "我的身份证〔身份证号〕，手机〔电话号码〕"
    assert front.run("ticket", "answer", made["ticket"], "--text", front.text("call 13900000005"))[0] == 3
    for argv, expected in (
        (["show", made["ticket"], "--receipt", other], 3),  # somebody else's code: as if there were no such ticket
        (["show", "t-nobody", "--receipt", other], 3),
        (["show", made["ticket"]], 3),
        (["show", made["ticket"], "--as", "king"], 3),
        (["open", "--receipt", receipt, "--category", "refund", "--text", "said on the line"], 3),
        (["open", "--receipt", receipt, "--category", "weather", "--text", front.text("?")], 3),
        (["open", "--receipt", receipt, "--category", "refund", "--text", front.text("x" * 4097)], 3),
        (["open", "--receipt", receipt, "--category", "refund", "--text", front.text(" ")], 3),
        (["open", "--receipt", receipt, "--category", "refund", "--text", front.text("?"), "--as", "officer"], 4),
    ):
        assert front.run("ticket", *argv) == (expected, {}), argv
    said_of_other = [front.run("ticket", "show", t, "--receipt", other) and front.said for t in (made["ticket"], "t-x")]
    assert said_of_other[0].replace(made["ticket"], "T") == said_of_other[1].replace("t-x", "T")
    for _ in range(4):
        assert ask(front, receipt)[0] == 0
    assert ask(front, receipt)[0] == 4  # five a day
    assert len(front.run("ticket", "list")[1]["tickets"]) == 5
    assert ask(front, other)[0] == 0


@pytest.mark.scenario("S30", "S42")
def test_alarms_are_told_once_each_and_a_breach_stays_when_it_is_answered_late(front: Front) -> None:
    _name, receipt = front.opened()
    made = ask(front, receipt)[1]
    with post() as (box, mail):
        front.reach(mail=mail, officers={"mail": "desk@lecard.example"})
        heard = []
        for hours in (19, 1, 11, 1, 6, 1, 5):  # 39 hours from 09:00 to the end of the next working day
            front.later(hours=hours)
            with front.desk() as desk:
                heard.append([a.percent for a in look_after(desk, Channels.load(front.root))])
                deliver(desk, Channels.load(front.root))
        assert heard == [[], [50], [], [80], [], [100], []]
        mails = box.taken()
    assert {to for to, *_ in mails} == {"desk@lecard.example"}
    assert len({number for _to, number, *_ in mails}) == 2  # at 80 and at 100 %
    assert made["ticket"] not in "".join(body for *_, body in mails)
    late = front.run("ticket", "answer", made["ticket"], "--text", front.text("抱歉"))[1]
    assert (late["state"], late["breached"]) == ("answered", True)
    front.later(days=400)
    with front.desk() as desk:
        look_after(desk, Channels.load(front.root))
    front.later(days=31)
    with front.desk() as desk:
        look_after(desk, Channels.load(front.root))
    (row,) = front.run("ticket", "list")[1]["tickets"]
    assert (row["state"], row["breached"], bool(row["forgotten"])) == ("closed", True, True)
    assert {c["name"]: c["breached"] for c in front.run("report", "sla")[1]["clocks"]}["first_answer"] == 1


@pytest.mark.scenario("S43")
def test_a_ticket_outlives_its_account_and_its_texts_die_on_their_day(front: Front) -> None:
    name, receipt = front.opened()
    front.go(name, *END[:5])
    closed, waits = (ask(front, receipt, words=words)[1]["ticket"] for words in ("我是李伟", "导出打不开"))
    front.run("ticket", "close", closed, "--receipt", receipt)
    front.go(name, *END[5:])
    front.forget(name)
    with front.desk() as desk:  # as the end of an erasure does with what is closed by then
        forget(desk, [t for t in Tickets(desk.closures.engine).known()])
    later = ask(front, receipt, "--lang", "en", category="dispute", words="I dispute this")[1]["ticket"]
    front.run("ticket", "answer", later, "--text", front.text("We looked again."))
    rows = {t["ticket"]: t for t in front.run("ticket", "list", "--receipt", receipt)[1]["tickets"]}
    assert [bool(rows[t]["forgotten"]) for t in (closed, waits, later)] == [True, False, False]
    shown = front.run("ticket", "show", closed, "--receipt", receipt)[1]
    assert [w["text"] for w in shown["said"]] == [None]
    assert front.run("ticket", "show", waits, "--receipt", receipt)[1]["said"][0]["text"] == "导出打不开"
    with front.desk() as desk:
        for one in Tickets(desk.closures.engine).all():
            if one.id == closed:
                with pytest.raises(KeyAbsent):
                    desk.estate.tree.get(one.ref, TICKET)
    for days in (14, 30):  # answered and quiet, then closed for thirty days
        front.later(days=days)
        with front.desk() as desk:
            look_after(desk, Channels.load(front.root))
    shown = front.run("ticket", "show", later, "--receipt", receipt)[1]
    assert ([w["text"] for w in shown["said"]], shown["breached"]) == ([None, None], False)
    body = b"".join(p.read_bytes() for p in front.root.glob("closures.db*"))
    assert not any(v.removeprefix("+86").encode() in body for _k, v in PERSON)
    assert "李伟".encode() not in body


# ---------------------------------------------------------------- clocks of support

SPOTS = [
    # a Tuesday morning; Friday evening; before work; a Saturday that is worked; into the Spring Festival and out of it
    ("2026-11-24T10:00", "2026-11-24T14:00"),
    ("2026-11-27T17:00", "2026-11-30T12:00"),
    ("2026-11-24T07:00", "2026-11-24T13:00"),
    ("2026-02-28T16:00", "2026-03-02T11:00"),
    ("2026-02-14T15:00", "2026-02-24T10:00"),
    ("2026-10-01T00:05", "2026-10-08T13:00"),
]


@pytest.mark.parametrize(("start", "end"), SPOTS)
def test_four_working_hours_are_counted_on_working_days_only(start: str, end: str) -> None:
    begins, ends = (datetime.fromisoformat(one).replace(tzinfo=SHANGHAI).astimezone(UTC) for one in (start, end))
    assert in_working_hours(CALENDAR, WORK, begins, timedelta(hours=4)) == (ends, False)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 60 * 24 * 330), st.integers(1, 30))
def test_hours_are_the_minutes_that_are_worked_one_by_one(minutes: int, hours: int) -> None:
    start = datetime(2026, 1, 1, tzinfo=SHANGHAI).astimezone(UTC) + timedelta(minutes=minutes)
    at, left, worked = start.astimezone(SHANGHAI), hours * 60, {}
    while left:
        day = at.date()
        works = worked.setdefault(day, CALENDAR.works(day))
        left -= works and WORK[0] <= at.time() < WORK[1]
        at += timedelta(minutes=1)
    assert in_working_hours(CALENDAR, WORK, start, timedelta(hours=hours))[0] == at.astimezone(UTC)


def test_beyond_the_published_years_the_date_is_provisional_and_a_lost_restore_code_has_four_hours() -> None:
    support = Support.load(DATA / "support" / "lecard.toml")
    assert support.categories["lost_code"].working_hours == 4
    assert set(support.categories) >= {"export_failed", "dispute", "refund", "lost_code", "appeal"}
    at, provisional = in_working_hours(CALENDAR, WORK, datetime(2027, 3, 1, 2, tzinfo=UTC), timedelta(hours=4))
    assert (at.astimezone(SHANGHAI).date(), provisional) == (date(2027, 3, 1), True)
    assert NOW.tzinfo is UTC


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("version = 1", "version = 0", "version: expected"),
        ("hours = [09:00:00, 18:00:00]", "hours = [18:00:00, 09:00:00]", "the first one earlier"),
        ("keep_days = 30", "keep = 30", "unknown key keep|missing key keep_days"),
        ("{working_hours = 4}", "{days = 4}", "first_answer: expected"),
        ('en = "A question"', 'fr = "Une question"', "category.question: expected"),
        ("version = 1", "version = ", "not TOML"),
    ],
)
def test_a_wrong_support_file_is_refused_with_its_key(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "support.toml"
    path.write_text((DATA / "support" / "lecard.toml").read_text("utf-8").replace(old, new, 1), "utf-8")
    with pytest.raises(InputError, match=said):
        Support.load(path)

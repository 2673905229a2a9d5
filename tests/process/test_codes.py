"""Nobody tries restore codes for long: five wrong ones lock a closing for an hour, and other ways stay open."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from process.conftest import server
from process.front import END, Front, post
from process.postgres import database
from test_cli_answers import conforms

from fangxin.data.errors import NotAllowed
from fangxin.data.keys.seal import new_code
from fangxin.flows import codes
from fangxin.flows.channels import Channels
from fangxin.flows.delivery import deliver

__all__ = ["server"]


@pytest.fixture(params=["sqlite", "postgresql"])
def front(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Front:
    if request.param == "postgresql":
        monkeypatch.setenv("FANGXIN_CLOSURES", database(request.getfixturevalue("server")))
    return Front.make(tmp_path / "home")


@pytest.mark.scenario("S41")
def test_five_wrong_codes_lock_it_for_an_hour_and_every_channel_hears_of_it(front: Front) -> None:
    with post() as (box, mail):
        front.reach(mail=mail)
        name, receipt = front.opened(("mail", "li.wei@example.com"), ("mail", "wei.li@old.example"), locale="en")
        front.go(name, *END[:5])
        restore = ["request", "restore", name, "--code"]
        for left in (4, 3, 2):
            assert front.run(*restore, new_code()[0])[0] == 4
            assert f"{left} more" in front.said
        assert front.run(*restore, f"{front.code[:-1]}{'Z' if front.code[-1] != 'Z' else 'Y'}")[0] == 3  # mistyped
        assert front.run(*restore, receipt)[0] == 3  # the other code never passes in this field
        assert front.run("request", "status", "--receipt", front.code)[0] == 3  # nor this one in the other
        conforms("request", status := front.run("request", "status", "--receipt", receipt)[1])
        assert status["restore_code"]["tries_left"] == 2
        assert front.run("request", "waive", name, "--code", new_code()[0])[0] == 4  # the same tries
        assert front.run(*restore, new_code()[0])[0] == 4
        assert "wrong 5 times" in front.said
        ends = front.now + timedelta(hours=1)
        for verb in ("restore", "waive"):
            front.later(minutes=29)
            assert front.run("request", verb, name, "--code", front.code)[0] == 4  # the right one comes too early
            assert f"{ends:%Y-%m-%dT%H:%M:%SZ}" in front.said
            assert "two officers" in front.said
        status = front.run("request", "status", "--receipt", receipt)[1]
        assert status["restore_code"] == {"tries_left": 0, "locked_until": f"{ends:%Y-%m-%dT%H:%M:%SZ}"}
        with front.desk() as desk:
            deliver(desk, Channels.load(front.root))
            history = desk.closures.events(name)
            events = [one["type"] for one in history]
            (tag,) = [e["tag"] for one in history if one["type"] == "code_locked" for e in one["body"]["entries"]]
            assert desk.estate.ledger.find([tag])[tag][1]["code"] == "restore_code_locked"
        told = [to for to, _id, subject, _body in box.taken() if subject == "Wrong restore codes"]
    assert sorted(told) == ["li.wei@example.com", "wei.li@old.example"]
    assert (events.count("code_tried"), events.count("code_locked")) == (5, 1)
    front.now = ends
    assert front.run("request", "status", name)[1]["restore_code"] == {"tries_left": 5, "locked_until": None}
    assert front.run(*restore, front.code)[1]["state"] == "restored"
    assert front.run("request", "status", name)[1]["restore_code"] is None


def test_tries_at_the_same_time_count_one_by_one(front: Front) -> None:
    """Sixteen at once: no more than five are compared, and each answer that is not a refusal of its own is a crash."""
    name, _receipt = front.opened()
    front.go(name, *END[:5])

    def tries(_n: int) -> str:
        with front.desk() as desk:
            try:
                codes.proved(desk, desk.closures.get(name), new_code()[0])
            except NotAllowed as error:
                return error.message
        return "opened"

    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(tries, range(16)))
    compared = [one for one in said if "not the one" in one or "wrong 5 times" in one]
    assert "opened" not in said
    assert len(compared) >= 1
    with front.desk() as desk:
        closure = desk.closures.get(name)
        events = [one["type"] for one in desk.closures.events(name)]
        assert events.count("code_tried") <= codes.WRONG
        wrong, until = codes.standing(closure)
        assert (wrong, until is not None) == (events.count("code_tried"), wrong == codes.WRONG)

"""Consumers: what is wrong with `consumers.toml` is said first; then each hears all of it, in order, nobody by name."""

from __future__ import annotations

import base64
import hmac
import json
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from process.front import END, NOW, PERSON, Front, listener
from process.shop import CATALOG
from test_cli_answers import conforms

from fangxin.checks.residue.patterns import needles_for
from fangxin.checks.residue.results import Result, classes
from fangxin.checks.residue.scan import scan, walk
from fangxin.data.closures.outbox import Refused, Row
from fangxin.data.errors import InputError
from fangxin.data.vocabulary import Identity
from fangxin.flows import consumers
from fangxin.flows.channels import Lookup, public
from fangxin.flows.closing import approved
from fangxin.flows.consumers import ERASE, KIND, Consumer, counted, load
from fangxin.flows.desk import renamed, request_of
from fangxin.flows.lifecycle import Event

GOOD = '[events]\nurl = "https://events.example.com/x"\nsecret_file = "secret"\n'
WRONG = {
    "no TOML": ("[events", "not TOML"),
    "no table": ('events = "x"', "expected a table"),
    "a key missing": ('[events]\nurl = "https://a.example"', "missing key secret_file"),
    "a key too many": (GOOD + "retries = 3", "unknown key retries"),
    "no patience": (GOOD + "timeout = 0", "timeout: expected seconds"),
    "in clear": (GOOD.replace("https", "http"), "is https"),
    "on this machine, in earnest": (GOOD.replace("https://events.example.com", "http://127.0.0.1"), "is https"),
    "no secret": (GOOD.replace('"secret"', '"other"'), "cannot be read"),
    "a short secret": (GOOD.replace('"secret"', '"short"'), "24 to 64 bytes"),
    "no such port": (GOOD.replace("example.com/", "example.com:99999/"), "is https"),
    "a blank in its name": (GOOD.replace("events.example", "eve nts.example"), "is https"),
    "inside, and nobody said so": (GOOD.replace("events.example.com", "10.0.0.7"), "inside = true"),
    "this machine, and nobody said so": (GOOD.replace("events.example.com", "localhost"), "inside = true"),
    "inside by a word": (GOOD + 'inside = "yes"', "true or false"),
}


def read(folder: Path, text: str, *, rehearsal: bool = False) -> Any:  # Any: consumers by name
    (folder / "consumers.toml").write_text(text, "utf-8")
    (folder / "secret").write_text("whsec_" + "QUJD" * 8, "utf-8")
    (folder / "short").write_text("whsec_QUJD", "utf-8")
    return load(folder / "consumers.toml", rehearsal=rehearsal)


SECRET = b"thirty-two bytes that both know."
ACCOUNT = "8800000005"
HASH = hmac.digest(hmac.digest(SECRET, b"fangxin/consumers/1", "sha256"), ACCOUNT.encode(), "sha256").hex()


@pytest.mark.parametrize("name", WRONG)
def test_a_consumer_that_could_not_be_told_is_refused(tmp_path: Path, name: str) -> None:
    text, said = WRONG[name]
    with pytest.raises(InputError, match=said):
        read(tmp_path, text)


def test_a_consumer_is_known_by_its_name_and_its_secret_never_shows(tmp_path: Path) -> None:
    (found,) = read(tmp_path, GOOD).values()
    assert (found.name, found.timeout) == ("events", 20.0)
    assert "QUJD" not in repr(found)
    assert "ABC" not in repr(found)
    assert read(tmp_path, GOOD.replace("https://events.example.com", "http://127.0.0.1"), rehearsal=True)
    (tmp_path / "consumers.toml").unlink()
    assert load(tmp_path / "consumers.toml", rehearsal=False) == {}


# ---------------------------------------------------------------- what they hear, and when


@pytest.fixture
def front(tmp_path: Path) -> Front:
    """A home whose catalog says that events of the wallet go to a consumer."""
    made = Front.make(tmp_path / "home")
    there = CATALOG.replace("erasure: {store:", "erasure: {processors: [events], store:")
    (made.root / "catalog" / "c.yml").write_text(there, "utf-8")
    (made.root / "events.secret").write_text(f"whsec_{base64.b64encode(SECRET).decode()}\n", "utf-8")
    return made


def reaches(front: Front, url: str = "http://127.0.0.1:9/", name: str = "events") -> None:
    """Where the consumer listens; nobody does on port 9."""
    (front.root / "consumers.toml").write_text(f'[{name}]\nurl = "{url}"\nsecret_file = "events.secret"\n', "utf-8")


def closing(front: Front) -> str:
    """A closing that was approved: the consumer is to be told to stop."""
    name, _receipt = front.opened()
    front.go(name, "verify", "plan")
    with front.desk() as desk:
        closure = desk.closures.get(name)
        known = desk.opened(closure)
        facts = (*known.facts, (desk.estate.catalog.person_kind or "", ACCOUNT))
        plan = {**closure.facts["plan"], "rows": {"wallet/accounts": {"drop": 1}}}
        desk.write(
            closure, renamed(request_of(closure)), "found", desk.now, by="system", facts={"plan": plan},
            sealed=desk.sealed(closure.ref, replace(known, facts=facts)),
        )  # fmt: skip
    front.go(name, "sign")
    with front.desk() as desk:
        approved(desk, desk.closures.get(name), {"plan": "0" * 64, "by": "timer"})
    front.go(name, "seal")
    return name


def erasing(front: Front, name: str) -> dict[str, Any]:  # Any: as a certificate has it
    """The run that erases somebody, up to what their certificate says of consumers, and the forgetting."""
    front.go(name, "end_regret", "locate_again")
    with front.desk() as desk:
        closure = desk.closures.get(name)
        told = consumers.messages(desk, closure, ERASE, desk.outbox.history(name, KIND))
        desk.take(closure, Event("begin"), desk.now, messages=told)
    front.run("run-due")
    with front.desk() as desk:
        said = dict(counted(desk, [desk.closures.get(name)]))
    front.go(name, *END[-4:])
    front.forget(name)
    return said.get("0", {})  # type: ignore[return-value]  # Any


def stands(front: Front, name: str) -> list[tuple[str, str | None, bool]]:
    """Each row of the outbox in its order: the event, how it ended, and whether it holds hashes still."""
    with front.desk() as desk, desk.closures.engine.connect() as db:
        rows = db.exec_driver_sql("SELECT body, answer, sealed FROM outbox WHERE kind = 'consumer' ORDER BY turn").all()
    return [(json.loads(body)["event"], answer, sealed is not None) for body, answer, sealed in rows]


def said(front: Front, name: str) -> tuple[str | None, str | None, str, str] | None:
    """What the status tells of the consumer: told, confirmed, state, last event."""
    status = front.run("request", "status", name)[1]
    conforms("request", status)
    found = [(one["told"], one["confirmed"], one["state"], one["last"]) for one in status["consumers"]]
    return found[0] if found else None


def found(*paths: Path) -> set[str]:
    """The files in which our own scan finds the person."""
    whom = [*PERSON, ("ref:wallet/accounts.id", ACCOUNT)]
    needles = needles_for([(0, Identity(kind, value)) for kind, value in whom])
    return {
        Path(one.place).name for one in classes(scan(walk(paths), needles, workers=1)) if one.result is Result.FOUND
    }


@pytest.mark.scenario("S27")
def test_a_stop_that_nobody_took_never_comes_after_the_resume(front: Front) -> None:
    with listener(500) as (got, url):
        reaches(front, url)
        name = closing(front)
        front.run("run-due")
        assert said(front, name) == ("2026-11-24T01:00Z", None, "waiting", "stop")
        front.later(minutes=30)
        assert front.run("request", "restore", name, "--code", front.code)[1]["state"] == "restored"
        for _ in range(3):
            front.later(hours=1)
            front.run("run-due")
    heard = [json.loads(body) for _headers, body in got]
    assert [one["type"] for one in heard] == ["closure.stop", "closure.resume"]
    assert [one["timestamp"] for one in heard] == ["2026-11-24T01:00:00Z", "2026-11-24T01:30:00Z"]  # when written
    assert heard[0]["data"]["turn"] < heard[1]["data"]["turn"]
    assert [one["data"]["accounts"] for one in heard] == [[HASH], [HASH]]
    assert stands(front, name) == [("stop", "superseded", False), ("resume", "204", False)]
    assert said(front, name) == ("2026-11-24T01:00Z", "2026-11-24T02:30Z", "confirmed", "resume")


def test_who_was_never_called_to_stop_is_not_told_to_go_on(front: Front) -> None:
    with listener() as (got, url):
        reaches(front, url)
        name = closing(front)
        front.run("request", "restore", name, "--code", front.code)
        front.run("run-due")
    assert got == []
    assert stands(front, name) == [("stop", "void", False), ("resume", "void", False)]
    assert said(front, name) is None


def test_who_comes_back_needs_no_catalog_also_where_consumers_are_told(front: Front) -> None:
    with listener() as (got, url):
        reaches(front, url)
        name = closing(front)
        front.run("run-due")
        (front.root / "catalog" / "c.yml").write_text("dataset: [", "utf-8")
        assert front.run("request", "restore", name, "--code", front.code)[1]["state"] == "restored"
        front.run("run-due")
    assert [json.loads(body)["type"] for _headers, body in got] == ["closure.stop", "closure.resume"]


@pytest.mark.scenario("S27")
def test_a_consumer_that_is_down_while_somebody_is_erased_is_told_later(front: Front) -> None:
    reaches(front)
    name = closing(front)
    front.run("run-due")
    catalog = front.root / "catalog" / "c.yml"
    before = catalog.read_text("utf-8")
    catalog.write_text(before.replace("processors: [events], ", ""), "utf-8")  # whoever heard anything hears the rest
    assert erasing(front, name) == {}  # it never answered: the certificate claims nothing
    assert stands(front, name) == [("stop", "superseded", False), ("erase", None, True)]
    assert said(front, name) == (None, None, "waiting", "erase")
    (front.root.parent / "clear").write_text(ACCOUNT, "utf-8")
    assert found(front.root.parent / "clear") == {"clear"}  # our own scan knows the account number
    assert found(front.root) == set()  # and finds nobody where a message about them waits
    catalog.write_text(before, "utf-8")
    front.later(days=40)  # nobody ran anything for longer than hashes are kept for an officer
    with listener(503) as (got, url):
        reaches(front, url)
        for _ in range(4):
            front.later(hours=2)
            assert front.run("run-due")[0] == 0
    heard = [json.loads(body) for _headers, body in got]
    assert [one["type"] for one in heard] == ["closure.erase", "closure.erase"]
    assert heard[0] == heard[1]  # the same message, with the hash that it had when it was written
    assert heard[0]["data"]["accounts"] == [HASH]
    assert stands(front, name)[1] == ("erase", "204", False)
    confirmed = said(front, name)
    assert confirmed is not None
    assert confirmed[2:] == ("confirmed", "erase")
    assert all(HASH.encode() not in path.read_bytes() for path in front.root.glob("closures.db*"))


def test_what_is_given_up_waits_for_an_officer_who_has_it_told_again(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "TRIES", 4)  # a test need not wait for three days
    reaches(front)
    name = closing(front)
    erasing(front, name)
    with listener(500, 500, 500) as (got, url):
        reaches(front, url)
        told = []
        for _ in range(4):
            front.later(hours=13)
            told += [one["why"] for one in front.run("run-due")[1]["waiting"]]
        assert len(got) == 3  # and once when nobody answered
        assert ["request tell" in why for why in told] == [True]  # once
        assert said(front, name) == ("2026-12-01T14:00Z", None, "given_up", "erase")  # the first answer: a 500
        front.later(days=29)
        assert front.run("run-due")[1]["messages"] == 0
        assert stands(front, name)[1] == ("erase", None, True)
        conforms("request", front.run("request", "tell", name, "--officer", "officer-1")[1])
        with front.desk() as desk:
            event = desk.closures.events(name)[-1]
        assert (event["type"], event["actor"], event["body"]["messages"]) == ("tell", "officer-1", 1)
        front.later(minutes=1)
        assert front.run("run-due")[1]["messages"] == 1
    assert [json.loads(body)["data"]["accounts"] for _headers, body in got] == [[HASH]] * 4
    assert front.run("request", "tell", name, "--officer", "officer-1")[0] == 4  # nothing is left to be told
    assert "given up" in front.said


@pytest.mark.parametrize("why", ["given up", "nobody sends it any more"])
def test_thirty_days_after_its_last_try_a_message_is_emptied(
    front: Front, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "TRIES", 1)
    reaches(front)
    name = closing(front)
    if why == "given up":
        erasing(front, name)
    else:
        (front.root / "consumers.toml").rename(front.root / "away")
        with front.desk() as desk:
            assert desk.outbox.open(name) == {"consumer": 1}
    assert stands(front, name)[-1][2]
    front.later(days=30, minutes=1)
    done = front.run("run-due")[1]
    assert "forgotten" in next(one["why"] for one in done["waiting"] if one["closure"] == name)
    assert stands(front, name)[-1][1:] == (None, False)
    assert (said(front, name) or ())[:3] == (None, None, "given_up")
    assert front.run("request", "tell", name, "--officer", "officer-1")[0] == 4


def test_a_consumer_that_no_dataset_names_stops_an_approval_and_is_told_each_night(front: Front) -> None:
    reaches(front, name="evnets")
    name, _receipt = front.opened()
    front.go(name, "verify", "plan")
    code, done = front.run("run-due")
    assert code == 2
    assert "evnets: no dataset" in next(one["why"] for one in done["waiting"] if one["closure"] == "consumers.toml")


def test_a_secret_that_cannot_be_read_stops_approvals_and_neither_a_restore_nor_a_run(front: Front) -> None:
    with listener() as (got, url):
        reaches(front, url)
        name = closing(front)
        front.run("run-due")
        secret = front.root / "events.secret"
        secret.rename(front.root / "away")
        assert front.run("request", "restore", name, "--code", front.code)[0] == 0
        assert front.run("request", "status", name)[0] == 0
        code, done = front.run("run-due")
        why = {one["closure"]: one["why"] for one in done["waiting"]}
        assert code == 2
        assert "secret_file: cannot be read" in why["consumers.toml"]
        assert "cannot be told what followed" in why[name]  # no secret, no hash: nobody can be told by it
        assert said(front, name) == ("2026-11-24T01:00Z", None, "given_up", "resume")
        with front.desk() as desk, pytest.raises(InputError, match="cannot be read"):
            consumers.known(desk)  # as an approval asks first
        (front.root / "away").rename(secret)
        assert front.run("run-due")[0] == 0
    assert [json.loads(body)["type"] for _headers, body in got] == ["closure.stop"]


def test_who_was_told_to_stop_and_is_not_reached_in_the_run_that_erases_is_never_confirmed(front: Front) -> None:
    with listener() as (got, url):
        reaches(front, url)
        name = closing(front)
        front.run("run-due")
        (front.root / "consumers.toml").rename(front.root / "away")
        front.go(name, "end_regret", "locate_again")
        with front.desk() as desk:
            there = desk.closures.get(name)
            told = consumers.messages(desk, there, ERASE, desk.outbox.history(name, KIND))
            desk.take(there, Event("begin"), desk.now, messages=told)
        done = front.run("run-due")[1]
        assert "cannot be told what followed" in next(one["why"] for one in done["waiting"] if one["closure"] == name)
        (front.root / "away").rename(front.root / "consumers.toml")
        front.run("run-due")
        assert (said(front, name) or ())[1:] == (None, "given_up", "erase")
        assert len(got) == 1


def test_what_waits_while_a_consumer_is_not_in_the_file_is_told_when_it_is_back(front: Front) -> None:
    reaches(front)
    name = closing(front)  # the stop waits, with its hash
    (front.root / "consumers.toml").rename(front.root / "away")
    erasing(front, name)
    code, done = front.run("run-due")
    assert (code, [one["closure"] for one in done["waiting"]]) == (2, ["consumers"])
    assert said(front, name) == (None, None, "waiting", "erase")
    with listener() as (got, url):
        reaches(front, url)
        front.later(hours=1)
        front.run("run-due")
    assert [json.loads(body)["data"]["accounts"] for _headers, body in got] == [[HASH]]
    assert json.loads(got[0][1])["type"] == "closure.erase"


def test_a_message_is_not_signed_with_another_secret_than_its_hashes_were_made_with(front: Front) -> None:
    reaches(front)
    name = closing(front)
    secret = front.root / "events.secret"
    before = secret.read_text("utf-8")
    secret.write_text(f"whsec_{base64.b64encode(SECRET[::-1]).decode()}\n", "utf-8")
    with listener() as (got, url):
        reaches(front, url)
        for _ in range(20):  # more often than it is tried
            code, done = front.run("run-due")
            front.later(hours=2)
        assert (code, got) == (2, [])
        assert "made with another secret" in next(one["why"] for one in done["waiting"])
        secret.write_text(before, "utf-8")
        front.run("run-due")
        assert len(got) == 1
        told = (said(front, name) or ())[:1]
        assert told == (front.now.strftime("%Y-%m-%dT%H:%MZ"),)  # when it heard, not when it was written


# ---------------------------------------------------------------- two closings of an account


def order(got: list[tuple[dict[str, str], bytes]], first: str) -> list[str]:
    """What was heard, with the closing it was of."""
    heard = [json.loads(body) for _headers, body in got]
    turns = [one["data"]["turn"] for one in {one["data"]["turn"]: one for one in heard}.values()]
    assert turns == sorted(turns)  # over both
    return [one["type"][8:] + ("A" if one["data"]["closure"] == first else "B") for one in heard]


def test_a_resume_that_was_not_taken_never_comes_after_the_stop_of_the_next_closing(front: Front) -> None:
    with listener(204, 500, 500) as (got, url):
        reaches(front, url)
        first = closing(front)
        front.run("run-due")
        front.later(minutes=30)
        front.run("request", "restore", first, "--code", front.code)
        for _ in range(2):
            front.run("run-due")
            front.later(hours=1)
        second = closing(front)
        for _ in range(4):
            front.run("run-due")
            front.later(hours=13)
        assert order(got, first) == ["stopA", "resumeA", "resumeA", "stopB"]
        assert ("resume", "superseded", False) in stands(front, first)
        assert (said(front, first) or ())[2:] == ("confirmed", "stop")
        assert (said(front, second) or ())[2:] == ("confirmed", "stop")


def test_who_did_not_hear_the_resume_is_told_to_go_on_after_a_second_closing_that_came_to_nothing(front: Front) -> None:
    with listener(204, 500) as (got, url):
        reaches(front, url)
        first = closing(front)
        front.run("run-due")
        front.run("request", "restore", first, "--code", front.code)
        front.run("run-due")
        second = closing(front)
        front.run("request", "restore", second, "--code", front.code)  # before anybody was called to stop again
        front.later(hours=2)
        front.run("run-due")
    assert order(got, first) == ["stopA", "resumeA", "resumeB"]


def test_a_resume_that_was_given_up_is_not_told_after_the_erase_of_the_next_closing(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "TRIES", 2)
    with listener(204, 500, 500) as (got, url):
        reaches(front, url)
        first = closing(front)
        front.run("run-due")
        front.run("request", "restore", first, "--code", front.code)
        for _ in range(2):
            front.run("run-due")
            front.later(hours=1)
        assert (said(front, first) or ())[2] == "given_up"
        second = closing(front)
        front.run("run-due")
        erasing(front, second)
        assert front.run("request", "tell", first, "--officer", "officer-1")[0] == 4
        front.later(hours=1)
        front.run("run-due")
    assert order(got, first) == ["stopA", "resumeA", "resumeA", "stopB", "eraseB"]


def test_the_next_closing_waits_for_the_erase_of_the_former_and_for_whoever_is_calling(front: Front) -> None:
    reaches(front)
    first = closing(front)
    erasing(front, first)
    second = closing(front)
    with front.desk() as desk:
        assert [one.closure for one in desk.outbox.claim("w", front.now + timedelta(days=2))] == [first]
        assert desk.outbox.claim("v", front.now + timedelta(days=2)) == []  # it is being called for
        again = desk.outbox.claim("v", front.now + timedelta(days=3))
        assert [(one.closure, one.body["event"]) for one in again] == [(first, ERASE)]
        desk.outbox.failed(again[0], Refused("consumer_410", final=True), front.now + timedelta(days=3))
        assert [one.closure for one in desk.outbox.claim("v", front.now + timedelta(days=4))] == [second]
        assert desk.outbox.tellable(first, KIND) == []  # the later one may have been heard


# ---------------------------------------------------------------- addresses


def test_nobody_is_called_inside_a_network_unless_the_operator_said_so(front: Front) -> None:
    row = Row("k", "c-1", KIND, {"event": ERASE, "written": "2026-11-24T01:00:00Z"}, 0, b"[]", 7)

    def to(*found: str) -> Lookup:
        return lambda _host: found

    with listener(200) as (got, url):
        inside = Consumer("events", url.replace("127.0.0.1", "events.example.com"), SECRET, 1.0, lookup=to("127.0.0.1"))
        for trap in (("127.0.0.1",), ("93.184.216.34", "169.254.169.254"), ("::ffff:10.0.0.1",)):
            with pytest.raises(Refused, match="consumer_not_public"):
                replace(inside, lookup=to(*trap)).tell(row, [], front.now)
        assert got == []
        allowed = replace(inside, inside=True)
        assert allowed.tell(row, [HASH], front.now) == "200"
        assert got[0][0]["host"].startswith("events.example.com:")
        with pytest.raises(Refused, match="consumer_unreachable"):
            replace(allowed, lookup=to()).tell(row, [], front.now)


@contextmanager
def dripping(part: bytes) -> Iterator[tuple[list[bytes], str]]:
    """An endpoint that never comes to the end of its answer, and sends a part of it every tenth of a second."""
    sent: list[bytes] = []

    class Drips(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            with suppress(OSError):
                self.request.sendall(b"HTTP/1.1 " + (b"" if part.startswith(b"HTTP") else b"204 None\r\nX: "))
                for _ in range(100):
                    self.request.sendall(part.removeprefix(b"HTTP/1.1 "))
                    sent.append(part)
                    time.sleep(0.1)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Drips) as server:
        server.daemon_threads, server.block_on_close = True, False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield sent, f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.mark.parametrize("part", [b"a", b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 "])
def test_a_call_is_over_in_time_whatever_the_far_side_sends(part: bytes) -> None:
    row = Row("k", "c-1", KIND, {"event": ERASE, "written": "2026-11-24T01:00:00Z"}, 0, b"[]", 7)
    with dripping(part) as (sent, url):
        with pytest.raises(Refused, match="consumer_unreachable"):
            Consumer("events", url, SECRET, 0.3, inside=True).tell(row, [HASH], NOW)
        assert 0 < sent.count(part) < 100  # it had not come to its end


def test_a_consumer_that_costs_a_run_more_than_its_timeout_is_not_called_again_in_it() -> None:
    calls, slow = consumers.Calls(), Consumer("events", "https://a.example/", SECRET, 3.0)
    for _ in range(1000):
        calls.took(slow, 0.5)
    assert calls.silent == set()  # many people, and it answers
    for _ in range(2):
        calls.took(slow, 2.0)
    assert calls.silent == {"events"}


def test_a_look_up_that_does_not_end_is_not_waited_for() -> None:
    never = threading.Event()
    row = Row("k", "c-1", KIND, {"event": ERASE, "written": "2026-11-24T01:00:00Z"}, 0, b"[]", 7)
    slow = Consumer("events", "https://a.example/", SECRET, 0.2, lookup=lambda _host: [str(never.wait())])
    with pytest.raises(Refused, match="consumer_unreachable"):
        slow.tell(row, [HASH], NOW)
    never.set()


@pytest.mark.parametrize(
    "address",
    [
        "fec0::1",
        "64:ff9b:1::a00:1",
        "::10.0.0.1",
        "::ffff:0:10.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "::ffff:0:0:a00:1",
        "2002:a00:1::",
    ],
)
def test_an_address_inside_another_is_not_public(address: str) -> None:
    assert not public(address)
    assert public("2606:4700::1111")


def test_run_due_says_whose_address_is_not_public_and_where_it_ran_into_an_error(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    reaches(front, "https://events.example.com/x")
    name = closing(front)

    def addresses(*_: object) -> None:
        raise Refused(consumers.PRIVATE) if front.now == NOW else LookupError(ACCOUNT)

    monkeypatch.setattr(Consumer, "_addresses", addresses)
    code, done = front.run("run-due")
    assert (code, [one["closure"] for one in done["waiting"]]) == (2, ["consumers"])
    assert "events: the address is not public: inside = true" in done["waiting"][0]["why"]
    front.later(hours=1)
    code, done = front.run("run-due")
    assert (code, [one["closure"] for one in done["waiting"]]) == (2, [name])
    assert "LookupError at test_consumers.py" in done["waiting"][0]["why"]
    assert ACCOUNT not in done["waiting"][0]["why"] + front.said

"""A receipt code opens the status, the certificate and tickets for ever; a wrong one tells nothing."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest
from process.front import END, PERSON, Front
from test_cli_answers import conforms

from fangxin.data.errors import InputError, NotAllowed
from fangxin.data.requests import receipt_code, receipt_digest
from fangxin.flows.cli.main import main
from fangxin.flows.lifecycle import PUBLIC
from fangxin.flows.receipt import by_code, texts


@pytest.fixture
def front(tmp_path: Path) -> Front:
    return Front.make(tmp_path / "home")


def read(front: Front, receipt: str, locale: str) -> list[str]:
    """What the person reads."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        argv = ["request", "status", "--receipt", receipt, "--lang", locale, "--home", str(front.root)]
        assert main([*argv, "--now", front.now.isoformat()]) == 0
    return out.getvalue().splitlines()


@pytest.mark.scenario("S14", "S21")
def test_every_step_has_its_date_before_during_and_after(front: Front) -> None:
    name, receipt = front.opened()
    front.go(name, "verify")
    ahead = front.run("request", "status", "--receipt", receipt)[1]
    conforms("request", ahead)
    assert [(s["step"], s["state"], s["by"]) for s in ahead["steps"]] == [
        ("received", "done", None),
        ("review", "now", "2026-11-27T16:00:00Z"),  # three working days
        ("seal", "ahead", "2026-11-28T16:00:00Z"),  # and a day
        ("regret", "ahead", "2026-12-05T16:00:00Z"),  # and 7 x 24 h
        ("erase", "ahead", "2026-12-08T16:00:00Z"),  # seven working days after the seal
        ("certificate", "ahead", "2026-12-08T16:00:00Z"),
    ]
    front.go(name, *END[1:5])
    lines = read(front, receipt, "zh")
    assert lines[0].startswith("账户已封存。")
    assert lines[1:7] == [
        "✓ 1  收到申请：2026年11月24日 09:00",
        "✓ 2  核对与审核：2026年11月24日 09:00",
        "✓ 3  停止处理并封存：2026年11月24日 09:00",
        "▶ 4  反悔期：在 2026年12月1日 09:00 之前可以恢复",
        "· 5  销毁密钥、覆写、核验：预计最迟 2026年12月3日 24:00",
        "· 6  出具证书：预计最迟 2026年12月3日 24:00",
    ]
    stored = front.run("request", "status", "--receipt", receipt)[1]
    dates = {clock["name"]: clock["deadline"] for clock in stored["clocks"]}
    shown = {step["step"]: step["by"] for step in stored["steps"]}
    assert (shown["regret"], shown["erase"]) == (dates["regret"], dates["done"])  # what is shown is what is counted


@pytest.mark.scenario("S43", "S37")
def test_after_the_erasure_the_code_opens_status_certificate_and_tickets(front: Front) -> None:
    name, receipt = front.opened()
    front.go(name, *END)
    front.forget(name)
    front.later(days=300)
    typed = receipt.lower().replace("0", "o").replace("1", "l").replace("-", " ")  # as it is heard on the phone
    lines = read(front, typed, "en")
    assert lines[0].startswith("Finished. The certificate says")
    assert "certificate: certificates/one.pdf" in lines
    argv = ["ticket", "open", "--receipt", receipt, "--category", "question", "--text", front.text("为什么？")]
    assert front.run(*argv)[0] == 0
    later = front.run("request", "status", "--receipt", receipt)[1]
    assert [t["state"] for t in later["tickets"]] == ["open"]
    assert {s["state"] for s in later["steps"]} == {"done"}
    assert not any(value in str(later) for _kind, value in PERSON)


@pytest.mark.scenario("S42")
def test_a_wrong_code_is_told_the_same_whatever_there_is_and_nobody_tries_for_long(front: Front) -> None:
    _name, receipt = front.opened()
    with front.desk() as desk, pytest.raises(InputError) as nobody:
        by_code(desk, receipt_code(), source="192.0.2.1")
    assert str(nobody.value) == "nothing is found under this code"
    with front.desk() as desk:
        for _ in range(9):
            with pytest.raises(InputError, match="nothing is found under this code"):
                by_code(desk, receipt_code(), source="192.0.2.1")
    with front.desk() as desk:
        for code in (receipt, receipt_code()):  # from there nothing is looked up any more: right or wrong, the same
            with pytest.raises(NotAllowed, match="too many wrong codes"):
                by_code(desk, code, source="192.0.2.1")
        assert by_code(desk, receipt, source="192.0.2.2").id  # everybody else is served
        with desk.closures.engine.connect() as db:
            told = db.exec_driver_sql("SELECT * FROM attempt").fetchall()
        assert "192.0.2.1" not in str(told)
    front.later(minutes=1)
    with front.desk() as desk:
        assert by_code(desk, receipt, source="192.0.2.1").id
    for _ in range(10):
        front.later(minutes=1)
        with front.desk() as desk:
            for _ in range(9):
                with pytest.raises(InputError):
                    by_code(desk, receipt_code(), source="192.0.2.1")
    front.later(minutes=1)
    with front.desk() as desk, pytest.raises(NotAllowed, match="too many"):  # a hundred in a day
        by_code(desk, receipt, source="192.0.2.1")
    front.later(days=1)
    with front.desk() as desk:
        assert by_code(desk, receipt, source="192.0.2.1").id


def test_a_mistyped_code_is_seen_from_the_code_alone() -> None:
    code = receipt_code()
    assert receipt_digest(code) == receipt_digest(f" {code.lower().replace('-', '')} ")
    plain = code.replace("-", "")
    for place in range(25):
        other = plain[:place] + ("7" if plain[place] != "7" else "8") + plain[place + 1 :]
        with pytest.raises(InputError, match=r"25 characters that fit") as wrong:
            receipt_digest(other)
        assert other not in str(wrong.value)
    swapped = [plain[:n] + plain[n + 1] + plain[n] + plain[n + 2 :] for n in range(24) if plain[n] != plain[n + 1]]
    for other in swapped:
        with pytest.raises(InputError):
            receipt_digest(other)
    assert not any(receipt_code()[-1] in "*~$=" for _ in range(300))  # they cannot be said on the phone


@pytest.mark.scenario("S26")
def test_every_public_state_has_words_in_both_languages_and_no_offer_to_stay() -> None:
    assert {state.value for state in PUBLIC.values()} == set(texts()["public"])
    for group in texts().values():
        for told in group.values():
            assert set(told) == {"zh", "en"}
            assert not [w for w in ("挽留", "优惠", "http", "sorry to see", "are you sure") if w in str(told)]


@pytest.mark.parametrize(("move", "words"), [("cancel", "您已撤回申请"), ("reject", "可以凭回执码提出申诉")])
def test_a_request_that_ended_says_how_and_that_nothing_was_erased(front: Front, move: str, words: str) -> None:
    name, receipt = front.opened()
    front.go(name, "verify", "plan")
    front.go(name, move, **({"reason": "takeover"} if move == "reject" else {}))
    lines = read(front, receipt, "zh")
    assert words in lines[0]
    assert "没有删除任何数据" in lines[0]
    assert lines[2] == "■ 2  申请终止：2026年11月24日 09:00"


def test_a_late_step_is_called_late_and_what_follows_counts_from_now(front: Front) -> None:
    name, receipt = front.opened()
    front.go(name, "verify", "plan")
    front.later(days=20)
    review, seal = front.run("request", "status", "--receipt", receipt)[1]["steps"][1:3]
    assert (review["late"], review["state"]) == (True, "now")
    assert "超过承诺的时间" in review["says"]["zh"]
    assert seal["by"] == "2026-12-15T01:00:00Z"
    front.go(name, "sign", "approve", "seal", "end_regret", "locate_again")
    erase = front.run("request", "status", "--receipt", receipt)[1]["steps"][4]
    assert "provisional" in erase["says"]["en"]  # beyond 15 December, before the next notice

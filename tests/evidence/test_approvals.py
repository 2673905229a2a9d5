"""Officers' signatures under a plan reach a stranger: bound to the grant that was carried out, and to nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from evidence.small_home import NOW, SECRET, Home, entry, make_home, sha
from evidence.test_browser import answers

from fangxin.checks import verify
from fangxin.data.keys.approval import Approval
from fangxin.data.keys.grant import Grant
from fangxin.reports import browser
from fangxin.reports.ledger import entries

WHEN = datetime.strptime(NOW, "%Y-%m-%dT%H:%M%z")
KEYS = {name: Ed25519PrivateKey.from_private_bytes(name.encode().ljust(32)) for name in ("an", "bo", "chen")}
Rounds = tuple[dict[str, int | str], list[Approval]]


def grant(count: int = 21) -> Grant:
    drops = {n.to_bytes(16): None for n in range(count)}
    return Grant.of(drops, vault=bytes(16), generation=1, catalog=sha("catalog"), not_before=WHEN - timedelta(hours=3))


def sign(paper: Grant, *names: str, hours: int = 2, lasts: int = 24) -> list[Approval]:
    at, good_for = WHEN - timedelta(hours=hours), timedelta(hours=lasts)
    return [Approval.sign(paper, officer=one, key=KEYS[one], now=at, lasts=good_for) for one in names]


def told(paper: Grant, approvals: list[Approval]) -> dict[str, int | str]:
    """The fields of an honest entry."""
    keys = {hashlib.sha256(KEYS[one.officer].public_key().public_bytes_raw()).hexdigest() for one in approvals}
    files = sorted(hashlib.sha256(one.public()).hexdigest() for one in approvals)
    return {
        "by": "officers",
        "grant": paper.plan_hash,
        "officers": ",".join(sorted(keys)),
        "approvals": ",".join(files),
    }


def offices(home: Home, said: dict[str, int | str], approvals: list[Approval], *, done: str) -> Path:
    """A package of a home in which a plan was approved like this, and its keys destroyed under the grant `done`."""
    folder = home.folder
    ledger = home.ledger
    ledger.append([entry("approved", tag=entries.tag(SECRET, 40), plan=sha("big"), **said)])
    (intent,) = ledger.append([entry("erase.intended", store="vault", plan=sha("big"), units="20-99")])
    gone = entry("key.destroyed", intent=intent, before=sha("after"), after=sha("later"), grant=done)
    ledger.append([gone])
    for name, key in KEYS.items():
        path = folder / "officers" / f"{name}.pub"
        path.parent.mkdir(exist_ok=True)
        path.write_text(key.public_key().public_bytes_raw().hex() + "\n")
    (folder / "approvals").mkdir()
    for one in approvals:
        (folder / "approvals" / f"{hashlib.sha256(one.public()).hexdigest()}.json").write_bytes(one.public())
    home.parts["officers"] = sorted((folder / "officers").glob("*.pub"))
    home.parts["approvals"] = sorted((folder / "approvals").glob("*.json"))
    trusted = home.trust / "officers"
    trusted.mkdir()
    for path in home.parts["officers"]:
        (trusted / path.name).write_bytes(path.read_bytes())
    return home.pack()


def swapped() -> Rounds:
    """A signature under another grant, called one under this."""
    (mine, _other), (other,) = sign(grant(), "an", "bo"), sign(grant(22), "bo")
    return {}, [mine, replace(other, grant=mine.grant)]


def of_another_plan() -> Rounds:
    paper, another = grant(), grant(22)
    return told(paper, sign(another, "an", "bo")) | {"grant": paper.plan_hash}, sign(another, "an", "bo")


def same_officer_twice() -> Rounds:
    paper = grant()
    both = [*sign(paper, "an"), *sign(paper, "an", hours=1)]
    return told(paper, both) | {"officers": told(paper, sign(paper, "an", "bo"))["officers"]}, both


def one_officer() -> Rounds:
    paper = grant()
    return told(paper, sign(paper, "an")), sign(paper, "an")


FORGED: dict[str, tuple[Callable[[], Rounds], str]] = {
    "swapped": (swapped, "signed by nobody"),
    "of another plan": (of_another_plan, "for another plan"),
    "same officer twice": (same_officer_twice, "another officer"),
    "one officer": (one_officer, "two have to"),
    "expired": (lambda: ({}, sign(grant(), "an", "bo", hours=3, lasts=2)), "not good when"),
    "signed afterwards": (lambda: ({}, sign(grant(), "an", "bo", hours=-1)), "not good when"),
}


def test_an_approval_that_is_not_two_officers_word_about_this_plan_is_false(tmp_path: Path) -> None:
    made, page = [], tmp_path / "verify.html"
    page.write_bytes(browser.page())
    for number, (make, reason) in enumerate(FORGED.values()):
        said, approvals = make()
        said = said or told(Grant.parse(approvals[0].grant), approvals)
        folder = tmp_path / str(number)
        folder.mkdir()
        home = make_home(folder)
        made.append(offices(home, said, approvals, done=str(said["grant"])))
        found = {one.name: one for one in verify.verify(made[-1], trust=home.trust)}["approvals"]
        assert (found.result, reason in found.reason) == (verify.FALSE, True), found
    for case, one in zip(FORGED, answers(page, None, made), strict=True):
        (row,) = [row for row in one["checks"] if row["name"] == "approvals"]  # type: ignore[attr-defined]
        assert row["result"] == "FALSE", (case, row)


def test_two_officers_who_signed_the_grant_that_was_carried_out_are_believed(home: Home, tmp_path: Path) -> None:
    paper = grant()
    approvals = sign(paper, "an", "bo")
    zip_ = offices(home, told(paper, approvals), approvals, done=paper.plan_hash)
    page = tmp_path / "verify.html"
    page.write_bytes(browser.page())

    def said(**more: object) -> tuple[str, str]:
        checks = verify.verify(zip_, **{"trust": home.trust, **more})  # type: ignore[arg-type]
        found = {one.name: one for one in checks}["approvals"]
        return found.result, found.reason

    assert verify.exit_code(verify.verify(zip_, trust=home.trust)) == 0, said()
    assert answers(page, home.trust, [zip_])[0]["exit_code"] == 0
    vkey = str(home.keys.vkey)
    assert said(trust=vkey)[0] == verify.MISSING, "officers' keys come from outside or do not count"
    keys = [KEYS[one].public_key().public_bytes_raw().hex() for one in ("an", "bo")]
    assert said(trust=vkey, officers=keys)[0] == verify.HOLDS
    assert said(trust=vkey, officers=[keys[0], home.trust / "officers" / "chen.pub"])[0] == verify.MISSING
    with pytest.raises(verify.Usage, match="64 hex digits"):
        verify.verify(zip_, officers=[home.trust / "log.vkey"])
    assert set(said(trust=None)) > {verify.MISSING}
    stray = home.folder / "approvals" / f"{sha('stray')}.json"
    stray.write_bytes(sign(paper, "chen")[0].public())
    home.parts["approvals"].append(stray)
    zip_ = home.pack()
    assert (said()[0], "no entry speaks of" in said()[1]) == (verify.FALSE, True)
    home.parts["approvals"] = home.parts["approvals"][:1]
    zip_ = home.pack()
    assert (said()[0], "not in the package" in said()[1]) == (verify.MISSING, True)


def test_keys_destroyed_under_another_grant_than_officers_signed_are_false(home: Home) -> None:
    paper = grant()
    approvals = sign(paper, "an", "bo")
    zip_ = offices(home, told(paper, approvals), approvals, done=sha("another"))
    found = {one.name: one for one in verify.verify(zip_, trust=home.trust)}["approvals"]
    assert (found.result, "another grant" in found.reason) == (verify.FALSE, True)


def test_many_people_without_officers_are_not_passed_over(home: Home) -> None:
    home.ledger.append([entry("approved", tag=entries.tag(SECRET, 40), plan=sha("big"), by="request", cap=20)])
    home.ledger.append([entry("erase.intended", store="vault", plan=sha("big"), units="100-999")])
    found = {one.name: one for one in verify.verify(home.pack(), trust=home.trust)}["approvals"]
    assert (found.result, "none signed" in found.reason) == (verify.MISSING, True)

"""The store of closings is erasable itself: after the end our own scan finds nobody in its file or its log."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest
from process.conftest import server
from process.front import END, PERSON, Front, post
from process.postgres import database

from fangxin.checks.residue.patterns import needles_for
from fangxin.checks.residue.results import Result, classes
from fangxin.checks.residue.scan import scan, walk
from fangxin.data.keys.domains import CONTACT, REQUEST
from fangxin.data.keys.envelope import open_blob
from fangxin.data.keys.faults import KeyAbsent
from fangxin.data.vocabulary import Identity
from fangxin.flows.channels import Channels
from fangxin.flows.delivery import deliver, shred

__all__ = ["server"]
NEEDLES = needles_for([(0, Identity(kind, value)) for kind, value in PERSON])


def seen(*paths: Path) -> set[str]:
    """The files in which our own scan finds the person; each of them must have been examined."""
    places = classes(scan(walk(paths), NEEDLES, workers=1))
    assert Result.NOT_EXAMINABLE not in {one.result for one in places}
    return {Path(one.place).name for one in places if one.result is Result.FOUND}


def live(front: Front) -> str:
    """A closing with questions and notices, up to its erasure."""
    name, receipt = front.opened(("mail", "li.wei@example.com"), ("mail", "wei.li@old.example"))
    front.go(name, *END[:5])
    asked = ["ticket", "open", "--receipt", receipt, "--category", "dispute", "--mask"]
    words = "我是李伟，身份证11010519491231002X，卡4111111111111111，手机13900000005，li.wei@example.com"
    assert front.run(*asked, "--text", front.text(words))[0] == 0
    (front.root.parent / f"text-{hash(words)}").unlink()
    front.go(name, *END[5:])
    return name


def end(front: Front, name: str) -> None:
    """The end: forgotten, the last notice out, the addresses destroyed."""
    front.forget(name)
    with front.desk() as desk:
        deliver(desk, Channels.load(front.root))
        assert shred(desk) == [name]


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Somebody who reads the store meanwhile, as a report does."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("SELECT count(*) FROM closure").fetchall()
        yield db


@pytest.mark.scenario("S28", "S43")
def test_our_own_scan_finds_nobody_in_the_store_of_closings(tmp_path: Path) -> None:
    front = Front.make(tmp_path / "home")
    with post() as (box, mail):
        front.reach(mail=mail)
        name = live(front)
        with front.desk() as desk:
            closure = desk.closures.get(name)
            known = desk.opened(closure)
            ref, sealed = closure.ref, closure.sealed
        # the baseline: the scan finds them in what is sealed, once opened, and in a store with a row in clear
        (tmp_path / "opened").write_bytes(known.text())
        shutil.copytree(front.root, tmp_path / "clear")
        with closing(sqlite3.connect(tmp_path / "clear" / "closures.db")) as db, db:
            db.execute("UPDATE closure SET account = ?", [PERSON[0][1]])
        assert seen(tmp_path / "opened") == {"opened"}
        assert seen(*(tmp_path / "clear").glob("closures.db*")) == {"closures.db"}
        with reading(front.root / "closures.db"):
            end(front, name)
        assert {to for to, *_ in box.taken()} == {"li.wei@example.com", "wei.li@old.example"}
    files = sorted(front.root.glob("*.db*"))
    assert {"closures.db"} <= {path.name for path in files}
    assert seen(*files) == set()
    assert seen(front.root) == set()  # the ledger, the vault and the rest of the home neither
    body = b"".join(path.read_bytes() for path in files)
    assert sealed is not None
    assert sealed not in body  # not even the ciphertext
    assert "李伟".encode() not in body
    with front.desk() as desk:
        for domain in (REQUEST, CONTACT):
            with pytest.raises(KeyAbsent):
                desk.estate.tree.get(ref, domain)


ENDS = {
    "cancelled": ("verify", "plan", "cancel"),
    "rejected": ("verify", "plan", "reject"),
    "expired": ("verify", "expire"),
    "restored": (*END[:5], "restore"),
}


@pytest.mark.scenario("S28")
def test_of_a_closing_that_did_not_happen_no_more_stays_than_of_one_that_did(tmp_path: Path) -> None:
    """Withdrawn, refused, run out, undone: identities and addresses go with the last notice; the code still answers."""
    front = Front.make(tmp_path / "home")
    with post() as (_box, mail):
        front.reach(mail=mail)
        erased = live(front)
        end(front, erased)
        before: dict[str, tuple[bytes, bytes]] = {}
        codes = {}
        for state, moves in ENDS.items():
            name, codes[state] = front.opened(("mail", "li.wei@example.com"))
            closure = front.go(name, *moves, proof="code", reason="takeover")
            assert (closure.state, closure.sealed is None) == (state, False)
            before[name] = (closure.ref, closure.sealed or b"")
        code, done = front.run("run-due")
        assert (code, sorted(done["forgotten"])) == (0, sorted(before))
    body = b"".join(path.read_bytes() for path in sorted(front.root.glob("*.db*")))
    with front.desk() as desk:
        like = desk.closures.get(erased)
        for name, (ref, sealed) in before.items():
            found = desk.closures.get(name)
            assert (found.sealed, desk.closures.account(name)) == (like.sealed, None) == (None, None)
            assert found.facts["channels"] == like.facts["channels"] == []
            assert sealed not in body
            for domain in (REQUEST, CONTACT):
                with pytest.raises(KeyAbsent):
                    desk.estate.tree.get(ref, domain)
    assert seen(front.root) == set()
    for state, code_of in codes.items():
        assert front.run("request", "status", "--receipt", code_of)[1]["state"] == state


def test_on_postgresql_the_ciphertext_may_stay_and_its_key_is_gone(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What can be said there: nothing in clear in tables or log; old pages keep what was sealed."""
    url = database(server)
    monkeypatch.setenv("FANGXIN_CLOSURES", url)
    front = Front.make(tmp_path / "home")
    with post() as (_box, mail):
        front.reach(mail=mail)
        name = live(front)
        with front.desk() as desk:
            closure = desk.closures.get(name)
            ref, sealed = closure.ref, closure.sealed or b""
            key = desk.estate.tree.get(ref, REQUEST)
        end(front, name)
    plain = url.replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(plain, autocommit=True) as db:
        row = db.execute("SHOW data_directory").fetchone()
        assert row is not None
        db.execute("CREATE TABLE control (words text)")
        db.execute("INSERT INTO control VALUES ('+8613999999999')")
        db.execute("CHECKPOINT")
    folder = Path(row[0])
    body = [path.read_bytes() for part in ("base", "pg_wal") for path in (folder / part).rglob("*") if path.is_file()]
    assert any(b"13999999999" in one for one in body)  # the search finds what is there in clear
    for _kind, value in PERSON:
        assert not any(value.removeprefix("+86").encode() in one for one in body)
    assert any(sealed in one or sealed.hex().encode() in one for one in body)  # freed pages and the log keep it
    with front.desk() as desk, pytest.raises(KeyAbsent):
        desk.estate.tree.get(ref, REQUEST)
    assert os.urandom(32) != key
    assert b"11010519491231002X" in open_blob(key, sealed, b"fangxin/closures/1" + ref)  # it was all in the key

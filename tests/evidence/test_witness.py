"""A witness makes two histories impossible; a token says when; a new log key is trusted through the old one."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from evidence.small_home import NOW, SECRET, entry, start
from evidence.test_ledger import in_a_child, reopened, some, whole
from evidence.tsa import LocalTsa, openssl

from fangxin.data.errors import DoesNotHold, InputError, LedgerForked, NotAllowed, Unavailable, WriterBusy
from fangxin.reports.ledger import checkpoint as notes
from fangxin.reports.ledger import entries, exchange, stamp
from fangxin.reports.ledger.keys import SigningKeys
from fangxin.reports.ledger.log import Ledger
from fangxin.reports.ledger.witness import Conflict, UnknownLog, Witness

WHEN = 1_795_300_000


def reader(folder: Path):  # type: ignore[no-untyped-def]
    return lambda name: (folder / name).read_bytes()


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Ledger, Witness]:
    keys, ledger = start(tmp_path)
    witness = Witness.create(tmp_path / "auditor" / "state.json", "audit.example/w1")
    witness.know(keys.vkey)
    (tmp_path / "keys" / "witness.vkeys").write_text(f"{witness.vkey}\n")
    return ledger, witness


# ------------------------------------------------------------ witnesses


def test_a_witness_cosigns_what_extends_and_the_ledger_keeps_its_line(pair: tuple[Ledger, Witness]) -> None:
    ledger, witness = pair
    for size in (3, 300, 700):
        ledger.append(some(size - ledger.size, ledger.size))
        seen, line = witness.visit(reader(ledger.folder), WHEN)
        assert (seen.size, ledger.witnessed(line)) == (size, 1)
        assert notes.cosignatures(ledger.checkpoint(), [witness.vkey]) == {witness.vkey: WHEN}
    again = reopened(ledger.folder.parent)
    assert notes.cosignatures(again.checkpoint(), [witness.vkey]) == {witness.vkey: WHEN}
    assert notes.cosignatures(again.receipt(4).partition(b"\n\n")[2], [witness.vkey])
    again.append(some(1, 900))
    assert whole(again)


def test_a_lost_head_is_put_back_only_where_the_witness_remembers_the_very_checkpoint_that_we_have(
    pair: tuple[Ledger, Witness], tmp_path: Path
) -> None:
    ledger, witness = pair
    head, keys = tmp_path / "second" / "head", SigningKeys.load(tmp_path / "keys")

    def put_back() -> Ledger:
        return Ledger.reseat(ledger.folder, head=head, keys=keys, seen=witness.last(ledger.origin, WHEN))

    with pytest.raises(UnknownLog):
        put_back()
    ledger.append(some(3))
    old = head.read_bytes()
    ledger.witnessed(witness.visit(reader(ledger.folder), WHEN)[1])
    with pytest.raises(NotAllowed, match="not behind"):
        put_back()
    ledger.append(some(2, 3))
    head.unlink()
    with pytest.raises(LedgerForked, match="the witness cosigned 3 entries last"):
        put_back()  # more than the witness saw may have been signed
    witness.visit(reader(ledger.folder), WHEN)
    head.write_bytes(old)  # or an older one, from a backup of the second place
    with pytest.raises(LedgerForked, match="the head is the older one"):
        reopened(tmp_path)
    again = put_back()
    again.append(some(1, 5))
    assert whole(reopened(tmp_path))
    head.unlink()
    (tmp_path / "keys" / "witness.vkeys").unlink()
    witness.visit(reader(ledger.folder), WHEN)
    with pytest.raises(NotAllowed, match="no known witness"):
        put_back()
    head.parent.rmdir()
    (tmp_path / "keys" / "witness.vkeys").write_text(f"{witness.vkey}\n")
    with pytest.raises(Unavailable, match="not there"):
        put_back()


def test_a_witness_refuses_a_smaller_tree_another_root_and_a_log_it_was_not_given(
    pair: tuple[Ledger, Witness], tmp_path: Path
) -> None:
    ledger, witness = pair
    ledger.append(some(5))
    shutil.copytree(tmp_path, tmp_path / "fork", ignore=shutil.ignore_patterns("auditor"))
    ledger.append(some(5, 5))
    witness.visit(reader(ledger.folder), WHEN)
    fork = reopened(tmp_path / "fork")
    with pytest.raises(DoesNotHold, match="10 were cosigned before"):
        witness.visit(reader(fork.folder), WHEN)
    fork.append(some(5, 50))
    with pytest.raises(DoesNotHold, match="two roots for size 10"):
        witness.visit(reader(fork.folder), WHEN)
    fork.append(some(9, 70))
    with pytest.raises(DoesNotHold, match="does not begin with the old one"):
        witness.visit(reader(fork.folder), WHEN)
    _keys, foreign = start(tmp_path / "foreign")
    with pytest.raises(DoesNotHold, match="no signature by the log key"):
        witness.visit(reader(foreign.folder), WHEN)
    stranger = Witness.create(tmp_path / "other" / "state.json", "audit.example/w2")
    with pytest.raises(UnknownLog):
        stranger.visit(reader(ledger.folder), WHEN)
    assert witness.logs()[ledger.origin].last.size == 10


def test_what_a_witness_answered_it_remembers_first(pair: tuple[Ledger, Witness], tmp_path: Path) -> None:
    ledger, witness = pair
    ledger.append(some(5))

    def killed() -> None:
        real = notes.cosign
        notes.cosign = lambda *_a: os._exit(9)  # type: ignore[assignment]
        try:
            witness.visit(reader(ledger.folder), WHEN)
        finally:
            notes.cosign = real

    assert in_a_child(killed) == 9
    assert Witness.load(witness.state).logs()[ledger.origin].last.size == 5


def test_two_requests_in_flight_cannot_roll_a_witness_back(pair: tuple[Ledger, Witness]) -> None:
    ledger, witness = pair
    notes_of = []
    for size in range(20, 400, 20):
        ledger.append(some(size - ledger.size, ledger.size))
        notes_of.append((size, ledger.checkpoint()))
    newest = ledger.size
    answered: list[int] = []

    def ask(size: int, note: bytes) -> None:
        for _ in range(40):
            known = witness.logs()[ledger.origin].last.size
            if known >= size:
                return
            tree_proof = notes_consistency(ledger, known, size)
            try:
                witness.see(note, known, tree_proof, WHEN)
                answered.append(size)
                return
            except Conflict:
                continue

    def notes_consistency(log: Ledger, old: int, new: int) -> list[bytes]:
        from fangxin.reports.ledger import merkle, tiles

        return merkle.consistency(old, new, tiles.Tree(log.folder, log.size).subtree)

    threads = [threading.Thread(target=ask, args=one) for one in notes_of]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert answered == sorted(answered)  # each answer extends the one before
    assert witness.logs()[ledger.origin].last.size == newest == answered[-1]


def test_a_witness_without_its_memory_or_with_another_cosigns_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no witness remembers"):
        Witness.load(tmp_path / "none.json")
    witness = Witness.create(tmp_path / "state.json", "audit.example/w1")
    with pytest.raises(NotAllowed):
        Witness.create(tmp_path / "state.json", "audit.example/w1")
    with pytest.raises(InputError):
        Witness.create(tmp_path / "x.json", "a name with spaces")
    kept = witness.state.read_bytes()
    for wrong in (b"", b"{}", kept[:-3], kept.replace(b'"logs": {}', b'"logs": {"x": {"vkeys": [], "note": "a"}}')):
        witness.state.write_bytes(wrong)
        with pytest.raises(InputError, match="not the memory"):
            Witness.load(witness.state)
    witness.state.unlink()
    with pytest.raises(NotAllowed, match="key without the memory"):
        Witness.create(tmp_path / "state.json", "audit.example/w1")


def test_a_ledger_takes_only_true_lines_of_witnesses_it_knows(pair: tuple[Ledger, Witness], tmp_path: Path) -> None:
    ledger, witness = pair
    ledger.append(some(5))
    _seen, line = witness.visit(reader(ledger.folder), WHEN)
    before = ledger.checkpoint()
    stranger = Witness.create(tmp_path / "other" / "state.json", "audit.example/w2")
    stranger.know(SigningKeys.load(tmp_path / "keys").vkey)
    _seen, strange = stranger.visit(reader(ledger.folder), WHEN)
    ledger.append(some(1, 5))
    for wrong, said in ((line, "false"), (strange, "no known witness"), (b"- x y\n", "signature line"), (b"\n\n", "")):
        if said:
            with pytest.raises(DoesNotHold, match=said):
                ledger.witnessed(wrong)
        else:
            assert ledger.witnessed(wrong) == 0
    assert before != ledger.checkpoint()
    assert notes.cosignatures(ledger.checkpoint(), [witness.vkey, stranger.vkey]) == {}


def test_the_add_checkpoint_call_answers_as_its_specification_says(
    pair: tuple[Ledger, Witness], tmp_path: Path
) -> None:
    ledger, witness = pair
    ledger.append(some(5))
    five = ledger.checkpoint()
    assert exchange.answer(witness, exchange.request(0, [], five), WHEN)[0] == 200
    ledger.append(some(5, 5))
    ten = ledger.checkpoint()
    assert exchange.answer(witness, exchange.request(3, [], ten), WHEN) == (409, exchange.SIZE_TYPE, b"5\n")
    assert exchange.answer(witness, exchange.request(5, [bytes(32)], ten), WHEN)[0] == 422
    status, _type, line = exchange.answer(witness, exchange.request(5, ledger.consistency(5), ten), WHEN)
    assert (status, ledger.witnessed(line)) == (200, 1)
    assert exchange.answer(witness, exchange.request(10, [], ten), WHEN)[0] == 200  # the same again
    assert exchange.answer(witness, exchange.request(11, [], ten), WHEN)[0] == 400
    assert exchange.answer(witness, exchange.request(10, [], ten.replace(b"\n10\n", b"\n11\n")), WHEN)[0] == 403
    assert exchange.answer(witness, exchange.request(0, [], ten.replace(b"2026", b"2027")), WHEN)[0] == 404
    hash_ = b"A" * 43 + b"=\n"
    for junk in (
        b"",
        b"old 5\n",
        b"old 05\n\n" + ten,
        b"old 5\nx\n\n" + ten,
        b"old 5\n" + hash_ * 64 + b"\n" + ten,
        b"\xff" * 9,
    ):
        assert exchange.answer(witness, junk, WHEN)[0] == 400


# ------------------------------------------------------------ time


class _Tsa(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        query = self.rfile.read(int(self.headers["Content-Length"]))
        reply = server.wrong or server.tsa.reply(query)
        self.send_response(200 if server.up else 503)
        self.send_header("Content-Type", stamp.REPLY_TYPE)
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_words: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    tsa: LocalTsa
    up, wrong = True, b""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Server]:
    server = _Server(("127.0.0.1", 0), _Tsa)
    server.tsa = LocalTsa.make(tmp_path_factory.mktemp("tsa") / "one")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_token_covers_the_very_bytes_of_the_checkpoint_and_freezes_them(
    pair: tuple[Ledger, Witness], authority: _Server, tmp_path: Path
) -> None:
    ledger, witness = pair
    ledger.append(some(5))
    _seen, line = witness.visit(reader(ledger.folder), WHEN)
    ledger.witnessed(line)
    assert not ledger.stamped
    ledger.stamp(stamp.HttpTimeStamper(f"http://127.0.0.1:{authority.server_port}/").stamp)
    assert ledger.stamped
    for name, content in ledger.files():
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_bytes(content())
    check = ("ts", "-verify", "-in", tmp_path / "out/checkpoint.tsr", "-CAfile", authority.tsa.ca, "-data")
    openssl(*check, tmp_path / "out" / "checkpoint")
    (tmp_path / "other").write_bytes(ledger.checkpoint() + b"\n")
    with pytest.raises(AssertionError, match="message imprint mismatch"):
        openssl(*check, tmp_path / "other")
    with pytest.raises(NotAllowed, match="late cosignature"):
        ledger.witnessed(line)
    ledger.append(some(5, 5))
    names = {name for name, _read in ledger.files()}
    assert {"checkpoints/5", "checkpoints/5.tsr"} <= names
    assert "checkpoint.tsr" not in names


def test_an_authority_that_is_away_refuses_or_answers_something_else_leaves_no_token(
    pair: tuple[Ledger, Witness], authority: _Server
) -> None:
    ledger, _witness = pair
    ledger.append(some(5))
    stamper = stamp.HttpTimeStamper(f"http://127.0.0.1:{authority.server_port}/")
    for up, wrong, error in (
        (False, b"", Unavailable),
        (True, b"junk", DoesNotHold),
        (True, authority.tsa.stamp(b"something else"), DoesNotHold),
        (True, authority.tsa.stamp(ledger.checkpoint()), DoesNotHold),  # somebody else's nonce
        (True, bytes.fromhex("30053003020102"), Unavailable),
    ):
        authority.up, authority.wrong = up, wrong
        try:
            with pytest.raises(error):
                ledger.stamp(stamper.stamp)
        finally:
            authority.up, authority.wrong = True, b""
    with pytest.raises(Unavailable):
        ledger.stamp(stamp.HttpTimeStamper("http://127.0.0.1:9/", seconds=2).stamp)
    assert not ledger.stamped

    def slow(data: bytes) -> bytes:
        ledger.append(some(1, 50))
        return authority.tsa.stamp(data)

    with pytest.raises(WriterBusy, match="grew"):
        ledger.stamp(slow)


# ------------------------------------------------------------ rotation and shards


def test_a_new_log_key_takes_over_through_one_checkpoint_that_both_sign(pair: tuple[Ledger, Witness]) -> None:
    ledger, witness = pair
    old = SigningKeys.load(ledger.folder.parent / "keys").vkey
    ledger.append(some(5))
    early = ledger.receipt(2)
    other = reopened(ledger.folder.parent)  # another process, which still holds the old key
    index = ledger.rotate(NOW)
    new = SigningKeys.load(ledger.folder.parent / "keys").vkey
    assert new != old
    receipt = (ledger.folder / "rotations" / f"{index}.tlog-proof").read_bytes()
    both = receipt.partition(b"\n\n")[2]
    assert notes.parse(both, old) == notes.parse(both, new)
    assert ledger.receipt(2) != early
    other.append(some(2, 7))
    ledger.append(some(1, 9))
    assert not notes.signed_by(ledger.checkpoint(), old)
    assert notes.parse(ledger.checkpoint(), new).size == 9
    kept = dict(ledger.entries())[index]
    assert (kept["old"], kept["new"]) == (str(old), str(new))
    with pytest.raises(DoesNotHold):  # the witness is told the new key from outside
        witness.visit(reader(ledger.folder), WHEN)
    witness.know(new)
    assert witness.visit(reader(ledger.folder), WHEN)[0].size == 9
    ledger.rotate(NOW)
    assert len(SigningKeys.load(ledger.folder.parent / "keys").former) == 2
    assert whole(reopened(ledger.folder.parent))


def test_a_kill_at_any_step_of_a_rotation_leaves_one_key_in_charge(tmp_path: Path) -> None:
    start(tmp_path / "clean")[1].append(some(250))
    real, kills = os.fsync, 0
    while True:
        folder = tmp_path / f"kill-{kills}"
        shutil.copytree(tmp_path / "clean", folder)
        left = [kills]

        def counted(handle: int, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                os._exit(9)
            real(handle)

        def killed(folder: Path = folder, counted=counted) -> None:  # type: ignore[no-untyped-def]
            ledger = reopened(folder)
            os.fsync = counted
            ledger.rotate(NOW)

        code = in_a_child(killed)
        after = reopened(folder)
        assert after.size in (250, 251)
        after.append(some(1, 900))  # signed by exactly one key
        keys = SigningKeys.load(folder / "keys")
        assert sum(notes.signed_by(after.checkpoint(), one) for one in keys.vkeys) == 1
        rotated = [one["new"] for _i, one in after.entries() if one["type"] == "key.rotated"]
        assert rotated == ([str(keys.vkey)] if len(keys.former) else [])
        assert len(list((folder / "ledger" / "rotations").glob("*"))) == len(rotated)
        if not rotated:
            after.rotate(NOW)
        assert whole(reopened(folder))
        kills += 1
        if code == 0:
            break
        assert code == 9
    assert kills > 12


def test_a_shard_says_which_one_it_goes_on_from(tmp_path: Path) -> None:
    keys, ledger = start(tmp_path)
    ledger.append(some(5))
    last = notes.parse(ledger.checkpoint(), keys.vkey)
    with pytest.raises(NotAllowed):
        ledger.continues(last, NOW)
    following = SigningKeys.create(tmp_path / "keys-2", origin="ledger.example.com/erasure/2027")
    new = Ledger.create(tmp_path / "two", origin=following.origin, head=tmp_path / "second" / "two", keys=following)
    new.continues(last, NOW)
    assert next(new.entries())[1] == {
        **entry("ledger.continued", origin=keys.origin, size=5, root=last.root.hex()),
        "v": 1,
    }
    with pytest.raises(NotAllowed):
        new.continues(last, NOW)


# ------------------------------------------------------------ the whole ledger again


def test_the_check_of_the_whole_ledger_finds_one_changed_byte_anywhere(tmp_path: Path) -> None:
    _keys, ledger = start(tmp_path)
    ledger.append(some(700))
    ledger.check()
    for path in sorted((tmp_path / "ledger" / "tile").rglob("*")):
        if path.is_file():
            good = path.read_bytes()
            path.write_bytes(good[:40] + bytes([good[40] ^ 1]) + good[41:])
            with pytest.raises(LedgerForked):
                Ledger.open(
                    ledger.folder, head=tmp_path / "second/head", keys=SigningKeys.load(tmp_path / "keys")
                ).check()
            path.write_bytes(good)
    assert entries.tag(SECRET, 5) in ledger.find([entries.tag(SECRET, 5)])

"""One pass finds nested, overlapping and edge needles, by any engine; what it holds stays in this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from residue.references import references
from residue.test_forms import PEOPLE

from fangxin.checks.residue import engines
from fangxin.checks.residue.carve import Limits, Walk
from fangxin.checks.residue.containers import registry
from fangxin.checks.residue.containers.piece import InMemory, Window
from fangxin.checks.residue.engines import AhoCorasick, Engine, Hyperscan, Mailboxes, WithAddresses, finder
from fangxin.checks.residue.patterns import Breadth, Needles, needles_for
from fangxin.checks.residue.scan import HITS, scan, stored
from fangxin.data.catalog.kinds import canonical
from fangxin.data.errors import InputError
from fangxin.data.sample.lecard import sample
from fangxin.data.sample.people import make_people
from fangxin.data.vocabulary import Identity

PHONE = Identity("phone_number", "+8613912345678")

# ---------------------------------------------------------------- engines agree


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=5), min_size=1, max_size=6, unique=True),
    st.lists(st.binary(max_size=6), max_size=12),
)
def test_both_engines_find_what_a_plain_loop_finds(needles: list[bytes], parts: list[bytes]) -> None:
    """NULs, nested and overlapping needles included."""
    body = b"".join([*parts, *needles, *needles[::-1]])
    wanted = {n + 5: data for n, data in enumerate(needles)}
    plain = {(n, i, i + len(data)) for n, data in wanted.items() for i in range(len(body)) if body.startswith(data, i)}
    for engine in (AhoCorasick, Hyperscan):
        assert {tuple(row) for row in engine(wanted)(body).tolist()} == plain, engine


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([b"a@b.cn", b"A@B.CN", b"li.wei@b.cn", b"@", b"x", b"a@B.c", b"\0", b"wei@"])))
def test_addresses_in_any_case_are_those_of_a_plain_loop(parts: list[bytes]) -> None:
    body, wanted = b"".join(parts), {3: b"a@b.cn", 4: b"li.wei@b.cn", 5: b"wei@b.cn"}
    low = body.lower()
    plain = {(n, i, i + len(d)) for n, d in wanted.items() for i in range(len(low)) if low.startswith(d, i)}
    assert {tuple(row) for row in Mailboxes(wanted)(body).tolist()} == plain
    both = WithAddresses({9: b"x"}, wanted, Engine.AHOCORASICK)(body).tolist()
    assert {tuple(row) for row in both} == plain | {(9, i, i + 1) for i in range(len(body)) if body[i : i + 1] == b"x"}


def test_hyperscan_gives_the_same_hits_as_the_default_engine() -> None:
    body = b"\n".join(data for one in PEOPLE for data in references(one.kind, one.value).values())
    people = list(enumerate(PEOPLE))
    shown = []
    for engine in Engine:
        hits = needles_for(people, engine=engine).find(body)
        shown.append(sorted(zip(hits.needle.tolist(), hits.start.tolist(), hits.end.tolist(), strict=True)))
    assert shown[0] == shown[1] == shown[2]
    assert len(shown[0]) > 1000


def test_hyperscan_takes_over_once_it_pays_and_what_it_cannot_compile_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "WORTH", 10)
    find, body = finder({7: b"abc", 9: b"c\0"}), b"xabc\0"
    used = []
    for engine in (AhoCorasick, Hyperscan):
        plain = engine.__call__
        monkeypatch.setattr(
            engine, "__call__", lambda self, body, plain=plain: used.append(type(self)) or plain(self, body)
        )
    for _ in range(6):
        assert find(body).tolist() == [[7, 1, 4], [9, 3, 5]]
    assert used == [AhoCorasick] * 3 + [Hyperscan] * 4  # 20 bytes pay for two needles; it is tried once before

    long = b"a" * 40_000  # more than hyperscan compiles
    with pytest.raises(InputError, match="cannot search for these 1 forms"):
        Hyperscan({7: long})
    monkeypatch.setattr(engines, "WORTH", 50_000)
    find = finder({7: long})
    assert [find(long).tolist() for _ in range(3)] == [[[7, 0, 40_000]]] * 3
    assert used[7:] == [AhoCorasick] * 3


@given(st.lists(st.tuples(st.integers(0, 200_000), st.sampled_from([m for k in registry.KINDS for m in k.marks]))))
@settings(max_examples=20, deadline=None)
def test_the_same_marks_are_seen_whoever_looks_for_the_short_ones(places: list[tuple[int, bytes]]) -> None:
    body = bytearray(np.random.default_rng(3).bytes(200_000))
    for at, mark in places:
        body[at : at + len(mark)] = mark
    quick = list(registry.marks(bytes(body)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "LARGE", len(body) + 100)
        assert list(registry.marks(bytes(body))) == quick
    assert registry._quick_for_short() is not None


@given(st.integers(1, 400), st.integers(1, 90), st.integers(1, 120))
@settings(max_examples=60, deadline=None)
def test_a_file_comes_in_the_windows_of_a_stream(size: int, margin: int, chunk: int) -> None:
    file = InMemory(bytes(n % 251 for n in range(size)))
    walk = Walk(size, margin, Limits(chunk=chunk), [], None, [], columns=False)
    window, streamed = Window(margin), []
    for at in range(0, size, chunk):
        streamed.append(window.push(file.at(at, chunk), last=at + chunk >= size))
    assert list(walk.windows(file)) == streamed


def test_an_engine_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hyperscan", None)
    with pytest.raises(InputError, match="hyperscan") as told:
        needles_for([(0, PHONE)], engine=Engine.HYPERSCAN)
    assert "fangxin[fast]" in str(told.value.hint)


def test_needles_beyond_the_size_of_a_full_table_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "DFA", 0)
    assert len(needles_for([(0, PHONE)]).find(b"x 13912345678 y").needle) == 1


# ---------------------------------------------------------------- one large file, side by side


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(0, (4 << 16) - 100), max_size=6),
    st.sampled_from(["as it is, utf-8", "as it is, json every", "as it is, utf-16-le", "as it is, url every"]),
    st.integers(1, 3),
)
def test_a_needle_on_the_edge_of_a_piece_is_counted_once(places: list[int], name: str, workers: int) -> None:
    data = references(PHONE.kind, PHONE.value)[name]
    body, used = bytearray(b"\x07") * (4 << 16), list[int]()
    for at in places:
        if all(abs(at - other) > len(data) + 2 for other in used):
            body[at : at + len(data)] = data
            used.append(at)
    found = in_memory(bytes(body), needles(), workers=workers)
    assert sum(found.values()) == len(used)


def in_memory(body: bytes, wanted: Needles, *, workers: int) -> dict[str, int]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        return scan([("here", Path(file.name))], wanted, workers=workers, limits=Limits(chunk=1 << 16)).totals(0)


_NEEDLES: list[Needles] = []


def needles() -> Needles:
    if not _NEEDLES:
        _NEEDLES.append(needles_for([(0, PHONE)]))
    return _NEEDLES[0]


def test_progress_adds_up_to_the_bytes_of_all_files(tmp_path: Path) -> None:
    for n in range(5):
        (tmp_path / f"{n}").write_bytes(os.urandom(300_000 * n))
    files = [(f"{n}", tmp_path / f"{n}") for n in range(5)]
    files.append(("gone", tmp_path / "gone"))
    told: list[int] = []
    scan(files, needles(), limits=Limits(chunk=1 << 16), progress=told.append)
    assert sum(told) == stored(files) == 3_000_000
    assert min(told) >= 0
    assert len(told) > 20


def test_a_file_that_shrinks_while_it_is_read_is_not_examinable(tmp_path: Path) -> None:
    path = tmp_path / "u"
    path.write_bytes(b"13912345678\n" + bytes(1 << 20))

    def cut(_read: int) -> None:
        os.truncate(path, 4096)

    result = scan([("u", path)], needles(), limits=Limits(chunk=1 << 16), progress=cut)
    assert result.totals(0) == {"u": 1}
    assert [reason for _place, reason in result.not_examinable if "shorter" in reason or "changed" in reason]


def test_what_is_written_after_the_last_read_is_no_change(tmp_path: Path) -> None:
    path = tmp_path / "lease"
    path.write_bytes(b"13912345678\n" + bytes(100))

    def beat(_read: int) -> None:  # its owner's clock goes on, once all of it was read
        with path.open("r+b") as file:
            file.write(b"\1")

    result = scan([("lease", path)], needles(), progress=beat)
    assert result.totals(0) == {"lease": 1}
    assert result.not_examinable == []


def test_a_heartbeat_between_two_reads_is_no_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lease"
    path.write_bytes(b"13912345678\n" + bytes(100))
    real, beats = os.pread, iter(range(1, 4))

    def read(fd: int, length: int, offset: int) -> bytes:
        found = real(fd, length, offset)
        if beat := next(beats, 0):
            path.write_bytes(b"13912345678\n" + bytes([beat]) * 100)
        return found

    monkeypatch.setattr(os, "pread", read)
    result = scan([("lease", path)], needles())
    assert result.totals(0) == {"lease": 1}
    assert result.not_examinable == []
    beats = iter(range(1, 1000))
    result = scan([("lease", path)], needles())
    assert [reason for _place, reason in result.not_examinable] == ["changed while it was read"]


# ---------------------------------------------------------------- other people are not hit


@pytest.mark.drill
def test_other_people_of_the_sample_are_not_taken_for_somebody(tmp_path: Path) -> None:
    sample(tmp_path / "estate", people=150, seed=7)
    strangers = make_people(np.random.default_rng(4711), 12, 0)
    text = (tmp_path / "estate" / "cast.json").read_text()
    wanted = [
        (n, Identity(kind, canonical(kind, value)))
        for kind, column in (("phone_number", "phone"), ("email", "email"), ("cn_resident_id", "id_number"))
        for n, value in enumerate(getattr(strangers, column).to_pylist()[:12])
        if value not in text
    ]
    assert len(wanted) > 30
    files = [(str(p), p) for p in (tmp_path / "estate").rglob("*") if p.is_file()]
    for breadth in Breadth:
        result = scan(files, needles_for(wanted, breadth=breadth))
        assert result.hits.num_rows == 0
        assert sum(result.coverage["bytes_read"].to_pylist()) > 500_000
    own = json.loads(text)["leavers"][0]["phone_number"]
    assert scan(files, needles_for([(0, Identity("phone_number", canonical("phone_number", own)))])).hits.num_rows > 0


# ---------------------------------------------------------------- needles stay in this process


def test_a_process_with_needles_leaves_no_core_file() -> None:
    code = (
        "import resource, os\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (-1, -1)) if os.geteuid() == 0 else None\n"
        "from fangxin.checks.residue.patterns import needles_for\n"
        "from fangxin.data.vocabulary import Identity\n"
        "needles_for([(0, Identity('phone_number', '+8613912345678'))])\n"
        "print(resource.getrlimit(resource.RLIMIT_CORE)[0])\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(shown) in (0, 1)


def test_a_report_of_hits_in_every_form_holds_no_needle(tmp_path: Path) -> None:
    (tmp_path / "u").write_bytes(b"\n".join(d for one in PEOPLE for d in references(one.kind, one.value).values()))
    wanted = needles_for(list(enumerate(PEOPLE)))
    result = scan([("here", tmp_path / "u")], wanted)
    printed = " ".join(map(repr, (wanted, next(iter(wanted)), result, *PEOPLE))) + str(result.hits.to_pydict())
    assert result.hits.num_rows > 500
    assert result.hits.schema == HITS
    for needle in wanted:
        assert needle.data.decode("latin-1") not in printed or len(needle.data) < 8
    again = scan([("here", tmp_path / "u")], wanted)
    assert set(result.hits["digest"].to_pylist()).isdisjoint(again.hits["digest"].to_pylist())

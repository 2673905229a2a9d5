"""The scan finds a person in every form and container it claims to examine, and says what it cannot."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import sqlite3
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import csv
from residue.references import uuid_bytes

from fangxin.checks.residue.carve import Limits, carve
from fangxin.checks.residue.patterns import Breadth, Context, Needle, Needles, needles_for
from fangxin.checks.residue.scan import Scan, scan, walk
from fangxin.data.columnar.footer import InMemory
from fangxin.data.vocabulary import Identity

PHONE, MAIL, CARD, ADDRESS = "13912345678", "mei.zhang+x@example.com", "6222020903001234567", "上海市徐汇区漕溪北路88号"
PEOPLE = [
    (0, Identity("phone_number", "+86" + PHONE)),
    (0, Identity("email", MAIL)),
    (0, Identity("bank_card", CARD)),
    (1, Identity("cn_resident_id", "11010119900307231X")),
    (1, Identity("address", ADDRESS)),
    (1, Identity("imei", "490154203237518")),
    (1, Identity("oaid", "1b4e28ba-2fa1-11d2-883f-0016d3cca427")),
]


@pytest.fixture(scope="module")
def needles() -> Needles:
    return needles_for(PEOPLE)


def found(place: Scan, column: str = "container") -> set[str]:
    return set(place.hits[column].to_pylist())


def once(path: Path, data: bytes, needles: Needles, **kw: Limits) -> Scan:
    path.write_bytes(data)
    return scan([("here", path)], needles, **kw)


# ---------------------------------------------------------------- every form in every container


def parquet(values: pa.Array, **options: object) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"note": values}), out, **options)
    return out.getvalue()


def unreferenced(values: Sequence[bytes]) -> bytes:
    """A category column whose entries no row refers to: what a filtered rewrite leaves behind."""
    entries = pa.array([*values, b"kept"], pa.binary())
    rows = pa.array([len(values)] * 3, pa.int32())
    return parquet(pa.DictionaryArray.from_arrays(rows, entries))


def sqlite_file(path: Path, values: Sequence[bytes], *, delete: bool = False, padding: int = 0) -> bytes:
    base = sqlite3.connect(path)
    base.executescript(
        "PRAGMA page_size = 1024; PRAGMA secure_delete = OFF; CREATE TABLE notes (id INTEGER, note BLOB)"
    )
    base.executemany("INSERT INTO notes VALUES (?, ?)", [(i, b"-" * padding + v) for i, v in enumerate(values)])
    base.commit()
    if delete:
        base.execute("DELETE FROM notes")
        base.commit()
    base.close()
    return path.read_bytes()


def zipped(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", data)
    return out.getvalue()


def in_tar(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def arrow(values: Sequence[bytes]) -> bytes:
    out = io.BytesIO()
    feather.write_feather(pa.table({"note": pa.array(values, pa.binary())}), out, compression="zstd")
    return out.getvalue()


def stream(codec: str, data: bytes) -> bytes:
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, codec) as packed:
        packed.write(data)
    return out.getvalue().to_pybytes()


LINES: Callable[[Sequence[bytes]], bytes] = b"\n".join
CONTAINERS: dict[str, tuple[str, Callable[[Sequence[bytes], Path], bytes]]] = {
    "plain file": ("raw", lambda v, _p: LINES(v)),
    "gzip": ("gzip", lambda v, _p: gzip.compress(LINES(v))),
    "gzip in the middle of a file": ("gzip", lambda v, _p: os.urandom(999) + gzip.compress(LINES(v)) + b"tail"),
    "zlib": ("zlib", lambda v, _p: zlib.compress(LINES(v))),
    "bz2": ("bz2", lambda v, _p: bz2.compress(LINES(v))),
    "xz": ("xz", lambda v, _p: lzma.compress(LINES(v))),
    "zstd": ("zstd", lambda v, _p: stream("zstd", LINES(v))),
    "lz4": ("lz4", lambda v, _p: stream("lz4", LINES(v))),
    "zip": ("zip", lambda v, _p: zipped(LINES(v))),
    "gzip in zip": ("zip > gzip", lambda v, _p: zipped(gzip.compress(LINES(v)))),
    "tar.gz": ("gzip", lambda v, _p: gzip.compress(in_tar("a", LINES(v)))),
    "Parquet in tar": ("tar > parquet:dictionary", lambda v, _p: in_tar("a", parquet(pa.array(v, pa.binary())))),
    "feather": ("arrow:column", lambda v, _p: arrow(v)),
    **{
        f"Parquet plain, {codec}, v{version[0]}": (
            "parquet:page",
            lambda v, _p, codec=codec, version=version: parquet(
                pa.array(v, pa.binary()), use_dictionary=False, compression=codec, data_page_version=version
            ),
        )
        for codec in ("none", "snappy", "gzip", "zstd", "lz4", "brotli")
        for version in ("1.0", "2.0")
    },
    "Parquet dictionary": ("parquet:dictionary", lambda v, _p: parquet(pa.array(v, pa.binary()), compression="zstd")),
    "Parquet entry without a row": ("parquet:dictionary", lambda v, _p: unreferenced(v)),
    "Parquet DELTA_BYTE_ARRAY": (
        "parquet:values",
        lambda v, _p: parquet(
            pa.array(sorted(v), pa.binary()), use_dictionary=False, column_encoding={"note": "DELTA_BYTE_ARRAY"}
        ),
    ),
    "Parquet DELTA_LENGTH": (
        "parquet:page",
        lambda v, _p: parquet(
            pa.array(v, pa.binary()), use_dictionary=False, column_encoding={"note": "DELTA_LENGTH_BYTE_ARRAY"}
        ),
    ),
    "SQLite row": ("sqlite:table=notes", lambda v, p: sqlite_file(p, v)),
    "SQLite row over many pages": ("sqlite:table=notes", lambda v, p: sqlite_file(p, v, padding=950)),
    "SQLite free page": ("sqlite:free", lambda v, p: sqlite_file(p, v, delete=True)),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_byte_form_is_found_in_every_container(container: str, needles: Needles, tmp_path: Path) -> None:
    # A form whose neighbours are base64 characters of other bits is written with the bits it needs.
    wanted = [n for n in needles if "int48" not in n.form and n.context is Context.ANY]
    values = list({_in_context(n): n for n in wanted})
    label, build = CONTAINERS[container]
    result = once(tmp_path / "unit", build(values, tmp_path / "made.db"), needles)
    there = result.hits.filter(pa.compute.equal(result.hits["container"], label))
    seen = set(zip(there["identity"].to_pylist(), there["form"].to_pylist(), strict=True))
    missing = {(n.identity, n.form) for n in wanted} - seen
    print(f"{container:32} {label:28} {len(seen):5} forms found, {len(missing)} missing")
    if container == "SQLite free page":  # a freed cell loses its first four bytes: at most one value a page
        assert len(missing) <= 0.01 * len(seen)
    else:
        assert not missing
    assert result.not_examinable == []


def _in_context(needle: Needle) -> bytes:
    """A needle as it may stand in a file: base64 with the shared characters of a real encoding around it."""
    if "base64" in needle.form and " at " in needle.form and not needle.form.startswith(_DIGESTS):
        return _BASE64[(needle.identity, needle.form)]
    return needle.data


_DIGESTS = ("md5", "sha", "sm3")
_BASE64: dict[tuple[int, str], bytes] = {}


@pytest.fixture(scope="module", autouse=True)
def _encodings() -> None:
    import base64

    from fangxin.checks.residue.patterns import spellings

    for number, (_subject, identity) in enumerate(PEOPLE):
        written = {name: text.encode() for name, text in spellings(identity).items()}
        for name, raw in (written | uuid_bytes(identity.value)).items():
            for shift in range(3):
                whole = base64.b64encode(b"?" * shift + raw + b"?")
                of = f" ({name})" if name else ""
                _BASE64[(number, f"base64 at {shift}{of}")] = whole
                _BASE64[(number, f"base64url at {shift}{of}")] = whole.replace(b"+", b"-").replace(b"/", b"_")


@pytest.mark.parametrize("kind", ["int64", "float64"])
@pytest.mark.parametrize(
    "options", [{}, {"use_dictionary": False}, {"column_encoding": "x"}], ids=["dict", "plain", "x"]
)
def test_a_phone_stored_as_a_number_is_found(
    kind: str, options: dict[str, object], needles: Needles, tmp_path: Path
) -> None:
    if "column_encoding" in options:
        hiding = "DELTA_BINARY_PACKED" if kind == "int64" else "BYTE_STREAM_SPLIT"
        options = {"column_encoding": {"note": hiding}, "use_dictionary": False}
    values = pa.array([int(PHONE), 14000000001, 13000000001]).cast(kind)
    result = once(tmp_path / "u", parquet(values, write_statistics=False, **options), needles)
    assert f"{kind} le (11)" in found(result, "form")
    assert found(result, "column") == {"note"}


def test_numbers_of_six_bytes_are_found_in_sqlite_rows_and_free_pages(needles: Needles, tmp_path: Path) -> None:
    base = sqlite3.connect(tmp_path / "u")
    base.executescript("CREATE TABLE t (phone INTEGER, name TEXT)")
    base.executemany("INSERT INTO t VALUES (?, ?)", [(int(PHONE), "x" * 40), (1, "y")])
    base.commit()
    alive = scan([("db", tmp_path / "u")], needles)
    assert "sqlite:table=t" in found(alive)
    assert "phone" in found(alive, "column")
    base.execute("PRAGMA secure_delete = OFF")
    base.execute("DELETE FROM t WHERE phone > 1")
    base.commit()
    base.close()
    gone = scan([("db", tmp_path / "u")], needles)
    assert "sqlite:free" in found(gone)
    assert "sqlite:table=t" not in found(gone)
    assert found(gone, "form") == {"sqlite int48 (11)"}


def test_a_database_in_wal_mode_and_a_large_one_are_read_in_place(needles: Needles, tmp_path: Path) -> None:
    base = sqlite3.connect(tmp_path / "u")
    base.executescript("PRAGMA journal_mode = WAL; CREATE TABLE t (mail TEXT)")
    base.execute("INSERT INTO t VALUES (?)", (MAIL,))
    base.commit()
    assert "raw" in found(scan([("wal", tmp_path / "u-wal")], needles))
    base.close()
    for limits in (Limits(), Limits(database=1000)):
        result = scan([("db", tmp_path / "u")], needles, limits=limits)
        assert "sqlite:table=t" in found(result)
        assert result.not_examinable == []
    assert not (tmp_path / "u-wal").exists()


def test_statistics_and_key_values_of_a_footer_are_found(needles: Needles, tmp_path: Path) -> None:
    table = pa.table({"phone": [PHONE, "19999999999"]}, metadata={"made for": MAIL})
    pq.write_table(table, tmp_path / "u", compression="zstd", write_page_index=True)
    result = scan([("u", tmp_path / "u")], needles)
    assert {"parquet:statistics", "parquet:key-value", "parquet:index", "parquet:dictionary"} <= found(result)
    assert "parquet:footer" not in found(result)


def test_bytes_between_pages_are_searched(needles: Needles, tmp_path: Path) -> None:
    data = parquet(pa.array(["a"]))
    length = int.from_bytes(data[-8:-4], "little")
    footer = len(data) - 8 - length
    result = once(tmp_path / "u", data[:footer] + PHONE.encode() + data[footer:], needles)
    assert found(result) == {"parquet:gap"}


def test_names_links_and_attributes_are_searched(needles: Needles, tmp_path: Path) -> None:
    folder = tmp_path / f"user={PHONE}"
    folder.mkdir()
    (folder / "empty").mkdir()
    (tmp_path / "link").symlink_to(f"{MAIL}.csv")
    (tmp_path / "tagged").write_bytes(b"nothing")
    os.setxattr(tmp_path / "tagged", "user.owner", CARD.encode())
    result = scan(walk([tmp_path]), needles)
    assert found(result) == {"name"}
    assert set(result.hits["identity"].to_pylist()) == {0, 1, 2}
    assert result.not_examinable == []


# ---------------------------------------------------------------- nothing is missed, nothing is invented


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3 << 16), min_size=1, max_size=8), st.integers(0, 4))
def test_a_needle_on_the_edge_of_a_chunk_is_counted_once(places: list[int], which: int) -> None:
    needles = _small()
    value = PEOPLE[which][1].value.encode()
    data = bytearray(3 * (1 << 16) + 64)
    used: list[int] = []
    for at in places:
        if all(abs(at - other) > len(value) for other in used):
            data[at : at + len(value)] = value
            used.append(at)
    hits = 0
    for piece in carve(InMemory(bytes(data)), margin=needles.margin, limits=Limits(chunk=1 << 16), problems=[]):
        starts = needles.find(piece.data).start
        hits += int(((starts >= piece.start) & (starts < (piece.stop or 0))).sum())
    assert hits == len(used)


_SMALL: list[Needles] = []


def _small() -> Needles:
    if not _SMALL:
        _SMALL.append(needles_for(PEOPLE, breadth=Breadth.CORE))
    return _SMALL[0]


def test_random_bytes_give_no_hits(needles: Needles) -> None:
    data = np.random.default_rng(7).bytes(64 << 20)
    pieces = list(carve(InMemory(data), margin=needles.margin, problems=(problems := [])))
    assert sum(len(needles.find(p.data).needle) for p in pieces) == 0
    assert problems == []


@pytest.mark.parametrize("count", [4_000, pytest.param(20_000, marks=pytest.mark.drill)])
def test_other_peoples_data_gives_no_hits(tmp_path: Path, count: int) -> None:
    random = np.random.default_rng(11)
    phones = random.choice(9 * 10**8, count + 50, replace=False) + 13_000_000_000
    table = pa.table(
        {
            "phone": pa.array(phones[50:]).cast(pa.string()),
            "number": phones[50:],
            "mail": [f"u{p % 10**8}.wang@example.com" for p in phones[50:].tolist()],
            "id": [f"11010119{p % 10**10:010d}" for p in (phones[50:] * 7).tolist()],
        }
    )
    pq.write_table(table, tmp_path / "p.parquet", compression="zstd")
    csv.write_csv(table, tmp_path / "c.csv")
    base = sqlite3.connect(tmp_path / "s.db")
    base.execute("CREATE TABLE t (phone TEXT, number INTEGER, mail TEXT, id TEXT)")
    base.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", zip(*table.to_pydict().values(), strict=True))
    base.commit()
    base.close()
    leavers = [
        (s, Identity(kind, value))
        for s, p in enumerate(phones[:50].tolist())
        for kind, value in (
            ("phone_number", f"+86{p}"),
            ("email", f"u{p % 10**8}.wang@example.com"),
            ("cn_resident_id", f"11010119{p * 7 % 10**10:010d}"),
        )
    ]
    result = scan(walk([tmp_path]), needles_for(leavers))
    assert result.hits.num_rows == 0
    assert result.not_examinable == []


def test_a_value_inside_another_is_reported_for_both(tmp_path: Path) -> None:
    outer, inner = Identity("email", f"{PHONE}@example.com"), Identity("phone_number", "+86" + PHONE)
    result = once(tmp_path / "u", outer.value.encode(), needles_for([(0, outer), (1, inner)]))
    assert result.totals(0) == {"here": 1}
    assert result.totals(1) == {"here": 1}


@pytest.mark.parametrize("written", [MAIL.upper(), "Mei.Zhang+X@Example.com", "mEI.zHANG+x@eXAMPLE.COM"])
def test_letters_count_in_any_case(tmp_path: Path, written: str) -> None:
    found = once(tmp_path / "u", f"x;{written};y".encode(), needles_for(PEOPLE))
    assert found.totals(0) == {"here": 1}


@pytest.mark.parametrize(
    ("written", "inside"),
    [(f"9{PHONE}", True), (f"{PHONE}0", True), (f"tel{PHONE}x", False), (f" {PHONE},", False),
     (f"li.{MAIL}", True), (f"{MAIL}.cn", True), (f"{MAIL}. Bye", False), (f"<{MAIL}>", False)],
)  # fmt: skip
def test_a_hit_says_whether_it_looks_like_part_of_something_longer(tmp_path: Path, written: str, inside: bool) -> None:
    found = once(tmp_path / "u", f"a {written} b".encode(), needles_for(PEOPLE))
    assert found.hits["inside"].to_pylist() == [inside]


def test_a_value_two_people_share_counts_for_both(tmp_path: Path) -> None:
    shared = [(0, Identity("email", MAIL)), (1, Identity("email", MAIL))]
    result = once(tmp_path / "u", MAIL.encode() * 3, needles_for(shared))
    assert result.totals(0) == result.totals(1) == {"here": 3}
    assert len(found(result, "digest")) == 1


def test_a_neighbour_in_base64_is_not_taken_for_the_person(needles: Needles, tmp_path: Path) -> None:
    import base64

    neighbour = PHONE[:-1] + "9"
    for shift in range(3):
        own = base64.b64encode(b"?" * shift + PHONE.encode() + b"?")
        other = base64.b64encode(b"?" * shift + neighbour.encode() + b"?")
        assert once(tmp_path / "u", own, needles).hits.num_rows == 1
        assert once(tmp_path / "u", other, needles).hits.num_rows == 0


# ---------------------------------------------------------------- what cannot be examined is said


def test_a_truncated_archive_is_not_examinable_and_still_searched(needles: Needles, tmp_path: Path) -> None:
    text = PHONE.encode() + os.urandom(200_000)
    result = once(tmp_path / "u", gzip.compress(text)[:150_000], needles)
    assert "gzip" in found(result)
    assert result.not_examinable == [("here", "gzip: cut short: the stream ends before its end mark")]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a foreign Parquet file", b"PAR1" + b"x" * 50),
        ("an encrypted Parquet file", b"PARE" + b"x" * 50 + b"\x04\0\0\0PARE"),
        ("a broken zip", b"PK\3\4" + b"x" * 100),
        ("a broken database", b"SQLite format 3\0" + b"\x10\0" + b"x" * 5000),
        ("a DuckDB file", b"\0" * 8 + b"DUCK" + b"\0" * 100),
        ("a 7-Zip archive", b"7z\xbc\xaf\x27\x1c" + b"\0" * 50),
        ("broken zstd", b"\x28\xb5\x2f\xfd" + b"x" * 100),
        ("broken xz", b"\xfd7zXZ\0" + b"x" * 100),
        ("a broken Feather file", b"ARROW1\0\0" + b"x" * 100),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_what_cannot_be_decoded_is_named_and_searched_raw(
    name: str, data: bytes, needles: Needles, tmp_path: Path
) -> None:
    result = once(tmp_path / "u", data + b"\n" + PHONE.encode() + b"\n", needles)
    assert result.totals(0) == {"here": result.hits["hits"].to_pylist()[0]}, name
    assert len(result.not_examinable) >= 1


def test_a_damaged_page_is_named_and_its_neighbours_are_read(needles: Needles, tmp_path: Path) -> None:
    table = pa.table({"a": [f"{i}" * 50 for i in range(1000)], "b": [MAIL] * 1000})
    pq.write_table(table, tmp_path / "u", compression="zstd", use_dictionary=False)
    data = bytearray((tmp_path / "u").read_bytes())
    data[200:260] = os.urandom(60)
    result = once(tmp_path / "u", bytes(data), needles)
    assert [reason for _place, reason in result.not_examinable if "parquet:page" in reason]
    assert "b" in found(result, "column")


def test_a_bomb_stops_and_is_named(needles: Needles, tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(64 << 20))
    result = once(tmp_path / "u", bomb, needles, limits=Limits(free=1 << 20, ratio=100, memory=1 << 20))
    assert "unpacks to more than" in result.not_examinable[0][1]


def test_nesting_stops_at_its_limit_and_is_named(needles: Needles, tmp_path: Path) -> None:
    data = PHONE.encode()
    for _ in range(9):
        data = gzip.compress(data)
    result = once(tmp_path / "u", data, needles)
    assert "nested deeper" in result.not_examinable[0][1]


def test_a_file_that_shrinks_or_cannot_be_opened_is_named(needles: Needles, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    result = scan([("pipe", tmp_path / "pipe"), ("gone", tmp_path / "gone")], needles)
    assert [place for place, _reason in result.not_examinable] == ["pipe", "gone"]


# ---------------------------------------------------------------- nothing of the person in what is handed out


def test_no_value_shows_in_anything_printed(needles: Needles, tmp_path: Path) -> None:
    base = sqlite3.connect(tmp_path / "u")
    base.execute(f'CREATE TABLE "{PHONE}" (mail TEXT)')
    base.execute(f'INSERT INTO "{PHONE}" VALUES (?)', (MAIL,))
    base.commit()
    base.close()
    result = scan([("here", tmp_path / "u")], needles)
    printed = repr(needles) + repr(next(iter(needles))) + repr(result) + str(result.hits.to_pydict())
    assert result.hits.num_rows > 0
    assert not [identity.value for _s, identity in PEOPLE if identity.value in printed]


def test_forms_too_short_to_search_are_counted(needles: Needles) -> None:
    free = [len(n.data) for n in needles if "int48" not in n.form and n.context is Context.ANY]
    assert min(free) >= 8
    assert min(len(n.data) for n in needles) >= 4
    short = needles_for([(0, Identity("account", "123"))])
    assert short.omitted["number too short for a search"] == 1


def test_a_crowd_is_searched_in_the_core_forms_and_coverage_says_so(tmp_path: Path) -> None:
    crowd = [(i, Identity("phone_number", f"+86{13_000_000_000 + 7919 * i}")) for i in range(1_001)]
    result = once(tmp_path / "u", b"\n".join(i.value[3:].encode() for _s, i in crowd), needles_for(crowd))
    assert result.coverage["breadth"].to_pylist() == ["core"]
    assert len(set(result.hits["subject"].to_pylist())) == len(crowd)


# ---------------------------------------------------------------- spellings that programs make of a value


@pytest.mark.parametrize(
    "written",
    [
        r"mei.zhang\u002bx\u0040example.com",
        r"mei\u002ezhang+x\u0040example.com",
        r"\u006dei.zhang+x@example.com",
        r"139\u003123\u00345678",
    ],
)
def test_a_value_of_which_some_characters_are_escaped_is_found_once(tmp_path: Path, written: str) -> None:
    found_ = once(tmp_path / "u", f'{{"a": "{written}", "b": "\\u003cb\\u003e"}}'.encode(), needles_for(PEOPLE))
    assert found_.totals(0) == {"here": 1}
    assert found_.hits["first_offset"].to_pylist() == [7]
    assert found_.hits["inside"].to_pylist() == [False]


@pytest.mark.parametrize("written", ["1.3912345678E10", "1.3912345678e+10", "1.3912345678E+10"])
def test_a_number_in_scientific_notation_is_found(tmp_path: Path, written: str) -> None:
    assert once(tmp_path / "u", f"1;{written};2".encode(), needles_for(PEOPLE)).totals(0) == {"here": 1}


@pytest.mark.parametrize("kind", [pa.decimal128(20, 2), pa.decimal128(15, 0), pa.decimal256(40, 4)])
def test_a_number_in_a_column_of_decimals_is_found(tmp_path: Path, kind: pa.DataType) -> None:
    values = pa.array([7, int(PHONE), 8]).cast(pa.decimal128(19, 0)).cast(kind)
    result = once(tmp_path / "u", parquet(values), needles_for(PEOPLE))
    own = result.hits.filter(pa.compute.equal(result.hits["container"], "parquet:values"))
    assert own["hits"].to_pylist() == [1]
    assert own["inside"].to_pylist() == [False]


@pytest.mark.parametrize(
    ("written", "inside"),
    [
        (f"86{PHONE}", False),
        (f"0086{PHONE}", False),
        (f"7786{PHONE}", True),
        (f"\\u7535{PHONE}", False),
        (f"\\u0035{PHONE}", True),
        (f"%E7%94%B5{PHONE}", False),
        (f"=E7=94=B5{PHONE}", False),
        (f"{MAIL}.Thanks", False),
        (f"{MAIL}- and", False),
        ("mei.zhang+x@example.org", True),
        ("mei.zhang+x@examplf", False),
        ("mei.zhang+x@exam", False),
    ],
)
def test_what_is_in_doubt_stands_alone(tmp_path: Path, written: str, inside: bool) -> None:
    """A country code, an escaped character before it, the end of a sentence, a bound that was cut short."""
    found_ = once(tmp_path / "u", f"a {written} b".encode(), needles_for(PEOPLE))
    assert set(found_.hits["inside"].to_pylist()) == {inside}


def test_a_spelling_that_was_seen_is_searched_too(tmp_path: Path) -> None:
    text = "１３９　１２３４　５６７８"
    path = tmp_path / "u"
    path.write_text(f"x;{text};y")
    assert scan([("here", path)], needles_for(PEOPLE)).totals(0) == {}
    assert scan([("here", path)], needles_for(PEOPLE, spelled={0: [text]})).totals(0) == {"here": 1}


@pytest.mark.parametrize(
    ("number", "neighbour"),
    [
        ("880546068222742323", "880546068222742324"),
        ("018f3c2a-1b2c-7d00-8000-000000000001", "018f3c2a-1b2c-7d01-8000-000000000002"),
    ],
)
def test_the_next_number_that_a_system_gave_is_somebody_elses(tmp_path: Path, number: str, neighbour: str) -> None:
    wanted = needles_for([(0, Identity("ref:accounts.id", number))])
    (tmp_path / "a.csv").write_text(f"id\n{neighbour}\n")
    assert scan([("a", tmp_path / "a.csv")], wanted).hits.num_rows == 0
    (tmp_path / "a.csv").write_text(f"id\n{number}\n")
    assert scan([("a", tmp_path / "a.csv")], wanted).hits.num_rows > 0

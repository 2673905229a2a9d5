"""A bloom filter is asked for the leaver, and its column decides what a "perhaps" means."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fangxin.checks.residue.containers.bloom import Probes, hashes
from fangxin.checks.residue.patterns import Breadth, needles_for
from fangxin.checks.residue.results import Result, classes
from fangxin.checks.residue.scan import Scan, scan
from fangxin.data.columnar.footer import InMemory, open_footer
from fangxin.data.vocabulary import Identity

LEAVER = Identity("phone_number", "+8613900000777")
NEIGHBOURS = [f"138{n:08d}" for n in range(2_000)]


def written(
    phones: Sequence[str | None], *, fpp: float = 0.01, more: Callable[[pa.Array], pa.Array] = lambda a: a
) -> bytes:
    """A file with a column of phones and its filter, in two row groups."""
    table = pa.table({"phone": more(pa.array(phones, pa.string()))})
    (leaf,) = {pq.ParquetSchema.column(pq.ParquetFile(_sink(table)).schema, 0).path}
    options = {leaf: {"ndv": 2_000, "fpp": fpp}}
    return _sink(table, bloom_filter_options=options, row_group_size=1_001, compression="none").getvalue()


def _sink(table: pa.Table, **options: object) -> io.BytesIO:
    out = io.BytesIO()
    pq.write_table(table, out, **options)
    out.seek(0)
    return out


def with_filters_of(body: bytes, old: bytes) -> bytes:
    """New rows under the old file's filters."""
    out = bytearray(body)
    pairs = zip(open_footer(InMemory(body)).chunks, open_footer(InMemory(old)).chunks, strict=True)
    for chunk, before in pairs:
        assert chunk.bloom is not None
        assert before.bloom is not None
        assert chunk.bloom.length == before.bloom.length
        out[chunk.bloom.offset : chunk.bloom.end] = old[before.bloom.offset : before.bloom.end]
    return bytes(out)


def look(body: bytes, folder: Path, who: Identity = LEAVER, breadth: Breadth | None = None) -> Scan:
    (folder / "u").write_bytes(body)
    return scan([("u", folder / "u")], needles_for([(0, who)], breadth=breadth))


def answers(seen: Scan) -> tuple[int, int, int]:
    """Values that are not excluded, explained, remembered."""
    (row,) = seen.filters.to_pylist()
    return row["perhaps"], row["explained"], row["remembered"]


@pytest.mark.parametrize("breadth", Breadth)
@pytest.mark.parametrize("column", ["text", "number", "list", "category"])
def test_an_old_filter_over_new_rows_remembers_the_leaver(column: str, breadth: Breadth, tmp_path: Path) -> None:
    """The positive control: the value stands nowhere else, in no form."""
    shapes: dict[str, Callable[[pa.Array], pa.Array]] = {
        "text": lambda a: a,
        "number": lambda a: a.cast(pa.int64()),
        "list": lambda a: pa.array([[one, None] for one in a.to_pylist()]),
        "category": lambda a: a.dictionary_encode(),
    }
    before = written([*NEIGHBOURS, "13900000777"], more=shapes[column])
    assert answers(look(before, tmp_path, breadth=breadth))[2] == 0  # she stands there, so the filter may know her
    rows = [*NEIGHBOURS, NEIGHBOURS[0]]
    clean = written(rows, more=shapes[column])
    assert look(clean, tmp_path, breadth=breadth).hits.num_rows == 0
    after = look(with_filters_of(clean, before), tmp_path, breadth=breadth)
    assert after.not_examinable == []
    assert set(after.hits["container"].to_pylist()) == {"parquet:bloom-probe"}
    assert all(form.endswith(", remembered by a bloom filter") for form in after.hits["form"].to_pylist())
    assert answers(after)[2] >= 1
    assert [one.result for one in classes(after)] == [Result.FOUND]


def test_a_filter_made_of_the_survivors_that_says_perhaps_by_chance_is_no_hit(tmp_path: Path) -> None:
    """The negative control: of two hundred strangers asked, dozens are not excluded, and each is explained."""
    body = written(NEIGHBOURS, fpp=0.1)
    (tmp_path / "u").write_bytes(body)
    strangers = [(n, Identity("phone_number", f"+86137{n:08d}")) for n in range(200)]
    needles = needles_for(strangers, breadth=Breadth.CORE)
    seen = scan([("u", tmp_path / "u")], needles)
    (row,) = seen.filters.to_pylist()
    assert row["filters"] == 2
    assert row["asked"] == 2 * len(needles.probes)
    assert row["perhaps"] > 20
    assert row["perhaps"] == pytest.approx(row["by_chance"], rel=0.5)  # what its own bits foretell
    assert (row["explained"], row["remembered"]) == (row["perhaps"], 0)
    assert seen.hits.num_rows == 0
    assert seen.not_examinable == []


def test_a_file_without_a_filter_is_not_asked(tmp_path: Path) -> None:
    out = io.BytesIO()
    pq.write_table(pa.table({"phone": NEIGHBOURS}), out)
    assert look(out.getvalue(), tmp_path).filters.num_rows == 0


def test_a_filter_whose_column_cannot_be_read_is_not_examinable(tmp_path: Path) -> None:
    body = bytearray(written([*NEIGHBOURS, "13900000777"]))
    chunk = next(c for c in open_footer(InMemory(bytes(body))).chunks if c.row_group == 1)
    body[chunk.span.offset : chunk.span.offset + 8] = b"\xff" * 8
    seen = look(bytes(body), tmp_path)
    assert any("parquet:bloom-probe" in reason for _place, reason in seen.not_examinable)
    perhaps, explained, remembered = answers(seen)
    assert (perhaps > explained, remembered) == (True, 0)


def test_a_filter_of_another_kind_is_not_examinable(tmp_path: Path) -> None:
    body = written([*NEIGHBOURS, "13900000777"])
    chunk = open_footer(InMemory(body)).chunks[0]
    assert chunk.bloom is not None
    header = body[chunk.bloom.offset : chunk.bloom.offset + 24]
    at = chunk.bloom.offset + header.index(b"\x1c\x1c\x00\x00")  # its algorithm is block 1: field 1 of a union
    other = body[: at + 1] + b"\x2c" + body[at + 2 :]
    seen = look(other, tmp_path)
    assert [reason for _place, reason in seen.not_examinable] == [
        "parquet:bloom-probe: a bloom filter has an algorithm that is not known here"
    ]


@pytest.mark.parametrize(
    ("data", "digest"),
    [
        (b"", 0xEF46DB3751D8E999),
        (b"a", 0xD24EC4F1A98C6E5B),
        (b"abc", 0x44BC2CF5AD770999),
        (b"Nobody inspects the spammish repetition", 0xFBCEA83C8A378BF1),
    ],
)
def test_the_hash_of_bloom_filters_is_xxh64(data: bytes, digest: int) -> None:
    assert hashes(pa.array([b"xx", data, b"abc"], pa.large_binary()).slice(1)).tolist() == [digest, 0x44BC2CF5AD770999]


def test_values_of_every_length_have_the_hash_that_a_writer_gave_them(tmp_path: Path) -> None:
    """pyarrow wrote the filter: whatever stands in a column, none of it is excluded."""
    chance = np.random.default_rng(1)
    texts = ["".join(chr(97 + c) for c in chance.integers(0, 26, n)) for n in range(100)]
    out = io.BytesIO()
    pq.write_table(pa.table({"t": texts}), out, bloom_filter_options={"t": {"ndv": 100, "fpp": 1e-6}})
    (tmp_path / "u").write_bytes(out.getvalue())
    probes = Probes({text: [0] for text in texts})
    from fangxin.checks.residue.carve import Answer, carve

    told: list[Answer] = []
    problems: list[str] = []
    list(carve(InMemory(out.getvalue()), margin=64, problems=problems, probes=probes, answers=told))
    assert [(a.asked, a.perhaps, a.explained) for a in told] == [(100, 100, 100)]
    assert problems == []

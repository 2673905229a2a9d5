"""Text stores keep the promises of every store, and copy neighbours byte for byte."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import zstandard
from contracts.store import BATCH, PEOPLE, PERSON, StoreContract, collection

from fangxin.data.errors import CatalogError, StoreUnavailable
from fangxin.data.stores import records
from fangxin.data.stores.text import TextStore
from fangxin.data.vocabulary import Blank, Change, Meter, Order, Redaction


def as_csv(rows: Sequence[Mapping[str, Any]], ending: str = "\r\n") -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, ["member_id", "phone", "name", "note"], lineterminator=ending)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def as_jsonl(rows: Sequence[Mapping[str, Any]], *, ascii_only: bool = False) -> bytes:
    return b"".join(json.dumps(r, ensure_ascii=ascii_only).encode() + b"\n" for r in rows)


class TestCsvStore(StoreContract):
    protects = False
    glob = "ads/*.csv"
    names = ("ads/a.csv", "ads/b.csv")

    def lay(self, root: Path) -> None:
        for name, rows in zip(self.names, (PEOPLE[:3], PEOPLE[3:]), strict=True):
            path = root / "out" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.encode(rows))

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        return b"\xef\xbb\xbf" + as_csv(rows)

    def open(self, root: Path, meter: Meter | None = None) -> TextStore:
        base = root if (root / "out").is_dir() else root.parent
        return TextStore(base, "out/", (collection("text", "out/", self.glob),), meter or Meter())

    def truncate(self, path: Path) -> None:
        whole = path.read_bytes()
        path.write_bytes(whole[: whole.rindex(b",")])


class TestJsonLinesStore(TestCsvStore):
    glob = "**/chat-*.jsonl"
    names = ("2024/chat-a.jsonl", "chat-b.jsonl")

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        return as_jsonl(rows)


class TestGzippedJsonLinesStore(TestJsonLinesStore):
    glob = "*.jsonl.gz"
    names = ("a.jsonl.gz", "b.jsonl.gz")

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        return gzip.compress(as_jsonl(rows))

    def truncate(self, path: Path) -> None:
        path.write_bytes(path.read_bytes()[:-9])


class TestTextPackedWithGzipAndWithZstd(TestJsonLinesStore):
    """Two months of one collection, packed in two ways; one of them in two frames."""

    glob = "chats-*.jsonl.*"
    names = ("chats-05.jsonl.zst", "chats-06.jsonl.gz")

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        content = as_jsonl(rows)
        if rows[0] != PEOPLE[0]:
            return gzip.compress(content)
        return b"".join(zstandard.ZstdCompressor().compress(part) for part in (content[:40], content[40:]))

    def truncate(self, path: Path) -> None:
        path.write_bytes(path.read_bytes()[:-3])


class TestOneCsvFileWithoutWildcard(TestCsvStore):
    keeps_rows_in = 1
    glob = "export.csv"

    def lay(self, root: Path) -> None:
        (root / "out").mkdir()
        (root / "out/export.csv").write_bytes(as_csv(PEOPLE, "\n").removesuffix(b"\n"))


def one(tmp_path: Path, name: str, content: bytes, **kw: Any) -> TextStore:
    (tmp_path / name).write_bytes(content)
    return TextStore(tmp_path, ".", (collection("text", ".", name, **kw),), Meter())


def positions(*at: int) -> np.ndarray:
    return np.array(at, dtype=np.int64)


def test_survivors_are_the_same_bytes(tmp_path: Path) -> None:
    lines = [
        b"\xef\xbb\xbfmember_id,phone,name,note\r\n",
        b'"1",13900000001,"a ""b""",\r\n',
        b'2,13800138000,"many\r\nlines",x\r\n',
        b"\r\n",
        b"3,,  spaced ,'y'\r\n",
        b'4,5,6,"7"',
    ]
    store = one(tmp_path, "a.csv", b"".join(lines))
    order = Order(store.units()[0], (Change(store.collections[0], positions(1)),))
    list(store.erase([order], batch=BATCH))
    assert (tmp_path / "a.csv").read_bytes() == b"".join(lines[:2] + lines[3:])


def test_a_changed_json_record_keeps_its_order_spaces_and_escapes(tmp_path: Path) -> None:
    old = (
        '{"note": "call \\u5f20 13800138000","phone" :  "1", "member_id":9007199254740993,"name":{"a": [1]}}\n'
        '{"name":{"a": ["张13800138000"]},"phone":"13800138000","member_id":2,"note":"13800138000 张"}\n\n'
        '{"member_id": 3}\n'
    )
    store = one(tmp_path, "a.jsonl", old.encode())
    texts = pa.array([PERSON, PERSON])
    redact = {"note": Redaction(positions(0, 1), texts), "name": Redaction(positions(1), texts[:1])}
    change = Change(store.collections[0], positions(), blank={"phone": Blank(positions(1), None)}, redact=redact)
    list(store.erase([Order(store.units()[0], (change,))], batch=BATCH))
    assert (tmp_path / "a.jsonl").read_text() == (
        '{"note": "call \\u5f20 ***","phone" :  "1", "member_id":9007199254740993,"name":{"a": [1]}}\n'
        '{"name":{"a": ["张***"]},"phone":null,"member_id":2,"note":"*** 张"}\n\n'
        '{"member_id": 3}\n'
    )
    ids = [v for _, rows in store.scan({"shop/members": ["member_id"]}) for v in rows.columns[0].to_pylist()]
    assert ids == [9007199254740993, 2, 3]


def test_records_are_found_wherever_blocks_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = as_csv(PEOPLE)
    whole = list(one(tmp_path, "a.csv", content).scan({"shop/members": ["note", "member_id"]}))
    assert len(whole) == 1
    for size in (1, 2, 7, 64, 133):
        monkeypatch.setattr(records, "CHUNK", size)
        store = one(tmp_path, "a.csv", content)
        parts = [rows for _, rows in store.scan({"shop/members": ["note", "member_id"]})]
        assert [v for p in parts for v in p.columns[0].to_pylist()] == [p["note"] for p in PEOPLE]
        assert [v for p in parts for v in p.positions.tolist()] == list(range(len(PEOPLE)))
        list(store.erase([Order(store.units()[0], (Change(store.collections[0], positions(1, 4)),))], batch=f"b{size}"))
        assert (tmp_path / "a.csv").read_bytes() == as_csv([p for p in PEOPLE if p["phone"] != PERSON])


def test_the_gzipped_file_tells_neither_time_nor_name(tmp_path: Path) -> None:
    content = as_jsonl(PEOPLE)
    made = []
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        store = one(tmp_path / name, "a.jsonl.gz", gzip.compress(content[:60]) + gzip.compress(content[60:]))
        list(store.erase([Order(store.units()[0], (Change(store.collections[0], positions(1, 4)),))], batch=BATCH))
        made.append((tmp_path / name / "a.jsonl.gz").read_bytes())
    assert made[0] == made[1]
    assert made[0][3:8] == bytes(5)  # no flags, no time
    assert gzip.decompress(made[0]) == as_jsonl([p for p in PEOPLE if p["phone"] != PERSON])


def test_everybody_may_leave_and_the_header_stays(tmp_path: Path) -> None:
    store = one(tmp_path, "a.csv", as_csv(PEOPLE))
    (done,) = store.erase(
        [Order(store.units()[0], (Change(store.collections[0], np.arange(len(PEOPLE))),))], batch=BATCH
    )
    assert done.rows_after == {"shop/members": 0}
    assert (tmp_path / "a.csv").read_bytes() == as_csv([])
    store.check(for_writing=True)


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("quote-inside-a-cell.csv", b'member_id,phone,name,note\n1,2,3,4\n1,2"x",3,4\n', "line 3"),
        ("quote-never-closed.csv", b'member_id,phone,name,note\n1,2,3,4\n1,"2,3,4\n', "line 3"),
        ("cells-missing.csv", b"member_id,phone,name,note\n1,2,3,4\n1,2\n", "record 1"),
        ("not-utf8.csv", "member_id,phone,name,note\n1,2,张,4\n".encode("gb18030"), "UTF-8"),
        ("no-header.csv", b"", "header"),
        ("not-an-object.jsonl", b'{"member_id": 1}\n[1]\n', "record 1"),
        ("cut.jsonl", b'{"member_id": 1}\n{"member_id": 2, "pho', "record 1"),
        ("text-as-number.jsonl", b'{"member_id": "x"}\n', "integers"),
    ],
)
def test_a_malformed_record_is_named_by_its_place_not_its_content(
    tmp_path: Path, name: str, content: bytes, line: str
) -> None:
    store = one(tmp_path, name, content)
    with pytest.raises(StoreUnavailable, match=line) as told:
        store.check(for_writing=True)
    assert name in str(told.value)
    assert "张" not in str(told.value)


def test_two_collections_may_not_claim_one_unit(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(as_csv(PEOPLE))
    both = (collection("text", ".", "*.csv"), collection("text", ".", "a.*", name="others"))
    with pytest.raises(CatalogError, match=r"shop.yml:3:5: shop/others claims unit 'a.csv'"):
        TextStore(tmp_path, ".", both, Meter()).units()


def test_a_record_with_a_key_twice_is_refused_before_anything_changes(tmp_path: Path) -> None:
    store = one(
        tmp_path, "a.jsonl", b'{"member_id":1,"note":"x","phone":"","name":""}\n{"note":"a","n\\u006fte":"b"}\n'
    )
    with pytest.raises(StoreUnavailable, match="every key once in record 2"):
        store.check(for_writing=True)


def test_a_longer_number_that_holds_the_persons_stays(tmp_path: Path) -> None:
    store = one(tmp_path, "a.jsonl", f'{{"note":"call {PERSON} parcel 77{PERSON}888"}}\n'.encode())
    change = Change(store.collections[0], positions(), redact={"note": Redaction(positions(0), pa.array([PERSON]))})
    list(store.erase([Order(store.units()[0], (change,))], batch=BATCH))
    assert (tmp_path / "a.jsonl").read_text() == f'{{"note":"call *** parcel 77{PERSON}888"}}\n'


def test_a_record_nested_beyond_what_python_reads_is_kept_and_can_go(tmp_path: Path) -> None:
    deep = b'{"name":' + b"[" * 2000 + b"]" * 2000 + b',"phone":"1"}\n'
    store = one(tmp_path, "m.jsonl", deep + b'{"name":"b","phone":"2"}\n' + deep)
    (collection,) = store.collections
    store.plant([(collection, {"phone": "3"})])
    list(store.erase([Order(store.units()[0], (Change(collection, positions(1, 2)),))], batch=BATCH))
    assert (tmp_path / "m.jsonl").read_bytes() == deep + b'{"phone":"3"}\n'

"""Pages for people: both languages, nothing fetched, nothing claimed that the document does not say."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import stat
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jinja2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fangxin.checks.residue.forms import LEFT_OUT, Breadth
from fangxin.checks.residue.patterns import needles_for
from fangxin.data.errors import StoreUnavailable
from fangxin.data.vocabulary import Identity
from fangxin.flows.sight import left_out
from fangxin.reports.certificate import CertificateFacts, certificate, certificate_bytes
from fangxin.reports.export import manifest, write_index
from fangxin.reports.render import methods, number, render, size
from fangxin.reports.words import LEFT_OUT as WORDS
from fangxin.reports.words import LIMITS


class Page(HTMLParser):
    """Tags, attributes and text of a page; refuses tags that are closed in the wrong order."""

    VOID = frozenset({"meta", "br", "rect", "img", "link"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


def page(certificate: dict[str, Any]) -> tuple[str, Page]:
    html = render(certificate).decode()
    return html, Page(html)


def failed(facts: CertificateFacts) -> CertificateFacts:
    table = facts.findings.copy()
    hit = (table["subject"] == 0) & (table["collection"] == "会员")
    table.loc[hit, ["verdict", "claim"]] = ["FAILED", ""]
    table.loc[hit, "reason"] = "1 hits that nothing explains and 0 rows found again"
    table.loc[hit, "hits_after"] = 1
    return replace(facts, findings=table)


def self_contained(html: str, seen: Page) -> None:
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in html
    assert not {"script", "link", "iframe", "object", "embed", "form", "base", "a"} & set(seen.tags)
    assert not [name for name, _value in seen.attributes if name.startswith("on") or name in ("src", "href", "srcset")]
    assert not re.search(r"url\(|@import|https?://|//[a-z]|javascript:", html, re.IGNORECASE)


def test_a_certificate_page_needs_nothing_from_outside(facts: CertificateFacts) -> None:
    self_contained(*page(certificate(facts)))


@pytest.mark.scenario("S37")
def test_the_page_speaks_both_languages_and_shows_every_figure(facts: CertificateFacts) -> None:
    document = certificate(facts)
    _html, seen = page(document)
    text = seen.text
    for shown in ("FX-2026-000147", "个人信息擦除证明", "Certificate of erasure", "依法保留", "retained by law",
                  "2029-11-22", "《电子商务法》第三十一条", "2026-11-22T22:51Z", "nightly", "2026-12-27",
                  "ledger.example.com/erasure/2026", "index 70112", "verify.py"):  # fmt: skip
        assert shown in text
    for limit in document["limits"]:
        assert limit["zh"] in text
        assert limit["en"] in text
    assert hashlib.sha256(certificate_bytes(document)).hexdigest() in text
    for row in document["collections"]:
        assert f"{row['dataset']}/{row['collection']}" in text


def test_a_crowds_certificate_says_which_forms_were_not_searched_and_others_that_all_were(
    facts: CertificateFacts,
) -> None:
    full = page(certificate(facts))[1].text
    assert "full: every form" in full
    assert "not searched" not in full
    crowd = [(1, Identity("phone_number", "+8613800138000")), (2, Identity("email", "a@b.cn"))]
    made = needles_for(crowd, breadth=Breadth.CORE)
    omitted = left_out(made.omitted)
    assert [form for form, _n in omitted][: len(LEFT_OUT)] == list(LEFT_OUT)
    assert {n for form, n in omitted if form in LEFT_OUT} == {2}
    scan = replace(facts.scan, breadth=str(made.breadth), omitted=omitted)
    said = page(certificate(replace(facts, scan=scan)))[1].text
    words = [word for form, _n in omitted for word in WORDS[form]]
    assert [word for word in (*words, "core: the batch held more than 1,000", "核心形式") if word not in said] == []
    assert LIMITS["crowd"].en in said
    assert LIMITS["crowd"].zh in said


def test_the_page_never_claims_more_than_overwriting_shows(facts: CertificateFacts, erased: CertificateFacts) -> None:
    for one in (facts, erased, failed(facts)):
        html, _seen = page(certificate(one))
        assert not re.search(r"clear|purg|permanent|forever|irrecover|彻底|永久|无法恢复", html, re.IGNORECASE)


@pytest.mark.scenario("S37")
def test_each_outcome_is_told_in_plain_words(facts: CertificateFacts, erased: CertificateFacts) -> None:
    kept, gone, bad = (page(certificate(one))[1].text for one in (facts, erased, failed(facts)))
    assert "Erased, except for what the law requires to be kept." in kept
    assert "the records that were yours have been erased" in gone
    assert "法律要求保留" not in gone
    assert "The erasure is not complete." in bad
    assert "have been erased" not in bad
    alone = [{**row, "verdict": "FAILED"} for row in certificate(erased)["collections"]]
    assert methods(alone) == []  # nothing is said of what was done to the bytes where it did not hold


def test_a_step_that_did_not_take_place_is_not_told(facts: CertificateFacts) -> None:
    bare = replace(
        facts, keys=replace(facts.keys, destroyed=0, domains=(), kept=(), holders=()), copies=(), export=None
    )
    bare = replace(bare, shared=(), mentions=(), times=replace(bare.times, keys_destroyed=None))
    text = page(certificate(bare))[1].text
    for absent in ("protected your data were destroyed", "Copies that still exist", "handed over", "Other people"):
        assert absent not in text


def test_the_same_certificate_gives_the_same_page(facts: CertificateFacts) -> None:
    document = certificate(facts)
    again = json.loads(certificate_bytes(document))
    assert render(document) == render(again)


def test_text_from_a_catalog_cannot_become_markup(facts: CertificateFacts) -> None:
    document = copy.deepcopy(certificate(facts))
    evil = '<script>alert(1)</script>"><img src=x onerror=y>'
    document["number"] = document["retained"][0]["text_zh"] = document["collections"][0]["reason"] = evil
    document["evidence"]["proof"] = document["keys"]["holders"][0]["conditions"] = evil
    html, seen = page(document)
    assert "<script" not in html
    assert "img" not in seen.tags
    assert evil in seen.text


@pytest.mark.parametrize("key", ["times", "scan", "signer", "limits"])
def test_a_certificate_with_a_part_missing_is_not_rendered(key: str, facts: CertificateFacts) -> None:
    document = certificate(facts)
    del document[key]
    with pytest.raises(jinja2.UndefinedError):
        render(document)


def test_figures_are_written_readably() -> None:
    assert number(1_234_567) == "1\u202f234\u202f567"
    assert [size(n) for n in (0, 1023, 1024, 1_572_864, 5 << 40)] == ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "5.0 TiB"]


# ---------------------------------------------------------------- exports


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    people = {"member_id": [7], "手机号": ["13900001111"], "photo": [b"\x00" * 40], "note": [None]}
    orders = {"order_id": list(range(1_000)), "goods": [f"<b>item {n}</b>" for n in range(1_000)]}
    pq.write_table(pa.table(people), tmp_path / "lecard.会员.parquet")
    pq.write_table(pa.table(orders), tmp_path / "lecard.orders.parquet", row_group_size=100)
    (tmp_path / "receipt-slip.txt").write_text("not part of the export")
    return tmp_path


@pytest.mark.scenario("S11")
def test_a_manifest_lists_hash_rows_and_bytes_of_every_file(folder: Path) -> None:
    listed = manifest(folder)
    assert [one["name"] for one in listed["files"]] == ["lecard.orders.parquet", "lecard.会员.parquet"]
    for one in listed["files"]:
        body = (folder / one["name"]).read_bytes()
        assert one["sha256"] == hashlib.sha256(body).hexdigest()
        assert one["bytes"] == len(body)
    assert [one["rows"] for one in listed["files"]] == [1_000, 1]
    assert listed["rows"] == 1_001
    assert manifest(folder) == listed


def test_an_export_opens_offline_in_both_languages(folder: Path) -> None:
    listed = manifest(folder)
    meant = {"lecard.会员.parquet": {"手机号": "user.contact.phone_number"}}
    index = write_index(folder, listed, meant, collections={"lecard.orders.parquet": "lecard/订单"})
    html = index.read_text("utf-8")
    seen = Page(html)
    self_contained(html, seen)
    for shown in (
        "您的数据",
        "Your data",
        "13900001111",
        "user.contact.phone_number",
        "lecard/订单",
        "40 B",
        "<b>item 4</b>",
    ):
        assert shown in seen.text
    assert "item 5<" not in seen.text
    assert stat.S_IMODE(index.stat().st_mode) == 0o600
    assert manifest(folder) == listed


def test_an_empty_export_says_that_nothing_was_found(tmp_path: Path) -> None:
    listed = manifest(tmp_path)
    assert (listed["files"], listed["rows"]) == ([], 0)
    assert "No records of yours were found." in write_index(tmp_path, listed).read_text("utf-8")


@pytest.mark.scenario("S11")
def test_a_truncated_or_linked_file_is_no_export(folder: Path) -> None:
    whole = (folder / "lecard.orders.parquet").read_bytes()
    (folder / "lecard.orders.parquet").write_bytes(whole[:-9])
    with pytest.raises(StoreUnavailable, match="whole Parquet"):
        manifest(folder)
    (folder / "lecard.orders.parquet").unlink()
    (folder / "lecard.orders.parquet").symlink_to(folder / "lecard.会员.parquet")
    with pytest.raises(StoreUnavailable, match="plain file"):
        manifest(folder)


def test_an_index_is_never_written_through_a_link(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "file"
    elsewhere.write_text("kept")
    (folder / "index.html").symlink_to(elsewhere)
    with pytest.raises(OSError, match="symbolic"):
        write_index(folder, manifest(folder))
    assert elsewhere.read_text() == "kept"

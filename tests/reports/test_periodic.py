"""The periodic report: figures that anybody can compute again, nobody in them, and no period left out in silence."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pikepdf
import pyarrow.parquet as pq
import pytest
from evidence.made_up_year import facts, made_up_report, sha, year
from jsonschema import Draft202012Validator

import fangxin.reports
from fangxin.data.errors import DoesNotHold, InputError
from fangxin.reports.period import Period
from fangxin.reports.periodic import Earlier, figures, report, report_bytes
from fangxin.reports.periodic_pages import report_html, report_pdf

SCHEMAS = Path(fangxin.reports.__file__).parent / "schemas"


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return year()


@pytest.fixture(scope="module")
def quarter(made: dict[str, Any]) -> dict[str, Any]:
    return report(facts(made, "2026-Q2"))


def conforms(document: dict[str, Any]) -> None:
    schema = Draft202012Validator(json.loads((SCHEMAS / "periodic.json").read_text("utf-8")))
    assert [error.message for error in schema.iter_errors(json.loads(report_bytes(document)))] == []


def test_a_report_is_what_its_schema_says(quarter: dict[str, Any]) -> None:
    conforms(quarter)
    conforms(report(facts({"entries": [], "certificates": {}}, "2026-11")))


@pytest.mark.scenario("S44")
def test_figures_are_those_of_the_entries(made: dict[str, Any], quarter: dict[str, Any]) -> None:
    spring = [one for _n, one in made["entries"] if "2026-04-01" <= one["time"][:10] <= "2026-06-30"]
    opened = sum(one["type"] == "request.opened" for one in spring)
    issued = [one for one in spring if one["type"] == "certificate.issued"]
    assert quarter["flow"]["received"] == opened > 50
    assert quarter["flow"]["closed"] == len(issued)
    assert quarter["ledger"]["entries"] == len(spring)
    found = sum(
        row["rows_erased"]
        for one in issued
        for row in made["certificates"][one["json"]]["collections"]
        if row["dataset"] == "wallet"
    )
    assert next(one for one in quarter["work"] if one["dataset"] == "wallet")["rows_erased"] == found
    residues = [one for one in spring if one["type"] == "residue.found"]
    assert quarter["residues"]["found"] == quarter["residues"]["answered"] == len(residues) > 0
    assert quarter["residues"]["median_minutes"] == 30 * 60


def test_percentiles_are_of_the_certificates(made: dict[str, Any], quarter: dict[str, Any]) -> None:
    spans = quarter["time"]["calendar_minutes"]
    assert spans["p50"] <= spans["p90"] <= spans["p99"] <= spans["max"]
    assert made_up_report("2026-01-01--2026-01-05")["time"]["calendar_minutes"] is None  # under five


def test_what_was_never_recorded_is_not_called_zero(quarter: dict[str, Any]) -> None:
    assert quarter["flow"]["refused"] is None
    assert quarter["trust"]["sabotage"] is None
    assert quarter["time"]["overdue"] is None
    page = report_html(quarter).decode()
    assert "not recorded" in page
    assert "无记录" in page


def test_sabotage_and_an_auditors_canaries_are_told_with_their_misses(made: dict[str, Any]) -> None:
    def of(*events: dict[str, Any]) -> dict[str, Any]:
        timed = [(9**6 + n, {"time": "2026-01-20T10:00Z", **one}) for n, one in enumerate(events)]
        return report(facts({**made, "entries": [*made["entries"], *timed]}, "2026-01"))

    run = {"type": "sabotage.run", "mutants": 51, "caught": 51, "digest": sha("code")}
    seal = {"type": "canary.planted", "digest": sha("seal")}
    told = {"type": "canary.erased", "digest": sha("told"), "seal": sha("seal"), "placements": 6, "erased": 3}
    opened = {**told, "retained": 1, "reported": 2, "missed": 0}
    good = of(run, run, seal, opened)
    assert good["trust"]["sabotage"] == {"runs": 2, "mutants": 102, "caught": 102}
    assert good["trust"]["auditors_canaries"] == {
        "sealed": 1, "opened": 1, "placements": 6, "erased": 3, "retained": 1, "reported": 2, "missed": 0,
    }  # fmt: skip
    conforms(good)
    page = report_html(good).decode()
    assert "2 run(s), 102 mutants, 102 caught" in page
    assert "of 6 placements 3 erased, 1 kept by law, 2 found outside the catalog, 0 missed" in page
    assert of(run, seal, {**opened, "erased": 2, "missed": 1})["verdict"] == "mind" != good["verdict"]
    assert of({**run, "caught": 50})["verdict"] == "mind"
    assert of(seal)["trust"]["auditors_canaries"]["opened"] == 0


def test_a_period_without_sabotage_says_so_and_is_no_success_of_nothing(made: dict[str, Any]) -> None:
    run = {"type": "sabotage.run", "time": "2026-01-02T10:00Z", "mutants": 51, "caught": 51, "digest": sha("code")}
    later = report(facts({**made, "entries": [(9**6, run), *made["entries"]]}, "2026-05"))
    assert later["trust"]["sabotage"] == {"runs": 0, "mutants": 0, "caught": 0}
    for one in (later, report(facts(made, "2026-05"))):
        row = report_html(one).decode().partition("sabotage of our own program")[2]
        assert "none in this period" in row[:200]
        assert "0 caught" not in row[:200]


def test_few_people_show_in_bands_only() -> None:
    few = made_up_report("2026-02", per_day=0.1)
    for path, count, _band in figures(few):
        if path.startswith(("flow", "work", "kept", "time/histogram")) and not path.endswith(
            ("/days", "bytes_read", "bytes_overwritten")
        ):
            assert count is None or count == 0 or count >= 5, path


def test_a_quarter_after_two_months_does_not_give_away_the_third(made: dict[str, Any]) -> None:
    lone = [one for one in made["entries"] if one[1]["type"] != "request.opened" or one[1]["time"][:7] != "2026-06"]
    extra = next(
        one for one in made["entries"] if one[1]["type"] == "request.opened" and one[1]["time"][:7] == "2026-06"
    )
    thin = {**made, "entries": sorted([*lone, extra])}
    months = [report(facts(thin, month)) for month in ("2026-04", "2026-05")]
    earlier = [Earlier(Period.parse(one["period"]["id"]), sha(one["period"]["id"]), one) for one in months]
    alone, after = report(facts(thin, "2026-Q2")), report(facts(thin, "2026-Q2", *earlier))
    assert isinstance(alone["flow"]["received"], int)
    assert isinstance(after["flow"]["received"], str)


@pytest.mark.scenario("S35")
def test_a_report_names_the_one_before_it_and_the_days_that_none_covers(made: dict[str, Any]) -> None:
    first = report(facts(made, "2026-01"))
    assert first["chain"] == {"previous": None, "missing": None}
    before = Earlier(Period.parse("2026-01"), sha("january"), first)
    second = report(facts(made, "2026-02", before))
    assert second["chain"] == {"previous": {"period": "2026-01", "json": sha("january")}, "missing": None}
    assert next(one["before"] for one in second["comparison"]) == first["flow"]["received"]
    late = report(facts(made, "2026-04", before))
    assert late["chain"]["missing"] == {"from": "2026-02-01", "to": "2026-03-31"}
    assert late["verdict"] == "mind"
    assert report(facts(made, "2026-02"))["chain"]["missing"] == {"from": "2026-01-01", "to": "2026-01-31"}


def test_a_residue_that_nothing_answers_is_told_first(made: dict[str, Any]) -> None:
    open_ = {**made, "entries": [one for one in made["entries"] if one[1]["type"] != "exception"]}
    document = report(facts(open_, "2026-Q2"))
    assert document["verdict"] == "bad"
    assert "Something that should be gone is still there" in report_html(document).decode()


def test_a_part_with_more_than_the_whole_is_refused(made: dict[str, Any]) -> None:
    part = report(facts(made, "2026-04"))
    part["flow"]["received"] = 9_999
    with pytest.raises(DoesNotHold, match="more was received"):
        report(facts(made, "2026-Q2", Earlier(Period.parse("2026-04"), sha("april"), part)))


def test_the_same_report_gives_the_same_bytes(made: dict[str, Any], quarter: dict[str, Any]) -> None:
    again = json.loads(report_bytes(report(facts(made, "2026-Q2"))))
    assert report_bytes(again) == report_bytes(quarter)
    assert report_pdf(again) == report_pdf(quarter)
    assert report_html(again) == report_html(quarter)


def test_the_pages_conform_and_carry_the_report(quarter: dict[str, Any]) -> None:
    with pikepdf.open(io.BytesIO(report_pdf(quarter))) as pdf:
        with pdf.open_metadata() as told:
            assert (told["pdfaid:part"], told["pdfaid:conformance"], told["pdfuaid:part"]) == ("3", "A", "1")
        assert pdf.attachments["report.json"].get_file().read_bytes() == report_bytes(quarter)
        assert len(pdf.pages) >= 8


def ten_pages(quarter: dict[str, Any]) -> dict[str, Any]:
    """A house with many datasets, under names of every length, and many grounds to keep."""
    names = ["wallet", "lake_transactions_archive_2019", "会员中心与积分", "partner.feed/eu-west-1", "crm",
             "deviceTelemetryRawEventsOfTheLastTwentyYears"]  # fmt: skip
    long: dict[str, Any] = json.loads(report_bytes(quarter))
    work, kept = long["work"][0], long["kept"][0]
    much = {key: value * 99_991 for key, value in work.items() if key.startswith(("rows_", "bytes_"))}
    text = {
        "text_zh": "《电子商务法》第三十一条：交易信息自交易完成之日起保存不少于三年。" * 2,
        "text_en": "E-Commerce Law, Art. 31: information on transactions is kept for three years or longer. " * 2,
    }
    long["work"] = [work | much | {"dataset": f"{names[n % len(names)]}-{n:02d}"} for n in range(108)]
    long["kept"] = [kept | text | {"rule": f"cn-ecommerce-law-31-transaction-records-{n}"} for n in range(38)]
    long["residues"]["stores"] = [[f"s-{n:02d}", "1-4"] for n in range(40)]
    long["trust"]["code"] = [sha(str(n)) for n in range(12)]
    long["trust"]["witnesses"] = [f"witness-{n}.a-rather-long-name.example.org/w1" for n in range(6)]
    return long


@pytest.mark.parametrize("language", ["zh", "en"])
def test_on_ten_pages_nothing_runs_over_an_edge_or_over_its_neighbour(quarter: dict[str, Any], language: str) -> None:
    tool = shutil.which("pdftotext")
    assert tool, "pdftotext is not installed: `make components` as root installs it"
    pdf = report_pdf(ten_pages(quarter), languages=[language])
    boxes = subprocess.run([tool, "-bbox", "-", "-"], input=pdf, capture_output=True, check=True).stdout.decode()
    pages = boxes.split("<page ")[1:]
    assert 10 <= len(pages) <= 11
    found = re.compile(r'<word xMin="([\d.]+)" yMin="([\d.]+)" xMax="([\d.]+)" yMax="([\d.]+)">(.*?)</word>')
    for page in pages:
        words = [(*map(float, one[:4]), one[4]) for one in found.findall(page)]
        assert len(words) > 50
        assert min(x for x, *_ in words) > 50
        assert max(end for _x, _y, end, *_ in words) < 595 - 50
        lines: dict[float, list[tuple[float, float, str]]] = {}
        for x, y, end, _low, text in words:
            lines.setdefault(round(y, 1), []).append((x, end, text))
        for line in lines.values():
            line.sort()
            assert [(a, b) for a, b in pairwise(line) if b[0] < a[1] - 0.5] == []


def test_the_html_page_needs_nothing_from_outside(quarter: dict[str, Any]) -> None:
    html = report_html(quarter).decode()
    assert "default-src 'none'" in html
    assert html.count("<svg") >= 4
    assert not re.search(r"<script|<link|<img|url\(|@import|https?://(?!www\.w3\.org)", html)


def test_a_dataset_named_like_markup_stays_text(quarter: dict[str, Any]) -> None:
    evil = json.loads(report_bytes(quarter))
    evil["work"][0]["dataset"] = evil["trust"]["witnesses"][0] = "<script>x</script>"
    assert "<script" not in report_html(evil).decode()


def test_every_figure_is_a_row_of_the_parquet_file(quarter: dict[str, Any]) -> None:
    from fangxin.flows.report import _table

    table = pq.read_table(io.BytesIO(_table(quarter))).to_pylist()
    assert {"figure": "flow/received", "count": quarter["flow"]["received"], "band": None} in table
    assert len(table) == len(figures(quarter)) > 80
    assert _table(quarter) == _table(quarter)


@pytest.mark.parametrize(
    ("first", "last", "id_", "bars"),
    [
        ("2026-11-01", "2026-11-30", "2026-11", 6),
        ("2026-10-01", "2026-12-31", "2026-Q4", 14),
        ("2026-01-01", "2026-12-31", "2026", 12),
        ("2026-11-03", "2026-11-09", "2026-11-03--2026-11-09", 7),
        ("2026-02-01", "2026-04-30", "2026-02-01--2026-04-30", 14),
    ],
)
def test_a_period_has_one_name_and_parts_that_cover_it(first: str, last: str, id_: str, bars: int) -> None:
    period = Period.of(first, last)
    assert period.id == id_
    assert Period.parse(id_) == period
    parts = period.parts()
    assert len(parts) == bars
    assert sum(one.days for one in parts) == period.days


@pytest.mark.parametrize(("first", "last"), [("2026-11-31", "2026-12-01"), ("2026-12-01", "2026-11-01"), ("x", "y")])
def test_a_period_that_is_none_is_refused(first: str, last: str) -> None:
    with pytest.raises(InputError):
        Period.of(first, last)


def test_a_preview_says_so(made: dict[str, Any]) -> None:
    document = report(replace(facts(made, "2026-Q2"), preview=True))
    assert "Preview" in report_html(document).decode()

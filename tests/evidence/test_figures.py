"""Each figure of a periodic report is computed again by the verifier, which shares no code with the report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from evidence.made_up_year import facts, sha, year

from fangxin.checks import verify
from fangxin.reports.period import Period
from fangxin.reports.periodic import Earlier, report, report_bytes

# What neither entries nor certificates decide, and the verifier says so.
OPEN = (
    "origin",
    "software",
    "coarse",
    "trust/witnesses",
    "trust/time_stamped",
    "time/working_days",
    "text_en",
    "text_zh",
)


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return year()


def recount(made: dict[str, Any], document: dict[str, Any], **earlier: dict[str, Any]) -> bool:
    entries = [one for _index, one in made["entries"]]
    return verify.recount(document, entries, made["certificates"], earlier, "x")


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every leaf: its path, what holds it, and under which key."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(inner, dict | list) and inner:
            yield from leaves(inner, f"{path}/{key}".lstrip("/"))
        else:
            yield f"{path}/{key}".lstrip("/"), value, key


@pytest.mark.parametrize("period", ["2026", "2026-Q2", "2026-03", "2026-02-03--2026-02-09", "2027-01"])
def test_a_true_report_holds(made: dict[str, Any], period: str) -> None:
    assert recount(made, json.loads(report_bytes(report(facts(made, period)))))


def test_bands_hold_where_the_count_lies_in_them() -> None:
    few = year(per_day=0.1)
    document = json.loads(report_bytes(report(facts(few, "2026-02"))))
    assert recount(few, document)
    assert isinstance(document["flow"]["received"], str)
    document["flow"]["received"] = "20-99"
    with pytest.raises(verify.Wrong, match="flow/received"):
        recount(few, document)


def test_no_figure_can_be_another() -> None:
    made = year(days=40, per_day=3)
    document = json.loads(report_bytes(report(facts(made, "2026-02"))))
    tried = 0
    for path, holder, key in leaves(document):
        if path.startswith(OPEN) or path.endswith(OPEN):
            continue
        true = holder[key]
        holder[key] = true + 1 if isinstance(true, int) else 7 if true is None else None
        with pytest.raises(verify.Wrong):
            recount(made, document)
        holder[key] = true
        tried += 1
    assert tried > 100
    assert recount(made, document)


def test_a_report_is_compared_with_the_one_before_it(made: dict[str, Any]) -> None:
    march = json.loads(report_bytes(report(facts(made, "2026-03"))))
    published = {"type": "report.published", "time": "2026-04-01T01:00Z", "period": "2026-03", "json": sha("march")}
    later = {**made, "entries": [*made["entries"], (len(made["entries"]), published)]}
    before = Earlier(Period.parse("2026-03"), sha("march"), march)
    april = json.loads(report_bytes(report(facts(later, "2026-04", before))))
    assert recount(later, april, **{sha("march"): march})
    april["comparison"][0]["before"] += 1
    with pytest.raises(verify.Wrong, match="comparison"):
        recount(later, april, **{sha("march"): march})
    with pytest.raises(verify.Wrong, match="comparison"):
        recount(later, april)  # though the report before is not at hand: its entries are
    april["comparison"][0]["before"] -= 1
    april["comparison"][4]["before"] = 1  # what its certificates decide alone, nobody can tell
    assert recount(later, april)


def test_without_the_certificates_durations_and_records_stay_open(made: dict[str, Any]) -> None:
    document = json.loads(report_bytes(report(facts(made, "2026-Q2"))))
    document["time"]["calendar_minutes"]["p50"] += 1
    assert not recount({**made, "certificates": {}}, document)
    with pytest.raises(verify.Wrong, match="p50"):
        recount(made, document)

"""What a certificate may say: verdicts earned by evidence, words no stronger than what was shown, canonical bytes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fangxin.data.errors import DoesNotHold
from fangxin.data.vocabulary import FINDING, Method, Verdict
from fangxin.reports.certificate import CertificateFacts, Outside, certificate, certificate_bytes, outcome_of
from fangxin.reports.render import render
from fangxin.reports.verdict import Observation, failure, verdict_of
from fangxin.reports.words import LIMITS, TOO_STRONG, claim_words, claims_too_much

SEEN = Observation(rows_found=2, rows_erased=2, baseline_hits=7, units_expected=3, units_read=3, canary_found=True)
ABSENT = Observation(baseline_hits=0, units_expected=3, units_read=3, canary_found=True)
KEPT = replace(SEEN, rows_erased=1, rows_retained=1, ground="cn-ecl-31", until="2029-11-22")


@pytest.mark.parametrize(
    ("before_and_after", "seen", "verdict"),
    [
        ("found, then nothing", SEEN, Verdict.ERASED),
        ("found, then nothing, though no canary", replace(SEEN, canary_found=False), Verdict.ERASED),
        ("found, then listed rows of others", replace(SEEN, rows_mentioned=1, hits_explained=1), Verdict.ERASED),
        ("only bytes found, in what we rewrote", replace(ABSENT, baseline_hits=1, rewritten=True), Verdict.ERASED),
        ("only bytes found, gone without us", replace(ABSENT, baseline_hits=1), Verdict.FAILED),
        (
            "its owner took the rows out first",
            replace(ABSENT, baseline_hits=1, rows_lost=2, rewritten=True),
            Verdict.ERASED,
        ),
        ("gone with a file that others replaced", replace(ABSENT, baseline_hits=1, rows_lost=2), Verdict.FAILED),
        (
            "the same, and a mention stays",
            replace(ABSENT, baseline_hits=1, rows_lost=2, rows_mentioned=1),
            Verdict.FAILED,
        ),
        ("a part gone with a file that others replaced", replace(SEEN, rows_lost=1), Verdict.FAILED),
        ("a mention masked", replace(ABSENT, baseline_hits=1, rows_mentioned=1, values_masked=1), Verdict.ERASED),
        ("found, then found", replace(SEEN, hits_after=1), Verdict.FAILED),
        ("found, then rows again", replace(SEEN, rows_residual=1), Verdict.FAILED),
        ("not found, the canary was", ABSENT, Verdict.NOT_PRESENT),
        ("only mentioned by others", replace(ABSENT, baseline_hits=2, rows_mentioned=1), Verdict.NOT_PRESENT),
        ("not found, nor the canary", replace(ABSENT, canary_found=False), Verdict.FAILED),
        ("not found, yet rows were located", replace(SEEN, baseline_hits=0), Verdict.FAILED),
        ("no baseline", replace(SEEN, baseline_hits=None), Verdict.FAILED),
        ("no baseline, nothing located", replace(ABSENT, baseline_hits=None), Verdict.FAILED),
        ("a unit unread", replace(SEEN, units_read=2), Verdict.FAILED),
        ("a part not examinable", replace(ABSENT, not_examinable="page 7 does not open"), Verdict.FAILED),
        ("an inode that nothing accounts for", replace(SEEN, leftovers=1), Verdict.FAILED),
        ("the same, where nobody was", replace(ABSENT, leftovers=1), Verdict.FAILED),
        ("an opaque store, every clause shown", replace(SEEN, opaque=True), Verdict.ERASED),
        ("not overwritten, though required", replace(SEEN, not_overwritten="replaced"), Verdict.FAILED),
        ("an opaque store, a clause open", replace(SEEN, opaque=True, open_clauses=("4",)), Verdict.FAILED),
        ("kept by law", KEPT, Verdict.RETAINED),
        ("kept until an officer decides", replace(KEPT, until="officer"), Verdict.RETAINED),
        ("kept, and something unexplained", replace(KEPT, hits_after=1), Verdict.FAILED),
        ("kept without a ground", replace(KEPT, ground=""), Verdict.FAILED),
        ("kept without an end", replace(KEPT, until=""), Verdict.FAILED),
        ("declared elsewhere", Observation(in_scope=False, out_of_scope="at a partner"), Verdict.OUT_OF_SCOPE),
        ("left out without a reason", replace(SEEN, in_scope=False), Verdict.FAILED),
    ],
)
def test_the_verdict_follows_from_before_and_after(before_and_after: str, seen: Observation, verdict: Verdict) -> None:
    assert verdict_of(seen) is verdict, before_and_after
    assert bool(failure(seen)) is (verdict is Verdict.FAILED)


COUNT = st.integers(0, 3)
OBSERVATIONS = st.builds(
    Observation,
    **{name: COUNT for name in Observation.__dataclass_fields__ if name.startswith(("rows_", "hits_", "values_"))},
    **dict.fromkeys(("units_expected", "units_read"), st.integers(0, 1)),
    baseline_hits=st.none() | COUNT,
    canary_found=st.booleans(),
    ground=st.sampled_from(["", "rule"]),
    until=st.sampled_from(["", "2030-01-01", "officer"]),
    not_examinable=st.sampled_from(["", "a page"]),
    in_scope=st.booleans(),
    out_of_scope=st.sampled_from(["", "a reason"]),
    leftovers=st.integers(0, 1),
    opaque=st.booleans(),
    rewritten=st.booleans(),
    open_clauses=st.sets(st.sampled_from("12345"), max_size=2).map(lambda open_: tuple(sorted(open_))),
)


@pytest.mark.scenario("S31")
@given(seen=OBSERVATIONS)
def test_without_evidence_nothing_ever_counts_as_erased(seen: Observation) -> None:
    verdict = verdict_of(seen)
    if verdict in (Verdict.ERASED, Verdict.RETAINED):
        assert seen.baseline_hits
    if verdict is Verdict.NOT_PRESENT:
        assert seen.canary_found
        assert seen.rows_found == 0
    if verdict not in (Verdict.FAILED, Verdict.OUT_OF_SCOPE):
        assert seen.hits_after == seen.rows_residual == 0
        assert seen.units_read == seen.units_expected
        assert not seen.not_examinable
        assert not seen.leftovers
    if verdict is Verdict.ERASED and not seen.rewritten:
        assert seen.rows_erased or seen.values_masked or seen.rows_found
        assert not seen.rows_lost
    if verdict is Verdict.ERASED and seen.opaque:
        assert not seen.open_clauses
    assert bool(failure(seen)) is (verdict is Verdict.FAILED)


@given(seen=OBSERVATIONS.map(lambda seen: replace(seen, baseline_hits=None, in_scope=True)))
def test_no_baseline_never_becomes_anything_but_failed(seen: Observation) -> None:
    assert verdict_of(seen) is Verdict.FAILED


def test_whoever_stands_outside_the_catalog_is_never_told_that_it_is_complete(facts: CertificateFacts) -> None:
    elsewhere = Outside("outside/old/export.zip", "zip", 2, 2, False)
    document = certificate(replace(facts, outside=(elsewhere,)))
    assert document["outcome"] == "partial"
    assert document["outside"][0]["place"] == elsewhere.place
    assert elsewhere.place in render(document).decode()


def test_a_certificate_holds_what_was_found_done_and_kept(facts: CertificateFacts) -> None:
    document = certificate(facts)
    assert document["format"] == "fangxin/certificate/1"
    assert document["outcome"] == "erased_with_retention"
    assert document["times"]["validated"] == "2026-11-22T22:51Z"
    assert [one["collection"] for one in document["collections"]] == sorted(
        one["collection"] for one in document["collections"]
    )
    assert len(document["collections"]) == 6
    assert set(document["collections"][0]) == set(FINDING.names) - {"subject"}
    assert document["retained"][0]["class"] == "order"
    assert document["evidence"]["validated"] == 70_112


def test_the_same_facts_give_the_same_bytes_whatever_the_order(facts: CertificateFacts) -> None:
    shuffled = facts.findings.sample(frac=1, random_state=7)[list(reversed(FINDING.names))]
    body = certificate_bytes(certificate(facts))
    assert body == certificate_bytes(certificate(replace(facts, findings=shuffled)))
    assert body == json.dumps(json.loads(body), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def test_numpy_numbers_become_plain_ones(facts: CertificateFacts) -> None:
    table = facts.findings.astype({"rows_found": np.int32, "bytes_read": np.uint64})
    row = certificate(replace(facts, findings=table))["collections"][0]
    assert {type(value) for value in row.values()} <= {int, str, bool}


def test_only_the_persons_own_findings_are_told(facts: CertificateFacts) -> None:
    table = facts.findings.copy()
    table.loc[table["subject"] == 1, "verdict"] = "FAILED"
    assert certificate(replace(facts, findings=table))["outcome"] == "erased_with_retention"


@pytest.mark.parametrize(
    ("verdicts", "outcome"),
    [
        (["ERASED", "NOT_PRESENT", "OUT_OF_SCOPE"], "erased"),
        (["ERASED", "RETAINED"], "erased_with_retention"),
        (["ERASED", "RETAINED", "FAILED"], "failed"),
        ([], "failed"),
    ],
)
def test_the_outcome_is_the_worst_of_the_verdicts(verdicts: list[str], outcome: str) -> None:
    assert outcome_of(verdicts) == outcome


def _change(facts: CertificateFacts, column: str, value: object, collection: str = "订单") -> CertificateFacts:
    table = facts.findings.astype({column: object})
    table.loc[(table["collection"] == collection) & (table["subject"] == 0), column] = value
    return replace(facts, findings=table)


CONTRADICTIONS: dict[str, Any] = {
    "a null": lambda f: _change(f, "reason", None),
    "a retained row nobody explains": lambda f: replace(f, retained=()),
    "fewer rows explained than kept": lambda f: replace(f, retained=(replace(f.retained[0], rows=3),)),
    "an explanation for what is not kept": lambda f: replace(
        f, retained=(*f.retained, replace(f.retained[0], collection="coupons"))
    ),
    "nobody of that number": lambda f: replace(f, subject=9),
    "a column missing": lambda f: replace(f, findings=f.findings.drop(columns=["hits_after"])),
    "a column too many": lambda f: replace(f, findings=f.findings.assign(name="x")),
    "no validation": lambda f: replace(f, times=replace(f.times, validated=None)),
    "words for whole media": lambda f: _change(f, "claim", "disk purged for good"),
    "a failure without a reason": lambda f: _change(f, "verdict", "FAILED"),
    "a failure with a claim": lambda f: _change(_change(f, "verdict", "FAILED"), "reason", "1 row found again"),
    "a float": lambda f: replace(f, cohort=2.0),
}


@pytest.mark.scenario("S31")
@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_no_certificate_is_made_of(what: str, facts: CertificateFacts) -> None:
    with pytest.raises(DoesNotHold):
        certificate(CONTRADICTIONS[what](facts))


def test_a_time_without_zone_is_refused(facts: CertificateFacts) -> None:
    naive = datetime(2026, 11, 22, 9, 0)  # noqa: DTZ001  the point of the test
    with pytest.raises(ValueError, match="zone"):
        certificate(replace(facts, times=replace(facts.times, received=naive)))


def test_a_float_or_a_key_beyond_ascii_is_never_canonical() -> None:
    for wrong in ({"a": 1.5}, {"键": 1}, {"a": [{"b": b"raw"}]}):
        with pytest.raises(DoesNotHold):
            certificate_bytes(wrong)


MEDIA = [
    "ext4, disk: extents of these files overwritten once, flushed, read back, unmoved: partial sanitization",
    "xfs, flash: logical overwrite of addressable blocks",
    "ext4, virtual device: logical overwrite of addressable blocks",
    "",
]


@pytest.mark.parametrize("method", [*Method, ""])
@pytest.mark.parametrize("claim", MEDIA)
def test_no_wording_borrows_the_vocabulary_of_whole_media(method: str, claim: str) -> None:
    en, zh = claim_words(method, claim, "overlay: no extent map")
    assert not re.search(r"clear|purg|permanent|forever|彻底|永久", f"{en} {zh}", re.IGNORECASE)
    assert not en.isspace()
    assert re.search("[\u4e00-\u9fff]", zh)


def test_only_a_disk_earns_the_words_for_extents() -> None:
    strong, *weak = (claim_words("OVERWRITE", claim, "")[0] for claim in MEDIA)
    assert "partial sanitisation" in strong
    assert all("logical overwrite" in words for words in weak)


def test_a_medium_that_refused_is_named_with_its_reason() -> None:
    en, zh = claim_words("LOGICAL_DELETE", "", "overlay: no extent map")
    assert "overlay: no extent map" in en
    assert "overlay: no extent map" in zh


@pytest.mark.scenario("S32")
def test_a_method_without_words_is_refused() -> None:
    with pytest.raises(ValueError):
        claim_words("UNLINK", "", "")


def test_denying_a_strong_word_is_allowed_claiming_it_is_not() -> None:
    assert claims_too_much("OVERWRITE", "blocks cleared")
    assert claims_too_much("OVERWRITE", "数据已彻底清除")
    assert not claims_too_much("OVERWRITE", "this is not Clear of a medium")
    assert not claims_too_much("LOGICAL_DELETE", "trash was purged")
    assert not any(TOO_STRONG.search(f"{limit.en} {limit.zh}") for limit in LIMITS.values())


@pytest.mark.scenario("S32")
def test_the_limits_are_those_of_this_run(facts: CertificateFacts) -> None:
    told = {one["id"] for one in certificate(facts)["limits"]}
    assert set(LIMITS) - told == {"crowd", "planted", "control"}
    crowd = replace(facts, scan=replace(facts.scan, breadth="core"), planted=tuple(f"p{n} (1)" for n in range(12)))
    crowd = replace(crowd, control=("wallet/accounts",))
    all_of_them = {one["id"]: one for one in certificate(crowd)["limits"]}
    assert set(all_of_them) == set(LIMITS)
    assert "p9 (1) and 2 more: nobody's data" in all_of_them["planted"]["en"]
    assert all("wallet/accounts" in all_of_them["control"][language] for language in ("en", "zh"))
    table = facts.findings.assign(method="OVERWRITE")
    calm = replace(facts, findings=table, copies=(), export=None, witnessed=True, time_stamped=True)
    fewer = {one["id"] for one in certificate(calm)["limits"]}
    assert set(LIMITS) - fewer == {
        "crowd",
        "planted",
        "control",
        "logical-delete",
        "copies",
        "export",
        "one-history",
        "dates",
    }

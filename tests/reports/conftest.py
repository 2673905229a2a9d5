"""An example of what one batch leaves behind: two people, six collections, every verdict a certificate may carry."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pandas as pd
import pytest

from fangxin.data.vocabulary import FINDING
from fangxin.reports.certificate import (
    CertificateFacts,
    DeclaredCopy,
    ExportFacts,
    Holder,
    KeptKey,
    Keys,
    LedgerProof,
    Mention,
    Retained,
    Scan,
    SharedRows,
    Software,
    Times,
)

DISK = "ext4, disk: extents of these files overwritten once, flushed, read back, unmoved: partial sanitization"


def finding(subject: int, collection: str, verdict: str, **values: object) -> dict[str, object]:
    empty: dict[str, object] = {name: "" if str(FINDING.field(name).type) == "string" else 0 for name in FINDING.names}
    seen = {
        "units_expected": 3,
        "units_read": 3,
        "bytes_read": 7_340_032,
        "canary_found": True,
        "store": "parquet:lake",
    }
    return (
        empty | seen | {"subject": subject, "dataset": "lecard", "collection": collection, "verdict": verdict} | values
    )


def table() -> pd.DataFrame:
    rows = []
    for subject in (0, 1):
        gone = {"method": "OVERWRITE", "claim": DISK, "bytes_overwritten": 5_242_880}
        rows += [
            finding(subject, "会员", "ERASED", rows_found=2, rows_erased=2, baseline_hits=14, **gone),
            finding(subject, "订单", "RETAINED", rows_found=23, rows_erased=6, rows_retained=17, baseline_hits=31,
                    hits_explained=17, ground="cn-ecl-31", until="2029-11-22", **gone),
            finding(subject, "coupons", "ERASED", rows_found=5, rows_erased=5, baseline_hits=5, store="sqlite:app.db",
                    method="LOGICAL_DELETE", reason="overlay: no extent map"),
            finding(subject, "contacts", "ERASED", rows_found=8, rows_erased=8, values_masked=2, rows_mentioned=2,
                    baseline_hits=20, rows_shared=1, hits_explained=1, **gone),
            finding(subject, "chats", "NOT_PRESENT", store="text:chats"),
            finding(subject, "partner_feed", "OUT_OF_SCOPE", reason="held by a partner, told on 2026-11-22",
                    canary_found=False, units_expected=0, units_read=0, bytes_read=0),
        ]  # fmt: skip
    return pd.DataFrame(rows, columns=FINDING.names)


@pytest.fixture
def facts() -> CertificateFacts:
    def at(hour: int, minute: int) -> datetime:
        return datetime(2026, 11, 22, hour, minute, 41, 5, tzinfo=UTC)

    return CertificateFacts(
        number="FX-2026-000147",
        request="q7m2k5v3xw4tb6d9",
        batch="b-5tq0m8zk",
        subject=0,
        findings=table(),
        times=Times(at(9, 3), at(9, 40), at(22, 30), at(22, 38), at(22, 51)),
        keys=Keys(
            destroyed=3,
            domains=("lecard", "kyc", "request"),
            kept=(KeptKey("orders", "cn-ecl-31", "2029-11-22"),),
            generation_before=41,
            generation_after=42,
            commitment_before="9f" * 32,
            commitment_after="3c" * 32,
            holders=(Holder("file root", "the old root was overwritten", False, "host snapshots are excluded"),),
        ),
        retained=(
            Retained("lecard", "订单", "order", "cn-ecl-31", 17, "2029-11-22",
                     "E-Commerce Law, Art. 31: transaction records for at least three years after completion.",
                     "《电子商务法》第三十一条:交易信息自交易完成之日起保存不少于三年。"),
        ),
        shared=(SharedRows("lecard", "contacts", 1, 1),),
        mentions=(Mention("lecard", "contacts", 2, 2),),
        copies=(DeclaredCopy("nightly", "backup", "35d", "crypto-erase", "2026-12-27"),),
        export=ExportFacts("ab" * 32, 38, 5),
        scan=Scan(1_912, 52, 44_040_192, ("name", "city"), "d4" * 32),
        evidence=LedgerProof("ledger.example.com/erasure/2026", 70_112, "c2sp.org/tlog-proof@v1\nindex 70112\n"),
        software=Software("0.1.0", "77" * 32),
        catalog="21" * 32,
        law={"pipl": "55" * 32},
        cohort=2,
        signer="evidence key 530d903a",
    )  # fmt: skip


@pytest.fixture
def erased(facts: CertificateFacts) -> CertificateFacts:
    """The same person, had no law asked to keep anything."""
    kept = facts.findings["verdict"] == "RETAINED"
    whole = facts.findings.copy()
    whole.loc[kept, "verdict"] = "ERASED"
    whole.loc[kept, "rows_erased"] = 23
    whole.loc[kept, ["rows_retained", "hits_explained"]] = 0
    whole.loc[kept, ["ground", "until"]] = ""
    return replace(facts, findings=whole, retained=(), keys=replace(facts.keys, kept=()))

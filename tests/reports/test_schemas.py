"""The schemas that ship: certificates and answers are what they say, and wrong ones are refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evidence.made_up_year import made_up_report
from jsonschema import Draft202012Validator

import fangxin.reports
from bench.certificates import example
from fangxin.reports.certificate import CertificateFacts, certificate
from fangxin.reports.paper.pages import certificate_pdf

SCHEMAS = Path(fangxin.reports.__file__).parent / "schemas"
HASH = "ab" * 32


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads((SCHEMAS / f"{name}.json").read_text("utf-8")))


def verdict(**values: object) -> dict[str, object]:
    return {
        "dataset": "lecard", "collection": "coupons", "store": "sqlite:app.db", "verdict": "ERASED",
        "method": "OVERWRITE", "claim": "ext4, disk: extents", "rows_found": 5, "rows_erased": 5,
        "bytes_overwritten": 8192, "baseline_hits": 5, "hits_after": 0, "not_examinable": [],
    } | values  # fmt: skip


ERASE = {
    "batch": "b-5tq0m8zk",
    "requests": [
        {
            "request_id": "q7m2k5v3", "receipt_code": "04HMA-SW9NF-6YY09-38NKR-KAYDR", "outcome": "erased",
            "certificate": "certificates/FX-1.json", "verdicts": [verdict()], "outside": [],
        }
    ],
    "package": "reports/package.zip", "draft": None, "drafts": [], "places": {},
    "seconds": {"locate": 1.5, "export": 0, "destroy_keys": 0.1, "overwrite": 2, "validate": 3.2, "publish": 9},
    "free_space": ["free space overwritten in 2 rounds of 9 and 9 bytes; not reached: 4 bytes left to others"],
}  # fmt: skip

TICKET = {
    "ticket": "t-abcdefghijklmnop",
    "category": "refund",
    "state": "open",
    "opened": "2026-11-24T01:00:00Z",
    "first_answer_by": "2026-11-25T16:00:00Z",
    "provisional": False,
    "answered": None,
    "closed": None,
    "forgotten": None,
    "breached": False,
}
ANSWERS: dict[str, Any] = {
    "erase": ERASE,
    "resume": {"batches": [ERASE], "exports_ended": 0},
    "locate": {
        "subjects": [
            {
                "ref": "s-1", "identities": [{"kind": "phone_number", "source": "given"}],
                "traces": [{"dataset": "lecard", "collection": "orders", "unit": "month=1/a.parquet", "rows": 3,
                            "edge": "owns", "via": ["lecard/会员.手机号", "lecard/orders.member_id"]}],
                "shared": [{"dataset": "lecard", "collection": "地址", "rows": 1, "others": 1}],
            }
        ],
        "halts": [],
    },
    "init": {"home": "var", "origin": "ledger.example.com/erasure", "rehearsal": False, "officers_to_enrol": 2},
    "sample": {"root": "a", "catalog": "a/catalog/lecard.yml", "leavers": "a/leavers.csv", "rows": {"lake/orders": 9}},
    "protect": {"stores": [{"store": "sqlite:app.db", "units": 1, "bytes_overwritten": 8192}]},
    "unprotect": {
        "stores": [{"store": "sqlite:app.db", "units": 1, "bytes_overwritten": 8192}], "values_gone": 3,
    },
    "scan": {
        "hits": [{"path": "a.gz", "offset": 12, "container": "gzip", "encoding": "utf-8", "kind": "phone_number",
                  "identity": 1, "hits": 2, "column": "", "digest": HASH}],
        "places": [{"path": "a.gz", "result": "FOUND", "bytes": 99, "decoded": 400, "method": "raw,gzip", "needles": 52,
                    "reasons": []}],
        "results": {"FOUND": 1, "NOT_FOUND": 0, "NOT_EXAMINABLE": 1}, "breadth": "full", "omitted": {},
        "in_context": ["name"],
        "not_examinable": [{"path": "b.parquet", "reason": "truncated"}], "patterns": 52, "files": 2, "bytes": 4096,
        "filters": [{"path": "c.parquet", "container": "parquet:bloom-probe", "column": "tel", "filters": 2,
                     "asked": 16, "perhaps": 1, "by_chance": 0.16, "explained": 1, "remembered": 0}],
    },
    "canary-draft": {"file": "auditor.yml", "people": 5},
    "canary-seal": {"seal": "auditor.seal", "commitment": HASH, "people": 5, "placements": 6},
    "canary-open": {
        "batch": "b-5tq0m8zk", "commitment": HASH, "counts": {"erased": 3, "retained": 0, "reported": 2, "missed": 0},
        "placements": [{"person": 1, "place": "w/accounts", "outcome": "erased", "why": "seen before, in no byte now"}],
    },
    "canary-unopened": {"batch": "b-5tq0m8zk", "unopened": 1},
    "verify": {"checks": [{"name": "tree", "result": "HOLDS", "reason": "12 entries"}], "exit_code": 0},
    "keys-status": {
        "vault": "v-1", "generation": 42, "commitment": HASH, "keys": 4000, "bytes": 262144,
        "domains": [{"name": "lecard", "keys": 2000}],
        "holders": [{"name": "file", "effect": "immediate", "backup_resistant": "if",
                     "conditions": ["in-place-medium"]}],
    },
    "report": {"report": made_up_report(), "files": ["reports/2026-Q2.json"]},
    "report-incident": {
        "dataset": "wallet", "at": "2026-11-24T01:00Z", "owner": "wallet-team", "executor": "", "terms": "",
        "processors": [],
        "affected": {"present": 1, "retained": 0, "unknown": 0, "erased": 0, "absent": 0},
        "requests": [{"request": "r-1", "receipt": HASH, "state": "present", "certificate": "FX-1", "until": None}],
    },
    "package": {"package": "p.zip", "manifest": HASH, "certificates": 2, "entries": 48, "lacking": []},
    "challenge": {"challenge": "c.json", "size": 48, "entries": [41, 44], "count": 2},
    "witness": {"witness": "w.example.org+01234567+" + "A" * 44},
    "ledger-check": {"origin": "ledger.example.com/erasure", "size": 48, "stamped": False},
    "ledger-head": {"origin": "ledger.example.com/erasure", "size": 48, "stamped": False},
    "ledger-shard": {"origin": "ledger.example.com/2027", "size": 2, "log": "ledger.example.com/2027+0+x"},
    "ledger-cosigned": {"origin": "ledger.example.com/erasure", "size": 48, "witnesses": 1},
    "request-open": {
        "closure": "c-abcdefghijklmnop",
        "new": True,
        "replayed": False,
        "receipt_code": "04HMA-SW9NF-6YY09-38NKR-KAYDR",
        "restore_code": None,
        "told_by": ["mail"],
    },
    "request": {
        "closure": "c-abcdefghijklmnop",
        "state": "cooling",
        "public": "sealed",
        "version": 7,
        "opened": "2026-11-24T01:00:00Z",
        "plan_digest": "0" * 64,
        "high_risk": False,
        "approvals": 1,
        "restore_until": "2026-12-01T16:05:00Z",
        "restore_code": {"tries_left": 5, "locked_until": None},
        "hold": "none",
        "holds": [
            {
                "basis": "court",
                "officers": ["dpo_1", "dpo_2"],
                "since": "2026-11-25T01:00:00Z",
                "review": "2027-02-25T01:00:00Z",
                "lifted": None,
                "scope": ["wallet/coupons"],
            }
        ],
        "settlement": "pending",
        "clocks": [
            {
                "name": "done",
                "by": "promise",
                "source": "lecard-1",
                "draft": False,
                "first_told": None,
                "extended": None,
                "used": 12,
                "started": "2026-11-24T16:05:00Z",
                "deadline": "2026-12-04T16:00:00Z",
                "provisional": False,
                "met": None,
                "breached": False,
            }
        ],
        "items": [
            {
                "id": "i-1",
                "kind": "balance",
                "fate": "payout",
                "amount": 3650,
                "minor": 3650,
                "currency": "CNY",
                "lost": 0,
            }
        ],
        "owed": [{"currency": "CNY", "minor": 3650, "where": "owed"}],
        "unclaimed": None,
        "orders": [{"item": "i-1", "what": "cancel", "proof": None}],
        "export": {"state": "ready", "manifest": HASH, "rows": 12, "files": 4, "expires": "2026-12-01T16:05:00Z"},
        "blocked": [],
        "superseded": [],
        "ahead": {"needs": 41.5, "left": 86100, "fits": True},
        "delayed": {"what": "StoreUnavailable", "since": "2026-12-01T16:05:00+00:00"},
        "consumers": [
            {"name": "mail-house", "told": "2026-12-01T16:05Z", "confirmed": None, "state": "waiting", "last": "stop"}
        ],
        "kept": {"rows": {"wallet/coupons": 1}, "next": "2027-03-02T00:00:00Z", "undecided": 0},
        "watched_until": None,
        "round": 1,
        "collections": [
            {
                "collection": "wallet/accounts",
                "fates": {"drop": 1},
                "sealed": ["card"],
                "otherwise": "frozen, not sealed",
            }
        ],
        "certificate": None,
        "refused": None,
        "says": {"zh": "已停止处理。", "en": "Processing has stopped."},
        "steps": [
            {
                "step": "received",
                "state": "done",
                "at": "2026-11-24T01:00:00Z",
                "by": None,
                "late": False,
                "says": {"zh": "收到申请：2026年11月24日 09:00", "en": "Request received: 24 November 2026 09:00"},
            }
        ],
        "zone": "Asia/Shanghai",
        "told_by": ["mail", "sms"],
        "notices": {"waiting": 1, "undelivered": 0},
        "tickets": [TICKET],
    },
    "ticket": {
        **TICKET,
        "masked": {"phone_number": 1},
        "said": [{"at": "2026-11-24T01:00:00Z", "role": "web", "text": None}],
    },
    "ticket-list": {"tickets": [TICKET], "categories": {"question": {"zh": "一般咨询", "en": "A question"}}},
    "read": {"collection": "wallet/accounts", "out": "accounts.parquet", "rows": 29, "kept_back": 1},
    "request-decide": {
        "pending": [
            {"closure": "c-abcdefghijklmnop", "collection": "shop/homes", "reason": "shared", "rows": 1, "others": 2}
        ]
    },
    "request-items": {
        "closure": "c-abcdefghijklmnop",
        "items": [
            {
                "id": "i-0123456789abcdef",
                "kind": "coupon",
                "amount": 1000,
                "currency": "CNY",
                "expires": "2027-06-01",
                "source": "terms",
                "fates": [{"fate": "cash", "minor": 100}],
                "default": "cash",
                "blocks": False,
                "text": {"zh": "优惠券可转让。", "en": "Coupons are transferred."},
            }
        ],
    },
    "request-offer": {
        "item": "i-0123456789abcdef",
        "offer_code": "04HMA-SW9NF-6YY09-38NKR-KAYDR",
        "until": "2026-12-01T16:05:00Z",
    },
    "request-transfer": {"item": "i-0123456789abcdef", "state": "accepted"},
    "request-claim": {
        "claims": [{"currency": "CNY", "outcome": "paid"}],
        "left": [{"currency": "USD", "minor": 250}],
    },
    "request-list": {
        "closures": [
            {
                "closure": "c-abcdefghijklmnop",
                "state": "review",
                "public": "in review",
                "live": True,
                "next_deadline": "2026-11-27T16:00:00Z",
            }
        ]
    },
    "run-due": {
        "planned": [],
        "reviewed": [],
        "sealed": ["c-abcdefghijklmnop"],
        "regret_ended": [],
        "erased": [],
        "batches": [],
        "came_back": [],
        "kept_until_now": [],
        "messages": 0,
        "alarms": [{"closure": "c-abcdefghijklmnop", "clock": "done", "percent": 50}],
        "tickets": [{"ticket": "t-abcdefghijklmnop", "category": "refund", "percent": 80}],
        "forgotten": [],
        "exports_destroyed": [],
        "waiting": [{"closure": "c-abcdefghijklmnop", "why": "a legal hold keeps all of it"}],
    },
    "report-sla": {
        "promise": {"name": "lecard", "version": 1, "digest": "0" * 64},
        "clocks": [
            {
                "name": "review",
                "by": "promise",
                "running": 1,
                "met": 0,
                "breached": 0,
                "provisional": 0,
                "hours": None,
                "used": None,
            }
        ],
        "breaches": [],
    },
    "ledger-rotate": {"entry": 48, "log": "ledger.example.com/erasure+01234567+" + "A" * 44},
    "certificate-print": {"certificate": "FX-7Q2M5K-0001", "pdf": "certificate.pdf", "bytes": 80_000},
    "certificate-validate": {
        "validated": [{"number": "FX-1", "certificate": HASH, "officer": "ada", "signed": "2026-11-27T09:00Z",
                       "key": HASH, "digest": HASH}],
    },
    "catalog-lint": {
        "errors": 1,
        "problems": [{"where": "lecard.yml:23:13", "severity": "error", "text": "unknown key"}],
    },
    "statement": {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "findings.csv", "digest": {"sha256": HASH}}],
        "predicateType": "https://ledger.example.com/erasure/v1",
        "predicate": {"nonce": "0f" * 16, "batch": "b-5tq0m8zk"},
    },
}  # fmt: skip


def drop(path: str) -> Callable[[Any], None]:
    *steps, last = (int(step) if step.isdigit() else step for step in path.split("/"))

    def change(document: Any) -> None:
        for step in steps:
            document = document[step]
        del document[last]

    return change


def put(path: str, value: object) -> Callable[[Any], None]:
    *steps, last = (int(step) if step.isdigit() else step for step in path.split("/"))

    def change(document: Any) -> None:
        for step in steps:
            document = document[step]
        document[last] = value

    return change


def test_every_schema_is_one_and_has_an_example() -> None:
    names = {path.stem for path in SCHEMAS.glob("*.json")}
    assert names == {*ANSWERS, "certificate", "periodic"}
    for name in names:
        Draft202012Validator.check_schema(validator(name).schema)


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_what_its_schema_says(name: str) -> None:
    assert [error.message for error in validator(name).iter_errors(ANSWERS[name])] == []
    for key in ANSWERS[name]:
        less = {k: v for k, v in ANSWERS[name].items() if k != key}
        assert not validator(name).is_valid(less), key


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("erase", put("requests/0/outcome", "done")),
        ("erase", put("requests/0/verdicts/0/verdict", "SKIPPED")),
        ("erase", put("requests/0/verdicts/0/rows_found", -1)),
        ("erase", drop("requests/0/verdicts/0/not_examinable")),
        ("erase", drop("seconds/validate")),
        ("resume", drop("batches/0/package")),
        ("locate", put("subjects/0/identities/0/value", "13900001111")),
        ("verify", put("checks", [])),
        ("verify", put("exit_code", 70)),
        ("verify", put("checks/0/result", "PROBABLY")),
        ("catalog-lint", put("problems/0/severity", "bad")),
        ("statement", put("subject", [])),
        ("statement", put("predicate/nonce", "short")),
        ("statement", put("predicateType", "erasure")),
        ("statement", put("extra", 1)),
    ],
)
def test_a_wrong_answer_is_refused(name: str, wrong: Callable[[Any], None]) -> None:
    document = copy.deepcopy(ANSWERS[name])
    wrong(document)
    assert not validator(name).is_valid(document)


def test_the_certificate_that_is_drawn_for_the_readme_and_the_bench_is_one() -> None:
    assert [error.message for error in validator("certificate").iter_errors(example())] == []
    assert certificate_pdf(example(), languages=["en"])


def test_certificates_are_what_their_schema_says(facts: CertificateFacts, erased: CertificateFacts) -> None:
    schema = validator("certificate")
    for one in (facts, erased):
        assert [error.message for error in schema.iter_errors(certificate(one))] == []


@pytest.mark.parametrize(
    "wrong",
    [
        put("outcome", "erased"),
        put("outcome", "failed"),
        put("collections", []),
        put("collections/0/verdict", "SKIPPED"),
        put("collections/2/hits_after", 1),
        put("collections/2/baseline_hits", 0),
        put("collections/0/canary_found", False),
        put("collections/5/ground", ""),
        put("collections/3/reason", ""),
        put("collections/0/name", "somebody"),
        put("times/validated", "2026-11-22T22:51:41Z"),
        put("retained", []),
        put("name", "somebody"),
        put("cohort", 1.5),
        put("catalog", "AB" * 32),
        drop("evidence/proof"),
        drop("limits"),
        drop("export"),
    ],
)
def test_a_wrong_certificate_is_refused(wrong: Callable[[Any], None], facts: CertificateFacts) -> None:
    document = certificate(facts)
    assert [one["verdict"] for one in document["collections"]] == [
        "NOT_PRESENT", "ERASED", "ERASED", "OUT_OF_SCOPE", "ERASED", "RETAINED",
    ]  # fmt: skip
    wrong(document)
    assert not validator("certificate").is_valid(document)

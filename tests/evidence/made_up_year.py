"""A made-up ledger: requests, certificates, residues, canaries over some months; the same for a seed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from fangxin.reports.ledger.entries import minute
from fangxin.reports.period import Period
from fangxin.reports.periodic import Earlier, Facts, gather, report

Entry = dict[str, int | str]
DATASETS = ("wallet", "lake", "support", "exports", "交易")


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def collection(dataset: str, name: str, chance: random.Random) -> dict[str, Any]:
    found, kept = chance.randint(1, 40), 0
    if dataset == "lake":
        kept = chance.randint(0, found)
    return {
        "dataset": dataset, "collection": name, "rows_found": found, "rows_erased": found - kept, "rows_retained": kept,
        "values_masked": chance.randint(0, 3), "baseline_hits": found * 3, "hits_after": 0,
        "bytes_read": chance.randint(1, 9) << 20, "bytes_overwritten": chance.randint(1, 5) << 19,
    }  # fmt: skip


def requests_of(
    start: datetime, days: int, per_day: float, seed: int = 7
) -> Iterator[tuple[list[Entry], dict[str, Any]]]:
    """Entries of a request and its certificate, one after the other."""
    chance = random.Random(seed)
    for n in range(int(days * per_day)):
        received = start + timedelta(minutes=chance.randrange(days * 1440))
        validated = received + timedelta(minutes=int(chance.lognormvariate(9.1, 0.4)))
        kept = chance.random() < 0.6
        body = {
            "batch": f"b-{n // 3}",
            "times": {"received": minute(received), "validated": minute(validated)},
            "collections": [collection(d, c, chance) for d in DATASETS for c in ("a", "b")],
        }
        tag = sha(f"{seed}/{n}")[:32]
        entries: list[Entry] = [
            {"type": "request.opened", "time": minute(received), "tag": tag, "commitment": sha("c"), "law": "pipl",
             "promise": "operator", "catalog": sha("catalog")},
        ]  # fmt: skip
        if kept:
            entries.append({"type": "retained", "time": minute(received + timedelta(hours=9)), "tag": tag,
                            "rule": chance.choice(["ecommerce-31", "aml-34"]), "class": "order",
                            "until": f"{2029 + chance.randint(0, 2)}-{chance.randint(1, 12):02d}"})  # fmt: skip
        if n % 3 == 0:
            entries.append({"type": "validated", "time": minute(validated), "tag": tag, "stores": 4, "bytes": 1 << 30,
                            "patterns": 9000, "hits": 0, "canaries": 1, "scanner": sha("s"), "baseline": sha("b"),
                            "findings": sha("f")})  # fmt: skip
            entries.append({"type": "key.destroyed", "time": minute(validated), "tag": tag, "intent": 0,
                            "before": sha("0"), "after": sha("1"), "generation": n, "count": "5-19",
                            "claim": "immediate"})  # fmt: skip
        if n % 97 == 5:
            entries.append({"type": "residue.found", "time": minute(validated - timedelta(hours=30)), "tag": tag,
                            "store": "s-02", "code": "hits"})  # fmt: skip
            entries.append({"type": "exception", "time": minute(validated), "tag": tag,
                            "code": f"residue.answered:{tag}", "role": "validate"})  # fmt: skip
        entries.append({"type": "certificate.issued", "time": minute(validated), "tag": tag, "json": sha(f"{seed}-{n}"),
                        "html": sha("h"), "verdict": "erased_with_retention" if kept else "erased"})  # fmt: skip
        yield entries, body


def year(start: str = "2026-01-01", days: int = 300, per_day: float = 1.2, seed: int = 7) -> dict[str, Any]:
    """Entries in the order of time, and certificates by the digest that the ledger has."""
    first = datetime.fromisoformat(start).replace(tzinfo=UTC)
    entries: list[Entry] = [
        {"type": "law.loaded", "time": minute(first), "digest": sha("law"), "law": "pipl"},
        {"type": "code.loaded", "time": minute(first), "digest": sha("code")},
    ]
    certificates = {}
    for some, body in requests_of(first, days, per_day, seed):
        entries += some
        certificates[str(some[-1]["json"])] = body
    entries.sort(key=lambda one: str(one["time"]))
    return {"entries": list(enumerate(entries)), "certificates": certificates}


def facts(made: dict[str, Any], period: str, *earlier: Earlier, **more: Any) -> Facts:
    """What a report of a period is made from."""
    given: dict[str, Any] = {
        "rules": {"ecommerce-31": ("E-Commerce Law, Art. 31.", "《电子商务法》第三十一条。")},
        "working_days": lambda start, end: (end - start).days,
        "witnesses": ("witness.example.org",),
        "time_stamped": True,
        "software": {"version": "0.1.0", "sha256": sha("code")},
    }
    chosen = Period.parse(period)
    return Facts(
        period=chosen,
        origin="ledger.example.com/erasure/2026",
        ledger=gather(made["entries"], chosen),
        certificates=made["certificates"],
        earlier=earlier,
        **{**given, **more},
    )


def made_up_report(period: str = "2026-Q2", **options: Any) -> dict[str, Any]:
    """A report of a made-up year."""
    document: dict[str, Any] = report(facts(year(**options), period))
    return document

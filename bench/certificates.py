"""What a certificate on paper costs: three pages by Typst, the signature on them, and the same page by WeasyPrint.

    make bench CASE=certificates       (or: python bench/certificates.py --rounds 200)

Each round prints another certificate of the same home, as a batch does: number, request, digests and the figures of
every collection differ, and who was found where. The words of the pages are the same, as are laws and limits: what the
press remembers of them is part of the figure. CPU time of this process, medians. *Signed* adds PAdES B-B with EC P-256.
*Both languages* is what a home issues: three pages in Chinese and three in English, one signature. WeasyPrint prints
our own HTML page of the same certificate as PDF/A-3a; it comes from PyPI into a throw-away folder and needs Pango on
the machine, else its bars are left out.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

if __package__:  # a test imports this file; a folder put on its path would hide the tests' own package `keys`
    from bench._rounds import Bar, Row, publish, take_turns
else:
    from _rounds import Bar, Row, publish, take_turns

from fangxin.reports.paper.pades import sign
from fangxin.reports.paper.pages import certificate_pdf
from fangxin.reports.paper.signatory import Signatory
from fangxin.reports.render import render

PEER = "weasyprint==70.0"
NOW = datetime(2026, 11, 24, 9, tzinfo=UTC)
PEER_SCRIPT = """
import sys, time, statistics, weasyprint
page = open(sys.argv[1]).read()
used = []
for n in range(int(sys.argv[2]) + 1):
    before = time.process_time()
    weasyprint.HTML(string=page.replace("FX-2026-000147", f"FX-2026-{n:06d}")).write_pdf(pdf_variant="pdf/a-3a")
    used.append(time.process_time() - before)
print(statistics.median(used[1:]))
"""


def example() -> dict[str, Any]:
    """A certificate of twelve collections in four datasets, as the sample gives them."""
    row = {
        "store": "parquet:lake", "method": "OVERWRITE", "reason": "", "values_masked": 0, "rows_shared": 0,
        "claim": "ext4, virtual device: logical overwrite of addressable blocks", "rows_mentioned": 0,
        "rows_residual": 0, "hits_after": 0, "hits_explained": 0, "units_expected": 4, "units_read": 4,
        "bytes_read": 1 << 20, "bytes_overwritten": 1 << 19, "canary_found": True, "ground": "", "until": "",
        "not_examinable": "",
    }  # fmt: skip
    collections = [
        {**row, "dataset": dataset, "collection": name, "verdict": "ERASED", "rows_found": 7, "rows_erased": 7,
         "rows_retained": 0, "baseline_hits": 21}
        for dataset in ("wallet", "lake", "support", "exports") for name in ("accounts", "orders", "chats")
    ]  # fmt: skip
    collections[4] |= {"verdict": "RETAINED", "rows_erased": 2, "rows_retained": 5, "ground": "ecommerce-31",
                       "until": "2029-10-26"}  # fmt: skip
    return {
        "format": "fangxin/certificate/1", "number": "FX-2026-000147", "request": "r-1", "batch": "b-1",
        "outcome": "erased_with_retention",
        "times": dict.fromkeys(("received", "approved", "keys_destroyed", "overwritten", "validated"),
                               "2026-11-24T01:00Z"),
        "collections": collections,
        "keys": {"destroyed": 2, "domains": ["kyc"], "kept": [], "generation_before": 1, "generation_after": 2,
                 "replicas": {"n": 2, "of": 2}, "copies": {"n": 1, "of": 1},
                 "commitment_before": "ab" * 32, "commitment_after": "cd" * 32,
                 "holders": [{"name": "file", "effect": "immediate", "backup_resistant": False,
                              "conditions": "in-place-medium, outside-backup-sets"}]},
        "retained": [{"dataset": "lake", "collection": "orders", "class": "order", "rule": "ecommerce-31", "rows": 5,
                      "until": "2029-10-26", "text_en": "E-commerce law.", "text_zh": "电子商务法。"}],
        "shared": [], "mentions": [],
        "copies": [{"name": "nightly", "kind": "backup", "keep": "35d", "method": "expiry", "expires": "2026-12-29"}],
        "export": {"manifest": "ef" * 32, "rows": 84, "files": 12},
        "scan": {"patterns": 8552, "forms": 558, "bytes": 9 << 20, "kinds_by_record": ["name"], "scanner": "12" * 32,
                 "breadth": "full", "omitted": [],
                 "found": 61, "not_found": 8491, "not_examinable": []},
        "outside": [], "canaries": [],
        "inventory": [{"store": "parquet:lake", "unchanged": 0, "destroyed": 12, "deleted": 0, "new": 12, "others": 0}],
        "limits": [{"id": str(n), "en": "What this does not show, in a sentence of some length.",
                    "zh": "本证明不涉及的内容，以一句话说明。"} for n in range(14)],
        "evidence": {"origin": "ledger.example.com/erasure", "validated": 59, "proof": "validated-b-1.tlog-proof"},
        "software": {"version": "0.1.0", "sha256": "34" * 32}, "catalog": "56" * 32,
        "law": [{"name": "pipl", "sha256": "78" * 32}], "cohort": 6, "signer": "operator", "settlements": None,
        "deadline": None, "processors": [], "approvers": [], "rehearsal": False,
        "accountability": [{"dataset": d, "owner": f"{d}-team", "executor": "data-platform", "terms": "9a" * 32}
                           for d in ("exports", "lake", "support", "wallet")],
    }  # fmt: skip


def changing(seed: int, work: Callable[[dict[str, Any]], bytes]) -> Callable[[], bytes]:
    """The same work on a certificate that nobody has printed yet; other seeds give other people."""
    people = random.Random(seed)

    def once() -> bytes:
        n, document = people.randrange(10**6), example()
        document |= {"number": f"FX-2026-{n:06d}", "request": f"r-{n:016d}"}
        document["export"] |= {"manifest": people.randbytes(32).hex(), "rows": people.randrange(1_000)}
        for row in document["collections"]:
            rows = people.randrange(1, 400)
            row |= {"rows_found": rows, "rows_erased": rows - row["rows_retained"], "baseline_hits": rows * 3}
            row |= {"bytes_read": people.randrange(1 << 28), "bytes_overwritten": people.randrange(1 << 24)}
        nowhere = people.choice([row for row in document["collections"] if row["verdict"] == "ERASED"])
        nowhere |= {"verdict": "NOT_PRESENT", "rows_found": 0, "rows_erased": 0, "baseline_hits": 0}
        return work(document)

    return once


def peer(folder: Path, rounds: int) -> list[Row]:
    """WeasyPrint's CPU time for the same page; nothing where it cannot be had."""
    into = folder / "peer"
    install = [str(Path(sys.executable).parent / "uv"), "pip", "install", "-q", "--target", str(into), PEER]
    if subprocess.run(install, capture_output=True, check=False).returncode:
        print(f"{PEER} cannot be installed here: its bars are left out")
        return []
    (folder / "page.html").write_bytes(render(example()))
    run = [sys.executable, "-c", PEER_SCRIPT, str(folder / "page.html"), str(rounds)]
    done = subprocess.run(run, env={**os.environ, "PYTHONPATH": str(into)}, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{PEER} does not run here: {done.stderr.strip().splitlines()[-1]}")
        return []
    return [Row(f"page by {PEER}", float(done.stdout), 0)]


def main() -> int:
    """Print medians, ratios and bars."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        by = Signatory.create(folder / "keys", origin="ledger.example.com/erasure", now=NOW)
        rows = take_turns(
            {
                "three pages": changing(1, lambda d: certificate_pdf(d, languages=["zh"])),
                "three pages, signed": changing(
                    2, lambda d: sign(certificate_pdf(d, languages=["zh"]), by=by, at=NOW, reason="bench")
                ),
                "both languages, signed": changing(
                    3, lambda d: sign(certificate_pdf(d), by=by, at=NOW, reason="bench")
                ),
            },
            rounds=rounds,
        )
        peers = peer(folder, max(5, rounds // 20))
    for one in (*rows.values(), *peers):
        print(f"{one.name:<40}{one.cpu_s * 1e3:>8.1f} ms CPU")
    bars = [
        Bar("three pages, ms of CPU", rows["three pages"].cpu_s * 1e3, "<=", 60),
        Bar("three pages, signed, ms of CPU", rows["three pages, signed"].cpu_s * 1e3, "<=", 130),
    ]
    ratios = {f"{PEER}/three pages cpu": one.cpu_s / rows["three pages"].cpu_s for one in peers}
    publish("certificates", [*rows.values(), *peers], ratios, bars)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

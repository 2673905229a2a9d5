"""Our own traces: what the product itself keeps is searched like any store, and ends with a verdict.

    fangxin/process    requests and batches (sealed), settings, temporary files, whatever else lies in the home
    fangxin/evidence   ledger, statements, certificates, reports, the vault
    fangxin/prefect    the database and storage of Prefect, where it has run

A control of the scanner lies in each part while it is searched: without it "nothing found" would prove nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fangxin.data.vocabulary import FINDING
from fangxin.reports.verdict import Observation, failure, verdict_of

if TYPE_CHECKING:
    from fangxin.flows.sight import Sight

HOME = "home"
DATASET = "fangxin"
_EVIDENCE = ("ledger", "ledger-head", "dsse", "certificates", "reports", "keys", "law")
_FOLDER = {"process": "tmp", "evidence": "reports", "prefect": "prefect"}  # where the control of a part is put


def part_of(name: str) -> str:
    """The address of the part that a file of our home (relative to it) belongs to."""
    top = name.split("/", 1)[0]
    part = "prefect" if top == "prefect" else "evidence" if top in _EVIDENCE else "process"
    return f"{DATASET}/{part}"


def is_own(address: str) -> bool:
    """Whether an address is a part of our own home."""
    return address.startswith(f"{DATASET}/")


def controls(home: Path) -> dict[str, Path]:
    """Where a control is laid, by the address of its part: every part in which there is anything to search."""
    held = {part_of(str(path.relative_to(home))) for path in home.rglob("*") if _holds_bytes(path)}
    found = {f"{DATASET}/{part}": home / name for part, name in _FOLDER.items()}
    return {address: folder for address, folder in found.items() if address in held and folder.is_dir()}


def _holds_bytes(path: Path) -> bool:
    try:
        return path.is_file() and path.stat().st_size > 0
    except FileNotFoundError:  # Prefect's files come and go
        return False


def rows(
    before: Sight,
    after: Sight,
    subjects: Iterable[int],
    seen_before: Mapping[tuple[int, str], int],
    seen_after: Mapping[tuple[int, str], int],
) -> Iterator[dict[str, object]]:
    """One row per subject and part, as in FINDING: nothing of ours holds anybody, before or after."""
    for address in after.controls:
        places = [place for place, owners in after.claims.items() if owners == (address,)]
        blind = sorted({r for seen in (before, after) for r in seen.blind(address)})
        read = [after.read[place] for place in places if place in after.read]  # for everybody: these are all our files
        bytes_read = sum(read)
        for subject in subjects:
            key = (subject, address)
            seen = Observation(
                baseline_hits=seen_before.get(key, 0),
                hits_after=seen_after.get(key, 0),
                units_expected=len(places),
                units_read=len(read),
                canary_found=True,  # a look whose control was missed has no Sight
                not_examinable=";".join(blind),
            )
            yield {
                **dict.fromkeys(FINDING.names, 0),
                "subject": subject,
                "dataset": DATASET,
                "collection": address.partition("/")[2],
                "store": HOME,
                "verdict": verdict_of(seen).value,
                "method": "",
                "claim": "",
                "reason": failure(seen),
                "baseline_hits": seen.baseline_hits,
                "hits_after": seen.hits_after,
                "units_expected": seen.units_expected,
                "units_read": seen.units_read,
                "bytes_read": bytes_read,
                "canary_found": True,
                "ground": "",
                "until": "",
                "not_examinable": seen.not_examinable,
            }

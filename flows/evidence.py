"""Evidence: what a run leaves in the ledger, once and only once, however often a step is repeated.

Every entry carries a tag made from a secret that dies with the request, at a place fixed by the step. A step that
is repeated after a crash finds its own tags in the ledger and adds nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from fangxin.data.catalog.law import Laws
from fangxin.data.keys.receipt import Receipt
from fangxin.data.requests import Batch, Request
from fangxin.flows.estate import Estate
from fangxin.reports.ledger.entries import Entry, band, tag
from fangxin.reports.ledger.keys import CERTIFICATE_CA, EVIDENCE_PUBLIC
from fangxin.reports.ledger.statement import canonical
from fangxin.reports.ledger.tiles import replace_file

# Places of a request's entries.
OPENED, VERIFIED, LOCATED, EXPORTED, APPROVED, ISSUED, GIVEN_UP, RETAINED = 0, 1, 2, 3, 4, 5, 6, 16
# Places of a batch's entries; a store has two, from STORES on.
KEYS_INTENDED, KEYS_DESTROYED, VALIDATED, CLOSE_INTENDED, CLOSED, STORES = 0, 1, 2, 4, 5, 64
FREE_BEGUN, FREE_DONE = 6, 7
VALIDATED_FAILED, AS_IT_STANDS = 10, 11  # of a batch that is ended though something FAILED
SEALS_INTENDED, SEALS_ENDED = 8, 9
DONE = {name: 16 + n for n, name in enumerate((
    "locate", "plant", "baseline", "export", "destroy_keys", "overwrite", "validate", "publish",
))}  # fmt: skip
# Places that no number of stores reaches: a round of validation has 2**16 of them, a store one in each.
RELOCATED, RESIDUES, ANSWERS, ROUND = 2**31, 2**32, 2**40, 2**16
_LOOKS = 2**48


def mark(owner: Batch | Request, place: int) -> str:
    """The tag of an entry of this batch or request."""
    return tag(owner.secret, place)


def of_look(place: int, at: int) -> int:
    """The place of an entry of a validation's look, of which `at` were before: another look has entries of its own."""
    return place if not at else _LOOKS + at * ROUND + place


def record(estate: Estate, entries: Sequence[Entry]) -> dict[str, int]:
    """Append the entries whose tags the ledger does not know yet, in one flush; return the index of every tag."""
    found = estate.ledger.places([str(e["tag"]) for e in entries])
    once = {str(e["tag"]): {**e, "time": estate.minute} for e in reversed(entries)}
    new = [e for one, e in once.items() if one not in found]
    for entry, index in zip(new, estate.ledger.append(new), strict=True):
        found[str(entry["tag"])] = index
    return found


def confirm_vault(estate: Estate) -> None:
    """Raise RollbackSuspected when the vault is older than the last destruction that the ledger knows."""
    seen = [e["generation"] for _n, e in estate.ledger.rare("key.destroyed")]
    estate.tree.confirm(max((int(g) for g in seen), default=0))


def load_sources(estate: Estate, code: str) -> None:
    """Log the digest of every law file, of what they say about keeping, and of our own code, before its first use."""
    known = {str(e.get("digest")) for _n, e in estate.ledger.rare("law.loaded", "code.loaded")}
    new: list[Entry] = [
        {"type": "law.loaded", "time": estate.minute, "digest": digest, "law": name}
        for name, digest in sorted(estate.laws.digests.items())
        if digest not in known
    ]
    table = retention(estate.laws)
    digest = hashlib.sha256(table).hexdigest()
    path = estate.settings.home / "law" / f"retention-{digest}.json"
    if not path.exists():  # every table stays: an auditor computes old dates by what was in force
        path.parent.mkdir(exist_ok=True)
        replace_file(path, table)
    if digest not in known:
        new.append({"type": "law.loaded", "time": estate.minute, "digest": digest, "law": "retention"})
    if code not in known:
        new.append({"type": "code.loaded", "time": estate.minute, "digest": code})
    estate.ledger.append(new)


def retention(laws: Laws) -> bytes:
    """What all laws say about keeping, as canonical JSON: the rules from which every kept date follows.

    A verifier that reads no YAML computes the dates again from it.
    """
    rules = []
    for name, law in sorted(laws.laws.items()):
        for one in law.rules:
            keep = one.at_least or one.at_most
            if one.outcome == "seal" and one.binding and keep is not None:
                rule = {"law": name, "id": one.id, "classes": list(one.classes), "begins": one.begins.isoformat()}
                ends = {"ends": one.ends.isoformat()} if one.ends else {}
                rules.append(rule | ends | {"keep": f"P{keep.count}{keep.unit}", "from": one.start})
    return canonical({"format": "fangxin/retention/1", "rules": rules}, "retention")


def load_calendar(estate: Estate, name: str, digest: str) -> None:
    """Log a calendar's digest before a date is counted by it; NAME-YYYY is what it reaches to."""
    if digest not in {str(e["digest"]) for _n, e in estate.ledger.rare("calendar.loaded")}:
        estate.ledger.append([{"type": "calendar.loaded", "time": estate.minute, "digest": digest, "calendar": name}])


def load_keys(estate: Estate) -> None:
    """Log the digests of the public keys that sign statements and paper, so that the log's key alone leads to them."""
    files = estate.signing.public_files()
    named = {"evidence": EVIDENCE_PUBLIC, "certificates": CERTIFICATE_CA}
    digests = {field: hashlib.sha256(files[name]).hexdigest() for field, name in named.items() if name in files}
    known = [{f: e.get(f) for f in digests} for _n, e in estate.ledger.rare("keys.loaded")]
    if digests not in known:
        estate.ledger.append([{"type": "keys.loaded", "time": estate.minute, **digests}])


def destroyed_entry(receipt: Receipt, outcome: str, intent: int) -> dict[str, int | str]:
    """The ledger's entry for keys that died: the tag of the outcome, and the place of the intent before it."""
    return {
        "type": "key.destroyed",
        "tag": outcome,
        "intent": intent,
        "before": receipt.commitment_before,
        "after": receipt.commitment_after,
        "generation": receipt.generation_after,
        "count": band(receipt.destroyed + receipt.earlier),
        "claim": receipt.claim.effect,
        "grant": receipt.grant,
    }

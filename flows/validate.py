"""Validate: search everything again; nothing may be left that the plan does not list.

What is left stops publishing, whatever the store said it did: findings come from reading again, and the suite over
them decides.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from fangxin.data.errors import DoesNotHold
from fangxin.data.requests import Batch
from fangxin.flows.again import locate_again
from fangxin.flows.batch import approved_plan, finish, is_done, opened, outcome
from fangxin.flows.estate import Estate
from fangxin.flows.evidence import ANSWERS, RESIDUES, ROUND, VALIDATED, mark, record
from fangxin.flows.findings import Evidence, account, findings
from fangxin.flows.frames import pack
from fangxin.flows.inventory import closures
from fangxin.flows.keys_gone import confirm_gone
from fangxin.flows.outside import outside
from fangxin.flows.overwrite import read_erasures
from fangxin.flows.places import places
from fangxin.flows.publish import state_findings
from fangxin.flows.sight import Sight, look, searching
from fangxin.flows.strays import discreetly, left

if TYPE_CHECKING:
    import pandas as pd


def validate(batch_id: str) -> None:
    """Look again, write the findings, and let the suite judge them; DoesNotHold when anything is left."""
    estate, batch = opened(batch_id)
    if is_done(estate, batch, "validate"):
        return
    from fangxin.checks.suites.erased import judge

    plan = approved_plan(estate, batch)
    erasures = {
        s.name: read_erasures(estate.requests.kept(batch, f"erasures/{s.name}") or b"[]") for s in estate.stores
    }
    account(plan, erasures)
    keys = confirm_gone(estate, batch, plan)
    before = Sight.unpack(estate.requests.kept(batch, "before") or b"")
    estate.meter.step = "validate"
    together = searching(estate.catalog, plan.facts, plan.texts)
    wanted = together.needles
    after = look(estate, together)
    where = places(estate)
    closed = closures(estate, batch, where, erasures, before, after)
    estate.meter.step = "validate-rows"
    again = locate_again(estate, plan.facts, wanted)
    planted = json.loads(estate.requests.kept(batch, "planted") or b"{}")
    table = findings(estate, Evidence(plan, erasures, before, after, again, planted, closed))
    elsewhere = outside(before, after, where.paths)
    estate.requests.keep(batch, "findings", pack(table))
    estate.requests.keep(batch, "after", after.pack())
    estate.requests.keep(batch, "outside", pack(elsewhere))
    estate.requests.keep(batch, "closures", json.dumps({n: asdict(c) for n, c in closed.items()}).encode())
    people = [r for r in estate.requests.requests(batch.id) if not r.canary]
    answer = judge(
        table,
        subjects=len(people) + 1,
        collections=len(estate.catalog.collections) + len(after.controls),
        tmp=estate.settings.tmp,
    )
    bad = table[table["verdict"] == "FAILED"]
    if len(bad):
        _residue(estate, batch, table)
        failed = sorted({f"{d}/{c}" for d, c in zip(bad["dataset"], bad["collection"], strict=True)})
        unaccounted = tuple(f"{p}: {why}" for c in closed.values() for p, why in c.leftovers)
        still = (*left(estate, plan, after, again), *unaccounted) or ("rows that were located again",)
        raise DoesNotHold(
            f"the findings do not hold: {len(bad)} failed in {', '.join(failed)}; left in {discreetly(still, wanted)}",
            hint="stop what still writes, remove what is left there, then `fangxin resume`",
        )
    answer.require("the findings")
    figures = {"stores": len(estate.stores), "bytes": after.total, "patterns": after.patterns, "cohort": len(people)}
    digest = state_findings(estate, batch, table, figures)
    entry: dict[str, int | str] = {
        "type": "validated",
        "tag": mark(batch, VALIDATED),
        "stores": len(estate.stores),
        "bytes": after.total,
        "patterns": after.patterns,
        "hits": int(table["hits_after"].sum()),
        "canaries": len(planted),
        "scanner": after.scanner,
        "baseline": str((outcome(estate, batch, "baseline") or {}).get("digest")),
        "findings": digest,
    }
    record(estate, [entry])
    _answer(estate, batch)
    finish(estate, batch, "validate", bytes=after.total, keys=dict(keys))


def _residue(estate: Estate, batch: Batch, table: pd.DataFrame) -> None:
    """Log that something was found, by store, once for every look; the next look decides again."""
    names = set(table.loc[table["verdict"] == "FAILED", "store"])
    at = _rounds(estate, batch)
    found = {RESIDUES + at * ROUND + n: s for n, s in enumerate(estate.stores) if s.name in names}
    record(
        estate,
        [
            {"type": "residue.found", "tag": mark(batch, place), "store": estate.store_id(store), "code": "hits"}
            for place, store in found.items()
        ],
    )
    estate.requests.done(batch.id, f"residue/{at}", at=estate.minute, note={"stores": len(found)})


def _answer(estate: Estate, batch: Batch) -> None:
    """Log which residues the validation answers: tags are opaque, so an auditor could not pair them otherwise."""
    rounds = range(_rounds(estate, batch) + 1)  # one more: a crash may have come before its note
    places = [at * ROUND + n for at in rounds for n in range(len(estate.stores))]
    tags = {mark(batch, RESIDUES + place): place for place in places}
    known = estate.ledger.find(list(tags))
    record(
        estate,
        [
            {
                "type": "exception",
                "tag": mark(batch, ANSWERS + tags[one]),
                "code": f"residue.answered:{one}",
                "role": "validate",
            }
            for one in sorted(known, key=tags.__getitem__)
        ],
    )


def _rounds(estate: Estate, batch: Batch) -> int:
    """How many looks of this batch found something that should be gone."""
    done = 0
    while estate.requests.note(batch.id, f"residue/{done}") is not None:
        done += 1
    return done

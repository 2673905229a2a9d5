"""Validate: search everything again; nothing may be left that the plan does not list.

What is left stops publishing, whatever the store said it did: findings come from reading again, and the suite over
them decides. Where what FAILED cannot be mended, an operator's word ends the batch as it stands: certificates are
issued that say FAILED and why (flows/as_it_stands.py), and the people can be erased anew.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from fangxin.checks.residue.patterns import Needles
from fangxin.data.errors import DoesNotHold
from fangxin.data.requests import Batch
from fangxin.data.stores.files import PLANTED
from fangxin.flows import as_it_stands
from fangxin.flows.again import locate_again
from fangxin.flows.batch import approved_plan, as_approved, finish, is_done, missing, opened, outcome
from fangxin.flows.estate import Estate
from fangxin.flows.evidence import ANSWERS, RESIDUES, ROUND, VALIDATED, VALIDATED_FAILED, mark, of_look, record
from fangxin.flows.findings import Evidence, account, findings
from fangxin.flows.frames import pack
from fangxin.flows.inventory import closures
from fangxin.flows.keys_gone import confirm_gone
from fangxin.flows.outside import outside
from fangxin.flows.overwrite import end_passed_over, read_erasures
from fangxin.flows.places import places
from fangxin.flows.publish import state_findings
from fangxin.flows.sight import Sight, look, searching
from fangxin.flows.strays import discreetly, left
from fangxin.flows.unplant import mend, stays_no_more, withdraw

if TYPE_CHECKING:
    import pandas as pd


def validate(batch_id: str) -> None:
    """Look again, write the findings, and let the suite judge them; DoesNotHold when anything is left."""
    estate, batch = opened(batch_id)
    if is_done(estate, batch, "validate"):
        end_passed_over(estate, batch)
        return
    from fangxin.checks.suites.erased import judge

    plan = approved_plan(estate, batch)
    erasures = {
        s.name: read_erasures(estate.requests.kept(batch, f"erasures/{s.name}") or b"[]") for s in estate.stores
    }
    account(plan, erasures)
    keys = confirm_gone(estate, batch, plan)
    before = Sight.unpack(estate.requests.kept(batch, "before") or b"")
    if _rounds(estate, batch):  # only after a look that failed was the planted person ever taken out
        mend(estate, batch)
    estate.meter.step = "validate"
    together = searching(estate.catalog, plan.facts, plan.texts)
    wanted = together.needles
    after = look(estate, together)
    where = places(estate)
    closed = closures(estate, batch, where, erasures, before, after)
    estate.meter.step = "validate-rows"
    again = locate_again(estate, plan.facts, wanted)
    planted = json.loads(estate.requests.kept(batch, "planted") or b"{}")
    require = batch.options.get("require")
    table = findings(
        estate, Evidence(plan, erasures, before, after, again, planted, closed, require, as_approved(estate, batch))
    )
    elsewhere = outside(before, after, where.paths)
    estate.requests.keep(batch, "findings", pack(table))
    estate.requests.keep(batch, "after", after.pack())
    estate.requests.keep(batch, "outside", pack(elsewhere))
    estate.requests.keep(batch, "closures", json.dumps({n: asdict(c) for n, c in closed.items()}).encode())
    people = [r for r in estate.requests.requests(batch.id) if not r.canary]
    bad = table[table["verdict"] == "FAILED"]
    word = as_it_stands.word(batch) if len(bad) else None
    at, total = _look(estate, batch, table, after.total, word)
    if len(bad):
        _residue(estate, batch, table)
        if word is None:
            still = [*left(estate, plan, after, again), *(f"{p}: {w}" for c in closed.values() for p, w in c.leftovers)]
            freed = [p for s in estate.stores if not s.capabilities.raw_scan for p in closed[s.name].freed]
            empty = {c.address for s in estate.stores for c in s.collections if not s.units(c)}
            gone = [p for p, owners in before.claims.items() if empty & set(owners) and PLANTED not in p]
            raise _does_not_hold(batch, bad, still, freed, gone, wanted)
    judge(
        table,
        subjects=len(people) + 1,
        collections=len(estate.catalog.collections) + len(after.controls),
        tmp=estate.settings.tmp,
        as_it_stands=word is not None,
    ).require("the findings")
    if word is not None:
        as_it_stands.log(estate, batch, word, at=at)
    failed = sum(one.number in set(bad["subject"]) for one in people)
    figures = {"stores": len(estate.stores), "bytes": total, "patterns": after.patterns}
    _state(estate, batch, table, figures, scanner=after.scanner, at=at, planted=len(planted), failed=failed)
    if not failed:  # else the certificates that say so answer them
        _answer(estate, batch)
    if word is not None:
        withdraw(estate, batch, plan, table, elsewhere)
    else:
        stays_no_more(estate, batch, elsewhere)
    under = {} if word is None else {"passed": missing(estate, batch)}
    finish(estate, batch, "validate", bytes=total, keys=dict(keys), look=at, **under)
    end_passed_over(estate, batch)


def _does_not_hold(
    batch: Batch,
    bad: pd.DataFrame,
    still: Sequence[str],
    freed: Sequence[str],
    gone: Sequence[str],
    wanted: Needles,
) -> DoesNotHold:
    """What failed, where, what can be done: `still` is left there, `freed` files of opaque stores are out of reach,
    `gone` are those of collections that have no file any more."""
    failed = sorted({f"{d}/{c}" for d, c in zip(bad["dataset"], bad["collection"], strict=True)})
    found = f"left in {discreetly(still, wanted)}" if still else ""
    lost = f"{discreetly(freed, wanted)}: {_FREED}" if freed else ""
    away = f"{discreetly(gone, wanted)}: expected a file of the collection, found none any more" if gone else ""
    why = "; ".join(filter(None, (found, lost, away))) or "; ".join(sorted(set(bad["reason"])))
    end = f"`fangxin resume {batch.id} --as-it-stands CODE` ends it with certificates that say FAILED and why"
    hint = f"stop what still writes, remove what is left there, then `fangxin resume`; where that cannot be done, {end}"
    if gone and not still:
        hint = (
            "where this batch had rewritten it, put that file back, then `fangxin resume`; one that it never came to is"
            f" not taken up again: {end}; then put it back, and erase these people anew"
        )
    elif not still:
        hint = f"nothing is left there to be removed: {end}; then these people can be erased anew"
    return DoesNotHold(f"the findings do not hold: {len(bad)} failed in {', '.join(failed)}; {why}", hint=hint)


_FREED = (
    "expected the old file to be overwritten where it lay and read back, found that somebody replaced it while the"
    " batch was open (clause 4 of the proof by construction)"
)


_SIZES = ["units_expected", "units_read", "bytes_read", "not_examinable"]  # our own files grow while they are read


def _look(estate: Estate, batch: Batch, table: pd.DataFrame, total: int, word: str | None) -> tuple[int, int]:
    """Which look this is (how many came before it), and how many bytes it read.

    A look that is repeated after a crash and finds the same is the same one, logged once. One that finds something
    else, or comes under an operator's other word, is another: what was logged of an earlier one is not about it.
    """
    found = [word, table.drop(columns=_SIZES).to_csv(index=False)]
    digest = hmac.new(batch.secret, b"look" + json.dumps(found).encode(), hashlib.sha256).hexdigest()
    at, last = -1, None
    while (note := estate.requests.note(batch.id, f"look/{at + 1}")) is not None:
        at, last = at + 1, note
    if last is None or last["found"] != digest:
        at, last = at + 1, {"found": digest, "bytes": total}
        estate.requests.done(batch.id, f"look/{at}", at=estate.minute, note=last)
    return at, int(last["bytes"])


def _state(
    estate: Estate,
    batch: Batch,
    table: pd.DataFrame,
    figures: Mapping[str, int],
    *,
    scanner: str,
    at: int,
    planted: int,
    failed: int,
) -> None:
    """Sign and log what was found: of whom all holds, and apart from them of whom something FAILED (`failed` people).

    A certificate that claims something rests on a validation without hits and failures. One look is counted once.
    """
    cohort = sum(not one.canary for one in estate.requests.requests(batch.id))
    bad = table["subject"].isin(table.loc[table["verdict"] == "FAILED", "subject"])
    parts = [(VALIDATED, "statement", table[~bad])] * (failed < cohort)
    parts += [(VALIDATED_FAILED, "statement/failed", table[bad])] * (failed > 0)
    baseline = str((outcome(estate, batch, "baseline") or {}).get("digest"))
    entries: list[dict[str, int | str]] = []
    for place, name, part in parts:
        told = {**figures, "canaries": planted} if not entries else dict.fromkeys((*figures, "canaries"), 0)
        covered = failed if place == VALIDATED_FAILED else cohort - failed
        stated = {**{key: told[key] for key in figures}, "cohort": cohort, "people": covered}
        entry: dict[str, int | str] = {
            "type": "validated",
            "tag": mark(batch, of_look(place, at)),
            **told,
            "hits": int(part["hits_after"].sum()),
            "scanner": scanner,
            "baseline": baseline,
            "findings": state_findings(estate, batch, part, stated, name=f"{name}/{at}" if at else name),
        }
        if place == VALIDATED_FAILED:
            entry["failed"] = int((part["verdict"] == "FAILED").sum())
        entries.append(entry)
    record(estate, entries)


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

"""A batch between its steps: opened again, what is done, what was noted, and the plan that lies sealed.

The ledger says which steps are done, so `resume` goes on from there; a step's note of counts and digests lies in the
requests store, and the ledger holds its keyed digest. Rows and identities are sealed parts. Nothing of either is
handed from one step to the next but the batch id.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import date
from typing import TYPE_CHECKING, Any

from fangxin.data.errors import DoesNotHold, NotAllowed
from fangxin.data.keys.approval import Approval
from fangxin.data.keys.grant import Grant
from fangxin.data.requests import Batch
from fangxin.data.vocabulary import Unit
from fangxin.flows import as_it_stands
from fangxin.flows.estate import Estate, estate_of
from fangxin.flows.evidence import DONE, mark, record
from fangxin.flows.frames import pack, unpack
from fangxin.flows.lost import concede, passed_over
from fangxin.flows.plan import Bound, Plan

if TYPE_CHECKING:
    import pandas as pd

Step = Callable[[str], None]
PLANNED = "planned"  # the note that holds what officers sign
BEGUN = "begun"  # the note that every closing of the batch passed its point of no return


def opened(batch_id: str) -> tuple[Estate, Batch]:
    """The estate as the batch was opened with, and the batch.

    NotAllowed where catalog, laws or facts are no longer those it was opened under, while anything of it is due:
    what a step no longer knows of, it would neither erase nor look into.
    """
    estate = estate_of(batch_id)
    batch = estate.requests.batch(batch_id)
    if batch.state == "open" and outcome(estate, batch, "publish") is None:
        _unchanged(estate, batch)
        ended = outcome(estate, batch, "validate") or {}
        if as_it_stands.word(batch) is not None or "passed" in ended:
            concede(estate, batch)
    return estate, batch


def grounds(estate: Estate) -> dict[str, Any]:
    """What decides besides the catalog: digests of the laws, facts about the operator. For a batch's options."""
    return {"laws": dict(estate.laws.digests), "facts": sorted(estate.settings.facts)}


def is_done(estate: Estate, batch: Batch, step: str) -> bool:
    """Whether a step has nothing left to do."""
    return batch.state != "open" or outcome(estate, batch, step) is not None


def outcome(estate: Estate, batch: Batch, step: str) -> Mapping[str, Any] | None:  # Any: JSON
    """What a step came to; None until the ledger says that it is done.

    DoesNotHold where the ledger says so and the requests store does not have that note: an older copy of it, or
    another's. While a batch is being closed its secret is dead and with it its tags: then the note alone is left.
    """
    note = estate.requests.note(batch.id, step)
    if not batch.secret:
        return note
    tagged = mark(batch, DONE[step])
    found = estate.ledger.find([tagged])
    if tagged not in found:
        return None
    if note is None or found[tagged][1]["note"] != digest_of_note(batch, step, note):
        raise DoesNotHold(
            f"{step}: the ledger says that it is done, the requests store does not know its outcome",
            hint="requests.db is older than the ledger: put the newest copy back, then `fangxin resume`",
        )
    return note


def finish(estate: Estate, batch: Batch, step: str, **note: Any) -> None:
    """A step is done: note its counts, how often the most opened unit was opened, how long it took; then the ledger.

    A step that is killed before the ledger knows runs again, and its note is written anew.
    """
    seconds = round(time.monotonic() - estate.since, 3)
    told = {**note, "opened": estate.meter.most(), "seconds": seconds}
    estate.requests.done(batch.id, step, at=estate.minute, note=told, anew=True)
    digest = digest_of_note(batch, step, estate.requests.note(batch.id, step) or {})
    record(estate, [{"type": "step.done", "tag": mark(batch, DONE[step]), "step": step, "note": digest}])


def digest_of_note(batch: Batch, step: str, note: Mapping[str, Any]) -> str:
    """Keyed, because counts are few: whoever reads the ledger could try them all."""
    text = json.dumps([step, dict(note)], sort_keys=True, separators=(",", ":"))
    return hmac.new(batch.secret, b"step" + text.encode(), hashlib.sha256).hexdigest()


def bound(batch: Batch) -> dict[int, Bound]:
    """What binds subjects of a batch besides today's laws, by their number: options["bound"], as `binds` wrote it."""
    return {
        int(number): Bound(
            date.fromisoformat(one["closed"]) if one["closed"] else None,
            frozenset(one["held"]),
            one.get("decided", {}),
        )
        for number, one in batch.options.get("bound", {}).items()
    }


def binds(bounds: Sequence[Bound]) -> dict[str, Any]:
    """The same for a batch's options, in the order of its subjects; who is free is left out. Any: JSON."""
    return {
        str(n): {
            "closed": one.closed.isoformat() if one.closed else None,
            "held": sorted(one.held),
            **({"decided": dict(one.decided)} if one.decided else {}),
        }
        for n, one in enumerate(bounds)
        if one.closed or one.held or one.decided
    }


def is_approved(batch: Batch) -> bool:
    """Whether somebody said yes to the plan of this batch."""
    return batch.options.get("approved") is True


def begun(estate: Estate, batch: Batch) -> bool:
    """Whether the closings that a batch carries out are beyond their point of no return; true where it has none."""
    return not batch.options.get("closures") or estate.requests.note(batch.id, BEGUN) is not None


def signed(estate: Estate, batch: Batch) -> tuple[Grant, tuple[Approval, ...]] | None:
    """The grant that officers signed for a batch, and their approvals; None where nobody had to (flows/officers.py)."""
    noted = estate.requests.note(batch.id, PLANNED)
    texts = batch.options.get("approvals") or []
    if noted is None or not texts:
        return None
    return Grant.parse(noted["grant"]), tuple(map(Approval.parse, texts))


def approved_plan(estate: Estate, batch: Batch) -> Plan:
    """The plan, if what lies sealed has the digest that was approved; destructive steps go no other way.

    A plan whose units were located again (flows/relocate.py) has a digest of its own, noted as it was accepted.
    """
    noted = outcome(estate, batch, "plant")
    if noted is None or not is_approved(batch):
        raise NotAllowed("no approved plan stands for this batch", hint="`fangxin erase … --yes` approves one")
    times = relocations(estate, batch)
    again = estate.requests.note(batch.id, f"relocated/{times}") if times else None
    plan = read_plan(estate, batch, f"relocated/{times}" if again else "whole")
    if digest_of(batch.catalog, plan.fates, plan.texts) != (again or noted)["plan"]:
        raise NotAllowed("the plan is not the one that was approved", hint="locate again and have it approved")
    away = set(missing(estate, batch))
    addresses = [c.address for s in estate.stores if s.name in away for c in s.collections]
    return replace(plan, fates=plan.fates[~plan.fates["collection"].isin(addresses)]) if away else plan


def missing(estate: Estate, batch: Batch) -> list[str]:
    """The stores that were passed over under an operator's word, their databases being gone: nothing was done there."""
    if (ended := outcome(estate, batch, "validate")) is not None:
        return list(ended.get("passed", ()))
    return [
        s.name for s in estate.stores if passed_over(s) and estate.requests.kept(batch, f"erasures/{s.name}") is None
    ]


def as_approved(estate: Estate, batch: Batch) -> Plan | None:
    """The plan as it was before any of its units was located again, or passed over; None where none was."""
    return read_plan(estate, batch, "whole") if relocations(estate, batch) or missing(estate, batch) else None


def digest_of(catalog: str, fates: pd.DataFrame, texts: pd.DataFrame) -> str:
    """SHA-256 over the catalog's digest, every fate and every text to be masked: what an approval is for."""
    running = hashlib.sha256(catalog.encode())
    for frame in (fates, texts):
        running.update(hashlib.sha256(frame.to_csv(index=False).encode()).digest())
    return running.hexdigest()


def relocations(estate: Estate, batch: Batch) -> int:
    """How many times units of this batch were located again."""
    times = 0
    while estate.requests.note(batch.id, f"relocated/{times + 1}") is not None:
        times += 1
    return times


def keep_relocated(estate: Estate, batch: Batch, plan: Plan) -> None:
    """Seal a plan that goes on in place of the last one; its note comes last, so that a crash leaves the old or it."""
    name = f"relocated/{relocations(estate, batch) + 1}"
    keep_plan(estate, batch, name, plan)
    estate.requests.done(batch.id, name, at=estate.minute, note={"plan": plan.digest})


def keep_plan(estate: Estate, batch: Batch, name: str, plan: Plan) -> None:
    """Seal a plan under the batch's key."""
    estate.requests.keep(batch, f"fates/{name}", pack(plan.fates))
    estate.requests.keep(batch, f"texts/{name}", pack(plan.texts))
    estate.requests.keep(batch, f"facts/{name}", pack(plan.facts))
    estate.requests.keep(batch, f"plan/{name}", plan.digest.encode())


def read_plan(estate: Estate, batch: Batch, name: str) -> Plan:
    """Open a sealed plan; NotAllowed when the batch was not located yet."""
    parts = [estate.requests.kept(batch, f"{part}/{name}") for part in ("fates", "texts", "facts", "plan")]
    if any(p is None for p in parts):
        raise NotAllowed("this batch was not located yet", hint="fangxin resume")
    fates, texts, facts = (unpack(p or b"")[0] for p in parts[:3])
    return Plan(fates, texts, facts, (parts[3] or b"").decode())


def _unchanged(estate: Estate, batch: Batch) -> None:
    hint = "put it back as it was when the plan was approved, then `fangxin resume`"
    if estate.catalog.digest != batch.catalog:
        raise NotAllowed("the catalog is not the one this batch was opened under", hint=hint)
    for name, now in grounds(estate).items():
        if batch.options.get(name, now) != now:
            what = "a law file" if name == "laws" else "facts in fangxin.toml"
            raise NotAllowed(f"{what}: not as when this batch was opened", hint=hint)


def pack_states(states: Mapping[tuple[str, str], Unit]) -> bytes:
    """States of units as JSON, for the sealed parts."""
    return json.dumps([[s, asdict(u)] for (s, _n), u in sorted(states.items())]).encode()


def unpack_states(body: bytes | None) -> dict[tuple[str, str], Unit]:
    """Read back what `pack_states` wrote."""
    found = {}
    for store, raw in json.loads(body or b"[]"):
        found[(store, raw["name"])] = Unit(**raw)
    return found

"""A batch between its steps: opened again, what is done, what was noted, and the plan that lies sealed.

A step remembers that it is done by a note of counts and digests; rows and identities are sealed parts. Nothing of
either is handed from one step to the next but the batch id.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from fangxin.data.errors import NotAllowed
from fangxin.data.requests import Batch
from fangxin.data.vocabulary import Unit
from fangxin.flows.estate import Estate, estate_of
from fangxin.flows.frames import pack, unpack
from fangxin.flows.plan import Plan

Step = Callable[[str], None]


def opened(batch_id: str) -> tuple[Estate, Batch]:
    """The estate as the batch was opened with, and the batch."""
    estate = estate_of(batch_id)
    return estate, estate.requests.batch(batch_id)


def is_done(estate: Estate, batch: Batch, step: str) -> bool:
    """Whether a step has nothing left to do."""
    return batch.state != "open" or estate.requests.note(batch.id, step) is not None


def finish(estate: Estate, batch: Batch, step: str, **note: Any) -> None:
    """Note that a step is done: its counts, how often the most opened unit was opened, how long it took."""
    seconds = round(time.monotonic() - estate.since, 3)
    told = {**note, "opened": estate.meter.most(), "seconds": seconds}
    estate.requests.done(batch.id, step, at=estate.minute, note=told)


def is_approved(batch: Batch) -> bool:
    """Whether somebody said yes to the plan of this batch."""
    return batch.options.get("approved") is True


def approved_plan(estate: Estate, batch: Batch) -> Plan:
    """The plan, if its digest is the one that was approved; destructive steps go no other way."""
    noted = estate.requests.note(batch.id, "plant")
    body = estate.requests.kept(batch, "plan/whole")
    if noted is None or body is None or not is_approved(batch):
        raise NotAllowed("no approved plan stands for this batch", hint="`fangxin erase … --yes` approves one")
    plan = read_plan(estate, batch, "whole")
    if plan.digest != noted["plan"]:
        raise NotAllowed("the plan is not the one that was approved", hint="locate again and have it approved")
    return plan


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


def pack_states(states: Mapping[tuple[str, str], Unit]) -> bytes:
    """States of units as JSON, for the sealed parts."""
    return json.dumps([[s, asdict(u)] for (s, _n), u in sorted(states.items())]).encode()


def unpack_states(body: bytes | None) -> dict[tuple[str, str], Unit]:
    """Read back what `pack_states` wrote."""
    found = {}
    for store, raw in json.loads(body or b"[]"):
        found[(store, raw["name"])] = Unit(**raw)
    return found

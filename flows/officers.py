"""Officers: a plan that more people fall under than one person may decide about is written down, signed, carried out.

A planned batch is located and waits; nothing of any store is changed. What officers sign is the grant of its key
destruction: this vault at this generation, exactly these keys (as a digest), this catalog, this window of time. The
vault checks the signatures itself when the keys die; here they only find their batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from fangxin.data.errors import InputError, NotAllowed
from fangxin.data.keys.approval import Approval
from fangxin.data.keys.grant import Grant
from fangxin.data.requests import Batch
from fangxin.data.vocabulary import Identity
from fangxin.flows.batch import PLANNED, opened, read_plan
from fangxin.flows.destroy_keys import canary_keys
from fangxin.flows.erase import open_batch, run_step
from fangxin.flows.estate import Estate
from fangxin.flows.locate import locate
from fangxin.flows.plan import domains, drops

LASTS = timedelta(days=3)  # how long a plan may be signed and carried out


def plan(estate: Estate, subjects: Sequence[Sequence[Identity]], *, options: Mapping[str, Any]) -> tuple[str, Grant]:
    """Open a batch, locate its people, and write down what would die; return the batch id and the grant to sign.

    Any: options of a batch, as JSON. Raises what opening and locating raise; nothing in any store is changed.
    """
    batch_id = open_batch(estate, subjects, options={**options, "approved": False})
    run_step(locate, batch_id)
    estate, batch = opened(batch_id)
    grant = Grant.of(
        dying(estate, batch),
        vault=estate.tree.vault_id,
        generation=estate.tree.generation,
        catalog=batch.catalog,
        not_before=estate.now,
        valid_for=LASTS,
    )
    estate.requests.done(batch.id, PLANNED, at=estate.minute, note={"grant": grant.canonical()})
    return batch_id, grant


def dying(estate: Estate, batch: Batch) -> dict[bytes, frozenset[int]]:
    """The keys that die with a located batch: the people's, and those of its canary, which is known beforehand."""
    codes = {name: estate.tree.domain_code(name) for name in domains(estate.catalog)}
    found = drops(estate.catalog, read_plan(estate, batch, "people"), codes)
    found.update(canary_keys(estate, batch))
    return found


def approve(estate: Estate, approvals: Sequence[Approval]) -> str:
    """Find the planned batch that these approvals are for, and note them; return its id.

    InputError where they are for different plans, or for none that waits here; NotAllowed where a signature does not
    hold. The vault checks all of it again.
    """
    grants = {one.grant for one in approvals}
    if len(grants) != 1:
        raise InputError(f"the approvals are for {len(grants)} different plans", hint="give those of one plan")
    (text,) = grants
    for batch_id in estate.requests.unfinished():
        noted = estate.requests.note(batch_id, PLANNED)
        living = estate.requests.batch(batch_id).secret  # else it was carried out, and a crash came while it closed
        if noted is not None and noted["grant"] == text and living:
            keys = dying(*opened(batch_id))  # with the catalog it was opened with
            estate.tree.allowed(keys, grant=Grant.parse(text), approvals=approvals, now=estate.now)
            estate.requests.approve(batch_id, [one.text() for one in approvals])
            return batch_id
    raise NotAllowed("no batch waits for this plan", hint="it was carried out or given up, or is another home's")

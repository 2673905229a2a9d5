"""Close: the keys under which the people's identities lay with us die, and what they sealed is emptied."""

from __future__ import annotations

from fangxin.data.errors import NotAllowed
from fangxin.flows.batch import opened, outcome
from fangxin.flows.destroy_keys import forget


def close(batch_id: str) -> None:
    """Destroy the keys under which the identities lay, and empty what they sealed."""
    estate, batch = opened(batch_id)
    if batch.state != "open":
        return
    if outcome(estate, batch, "publish") is None:
        raise NotAllowed("a batch is closed after its certificates", hint="fangxin resume")
    forget(estate, batch)
    estate.requests.finish(batch.id, state="closed")

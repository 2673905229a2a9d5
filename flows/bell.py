"""The bell: Prefect runs what is due at the very minute in which days of regret end, besides every night.

A run of the deployment `run-due/closings` is scheduled for the instant, under an idempotency key made of nothing but
that instant: everybody sealed in one night has one bell, and asking twice gives the same run. It carries no parameter,
so Prefect learns no id and nobody's name.

* It is an alarm clock and no more: whoever wakes up asks our own store what is due. A bell for somebody who came back
  finds nothing to do; a bell that never rings is caught up by the next night.
* A cancelled run keeps its key for ever, and deleting the deployment deletes the waiting runs: both cost a bell only.
"""

from __future__ import annotations

import sys
from datetime import datetime
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectException
from prefect.settings import PREFECT_API_URL
from prefect.states import Scheduled

DEPLOYMENT = "run-due/closings"


def ring(at: datetime) -> UUID | None:
    """Have everything due done at an instant; the run's id, None where no server or deployment is there."""
    if not PREFECT_API_URL.value():
        return None
    try:
        with get_client(sync_client=True) as client:
            found = client.read_deployment_by_name(DEPLOYMENT)
            key = f"closings:{at:%Y-%m-%dT%H:%M:%SZ}"
            run = client.create_flow_run_from_deployment(
                found.id, state=Scheduled(scheduled_time=at), idempotency_key=key, name=key
            )
            return run.id
    except (PrefectException, OSError) as error:  # the night does it all the same
        print(f"no bell was set: {type(error).__name__}; the next scheduled run-due does it", file=sys.stderr)
        return None

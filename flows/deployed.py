"""The flows that Prefect knows: each step alone, the whole erase, and the nightly run of what is open.

They carry a batch id and nothing else; the home is in the worker's environment. Destructive steps demand an
approved plan themselves, so a flow started by hand can do no more than the command line.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from prefect import flow

from fangxin.data.errors import FangxinError
from fangxin.flows import erase as journey
from fangxin.flows.estate import alone, open_estate
from fangxin.flows.runner import StepFailed, discreet, run, step
from fangxin.flows.settings import home_from

_TOLD: list[FangxinError] = []  # what really went wrong, for this process only: Prefect gets its code


@flow(name="erase", persist_result=False, validate_parameters=False)
@discreet
def erase(batch_id: str) -> None:
    """The whole journey of a batch, step by step, in the order that flows/erase.py tells."""
    for one in journey.STEPS:
        step(_timed(one))(batch_id)


@flow(name="due", persist_result=False, validate_parameters=False)
@discreet
def due() -> None:
    """Finish every batch that is open: what the nightly deployment runs."""
    home = home_from(None)
    with alone(home):
        for batch_id in open_estate(home).requests.unfinished():
            for one in journey.STEPS:
                step(_timed(one))(batch_id)


@flow(name="locate", persist_result=False, validate_parameters=False)
@discreet
def locate(batch_id: str) -> None:
    """Locate alone."""
    journey.run_step(journey.locate, batch_id)


@flow(name="export", persist_result=False, validate_parameters=False)
@discreet
def export(batch_id: str) -> None:
    """Export alone."""
    journey.run_step(journey.export, batch_id)


@flow(name="destroy_keys", persist_result=False, validate_parameters=False)
@discreet
def destroy_keys(batch_id: str) -> None:
    """Key destruction alone; demands an approved plan."""
    journey.run_step(journey.destroy_keys, batch_id)


@flow(name="overwrite", persist_result=False, validate_parameters=False)
@discreet
def overwrite(batch_id: str) -> None:
    """Overwriting alone; demands an approved plan and dead keys."""
    journey.run_step(journey.overwrite, batch_id)


@flow(name="validate", persist_result=False, validate_parameters=False)
@discreet
def validate(batch_id: str) -> None:
    """Validation alone."""
    journey.run_step(journey.validate, batch_id)


@flow(name="publish", persist_result=False, validate_parameters=False)
@discreet
def publish(batch_id: str) -> None:
    """Publishing alone; demands a validation."""
    journey.run_step(journey.publish, batch_id)


SECONDS: dict[str, float] = {}


def _timed(one: Callable[[str], None]) -> Callable[[str], None]:
    def work(batch_id: str) -> None:
        start = time.monotonic()
        try:
            journey.run_step(one, batch_id)
        except FangxinError as error:
            _TOLD.append(error)
            raise
        SECONDS[one.__name__] = round(time.monotonic() - start, 3)

    work.__name__ = one.__name__
    return work


def run_erase(batch_id: str) -> dict[str, float]:
    """Run the erase flow here and now; our own errors come out as they are, not as Prefect's code for them."""
    _TOLD.clear()
    SECONDS.clear()
    try:
        run(erase, batch_id)
    except StepFailed:
        if _TOLD:
            raise _TOLD[-1] from None
        raise
    return dict(SECONDS)

"""The flows that Prefect knows: the whole erase, the nightly run of what is due, and each step alone.

They carry a batch id and nothing else; the home is in the worker's environment. Destructive steps demand an
approved plan themselves, so a flow started by hand can do no more than the command line.

The steps' work lies in a file each, as plain functions; their flows lie here together, because importing Prefect
takes two seconds and 80 MB, and neither `fangxin resume` nor `locate` has any use for it.
"""

from __future__ import annotations

from prefect import flow

from fangxin.flows import erase as journey
from fangxin.flows.batch import Step
from fangxin.flows.estate import alone, open_estate
from fangxin.flows.runner import StepFailed, discreet, run, step
from fangxin.flows.settings import home_from


@flow(name="erase", persist_result=False, validate_parameters=False)
@discreet
def erase(batch_id: str) -> None:
    """The whole journey of a batch, step by step, in the order that flows/erase.py tells."""
    with alone(home_from(None)):
        _erase(batch_id)


@flow(name="due", persist_result=False, validate_parameters=False)
@discreet
def due() -> None:
    """Finish every batch that is due: what the nightly deployment runs. One that fails does not hold up the others."""
    home = home_from(None)
    failed = set()
    with alone(home):
        for batch_id in journey.due(open_estate(home)):
            try:
                _erase(batch_id)
            except StepFailed as code:
                failed.add(str(code))
    if failed:
        raise StepFailed(", ".join(sorted(failed)))


@flow(name="locate", persist_result=False, validate_parameters=False)
@discreet
def locate(batch_id: str) -> None:
    """Locate alone."""
    _alone(journey.locate, batch_id)


@flow(name="export", persist_result=False, validate_parameters=False)
@discreet
def export(batch_id: str) -> None:
    """Export alone."""
    _alone(journey.export, batch_id)


@flow(name="destroy_keys", persist_result=False, validate_parameters=False)
@discreet
def destroy_keys(batch_id: str) -> None:
    """Key destruction alone; demands an approved plan."""
    _alone(journey.destroy_keys, batch_id)


@flow(name="overwrite", persist_result=False, validate_parameters=False)
@discreet
def overwrite(batch_id: str) -> None:
    """Overwriting alone; demands an approved plan and dead keys."""
    _alone(journey.overwrite, batch_id)


@flow(name="validate", persist_result=False, validate_parameters=False)
@discreet
def validate(batch_id: str) -> None:
    """Validation alone."""
    _alone(journey.validate, batch_id)


@flow(name="publish", persist_result=False, validate_parameters=False)
@discreet
def publish(batch_id: str) -> None:
    """Publishing alone; demands a validation."""
    _alone(journey.publish, batch_id)


def run_erase(batch_id: str) -> None:
    """Run the erase flow here and now, as a command does; errors come out as they are."""
    run(erase, batch_id)


def _erase(batch_id: str) -> None:
    """Every step as a task, in order."""
    for one in journey.STEPS:
        step(_asked(one)).with_options(name=one.__name__)(batch_id)


def _alone(one: Step, batch_id: str) -> None:
    """One step, with the home for itself."""
    with alone(home_from(None)):
        journey.run_step(one, batch_id)


def _asked(one: Step) -> Step:
    def work(batch_id: str) -> None:
        journey.run_step(one, batch_id)

    return work

"""The flows that Prefect knows: the whole erase, the nightly run of what is due, and each step alone.

They carry a batch id and nothing else; the home is in the worker's environment. Destructive steps demand an
approved plan themselves, so a flow started by hand can do no more than the command line.

The steps' work lies in a file each, as plain functions; their flows lie here together, because importing Prefect
takes two seconds and 80 MB, and neither `fangxin resume` nor `locate` has any use for it.
"""

from __future__ import annotations

import secrets

from prefect import Flow, flow

from fangxin.flows import erase as journey
from fangxin.flows.batch import Step
from fangxin.flows.estate import alone, open_estate
from fangxin.flows.exports import end_exports
from fangxin.flows.runner import StepFailed, discreet, run, step
from fangxin.flows.server import wake
from fangxin.flows.settings import home_from

_REVIEW_LASTS = 14 * 24 * 3600  # seconds; longer than any review that keeps its promise


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
        end_exports(open_estate(home, home))  # whose batches are closed: no catalog is needed
        for batch_id in journey.due(open_estate(home)):
            try:
                _erase(batch_id)
            except StepFailed as code:
                failed.add(str(code))
    if failed:
        raise StepFailed(", ".join(sorted(failed)))


@flow(name="run-due", persist_result=False, validate_parameters=False)
@discreet
def run_due() -> None:
    """Everything that is due of the closings: what the night and the bell at the end of regret run."""
    from fangxin.flows import ending
    from fangxin.flows.bell import ring
    from fangxin.flows.desk import at_desk, request_of

    home = home_from(None)
    with alone(home), at_desk(open_estate(home)) as desk:
        done = ending.run_due(desk)
        ends = {request_of(desk.closures.get(one)).regret_ends for one in done.sealed}
    for at in sorted(end for end in ends if end is not None):
        ring(at)
    if done.errors:
        raise done.errors[0]


@flow(name="review", persist_result=False, validate_parameters=False)
@discreet
def review(closure_id: str) -> str:
    """Wait, suspended, until a closing was decided: a door for officers who work in Prefect. Returns its public state.

    Resuming decides nothing: the signed approval lies in our store, and the flow looks there again, from its top.
    """
    from prefect.flow_runs import suspend_flow_run

    from fangxin.flows.desk import at_desk, request_of
    from fangxin.flows.lifecycle import State

    with at_desk(open_estate(home_from(None))) as desk:
        request = request_of(desk.closures.get(closure_id))
    if request.state is State.REVIEW:
        suspend_flow_run(timeout=_REVIEW_LASTS, key=secrets.token_hex(8))  # a key suspends once
    return request.public.value


def _single(one: Step) -> Flow[[str], None]:
    """The flow of one step alone, with the home for itself; what a step demands, it demands itself."""

    def work(batch_id: str) -> None:
        with alone(home_from(None)):
            journey.run_step(one, batch_id)

    work.__doc__ = one.__doc__
    return flow(name=one.__name__, persist_result=False, validate_parameters=False)(discreet(work))


locate = _single(journey.locate)
plant = _single(journey.plant)
baseline = _single(journey.baseline)
export = _single(journey.export)
destroy_keys = _single(journey.destroy_keys)
overwrite = _single(journey.overwrite)
validate = _single(journey.validate)
publish = _single(journey.publish)
close = _single(journey.close)


def run_erase(batch_id: str) -> None:
    """Run the erase flow here and now, as a command does; errors come out as they are."""
    wake().join()
    run(erase, batch_id)


def _erase(batch_id: str) -> None:
    """Every step as a task, in order."""
    for one in journey.STEPS:
        step(_asked(one)).with_options(name=one.__name__)(batch_id)


def _asked(one: Step) -> Step:
    def work(batch_id: str) -> None:
        journey.run_step(one, batch_id)

    return work

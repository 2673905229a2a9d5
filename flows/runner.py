"""Prefect, as we use it: it says *when*; ids, counts and codes are all it ever learns.

Prefect stores parameters, messages and exceptions in its own database, and pickles what ends a flow. So a step
is a task over a plain function whose failures leave as a code (`discreet`), results are not persisted, and the
only parameters are opaque ids. What really went wrong is told on this process's own stderr or, where a command
called the flow, handed to the command.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from fangxin.data.errors import FangxinError, told

P = ParamSpec("P")
R = TypeVar("R")


class StepFailed(Exception):
    """A step ended with this code; the whole story is in our ledger and on the process's own stderr."""


def discreet(work: Callable[P, R]) -> Callable[P, R]:
    """Let a failure leave as its code only: no message, no cause, no row of anybody."""

    @wraps(work)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return work(*args, **kwargs)
        except StepFailed as error:  # of a step inside: told already
            code = str(error)
        except FangxinError as error:
            _hear(error)
            code = type(error).__name__
        except Exception as error:
            _hear(error)
            code = f"defect/{type(error).__name__}"
        raise StepFailed(code)  # out here it has no cause and no context, nor their frames with what they held

    return guarded


def step(work: Callable[P, R]) -> Task[P, R]:
    """Make a task of a plain function, without cache and without a persisted result."""
    return task(cache_policy=NO_CACHE, persist_result=False)(discreet(work))


def run(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a flow here and now; what went wrong inside comes out as it is, not as Prefect's code for it.

    Without the heartbeat, which makes every short flow wait a second at its end.
    """
    heard: list[Exception] = []
    listening = _HEARD.set(heard)
    try:
        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            return work(*args, **kwargs)
    except StepFailed:
        if not heard:
            raise
        raise heard[0] from None
    finally:
        _HEARD.reset(listening)


_HEARD: ContextVar[list[Exception] | None] = ContextVar("heard", default=None)  # who called a flow listens here


def _hear(error: Exception) -> None:
    """Hand the error to whoever called the flow in this process; in a worker's, say it on stderr."""
    heard = _HEARD.get()
    if heard is None:
        print("\n".join(told(error)), file=sys.stderr, flush=True)
    else:
        heard.append(error)

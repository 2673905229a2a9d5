"""Prefect, as we use it: it says *when*; ids, counts and codes are all it ever learns.

Prefect stores parameters, messages and exceptions in its own database, and pickles what ends a flow. So a step
is a task over a plain function whose failures leave as a code (`discreet`), results are not persisted, and the
only parameters are opaque ids.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.task_runners import ThreadPoolTaskRunner

from fangxin.data.errors import FangxinError

P = ParamSpec("P")
R = TypeVar("R")


class StepFailed(Exception):
    """A step ended with this code; the whole story is in our ledger and on the command's own stderr."""


def discreet(work: Callable[P, R]) -> Callable[P, R]:
    """Let a failure leave as its code only: no message, no cause, no row of anybody."""

    @wraps(work)
    def told(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return work(*args, **kwargs)
        except StepFailed as error:
            raise StepFailed(*error.args) from None
        except FangxinError as error:
            raise StepFailed(type(error).__name__) from None
        except Exception as error:
            raise StepFailed(f"defect/{type(error).__name__}") from None

    return told


def step(work: Callable[P, R]) -> Task[P, R]:
    """Make a task of a plain function, without cache and without a persisted result."""
    return task(cache_policy=NO_CACHE, persist_result=False)(discreet(work))


def threads(workers: int) -> Any:
    """A thread pool runner; Any because it is typed ThreadPoolTaskRunner[Never], which @flow refuses."""
    return cast(Any, ThreadPoolTaskRunner(max_workers=workers))


def run(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a flow here and now, without the heartbeat that makes every short flow wait a second at its end."""
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        return work(*args, **kwargs)

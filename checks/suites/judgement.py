"""Run expectations over a table of ours and say whether all of them hold.

Great Expectations is asked about counts and verdicts only: searching for a person with it would write the
person into its configuration and results. Hence an ephemeral context, results as booleans, no Data Docs.

* A raised expectation is not a failed one: nobody knows what it would have said, so the judgement is
  INCONCLUSIVE before success is looked at. Both shapes in which exceptions are reported are read.
* An empty table passes every column and a null passes most sets: every suite says how many rows it expects
  and that nothing is null.
* Importing Great Expectations takes seconds, so it happens inside the functions that need it; and half of them are
  statistics and charts of expectations that we never state, so those are imported when somebody asks for them.
"""

from __future__ import annotations

import importlib
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from fangxin.data.errors import DoesNotHold, Incomplete
from fangxin.data.importing import uncollected

if TYPE_CHECKING:
    import pandas as pd


class Judgement(StrEnum):
    """What a suite says about a table."""

    PASSED = "PASSED"
    FAILED = "FAILED"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True)
class Answer:
    """The judgement, and which expectations failed or raised: `suite: expectation_type(columns)`, sorted."""

    verdict: Judgement
    failed: tuple[str, ...] = ()

    def require(self, what: str) -> None:
        """Return if everything held; else raise DoesNotHold, or Incomplete where an expectation raised."""
        if self.verdict is Judgement.PASSED:
            return
        hint = "nothing is published; correct the cause, then `fangxin resume`"
        listed = "; ".join(self.failed)
        if self.verdict is Judgement.INCONCLUSIVE:
            raise Incomplete(f"{what}: expected every expectation to be evaluated, these raised: {listed}", hint=hint)
        raise DoesNotHold(f"{what}: expected every expectation to hold, these did not: {listed}", hint=hint)


class _Later(ModuleType):
    """Stands for a module until somebody asks for something in it; then that is imported and answers."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


def great_expectations() -> Any:  # Any: the module; it has no usable types
    """Import it without scipy.stats and altair, half of its four seconds of CPU; both stay as real, only later."""
    later = {name: _Later(name) for name in ("scipy.stats", "altair") if name not in sys.modules}
    sys.modules.update(later)
    try:
        with uncollected():
            return importlib.import_module("great_expectations")
    finally:  # whoever imports one of them from now on gets the module itself
        for name, one in later.items():
            if sys.modules.get(name) is one:
                del sys.modules[name]


# The module of expectations is given to the function, so that suites are written without importing it.
Expectations = Callable[[Any], Sequence[Any]]  # Any: Great Expectations has no usable types


@dataclass(frozen=True)
class Suite:
    """A named set of expectations, and the rows of the table they speak about."""

    name: str
    rows: pd.DataFrame
    expectations: Expectations


def run(suites: Sequence[Suite], *, tmp: Path) -> Answer:
    """Evaluate all suites in one ephemeral context; `tmp` (ours, existing) takes its temporary files.

    No suites at all is INCONCLUSIVE: what was not asked does not hold.
    """
    with _temporary_files_in(tmp):
        gx = great_expectations()
        from great_expectations.data_context.types.base import ProgressBarsConfig

        logging.getLogger("great_expectations").setLevel(logging.WARNING)
        logging.getLogger(ProgressBarsConfig.__module__).setLevel(logging.WARNING)  # it sets its own level
        context = gx.get_context(mode="ephemeral")
        context.enable_analytics(False)
        context.variables.progress_bars = ProgressBarsConfig(globally=False)
        # One asset takes every table in turn: nothing of ours is kept in the context's stores, nor written out as YAML.
        whole = context.data_sources.add_pandas("run").add_dataframe_asset("rows")
        table = whole.add_batch_definition_whole_dataframe("all")

        def ask(one: Suite, expectations: Sequence[Any]) -> Any:
            suite = gx.ExpectationSuite(name=one.name, expectations=list(expectations))
            batch = table.get_batch(batch_parameters={"dataframe": one.rows})
            return batch.validate(suite, result_format="BOOLEAN_ONLY")

        if suites and all(ask(one, one.expectations(gx.expectations)).success for one in _together(suites, gx)):
            return Answer(Judgement.PASSED)
        false: list[str] = []
        unknown: list[str] = []
        for one in suites:
            result = ask(one, one.expectations(gx.expectations))
            for single in result.results:
                if raised(single.exception_info):
                    unknown.append(_title(one.name, single.expectation_config))
                elif not single.success:
                    false.append(_title(one.name, single.expectation_config))
            if not result.success and not (false or unknown):
                unknown.append(f"{one.name}: no result")
    if false and not unknown:
        return Answer(Judgement.FAILED, tuple(sorted(false)))
    # Nothing was asked, something raised, or what does not hold for all of them holds for each: nobody knows.
    return Answer(Judgement.INCONCLUSIVE, tuple(sorted(unknown + false)))


def _together(suites: Sequence[Suite], gx: Any) -> list[Suite]:  # Any: the module
    """The same expectations in fewer questions, for each costs some 10 ms whatever the size of its table.

    Columns of which the same is expected, value by value, stand under each other in one column of a table that all
    suites share; where they end before others do, nulls follow, of which such expectations do not speak. What is said
    of nulls has a table of its own, and the rest stays with its suite.
    """
    import pandas as pd

    e = gx.expectations
    by_value = (
        e.ExpectColumnValuesToBeInSet,
        e.ExpectColumnValuesToBeBetween,
        e.ExpectColumnValueLengthsToBeBetween,
        e.ExpectColumnValuesToMatchRegex,
    )
    never_null: list[Any] = []
    alike: dict[str, tuple[Any, list[Any]]] = {}  # what is expected, without its column -> one of them, the columns
    left: list[Suite] = []
    for one in suites:
        others = []
        for single in one.expectations(e):
            column = getattr(single, "column", None)
            if column not in one.rows.columns:
                others.append(single)
            elif isinstance(single, e.ExpectColumnValuesToNotBeNull):
                never_null.append(one.rows[column])
            elif isinstance(single, by_value):
                key = repr((single.expectation_type, sorted(single.dict(exclude={"column"}).items(), key=str)))
                alike.setdefault(key, (single, []))[1].append(one.rows[column])
            else:
                others.append(single)
        if others:
            left.append(Suite(one.name, one.rows, _these(others)))
    if never_null:
        rows = pd.DataFrame({"value": pd.concat(never_null, ignore_index=True)})
        left.append(Suite("never null", rows, lambda e: [e.ExpectColumnValuesToNotBeNull(column="value")]))
    if alike:
        columns = {f"values {n}": pd.concat(them, ignore_index=True) for n, (_one, them) in enumerate(alike.values())}
        expected = [one.copy(update={"column": f"values {n}"}) for n, (one, _them) in enumerate(alike.values())]
        left.append(Suite("value by value", pd.DataFrame(columns), _these(expected)))
    return left


def _these(expectations: Sequence[Any]) -> Expectations:
    return lambda _e: expectations


def raised(info: Any) -> bool:  # Any: two shapes, {"raised_exception": b} and {metric id: {"raised_exception": b}}
    """Whether an expectation's exception_info, in either of its shapes, reports an exception."""
    if not isinstance(info, dict):
        return False
    if "raised_exception" in info:
        return bool(info["raised_exception"])
    return any(raised(inner) for inner in info.values())


def _title(suite: str, config: Any) -> str:  # Any: Great Expectations' own configuration object
    """Name an expectation by suite, type and columns; never by its values."""
    kwargs = config.kwargs
    columns = [kwargs[k] for k in ("column", "column_A", "column_B") if k in kwargs]
    columns += [c for c in kwargs.get("column_list", ())]
    return f"{suite}: {config.type}({', '.join(columns)})"


@contextmanager
def _temporary_files_in(tmp: Path) -> Iterator[None]:
    """Point the process's temporary directory at ours; Great Expectations makes a folder when it is imported."""
    before, tempfile.tempdir = tempfile.tempdir, str(tmp)
    try:
        yield
    finally:
        tempfile.tempdir = before

"""Heavy files first: workers that take whole files end together when the last ones are light.

Needs `--no-loadscope-reorder`, or pytest-xdist starts with the files that have most tests, not with the longest.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

# By CPU time, the longest first; a file that is not named runs after these, in the order of its folder.
HEAVY = (
    "journeys/test_prefect.py",
    "residue/test_containers.py",
    "stores/test_duckdb.py",
    "tests/test_cli_answers.py",
    "journeys/test_crash.py",
    "journeys/test_closure.py",
    "journeys/test_erase.py",
    "process/test_closing.py",
    "tests/test_docs.py",
    "journeys/test_protect.py",
    "journeys/test_longer_values.py",
    "process/test_closures.py",
    "journeys/test_bad_input.py",
    "process/test_ending.py",
    "keys/test_root_kms.py",
    "residue/test_scan.py",
    "stores/test_text.py",
    "process/test_lifecycle_model.py",
    "journeys/test_integrity.py",
    "process/test_killed.py",
    "process/test_edges.py",
    "evidence/test_mutations.py",
    "medium/test_image.py",
    "journeys/test_resurrection.py",
    "process/test_holds.py",
    "journeys/test_officers.py",
    "journeys/test_findings_gate.py",
)


def pytest_configure(config: pytest.Config) -> None:
    """Each worker begins to collect elsewhere: in a fresh clone a file is then compiled by one, not by all at once.

    To compile all of them, with the texts of their assertions, takes as long as to import everything.
    """
    gc.disable()  # until all of that is there
    name, workers = os.environ.get("PYTEST_XDIST_WORKER"), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if name is None or config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return
    files = sorted(str(path) for path in Path(__file__).parent.rglob("test_*.py"))
    begin = int(name.removeprefix("gw")) * len(files) // workers
    config.args[:] = files[begin:] + files[:begin]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the heavy files in front, then by folder; the order of tests within a file stays."""
    place = {name: number for number, name in enumerate(HEAVY)}
    items.sort(key=lambda item: (place.get("/".join(item.path.parts[-2:]), len(HEAVY)), str(item.path)))


def pytest_collection_finish() -> None:
    """What is imported by now stays: the collector need not walk over half a million objects again and again.

    And it need not look after each 700 objects: that took a twelfth of the time of all tests.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


def pytest_unconfigure() -> None:
    """At the end they go like everything else; DuckDB's binding calls what is left a leak."""
    gc.unfreeze()

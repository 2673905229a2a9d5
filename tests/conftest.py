"""Heavy files first: two workers that take whole files end together when the last ones are light.

Needs `--no-loadscope-reorder`, or pytest-xdist starts with the files that have most tests, not with the longest.
"""

from __future__ import annotations

import pytest

# By CPU time, the longest first; a file that is not named runs after these, in the order of its folder.
HEAVY = (
    "journeys/test_prefect.py",
    "journeys/test_crash.py",
    "journeys/test_findings_gate.py",
    "journeys/test_integrity.py",
    "journeys/test_closure.py",
    "journeys/test_protect.py",
    "tests/test_cli_answers.py",
    "journeys/test_erase.py",
    "journeys/test_longer_values.py",
    "residue/test_containers.py",
    "stores/test_duckdb.py",
    "process/test_closing.py",
    "tests/test_docs.py",
    "sabotage/test_sabotage.py",
    "journeys/test_bad_input.py",
    "stores/test_text.py",
    "process/test_lifecycle_model.py",
    "process/test_closures.py",
    "journeys/test_resurrection.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the heavy files in front; the order of tests within a file stays."""
    place = {name: number for number, name in enumerate(HEAVY)}
    items.sort(key=lambda item: place.get("/".join(item.path.parts[-2:]), len(HEAVY)))

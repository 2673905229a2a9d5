"""Tasks for other teams' Prefect flows: columns under keys, read and written inside one task each.

The vault is opened, and its lease held, within the task only. Prefect stores neither parameters nor results of these
tasks; what a flow itself takes or returns is its own business: hand over file names, never values of people.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from fangxin.flows.runner import step
from fangxin.flows.tables import Tables


def _read(address: str, table: pa.Table, columns: Sequence[str] | None = None) -> pa.Table:
    with Tables.open() as tables:
        return tables.read(address, table, columns)


def _protect(address: str, table: pa.Table, columns: Sequence[str] | None = None) -> pa.Table:
    with Tables.open() as tables:
        return tables.protect(address, table, columns)


read_columns = step(_read).with_options(name="read_columns")
protect_columns = step(_protect).with_options(name="protect_columns")

"""Tables of the plan: groups with plain keys, and their way in and out of the sealed parts of the requests store."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    import pandas as pd


def each(frame: pd.DataFrame, *by: str) -> Iterator[tuple[Any, ...]]:  # Any: pandas does not type its group keys
    """Yield (key, ..., rows) for every group, sorted by key; numbers come as Python's own."""
    if frame.empty:  # grouping nothing costs a millisecond
        return
    for keys, rows in frame.groupby(list(by), sort=True):
        yield (*(k.item() if hasattr(k, "item") else k for k in keys), rows)


def tuples(frame: pd.DataFrame, *columns: str) -> Iterator[tuple[Any, ...]]:  # Any: values of any column
    """Yield the rows of these columns as plain tuples."""
    if frame.empty:
        return iter(())
    return zip(*(frame[c].tolist() for c in columns), strict=True)


def pack(frame: pd.DataFrame, *, meta: str = "") -> bytes:
    """A table as Arrow IPC bytes, for the sealed parts of the requests store."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), b"fangxin": meta.encode()})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def unpack(body: bytes) -> tuple[pd.DataFrame, str]:
    """Read back what `pack` wrote: the table and its note."""
    table = pa.ipc.open_stream(body).read_all()
    return table.to_pandas(), (table.schema.metadata or {}).get(b"fangxin", b"").decode()

"""DuckDB in a process of its own: rows and the catalog's texts of one database after the other, to whoever holds the
other end of a socket. Started by apart.py; a file on which the engine dies takes this process along, and no scan.

The engine reads through a file system of ours that has two files, the database and its log: it is given no path, opens
nothing for writing, spills nowhere, and loads no extension. This process has no needles.
"""

from __future__ import annotations

import io
import json
import os
import resource
import socket
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Answer = tuple[dict[str, Any], bytes]  # what it is, and its bytes; Any: JSON
_CATALOG = (
    ("duckdb_tables", "sql, comment"),
    ("duckdb_columns", "comment"),
    ("duckdb_views", "sql, comment"),
    ("duckdb_indexes", "sql, comment"),
    ("duckdb_functions", "macro_definition, comment"),
    ("duckdb_types", "labels::VARCHAR, comment"),
    ("duckdb_sequences", "sql, comment"),
)


def serve() -> None:
    """Answer requests on descriptor 0 until its other end is closed.

    A request brings the descriptors of the database and perhaps of its log, and where in them they lie.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    line = socket.socket(fileno=os.dup(0))
    silent = os.open(os.devnull, os.O_RDWR)
    for number in range(3):  # what an engine says when it dies may quote what it read
        os.dup2(silent, number)
    while True:
        told, fds, _flags, _from = socket.recv_fds(line, 4096, 2)
        if not told:
            return
        try:
            places = [(fd, *where) for fd, where in zip(fds, json.loads(told), strict=True)]
            for head, body in read(dict(zip(("it", "it.wal"), places, strict=False))):
                _send(line, head, body)
            _send(line, {"kind": "end"}, b"")
        except Exception as error:
            _send(line, {"kind": "error", "name": type(error).__name__}, b"")
        finally:
            for fd in fds:
                os.close(fd)


def _send(line: socket.socket, head: dict[str, Any], body: bytes) -> None:
    packed = json.dumps({**head, "size": len(body)}).encode()
    line.sendall(len(packed).to_bytes(4, "little") + packed)
    line.sendall(body)


def read(files: Mapping[str, tuple[int, int, int]]) -> Iterator[Answer]:
    """The catalog's texts, and every table batch by batch as an Arrow stream; `files`: descriptor, start, size."""
    import pyarrow as pa

    with _attached(files) as base:
        for view, columns in _CATALOG:
            rows = base.execute(f"SELECT {columns} FROM {view}() WHERE database_name = 'held'").fetchall()  # noqa: S608
            text = "\n".join(value for row in rows for value in row if value)
            if text:
                yield {"kind": "catalog"}, text.encode("utf-8", "surrogatepass")
        tables = base.execute(
            "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = 'held' ORDER BY 1, 2"
        ).fetchall()
        for schema, table in tables:
            # Names come from the file and are quoted as identifiers.
            name = f"held.{_quoted(schema)}.{_quoted(table)}"
            for batch in base.sql(f"SELECT *{_readable(base, schema, table)} FROM {name}").to_arrow_reader(1 << 16):  # noqa: S608
                batch.validate(full=True)
                out = io.BytesIO()
                with pa.ipc.new_stream(out, batch.schema) as stream:
                    stream.write_batch(batch)
                yield {"kind": "rows", "schema": schema, "table": table}, out.getvalue()


def _readable(base: DuckDBPyConnection, schema: str, table: str) -> str:
    """Integers of any size come out of the engine as its own bytes: they are asked for as text instead."""
    asked = (
        "SELECT column_name FROM duckdb_columns() WHERE database_name = 'held' AND schema_name = ? AND table_name = ?"
        " AND regexp_matches(data_type, 'BIGNUM|VARINT')"
    )
    names = [_quoted(name) for (name,) in base.execute(asked, [schema, table]).fetchall()]
    return f" REPLACE ({', '.join(f'CAST({name} AS VARCHAR) AS {name}' for name in names)})" if names else ""


def _attached(files: Mapping[str, tuple[int, int, int]]) -> DuckDBPyConnection:
    """A connection whose database `held` is the file, read-only; closing it closes both."""
    import duckdb

    base = duckdb.connect(":memory:", config={"threads": "1", "memory_limit": "1GB", "temp_directory": ""})
    try:
        base.execute("SET autoinstall_known_extensions = false; SET autoload_known_extensions = false")
        base.register_filesystem(_held(files))
        base.execute("ATTACH 'held://it' AS held (READ_ONLY)")
        base.execute("SET enable_external_access = false; SET lock_configuration = true")
    except BaseException:
        base.close()
        raise
    return base


class _Stretch(io.RawIOBase):
    """A stretch of an open file as the engine reads files; the descriptor's own position is not moved."""

    def __init__(self, fd: int, start: int, size: int) -> None:
        self._fd, self._start, self._size, self._at = fd, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self._at)
        wanted = left if size is None or size < 0 else min(size, left)
        parts = []
        while wanted > 0 and (part := os.pread(self._fd, wanted, self._start + self._at)):
            parts.append(part)
            self._at, wanted = self._at + len(part), wanted - len(part)
        return b"".join(parts)


def _held(files: Mapping[str, tuple[int, int, int]]) -> Any:  # fsspec brings no types
    from fsspec import AbstractFileSystem

    class Held(AbstractFileSystem):  # type: ignore[misc]  # as above
        """A file system of one database and perhaps its log."""

        protocol = "held"
        cachable = False

        def info(self, path: str, **_: object) -> dict[str, object]:
            return {"name": path, "size": self._of(path)[2], "type": "file"}

        def _open(self, path: str, mode: str = "rb", **_: object) -> _Stretch:
            if mode != "rb":
                raise PermissionError(mode)
            return _Stretch(*self._of(path))

        def _of(self, path: str) -> tuple[int, int, int]:
            name = path.rpartition("/")[2]
            if name not in files:
                raise FileNotFoundError(path)
            return files[name]

    return Held()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'

"""The readable side of an export: a manifest of its Parquet files, and an index page that opens offline.

One folder holds one person's export, a Parquet file per collection, named by us. The manifest is what is signed and
compared with what locate counted; the page is for the person: what the files are, what is in them, the first rows.
Both describe plain personal data, so they are written for their owner alone (mode 0600).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fangxin.data.errors import StoreUnavailable
from fangxin.reports.render import page

FORMAT = "fangxin/export/1"
INDEX = "index.html"


def manifest(folder: Path) -> dict[str, Any]:  # Any: a JSON document
    """List every Parquet file below `folder`, sorted by name: SHA-256, rows, bytes, and its columns.

    Raises StoreUnavailable for a link, or a file that is not whole Parquet. Other files are not part of an export.
    """
    files = [_entry(folder, path) for path in sorted(folder.rglob("*.parquet"), key=lambda p: p.as_posix())]
    return {
        "format": FORMAT,
        "files": files,
        "rows": sum(one["rows"] for one in files),
        "bytes": sum(one["bytes"] for one in files),
    }


def write_index(
    folder: Path,
    manifest: Mapping[str, Any],
    columns: Mapping[str, Mapping[str, str]] | None = None,
    *,
    collections: Mapping[str, str] | None = None,
    preview: int = 5,
) -> Path:
    """Write `index.html` into the folder and return its path.

    `columns` says per file name what each of its columns holds (data categories, in words); `collections` says which
    collection a file is, where its name does not. The first `preview` rows of each file are shown.
    """
    sheets = []
    for one in manifest["files"]:
        described = (columns or {}).get(one["name"], {})
        sheets.append(
            {
                "title": (collections or {}).get(one["name"], Path(one["name"]).stem),
                "name": one["name"],
                "sha256": one["sha256"],
                "rows": one["rows"],
                "bytes": one["bytes"],
                "columns": [{**c, "holds": described.get(c["name"], "")} for c in one["columns"]],
                "preview": _first_rows(folder / one["name"], preview),
            }
        )
    path = folder / INDEX
    content = page("export.html.j2", sheets=sheets, rows=manifest["rows"], bytes=manifest["bytes"])
    written = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(written, "wb") as file:
        file.write(content)
    return path


def _entry(folder: Path, path: Path) -> dict[str, Any]:
    name = path.relative_to(folder).as_posix()
    if path.is_symlink() or not path.is_file():
        raise StoreUnavailable(f"export file {name}: expected a plain file, found a link or something else")
    try:
        with pq.ParquetFile(path) as file:
            rows, schema = file.metadata.num_rows, file.schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise StoreUnavailable(
            f"export file {name}: expected whole Parquet, found something else ({type(error).__name__})",
            hint="export again into an empty folder",
        ) from None
    with path.open("rb") as plain:
        digest = hashlib.file_digest(plain, "sha256").hexdigest()
    described = [{"name": field.name, "type": str(field.type)} for field in schema]
    return {"name": name, "sha256": digest, "rows": rows, "bytes": path.stat().st_size, "columns": described}


def _first_rows(path: Path, n: int) -> list[list[str]]:
    """The first `n` rows as text, cut to 80 characters a value; only the first batch of the file is read."""
    with pq.ParquetFile(path) as file:
        batch = next(file.iter_batches(batch_size=max(n, 1)), None)
    if batch is None or not n:
        return []
    texts = [[_text(value) for value in column.slice(0, n).to_pylist()] for column in batch.columns]
    return [list(row) for row in zip(*texts, strict=True)]


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        return f"{len(value)} B"
    text = str(value)
    return text if len(text) <= 80 else text[:79] + "…"

"""Outside: where people stand in files that no collection names, found in passing and reported.

No order reaches such a file, so nothing of it is erased: the certificate says that it is partial, and the operator
gets a draft of catalog entries. A draft names files and columns, never a value; a name that holds one, or that looks
like anybody's, is withheld (flows/printable.py).
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fangxin.checks.residue.patterns import Needles
from fangxin.data.vocabulary import shown
from fangxin.flows.frames import each
from fangxin.flows.places import Places, roots
from fangxin.flows.printable import label, message, names_somebody, printable, withheld
from fangxin.flows.sight import Sight

if TYPE_CHECKING:
    import pandas as pd

    from fangxin.flows.estate import Estate

COLUMNS = ("subject", "place", "containers", "before", "hits", "doubtful")
_KINDS = {".parquet": "parquet", ".csv": "text", ".jsonl": "text", ".db": "sqlite", ".sqlite": "sqlite"}
_PACKED = (".gz", ".zst", ".bz2", ".xz")


def outside(before: Sight, after: Sight, paths: Mapping[str, Path]) -> pd.DataFrame:
    """One row per subject and place outside the catalog in which they stand now, with how often, before and now.

    `paths`: where places lie, for the inodes of names that are withheld.
    `doubtful`: all of the hits look like part of a longer number, address or word; nobody knows such a file's cells.
    """
    import pandas as pd

    then = {(s, p): int(rows["hits"].sum()) for s, p, rows in each(_outside(before), "subject", "place")}
    named = _named(before, paths) | _named(after, paths)
    rows = [
        {
            "subject": subject,
            "place": named.get(place) or printable(place, paths.get(place)),
            "containers": ",".join(sorted(set(map(label, found["container"])))),
            "before": then.get((subject, place), 0),
            "hits": int(found["hits"].sum()),
            "doubtful": bool(found["inside"].all()),
        }
        for subject, place, found in each(_outside(after), "subject", "place")
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"subject": "int32", "before": "int64", "hits": "int64"})


def closed(seen: Sight, paths: Mapping[str, Path]) -> tuple[tuple[str, str], ...]:
    """Places that could not be examined, with the reason, as a page may show them; each once."""
    named = _named(seen, paths)
    shut = ((p, r) for p, r in seen.not_examinable if p in seen.claims)
    return tuple(sorted({(named.get(p) or printable(p, paths.get(p)), message(reason)) for p, reason in shut}))


def _outside(seen: Sight) -> pd.DataFrame:
    nobodys = {place for place, owners in seen.claims.items() if not owners}
    return seen.hits[seen.hits["place"].isin(nobodys)]


def _named(seen: Sight, paths: Mapping[str, Path]) -> dict[str, str]:
    """What is printed of places outside whose names hold a value: the folder of the root, and the inode."""
    hits = _outside(seen)
    held = set(hits.loc[hits["container"].str.startswith("name"), "place"])
    return {place: f"{place.split('/', 1)[0]}/{withheld(paths.get(place))}" for place in held}


def draft(estate: Estate, where: Places, found: Sequence[str], wanted: Needles, folder: Path) -> str:
    """Catalog entries for these places, as YAML that lies in `folder`; "" where there are none.

    What no store of ours opens is listed as a comment. Fields are named and left without meaning: a person decides.
    """
    if not found:
        return ""
    lines = [
        "# Files in which people stand and that no collection names, drafted from what lies there.",
        "# Give every field its meaning, correct store and mode, then `fangxin catalog lint` and erase again.",
        "# What is listed as a comment no store of ours opens: remove it, or unpack it into one that we know.",
    ]
    entries: dict[str, list[str]] = {}
    beginnings = roots(estate)
    for number, place in enumerate(sorted(set(found)), start=1):
        path = where.paths.get(place)
        kind = _kind(path) if path is not None else ""
        if path is None or not kind or not _below(path, beginnings["outside"]):
            lines.append(f"# - {place}")
            continue
        fields = [
            name for name in _fields(kind, path) if not (names_somebody(name) or len(wanted.find(name.encode()).needle))
        ]
        entries[kind] = [*entries.get(kind, []), *_collection(number, kind, path, beginnings["outside"], fields)]
    if entries:
        lines += [f"root: {_quoted(os.path.relpath(beginnings['outside'], folder))}", "dataset:"]
    for kind, collections in entries.items():
        lines += [
            f"  - fides_key: outside_{kind}",
            f"    name: outside_{kind}",
            f"    erasure: {{store: {{kind: {kind}, url: ./}}, mode: delete, copies: [], reviewed: false}}",
            "    collections:",
            *collections,
        ]
    text = "\n".join(lines) + "\n"
    return "" if len(wanted.find(text.encode()).needle) else text


def _collection(number: int, kind: str, path: Path, root: Path, fields: Sequence[str]) -> list[str]:
    name = path.relative_to(root).as_posix()
    where = f"url: {_quoted(name)}" if kind == "sqlite" else f"glob: {_quoted(name)}"
    listed = [f"          - {{name: {_quoted(one)}}}" for one in fields] or ["          []"]
    return [
        f"      - name: outside_{number}",
        f"        erasure: {{store: {{{where}}}}}",
        "        fields:",
        *listed,
    ]


def _kind(path: Path) -> str:
    if shown(path) != os.fspath(path):
        return ""  # a catalog is text, in which no such name can be written
    name = path.name.lower()
    packed = next((end for end in _PACKED if name.endswith(end)), "")
    return _KINDS.get(Path(name.removesuffix(packed)).suffix, "") if path.is_file() else ""


def _fields(kind: str, path: Path) -> list[str]:
    """Names of columns, as far as they can be read without reading rows."""
    try:
        return list(dict.fromkeys(_READERS[kind](path)))
    except Exception:  # any library's word on a file that is not what its name says: then no field is drafted
        return []


def _parquet(path: Path) -> Iterator[str]:
    import pyarrow.parquet as pq

    yield from pq.read_schema(path).names


def _sqlite(path: Path) -> Iterator[str]:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            yield from (row[0] for row in db.execute("SELECT name FROM pragma_table_info(?)", [table]))


def _text(path: Path) -> Iterator[str]:
    import json

    from fangxin.data.stores.records import form, reading

    how = form(path)
    if how is None:
        return
    with reading(path, how) as stream:
        first = stream.readline(1 << 16).decode(errors="replace")
    yield from next(csv.reader(io.StringIO(first)), []) if how.csv else json.loads(first)


_READERS = {"parquet": _parquet, "sqlite": _sqlite, "text": _text}


def _below(path: Path, root: Path) -> bool:
    return path.is_relative_to(root)


def _quoted(text: str) -> str:
    import json

    return json.dumps(text, ensure_ascii=False)

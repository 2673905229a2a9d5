"""Outside: where people stand in files that no collection names, found in passing and reported.

No order reaches such a file, so nothing of it is erased: the certificate says that it is partial, and the operator
gets a draft of catalog entries. A draft names files and columns, never a value; a name that holds one is withheld.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fangxin.checks.residue.patterns import Needles
from fangxin.checks.residue.scan import WITHHELD
from fangxin.data.vocabulary import shown
from fangxin.flows.frames import each
from fangxin.flows.places import NOBODYS, Places, roots
from fangxin.flows.sight import Sight

if TYPE_CHECKING:
    import pandas as pd

    from fangxin.flows.estate import Estate

COLUMNS = ("subject", "place", "containers", "before", "hits", "doubtful")
_KINDS = {".parquet": "parquet", ".csv": "text", ".jsonl": "text", ".db": "sqlite", ".sqlite": "sqlite"}
_PACKED = (".gz", ".zst", ".bz2", ".xz")


def outside(before: Sight, after: Sight) -> pd.DataFrame:
    """One row per subject and place outside the catalog in which they stand now, with how often, before and now.

    `doubtful`: all of the hits look like part of a longer number, address or word; nobody knows such a file's cells.
    """
    import pandas as pd

    then = {(s, p): int(rows["hits"].sum()) for s, p, rows in each(_outside(before), "subject", "place")}
    named = _named(before) | _named(after)
    rows = [
        {
            "subject": subject,
            "place": printed(named.get(place, place)),
            "containers": ",".join(sorted(set(found["container"]))),
            "before": then.get((subject, place), 0),
            "hits": int(found["hits"].sum()),
            "doubtful": bool(found["inside"].all()),
        }
        for subject, place, found in each(_outside(after), "subject", "place")
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"subject": "int32", "before": "int64", "hits": "int64"})


def closed(seen: Sight) -> tuple[tuple[str, str], ...]:
    """Places outside the catalog that could not be examined, with the reason; names that hold a value are withheld."""
    named = _named(seen)
    return tuple(
        sorted((printed(named.get(p, p)), reason) for p, reason in seen.not_examinable if seen.claims.get(p) == NOBODYS)
    )


def printed(place: str) -> str:
    """A place as a page may print it: what is neither ASCII nor a common Chinese character stands as its code point."""
    return "".join(c if "\x20" <= c < "\x7f" or "\u4e00" <= c <= "\u9fff" else f"%{ord(c):04X}" for c in place)


def _outside(seen: Sight) -> pd.DataFrame:
    nobodys = {place for place, owners in seen.claims.items() if not owners}
    return seen.hits[seen.hits["place"].isin(nobodys)]


def _named(seen: Sight) -> dict[str, str]:
    """What is printed of places outside whose names hold a value: the folder of the root, and which of them it is."""
    hits = _outside(seen)
    held = sorted(set(hits.loc[hits["container"].str.startswith("name"), "place"]))
    return {place: f"{place.split('/', 1)[0]}/{WITHHELD} {n}" for n, place in enumerate(held, start=1)}


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
        fields = [name for name in _fields(kind, path) if not len(wanted.find(name.encode()).needle)]
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

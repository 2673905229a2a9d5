"""Outside: where people stand in files that no collection names, found in passing and reported.

No order reaches such a file, so nothing of it is erased: the certificate says that it is partial, and the operator
gets a draft of catalog entries. A draft names files and columns, never a value; a name that holds one, or that looks
like anybody's, is withheld (flows/printable.py).
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fangxin.checks.residue.patterns import Needles
from fangxin.data.vocabulary import IdentityFormat, shown
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


def drafts(estate: Estate, where: Places, found: Sequence[str], wanted: Needles) -> dict[str, str]:
    """Catalog entries for these places, as YAML, by the root below which they lie; none where there is no place.

    A catalog has one root, so what lies below a watched folder is drafted as a catalog of its own. What no store of
    ours opens is listed as a comment. Fields get the meaning that a field of the same name has in the catalog, or none:
    a person decides, and until then the entries say `reviewed: false`. A draft that would hold a value is left out.
    """
    known = _known(estate)
    beginnings = {name: path if path.is_dir() else path.parent for name, path in roots(estate).items()}
    entries: dict[str, _Entries] = {}
    for number, place in enumerate(sorted(set(found)), start=1):
        path = where.paths.get(place)
        name = next((n for n, root in beginnings.items() if path is not None and path.is_relative_to(root)), "outside")
        here = entries.setdefault(name, _Entries())
        kind = _kind(path) if path is not None else ""
        tables = _tables(kind, path, wanted) if path is not None and kind else {}
        if path is None or not tables:
            here.listed.append(place)
        elif kind in _DATABASES:
            here.databases += _database(number, kind, path.relative_to(beginnings[name]).as_posix(), tables, known)
        else:
            (fields,) = tables.values()
            glob = f"store: {{glob: {_quoted(path.relative_to(beginnings[name]).as_posix())}}}"
            here.files.setdefault(kind, []).extend(_collection(f"outside_{number}", glob, fields, known))
    texts = {name: one.text(name, beginnings[name]) for name, one in entries.items()}
    return {name: text for name, text in texts.items() if not len(wanted.find(text.encode()).needle)}


@dataclass
class _Entries:
    """What a draft of one root consists of: lines of YAML, and the places that are only listed."""

    listed: list[str] = field(default_factory=list)
    databases: list[str] = field(default_factory=list)
    files: dict[str, list[str]] = field(default_factory=dict)

    def text(self, name: str, root: Path) -> str:
        lines = [*_HOW, *(_BESIDE if name == "outside" else _ALONE)]
        if self.listed:
            lines += [_NO_STORE, *(f"#    {place}" for place in self.listed)]
        if self.databases or self.files:
            live = bool(self.files) or not all(line.startswith("#") for line in self.databases)
            lines += [f"root: {_quoted(os.path.realpath(root))}", "dataset:" if live else "# dataset:", *self.databases]
        for kind, collections in self.files.items():
            lines += [*_dataset(f"{name}_{kind}".replace("-", "_"), kind, "./"), *collections]
        return "\n".join(lines) + "\n"


_HOW = (
    "# Files in which people stand and that no collection names, drafted from what lies there. To erase there, too:",
    "# 1. Look at each field. Who is found by it needs `fides_meta: {identity: KIND}` (email, phone_number ...), other",
    "#    personal fields need `data_categories`; what a field of that name means in your catalog is filled in.",
    "#    What is commented out has no field with a known meaning: give it one and take the # away, or leave it.",
    "# 2. Correct `mode` (delete: the row goes), then take `reviewed: false` out: until then `fangxin locate` looks",
    "#    here, and `fangxin erase` refuses to begin.",
)
_BESIDE = (
    "# 3. Put this file into the folder of your catalog: it has the same root. `fangxin catalog lint`, erase again.",
)
_ALONE = (
    "# 3. This is a catalog of its own: a catalog has one root, and this folder is another one. Leave it where it is;",
    "#    `fangxin catalog lint THIS_FILE`, then `fangxin erase --catalog THIS_FILE` with the identities you have.",
)
_NO_STORE = "# No store of ours opens these: remove them, or unpack them into something that is catalogued:"


_HEAD = 4  # lines of a dataset before its collections


def _dataset(key: str, kind: str, url: str) -> list[str]:
    return [
        f"  - fides_key: {key}",
        f"    name: {key}",
        f"    erasure: {{store: {{kind: {kind}, url: {_quoted(url)}}}, mode: delete, copies: [], reviewed: false}}",
        "    collections:",
    ]


def _database(
    number: int, kind: str, url: str, tables: Mapping[str, Sequence[str]], known: Mapping[str, str]
) -> list[str]:
    """A dataset for one database, a collection for each of its tables."""
    lines = _dataset(f"outside_{kind}_{number}", kind, url)
    for table, fields in tables.items():
        led = any(one in known for one in fields)
        listed = _collection(table, "", fields, known)
        lines += listed if led else [f"#{line}" for line in listed]
    return lines if any(not line.startswith("#") for line in lines[_HEAD:]) else [f"#{line}" for line in lines]


def _collection(name: str, erasure: str, fields: Sequence[str], known: Mapping[str, str]) -> list[str]:
    listed = [f"          - {{name: {_quoted(one)}{known.get(one, '')}}}" for one in fields] or ["          []"]
    return [
        f"      - name: {_quoted(name)}",
        *([f"        erasure: {{{erasure}}}"] if erasure else []),
        "        fields:",
        *listed,
    ]


def _known(estate: Estate) -> dict[str, str]:
    """What fields of the catalog with an identity mean, by name, where all fields of that name mean the same."""
    found: dict[str, set[str]] = {}
    for collection in estate.catalog.collections:
        for one in collection.fields:
            if one.identity and one.categories and one.identity_format is IdentityFormat.RAW:
                labels = ", ".join(one.categories)
                meaning = f", data_categories: [{labels}], fides_meta: {{identity: {one.identity}}}"
                found.setdefault(one.name, set()).add(meaning)
    return {name: meanings.pop() for name, meanings in found.items() if len(meanings) == 1}


def _kind(path: Path) -> str:
    if shown(path) != os.fspath(path):
        return ""  # a catalog is text, in which no such name can be written
    name = path.name.lower()
    packed = next((end for end in _PACKED if name.endswith(end)), "")
    kind = _KINDS.get(Path(name.removesuffix(packed)).suffix, "") if path.is_file() else ""
    return kind if kind == "text" or not packed else ""


def _tables(kind: str, path: Path, wanted: Needles) -> dict[str, list[str]]:
    """Names of tables and their columns, of those that may be shown; read without reading rows. A file is one table."""
    try:
        found = {table: list(dict.fromkeys(names)) for table, names in _READERS[kind](path)}
    except Exception:  # any library's word on a file that is not what its name says: then no field is drafted
        return {} if kind in _DATABASES else {"": []}

    def shows(name: str) -> bool:
        return not (names_somebody(name) or len(wanted.find(name.encode()).needle))

    return {table: [one for one in names if shows(one)] for table, names in found.items() if shows(table)}


def _parquet(path: Path) -> Iterator[tuple[str, Iterable[str]]]:
    import pyarrow.parquet as pq

    yield "", pq.read_schema(path).names


def _sqlite(path: Path) -> Iterator[tuple[str, Iterable[str]]]:
    import sqlite3
    from contextlib import closing

    tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        for (table,) in db.execute(tables).fetchall():
            yield table, [row[0] for row in db.execute("SELECT name FROM pragma_table_info(?)", [table])]


def _text(path: Path) -> Iterator[tuple[str, Iterable[str]]]:
    import json

    from fangxin.data.stores.records import form, reading

    how = form(path)
    if how is None:
        return
    with reading(path, how) as stream:
        first = stream.readline(1 << 16).decode(errors="replace")
    yield "", next(csv.reader(io.StringIO(first)), []) if how.csv else json.loads(first)


_READERS = {"parquet": _parquet, "sqlite": _sqlite, "text": _text}
_DATABASES = frozenset({"sqlite"})


def _quoted(text: str) -> str:
    import json

    return json.dumps(text, ensure_ascii=False)

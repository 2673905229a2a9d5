"""Who is to be erased: identities from files, standard input or the command line, checked before anything else.

A subjects file is CSV (columns are identity kinds) or JSONL (keys are identity kinds), one person a line; a cell may
hold several values separated by `;`, in JSONL a list. Errors name file and line, never a value.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fangxin.data.catalog.identity import seeds_of
from fangxin.data.catalog.kinds import check
from fangxin.data.errors import IdentityError, SubjectsError
from fangxin.data.vocabulary import Catalog, Identity


def read_subjects(source: str, catalog: Catalog) -> list[tuple[Identity, ...]]:
    """Read a subjects file (`-` is standard input). SubjectsError or IdentityError with file and line."""
    name, text = ("standard input", sys.stdin.read()) if source == "-" else (source, _file(source))
    records = _jsonl(name, text) if text.lstrip().startswith("{") else _csv(name, text, catalog)
    found = []
    seen: dict[Identity, int] = {}  # the line that named it first
    for line, record in records:
        identities = []
        for kind, values in record:
            for value in values:
                with placed(f"{name}:{line}"):
                    identities.append(checked(kind, value, catalog))
        if not identities:
            raise SubjectsError(f"{name}:{line}: expected at least one identity, found none")
        for one in identities:
            if (before := seen.setdefault(one, line)) != line:
                raise SubjectsError(
                    f"{name}: lines {before} and {line} name the same {one.kind}: they are one person",
                    hint="one line a person: put everything you know of them in one line, and leave out the other",
                )
        found.append(seeds_of(identities))
    if not found:
        raise SubjectsError(f"{name}: expected one subject a line, found no subject")
    return found


def read_identities(given: Sequence[str], catalog: Catalog) -> tuple[tuple[Identity, ...], bool]:
    """Read `KIND=VALUE`, `KIND=@FILE` and `KIND=-`; the flag says whether a value stood on the command line."""
    found, plain = [], False
    for one in given:
        kind, values, shown = split_identity(one)
        plain = plain or shown
        for where, value in values:
            with placed(where):
                found.append(checked(kind, value, catalog))
    if not found:
        raise IdentityError("expected at least one identity, found none", hint="--identity KIND=@FILE, or --subjects")
    return seeds_of(found), plain


@contextmanager
def placed(where: str) -> Iterator[None]:
    """Put the place of a value, where it has one, before what is wrong with it."""
    try:
        yield
    except IdentityError as error:
        raise IdentityError(f"{where}: {error.message}" if where else error.message, hint=error.hint) from None


def split_identity(given: str) -> tuple[str, list[tuple[str, str]], bool]:
    """Kind and (place, value) pairs of one `--identity`, and whether its value stood on the command line."""
    kind, equals, value = given.partition("=")
    if not equals or not kind or not value:
        raise IdentityError("--identity: expected KIND=VALUE, KIND=@FILE or KIND=-")
    if value == "-":
        values = sys.stdin.read().split("\n")
    elif value.startswith("@"):
        values = _file(value[1:]).split("\n")
    else:
        return kind, [("", value)], True
    name = "standard input" if value == "-" else value[1:]
    return kind, [(f"{name}:{line}", v) for line, v in enumerate(values, start=1) if v.strip()], False


def checked(kind: str, value: str, catalog: Catalog) -> Identity:
    """A verified identity in canonical form; IdentityError for a kind that nobody declares or a malformed value."""
    _declared(kind, catalog)
    return Identity(kind, check(kind, value))


def _declared(kind: str, catalog: Catalog) -> None:
    """Raise IdentityError for a kind that nobody declares; what does not look like a name may be a value."""
    if kind not in catalog.kinds:
        named = f"identity kind {kind!r} is" if _NAME.fullmatch(kind) else f"text of {len(kind)} characters is a kind"
        raise IdentityError(
            f"{named} declared by no field of the catalog",
            hint=f"{_meant(kind, catalog.kinds)}declared kinds: {', '.join(sorted(catalog.kinds)) or 'none'}",
        )


_NAME = re.compile(r"[a-z][a-z_]{0,39}")


def _meant(kind: str, known: Iterable[str]) -> str:
    """`did you mean`, for a kind that is nearly one, or a part of one."""
    near = difflib.get_close_matches(kind, sorted(known), n=1) or sorted(k for k in known if kind in k.split("_"))
    return f"did you mean {near[0]}? " if near else ""


def _file(name: str) -> str:
    try:
        return Path(name).read_text("utf-8-sig")
    except OSError as error:
        raise SubjectsError(f"{name}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SubjectsError(f"{name}: expected UTF-8 text") from None


def _csv(name: str, text: str, catalog: Catalog) -> list[tuple[int, list[tuple[str, list[str]]]]]:
    reader = csv.reader(io.StringIO(text), strict=True)
    found = []
    try:
        header = [h.strip() for h in next(reader, [])]
        if not header or not all(header):
            raise SubjectsError(f"{name}:1: expected a header line of identity kinds")
        for kind in header:
            try:
                _declared(kind, catalog)
            except IdentityError as error:
                raise IdentityError(
                    f"{name}:1: {error.message}", hint=f"the first line names the kinds; {error.hint}"
                ) from None
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(header):
                raise SubjectsError(
                    f"{name}:{reader.line_num}: expected {len(header)} columns, found {len(row)}",
                    hint="a value that is not known stays empty, between its commas; of one kind several are joined"
                    " by semicolons",
                )
            cells = [(h, [v for v in cell.split(";") if v.strip()]) for h, cell in zip(header, row, strict=True)]
            found.append((reader.line_num, cells))
    except csv.Error:
        raise SubjectsError(f"{name}:{reader.line_num}: not valid CSV: a quote is open or misplaced") from None
    return found


def _jsonl(name: str, text: str) -> list[tuple[int, list[tuple[str, list[str]]]]]:
    found = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            raise SubjectsError(f"{name}:{number}: not a JSON object") from None
        if not isinstance(record, dict):
            raise SubjectsError(f"{name}:{number}: expected a JSON object, found something else")
        cells = []
        for kind, value in record.items():
            values = value if isinstance(value, list) else [value]
            if not all(isinstance(v, str) for v in values):
                raise SubjectsError(f"{name}:{number}: {kind}: expected text or a list of texts")
            cells.append((str(kind), list(values)))
        found.append((number, cells))
    return found

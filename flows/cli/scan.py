"""Commands that only look: scan and verify."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fangxin.flows.cli.console import answer, counted, incomplete, say, table, warn

if TYPE_CHECKING:
    from fangxin.checks.residue.patterns import Needles
    from fangxin.checks.residue.scan import Scan


def scan(paths: Sequence[Path], identities: Sequence[str], *, engine: str, home: Path, as_json: bool) -> int:
    """Exit 1 when something was found, 2 when something could not be examined, else 0."""
    from fangxin.checks.residue.engines import Engine
    from fangxin.checks.residue.patterns import needles_for
    from fangxin.checks.residue.scan import scan as search
    from fangxin.checks.residue.scan import stored, walk
    from fangxin.data.catalog.kinds import SPELLED, check
    from fangxin.data.errors import IdentityError, InputError
    from fangxin.data.vocabulary import Identity
    from fangxin.flows.cli.progress import bar
    from fangxin.flows.settings import is_rehearsal
    from fangxin.flows.subjects import placed, split_identity

    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
    found: list[tuple[int, Identity]] = []
    for one in identities:
        kind, values, plain = split_identity(one)
        if plain and not is_rehearsal(home):
            warn("an identity on the command line stays in shell history and the process list; use KIND=@FILE")
        if kind not in SPELLED and (meant := sorted(one for one in SPELLED if kind in one)):
            hint = f"{' or '.join(meant)}, else text=... to search a value as it stands"
            raise IdentityError(f"--identity: there is no kind {kind!r}", hint=hint)
        if kind not in SPELLED:
            warn(
                f"identity kind {kind!r} has no spellings of its own and is searched as it stands; "
                f"those that do: {', '.join(sorted(SPELLED))}"
            )
        for where, value in values:
            with placed(where):
                found.append((0, Identity(kind, check(kind, value))))
    if not found:
        raise IdentityError("expected at least one identity, found none", hint="--identity KIND=@FILE")
    # A link that is named is meant: its own name is searched, and what it leads to.
    files = walk([*paths, *(path.resolve() for path in paths if path.is_symlink())])
    needles = needles_for(found, engine=Engine(engine))
    with bar(stored(files), quiet=as_json) as progress:
        result = search(files, needles, progress=progress)
    document = told(result, files, needles, [one.kind for _n, one in found])

    def words() -> None:
        hits, results = document["hits"], document["results"]
        if hits:
            header = ("path", "container", "column", "kind", "encoding", "hits", "first offset", "needle")
            names = ("path", "container", "column", "kind", "encoding", "hits", "offset")
            table(header, [(*(h[n] for n in names), h["digest"][:12]) for h in hits])
            say()
        for one in document["filters"]:
            say(
                f"BLOOM FILTER    {one['path']} {one['column']}: of {one['asked']} values asked, "
                f"{one['perhaps']} not excluded ({one['by_chance']:.1f} by chance), {one['explained']} explained by "
                f"other values of the column, {one['remembered']} remembered"
            )
        for one in document["not_examinable"]:
            say(f"NOT_EXAMINABLE  {one['path']}: {one['reason']}")
        clean = [p for p in document["places"] if p["result"] == "NOT_FOUND"]
        opened = sorted({m for p in clean for m in p["method"].split(",") if m}) or ["nothing"]
        say(f"FOUND           {counted(results['FOUND'], 'place')}, {counted(sum(h['hits'] for h in hits), 'hit')}")
        say(
            f"NOT_FOUND       {counted(results['NOT_FOUND'], 'place')}, {sum(p['bytes'] for p in clean)} bytes read, "
            f"{sum(p['decoded'] for p in clean)} decoded; {document['patterns']} needles ({document['breadth']}); "
            f"opened: {', '.join(opened)}"
        )
        say(f"NOT_EXAMINABLE  {counted(results['NOT_EXAMINABLE'], 'place')}")
        if document["in_context"]:
            say(
                f"IN CONTEXT ONLY {', '.join(document['in_context'])}: others bear such values, so one counts as a "
                "whole value or beside another of the same person; an erasure judges names by record"
            )

    answer(document, as_json=as_json, words=words)
    if document["hits"]:
        return 1
    unread = document["results"]["NOT_EXAMINABLE"]
    return (
        incomplete(f"{counted(unread, 'place')} could not be examined: nothing is claimed of what is in there")
        if unread
        else 0
    )


def told(result: Scan, files: Sequence[tuple[str, Path]], needles: Needles, kinds: Sequence[str]) -> dict[str, Any]:
    """The answer of `scan --json`: every place in one of three classes, every hit by keyed digest; never a value."""
    from fangxin.checks.residue.patterns import Context
    from fangxin.checks.residue.results import Result, classes

    shown = _shown(result, files)
    places = classes(result)
    hits = [
        {
            "path": shown[h["place"]],
            "offset": h["first_offset"],
            "container": h["container"],
            "column": h["column"],
            "encoding": h["form"],
            "kind": kinds[h["identity"]],
            "identity": h["identity"] + 1,
            "hits": h["hits"],
            "digest": h["digest"],
        }
        for h in result.hits.to_pylist()
    ]
    return {
        "files": len(files),
        "bytes": sum(one.bytes for one in places),
        "patterns": len(needles),
        "breadth": str(needles.breadth),
        "omitted": dict(result.omitted),
        "in_context": sorted({one.kind for one in needles if one.form == "utf-8" and one.context is not Context.ANY}),
        "results": {r.value: sum(one.result is r for one in places) for r in Result},
        "hits": hits,
        "filters": [
            {**{k: v for k, v in row.items() if k != "place"}, "path": shown[row["place"]]}
            for row in result.filters.to_pylist()
        ],
        "not_examinable": [{"path": shown.get(p, p), "reason": r} for p, r in result.not_examinable],
        "places": [
            {
                "path": shown[one.place],
                "result": one.result.value,
                "bytes": one.bytes,
                "decoded": one.decoded,
                "method": one.method,
                "needles": one.needles,
                "reasons": list(one.reasons),
            }
            for one in places
        ],
    }


def _shown(result: Scan, files: Sequence[tuple[str, Path]]) -> dict[str, str]:
    """The paths as they are printed: of one whose name holds a value, the inode instead of the name."""
    named = {h["place"] for h in result.hits.to_pylist() if h["container"].startswith("name")}
    return {place: _withheld(path) if place in named else place for place, path in files}


def _withheld(path: Path) -> str:
    from fangxin.checks.residue.scan import WITHHELD

    return f"{WITHHELD} inode {path.lstat().st_ino}"


def verify(
    path: Path,
    *,
    trust: str | None,
    officers: Sequence[str],
    more: Mapping[str, object],
    home: Path,
    as_json: bool,
) -> int:
    """The same as `python verify.py PATH`; a package that lies in this home is checked with this home's keys."""
    from fangxin.checks.verify import main

    if trust is None and path.resolve().is_relative_to(home) and (home / "keys" / "log.vkey").exists():
        trust = str(home / "keys")
        warn(f"trusted are this home's own keys, in {trust}; a stranger brings log.vkey from elsewhere: --trust")
    argv = [str(path), *(f"--officer={one}" for one in officers)]
    for name, value in {"--trust": trust, **more}.items():
        if value is not None:
            argv += [name, str(value)]
    return main([*argv, *(["--json"] if as_json else [])])

"""Commands that only look: scan and verify."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fangxin.flows.cli.console import answer, say, table, warn


def scan(paths: Sequence[Path], identities: Sequence[str], *, home: Path, as_json: bool) -> int:
    """Exit 1 when something was found, 2 when something could not be examined, else 0."""
    from fangxin.checks.residue.patterns import needles_for
    from fangxin.checks.residue.scan import scan as search
    from fangxin.checks.residue.scan import walk
    from fangxin.data.catalog.kinds import SPELLED, check
    from fangxin.data.errors import IdentityError, InputError
    from fangxin.data.vocabulary import Identity
    from fangxin.flows.settings import is_rehearsal
    from fangxin.flows.subjects import split_identity

    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
    found: list[tuple[int, Identity]] = []
    for one in identities:
        kind, values, plain = split_identity(one)
        if plain and not is_rehearsal(home):
            warn("an identity on the command line stays in shell history and the process list; use KIND=@FILE")
        if kind not in SPELLED:
            warn(
                f"identity kind {kind!r} has no spellings of its own and is searched as it stands; "
                f"those that do: {', '.join(sorted(SPELLED))}"
            )
        found += [(0, Identity(kind, check(kind, v))) for v in values]
    if not found:
        raise IdentityError("expected at least one identity, found none", hint="--identity KIND=@FILE")
    files = walk(paths)
    needles = needles_for(found)
    result = search(files, needles)
    hits = [
        {
            "path": h["place"],
            "offset": h["first_offset"],
            "container": h["container"],
            "encoding": h["form"],
            "kind": found[h["identity"]][1].kind,
            "identity": h["identity"] + 1,
            "hits": h["hits"],
        }
        for h in result.hits.to_pylist()
    ]
    total = sum(result.coverage["bytes_read"].to_pylist())
    document = {
        "files": len(files),
        "bytes": total,
        "patterns": len(needles),
        "hits": hits,
        "not_examinable": [{"path": p, "reason": r} for p, r in result.not_examinable],
    }

    def words() -> None:
        if hits:
            header = ("path", "container", "kind", "encoding", "hits", "first offset")
            rows = [(h["path"], h["container"], h["kind"], h["encoding"], h["hits"], h["offset"]) for h in hits]
            table(header, rows)
        for place, reason in result.not_examinable:
            say(f"not examinable: {place}: {reason}")
        say(f"{sum(h['hits'] for h in hits)} hits in {len(files)} files, {total} bytes read")

    answer(document, as_json=as_json, words=words)
    return 1 if hits else 2 if result.not_examinable else 0


def verify(path: Path, *, trust: str | None, more: Mapping[str, object], home: Path, as_json: bool) -> int:
    """The same as `python verify.py PATH`; a package that lies in this home is checked with this home's keys."""
    from fangxin.checks.verify import main

    if trust is None and path.resolve().is_relative_to(home) and (home / "keys" / "log.vkey").exists():
        trust = str(home / "keys")
    argv = [str(path)]
    for name, value in {"--trust": trust, **more}.items():
        if value is not None:
            argv += [name, str(value)]
    return main([*argv, *(["--json"] if as_json else [])])

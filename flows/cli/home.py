"""Commands around a home: init, sample, catalog lint, keys status."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fangxin.flows.cli.console import answer, counted, say, table


def init(home: Path, *, rehearsal: bool, origin: str, roots: Sequence[str] = (), as_json: bool) -> int:
    """Make a home."""
    from fangxin.flows.estate import make_home
    from fangxin.flows.sealing import answerers

    named = origin or "ledger.invalid/erasure"
    make_home(home, rehearsal=rehearsal, origin=named, now=datetime.now(UTC), roots=roots)
    lacking = max(0, 2 - len(answerers(home)))
    document = {"home": str(home), "origin": named, "rehearsal": rehearsal, "officers_to_enrol": lacking}

    def words() -> None:
        say(f"made {home}: fangxin.toml, catalog/, keys/, ledger/")
        if not origin:
            say("the ledger's origin is a placeholder: before real use, init with --origin your.domain/erasure")
        if lacking:
            say("erasing needs nothing more; closing accounts (`fangxin request`) needs two officers: docs/closing.md")
        if roots:
            say(f"the root needs all of its {1 + len(roots)} holders: who loses one has erased everybody")

    answer(document, as_json=as_json, words=words)
    return 0


def sample(to: Path, *, people: int, seed: int, as_json: bool) -> int:
    """Write the LeCard estate."""
    from fangxin.data.sample.lecard import sample as build

    made = build(to, people=people, seed=seed)
    document = {
        "root": str(made.root),
        "catalog": str(made.catalog),
        "leavers": str(made.leavers),
        "rows": dict(made.rows),
    }

    def words() -> None:
        table(("collection", "rows"), sorted(made.rows.items()))
        say(f"{made.total} rows; catalog {made.catalog}; people who leave {made.leavers}")

    answer(document, as_json=as_json, words=words)
    return 0


def lint(paths: Sequence[Path], *, as_json: bool) -> int:
    """Exit 3 for errors, 0 otherwise."""
    from fangxin.data.catalog.law import Laws
    from fangxin.data.catalog.lint import lint as check
    from fangxin.flows.estate import LAWS

    found = check(paths, Laws.load(LAWS))
    errors = sum(p.severity == "error" for p in found)
    document = {
        "problems": [{"where": p.where, "severity": p.severity, "text": p.text} for p in found],
        "errors": errors,
    }

    def words() -> None:
        for one in found:
            say(f"{one.where}: {one.severity}: {one.text}")
        warnings = sum(p.severity == "warning" for p in found)
        notes = counted(len(found) - errors - warnings, "note")
        say(f"{counted(errors, 'error')}, {counted(warnings, 'warning')}, {notes}")

    answer(document, as_json=as_json, words=words)
    return 3 if errors else 0


def keys_status(home: Path, *, deep: bool, as_json: bool) -> int:
    """What the vault holds; `deep` opens every page and judges every copy."""
    from fangxin.data.keys.roots.protocol import CONDITIONS
    from fangxin.flows.cli import keys as vault
    from fangxin.flows.estate import open_estate

    tree = open_estate(home).tree
    census = tree.census()
    claims = {holder.name: holder.claim() for holder in (tree.anchor, *tree.holders)}
    document: dict[str, Any] = {
        "vault": tree.vault_id.hex(),
        "generation": tree.generation,
        "commitment": tree.commitment,
        "keys": sum(census.values()),
        "bytes": tree.size,
        "domains": [{"name": name, "keys": keys} for name, keys in census.items()],
        "holders": [{"name": name, **claim._asdict()} for name, claim in claims.items()],
    }
    if deep:
        document["deep"] = vault.deep(tree)

    def words() -> None:
        living = counted(document["keys"], "living key")
        say(f"generation {document['generation']}, {living} in {document['bytes']} bytes")
        say(f"commitment {document['commitment']}")
        for name, keys in census.items():
            say(f"domain {name}: {counted(keys, 'key')}")
        for name, claim in claims.items():
            say(f"root holder {name}: destruction is {claim.effect}, resistant to backups: {claim.backup_resistant}")
            for condition in claim.conditions:
                say(f"  {CONDITIONS[condition][0]}")
        if deep:
            vault.say_deep(document["deep"])

    answer(document, as_json=as_json, words=words)
    return 0

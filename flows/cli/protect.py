"""The commands that put values under keys and bring them back: protect, unprotect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fangxin.flows.cli.console import answer, counted, say

if TYPE_CHECKING:
    from fangxin.data.vocabulary import Erasure


def protect(
    home: Path, catalog: Path | None, *, require: str | None = None, suite: str | None = None, as_json: bool
) -> int:
    """Protect what stands in clear."""
    from fangxin.data.errors import InputError
    from fangxin.data.keys.suites import code_of
    from fangxin.flows.estate import alone, open_estate
    from fangxin.flows.protect import protect as work

    if require not in (None, "overwrite"):
        raise InputError(f"--require: expected overwrite, found {require!r}")
    code = None if suite is None else code_of(suite)
    with alone(home):
        done = work(open_estate(home, catalog), require=require, suite=code)
    document = {"stores": rewritten(done)}

    def words() -> None:
        if not done:
            say("nothing stands in clear that should not")
        tell_rewritten(document["stores"], old="plaintext")

    answer(document, as_json=as_json, words=words)
    return 0


def unprotect(home: Path, catalog: Path | None, collections: Sequence[str], *, yes: bool, as_json: bool) -> int:
    """Bring values back in clear."""
    from fangxin.data.errors import NotAllowed
    from fangxin.flows.estate import alone, open_estate
    from fangxin.flows.unprotect import unprotect as work

    if not yes:
        raise NotAllowed(
            "unprotect writes sensitive values in clear, where no key can erase them from backups",
            hint="say --yes if that is meant",
        )
    with alone(home):
        done = work(open_estate(home, catalog), collections)
    document: dict[str, Any] = {"stores": rewritten(done.stores), "values_gone": done.gone}  # Any: JSON

    def words() -> None:
        if not done.stores:
            say("nothing lies under keys there")
        tell_rewritten(document["stores"], old="ciphertext")
        if done.gone:
            say(f"{done.gone} values are null now: their key is gone")
        say("the catalog still calls these fields crypto-erase: change their mode, or `fangxin protect` puts them back")

    answer(document, as_json=as_json, words=words)
    return 0


def rewritten(done: Mapping[str, tuple[Erasure, ...]]) -> list[dict[str, Any]]:  # Any: JSON
    """What was rewritten, store by store."""
    from fangxin.data.vocabulary import Method

    logical = {name: [e for e in es if e.method is not Method.OVERWRITE] for name, es in done.items()}
    return [
        {
            "store": name,
            "units": len(es),
            "bytes_overwritten": sum(e.bytes_overwritten for e in es),
            "method": (Method.LOGICAL_DELETE if logical[name] else Method.OVERWRITE).value,
            "units_not_overwritten": len(logical[name]),
            "reasons": sorted({e.reason for e in logical[name]}),
        }
        for name, es in sorted(done.items())
    ]


def tell_rewritten(stores: Sequence[Mapping[str, Any]], *, old: str) -> None:  # Any: JSON
    """The same in words; `old` is what the units held before."""
    for one in stores:
        say(f"{one['store']}: {counted(one['units'], 'unit')} rewritten, {one['bytes_overwritten']} bytes overwritten")
        for reason in one["reasons"]:
            say(
                f"  {one['method']}: the {old} of {one['units_not_overwritten']} units was deleted, "
                f"not overwritten: {reason}"
            )

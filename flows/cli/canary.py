"""Commands around an auditor's sealed canaries: draft and seal on the auditor's side, open on the operator's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from fangxin.data.errors import NotAllowed
from fangxin.flows.cli.console import answer, say, table


def draft(path: Path, *, people: int, kinds: Sequence[str], as_json: bool) -> int:
    """Write an envelope of made-up people."""
    from fangxin.flows.sealed import draft as make

    made = make(path, people=people, kinds=kinds)

    def words() -> None:
        say(f"{len(made.people)} made-up people in {path}; keep it to yourself")
        say("correct the placements, plant the people there, then `fangxin canary seal FILE --out SEAL`")

    answer({"file": str(path), "people": len(made.people)}, as_json=as_json, words=words)
    return 0


def seal(path: Path, out: Path, *, as_json: bool) -> int:
    """Write the seal of an envelope."""
    from fangxin.flows.sealed import read_envelope
    from fangxin.flows.sealed import seal as make

    made = make(read_envelope(path), out)

    def words() -> None:
        say(f"commitment  {made.commitment}")
        say(f"seal        {out}: the operator runs `fangxin erase … --canaries {out}`")

    answer({"seal": str(out), **asdict(made)}, as_json=as_json, words=words)
    return 0


def unseal(home: Path, path: Path, *, as_json: bool) -> int:
    """Open an envelope; exit 1 when a placement was missed."""
    from fangxin.flows.batch import opened
    from fangxin.flows.estate import alone, open_estate
    from fangxin.flows.sealed import OUTCOMES, read_envelope, watched
    from fangxin.flows.sealed import unseal as judge

    envelope = read_envelope(path)
    requests = open_estate(home, _any_catalog(home)).requests
    for one in requests.unfinished():
        if envelope.commitment in {s.commitment for s in watched(requests.batch(one))}:
            batch_id = one
            break
    else:
        raise NotAllowed(
            "no open batch runs under this file's seal",
            hint="the file must be the one from which the seal was made, to the letter; nothing is open once published",
        )
    with alone(home):
        found = judge(*opened(batch_id), envelope)
    counts = {word: Counter(one.outcome for one in found)[word] for word in OUTCOMES}
    placements = [
        {"person": f.person, "place": f.placement.collection or f.placement.file, "outcome": f.outcome, "why": f.why}
        for f in found
    ]

    def words() -> None:
        table(("person", "placement", "outcome", "why"), [tuple(one.values()) for one in placements])
        say(", ".join(f"{n} {word}" for word, n in counts.items()) + "; `fangxin resume` publishes")

    document = {"batch": batch_id, "commitment": envelope.commitment, "counts": counts, "placements": placements}
    answer(document, as_json=as_json, words=words)
    return 1 if counts["missed"] else 0


def unopened(home: Path, batch: str, *, yes: bool, as_json: bool) -> int:
    """Let a batch be published without its auditor."""
    from fangxin.flows.estate import alone
    from fangxin.flows.sealed import unopened as forgo

    if not yes:
        raise NotAllowed("every certificate of the batch will say that the seal was never opened", hint="add --yes")
    with alone(home):
        waiting = forgo(batch)
    answer(
        {"batch": batch, "unopened": waiting},
        as_json=as_json,
        words=lambda: say(f"{waiting} seals are published as never opened; `fangxin resume` goes on"),
    )
    return 0


def _any_catalog(home: Path) -> Path:
    """Which batches are open does not hang on a catalog."""
    return home

"""The product's own mutation test: `make sabotage`. Every line is one run with one thing wrong.

    python tests/sabotage/sabotage_drill.py [ONLY] [--log HOME]

Exit 1 unless everything on the readable list was noticed by whom the list names, and the unspoiled run passes. With
`--log` the ledger of that home learns how much was tried and noticed; a part of the list is not worth an entry.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

from sabotage.estate import build  # noqa: E402
from sabotage.procedures import BLIND, BY_HAND, LEFT_OUT, UNSEEN  # noqa: E402
from sabotage.run import blinded, leave_out, spoil  # noqa: E402

from fangxin.flows.sabotage import log_run  # noqa: E402


def main(only: str, log: Path | None) -> int:
    """Run everything, or what has `only` in its name; print a table and the count."""
    started, caught, listed = time.monotonic(), 0, 0
    with tempfile.TemporaryDirectory(prefix="sabotage-") as folder:
        root = Path(folder)
        pristine = build(root / "pristine")
        if not only:
            seen = spoil(pristine, root / "control", lambda mine, before: None)
            print(
                f"{'nothing is wrong':48}{'passes' if not seen else 'NOTICED ' + ', '.join(sorted(seen))}", flush=True
            )
            if seen:
                return 1
        runs = [(f"{step} ({store})", who, lambda to, s=step, w=store: leave_out(pristine, to, s, w))
                for (step, store), who in LEFT_OUT.items()]  # fmt: skip
        runs += [(what.__name__.replace("_", " "), who, lambda to, w=what: spoil(pristine, to, w))
                 for what, who in BY_HAND.items()]  # fmt: skip
        runs += [(f"scanner without {name}", "control", lambda to, h=how: blinded(pristine, to, h))
                 for name, how in BLIND.items()]  # fmt: skip
        for number, (name, who, run) in enumerate(runs):
            if only not in name:
                continue
            listed += 1
            try:
                seen, said = run(root / f"run-{number}"), ""
            except Exception as error:
                seen, said = set(), f"{type(error).__name__}: {str(error)[:200]}"
            good = who in seen
            caught += good
            told = "noticed by " + ", ".join(sorted(seen)) if seen else f"NOT NOTICED {said}"
            print(f"{name:48}{told}{'' if good else f'   EXPECTED {who}'}", flush=True)
    for name, why in UNSEEN.items():
        print(f"{name:48}no reading of files can notice it: {why}")
    print(f"{caught} of {listed} noticed by whom the list names; {time.monotonic() - started:.0f} s")
    if log is not None:
        log_run(log, tried=listed, noticed=caught)
    return 0 if caught == listed else 1


if __name__ == "__main__":
    given = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    given.add_argument("only", nargs="?", default="")
    given.add_argument("--log", type=Path)
    asked = given.parse_args()
    if asked.only and asked.log:
        given.error("--log: expected a run of the whole list, found a part of it")
    sys.exit(main(asked.only, asked.log))

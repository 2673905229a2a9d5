"""Drill: one journey per kill, at every step boundary and at random points inside every step; prints counts.

    python tests/journeys/crash_drill.py --points 20 --seed 1

The test suite kills one journey many times; here every journey is killed once, so that what goes wrong has one cause.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from journeys.crash_support import Doom, Ended, build, differing, in_child, journey, moments, outcome, resumed, told
from journeys.preload import before_forks

from fangxin.flows import erase


def main() -> int:
    """Run the drill; 0 if every journey ended like the undisturbed one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=20, help="random points inside the steps")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--boundaries", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--only", nargs=3, metavar=("STEP", "N", "AFTER"), help="one point: overwrite 17 1")
    given = parser.parse_args()
    before_forks()
    with tempfile.TemporaryDirectory() as folder:
        arena = build(Path(folder))
        counts = told(in_child(journey(arena)))
        undisturbed = told(in_child(lambda: outcome(arena)))
        points = moments(counts, given.points, given.seed)
        if given.only:
            points = [(given.only[0], int(given.only[1]), given.only[2] == "1")]
        kills = [(f"{s} {n} of {counts[s]} {'after' if a else 'before'}", journey(arena, Doom((s, n), after=a)))
                 for s, n, a in points]  # fmt: skip
        if given.boundaries and not given.only:
            names = [s.__name__ for s in erase.STEPS]
            kills += [(f"before {n}", journey(arena, before=n)) for n in names]
            kills += [(f"after {n}", journey(arena, after=n)) for n in names]
        bad = 0
        for label, killed in kills:
            arena.reset()
            end = in_child(killed)
            wrong = _wrong(in_child(resumed(arena)), undisturbed) if end.signal == 9 else f"not killed: {end}"
            bad += bool(wrong)
            print(f"{'BAD' if wrong else 'ok '} {label} {wrong}", flush=True)
        print(f"{len(kills)} journeys killed, {len(kills) - bad} ended like the undisturbed one")
    return 1 if bad else 0


def _wrong(end: Ended, undisturbed: dict) -> str:
    if end.signal or end.error:
        return f"resume: {end.signal or end.error}"
    found = end.answer
    parts = {**differing(undisturbed, found["outcome"]), **differing(found["outcome"], found["again"])}
    if found["changed"]:
        parts["changed by the second resume"] = found["changed"]
    return str(parts) if parts else ""


if __name__ == "__main__":
    sys.exit(main())

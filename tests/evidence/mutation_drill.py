"""Drill: two thousand changes of a package with witness, time token, rotated key and challenge; none may pass.

`python tests/evidence/mutation_drill.py [ROUNDS]`. It prints how many of each kind were refused.

Harmless, because the meaning stays the same, are for a stranger only how a package is wrapped: a folder instead of the
zip, empty folders, times and modes of files, the zip's own name (each is tried and expected to give 0). Who holds the
evidence key may in addition write his own words (README, programs, schemas, policy), leave out what nothing in the
package asks for, exchange names of law files, and put signature lines of unknown keys under notes.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from evidence.full_package import make_full
from evidence.mutations import judge, judge_insider
from evidence.test_verify import contents

from fangxin.checks import verify


def harmless(package: Path, trust: Path, folder: Path) -> dict[str, Path]:
    """The same package with changes that mean nothing: only about the files' wrapping, never about their bytes."""
    out = {"as a folder": folder / "plain"}
    for name, content in contents(package).items():
        path = out["as a folder"] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (out["as a folder"] / "empty").mkdir()
    out["a folder with an empty folder in it"] = out["as a folder"]
    for path in out["as a folder"].rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o755)
    out["other times and modes in a folder"] = out["as a folder"]
    out["another name of the zip"] = folder / "another name.dat"
    out["another name of the zip"].write_bytes(package.read_bytes())
    return out


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        package, trust = make_full(folder / "full")
        checks = verify.verify(package, trust=trust)
        if verify.exit_code(checks) != 0:
            raise SystemExit(verify.table(checks))
        said = judge(package, trust, folder, rounds=rounds, seed=20261127)
        for kind, count in sorted(said.items()):
            print(f"{kind:<20}{count:>6} refused")
        print(f"{sum(said.values())} changes, none passed, none merely incomplete")
        refused, passed = judge_insider(package, trust, folder, rounds=rounds, seed=5)
        tried = sum(refused.values()) + sum(passed.values())
        print(f"by who holds the evidence key: {sum(refused.values())} of {tried} refused")
        for kind, count in sorted(passed.items()):
            print(f"passed: {kind}: {count}")
        for kind, path in harmless(package, trust, folder).items():
            code = verify.exit_code(verify.verify(path, trust=trust))
            print(f"harmless: {kind}: {code}")
            if code:
                raise SystemExit(1)


if __name__ == "__main__":
    main()

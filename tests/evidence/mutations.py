"""Ways of changing a package, as files and as bytes, and what the verifier says to each.

Two adversaries: one without keys, whom every change gives away; and one who holds the evidence key and signs the list
of files again. What only the evidence key vouches for, the second may rewrite, and nothing else: see OWN_WORDS.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from evidence.small_home import sha
from evidence.test_verify import contents, zipped

from fangxin.checks import verify
from fangxin.reports import package
from fangxin.reports.ledger.keys import SigningKeys

Files = dict[str, bytes]
# What the holder of the evidence key may say as he likes, since the ledger holds no digest of it: explanations, schemas
# and programs, his own promises, and the witness keys in the package, which nobody counts who brought his own.
OWN_WORDS = re.compile(
    r"(README|CONTROLS)\.\w\w\.md|controls\.json|verify\.(py|sh|html)|schemas/.*|policy\.json|witness\.vkeys"
)


def of_files(files: Files, chance: random.Random) -> Iterator[tuple[str, Files]]:
    """Endless changes of members, each named by its kind: flips, cuts, doublings, swaps, drops, new names."""
    names = sorted(files.keys() - {package.MANIFEST})  # that one is written again, as a forger would
    while True:
        name, other = chance.sample(names, 2)
        content = files[name]
        if not content:
            continue
        at, length = chance.randrange(len(content)), chance.choice([1, 2, 7, 64, 400])
        piece = content[at : at + length]
        yield "flip", files | {name: content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]}
        yield "delete", files | {name: content[:at] + content[at + length :]}
        yield "double", files | {name: content[:at] + piece + content[at:]}
        yield "append", files | {name: content + piece}
        yield "swap files", files | {name: files[other], other: content}
        yield "copy over", files | {name: files[other]}
        yield "drop", {key: value for key, value in files.items() if key != name}
        yield "rename", {key if key != name else f"{key}x": value for key, value in files.items()}
        lines = content.split(b"\n")
        if len(lines) > 2:
            a, b = chance.sample(range(len(lines)), 2)
            lines[a], lines[b] = lines[b], lines[a]
            yield "swap lines", files | {name: b"\n".join(lines)}


def of_bytes(raw: bytes, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    """Endless changes of the zip itself, manifest and headers left as they fall."""
    while True:
        at, length = chance.randrange(len(raw)), chance.choice([1, 2, 7, 300])
        other = chance.randrange(max(1, len(raw) - 300))
        yield "flip", raw[:at] + bytes([raw[at] ^ 1 << chance.randrange(8)]) + raw[at + 1 :]
        yield "delete", raw[:at] + raw[at + length :]
        yield "double", raw[: at + length] + raw[at:]
        yield "swap", raw[:at] + raw[other : other + length] + raw[at + length :]
        yield "cut", raw[:at]


def signed_again(path: Path, files: Files, keys: SigningKeys) -> Path:
    """Write these files as a package whose manifest the evidence key signed."""
    own = (package.MANIFEST, package.SIGNED)
    lines = [f"{sha(files[name])}  {name}\n" for name in sorted(files) if name not in own]
    manifest = "".join(lines).encode()
    signed = package._signed(manifest, len(lines), keys.origin, keys)
    whole = {name: files[name] for name in files if name not in own} | dict(zip(own, (manifest, signed), strict=True))
    package._write_zip(path, {name: package._fixed(whole[name]) for name in sorted(whole)})
    return path


def only_lines_of_strangers(before: bytes, after: bytes) -> bool:
    """Whether a receipt or note changed in nothing but signature lines that are not the log's."""
    dash = "\n\n— ".encode()
    first = before.partition(dash)[2].partition(b" ")[0]
    if not first or before.partition(dash)[0] != after.partition(dash)[0]:
        return False
    log = [line for line in before.split(b"\n") if line.startswith("— ".encode() + first + b" ")]
    return all(line in after.split(b"\n") for line in log)


def judge_insider(
    path: Path, trust: Path, folder: Path, *, rounds: int, seed: int
) -> tuple[Counter[str], Counter[str]]:
    """The same for who holds the evidence key: how many changes were not passed, and what passed, by kind and file."""
    chance, files, refused, passed = random.Random(seed), contents(path), Counter[str](), Counter[str]()
    keys, ways = SigningKeys.load(trust), of_files({n: c for n, c in files.items() if n != package.SIGNED}, chance)
    for _ in range(rounds):
        kind, changed = next(ways)
        touched = sorted(name for name in files.keys() | changed.keys() if files.get(name) != changed.get(name))
        touched = [name for name in touched if name not in (package.MANIFEST, package.SIGNED)]
        if not touched:
            continue
        checks = verify.verify(signed_again(folder / "changed.zip", changed, keys), trust=trust)
        assert "verifier itself" not in verify.table(checks), (kind, verify.table(checks))
        if verify.exit_code(checks):
            refused[kind] += 1
        else:
            where = [re.sub(r"[0-9a-f]{64}|[\w.-]+(?=\.)", "*", name.partition("/")[2]) for name in touched]
            words = all(OWN_WORDS.fullmatch(name) for name in touched)
            if all(only_lines_of_strangers(files.get(name, b""), changed.get(name, b"")) for name in touched):
                passed["signature lines of nobody that is known, or their order"] += 1
                continue
            passed["his own words" if words else f"{kind} in {touched[0].partition('/')[0]}/{where[0]}"] += 1
    return refused, passed


def judge(path: Path, trust: Path, folder: Path, *, rounds: int, seed: int) -> Counter[str]:
    """Verify `rounds` changed packages of either sort; returns how many of each kind were refused, by kind.

    Raises AssertionError for one that passes, that is merely incomplete, or that makes the verifier itself fail.
    """
    chance, raw, files, said = random.Random(seed), path.read_bytes(), contents(path), Counter[str]()
    target = folder / "changed.zip"
    in_files, in_bytes = of_files(files, chance), of_bytes(raw, chance)
    for number in range(rounds):
        if number % 2:
            kind, changed = next(in_files)
            if changed == files:
                continue
            zipped(target, changed)
        else:
            kind, content = next(in_bytes)
            if content == raw:
                continue
            target.write_bytes(content)
        checks = verify.verify(target, trust=trust)
        told = verify.table(checks)
        assert "verifier itself" not in told, (kind, told)
        assert verify.exit_code(checks) == 1, (kind, told)
        said[f"{'files' if number % 2 else 'bytes'}: {kind}"] += 1
    return said

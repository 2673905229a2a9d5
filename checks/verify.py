"""The auditor's verifier: checks a package of evidence without trusting, asking or importing its maker.

    python verify.py PACKAGE [--trust VKEY|DIR] [--officer PUB]... [--since OLD_CHECKPOINT] [--quorum N]
                             [--challenge FILE] [--secret FILE] [--json]

PACKAGE is the zip or the same files as a plain folder. One file, standard library and `cryptography`, no network,
public keys only. It prints every check with its result and the reason. Exit codes:

    0  every check that applies was run and holds
    1  something is false: a signature, hash, order, count or date
    2  nothing is false, but something could not be checked
    3  wrong usage

* Trust comes from outside: DIR holds `log.vkey` and `evidence.pub.pem` as you got them from somebody you trust, and
  where you have them `witness.vkeys`, `tsa-ca.pem` and `certificate-ca.pem`. VKEY is the log's key alone, as text or
  a file: the other keys of the operator are then those whose digests the ledger holds. Without trust the package's
  own keys are used and the answer is at best 2: whoever signs a whole package again with other keys never earns 0.
* Officers count by the keys in DIR/officers or after --officer (64 hex digits, or a file with them): no other key
  leads to theirs.
* A ledger that goes on from another shard is compared with the last checkpoint of that one, brought with --since; the
  log keys of earlier shards stand in DIR/shards.vkeys.
* Witnesses and time stamping authorities count only when their keys come from outside.
* Members are read by name and never extracted; a zip must be, byte for byte, the one that our writer makes.
* Every parser refuses what the format's writer would not have written; whatever it refuses has its own message.
* --secret FILE: the receipt secret (64 hex digits, or base32) on the first line, then one `kind=value` line for
  each identity the request was opened with. It shows which entries are the holder's, and leaves the file alone.

Read it from the top: the steps stand in `_Case.checks`, in the order in which they build on each other; below them
come the formats, from entries and notes down to DER, PDF and zip.

Formats: C2SP signed-note, tlog-checkpoint, tlog-cosignature, tlog-tiles, tlog-proof@v1; RFC 6962 (hashes), RFC 9162
(proofs), RFC 8785 (canonical JSON), in-toto Statement v1 in DSSE v1; RFC 3161 (time), RFC 5652 and RFC 5035 (CMS),
ISO 32000 with ETSI EN 319 142 (signed PDF).
"""

from __future__ import annotations

import argparse
import ast
import base64
import errno
import hashlib
import hmac
import json
import operator
import os
import re
import stat
import struct
import sys
import zlib
from calendar import monthrange
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any  # Any: parsed JSON, before it is checked

try:
    import cryptography
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if int(cryptography.__version__.partition(".")[0]) < 42:
        raise ImportError
except ImportError:  # wrong use, and no verdict
    print(
        "verify.py needs Python 3.11 or later and cryptography 42 or later: pip install cryptography", file=sys.stderr
    )
    raise SystemExit(3) from None

HOLDS, FALSE, MISSING, NOT_APPLICABLE = "HOLDS", "FALSE", "MISSING", "NOT APPLICABLE"
NOT_COMPARED = "NOT COMPARED"  # what this program never looks at: it changes no answer, and is said each time

Secret = tuple[bytes, list[list[str]]]  # the receipt secret, and the (kind, value) pairs it was used with
_EMPTY = hashlib.sha256(b"").digest()
_ANSWERS = "residue.answered:"  # before the tag of a `residue.found`, in the code of an exception
_MANIFEST, _SIGNED = "MANIFEST.sha256", "MANIFEST.dsse.json"
_MOST_FILES, _MOST_BYTES, _MOST_MEMBER = 65_535, 2**32 - 1, 2**28
_MOST_JSON, _MOST_LIST, _MOST_SIGNATURE = 2**24, 2**25, 2**18  # what is parsed takes many times its size, and so long
_VKEY_FILE, _EVIDENCE_FILE, _WITNESSES = "log.vkey", "evidence.pub.pem", "witness.vkeys"
_TSA_CA, _CERTIFICATE_CA, _SHARDS = "tsa-ca.pem", "certificate-ca.pem", "shards.vkeys"
_UNREAD = "the package cannot be read"


@dataclass(frozen=True)
class Check:
    """One row of the answer: what was checked, how it came out, and why."""

    name: str
    result: str
    reason: str


class Usage(Exception):
    """The command line or a file given on it is wrong: exit code 3."""


class Wrong(Exception):
    """Something is false."""


class Missing(Exception):
    """Something could not be checked."""


class Skip(Exception):
    """The check does not apply to this package."""


class Uncompared(Exception):
    """A part of the package that nobody here looks at."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks named by the command line, print the table, and return the exit code."""
    parser = _Parser(prog="verify.py", description="Check a package of erasure evidence.")
    parser.add_argument("path", metavar="PACKAGE", help="the zip, or the same files as a folder")
    parser.add_argument(
        "--trust", metavar="VKEY|DIR", help="the log's key, or a folder of keys, from outside the package"
    )
    parser.add_argument("--officer", metavar="PUB", action="append", help="an officer's key, from outside; repeatable")
    parser.add_argument("--since", metavar="CHECKPOINT", help="an older checkpoint that this ledger must extend")
    parser.add_argument("--quorum", metavar="N", type=int, help="ask for the cosignatures of so many witnesses")
    parser.add_argument("--challenge", metavar="FILE", help="the challenge that this package has to answer")
    parser.add_argument("--secret", metavar="FILE", help="receipt secret: show which entries are mine")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    try:
        given = parser.parse_args(argv)
        checks = verify(
            given.path,
            trust=given.trust,
            officers=given.officer or (),
            since=given.since,
            quorum=given.quorum,
            challenge=given.challenge,
            secret=given.secret,
        )
    except Usage as error:
        print(f"verify: {error}", file=sys.stderr)
        return 3
    code = exit_code(checks)
    if given.json:
        print(json.dumps({"checks": [asdict(one) for one in checks], "exit_code": code}, indent=2))
    else:
        print(table(checks))
    if code == 2:
        lacking = ", ".join(one.name for one in checks if one.result == MISSING)
        print(f"verify: incomplete (exit 2), could not be checked: {lacking}", file=sys.stderr)
    return code


def verify(
    path: str | Path,
    *,
    trust: str | Path | None = None,
    officers: Sequence[str | Path] = (),
    since: str | Path | None = None,
    quorum: int | None = None,
    challenge: str | Path | None = None,
    secret: str | Path | None = None,
) -> list[Check]:
    """Run every check over a package and return one row for each; Usage if the arguments make no sense."""
    package = Path(path)
    if not (stat.S_ISREG(_mode(package, "PACKAGE")) or stat.S_ISDIR(_mode(package, "PACKAGE"))):
        raise Usage(f"PACKAGE: {_brief(package)}: neither a plain file nor a folder")
    if _something_else(package):
        raise Usage(f"PACKAGE: {_brief(package)}: not a package; see reports/package-*.zip, or what you were sent")
    if quorum is not None and not 0 <= quorum <= 16:
        raise Usage("--quorum: a note has up to 16 signatures; expected 0 to 16")
    for option, path_given in (
        ("--trust", trust),
        ("--challenge", challenge),
        *(("--officer", one) for one in officers),
    ):
        if path_given is not None and _inside(path_given, package):
            raise Usage(f"{option} is of the package itself: what it is compared with must come from somewhere else")
    case = _Case(
        package,
        trust=None if trust is None else _brought(trust, package),
        officers=[_officer_given(one) for one in officers],
        since=None if since is None else _note_given(since),
        quorum=quorum or 0,
        challenge=None if challenge is None else _given(challenge, "--challenge"),
        secret=None if secret is None else _secret_file(_given(secret, "--secret")),
    )
    return [_run(name, check) for name, check in case.checks()]


def exit_code(checks: Sequence[Check]) -> int:
    """Return 1 if any check is false, else 2 if any could not be made, else 0."""
    results = {one.result for one in checks}
    return 1 if FALSE in results or not checks else 2 if MISSING in results else 0


def table(checks: Sequence[Check]) -> str:
    """Return the rows as text for a terminal, with the answer in the last line."""
    wide = max(len(one.name) for one in checks)
    shown = checks[:1] if checks[0].result != HOLDS else checks  # a package that cannot be read has no further rows
    rows = [f"{one.name:<{wide}}  {one.result:<14}  {one.reason}" for one in shown]
    if len(shown) < len(checks):
        rows.append(f"{len(checks) - len(shown)} further checks could not be made: {_UNREAD}")
    answer = {
        0: "Every check that applies was run and holds.",
        1: "Something is FALSE: do not rely on this package.",
        2: "Nothing is false, but something could not be checked.",
    }
    return "\n".join([*rows, "", answer[exit_code(checks)]])


def _run(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, HOLDS, _worded(check()))
    except Wrong as error:
        return Check(name, FALSE, _worded(str(error)))
    except Missing as error:
        return Check(name, MISSING, _worded(str(error)))
    except Skip as error:
        return Check(name, NOT_APPLICABLE, _worded(str(error)))
    except Uncompared as error:
        return Check(name, NOT_COMPARED, _worded(str(error)))
    except Exception as error:  # a defect of this program must neither pass nor print what it was reading
        return Check(name, FALSE, f"the verifier itself failed here ({type(error).__name__}); please report it")


def _worded(reason: str) -> str:
    """Return a reason with its counted words in the right number: `1 receipt(s)` becomes `1 receipt`.

    What a document calls its collections is not ours: no line end, escape or turn of direction reaches a terminal.
    """
    reason = "".join(one if one.isprintable() else "?" for one in reason[:1000])
    return re.sub(r"\b([0-9]+)((?: [A-Za-z]+)+)\(s\)", lambda m: f"{m[1]}{m[2]}{'' if m[1] == '1' else 's'}", reason)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:  # Any: argparse says NoReturn
        raise Usage(message)


def _given(path: str | Path, option: str) -> bytes:
    try:
        return _plain(path, 65_536)
    except (OSError, ValueError) as error:
        raise Usage(f"{option}: {_brief(path)}: {_why(error)}") from None


def _brought(trust: str | Path, package: Path) -> dict[str, bytes]:
    """Return the files of the trusted folder, or the one trusted key as the file it would be; Usage for others."""
    if re.fullmatch(rf"{_ORIGIN}\+[0-9a-f]{{8}}\+[A-Za-z0-9+/=]+", str(trust), re.ASCII):
        return _believable({_VKEY_FILE: f"{trust}\n".encode()})
    kind = _mode(trust, "--trust")
    if stat.S_ISREG(kind):
        return _believable({_VKEY_FILE: _given(trust, "--trust")})
    if not stat.S_ISDIR(kind):
        raise Usage(f"--trust: {_brief(trust)}: neither a key, a file with one, nor a folder with {_VKEY_FILE}")
    found = {}
    officers = sorted(f"officers/{one.name}" for one in Path(trust).glob("officers/*.pub"))
    for name in (_VKEY_FILE, _EVIDENCE_FILE, _WITNESSES, _TSA_CA, _CERTIFICATE_CA, _SHARDS, *officers):
        if os.path.lexists(Path(trust) / name):
            found[name] = _given(Path(trust) / name, f"--trust {name}")
    if not {_VKEY_FILE, _EVIDENCE_FILE} <= found.keys():
        raise Usage(f"--trust: {_brief(trust)}: expected {_VKEY_FILE} and {_EVIDENCE_FILE} in that folder")
    return _believable(found)


def _believable(found: dict[str, bytes]) -> dict[str, bytes]:
    """Return what was brought as trusted if its log key is one: what is wrong with it is not the package's fault."""
    try:
        _vkey_file(found[_VKEY_FILE], _VKEY_FILE)
    except Wrong as error:
        raise Usage(
            f"--trust: not a log's key ({error}); expected the text of a log.vkey, such a file or a folder"
        ) from None
    return found


def _note_given(path: str | Path) -> bytes:
    """Return an older checkpoint; Usage for a file that does not even look like one."""
    raw = _given(path, "--since")
    if re.match(rb"[^\n]+\n[0-9]+\n[^\n]+\n\n", raw) is None:
        raise Usage(
            f"--since: {_brief(path)}: not a checkpoint; expected one that was kept, such as checkpoints/<size>"
        )
    return raw


def _something_else(path: Path) -> bool:
    """Tell whether a path plainly leads to another thing than a package, damaged or not: a list, a page, a home.

    A damaged package must never pass for a slip of the hand: an empty file, noise, and whatever holds one piece of a
    zip is judged, and so is a folder with anything that stands at the top of a package.
    """
    if path.is_dir():
        tops = (_MANIFEST, _SIGNED, _VKEY_FILE, _EVIDENCE_FILE, "checkpoint", "policy.json", "tile", "verify.py")
        return not any(os.path.lexists(path / one) for one in tops)
    try:
        with path.open("rb") as file:
            if file.read(4) == b"PK\x03\x04":
                return False
        raw = _plain(path, _MOST_BYTES)
    except (OSError, ValueError):
        return False
    if any(one in raw for one in (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", _MANIFEST.encode())):
        return False
    if raw.startswith((b"%PDF-", b"PAR1", b"SQLite format 3\0", b"\x1f\x8b")):
        return True
    try:
        return len(raw) >= 16 and b"\0" not in raw and bool(raw.decode())
    except UnicodeDecodeError:
        return False


def _officer_given(given: str | Path) -> bytes:
    """Return an officer's key as its file holds it: 64 hex digits and a newline; Usage for anything else."""
    if re.fullmatch("[0-9a-f]{64}", str(given), re.ASCII):
        return f"{given}\n".encode()
    raw = _given(given, "--officer")
    if re.fullmatch(rb"[0-9a-f]{64}\n", raw) is None:
        raise Usage(f"--officer: {_brief(given)}: expected 64 hex digits, or a file with them")
    return raw


def _mode(path: str | Path, option: str) -> int:
    """Return the type and mode of what a path leads to; Usage if it leads nowhere."""
    try:
        return Path(path).stat().st_mode
    except (OSError, ValueError) as error:
        raise Usage(f"{option}: {_brief(path)}: {_why(error)}") from None


def _inside(path: str | Path, package: Path) -> bool:
    """Tell whether a path leads into the package, or to it."""
    try:
        return Path(path).exists() and Path(path).resolve().is_relative_to(package.resolve())
    except (OSError, ValueError):
        return False  # a key as text, or no path: what reads it says so


def _plain(path: str | Path, most: int) -> bytes:
    """Read a plain file; OSError or ValueError for pipes, devices, folders and more than `most` bytes. Never waits."""
    if not stat.S_ISREG(Path(path).stat().st_mode):  # before it is opened: to open a device may already do something
        raise OSError(errno.EINVAL, "not a plain file")
    plainly = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # neither is everywhere
    with os.fdopen(os.open(path, plainly), "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, "not a plain file")
        if about.st_size > most:
            raise OSError(errno.EFBIG, f"larger than {most} bytes")
        found = file.read(about.st_size + 1)
    if len(found) != about.st_size:
        raise OSError(errno.EIO, "not as long as it says, or written to meanwhile")
    return found


def _why(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or "not a path"


def _brief(path: str | Path) -> str:
    text = str(path)
    return ascii(text)[1:-1] if len(text) <= 200 else f"a path of {len(text)} characters"


# ---------------------------------------------------------------- the checks


class _Case:
    """A package under examination: what one check establishes, the later ones build on."""

    def __init__(
        self,
        path: Path,
        *,
        trust: dict[str, bytes] | None,
        officers: Sequence[bytes],
        since: bytes | None,
        quorum: int,
        challenge: bytes | None,
        secret: Secret | None,
    ) -> None:
        self._path, self._trust, self._since, self._secret = path, trust, since, secret
        self._quorum, self._challenge = quorum, challenge
        self._officers = {*officers, *(raw for name, raw in (trust or {}).items() if name.startswith("officers/"))}
        self._files: dict[str, bytes | Path] | None = None  # a Path is read when asked for
        self._vkeys: list[VKey] = []  # the log's keys: the trusted one, and those it was rotated to and from
        self._evidence: Ed25519PublicKey | None = None
        self._witnesses: list[VKey] = []
        self._head: Checkpoint | None = None
        self._tree: Tree | None = None
        self._lines: list[bytes] = []
        self._entries: list[dict[str, Any]] | None = None
        self._kept: list[tuple[str, int, dict[str, Any]]] = []  # certificate, entry that issued it, the document
        self._laws: dict[str, str] = {}  # the law digests that certificates name, and which certificate does

    def checks(self) -> list[tuple[str, Callable[[], str]]]:
        """Return the steps in the order in which they build on each other."""
        return [
            # (1) the package as files: nothing hidden, nothing extra, every hash equal
            ("container", self.container),
            ("manifest", self.manifest),
            ("coverage", self.coverage),
            # (2) whose keys, and what they signed
            ("trust", self.trust),
            ("signed", self.signed),
            ("policy", self.policy),
            ("checkpoint", self.checkpoint),
            ("witnesses", self.witnesses),
            # (3) the tree below the signed head
            ("tree", self.tree),
            ("history", self.history),
            ("receipts", self.receipts),
            # (4) what the entries say, in what order, and when
            ("entries", self.entries),
            ("keys", self.keys),
            ("time", self.time),
            ("order", self.order),
            ("shards", self.shards),
            ("approvals", self.approvals),
            # (5) the documents that entries hold the digests of
            ("statements", self.statements),
            ("certificates", self.certificates),
            ("papers", self.papers),
            ("pages", self.pages),
            ("words", self.words),
            ("reports", self.reports),
            ("figures", self.figures),
            ("law", self.law),
            ("retention", self.retention),
            ("calendar", self.calendar),
            ("code", self.code),
            # (6) what the auditor or the person concerned asks for
            ("challenge", self.challenge),
            ("mine", self.mine),
        ]

    # -------------------------------------------------------- the package as files

    def container(self) -> str:
        """The package is the very zip our writer makes, or a folder of plain files with safe names."""
        try:
            if self._path.is_dir():
                self._files = dict(_folder(self._path))
                return f"a folder of {len(self._files)} plain files"
            if self._path.stat().st_size > _MOST_BYTES:
                raise Wrong("zip: larger than 4 GiB")
            self._files = dict(_unzip(_plain(self._path, _MOST_BYTES)))
        except (OSError, ValueError) as error:
            raise Missing(f"the package cannot be read: {_why(error)}") from None
        return f"a stored zip of {len(self._files)} files, byte for byte as its writer makes it"

    def manifest(self) -> str:
        """Every file but the manifest and its signature is listed, none is extra, and all hashes are equal."""
        raw = self._read(_MANIFEST)
        listed: dict[str, str] = {}
        for line in _lines(raw, _MANIFEST):
            match = re.fullmatch(rb"([0-9a-f]{64})  ([!-~]{1,240})", line)
            if match is None:
                raise Wrong(f"{_MANIFEST}: expected `<sha256>  <name>` on every line")
            listed[_safe(match[2].decode())] = match[1].decode()
        if raw != b"".join(f"{listed[name]}  {name}\n".encode() for name in sorted(listed)):
            raise Wrong(f"{_MANIFEST}: names are not sorted or come twice")
        present = set(self._names()) - {_MANIFEST, _SIGNED}
        for name in sorted(present - listed.keys()):
            raise Wrong(f"{name}: in the package, but not in the manifest")
        for name in sorted(listed.keys() - present):
            raise Wrong(f"{name}: in the manifest, but not in the package")
        for name, digest in listed.items():
            if hashlib.sha256(self._read(name)).hexdigest() != digest:
                raise Wrong(f"{name}: its SHA-256 is not the one in the manifest")
        return f"{len(listed)} files listed, none extra, all hashes equal"

    def coverage(self) -> str:
        """Every file is of a kind that this program knows."""
        known = re.compile(
            r"(README|CONTROLS)\.(zh|en)\.md|controls\.json|verify\.(py|sh|html)|log\.vkey|evidence\.pub\.pem|"
            r"witness\.vkeys|(tsa|certificate)-ca\.pem|policy\.json|challenge\.json|checkpoint(\.tsr)?|"
            r"checkpoints/(0|[1-9][0-9]*)(\.tsr)?|rotations/(0|[1-9][0-9]*)\.tlog-proof|"
            r"tile/(entries|[0-9]{1,2})/[x0-9./p]+|dsse/[0-9a-f]{64}\.json|proofs/[^/]+\.tlog-proof|"
            r"certificates/[^/]+\.(json|html|pdf)|pages/[0-9a-f]{64}\.j2|reports/[^/]+\.(json|html|pdf|parquet)|law/[^/]+|"
            r"officers/[A-Za-z_][A-Za-z0-9_]*\.pub|approvals/[0-9a-f]{64}\.json|"
            r"calendars/[^/]+|schemas/[^/]+\.json|"
            rf"code-digests\.txt|{re.escape(_MANIFEST)}|{re.escape(_SIGNED)}"
        )
        for name in self._names():
            if known.fullmatch(name) is None:
                raise Missing(f"{name}: this version has no check for such a file; use a newer verify.py")
        return "every file is of a kind that has its check"

    # -------------------------------------------------------- keys and the signed head

    def trust(self) -> str:
        """The keys are those that the auditor brought, or that these lead to; not merely those in the package."""
        brought = self._trust or {}
        first, second = (brought[one] if one in brought else self._read(one) for one in (_VKEY_FILE, _EVIDENCE_FILE))
        where = "--trust " if brought else ""
        self._vkeys, self._evidence = [_vkey_file(first, f"{where}{_VKEY_FILE}")], _pem_key(second, _EVIDENCE_FILE)
        own = {name: self._read(name) for name in (_VKEY_FILE, _EVIDENCE_FILE)}
        self._follow_rotations()
        if _vkey_file(own[_VKEY_FILE], _VKEY_FILE) not in self._vkeys:
            raise Wrong(f"{_VKEY_FILE}: the package's key is not the trusted one, and no rotation leads to it")
        for name, content in brought.items():
            if name not in (_VKEY_FILE, _WITNESSES) and name in self._names() and self._read(name) != content:
                raise Wrong(f"{name}: the package's key is not the trusted one")
        if not brought:
            raise Missing(
                "no --trust: bring the log.vkey that reached you on another way than this package, from the company's "
                "site, a witness or an earlier copy; the package's own keys were used, compare them: log key "
                f"{own[_VKEY_FILE].decode().strip()} · evidence key SHA-256 "
                f"{hashlib.sha256(own[_EVIDENCE_FILE]).hexdigest()}"
            )
        rotated = f", rotated {len(self._vkeys) - 1} time(s)" if len(self._vkeys) > 1 else ""
        return f"the keys are the trusted ones; origin {self._vkeys[0].name}{rotated}"

    def _follow_rotations(self) -> None:
        """Add the keys that a checkpoint, signed by a known key and the other one, says the log key was rotated to.

        Each `rotations/<index>.tlog-proof` proves the entry `key.rotated` at that index, under a checkpoint with both
        signatures: who trusts one of the two keys learns the other, whichever came first.
        """
        waiting = sorted(name for name in self._names() if name.startswith("rotations/"))
        while waiting:
            learned = 0
            for name in list(waiting):
                index, proof, note = parse_proof(self._read(name), name)
                line = self._line(index)
                entry = strict_json(line, name)
                if not isinstance(entry, dict) or entry.get("type") != "key.rotated":
                    raise Wrong(f"{name}: entry {index} is not a key.rotated")
                _entry(entry, index)
                pair = [parse_vkey(entry[which], name) for which in ("old", "new")]
                if not any(one in self._vkeys for one in pair):
                    continue
                at, _same = (parse_checkpoint(note, [one], name) for one in pair)  # both have signed it
                leaf = hashlib.sha256(b"\x00" + line).digest()
                check_inclusion(leaf, index, at.size, proof, at.root, name)
                if name != f"rotations/{index}.tlog-proof":
                    raise Wrong(f"{name}: holds the receipt of entry {index}")
                self._vkeys += [one for one in pair if one not in self._vkeys]
                waiting.remove(name)
                learned += 1
            if not learned:
                raise Wrong(f"{waiting[0]}: a rotation between keys that none of the trusted ones leads to")

    def _line(self, index: int) -> bytes:
        """Return the bytes of an entry from its bundle, before the tree is known; whoever asks proves them."""
        full = _tile_name("entries", index // 256, 256)
        for name in self._names():
            if name == full or name.startswith(f"{full}.p/"):
                count = 256 if name == full else _decimal(name.rpartition("/")[2].encode(), name)
                lines = _bundle(self._read(name), count, name)
                if index % 256 < len(lines):
                    return lines[index % 256]
        raise Missing(f"entry {index}: not in the package")

    def signed(self) -> str:
        """The evidence key signed this very manifest, hence every file in it and the absence of any other."""
        names = self._names()
        for name in (_MANIFEST, _SIGNED):
            if name not in names:
                raise Wrong(f"{name}: not in the package, so nothing says that these files belong together")
        raw, manifest, key = self._read(_SIGNED), self._read(_MANIFEST), self._evidence_key()
        statement = parse_statement(raw, key, _SIGNED)
        signatures = strict_json(raw, _SIGNED)["signatures"]
        if [one["keyid"] for one in signatures] != [hashlib.sha256(key.public_bytes_raw()).hexdigest()]:
            raise Wrong(f"{_SIGNED}: expected one signature, under the ID of the evidence key")
        if statement["predicateType"] != f"https://{self._origin().partition('/')[0]}/package/v1":
            raise Wrong(f"{_SIGNED}: a statement of another kind, or of another origin")
        digest = hashlib.sha256(manifest).hexdigest()
        if statement["subject"] != [{"name": _MANIFEST, "digest": {"sha256": digest}}]:
            raise Wrong(f"{_MANIFEST}: not the one that was signed: a file was changed, added or left out")
        count = len(_lines(manifest, _MANIFEST))
        if statement["predicate"].get("files") != count:
            raise Wrong(f"{_SIGNED}: signed for another number of files than {count}")
        return f"the evidence key signed this list of {count} files"

    def policy(self) -> str:
        """The policy is readable and speaks of the same origin."""
        policy = self._policy()
        if policy.get("origin") != self._origin():
            raise Wrong("policy.json: of another origin than the log key")
        return f"origin {policy['origin']}, quorum of witnesses {policy['quorum']}"

    def checkpoint(self) -> str:
        """The log key signed the head of the ledger."""
        self._head = parse_checkpoint(self._read("checkpoint"), self._log_keys())
        return f"{self._head.size} entries, signed by {self._head.origin}"

    def witnesses(self) -> str:
        """As many witnesses as the policy, or the auditor, asks for cosigned the head; their keys came from outside."""
        outside = (self._trust or {}).get(_WITNESSES)
        if outside is None and _WITNESSES in self._names():
            keys = _vkeys_file(self._read(_WITNESSES), _WITNESSES)
        else:
            keys = [] if outside is None else _vkeys_file(outside, f"--trust {_WITNESSES}")
        needed = max(self._policy()["quorum"], self._quorum, 1 if outside else 0)
        self._witnesses = keys
        found = cosignatures(self._read("checkpoint"), keys, datetime.now(UTC).timestamp())
        if not needed and not keys:
            raise Skip("the policy names no witness: the operator alone vouches that there is one history")
        if len(found) < needed:
            raise Missing(f"{len(found)} of the {needed} witnesses asked for cosigned this head")
        who = ", ".join(f"{one.name} ({_minute(when)})" for one, when in found.items()) or "nobody"
        if outside is None and needed:
            raise Missing(f"cosigned by {who}, but their keys are the package's own: bring {_WITNESSES} with --trust")
        return f"cosigned by {who}; {needed} asked for"

    # -------------------------------------------------------- the tree

    def tree(self) -> str:
        """Bundles lead to leaves, leaves to tiles, tiles to the signed root; no tile is extra."""
        head = self._signed()
        lines: list[bytes] = []
        for index in range(-(-head.size // 256)):
            count = min(256, head.size - index * 256)
            name = _tile_name("entries", index, count)
            lines += _bundle(self._read(name), count, name)
        tree = Tree([hashlib.sha256(b"\x00" + line).digest() for line in lines])
        expected = {_tile_name("entries", i, min(256, head.size - i * 256)) for i in range(-(-head.size // 256))}
        level, count = 0, head.size
        while count:
            hashes = tree.levels[8 * level]
            for index in range(-(-count // 256)):
                part = hashes[index * 256 : min(count, (index + 1) * 256)]
                name = _tile_name(level, index, len(part))
                expected.add(name)
                if self._read(name) != b"".join(part):
                    raise Wrong(f"{name}: not the hashes of what lies below it")
            level, count = level + 1, count // 256
        for name in self._names():
            if name.startswith("tile/") and name not in expected:
                raise Wrong(f"{name}: not a tile of a tree of {head.size} entries")
        if tree.root(head.size) != head.root:
            raise Wrong(f"the root of the {head.size} entries is not the one that was signed")
        self._tree, self._lines = tree, lines
        return f"{head.size} entries lead to the signed root"

    def history(self) -> str:
        """The ledger extends every older checkpoint that is in the package or was brought."""
        tree, head = self._grown(), self._signed()
        older = {name: self._read(name) for name in self._names() if re.fullmatch("checkpoints/[0-9]+", name)}
        if self._since is not None and self._since.partition(b"\n")[0] == self._origin().encode():
            older["--since"] = self._since  # of another shard: see `shards`
        for name, note in older.items():
            old = self._older(note, name)
            if name.startswith("checkpoints/") and name != f"checkpoints/{old.size}":
                raise Wrong(f"{name}: holds a checkpoint of size {old.size}")
            if old.size > head.size:
                raise Wrong(f"{name}: has {old.size} entries, this ledger only {head.size}: it was cut or is older")
            if tree.root(old.size) != old.root:
                raise Wrong(f"{name}: this ledger does not begin with those {old.size} entries: two histories")
        if not older:
            raise Skip("no older checkpoint: keep this one, and bring it with --since the next time")
        return f"extends {len(older)} older checkpoint(s)"

    def receipts(self) -> str:
        """Every receipt proves its entry under a checkpoint that this tree extends."""
        names = [name for name in self._names() if name.startswith("proofs/")]
        for name in names:
            self._receipt(self._read(name), name)
        if not names:
            raise Skip("no receipt in the package")
        return f"{len(names)} receipt(s) prove their entries"

    def _older(self, note: bytes, name: str) -> Checkpoint:
        """Read a checkpoint that is not the head; what known witnesses said of it must be true as well."""
        cosignatures(note, self._witnesses, datetime.now(UTC).timestamp(), name)
        return parse_checkpoint(note, self._log_keys(), name)

    def _receipt(self, text: bytes, name: str) -> int:
        """Check a receipt and return the index it is for."""
        tree, head = self._grown(), self._signed()
        index, proof, note = parse_proof(text, name)
        at = self._older(note, name)
        if at.size > head.size or tree.root(at.size) != at.root:
            raise Wrong(f"{name}: its checkpoint is of another tree")
        if index >= at.size:
            raise Wrong(f"{name}: index {index} is not below its size {at.size}")
        check_inclusion(tree.levels[0][index], index, at.size, proof, at.root, name)
        return index

    # -------------------------------------------------------- what the entries say

    def entries(self) -> str:
        """Every entry is canonical, of a known type, with exactly its fields in their patterns."""
        self._grown()
        found, newer = [], set()
        for index, line in enumerate(self._lines):
            entry = strict_json(line, f"entry {index}")
            if not isinstance(entry, dict):
                raise Wrong(f"entry {index}: not an object")
            kind = entry.get("type")
            if isinstance(kind, str) and re.fullmatch(_CODE, kind, re.ASCII) and kind not in _TYPES:
                newer.add(kind)
            else:
                _entry(entry, index)
            found.append(entry)
        self._entries = found
        if newer:
            raise Missing(f"entries of types this version does not know: {', '.join(sorted(newer))}")
        return f"{len(found)} entries, canonical, each with exactly its fields"

    def keys(self) -> str:
        """The operator's other keys are those whose digests the ledger holds, where they did not come from outside."""
        known = [one for one in self._known() if one["type"] == "keys.loaded"]
        brought = self._trust or {}
        told = 0
        for field, name in (("evidence", _EVIDENCE_FILE), ("certificates", _CERTIFICATE_CA)):
            if name not in self._names():
                continue
            digest = hashlib.sha256(self._read(name)).hexdigest()
            if any(one.get(field) == digest for one in known):
                told += 1
            elif any(field in one for one in known):
                raise Wrong(f"{name}: its SHA-256 is in no keys.loaded of the ledger")
            elif brought and name not in brought:
                raise Missing(f"{name}: neither brought with --trust nor in the ledger (no keys.loaded)")
        if not told:
            raise Skip("the ledger does not name the operator's other keys; they were brought, or are the package's")
        return f"the ledger holds the digests of {told} of the operator's other keys"

    def time(self) -> str:
        """Each token covers its checkpoint, is signed by an authority from outside, and no entry is dated after it."""
        names = [name for name in self._names() if name.endswith(".tsr")]
        promised = self._policy().get("time_stamps", "none") != "none"
        outside = (self._trust or {}).get(_TSA_CA)
        if not names:
            if promised:
                raise Missing("the policy promises time tokens and the package has none: not time-stamped")
            if outside is not None:
                raise Missing(f"you brought {_TSA_CA} and the package has no time token: not time-stamped")
            raise Skip("no time token in the package: dates are the operator's word")
        roots = _ca_file(self._read(_TSA_CA) if outside is None else outside, _TSA_CA)
        newest = ""
        for name in sorted(names):
            note = self._read(name.removesuffix(".tsr"))
            size = parse_checkpoint(note, self._log_keys(), name).size
            when = time_token(self._read(name), note, roots, name)
            for index, entry in enumerate(self._known()[:size]):
                if entry["time"] > _minute(when.timestamp()):
                    raise Wrong(f"{name}: from {_minute(when.timestamp())}, but entry {index} is dated {entry['time']}")
            newest = max(newest, _minute(when.timestamp()))
        if outside is None:
            raise Missing(
                f"{len(names)} token(s) hold, but by the package's own authority: bring {_TSA_CA} with --trust"
            )
        if "checkpoint.tsr" not in names:
            raise Missing(f"the head has no time token; the newest covers an older checkpoint, {newest}")
        return f"{len(names)} token(s); every entry existed by {newest}"

    def order(self) -> str:
        """Intent comes before act and outcome, plans before deeds, laws before use, zero hits before certificates."""
        open_intents: dict[int, dict[str, Any]] = {}
        intents: dict[int, dict[str, Any]] = {}
        plans: set[str] = set()
        laws: set[str] = set()
        loaded = clean = opened = False
        vault = unclean = ""
        residues: set[str] = set()
        again: set[str] = set()  # residues with an intent after them, and no clean validation yet
        late = _regret([(index, one, one.get("tag", "")) for index, one in enumerate(self._known())])
        for index, entry in enumerate(self._known()):
            kind = entry["type"]
            if kind == "request.opened":
                opened = True
                if not loaded:
                    raise Wrong(f"entry {index}: a request was opened before any law was loaded")
                if laws and not laws.issuperset(entry["law"].split(",")):
                    raise Wrong(f"entry {index}: a request under a law that was not loaded before")
            elif kind == "law.loaded":
                loaded = True
                laws |= {entry["law"]} if "law" in entry else set()
            elif kind == "retained" and not loaded:
                raise Wrong(f"entry {index}: something was retained before any law was loaded")
            elif kind == "approved":
                plans.add(entry["plan"])
            elif kind == "key.committed":
                vault = entry["root"]
            elif kind == "erase.intended":
                if "plan" in entry and entry["plan"] not in plans:
                    raise Wrong(f"entry {index}: the plan to be carried out was not approved before")
                intents[index] = open_intents[index] = entry
                again, residues = again | residues, set()
            elif kind in ("key.destroyed", "store.overwritten", "store.rewritten"):
                intent = intents.get(entry["intent"])
                if intent is None:
                    raise Wrong(f"entry {index}: an outcome without an intent before it")
                if intent["store"] != entry.get("store", "vault"):
                    raise Wrong(f"entry {index}: an outcome for another store than its intent's")
                open_intents.pop(entry["intent"], None)
                if kind == "key.destroyed":
                    if entry["before"] != vault:
                        raise Wrong(f"entry {index}: keys destroyed under a root that was not the last one committed")
                    if entry["after"] == vault and entry["count"] != "0":  # 0: others had destroyed them meanwhile
                        raise Wrong(f"entry {index}: keys destroyed, but the root is the same")
                    vault = entry["after"]
            elif kind == "validated":
                holds = entry["hits"] == 0 and entry.get("failed", 0) == 0
                clean |= holds
                unclean = "" if holds else f"entry {index}"
                again = again if unclean else set()
                for at, intent in open_intents.items():
                    if intent["tag"] == entry["tag"]:
                        raise Wrong(f"entry {index}: validated while intent {at} had no outcome")
            elif kind == "residue.found":
                residues.add(entry["tag"])
            elif kind == "exception" and entry["code"].startswith(_ANSWERS):
                if not clean:
                    raise Wrong(f"entry {index}: a residue answered before any validation that found nothing")
                residues.discard(entry["code"].removeprefix(_ANSWERS))
                again.discard(entry["code"].removeprefix(_ANSWERS))
            elif kind == "certificate.issued":
                if entry["verdict"] == "failed":
                    residues, again, unclean = set(), set(), ""
                elif not clean:
                    raise Wrong(f"entry {index}: a certificate before any validation that found nothing")
                if not opened:
                    raise Wrong(f"entry {index}: a certificate before any request was opened")
        if open_intents:
            raise Missing(
                f"{len(open_intents)} intent(s) without outcome, first entry {min(open_intents)}: work is due"
            )
        if residues or again:
            raise Missing(
                f"{len(residues | again)} residue(s) found without a new intent and a clean validation after it, one "
                "that answers them, or a failed certificate: work is due"
            )
        if unclean:
            raise Missing(
                f"{unclean}: a validation found hits, or what FAILED, and none after it found nothing: work is due"
            )
        if late:
            raise Missing(late)
        return f"{len(intents)} intent(s), each before its outcome; laws, plans and validations before their use"

    def shards(self) -> str:
        """A ledger that goes on from another one says so in its first entry, and the other one ended as it says."""
        known = self._known()
        if any(one["type"] == "ledger.continued" for one in known[1:]):
            raise Wrong("a ledger says what it goes on from in its first entry, and nowhere else")
        first = known[0] if known and known[0]["type"] == "ledger.continued" else None
        brought = None if self._since is None else self._since.partition(b"\n")[0].decode("ascii", "replace")
        other = brought is not None and brought != self._origin()
        if first is None:
            if other:
                raise Wrong("--since: of another ledger than this one, which goes on from none")
            raise Skip("this ledger goes on from no other one")
        ended = f"{first['origin']}, which ended at {first['size']} entries"
        if first["origin"] == self._origin() or (other and brought != first["origin"]):
            raise Wrong(f"--since: of another ledger than this one or {ended}")
        if not other or self._since is None:
            raise Skip(f"goes on from {ended}: bring its last checkpoint with --since to compare")
        keys = [key for key in self._shard_keys() if key.name == first["origin"]]
        if not keys:
            raise Missing(f"--since: no key of {ended}; bring it as a line of {_SHARDS} with --trust")
        old = parse_checkpoint(self._since, keys, "--since")
        if old.size > first["size"]:
            raise Wrong(f"--since: has {old.size} entries, and this ledger goes on from {ended}: two histories")
        if old.size < first["size"]:
            raise Missing(f"--since: has {old.size} entries; bring a package of {ended} to see that it extends it")
        if old.root.hex() != first["root"]:
            raise Wrong(f"--since: of another history than {ended}")
        return f"goes on from {ended}, as your checkpoint says"

    def _shard_keys(self) -> list[VKey]:
        """Return the log keys of earlier shards that the auditor brought."""
        lines = _lines((self._trust or {}).get(_SHARDS, b""), _SHARDS) if _SHARDS in (self._trust or {}) else []
        return [parse_vkey(_ascii(line, _SHARDS), _SHARDS) for line in lines]

    def approvals(self) -> str:
        """Each plan that officers approved bears their signatures, over the grant that the vault carried out, in time.

        Two officers for whatever destroys keys; one may do for a plan that only seals. Their keys came from outside.
        """
        keys, said, wanted, lacking = self._officer_keys(), dict[str, tuple[str, ...]](), set[str](), list[str]()
        plans, acts = Counter[str](), self._acts()
        for index, entry in enumerate(self._known()):
            if entry["type"] != "approved":
                continue
            where, plan, signed = f"entry {index}", entry["plan"], entry["by"] == "officers"
            words = tuple(str(entry.get(key, "")) for key in ("by", "cap", "grant", "officers", "approvals"))
            if said.setdefault(plan, words) != words:
                raise Wrong(f"{where}: approved by others than an earlier entry says of the same plan")
            if not all((key in entry) is signed for key in ("grant", "officers", "approvals")):
                raise Wrong(f"{where}: approved by {entry['by']}, with other fields than that has")
            plans[entry["by"]] += 1
            if plans[entry["by"]] and not signed:
                many = [one for one, _gone in acts.get(plan, []) if _least(one["units"]) > entry.get("cap", _FREE)]
                if many and entry["by"] != "rehearsal":
                    lacking.append(f"{where}: more people than may go without officers, and none signed")
                continue
            ids, digests = entry["officers"].split(","), entry["approvals"].split(",")
            wanted.update(digests)
            if len({*ids}) != len(ids) or len(digests) != len(ids):
                raise Wrong(f"{where}: not one signature of each of {len({*ids})} different officer(s)")
            if plan in acts and len(ids) < 2:
                raise Wrong(f"{where}: one officer signed for the destruction of keys; two have to")
            begun, ended = self._times(acts.get(plan, []), entry, where)
            self._carried_out_once(entry["grant"], plan, where)
            found = set[str]()
            for digest in digests:
                name = f"approvals/{digest}.json"
                if name not in self._names():
                    lacking.append(f"{name}: not in the package")
                    continue
                by = _approval(self._read(name), name, digest, entry["grant"], keys, begun, ended)
                if by not in ids or by in found:
                    raise Wrong(f"{name}: signed by another officer than {where} says")
                found.add(by)
                if keys[by][1] not in self._officers:
                    lacking.append(
                        f"{keys[by][0]}: not a key that you brought; --trust DIR with officers/, or --officer"
                    )
        for name in self._names():
            if name.startswith("approvals/") and name[len("approvals/") : -len(".json")] not in wanted:
                raise Wrong(f"{name}: an approval that no entry speaks of")
        if lacking:
            raise Missing(lacking[0])
        if not plans["officers"]:
            raise Skip(
                "no plan needed officers, as the operator says: " + (", ".join(sorted(plans)) or "none approved")
            )
        others = sum(plans.values()) - plans["officers"]
        return f"{plans['officers']} approval(s) signed by officers, over the grants carried out; {others} needed none"

    def _acts(self) -> dict[str, list[tuple[dict[str, Any], dict[str, Any] | None]]]:
        """Return by plan the intents to destroy keys, each with each of its outcomes, where there is one."""
        outcomes: dict[int, list[dict[str, Any] | None]] = {}
        for one in self._known():
            if one["type"] == "key.destroyed":
                outcomes.setdefault(one["intent"], []).append(one)
        acts: dict[str, list[tuple[dict[str, Any], dict[str, Any] | None]]] = {}
        for index, one in enumerate(self._known()):
            if one["type"] == "erase.intended" and one["store"] == "vault" and "plan" in one:
                acts.setdefault(one["plan"], []).extend((one, gone) for gone in outcomes.get(index, [None]))
        return acts

    def _carried_out_once(self, grant: str, plan: str, where: str) -> None:
        """Check that what officers signed was carried out for this plan alone, and once: the vault's roots tell."""
        known = self._known()
        gone = [one for one in known if one["type"] == "key.destroyed" and one.get("grant") == grant]
        if any(one["intent"] >= len(known) or known[one["intent"]].get("plan") != plan for one in gone):
            raise Wrong(f"{where}: what officers signed was carried out for another plan than this")
        if len({(one["before"], one["after"]) for one in gone if one["before"] != one["after"]}) > 1:
            raise Wrong(f"{where}: what officers signed was carried out more than once")

    def _times(
        self, acts: Sequence[tuple[dict[str, Any], dict[str, Any] | None]], entry: dict[str, Any], where: str
    ) -> tuple[str, str]:
        """Return the minutes between which an approved plan was carried out: approved, where no key had to die."""
        begun = min([one["time"] for one, _gone in acts], default=entry["time"])
        ended = max([gone["time"] for _one, gone in acts if gone is not None], default=begun)
        for _one, gone in acts:
            if gone is not None and gone.get("grant") != entry["grant"]:
                raise Wrong(f"{where}: the keys were destroyed under another grant than officers signed")
        return begun, ended

    def statements(self) -> str:
        """Every statement is signed by the evidence key, canonical, and its digest stands in the ledger."""
        digests = self._digests()
        names = [name for name in self._names() if name.startswith("dsse/")]
        for name in names:
            raw = self._read(name)
            digest = hashlib.sha256(raw).hexdigest()
            if name != f"dsse/{digest}.json":
                raise Wrong(f"{name}: its name is not its SHA-256")
            statement = parse_statement(raw, self._evidence_key(), name)
            if digest not in digests:
                raise Wrong(f"{name}: its SHA-256 is in no entry of the ledger")
            for subject in statement["subject"]:
                about = subject["name"]
                if (
                    about in self._names()
                    and hashlib.sha256(self._read(about)).hexdigest() != subject["digest"]["sha256"]
                ):
                    raise Wrong(f"{name}: speaks about another {about} than the one in the package")
            self._as_validated(statement["predicate"], digest, name)
            plan = statement["predicate"].get("plan")
            if isinstance(plan, str) and re.fullmatch("[0-9a-f]{64}", plan) and plan not in self._plans():
                raise Wrong(f"{name}: names a plan that was not approved")
        if not names:
            raise Skip("no statement in the package")
        return f"{len(names)} statement(s), signed and logged"

    def _as_validated(self, said: dict[str, Any], digest: str, name: str) -> None:
        """Check that a statement of findings has the figures of the validations that name it, FAILED ones too."""
        verdicts = said.get("verdicts", {})
        for one in self._known():
            if one["type"] == "validated" and one["findings"] == digest:
                if any(said.get(key, one[key]) != one[key] for key in ("hits", "stores", "bytes", "patterns")):
                    raise Wrong(f"{name}: states other findings than the validation that names it")
                if not isinstance(verdicts, dict) or verdicts.get("FAILED", 0) != one.get("failed", 0):
                    raise Wrong(f"{name}: states that more or less FAILED than the validation that names it")

    def _covered(self) -> None:
        """Check that no validation bears more certificates, or more of any verdict, than its statement is about.

        Only where the package has the statement, and as far as it has the certificates.
        """
        resting: dict[int, list[dict[str, Any]]] = {}
        for _name, _index, one in self._kept:
            resting.setdefault(one["evidence"]["validated"], []).append(one)
        for index, those in resting.items():
            said = self._stated(self._known()[index]["findings"])
            people, verdicts = said.get("people", len(those)), said.get("verdicts")
            if not _count(people) or len(those) > people:
                raise Wrong(f"entry {index}: {len(those)} certificates rest on it, whose statement covers fewer people")
            if not isinstance(verdicts, dict):
                continue
            for verdict, many in Counter(row["verdict"] for one in those for row in one["collections"]).items():
                if not _count(verdicts.get(verdict, 0)) or many > verdicts.get(verdict, 0):
                    raise Wrong(f"entry {index}: certificates that rest on it say {verdict} oftener than its statement")

    def _stated(self, digest: str) -> dict[str, Any]:
        """Return what a statement says that stands in the ledger; nothing where it is not here, or is no statement.

        Whether it is signed, and well-formed, is said by `statements`.
        """
        name = f"dsse/{digest}.json"
        raw = self._read(name) if name in self._names() else b""
        if hashlib.sha256(raw).hexdigest() != digest:
            return {}
        try:
            said = strict_json(_base64(strict_json(raw, name)["payload"], name), name)["predicate"]
        except (Wrong, KeyError, TypeError, AttributeError):
            return {}
        return said if isinstance(said, dict) else {}

    def certificates(self) -> str:
        """Every certificate is the one that was logged, and its own figures agree."""
        known = self._known()
        names = sorted(name for name in self._names() if name.startswith("certificates/"))
        if not names:
            raise Skip("no certificate in the package")
        issued = [(index, one) for index, one in enumerate(known) if one["type"] == "certificate.issued"]
        stems = sorted({_stem(name) for name in names})
        proved: dict[str, set[int]] = {}  # receipt -> the entries that it may be for
        for stem in stems:
            name = f"{stem}.json"
            raw = self._read(name)
            digest = hashlib.sha256(raw).hexdigest()
            logged = [(index, one) for index, one in issued if one["json"] == digest]
            if not logged:
                raise Wrong(f"{name}: its SHA-256 is in no certificate.issued")
            issues = self._editions(stem, digest, logged)
            if not issues:
                raise Wrong(f"{name}: its pages were logged, but not together")
            index, entry = issues[0]
            certificate = strict_json(raw, name)
            _certificate(certificate, name)
            if certificate["number"] != stem.removeprefix("certificates/"):  # hence no certificate comes twice
                raise Wrong(f"{name}: its file name is not its number")
            proved[f"proofs/{certificate['number']}.tlog-proof"] = {i for i, _one in issues}
            if certificate["outcome"] != entry["verdict"]:
                raise Wrong(f"{name}: says {certificate['outcome']}, the ledger {entry['verdict']}")
            self._kept.append((name, index, certificate))
            self._certified(certificate, name, index)
            proof = certificate["evidence"]["proof"]
            if not proof.startswith("c2sp.org/"):
                file = proof if proof.startswith("proofs/") else f"proofs/{proof}"
                proved.setdefault(file, set()).add(certificate["evidence"]["validated"])
            self._laws.update({one["sha256"]: name for one in _listed(certificate.get("law", []))})
        self._covered()
        for index, one in enumerate(known):
            if one["type"] == "package.published":  # the receipt of a package before this one
                proved[f"proofs/package-{index}.tlog-proof"] = {index}
        for name in self._names():
            if name.startswith("proofs/") and self._receipt(self._read(name), name) not in proved.get(name, ()):
                raise Wrong(f"{name}: a receipt that is not of the certificate of that name, nor named by one")
        rehearsed = sum(one.get("rehearsal") is True for _name, _index, one in self._kept)
        said = f"; {rehearsed} OF A REHEARSAL, which prove no real erasure" if rehearsed else ""
        for outcome, words in (("partial", "more of the person is named, and stands"), ("failed", _FAILED)):
            many = sum(one["outcome"] == outcome for _name, _index, one in self._kept)
            said += f"; {many} {outcome.upper()}: {words}" if many else ""
        many = sum(
            any(r.get("method") == "LOGICAL_DELETE" for r in one["collections"]) for _name, _index, one in self._kept
        )
        said += f"; {many} where old files were not overwritten (LOGICAL_DELETE)" if many else ""
        return f"{len(stems)} certificate(s), each page logged, figures agree{said}"

    def _editions(
        self, stem: str, digest: str, logged: list[tuple[int, dict[str, Any]]]
    ) -> list[tuple[int, dict[str, Any]]]:
        """Return the entries that issued a certificate with these pages, or, once an officer accepted it, any pages.

        Each page is the one that was logged, at the issue or at the validation, and none of them lacks.
        """
        pages = {"html": f"{stem}.html"}
        if f"{stem}.pdf" in self._names() or any("pdf" in one for _index, one in logged):
            pages["pdf"] = f"{stem}.pdf"
        here = {key: hashlib.sha256(self._read(name)).hexdigest() for key, name in pages.items()}
        record = f"{stem}.validation.json"
        if record not in self._names():
            for key, page in here.items():
                if all(one.get(key) != page for _index, one in logged):
                    raise Wrong(f"{pages[key]}: its SHA-256 is not the one logged with {stem}.json")
            return [(i, one) for i, one in logged if all(one.get(key) == page for key, page in here.items())]
        signed = hashlib.sha256(self._read(record)).hexdigest()
        validated = [one for one in self._known() if one["type"] == "certificate.validated"]
        for key, page in {"statement": signed, **here}.items():
            validated = [one for one in validated if one.get(key) == page]
            if not validated:
                raise Wrong(f"{pages.get(key, record)}: its SHA-256 is not the one logged at the validation")
        self._officer(record, f"{stem.removeprefix('certificates/')}.json", digest)
        return logged

    def _officer(self, record: str, about: str, digest: str) -> None:
        """Check that an officer, by a key that the auditor brought, signed that this certificate was accepted."""
        envelope = strict_json(self._read(record), record)
        keys = self._officer_keys()
        signatures = envelope.get("signatures") if isinstance(envelope, dict) else None
        if not isinstance(signatures, list) or len(signatures) != 1 or not isinstance(signatures[0], dict):
            raise Wrong(f"{record}: expected one signature")
        name, raw = keys.get(str(signatures[0].get("keyid")), ("", b""))
        if not name:
            raise Missing(f"{record}: signed by an officer whose key is not in the package")
        statement = parse_statement(
            self._read(record), Ed25519PublicKey.from_public_bytes(bytes.fromhex(raw.decode())), record, "officer's"
        )
        if statement["subject"] != [{"name": about, "digest": {"sha256": digest}}]:
            raise Wrong(f"{record}: speaks about another certificate")
        if f"officers/{statement['predicate'].get('officer')}.pub" != name:
            raise Wrong(f"{record}: names another officer than the one whose key signed it")
        if self._trust is not None and raw not in self._officers:
            raise Missing(f"{name}: not a key that you brought; --trust DIR with officers/, or --officer")

    def _officer_keys(self) -> dict[str, tuple[str, bytes]]:
        """Return the officers' keys of the package by SHA-256: name of the file, and its content."""
        keys = {}
        for name in sorted(one for one in self._names() if one.startswith("officers/")):
            raw = self._read(name)
            if re.fullmatch(rb"[0-9a-f]{64}\n", raw) is None:
                raise Wrong(f"{name}: not an officer's public key")
            keys[hashlib.sha256(bytes.fromhex(raw.decode())).hexdigest()] = (name, raw)
        return keys

    def _certified(self, certificate: dict[str, Any], name: str, issued: int) -> None:
        """Check what a certificate says about the ledger: origin, the validation it rests on, its proof, its plan."""
        evidence, known = certificate["evidence"], self._known()
        if evidence["origin"] != self._origin():
            raise Wrong(f"{name}: names another ledger")
        index = evidence["validated"]
        if not _count(index) or index >= len(known) or known[index]["type"] != "validated":
            raise Wrong(f"{name}: entry {index} is not a validation")
        if index >= issued:
            raise Wrong(f"{name}: issued before the validation that it rests on")
        if certificate["outcome"] != "failed" and (known[index]["hits"] != 0 or known[index].get("failed", 0) != 0):
            raise Wrong(f"{name}: rests on a validation that did not hold: {known[index]['hits']} hit(s)")
        proof = evidence["proof"]
        if not isinstance(proof, str):
            raise Wrong(f"{name}: its proof is neither a file name nor a receipt")
        if proof.startswith("c2sp.org/"):
            proved = self._receipt(proof.encode(), f"{name} (proof)")
        else:
            file = _safe(proof if proof.startswith("proofs/") else f"proofs/{proof}")
            proved = self._receipt(self._read(file), file)
        if proved != index:
            raise Wrong(f"{name}: its proof is for entry {proved}, not {index}")
        for holder in (certificate, evidence):
            if "plan" in holder and str(holder["plan"]) not in self._plans():
                raise Wrong(f"{name}: names a plan that was not approved")
        before = known[:issued]
        by = {one["by"] for one in before if one["type"] == "approved"}
        if by == {"rehearsal"} and certificate.get("rehearsal") is not True:
            raise Wrong(f"{name}: every plan before it was approved as a rehearsal, and it does not say that it is one")
        if certificate["catalog"] not in [one["catalog"] for one in before if one["type"] == "request.opened"]:
            raise Wrong(f"{name}: names a catalog that no request was opened under")
        for key, kind in (("law", "law.loaded"), ("software", "code.loaded")):
            named = certificate.get(key, [])
            for one in _listed(named):
                digest = one.get("sha256") if isinstance(one, dict) else None
                if digest not in [loaded["digest"] for loaded in before if loaded["type"] == kind]:
                    raise Wrong(f"{name}: {key} with a SHA-256 that is in no {kind} before it")
        times = certificate["times"]
        if certificate["outcome"] != "failed" and (times.get("validated") or "") < known[index]["time"]:
            raise Wrong(f"{name}: validated at another time than entry {index} says")
        if times.get("received") and times.get("validated") and times["received"] > times["validated"]:
            raise Wrong(f"{name}: validated before it was received")
        self._keys_gone(certificate["keys"], before if certificate["outcome"] == "failed" else known[:index], name)
        self._canaries(certificate.get("canaries", []), name, index, issued)

    def _canaries(self, sealed: Any, name: str, validated: int, issued: int) -> None:
        """Check an auditor's canaries: committed to before the validation, and opened after it as the ledger says."""
        known = self._known()
        for one in sealed if isinstance(sealed, list) else [None]:
            if not isinstance(one, dict) or not all(_count(one.get(key)) for key in ("placements", *_PLACED)):
                raise Wrong(f"{name}: canaries without their counts")
            planted = [e["digest"] for e in known[:validated] if e["type"] == "canary.planted"]
            if one.get("commitment") not in planted:
                raise Wrong(f"{name}: canaries whose seal was not logged before the validation")
            told = [e for e in known[:issued] if e["type"] == "canary.erased" and e.get("seal") == one["commitment"]]
            if not one.get("opened"):
                if any(one[key] for key in _PLACED):
                    raise Wrong(f"{name}: canaries that were never opened, with an outcome")
                if told:
                    raise Wrong(f"{name}: canaries called unopened, and the ledger has their outcome")
                continue
            figures = {key: one[key] for key in ("placements", *_PLACED)}
            if (
                sum(one[key] for key in _PLACED) != one["placements"]
                or not any(e.get("seal") == one["commitment"] for e in known[validated:issued])
                or any({k: e.get(k) for k in figures} != figures for e in told)
            ):
                raise Wrong(f"{name}: canaries with another outcome than the ledger has")

    def _keys_gone(self, keys: Any, before: list[dict[str, Any]], name: str) -> None:
        """Check that the key store's roots before and after are those of destructions before the validation.

        The certificate counts one person's keys: no more than all that died between these roots.
        """
        if not isinstance(keys, dict) or not _count(keys.get("destroyed")):
            raise Wrong(f"{name}: keys without the count of those destroyed")
        if not keys["destroyed"]:
            return
        gone = [one for one in before if one["type"] == "key.destroyed"]
        begin = next((i for i, one in enumerate(gone) if one["before"] == keys.get("commitment_before")), len(gone))
        ends = [i for i, one in enumerate(gone) if i >= begin and one["after"] == keys.get("commitment_after")]
        if not ends:
            raise Wrong(f"{name}: keys destroyed between roots of which the ledger knows nothing before the validation")
        if keys["destroyed"] > sum(_most(one["count"]) for one in gone[begin : ends[-1] + 1]):
            raise Wrong(f"{name}: more keys destroyed than the ledger says")

    def pages(self) -> str:
        """Every certificate's HTML page is, byte for byte, what a template that is known here draws of its JSON.

        A report's page is so down to its verdict; what stands below is laid out by no template alone.
        """
        drawings: dict[str, list[Drawing]] = {"certificate": [], "report": []}
        unknown = False
        for name in sorted(one for one in self._names() if one.startswith("pages/")):
            raw = self._read(name)
            digest = hashlib.sha256(raw).hexdigest()
            if f"pages/{digest}.j2" != name:
                raise Wrong(f"{name}: its SHA-256 is not its name")
            if digest in _PAGES:
                drawings[_PAGES[digest]].append(Drawing(raw.decode()))
            unknown = unknown or digest not in _PAGES
        reports = sorted(name for name in self._names() if re.fullmatch(r"reports/[^/]+\.html", name))
        asked = [("certificate", name, document) for name, _index, document in self._kept]
        for page in reports:
            name = f"{page.removesuffix('.html')}.json"
            if name in self._names():
                asked.append(("report", name, strict_json(self._read(name), name)))
        if not asked:
            raise Skip("no page that could be compared")
        for kind, name, document in asked:
            page = f"{name.removesuffix('.json')}.html"
            record = f"{name.removesuffix('.json')}.validation.json"
            accepted = _accepted(self._read(record)) if record in self._names() else None
            values = {"digest": hashlib.sha256(self._read(name)).hexdigest(), "accepted": accepted}
            seen = self._read(page)
            try:
                shown = any(one.shows(kind, document, values, seen) for one in drawings[kind])
            except (Wrong, LookupError, TypeError, ValueError, AttributeError):
                raise Wrong(f"{name}: lacks what its page shows, or has it in another form") from None
            if not shown and (unknown or not drawings[kind]):
                raise Missing(f"{page}: drawn by a template that is not here or that this program does not know")
            if not shown:
                raise Wrong(f"{page}: shows something else than {name} says")
        said = (
            f"; {len(asked) - len(self._kept)} report page(s) down to the verdict"
            if len(asked) > len(self._kept)
            else ""
        )
        return f"{len(self._kept)} certificate page(s) drawn again from JSON: the same bytes{said}"

    def words(self) -> str:
        """Say of how many pages nobody compared what is seen on them with their JSON: of each that there is."""
        names = [name for name in self._names() if name.startswith(("certificates/", "reports/"))]
        names = [name for name in names if not re.fullmatch(r"certificates/.*\.html", name)]  # those are in `pages`
        pages = [(kind, sum(name.endswith(f".{kind}") for name in names)) for kind in ("html", "pdf", "parquet")]
        if not any(count for _kind, count in pages):
            raise Skip("no page in the package")
        said = ", ".join(f"{count} {kind}" for kind, count in pages if count)
        raise Uncompared(f"words and rows that are seen in {said}: on record, but read by nobody; the JSON counts")

    def papers(self) -> str:
        """Every signed PDF is whole, signed under the operator's CA, and carries the JSON that it shows."""
        names = sorted(name for name in self._names() if name.endswith(".pdf"))
        if not names:
            raise Skip("no PDF in the package")
        outside = (self._trust or {}).get(_CERTIFICATE_CA)
        roots = _ca_file(self._read(_CERTIFICATE_CA) if outside is None else outside, _CERTIFICATE_CA)
        tsa = (self._trust or {}).get(_TSA_CA)
        stamps = None if tsa is None else _ca_file(tsa, _TSA_CA)
        count = 0
        for name in names:
            count += len(signed_pdf(self._read(name), roots, stamps, name))
            text = self._read(f"{name.removesuffix('.pdf')}.json")
            attached = attachments(self._read(name), name, len(text) + 1)
            if attached != [text]:
                raise Wrong(f"{name}: the JSON attached to it is not the one beside it")
        return f"{len(names)} PDF(s) with {count} signature(s), none altered or added to since"

    def reports(self) -> str:
        """Every periodic report is the one that was logged and names its predecessor; no period is missing."""
        names = sorted(name for name in self._names() if name.startswith("reports/"))
        published = [one for one in self._known() if one["type"] == "report.published"]
        _no_gap(published)
        lacking = sorted({f"{name.rpartition('.')[0]}.json" for name in names} - set(names))
        for name in names:
            stem, _dot, kind = name.removeprefix("reports/").rpartition(".")
            digest = hashlib.sha256(self._read(name)).hexdigest()
            if not any(one["period"] == stem and one.get(kind) == digest for one in published):
                raise Wrong(f"{name}: its SHA-256 is in no report.published of that period")
        if lacking:
            raise Missing(f"{lacking[0]}: not in the package, and other forms of that report are")
        if not names and not published:
            raise Skip("no periodic report")
        return f"{len(published)} report(s) on record without a gap, {len(names)} file(s) of them here"

    def figures(self) -> str:
        """The figures of each periodic report are those of the entries before it and of their certificates."""
        names = sorted(name for name in self._names() if re.fullmatch(r"reports/[^/]+\.json", name))
        read = {hashlib.sha256(self._read(name)).hexdigest(): name for name in names}
        certificates = {hashlib.sha256(self._read(name)).hexdigest(): one for name, _issued, one in self._kept}
        earlier = {digest: strict_json(self._read(name), name) for digest, name in read.items()}
        lacking = ""
        for index, entry in enumerate(self._known()):
            name = read.get(entry["json"]) if entry["type"] == "report.published" else None
            if name is None:
                continue
            before, report = self._known()[:index], earlier[entry["json"]]
            whole = recount(report, before, certificates, earlier, name)
            if name != f"reports/{report['period']['id']}.json":
                raise Wrong(f"{name}: the report of another period than its name and the ledger say")
            if report.get("origin") != self._origin():
                raise Wrong(f"{name}: of another ledger")
            software = report.get("software")
            digest = software.get("sha256") if isinstance(software, dict) else None
            if digest not in [one["digest"] for one in before if one["type"] == "code.loaded"]:
                raise Wrong(f"{name}: made by a program that is in no code.loaded before it")
            if not whole:
                lacking = lacking or f"{name}: durations and records rest on certificates that are not in the package"
        if not names:
            raise Skip("no periodic report")
        if lacking:
            raise Missing(lacking)
        return (
            f"{len(names)} report(s) computed again from entries and certificates; not working days, nor who had "
            "cosigned and stamped the head of that day"
        )

    def law(self) -> str:
        """Every law file is one that the ledger says was loaded, and those that certificates name are here."""
        loaded = {one["digest"] for one in self._known() if one["type"] == "law.loaded"}
        names = [name for name in self._names() if name.startswith("law/")]
        here: set[str] = set()
        for name in names:
            digest = hashlib.sha256(self._read(name)).hexdigest()
            if digest not in loaded:
                raise Wrong(f"{name}: its SHA-256 is in no law.loaded")
            if digest in here:
                raise Wrong(f"{name}: the same law under two names")
            here.add(digest)
        for digest, name in self._laws.items():
            if digest not in here:
                raise Missing(f"{name}: names a law whose file is not in the package")
        if not names:
            raise Skip("no law file in the package")
        return f"{len(names)} law file(s), each logged before use"

    def retention(self) -> str:
        """Every date until which something is kept follows from its event and a rule that was loaded before."""
        tables = {
            hashlib.sha256(self._read(name)).hexdigest(): _retention(self._read(name), name)
            for name in self._names()
            if name.startswith("law/retention")
        }
        lacking, count = "", 0
        loaded: list[tuple[int, str]] = []  # (index, digest) of every table, oldest first
        for index, entry in enumerate(self._known()):
            if entry["type"] == "law.loaded" and entry.get("law") == "retention":
                loaded.append((index, entry["digest"]))
            if entry["type"] != "retained":
                continue
            count += 1
            where = f"entry {index}"
            rules = tables.get(loaded[-1][1]) if loaded else None
            if rules is None:
                lacking = lacking or f"{where}: kept under a table of rules that is not in the package"
            elif not (entry["until"] == "officer" or "event" in entry):
                lacking = lacking or f"{where}: does not say when what it is kept for happened"
            else:
                _follows(rules, entry["rule"], entry["class"], entry.get("event", ""), entry["until"], where)
        for name, issued, certificate in self._kept:
            before = [digest for index, digest in loaded if index < issued]
            rows = _rows_kept(certificate, name)
            for row in rows:
                count += 1
                if not before or any(one not in tables for one in before):
                    lacking = lacking or f"{name}: rests on a table of rules that is not in the package"
                elif not (row["until"] == "officer" or row.get("event")):
                    lacking = lacking or f"{name}: does not say when what it is kept for happened"
                else:
                    rules = [rule for one in before for rule in tables[one]]
                    _follows(rules, row["rule"], row["class"], row.get("event", ""), row["until"], name)
            stated = {(one["dataset"], one["collection"]): one for one in certificate["collections"]}
            for address, one in stated.items():
                here = [row for row in rows if (row["dataset"], row["collection"]) == address]
                dates, told = [row["until"] for row in here], sum(row.get("rows", 0) for row in here)
                if here and certificate["outcome"] != "failed" and one.get("rows_retained", told) != told:
                    raise Wrong(f"{name}: another number of rows is kept than its rules are listed for")
                if one["verdict"] == "RETAINED" and not dates:
                    lacking = lacking or f"{name}: a collection is RETAINED, and no rule is listed for it"
                elif one["verdict"] == "RETAINED" and one["until"] != max(dates):  # "officer" sorts after every day
                    raise Wrong(f"{name}: a collection is RETAINED until another day than its rules say")
        if lacking:
            raise Missing(lacking)
        if not count:
            raise Skip("nothing was retained")
        return f"{count} date(s) until which something is kept follow from the rules that were loaded before"

    def calendar(self) -> str:
        """Every calendar of working days is one that the ledger says was loaded."""
        loaded = {one["digest"] for one in self._known() if one["type"] == "calendar.loaded"}
        names = [name for name in self._names() if name.startswith("calendars/")]
        for name in names:
            if hashlib.sha256(self._read(name)).hexdigest() not in loaded:
                raise Wrong(f"{name}: its SHA-256 is in no calendar.loaded")
        if not names:
            raise Skip("no calendar in the package")
        return f"{len(names)} calendar(s), each logged"

    def code(self) -> str:
        """The list of code digests is the one that the ledger holds."""
        loaded = [(i, one) for i, one in enumerate(self._known()) if one["type"] == "code.loaded"]
        text = "".join(f"{index} {one['digest']} {one.get('tree', '-')}\n" for index, one in loaded)
        if self._read("code-digests.txt") != text.encode():
            raise Wrong("code-digests.txt: not the code.loaded entries of the ledger")
        if not loaded:
            raise Missing("the ledger does not say which code ran (no code.loaded)")
        return f"{len(loaded)} version(s) of the code are on record"

    def challenge(self) -> str:
        """Every entry that the auditor's challenge draws is answered with its certificate and its receipt.

        The draw: seed = SHA-256("fangxin/challenge/1" || 0x0A || checkpoint body || nonce); of the entries that end a
        request in that period, those with the smallest SHA-256(seed || index as 8 bytes). The operator chose neither.
        """
        if self._challenge is None and "challenge.json" not in self._names():
            raise Skip("no challenge: the operator chose what is in this package")
        if self._challenge is not None and self._read("challenge.json") != self._challenge:
            raise Wrong("challenge.json: the package answers another challenge than the one you brought")
        asked = _challenge(self._read("challenge.json"))
        at = parse_checkpoint(asked["checkpoint"].encode(), self._log_keys(), "challenge.json")
        if at.size > self._signed().size or self._grown().root(at.size) != at.root:
            raise Wrong("challenge.json: its checkpoint is of another tree")
        known = self._known()
        drawn = draw(asked, known[: at.size], at)
        here = {hashlib.sha256(self._read(name)).hexdigest() for name in self._names() if "certificates/" in name}
        lacking = [index for index in drawn if known[index].get("json", "") not in here]
        if lacking:
            raise Wrong(
                f"{len(lacking)} of the {len(drawn)} entries drawn have no certificate here, first {lacking[0]}"
            )
        proved = {self._receipt(self._read(name), name) for name in self._names() if name.startswith("proofs/")}
        for index in drawn:
            if index not in proved:
                raise Wrong(f"entry {index} was drawn, and its receipt is not here")
        if self._challenge is None:
            raise Missing(f"{len(drawn)} entries answered, but by the package's own challenge: bring --challenge")
        return f"all {len(drawn)} entries that your challenge draws are answered"

    def mine(self) -> str:
        """With the receipt secret: these entries are the holder's."""
        if self._secret is None:
            raise Skip("no --secret given")
        secret, selectors = self._secret
        known = self._known()
        tags = {hmac.new(secret, b"tag" + struct.pack(">Q", i), "sha256").hexdigest()[:32]: i for i in range(4096)}
        found = [(index, one) for index, one in enumerate(known) if one.get("tag") in tags]
        opened = [one for _index, one in found if one["type"] == "request.opened"]
        if len(opened) != 1:
            raise Wrong("no request in this ledger was opened with that secret")
        late = _regret([(index, one, "") for index, one in found])
        if late:
            raise Missing(late)
        if not selectors:
            raise Missing(f"{len(found)} entries are yours; add kind=value lines to check whom the request names")
        text = json.dumps(sorted(selectors), separators=(",", ":"), ensure_ascii=False).encode()
        if hmac.new(secret, b"subject" + text, "sha256").hexdigest() != opened[0]["commitment"]:
            raise Wrong("the request was opened for other identities than those given")
        return "yours: " + ", ".join(f"{index} {one['type']}" for index, one in found)

    # -------------------------------------------------------- what earlier checks established

    def _names(self) -> list[str]:
        if self._files is None:
            raise Missing(_UNREAD)
        return list(self._files)

    def _read(self, name: str) -> bytes:
        if self._files is None:
            raise Missing(_UNREAD)
        if name not in self._files:
            raise Missing(f"{name}: not in the package")
        found = self._files[name]
        if isinstance(found, bytes):
            return found
        try:
            return _plain(found, _MOST_MEMBER)
        except (OSError, ValueError) as error:
            raise Missing(f"{name}: {_why(error)}") from None

    def _log_keys(self) -> list[VKey]:
        if not self._vkeys:
            raise Missing("there is no log key to check with")
        return self._vkeys

    def _origin(self) -> str:
        return self._log_keys()[0].name

    def _evidence_key(self) -> Ed25519PublicKey:
        if self._evidence is None:
            raise Missing("there is no evidence key to check with")
        return self._evidence

    def _policy(self) -> dict[str, Any]:
        policy = strict_json(self._read("policy.json"), "policy.json")
        if not isinstance(policy, dict) or not _count(policy.get("quorum")):
            raise Wrong("policy.json: expected an object with a quorum")
        return policy

    def _signed(self) -> Checkpoint:
        if self._head is None:
            raise Missing("there is no checkpoint to build on")
        return self._head

    def _grown(self) -> Tree:
        if self._tree is None:
            raise Missing("the tree does not lead to a signed root")
        return self._tree

    def _known(self) -> list[dict[str, Any]]:
        if self._entries is None:
            raise Missing("the entries could not be read")
        return self._entries

    def _plans(self) -> set[str]:
        return {one["plan"] for one in self._known() if one["type"] == "approved"}

    def _digests(self) -> set[str]:
        return {value for one in self._known() for value in one.values() if isinstance(value, str) and len(value) == 64}


# ---------------------------------------------------------------- certificates and entries


_FORMATS = ("fangxin/certificate/1", "fangxin/certificate/2")
_PLACED = ("erased", "retained", "reported", "missed")  # what a placement of an auditor's canary may come to
_FAILED = "found again, or what became of old files could not be shown; each says why, and claims nothing of it"
_VERDICTS = ("ERASED", "NOT_PRESENT", "RETAINED", "FAILED", "OUT_OF_SCOPE")
_CERTIFICATE = frozenset(
    {"format", "number", "request", "batch", "outcome", "times", "collections", "keys", "retained", "shared"}
    | {"mentions", "copies", "limits", "evidence", "software", "catalog"}
)
_FIGURES = frozenset(
    {"rows_found", "rows_erased", "rows_retained", "values_masked", "rows_residual", "baseline_hits", "hits_after"}
    | {"hits_explained", "bytes_read", "bytes_overwritten"}
)


def _certificate(certificate: Any, name: str) -> None:
    """Check a certificate's own figures against each other."""
    if not isinstance(certificate, dict) or certificate.get("format") not in _FORMATS:
        raise Wrong(f"{name}: not a certificate of the format {' or '.join(_FORMATS)}")
    for key in sorted(_CERTIFICATE):
        if key not in certificate:
            raise Wrong(f"{name}: {key} is missing")
    times = certificate["times"]
    if not isinstance(times, dict) or not all(one is None or _moment(one) for one in times.values()):
        raise Wrong(f"{name}: times that are none")
    evidence = certificate["evidence"]
    if not isinstance(evidence, dict) or not {"origin", "validated", "proof"} <= evidence.keys():
        raise Wrong(f"{name}: evidence lacks origin, validated or proof")
    if not isinstance(certificate.get("rehearsal", False), bool):
        raise Wrong(f"{name}: neither of a rehearsal nor not")
    collections = certificate["collections"]
    if not isinstance(collections, list) or not collections:
        raise Wrong(f"{name}: no collections")
    addresses = set()
    for one in collections:
        if not isinstance(one, dict) or one.get("verdict") not in _VERDICTS:
            raise Wrong(f"{name}: a collection without one of the verdicts {', '.join(_VERDICTS)}")
        if not all(isinstance(one.get(key), str) and one[key] for key in ("dataset", "collection", "store")):
            raise Wrong(f"{name}: a collection without dataset, collection or store")
        address = f"{one['dataset']}/{one['collection']}"
        if address in addresses:
            raise Wrong(f"{name}: two verdicts for {address}")
        addresses.add(address)
        _collection(one, f"{name}: {address}")
    verdicts = {one["verdict"] for one in collections}
    outcome = certificate["outcome"]
    if outcome not in ("erased", "erased_with_retention", "partial", "failed"):
        raise Wrong(f"{name}: unknown outcome")
    if outcome != "failed" and "FAILED" in verdicts:
        raise Wrong(f"{name}: outcome {outcome}, but a collection FAILED")
    outside = certificate.get("outside", [])
    if not isinstance(outside, list) or (outcome in ("erased", "erased_with_retention") and outside):
        raise Wrong(f"{name}: outcome {outcome}, but the subject stands outside the catalog")
    if outcome == "partial" and not outside:
        raise Wrong(f"{name}: outcome partial, and no place outside the catalog")
    if outcome == "erased" and "RETAINED" in verdicts:
        raise Wrong(f"{name}: outcome erased, but a collection is RETAINED")
    if outcome == "erased_with_retention" and "RETAINED" not in verdicts:
        raise Wrong(f"{name}: outcome erased_with_retention, but no collection is RETAINED")


def _collection(one: dict[str, Any], where: str) -> None:
    """Check one collection's figures: each verdict has what it needs."""
    for key in sorted(_FIGURES):
        if key in one and not _count(one[key]):
            raise Wrong(f"{where}: {key} is not a count")
    verdict = one["verdict"]
    if verdict == "ERASED":
        for key, good in (
            ("baseline_hits", _count(one.get("baseline_hits")) and one["baseline_hits"] > 0),
            ("hits_after", _count(one.get("hits_after")) and one["hits_after"] == 0),
            ("rows_residual", _count(one.get("rows_residual")) and one["rows_residual"] == 0),
        ):
            if not good:
                raise Wrong(f"{where}: ERASED, but {key} is {_shown(one.get(key))}")
        if not isinstance(one.get("method"), str) or not one["method"]:
            raise Wrong(f"{where}: ERASED, but no method says how")
        if one.get("rows_retained", 0) != 0:
            raise Wrong(f"{where}: ERASED, but rows of it are kept")
    if verdict in ("ERASED", "NOT_PRESENT", "RETAINED") and (
        one.get("not_examinable") or one.get("units_read") != one.get("units_expected")
    ):
        raise Wrong(f"{where}: {verdict}, but a part of it was not read")
    if verdict == "NOT_PRESENT":
        found = one.get("canary_found")
        if found is not True and (not _count(found) or found == 0):
            raise Wrong(f"{where}: NOT_PRESENT, but its canary was not found")
        if any(one.get(key, 0) != 0 for key in ("rows_found", "rows_erased", "rows_retained", "hits_after")):
            raise Wrong(f"{where}: NOT_PRESENT, but something was found")
    elif verdict == "RETAINED":
        for key in ("ground", "until"):
            if not isinstance(one.get(key), str) or not one[key]:
                raise Wrong(f"{where}: RETAINED without {key}")
        if one.get("rows_residual", 0) != 0 or one.get("hits_after", 0) != 0:
            raise Wrong(f"{where}: RETAINED, but something unexplained remains")
    elif verdict in ("FAILED", "OUT_OF_SCOPE") and not (isinstance(one.get("reason"), str) and one["reason"]):
        raise Wrong(f"{where}: {verdict} without a reason")
    elif verdict == "FAILED" and one.get("claim"):
        raise Wrong(f"{where}: FAILED, and a claim beside it")


@dataclass(frozen=True)
class Rule:
    """One rule of a law as far as it keeps something: `keep` is a period of one unit (Y, M, D) after the event."""

    id: str
    classes: tuple[str, ...]
    begins: str
    ends: str
    keep: tuple[int, str]

    def days(self, event: str) -> tuple[str, str]:
        """Return the first and the last day on which the period after an event can end; the event is a day or a month.

        The event's own day does not count; months and years end on the same date, or at the month's end.
        """
        count, unit = self.keep
        year, month = int(event[:4]), int(event[5:7])
        own = [int(event[8:])] * 2 if len(event) == 10 else [1, monthrange(year, month)[1]]
        if unit == "D":
            ends = [date(year, month, day) + timedelta(days=count) for day in own]
        else:
            year, month = divmod(year * 12 + month - 1 + count * (12 if unit == "Y" else 1), 12)
            ends = [date(year, month + 1, min(day, monthrange(year, month + 1)[1])) for day in own]
        return ends[0].isoformat(), ends[1].isoformat()


def _retention(raw: bytes, name: str) -> list[Rule]:
    """Return the rules of a table, each with exactly its fields."""
    table = strict_json(raw, name)
    if not isinstance(table, dict) or table.keys() != {"format", "rules"} or table["format"] != "fangxin/retention/1":
        raise Wrong(f"{name}: not a table of rules of the format fangxin/retention/1")
    found = []
    for one in table["rules"] if isinstance(table["rules"], list) else [None]:
        needed = {"law", "id", "classes", "begins", "keep", "from"}
        if not isinstance(one, dict) or not needed <= one.keys() <= needed | {"ends"}:
            raise Wrong(f"{name}: a rule with other fields than its own")
        classes, period = one["classes"], re.fullmatch(r"P([1-9][0-9]{0,3})([YMD])", str(one["keep"]), re.ASCII)
        texts = [value for key, value in one.items() if key != "classes"]
        texts += classes if isinstance(classes, list) else [None]
        days = [one["begins"], one.get("ends", one["begins"])]
        if not all(isinstance(text, str) for text in texts) or period is None or not all(map(_day, days)):
            raise Wrong(f"{name}: a rule with a malformed field")
        found.append(
            Rule(one["id"], tuple(classes), days[0], one.get("ends", "9999-12-31"), (int(period[1]), period[2]))
        )
    return found


def _day(text: str) -> bool:
    """Tell whether a text is a day of the calendar, as we write it."""
    try:
        return re.fullmatch("[12][0-9]{3}-[0-9]{2}-[0-9]{2}", text, re.ASCII) is not None and bool(
            date.fromisoformat(text)
        )
    except ValueError:
        return False


def _regret(entries: Sequence[tuple[int, dict[str, Any], str]]) -> str:
    """Check that days of regret were kept: entries as (index, entry, what tells whose it is), oldest first.

    Unless waived they end no earlier than the seal said, 7 x 24 h after it. The entry of a seal comes with it or after
    it: one that came up to a day late leaves open whether they lasted as long; what to say of that is returned.
    """
    sealed: dict[str, dict[str, Any]] = {}
    late, whole = "", timedelta(days=7)
    for index, entry, whose in entries:
        kind = entry["type"]
        if kind == "sealed":
            sealed[whose] = entry
        elif kind == "restored":
            sealed.pop(whose, None)
        elif kind == "regret.ended" and whose in sealed and "waived" not in entry:
            seal = sealed.pop(whose)
            logged, until, ended = (_instant(text) for text in (seal["time"], seal["until"], entry["time"]))
            if ended < until:
                raise Wrong(f"entry {index}: days of regret ended before the seal said, and nobody waived them")
            if until - logged < whole - timedelta(days=1):
                raise Wrong(f"entry {index}: less than 7 x 24 h of regret, and nobody waived them")
            if ended - logged < whole - timedelta(minutes=1):  # both are whole minutes
                late = late or f"entry {index}: the seal was logged late; whether regret lasted 7 x 24 h is not shown"
    return late


def _moment(text: object) -> bool:
    """Tell whether this is a minute of the calendar, as we write it."""
    try:
        return isinstance(text, str) and re.fullmatch(_TIME, text, re.ASCII) is not None and bool(_instant(text))
    except ValueError:
        return False


def _instant(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M%z")


_FREE = 20  # people that need no officer, whatever an entry says


def _least(band: str) -> int:
    return int(band.partition("-")[0])


def _most(band: str) -> int:
    return int(band.rpartition("-")[2])


def _band(count: int) -> str:
    """Return the band in which a count lies: 0, 1-4, 5-19, 20-99, and from there on by its digits."""
    for low, high in ((1, 4), (5, 19), (20, 99)):
        if count <= high:
            return f"{low}-{high}" if count > 0 else "0"
    digits = len(str(count))
    return f"{10 ** (digits - 1)}-{10**digits - 1}"


def _approval(
    raw: bytes, name: str, digest: str, grant: str, keys: dict[str, tuple[str, bytes]], begun: str, ended: str
) -> str:
    """Check an officer's signature under a grant, and return the SHA-256 of the officer's key.

    It has to be good at some minute between `begun` and `ended`, the last one an hour later than it was signed where
    keys died; what an outcome that was logged late leaves open is the vault's word.
    """
    if hashlib.sha256(raw).hexdigest() != digest:
        raise Wrong(f"{name}: its name is not its SHA-256")
    said = strict_json(raw, name)
    fields = {
        "grant": _HASH,
        "officer": r"\w{1,64}",
        "signed": _SECOND,
        "expires": _SECOND,
        "signature": "[0-9a-f]{128}",
    }
    if not isinstance(said, dict) or said.keys() != {"format", *fields} or said["format"] != "fangxin/approval/1":
        raise Wrong(f"{name}: not an approval of the format fangxin/approval/1")
    if not all(isinstance(said[key], str) and re.fullmatch(fits, said[key], re.ASCII) for key, fits in fields.items()):
        raise Wrong(f"{name}: an approval with a malformed field")
    if said["grant"] != grant:
        raise Wrong(f"{name}: signed for another plan")
    message = {"plan": grant, **{key: said[key] for key in ("officer", "signed", "expires")}}
    signed = b"fangxin/approval/1\n" + json.dumps(message, sort_keys=True, separators=(",", ":")).encode()
    for by, (_file, key) in keys.items():
        try:
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.decode())).verify(
                bytes.fromhex(said["signature"]), signed
            )
        except InvalidSignature:
            continue
        if said["signed"][:16] > ended[:16] or said["expires"][:16] < begun[:16]:
            raise Wrong(f"{name}: not good when the plan was carried out")
        return by
    raise Wrong(f"{name}: signed by nobody whose key is in officers/, or changed since")


# ------------------------------------------------------------ pages, drawn again

# The templates of certificates' pages that were ever issued with, by the SHA-256 of their text.
_PAGES = {
    "0e08326b708575c04590d4e412054e0ad2f72a3ecdc7ce98fed66329f6bedca6": "certificate",
    "8df7fef9f5095e89e0757a2fbbb11674e9de95a08d317851dbf2c828a2827903": "certificate",
    "8da3e5c2ab894ac593918a1d916a5c504b6afa24ba82012f9aece94b7b061c06": "certificate",
    "2192c6afb539e1d6111759725d5c7e3c3586a010e8d7c459e3d4746796b06e6f": "report",
}
_Value = Any  # Any: a JSON value, or what a template makes of some
_Said = Callable[[dict[str, _Value]], _Value]
# The tags of a report's sections: none that could hide or deny what stands above them.
_TAG_OF_SECTION = re.compile(
    rb"</?(?:h2|p|b|span|br|code|small|div|ul|li|dl|dt|dd|table|thead|tbody|tr|th|td|figure|figcaption|svg|path|"
    rb"rect|text)"
    rb'(?: (?:lang="en"|class="(?:n|facts|figures|limits|scroll)"|(?:xmlns|role|aria-label|viewBox|width|height|x|y|rx|'
    rb'd|fill|opacity|stroke|stroke-width|text-anchor|font-size|font-family)="[^"<>]*"))*/?>'
)
_BLOCK = re.compile(r"(\{\{.*?\}\}|\{%.*?%\})", re.DOTALL)


class _Drawn(str):
    """Text that a template has drawn already, and that is not escaped again."""

    __slots__ = ()


class Drawing:
    """A page's template, read by the few rules of Jinja2 that ours uses: set, macro, for, if, and expressions.

    Only for text whose digest is known: a template decides what a page says, so an unknown one decides nothing.
    """

    def __init__(self, text: str) -> None:
        """Read the text; Wrong for a construct that has no rule here."""
        text = re.sub(r"(?m)^[ \t]+(?=\{%)", "", text)
        self._pieces = _BLOCK.split(re.sub(r"%\}\n", "%}", text))
        self._at = 0
        self._parts, _end = self._until(())

    def shows(self, kind: str, document: dict[str, Any], values: dict[str, _Value], page: bytes) -> bool:
        """Say whether a page is what its JSON gives: a certificate's as a whole, a report's but for its sections."""
        if kind == "certificate":
            return self.page(document, values).encode() == page
        head, end = self.report(document, values)
        inside = page[len(head) : len(page) - len(end)]
        whole = len(page) >= len(head) + len(end) and page.startswith(head) and page.endswith(end)
        return whole and all(map(_TAG_OF_SECTION.fullmatch, re.findall(rb"<[^>]*>?", inside)))

    def report(self, report: dict[str, Any], values: dict[str, _Value]) -> tuple[bytes, bytes]:
        """Draw a report's page without its sections: what stands above them, and below."""
        told = {key: report[key] for key in ("period", "preview", "rehearsal", "origin")}
        told |= {"verdict": {"kind": report["verdict"]}, "version": report["software"]["version"], "sections": []}
        head, footer, end = _joined(self._parts, {**told, **values}).partition("<footer>")
        return head.encode(), f"{footer}{end}".encode()

    def page(self, certificate: dict[str, Any], values: dict[str, _Value]) -> str:
        """Draw a certificate; whatever its fields lack ends in LookupError, TypeError or ValueError."""
        rows = certificate["collections"]
        said: dict[tuple[str, str], list[str]] = {}
        for row in rows:
            if row["method"] and row["verdict"] != "FAILED":
                said.setdefault(_claim(row), []).append(f"{row['dataset']}/{row['collection']}")
        env = {
            "c": certificate,
            "total": {key: sum(row[key] for row in rows) for key in _TOTALS},
            "verdicts": {one: sum(row["verdict"] == one for row in rows) for one in _VERDICTS},
            "methods": [{"key": key, "why": why, "where": where} for (key, why), where in said.items()],
            **values,
        }
        return _joined(self._parts, env)

    def _until(self, ends: tuple[str, ...]) -> tuple[list[_Said], str]:
        """Read parts up to one of these tags; return them and the tag that ended them, or nothing at the end."""
        parts: list[_Said] = []
        while self._at < len(self._pieces):
            piece = self._pieces[self._at]
            self._at += 1
            if piece.startswith("{{"):
                parts.append(_printed(_expression(piece[2:-2])))
            elif piece.startswith("{%"):
                tag = piece[2:-2].strip()
                word = tag.partition(" ")[0]
                if word in ends:
                    return parts, tag
                parts.append(self._tag(word, tag.partition(" ")[2]))
            elif piece:
                parts.append(_plainly(piece))
        if ends:
            raise Wrong(f"a page's template: ends before {ends[-1]}")
        return parts, ""

    def _tag(self, word: str, rest: str) -> _Said:
        if word == "set":
            name, _equals, value = rest.partition("=")
            return _assigned(name.strip(), _expression(value))
        if word == "if":
            cases = [(_expression(rest), *self._until(("elif", "else", "endif")))]
            while not cases[-1][2].startswith("endif"):
                kind, _space, condition = cases[-1][2].partition(" ")
                when = _expression(condition) if kind == "elif" else lambda _env: True
                cases.append((when, *self._until(("elif", "else", "endif"))))
            return lambda env: next((_joined(parts, env) for when, parts, _end in cases if when(env)), "")
        if word == "for":
            each, _in, several = rest.partition(" in ")
            body, end = self._until(("else", "endfor"))
            otherwise = self._until(("endfor",))[0] if end == "else" else []
            return _repeated([one.strip() for one in each.split(",")], _expression(several), body, otherwise)
        match = re.fullmatch(r"([a-z_]+)\(([a-z_, ]*)\)", rest)
        if word != "macro" or match is None:
            raise Wrong(f"a page's template: no rule for {word}")
        body, _end = self._until(("endmacro",))
        names = [one.strip() for one in match[2].split(",")]
        name = match[1]

        def define(env: dict[str, _Value]) -> str:
            env[name] = lambda *given: _Drawn(_joined(body, {**env, **dict(zip(names, given, strict=True))}))
            return ""

        return define


def _plainly(text: str) -> _Said:
    return lambda _env: text


def _joined(parts: Sequence[_Said], env: dict[str, _Value]) -> str:
    return "".join([part(env) for part in parts])


def _printed(value: _Said) -> _Said:
    def show(env: dict[str, _Value]) -> str:
        found = value(env)
        return found if isinstance(found, _Drawn) else _escaped(str(found))

    return show


def _escaped(text: str) -> str:
    for char, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("'", "&#39;"), ('"', "&#34;")):
        text = text.replace(char, name)
    return text


def _assigned(name: str, value: _Said) -> _Said:
    def assign(env: dict[str, _Value]) -> str:
        env[name] = value(env)
        return ""

    return assign


def _repeated(names: list[str], several: _Said, body: list[_Said], otherwise: list[_Said]) -> _Said:
    def repeat(env: dict[str, _Value]) -> str:
        found = several(env)
        each = ([one] if len(names) == 1 else one for one in found)
        drawn = [_joined(body, {**env, **dict(zip(names, one, strict=True))}) for one in each]
        return "".join(drawn) if drawn else _joined(otherwise, env)

    return repeat


def _expression(text: str) -> _Said:
    """Read an expression of a template: of Python's grammar, where `|` asks for a filter."""
    try:
        return _meant(ast.parse(text.strip(), mode="eval").body)
    except SyntaxError:
        raise Wrong("a page's template: an expression that has no rule") from None


def _meant(node: ast.expr) -> _Said:  # noqa: PLR0911 - one line for each kind of expression
    """Say what an expression comes to in an environment; Wrong for a kind that no template of ours has."""
    match node:
        case ast.Constant(value=value):
            return lambda _env: value
        case ast.Name(id="none"):
            return lambda _env: None
        case ast.Name(id=name):
            return lambda env: env[name]
        case ast.Attribute(value=holder, attr=key):
            of = _meant(holder)
            return lambda env: of(env)[key]
        case ast.Subscript(value=holder, slice=ast.Slice(lower=None, upper=ast.expr() as upper, step=None)):
            of, most = _meant(holder), _meant(upper)
            return lambda env: of(env)[: most(env)]
        case ast.Subscript(value=holder, slice=key):
            of, at = _meant(holder), _meant(key)
            return lambda env: of(env)[at(env)]
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            each = [_meant(one) for one in parts]
            return lambda env: [one(env) for one in each]
        case ast.Dict(keys=keys, values=values):
            pairs = [(_meant(k), _meant(v)) for k, v in zip(keys, values, strict=True) if k is not None]
            return lambda env: {key(env): value(env) for key, value in pairs}
        case ast.BinOp(left=left, op=ast.BitOr(), right=ast.Name(id=name)):
            of = _meant(left)
            return lambda env: _FILTERS[name](of(env))
        case ast.BinOp(left=left, op=ast.BitOr(), right=ast.Call(func=ast.Name(id=name), args=[argument])):
            of, more = _meant(left), _meant(argument)
            return lambda env: _FILTERS[name](of(env), more(env))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _SUMS:
            of, by, work = _meant(left), _meant(right), _SUMS[type(op)]
            return lambda env: work(of(env), by(env))
        case ast.BoolOp(op=ast.And(), values=[first, second]):
            of, by = _meant(first), _meant(second)
            return lambda env: of(env) and by(env)
        case ast.BoolOp(op=ast.Or(), values=[first, second]):
            of, by = _meant(first), _meant(second)
            return lambda env: of(env) or by(env)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            of = _meant(operand)
            return lambda env: not of(env)
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _ASKED:
            of, by, ask = _meant(left), _meant(right), _ASKED[type(op)]
            return lambda env: ask(of(env), by(env))
        case ast.IfExp(test=test, body=body, orelse=orelse):
            when, then, other = _meant(test), _meant(body), _meant(orelse)
            return lambda env: then(env) if when(env) else other(env)
        case ast.Call(func=ast.Attribute(value=holder, attr="get"), args=[ast.Constant(value=key)]):
            of = _meant(holder)
            return lambda env: of(env).get(key)
        case ast.Call(func=ast.Attribute(value=holder, attr="split"), args=[ast.Constant(value=key)]):
            of = _meant(holder)
            return lambda env: of(env).split(key)
        case ast.Call(func=ast.Name(id=name), args=arguments):
            given = [_meant(one) for one in arguments]
            return lambda env: env[name](*(one(env) for one in given))
    raise Wrong(f"a page's template: no rule for {type(node).__name__}")


def _number(n: int) -> str:
    return f"{n:,}".replace(",", "\u202f")


def _size(n: int) -> str:
    for unit, shift in (("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if n >= 1 << shift:
            tenths = n * 10 >> shift
            return f"{_number(tenths // 10)}.{tenths % 10} {unit}"
    return f"{n} B"


_FILTERS: dict[str, Callable[..., _Value]] = {
    "number": _number,
    "size": _size,
    "length": len,
    "max": max,
    "join": lambda parts, by: by.join(parts),
    "codes": lambda listed: [one for one in listed.split(", ") if one],
    "filled": lambda words, why: words.replace("{why}", why),
}
_SUMS: dict[type, Callable[..., _Value]] = {
    ast.Add: operator.add,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}
_ASKED: dict[type, Callable[..., _Value]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Is: operator.is_,
    ast.In: lambda one, several: one in several,
}
_TOTALS = (
    "rows_found", "rows_erased", "rows_retained", "values_masked", "rows_shared", "rows_mentioned", "baseline_hits",
    "hits_after", "hits_explained", "bytes_overwritten", "bytes_read",
)  # fmt: skip


def _claim(row: dict[str, Any]) -> tuple[str, str]:
    """Say which words a page has for what was done to a collection's bytes, and the reason in them."""
    if row["method"] == "OVERWRITE":
        weak = r"\b(?:non-rotational|not rotational|solid|ssd|nvme|flash|virtual|thin|addressable|unknown)\b"
        disk = re.search(r"\b(?:rotational|disk|extents)\b", row["claim"], re.IGNORECASE)
        return ("blocks" if re.search(weak, row["claim"], re.IGNORECASE) or not disk else "extents"), ""
    if row["method"] == "LOGICAL_DELETE":
        return "logical", row["reason"] or "the medium refused"
    return {"CRYPTOGRAPHIC_ERASE": "cryptographic", "EXPIRY": "expiry"}[row["method"]], ""


def _accepted(record: bytes) -> dict[str, str]:
    """Return what a page shows of an officer's statement, whose signature `certificates` has checked."""
    envelope = json.loads(record)
    told = json.loads(base64.b64decode(envelope["payload"]))["predicate"]
    key, digest = envelope["signatures"][0]["keyid"], hashlib.sha256(record).hexdigest()
    return {"officer": told["officer"], "signed": told["signed"], "key": key, "digest": digest}


def _rows_kept(certificate: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return what a certificate says is kept by law, its fields being texts and its dates days."""
    rows = certificate["retained"]
    for row in rows if isinstance(rows, list) else [None]:
        texts = ("dataset", "collection", "class", "rule", "until")
        if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in texts):
            raise Wrong(f"{name}: retained without dataset, collection, class, rule or date")
        if not _count(row.get("rows", 0)):
            raise Wrong(f"{name}: retained rows without their count")
        event = row.get("event", "")
        if not isinstance(event, str) or not (row["until"] == "officer" or _day(row["until"])):
            raise Wrong(f"{name}: retained until a day that does not exist")
        if event and not _day(event):
            raise Wrong(f"{name}: retained from a day that does not exist")
    return list(rows)


def _follows(rules: Sequence[Rule], rule: str, classes: str, event: str, until: str, where: str) -> None:
    """Check a date against the rule that it names; `event` and `until` are both days, or both months.

    The rule is the one that keeps longest; other classes of the same rows may be kept under others of the table.
    """
    named = [one for one in rules if one.id == rule and not set(classes.split(",")).isdisjoint(one.classes)]
    if not named or not {*classes.split(",")} <= {known for one in rules for known in one.classes}:
        raise Wrong(f"{where}: kept under a rule that is in no law loaded before it, or not for that class")
    if until == "officer":
        if event:
            raise Wrong(f"{where}: an officer decides, though the day of its event is known")
        return
    for one in named:
        long = len(event)
        if not one.begins[:long] <= event <= one.ends[:long]:
            continue
        try:
            first, last = one.days(event)
        except (ValueError, OverflowError):  # before the year 1, or after 9999
            continue
        if first[:long] <= until <= last[:long]:
            return
    raise Wrong(f"{where}: kept until another date than its rule gives")


def _stem(name: str) -> str:
    """Return a certificate's name without what says which of its pages this is."""
    for end in (".validation.json", ".json", ".html", ".pdf"):
        if name.endswith(end):
            return name.removesuffix(end)
    raise Wrong(f"{name}: neither a certificate nor one of its pages")


def _listed(named: Any) -> list[Any]:
    return named if isinstance(named, list) else [named]


def _count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _shown(value: object) -> str:
    return str(value) if _count(value) else "no count"


_CODE = r"[A-Za-z0-9][A-Za-z0-9._:/+-]{0,63}"
_CODES = rf"{_CODE}(?:,{_CODE})*"
_TAG, _HASH, _INT = r"[0-9a-f]{32}", r"[0-9a-f]{64}", "an integer"
_SEVERAL = rf"{_HASH}(?:,{_HASH})*"
_SHOP = r"s-[0-9]{2,4}"
_BAND = r"0|1-4|5-19|20-99|10{2,17}-9{3,18}"
_MONTH = "[0-9]{4}-(?:0[1-9]|1[0-2])"
_UNTIL = f"{_MONTH}|officer"
_TIME = "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]Z"
_SECOND = "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9]Z"
_ORIGIN = "[A-Za-z0-9][A-Za-z0-9._:/-]{0,254}"
_VKEY = rf"{_ORIGIN}\+[0-9a-f]{{8}}\+[A-Za-z0-9+/]{{44}}"
_DONE = {
    "tag": _TAG,
    "intent": _INT,
    "store": rf"{_SHOP}|vault",
    "units": _BAND,
    "method": "OVERWRITE|CRYPTOGRAPHIC_ERASE|LOGICAL_DELETE|EXPIRY",
    "bytes": _BAND,
    "fs": _CODE,
    "digest": _HASH,
}
_TYPES: dict[str, dict[str, str]] = {  # a field with "?" may be absent
    "request.opened": {
        "tag": _TAG,
        "commitment": _HASH,
        "law": _CODES,
        "promise": _CODE,
        "catalog": _HASH,
    },
    "request.verified": {"tag": _TAG, "level": _CODE},
    "request.refused": {"tag": _TAG, "reason": _CODE},
    "request.withdrawn": {"tag": _TAG},
    "settled": {"tag": _TAG, "kind": _CODE, "disposition": _CODE, "digest": _HASH, "late?": _INT, "reason?": _CODE},
    "located": {
        "tag": _TAG,
        "counts": rf"(?:{_SHOP}:(?:{_BAND})(?:,{_SHOP}:(?:{_BAND}))*)?",
        "baseline": _HASH,
    },
    "exported": {"tag": _TAG, "manifest": _HASH},
    "approved": {
        "tag": _TAG,
        "plan": _HASH,
        "by": "officers|request|timer|rehearsal",
        "cap?": _INT,
        "grant?": _HASH,
        "officers?": _SEVERAL,
        "approvals?": _SEVERAL,
    },
    "retained": {"tag": _TAG, "rule": _CODE, "class": _CODES, "until": _UNTIL, "event?": _MONTH, "seal?": _HASH},
    "sealed": {"tag": _TAG, "until": _TIME},
    "restored": {"tag": _TAG},
    "regret.ended": {"tag": _TAG, "waived?": _CODE},
    "law.loaded": {"digest": _HASH, "law?": _CODE},
    "calendar.loaded": {"digest": _HASH, "calendar": _CODE},
    "keys.loaded": {"evidence": _HASH, "certificates?": _HASH},
    "code.loaded": {"digest": _HASH, "tree?": "[0-9a-f]{40}|[0-9a-f]{64}"},
    "key.committed": {"root": _HASH},
    "erase.intended": {"tag": _TAG, "store": rf"{_SHOP}|vault", "units": _BAND, "plan?": _HASH},
    "key.destroyed": {
        "tag": _TAG,
        "intent": _INT,
        "before": _HASH,
        "after": _HASH,
        "generation": _INT,
        "count": _BAND,
        "claim": _CODE,
        "grant?": _HASH,
    },
    "store.overwritten": _DONE,
    "store.rewritten": _DONE,
    "validated": {
        "tag": _TAG,
        "stores": _INT,
        "bytes": _INT,
        "patterns": _INT,
        "hits": _INT,
        "failed?": _INT,
        "canaries": _INT,
        "scanner": _HASH,
        "baseline": _HASH,
        "findings": _HASH,
    },
    "residue.found": {"tag": _TAG, "store": rf"{_SHOP}|vault", "code": _CODE},
    "exception": {"tag?": _TAG, "code": _CODE, "role": _CODE},
    "processor.notified": {"tag": _TAG, "processor": _CODE, "channel": _CODE, "digest": _HASH},
    "processor.confirmed": {"tag": _TAG, "processor": _CODE, "digest": _HASH},
    "certificate.issued": {
        "tag": _TAG,
        "json": _HASH,
        "html": _HASH,
        "pdf?": _HASH,
        "verdict": "erased|erased_with_retention|partial|failed",
    },
    "certificate.validated": {"statement": _HASH, "html": _HASH, "pdf?": _HASH},
    "step.done": {"tag": _TAG, "step": _CODE, "note": _HASH},
    "swept": {"patterns": _INT, "bytes": _INT, "hits": _INT},
    "canary.planted": {"digest": _HASH},
    "canary.erased": {
        "digest": _HASH,
        "seal?": _HASH,
        "placements?": _INT,
        "erased?": _INT,
        "retained?": _INT,
        "reported?": _INT,
        "missed?": _INT,
    },
    "report.published": {
        "period": _CODE,
        "json": _HASH,
        "html?": _HASH,
        "pdf?": _HASH,
        "parquet?": _HASH,
        "previous?": _HASH,
    },
    "package.published": {"digest": _HASH},
    "key.rotated": {"old": _VKEY, "new": _VKEY},
    "ledger.continued": {"origin": _ORIGIN, "size": _INT, "root": _HASH},
    "incident.recorded": {"digest": _HASH, "requests": _BAND},
    "sabotage.run": {"mutants": _INT, "caught": _INT, "digest": _HASH},
}


def _entry(entry: dict[str, Any], index: int) -> None:
    """Check one entry of a known type against the table; its values are never printed."""
    kind = entry.get("type")
    if not isinstance(kind, str) or kind not in _TYPES:
        raise Wrong(f"entry {index}: has no proper type")
    if entry.get("v") != 1 or type(entry["v"]) is not int:
        raise Wrong(f"entry {index}: version is not 1")
    allowed = {"v": _INT, "type": _CODE, "time": _TIME, **_TYPES[kind]}
    needed = {key for key in allowed if not key.endswith("?")}
    patterns = {key.removesuffix("?"): pattern for key, pattern in allowed.items()}
    if not needed <= entry.keys() <= patterns.keys():
        raise Wrong(f"entry {index}: {kind} with other fields than its own")
    for key, value in entry.items():
        if patterns[key] == _INT:
            fits = _count(value)
        else:
            fits = isinstance(value, str) and re.fullmatch(patterns[key], value, re.ASCII) is not None
        if not fits:
            raise Wrong(f"entry {index}: {kind} with a malformed {key}")
    for key, value in entry.items():
        if patterns[key] == _TIME:
            try:
                datetime.strptime(value, "%Y-%m-%dT%H:%M%z")
            except ValueError:
                raise Wrong(f"entry {index}: {kind} at a {key} that does not exist") from None


# ---------------------------------------------------------------- signed notes, checkpoints, receipts


@dataclass(frozen=True, eq=False)
class VKey:
    """The verifier key of a log or witness: name, key ID (4 bytes) and Ed25519 key."""

    name: str
    id: bytes
    key: Ed25519PublicKey

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VKey) and self._raw() == other._raw()

    def __hash__(self) -> int:
        return hash(self._raw())

    def _raw(self) -> tuple[str, bytes, bytes]:
        return self.name, self.id, self.key.public_bytes_raw()


@dataclass(frozen=True)
class Checkpoint:
    """The signed head of a log: origin, number of entries, root."""

    origin: str
    size: int
    root: bytes

    def body(self) -> bytes:
        """Return the text that was signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n".encode()


_LOG_KEY, _WITNESS_KEY = b"\x01", b"\x04"


def parse_vkey(text: str, where: str = "verifier key", kind: bytes = _LOG_KEY) -> VKey:
    """Read `<name>+<8 hex>+<base64(type || key)>`; Wrong for anything else, a key of another type among it."""
    parts = text.split("+", 2)  # base64 may contain a plus
    if len(parts) != 3 or not re.fullmatch("[!-*,-~]{1,255}", parts[0], re.ASCII):
        raise Wrong(f"{where}: expected name+id+key")
    raw = _base64(parts[2], where)
    if raw[:1] != kind or len(raw) != 33:
        raise Wrong(f"{where}: expected key type 0x{kind.hex()} and 32 bytes of Ed25519 key")
    identity = hashlib.sha256(parts[0].encode() + b"\n" + raw).digest()[:4]
    if parts[1] != identity.hex():
        raise Wrong(f"{where}: the key ID does not belong to the key")
    return VKey(parts[0], identity, Ed25519PublicKey.from_public_bytes(raw[1:]))


def split_note(note: bytes, where: str = "note") -> tuple[bytes, list[tuple[str, bytes]]]:
    """Return a note's text and its signature lines as (name, key ID || signature); Wrong for anything malformed."""
    if len(note) > 65_536:
        raise Wrong(f"{where}: larger than 64 KiB")
    if re.search(rb"[\x00-\x09\x0b-\x1f]", note):
        raise Wrong(f"{where}: a control character (perhaps CR line ends)")
    try:
        note.decode()
    except UnicodeDecodeError:
        raise Wrong(f"{where}: not UTF-8") from None
    split = note.rfind(b"\n\n")
    if split < 1:
        raise Wrong(f"{where}: no blank line between text and signatures")
    body, tail = note[: split + 1], note[split + 2 :]
    if not tail.endswith(b"\n"):
        raise Wrong(f"{where}: no newline at the end, or no signature")
    lines: list[tuple[str, bytes]] = []
    for line in tail[:-1].split(b"\n"):
        parts = line.decode().split(" ")
        if len(parts) != 3 or parts[0] != "—" or not parts[1] or "+" in parts[1] or re.search(r"\s", parts[1]):
            raise Wrong(f"{where}: a signature line is not `— name base64`")
        raw = _base64(parts[2], where)
        if len(raw) < 5:
            raise Wrong(f"{where}: a signature without key ID")
        if any((parts[1], raw[:4]) == (name, other[:4]) for name, other in lines):
            raise Wrong(f"{where}: the same key signed twice")
        lines.append((parts[1], raw))
        if len(lines) > 16:
            raise Wrong(f"{where}: more than 16 signature lines")
    return body, lines


def open_note(note: bytes, vkeys: VKey | Sequence[VKey], where: str = "note") -> bytes:
    """Return the text of a note that one of these keys signed; Wrong for anything malformed or falsely signed."""
    known = [vkeys] if isinstance(vkeys, VKey) else list(vkeys)
    body, lines = split_note(note, where)
    good = 0
    for name, raw in lines:
        for vkey in known:
            if (name, raw[:4]) == (vkey.name, vkey.id):
                try:
                    vkey.key.verify(raw[4:], body)
                except InvalidSignature:
                    raise Wrong(f"{where}: the log key's signature is false") from None
                good += 1
    if not good:
        raise Wrong(f"{where}: not signed by the log key of {known[0].name}")
    return body


def cosignatures(note: bytes, witnesses: Sequence[VKey], now: float, where: str = "checkpoint") -> dict[VKey, int]:
    """Return when each witness cosigned a note, in POSIX seconds; Wrong if a line is false or from the future."""
    body, lines = split_note(note, where)
    found = {}
    for name, raw in lines:
        for one in witnesses:
            if (name, raw[:4]) != (one.name, one.id):
                continue
            if len(raw) != 76:
                raise Wrong(f"{where}: the cosignature of {one.name} is not 72 bytes long")
            when = int.from_bytes(raw[4:12], "big")
            if when >= 2**63 or when > now + 600:
                raise Wrong(f"{where}: the cosignature of {one.name} is from the future")
            try:
                one.key.verify(raw[12:], f"cosignature/v1\ntime {when}\n".encode() + body)
            except InvalidSignature:
                raise Wrong(f"{where}: the cosignature of {one.name} is false") from None
            found[one] = when
    return found


def parse_checkpoint(note: bytes, vkeys: VKey | Sequence[VKey], where: str = "checkpoint") -> Checkpoint:
    """Read a checkpoint of these keys' log; Wrong for anything else."""
    known = [vkeys] if isinstance(vkeys, VKey) else list(vkeys)
    lines = open_note(note, known, where).split(b"\n")
    if len(lines) != 4:
        raise Wrong(f"{where}: expected origin, size and root and no further lines")
    if lines[0] != known[0].name.encode():
        raise Wrong(f"{where}: of another origin")
    size, root = _decimal(lines[1], where), _base64(lines[2].decode(), where)
    if len(root) != 32:
        raise Wrong(f"{where}: the root is not 32 bytes")
    if size == 0 and root != _EMPTY:
        raise Wrong(f"{where}: size 0 with a root that is not the empty tree's")
    return Checkpoint(known[0].name, size, root)


def parse_proof(text: bytes, where: str = "receipt") -> tuple[int, list[bytes], bytes]:
    """Read a `.tlog-proof`: index, hashes, and the checkpoint note verbatim (not yet checked)."""
    if len(text) > 131_072:
        raise Wrong(f"{where}: larger than a receipt can be")
    head, blank, note = text.partition(b"\n\n")
    lines = head.split(b"\n")
    if not blank or lines.pop(0) != b"c2sp.org/tlog-proof@v1":
        raise Wrong(f"{where}: not a c2sp.org/tlog-proof@v1")
    if lines and lines[0].startswith(b"extra "):
        _base64(_ascii(lines.pop(0)[6:], where), where)
    if not lines or not lines[0].startswith(b"index "):
        raise Wrong(f"{where}: no index")
    index = _decimal(lines.pop(0)[6:], where)
    hashes = [_base64(_ascii(line, where), where) for line in lines]
    if len(hashes) > 63 or any(len(one) != 32 for one in hashes):
        raise Wrong(f"{where}: not up to 63 hashes of 32 bytes")
    return index, hashes, note


# ---------------------------------------------------------------- the tree


class Tree:
    """All complete subtrees over a list of leaf hashes: `levels[k][i]` covers leaves i * 2**k on."""

    def __init__(self, leaves: list[bytes]) -> None:
        self.levels = [leaves]
        while len(self.levels[-1]) > 1:
            row = self.levels[-1]
            self.levels.append([_node(row[i], row[i + 1]) for i in range(0, len(row) - 1, 2)])
        while len(self.levels) < 72:  # so that any tile level can be asked for
            self.levels.append([])

    def root(self, size: int) -> bytes:
        """Return the root of the first `size` leaves."""
        if size == 0:
            return _EMPTY
        found = None
        at = size
        for level in range(size.bit_length()):  # from the smallest complete subtree, at the right edge
            if size >> level & 1:
                at -= 1 << level
                left = self.levels[level][at >> level]
                found = left if found is None else _node(left, found)
        if found is None:
            raise Wrong("a tree of negative size")
        return found


def check_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes, where: str = "receipt"
) -> None:
    """RFC 9162, section 2.1.3.2; Wrong unless the proof leads from the leaf to the root, no hash too many or few."""
    if index >= size:
        raise Wrong(f"{where}: index {index} is not below the size {size}")
    fn, sn, r = index, size - 1, leaf
    for p in proof:
        if sn == 0:
            raise Wrong(f"{where}: a hash is left over")
        if fn % 2 or fn == sn:
            r = _node(p, r)
            while fn % 2 == 0 and fn != 0:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = _node(r, p)
        fn, sn = fn >> 1, sn >> 1
    if sn != 0:
        raise Wrong(f"{where}: a hash is missing")
    if r != root:
        raise Wrong(f"{where}: the proof leads to another root")


def check_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """RFC 9162, section 2.1.4.2; Wrong unless the tree of `new` entries begins with the one of `old`."""
    if old > new:
        raise Wrong("consistency: the tree shrank")
    if old in (0, new):
        if proof or (old == new and old_root != new_root) or (old == 0 and old_root != _EMPTY):
            raise Wrong("consistency: not the same tree")
        return
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if not path:
        raise Wrong("consistency: a hash is missing")
    fn, sn = old - 1, new - 1
    while fn % 2:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for c in path[1:]:
        if sn == 0:
            raise Wrong("consistency: a hash is left over")
        if fn % 2 or fn == sn:
            fr, sr = _node(c, fr), _node(c, sr)
            while fn % 2 == 0 and fn != 0:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = _node(sr, c)
        fn, sn = fn >> 1, sn >> 1
    if fr != old_root or sr != new_root or sn != 0:
        raise Wrong("consistency: the new tree does not begin with the old one")


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _tile_name(level: int | str, index: int, width: int) -> str:
    digits = str(index)
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[i : i + 3] for i in range(0, len(digits), 3)]
    name = "/".join([*(f"x{one}" for one in groups[:-1]), groups[-1]])
    return f"tile/{level}/{name}" + (f".p/{width}" if width < 256 else "")


def _bundle(raw: bytes, count: int, name: str) -> list[bytes]:
    found, at = list[bytes](), 0
    while at < len(raw):
        (length,) = struct.unpack_from(">H", raw, at) if at + 2 <= len(raw) else (0,)
        line = raw[at + 2 : at + 2 + length]
        if not length or len(line) != length:
            raise Wrong(f"{name}: an entry is cut off or empty")
        if len(found) == 256:
            raise Wrong(f"{name}: more entries than a bundle has")
        found.append(line)
        at += 2 + length
    if len(found) != count:
        raise Wrong(f"{name}: {len(found)} entries where {count} belong")
    return found


# ---------------------------------------------------------------- statements, JSON, keys, small parts


def parse_statement(
    raw: bytes, key: Ed25519PublicKey, where: str = "statement", whose: str = "evidence"
) -> dict[str, Any]:
    """Return the in-toto Statement inside a DSSE envelope that `key` signed; Wrong for anything else."""
    envelope = strict_json(raw, where)
    if not isinstance(envelope, dict) or envelope.keys() != {"payload", "payloadType", "signatures"}:
        raise Wrong(f"{where}: not a DSSE envelope")
    if envelope["payloadType"] != "application/vnd.in-toto+json":
        raise Wrong(f"{where}: a payload of another type")
    if not isinstance(envelope["payload"], str) or not isinstance(envelope["signatures"], list):
        raise Wrong(f"{where}: not a DSSE envelope")
    payload = _base64(envelope["payload"], where)
    kind = envelope["payloadType"]
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
    good = 0
    for one in envelope["signatures"]:
        if not isinstance(one, dict) or one.keys() != {"keyid", "sig"} or not isinstance(one["sig"], str):
            raise Wrong(f"{where}: a malformed signature")
        try:
            key.verify(_base64(one["sig"], where), signed)
            good += 1
        except InvalidSignature:
            continue  # a signature by somebody else; one good one is asked for below
    if not good:
        raise Wrong(f"{where}: not signed by the {whose} key")
    statement = strict_json(payload, f"{where} payload")
    if not isinstance(statement, dict) or statement.keys() != {"_type", "subject", "predicateType", "predicate"}:
        raise Wrong(f"{where}: not an in-toto statement")
    if statement["_type"] != "https://in-toto.io/Statement/v1":
        raise Wrong(f"{where}: not an in-toto Statement v1")
    if not re.match("https://[^/ ]+/", str(statement["predicateType"])):
        raise Wrong(f"{where}: a predicate type that is not a URL")
    predicate, subjects = statement["predicate"], statement["subject"]
    if not isinstance(predicate, dict) or not re.fullmatch("[0-9a-f]{32}", str(predicate.get("nonce"))):
        raise Wrong(f"{where}: a predicate without nonce")
    if not isinstance(subjects, list) or not subjects:
        raise Wrong(f"{where}: no subject")
    for one in subjects:
        if (
            not isinstance(one, dict)
            or one.keys() != {"name", "digest"}
            or not isinstance(one["name"], str)
            or not isinstance(one["digest"], dict)
            or one["digest"].keys() != {"sha256"}
            or not re.fullmatch("[0-9a-f]{64}", str(one["digest"].get("sha256")))
        ):
            raise Wrong(f"{where}: a malformed subject")
    return statement


def strict_json(raw: bytes, where: str) -> Any:
    """Parse canonical JSON (RFC 8785, no floats); Wrong for duplicate keys, floats, spaces, anything not canonical."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise Wrong(f"{where}: a key comes twice")
        if not all(key.isascii() for key in found):
            raise Wrong(f"{where}: a key is not ASCII")
        return found

    def integer(text: str) -> int:
        if len(text) > 17 or abs(int(text)) >= 2**53:
            raise Wrong(f"{where}: an integer beyond 2**53 - 1")
        return int(text)

    def no_float(_text: str) -> Any:
        raise Wrong(f"{where}: a number that is not an integer")

    if len(raw) > _MOST_JSON:
        raise Wrong(f"{where}: JSON of more than {_MOST_JSON} bytes")
    try:
        found = json.loads(
            raw.decode(), object_pairs_hook=unique, parse_int=integer, parse_float=no_float, parse_constant=no_float
        )
        again = json.dumps(found, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    except (ValueError, RecursionError):  # bad UTF-8, bad JSON, lone surrogates, nested without end
        raise Wrong(f"{where}: not JSON") from None
    if again != raw:
        raise Wrong(f"{where}: JSON that is not canonical")
    return found


def _vkey_file(raw: bytes, where: str) -> VKey:
    lines = _lines(raw, where)
    if len(lines) != 1:
        raise Wrong(f"{where}: expected one line")
    return parse_vkey(_ascii(lines[0], where), where)


def _vkeys_file(raw: bytes, where: str) -> list[VKey]:
    found = [parse_vkey(_ascii(line, where), where, _WITNESS_KEY) for line in _lines(raw, where)]
    if len({one.key.public_bytes_raw() for one in found}) != len(found) or len({one.name for one in found}) != len(
        found
    ):
        raise Wrong(f"{where}: one key under two names, or one name with two keys: a quorum counts each once")
    return found


def _minute(when: float) -> str:
    """Return POSIX seconds as entries write times: whole minutes, UTC."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=when)).strftime("%Y-%m-%dT%H:%MZ")


def _pem_key(raw: bytes, where: str) -> Ed25519PublicKey:
    if len(raw) > _MOST_SIGNATURE:
        raise Wrong(f"{where}: not a public key in PEM")
    try:
        key = serialization.load_pem_public_key(raw)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Wrong(f"{where}: not a public key in PEM") from None
    if not isinstance(key, Ed25519PublicKey):
        raise Wrong(f"{where}: not an Ed25519 key")
    if key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo) != raw:
        raise Wrong(f"{where}: a PEM file with something else in it")
    return key


def _secret_file(raw: bytes) -> Secret:
    try:
        first, *rest = raw.decode().removesuffix("\n").split("\n")
        text = first.strip().replace("-", "")
        if re.fullmatch("[0-9a-fA-F]{64}", text):
            secret = bytes.fromhex(text)
        else:
            secret = base64.b32decode(text.upper() + "=" * (-len(text) % 8))
    except ValueError:
        raise Usage("--secret: the first line is neither 64 hex digits nor base32") from None
    if len(secret) != 32:
        raise Usage("--secret: a receipt secret has 32 bytes")
    pairs = [line.partition("=") for line in rest if line]
    if not all(kind and equals and value for kind, equals, value in pairs):
        raise Usage("--secret: expected kind=value on every further line")
    return secret, [[kind, value] for kind, _equals, value in pairs]


def _lines(raw: bytes, where: str) -> list[bytes]:
    if len(raw) > _MOST_LIST:
        raise Wrong(f"{where}: a list of more than {_MOST_LIST} bytes")
    if not raw.endswith(b"\n"):
        raise Wrong(f"{where}: no newline at the end")
    return raw[:-1].split(b"\n")


def _ascii(raw: bytes, where: str) -> str:
    try:
        return raw.decode("ascii")
    except UnicodeDecodeError:
        raise Wrong(f"{where}: not ASCII") from None


def _decimal(raw: bytes, where: str) -> int:
    if re.fullmatch(rb"0|[1-9][0-9]{0,18}", raw) is None:
        raise Wrong(f"{where}: not a plain decimal number")
    return int(raw)


def _base64(text: str, where: str) -> bytes:
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except ValueError:
        raise Wrong(f"{where}: not base64") from None
    if base64.b64encode(raw).decode() != text:
        raise Wrong(f"{where}: base64 that does not encode back to itself")
    return raw


# ---------------------------------------------------------------- challenges and reports


def _challenge(raw: bytes) -> dict[str, Any]:
    """Read a challenge: so many of a period, drawn by a nonce, or entries that are named; Wrong for anything else."""
    where = "challenge.json"
    asked = strict_json(raw, where)
    named, drawn = {"format", "checkpoint", "entries"}, {"format", "checkpoint", "nonce", "count", "from", "to"}
    if (
        not isinstance(asked, dict)
        or asked.get("format") != "fangxin/challenge/1"
        or asked.keys() not in (named, drawn)
    ):
        raise Wrong(f"{where}: not a fangxin/challenge/1")
    if not isinstance(asked["checkpoint"], str):
        raise Wrong(f"{where}: its checkpoint is not a note")
    if "entries" in asked:
        numbers = asked["entries"]
        if not isinstance(numbers, list) or not numbers or not all(_count(one) for one in numbers):
            raise Wrong(f"{where}: expected the indexes of entries")
        return asked
    if (
        not re.fullmatch("(?:[0-9a-f]{2}){16,64}", str(asked["nonce"]))
        or not _count(asked["count"])
        or not asked["count"]
    ):
        raise Wrong(f"{where}: expected a nonce of 16 to 64 bytes in hex, and a count")
    if not all(re.fullmatch(_TIME, str(asked[one])) for one in ("from", "to")):
        raise Wrong(f"{where}: expected `from` and `to` as whole minutes, UTC")
    return asked


def draw(asked: dict[str, Any], entries: Sequence[dict[str, Any]], at: Checkpoint) -> list[int]:
    """Return the indexes that a challenge draws from the entries its checkpoint covers, in the order of the draw."""
    ends = [index for index, one in enumerate(entries) if one["type"] == "certificate.issued"]
    if "entries" in asked:
        if not set(asked["entries"]) <= set(ends):
            raise Wrong("challenge.json: names an entry that is no certificate.issued")
        return list(asked["entries"])
    inside = [index for index in ends if asked["from"] <= entries[index]["time"] < asked["to"]]
    seed = hashlib.sha256(b"fangxin/challenge/1\n" + at.body() + bytes.fromhex(asked["nonce"])).digest()
    inside.sort(key=lambda index: hashlib.sha256(seed + struct.pack(">Q", index)).digest())
    return inside[: asked["count"]]


def _no_gap(published: Sequence[dict[str, Any]]) -> None:
    """Check that reports of one kind (month, quarter, year) follow each other and name their predecessors."""
    before: dict[str, dict[str, Any]] = {}
    for one in published:
        kind = re.sub("[0-9]+", "9", one["period"])  # 9-9, 9-Q9, 9; any other range is a kind of its own
        last = before.get(kind)
        if last is None and "previous" in one:
            raise Wrong(f"report {one['period']}: names a predecessor that is not on record")
        if last is not None:
            if one.get("previous") != last["json"]:
                raise Wrong(f"report {one['period']}: does not name the report of {last['period']} before it")
            after = _after(last["period"])
            if after is not None and one["period"] not in (after, last["period"]):
                raise Wrong(f"report {one['period']}: the report of {after} is missing")
        before[kind] = one


def _after(period: str) -> str | None:
    """Return the month, quarter or year that follows one; None for another range."""
    match = re.fullmatch("([0-9]{4})(?:-(Q?)([0-9]{1,2}))?", period)
    if match is None:
        return None
    year, letter, part = int(match[1]), match[2] or "", int(match[3] or 0)
    if not match[3]:
        return f"{year + 1:04d}"
    last = part >= (4 if letter else 12)
    year, part = (year + 1, 1) if last else (year, part + 1)
    return f"{year:04d}-Q{part}" if letter else f"{year:04d}-{part:02d}"


# ---------------------------------------------------------------- periodic reports


_OPEN = object()  # a figure that entries and certificates do not decide
_BOUNDS = (1, 2, 3, 5, 7, 10, 15, 20, 30)  # days, of the histogram of durations
_ROWS = ("rows_found", "rows_erased", "rows_retained", "values_masked", "baseline_hits", "hits_after")
_COMPARED = (
    *("flow/received", "flow/closed", "flow/failed", "flow/open", "time/calendar_minutes/p50"),
    *("time/calendar_minutes/p90", "residues/found", "trust/hits_unexplained"),
)


def closed_in(entries: Sequence[dict[str, Any]], first: str, last: str) -> list[dict[str, Any]]:
    """Return the certificates issued from one day to another, the failed ones apart."""
    issued = [one for one in entries if one["type"] == "certificate.issued" and first <= one["time"][:10] <= last]
    return [one for one in issued if one["verdict"] != "failed"]


def recount(
    report: Any,
    entries: Sequence[dict[str, Any]],
    certificates: dict[str, dict[str, Any]],
    earlier: dict[str, dict[str, Any]],
    name: str,
) -> bool:
    """Compute a periodic report again from the entries before it, and compare each figure; Wrong where one differs.

    `certificates` and `earlier` reports go by the SHA-256 of their JSON. A figure is the count, or a band in which the
    count lies. Returns whether durations and records could be computed too: where all certificates are at hand.
    """
    if not isinstance(report, dict) or report.get("format") != "fangxin/report/1":
        raise Wrong(f"{name}: not a report of the format fangxin/report/1")
    period = report.get("period")
    if not isinstance(period, dict):
        raise Wrong(f"{name}: without its period")
    first, last = str(period.get("from")), str(period.get("to"))
    if not (_day(first) and _day(last) and first <= last and period.get("id") == _id(first, last)):
        raise Wrong(f"{name}: a period that does not exist, or of another name")
    of: dict[str, list[dict[str, Any]]] = {}
    for one in entries:
        of.setdefault(one["type"], []).append(one)
    inside = {kind: [one for one in some if first <= one["time"][:10] <= last] for kind, some in of.items()}
    closed = closed_in(entries, first, last)
    documents = [certificates[one["json"]] for one in closed if one["json"] in certificates]
    whole = len(documents) == len(closed)
    rehearsed = any(one["by"] == "rehearsal" for one in inside.get("approved", []))
    rehearsed = rehearsed or any(one.get("rehearsal") is True for one in documents)
    at = [index for index, one in enumerate(entries) if first <= one["time"][:10] <= last]
    expected: dict[str, Any] = {
        "format": "fangxin/report/1",
        "period": {"id": period["id"], "from": first, "to": last, "days": _days_between(first, last) + 1},
        "preview": False,
        "rehearsal": True if rehearsed else False if whole else _OPEN,
        "origin": _OPEN,
        "ledger": {"entries": len(at), "first": at[0] if at else None, "last": at[-1] if at else None},
        "flow": _flow(of, inside, closed, first, last),
        "time": _durations(documents, name) if whole else _OPEN,
        "work": _work(documents, name) if whole else _OPEN,
        "keys": {
            "batches": len(inside.get("key.destroyed", [])),
            "bands": sorted({one["count"] for one in inside.get("key.destroyed", [])}),
        },
        "residues": _residues(inside.get("residue.found", []), of.get("exception", [])),
        "kept": _kept_by_law([one for one in of.get("retained", []) if one["time"][:10] <= last], last[:7]),
        "trust": _trusted(of, inside),
        "software": _OPEN,
        "coarse": _OPEN,
        "chain": _chained(of.get("report.published", []), entries, period["id"], first),
    }
    previous = expected["chain"]["previous"]
    before = earlier.get(previous["json"]) if previous else None
    said = _said_before(previous, entries) if previous and before is None else before
    expected["comparison"] = _compared(said, report)
    expected["verdict"] = _judged(expected)
    _agree(report, expected, name)
    return whole


def _agree(shown: Any, true: Any, where: str) -> None:
    """Compare what a report shows with what it should: a count may be shown as a band that it lies in."""
    if true is _OPEN:
        return
    if isinstance(true, dict) and isinstance(shown, dict) and shown.keys() == true.keys():
        for key, value in true.items():
            _agree(shown[key], value, f"{where}/{key}")
    elif isinstance(true, list) and isinstance(shown, list) and len(shown) == len(true):
        for number, value in enumerate(true):
            _agree(shown[number], value, f"{where}/{number}")
    elif type(true) is int and isinstance(shown, str):
        band = _band(true)
        if shown not in (band, f"0-{_most(band)}"):  # its own band, or that from nothing on, and no other
            raise Wrong(f"{where}: not the band in which the count of the entries lies")
    elif type(shown) is not type(true) or shown != true:
        raise Wrong(f"{where}: not what the entries say")


def _id(first: str, last: str) -> str:
    """Return the name of a period: a year, a month, a quarter, or both its days."""
    year, month = first[:4], int(first[5:7])
    ends = {f"{year}-{m:02d}-{monthrange(int(year), m)[1]:02d}": m for m in range(1, 13)}
    if first[8:] == "01" and last in ends:
        length = ends[last] - month + 1
        if (month, length) == (1, 12):
            return year
        if length == 1:
            return first[:7]
        if length == 3 and month % 3 == 1:
            return f"{year}-Q{(month + 2) // 3}"
    return f"{first}--{last}"


def _begins(period: str) -> str:
    """Return the first day of a period by its name."""
    if "--" in period:
        return period.partition("--")[0]
    year, _, part = period.partition("-")
    month = int(part[1:]) * 3 - 2 if part.startswith("Q") else int(part or 1)
    return f"{year}-{month:02d}-01"


def _ends(period: str) -> str:
    """Return the last day of a period by its name."""
    if "--" in period:
        return period.partition("--")[2]
    year, _, part = period.partition("-")
    month = int(part[1:]) * 3 if part.startswith("Q") else int(part or 12)
    return f"{year}-{month:02d}-{monthrange(int(year), month)[1]:02d}"


def _shift(day: str, by: int) -> str:
    return (date.fromisoformat(day) + timedelta(days=by)).isoformat()


def _days_between(first: str, last: str) -> int:
    between: timedelta = date.fromisoformat(last) - date.fromisoformat(first)
    return between.days


def _parts(first: str, last: str) -> Iterator[tuple[str, str, str]]:
    """Yield (label, first day, last day) of a period's days, weeks from Monday, or months."""
    days = _days_between(first, last) + 1
    while first <= last:
        here = date.fromisoformat(first)
        if days > 92:
            end = first[:8] + f"{monthrange(here.year, here.month)[1]:02d}"
        else:
            end = first if days <= 14 else _shift(first, 6 - here.weekday())
        end = min(end, last)
        name = _id(first, end)
        yield (name if re.fullmatch("[0-9]{4}-[0-9]{2}", name) else f"{here.month}/{here.day}"), first, end
        first = _shift(end, 1)


Kinds = dict[str, list[dict[str, Any]]]


def _flow(of: Kinds, inside: Kinds, closed: list[dict[str, Any]], first: str, last: str) -> dict[str, Any]:
    ended = ("request.refused", "request.withdrawn", "restored")
    issued = [one for one in of.get("certificate.issued", []) if one["verdict"] != "failed"]
    opened = of.get("request.opened", [])

    def open_until(day: str) -> int:
        gone = [*issued, *(one for kind in ended for one in of.get(kind, []))]
        come, left = ([one for one in some if one["time"][:10] <= day] for some in (opened, gone))
        return max(0, len(come) - len(left))

    def among(some: list[dict[str, Any]], begin: str, end: str) -> int:
        return len([one for one in some if begin <= one["time"][:10] <= end])

    refused = Counter(one["reason"] for one in inside.get("request.refused", []))
    known = [len(inside[kind]) if kind in of else None for kind in ended]
    verdicts = Counter(one["verdict"] for one in closed)
    return {
        "received": among(opened, first, last),
        "closed": len(closed),
        **{one: verdicts[one] for one in ("erased", "erased_with_retention", "partial")},
        "failed": sum(one["verdict"] == "failed" for one in inside.get("certificate.issued", [])),
        "open_before": open_until(_shift(first, -1)),
        "open": open_until(last),
        "refused": known[0],
        "refusals": [{"reason": reason, "count": count} for reason, count in sorted(refused.items())],
        "withdrawn": known[1],
        "restored": known[2],
        "parts": [
            {"label": label, "received": among(opened, begin, end), "closed": among(closed, begin, end)}
            for label, begin, end in _parts(first, last)
        ],
    }


def _durations(documents: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Whole minutes from receipt to validation. Working days want a calendar, and are left open."""
    minutes = []
    for one in documents:
        times = [one["times"].get(key) for key in ("received", "validated")]
        if times[1] is None:
            continue
        if not all(map(_moment, times)):
            raise Wrong(f"{name}: a certificate whose times are none")
        start, end = map(_instant, times)
        minutes.append((end - start) // timedelta(minutes=1))
    counts = Counter(sum(one > bound * 1440 for bound in _BOUNDS) for one in minutes)
    ranked = sorted(minutes)
    nearest = {f"p{p}": ranked[max(0, -(-len(ranked) * p // 100) - 1)] for p in (50, 90, 95, 99) if ranked}
    return {
        "measured": len(minutes),
        "calendar_minutes": {**nearest, "max": ranked[-1]} if len(minutes) >= 5 else None,
        "working_days": _OPEN,
        "histogram": [{"days": bound, "count": counts[n]} for n, bound in enumerate((*_BOUNDS, None))],
        "overdue": None,
    }


def _work(documents: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Rows by dataset; the bytes of a collection once for each batch, since they are everybody's."""
    rows: dict[str, Counter[str]] = {}
    moved: dict[str, dict[tuple[str, str], tuple[int, int]]] = {}
    for one in documents:
        for row in one["collections"]:
            if not all(_count(row.get(key)) for key in (*_ROWS, "bytes_read", "bytes_overwritten")):
                raise Wrong(f"{name}: rests on a certificate without its counts")
            rows.setdefault(row["dataset"], Counter()).update({key: row[key] for key in _ROWS})
            place = (str(one["batch"]), row["collection"])
            moved.setdefault(row["dataset"], {})[place] = (row["bytes_read"], row["bytes_overwritten"])
    return [
        {
            "dataset": dataset,
            **{key: rows[dataset][key] for key in _ROWS},
            "bytes_read": sum(read for read, _over in moved[dataset].values()),
            "bytes_overwritten": sum(over for _read, over in moved[dataset].values()),
        }
        for dataset in sorted(rows)
    ]


def _residues(found: list[dict[str, Any]], exceptions: list[dict[str, Any]]) -> dict[str, Any]:
    answered = {
        one["code"].removeprefix(_ANSWERS): one["time"] for one in exceptions if one["code"].startswith(_ANSWERS)
    }
    spans = sorted(
        (_instant(answered[one["tag"]]) - _instant(one["time"])) // timedelta(minutes=1)
        for one in found
        if one["tag"] in answered
    )
    return {
        "found": len(found),
        "answered": len(spans),
        "open": len(found) - len(spans),
        "median_minutes": spans[(len(spans) - 1) // 2] if spans else None,
        "longest_minutes": spans[-1] if spans else None,
        "stores": [list(one) for one in sorted(Counter(one["store"] for one in found).items())],
    }


def _kept_by_law(retained: list[dict[str, Any]], month: str) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str], list[str]] = {}
    for one in retained:
        groups.setdefault((one["rule"], one["class"]), []).append(one["until"])
    return [
        {
            "rule": rule,
            "class": classes,
            "text_en": _OPEN,
            "text_zh": _OPEN,
            "next": min((one for one in until if one != "officer" and one >= month), default=None),
            "requests": len(until),
        }
        for (rule, classes), until in sorted(groups.items())
    ]


def _trusted(of: Kinds, inside: Kinds) -> dict[str, Any]:
    """Counts of events. Who had cosigned and stamped the head of that day is in no entry, and left open."""

    def summed(kind: str, *keys: str) -> dict[str, int] | None:
        some = inside.get(kind, [])
        return {"runs": len(some), **{key: sum(one[key] for one in some) for key in keys}} if kind in of else None

    validated = inside.get("validated", [])
    codes = Counter(one["code"] for one in inside.get("exception", []) if not one["code"].startswith(_ANSWERS))
    told, confirmed = ("processor.notified", "processor.confirmed")
    opened = [one for one in inside.get("canary.erased", []) if "seal" in one]
    placed = {key: sum(one.get(key, 0) for one in opened) for key in ("placements", *_PLACED)}
    return {
        "validations": len(validated),
        "bytes_scanned": sum(one["bytes"] for one in validated),
        "hits_unexplained": sum(one["hits"] for one in validated),
        "canaries": sum(one["canaries"] for one in validated),
        "auditors_canaries": {"sealed": len(inside["canary.planted"]), "opened": len(opened), **placed}
        if "canary.planted" in of
        else None,
        "accepted_by_officers": len(inside.get("certificate.validated", [])),
        "sweeps": summed("swept", "bytes", "hits"),
        "sabotage": summed("sabotage.run", "mutants", "caught"),
        "incidents": len(inside["incident.recorded"]) if "incident.recorded" in of else None,
        "exceptions": [{"code": code, "count": count} for code, count in sorted(codes.items())],
        "processors": {"told": len(inside[told]), "confirmed": len(inside.get(confirmed, []))} if told in of else None,
        "witnesses": _OPEN,
        "time_stamped": _OPEN,
        "catalogs": len({one["catalog"] for one in inside.get("request.opened", [])}),
        "code": sorted({one["digest"] for one in inside.get("code.loaded", [])}),
        "laws": sorted({one.get("law", "") for one in inside.get("law.loaded", [])} - {"retention"}),
        "packages": len(inside["package.published"]) if "package.published" in of else None,
        "outside_audit": None,
    }


def _chained(
    published: list[dict[str, Any]], entries: Sequence[dict[str, Any]], period: str, first: str
) -> dict[str, Any]:
    kind = re.sub("[0-9]+", "9", period)
    same = [one for one in published if re.sub("[0-9]+", "9", one["period"]) == kind and one["period"] != period]
    try:
        since = _shift(_ends(same[-1]["period"]), 1) if same else entries[0]["time"][:10] if entries else first
    except (ValueError, IndexError, OverflowError):
        raise Wrong(f"report {same[-1]['period']}: on record for a period that does not exist") from None
    return {
        "previous": {"period": same[-1]["period"], "json": same[-1]["json"]} if same else None,
        "missing": {"from": since, "to": _shift(first, -1)} if since < first else None,
    }


def _compared(before: dict[str, Any] | None, report: dict[str, Any]) -> list[dict[str, Any]]:
    def pick(of: Any, path: str) -> Any:
        for key in path.split("/"):
            of = of.get(key) if isinstance(of, dict) else None
        return of

    if before is None:
        return []
    return [{"label": path, "before": pick(before, path), "now": pick(report, path)} for path in _COMPARED]


def _said_before(previous: dict[str, Any], entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Compute what a report that is not at hand must have said, as far as the entries before it decide."""
    published = [one["type"] == "report.published" and one["json"] == previous["json"] for one in entries]
    first, last = _begins(previous["period"]), _ends(previous["period"])
    of: Kinds = {}
    for one in entries[: published.index(True)]:
        of.setdefault(one["type"], []).append(one)
    inside = {kind: [one for one in some if first <= one["time"][:10] <= last] for kind, some in of.items()}
    closed = [one for one in inside.get("certificate.issued", []) if one["verdict"] != "failed"]
    return {
        "flow": _flow(of, inside, closed, first, last),
        "time": {"calendar_minutes": {"p50": _OPEN, "p90": _OPEN}},
        "residues": {"found": len(inside.get("residue.found", []))},
        "trust": {"hits_unexplained": sum(one["hits"] for one in inside.get("validated", []))},
    }


def _judged(expected: dict[str, Any]) -> str:
    if expected["trust"]["hits_unexplained"] or expected["residues"]["open"]:
        return "bad"
    sabotage = expected["trust"]["sabotage"]
    missed = sabotage is not None and sabotage["caught"] != sabotage["mutants"]
    canaries = expected["trust"]["auditors_canaries"]
    missed = missed or (canaries is not None and canaries["missed"] > 0)
    if expected["flow"]["failed"] or expected["trust"]["incidents"] or expected["chain"]["missing"] or missed:
        return "mind"
    return "good" if expected["flow"]["closed"] else "none"


# ---------------------------------------------------------------- time tokens and signatures in CMS


@dataclass(frozen=True)
class Der:
    """One element of DER: its tag, its content, and both as they lie in the file."""

    tag: int
    body: bytes
    raw: bytes

    def children(self, where: str) -> list[Der]:
        """Return the elements inside; Wrong if anything is left over."""
        found, rest = [], self.body
        while rest:
            one, rest = der(rest, where)
            found.append(one)
        return found


_SEQUENCE, _SET, _INTEGER, _OCTETS, _OID, _TIME_TAG = 0x30, 0x31, 0x02, 0x04, 0x06, 0x18
_CONTEXT_0, _CONTEXT_1 = 0xA0, 0xA1
_SIGNED_DATA, _DATA, _TST_INFO = "1.2.840.113549.1.7.2", "1.2.840.113549.1.7.1", "1.2.840.113549.1.9.16.1.4"
_CONTENT_TYPE, _MESSAGE_DIGEST = "1.2.840.113549.1.9.3", "1.2.840.113549.1.9.4"
_SIGNING_CERTIFICATE, _SIGNING_CERTIFICATE_V2 = "1.2.840.113549.1.9.16.2.12", "1.2.840.113549.1.9.16.2.47"
_SHA256 = "2.16.840.1.101.3.4.2.1"
_HASHES: dict[str, hashes.HashAlgorithm] = {
    _SHA256: hashes.SHA256(),
    "2.16.840.1.101.3.4.2.2": hashes.SHA384(),
    "2.16.840.1.101.3.4.2.3": hashes.SHA512(),
}


def der(raw: bytes, where: str) -> tuple[Der, bytes]:
    """Read one element and return it with what follows; Wrong for long tags, indefinite and non-minimal lengths."""
    if len(raw) < 2 or raw[0] & 0x1F == 0x1F:
        raise Wrong(f"{where}: not DER")
    length, at = raw[1], 2
    if length >= 0x80:
        size = length & 0x7F
        length, at = int.from_bytes(raw[2 : 2 + size], "big"), 2 + size
        if not 1 <= size <= 4 or len(raw) < at or length < 0x80 or raw[2] == 0:
            raise Wrong(f"{where}: not DER")
    if len(raw) < at + length:
        raise Wrong(f"{where}: DER that is cut off")
    return Der(raw[0], raw[at : at + length], raw[: at + length]), raw[at + length :]


def time_token(reply: bytes, data: bytes, roots: Sequence[x509.Certificate], where: str) -> datetime:
    """Return the time at which an authority below `roots` saw these bytes (RFC 3161); Wrong for anything else."""
    if len(reply) > _MOST_SIGNATURE:
        raise Wrong(f"{where}: larger than a time token can be")
    answer, rest = der(reply, where)
    parts = answer.children(where)
    if answer.tag != _SEQUENCE or rest or len(parts) != 2:
        raise Wrong(f"{where}: not a TimeStampResp with a token")
    status = parts[0].children(where)  # granted, or granted with changes; a text may follow
    if parts[0].tag != _SEQUENCE or not status or status[0].raw not in (b"\x02\x01\x00", b"\x02\x01\x01"):
        raise Wrong(f"{where}: the authority did not grant this token")
    return _stamped(parts[1].raw, hashlib.sha256(data).digest(), roots, where)


def _stamped(token: bytes, sha256: bytes, roots: Sequence[x509.Certificate], where: str) -> datetime:
    """Check a TimeStampToken over bytes of this SHA-256 and return its time."""
    cms = Cms(token, where)
    if cms.kind != _TST_INFO or cms.content is None:
        raise Wrong(f"{where}: not a time stamp token")
    info, rest = der(cms.content, where)
    fields = info.children(where)
    if rest or len(fields) < 5 or fields[0].raw != b"\x02\x01\x01" or fields[4].tag != _TIME_TAG:
        raise Wrong(f"{where}: not a TSTInfo of version 1")
    imprint = fields[2].children(where)
    if len(imprint) != 2 or _algorithm(imprint[0], where) != _SHA256:
        raise Wrong(f"{where}: an imprint that is not SHA-256")
    if imprint[1].body != sha256:
        raise Wrong(f"{where}: covers other bytes than those beside it")
    match = re.fullmatch(rb"([0-9]{14})(?:\.[0-9]{0,8}[1-9])?Z", fields[4].body)
    try:
        when = datetime.strptime(match[1].decode() if match else "", "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        raise Wrong(f"{where}: a malformed time") from None
    signer = cms.verify(cms.content, roots, when, where)
    try:
        usage = signer.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except (x509.ExtensionNotFound, ValueError):
        raise Wrong(f"{where}: the signer's certificate does not say that it is for time stamps") from None
    if not usage.critical or [one.dotted_string for one in usage.value] != ["1.3.6.1.5.5.7.3.8"]:
        raise Wrong(f"{where}: the signer's certificate is not for time stamps alone")
    return when


class Cms:
    """A SignedData of CMS (RFC 5652) with one signer and signed attributes, taken apart and not yet verified."""

    def __init__(self, raw: bytes, where: str) -> None:
        # ContentInfo: the OID of SignedData, and one SignedData
        if len(raw) > _MOST_SIGNATURE:
            raise Wrong(f"{where}: larger than a signature can be")
        outer, rest = der(raw, where)
        if rest or outer.tag != _SEQUENCE:
            raise Wrong(f"{where}: bytes after the signature, or none before")
        kind, wrapped = _pick(outer.children(where), where, _OID, _CONTEXT_0)
        (data,) = _pick(wrapped.children(where), where, _SEQUENCE)
        if _oid(kind) != _SIGNED_DATA:
            raise Wrong(f"{where}: not a SignedData")
        # SignedData: version, digests, content, certificates, perhaps CRLs, signers
        fields = data.children(where)
        lists = [_CONTEXT_1] if len(fields) == 6 else []
        parts = _pick(fields, where, _INTEGER, _SET, _SEQUENCE, _CONTEXT_0, *lists, _SET)
        version, digests, encapsulated, certificates, signers = *parts[:4], parts[-1]
        (digest,) = _pick(digests.children(where), where, _SEQUENCE)
        inside = encapsulated.children(where)
        name, *content = _pick(inside, where, _OID, *([_CONTEXT_0] if len(inside) == 2 else []))
        self.kind = _oid(name)
        self.content = None if not content else _pick(content[0].children(where), where, _OCTETS)[0].body
        self.certificates = [_certificate_der(one.raw, where) for one in certificates.children(where)]
        # SignerInfo: version, whose certificate, digest, signed attributes, algorithm, signature, perhaps others
        (signer,) = _pick(signers.children(where), where, _SEQUENCE)
        more = signer.children(where)
        unsigned = [_CONTEXT_1] if len(more) == 7 and self.kind == _DATA else []
        _one, sid, own, signed, algorithm, signature, *_more = _pick(
            more, where, _INTEGER, _SEQUENCE, _SEQUENCE, _CONTEXT_0, _SEQUENCE, _OCTETS, *unsigned
        )
        if (version.body, more[0].body) != (b"\x01" if self.kind == _DATA else b"\x03", b"\x01"):
            raise Wrong(f"{where}: a version of CMS that does not belong here")
        if _algorithm(own, where) != _algorithm(digest, where):
            raise Wrong(f"{where}: two digests where one belongs")
        self._digest = _HASHES.get(_algorithm(own, where))
        self._sid, self._algorithm, self._signature = sid.raw, _algorithm(algorithm, where), signature.body
        self._signed = b"\x31" + signed.raw[1:]  # re-tagged as the SET over which the signature was made
        self.attributes: dict[str, Der] = {}
        for one in signed.children(where):
            attribute, values = _pick(one.children(where), where, _OID, _SET)
            if _oid(attribute) in self.attributes or one.tag != _SEQUENCE or len(values.children(where)) != 1:
                raise Wrong(f"{where}: a signed attribute that is malformed or comes twice")
            self.attributes[_oid(attribute)] = values.children(where)[0]

    def verify(self, content: bytes, roots: Sequence[x509.Certificate], when: datetime, where: str) -> x509.Certificate:
        """Return the certificate that signed `content` at `when`, below one of `roots`; Wrong otherwise."""
        # (a) the signed attributes speak of this content
        kind, digest = self.attributes.get(_CONTENT_TYPE), self.attributes.get(_MESSAGE_DIGEST)
        if self._digest is None:
            raise Wrong(f"{where}: a digest other than SHA-256, SHA-384 and SHA-512")
        if kind is None or _oid(kind) != self.kind or digest is None:
            raise Wrong(f"{where}: signed attributes without content type or digest")
        if digest.body != hashlib.new(self._digest.name, content).digest():
            raise Wrong(f"{where}: the signature is of other bytes")
        # (b) they name the certificate, and its key signed them
        signer = self._named(where)
        if not _signature_holds(signer, self._algorithm, self._signature, self._signed, self._digest):
            raise Wrong(f"{where}: the signature is false")
        # (c) the certificate leads to somebody whom the auditor trusts
        _chain(signer, self.certificates, roots, when, where)
        return signer

    def _named(self, where: str) -> x509.Certificate:
        """Return the certificate that the ESS attribute names by its hash (RFC 5035, or RFC 2634 with SHA-1)."""
        old = _SIGNING_CERTIFICATE_V2 not in self.attributes
        attribute = self.attributes.get(_SIGNING_CERTIFICATE if old else _SIGNING_CERTIFICATE_V2)
        if attribute is None:
            raise Wrong(f"{where}: the signed attributes do not name the signer's certificate")
        listed = attribute.children(where)[0].children(where) if attribute.children(where) else []
        parts = listed[0].children(where) if listed else []
        algorithm = "sha1" if old else "sha256"
        if parts and parts[0].tag == _SEQUENCE and not old:
            stated = _HASHES.get(_algorithm(parts.pop(0), where))
            if stated is None:
                raise Wrong(f"{where}: the certificate is named by an unknown hash")
            algorithm = stated.name
        for one in self.certificates:
            name = hashlib.new(algorithm, one.public_bytes(serialization.Encoding.DER), usedforsecurity=not old)
            if parts and parts[0].tag == _OCTETS and parts[0].body == name.digest():
                try:
                    named = one.issuer.public_bytes() + _integer(one.serial_number)
                except (ValueError, OverflowError):  # a serial number below nothing, a name that is none
                    raise Wrong(f"{where}: a malformed certificate in it") from None
                if named != der(self._sid, where)[0].body:
                    raise Wrong(f"{where}: names two certificates as the signer's")
                return one
        raise Wrong(f"{where}: the certificate that the signature names is not in it")


def _integer(value: int) -> bytes:
    body = value.to_bytes(value.bit_length() // 8 + 1, "big")
    return bytes([_INTEGER, len(body)]) + body


_ECDSA = {"1.2.840.10045.4.3.2": "sha256", "1.2.840.10045.4.3.3": "sha384", "1.2.840.10045.4.3.4": "sha512"}
_RSA = {f"1.2.840.113549.1.1.{n}": name for n, name in ((11, "sha256"), (12, "sha384"), (13, "sha512"))}
_RSA_PLAIN, _EDDSA = "1.2.840.113549.1.1.1", "1.3.101.112"


def _signature_holds(
    by: x509.Certificate, algorithm: str, signature: bytes, signed: bytes, digest: hashes.HashAlgorithm
) -> bool:
    """Tell whether the certificate's key signed, with the algorithm that is stated and the digest that goes with it."""
    try:
        key = by.public_key()
        if isinstance(key, ec.EllipticCurvePublicKey) and _ECDSA.get(algorithm) == digest.name:
            key.verify(signature, signed, ec.ECDSA(digest))
        elif isinstance(key, rsa.RSAPublicKey) and {_RSA_PLAIN: digest.name, **_RSA}.get(algorithm) == digest.name:
            key.verify(signature, signed, padding.PKCS1v15(), digest)
        elif isinstance(key, Ed25519PublicKey) and algorithm == _EDDSA:
            key.verify(signature, signed)
        else:
            return False
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False
    return True


def _chain(
    leaf: x509.Certificate,
    others: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
    when: datetime,
    where: str,
) -> None:
    """Check that a certificate leads to one of `roots` over CA certificates, all valid at `when` (RFC 5280, plain)."""
    understood = {f"2.5.29.{n}" for n in (15, 19, 32, 37)}  # key usage, CA or not, policies, extended key usage
    at, steps = leaf, 0
    while True:
        if not at.not_valid_before_utc <= when <= at.not_valid_after_utc:
            raise Wrong(f"{where}: a certificate that was not valid at {_minute(when.timestamp())}")
        try:
            strange = [one for one in at.extensions if one.critical and one.oid.dotted_string not in understood]
        except ValueError:
            raise Wrong(f"{where}: a certificate with malformed extensions") from None
        if strange:
            raise Wrong(f"{where}: a certificate with a critical extension that this program does not know")
        if at in roots:
            return
        for issuer in [*roots, *others]:
            if _issued(at, issuer, steps):
                at, steps = issuer, steps + 1
                break
        else:
            raise Wrong(f"{where}: signed by somebody whom no given CA vouches for")
        if steps > 8:
            raise Wrong(f"{where}: a chain of certificates without end")


def _issued(one: x509.Certificate, issuer: x509.Certificate, below: int) -> bool:
    """Tell whether a CA certificate issued another one, with at most `below` CAs between it and the signer."""
    try:
        one.verify_directly_issued_by(issuer)
        basic = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
        if not basic.ca or (basic.path_length is not None and below > basic.path_length):
            return False
        usage = issuer.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound as error:
        return error.oid == x509.KeyUsage.oid  # a CA that leaves its use open
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return usage.key_cert_sign


def _ca_file(raw: bytes, where: str) -> list[x509.Certificate]:
    if len(raw) > _MOST_SIGNATURE:
        raise Wrong(f"{where}: more certificates than anybody needs")
    try:
        found = x509.load_pem_x509_certificates(raw)
    except (ValueError, x509.InvalidVersion):
        raise Wrong(f"{where}: not certificates in PEM") from None
    if b"".join(one.public_bytes(serialization.Encoding.PEM) for one in found) != raw:
        raise Wrong(f"{where}: a PEM file with something else in it")
    return found


def _certificate_der(raw: bytes, where: str) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(raw)
    except (ValueError, x509.InvalidVersion):
        raise Wrong(f"{where}: a malformed certificate in it") from None


def _algorithm(one: Der, where: str) -> str:
    """Return the OID of an AlgorithmIdentifier; its parameters are absent or NULL."""
    parts = one.children(where)
    if [part.raw for part in parts[1:]] not in ([], [b"\x05\x00"]) or not parts or parts[0].tag != _OID:
        raise Wrong(f"{where}: an algorithm with parameters, or malformed")
    return _oid(parts[0])


def _oid(one: Der) -> str:
    """Return an object identifier in dots; "" for a malformed one."""
    numbers, value, body = [], 0, one.body[:128]
    if len(body) != len(one.body):
        return ""
    for byte in body:
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(value)
            value = 0
    if not numbers or body[-1] & 0x80:
        return ""
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, [first, numbers[0] - 40 * first, *numbers[1:]]))


def _pick(found: list[Der], where: str, *tags: int) -> list[Der]:
    """Return the elements if they are exactly those of these tags; Wrong otherwise."""
    if [one.tag for one in found] != list(tags):
        raise Wrong(f"{where}: not the structure that belongs here")
    return found


# ---------------------------------------------------------------- signed PDF


def signed_pdf(
    raw: bytes, roots: Sequence[x509.Certificate], stamps: Sequence[x509.Certificate] | None, where: str
) -> list[str]:
    """Check every signature of a PDF and return their kinds; Wrong for a false one and for bytes after the last.

    A signature covers the file from its first byte to an end of its own, except for exactly its /Contents string; each
    goes further than the one before, and the last one to the end of the file. A document time stamp is checked with
    `stamps`; without them it is Missing.
    """
    if raw.count(b"/ByteRange") > 64:
        raise Wrong(f"{where}: more signatures than a paper can have")
    ranges = list(re.finditer(rb"/ByteRange\s*\[\s*(\d{1,10})\s+(\d{1,10})\s+(\d{1,10})\s+(\d{1,10})\s*\]", raw))
    if not ranges or len(ranges) != raw.count(b"/ByteRange"):
        raise Wrong(f"{where}: no signature, or a malformed ByteRange")
    kinds, before = [], 0
    for match in ranges:
        start, first, second, length = (int(one) for one in match.groups())
        end = second + length
        if second - first > 4 * _MOST_SIGNATURE:
            raise Wrong(f"{where}: larger than a signature can be")
        hole = raw[first:second]
        if start or end > len(raw) or not re.fullmatch(rb"<(?:[0-9A-Fa-f]{2})+>", hole):
            raise Wrong(f"{where}: a ByteRange that leaves out more than the signature itself")
        if end <= before or (first <= match.start() < second) or match.end() > end:
            raise Wrong(f"{where}: signatures that do not follow each other")
        before = end
        whole = raw[raw.rfind(b" obj", 0, match.start()) : raw.find(b"endobj", second)]
        signed = raw[:first] + raw[second:end]
        padded = bytes.fromhex(hole[1:-1].decode())
        signature, rest = der(padded, where)
        if rest.strip(b"\x00"):
            raise Wrong(f"{where}: something else behind a signature")
        if b"/ETSI.RFC3161" in whole:
            if stamps is None:
                raise Missing(f"{where}: has a document time stamp; bring {_TSA_CA} with --trust to check it")
            _stamped(signature.raw, hashlib.sha256(signed).digest(), stamps, where)
            kinds.append("time stamp")
        else:
            cms = Cms(signature.raw, where)
            if cms.kind != _DATA or cms.content is not None:
                raise Wrong(f"{where}: not a detached signature")
            cms.verify(signed, roots, _pdf_time(whole, where), where)
            kinds.append("signature")
    if before != len(raw):
        raise Wrong(f"{where}: {len(raw) - before} bytes after the last signature")
    if "signature" not in kinds:
        raise Wrong(f"{where}: no signature, only time stamps")
    return kinds


def _pdf_time(dictionary: bytes, where: str) -> datetime:
    """Return the signing time that a signature's dictionary claims (/M)."""
    match = re.search(rb"/M\s*\(D(?::|\\072)([0-9]{14})(?:Z|([+-])([0-9]{2})'([0-9]{2})'?)", dictionary)
    try:
        when = datetime.strptime(match[1].decode() if match else "", "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        raise Wrong(f"{where}: a signature without its time") from None
    if match is None or match[2] is None:
        return when
    ahead = timedelta(hours=int(match[3]), minutes=int(match[4]))
    try:
        return when - ahead if match[2] == b"+" else when + ahead
    except OverflowError:
        raise Wrong(f"{where}: a signature without its time") from None


def attachments(raw: bytes, where: str, most: int = _MOST_MEMBER) -> list[bytes]:
    """Return what is embedded in a PDF, of more than two files two; streams are plain or deflated, lengths direct.

    A stream unpacks to at most `most` bytes, and its dictionary has at most 4 KiB: nothing here grows with a lie.
    """
    found: list[bytes] = []
    for match in re.finditer(rb"/Type\s{0,9}/EmbeddedFile\b", raw):
        at = match.start()
        begin, stop = raw.rfind(b" obj", max(0, at - 4096), at), raw.find(b"stream", at, at + 4096)
        if begin < 0 or stop < 0 or len(found) > 1:
            continue
        named = re.fullmatch(rb" obj\s*<<(.*)>>\s*", raw[begin:stop], re.DOTALL)
        line = re.compile(rb"stream\r?\n").match(raw, stop)
        if named is None or line is None or b"endobj" in named[1]:
            continue
        length = re.search(rb"/Length\s+([0-9]{1,9})\b(?!\s+[0-9]+\s+R)", named[1])
        if length is None:
            raise Wrong(f"{where}: an attachment without a direct length")
        content = raw[line.end() : line.end() + int(length[1])]
        if re.search(rb"/Filter\s*/FlateDecode\b", named[1]):
            inflate = zlib.decompressobj()
            try:
                content = inflate.decompress(content, most)
            except zlib.error:
                raise Wrong(f"{where}: an attachment that does not unpack") from None
            if not inflate.eof:
                raise Wrong(f"{where}: an attachment that is cut off or larger than it can be")
        elif b"/Filter" in named[1]:
            raise Wrong(f"{where}: an attachment packed in another way")
        found.append(content)
    return found


# ---------------------------------------------------------------- folders and zips


def _safe(name: str) -> str:
    """Return a member's name if it is relative, plain ASCII and leads nowhere else; Wrong otherwise."""
    parts = name.split("/")
    if len(name) > 240 or not all(re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", one, re.ASCII) for one in parts):
        raise Wrong("a file with an unsafe name (absolute, hidden, leading upwards, or not plain ASCII)")
    return name


def _folder(top: Path) -> Iterator[tuple[str, Path]]:
    """Yield (name, path) of every file below a folder; links and special files are refused."""
    count = total = 0
    for here, folders, names in os.walk(top):
        folders.sort()
        for folder in folders:
            if (Path(here) / folder).is_symlink():
                raise Wrong("the folder holds a symbolic link")
        for one in sorted(names):
            path = Path(here) / one
            name = _safe(path.relative_to(top).as_posix())
            about = path.lstat()
            if not stat.S_ISREG(about.st_mode):
                raise Wrong(f"{name}: not a plain file")
            count, total = count + 1, total + about.st_size
            if count > _MOST_FILES or total > _MOST_BYTES or about.st_size > _MOST_MEMBER:
                raise Wrong("the folder is larger than a package can be")
            yield name, path


_LOCAL, _CENTRAL, _END = struct.Struct("<IHHHHHIIIHH"), struct.Struct("<IHHHHHHIIIHHHHHII"), struct.Struct("<IHHHHIIH")


def _unzip(raw: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of a zip that is byte for byte what the package's writer makes.

    Stored only, names sorted, times 1980-01-01, mode 0644, no extra fields, no comment, nothing between, before
    or after the members: each header is derived again from name and content and compared.
    """
    if len(raw) < _END.size:
        raise Wrong("zip: too short to be one")
    end = len(raw) - _END.size
    magic, _disk, _first, _here, count, length, start, _comment = _END.unpack_from(raw, end)
    if magic != 0x06054B50 or start + length != end:
        raise Wrong("zip: no end record where it belongs (truncated, appended to, or not a zip)")
    if raw[end:] != _END.pack(0x06054B50, 0, 0, count, count, length, start, 0):
        raise Wrong("zip: the end record is not as written")
    at, offset, before = start, 0, ""
    for _ in range(count):
        if at + _CENTRAL.size > end:
            raise Wrong("zip: the directory is cut off")
        fields = _CENTRAL.unpack_from(raw, at)
        crc, size, name_length = fields[7], fields[9], fields[10]
        encoded = raw[at + _CENTRAL.size : at + _CENTRAL.size + name_length]
        name = _safe(_ascii(encoded, "zip"))
        if name <= before:
            raise Wrong("zip: names are not sorted, or one comes twice")
        if size > _MOST_MEMBER:
            raise Wrong(f"{name}: larger than a member can be")
        head = (20, 0, 0, 0, 0x0021, crc, size, size, len(encoded), 0)
        central = _CENTRAL.pack(0x02014B50, 0x0314, *head, 0, 0, 0, 0o100644 << 16, offset) + encoded
        local = _LOCAL.pack(0x04034B50, *head) + encoded
        body = offset + len(local)
        if raw[at : at + len(central)] != central or raw[offset:body] != local:
            raise Wrong(f"{name}: its headers are not as written")
        content = raw[body : body + size]
        if body + size > start or zlib.crc32(content) != crc:
            raise Wrong(f"{name}: its content does not match its checksum")
        yield name, content
        at, offset, before = at + len(central), body + size, name
    if offset != start or at != end:
        raise Wrong("zip: bytes that belong to no member")


if __name__ == "__main__":
    sys.exit(main())

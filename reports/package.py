"""The auditor's package: everything a stranger needs to check the evidence, in one zip that is the same every time.

Deterministic: names sorted, stored, time 1980-01-01, mode 0644, no extra fields, no folders, no links. The verifier
derives every header again and compares, so that no byte of the file goes unchecked.

* `MANIFEST.sha256` lists every other file with its SHA-256.
* `MANIFEST.dsse.json` is the evidence key's statement about that manifest; it is the one file which the manifest does
  not list. Without it anybody could change a file and write the manifest again.
* No private key, no receipt secret and no identity is ever a member: statements and certificates hold none.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import TypedDict, Unpack

from fangxin.data.errors import DoesNotHold, InputError
from fangxin.reports import browser, controls
from fangxin.reports.ledger.keys import SigningKeys
from fangxin.reports.ledger.log import Ledger
from fangxin.reports.ledger.statement import canonical, sign
from fangxin.reports.ledger.tiles import sync_folder
from fangxin.reports.periodic_pages import report_template
from fangxin.reports.render import certificate_template

MANIFEST, SIGNED = "MANIFEST.sha256", "MANIFEST.dsse.json"
TEMPLATES = ("README.en.md", "README.zh.md", "verify.sh")
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)*", re.ASCII)
_LOCAL, _CENTRAL, _END = struct.Struct("<IHHHHHIIIHH"), struct.Struct("<IHHHHHHIIIHHHHHII"), struct.Struct("<IHHHHIIH")
_MOST_FILES, _MOST_BYTES, _MOST_MEMBER = 65_535, 2**32 - 1, 2**28

Members = dict[str, Callable[[], bytes]]  # name -> how to read it; a package is never held in memory as a whole


class Parts(TypedDict, total=False):
    """What a package holds beside ledger and public keys; all of it may be left out."""

    statements: Iterable[Path]  # DSSE files
    certificates: Iterable[Path]  # the JSON files, their pages, and officers' records of having accepted them
    proofs: Mapping[str, bytes]  # name (`X.tlog-proof`) -> receipt
    laws: Iterable[Path]  # files whose SHA-256 was logged as `law.loaded`
    calendars: Iterable[Path]  # the same, `calendar.loaded`
    reports: Iterable[Path]  # periodic reports in every form
    schemas: Iterable[Path]
    officers: Iterable[Path]  # public keys of those who accepted certificates or approved plans
    approvals: Iterable[Path]  # what officers signed about plans, `<sha256>.json`
    authority: Path | None  # the certificate that the signatures of PDFs lead to
    challenge: bytes | None  # what the auditor asked for
    policy: Mapping[str, object]  # adds to or replaces the defaults


def write_package(out: Path, *, ledger: Ledger, keys: SigningKeys, **parts: Unpack[Parts]) -> str:
    """Write the package as a zip, durably and in one rename, and return the SHA-256 of its manifest.

    Raises InputError for names or sizes that a package cannot have.
    """
    members, digest = _members(ledger, keys, parts)
    temporary = out.with_name(f".{out.name}.new")
    try:
        _write_zip(temporary, members)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(out.parent)
    return digest


def write_folder(out: Path, *, ledger: Ledger, keys: SigningKeys, **parts: Unpack[Parts]) -> str:
    """Write the same members as plain files below a new folder; arguments and answer as for `write_package`."""
    members, digest = _members(ledger, keys, parts)
    out.mkdir(parents=True)
    for name, read in members.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(read())
    return digest


def _members(ledger: Ledger, keys: SigningKeys, parts: Parts) -> tuple[Members, str]:
    """Collect every member, add the manifest, and return them sorted by name with the manifest's digest."""
    templates = files("fangxin").joinpath("reports", "templates", "package")
    members: Members = {name: templates.joinpath(name).read_bytes for name in TEMPLATES}
    members |= {
        "verify.html": _fixed(browser.page()),
        "verify.py": files("fangxin").joinpath("checks", "verify.py").read_bytes,
        "policy.json": _fixed(canonical(_policy(ledger.origin, parts.get("policy", {})), "policy")),
        "code-digests.txt": _fixed(_code_digests(ledger)),
    }
    members |= {name: _fixed(content) for name, content in controls.pages().items()}
    for template in (certificate_template().encode(), report_template().encode()):
        members[f"pages/{hashlib.sha256(template).hexdigest()}.j2"] = _fixed(template)
    members |= {name: _fixed(content) for name, content in keys.public_files().items()}
    members.update(ledger.files())
    authority, challenge = parts.get("authority"), parts.get("challenge")
    if authority is not None:
        members[authority.name] = authority.read_bytes
    if challenge is not None:
        members["challenge.json"] = _fixed(challenge)
    folders: dict[str, Iterable[Path]] = {
        "dsse": parts.get("statements", ()),
        "certificates": parts.get("certificates", ()),
        "law": parts.get("laws", ()),
        "calendars": parts.get("calendars", ()),
        "reports": parts.get("reports", ()),
        "schemas": parts.get("schemas", ()),
        "officers": parts.get("officers", ()),
        "approvals": parts.get("approvals", ()),
    }
    for folder, paths in folders.items():
        members |= {f"{folder}/{path.name}": path.read_bytes for path in paths}
    members |= {f"proofs/{name}": _fixed(content) for name, content in parts.get("proofs", {}).items()}

    lines = []
    for name in sorted(members):
        if not _NAME.fullmatch(name) or len(name) > 240:
            raise InputError("package: a member's name is not plain ASCII, relative and short", hint="rename the file")
        members[name], digest = _unchanged(name, members[name])
        lines.append(f"{digest}  {name}\n")
    manifest = "".join(lines).encode()
    members[MANIFEST] = _fixed(manifest)
    members[SIGNED] = _fixed(_signed(manifest, len(lines), ledger.origin, keys))
    if len(members) > _MOST_FILES:
        raise InputError(f"package: {len(members)} files, a zip of ours holds {_MOST_FILES}", hint="split the period")
    return {name: members[name] for name in sorted(members)}, hashlib.sha256(manifest).hexdigest()


def _signed(manifest: bytes, count: int, origin: str, keys: SigningKeys) -> bytes:
    """Return the evidence key's statement about a manifest, whose subject is the manifest alone.

    The nonce is derived, so that the same home gives the same bytes: the digest of a manifest, which lists keys and
    signatures, can be guessed by nobody who does not hold the package.
    """
    digest = hashlib.sha256(manifest).hexdigest()
    return sign(
        keys=keys,
        predicate_type=f"https://{origin.partition('/')[0]}/package/v1",
        subjects={MANIFEST: digest},
        predicate={
            "files": count,
            "nonce": hashlib.sha256(f"fangxin/package/nonce/1 {digest}".encode()).hexdigest()[:32],
        },
    )


def _policy(origin: str, more: Mapping[str, object]) -> dict[str, object]:
    """Return what the operator promises about the ledger; the verifier holds origin and quorum."""
    return {
        "format": "fangxin/policy/1",
        "quorum": 0,
        "witnesses": [],
        "time_stamps": "none",
        "bands": ["0", "1-4", "5-19", "20-99", "100-999"],
        "time": "whole minutes UTC",
        "order": "shuffled within a flush",
        **more,
        "origin": origin,
    }


def _code_digests(ledger: Ledger) -> bytes:
    """Return one line for each `code.loaded`: index, digest, git tree or a dash."""
    loaded = ((index, one) for index, one in ledger.entries() if one["type"] == "code.loaded")
    return "".join(f"{index} {one['digest']} {one.get('tree', '-')}\n" for index, one in loaded).encode()


def _unchanged(name: str, read: Callable[[], bytes]) -> tuple[Callable[[], bytes], str]:
    """Return the digest of a member and a reader that refuses to return anything else later."""
    digest = hashlib.sha256(read()).hexdigest()

    def again() -> bytes:
        content = read()
        if hashlib.sha256(content).hexdigest() != digest:
            raise DoesNotHold(f"{name}: changed while the package was written", hint="write the package again")
        return content

    return again, digest


def _fixed(content: bytes) -> Callable[[], bytes]:
    return lambda: content


def _write_zip(path: Path, members: Members) -> None:
    """Write a stored zip (PKWARE APPNOTE 6.3, version 2.0, no ZIP64) whose bytes depend on names and contents only."""
    directory: list[bytes] = []
    offset = 0
    with path.open("wb") as file:
        for name, read in members.items():
            content, encoded = read(), name.encode("ascii")
            size = len(content)
            if size > _MOST_MEMBER or offset + size > _MOST_BYTES - 2**26:
                raise InputError(f"{name}: the package would be larger than a zip of ours can be")
            # version needed 2.0, no flags, stored, 00:00 on 1980-01-01
            head = (20, 0, 0, 0, 0x0021, zlib.crc32(content), size, size, len(encoded), 0)
            file.write(_LOCAL.pack(0x04034B50, *head) + encoded + content)
            directory.append(
                _CENTRAL.pack(0x02014B50, 0x0314, *head, 0, 0, 0, 0o100644 << 16, offset) + encoded  # made on Unix
            )
            offset += _LOCAL.size + len(encoded) + size
        listing = b"".join(directory)
        file.write(listing + _END.pack(0x06054B50, 0, 0, len(directory), len(directory), len(listing), offset, 0))
        file.flush()
        os.fsync(file.fileno())

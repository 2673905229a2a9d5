"""Settings: one frozen value, and the only reader of files and environment for configuration.

A home is made by `fangxin init`; `fangxin.toml` in it says what kind of home it is. A *rehearsal* home may fix
the clock with `--now` and does not warn about identities on the command line.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fangxin.data.errors import InputError, NotAllowed

TEMPLATE = """# fangxin's settings for this home. Everything has a default; delete what you do not need.

# A rehearsal home holds made-up people only: --now may move its clock.
rehearsal = {rehearsal}

# The ledger's origin: a name without schema, unique to this log; it stands in every checkpoint.
origin = "{origin}"

# Facts about the operator that decide which laws apply (data/laws/*.yaml, applies_when).
facts = ["platform_operator"]

# Where the head of the ledger is kept a second time: best on another device, outside the ledger's backups.
ledger_head = "ledger-head"

# Whose clocks run beside the promises' for a closing that names no law itself: files of data/laws, without suffix.
laws = ["pipl"]

# Where closings are kept when one node is not enough: postgresql+psycopg://... (docs/closing.md). FANGXIN_CLOSURES
# comes first, for addresses that hold a password. Empty: closures.db in this home.
closures = ""

# How many subjects' keys the vault is laid out for.
capacity = {capacity}

# Who else keeps a share of the vault's root beside its own file keys/root: addresses, fixed when the home is made.
# All of them are needed to open any key. docs/root-holders.md has their forms, and what each may claim.
roots = {roots}

# What you state of a hardware module, for the certificate: "no-module-backup", "no-key-blobs-on-host".
stated = []

# Folders that backups, snapshots or replicas copy away, [] where there are none. Unless you state it, a root in a file
# claims nothing against backups; a root inside one never does.
# backup_sets = ["/srv"]

# Whether values go under keys many at a time by our own numpy code, or one by one through `cryptography`.
lanes = true

# Who else looks at the ledger's head: URLs of witnesses (their keys stand in keys/witness.vkeys), how many of them a
# package promises, and the URL of a time stamping authority (its CA stands in keys/tsa-ca.pem). docs/auditors.md.
witnesses = []
quorum = 0
tsa = ""
# How many days an export lies where the operator had it written; then its files are destroyed.
export_days = 30

# Files and folders outside the catalog's root that every look walks as well: people who stand there are reported.
watch = []

# When a certificate's PDF is printed and signed: at the "issue", its digest in the ledger beside those of JSON and
# HTML; or on "request" (`fangxin certificate print`), where thousands are issued and few are ever printed.
paper = "issue"

# Who signs certificates as the tool's operator (a role, never a person's name).
signer = "operator"
"""


@dataclass(frozen=True)
class Settings:
    """What a home is configured to do. Paths are absolute."""

    home: Path
    rehearsal: bool
    origin: str
    facts: frozenset[str]
    ledger_head: Path
    capacity: int
    signer: str
    roots: tuple[str, ...] = ()
    stated: tuple[str, ...] = ()
    backup_sets: tuple[Path, ...] | None = None  # None: not stated
    lanes: bool = True
    witnesses: tuple[str, ...] = ()
    quorum: int = 0
    tsa: str = ""
    watch: tuple[Path, ...] = ()
    export_days: int = 30
    laws: tuple[str, ...] = ("pipl",)
    paper: str = "issue"
    closures: str = field(default="", repr=False)  # an address may hold a password

    @property
    def tmp(self) -> Path:
        """Our only temporary folder, swept at start."""
        return self.home / "tmp"


def home_from(given: Path | None) -> Path:
    """The home in use: the option, else FANGXIN_HOME, else `var/`."""
    return Path(given or os.environ.get("FANGXIN_HOME") or "var").resolve()


def load(home: Path) -> Settings:
    """Read `fangxin.toml`; InputError when the home was never made or the file is wrong."""
    path = home / "fangxin.toml"
    if not path.is_file():
        raise InputError(
            f"{home}: not a home of fangxin: no fangxin.toml",
            hint="name it with --home or FANGXIN_HOME, or make one with `fangxin init`",
        )
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML: {error}", hint="compare with what `fangxin init` writes") from None
    expected = {"rehearsal": bool, "origin": str, "facts": list, "ledger_head": str, "capacity": int, "signer": str}
    expected |= {"roots": list, "stated": list, "backup_sets": list, "lanes": bool, "watch": list, "export_days": int}
    expected |= {"witnesses": list, "quorum": int, "tsa": str, "laws": list, "closures": str, "paper": str}
    for key, value in raw.items():
        if key not in expected:
            raise InputError(f"{path}: unknown key {key!r}", hint=f"known keys: {', '.join(expected)}")
        if type(value) is not expected[key]:
            raise InputError(f"{path}: {key}: expected {expected[key].__name__}, found {type(value).__name__}")
    if raw.get("paper", "issue") not in ("issue", "request"):
        raise InputError(f'{path}: paper: expected "issue" or "request"')
    return Settings(
        home=home,
        rehearsal=raw.get("rehearsal", False),
        origin=raw.get("origin", "ledger.invalid/erasure"),
        facts=frozenset(raw.get("facts", [])),
        ledger_head=(home / raw.get("ledger_head", "ledger-head")).resolve(),
        capacity=raw.get("capacity", 200_000),
        signer=raw.get("signer", "operator"),
        roots=_texts(path, "roots", raw),
        stated=_texts(path, "stated", raw),
        backup_sets=tuple(home / one for one in _texts(path, "backup_sets", raw)) if "backup_sets" in raw else None,
        lanes=raw.get("lanes", True),
        witnesses=_texts(path, "witnesses", raw),
        quorum=raw.get("quorum", 0),
        tsa=raw.get("tsa", ""),
        export_days=_days(path, raw.get("export_days", 30)),
        laws=_texts(path, "laws", raw) if "laws" in raw else ("pipl",),
        closures=os.environ.get("FANGXIN_CLOSURES") or raw.get("closures", ""),
        paper=raw.get("paper", "issue"),
        watch=tuple((home / one).resolve() for one in _texts(path, "watch", raw)),
    )


def _days(path: Path, given: int) -> int:
    if given < 1:
        raise InputError(f"{path}: export_days: expected at least 1, found {given}")
    return given


def _texts(path: Path, key: str, raw: Mapping[str, Any]) -> tuple[str, ...]:
    given = raw.get(key, [])
    if not all(isinstance(one, str) for one in given):
        raise InputError(f"{path}: {key}: expected a list of texts")
    return tuple(given)


def is_rehearsal(home: Path) -> bool:
    """Whether a folder is a rehearsal home; False where there is no home at all."""
    return (home / "fangxin.toml").is_file() and load(home).rehearsal


def clock(settings: Settings, now: str | None) -> datetime:
    """The time of this run in UTC; `--now` is refused outside rehearsal homes."""
    if now is None:
        return datetime.now(UTC)
    if not settings.rehearsal:
        raise NotAllowed("--now fixes the clock and is only for rehearsal homes", hint="fangxin init --rehearsal")
    try:
        given = datetime.fromisoformat(now)
    except ValueError:
        raise InputError("--now: expected an ISO 8601 time such as 2026-11-24T09:00:00+08:00") from None
    return (given if given.tzinfo else given.replace(tzinfo=UTC)).astimezone(UTC)


PREFECT = {
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}


def prepare_prefect(home: Path) -> None:
    """Set Prefect's environment before it is imported: its home inside ours, no logs or results to its database."""
    os.environ.setdefault("PREFECT_HOME", str(home / "prefect"))
    Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, value in PREFECT.items():
        os.environ.setdefault(name, value)

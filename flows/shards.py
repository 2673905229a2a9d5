"""Shards: a ledger ends, and another one of another origin and key goes on from it, a year at a time or after a loss.

Nothing may be in flight: a request's entries stay in one shard. What ends is kept whole below `home/shards/<origin>`:
its ledger, its head and its log key; the keys of evidence and of certificates stay. The first entry of the new shard
names the old origin, its size and its root; the vault's root and every source are told to it again.

All of the new shard is made in `home/shards/next` before anything moves; who finds `next/ready` goes on with the moves,
each of which is done once: after a crash the same command finishes.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from fangxin.data.closures.store import Closures
from fangxin.data.errors import InputError, NotAllowed
from fangxin.flows.estate import Estate
from fangxin.flows.lifecycle import FINAL, State
from fangxin.reports.ledger import checkpoint as notes
from fangxin.reports.ledger.keys import FORMER, LOG_VKEY, SigningKeys
from fangxin.reports.ledger.log import Ledger
from fangxin.reports.ledger.tiles import replace_file, sync_folder

_EVIDENCE = ("evidence.key.pem", "evidence.pub.pem")
_LOG = ("log.key.pem", LOG_VKEY, FORMER)


def start_shard(estate: Estate, origin: str) -> Ledger:
    """End the ledger of a home and start the one that goes on from it; returns the new one. Repeat it after a crash.

    NotAllowed while a batch or a closing is in flight, InputError for an origin that was used or cannot be one.
    """
    home = estate.settings.home
    following = home / "shards" / "next"
    if not (following / "ready").exists():
        _nothing_in_flight(estate)
        _make(estate, following, origin)
    _move(estate, following)
    settled = SigningKeys.load(home / "keys")
    return Ledger.open(home / "ledger", head=estate.settings.ledger_head, keys=settled)


def place_of(home: Path, origin: str) -> Path:
    """Where a shard that ended is kept."""
    return home / "shards" / re.sub("[^A-Za-z0-9.-]", "_", origin)


def _nothing_in_flight(estate: Estate) -> None:
    file = estate.settings.home / "closures.db"
    url = estate.settings.closures or (f"sqlite:///{file}" if file.exists() else "")
    alive = Closures(url).in_state(*(state.value for state in State if state not in FINAL)) if url else ()
    if estate.requests.unfinished() or alive:
        raise NotAllowed(
            f"{len(estate.requests.unfinished())} batch(es) and {len(alive)} closing(s) are in flight: their entries "
            "belong in one shard",
            hint="`fangxin resume` and `fangxin run-due` until none is, then start the shard",
        )


def _make(estate: Estate, following: Path, origin: str) -> None:
    """Make keys and ledger of the new shard, apart from the old one."""
    home, old = estate.settings.home, notes.parse(estate.ledger.checkpoint(), *estate.signing.vkeys)
    if origin == old.origin or place_of(home, origin).exists():
        raise InputError("an origin is one tree and one key, for ever", hint="such as ledger.example.com/erasure/2027")
    shutil.rmtree(following, ignore_errors=True)
    SigningKeys.create(following / "keys", origin=origin)
    for name in _EVIDENCE:
        shutil.copy2(home / "keys" / name, following / "keys" / name)
    keys = SigningKeys.load(following / "keys")
    new = Ledger.create(following / "ledger", origin=origin, head=following / "head", keys=keys)
    new.continues(old, estate.minute)
    new.append([{"type": "key.committed", "time": estate.minute, "root": estate.tree.commitment}])
    (following / "old").write_text(old.origin, "ascii")
    replace_file(following / "ready", b"")


def _move(estate: Estate, following: Path) -> None:
    """Put the old shard away and the new one in its place."""
    home, head = estate.settings.home, estate.settings.ledger_head
    away = place_of(home, (following / "old").read_text("ascii"))
    (away / "keys").mkdir(parents=True, exist_ok=True, mode=0o700)
    if not (away / "ledger").exists():
        (home / "ledger").rename(away / "ledger")
    if not (away / "head").exists():
        replace_file(away / "head", head.read_bytes())
    if (following / "ledger").exists():
        (following / "ledger").rename(home / "ledger")
    replace_file(head, (following / "head").read_bytes())
    for name in _LOG:
        if (home / "keys" / name).exists() and not (away / "keys" / name).exists():
            (home / "keys" / name).rename(away / "keys" / name)
        if (following / "keys" / name).exists():
            (following / "keys" / name).rename(home / "keys" / name)
    for folder in (away, away / "keys", home / "keys", home):
        sync_folder(folder)
    origin = SigningKeys.load(home / "keys").origin
    text = (home / "fangxin.toml").read_text("utf-8")
    replace_file(home / "fangxin.toml", re.sub(r'(?m)^origin = ".*"$', f'origin = "{origin}"', text).encode())
    shutil.rmtree(following)

"""Watch: after the certificate, data that comes back is known again without anybody's identity being kept.

Of every identity by which a person was found a token is left: HMAC-SHA256 under a key of the quarter, which lies in the
vault. On the first day after the erasure, on the thirtieth and then monthly, until the longest declared copy is gone
and thirty days more, the key columns of all collections are read once for everybody whose day it is, and compared.

* Whoever is found begins another round: erased again, validated again, with a certificate that takes the first one's
  place. What identifies them is taken from the rows that came back.
* Tokens know key columns in clear, not free text; a value under a dead key is noise and is no return.
* What a law keeps is no return either: collections with kept rows are left out for that person.
* When the last watch of a quarter is over, its key dies, and with it every token.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from fangxin.data.catalog.matching import emitted
from fangxin.data.closures.store import Closure
from fangxin.data.keys.domains import INDEX
from fangxin.data.keys.envelope import ref_of
from fangxin.data.keys.faults import KeyAbsent
from fangxin.data.keys.grant import Grant
from fangxin.data.requests import REQUEST_DOMAIN, receipt_code
from fangxin.data.vocabulary import Mode
from fangxin.flows import sealing
from fangxin.flows.desk import BACK, Desk, Secret, renamed, request_of
from fangxin.flows.lifecycle import Event, State

FIRST: Final = (1, 30)  # days after the erasure; then every MONTH, until the longest copy is gone and BEYOND more
MONTH, BEYOND = timedelta(days=30), timedelta(days=30)


@dataclass(frozen=True)
class Begun:
    """What is noted of a watch: its days, and the tokens under the key of an epoch."""

    facts: dict[str, Any]  # Any: JSON
    tokens: tuple[str, Sequence[bytes]] = field(repr=False)


def begin(desk: Desk, closure: Closure) -> Begun:
    """Make the tokens of a person whose certificate is issued, and set the days on which they are looked for."""
    since = desk.now
    until = since + max(_longest_copy(desk), timedelta()) + BEYOND
    epoch = f"{since.year}-{(since.month + 2) // 3}"
    key = _key(desk, epoch)
    tokens = sorted({_token(key, kind, value) for kind, value in desk.opened(closure).facts})
    told = {"since": since.isoformat(), "next": _next(since, since).isoformat(), "until": until.isoformat()}
    return Begun({"watch": {**told, "epoch": epoch}}, (epoch, tokens))


def watch(desk: Desk, due: Sequence[Closure]) -> list[str]:
    """Look for these people once more; returns the closings of those who came back, each in a new round.

    A watch that is over is closed, where no law keeps anything.
    """
    found = returned(desk, {one.id for one in due})
    with desk.together(due):
        for closure in due:
            if closure.id in found:
                _again(desk, closure, found[closure.id])
            else:
                _not_found(desk, closure)
    _end_epochs(desk)
    return sorted(found)


def returned(desk: Desk, closures: set[str]) -> dict[str, tuple[set[tuple[str, str]], set[str]]]:
    """By closure the identities (kind, value) that stand in some collection again, and in which stores."""
    whose: dict[bytes, set[str]] = {}
    keys: list[bytes] = []
    for epoch, rows in desk.closures.watched().items():
        mine = [(closure, token) for closure, token in rows if closure in closures]
        if mine:
            keys.append(_key(desk, epoch))
        for closure, token in mine:
            whose.setdefault(token, set()).add(closure)
    found: dict[str, tuple[set[tuple[str, str]], set[str]]] = {}
    kept = {c: _kept(desk.closures.get(c)) for c in closures}
    read = values = 0
    for address, kind, store, column in _columns(desk):
        read += column.nbytes
        for value in pc.unique(emitted(kind, column)).drop_null().to_pylist():
            values += 1
            for key in keys:
                for closure in whose.get(_token(key, kind, value), ()):
                    if address not in kept[closure]:
                        facts, stores = found.setdefault(closure, (set(), set()))
                        facts.add((kind, value))
                        stores.add(store)
    desk.estate.ledger.append(
        [{"type": "swept", "time": desk.estate.minute, "patterns": len(whose), "bytes": read, "hits": len(found)}]
    )
    return found


def _columns(desk: Desk) -> Iterator[tuple[str, str, str, pa.Array]]:
    """Every key column in clear, unit by unit: collection, kind, the store's name in the ledger, values."""
    estate = desk.estate
    for store in estate.stores:
        wanted = {
            c.address: {f.name: tuple(dict.fromkeys((*f.matches, *f.emits))) for f in c.fields if f.matches or f.emits}
            for c in store.collections
        }
        wanted = {address: names for address, names in wanted.items() if names}
        if not wanted:
            continue
        crypto = {(c.address, f.name) for c in store.collections for f in c.fields if f.mode is Mode.CRYPTO_ERASE}
        for address, rows in store.scan({address: sorted(names) for address, names in wanted.items()}):
            for name, kinds in wanted[address].items():
                column = rows.columns.column(name)
                if (address, name) in crypto and pa.types.is_large_binary(column.type):
                    continue  # under keys: of the erased nothing can be read there
                for kind in kinds:
                    yield address, kind, estate.store_id(store), column


def _again(desk: Desk, closure: Closure, found: tuple[set[tuple[str, str]], set[str]]) -> None:
    facts, stores = found
    desk.estate.tree.ensure([closure.ref], REQUEST_DOMAIN)
    pairs = tuple(sorted(facts))
    secret = Secret(secrets.token_bytes(32), receipt_code(), b"", pairs, facts=pairs)
    entries = [
        (BACK + 2**8 * closure.version + n, {"type": "residue.found", "store": store, "code": "returned"})
        for n, store in enumerate(sorted(stores))
    ]
    desk.take(
        closure, Event("found_again"), desk.now, body={"stores": sorted(stores)}, entries=entries, secret=secret.secret,
        sealed=desk.sealed(closure.ref, secret), facts={"batch": None, "watch": None},
    )  # fmt: skip


def _not_found(desk: Desk, closure: Closure) -> None:
    noted = closure.facts["watch"]
    since, until = (datetime.fromisoformat(noted[k]) for k in ("since", "until"))
    if desk.now >= until:
        over = {"watch": None}
        if request_of(closure).state is State.CERTIFIED:
            desk.take(closure, Event("close"), desk.now, facts=over, watched=("", ()))
        else:
            again = renamed(request_of(closure))
            desk.write(closure, again, "watch_over", desk.now, by="system", facts=over, watched=("", ()))
        return
    following = min(_next(since, desk.now), until)
    facts = {"watch": {**noted, "next": following.isoformat()}}
    desk.write(closure, renamed(request_of(closure)), "watched", desk.now, by="system", facts=facts)


def _end_epochs(desk: Desk) -> None:
    """Destroy the keys of quarters of which nobody is watched any more."""
    tree, now = desk.estate.tree, desk.estate.now
    alive = set(desk.closures.watched())
    present = f"{now.year}-{(now.month + 2) // 3}"
    drops = {}
    for year in range(now.year - 3, now.year + 1):
        for quarter in range(1, 5):
            epoch = f"{year}-{quarter}"
            ref = ref_of("fangxin", f"watch/{epoch}")
            if epoch not in alive and epoch < present:
                with suppress(KeyAbsent):
                    tree.get(ref, INDEX)
                    drops[ref] = frozenset({INDEX})
    if drops:
        grant = Grant.of(drops, vault=tree.vault_id, generation=tree.generation, catalog="", not_before=now)
        tree.destroy(drops, grant=grant, now=now)
        sealing.commit_root(desk.estate)


def _next(since: datetime, now: datetime) -> datetime:
    """The next day of looking after now."""
    days = [since + timedelta(days=d) for d in FIRST]
    while days[-1] <= now:
        days.append(days[-1] + MONTH)
    return next(day for day in days if day > now)


def _longest_copy(desk: Desk) -> timedelta:
    kept = [
        re.fullmatch(r"(\d+)d", copy.keep or "") for c in desk.estate.catalog.collections for copy in c.copies or ()
    ]
    return timedelta(days=max((int(one[1]) for one in kept if one), default=0))


def _kept(closure: Closure) -> frozenset[str]:
    """The collections in which a law keeps rows of this person."""
    if kept := closure.facts.get("kept"):
        return frozenset(kept["rows"])
    rows = (closure.facts.get("plan") or {}).get("rows", {})
    return frozenset(address for address, fates in rows.items() if fates.get("retain"))


def _key(desk: Desk, epoch: str) -> bytes:
    ref = ref_of("fangxin", f"watch/{epoch}")
    desk.estate.tree.ensure([ref], INDEX)
    return desk.estate.tree.get(ref, INDEX)


def _token(key: bytes, kind: str, value: str) -> bytes:
    return hmac.new(key, f"{kind}\0{value}".encode(), hashlib.sha256).digest()[:16]

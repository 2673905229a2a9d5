"""Sealing: the seals of a home's closings, between its vault and a second one that holds the officers' shares.

The second vault lies in `home/officers` with a root of its own. Officers answer with X25519 keys whose public halves
lie in `home/keys/answerers`; two or more are needed before anything can be sealed. A seal is made for everybody whose
hour has come at once, because it costs a new root; so does the end.

Data that was never under a key cannot be sealed: it is *frozen, not sealed*, and said to be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fangxin.data.errors import InputError, NotAllowed, unread
from fangxin.data.keys.approval import Guard
from fangxin.data.keys.domains import SEALED
from fangxin.data.keys.grant import Drops, Grant
from fangxin.data.keys.seal import Case, Seals, drops_of, end_drops
from fangxin.data.keys.tree import KeyTree
from fangxin.data.requests import Batch
from fangxin.data.vocabulary import Mode
from fangxin.flows.estate import Estate
from fangxin.flows.evidence import SEALS_ENDED, SEALS_INTENDED, destroyed_entry, mark, record
from fangxin.reports.ledger.entries import band

ENROL = "`fangxin keys answerer NAME --out DIR`, then `fangxin keys answerers --add DIR/NAME.pub`"
_LASTS = timedelta(hours=24)


def answerers(home: Path) -> dict[str, bytes]:
    """The officers' public keys for answering, by name."""
    found = {}
    for path in sorted((home / "keys" / "answerers").glob("*.pub")):
        found[path.stem] = public_of(path)
    return found


def public_of(path: Path) -> bytes:
    """An X25519 public key from a file of hex; InputError otherwise."""
    try:
        key = bytes.fromhex(path.read_text("ascii").strip())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not an answering key: {unread(error)}", hint="NAME.pub") from None
    if len(key) != 32:
        raise InputError(f"{path}: expected 32 bytes in hex, found {len(key)}", hint="NAME.pub")
    return key


def able(home: Path) -> dict[str, bytes]:
    """The officers who can answer, by name; NotAllowed where they are fewer than two: nothing could be sealed."""
    officers = answerers(home)
    if len(officers) < 2:
        raise NotAllowed(
            f"nothing can be sealed before two officers can answer; this home knows {len(officers)}",
            hint=f"for each: {ENROL}; then again, `request open` with --received where it reached you before",
        )
    return officers


@contextmanager
def seals_of(estate: Estate) -> Iterator[Seals]:
    """The seals of a home; its second vault is made when it is first needed, and closed at the end.

    What is left open would be closed some time later, and its side files would vanish under a search of the home.
    """
    home = estate.settings.home
    folder = home / "officers"
    if (folder / "root").exists():
        second = KeyTree.open(folder)
    else:
        second = KeyTree.create(
            folder, capacity=estate.settings.capacity, guard=Guard(lifted=estate.settings.rehearsal)
        )
    with second:
        yield Seals(home / "seals", estate.tree, second)


def seal(estate: Estate, cases: Sequence[Case], *, now: datetime) -> None:
    """Take the keys of these subjects out of the vault, all in one batch; who is sealed already is left alone."""
    due = [one for one in cases if estate.tree.sealed_until(one.ref) is None]
    if not due:
        return
    officers = able(estate.settings.home)
    with seals_of(estate) as seals:
        seals.seal(due, list(officers.values()), grant=_grant(estate, drops_of(due), now), now=now)


def until(estate: Estate, refs: Sequence[bytes]) -> datetime | None:
    """When the seals of these subjects end, as the vault knows it; None if none is sealed."""
    ends = [end for ref in refs if (end := estate.tree.sealed_until(ref)) is not None]
    return max(datetime.fromisoformat(end.replace("Z", "+00:00")) for end in ends) if ends else None


def restore(
    estate: Estate,
    cases: Sequence[tuple[bytes, bytes, tuple[int, ...]]],
    *,
    code: str | None,
    answers: Mapping[bytes, Sequence[bytes]],
    now: datetime,
) -> None:
    """Put the keys of one person's cases back, by two shares; a case that is back already is left alone.

    `answers` are the officers', by case.
    """
    with seals_of(estate) as seals:
        for case, ref, _codes in cases:
            if estate.tree.sealed_until(ref) is None:
                continue
            grant = _grant(estate, {ref: frozenset({SEALED})}, now)
            seals.restore(case, ref, code=code, answers=answers.get(case, ()), grant=grant, now=now)
        seals.settle(now=now, among=[case for case, _ref, _codes in cases])
    commit_root(estate)


def end(estate: Estate, batch: Batch, cases: Mapping[bytes, bytes], *, waived: bool, now: datetime) -> None:
    """End the seals of a batch's people (case -> ref): two shares of each die. Nothing goes back from here.

    Intent, act, outcome; the grant is kept sealed with the batch, so that an end that was interrupted is found again.
    """
    if not cases:
        return
    tags = mark(batch, SEALS_INTENDED), mark(batch, SEALS_ENDED)
    if tags[1] in estate.ledger.find([tags[1]]):
        return
    drops = end_drops(cases)
    entry = {"type": "erase.intended", "tag": tags[0], "store": "vault", "units": band(len(cases))}
    at = record(estate, [entry])[tags[0]]
    kept = estate.requests.kept(batch, "grant/seals")
    grant = Grant.parse(kept.decode()) if kept else _kept(estate, batch, drops, now)
    with seals_of(estate) as seals:
        try:
            receipt = seals.end(cases, grant=grant, now=now, waived=waived)
        except NotAllowed:  # a grant that was never carried out has expired, or another batch came first
            receipt = seals.end(cases, grant=_kept(estate, batch, drops, now), now=now, waived=waived)
    record(estate, [destroyed_entry(receipt, tags[1], at)])


def settle(estate: Estate, *, now: datetime) -> None:
    """Clear away what an interrupted seal, restore or end left: records whose share in the vault is dead."""
    with seals_of(estate) as seals:
        seals.settle(now=now)


def commit_root(estate: Estate) -> None:
    """Tell the ledger the vault's root, where a seal or a restore made a new one."""
    last = [e for _n, e in estate.ledger.rare("key.committed", "key.destroyed")]
    known = (last[-1].get("after") or last[-1].get("root")) if last else None
    if known != estate.tree.commitment:
        entry: dict[str, int | str] = {"type": "key.committed", "time": estate.minute, "root": estate.tree.commitment}
        estate.ledger.append([entry])


def protection(estate: Estate) -> dict[str, tuple[str, ...]]:
    """By collection the fields that a seal closes: those under keys. All else is frozen, not sealed."""
    return {
        c.address: tuple(f.name for f in c.fields if f.mode is Mode.CRYPTO_ERASE) for c in estate.catalog.collections
    }


def _grant(estate: Estate, drops: Drops, now: datetime) -> Grant:
    tree = estate.tree
    return Grant.of(
        drops,
        vault=tree.vault_id,
        generation=tree.generation,
        catalog=estate.catalog.digest,
        not_before=min(now, datetime.now(UTC)) if not estate.settings.rehearsal else now,
        valid_for=_LASTS,
        action="replace",
    )


def _kept(estate: Estate, batch: Batch, drops: Drops, now: datetime) -> Grant:
    grant = _grant(estate, drops, now)
    estate.requests.keep(batch, "grant/seals", grant.canonical().encode())
    return grant

"""Readers: a door through which a collection is read without anybody whose account is being closed.

Values under keys are sealed, and nobody alone reads them. What lies in clear is only frozen: it is there until it is
erased, and is kept back from whoever reads through here, from the approval on.

    403   frozen: sealed, or about to be; the account may still come back
    410   gone: past the point of no return, whether the bytes are overwritten yet or not

Rows belong to whom their owner's field names; who is merely mentioned in a row of somebody else is not kept back.
Whoever opens the stores themselves is not stopped: rights on files and databases are the operator's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from fangxin.data.catalog.kinds import canonical_column
from fangxin.data.errors import InputError, NotAllowed
from fangxin.data.vocabulary import Collection, Field
from fangxin.flows.desk import Desk, request_of
from fangxin.flows.lifecycle import State

FROZEN, GONE = 403, 410
_FROZEN = (State.SEALING, State.COOLING, State.READY)
_GONE = (State.DESTROYING, State.OVERWRITING, State.VALIDATING, State.STALLED)


@dataclass
class Kept:
    """How many rows passed, and how many were kept back."""

    rows: int = 0
    kept_back: int = 0


@dataclass(frozen=True)
class Closed:
    """The accounts that may not be read, and as what."""

    accounts: Mapping[str, int] = field(repr=False)

    def refuse(self, account: str) -> None:
        """NotAllowed, with 403 or 410 as its first word, for an account that may not be read."""
        if self.accounts.get(account) == FROZEN:
            raise NotAllowed(
                "403: this account is sealed, and is processed no more", hint="it may come back until regret is over"
            )
        if self.accounts.get(account) == GONE:
            raise NotAllowed("410: this account is being erased", hint="drop what was copied of it")


def closed(desk: Desk) -> Closed:
    """Who may not be read at this moment."""
    kind, found = desk.estate.catalog.person_kind, dict[str, int]()
    for one in desk.closures.many(desk.closures.in_state(*(s.value for s in (*_FROZEN, *_GONE)))):
        if one.sealed is not None:
            answer = FROZEN if request_of(one).state in _FROZEN else GONE
            found |= {value: answer for of, value in desk.opened(one).facts if of == kind}
    return Closed(found)


def rows(
    desk: Desk, address: str, names: Sequence[str], kept: Kept, *, account: str | None = None
) -> Iterator[pa.RecordBatch]:
    """The rows of a collection, or of one account in it, without those of whoever may not be read; `kept` counts them.

    InputError for a field that is not there, and for personal fields of which no field says whose they are; NotAllowed
    for an account that may not be read.
    """
    estate = desk.estate
    collection = estate.catalog.collection(address)
    store = estate.store_of(address)
    there = list(store.fields(collection).names)
    if unknown := sorted(set(names) - set(there)):
        raise InputError(f"{address}: no field {', '.join(unknown)}", hint=f"one of {', '.join(there)}")
    wanted, owner = list(names) or there, _owner(desk, collection)
    away = closed(desk)
    if account is not None:
        away.refuse(account)
    asked = list(dict.fromkeys([*wanted, *([owner.name] if owner else [])]))
    for _address, part in store.scan({address: asked}):
        batch = part.columns
        if owner is not None:
            batch = batch.filter(_open(desk, batch.column(owner.name), away, account))
        kept.rows += batch.num_rows
        if account is None:
            kept.kept_back += part.columns.num_rows - batch.num_rows
        yield batch.select(wanted)


def write(desk: Desk, address: str, names: Sequence[str], out: Path, *, account: str | None = None) -> Kept:
    """The same as a Parquet file; InputError where it is there already. Nothing is left of a read that was refused."""
    import pyarrow.parquet as pq

    if out.exists():
        raise InputError(f"{out}: is there already", hint="name a new file")
    kept, writer = Kept(), None
    try:
        for batch in rows(desk, address, names, kept, account=account):
            writer = writer or pq.ParquetWriter(out, batch.schema)
            writer.write_batch(batch)
    finally:
        if writer is not None:
            writer.close()
    return kept


def _owner(desk: Desk, collection: Collection) -> Field | None:
    """The field that says whose a row is; None where nothing of it is anybody's."""
    kind = desk.estate.catalog.person_kind
    found = next((one for one in collection.fields if kind in (*one.matches, *one.emits)), None)
    if found is None and any(one.personal for one in collection.fields):
        raise InputError(
            f"{collection.address}: personal fields, but no field leads to the person",
            hint="add a reference to the person collection's primary key",
        )
    return found


def _open(desk: Desk, column: pa.Array, away: Closed, account: str | None) -> pa.Array:
    """Which rows may be read; rows of nobody are nobody's secret."""
    whose = canonical_column(desk.estate.catalog.person_kind or "", column)
    if account is not None:
        return pc.fill_null(pc.equal(whose, account), False)  # noqa: FBT003  pyarrow's own order
    return pc.invert(pc.is_in(whose, value_set=pa.array(list(away.accounts), pa.string())))

"""What a batch notes beside the pages, in the file's plain metadata, and what the next writer reads of it.

`attempt` is the highest number that was tried, `unscrubbed` the rows that a batch left dead, `undo` what stood in every
note before an attempt, `grant/<nonce>` what was done under a grant. All of it is public, and nothing rests on it that
the root does not say: a note of an attempt counts once its root is the living one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fangxin.data.errors import NotAllowed
from fangxin.data.keys.grant import Grant
from fangxin.data.keys.replica import LAST_WRITE
from fangxin.data.keys.roots.protocol import Living
from fangxin.data.keys.vault import LOSSY

Notes = dict[str, bytes | None]  # metadata by name; None = removed
Said = Mapping[str, bytes]  # metadata as it is

LEFT = ("attempt", "unscrubbed", LOSSY, *LAST_WRITE)  # what every write asks of the one before
GRANT = "grant/"  # how the names of notes of batches begin
FEW = 64  # dead rows that may wait for the next batch


def tried(said: Said) -> int:
    """The highest number that was tried, committed or not."""
    return int(said.get("attempt", b"0"))


def next_number(living: Living, said: Said) -> int:
    """The generation that the next attempt is for; the number of one that was given up is burnt."""
    return max(tried(said), living.generation) + 1


def carried_out(grant: Grant, said: Said) -> dict[str, Any] | None:  # Any: the keyword arguments of a Receipt
    """What was done under a grant; None if nothing was. NotAllowed if its nonce was used for another batch.

    The nonce of an attempt that was given up is taken back by whoever writes next.
    """
    if (note := said.get(GRANT + grant.nonce)) is None:
        return None
    facts: dict[str, Any] = json.loads(note)
    if facts["grant"] != grant.plan_hash:
        raise NotAllowed("the grant's nonce was used for another batch", hint="have a new plan approved")
    return {"officers": 0} | facts | {"domains": tuple(facts["domains"])}


def undo(generation: int, notes: Notes, said: Said) -> bytes:
    """What was noted before, in case the root of this attempt is never committed."""
    told = {name: said[name].hex() if name in said else None for name in notes}
    return json.dumps({"generation": generation, "notes": told}).encode()


def undone(said: Said, living: int) -> Iterator[tuple[str, bytes | None]]:
    """What stood in the notes of an attempt that was not committed; nothing if the last one was."""
    if "undo" in said and tried(said) != living:
        noted = json.loads(said["undo"])
        if noted["generation"] > living:
            for name, old in noted["notes"].items():
                yield name, None if old is None else bytes.fromhex(old)


def unscrubbed(generation: int, dead: Sequence[int]) -> bytes:
    """The rows that a batch leaves dead, to be believed once its root is the living one; many are searched for."""
    return f"[{','.join(map(str, (generation, *(dead if len(dead) <= FEW else (-1,)))))}]".encode()


def dead(said: Said, generation: int) -> Sequence[int] | None:
    """The rows that the batch of this generation left dead; None where the living ones have to be asked for."""
    if (noted := said.get("unscrubbed")) is None:
        return ()
    try:
        of, *rows = map(int, noted[1:-1].split(b","))
    except ValueError:
        return None
    return rows if of == generation and -1 not in rows else None

"""As it stands: an operator's word that a batch is to end though something FAILED and cannot be mended.

A file that somebody replaced while a batch was killed leaves blocks that nobody can reach any more, and the batch would
fail at every look for ever, with its people in it. The word is a code, logged when it is used. It makes nothing true:
what FAILED is certified as FAILED, with its reason and without a claim (exit 1); what holds is certified as ever. Then
the batch closes, and the same people can be erased anew.

The word is of the run that it is given to and of that run's own look. It is kept nowhere: a run that is refused,
stopped or killed before its validation is done leaves nothing that a later one would take for consent.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from fangxin.data.errors import NotAllowed
from fangxin.data.requests import Batch
from fangxin.flows import plainly
from fangxin.flows.estate import Estate
from fangxin.flows.evidence import AS_IT_STANDS, mark, of_look, record
from fangxin.flows.lost import lost

_ENDED = "ended.as_it_stands/"
_GIVEN: ContextVar[tuple[str, str] | None] = ContextVar("given", default=None)  # batch, code


@contextmanager
def given(estate: Estate, batch_id: str, code: str | None) -> Iterator[None]:
    """Let the word hold for a batch while its steps run in here, under the home's lock; None is no word.

    InputError for what is no code, NotAllowed where no look of this batch has failed yet: there is nothing to concede.
    """
    if code is None:
        yield
        return
    plainly.code(code, "--as-it-stands")
    batch = estate.requests.batch(batch_id)
    if batch.state != "open":
        raise NotAllowed(f"batch {batch.id} is {batch.state}: nothing of it is left to be ended")
    if estate.requests.note(batch.id, "residue/0") is None and not lost(estate, batch):
        raise NotAllowed(
            f"batch {batch.id} is open, and no look of it has failed",
            hint="run `fangxin resume` without --as-it-stands first: it may end well",
        )
    before = _GIVEN.set((batch.id, code))
    try:
        yield
    finally:
        _GIVEN.reset(before)


def word(batch: Batch) -> str | None:
    """The code that was given to this run for a batch; None where nobody did."""
    said = _GIVEN.get()
    return said[1] if said is not None and said[0] == batch.id else None


def log(estate: Estate, batch: Batch, code: str, *, at: int) -> None:
    """Put the word on record; `at`: of which look."""
    tagged = mark(batch, of_look(AS_IT_STANDS, at))
    entry: dict[str, int | str] = {"type": "exception", "tag": tagged, "role": "operator"}
    record(estate, [entry | {"code": f"{_ENDED}{code}"}])

"""As it stands: an operator's word that a batch is to end though something FAILED and cannot be mended.

A file that somebody replaced while a batch was killed leaves blocks that nobody can reach any more, and the batch would
fail at every look for ever, with its people in it. The word is a code, logged when it is used. It makes nothing true:
what FAILED is certified as FAILED, with its reason and without a claim (exit 1); what holds is certified as ever. Then
the batch closes, and the same people can be erased anew.
"""

from __future__ import annotations

from fangxin.data.errors import NotAllowed
from fangxin.data.requests import Batch
from fangxin.flows import plainly
from fangxin.flows.estate import Estate
from fangxin.flows.evidence import AS_IT_STANDS, mark, record

_NOTE = "as_it_stands"
_ENDED = "ended.as_it_stands/"


def say(estate: Estate, batch_id: str, code: str) -> None:
    """Note the word for a batch; it holds for the next look, if that fails as well.

    InputError for what is no code, NotAllowed where no look of this batch has failed yet: there is nothing to concede.
    """
    plainly.code(code, "--as-it-stands")
    batch = estate.requests.batch(batch_id)
    if batch.state != "open" or estate.requests.note(batch.id, "residue/0") is None:
        raise NotAllowed(
            f"batch {batch.id} is {batch.state}, and no look of it has failed",
            hint="run `fangxin resume` without --as-it-stands first: it may end well",
        )
    estate.requests.done(batch.id, _NOTE, at=estate.minute, note={"code": code}, anew=True)


def word(estate: Estate, batch: Batch) -> str | None:
    """The code that was given for a batch; None where nobody did."""
    note = estate.requests.note(batch.id, _NOTE)
    return None if note is None else str(note["code"])


def log(estate: Estate, batch: Batch, code: str) -> None:
    """Put the word on record."""
    entry: dict[str, int | str] = {"type": "exception", "tag": mark(batch, AS_IT_STANDS), "role": "operator"}
    record(estate, [entry | {"code": f"{_ENDED}{code}"}])

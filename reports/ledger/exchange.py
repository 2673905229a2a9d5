"""How a log asks a witness: the `add-checkpoint` call of C2SP tlog-witness, as bytes in and bytes out.

The body is `old <size>`, one base64 hash of the consistency proof a line, an empty line, the checkpoint. The answer
is 200 with the witness's signature lines, or 409 with the size that the witness knows, 404 for a log unknown to it,
403 for a checkpoint that the log's key did not sign, 422 for a proof that does not hold, 400 for anything malformed.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from fangxin.data.errors import DoesNotHold, InputError
from fangxin.reports.ledger import checkpoint as notes
from fangxin.reports.ledger.witness import MOST_PROOF, Conflict, UnknownLog, Witness

PATH, MOST = "/add-checkpoint", 131_072
SIZE_TYPE, TEXT_TYPE = "text/x.tlog.size", "text/plain; charset=utf-8"


def request(old: int, proof: Sequence[bytes], note: bytes) -> bytes:
    """Return the body that asks for a cosignature."""
    hashes = "".join(f"{base64.b64encode(one).decode()}\n" for one in proof)
    return f"old {old}\n{hashes}\n".encode() + note


def read_request(body: bytes) -> tuple[int, list[bytes], bytes]:
    """Return old size, proof and checkpoint of a body; InputError for anything else."""
    if len(body) > MOST:
        raise InputError("add-checkpoint: larger than a request can be")
    head, blank, note = body.partition(b"\n\n")
    first, *lines = head.split(b"\n")
    if not blank or not note or not first.startswith(b"old "):
        raise InputError("add-checkpoint: expected `old <size>`, the proof, an empty line and a checkpoint")
    if len(lines) > MOST_PROOF:
        raise InputError(f"add-checkpoint: more than {MOST_PROOF} hashes")
    try:
        old = notes.decimal(first[4:])
        proof = [notes.decode(line.decode("ascii"), "add-checkpoint") for line in lines]
    except (DoesNotHold, UnicodeDecodeError):
        raise InputError("add-checkpoint: a size or a hash is malformed") from None
    if any(len(one) != 32 for one in proof):
        raise InputError("add-checkpoint: a hash is not 32 bytes")
    return old, proof, note


def answer(witness: Witness, body: bytes, now: int) -> tuple[int, str, bytes]:
    """Return status, content type and body with which a witness answers."""
    try:
        old, proof, note = read_request(body)
        known = witness.logs().get(note.partition(b"\n")[0].decode("ascii", "replace"))
        if known is not None:
            try:
                notes.parse(note, *known.vkeys)
            except DoesNotHold as error:
                return 403, TEXT_TYPE, f"{error.message}\n".encode()
        return 200, TEXT_TYPE, witness.see(note, old, proof, now)
    except Conflict as error:
        return 409, SIZE_TYPE, b"%d\n" % error.known
    except UnknownLog as error:
        return 404, TEXT_TYPE, f"{error.message}\n".encode()
    except InputError as error:
        return 400, TEXT_TYPE, f"{error.message}\n".encode()
    except DoesNotHold as error:
        if known is not None and old == notes.parse(note, *known.vkeys).size:  # another root for the size it knows
            return 409, SIZE_TYPE, b"%d\n" % old
        return 422, TEXT_TYPE, f"{error.message}\n".encode()

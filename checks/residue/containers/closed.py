"""What is recognised and not decoded here: named, so that its raw bytes are not taken for all that was there."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from fangxin.checks.residue.containers.piece import Piece, Place, Readable, Spans

if TYPE_CHECKING:
    from fangxin.checks.residue.carve import Walk

_CLOSED = {
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!\x1a\x07": "RAR",
    b"age-encryption.org/v1": "age (encrypted)",
    b"LUKS\xba\xbe": "LUKS (encrypted)",
    b"-----BEGIN PGP MESSAGE": "OpenPGP (encrypted)",
}


def is_closed(file: Readable) -> bool:
    """Whether a file is of such a kind."""
    return file.at(0, 24).startswith(tuple(_CLOSED))


def closed(walk: Walk, place: Place) -> Generator[Piece, None, Spans]:
    """Name the kind."""
    yield from ()  # a generator like every opener
    head = place.bytes(24)
    name = next(name for magic, name in _CLOSED.items() if head.startswith(magic))
    walk.note(place.label, f"{name}: recognised, but not decoded; only its raw bytes were searched")
    return ()

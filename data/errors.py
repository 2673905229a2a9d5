"""The family of errors: each says what, where, what was expected and found, what to do, and its exit code.

    FangxinError                  70  a defect of ours
    ├── InputError                 3  wrong usage or wrong input
    │   ├── CatalogError              a catalog file, with file:line:column; may carry several problems
    │   ├── IdentityError             a malformed or undeclared identity (never quotes the value)
    │   └── SubjectsError             a subjects file, with file:line
    ├── NotAllowed                 4  state, law, hold or missing approval forbid it now
    ├── Unavailable                5  a store, key root or peer cannot be used; nothing was changed
    │   ├── StoreUnavailable          locked, read-only, truncated, foreign, symlink, hard link
    │   │   └── NotAsCatalogued    3      the store is there, and has no such table, column or file: mend the catalog
    │   ├── WriterBusy                somebody else is writing the same vault, ledger or home
    │   └── RootUnreachable           a root holder does not answer
    ├── Incomplete                 2  something could not be examined, or work is still due
    └── DoesNotHold                1  residue found, evidence false, verdict FAILED
        ├── VaultDamaged              a page does not open under a root that should open it
        ├── LedgerForked              the tree on disk does not extend what was signed
        └── UnitChanged               a unit is not the one that was located

No message ever holds an identity value, a row, or a key.
"""

from __future__ import annotations

import os


class FangxinError(Exception):
    """Base of all; `hint` says what to do, `exit_code` is the one of the contract."""

    exit_code = 70

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


def told(error: BaseException) -> list[str]:
    """The lines in which an error is told to people; of a foreign one only its type and its place.

    The text of a foreign error may quote a row, so it is left out.
    """
    if isinstance(error, FangxinError):
        return [f"fangxin: {error.message}", *([f"  what to do: {error.hint}"] if error.hint else [])]
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    place = "?" if last is None else f"{last.tb_frame.f_globals.get('__name__', '?')}:{last.tb_lineno}"
    after = "" if GIVEN_UP in getattr(error, "__notes__", ()) else "; `fangxin resume` is safe"
    return [f"fangxin: a defect of ours: {type(error).__name__} at {place}{after}"]


GIVEN_UP = "given up"  # a note on a foreign error that ended its batch: nothing is there to be resumed


def unread(error: Exception) -> str:
    """Why a file that somebody named cannot be used, in words, and with nothing of what stands in it."""
    known: dict[type[Exception], str] = {
        FileNotFoundError: "no such file",
        IsADirectoryError: "it is a folder",
        PermissionError: "it may not be read by us",
        UnicodeError: "it is not text of the expected encoding",
    }
    for kind, words in known.items():
        if isinstance(error, kind):
            return words
    if isinstance(error, OSError):
        return os.strerror(error.errno or 0)
    return "it has not the expected form"


class InputError(FangxinError):
    """Wrong usage or wrong input."""

    exit_code = 3


class CatalogError(InputError):
    """A catalog file is wrong: `problems` are lines of `file:line:column: what; expected; found; hint`."""

    def __init__(self, problems: list[str] | str) -> None:
        self.problems = [problems] if isinstance(problems, str) else problems
        super().__init__("\n".join(self.problems))


class IdentityError(InputError):
    """An identity is malformed or of a kind that nobody declares."""


class SubjectsError(InputError):
    """A subjects file cannot be read as one subject a line."""


class NotAllowed(FangxinError):
    """State, law, hold or a missing approval forbid it now."""

    exit_code = 4


class Unavailable(FangxinError):
    """A store, key root or peer cannot be used now; nothing was changed."""

    exit_code = 5


class StoreUnavailable(Unavailable):
    """A unit is locked, read-only, truncated, foreign, or not a plain file of its own."""


class NotAsCatalogued(StoreUnavailable):
    """A store can be used, and has not what the catalog names: wrong input, since no waiting will mend it."""

    exit_code = 3


class WriterBusy(Unavailable):
    """Somebody else holds the lock that this work needs."""


class RootUnreachable(Unavailable):
    """A root holder does not answer."""


class Incomplete(FangxinError):
    """Something could not be examined, or work is still due."""

    exit_code = 2


class DoesNotHold(FangxinError):
    """Residue found, evidence false, or a verdict FAILED."""

    exit_code = 1


class VaultDamaged(DoesNotHold):
    """A page of the vault does not open under the root that should open it."""


class LedgerForked(DoesNotHold):
    """The tree on disk does not extend the checkpoint that was signed last."""


class UnitChanged(DoesNotHold):
    """A unit is no longer the one that was located; locate again."""

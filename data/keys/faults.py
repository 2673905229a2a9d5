"""What the key vault says no with; the family's other members are in `fangxin.data.errors`."""

from __future__ import annotations

from fangxin.data.errors import DoesNotHold, NotAllowed, Unavailable


class KeyAbsent(DoesNotHold):
    """There is no such key: never made, or destroyed. The vault cannot tell which, and that is the point."""


class AddressTaken(DoesNotHold):
    """A subject to be created has entries already, or (odds 6e-14 among 10^8) shares an address with another."""


class SubjectSealed(NotAllowed):
    """The subject is in the cooling-off period: nobody alone can read, and no new key may be made."""

    def __init__(self) -> None:
        super().__init__(
            "the subject is sealed for the cooling-off period", hint="two of three shares restore; nobody alone can"
        )


class BackupUnusable(DoesNotHold):
    """A backup does not open under today's root."""


class RollbackSuspected(DoesNotHold):
    """Vault and root are older than the ledger says: both were put back together."""


class StaleRoot(Exception):
    """A reader was overtaken by a destroy batch; internal, it looks again."""


class Grown(Exception):
    """The vault lives in another tree's file since it grew; internal, whoever meets it follows."""


class ReplicaBehind(DoesNotHold):
    """A page delta does not follow on what the replica holds; the next writer gives it a fresh copy."""


class ReplicaAway(Unavailable):
    """No replica acknowledged a page delta, so nothing was written."""

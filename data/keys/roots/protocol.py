"""What the vault asks of whoever holds its root: put, get, retire, and a claim about what retiring achieved.

A root is split into one share per holder. Exactly one holder is the *anchor*: its single checksummed record
says which generation of which tree lives, and writing that record is the commit point of a destroy batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol

from fangxin.data.errors import DoesNotHold, RootUnreachable, Unavailable

SHARE = 32  # bytes of a share
TREE_ID = 16

CONDITIONS: Mapping[str, tuple[str, str]] = {
    "in-place-medium": (
        "The medium overwrites blocks in place; disks that remap blocks silently are not excluded.",
        "介质就地覆写数据块；不排除磁盘暗中重映射。",
    ),
    "outside-backup-sets": (
        "The root file is in no backup set, snapshot or replica.",
        "根密钥文件不在任何备份集、快照或副本中。",
    ),
    "inside-backup-set": (
        "The root file lies inside a declared backup set: old roots survive there.",
        "根密钥文件位于已声明的备份集内：旧根会在其中留存。",
    ),
    "backup-sets-unknown": (
        "Nobody has stated which folders are copied into backups, snapshots or replicas.",
        "尚无人声明哪些文件夹会被复制进备份、快照或副本。",
    ),
    "copying-filesystem": (
        "The file system may write new blocks instead of overwriting old ones.",
        "文件系统可能写入新块而非覆写旧块。",
    ),
    "data-journal": (
        "The file system's journal receives data as well, and keeps copies for a while.",
        "文件系统日志同时记录数据，会在一段时间内保留副本。",
    ),
    "solid-state": (
        "The disk reports itself as solid state: overwritten cells may survive until erased.",
        "磁盘自报为固态盘：被覆写的单元在擦除前可能仍存留。",
    ),
    "volume-manager": (
        "A volume manager lies below: its snapshots may keep old blocks.",
        "下层有卷管理器：其快照可能保留旧块。",
    ),
    "unknown-medium": (
        "Nothing is known of the medium below the file.",
        "无法得知文件之下的介质情况。",
    ),
    "software-token": (
        "The token is software: an earlier copy of its files still holds the destroyed key.",
        "该令牌为软件实现：其文件的早先副本仍含有已销毁的密钥。",
    ),
    "module-copies-unknown": (
        "Nobody has stated that the hardware module has no backup and keeps no key blobs on the host.",
        "尚无人声明该硬件模块没有备份、也不在主机上存放密钥数据块。",
    ),
    "no-module-backup": (
        "The operator states that the hardware module's keys are in no backup and in no second module.",
        "运营者声明：该硬件模块的密钥不在任何备份或第二个模块中。",
    ),
    "no-key-blobs-on-host": (
        "The operator states that the hardware module keeps no wrapped keys as files on the host.",
        "运营者声明：该硬件模块不以文件形式在主机上存放被包裹的密钥。",
    ),
    "snapshots-revive": (
        "A snapshot of the key server taken earlier, with its unseal shares, still opens the destroyed key.",
        "密钥服务器早先的快照连同其解封份额，仍可打开已销毁的密钥。",
    ),
    "provider-statement": (
        "That the key no longer exists after that day is the cloud provider's statement.",
        "该日之后密钥不复存在，系云服务商的声明。",
    ),
    "cancellable": (
        "Until a scheduled deletion takes place, whoever administers the account can cancel it.",
        "在预定的删除发生之前，账户管理员可以将其撤销。",
    ),
    "not-aws": (
        "The answers came from a stand-in for AWS KMS, not from AWS.",
        "应答来自 AWS KMS 的替代程序，而非 AWS。",
    ),
}
"""Printed sentences (English, Chinese) by the id that a claim carries."""


class RootGone(DoesNotHold):
    """The holder has no share of that generation; it was retired, or never put."""


class RootDamaged(DoesNotHold):
    """The holder's storage is there, but no valid record is in it."""


class RootRefused(RootUnreachable):
    """The holder answers, and does not let us in: wrong PIN or token, missing permission, key disabled."""


class RootSealed(RootUnreachable):
    """The holder answers, and is sealed: its operators must unseal it."""


class RootUnsettled(Unavailable):
    """A holder may still keep a generation that must be dead; reads go on, writes are refused until it answers."""


class Claim(NamedTuple):
    """What a holder may say about a retired share, never more than its evidence.

    effect: immediate | after:YYYY-MM-DD | best-effort | test-only. backup_resistant: yes | no | if (`conditions`).
    """

    effect: str
    backup_resistant: str
    conditions: tuple[str, ...]


class RootReceipt(NamedTuple):
    """That a holder keeps one generation only; `retired` are those destroyed in this call."""

    holder: str
    kept: int
    retired: tuple[int, ...]
    claim: Claim


class Living(NamedTuple):
    """What the anchor says is alive: the generation, the half of the top page, and the tree."""

    generation: int
    half: int
    tree_id: bytes


class Root(Protocol):
    """Holds one share per generation. Every call may raise RootUnreachable."""

    name: str

    def generations(self) -> Sequence[int]:
        """Every generation whose share can still be had, ascending."""
        ...

    def put(self, generation: int, share: bytes) -> None:
        """Keep a share, durable and read back when it returns; the same share again changes nothing."""
        ...

    def get(self, generation: int) -> bytes:
        """The share of that generation; RootGone if there is none."""
        ...

    def claim(self) -> Claim:
        """What retiring a generation would be worth here and now; destroys nothing."""
        ...

    def retire(self, *, keep: int) -> RootReceipt:
        """Destroy every other generation; idempotent; carries the claim reached. RootGone if `keep` is not here."""
        ...


class Anchor(Root, Protocol):
    """The one holder whose record is the commit point."""

    def living(self) -> Living:
        """What lives now; RootGone where nothing was ever committed, RootDamaged where no record is valid."""
        ...

    def commit(self, generation: int, share: bytes, half: int, tree_id: bytes) -> None:
        """Make a generation the living one, in one checksummed record, durable and read back when it returns."""
        ...

    def settle(self) -> tuple[Living, RootReceipt]:
        """`living`, and `retire` of everything else: every write asks for both, twice."""
        ...


def strongest(receipts: Sequence[RootReceipt]) -> Claim:
    """The claim of the strongest single holder: the root is dead once one share is truly dead. Never a sum."""
    effects = ("immediate", "after:", "best-effort", "test-only")
    resistances = ("yes", "if", "no")

    def weakness(claim: Claim) -> tuple[int, int, str]:
        effect = next(i for i, name in enumerate(effects) if claim.effect.startswith(name))
        return resistances.index(claim.backup_resistant), effect, claim.effect

    return min((r.claim for r in receipts), key=weakness)


def dated(claim: Claim, at: datetime) -> datetime:
    """When a destruction done at this moment holds: a claim "after" a day holds from the next one (UTC)."""
    if not claim.effect.startswith("after:"):
        return at
    day = datetime.fromisoformat(claim.effect.removeprefix("after:")).replace(tzinfo=UTC)
    return max(at, day + timedelta(days=1))

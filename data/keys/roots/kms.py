"""AWS KMS as keeper: a single-Region key per generation, whose deletion is scheduled to retire it.

AWS deletes no key at once: the waiting period is 7 to 30 days, within which the account's administrators can cancel
it. So a retired share is dead only after the date that AWS gave, and the claim says that date, never an earlier one.

* The handle is the key's ARN, kept beside the share; an alias `alias/<name>` lets a list find what a file lost.
* A key waiting for its deletion keeps its alias, so a deletion that somebody cancelled is scheduled again.
* Whatever answers under another address than AWS's own is named as such, and claims nothing.
* Only a stand-in was tried, never AWS itself.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from fangxin.data.errors import InputError, RootUnreachable
from fangxin.data.keys.roots.protocol import Claim, RootDamaged, RootGone, RootRefused

SHORTEST, LONGEST = 7, 30  # days of waiting that KMS accepts
REFUSED = frozenset(
    {
        "AccessDeniedException",
        "UnrecognizedClientException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "IncompleteSignature",
        "MissingAuthenticationToken",
        "ExpiredTokenException",
        "OptInRequired",
    }
)


class Kms:
    """Keys of one account and region, with the credentials that boto3 finds by itself."""

    def __init__(
        self,
        region: str,
        *,
        endpoint: str | None = None,
        window: int = SHORTEST,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        if not SHORTEST <= window <= LONGEST:
            raise InputError(f"window={window}: KMS waits {SHORTEST} to {LONGEST} days before it deletes a key")
        if not region:
            raise InputError("a KMS root names its region", hint="kms:cn-north-1")
        self.region = region
        self.endpoint = endpoint
        self.window = window
        self.clock = clock
        self._clients: dict[int, Any] = {}  # by process; Any: see _client

    def make(self, name: str) -> str:
        """Create a key and its alias, or find the one that this alias has; its ARN."""
        with self._spoken():
            for alias in self._aliases(f"alias/{name}"):
                if alias["AliasName"] == f"alias/{name}":
                    return str(self._describe(alias["TargetKeyId"])["Arn"])
            key = self._client.create_key(
                KeySpec="SYMMETRIC_DEFAULT", KeyUsage="ENCRYPT_DECRYPT", MultiRegion=False, Description=name
            )["KeyMetadata"]
            self._client.create_alias(AliasName=f"alias/{name}", TargetKeyId=key["KeyId"])
        return str(key["Arn"])

    def alive(self, handle: str) -> bool:
        """Whether the key is neither gone nor waiting for its deletion; a disabled one can be enabled again."""
        with self._spoken():
            try:
                return self._describe(handle)["KeyState"] not in ("PendingDeletion", "PendingReplicaDeletion")
            except self._client.exceptions.NotFoundException:
                return False

    def wrap(self, handle: str, share: bytes, bound: bytes) -> bytes:
        """KMS's ciphertext; `bound` is the encryption context."""
        with self._spoken():
            context = {"fangxin": bound.decode("ascii")}
            return bytes(
                self._client.encrypt(KeyId=handle, Plaintext=share, EncryptionContext=context)["CiphertextBlob"]
            )

    def unwrap(self, handle: str, wrapped: bytes, bound: bytes) -> bytes:
        """The share, under this very key."""
        with self._spoken():
            context = {"fangxin": bound.decode("ascii")}
            return bytes(
                self._client.decrypt(KeyId=handle, CiphertextBlob=wrapped, EncryptionContext=context)["Plaintext"]
            )

    def named(self, prefix: str) -> tuple[str, ...]:
        """ARNs of the keys that have an alias which begins so."""
        with self._spoken():
            targets = [alias["TargetKeyId"] for alias in self._aliases(f"alias/{prefix}") if "TargetKeyId" in alias]
            return tuple(str(self._describe(target)["Arn"]) for target in targets)

    def destroy(self, handle: str) -> datetime | None:
        """Schedule the deletion; the date that KMS gave for it, None if the key is gone already."""
        with self._spoken():
            try:
                if (waits := self._waits(handle)) is not None:
                    return waits
                told = self._client.schedule_key_deletion(KeyId=handle, PendingWindowInDays=self.window)
                return _utc(told["DeletionDate"])
            except self._client.exceptions.NotFoundException:
                return None
            except self._client.exceptions.KMSInvalidStateException:
                if (waits := self._waits(handle)) is None:  # else an answer was lost, and boto3 asked again
                    raise
                return waits

    def claim(self, gone: datetime | None) -> Claim:
        """After the last date that KMS gave; without one, after the waiting period from now."""
        # The address in use, not the one that was asked for: boto3 also obeys its own environment and files.
        return claim_of(gone or self.clock() + timedelta(days=self.window), self._client.meta.endpoint_url)

    def _waits(self, handle: str) -> datetime | None:
        known = self._describe(handle)
        return _utc(known["DeletionDate"]) if known["KeyState"] == "PendingDeletion" else None

    # ------------------------------------------------------------ boto3

    @property
    def _client(self) -> Any:  # Any: boto3 is an extra, and builds its clients at run time
        """A client of this process: a forked child must not speak on its parent's connections."""
        if os.getpid() not in self._clients:
            self._clients[os.getpid()] = self._connect()
        return self._clients[os.getpid()]

    def _connect(self) -> Any:  # Any: see _client
        try:
            import boto3
            from botocore.config import Config
        except ImportError:
            raise InputError(
                "a KMS root needs boto3, which is not installed", hint="pip install 'fangxin[kms]'"
            ) from None
        config = Config(connect_timeout=3, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 3})
        return boto3.session.Session().client("kms", region_name=self.region, endpoint_url=self.endpoint, config=config)

    def _describe(self, key: str) -> Any:  # Any: JSON
        return self._client.describe_key(KeyId=key)["KeyMetadata"]

    def _aliases(self, prefix: str) -> list[Any]:  # Any: JSON
        pages = self._client.get_paginator("list_aliases").paginate()
        return [one for page in pages for one in page["Aliases"] if one["AliasName"].startswith(prefix)]

    @contextlib.contextmanager
    def _spoken(self) -> Iterator[None]:
        """Turn boto3's errors into ours; messages of the service are not repeated."""
        _ = self._client
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", "?"))
            raise _ours(code) from None
        except NoCredentialsError:
            raise RootRefused("there are no credentials for AWS KMS", hint="give boto3 a role or a profile") from None
        except BotoCoreError as error:
            raise RootUnreachable(
                f"AWS KMS in {self.region} does not answer: {type(error).__name__}", hint="repeat when it does"
            ) from None


def claim_of(gone: datetime, endpoint: str) -> Claim:
    """What a scheduled deletion is worth; nothing, if it was not AWS that answered."""
    at = urlsplit(endpoint)
    if at.scheme != "https" or not re.fullmatch(r"kms(-fips)?\.[a-z0-9-]+\.amazonaws\.com(\.cn)?", at.hostname or ""):
        return Claim("test-only", "no", ("not-aws", "cancellable"))
    return Claim(f"after:{gone.astimezone(UTC).date().isoformat()}", "if", ("provider-statement", "cancellable"))


def _ours(code: str) -> Exception:
    if code == "NotFoundException":
        return RootGone("AWS KMS has no such key", hint="another account or region, or the key was deleted")
    if code == "KMSInvalidStateException":
        return RootGone(
            "the key waits for its deletion in AWS KMS",
            hint="if it is the living one, an administrator must cancel its deletion before the date in KMS",
        )
    if code == "DisabledException":
        return RootRefused("the key is disabled in AWS KMS", hint="an administrator enables it")
    if code in ("InvalidCiphertextException", "IncorrectKeyException"):
        return RootDamaged("AWS KMS does not open it")
    if code in REFUSED:
        return RootRefused(
            f"AWS KMS refuses us: {code}",
            hint="allow CreateKey, CreateAlias, ListAliases, DescribeKey, Encrypt, Decrypt, ScheduleKeyDeletion",
        )
    return RootUnreachable(f"AWS KMS answers {code}", hint="repeat later")


def _utc(when: datetime) -> datetime:
    return when.astimezone(UTC)

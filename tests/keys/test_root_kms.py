"""AWS KMS as root holder: the real boto3 against our own strict stand-in, which the claim names as such."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from contracts.root import KeeperContract
from keys.kms_stand_in import ACCESS_KEY, StandIn, serving
from keys.vaults import LIFTED, destroy, refs

from fangxin.data.errors import InputError, RootUnreachable
from fangxin.data.keys.roots.kms import Kms, claim_of
from fangxin.data.keys.roots.protocol import Claim, RootGone, RootReceipt, RootRefused, dated
from fangxin.data.keys.roots.wrapped import WrappedRoot
from fangxin.data.keys.tree import KeyTree

REGION = "cn-north-1"


@pytest.fixture
def kms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StandIn]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not a secret")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with serving() as service:
        yield service


def holder(kms: StandIn, folder: Path, **other: int) -> WrappedRoot:
    keeper = Kms(REGION, endpoint=kms.url, clock=lambda: kms.now, **other)
    return WrappedRoot(folder / "kms", keeper, name="kms")


class TestTheKmsHolder(KeeperContract):
    printed = (
        "test-only",
        "no",
        (
            "The answers came from a stand-in for AWS KMS, not from AWS.",
            "Until a scheduled deletion takes place, whoever administers the account can cancel it.",
        ),
    )

    @pytest.fixture(autouse=True)
    def _served(self, kms: StandIn, tmp_path: Path) -> None:
        self.kms, self.memory = kms, tmp_path / "memory"

    def holder(self, folder: Path) -> WrappedRoot:
        return holder(self.kms, folder)

    def away(self, folder: Path) -> WrappedRoot:
        return WrappedRoot(folder / "kms", Kms(REGION, endpoint="http://127.0.0.1:9"), name="kms")

    def files(self) -> Iterable[Path]:
        self.memory.write_text(repr([(key.secret.hex(), key.state) for key in self.kms.keys.values()]))
        return [self.memory]


def test_the_claim_says_the_day_that_aws_gave_and_never_an_earlier_one(kms: StandIn, tmp_path: Path) -> None:
    root = holder(kms, tmp_path, window=9)
    root.put(1, os.urandom(32))
    root.put(2, os.urandom(32))
    handle = root._read(1).handle
    root.retire(keep=2)
    gone = root.keeper.destroy(handle)
    assert gone == kms.now + timedelta(days=9)
    kms.now += timedelta(days=3)
    assert root.keeper.destroy(handle) == gone  # asking again does not begin again
    aws = f"https://kms.{REGION}.amazonaws.com.cn"
    assert claim_of(gone, aws) == Claim("after:2026-12-02", "if", ("provider-statement", "cancellable"))
    evening = datetime.fromisoformat("2026-12-02T23:59:00-08:00")
    assert claim_of(evening, aws).effect == "after:2026-12-03"  # days are UTC


def test_a_batch_that_only_kms_makes_true_takes_effect_after_its_day(tmp_path: Path) -> None:
    now = datetime(2026, 11, 23, 12, tzinfo=UTC)
    later = claim_of(now + timedelta(days=7), f"https://kms.{REGION}.amazonaws.com.cn")
    assert dated(later, now) == datetime(2026, 12, 1, tzinfo=UTC)
    weak = RootReceipt("file", 2, (1,), Claim("best-effort", "no", ("solid-state",)))
    strong = RootReceipt("file", 2, (1,), Claim("immediate", "if", ("in-place-medium",)))
    with KeyTree.create(tmp_path / "vault", capacity=300, guard=LIFTED) as tree:
        tree.create_keys(refs(1), [1])
        receipt = replace(destroy(tree, refs(1)), effective_at=now)
    for holders, effect in (
        ((weak, RootReceipt("kms", 2, (1,), later)), "2026-12-01T00:00:00Z"),
        ((strong, RootReceipt("kms", 2, (1,), later)), "2026-11-23T12:00:00Z"),
    ):
        assert replace(receipt, holders=holders).event()["effective_at"] == effect


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://127.0.0.1:8080",
        "http://kms.cn-north-1.amazonaws.com.cn",
        "https://kms.example.com",
        "https://kms.cn-north-1.amazonaws.com.example",
        "https://amazonaws.com@example.com",
    ],
)
def test_what_is_not_aws_claims_nothing(endpoint: str) -> None:
    claim = claim_of(datetime(2026, 12, 2, tzinfo=UTC), endpoint)
    assert (claim.effect, claim.backup_resistant) == ("test-only", "no")


def test_an_endpoint_that_boto3_takes_from_its_environment_counts(
    kms: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Kms(REGION).claim(None).effect.startswith("after:")
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", kms.url)
    assert Kms(REGION).claim(None).effect == "test-only"


def test_a_waiting_key_refuses_use_and_a_cancelled_deletion_is_scheduled_again(kms: StandIn, tmp_path: Path) -> None:
    root = holder(kms, tmp_path)
    root.put(1, os.urandom(32))
    root.put(2, os.urandom(32))
    file, record = (root.folder / "1.share").read_bytes(), root._read(1)
    root.retire(keep=2)
    (root.folder / "1.share").write_bytes(file)  # from a backup of the folder
    with pytest.raises(RootGone, match="waits for its deletion"):
        root.get(1)
    kms.do_CancelKeyDeletion(record.handle)
    with pytest.raises(RootRefused, match="disabled"):
        root.get(1)
    kms.do_EnableKey(record.handle)
    assert len(root.get(1)) == 32  # what "can be cancelled" means
    (root.folder / "1.share").unlink()
    root.retire(keep=2)
    (root.folder / "1.share").write_bytes(file)
    with pytest.raises(RootGone):
        root.get(1)
    kms.now += timedelta(days=7)
    with pytest.raises(RootGone, match="no such key"):
        root.get(1)
    assert root.generations() == (2,)


def test_the_living_key_waiting_or_disabled_is_named_with_the_way_back(kms: StandIn, tmp_path: Path) -> None:
    root, share = holder(kms, tmp_path), os.urandom(32)
    root.put(1, share)
    handle = root._read(1).handle
    kms.do_ScheduleKeyDeletion(handle, 7)
    with pytest.raises(RootGone, match="waits") as told:
        root.get(1)
    assert "cancel" in told.value.hint
    kms.do_CancelKeyDeletion(handle)
    with pytest.raises(RootRefused, match="disabled"):
        root.get(1)
    assert root.generations() == (1,)
    kms.do_EnableKey(handle)
    assert root.get(1) == share


def test_wrong_credentials_are_refused_and_not_repeated(
    kms: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder(kms, tmp_path).put(1, os.urandom(32))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDSOMEBODY")
    with pytest.raises(RootRefused, match="UnrecognizedClientException") as told:
        holder(kms, tmp_path).get(1)
    assert "SOMEBODY" not in str(told.value)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(RootRefused, match="no credentials"):
        holder(kms, tmp_path).get(1)


@pytest.mark.parametrize("operation", ["CreateKey", "CreateAlias", "Encrypt", "Decrypt"])
def test_a_lost_answer_leaves_one_share_and_nothing_that_opens_another(
    kms: StandIn, tmp_path: Path, operation: str
) -> None:
    root, share = holder(kms, tmp_path), os.urandom(32)
    root.put(1, os.urandom(32))
    kms.lose.add(operation)
    try:
        root.put(2, share)
    except RootUnreachable:  # nobody knows whether it was done: the same put again
        root.put(2, share)
    assert operation not in kms.lose
    assert root.get(2) == share
    root.retire(keep=2)
    assert root.generations() == (2,)


def test_a_lost_answer_to_a_deletion_is_asked_for_again(kms: StandIn, tmp_path: Path) -> None:
    root = holder(kms, tmp_path)
    root.put(1, os.urandom(32))
    root.put(2, os.urandom(32))
    handle = root._read(1).handle
    kms.lose.add("ScheduleKeyDeletion")
    root.retire(keep=2)
    assert not kms.lose
    assert kms.do_DescribeKey(handle)["KeyMetadata"]["KeyState"] == "PendingDeletion"
    assert root.generations() == (2,)


def test_throttling_is_waited_out_and_too_much_of_it_is_named(kms: StandIn, tmp_path: Path) -> None:
    root, share = holder(kms, tmp_path), os.urandom(32)
    root.put(1, share)
    kms.throttle = 1
    assert root.get(1) == share
    kms.throttle = 50
    with pytest.raises(RootUnreachable, match="ThrottlingException"):
        root.get(1)


def test_an_alias_that_is_not_yet_listed_hides_no_aborted_key(kms: StandIn, tmp_path: Path) -> None:
    root = holder(kms, tmp_path)
    kms.delay = 50
    root.put(1, os.urandom(32))
    root.put(2, os.urandom(32))
    aborted = root._read(2).handle
    assert root.retire(keep=1).retired == (2,)
    assert kms.do_DescribeKey(aborted)["KeyMetadata"]["KeyState"] == "PendingDeletion"


@pytest.mark.parametrize("window", [0, 6, 31])
def test_a_waiting_period_that_kms_would_not_accept_is_refused_at_once(window: int) -> None:
    with pytest.raises(InputError, match="7 to 30"):
        Kms(REGION, window=window)

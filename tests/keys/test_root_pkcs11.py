"""A PKCS#11 token as root holder, on a real SoftHSM: it keeps the contract, and a copy of its files undoes it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import pkcs11
import pytest
from contracts.root import KeeperContract
from keys.root_servers import LABEL, PIN, SoftHsm, softhsm
from keys.vaults import in_child

from fangxin.data.errors import RootUnreachable
from fangxin.data.keys.roots.pkcs11 import STATED, Token, claim_of
from fangxin.data.keys.roots.protocol import Claim, RootGone, RootRefused
from fangxin.data.keys.roots.wrapped import WrappedRoot


@pytest.fixture(scope="module")
def hsm(tmp_path_factory: pytest.TempPathFactory) -> SoftHsm:
    return softhsm(tmp_path_factory)


def holder(hsm: SoftHsm, folder: Path) -> WrappedRoot:
    return WrappedRoot(folder / "pkcs11", Token(hsm.module, LABEL, hsm.pin_file), name="pkcs11")


class TestTheTokenHolder(KeeperContract):
    printed = (
        "test-only",
        "no",
        ("The token is software: an earlier copy of its files still holds the destroyed key.",),
    )

    @pytest.fixture(autouse=True)
    def _real(self, hsm: SoftHsm) -> None:
        self.hsm = hsm

    def holder(self, folder: Path) -> WrappedRoot:
        return holder(self.hsm, folder)

    def away(self, folder: Path) -> WrappedRoot:
        unplugged = Token(self.hsm.module, "unplugged", self.hsm.pin_file)
        return WrappedRoot(folder / "pkcs11", unplugged, name="pkcs11")

    def files(self) -> Iterable[Path]:
        return [path for path in self.hsm.tokens.rglob("*") if path.is_file()]


def test_the_key_cannot_be_read_from_its_token(hsm: SoftHsm, tmp_path: Path) -> None:
    root = holder(hsm, tmp_path)
    root.put(1, os.urandom(32))
    with root.keeper._session() as session:  # type: ignore[attr-defined]  # the token's own session
        (key,) = root.keeper._find(session, root._read(1).handle)  # type: ignore[attr-defined]
        assert not key[pkcs11.Attribute.EXTRACTABLE]
        assert key[pkcs11.Attribute.NEVER_EXTRACTABLE]
        with pytest.raises(pkcs11.AttributeSensitive):
            key[pkcs11.Attribute.VALUE]


def test_a_wrong_pin_is_tried_once_and_not_repeated_in_the_message(hsm: SoftHsm, tmp_path: Path) -> None:
    root = holder(hsm, tmp_path)
    root.put(1, os.urandom(32))
    for content in ("13579135", "9"):
        wrong = tmp_path / "wrong"
        wrong.write_text(content)
        refused = WrappedRoot(root.folder, Token(hsm.module, LABEL, wrong), name="pkcs11")
        with pytest.raises(RootRefused, match="refuses the PIN") as told:
            refused.get(1)
        assert content not in str(told.value)
        assert PIN not in str(told.value)
    missing = WrappedRoot(root.folder, Token(hsm.module, LABEL, tmp_path / "none"), name="pkcs11")
    with pytest.raises(RootRefused, match="cannot be read"):
        missing.get(1)
    assert len(root.get(1)) == 32


def test_a_missing_module_and_an_unknown_token_are_named(hsm: SoftHsm, tmp_path: Path) -> None:
    root = holder(hsm, tmp_path)
    root.put(1, os.urandom(32))
    for keeper, message in (
        (Token(tmp_path / "no.so", LABEL, hsm.pin_file), r"module no\.so fails"),
        (Token(hsm.module, "elsewhere", hsm.pin_file), "knows no token 'elsewhere'"),
    ):
        with pytest.raises(RootUnreachable, match=message):
            WrappedRoot(root.folder, keeper, name="pkcs11").get(1)


def test_an_emptied_token_is_a_lost_root(hsm: SoftHsm, tmp_path: Path) -> None:
    root = holder(hsm, tmp_path)
    root.put(1, os.urandom(32))
    root.keeper.destroy(root._read(1).handle)
    with pytest.raises(RootGone, match="generation 1"):
        root.get(1)
    assert root.generations() == ()


def test_a_copy_of_the_tokens_files_does_bring_a_destroyed_key_back(hsm: SoftHsm, tmp_path: Path) -> None:
    """What keeps the claim honest."""
    root, share = holder(hsm, tmp_path), os.urandom(32)
    root.put(1, share)
    shutil.copytree(hsm.tokens, tmp_path / "copy")
    shutil.copyfile(root.folder / "1.share", tmp_path / "1.share")
    root.put(2, os.urandom(32))
    root.retire(keep=2)
    with pytest.raises(RootGone):
        root.get(1)
    shutil.copytree(tmp_path / "copy", hsm.tokens, dirs_exist_ok=True)
    shutil.copyfile(tmp_path / "1.share", root.folder / "1.share")

    def look() -> None:  # a process of its own reads the token's files anew
        if root.get(1) == share:
            os._exit(7)

    assert os.waitstatus_to_exitcode(os.waitpid(in_child(look), 0)[1]) == 7


def test_hardware_claims_what_its_operator_states_and_no_more() -> None:
    assert claim_of(True, True, STATED) == Claim("test-only", "no", ("software-token",))
    assert claim_of(False, False, STATED) == Claim("best-effort", "no", ("software-token",))
    assert claim_of(False, True, STATED[:1]) == Claim("best-effort", "no", ("module-copies-unknown",))
    assert claim_of(False, True, STATED) == Claim("immediate", "if", STATED)

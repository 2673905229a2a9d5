"""OpenBao's transit engine as root holder, on a real server: it keeps the contract, and a snapshot of it undoes it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from contracts.root import KeeperContract
from keys.kms_stand_in import ACCESS_KEY, serving
from keys.root_servers import LABEL, Bao, softhsm
from keys.vaults import LIFTED, Adversary, destroy, raw, refs

from fangxin.data.errors import InputError, RootUnreachable, VaultDamaged
from fangxin.data.keys.roots import shares
from fangxin.data.keys.roots.choose import holders
from fangxin.data.keys.roots.openbao import Transit
from fangxin.data.keys.roots.protocol import RootDamaged, RootGone, RootRefused, RootSealed, strongest
from fangxin.data.keys.roots.wrapped import WrappedRoot
from fangxin.data.keys.tree import KeyTree


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bao]:
    server = Bao.fresh(tmp_path_factory.mktemp("bao"))
    yield server
    server.stop()


def holder(bao: Bao, folder: Path, *, token: Path | None = None, mount: str = "transit") -> WrappedRoot:
    return WrappedRoot(folder / "bao", Transit(bao.url, mount, token or bao.token_file), name="bao")


class TestTheTransitHolder(KeeperContract):
    printed = (
        "best-effort",
        "no",
        ("A snapshot of the key server taken earlier, with its unseal shares, still opens the destroyed key.",),
    )

    @pytest.fixture(autouse=True)
    def _real(self, bao: Bao) -> None:
        self.bao = bao

    def holder(self, folder: Path) -> WrappedRoot:
        return holder(self.bao, folder)

    def away(self, folder: Path) -> WrappedRoot:
        return WrappedRoot(folder / "bao", Transit("http://127.0.0.1:9", "transit", self.bao.token_file), name="bao")

    def files(self) -> Iterable[Path]:
        return [path for path in self.bao.data.rglob("*") if path.is_file()]


def test_the_key_can_neither_be_exported_nor_backed_up(bao: Bao, tmp_path: Path) -> None:
    root = holder(bao, tmp_path)
    root.put(1, os.urandom(32))
    key = bao.call("GET", f"transit/keys/{root._read(1).handle}")["data"]
    assert (key["exportable"], key["allow_plaintext_backup"], key["type"]) == (False, False, "aes256-gcm96")
    name = root._prefix() + "2"
    bao.call("POST", f"transit/keys/{name}", {"type": "aes256-gcm96", "exportable": True})
    with pytest.raises(RootDamaged, match="exported"):
        root.put(2, os.urandom(32))


def test_a_wrong_token_or_none_is_refused_and_not_repeated(bao: Bao, tmp_path: Path) -> None:
    root, wrong = holder(bao, tmp_path), tmp_path / "token"
    root.put(1, os.urandom(32))
    wrong.write_text("s.notatokenatall\n")
    with pytest.raises(RootRefused, match="refuses the token") as told:
        holder(bao, tmp_path, token=wrong).get(1)
    assert "notatoken" not in str(told.value)
    with pytest.raises(RootRefused, match="cannot be read"):
        holder(bao, tmp_path, token=tmp_path / "none").get(1)


def test_an_engine_that_is_not_there_is_named(bao: Bao, tmp_path: Path) -> None:
    root = holder(bao, tmp_path)
    root.put(1, os.urandom(32))
    with pytest.raises(RootRefused, match="no engine 'elsewhere'"):
        holder(bao, tmp_path, mount="elsewhere").put(2, os.urandom(32))


def test_a_deleted_key_is_a_lost_root(bao: Bao, tmp_path: Path) -> None:
    root = holder(bao, tmp_path)
    root.put(1, os.urandom(32))
    root.keeper.destroy(root._read(1).handle)
    with pytest.raises(RootGone, match="generation 1"):
        root.get(1)
    assert root.generations() == ()


def test_a_token_never_travels_in_clear_beyond_this_machine(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="in clear"):
        Transit("http://bao.example:8200", "transit", tmp_path / "token")
    assert Transit("https://bao.example", "transit", tmp_path / "token").tls


def test_a_server_that_speaks_no_tls_is_not_trusted(bao: Bao, tmp_path: Path) -> None:
    root = WrappedRoot(tmp_path, Transit(bao.url.replace("http:", "https:"), "transit", bao.token_file), name="bao")
    with pytest.raises(RootUnreachable, match="does not answer"):
        root.put(1, os.urandom(32))


def test_a_root_in_four_holders_opens_with_all_of_them_and_dies_with_one(
    bao: Bao, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """m of m: file, SoftHSM, OpenBao and the stand-in for KMS, chosen by their addresses."""
    hsm, folder, people = softhsm(tmp_path_factory), tmp_path / "keys", refs(30)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not a secret")
    with serving() as kms:
        addresses = [
            f"pkcs11:token={quote(LABEL)}?module-path={hsm.module}&pin-source={hsm.pin_file}",
            f"bao:{bao.url}/transit?token-file={bao.token_file}",
            f"kms:cn-north-1?endpoint={kms.url}",
        ]
        with KeyTree.create(folder, capacity=300, holders=holders(addresses, folder), guard=LIFTED) as tree:
            tree.create_keys(people, [1])
            known = raw(tree, people)
            thief = Adversary(tree, tmp_path / "copies")
            thief.visit()
            everyone = [tree.anchor, *tree.holders]
            assert [one.name for one in everyone] == ["file", "pkcs11", "bao", "kms"]
            old = [one.get(tree.generation) for one in everyone]
            names = [one.name for one in everyone]
            for lost in range(4):  # any three shares and a guess open nothing, all four everything
                given = [bytes(32) if number == lost else share for number, share in enumerate(old)]
                root = shares.combine(given, tree_id=tree.tree_id, generation=tree.generation, holders=names)
                assert thief.opens(root) == frozenset()
            root = shares.combine(old, tree_id=tree.tree_id, generation=tree.generation, holders=names)
            assert thief.opens(root) >= set(known.values())
            receipt = destroy(tree, people[:4])
            assert [one.retired for one in receipt.holders] == [(1,)] * 4
            assert receipt.claim == strongest(receipt.holders) in [one.claim for one in receipt.holders]
            assert [one.claim.effect for one in receipt.holders[1:]] == ["test-only", "best-effort", "test-only"]
        with pytest.raises(VaultDamaged):  # fewer holders, or others
            KeyTree.open(folder, holders=holders(addresses[:2], folder))
        with KeyTree.open(folder, holders=holders(addresses, folder)) as tree:
            assert raw(tree, people) == {ref: known[ref] for ref in people[4:]}


def test_a_sealed_server_and_a_copy_of_an_earlier_one(bao: Bao, tmp_path: Path) -> None:
    """Sealed: said so. The copy opens the deleted key again, which keeps the claim honest."""
    root, share = holder(bao, tmp_path), os.urandom(32)
    root.put(1, share)
    shutil.copytree(bao.data, tmp_path / "copy")
    shutil.copyfile(root.folder / "1.share", tmp_path / "1.share")
    root.put(2, os.urandom(32))
    root.retire(keep=2)
    shutil.copyfile(tmp_path / "1.share", root.folder / "1.share")
    with pytest.raises(RootGone):
        root.get(1)
    bao.seal()
    with pytest.raises(RootSealed, match="sealed"):
        root.get(2)
    bao.open()
    assert root.generations() == (2,)
    revived = Bao.revived(tmp_path / "revived", tmp_path / "copy", bao)
    try:
        assert holder(revived, tmp_path).get(1) == share
    finally:
        revived.stop()

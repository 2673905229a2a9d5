"""OpenBao's transit engine as root holder, on a real server: it keeps the contract, and a snapshot of it undoes it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from contracts.root import KeeperContract
from keys.root_servers import Bao

from fangxin.data.errors import InputError, RootUnreachable
from fangxin.data.keys.roots.openbao import Transit
from fangxin.data.keys.roots.protocol import RootDamaged, RootGone, RootRefused, RootSealed
from fangxin.data.keys.roots.wrapped import WrappedRoot


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

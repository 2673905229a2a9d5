"""A time stamping authority of the tests' own: openssl with a throw-away CA, one reply a call."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

CONFIG = """
[req]
distinguished_name = dn
prompt = no
[dn]
CN = test
[ca]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
[stamp]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = {usage}
[tsa]
default_tsa = one
[one]
serial = {folder}/serial
default_policy = 1.2.3.4.1
other_policies = 1.2.3.4.2
signer_digest = sha256
digests = sha256,sha384,sha512
ess_cert_id_alg = sha256
"""


def openssl(*words: str | Path, given: bytes = b"") -> bytes:
    run = subprocess.run(["openssl", *map(str, words)], input=given, capture_output=True, check=False)
    assert run.returncode == 0, run.stderr.decode()
    return run.stdout


@dataclass(frozen=True)
class LocalTsa:
    """Stamps with `openssl ts -reply`; `ca` is the certificate that a verifier is given."""

    folder: Path
    kind: str = "ec"

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    @classmethod
    def make(
        cls, folder: Path, *, kind: str = "ec", usage: str = "critical,timeStamping", days: int = 3650
    ) -> LocalTsa:
        folder.mkdir(parents=True)
        config = folder / "openssl.cnf"
        config.write_text(CONFIG.format(folder=folder, usage=usage))
        (folder / "serial").write_text("01\n")
        key = ("-newkey", "rsa:2048") if kind == "rsa" else ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
        made = ("req", "-config", config, "-x509", *key, "-nodes", "-days", "3650", "-subj")
        openssl(*made, "/CN=ca", "-extensions", "ca", "-keyout", folder / "ca.key", "-out", folder / "ca.pem")
        asked = ("req", "-config", config, "-new", *key, "-nodes", "-subj", "/CN=tsa", "-keyout", folder / "tsa.key")
        openssl(*asked, "-out", folder / "tsa.csr")
        sign = ("x509", "-req", "-in", folder / "tsa.csr", "-CA", folder / "ca.pem", "-CAkey", folder / "ca.key")
        ext = ("-extfile", config, "-extensions", "stamp", "-days", str(days), "-set_serial", "7")
        openssl(*sign, *ext, "-out", folder / "tsa.pem")
        return cls(folder, kind)

    def stamp(self, data: bytes) -> bytes:
        """Answer with the bytes of a TimeStampResp over these bytes."""
        (self.folder / "data").write_bytes(data)
        query = openssl("ts", "-query", "-data", self.folder / "data", "-sha256", "-cert")
        return self.reply(query)

    def reply(self, query: bytes) -> bytes:
        (self.folder / "query").write_bytes(query)
        signer = ("-signer", self.folder / "tsa.pem", "-inkey", self.folder / "tsa.key")
        asked = ("-queryfile", self.folder / "query", "-section", "one")
        return openssl("ts", "-reply", "-config", self.folder / "openssl.cnf", *asked, *signer)

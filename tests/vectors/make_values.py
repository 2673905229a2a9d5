"""Makes values.json: published vectors for the suites of values, from the package cryptography-vectors.

    python -m pip install cryptography-vectors && python tests/vectors/make_values.py

ChaCha20-Poly1305: RFC 8439 and those of BoringSSL and OpenSSL, up to 128 bytes. Poly1305: RFC 8439 A.3.
SM4-GCM: RFC 8998 A.2. A text in quotation marks in the sources is ASCII.
"""

from __future__ import annotations

import json
from pathlib import Path

import cryptography_vectors

HERE = Path(__file__).parent
NAMES = {"in": "plaintext", "iv": "nonce", "ad": "aad", "ct": "ciphertext"}


def records(name: str) -> list[dict[str, str]]:
    """The records of a file: fields in hex, by one set of names."""
    found: list[dict[str, str]] = []
    for line in cryptography_vectors.open_vector_file(name, "r"):
        key, equals, value = line.strip().partition("=")
        key, value = key.strip().lower(), value.strip()
        if not equals or line.startswith("#"):
            continue
        if key == "count":
            found.append({})
            continue
        text = value.strip('"')
        found[-1][NAMES.get(key, key)] = text.encode().hex() if value.startswith('"') else text
    return found


def main() -> None:
    """Write the file."""
    folder = "ciphers/ChaCha20Poly1305"
    aead = [one for name in ("boringssl", "openssl") for one in records(f"{folder}/{name}.txt")]
    whole = {
        "chacha20-poly1305": [one for one in aead if len(one["plaintext"]) <= 256],
        "poly1305": records("poly1305/rfc7539.txt"),
        "sm4-gcm": records("ciphers/SM4/rfc8998.txt"),
    }
    (HERE / "values.json").write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    main()

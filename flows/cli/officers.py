"""Commands of the officers: a signing key, who is one, and a signature under a plan."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from fangxin.data.errors import InputError, NotAllowed, unread
from fangxin.flows.cli.console import answer, say


def officer(name: str, folder: Path, *, as_json: bool) -> int:
    """Write NAME.key (mode 0600) and NAME.pub."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    if not (name.isascii() and name.isidentifier()):
        raise InputError(
            "an officer's name: expected ASCII letters, digits and underscores", hint="a role such as dpo_1"
        )
    key = Ed25519PrivateKey.generate()
    folder.mkdir(parents=True, exist_ok=True)
    secret, public = folder / f"{name}.key", folder / f"{name}.pub"
    if secret.exists() or public.exists():
        raise InputError(f"{secret}: is there already", hint="a key is never written over")
    with os.fdopen(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_text(key.public_key().public_bytes_raw().hex() + "\n", "utf-8")

    def words() -> None:
        say(f"{secret} stays with the officer; enrol {public}: fangxin keys officers --add {public}")

    answer({"officer": name, "key": str(secret), "public": str(public)}, as_json=as_json, words=words)
    return 0


def officers(
    home: Path,
    add: Sequence[Path],
    remove: Sequence[str],
    *,
    plan: Path | None,
    approvals: Sequence[Path],
    as_json: bool,
) -> int:
    """Show the officers, or put others in charge; two of the present ones sign that, once there are two."""
    from fangxin.data.keys.approval import Guard
    from fangxin.data.keys.grant import Grant
    from fangxin.flows.cli.erase import read_approvals
    from fangxin.flows.estate import alone, open_estate
    from fangxin.reports.ledger.entries import minute

    estate = open_estate(home)
    with alone(home):
        tree = estate.tree
        present = tree.guard
        if add or remove:
            wanted = {n: k for n, k in present.officers.items() if n not in remove} | dict(map(_public, add))
            guard, given = Guard(wanted, present.lifted), read_approvals(approvals)
            fresh = Grant.of(
                guard.as_drops(),
                vault=tree.vault_id,
                generation=tree.generation,
                catalog="",
                not_before=estate.now,
                action="enrol",
            )
            if len(present.officers) > 1 and not given:
                if plan is None:
                    raise NotAllowed("two of the present officers sign this", hint="--plan FILE writes what they sign")
                plan.write_text(fresh.canonical(), "utf-8")
                raise NotAllowed(f"{plan}: have it signed by two of the present officers", hint="then --approval FILE")
            grant = Grant.parse(given[0].grant) if given else fresh
            root = tree.enrol(guard, grant=grant, approvals=given, now=estate.now).commitment_after
            estate.ledger.append([{"type": "key.committed", "time": minute(estate.now), "root": root}])
        names = sorted(tree.guard.officers)

    def words() -> None:
        say("officers: " + (", ".join(names) or "none; nothing that needs two of them can be destroyed"))
        if present.lifted:
            say("this is a rehearsal home: no plan needs them")

    answer({"officers": names, "lifted": present.lifted}, as_json=as_json, words=words)
    return 0


def approve(plan: Path, name: str, key: Path, out: Path, *, home: Path, now: str | None, as_json: bool) -> int:
    """Sign a plan; the signature goes to a file of its own."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    from fangxin.data.keys.approval import Approval
    from fangxin.data.keys.grant import Grant
    from fangxin.flows.settings import clock, load

    try:
        grant = Grant.parse(plan.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{plan}: cannot be read: {unread(error)}", hint="the plan that was written") from None
    try:
        secret = load_pem_private_key(key.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{key}: cannot be read: {unread(error)}", hint="NAME.key of the officer") from None
    if not isinstance(secret, Ed25519PrivateKey):
        raise InputError(f"{key}: expected an Ed25519 key", hint="`fangxin keys officer` makes one")
    moment = datetime.now(UTC) if now is None else clock(load(home), now)
    out.write_text(Approval.sign(grant, officer=name, key=secret, now=moment).text(), "utf-8")
    answer({"approval": str(out), "plan_digest": grant.plan_hash}, as_json=as_json, words=lambda: say(f"signed: {out}"))
    return 0


def _public(file: Path) -> tuple[str, bytes]:
    try:
        key = bytes.fromhex(file.read_text("ascii").strip())
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: not an officer's public key: {unread(error)}", hint="NAME.pub") from None
    if len(key) != 32:
        raise InputError(f"{file}: expected 32 bytes in hex, found {len(key)}", hint="NAME.pub")
    return file.stem, key

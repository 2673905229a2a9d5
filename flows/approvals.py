"""Approvals: what the ledger says of who approved a plan, and the signatures that show it to a stranger.

An `approved` entry binds the plan's digest to the grant that officers signed, to their keys and to their signatures.
The signatures lie in `home/approvals`, without the grant itself; the officers' public keys beside them in
`home/keys/officers`. Both travel in every package. What the vault carried out is in `key.destroyed`, by the same grant.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from fangxin.data.errors import InputError
from fangxin.data.keys.approval import FREE, Approval
from fangxin.data.requests import Batch
from fangxin.flows.batch import signed
from fangxin.flows.estate import Estate
from fangxin.flows.plan import Plan, domains, drops
from fangxin.reports.ledger.tiles import replace_file

APPROVALS = "approvals"  # folder of a home


def of_batch(estate: Estate, batch: Batch, plan: Plan) -> dict[str, int | str]:
    """The fields of `approved` for every request of a batch, by who had to approve it.

    NotAllowed where officers' signatures do not hold any more: keys could not die under them either.
    """
    if estate.tree.guard.lifted:  # the vault asks nobody, so nobody is said to have been asked
        return {"plan": plan.digest, "by": "rehearsal"}
    codes = {name: estate.tree.domain_code(name) for name in domains(estate.catalog)}
    dying = drops(estate.catalog, plan, codes)
    found = signed(estate, batch)
    if found is not None:
        grant, approvals = found
        estate.tree.allowed(dying, grant=grant, approvals=approvals, now=estate.now)
        return by_officers(estate, plan.digest, approvals)
    return {"plan": plan.digest, "by": "request", "cap": FREE if len(dying) <= FREE else estate.tree.cap}


def by_officers(estate: Estate, plan: str, approvals: Sequence[Approval]) -> dict[str, int | str]:
    """The fields of `approved` where officers signed; their signatures and keys are kept for packages first."""
    (grant,) = {one.grant_hash for one in approvals}
    files = {hashlib.sha256(raw).hexdigest(): raw for raw in (one.public() for one in approvals)}
    folder = estate.settings.home / APPROVALS
    folder.mkdir(exist_ok=True, mode=0o700)
    for digest, raw in files.items():
        replace_file(folder / f"{digest}.json", raw)
    keys = [_kept_key(estate, one.officer) for one in approvals]
    return {
        "plan": plan,
        "by": "officers",
        "grant": grant,
        "officers": ",".join(sorted({hashlib.sha256(key).hexdigest() for key in keys})),
        "approvals": ",".join(sorted(files)),
    }


def _kept_key(estate: Estate, officer: str) -> bytes:
    """An officer's public key, kept under a name that no other key has: a package may need a former one as well."""
    key = estate.tree.guard.officers[officer]
    if not (officer.isascii() and officer.isidentifier()):
        raise InputError("an officer's name: expected ASCII letters, digits and underscores", hint="such as dpo_1")
    folder = estate.settings.home / "keys" / "officers"
    folder.mkdir(exist_ok=True, mode=0o700)
    line = f"{key.hex()}\n".encode()
    path = folder / f"{officer}.pub"
    if path.exists() and path.read_bytes() != line:
        path = folder / f"{officer}_{hashlib.sha256(key).hexdigest()[:8]}.pub"
    if not path.exists():
        replace_file(path, line)
    return key

"""Which holders keep shares of a vault's root beside its own file: one address each, as `fangxin.toml` has them.

    file:/media/usb/lecard.root
    pkcs11:token=LABEL?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=/etc/fangxin/pin        (RFC 7512)
    bao:https://bao.example:8200/transit?token-file=/etc/fangxin/bao-token&ca-file=/etc/fangxin/ca.pem
    kms:cn-north-1?window=7&endpoint=https://...

An address holds no secret, only the files where one lies. All shares are needed to open the vault (m of m), and it
is dead once one of them is: so every holder that is added makes destruction stronger, and loss likelier.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from fangxin.data.errors import InputError
from fangxin.data.keys.roots.file import FileRoot
from fangxin.data.keys.roots.kms import SHORTEST, Kms
from fangxin.data.keys.roots.openbao import Transit
from fangxin.data.keys.roots.pkcs11 import STATED, Token
from fangxin.data.keys.roots.protocol import Root
from fangxin.data.keys.roots.wrapped import Keeper, WrappedRoot

OPTIONS = {
    "file": (),
    "pkcs11": ("module-path", "pin-source"),
    "bao": ("token-file", "ca-file"),
    "kms": ("window", "endpoint"),
}
"""What an address of each kind may say after its question mark."""


def holders(
    addresses: Sequence[str], folder: Path, *, stated: Sequence[str] = (), backup_sets: Sequence[Path] | None = None
) -> tuple[Root, ...]:
    """The holders beside the anchor, in this order; contacts none. InputError with what is wrong with an address.

    `folder` is the vault's: wrapped shares lie in it, in a folder of the holder's name. `stated`: what the
    operator states of hardware (`pkcs11.STATED`). `backup_sets`: folders that are copied away, None where nobody said.
    """
    if unknown := sorted(set(stated) - set(STATED)):
        raise InputError(f"unknown statement {unknown[0]!r} about a root holder", hint=f"known: {', '.join(STATED)}")
    made: list[Root] = []
    names = ["file"]  # the anchor's
    for address in addresses:
        kind, body, options = _parse(address)
        names.append(kind)
        name = kind if names.count(kind) == 1 else f"{kind}-{names.count(kind)}"
        if kind == "file":
            made.append(FileRoot(Path(body), name=name, backup_sets=backup_sets))
        else:
            made.append(WrappedRoot(folder / name, _keeper(kind, body, options, stated), name=name))
    return tuple(made)


def _keeper(kind: str, body: str, options: dict[str, str], stated: Sequence[str]) -> Keeper:
    if kind == "kms":
        window = options.get("window", str(SHORTEST))
        if not window.isascii() or not window.isdecimal():
            raise InputError(f"root holder kms: window={window}: expected a number of days")
        return Kms(body, endpoint=options.get("endpoint"), window=int(window))
    if kind == "bao":
        at = urlsplit(body)
        url, mount = f"{at.scheme}://{at.netloc}", at.path.strip("/")
        ca = options.get("ca-file")
        return Transit(url, mount, _file(kind, options, "token-file"), ca_file=Path(ca) if ca else None)
    label, _, token = body.partition("=")
    if label != "token" or not token:
        raise InputError("root holder pkcs11: expected pkcs11:token=LABEL?…", hint="RFC 7512; other parts are not read")
    pin, module = _file(kind, options, "pin-source"), _file(kind, options, "module-path")
    return Token(module, token, pin, stated=stated)


def _parse(address: str) -> tuple[str, str, dict[str, str]]:
    # Messages do not repeat an address: somebody may have put a PIN or a token into it.
    kind, colon, rest = address.partition(":")
    if not colon or kind not in OPTIONS:
        raise InputError("a root holder's address begins with its kind", hint=f"kinds: {', '.join(OPTIONS)}")
    body, _, query = rest.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    for option in options:
        if option not in OPTIONS[kind]:
            raise InputError(
                f"root holder {kind}: an option that it does not know",
                hint=f"known: {', '.join(OPTIONS[kind]) or 'none'}",
            )
    if not body:
        raise InputError(
            f"root holder {kind}: nothing follows the colon", hint="data/keys/roots/choose.py has examples"
        )
    if kind == "file" and not Path(body).is_absolute():
        raise InputError("root holder file: expected an absolute path", hint="another disk than the vault's is best")
    return kind, unquote(body) if kind == "pkcs11" else body, options


def _file(kind: str, options: dict[str, str], option: str) -> Path:
    path = options.get(option, "").removeprefix("file:")
    if not Path(path).is_absolute():
        raise InputError(f"root holder {kind}: {option} is missing or no absolute path")
    return Path(path)

"""The cooling-off period: a person's keys leave the vault, and any two of three shares bring them back.

    person       a restore code, shown once; we keep only the X25519 public key that is made from it
    deployment   32 random bytes at the subject's own address in the vault (domain 10), so that no new key is made
    officers     32 random bytes, boxed for every pair of officers, boxed again under an entry (domain 11) of a
                 second vault with a root of its own

Nobody alone can read a sealed person: not the service (it holds one share), not one officer, not the person. The end
destroys two shares, each with its own root; then nothing opens the record, not with every backup and the code.

A seal record lies in a file and counts only while the vault holds the subject's deployment share: `settle` clears away
what an interruption left. Records never hold a ref; whoever keeps the cases says whose record it is. When a seal ends,
and what may come back, is the vault's to decide, not the file's (`sealed.py`).

Record, little endian: header `FXS1 ‖ suite 1 ‖ keys 1 ‖ pairs 1 ‖ 00 ‖ case 16 ‖ sealed at u64 ‖ until u64 ‖
ephemeral X25519 public key 32`, which is the AAD of every box; three boxes of the record's key, each under
HKDF-SHA256 of two shares; the box of keys x (domain 1 ‖ key 32); the officers' ref 16, which is the case; pairs x
(two officers' fingerprints of 4 ‖ box of a box of the officers' share). A box is `nonce 12 ‖ AES-256-GCM`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fangxin.data.errors import DoesNotHold, InputError, NotAllowed
from fangxin.data.keys.approval import Approval
from fangxin.data.keys.domains import OFFICERS, SEALED
from fangxin.data.keys.grant import Grant, stamp
from fangxin.data.keys.receipt import Receipt
from fangxin.data.keys.sealed import Sealing
from fangxin.data.keys.tree import KeyAbsent, KeyTree

CASE = 16
SHARE = 32
_HEADER = struct.Struct("<4sBBBx16sQQ32s")
_MAGIC, _SUITE = b"FXS1", 1
_NONCE, _TAG = 12, 16
_BOXED = _NONCE + SHARE + _TAG
_PAIR = 8 + _NONCE + _BOXED + _TAG
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_CHECKS = _CROCKFORD + "*~$=U"
_SHIFT = 18  # of the check character, so that a restore code and a receipt code never pass for each other
_LENGTH = 24  # characters of a code: 120 bits
PERSON, DEPLOYMENT, JOINTLY = "person", "deployment", "officers"
_PAIRS = ((PERSON, DEPLOYMENT), (PERSON, JOINTLY), (DEPLOYMENT, JOINTLY))


class SealForged(DoesNotHold):
    """A seal record is not what was written, or the shares are not those of this record."""


@dataclass(frozen=True)
class Case:
    """One subject to be sealed: `domains` are the codes that leave the vault; what a law retains is not among them."""

    id: bytes  # 16 random bytes, the name of the record
    ref: bytes = field(repr=False)
    domains: tuple[int, ...]
    code: bytes = field(repr=False)  # the public key made from the restore code
    until: datetime


@dataclass(frozen=True)
class Record:
    """A seal record taken apart; nothing in it says whose it is."""

    case: bytes
    sealed_at: datetime
    until: datetime
    ephemeral: bytes
    header: bytes = field(repr=False)
    boxes: tuple[bytes, ...] = field(repr=False)  # in the order of the pairs of shares
    keys: bytes = field(repr=False)
    officers_ref: bytes = field(repr=False)
    pairs: tuple[tuple[bytes, bytes, bytes], ...] = field(repr=False)  # two fingerprints and their box

    @classmethod
    def parse(cls, body: bytes) -> Record:
        """Take a record apart; SealForged unless every length fits."""
        if len(body) < _HEADER.size:
            raise SealForged("a seal record is too short", hint="put the newest copy of the seals folder back")
        magic, suite, keys, pairs, case, at, until, ephemeral = _HEADER.unpack_from(body)
        sizes = [_HEADER.size, _BOXED, _BOXED, _BOXED, _NONCE + keys * (1 + SHARE) + _TAG, CASE, *[_PAIR] * pairs]
        if (magic, suite) != (_MAGIC, _SUITE) or len(body) != sum(sizes):
            raise SealForged("not a seal record of this version", hint="put the newest copy of the seals folder back")
        parts, start = [], 0
        for size in sizes:
            parts.append(body[start : start + size])
            start += size
        told = tuple((p[:4], p[4:8], p[8:]) for p in parts[6:])
        try:
            times = (datetime.fromtimestamp(at, UTC), datetime.fromtimestamp(until, UTC))
        except (ValueError, OverflowError, OSError):
            raise SealForged("a seal record tells no possible time") from None
        return cls(case, *times, ephemeral, parts[0], tuple(parts[1:4]), parts[4], parts[5], told)


# ---------------------------------------------------------------- the person's and the officers' shares


def new_code() -> tuple[str, bytes]:
    """A restore code for the person, and the public key that we keep of it: 24 characters and a check character."""
    code = ""
    while not code or code[-1] in "*~$=":  # these cannot be said on the phone
        body = "".join(secrets.choice(_CROCKFORD) for _ in range(_LENGTH))
        code = body + _check_of(body)
    return "-".join(code[i : i + 5] for i in range(0, len(code), 5)), public_of(code)


def public_of(code: str) -> bytes:
    """The X25519 public key made from a restore code; InputError, which never quotes it, where it is mistyped."""
    return _private_of(code).public_key().public_bytes_raw()


def officer_key() -> tuple[bytes, bytes]:
    """A new X25519 key pair for an officer (private, public), raw. The private one never comes near the service."""
    private = X25519PrivateKey.generate()
    return private.private_bytes_raw(), private.public_key().public_bytes_raw()


def answer(private: bytes, body: bytes) -> bytes:
    """What an officer says to a record: 36 bytes good for this case only (their fingerprint, and a secret)."""
    record = Record.parse(body)
    key = X25519PrivateKey.from_private_bytes(private)
    public = key.public_key().public_bytes_raw()
    shared = key.exchange(X25519PublicKey.from_public_bytes(record.ephemeral))
    return _fingerprint(public) + _derived(shared, record.case, b"officer" + public)


# ---------------------------------------------------------------- one record


def write_record(
    case: Case,
    keys: Sequence[tuple[int, bytes]],
    officers: Sequence[bytes],
    *,
    deployment: bytes,
    officers_ref: bytes,
    entry: bytes,
    now: datetime,
) -> bytes:
    """The record of one case. `officers`: two or more X25519 public keys; `entry`: the key of the officers' entry."""
    if len(set(officers)) < 2:
        raise InputError("sealing needs two officers or more", hint="enrol them with `fangxin keys officers`")
    ephemeral = X25519PrivateKey.generate()
    told = list(combinations(sorted(officers), 2))
    header = _HEADER.pack(
        _MAGIC,
        _SUITE,
        len(keys),
        len(told),
        case.id,
        int(now.timestamp()),
        int(case.until.timestamp()),
        ephemeral.public_key().public_bytes_raw(),
    )
    with_person = ephemeral.exchange(X25519PublicKey.from_public_bytes(case.code))
    shares = {
        PERSON: _derived(with_person, case.id, b"person"),
        DEPLOYMENT: deployment,
        JOINTLY: os.urandom(SHARE),
    }
    secret = os.urandom(SHARE)
    answers = {
        public: _derived(ephemeral.exchange(X25519PublicKey.from_public_bytes(public)), case.id, b"officer" + public)
        for public in officers
    }
    parts = [header]
    parts += [_box(_joint(shares, pair, case.id), secret, header) for pair in _PAIRS]
    parts.append(_box(secret, b"".join(bytes((code,)) + key for code, key in keys), header))
    parts.append(officers_ref)
    for one, other in told:
        inner = _box(_derived(answers[one] + answers[other], case.id, b"pair"), shares[JOINTLY], header)
        parts.append(_fingerprint(one) + _fingerprint(other) + _box(entry, inner, header))
    return b"".join(parts)


def open_record(record: Record, shares: Mapping[str, bytes]) -> tuple[tuple[int, bytes], ...]:
    """The keys (domain code, key) of a record. NotAllowed with fewer than two shares, SealForged if they do not fit."""
    pair = next((p for p in _PAIRS if shares.keys() >= set(p)), None)
    if pair is None:
        raise NotAllowed(
            "one share opens nothing", hint="restore code, deployment share, two officers: any two of them"
        )
    secret = _unbox(_joint(shares, pair, record.case), record.boxes[_PAIRS.index(pair)], record.header)
    body = _unbox(secret, record.keys, record.header)
    step = 1 + SHARE
    return tuple((body[i], body[i + 1 : i + step]) for i in range(0, len(body), step))


def persons_share(record: Record, code: str) -> bytes:
    """The share that a restore code brings."""
    shared = _private_of(code).exchange(X25519PublicKey.from_public_bytes(record.ephemeral))
    return _derived(shared, record.case, b"person")


def officers_share(record: Record, answers: Sequence[bytes], entry: bytes) -> bytes:
    """The share that two different officers bring together, while their entry lives. NotAllowed for fewer."""
    known = {one[:4]: one[4:] for one in answers}
    for one, other, box in record.pairs:
        if one in known and other in known:
            inner = _unbox(entry, box, record.header)
            return _unbox(_derived(known[one] + known[other], record.case, b"pair"), inner, record.header)
    raise NotAllowed("two different officers have to answer", hint="each runs `fangxin keys answer` with their own key")


# ---------------------------------------------------------------- all records


class Seals:
    """The records of one home, between the vault (`tree`) and the officers' vault (`second`)."""

    def __init__(self, folder: Path, tree: KeyTree, second: KeyTree) -> None:
        if tree.vault_id == second.vault_id:
            raise NotAllowed(
                "the officers' share lies under the root of the vault itself: one root would open a sealed person",
                hint="make a second vault for it, with a root of its own",
            )
        self.folder, self.tree, self.second = folder, tree, second
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def cases(self) -> tuple[bytes, ...]:
        """The ids of every record there is."""
        return tuple(sorted(bytes.fromhex(p.stem) for p in self.folder.glob("*.seal")))

    def body(self, case: bytes) -> bytes:
        """A record's bytes, for officers to answer; InputError if there is none."""
        try:
            return self._path(case).read_bytes()
        except FileNotFoundError:
            raise InputError("no such case is sealed here", hint="it was restored, or its time is over") from None

    def settle(self, *, now: datetime, among: Sequence[bytes] | None = None) -> int:
        """Finish what was interrupted: a record without a living share in the vault counts for nothing and goes.

        `among`: look at these cases only, not at every seal there is. One caller at a time: the record of a seal that
        is being made has no share yet. Returns how many went.
        """
        if among is None:
            left = {*self.cases(), *(bytes.fromhex(p.stem) for p in self.folder.glob("*.partial"))}
        else:
            paths = {one: self._path(one) for one in among}
            left = {one for one, path in paths.items() if path.exists() or path.with_suffix(".partial").exists()}
        if not left:
            return 0
        gone = sorted(left - self.tree.sealed_cases())
        self._clear(gone, now=now)
        return len(gone)

    def seal(
        self,
        cases: Sequence[Case],
        officers: Sequence[bytes],
        *,
        grant: Grant,
        now: datetime,
        approvals: Sequence[Approval] = (),
    ) -> Receipt:
        """Take the keys of these subjects out of the vault, in one batch; its commit point is the seal.

        The grant covers what leaves (`drops_of`). NotAllowed where a subject is sealed already, and where so many
        people need officers who signed it.
        """
        self.settle(now=now)
        drops = drops_of(cases)
        refs = [case.ref for case in cases]
        with self.tree.get_many(refs, SEALED) as shares:
            if shares.found.any():
                raise NotAllowed("a subject is sealed already", hint="restore or end that seal first")
        deployment = [os.urandom(SHARE) for _ in cases]
        with self.second.ensure([case.id for case in cases], OFFICERS) as boxes:
            for number, case in enumerate(cases):
                body = write_record(
                    case,
                    self._keys(case),
                    officers,
                    deployment=deployment[number],
                    officers_ref=case.id,
                    entry=bytes(boxes.raw[number]),
                    now=now,
                )
                self._write(case.id, body)
        adds = {case.ref: {SEALED: share} for case, share in zip(cases, deployment, strict=True)}
        sealings = {case.ref: Sealing(case.id, case.until) for case in cases}
        return self.tree.replace(drop=drops, add=adds, grant=grant, now=now, approvals=approvals, sealings=sealings)

    def restore(
        self, case: bytes, ref: bytes, *, code: str | None, answers: Sequence[bytes], grant: Grant, now: datetime
    ) -> Receipt:
        """Put a subject's keys back, bit for bit, by any two shares; the vault's own is one of them while it stands.

        NotAllowed after the end, or with one share; SealForged if a code or an answer is not of this record. The
        grant covers the deployment share, which dies in the same batch.
        """
        record = Record.parse(self.body(case))
        until = max(stamp(record.until), self.tree.sealed_until(ref) or "")
        if stamp(now) >= until:
            raise NotAllowed(f"the time to change one's mind ended {until}", hint="nothing brings it back")
        keys = open_record(record, self._shares(record, ref, code, answers))
        adds: dict[int, bytes] = dict(keys)
        receipt = self.tree.replace(drop={ref: frozenset({SEALED})}, add={ref: adds}, grant=grant, now=now)
        self._clear([case], now=now)
        return receipt

    def end(
        self,
        cases: Mapping[bytes, bytes],
        *,
        grant: Grant,
        now: datetime,
        approvals: Sequence[Approval] = (),
        waived: bool = False,
    ) -> Receipt:
        """Destroy two shares of each case (case -> ref): the vault's, then the officers'. From here nothing goes back.

        NotAllowed before the end; where the regret was `waived`, before a day has gone by. The second root is the
        point of no return.
        """
        receipt = self.tree.replace(
            drop=end_drops(cases), add={}, grant=grant, now=now, approvals=approvals, waived=waived
        )
        self._clear(list(cases), now=now)
        return receipt

    def _keys(self, case: Case) -> list[tuple[int, bytes]]:
        found = []
        for code in case.domains:
            with self.tree.get_many([case.ref], code) as keys:
                if keys.found[0]:
                    found.append((code, bytes(keys.raw[0])))
        return found

    def _shares(self, record: Record, ref: bytes, code: str | None, answers: Sequence[bytes]) -> dict[str, bytes]:
        shares = {}
        if code is not None:
            shares[PERSON] = persons_share(record, code)
        if answers:
            shares[JOINTLY] = officers_share(record, answers, self.second.get(record.officers_ref, OFFICERS))
        with contextlib.suppress(KeyAbsent):  # the other two are enough
            shares[DEPLOYMENT] = self.tree.get(ref, SEALED)
        return shares

    def _clear(self, cases: Sequence[bytes], *, now: datetime) -> None:
        """Destroy the officers' entries of these records, then the records themselves, whole or torn."""
        if not cases:
            return
        entries = {case: frozenset({OFFICERS}) for case in cases}
        grant = Grant.of(
            entries, vault=self.second.vault_id, generation=self.second.generation, catalog="", not_before=now
        )
        self.second.destroy(entries, grant=grant, now=now)
        self.tree.cleared(cases)
        for case in cases:
            self._path(case).unlink(missing_ok=True)
            self._path(case).with_suffix(".partial").unlink(missing_ok=True)
        self._sync()

    def _write(self, case: bytes, body: bytes) -> None:
        # A record appears whole or not at all; the case is the name of the officers' entry, so a torn one leads to it.
        part = self._path(case).with_suffix(".partial")
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(fd, body)
            os.fsync(fd)
        finally:
            os.close(fd)
        part.rename(self._path(case))
        self._sync()

    def _sync(self) -> None:
        fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _path(self, case: bytes) -> Path:
        return self.folder / f"{case.hex()}.seal"


def drops_of(cases: Sequence[Case]) -> dict[bytes, frozenset[int] | None]:
    """What leaves the vault when these cases are sealed: for the grant."""
    return {case.ref: frozenset(case.domains) for case in cases}


def end_drops(cases: Mapping[bytes, bytes]) -> dict[bytes, frozenset[int] | None]:
    """What dies in the vault when these seals end: for the grant."""
    return {ref: frozenset({SEALED}) for ref in cases.values()}


# ---------------------------------------------------------------- inside


def _number(text: str) -> int:
    value = 0
    for letter in text:
        value = value * 32 + _CROCKFORD.index(letter)
    return value


def _private_of(code: str) -> X25519PrivateKey:
    plain = code.upper().translate(str.maketrans("OIL", "011", "- ")).strip()
    body, check = plain[:_LENGTH], plain[_LENGTH:]
    if len(body) != _LENGTH or set(body) - set(_CROCKFORD) or check != _check_of(body):
        raise InputError("not a restore code: a character is missing or mistyped", hint="25 characters, as printed")
    raw = _number(body).to_bytes(_LENGTH * 5 // 8, "big")
    return X25519PrivateKey.from_private_bytes(_derived(raw, b"", b"code"))


def _check_of(body: str) -> str:
    return _CHECKS[(_number(body) + _SHIFT) % 37]


def _derived(secret: bytes, salt: bytes, what: bytes) -> bytes:
    return HKDF(SHA256(), SHARE, salt, b"fangxin/seal/1/" + what).derive(secret)


def _joint(shares: Mapping[str, bytes], pair: tuple[str, str], case: bytes) -> bytes:
    return _derived(shares[pair[0]] + shares[pair[1]], case, "+".join(pair).encode())


def _fingerprint(public: bytes) -> bytes:
    return hashlib.sha256(b"fangxin/seal/officer" + public).digest()[:4]


def _box(key: bytes, plain: bytes, aad: bytes) -> bytes:
    nonce = os.urandom(_NONCE)
    return nonce + AESGCM(key).encrypt(nonce, plain, aad)


def _unbox(key: bytes, box: bytes, aad: bytes) -> bytes:
    try:
        return AESGCM(key).decrypt(box[:_NONCE], box[_NONCE:], aad)
    except InvalidTag:
        raise SealForged(
            "the shares are not those of this record", hint="check the code and whose answers these are"
        ) from None


def records(folder: Path) -> Iterator[bytes]:
    """Every seal record below a folder, for an examination of what old copies still open."""
    for path in sorted(folder.rglob("*.seal")):
        yield path.read_bytes()

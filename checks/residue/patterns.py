"""Every byte form in which an identity may stand in a file, and one automaton that finds them all.

A *spelling* is the value as people and programs write it (`139...`, `+86 139...`, `139-1234-5678`, full-width
digits); a *form* is a spelling in bytes (UTF-16, base64 at each of three alignments, a big-endian number, a hash).

* A needle has 8 bytes at least: shorter ones hit by chance. What is left out for that is counted in `omitted`.
  Numbers of 6 bytes as SQLite stores them are searched in SQLite pages only.
* Base64 blurs the first and the last character of a value; a hit counts only if the blurred bits fit as well.
* One byte string may belong to several people: a hit counts for each of them.
* A fragment (a bound cut at 16 characters) counts only where it still names one person: the whole local part of
  an e-mail address, an ID number or a card without its check digit, random device numbers.
* Not among the forms: base64 broken into lines inside the value, needles cut in two by compression, and keyed
  hashes or ciphertext, which no search without the key can see.

Needles live in this process only: their bytes never show in a repr, and reports carry keyed digests.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import struct
import unicodedata
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from ahocorasick_rs import BytesAhoCorasick, Implementation
from cryptography.hazmat.primitives import hashes

from fangxin.data.catalog.kinds import stored_forms
from fangxin.data.vocabulary import Identity, IdentityFormat, stands_alone

SHORTEST = 8  # bytes of a needle
SHORTEST_IN_SQLITE = 6  # bytes of a number in a SQLite record
MANY = 2_000  # needles up to which a full DFA is the fastest automaton
CROWD = 1_000  # identities from which on the automaton takes the core forms only
ENOUGH = 12  # bytes of a digest that go into the automaton: a fifth of the states, at no false hit
LOWEST_NUMBER = 10**9  # smaller numbers stand for too many other things

_Ints = npt.NDArray[np.int64]


class Breadth(StrEnum):
    """How many of the forms are searched: all, or the ones that programs write without being asked to."""

    FULL = "full"
    CORE = "core"


@dataclass(frozen=True)
class Needle:
    """One byte form of one identity of one subject. `identity` is its index in the sequence that was given."""

    subject: int
    identity: int
    kind: str
    form: str
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Form:
    """Bytes, what they are, and the bits a base64 neighbour must have: (mask, bits) of the sextet, 0 = any."""

    name: str
    data: bytes = field(repr=False)
    before: tuple[int, int] = (0, 0)
    after: tuple[int, int] = (0, 0)
    sqlite_only: bool = False
    random: bool = False  # a digest: its first bytes are enough for the automaton, the rest is compared on a hit
    whole: bytes = field(default=b"", repr=False)  # of a fragment: where all of it stands, the fragment is not counted
    folded: bool = False  # ASCII letters in any case; `data` is the lower one
    text: bool = False  # as people write it, in UTF-8: what stands around it may show that it is part of a longer text


@dataclass(frozen=True)
class Hits:
    """Where needles were found: `needle[i]` ends before `end[i]` and starts at `start[i]` of the searched bytes.

    `inside[i]`: the bytes around it look as if it were part of a longer number, address or word. Only who knows where a
    value begins and ends can tell: in a page of a database the neighbour may be another value.
    """

    needle: _Ints
    start: _Ints
    end: _Ints
    inside: npt.NDArray[np.bool_]


class Needles:
    """All needles of a cohort and their automaton. Byte strings are kept once, with everybody they belong to."""

    def __init__(
        self, found: Mapping[Form, Sequence[tuple[int, int, str]]], *, breadth: Breadth, omitted: Counter[str]
    ):
        """Build the automaton. `found` maps a form to (subject, identity, kind) of its owners."""
        self._forms = list(found)
        self._owners = list(found.values())
        self.breadth = breadth
        self.omitted: Mapping[str, int] = dict(sorted(omitted.items()))
        self.longest = max((max(len(f.data), len(f.whole)) for f in self._forms), default=0)
        self._exact = self._machine_of(lambda f: not f.sqlite_only and not f.folded)
        self._folded = self._machine_of(lambda f: f.folded)
        self._in_sqlite = self._machine_of(lambda f: f.sqlite_only)
        self._doubtful = np.array(
            [bool(f.before[0] or f.after[0] or f.random or f.whole) for f in self._forms], dtype=bool
        )

    def __len__(self) -> int:
        return len(self._forms)

    def __repr__(self) -> str:
        return f"Needles({len(self)} of {len(self.subjects)} subjects, {self.breadth})"

    def __iter__(self) -> Iterator[Needle]:
        for number in range(len(self)):
            yield from self.of(number)

    def of(self, number: int) -> Iterator[Needle]:
        """The needle of that number, once for every identity it belongs to."""
        form = self._forms[number]
        for subject, identity, kind in self._owners[number]:
            yield Needle(subject, identity, kind, form.name, form.data)

    def data(self, number: int) -> bytes:
        """The bytes of a needle; for the keyed digest, and nothing that is printed."""
        return self._forms[number].data

    @property
    def subjects(self) -> frozenset[int]:
        """The numbers of the subjects searched for."""
        return frozenset(subject for owners in self._owners for subject, _identity, _kind in owners)

    @property
    def margin(self) -> int:
        """Bytes by which two pieces of one stream must overlap so that every hit is seen whole, with its neighbours."""
        return self.longest + 2

    def find(self, data: bytes | memoryview, *, sqlite: bool = False) -> Hits:
        """Every occurrence, nested and overlapping ones included; with `sqlite`, only the numbers of 6 bytes."""
        data = memoryview(data).cast("B")  # Arrow's buffers come as signed bytes
        if sqlite:
            table = self._in_sqlite(data)
        else:
            table = self._exact(data)
            if self._folded:
                table = np.concatenate([table, self._folded(bytes(data).lower())])
        if not len(table):
            none = np.empty(0, np.int64)
            return Hits(none, none, none, np.empty(0, np.bool_))
        needle, start, end = table.T.copy()
        doubtful = np.flatnonzero(self._doubtful[needle])
        if len(doubtful):
            keep = np.ones(len(needle), dtype=bool)
            for i in doubtful.tolist():
                form = self._forms[int(needle[i])]
                end[i] = start[i] + len(form.data)
                keep[i] = self._fits(form, data, int(start[i]), int(end[i]))
            needle, start, end = needle[keep], start[keep], end[keep]
        inside = [
            self._forms[n].text and not stands_alone(data, s, e)
            for n, s, e in zip(needle.tolist(), start.tolist(), end.tolist(), strict=True)
        ]
        return Hits(needle, start, end, np.array(inside, np.bool_))

    def _machine_of(self, wanted: Callable[[Form], bool]) -> _Machine:
        return _Machine({i: f for i, f in enumerate(self._forms) if wanted(f)})

    def _fits(self, form: Form, data: bytes | memoryview, start: int, end: int) -> bool:
        """Whether all of a digest is there, only the fragment, base64 neighbours with its bits (or none at an edge)."""
        if form.random:
            return data[start:end] == form.data
        if form.whole:
            return data[start : start + len(form.whole)] != form.whole
        for (mask, bits), at in ((form.before, start - 1), (form.after, end)):
            if mask and 0 <= at < len(data):
                sextet = _SEXTET.get(data[at])
                if sextet is None or sextet & mask != bits:
                    return False
        return True


class _Machine:
    """One automaton over some of the forms; answers with (number of the form, start, end) per occurrence."""

    def __init__(self, forms: Mapping[int, Form]) -> None:
        self._numbers = np.array(list(forms), dtype=np.int64)
        patterns = [f.data[:ENOUGH] if f.random else f.data for f in forms.values()]
        kind = Implementation.DFA if len(patterns) <= MANY else None
        self._machine = BytesAhoCorasick(patterns, implementation=kind) if patterns else None

    def __bool__(self) -> bool:
        return self._machine is not None

    def __call__(self, data: bytes | memoryview) -> _Ints:
        found = self._machine.find_matches_as_indexes(data, overlapping=True) if self._machine else []
        table = np.array(found, dtype=np.int64).reshape(-1, 3)
        table[:, 0] = self._numbers[table[:, 0]] if len(table) else 0
        return table


def needles_for(identities: Sequence[tuple[int, Identity]], *, breadth: Breadth | None = None) -> Needles:
    """Every byte form of every identity, as (subject, identity) pairs; core forms only for a crowd unless told."""
    breadth = breadth or (Breadth.FULL if len(identities) <= CROWD else Breadth.CORE)
    found: dict[Form, list[tuple[int, int, str]]] = {}
    known: dict[bytes, Form] = {}
    omitted: Counter[str] = Counter()
    for number, (subject, identity) in enumerate(identities):
        forms = list(forms_of(identity, breadth))
        in_any_case = {form.data for form in forms if form.folded}
        for form in forms:
            if not form.folded and form.data.lower() in in_any_case:
                continue  # an escape that changes nothing: found in any case already
            if len(form.data) < (SHORTEST_IN_SQLITE if form.sqlite_only else SHORTEST):
                omitted[form.name] += 1
                continue
            same = known.setdefault(form.data, form)
            if same != form and _conditions(same) != _conditions(form):
                same = form  # the same bytes under another condition are another needle
            owners = found.setdefault(same, [])
            if not owners or owners[-1][:2] != (subject, number):
                owners.append((subject, number, identity.kind))
    return Needles(found, breadth=breadth, omitted=omitted)


def _conditions(form: Form) -> tuple[object, ...]:
    return form.before, form.after, form.sqlite_only, form.random, form.whole, form.folded


# ---------------------------------------------------------------- the forms of one identity


def forms_of(identity: Identity, breadth: Breadth) -> Iterator[Form]:
    """Every form of one identity; the same bytes may come twice."""
    spelled = spellings(identity)
    searched = _without_nested(spelled)
    first = next(iter(searched))
    whole = spelled[""]
    if whole.isdigit() and len(whole) < SHORTEST:
        # A short number in wider characters is still a short number: it hits longer ones by chance.
        yield Form("number too short for a search", b"")
    else:
        for name, spelling in searched.items():
            for form in _text_forms(spelling, breadth, first=name == first):
                plain = form.name == "utf-8"
                folded = plain and form.data.lower() != form.data.upper()  # the letters of ASCII only
                data = form.data.lower() if folded else form.data
                yield Form(_named(name, form.name), data, form.before, form.after, folded=folded, text=plain)
        for name, text in _fragments(identity):
            for form, all_of_it in zip(_encoded(text), _encoded(identity.value), strict=True):
                yield Form(_named(name, form.name), form.data, whole=all_of_it.data)
        for name, text in spelled.items():
            digits = text.removeprefix("+")
            if digits.isascii() and digits.isdigit() and not digits.startswith("0"):
                for form in _numbers(int(digits), breadth):
                    yield Form(_named(name, form.name), form.data, sqlite_only=form.sqlite_only)
    for name, text in spelled.items():
        if name in ("", first) or (breadth is Breadth.FULL and _compact(name, text)):
            for form in _hashes(text, breadth):
                yield Form(_named(name, form.name), form.data, random=True)
    # Brokers and ad platforms exchange hashes of their own reading of a value (a phone's last ten digits).
    for text in stored_forms(identity.kind, whole, IdentityFormat.DROP):
        yield Form("drop sha256 base64", text.rstrip("=").encode(), random=True)


def _named(spelling: str, form: str) -> str:
    return f"{form} ({spelling})" if spelling else form


def spellings(identity: Identity) -> dict[str, str]:
    """The value as it is written, by name of the spelling; "" is the canonical one, and comes first."""
    value = identity.value
    texts = [*stored_forms(identity.kind, value, IdentityFormat.RAW), value.lower(), value.upper()]
    texts += [unicodedata.normalize(form, value) for form in ("NFC", "NFD")]
    found: dict[str, str] = {}
    for text in dict.fromkeys(texts):
        name = _shape(text, value)
        while name in found:
            name += "'"
        found[name] = text
    return found


def _shape(text: str, value: str) -> str:
    """What a spelling looks like, by the lengths of its parts only: `3-4-4`, `+13`, `upper`."""
    if text == value:
        return ""
    if any("\uff01" <= c <= "\uff5e" for c in text):
        return "full-width"
    if text == value.lower():
        return "lower"
    if text == value.upper():
        return "upper"
    return re.sub(r"\w+", lambda run: str(len(run[0])), text)


def _compact(name: str, text: str) -> bool:
    """Whether a spelling is one that programs keep: without separators, or as canonical as the canonical one."""
    return name in ("", "lower", "upper") or text.removeprefix("+").isalnum()


def _without_nested(spelled: Mapping[str, str]) -> dict[str, str]:
    """Spellings that do not contain another one: whoever finds `139...` has found `+86139...`."""
    texts = list(spelled.values())
    return {n: t for n, t in spelled.items() if not any(o != t and o in t for o in texts)}


def _fragments(identity: Identity) -> Iterator[tuple[str, str]]:
    """Beginnings that statistics and indexes keep (the last character may have been raised), if they still name one."""
    value = identity.value
    if "@" in value:
        sure = value.index("@") + 2
    elif re.fullmatch(r"\d{15,18}[\dXx]", value):
        sure = len(value) - 1
    elif re.fullmatch(r"[0-9A-Fa-f-]{32,36}", value):
        sure = 15
    else:
        return
    for length in sorted({15, 16, 31, 32, len(value) - 1 if value.isalnum() else 15}):
        if sure <= length < len(value):
            yield f"first {length}", value[:length]


_SEXTET = {c: i for i, c in enumerate(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")}
_SEXTET |= {ord("-"): 62, ord("_"): 63}


def _encoded(text: str) -> Iterator[Form]:
    """The text in the character encodings that still occur."""
    for codec in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "gb18030", "big5"):
        try:
            yield Form(codec, text.encode(codec))
        except UnicodeEncodeError:
            continue  # Big5 lacks the character, so nothing can stand in Big5


def _text_forms(text: str, breadth: Breadth, *, first: bool) -> Iterator[Form]:
    for form in _encoded(text):
        if breadth is Breadth.FULL or form.name in ("utf-8", "utf-16-le") or (first and form.name == "gb18030"):
            yield form
    if breadth is Breadth.CORE and not first:
        return
    raw = text.encode()
    units = [
        int.from_bytes(text.encode("utf-16-be")[i : i + 2], "big") for i in range(0, len(text.encode("utf-16-be")), 2)
    ]
    yield Form("reversed", raw[::-1])
    yield from _base64(raw)
    yield Form("hex", raw.hex().encode())
    yield Form("HEX", raw.hex().upper().encode())
    escaped = json.dumps(text)[1:-1]
    yield Form("json escape", escaped.encode())
    yield Form("json escape upper", re.sub(r"(?<=\\u)....", lambda m: m[0].upper(), escaped).encode())
    quoted = urllib.parse.quote(text, safe="")
    yield Form("url", quoted.encode())
    yield Form("url lower", re.sub(r"%..", lambda m: m[0].lower(), quoted).encode())
    yield Form("url plus", urllib.parse.quote_plus(text).encode())
    if breadth is Breadth.CORE:
        return
    yield Form("reversed characters", text[::-1].encode())
    yield Form("url every byte", "".join(f"%{b:02X}" for b in raw).encode())
    yield Form("url every byte lower", "".join(f"%{b:02x}" for b in raw).encode())
    yield Form("json every unit", "".join(f"\\u{u:04x}" for u in units).encode())
    yield Form("json every unit upper", "".join(f"\\u{u:04X}" for u in units).encode())
    yield Form("html named", html.escape(text).encode())
    yield Form("html decimal", "".join(c if c.isascii() else f"&#{ord(c)};" for c in text).encode())
    yield Form("html hex", "".join(c if c.isascii() else f"&#x{ord(c):x};" for c in text).encode())
    yield Form("html HEX", "".join(c if c.isascii() else f"&#x{ord(c):X};" for c in text).encode())
    yield Form("html decimal every", "".join(f"&#{ord(c)};" for c in text).encode())
    yield Form("html hex every", "".join(f"&#x{ord(c):x};" for c in text).encode())
    yield Form("quoted-printable", "".join(chr(b) if 32 < b < 127 and b != 61 else f"={b:02X}" for b in raw).encode())
    yield Form("quoted-printable every", "".join(f"={b:02X}" for b in raw).encode())
    yield Form("octal", "".join(chr(b) if 32 < b < 127 else f"\\{b:03o}" for b in raw).encode())
    yield Form("octal every", "".join(f"\\{b:03o}" for b in raw).encode())
    yield Form("backslash x", "".join(chr(b) if 32 < b < 127 else f"\\x{b:02x}" for b in raw).encode())
    yield Form("backslash x every", "".join(f"\\x{b:02x}" for b in raw).encode())
    yield Form("backslash X every", "".join(f"\\x{b:02X}" for b in raw).encode())


def _base64(raw: bytes) -> Iterator[Form]:
    """Both alphabets at the three places a value may start, with the bits its first and last character share."""
    for shift in range(3):
        bits = int.from_bytes(raw, "big")
        first, last = shift * 8, (shift + len(raw)) * 8  # bit positions of the value in the encoded stream
        begin, end = -(-first // 6), last // 6  # characters that hold bits of the value only
        text = base64.b64encode(b"\0" * shift + raw + b"\0\0")[begin:end]
        lead, trail = begin * 6 - first, last - end * 6
        before = ((1 << lead) - 1, bits >> (len(raw) * 8 - lead)) if lead else (0, 0)
        after = (((1 << trail) - 1) << (6 - trail), (bits & ((1 << trail) - 1)) << (6 - trail)) if trail else (0, 0)
        yield Form(f"base64 at {shift}", text, before, after)
        if b"+" in text or b"/" in text:
            yield Form(f"base64url at {shift}", text.replace(b"+", b"-").replace(b"/", b"_"), before, after)


# ---------------------------------------------------------------- numbers and hashes


def _numbers(number: int, breadth: Breadth) -> Iterator[Form]:
    """A number as databases and serialisers store it."""
    if not LOWEST_NUMBER <= number < 1 << 64:
        return
    yield Form("int64 le", number.to_bytes(8, "little"))
    yield Form("int64 be", number.to_bytes(8, "big"))
    if breadth is Breadth.CORE:
        return
    if number < 1 << 63:
        yield Form("int64 be, sign flipped", (number | 1 << 63).to_bytes(8, "big"))
        yield Form("varint zigzag", _varint(number << 1))
    if number < 1 << 47:
        yield Form("sqlite int48", number.to_bytes(6, "big"), sqlite_only=True)
    yield Form("varint", _varint(number))
    if float(number) == number:
        yield Form("float64 le", struct.pack("<d", number))
        yield Form("float64 be", struct.pack(">d", number))
    yield Form("msgpack u64", b"\xcf" + number.to_bytes(8, "big"))
    digits = str(number)
    if len(digits) % 2:
        yield Form("bcd, 0 first", bytes.fromhex("0" + digits))
        yield Form("bcd, f last", bytes.fromhex(digits + "f"))
    else:
        yield Form("bcd", bytes.fromhex(digits))
    groups: list[int] = []
    rest = number
    while rest:
        rest, group = divmod(rest, 10_000)
        groups.insert(0, group)
    yield Form("postgres numeric le", struct.pack(f"<{len(groups)}H", *groups))
    yield Form("postgres numeric be", struct.pack(f">{len(groups)}H", *groups))


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _sm3(data: bytes) -> bytes:
    one = hashes.Hash(hashes.SM3())
    one.update(data)
    return one.finalize()


# MD5 and SHA-1 protect nothing here: they are looked for, because others use them to "pseudonymise".
_HASHES: Mapping[str, Callable[[bytes], bytes]] = {
    "sha256": lambda data: hashlib.sha256(data).digest(),
    "md5": lambda data: hashlib.md5(data, usedforsecurity=False).digest(),
    "sha1": lambda data: hashlib.sha1(data, usedforsecurity=False).digest(),
    "sha512": lambda data: hashlib.sha512(data).digest(),
    "sm3": _sm3,
}


def _hashes(text: str, breadth: Breadth) -> Iterator[Form]:
    """Unkeyed hashes of a spelling: raw, hexadecimal, base64."""
    raw = text.encode()
    for name, function in _HASHES.items():
        digest = function(raw)
        yield Form(f"{name} hex", digest.hex().encode())
        if breadth is Breadth.FULL or name == "sha256":
            yield Form(f"{name} raw", digest)
        if breadth is Breadth.FULL:
            yield Form(f"{name} HEX", digest.hex().upper().encode())
            for form in _whole_base64(digest):
                yield Form(f"{name} {form.name}", form.data)


def _whole_base64(digest: bytes) -> Iterator[Form]:
    text = base64.b64encode(digest).rstrip(b"=")
    yield Form("base64", text)
    yield Form("base64url", text.replace(b"+", b"-").replace(b"/", b"_"))

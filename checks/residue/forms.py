"""Every byte form in which one identity may stand in a file.

A *spelling* is the value as people and programs write it (`139...`, `+86 139...`, `139-1234-5678`, full-width
digits); a *form* is a spelling in bytes (UTF-16, base64 at each of three alignments, a big-endian number, a hash).
Escapes (JSON, URL, HTML, quoted-printable, octal, `\\xNN`) are no forms: they are resolved where they stand (views.py).

* A form of 8 bytes and more counts wherever it stands. A shorter one would hit by chance, and so would a number that
  may be a time, or the beginning of a text that others also wrote: these need a *context* (`Context`).
* What is too short even for that (under 4 bytes) is counted by name, never dropped in silence.
* Base64 blurs the first and the last character of a value; a hit counts only if the blurred bits fit as well.
* A fragment (a bound cut at 16 characters, a freed cell without its first four bytes) counts only where it still
  names one person: the whole local part of an e-mail address, an ID number or a card without its check digit.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import struct
import unicodedata
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum

from cryptography.hazmat.primitives import hashes

from fangxin.checks.residue.tokens import shape
from fangxin.data.catalog.kinds import stored_forms
from fangxin.data.vocabulary import Identity, IdentityFormat, stands_alone

SHORTEST = 8  # bytes of a form that counts wherever it stands
SHORTEST_IN_SQLITE = 6  # bytes of a number in a SQLite record
SHORTEST_BESIDE = 4  # bytes of a form that counts in its context
LOWEST_NUMBER = 10**9  # smaller numbers stand for too many other things
SCALES = (2, 4, 6)  # digits after the point with which databases keep decimals, beside none


class Breadth(StrEnum):
    """How many of the forms are searched: all, or for a crowd those that a search by tokens finds (tokens.py)."""

    FULL = "full"
    CORE = "core"


# What a crowd is not searched for, each counted once per identity in `Needles.omitted`.
LEFT_OUT = (
    "base64",
    "hexadecimal of the text",
    "reversed",
    "UTF-16, UTF-32 and Big5, but for addresses",
    "numbers but int64",
    "hashes but in hexadecimal, or as platforms exchange them",
    "fragments",
    "parts of longer tokens",
)


class Context(IntEnum):
    """What must stand around a form so that it counts: nothing; where a value begins and ends; another needle.

    VALUE: the form is all that stands between two equal delimiters, behind its own length, or in its piece; or BESIDE.
    BESIDE: a form of the same subject that needs no context stands within `NEAR` bytes (patterns.py).
    """

    ANY = 0
    VALUE = 1
    BESIDE = 2


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
    lies_at: int = 0  # where in the whole the fragment begins
    folded: bool = False  # an address: ASCII letters in any case; `data` is the lower one
    text: bool = False  # as people write it, in UTF-8: what stands around it may show that it is part of a longer text
    context: Context = Context.ANY


# ---------------------------------------------------------------- the forms of one identity


def forms_of(identity: Identity, breadth: Breadth, seen: Sequence[str] = ()) -> Iterator[Form]:
    """Every form of one identity, also as it was `seen` written; the same bytes may come twice.

    A form of no bytes stands for one that is left out.
    """
    spelled = spellings(identity)
    value = spelled[""]
    short = value.isdigit() and len(value) < SHORTEST  # a number that in any encoding hits longer ones by chance
    if short and len(value) < SHORTEST_BESIDE:
        yield Form("number too short for a search", b"")
    forms = _forms(identity, spelled, seen) if breadth is Breadth.FULL else _core_forms(identity, spelled, seen)
    for form in forms:
        if form.random or form.sqlite_only:
            yield form
        elif not short or len(value) >= SHORTEST_BESIDE:
            context = _needed(identity, form, short=short)
            yield replace(form, context=context) if context > form.context else form


def _needed(identity: Identity, form: Form, *, short: bool) -> Context:
    """What must stand around a form for its length and its kind."""
    if short or (len(form.data) < SHORTEST and not form.name.startswith(_WORDS)):
        return Context.BESIDE
    if len(form.data) < SHORTEST or identity.kind == "name":  # others bear it, and it is part of longer names
        return Context.VALUE
    return Context.ANY


_WORDS = ("utf-8", "utf-16", "gb18030", "big5")  # what a cell may hold as it is


def _core_forms(identity: Identity, spelled: Mapping[str, str], seen: Sequence[str]) -> Iterator[Form]:
    """What is quick to make and quick to find for everybody of a crowd."""
    for name in LEFT_OUT:
        yield Form(name, b"")
    tokens = {name: text for name, text in spelled.items() if shape(text.encode())}
    for name, text in spelled.items():
        if name in tokens:
            folded = "@" in text
            yield Form(
                _named(name, "utf-8"), text.lower().encode() if folded else text.encode(), text=True, folded=folded
            )
        elif not _holds(text, tokens.values()):
            for form in _encoded(text):
                if form.name in ("utf-8", "utf-16-le", "gb18030"):
                    yield Form(_named(name, form.name), form.data, text=form.name == "utf-8")
    usual = {text.lower() for text in spelled.values()}
    for number, text in enumerate(text for text in dict.fromkeys(seen) if text.lower() not in usual):
        yield Form(f"utf-8 (as written {number + 1})", text.encode(), text=True)
    for name, text in tokens.items():
        if text.isdigit() and not text.startswith("0") and LOWEST_NUMBER <= int(text) < 1 << 64:
            yield Form(_named(name, "int64 le"), int(text).to_bytes(8, "little"))
            yield Form(_named(name, "int64 be"), int(text).to_bytes(8, "big"))
    for name in dict.fromkeys(("", next(iter(tokens), ""))):
        for algorithm, function in _HASHES.items():
            digest = function(spelled[name].encode()).hex().encode()
            yield Form(_named(name, f"{algorithm} hex"), digest, random=True)
    for form in _exchanged(identity):
        yield replace(form, random=False)  # a token, compared whole, and in its case


def _forms(identity: Identity, spelled: Mapping[str, str], seen: Sequence[str]) -> Iterator[Form]:
    searched = _without_nested(spelled)
    glued: dict[str, str] = {}  # in them a shorter one does not stand alone: `139…` in `86139…`
    for name, text in sorted(spelled.items(), key=lambda pair: len(pair[1])):
        if name not in searched and not _holds(text, (*searched.values(), *glued.values())):
            glued[name] = text
    usual = {text.lower() for text in spelled.values()}
    others = [text for text in dict.fromkeys(seen) if text.lower() not in usual]
    first = next(iter(searched))
    for name, spelling in searched.items():
        for form in _text_forms(spelling):
            plain = form.name == "utf-8"
            folded = plain and "@" in spelling
            data = form.data.lower() if folded else form.data
            yield Form(_named(name, form.name), data, form.before, form.after, folded=folded, text=plain)
    for name, text in glued.items():
        yield Form(_named(name, "utf-8"), text.encode(), text=True)
    for number, text in enumerate(others):
        for form in _text_forms(text):
            name = _named(f"as written {number + 1}", form.name)
            yield Form(name, form.data, form.before, form.after, text=form.name == "utf-8")
    yield from _fragments(identity)
    yield from _bytes_of_uuid(identity.value)
    for name, text in spelled.items():
        digits = text.removeprefix("+")
        if digits.isascii() and digits.isdigit() and not digits.startswith("0"):
            for form in (*_scientific(digits), *_numbers(int(digits))):
                yield replace(form, name=_named(name, form.name))
    for name, text in spelled.items():
        if name in ("", first) or _compact(name, text):
            for form in _hashes(text):
                yield Form(_named(name, form.name), form.data, random=True)
    yield from _exchanged(identity)


def _bytes_of_uuid(value: str) -> Iterator[Form]:
    """The sixteen bytes of a UUID (RFC 9562), also in the order of Microsoft's GUID, and both in base64."""
    if not re.fullmatch(r"[0-9A-Fa-f]{8}(-?[0-9A-Fa-f]{4}){3}-?[0-9A-Fa-f]{12}", value):
        return
    one = uuid.UUID(value)
    for name, raw in (("uuid", one.bytes), ("guid", one.bytes_le)):
        yield Form(name, raw)
        for form in _base64(raw):
            yield replace(form, name=_named(name, form.name))


def _exchanged(identity: Identity) -> Iterator[Form]:
    """What brokers and ad platforms exchange: hashes of their own reading of a value (a phone's last ten digits)."""
    for text in stored_forms(identity.kind, identity.value, IdentityFormat.DROP):
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


def _holds(text: str, shorter: Iterable[str]) -> bool:
    """Whether another spelling stands alone in this one, so that whoever finds that one has found this."""
    body, words = text.encode(), [one.encode() for one in shorter]
    return any(word in body and stands_alone(body, at := body.index(word), at + len(word)) for word in words)


def _fragments(identity: Identity) -> Iterator[Form]:
    """What statistics and indexes keep of a long value (the last character may have been raised), and freed cells."""
    for name, begin, end, context in _cuts(identity):
        for form, whole in zip(_encoded(identity.value[begin:end]), _encoded(identity.value), strict=False):
            at = len(identity.value[:begin].encode(form.name))
            yield Form(
                _named(name, form.name),
                form.data,
                whole=whole.data,
                lies_at=at,
                text=form.name == "utf-8",
                context=context,
            )
    raw = identity.value.encode()
    if len(raw) >= 2 * SHORTEST + 4 and not identity.value.isascii():  # cut inside a character, as a page cuts
        for name, begin, end in (
            ("all but four bytes", 4, len(raw)),
            ("the middle half", len(raw) // 4, len(raw) * 3 // 4),
        ):
            yield Form(f"utf-8 ({name})", raw[begin:end], whole=raw, lies_at=begin, context=Context.ANY)


def _cuts(identity: Identity) -> Iterator[tuple[str, int, int, Context]]:
    """Name, begin and end of each fragment that still names one person, and what must stand around it.

    None of a reference: numbers given in sequence, or with the time in front, begin like their neighbours.
    """
    if identity.kind.startswith("ref:"):
        return
    value, context = identity.value, Context.ANY
    if "@" in value:
        sure = value.index("@") + 2
    elif re.fullmatch(r"\d{15,18}[\dXx]", value):
        sure = len(value) - 1
    elif re.fullmatch(r"[0-9A-Fa-f-]{32,36}", value):
        sure = 15
    elif len(value) > 16 and not value.isascii():
        sure, context = 15, Context.VALUE  # many texts begin alike
    else:
        return
    for length in sorted({15, 16, 31, 32, len(value) - 1 if value.isalnum() and value.isascii() else 15}):
        if sure <= length < len(value):
            yield f"first {length}", 0, length, context


SEXTET = {c: i for i, c in enumerate(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")}
SEXTET |= {ord("-"): 62, ord("_"): 63}


def _encoded(text: str) -> Iterator[Form]:
    """The text in the character encodings that still occur."""
    for codec in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "gb18030", "big5"):
        try:
            yield Form(codec, text.encode(codec))
        except UnicodeEncodeError:
            continue  # Big5 lacks the character, so nothing can stand in Big5


def _text_forms(text: str) -> Iterator[Form]:
    yield from _encoded(text)
    raw = text.encode()
    yield Form("reversed", raw[::-1])
    yield from _base64(raw)
    yield Form("hex", raw.hex().encode())
    yield Form("HEX", raw.hex().upper().encode())
    if " " in text:
        yield Form("url plus", text.replace(" ", "+").encode())
    for name, escaped in (
        ("json", json.dumps(text, ensure_ascii=False)[1:-1]),
        ("json slash", text.replace("/", "\\/")),
    ):
        if escaped != text:
            yield Form(name, escaped.encode())
    yield Form("reversed characters", text[::-1].encode())


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


def _numbers(number: int) -> Iterator[Form]:
    """A number as databases and serialisers store it."""
    if number >= 1 << 64:
        yield from _decimals(number, 0)
        return
    context = Context.ANY if number >= LOWEST_NUMBER else Context.BESIDE
    yield Form("int64 le", number.to_bytes(8, "little"), context=context)
    yield Form("int64 be", number.to_bytes(8, "big"), context=context)
    if number < 1 << 63:
        yield Form("int64 be, sign flipped", (number | 1 << 63).to_bytes(8, "big"), context=context)
        yield Form("varint zigzag", _varint(number << 1))
    if LOWEST_NUMBER <= number < 1 << 47:
        yield Form("sqlite int48", number.to_bytes(6, "big"), sqlite_only=True)
    yield Form("varint", _varint(number))
    if float(number) == number:
        yield Form("float64 le", struct.pack("<d", number), context=context)
        yield Form("float64 be", struct.pack(">d", number), context=context)
    yield Form("msgpack u64", b"\xcf" + number.to_bytes(8, "big"), context=context)
    digits = str(number)
    if len(digits) % 2:
        yield Form("bcd, 0 first", bytes.fromhex("0" + digits))
        yield Form("bcd, f last", bytes.fromhex(digits + "f"))
    else:
        yield Form("bcd", bytes.fromhex(digits))
    for scale in SCALES:
        yield from _decimals(number, scale)
    yield from _numeric(digits)


def _decimals(number: int, scale: int) -> Iterator[Form]:
    """A scaled number as Parquet, Arrow and DuckDB keep decimals: 8 to 16 bytes in either order, zeros left out."""
    scaled = number * 10**scale
    width = max(SHORTEST, -(-scaled.bit_length() // 8))
    context = Context.BESIDE if (scale and _may_be_a_time(scaled)) or number < LOWEST_NUMBER else Context.ANY
    name = f"decimal, scale {scale}"
    yield Form(f"{name}, le", scaled.to_bytes(width, "little"), context=context)
    yield Form(f"{name}, be", scaled.to_bytes(width, "big"), context=context)


def _may_be_a_time(number: int) -> bool:
    """Milli-, micro- or nanoseconds since 1970, in the years 2001 to 2039."""
    return any(10**9 <= number // unit < 22 * 10**8 for unit in (10**3, 10**6, 10**9))


def _numeric(digits: str) -> Iterator[Form]:
    """PostgreSQL's numeric: digits of base 10,000 without zeros at the end, behind a row's header or a message's."""
    padded = digits.zfill(-(-len(digits) // 4) * 4)
    groups = [int(padded[i : i + 4]) for i in range(0, len(padded), 4)]
    weight = len(groups) - 1
    while groups and not groups[-1]:
        groups.pop()
    count = len(groups)
    yield Form("postgres numeric le", struct.pack(f"<{count}H", *groups))
    yield Form("postgres numeric be", struct.pack(f">{count}H", *groups))
    yield Form("postgres numeric message", struct.pack(f">4H{count}H", count, weight, 0, 0, *groups))
    for scale in (0, 2):  # numeric.c: a short header holds sign, digits after the point, and weight
        data = struct.pack(f"<H{count}H", 0x8000 | scale << 7 | weight, *groups)
        yield Form(f"postgres numeric row, scale {scale}", data)


def _scientific(digits: str) -> Iterator[Form]:
    """As spreadsheets and databases print large numbers; only where enough digits are left to name one."""
    significant = digits.rstrip("0")
    if len(significant) > SHORTEST:
        for mark in ("e", "e+", "E", "E+"):
            written = f"{significant[0]}.{significant[1:]}{mark}{len(digits) - 1:02}"
            yield Form(f"scientific, {mark}", written.encode(), text=True)


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


def _hashes(text: str) -> Iterator[Form]:
    """Unkeyed hashes of a spelling: raw, hexadecimal, base64."""
    raw = text.encode()
    for name, function in _HASHES.items():
        digest = function(raw)
        yield Form(f"{name} hex", digest.hex().encode())
        yield Form(f"{name} raw", digest)
        yield Form(f"{name} HEX", digest.hex().upper().encode())
        for form in _whole_base64(digest):
            yield Form(f"{name} {form.name}", form.data)


def _whole_base64(digest: bytes) -> Iterator[Form]:
    text = base64.b64encode(digest).rstrip(b"=")
    yield Form("base64", text)
    yield Form("base64url", text.replace(b"+", b"-").replace(b"/", b"_"))

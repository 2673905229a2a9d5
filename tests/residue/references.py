"""Every way a value may stand in bytes, encoded by the standard library and by hand: none of it is the scan's own code.

`references(kind, value)` maps the name of an encoding to bytes as a program would have written them, with what such a
program writes around the value. The scan has to find the value in each; `tests/residue/test_forms.py` asks it to.
"""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
import json
import quopri
import struct
import urllib.parse
import uuid
from collections.abc import Iterator
from decimal import Decimal

Named = Iterator[tuple[str, bytes]]


def references(kind: str, value: str) -> dict[str, bytes]:
    """Encoding -> bytes, for a canonical value of a kind of the catalog."""
    found: dict[str, bytes] = {}
    for spelling, text in written(kind, value).items():
        for name, data in itertools.chain(texts(text), digests(text) if spelling in _HASHED else ()):
            found[f"{spelling}, {name}"] = data
    for spelling, digits in numerals(kind, value).items():
        for name, data in numbers(int(digits)):
            found[f"{spelling}, {name}"] = data
    found.update(cut(kind, value))
    for order, raw in uuid_bytes(value).items():
        found |= {f"{order}, bytes": raw, f"{order}, base64": base64.b64encode(b"\x07" + raw)}
    return found


# ---------------------------------------------------------------- how people write it

_HASHED = ("as it is", "canonical", "lower", "upper", "+86", "86")


def written(kind: str, value: str) -> dict[str, str]:
    """Spellings by name; the first is the one that is met most."""
    if kind == "phone_number":
        n = value.removeprefix("+86")
        return {
            "as it is": n,
            "canonical": value,
            "86": f"86{n}",
            "0086": f"0086{n}",
            "+86 and blank": f"+86 {n}",
            "3-4-4": f"{n[:3]}-{n[3:7]}-{n[7:]}",
            "3 4 4": f"{n[:3]} {n[3:7]} {n[7:]}",
            "full width": wide(n),
        }
    if kind == "cn_resident_id":
        return {
            "as it is": value,
            "lower": value.lower(),
            "6-8-4": f"{value[:6]}-{value[6:14]}-{value[14:]}",
            "6 8 4": f"{value[:6]} {value[6:14]} {value[14:]}",
            "full width": wide(value),
            **({"15 digits": value[:6] + value[8:17]} if value[6:8] == "19" else {}),
        }
    if kind == "bank_card":
        fours = [value[i : i + 4] for i in range(0, len(value), 4)]
        return {"as it is": value, "4-4-4": "-".join(fours), "4 4 4": " ".join(fours), "full width": wide(value)}
    if kind == "email":
        return {"as it is": value, "upper": value.upper()}
    if kind in ("oaid", "idfa", "gaid"):
        bare = value.replace("-", "")
        return {"as it is": value, "upper": value.upper(), "bare": bare, "bare upper": bare.upper()}
    return {"as it is": value}


def wide(text: str) -> str:
    return "".join(chr(0xFF00 + ord(c) - 0x20) for c in text)


def numerals(kind: str, value: str) -> dict[str, str]:
    """The digits that a program may keep as a number."""
    if kind == "phone_number":
        n = value.removeprefix("+86")
        return {"as it is": n, "86": f"86{n}"}
    return {"as it is": value} if value.isdigit() and not value.startswith("0") else {}


# ---------------------------------------------------------------- texts


def texts(text: str) -> Named:
    """A text as programs write it."""
    raw = text.encode()
    for codec in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "gb18030", "big5"):
        try:
            yield codec, text.encode(codec)
        except UnicodeEncodeError:
            assert codec == "big5"
    yield "reversed", bytes(reversed(raw))
    yield "reversed characters", "".join(reversed(text)).encode()
    for shift in range(3):
        whole = b"\x07\xc3\xa9"[:shift] + raw + b"\x1b\xe4"
        yield f"base64 at {shift}", base64.b64encode(whole)
        yield f"base64url at {shift}", base64.urlsafe_b64encode(whole)
    yield "hex", raw.hex().encode()
    yield "HEX", raw.hex().upper().encode()
    yield from escaped(text)


def escaped(text: str) -> Named:
    """Escapes: of what has to be, of everything, of every second character, and with mixed cases."""
    raw = text.encode()
    yield "json", json.dumps(text).encode()
    yield "json upper", "".join(c if c.isascii() else _upper(_unit(c)) for c in text).encode()
    yield "json every", b'{"a":"' + "".join(map(_unit, text)).encode() + b'"}'
    yield "json every upper", _upper("".join(map(_unit, text))).encode()
    yield "json half", "".join(_unit(c) if i % 2 else c for i, c in enumerate(text)).encode()
    yield "json in json", json.dumps(json.dumps({"a": text})).encode()
    for name, form in (("", urllib.parse.quote(text, safe="")), (" plus", urllib.parse.quote_plus(text))):
        yield f"url{name}", b"?a=" + form.encode() + b"&b=1"
        yield f"url{name} lower", b"?a=" + "%".join(_lowered(form)).encode() + b"&b=1"
    yield "url every", b"".join(b"%%%02X" % b for b in raw)
    yield "url every lower", b"".join(b"%%%02x" % b for b in raw)
    yield "url twice", urllib.parse.quote(urllib.parse.quote(text, safe=""), safe="").encode()
    yield "html", b"<td>" + text.encode("ascii", "xmlcharrefreplace") + b"</td>"
    yield "html named", b"<td>" + html.escape(text).encode() + b"</td>"
    yield "html decimal", b"".join(b"&#%d;" % ord(c) for c in text)
    yield "html hex", b"".join(b"&#x%x;" % ord(c) for c in text)
    yield "html HEX", b"".join(b"&#x%X;" % ord(c) for c in text)
    yield "quoted-printable", quopri.encodestring(b"Dear " + raw + b" and others, who live far from here")
    yield "quoted-printable, broken", quopri.encodestring(b"x" * 66 + b" " + raw)
    yield "quoted-printable every", b"".join(b"=%02X" % b for b in raw)
    yield "octal", "".join(chr(b) if 32 <= b < 127 else f"\\{b:03o}" for b in raw).encode()
    yield "octal every", b"".join(b"\\%03o" % b for b in raw)
    yield "backslash x", repr(raw)[2:-1].encode()
    yield "backslash x every", b"".join(b"\\x%02x" % b for b in raw)
    yield "backslash X every", b"".join(b"\\x%02X" % b for b in raw)


def _unit(character: str) -> str:
    units = struct.unpack(f">{len(character.encode('utf-16-be')) // 2}H", character.encode("utf-16-be"))
    return "".join(f"\\u{unit:04x}" for unit in units)


def _upper(escapes: str) -> str:
    return escapes.upper().replace("\\U", "\\u")


def _lowered(form: str) -> list[str]:
    first, *rest = form.split("%")
    return [first, *(part[:2].lower() + part[2:] for part in rest)]


def mixed(value: str) -> str:
    """Letters in alternating case."""
    return "".join(c.upper() if i % 2 else c.lower() for i, c in enumerate(value))


# ---------------------------------------------------------------- numbers


def numbers(n: int) -> Named:
    """A number as databases and serialisers keep it."""
    if n < 1 << 63:
        yield "int64 le", struct.pack("<q", n)
        yield "int64 be", struct.pack(">q", n)
        yield "int64 be, sign flipped", (0x8000000000000000 ^ n).to_bytes(8, "big")
    elif n < 1 << 64:
        yield "uint64 le", struct.pack("<Q", n)
        yield "uint64 be", struct.pack(">Q", n)
    if float(n) == n:
        yield "float64 le", struct.pack("<d", float(n))
        yield "float64 be", struct.pack(">d", float(n))
    if n < 1 << 64:
        yield "msgpack", b"\x81\xa1a\xcf" + struct.pack(">Q", n)
    for scale in (0, 2, 4):
        scaled = int(Decimal(n).scaleb(scale))
        yield f"decimal128 scale {scale} le", scaled.to_bytes(16, "little")
        yield f"decimal128 scale {scale} be", scaled.to_bytes(16, "big")
        if scaled < 1 << 63:
            yield f"decimal64 scale {scale} le", scaled.to_bytes(8, "little")
            yield f"decimal of 9 bytes, scale {scale}", scaled.to_bytes(9, "big")
    yield "numeric on the wire", struct.pack(f">hhhh{len(_groups(n))}h", len(_groups(n)), _weight(n), 0, 0, *_groups(n))
    yield "numeric on disk", struct.pack(f"<H{len(_groups(n))}h", 0x8000 | _weight(n), *_groups(n))
    if len(_groups(n)) >= 4:
        yield "numeric's digits", struct.pack(f"<{len(_groups(n))}h", *_groups(n))
    septets = [int(bits, 2) for bits in _septets(n)]
    if len(septets) >= 8:
        yield "varint", bytes([*(s | 0x80 for s in septets[:-1]), septets[-1]])
    digits = str(n)
    if len(digits) >= 16:
        even = digits if len(digits) % 2 == 0 else "0" + digits
        yield "bcd", bytes(int(a) * 16 + int(b) for a, b in zip(even[::2], even[1::2], strict=True))


def _groups(n: int) -> list[int]:
    """Digits of base 10,000, most significant first, without zeros at the end: PostgreSQL's `numeric`."""
    text = str(n)
    text = text.zfill(-(-len(text) // 4) * 4)
    groups = [int(text[i : i + 4]) for i in range(0, len(text), 4)]
    while groups and not groups[-1]:
        groups.pop()
    return groups


def _weight(n: int) -> int:
    return -(-len(str(n)) // 4) - 1


def _septets(n: int) -> list[str]:
    bits = format(n, "b")
    bits = bits.zfill(-(-len(bits) // 7) * 7)
    return [bits[i : i + 7] for i in range(0, len(bits), 7)][::-1]


# ---------------------------------------------------------------- hashes and pieces


def digests(text: str) -> Named:
    """Hashes without a key: raw, hexadecimal, base64."""
    for name in ("md5", "sha1", "sha256", "sha512", "sm3"):
        digest = hashlib.new(name, text.encode()).digest()
        yield f"{name} raw", digest
        yield f"{name} hex", digest.hex().encode()
        yield f"{name} HEX", digest.hex().upper().encode()
        yield f"{name} base64", base64.b64encode(digest)
        yield f"{name} base64url", base64.urlsafe_b64encode(digest)


def uuid_bytes(value: str) -> dict[str, bytes]:
    """The sixteen bytes of a UUID in either order; nothing for what is none."""
    try:
        one = uuid.UUID(value)
    except ValueError:
        return {}
    return {"uuid": one.bytes, "guid": one.bytes_le}


def cut(kind: str, value: str) -> Named:
    """What statistics keep of a long value (the last character raised in a maximum), and freed cells of its end."""
    for length in (15, 16, 32):
        if length < len(value) and names_one(kind, value, length):
            yield f"first {length}", value[:length].encode()
            raised = value[: length - 1] + chr(ord(value[length - 1]) + 1)
            if length > 15 and names_one(kind, value, length - 1):
                yield f"first {length}, raised", raised.encode()
    if kind in ("address", "text"):
        yield "all but four bytes", b"\0\0\0\x17" + value.encode()[4:]
        raw = value.encode()
        if len(raw) >= 48:
            yield "the middle half", b"\0" + raw[len(raw) // 4 : len(raw) * 3 // 4] + b"\0"


def names_one(kind: str, value: str, length: int) -> bool:
    """Whether so many characters of the beginning still name one person."""
    if kind == "email":
        return length >= value.index("@") + 2
    if kind in ("cn_resident_id", "bank_card"):
        return length >= len(value) - 1
    return (kind in ("oaid", "idfa", "gaid") and length >= 15) or (kind in ("address", "text") and length >= 15)

"""Kinds of identities: what a value of each looks like in canonical form, and how columns may have spelled it.

Canonical forms classify, they never filter: a mistyped number is still personal data and is compared as it is.
Only what an operator types is checked (`check`), because a typo there would erase nobody, or somebody else.

* `phone_number` E.164 with the rule for +86 mobiles; `email` NFKC, lower case, domain as IDNA A-label.
* `cn_resident_id` 18 characters (GB 11643, ISO 7064 MOD 11-2); `bank_card` 12 to 19 digits (ISO/IEC 7812, Luhn).
* `imei` digits; `oaid`, `idfa`, `gaid` UUIDs in lower case; `openid`, `unionid` exact text with their issuer.
* `name` confirms and feeds the residue patterns; it is never followed.
* Anything else, reference kinds (`ref:...`) included, is exact text: NFC, trimmed.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from stdnum import luhn
from stdnum.cn import ric

from fangxin.data.errors import IdentityError, InputError, unread
from fangxin.data.vocabulary import IdentityFormat

DEVICE_KINDS = frozenset({"oaid", "idfa", "gaid"})

_ZERO_WIDTH = re.compile("[\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff]")
_SEPARATORS = re.compile(r"[\s()\u2010-\u2015\u2212.-]+")
_BETWEEN_DIGITS = re.compile(r"[\s\u2010-\u2015/.-]+")
_BETWEEN_ID_DIGITS = re.compile(r"[\s\u2010-\u2015-]+")
_CN_MOBILE = re.compile(r"(?:\+86|0086|86|0)?(1[3-9][0-9]{9})")
_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
_HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_BETWEEN_HAN = re.compile(rf"(?<=[{_HAN}\u00b7])\s+(?=[{_HAN}\u00b7])")
_DOTS = re.compile("[\u0387\u2022\u2027\u2219\u22c5\u30fb\uff65]")
_EMAIL = re.compile(r"[^\s@]+@[^\s@.]+(\.[^\s@.]+)+")
# Values that already are canonical, so that a column of them costs one regular expression in Arrow.
_ALREADY = {
    "phone_number": r"^\+861[3-9][0-9]{9}$",
    "email": r"^[a-z0-9_%+'.-]+@[a-z0-9-]{1,60}(\.[a-z0-9-]{1,60})+$",
    "cn_resident_id": r"^[0-9]{17}[0-9X]$",
    "bank_card": r"^[0-9]+$",
    "imei": r"^[0-9]+$",
    "name": "^[\u4e00-\u9fff]+$",
}
_ALREADY_TEXT = r"^[!-~]+$"


def canonical(kind: str, raw: str) -> str:
    """Return the one form in which values of a kind are compared; never refuses, and is idempotent."""
    rule = _RULES.get(kind)
    return rule(raw) if rule else _exact(raw)


def canonical_column(kind: str, values: pa.Array) -> pa.Array:
    """Return the canonical form of every value as strings; same length, nulls stay. Works on distinct values."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    coded = as_text(values).dictionary_encode()
    words, codes = coded.dictionary, coded.indices
    done = pc.match_substring_regex(words, pattern=_ALREADY.get(kind, _ALREADY_TEXT))
    if kind in DEVICE_KINDS:
        done = pa.array([False] * len(words), pa.bool_())
    rest = words.filter(pc.invert(done))
    if len(rest):
        changed = pa.array([canonical(kind, word) for word in rest.to_pylist()], pa.string())
        words = pc.replace_with_mask(words, pc.invert(done), changed)
    return words.take(codes)


def check(kind: str, raw: str) -> str:
    """Return the canonical form of what an operator typed; IdentityError names what is wrong, never the value."""
    value = canonical(kind, raw)
    if is_stop(kind, value):
        raise IdentityError(
            f"{kind}: expected a value that names one person; found a placeholder that many records share",
            hint="leave it out, or give another identity",
        )
    test = _CHECKS.get(kind)
    if test and (expected := test(value)):
        raise IdentityError(
            f"{kind}: expected {expected}; found something else of {len(raw.strip())} characters",
            hint="look for a missing or mistyped character, and for a value in the wrong column",
        )
    return value


def stored_forms(kind: str, canonical: str, fmt: IdentityFormat, secret: bytes | None = None) -> tuple[str, ...]:
    """Return every spelling under which a column of format `fmt` may hold a value; the first is the likeliest.

    `drop` is California's DROP: base64 of SHA-256, a phone as its last ten digits, an e-mail in both published
    readings. `hmac` needs the column's secret and raises IdentityError without it.
    """
    if fmt is IdentityFormat.RAW:
        forms = _FORMS.get(kind)
        return tuple(dict.fromkeys([canonical, *(forms(canonical) if forms else ())]))
    if fmt is IdentityFormat.SHA256:
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        return digest, digest.upper()
    if fmt is IdentityFormat.DROP:
        texts = dict.fromkeys(_drop_readings(kind, canonical))
        return tuple(base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in texts)
    if secret is None:
        raise IdentityError(
            f"{kind}: a column holds it as HMAC, and the secret is missing",
            hint="name the setting that holds it in store.secret of the catalog",
        )
    digest = hmac.new(secret, canonical.encode(), hashlib.sha256).hexdigest()
    return digest, digest.upper()


def is_stop(kind: str, canonical: str) -> bool:
    """Whether a value names no one: empty, `0`, `unknown`, repeated digits, an all-zero device id, a mask."""
    word = canonical.strip().casefold()
    if word in _STOP_WORDS or not word.strip("*#-_.\u25cf\u2022\u00b7 "):
        return True
    if kind in _RULES and "*" in word and kind != "email":
        return True  # 138****0000 stands for ten thousand people
    if kind in DEVICE_KINDS:
        return not word.strip("0-")
    if kind in NUMBERS:
        return len(set(re.sub(r"[^0-9a-z]", "", word.removeprefix("+86")))) == 1
    if kind == "email":
        return word.partition("@")[0] in _STOP_MAILBOXES
    return False


@dataclass(frozen=True)
class StopList:
    """The operator's own stop facts: values that name no one, in clear or as HMAC-SHA-256 under a secret."""

    plain: frozenset[tuple[str, str]] = field(default=frozenset(), repr=False)
    hashed: frozenset[tuple[str, str]] = frozenset()

    def holds(self, kind: str, canonical: str, secret: bytes | None = None) -> bool:
        """Whether the value is on the list; InputError if the list has HMACs and no secret is given."""
        if (kind, canonical) in self.plain:
            return True
        if not self.hashed:
            return False
        if secret is None:
            raise InputError("the stop list holds HMACs and their secret is missing", hint="set its secret")
        return (kind, stop_entry(kind, canonical, secret)) in self.hashed


def stop_entry(kind: str, canonical: str, secret: bytes) -> str:
    """Return the hex that stands for a value in a stop list: HMAC-SHA-256 over kind, NUL, canonical value."""
    return hmac.new(secret, kind.encode() + b"\0" + canonical.encode(), hashlib.sha256).hexdigest()


def load_stop_list(path: Path) -> StopList:
    """Read lines `KIND hmac:HEX` or `KIND plain:VALUE`; `#` starts a comment. InputError with file:line."""
    plain, hashed = set(), set()
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a stop list: {unread(error)}") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        kind, _, entry = line.strip().partition(" ")
        entry = entry.strip()
        if entry.startswith("plain:"):
            plain.add((kind, canonical(kind, entry.removeprefix("plain:"))))
        elif re.fullmatch(r"hmac:[0-9a-f]{64}", entry):
            hashed.add((kind, entry.removeprefix("hmac:")))
        else:
            raise InputError(
                f"{path}:{number}: expected KIND hmac:HEX or KIND plain:VALUE; found something else",
                hint="one entry a line, HEX is 64 lower-case hex digits",
            )
    return StopList(frozenset(plain), frozenset(hashed))


# ---------------------------------------------------------------- canonical forms


def _clean(raw: str, separators: re.Pattern[str] | None = None) -> str:
    """NFKC without invisible characters and separators; what meets when they go is composed, too."""
    text = _ZERO_WIDTH.sub("", unicodedata.normalize("NFKC", raw))
    text = separators.sub("", text) if separators else text
    return unicodedata.normalize("NFKC", text).strip()


def _exact(raw: str) -> str:
    return unicodedata.normalize("NFC", raw).strip()


def _phone(raw: str) -> str:
    text = _clean(raw, _SEPARATORS)
    if mobile := _CN_MOBILE.fullmatch(text):
        return "+86" + mobile[1]
    if re.fullmatch(r"00[1-9][0-9]{6,14}", text):
        return "+" + text[2:]
    return text


def _email(raw: str) -> str:
    text = unicodedata.normalize("NFKC", _clean(raw).lower()).strip()
    local, at, domain = text.rpartition("@")
    if not at or domain.isascii():
        return text
    try:
        return f"{local}@{domain.encode('idna').decode('ascii')}"
    except UnicodeError:
        return text  # not a domain name: compared as it is


def _resident_id(raw: str) -> str:
    text = _clean(raw, _BETWEEN_ID_DIGITS).upper()
    if re.fullmatch(r"[0-9]{15}", text):
        text = f"{text[:6]}19{text[6:]}"
        return text + str(ric.calc_check_digit(text + "0"))
    return text


def _digits(raw: str) -> str:
    return _clean(raw, _BETWEEN_DIGITS)


def _device(raw: str) -> str:
    text = _clean(raw).lower().strip("{}")
    bare = text.replace("-", "")
    if re.fullmatch(r"[0-9a-f]{32}", bare):
        return f"{bare[:8]}-{bare[8:12]}-{bare[12:16]}-{bare[16:20]}-{bare[20:]}"
    return text.strip()


def _name(raw: str) -> str:
    text = re.sub(r"\s+", " ", _DOTS.sub("\u00b7", _clean(raw))).strip()
    return _BETWEEN_HAN.sub("", text)


_RULES: dict[str, Callable[[str], str]] = {
    "phone_number": _phone,
    "email": _email,
    "cn_resident_id": _resident_id,
    "bank_card": _digits,
    "imei": _digits,
    "name": _name,
    **dict.fromkeys(DEVICE_KINDS, _device),
}

SPELLED = frozenset(_RULES)  # kinds with spellings of their own; any other is exact text
NUMBERS = frozenset({"phone_number", "cn_resident_id", "bank_card", "imei"})  # compared by their digits
_STOP_WORDS = frozenset(
    {"", "0", "-1", "unknown", "null", "nil", "none", "n/a", "na", "nan", "undefined", "anonymous"}
    | {"未知", "无", "空", "暂无", "匿名", "不详", "未填写", "\\n", "<null>", "(null)", "redacted", "deleted"}
)
_STOP_MAILBOXES = frozenset({"", "null", "none", "unknown", "undefined", "anonymous", "noreply", "no-reply"})


def as_text(values: pa.Array) -> pa.Array:
    """Values of any flat type as text, null for null: whole floats as integers, bytes that are no UTF-8 in hex."""
    kind = values.type
    if pa.types.is_string(kind):
        return values
    if pa.types.is_floating(kind):
        # pandas makes floats of nullable integers: 42.0 means 42
        whole = pc.and_(pc.equal(values, pc.floor(values)), pc.less(pc.abs(values), 2.0**53)).fill_null(False)
        as_int = pc.if_else(whole, values, pa.scalar(0, kind)).cast(pa.int64()).cast(pa.string())
        return pc.if_else(whole, as_int, values.cast(pa.string()))
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        with contextlib.suppress(pa.ArrowInvalid):
            return values.cast(pa.string())
        coded = values.dictionary_encode()
        return pa.array([_decoded(v) for v in coded.dictionary.to_pylist()], pa.string()).take(coded.indices)
    return values.cast(pa.string())


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.hex()


# ---------------------------------------------------------------- checks of what an operator typed


def _phone_wrong(value: str) -> str:
    if not _E164.fullmatch(value):
        return "a mainland mobile number, or + with country code and number"
    if re.match(r"\+861[3-9]", value) and not _CN_MOBILE.fullmatch(value):
        return "11 digits after +86"
    return ""


def _resident_id_wrong(value: str) -> str:
    if not re.fullmatch(r"[0-9]{17}[0-9X]", value):
        return "17 digits and a check character, or 15 digits"
    return "" if value[-1] == ric.calc_check_digit(value) else "a check character that fits the digits"


def _card_wrong(value: str) -> str:
    if not re.fullmatch(r"[0-9]{12,19}", value):
        return "12 to 19 digits"
    return "" if luhn.is_valid(value) else "a last digit that fits the others (Luhn)"


_CHECKS: dict[str, Callable[[str], str]] = {
    "phone_number": _phone_wrong,
    "email": lambda v: "" if _EMAIL.fullmatch(v) and len(v) <= 254 else "name@domain",
    "cn_resident_id": _resident_id_wrong,
    "bank_card": _card_wrong,
    "imei": lambda v: "" if re.fullmatch(r"[0-9]{14,16}", v) else "14 to 16 digits",
}


# ---------------------------------------------------------------- spellings


def _wide(text: str) -> str:
    """Full-width digits and letters, as Chinese input methods write them."""
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


def _phone_forms(value: str) -> Iterable[str]:
    if mobile := _CN_MOBILE.fullmatch(value):
        number = mobile[1]
        bodies = [number] + [sep.join((number[:3], number[3:7], number[7:])) for sep in " -"]
        for body in bodies:
            yield body
            for prefix in ("+86", "86", "0086", "0", "(+86)"):
                yield from (prefix + join + body for join in ("", " ", "-"))
        yield _wide(number)
    elif _E164.fullmatch(value):
        yield from (value[1:], "00" + value[1:])


def _resident_id_forms(value: str) -> Iterable[str]:
    if re.fullmatch(r"[0-9]{17}[0-9X]", value):
        spellings = [value, value.lower()]
        for one in spellings:
            yield one
            yield from (sep.join((one[:6], one[6:14], one[14:])) for sep in " -")
        yield _wide(value)
        if value[6:8] == "19":
            yield value[:6] + value[8:17]


def _card_forms(value: str) -> Iterable[str]:
    groups = [value[i : i + 4] for i in range(0, len(value), 4)]
    yield from (sep.join(groups) for sep in " -")
    yield _wide(value)


def _email_forms(value: str) -> Iterable[str]:
    local, at, domain = value.rpartition("@")
    if at and "xn--" in domain:
        try:
            yield f"{local}@{domain.encode('ascii').decode('idna')}"
        except UnicodeError:
            return  # only looks like an A-label


def _device_forms(value: str) -> Iterable[str]:
    yield from (value.upper(), value.replace("-", ""), value.replace("-", "").upper())


def _name_forms(value: str) -> Iterable[str]:
    if "\u00b7" in value:
        yield from (value.replace("\u00b7", dot) for dot in "\u2022\u30fb\u2027.")


_FORMS: dict[str, Callable[[str], Iterable[str]]] = {
    "phone_number": _phone_forms,
    "cn_resident_id": _resident_id_forms,
    "bank_card": _card_forms,
    "email": _email_forms,
    "name": _name_forms,
    **dict.fromkeys(DEVICE_KINDS, _device_forms),
}


def _drop_readings(kind: str, value: str) -> tuple[str, ...]:
    if kind == "phone_number":
        return (re.sub(r"[^0-9]", "", value)[-10:],)
    if kind == "email":
        return value.strip(), re.sub(r"\s+", "", value)
    return (value,)

"""Spotting: where a text that somebody types holds an identity that has no business in it.

What is looked for are kinds of the catalog (`data/catalog/kinds.py`), by the catalog's own checks:

* `cn_resident_id`: 18 characters with a check character that fits (GB 11643), or a date of birth in the right place,
  so that a mistyped one is seen as well; 15 digits of the old form with such a date;
* `bank_card`: 13 to 19 digits that fit Luhn and begin like a payment card (ISO/IEC 7812);
* `phone_number`: mainland mobiles in their spellings, landlines with an area code, and `+` with 7 to 15 digits;
* `email`; and `code`: a code of ours, receipt or restore, which nobody is to be told.

Full-width and Chinese digits count as digits, separators and invisible characters between them as nothing. A number
must end where the digits end: eleven digits in the middle of a longer number are no phone.

What cannot be seen: names, addresses, an e-mail written out in words, a picture. Digits that fit by chance (one
card in ten) is taken for one: masking too much costs less than keeping too much.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import date

from fangxin.data.catalog.kinds import check
from fangxin.data.errors import IdentityError, InputError
from fangxin.data.keys.seal import public_of
from fangxin.data.requests import receipt_digest

NAMES = {
    "cn_resident_id": {"zh": "身份证号", "en": "ID number"},
    "bank_card": {"zh": "银行卡号", "en": "card number"},
    "phone_number": {"zh": "电话号码", "en": "phone number"},
    "email": {"zh": "邮箱地址", "en": "e-mail address"},
    "code": {"zh": "回执码或恢复码", "en": "receipt or restore code"},
}

_CHINESE = str.maketrans("〇零一二三四五六七八九幺", "001234567891")
_BETWEEN = r"[\s()\u00ad\u200b-\u200f\u2060\ufeff\u2010-\u2015\u2212./_·-]{0,3}"
_RUN = re.compile(rf"\(?\+?[0-9](?:{_BETWEEN}[0-9])*(?:{_BETWEEN}[Xx](?![A-Za-z0-9]))?")
_LABEL = r"[A-Za-z0-9\u4e00-\u9fff-]+"
_EMAIL = re.compile(rf"[A-Za-z0-9._%+'-]+\s?@\s?{_LABEL}(?:\s?\.\s?{_LABEL})*\.[A-Za-z\u4e00-\u9fff]{{2,}}")
_CODE = re.compile(r"(?<![0-9A-Za-z])(?:[0-9A-Za-z]{5}[\s-]?){4}[0-9A-Za-z]{4}[0-9A-Za-z*~$=](?![0-9A-Za-z])")
_MOBILE = re.compile(r"(?:\+?86|0086|0)?1[3-9][0-9]{9}")
_LANDLINE = re.compile(r"(?:\+?86)?0[1-9][0-9]{1,2}[2-9][0-9]{6,7}")
_ABROAD = re.compile(r"\+[1-9][0-9]{6,14}")
_CARD = re.compile(r"[3-69][0-9]{12,18}")
_ID = re.compile(r"[1-8][0-9]{16}[0-9X]")
_OLD_ID = re.compile(r"[1-8][0-9]{14}")
_LONGEST = 19


@dataclass(frozen=True)
class Spot:
    """A place in a text: what kind of identity stands from `start` to before `end`. The value is never kept."""

    kind: str
    start: int
    end: int


def spots(text: str) -> list[Spot]:
    """Every identity in a text, in its order; of two that overlap the longer one counts."""
    plain = _plain(text)
    found = [
        *(Spot("email", m.start(), m.end()) for m in _EMAIL.finditer(plain)),
        *(Spot("code", m.start(), m.end()) for m in _CODE.finditer(plain) if _is_code(m[0])),
        *(one for run in _RUN.finditer(plain) for one in _numbers(run[0], run.start())),
    ]
    kept: list[Spot] = []
    for one in sorted(found, key=lambda s: (s.start - s.end, s.start)):
        if all(one.end <= k.start or one.start >= k.end for k in kept):
            kept.append(one)
    return sorted(kept, key=lambda s: s.start)


def masked(text: str, locale: str) -> tuple[str, Counter[str]]:
    """The text with what is spotted replaced by its kind's name, and how often each kind was; until nothing is left."""
    counts: Counter[str] = Counter()
    while found := spots(text):
        for one in reversed(found):
            text = f"{text[: one.start]}〔{NAMES[one.kind][locale]}〕{text[one.end :]}"
        counts.update(one.kind for one in found)
    return text, counts


def warning(counts: Counter[str], locale: str) -> str:
    """What a person is told who typed an identity; its value is never repeated."""
    listed = {k: NAMES[k][locale] for k in sorted(counts)}
    if locale == "zh":
        return (
            f"内容含有{'、'.join(f'{name} {counts[k]} 处' for k, name in listed.items())}。我们不需要这些信息，请删去。"
        )
    listing = ", ".join(f"{counts[k]} {name}" for k, name in listed.items())
    return f"The text holds {listing}. Leave it out: we do not need it."


def _plain(text: str) -> str:
    """The text with digits, letters and signs in their plain form, place by place."""
    wide = "".join(one if len(one := unicodedata.normalize("NFKC", c)) == 1 else c for c in text)
    return wide.translate(_CHINESE)


def _numbers(run: str, offset: int) -> Iterator[Spot]:
    """Identities in a run of digits with separators; each begins and ends where a group of digits does."""
    places = [n for n, c in enumerate(run) if c.isalnum()]
    plus = run.lstrip("(").startswith("+")
    starts = [i for i, n in enumerate(places) if i == 0 or n - places[i - 1] > 1]
    ends = [i + 1 for i, n in enumerate(places) if i + 1 == len(places) or places[i + 1] - n > 1]
    for start in starts:
        for end in ends[bisect_left(ends, start + 7) : bisect_right(ends, start + _LONGEST)]:
            word = "".join(run[n] for n in places[start:end]).upper()
            kind = _kind(("+" if plus and start == 0 else "") + word)
            if kind:
                yield Spot(kind, offset + (0 if start == 0 else places[start]), offset + places[end - 1] + 1)


def _kind(word: str) -> str | None:
    if _ID.fullmatch(word) and (_holds("cn_resident_id", word) or _born(word[6:14])):
        return "cn_resident_id"
    if _OLD_ID.fullmatch(word) and _born(f"19{word[6:12]}"):
        return "cn_resident_id"
    if _MOBILE.fullmatch(word) or _LANDLINE.fullmatch(word) or _ABROAD.fullmatch(word):
        return "phone_number"
    if _CARD.fullmatch(word) and _holds("bank_card", word):
        return "bank_card"
    return None


def _holds(kind: str, word: str) -> bool:
    try:
        check(kind, word)
    except IdentityError:
        return False
    return True


def _born(digits: str) -> bool:
    try:
        return 1900 <= date(int(digits[:4]), int(digits[4:6]), int(digits[6:])).year <= 2099
    except ValueError:
        return False


def _is_code(word: str) -> bool:
    """A code of ours: in groups joined by hyphens whatever its last character is, else one that fits together."""
    if word.count("-") == 4:
        return True
    for fits in (receipt_digest, public_of):
        with suppress(InputError):
            fits(word)
            return True
    return False

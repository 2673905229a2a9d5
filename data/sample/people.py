"""Made-up people whose phones, e-mails, ID numbers and cards are valid in form and belong to nobody we know of.

Everything is drawn from one numpy generator, so the same seed gives the same people. What identifies is unique per
account (phone, e-mail, ID number, card, account id); names and cities repeat, as they do among real people.

* Phones are mainland mobile numbers of eleven digits; e-mails lie under the domains that RFC 2606 reserves.
* ID numbers carry the check character of GB 11643 (ISO 7064 MOD 11-2); cards carry a Luhn digit.
* Account ids are 18-digit snowflakes: larger than 2**53, so whoever turns them into floats loses them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]
Times = npt.NDArray[np.datetime64]

CITIES = (
    "上海",
    "北京",
    "深圳",
    "广州",
    "杭州",
    "成都",
    "武汉",
    "南京",
    "重庆",
    "西安",
    "苏州",
    "天津",
    "长沙",
    "青岛",
)
EPOCH = np.datetime64("2018-01-01T00:00:00", "ms")  # of our snowflake ids

_SURNAMES = (*"王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕", "欧阳", "司马")
_GIVEN = tuple("伟芳娜敏静丽强磊军洋勇艳杰娟涛明超秀霞平刚桂英华玉兰飞鑫波斌宇浩凯晨瑶雪梅婷佳欣怡子涵梓轩一诺思雨")
_PINYIN = ("wang", "li", "zhang", "liu", "chen", "yang", "zhao", "huang", "zhou", "wu", "xu", "sun", "ma", "zhu", "lin")
_MAIL = ("example.com", "example.net", "example.org", "mail.example.com")
_PREFIXES = (
    130,
    131,
    132,
    133,
    135,
    136,
    137,
    138,
    139,
    150,
    151,
    152,
    158,
    159,
    176,
    177,
    180,
    186,
    187,
    188,
    189,
    199,
)
_PLACES = (
    110101,
    110105,
    120101,
    310101,
    310104,
    320102,
    330102,
    350203,
    370102,
    420106,
    430102,
    440104,
    440305,
    610103,
)
_CARD_PREFIXES = (622202, 621700, 622848, 621661)
_BIRTHS = np.arange(np.datetime64("1983-01-01"), np.datetime64("2004-12-31"))


@dataclass(frozen=True)
class People:
    """One row per account: Arrow columns for values, numpy for what is computed with."""

    account_id: Ints
    created_at: Times
    phone: pa.Array
    email: pa.Array
    name: pa.Array
    city: pa.Array
    id_number: pa.Array
    bank_card: pa.Array
    strangers: pa.Array  # phones of nobody in the estate, for contact lists

    def __len__(self) -> int:
        return len(self.account_id)


def make_people(rng: np.random.Generator, accounts: int, strangers: int) -> People:
    """Draw `accounts` accounts and the phones of `strangers` more people who only stand in contact lists."""
    created = random_times(rng, np.datetime64("2020-01-01"), np.datetime64("2023-06-01"), accounts)
    phones = _phones(rng, accounts + strangers)
    return People(
        account_id=snowflakes(created, np.arange(accounts)),
        created_at=created,
        phone=phones.slice(0, accounts),
        email=_emails(rng, accounts),
        name=names(rng, accounts),
        city=pa.array(CITIES).take(pa.array(rng.integers(0, len(CITIES), accounts))),
        id_number=_id_numbers(rng, accounts),
        bank_card=_bank_cards(rng, accounts),
        strangers=phones.slice(accounts),
    )


def names(rng: np.random.Generator, count: int) -> pa.Array:
    """Chinese names, one or two characters after the surname; they repeat."""
    surname = pa.array(_SURNAMES).take(pa.array(rng.integers(0, len(_SURNAMES), count)))
    first = pa.array(_GIVEN).take(pa.array(rng.integers(0, len(_GIVEN), count)))
    second = pa.array([*_GIVEN, ""]).take(
        pa.array(np.minimum(rng.integers(0, len(_GIVEN) * 4 // 3, count), len(_GIVEN)))
    )
    return pc.binary_join_element_wise(surname, first, second, "")


def snowflakes(times: Times, serial: Ints) -> Ints:
    """Ids of milliseconds since our epoch (high bits) and a serial number (low 22 bits), unique per serial."""
    millis = (times - EPOCH).astype("timedelta64[ms]").astype(np.int64)
    spread = (serial * 2_654_435_761) & ((1 << 22) - 1)  # odd factor: a bijection of the low bits
    return (millis << 22) | spread


def random_times(rng: np.random.Generator, start: np.datetime64, end: np.datetime64, count: int) -> Times:
    """Moments between two dates, in whole milliseconds, unsorted."""
    first, last = start.astype("datetime64[ms]"), end.astype("datetime64[ms]")
    moments: Times = first + rng.integers(0, int((last - first).astype(np.int64)), count).astype("timedelta64[ms]")
    return moments


def hex_ids(rng: np.random.Generator, count: int) -> pa.Array:
    """Device ids: 32 lower-case hexadecimal digits, 128 random bits each."""
    text = rng.bytes(16 * count).hex()
    return pa.array([text[i : i + 32] for i in range(0, 32 * count, 32)], pa.string())


def _distinct(rng: np.random.Generator, below: int, count: int) -> Ints:
    # Not rng.choice(replace=False): for 80,000 of 10**8 it permutes all 10**8 (800 MB).
    drawn: Ints = np.empty(0, np.int64)
    while len(drawn) < count:
        drawn = np.unique(np.concatenate([drawn, rng.integers(0, below, count + count // 8 + 16)]))
    return rng.permutation(drawn)[:count]


def _phones(rng: np.random.Generator, count: int) -> pa.Array:
    prefix = np.array(_PREFIXES, np.int64)[rng.integers(0, len(_PREFIXES), count)]
    return pa.array(prefix * 10**8 + _distinct(rng, 10**8, count)).cast(pa.string())


def _emails(rng: np.random.Generator, count: int) -> pa.Array:
    local = pa.array(_PINYIN).take(pa.array(rng.integers(0, len(_PINYIN), count)))
    number = pa.array(_distinct(rng, 10**7, count)).cast(pa.string())
    host = pa.array(_MAIL).take(pa.array(rng.integers(0, len(_MAIL), count)))
    return pc.binary_join_element_wise(pc.binary_join_element_wise(local, number, "."), host, "@")


def _id_numbers(rng: np.random.Generator, count: int) -> pa.Array:
    drawn = _distinct(rng, len(_PLACES) * len(_BIRTHS) * 999, count)
    drawn, order = np.divmod(drawn, 999)
    place, birth = np.divmod(drawn, len(_BIRTHS))
    days = _BIRTHS[birth]
    year = days.astype("datetime64[Y]").astype(np.int64) + 1970
    month = days.astype("datetime64[M]").astype(np.int64) % 12 + 1
    day = (days - days.astype("datetime64[M]")).astype(np.int64) + 1
    body = np.array(_PLACES, np.int64)[place] * 10**11 + (year * 10**4 + month * 100 + day) * 10**3 + order + 1
    weights = np.array([2 ** (17 - i) % 11 for i in range(17)], np.int64)
    check = (_digits(body, 17) * weights).sum(axis=1) % 11
    return pc.binary_join_element_wise(
        pa.array(body).cast(pa.string()), pa.array(list("10X98765432")).take(pa.array(check)), ""
    )


def _bank_cards(rng: np.random.Generator, count: int) -> pa.Array:
    prefix = np.array(_CARD_PREFIXES, np.int64)[rng.integers(0, len(_CARD_PREFIXES), count)]
    body = prefix * 10**12 + _distinct(rng, 10**12, count)  # 18 digits
    digits = _digits(body, 18)
    doubled = digits[:, ::-1][:, ::2] * 2  # from the digit before the check digit, every second one
    total = digits[:, ::-1][:, 1::2].sum(axis=1) + (doubled - 9 * (doubled > 9)).sum(axis=1)
    return pa.array(body * 10 + -total % 10).cast(pa.string())


def _digits(numbers: Ints, width: int) -> Ints:
    powers = 10 ** np.arange(width - 1, -1, -1, dtype=np.int64)
    return numbers[:, None] // powers % 10

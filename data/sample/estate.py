"""Who has which rows in the LeCard estate: accounts, memberships, contacts, coupons, chats, trades and events.

Rows are computed as whole columns and never one by one. While they are made, a `Tally` counts them per account, from
the generator's own knowledge of who owns what, so that tests can compare what the closure found with the truth.

The cast are persons with a role (indices into the accounts); everybody else has one account and random rows:

* `two_accounts`: two accounts, other phone, e-mail and name, linked only through one device that both have bound.
* `household` and `housemate`: two persons whose accounts point to one address row; only the first leaves.
* `merged`: two accounts, the older one points to the survivor by `merged_into`.
* `cycle`: two accounts on one ring of rows, account -> last login -> device -> other account -> ... -> first account.
* `mentioned`: stands in the contacts, chats and payment memos of others.
* `nothing`: has no coupons, no chats and is in no advertising audience.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fangxin.data.sample.people import Ints, People, Times, hex_ids, names, random_times, snowflakes

Address = TypeVar("Address", int, Ints)
ROLES = ("two_accounts", "household", "housemate", "merged", "cycle", "mentioned", "nothing")
AS_OF = np.datetime64("2026-11-24")
TRADE_MONTHS = np.arange(np.datetime64("2023-07"), np.datetime64("2026-11"))
EVENT_MONTHS = np.arange(np.datetime64("2026-05"), np.datetime64("2026-11"))
KEPT_SINCE = np.datetime64("2023-11-24T00:00:00", "ms")  # three years before AS_OF: later trades are retained by law
TOWN = 1_000  # people from which on trades fill a file every month
PER_PERSON = {"trades": 38, "events": 46, "contacts": 4, "coupons": 3, "chats": 1, "strangers": 3}

_MERCHANTS = ("乐卡商城", "蜂鸟咖啡", "和平影院", "绿野生鲜", "青年书店", "海港面馆", "云上航旅", "新光百货")
_PHRASES = ("聚餐", "转账", "红包", "房租", "生日快乐", "饭钱", "代买", "水电费")
_PAGES = ("home", "card", "scan", "pay", "coupon", "points", "transfer", "settings", "help")
_QUESTIONS = (
    "请问余额怎么提现？",
    "我的优惠券什么时候到期",
    "充值一直没有到账，麻烦看一下",
    "卡片丢了，怎么挂失？",
    "您好，已经帮您查询，请稍等。",
    "谢谢，问题解决了！",
)


@dataclass
class Tally:
    """True row counts per collection and account: own rows, own rows kept by law, rows of others that mention them."""

    accounts: int
    owns: dict[str, Ints] = field(default_factory=dict)
    retained: dict[str, Ints] = field(default_factory=dict)
    mentions: dict[str, Ints] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)

    def own(self, collection: str, accounts: Ints) -> None:
        """Count one row of `collection` for each account listed."""
        self._add(self.owns, collection, accounts)
        self.rows[collection] = self.rows.get(collection, 0) + len(accounts)

    def keep(self, collection: str, accounts: Ints) -> None:
        """Count one row that a law keeps for each account listed."""
        self._add(self.retained, collection, accounts)

    def mention(self, collection: str, accounts: Ints) -> None:
        """Count one row of another person in which each account listed is mentioned."""
        self._add(self.mentions, collection, accounts)

    def _add(self, to: dict[str, Ints], collection: str, accounts: Ints) -> None:
        counted = np.bincount(accounts, minlength=self.accounts).astype(np.int64)
        to[collection] = to[collection] + counted if collection in to else counted


@dataclass(frozen=True)
class Ties:
    """What ties accounts to persons and rows to each other; all indices, no values."""

    people: int
    person: Ints  # of each account
    cast: dict[str, tuple[int, ...]]  # role -> accounts, the one with the seed first
    address: Ints  # of each account; two accounts may share one
    bound: tuple[Ints, Ints]  # devices table: (device, account) rows
    device_ids: pa.Array  # device n is the one that account n logs in, pays and browses with

    @property
    def players(self) -> Ints:
        """Every account of the cast."""
        return np.array(sorted(a for role in self.cast.values() for a in role), np.int64)

    @property
    def absent(self) -> int:
        """The account that has no coupons and no chats."""
        return self.cast["nothing"][0]

    def without_absent(self, owner: Ints) -> Ints:
        """The same owners, with the absent one's rows given to the housemate."""
        return np.where(owner == self.absent, self.cast["housemate"][0], owner)


def tie(rng: np.random.Generator, people: int) -> Ties:
    """Hand out the roles and tie the three second accounts, the shared addresses and the devices."""
    chosen = [int(i) for i in rng.permutation(people)[: len(ROLES)]]
    cast: dict[str, tuple[int, ...]] = {role: (i,) for role, i in zip(ROLES, chosen, strict=True)}
    person = np.arange(people + 3)
    for second, role in enumerate(("two_accounts", "merged", "cycle"), start=people):
        person[second] = cast[role][0]
        cast[role] += (second,)

    address = np.arange(people + 3)
    guests = np.setdiff1d(rng.permutation(people)[: people // 50], chosen)
    address[guests[::2][: len(guests) // 2]] = address[guests[1::2]]  # one person in a hundred lives with another
    address[cast["housemate"][0]] = cast["household"][0]

    # Devices 0..people+2 are the ones each account uses; then come some second ones, bound but not seen since.
    everyone = np.arange(people + 3)
    seconds = np.flatnonzero(rng.random(people) < 0.5)
    seconds = np.setdiff1d(seconds, [*cast["two_accounts"], *cast["cycle"]])
    device = np.concatenate([everyone, people + 3 + np.arange(len(seconds)), cast["two_accounts"][:1]])
    account = np.concatenate([everyone, seconds, cast["two_accounts"][1:]])
    first, other = cast["cycle"]
    device[first], device[other] = other, first  # the ring: each logs in on the device that the other has bound
    return Ties(people, person, cast, address, (device, account), hex_ids(rng, people + 3 + len(seconds)))


# ---------------------------------------------------------------- the wallet (SQLite)


def address_id(number: Address) -> Address:
    """The key of the address with this number."""
    return 700_000_000 + 7 * number


def wallet(rng: np.random.Generator, who: People, ties: Ties, tally: Tally) -> dict[str, pa.Table]:
    """The tables of wallet.db, in the order of their creation."""
    logins, last = _logins(rng, who, ties, tally)
    device, binder = ties.bound
    everyone = np.arange(len(who))
    merged_into = pa.nulls(len(who), pa.int64()).to_pylist()
    survivor, older = ties.cast["merged"]
    merged_into[older] = int(who.account_id[survivor])
    homes = np.unique(ties.address)
    for name in ("accounts", "identities"):
        tally.own(f"wallet/{name}", everyone)
    tally.own("wallet/devices", binder)
    tally.rows["wallet/addresses"] = len(homes)
    accounts = {
        "account_id": who.account_id,
        "phone": who.phone,
        "email": who.email,
        "name": who.name,
        "city": who.city,
        "address_id": address_id(ties.address),
        "merged_into": pa.array(merged_into, pa.int64()),
        "last_login_id": last,
        "created_at": _text(who.created_at),
    }
    identities = {
        "account_id": who.account_id,
        "id_number": who.id_number,
        "bank_card": who.bank_card,
        "bound_at": _text(who.created_at + np.timedelta64(86_400_000, "ms")),
    }
    addresses = {
        "address_id": address_id(homes),
        "street": pc.binary_join_element_wise(
            _pick(rng, ("人民路", "中山路", "解放路", "文化街", "滨江大道", "学府路"), len(homes)),
            pa.array(rng.integers(1, 999, len(homes))).cast(pa.string()),
            pa.array(["号"] * len(homes)),
            pa.array(rng.integers(101, 2904, len(homes))).cast(pa.string()),
            "",
        ),
        "city": who.city.take(pa.array(homes)),
    }
    devices = {
        "device_id": ties.device_ids.take(pa.array(device)),
        "account_id": who.account_id[binder],
        "model": _pick(rng, ("Mate 60", "P70", "Mi 14", "Reno 11", "X100", "Magic 6"), len(device)),
        "bound_at": _text(who.created_at[binder]),
    }
    return {
        "addresses": pa.table(addresses),
        "accounts": pa.table(accounts),
        "identities": pa.table(identities),
        "contacts": _contacts(rng, who, ties, tally),
        "coupons": _coupons(rng, who, ties, tally),
        "devices": pa.table(devices),
        "logins": logins,
    }


def _logins(rng: np.random.Generator, who: People, ties: Ties, tally: Tally) -> tuple[pa.Table, Ints]:
    """The login rows, and for each account the id of its last one."""
    account = np.repeat(np.arange(len(who)), 1 + rng.poisson(2, len(who)))
    at = random_times(rng, np.datetime64("2023-06-01"), np.datetime64("2026-11-01"), len(account))
    at = at[np.lexsort((at, account))]
    login = snowflakes(at, np.arange(len(account)))
    tally.own("wallet/logins", account)
    columns = {
        "login_id": login,
        "account_id": who.account_id[account],
        "device_id": ties.device_ids.take(pa.array(account)),
        "at": _text(at),
    }
    return pa.table(columns), login[np.flatnonzero(np.diff(account, append=len(who)))]


def _contacts(rng: np.random.Generator, who: People, ties: Ties, tally: Tally) -> pa.Table:
    counts = rng.poisson(PER_PERSON["contacts"], len(who))
    counts[ties.players] = np.maximum(counts[ties.players], 2)
    owner = np.repeat(np.arange(len(who)), counts)
    target = rng.integers(0, len(who), len(owner))
    known = rng.random(len(owner)) < 0.3
    mentioned = ties.cast["mentioned"][0]
    told = _spread(np.flatnonzero(ties.person[owner] != mentioned), 5)
    target[told], known[told] = mentioned, True
    known &= ties.person[target] != ties.person[owner]
    tally.own("wallet/contacts", owner)
    tally.mention("wallet/contacts", target[known])
    stranger = pa.array(rng.integers(0, len(who.strangers), len(owner)))
    columns = {
        "contact_id": 30_000_000 + np.arange(len(owner)),
        "account_id": who.account_id[owner],
        "contact_name": pc.if_else(pa.array(known), who.name.take(pa.array(target)), names(rng, len(owner))),
        "contact_phone": pc.if_else(pa.array(known), who.phone.take(pa.array(target)), who.strangers.take(stranger)),
    }
    return pa.table(columns)


def _coupons(rng: np.random.Generator, who: People, ties: Ties, tally: Tally) -> pa.Table:
    counts = rng.poisson(PER_PERSON["coupons"], len(who))
    counts[ties.players] = np.maximum(counts[ties.players], 1)
    counts[ties.absent] = 0
    owner = np.repeat(np.arange(len(who)), counts)
    tally.own("wallet/coupons", owner)
    columns = {
        "coupon_id": 50_000_000 + np.arange(len(owner)),
        "account_id": who.account_id[owner],
        "kind": _pick(rng, ("满减券", "咖啡券", "电影券", "运费券"), len(owner)),
        "face_minor": rng.integers(1, 100, len(owner)) * 100,
        "expires_at": _text(random_times(rng, np.datetime64("2026-12-01"), np.datetime64("2027-12-01"), len(owner))),
    }
    return pa.table(columns)


# ---------------------------------------------------------------- the club (DuckDB)


def club(rng: np.random.Generator, who: People, tally: Tally) -> dict[str, pa.Table]:
    """The tables of club.duckdb: memberships, and wallets with the card that a balance is paid out to."""
    everyone = np.arange(len(who))
    for name in ("memberships", "wallets"):
        tally.own(f"club/{name}", everyone)
    memberships = {
        "account_id": who.account_id,
        "phone": who.phone,
        "level": _pick(rng, ("普通", "银卡", "金卡", "黑卡"), len(who)),
        "points": rng.integers(0, 50_000, len(who)).astype(np.int32),
        "joined_on": pa.array(who.created_at.astype("datetime64[D]")),
    }
    wallets = {
        "wallet_id": 60_000_000 + everyone,
        "account_id": who.account_id,
        "balance_minor": rng.integers(0, 200_000, len(who)),
        "payout_card": who.bank_card,
        "opened_at": pa.array(who.created_at + np.timedelta64(86_400_000, "ms")).cast(pa.timestamp("us", "UTC")),
    }
    return {"memberships": pa.table(memberships), "wallets": pa.table(wallets)}


# ---------------------------------------------------------------- the lake (Parquet)


def trades(rng: np.random.Generator, who: People, ties: Ties, tally: Tally) -> Iterator[tuple[str, pa.Table]]:
    """Payments month by month; the cast has some in every third month, on both sides of the retention date.

    Few people trade in the last three months and in every fifth one before: their files would hold next to nothing.
    """
    few = np.union1d(TRADE_MONTHS[:-3:5], TRADE_MONTHS[-3:])
    months = TRADE_MONTHS if ties.people >= TOWN else few
    per_month, told_every = PER_PERSON["trades"] * ties.people // len(months), len(months) // 4
    done, mentioned = 0, ties.cast["mentioned"][0]
    for number, month in enumerate(months):
        owner = rng.integers(0, len(who), per_month)
        due = ties.players[number % 3 :: 3]
        owner[_spread(np.arange(per_month), len(due))] = due
        at = np.sort(random_times(rng, month, month + 1, per_month))
        # No trade lies within two days of the retention date, so that no time zone changes who is retained.
        near = np.abs((at - KEPT_SINCE).astype(np.int64)) < 2 * 86_400_000
        at = np.where(near, at - np.timedelta64(5, "D").astype("timedelta64[ms]"), at)
        memo, target, told = _memos(rng, who, ties, owner, mentioned if number % told_every == told_every - 1 else None)
        tally.own("lake/transactions", owner)
        tally.keep("lake/transactions", owner[at >= KEPT_SINCE])
        tally.mention("lake/transactions", target[told])
        columns = {
            "txn_id": snowflakes(at, done + np.arange(per_month)),
            "account_id": who.account_id[owner],
            "amount_minor": np.maximum(rng.lognormal(8, 1.2, per_month), 1).astype(np.int64),
            "currency": _category(
                ("CNY", "HKD", "USD"), (rng.random(per_month) > 0.97) * rng.integers(0, 3, per_month)
            ),
            "merchant": _category(_MERCHANTS, rng.integers(0, len(_MERCHANTS), per_month)),
            "city": who.city.take(pa.array(owner)).dictionary_encode(),
            "card_no": who.bank_card.take(pa.array(owner)),
            "device_id": ties.device_ids.take(pa.array(owner)),
            "memo": memo,
            "completed_at": pa.array(at).cast(pa.timestamp("us", "UTC")),
        }
        done += per_month
        yield str(month), pa.table(columns)


def _memos(
    rng: np.random.Generator, who: People, ties: Ties, owner: Ints, mentioned: int | None
) -> tuple[pa.Array, Ints, Ints]:
    """Memos (mostly none), whose phone each could hold, and the rows that hold another person's."""
    count = len(owner)
    kind = rng.random(count)
    target = np.where(kind < 0.004, owner, rng.integers(0, len(who), count))
    if mentioned is not None:
        row = _spread(np.flatnonzero(ties.person[owner] != mentioned), 1)
        kind[row], target[row] = 0.005, mentioned
    told = np.flatnonzero((kind < 0.008) & (ties.person[target] != ties.person[owner]))
    plain = pa.array(_PHRASES).take(pa.array(rng.integers(0, len(_PHRASES), count)))
    with_phone = pc.binary_join_element_wise(pa.array(["代付，收款人"] * count), who.phone.take(pa.array(target)), " ")
    memo = pc.if_else(pa.array(kind < 0.008), with_phone, pc.if_else(pa.array(kind < 0.3), plain, None))
    return memo, target, told


def events(rng: np.random.Generator, who: People, ties: Ties, tally: Tally) -> Iterator[tuple[str, pa.Table]]:
    """App events month by month; devices as a dictionary column, as pandas writes its categories."""
    per_month = PER_PERSON["events"] * ties.people // len(EVENT_MONTHS)
    low = rng.integers(0, 256, (3, 2 * len(who)))
    address = pc.binary_join_element_wise(
        pa.array(["10"] * (2 * len(who))), *(pa.array(part).cast(pa.string()) for part in low), "."
    )
    for number, month in enumerate(EVENT_MONTHS):
        owner = rng.integers(0, len(who), per_month)
        owner[_spread(np.arange(per_month), len(ties.players))] = ties.players
        at = np.sort(random_times(rng, month, month + 1, per_month))
        tally.own("lake/app_events", owner)
        columns = {
            "event_id": snowflakes(at, number * per_month + np.arange(per_month)),
            "account_id": who.account_id[owner],
            "device_id": ties.device_ids.take(pa.array(owner)).dictionary_encode(),
            "page": _category(_PAGES, rng.integers(0, len(_PAGES), per_month)),
            "ip": address.take(pa.array(2 * owner + rng.integers(0, 2, per_month))),
            "at": pa.array(at).cast(pa.timestamp("us", "UTC")),
        }
        yield str(month), pa.table(columns)


# ---------------------------------------------------------------- support and exports (text)


def chats(rng: np.random.Generator, who: People, ties: Ties, tally: Tally) -> Iterator[tuple[str, pa.Table]]:
    """Support chats month by month, some with the writer's own phone and some with somebody else's."""
    per_month = max(PER_PERSON["chats"] * ties.people // len(EVENT_MONTHS), 2 * len(ROLES))
    mentioned = ties.cast["mentioned"][0]
    speakers = np.setdiff1d(ties.players, [ties.absent])
    for number, month in enumerate(EVENT_MONTHS):
        owner = ties.without_absent(rng.integers(0, len(who), per_month))
        if number == 0:
            owner[_spread(np.arange(per_month), len(speakers))] = speakers
        kind, target = rng.random(per_month), rng.integers(0, len(who), per_month)
        if number % 2:
            row = _spread(np.flatnonzero(ties.person[owner] != mentioned), 1)
            kind[row], target[row] = 0.15, mentioned
        own, other = kind < 0.12, (kind >= 0.12) & (kind < 0.18)
        at = np.sort(random_times(rng, month, month + 1, per_month))
        tally.own("support/chats", owner)
        tally.mention("support/chats", target[other & (ties.person[target] != ties.person[owner])])
        phone = who.phone.take(pa.array(np.where(own, owner, target)))
        asks = pc.binary_join_element_wise(
            pa.array(["我的手机号是"] * per_month), phone, pa.array(["，请回电"] * per_month), ""
        )
        tells = pc.binary_join_element_wise(
            pa.array(["请联系我朋友 "] * per_month), phone, pa.array([" 核实"] * per_month), ""
        )
        plain = _pick(rng, _QUESTIONS, per_month)
        columns = {
            "chat_id": snowflakes(at, number * per_month + np.arange(per_month)),
            "account_id": who.account_id[owner],
            "at": _text(at),
            "sender": _pick(rng, ("customer", "customer", "agent"), per_month),
            "text": pc.if_else(pa.array(own), asks, pc.if_else(pa.array(other), tells, plain)),
        }
        yield str(month), pa.table(columns)


def members(rng: np.random.Generator, who: People, tally: Tally) -> pa.Table:
    """The member list that somebody exported for the shops."""
    tally.own("exports/members", np.arange(len(who)))
    columns = {
        "account_id": who.account_id,
        "phone": who.phone,
        "name": who.name,
        "level": _pick(rng, ("普通", "银卡", "金卡", "黑卡"), len(who)),
        "city": who.city,
    }
    return pa.table(columns)


def audience(rng: np.random.Generator, ties: Ties, tally: Tally) -> Ints:
    """The accounts whose phone was hashed for an advertising audience."""
    chosen = np.flatnonzero(rng.random(len(ties.person)) < 0.4)
    chosen = np.union1d(np.setdiff1d(chosen, [ties.absent]), [ties.cast["mentioned"][0]])
    tally.own("exports/audience", chosen)
    return chosen


def _spread(rows: Ints, count: int) -> Ints:
    """`count` different ones of `rows`, evenly spread."""
    return rows[np.arange(count) * len(rows) // max(count, 1)]


def _pick(rng: np.random.Generator, among: tuple[str, ...], count: int) -> pa.Array:
    return pa.array(among).take(pa.array(rng.integers(0, len(among), count)))


def _category(among: tuple[str, ...], index: Ints) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(index.astype(np.int8)), pa.array(among))


def _text(times: Times) -> pa.Array:
    """Times as `2026-11-24T08:00:00Z`."""
    return pa.array(np.char.add(np.datetime_as_string(times.astype("datetime64[s]")), "Z"))

"""The LeCard estate is the same for everybody, valid in form, and tells the truth about its own people."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from journeys.witness import unpacked
from stdnum import luhn
from stdnum.cn import ric

from fangxin.data.errors import InputError
from fangxin.data.sample.estate import ROLES
from fangxin.data.sample.lecard import Sample, sample

KEPT_SINCE = "2023-11-24"


@pytest.fixture(scope="module")
def estate(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return sample(tmp_path_factory.mktemp("estate") / "lecard", people=300, seed=11)


@pytest.fixture(scope="module")
def cast(estate: Sample) -> dict[str, Any]:
    return json.loads(estate.cast.read_text())


@pytest.fixture(scope="module")
def wallet(estate: Sample) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(estate.stores / "wallet.db")) as opened:
        yield opened


@pytest.fixture(scope="module")
def lake(estate: Sample) -> dict[str, pa.Table]:
    return {
        name: ds.dataset(estate.stores / "lake" / name, partitioning="hive").to_table()
        for name in ("transactions", "app_events")
    }


@pytest.fixture(scope="module")
def chats(estate: Sample) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for path in sorted((estate.stores / "support").iterdir()):
        lines += [json.loads(line) for line in unpacked(path).split(b"\n") if line]
    return lines


@pytest.fixture(scope="module")
def club(estate: Sample) -> dict[str, list[dict[str, Any]]]:
    return _club(estate)


def _club(estate: Sample) -> dict[str, list[dict[str, Any]]]:
    with duckdb.connect(estate.stores / "club.duckdb", read_only=True) as opened:
        return {name: opened.sql(f"FROM {name}").to_arrow_table().to_pylist() for name in ("memberships", "wallets")}


def _digests(root: Path) -> dict[str, str]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _column(wallet: sqlite3.Connection, table: str, column: str, accounts: list[int]) -> list[Any]:
    marks = ",".join("?" * len(accounts))
    return [row[0] for row in wallet.execute(f"SELECT {column} FROM {table} WHERE account_id IN ({marks})", accounts)]


def test_the_same_seed_gives_the_same_bytes_in_every_file_but_the_one_with_a_random_name(tmp_path: Path) -> None:
    first, second = (sample(tmp_path / name, people=60, seed=3) for name in ("first", "second"))
    one, other = _digests(first.root), _digests(second.root)
    assert {name for name in one if one[name] != other.get(name)} <= {"stores/club.duckdb"}
    assert _club(first) == _club(second)
    assert len(one) == len(other) > 25


def test_another_seed_gives_other_people(tmp_path: Path) -> None:
    first, second = (sample(tmp_path / str(seed), people=60, seed=seed) for seed in (3, 4))
    same = {name for name, digest in _digests(first.root).items() if _digests(second.root)[name] == digest}
    assert same == {"catalog/lecard.yml"}


def test_there_are_about_a_hundred_rows_a_person(estate: Sample) -> None:
    assert 95 <= estate.total / 300 <= 106
    assert 37 <= estate.rows["lake/transactions"] / 300 <= 39
    assert 3 <= estate.rows["wallet/contacts"] / 300 <= 5


def test_the_announced_totals_are_what_the_stores_hold(
    estate: Sample,
    wallet: sqlite3.Connection,
    club: dict[str, list[dict[str, Any]]],
    lake: dict[str, pa.Table],
    chats: list[dict[str, Any]],
) -> None:
    found = {f"lake/{name}": table.num_rows for name, table in lake.items()} | {"support/chats": len(chats)}
    for address in estate.rows:
        dataset, name = address.split("/")
        if dataset == "wallet":
            found[address] = wallet.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
    found |= {f"club/{name}": len(rows) for name, rows in club.items()}
    for name, path in (("members", "members.csv"), ("audience", "ads/audience.csv")):
        found[f"exports/{name}"] = len((estate.stores / "exports" / path).read_bytes().splitlines()) - 1
    assert found == dict(estate.rows)


def test_what_identifies_is_valid_and_unique(wallet: sqlite3.Connection) -> None:
    phones, emails = zip(*wallet.execute("SELECT phone, email FROM accounts"), strict=True)
    numbers, cards = zip(*wallet.execute("SELECT id_number, bank_card FROM identities"), strict=True)
    for column in (phones, emails, numbers, cards):
        assert len(set(column)) == len(column) == 303
    assert all(len(phone) == 11 and phone.isdigit() and phone[0] == "1" for phone in phones)
    assert all(ric.is_valid(number) for number in numbers)
    assert all(luhn.is_valid(card) and len(card) == 19 for card in cards)


def test_account_ids_would_not_survive_as_floats(wallet: sqlite3.Connection) -> None:
    ids = [row[0] for row in wallet.execute("SELECT account_id FROM accounts")]
    assert all(len(str(one)) == 18 for one in ids)
    assert any(int(float(one)) != one for one in ids)


def test_names_and_cities_repeat_among_people(wallet: sqlite3.Connection) -> None:
    names, cities = zip(*wallet.execute("SELECT name, city FROM accounts"), strict=True)
    assert len(set(names)) < 303
    assert len(set(cities)) < 20


def test_every_role_is_played_and_only_the_housemate_stays(estate: Sample, cast: dict[str, Any]) -> None:
    leaving = {row["phone_number"] for row in csv.DictReader(estate.leavers.read_text().splitlines())}
    assert set(cast["cast"]) == set(ROLES)
    stays = {role for role, person in cast["cast"].items() if person["phone_number"] not in leaving}
    assert stays == {"housemate"}
    assert leaving == {person["phone_number"] for person in cast["leavers"]}
    assert len(leaving) == 300 // 20


def test_two_accounts_meet_in_one_device_row_and_nowhere_else(wallet: sqlite3.Connection, cast: dict[str, Any]) -> None:
    first, second = ([account] for account in cast["cast"]["two_accounts"]["accounts"])
    shared = set(_column(wallet, "devices", "device_id", first)) & set(_column(wallet, "devices", "device_id", second))
    assert len(shared) == 1
    for column in ("phone", "email", "address_id"):
        assert _column(wallet, "accounts", column, first) != _column(wallet, "accounts", column, second)
    assert _column(wallet, "accounts", "merged_into", first + second) == [None, None]
    logins = [set(_column(wallet, "logins", "device_id", account)) for account in (first, second)]
    assert not logins[0] & logins[1]


def test_the_household_shares_one_address_row(wallet: sqlite3.Connection, cast: dict[str, Any]) -> None:
    leaver, stays = cast["cast"]["household"], cast["cast"]["housemate"]
    assert leaver["address_ids"] == stays["address_ids"]
    assert leaver["shares"] == {"wallet/addresses": 1}
    assert leaver["owns"]["wallet/addresses"] == 0
    users = wallet.execute("SELECT count(*) FROM accounts WHERE address_id = ?", leaver["address_ids"]).fetchone()[0]
    assert users == 2


def test_the_merged_account_points_to_its_survivor(wallet: sqlite3.Connection, cast: dict[str, Any]) -> None:
    survivor, older = cast["cast"]["merged"]["accounts"]
    assert _column(wallet, "accounts", "merged_into", [older]) == [survivor]
    assert _column(wallet, "accounts", "phone", [survivor]) == [cast["cast"]["merged"]["phone_number"]]


def test_the_ring_of_three_tables_closes_after_six_rows(wallet: sqlite3.Connection, cast: dict[str, Any]) -> None:
    step = """SELECT d.account_id FROM accounts a JOIN logins l ON l.login_id = a.last_login_id
              JOIN devices d ON d.device_id = l.device_id WHERE a.account_id = ?"""
    first, second = cast["cast"]["cycle"]["accounts"]
    assert wallet.execute(step, (first,)).fetchall() == [(second,)]
    assert wallet.execute(step, (second,)).fetchall() == [(first,)]


def test_every_account_knows_its_last_login(wallet: sqlite3.Connection) -> None:
    wrong = """SELECT count(*) FROM accounts a LEFT JOIN logins l ON l.login_id = a.last_login_id
               AND l.account_id = a.account_id WHERE l.login_id IS NULL
               OR l.at < (SELECT max(at) FROM logins WHERE account_id = a.account_id)"""
    assert wallet.execute(wrong).fetchone() == (0,)


def test_the_mentioned_person_stands_in_rows_of_others(
    wallet: sqlite3.Connection, lake: dict[str, pa.Table], chats: list[dict[str, Any]], cast: dict[str, Any]
) -> None:
    person = cast["cast"]["mentioned"]
    phone, own = person["phone_number"], set(person["accounts"])
    contacts = wallet.execute("SELECT account_id FROM contacts WHERE contact_phone = ?", (phone,)).fetchall()
    told = [line for line in chats if phone in line["text"] and line["account_id"] not in own]
    trades = lake["transactions"]
    memos = trades.filter(pc.fill_null(pc.match_substring(trades["memo"], phone), False))["account_id"].to_pylist()
    assert person["mentions"]["wallet/contacts"] == len(contacts) >= 5
    assert person["mentions"]["support/chats"] == len(told) >= 3
    assert person["mentions"]["lake/transactions"] == sum(account not in own for account in memos) >= 3


def test_one_person_has_no_coupons_and_no_chats(
    wallet: sqlite3.Connection, chats: list[dict[str, Any]], cast: dict[str, Any]
) -> None:
    person = cast["cast"]["nothing"]
    assert _column(wallet, "coupons", "coupon_id", person["accounts"]) == []
    assert not [line for line in chats if line["account_id"] in person["accounts"]]
    assert person["owns"]["wallet/coupons"] == person["owns"]["support/chats"] == 0


def test_the_counts_of_every_leaver_are_true(
    wallet: sqlite3.Connection,
    club: dict[str, list[dict[str, Any]]],
    lake: dict[str, pa.Table],
    chats: list[dict[str, Any]],
    cast: dict[str, Any],
) -> None:
    moment = pa.scalar(KEPT_SINCE).cast(pa.timestamp("us")).cast(pa.timestamp("us", "UTC"))
    for person in cast["leavers"]:
        accounts, owns = person["accounts"], person["owns"]
        for table in ("accounts", "identities", "contacts", "coupons", "devices", "logins"):
            assert len(_column(wallet, table, "account_id", accounts)) == owns[f"wallet/{table}"]
        for name, rows in club.items():
            assert sum(row["account_id"] in accounts for row in rows) == owns[f"club/{name}"]
        for name, table in lake.items():
            mine = table.filter(pc.is_in(table["account_id"], pa.array(accounts)))
            assert mine.num_rows == owns[f"lake/{name}"]
            if name == "transactions":
                kept = pc.sum(pc.greater_equal(mine["completed_at"], moment)).as_py()
                assert kept == person["retained"]["lake/transactions"]
        assert sum(line["account_id"] in accounts for line in chats) == owns["support/chats"]


def test_trades_lie_on_both_sides_of_the_retention_date(cast: dict[str, Any]) -> None:
    for person in cast["cast"].values():
        assert 0 < person["retained"]["lake/transactions"] < person["owns"]["lake/transactions"]


def test_files_come_in_the_shapes_that_real_lakes_have(estate: Sample) -> None:
    events = estate.stores / "lake/app_events"
    large = pq.ParquetFile(events / "month=2026-05/part-0.parquet")
    assert large.metadata.num_row_groups == 1
    assert large.metadata.row_group(0).column(0).compression == "ZSTD"
    assert pa.types.is_dictionary(large.schema_arrow.field("device_id").type)
    assert len(list((events / "month=2026-06").iterdir())) == 2
    lines = gzip.decompress((estate.stores / "support/chats-2026-05.jsonl.gz").read_bytes()).splitlines()
    assert {b"\\u" in line for line in lines} == {True, False}
    packed = (estate.stores / "support/chats-2026-05.jsonl.gz").read_bytes()
    assert packed[4:8] == bytes(4)  # no time of making in the header


def test_every_other_month_of_chats_is_packed_with_zstd(estate: Sample) -> None:
    names = sorted(path.name for path in (estate.stores / "support").iterdir())
    assert [name.rpartition(".")[2] for name in names] == ["gz", "zst"] * (len(names) // 2)


def test_a_member_is_the_same_person_in_the_club_and_in_the_wallet(
    wallet: sqlite3.Connection, club: dict[str, list[dict[str, Any]]]
) -> None:
    phones = dict(wallet.execute("SELECT account_id, phone FROM accounts"))
    assert {row["account_id"]: row["phone"] for row in club["memberships"]} == phones
    cards = dict(wallet.execute("SELECT account_id, bank_card FROM identities"))
    assert {row["account_id"]: row["payout_card"] for row in club["wallets"]} == cards


def test_an_occupied_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("kept")
    with pytest.raises(InputError, match="empty folder"):
        sample(tmp_path, people=60, seed=1)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


def test_a_sample_too_small_for_its_cast_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 40"):
        sample(tmp_path / "small", people=39, seed=1)
    assert not (tmp_path / "small").exists()

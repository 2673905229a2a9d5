"""Ten people leave LeCard, the whole cast among them; a witness who knows none of our code looks at what is left."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pytest
from journeys.lecard import LeCard, Person, seed
from journeys.witness import SEALED, Leaving, Needles, Row, Tables, expected, read, same

from fangxin.checks.verify import exit_code, verify
from fangxin.data.errors import InputError
from fangxin.data.keys.columns import open_rows
from fangxin.data.keys.envelope import ref_of
from fangxin.data.keys.tree import KeyAbsent
from fangxin.flows.erase import summary
from fangxin.flows.estate import Estate
from fangxin.flows.paper import printed
from fangxin.flows.report import preview_report
from fangxin.reports.period import Period

STEPS = ("locate", "plant", "baseline", "export", "destroy_keys", "overwrite", "validate")


@dataclass(frozen=True)
class Gone:
    """An estate from which its leavers are gone, and what stood in it before."""

    lecard: LeCard
    batch: str
    before: Tables
    clear: Tables
    export: Path

    @property
    def leaving(self) -> Leaving:
        return Leaving.of(self.lecard.leavers)

    def certificates(self) -> list[dict[str, Any]]:  # Any: JSON
        told = summary(self.lecard.home, self.batch)["requests"]
        return [json.loads(Path(one["certificate"]).read_bytes()) for one in told]

    def findings(self) -> Iterator[tuple[Person, str, dict[str, Any]]]:  # Any: JSON
        """Every leaver with every collection's line of the certificate."""
        for person, certificate in zip(self.lecard.leavers, self.certificates(), strict=True):
            for line in certificate["collections"]:
                if line["dataset"] != "fangxin":  # our own home, in which nobody stands
                    yield person, f"{line['dataset']}/{line['collection']}", line

    def values(self) -> dict[str, str]:
        """Every value that is a leaver's alone, by what it is."""
        mine = [row for row in self.clear["wallet/identities"] if self.leaving.owns(row)]
        found = {row[name]: name for row in mine for name in ("id_number", "bank_card")}
        found |= {str(row["account_id"]): "account" for row in mine}
        found |= {r["device_id"]: "device" for r in self.clear["wallet/devices"] if self.leaving.owns(r)}
        for row in self.clear["wallet/accounts"]:
            if self.leaving.owns(row):
                found |= {row["phone"]: "phone", f"+86{row['phone']}": "phone", row["email"]: "email"}
        return found


@pytest.fixture(scope="module")
def gone(pristine: LeCard, tmp_path_factory: pytest.TempPathFactory) -> Gone:
    root = tmp_path_factory.mktemp("gone")
    mine = pristine.copy(root / "lecard")
    before, clear = read(mine.stores), read(mine.clear)
    batch = mine.erase(mine.subjects(), export=str(root / "export"))
    shutil.rmtree(mine.clear)  # the witness's copy of the truth must not be found by the scans
    return Gone(mine, batch, before, clear, root / "export")


# ---------------------------------------------------------------- what is left in the stores


def test_every_row_of_everybody_else_is_what_it_was_but_for_the_masks_that_the_catalog_declares(gone: Gone) -> None:
    """And of the leavers nothing is left but the rows that a law keeps, without their device and their memo."""
    wanted = expected(gone.before, gone.leaving)
    assert same(wanted.after, read(gone.lecard.stores)) == {}
    assert wanted.retained == {
        "lake/transactions": sum(p["retained"]["lake/transactions"] for p in gone.lecard.leavers)
    }
    assert all(wanted.masked[a] for a in ("wallet/contacts", "support/chats", "lake/transactions"))


@pytest.mark.scenario("S28")
def test_no_value_of_a_leaver_is_in_any_byte_outside_the_rows_that_a_law_keeps(gone: Gone) -> None:
    seen = Needles(gone.values()).below(gone.lecard.stores)
    kept = {
        f"lake/transactions/{row['month']}/part-0.parquet"
        for row in expected(gone.before, gone.leaving).after["lake/transactions"]
        if gone.leaving.owns(row)
    }
    assert {s.what for s in seen} == {"account"}  # whose trade it was; their card stands there under a key
    assert {s.place for s in seen} == kept


def test_the_witness_sees_every_one_of_those_values_where_nothing_was_erased(pristine: LeCard, gone: Gone) -> None:
    """The control: a witness that is blind before would prove nothing."""
    needles = Needles(gone.values())
    seen = needles.below(pristine.clear)
    stores = {s.place.split("/")[0] for s in seen}
    assert {s.what for s in seen} == {"account", "device", "phone", "email", "id_number", "bank_card"}
    assert stores == {"wallet.db", "club.duckdb", "lake", "support", "exports"}
    assert {s.layer for s in seen} >= {"raw", "gzip", "zstd", "column", "duckdb"}


def test_our_own_home_holds_no_identity_after_the_certificate(gone: Gone) -> None:
    """Requests, ledger, statements, certificates, pages, package, vault, temporary files: every byte, every form."""
    assert Needles(gone.values()).below(gone.lecard.home) == []
    assert list((gone.lecard.home / "tmp").iterdir()) == []


def test_paper_holds_no_identity_once_its_streams_are_opened(gone: Gone, tmp_path: Path) -> None:
    """Certificates and a report, as PDF with every stream inflated and as the text that a reader copies out of it."""
    estate = gone.lecard.open()
    numbers = sorted(path.stem for path in (gone.lecard.home / "certificates").glob("*.html"))
    assert len(numbers) == len(gone.lecard.leavers)
    papers = [tmp_path / f"{number}.pdf" for number in numbers[:3]]
    for paper in papers:
        paper.write_bytes(printed(estate, paper.stem))
    (tmp_path / "report").mkdir()
    day = estate.minute[:10]
    preview_report(estate, Period.of(day, day), tmp_path / "report")
    for paper in (*papers, *(tmp_path / "report").glob("*.pdf")):
        open_, text = tmp_path / f"{paper.stem}.qdf", tmp_path / f"{paper.stem}.txt"
        subprocess.run(["qpdf", "--qdf", "--object-streams=disable", paper, open_], check=True, capture_output=True)
        subprocess.run(["pdftotext", paper, text], check=True, capture_output=True)
        assert "放心" in text.read_text("utf-8")
    assert Needles(gone.values()).below(tmp_path) == []


def test_what_was_sealed_with_us_is_emptied_when_the_batch_is_closed(gone: Gone) -> None:
    requests = gone.lecard.open().requests
    assert requests.batch(gone.batch).state == "closed"
    assert [one.identities for one in requests.requests(gone.batch)] == [()] * (len(gone.lecard.leavers) + 1)
    with closing(sqlite3.connect(gone.lecard.home / "requests.db")) as db:
        sealed = "SELECT sealed FROM part UNION ALL SELECT sealed FROM request UNION ALL SELECT sealed FROM batch"
        assert set(db.execute(sealed)) == {(None,)}


# ---------------------------------------------------------------- what the certificates say


@pytest.mark.scenario("S12")
def test_every_collection_ends_with_the_verdict_that_the_truth_calls_for(gone: Gone) -> None:
    verdicts = set()
    for person, address, line in gone.findings():
        kept = person["retained"].get(address, 0)
        touched = person["owns"].get(address, 0) or person["mentions"].get(address, 0)
        assert line["verdict"] == ("RETAINED" if kept else "ERASED" if touched else "NOT_PRESENT"), address
        verdicts.add(line["verdict"])
    assert verdicts == {"ERASED", "RETAINED", "NOT_PRESENT"}


def test_certificates_count_the_rows_that_the_generator_made(gone: Gone) -> None:
    for person, address, line in gone.findings():
        found, kept = person["owns"].get(address, 0), person["retained"].get(address, 0)
        shown = {name: line[name] for name in ("rows_found", "rows_erased", "rows_retained", "rows_shared")}
        shared = person["shares"].get(address, 0)
        expected_row = {"rows_found": found, "rows_erased": found - kept, "rows_retained": kept, "rows_shared": shared}
        assert shown == expected_row, address
        assert line["rows_mentioned"] == line["values_masked"] == person["mentions"].get(address, 0), address
        assert line["hits_after"] == line["rows_residual"] == 0


@pytest.mark.scenario("S28")
def test_absence_is_claimed_only_where_the_planted_control_was_found(gone: Gone) -> None:
    absent = [line for _person, _address, line in gone.findings() if line["verdict"] == "NOT_PRESENT"]
    assert absent
    assert all(line["canary_found"] and line["units_read"] == line["units_expected"] > 0 for line in absent)


@pytest.mark.scenario("S12")
def test_what_a_law_keeps_is_printed_with_its_ground_and_its_date(gone: Gone) -> None:
    zone = timedelta(hours=8)  # the law's
    for person, certificate in zip(gone.lecard.leavers, gone.certificates(), strict=True):
        mine = [r for r in gone.before["lake/transactions"] if r["account_id"] in person["accounts"]]
        last = max(r["completed_at"] for r in mine) + zone
        (kept,) = certificate["retained"]
        assert kept["rows"] == person["retained"]["lake/transactions"]
        assert kept["until"] == f"{last.year + 3}-{last:%m-%d}"
        assert kept["rule"] == "ecommerce-31"
        assert certificate["outcome"] == "erased_with_retention"


def test_the_shared_address_stays_and_is_reported_with_the_number_of_others(gone: Gone) -> None:
    number = gone.lecard.leavers.index(gone.lecard.cast["household"])
    (shared,) = gone.certificates()[number]["shared"]
    assert (shared["collection"], shared["rows"], shared["others"]) == ("addresses", 1, 1)
    (address,) = gone.lecard.cast["household"]["address_ids"]
    assert address in {row["address_id"] for row in read(gone.lecard.stores)["wallet/addresses"]}


# ---------------------------------------------------------------- keys


@pytest.mark.scenario("S33")
def test_the_leavers_keys_are_gone_but_for_those_of_rows_that_a_law_keeps(gone: Gone) -> None:
    estate = gone.lecard.open()
    codes = {name: estate.tree.domain_code(name) for name in ("kyc", "orders", "payout")}
    for account in gone.leaving.accounts:
        ref = ref_of(estate.catalog.person_kind or "", str(account))
        for name in ("kyc", "payout"):
            with pytest.raises(KeyAbsent):
                estate.tree.get(ref, codes[name])
        assert estate.tree.get(ref, codes["orders"])


@pytest.mark.parametrize("address", SEALED)
def test_what_is_left_under_keys_opens_to_what_the_generator_wrote(gone: Gone, address: str) -> None:
    key = {"wallet/identities": "account_id", "lake/transactions": "txn_id", "club/wallets": "wallet_id"}[address]
    clear = {row[key]: row for row in gone.clear[address]}
    rows = read(gone.lecard.stores)[address]
    for name in SEALED[address]:
        opened = _opened(gone.lecard.open(), address, name, rows)
        assert opened == [clear[row[key]][name] for row in rows]


@pytest.mark.scenario("S33")
def test_an_old_copy_of_a_sealed_value_no_longer_opens(gone: Gone) -> None:
    """The wallet as it was before the erasure, say in a backup: its other rows open, the leavers' do not."""
    rows = gone.before["wallet/identities"]
    opened = _opened(gone.lecard.open(), "wallet/identities", "id_number", rows)
    assert [value is None for value in opened] == [gone.leaving.owns(row) for row in rows]


def _opened(estate: Estate, address: str, name: str, rows: list[Row]) -> list[str | None]:
    collection = estate.catalog.collection(address)
    key = collection.primary_key
    wanted = {"account_id", name, *([key.name] if key else [])}
    columns = {n: [row[n] for row in rows] for n in sorted(wanted)}
    arrays = [pa.array(v, pa.large_binary() if n == name else None) for n, v in columns.items()]
    batch = pa.RecordBatch.from_arrays(arrays, names=list(columns))
    found: list[str | None] = open_rows(estate.tree, estate.catalog, collection, name, batch).to_pylist()
    return found


# ---------------------------------------------------------------- what the people get


@pytest.mark.scenario("S9")
def test_the_export_holds_every_counted_row_and_opens_in_pandas_and_duckdb(gone: Gone) -> None:
    requests = [one["request_id"] for one in summary(gone.lecard.home, gone.batch)["requests"]]
    for person, request in zip(gone.lecard.leavers, requests, strict=True):
        owned = {address: rows for address, rows in person["owns"].items() if rows}
        files = {path.stem.replace(".", "/", 1): path for path in (gone.export / request).glob("*.parquet")}
        assert files.keys() == owned.keys()
        assert {address: len(pd.read_parquet(path)) for address, path in files.items()} == owned
        with duckdb.connect() as db:
            counted = {a: db.sql(f"SELECT count(*) FROM '{path}'").fetchall()[0][0] for a, path in files.items()}
        assert counted == owned


def test_the_export_hands_over_what_was_under_keys_in_clear(gone: Gone) -> None:
    truth = {row["account_id"]: row for row in gone.clear["wallet/identities"]}
    with duckdb.connect() as db:
        cards = db.sql(
            f"SELECT DISTINCT account_id, card_no FROM '{gone.export}/*/lake.transactions.parquet'"
        ).fetchall()
        ids = db.sql(f"SELECT account_id, id_number FROM '{gone.export}/*/wallet.identities.parquet'").fetchall()
    assert {account for account, _id in ids} == {account for account, _card in cards} == gone.leaving.accounts
    assert all(card == truth[account]["bank_card"] for account, card in cards)
    assert all(number == truth[account]["id_number"] for account, number in ids)


# ---------------------------------------------------------------- what a stranger can check


@pytest.fixture(scope="module")
def trust(gone: Gone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The public keys, as somebody got them from a person they trust."""
    folder = tmp_path_factory.mktemp("trust")
    for name in ("log.vkey", "evidence.pub.pem"):
        shutil.copy(gone.lecard.home / "keys" / name, folder)
    return folder


@pytest.mark.scenario("S34")
def test_a_stranger_with_the_public_keys_finds_the_package_true(gone: Gone, trust: Path) -> None:
    package = summary(gone.lecard.home, gone.batch)["package"]
    assert exit_code(verify(package, trust=trust)) == 0


def test_without_keys_from_elsewhere_nobody_can_be_sure(gone: Gone) -> None:
    assert exit_code(verify(summary(gone.lecard.home, gone.batch)["package"])) == 2


@pytest.mark.scenario("S34")
def test_one_flipped_byte_anywhere_in_the_package_is_never_passed(gone: Gone, trust: Path, tmp_path: Path) -> None:
    body = Path(summary(gone.lecard.home, gone.batch)["package"]).read_bytes()
    flipped = tmp_path / "package.zip"
    places = range(len(body) // 100, len(body), len(body) // 50)
    passed = []
    for at in [0, *places, len(body) - 1]:
        flipped.write_bytes(body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :])
        passed += [at] if exit_code(verify(flipped, trust=trust)) == 0 else []
    assert passed == []


# ---------------------------------------------------------------- again, and at what cost


def test_a_person_who_is_gone_cannot_be_erased_again_and_nothing_is_kept_of_the_attempt(
    gone: Gone, tmp_path: Path
) -> None:
    mine = gone.lecard.copy(tmp_path / "lecard")
    before = read(mine.stores)
    person = mine.cast["two_accounts"]
    with pytest.raises(InputError, match="nobody has these identities") as refused:
        mine.erase([seed(person)])
    assert refused.value.exit_code == 3
    assert same(before, read(mine.stores)) == {}
    requests = mine.open().requests
    assert requests.unfinished() == ()
    assert Needles({person["phones"][0]: "phone", person["email"]: "email"}).below(mine.home) == []


@pytest.mark.drill
def test_ten_people_cost_no_more_openings_than_one(gone: Gone, lecard: LeCard) -> None:
    """Every unit is opened once in a pass of a step, for everybody; locate passes once a hop."""
    alone = lecard.erase([seed(lecard.cast["cycle"])])
    many, one = ({s: _note(c, b, s) for s in STEPS} for c, b in ((gone.lecard, gone.batch), (lecard, alone)))
    for opened in (many, one):
        assert opened["locate"]["opened"]["locate"] <= opened["locate"]["hops"]
        assert all(opened[s]["opened"].get(s, 0) <= 1 for s in ("baseline", "export", "overwrite"))
        assert opened["plant"]["opened"] == {"plant": 1, "plant-locate": 1}
        assert opened["validate"]["opened"] == {"validate": 1, "validate-rows": 1}
    for step in ("locate", "plant", "baseline", "destroy_keys", "overwrite", "validate"):
        assert many[step]["opened"] == one[step]["opened"], step


def _note(lecard: LeCard, batch: str, step: str) -> dict[str, Any]:  # Any: counts of several kinds
    return dict(lecard.open().requests.note(batch, step) or {})

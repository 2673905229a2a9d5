"""The catalog that comes with the sample describes the sample, wholly and without an error."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

import fangxin.data
from fangxin.data.catalog.dataset import read_catalog
from fangxin.data.catalog.law import Laws
from fangxin.data.catalog.lint import lint
from fangxin.data.catalog.tree import Severity
from fangxin.data.sample.lecard import Sample, sample
from fangxin.data.stores.duckdb import DuckdbStore
from fangxin.data.stores.parquet import ParquetStore
from fangxin.data.stores.sqlite import SqliteStore
from fangxin.data.vocabulary import Catalog, IdentityFormat, Meter, Mode, Ownership

TODAY, YESTERDAY = date(2026, 11, 24), date(2026, 11, 23)


@pytest.fixture(scope="module")
def laws() -> Laws:
    return Laws.load(Path(fangxin.data.__file__ or "").parent / "laws")


@pytest.fixture(scope="module")
def estate(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return sample(tmp_path_factory.mktemp("estate") / "lecard", people=40, seed=2)


@pytest.fixture(scope="module")
def catalog(estate: Sample) -> Catalog:
    return read_catalog([estate.catalog])


def test_the_catalog_names_every_collection_of_the_sample(estate: Sample, catalog: Catalog) -> None:
    assert {collection.address for collection in catalog.collections} == set(estate.rows)
    assert catalog.root == estate.stores.resolve()


def test_every_file_of_the_stores_is_claimed(estate: Sample, catalog: Catalog) -> None:
    claimed: set[Path] = set()
    for collection in catalog.collections:
        place = catalog.root / collection.store.url
        claimed |= {place} if place.is_file() else set(place.glob(collection.store.glob))
    assert claimed == {path.resolve() for path in estate.stores.rglob("*") if path.is_file()}


def test_every_field_of_a_person_has_a_mode(catalog: Catalog) -> None:
    personal = [field for collection in catalog.collections for field in collection.fields if field.personal]
    assert len(personal) > 30
    assert all(field.mode is not None for field in personal)


def test_numbers_of_cards_and_papers_lie_under_keys_of_their_own(catalog: Catalog) -> None:
    sensitive = {
        f"{collection.address}/{field.name}": (field.mode, field.key_domain)
        for collection in catalog.collections
        for field in collection.fields
        if field.sensitive
    }
    assert sensitive == {
        "wallet/identities/id_number": (Mode.CRYPTO_ERASE, "kyc"),
        "wallet/identities/bank_card": (Mode.CRYPTO_ERASE, "kyc"),
        "club/wallets/payout_card": (Mode.CRYPTO_ERASE, "payout"),
        "lake/transactions/card_no": (Mode.CRYPTO_ERASE, "orders"),
    }


def test_only_orders_are_retained_and_only_what_the_law_asks_for(catalog: Catalog, laws: Laws) -> None:
    classes = {collection.address: collection.retention for collection in catalog.collections}
    kept = set()
    for address, retention in classes.items():
        assert retention is not None
        if laws.decide(retention, YESTERDAY, facts=frozenset({"platform_operator"}), today=TODAY) is not None:
            kept.add(address)
    assert kept == {"lake/transactions"}
    orders = catalog.collection("lake/transactions")
    freed = {field.name for field in orders.fields if field.retention is None}
    assert freed == {"device_id", "memo"}


def test_papers_are_kept_where_the_operator_falls_under_the_anti_money_laundering_law(
    catalog: Catalog, laws: Laws
) -> None:
    retention = catalog.collection("wallet/identities").retention
    assert retention is not None
    until = laws.decide(retention, TODAY, facts=frozenset({"aml_subject"}), today=TODAY)
    assert until is not None
    assert until.day == date(2036, 11, 24)


def test_lint_has_nothing_to_complain_about(estate: Sample, laws: Laws) -> None:
    found = lint([estate.catalog], laws)
    assert {problem.severity for problem in found} == {Severity.NOTE}
    assert len(found) == 2  # the ring of three tables, and the merged accounts: allowed, and said


def test_mentions_are_masked_and_hashes_are_known_as_hashes(catalog: Catalog) -> None:
    mentions = {
        f"{collection.address}/{field.name}"
        for collection in catalog.collections
        for field in collection.fields
        if field.ownership is Ownership.MENTION and field.mode is Mode.MASK
    }
    assert mentions == {
        "wallet/contacts/contact_name",
        "wallet/contacts/contact_phone",
        "lake/transactions/memo",
        "support/chats/text",
    }
    assert catalog.collection("exports/audience").field("phone_hash").identity_format is IdentityFormat.DROP


def test_every_declared_column_lies_in_its_store(catalog: Catalog) -> None:
    for kind, open_store in (("sqlite", SqliteStore), ("parquet", ParquetStore), ("duckdb", DuckdbStore)):
        held = tuple(c for c in catalog.collections if c.store.kind == kind)
        store = open_store(catalog.root, held[0].store.url, held, Meter())
        store.check(for_writing=True)
        for collection in held:
            stored = set(store.fields(collection).names)
            # The month stands in the folder's name; it is nobody's.
            assert stored - {"month"} == {field.name for field in collection.fields}


def test_every_collection_says_what_copies_of_it_exist(catalog: Catalog) -> None:
    assert all(collection.copies is not None for collection in catalog.collections)
    assert {copy.keep for collection in catalog.collections for copy in collection.copies or ()} == {"35d"}

"""Other teams read and write columns under keys from pandas and Arrow, under a lease, and only in their own place."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pytest
from journeys.lecard import LeCard
from keys.vaults import destroy

from fangxin.data.errors import InputError
from fangxin.data.keys.envelope import ValueForged, ref_of
from fangxin.flows.tables import Tables

ADDRESS, SECRET = "wallet/identities", ["id_number", "bank_card"]


def stored(lecard: LeCard) -> pa.Table:
    """The rows as they lie in the database: envelopes."""
    estate = lecard.open()
    names = [f.name for f in estate.catalog.collection(ADDRESS).fields]
    found = [rows.columns for _, rows in estate.store_of(ADDRESS).scan({ADDRESS: names})]
    return pa.Table.from_batches(found)


def leases(lecard: LeCard) -> dict[str, bytes]:
    """What open vaults say about their caches: all zero for none."""
    return {path.name: path.read_bytes() for path in (lecard.home / "keys" / "leases").iterdir()}


def test_a_table_is_read_and_protected_again_and_a_frame_is_too(lecard: LeCard) -> None:
    table = stored(lecard)
    before = leases(lecard)
    with Tables.open(lecard.home, lecard.catalog) as tables:
        clear = tables.read(ADDRESS, table)
        (held,) = leases(lecard).items() - before.items()
        assert any(held[1])
        assert [clear.schema.field(n).type for n in SECRET] == [pa.string()] * 2
        assert all(len(v) == 18 for v in clear["id_number"].to_pylist() if v is not None)
        assert clear.drop_columns(SECRET).equals(table.drop_columns(SECRET))
        assert tables.read(ADDRESS, tables.protect(ADDRESS, clear)).equals(clear)

        frame = table.to_pandas().iloc[::-1]
        opened = tables.read(ADDRESS, frame, ["bank_card"])
        assert opened.index.equals(frame.index)
        assert opened["bank_card"].tolist() == [v or None for v in clear["bank_card"].to_pylist()[::-1]]
        assert opened["id_number"].equals(frame["id_number"])
        back = tables.read(ADDRESS, tables.protect(ADDRESS, opened))
        pd.testing.assert_series_equal(back["bank_card"], opened["bank_card"])
        assert tables.protect(ADDRESS, table).equals(table), "what lies under keys is left alone"
    assert not any(leases(lecard)[held[0]])


def test_a_destroyed_key_reads_as_null_and_a_moved_value_not_at_all(lecard: LeCard) -> None:
    table = stored(lecard)
    owner = str(table["account_id"][0].as_py())
    with Tables.open(lecard.home, lecard.catalog) as tables:
        turned = pa.chunked_array([table["id_number"].to_pylist()[::-1]], pa.large_binary())
        moved = table.set_column(table.schema.get_field_index("id_number"), "id_number", turned)
        with pytest.raises(ValueForged) as refused:
            tables.read(ADDRESS, moved)
        assert str(table["account_id"][1].as_py()) not in str(refused.value)
        estate = lecard.open()
        destroy(estate.tree, [ref_of(estate.catalog.person_kind or "", owner)])
        clear = tables.read(ADDRESS, table).to_pylist()
    assert [clear[0][n] for n in SECRET] == [None, None]
    assert all(row["id_number"] for row in clear[1:])


@pytest.mark.parametrize(
    ("address", "columns", "dropped", "said"),
    [
        ("wallet/nothing", None, [], "no collection"),
        (ADDRESS, ["bound_at"], [], "no field under keys"),
        (ADDRESS, None, ["account_id"], "'account_id'"),
        (ADDRESS, ["id_number"], ["id_number"], "'id_number'"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_with_what_it_needs(
    pristine: LeCard, address: str, columns: list[str] | None, dropped: list[str], said: str
) -> None:
    table = stored(pristine).drop_columns(dropped)
    with Tables.open(pristine.home, pristine.catalog) as tables, pytest.raises(InputError, match=said):
        tables.read(address, table, columns)

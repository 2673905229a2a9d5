"""The catalog says what is held: read strictly where it is ours, unchanged where it is Fides'."""

import shutil
from pathlib import Path

import pytest

from fangxin.data.catalog import tree
from fangxin.data.catalog.dataset import Severity, problems, read_catalog
from fangxin.data.catalog.kinds import SPELLED
from fangxin.data.catalog.known import CATEGORIES
from fangxin.data.catalog.lint import lint, reachable
from fangxin.data.errors import CatalogError
from fangxin.data.vocabulary import Catalog, IdentityFormat, Mode, Ownership, Retention
from fangxin.flows.cli.main import main

HERE = Path(__file__).parent
MEMBER = "ref:lecard/会员.member_id"


@pytest.fixture
def lecard(tmp_path: Path) -> Path:
    shutil.copytree(HERE / "good", tmp_path / "catalog")
    return tmp_path / "catalog/lecard.yml"


@pytest.fixture
def catalog(lecard: Path) -> Catalog:
    return read_catalog([lecard])


def test_the_nearest_setting_wins(catalog: Catalog) -> None:
    members, orders = catalog.collection("lecard/会员"), catalog.collection("lecard/订单")
    assert (members.mode, members.key_domain) == (Mode.DELETE, "profile")
    number = members.field("身份证号")
    assert (number.mode, number.key_domain, number.sensitive) == (Mode.CRYPTO_ERASE, "kyc", True)
    assert number.retention == Retention("pipl", "kyc", "closed")
    assert orders.field("member_id").retention == Retention("pipl", "order", "completed_at")
    assert (orders.store.kind, orders.store.url, orders.store.partition) == ("parquet", "lake/", "hive")
    assert orders.field("completed_at").because == "starts the retention period"
    assert [c.name for c in orders.copies or ()] == ["nightly", "lecard_dr"]


def test_a_reason_travels_with_its_mode(tmp_path: Path) -> None:
    body = """
dataset:
  - fides_key: shop
    erasure: {store: {kind: parquet, url: lake/}, mode: keep, because: the law says so}
    collections:
      - name: a
        fields: [{name: x}, {name: y, erasure: {mode: keep}}]
"""
    (tmp_path / "c.yml").write_text(body)
    one = read_catalog([tmp_path / "c.yml"]).collection("shop/a")
    assert [f.because for f in one.fields] == ["the law says so", None]


def test_retention_can_be_taken_back(tmp_path: Path) -> None:
    body = """
dataset:
  - fides_key: shop
    erasure: {store: {kind: parquet, url: lake/}, mode: delete, retention: {law: pipl, class: order}}
    collections:
      - name: a
        fields:
          - {name: x}
          - {name: y, erasure: {retention: none}}
          - {name: z, erasure: {retention: {class: none}}}
          - {name: w, erasure: {retention: {class: invoice}}}
"""
    (tmp_path / "c.yml").write_text(body)
    found = [f.retention and f.retention.record_class for f in read_catalog([tmp_path / "c.yml"]).collections[0].fields]
    assert found == ["order", None, None, "invoice"]


def test_columns_joined_by_references_share_a_kind_and_flow_in_their_direction(catalog: Catalog) -> None:
    members, orders = catalog.collection("lecard/会员"), catalog.collection("lecard/订单")
    assert catalog.person_kind == MEMBER
    assert members.field("member_id").matches == members.field("member_id").emits == (MEMBER,)
    assert members.field("merged_into").emits == (MEMBER,)
    assert (orders.field("member_id").matches, orders.field("member_id").emits) == ((MEMBER,), ())
    address = catalog.collection("lecard/地址").field("address_id")
    assert orders.field("address_id").emits == address.matches == ("ref:lecard/地址.address_id",)
    assert address.emits == ()


def test_identities_are_followed_but_mentions_hashes_and_names_lead_nowhere(tmp_path: Path) -> None:
    body = """
dataset:
  - fides_key: shop
    erasure: {store: {kind: parquet, url: lake/}, mode: delete, copies: []}
    collections:
      - name: a
        fields:
          - {name: phone, fides_meta: {identity: phone_number}}
          - {name: friend, fides_meta: {identity: phone_number}, erasure: {ownership: mention}}
          - {name: hashed, fides_meta: {identity: phone_number}, erasure: {identity_format: sha256}}
          - {name: name, fides_meta: {identity: name}}
          - {name: chat, erasure: {data_type: text}}
          - {name: ticket, fides_meta: {custom_request_field: ticket_no}}
      - name: b
        erasure: {ownership: mention, store: {url: other/}}
        fields: [{name: mail, fides_meta: {identity: email}}]
"""
    (tmp_path / "c.yml").write_text(body)
    catalog = read_catalog([tmp_path / "c.yml"])
    flows = {f.name: (f.matches, f.emits) for c in catalog.collections for f in c.fields}
    assert flows == {
        "phone": (("phone_number",), ("phone_number",)),
        "friend": (("phone_number",), ()),
        "hashed": (("phone_number",), ()),
        "name": ((), ()),
        "chat": (("email", "phone_number", "ticket_no"), ()),
        "ticket": (("ticket_no",), ()),
        "mail": (("email",), ()),
    }
    assert catalog.kinds == {"phone_number", "name", "email", "ticket_no"}
    assert catalog.collection("shop/a").field("chat").ownership is Ownership.MENTION
    assert catalog.collection("shop/a").field("hashed").identity_format is IdentityFormat.SHA256


def test_the_lecard_catalog_is_clean_and_everything_personal_is_reachable(lecard: Path) -> None:
    found = lint([lecard])
    assert [p.severity for p in found] == [Severity.NOTE]
    assert "its own collection" in found[0].text
    assert len(reachable(read_catalog([lecard]))) == 5


def test_a_fides_catalog_is_accepted_unchanged_and_never_erased() -> None:
    catalog = read_catalog([HERE / "fides/app.yml"])
    assert {d.ours for d in catalog.datasets} == {False}
    assert {f.mode for c in catalog.collections for f in c.fields} == {None}
    found = problems([HERE / "fides/app.yml"])
    assert {p.severity for p in found} == {Severity.WARNING, Severity.NOTE}
    customer = catalog.collection("app/customer")
    assert customer.field("email").emits == ("email",)
    assert customer.field("address").sub[0].categories == ("user.contact.address.city",)
    assert catalog.collection("app/orders").field("customer_id").matches == ("ref:app/customer.id",)


@pytest.mark.parametrize(
    "text",
    ["phone_number,email\n13812448136,mei@example.com\n", "dataset: 13812448136\n", "dataset: mei@example.com\n"],
)
def test_a_file_of_people_given_for_a_catalog_is_refused_and_not_quoted(tmp_path: Path, text: str) -> None:
    (tmp_path / "people.yml").write_text(text)
    with pytest.raises(CatalogError) as refused:
        read_catalog([tmp_path / "people.yml"])
    said = str(refused.value)
    assert "people.yml:1:" in said
    assert "characters" in said
    assert not [value for value in ("13812448136", "mei@example.com") if value in said]


def test_words_keep_their_spelling_whatever_yaml_would_make_of_them(tmp_path: Path) -> None:
    body = """
dataset:
  - fides_key: no
    name: 010
    erasure: {store: {kind: parquet, url: 1:30}, mode: mask, copies: []}
    collections:
      - name: on
        fields:
          - {name: 2020-01-01, erasure: {mask: {constant: 0}, key_domain: yes}}
          - {name: 0x10, fides_meta: {data_type: string}, erasure: {mask: {constant: 7}}}
"""
    (tmp_path / "c.yml").write_text(body)
    catalog = read_catalog([tmp_path / "c.yml"])
    one = catalog.collection("no/on")
    assert (catalog.datasets[0].name, one.store.url) == ("010", "1:30")
    assert [f.name for f in one.fields] == ["2020-01-01", "0x10"]
    assert [f.mask.constant for f in one.fields] == [0, "7"]
    assert one.fields[0].key_domain == "yes"


def test_anchors_and_merge_keys_save_typing(tmp_path: Path) -> None:
    body = """
dataset:
  - fides_key: shop
    erasure: &all {store: {kind: parquet, url: a/}, mode: delete, copies: []}
    collections:
      - name: a
        erasure: {<<: *all, mode: overwrite}
        fields: [{name: x}]
"""
    (tmp_path / "c.yml").write_text(body)
    assert read_catalog([tmp_path / "c.yml"]).collection("shop/a").mode is Mode.OVERWRITE


def test_a_name_with_a_dot_is_referred_to_as_a_list(tmp_path: Path) -> None:
    body = """
dataset:
  - fides_key: shop
    erasure: {store: {kind: parquet, url: lake/}, mode: delete, copies: []}
    collections:
      - name: v1.users
        fields: [{name: user.id, fides_meta: {identity: user_no}}]
      - name: b
        erasure: {store: {url: b/}}
        fields: [{name: u, fides_meta: {references: [{dataset: shop, field: [v1.users, user.id], direction: from}]}}]
"""
    (tmp_path / "c.yml").write_text(body)
    assert read_catalog([tmp_path / "c.yml"]).collection("shop/b").field("u").matches == ("ref:shop/b.u",)


def test_fields_inside_fields_are_found_by_their_path(tmp_path: Path) -> None:
    body = """
dataset:
  - fides_key: shop
    erasure: {store: {kind: parquet, url: lake/}, mode: delete, copies: []}
    collections:
      - name: orders
        fields:
          - name: items
            fides_meta: {data_type: "object[]"}
            fields:
              - name: receiver
                fields: [{name: phone, fides_meta: {identity: phone_number}, erasure: {mode: mask}}]
      - name: calls
        erasure: {store: {url: calls/}}
        fields: [{name: n, fides_meta: {references: [{dataset: shop, field: orders.items.receiver.phone}]}}]
"""
    (tmp_path / "c.yml").write_text(body)
    catalog = read_catalog([tmp_path / "c.yml"])
    phone = catalog.collection("shop/orders").field("items").sub[0].sub[0]
    assert phone.mode is Mode.MASK
    assert phone.emits == ("phone_number", "ref:shop/calls.n")


def test_paths_are_relative_to_the_declared_root_and_never_leave_it_by_a_link(lecard: Path, tmp_path: Path) -> None:
    assert read_catalog([lecard]).root == lecard.parent.resolve()
    lecard.write_text("root: ../estate\n" + lecard.read_text("utf-8"), "utf-8")
    (tmp_path / "estate").mkdir()
    assert read_catalog([lecard]).root == (tmp_path / "estate").resolve()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "estate/lake").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CatalogError, match=r"lecard.yml:6:35: store.url leaves its root"):
        read_catalog([lecard])


def test_a_unit_that_is_a_link_out_of_the_root_is_an_error(lecard: Path, tmp_path: Path) -> None:
    folder = lecard.parent / "lake/会员"
    folder.mkdir(parents=True)
    (tmp_path / "outside.parquet").touch()
    (folder / "a.parquet").symlink_to(tmp_path / "outside.parquet")
    errors = [p.text for p in lint([lecard]) if p.severity is Severity.ERROR]
    assert errors == [
        'unit "lake/会员/a.parquet" of lecard/会员 leaves its root through a link; put the file below the root'
    ]


def test_two_patterns_that_meet_in_one_file_are_an_error(lecard: Path) -> None:
    lecard.write_text(lecard.read_text("utf-8").replace('"转账/*.parquet"', '"*/*.parquet"'), "utf-8")
    assert not [p for p in lint([lecard]) if p.severity is Severity.ERROR]
    (lecard.parent / "lake/会员").mkdir(parents=True)
    (lecard.parent / "lake/会员/a.parquet").touch()
    errors = [p.text for p in lint([lecard]) if p.severity is Severity.ERROR]
    assert errors == ['unit "lake/会员/a.parquet" is claimed by lecard/会员 and by lecard/转账']


def test_two_tables_may_share_a_database_but_not_a_table(tmp_path: Path) -> None:
    body = """
dataset:
  - fides_key: {key}
    erasure: {{store: {{kind: sqlite, url: shop.db}}, mode: delete, copies: []}}
    collections:
      - {{name: a, fields: [{{name: x}}]}}
      - {{name: {other}, fields: [{{name: x}}]}}
"""
    (tmp_path / "1.yml").write_text(body.format(key="one", other="b"))
    assert lint([tmp_path]) == []
    (tmp_path / "2.yml").write_text(body.format(key="two", other="c"))
    assert [p.text for p in lint([tmp_path])] == ["two/a claims the units of one/a: shop.db *"]


def test_the_digest_names_the_sources_and_nothing_else(lecard: Path, tmp_path: Path) -> None:
    first = read_catalog([lecard]).digest
    shutil.copytree(lecard.parent, tmp_path / "copy")
    assert read_catalog([tmp_path / "copy"]).digest == first
    stop = tmp_path / "copy/lecard.stop"
    stop.write_text("phone_number plain:4008001234\n")
    assert read_catalog([tmp_path / "copy"]).digest != first


def test_a_catalog_may_be_several_files_in_any_order(tmp_path: Path) -> None:
    one = HERE / "good/lecard.yml"
    shutil.copyfile(one, tmp_path / "b.yml")
    (tmp_path / "lecard.stop").touch()
    body = """
dataset:
  - fides_key: crm
    erasure: {store: {kind: parquet, url: crm/}, mode: delete, copies: []}
    collections:
      - name: a
        fields: [{name: m, fides_meta: {references: [{dataset: lecard, field: 会员.member_id, direction: from}]}}]
"""
    (tmp_path / "a.yaml").write_text(body)
    forth, back = (read_catalog(p) for p in ([tmp_path], [tmp_path / "b.yml", tmp_path / "a.yaml"]))
    assert forth.digest == back.digest
    assert forth.person_kind == back.person_kind == "ref:lecard/会员.member_id"  # keys are found by it: it stays
    assert {c.address for c in forth.collections} == {c.address for c in back.collections}


def test_a_missing_file_an_empty_folder_and_nothing_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="expected a catalog file or a folder of them"):
        read_catalog([tmp_path / "none.yml"])
    with pytest.raises(CatalogError, match=r"expected \*.yml or \*.yaml"):
        read_catalog([tmp_path])
    with pytest.raises(CatalogError, match="expected files or folders"):
        read_catalog([])


def test_the_same_dataset_in_two_files_is_refused(tmp_path: Path) -> None:
    for name in ("a.yml", "b.yml"):
        shutil.copyfile(HERE / "good/lecard.yml", tmp_path / name)
    (tmp_path / "lecard.stop").touch()
    with pytest.raises(CatalogError, match='dataset "lecard" stands twice'):
        read_catalog([tmp_path])


def test_four_thousand_brackets_do_not_bring_the_reader_down(tmp_path: Path) -> None:
    (tmp_path / "deep.yml").write_text("dataset: " + "[" * 100_000)
    with pytest.raises(CatalogError, match="nested deeper than 100 levels"):
        read_catalog([tmp_path / "deep.yml"])


def test_a_long_chain_of_references_is_followed_to_its_end_and_is_no_circle(tmp_path: Path) -> None:
    lines = [
        "dataset:",
        "  - fides_key: big",
        "    erasure: {store: {kind: parquet, url: lake/}, mode: delete, copies: []}",
    ]
    lines += ["    collections:"]
    for n in range(300):
        key = (
            "identity: member_no" if n == 0 else f"references: [{{dataset: big, field: c{n - 1}.out, direction: from}}]"
        )
        lines += [
            f"      - name: c{n}",
            f"        erasure: {{store: {{glob: c{n}/*}}}}",
            f"        fields: [{{name: in, fides_meta: {{{key}}}}}, {{name: out, data_categories: [user]}}]",
        ]
    (tmp_path / "big.yml").write_text("\n".join(lines) + "\n")
    assert lint([tmp_path]) == []
    assert len(reachable(read_catalog([tmp_path]))) == 300


def test_a_lint_with_nothing_but_warnings_still_passes(tmp_path: Path) -> None:
    shutil.copyfile(HERE / "bad/lint_words_that_look_like_others.yml", tmp_path / "c.yml")
    assert {p.severity for p in lint([tmp_path])} == {Severity.WARNING}
    assert main(["catalog", "lint", str(tmp_path / "c.yml")]) == 0


def test_every_category_and_kind_that_is_known_is_written_without_a_warning(tmp_path: Path) -> None:
    lines = [
        "dataset:",
        "  - fides_key: shop",
        "    erasure: {store: {kind: parquet, url: lake/}, mode: delete, copies: []}",
        "    collections:",
        "      - name: all",
        "        fields:",
    ]
    lines += [f"          - {{name: c{n}, data_categories: [{one}]}}" for n, one in enumerate(sorted(CATEGORIES))]
    kinds = (*sorted(SPELLED), "openid", "unionid", "member_no", "会员号")
    lines += [f"          - {{name: k{n}, fides_meta: {{identity: {one}}}}}" for n, one in enumerate(kinds)]
    (tmp_path / "c.yml").write_text("\n".join(lines) + "\n", "utf-8")
    assert len(CATEGORIES) == 85
    assert lint([tmp_path]) == []


@pytest.mark.parametrize(
    "text", ["a: &x 1\nb: *x\n", "a: !!str 1\n", "<<: {a: 1}\n", "a: =\n", "[=]\n", "- !x y\n", '"a": !<tag:x> b\n']
)
def test_files_with_anchors_tags_or_special_words_are_always_walked(text: str) -> None:
    assert tree._may_have_tags(text)

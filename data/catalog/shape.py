"""One catalog file as datasets: which key may stand where, and what it means.

The dialect is fideslang 3.1.4 plus an `erasure:` block at dataset, collection or field level. A dataset with such
a block is ours, and every unknown key in it is an error. One without is a Fides dataset, accepted unchanged:
whatever Fides would drop becomes a warning, and nothing in it gets a mode, so nothing in it is ever erased.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from fangxin.data.catalog.erasure import ERASURE_KEYS, HOMES, BlockReader, Settings, typed
from fangxin.data.catalog.tree import Page, Severity, empty
from fangxin.data.vocabulary import (
    Collection,
    Dataset,
    Field,
    Guards,
    IdentityFormat,
    Mask,
    Mode,
    Ownership,
    Reference,
)

Address = tuple[str, str, tuple[str, ...]]  # dataset, collection, path of the field

_SHARED_KEYS = ("description", "data_categories", "data_uses", "data_purposes", "data_subjects")
_META_KEYS = ("fides_meta", "fidesops_meta")
_RESOURCE_KEYS = ("fides_key", "organization_fides_key", "tags", "name", "description")
_DATASET_KEYS = (*_RESOURCE_KEYS, *_SHARED_KEYS, *_META_KEYS, "meta", "collections", "erasure")
_COLLECTION_KEYS = ("name", *_SHARED_KEYS, *_META_KEYS, "fields", "erasure")
_DATASET_META = ("resource_id", "after", "namespace", "redact")
_COLLECTION_META = ("after", "erase_after", "skip_processing", "masking_strategy_override", "partitioning", "redact")
_FIELD_META = (
    *("references", "identity", "primary_key", "data_type", "length", "return_all_elements", "read_only"),
    *("custom_request_field", "masking_strategy_override", "redact"),
)
_CATEGORY_KEYS = (*_RESOURCE_KEYS, "parent_key", "version_added", "version_deprecated", "replaced_by", "is_default")
_OTHER_RESOURCES = ("data_use", "data_subject", "data_qualifier", "organization", "policy", "system", "evaluation")

_FIDES_TYPES = ("string", "integer", "float", "boolean", "object_id", "object")
_OUR_TYPES = ("decimal", "date", "time", "timestamp", "uuid", "bytes", "json", "text")
_ONE_LENGTH = ("integer", "float", "boolean", "date", "timestamp")
_FORMATS = tuple(f.value for f in IdentityFormat)
_LINKABLE = frozenset({"hash", "hmac", "aes_encrypt"})


@dataclass(frozen=True)
class Link:
    """A declared reference, before anybody looked whether its target exists."""

    source: Address
    target: Address
    direction: str | None
    where: str
    ours: bool


@dataclass
class Draft:
    """What the files say, before references are resolved."""

    datasets: list[Dataset] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    customs: dict[Address, str] = field(default_factory=dict)  # custom_request_field: an extra seed kind
    labels: list[tuple[Page, yaml.Node, str]] = field(default_factory=list)  # categories used by datasets of ours
    kinds: list[tuple[Page, yaml.Node, str]] = field(default_factory=list)  # kinds that datasets of ours declare
    own_labels: set[str] = field(default_factory=set)  # categories declared in a `data_category:` list
    stop_lists: list[Path] = field(default_factory=list)
    replicas: list[tuple[Page, yaml.Node, str]] = field(default_factory=list)  # datasets that copies name


class FileReader:
    """Reads one composed file into a draft; `root` is what its stores' paths are relative to."""

    def __init__(self, page: Page, draft: Draft, folder: Path, root: Path, catalog_root: Path) -> None:
        self.page, self.draft = page, draft
        self.ours = True
        self.erasure = BlockReader(page, folder, root, catalog_root, draft)

    @property
    def _unknown(self) -> Severity:
        return Severity.ERROR if self.ours else Severity.WARNING

    def read(self, top: yaml.Node) -> None:
        """Read the whole file."""
        page = self.page
        listed = [n for k, n in _pairs(top) if k == "dataset"]
        datasets = page.items(listed[0], "dataset") if listed else []
        self.ours = any(_has_erasure(d) for d in datasets) or not datasets
        keys = page.mapping(
            top, "the file", ("dataset", "data_category", "root", *_OTHER_RESOURCES), unknown=self._unknown
        )
        if isinstance(top, yaml.MappingNode) and not {"dataset", "data_category"} & set(keys):
            page.say(top, 'expected a list "dataset:"; found none; a catalog file lists its datasets')
        for name in _OTHER_RESOURCES:
            if name in keys:
                page.say(keys[name], f'"{name}" is not read here; only datasets and data categories are', Severity.NOTE)
        for one in page.items(keys["data_category"], "data_category") if "data_category" in keys else []:
            known = page.mapping(one, "data_category", _CATEGORY_KEYS, required=("fides_key",))
            if "fides_key" in known and (label := page.name(known["fides_key"], "fides_key")):
                self.draft.own_labels.add(label)
        for one in datasets:
            self.ours = _has_erasure(one)
            self._dataset(one)

    # ------------------------------------------------------------ dataset, collection, field

    def _dataset(self, node: yaml.Node) -> None:
        page = self.page
        keys = page.mapping(
            node,
            "a dataset",
            _DATASET_KEYS,
            required=("fides_key", "collections"),
            unknown=self._unknown,
            elsewhere=HOMES,
        )
        key = page.name(keys["fides_key"], "fides_key", forbid="/") if "fides_key" in keys else None
        if key is None:
            return
        self._meta(keys, "fides_meta of a dataset", _DATASET_META)
        block = self._block(keys, "dataset")
        above = Settings(key_domain=key, categories=self._categories(keys))
        settings = self.erasure.settings(block, above, "dataset")
        self.erasure.starts.clear()  # a date field named for the whole dataset need not exist in every collection
        guards = self.erasure.guards(block["guards"]) if "guards" in block else Guards()
        collections: dict[str, Collection] = {}
        for one in page.items(keys["collections"], "collections") if "collections" in keys else []:
            made = self._collection(one, key, settings)
            if made and made.name in collections:
                page.say(one, f'collection "{made.name}" stands twice in dataset "{key}"; names are unique')
            elif made:
                collections[made.name] = made
        title = self._title(keys) or key
        accountable = self.erasure.accountable(block)
        self.draft.datasets.append(Dataset(key, title, tuple(collections.values()), guards, self.ours, accountable))

    def _title(self, keys: dict[str, yaml.Node]) -> str | None:
        return self.page.text(keys["name"], "name") if "name" in keys and not empty(keys["name"]) else None

    def _collection(self, node: yaml.Node, dataset: str, above: Settings) -> Collection | None:
        page = self.page
        keys = page.mapping(
            node, "a collection", _COLLECTION_KEYS, required=("name", "fields"), unknown=self._unknown, elsewhere=HOMES
        )
        name = page.name(keys["name"], "name of a collection", forbid="/") if "name" in keys else None
        if name is None:
            return None
        meta = self._meta(keys, "fides_meta of a collection", _COLLECTION_META)
        block = self._block(keys, "collection")
        above = replace(above, categories=self._categories(keys) or above.categories)
        if self.ours and "mode" not in block:
            above = self._collection_override(meta, above)
        self.erasure.starts.clear()
        settings = self.erasure.settings(block, above, "collection")
        fields = self._fields(keys["fields"], (dataset, name, ()), settings) if "fields" in keys else ()
        names = {f.name for f in fields}
        for where, start in self.erasure.starts:
            if start != "closed" and start.partition(".")[0] not in names:
                page.say(where, f'retention runs from "{start}"; expected a field of "{name}" or the event "closed"')
        person = bool(self.page.flag_at(block, "person"))
        keyed = sum(f.primary_key for f in fields)
        if person and keyed != 1:
            page.say(node, f'person collection "{name}": expected one field with primary_key: true; found {keyed}')
        after = page.names(meta["erase_after"], "erase_after") if "erase_after" in meta else ()
        return Collection(
            dataset=dataset,
            name=name,
            fields=fields,
            store=self.erasure.address(node, name, settings, required=self.ours),
            mode=settings.mode,
            mask=settings.mask,
            ownership=settings.ownership,
            on_shared=self.page.word_at(block, "on_shared", ("unlink", "ask", "erase")) or "unlink",
            person=person,
            retention=settings.retention,
            key_domain=settings.key_domain,
            copies=settings.copies,
            reviewed=settings.reviewed,
            because=settings.because,
            erase_after=after,
            where=page.where(node),
        )

    def _fields(self, node: yaml.Node, parent: Address, above: Settings) -> tuple[Field, ...]:
        found: dict[str, Field] = {}
        for one in self.page.items(node, "fields"):
            made = self._field(one, parent, above)
            if made and made.name in found:
                self.page.say(one, f'field "{made.name}" stands twice in "{parent[1]}"; names are unique')
            elif made:
                found[made.name] = made
        return tuple(found.values())

    def _field(self, node: yaml.Node, parent: Address, above: Settings) -> Field | None:
        page = self.page
        keys = page.mapping(
            node, "a field", _COLLECTION_KEYS, required=("name",), unknown=self._unknown, elsewhere=HOMES
        )
        name = page.name(keys["name"], "name of a field") if "name" in keys else None
        if name is None:
            return None
        address = (parent[0], parent[1], (*parent[2], name))
        meta = self._meta(keys, "fides_meta", _FIELD_META)
        block = self._block(keys, "field")
        own = self._categories(keys) if "data_categories" in keys else above.categories
        if self.ours and "mode" not in block:
            above = self._field_override(meta, above)
        settings = self.erasure.settings(block, above, "field")
        data_type = self._data_type(keys, meta, block)
        if data_type == "text" and "ownership" not in block:
            settings = replace(settings, ownership=Ownership.MENTION)  # free text: others are mentioned in it
        nested = settings if "fields" not in keys else replace(settings, categories=own)
        if "custom_request_field" in meta:
            custom = self._kind(meta, "custom_request_field")
            if custom:
                self.draft.customs[address] = custom
        form = self.page.word_at(block, "identity_format", _FORMATS)
        confidence = self.erasure.confidence(block["confidence"]) if "confidence" in block else None
        fanout = page.integer(block["max_fanout"], "max_fanout", least=1) if "max_fanout" in block else None
        pad = page.integer(block["pad"], "pad", least=1, most=256) if "pad" in block else None
        if pad and data_type in _ONE_LENGTH:
            page.say(block["pad"], f"pad: expected on text only; all values of {data_type} are of one length")
        return Field(
            name=name,
            data_type=data_type,
            categories=own,
            identity=self._kind(meta, "identity") if "identity" in meta else None,
            primary_key=bool(self.page.flag_at(meta, "primary_key")),
            references=self._references(meta, address),
            mode=settings.mode,
            mask=typed(settings.mask, data_type),
            key_domain=settings.key_domain,
            sensitive=bool(self.page.flag_at(block, "sensitive")),
            retention=settings.retention,
            ownership=settings.ownership,
            party=page.name(block["party"], "party") if "party" in block else None,
            identity_format=IdentityFormat(form) if form else IdentityFormat.RAW,
            normalised=bool(self.page.flag_at(block, "normalised")),
            confidence=1.0 if confidence is None else confidence,
            max_fanout=fanout or 64,
            because=settings.because,
            protected_as=page.name(block["protected_as"], "protected_as") if "protected_as" in block else None,
            pad=pad or 0,
            sub=self._fields(keys["fields"], address, nested) if "fields" in keys else (),
            where=page.where(node),
        )

    # ------------------------------------------------------------ Fides' own keys

    def _meta(self, keys: dict[str, yaml.Node], what: str, known: tuple[str, ...]) -> dict[str, yaml.Node]:
        """fides_meta, or the old fidesops_meta in its place; keys with an empty value count as absent."""
        both = [keys[k] for k in _META_KEYS if k in keys and not empty(keys[k])]
        if len(both) > 1:
            self.page.say(
                both[1], "fides_meta and fidesops_meta together; expected one; Fides drops the second", self._unknown
            )
        if not both:
            return {}
        found = self.page.mapping(both[0], what, known, unknown=self._unknown, elsewhere=HOMES)
        if "redact" in found:
            self.page.word_at(found, "redact", ("name",))
        return {k: n for k, n in found.items() if not empty(n)}

    def _block(self, keys: dict[str, yaml.Node], level: str) -> dict[str, yaml.Node]:
        if "erasure" not in keys:
            return {}
        homes = {k: home for k, home in HOMES.items() if k not in ERASURE_KEYS[level]}
        return self.page.mapping(keys["erasure"], f"erasure of a {level}", ERASURE_KEYS[level], elsewhere=homes)

    def _kind(self, meta: dict[str, yaml.Node], key: str) -> str | None:
        kind = self.page.name(meta[key], key)
        if kind and self.ours:
            self.draft.kinds.append((self.page, meta[key], kind))
        return kind

    def _categories(self, keys: dict[str, yaml.Node]) -> tuple[str, ...]:
        if "data_categories" not in keys:
            return ()
        nodes = self.page.items(keys["data_categories"], "data_categories")
        found = [(n, label) for n in nodes if (label := self.page.name(n, "data_categories"))]
        if self.ours:
            self.draft.labels.extend((self.page, n, label) for n, label in found)
        return tuple(label for _n, label in found)

    def _references(self, meta: dict[str, yaml.Node], source: Address) -> tuple[Reference, ...]:
        page, found = self.page, []
        for one in page.items(meta["references"], "references") if "references" in meta else []:
            keys = page.mapping(
                one,
                "a reference",
                ("dataset", "field", "direction"),
                required=("dataset", "field"),
                unknown=self._unknown,
            )
            if not {"dataset", "field"} <= set(keys):
                continue
            dataset = page.name(keys["dataset"], "dataset of a reference")
            if isinstance(keys["field"], yaml.SequenceNode):  # names that contain dots
                parts = page.names(keys["field"], "field of a reference")
            else:
                parts = tuple((page.name(keys["field"], "field of a reference") or "").split("."))
            if dataset is None or parts == ("",):
                continue
            if len(parts) < 2 or not all(parts):
                page.say(keys["field"], f'field of a reference: expected collection.field; found "{".".join(parts)}"')
                continue
            way = keys.get("direction")
            direction = page.one_of(way, "direction", ("from", "to")) if way is not None and not empty(way) else None
            target = (dataset, parts[0], parts[1:])
            self.draft.links.append(Link(source, target, direction, page.where(one), self.ours))
            found.append(Reference(dataset, parts[0], ".".join(parts[1:]), direction))
        return tuple(found)

    def _data_type(
        self, keys: dict[str, yaml.Node], meta: dict[str, yaml.Node], block: dict[str, yaml.Node]
    ) -> str | None:
        page = self.page
        theirs = page.text(meta["data_type"], "data_type") if "data_type" in meta else None
        if theirs is not None and theirs.removesuffix("[]") not in _FIDES_TYPES:
            hint = "; write it into erasure.data_type" if theirs.removesuffix("[]") in _OUR_TYPES else ""
            page.say(meta["data_type"], f'data_type: expected one of {", ".join(_FIDES_TYPES)}; found "{theirs}"{hint}')
        ours = page.text(block["data_type"], "data_type") if "data_type" in block else None
        if ours is not None and ours.removesuffix("[]") not in (*_FIDES_TYPES, *_OUR_TYPES):
            self.page.one_of(block["data_type"], "data_type", (*_FIDES_TYPES, *_OUR_TYPES))
        if "length" in meta:
            page.integer(meta["length"], "length", least=1)
        if "return_all_elements" in meta:
            page.flag(meta["return_all_elements"], "return_all_elements")
            if not (theirs or "").endswith("[]"):
                page.say(meta["return_all_elements"], "return_all_elements: expected a data_type that ends in []")
        if "fields" in keys and theirs and theirs.removesuffix("[]") != "object":
            page.say(meta["data_type"], f'data_type: expected object, since the field has fields; found "{theirs}"')
        return ours or theirs

    def _collection_override(self, meta: dict[str, yaml.Node], above: Settings) -> Settings:
        if "masking_strategy_override" in meta:
            keys = self.page.mapping(meta["masking_strategy_override"], "masking_strategy_override", ("strategy",))
            if self.page.word_at(keys, "strategy", ("delete",)):
                above = replace(above, mode=Mode.DELETE, because=None)
        if self.page.flag_at(meta, "skip_processing"):
            above = replace(above, mode=Mode.KEEP, because=None)
        return above

    def _field_override(self, meta: dict[str, yaml.Node], above: Settings) -> Settings:
        """Fides' masking rule as ours; rules whose result still names the person are carried out as null."""
        if "masking_strategy_override" in meta:
            where = meta["masking_strategy_override"]
            keys = self.page.mapping(where, "masking_strategy_override", ("strategy", "configuration"))
            strategy = self.page.text(keys["strategy"], "strategy") if "strategy" in keys else None
            if strategy in _LINKABLE:
                text = f"{strategy} keeps the value linkable to the person; null is written instead"
                self.page.say(keys["strategy"], text, Severity.WARNING)
            mask = Mask()
            if strategy == "string_rewrite" and "configuration" in keys:
                options = self.page.mapping(keys["configuration"], "configuration", None)
                if "rewrite_value" in options:
                    mask = Mask(constant=self.page.text(options["rewrite_value"], "rewrite_value"))
            mode = Mode.DELETE if strategy == "delete" else Mode.MASK
            above = replace(above, mode=mode, mask=mask, because=None)
        if self.page.flag_at(meta, "read_only"):
            above = replace(above, mode=Mode.KEEP, because=None)
        return above


def _pairs(node: yaml.Node) -> list[tuple[str, yaml.Node]]:
    if not isinstance(node, yaml.MappingNode):
        return []
    return [(k.value, v) for k, v in node.value if isinstance(k, yaml.ScalarNode)]


def _has_erasure(node: yaml.Node) -> bool:
    for key, value in _pairs(node):
        if key == "erasure":
            return True
        if key in ("collections", "fields", "<<"):
            parts = value.value if isinstance(value, yaml.SequenceNode) else [value]
            if any(_has_erasure(one) for one in parts):
                return True
    return False

"""The `erasure:` block: what a level sets, what it inherits, and where its store's paths may lead.

Settings go from dataset to collection to field, the nearest wins; a reason travels with its mode, and a store is
put together key by key. Paths stay inside the root of the file, links followed; no password stands in a catalog.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Protocol

import yaml

from fangxin.data.catalog.tree import Page, empty, quoted
from fangxin.data.vocabulary import Accountable, Copy, Guards, Mask, Mode, Ownership, Retention, StoreAddress

_EVERY_LEVEL = ("mode", "mask", "key_domain", "retention", "because")
ERASURE_KEYS = {
    "dataset": (
        *(*_EVERY_LEVEL, "store", "copies", "guards", "reviewed"),
        *("owner", "executor", "terms", "processors"),
    ),
    "collection": (*_EVERY_LEVEL, "store", "copies", "ownership", "on_shared", "person", "reviewed"),
    "field": (
        *(*_EVERY_LEVEL, "sensitive", "ownership", "party", "identity_format", "normalised", "confidence"),
        *("max_fanout", "data_type", "protected_as", "pad"),
    ),
}
HOMES = {
    key: f"the erasure block of a {level}"
    for level in ("field", "collection", "dataset")
    for key in ERASURE_KEYS[level]
}
_OPENED = ("parquet", "sqlite", "duckdb", "text")
_STORES = (*_OPENED, "postgres", "delta", "iceberg", "objects")  # the others can be written down, not opened yet
_REMOTE = frozenset({"postgres", "objects"})
_PERIOD = r"[0-9]{1,5}[dwmy]|P[0-9]{1,5}[DWMY]"
_PASSWORD = re.compile(r"//[^/@]*:[^/@]+@|password\s*=", re.IGNORECASE)


@dataclass(frozen=True)
class Settings:
    """What a level hands down."""

    mode: Mode | None = None
    because: str | None = None
    mask: Mask = field(default_factory=Mask)
    key_domain: str = ""
    retention: Retention | None = None
    ownership: Ownership = Ownership.SOLE
    reviewed: bool = True
    copies: tuple[Copy, ...] | None = None
    store: dict[str, tuple[str, yaml.Node]] = field(default_factory=dict)
    partition: str | tuple[str, ...] | None = None
    categories: tuple[str, ...] = ()


class Found(Protocol):
    """Where a block's reader leaves what has to be looked up later."""

    stop_lists: list[Path]
    replicas: list[tuple[Page, yaml.Node, str]]  # datasets that copies name


class BlockReader:
    """Reads the erasure blocks of one file; `starts` collects the fields that retentions run from."""

    def __init__(self, page: Page, folder: Path, root: Path, catalog_root: Path, found: Found) -> None:
        self.page, self.found = page, found
        self.folder, self.root, self.catalog_root = folder, root, catalog_root
        self.starts: list[tuple[yaml.Node, str]] = []

    def settings(self, block: dict[str, yaml.Node], above: Settings, level: str) -> Settings:
        """Return what holds at a level: what its block sets over what it inherits."""
        page, now = self.page, above
        if "mode" in block and (mode := page.word_at(block, "mode", tuple(m.value for m in Mode))):
            now = replace(now, mode=Mode(mode), because=None)
        if "because" in block:
            now = replace(now, because=page.text(block["because"], "because"))
        if "mask" in block:
            now = replace(now, mask=self._mask(block["mask"]))
        if "key_domain" in block and (domain := page.name(block["key_domain"], "key_domain", forbid="/")):
            now = replace(now, key_domain=domain)
        if "retention" in block:
            now = replace(now, retention=self._retention(block["retention"], above.retention))
        if "ownership" in block and (word := page.word_at(block, "ownership", tuple(o.value for o in Ownership))):
            now = replace(now, ownership=Ownership(word))
        if "reviewed" in block and (flag := page.flag_at(block, "reviewed")) is not None:
            now = replace(now, reviewed=flag)
        if "copies" in block:
            copies = [c for one in page.items(block["copies"], "copies") if (c := self._copy(one))]
            now = replace(now, copies=tuple(copies))
        if "store" in block:
            now = self._store(block["store"], now, level)
        return now

    def accountable(self, block: dict[str, yaml.Node]) -> Accountable:
        """Return who answers for a dataset: roles and parties, never people by name."""
        page = self.page
        said = {key: page.name(block[key], key) or "" for key in ("owner", "executor") if key in block}
        terms = page.text(block["terms"], "terms") if "terms" in block else None
        if terms is not None and not re.fullmatch("[0-9a-f]{64}", terms):
            page.say(
                block["terms"], f'terms: expected the SHA-256 of the accepted text, 64 hex digits; found "{terms}"'
            )
        processors = page.names(block["processors"], "processors") if "processors" in block else ()
        return Accountable(said.get("owner", ""), said.get("executor", ""), terms or "", tuple(processors))

    def _store(self, node: yaml.Node, now: Settings, level: str) -> Settings:
        page = self.page
        known = ("kind", "url", "glob", "secret") + (("partition",) if level == "collection" else ())
        keys = page.mapping(node, "store", known, elsewhere={"partition": "the store of a collection"})
        store = dict(now.store)
        if "kind" in keys:  # an unknown kind counts as given: one mistake, one message
            kind = page.one_of(keys["kind"], "store.kind", _STORES, offered=_OPENED)
            store["kind"] = (kind or "", keys["kind"])
        for key in ("url", "glob", "secret"):
            if key in keys and (text := page.text(keys[key], f"store.{key}")) is not None:
                store[key] = (text, keys[key])
        now = replace(now, store=store)
        if "partition" in keys:
            part = keys["partition"]
            if isinstance(part, yaml.SequenceNode):
                return replace(now, partition=page.names(part, "store.partition"))
            word = page.one_of(part, "store.partition", ("none", "hive"))
            return replace(now, partition="hive" if word == "hive" else None)
        return now

    def address(self, node: yaml.Node, name: str, settings: Settings, *, required: bool) -> StoreAddress:
        """Put the store's address together and check that it stays inside the root."""
        given = {k: v for k, (v, _n) in settings.store.items()}
        if required and (missing := [k for k in ("kind", "url") if k not in given]):
            self.page.say(node, f'collection "{name}" has no store.{missing[0]}; expected it here or at its dataset')
        url = given.get("url", "")
        if "url" in given:
            url = self._inside(settings.store["url"][1], url, given.get("kind", ""))
        if "glob" in given and (PurePosixPath(given["glob"]).is_absolute() or ".." in given["glob"].split("/")):
            self.page.say(
                settings.store["glob"][1], f'store.glob: expected a pattern below its url; found "{given["glob"]}"'
            )
        return StoreAddress(
            kind=given.get("kind", ""),
            url=url,
            glob=given.get("glob", "*"),
            secret=given.get("secret"),
            partition=settings.partition,
        )

    def _inside(self, node: yaml.Node, url: str, kind: str) -> str:
        """Check that a path stays in the file's root, links followed; return it relative to the catalog's root."""
        if _PASSWORD.search(url):
            self.page.say(
                node, "store.url: a password stands in the catalog; store.secret names the setting that holds it"
            )
            return ""
        if kind in _REMOTE and "://" in url:
            return url
        where = self.root / url
        resolved = Path(os.path.realpath(where))
        if (
            PurePosixPath(url).is_absolute()
            or ".." in PurePosixPath(url).parts
            or not resolved.is_relative_to(self.root)
        ):
            self.page.say(node, f'store.url leaves its root: expected a path below "root:"; found "{url}"')
            return ""
        if self.root == self.catalog_root:
            return url
        if not resolved.is_relative_to(self.catalog_root):
            self.page.say(
                node, "store.url lies outside the root of the first catalog file; declare the same root: in all"
            )
            return ""
        return resolved.relative_to(self.catalog_root).as_posix()

    def _retention(self, node: yaml.Node, above: Retention | None) -> Retention | None:
        page = self.page
        if isinstance(node, yaml.ScalarNode) and node.value == "none":
            return None
        keys = page.mapping(node, "retention", ("law", "class", "from"))
        if "class" not in keys:
            page.say(node, 'retention has no "class"; expected a record class of a law, or none')
            return above
        label = page.name(keys["class"], "retention.class")
        if label == "none":
            return None
        law = page.name(keys["law"], "retention.law") if "law" in keys else above.law if above else None
        if law is None:
            page.say(node, 'retention has no "law"; expected the name of a file in the folder of laws')
            return above
        start = page.name(keys["from"], "retention.from") if "from" in keys else "closed"
        if start is not None and "from" in keys:
            self.starts.append((keys["from"], start))
        return Retention(law, label or "", start or "closed")

    def _copy(self, node: yaml.Node) -> Copy | None:
        page = self.page
        keys = page.mapping(node, "a copy", ("kind", "dataset", "name", "keep", "method", "from"), required=("kind",))
        kind = page.word_at(keys, "kind", ("replica", "backup", "derived", "cache", "stream"))
        named = [k for k in ("dataset", "name") if k in keys]
        if len(named) != 1:
            page.say(node, f"a copy: expected either dataset or name; found {' and '.join(named) or 'neither'}")
            return None
        name = page.name(keys[named[0]], named[0])
        keep = page.text(keys["keep"], "keep") if "keep" in keys else None
        if keep is not None and not re.fullmatch(_PERIOD, keep):
            page.say(keys["keep"], f'keep: expected a period such as 35d or P35D; found "{keep}"')
        method = page.text(keys["method"], "method") if "method" in keys else None
        start = page.text(keys["from"], "from") if "from" in keys else None
        if kind is None or name is None:
            return None
        if named == ["dataset"]:
            self.found.replicas.append((page, keys["dataset"], name))
        return Copy(kind, name, keep, method, start, in_catalog=named == ["dataset"])

    def guards(self, node: yaml.Node) -> Guards:
        """Read the limits of the closure."""
        page = self.page
        known = ("stop_list", "max_new_identities", "min_confidence", "max_collateral", "max_hops", "merge")
        keys = page.mapping(node, "guards", known)
        made = Guards()
        if "stop_list" in keys and (name := page.text(keys["stop_list"], "stop_list")):
            path = self.folder / name
            if path.is_file():
                self.found.stop_lists.append(path)
            else:
                page.say(keys["stop_list"], f'stop_list: expected a file beside the catalog; found no "{name}"')
            made = replace(made, stop_list=str(path))
        if "max_new_identities" in keys and (most := page.integer(keys["max_new_identities"], "guard", least=1)):
            made = replace(made, max_new_identities=most)
        if "max_collateral" in keys and (most := page.integer(keys["max_collateral"], "guard")) is not None:
            made = replace(made, max_collateral=most)
        if "max_hops" in keys and (most := page.integer(keys["max_hops"], "guard", least=1)):
            made = replace(made, max_hops=most)
        if "min_confidence" in keys and (bar := page.share(keys["min_confidence"], "min_confidence")) is not None:
            made = replace(made, min_confidence=bar)
        return replace(made, merge=page.word_at(keys, "merge", ("ask", "join", "apart")) or "ask")

    def _mask(self, node: yaml.Node) -> Mask:
        page = self.page
        if empty(node):
            return Mask()
        keys = page.mapping(node, "mask", ("constant", "bucket"))
        if len(keys) != 1:
            page.say(node, "mask: expected null, {constant: x} or {bucket: n}")
            return Mask()
        if "bucket" in keys:
            return Mask(bucket=page.integer(keys["bucket"], "mask.bucket", least=2))
        constant = keys["constant"]
        text = page.text(constant, "mask.constant")
        if text is None or quoted(constant):
            return Mask(constant=text)
        if re.fullmatch(r"-?(0|[1-9][0-9]{0,17})", text):
            return Mask(constant=int(text))
        if re.fullmatch(r"-?[0-9]+\.[0-9]+", text):
            return Mask(constant=float(text))
        return Mask(constant={"true": True, "false": False}.get(text, text))

    def confidence(self, node: yaml.Node) -> float | None:
        """A number, or a map by target of which the least sure counts."""
        if not isinstance(node, yaml.MappingNode):
            return self.page.share(node, "confidence")
        by_target = self.page.mapping(node, "confidence", None)
        found = [v for n in by_target.values() if (v := self.page.share(n, "confidence")) is not None]
        return min(found, default=None)


def typed(mask: Mask, data_type: str | None) -> Mask:
    """A constant that looks like a number is text where the field holds text."""
    if data_type in ("string", "text", "json") and mask.constant is not None and not isinstance(mask.constant, str):
        return Mask(constant=str(mask.constant))
    return mask

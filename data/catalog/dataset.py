"""The catalog: what is held, read from YAML files into the house's words.

A strict superset of fideslang 3.1.4 (see shape.py for the keys). All problems of all files are collected before
anything is raised, each as `file:line:column: what; expected; found; hint`.

* Stores' paths are relative to a file's `root:` (default: its own folder) and stay inside it, links followed.
* The digest covers names and bytes of every source, stop lists included: the same digest is the same catalog.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import yaml

from fangxin.data.catalog.known import CATEGORIES, folded, likely_category, likely_kind
from fangxin.data.catalog.references import resolve
from fangxin.data.catalog.shape import Draft, FileReader
from fangxin.data.catalog.tree import Page, Problem, Severity, collector_paused, compose, ordered
from fangxin.data.errors import CatalogError, unread
from fangxin.data.vocabulary import Catalog

__all__ = ["Problem", "Severity", "problems", "read", "read_catalog"]


def read_catalog(paths: Sequence[Path]) -> Catalog:
    """Read files, or folders of *.yml and *.yaml, as one catalog; CatalogError carries every error found."""
    catalog, found = read(paths)
    errors = [str(p) for p in found if p.severity is Severity.ERROR]
    if errors:
        raise CatalogError(errors)
    return catalog


def problems(paths: Sequence[Path]) -> list[Problem]:
    """Return everything that reading alone can say about the files, in the order of files and lines."""
    return read(paths)[1]


def read(paths: Sequence[Path]) -> tuple[Catalog, list[Problem]]:
    """Read as far as possible; the catalog is whole only if no problem is an error."""
    found: list[Problem] = []
    files = _files(paths, found)
    with collector_paused():
        catalog = _whole(paths, files, found)  # its nodes are gone before the collector could count them
    return catalog, ordered(found, [label for label, *_ in files])


def _whole(paths: Sequence[Path], files: Sequence[tuple[str, str, Path, bytes]], found: list[Problem]) -> Catalog:
    draft, pages = Draft(), []
    for label, _name, path, body in files:
        node = compose(label, body, found)
        if node is not None:
            page = Page(label, found)
            pages.append((page, path, node, _root(page, node, path)))
    catalog_root = pages[0][3] if pages else Path(os.path.realpath(paths[0] if paths else "."))
    for page, path, node, root in pages:
        FileReader(page, draft, path.parent, root, catalog_root).read(node)
    _unique(draft, found)
    _labels(draft)
    _kinds(draft)
    resolved = resolve(draft, found)
    sources = [(name, body) for _label, name, _path, body in files]
    sources += [(f"stop_list:{p.name}", p.read_bytes()) for p in dict.fromkeys(draft.stop_lists)]
    return Catalog(resolved.datasets, catalog_root, _digest(sources), resolved.person_kind, resolved.kinds)


def _files(paths: Sequence[Path], found: list[Problem]) -> list[tuple[str, str, Path, bytes]]:
    """(label, name relative to its folder, path, bytes) of every file, folders sorted, each file once."""
    chosen: dict[str, tuple[str, str, Path, bytes]] = {}

    def fail(path: Path, text: str) -> None:
        found.append(Problem(f"{path}:1:1", Severity.ERROR, text))

    if not paths:
        found.append(Problem("catalog:1:1", Severity.ERROR, "no catalog given; expected files or folders"))
    for path in paths:
        members = [path]
        if path.is_dir():
            members = sorted(p for p in path.iterdir() if p.suffix in (".yml", ".yaml") and p.is_file())
            if not members:
                fail(path, "no catalog file in this folder; expected *.yml or *.yaml, here or where --catalog says")
        for one in members:
            try:
                body = one.read_bytes()
            except OSError as error:
                fail(one, f"cannot be read: {unread(error)}; expected a catalog file or a folder of them")
                continue
            chosen.setdefault(os.path.realpath(one), (str(one), one.name, one, body))
    return list(chosen.values())


def _root(page: Page, top: yaml.Node, path: Path) -> Path:
    folder = Path(os.path.realpath(path.parent))
    if isinstance(top, yaml.MappingNode):
        for key, value in top.value:
            if isinstance(key, yaml.ScalarNode) and key.value == "root":
                return Path(os.path.realpath(folder / (page.text(value, "root") or ".")))
    return folder


def _unique(draft: Draft, found: list[Problem]) -> None:
    seen: dict[str, str] = {}
    for dataset in draft.datasets:
        where = dataset.collections[0].where if dataset.collections else "catalog:1:1"
        if dataset.key in seen:
            found.append(
                Problem(
                    where, Severity.ERROR, f'dataset "{dataset.key}" stands twice; the other has {seen[dataset.key]}'
                )
            )
        seen.setdefault(dataset.key, where)
    for page, node, name in draft.replicas:
        if name not in seen:
            page.say(
                node, f'a copy names dataset "{name}", which is not in the catalog; write name: for any other copy'
            )


def _labels(draft: Draft) -> None:
    """A category outside `user` and `system` that nobody declares is a typo, and would hide personal data.

    Inside them it stays personal whatever it says, so an unknown one only deserves a look.
    """
    roots, own = {"user", "system"} | draft.own_labels, frozenset(draft.own_labels)
    judged: dict[str, str] = {}
    for page, node, label in draft.labels:
        if label in CATEGORIES or label in own:
            continue
        parts = label.split(".")
        above = {".".join(parts[: n + 1]) for n in range(len(parts))}
        if above & own:
            continue
        if above & roots:
            if label not in judged:
                likely = likely_category(label, own)
                judged[label] = f'did you mean "{likely}"?' if likely else "declare it in data_category: if it is meant"
            page.say(node, f'unknown category "{label}"; {judged[label]}', Severity.WARNING)
        else:
            close = next(iter(difflib.get_close_matches(parts[0], sorted(roots), n=1)), None)
            meant = f'did you mean "{".".join((close, *parts[1:]))}"?' if close else "declare it in data_category:"
            page.say(node, f'unknown category "{label}"; {meant}')


def _kinds(draft: Draft) -> None:
    """Any word may be a kind; one that looks like another is compared letter by letter, and would miss its people."""
    first: dict[str, str] = {}
    judged: dict[str, str] = {}
    for page, node, kind in draft.kinds:
        if kind not in judged:
            judged[kind] = likely_kind(kind) or first.setdefault(folded(kind), kind)
        if (meant := judged[kind]) != kind:
            page.say(node, f'unknown kind of identity "{kind}"; did you mean "{meant}"?', Severity.WARNING)


def _digest(sources: Sequence[tuple[str, bytes]]) -> str:
    running = hashlib.sha256()
    for name, body in sorted(sources):
        for part in (name.encode(), body):
            running.update(len(part).to_bytes(8, "big") + part)
    return running.hexdigest()

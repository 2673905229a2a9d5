"""What is wrong with a catalog before any store is opened: `fangxin catalog lint`, offline.

An error would let a person be missed, a wrong key die, or somebody else's rows change; a warning costs certainty;
a note only tells. Reading comes first: while a file cannot be read whole, only what stands by itself is judged further
(modes, laws, record classes), and nothing that hangs on a mistake told already.
"""

from __future__ import annotations

import difflib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fangxin.data.catalog.dataset import Problem, Severity, read
from fangxin.data.catalog.law import Laws
from fangxin.data.catalog.tree import ordered
from fangxin.data.vocabulary import Catalog, Collection, Dataset, Field, IdentityFormat, Mode, Ownership

_FILES = frozenset({"parquet", "text", "objects", "delta", "iceberg"})  # one unit, one collection
_ON_DISK = _FILES - {"objects"} | {"sqlite", "duckdb"}
# Names that applications give to columns by which they hide rows.
_SOFT = re.compile(
    r"(is_?|was_?|soft_?)?(deleted|removed|trashed|archived|cancelled|tombstoned?)(_?(at|on|by|time|date|flag))?"
    r"|(del|delete|deletion)_?(flag|status|time|date|at)|tombstone|trashed_?at",
    re.IGNORECASE,
)
_NUMERIC = frozenset({"integer", "float", "decimal"})

Finding = tuple[str, Severity, str]


def lint(paths: Sequence[Path], laws: Laws | None = None) -> list[Problem]:
    """Return every error, warning and note about the files, in the order of files and lines.

    With `laws`, record classes and laws that no file of theirs knows are errors too. Looks at file names below the
    stores' roots, opens none of them.
    """
    catalog, found = read(paths)
    broken = [p.where for p in found if p.severity is Severity.ERROR]
    findings = [Problem(*finding) for rule in (_ALONE if broken else _RULES) for finding in rule(catalog)]
    if laws is not None:
        findings += [Problem(*finding) for finding in _record_classes(catalog, laws)]
    if broken:
        hangs = _hanging(catalog, broken)
        findings = [p for p in findings if p.severity is Severity.ERROR and p.where not in hangs]
    found += findings
    labels = list(dict.fromkeys(c.where.rsplit(":", 2)[0] for c in catalog.collections))
    return ordered(found, labels)


def _hanging(catalog: Catalog, broken: Sequence[str]) -> frozenset[str]:
    """Places of collections and fields that a mistake in reading may have left without what they are judged by.

    A mistake inside a field is that field's; one between a collection and its fields is all of theirs; any other may
    be a dataset's, and with it everything of the file.
    """
    owned: dict[str, list[tuple[int, int, str, Collection]]] = defaultdict(list)
    for _dataset, one in _collections(catalog):
        for where in (one.where, *(f.where for f in _all(one.fields))):
            label, line, column = where.rsplit(":", 2)
            owned[label].append((int(line), int(column), where, one))
    hanging: set[str] = set()
    for place in broken:
        label, line, column = place.rsplit(":", 2)
        here = sorted(owned[label], key=lambda o: o[:2])
        last = next((o for o in reversed(here) if o[:2] <= (int(line), int(column))), None)
        if last is not None and (int(line) == last[0] or int(column) > last[1]):
            mine = [last[2]] if last[2] != last[3].where else [last[2], *(f.where for f in _all(last[3].fields))]
            hanging.update(mine)
        else:
            hanging.update(o[2] for o in here)
    return frozenset(hanging)


def reachable(catalog: Catalog) -> frozenset[str]:
    """Addresses of the collections that some identity leads to, following only what the closure follows."""
    by_kind: dict[str, list[Collection]] = defaultdict(list)
    for one in catalog.collections:
        for kind in {kind for f in _all(one.fields) for kind in f.matches}:
            by_kind[kind].append(one)
    todo = sorted(catalog.kinds - {"name"})
    known, reached = set(todo), set[str]()
    while todo:
        for one in by_kind[todo.pop()]:
            if one.address not in reached:
                reached.add(one.address)
                if one.ownership in (Ownership.SOLE, Ownership.JOINT):
                    new = {kind for f in _all(one.fields) for kind in f.emits} - known
                    known |= new
                    todo += new
    return frozenset(reached)


# ---------------------------------------------------------------- finding people


def _unreachable(catalog: Catalog) -> Iterator[Finding]:
    reached = reachable(catalog)
    for dataset, one in _collections(catalog):
        personal = [f for f in _all(one.fields) if f.personal]
        if personal and one.address not in reached:
            severity = Severity.ERROR if dataset.ours else Severity.WARNING
            text = (
                f'no identity leads to personal field "{personal[0].name}" of {one.address}'
                f"{_more(personal)}; add a reference or an identity to its collection"
            )
            yield personal[0].where, severity, text


def _inexact_identifiers(catalog: Catalog) -> Iterator[Finding]:
    for dataset, one in _collections(catalog):
        for f in _all(one.fields):
            identifies = f.identity or f.references or f.primary_key or f.matches or f.emits
            if identifies and (f.data_type or "").removesuffix("[]") in ("float", "double"):
                text = (
                    f'identifier "{f.name}" is a float; expected integer or string; '
                    "a float cannot tell 9007199254740993 from ...992"
                )
                yield f.where, Severity.ERROR if dataset.ours else Severity.WARNING, text


def _joint_parties(catalog: Catalog) -> Iterator[Finding]:
    for _dataset, one in _ours(catalog):
        if one.ownership is Ownership.JOINT or any(f.ownership is Ownership.JOINT for f in one.fields):
            parties = sorted({f.party for f in _all(one.fields) if f.party})
            if len(parties) < 2:
                text = f"{one.address} is joint; expected fields of two parties; found {_list(parties)}; add party:"
                yield one.where, Severity.ERROR, text


def _hash_secrets(catalog: Catalog) -> Iterator[Finding]:
    for _dataset, one in _collections(catalog):
        for f in _all(one.fields):
            if f.identity and f.identity_format is IdentityFormat.HMAC and not one.store.secret:
                text = f'"{f.name}" holds HMACs and no secret is named; it cannot be searched; add store.secret'
                yield f.where, Severity.WARNING, text


# ---------------------------------------------------------------- erasing the right thing


def _modes(catalog: Catalog) -> Iterator[Finding]:
    for dataset in catalog.datasets:
        if not dataset.ours and dataset.collections:
            text = f'dataset "{dataset.key}" has no erasure block: it is located and exported, never erased'
            yield dataset.collections[0].where, Severity.WARNING, text
    for _dataset, one in _ours(catalog):
        for f in _all(one.fields):
            if f.personal and f.mode is None:
                modes = _list([m.value for m in Mode])
                text = f'personal field "{f.name}" has no mode; expected {modes}; there is no default'
                yield f.where, Severity.ERROR, text
            elif f.mode is Mode.KEEP and not f.because and not f.retention:
                text = f'"{f.name}" is kept without a reason; expected because: or a retention'
                yield f.where, Severity.ERROR, text
            if f.mode is Mode.MASK and f.mask.bucket:
                if f.identity or f.references or f.primary_key:
                    text = f'the bucket of "{f.name}" is computed from an identity and stays linkable; use mask: null'
                    yield f.where, Severity.WARNING, text
                elif f.data_type and f.data_type not in _NUMERIC:
                    text = f'"{f.name}" is masked by a bucket; expected a number; found {f.data_type}'
                    yield f.where, Severity.ERROR, text


def _flags(catalog: Catalog) -> Iterator[Finding]:
    for _dataset, one in _collections(catalog):
        for f in _all(one.fields):
            if not _SOFT.fullmatch(f.name):
                continue
            if f.mode is Mode.MASK:
                text = f'"{f.name}" marks rows as deleted, and a flag is no deletion; expected mode delete of the row'
                yield f.where, Severity.WARNING, f"{text}; found mask, which only sets the flag"
            else:
                text = f'"{f.name}" marks rows as deleted: a flag is no deletion'
                yield f.where, Severity.NOTE, f"{text}, they are located and erased as all others"


def _sensitive(catalog: Catalog) -> Iterator[Finding]:
    for _dataset, one in _ours(catalog):
        for f in _all(one.fields):
            if f.sensitive and f.mode is not Mode.CRYPTO_ERASE:
                found = f.mode.value if f.mode else "no mode"
                yield f.where, Severity.ERROR, f'sensitive field "{f.name}": expected mode crypto-erase; found {found}'


def _keys(catalog: Catalog) -> Iterator[Finding]:
    domains: dict[str, list[tuple[Collection, Field]]] = defaultdict(list)
    for _dataset, one in _ours(catalog):
        protected = [f for f in _all(one.fields) if f.mode is Mode.CRYPTO_ERASE]
        for f in protected:
            domains[f.key_domain].append((one, f))
        leads = any(catalog.person_kind in (*f.matches, *f.emits) for f in one.fields)
        if protected and not leads:
            text = (
                f'"{protected[0].name}" of {one.address} lies under a person\'s key, but no field leads to the person; '
                f"expected a reference to {(catalog.person_kind or '').removeprefix('ref:')}"
            )
            yield protected[0].where, Severity.ERROR, text
    for domain, members in domains.items():
        first = members[0]
        for one, f in members[1:]:
            classes = [(r.law, r.record_class) if r else None for r in (first[1].retention, f.retention)]
            if classes[0] != classes[1]:
                text = (
                    f'two retention classes in key domain "{domain}": "{f.name}" of {one.address} lives by '
                    f'{_class(f)}, "{first[1].name}" of {first[0].address} by {_class(first[1])}; '
                    "fields that live for different times need different key domains"
                )
                yield f.where, Severity.ERROR, text
        plain = [f for _c, f in members if not f.sensitive]
        for one, f in members:
            if f.sensitive and plain:
                text = (
                    f'sensitive field "{f.name}" of {one.address} shares key domain "{domain}" with '
                    f'"{plain[0].name}"; give it a domain of its own'
                )
                yield f.where, Severity.ERROR, text


def _found_again(catalog: Catalog) -> Iterator[Finding]:
    """Where the rows stay, what still identifies their person must not stay in them."""
    for _dataset, one in _ours(catalog):
        stays = one.mode in (Mode.OVERWRITE, Mode.MASK, Mode.CRYPTO_ERASE) and one.reviewed
        if not stays or one.ownership not in (Ownership.SOLE, Ownership.JOINT):
            continue
        leads = catalog.kinds | {catalog.person_kind}
        for f in one.fields:
            if (f.primary_key or f.mode is Mode.KEEP) and leads & {*f.matches, *f.emits}:
                text = (
                    f'rows of {one.address} stay (mode {one.mode}) and so does "{f.name}", which leads to the person: '
                    f"they would be found after the erase; use mode: delete{'' if f.primary_key else ', or mask it'}"
                )
                yield f.where, Severity.ERROR, text


def _undated(catalog: Catalog) -> Iterator[Finding]:
    """A row has one date: a field's own retention runs from it too, or from the closing of the account."""
    for _dataset, one in _ours(catalog):
        dated = one.retention.start if one.retention is not None else None
        for f in _all(one.fields):
            if f.retention is not None and f.retention.start not in ("closed", dated):
                text = (
                    f'the retention of "{f.name}" runs from "{f.retention.start}"; expected "closed", or the date from '
                    f"which the retention of {one.address} runs ({dated or 'it has none'}); give {one.address} a "
                    f"retention from {f.retention.start}"
                )
                yield f.where, Severity.ERROR, text


def _record_classes(catalog: Catalog, laws: Laws) -> Iterator[Finding]:
    """Laws and classes that no file knows: each once, where it is first named, however many fields inherit it."""
    wrong: dict[str, list[str]] = defaultdict(list)
    for _dataset, one in _ours(catalog):
        for retention, where in [(one.retention, one.where), *((f.retention, f.where) for f in _all(one.fields))]:
            if retention is None:
                continue
            law = laws.laws.get(retention.law)
            if law is None:
                wrong[f'no law "{retention.law}"; expected one of {_list(sorted(laws.laws))}'].append(where)
            elif retention.record_class not in law.classes:
                known = _list(sorted(law.classes))
                close = difflib.get_close_matches(retention.record_class, sorted(law.classes), n=1)
                meant = f'; did you mean "{close[0]}"?' if close else ""
                text = f'law "{retention.law}" has no class "{retention.record_class}"; expected one of {known}{meant}'
                wrong[text].append(where)
    for text, places in wrong.items():
        first, *more = dict.fromkeys(places)
        yield first, Severity.ERROR, text + (f"; {len(more)} more places say so" if more else "")


# ---------------------------------------------------------------- units


def _claims(catalog: Catalog) -> Iterator[Finding]:
    """Two collections may not claim one file; in a database file they may, but not one table."""
    units: dict[tuple[str, str], Collection] = {}
    globs: dict[tuple[str, str, str, str], Collection] = {}
    for _dataset, one in _collections(catalog):
        store = one.store
        if not store.kind:
            continue
        table = "" if store.kind in _FILES else one.name
        same = globs.setdefault((store.kind, os.path.normpath(store.url), store.glob, table), one)
        if same is not one:
            yield (
                one.where,
                Severity.ERROR,
                f"{one.address} claims the units of {same.address}: {store.url} {store.glob}",
            )
            continue
        for unit in _units(catalog.root, one):
            real = os.path.realpath(unit)
            name = os.path.relpath(unit, catalog.root)
            if not Path(real).is_relative_to(catalog.root):
                break  # `leaving` tells it
            other = units.setdefault((real, table), one)
            if other is not one:
                yield one.where, Severity.ERROR, f'unit "{name}" is claimed by {other.address} and by {one.address}'
                break


def leaving(catalog: Catalog) -> Iterator[Finding]:
    """Collections with a unit that is a link to somewhere outside of the catalog's root."""
    for _dataset, one in _collections(catalog):
        for unit in _units(catalog.root, one):
            if not Path(os.path.realpath(unit)).is_relative_to(catalog.root):
                name = os.path.relpath(unit, catalog.root)
                text = f'unit "{name}" of {one.address} leaves its root through a link; put the file below the root'
                yield one.where, Severity.ERROR, text
                break


def _units(root: Path, one: Collection) -> Iterator[Path]:
    if one.store.kind in _ON_DISK:
        where = root / one.store.url
        found = [where] if where.is_file() else sorted(where.glob(one.store.glob)) if where.is_dir() else []
        yield from (p for p in found if p.is_file())


# ---------------------------------------------------------------- certainty, and things to know


def _copies(catalog: Catalog) -> Iterator[Finding]:
    for _dataset, one in _ours(catalog):
        if one.copies is None:
            text = f"{one.address} does not say what copies of it exist; add copies:, or copies: [] if there are none"
            yield one.where, Severity.WARNING, text


def _unreviewed(catalog: Catalog) -> Iterator[Finding]:
    for _dataset, one in _ours(catalog):
        if not one.reviewed:
            text = (
                f"{one.address} is unreviewed: located and exported, never erased; read it, then drop reviewed: false"
            )
            yield one.where, Severity.WARNING, text


def _circles(catalog: Catalog) -> Iterator[Finding]:
    edges: dict[str, set[str]] = defaultdict(set)
    places = {one.address: one.where for one in catalog.collections}
    for one in catalog.collections:
        for f in _all(one.fields):
            for reference in f.references:
                target = f"{reference.dataset}/{reference.collection}"
                if target == one.address:
                    yield f.where, Severity.NOTE, f'"{f.name}" refers to its own collection {target}; that is allowed'
                elif target in places:
                    edges[one.address].add(target)
    for ring in _rings(edges):
        yield places[ring[0]], Severity.NOTE, f"{', '.join(ring)} refer to each other in a circle; that is allowed"


def _rings(edges: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected components of more than one collection (Kosaraju: finish order, then backwards)."""
    finished: list[str] = []
    seen: set[str] = set()
    for start in sorted(edges):
        stack = [(start, iter(sorted(edges.get(start, ()))))] if start not in seen else []
        seen.add(start)
        while stack:
            node, ahead = stack[-1]
            follower = next((n for n in ahead if n not in seen), None)
            if follower is None:
                finished.append(node)
                stack.pop()
            else:
                seen.add(follower)
                stack.append((follower, iter(sorted(edges.get(follower, ())))))
    back: dict[str, set[str]] = defaultdict(set)
    for source, targets in edges.items():
        for target in targets:
            back[target].add(source)
    rings, placed = [], set[str]()
    for start in reversed(finished):
        ring, todo = [], [start]
        while todo:
            node = todo.pop()
            if node not in placed:
                placed.add(node)
                ring.append(node)
                todo.extend(back[node])
        if len(ring) > 1:
            rings.append(sorted(ring))
    return rings


_RULES: tuple[Callable[[Catalog], Iterator[Finding]], ...] = (
    *(_unreachable, _inexact_identifiers, _joint_parties, _hash_secrets, _modes, _sensitive, _keys, _found_again),
    *(_undated, _claims, leaving),
    *(_copies, _unreviewed, _circles, _flags),
)

_ALONE = (_inexact_identifiers, _modes, _sensitive)  # judged field by field, even where others could not be read


def _all(fields: Sequence[Field]) -> Iterator[Field]:
    for one in fields:
        yield one
        yield from _all(one.sub)


def _collections(catalog: Catalog) -> Iterator[tuple[Dataset, Collection]]:
    for dataset in catalog.datasets:
        for one in dataset.collections:
            yield dataset, one


def _ours(catalog: Catalog) -> Iterator[tuple[Dataset, Collection]]:
    return ((d, c) for d, c in _collections(catalog) if d.ours)


def _class(one: Field) -> str:
    return f"class {one.retention.record_class}" if one.retention else "no retention"


def _list(words: Sequence[str]) -> str:
    return ", ".join(words) or "none"


def _more(found: Sequence[Field]) -> str:
    return f" (and {len(found) - 1} more)" if len(found) > 1 else ""

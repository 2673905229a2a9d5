"""Whoever sees every public entry does not learn which of them belong to one person, once the secrets are gone."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from evidence.small_home import SELECTORS, Home, entry, sha, start

from fangxin.checks.residue.patterns import needles_for
from fangxin.data.vocabulary import Identity
from fangxin.reports.ledger import entries
from fangxin.reports.ledger.log import Ledger

REQUESTS = 1_000
CHANCE = 8  # right guesses that chance alone exceeds once in a million times, when one is expected

Entry = dict[str, int | str]
Linker = Callable[[Sequence[tuple[int, Entry]]], list[tuple[int, int]]]  # indexes of pairs said to be one request's


def planned(secret: bytes) -> list[Entry]:
    """What the baseline logs for one request, in one flush with everybody's."""
    return [
        entry("located", tag=entries.tag(secret, 2), counts="s-01:1000-9999,s-02:100-999", baseline=sha("seen")),
        entry("approved", tag=entries.tag(secret, 4), plan=sha("plan")),
    ]


def split(seen: Sequence[tuple[int, Entry]]) -> tuple[list[tuple[int, Entry]], list[tuple[int, Entry]]]:
    return tuple([one for one in seen if one[1]["type"] == kind] for kind in ("located", "approved"))  # type: ignore[return-value]


def neighbours(seen: Sequence[tuple[int, Entry]]) -> list[tuple[int, int]]:
    """Entries that lie beside each other."""
    return [(a[0], b[0]) for a, b in pairwise(seen) if {a[1]["type"], b[1]["type"]} == {"located", "approved"}]


def same_rank(seen: Sequence[tuple[int, Entry]]) -> list[tuple[int, int]]:
    """The first of one type with the first of the other, and so on."""
    return [(a[0], b[0]) for a, b in zip(*split(seen), strict=True)]


def close_tags(seen: Sequence[tuple[int, Entry]]) -> list[tuple[int, int]]:
    """The tag that has most bits in common."""
    located, approved = split(seen)
    tags = [(index, int(str(one["tag"]), 16)) for index, one in approved]
    return [
        (index, min(tags, key=lambda t: (t[1] ^ int(str(one["tag"]), 16)).bit_count())[0]) for index, one in located
    ]


def sorted_tags(seen: Sequence[tuple[int, Entry]]) -> list[tuple[int, int]]:
    """The same place when both are sorted by tag."""
    located, approved = (sorted(one, key=lambda row: str(row[1]["tag"])) for one in split(seen))
    return [(a[0], b[0]) for a, b in zip(located, approved, strict=True)]


def alike(seen: Sequence[tuple[int, Entry]]) -> list[tuple[int, int]]:
    """The one whose values have most in common; among equals the next one."""
    located, approved = split(seen)
    kinds: dict[frozenset[str], list[int]] = {}
    for index, one in approved:
        kinds.setdefault(frozenset(str(v) for k, v in one.items() if k != "tag"), []).append(index)
    guesses = []
    for index, one in located:
        values = {str(v) for k, v in one.items() if k != "tag"}
        best = max(kinds, key=lambda kind: len(kind & values))
        guesses.append((index, min(kinds[best], key=lambda other: abs(other - index - 1))))
    return guesses


LINKERS: list[Linker] = [neighbours, same_rank, close_tags, sorted_tags, alike]


def right(guesses: list[tuple[int, int]], truth: set[frozenset[int]]) -> int:
    return sum(frozenset(one) in truth for one in set(guesses))


def test_a_linker_that_sees_every_entry_of_a_thousand_requests_does_no_better_than_chance(tmp_path: Path) -> None:
    _keys, ledger = start(tmp_path)
    keep = [secrets.token_bytes(32) for _ in range(REQUESTS)]
    mine = [planned(secret) for secret in keep]
    where = ledger.append([one for pair in mine for one in pair])
    truth = {frozenset(where[2 * i : 2 * i + 2]) for i in range(REQUESTS)}
    seen = list(ledger.entries())
    # with the secrets anybody can tell
    owner = {entries.tag(secret, i): n for n, secret in enumerate(keep) for i in (2, 4)}
    groups: dict[int, list[int]] = {}
    for index, one in seen:
        groups.setdefault(owner[str(one["tag"])], []).append(index)
    assert {frozenset(group) for group in groups.values()} == truth
    # without them nobody can: each guesses about a thousand pairs, and one of a thousand is right by chance
    del keep, owner
    found = {linker.__name__: right(linker(seen), truth) for linker in LINKERS}
    assert max(found.values()) <= CHANCE, found
    # the linkers are no strawmen: in the order given, three of them know everything
    plain = list(enumerate(one for pair in mine for one in pair))
    ordered = {frozenset((2 * i, 2 * i + 1)) for i in range(REQUESTS)}
    assert {linker.__name__ for linker in LINKERS if right(linker(plain), ordered) == REQUESTS} >= {
        "neighbours",
        "same_rank",
        "alike",
    }


def test_a_certificate_does_not_say_which_request_it_ends(tmp_path: Path) -> None:
    """The entry of a certificate and those before it share no value but those that all requests share."""
    _keys, ledger = start(tmp_path)
    keep = [secrets.token_bytes(32) for _ in range(200)]
    ledger.append([one for secret in keep for one in planned(secret)])
    ledger.append(
        [
            entry("certificate.issued", tag=entries.tag(secret, 5), json=sha(secret), html=sha(secret[:9]))
            for secret in keep
        ]
    )
    common: set[str] | None = None
    own: dict[str, int] = {}
    for _index, one in ledger.entries():
        values = {str(value) for value in one.values()}
        common = values if common is None else common & values
        for value in values:
            own[value] = own.get(value, 0) + 1
    once = {value for value, times in own.items() if times == 1}
    shared = {value for value, times in own.items() if times > 1}
    assert len(once) == 200 * 5  # tags of three entries, two digests: each stands once, hence joins nothing
    assert all(own[value] >= 200 for value in shared)


def test_no_byte_form_of_an_identity_is_in_ledger_statements_or_package(home: Home) -> None:
    """Every form that the residue scan knows, but those too short to mean anything among digests."""
    needles = needles_for([(0, Identity(kind, value)) for kind, value in SELECTORS])
    forms = {one.data for one in needles if len(one.data) >= 6}
    written = [path.read_bytes() for path in home.folder.rglob("*") if path.is_file()]
    assert len(forms) > 20
    assert [form for form in forms if any(form in content for content in written)] == []
    assert any(form in b"tel. 13800001234" for form in forms)  # the search is able to find


def test_the_order_in_a_flush_is_not_that_of_a_plain_generator(tmp_path: Path) -> None:
    """Two ledgers given the same entries under the same seed have another order."""
    orders = []
    for name in ("one", "two"):
        random.seed(7)
        _keys, ledger = start(tmp_path / name)
        orders.append(given(ledger))
    assert orders[0] != orders[1]


def given(ledger: Ledger) -> list[int]:
    return ledger.append([entry("request.verified", tag=entries.tag(bytes(32), n)) for n in range(50)])

"""The needles of a cohort: every byte form of everybody's identities, found in one pass.

* One byte string may belong to several people: a hit counts for each of them.
* Forms are searched in the bytes as they lie and in what these say once escapes are resolved (views.py).
* A form that needs a context counts only in it (`Context`); what is left out for its length is counted in `omitted`.
* Not found: base64 broken into lines inside the value, addresses in mixed case inside base64, hexadecimal or reversed
  bytes, needles cut in two by compression, and keyed hashes or ciphertext, which no search without the key can see.

Needles live in this process only, which leaves no core file from then on: their bytes never show in a repr, and
reports carry keyed digests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fangxin.checks.residue.columns import Columns, Value
from fangxin.checks.residue.containers.bloom import Probes
from fangxin.checks.residue.engines import ADDRESSES, Engine, Finder, Mailboxes, WithAddresses, finder
from fangxin.checks.residue.forms import (
    SEXTET,
    SHORTEST,
    SHORTEST_BESIDE,
    SHORTEST_IN_SQLITE,
    Breadth,
    Context,
    Form,
    forms_of,
    spellings,
)
from fangxin.checks.residue.tokens import Numbers, Tokens, shape
from fangxin.checks.residue.views import MARKS, NAMES, View, narrowed, views
from fangxin.data.keys.memory import no_core_dumps
from fangxin.data.vocabulary import ASIDE, Identity, stands_alone

__all__ = ["Breadth", "Context", "Engine", "Form", "Hits", "Needle", "Needles", "needles_for", "spellings"]

CROWD = 1_000  # identities from which on the automaton takes the core forms only
ENOUGH = 12  # bytes of a digest that go into the automaton: a fifth of the states, at no false hit
NEAR = 256  # bytes between a form that needs company and the form that keeps it
WINDOW = 1 << 20  # bytes in which escapes are resolved at a time, so that the places of escapes and signs stay small
DENSE = 32  # bytes an escape from which on the windows are small
STRETCH = 18  # bytes that an escaped byte of a text takes at most: \\uXXXX in a URL, each of its six characters as %XX

_Ints = npt.NDArray[np.int64]
_Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Needle:
    """One byte form of one identity of one subject. `identity` is its index in the sequence that was given."""

    subject: int
    identity: int
    kind: str
    form: str
    data: bytes = field(repr=False)
    context: Context = Context.ANY


@dataclass(frozen=True)
class Hits:
    """Where needles were found: `needle[i]` ends before `end[i]` and starts at `start[i]` of the searched bytes.

    `inside[i]`: the bytes around it look as if it were part of a longer number, address or word. Only who knows where a
    value begins and ends can tell: in a page of a database the neighbour may be another value.
    `view[i]`: how the bytes had to be read, as the place in `views.NAMES`; 0 is as they lie.
    """

    needle: _Ints
    start: _Ints
    end: _Ints
    inside: _Flags
    view: _Ints


class Needles:
    """All needles of a cohort and their automaton. Byte strings are kept once, with everybody they belong to."""

    def __init__(
        self,
        found: Mapping[Form, Sequence[tuple[int, int, str]]],
        *,
        breadth: Breadth,
        omitted: Counter[str],
        engine: Engine = Engine.QUICKEST,
        columns: Columns | None = None,
        probes: Callable[[], Probes] = lambda: Probes({}),
    ):
        """Build the automaton. `found` maps a form to (subject, identity, kind) of its owners."""
        no_core_dumps()
        self.columns = columns  # of a crowd: its values are looked for in decoded columns as well
        self._probes = probes
        self._forms = list(found)
        self._owners = list(found.values())
        self.breadth = breadth
        self.engine = engine
        self.omitted: Mapping[str, int] = dict(sorted(omitted.items()))
        self.longest = max((max(len(f.data), len(f.whole)) for f in self._forms), default=0)
        self._longest_text = max((len(f.data) for f in self._forms if f.text), default=0)
        self._addresses: Finder
        self._finders = self._crowd() if breadth is Breadth.CORE else self._few(engine)
        self._widest_mailbox = max((len(f.data) for f in self._forms if f.folded), default=0)
        self._in_sqlite = finder(self._patterns(lambda f: f.sqlite_only))
        self._text = self._which(lambda f: f.text)
        self._cut = self._which(lambda f: bool(f.whole))
        self._doubtful = self._which(lambda f: bool(f.before[0] or f.after[0] or f.random or f.whole))
        self._context = np.array([f.context for f in self._forms], dtype=np.int64)

    def _few(self, engine: Engine) -> list[Finder]:
        folded, exact = self._patterns(lambda f: f.folded), self._patterns(lambda f: not f.sqlite_only and not f.folded)
        self._addresses = Mailboxes(folded)
        if len(folded) <= ADDRESSES:
            return [WithAddresses(exact, folded, engine)]
        return [self._addresses, finder(exact, engine)]

    def _crowd(self) -> list[Finder]:
        """Tokens and numbers by hash; what has no such shape (Chinese text) by an automaton."""
        little, big = (
            {i: f.data for i, f in enumerate(self._forms) if f.name.startswith(name)}
            for name in ("int64 le", "int64 be")
        )
        rest = {i: f.data for i, f in enumerate(self._forms) if i not in little and i not in big}
        tokens = {i: data for i, data in rest.items() if shape(data)}
        folded = frozenset(i for i in tokens if self._forms[i].folded or self._forms[i].random)
        others = {i: data for i, data in rest.items() if i not in tokens}
        self._addresses = Tokens(tokens, folded)
        return [self._addresses, Numbers(little), Numbers(big), finder(others, Engine.AHOCORASICK)]

    def _patterns(self, wanted: Callable[[Form], bool]) -> dict[int, bytes]:
        return {i: f.data[:ENOUGH] if f.random else f.data for i, f in enumerate(self._forms) if wanted(f)}

    def _which(self, wanted: Callable[[Form], bool]) -> _Flags:
        return np.array([wanted(f) for f in self._forms], dtype=bool)

    def __len__(self) -> int:
        return len(self._forms)

    def __repr__(self) -> str:
        return f"Needles({len(self)} of {len(self.subjects)} subjects, {self.breadth})"

    def __iter__(self) -> Iterator[Needle]:
        for number in range(len(self)):
            yield from self.of(number)

    def of(self, number: int) -> Iterator[Needle]:
        """The needle of that number, once for every identity it belongs to."""
        form = self._forms[number]
        for subject, identity, kind in self._owners[number]:
            yield Needle(subject, identity, kind, form.name, form.data, form.context)

    @property
    def forms(self) -> Sequence[Form]:
        """The forms by number, each once, whoever it belongs to."""
        return self._forms

    def data(self, number: int) -> bytes:
        """The bytes of a needle; for the keyed digest, and nothing that is printed."""
        return self._forms[number].data

    @cached_property
    def probes(self) -> Probes:
        """The values that bloom filters are asked for: every spelling, also as it was seen written."""
        return self._probes()

    @property
    def subjects(self) -> frozenset[int]:
        """The numbers of the subjects searched for."""
        return frozenset(subject for owners in self._owners for subject, _identity, _kind in owners)

    @property
    def margin(self) -> int:
        """Bytes by which two pieces of one stream must overlap so that every hit is seen whole, with its neighbours."""
        return max(self.longest, STRETCH * self._longest_text) + ASIDE

    def find(self, data: bytes | memoryview, *, sqlite: bool = False) -> Hits:
        """Every occurrence, nested and overlapping ones included; with `sqlite`, only the numbers of 6 bytes."""
        body = data if isinstance(data, bytes) else bytes(memoryview(data).cast("B"))  # Arrow's bytes are signed
        if sqlite:
            return self._judged(self._in_sqlite(body), body)
        plain = self._judged(self._matches(body), body)
        if not any(mark in body for mark in MARKS):
            return plain
        aside = self.margin + NEAR
        found = [plain]
        sample = body[::61]
        size = WINDOW if sum(map(sample.count, MARKS[:-1])) > len(sample) // DENSE else 4 * WINDOW
        for at in range(0, len(body), size):
            begin = max(0, at - aside)
            seen = self._seen_otherwise(body[begin : at + size + aside], plain, begin)
            own = (seen.start >= at) & (seen.start < at + size)
            found.append(Hits(*(getattr(seen, f.name)[own] for f in fields(Hits))))
        return _together(found)

    def _matches(self, body: bytes) -> _Ints:
        return np.concatenate([find(body) for find in self._finders])

    def _seen_otherwise(self, body: bytes, plain: Hits, offset: int) -> Hits:
        """What shows in a window only once it is read in other ways."""
        found = [Hits(*(getattr(plain, f.name)[:0] for f in fields(Hits)))]
        for view in views(body, self._longest_text + ASIDE) if self._longest_text else ():
            found.append(self._seen_in(view, self._matches(view.text), plain, offset))
        for view in narrowed(body, self._widest_mailbox + 1) if self._widest_mailbox else ():
            found.append(self._seen_in(view, self._addresses(view.text), plain, offset))
        return _together(found)

    def _seen_in(self, view: View, table: _Ints, plain: Hits, offset: int) -> Hits:
        """Hits of a view that are none without it, where they lie in the bytes that it was made of.

        The others may stand alone only in the view (`%2520139…`): then they do in `plain`, too.
        """
        hits = self._judged(table, view.text)
        new = view.new(hits.start, hits.end)
        if plain.inside.any():
            same = np.flatnonzero(~new & ~hits.inside)
            starts = view.starts[hits.start[same]] + offset
            places = zip(hits.needle[same].tolist(), starts.tolist(), strict=True)
            alone = set(places)
            for i in np.flatnonzero(plain.inside).tolist():
                plain.inside[i] = (int(plain.needle[i]), int(plain.start[i])) not in alone
        start, end = view.starts[hits.start[new]], view.ends[hits.end[new] - 1]
        seen = np.full(len(start), NAMES.index(view.name), np.int64)
        return Hits(hits.needle[new], start + offset, end + offset, hits.inside[new], seen)

    def _judged(self, table: _Ints, body: bytes) -> Hits:
        """The matches of an automaton without those that their neighbours disprove, and what is said of the others."""
        needle, start, end = table.T.copy()
        doubtful = np.flatnonzero(self._doubtful[needle])
        if len(doubtful):
            keep = np.ones(len(needle), dtype=bool)
            for i in doubtful.tolist():
                form = self._forms[int(needle[i])]
                end[i] = start[i] + len(form.data)
                keep[i] = _fits(form, body, int(start[i]), int(end[i]))
            needle, start, end = needle[keep], start[keep], end[keep]
        if self._context[needle].any():
            keep = self._in_context(needle, start, end, body)
            needle, start, end = needle[keep], start[keep], end[keep]
        codes = np.frombuffer(body, np.uint8)
        before = np.where(start > 0, codes[start - 1], 0) if len(start) else start
        after = np.where(end < len(codes), codes[np.minimum(end, len(codes) - 1)], 0) if len(start) else start
        unsure = np.flatnonzero(self._text[needle] & (_MAY_GO_ON[before] | _MAY_GO_ON[after] | self._cut[needle]))
        inside = np.zeros(len(needle), dtype=bool)
        pairs = zip(needle[unsure].tolist(), start[unsure].tolist(), end[unsure].tolist(), strict=True)
        inside[unsure] = [not _alone(self._forms[n], body, s, e) for n, s, e in pairs]
        if inside.any():
            keep = ~inside | ~self._covered(needle, start, end, inside)
            needle, start, end, inside = needle[keep], start[keep], end[keep], inside[keep]
        return Hits(needle, start, end, inside, np.zeros(len(needle), np.int64))

    def _in_context(self, needle: _Ints, start: _Ints, end: _Ints, body: bytes) -> _Flags:
        """Which hits need no context, or stand in theirs."""
        wants = self._context[needle]
        keep: _Flags = wants == int(Context.ANY)
        company, asked = np.flatnonzero(keep), np.flatnonzero(~keep)
        if len(company):
            keep[asked] = self._beside((needle[company], start[company], end[company]),
                                       (needle[asked], start[asked], end[asked]))  # fmt: skip
        codes = np.frombuffer(body, np.uint8)
        opens = (start == 0) | _OPENS_A_VALUE[codes[start - 1]] | (end - start >= SHORTEST) | self._cut[needle]
        for i in np.flatnonzero(~keep & opens & (wants == int(Context.VALUE))).tolist():
            form, begin, stop = self._forms[int(needle[i])], int(start[i]), int(end[i])
            ends = {stop, _end_of_cut(form, body, begin, stop)}
            keep[i] = any(_is_a_value(body, begin, one) for one in ends)
        return keep

    def _beside(self, company: tuple[_Ints, _Ints, _Ints], asked: tuple[_Ints, _Ints, _Ints]) -> _Flags:
        """Which of the hits that need company have some of a subject of theirs within `NEAR` bytes, not overlapping.

        Of each subject the hit that begins next behind one, and the one that ends last before it, decide.
        """
        span = int(max(company[2].max(), asked[2].max(initial=0))) + NEAR + 1  # no two subjects' places meet
        whose, which = self._subjects_of(company[0])
        begins, ends = np.sort(whose * span + company[1][which]), np.sort(whose * span + company[2][which])
        whose, which = self._subjects_of(asked[0])
        start, end = whose * span + asked[1][which], whose * span + asked[2][which]
        following = np.searchsorted(begins, end)
        last = np.searchsorted(ends, start, side="right") - 1
        near = (following < len(begins)) & (begins[np.minimum(following, len(begins) - 1)] <= end + NEAR)
        near |= (last >= 0) & (ends[np.maximum(last, 0)] >= start - NEAR)
        found = np.zeros(len(asked[0]), dtype=bool)
        found[which[near]] = True
        return found

    def _subjects_of(self, needle: _Ints) -> tuple[_Ints, _Ints]:
        """The subjects of these needles, one after the other, and the place of each one's needle."""
        first, subjects = self._of_subjects
        counts = first[needle + 1] - first[needle]
        which = np.repeat(np.arange(len(needle)), counts)
        nth = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
        return subjects[first[needle][which] + nth], which

    @cached_property
    def _of_subjects(self) -> tuple[_Ints, _Ints]:
        """Where each needle's subjects begin, and the subjects (numbered from 0) of all of them."""
        own = [sorted({owner[0] for owner in owners}) for owners in self._owners]
        first = np.concatenate([[0], np.cumsum([len(one) for one in own])]).astype(np.int64)
        told = np.array([subject for one in own for subject in one], np.int64)
        return first, np.unique(told, return_inverse=True)[1].astype(np.int64)

    def _covered(self, needle: _Ints, start: _Ints, end: _Ints, inside: _Flags) -> _Flags:
        """Which hits lie in a longer spelling of the same identity that stands alone: `139…` in `86139…`."""
        whole = np.flatnonzero(~inside & self._text[needle])
        whole = whole[np.argsort(start[whole], kind="stable")]
        near = np.flatnonzero(inside)
        low = np.searchsorted(start[whole], end[near] - self.longest)
        high = np.searchsorted(start[whole], start[near], side="right")
        found = np.zeros(len(needle), dtype=bool)
        for i, first, last in zip(near.tolist(), low.tolist(), high.tolist(), strict=True):
            mine = {owner[:2] for owner in self._owners[int(needle[i])]}
            around = (n for n in whole[first:last].tolist() if end[i] <= end[n])
            found[i] = any(mine <= {owner[:2] for owner in self._owners[int(needle[n])]} for n in around)
        return found


def _together(found: Sequence[Hits]) -> Hits:
    return Hits(*(np.concatenate([getattr(one, f.name) for one in found]) for f in fields(Hits)))


def _fits(form: Form, data: bytes, start: int, end: int) -> bool:
    """Whether all of a digest is there, only the fragment, base64 neighbours with its bits (or none at an edge)."""
    if form.random:
        return form.data in (data[start:end], data[start:end].lower())  # HEX, where a crowd's are looked up
    if form.whole:
        begin = start - form.lies_at
        return begin < 0 or data[begin : begin + len(form.whole)].lower() != form.whole.lower()
    for (mask, bits), at in ((form.before, start - 1), (form.after, end)):
        if mask and 0 <= at < len(data):
            sextet = SEXTET.get(data[at])
            if sextet is None or sextet & mask != bits:
                return False
    return True


def _is_a_value(body: bytes, start: int, end: int) -> bool:
    """Whether the bytes are all of something: of the piece, between two equal delimiters, or behind their length."""
    before, after, length = body[max(start - 4, 0) : start], body[end : end + 1], end - start
    if not before and not after:
        return True
    if int.from_bytes(before, "little") == length and len(before) == 4:  # Parquet's plain pages
        return True
    if length >= SHORTEST and before.endswith((_varint(length), _varint(2 * length))):  # Thrift; Avro
        return True
    one, other = before[-1:] or after, after or before[-1:]
    return (one == other and one in _DELIMITERS) or (one, other) in (
        (b"\n", b","),
        (b",", b"\n"),
        (b",", b"\r"),
        (b">", b"<"),
    )


def _varint(number: int) -> bytes:
    """A number in groups of seven bits, the lowest first (LEB128)."""
    found = bytearray()
    while number > 0x7F:
        found.append(0x80 | number & 0x7F)
        number >>= 7
    return bytes([*found, number])


_DELIMITERS = frozenset(bytes([code]) for code in b"\0\t\n ,;|'\"")
# What stands before a value that `_is_a_value` knows, unless a length does: the last byte of four of a length is 0.
_OPENS_A_VALUE = np.isin(np.arange(256), np.frombuffer(b"".join(sorted(_DELIMITERS)) + b">", np.uint8))


# Bytes beside a text that may belong to a longer one; after any other byte there is nothing to ask.
_MAY_GO_ON = np.isin(
    np.arange(256),
    np.frombuffer(
        b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._%+-\xef" + bytes(range(0x90, 0x9A)), np.uint8
    ),
)


def _alone(form: Form, body: bytes, start: int, end: int) -> bool:
    """Whether a hit stands alone; a fragment up to where the value is cut short."""
    if form.whole:
        end = start + len(body[start : _end_of_cut(form, body, start, end)].rstrip(b".-"))
    return stands_alone(body, start, end)


def _end_of_cut(form: Form, body: bytes, start: int, end: int) -> int:
    """Where what stands there of a fragment's value ends, its last character raised or not."""
    rest = form.whole.lower()[form.lies_at + end - start :]
    seen = body[end : end + len(rest)].lower()
    same = next((n for n, (a, b) in enumerate(zip(rest, seen, strict=False)) if a != b), len(seen))
    return end + same + (same < len(seen) and seen[same] == rest[same] + 1)


def needles_for(
    identities: Sequence[tuple[int, Identity]],
    *,
    breadth: Breadth | None = None,
    spelled: Mapping[int, Sequence[str]] | None = None,
    engine: Engine = Engine.QUICKEST,
) -> Needles:
    """Every byte form of every identity, as (subject, identity) pairs; core forms only for a crowd unless told.

    `spelled`: how values were seen written, per number of an identity; these are searched beside the usual spellings.
    """
    breadth = breadth or (Breadth.FULL if len(identities) <= CROWD else Breadth.CORE)
    found: dict[Form, list[tuple[int, int, str]]] = {}
    known: dict[bytes, Form] = {}
    omitted: Counter[str] = Counter()
    for number, (subject, identity) in enumerate(identities):
        forms = list(forms_of(identity, breadth, (spelled or {}).get(number, ())))
        in_any_case = {form.data for form in forms if form.folded}
        for form in forms:
            if not form.folded and form.data.lower() in in_any_case:
                continue  # an escape that changes nothing: found in any case already
            if len(form.data) < (SHORTEST_IN_SQLITE if form.sqlite_only else SHORTEST_BESIDE):
                omitted[form.name] += 1
                continue
            same = known.setdefault(form.data, form)
            if same != form and _conditions(same) != _conditions(form):
                same = form  # the same bytes under another condition are another needle
            owners = found.setdefault(same, [])
            if not owners or owners[-1][:2] != (subject, number):
                owners.append((subject, number, identity.kind))
    written = _written(found)
    values = ((identities[i][1], number, texts) for i, (number, texts) in written.items())
    columns = None
    if breadth is Breadth.CORE:
        columns = Columns([Value(number, one.kind, one.value, (one.value, *texts)) for one, number, texts in values])

    def probes() -> Probes:
        asked: dict[str, list[int]] = {}
        for i, (number, _texts) in written.items():
            for text in dict.fromkeys((*spellings(identities[i][1]).values(), *(spelled or {}).get(i, ()))):
                asked.setdefault(text, []).append(number)
        return Probes(asked)

    return Needles(found, breadth=breadth, omitted=omitted, engine=engine, columns=columns, probes=probes)


def _written(found: Mapping[Form, Sequence[tuple[int, int, str]]]) -> dict[int, tuple[int, list[str]]]:
    """Per identity the number of the plainest of its forms, for which whole values count, and its texts."""
    written: dict[int, tuple[int, list[str]]] = {}
    for number, (form, owners) in enumerate(found.items()):
        for _subject, identity, _kind in owners if form.text else ():
            written.setdefault(identity, (number, []))[1].append(form.data.decode())
    return written


def _conditions(form: Form) -> tuple[object, ...]:
    return form.before, form.after, form.sqlite_only, form.random, form.whole, form.lies_at, form.folded, form.context

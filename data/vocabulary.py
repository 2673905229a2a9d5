"""The words of the house, as values: subject, identity, collection, rows, order, erasure, residue; and the Store.

Everything here is frozen and free of effects. Rows travel as Arrow, positions as numpy int64, so that no
Python loop runs over rows. A cohort is the subjects handled in one pass: every unit is opened once for all.

* An identity value never shows in a repr: values of people stay out of tracebacks and logs.
* A *kind* names what a value is: `phone_number`, or for reference columns the domain they share
  (`ref:dataset/collection.field`). A *fact* is (kind, canonical value).
* A *unit* is one file of a store, named by its path relative to the store's root.
* A *position* is where a row lies in its unit: row number in Parquet and text (0-based, records not lines),
  rowid in SQLite.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Positions = npt.NDArray[np.int64]
ASIDE = 32  # bytes beside a text that can tell whether it is part of a longer one


class Method(StrEnum):
    """How bytes were sanitised. None of these is Clear or Purge of a medium in NIST SP 800-88's sense."""

    OVERWRITE = "OVERWRITE"
    CRYPTOGRAPHIC_ERASE = "CRYPTOGRAPHIC_ERASE"
    LOGICAL_DELETE = "LOGICAL_DELETE"
    EXPIRY = "EXPIRY"


class Verdict(StrEnum):
    """How a collection in scope ends for one subject: exactly one of these, never "skipped"."""

    ERASED = "ERASED"
    NOT_PRESENT = "NOT_PRESENT"
    RETAINED = "RETAINED"
    FAILED = "FAILED"
    OUT_OF_SCOPE = "OUT_OF_SCOPE"


class Mode(StrEnum):
    """What the catalog wants done with a value or a row."""

    CRYPTO_ERASE = "crypto-erase"
    OVERWRITE = "overwrite"
    DELETE = "delete"
    MASK = "mask"
    KEEP = "keep"


class Ownership(StrEnum):
    """Whose a row (or a value in it) is."""

    SOLE = "sole"
    SHARED = "shared"
    JOINT = "joint"
    MENTION = "mention"


class IdentityFormat(StrEnum):
    """How an identity is stored in a column."""

    RAW = "raw"
    SHA256 = "sha256"
    DROP = "drop"
    HMAC = "hmac"


# ---------------------------------------------------------------- the catalog


@dataclass(frozen=True)
class Mask:
    """What replaces a masked value: null, a constant, or a bucket of `bucket` units (numbers only)."""

    constant: str | int | float | bool | None = None
    bucket: int | None = None


@dataclass(frozen=True)
class Retention:
    """Which record class of which law a value falls under; `start` is the date field, or the event "closed"."""

    law: str
    record_class: str
    start: str


@dataclass(frozen=True)
class Reference:
    """A reference to `field` of `dataset`/`collection`; `direction` is "from", "to" or None (both)."""

    dataset: str
    collection: str
    field: str
    direction: str | None


@dataclass(frozen=True)
class Field:
    """One field of a collection with its effective (inherited) erasure settings."""

    name: str
    data_type: str | None = None
    categories: tuple[str, ...] = ()
    identity: str | None = None
    primary_key: bool = False
    references: tuple[Reference, ...] = ()
    mode: Mode | None = None
    mask: Mask = Mask()
    key_domain: str = ""
    sensitive: bool = False
    retention: Retention | None = None
    ownership: Ownership = Ownership.SOLE
    party: str | None = None
    identity_format: IdentityFormat = IdentityFormat.RAW
    normalised: bool = False
    confidence: float = 1.0
    max_fanout: int = 64
    because: str | None = None
    protected_as: str | None = None  # the pinned name in the AAD of values; default dataset/collection/field
    pad: int = 0  # values under keys are filled up to a multiple of so many bytes
    sub: tuple[Field, ...] = ()  # nested fields
    matches: tuple[str, ...] = ()  # kinds a value of this column may be matched by (resolved by the reader)
    emits: tuple[str, ...] = ()  # kinds a value of this column becomes a fact of (resolved by the reader)
    where: str = ""  # file:line:column

    @property
    def personal(self) -> bool:
        """Whether a category of the field lies under `user`."""
        return any(c == "user" or c.startswith("user.") for c in self.categories)


@dataclass(frozen=True)
class StoreAddress:
    """Where a collection lies: kind of store, root (relative to the catalog's root), units, credentials' setting."""

    kind: str
    url: str
    glob: str = "*"
    secret: str | None = None
    partition: str | tuple[str, ...] | None = None  # None, "hive", or field names


@dataclass(frozen=True)
class Copy:
    """A declared copy elsewhere: replica, backup, derived, cache or stream."""

    kind: str
    name: str
    keep: str | None = None  # ISO or "35d"
    method: str | None = None
    start: str | None = None  # `from` in the file
    in_catalog: bool = False  # names a catalogued dataset


@dataclass(frozen=True)
class Collection:
    """A table, file set or document set, with effective settings."""

    dataset: str
    name: str
    fields: tuple[Field, ...]
    store: StoreAddress
    mode: Mode | None = None
    mask: Mask = Mask()
    ownership: Ownership = Ownership.SOLE
    on_shared: str = "unlink"
    person: bool = False
    retention: Retention | None = None
    key_domain: str = ""
    copies: tuple[Copy, ...] | None = None  # None: not declared
    reviewed: bool = True
    because: str | None = None
    erase_after: tuple[str, ...] = ()
    where: str = ""

    @property
    def address(self) -> str:
        """`dataset/collection`, the name under which it is printed."""
        return f"{self.dataset}/{self.name}"

    def field(self, name: str) -> Field:
        """The field of that name; KeyError if there is none."""
        for one in self.fields:
            if one.name == name:
                return one
        raise KeyError(name)

    @property
    def primary_key(self) -> Field | None:
        """The field marked as primary key, if any."""
        return next((f for f in self.fields if f.primary_key), None)


@dataclass(frozen=True)
class Guards:
    """Limits of the identity closure; what trips one stops the plan or that subject's hop."""

    stop_list: str | None = None
    max_new_identities: int = 20
    min_confidence: float = 0.0
    max_collateral: int = 0
    max_hops: int = 32
    merge: str = "ask"  # ask | join | apart: a second person row reached by an unverified identity


@dataclass(frozen=True)
class Accountable:
    """Who answers for a dataset, who carries erasures out in it, which terms people accepted, who else processes it.

    Roles and parties, never people by name; `terms` is the SHA-256 of the accepted text; "" where nothing is declared.
    """

    owner: str = ""
    executor: str = ""
    terms: str = ""
    processors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """A dataset as fideslang knows it, with ours resolved into its collections."""

    key: str
    name: str
    collections: tuple[Collection, ...]
    guards: Guards = Guards()
    ours: bool = True  # has an `erasure:` block; else located and exported, never erased
    accountable: Accountable = Accountable()


@dataclass(frozen=True)
class Catalog:
    """All datasets, the root their paths are relative to, and the digest of the sources."""

    datasets: tuple[Dataset, ...]
    root: Path
    digest: str
    person_kind: str | None  # kind of the person collection's primary key: whose keys a row's values lie under
    kinds: frozenset[str] = frozenset()  # every identity kind that some field declares

    @property
    def collections(self) -> tuple[Collection, ...]:
        """Every collection, in the order of the files."""
        return tuple(c for d in self.datasets for c in d.collections)

    def collection(self, address: str) -> Collection:
        """The collection printed as `dataset/collection`; KeyError if there is none."""
        for one in self.collections:
            if one.address == address:
                return one
        raise KeyError(address)

    def guards(self, collection: Collection) -> Guards:
        """The guards of the dataset a collection belongs to."""
        return next(d.guards for d in self.datasets if d.key == collection.dataset)


# ---------------------------------------------------------------- people


@dataclass(frozen=True, order=True)
class Identity:
    """A fact about a person: kind and canonical value. The value never shows in a repr."""

    kind: str
    value: str = field(repr=False)


@dataclass(frozen=True)
class Subject:
    """Somebody to be erased: an opaque random ref (the only name that travels) and verified identities."""

    ref: str
    identities: tuple[Identity, ...]


@dataclass(frozen=True)
class Cohort:
    """The subjects of one pass; a subject's index in the tuple is its number in traces and findings."""

    subjects: tuple[Subject, ...]


# ---------------------------------------------------------------- stores


@dataclass(frozen=True)
class Unit:
    """One file of a store: path relative to the store's root, and what identifies this state of it."""

    name: str
    size: int
    mtime_ns: int
    dev: int
    ino: int


def shown(path: str | PathLike[str]) -> str:
    r"""A path as text that can be written anywhere: a name that is no UTF-8 (GBK, say) byte by byte, as `\xNN`."""
    return "/".join(_utf8_or_bytes(part) for part in os.fsencode(path).split(b"/"))


def _utf8_or_bytes(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:  # also where some pair of its bytes would be a character by chance
        return name.decode("ascii", "backslashreplace")


@dataclass(frozen=True)
class Rows:
    """A slice of a collection as it lies in one unit: row i of `columns` is at `positions[i]`."""

    unit: str
    positions: Positions
    columns: pa.RecordBatch


@dataclass(frozen=True)
class Blank:
    """Values to replace in one field: at these positions, by this filler (None = null)."""

    positions: Positions
    filler: str | int | float | bool | None


@dataclass(frozen=True)
class Redaction:
    """Text to replace inside values of one field: at positions[i], texts[i], standing alone, becomes `filler`."""

    positions: Positions
    texts: pa.StringArray = field(repr=False)
    filler: str = "***"


def redacted(value: str, texts: Iterable[str], filler: str) -> str:
    """The value with every text replaced where it stands alone (see `stands_alone`).

    Texts that overlap are replaced together, so that no part of one is left beside the filler of another.
    """
    body = value.encode(errors="surrogatepass")
    found: list[tuple[int, int]] = []
    for text in {text.encode(errors="surrogatepass") for text in texts if text}:
        found += [(m.start(), m.start() + len(text)) for m in re.finditer(rb"(?=%b)" % re.escape(text), body)]
    out, done = [], 0
    for start, end in sorted(whole(body, found)):
        if start >= done:
            out += [body[done:start], filler.encode()]
        done = max(done, end)
    return b"".join([*out, body[done:]]).decode(errors="surrogatepass")


def stands_alone(body: bytes | memoryview, start: int, end: int, low: int = 0, high: int | None = None) -> bool:
    """Whether the text at [start, end) of body[low:high] is whole there, and not part of a longer one.

    `139…` inside `77139…` is somebody else's number, `wei@a.cn` inside `li.wei@a.cn` or `wei@a.cn.org` somebody else's
    address. Letters around a number are no part of it (`tel139…`); letters and digits around a word are. What does not
    begin (end) with an ASCII letter or a digit has no edge there, and nothing goes on after the X of an ID.

    Locating, masking and the byte search share this rule, so that none of them knows more than the others. What is in
    doubt stands alone: in `\\u7535139…` and `%B5139…` a number follows an escaped character, not digits.
    """
    text = bytes(body[start:end])
    edge = _EDGES["address" if b"@" in text else "number" if _NUMBER.fullmatch(text) else "word"]
    if edge.first.match(text):
        before = bytes(body[max(low, start - ASIDE) : start])
        escape = _ESCAPE.search(before)
        if escape:  # what counts is the character it stands for, and none beyond ASCII does
            code = int(next((digits for digits in escape.groups() if digits), b"20"), 16)
            before = before[: escape.start()] + bytes([code if code < 0x80 else 0x20])
        if edge.before.search(before):
            return False
    after = bytes(body[end : min(len(body) if high is None else high, end + ASIDE)])
    return not (edge.last.search(text) and edge.after.match(after))


def whole(body: bytes, spans: Iterable[tuple[int, int]], low: int = 0, high: int | None = None) -> set[tuple[int, int]]:
    """The spans that stand alone, or do once those that stand alone are gone: a number written onto an address."""
    high = len(body) if high is None else high
    rest, found = set(spans), set[tuple[int, int]]()
    while True:
        more = {
            (start, end)
            for start, end in rest
            if stands_alone(
                body,
                start,
                end,
                max([low, *(e for _s, e in found if e <= start)]),
                min([high, *(s for s, _e in found if s >= end)]),
            )
        }
        if not more:
            return found
        found, rest = found | more, rest - more


def by_position(redaction: Redaction) -> dict[int, list[str]]:
    """The texts to be replaced at each position; a loop over the few values that change."""
    found: dict[int, list[str]] = {}
    for position, text in zip(redaction.positions.tolist(), redaction.texts.to_pylist(), strict=True):
        found.setdefault(position, []).append(text or "")
    return found


class _Edge(NamedTuple):
    """How a class of texts begins and ends where it could go on, and what it goes on with."""

    first: re.Pattern[bytes]
    last: re.Pattern[bytes]
    before: re.Pattern[bytes]
    after: re.Pattern[bytes]


_DIGIT = rb"(?:[0-9]|\xef\xbc[\x90-\x99])"  # full-width ones too
_ALNUM = rb"[0-9A-Za-z]"
_NUMBER = re.compile(rb"[^A-Za-z]*(?:[0-9]|\xef\xbc[\x90-\x99])(?:[Xx]|\xef\xbc\xb8|\xef\xbd\x98)?")  # however grouped
_ESCAPE = re.compile(
    rb"(?:\\u([0-9A-Fa-f]{4})|\\x([0-9A-Fa-f]{2})|%([0-9A-Fa-f]{2})|(?:=[0-9A-F]{2}){2,}|\\[0-7]{3}|\\[bfnrt])\Z"
)


def _edge(end: bytes, before: bytes, after: bytes) -> _Edge:
    return _Edge(*map(re.compile, (end, end + rb"\Z", before + rb"\Z", after)))


_NEXT = rb"(?!\0\0\0)"  # a character and three NUL are the length of the next value of a page
_EDGES = {
    "number": _edge(_DIGIT, _DIGIT, rb"[0-9]" + _NEXT + rb"|\xef\xbc[\x90-\x99]"),
    # `a@b.cn.org` and `a@b.cn-c.org` are other mailboxes; `a@b.cn.`, `a@b.cn.Thanks`, `a@b.cn-` end where they seem to.
    "address": _edge(
        _ALNUM,
        rb"[0-9A-Za-z](?:[_%+-]*|\.)",
        _ALNUM + _NEXT + rb"|\.(?![A-Z][a-z])[0-9A-Za-z]|-[0-9A-Za-z-]*\.[0-9A-Za-z]",
    ),
    "word": _edge(_ALNUM, _ALNUM, _ALNUM + _NEXT),
}


@dataclass(frozen=True)
class Change:
    """What is done to one collection inside one unit. A position is in `drop` or elsewhere, never both."""

    collection: Collection
    drop: Positions
    blank: Mapping[str, Blank] = field(default_factory=dict)
    redact: Mapping[str, Redaction] = field(default_factory=dict)


@dataclass(frozen=True)
class Order:
    """Everything that is done to one unit, for the whole cohort, and the state it was located in."""

    unit: Unit
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Destruction:
    """Evidence that the bytes of one inode were overwritten once, flushed and read back, in place."""

    dev: int
    ino: int
    size: int
    bytes_overwritten: int
    seed: str  # hex; regenerates the stream an auditor may compare old extents with
    extents: tuple[tuple[int, int, int], ...]  # (logical, physical, length), merged runs
    fs: str
    on_device: int = 0  # bytes of the old extents read back from the block device itself; 0 where that is not permitted


@dataclass(frozen=True)
class Construction:
    """What shows that a new unit holds nobody but survivors where no search of its bytes could (an opaque store).

    We created the file ourselves, fed it only rows that an anti-join left over, and read it back as it lies: every
    table has the rows that were expected, told by their count and a digest that no order of rows changes.
    """

    tables: int
    rows: int  # survivors, in all tables
    digest: str  # hex, over names, counts and digests of all tables


@dataclass(frozen=True)
class Erasure:
    """The fact that one unit was sanitised."""

    unit: str
    method: Method
    reason: str  # why not OVERWRITE, in a printed sentence; "" for OVERWRITE
    rows_before: Mapping[str, int]  # per collection address
    rows_after: Mapping[str, int]
    changed: Mapping[str, int]  # rows kept with values replaced, per collection address
    destructions: tuple[Destruction, ...]
    claim: str  # "ext4, rotational: extents overwritten once, read back ..."
    construction: Construction | None = None  # what opaque stores show instead of a search that could see nothing

    @property
    def bytes_overwritten(self) -> int:
        """Bytes of old inodes overwritten for this unit."""
        return sum(d.bytes_overwritten for d in self.destructions)


@dataclass(frozen=True)
class Capabilities:
    """What a kind of store can do; printed on the certificate, and decides which contract tests apply."""

    overwrite: bool  # old bytes can be overwritten where the medium allows
    mask: bool  # single values of a kept row can be replaced
    redact: bool  # text inside a value can be replaced
    plant: bool  # a canary row can be added
    raw_scan: bool  # a raw search of its bytes sees values (else opaque: shown by construction, see `Construction`)


class Meter:
    """Counts how often each unit is opened in each step; printed, and asserted by tests."""

    def __init__(self) -> None:
        self.step = "-"
        self.opened: Counter[tuple[str, str, str]] = Counter()

    def open(self, store: str, unit: str) -> None:
        """Note that `unit` of `store` is opened in the current step."""
        self.opened[(self.step, store, unit)] += 1

    def most(self) -> dict[str, int]:
        """Per step, how often the most often opened unit was opened."""
        found: dict[str, int] = {}
        for (step, _store, _unit), n in self.opened.items():
            found[step] = max(found.get(step, 0), n)
        return found


class Store(Protocol):
    """A store holds collections in units. One instance per (kind, url); it serves all collections given to it.

    Raises StoreUnavailable with the unit, what was expected and found, and what to do, before anything changes.
    """

    name: str  # "kind:url"
    kind: str
    root: Path
    collections: tuple[Collection, ...]
    capabilities: Capabilities
    meter: Meter

    def units(self, collection: Collection | None = None) -> tuple[Unit, ...]:
        """Every unit (of one collection), sorted by name; opens nothing. A file nobody claims is not a unit."""
        ...

    def check(self, *, for_writing: bool) -> None:
        """Open every unit once and compare it with the catalog: format, columns, types, lock, permission, links."""
        ...

    def fields(self, collection: Collection) -> pa.Schema:
        """The Arrow schema of a collection as it is stored (protected columns are large_binary)."""
        ...

    def clear(self, collection: Collection, names: Sequence[str]) -> tuple[str, ...]:
        """The units in which a value of one of these fields stands in clear, sorted; looks at every unit."""
        ...

    def scan(
        self, wanted: Mapping[str, Sequence[str]], units: Sequence[str] | None = None
    ) -> Iterator[tuple[str, Rows]]:
        """Yield (collection address, rows) with only the wanted fields; each unit opened once for all collections."""
        ...

    def take(self, wanted: Mapping[str, Mapping[str, Positions]]) -> Iterator[tuple[str, Rows]]:
        """Yield all fields of the rows at address -> unit -> sorted positions, streamed; each unit opened once."""
        ...

    def examine(self) -> Mapping[str, str]:
        """Per unit: "" where its bytes can be overwritten, else the reason why the medium refuses. Changes nothing."""
        ...

    def rehearse(self, orders: Sequence[Order]) -> None:
        """Try the orders on what is private to us, before anything is destroyed; units changed since are left out.

        NotAllowed where they cannot be carried out: the table, what stands against it, what to do.
        """
        ...

    def erase(self, orders: Sequence[Order], *, batch: str) -> Iterator[Erasure]:
        """Carry out the orders; idempotent per batch; each unit is whole before and after. UnitChanged if foreign."""
        ...

    def recover(self, *, batch: str | None) -> None:
        """After a crash: finish or undo what a killed run left (None: of any batch), without touching live data."""
        ...

    def forget(self, *, batch: str) -> None:
        """Drop the records kept for resuming `batch`, once its outcomes are in the ledger."""
        ...

    def plant(self, rows: Sequence[tuple[Collection, Mapping[str, Any]]]) -> None:
        """Add rows (the canary's) in the way new data arrives in this store, each unit opened once for all of them.

        Idempotence is the caller's: after a kill some of the rows may stand.
        """
        ...

    def rewrite(self, fields: Mapping[str, Sequence[str]], turn: Turn, *, batch: str) -> Iterator[Erasure]:
        """Replace whole columns (address -> fields) by what `turn` makes of them, then destroy the old bytes."""
        ...

    def files(self) -> tuple[Path, ...]:
        """Every file that may hold bytes of this store: units, journals, WALs, pending, temp; for the residue scan."""
        ...


class Turn(Protocol):
    """Turns rows of a collection into rows with some columns replaced (`fangxin protect`); same length and order."""

    def __call__(self, collection: Collection, columns: pa.RecordBatch) -> pa.RecordBatch:
        """Return the columns to be replaced, by name, made from the full rows given."""
        ...


# ---------------------------------------------------------------- traces, findings


TRACE = pa.schema(
    [  # one row per located row of a subject
        ("subject", pa.int32()),  # index in the cohort
        ("collection", pa.string()),  # address
        ("unit", pa.string()),
        ("position", pa.int64()),
        ("edge", pa.string()),  # owns | shares | mentions
        ("hop", pa.int32()),
        ("confidence", pa.float64()),
        ("via", pa.string()),  # path of fields without values, " > " between
        ("fields", pa.string()),  # comma-joined fields that matched (what a mention mask replaces)
    ]
)


FINDING = pa.schema(
    [  # one row per subject and collection: counts and words, never a value of a person; no nulls
        ("subject", pa.int32()),  # index in the cohort
        ("dataset", pa.string()),
        ("collection", pa.string()),
        ("store", pa.string()),
        ("verdict", pa.string()),
        ("method", pa.string()),  # a Method, or "" where nothing was done
        ("claim", pa.string()),
        ("reason", pa.string()),  # why not OVERWRITE, why FAILED, why OUT_OF_SCOPE
        ("rows_found", pa.int64()),  # rows the subject owns
        ("rows_erased", pa.int64()),
        ("rows_retained", pa.int64()),
        ("values_masked", pa.int64()),
        ("rows_shared", pa.int64()),  # rows that others use too
        ("rows_mentioned", pa.int64()),  # other people's rows that mention the subject
        ("rows_residual", pa.int64()),  # rows located again afterwards that should be gone
        ("baseline_hits", pa.int64()),  # before, of the scan
        ("hits_after", pa.int64()),  # after, that nothing explains
        ("hits_explained", pa.int64()),  # after, inside rows that are retained, shared or mention
        ("units_expected", pa.int64()),
        ("units_read", pa.int64()),
        ("bytes_read", pa.int64()),
        ("bytes_overwritten", pa.int64()),  # of whole units: for the cohort, not for one person
        ("canary_found", pa.bool_()),
        ("ground", pa.string()),  # rule id, "" if none
        ("until", pa.string()),  # ISO date, "officer" or ""
        ("not_examinable", pa.string()),  # sentences joined by ";", "" if none
    ]
)


@dataclass(frozen=True)
class Until:
    """What a law decided for a record: keep until `day` under `rule`; `day` None means an officer decides."""

    rule: str
    day: date | None
    text_en: str
    text_zh: str

"""Laws: how long which record class must be kept, from when, and what that means for one date.

One file, one jurisdiction. A decision is pure and per record class, never per user: erase now, or keep until a day
under a rule, or (a start date is missing, rules collide, a transition is open) an officer decides.

* A rule is chosen by the date of the record's event, not by today's, and by facts about the operator.
* The longest `at_least` that applies wins; an `at_most` caps it; a collision goes to an officer.
* Drafts and unconfirmed rules never lengthen a seal.
* Counting follows the Civil Code of China, Art. 200-204: the day of the event does not count, months and years end
  on the same date or at the month's end. `day` is the last day of keeping; erasure is due at 00:00 of the next.
"""

from __future__ import annotations

import calendar
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from fangxin.data.catalog.tree import Page, Problem, compose, empty, ordered
from fangxin.data.errors import CatalogError, InputError, unread
from fangxin.data.vocabulary import Retention, Until

_RULE_KEYS = ("id", "in_force", "applies_when", "class", "keep", "outcome", "text", "source", "confidence")
_RULE_EXTRAS = ("status", "needs_counsel")
_DEADLINE_KEYS = ("id", "start", "within", "unit", "calendar")
_DEADLINE_EXTRAS = ("status", "source", "confidence", "text", "extended", "ends")
_CONFIDENCE = ("verbatim", "secondary", "unconfirmed")
_STATUS = ("final", "draft")
_ENDS = ("closed", "confirmed")
_UNITS = ("hour", "day", "working_day", "month", "year")
_ZONED = r"(Z|[+-]([01]\d|2[0-3]):?[0-5]\d)$"
_TIME = r"^\d{4}-\d{2}-\d{2}([ T]([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d{1,9})?)?)?"


@dataclass(frozen=True)
class Period:
    """An ISO 8601 period of one unit: P3Y, P6M or P15D."""

    count: int
    unit: str  # Y, M or D

    def after(self, event: date) -> date:
        """The last day of the period; the day of the event does not count."""
        if self.unit == "D":
            return event + timedelta(days=self.count)
        months = event.year * 12 + event.month - 1 + self.count * (12 if self.unit == "Y" else 1)
        year, month = divmod(months, 12)
        return date(year, month + 1, min(event.day, calendar.monthrange(year, month + 1)[1]))


@dataclass(frozen=True)
class Rule:
    """One rule of a statute as far as it decides keeping or erasing."""

    id: str
    classes: tuple[str, ...]
    outcome: str  # erase | seal
    begins: date
    ends: date | None
    facts: tuple[str, ...]
    at_least: Period | None
    at_most: Period | None
    start: str  # the event the period runs from
    text_zh: str
    text_en: str
    source: str
    confidence: str  # verbatim | secondary | unconfirmed
    draft: bool = False
    needs_counsel: bool = False  # a transition is open: at the end an officer decides, nothing erases by itself

    @property
    def binding(self) -> bool:
        """Whether the rule may keep anything sealed: drafts and unconfirmed rules may not."""
        return not self.draft and self.confidence != "unconfirmed"

    def applies(self, event: date, facts: frozenset[str]) -> bool:
        """Whether the rule was in force on the day of the event, for an operator with these facts."""
        return self.begins <= event and (self.ends is None or event <= self.ends) and facts.issuperset(self.facts)


@dataclass(frozen=True)
class Deadline:
    """Within how many units of a calendar something has to happen after an event; `deadlines.py` counts."""

    id: str
    start: str
    within: int
    unit: str
    calendar: str  # whose days off count, and whose way of counting
    draft: bool
    source: str
    confidence: str
    extended: int | None = None  # all of it, where a notice with reasons inside the first period lengthens it
    ends: str = "closed"  # what keeps it: the request is answered in full, or its receipt is confirmed


@dataclass(frozen=True)
class Law:
    """One law file."""

    name: str
    jurisdiction: str
    zone: str  # the zone in which its days are counted
    rules: tuple[Rule, ...]
    deadlines: tuple[Deadline, ...]

    @property
    def classes(self) -> frozenset[str]:
        """Every record class that some rule names."""
        return frozenset(c for r in self.rules for c in r.classes)


class ColumnDecision(NamedTuple):
    """Decisions for a column of start dates, all of its length."""

    until: pa.Array  # date32: the last day of keeping; null with officer false: erase now
    officer: pa.Array  # bool: an officer decides
    rule: pa.Array  # string: the rule that keeps it; null: erase now


@lru_cache(maxsize=64)
def _read(path: Path, body: bytes) -> tuple[Law | None, tuple[Problem, ...]]:
    """A file of these bytes, and what is wrong with it: every step of a batch asks anew, and the answer is the same."""
    problems: list[Problem] = []
    node = compose(str(path), body, problems)
    law = None if node is None else _Reader(Page(str(path), problems)).law(node, path.stem)
    return law, tuple(problems)


@dataclass(frozen=True)
class Laws:
    """Every law of a folder, by file name without suffix, and the SHA-256 of each file."""

    laws: Mapping[str, Law]
    digests: Mapping[str, str]

    @classmethod
    def load(cls, folder: Path) -> Laws:
        """Read *.yaml and *.yml of a folder strictly; CatalogError carries every problem as file:line:column."""
        problems: list[Problem] = []
        laws: dict[str, Law] = {}
        digests: dict[str, str] = {}
        try:
            files = sorted(p for p in folder.iterdir() if p.suffix in (".yaml", ".yml"))
        except OSError as error:
            raise CatalogError(f"{folder}: cannot be read as a folder of laws: {unread(error)}") from None
        for path in files:
            body = path.read_bytes()
            law, found = _read(path, body)
            problems += found
            if law is not None:
                laws[path.stem] = law
                digests[path.stem] = hashlib.sha256(body).hexdigest()
        if problems:
            raise CatalogError([str(p) for p in ordered(problems, [str(p) for p in files])])
        if not laws:
            raise CatalogError(f"{folder}: no law found; expected *.yaml; add a file such as pipl.yaml")
        return cls(laws, digests)

    def law(self, name: str) -> Law:
        """The law of that name; InputError if no file has it."""
        if name not in self.laws:
            raise InputError(
                f'law "{name}" is not loaded; expected one of {", ".join(sorted(self.laws))}',
                hint="correct retention.law in the catalog, or add the file to the folder of laws",
            )
        return self.laws[name]

    def wanted_facts(self, retentions: Sequence[Retention]) -> frozenset[str]:
        """Every fact about the operator on which decisions for these classes depend."""
        return frozenset(
            fact for r in retentions for rule in self._rules(r) if rule.outcome == "seal" for fact in rule.facts
        )

    def decide(self, retention: Retention, start: date | None, *, facts: frozenset[str], today: date) -> Until | None:
        """Decide one record: None = erase now, else keep until a day; `day` None = an officer decides.

        `facts` are those that hold for the operator. A class that no rule seals is erased now. InputError for an
        unknown law.
        """
        seals = [r for r in self._rules(retention) if r.outcome == "seal" and r.binding and (r.at_least or r.at_most)]
        if start is None:
            # Unknown date: whatever might apply keeps the record from being erased, and a person looks.
            possible = [r for r in seals if facts.issuperset(r.facts)]
            return _until(possible[0], None, possible[1:]) if possible else None
        applying = [r for r in seals if r.applies(start, facts)]
        if not applying:
            return None
        least = sorted(((r.at_least.after(start), r.id, r) for r in applying if r.at_least), reverse=True)
        most = sorted((r.at_most.after(start), r.id, r) for r in applying if r.at_most)
        day, _id, rule = (least or most)[0]
        others = [r for r in applying if r is not rule]
        if least and most and day > most[0][0]:
            return _until(rule, None, others)  # one rule demands longer than another allows
        if day >= today:
            return _until(rule, day, others)
        return _until(rule, None, others) if rule.needs_counsel else None

    def decide_column(
        self, retention: Retention, starts: pa.Array, *, facts: frozenset[str], today: date
    ) -> ColumnDecision:
        """Decide a column of dates, timestamps or ISO texts; each distinct date is decided once.

        Zoned times become dates in the law's zone. A missing or unreadable date goes to an officer. InputError for a
        column of another type.
        """
        if isinstance(starts, pa.ChunkedArray):
            starts = starts.combine_chunks()
        days = _days(starts, self.law(retention.law).zone, retention.start)
        coded = days.dictionary_encode()
        distinct = [*coded.dictionary.to_pylist(), None]
        decided = [self.decide(retention, day, facts=facts, today=today) for day in distinct]
        at = coded.indices.fill_null(len(distinct) - 1)
        return ColumnDecision(
            until=pa.array([d.day if d else None for d in decided], pa.date32()).take(at),
            officer=pa.array([bool(d and d.day is None) for d in decided], pa.bool_()).take(at),
            rule=pa.array([d.rule if d else None for d in decided], pa.string()).take(at),
        )

    def _rules(self, retention: Retention) -> list[Rule]:
        return [r for r in self.law(retention.law).rules if retention.record_class in r.classes]


def _until(rule: Rule, day: date | None, others: Sequence[Rule]) -> Until:
    zh, en = rule.text_zh, rule.text_en
    if others:
        also = ", ".join(r.id for r in others)
        zh, en = f"{zh}（同时适用：{also}）", f"{en} (also applies: {also})"
    return Until(rule.id, day, en, zh)


def _days(starts: pa.Array, zone: str, name: str) -> pa.Array:
    """The local date of every value as date32; null where there is none."""
    kind = starts.type
    if pa.types.is_dictionary(kind):
        return _days(starts.dictionary_decode(), zone, name)
    if pa.types.is_null(kind) or pa.types.is_date32(kind):
        return starts.cast(pa.date32())
    if pa.types.is_date64(kind):
        return starts.cast(pa.date32())
    if pa.types.is_timestamp(kind):
        if kind.tz is not None:
            starts = pc.local_timestamp(starts.cast(pa.timestamp(kind.unit, tz=zone)))
        return pc.floor_temporal(starts, unit="day").cast(pa.date32())
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _days_of_text(pc.utf8_trim_whitespace(starts.cast(pa.string())), zone)
    raise InputError(
        f'retention runs from "{name}"; expected a date, timestamp or ISO text; found {kind}',
        hint="name another field in retention.from, or correct the column's type",
    )


def _days_of_text(texts: pa.Array, zone: str) -> pa.Array:
    shaped = pc.match_substring_regex(texts, pattern=_TIME + r"(Z|[+-]([01]\d|2[0-3]):?[0-5]\d)?$")
    texts = pc.if_else(shaped, texts, pa.scalar(None, pa.string()))
    head = pc.utf8_slice_codeunits(texts, 0, 10)
    parsed = pc.strptime(head, format="%Y-%m-%d", unit="s", error_is_null=True)
    # strptime rolls 30 February over into March: only dates that print as they were written are dates
    real = pc.equal(pc.strftime(parsed, format="%Y-%m-%d"), head)
    days = pc.if_else(real, parsed, pa.scalar(None, parsed.type)).cast(pa.date32())
    zoned = pc.and_(
        pc.match_substring_regex(texts, pattern=_ZONED), pc.and_(real, pc.greater(pc.utf8_length(texts), 10))
    )
    zoned = zoned.fill_null(False)
    if not pc.any(zoned).as_py():
        return days
    moments = texts.filter(zoned).cast(pa.timestamp("ns", tz="UTC")).cast(pa.timestamp("ns", tz=zone))
    local = pc.floor_temporal(pc.local_timestamp(moments), unit="day").cast(pa.date32())
    return pc.replace_with_mask(days, zoned, local)


class _Reader:
    def __init__(self, page: Page) -> None:
        self.page = page

    def law(self, node: yaml.Node, name: str) -> Law:
        page = self.page
        keys = page.mapping(
            node, "a law", ("jurisdiction", "zone", "rules", "deadlines"), required=("jurisdiction", "rules")
        )
        rules = [r for one in self._items(keys, "rules") if (r := self._rule(one))]
        deadlines = [d for one in self._items(keys, "deadlines") if (d := self._deadline(one))]
        for kind, named in (("rule", [r.id for r in rules]), ("deadline", [d.id for d in deadlines])):
            for twice in sorted({i for i in named if named.count(i) > 1}):
                page.say(node, f'{kind} "{twice}" stands twice; ids are unique')
        zone = self._text(keys, "zone") or "+00:00"
        if not re.fullmatch(r"[+-]\d{2}:\d{2}|[A-Z][A-Za-z_]+(/[A-Z][A-Za-z_]+)*", zone):
            page.say(keys["zone"], f'zone: expected Area/City or +HH:MM; found "{zone}"')
        return Law(name, self._text(keys, "jurisdiction"), zone, tuple(rules), tuple(deadlines))

    def _rule(self, node: yaml.Node) -> Rule | None:
        page, before = self.page, len(self.page.problems)
        required = tuple(k for k in _RULE_KEYS if k not in ("applies_when", "keep"))
        keys = page.mapping(node, "a rule", (*_RULE_KEYS, *_RULE_EXTRAS), required=required)
        force = (
            page.mapping(keys["in_force"], "in_force", ("from", "to"), required=("from",)) if "in_force" in keys else {}
        )
        begins = page.day(force["from"], "in_force.from") if "from" in force else None
        ends = page.day(force["to"], "in_force.to") if "to" in force and not empty(force["to"]) else None
        keep = (
            page.mapping(keys["keep"], "keep", ("at_least", "at_most", "from"), required=("from",))
            if "keep" in keys
            else {}
        )
        outcome = self._word(keys, "outcome", ("erase", "seal"))
        if outcome == "seal" and not {"at_least", "at_most"} & set(keep):
            page.say(
                keys["outcome"],
                "a rule that seals has no keep.at_least or keep.at_most; nothing is kept without an end",
            )
        text = page.mapping(keys["text"], "text", ("zh", "en"), required=("zh", "en")) if "text" in keys else {}
        confidence = self._word(keys, "confidence", _CONFIDENCE)
        rule = Rule(
            id=self._text(keys, "id"),
            classes=page.names(keys["class"], "class") if "class" in keys else (),
            outcome=outcome,
            begins=begins or date.max,
            ends=ends,
            facts=page.names(keys["applies_when"], "applies_when") if "applies_when" in keys else (),
            at_least=self._period(keep, "at_least"),
            at_most=self._period(keep, "at_most"),
            start=self._text(keep, "from"),
            text_zh=self._text(text, "zh"),
            text_en=self._text(text, "en"),
            source=self._text(keys, "source"),
            confidence=confidence,
            draft=self._word(keys, "status", _STATUS) == "draft",
            needs_counsel=bool("needs_counsel" in keys and page.flag(keys["needs_counsel"], "needs_counsel")),
        )
        return rule if len(page.problems) == before else None

    def _deadline(self, node: yaml.Node) -> Deadline | None:
        page, before = self.page, len(self.page.problems)
        keys = page.mapping(node, "a deadline", (*_DEADLINE_KEYS, *_DEADLINE_EXTRAS), required=_DEADLINE_KEYS)
        within = page.integer(keys["within"], "within", least=1) if "within" in keys else None
        deadline = Deadline(
            id=self._text(keys, "id"),
            start=self._text(keys, "start"),
            within=within or 0,
            unit=self._word(keys, "unit", _UNITS),
            calendar=self._text(keys, "calendar"),
            draft=self._word(keys, "status", _STATUS) == "draft",
            source=self._text(keys, "source"),
            confidence=self._word(keys, "confidence", _CONFIDENCE) or "unconfirmed",
            extended=page.integer(keys["extended"], "extended", least=(within or 0) + 1)
            if "extended" in keys
            else None,
            ends=self._word(keys, "ends", _ENDS) or "closed",
        )
        return deadline if len(page.problems) == before else None

    def _period(self, keys: dict[str, yaml.Node], key: str) -> Period | None:
        if key not in keys:
            return None
        text = self._text(keys, key)
        found = re.fullmatch(r"P([1-9][0-9]{0,3})([YMD])", text)
        if not found:
            self.page.say(keys[key], f'keep.{key}: expected a period such as P3Y, P6M or P15D; found "{text}"')
            return None
        return Period(int(found[1]), found[2])

    def _text(self, keys: dict[str, yaml.Node], key: str) -> str:
        return (self.page.text(keys[key], key) or "") if key in keys else ""

    def _word(self, keys: dict[str, yaml.Node], key: str, choices: tuple[str, ...]) -> str:
        return (self.page.one_of(keys[key], key, choices) or "") if key in keys else ""

    def _items(self, keys: dict[str, yaml.Node], key: str) -> list[yaml.Node]:
        return self.page.items(keys[key], key) if key in keys else []

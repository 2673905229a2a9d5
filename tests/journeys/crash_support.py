"""An estate small enough to be killed many times: built once, copied for every run, compared by other readers.

A run is a forked child. `Doom` counts what a process does to its disk (every flush, write, link, rename, unlink and
SQL statement) and kills it with SIGKILL at a chosen one, just before or just after it, so nothing can be tidied up.
Modules are imported before the fork; no connection and no pool of threads is made before it.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas  # noqa: F401  -- imported here so that children need not
import pyarrow.parquet as pq
from journeys.witness import unpacked

from fangxin.checks import verify
from fangxin.checks.suites import erased, exported, judgement  # noqa: F401
from fangxin.data.catalog.kinds import canonical
from fangxin.data.keys.columns import open_rows
from fangxin.data.sample.lecard import sample
from fangxin.data.vocabulary import Identity, Mode
from fangxin.flows import erase
from fangxin.flows.batch import Step
from fangxin.flows.cli.erase import carried_out
from fangxin.flows.estate import Estate, make_home, open_estate
from fangxin.flows.protect import protect

judgement.great_expectations()

NOW = datetime(2026, 11, 24, 1, 0, tzinfo=UTC)
MONTHS = ("2023-07", "2026-10")  # one month whose trades go, one whose trades a law keeps

CALLS = ("fsync", "link", "unlink", "replace", "write", "pwrite", "ftruncate")


# ---------------------------------------------------------------- one estate, copied for every run


@dataclass(frozen=True)
class Arena:
    """The place where every run happens (paths are part of a batch), and the copy it starts from."""

    place: Path
    pristine: Path
    batch: str

    @property
    def home(self) -> Path:
        return self.place / "home"

    @property
    def stores(self) -> Path:
        return self.place / "estate" / "stores"

    def reset(self) -> None:
        """Put everything back as it was when the batch had just been opened."""
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self.pristine, self.place)


def small_estate(place: Path, *, people: int = 40, months: tuple[str, ...] = MONTHS) -> Path:
    """A LeCard estate of a few months with a home whose columns are protected; return the catalog."""
    made = sample(place / "estate", people=people, seed=7)
    for unit in (*made.stores.glob("lake/*/month=*"), *made.stores.glob("support/*")):
        if not any(month in unit.name for month in (*months, "2026-09")):
            shutil.rmtree(unit) if unit.is_dir() else unit.unlink()
    with closing(sqlite3.connect(made.stores / "wallet.db")) as wallet:
        wallet.execute("PRAGMA journal_mode=WAL")  # as databases in use mostly are
    make_home(place / "home", rehearsal=True, origin="ledger.example/erasure/2026", now=NOW, capacity=2_000)
    return made.catalog


def leavers(place: Path, count: int) -> list[list[Identity]]:
    with (place / "estate" / "leavers.csv").open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    return [[Identity(k, canonical(k, v)) for k, v in row.items() if v] for row in rows[:count]]


def build(base: Path, *, settle: Callable[[Path], None] = lambda _home: None) -> Arena:
    """Make the estate, protect it, `settle` its home, open a batch of three people, and keep the copy."""
    place = base / "arena"
    os.environ["FANGXIN_HOME"] = str(place / "home")

    def make() -> str:
        catalog = small_estate(place)
        protect(open_estate(place / "home", catalog, NOW))
        settle(place / "home")
        estate = open_estate(place / "home", catalog, NOW)
        options = {"approved": True, "now": NOW.isoformat(), "export": str(place / "handed-over")}
        return erase.open_batch(estate, leavers(place, 3), options=options)

    batch = told(in_child(make))
    shutil.copytree(place, base / "pristine")
    return Arena(place, base / "pristine", batch)


# ---------------------------------------------------------------- children


@dataclass(frozen=True)
class Ended:
    """How a child ended: what it answered with, or the signal that killed it, or what it raised."""

    answer: Any
    signal: int
    error: str


def in_child(work: Callable[[], Any]) -> Ended:
    """Run in a forked child; its answer comes back as JSON."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 0
        os.close(reader)
        try:
            body = json.dumps({"answer": work()})
        except BaseException as error:
            body = json.dumps({"error": f"{type(error).__name__}: {error}\n{traceback.format_exc()}"})
            code = 1
        with os.fdopen(writer, "w") as pipe:
            pipe.write(body)
        os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        body = pipe.read()
    _pid, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return Ended(None, os.WTERMSIG(status), "")
    found = json.loads(body)
    return Ended(found.get("answer"), 0, found.get("error", ""))


def told(ended: Ended) -> Any:
    """The child's answer, or its failure as ours."""
    assert not ended.signal, f"the child was killed by signal {ended.signal}"
    assert not ended.error, ended.error
    return ended.answer


# ---------------------------------------------------------------- killing


class Doom:
    """Counts what a process does to its disk, by step; dies at the chosen (step, number), before or after it."""

    def __init__(self, at: tuple[str, int] | None = None, *, after: bool = False) -> None:
        self.at, self.after = at, after
        self.step = "-"
        self.seen: Counter[str] = Counter()

    def __call__(self, act: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            with self.act():
                return act(*args, **kwargs)

        return counted

    @contextmanager
    def act(self) -> Iterator[None]:
        self.seen[self.step] += 1
        now = self.at == (self.step, self.seen[self.step])
        if now and not self.after:
            die()
        yield
        if now:
            die()

    def arm(self) -> None:
        """Put ourselves before every call; only ever in a child that ends with it."""
        for name in CALLS:
            setattr(os, name, self(getattr(os, name)))
        doom, plain = self, sqlite3.connect

        class Connection(sqlite3.Connection):
            def execute(self, *args: Any) -> Any:
                with doom.act():
                    return super().execute(*args)

            def executemany(self, *args: Any) -> Any:
                with doom.act():
                    return super().executemany(*args)

            def backup(self, *args: Any, **kwargs: Any) -> None:
                with doom.act():
                    super().backup(*args, **kwargs)

        sqlite3.connect = lambda *a, **k: plain(*a, **{**k, "factory": Connection})  # type: ignore[assignment]  # a child's own


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def journey(arena: Arena, doom: Doom | None = None, *, before: str = "", after: str = "") -> Callable[[], Any]:
    """A run of every step for a child; it may die before or after a step, or where `doom` says.

    The answer is how many acts each step took.
    """

    def work() -> Any:
        counting = doom or Doom()
        counting.arm()
        wrapped = {one: _told_apart(one, counting, before, after) for one in erase.STEPS}
        erase.STEPS = tuple(wrapped.values())
        erase._BEFORE_DESTRUCTION = tuple(wrapped[one] for one in erase._BEFORE_DESTRUCTION)
        erase.journey(arena.batch)
        return dict(counting.seen)

    return work


def _told_apart(step: Step, doom: Doom, before: str, after: str) -> Step:
    def one(batch: str) -> None:
        doom.step = step.__name__
        if before == step.__name__:
            die()
        step(batch)
        if after == step.__name__:
            die()

    one.__name__ = step.__name__
    return one


def moments(counts: dict[str, int], number: int, seed: int) -> list[tuple[str, int, bool]]:
    """(step, n-th act, after it?): spread over the steps, the same for the same seed and counts."""
    rng = random.Random(seed)
    steps = [s.__name__ for s in erase.STEPS if counts.get(s.__name__)]
    order = [name for name in ("overwrite", "destroy_keys", "plant", "close") if name in steps]
    order += [name for name in steps if name not in order]
    chosen = [order[n % len(order)] for n in range(number)]
    return [(step, rng.randint(1, counts[step]), rng.random() < 0.5) for step in chosen]


# ---------------------------------------------------------------- what can be seen afterwards


def resumed(arena: Arena) -> Callable[[], Any]:
    """For a child: resume as the command does, look, resume again, look again."""

    def work() -> Any:
        carried_out(arena.home, arena.batch, erase.journey)
        first, bytes_before = outcome(arena), fingerprint(arena.place)
        carried_out(arena.home, arena.batch, erase.journey)
        return {"outcome": first, "again": outcome(arena), "changed": changed(bytes_before, fingerprint(arena.place))}

    return work


def outcome(arena: Arena) -> dict[str, Any]:
    """Rows, files, verdicts, keys and ledger, each told by a reader of its own."""
    return {
        "rows": rows(arena.stores),
        "verdicts": verdicts(arena),
        "exported": {p.parent.name: _digest(p) for p in sorted((arena.place / "handed-over").glob("*/manifest.json"))},
        **keys(arena),
        **ledger(arena),
        "verify": verified(arena),
    }


def rows(stores: Path) -> dict[str, list[Any]]:
    """Every row of every unit by readers that are not ours; and every other file that lies there."""
    found: dict[str, list[Any]] = {}
    for path in sorted(p for p in stores.rglob("*") if p.is_file()):
        name = path.relative_to(stores).as_posix()
        if path.suffix == ".db":
            with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as db:
                for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                    found[f"{name}:{table}"] = [_hash(r) for r in db.execute(f"SELECT rowid, * FROM {table}")]
        elif path.suffix == ".parquet":
            found[name] = [_hash(tuple(r.values())) for r in pq.read_table(path, partitioning=None).to_pylist()]
        elif path.suffix == ".duckdb":
            with duckdb.connect(path, read_only=True) as club:
                for (table,) in club.execute("SELECT table_name FROM duckdb_tables()").fetchall():
                    rows = club.execute(f"FROM {table} ORDER BY rowid").fetchall()
                    found[f"{name}:{table}"] = [_hash(row) for row in rows]
        elif path.suffix in (".gz", ".zst"):
            found[name] = [_hash(json.loads(line)) for line in unpacked(path).splitlines()]
        elif path.suffix == ".csv":
            with path.open(newline="", encoding="utf-8") as lines:
                found[name] = [_hash(r) for r in csv.reader(lines)]
        elif path.suffix != ".db-shm" and path.stat().st_size:  # an empty WAL says nothing
            found[name] = ["left behind"]
    return found


_SAID = (
    "verdict", "method", "reason", "rows_found", "rows_erased", "rows_retained", "values_masked", "rows_shared",
    "rows_mentioned", "rows_residual", "hits_after", "ground", "until", "canary_found", "not_examinable",
)  # fmt: skip


def verdicts(arena: Arena) -> dict[str, Any]:
    """What the certificates say per person and collection."""
    told_by = erase.summary(arena.home, arena.batch)
    found: dict[str, Any] = {}
    for one in told_by["requests"]:
        found[one["request_id"]] = one["outcome"]
        for v in one["verdicts"]:
            if v["dataset"] == "fangxin":
                assert v["verdict"] == "NOT_PRESENT"  # how many files of ours there are hangs on how often it crashed
                continue
            found[f"{one['request_id']} {v['dataset']}/{v['collection']}"] = [v[name] for name in _SAID]
    return found


def opened(arena: Arena) -> Estate:
    """The arena's estate."""
    return open_estate(arena.home, arena.place / "estate" / "catalog" / "lecard.yml", NOW)


def keys(arena: Arena) -> dict[str, Any]:
    """How many keys live, and which protected values still open (as hashes, unit by unit)."""
    estate = opened(arena)
    found: dict[str, list[str]] = {}
    for store in estate.stores:
        for collection in store.collections:
            hidden = [f.name for f in collection.fields if f.mode is Mode.CRYPTO_ERASE]
            if not hidden:
                continue
            for _address, part in store.scan({collection.address: [f.name for f in collection.fields]}):
                for name in hidden:
                    values = open_rows(estate.tree, estate.catalog, collection, name, part.columns)
                    found[f"{part.unit} {name}"] = [_hash(v) for v in values.to_pylist()]
    return {"living": estate.tree.live(), "opened": found}


def ledger(arena: Arena) -> dict[str, Any]:
    """How often each kind of entry stands in the ledger, and the intents that nobody closed."""
    estate = opened(arena)
    entries = list(estate.ledger.entries())
    intents = {n for n, e in entries if e["type"] == "erase.intended"}
    closed = {e["intent"] for _n, e in entries if "intent" in e}
    return {
        "entries": dict(Counter(e["type"] for _n, e in entries if e["type"] != "code.loaded")),
        "open intents": sorted(intents - closed),
    }


def verified(arena: Arena) -> int:
    """The exit code of the verifier over the package, trusting the home's keys."""
    package = erase.summary(arena.home, arena.batch)["package"]
    return verify.exit_code(verify.verify(package, trust=arena.home / "keys"))


def fingerprint(place: Path) -> dict[str, str]:
    """Every file with its digest; locks and SQLite's own bookkeeping files are compared by what they hold."""
    found = {}
    for path in sorted(p for p in place.rglob("*") if p.is_file() or p.is_symlink()):
        name = path.relative_to(place).as_posix()
        if "/keys/leases/" in name:
            continue  # that a process had keys in memory, and until when: written by whoever reads
        if name.endswith(("-wal", "-shm")):
            with contextlib.suppress(FileNotFoundError):  # the last connection of this process went meanwhile
                if name.endswith("-wal") and path.stat().st_size:
                    found[name] = _digest(path)
        elif not path.is_symlink():
            found[name] = _digest(path)
        else:
            found[name] = str(path.readlink())
    return found


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """The files that differ."""
    return sorted(n for n in {*before, *after} if before.get(n) != after.get(n))


def differing(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """What differs between two outcomes, small enough to read."""
    found: dict[str, Any] = {}
    for part in one:
        if one[part] == other[part]:
            continue
        if not isinstance(one[part], dict):
            found[part] = (one[part], other[part])
            continue
        names = {n for n in {*one[part], *other[part]} if one[part].get(n) != other[part].get(n)}
        found[part] = {n: (_short(one[part].get(n)), _short(other[part].get(n))) for n in sorted(names)[:5]}
    return found


def _short(value: Any) -> Any:
    return f"{len(value)} rows" if isinstance(value, list) and len(value) > 20 else value


def _hash(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:12]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

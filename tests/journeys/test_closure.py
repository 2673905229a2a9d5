"""Who is found: all rows of a person and nobody else's, the same for every order of work."""

from __future__ import annotations

import csv
import io
import os
import random
import sqlite3
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
import yaml
from journeys.lecard import LeCard, Person, seed
from journeys.witness import Leaving, Needles, expected, read, same

from fangxin.data.catalog.identity import Answer, Closure, Question, closure
from fangxin.data.errors import NotAllowed
from fangxin.data.vocabulary import Cohort, Identity, Subject
from fangxin.flows.locate import Look

SEEDS = 20


def walk(lecard: LeCard, *subjects: Sequence[Identity], catalog: Path | None = None) -> Closure:
    estate = lecard.open(catalog)
    return closure(estate.catalog, _cohort(subjects), Look(estate))


def _cohort(subjects: Sequence[Sequence[Identity]]) -> Cohort:
    return Cohort(tuple(Subject(str(n), tuple(one)) for n, one in enumerate(subjects)))


def rows(found: Closure, subject: int = 0, edge: str = "owns") -> dict[str, int]:
    """How many rows of each collection were found for a subject."""
    traces = found.traces.to_pylist()
    return dict(Counter(t["collection"] for t in traces if t["subject"] == subject and t["edge"] == edge))


def truth(person: Person, edge: str = "owns") -> dict[str, int]:
    return {address: count for address, count in person[edge].items() if count}


@pytest.fixture(scope="module")
def person(pristine: LeCard) -> Person:
    """Two accounts with other phones and e-mails, tied by nothing but a device that both have bound."""
    return pristine.cast["two_accounts"]


@pytest.fixture(scope="module")
def found(pristine: LeCard, person: Person) -> Closure:
    return walk(pristine, seed(person))


# ---------------------------------------------------------------- the same answer, whatever the order of work


def test_the_person_with_two_accounts_is_found_whole_from_one_phone(pristine: LeCard, person: Person) -> None:
    found = walk(pristine, seed(person)[:1])
    assert rows(found) == truth(person)
    assert rows(found)["wallet/accounts"] == 2


@pytest.mark.parametrize("seeds", [2, pytest.param(SEEDS, marks=pytest.mark.drill)])
def test_the_answer_is_the_same_under_any_hash_seed(
    pristine: LeCard, person: Person, tmp_path: Path, seeds: int
) -> None:
    """Processes over a database, Parquet and CSV, each with its own seed of Python's hashes.

    Club and chats stay away, they lead nowhere else. This process, which reads everything, has a seed by chance.
    """
    lecard = pristine.short(tmp_path / "lecard")
    document = yaml.safe_load(lecard.catalog.read_text("utf-8"))
    document["dataset"] = [d for d in document["dataset"] if d["fides_key"] in ("wallet", "lake", "exports")]
    lecard.catalog.write_text(yaml.safe_dump(document, allow_unicode=True, sort_keys=False), "utf-8")
    found = walk(lecard, seed(person))
    assert rows(found)["wallet/accounts"] == 2
    look = textwrap.dedent(
        """
        import sys
        from datetime import UTC, datetime
        from pathlib import Path

        class NoPandas:  # nothing here needs it, and it takes longer than the walk
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] == "pandas":
                    raise ModuleNotFoundError(name)

        sys.meta_path.insert(0, NoPandas())
        from fangxin.data.catalog.identity import closure
        from fangxin.data.vocabulary import Cohort, Identity, Subject
        from fangxin.flows.estate import open_estate
        from fangxin.flows.locate import Look

        estate = open_estate(Path(sys.argv[1]), Path(sys.argv[2]), datetime.now(UTC))
        person = tuple(Identity(*one.split("=", 1)) for one in sys.stdin.read().split())
        found = closure(estate.catalog, Cohort((Subject("0", person),)), Look(estate))
        print(hash("a person"), found.digest, found.traces.num_rows)
        """
    )
    given = " ".join(f"{one.kind}={one.value}" for one in seed(person))
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}

    def answer(number: int) -> list[str]:
        environment = {**inherited, "PYTHONHASHSEED": str(number)}
        command = [sys.executable, "-c", look, str(lecard.home), str(lecard.catalog)]
        done = subprocess.run(command, input=given, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.split()

    with ThreadPoolExecutor(max_workers=2) as pool:
        answers = list(pool.map(answer, range(1, seeds + 1)))
    assert len({one[0] for one in answers}) == seeds  # the seeds took effect
    assert {(digest, int(count)) for _hash, digest, count in answers} == {(found.digest, found.traces.num_rows)}


@pytest.mark.parametrize("threads", [1, pytest.param(4, marks=pytest.mark.drill)])
def test_the_answer_is_the_same_for_any_number_of_threads(
    pristine: LeCard, person: Person, found: Closure, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = duckdb.connect
    monkeypatch.setattr(duckdb, "connect", lambda *given, **named: _Threads(connect(*given, **named), threads))
    before = pa.cpu_count()
    pa.set_cpu_count(threads)
    try:
        assert walk(pristine, seed(person)).digest == found.digest
    finally:
        pa.set_cpu_count(before)


class _Threads:
    """A connection that keeps to its own number of threads."""

    def __init__(self, db: duckdb.DuckDBPyConnection, threads: int) -> None:
        self.db, self.threads = db, threads

    def execute(self, sql: str, *given: object) -> duckdb.DuckDBPyConnection:
        wanted = f"SET threads={self.threads}" if sql.startswith("SET threads") else sql
        return self.db.execute(wanted, *given)

    def __getattr__(self, name: str) -> object:
        return getattr(self.db, name)


@pytest.mark.parametrize("shuffle", [1, pytest.param(2, marks=pytest.mark.drill)])
def test_the_answer_is_the_same_whatever_order_the_catalog_names_things_in(
    pristine: LeCard, person: Person, found: Closure, shuffle: int, tmp_path: Path
) -> None:
    document = yaml.safe_load(pristine.catalog.read_text("utf-8"))
    order = random.Random(shuffle)
    order.shuffle(document["dataset"])
    for dataset in document["dataset"]:
        order.shuffle(dataset["collections"])
        for collection in dataset["collections"]:
            order.shuffle(collection["fields"])
    document["root"] = str(pristine.stores)
    other = tmp_path / "shuffled.yml"
    other.write_text(yaml.safe_dump(document, allow_unicode=True, sort_keys=False), "utf-8")
    assert walk(pristine, seed(person), catalog=other).digest == found.digest


def test_the_answer_is_the_same_whatever_order_stores_answer_in(
    pristine: LeCard, person: Person, found: Closure
) -> None:
    estate = pristine.open()
    look, order = Look(estate), random.Random(5)

    def shuffled(question: Question) -> Iterator[Answer]:
        answers = list(look(question))
        order.shuffle(answers)
        for one in answers:
            hits, emitted = (_shuffled(t, order) for t in (one.hits, one.emitted))
            yield Answer(hits, emitted)

    assert closure(estate.catalog, _cohort([tuple(reversed(seed(person)))]), shuffled).digest == found.digest


def _shuffled(table: pa.Table, order: random.Random) -> pa.Table:
    return table.take(pa.array(order.sample(range(table.num_rows), table.num_rows), pa.int64()))


@pytest.fixture(scope="module")
def together(pristine: LeCard) -> Closure:
    return walk(pristine, *pristine.subjects())


def test_people_are_found_together_as_they_are_found_one_by_one(pristine: LeCard, together: Closure) -> None:
    for role in ("household", "mentioned"):
        person = pristine.cast[role]
        number, alone = pristine.leavers.index(person), walk(pristine, seed(person))
        for edge in ("owns", "shares", "mentions"):
            assert rows(together, number, edge) == rows(alone, 0, edge) == truth(person, edge)


# ---------------------------------------------------------------- how they were found


def test_every_row_says_by_which_path_it_was_reached_and_no_path_holds_a_value(together: Closure) -> None:
    paths = set(together.traces["via"].to_pylist())
    assert all(" > " in path for path in paths)
    assert {path.split(" > ")[0] for path in paths} <= {"phone_number (given)", "email (given)"}
    values = {value: "fact" for value in together.facts["value"].to_pylist() if len(value) > 5}
    assert list(Needles(values).within("\n".join(sorted(paths)).encode())) == []


def test_the_second_account_was_reached_through_the_device(found: Closure) -> None:
    paths = [t["via"] for t in found.traces.to_pylist() if t["collection"] == "wallet/accounts"]
    assert sum("device_id" in path for path in paths) == 1


def test_a_merged_account_is_found_with_the_one_it_points_to(pristine: LeCard) -> None:
    merged = pristine.cast["merged"]
    found = walk(pristine, seed(merged))
    assert rows(found) == truth(merged)
    assert any("merged_into" in path for path in found.traces["via"].to_pylist())
    older = (Identity("phone_number", f"+86{merged['phones'][1]}"),)
    assert rows(walk(pristine, older)) == truth(merged)  # and the other way round


def test_a_circle_of_three_tables_ends_and_is_found_from_either_account(pristine: LeCard) -> None:
    cycle = pristine.cast["cycle"]
    for phone in cycle["phones"]:
        found = walk(pristine, (Identity("phone_number", f"+86{phone}"),))
        assert rows(found) == truth(cycle)
        assert found.hops < 12
        assert found.halts == ()


# ---------------------------------------------------------------- rows of several people


def test_an_address_that_somebody_else_lives_at_is_listed_with_their_number_and_stays(pristine: LeCard) -> None:
    found = walk(pristine, seed(pristine.cast["household"]))
    (shared,) = found.shared
    assert (shared.collection, shared.rows, shared.others) == ("wallet/addresses", 1, 1)
    assert rows(found, edge="shares") == {"wallet/addresses": 1}
    assert "wallet/addresses" not in rows(found)


def test_an_address_goes_with_the_last_who_live_there(pristine: LeCard) -> None:
    roles = ("household", "housemate")
    found = walk(pristine, *(seed(pristine.cast[role]) for role in roles))
    assert found.shared == ()
    assert [rows(found, n)["wallet/addresses"] for n in range(len(roles))] == [1, 1]


# ---------------------------------------------------------------- where a person has to look


@pytest.fixture
def reused(lecard: LeCard) -> LeCard:
    return _reused(lecard)


def _reused(lecard: LeCard) -> LeCard:
    """The member list still has the leaver's old phone; today it is a stranger's."""
    (leaver,), stranger = lecard.cast["nothing"]["accounts"], lecard.cast["mentioned"]
    members = lecard.stores / "exports" / "members.csv"
    listed = list(csv.reader(io.StringIO(members.read_text("utf-8"))))
    changed = [[line[0], stranger["phones"][0], *line[2:]] if line[0] == str(leaver) else line for line in listed]
    members.write_text("".join(",".join(line) + "\n" for line in changed), "utf-8")
    return lecard


def test_a_number_that_is_somebody_elses_by_now_stops_the_run_and_nothing_is_touched(reused: LeCard) -> None:
    leaver, before = reused.cast["nothing"], read(reused.stores)
    found = walk(reused, seed(leaver))
    assert [(halt.guard, halt.collection) for halt in found.halts] == [("merge", "wallet/accounts")]
    with pytest.raises(NotAllowed, match="a person to look") as refused:
        reused.erase([seed(leaver)])
    assert refused.value.exit_code == 4
    assert same(before, read(reused.stores)) == {}
    assert reused.open().requests.unfinished() == ()


@pytest.mark.drill
def test_where_the_catalog_keeps_such_people_apart_the_leaver_goes_and_the_other_stays_whole(
    pristine: LeCard, tmp_path: Path
) -> None:
    """Also in member lists and audiences, which know the other by nothing but that number."""
    reused = _reused(pristine.copy(tmp_path / "lecard"))
    text = reused.catalog.read_text("utf-8")
    reused.catalog.write_text(text.replace("guards: {", "guards: {merge: apart, "), "utf-8")
    leaver, before = reused.cast["nothing"], read(reused.stores)
    found = walk(reused, seed(leaver))
    assert found.halts == ()
    assert rows(found) == truth(leaver)
    reused.erase([seed(leaver)])
    assert same(expected(before, Leaving.of([leaver])).after, read(reused.stores)) == {}


def test_values_that_name_nobody_lead_to_nobody(pristine: LeCard, tmp_path: Path) -> None:
    """Placeholders that a hundred rows have in common, and our own masks."""
    lecard = pristine.copy(tmp_path / "lecard")
    leaver = lecard.cast["nothing"]
    (account,) = leaver["accounts"]
    with closing(sqlite3.connect(lecard.stores / "wallet.db")) as db, db:
        others = "account_id IN (SELECT account_id FROM accounts WHERE account_id <> ? LIMIT 100)"
        db.execute(
            f"UPDATE accounts SET email = 'noreply@lecard.example' WHERE account_id = ? OR {others}", [account] * 2
        )
        db.execute(f"UPDATE OR IGNORE devices SET device_id = '0' WHERE account_id = ? OR {others}", [account] * 2)
    found = walk(lecard, seed(leaver)[:1])
    assert found.stopped > 0
    assert found.halts == ()
    assert {k: n for k, n in rows(found).items() if k != "wallet/devices"} == {
        k: n for k, n in truth(leaver).items() if k != "wallet/devices"
    }
    assert rows(walk(lecard, (Identity("email", "noreply@lecard.example"),))) == {}

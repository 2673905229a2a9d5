"""A house so small that every row can be counted by hand: a database, a folder of CSV, a home."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from journeys.paper import on_request

from fangxin.checks import verify
from fangxin.data.vocabulary import Identity
from fangxin.flows import batch as batches
from fangxin.flows import erase
from fangxin.flows.estate import make_home, open_estate

NOW = datetime(2026, 11, 24, 1, 0, tzinfo=UTC)
THEIRS = "13900000005"
DATABASE = """root: ../stores
dataset:
  - fides_key: w
    name: w
    erasure: {store: {kind: sqlite, url: w/w.db}, mode: delete, copies: []}
    collections:
      - name: accounts
        erasure: {person: true}
        fields:
          - {name: id, data_categories: [user.unique_id], fides_meta: {primary_key: true, data_type: integer}}
          - {name: phone, data_categories: [user.contact.phone_number], fides_meta: {identity: phone_number}}
          - {name: name, data_categories: [user.name]}
"""
TEXT = """  - fides_key: t
    name: t
    erasure: {store: {kind: text, url: t/}, mode: delete, copies: []}
    collections:
      - name: members
        erasure: {store: {glob: "m*.csv"}}
        fields:
          - {name: who}
          - name: phone
            data_categories: [user.contact.phone_number]
            fides_meta: {identity: phone_number}
"""


@dataclass(frozen=True)
class House:
    """A database and a folder of CSV; no value lies under keys."""

    root: Path

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def catalog(self) -> Path:
        return self.root / "catalog" / "c.yml"

    def begin(self, *phones: str, **options: str) -> str:
        """Open a batch of these people; of one where nobody is named."""
        estate = open_estate(self.home, self.catalog.parent, NOW)
        asked = {"approved": True, "now": NOW.isoformat(), **options}
        people = [[Identity("phone_number", phone)] for phone in phones or (THEIRS,)]
        return erase.open_batch(estate, people, options=asked)

    def until(self, step: batches.Step, batch: str) -> None:
        for one in erase.STEPS[: erase.STEPS.index(step)]:
            erase.run_step(one, batch)

    def verified(self, batch: str) -> int:
        package = erase.summary(self.home, batch)["package"]
        return verify.exit_code(verify.verify(Path(package), trust=self.home / "keys"))

    def entries(self) -> list[str]:
        return [str(e["type"]) for _n, e in open_estate(self.home, self.catalog.parent, NOW).ledger.entries()]


def build(tmp_path: Path) -> House:
    """The house with 39 people in both stores; no value lies under keys."""
    made = House(tmp_path)
    for folder in ("stores/w", "stores/t", "catalog"):
        (tmp_path / folder).mkdir(parents=True)
    with closing(sqlite3.connect(tmp_path / "stores/w/w.db")) as db, db:
        db.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, phone TEXT, name TEXT)")
        db.executemany("INSERT INTO accounts VALUES (?, ?, ?)", [(i, f"139{i:08d}", f"n{i}") for i in range(1, 40)])
    rows = "".join(f"x{i},139{i:08d}\n" for i in range(1, 40))
    (tmp_path / "stores/t/m.csv").write_text("who,phone\n" + rows)
    made.catalog.write_text(DATABASE + TEXT)
    make_home(made.home, rehearsal=True, origin="house.example/erasure", now=NOW, capacity=500)
    on_request(made.home)
    return made

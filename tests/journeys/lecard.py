"""A LeCard estate with its home: made once, copied for whoever changes it, erased from in this process."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from journeys.paper import on_request

from fangxin.data.catalog.kinds import canonical
from fangxin.data.sample.lecard import sample
from fangxin.data.vocabulary import Identity
from fangxin.flows.estate import Estate, make_home, open_estate
from fangxin.flows.protect import protect

NOW = datetime(2026, 11, 24, 1, 0, tzinfo=UTC)
PEOPLE, SEED = 200, 7  # ten leavers: the cast without the housemate, and four others
ORIGIN = "ledger.example/erasure/2026"

Person = dict[str, Any]  # Any: a portrait of cast.json


@dataclass(frozen=True)
class LeCard:
    """A LeCard estate with a home beside it; everything lies under `root`."""

    root: Path

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def stores(self) -> Path:
        return self.root / "estate" / "stores"

    @property
    def clear(self) -> Path:
        """The stores as they were before anything was protected: the witness's truth."""
        return self.root / "clear"

    @property
    def catalog(self) -> Path:
        return self.root / "estate" / "catalog" / "lecard.yml"

    @cached_property
    def truth(self) -> dict[str, Any]:  # Any: cast.json
        found: dict[str, Any] = json.loads((self.root / "estate" / "cast.json").read_text())
        return found

    @property
    def leavers(self) -> list[Person]:
        """What the generator knows of the leavers, in the order of the file."""
        return list(self.truth["leavers"])

    @property
    def cast(self) -> dict[str, Person]:
        return dict(self.truth["cast"])

    def subjects(self) -> list[tuple[Identity, ...]]:
        """The leavers as the subjects file names them."""
        with (self.root / "estate" / "leavers.csv").open(encoding="utf-8") as lines:
            return [tuple(Identity(k, canonical(k, v)) for k, v in row.items()) for row in csv.DictReader(lines)]

    def open(self, catalog: Path | None = None) -> Estate:
        return open_estate(self.home, catalog or self.catalog, NOW)

    def erase(self, subjects: Sequence[Sequence[Identity]], **options: Any) -> str:  # Any: options of a batch
        """Run the whole journey of these subjects in this process; return the batch id."""
        from fangxin.flows.erase import journey

        batch = self.begin(subjects, **options)
        journey(batch, home=self.home)
        return batch

    def begin(
        self,
        subjects: Sequence[Sequence[Identity]],
        catalog: Path | None = None,
        **options: Any,  # Any: as above
    ) -> str:
        """Open a batch and do nothing yet; the steps find the home through the environment."""
        from fangxin.flows.erase import open_batch

        os.environ["FANGXIN_HOME"] = str(self.home)
        return open_batch(self.open(catalog), subjects, options={"approved": True, "now": NOW.isoformat(), **options})

    def copy(self, to: Path) -> LeCard:
        """The same files with the same times, elsewhere."""
        shutil.copytree(self.root, to, symlinks=True)
        return LeCard(to)

    def short(self, to: Path) -> LeCard:
        """A copy with the trades, events and chats of four months: every kind of store, few files."""
        lecard = self.copy(to)
        for unit in (*lecard.stores.glob("lake/*/month=*"), *lecard.stores.glob("support/*")):
            if not any(month in unit.name for month in ("2023-07", "2026-08", "2026-09", "2026-10")):
                shutil.rmtree(unit) if unit.is_dir() else unit.unlink()
        return lecard


def seed(person: Person) -> tuple[Identity, ...]:
    """A portrait's phone and e-mail, as a subject."""
    return tuple(Identity(k, canonical(k, person[k])) for k in ("phone_number", "email"))


def make(root: Path) -> LeCard:
    """Write the estate and its home under `root`, and put what is sensitive under keys."""
    made = sample(root / "estate", people=PEOPLE, seed=SEED)
    shutil.copytree(made.stores, root / "clear")
    make_home(root / "home", rehearsal=True, origin=ORIGIN, now=NOW, capacity=5_000)
    on_request(root / "home")
    found = LeCard(root)
    protect(found.open())
    return found

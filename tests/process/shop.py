"""A small shop whose people can be closed: a wallet with cards under keys, balances and coupons, a home, officers."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from journeys.paper import on_request

from fangxin.flows.cli.main import main
from fangxin.flows.estate import make_home, open_estate
from fangxin.flows.protect import protect

NOW = datetime(2026, 11, 24, 1, tzinfo=UTC)  # 09:00 in Shanghai, a Tuesday
PEOPLE = 30
CATALOG = """root: ../stores
dataset:
  - fides_key: wallet
    name: wallet
    erasure: {store: {kind: sqlite, url: wallet.db}, mode: delete, copies: []}
    collections:
      - name: accounts
        erasure: {person: true}
        fields:
          - {name: id, data_categories: [user.unique_id], fides_meta: {primary_key: true, data_type: integer}}
          - {name: phone, data_categories: [user.contact.phone_number], fides_meta: {identity: phone_number}}
          - {name: balance, data_categories: [user.financial], fides_meta: {data_type: integer}}
          - name: card
            data_categories: [user.financial.bank_account]
            fides_meta: {identity: bank_card}
            erasure: {sensitive: true, mode: crypto-erase, key_domain: kyc}
      - name: coupons
        fields:
          - {name: coupon, fides_meta: {primary_key: true, data_type: integer}}
          - name: account
            data_categories: [user.unique_id]
            fides_meta: {data_type: integer, references: [{dataset: wallet, field: accounts.id, direction: from}]}
          - {name: kind}
          - {name: face, fides_meta: {data_type: integer}}
          - {name: expires}
"""
HOLDINGS = """[[source]]
collection = "wallet/accounts"
kind = "balance"
amount = "balance"
currency = "CNY"

[[source]]
collection = "wallet/coupons"
column = "kind"
kinds = { coffee = "coupon" }
amount = "face"
currency = "CNY"
expires = "expires"
transferable = true
cash_rate = "1/10"
source = "terms"
"""


@dataclass
class Shop:
    """The shop under `root`; `now` is the rehearsal's clock."""

    root: Path
    now: datetime = NOW
    said: str = field(default="")

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def wallet(self) -> Path:
        return self.root / "stores" / "wallet.db"

    def copy(self, to: Path) -> Shop:
        shutil.copytree(self.root, to, symlinks=True)
        return Shop(to)

    def file(self, name: str) -> str:
        return str(self.root / name)

    def phone(self, number: int) -> str:
        path = self.root / f"phone-{number}"
        path.write_text(f"139{number:08d}\n", "utf-8")
        return f"phone_number=@{path}"

    def run(self, *argv: str) -> tuple[int, dict[str, Any]]:  # Any: JSON
        """Run a command of this home at the present time."""
        out, err = io.StringIO(), io.StringIO()
        timed = ["--now", self.now.isoformat(), "--catalog", self.file("catalog")]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([*argv, "--home", str(self.home), "--json", *timed])
        self.said = err.getvalue()
        return code, json.loads(out.getvalue() or "{}")

    def plain(self, *argv: str) -> int:
        """A command that knows no catalog and no time."""
        with contextlib.redirect_stdout(io.StringIO()):
            return main([*argv, "--home", str(self.home), "--json"])

    def ask(self, *argv: str) -> dict[str, Any]:  # Any: JSON
        code, document = self.run(*argv)
        assert code == 0, (argv, code, self.said)
        return document

    def sign(self, paper: str, *officers: str) -> None:
        for name in officers:
            argv = ["keys", "approve", self.file(paper), "--officer", name, "--key", self.file(f"keys/{name}.key")]
            (self.root / f"{name}.json").unlink(missing_ok=True)
            timed = ["--now", self.now.isoformat(), "--home", str(self.home)]
            assert main([*argv, "--out", self.file(f"{name}.json"), "--json", *timed]) == 0

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:  # Any: what SQLite returns
        with closing(sqlite3.connect(self.wallet)) as db:
            return {name: db.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall() for name in ("accounts", "coupons")}


def make(root: Path, *, number: int = PEOPLE, now: datetime = NOW) -> Shop:
    """The shop with so many people, two officers who sign and three who answer."""
    for folder in ("stores", "catalog", "keys", "answering"):
        (root / folder).mkdir(parents=True)
    with closing(sqlite3.connect(root / "stores" / "wallet.db")) as db, db:
        db.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, phone TEXT, balance INTEGER, card TEXT)")
        db.execute(
            "CREATE TABLE coupons (coupon INTEGER PRIMARY KEY, account INTEGER, kind TEXT, face INTEGER, expires TEXT)"
        )
        people = [
            (i, f"139{i:08d}", 3650, f"62220212345678{i:04d}" if number < 10_000 else f"622202123456{i:06d}")
            for i in range(1, number + 1)
        ]
        db.executemany("INSERT INTO accounts VALUES (?, ?, ?, ?)", people)
        coupons = [(7_000 + i, i, "coffee", 1000, "2027-06-01") for i in range(1, number + 1)]
        db.executemany("INSERT INTO coupons VALUES (?, ?, ?, ?, ?)", coupons)
    (root / "catalog" / "c.yml").write_text(CATALOG, "utf-8")
    made = Shop(root, now)
    make_home(made.home, rehearsal=True, origin="shop.example/erasure", now=now, capacity=max(500, 5 * number))
    on_request(made.home)
    (made.home / "holdings.toml").write_text(HOLDINGS, "utf-8")
    protect(open_estate(made.home, root / "catalog", now))
    home = ["--home", str(made.home), "--json"]
    with contextlib.redirect_stdout(io.StringIO()):
        for name in ("dpo_1", "dpo_2"):
            assert main(["keys", "officer", name, "--out", made.file("keys"), *home]) == 0
            assert main(["keys", "officers", "--add", made.file(f"keys/{name}.pub"), *home]) in (0, 4)
        for name in ("ans_1", "ans_2", "ans_3"):
            assert main(["keys", "answerer", name, "--out", made.file("answering"), *home]) == 0
            assert main(["keys", "answerers", "--add", made.file(f"answering/{name}.pub"), *home]) == 0
    return made

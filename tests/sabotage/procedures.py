"""What is left out, done wrong or switched off, and by what it has to be noticed: the list grows with each store.

* LEFT_OUT: a step of a procedure, by the seam in data/steps.py, which writes its normal record of success.
* BY_HAND: what a defect would leave, done to an estate that was erased well, because no step of ours makes it.
* BLIND: the scanner with a part switched off; its control stops the baseline.
* UNSEEN: what no reading of files can notice. Listed apart, each with the test that shows it on a device.

Catchers: `scan` hits in bytes, `rows` rows located again, `inventory` inodes, `keys` a key or an old vault that opens,
`outside` a place that no collection names, `control` the scanner's own control.
"""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import pytest
from sabotage.estate import LEAVER, Estate, phone, write_parquet

from fangxin.checks.residue import scan
from fangxin.checks.residue.patterns import Hits, Needles
from fangxin.checks.residue.views import NAMES
from fangxin.data.columnar.footer import InMemory, open_footer

LEFT_OUT: dict[tuple[str, str], str] = {  # (step, store or "") -> who must notice
    ("old file: hold", "sqlite:w"): "inventory",
    ("old file: hold", "parquet"): "inventory",
    ("old file: hold", "text"): "inventory",
    ("old file: hold", "duckdb"): "inventory",
    ("old file: destroy", "sqlite:w"): "scan",
    ("old file: destroy", "parquet"): "scan",
    ("old file: destroy", "text"): "scan",
    ("old file: destroy", "duckdb"): "inventory",
    ("journal: destroy", "sqlite:w"): "scan",
    ("working copy: destroy", "sqlite:w"): "inventory",
    ("unit: rewrite", "sqlite:w"): "scan",
    ("unit: rewrite", "parquet"): "scan",
    ("unit: rewrite", "text"): "scan",
    ("unit: rewrite", "duckdb"): "rows",
    ("sqlite: WAL", "sqlite:v"): "inventory",
    ("sqlite: rows", "sqlite:w"): "rows",
    ("sqlite: values", "sqlite:w"): "scan",
    ("sqlite: free pages", "sqlite:w"): "scan",
    ("sqlite: indexes", "sqlite:w"): "scan",
    ("duckdb: rows", "duckdb"): "rows",
    ("parquet: row group", "parquet"): "rows",
    ("parquet: dictionaries", "parquet"): "scan",
    ("parquet: key-values", "parquet"): "scan",
    ("text: records", "text"): "rows",
    ("keys: one domain", "vault"): "keys",
}


def an_inherited_statistic(mine: Estate, before: Estate) -> None:
    """The largest phone in a Parquet footer is the leaver's, though no row has it."""
    for path in (mine.stores / "l").rglob("*.parquet"):
        if "canary" in path.name or "planted" in path.name:
            continue
        import pyarrow.parquet as pq

        body = path.read_bytes()
        told = pq.ParquetFile(path).metadata.row_group(0).column(0).statistics.max.encode()
        at = body.rindex(told)
        path.write_bytes(body[:at] + phone(LEAVER).encode() + body[at + len(told) :])


def an_old_filter(mine: Estate, before: Estate) -> None:
    """Over the rows of the survivors lie the bloom filters from before; no page and no footer holds the leaver."""
    import pyarrow.parquet as pq

    path, old = mine.stores / "l/p=1/a.parquet", (before.stores / "l/p=1/a.parquet").read_bytes()
    write_parquet(pq.read_table(path, partitioning=None), path)
    body = bytearray(path.read_bytes())
    for new, was in zip(*(open_footer(InMemory(bytes(b))).chunks for b in (body, old)), strict=True):
        if new.bloom is not None and was.bloom is not None:
            assert new.bloom.length == was.bloom.length
            body[new.bloom.offset : new.bloom.end] = old[was.bloom.offset : was.bloom.end]
    path.write_bytes(body)


def an_old_partition(mine: Estate, before: Estate) -> None:
    """One of two partitions is the file from before again."""
    shutil.copy(before.stores / "l/p=2/a.parquet", mine.stores / "l/p=2/a.parquet")


def a_gzip_member(mine: Estate, before: Estate) -> None:
    """Behind the new member stands the second one of the old file."""
    old = (before.stores / "t/chats.jsonl.gz").read_bytes()
    second = old.index(gzip.compress(b"")[:4], 4)
    with (mine.stores / "t/chats.jsonl.gz").open("ab") as out:
        out.write(old[second:])


def a_replica(mine: Estate, before: Estate) -> None:
    """A copy of the database from before lies beside it."""
    shutil.copy(before.stores / "w/w.db", mine.stores / "w/w.db.replica")


def a_partition_of_neighbours(mine: Estate, before: Estate) -> None:
    """A working copy without the leaver, which holds everybody else, was not destroyed."""
    shutil.copy(mine.stores / "t/members.csv", mine.stores / "t/.fangxin-0123456789ab")


def a_spill(mine: Estate, before: Estate) -> None:
    """What an engine spilled while it sorted stands beside the database; numbers are reversed there."""
    folder = mine.stores / "d/d.duckdb.tmp"
    folder.mkdir()
    (folder / "duckdb_temp_storage-0.tmp").write_bytes(bytes(512) + phone(LEAVER).encode()[::-1] + bytes(512))


def a_log_line(mine: Estate, before: Estate) -> None:
    """A program of ours logged a value."""
    (mine.home / "erase.log").write_text(f"cannot write to {phone(LEAVER)}\n")


def a_result_of_prefect(mine: Estate, before: Estate) -> None:
    """A task's result was persisted: base64 in JSON, as Prefect stores one."""
    import base64

    folder = mine.home / "prefect/storage"
    folder.mkdir(parents=True)
    body = base64.b64encode(f"rows of {phone(LEAVER)}".encode()).decode()
    (folder / "0f3a").write_text(f'{{"result": "{body}"}}')


def a_vault_put_back(mine: Estate, before: Estate) -> None:
    """Pages and root of the vault are those from before the destruction: the root was not replaced."""
    shutil.rmtree(mine.home / "keys")
    shutil.copytree(before.home / "keys", mine.home / "keys")


BY_HAND: dict[Callable[[Estate, Estate], None], str] = {
    an_inherited_statistic: "scan",
    an_old_filter: "scan",
    an_old_partition: "rows",
    a_gzip_member: "scan",
    a_replica: "outside",
    a_partition_of_neighbours: "inventory",
    a_spill: "inventory",
    a_log_line: "scan",
    a_result_of_prefect: "scan",
    a_vault_put_back: "keys",
}


@contextmanager
def without_form(name: str) -> Iterator[None]:
    """Needles of a form are built and never found."""
    find = Needles.find

    def blind(self: Needles, data: bytes | memoryview, **how: bool) -> Hits:
        hits = find(self, data, **how)
        keep = [
            name not in NAMES[view] and not any(name in one.form for one in self.of(number))
            for number, view in zip(hits.needle.tolist(), hits.view.tolist(), strict=True)
        ]
        return Hits(*(getattr(hits, one.name)[keep] for one in fields(Hits)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Needles, "find", blind)
        yield


@contextmanager
def without_container(name: str) -> Iterator[None]:
    """What lies in a container is passed over."""
    carve = scan.carve

    def blind(*given: object, **how: object) -> Iterator[object]:
        yield from (p for p in carve(*given, **how) if name not in p.container)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "carve", blind)
        yield


@contextmanager
def without_overlap() -> Iterator[None]:
    """Pieces of a file do not overlap."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Needles, "margin", property(lambda self: 0))
        yield


@contextmanager
def without_our_home() -> Iterator[None]:
    """The walk leaves the papers out."""
    from fangxin.flows import sight

    walk = sight.walk

    def blind(roots: list[Path]) -> list[tuple[str, Path]]:
        return [pair for pair in walk(roots) if "/reports/" not in pair[0]]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sight, "walk", blind)
        yield


BLIND: dict[str, Callable[[], object]] = {
    **{f"form {n}": lambda n=n: without_form(n) for n in (
        "utf-16-le", "base64", "hex", "percent", "backslash", "int64 le", "3-4-4",
    )},
    **{f"container {n}": lambda n=n: without_container(n) for n in (
        "gzip", "bz2", "xz", "zip", "parquet", "parquet:dictionary", "sqlite",
    )},
    "overlap of pieces": without_overlap,
    "a folder of our own home": without_our_home,
}  # fmt: skip

UNSEEN = {
    "old file: overwrite": "unlinked with its bytes: the device alone shows it (tests/medium/loop_drill.py, root)",
    "fsync": "written, and lost with the power: tests/medium/test_power_cut.py leaves each one out",
    "read-back": "what was written is compared by the step itself; a device that lies to it lies to us",
}

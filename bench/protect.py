"""What values under keys cost, beside the obvious loop over them and beside gdpr-officer from PyPI.

    make bench CASE=protect            (or: python bench/protect.py --rows 50000)

*Columns*: phone numbers, ID numbers and bank cards, keys at hand: `protect_column` and `open_column` (ChaCha20-Poly1305
in lanes) against a plain Python loop with AES-256-GCM of `cryptography`, Arrow in, Arrow out, once without and once
with the binding to a row's primary key. *End to end*: three columns of a collection, owners looked up in a vault,
against the same look-up with the plain loop, and against gdpr-officer, whose keys exist already, as ours do. CPU time
of one process, medians of interleaved rounds. gdpr-officer is put in a throw-away folder and runs on the same
libraries; without a package index its bars are left out.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

sys.path.insert(0, str(Path(__file__).parent))
from _rounds import Bar, Row, publish, ratio, take_turns

from fangxin.data.keys.columns import open_all, protect_rows
from fangxin.data.keys.envelope import Place, open_column, protect_column, refs_of
from fangxin.data.keys.material import Keys
from fangxin.data.keys.suites import AES, CHACHA
from fangxin.data.keys.tree import KeyTree
from fangxin.data.vocabulary import Catalog, Collection, Dataset, Field, Mode, StoreAddress

PEER = "gdpr-officer==0.4.0"
PEER_ROWS = 5_000  # it takes a hundred times as long
KIND = "ref:bench/people.id"
NAMES = ("phone", "id_number", "bank_card")


def columns(rows: int) -> dict[str, pa.Array]:
    """Made-up phone numbers (11), ID numbers (18) and bank cards (16 to 19 digits)."""
    chance = np.random.default_rng(7)
    digits = chance.integers(0, 10**9, rows)
    return {
        "phone": pa.array([f"13{n:09d}" for n in digits.tolist()]),
        "id_number": pa.array([f"110101199{n:09d}" for n in digits[::-1].tolist()]),
        "bank_card": pa.array([f"6222021{n:012d}"[: 16 + n % 4] for n in digits.tolist()]),
    }


# ------------------------------------------------------------ the obvious loop


def loop_protect(values: pa.Array, keys: np.ndarray, field: bytes, rows: list[str] | None) -> pa.Array:
    """One AESGCM, one nonce and one list entry a value."""
    made = []
    for i, value in enumerate(values.to_pylist()):
        aad = field if rows is None else field + hashlib.blake2b(rows[i].encode(), digest_size=16, key=field).digest()
        nonce = os.urandom(12)
        made.append(b"\x01" + nonce + AESGCM(keys[i].tobytes()).encrypt(nonce, value.encode(), aad))
    return pa.array(made, pa.large_binary())


def loop_open(values: pa.Array, keys: np.ndarray, field: bytes, rows: list[str] | None) -> pa.Array:
    """And back."""
    made = []
    for i, body in enumerate(values.to_pylist()):
        aad = field if rows is None else field + hashlib.blake2b(rows[i].encode(), digest_size=16, key=field).digest()
        made.append(AESGCM(keys[i].tobytes()).decrypt(body[1:13], body[13:], aad).decode())
    return pa.array(made, pa.string())


# ------------------------------------------------------------ columns


def compare_columns(count: int, rounds: int) -> tuple[list[Row], dict[str, float], list[Bar]]:
    """Every column, protected and opened, with and without row ids."""
    raw = np.frombuffer(os.urandom(32 * count), np.uint8).reshape(count, 32)
    keys = Keys(raw, np.ones(count, np.bool_))
    place, ids = Place(bytes(16), 1, "bench", "people", "phone"), [str(i) for i in range(count)]
    rows: list[Row] = []
    ratios: dict[str, float] = {}
    for name, values in columns(count).items():
        for bound in (None, ids):
            label = name + (", bound to rows" if bound else "")
            made = protect_column(values, keys, place, bound, suite=CHACHA)
            plain = loop_protect(values, raw, place.id(AES), bound)
            assert open_column(made, keys, place, bound, pa.string()).values.equals(values)
            assert open_column(plain, keys, place, bound, pa.string()).values.equals(values)  # same format, other suite
            found = take_turns(
                {
                    f"protect {label}: loop": lambda v=values, b=bound: loop_protect(v, raw, place.id(AES), b),
                    f"protect {label}: ours": lambda v=values, b=bound: protect_column(v, keys, place, b, suite=CHACHA),
                    f"open {label}: loop": lambda v=plain, b=bound: loop_open(v, raw, place.id(AES), b),
                    f"open {label}: ours": lambda v=made, b=bound: open_column(v, keys, place, b, pa.string()),
                },
                rounds=rounds,
            )
            for what in ("protect", "open"):
                one = f"{what} {label}"
                ratios[f"{one}: loop/ours cpu"] = ratio(found[f"{one}: loop"], found[f"{one}: ours"])
            rows += found.values()
            for row in found.values():
                tell(row, count)
    bars = [Bar(name, value, ">=", 2.2) for name, value in ratios.items() if "bound" not in name]
    return rows, ratios, bars


# ------------------------------------------------------------ end to end


def compare_end_to_end(
    count: int, people: int, rounds: int, folder: Path
) -> tuple[list[Row], dict[str, float], list[Bar]]:
    """Three columns of a collection with the key look-up, as `fangxin protect` and an export do it."""
    owners = np.random.default_rng(3).integers(0, people, count)
    data = {"owner": pa.array([f"A{i}" for i in owners.tolist()]), "id": pa.array(range(count)), **columns(count)}
    batch = pa.RecordBatch.from_pydict(data)
    rows: list[Row] = []
    ratios: dict[str, float] = {}
    bars: list[Bar] = []
    with KeyTree.create(folder / "vault", capacity=people) as tree:
        tree.create_keys(refs_of(KIND, [f"A{i}" for i in range(people)]), [1])
        for bound in (False, True):
            catalog, collection = declared(primary_key=bound)
            label = "3 columns with look-up" + (", bound to rows" if bound else "")
            sealed = protect_rows(tree, catalog, collection, NAMES, batch)
            whole = with_columns(batch, sealed)
            plain = with_columns(batch, loop_rows(tree, batch, bound))
            found = take_turns(
                {
                    f"protect {label}: loop": lambda b=bound: loop_rows(tree, batch, b),
                    f"protect {label}: ours": lambda c=catalog, o=collection: protect_rows(tree, c, o, NAMES, batch),
                    f"open {label}: loop": lambda p=plain, b=bound: loop_open_rows(tree, p, b),
                    f"open {label}: ours": lambda c=catalog, o=collection, w=whole: open_all(tree, c, o, NAMES, w),
                },
                rounds=rounds,
            )
            for what in ("protect", "open"):
                name = f"{what} {label}"
                ours = found[f"{name}: ours"]
                times, speed = ratio(found[f"{name}: loop"], ours), 3 * count / ours.cpu_s / 1e6
                ratios |= {f"{name}: loop/ours cpu": times, f"{name}: M values/s/core": speed}
                bars.append(Bar(f"{name}: loop/ours cpu", times, ">=", 1.3))
                if not bound:
                    bars.append(Bar(f"{name}: M values/s/core", speed, ">=", 0.7))
            rows += found.values()
            for one in found.values():
                tell(one, 3 * count)
    return rows, ratios, bars


def declared(*, primary_key: bool) -> tuple[Catalog, Collection]:
    """A catalog with one collection whose rows belong to people."""
    fields = (
        Field("owner", matches=(KIND,)),
        Field("id", data_type="integer", primary_key=primary_key),
        *(Field(name, mode=Mode.CRYPTO_ERASE, key_domain="general") for name in NAMES),
    )
    one = Collection("bench", "people", fields, StoreAddress("parquet", "people"))
    return Catalog((Dataset("bench", "bench", (one,)),), Path(), "", KIND), one


def loop_rows(tree: KeyTree, batch: pa.RecordBatch, bound: bool) -> pa.RecordBatch:
    """The same look-up, then the obvious loop for each column."""
    keys, ids = looked_up(tree, batch), batch.column("id").cast(pa.string()).to_pylist() if bound else None
    made = [loop_protect(batch.column(name), keys, field(tree, name), ids) for name in NAMES]
    return pa.RecordBatch.from_arrays(made, names=list(NAMES))


def loop_open_rows(tree: KeyTree, batch: pa.RecordBatch, bound: bool) -> list[pa.Array]:
    """And back."""
    keys, ids = looked_up(tree, batch), batch.column("id").cast(pa.string()).to_pylist() if bound else None
    return [loop_open(batch.column(name), keys, field(tree, name), ids) for name in NAMES]


def looked_up(tree: KeyTree, batch: pa.RecordBatch) -> np.ndarray:
    """The key of every row: each owner's fetched once."""
    column = batch.column("owner").dictionary_encode()
    refs = refs_of(KIND, column.dictionary.to_pylist())
    return tree.get_many(refs, 1).raw[column.indices.to_numpy()]


def field(tree: KeyTree, name: str) -> bytes:
    """The field id of the loop's suite."""
    return Place(tree.vault_id, 1, "bench", "people", name).id(AES)


def with_columns(batch: pa.RecordBatch, sealed: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with its columns under keys."""
    for name in sealed.schema.names:
        batch = batch.set_column(batch.schema.get_field_index(name), name, sealed.column(name))
    return batch


# ------------------------------------------------------------ gdpr-officer


PEER_SCRIPT = """
import statistics, sys, time
import pandas
from gdpr_officer import PiiEncryptor
rows, rounds, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
frame = pandas.DataFrame({"owner": [f"A{i}" for i in range(rows)], "phone": [f"13{i:09d}" for i in range(rows)],
    "id_number": [f"110101199{i:09d}" for i in range(rows)], "bank_card": [f"6222021{i:012d}" for i in range(rows)]})
pii = ["phone", "id_number", "bank_card"]
officer = PiiEncryptor(key_backend="local", key_backend_config={"db_path": store})
def took(work):
    found = []
    for _ in range(rounds):
        start = time.process_time(); work(); found.append(time.process_time() - start)
    return statistics.median(found)
sealed = officer.encrypt_df(frame.copy(), customer_id="owner", pii=pii)  # makes the keys
print(took(lambda: officer.encrypt_df(frame.copy(), customer_id="owner", pii=pii)))
print(took(lambda: officer.decrypt_df(sealed.copy(), customer_id="owner", pii=pii)))
"""


def peer(folder: Path, rounds: int) -> list[Row]:
    """Its CPU time for PEER_ROWS rows of three columns; nothing where it cannot be had."""
    into = folder / "peer"
    uv = Path(sys.executable).parent / "uv"
    install = [str(uv), "pip", "install", "-q", "--no-deps", "--target", str(into), PEER]
    if subprocess.run(install, capture_output=True, check=False).returncode:
        print(f"{PEER} cannot be installed here: its bars are left out")
        return []
    run = [sys.executable, "-c", PEER_SCRIPT, str(PEER_ROWS), str(rounds), str(folder / "peer-keys.db")]
    done = subprocess.run(run, env={**os.environ, "PYTHONPATH": str(into)}, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{PEER} does not run here: {done.stderr.strip().splitlines()[-1]}")
        return []
    found = [
        Row(f"{what} 3 columns: {PEER}", float(line), 0)
        for what, line in zip(("protect", "open"), done.stdout.split(), strict=True)
    ]
    for one in found:
        tell(one, 3 * PEER_ROWS)
    return found


def tell(one: Row, values: int) -> None:
    print(f"{one.name:<58}{one.cpu_s / values * 1e6:>8.2f} us a value", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=65_536)
    parser.add_argument("--people", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args(argv)
    rows, ratios, bars = compare_columns(given.rows, given.rounds)
    with tempfile.TemporaryDirectory() as folder:
        more = compare_end_to_end(given.rows, given.people, given.rounds, Path(folder))
        rows, ratios, bars = rows + more[0], ratios | more[1], bars + more[2]
        theirs = peer(Path(folder), min(3, given.rounds))
    for one in theirs:
        what = one.name.split()[0]
        for bound in ("", ", bound to rows"):
            ours = next(r for r in rows if r.name == f"{what} 3 columns with look-up{bound}: ours")
            name = f"{what} 3 columns with look-up{bound}: gdpr-officer/ours cpu"
            ratios[name] = (one.cpu_s / PEER_ROWS) / (ours.cpu_s / given.rows)
        # it binds nothing to rows, so the bar is set without
        name = f"{what} 3 columns with look-up: gdpr-officer/ours cpu"
        bars.append(Bar(name, ratios[name], ">=", 8))
    publish("protect", [*rows, *theirs], ratios, bars)


if __name__ == "__main__":
    main()

"""The scanner's own control: made-up values, written where the scanner says it can see, each of which must be found.

A scan that finds nothing proves nothing by itself, so every look brings its control along: one random number and one
random address, in the common byte forms and containers. They are written here with the standard library and the
libraries of the formats, not with the tables of `patterns.py`: a form that somebody switches off there is still
written, and missed.

The values belong to nobody and are drawn anew for every look; files that a kill leaves behind are looked for by nobody.
"""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import lzma
import secrets
import sqlite3
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from fangxin.checks.residue.carve import Limits
from fangxin.checks.residue.patterns import needles_for
from fangxin.checks.residue.scan import scan
from fangxin.data.errors import DoesNotHold
from fangxin.data.vocabulary import Identity

MARK = "control-"  # what the name of every control file begins with; nothing else of ours begins so
_PAD = b"\n--\n"


@dataclass(frozen=True)
class Control:
    """A made-up person, and files with their values: name -> the byte form and container it stands for."""

    number: str = field(repr=False)
    address: str = field(repr=False)

    @classmethod
    def draw(cls) -> Control:
        """A new one; the number is a mobile number that no operator has given out."""
        return cls(f"199{secrets.randbelow(10**8):08d}", f"{secrets.token_hex(8)}@control.invalid")

    def cells(self) -> Mapping[str, bytes]:
        """The body of every control file, by what it shows."""
        plain = (
            self.number.encode() + _PAD + self.address.encode() + _PAD
        ) * 40  # so that no packer stores it as it is
        forms = {name: _PAD + write(self.number, self.address) + _PAD for name, write in _FORMS.items()}
        return forms | {name: write(plain, self.number) for name, write in _CONTAINERS.items()}


def prove(folders: Mapping[str, Path], tmp: Path, *, walked: Callable[[], Iterable[tuple[str, Path]]]) -> None:
    """Show that the scanner sees: control files in `tmp`, and one in each of `folders`, must all be found.

    `walked` lists what a look goes through: a folder whose control it leaves out is one that is not looked into.
    Raises DoesNotHold with what was missed. The files are gone afterwards.
    """
    control = Control.draw()
    made: dict[Path, str] = {}
    tmp.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(prefix=MARK, dir=tmp) as place:
        try:
            for name, body in control.cells().items():
                made[_write(Path(place), body)] = name
            for name, folder in folders.items():
                made[_write(folder, control.number.encode() + _PAD)] = f"the folder {name}"
            listed = {path for _label, path in walked()}
            files = [(str(path), path) for path in made if path in listed]
            people = [(0, Identity("phone_number", control.number)), (0, Identity("email", control.address))]
            seen = scan(files, needles_for(people), workers=1)
            found = set(seen.hits["place"].to_pylist())
        finally:
            for path in made:
                path.unlink(missing_ok=True)
    missed = sorted(what for path, what in made.items() if str(path) not in found)
    if missed:
        raise DoesNotHold(
            f"the scanner is blind: it did not find its own control in {', '.join(missed)}",
            hint="what it does not see now it would not see afterwards; mend the scanner, then run this again",
        )


def _write(folder: Path, body: bytes) -> Path:
    path = folder / f"{MARK}{secrets.token_hex(8)}"
    path.write_bytes(body)
    return path


_FORMS: Mapping[str, Callable[[str, str], bytes]] = {
    "UTF-8": lambda number, address: number.encode(),
    "UTF-16": lambda number, address: address.encode("utf-16-le"),
    "base64": lambda number, address: base64.b64encode(b"x" + address.encode() + b"y"),
    "hexadecimal": lambda number, address: number.encode().hex().encode(),
    "percent escapes": lambda number, address: quote(address).encode(),
    "JSON escapes": lambda number, address: "".join(f"\\u{ord(c):04x}" for c in address).encode(),
    "a number of eight bytes": lambda number, address: b"\xff" * 8 + struct.pack("<q", int(number)) + b"\xff" * 8,
    "groups of digits": lambda number, address: f"{number[:3]}-{number[3:7]}-{number[7:]}".encode(),
    "+86": lambda number, address: f"+86{number}".encode(),
    "capitals": lambda number, address: address.upper().encode(),
}


def _zip(plain: bytes, _number: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rows.csv", plain)
    return out.getvalue()


def _tar(plain: bytes, _number: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        entry = tarfile.TarInfo("rows.csv")
        entry.size = len(plain)
        archive.addfile(entry, io.BytesIO(plain))
    return out.getvalue()


def _edge(plain: bytes, number: str) -> bytes:
    """The number across the edge of two pieces that are read one after the other."""
    head = bytes(Limits().chunk - len(number) // 2)
    return head + number.encode() + bytes(64)


def _dictionary(_plain: bytes, number: str) -> bytes:
    """An entry of a Parquet dictionary to which no row refers."""
    column = pa.DictionaryArray.from_arrays(pa.array([0, 0], pa.int8()), pa.array(["nobody", number]))
    out = io.BytesIO()
    pq.write_table(pa.table({"who": column}), out, compression="gzip", write_statistics=False)
    return out.getvalue()


def _pages(_plain: bytes, number: str) -> bytes:
    """A value of a compressed Parquet page, prefix-coded against its neighbour; no statistics repeat it."""
    out = io.BytesIO()
    how = {"use_dictionary": False, "write_statistics": False, "column_encoding": "DELTA_BYTE_ARRAY"}
    pq.write_table(pa.table({"who": [number[:6], number]}), out, compression="gzip", **how)
    return out.getvalue()


def _free_page(_plain: bytes, number: str) -> bytes:
    """A deleted row of SQLite whose page is on the free list, and nowhere else."""
    db = sqlite3.connect(":memory:")
    try:
        db.execute("PRAGMA secure_delete=OFF")
        db.execute("CREATE TABLE t (x TEXT)")
        db.executemany("INSERT INTO t VALUES (?)", [(f"{number} " + "-" * 900,) for _ in range(40)])
        db.execute("DELETE FROM t")
        db.commit()
        return db.serialize()
    finally:
        db.close()


_CONTAINERS: Mapping[str, Callable[[bytes, str], bytes]] = {
    "gzip": lambda plain, number: gzip.compress(plain),
    "the second member of a gzip": lambda plain, number: gzip.compress(b"nobody") + gzip.compress(plain),
    "bzip2": lambda plain, number: bz2.compress(plain),
    "xz": lambda plain, number: lzma.compress(plain),
    "zip": _zip,
    "tar in gzip": _tar,
    "gzip in zip": lambda plain, number: _zip(gzip.compress(plain), number),
    "the edge of two pieces": _edge,
    "a Parquet dictionary": _dictionary,
    "Parquet pages": _pages,
    "a free page of SQLite": _free_page,
}

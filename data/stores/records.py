"""Records of a text file as raw bytes: where each begins and ends, and how one value of one record is exchanged.

CSV as RFC 4180 has it (a header, quotes doubled inside quotes, records over several lines), JSON Lines, each plain or
packed with gzip or zstd. A file is read in blocks of whole records; the ends of records are found with numpy, no loop
runs over them.

* Bytes of a record that nobody asked to change are never decoded and encoded again: they are copied.
* A changed record keeps everything but the value: order of keys, spaces, quoting of other cells, escapes.
* Blank lines are kept and are no records.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fangxin.data.errors import StoreUnavailable
from fangxin.data.stores.files import unusable
from fangxin.data.vocabulary import redacted

CHUNK = 4 << 20
LONGEST = 64 << 20  # bytes of one record; more is an unclosed quote, not a record
BOM = b"\xef\xbb\xbf"
PACKED = ("gz", "zst")
SUFFIXES = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}

Offsets = npt.NDArray[np.int64]
Patch = Mapping[str, "Exchange"]

_CELL = re.compile(r'"(?:[^"]|"")*"|[^,]*', re.DOTALL)


@dataclass(frozen=True)
class Form:
    """How a text file is written, told by its name."""

    csv: bool
    packed: str = ""  # gz, zst, or "" for plain


@dataclass(frozen=True)
class Head:
    """What stands before the first record: mark and header line as raw bytes, and the names in it (CSV only)."""

    raw: bytes
    names: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """Whole records in a row: record i of the file is `first + i`, its bytes `data[starts[i]:ends[i]]`."""

    data: bytes
    first: int
    starts: Offsets
    ends: Offsets


@dataclass(frozen=True)
class Exchange:
    """What happens to one value: replaced by `filler`, or texts inside it replaced by `mark`."""

    filler: str | int | float | bool | None = None
    texts: tuple[str, ...] | None = None  # None: the whole value is replaced
    mark: str = "***"


def form(path: Path) -> Form | None:
    """The form a file's name promises; None if we do not know it."""
    name = path.name.lower()
    packed = next((one for one in PACKED if name.endswith(f".{one}")), "")
    kind = SUFFIXES.get(Path(name.removesuffix(f".{packed}")).suffix)
    return None if kind is None else Form(kind == "csv", packed)


def reading(path: Path, how: Form) -> IO[bytes]:
    """Open the text of a file, unpacked; what is cut short raises OSError or EOFError when its end is read."""
    if how.packed == "zst":  # of the readers at hand the one that does not take a cut-off frame for a whole one
        return cast("IO[bytes]", pa.CompressedInputStream(pa.OSFile(os.fspath(path)), "zstd"))
    return cast("IO[bytes]", gzip.open(path, "rb")) if how.packed else path.open("rb")


def writing(out: IO[bytes], how: Form) -> IO[bytes]:
    """A stream that writes text into an open file; gzip as one member that names neither file nor time, zstd as one
    frame with a checksum.
    """
    if how.packed == "zst":
        import zstandard

        return cast("IO[bytes]", zstandard.ZstdCompressor(write_checksum=True).stream_writer(out, closefd=False))
    if not how.packed:
        return out
    return cast("IO[bytes]", gzip.GzipFile(filename="", mode="wb", fileobj=out, mtime=0))


def blocks(stream: IO[bytes], how: Form, unit: str) -> Iterator[tuple[Head, Block]]:
    """Yield the file as blocks of whole records, at least one (perhaps empty); StoreUnavailable names a bad line."""
    head: Head | None = None
    rest, first, line = b"", 0, 1
    while True:
        chunk = _more(stream, unit, line)
        data = rest + chunk
        if head is None:
            if chunk and len(data) < len(BOM):
                rest = data
                continue
            start = len(BOM) if data.startswith(BOM) else 0
            if how.csv:
                cut = _ends(data[start:], unit, line, last=not chunk)
                if not len(cut) and chunk:
                    rest = _bounded(data, unit, line)
                    continue
                start += int(cut[0]) if len(cut) else 0
            head = _head(data[:start], how, unit)
            line += data[:start].count(b"\n")
            data = data[start:]
        ends = _ends(data, unit, line, last=not chunk, quoted=how.csv)
        whole = int(ends[-1]) if len(ends) else 0
        rest = _bounded(data[whole:], unit, line)
        if whole or not chunk:
            block = _block(data[:whole], first, ends, how)
            yield head, block
            first += len(block.starts)
            line += data.count(b"\n", 0, whole)
        if not chunk:
            return


def changed(record: bytes, how: Form, names: Sequence[str], patch: Patch) -> bytes:
    """One record with values exchanged; ValueError if it is not a record of this form."""
    text = record.decode("utf-8")
    return (_changed_cells(text, names, patch) if how.csv else _changed_members(text, patch)).encode("utf-8")


def csv_record(names: Sequence[str], row: Mapping[str, Any], ending: str) -> bytes:  # Any: values as Python has them
    """A new CSV record with the values of a row, "" for what it does not have."""
    return (",".join(_cell(_text(row.get(name)), quoted=False) for name in names) + ending).encode("utf-8")


def json_record(like: bytes, row: Mapping[str, Any], ending: str) -> bytes:  # Any: values as Python has them
    """A new JSON record in the manner of an existing one: its order of keys, its spaces, its escapes."""
    text = like.decode("utf-8")
    try:
        keys = [key for key, _start, _end in members(text)]
    except ValueError:  # no record is there yet, or one that is no model for others
        keys = []
    order = {key: row.get(key) for key in keys} | dict(row)
    compact = not re.search(r'":\s', text)
    ascii_only = text.isascii() and "\\u" in text
    return (_dumps(order, compact=compact, ascii_only=ascii_only) + ending).encode("utf-8")


def members(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield (key, start, end of the value) of a JSON object's members; ValueError if it is none, or too deep."""
    try:
        yield from _members(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _members(text: str) -> Iterator[tuple[str, int, int]]:
    decoder = json.JSONDecoder()
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        raise ValueError("not an object")
    at = _skip(text, at + 1)
    while text[at : at + 1] == '"':
        key, at = decoder.raw_decode(text, at)
        at = _skip(text, at)
        if text[at : at + 1] != ":":
            raise ValueError("no value")
        start = _skip(text, at + 1)
        _, at = decoder.raw_decode(text, start)
        yield key, start, at
        at = _skip(text, at)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)


# ---------------------------------------------------------------- where records end


def _more(stream: IO[bytes], unit: str, line: int) -> bytes:
    try:
        return stream.read(CHUNK)
    except (EOFError, OSError, zlib.error) as error:
        raise unusable(
            unit,
            "a whole file",
            f"a damaged one after line {line} ({type(error).__name__})",
            "restore it from its source, or take it out of the folder",
        ) from None


def _bounded(rest: bytes, unit: str, line: int) -> bytes:
    if len(rest) > LONGEST:
        raise unusable(unit, f"records below {LONGEST >> 20} MiB", f"a longer one at line {line}", "close its quote")
    return rest


def _ends(data: bytes, unit: str, line: int, *, last: bool, quoted: bool = True) -> Offsets:
    """Offsets just after every record's newline; with `last` also the end of a record that lacks one."""
    octets = np.frombuffer(data, dtype=np.uint8)
    ends = np.flatnonzero(octets == 10)
    quotes = np.flatnonzero(octets == 34) if quoted else ends[:0]
    if len(quotes):
        inside = np.searchsorted(quotes, ends) & 1 == 1
        ends = ends[~inside]
        usable = len(data) if last else (int(ends[-1]) + 1 if len(ends) else 0)
        _well_quoted(octets, quotes[quotes < usable], unit, line, data)
        if last and len(quotes) & 1:
            raise _malformed(unit, line + data.count(b"\n", 0, int(quotes[-1])), "a quote that is closed")
    ends = ends + 1
    if last and len(data) and (not len(ends) or ends[-1] != len(data)):
        ends = np.append(ends, len(data))
    return ends.astype(np.int64)


def _well_quoted(octets: npt.NDArray[np.uint8], quotes: Offsets, unit: str, line: int, data: bytes) -> None:
    """Raise unless quotes open at the start of a cell and close at its end, or are doubled (RFC 4180, 2.5-2.7)."""
    opening, closing = quotes[0::2], quotes[1::2]
    before = np.where(opening > 0, octets[np.maximum(opening - 1, 0)], 10)
    after = np.where(closing + 1 < len(octets), octets[np.minimum(closing + 1, len(octets) - 1)], 10)
    wrong = np.concatenate(
        [opening[~np.isin(before, (10, 34, 44))], closing[~np.isin(after, (10, 13, 34, 44))]]
    )  # newline, carriage return, quote, comma
    if len(wrong):
        raise _malformed(unit, line + data.count(b"\n", 0, int(wrong.min())), "quotes around whole cells")


def _malformed(unit: str, line: int, expected: str) -> StoreUnavailable:
    return unusable(unit, f"{expected} at line {line}", "a malformed record", "mend the line, then try again")


def _head(raw: bytes, how: Form, unit: str) -> Head:
    if not how.csv:
        return Head(raw, ())
    try:
        names = tuple(_values(raw.removeprefix(BOM).decode("utf-8")))
    except UnicodeDecodeError:
        raise unusable(unit, "UTF-8", "another encoding", "convert the file to UTF-8") from None
    if not raw.removeprefix(BOM).strip() or len(set(names)) != len(names):
        raise unusable(unit, "a header with different names", "none, or a name twice", "add a header line")
    return Head(raw, names)


def _block(data: bytes, first: int, ends: Offsets, how: Form) -> Block:
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]]) if len(ends) else ends
    octets = np.frombuffer(data, dtype=np.uint8)
    if len(starts):  # only records that begin with white space can be blank
        space = b"\r\n" if how.csv else b" \t\r\n"  # in a CSV file spaces are a value
        suspects = np.flatnonzero(np.isin(octets[starts], np.frombuffer(space, dtype=np.uint8)))
        blank = [i for i in suspects.tolist() if not data[starts[i] : ends[i]].strip(space)]
        starts, ends = np.delete(starts, blank), np.delete(ends, blank)
    return Block(data, first, starts, ends)


# ---------------------------------------------------------------- one value of one record


def _changed_cells(text: str, names: Sequence[str], patch: Patch) -> str:
    body = text.rstrip("\r\n")
    cells = list(_cells(body))
    if len(cells) != len(names):
        raise ValueError("another number of cells than the header")
    for i, name in enumerate(names):
        if name in patch:
            quoted = cells[i].startswith('"')
            old = cells[i][1:-1].replace('""', '"') if quoted else cells[i]
            cells[i] = _cell(_text(_exchanged(old, patch[name])), quoted=quoted)
    return ",".join(cells) + text[len(body) :]


def _values(text: str) -> list[str]:
    cells = _cells(text.rstrip("\r\n"))
    return [c[1:-1].replace('""', '"') if c.startswith('"') else c for c in cells]


def _cells(body: str) -> Iterator[str]:
    at = 0
    while True:
        found = _CELL.match(body, at)
        end = found.end() if found else at
        yield body[at:end]
        if end >= len(body):
            return
        if body[end] != ",":
            raise ValueError("text after a closed quote")
        at = end + 1


def _cell(text: str, *, quoted: bool) -> str:
    if quoted or any(c in text for c in ',"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text


def _text(value: Any) -> str:  # Any: a value as Python has it
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _changed_members(text: str, patch: Patch) -> str:
    out, at = [], 0
    for key, start, end in members(text):
        if key in patch:
            token = text[start:end]
            new = _exchanged(json.loads(token), patch[key])
            ascii_only = token.isascii() and ("\\u" in token or text.isascii())
            out += [text[at:start], _dumps(new, compact=not re.search(r'":\s', token), ascii_only=ascii_only)]
            at = end
    return "".join(out) + text[at:]


def _exchanged(value: Any, exchange: Exchange) -> Any:  # Any: a value as JSON has it
    """The value with the filler in its place, or with texts replaced in every string in it (keys too)."""
    if exchange.texts is None:
        return exchange.filler
    if isinstance(value, str):
        return redacted(value, exchange.texts, exchange.mark)
    if isinstance(value, list):
        return [_exchanged(one, exchange) for one in value]
    if isinstance(value, dict):
        return {_exchanged(k, exchange): _exchanged(v, exchange) for k, v in value.items()}
    if isinstance(value, int | float) and not isinstance(value, bool) and str(value) in exchange.texts:
        return exchange.mark
    return value


def _dumps(value: Any, *, compact: bool, ascii_only: bool) -> str:  # Any: a value as JSON has it
    return json.dumps(value, ensure_ascii=ascii_only, separators=(",", ":") if compact else None, default=str)


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at

"""The store of text files: CSV and JSON Lines, each plain or packed with gzip or zstd, each file one unit.

* A position is the number of a record, header and blank lines not counted; a record may span lines.
* Survivors are copied byte for byte; only a record in which something is replaced changes, and there only that value.
* Every CSV column is text. A JSON column is text too (numbers as they are written, nested values as JSON), but for
  fields that the catalog calls integer: int64.
* Text has no columns of bytes, so nothing can be protected in place.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from fangxin.data.errors import StoreUnavailable
from fangxin.data.steps import due
from fangxin.data.stores.files import (
    PLANTING,
    Built,
    FileStore,
    hive,
    lacking_column,
    publish,
    together,
    unusable,
)
from fangxin.data.stores.records import (
    Block,
    Exchange,
    Form,
    Head,
    blocks,
    changed,
    csv_record,
    form,
    json_record,
    members,
    reading,
    writing,
)
from fangxin.data.vocabulary import Capabilities, Collection, Erasure, Meter, Order, Positions, Rows, Turn, Unit

if TYPE_CHECKING:
    import duckdb


class TextStore(FileStore):
    """CSV and JSON Lines files below one root; see `Store` for what each method promises."""

    kind = "text"
    capabilities = Capabilities(overwrite=True, mask=True, redact=True, plant=True, raw_scan=True)

    def __init__(self, root: Path, url: str, collections: tuple[Collection, ...], meter: Meter) -> None:
        super().__init__(root, url, collections, meter)
        self._heads: dict[Unit, tuple[Head, bytes]] = {}

    def check(self, *, for_writing: bool) -> None:
        """Read every unit once: links, permissions, whole, well-formed quotes, header, and its last records parsed.

        JSON Lines have no header: a field that no record of a whole collection has is a missing column.
        """
        self._folder.refuse_strays()
        absent: dict[str, dict[str, str]] = {}  # address -> field -> last unit that lacks it
        with _Parser() as parser:
            for collection, unit in self._folder.claimed():
                self._folder.refuse(unit.name, for_writing=for_writing)
                how = self._form(unit.name)
                paths = hive(unit.name, collection.store.partition)
                names = [f.name for f in collection.fields if f.name not in paths]
                lacking = absent.setdefault(collection.address, dict.fromkeys(names, unit.name))
                self.meter.open(self.name, unit.name)
                with reading(self.root / unit.name, how) as stream:
                    last: tuple[Head, Block] | None = None
                    for head, block in blocks(stream, how, unit.name):
                        if last is None or len(block.starts):
                            last = (head, block)
                        self._remember(unit, head, block)
                        if not how.csv:
                            parser.unambiguous(unit.name, block)
                        for name in [n for n in lacking if how.csv or _holds_key(block.data, n)]:
                            del lacking[name]
                self._expect(collection, unit, names, how)
                if last is not None:
                    parser.parse(unit.name, how, collection, *last, names)
        for collection in self.collections:
            for name, where in absent.get(collection.address, {}).items():
                if any(self._heads[u][1] for u in self.units(collection) if u in self._heads):
                    raise _without(where, collection, name)

    def fields(self, collection: Collection) -> pa.Schema:
        """The columns of the first unit: its header, or the catalog's fields and other keys of the first record.

        Reads one block at most, to learn names, so it is not metered.
        """
        for unit in self.units(collection):
            head, first = self._known(unit)
            how = self._form(unit.name)
            if how.csv:
                names = list(head.names)
            else:
                names = [f.name for f in collection.fields]
                names += [key for key in dict.fromkeys(_keys(first)) if key not in names]
            names += [n for n in hive(unit.name, collection.store.partition) if n not in names]
            return pa.schema([pa.field(n, _kind(collection, n, how)) for n in names])
        return pa.schema([])

    def clear(self, collection: Collection, names: Sequence[str]) -> tuple[str, ...]:
        """Every unit, if any field is asked for: text has no columns of bytes that could lie under keys."""
        return tuple(unit.name for unit in self.units(collection)) if names else ()

    def scan(
        self, wanted: Mapping[str, Sequence[str]], units: Sequence[str] | None = None
    ) -> Iterator[tuple[str, Rows]]:
        """Yield (address, rows) by block of some MiB, with only the wanted fields."""
        chosen = None if units is None else frozenset(units)
        with _Parser() as parser:
            for collection, unit in self._folder.claimed():
                names = wanted.get(collection.address)
                if names is not None and (chosen is None or unit.name in chosen):
                    for rows in self._read(parser, collection, unit, list(dict.fromkeys(names)), None):
                        yield collection.address, rows

    def take(self, wanted: Mapping[str, Mapping[str, Positions]]) -> Iterator[tuple[str, Rows]]:
        """Yield all fields of the rows asked for; other records are passed over as bytes."""
        with _Parser() as parser:
            for collection, unit in self._folder.claimed():
                positions = wanted.get(collection.address, {}).get(unit.name)
                if positions is not None and len(positions):
                    names = None if self._form(unit.name).csv else self.fields(collection).names
                    for rows in self._read(parser, collection, unit, names, positions):
                        yield collection.address, rows

    def _plant(self, collection: Collection, row: Mapping[str, Any], model: Unit) -> None:
        head, first = self._known(model)
        how = self._form(model.name)
        ending = "\r\n" if (head.raw if how.csv else first).endswith(b"\r\n") else "\n"
        path = self._folder.newcomer(collection, row)
        if path is not None and (planted := form(path)) is not None:
            record = csv_record(head.names, row, ending) if how.csv else json_record(first, row, ending)
            self._publish(path, planted, head.raw + record, self.root / model.name)
        else:
            self._append(collection, model.name, how, head, first, row, ending)

    def rewrite(self, fields: Mapping[str, Sequence[str]], turn: Turn, *, batch: str) -> Iterator[Erasure]:
        """Refuse: text has no columns of bytes; yields nothing where nothing is asked of this store."""
        for collection in self.collections:
            if fields.get(collection.address):
                raise StoreUnavailable(
                    f"{collection.address}: text files cannot hold protected columns; nothing was changed",
                    hint="keep these fields in Parquet or SQLite, or erase them with mode: overwrite",
                )
        yield from ()

    # ------------------------------------------------------------ reading

    def _form(self, unit: str) -> Form:
        found = form(self.root / unit)
        if found is None:
            raise unusable(
                unit, "a name ending in .csv, .jsonl or .ndjson (.gz, .zst)", "another", "narrow the glob or rename it"
            )
        return found

    def _read(
        self, parser: _Parser, collection: Collection, unit: Unit, names: list[str] | None, positions: Positions | None
    ) -> Iterator[Rows]:
        self._folder.refuse(unit.name, for_writing=False)
        how = self._form(unit.name)
        paths = hive(unit.name, collection.store.partition)
        self.meter.open(self.name, unit.name)
        with reading(self.root / unit.name, how) as stream:
            for head, block in blocks(stream, how, unit.name):
                self._remember(unit, head, block)
                wanted = [*head.names, *(p for p in paths if p not in head.names)] if names is None else names
                self._expect(collection, unit, wanted, how)
                here = np.arange(block.first, block.first + len(block.starts), dtype=np.int64)
                if positions is not None:
                    here = positions[(positions >= block.first) & (positions < block.first + len(block.starts))]
                    block = _only(block, here)
                if not len(here):
                    continue
                stored = [n for n in wanted if n not in paths or n in head.names]
                parsed = parser.parse(unit.name, how, collection, head, block, stored)
                columns = [
                    parsed[n] if n in parsed else pa.repeat(pa.scalar(paths[n], pa.string()), len(here)) for n in wanted
                ]
                yield Rows(unit.name, here, pa.RecordBatch.from_arrays(columns, names=wanted))

    def _expect(self, collection: Collection, unit: Unit, names: Sequence[str], how: Form) -> None:
        """Raise StoreUnavailable for a column that the header lacks, or that neither catalog nor first record knows."""
        head, first = self._known(unit)
        known = set(head.names) if how.csv else {f.name for f in collection.fields} | set(_keys(first))
        for name in names:
            if name not in known and name not in hive(unit.name, collection.store.partition):
                raise _without(unit.name, collection, name)

    def _remember(self, unit: Unit, head: Head, block: Block) -> None:
        if unit not in self._heads:
            record = block.data[block.starts[0] : block.ends[0]] if len(block.starts) else b""
            self._heads[unit] = (head, record)

    def _known(self, unit: Unit) -> tuple[Head, bytes]:
        """Head and first record of a unit."""
        if unit not in self._heads:
            self._folder.refuse(unit.name, for_writing=False)
            how = self._form(unit.name)
            with reading(self.root / unit.name, how) as stream:
                for head, block in blocks(stream, how, unit.name):
                    self._remember(unit, head, block)
                    break
        return self._heads[unit]

    # ------------------------------------------------------------ writing

    def _possible(self, order: Order) -> None:
        """Refuse an order that this unit's columns cannot carry out, before any unit is touched."""
        how = self._form(order.unit.name)
        for change in order.changes:
            paths = hive(order.unit.name, change.collection.store.partition)
            for name in (*change.blank, *change.redact):
                if name in paths:
                    raise unusable(order.unit.name, f"field {name!r} in the file", "it in the path", "move the unit")
            self._expect(change.collection, order.unit, [*change.blank, *change.redact], how)

    def _erase(self, order: Order, batch: str) -> Erasure:
        unit, drop = order.unit.name, together([c.drop for c in order.changes])
        patches = _patches(order)
        self.meter.open(self.name, unit)

        def build(new: Path) -> Built:
            return self._survivors(unit, new, drop, patches)

        return self._folder.exchange(unit, order.changes[0].collection.address, build, batch=batch)

    def _survivors(
        self, unit: str, new: Path, drop: Positions, patches: Mapping[int, dict[str, Exchange]], extra: bytes = b""
    ) -> Built:
        """Copy what stays, change what is declared, then read the new file and compare what nobody may touch."""
        how = self._form(unit)
        asked, drop = drop, drop if due("text: records") else drop[:0]
        patched = np.array(sorted(set(patches) - set(drop.tolist())), dtype=np.int64)
        affected = together([drop, patched])
        leaving = frozenset(drop.tolist())
        before, digest, ended, begun = 0, hashlib.sha256(), True, False
        with ExitStack() as stack:
            source = stack.enter_context(reading(self.root / unit, how))
            raw = stack.enter_context(new.open("xb"))
            out = stack.enter_context(writing(raw, how)) if how.packed else raw
            for head, block in blocks(source, how, unit):
                if not begun:
                    out.write(head.raw)
                begun = True
                before = block.first + len(block.starts)
                ended = block.data.endswith(b"\n") if block.data else ended
                for piece, position in _pieces(block, affected):
                    if position is None:
                        out.write(piece)
                        digest.update(piece)
                    elif position not in leaving:
                        out.write(self._changed(unit, position, piece, how, head, patches[position]))
            if extra and not ended:
                out.write(b"\n")
                digest.update(b"\n")
            out.write(extra)
            if how.packed:
                out.close()
            raw.flush()
            os.fsync(raw.fileno())
        after = before - len(drop) + (1 if extra else 0)
        skip = patched - np.searchsorted(drop, patched)  # where changed records lie in the new file
        if extra:
            skip = np.append(skip, after - 1)
        self._verify(new, unit, how, after, skip, digest.digest())
        return Built(before, after + len(drop) - len(asked), len(patched))

    def _changed(
        self, unit: str, position: int, record: bytes, how: Form, head: Head, patch: Mapping[str, Exchange]
    ) -> bytes:
        try:
            return changed(record, how, head.names, patch)
        except ValueError:
            raise unusable(
                unit, f"a well-formed record {position}", "a malformed one", "mend the line, then locate again"
            ) from None

    def _verify(self, new: Path, unit: str, how: Form, rows: int, skip: Positions, digest: bytes) -> None:
        found, count = hashlib.sha256(), 0
        with reading(new, how) as stream:
            for _, block in blocks(stream, how, unit):
                count = block.first + len(block.starts)
                for piece, position in _pieces(block, skip):
                    if position is None:
                        found.update(piece)
        if count != rows or found.digest() != digest:
            raise unusable(
                unit, "a new file equal to the records that stay", "a difference", "report it: our writer is at fault"
            )

    def _publish(self, path: Path, how: Form, content: bytes, model: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = self.pending.scratch(path, batch=PLANTING)
        with new.open("xb") as raw:
            out = writing(raw, how)
            out.write(content)
            if how.packed:
                out.close()
            raw.flush()
            os.fsync(raw.fileno())
        new.chmod(model.stat().st_mode & 0o777)
        publish(new, path)

    def _append(
        self,
        collection: Collection,
        unit: str,
        how: Form,
        head: Head,
        first: bytes,
        row: Mapping[str, Any],
        ending: str,
    ) -> None:
        """Put a record at the end of the one file there is, in a file of its own that replaces it."""
        record = csv_record(head.names, row, ending) if how.csv else json_record(first, row, ending)
        self._folder.refuse(unit, for_writing=True)

        def build(new: Path) -> Built:
            return self._survivors(unit, new, together(()), {}, extra=record)

        self._folder.exchange(unit, collection.address, build, batch=PLANTING)


@cache
def _engine(_process: int) -> duckdb.DuckDBPyConnection:
    """One for a process (its threads do not follow into a fork), without disk or network."""
    import duckdb

    db = duckdb.connect(":memory:", config={"temp_directory": "", "threads": 2, "async_threads": 0})
    db.execute("SET enable_external_access = false")
    return db


class _Parser:
    """Turns blocks of records into columns; JSON by a cursor of the process's DuckDB."""

    def __init__(self) -> None:
        self._duck: duckdb.DuckDBPyConnection | None = None

    def __enter__(self) -> _Parser:
        return self

    def __exit__(self, *_: object) -> None:
        if self._duck is not None:
            self._duck.close()

    def parse(
        self, unit: str, how: Form, collection: Collection, head: Head, block: Block, names: Sequence[str]
    ) -> dict[str, pa.Array]:
        """The named columns of a block, one value a record; StoreUnavailable names a malformed one."""
        if not names or not len(block.starts):
            return {n: pa.array([], pa.string()) for n in names}
        if how.csv:
            return _parse_csv(unit, head, block, names)
        return self._parse_json(unit, collection, block, names)

    def unambiguous(self, unit: str, block: Block) -> None:
        """Raise StoreUnavailable for a JSON object with a key twice: readers differ in which of the values they see."""
        if not len(block.starts):
            return
        engine = self._lines(unit, block)
        try:
            ((bad,),) = engine.sql(
                "SELECT min(i) FROM (SELECT i, json_keys(line) AS keys FROM"
                " (SELECT row_number() OVER () - 1 AS i, line FROM lines) WHERE json_valid(line))"
                " WHERE len(keys) > len(list_distinct(keys))"
            ).fetchall()
        finally:
            engine.unregister("lines")
        if bad is not None:
            line = block.first + int(bad) + 1
            raise unusable(unit, f"every key once in record {line} (blank lines not counted)", "one twice", "mend it")

    def _lines(self, unit: str, block: Block) -> duckdb.DuckDBPyConnection:
        """An engine that sees the records of a block as the table `lines`."""
        if self._duck is None:
            self._duck = _engine(os.getpid()).cursor()  # its tables are its own, and end with it
        # blank lines belong to the record before them: white space after a value is nothing in JSON
        offsets = np.append(block.starts, len(block.data)).astype(np.int64)
        lines = pa.Array.from_buffers(
            pa.large_binary(), len(block.starts), [None, pa.py_buffer(offsets), pa.py_buffer(block.data)]
        )
        try:
            table = pa.table({"line": lines.cast(pa.large_string())})
        except pa.ArrowException:
            raise unusable(unit, "UTF-8", "another encoding", "convert the file to UTF-8") from None
        self._duck.register("lines", table)
        return self._duck

    def _parse_json(self, unit: str, collection: Collection, block: Block, names: Sequence[str]) -> dict[str, pa.Array]:
        import duckdb

        paths = ["/" + n.replace("~", "~0").replace("/", "~1") for n in names]
        engine = self._lines(unit, block)
        try:
            ((bad,),) = engine.sql(
                "SELECT min(i) FROM (SELECT row_number() OVER () - 1 AS i, line FROM lines)"
                " WHERE NOT coalesce(json_valid(line), false) OR json_type(line) <> 'OBJECT'"
            ).fetchall()
            if bad is not None:
                raise unusable(
                    unit,
                    "one JSON object a line",
                    f"something else in record {block.first + bad}",
                    "mend the line; half of a surrogate pair (\\ud83d alone) is no text either",
                )
            found = engine.sql("SELECT json_extract_string(line, ?) AS v FROM lines", params=[paths])
            values = pa.concat_arrays(found.to_arrow_table().column("v").chunks)
            del found
        except duckdb.Error as error:
            raise unusable(
                unit, "one JSON object a line", f"something else ({type(error).__name__})", "mend the file"
            ) from None
        finally:
            engine.unregister("lines")
        flat = values.flatten()
        columns: dict[str, pa.Array] = {}
        for i, name in enumerate(names):
            column = flat.take(pa.array(np.arange(i, len(flat), len(names))))
            try:
                columns[name] = column.cast(_kind(collection, name, Form(csv=False)))
            except pa.ArrowException:
                raise unusable(
                    unit, f"integers in {name!r}, as the catalog says", "something else", "mend `data_type`"
                ) from None
        return columns


def _parse_csv(unit: str, head: Head, block: Block, names: Sequence[str]) -> dict[str, pa.Array]:
    wrong: list[int] = []

    def note(row: Any) -> str:  # Any: pyarrow's InvalidRow has no types
        wrong.append(row.number or 0)
        return "error"

    try:
        table = pacsv.read_csv(
            io.BytesIO(block.data),
            read_options=pacsv.ReadOptions(
                column_names=list(head.names), block_size=len(block.data) + 1, use_threads=False
            ),
            parse_options=pacsv.ParseOptions(newlines_in_values=True, invalid_row_handler=note),
            convert_options=pacsv.ConvertOptions(
                column_types={n: pa.string() for n in head.names},
                include_columns=list(names),
                strings_can_be_null=False,
            ),
        )
    except (pa.ArrowException, UnicodeDecodeError):
        if wrong:
            where = f"another number in record {block.first + max(wrong[0] - 1, 0)}"
            raise unusable(unit, f"{len(head.names)} cells a record", where, "mend the line") from None
        raise unusable(unit, "UTF-8 text in cells", "another encoding", "convert the file to UTF-8") from None
    if table.num_rows != len(block.starts):
        raise unusable(
            unit, f"{len(block.starts)} records", f"{table.num_rows}", "mend the quotes, or report it as a defect"
        )
    return {n: pa.concat_arrays(table.column(n).chunks) for n in names}


def _patches(order: Order) -> dict[int, dict[str, Exchange]]:
    """Per affected record what happens to which field; a loop over the few records that change."""
    found: dict[int, dict[str, Exchange]] = {}
    for change in order.changes:
        for name, redaction in change.redact.items():
            for position, text in zip(redaction.positions.tolist(), redaction.texts.to_pylist(), strict=True):
                if text:
                    old = found.setdefault(position, {}).get(name)
                    texts = (*(old.texts or () if old else ()), text)
                    found[position][name] = Exchange(texts=texts, mark=redaction.filler)
        for name, blank in change.blank.items():
            for position in blank.positions.tolist():
                found.setdefault(position, {})[name] = Exchange(filler=blank.filler)
    return found


def _pieces(block: Block, affected: Positions) -> Iterator[tuple[bytes, int | None]]:
    """Cut a block into runs nobody touches (None) and affected records with their positions."""
    at = 0
    here = affected[(affected >= block.first) & (affected < block.first + len(block.starts))]
    for position in here.tolist():
        start, end = int(block.starts[position - block.first]), int(block.ends[position - block.first])
        if start > at:
            yield block.data[at:start], None
        yield block.data[start:end], position
        at = end
    if at < len(block.data):
        yield block.data[at:], None


def _only(block: Block, here: Positions) -> Block:
    """A block of only these records."""
    at = here - block.first
    pieces = [block.data[s:e] for s, e in zip(block.starts[at].tolist(), block.ends[at].tolist(), strict=True)]
    ends = np.cumsum([len(p) for p in pieces], dtype=np.int64) if pieces else block.ends[:0]
    return Block(b"".join(pieces), block.first, np.append(np.zeros(1, np.int64), ends[:-1])[: len(pieces)], ends)


def _kind(collection: Collection, name: str, how: Form) -> pa.DataType:
    declared = next((f.data_type for f in collection.fields if f.name == name), None)
    return pa.int64() if declared == "integer" and not how.csv else pa.string()


def _keys(record: bytes) -> list[str]:
    try:
        return [key for key, _, _ in members(record.decode("utf-8"))]
    except ValueError:
        return []  # the scan names the malformed record


def _holds_key(data: bytes, name: str) -> bool:
    """Whether a JSON key may occur in raw records, written plainly or with escapes."""
    return json.dumps(name, ensure_ascii=False).encode() in data or json.dumps(name).encode() in data


def _without(unit: str, collection: Collection, name: str) -> StoreUnavailable:
    return lacking_column(unit, collection.address, name)

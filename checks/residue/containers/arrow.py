"""Arrow IPC and Feather: `arrow:column` are the buffers of a column, decompressed, dictionaries included.

Files, and streams of messages, whole or cut: what was read before a fault is searched. A buffer is searched as it
is stored, so that values which no row refers to (a slice's parent, an unused category) are seen. Also here: what
other families make of a decoded column.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from fangxin.checks.residue.containers.piece import NotExaminable, Piece, Place, Readable, Reader, Slice, Spans, inside

if TYPE_CHECKING:
    from fangxin.checks.residue.carve import Walk


def opened(walk: Walk, place: Place) -> Generator[Piece, None, Spans]:
    """Open a file of record batches; without its footer, the stream that such a file holds."""
    label = inside(place.label, "arrow")
    if place.at == 0:
        try:
            reader = pa.ipc.open_file(pa.PythonFile(Reader(place.file), mode="r"))
        except (pa.ArrowException, OSError):
            pass
        else:
            for number in range(reader.num_record_batches):
                yield from walk.guarded(_columns(walk, reader.get_batch(number), label), label)
            return [(0, place.file.size)]
    return (yield from _messages(walk, place.file, place.at + 8, place.at, label, whole=place.at > 0))


def is_stream(file: Readable) -> bool:
    """Whether a file begins with the mark of a message and a schema of a length that can be."""
    head = file.at(0, 16)
    length = int.from_bytes(head[4:8], "little")
    return head[:4] == b"\xff\xff\xff\xff" and 16 <= length <= min(file.size, 1 << 24) and not length % 8


def stream(walk: Walk, place: Place) -> Generator[Piece, None, Spans]:
    """Open a stream of messages."""
    return (yield from _messages(walk, place.file, 0, 0, inside(place.label, "arrow"), whole=True))


def _messages(
    walk: Walk, file: Readable, at: int, start: int, label: str, *, whole: bool
) -> Generator[Piece, None, Spans]:
    """Read batches one behind the other; `whole` where a stream may end without a footer."""
    source = Reader(Slice(file, at, file.size - at))
    read = 0
    try:
        with pa.ipc.open_stream(pa.PythonFile(source, mode="r")) as reader:
            for batch in reader:
                read += 1
                yield from _columns(walk, batch, label)
    except NotExaminable:
        raise
    except Exception as error:
        if read or start == 0:
            raise NotExaminable(f"{read} batches could be read, then none ({type(error).__name__})") from None
        return ()
    if not whole:
        walk.note(label, "the footer is missing or damaged: batches were read as far as they follow each other")
    return [(start, at + source.tell())]


def _columns(walk: Walk, batch: pa.RecordBatch, label: str) -> Iterator[Piece]:
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        yield from arrays(walk, column, f"{label}:column", name)


def arrays(walk: Walk, array: pa.Array, container: str, column: str) -> Iterator[Piece]:
    """The buffers of an array, and of the dictionaries it refers to, as they are stored.

    Arrow believes lengths, offsets and indexes that a file says, and ends the process where they lead nowhere; so they
    are checked before anything but the buffers is touched. A column is handed out only if every one of them holds.
    """
    whole = _holds(walk, array, container, full=walk.columns)
    if walk.columns and whole:
        yield Piece(container, column, b"", values=array)
    for buffer in array.buffers():
        if buffer is not None and buffer.size:
            walk.spend(buffer.size)
            yield Piece(container, column, memoryview(buffer))
    for part in _parts(array) if whole or _holds(walk, array, container, full=False) else ():
        if isinstance(part, pa.DictionaryArray):
            yield from arrays(walk, part.dictionary, container, column)


def _holds(walk: Walk, array: pa.Array, container: str, *, full: bool) -> bool:
    try:
        array.validate(full=full)
    except pa.ArrowException:
        walk.note(container, "lengths, offsets or indexes of a column lead nowhere: its buffers were searched")
        return False
    return True


def texts(walk: Walk, array: pa.Array, container: str, column: str, depth: int) -> Iterator[Piece]:
    """A column that was decoded, value by value: text and bytes a line each, decimals as written, numbers in binary."""
    if walk.columns:
        yield Piece(container, column, b"", values=array)
    for part in _parts(array):
        if isinstance(part, pa.DictionaryArray):
            yield from texts(walk, part.dictionary, container, column, depth)
        elif pa.types.is_decimal(part.type):
            yield from texts(walk, part.cast(pa.string()), container, column, depth)
        elif (kind := _text(part.type)) is not None:
            ends = pa.scalar(b"\n", kind) if pa.types.is_large_binary(kind) else pa.scalar("\n", kind)
            joined = pc.binary_join_element_wise(
                part.cast(kind), ends.cast(kind), pa.scalar("", pa.string()).cast(kind)
            )
            data = joined.buffers()[2]
            if data is not None and data.size:
                walk.spend(data.size)
                yield from walk.leaf(memoryview(data), container, column, depth)
        elif not pa.types.is_nested(part.type) and not pa.types.is_null(part.type):
            for buffer in part.buffers()[1:]:
                if buffer is not None and buffer.size:
                    walk.spend(buffer.size)
                    yield Piece(container, column, memoryview(buffer))


def _text(kind: pa.DataType) -> pa.DataType | None:
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.large_binary()
    return pa.large_binary() if pa.types.is_fixed_size_binary(kind) else None


def _parts(array: pa.Array) -> Iterator[pa.Array]:
    """The array, and those that lie in it."""
    if isinstance(array, pa.ExtensionArray):
        yield from _parts(array.storage)
        return
    yield array
    kind = array.type
    if pa.types.is_struct(kind) or pa.types.is_union(kind):
        for number in range(kind.num_fields):
            yield from _parts(array.field(number))
    elif pa.types.is_map(kind):
        yield from _parts(array.keys)
        yield from _parts(array.items)
    elif hasattr(array, "values"):
        yield from _parts(array.values)

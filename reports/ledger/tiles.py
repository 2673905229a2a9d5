"""Tiles: the ledger's tree and entries as plain files (C2SP tlog-tiles).

`tile/<L>/<N>` holds up to 256 hashes of 32 bytes, `tile/entries/<N>` up to 256 entries, each after its length
(uint16, big-endian). The last tile of a level is partial and named `<N>.p/<W>`. N is written in groups of three
digits, all but the last with an `x`: 1234067 -> `x001/x234/067`.

* A file is written under a temporary name (leading dot), flushed, renamed, and its folder is flushed.
* A full tile is never rewritten; a file that is there with other bytes means the ledger was tampered with.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from fangxin.data.errors import LedgerForked
from fangxin.reports.ledger.merkle import node_hash

WIDTH = 256
_TILE = re.compile(r"(0|[1-9][0-9]?|entries)/((?:x[0-9]{3}/)*)([0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?", re.ASCII)


def tile_path(level: int | str, index: int, width: int = WIDTH) -> str:
    """Return the path of a tile below the ledger's folder; `level` is a number or "entries"."""
    groups = [f"{index % 1000:03d}"]
    while index >= 1000:
        index //= 1000
        groups.insert(0, f"x{index % 1000:03d}")
    return f"tile/{level}/{'/'.join(groups)}" + (f".p/{width}" if width < WIDTH else "")


def tiles_of(size: int) -> Iterator[tuple[int | str, int, int]]:
    """Yield (level, index, width) of every tile and entry bundle of a tree of `size` entries."""
    level, count = 0, size
    while count:
        names: tuple[int | str, ...] = ("entries", 0) if level == 0 else (level,)
        for name in names:
            for index in range(count // WIDTH):
                yield name, index, WIDTH
            if count % WIDTH:
                yield name, count // WIDTH, count % WIDTH
        level, count = level + 1, count // WIDTH


def join_bundle(entries: Iterable[bytes]) -> bytes:
    """Return the bytes of an entry bundle."""
    return b"".join(len(one).to_bytes(2, "big") + one for one in entries)


def split_bundle(bundle: bytes, count: int) -> list[bytes]:
    """Return the entries of a bundle; LedgerForked unless it holds exactly `count`."""
    found: list[bytes] = []
    at = 0
    while at + 2 <= len(bundle):
        length = int.from_bytes(bundle[at : at + 2], "big")
        found.append(bundle[at + 2 : at + 2 + length])
        at += 2 + length
    if at != len(bundle) or len(found) != count:
        raise LedgerForked(f"entry bundle: expected {count} entries, found another number")
    return found


Source = Callable[[str], bytes]  # reads a file of a ledger by its name; FileNotFoundError where it is not there


class Tree:
    """A tree of `size` entries read from tiles, on disk or elsewhere; its caches do not grow with it."""

    def __init__(self, place: Path | Source, size: int) -> None:
        self.size = size
        self._source: Source = (lambda name: (place / name).read_bytes()) if isinstance(place, Path) else place
        self._tile = lru_cache(maxsize=64)(self._read_tile)
        self._folded = lru_cache(maxsize=64)(self._fold)

    def subtree(self, level: int, index: int) -> bytes:
        """Return the hash of the complete subtree `index` at `level` (0 = leaves)."""
        tile, below = divmod(level, 8)
        per_tile = WIDTH >> below
        rows = self._folded(tile, index // per_tile)
        return rows[below][index % per_tile]

    def bundle(self, index: int) -> list[bytes]:
        """Return the entries of bundle `index`."""
        width = min(WIDTH, self.size - index * WIDTH)
        return split_bundle(self._read("entries", index, width), width)

    def raw_bundle(self, index: int) -> bytes:
        """Return the bytes of bundle `index`."""
        return self._read("entries", index, min(WIDTH, self.size - index * WIDTH))

    def tile(self, level: int, index: int) -> bytes:
        """Return the hashes of a tile of this tree, joined."""
        return self._tile(level, index)

    def _read_tile(self, level: int, index: int) -> bytes:
        width = min(WIDTH, (self.size >> (8 * level)) - index * WIDTH)
        if width <= 0:
            raise LedgerForked(f"tile {tile_path(level, index)}: not in a tree of {self.size}")
        found = self._read(level, index, width)
        if len(found) != width * 32:
            raise LedgerForked(
                f"{tile_path(level, index, width)}: expected {width * 32} bytes, found {len(found)}",
                hint="bring the tile back from an auditor's package",
            )
        return found

    def _fold(self, level: int, index: int) -> list[list[bytes]]:
        """Return the hashes of a tile and, row by row, of all complete subtrees above them inside the tile."""
        hashes = self._tile(level, index)
        rows = [[hashes[at : at + 32] for at in range(0, len(hashes), 32)]]
        while len(rows) < 8:
            row = rows[-1]
            rows.append([node_hash(row[i], row[i + 1]) for i in range(0, len(row) - 1, 2)])
        return rows

    def _read(self, level: int | str, index: int, width: int) -> bytes:
        """Read a tile; while a partial one is wanted, the full one of a grown tree serves as well."""
        for wide in (width, WIDTH) if width < WIDTH else (WIDTH,):
            with contextlib.suppress(FileNotFoundError):
                found = self._source(tile_path(level, index, wide))
                if wide == width:
                    return found
                if level == "entries":
                    return join_bundle(split_bundle(found, WIDTH)[:width])
                return found[: width * 32]
        raise LedgerForked(
            f"{tile_path(level, index, width)}: missing from the ledger",
            hint="the folder is older than what was signed: bring the missing tiles back from an auditor's package",
        )


def write_files(folder: Path, files: Mapping[str, bytes], at: Callable[[str], None]) -> None:
    """Write new files durably: temporary name, flush, rename, flush of every folder touched.

    Raises LedgerForked if one exists with other bytes. `at` is told "temporary" before the first rename.
    """
    touched: set[Path] = set()
    pending: list[tuple[Path, Path]] = []
    for name, content in files.items():
        path = folder / name
        with contextlib.suppress(FileNotFoundError):
            if path.read_bytes() != content:
                raise LedgerForked(f"{name}: exists with other bytes", hint="run `fangxin verify` on the home")
            continue
        touched.update(_make_folders(path.parent, folder))
        temporary = path.with_name(f".{path.name}.new")
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        pending.append((temporary, path))
    at("temporary")
    for temporary, path in pending:
        temporary.rename(path)
        touched.add(path.parent)
    for parent in touched:
        sync_folder(parent)


def replace_file(path: Path, content: bytes) -> None:
    """Replace one small file atomically and durably."""
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder, so that names in it survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(folder: Path, size: int) -> None:
    """Delete every tile that reaches past `size`, temporary files, and partial tiles that a full one replaced."""
    base = folder / "tile"
    for here, _folders, names in os.walk(base, topdown=False):
        for name in names:
            path = Path(here) / name
            if name.startswith(".") or not _belongs(path.relative_to(base).as_posix(), size):
                path.unlink()
        if here != str(base):
            with contextlib.suppress(OSError):  # not empty: it stays
                Path(here).rmdir()


def _belongs(name: str, size: int) -> bool:
    """Tell whether a file below `tile/` may stay beside a tree of `size`: partial tiles do until the full one is."""
    parts = _TILE.fullmatch(name)
    if parts is None:
        return False
    level = 0 if parts[1] == "entries" else int(parts[1])
    index = int(parts[2].replace("x", "").replace("/", "") + parts[3])
    count = size >> (8 * level)
    if parts[4] is None:
        return index < count // WIDTH
    return index == count // WIDTH and int(parts[4]) <= count % WIDTH


def _make_folders(folder: Path, top: Path) -> list[Path]:
    """Create a folder and those above it, and return every folder whose list of names changed."""
    changed: list[Path] = []
    while not folder.is_dir() and folder != top:
        changed.append(folder)
        folder = folder.parent
    for one in reversed(changed):
        one.mkdir()
    return [*changed, folder] if changed else []

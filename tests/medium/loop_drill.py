"""Drill: real file systems on loop images; what refuses refuses there too, and what was destroyed is not in the image.

    make drill        (needs root, to mount; what this machine cannot try is named at the end)

Every row prints what was expected and what came. Exits 0 only if all rows tried came as expected.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from fangxin.data import extents
from fangxin.data.extents import Refused
from fangxin.data.medium import destroy, why_not

SIZES = {"ext4": 64, "xfs": 320, "btrfs": 128}  # MiB, of a sparse image; the smallest each takes
FORMAT = {"ext4": ("mkfs.ext4", "-q"), "xfs": ("mkfs.xfs", "-q"), "btrfs": ("mkfs.btrfs", "-q")}
rows: list[bool] = []
untried: list[str] = []


def tell(what: str, expected: str, came: str) -> None:
    """Print one row; `came` must hold `expected`, or be empty where nothing is expected."""
    good = expected in came if expected else came == ""
    rows.append(good)
    print(
        f"{'ok ' if good else 'BAD'}  {what}: {came or 'overwritable'}" + ("" if good else f" (expected {expected!r})")
    )


def run(*words: str | Path) -> None:
    """Run a tool of the system, quietly unless it fails."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{words[0]}: exit {done.returncode}: {done.stderr.strip()}")


@contextlib.contextmanager
def mounted(what: str | Path, kind: str, options: str) -> Iterator[Path]:
    """Mount something on a folder of its own for a while."""
    with tempfile.TemporaryDirectory() as folder:
        run("mount", "-t", kind, "-o", options, what, folder)
        try:
            yield Path(folder)
        finally:
            run("umount", folder)


@contextlib.contextmanager
def image(
    place: Path, fs: str, *, make: tuple[str, ...] = (), tune: tuple[str, ...] = (), options: str = "rw"
) -> Iterator[tuple[Path, Path]]:
    """Yield (mount point, image) of a fresh file system."""
    file = place / f"{fs}.img"
    with file.open("wb") as out:
        out.truncate(SIZES[fs] << 20)
    try:
        run(*FORMAT[fs], *make, file)
        if tune:
            run("tune2fs", *tune, file)
        with mounted(file, fs, f"loop,{options}") as folder:
            yield folder, file
    finally:
        file.unlink()


def unit(folder: Path, text: bytes = b"a row of somebody ", size: int = 40_000) -> Path:
    """Write and flush a file of ours."""
    path = folder / os.urandom(6).hex()
    with path.open("wb") as out:
        out.write((text * (size // len(text) + 1))[:size])
        out.flush()
        os.fsync(out.fileno())
    return path


def in_image(file: Path, needle: bytes) -> bool:
    """Whether the needle lies anywhere in the raw image."""
    os.sync()
    with file.open("rb") as raw, mmap.mmap(raw.fileno(), 0, prot=mmap.PROT_READ) as view:
        return view.find(needle) >= 0


def bytes_die(place: Path, fs: str, options: str) -> None:
    """Destroy one file and only unlink another; the image then holds the second one's bytes and not the first one's."""
    destroyed, unlinked = os.urandom(32), os.urandom(32)
    with image(place, fs, options=options) as (folder, file):
        tell(f"{fs}, {options}", "", why_not(unit(folder)))
        one, two = unit(folder, destroyed), unit(folder, unlinked)
        there = in_image(file, destroyed) and in_image(file, unlinked)
        destroy(one)
        two.unlink()
        tell(f"{fs}, {options}: before, in the image", "both", "both" if there else "not both")
        found = [name for name, needle in (("destroyed", destroyed), ("unlinked", unlinked)) if in_image(file, needle)]
        tell(f"{fs}, {options}: after, in the image", "only: unlinked", f"only: {', '.join(found)}")


def ext4(place: Path) -> None:
    """What ext4 refuses, and a full disk."""
    bytes_die(place, "ext4", "data=ordered")
    with image(place, "ext4", options="data=journal") as (folder, _):
        tell("ext4, data=journal as mount option", "data=journal", why_not(unit(folder)))
    with image(place, "ext4", tune=("-o", "journal_data")) as (folder, _):
        tell("ext4, data=journal from the superblock", "data=journal", why_not(unit(folder)))
    with image(place, "ext4", make=("-O", "inline_data", "-I", "1024")) as (folder, _):
        tell("ext4, inline data", "inside the inode", why_not(unit(folder, size=60)))
    with image(place, "ext4") as (folder, _):
        for flag, words in (("i", "immutable"), ("a", "append-only"), ("j", "through the journal")):
            path = unit(folder)
            if subprocess.run(["chattr", f"+{flag}", path], capture_output=True, check=False).returncode:
                untried.append(f"chattr +{flag} (not permitted)")
                continue
            tell(f"ext4, chattr +{flag}", words, why_not(path))
            run("chattr", f"-{flag}", path)
    with image(place, "ext4") as (folder, _):
        path = unit(folder)
        with (folder / "filler").open("wb", buffering=0) as out:
            for size in (1 << 16, 1 << 12, 1 << 12):  # what was set aside for delayed writes comes back with each flush
                with contextlib.suppress(OSError):
                    while out.write(bytes(size)):
                        pass
                os.sync()
        tell("ext4, full", "no space left on device", why_not(path))
        (folder / "filler").unlink()
        tell("ext4, room again", "", why_not(path))


def xfs(place: Path) -> None:
    """What xfs refuses."""
    bytes_die(place, "xfs", "rw")
    with image(place, "xfs") as (folder, _):
        path = unit(folder)
        run("cp", "--reflink=always", path, folder / "clone")
        tell("xfs, a clone", "snapshot or a clone", why_not(path))


def btrfs(place: Path) -> None:
    """Btrfs is refused by name; where its name is not asked, the probe finds it, except without data CoW."""
    with image(place, "btrfs") as (folder, _):
        run("btrfs", "subvolume", "create", folder / "volume")
        plain, still = folder / "volume", folder / "still"
        still.mkdir()
        run("chattr", "+C", still)
        tell("btrfs, a subvolume, by name", "copy-on-write: the file system btrfs", why_not(unit(plain)))
        tell("btrfs, without data CoW, by name", "copy-on-write: the file system btrfs", why_not(unit(still)))
        for what, there, expected in (("a subvolume", plain, "True"), ("without data CoW", still, "False")):
            moved = extents._moves(there, there.stat().st_dev)
            tell(f"btrfs, {what}: whether the probe moved", expected, str(moved))
        real, extents._file_system = extents._file_system, lambda _: "xfs"
        try:
            path = unit(plain)
            tell("btrfs under another name", "copy-on-write: the probe's extents moved", why_not(path))
            try:
                destroy(path)
                tell("btrfs under another name, destroyed", "refused", "not refused")
            except Refused as no:
                tell("btrfs under another name, destroyed", "the probe's extents moved", no.reason)
        finally:
            extents._file_system = real


def layers(place: Path) -> None:
    """An overlay and a tmpfs, which need no image."""
    for name in ("lower", "upper", "work"):
        (place / name).mkdir()
    lower = unit(place / "lower")
    options = f"lowerdir={place}/lower,upperdir={place}/upper,workdir={place}/work"
    with mounted("overlay", "overlay", options) as folder:
        tell("overlay, a lower file", "the file system overlay", why_not(folder / lower.name))
        tell("overlay, an upper file", "the file system overlay", why_not(unit(folder)))
    with mounted("tmpfs", "tmpfs", "size=1m") as folder:
        tell("tmpfs", "the file system tmpfs", why_not(unit(folder)))


def main() -> int:
    """Run the drill; 0 if every row came as expected."""
    if os.geteuid() != 0:
        raise SystemExit("medium drill: needs root, to mount loop images; nothing was tried")
    drills: dict[str, Callable[[Path], None]] = {"ext4": ext4, "xfs": xfs, "btrfs": btrfs, "layers": layers}
    for fs, drill in drills.items():
        if fs in FORMAT and shutil.which(FORMAT[fs][0]) is None:
            untried.append(f"{fs} ({FORMAT[fs][0]} is not installed)")
            continue
        with tempfile.TemporaryDirectory() as folder:
            drill(Path(folder))
    print(f"medium drill: {sum(rows)} of {len(rows)} rows as expected; not tried: {', '.join(untried) or 'nothing'}")
    return 0 if all(rows) else 1


if __name__ == "__main__":
    sys.exit(main())

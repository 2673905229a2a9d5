"""What is promised of keys in memory, looked for in the memory of a real process."""

from __future__ import annotations

import mmap
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fangxin.data.keys.material import KEY, Keys

COUNT = 5_000
FILL = """
import resource, sys
import numpy as np, pyarrow as pa
from fangxin.data.keys.envelope import Place, open_column, protect_column
from fangxin.data.keys.material import Keys
from fangxin.data.keys.memory import no_core_dumps

no_core_dumps()
count, chance = int(sys.argv[1]), np.random.default_rng(11)
values = pa.array([f"13{i:09d}" for i in range(count)])
mixed = pa.array([f"{i}" * (1 + i % 3) for i in range(count)])
with Keys.empty(count) as keys:
    keys.raw.view(np.float64)[:] = 0
    chance.random(out=keys.raw.view(np.float64))
    keys.found[:] = True
    for column in (values, mixed):
        for rows in (None, [str(i) for i in range(count)]):
            place = Place(bytes(16), 1, "d", "c", "f")
            made = protect_column(column, keys, place, rows, suite=2)
            assert open_column(made, keys, place, rows, pa.string()).values.equals(column)
    with keys.take(np.arange(count)[::-1]) as turned:
        assert (turned.raw[0] == keys.raw[-1]).all()
    print("held", *resource.getrlimit(resource.RLIMIT_CORE), flush=True)
    sys.stdin.readline()
print("wiped", flush=True)
sys.stdin.readline()
"""


def test_after_use_no_key_is_left_in_the_process() -> None:
    raw = np.random.default_rng(11).random((COUNT, 4)).view(np.uint8)
    whole = [raw[i].tobytes() for i in (0, 1234, COUNT - 1)]
    lanes = [np.ascontiguousarray(raw[:8].view("<u4")[:, word]).tobytes() for word in range(8)]  # as words in rows
    with subprocess.Popen(
        [sys.executable, "-c", FILL, str(COUNT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        held = child.stdout.readline().split()
        assert held[0] == "held"
        assert int(held[1]) <= 1, "no core file"
        assert found(child.pid, whole) == set(whole), "or the search would find nothing at all"
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.stdout.readline() == "wiped\n"
        assert found(child.pid, [*whole, *lanes]) == set()
        child.stdin.write("\n")


def found(pid: int, secrets: list[bytes]) -> set[bytes]:
    """Which of the secrets stand in memory that the process may write to."""
    seen = set()
    proc = Path(f"/proc/{pid}")
    with (proc / "mem").open("rb", buffering=0) as memory, (proc / "pagemap").open("rb", buffering=0) as pages:
        for line in (proc / "maps").read_text().splitlines():
            where, rights = line.split()[:2]
            start, end = (int(one, 16) for one in where.split("-"))
            if not rights.startswith("rw"):
                continue
            for at, size in there(pages.fileno(), start, end):
                try:
                    body = os.pread(memory.fileno(), size, at)
                except OSError:  # pages without a content, such as the kernel's
                    continue
                seen |= {one for one in secrets if one in body}
    return seen


def there(pagemap: int, start: int, end: int) -> list[tuple[int, int]]:
    """The stretches of a mapping that are in memory or in swap (Documentation/admin-guide/mm/pagemap.rst)."""
    page = mmap.PAGESIZE
    entries = np.frombuffer(os.pread(pagemap, 8 * ((end - start) // page), 8 * (start // page)), np.uint64)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], entries >> np.uint64(62) != 0, [0]]).astype(np.int8)))
    return [(start + int(a) * page, int(b - a) * page) for a, b in edges.reshape(-1, 2)]


def test_a_page_of_keys_or_more_is_left_out_of_dumps_and_locked_where_that_is_allowed() -> None:
    keys = Keys.empty(10 * mmap.PAGESIZE // KEY)
    flags = _flags(keys.raw.ctypes.data)
    assert "dd" in flags
    most, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    assert "lo" in flags or (most != resource.RLIM_INFINITY and most < 1 << 20)


def test_keys_refuse_to_leave_the_process_and_print_a_count_only() -> None:
    keys = Keys(np.full((3, KEY), 0xAB, np.uint8), np.array([True, False, True]))
    assert repr(keys) == "Keys(2 of 3)"
    with pytest.raises(TypeError, match="do not leave"):
        keys.__reduce_ex__(5)  # what pickle asks for
    with keys, keys.take(np.array([2, 0])) as taken:
        assert taken.raw.tobytes() == b"\xab" * 64
        with pytest.raises(IndexError):
            keys.take(np.array([3]))
    assert not keys.raw.any()
    assert not taken.raw.any()


def _flags(address: int) -> list[str]:
    """The kernel's flags of the mapping that holds an address."""
    here = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first:
            start, end = (int(one, 16) for one in first.split("-"))
            here = start <= address < end
        elif here and first == "VmFlags:":
            return line.split()[1:]
    return []

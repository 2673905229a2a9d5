"""What we do for keys in memory: they are left out of core dumps, kept from swap where allowed, and overwritten.

* Buffers of a page or more are pages of their own: marked MADV_DONTDUMP, and locked if the limit on locked memory
  lets us. Smaller ones lie among other objects; all are zeroed by whoever holds them.
* A process that opens a vault writes no core file. A limit of one byte stops both the file and a pipe to a collector,
  for which the kernel ignores a limit of zero (core(5)).
* No promise: OpenSSL's contexts, Python's own copies, hibernation and snapshots of a virtual machine (docs/limits.md).
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import resource

import numpy as np
import numpy.typing as npt


def room(count: int, width: int) -> npt.NDArray[np.uint8]:
    """Zeroed memory for secrets, (count, width) bytes."""
    size = count * width
    if size < mmap.PAGESIZE:
        return np.zeros((count, width), np.uint8)
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    found = np.frombuffer(pages, np.uint8).reshape(count, width)  # keeps the pages for as long as it lives
    with contextlib.suppress(OSError, AttributeError):  # a kernel, or a system, without it
        pages.madvise(mmap.MADV_DONTDUMP)
    _lock(found)
    return found


def no_core_dumps() -> None:
    """From now on this process and its children leave no core file behind."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0 if most == 0 else 1, most))


def _lock(memory: npt.NDArray[np.uint8]) -> None:
    # Freed pages are unlocked by the kernel. Refused beyond RLIMIT_MEMLOCK: then the memory may be swapped.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mlock(ctypes.c_void_p(memory.ctypes.data), ctypes.c_size_t(memory.nbytes))

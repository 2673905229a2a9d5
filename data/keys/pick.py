"""Keys out of many pages of the file in one native call, for reads that want a good part of a large vault.

With hardly two keys wanted of each page, a step of Python a page costs as much as all of its cryptography, and a step
of numpy touches pages that the processor has forgotten since the last one. `pick.ll` takes each page through all steps
while it is at hand: what `page.open_leaves` and `Sheet.find` do for many pages, one step after the other.

The opening is libsodium's own, called by its address. The loop around it becomes machine code when first asked for
(llvmlite, of the extra `fast`: 0.06 s of CPU, and nothing is kept on a disk). Where one of both is missing, those two
do the work.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fangxin.data.keys import page as pages
from fangxin.data.keys.gcm import Bytes, Numbers, Sodium, Texts, library
from fangxin.data.keys.mapped import PAGE

LOOP = Path(__file__).with_suffix(".ll")
POINTERS = "pqppppppqpppppppp"  # of its arguments: p is a pointer, q a number


class Pick:
    """The loop as machine code, which lives as long as this does. ImportError where it cannot be had."""

    def __init__(self) -> None:
        sodium, llvm = library(), _llvm()
        if not isinstance(sodium, Sodium):
            raise ImportError("libsodium is not in use")
        self._open = sodium.address()
        module = llvm.parse_assembly(LOOP.read_text("utf-8"))
        module.verify()
        machine = llvm.Target.from_default_triple().create_target_machine(opt=2)
        self._engine: Any = llvm.create_mcjit_compiler(module, machine)  # Any: llvmlite has no types
        self._engine.finalize_object()
        kinds = (ctypes.c_void_p if kind == "p" else ctypes.c_uint64 for kind in POINTERS)
        self._loop = ctypes.CFUNCTYPE(None, *kinds)(self._engine.get_function_address("pick"))

    def __call__(
        self, bodies: Texts, keys: Bytes, nodes: Numbers, first: Numbers, by: Numbers, names: Bytes,
        raw: Bytes, found: npt.NDArray[np.bool_], *, tree_id: bytes, level: int,
    ) -> npt.NDArray[np.bool_]:  # fmt: skip
        """Put the keys with these names (N, 13) into `raw` (N, 32) and mark them in `found`; which pages opened.

        Page i: its body, key and row, and the names by[first[i]] to by[first[i + 1] - 1] that are asked of it. Nobody
        may have looked at the bodies: they are copied first, and what does not open tells nothing.
        """
        opened, scratch = np.zeros(len(nodes), np.bool_), np.zeros(2 * PAGE, np.uint8)
        bound = np.frombuffer(pages.aad(tree_id, 0, level, 0), np.uint8).copy()
        head = int.from_bytes(pages.HEAD.pack(pages.LEAF, level, 0, 0), "little")
        texts = _flat(bodies.at, bodies.size, keys, nodes)
        asked = _flat(first, by, names, scratch[:PAGE], scratch[PAGE:], opened, raw, found)
        try:
            self._loop(self._open, len(nodes), *_flat(bodies.memory), *texts, *_flat(bound), head, *asked)
        finally:
            scratch[:] = 0
        return opened


@cache
def picker() -> Pick | None:
    """The loop, if it can be had here."""
    with contextlib.suppress(ImportError, OSError):
        return Pick()
    return None


def _flat(*arrays: npt.NDArray[Any]) -> list[int]:
    # Where arrays lie whose rows follow each other; the caller holds them.
    if not all(array.flags.c_contiguous for array in arrays):
        raise ValueError("rows do not follow each other")
    return [array.ctypes.data for array in arrays]


def _llvm() -> Any:
    llvm: Any = importlib.import_module("llvmlite.binding")
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm

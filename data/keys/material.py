"""Keys while they are in use: one numpy buffer that can be wiped, and that refuses to leave the process."""

from __future__ import annotations

from typing import NoReturn, Self

import numpy as np
import numpy.typing as npt

from fangxin.data.keys.memory import room

KEY = 32  # bytes of every key


class Keys:
    """N keys as (N, 32) uint8 and a mask of those that exist. Prints only a count; wiped at the end of `with`.

    Wiping clears this buffer; copies inside OpenSSL, SQLite or swap are beyond us, and docs/limits.md says so.
    """

    __slots__ = ("found", "raw")

    def __init__(self, raw: npt.NDArray[np.uint8], found: npt.NDArray[np.bool_]) -> None:
        if raw.shape != (len(found), KEY):
            raise ValueError("keys are an (N, 32) array beside N marks")
        self.raw = raw
        self.found = found

    @classmethod
    def empty(cls, count: int) -> Self:
        """Room for `count` keys, none of them found yet."""
        return cls(room(count, KEY), np.zeros(count, np.bool_))

    def take(self, which: npt.NDArray[np.integer]) -> Keys:
        """The keys at these places, repeated as asked: from the distinct refs of a batch to its rows."""
        taken = Keys(room(len(which), KEY), self.found[which])  # complains of a place that is none
        np.take(self.raw, which, axis=0, out=taken.raw, mode="wrap")  # "raise" would go through a copy of its own
        return taken

    def view(self, number: int) -> memoryview[int]:
        """One key without copying it."""
        return memoryview(self.raw[number])

    def wipe(self) -> None:
        """Overwrite the buffer with zeros and forget what was found."""
        self.raw.fill(0)
        self.found.fill(False)

    def __len__(self) -> int:
        return len(self.found)

    def __repr__(self) -> str:
        return f"Keys({int(self.found.sum())} of {len(self)})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wipe()

    def __reduce__(self) -> NoReturn:
        raise TypeError("keys do not leave the process: fetch them again where they are needed")

    def __copy__(self) -> NoReturn:
        self.__reduce__()

    def __deepcopy__(self, memo: object) -> NoReturn:
        self.__reduce__()

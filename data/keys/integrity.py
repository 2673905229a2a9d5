"""Is the whole vault sound? Every page opens, every entry lies in its bucket, in order, once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fangxin.data.errors import VaultDamaged
from fangxin.data.keys import page as pages
from fangxin.data.keys.walk import State, Walk


@dataclass(frozen=True)
class Examined:
    """What a whole vault holds, counted page by page."""

    pages: int  # that live
    keys: int
    subjects: int  # with at least one key
    domains: Mapping[int, int]  # keys by the code of their domain
    fullest: int  # entries in the fullest bucket
    unscrubbed: int  # rows that do not live; the next writer deletes them
    buckets: int

    @property
    def load(self) -> float:
        """Keys a bucket, on average; above 100 it is time to grow."""
        return self.keys / self.buckets


def examined(walk: Walk, state: State) -> Examined:
    """Open every page of the tree. VaultDamaged names the first page that is not as it must be."""
    keys = subjects = fullest = 0
    domains: Counter[int] = Counter()
    shape = walk.shape
    for leaves in walk.all_leaves(state):
        names = np.ascontiguousarray(leaves.rows[:, : pages.TAGGED])
        owners = np.repeat(leaves.buckets, leaves.counts)
        same = owners[1:] == owners[:-1]
        ascending = _ascending(names)
        strays = owners[shape.buckets_of(names) != owners]
        unsorted = owners[1:][same & ~ascending]
        for wrong, what in ((strays, "holds an entry of another bucket"), (unsorted, "is not in order")):
            if len(wrong):
                number = shape.page(shape.depth, int(wrong[0]))
                raise VaultDamaged(
                    f"page {number} of the key vault {what} at generation {state.living.generation}",
                    hint="`fangxin keys restore` brings back the newest copy that opens",
                )
        keys += len(names)
        others = (names[1:, : pages.ADDRESS] != names[:-1, : pages.ADDRESS]).any(axis=1)
        subjects += int(others.sum()) + bool(len(names))
        fullest = max(fullest, int(leaves.counts.max(initial=0)))
        codes, counts = np.unique(names[:, pages.ADDRESS], return_counts=True)
        domains.update(dict(zip(codes.tolist(), counts.tolist(), strict=True)))
    alive = walk.alive(state)
    dead = sum(node not in alive for node in walk.file.nodes())
    known = dict(sorted(domains.items()))
    return Examined(len(alive), keys, subjects, known, fullest, dead, shape.buckets)


def _ascending(names: np.ndarray[tuple[int, int], np.dtype[np.uint8]]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    text = names.view(f"S{pages.TAGGED}")[:, 0]
    return text[1:] > text[:-1]

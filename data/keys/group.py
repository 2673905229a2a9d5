"""Group commit: writes that threads ask for at the same time go into one transaction, so they share one fsync.

Whoever comes first writes for all who wait; each gets its own outcome, and one that is refused spoils no other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(eq=False)
class Wish:
    """Keys that somebody wants to exist: every ref in every domain."""

    refs: Sequence[bytes]
    domains: Sequence[int]
    newcomers: bool
    done: bool = False
    error: BaseException | None = None


class Group:
    """Collects wishes while one thread writes. `write` fulfils or refuses each, all in one transaction."""

    def __init__(self, write: Callable[[Sequence[Wish]], None]) -> None:
        self._write = write
        self._waiting: list[Wish] = []
        self._queue = threading.Lock()
        self._leader = threading.Lock()

    def fulfil(self, wish: Wish) -> None:
        """Return when the wish is durable, or raise why it was refused."""
        with self._queue:
            self._waiting.append(wish)
        with self._leader:
            if not wish.done:
                with self._queue:
                    together, self._waiting = self._waiting, []
                try:
                    self._write(together)
                except BaseException as error:
                    for one in together:
                        one.error = one.error or error
                finally:
                    for one in together:
                        one.done = True
        if wish.error is not None:
            raise wish.error

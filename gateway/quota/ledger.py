"""Where it is written down what keys have used: here in memory; `sqlite` and `redis` share it."""

import time
from collections.abc import Callable
from typing import Protocol

from gateway.quota.book import Ask, Book, Told, exchange
from gateway.quota.limits import Limits


class Ledger(Protocol):
    """Counts for all workers that share it. Verbs may be called concurrently, from one loop."""

    name: str
    """"memory", "sqlite" or "redis"."""

    async def exchange(self, key: str, limits: Limits, ask: Ask) -> Told:
        """Take a worker's report of a key down and answer it; see book.exchange.

        Safe to repeat, but for wishes: one whose answer was lost may have been granted. Bounds
        its time by itself. Raises gateway.cache.store.StoreError.
        """
        ...

    async def aclose(self) -> None:
        """Finish what was begun, and let go of everything."""
        ...


class MemoryLedger:
    """Counts for this process alone, as long as it lives."""

    name = "memory"

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._books: dict[str, Book] = {}

    async def exchange(self, key: str, limits: Limits, ask: Ask) -> Told:
        """See Ledger.exchange."""
        book = self._books.setdefault(key, Book())
        return exchange(book, limits, ask, self._now())

    async def aclose(self) -> None:
        """See Ledger.aclose."""

"""A store as the cache uses it: one that fails costs a miss, and for a while nothing at all."""

import asyncio
from collections.abc import Mapping, Sequence

import structlog

from gateway.cache.keys import Key
from gateway.cache.store import CacheStore, Namespace, StoreError
from gateway.resilience.breaker import Breaker

PLACES = 24
"""Reads and writes under way; who comes later waits for his turn, and not at the store, for which
it would be a slow answer. Fewer than the connections to a Redis: the watcher needs one."""

_FOR_WRITES_ONLY = frozenset({"full", "readonly"})
"""Reasons for which a store may refuse new entries and still have the old ones."""


class Tier:
    """One store behind two breakers, for reads and for writes. Its verbs never raise StoreError.

    It is used once it is `known`: once its secret turned out to be ours. Every change of state is
    one line in the log.
    """

    def __init__(self, store: CacheStore, log: structlog.stdlib.BoundLogger) -> None:
        self.store = store
        self.name = store.name
        self.known = False
        self.epoch: bytes | None = None
        """What it called itself when it was last met; a store that begins anew has another."""
        self.reading = Breaker()
        self.writing = Breaker()
        self._log = log.bind(tier=store.name)
        self._foreign = False
        self._full = False
        self._write_failed = False
        """Whether the last write did, for whatever reason."""
        self._reads = asyncio.Semaphore(PLACES // 2)
        self._writes = asyncio.Semaphore(PLACES // 2)

    @property
    def writable(self) -> bool:
        """Whether an entry can be expected to be kept now."""
        return self.known and not self.writing.is_open

    @property
    def pause(self) -> float:
        """Seconds until somebody should look after it again."""
        return min(self.reading.pause, self.writing.pause)

    async def get(self, namespace: Namespace, keys: Sequence[Key]) -> Mapping[Key, bytes]:
        """See CacheStore.get; a store that fails has nothing."""
        async with self._reads:
            # Asked in here: it may have failed somebody else while we waited.
            if not self.known or self.reading.is_open:
                return {}
            try:
                return await self.store.get(namespace, keys)
            except StoreError as error:
                self.failed(error)
                return {}

    async def add(
        self, namespace: Namespace, values: Mapping[Key, bytes], *, probing: bool = False
    ) -> Mapping[Key, bytes] | None:
        """See CacheStore.add; None where it is not known whether anything was kept.

        `probing` tries although the last write failed, to see whether it is over.
        """
        async with self._writes:
            if not self.writable and not (self.known and probing):
                return None
            try:
                held = await self.store.add(namespace, values)
            except StoreError as error:
                self.failed(error, writing=True)
                return None
        self.may_be_written()
        self._write_failed = False
        if self._full:
            self._full = False
            self._log.warning("cache takes new entries again")
        return held

    async def discard(self, namespace: Namespace, values: Mapping[Key, bytes]) -> None:
        """See CacheStore.discard."""
        if not self.writable:
            return
        try:
            await self.store.discard(namespace, values)
        except StoreError as error:
            self.failed(error, writing=True)

    def failed(self, error: StoreError, *, writing: bool = False) -> None:
        """Take note that a verb failed."""
        self.writing.failed()
        # Who fails a write, answers, and fails a write again, is there and takes nothing.
        again = self._write_failed and not self.reading.is_open
        self._write_failed = self._write_failed or writing
        if writing and (error.reason in _FOR_WRITES_ONLY or again):
            if not self._full:
                self._full = True
                said = str(error)
                self._log.warning("cache takes no new entries", reason=error.reason, error=said)
        elif self.reading.failed():
            self._log.warning("cache is away", reason=error.reason, error=str(error))

    def answered(self) -> None:
        """Take note that it can be read."""
        if self.reading.worked() and not self._foreign:
            self._log.warning("cache is back")

    def may_be_written(self) -> None:
        """Let the next write find out whether it can be written to."""
        self.writing.worked()

    def refuse(self, *, foreign: bool) -> None:
        """Use the store no more, or again: its entries were made with another secret than ours."""
        self.known = not foreign
        if self._foreign and not foreign:
            self._log.warning("cache is back")
        if foreign and not self._foreign:
            self._log.error(
                "cache is not used: it was made with another secret; set [cache] secret to that "
                "one, or use another store"
            )
        self._foreign = foreign

"""All the accounts of a process. They outlive a change of the config, and so does this."""

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress

import structlog

from gateway.config import Cache, Key, SqliteAddress
from gateway.quota.account import KeyAccount
from gateway.quota.desk import Desk
from gateway.quota.ledger import Ledger, MemoryLedger
from gateway.quota.limits import Limits, nanos_of
from gateway.quota.reach import Reach
from gateway.types import Account


class Quotas:
    """Hands out accounts, and keeps what they need: nothing, as long as no key has limits."""

    def __init__(
        self,
        cache: Cache,
        workers: int,
        log: structlog.stdlib.BoundLogger,
        *,
        on_change: Callable[[bool], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """The ledger is where the cache's authority is; `on_change`: see Reach."""
        self._cache = cache
        self._workers = workers
        self._log = log
        self._on_change = on_change
        self._clock = clock
        self._now = now
        self._worker = os.urandom(6).hex()
        self._reach: Reach | None = None
        self._desks: dict[str, Desk] = {}
        self._looking: asyncio.Task[None] | None = None

    def account(self, key: Key) -> Account | None:
        """Return the account of a key of the config; None for one without limits.

        What it has used so far counts on, whatever its limits were.
        """
        limits = limits_of(key)
        if not limits.any:
            return None
        desk = self._desks.get(key.name)
        if desk is None:
            reach = self._reach = self._reach or self._open()
            desk = Desk(key.name, self._worker, reach, self._clock, self._now)
            self._desks[key.name] = desk
        return KeyAccount(desk, limits)

    async def start(self) -> None:
        """Begin to look after the ledger."""
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())

    async def aclose(self) -> None:
        """Tell the ledger all that it does not know yet; after the last request."""
        if self._looking is not None:
            self._looking.cancel()
            with suppress(asyncio.CancelledError):
                await self._looking
        await asyncio.gather(*(desk.aclose() for desk in self._desks.values()))
        if self._reach is not None:
            await self._reach.aclose()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(self._reach.pause if self._reach else 1.0)
            restless = [desk for desk in self._desks.values() if desk.restless]
            if self._reach is not None and self._reach.away:
                self._reach.probe()
                restless = restless or list(self._desks.values())[:1]
            for desk in restless:
                desk.refresh()

    def _open(self) -> Reach:
        return Reach(open_ledger(self._cache, self._log), self._workers, self._log, self._on_change)


def limits_of(key: Key) -> Limits:
    """Return what the config lets a key use."""
    dollars = key.usd_per_day
    return Limits(
        requests=key.requests_per_minute,
        tokens=key.tokens_per_minute,
        places=key.concurrent_requests,
        nanos=None if dollars is None else nanos_of(dollars),
    )


def open_ledger(cache: Cache, log: structlog.stdlib.BoundLogger) -> Ledger:
    """Return the ledger beside the cache's authority. It connects when it is first asked."""
    if not cache.store:
        return MemoryLedger()
    authority = cache.store[-1]
    if isinstance(authority, SqliteAddress):
        from gateway.quota.sqlite import SqliteLedger

        path = authority.path
        return SqliteLedger(path.with_name(path.name + ".limits"), log=log)
    from gateway.quota.redis import RedisLedger

    return RedisLedger(authority.url.reveal(), cluster=authority.cluster)

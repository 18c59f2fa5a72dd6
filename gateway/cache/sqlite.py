"""The tier on this machine's disk: one SQLite file, shared by all workers and commands.

Two threads: one reads, the other writes all that waits for it in one transaction, so that many
small writes cost hardly more than one. A write is answered after its commit; what was answered
survives the end of the process, but the last of it perhaps not a loss of power.
"""

import asyncio
import math
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from weakref import finalize

import structlog

from gateway.cache import sqlite_rows
from gateway.cache.keys import Key
from gateway.cache.record import created, expires
from gateway.cache.sqlite_database import Database
from gateway.cache.sqlite_lane import Lane, Work
from gateway.cache.sqlite_rows import Held, Row
from gateway.cache.store import Namespace, StoreError, Usage

_OF_NO_SINGLE_JOB = frozenset({"timeout", "readonly", "corrupt"})
"""Reasons for which all jobs of a transaction would fail, each after the same wait."""
_TOGETHER = 2**24
"""Bytes of values in one transaction, which others wait for, besides those of its last add."""
_NOTED_EVERY = 3600.0
"""Seconds for which it is not noted again that an entry was used."""
_SCANNED = 128
_PURGED = 512
_SHRUNK = 256
_PAUSE = 0.025
"""Seconds between two transactions of a purge, about as long as one takes. SQLite has no queue: who
waits looks again after 25 ms, and would hardly ever find the file free."""
_REMOVED = 256
"""Expired rows that a transaction removes besides two for each that it adds."""
_EVICTED = 2**22
"""Bytes that a transaction evicts if need be, or twice what it adds."""
_ROOMY = 0.95
_ALL = 2**63 - 1


class SqliteStore:
    """Keeps values in the SQLite database at `path`; it and its directory are made if missing.

    Beyond `max_bytes` the least recently used make room, down to 95 %: bytes of values and a
    little for each row, so the file may be larger. Entries count as gone when `ttl` seconds after
    they were made have passed, see record.expires. A damaged file is set aside as
    `<name>.corrupt-<time>`, and the store begins anew, with another fact `epoch`.
    """

    name = "sqlite"

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int | None = None,
        ttl: float | None = None,
        log: structlog.stdlib.BoundLogger,
        clock: Callable[[], float] = time.time,
    ) -> None:
        path = Path(os.path.realpath(path))  # SQLite names its files after it
        self._ttl = ttl
        self._clock = clock
        self._notes_use = max_bytes is not None
        self._reads = Database(path, writing=False, log=log, clock=clock)
        self._writes = Database(path, writing=True, log=log, clock=clock)
        self._writer = _Writer(self._writes, max_bytes, ttl, clock)
        self._reading = Lane("sqlite-reader", partial(_each, self._reads), self._reads.close)
        self._writing = Lane(
            "sqlite-writer", self._writer.run, self._writer.end, together=_TOGETHER
        )
        # The threads do not know this object, so that they end when it is forgotten.
        finalize(self, _stop, self._reading, self._writing).atexit = False

    async def get(self, namespace: Namespace, keys: Sequence[Key]) -> Mapping[Key, bytes]:
        """See CacheStore.get."""
        now = self._clock()
        unused_since = now - _NOTED_EVERY if self._notes_use else -1.0
        rows, idle = await self._reading.ask(
            partial(
                sqlite_rows.find,
                namespace=namespace,
                keys=list(keys),
                unused_since=unused_since,
            )
        )
        if idle:
            self._writing.tell(partial(sqlite_rows.touch, ids=idle, now=now))
        return _alive(rows, self._ttl, now)

    async def add(self, namespace: Namespace, values: Mapping[Key, bytes]) -> Mapping[Key, bytes]:
        """See CacheStore.add."""
        add = partial(_add, namespace, dict(values), self._ttl, self._clock())
        return await self._writing.ask(add, sum(map(len, values.values())))

    async def discard(self, namespace: Namespace, values: Mapping[Key, bytes]) -> int:
        """See CacheStore.discard."""
        return await self._writing.ask(
            partial(sqlite_rows.discard, namespace=namespace, values=dict(values))
        )

    async def facts(self) -> Mapping[str, bytes]:
        """See CacheStore.facts; this is also how a new file at the path is noticed in time."""
        facts = await self._reading.ask(sqlite_rows.facts)
        if self._writes.file not in {None, self._reads.file}:
            self._writing.tell(sqlite_rows.held)  # so that the writer lets go of the old one too
        return facts

    async def settle(self, name: str, value: bytes) -> bytes:
        """See CacheStore.settle."""
        kept = (await self.facts()).get(name)
        if kept is not None:
            return kept
        return await self._writing.ask(partial(sqlite_rows.settle, name=name, value=value))

    async def swap(self, name: str, old: bytes, new: bytes) -> bool:
        """See CacheStore.swap."""
        return await self._writing.ask(partial(sqlite_rows.swap, name=name, old=old, new=new))

    async def usage(self) -> Usage:
        """See CacheStore.usage."""
        held = await self._reading.ask(sqlite_rows.held)
        return Usage(held.entries, held.bytes, self._writer.evicted)

    async def namespaces(self) -> Mapping[Namespace, Usage]:
        """See Inspectable.namespaces."""
        return await self._reading.ask(sqlite_rows.namespaces)

    async def scan(self, namespace: Namespace) -> AsyncIterator[Mapping[Key, bytes]]:
        """See Inspectable.scan; each batch is a read of its own, and holds nobody up."""
        after: Key | None = b""
        while after is not None:
            rows, after = await self._reading.ask(
                partial(sqlite_rows.page, namespace=namespace, after=after, limit=_SCANNED)
            )
            values = _alive(rows, self._ttl, self._clock())
            if values:
                yield values

    async def purge(self, namespace: Namespace, before: float | None) -> int:
        """See Inspectable.purge; in many short transactions, and gives free space back."""
        purge = partial(
            sqlite_rows.purge,
            namespace=namespace,
            before=math.inf if before is None else before,
            limit=_PURGED,
        )
        removed = await self._bit_by_bit(purge)
        await self._bit_by_bit(partial(sqlite_rows.shrink, pages=_SHRUNK))
        return removed

    async def _bit_by_bit(self, step: Work[int]) -> int:
        """Repeat a step until it finds nothing, letting others write in between; return the sum."""
        total = 0
        while done := await self._writing.ask(step):
            total += done
            await asyncio.sleep(_PAUSE)
        return total

    async def aclose(self) -> None:
        """See CacheStore.aclose."""
        await self._reading.aclose()
        await self._writing.aclose()


class _Writer:
    """What the writing thread does with the jobs that wait: one transaction, one commit."""

    def __init__(
        self,
        database: Database,
        max_bytes: int | None,
        ttl: float | None,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._max_bytes = max_bytes
        self._ttl = ttl
        self._clock = clock
        self.evicted = 0

    def run(self, works: Sequence[Work[Any]]) -> list[Any]:
        """Return what came of each; what one of them did wrong is not the others' fault."""
        try:
            outcomes, evicted = self._database.run(partial(self._transact, works))
        except Exception as failure:  # noqa: BLE001 - the border of a thread: the callers raise it
            if len(works) == 1:
                return [failure]
            if isinstance(failure, StoreError) and failure.reason in _OF_NO_SINGLE_JOB:
                return [StoreError(failure.reason, str(failure)) for _ in works]
            return [outcome for work in works for outcome in self.run([work])]
        self.evicted += evicted
        return outcomes

    def end(self) -> None:
        """Leave as little as possible for who closes the file last."""
        if self._database.file is not None:
            with suppress(StoreError):
                self._database.run(_checkpoint)
        self._database.close()

    def _transact(
        self, works: Sequence[Work[Any]], connection: sqlite3.Connection
    ) -> tuple[list[Any], int]:
        connection.execute("BEGIN IMMEDIATE")
        before = sqlite_rows.held(connection)
        outcomes = [work(connection) for work in works]
        evicted = self._make_room(connection, before)
        connection.execute("COMMIT")
        return outcomes, evicted

    def _make_room(self, connection: sqlite3.Connection, before: Held) -> int:
        """Remove what is too old or too much, not much more than was added; return what made room.

        What was just added stays, unless it alone is too much.
        """
        added = sqlite_rows.held(connection).newest - before.newest
        if self._ttl is not None:
            oldest = self._clock() - self._ttl
            sqlite_rows.remove_expired(connection, oldest, _REMOVED + 2 * max(0, added))
        after = sqlite_rows.held(connection).bytes
        if self._max_bytes is None or after <= self._max_bytes:
            return 0
        excess = after - int(self._max_bytes * _ROOMY)
        most = max(2 * (after - before.bytes), _EVICTED)
        removed, freed = sqlite_rows.evict(connection, min(excess, most), before.newest)
        if freed < min(excess, most) and after - freed > self._max_bytes:
            removed += sqlite_rows.evict(connection, after - freed - self._max_bytes, _ALL)[0]
        return removed


def _each(database: Database, works: Sequence[Work[Any]]) -> list[Any]:
    """Do one job after the other, and return what came of each."""
    outcomes: list[Any] = []
    for work in works:
        try:
            outcomes.append(database.run(work))
        except Exception as failure:  # noqa: BLE001 - the border of a thread
            outcomes.append(failure)
    return outcomes


def _add(
    namespace: Namespace,
    values: Mapping[Key, bytes],
    ttl: float | None,
    now: float,
    connection: sqlite3.Connection,
) -> Mapping[Key, bytes]:
    """Add what is not there, and return what is; an entry that has expired counts as gone."""
    rows, _ = sqlite_rows.find(connection, namespace, list(values))
    first = _alive(rows, ttl, now)
    if len(first) < len(rows):
        gone = [row.key for row in rows if row.key not in first]
        sqlite_rows.remove(connection, namespace, gone)
    new = [Row(key, values[key], _made(values[key], now)) for key in values if key not in first]
    if new:
        sqlite_rows.insert(connection, namespace, new, now)
    return first


def _made(value: bytes, now: float) -> float:
    made = created(value)
    return made if 0 < made < math.inf else now


def _alive(rows: Sequence[Row], ttl: float | None, now: float) -> dict[Key, bytes]:
    return {
        row.key: row.value
        for row in rows
        if ttl is None or now < expires(row.key, row.created, ttl)
    }


def _checkpoint(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def _stop(*lanes: Lane) -> None:
    for lane in lanes:
        lane.stop()

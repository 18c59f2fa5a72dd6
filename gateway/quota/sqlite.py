"""The ledger of one machine: a SQLite file of its own beside the cache, shared by all workers."""

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any
from weakref import finalize

import msgspec
import structlog

from gateway.cache.sqlite_database import Database
from gateway.cache.sqlite_file import Layout
from gateway.cache.sqlite_lane import Lane, Work
from gateway.cache.store import StoreError
from gateway.quota.book import Ask, Book, Told, exchange
from gateway.quota.limits import Limits

_LIMITS = Layout(
    1,
    int.from_bytes(b"EGWl"),
    """
PRAGMA journal_mode = WAL;
BEGIN;
CREATE TABLE facts (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE books (key TEXT PRIMARY KEY, book BLOB NOT NULL) WITHOUT ROWID;
COMMIT;
""",
)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Book).decode


class SqliteLedger:
    """Counts in the database at `path`, made if it is missing; one transaction an exchange.

    What was answered survives the end of the process. An exchange has `budget` seconds. A damaged
    file is set aside, as the cache's is, and counting begins anew.
    """

    name = "sqlite"

    def __init__(
        self,
        path: Path,
        *,
        log: structlog.stdlib.BoundLogger,
        budget: float = 0.25,
        clock: Callable[[], float] = time.time,
    ) -> None:
        path = Path(os.path.realpath(path))  # SQLite names its files after it
        database = Database(path, writing=True, log=log, clock=clock, layout=_LIMITS)
        self._lane = Lane("sqlite-limits", partial(_each, database), database.close)
        self._budget = budget
        self._clock = clock
        # The thread does not know this object, so that it ends when it is forgotten.
        finalize(self, self._lane.stop).atexit = False

    async def exchange(self, key: str, limits: Limits, ask: Ask) -> Told:
        """See Ledger.exchange."""
        work = partial(_exchange, key=key, limits=limits, ask=ask, clock=self._clock)
        try:
            async with asyncio.timeout(self._budget):
                return await self._lane.ask(work)
        except TimeoutError as late:
            raise StoreError("timeout", "the file did not answer in time") from late

    async def aclose(self) -> None:
        """See Ledger.aclose."""
        await self._lane.aclose()


def _each(database: Database, works: Sequence[Work[Any]]) -> list[Any]:
    outcomes: list[Any] = []
    for work in works:
        try:
            outcomes.append(database.run(work))
        except Exception as failure:  # noqa: BLE001 - the border of a thread: the callers raise it
            outcomes.append(failure)
    return outcomes


def _exchange(
    connection: sqlite3.Connection,
    *,
    key: str,
    limits: Limits,
    ask: Ask,
    clock: Callable[[], float],
) -> Told:
    connection.execute("BEGIN IMMEDIATE")
    row = connection.execute("SELECT book FROM books WHERE key = ?", (key,)).fetchone()
    book = _read(row[0]) if row else Book()
    told = exchange(book, limits, ask, clock())
    connection.execute("REPLACE INTO books VALUES (?, ?)", (key, _encode(book)))
    connection.execute("COMMIT")
    return told


def _read(value: bytes) -> Book:
    """Return a book as it was kept; one that cannot be read begins anew."""
    try:
        book = _decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError):
        return Book()
    return book if isfinite(book.at + book.requests + book.tokens) else Book()

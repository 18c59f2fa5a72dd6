"""Houses of workers in bad weather: every vector that comes back is judged.

Three houses: workers that share a Redis, some with a SQLite file nearer by; workers that share a
SQLite file; one that has only its memory. Behind all of them is one upstream that never says the
same twice (see `moody`), and the stores fail on command (see `weather`).
"""

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from gateway.cache.redis import RedisStore
from gateway.cache.sqlite import SqliteStore
from gateway.logs import open_log
from gateway.types import CacheControl
from tests.heavy.storm import telling, weather
from tests.heavy.storm.books import Books, Identity, Shelf
from tests.heavy.storm.judge import Judge
from tests.heavy.storm.moody import Moody
from tests.heavy.storm.plan import Batch
from tests.heavy.storm.weather import Weathered
from tests.heavy.storm.worker import House, Worker
from tests.redis_server import RedisServer

CLIENTS = 64
SMALL = 150_000
"""Bytes of memory that a few hundred of the vectors fill."""
_PATIENCE = 10.0
"""Seconds that a busy machine may need; a Redis that is slow is not what is looked for here."""
_STANDSTILL = 60.0
"""Seconds in which some batch must come to an end."""
ONLY_IF_CACHED = CacheControl(only_if_cached=True)


class BrokenPromiseError(AssertionError):
    """Something that must not happen happened; the message is an account of it."""


class Storm:
    """The houses, the weather and the judge of one run."""

    def __init__(
        self,
        seed: int,
        directory: Path,
        redis: RedisServer,
        *,
        around_stores: type[Weathered] = Weathered,
        upstream: type[Moody] = Moody,
    ) -> None:
        self.books = Books()
        self.judge = Judge(self.books)
        self.upstream = upstream(self.books, seed)
        self.workers: list[Worker] = []
        self.texts = self.batches = 0
        self._chance = random.Random(seed)
        self._directory = directory
        self._redis = redis
        self._around_stores = around_stores
        self._shelves = {
            "redis": Shelf(self.books, "redis"),
            "sqlite": Shelf(self.books, "sqlite"),
        }
        for name in ("near-1", "near-2"):
            self._shelves[name] = Shelf(self.books, name, authority=self._shelves["redis"])

    async def open(self) -> None:
        """Start the workers."""
        redis, sqlite, memory = House("redis"), House("sqlite"), House("memory")
        await self._worker(redis, "near-1", "redis", memory=SMALL)
        await self._worker(redis, "near-1", "redis", memory=SMALL, encoding=None)
        await self._worker(redis, "near-2", "redis", memory=0)
        await self._worker(redis, "redis", memory=SMALL)
        await self._worker(sqlite, "sqlite", memory=SMALL)
        await self._worker(sqlite, "sqlite", memory=SMALL)
        await self._worker(sqlite, "sqlite", memory=0, encoding=None)
        await self._worker(memory, memory=2**30)

    async def _worker(
        self, house: House, *shelves: str, memory: int, encoding: str | None = "base64"
    ) -> Worker:
        number = len(self.workers)
        worker = Worker(
            f"{number}",
            house,
            self.books,
            self.upstream,
            memory=memory,
            encoding=encoding,
            seed=number,
        )
        stores = [self._store(shelf) for shelf in shelves]
        await worker.start(
            *(
                self._around_stores(
                    store,
                    self._shelves[shelf],
                    self._chance,
                    # Only what the authority has taken is no longer owed to it.
                    worker.taken if shelf == shelves[-1] else lambda _: None,
                )
                for store, shelf in zip(stores, shelves, strict=True)
            )
        )
        self.workers.append(worker)
        return worker

    def _store(self, shelf: str) -> RedisStore | SqliteStore:
        if shelf == "redis":
            return RedisStore(self._redis.url, budget=_PATIENCE, connect_budget=_PATIENCE)
        path = self._directory / f"{shelf}.db"
        return SqliteStore(path, log=open_log("error", "json"))

    async def run(self, plan: Iterator[Batch], progress: Callable[[str], None]) -> None:
        """Ask for all of the plan, in a storm. Raises BrokenPromiseError for the first wrong."""
        stores = [store for worker in self.workers for store in worker.stores]
        storm = asyncio.create_task(weather.change(stores, self._chance, calm=0.1))
        clients = [asyncio.create_task(self._client(plan)) for _ in range(CLIENTS)]
        try:
            await self._watch(clients, progress)
        finally:
            for task in (storm, *clients):
                task.cancel()
            await asyncio.gather(storm, *clients, return_exceptions=True)
        self.check()

    async def _watch(
        self, clients: Sequence[asyncio.Task[None]], progress: Callable[[str], None]
    ) -> None:
        """Return when all clients have ended, or something was found wrong."""
        clock = asyncio.get_running_loop().time
        moved, ended = clock(), 0
        while self.books.broken is None and not all(client.done() for client in clients):
            await asyncio.wait(clients, timeout=2, return_when=asyncio.FIRST_EXCEPTION)
            progress(self.told())
            if self.batches > ended:
                moved, ended = clock(), self.batches
            elif clock() > moved + _STANDSTILL:
                raise BrokenPromiseError(f"no batch ended for a minute, after {ended} that did")
        for client in clients:
            if client.done():
                client.result()

    async def _client(self, plan: Iterator[Batch]) -> None:
        for batch in plan:
            await self.ask(self.workers[batch.worker], batch)
            self.batches += 1
            self.texts += len(batch.inputs)
            self.check()

    async def ask(self, worker: Worker, batch: Batch) -> None:
        """Ask for one batch, and judge what comes of it."""
        loop = asyncio.get_running_loop()
        ask, task = worker.ask(batch)
        leaves = None
        if batch.stays is not None:
            leaves = loop.call_later(batch.stays, task.cancel)
        try:
            await asyncio.wait([task])
        finally:
            task.cancel()
            worker.done(ask)
        if leaves is not None:
            leaves.cancel()
        if task.cancelled():
            self.judge.count["left"] += 1
            if batch.stays is None:
                self.books.complain(ask, "it was called off, and nobody left")
        elif error := task.exception():
            self.judge.failed(ask, worker, error)
        else:
            self.judge.answered(ask, worker, task.result())

    def told(self) -> str:
        """Return how far it is."""
        count = self.judge.count
        failed = sum(n for what, n in count.items() if what.startswith("failed"))
        return (
            f"{self.batches:,} batches, {self.texts:,} texts, {self.books.asked_texts:,} asked "
            f"upstream; answers: {count['shared']:,} shared, {count['unshared']:,} unshared; "
            f"{failed:,} failed, {count['left']:,} left"
        )

    def check(self) -> None:
        """Raise BrokenPromiseError if anything was found wrong."""
        if self.books.broken is not None:
            raise BrokenPromiseError(self.books.broken)

    async def look_again(self) -> int:
        """See that nothing is left over, and that everything is kept.

        Returns how many vectors are kept by stores. Raises BrokenPromiseError.
        """
        for worker in self.workers:
            await worker.settled()
        self._nothing_is_left()
        for worker in list(self.workers):
            kept = [*worker.house.shared]
            await self._read(worker, kept[-3000:])
        houses = {w.stores[-1].shelf: w.house for w in self.workers if w.stores}
        for shelf, house in houses.items():
            fresh = await self._worker(house, shelf.name, memory=0)
            await self._read(fresh, list(shelf.held))
            await fresh.settled()
        self._nothing_is_left()
        return sum(len(shelf.held) for shelf in houses)

    async def close(self) -> None:
        """Close everything."""
        for worker in self.workers:
            await worker.stop()

    async def _read(self, worker: Worker, identities: Sequence[Identity]) -> None:
        """Read vectors that are kept, through a worker; one that is not there is a failure."""
        asked = iter(sorted(identities, key=repr))
        while piece := list(islice(asked, 500)):
            alike: dict[tuple, list[int]] = {}
            for model, tenant, seed, number in piece:
                key = (model, tenant, seed, number >= telling.IDS)
                alike.setdefault(key, []).append(number)
            for (model, tenant, seed, ids), numbers in alike.items():
                batch = _kept(model, tenant, seed, numbers, ids=ids)
                await self.ask(worker, batch)
                self.check()

    def _nothing_is_left(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        left = {
            "tasks": len(tasks),
            "calls": self.upstream.under_way,
            "flights": sum(len(worker.flights) for worker in self.workers),
            "provisional entries": sum(worker.provisional for worker in self.workers),
            "verbs": sum(store.under_way for worker in self.workers for store in worker.stores),
            "unforeseen": sum("unforeseen" in worker.log.getvalue() for worker in self.workers),
        }
        if any(left.values()):
            raise BrokenPromiseError(f"at the end are left over: {left}, {tasks[:3]}")


def _kept(model: str, tenant: str, seed: int | None, numbers: Sequence[int], *, ids: bool) -> Batch:
    inputs = [telling.ids(n - telling.IDS) if ids else telling.text(n) for n in numbers]
    return Batch(
        number=-1,
        worker=-1,
        model=model,
        tenant=tenant,
        seed=seed,
        inputs=inputs,
        numbers=numbers,
        base64=True,
        dimensions=None,
        user=None,
        control=ONLY_IF_CACHED,
        patience=30.0,
        stays=None,
        mistake=False,
    )

"""A worker's cache as the straight line has it, over stores that a test gives it."""

import asyncio

import numpy as np
import structlog
from msgspec.structs import replace

from gateway.cache.entry import Entry
from gateway.cache.facts import PREFIX, ScopeFact, read_fact, write_fact
from gateway.cache.memory import MemoryStore
from gateway.cache.scopes import Scopes
from gateway.cache.tiered import TieredCache
from gateway.vectors import unit

SECRET, OTHER_SECRET = b"s" * 32, b"t" * 32
NOW = 1_800_000_000.0
WIDTH = 8


class Clock:
    """Unix time, as a test wants it."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Log:
    """What was logged: one (event, fields) a line."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, object]]] = []
        self.logger = structlog.wrap_logger(None, processors=[self._note])

    @property
    def events(self) -> list[str]:
        """The events alone."""
        return [event for event, _ in self.lines]

    def _note(self, _, level, fields):
        self.lines.append((fields.pop("event"), fields | {"level": level}))
        raise structlog.DropEvent


class Worker:
    """One process's cache of one model, `m`, of the tenant `t`."""

    def __init__(
        self, *stores, memory=2**20, ttl=None, clock=None, secret=SECRET, **options
    ) -> None:
        self.clock = clock or Clock()
        self.log = Log()
        self.damaged: list[str] = []
        """The tier of each damaged entry that was met."""
        self.scopes = Scopes(secret)
        self.scope = self.scopes.of("t", "i", "m")
        self.memory = MemoryStore(memory)
        self.cache = TieredCache(
            self.memory,
            stores,
            self.scopes,
            log=self.log.logger,
            ttl=ttl,
            on_corrupt=self.damaged.append,
            now=self.clock,
            **options,
        )
        self._made = 0
        self._draws = np.random.default_rng()

    async def met(self):
        """Meet the stores, and return this."""
        await self.cache.meet()
        return self

    @property
    def place(self):
        """Where the model's entries are now."""
        return self.scope.place

    def key(self, text="x"):
        """Return the key of a text as it is now."""
        return self.place.keyspace.keys([text], None)[0]

    def make(self, place=None, width=WIDTH):
        """Return an entry as an upstream would have made it now; no two are equal."""
        self._made += 1
        return Entry(
            unit(self._draws.standard_normal(width)).tobytes(),
            tokens=self._made,
            created=self.clock(),
            namespace=(place or self.place).namespace,
        )

    async def keep(self, *texts):
        """Make vectors for these texts and keep them; return those that are kept then."""
        place, keys = self.place, [self.key(text) for text in texts]
        kept = await self.cache.keep(place, {key: self.make(place) for key in keys})
        return [kept[key].vector for key in keys]

    async def look_up(self, *texts):
        """Return the vectors that the stores have, None for what is in none of them."""
        keys = [self.key(text) for text in texts]
        found = await self.cache.look_up(self.place, keys)
        return [found[key].vector if key in found else None for key in keys]

    def recall(self, *texts):
        """Return the vectors that are in memory, None for what is not."""
        found = self.cache.recall([self.key(text) for text in texts])
        return [entry and entry.vector for entry in found]

    async def answer(self, text="x"):
        """Do what the straight line does for a text, and return its entry."""
        place, key = self.place, self.key(text)
        (entry,) = self.cache.recall([key])
        if entry is None:
            entry = (await self.cache.look_up(place, [key])).get(key)
        if entry is None:
            entry = (await self.cache.keep(place, {key: self.make(place)}))[key]
        return entry

    async def ask_authority(self, text="x"):
        """Return what a new worker over the last store would find."""
        fresh = Worker(self.cache.tiers[-1].store, clock=self.clock, secret=self.scopes.secret)
        await fresh.met()
        return (await fresh.look_up(text))[0]


def purge(shelf, scope, before=None):
    """Write into a store what a purge writes: a new generation, or a moment."""
    name = PREFIX + scope.id
    fact = read_fact(shelf.said.get(name, b"")) or ScopeFact("t", "m")
    if before is None:
        fact = replace(fact, generation=fact.generation + 1)
    else:
        fact = replace(fact, before=before)
    shelf.said[name] = write_fact(fact)


async def settle():
    """Let copies that nobody waits for arrive."""
    for _ in range(20):
        await asyncio.sleep(0)


async def workers(count, *stores, **options):
    """Return workers that share these stores, and have met them."""
    return [await Worker(*stores, **options).met() for _ in range(count)]

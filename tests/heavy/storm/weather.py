"""A store as it is on bad days: it fails on command, before or after it did what it was asked.

It stands around a real store, as one worker sees that: what is down for one may be up for another.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

from gateway.cache.keys import Key
from gateway.cache.store import CacheStore, Namespace, StoreError, Usage
from tests.heavy.storm.books import Identity, Shelf

T = TypeVar("T")

FAIR = "fair"
FOUL = ("away", "mute", "late", "full", "readonly", "slow")
"""Not there; silent; does it and does not say so; takes nothing new, for one of two reasons; takes
its time."""

_SHORT = 0.005
"""Seconds; a store that is silent is given up after so long."""


class Weathered:
    """A store around a store. `weather` is FAIR, or one of FOUL until it is changed back."""

    def __init__(
        self,
        store: CacheStore,
        shelf: Shelf,
        chance: random.Random,
        taken: Callable[[Sequence[Identity]], None] = lambda _: None,
    ) -> None:
        """What it holds is noted on the `shelf`; `taken` is told what was added through it."""
        self.name = store.name
        self.shelf = shelf
        self.weather = FAIR
        self.failures = 0
        """Verbs that failed here, whoever was to blame."""
        self.under_way = 0
        self._store = store
        self._chance = chance
        self._taken = taken

    async def get(self, namespace: Namespace, keys: Sequence[Key]) -> Mapping[Key, bytes]:
        """See CacheStore.get."""
        values = await self._through(lambda: self._store.get(namespace, keys))
        self.shelf.note(values.items())
        return values

    async def add(self, namespace: Namespace, values: Mapping[Key, bytes]) -> Mapping[Key, bytes]:
        """See CacheStore.add."""
        held = await self._through(lambda: self._store.add(namespace, values), writing=True)
        self._taken(self.shelf.note({**values, **held}.items()))
        return held

    async def discard(self, namespace: Namespace, values: Mapping[Key, bytes]) -> int:
        """See CacheStore.discard."""
        return await self._through(lambda: self._store.discard(namespace, values), writing=True)

    async def facts(self) -> Mapping[str, bytes]:
        """See CacheStore.facts."""
        return await self._through(self._store.facts)

    async def settle(self, name: str, value: bytes) -> bytes:
        """See CacheStore.settle."""
        return await self._through(lambda: self._store.settle(name, value), writing=True)

    async def swap(self, name: str, old: bytes, new: bytes) -> bool:
        """See CacheStore.swap."""
        return await self._through(lambda: self._store.swap(name, old, new), writing=True)

    async def usage(self) -> Usage:
        """See CacheStore.usage."""
        return await self._through(self._store.usage)

    async def aclose(self) -> None:
        """See CacheStore.aclose."""
        await self._store.aclose()

    async def _through(self, verb: Callable[[], Awaitable[T]], *, writing: bool = False) -> T:
        with self._counted():
            weather = self.weather
            if weather == "slow":
                await asyncio.sleep(_SHORT * self._chance.random())
            if weather == "mute":
                await asyncio.sleep(_SHORT)
                raise StoreError("timeout", "silent on command")
            if weather == "away":
                raise StoreError("connect", "away on command")
            if writing and weather in ("full", "readonly"):
                raise StoreError(weather, "takes nothing on command")
            done = await verb()
            if weather == "late":
                raise StoreError("timeout", "late on command")
            return done

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self.under_way += 1
        try:
            yield
        except StoreError:
            self.failures += 1
            raise
        finally:
            self.under_way -= 1


async def change(stores: Sequence[Weathered], chance: random.Random, *, calm: float) -> None:
    """Let the weather change until cancelled; in between all is fair for `calm` seconds or so."""
    houses = {store.shelf for store in stores}
    try:
        while True:
            await asyncio.sleep(calm * chance.uniform(0.5, 1.5))
            if chance.random() < 0.3:
                # A server that is down is down for all.
                shelf = chance.choice(sorted(houses, key=lambda shelf: shelf.name))
                hit = [store for store in stores if store.shelf is shelf]
            else:
                hit = [chance.choice(stores)]
            for store in hit:
                store.weather = chance.choice(FOUL)
            await asyncio.sleep(chance.uniform(0.0, 0.15))
            for store in hit:
                store.weather = FAIR
    finally:
        for store in stores:
            store.weather = FAIR

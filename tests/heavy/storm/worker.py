"""A gateway's worker without HTTP: the straight line, its cache and its backend, watched."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

import numpy as np

from gateway.backends.openai import Endpoint, OpenAIBackend
from gateway.cache.flight import Flights
from gateway.cache.memory import MemoryStore
from gateway.cache.scopes import Scopes
from gateway.cache.tiered import TieredCache
from gateway.embeddings import Embeddings
from gateway.logs import open_log
from gateway.resilience.retry import RetryPolicy
from gateway.route import EmbeddingModel
from gateway.routing import RoutingTable
from gateway.tokens import Cl100k
from gateway.types import Caller, EmbeddingRequest, RawEmbeddings, Text
from tests.heavy.storm import telling
from tests.heavy.storm.books import ASKING, Ask, Books, Identity
from tests.heavy.storm.moody import Moody
from tests.heavy.storm.plan import MODELS, Batch
from tests.heavy.storm.weather import Weathered

_TURNS = 3
"""A request may ask for itself when this many calls of others that it waited for have failed."""


@dataclass
class House:
    """Workers that share an authority, and with it every vector."""

    name: str
    shared: dict[Identity, int] = field(default_factory=dict)
    """The draw that was first answered as the one that all share."""


class Worker:
    """One worker of a house; `stores` are its tiers, nearest first."""

    def __init__(
        self,
        name: str,
        house: House,
        books: Books,
        upstream: Moody,
        *,
        memory: int,
        encoding: str | None = "base64",
        seed: int = 0,
    ) -> None:
        self.name = name
        self.house = house
        self.books = books
        self.stores: Sequence[Weathered] = ()
        self.flights = Flights()
        self.log = StringIO()
        self.made: dict[Identity, asyncio.Task[Any]] = {}
        """What upstreams said and the authority has not taken yet, and the task that asked."""
        self.backend = _Watched(self, upstream, encoding, random.Random(seed))
        self._memory = memory
        self._flying: dict[Identity, asyncio.Task[Any]] = {}
        self._wanted: Counter[Identity] = Counter()
        self._failed: dict[Identity, list[int]] = {}
        self._watch: asyncio.Task[None] | None = None

    async def start(self, *stores: Weathered) -> None:
        """Plug everything together, and meet the stores."""
        self.stores = stores
        scopes = Scopes(b"s" * 32)
        log = open_log("info", "json", self.log)
        self.cache = TieredCache(MemoryStore(self._memory), stores, scopes, log=log)
        models = [
            EmbeddingModel(name, self.backend, identity="i", dimensions="any") for name in MODELS
        ]
        routes = RoutingTable(models, Cl100k(), scopes)
        self._embeddings = Embeddings(routes, self.cache, self.flights)
        await self.cache.meet()
        self._watch = asyncio.create_task(self.cache.watch())

    def taken(self, identities: Sequence[Identity]) -> None:
        """Take note that the authority has taken these from here."""
        for identity in identities:
            self.made.pop(identity, None)

    def calm(self) -> Sequence[int | None]:
        """Return for each store how often it failed so far; None if it is not read from now."""
        return [
            store.failures if tier.known and not tier.reading.is_open else None
            for store, tier in zip(self.stores, self.cache.tiers, strict=True)
        ]

    @property
    def writable(self) -> bool:
        """Whether the authority takes what is new."""
        return not self.stores or self.cache.tiers[-1].writable

    def ask(self, batch: Batch) -> tuple[Ask, asyncio.Task[Any]]:
        """Begin a request; the task's result is what Embeddings.create returns."""
        ask = Ask(
            batch=batch,
            house=self.house.name,
            worker=self.name,
            began=self.books.moment(),
            at=time.time(),
            calm=self.calm(),
            writable=self.writable,
            owed=self.provisional > 0,
        )
        ASKING.set(ask)
        self._wanted.update(map(ask.identity, set(batch.numbers)))
        loop = asyncio.get_running_loop()
        request = EmbeddingRequest(
            batch.model,
            batch.inputs,
            base64=batch.base64,
            dimensions=batch.dimensions,
            seed=batch.seed,
            user=batch.user,
            cache=batch.control,
        )
        creating = self._embeddings.create(
            request, Caller(tenant=batch.tenant), deadline=loop.time() + batch.patience
        )
        return ask, loop.create_task(creating)

    def done(self, ask: Ask) -> None:
        """Take note that a request is over, however it ended."""
        ask.over = True
        self._wanted.subtract(map(ask.identity, set(ask.batch.numbers)))

    def _is_wanted(self, ask: Ask) -> bool:
        """Whether somebody may wait for what was begun for this request."""
        return not ask.over or any(self._wanted[ask.identity(n)] for n in ask.batch.numbers)

    @contextmanager
    def asking(self, ask: Ask, identities: Sequence[Identity]) -> Iterator[None]:
        """Watch a call to the upstream: promise P4 is judged here, where it begins."""
        task = asyncio.current_task()
        assert task is not None
        if ask.shares:
            self._begun(ask, identities)
            self._flying |= dict.fromkeys(identities, task)
        else:
            ask.fresh.update(identity for identity in identities if self._stands(ask, identity))
        try:
            yield
        except BaseException:
            moment = self.books.moment()
            for identity in identities:
                self._failed.setdefault(identity, []).append(moment)
            raise
        finally:
            for identity in identities:
                if self._flying.get(identity) is task:
                    del self._flying[identity]
        if ask.batch.control.only_if_cached:
            self.books.complain(ask, "an upstream was asked though only what is kept was wanted")
        if not self._is_wanted(ask):
            self.books.complain(ask, "an upstream went on answering when nobody waited")

    def _begun(self, ask: Ask, identities: Sequence[Identity]) -> None:
        """Judge whether these had to be asked for."""
        if len(set(identities)) < len(identities):
            self.books.complain(ask, "a text stands in one call twice")
        for identity in identities:
            if wrong := self._needless(ask, identity):
                self.books.complain(ask, f"text {identity[3]} was asked for, and {wrong}")

    def _needless(self, ask: Ask, identity: Identity) -> str | None:
        """Return why nobody had to be asked, if so; what is being called off is no use."""
        failed = sum(moment > ask.began for moment in self._failed.get(identity, ()))
        flying, made = self._flying.get(identity), self.made.get(identity)
        if flying and not flying.cancelling() and failed < _TURNS:
            return "is on its way already"
        # What the authority took from somebody else may have come into memory, and gone again.
        held = any(identity in store.shelf.held for store in self.stores)
        if made and not made.cancelling() and not held:
            return "is kept here until the authority takes it"
        stands = self._stands(ask, identity)
        return stands and f"stands in {stands}, which has not failed since"

    def _stands(self, ask: Ask, identity: Identity) -> str | None:
        """Return the name of a store that had it when the request began, and worked ever since."""
        for store, before, now in zip(self.stores, ask.calm, self.calm(), strict=True):
            worked = before is not None and before == now
            if worked and store.shelf.held_before(identity, ask.began):
                return store.shelf.name
        return None

    async def settled(self) -> None:
        """Return when every copy is made and the authority has taken everything."""
        await self._look_away()
        for _ in range(100):
            await self.cache.meet()
            if not self.provisional and not any(store.under_way for store in self.stores):
                return
            await asyncio.sleep(0.02)

    @property
    def provisional(self) -> int:
        """Entries that the authority has not taken."""
        return len(self.cache._provisional)

    async def stop(self) -> None:
        """Close the cache and its stores."""
        await self._look_away()
        await self.cache.aclose()

    async def _look_away(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None


class _Watched(OpenAIBackend):
    """The backend of a worker; every call is in the books."""

    def __init__(
        self, worker: Worker, upstream: Moody, encoding: str | None, chance: random.Random
    ) -> None:
        endpoint = Endpoint(
            "http://upstream", encoding=encoding, timeout=0.25, max_batch=40, concurrency=12
        )
        policy = RetryPolicy(chance.random, base=0.001, cap=0.005)
        super().__init__("moody", endpoint, upstream, policy)
        self._worker = worker

    async def embed(self, model: str, texts: Sequence[Text], **options: Any) -> RawEmbeddings:
        """See EmbeddingBackend.embed."""
        ask = ASKING.get()
        identities = [ask.identity(telling.number_of(text)) for text in texts]
        with self._worker.asking(ask, identities):
            raw = await super().embed(model, texts, **options)
        task = asyncio.current_task()
        if ask.shares and task is not None and _sound(raw):
            self._worker.made |= dict.fromkeys(identities, task)
        return raw


def _sound(raw: RawEmbeddings) -> bool:
    try:
        telling.told(np.stack(raw.rows))
    except ValueError:
        return False
    return True

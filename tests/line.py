"""The straight line over a backend without a network, for tests of exact interleavings."""

import asyncio
import time
from base64 import b64decode

import numpy as np
import structlog

from gateway.cache.flight import Flights
from gateway.cache.memory import MemoryStore
from gateway.cache.scopes import Scopes
from gateway.cache.tiered import TieredCache
from gateway.drift.knowledge import refuse_drifted
from gateway.embeddings import Embeddings
from gateway.errors import InvalidInputError, UpstreamError
from gateway.route import EmbeddingModel
from gateway.routing import RoutingTable
from gateway.tokens import Cl100k
from gateway.types import Caller, EmbeddingRequest
from gateway.vectors import unit
from tests.backend import WIDTH, Backend, true
from tests.cache.shelf import Shelf
from tests.upstream import truth

CL100K = Cl100k()


class Line:
    """The straight line over one backend, one model, `m`, and stores if there are any."""

    def __init__(
        self,
        backend=None,
        memory=2**20,
        stores=(),
        ttl=None,
        now=time.time,
        name="m",
        on_computed=lambda *_: None,
        **model,
    ):
        self.backend = backend or Backend()
        options = {"dimensions": "any", "identity": "i"} | model
        models = [EmbeddingModel(name, self.backend, **options)]
        self.memory = MemoryStore(memory)
        self.flights = Flights()
        scopes = Scopes(b"s" * 32)
        self.cache = TieredCache(
            self.memory, stores, scopes, log=structlog.get_logger(), ttl=ttl, now=now
        )
        self.routes = RoutingTable(models, CL100K, scopes)
        self.embeddings = Embeddings(
            self.routes,
            self.cache,
            self.flights,
            on_computed=on_computed,
            may_ask=refuse_drifted,
            now=now,
        )

    async def ask(self, *texts, timeout=5.0, caller=None, model="m", **fields):
        deadline = asyncio.get_running_loop().time() + timeout
        request = EmbeddingRequest(model, texts, **({"base64": True} | fields))
        return await self.embeddings.create(request, caller or Caller(), deadline=deadline)

    def begin(self, *texts, **options):
        return asyncio.ensure_future(self.ask(*texts, **options))


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


class Noisy(Backend):
    """A backend whose every vector differs from all before: each is drawn once."""

    def __init__(self, **options):
        super().__init__(**options)
        self.draws = np.random.default_rng()

    async def embed(self, model, texts, **options):
        raw = await super().embed(model, texts, **options)
        for row in raw.rows:
            row[:] = self.draws.standard_normal(len(row))
        return raw


def vectors(embedded):
    return [b64decode(fragment[1:-1]) for fragment in embedded.fragments]


def right(*texts):
    return [unit(truth("m", text, WIDTH)).tobytes() for text in texts]


def bad(*texts):
    """Return an answer that refuses requests with one of these texts in them, and names it."""

    def answer(asked):
        for item, text in enumerate(asked):
            if text in texts:
                raise InvalidInputError("it is bad", item=item)
        return true("m", asked)

    return answer


def counts(answer):
    """Return how many vectors came from where, zeros left out."""
    return {source: count for source, count in answer.sources.items() if count}


async def lines(count, *shelves, **options):
    """Return lines over these stores, each as one worker has it."""
    made = [Line(Noisy(), stores=shelves, **options) for _ in range(count)]
    for line in made:
        await line.cache.meet()
    return made


def broken(_):
    """Be an upstream that is down."""
    raise UpstreamError("nobody is there")


async def line_over(stores, **options):
    """Return a line over so many shelves, which it has met, and the shelves."""
    shelves = [Shelf() for _ in range(stores)]
    line = Line(Noisy(), stores=shelves, **options)
    await line.cache.meet()
    return line, shelves

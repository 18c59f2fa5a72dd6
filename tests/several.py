"""A space without a network: upstreams that know texts, and a cache that they share."""

import asyncio
import time

import msgspec
import structlog

from gateway.backends.member import Member
from gateway.backends.several import EmbeddingUpstreams
from gateway.backends.turns import Turns
from gateway.cache.memory import MemoryStore
from gateway.cache.scopes import Scopes
from gateway.cache.tiered import TieredCache
from gateway.errors import UpstreamConnectError
from gateway.resilience.circuit import Circuit
from gateway.spaces.reference import TEXTS, Reference
from gateway.spaces.space import Space
from gateway.vectors import unit
from tests.backend import Backend, true

__all__ = ["Circuit"]

MODEL = "m"


class Clock:
    """Stands still unless it is moved."""

    def __init__(self, now=1000.0):
        self.now = now

    def __call__(self):
        return self.now


def cache(stores=(), memory=2**20):
    return TieredCache(MemoryStore(memory), stores, Scopes(b"s" * 32), log=structlog.get_logger())


def member(name, model=MODEL, **options):
    return Member(Backend(name, **options), model)


def space(*members, cache=None, clock=None, alike=0.99, name="s", **options):
    """Return a space of these members, the first of which gives the reference."""
    return Space(
        name,
        [(member, alike) for member in members],
        Reference(name, MODEL, cache or globals()["cache"]()),
        log=structlog.get_logger(),
        clock=clock or time.monotonic,
        **options,
    )


def upstreams(members, space, **options):
    return EmbeddingUpstreams(members, space, Turns(None, lambda: 0.5, **options))


async def embed(backend, *texts, timeout=5.0):
    deadline = asyncio.get_running_loop().time() + timeout
    return await backend.embed(MODEL, texts, fields={}, truncate=False, deadline=deadline)


def purged(fact):
    """Return the fact of a scope after everything in it was purged."""
    return msgspec.structs.replace(fact, generation=fact.generation + 1, width=None)


def served(member):
    """Return the texts of clients that were asked for there."""
    return [text for call in member.backend.calls for text in call if text not in TEXTS]


def probes(member):
    """Return how often it was probed."""
    return sum(any(text in TEXTS for text in call) for call in member.backend.calls)


def another(texts):
    """Be another model than the one that is meant."""
    return true("another", texts)


def away(_):
    """Be nobody."""
    raise UpstreamConnectError("nobody is there")


def known(row):
    """Return the unit vector of a row."""
    return unit(row).tobytes()


def run(scene):
    """Run a coroutine; a hang is a failure."""
    return asyncio.run(asyncio.wait_for(scene(), 20))

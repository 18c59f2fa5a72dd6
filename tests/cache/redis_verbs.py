"""What the tests of the tier in Redis do with a store."""

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from gateway.cache.entry import Entry
from gateway.cache.record import pack
from gateway.cache.redis import RedisStore
from gateway.cache.store import StoreError
from tests.cache.store_contract import NAMESPACE, StoreContract, key
from tests.redis_server import PATIENCE, RedisServer

PATIENT = {"budget": PATIENCE, "connect_budget": PATIENCE}
"""A store with these does not fail because the machine is busy."""
HURRIED = {"budget": 0.05, "connect_budget": 0.1}
"""What the gateway runs with."""
VALUES = {key(n): b"value %d" % n for n in range(20)}
PREFIX = f"embgw:1:{NAMESPACE}:"
FACTS = "embgw:1:facts"
STRANGERS = {
    "hash": ("HSET", "a", "b"),
    "list": ("RPUSH", "a"),
    "set": ("SADD", "a"),
    "sorted set": ("ZADD", "1", "a"),
    "stream": ("XADD", "*", "a", "b"),
    "string": ("SET", "a"),
}


class RedisContract(StoreContract):
    """The contract of all stores, kept on what `url` leads to."""

    url: str
    servers: list[RedisServer]
    cluster = False

    @asynccontextmanager
    async def open_store(self, *, ttl: float | None = None) -> AsyncIterator[RedisStore]:
        """See StoreContract."""
        for server in self.servers:
            server.admin.flushall()
        async with self.reopen(ttl=ttl) as store:
            yield store

    @asynccontextmanager
    async def reopen(self, *, ttl: float | None = None) -> AsyncIterator[RedisStore]:
        """See StoreContract."""
        async with opened(self.url, cluster=self.cluster, ttl=ttl) as store:
            yield store


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[RedisStore]:
    """Open a store that nobody hurries, unless the options do."""
    store = RedisStore(url, **(PATIENT | options))
    try:
        yield store
    finally:
        await store.aclose()


async def fill(server: RedisServer) -> None:
    """Have a server hold VALUES, and facts."""
    async with opened(server.url) as store:
        await store.facts()
        await store.add(NAMESPACE, VALUES)


async def meet(store: RedisStore) -> None:
    """Have a store connected that is in a hurry, on a machine that may be busy."""
    while True:
        with suppress(StoreError):
            await store.facts()
            return


async def ask(store: RedisStore) -> None:
    """Ask for VALUES, and see that they are there."""
    assert await store.get(NAMESPACE, list(VALUES)) == VALUES


def verbs(store: RedisStore) -> list[Awaitable[object]]:
    """Return what a request may wait for, or a scrape."""
    return [
        store.get(NAMESPACE, list(VALUES)),
        store.add(NAMESPACE, VALUES),
        store.discard(NAMESPACE, VALUES),
        store.facts(),
        store.settle("name", b"value"),
        store.swap("name", b"value", b"other"),
        store.usage(),
    ]


async def reasons(store: RedisStore) -> set[str]:
    """Return why the verbs fail, all of which must."""
    return {(await failure(verb)).reason for verb in verbs(store)}


async def failure(verb: Awaitable[object]) -> StoreError:
    """Return how a verb failed."""
    with pytest.raises(StoreError) as caught:
        await verb
    return caught.value


def put_stranger(server: RedisServer, kind: str, name: str) -> None:
    """Have something of some kind at a name, whatever was there."""
    server.admin.delete(name)
    command, *arguments = STRANGERS[kind]
    server.admin.execute_command(command, name, *arguments)


def record(number: int, created: float) -> bytes:
    """Return what the gateway keeps for an entry made at that time."""
    return pack(key(number), Entry(b"\0" * 8, 1, created=created))

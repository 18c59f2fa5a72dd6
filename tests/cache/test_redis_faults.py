"""The tier in Redis when the server fails: a StoreError that says how, in time, and no other."""

import asyncio
import struct
from collections.abc import Iterator
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET

import psutil
import pytest

from tests.cache.redis_verbs import HURRIED, ask, failure, fill, meet, opened, reasons
from tests.cache.store_contract import NAMESPACE, key
from tests.redis_server import RedisServer, free_port, listen, serve_redis, through


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with serve_redis(tmp_path / "redis") as server:
        yield server


def close(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    """Close a connection at once, in good form or with a reset."""
    if reset:
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, linger)
    writer.transport.abort()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "no-such-host.invalid"])
def test_where_nobody_listens_there_is_no_connection(host):
    """The usual sign of a server that is down."""

    async def check():
        async with opened(f"redis://{host}:{free_port()}") as store:
            assert await reasons(store) == {"connect"}

    asyncio.run(check())


@pytest.mark.parametrize("reset", [False, True])
def test_a_server_that_hangs_up_is_no_server(reset):
    """Politely or not, and as often as we come."""

    async def hang_up(reader, writer):
        await reader.read(10)
        close(writer, reset=reset)

    async def check():
        async with listen(hang_up) as url, opened(url) as store:
            assert await reasons(store) == {"connect"}

    asyncio.run(check())


def test_a_frozen_server_costs_the_budget_and_no_more(server):
    """With a connection or without; when it goes on, so do we."""

    async def check():
        await fill(server)
        async with opened(server.url, **HURRIED) as store, opened(server.url, **HURRIED) as new:
            await meet(store)
            server.freeze()
            assert await reasons(store) == {"timeout"}
            assert await reasons(new) == {"timeout"}
            server.thaw()
        async with opened(server.url) as store:
            await ask(store)

    asyncio.run(check())


def test_nothing_is_left_of_what_a_frozen_server_did_not_take(server):
    """Neither the connections nor the megabytes on them; a store can be closed meanwhile."""

    async def check():
        async with opened(server.url, **HURRIED) as store:
            await meet(store)
            before = psutil.Process().num_fds()
            server.freeze()
            for _ in range(3):
                error = await failure(store.add(NAMESPACE, {key(1): bytes(16_000_000)}))
                assert error.reason == "timeout"
            await asyncio.sleep(0)
            assert psutil.Process().num_fds() < before

    asyncio.run(check())


def test_a_slow_server_is_as_good_as_none(server):
    """Every answer comes, and comes too late."""

    async def late(data):
        await asyncio.sleep(1.0)
        return data

    async def check():
        async with listen(through(server, late)) as url, opened(url, **HURRIED) as store:
            assert await reasons(store) == {"timeout"}

    asyncio.run(check())


def test_a_killed_server_is_found_again(server):
    """While it is away there is no connection; after it came back, the first verb works."""

    async def check():
        async with opened(server.url) as store:
            first = await store.facts()
            server.kill()
            assert await reasons(store) == {"connect"}
            server.start()
            second = await store.facts()
            server.kill()
            server.start()
            third = await store.facts()
        assert len({facts["epoch"] for facts in (first, second, third)}) == 3

    asyncio.run(check())


@pytest.mark.parametrize("reset", [False, True])
def test_connections_closed_while_idle_are_not_noticed(server, reset):
    """A server's timeout, or a load balancer's, costs a new connection and no error."""
    lines = []

    async def straight_on(data):
        return data

    async def talk(reader, writer):
        lines.append(writer)
        await through(server, straight_on)(reader, writer)

    async def check():
        await fill(server)
        async with listen(talk) as url, opened(url) as store:
            for asking in (1, 20):
                await asyncio.gather(*(ask(store) for _ in range(20)))
                assert len(lines) > 1
                while lines:
                    close(lines.pop(), reset=reset)
                # Our side has not heard of it yet; then it has.
                await asyncio.gather(*(ask(store) for _ in range(asking)))
                await ask(store)

    asyncio.run(check())


def test_an_answer_that_nobody_asked_for_is_nobodys_answer(server):
    """A connection on which something lies unread is not used again."""

    async def one_too_many(data):
        return data + b"*0\r\n" if b"value 19" in data else data

    async def check():
        await fill(server)
        async with listen(through(server, one_too_many)) as url, opened(url) as store:
            for _ in range(3):
                await ask(store)
                assert (await store.facts()).keys() == {"epoch"}

    asyncio.run(check())

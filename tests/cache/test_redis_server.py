"""The connections to Redis: whose answer is whose, how many there are, and how long they may take.

The gateway runs on uvloop, its tests mostly on asyncio's own loop; what depends on how a loop
orders things runs on both.
"""

import asyncio
import random
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import uvloop

from gateway.cache.redis_server import PLACES, Limit
from gateway.cache.store import StoreError
from tests.cache.redis_verbs import ask, failure, fill, opened
from tests.cache.store_contract import NAMESPACE, key
from tests.redis_server import RedisServer, listen, serve_redis, through

LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])


def run(scene, loop):
    """Run a coroutine function on a loop of this kind."""
    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(scene())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with serve_redis(tmp_path / "redis") as server:
        yield server


@LOOPS
def test_a_limit_ends_what_takes_too_long(loop):
    """It raises TimeoutError; what is done in time is left alone."""

    async def scene():
        async with Limit(10.0):
            await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            async with Limit(0.01):
                await asyncio.Event().wait()
        async with Limit(0.01) as limit:
            limit.paused = True
            await asyncio.sleep(0.1)
            limit.paused = False

    run(scene, loop)


@LOOPS
def test_a_limit_ends_also_where_the_loop_is_always_busy(loop):
    """Time in which the loop does something else is let off, but not for ever."""

    async def hog():
        while True:
            time.sleep(0.01)
            await asyncio.sleep(0)

    async def scene():
        hogging = asyncio.create_task(hog())
        with pytest.raises(TimeoutError):
            async with Limit(0.005):
                await asyncio.Event().wait()
        hogging.cancel()

    run(scene, loop)


@LOOPS
def test_an_answer_that_lies_unread_is_no_timeout(server, loop):
    """It came in time, but the loop was busy until long after the end of the budget."""
    delay = 0.0

    async def later(data):
        await asyncio.sleep(delay)
        return data

    async def scene():
        nonlocal delay
        await fill(server)
        async with listen(through(server, later)) as url, opened(url, budget=1.0) as store:
            await ask(store)
            delay = 0.95
            asking = asyncio.create_task(ask(store))
            await asyncio.sleep(0.9)
            time.sleep(0.5)
            await asking

    run(scene, loop)


@LOOPS
def test_connecting_has_a_time_of_its_own(server, loop):
    """It may take longer than what is asked then."""

    async def late_once(data):
        if data == b"+OK\r\n":  # as the handshake is answered
            await asyncio.sleep(0.5)
        return data

    async def scene():
        await fill(server)
        async with listen(through(server, late_once)) as url, opened(url, budget=0.25) as store:
            await ask(store)

    run(scene, loop)


@LOOPS
def test_who_is_called_off_is_called_off(server, loop):
    """As a cancelled task, not as a store that failed."""

    async def scene():
        async with opened(server.url) as store:
            await store.facts()
            server.freeze()
            asking = asyncio.create_task(store.get(NAMESPACE, [key(1)]))
            await asyncio.sleep(0.01)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            server.thaw()
            await store.facts()

    run(scene, loop)


async def verb(store, number):
    """Ask for something that has one right answer; fail if another one comes."""
    mine = {key(number): b"value %d" % number}
    if number % 3 == 0:
        assert await store.get(NAMESPACE, [key(number)]) == mine
    elif number % 3 == 1:
        assert await store.add(NAMESPACE, {key(number): b"other"}) == mine
    else:
        assert await store.settle(str(number), mine[key(number)]) == mine[key(number)]


@LOOPS
@pytest.mark.parametrize("budget", [30.0, 0.003])
def test_no_answer_goes_to_somebody_else(server, loop, budget):
    """Thousands of verbs, many called off or out of time while their answer is on its way."""
    chance = random.Random(7)
    outcomes = {"answered": 0, "cancelled": 0, "timeout": 0}

    async def wave(store):
        tasks = [asyncio.create_task(verb(store, n)) for n in range(100)]
        for task in chance.sample(tasks, 60):
            if chance.random() < 0.15:
                await asyncio.sleep(0)
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if result is None:
                outcomes["answered"] += 1
            elif isinstance(result, asyncio.CancelledError):
                outcomes["cancelled"] += 1
            else:
                assert isinstance(result, StoreError), result
                outcomes[result.reason] += 1

    async def scene():
        async with opened(server.url) as store:
            await store.add(NAMESPACE, {key(n): b"value %d" % n for n in range(100)})
        async with opened(server.url, budget=budget) as store:
            for _ in range(30):
                await wave(store)
        async with opened(server.url) as store:
            for n in range(100):
                await verb(store, n)

    run(scene, loop)
    assert min(outcomes["answered"], outcomes["cancelled"]) > 300, outcomes


@LOOPS
def test_there_are_never_more_connections_than_places(server, loop):
    """Many verbs at once wait for one another, and the connections are used again."""

    async def scene():
        await fill(server)
        server.admin.config_resetstat()
        async with opened(server.url) as store:
            for _ in range(3):
                await asyncio.gather(*(ask(store) for _ in range(300)))
            assert server.admin.info("stats")["total_connections_received"] <= PLACES
            names = {client["name"] for client in server.admin.client_list()} - {""}
            assert names == {"embedding-gateway"}

    run(scene, loop)


def test_waiting_for_a_connection_counts(server):
    """Where all of them hang, those who wait for one time out as well."""

    async def scene():
        server.freeze()
        async with opened(server.url, budget=0.1, connect_budget=0.1) as store:
            asking = (failure(store.get(NAMESPACE, [key(1)])) for _ in range(3 * PLACES))
            assert {error.reason for error in await asyncio.gather(*asking)} == {"timeout"}

    asyncio.run(scene())


@LOOPS
def test_closing_waits_for_what_is_on_its_way(server, loop):
    """Then nothing is left open, and nobody is let in any more."""
    go_on = asyncio.Event()

    async def held(data):
        await go_on.wait()
        return data

    async def scene():
        await fill(server)
        go_on.set()
        async with listen(through(server, held)) as url, opened(url) as store:
            await asyncio.gather(*(ask(store) for _ in range(5)))
            go_on.clear()
            asking = asyncio.create_task(ask(store))
            await asyncio.sleep(0.01)
            closing = asyncio.create_task(store.aclose())
            await asyncio.sleep(0.01)
            assert not closing.done()
            assert (await failure(store.facts())).reason == "connect"
            go_on.set()
            await asking
            await closing

    before = psutil.Process().num_fds()
    run(scene, loop)
    assert psutil.Process().num_fds() <= before

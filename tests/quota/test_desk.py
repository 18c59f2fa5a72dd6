"""Many workers at their desks, over one ledger: together within the limits, whatever happens."""

import asyncio
import time
from collections.abc import Iterator
from random import Random
from secrets import token_hex

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.cache.store import StoreError
from gateway.errors import OwnLimitError
from gateway.quota.account import KeyAccount
from gateway.quota.book import HELD, Wish
from gateway.quota.desk import Desk
from gateway.quota.ledger import MemoryLedger
from gateway.quota.limits import Limits
from gateway.quota.reach import Reach
from gateway.quota.redis import RedisLedger
from gateway.quota.sqlite import SqliteLedger
from tests.redis_server import RedisServer, serve_redis

LOG = structlog.get_logger()


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with serve_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


class Watched(MemoryLedger):
    """A ledger in memory that counts its exchanges, and can be away or slow."""

    def __init__(self):
        super().__init__()
        self.exchanges = 0
        self.away = False
        self.pause = 0.0

    async def exchange(self, key, limits, ask):
        self.exchanges += 1
        if self.away:
            raise StoreError("connect", "it is away")
        await asyncio.sleep(self.pause)
        return await super().exchange(key, limits, ask)


class Shared(Watched):
    """As a worker sees one that others share: not its own memory."""


def desks(ledgers, limits, workers=1):
    """Return a desk for each ledger, as that many processes have them."""
    made = []
    for ledger in ledgers:
        reach = Reach(ledger, workers, LOG, lambda _: None)
        reach.ways = 1
        desk = Desk("k", token_hex(4), reach, time.monotonic, time.time)
        desk.limits = limits
        made.append(desk)
    return made


async def close(made, ledgers=()):
    await asyncio.gather(*(desk.aclose() for desk in made))
    for ledger in ledgers:
        await ledger.aclose()


def open_ledgers(kind, count, tmp_path, redis):
    if kind == "memory":
        return [Shared()] * count
    if kind == "redis":
        redis.admin.flushall()
        return [RedisLedger(redis.url, budget=10) for _ in range(count)]
    return [SqliteLedger(tmp_path / "l", log=LOG, budget=10) for _ in range(count)]


async def hammer(desk, requests):
    """Try to enter so often, many at a time; return how many could."""

    async def one():
        if desk.enter():
            return True
        return not await desk.ask_to_enter()

    entered = await asyncio.gather(*(one() for _ in range(requests)))
    return sum(entered)


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
@pytest.mark.parametrize("limit", [7, 60, 500])
def test_workers_that_hammer_together_get_what_there_is_and_no_more(kind, limit, tmp_path, redis):
    """Of a minute's requests all are given out, but for what a worker's last lease may hold."""

    async def check():
        ledgers = open_ledgers(kind, 4, tmp_path, redis)
        made = desks(ledgers, Limits(requests=limit))
        began = time.monotonic()
        entered = sum(await asyncio.gather(*(hammer(desk, limit) for desk in made)))
        came_back = (time.monotonic() - began) * limit / 60
        assert limit - 3 * (limit // 100) <= entered <= limit + came_back
        await close(made, ledgers)

    asyncio.run(check())


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
def test_no_more_run_at_the_same_time_than_may(kind, tmp_path, redis):
    """Counted over all workers; and every place is used again when it is free."""

    async def check():
        ledgers = open_ledgers(kind, 3, tmp_path, redis)
        made = desks(ledgers, Limits(places=5))
        running = most = served = 0
        chance = Random(1)

        async def one(desk):
            nonlocal running, most, served
            for _ in range(20):
                if desk.enter() or not await desk.ask_to_enter():
                    running += 1
                    served += 1
                    most = max(most, running)
                    await asyncio.sleep(chance.random() / 100)
                    running -= 1
                    desk.leave()
                else:
                    await asyncio.sleep(chance.random() / 50)

        await asyncio.gather(*(one(desk) for desk in made for _ in range(6)))
        assert most <= 5
        assert served > 50
        await close(made)
        # Nothing is held by anybody now: one worker may have all of it.
        (last,) = desks(ledgers[:1], Limits(places=5))
        assert await hammer(last, 9) == 5
        for _ in range(5):
            last.leave()
        await close([last], ledgers)

    asyncio.run(check())


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
def test_dollars_of_a_day_are_spent_to_the_last_and_no_further(kind, tmp_path, redis):
    """Reserved, refunded, billed for less by several workers at once: never over the limit."""

    async def check():
        ledgers = open_ledgers(kind, 3, tmp_path, redis)
        made = desks(ledgers, Limits(nanos=10_000))
        billed = 0

        async def one(desk, chance):
            nonlocal billed
            for _ in range(30):
                if not await desk.reserve(Wish(0, 200)):
                    await asyncio.sleep(0)
                    bill = chance.choice([0, 50, 100, 200])
                    billed += bill
                    desk.settle(0, bill - 200)

        await asyncio.gather(*(one(desk, Random(n)) for n, desk in enumerate(made * 3)))
        await close(made)
        (last,) = desks(ledgers[:1], Limits(nanos=10_000))
        while not await last.reserve(Wish(0, 1)):
            billed += 1
        assert billed == 10_000
        await close([last], ledgers)

    asyncio.run(check())


def test_places_that_nobody_uses_are_free_for_other_workers():
    """Soon after they were left, without anybody asking for them."""

    async def check():
        ledger = Shared()
        one, other = desks([ledger] * 2, Limits(places=3))
        assert await hammer(one, 5) == 3
        assert await hammer(other, 1) == 0
        for _ in range(3):
            one.leave()
        async with asyncio.timeout(10):
            while await other.ask_to_enter():
                await asyncio.sleep(0.01)
        assert await hammer(other, 5) == 2
        await close([one, other])

    asyncio.run(check())


def test_a_place_on_its_way_back_is_waited_for():
    """A client that goes from one worker to another, request after request, is not refused."""

    async def check():
        ledger = Shared()
        accounts = [KeyAccount(desk, desk.limits) for desk in desks([ledger] * 2, Limits(places=1))]
        for turn in range(10):
            async with accounts[turn % 2].admitted():
                with pytest.raises(OwnLimitError):
                    async with accounts[turn % 2].admitted():
                        pass
        await close([account._desk for account in accounts])

    asyncio.run(check())


def test_places_are_renewed_while_requests_stand_on_them():
    """Long before they would be free for others; and what was billed is told."""

    async def check():
        now = 0.0
        reach = Reach(Shared(), 1, LOG, lambda _: None)
        desk = Desk("k", "w", reach, lambda: now, time.time)
        desk.limits = Limits(places=2, tokens=100)
        assert not await desk.ask_to_enter()
        assert not desk.restless
        now = HELD / 2
        assert desk.restless
        desk.refresh()
        await desk._talk
        assert not desk.restless
        desk.leave()
        now = HELD
        assert not desk.restless
        desk.settle(5, 0)
        assert desk.restless
        await close([desk])

    asyncio.run(check())


def test_requests_on_lease_ask_nobody():
    """A key with a large limit that is used steadily costs a round trip for many requests."""

    async def check():
        ledger = Shared()
        (desk,) = desks([ledger], Limits(requests=60_000, places=50))
        for _ in range(2000):
            assert desk.enter() or not await desk.ask_to_enter()
            desk.leave()
        assert ledger.exchanges < 40
        await close([desk])

    asyncio.run(check())


def test_nobody_is_refused_what_there_is_plenty_of():
    """Who is at hand takes what is at hand while others wait for an exchange: they have theirs."""

    async def check():
        ledger = Shared()
        (desk,) = desks([ledger], Limits(requests=10**8, places=10**6))
        chance = Random(2)
        refused = []

        async def client():
            for _ in range(300):
                if not desk.enter() and (why := await desk.ask_to_enter()):
                    refused.append(why)
                    continue
                await asyncio.sleep(chance.choice([0, 0, 0.001, 0.03]))
                desk.leave()

        async def slower_and_faster():
            while True:
                ledger.pause = chance.choice([0, 0.001, 0.01])
                await asyncio.sleep(0.01)

        pace = asyncio.create_task(slower_and_faster())
        await asyncio.gather(*(client() for _ in range(20)))
        pace.cancel()
        assert refused == []
        await close([desk])

    asyncio.run(check())


def test_who_comes_while_the_ledger_is_asked_is_served_together():
    """However many wait, it is one exchange for all of them."""

    async def check():
        ledger = Shared()
        ledger.pause = 0.05
        (desk,) = desks([ledger], Limits(requests=150, tokens=10_000))
        entering = [asyncio.create_task(desk.ask_to_enter()) for _ in range(100)]
        wishing = [asyncio.create_task(desk.reserve(Wish(10, 0))) for _ in range(100)]
        assert set(await asyncio.gather(*entering, *wishing)) == {""}
        assert ledger.exchanges <= 3
        await close([desk])

    asyncio.run(check())


def test_who_leaves_while_waiting_holds_nothing():
    """A client that went away has no place, and what was reserved for it is given back."""

    async def check():
        ledger = Shared()
        ledger.pause = 0.02
        (desk,) = desks([ledger], Limits(places=2, tokens=100))
        for _ in range(5):
            leaving = [asyncio.create_task(desk.ask_to_enter()) for _ in range(2)]
            leaving += [asyncio.create_task(desk.reserve(Wish(100, 0)))]
            await asyncio.sleep(0.01)
            for task in leaving:
                task.cancel()
            await asyncio.gather(*leaving, return_exceptions=True)
        await asyncio.sleep(0.2)
        assert await hammer(desk, 3) == 2
        assert not await desk.reserve(Wish(100, 0))
        await close([desk])

    asyncio.run(check())


def test_who_is_called_off_just_when_it_was_granted_holds_nothing():
    """The answer has come, and the one who waited for it goes before it can hear of it."""

    async def check():
        (desk,) = desks([Shared()], Limits(places=1, tokens=50))
        for ask in (desk.ask_to_enter, lambda: desk.reserve(Wish(50, 0))):
            task = asyncio.create_task(ask())
            await asyncio.sleep(0)
            while desk._talk is not None:
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0.1)
        assert not await desk.ask_to_enter()
        desk.leave()
        assert not await desk.reserve(Wish(50, 0))
        await close([desk])

    asyncio.run(check())


def test_a_fault_of_the_ledger_nobody_foresaw_reaches_who_waits():
    """Nobody waits for ever; the next exchange is tried anew."""

    class Broken(Shared):
        async def exchange(self, key, limits, ask):
            if self.away:
                raise ZeroDivisionError
            return await super().exchange(key, limits, ask)

    async def check():
        ledger = Broken()
        ledger.away = True
        (desk,) = desks([ledger], Limits(requests=5))
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        with pytest.raises(ZeroDivisionError):
            await desk.ask_to_enter()
        ledger.away = False
        assert not await desk.ask_to_enter()
        await close([desk])

    asyncio.run(check())


def test_with_the_ledger_away_each_worker_has_its_part():
    """Of all that there is, what is owed included; and dollars of what was left."""

    async def check():
        ledger = Shared()
        made = desks([ledger] * 4, Limits(requests=40, tokens=400, nanos=4000), workers=4)
        for desk in made:
            await desk.reserve(Wish(50, 500))
            assert not await desk.ask_to_enter()
        for desk in made:
            desk.refresh()  # so that all know of all
        await asyncio.sleep(0.01)
        ledger.away = True
        entered = [await hammer(desk, 40) for desk in made]
        assert all(8 <= count <= 10 for count in entered)
        assert sum(entered) <= 40
        tokens = [sum([not await desk.reserve(Wish(10, 0)) for _ in range(20)]) for desk in made]
        assert tokens == [5] * 4
        dollars = [sum([not await desk.reserve(Wish(0, 100)) for _ in range(20)]) for desk in made]
        assert dollars == [5] * 4
        assert {desk.part.requests for desk in made} == {10}
        await close(made)

    asyncio.run(check())


def test_what_was_spent_alone_is_told_when_the_ledger_is_back():
    """All of it, once; and then limits are counted together again."""

    async def check():
        ledger = Shared()
        made = desks([ledger] * 2, Limits(nanos=4000), workers=2)
        for desk in made:
            assert not await desk.reserve(Wish(0, 500))
        ledger.away = True
        for desk in made:
            assert not await desk.reserve(Wish(0, 1000))
            desk.settle(0, -300)
        ledger.away = False
        for desk in made:
            desk._reach.probe()
            desk.refresh()
        await asyncio.sleep(0.1)
        (other,) = desks([ledger], Limits(nanos=4000))
        assert await other.reserve(Wish(0, 1601)) == "budget"
        assert not await other.reserve(Wish(0, 1600))
        assert {desk.ways for desk in made} == {1}
        await close([*made, other])

    asyncio.run(check())


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["enter", "reserve", "away", "back", "restart"]), st.integers(0, 2)
        ),
        max_size=40,
    )
)
def test_a_ledger_that_comes_and_goes_gives_nobody_more_than_a_part(steps):
    """What is spent alone never exceeds the limit either: reserved, it is reported or was told."""

    async def check():
        ledger = Shared()
        made = desks([ledger] * 3, Limits(nanos=3000), workers=3)
        granted = 0
        for what, who in steps:
            desk = made[who]
            if what == "reserve":
                granted += 100 * (not await desk.reserve(Wish(0, 100)))
            elif what == "enter":
                assert not await desk.ask_to_enter()
            elif what == "restart":
                await desk.aclose()
            else:
                ledger.away = what == "away"
                if not ledger.away:
                    for each in made:
                        each._reach.probe()
                        each.refresh()
                        await asyncio.sleep(0)
        # A part each of what the ledger last said was left, of which others may have had theirs.
        assert granted <= 2 * 3000
        ledger.away = False
        for desk in made:
            desk._reach.probe()
        await close(made)
        (last,) = desks([ledger], Limits(nanos=10**9))
        await last.reserve(Wish(0, 1))
        assert last._last.nanos == granted + 1
        await close([last])

    asyncio.run(check())


def test_one_worker_of_several_without_a_ledger_they_share_has_its_part():
    """Workers that keep their counts in memory know nothing of each other."""
    changes = []

    async def check():
        reach = Reach(MemoryLedger(), 4, LOG, changes.append)
        desk = Desk("k", "w", reach, time.monotonic, time.time)
        desk.limits = Limits(requests=40)
        assert await hammer(desk, 40) == 10
        assert desk.part.requests == 10
        await close([desk])

    asyncio.run(check())
    assert changes == [True]

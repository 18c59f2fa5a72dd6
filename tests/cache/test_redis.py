"""The tier in Redis, on a real server: what it keeps, and under which names."""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.cache.record import expires
from gateway.cache.redis import RedisStore, _pieces
from tests.cache.redis_verbs import (
    FACTS,
    PATIENT,
    PREFIX,
    STRANGERS,
    RedisContract,
    opened,
    put_stranger,
    record,
)
from tests.cache.store_contract import NAMESPACE, OTHER, key
from tests.redis_server import RedisServer, serve_redis


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with serve_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(running: RedisServer) -> RedisServer:
    """A server that holds nothing."""
    running.admin.flushall()
    return running


class TestContract(RedisContract):
    """What every store keeps."""

    @pytest.fixture(autouse=True)
    def _reach(self, server):
        self.servers = [server]
        self.url = server.url


def test_what_is_kept_is_found_under_its_name(server):
    """A key for each value, which says nothing of a text, and one for the facts."""

    async def check():
        async with opened(server.url) as store:
            await store.add(NAMESPACE, {b"\xff" * 32: b"\0value"})
            await store.settle("width", b"3")
        name = PREFIX + "_" * 42 + "8"
        assert {name.encode(), FACTS.encode()} == set(server.admin.keys())
        assert server.admin.get(name) == b"\0value"
        assert server.admin.hgetall(FACTS) == {b"width": b"3"}
        assert server.admin.ttl(name) == -1

    asyncio.run(check())


def test_a_flushed_server_has_another_epoch(server):
    """All who look see the same one, also those who are the first to look, at once."""

    async def check():
        async with opened(server.url) as store, opened(server.url) as other:
            looks = await asyncio.gather(*(s.facts() for s in [store, other] * 20))
            (epoch,) = {facts["epoch"] for facts in looks}
            server.admin.flushall()
            assert (await store.facts())["epoch"] != epoch
            assert await store.facts() == await other.facts()

    asyncio.run(check())


@pytest.mark.parametrize("kind", [kind for kind in STRANGERS if kind != "string"])
def test_a_stranger_among_the_values_is_no_value_and_makes_room(server, kind):
    """It does not spoil the batch that it is in; what is said to be kept then, is kept."""

    async def check():
        values = {key(n): b"%d" % n for n in range(300)}
        async with opened(server.url) as store:
            await store.add(NAMESPACE, values)
            for name in server.admin.keys(PREFIX + "*")[:2]:
                put_stranger(server, kind, name.decode())
            found = await store.get(NAMESPACE, list(values))
            assert len(found) == 298
            assert found.items() <= values.items()
            assert sum([len(batch) async for batch in store.scan(NAMESPACE)]) == 298
            assert (await store.namespaces())[NAMESPACE].entries == 298
            assert await store.add(NAMESPACE, values) == found
            assert await store.get(NAMESPACE, list(values)) == values
            for name in server.admin.keys(PREFIX + "*")[:2]:
                put_stranger(server, kind, name.decode())
            assert await store.discard(NAMESPACE, values) == 298
            assert await store.purge(NAMESPACE, 1.0) == 2

    asyncio.run(check())


@pytest.mark.parametrize("kind", [kind for kind in STRANGERS if kind != "hash"])
@pytest.mark.parametrize("verb", ["facts", "settle", "swap"])
def test_strange_facts_are_begun_anew(server, kind, verb):
    """Whichever verb comes first finds none, and can go on."""

    async def check():
        put_stranger(server, kind, FACTS)
        async with opened(server.url) as store:
            if verb == "settle":
                assert await store.settle("width", b"3") == b"3"
            elif verb == "swap":
                assert not await store.swap("width", b"3", b"4")
            facts = await store.facts()
            assert facts.keys() == ({"epoch", "width"} if verb == "settle" else {"epoch"})

    asyncio.run(check())


@settings(max_examples=25)
@given(st.lists(st.sets(st.integers(0, 7), min_size=1), min_size=2, max_size=8))
def test_of_many_who_add_at_once_one_wins_for_each_key(running, batches):
    """Each is told the winner's value, or nothing where it is the winner itself."""

    async def check():
        running.admin.flushall()
        stores = [RedisStore(running.url, **PATIENT) for _ in batches]
        offers = [
            {key(n): b"%d of %d" % (n, who) for n in batch} for who, batch in enumerate(batches)
        ]
        held = await asyncio.gather(
            *(store.add(NAMESPACE, offer) for store, offer in zip(stores, offers, strict=True))
        )
        kept = await stores[0].get(NAMESPACE, [key(n) for n in range(8)])
        assert kept.keys() == {k for offer in offers for k in offer}
        for offer, told in zip(offers, held, strict=True):
            assert {**offer, **told} == {k: kept[k] for k in offer}
        for store in stores:
            await store.aclose()

    asyncio.run(check())


def test_entries_end_when_the_other_tiers_say_so(server):
    """Read off the record and the key, for a record; from now on, for anything else."""

    async def check():
        now = server.admin.time()[0]
        values = {key(n): record(n, now - 50.0) for n in range(20)} | {key(20): b"no record"}
        async with opened(server.url, ttl=1000.0, clock=lambda: now) as store:
            await store.add(NAMESPACE, values)
            await store.add(NAMESPACE, {key(21): record(21, now - 1001.0)})
            found = await store.get(NAMESPACE, [key(n) for n in range(22)])
        assert found == values
        ends = {int(expires(key(n), now - 50.0, 1000.0) * 1000) for n in range(20)}
        ends.add(int(expires(key(20), now, 1000.0) * 1000))
        assert {server.admin.pexpiretime(name) for name in server.admin.scan_iter()} == ends
        assert len(ends) > 10, "what was made together would end together"

    asyncio.run(check())


def test_a_large_batch_goes_through(server):
    """As many texts as a request may have, in pieces by number and by size."""

    async def check():
        values = {key(n): b"%d" % n * 1500 for n in range(2048)}
        values |= {key(5000): b"x" * 3_000_000}
        async with opened(server.url) as store:
            assert await store.add(NAMESPACE, values) == {}
            assert await store.add(NAMESPACE, values) == values
            assert await store.get(NAMESPACE, [*values, key(1), key(4000)]) == values
            assert await store.discard(NAMESPACE, values) == 2049

    asyncio.run(check())


@given(st.lists(st.integers(0, 900_000), max_size=400))
def test_pieces_are_small_and_leave_nothing_out(sizes):
    """In number and in bytes, but for a value that is large by itself."""
    values = {key(n): bytes(size) for n, size in enumerate(sizes)}
    pieces = list(_pieces(values))
    assert [pair for piece in pieces for pair in piece.items()] == list(values.items())
    for piece in pieces:
        assert 0 < len(piece) <= 128
        assert sum(map(len, piece.values())) <= 2**20


def test_names_that_we_do_not_give_are_left_out(server):
    """Also by a namespace that means something to Redis's patterns."""

    async def check():
        for name in [
            "embgw:1",
            "embgw:1:",
            "embgw:1:x",
            "embgw:2:x:y",
            PREFIX + "a",
            PREFIX + "QR",
        ]:
            server.admin.set(name, "foreign")
        async with opened(server.url) as store:
            await store.add(NAMESPACE, {key(1): b"value"})
            assert [batch async for batch in store.scan(NAMESPACE)] == [{key(1): b"value"}]
            assert (await store.namespaces()).keys() == {NAMESPACE}
            assert await store.purge("*", None) == 0
            assert await store.purge("?" * len(NAMESPACE), None) == 0
            assert await store.purge(OTHER, None) == 0
            assert server.admin.dbsize() == 7

    asyncio.run(check())


def test_what_is_no_record_counts_as_old(server):
    """A purge by age takes it along."""

    async def check():
        values = {key(1): record(1, 10.0), key(2): record(2, 20.0), key(3): b"no record"}
        async with opened(server.url) as store:
            await store.add(NAMESPACE, values)
            assert await store.purge(NAMESPACE, 20.0) == 2
            assert await store.get(NAMESPACE, list(values)) == {key(2): values[key(2)]}

    asyncio.run(check())


def test_usage_is_the_servers_own(server):
    """Its keys, memory and evictions, whoever's they are."""

    async def check():
        server.admin.set("somebody's", "x")
        server.admin.config_set("maxmemory-policy", "allkeys-random")
        server.admin.config_resetstat()
        async with opened(server.url) as store:
            await store.add(NAMESPACE, {key(1): b"value"})
            usage = await store.usage()
            assert (usage.entries, usage.evicted) == (2, 0)
            assert 500_000 < usage.bytes < 50_000_000
            server.admin.config_set("maxmemory", 1)
            usage = await store.usage()
            assert (usage.entries, usage.evicted) == (0, 2)
            server.admin.config_set("maxmemory", 0)

    asyncio.run(check())

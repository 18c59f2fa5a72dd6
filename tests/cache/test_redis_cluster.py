"""The tier in a Redis Cluster of three: each key on its server, also while it moves."""

import asyncio
import gc
from collections.abc import Iterator

import pytest
from redis.crc import key_slot

from gateway.cache.redis import _name
from tests.cache.redis_verbs import (
    HURRIED,
    PREFIX,
    RedisContract,
    failure,
    meet,
    opened,
    put_stranger,
)
from tests.cache.store_contract import NAMESPACE, key
from tests.cache.test_redis_access import RULES, grant
from tests.redis_server import RedisServer, is_whole, listen, serve_cluster, serve_redis, wait_for

VALUES = {key(n): b"value %d" % n for n in range(300)}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisServer]]:
    with serve_cluster(tmp_path_factory.mktemp("cluster")) as servers:
        yield servers


@pytest.fixture
def servers(running: list[RedisServer]) -> list[RedisServer]:
    """Three servers that hold nothing."""
    for server in running:
        server.admin.flushall()
    return running


class TestContract(RedisContract):
    """What every store keeps, with no other rights than those that we ask for."""

    cluster = True

    @pytest.fixture(autouse=True)
    def _reach(self, servers):
        self.servers = servers
        addresses = [grant(server, RULES) for server in servers]
        self.url = addresses[1].removesuffix("/3")


def test_the_keys_are_everywhere_and_so_are_the_figures(servers):
    """Whichever server is asked first; facts are on one of them."""

    async def check():
        for server in servers:
            # Under another name than the one that it has in the cluster.
            url = server.url.replace("127.0.0.1", "localhost")
            async with opened(url, cluster=True) as store:
                await store.facts()
                await store.add(NAMESPACE, VALUES)
                assert await store.get(NAMESPACE, list(VALUES)) == VALUES
                assert (await store.usage()).entries == 301
                assert (await store.namespaces())[NAMESPACE].entries == 300
        gc.collect()  # what was not closed would warn
        assert min(server.admin.dbsize() for server in servers) > 50
        assert max(server.admin.dbsize() for server in servers) < 200

    asyncio.run(check())


def test_strangers_make_room_here_too(servers):
    """They are on different servers, and so is what is kept."""

    async def check():
        async with opened(servers[0].url, cluster=True) as store:
            await store.add(NAMESPACE, VALUES)
            for server in servers:
                put_stranger(server, "list", server.admin.keys(PREFIX + "*")[0].decode())
            assert len(await store.get(NAMESPACE, list(VALUES))) == 297
            assert len(await store.add(NAMESPACE, VALUES)) == 297
            assert await store.get(NAMESPACE, list(VALUES)) == VALUES

    asyncio.run(check())


def move(slot: int, source: RedisServer, target: RedisServer) -> Iterator[None]:
    """Move a slot from one server to another; stops halfway, with keys here and there."""
    here, there = (server.admin.execute_command("CLUSTER MYID") for server in (source, target))
    target.admin.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", here)
    source.admin.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", there)
    yield
    keys = source.admin.execute_command("CLUSTER GETKEYSINSLOT", slot, 1000)
    if keys:
        source.admin.migrate("127.0.0.1", target.port, keys, 0, 5000)
    for server in (target, source):
        server.admin.execute_command("CLUSTER SETSLOT", slot, "NODE", there)


def owner(servers: list[RedisServer], name: bytes) -> int:
    """Return which server has the slot of this name; they share the slots in order."""
    return key_slot(name) * len(servers) // 16384


def test_keys_are_found_while_they_move_and_after(servers):
    """Some are still here, some are there already; none is kept twice."""

    async def check():
        async with opened(servers[0].url, cluster=True) as store:
            await store.add(NAMESPACE, {key(1): b"old"})
            (name,) = [name for server in servers for name in server.admin.keys(PREFIX + "*")]
            source = servers[owner(servers, name)]
            target = servers[owner(servers, name) - 1]
            moving = move(key_slot(name), source, target)
            next(moving)
            assert await store.get(NAMESPACE, [key(1)]) == {key(1): b"old"}
            assert await store.add(NAMESPACE, {key(1): b"new"}) == {key(1): b"old"}
            source.admin.delete(name)
            assert await store.get(NAMESPACE, [key(1)]) == {}
            assert await store.add(NAMESPACE, VALUES) == {}
            assert await store.add(NAMESPACE, {key(1): b"new"}) == {key(1): VALUES[key(1)]}
            assert source.admin.keys(name) == []
            assert list(moving) == []
            assert await store.get(NAMESPACE, list(VALUES)) == VALUES
            assert await store.discard(NAMESPACE, {key(1): VALUES[key(1)]}) == 1
            assert list(move(key_slot(name), target, source)) == [None]
            assert await store.add(NAMESPACE, VALUES) == {
                k: value for k, value in VALUES.items() if k != key(1)
            }

    asyncio.run(check())


def test_a_server_that_is_lost_takes_only_its_own_keys(servers):
    """Until it is back; in the meantime the others are asked as before."""

    async def check():
        async with opened(servers[0].url, cluster=True) as store:
            await store.add(NAMESPACE, VALUES)
            lost = set(servers[2].admin.keys(PREFIX + "*"))
            servers[2].kill()
            there = [k for k in VALUES if _name(NAMESPACE, k) not in lost]
            assert len(there) < len(VALUES)
            assert (await failure(store.get(NAMESPACE, list(VALUES)))).reason == "connect"
            assert len(await store.get(NAMESPACE, there)) == len(there)
            servers[2].start()
            wait_for(lambda: is_whole(servers))
            assert len(await store.get(NAMESPACE, list(VALUES))) == len(there)

    asyncio.run(check())


def test_a_server_that_is_frozen_costs_its_budget(servers):
    """And the others do not wait for it the next time."""

    async def check():
        async with opened(servers[0].url, cluster=True, **HURRIED) as store:
            await meet(store)
            servers[1].freeze()
            try:
                for _ in range(2):
                    error = await failure(store.get(NAMESPACE, list(VALUES)))
                    assert error.reason == "timeout"
            finally:
                servers[1].thaw()
        async with opened(servers[0].url, cluster=True) as store:
            assert await store.get(NAMESPACE, list(VALUES)) == {}

    asyncio.run(check())


def test_who_took_over_is_found(tmp_path):
    """The old owner is gone, and what we knew of the cluster is wrong."""

    async def check():
        with serve_cluster(tmp_path) as (heir, witness, lost):
            async with opened(lost.url, cluster=True) as store:
                await store.add(NAMESPACE, VALUES)
                gone = lost.admin.dbsize()
                lost.kill()
                for command in ("DELSLOTSRANGE 10922 16383", "ADDSLOTSRANGE 10922 16383"):
                    heir.admin.execute_command("CLUSTER", *command.split())
                heir.admin.execute_command("CLUSTER BUMPEPOCH")
                wait_for(
                    lambda: (
                        str(lost.port) not in str(witness.admin.execute_command("CLUSTER SLOTS"))
                    )
                )
                assert len(await store.add(NAMESPACE, VALUES)) == len(VALUES) - gone
                assert await store.get(NAMESPACE, list(VALUES)) == VALUES

    asyncio.run(check())


def test_many_at_once_get_their_own_answers(servers):
    """Over all the servers, with half of those who ask called off."""

    async def one(store, number):
        keys = [key((number + n) % 300) for n in range(5)]
        assert await store.get(NAMESPACE, keys) == {k: VALUES[k] for k in keys}

    async def check():
        async with opened(servers[0].url, cluster=True) as store:
            await store.add(NAMESPACE, VALUES)
            for _ in range(5):
                tasks = [asyncio.create_task(one(store, number)) for number in range(200)]
                for task in tasks[::2]:
                    await asyncio.sleep(0)
                    task.cancel()
                results = await asyncio.gather(*tasks, return_exceptions=True)
                assert results[1::2] == [None] * 100
                assert {type(result) for result in results} <= {type(None), asyncio.CancelledError}

    asyncio.run(check())


def test_a_cluster_and_a_server_are_not_taken_for_each_other(servers, tmp_path):
    """What is said tells which of them the address should have named."""

    async def check():
        async with opened(servers[0].url) as store:
            error = await failure(store.get(NAMESPACE, list(VALUES)))
            assert "CROSSSLOT" in str(error)
        with serve_redis(tmp_path) as single:
            async with opened(single.url, cluster=True) as store:
                error = await failure(store.facts())
                assert "cluster support disabled" in str(error)

    asyncio.run(check())


@pytest.mark.parametrize(
    ("last", "said", "why"),
    [
        (16383, "-MOVED 1 {}", "from one server to the next"),
        (16383, "-ASK 1 {}", "from one server to the next"),
        (16383, "-CLUSTERDOWN The cluster is down", "CLUSTERDOWN"),
        (0, "$-1", "no server"),
    ],
)
def test_a_cluster_that_is_not_in_order_is_a_store_that_fails(last, said, why):
    """Each of these is told to a server that stands for a cluster."""

    async def talk(reader, writer):
        host, port = writer.get_extra_info("sockname")
        slots = f"*1\r\n*3\r\n:0\r\n:{last}\r\n*2\r\n$9\r\n{host}\r\n:{port}\r\n"
        while asked := await reader.read(65536):
            answer = slots if b"SLOTS" in asked else said.format(f"{host}:{port}") + "\r\n"
            writer.write(b"+OK\r\n" if b"SETNAME" in asked else answer.encode() * asked.count(b"*"))

    async def check():
        async with listen(talk) as url, opened(url, cluster=True) as store:
            error = await failure(store.get(NAMESPACE, list(VALUES)[:20]))
            assert (error.reason, why in str(error)) == ("error", True)

    asyncio.run(check())

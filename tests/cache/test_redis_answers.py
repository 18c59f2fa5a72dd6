"""The tier in Redis when the server answers with an error, or with something that is no answer."""

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.cache.store import StoreError
from tests.cache.redis_verbs import VALUES, ask, failure, fill, opened, reasons, verbs
from tests.cache.store_contract import NAMESPACE, key
from tests.redis_server import RedisServer, free_port, listen, serve_redis, wait_for


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with serve_redis(tmp_path / "redis") as server:
        yield server


def test_a_full_server_still_has_what_it_has(server):
    """It says so, and can be made room in."""

    async def check():
        await fill(server)
        server.admin.config_set("maxmemory", 1)
        async with opened(server.url) as store:
            await ask(store)
            new = {key(99): b"new"}
            assert (await failure(store.add(NAMESPACE, new))).reason == "full"
            assert (await failure(store.settle("name", b"value"))).reason == "full"
            assert await store.discard(NAMESPACE, VALUES) == len(VALUES)
            server.admin.config_set("maxmemory", 0)
            assert await store.add(NAMESPACE, new) == {}

    asyncio.run(check())


def test_a_replica_is_for_reading(server):
    """As after a failover, on a connection to the one that was the primary."""

    async def check():
        await fill(server)
        async with opened(server.url) as store:
            await ask(store)
            server.admin.replicaof("127.0.0.1", free_port())
            await ask(store)
            assert (await failure(store.add(NAMESPACE, VALUES))).reason == "readonly"
            assert (await failure(store.discard(NAMESPACE, VALUES))).reason == "readonly"
            assert (await failure(store.settle("name", b"value"))).reason == "readonly"

    asyncio.run(check())


def test_a_server_that_cannot_save_takes_no_writes(tmp_path):
    """Its disk is gone: it is for reading until somebody looks after it."""

    async def check():
        with serve_redis(tmp_path / "gone", "--save", "3600 1") as server:
            await fill(server)
            shutil.rmtree(server.folder)
            server.admin.bgsave()
            wait_for(lambda: server.admin.info("persistence")["rdb_last_bgsave_status"] != "ok")
            async with opened(server.url) as store:
                assert (await failure(store.add(NAMESPACE, VALUES))).reason == "readonly"
                await ask(store)

    asyncio.run(check())


@pytest.mark.parametrize("said", ["*0", "$1\r\na", ":1", "+OK", "*1\r\n:1", "*1\r\n-ERR no"])
def test_an_answer_to_another_question_is_no_answer(said):
    """Too short, or of another kind."""

    async def talk(reader, writer):
        await reader.read(65536)
        writer.write(b"+OK\r\n")
        while await reader.read(65536):
            writer.write(f"{said}\r\n".encode())

    async def check():
        async with listen(talk) as url, opened(url) as store:
            assert (await failure(store.get(NAMESPACE, [key(1)]))).reason == "error"

    asyncio.run(check())


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("LOADING Redis is loading the dataset in memory", "error"),
        ("BUSY Redis is busy running a script.", "error"),
        ("MASTERDOWN Link with MASTER is down", "error"),
        ("CLUSTERDOWN The cluster is down", "error"),
        ("TRYAGAIN Multiple keys request during rehashing of slot", "error"),
        ("MOVED 3999 127.0.0.1:6381", "error"),
        ("NOREPLICAS Not enough good replicas to write.", "readonly"),
        ("DENIED Redis is running in protected mode", "refused"),
    ],
)
def test_what_a_server_says_tells_what_is_wrong(said, reason):
    """These are hard to have a server say; it is told to."""

    async def talk(reader, writer):
        await reader.read(65536)
        writer.write(b"+OK\r\n")
        while asked := await reader.read(65536):
            writer.write(f"-{said}\r\n".encode() * asked.count(b"*"))

    async def check():
        async with listen(talk) as url, opened(url) as store:
            assert await reasons(store) == {reason}
            error = await failure(store.get(NAMESPACE, [key(1)]))
            assert said.split()[0] in str(error)

    asyncio.run(check())


def test_a_server_without_room_for_us_is_not_there(server):
    """It takes no more connections."""

    async def check():
        server.admin.ping()
        server.admin.config_set("maxclients", 1)
        async with opened(server.url) as store:
            assert await reasons(store) == {"connect"}

    asyncio.run(check())


def test_an_error_names_neither_keys_nor_values(tmp_path):
    """A server that does not know a command quotes what came with it; we do not."""

    async def check():
        lacking = [word for name in ("MGET", "SET") for word in ("--rename-command", name, "")]
        with serve_redis(tmp_path / "lacking", *lacking) as server:
            async with opened(server.url) as store:
                for verb in (store.get(NAMESPACE, [key(1)]), store.add(NAMESPACE, VALUES)):
                    error = await failure(verb)
                    assert error.reason == "error"
                    assert "ERR: unknown command" in str(error)
                    assert "embgw" not in str(error)
                    assert "value" not in str(error)

    asyncio.run(check())


# What might be answered by something that is no Redis, or a broken one.
PIECES = st.one_of(
    st.binary(max_size=20),
    st.sampled_from(
        [b"+OK", b"-ERR no", b"-MOVED 1 x:1", b"-ASK", b"-LOADING", b"-NOAUTH", b"$-1"]
    ),
    st.integers(-2, 10**7).map(lambda n: b":%d" % n),
    st.integers(-2, 10**12).map(lambda n: b"$%d" % n),
    st.integers(-2, 30).map(lambda n: b"*%d" % n),
    st.just(b"*1\r\n" * 2000),
)


@settings(max_examples=50)
@given(st.lists(PIECES, min_size=1, max_size=6))
def test_whatever_listens_there_nothing_but_a_store_error_comes_out(pieces):
    """Random answers, to every verb that a request may wait for."""
    noise = b"\r\n".join(pieces) + b"\r\n"

    async def babble(reader, writer):
        await reader.read(65536)
        writer.write(b"+OK\r\n")
        while await reader.read(65536):
            writer.write(noise)

    async def check():
        async with listen(babble) as url, opened(url, budget=0.01) as store:
            for verb in verbs(store):
                with suppress(StoreError):
                    await verb

    asyncio.run(check())

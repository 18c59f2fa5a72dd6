"""Every ledger counts the same: memory, SQLite, Redis and a cluster, under any reports."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import asynccontextmanager, closing
from stat import S_IMODE

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.cache.store import StoreError
from gateway.quota.book import FORGOTTEN, Ask, Book, Wish, exchange
from gateway.quota.ledger import MemoryLedger
from gateway.quota.limits import DAY, Limits
from gateway.quota.redis import PREFIX, RedisLedger
from gateway.quota.sqlite import SqliteLedger
from tests.cache.test_redis_access import RULES, grant
from tests.redis_server import RedisServer, serve_cluster, serve_redis, wait_for

NOW = 1_800_000_000.0
LOG = structlog.get_logger()

counts = st.integers(0, 40)
asks = st.builds(
    Ask,
    worker=st.sampled_from("abc"),
    used=counts,
    lease=counts,
    busy=st.integers(0, 3),
    places=counts,
    tokens=st.integers(-50, 500),
    nanos=st.integers(-(10**12), 10**12),
    known_tokens=counts,
    known_nanos=st.integers(0, 10**9),
    spent=st.integers(0, 10**9),
    wishes=st.lists(
        st.builds(Wish, st.integers(0, 300), st.just(0) | st.integers(0, 10**12)), max_size=4
    ),
)
limits = st.builds(
    Limits,
    requests=st.none() | st.integers(1, 100),
    tokens=st.none() | st.integers(1, 1000),
    places=st.none() | st.integers(1, 20),
    nanos=st.none() | st.just(0) | st.integers(0, 10**13),
)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with serve_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@asynccontextmanager
async def opened(ledger):
    try:
        yield ledger
    finally:
        await ledger.aclose()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=st.lists(asks, min_size=1, max_size=12), limits=limits)
def test_sqlite_counts_as_the_book_does(asked, limits, tmp_path_factory):
    """Whatever is reported, in any order."""

    async def check():
        path = tmp_path_factory.mktemp("limits") / "cache.db.limits"
        ledger = SqliteLedger(path, log=LOG, clock=lambda: NOW, budget=5)
        async with opened(ledger):
            book = Book()
            for ask in asked:
                told = await ledger.exchange("k", limits, ask)
                assert told == exchange(book, limits, ask, NOW)

    asyncio.run(check())


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=st.lists(asks, min_size=1, max_size=12), limits=limits)
def test_redis_counts_as_the_book_does(asked, limits, redis):
    """The script in Lua is the same arithmetic, but for what drains away in its milliseconds."""

    async def check():
        redis.admin.flushall()
        async with opened(RedisLedger(redis.url, budget=5)) as ledger:
            book = Book()
            for ask in asked:
                told = await ledger.exchange("k", limits, ask)
                ours = exchange(book, limits, ask, NOW)
                assert told.day == float(redis.admin.time()[0]) // DAY
                for name in ("lease", "places", "refused", "nanos", "workers"):
                    assert getattr(told, name) == getattr(ours, name), (name, ask)
                assert told.requests == pytest.approx(ours.requests, abs=1)
                assert told.tokens == pytest.approx(ours.tokens, abs=10)

    # A second in which nothing drains that would round otherwise: the lists are short.
    asyncio.run(check())


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
def test_what_is_owed_drains_as_time_passes(kind, tmp_path, redis):
    """By each ledger's own clock: Redis' is the server's."""

    async def check():
        ledger = {
            "memory": MemoryLedger,
            "sqlite": lambda: SqliteLedger(tmp_path / "l", log=LOG, budget=5),
            "redis": lambda: RedisLedger(redis.url, budget=5),
        }[kind]()
        async with opened(ledger):
            many = Limits(requests=6000, tokens=6000)
            ask = Ask(worker="a", lease=6000, wishes=[Wish(6000, 0)])
            told = await ledger.exchange(f"drain {kind}", many, ask)
            assert (told.lease, told.refused) == (6000, [""])
            used = Ask(worker="a", used=6000, lease=6000, wishes=[Wish(6000, 0)])
            told = await ledger.exchange(f"drain {kind}", many, used)
            assert (told.lease < 1000, told.refused) == (True, ["tokens"])
            await asyncio.sleep(0.5)
            again = Ask(worker="a", used=6000 + told.lease, lease=40, wishes=[Wish(40, 0)])
            told = await ledger.exchange(f"drain {kind}", many, again)
            assert (told.lease, told.refused) == (40, [""])

    asyncio.run(check())


def test_a_cluster_has_each_key_on_its_server(tmp_path):
    """One key a script, so that there is nothing that a cluster could refuse."""

    async def check(urls):
        async with opened(RedisLedger(urls[1], cluster=True, budget=5)) as ledger:
            for number in range(40):
                name, ask = f"team {number}", Ask(worker="w", wishes=[Wish(7, 0)])
                assert (await ledger.exchange(name, Limits(tokens=10), ask)).refused == [""]
                assert (await ledger.exchange(name, Limits(tokens=10), ask)).refused == ["tokens"]

    with serve_cluster(tmp_path) as servers:
        asyncio.run(check([server.url for server in servers]))
        assert all(server.admin.dbsize() for server in servers)
        assert sum(server.admin.dbsize() for server in servers) == 40


def test_redis_needs_no_more_rights_than_the_cache_says(redis):
    """The rules in the head of cache/redis.py are enough, with one more."""

    async def check():
        async with opened(RedisLedger(grant(redis, [*RULES, "+time"]), budget=5)) as ledger:
            told = await ledger.exchange("k", Limits(requests=5), Ask(worker="w", lease=2))
            assert told.lease == 2

    asyncio.run(check())


@pytest.mark.parametrize("stranger", ["list", "text", "packed"])
def test_redis_begins_anew_where_something_else_stands(stranger, redis):
    """A value that nobody can read would else refuse a key for ever."""

    async def check():
        name = PREFIX + b"k"
        redis.admin.flushall()
        if stranger == "list":
            redis.admin.rpush(name, "x")
        else:
            redis.admin.set(name, b"hello" if stranger == "text" else b"\x81\xa1a\x01")
        async with opened(RedisLedger(redis.url, budget=5)) as ledger:
            told = await ledger.exchange("k", Limits(requests=5), Ask(worker="w", lease=9))
            assert told.lease == 5
            used = Ask(worker="w", used=5, lease=9)
            assert (await ledger.exchange("k", Limits(requests=5), used)).lease == 0

    asyncio.run(check())


def test_redis_forgets_workers_as_the_book_does(redis):
    """One that was not heard of for long holds nothing, and is believed what it says is known."""
    old = """
        local now = tonumber(redis.call('TIME')[1])
        local seat = {seen = now - tonumber(ARGV[1]), used = 5, lease = 3, places = 4, tokens = 100,
                      nanos = 100}
        local book = {at = now, requests = 3, tokens = 50, day = math.floor(now / 86400),
                      nanos = 1000, seats = {w = seat}}
        redis.call('SET', KEYS[1], cmsgpack.pack(book))
    """

    async def check():
        bounds = Limits(requests=100, tokens=1000, places=4, nanos=10**6)
        ask = Ask(worker="w", used=5, nanos=300, known_nanos=250)
        other = Ask(worker="o", places=4)
        async with opened(RedisLedger(redis.url, budget=5)) as ledger:
            for age, nanos, places in ((5, 1200, 0), (60, 1200, 4), (FORGOTTEN + 5, 1050, 4)):
                redis.admin.eval(old, 1, PREFIX + b"k", age)
                assert (await ledger.exchange("k", bounds, other)).places == places
                redis.admin.eval(old, 1, PREFIX + b"k", age)
                assert (await ledger.exchange("k", bounds, ask)).nanos == nanos

    asyncio.run(check())


def test_redis_keeps_a_key_for_two_days(redis):
    """Longer than the day whose dollars it counts; then what nobody uses is gone."""

    async def check():
        async with opened(RedisLedger(redis.url, budget=5)) as ledger:
            await ledger.exchange("kept", Limits(requests=5), Ask(worker="w"))

    asyncio.run(check())
    assert DAY < redis.admin.ttl(PREFIX + b"kept") <= 2 * DAY


def test_a_frozen_redis_takes_its_budget_and_no_longer(tmp_path):
    """Then it is away; when it goes on, it counts on."""

    async def check(server):
        async with opened(RedisLedger(server.url)) as ledger:
            ask = Ask(worker="w", wishes=[Wish(6, 0)])
            await ledger.exchange("k", Limits(tokens=10), Ask(worker="w"))
            server.freeze()
            with pytest.raises(StoreError) as away:
                await ledger.exchange("k", Limits(tokens=10), ask)
            assert away.value.reason == "timeout"
            server.thaw()
            wait_for(server.admin.ping)
            async with opened(RedisLedger(server.url, budget=5)) as patient:
                assert (await patient.exchange("k", Limits(tokens=10), Ask(worker="w"))).workers

    with serve_redis(tmp_path) as server:
        asyncio.run(check(server))


def test_sqlite_keeps_what_was_answered_for_its_owner_alone(tmp_path):
    """Dollars and all, over a restart; nobody else may read the file."""
    path = tmp_path / "new" / "cache.db.limits"

    async def spend():
        async with opened(SqliteLedger(path, log=LOG, budget=5)) as ledger:
            ask = Ask(worker="w", wishes=[Wish(0, 700)])
            return (await ledger.exchange("k", Limits(nanos=1000), ask)).refused

    assert [asyncio.run(spend()), asyncio.run(spend())] == [[""], ["budget"]]
    files = list(path.parent.iterdir())
    assert path in files
    assert {S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert S_IMODE(path.parent.stat().st_mode) == 0o700


def test_sqlite_sets_a_damaged_file_aside(tmp_path):
    """And begins anew, with a line in the log."""
    path = tmp_path / "cache.db.limits"
    path.write_bytes(b"no database" * 1000)

    async def check():
        async with opened(SqliteLedger(path, log=LOG, budget=5)) as ledger:
            told = await ledger.exchange("k", Limits(requests=5), Ask(worker="w", lease=9))
            assert told.lease == 5

    asyncio.run(check())
    assert list(tmp_path.glob("cache.db.limits.corrupt-*"))


_NUMBERS = b"\x96" + 3 * (b"\xcb" + bytes(8)) + b"\0\0"
"""How a book begins, up to its workers."""


@pytest.mark.parametrize(
    "value",
    [b"", b"\xc1", b"\x81\xa1x", _NUMBERS + b"\x81\xa1\xff\x90", _NUMBERS + b"\x91" * 100_000],
    ids=["empty", "none", "another", "a bit changed", "deep"],
)
def test_a_damaged_book_begins_anew(tmp_path, value):
    """Only that key's; whoever has it is answered."""
    path = tmp_path / "cache.db.limits"

    async def spend():
        async with opened(SqliteLedger(path, log=LOG, budget=5)) as ledger:
            return (await ledger.exchange("k", Limits(requests=5), Ask(worker="w", lease=9))).lease

    assert asyncio.run(spend()) == 5
    connection = sqlite3.connect(path)
    connection.execute("UPDATE books SET book = ?", (value,))
    connection.commit()
    connection.close()
    assert asyncio.run(spend()) == 5


@pytest.mark.parametrize(
    "damaged",
    [b"", b"no book", b"\x96", b"\xc0", b"\x91" * 10_000,
     b"\x96" + 3 * (b"\xcb" + bytes(8)) + b"\0\0\x81\xa1\xff\x90",
     b"\x96" + 3 * (b"\xcb\x7f\xf8" + bytes(6)) + b"\0\0\x80"],
)  # fmt: skip
def test_sqlite_begins_a_book_anew_that_it_cannot_read(damaged, tmp_path):
    """A flipped bit would else refuse a key for ever."""
    path = tmp_path / "limits"

    async def check(used):
        async with opened(SqliteLedger(path, log=LOG, budget=5)) as ledger:
            ask = Ask(worker="w", used=used, lease=9)
            return (await ledger.exchange("k", Limits(requests=5), ask)).lease

    assert asyncio.run(check(0)) == 5
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE books SET book = ?", (damaged,))
        connection.commit()
    assert asyncio.run(check(5)) == 5
    assert asyncio.run(check(10)) == 0


def test_sqlite_leaves_other_programs_files_alone(tmp_path):
    """The cache's own among them: an address that is a slip costs nothing."""
    path = tmp_path / "somebody.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (x)")
    connection.commit()
    connection.close()
    before = path.read_bytes()

    async def check():
        async with opened(SqliteLedger(path, log=LOG, budget=5)) as ledger:
            with pytest.raises(StoreError, match="another program"):
                await ledger.exchange("k", Limits(requests=5), Ask(worker="w"))

    asyncio.run(check())
    assert path.read_bytes() == before

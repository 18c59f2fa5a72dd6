"""What leaves the SQLite store: what is too much, too old, or was told to go."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.cache.record import expires
from gateway.cache.sqlite_rows import ROW_BYTES
from gateway.cache.store import Usage
from tests.cache.sqlite_files import opened, query, sums
from tests.cache.store_contract import scanned
from tests.cache.values import NAMESPACE, OTHER, key, record

NOW = 1_800_000_000.0
HOUR = 3600.0


class Clock:
    """The time that the test says it is."""

    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache.db"


@settings(max_examples=40)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.sets(st.integers(0, 30), min_size=1, max_size=8)),
            st.tuples(st.just("get"), st.sets(st.integers(0, 30), min_size=1, max_size=4)),
            st.tuples(st.just("wait"), st.sampled_from([1, HOUR + 1])),
        ),
        max_size=25,
    ),
)
def test_the_bound_holds(tmp_path_factory, calls):
    """Whatever is added: never more than that, and never is pushed out what was just added."""
    path = tmp_path_factory.mktemp("bound") / "cache.db"
    clock, size = Clock(), 1000 + ROW_BYTES

    async def check():
        async with opened(path, max_bytes=10 * size, clock=clock) as store:
            added = 0
            for verb, argument in calls:
                if verb == "wait":
                    clock.now += argument
                    continue
                values = {key(n): b"%1000d" % n for n in argument}
                if verb == "get":
                    await store.get(NAMESPACE, list(values))
                    continue
                first = await store.add(NAMESPACE, values)
                added += len(values) - len(first)
                new = values.keys() - first.keys()
                assert new <= (await store.get(NAMESPACE, list(new))).keys()
                usage = await store.usage()
                assert usage.bytes == usage.entries * size <= 10 * size
                assert usage.evicted == added - usage.entries

    asyncio.run(check())


def test_the_least_recently_used_make_room(path):
    """An entry that was read within the hour is not noted again; one that was not, is."""
    clock, size = Clock(), 1000 + ROW_BYTES

    async def check():
        async with opened(path, max_bytes=20 * size, clock=clock) as store:
            for number in range(20):
                await store.add(NAMESPACE, {key(number): bytes(1000)})
                clock.now += 1
            await store.get(NAMESPACE, [key(1)])
            clock.now += HOUR
            await store.get(NAMESPACE, [key(0), key(3)])
            await store.add(NAMESPACE, {key(20): bytes(1000)})
            assert (await scanned(store)).keys() == {key(n) for n in (0, *range(3, 21))}
            assert await store.usage() == Usage(19, 19 * size, 2)

    asyncio.run(check())


def test_more_than_there_is_room_for(path):
    """A batch that alone is too much is kept as far as it fits, and pushes out all before it."""
    size = 1000 + ROW_BYTES

    async def check():
        async with opened(path, max_bytes=10 * size) as store:
            await store.add(NAMESPACE, {key(n): bytes(1000) for n in range(5)})
            await store.add(NAMESPACE, {key(n): bytes(1000) for n in range(10, 30)})
            held = await scanned(store)
            assert len(held) == 10
            assert held.keys() < {key(n) for n in range(10, 30)}
            assert (await store.usage()).evicted == 15

    asyncio.run(check())


def test_a_bound_that_was_lowered_is_reached_bit_by_bit(path):
    """No add has to remove everything that is too much."""
    size = 10_000 + ROW_BYTES

    async def check():
        async with opened(path) as store:
            await store.add(NAMESPACE, {key(n): bytes(10_000) for n in range(2000)})
        async with opened(path, max_bytes=100 * size) as store:
            left = []
            for number in range(2000, 2010):
                await store.add(NAMESPACE, {key(number): bytes(10_000)})
                left.append((await store.usage()).entries)
            assert left[0] > 1000
            assert left[-1] <= 100
            assert {key(n) for n in range(2000, 2010)} <= (await scanned(store)).keys()

    asyncio.run(check())


# Time


@settings(max_examples=40)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.sets(st.integers(0, 12), min_size=1), st.booleans()),
            st.tuples(st.just("wait"), st.sampled_from([1, 5, 50, 95])),
        ),
        max_size=20,
    ),
)
def test_entries_live_as_long_as_they_may(tmp_path_factory, calls):
    """Records from when they were made, other values from when they were added; no longer."""
    path = tmp_path_factory.mktemp("time") / "cache.db"
    clock, ttl, model = Clock(), 100.0, {}

    def alive():
        return {
            each: value
            for each, (value, made) in model.items()
            if clock.now < expires(each, made, ttl)
        }

    async def check():
        async with opened(path, ttl=ttl, clock=clock) as store:
            await store.facts()
            for verb, argument, *is_record in calls:
                if verb == "wait":
                    clock.now += argument
                elif is_record == [True]:
                    made = clock.now - 20
                    new = {key(n): (record(n, made), made) for n in argument}
                else:
                    new = {key(n): (b"%d %d" % (n, clock.now), clock.now) for n in argument}
                if verb == "add":
                    held = alive()
                    answer = await store.add(NAMESPACE, {k: value for k, (value, _) in new.items()})
                    assert answer == {k: value for k, value in held.items() if k in new}
                    model.update({k: pair for k, pair in new.items() if k not in held})
                keys = [key(n) for n in range(13)]
                assert await store.get(NAMESPACE, keys) == alive()
                assert await scanned(store) == alive()
        ((entries, _),), ((counted, _),) = sums(path)
        assert entries == counted

    asyncio.run(check())


def test_what_has_expired_is_removed_bit_by_bit(path):
    """By the writes of others, some hundreds with each; until then it only is not answered."""
    clock = Clock()

    async def check():
        async with opened(path, ttl=100.0, clock=clock) as store:
            await store.add(NAMESPACE, {key(n): b"%d" % n for n in range(1000)})
            clock.now += 101
            left = []
            for number in range(1000, 1005):
                await store.add(OTHER, {key(number): b"new"})
                left.append((await store.usage()).entries)
            assert await scanned(store) == {}
            assert 500 < left[0] < 1001
            assert left[-1] == 5

    asyncio.run(check())


# What is removed


def test_what_was_purged_is_nowhere_in_the_files(path):
    """The space is given back, what is left stays, and no byte of the rest can be found."""
    doomed = b"the words that must go"

    async def check():
        async with opened(path) as store:
            await store.add(NAMESPACE, {key(n): doomed * 300 for n in range(800)})
            await store.add(OTHER, {key(n): b"stays" * 300 for n in range(100)})
            await store.discard(OTHER, {key(0): b"stays" * 300})
            assert await store.purge(NAMESPACE, None) == 800
            assert len(await scanned(store, OTHER)) == 99
        assert doomed not in path.read_bytes()
        assert path.stat().st_size < 500_000

    asyncio.run(check())
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
    ((entries, size),), ((counted, length),) = sums(path)
    assert (entries, size) == (counted, length + counted * ROW_BYTES) == (99, size)


def test_a_purge_holds_nobody_up(path):
    """Between its transactions others write, from another store."""

    async def check():
        async with opened(path) as store, opened(path) as other:
            await store.add(NAMESPACE, {key(n): bytes(2000) for n in range(4000)})
            purging = asyncio.create_task(store.purge(NAMESPACE, None))
            meanwhile = 0
            while not purging.done():
                await other.add(OTHER, {key(meanwhile): b"added"})
                meanwhile += 1
            assert await purging == 4000
            assert meanwhile > 3
            assert len(await scanned(store, OTHER)) == meanwhile

    asyncio.run(check())

"""The watchers at the seams: everything passes through as it was, and is counted."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from gateway.cache.store import StoreError
from gateway.metrics.collectors import Metrics
from gateway.metrics.observed import ObservedStore
from gateway.types import Asked
from tests.cache.shelf import Shelf
from tests.cache.worker import Worker
from tests.scraping import text_of

WHERE, KEY = "0" * 24 + ".0", b"k" * 32


def ticking():
    """Return a clock that goes on by a second whenever it is asked."""
    return iter(range(1000)).__next__


def watched(clock=None):
    """Return a shelf, its watcher, and what the metrics have of a name and labels."""
    registry = CollectorRegistry()
    metrics, shelf = Metrics(registry, str), Shelf()
    store = ObservedStore(shelf, metrics, clock or ticking())

    def value(name, **labels):
        metrics.flush()
        return registry.get_sample_value(f"gateway_{name}", {"tier": "shelf", **labels})

    return shelf, store, metrics, value


def test_every_verb_of_a_store_passes_through():
    """Arguments, answers and name."""

    async def scene():
        shelf, store, _, _ = watched()
        assert store.name == "shelf"
        assert await store.add(WHERE, {KEY: b"v"}) == {}
        assert await store.add(WHERE, {KEY: b"w"}) == {KEY: b"v"}
        assert await store.get(WHERE, [KEY]) == {KEY: b"v"}
        assert await store.settle("fact", b"1") == b"1"
        assert await store.swap("fact", b"1", b"2") is True
        assert await store.facts() == shelf.said
        assert shelf.said["fact"] == b"2"
        assert await store.usage() == await shelf.usage()
        assert await store.discard(WHERE, {KEY: b"v"}) == 1
        await store.aclose()
        assert shelf.closed == 1

    asyncio.run(scene())


@pytest.mark.parametrize("operation", ["get", "add", "discard", "facts"])
def test_every_operation_has_a_result_and_a_time(operation):
    """Ok, the reason of its failure, or that who asked has left; the failure goes on."""

    async def scene():
        shelf, store, _, value = watched()
        arguments = {"get": (WHERE, [KEY]), "facts": ()}.get(operation, (WHERE, {KEY: b"v"}))

        def ask():
            return asyncio.ensure_future(getattr(store, operation)(*arguments))

        await ask()
        for reason in ("timeout", "full", "timeout"):
            shelf.fail(reason)
            with pytest.raises(StoreError) as caught:
                await ask()
            assert caught.value.reason == reason
        shelf.hang()
        leaving = ask()
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        counted = {
            result: value("cache_operations_total", operation=operation, result=result)
            for result in ("ok", "timeout", "full", "cancelled")
        }
        assert counted == {"ok": 1, "timeout": 2, "full": 1, "cancelled": 1}
        assert value("cache_operation_duration_seconds_sum", operation=operation) == 5

    asyncio.run(scene())


def test_a_store_that_is_away_is_down_and_keeps_its_last_figures():
    """Up again once it was met; one of another secret is as good as away."""

    async def scene():
        shelf, store, metrics, value = watched()
        worker = Worker(store)

        async def figures():
            await metrics.caches.look(worker.cache)
            return [value(f"store_{name}") for name in ("up", "entries")]

        assert await figures() == [0, None]
        await worker.met()
        await worker.keep("a", "b")
        assert await figures() == [1, 2]
        assert value("store_bytes") == (await shelf.usage()).bytes > 0
        shelf.fail("connect")
        await worker.met()
        assert await figures() == [0, 2]
        shelf.recover()
        shelf.fail("timeout", "usage")
        await worker.met()
        await worker.keep("c")
        assert await figures() == [1, 2]
        shelf.recover()
        assert await figures() == [1, 3]

    asyncio.run(scene())


def test_what_made_room_is_counted_on_though_a_store_counts_from_zero_again():
    """It was restarted; the figure of a counter never falls."""

    async def scene():
        shelf, store, metrics, value = watched()
        worker = await Worker(store, memory=1000).met()

        class Evicting:
            evicted = 0

            async def __call__(self):
                usage = await type(shelf).usage(shelf)
                return type(usage)(usage.entries, usage.bytes, self.evicted)

        shelf.usage = Evicting()
        counted = []
        for evicted in (0, 5, 7, 7, 1, 4):
            shelf.usage.evicted = evicted
            await metrics.caches.look(worker.cache)
            counted.append(value("cache_evictions_total"))
        assert counted == [0, 5, 7, 7, 7, 10]
        await worker.keep(*(f"text {number}" for number in range(10)))
        for _ in range(2):
            await metrics.caches.look(worker.cache)
            assert value("cache_evictions_total", tier="memory") == worker.memory.evicted > 0

    asyncio.run(scene())


def test_damaged_entries_are_counted_by_tier():
    """Which of the stores has a bad disk is worth knowing."""

    async def scene():
        shelf, store, metrics, value = watched()
        worker = await Worker(store).met()
        worker.cache._on_corrupt = metrics.caches.corrupt
        await worker.keep("x")
        shelf.damage()
        await worker.look_up("x")
        assert value("cache_corrupt_entries_total") == 1

    asyncio.run(scene())


def test_what_was_tallied_is_in_the_next_reading_whoever_reads():
    """A scrape, a test, or another worker's scrape a second later; and nothing twice."""

    async def scene():
        _, store, metrics, value = watched()
        worker = await Worker(store).met()
        metrics.requests.ended(Asked("embeddings", "m", 200, 0.01))
        labels = 'code="200",model="m",operation="embeddings"'
        assert f"gateway_requests_total{{{labels}}} 1.0" in text_of(metrics)
        for _ in range(2):
            assert f"gateway_requests_total{{{labels}}} 1.0" in text_of(metrics)
        keeping_up = asyncio.create_task(metrics.keep_up(worker.cache))
        await worker.keep("x")
        async with asyncio.timeout(20):
            while value("cache_entries", tier="memory") != 1:
                await asyncio.sleep(0.05)
        keeping_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await keeping_up

    asyncio.run(scene())

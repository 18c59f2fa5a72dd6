"""Values that are damaged or over, and stores that fail: nothing wrong is served or raised."""

import asyncio

import pytest

from gateway.cache.store import StoreError
from tests.cache.shelf import Shelf
from tests.cache.worker import NOW, Clock, Worker, settle, workers


@pytest.mark.parametrize("by", ["look_up", "keep"])
@pytest.mark.parametrize("damage", [b"", b"damaged", b"\0" * 200])
def test_a_damaged_value_is_removed_counted_and_replaced(by, damage):
    """It is never served; the next vector takes its place, for everybody."""

    async def scene():
        shelf = Shelf()
        one, other = await workers(2, shelf)
        (lost,) = await one.keep("x")
        shelf.damage(damage)
        if by == "look_up":
            assert await other.look_up("x") == [None]
            assert shelf.values[other.place.namespace] == {}
        (kept,) = await other.keep("x")
        assert kept != lost
        assert await other.ask_authority("x") == kept
        assert other.damaged == ["shelf"]
        ((event, said),) = other.log.lines
        assert (event, said["tier"]) == ("damaged cache entry", "shelf")

    asyncio.run(scene())


def test_a_value_under_a_wrong_key_is_a_damaged_one():
    """P1: sound, but of another text, however it came there."""

    async def scene():
        shelf = Shelf()
        one, other = await workers(2, shelf)
        await one.keep("x")
        held = shelf.values[one.place.namespace]
        held[one.key("y")] = held[one.key("x")]
        assert await other.look_up("y", "x") == [None, *one.recall("x")]
        assert other.damaged == ["shelf"]
        assert list(held) == [one.key("x")]

    asyncio.run(scene())


def test_a_damaged_copy_is_made_anew_from_the_authority():
    """The text is not asked for again: only the nearer store had lost it."""

    async def scene():
        near, far = Shelf("near"), Shelf("far")
        one, other = await workers(2, near, far)
        kept = await one.keep("x")
        await settle()
        near.damage()
        assert await other.look_up("x") == kept
        await settle()
        assert near.values == far.values
        assert other.damaged == ["near"]

    asyncio.run(scene())


def test_an_authority_that_cannot_be_mended_is_one_that_takes_nothing():
    """Whatever is written comes back damaged: the answer is unshared, and there is an end to it."""

    class Rotten(Shelf):
        async def add(self, namespace, values):
            await super().add(namespace, values)
            return dict.fromkeys(values, b"rotten")

    async def scene():
        (worker,) = await workers(1, Rotten())
        entry = await worker.answer("x")
        assert not entry.shared
        assert (await worker.answer("x")) is entry

    asyncio.run(scene())


# time

TTL = 1000.0


def test_what_is_over_is_gone_from_memory_and_stores_alike():
    """Between nine tenths of its time and all of it; then the text is asked for again."""

    async def scene():
        clock, shelf = Clock(), Shelf()
        one, other = await workers(2, shelf, clock=clock, ttl=TTL)
        (first,) = await one.keep("x")
        clock.now = NOW + 0.9 * TTL - 1
        assert await other.look_up("x") == one.recall("x") == [first]
        clock.now = NOW + TTL
        assert other.recall("x") == one.recall("x") == [None]
        assert (len(one.memory), one.memory.bytes) == (0, 0)
        assert await other.look_up("x") == [None]
        assert shelf.values[one.place.namespace] == {}
        (second,) = await other.keep("x")
        assert second != first
        assert await one.look_up("x") == [second]

    asyncio.run(scene())


@pytest.mark.parametrize("stores", [0, 1])
def test_who_makes_a_vector_while_another_is_over_replaces_it(stores):
    """Set if absent counts what is over as absent: it was asked for because it is."""

    async def scene():
        clock = Clock()
        one, other = await workers(2, *[Shelf()] * stores, clock=clock, ttl=TTL)
        (first,) = await one.keep("x")
        clock.now = NOW + TTL
        keeper = other if stores else one
        (second,) = await keeper.keep("x")
        assert second != first
        assert keeper.recall("x") == [second]
        if stores:
            assert await one.look_up("x") == [second]

    asyncio.run(scene())


def test_without_a_time_nothing_is_ever_over():
    """However old it is."""

    async def scene():
        clock = Clock()
        one, other = await workers(2, Shelf(), clock=clock)
        kept = await one.keep("x")
        clock.now = 1e12
        assert one.recall("x") == await other.look_up("x") == kept

    asyncio.run(scene())


# what goes wrong


@pytest.mark.parametrize("reason", ["timeout", "connect", "full", "readonly", "error"])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("which", ["near", "far"])
def test_whatever_a_store_does_nothing_is_raised(reason, late, which):
    """Every verb of one of two stores fails: texts are answered, and the same again."""

    async def scene():
        near, far = Shelf("near"), Shelf("far")
        (worker,) = await workers(1, near, far)
        (before,) = await worker.keep("a")
        {"near": near, "far": far}[which].fail(reason, late=late)
        for _ in range(3):
            assert (await worker.answer("a")).vector == before
            first = await worker.answer("b")
            await worker.met()
            assert (await worker.answer("b")).vector == first.vector
            await settle()
        assert first.shared is (which == "near")

    asyncio.run(scene())


@pytest.mark.parametrize("verb", ["facts", "settle", "swap"])
def test_a_store_that_fails_while_it_is_met_is_met_later(verb):
    """At the start as later: the gateway starts, and the store is used when it can be."""

    async def scene():
        shelf = Shelf()
        shelf.fail("timeout", verb)
        worker = await Worker(shelf).met()
        shelf.recover()
        await worker.met()
        assert (await worker.answer("x")).shared
        assert await worker.ask_authority("x") == worker.recall("x")[0]

    asyncio.run(scene())


def test_who_is_away_is_noticed_beside_the_requests_and_not_asked_by_them():
    """A request that would wait for a timeout is spared it; the watcher asks for facts alone."""

    async def scene():
        shelf = Shelf()
        (worker,) = await workers(1, shelf)
        shelf.fail("timeout", "facts")
        await worker.met()
        await worker.answer("x")
        before = dict(shelf.asked)
        for _ in range(3):
            await worker.answer("y")
            await worker.met()
        assert dict(shelf.asked) == before | {"facts": before["facts"] + 3}
        assert worker.log.events == ["cache is away"]
        shelf.recover()
        await worker.met()
        assert await worker.ask_authority("y") == worker.recall("y")[0]

    asyncio.run(scene())


def test_a_store_that_takes_no_facts_is_read_all_the_same():
    """A Redis that became a replica holds what it held."""

    async def scene():
        shelf = Shelf()
        (one,) = await workers(1, shelf)
        kept = await one.keep("x")
        shelf.fail("readonly", "add", "discard", "settle", "swap")
        other = await Worker(shelf).met()
        assert await other.look_up("x") == kept
        assert not (await other.answer("y")).shared
        await one.met()
        one.memory.clear()
        assert await one.look_up("x") == kept

    asyncio.run(scene())


def test_a_nearer_store_that_was_full_is_given_copies_again():
    """Nobody offers it anything meanwhile; the next one finds out."""

    async def scene():
        near, far = Shelf("near"), Shelf("far")
        (worker,) = await workers(1, near, far)
        near.fail("full", "add")
        await worker.keep("a")
        await settle()
        await worker.keep("b")
        await settle()
        assert near.asked["add"] == 1
        near.recover()
        await worker.met()
        (vector,) = await worker.keep("c")
        await settle()
        (other,) = await workers(1, near)
        assert await other.look_up("a", "b", "c") == [None, None, vector]

    asyncio.run(scene())


def test_a_store_that_cannot_even_be_closed_keeps_no_other_open():
    """The end goes on."""

    async def scene():
        shelves = [Shelf("near"), Shelf("middle"), Shelf("far")]
        (worker,) = await workers(1, *shelves)
        await worker.keep("x")
        for shelf in shelves:
            shelf.fail("timeout", "aclose", late=True)
        await worker.cache.aclose()
        assert [shelf.closed for shelf in shelves] == [1, 1, 1]

    asyncio.run(scene())


def test_the_watcher_meets_the_stores_until_it_is_told_to_end():
    """It survives whatever a store does, also what no store may do."""

    class Mad(Shelf):
        async def facts(self):
            self.asked["facts"] += 1
            raise (StoreError("error", "m"), ValueError("m"))[self.asked["facts"] % 2]

    async def scene():
        shelf = Mad()
        worker = Worker(shelf)
        watching = asyncio.create_task(worker.cache.watch())
        async with asyncio.timeout(20):
            while shelf.asked["facts"] < 4:
                await asyncio.sleep(0.01)
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching

    asyncio.run(scene())


def test_a_new_scope_is_told_of_alone():
    """However many there are: the store is told one fact, and asked for none."""

    async def scene():
        shelf = Shelf()
        worker = await Worker(shelf).met()
        before = dict(shelf.asked)
        for number in range(50):
            place = worker.scopes.of("t", f"i{number}", f"m{number}").place
            (key,) = place.keyspace.keys(["x"], None)
            await worker.cache.keep(place, {key: worker.make(place)})
            await asyncio.sleep(0.001)
        assert shelf.asked["facts"] == before.get("facts", 0)
        assert shelf.asked["settle"] == before.get("settle", 0) + 50

    asyncio.run(scene())

"""Memory and stores as one cache: what is found where, what is copied, and whose vector wins."""

import asyncio

import pytest

from gateway.cache.record import pack
from gateway.cache.store import StoreError
from tests.cache.shelf import Shelf
from tests.cache.worker import NOW, Clock, Worker


async def settle():
    """Let copies that nobody waits for arrive."""
    for _ in range(20):
        await asyncio.sleep(0)


async def workers(count, *stores, **options):
    """Return workers that share these stores, and have met them."""
    return [await Worker(*stores, **options).met() for _ in range(count)]


def test_without_stores_memory_is_all_and_the_first_vector_stays():
    """Meeting, watching and closing have nothing to do then, and end."""

    async def scene():
        worker = await Worker().met()
        first = await worker.keep("x")
        assert await worker.keep("x") == first == worker.recall("x")
        assert await worker.look_up("y") == worker.recall("y") == [None]
        await asyncio.wait_for(worker.cache.watch(), 5)
        await worker.cache.aclose()

    asyncio.run(scene())


def test_what_one_worker_keeps_another_finds_and_then_has_in_memory():
    """Bit for bit, with all that belongs to it; the store is asked once."""

    async def scene():
        shelf = Shelf()
        one, other = await workers(2, shelf)
        kept = await one.answer("x")
        found = await other.answer("x")
        assert pack(one.key("x"), found) == pack(one.key("x"), kept)
        assert found.namespace == kept.namespace
        assert other.recall("x") == one.recall("x") == [kept.vector]
        assert shelf.asked["add"] == 1

    asyncio.run(scene())


def test_only_what_is_missing_is_looked_for():
    """Nearest first; a slower store is asked for what no quicker one has."""

    async def scene():
        near, far = Shelf("near"), Shelf("far")
        (writer,) = await workers(1, far)
        vectors = await writer.keep("a", "b")
        (other,) = await workers(1, near, far)
        near.values[other.place.namespace] = dict(far.values[other.place.namespace])
        del near.values[other.place.namespace][other.key("b")]
        far.keys_asked.clear()
        assert await other.look_up("a", "b", "c") == [*vectors, None]
        assert near.keys_asked == [other.key(text) for text in "abc"]
        assert far.keys_asked == [other.key(text) for text in "bc"]
        assert await other.look_up() == []
        assert near.asked["get"] == far.asked["get"] == 1

    asyncio.run(scene())


def test_nearer_stores_keep_copies_of_what_is_found_and_what_is_stored():
    """Then they answer by themselves; nobody waits for a copy."""

    async def scene():
        near, far = Shelf("near"), Shelf("far")
        (writer,) = await workers(1, far)
        vectors = await writer.keep("a")
        (other,) = await workers(1, near, far)
        near.hang("add")
        assert await other.look_up("a") == vectors
        vectors += await other.keep("b")
        near.recover()
        await settle()
        assert near.values == far.values
        (third,) = await workers(1, near, far)
        far.fail("connect")
        assert await third.look_up("a", "b") == vectors

    asyncio.run(scene())


def test_copies_to_a_store_that_hangs_do_not_pile_up():
    """A few are on their way, the rest is left out; what was left out is found further away."""

    async def scene():
        near, far = Shelf("near"), Shelf("far")
        (worker,) = await workers(1, near, far)
        near.hang("add")
        texts = [f"text {number}" for number in range(200)]
        vectors = [(await worker.keep(text))[0] for text in texts]
        assert len(worker.cache._copies) < 100
        near.release()
        await settle()
        assert not worker.cache._copies
        (other,) = await workers(1, near, far)
        assert await other.look_up(*texts) == vectors

    asyncio.run(scene())


@pytest.mark.parametrize("at_once", [False, True])
def test_the_vector_that_is_stored_first_is_everybodys(at_once):
    """P2: two workers make one each; who comes second answers, and remembers, the winner."""

    async def scene():
        shelf = Shelf()
        made = await workers(4, shelf)
        if at_once:
            kept = await asyncio.gather(*(worker.keep("x") for worker in made))
        else:
            kept = [await worker.keep("x") for worker in made]
        assert kept == [kept[0]] * 4
        assert [worker.recall("x") for worker in made] == kept
        assert [await made[0].ask_authority("x")] == kept[0]

    asyncio.run(scene())


def test_each_text_of_a_batch_has_its_own_winner():
    """Some were there first, some were not; the keys are not mixed up."""

    async def scene():
        shelf = Shelf()
        one, other = await workers(2, shelf)
        early = dict(zip("ace", await one.keep(*"ace"), strict=True))
        kept = dict(zip("abcde", await other.keep(*"abcde"), strict=True))
        assert early.items() <= kept.items()
        assert len(set(kept.values())) == 5
        assert await one.look_up(*"abcde") == list(kept.values())

    asyncio.run(scene())


def test_a_width_is_known_as_soon_as_a_vector_is():
    """Made here or found; it goes into the stores for those who come later."""

    async def scene():
        shelf = Shelf()
        one, other = await workers(2, shelf)
        await one.keep("x")
        assert (one.scope.fact.width, other.scope.fact.width) == (8, None)
        await other.look_up("x")
        assert other.scope.fact.width == 8
        await one.met()
        late = await Worker(shelf).met()
        assert late.scope.fact.width == 8

    asyncio.run(scene())


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

"""Memory and stores as one cache: what is found where, what is copied, and whose vector wins."""

import asyncio

import pytest

from gateway.cache.record import pack
from tests.cache.shelf import Shelf
from tests.cache.worker import Worker, settle, workers


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
        assert far.asked["add"] == 2
        (third,) = await workers(1, near, far)
        far.fail("connect")
        assert await third.look_up("a", "b") == vectors

    asyncio.run(scene())


def test_copies_on_their_way_arrive_before_the_end():
    """Nobody waits for them until then."""

    async def scene():
        near, far = Shelf("near"), Shelf("far")
        (worker,) = await workers(1, near, far)
        near.hang("add")
        await worker.keep("a", "b")
        closing = asyncio.create_task(worker.cache.aclose())
        await settle()
        assert near.closed == far.closed == 0
        near.release()
        await closing
        assert near.values == far.values
        assert near.closed == far.closed == 1

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

"""The authority is away, and comes back: what is answered meanwhile, and what then."""

import asyncio

import pytest

from tests.cache.shelf import Shelf
from tests.cache.worker import NOW, Clock, Worker, settle, workers

AWAY = pytest.mark.parametrize(
    ("reason", "verbs"),
    [
        ("connect", ()),
        ("timeout", ("get", "add", "facts")),
        ("full", ("add",)),
        ("readonly", ("add", "discard", "settle", "swap")),
    ],
)


@AWAY
def test_what_is_made_while_the_authority_is_away_is_offered_when_it_returns(reason, verbs):
    """P2: the same vector all the time, said to be unshared until it is everybody's."""

    async def scene():
        shelf = Shelf()
        one, other = await workers(2, shelf)
        shelf.fail(reason, *verbs)
        made = await one.answer("x")
        assert not made.shared
        await one.met()
        again = await one.answer("x")
        assert (again.vector, again.shared) == (made.vector, False)
        shelf.recover()
        await one.met()
        after = await one.answer("x")
        assert (after.vector, after.shared) == (made.vector, True)
        assert not one.cache.waits
        await other.met()
        assert (await other.answer("x")).vector == made.vector

    asyncio.run(scene())


@AWAY
def test_the_vector_that_was_there_first_takes_the_place_of_a_provisional_one(reason, verbs):
    """Two workers made one each while they could not agree: the first one back wins."""

    async def scene():
        shelf = Shelf()
        one, other = await workers(2, shelf)
        shelf.fail(reason, *verbs)
        first, second = await one.answer("x"), await other.answer("x")
        assert first.vector != second.vector
        shelf.recover()
        await one.met()
        await other.met()
        answers = [await worker.answer("x") for worker in (one, other)]
        assert [(a.vector, a.shared) for a in answers] == [(first.vector, True)] * 2
        assert other.memory.bytes == one.memory.bytes > 0

    asyncio.run(scene())


def test_what_is_kept_already_stays_what_it_is_while_the_authority_is_away():
    """P2: a second vector of the text, however it was made, is not answered in its place."""

    async def scene():
        shelf = Shelf()
        (worker,) = await workers(1, shelf)
        (kept,) = await worker.keep("x")
        shelf.fail("connect")
        assert await worker.keep("x") == [kept]
        entry = await worker.answer("x")
        assert (entry.vector, entry.shared) == (kept, True)
        shelf.recover()
        await worker.met()
        assert worker.recall("x") == [kept]

    asyncio.run(scene())


def test_each_text_of_a_batch_is_answered_with_what_is_kept_of_it():
    """Old ones as they are, new ones provisional, and no others unshared."""

    async def scene():
        shelf = Shelf()
        (worker,) = await workers(1, shelf)
        old = await worker.keep("a", "b")
        shelf.fail("connect")
        new = await worker.keep("a", "c", "b")
        assert [new[0], new[2]] == old
        assert [(await worker.answer(text)).shared for text in "abc"] == [True, True, False]

    asyncio.run(scene())


def test_entries_that_wait_are_kept_though_memory_keeps_nothing():
    """`memory = 0`: a text is one vector as long as somebody can remember it."""

    async def scene():
        shelf = Shelf()
        worker = await Worker(shelf, memory=0).met()
        shelf.fail("connect")
        vectors = {(await worker.answer("x")).vector for _ in range(3)}
        shelf.recover()
        await worker.met()
        assert len(worker.memory) == 0
        assert vectors == {(await worker.answer("x")).vector}

    asyncio.run(scene())


def test_what_waits_is_bounded_with_all_its_forms():
    """A long absence does not fill the memory."""

    async def scene():
        shelf = Shelf()
        (worker,) = await workers(1, shelf)
        shelf.fail("connect")
        entry = await worker.answer("x")
        waiting = worker.cache._provisional
        before = waiting.bytes
        for base64 in (False, True):
            entry.render(base64=base64)
            worker.cache.grown(worker.key("x"), entry)
        assert waiting.bytes == entry.size > before

    asyncio.run(scene())


@pytest.mark.parametrize("late", [False, True])
def test_an_offer_that_fails_is_made_again(late):
    """Half of it may be stored by then; nothing is lost, and nothing changes."""

    async def scene():
        shelf = Shelf()
        (worker,) = await workers(1, shelf)
        texts = [f"text {number}" for number in range(600)]
        shelf.fail("connect")
        made = [(await worker.answer(text)).vector for text in texts]
        shelf.recover()
        shelf.fail("timeout", "add", late=late)
        for _ in range(3):
            await worker.met()
            assert worker.recall(*texts) == made
            assert worker.cache.waits
        shelf.recover()
        await worker.met()
        assert not worker.cache.waits
        (other,) = await workers(1, shelf)
        assert await other.look_up(*texts) == made == worker.recall(*texts)

    asyncio.run(scene())


def test_what_waits_at_the_end_is_offered_before_the_stores_are_closed():
    """A worker that is told to stop just when the authority returns."""

    async def scene():
        shelf = Shelf()
        one, other = await workers(2, shelf)
        shelf.fail("connect")
        made = await one.answer("x")
        await one.met()
        shelf.recover()
        one.cache.tiers[0].answered()
        await one.cache.aclose()
        assert shelf.closed == 1
        assert await other.look_up("x") == [made.vector]

    asyncio.run(scene())


def test_an_offer_of_several_models_goes_to_each_ones_place():
    """Tenants and models wait side by side and are not mixed up."""

    async def scene():
        shelf = Shelf()
        (worker,) = await workers(1, shelf)
        scopes = [worker.scope, worker.scopes.of("u", "i", "m"), worker.scopes.of("t", "j", "n")]
        shelf.fail("connect")
        kept = {}
        for _ in range(3):
            for scope in scopes:
                place = scope.place
                (key,) = place.keyspace.keys([f"text {len(kept)}"], None)
                entries = await worker.cache.keep(place, {key: worker.make(place)})
                kept[place.namespace, key] = entries[key].vector
        shelf.recover()
        await worker.met()
        (other,) = await workers(1, shelf)
        for scope in scopes:
            place = other.scopes.of(scope.fact.tenant, scope.identity, "m").place
            mine = {
                key: vector for (where, key), vector in kept.items() if where == place.namespace
            }
            found = await other.cache.look_up(place, list(mine))
            assert {key: entry.vector for key, entry in found.items()} == mine

    asyncio.run(scene())


def test_what_waited_beyond_its_time_is_asked_for_again():
    """A provisional vector is over when its time is."""

    async def scene():
        clock, shelf = Clock(), Shelf()
        worker = await Worker(shelf, clock=clock, ttl=100.0).met()
        shelf.fail("connect")
        first = await worker.answer("x")
        clock.now = NOW + 101
        second = await worker.answer("x")
        assert second.vector != first.vector
        shelf.recover()
        await worker.met()
        assert await worker.ask_authority("x") == second.vector

    asyncio.run(scene())


# a nearer store


def test_copies_answer_while_the_authority_is_away():
    """P9: what a live tier holds needs nobody else, and is everybody's vector already."""

    async def scene():
        near, far = Shelf("near"), Shelf("far")
        (one,) = await workers(1, near, far)
        kept = await one.keep("x")
        await settle()
        far.fail("connect")
        other = await Worker(near, far).met()
        found = await other.answer("x")
        assert ([found.vector], found.shared) == (kept, True)

    asyncio.run(scene())


def test_no_copy_is_made_of_what_the_authority_may_refuse():
    """A nearer store would serve it long after the winner has replaced it."""

    async def scene():
        near, far = Shelf("near"), Shelf("far")
        one, other = await workers(2, near, far)
        far.fail("connect")
        await one.answer("x")
        await settle()
        assert not near.values[one.place.namespace]
        far.recover()
        winner = await other.met() and await other.answer("x")
        await one.met()
        late = await Worker(near, far).met()
        assert (await late.answer("x")).vector == (await one.answer("x")).vector == winner.vector

    asyncio.run(scene())

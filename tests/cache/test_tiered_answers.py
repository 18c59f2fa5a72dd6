"""Answers to chats beside vectors: in the same stores, or where they may not, in memory alone."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.cache.entry import Entry
from gateway.cache.facts import PREFIX, ScopeFact, read_fact
from tests.cache.shelf import Shelf
from tests.cache.worker import NOW, OTHER_SECRET, SECRET, Clock, Worker, purge, settle, workers


class Chats:
    """The chats of a worker's tenant, sealed or open, in the cache that is meant for them."""

    def __init__(self, worker, *, stored=True):
        self.worker = worker
        self.cache = worker.cache if stored else worker.cache.without_stores()
        self.scope = worker.scopes.of("t", "chat\ni", "m")
        self._made = 0

    def key(self, request="hello"):
        return self.scope.place.keyspace.keys([request], None)[0]

    async def keep(self, request="hello"):
        """Keep an answer, and return what is kept then."""
        self._made += 1
        place, key = self.scope.place, self.key(request)
        made = Entry(
            b"",
            0,
            created=self.worker.clock(),
            namespace=place.namespace,
            sealed=b"answer %d of %d" % (self._made, id(self)),
        )
        return (await self.cache.keep(place, {key: made}))[key].sealed

    async def look_up(self, request="hello"):
        found = await self.cache.look_up(self.scope.place, [self.key(request)])
        return found[self.key(request)].sealed if found else None

    def recall(self, request="hello"):
        (entry,) = self.cache.recall([self.key(request)])
        return entry and entry.sealed


# in the stores


def test_an_answer_is_kept_and_found_as_a_vector_is():
    """The first one stored is everybody's, nearer stores have copies, and no width is learned."""

    async def scene():
        near, far = Shelf("near"), Shelf("far")
        made = [Chats(worker) for worker in await workers(2, near, far)]
        kept = await asyncio.gather(*(chats.keep() for chats in made))
        assert kept == [kept[0]] * 2
        (late,) = await workers(1, far)
        assert await Chats(late).look_up() == Chats(late).recall() == kept[0]
        await settle()
        (held,) = near.values[made[0].scope.place.namespace].values()
        assert kept[0] in held
        assert near.values == far.values
        assert [chats.scope.fact.width for chats in made] == [None, None]

    asyncio.run(scene())


def test_an_answer_waits_for_the_authority_as_a_vector_does():
    """Provisional until it is back, and given back to one that has begun anew."""

    async def scene():
        shelf = Shelf()
        (worker,) = await workers(1, shelf)
        chats = Chats(worker)
        shelf.fail("full", "add")
        kept = await chats.keep()
        assert worker.cache.waits
        shelf.recover()
        await worker.met()
        assert not worker.cache.waits
        shelf.begin_anew()
        await worker.met()
        (other,) = await workers(1, shelf)
        assert await Chats(other).look_up() == chats.recall() == kept

    asyncio.run(scene())


def test_stores_are_told_of_chats_though_nobody_knows_a_width():
    """Whose they are stands beside them, as soon as they are met; with who was seen."""

    async def scene():
        shelf = Shelf()
        (worker,) = await workers(1, shelf)
        chats = Chats(worker)
        await chats.keep()
        await worker.met()
        assert read_fact(shelf.said[PREFIX + chats.scope.id]) == ScopeFact("t", "m")
        assert chats.scope.saw("fp_1")
        await worker.met()
        assert read_fact(shelf.said[PREFIX + chats.scope.id]).seen == ("fp_1",)
        (other,) = await workers(1, shelf)
        assert not Chats(other).scope.saw("fp_1")

    asyncio.run(scene())


# in memory alone


async def both(*stores, **options):
    """Return a worker, and its chats in a cache of their own without stores."""
    worker = await Worker(*stores, **options).met()
    return worker, Chats(worker, stored=False)


def test_a_cache_without_stores_shares_the_memory_and_asks_no_store():
    """The first answer stays; both find what either keeps; the bytes are counted once."""

    async def scene():
        shelf = Shelf()
        worker, chats = await both(shelf)
        asked = dict(shelf.asked)
        kept = await chats.keep()
        assert await chats.keep() == chats.recall() == kept
        assert await chats.look_up("another") is None
        assert shelf.asked == asked
        (entry,) = worker.cache.recall([chats.key()])
        assert entry.sealed == kept
        assert worker.memory.bytes == entry.size == Entry(b"", 0, created=0).size + len(kept)
        await worker.keep("x")
        assert len(worker.memory) == 2
        await asyncio.wait_for(chats.cache.watch(), 5)
        await chats.cache.aclose()
        assert not shelf.closed

    asyncio.run(scene())


def test_what_was_used_least_makes_room_whichever_cache_kept_it():
    """One memory has one bound."""

    async def scene():
        worker, chats = await both(Shelf(), memory=4 * 500)
        kept = await chats.keep("a")
        await worker.keep("b", "c", "d")
        assert chats.recall("a") == kept
        await worker.keep("e")
        assert worker.recall("b") == [None]
        assert chats.recall("a") == kept
        assert worker.memory.evicted == 1

    asyncio.run(scene())


@pytest.mark.parametrize("before", [None, NOW + 10])
def test_a_purge_is_noticed_by_the_one_that_meets_the_stores(before):
    """For both: what is in memory goes, and what is on its way meanwhile is not kept."""

    async def scene():
        clock, shelf = Clock(), Shelf()
        worker, chats = await both(shelf, clock=clock)
        kept = await chats.keep()
        place, key = chats.scope.place, chats.key("late")
        late = Entry(b"", 0, created=NOW, namespace=place.namespace, sealed=b"late")
        clock.now = NOW + 20
        purge(shelf, chats.scope, before)
        await worker.met()
        assert chats.recall() is None
        assert len(worker.memory) == 0
        assert (await chats.cache.keep(place, {key: late}))[key] is late
        assert chats.cache.recall([key]) == [None]
        assert chats.recall("late") is None
        assert await chats.keep() != kept
        assert chats.recall() is not None

    asyncio.run(scene())


def test_another_tenants_purge_leaves_answers_where_they_are():
    """And one of the tenant's vectors does: they are another scope."""

    async def scene():
        shelf = Shelf()
        worker, chats = await both(shelf)
        await worker.keep("x")
        kept = await chats.keep()
        purge(shelf, worker.scope)
        await worker.met()
        assert (worker.recall("x"), chats.recall()) == ([None], kept)

    asyncio.run(scene())


def test_an_authority_that_begins_anew_is_given_vectors_and_no_open_answer():
    """P10: what is not sealed never leaves the memory, and stays there."""

    async def scene():
        shelf = Shelf()
        worker, chats = await both(shelf)
        vectors = await worker.keep("x")
        kept = await chats.keep()
        shelf.begin_anew()
        await worker.met()
        assert [await worker.ask_authority("x")] == worker.recall("x") == vectors
        assert chats.recall() == kept
        assert chats.key() not in shelf.values[chats.scope.place.namespace]

    asyncio.run(scene())


def test_another_secret_ends_what_both_have():
    """Replicas agree on one; keys of before are nobody's."""

    async def scene():
        shelf = Shelf()
        await Worker(shelf, secret=OTHER_SECRET, shares_secret=True).met()
        worker = Worker(shelf, secret=SECRET, shares_secret=True)
        chats = Chats(worker, stored=False)
        await chats.keep()
        await worker.met()
        assert worker.scopes.secret == OTHER_SECRET
        assert chats.recall() is None
        assert len(worker.memory) == 0
        kept = await chats.keep()
        assert chats.recall() == kept

    asyncio.run(scene())


def test_answers_without_stores_end_in_their_time():
    """By the same `ttl` and clock as everything else."""

    async def scene():
        clock = Clock()
        worker, chats = await both(Shelf(), clock=clock, ttl=100.0)
        await chats.keep()
        clock.now = NOW + 89
        assert chats.recall() is not None
        clock.now = NOW + 100
        assert chats.recall() is None
        assert len(worker.memory) == 0

    asyncio.run(scene())


STEPS = ["vector", "answer", "meet", "begin anew", "fail", "recover", "purge"]


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(st.tuples(st.sampled_from(STEPS), st.sampled_from("abc")), max_size=30))
def test_in_whatever_order_things_happen_open_answers_stay_in_memory(steps):
    """And the same while nobody purges them; vectors go where they belong."""

    async def scene():
        clock, shelf = Clock(), Shelf()
        worker, chats = await both(shelf, clock=clock)
        told = {}

        async def answer(text):
            kept = chats.recall(text) or await chats.keep(text)
            assert kept == told.setdefault(text, kept)

        async def forget(text):
            clock.now += 1
            purge(shelf, chats.scope, None if text == "a" else clock.now)
            await worker.met()
            told.clear()

        async def trouble(do, *how):
            do(*how)

        play = {
            "vector": worker.answer,
            "answer": answer,
            "purge": forget,
            "meet": lambda _: worker.met(),
            "begin anew": lambda _: trouble(shelf.begin_anew),
            "fail": lambda _: trouble(shelf.fail, "full", "add"),
            "recover": lambda _: trouble(shelf.recover),
        }
        for step, text in [*steps, ("recover", ""), ("meet", "")]:
            await play[step](text)
            assert not any(b"answer" in v for held in shelf.values.values() for v in held.values())
        assert {text: chats.recall(text) for text in told} == told
        assert not worker.cache.waits

    asyncio.run(scene())

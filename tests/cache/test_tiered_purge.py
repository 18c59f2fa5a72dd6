"""A purge: everybody lets go of what was made before it, and of nothing else."""

import asyncio

import pytest

from gateway.cache.facts import read_facts
from tests.cache.shelf import Shelf
from tests.cache.worker import NOW, WIDTH, Clock, Worker, purge, settle, workers

BY = pytest.mark.parametrize("before", [None, NOW + 10])


@BY
def test_what_was_purged_is_asked_for_again_by_everybody_and_once(before):
    """From memory, from copies nearby and from the authority; the next vector is the only one."""

    async def scene():
        clock, nears, far = Clock(), [Shelf("near"), Shelf("near")], Shelf("far")
        one, other = [await Worker(near, far, clock=clock).met() for near in nears]
        (first,) = await one.keep("x")
        assert await other.look_up("x") == [first]
        await settle()
        clock.now = NOW + 20
        purge(far, one.scope, before)
        for worker in (one, other):
            await worker.met()
            assert worker.recall("x") == await worker.look_up("x") == [None]
        (second,) = await one.keep("x")
        assert second != first
        assert await other.keep("x") == [second]
        for worker in (one, other):
            assert worker.recall("x") == await worker.look_up("x") == [second]

    asyncio.run(scene())


@BY
def test_what_waits_for_the_authority_is_purged_too(before):
    """It is not offered afterwards under another name."""

    async def scene():
        clock, shelf = Clock(), Shelf()
        (worker,) = await workers(1, shelf, clock=clock)
        shelf.fail("full", "add")
        first = await worker.answer("x")
        clock.now = NOW + 20
        purge(shelf, worker.scope, before)
        shelf.recover()
        await worker.met()
        assert not worker.cache.waits
        assert worker.recall("x") == [None]
        assert not any(shelf.values.values())
        assert (await worker.answer("x")).vector != first.vector

    asyncio.run(scene())


def test_a_store_knows_whose_entries_it_has_as_soon_as_it_has_them():
    """Else who ends before the next meeting leaves what no purge can find."""

    async def scene():
        shelf = Shelf()
        (one,) = await workers(1, shelf)
        await one.answer("x")
        await one.cache.aclose()
        ((_, fact),) = read_facts(shelf.said)
        assert (fact.tenant, fact.model, fact.width) == ("t", "m", WIDTH)

    asyncio.run(scene())


def test_a_moment_purges_only_what_is_older():
    """By when a vector was made, not when it was stored or found."""

    async def scene():
        clock, shelf = Clock(), Shelf()
        one, other = await workers(2, shelf, clock=clock)
        (old,) = await one.keep("old")
        clock.now = NOW + 10
        (new,) = await one.keep("new")
        assert await other.look_up("old", "new") == [old, new]
        purge(shelf, one.scope, before=NOW + 10)
        for worker in (one, other):
            await worker.met()
            assert worker.recall("old", "new") == [None, new]
        late = await Worker(shelf, clock=clock).met()
        assert await late.look_up("old", "new") == [None, new]
        assert list(shelf.values[late.place.namespace]) == [late.key("new")]

    asyncio.run(scene())


@BY
def test_other_tenants_and_models_keep_what_they_have(before):
    """A purge is of one model of one tenant."""

    async def scene():
        clock, shelf = Clock(), Shelf()
        (worker,) = await workers(1, shelf, clock=clock)
        others = [worker.scopes.of("u", "i", "m"), worker.scopes.of("t", "j", "m")]
        keys = [scope.place.keyspace.keys(["x"], None)[0] for scope in others]
        for scope, key in zip(others, keys, strict=True):
            await worker.cache.keep(scope.place, {key: worker.make(scope.place)})
        kept = worker.cache.recall(keys)
        purge(shelf, worker.scope, before)
        await worker.met()
        assert worker.cache.recall(keys) == kept
        for scope, key in zip(others, keys, strict=True):
            assert key in await worker.cache.look_up(scope.place, [key])

    asyncio.run(scene())


@BY
@pytest.mark.parametrize("verb", ["add", "get"])
@pytest.mark.parametrize("fails", [False, True])
def test_what_is_on_its_way_meanwhile_is_answered_and_not_kept(verb, fails, before):
    """Made or found before the purge, it comes back after it: who waited for it gets it."""

    async def scene():
        clock, shelf = Clock(), Shelf()
        one, other = await workers(2, shelf, clock=clock)
        if verb == "get":
            (first,) = await one.keep("x")
        shelf.hang(verb)
        place, key = other.place, other.key("x")
        if verb == "get":
            waiting = asyncio.create_task(other.cache.look_up(place, [key]))
        else:
            made = other.make(place)
            first = made.vector
            waiting = asyncio.create_task(other.cache.keep(place, {key: made}))
        await settle()
        purge(shelf, other.scope, before)
        for worker in (one, other):
            await worker.met()
        if fails:
            shelf.fail("full", verb)
        shelf.release()
        answered = await waiting
        assert not answered or answered[key].vector == first
        assert other.cache.recall([key]) == other.recall("x") == [None]
        assert await one.look_up("x") == [None]

    asyncio.run(scene())


def test_what_is_begun_before_and_made_after_a_purge_is_not_kept():
    """Its names are those of a past generation, which nobody asks for any more."""

    async def scene():
        shelf = Shelf()
        (worker,) = await workers(1, shelf)
        place, key = worker.place, worker.key("x")
        purge(shelf, worker.scope)
        await worker.met()
        made = worker.make(place)
        assert (await worker.cache.keep(place, {key: made}))[key] is made
        assert worker.cache.recall([key]) == [None]
        assert not any(shelf.values.values())

    asyncio.run(scene())


def test_any_store_may_tell_of_a_purge_and_then_all_do():
    """The authority may be away while somebody purges, or know of it alone."""

    async def scene():
        near, far = Shelf("near"), Shelf("far")
        (worker,) = await workers(1, near, far)
        await worker.keep("x")
        await worker.met()
        purge(near, worker.scope)
        far.fail("connect")
        await worker.met()
        assert worker.recall("x") == [None]
        far.recover()
        await worker.met()
        (late,) = await workers(1, far)
        assert late.place.namespace == worker.place.namespace == f"{worker.scope.id}.1"

    asyncio.run(scene())


def test_two_names_of_one_space_leave_the_stores_in_peace():
    """Workers that know it by different names agree on one; they do not write for ever."""

    async def scene():
        shelf = Shelf()
        made = [Worker(shelf) for _ in range(2)]
        scopes = [w.scopes.of("t", "shared", name) for w, name in zip(made, "ab", strict=True)]
        for scope in scopes:
            scope.widen(8)
        for _ in range(3):
            for worker in made:
                await worker.met()
        before = dict(shelf.asked)
        for worker in made * 3:
            await worker.met()
        written = {v: shelf.asked[v] - before.get(v, 0) for v in ("settle", "swap")}
        assert written == {"settle": 0, "swap": 0}

    asyncio.run(scene())

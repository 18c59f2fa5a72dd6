"""An authority that forgot everything, or is another one than before; and whose secret counts."""

import asyncio

import pytest

from tests.cache.shelf import Shelf
from tests.cache.worker import OTHER_SECRET, SECRET, Worker, purge, workers


def test_an_authority_that_begins_anew_is_given_what_memory_holds():
    """A Redis without persistence was restarted: vectors that are known are not made again."""

    async def scene():
        shelf = Shelf()
        one, other = await workers(2, shelf)
        texts = [f"text {number}" for number in range(600)]
        kept = await one.keep(*texts)
        shelf.begin_anew()
        await one.met()
        assert "cache has begun anew" in one.log.events
        assert not one.cache.waits
        assert one.recall(*texts) == kept
        await other.met()
        assert await other.look_up(*texts) == kept

    asyncio.run(scene())


def test_who_minds_the_secret_is_told_when_a_store_began_anew():
    """Whoever removed a directory has removed the secret's file too. Once, and whichever it was."""

    async def scene():
        near, far = Shelf("near"), Shelf("far")
        told = []
        worker = Worker(near, far, on_begun_anew=told.append)
        for _ in range(2):
            await worker.met()
        assert told == []
        for shelf in (near, far):
            shelf.begin_anew()
            for _ in range(2):
                await worker.met()
        assert told == [SECRET, SECRET]

    asyncio.run(scene())


def test_a_secret_that_cannot_be_minded_keeps_nothing_from_going_on():
    """The watcher says so once, and offers what there is."""

    def fail(_):
        raise OSError("the disk is full")

    async def scene():
        shelf = Shelf()
        worker = await Worker(shelf, on_begun_anew=fail).met()
        kept = await worker.keep("x")
        shelf.begin_anew()
        with pytest.raises(OSError, match="full"):
            await worker.met()
        await worker.met()
        assert [await worker.ask_authority("x")] == kept

    asyncio.run(scene())


def test_who_comes_second_after_it_began_anew_takes_over_what_is_there():
    """P2: also where the two had nothing in common to begin with."""

    async def scene():
        shelf = Shelf()
        one, other = await workers(2, shelf)
        await one.keep("x")
        shelf.begin_anew()
        await other.met()
        (winner,) = await other.keep("x")
        await one.met()
        assert one.recall("x") == [winner]
        assert (await one.answer("x")).shared

    asyncio.run(scene())


def test_generations_and_widths_outlive_an_authority_that_forgets_them():
    """What was purged stays purged."""

    async def scene():
        shelf = Shelf()
        (one,) = await workers(1, shelf)
        await one.keep("x")
        await one.met()
        purge(shelf, one.scope)
        await one.met()
        shelf.begin_anew()
        await one.met()
        late = await Worker(shelf).met()
        assert late.place.namespace == one.place.namespace == f"{one.scope.id}.1"
        assert late.scope.fact.width == 8

    asyncio.run(scene())


def test_a_store_made_with_another_secret_is_not_used():
    """Neither read nor written; the texts are answered, and that is said in the log."""

    async def scene():
        shelf = Shelf()
        (theirs,) = await workers(1, shelf, secret=OTHER_SECRET)
        await theirs.keep("x")
        before = {where: dict(values) for where, values in shelf.values.items()}
        ours = await Worker(shelf).met()
        for _ in range(2):
            assert not (await ours.answer("x")).shared
            await ours.met()
        assert {where: dict(values) for where, values in shelf.values.items()} == before
        assert len([event for event in ours.log.events if "another secret" in event]) == 1
        shelf.begin_anew()
        await ours.met()
        assert (await ours.answer("x")).shared

    asyncio.run(scene())


def test_nobody_is_in_a_hurry_to_ask_a_store_that_is_not_ours():
    """It answers, and nothing is wrong with it: it is asked now and then like any other."""

    async def scene():
        shelf = Shelf()
        await workers(1, shelf, secret=OTHER_SECRET)
        (ours,) = await workers(1, Shelf())
        usual = ours.cache.tiers[0].pause
        shelf.fail("connect")
        (worker,) = await workers(1, shelf)
        assert worker.cache.tiers[0].pause < usual
        shelf.recover()
        await worker.met()
        assert worker.cache.tiers[0].pause == usual

    asyncio.run(scene())


def test_replicas_without_a_secret_share_the_authoritys():
    """The first one's is everybody's: they find each other's vectors."""

    async def scene():
        shelf = Shelf()
        secrets = [bytes([number]) * 32 for number in range(4)]
        replicas = [Worker(shelf, secret=secret, shares_secret=True) for secret in secrets]
        await asyncio.gather(*(replica.met() for replica in replicas))
        assert len({replica.scopes.secret for replica in replicas}) == 1
        (kept,) = await replicas[0].keep("x")
        assert [await replica.look_up("x") for replica in replicas] == [[kept]] * 4

    asyncio.run(scene())


def test_who_takes_over_a_secret_forgets_what_was_named_with_another():
    """And what is on its way under the old names is answered, and kept nowhere."""

    async def scene():
        shelf = Shelf()
        (first,) = await workers(1, shelf, shares_secret=True)
        shelf.fail("connect")
        late = await Worker(shelf, secret=OTHER_SECRET, shares_secret=True).met()
        await late.answer("x")
        place, key = late.place, late.key("x")
        shelf.recover()
        await late.met()
        assert late.scopes.secret == SECRET
        assert late.key("x") == first.key("x") != key
        assert not late.cache.waits
        made = late.make(place)
        assert (await late.cache.keep(place, {key: made}))[key] is made
        assert late.cache.recall([key]) == [None]
        assert not shelf.values

    asyncio.run(scene())

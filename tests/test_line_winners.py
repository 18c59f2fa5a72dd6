"""Whose vector is answered where several were made, and what is told of it."""

import asyncio

import pytest

from gateway.errors import InvalidRequestError, UpstreamError
from tests.backend import Backend, true
from tests.cache.shelf import Shelf
from tests.cache.worker import NOW, Clock, purge
from tests.line import Line, broken, counts, lines, right, settle, vectors


def test_the_one_who_was_first_is_answered_by_the_one_who_was_second():
    """P2: another worker was quicker; its vector goes out, with its tokens, and no claim to it."""

    async def scene():
        shelf = Shelf()
        one, other = await lines(2, shelf)
        other.backend.gate = asyncio.Event()
        late = other.begin("x")
        await settle()
        first = await one.ask("x")
        other.backend.gate.set()
        answer = await late
        assert vectors(answer) == vectors(first) == vectors(await other.ask("x"))
        assert (counts(answer), answer.stored, answer.age) == ({"upstream": 1}, 0, None)
        assert answer.billed == first.billed

    asyncio.run(scene())


def test_an_answer_says_whether_it_is_everybodys():
    """Unshared while the store is away, for as long as it is; what was kept before is not."""

    async def scene():
        shelf = Shelf()
        (line,) = await lines(1, shelf)
        await line.ask("old")
        shelf.fail("connect")
        told = [
            (await line.ask(*texts)).unshared
            for texts in (["old"], ["new"], ["new"], ["old", "new"], ["old"])
        ]
        assert told == [False, True, True, True, False]
        shelf.recover()
        await line.cache.meet()
        assert not (await line.ask("old", "new")).unshared

    asyncio.run(scene())


def test_what_was_cut_is_told_of_from_the_store_as_well():
    """P7: with its exact tokens and the fingerprint of what made it."""

    def cutting(texts):
        raw = true("m", texts)
        cut = [text == "long" for text in texts]
        return type(raw)(raw.rows, raw.tokens, False, cut, fingerprint="model 1")

    async def scene():
        shelf = Shelf()
        one = Line(Backend(answer=cutting), stores=[shelf], truncate=True)
        other = Line(stores=[shelf], truncate=True)
        for line in (one, other):
            await line.cache.meet()
        kept = await one.ask("a", "long")
        found = await other.ask("a", "long")
        assert list(kept.truncated) == list(found.truncated) == [1]
        assert (found.tokens, counts(found)) == (kept.tokens, {"store": 2})
        (entry,) = (entry for _, entry in other.memory.items() if entry.truncated)
        assert entry.fingerprint == "model 1"

    asyncio.run(scene())


def test_a_width_that_another_worker_learned_is_demanded():
    """P6: an upstream that was changed to another model is refused by all of them."""

    async def scene():
        shelf = Shelf()
        (one,) = await lines(1, shelf)
        await one.ask("x")
        await one.cache.meet()
        line = Line(Backend(answer=lambda texts: true("m", texts, width=9)), stores=[shelf])
        await line.cache.meet()
        with pytest.raises(UpstreamError, match="9 components where this model's have 8"):
            await line.ask("y")

    asyncio.run(scene())


def test_dimensions_are_checked_against_what_a_store_has():
    """The first request of a process may be one that cannot be had."""

    async def scene():
        shelf = Shelf()
        one = Line(stores=[shelf], dimensions="native")
        line = Line(Backend(answer=broken), stores=[shelf], dimensions="native")
        for each in (one, line):
            await each.cache.meet()
        await one.ask("x")
        assert vectors(await line.ask("x", dimensions=8)) == right("x")
        fresh = Line(Backend(answer=broken), stores=[shelf], dimensions="native")
        await fresh.cache.meet()
        with pytest.raises(InvalidRequestError):
            await fresh.ask("x", dimensions=4)

    asyncio.run(scene())


@pytest.mark.parametrize("ahead", [0.0, 60.0])
def test_after_a_purge_there_is_one_new_vector_whatever_the_clocks_say(ahead):
    """The one who purged may have another clock: what is made once it is known of is newer."""

    async def scene():
        clock, shelf = Clock(), Shelf()
        workers = await lines(2, shelf, now=clock)
        old = {vectors(await line.ask("x"))[0] for line in workers}
        clock.now = NOW + 1
        (scope,) = workers[0].cache.scopes
        purge(shelf, scope, before=NOW + 1 + ahead)
        for line in workers:
            await line.cache.meet()
        new = [vectors(await line.ask("x"))[0] for line in workers for _ in range(2)]
        assert new == [new[0]] * 4
        assert new[0] not in old

    asyncio.run(scene())

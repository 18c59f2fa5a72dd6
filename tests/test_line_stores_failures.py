"""The straight line over stores, when somebody leaves or fails, and what needs nobody else."""

import asyncio

import pytest

from gateway.errors import InvalidRequestError, TooManyTokensError, UpstreamError
from tests.backend import Backend
from tests.cache.shelf import Shelf
from tests.line import Line, bad, broken, lines, right, settle, vectors


def test_the_one_who_looks_may_leave():
    """Those who joined get what it finds, and what it asks for."""

    async def scene():
        shelf = Shelf()
        (line,) = await lines(1, shelf)
        shelf.hang("get")
        first = line.begin("x")
        await settle()
        others = [line.begin("x") for _ in range(3)]
        await settle()
        first.cancel()
        await settle()
        shelf.release()
        answers = await asyncio.gather(*others)
        assert len({vectors(answer)[0] for answer in answers}) == 1
        assert line.backend.calls == [["x"]]
        assert shelf.asked["get"] == 1

    asyncio.run(scene())


@pytest.mark.parametrize("verb", ["get", "add"])
def test_when_all_have_left_nothing_goes_on(verb):
    """The look ends, and no call is made; the next one looks and asks anew."""

    async def scene():
        shelf = Shelf()
        (line,) = await lines(1, shelf)
        shelf.hang(verb)
        waiting = [line.begin("x") for _ in range(3)]
        await settle()
        for request in waiting:
            request.cancel()
        await asyncio.wait(waiting)
        await settle()
        assert len(line.flights) == 0
        assert len(line.backend.calls) == (verb == "add")
        shelf.release()
        await settle()
        calls = len(line.backend.calls)
        (vector,) = vectors(await line.ask("x"))
        assert len(line.backend.calls) == calls + 1
        assert vectors(await line.ask("x")) == [vector]

    asyncio.run(scene())


def test_a_failure_of_the_upstream_is_everybodys_who_waits_and_the_store_stays_clean():
    """Who comes later looks and asks anew."""

    async def scene():
        shelf = Shelf()
        line = Line(Backend(answer=broken), stores=[shelf])
        await line.cache.meet()
        waiting = [line.begin("x"), line.begin("y", "x")]
        errors = await asyncio.gather(*waiting, return_exceptions=True)
        assert [UpstreamError, UpstreamError] == list(map(type, errors))
        assert not any(shelf.values.values())
        line.backend.answer = None
        assert vectors(await line.ask("x", "y")) == right("x", "y")

    asyncio.run(scene())


def test_a_refused_text_is_named_by_its_place_in_each_request():
    """Found, bad and good ones beside each other: who joined asks for the good ones again."""

    async def scene():
        shelf = Shelf()
        one = Line(stores=[shelf])
        line = Line(Backend(answer=bad("worst")), stores=[shelf])
        for each in (one, line):
            await each.cache.meet()
        await one.ask("stored")
        first = line.begin("stored", "good", "worst")
        second = line.begin("worst", "stored")
        third = line.begin("good", "stored")
        with pytest.raises(InvalidRequestError, match=r"input\[2\]"):
            await first
        with pytest.raises(InvalidRequestError, match=r"input\[0\]"):
            await second
        assert vectors(await third) == right("good", "stored")
        await settle()
        assert len(line.flights) == 0

    asyncio.run(scene())


def test_a_look_that_fails_is_a_miss():
    """A store that goes away while many wait for it costs them a miss, and one call."""

    async def scene():
        shelf = Shelf()
        (line,) = await lines(1, shelf)
        shelf.hang()
        waiting = [line.begin("x") for _ in range(10)]
        await settle()
        shelf.fail("timeout")
        shelf.release()
        answers = await asyncio.gather(*waiting)
        assert len({vectors(answer)[0] for answer in answers}) == 1
        assert {answer.unshared for answer in answers} == {True}
        assert line.backend.calls == [["x"]]

    asyncio.run(scene())


# what needs nobody else


def test_what_is_kept_is_answered_though_the_upstream_is_down():
    """P9: from a store as from memory, and in a batch of nothing but that."""

    async def scene():
        shelf = Shelf()
        (one,) = await lines(1, shelf)
        kept = vectors(await one.ask("a", "b"))
        line = Line(Backend(answer=broken), stores=[shelf])
        await line.cache.meet()
        assert vectors(await line.ask("a")) == kept[:1]
        assert vectors(await line.ask("b", "a")) == kept[::-1]
        with pytest.raises(UpstreamError):
            await line.ask("a", "new")

    asyncio.run(scene())


@pytest.mark.parametrize(("count", "max_tokens"), [(False, None), (True, None), (False, 200_000)])
def test_long_texts_that_are_kept_are_not_counted(count, max_tokens):
    """P9: their tokens have to be known before an upstream is asked, and nobody asks one."""

    class Dead(Backend):
        async def count(self, *_, **__):
            raise UpstreamError("the engine is down")

    async def scene():
        shelf = Shelf()
        texts = ["word " * 30_000, "words " * 20_000]
        backend = Backend(counts=lambda text: len(text.split()))
        one = Line(backend, stores=[shelf], count=count, max_tokens=max_tokens)
        await one.cache.meet()
        kept = await one.ask(*texts)
        model = {"count": count, "max_tokens": max_tokens}
        line = Line(Dead(answer=broken), stores=[shelf], **model)
        await line.cache.meet()
        found = await line.ask(*texts)
        assert vectors(found) == vectors(kept)
        assert found.tokens == kept.tokens

    asyncio.run(scene())


def test_tokens_of_what_is_kept_count_towards_the_limit_of_a_request():
    """300,000 a request, wherever they are known; nothing more is asked for then."""

    async def scene():
        shelf = Shelf()
        texts = ["word " * 60_000 + str(number) for number in range(6)]
        line = Line(Backend(counts=lambda text: len(text) // 5), stores=[shelf])
        await line.cache.meet()
        for text in texts[:3]:
            await line.ask(text)
        calls = list(line.backend.calls)
        with pytest.raises(TooManyTokensError):
            await line.ask(*texts)
        assert line.backend.calls == calls

    asyncio.run(scene())


def test_a_text_that_stands_in_a_request_many_times_counts_as_often():
    """Though it would be sent once."""

    async def scene():
        line = Line(Backend(counts=lambda text: len(text) // 5))
        text = "word " * 10_000
        with pytest.raises(TooManyTokensError):
            await line.ask(*[text] * 40)
        assert line.backend.calls == []

    asyncio.run(scene())


def test_a_request_that_is_too_much_stops_nobody_who_joined_it():
    """Its tokens are its own affair: who waits for one of its texts asks for that by itself."""

    async def scene():
        shelf = Shelf()
        backend = Backend(counts=lambda text: len(text) // 5)
        line = Line(backend, stores=[shelf])
        await line.cache.meet()
        large = line.begin("x", *("word " * 80_000 + str(number) for number in range(5)))
        small = line.begin("x")
        with pytest.raises(TooManyTokensError):
            await large
        assert vectors(await small) == right("x")

    asyncio.run(scene())
